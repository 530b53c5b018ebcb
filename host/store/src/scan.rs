//! Background scans of the whole store, to find damage that no lookup encounters.
//!
//! The checksum of a row reveals a flipped bit when the row is read. A flipped bit in an inner page of a tree, or in a
//! key, hides rows instead: a lookup follows the wrong branch and finds nothing. A scan reads every table in order,
//! except the tables of unfinished loads. It checks that IDs ascend, that each row has a valid checksum and a known
//! schema, that a lookup by ID finds the row, and that the number of rows matches the view's record.

use std::{
    collections::HashSet,
    sync::PoisonError,
    time::{Duration, Instant},
};

use larder_model::{
    codec::{Fingerprint, RowHeader},
    model::EntityId,
};
use redb::{ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableError};

use super::{
    OnlineStore, StoreError, ViewId,
    record::{RowKey, RowTable, VIEWS, ViewRecord, verified_row},
    tables::{put_record, read_record},
    transaction::Written,
};

/// The result of a scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// The number of entries, over all tables.
    pub rows: u64,
    /// The duration of the scan, including pauses.
    pub elapsed: Duration,
}

/// The number of entries that are read between two pauses. Reading them takes a few milliseconds.
const CHUNK: usize = 2_048;

impl OnlineStore {
    /// Reads the whole store and records damage for [`OnlineStore::repair`]. Drops schemas that no row uses any more.
    /// Calls `pause` every few milliseconds, and at the end of each table, with the time spent on reading since the last
    /// call. If `pause` returns false, the scan ends. Returns `None` if `pause` ended the scan, if the file is not
    /// open, or if an error other than damage interrupted the scan, for example because the file was reopened.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] for the first damage.
    pub fn scan(&self, pause: &mut dyn FnMut(Duration) -> bool) -> Result<Option<Scanned>, StoreError> {
        let started = Instant::now();
        let mut rows = 0;
        let scanned = self.scan_views(pause, &mut rows);
        match scanned {
            Ok(true) => {
                #[expect(clippy::cast_precision_loss, reason = "microseconds of a date are exact in a double")]
                self.metrics.scanned.set(self.clock.now() as f64 / 1e6);
                Ok(Some(Scanned { rows, elapsed: started.elapsed() }))
            }
            Ok(false) => Ok(None),
            Err(error @ StoreError::Damaged(_)) => {
                self.note_failure(&error);
                Err(error)
            }
            // The file was reopened during the scan. The next scan reads the new file.
            Err(error) => {
                tracing::debug!(%error, "the scan of the store was interrupted");
                Ok(None)
            }
        }
    }

    fn scan_views(&self, pause: &mut dyn FnMut(Duration) -> bool, rows: &mut u64) -> Result<bool, StoreError> {
        let names: Vec<String> = match self.state().views() {
            Ok(views) => views.map(|view| view.name.clone()).collect(),
            Err(_) => return Ok(false),
        };
        for name in names {
            // Each view has its own transaction, because an open transaction keeps pages from being freed.
            let Some(txn) = self.begin_scan()? else { return Ok(false) };
            let Some(record) = self.catch_scan_panics(|| record_of(&txn, &name))? else { continue };
            let schemas = record.row_schemas(&name)?;
            let known: HashSet<Fingerprint> = schemas.iter().map(|schema| schema.fingerprint()).collect();
            let mut used = HashSet::new();
            let mut is_row = |id: &EntityId, checksummed: &[u8]| {
                let header = verified_row(id, checksummed).and_then(|row| RowHeader::read(row).ok());
                header.is_some_and(|header| {
                    used.insert(header.fingerprint);
                    known.contains(&header.fingerprint)
                })
            };
            let mut has_valid_checksum = |id: &EntityId, checksummed: &[u8]| verified_row(id, checksummed).is_some();
            let rows_name = record.table_name(record.generation);
            let (written, deleted) = (record.written_name(), record.deleted_name());
            let is_complete =
                self.scan_table(&txn, &name, (&rows_name, Some(record.rows)), &mut is_row, pause, rows)?
                    && (!record.written || self.scan_table(&txn, &name, (&written, None), &mut is_row, pause, rows)?)
                    && (!record.has_deletions
                        || self.scan_table(&txn, &name, (&deleted, None), &mut has_valid_checksum, pause, rows)?);
            if !is_complete {
                return Ok(false);
            }
            drop(txn);
            if known.iter().any(|known| !used.contains(known)) && known.len() > 1 {
                self.drop_unused_schemas(&name, &record, &used)?;
            }
        }
        Ok(true)
    }

