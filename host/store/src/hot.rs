//! The hot cache: recently read rows in memory, limited by bytes.
//!
//! An entry has the rows of one entity in all views that were requested for it, in one block of memory. So a request
//! for features of several views needs only one lookup. Most of the time of a lookup is spent waiting for memory.
//!
//! Readers fill the cache. After every commit, the cache must be consistent with the store, without a lock between
//! readers and the writer. The danger is a slow reader: it reads a row, a commit replaces that row, and only then does
//! the reader insert its old copy into the cache.
//!
//! So every entry has the number of the commit that its reader saw. Every entity maps to one of many slots, and each
//! slot has the number of the last commit that changed an entity of that slot. An entry is valid only if its number is
//! not below the number of its slot.
//!
//! After a commit, and before readers can see the new state, the writer sets the slots of all changed entities to the
//! number of the commit. So once any caller can read the new version of a row, no entry with an older version is valid,
//! no matter when the entry was inserted. Entries of other entities in the same slots become invalid, too, and their
//! rows are read from disk again. No slot has a higher number than the last commit that changed any entity, so a lookup
//! checks that number first.
//!
//! Each thread keeps entries that it found recently in a per-thread cache (L1) in front of the shared cache
//! ([`thread_cache`]), at most until the shared cache evicts them. The same numbers determine whether an entry of a
//! per-thread cache is valid.
//!
//! The same numbers give each reader a consistent state: a reader uses an entry only if no entity of the slot changed
//! after the commit that the reader sees. Otherwise, a slow reader would get some rows that are newer than its state.

