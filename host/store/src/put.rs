//! Rows that callers write, in addition to the rows that loads read.
//!
//! A replacing load contains all rows of a source, but not the rows that callers wrote, so it would drop these rows.
//! Therefore, callers' rows are also stored in a separate table, and merged into each new generation before the
//! generation is served. Once the source has a row of the entity that is at least as new, the caller's row is deleted
//! from that table.

use std::collections::HashSet;

use larder_model::{
    codec::{Fingerprint, RowRank},
    model::{EntityId, Micros},
};
use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::{
    Applied, KeySignature, OnlineStore, RowBatch, Rule, StoreError, ViewId,
    batch::Arrival,
    erase::Deletions,
    record::{Postponed, RowTable, ViewRecord, verified_row},
    rule::RowComparer,
    tables::{cost, merge, put_record, read_record},
    transaction::Written,
};

/// The result of merging the rows of callers into a generation.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// The newest event time of the merged rows.
    pub(super) newest_event: Option<Micros>,
    /// The schemas of the callers' rows that stay in their table; empty if no rows are left in it.
    pub(super) schemas: HashSet<Fingerprint>,
    /// The span of the event times of rows that are held back because they are from the future.
    pub(super) postponed: Option<Postponed>,
}

impl OnlineStore {
    /// Writes rows of a caller. They are durable and served when this function returns. Stored rows that are newer
    /// stay.
    ///
    /// `key` is the signature of the ids in the batch. Set `keep` for a view with a source, so that the rows survive
    /// replacing loads. Without `keep`, the write is also recorded as a successful load of the view.
    ///
    /// # Errors
    /// [`StoreError::Superseded`] if the view was removed, or redeclared with other keys or features;
    /// [`StoreError::Row`]; and errors of a failed transaction. Nothing of the batch is stored then, unless the commit
    /// itself failed, or the file was removed during the commit: in these cases, the whole batch may be stored.
    pub fn put(&self, view: ViewId, key: &KeySignature, batch: &RowBatch, keep: bool) -> Result<Applied, StoreError> {
        let (name, _) = self.record(view)?;
        let comparer = batch.times().comparer(self.clock.now());
        self.write(|txn| {
            let mut record = read_record(txn, &name)?;
            let superseded = || StoreError::Superseded { view: name.clone() };
            let schemas = record.row_schemas(&name)?;
            let current = schemas.last().map(|schema| schema.fingerprint());
            if record.key != *key || record.is_retired {
                return Err(superseded());
            }
            let mut applied = Applied::default();
            let mut changed = Vec::new();
            let mut rows = txn.open_table(RowTable::new(&record.table_name(record.generation)))?;
            let written_name = record.written_name();
            let mut written = if keep { Some(txn.open_table(RowTable::new(&written_name))?) } else { None };
            let mut deletions = Deletions::open(txn, &record)?;
            let (mut newest, mut bytes) = (record.newest_event, record.bytes);
            let row_error = |source| StoreError::Row { view: name.clone(), source };
            batch.for_each_winner(&mut applied, row_error, |id, arrival| {
                // Callers do not send removals.
                let Arrival::Row(checksummed, rank) = arrival else { return Ok(Applied::default()) };
                if Some(rank.header.fingerprint) != current {
                    return Err(superseded());
                }
                if deletions.rejects(&id, &rank.header, false)? {
                    return Ok(Applied { stale: 1, ..Applied::default() });
                }
                let before = rows.get(&id.0)?.map_or(0, |old| cost(old.value()));
                let outcome = merge(&mut rows, &id, checksummed, &rank, Rule::Newest, comparer)?;
                if outcome.changed() > 0 {
                    bytes = bytes.saturating_sub(before) + cost(checksummed);
                }
                if let Some(written) = &mut written
                    && outcome.stale == 0
                {
                    merge(written, &id, checksummed, &rank, Rule::Newest, comparer)?;
                }
                if outcome.changed() > 0 {
                    changed.push(id);
                }
                newest = newest.max(Some(rank.header.event_time));
                Ok(outcome)
            })?;
            (record.newest_event, record.bytes) = (newest, bytes);
            record.rows = rows.len()?;
            drop((rows, written, deletions));
            record.written |= keep;
            record.is_local |= !keep;
            if !keep {
                record.last_success = Some(self.clock.now());
            }
            put_record(txn, &name, &record)?;
            Ok(Written::Commit { value: applied, changed })
        })
    }
}

