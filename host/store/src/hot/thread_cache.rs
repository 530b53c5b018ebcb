//! The per-thread caches (L1) in front of the hot cache. Each has entries that its thread found recently. Finding a row
//! in the hot cache and recording the hit there waits for memory about a dozen times. Finding it here waits once.
//!
//! Each thread has its own table. Other threads lock it only to remove entries that the hot cache evicted. So all
//! entries in tables, except ones that were just evicted, are also in the hot cache, share its memory, and count toward
//! its size. A table consists of sets of three entries, and the hash of an id determines the set that can have its
//! entry. A set is one cache line, which the processor reads in one access. If a fourth entry maps to a set, the least
//! recently inserted one is evicted.

use std::{
    cell::RefCell,
    ptr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use larder_model::model::EntityId;

use super::EntityRows;

/// The tables of all threads that use one hot cache.
#[derive(Debug)]
pub(super) struct ThreadCaches {
    tables: Mutex<Vec<Weak<Mutex<ThreadCache>>>>,
    /// Entries that the hot cache evicted, each with the hash of its id. Tables may still have them.
    evicted: Mutex<Vec<(u64, EntityRows)>>,
    has_evicted: AtomicBool,
    /// The number of sets in each table.
    sets: usize,
}

/// The table of one thread.
#[derive(Debug)]
pub(super) struct ThreadCache {
    /// The sets; their number is a power of two.
    sets: Box<[Set]>,
    /// The number of hits.
    hits: u32,
}

/// This thread's table, and the [`ThreadCaches`] that it belongs to.
#[derive(Debug, Default)]
struct Own {
    of: Weak<ThreadCaches>,
    thread_cache: Option<Arc<Mutex<ThreadCache>>>,
}

/// A set of entries, the most recently inserted one first.
#[derive(Clone, Debug, Default)]
#[repr(align(64))]
struct Set {
    /// The upper half of each entry's hash. Most of these bits are not used to select the set, so they distinguish the
    /// entries in it. Only an entry with a matching tag costs a second memory access.
    tags: [u32; WAYS],
    rows: [Option<EntityRows>; WAYS],
}

/// The number of entries in a set.
const WAYS: usize = 3;

/// The maximum number of sets. A larger table would evict other data from the processor's caches.
const SETS_MAX: usize = 1 << 14;
/// A table has one set for this many bytes of the hot cache.
const SET_BYTES: u64 = 1 << 10;
/// One hit in this many is reported to the hot cache, which keeps the entries that are requested often. The number is a
/// prime, so if a caller requests the same entities again and again, each of them is reported eventually.
const HITS_PER_REPORT: u32 = 127;

thread_local! {
    static OWN: RefCell<Own> = RefCell::default();
}

// === impl ThreadCaches ===

impl ThreadCaches {
    /// Creates the per-thread caches of a hot cache of `bytes_max` bytes. They have no tables yet.
    pub(super) fn new(bytes_max: u64) -> Self {
        let sets = usize::try_from(bytes_max / SET_BYTES).unwrap_or(SETS_MAX).clamp(1, SETS_MAX).next_power_of_two();
        Self { tables: Mutex::default(), evicted: Mutex::default(), has_evicted: AtomicBool::new(false), sets }
    }

    /// Calls `use_table` with this thread's table, which is locked during the call, so that no other thread can remove
    /// entries from it. If `use_table` gets an entry from the hot cache and inserts it here, the hot cache either still
    /// has the entry or records its eviction with [`ThreadCaches::note_evicted`], so the entry is removed from the
    /// table later.
    #[inline]
    pub(super) fn with_own<T>(self: &Arc<Self>, use_table: impl FnOnce(&mut ThreadCache) -> T) -> T {
        OWN.with_borrow_mut(|own| {
            if !ptr::eq(own.of.as_ptr(), Arc::as_ptr(self)) {
                *own = Own { of: Arc::downgrade(self), thread_cache: None };
            }
            use_table(&mut lock(own.thread_cache.get_or_insert_with(|| self.create_table())))
        })
    }

    /// Records an entry that the hot cache evicted. Takes no lock that a thread holds during a lookup in the hot cache.
    pub(super) fn note_evicted(&self, hash: u64, rows: EntityRows) {
        lock(&self.evicted).push((hash, rows));
        self.has_evicted.store(true, Ordering::Release);
    }

    /// Removes all recorded evicted entries from all tables. Do not call this function in [`ThreadCaches::with_own`].
    #[inline]
    pub(super) fn remove_evicted(&self) {
        if self.has_evicted.load(Ordering::Relaxed) && self.has_evicted.swap(false, Ordering::Acquire) {
            let evicted = std::mem::take(&mut *lock(&self.evicted));
            self.remove_all(&evicted);
        }
    }

    #[cold]
    fn remove_all(&self, evicted: &[(u64, EntityRows)]) {
        let tables: Vec<_> = lock(&self.tables).iter().filter_map(Weak::upgrade).collect();
        for table in tables {
            let mut thread_cache = lock(&table);
            evicted.iter().for_each(|(hash, rows)| thread_cache.remove(*hash, rows));
        }
    }

    /// Creates a table for this thread.
    #[cold]
    fn create_table(&self) -> Arc<Mutex<ThreadCache>> {
        let thread_cache = Arc::new(Mutex::new(ThreadCache::new(self.sets)));
        let mut tables = lock(&self.tables);
        tables.retain(|table| table.strong_count() > 0);
        tables.push(Arc::downgrade(&thread_cache));
        thread_cache
    }
}

// === impl ThreadCache ===

impl ThreadCache {
    /// Creates an empty table with this number of sets, which must be a power of two.
    fn new(sets: usize) -> Self {
        Self { sets: vec![Set::default(); sets].into(), hits: 0 }
    }

    /// Reads the sets of several entities at once, because waiting for all of them takes hardly longer than waiting for
    /// one.
    pub(super) fn prefetch(&self, hashes: &[u64]) {
        let tags = hashes.iter().fold(0, |sum, hash| sum ^ self.sets[self.set_index(*hash)].tags[0]);
        std::hint::black_box(tags);
    }

    /// Returns the entry of an entity; `hash` is the hash of its id.
    #[inline]
    pub(super) fn get(&self, id: &EntityId, hash: u64) -> Option<&EntityRows> {
        let set = &self.sets[self.set_index(hash)];
        set.rows[set.way_of(hash, |rows| rows.is_for(id))?].as_ref()
    }

    /// Counts a hit, and returns whether to report it to the hot cache.
    #[inline]
    pub(super) fn should_report_hit(&mut self) -> bool {
        self.hits = self.hits.wrapping_add(1);
        self.hits.is_multiple_of(HITS_PER_REPORT)
    }

    /// Inserts an entity's rows as the first entry of their set.
    pub(super) fn insert(&mut self, id: &EntityId, hash: u64, rows: EntityRows) {
        let index = self.set_index(hash);
        let set = &mut self.sets[index];
        let empty = || set.rows.iter().position(Option::is_none);
        let way = set.way_of(hash, |rows| rows.is_for(id)).or_else(empty).unwrap_or(WAYS - 1);
        set.rows[way] = Some(rows);
        set.tags[way] = tag(hash);
        set.rows[..=way].rotate_right(1);
        set.tags[..=way].rotate_right(1);
    }

    /// Removes exactly this entry. If a newer entry of the entity has replaced it, the newer one stays.
    fn remove(&mut self, hash: u64, rows: &EntityRows) {
        let index = self.set_index(hash);
        let set = &mut self.sets[index];
        if let Some(at) = set.way_of(hash, |known| known.is_same_block(rows)) {
            set.rows[at] = None;
        }
    }

    fn set_index(&self, hash: u64) -> usize {
        // The lower bits of the hash are not used here, because they select the entity's slot in the hot cache.
        (hash >> 24) as usize & (self.sets.len() - 1)
    }
}

// === impl Set ===

impl Set {
    #[inline]
    fn way_of(&self, hash: u64, matches: impl Fn(&EntityRows) -> bool) -> Option<usize> {
        // All tags are compared before one is selected. With a branch for each tag, the processor would often
        // mispredict which tag matches.
        let add_match = |matching, at| matching | (u32::from(self.tags[at] == tag(hash)) << at);
        let mut matching = (0..WAYS).fold(0_u32, add_match);
        while matching != 0 {
            let at = matching.trailing_zeros() as usize;
            if self.rows[at].as_ref().is_some_and(&matches) {
                return Some(at);
            }
            matching &= matching - 1;
        }
        None
    }
}

#[inline]
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// Locks a mutex, even if it is poisoned. This is safe, because even after a panic, tables have only entries that were
/// inserted into the hot cache, and each lookup checks whether an entry is valid.
#[inline]
fn lock<T>(locked: &Mutex<T>) -> MutexGuard<'_, T> {
    locked.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::{super::FoundRow, *};
    use crate::{ViewId, hot::Row};

    fn rows(id: &EntityId, bytes: usize) -> EntityRows {
        let row = Some(Row::copy_of(&vec![0; bytes]));
        EntityRows::of(id, None, &[FoundRow { view: ViewId(1), generation: 0, row, text: Vec::new() }], 1)
    }

    fn thread_cache() -> ThreadCache {
        ThreadCache::new(1 << 10)
    }

    fn id(n: u8) -> EntityId {
        EntityId([n; 16])
    }

    #[test]
    fn set_is_one_cache_line() {
        assert_eq!(size_of::<Set>(), 64);
    }

    #[test]
    fn table_size_follows_cache_size() {
        for (bytes_max, sets) in [(0, 1), (1, 1), (3 << 10, 4), (1 << 30, 1 << 14), (u64::MAX, 1 << 14)] {
            assert_eq!(ThreadCaches::new(bytes_max).sets, sets, "{bytes_max}");
        }
        assert_eq!(SETS_MAX * size_of::<Set>(), 1 << 20);
    }

    #[test]
    fn oldest_of_four_colliding_is_evicted() {
        let mut thread_cache = thread_cache();
        for n in 1..=4 {
            thread_cache.insert(&id(n), 0, rows(&id(n), 10));
        }
        assert_eq!([1, 2, 3, 4].map(|n| thread_cache.get(&id(n), 0).is_some()), [false, true, true, true]);
    }

    #[test]
    fn newer_rows_replace_entity_entry() {
        let mut thread_cache = thread_cache();
        let lens = [(1, 10), (2, 20), (3, 30), (1, 99), (2, 98)];
        for (n, len) in lens {
            thread_cache.insert(&id(n), 0, rows(&id(n), len));
        }
        let found = [1, 2, 3].map(|n| thread_cache.get(&id(n), 0).map(EntityRows::bytes));
        assert_eq!(found, [99, 98, 30].map(|len| Some(rows(&id(1), len).bytes())));
        // Entity 3 is now the least recently inserted one.
        thread_cache.insert(&id(4), 0, rows(&id(4), 10));
        assert_eq!([1, 2, 3, 4].map(|n| thread_cache.get(&id(n), 0).is_some()), [true, true, false, true]);
    }

    #[test]
    fn equal_hashes_are_distinguished() {
        let mut thread_cache = thread_cache();
        thread_cache.insert(&id(1), 7, rows(&id(1), 10));
        assert!(thread_cache.get(&id(2), 7).is_none());
        assert!(thread_cache.get(&id(1), 7).is_some());
    }

    #[test]
    fn eviction_keeps_replacement_rows() {
        let mut thread_cache = thread_cache();
        let [old, new, other] = [rows(&id(1), 10), rows(&id(1), 20), rows(&id(2), 10)];
        thread_cache.insert(&id(1), 7, old.clone());
        thread_cache.insert(&id(2), 7, other);
        thread_cache.insert(&id(1), 7, new.clone());
        thread_cache.remove(7, &old);
        assert!(thread_cache.get(&id(1), 7).is_some_and(|rows| rows.is_same_block(&new)));
        thread_cache.remove(7, &new);
        assert!(thread_cache.get(&id(1), 7).is_none());
        assert!(thread_cache.get(&id(2), 7).is_some());
    }

    #[test]
    fn eviction_reaches_idle_threads() {
        let thread_caches = Arc::new(ThreadCaches::new(1 << 20));
        let gone = rows(&id(1), 10);
        thread::scope(|scope| {
            let (kept, is_kept) = std::sync::mpsc::channel();
            let (end, ends) = std::sync::mpsc::channel::<()>();
            let (thread_caches, rows) = (&thread_caches, &gone);
            let other = scope.spawn(move || {
                thread_caches.with_own(|thread_cache| thread_cache.insert(&id(1), 7, rows.clone()));
                kept.send(()).unwrap();
                // A dropped sender also ends the wait.
                let _ = ends.recv();
                assert!(thread_caches.with_own(|thread_cache| thread_cache.get(&id(1), 7).is_none()));
            });
            is_kept.recv().unwrap();
            assert_eq!(gone.owner_count(), 2, "here, and in the other thread's table");
            thread_caches.note_evicted(7, gone.clone());
            thread_caches.remove_evicted();
            assert_eq!(gone.owner_count(), 1, "here alone");
            end.send(()).unwrap();
            // A scope does not wait for the destructors of thread-local values, but `join` does.
            other.join().unwrap();
        });
        assert_eq!(
            lock(&thread_caches.tables).iter().filter(|table| table.strong_count() > 0).count(),
            0,
            "a thread's table is dropped with the thread"
        );
    }

    #[test]
    fn each_cache_has_own_table() {
        let [one, other] = [Arc::new(ThreadCaches::new(1 << 20)), Arc::new(ThreadCaches::new(1 << 20))];
        one.with_own(|thread_cache| thread_cache.insert(&id(1), 0, rows(&id(1), 10)));
        assert!(one.with_own(|thread_cache| thread_cache.get(&id(1), 0).is_some()));
        assert!(other.with_own(|thread_cache| thread_cache.get(&id(1), 0).is_none()));
        assert!(
            one.with_own(|thread_cache| thread_cache.get(&id(1), 0).is_none()),
            "the thread switched to the other cache"
        );
    }
}
