//! Parquet files on the local disk: one file, or a directory.
//!
//! Only the columns that the view needs are read (or all columns, for entity rows), batch by batch, within [`ParquetLimits`]. The position is the list of
//! files, with each file's stamp and the number of rows that were read from it. An unchanged file is not read again,
//! and an interrupted read resumes after its last commit.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::array::RecordBatch;
use bytes::Bytes;
use larder_common::{
    clock::SharedClock,
    files::{FileStamp, check_regular, open_regular},
};
use parquet::file::metadata::ParquetMetaData;
use serde::{Deserialize, Serialize};

use super::{
    Batches, FileSchema, FileVersion, Source, SourceBatch, SourceError, SourceProperties, SourceRows, Wanted,
    file_columns::{Columns, FileShape},
    listed::{Ignored, Listing, is_data_dir, is_hidden, table_format},
    parquet_reader::{self, DecodeThread, FileRows, Input, ParquetLimits, Plan},
    parquet_shape::Absent,
    row_group::FileFilter,
};

/// The Parquet files of one view, or of entity rows.
#[derive(Debug)]
pub struct ParquetFiles {
    path: PathBuf,
    columns: Columns,
    limits: ParquetLimits,
    clock: SharedClock,
    ignored: Ignored,
}

/// The state of the files that were read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    files: BTreeMap<String, FilePosition>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FilePosition {
    stamp: FileStamp,
    rows_read: u64,
    done: bool,
}

struct Reading<'s> {
    source: &'s ParquetFiles,
    columns: Columns,
    thread: DecodeThread,
    /// The unread files, in reverse order: the next file to read is the last one. The files were opened once to count
    /// their rows and check their columns. They are not kept open, because a directory may have more files than a
    /// process may open.
    pending: Vec<Pending>,
    current: Option<Current>,
    position: Position,
    rows_expected: u64,
}

struct Pending {
    name: String,
    /// The index of the file in the source.
    file: usize,
    path: PathBuf,
    stamp: FileStamp,
    rows_skipped: u64,
}

struct Current {
    name: String,
    file: usize,
    path: PathBuf,
    origin: Arc<str>,
    stamp: FileStamp,
    input: Input,
    rows: FileRows,
    shape: FileShape,
}

/// An open file that has the required columns.
struct Opened {
    stamp: FileStamp,
    input: Input,
    metadata: ParquetMetaData,
    shape: FileShape,
}

/// The name of a file below the directory, its path, and its stamp.
type Listed = (String, PathBuf, FileStamp);

/// The maximum number of files that [`Source::schemas`] opens.
const SCHEMAS_MAX: usize = 1_000;

// === impl ParquetFiles ===

impl ParquetFiles {
    /// Creates the source for a file or directory, without accessing the path.
    #[must_use]
    pub fn new(path: PathBuf, wanted: Wanted, limits: ParquetLimits, clock: SharedClock) -> Self {
        Self { path, columns: Columns::Of(wanted), limits, clock, ignored: Ignored::default() }
    }

    /// As [`ParquetFiles::new`], for all columns of the files, with the types that the files declare. The partitions of a
    /// file's path are columns of strings after them. Files without rows are allowed.
    #[must_use]
    pub fn of_all_columns(path: PathBuf, limits: ParquetLimits, clock: SharedClock) -> Self {
        Self { path, columns: Columns::All, limits, clock, ignored: Ignored::default() }
    }

    /// Lists the data files, sorted by name. In a directory, these are the files whose names end in `.parquet`, at any
    /// depth, except hidden files and those in hidden directories (see [`is_hidden`] and [`is_data_dir`]).
    fn list(&self) -> Result<Vec<Listed>, SourceError> {
        let meta = fs::metadata(&self.path).map_err(|source| io_error(&self.path, source))?;
        let mut files = Vec::new();
        if meta.is_dir() {
            let mut listing = Listing::default();
            self.list_dir(&self.path, &mut files, &mut listing)?;
            files.sort_by(|(a, ..), (b, ..)| a.cmp(b));
            self.ignored.log(&self.name(), &listing);
            if files.is_empty() {
                let path = self.path.display().to_string();
                return Err(SourceError::Empty { path, hint: ": the directory has no *.parquet file" });
            }
        } else {
            check_regular(&meta).map_err(|source| io_error(&self.path, source))?;
            let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.push((name, self.path.clone(), FileStamp::of(&meta)));
        }
        Ok(files)
    }

