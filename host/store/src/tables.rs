//! Steps of write transactions that several writers share: records, rows, and the tables of an unfinished generation.

use larder_model::{codec::RowRank, model::EntityId};
use redb::{ReadableTable, Table, TableHandle, WriteTransaction};

use super::{
    Applied, StoreError,
    record::{RowKey, RowTable, Runs, VIEWS, ViewRecord, unseal},
    rule::{Judge, Rule},
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

/// Deletes the tables and the state of a generation that is being built.
pub(super) fn delete_building(txn: &WriteTransaction, record: &mut ViewRecord) -> Result<(), StoreError> {
    let prefix = record.run_prefix();
    for table in txn.list_tables()?.filter(|table| table.name().starts_with(&prefix)) {
        txn.delete_table(table)?;
    }
    if let Some(building) = record.building.take() {
        // A version without runs wrote to the generation's own table.
        txn.delete_table(RowTable::new(&record.table_name(building)))?;
    }
    record.runs = Runs::default();
    Ok(())
}

/// Inserts one row, unless a newer one is stored.
pub(super) fn merge(
    table: &mut Table<'_, RowKey, &'static [u8]>,
    id: &EntityId,
    sealed: &[u8],
    rank: &RowRank,
    rule: Rule,
    judge: Judge,
) -> Result<Applied, StoreError> {
    let mut outcome = Applied::default();
    let rival = match table.get(&id.0)? {
        None => {
            outcome.inserted = 1;
            None
        }
        Some(stored) if stored.value() == sealed => {
            outcome.unchanged = 1;
            return Ok(outcome);
        }
        Some(stored) => {
            outcome.updated = 1;
            // An unreadable stored row never wins: the source's row replaces it.
            unseal(id, stored.value()).and_then(|row| RowRank::read(row).ok())
        }
    };
    if rule == Rule::Newest && rival.is_some_and(|stored| judge.outlasts(&stored, rank)) {
        return Ok(Applied { stale: 1, ..Applied::default() });
    }
    table.insert(&id.0, sealed)?;
    Ok(outcome)
}

/// Returns the disk space of a row: the row, its key, and the overhead of the tree.
pub(super) fn cost(sealed: &[u8]) -> u64 {
    const OVERHEAD: u64 = 16 + 16;
    sealed.len() as u64 + OVERHEAD
}
