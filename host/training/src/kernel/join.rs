//! Finds the winner of each slot.

use std::cmp::Ordering;

use larder_model::model::{EntityId, Micros};

use super::Spine;

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
pub(super) struct Best {
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
    visibility: Visibility,
    best: Vec<Best>,
    rows: u64,
}

/// The winner of each slot.
#[derive(Debug)]
pub struct Winners {
    best: Vec<Best>,
    rows: u64,
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

    fn candidate(&self) -> Option<Candidate> {
        Some(Candidate {
            event_time: self.event_time,
            created: Some(self.created).filter(|created| *created != Micros::MIN),
            nanos: (self.event_nanos, self.created_nanos),
            arrival: Arrival { file: self.file, row: self.row.checked_sub(1)? },
        })
    }
}

// === impl Join ===

impl<'s> Join<'s> {
    /// Starts a join.
    #[must_use]
    pub fn new(spine: &'s Spine, visibility: Visibility) -> Self {
        Self { spine, visibility, best: vec![Best::NONE; spine.slots()], rows: 0 }
    }

    /// Adds a feature row.
    #[inline]
    pub fn add(&mut self, id: &EntityId, candidate: &Candidate) {
        self.rows += 1;
        let visible = match self.visibility {
            Visibility::Event => candidate.event_time,
            Visibility::Created => candidate.event_time.max(candidate.created.unwrap_or(Micros::MIN)),
        };
        let Some(slot) = self.spine.first_slot(id, visible) else { return };
        let (best, new) = (&mut self.best[slot], Best::of(candidate));
        if new.cmp(best) == Ordering::Greater {
            *best = new;
        }
    }

    /// Adds the feature rows of another join with the same spine and the same visibility.
    pub fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        for (best, other) in self.best.iter_mut().zip(&other.best) {
            *best = (*best).max(*other);
        }
    }

    /// Returns the winners.
    #[must_use]
    pub fn finish(mut self) -> Winners {
        for slots in self.spine.groups() {
            for slot in slots.skip(1) {
                // A row that is visible to a slot is visible to all later slots of the key.
                self.best[slot] = self.best[slot].max(self.best[slot - 1]);
            }
        }
        Winners { best: self.best, rows: self.rows }
    }
}

// === impl Winners ===

impl Winners {
    /// Returns the winner of a slot; `None` if no feature row is visible to it.
    #[must_use]
    pub fn get(&self, slot: usize) -> Option<Candidate> {
        self.best[slot].candidate()
    }

    /// Returns the number of feature rows that were added.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }
}
