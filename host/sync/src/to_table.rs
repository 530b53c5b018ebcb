//! Writes the newest row of each entity in a view's files to the view's DynamoDB table, in Feast's layout.
//!
//! The files are first loaded into a scratch store in a separate directory, which determines the newest row of each
//! entity by the same rules as for serving. Then the rows of the scratch store are written to the table in the order of
//! their ids, and a progress file next to the scratch store records the last written id. So a run that was interrupted
//! during these writes can be resumed if the files, the time range, the table, the view and the `overwrite` option are
//! unchanged. At the end, the scratch store and the progress file are removed.

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
    /// The view to write.
    pub view: &'a Arc<FeatureView>,
    /// The version of the view's entity ids.
    pub key_version: KeyVersion,
    /// The settings for reading the view's files.
    pub setting: &'a SyncSetting,
    /// The range of event times to write.
    pub window: Window,
    /// The writer of the table.
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
    /// The number of rows that were read from the files.
    Reading(Progress),
    /// The number of rows that the table acknowledged.
    Writing(Progress),
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct TableReport {
    /// The counts of written rows.
    pub written: Written,
    /// The number of rows that interrupted earlier runs had processed.
    pub done_before: u64,
    /// The rows that were skipped, with the reasons.
    pub skipped: Skipped,
    /// The duration of the run.
    pub elapsed: Duration,
}

/// The reason why a view was not written, or was only partly written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToTableError {
    /// The files of the view cannot be read.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The scratch store cannot be opened or written.
    #[error("the scratch store: {0}")]
    Store(#[from] StoreError),
    /// The rows cannot be written to the table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The progress file cannot be written, or the progress file or the scratch store cannot be removed.
    #[error("cannot write or remove {path}: {source}")]
    ProgressFile {
        /// The progress file, or the directory of the scratch store.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
}

/// The parameters of the run that wrote a progress file. A run with other parameters does not use the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RunParameters {
    view: String,
    /// The definition of the files, because the position is only valid for the same definition.
    files: String,
    from: Option<Micros>,
    to: Option<Micros>,
    table: String,
    /// Distinguishes the table from another one with the same name.
    table_id: Option<String>,
    overwrite: bool,
}

/// The contents of the progress file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct RunProgress {
    about: RunParameters,
    /// How far the source was read, in the source's own format.
    position: String,
    skipped: Skipped,
    /// The number of rows up to `last_id`.
    done: u64,
    /// The last id that was processed, in hexadecimal digits. All rows up to this id are written or skipped. `None` if
    /// no row was processed.
    last_id: Option<String>,
}

/// The progress file and its path.
struct ProgressFile {
    path: PathBuf,
    note: RunProgress,
}

/// Rows to write to the table.
#[derive(Default)]
struct Chunk {
    rows: Vec<TableRow>,
    bytes: usize,
    /// The number of rows in the chunk, including rows that are skipped because they cannot be stored in the table.
    visited: u64,
    last_id: Option<EntityId>,
}

/// A chunk is written to the table once its values take at least this many bytes.
const CHUNK_BYTES_MAX: usize = 32 << 20;
/// The name of the scratch store's directory, which a run creates and removes.
const SCRATCH: &str = "scratch";
const PROGRESS_FILE: &str = "progress.json";

