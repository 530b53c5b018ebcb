//! Finds the winner of each slot.

use std::{cmp::Ordering, sync::Arc};

use larder_model::model::Micros;

use super::{Spine, prefetch::prefetch};

/// The time at which a feature row becomes visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Visibility {
    /// The event time: the time at which the values were true.
    #[default]
    Event,
    /// The later of the event time and the created time: the time at which the values were known. A row without a created
    /// time is visible from its event time on.
    Created,
}

/// The position of a feature row among all feature rows of a view, in the order in which they are read. Of two rows with equal
/// times, the one that arrived later wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival {
    /// The index of the file.
    pub file: u32,
    /// The index of the row in the file.
    pub row: u64,
}

/// A feature row that may be the winner of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The event time.
    pub event_time: Micros,
    /// The created time.
    pub created: Option<Micros>,
    /// The remaining nanoseconds of the event time and the created time, which only decide between rows whose times are
    /// otherwise equal.
    pub nanos: (u16, u16),
    /// The position of the row.
    pub arrival: Arrival,
}

/// A candidate as it is stored for each slot, in 32 bytes. The order of the fields is the order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Best {
    event_time: Micros,
    event_nanos: u16,
    /// [`Micros::MIN`] if the row has no created time.
    created: Micros,
    created_nanos: u16,
    file: u32,
    /// The index of the row plus one; 0 if the slot has no candidate.
    row: u64,
}

/// A join of the feature rows of one view with a spine.
#[derive(Debug)]
pub struct Join<'s> {
    spine: &'s Spine,
    best: Vec<Best>,
}

/// The winner of each slot.
#[derive(Debug)]
pub struct Winners {
    /// For each slot, the index of its winner among the distinct winners, or [`NO_WINNER`].
    slots: Vec<u32>,
}

/// The index of a slot without a winner.
const NO_WINNER: u32 = u32::MAX;

// === impl Visibility ===

impl Visibility {
    /// Returns the time at which a feature row becomes visible. Times are microseconds and nanoseconds below the microsecond.
    #[must_use]
    #[inline]
    pub fn of(self, event_time: (Micros, u16), created: Option<(Micros, u16)>) -> (Micros, u16) {
        match self {
            Self::Event => event_time,
            Self::Created => created.map_or(event_time, |created| created.max(event_time)),
        }
    }
}

// === impl Best ===

impl Best {
    const NONE: Self =
        Self { event_time: Micros::MIN, event_nanos: 0, created: Micros::MIN, created_nanos: 0, file: 0, row: 0 };

    fn of(candidate: &Candidate) -> Self {
        let Candidate { event_time, created, nanos: (event_nanos, created_nanos), arrival } = *candidate;
        let Arrival { file, row } = arrival;
        Self { event_time, event_nanos, created: created.unwrap_or(Micros::MIN), created_nanos, file, row: row + 1 }
    }

    fn is_some(&self) -> bool {
        self.row > 0
    }

    /// Returns the position of the row.
    #[must_use]
    pub fn arrival(&self) -> Arrival {
        Arrival { file: self.file, row: self.row.saturating_sub(1) }
    }

    /// Returns the row as it was added.
    #[must_use]
    pub fn candidate(&self) -> Candidate {
        Candidate {
            event_time: self.event_time,
            created: Some(self.created).filter(|created| *created != Micros::MIN),
            nanos: (self.event_nanos, self.created_nanos),
            arrival: self.arrival(),
        }
    }
}

// === impl Join ===

impl<'s> Join<'s> {
    /// Starts a join.
    #[must_use]
    pub fn new(spine: &'s Spine) -> Self {
        Self { spine, best: vec![Best::NONE; spine.slots()] }
    }

    /// Loads the rows of slots to which feature rows are added next.
    pub fn prefetch(&self, slots: impl Iterator<Item = usize>) {
        prefetch(slots.map(|slot| self.best[slot].event_time.to_le_bytes()[0]));
    }

    /// Adds a feature row. `slot` is the result of [`Spine::first_slot`] for its key and the time at which it becomes visible.
    #[inline]
    pub fn add(&mut self, slot: usize, candidate: &Candidate) {
        let (best, new) = (&mut self.best[slot], Best::of(candidate));
        if new.cmp(best) == Ordering::Greater {
            *best = new;
        }
    }

    /// Adds the feature rows of another join with the same spine.
    pub fn merge(&mut self, other: &Self) {
        for (best, other) in self.best.iter_mut().zip(&other.best) {
            *best = (*best).max(*other);
        }
    }

    /// Returns the winner of each slot, and the distinct winners in ascending order of their arrival.
    #[must_use]
    pub fn finish(mut self) -> (Winners, Arc<[Best]>) {
        for slots in self.spine.groups() {
            for slot in slots.skip(1) {
                // A row that is visible to a slot is visible to all later slots of the key.
                self.best[slot] = self.best[slot].max(self.best[slot - 1]);
            }
        }
        // A feature row has one key, so all slots that it wins are adjacent.
        let is_first = |slot: usize| self.best[slot].is_some() && (slot == 0 || self.best[slot - 1] != self.best[slot]);
        // A spine has at most 2^32 - 2 slots.
        let index = |index: usize| u32::try_from(index).unwrap_or(NO_WINNER);
        let mut firsts: Vec<u32> = (0..self.best.len()).filter(|slot| is_first(*slot)).map(index).collect();
        firsts.sort_unstable_by_key(|slot| self.best[*slot as usize].arrival());
        let mut slots = vec![NO_WINNER; self.best.len()];
        for (at, first) in firsts.iter().enumerate() {
            slots[*first as usize] = index(at);
        }
        for slot in 1..slots.len() {
            if slots[slot] == NO_WINNER && self.best[slot].is_some() {
                slots[slot] = slots[slot - 1];
            }
        }
        (Winners { slots }, firsts.into_iter().map(|slot| self.best[slot as usize]).collect())
    }
}

// === impl Winners ===

impl Winners {
    /// Returns the size in memory, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.slots.len() * size_of::<u32>()) as u64
    }

    /// Returns the index of a slot's winner among the distinct winners; `None` if no feature row is visible to the slot.
    #[must_use]
    pub fn get(&self, slot: usize) -> Option<usize> {
        Some(self.slots[slot]).filter(|index| *index != NO_WINNER).map(|index| index as usize)
    }
}
