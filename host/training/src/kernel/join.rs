//! Finds the winner of each slot.

use std::cmp::Ordering;

use larder_model::model::Micros;

use super::{Spine, spine::Group};

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
}

/// The winner of each slot.
#[derive(Debug)]
pub struct Winners {
    /// The distinct winners, in ascending order.
    pub arrivals: Vec<Arrival>,
    /// For each slot, the index of its winner in `arrivals`, or [`NO_WINNER`].
    slots: Vec<u32>,
}

/// The index of a slot without a winner.
const NO_WINNER: u32 = u32::MAX;

// === impl Visibility ===

impl Visibility {
    /// Returns the time from which on a feature row is visible.
    #[must_use]
    #[inline]
    pub fn of(self, event_time: Micros, created: Option<Micros>) -> Micros {
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

    fn arrival(&self) -> Option<Arrival> {
        Some(Arrival { file: self.file, row: self.row.checked_sub(1)? })
    }
}

// === impl Join ===

impl<'s> Join<'s> {
    /// Starts a join.
    #[must_use]
    pub fn new(spine: &'s Spine, visibility: Visibility) -> Self {
        Self { spine, visibility, best: vec![Best::NONE; spine.slots()] }
    }

    /// Adds a feature row. `group` is the result of [`Spine::group`] for its key.
    #[inline]
    pub fn add(&mut self, group: Group, candidate: &Candidate) {
        let visible = self.visibility.of(candidate.event_time, candidate.created);
        let Some(slot) = self.spine.first_slot(group, visible) else { return };
        let (best, new) = (&mut self.best[slot], Best::of(candidate));
        if new.cmp(best) == Ordering::Greater {
            *best = new;
        }
    }

    /// Adds the feature rows of another join with the same spine and the same visibility.
    pub fn merge(&mut self, other: &Self) {
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
        // A feature row has one key, so all slots that it wins are adjacent.
        let mut firsts: Vec<(Arrival, u32)> = Vec::new();
        for (slot, best) in self.best.iter().enumerate() {
            if let Some(arrival) = best.arrival()
                && (slot == 0 || self.best[slot - 1].arrival() != Some(arrival))
            {
                // A spine has at most 2^32 - 2 slots.
                firsts.push((arrival, u32::try_from(slot).unwrap_or(NO_WINNER)));
            }
        }
        firsts.sort_unstable();
        let mut slots = vec![NO_WINNER; self.best.len()];
        for (index, (_, first)) in firsts.iter().enumerate() {
            slots[*first as usize] = u32::try_from(index).unwrap_or(NO_WINNER);
        }
        for slot in 1..slots.len() {
            if slots[slot] == NO_WINNER && self.best[slot].arrival().is_some() {
                slots[slot] = slots[slot - 1];
            }
        }
        Winners { arrivals: firsts.into_iter().map(|(arrival, _)| arrival).collect(), slots }
    }
}

// === impl Winners ===

impl Winners {
    /// Returns the size in memory, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.slots.len() * size_of::<u32>() + self.arrivals.len() * size_of::<Arrival>()) as u64
    }

    /// Returns the index in [`Winners::arrivals`] of a slot's winner; `None` if no feature row is visible to the slot.
    #[must_use]
    pub fn get(&self, slot: usize) -> Option<usize> {
        Some(self.slots[slot]).filter(|index| *index != NO_WINNER).map(|index| index as usize)
    }
}
