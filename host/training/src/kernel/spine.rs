//! The keys and times of the entity rows.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    ops::Range,
};

use larder_model::model::{EntityId, Micros};

use super::prefetch::prefetch;

/// The keys and times of the entity rows, indexed by key.
#[derive(Debug, Default)]
pub struct Spine {
    groups: Groups,
    /// The index of each group's first slot, and then the number of slots.
    starts: Vec<u32>,
    /// The time of each slot. The slots of a group are adjacent, in ascending order.
    times: Vec<Micros>,
    /// The nanoseconds below the microsecond of each slot's time; empty if they are 0 for all slots.
    nanos: Vec<u16>,
    /// The slot of each entity row, or [`NO_SLOT`].
    slots: Vec<u32>,
}

/// The slots of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group(u32);

/// Collects the entity rows of a [`Spine`].
#[derive(Debug, Default)]
pub struct SpineBuilder {
    groups: Groups,
    /// The group of each entity row, or [`NO_SLOT`] for a row without a key or a time.
    rows: Vec<u32>,
    /// The time of each entity row.
    times: Vec<Micros>,
    /// The nanoseconds below the microsecond of each entity row's time; empty if they are 0 for all rows so far.
    nanos: Vec<u16>,
}

/// The error for more entity rows than a spine can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are more than {ROWS_MAX} entity rows in memory")]
pub struct TooManyRows;

/// The index of the group of each key.
type Groups = HashMap<EntityId, u32, BuildHasherDefault<IdHasher>>;

/// Uses the first bytes of an entity ID as its hash, because the ID is a hash itself.
#[derive(Clone, Copy, Debug, Default)]
struct IdHasher(u64);

const NO_SLOT: u32 = u32::MAX;
/// The maximum number of rows, so that an index fits into 32 bits.
const ROWS_MAX: usize = u32::MAX as usize - 1;

// === impl SpineBuilder ===

impl SpineBuilder {
    /// Adds the next entity row. A row without a key or without a time finds no feature row. `nanos` are the nanoseconds
    /// below the microsecond, from 0 to 999.
    ///
    /// # Errors
    /// [`TooManyRows`] if the spine already has 2^32 - 2 rows.
    pub fn push(&mut self, id: Option<EntityId>, time: Option<Micros>, nanos: u16) -> Result<(), TooManyRows> {
        if self.rows.len() >= ROWS_MAX {
            return Err(TooManyRows);
        }
        if nanos > 0 && self.nanos.is_empty() {
            self.nanos = vec![0; self.rows.len()];
        }
        if nanos > 0 || !self.nanos.is_empty() {
            self.nanos.push(nanos);
        }
        let (Some(id), Some(time)) = (id, time) else {
            self.rows.push(NO_SLOT);
            self.times.push(0);
            return Ok(());
        };
        let next = index(self.groups.len());
        let group = *self.groups.entry(id).or_insert(next);
        self.rows.push(group);
        self.times.push(time);
        Ok(())
    }

    /// Returns the spine.
    #[must_use]
    pub fn finish(self) -> Spine {
        let Self { groups, rows, times, nanos } = self;
        let time_of = |row: u32| (times[row as usize], nanos.get(row as usize).copied().unwrap_or_default());
        // A counting sort by group: `ends` becomes the end of each group's rows.
        let mut ends = vec![0_u32; groups.len() + 1];
        for group in rows.iter().filter(|group| **group != NO_SLOT) {
            ends[*group as usize + 1] += 1;
        }
        for group in 1..ends.len() {
            ends[group] += ends[group - 1];
        }
        let mut sorted = vec![0_u32; ends[groups.len()] as usize];
        let firsts = ends.clone();
        let mut next = ends;
        for (row, group) in rows.iter().enumerate().filter(|(_, group)| **group != NO_SLOT) {
            let at = &mut next[*group as usize];
            sorted[*at as usize] = index(row);
            *at += 1;
        }
        let mut spine = Self::empty(groups, rows.len(), sorted.len());
        for range in firsts.windows(2) {
            let of_group = &mut sorted[range[0] as usize..range[1] as usize];
            of_group.sort_unstable_by_key(|row| time_of(*row));
            for row in of_group {
                let (time, left) = time_of(*row);
                let start = spine.starts.last().copied().unwrap_or_default() as usize;
                let last = spine.times.len().checked_sub(1).filter(|last| *last >= start);
                if last.is_none_or(|last| (spine.times[last], spine.nanos_of(last)) != (time, left)) {
                    spine.times.push(time);
                    if !nanos.is_empty() {
                        spine.nanos.push(left);
                    }
                }
                spine.slots[*row as usize] = index(spine.times.len() - 1);
            }
            spine.starts.push(index(spine.times.len()));
        }
        spine.times.shrink_to_fit();
        spine
    }