use std::{
    hash::{BuildHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use larder_model::model::EntityId;
use moka::sync::Cache;
use smallvec::{SmallVec, smallvec};

pub(super) use self::entry::{EntityRows, FoundRow};
pub use self::entry::{Lookup, Row, RowMemory};
use self::{
    entry::prefetch,
    thread_cache::{ThreadCache, ThreadCaches},
};

mod entry;
mod thread_cache;

/// Limits of the hot cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotCacheConfig {
    /// The maximum number of bytes for entries and their overhead; 0 turns the cache off. In addition, each thread that
    /// looks up rows has a table of up to 1 MiB.
    pub bytes_max: u64,
}

#[derive(Debug)]
pub(super) struct HotCache {
    cache: Option<Cache<HotKey, EntityRows, HotHasher>>,
    /// For each slot, the number of the last commit that changed one of its entities.
    slots: Box<[AtomicU64]>,
    /// The number of the last commit that changed any entity. No slot has a higher number.
    newest: AtomicU64,
    /// The per-thread caches (L1).
    thread_caches: Arc<ThreadCaches>,
    /// Whether insertions are paused because the process is close to its memory limit.
    is_paused: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HotKey(EntityId);

/// Reduces entity ids, which are already hashes, to 64 bits.
#[derive(Clone, Copy, Debug)]
struct HotHasher;

#[derive(Debug)]
struct HotHash(u64);

/// The number of slots: 64 Ki. A commit of one row invalidates about 1 in 65,536 entries of other entities. The slots
/// take 512 KiB of memory.
const SLOTS: usize = 1 << 16;

/// The memory that an entry takes in addition to its block, in bytes: the key, reference counts and the cache's own
/// nodes. Measured as resident memory with a million entries.
const ENTRY_BYTES: usize = 350;

/// One entry in this many is sampled to find the median address of the entries.
const SAMPLED: usize = 16;

impl Default for HotCacheConfig {
    fn default() -> Self {
        Self { bytes_max: 256 << 20 }
    }
}

// === impl HotCache ===

impl HotCache {
    pub(super) fn new(config: HotCacheConfig) -> Self {
        let thread_caches = Arc::new(ThreadCaches::new(config.bytes_max));
        let listener = Arc::clone(&thread_caches);
        let cache = (config.bytes_max > 0).then(|| {
            Cache::builder()
                .max_capacity(config.bytes_max)
                .weigher(|_: &HotKey, rows: &EntityRows| u32::try_from(rows.bytes() + ENTRY_BYTES).unwrap_or(u32::MAX))
                .eviction_listener(move |key, rows, _| listener.note_evicted(HotHasher.hash_one(*key), rows))
                .build_with_hasher(HotHasher)
        });
        let slots = (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
        Self { cache, slots, newest: AtomicU64::new(0), thread_caches, is_paused: AtomicBool::new(false) }
    }

    /// Returns whether the cache is on.
    pub(super) fn is_enabled(&self) -> bool {
        self.cache.is_some()
    }

    /// Returns the entry of each entity; `None` if there is no entry that is valid for a reader of the state of commit
    /// `seen`. The caller will probably read the rows of `views` next, so rows in the per-thread cache are prefetched
    /// into the processor's caches.
    pub(super) fn get(&self, ids: &[EntityId], views: &[Lookup], seen: u64) -> SmallVec<[Option<EntityRows>; 4]> {
        let Some(cache) = &self.cache else { return SmallVec::from_elem(None, ids.len()) };
        let found = self.thread_caches.with_own(|thread_cache| {
            let hash = |id: &EntityId| HotHasher.hash_one(HotKey(*id));
            let is_valid = |rows: &&EntityRows, hash| self.is_valid(rows, hash, seen);
            if let [id] = ids {
                let hash = hash(id);
                let local = thread_cache.get(id, hash);
                prefetch(&[local], views);
                let local = local.filter(|rows| is_valid(rows, hash)).cloned();
                return smallvec![self.local_or_shared(cache, thread_cache, id, hash, local, seen)];
            }
            let hashes: SmallVec<[u64; 4]> = ids.iter().map(hash).collect();
            thread_cache.prefetch(&hashes);
            let local = ids.iter().zip(&hashes).map(|(id, hash)| thread_cache.get(id, *hash));
            let local: SmallVec<[Option<&EntityRows>; 4]> = local.collect();
            prefetch(&local, views);
            let local = local.into_iter().zip(&hashes);
            let local = local.map(|(rows, hash)| rows.filter(|rows| is_valid(rows, *hash)).cloned());
            let mut found: SmallVec<[Option<EntityRows>; 4]> = local.collect();
            for ((id, hash), rows) in ids.iter().zip(hashes).zip(&mut found) {
                *rows = self.local_or_shared(cache, thread_cache, id, hash, rows.take(), seen);
            }
            found
        });
        self.thread_caches.remove_evicted();
        found
    }

    /// Returns `local`, the valid entry of the per-thread cache, if there is one, and reports some of these hits to the
    /// shared cache. Otherwise, returns the entry of the shared cache if it is valid, and inserts it into the
    /// per-thread cache.
    #[inline]
    fn local_or_shared(
        &self,
        cache: &Cache<HotKey, EntityRows, HotHasher>,
        thread_cache: &mut ThreadCache,
        id: &EntityId,
        hash: u64,
        local: Option<EntityRows>,
        seen: u64,
    ) -> Option<EntityRows> {
        if let Some(rows) = local {
            if thread_cache.should_report_hit() {
                cache.get(&HotKey(*id));
            }
            return Some(rows);
        }
        let rows = cache.get(&HotKey(*id)).filter(|rows| self.is_valid(rows, hash, seen))?;
        thread_cache.insert(id, hash, rows.clone());
        Some(rows)
    }

    /// Returns whether an entry is valid for a reader of the state of commit `seen`. Call this only after obtaining the
    /// entry, because this function reads the slot: at that time, every commit that was visible to the reader that
    /// inserted the entry has raised the slot. A reader whose own state is older than the slot's last commit therefore
    /// rejects the entry.
    fn is_valid(&self, rows: &EntityRows, hash: u64, seen: u64) -> bool {
        let is_valid = |changed| rows.seen() >= changed && seen >= changed;
        // Usually no entity has changed since the entry was inserted. Reading a slot would cost one more cache line.
        is_valid(self.newest.load(Ordering::Acquire))
            || is_valid(self.slots[hash as usize % SLOTS].load(Ordering::Acquire))
    }

    /// Combines the rows that a reader found in the state of commit `seen` with the entry `before`, which it got from
    /// [`HotCache::get`], into one entry. Inserts this entry into the cache and returns it. If the entity may have
    /// changed since commit `seen`, or if the cache is off or paused, only returns the entry.
    pub(super) fn put(&self, id: &EntityId, before: Option<&EntityRows>, found: &[FoundRow], seen: u64) -> EntityRows {
        let rows = EntityRows::of(id, before, found, seen);
        if let Some(cache) = &self.cache
            && seen >= self.slot(id).load(Ordering::Acquire)
            && !self.is_paused.load(Ordering::Relaxed)
        {
            self.thread_caches.with_own(|thread_cache| {
                cache.insert(HotKey(*id), rows.clone());
                // The entry in this thread's cache does not have the new rows.
                thread_cache.insert(id, HotHasher.hash_one(HotKey(*id)), rows.clone());
            });
            self.thread_caches.remove_evicted();
        }
        rows
    }

    /// Invalidates every entry of an entity from before the commit with the number `commit`. Call this function after
    /// the commit, and before readers can see the new state.
    pub(super) fn invalidate(&self, id: &EntityId, commit: u64) {
        self.newest.fetch_max(commit, Ordering::Release);
        self.slot(id).fetch_max(commit, Ordering::Release);
    }

    /// Returns whether a commit after `seen` changed the entity, or another entity with the same slot.
    pub(super) fn changed_since(&self, id: &EntityId, seen: u64) -> bool {
        self.slot(id).load(Ordering::Acquire) > seen
    }

    /// Returns whether the cache has an entry of the entity, valid or not.
    pub(super) fn contains(&self, id: &EntityId) -> bool {
        self.cache.as_ref().is_some_and(|cache| cache.contains_key(&HotKey(*id)))
    }

    /// Invalidates the entries of all entities, as [`HotCache::invalidate`] does for one entity.
    pub(super) fn invalidate_all(&self, commit: u64) {
        self.newest.fetch_max(commit, Ordering::Release);
        for slot in &self.slots {
            slot.fetch_max(commit, Ordering::Release);
        }
    }

    /// Pauses or resumes the insertion of rows.
    pub(super) fn set_paused(&self, is_paused: bool) {
        self.is_paused.store(is_paused, Ordering::Relaxed);
    }

    /// Evicts about half of the entries: the ones with the higher memory addresses.
    ///
    /// Memory returns to the operating system in whole pages, and a page has several entries. Evicting entries that are
    /// neighbors in memory frees their pages. Evicting scattered entries frees almost no pages.
    pub(super) fn shrink(&self) {
        let Some(cache) = &self.cache else { return };
        // The median is estimated from a sample, because a list of all addresses would take memory when memory is
        // short.
        let mut sample: Vec<usize> = cache.iter().step_by(SAMPLED).map(|(_, rows)| rows.address()).collect();
        if sample.is_empty() {
            return;
        }
        let half = sample.len() / 2;
        let (_, middle, _) = sample.select_nth_unstable(half);
        for (key, _) in cache.iter().filter(|(_, rows)| rows.address() >= *middle) {
            cache.invalidate(&*key);
        }
        cache.run_pending_tasks();
        self.thread_caches.remove_evicted();
    }

    /// Returns the size of all entries in bytes, including their overhead.
    pub(super) fn weight(&self) -> u64 {
        self.cache.as_ref().map_or(0, Cache::weighted_size)
    }

    fn slot(&self, id: &EntityId) -> &AtomicU64 {
        let index = HotHasher.hash_one(HotKey(*id)) as usize % SLOTS;
        &self.slots[index]
    }
}

// === impl HotKey ===

impl Hash for HotKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let id = u128::from_le_bytes(self.0.0);
        #[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
        state.write_u64((id as u64) ^ (id >> 64) as u64);
    }
}

// === impl HotHasher ===

impl BuildHasher for HotHasher {
    type Hasher = HotHash;

    fn build_hasher(&self) -> HotHash {
        HotHash(0)
    }
}

// === impl HotHash ===

impl Hasher for HotHash {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        // The multiplier of Fibonacci hashing spreads every bit over the others.
        let mixed = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Barrier, mpsc},
        thread,
    };

    use super::*;
    use crate::ViewId;

    const ID: EntityId = EntityId([1; 16]);

    fn found(view: u32, row: Option<&[u8]>) -> FoundRow {
        FoundRow { view: ViewId(view), generation: 0, row: row.map(Row::copy_of), text: Vec::new() }
    }

    fn get(hot: &HotCache, seen: u64) -> Option<EntityRows> {
        hot.get(&[ID], &[Lookup { view: ViewId(1), values: 1 }], seen).pop().flatten()
    }

    /// Returns the cached row of a view as text; `Some(None)` if the entry records that there is no row.
    fn known(hot: &HotCache, view: u32, seen: u64) -> Option<Option<String>> {
        let row = get(hot, seen)?.row(ViewId(view), 0)?;
        Some(row.map(|row| String::from_utf8(row.to_vec()).unwrap()))
    }

    fn row(text: &str) -> Option<Option<String>> {
        Some(Some(text.to_owned()))
    }

    #[test]
    fn copy_from_before_commit_is_invalid() {
        let hot = HotCache::new(HotCacheConfig::default());
        hot.put(&ID, None, &[found(1, Some(b"old"))], 4);
        assert_eq!(known(&hot, 1, 4), row("old"));

        hot.invalidate(&ID, 5);
        assert_eq!(known(&hot, 1, 5), None, "the cached copy");
        hot.put(&ID, None, &[found(1, Some(b"old"))], 4);
        assert_eq!(known(&hot, 1, 5), None, "the copy of a late reader");

        hot.put(&ID, None, &[found(1, Some(b"new"))], 5);
        assert_eq!(known(&hot, 1, 5), row("new"));
        assert_eq!(known(&hot, 1, 4), None, "a reader of the previous state does not see it");
    }

    #[test]
    fn threads_see_each_others_insertions() {
        let hot = HotCache::new(HotCacheConfig::default());
        hot.put(&ID, None, &[found(1, Some(b"old"))], 4);
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                assert_eq!(known(&hot, 1, 4), row("old"), "from the shared cache");
                hot.invalidate(&ID, 5);
                hot.put(&ID, None, &[found(1, Some(b"new"))], 5);
            });
            other.join().unwrap();
        });
        assert_eq!(known(&hot, 1, 5), row("new"), "not the old copy in this thread's cache");
    }

    #[test]
    fn evicted_entry_leaves_thread_cache() {
        let hot = HotCache::new(HotCacheConfig::default());
        hot.put(&ID, None, &[found(1, Some(b"row"))], 1);
        assert_eq!(known(&hot, 1, 1), row("row"));
        hot.cache.as_ref().unwrap().invalidate(&HotKey(ID));
        hot.thread_caches.remove_evicted();
        assert_eq!(known(&hot, 1, 1), None);
        hot.put(&ID, None, &[found(1, Some(b"again"))], 1);
        assert_eq!(known(&hot, 1, 1), row("again"));
    }

    #[test]
    fn thread_caches_hold_only_cached_entries() {
        const BYTES_MAX: usize = 1 << 18;
        let hot = HotCache::new(HotCacheConfig { bytes_max: BYTES_MAX as u64 });
        let id = |n: u64| EntityId([n.to_le_bytes(), [0; 8]].concat().try_into().unwrap());
        let large = [0; 2_000];
        let go = |thread: u64| {
            let look = |n: u64| {
                let ids = [id(n % 300), id(n * 7 % 300)];
                let known = hot.get(&ids[..=usize::from(n.is_multiple_of(3))], &[], 1);
                ids.into_iter().zip(known).find(|(_, known)| known.is_none())
            };
            let missed = (0..5_000).filter_map(|n| look(thread * 31 + n * 13));
            missed.map(|(id, _)| hot.put(&id, None, &[found(1, Some(&large))], 1)).collect::<Vec<_>>()
        };
        let is_counted = Barrier::new(5);
        let (put, held) = thread::scope(|scope| {
            let (ended, are_ended) = mpsc::channel();
            for thread in 0..4 {
                let (ended, is_counted, go) = (ended.clone(), &is_counted, &go);
                scope.spawn(move || {
                    ended.send(go(thread)).unwrap();
                    // Keeps the thread's table alive until the entries are counted.
                    is_counted.wait();
                });
            }
            let put: Vec<EntityRows> = are_ended.iter().take(4).flatten().collect();
            let cache = hot.cache.as_ref().unwrap();
            cache.run_pending_tasks();
            hot.thread_caches.remove_evicted();
            // The cache frees evicted entries a little later, while it is used.
            let count = || put.iter().filter(|rows| rows.owner_count() > 1).count();
            let held = (0..1_000).map(|_| count()).find(|held| {
                cache.iter().for_each(drop);
                held * large.len() <= BYTES_MAX
            });
            is_counted.wait();
            (put.len(), held)
        });
        assert!(put > 1_000, "only {put} insertions: hardly any misses");
        assert!(held.is_some_and(|held| held > 20), "too many of {put} are held");
    }

    #[test]
    fn shrink_evicts_half_pause_stops_inserts() {
        let hot = HotCache::new(HotCacheConfig::default());
        let id = |n: u64| EntityId([n.to_le_bytes(), [0; 8]].concat().try_into().unwrap());
        let put = |n: u64| hot.put(&id(n), None, &[found(1, Some(b"row"))], 1);
        let held = || (0..1_000).filter(|n| hot.get(&[id(*n)], &[], 1)[0].is_some()).count();
        (0..1_000).for_each(|n| drop(put(n)));
        assert_eq!(held(), 1_000);
        hot.set_paused(true);
        hot.shrink();
        let left = held();
        assert!((300..=700).contains(&left), "{left}: neither the cache nor this thread's table has the others");
        (0..1_000).for_each(|n| drop(put(n)));
        assert_eq!(held(), left);
        hot.set_paused(false);
        (0..1_000).for_each(|n| drop(put(n)));
        assert_eq!(held(), 1_000);
    }

    #[test]
    fn shrink_frees_neighboring_entries_immediately() {
        let hot = HotCache::new(HotCacheConfig::default());
        let id = |n: u64| EntityId([n.to_le_bytes(), [0; 8]].concat().try_into().unwrap());
        let row = [7; 1_000];
        let put: Vec<_> = (0..20_000).map(|n| (id(n), hot.put(&id(n), None, &[found(1, Some(&row))], 1))).collect();
        hot.shrink();
        // Count before the loop below, because each use of the cache frees some evicted entries.
        let freed = put.iter().filter(|(_, rows)| rows.owner_count() == 1).count();
        let (mut left, mut evicted) = (Vec::new(), Vec::new());
        let cache = hot.cache.as_ref().unwrap();
        for (id, rows) in &put {
            let list = if cache.contains_key(&HotKey(*id)) { &mut left } else { &mut evicted };
            list.push(rows.address());
        }
        assert!((8_000..=12_000).contains(&left.len()), "{}", left.len());
        assert!(left.iter().max() < evicted.iter().min(), "kept and evicted entries are apart in memory");
        assert!(freed + 200 > evicted.len(), "{freed} of {} evicted entries are freed", evicted.len());
    }

    #[test]
    fn batch_lookup_equals_single_lookups() {
        let hot = HotCache::new(HotCacheConfig::default());
        let id = |n: u8| EntityId([[n; 8], [0; 8]].concat().try_into().unwrap());
        let put = |n: u8| {
            // Small and large entries, and one that records that there is no row.
            let row = vec![n; usize::from(n) * 500];
            let found = [found(1, (n != 4).then_some(&*row)), FoundRow { text: vec![n; 300], ..found(2, Some(&row)) }];
            hot.put(&id(n), None, &found, 1);
        };
        // Half of the entries are in this thread's cache, the others only in the shared cache. Some ids have no entry.
        (0..6).step_by(2).for_each(put);
        thread::scope(|scope| scope.spawn(|| (1..6).step_by(2).for_each(put)).join().unwrap());
        hot.invalidate(&id(0), 2);

        let ids: Vec<EntityId> = (0..9).map(id).collect();
        let wanted = [1, 2, 3].map(|view| Lookup { view: ViewId(view), values: 2 });
        let rows = |found: Option<EntityRows>| found.map(|rows| [1, 2].map(|view| rows.row(ViewId(view), 0)));
        let together: Vec<_> = hot.get(&ids, &wanted, 2).into_iter().map(rows).collect();
        let len = |row: &Option<Option<Row>>| row.as_ref().unwrap().as_ref().map(|row| row.len());
        let lens: Vec<_> = together.iter().map(|rows| rows.as_ref().map(|rows| len(&rows[0]))).collect();
        let there = |len| Some(Some(len));
        assert_eq!(lens, [None, there(500), there(1_000), there(1_500), Some(None), there(2_500), None, None, None]);
        for (id, together) in ids.iter().zip(together) {
            assert_eq!(rows(hot.get(&[*id], &wanted, 2).pop().unwrap()), together);
        }
    }

    #[test]
    fn views_of_entity_share_an_entry() {
        let hot = HotCache::new(HotCacheConfig::default());
        hot.put(&ID, None, &[found(1, Some(b"one")), found(2, None)], 1);
        let before = get(&hot, 1);
        hot.put(&ID, before.as_ref(), &[found(3, Some(b"three"))], 1);
        assert_eq!(known(&hot, 1, 1), row("one"));
        assert_eq!(known(&hot, 2, 1), Some(None), "the missing row is cached, too");
        assert_eq!(known(&hot, 3, 1), row("three"));
        assert_eq!(known(&hot, 4, 1), None);
    }

    #[test]
    fn added_rows_keep_older_commit() {
        let hot = HotCache::new(HotCacheConfig::default());
        hot.put(&ID, None, &[found(1, Some(b"old"))], 4);
        let before = get(&hot, 4);
        // A commit happens between a reader's `get` and its `put`. The reader adds a row that it read after the commit.
        hot.invalidate(&ID, 5);
        hot.put(&ID, before.as_ref(), &[found(2, Some(b"two"))], 5);
        assert_eq!(known(&hot, 1, 5), None, "the old copy of view 1 must not become valid");
    }

    #[test]
    fn generations_have_separate_copies() {
        let hot = HotCache::new(HotCacheConfig::default());
        hot.put(&ID, None, &[found(1, Some(b"one"))], 1);
        assert!(get(&hot, 1).unwrap().row(ViewId(1), 1).is_none());
        let next = FoundRow { generation: 1, ..found(1, Some(b"next")) };
        hot.put(&ID, get(&hot, 1).as_ref(), &[next], 1);
        let rows = get(&hot, 1).unwrap();
        assert_eq!(rows.row(ViewId(1), 1), Some(Some(Row::copy_of(b"next"))));
        assert!(rows.row(ViewId(1), 0).is_none(), "the previous generation is gone");
    }

    #[test]
    fn bytes_max_limits_and_zero_disables() {
        let hot = HotCache::new(HotCacheConfig { bytes_max: 10_000 });
        for i in 0..200_u8 {
            hot.put(&EntityId([i; 16]), None, &[found(1, Some(&[0; 100]))], 1);
        }
        hot.cache.as_ref().unwrap().run_pending_tasks();
        assert!(hot.weight() <= 10_000 && hot.weight() > 5_000, "{}", hot.weight());

        let off = HotCache::new(HotCacheConfig { bytes_max: 0 });
        off.put(&ID, None, &[found(1, Some(b"x"))], 1);
        assert_eq!(known(&off, 1, 1), None);
    }
}
