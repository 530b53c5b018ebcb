//! Writes the batches of a [`Load`] that are served immediately, and ends loads.

use larder_model::{codec::RowRank, model::EntityId};
use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use super::{
    Applied, Load, LoadMode, RowBatch, Rule, StoreError,
    batch::Arrival,
    erase::{Deletions, apply_deletions},
    put::{overlay, restore_written},
    record::{Postponed, RowKey, RowTable, ViewRecord, unseal},
    rule::Judge,
    runs::take_run,
    tables::{cost, merge, put_record},
    transaction::Written,
};

// === impl Load ===

impl Load<'_> {
    /// Writes a batch and the source's position after it, in one transaction. An upsert is served immediately; in other
    /// loads, a row counts as inserted until [`Load::gather`] finds others of its entity. Without a position, the
    /// previous one stays.
    ///
    /// # Errors
    /// [`StoreError::Superseded`], [`StoreError::Row`], and errors of a failed transaction: nothing of the batch is
    /// stored then.
    pub fn apply(&mut self, batch: &RowBatch, position: Option<&str>) -> Result<Applied, StoreError> {
        if self.mode != LoadMode::Upsert {
            return self.add_run(batch, position);
        }
        self.postponed = Postponed::union(self.postponed, batch.postponed());
        let judge = batch.times().judge(self.store.clock.now());
        let applied = self.store.write(|txn| {
            let mut record = self.record(txn)?;
            let mut changed = Vec::new();
            let mut newest = record.newest_event;
            let mut applied = Applied::default();
            let mut table = txn.open_table(RowTable::new(&record.table_name(self.generation)))?;
            let row_error = |source| self.row_error(source);
            let written_name = record.written_name();
            // Rows of callers are stored separately from a source's rows, and are compared with those by their times.
            let overlaid = batch.rule() == Rule::Latest && record.written;
            let mut written = if overlaid { Some(txn.open_table(RowTable::new(&written_name))?) } else { None };
            let mut deletions = Deletions::open(txn, &record)?;
            let current = self.current_schema(&record)?;
            batch.each_winner(&mut applied, row_error, |id, arrival| {
                if let Arrival::Row(_, rank) = &arrival {
                    if rank.header.fingerprint != current {
                        return Err(self.superseded());
                    }
                    if deletions.bars(&id, &rank.header, batch.times().is_static)? {
                        return Ok(Applied { stale: 1, ..Applied::default() });
                    }
                }
                if let Some(written) = &mut written
                    && outlasts(written, &id, &arrival, judge)?
                {
                    return Ok(Applied { stale: 1, ..Applied::default() });
                }
                let outcome = match arrival {
                    Arrival::Row(sealed, rank) => {
                        newest = newest.max(Some(rank.header.event_time));
                        merge(&mut table, &id, sealed, &rank, batch.rule(), judge)?
                    }
                    Arrival::Removal => {
                        let old = table.remove(&id.0)?.map(|old| cost(old.value()));
                        record.bytes = record.bytes.saturating_sub(old.unwrap_or_default());
                        // Also for a missing row: a fetch in progress may return an old one.
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

    /// Ends the load successfully: gathers, records the time and the position, and makes the new generation the served
    /// one. Without a position, the previous one stays.
    ///
    /// # Errors
    /// [`StoreError::Superseded`], and errors of a failed transaction or of [`Load::gather`]; the new generation is not
    /// served then.
    pub fn finish(mut self, position: Option<&str>) -> Result<Applied, StoreError> {
        if self.mode != LoadMode::Upsert {
            self.gather(&mut || true)?;
        }
        let judge = self.times.judge(self.store.clock.now());
        self.store.write(|txn| {
            let mut record = self.record(txn)?;
            let mut changed = Vec::new();
            if self.mode == LoadMode::Upsert {
                if self.picks_up {
                    record.postponed = self.postponed;
                    // If the load has no rows, the clock may be wrong instead of the stored rows.
                    let has_future = record.newest_event.is_some_and(|newest| newest > judge.latest);
                    if has_future && self.total.rows() > 0 {
                        remove_future(txn, &mut record, judge, &mut changed)?;
                    }
                    restore_written(txn, &mut record, judge, &mut changed)?;
                }
            } else {
                let newest_event = record.runs.newest_event;
                record.postponed = record.runs.postponed;
                take_run(txn, &mut record, self.generation)?;
                record.loaded_rows = Some(txn.open_table(RowTable::new(&record.table_name(self.generation)))?.len()?);
                let written = overlay(txn, &self.name, &record, self.generation, judge)?;
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
                // Since the damage, this load and those that it continues have read the source from the start.
                (record.is_damaged, record.rows_lost) = (false, 0);
                tracing::info!(view = %self.name, "the view was fully reloaded; its damage is repaired");
            }
            put_record(txn, &self.name, &record)?;
            Ok(Written::Commit { value: (), changed })
        })?;
        Ok(self.total)
    }
}

/// Returns whether a caller's row stays, whatever arrives from the source. Deletes it once the source has a row that is
/// at least as new.
fn outlasts(
    written: &mut Table<'_, RowKey, &'static [u8]>,
    id: &EntityId,
    arrival: &Arrival<'_>,
    judge: Judge,
) -> Result<bool, StoreError> {
    let Some(stored) =
        written.get(&id.0)?.map(|stored| unseal(id, stored.value()).and_then(|row| RowRank::read(row).ok()))
    else {
        return Ok(false);
    };
    let outlasts = match arrival {
        Arrival::Removal => stored.is_none_or(|stored| !judge.is_future(&stored)),
        Arrival::Row(_, arriving) => stored.is_some_and(|stored| judge.outlasts(&stored, arriving)),
    };
    if !outlasts {
        written.remove(&id.0)?;
    }
    Ok(outlasts)
}

/// Removes served rows that are in the future: a version without that check accepted them. Their source is read again
/// when they are due.
fn remove_future(
    txn: &WriteTransaction,
    record: &mut ViewRecord,
    judge: Judge,
    changed: &mut Vec<EntityId>,
) -> Result<(), StoreError> {
    let mut table = txn.open_table(RowTable::new(&record.table_name(record.generation)))?;
    let (mut newest, first) = (None, changed.len());
    for entry in table.iter()? {
        let (key, sealed) = entry?;
        let id = EntityId(*key.value());
        let Some(rank) = unseal(&id, sealed.value()).and_then(|row| RowRank::read(row).ok()) else { continue };
        let time = rank.header.event_time;
        if judge.is_future(&rank) {
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
