//! Writes a view's files to its table in DynamoDB: the newest row of each entity, in Feast's layout.
//!
//! A store determines which row is the newest, as for serving: a scratch store in a separate directory. Its rows are
//! visited in the order of their ids and written to the table, and a progress file next to the store records the last
//! written id. So an interrupted run is resumed, if files, time range, table and view are unchanged. At the end,
//! scratch store and progress file are removed.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use larder_common::files::{FILE_BYTES_MAX, read_regular};
use larder_ingest::{Progress, Skipped};
use larder_model::{
    codec::{KeyVersion, RowSchema, RowView, to_feast_value},
    model::{EntityId, FeatureView, Micros, Window},
};
use larder_source::{NewTable, TableError, TableRow, TableWriter, Written};
use larder_store::{HotCacheConfig, OnlineStore, SpaceLimits, StoreConfig, StoreError, ViewId};
use prost::Message as _;
use serde::{Deserialize, Serialize};

use super::{
    SyncError, SyncSetting,
    run::{SyncRun, stage_view},
};

/// The parameters of a run: which view to write to which table.
#[derive(Clone, Copy, Debug)]
pub struct TableRun<'a> {
    /// The view.
    pub view: &'a Arc<FeatureView>,
    /// The version of its entity ids.
    pub key_version: KeyVersion,
    /// The settings for reading its files.
    pub setting: &'a SyncSetting,
    /// The range of event times.
    pub window: Window,
    /// The table.
    pub writer: &'a TableWriter,
    /// How to create the table if it does not exist; `None` if it must not be created.
    pub create: Option<NewTable>,
    /// A directory for this view only, in which the scratch store is created.
    pub dir: &'a Path,
    /// Limits on the disk space of the scratch store.
    pub space: SpaceLimits,
}

/// The progress of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableStep {
    /// Rows of the files that were read.
    Reading(Progress),
    /// Rows that the table acknowledged.
    Writing(Progress),
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct TableReport {
    /// The counts of written rows.
    pub written: Written,
    /// Rows that an interrupted earlier run had written.
    pub done_before: u64,
    /// Rows that were skipped.
    pub skipped: Skipped,
    /// How long it took.
    pub elapsed: Duration,
}

/// Why a view was not written, or not completely.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToTableError {
    /// Its files cannot be read.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The scratch store cannot be opened or written.
    #[error("the scratch store: {0}")]
    Store(#[from] StoreError),
    /// The rows cannot be written to the table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The progress file cannot be read or written.
    #[error("cannot write {path}: {source}")]
    Note {
        /// The progress file, or its directory.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
}

/// The parameters that a progress file belongs to. The file of a run with other parameters is not used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    view: String,
    /// The definition of the files, because the position is only valid for the same one.
    files: String,
    from: Option<Micros>,
    to: Option<Micros>,
    table: String,
    /// Distinguishes the table from another one with its name.
    table_id: Option<String>,
    overwrite: bool,
}

/// The contents of the progress file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Note {
    about: About,
    /// How far the source was read, in the source's own format.
    position: String,
    skipped: Skipped,
    /// The number of rows up to the last id.
    done: u64,
    /// In hexadecimal digits; all rows up to this id are written.
    last_id: Option<String>,
}

/// The progress file and its path.
struct NoteFile {
    path: PathBuf,
    note: Note,
}

/// Rows to write to the table.
#[derive(Default)]
struct Chunk {
    rows: Vec<TableRow>,
    bytes: usize,
    /// The number of rows in it, including those that cannot be items.
    passed: u64,
    last_id: Option<EntityId>,
}

/// The maximum size of values in flight, in bytes.
const CHUNK_BYTES_MAX: usize = 32 << 20;
/// The scratch store: a directory that is created and removed here.
const SCRATCH: &str = "scratch";
const NOTE: &str = "progress.json";

