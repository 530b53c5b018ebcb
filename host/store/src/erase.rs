//! Removes rows independently of loads: the row of one entity, all rows of a view, and the rows that callers wrote to a
//! view that is no longer defined.
//!
//! A deleted entity stays deleted even if the source still has its row. The store keeps the entity's ID with the event
//! and created time of the deleted row, or with the current time if there was no row. It drops arriving rows that are
//! not newer. The first newer row ends the deletion.
//!
//! ```text
//! deleted/<view>   entity id → event time i64, created time i64 (the minimum if none), checksum
//! ```

use std::collections::HashSet;

use larder_model::{
    codec::RowHeader,
    model::{EntityId, Micros},
};
use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use super::{
    KeySignature, OnlineStore, StoreError, ViewId,
    record::{RowKey, RowTable, VIEWS, ViewRecord, append_with_checksum, verified_row},
    tables::{cost, delete_building, put_record, read_record},
    transaction::Written,
};

/// The table of a view's deleted entities, if there is one, opened for writing.
pub(super) struct Deletions<'t>(Option<Table<'t, RowKey, &'static [u8]>>);

/// The sort key of a row: its event time, then its created time.
type Precedence = (Micros, Option<Micros>);

// === impl Deletions ===

impl<'t> Deletions<'t> {
    pub(super) fn open(txn: &'t WriteTransaction, record: &ViewRecord) -> Result<Self, StoreError> {
        let table = record.has_deletions.then(|| txn.open_table(RowTable::new(&record.deleted_name()))).transpose()?;
        Ok(Self(table))
    }

    /// Returns whether an entity was deleted and the arriving row is not newer than the deleted row. A newer row ends
    /// the deletion. Rows of a static source are never newer, because their event times are the times at which they
    /// were read.
    pub(super) fn rejects(&mut self, id: &EntityId, arriving: &RowHeader, is_static: bool) -> Result<bool, StoreError> {
        let Some(table) = &mut self.0 else { return Ok(false) };
        let Some(deleted) = table.get(&id.0)?.map(|stored| precedence(id, stored.value())) else { return Ok(false) };
        // An unreadable entry rejects no rows.
        if deleted.is_some_and(|deleted| is_static || arriving.precedence() <= deleted) {
            return Ok(true);
        }
        table.remove(&id.0)?;
        Ok(false)
    }
}

/// Removes the rows of deleted entities from a generation that a load built, unless they are newer than the deleted
/// rows.
pub(super) fn apply_deletions(
    txn: &WriteTransaction,
    record: &mut ViewRecord,
    generation: u32,
    is_static: bool,
) -> Result<(), StoreError> {
    if !record.has_deletions {
        return Ok(());
    }
    let mut deleted = txn.open_table(RowTable::new(&record.deleted_name()))?;
    let mut rows = txn.open_table(RowTable::new(&record.table_name(generation)))?;
    let mut ended = Vec::new();
    for entry in deleted.iter()? {
        let (key, stored) = entry?;
        let id = EntityId(*key.value());
        let Some(arrived) = rows.get(&id.0)?.map(|row| header(&id, row.value())) else { continue };
        let is_newer = match (precedence(&id, stored.value()), arrived) {
            (Some(deleted), Some(arrived)) => !is_static && arrived.precedence() > deleted,
            (deleted, _) => deleted.is_none(),
        };
        if is_newer {
            ended.push(id);
        } else {
            rows.remove(&id.0)?;
        }
    }
    for id in ended {
        deleted.remove(&id.0)?;
    }
    record.has_deletions = !deleted.is_empty()?;
    Ok(())
}

impl OnlineStore {
    /// Deletes an entity's row, including one that a caller wrote. The entity stays deleted until a newer row arrives.
    /// Returns whether there was a row.
    ///
    /// # Errors
    /// [`StoreError::Superseded`] if the view was redeclared with other keys, and errors of a failed transaction.
    pub fn delete(&self, view: ViewId, key: &KeySignature, id: &EntityId) -> Result<bool, StoreError> {
        let (name, _) = self.record(view)?;
        self.write(|txn| {
            let mut record = read_record(txn, &name)?;
            if record.key != *key {
                return Err(StoreError::Superseded { view: name.clone() });
            }
            let mut deleted: Option<Precedence> = None;
            let mut note = |stored: &[u8]| {
                deleted = deleted.max(header(id, stored).map(|header| header.precedence()));
            };
            let mut rows = txn.open_table(RowTable::new(&record.table_name(record.generation)))?;
            let mut existed = false;
            if let Some(stored) = rows.remove(&id.0)? {
                existed = true;
                record.bytes = record.bytes.saturating_sub(cost(stored.value()));
                note(stored.value());
            }
            record.rows = rows.len()?;
            drop(rows);
            if record.written
                && let Some(stored) = txn.open_table(RowTable::new(&record.written_name()))?.remove(&id.0)?
            {
                existed = true;
                note(stored.value());
            }
            let mut table = txn.open_table(RowTable::new(&record.deleted_name()))?;
            let before = table.get(&id.0)?.and_then(|stored| precedence(id, stored.value()));
            // If the entity has no row, the deletion rejects rows with event times up to now.
            let deleted = deleted.max(before).unwrap_or((self.clock.now(), None));
            let mut checksummed = Vec::with_capacity(size_of::<Precedence>());
            append_with_checksum(id, &encode(deleted), &mut checksummed);
            table.insert(&id.0, checksummed.as_slice())?;
            drop(table);
            record.has_deletions = true;
            put_record(txn, &name, &record)?;
            Ok(Written::Commit { value: existed, changed: vec![*id] })
        })
    }

