//! Batches: rows that are written in one transaction.

use larder_model::{
    codec::{RowError, RowRank},
    model::{EntityId, Micros},
};

use super::{
    StoreError,
    record::{Postponed, append_with_checksum, without_checksum},
    rule::{RowTimes, Rule},
};

/// Encoded rows with their ids. The rows are in one block of memory, in the format in which they will be stored.
#[derive(Debug, Default)]
pub struct RowBatch {
    rule: Rule,
    times: RowTimes,
    /// The span of the event times of rows that were skipped because they are from the future.
    postponed: Option<Postponed>,
    ids: Vec<EntityId>,
    /// The end offset of each row in `bytes`. A removal has no bytes, and a row has at least the bytes of its checksum.
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

/// A row or a removal that arrived for one entity.
pub(super) enum Arrival<'b> {
    /// A row with its checksum, and its rank.
    Row(&'b [u8], RowRank),
    /// The entity no longer has a row.
    Removal,
}

/// The effect of a batch, or of a load, on the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rows of entities that had no row.
    pub inserted: u64,
    /// Rows that replaced a stored row.
    pub updated: u64,
    /// Rows that were stored already, byte for byte.
    pub unchanged: u64,
    /// Rows that were dropped because another row in the store, the batch or the load won, or because their entity was
    /// deleted.
    pub stale: u64,
    /// Rows that were removed.
    pub removed: u64,
}

// === impl RowBatch ===

impl RowBatch {
    /// Creates an empty batch whose rows are compared by `rule`, with their times interpreted as in `times`.
    #[must_use]
    pub fn new(rule: Rule, times: RowTimes) -> Self {
        Self { rule, times, ..Self::default() }
    }

    /// Records the event time of a row that is skipped because it is from the future, so that the row is read again
    /// when it is due.
    pub fn postpone(&mut self, event_time: Micros) {
        self.postponed = Postponed::union(self.postponed, Some(Postponed::at(event_time)));
    }

    /// Adds the removal of a row. Only batches with [`Rule::Latest`] support removals: a removal has no event time, so
    /// [`Rule::Newest`] cannot compare it with rows.
    pub fn remove(&mut self, id: EntityId) {
        self.ids.push(id);
        self.ends.push(self.bytes.len());
    }

    /// Adds a row.
    pub fn push(&mut self, id: EntityId, row: &[u8]) {
        self.ids.push(id);
        append_with_checksum(&id, row, &mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// Returns the number of rows and removals.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Returns whether there is nothing to commit: no rows, no removals, and no postponed event times.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.postponed.is_none()
    }

    /// Returns the size of all rows in bytes, as stored.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Empties the batch and keeps the allocated memory.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.ends.clear();
        self.bytes.clear();
        self.postponed = None;
    }

    /// Returns how the times of the batch's rows are interpreted.
    #[must_use]
    pub fn times(&self) -> RowTimes {
        self.times
    }

    pub(super) fn postponed(&self) -> Option<Postponed> {
        self.postponed
    }

    pub(super) fn rule(&self) -> Rule {
        self.rule
    }

    /// Calls `apply` with the winning arrival of each id, in the order of ids. Adds the results of `apply`, and the
    /// counts of the rows that lose within the batch, to `applied`.
    pub(super) fn for_each_winner(
        &self,
        applied: &mut Applied,
        row_error: impl Fn(RowError) -> StoreError,
        mut apply: impl FnMut(EntityId, Arrival<'_>) -> Result<Applied, StoreError>,
    ) -> Result<(), StoreError> {
        let order = self.order();
        for arrivals in order.chunk_by(|&a, &b| self.ids[a] == self.ids[b]) {
            let Some((i, arrival)) = self.winner(arrivals, applied).map_err(&row_error)? else { continue };
            applied.add(apply(self.ids[i], arrival)?);
        }
        Ok(())
    }

    /// Returns a row with its checksum; empty for a removal.
    fn checksummed(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.bytes[start..self.ends[i]]
    }

    /// Returns the indexes of the rows in the order for writing: by id, because rows with neighboring ids share pages.
    /// Rows of one id are in the order of arrival.
    fn order(&self) -> Vec<usize> {
        // Ids are hashes, so their first bytes distinguish nearly all of them. This list has the first bytes next to
        // each other in memory, so sorting it is fast.
        let beginning = |id: &EntityId| id.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let mut order: Vec<(u64, usize)> = self.ids.iter().map(beginning).zip(0..).collect();
        order.sort_unstable_by(|(a, i), (b, j)| a.cmp(b).then_with(|| (self.ids[*i], i).cmp(&(self.ids[*j], j))));
        order.into_iter().map(|(_, i)| i).collect()
    }

    /// Returns the arrival that wins among `arrivals`, which have the same id, and counts the other arrivals in `lost`.
    /// The arrivals are not merged into the table one by one, because rows that tie would then replace each other
    /// whenever the batch is applied again.
    fn winner(&self, arrivals: &[usize], lost: &mut Applied) -> Result<Option<(usize, Arrival<'_>)>, RowError> {
        if self.rule == Rule::Latest {
            let Some((&last, before)) = arrivals.split_last() else { return Ok(None) };
            lost.stale += before.len() as u64;
            let checksummed = self.checksummed(last);
            let arrival = if checksummed.is_empty() {
                Arrival::Removal
            } else {
                Arrival::Row(checksummed, rank_of(checksummed)?)
            };
            return Ok(Some((last, arrival)));
        }
        let mut winner: Option<(usize, RowRank)> = None;
        for &i in arrivals {
            let rank = rank_of(self.checksummed(i))?;
            match winner {
                Some((best, _)) if self.checksummed(best) == self.checksummed(i) => lost.unchanged += 1,
                Some(_) => lost.stale += 1,
                None => {}
            }
            if winner.is_none_or(|(_, best)| self.times.compare(&best, &rank).is_le()) {
                winner = Some((i, rank));
            }
        }
        Ok(winner.map(|(i, rank)| (i, Arrival::Row(self.checksummed(i), rank))))
    }
}

// === impl Applied ===

impl Applied {
    /// Returns the number of rows that arrived, plus the number of rows that were removed.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.inserted + self.updated + self.unchanged + self.stale + self.removed
    }

    /// Returns the number of rows that were inserted, updated or removed.
    #[must_use]
    pub fn changed(&self) -> u64 {
        self.inserted + self.updated + self.removed
    }

    /// Adds the counts of another batch.
    pub fn add(&mut self, other: Self) {
        self.inserted += other.inserted;
        self.updated += other.updated;
        self.unchanged += other.unchanged;
        self.stale += other.stale;
        self.removed += other.removed;
    }
}

/// Returns the rank of a row with its checksum.
fn rank_of(checksummed: &[u8]) -> Result<RowRank, RowError> {
    RowRank::read(without_checksum(checksummed))
}
