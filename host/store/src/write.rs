//! Writes the batches of a [`Load`] that are served immediately, and ends loads.

use larder_model::{codec::RowRank, model::EntityId};
use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use super::{
    Applied, Load, LoadMode, RowBatch, Rule, StoreError,
    batch::Arrival,
    erase::{Deletions, apply_deletions},
    put::{overlay, restore_written},
    record::{Postponed, RowKey, RowTable, ViewRecord, verified_row},
    rule::RowComparer,
    runs::promote_run,
    tables::{cost, merge, put_record},
    transaction::Written,
};

// === impl Load ===

impl Load<'_> {
    /// Writes a batch and the source's position after it, in one transaction. If `position` is `None`, the previous
    /// position stays.
    ///
    /// In an upsert, the rows are served immediately. In other loads, they are served when the load ends, and each row
    /// of a batch is counted as inserted until [`Load::merge_runs`] finds other rows of the same entity.
    ///
    /// # Errors
    /// [`StoreError::Superseded`], [`StoreError::Row`], and errors of a failed transaction. Nothing of the batch is
    /// stored then.
    pub fn apply(&mut self, batch: &RowBatch, position: Option<&str>) -> Result<Applied, StoreError> {
        if self.mode != LoadMode::Upsert {
            return self.add_run(batch, position);
        }
        self.postponed = Postponed::union(self.postponed, batch.postponed());
        let comparer = batch.times().comparer(self.store.clock.now());
        let applied = self.store.write(|txn| {
            let mut record = self.record(txn)?;
            let mut changed = Vec::new();
            let mut newest = record.newest_event;
            let mut applied = Applied::default();
            let mut table = txn.open_table(RowTable::new(&record.table_name(self.generation)))?;
            let row_error = |source| self.row_error(source);
            let written_name = record.written_name();
            // In a change stream, the last write wins. But a row of a caller is still compared with the source's row by
            // their times.
            let overlaid = batch.rule() == Rule::Latest && record.written;
            let mut written = if overlaid { Some(txn.open_table(RowTable::new(&written_name))?) } else { None };
            let mut deletions = Deletions::open(txn, &record)?;
            let current = self.current_schema(&record)?;
            batch.for_each_winner(&mut applied, row_error, |id, arrival| {
                if let Arrival::Row(_, rank) = &arrival {
                    if rank.header.fingerprint != current {
                        return Err(self.superseded());
                    }
                    if deletions.rejects(&id, &rank.header, batch.times().is_static)? {
                        return Ok(Applied { stale: 1, ..Applied::default() });
                    }
                }
                let only_invalidates = self.removals_invalidate && matches!(arrival, Arrival::Removal);
                if let Some(written) = &mut written
                    && !only_invalidates
                    && caller_row_wins(written, &id, &arrival, comparer)?
                {
                    return Ok(Applied { stale: 1, ..Applied::default() });
                }
                let outcome = match arrival {
                    Arrival::Row(checksummed, rank) => {
                        newest = newest.max(Some(rank.header.event_time));
                        merge(&mut table, &id, checksummed, &rank, batch.rule(), comparer)?
                    }
                    Arrival::Removal => {
                        let old = table.remove(&id.0)?.map(|old| cost(old.value()));
                        record.bytes = record.bytes.saturating_sub(old.unwrap_or_default());
                        // Invalidate the entity even if it had no row, because a fetch in progress may return an old
                        // row.
                        changed.push(id);
                        Applied { removed: u64::from(old.is_some()), ..Applied::default() }
                    }
                };
                if outcome.inserted + outcome.updated > 0 {
                    changed.push(id);
                }
                Ok(outcome)
            })?;
            record.rows = table.len()?;
            record.position = position.map(str::to_owned).or(record.position);
            record.newest_event = newest;
            record.postponed = Postponed::union(record.postponed, batch.postponed());
            drop((table, written, deletions));
            put_record(txn, &self.name, &record)?;
            Ok(Written::Commit { value: applied, changed })
        })?;
        self.total.add(applied);
        Ok(applied)
    }

    /// Ends the load successfully: merges its runs, records the time and the position, and serves the new generation if
    /// the load built one. If `position` is `None`, the previous position stays.
    ///
    /// # Errors
    /// [`StoreError::Superseded`], errors of [`Load::merge_runs`], and errors of a failed transaction. The new
    /// generation is not served then.
    pub fn finish(mut self, position: Option<&str>) -> Result<Applied, StoreError> {
        if self.mode != LoadMode::Upsert {
            self.merge_runs(&mut || true)?;
        }
        let comparer = self.times.comparer(self.store.clock.now());
        self.store.write(|txn| {
            let mut record = self.record(txn)?;
            let mut changed = Vec::new();
            if self.mode == LoadMode::Upsert {
                if self.reads_postponed {
                    record.postponed = self.postponed;
                    // If the load has no rows, the clock may be wrong, and the stored rows may be right.
                    let has_future = record.newest_event.is_some_and(|newest| newest > comparer.latest);
                    if has_future && self.total.rows() > 0 {
                        remove_future(txn, &mut record, comparer, &mut changed)?;
                    }
                    restore_written(txn, &mut record, comparer, &mut changed)?;
                }
            } else {
                let newest_event = record.runs.newest_event;
                record.postponed = record.runs.postponed;
                promote_run(txn, &mut record, self.generation)?;
                record.loaded_rows = Some(txn.open_table(RowTable::new(&record.table_name(self.generation)))?.len()?);
                let written = overlay(txn, &self.name, &record, self.generation, comparer)?;
                apply_deletions(txn, &mut record, self.generation, self.times.is_static)?;
                let old_table = record.table_name(record.generation);
                record.generation = self.generation;
                record.building = None;
                record.retain_schemas(&self.name, &written.schemas)?;
                record.newest_event = newest_event.max(written.newest_event);
                record.postponed = Postponed::union(record.postponed, written.postponed);
                (record.bytes, record.hand) = (0, Default::default());
                record.written = !written.schemas.is_empty();
                record.rows = txn.open_table(RowTable::new(&record.table_name(self.generation)))?.len()?;
                txn.delete_table(RowTable::new(&old_table))?;
            }
            record.position = position.map(str::to_owned).or(record.position);
            record.last_success = Some(self.store.clock.now());
            if record.is_damaged {
                // This load, together with the loads whose position it continues, has read the whole source since the
                // damage.
                (record.is_damaged, record.rows_lost) = (false, 0);
                tracing::info!(view = %self.name, "the view was fully reloaded; its damage is repaired");
            }
            put_record(txn, &self.name, &record)?;
            Ok(Written::Commit { value: (), changed })
        })?;
        Ok(self.total)
    }
}