    /// Drops all rows of a view, including rows that callers wrote, and makes the next load read the view's source from
    /// the start. Deleted entities stay deleted. Returns the number of served rows that were dropped.
    ///
    /// # Errors
    /// Errors of a failed transaction.
    pub fn reset(&self, view: ViewId) -> Result<u64, StoreError> {
        let (name, _) = self.record(view)?;
        self.write(|txn| {
            let mut record = read_record(txn, &name)?;
            let rows = record.rows;
            drop_rows(txn, &mut record)?;
            put_record(txn, &name, &record)?;
            Ok(Written::Commit { value: rows, changed: Vec::new() })
        })
    }

    /// Returns the names of the views that were declared and have not been retired since; empty while the store is
    /// closed.
    #[must_use]
    pub fn views(&self) -> Vec<String> {
        let state = self.state();
        let Ok(views) = state.views() else { return Vec::new() };
        views.filter(|view| !view.record.is_retired).map(|view| view.name.clone()).collect()
    }

    /// Drops the rows that callers wrote to views that are no longer defined. If such a view is added again, it has
    /// only the rows of its source. `is_kept` returns whether a view is still defined.
    ///
    /// # Errors
    /// Errors of a failed transaction.
    pub fn retire(&self, is_kept: impl Fn(&str) -> bool) -> Result<(), StoreError> {
        self.write(|txn| {
            let mut retired: Vec<(String, ViewRecord)> = Vec::new();
            {
                let table = txn.open_table(VIEWS)?;
                for entry in table.iter()? {
                    let (name, bytes) = entry?;
                    let record = ViewRecord::decode(name.value(), bytes.value())?;
                    if !record.is_retired && !is_kept(name.value()) {
                        retired.push((name.value().to_owned(), record));
                    }
                }
            }
            if retired.is_empty() {
                return Ok(Written::Nothing(()));
            }
            let mut changed = Vec::new();
            for (name, mut record) in retired {
                drop_rows_of_callers(txn, &name, &mut record, &mut changed)?;
                record.is_retired = true;
                put_record(txn, &name, &record)?;
            }
            Ok(Written::Commit { value: (), changed })
        })
    }
}

/// Drops the rows that callers wrote to a removed view. If callers wrote rows while the view had no source, drops all
/// of its rows, because these rows are not in a separate table.
pub(super) fn drop_rows_of_callers(
    txn: &WriteTransaction,
    name: &str,
    record: &mut ViewRecord,
    changed: &mut Vec<EntityId>,
) -> Result<(), StoreError> {
    let before = record.rows;
    if record.is_local {
        drop_rows(txn, record)?;
    } else if record.written {
        drop_written(txn, record, changed)?;
    }
    if before != record.rows {
        let dropped = before - record.rows;
        tracing::warn!(view = %name, dropped, "the view was removed; rows that callers wrote to it are dropped");
    }
    Ok(())
}

/// Drops all rows of a view, and deletes their tables.
fn drop_rows(txn: &WriteTransaction, record: &mut ViewRecord) -> Result<(), StoreError> {
    let tables = [record.table_name(record.generation), record.written_name()];
    let generation = record.building.unwrap_or(record.generation);
    delete_building(txn, record)?;
    for table in tables {
        txn.delete_table(RowTable::new(&table))?;
    }
    record.generation = generation;
    record.clear_rows();
    Ok(())
}

/// Deletes the rows that callers wrote, and makes the next load read the source from the start, because the source may
/// have older rows of the same entities.
fn drop_written(
    txn: &WriteTransaction,
    record: &mut ViewRecord,
    changed: &mut Vec<EntityId>,
) -> Result<(), StoreError> {
    let mut rows = txn.open_table(RowTable::new(&record.table_name(record.generation)))?;
    let written = txn.open_table(RowTable::new(&record.written_name()))?;
    let mut seen = HashSet::new();
    for entry in written.iter()? {
        let id = EntityId(*entry?.0.value());
        if rows.remove(&id.0)?.is_some() && seen.insert(id) {
            changed.push(id);
        }
    }
    record.rows = rows.len()?;
    drop((rows, written));
    txn.delete_table(RowTable::new(&record.written_name()))?;
    record.written = false;
    record.last_success = None;
    record.read_from_start();
    Ok(())
}

fn header(id: &EntityId, checksummed: &[u8]) -> Option<RowHeader> {
    verified_row(id, checksummed).and_then(|row| RowHeader::read(row).ok())
}

fn encode((event, created): Precedence) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&event.to_le_bytes());
    bytes[8..].copy_from_slice(&created.unwrap_or(Micros::MIN).to_le_bytes());
    bytes
}

fn precedence(id: &EntityId, checksummed: &[u8]) -> Option<Precedence> {
    let (event, created) = verified_row(id, checksummed)?.split_first_chunk()?;
    let created = Micros::from_le_bytes(*created.first_chunk()?);
    Some((Micros::from_le_bytes(*event), (created != Micros::MIN).then_some(created)))
}
