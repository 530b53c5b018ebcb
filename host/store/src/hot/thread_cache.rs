//! What threads found in the hot cache lately, each at hand for itself: finding a row in the cache, and noting there that it
//! was found, is a dozen waits for memory; here it is one.
//!
//! A thread's table is its own; the others lock it only to have it forget what the cache let go. So all that lies in tables
//! lies in the cache too, shares its memory with it, and is counted there. The hash of an id says where its rows may lie:
//! in one of the three places of a set, which is as much as a processor reads at once. Of four that would lie in one, the
//! one that came first goes.

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

/// The tables of all threads that look into one cache.
#[derive(Debug)]
pub(super) struct ThreadCaches {
    tables: Mutex<Vec<Weak<Mutex<ThreadCache>>>>,
    /// What the cache let go, with the hash of its id; tables may have it still.
    gone: Mutex<Vec<(u64, EntityRows)>>,
    is_any_gone: AtomicBool,
    /// Of each table.
    sets: usize,
}

/// One thread's table.
#[derive(Debug)]
pub(super) struct ThreadCache {
    /// A power of two.
    sets: Box<[Set]>,
    /// How often something was found.
    found: u32,
}

/// This thread's table, and whose it is.
#[derive(Debug, Default)]
struct Own {
    of: Weak<ThreadCaches>,
    thread_cache: Option<Arc<Mutex<ThreadCache>>>,
}

/// The one that came last first.
#[derive(Clone, Debug, Default)]
#[repr(align(64))]
struct Set {
    /// Of the rows' hashes, the part that did not choose the set: a second look at memory is for those whose part fits.
    tags: [u32; PLACES],
    rows: [Option<EntityRows>; PLACES],
}

const PLACES: usize = 3;

/// The most sets; more of them would push other things out of the processor's caches.
const SETS_MAX: usize = 1 << 14;
/// For so many bytes of the cache there is a set.
const SET_BYTES: u64 = 1 << 10;
/// One in so many finds is told to the cache, which keeps what is asked for often. A prime: who asks for the same entities
/// again and again gets each of them told in the end.
const TOLD: u32 = 127;

thread_local! {
    static OWN: RefCell<Own> = RefCell::default();
}

// === impl ThreadCaches ===

impl ThreadCaches {
    /// The tables beside a cache of so many bytes.
    pub(super) fn new(bytes_max: u64) -> Self {
        let sets = usize::try_from(bytes_max / SET_BYTES).unwrap_or(SETS_MAX).clamp(1, SETS_MAX).next_power_of_two();
        Self { tables: Mutex::default(), gone: Mutex::default(), is_any_gone: AtomicBool::new(false), sets }
    }

    /// Looks into this thread's table, while no other thread can have it forget anything: what is found in the cache
    /// meanwhile and kept here is in the cache, or will be told as gone.
    #[inline]
    pub(super) fn with_own<T>(self: &Arc<Self>, look: impl FnOnce(&mut ThreadCache) -> T) -> T {
        OWN.with_borrow_mut(|own| {
            if !ptr::eq(own.of.as_ptr(), Arc::as_ptr(self)) {
                *own = Own { of: Arc::downgrade(self), thread_cache: None };
            }
            look(&mut lock(own.thread_cache.get_or_insert_with(|| self.join())))
        })
    }

    /// Notes what the cache let go. Nothing is locked that is held while somebody looks into the cache.
    pub(super) fn note_gone(&self, hash: u64, rows: EntityRows) {
        lock(&self.gone).push((hash, rows));
        self.is_any_gone.store(true, Ordering::Release);
    }

    /// Has all tables forget what the cache let go. Not to be called from [`ThreadCaches::with_own`].
    #[inline]
    pub(super) fn forget_gone(&self) {
        if self.is_any_gone.load(Ordering::Relaxed) && self.is_any_gone.swap(false, Ordering::Acquire) {
            let gone = std::mem::take(&mut *lock(&self.gone));
            self.forget(&gone);
        }
    }

    #[cold]
    fn forget(&self, gone: &[(u64, EntityRows)]) {
        let tables: Vec<_> = lock(&self.tables).iter().filter_map(Weak::upgrade).collect();
        for table in tables {
            let mut thread_cache = lock(&table);
            gone.iter().for_each(|(hash, rows)| thread_cache.forget(*hash, rows));
        }
    }