/// Merges the rows of callers into a generation that a load built, except rows from the future. If the load has a row
/// of the same entity that is at least as new, deletes the caller's row instead.
pub(super) fn overlay(
    txn: &WriteTransaction,
    name: &str,
    record: &ViewRecord,
    generation: u32,
    comparer: RowComparer,
) -> Result<Overlay, StoreError> {
    let mut overlay = Overlay::default();
    if !record.written {
        return Ok(overlay);
    }
    let known: HashSet<Fingerprint> = record.row_schemas(name)?.iter().map(|schema| schema.fingerprint()).collect();
    let mut written = txn.open_table(RowTable::new(&record.written_name()))?;
    let mut rows = txn.open_table(RowTable::new(&record.table_name(generation)))?;
    let mut caught_up: Vec<EntityId> = Vec::new();
    for entry in written.iter()? {
        let (key, checksummed) = entry?;
        let (id, checksummed) = (EntityId(*key.value()), checksummed.value());
        let rank = verified_row(&id, checksummed).and_then(|row| RowRank::read(row).ok());
        // An unreadable row was not served, so serving the source's row instead loses nothing.
        let Some(rank) = rank.filter(|rank| known.contains(&rank.header.fingerprint)) else {
            tracing::warn!(view = name, "dropped an unreadable row that a caller wrote");
            caught_up.push(id);
            continue;
        };
        if comparer.is_future(&rank) {
            overlay.postponed = Postponed::union(overlay.postponed, Some(Postponed::at(rank.header.event_time)));
            overlay.schemas.insert(rank.header.fingerprint);
            continue;
        }
        let is_newer = match rows.get(&id.0)? {
            None => true,
            Some(stored) => verified_row(&id, stored.value())
                .and_then(|row| RowRank::read(row).ok())
                .is_none_or(|stored| comparer.wins_over(&rank, &stored)),
        };
        if is_newer {
            rows.insert(&id.0, checksummed)?;
            overlay.newest_event = overlay.newest_event.max(Some(rank.header.event_time));
            overlay.schemas.insert(rank.header.fingerprint);
        } else {
            caught_up.push(id);
        }
    }
    for id in caught_up {
        written.remove(&id.0)?;
    }
    if written.is_empty()? {
        drop(written);
        txn.delete_table(RowTable::new(&record.written_name()))?;
    }
    Ok(overlay)
}

/// Serves rows of callers that were held back because they were from the future, and that are due now. Larder rejects
/// such rows when callers write them, so the rows were written by an earlier version, with a larger `future_tolerance`,
/// or before the clock was set back.
pub(super) fn restore_written(
    txn: &WriteTransaction,
    record: &mut ViewRecord,
    comparer: RowComparer,
    changed: &mut Vec<EntityId>,
) -> Result<(), StoreError> {
    if !record.written {
        return Ok(());
    }
    let written = txn.open_table(RowTable::new(&record.written_name()))?;
    let mut rows = txn.open_table(RowTable::new(&record.table_name(record.generation)))?;
    for entry in written.iter()? {
        let (key, checksummed) = entry?;
        let (id, checksummed) = (EntityId(*key.value()), checksummed.value());
        let Some(rank) = verified_row(&id, checksummed).and_then(|row| RowRank::read(row).ok()) else { continue };
        if comparer.is_future(&rank) {
            record.postponed = Postponed::union(record.postponed, Some(Postponed::at(rank.header.event_time)));
            continue;
        }
        let stored = rows.get(&id.0)?;
        let is_newer = stored.is_none_or(|stored| {
            let stored = verified_row(&id, stored.value()).and_then(|row| RowRank::read(row).ok());
            stored.is_none_or(|stored| comparer.wins_over(&rank, &stored))
        });
        if is_newer {
            rows.insert(&id.0, checksummed)?;
            record.newest_event = record.newest_event.max(Some(rank.header.event_time));
            changed.push(id);
        }
    }
    record.rows = rows.len()?;
    Ok(())
}
