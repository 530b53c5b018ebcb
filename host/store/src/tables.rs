//! Steps of write transactions that several writers share. They work on records, rows, and the tables of an unfinished
//! generation.

use larder_model::{codec::RowRank, model::EntityId};
use redb::{ReadableTable, Table, TableHandle, WriteTransaction};

use super::{
    Applied, StoreError,
    record::{RowKey, RowTable, Runs, VIEWS, ViewRecord, verified_row},
    rule::{RowComparer, Rule},
};

/// Reads the record of a view.
pub(super) fn read_record(txn: &WriteTransaction, name: &str) -> Result<ViewRecord, StoreError> {
    match txn.open_table(VIEWS)?.get(name)? {
        Some(bytes) => ViewRecord::decode(name, bytes.value()),
        None => Err(StoreError::Damaged(format!("no record of view '{name}'"))),
    }
}

/// Writes the record of a view.
pub(super) fn put_record(txn: &WriteTransaction, name: &str, record: &ViewRecord) -> Result<(), StoreError> {
    txn.open_table(VIEWS)?.insert(name, record.encode().as_slice())?;
    Ok(())
}

/// Deletes the tables of the generation that is being built, if there is one, and clears its fields in the record.
pub(super) fn delete_building(txn: &WriteTransaction, record: &mut ViewRecord) -> Result<(), StoreError> {
    let prefix = record.run_prefix();
    for table in txn.list_tables()?.filter(|table| table.name().starts_with(&prefix)) {
        txn.delete_table(table)?;
    }
    if let Some(building) = record.building.take() {
        // Earlier versions, which had no runs, wrote to the generation's own table.
        txn.delete_table(RowTable::new(&record.table_name(building)))?;
    }
    record.runs = Runs::default();
    Ok(())
}

/// Inserts a row, unless the stored row wins by `rule`.
pub(super) fn merge(
    table: &mut Table<'_, RowKey, &'static [u8]>,
    id: &EntityId,
    checksummed: &[u8],
    rank: &RowRank,
    rule: Rule,
    comparer: RowComparer,
) -> Result<Applied, StoreError> {
    let mut outcome = Applied::default();
    let rival = match table.get(&id.0)? {
        None => {
            outcome.inserted = 1;
            None
        }
        Some(stored) if stored.value() == checksummed => {
            outcome.unchanged = 1;
            return Ok(outcome);
        }
        Some(stored) => {
            outcome.updated = 1;
            // An unreadable stored row never wins, so the arriving row replaces it.
            verified_row(id, stored.value()).and_then(|row| RowRank::read(row).ok())
        }
    };
    if rule == Rule::Newest && rival.is_some_and(|stored| comparer.wins_over(&stored, rank)) {
        return Ok(Applied { stale: 1, ..Applied::default() });
    }
    table.insert(&id.0, checksummed)?;
    Ok(outcome)
}

/// Returns the approximate disk space of a row: the row, its key, and the overhead of the tree.
pub(super) fn cost(checksummed: &[u8]) -> u64 {
    const OVERHEAD: u64 = 16 + 16;
    checksummed.len() as u64 + OVERHEAD
}
