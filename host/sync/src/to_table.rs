//! A view's files to its table in DynamoDB: the newest row of each entity, in Feast's layout.
//!
//! Which row is the newest is found as for serving, by a store: a scratch one, in a directory of its own. Its rows are
//! walked in the order of their ids and written, and a note beside it says up to which id that was done. So a run that was
//! cut off is gone on with, if nothing that matters has changed meanwhile: neither files nor span, neither table nor view.
//! In the end scratch store and note go.

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

/// Which view is written where.
#[derive(Clone, Copy, Debug)]
pub struct TableRun<'a> {
    /// The view.
    pub view: &'a Arc<FeatureView>,
    /// Which entity ids its rows get.
    pub key_version: KeyVersion,
    /// How its files are reached.
    pub setting: &'a SyncSetting,
    /// Which event times count.
    pub window: Window,
    /// The table.
    pub writer: &'a TableWriter,
    /// How to create the table if it does not exist; `None` if it must not be created.
    pub create: Option<NewTable>,
    /// A directory for this view and nothing else, where the scratch store is made.
    pub dir: &'a Path,
    /// Limits on the disk space of the scratch store.
    pub space: SpaceLimits,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableStep {
    /// Rows of the files that were read.
    Reading(Progress),
    /// Rows that the table answered for.
    Writing(Progress),
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct TableReport {
    /// What became of the rows.
    pub written: Written,
    /// Rows that a run before this one, which was cut off, had done.
    pub done_before: u64,
    /// Rows that could not be taken.
    pub skipped: Skipped,
    /// How long it took.
    pub elapsed: Duration,
}

/// Why a view was not written, or not all of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToTableError {
    /// Its files cannot be read.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The scratch store cannot be had.
    #[error("the scratch store: {0}")]
    Store(#[from] StoreError),
    /// The table does not take rows.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The note of how far it is cannot be kept.
    #[error("cannot write {path}: {source}")]
    Note {
        /// The note, or its directory.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
}

/// What a run is about. A note of another one is of no use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    view: String,
    /// The files' definition: of another one the position says nothing.
    files: String,
    from: Option<Micros>,
    to: Option<Micros>,
    table: String,
    /// What tells the table from another one of its name.
    table_id: Option<String>,
    overwrite: bool,
}

/// How far a run is, in a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Note {
    about: About,
    /// The source's words for what was read.
    position: String,
    skipped: Skipped,
    /// Rows up to the last id.
    done: u64,
    /// In hexadecimal digits; all rows up to it are done.
    last_id: Option<String>,
}

/// A note, and where it is kept.
struct NoteFile {
    path: PathBuf,
    note: Note,
}

/// Rows on their way to the table.
#[derive(Default)]
struct Chunk {
    rows: Vec<TableRow>,
    bytes: usize,
    /// Rows that it stands for: those that cannot be items, too.
    passed: u64,
    last_id: Option<EntityId>,
}

/// Bytes of values that are on their way at once.
const CHUNK_BYTES_MAX: usize = 32 << 20;
/// The scratch store: a directory that is made and removed here.
const SCRATCH: &str = "scratch";
const NOTE: &str = "progress.json";

/// Writes the newest row of each entity in a view's files to a table. Blocks its thread.
///
/// # Errors
/// [`ToTableError`]. What was written stays, and the next run goes on behind it.
pub fn materialize_to_table(
    run: TableRun<'_>,
    progress: &mut dyn FnMut(TableStep),
) -> Result<TableReport, ToTableError> {
    let TableRun { view, key_version, setting, window, writer, dir, space, .. } = run;
    let started = Instant::now();
    let name = || view.name.to_string();
    let files = setting.files_of(view, |wanted| wanted).ok_or_else(|| SyncError::NoSource { view: name() })?;
    // A table that is not there is told before anything is read.
    let table_id = writer.prepare(run.create)?;
    let scratch = dir.join(SCRATCH);
    let config = StoreConfig { hot: HotCacheConfig { bytes_max: 0 }, space, ..StoreConfig::new(&scratch) };
    // Whoever has it open is the one who writes: a second run ends here.
    let store = OnlineStore::open(&config, Arc::clone(&setting.clock))?;
    let ids = store.declare(std::slice::from_ref(view), key_version)?;
    let Some(&id) = ids.first() else { return Err(StoreError::Damaged("the view got no id".to_owned()).into()) };

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
        Some(note) if !files.has_news(&note.position).map_err(in_source)? => Some(note),
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
    // The note goes first: without it the scratch store is nothing that anybody goes on with.
    remove_note(&path)?;
    fs::remove_dir_all(&scratch).map_err(|source| ToTableError::Note { path: scratch, source })?;
    // Others may keep something there.
    let _ = fs::remove_dir(dir);
    Ok(TableReport { written, done_before, skipped: note.skipped, elapsed: started.elapsed() })
}

/// Walks the scratch store from behind the last id that is done, and keeps the note in step.
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
        let mut tell = |now: Written| {
            let rows = done + now.written + now.older;
            progress(TableStep::Writing(Progress { rows, expected: expected.max(rows) }));
        };
        tell(Written::default());
        let written = writer.write(std::mem::take(&mut chunk.rows), &mut tell)?;
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
        match writer.misfit(&row) {
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
        if chunk.rows.len() >= writer.rows_at_once() || chunk.bytes >= CHUNK_BYTES_MAX {
            flush(&mut chunk, file)?;
        }
        Ok::<_, ToTableError>(())
    })?;
    flush(&mut chunk, file)?;
    Ok(total)
}

/// A row of the scratch store as a table takes it.
fn row_of(view: &FeatureView, schema: &RowSchema, id: EntityId, bytes: &[u8]) -> Result<TableRow, StoreError> {
    let damaged = |error| StoreError::Damaged(format!("the row of entity id {id}: {error}"));
    let row = RowView::new(schema, bytes).map_err(damaged)?;
    let value = |(place, feature): (usize, &larder_model::model::Feature)| {
        Ok(to_feast_value(row.get(place)?, feature.value_type).encode_to_vec())
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
    /// The note, if there is one that reads: without it there is nothing to go on with, which costs time only.
    fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&read_regular(path, FILE_BYTES_MAX).ok()?).ok()
    }
}

// === impl NoteFile ===

impl NoteFile {
    /// Written beside and renamed: a run may be cut off here, too.
    fn save(&self) -> Result<(), ToTableError> {
        let beside = self.path.with_extension("new");
        let save = || {
            fs::write(&beside, serde_json::to_vec(&self.note)?)?;
            fs::rename(&beside, &self.path)
        };
        save().map_err(|source: io::Error| ToTableError::Note { path: self.path.clone(), source })
    }
}
