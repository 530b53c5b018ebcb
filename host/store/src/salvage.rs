//! Copies the intact rows of a damaged file to a new one.
//!
//! Rows are read one by one and verified by their checksums, and the trees of the new file are built from scratch. No
//! page of the damaged file is copied. If the database panics while it reads the damaged file, the page is treated as
//! unreadable.

use std::panic::{AssertUnwindSafe, catch_unwind};

use larder_model::{codec::RowHeader, model::EntityId};
use redb::{
    Database, Durability, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
};

use super::{
    StoreError,
    record::{META, META_FORMAT, RowKey, RowTable, Runs, STORE_FORMAT, VIEWS, ViewRecord, verified_row},
    state::Records,
};

/// The result of a copy to a new file.
pub(super) struct Copies {
    /// The views that lost rows, with the number of lost rows.
    pub(super) lost: Vec<(String, u64)>,
    pub(super) rows: u64,
    /// Whether the database failed at a page of the damaged file.
    pub(super) is_broken: bool,
}

/// A table of the damaged file, read as far as possible.
struct Salvage<'t> {
    table: &'t ReadOnlyTable<RowKey, &'static [u8]>,
    /// The last row that was copied.
    last: Option<EntityId>,
    /// Whether a part of the table could not be read.
    is_broken: bool,
}

/// Rows with their ids, each row followed by its checksum.
type Chunk = Vec<(EntityId, Vec<u8>)>;

/// The size of the rows copied in one transaction, in bytes.
const CHUNK_BYTES: usize = 16 << 20;

/// Returns the records of views that can be read; `None` if there are none, or if the file has another format.
pub(super) fn records<D: ReadableDatabase>(old: &D) -> Option<Records> {
    let txn = read_or_none(|| Ok(old.begin_read()?))?;
    let format = read_or_none(|| Ok(txn.open_table(META)?.get(META_FORMAT)?.map(|format| format.value())))??;
    if format != u64::from(STORE_FORMAT) {
        return None;
    }
    let mut records = Records::new();
    let read = read_or_none(|| {
        for entry in txn.open_table(VIEWS)?.iter()? {
            let (name, bytes) = entry?;
            match ViewRecord::decode(name.value(), bytes.value()) {
                Ok(record) if record.row_schemas(name.value()).is_ok() => {
                    records.push((name.value().to_owned(), record))
                }
                Ok(_) | Err(_) => {
                    tracing::error!(view = name.value(), "the record of the view is damaged; its rows are not kept");
                }
            }
        }
        Ok(())
    });
    if read.is_none() {
        tracing::error!("cannot read all records of views; the rows of the other views are not kept");
    }
    (!records.is_empty()).then_some(records)
}

/// Copies the intact rows of the views in `records`, and their deletions, to a new file. Marks views with missing rows
/// as damaged.
///
/// # Errors
/// Errors of writing the new file, and [`StoreError::Damaged`] for a record with an unreadable schema.
pub(super) fn copy_intact<D: ReadableDatabase>(
    old: Option<&D>,
    records: Records,
    new: &Database,
) -> Result<Copies, StoreError> {
    let txn = old.and_then(|db| read_or_none(|| Ok(db.begin_read()?)));
    let mut copies = Copies { lost: Vec::new(), rows: 0, is_broken: txn.is_none() };
    for (name, record) in records {
        let open = |table: &str| txn.as_ref().and_then(|txn| open_if_exists(txn, table));
        let known = record.row_schemas(&name)?;
        let is_row = |id: &EntityId, checksummed: &[u8]| {
            let header = verified_row(id, checksummed).and_then(|row| RowHeader::read(row).ok());
            header.is_some_and(|header| known.iter().any(|schema| schema.fingerprint() == header.fingerprint))
        };
        let has_valid_checksum = |id: &EntityId, checksummed: &[u8]| verified_row(id, checksummed).is_some();

        let rows_name = record.table_name(record.generation);
        let rows = copy(open(&rows_name).as_ref(), new, &rows_name, is_row)?;
        let mut lost = record.rows.saturating_sub(rows.count);
        let mut is_whole = rows.count == record.rows && !rows.is_broken;
        copies.is_broken |= rows.is_broken;
        for (is_there, table, is_intact) in [
            (record.written, record.written_name(), &is_row as &dyn Fn(&EntityId, &[u8]) -> bool),
            (record.has_deletions, record.deleted_name(), &has_valid_checksum),
        ] {
            if !is_there {
                continue;
            }
            let from = open(&table);
            let expected = from.as_ref().and_then(|table| read_or_none(|| Ok(table.len()?)));
            let copied = copy(from.as_ref(), new, &table, is_intact)?;
            let missing = expected.map_or(1, |expected| expected.saturating_sub(copied.count));
            copies.is_broken |= copied.is_broken;
            if missing > 0 || copied.is_broken {
                is_whole = false;
                lost += missing;
                tracing::error!(view = %name, table, missing, "entries that no source can restore were lost");
            }
        }
        let mut record = ViewRecord { building: None, runs: Runs::default(), rows: rows.count, ..record };
        if !is_whole {
            record.is_damaged = true;
            record.rows_lost += lost;
            record.read_from_start();
            copies.lost.push((name.clone(), lost));
        }
        copies.rows += rows.count;
        let txn = new.begin_write()?;
        txn.open_table(VIEWS)?.insert(&*name, record.encode().as_slice())?;
        txn.commit()?;
    }
    // The previous commits of rows did not wait for the disk. This commit flushes all of them.
    let mut txn = new.begin_write()?;
    txn.set_quick_repair(true);
    txn.commit()?;
    Ok(copies)
}

