//! What a thread found in the hot cache lately, at hand: finding a row in the cache itself, and noting there that it was
//! found, is a dozen waits for memory; here it is one.
//!
//! Each thread has its own, so nothing is shared and nothing is locked. The hash of an id says where its rows may lie:
//! in one of the three places of a set, which is as much as a processor reads at once. Of four that would lie in one, the
//! one that came first goes. Most rows lie in the cache as well, and share their memory with it.

use larder_model::model::EntityId;

use super::EntityRows;

/// One thread's.
#[derive(Debug, Default)]
pub(super) struct Near {
    /// The cache that the rows are of.
    of: u64,
    /// A power of two.
    sets: Box<[Set]>,
    /// Of all rows here.
    bytes: usize,
    bytes_max: usize,
    /// Where to make room next.
    hand: usize,
    /// How often something was found.
    found: u32,
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
/// For so many bytes of rows there is a set.
const SET_BYTES: usize = 1 << 10;
/// One in so many finds is told to the cache, which keeps what is asked for often. A prime: who asks for the same entities
/// again and again gets each of them told in the end.
const TOLD: u32 = 127;

// === impl Near ===

impl Near {
    /// Forgets everything that is of another cache, and has room for so many bytes of rows of this one.
    #[inline]
    pub(super) fn turn_to(&mut self, cache: u64, bytes_max: usize) {
        if self.of != cache {
            let sets = (bytes_max / SET_BYTES).clamp(1, SETS_MAX).next_power_of_two();
            *self = Self { of: cache, bytes_max, sets: vec![Set::default(); sets].into(), ..Self::default() };
        }
    }

    /// What there is of an entity; `hash` is of its id.
    #[inline]
    pub(super) fn get(&self, id: &EntityId, hash: u64) -> Option<&EntityRows> {
        let set = &self.sets[self.place(hash)];
        set.rows[set.place_of(id, hash)?].as_ref()
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
        let leaves = set.place_of(id, hash).or_else(empty).unwrap_or(PLACES - 1);
        if let Some(rows) = set.rows[leaves].take() {
            self.bytes -= rows.bytes();
        }
        if rows.bytes() > self.bytes_max {
            return;
        }
        self.bytes += rows.bytes();
        set.rows[leaves] = Some(rows);
        set.tags[leaves] = tag(hash);
        set.rows[..=leaves].rotate_right(1);
        set.tags[..=leaves].rotate_right(1);
        while self.bytes > self.bytes_max {
            self.hand = (self.hand + 1) % self.sets.len();
            if self.hand != place {
                let gone = std::mem::take(&mut self.sets[self.hand]).rows;
                self.bytes -= gone.iter().flatten().map(EntityRows::bytes).sum::<usize>();
            }
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
    fn place_of(&self, id: &EntityId, hash: u64) -> Option<usize> {
        // All are compared before one is chosen: which it is cannot be foretold, and a processor that chose wrong begins anew.
        let fits = |fits, at| fits | (u32::from(self.tags[at] == tag(hash)) << at);
        let mut fits = (0..PLACES).fold(0_u32, fits);
        while fits != 0 {
            let at = fits.trailing_zeros() as usize;
            if self.rows[at].as_ref().is_some_and(|rows| rows.is_of(id)) {
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

#[cfg(test)]
mod tests {
    use super::{super::FoundRow, *};
    use crate::store::{ViewId, hot::Row};

    fn rows(id: &EntityId, bytes: usize) -> EntityRows {
        let row = Some(Row::copy_of(&vec![0; bytes]));
        EntityRows::of(id, None, &[FoundRow { view: ViewId(1), generation: 0, row, text: Vec::new() }], 1)
    }

    fn near(bytes_max: usize) -> Near {
        let mut near = Near::default();
        near.turn_to(1, bytes_max);
        near
    }

    fn id(n: u8) -> EntityId {
        EntityId([n; 16])
    }

    #[test]
    fn a_set_is_a_line_of_memory() {
        assert_eq!(size_of::<Set>(), 64);
    }

    #[test]
    fn of_four_that_share_a_set_the_first_goes() {
        let mut near = near(1 << 20);
        for n in 1..=4 {
            near.keep(&id(n), 0, rows(&id(n), 10));
        }
        assert_eq!([1, 2, 3, 4].map(|n| near.get(&id(n), 0).is_some()), [false, true, true, true]);
        assert_eq!(near.bytes, 3 * rows(&id(1), 10).bytes());
    }

    #[test]
    fn an_entity_has_one_place_and_what_came_last_counts() {
        let mut near = near(1 << 20);
        let lens = [(1, 10), (2, 20), (3, 30), (1, 99), (2, 98)];
        for (n, len) in lens {
            near.keep(&id(n), 0, rows(&id(n), len));
        }
        let found = [1, 2, 3].map(|n| near.get(&id(n), 0).map(EntityRows::bytes));
        assert_eq!(found, [99, 98, 30].map(|len| Some(rows(&id(1), len).bytes())));
        assert_eq!(near.bytes, found.iter().flatten().sum::<usize>());
        // It came first of the three now.
        near.keep(&id(4), 0, rows(&id(4), 10));
        assert_eq!([1, 2, 3, 4].map(|n| near.get(&id(n), 0).is_some()), [true, true, false, true]);
    }

    #[test]
    fn ids_of_one_hash_are_told_apart() {
        let mut near = near(1 << 20);
        near.keep(&id(1), 7, rows(&id(1), 10));
        assert!(near.get(&id(2), 7).is_none());
        assert!(near.get(&id(1), 7).is_some());
    }

    #[test]
    fn all_together_stay_below_the_bound_and_one_that_is_above_it_is_not_kept() {
        let of = |n: u8| rows(&id(n), 1_000);
        let most = 10 * of(0).bytes();
        let mut near = near(most);
        for n in 0..100 {
            near.keep(&id(n), u64::from(n) << 24, of(n));
            assert!(near.bytes <= most);
            assert!(near.get(&id(n), u64::from(n) << 24).is_some(), "the last one is there");
        }
        let there = (0..100).filter(|n| near.get(&id(*n), u64::from(*n) << 24).is_some()).count();
        assert!((1..=10).contains(&there), "{there}");
        near.keep(&id(200), 0, rows(&id(200), most));
        assert!(near.get(&id(200), 0).is_none());
    }

    #[test]
    fn what_is_of_another_cache_is_forgotten() {
        let mut near = near(1 << 20);
        near.keep(&id(1), 0, rows(&id(1), 10));
        near.turn_to(1, 1 << 20);
        assert!(near.get(&id(1), 0).is_some());
        near.turn_to(2, 1 << 20);
        assert!(near.get(&id(1), 0).is_none());
        assert_eq!(near.bytes, 0);
    }
}