    fn list_dir(&self, dir: &Path, files: &mut Vec<Listed>, listing: &mut Listing) -> Result<(), SourceError> {
        for entry in fs::read_dir(dir).map_err(|source| io_error(dir, source))? {
            let entry = entry.map_err(|source| io_error(dir, source))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = entry.path();
            let relative = || path.strip_prefix(&self.path).unwrap_or(&path).to_string_lossy().into_owned();
            if let Some(format) = table_format(&relative()) {
                return Err(SourceError::TableFormat { path: dir.display().to_string(), format });
            }
            // Checked before the metadata is read, because a hidden file may disappear at any moment.
            if is_hidden(&name) && !is_data_dir(&name) {
                listing.ignore(&relative());
                continue;
            }
            let meta = fs::metadata(&path).map_err(|source| io_error(&path, source))?;
            if meta.is_dir() {
                self.list_dir(&path, files, listing)?;
            } else if name.ends_with(".parquet") && !is_hidden(&name) {
                check_regular(&meta).map_err(|source| io_error(&path, source))?;
                files.push((relative(), path, FileStamp::of(&meta)));
            } else {
                listing.ignore(&relative());
            }
        }
        Ok(())
    }

    /// Opens a file and finds the wanted columns in it. Fails if a required column is missing.
    fn open(&self, path: &Path, thread: &DecodeThread) -> Result<Opened, SourceError> {
        let (file, meta, metadata) = self.metadata(path, thread)?;
        let relative = path.strip_prefix(&self.path).unwrap_or(path).to_string_lossy();
        let shape = self.columns.in_file(&path.display().to_string(), &relative, &metadata, thread)?;
        Ok(Opened { stamp: FileStamp::of(&meta), input: Input::File(Arc::new(file), meta.len()), metadata, shape })
    }

    /// Opens a file and reads its footer.
    fn metadata(&self, path: &Path, thread: &DecodeThread) -> Result<(File, Metadata, ParquetMetaData), SourceError> {
        let file = open_regular(path).map_err(|source| io_error(path, source))?;
        // The metadata of the open file, because the file may have been replaced since the directory was listed.
        let meta = file.metadata().map_err(|source| io_error(path, source))?;
        let fetch = &mut |range: Range<u64>| read_range(&file, range).map_err(|source| io_error(path, source));
        let shown = path.display().to_string();
        let statistics_of = self.columns.statistics_of();
        let metadata = parquet_reader::metadata(&shown, meta.len(), &self.limits, thread, statistics_of, fetch)?;
        Ok((file, meta, metadata))
    }

    fn start(&self, next: Pending, thread: &DecodeThread) -> Result<Current, SourceError> {
        let path = next.path.display().to_string();
        let Opened { stamp, input, metadata, shape } = self.open(&next.path, thread)?;
        if stamp != next.stamp && next.rows_skipped > 0 {
            return Err(SourceError::Changed { path });
        }
        let row_groups = self.columns.row_groups();
        let filter = FileFilter::new(row_groups, next.file, shape.event_time_root(), &metadata);
        let plan = Plan::new(Arc::new(metadata), shape.roots(), shape.is_message(), thread);
        let plan = plan.map_err(|why| SourceError::Unreadable { path: path.clone(), why })?;
        let origin: Arc<str> = path.into();
        let rows = FileRows::new(Arc::clone(&origin), plan, filter, self.limits, next.rows_skipped);
        Ok(Current { name: next.name, file: next.file, path: next.path, origin, stamp, input, rows, shape })
    }
}

impl Source for ParquetFiles {
    fn has_changes(&self, position: &str) -> Result<bool, SourceError> {
        let position = Position::parse(position);
        let files = self.list()?;
        let same = files.len() == position.files.len()
            && files.iter().all(|(name, _, stamp)| {
                position.files.get(name).is_some_and(|known| known.done && known.stamp == *stamp)
            });
        Ok(!same)
    }