/// The result of copying one table.
#[derive(Default)]
struct Copied {
    count: u64,
    is_broken: bool,
}

/// Copies the intact entries of a table. A missing table is treated as an empty one.
fn copy(
    from: Option<&ReadOnlyTable<RowKey, &'static [u8]>>,
    new: &Database,
    name: &str,
    is_intact: impl Fn(&EntityId, &[u8]) -> bool,
) -> Result<Copied, StoreError> {
    let mut copied = Copied::default();
    let Some(table) = from else { return Ok(copied) };
    let mut salvage = Salvage { table, last: None, is_broken: false };
    salvage.run(&mut |chunk| {
        let mut txn = new.begin_write()?;
        txn.set_durability(Durability::None).map_err(|error| StoreError::Damaged(error.to_string()))?;
        let mut into = txn.open_table(RowTable::new(name))?;
        for (id, checksummed) in chunk {
            if is_intact(id, checksummed) {
                copied.count += u64::from(into.insert(&id.0, checksummed.as_slice())?.is_none());
            }
        }
        drop(into);
        txn.commit()?;
        Ok(())
    })?;
    copied.is_broken = salvage.is_broken;
    Ok(copied)
}

// === impl Salvage ===

impl Salvage<'_> {
    /// Passes all readable rows to `take`, in the order of their IDs. `take` checks and copies them.
    fn run(&mut self, take: &mut dyn FnMut(&Chunk) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let table = self.table;
        let Some(iter) = read_or_none(|| Ok(table.iter()?)) else {
            self.is_broken = true;
            return Ok(());
        };
        self.forward(iter, take)?;
        if !self.is_broken {
            return Ok(());
        }
        // Read backwards from the end to find the first row after the damage.
        let mut first = None;
        let last = self.last;
        let _ = read_or_none(|| {
            for entry in table.iter()?.rev() {
                let id = EntityId(*entry?.0.value());
                if last.is_some_and(|last| id <= last) || first.is_some_and(|first| id >= first) {
                    break;
                }
                first = Some(id);
            }
            Ok(())
        });
        let Some(first) = first else { return Ok(()) };
        let Some(iter) = read_or_none(|| Ok(table.range::<&[u8; size_of::<EntityId>()]>(&first.0..)?)) else {
            return Ok(());
        };
        self.forward(iter, take)
    }

    fn forward(
        &mut self,
        mut iter: redb::Range<'_, RowKey, &'static [u8]>,
        take: &mut dyn FnMut(&Chunk) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        loop {
            let mut chunk = Chunk::new();
            let mut bytes = 0;
            let last = &mut self.last;
            let ended = read_or_none(|| {
                while bytes < CHUNK_BYTES {
                    let Some(entry) = iter.next() else { return Ok(true) };
                    let (key, checksummed) = entry?;
                    let id = EntityId(*key.value());
                    // A row that is out of order is damaged, so it is skipped.
                    if last.is_none_or(|last| id > last) && verified_row(&id, checksummed.value()).is_some() {
                        bytes += checksummed.value().len();
                        *last = Some(id);
                        chunk.push((id, checksummed.value().to_vec()));
                    }
                }
                Ok(false)
            });
            if !chunk.is_empty() {
                take(&chunk)?;
            }
            match ended {
                Some(true) => return Ok(()),
                Some(false) => {}
                None => {
                    self.is_broken = true;
                    return Ok(());
                }
            }
        }
    }
}

/// Calls `read`, which reads from the damaged file; returns `None` if it fails or panics.
pub(super) fn read_or_none<T>(read: impl FnOnce() -> Result<T, StoreError>) -> Option<T> {
    catch_unwind(AssertUnwindSafe(read)).ok()?.ok()
}

fn open_if_exists(txn: &ReadTransaction, table: &str) -> Option<ReadOnlyTable<RowKey, &'static [u8]>> {
    read_or_none(|| Ok(txn.open_table(RowTable::new(table))?))
}
