//! Rebuilding a damaged store while it is open: every row that is intact is copied to a new file, which takes the place of
//! the damaged one.
//!
//! The database checks its pages only in a full check of a closed file, and may panic, or write over live pages, where
//! it follows a damaged one. So nothing is written to a file in which damage was found, and no table of it is mended in
//! place. A copy needs none of the inner pages: rows are read one after another, each is checked by its seal, and the
//! trees are built again. Views of which rows are missing afterwards are marked, and their sources are read from the
//! start; until then the host is not ready.

use std::{
    fs::{self, File},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, PoisonError, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use larder_model::model::EntityId;
use redb::{
    Database, Durability, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
};

use super::{
    OnlineStore, StoreError, ViewId,
    metrics::StoreMetrics,
    online::Written,
    open::{create_unfinished, open_checked, set_aside},
    record::{RowKey, RowTable, VIEWS, ViewRecord, unseal},
    runs::Runs,
    state::State,
    write::{put_record, read_record},
};

/// What a rebuild came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// Where the damaged file is now.
    pub aside: PathBuf,
    /// Rows that were copied, of all views.
    pub rows: u64,
    /// The views of which rows were lost, and how many.
    pub lost: Vec<(String, u64)>,
}

/// What was copied to a new file.
struct Copies {
    /// The views with missing rows, and how many.
    lost: Vec<(String, u64)>,
    rows: u64,
    /// Whether the database failed at a page of the damaged file.
    is_broken: bool,
}

/// A table of the damaged file, read for as far as it can be.
struct Salvage<'t> {
    table: &'t ReadOnlyTable<RowKey, &'static [u8]>,
    /// The last row that was copied.
    last: Option<EntityId>,
    /// Whether the database failed at a page.
    is_broken: bool,
}

/// Rows with their seals.
type Chunk = Vec<(EntityId, Vec<u8>)>;

/// Bytes of rows that are copied in one transaction.
const CHUNK_BYTES: usize = 16 << 20;
/// How long the damaged file waits for the requests that read it.
const READERS_PATIENCE: Duration = Duration::from_secs(5);

impl OnlineStore {
    /// Rebuilds the file if damage was found in it, and a rebuild that failed is not too recent. Writes wait for it;
    /// lookups continue.
    ///
    /// # Errors
    /// [`StoreError::Gone`], [`StoreError::DiskFull`] where there is no room for a second file, and others of a failed
    /// write: the damage stays, and is repaired by a later call.
    pub fn repair(&self) -> Result<Option<Repaired>, StoreError> {
        if !self.health.wants_repair() {
            return Ok(None);
        }
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.repair_locked(&mut writer)
    }

    /// As [`OnlineStore::repair`], for a caller that holds the writer.
    pub(super) fn repair_locked(&self, writer: &mut Option<Database>) -> Result<Option<Repaired>, StoreError> {
        if !self.health.wants_repair() {
            return Ok(None);
        }
        // A file of another owner is left alone.
        self.health.check_file(&self.path)?;
        let started = Instant::now();
        tracing::warn!(path = %self.path.display(), "rebuilding the damaged store from the rows that are intact");
        let rebuilt = catch_unwind(AssertUnwindSafe(|| self.rebuild(writer)));
        let rebuilt = rebuilt.unwrap_or_else(|panic| Err(StoreError::gave_up(&*panic)));
        match &rebuilt {
            Ok(repaired) => {
                self.metrics.rebuilt.increment(1);
                let (rows, seconds) = (repaired.rows, started.elapsed().as_secs_f64());
                tracing::warn!(moved_to = %repaired.aside.display(), rows, seconds, "the damaged store was rebuilt");
            }
            Err(error) => {
                self.health.note_repair_failed();
                self.metrics.rebuilds_failed.increment(1);
                tracing::error!(%error, "the damaged store cannot be rebuilt now; it is tried again");
            }
        }
        rebuilt.map(Some)
    }

