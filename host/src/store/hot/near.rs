//! What a thread found in the hot cache lately, at hand: finding a row in the cache itself, and noting there that it was
//! found, is a dozen waits for memory; here it is one.
//!
//! Each thread has its own, so nothing is shared and nothing is locked. The hash of an id says where its rows may lie:
//! in one of the two places of a set, which is as much as a processor reads at once. The later of two that do not fit
//! both takes the place of the one that came first. Most rows lie in the cache as well, and share their memory with it.

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

/// The one that came later first.
#[derive(Clone, Debug, Default)]
#[repr(align(64))]
struct Set([Option<(EntityId, EntityRows)>; 2]);

/// The most sets; more of them would push other things out of the processor's caches.
const SETS_MAX: usize = 1 << 14;
/// For so many bytes of rows there is a set.
const SET_BYTES: usize = 1 << 10;
/// One in so many finds is told to the cache, which keeps what is asked for often. A prime: who asks for the same entities
/// again and again gets each of them told in the end.
const TOLD: u32 = 31;

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
        set.0.iter().flatten().find_map(|(known, rows)| (known == id).then_some(rows))
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
        let set = &mut self.sets[place].0;
        // Its own place, if it has one; else that of the one that came first.
        let leaves = usize::from(!matches!(&set[0], Some((known, _)) if known == id));
        if let Some((_, rows)) = set[leaves].take() {
            self.bytes -= rows.bytes();
        }
        if leaves == 1 {
            set.swap(0, 1);
        }
        if rows.bytes() > self.bytes_max {
            return;
        }
        self.bytes += rows.bytes();
        set[0] = Some((*id, rows));
        while self.bytes > self.bytes_max {
            self.hand = (self.hand + 1) % self.sets.len();
            if self.hand != place {
                let gone = std::mem::take(&mut self.sets[self.hand]).0;
                self.bytes -= gone.iter().flatten().map(|(_, rows)| rows.bytes()).sum::<usize>();
            }
        }
    }

    fn place(&self, hash: u64) -> usize {
        // The lower bits choose the cache's slot of changes.
        (hash >> 24) as usize & (self.sets.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::FoundRow, *};
    use crate::store::{ViewId, hot::Row};

    fn rows(bytes: usize) -> EntityRows {
        let row = Some(Row::copy_of(&vec![0; bytes]));
        EntityRows::of(None, &[FoundRow { view: ViewId(1), generation: 0, row, text: Vec::new() }], 1)
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
    fn of_three_that_share_a_set_the_first_goes() {
        let mut near = near(1 << 20);
        for n in 1..=3 {
            near.keep(&id(n), 0, rows(10));
        }
        assert_eq!([1, 2, 3].map(|n| near.get(&id(n), 0).is_some()), [false, true, true]);
        assert_eq!(near.bytes, 2 * rows(10).bytes());
    }

    #[test]
    fn an_entity_has_one_place_and_what_came_last_counts() {
        let mut near = near(1 << 20);
        near.keep(&id(1), 0, rows(10));
        near.keep(&id(2), 0, rows(10));
        near.keep(&id(1), 0, rows(99));
        assert_eq!(near.get(&id(1), 0).unwrap().bytes(), rows(99).bytes());
        assert!(near.get(&id(2), 0).is_some());
        assert_eq!(near.bytes, rows(99).bytes() + rows(10).bytes());
    }

    #[test]
    fn all_together_stay_below_the_bound_and_one_that_is_above_it_is_not_kept() {
        let most = 10 * rows(1_000).bytes();
        let mut near = near(most);
        for n in 0..100 {
            near.keep(&id(n), u64::from(n) << 24, rows(1_000));
            assert!(near.bytes <= most);
            assert!(near.get(&id(n), u64::from(n) << 24).is_some(), "the last one is there");
        }
        let there = (0..100).filter(|n| near.get(&id(*n), u64::from(*n) << 24).is_some()).count();
        assert!((1..=10).contains(&there), "{there}");
        near.keep(&id(200), 0, rows(most));
        assert!(near.get(&id(200), 0).is_none());
    }

    #[test]
    fn what_is_of_another_cache_is_forgotten() {
        let mut near = near(1 << 20);
        near.keep(&id(1), 0, rows(10));
        near.turn_to(1, 1 << 20);
        assert!(near.get(&id(1), 0).is_some());
        near.turn_to(2, 1 << 20);
        assert!(near.get(&id(1), 0).is_none());
        assert_eq!(near.bytes, 0);
    }
}