    /// A table for this thread.
    #[cold]
    fn join(&self) -> Arc<Mutex<ThreadCache>> {
        let thread_cache = Arc::new(Mutex::new(ThreadCache::new(self.sets)));
        let mut tables = lock(&self.tables);
        tables.retain(|table| table.strong_count() > 0);
        tables.push(Arc::downgrade(&thread_cache));
        thread_cache
    }
}

// === impl ThreadCache ===

impl ThreadCache {
    /// A power of two of sets.
    fn new(sets: usize) -> Self {
        Self { sets: vec![Set::default(); sets].into(), found: 0 }
    }

    /// Looks once at where many would lie: waiting for all of them is hardly longer than for one.
    pub(super) fn look_ahead(&self, hashes: &[u64]) {
        let tags = hashes.iter().fold(0, |sum, hash| sum ^ self.sets[self.place(*hash)].tags[0]);
        std::hint::black_box(tags);
    }

    /// What there is of an entity; `hash` is of its id.
    #[inline]
    pub(super) fn get(&self, id: &EntityId, hash: u64) -> Option<&EntityRows> {
        let set = &self.sets[self.place(hash)];
        set.rows[set.place_of(hash, |rows| rows.is_of(id))?].as_ref()
    }

    /// Whether the cache is to be told of this find.
    #[inline]
    pub(super) fn tells(&mut self) -> bool {
        self.found = self.found.wrapping_add(1);
        self.found.is_multiple_of(TOLD)
    }

    /// Keeps an entity's rows.
    pub(super) fn keep(&mut self, id: &EntityId, hash: u64, rows: EntityRows) {
        let place = self.place(hash);
        let set = &mut self.sets[place];
        let empty = || set.rows.iter().position(Option::is_none);
        let leaves = set.place_of(hash, |rows| rows.is_of(id)).or_else(empty).unwrap_or(PLACES - 1);
        set.rows[leaves] = Some(rows);
        set.tags[leaves] = tag(hash);
        set.rows[..=leaves].rotate_right(1);
        set.tags[..=leaves].rotate_right(1);
    }

    /// Forgets these very rows; what came in their place stays.
    fn forget(&mut self, hash: u64, rows: &EntityRows) {
        let place = self.place(hash);
        let set = &mut self.sets[place];
        if let Some(at) = set.place_of(hash, |known| known.is(rows)) {
            set.rows[at] = None;
        }
    }

    fn place(&self, hash: u64) -> usize {
        // The lower bits choose the cache's slot of changes.
        (hash >> 24) as usize & (self.sets.len() - 1)
    }
}

// === impl Set ===

impl Set {
    #[inline]
    fn place_of(&self, hash: u64, is_meant: impl Fn(&EntityRows) -> bool) -> Option<usize> {
        // All are compared before one is chosen: which it is cannot be foretold, and a processor that chose wrong begins anew.
        let fits = |fits, at| fits | (u32::from(self.tags[at] == tag(hash)) << at);
        let mut fits = (0..PLACES).fold(0_u32, fits);
        while fits != 0 {
            let at = fits.trailing_zeros() as usize;
            if self.rows[at].as_ref().is_some_and(&is_meant) {
                return Some(at);
            }
            fits &= fits - 1;
        }
        None
    }
}