    fn rebuild(&self, writer: &mut Option<Database>) -> Result<Repaired, StoreError> {
        let state = self.state.load_full();
        let (unfinished, new) = create_unfinished(&self.path, &self.config)?;
        if writer.is_none() {
            // It was closed by an earlier failure; what can be opened now can be read.
            *writer = caught(|| open_checked(&self.path, &self.config));
        }
        let copied = self.copy_intact(writer.as_ref(), &state, &new);
        drop(new);
        let Copies { lost, rows, is_broken } = copied.inspect_err(|_| _ = fs::remove_file(&unfinished))?;

        let commit = state.commit + 1;
        let kept = state.records();
        drop(state);
        let before = self.state.swap(Arc::new(State::reopening(commit, kept.clone())));
        self.release(writer.take(), before, is_broken);
        let swapped = self.swap_file(&unfinished).and_then(|aside| {
            let db = open_checked(&self.path, &self.config)?;
            let state = State::read(&db, commit)?;
            Ok((aside, db, state))
        });
        self.hot.outdate_all(commit);
        match swapped {
            Ok((aside, db, state)) => {
                *writer = Some(db);
                self.health.note_repaired(&self.path)?;
                self.gave_up.store(false, Ordering::Relaxed);
                self.failed.store(false, Ordering::Relaxed);
                self.mark.make();
                self.state.store(Arc::new(state));
                for (view, rows) in &lost {
                    StoreMetrics::rows_lost(view, *rows);
                    tracing::error!(view, rows, "rows of the view were lost to damage");
                }
                Ok(Repaired { aside, rows, lost })
            }
            Err(error) => {
                self.state.store(Arc::new(State::closed(commit, &error, kept)));
                Err(error)
            }
        }
    }