    /// Checks one table, given by its name and, if known, its number of entries. Returns false if `pause` ended the
    /// scan.
    fn scan_table(
        &self,
        txn: &ReadTransaction,
        view: &str,
        (name, expected): (&str, Option<u64>),
        is_intact: &mut dyn FnMut(&EntityId, &[u8]) -> bool,
        pause: &mut dyn FnMut(Duration) -> bool,
        rows: &mut u64,
    ) -> Result<bool, StoreError> {
        let damaged = |what: &str| StoreError::Damaged(format!("view '{view}', table '{name}': {what}"));
        let table: Option<ReadOnlyTable<RowKey, &'static [u8]>> =
            self.catch_scan_panics(|| match txn.open_table(RowTable::new(name)) {
                Ok(table) => Ok(Some(table)),
                Err(TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error.into()),
            })?;
        let Some(table) = table else {
            let is_missing = expected.is_some_and(|expected| expected > 0);
            return if is_missing { Err(damaged("it does not exist")) } else { Ok(true) };
        };
        let mut iter = self.catch_scan_panics(|| Ok(table.iter()?))?;
        let mut last: Option<EntityId> = None;
        let mut count = 0;
        let last_chunk = loop {
            let started = Instant::now();
            let is_complete = self.catch_scan_panics(|| {
                for _ in 0..CHUNK {
                    let Some(entry) = iter.next() else { return Ok(true) };
                    let (key, checksummed) = entry?;
                    let id = EntityId(*key.value());
                    if last.is_some_and(|last| id <= last) {
                        return Err(damaged("its ids are out of order"));
                    }
                    if !is_intact(&id, checksummed.value()) {
                        return Err(damaged(&format!(
                            "the entry of entity id {id:?} does not match its checksum or schema"
                        )));
                    }
                    if table.get(&id.0)?.is_none_or(|found| found.value() != checksummed.value()) {
                        return Err(damaged(&format!("a lookup of entity id {id:?} does not find its entry")));
                    }
                    last = Some(id);
                    count += 1;
                }
                Ok(false)
            })?;
            if is_complete {
                break started.elapsed();
            }
            if !pause(started.elapsed()) {
                return Ok(false);
            }
        };
        *rows += count;
        let len = self.catch_scan_panics(|| Ok(table.len()?))?;
        if count != len || expected.is_some_and(|expected| expected != count) {
            let expected = expected.unwrap_or(len);
            return Err(damaged(&format!("found {count} entries, expected {expected}")));
        }
        Ok(pause(last_chunk))
    }

    /// Drops the schemas that no row of a view uses any more. Use this function for a view whose source was read from
    /// the start after its features changed. Stops early, without dropping any schema, when rows with all schemas were
    /// found or when `may_continue`, which is called every few milliseconds, returns false.
    ///
    /// # Errors
    /// Errors of reading the rows, and of a failed transaction.
    pub fn drop_schemas_without_rows(
        &self,
        view: ViewId,
        may_continue: &mut dyn FnMut() -> bool,
    ) -> Result<(), StoreError> {
        if self.schemas(view)?.len() < 2 {
            return Ok(());
        }
        let (name, _) = self.record(view)?;
        let Some(txn) = self.begin_scan()? else { return Ok(()) };
        let Some(record) = self.catch_panics(|| record_of(&txn, &name))? else { return Ok(()) };
        let schemas = record.row_schemas(&name)?;
        let mut used: HashSet<Fingerprint> = schemas.last().map(|current| current.fingerprint()).into_iter().collect();
        for table in [record.table_name(record.generation), record.written_name()] {
            let rows = self.catch_panics(|| match txn.open_table::<RowKey, &'static [u8]>(RowTable::new(&table)) {
                Err(TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error.into()),
                Ok(table) => Ok(Some(table.range::<RowKey>(..)?)),
            })?;
            let Some(mut rows) = rows else { continue };
            let mut is_complete = false;
            while !is_complete {
                is_complete = self.catch_panics(|| {
                    for _ in 0..CHUNK {
                        let Some(entry) = rows.next() else { return Ok(true) };
                        let (key, checksummed) = entry?;
                        let row = verified_row(&EntityId(*key.value()), checksummed.value());
                        // Damaged rows are skipped here, because lookups and full scans report them.
                        used.extend(row.and_then(|row| RowHeader::read(row).ok()).map(|header| header.fingerprint));
                    }
                    Ok(false)
                })?;
                if used.len() >= schemas.len() || !may_continue() {
                    return Ok(());
                }
            }
        }
        drop(txn);
        self.drop_unused_schemas(&name, &record, &used)
    }

    fn begin_scan(&self) -> Result<Option<ReadTransaction>, StoreError> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = &*writer else { return Ok(None) };
        self.catch_scan_panics(|| Ok(Some(db.begin_read()?)))
    }

    /// Works like [`OnlineStore::catch_panics`], but does not handle errors: [`OnlineStore::scan`] records damage
    /// itself.
    fn catch_scan_panics<T>(&self, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.unwrap_or_else(|panic| {
            self.note_panic();
            Err(StoreError::from_panic(&*panic))
        })
    }

    /// Drops the schemas that no row of a view uses any more.
    fn drop_unused_schemas(
        &self,
        name: &str,
        seen: &ViewRecord,
        used: &HashSet<Fingerprint>,
    ) -> Result<(), StoreError> {
        self.write(|txn| {
            let mut record = read_record(txn, name)?;
            // Rows that were written since the scan have the current schema, which is always kept.
            if record.generation != seen.generation || record.schemas != seen.schemas {
                return Ok(Written::Nothing(()));
            }
            record.retain_schemas(name, used)?;
            if record.schemas == seen.schemas {
                return Ok(Written::Nothing(()));
            }
            put_record(txn, name, &record)?;
            Ok(Written::Commit { value: (), changed: Vec::new() })
        })
    }
}

fn record_of(txn: &ReadTransaction, name: &str) -> Result<Option<ViewRecord>, StoreError> {
    let table = txn.open_table(VIEWS)?;
    let bytes = table.get(name)?;
    bytes.map(|bytes| ViewRecord::decode(name, bytes.value())).transpose()
}
