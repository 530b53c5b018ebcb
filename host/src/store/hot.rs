//! The hot cache: rows that were read lately, in memory, bounded by bytes.
//!
//! It is filled by readers and has to be honest after every commit, without a lock between the two. The danger is a
//! slow reader: it loads a row, a commit replaces that row, and only then the reader puts its old copy in.
//!
//! So every entry carries the number of the commit that its reader saw, and every key falls into one of many slots
//! that hold the number of the last commit which changed a key of that slot. A copy counts only if its number is not
//! below its slot's. The writer raises the slots after its commit and before the new state can be read: from the
//! moment that anyone can read a new row, no older copy of it counts, whenever it was put in. Keys that share a slot
//! with a changed one lose their copies for nothing; they are read from disk once more.
//!
//! The same numbers keep a reader in its own state: it takes a copy only if nothing in the slot changed after the
//! commit that it sees, or a slow reader would find newer rows among its own.

use std::{
    hash::{BuildHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use larder_model::model::EntityId;
use moka::sync::Cache;

use super::online::ViewId;

/// Bounds of the hot cache.
#[derive(Clone, Copy, Debug)]
pub struct HotCacheConfig {
    /// The most bytes of rows and bookkeeping; 0 turns the cache off.
    pub bytes_max: u64,
}

/// A row's bytes, or the knowledge that there is no row.
pub(super) type CachedRow = Option<Arc<[u8]>>;

#[derive(Debug)]
pub(super) struct HotCache {
    cache: Option<Cache<HotKey, HotEntry, HotHasher>>,
    slots: Box<[AtomicU64]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HotKey {
    pub(super) view: ViewId,
    pub(super) generation: u32,
    pub(super) id: EntityId,
}

#[derive(Clone, Debug)]
struct HotEntry {
    row: CachedRow,
    /// The commit that the reader saw.
    seen: u64,
}

/// Entity ids are hashes already: mixing in the view is enough.
#[derive(Clone, Copy, Debug)]
struct HotHasher;

#[derive(Debug)]
struct HotHash(u64);

/// 64 Ki slots: a commit of one row puts about 1 in 65,536 copies of other rows out of use, for 512 KiB of memory.
const SLOTS: usize = 1 << 16;

/// What an entry costs beside its row: key, commit number, reference counts and the cache's own nodes. Measured as
/// resident memory over a million entries of 64 bytes; rounded up.
const ENTRY_BYTES: usize = 200;

impl Default for HotCacheConfig {
    fn default() -> Self {
        Self { bytes_max: 256 << 20 }
    }
}

// === impl HotCache ===

impl HotCache {
    pub(super) fn new(config: HotCacheConfig) -> Self {
        let cache = (config.bytes_max > 0).then(|| {
            Cache::builder()
                .max_capacity(config.bytes_max)
                .weigher(|_: &HotKey, entry: &HotEntry| {
                    let row = entry.row.as_ref().map_or(0, |row| row.len());
                    u32::try_from(row + ENTRY_BYTES).unwrap_or(u32::MAX)
                })
                .build_with_hasher(HotHasher)
        });
        Self { cache, slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }

    /// The copy of a row for a reader of the state of commit `seen`, if there is one that counts.
    pub(super) fn get(&self, key: &HotKey, seen: u64) -> Option<CachedRow> {
        let entry = self.cache.as_ref()?.get(key)?;
        let changed = self.slot(key).load(Ordering::Acquire);
        (entry.seen >= changed && seen >= changed).then_some(entry.row)
    }

    /// Keeps a copy of what a reader found in the state of commit `seen`.
    pub(super) fn put(&self, key: HotKey, row: CachedRow, seen: u64) {
        let Some(cache) = &self.cache else { return };
        if seen >= self.slot(&key).load(Ordering::Acquire) {
            cache.insert(key, HotEntry { row, seen });
        }
    }

    /// Puts out of use every copy of a key from before commit `commit`. To be called after that commit and before
    /// its state can be read.
    pub(super) fn outdate(&self, key: &HotKey, commit: u64) {
        self.slot(key).fetch_max(commit, Ordering::Release);
    }

    /// Bytes that the entries weigh.
    pub(super) fn weight(&self) -> u64 {
        self.cache.as_ref().map_or(0, Cache::weighted_size)
    }

    fn slot(&self, key: &HotKey) -> &AtomicU64 {
        let place = HotHasher.hash_one(key) as usize % SLOTS;
        &self.slots[place]
    }
}

// === impl HotKey ===

impl Hash for HotKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let id = u128::from_le_bytes(self.id.0);
        #[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
        let folded = (id as u64) ^ (id >> 64) as u64;
        state.write_u64(folded ^ (u64::from(self.view.0) << 32 | u64::from(self.generation)));
    }
}

// === impl HotHash ===

impl BuildHasher for HotHasher {
    type Hasher = HotHash;

    fn build_hasher(&self) -> HotHash {
        HotHash(0)
    }
}

impl Hasher for HotHash {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        // The multiplier of Fibonacci hashing spreads the view's and generation's bits over all others.
        let mixed = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> HotKey {
        HotKey { view: ViewId(1), generation: 0, id: EntityId([byte; 16]) }
    }

    fn row(bytes: &[u8]) -> CachedRow {
        Some(bytes.into())
    }

    #[test]
    fn a_copy_from_before_a_commit_does_not_count_after_it_whenever_it_is_put_in() {
        let hot = HotCache::new(HotCacheConfig::default());
        hot.put(key(1), row(b"old"), 4);
        assert_eq!(hot.get(&key(1), 4), Some(row(b"old")));

        hot.outdate(&key(1), 5);
        assert_eq!(hot.get(&key(1), 5), None, "the copy that was there");
        hot.put(key(1), row(b"old"), 4);
        assert_eq!(hot.get(&key(1), 5), None, "the copy of a reader that was late");

        hot.put(key(1), row(b"new"), 5);
        assert_eq!(hot.get(&key(1), 5), Some(row(b"new")));
    }

    #[test]
    fn a_reader_gets_no_copy_from_after_its_own_commit() {
        let hot = HotCache::new(HotCacheConfig::default());
        hot.outdate(&key(1), 5);
        hot.put(key(1), row(b"new"), 5);
        assert_eq!(hot.get(&key(1), 4), None);
        assert_eq!(hot.get(&key(1), 6), Some(row(b"new")), "nothing changed since");
    }

    #[test]
    fn that_there_is_no_row_is_remembered_and_forgotten_like_a_row() {
        let hot = HotCache::new(HotCacheConfig::default());
        hot.put(key(2), None, 1);
        assert_eq!(hot.get(&key(2), 1), Some(None));
        hot.outdate(&key(2), 2);
        assert_eq!(hot.get(&key(2), 2), None);
    }

    #[test]
    fn a_generation_has_its_own_copies() {
        let hot = HotCache::new(HotCacheConfig::default());
        hot.put(key(1), row(b"one"), 1);
        assert_eq!(hot.get(&HotKey { generation: 1, ..key(1) }, 1), None);
    }

    #[test]
    fn bytes_max_holds_and_zero_keeps_nothing() {
        let hot = HotCache::new(HotCacheConfig { bytes_max: 10_000 });
        for i in 0..200_u8 {
            hot.put(key(i), row(&[0; 100]), 1);
        }
        hot.cache.as_ref().unwrap().run_pending_tasks();
        assert!(hot.weight() <= 10_000 && hot.weight() > 5_000, "{}", hot.weight());

        let off = HotCache::new(HotCacheConfig { bytes_max: 0 });
        off.put(key(1), row(b"x"), 1);
        assert_eq!(off.get(&key(1), 1), None);
    }
}