    /// Copies all views into a new file.
    fn copy_intact(&self, old: Option<&Database>, state: &State, new: &Database) -> Result<Copies, StoreError> {
        let txn = old.and_then(|db| caught(|| Ok(db.begin_read()?)));
        let mut copies = Copies { lost: Vec::new(), rows: 0, is_broken: txn.is_none() };
        for (name, record) in state.records() {
            let open = |table: &str| txn.as_ref().and_then(|txn| open_if_there(txn, table));
            let known = record.row_schemas(&name)?;
            let is_row = |id: &EntityId, sealed: &[u8]| {
                let header = unseal(id, sealed).and_then(|row| larder_model::codec::RowHeader::read(row).ok());
                header.is_some_and(|header| known.iter().any(|schema| schema.fingerprint() == header.fingerprint))
            };
            let is_sealed = |id: &EntityId, sealed: &[u8]| unseal(id, sealed).is_some();

            let rows_name = record.table_name(record.generation);
            let rows = copy(open(&rows_name).as_ref(), new, &rows_name, is_row)?;
            let mut lost = record.rows.saturating_sub(rows.count);
            let mut is_whole = rows.count == record.rows && !rows.is_broken;
            copies.is_broken |= rows.is_broken;
            for (is_there, table, is_intact) in [
                (record.written, record.written_name(), &is_row as &dyn Fn(&EntityId, &[u8]) -> bool),
                (record.has_deletions, record.deleted_name(), &is_sealed),
            ] {
                if !is_there {
                    continue;
                }
                let from = open(&table);
                let expected = from.as_ref().and_then(|table| caught(|| Ok(table.len()?)));
                let copied = copy(from.as_ref(), new, &table, is_intact)?;
                let missing = expected.map_or(1, |expected| expected.saturating_sub(copied.count));
                copies.is_broken |= copied.is_broken;
                if missing > 0 || copied.is_broken {
                    is_whole = false;
                    lost += missing;
                    tracing::error!(view = %name, table, missing, "entries of a table that no source can bring back were lost");
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
        // The commits of rows did not wait for the disk; this one brings all of it there.
        let mut txn = new.begin_write()?;
        txn.set_quick_repair(true);
        txn.commit()?;
        Ok(copies)
    }

    /// Closes the damaged file once no request reads it any more, or for at most [`READERS_PATIENCE`].
    fn release(&self, db: Option<Database>, mut state: Arc<State>, is_broken: bool) {
        let until = Instant::now() + READERS_PATIENCE;
        while let Err(still_read) = Arc::try_unwrap(state) {
            if Instant::now() >= until {
                break;
            }
            state = still_read;
            thread::sleep(Duration::from_micros(200));
        }
        if is_broken || self.gave_up.load(Ordering::Relaxed) {
            // Closing writes once more, and a panic at a damaged page in there may end the process. The memory of its page
            // cache is the price.
            std::mem::forget(db);
        } else {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
        }
    }

    /// Moves the damaged file aside and the new one into its place.
    fn swap_file(&self, unfinished: &std::path::Path) -> Result<PathBuf, StoreError> {
        let why = self.health.damage().unwrap_or_default();
        let aside = set_aside(&self.path, &self.clock, why)?.path;
        let renamed = fs::rename(unfinished, &self.path);
        renamed.map_err(|source| {
            // Rather the damaged file than none.
            let _ = fs::rename(&aside, &self.path);
            StoreError::Io { action: "rename", path: unfinished.to_owned(), source }
        })?;
        if let Some(dir) = self.path.parent() {
            let synced = File::open(dir).and_then(|dir| dir.sync_all());
            synced.map_err(|source| StoreError::Io { action: "sync", path: dir.to_owned(), source })?;
        }
        Ok(aside)
    }

    /// The views, by name, of which rows were lost to damage, and which no full load has brought back yet.
    #[must_use]
    pub fn damaged_views(&self) -> Vec<String> {
        let state = self.state();
        let Ok(views) = state.views() else { return Vec::new() };
        views.filter(|view| view.record.is_damaged).map(|view| view.name.clone()).collect()
    }

    /// Accepts that the lost rows of a view do not come back, because it has no source. They stay counted in
    /// [`super::ViewStatus::rows_lost`].
    ///
    /// # Errors
    /// Those of a failed transaction.
    pub fn accept_loss(&self, view: ViewId) -> Result<(), StoreError> {
        let (name, _) = self.record(view)?;
        self.write(|txn| {
            let mut record = read_record(txn, &name)?;
            if !record.is_damaged {
                return Ok(Written::Nothing(()));
            }
            record.is_damaged = false;
            let rows = record.rows_lost;
            put_record(txn, &name, &record)?;
            tracing::error!(
                view = %name, rows,
                "rows of a view without a source were lost to damage; they are missing until callers write them again"
            );
            Ok(Written::Commit { value: (), changed: Vec::new() })
        })
    }
}

/// What was copied of one table.
#[derive(Default)]
struct Copied {
    count: u64,
    is_broken: bool,
}

/// Copies the intact entries of a table. One that is not there is empty.
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
        for (id, sealed) in chunk {
            if is_intact(id, sealed) {
                copied.count += u64::from(into.insert(&id.0, sealed.as_slice())?.is_none());
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
    /// Hands on all rows that can be read, in the order of their ids; `take` checks and copies them.
    fn run(&mut self, take: &mut dyn FnMut(&Chunk) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let table = self.table;
        let Some(iter) = caught(|| Ok(table.iter()?)) else {
            self.is_broken = true;
            return Ok(());
        };
        self.forward(iter, take)?;
        if !self.is_broken {
            return Ok(());
        }
        // Behind the damage: as far back from the end as can be read.
        let mut first = None;
        let last = self.last;
        let _ = caught(|| {
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
        let Some(iter) = caught(|| Ok(table.range::<&[u8; size_of::<EntityId>()]>(&first.0..)?)) else { return Ok(()) };
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
            let ended = caught(|| {
                while bytes < CHUNK_BYTES {
                    let Some(entry) = iter.next() else { return Ok(true) };
                    let (key, sealed) = entry?;
                    let id = EntityId(*key.value());
                    // One that is out of order was damaged.
                    if last.is_none_or(|last| id > last) && unseal(&id, sealed.value()).is_some() {
                        bytes += sealed.value().len();
                        *last = Some(id);
                        chunk.push((id, sealed.value().to_vec()));
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

/// Reads from the damaged file; none where that fails, which may be a panic.
fn caught<T>(read: impl FnOnce() -> Result<T, StoreError>) -> Option<T> {
    catch_unwind(AssertUnwindSafe(read)).ok()?.ok()
}

fn open_if_there(txn: &ReadTransaction, table: &str) -> Option<ReadOnlyTable<RowKey, &'static [u8]>> {
    caught(|| Ok(txn.open_table(RowTable::new(table))?))
}