/// Writes the newest row of each entity in a view's files to a table. Blocks its thread.
///
/// # Errors
/// [`ToTableError`]. Written rows stay in the table, and the next run resumes after them.
pub fn materialize_to_table(
    run: TableRun<'_>,
    progress: &mut dyn FnMut(TableStep),
) -> Result<TableReport, ToTableError> {
    let TableRun { view, key_version, setting, window, writer, dir, space, .. } = run;
    let started = Instant::now();
    let name = || view.name.to_string();
    let files = setting.open_files(view, |wanted| wanted).ok_or_else(|| SyncError::NoSource { view: name() })?;
    // Creates a missing table, or fails if it must not be created, before anything is read.
    let table_id = writer.prepare(run.create)?;
    let scratch = dir.join(SCRATCH);
    let config = StoreConfig { hot: HotCacheConfig { bytes_max: 0 }, space, ..StoreConfig::new(&scratch) };
    // Only one process can have the store open: a second run ends here.
    let store = OnlineStore::open(&config, Arc::clone(&setting.clock))?;
    let ids = store.declare(std::slice::from_ref(view), key_version)?;
    let Some(&id) = ids.first() else { return Err(StoreError::Damaged("the view has no id".to_owned()).into()) };

    let about = About {
        view: name(),
        files: format!("{:?}", view.files()),
        from: window.from,
        to: window.to,
        table: writer.table().to_owned(),
        table_id,
        overwrite: writer.options().overwrite,
    };
    let path = dir.join(NOTE);
    let in_source = |source| SyncError::Source { view: name(), source };
    let known = Note::read(&path).filter(|note| note.about == about);
    let known =
        known.filter(|note| store.status(id).and_then(|status| status.position).as_ref() == Some(&note.position));
    let known = match known {
        Some(note) if !files.has_changes(&note.position).map_err(in_source)? => Some(note),
        _ => None,
    };
    let mut file = match known {
        Some(note) => NoteFile { path, note },
        None => {
            remove_note(&path)?;
            let (store, limits) = (&store, setting.limits);
            let staging = SyncRun { store, view, id, key_version, source: &*files, limits, slots: None };
            let staged = stage_view(staging, window, &mut |at| {
                progress(TableStep::Reading(at));
                true
            });
            let (skipped, position) = staged?;
            let file = NoteFile { path, note: Note { about, position, skipped, done: 0, last_id: None } };
            file.save()?;
            file
        }
    };
    let done_before = file.note.done;
    let written = write_rows(run, &store, id, &mut file, progress)?;
    drop(store);
    let NoteFile { path, note } = file;
    // The progress file is removed first: without it, no run resumes with the scratch store.
    remove_note(&path)?;
    fs::remove_dir_all(&scratch).map_err(|source| ToTableError::Note { path: scratch, source })?;
    // The directory may contain other files.
    let _ = fs::remove_dir(dir);
    Ok(TableReport { written, done_before, skipped: note.skipped, elapsed: started.elapsed() })
}

/// Visits the scratch store from the last written id on, and updates the progress file.
fn write_rows(
    run: TableRun<'_>,
    store: &OnlineStore,
    id: ViewId,
    file: &mut NoteFile,
    progress: &mut dyn FnMut(TableStep),
) -> Result<Written, ToTableError> {
    let TableRun { view, writer, .. } = run;
    let schema = RowSchema::of_view(view);
    let expected = store.status(id).map_or(0, |status| status.rows);
    let behind: Option<EntityId> = file.note.last_id.as_deref().and_then(|id| id.parse().ok());
    let mut total = Written::default();
    let mut chunk = Chunk::default();
    let mut flush = |chunk: &mut Chunk, file: &mut NoteFile| {
        let (done, before) = (file.note.done, total);
        let mut report = |now: Written| {
            let rows = done + now.written + now.older;
            progress(TableStep::Writing(Progress { rows, expected: expected.max(rows) }));
        };
        report(Written::default());
        let written = writer.write(std::mem::take(&mut chunk.rows), &mut report)?;
        total = Written { written: before.written + written.written, older: before.older + written.older };
        let Chunk { passed, last_id, .. } = std::mem::take(chunk);
        file.note.done += passed;
        file.note.last_id = last_id.map(|id| id.to_string()).or(file.note.last_id.take());
        file.save()
    };
    store.reader().for_each(id, |id, bytes| {
        if behind.is_some_and(|behind| id.0 <= behind.0) {
            return Ok(());
        }
        let row = row_of(view, &schema, id, bytes)?;
        match writer.mismatch(&row) {
            None => {
                chunk.bytes += row.values.iter().map(Vec::len).sum::<usize>();
                chunk.rows.push(row);
            }
            Some(why) => {
                file.note.skipped.too_large += 1;
                file.note.skipped.note(|| format!("entity id {id}: {why}"));
            }
        }
        chunk.passed += 1;
        chunk.last_id = Some(id);
        if chunk.rows.len() >= writer.rows_per_call() || chunk.bytes >= CHUNK_BYTES_MAX {
            flush(&mut chunk, file)?;
        }
        Ok::<_, ToTableError>(())
    })?;
    flush(&mut chunk, file)?;
    Ok(total)
}

/// Converts a row of the scratch store to a row of the table.
fn row_of(view: &FeatureView, schema: &RowSchema, id: EntityId, bytes: &[u8]) -> Result<TableRow, StoreError> {
    let damaged = |error| StoreError::Damaged(format!("the row of entity id {id}: {error}"));
    let row = RowView::new(schema, bytes).map_err(damaged)?;
    let value = |(index, feature): (usize, &larder_model::model::Feature)| {
        Ok(to_feast_value(row.get(index)?, feature.value_type).encode_to_vec())
    };
    let values = view.features.iter().enumerate().map(value).collect::<Result<_, _>>().map_err(damaged)?;
    Ok(TableRow { id, event_time: row.event_time(), values })
}

fn remove_note(path: &Path) -> Result<(), ToTableError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(ToTableError::Note { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

// === impl Note ===

impl Note {
    /// Reads the progress file, if there is a valid one; without it, the run starts from the beginning, which only
    /// takes longer.
    fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&read_regular(path, FILE_BYTES_MAX).ok()?).ok()
    }
}

// === impl NoteFile ===

impl NoteFile {
    /// Writes to a temporary file and renames it: a run may be interrupted here, too.
    fn save(&self) -> Result<(), ToTableError> {
        let temporary = self.path.with_extension("new");
        let save = || {
            fs::write(&temporary, serde_json::to_vec(&self.note)?)?;
            fs::rename(&temporary, &self.path)
        };
        save().map_err(|source: io::Error| ToTableError::Note { path: self.path.clone(), source })
    }
}