/// Returns whether a caller's row wins over a row or removal that arrived from the source. A removal wins only over a
/// caller's row from the future. If the caller's row loses, it is deleted from the table of callers' rows.
fn caller_row_wins(
    written: &mut Table<'_, RowKey, &'static [u8]>,
    id: &EntityId,
    arrival: &Arrival<'_>,
    comparer: RowComparer,
) -> Result<bool, StoreError> {
    let Some(stored) =
        written.get(&id.0)?.map(|stored| verified_row(id, stored.value()).and_then(|row| RowRank::read(row).ok()))
    else {
        return Ok(false);
    };
    let wins = match arrival {
        Arrival::Removal => stored.is_none_or(|stored| !comparer.is_future(&stored)),
        Arrival::Row(_, arriving) => stored.is_some_and(|stored| comparer.wins_over(&stored, arriving)),
    };
    if !wins {
        written.remove(&id.0)?;
    }
    Ok(wins)
}

/// Removes served rows from the future. An earlier version accepted such rows. The source is read again when they are
/// due.
fn remove_future(
    txn: &WriteTransaction,
    record: &mut ViewRecord,
    comparer: RowComparer,
    changed: &mut Vec<EntityId>,
) -> Result<(), StoreError> {
    let mut table = txn.open_table(RowTable::new(&record.table_name(record.generation)))?;
    let (mut newest, first) = (None, changed.len());
    for entry in table.iter()? {
        let (key, checksummed) = entry?;
        let id = EntityId(*key.value());
        let Some(rank) = verified_row(&id, checksummed.value()).and_then(|row| RowRank::read(row).ok()) else {
            continue;
        };
        let time = rank.header.event_time;
        if comparer.is_future(&rank) {
            record.postponed = Postponed::union(record.postponed, Some(Postponed::at(time)));
            changed.push(id);
        } else {
            newest = newest.max(Some(time));
        }
    }
    for id in &changed[first..] {
        table.remove(&id.0)?;
    }
    record.newest_event = newest;
    record.rows = table.len()?;
    Ok(())
}