/// Writes the newest row of each entity in a view's files to a table. Blocks its thread.
///
/// # Errors
/// [`ToTableError`]. Written rows stay in the table. If nothing changed, the next run resumes after the last recorded
/// id.
pub fn materialize_to_table(
    run: TableRun<'_>,
    progress: &mut dyn FnMut(TableStep),
) -> Result<TableReport, ToTableError> {
    let TableRun { view, key_version, setting, window, writer, dir, space, .. } = run;
    let started = Instant::now();
    let name = || view.name.to_string();
    let files = setting.open_files(view, |wanted| wanted).ok_or_else(|| SyncError::NoSource { view: name() })?;
    // Before anything is read, creates the table if it is missing, or fails if it must not be created.
    let table_id = writer.prepare(run.create)?;
    let scratch = dir.join(SCRATCH);
    let config = StoreConfig { hot: HotCacheConfig { bytes_max: 0 }, space, ..StoreConfig::new(&scratch) };
    // Only one process can have the store open, so a second concurrent run fails here.
    let store = OnlineStore::open(&config, Arc::clone(&setting.clock))?;
    let ids = store.declare(std::slice::from_ref(view), key_version)?;
    let Some(&id) = ids.first() else { return Err(StoreError::Damaged("the view has no id".to_owned()).into()) };

    let about = RunParameters {
        view: name(),
        files: format!("{:?}", view.files()),
        from: window.from,
        to: window.to,
        table: writer.table().to_owned(),
        table_id,
        overwrite: writer.options().overwrite,
    };
    let path = dir.join(PROGRESS_FILE);
    let source_error = |source| SyncError::Source { view: name(), source };
    let known = RunProgress::read(&path).filter(|note| note.about == about);
    let known =
        known.filter(|note| store.status(id).and_then(|status| status.position).as_ref() == Some(&note.position));
    let known = match known {
        Some(note) if !files.has_changes(&note.position).map_err(source_error)? => Some(note),
        _ => None,
    };
    let mut file = match known {
        Some(note) => ProgressFile { path, note },
        None => {
            remove_progress_file(&path)?;
            let (store, limits) = (&store, setting.limits);
            let staging = SyncRun { store, view, id, key_version, source: &*files, limits, slots: None };
            let staged = stage_view(staging, window, &mut |at| {
                progress(TableStep::Reading(at));
                true
            });
            let (skipped, position) = staged?;
            let file = ProgressFile { path, note: RunProgress { about, position, skipped, done: 0, last_id: None } };
            file.save()?;
            file
        }
    };
    let done_before = file.note.done;
    let written = write_rows(run, &store, id, &mut file, progress)?;
    drop(store);
    let ProgressFile { path, note } = file;
    // The progress file is removed first, because without it, no run resumes with the scratch store.
    remove_progress_file(&path)?;
    fs::remove_dir_all(&scratch).map_err(|source| ToTableError::ProgressFile { path: scratch, source })?;
    // The directory may contain other files.
    let _ = fs::remove_dir(dir);
    Ok(TableReport { written, done_before, skipped: note.skipped, elapsed: started.elapsed() })
}

/// Writes the scratch store's rows to the table, starting after the last id that was written, and updates the progress
/// file.
fn write_rows(
    run: TableRun<'_>,
    store: &OnlineStore,
    id: ViewId,
    file: &mut ProgressFile,
    progress: &mut dyn FnMut(TableStep),
) -> Result<Written, ToTableError> {
    let TableRun { view, writer, .. } = run;
    let schema = RowSchema::of_view(view);
    let expected = store.status(id).map_or(0, |status| status.rows);
    let written_up_to: Option<EntityId> = file.note.last_id.as_deref().and_then(|id| id.parse().ok());
    let mut total = Written::default();
    let mut chunk = Chunk::default();
    let mut flush = |chunk: &mut Chunk, file: &mut ProgressFile| {
        let (done, before) = (file.note.done, total);
        let mut report = |now: Written| {
            let rows = done + now.written + now.older;
            progress(TableStep::Writing(Progress { rows, expected: expected.max(rows) }));
        };
        report(Written::default());
        let written = writer.write(std::mem::take(&mut chunk.rows), &mut report)?;
        total = Written { written: before.written + written.written, older: before.older + written.older };
        let Chunk { visited, last_id, .. } = std::mem::take(chunk);
        file.note.done += visited;
        file.note.last_id = last_id.map(|id| id.to_string()).or(file.note.last_id.take());
        file.save()
    };
    store.reader().for_each(id, |id, bytes| {
        if written_up_to.is_some_and(|written_up_to| id.0 <= written_up_to.0) {
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
        chunk.visited += 1;
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

fn remove_progress_file(path: &Path) -> Result<(), ToTableError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(ToTableError::ProgressFile { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

// === impl RunProgress ===

impl RunProgress {
    /// Reads the progress file; `None` if there is no valid one. The run then starts from the beginning, which only
    /// takes longer.
    fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&read_regular(path, FILE_BYTES_MAX).ok()?).ok()
    }
}

// === impl ProgressFile ===

impl ProgressFile {
    /// Writes the file under a temporary name and renames it, because the run may be interrupted during the write.
    fn save(&self) -> Result<(), ToTableError> {
        let temporary = self.path.with_extension("new");
        let save = || {
            fs::write(&temporary, serde_json::to_vec(&self.note)?)?;
            fs::rename(&temporary, &self.path)
        };
        save().map_err(|source: io::Error| ToTableError::ProgressFile { path: self.path.clone(), source })
    }
}