#[inline]
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// What a thread that panicked left is rows that are in the cache, as ever.
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

    fn near() -> ThreadCache {
        ThreadCache::new(1 << 10)
    }

    fn id(n: u8) -> EntityId {
        EntityId([n; 16])
    }

    #[test]
    fn a_set_is_a_line_of_memory() {
        assert_eq!(size_of::<Set>(), 64);
    }

    #[test]
    fn a_cache_has_tables_by_its_size_and_none_is_over_a_megabyte() {
        for (bytes_max, sets) in [(0, 1), (1, 1), (3 << 10, 4), (1 << 30, 1 << 14), (u64::MAX, 1 << 14)] {
            assert_eq!(ThreadCaches::new(bytes_max).sets, sets, "{bytes_max}");
        }
        assert_eq!(SETS_MAX * size_of::<Set>(), 1 << 20);
    }

    #[test]
    fn of_four_that_share_a_set_the_first_goes() {
        let mut thread_cache = near();
        for n in 1..=4 {
            thread_cache.keep(&id(n), 0, rows(&id(n), 10));
        }
        assert_eq!([1, 2, 3, 4].map(|n| thread_cache.get(&id(n), 0).is_some()), [false, true, true, true]);
    }

    #[test]
    fn an_entity_has_one_place_and_what_came_last_counts() {
        let mut thread_cache = near();
        let lens = [(1, 10), (2, 20), (3, 30), (1, 99), (2, 98)];
        for (n, len) in lens {
            thread_cache.keep(&id(n), 0, rows(&id(n), len));
        }
        let found = [1, 2, 3].map(|n| thread_cache.get(&id(n), 0).map(EntityRows::bytes));
        assert_eq!(found, [99, 98, 30].map(|len| Some(rows(&id(1), len).bytes())));
        // It came first of the three now.
        thread_cache.keep(&id(4), 0, rows(&id(4), 10));
        assert_eq!([1, 2, 3, 4].map(|n| thread_cache.get(&id(n), 0).is_some()), [true, true, false, true]);
    }

    #[test]
    fn ids_of_one_hash_are_told_apart() {
        let mut thread_cache = near();
        thread_cache.keep(&id(1), 7, rows(&id(1), 10));
        assert!(thread_cache.get(&id(2), 7).is_none());
        assert!(thread_cache.get(&id(1), 7).is_some());
    }

    #[test]
    fn what_is_gone_is_forgotten_and_what_came_in_its_place_is_not() {
        let mut thread_cache = near();
        let [old, new, other] = [rows(&id(1), 10), rows(&id(1), 20), rows(&id(2), 10)];
        thread_cache.keep(&id(1), 7, old.clone());
        thread_cache.keep(&id(2), 7, other);
        thread_cache.keep(&id(1), 7, new.clone());
        thread_cache.forget(7, &old);
        assert!(thread_cache.get(&id(1), 7).is_some_and(|rows| rows.is(&new)));
        thread_cache.forget(7, &new);
        assert!(thread_cache.get(&id(1), 7).is_none());
        assert!(thread_cache.get(&id(2), 7).is_some());
    }

    #[test]
    fn what_is_gone_leaves_the_tables_of_all_threads_also_of_those_that_do_nothing() {
        let thread_caches = Arc::new(ThreadCaches::new(1 << 20));
        let gone = rows(&id(1), 10);
        thread::scope(|scope| {
            let (kept, is_kept) = std::sync::mpsc::channel();
            let (end, ends) = std::sync::mpsc::channel::<()>();
            let (thread_caches, rows) = (&thread_caches, &gone);
            let other = scope.spawn(move || {
                thread_caches.with_own(|thread_cache| thread_cache.keep(&id(1), 7, rows.clone()));
                kept.send(()).unwrap();
                // An end that hangs up is one too.
                let _ = ends.recv();
                assert!(thread_caches.with_own(|thread_cache| thread_cache.get(&id(1), 7).is_none()));
            });
            is_kept.recv().unwrap();
            assert_eq!(gone.shares(), 2, "here, and in the other thread's table");
            thread_caches.note_gone(7, gone.clone());
            thread_caches.forget_gone();
            assert_eq!(gone.shares(), 1, "here alone");
            end.send(()).unwrap();
            // A scope does not wait for what a thread puts away at its end.
            other.join().unwrap();
        });
        assert_eq!(
            lock(&thread_caches.tables).iter().filter(|table| table.strong_count() > 0).count(),
            0,
            "a thread's end is its table's"
        );
    }

    #[test]
    fn each_cache_has_a_table_of_its_own() {
        let [one, other] = [Arc::new(ThreadCaches::new(1 << 20)), Arc::new(ThreadCaches::new(1 << 20))];
        one.with_own(|thread_cache| thread_cache.keep(&id(1), 0, rows(&id(1), 10)));
        assert!(one.with_own(|thread_cache| thread_cache.get(&id(1), 0).is_some()));
        assert!(other.with_own(|thread_cache| thread_cache.get(&id(1), 0).is_none()));
        assert!(one.with_own(|thread_cache| thread_cache.get(&id(1), 0).is_none()), "it was turned away from");
    }
}