    fn empty(groups: Groups, rows: usize, slots: usize) -> Spine {
        let mut starts = Vec::with_capacity(groups.len() + 1);
        starts.push(0);
        Spine { groups, starts, times: Vec::with_capacity(slots), nanos: Vec::new(), slots: vec![NO_SLOT; rows] }
    }
}

// === impl Spine ===

impl Spine {
    /// Returns the number of entity rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.slots.len()
    }

    /// Returns the number of slots: the distinct pairs of a key and a time.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.times.len()
    }

    /// Returns the slot of an entity row; `None` if the row has no key or no time.
    #[must_use]
    pub fn slot(&self, row: usize) -> Option<usize> {
        Some(self.slots[row]).filter(|slot| *slot != NO_SLOT).map(|slot| slot as usize)
    }

    fn nanos_of(&self, slot: usize) -> u16 {
        self.nanos.get(slot).copied().unwrap_or_default()
    }

    /// Returns the time of a slot.
    #[must_use]
    pub fn time(&self, slot: usize) -> Micros {
        self.times[slot]
    }

    /// Returns the earliest and the latest time of the entity rows; `None` if no row has a key and a time.
    #[must_use]
    pub fn time_range(&self) -> Option<(Micros, Micros)> {
        Some((*self.times.iter().min()?, *self.times.iter().max()?))
    }

    /// Returns the group of a key; `None` if no entity row has the key.
    #[must_use]
    #[inline]
    pub fn group(&self, id: &EntityId) -> Option<Group> {
        self.groups.get(id).copied().map(Group)
    }

    /// Returns the approximate size of the spine in memory, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let group = size_of::<(EntityId, u32)>() + 1 + size_of::<u32>();
        let times = self.times.len() * size_of::<Micros>() + self.nanos.len() * size_of::<u16>();
        let slots = times + self.slots.len() * size_of::<u32>();
        (self.groups.capacity() * group + slots) as u64
    }

    /// Loads the times of groups that [`Spine::first_slot`] needs next.
    pub fn prefetch(&self, groups: impl Iterator<Item = Group>) {
        // The middle is the first time that a binary search reads.
        prefetch(groups.map(|group| {
            let range = self.range(group.0);
            self.times[range.start + range.len() / 2].to_le_bytes()[0]
        }));
    }

    /// Returns the first slot of a group whose time is not before `time`, given as microseconds and nanoseconds below the microsecond.
    #[must_use]
    #[inline]
    pub fn first_slot(&self, group: Group, (time, nanos): (Micros, u16)) -> Option<usize> {
        let range = self.range(group.0);
        let mut slot = range.start + self.times[range.clone()].partition_point(|slot| *slot < time);
        while nanos > 0 && slot < range.end && self.times[slot] == time && self.nanos_of(slot) < nanos {
            slot += 1;
        }
        (slot < range.end).then_some(slot)
    }

    /// Returns the slots of each key, in ascending order of their times.
    pub(super) fn groups(&self) -> impl Iterator<Item = Range<usize>> {
        self.starts.windows(2).map(|range| range[0] as usize..range[1] as usize)
    }

    fn range(&self, group: u32) -> Range<usize> {
        let group = group as usize;
        self.starts[group] as usize..self.starts[group + 1] as usize
    }
}

/// Converts an index that is at most [`ROWS_MAX`].
fn index(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(NO_SLOT)
}

// === impl IdHasher ===

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    // The length of the ID.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}