    fn read(&self, position: Option<&str>) -> Result<Box<dyn Batches + '_>, SourceError> {
        let known = position.map(Position::parse).unwrap_or_default();
        let thread = DecodeThread::start().map_err(|source| io_error(&self.path, source))?;
        let mut position = Position::default();
        let mut pending = Vec::new();
        let mut absent: Vec<(PathBuf, Vec<Absent>)> = Vec::new();
        let (mut rows_all, mut rows_expected) = (0, 0);
        for (file, (name, path, stamp)) in self.list()?.into_iter().enumerate() {
            let before = known.files.get(&name).filter(|known| known.stamp == stamp);
            if let Some(done) = before.filter(|known| known.done) {
                rows_all += done.rows_read;
                position.files.insert(name, done.clone());
                continue;
            }
            let Opened { stamp, metadata, shape, .. } = self.open(&path, &thread)?;
            let rows_skipped = before.map_or(0, |known| known.rows_read);
            let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
            // A file can claim any number of rows.
            rows_all = u64::saturating_add(rows_all, rows);
            rows_expected = u64::saturating_add(rows_expected, rows.saturating_sub(rows_skipped));
            position.files.insert(name.clone(), FilePosition { stamp, rows_read: rows_skipped, done: false });
            absent.push((path.clone(), shape.absent().to_vec()));
            pending.push(Pending { name, file, path, stamp, rows_skipped });
        }
        if rows_all == 0 && self.columns.needs_rows() {
            return Err(SourceError::Empty { path: self.path.display().to_string(), hint: "" });
        }
        // `absent` does not include files that an earlier read finished. They may have a column that all other files
        // lack.
        check_absent(&self.name(), &absent, pending.len() < position.files.len())?;
        pending.reverse();
        let columns = self.columns.read_at(self.clock.now());
        Ok(Box::new(Reading { source: self, columns, thread, pending, current: None, position, rows_expected }))
    }

    fn schemas(&self) -> Result<Vec<FileSchema>, SourceError> {
        let files = self.list()?;
        let thread = DecodeThread::start().map_err(|source| io_error(&self.path, source))?;
        let open = |(_, path, _): &Listed| {
            let (_, _, metadata) = self.metadata(path, &thread)?;
            let shown = path.display().to_string();
            let relative = path.strip_prefix(&self.path).unwrap_or(path).to_string_lossy().into_owned();
            FileSchema::of(shown, relative, metadata, &thread)
        };
        files.iter().take(SCHEMAS_MAX).map(open).collect()
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn versions(&self) -> Result<Vec<FileVersion>, SourceError> {
        let version = |(name, _, stamp): Listed| {
            let (seconds, nanos) = stamp.modified;
            FileVersion { name, bytes: stamp.bytes, version: format!("{seconds}.{nanos:09}") }
        };
        Ok(self.list()?.into_iter().map(version).collect())
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties { has_windows: !self.columns.is_static(), ..SourceProperties::default() }
    }
}

/// Returns an error for a column that all files lack, and logs each column that some files lack. If `has_others` is
/// true, the source has more files than `files`, so a missing column is never an error.
fn check_absent(source: &str, files: &[(PathBuf, Vec<Absent>)], has_others: bool) -> Result<(), SourceError> {
    let in_all = |absent: &&Absent| files.iter().all(|(_, of)| of.iter().any(|other| other.column == absent.column));
    if let Some((path, absent)) = files.first().filter(|_| !has_others)
        && let Some(missing) = absent.iter().find(in_all)
    {
        return Err(missing.clone().error(&path.display().to_string()));
    }
    for (path, absent) in files {
        absent.iter().for_each(|absent| absent.warn(source, &path.display().to_string()));
    }
    Ok(())
}

fn read_range(file: &File, range: Range<u64>) -> io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes.into())
}

fn io_error(path: &Path, source: io::Error) -> SourceError {
    SourceError::Io { path: path.display().to_string(), source }
}

// === impl Reading ===

impl Batches for Reading<'_> {
    fn next_batch(&mut self) -> Result<Option<SourceBatch>, SourceError> {
        loop {
            if self.current.is_none() {
                let Some(next) = self.pending.pop() else { return Ok(None) };
                self.current = Some(self.source.start(next, &self.thread)?);
            }
            let Some(current) = &mut self.current else { return Ok(None) };
            let columns = current.next(&self.columns, &self.thread)?;
            let rows_read = current.rows.rows_read();
            let entry = FilePosition { stamp: current.stamp, rows_read, done: columns.is_none() };
            self.position.files.insert(current.name.clone(), entry);
            let Some(columns) = columns else {
                current.check_unchanged()?;
                self.current = None;
                continue;
            };
            // The read may have skipped row groups before these rows.
            let rows = columns.num_rows() as u64;
            return Ok(Some(SourceBatch {
                rows: SourceRows::Columns(columns),
                origin: Arc::clone(&current.origin),
                file: current.file,
                first_row: current.rows.rows_read() - rows,
            }));
        }
    }

    fn rows_expected(&self) -> u64 {
        self.rows_expected
    }

    fn position(&self) -> String {
        self.position.print()
    }
}

// === impl Current ===

impl Current {
    fn next(&mut self, columns: &Columns, thread: &DecodeThread) -> Result<Option<RecordBatch>, SourceError> {
        let input = self.input.clone();
        let batch = self.rows.next(thread, &mut |_, _, _| Ok(input.clone()))?;
        batch.map(|batch| self.shape.project(columns, &self.origin, &batch)).transpose()
    }

    /// Fails if the file was rewritten in place while it was read, because the rows may be from both versions. If the
    /// file was replaced by a rename, the rows are from the old file, and the next sync reads the new one.
    fn check_unchanged(&self) -> Result<(), SourceError> {
        match FileStamp::at(&self.path) {
            Ok(now) if now.is_same_file(&self.stamp) && now != self.stamp => {
                Err(SourceError::Changed { path: self.origin.to_string() })
            }
            _ => Ok(()),
        }
    }
}

// === impl Position ===

impl Position {
    /// Parses a position. Text in another format, for example from another kind of source, yields the start position.
    fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    fn print(&self) -> String {
        // String keys and numbers always serialize.
        serde_json::to_string(self).unwrap_or_default()
    }
}
