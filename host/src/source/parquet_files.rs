//! Parquet on the local disk: a file, or a directory of them.
//!
//! Only the columns that the view needs are read, batch by batch, so memory is bounded by the batch and the file's
//! row groups and not by the file. The position is the list of files with size, modification time, inode and the rows
//! read of each: an unchanged file is not read again, and a reading that was cut off goes on where it was committed.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};

use arrow::array::RecordBatch;
use parquet::arrow::{
    ProjectionMask,
    arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
};
use serde::{Deserialize, Serialize};

use super::{
    Batches, Source, SourceBatch, SourceError, SourceRows, Wanted,
    parquet_shape::{ParquetLimits, Shape, guarded},
};

/// The Parquet files of one view.
#[derive(Debug)]
pub struct ParquetFiles {
    path: PathBuf,
    wanted: Wanted,
    limits: ParquetLimits,
}

/// What is remembered of the files that were read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    files: BTreeMap<String, FilePosition>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FilePosition {
    stamp: Stamp,
    rows_read: u64,
    done: bool,
}

/// What tells a file from its successor of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    bytes: u64,
    modified_nanos: u64,
    inode: u64,
}

struct Reading<'s> {
    source: &'s ParquetFiles,
    /// Files still to be read, the next one last. They were opened once, to count and to check; they are not kept
    /// open, because a directory may have more of them than a process may open.
    pending: Vec<Pending>,
    current: Option<Current>,
    position: Position,
    rows_expected: u64,
}

struct Pending {
    name: String,
    path: PathBuf,
    stamp: Stamp,
    rows_skipped: u64,
}

struct Current {
    name: String,
    path: PathBuf,
    origin: Arc<str>,
    stamp: Stamp,
    rows_read: u64,
    reader: ParquetRecordBatchReader,
    shape: Shape,
}

// === impl ParquetFiles ===

impl ParquetFiles {
    /// The files at a path, a file or a directory; it is looked at when it is read.
    #[must_use]
    pub fn new(path: PathBuf, wanted: Wanted, limits: ParquetLimits) -> Self {
        Self { path, wanted, limits }
    }

    /// Name and stamp of every file, by name. A directory's files are those that end in `.parquet`, at any depth,
    /// without those that start with `.` or `_`: other tools keep their own business there.
    fn list(&self) -> Result<Vec<(String, PathBuf, Stamp)>, SourceError> {
        let meta = fs::metadata(&self.path).map_err(|source| self.io(&self.path, source))?;
        let mut files = Vec::new();
        if meta.is_dir() {
            self.list_dir(&self.path, &mut files)?;
            files.sort_by(|(a, ..), (b, ..)| a.cmp(b));
            if files.is_empty() {
                let path = self.path.display().to_string();
                return Err(SourceError::Empty { path, hint: ": the directory has no *.parquet file" });
            }
        } else {
            let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.push((name, self.path.clone(), Stamp::of(&meta)));
        }
        Ok(files)
    }

    fn list_dir(&self, dir: &Path, files: &mut Vec<(String, PathBuf, Stamp)>) -> Result<(), SourceError> {
        for entry in fs::read_dir(dir).map_err(|source| self.io(dir, source))? {
            let entry = entry.map_err(|source| self.io(dir, source))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(['.', '_']) {
                continue;
            }
            let path = entry.path();
            let meta = fs::metadata(&path).map_err(|source| self.io(&path, source))?;
            if meta.is_dir() {
                self.list_dir(&path, files)?;
            } else if name.ends_with(".parquet") {
                let relative = path.strip_prefix(&self.path).unwrap_or(&path).to_string_lossy().into_owned();
                files.push((relative, path, Stamp::of(&meta)));
            }
        }
        Ok(())
    }

    /// Opens a file and checks that what is wanted is in it, and not too much of it.
    fn open(&self, path: &Path) -> Result<(Stamp, ParquetRecordBatchReaderBuilder<File>), SourceError> {
        let file = File::open(path).map_err(|source| self.io(path, source))?;
        // The stamp of what was opened, not of what the directory said before.
        let stamp = Stamp::of(&file.metadata().map_err(|source| self.io(path, source))?);
        let opened = guarded(|| ParquetRecordBatchReaderBuilder::try_new(file));
        let builder = opened.map_err(|why| SourceError::Unreadable { path: path.display().to_string(), why })?;
        self.shape(path, &builder)?;
        Ok((stamp, builder))
    }

    fn shape(&self, path: &Path, builder: &ParquetRecordBatchReaderBuilder<File>) -> Result<Shape, SourceError> {
        let shown = path.display().to_string();
        let relative = path.strip_prefix(&self.path).unwrap_or(path).to_string_lossy();
        let (metadata, schema) = (builder.metadata(), builder.schema());
        Shape::of(&self.wanted, self.limits, &shown, &relative, metadata, schema)
    }

    fn start(&self, next: Pending) -> Result<Current, SourceError> {
        let path = next.path.display().to_string();
        let (stamp, builder) = self.open(&next.path)?;
        if stamp != next.stamp && next.rows_skipped > 0 {
            return Err(SourceError::Changed { path });
        }
        let shape = self.shape(&next.path, &builder)?;
        let mask = ProjectionMask::roots(builder.parquet_schema(), shape.roots().iter().copied());
        let skip = usize::try_from(next.rows_skipped).unwrap_or(usize::MAX);
        let reader = builder.with_projection(mask).with_batch_size(self.limits.batch_rows).with_offset(skip);
        let reader = guarded(|| reader.build()).map_err(|why| SourceError::Unreadable { path: path.clone(), why })?;
        Ok(Current {
            name: next.name,
            path: next.path,
            origin: path.into(),
            stamp,
            rows_read: next.rows_skipped,
            reader,
            shape,
        })
    }

    fn io(&self, path: &Path, source: io::Error) -> SourceError {
        SourceError::Io { path: path.display().to_string(), source }
    }
}

impl Source for ParquetFiles {
    fn has_news(&self, position: &str) -> Result<bool, SourceError> {
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
        let mut position = Position::default();
        let mut pending = Vec::new();
        let (mut rows_all, mut rows_expected) = (0, 0);
        for (name, path, stamp) in self.list()? {
            let before = known.files.get(&name).filter(|known| known.stamp == stamp);
            if let Some(done) = before.filter(|known| known.done) {
                rows_all += done.rows_read;
                position.files.insert(name, done.clone());
                continue;
            }
            let (stamp, builder) = self.open(&path)?;
            let rows_skipped = before.map_or(0, |known| known.rows_read);
            let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
            // A file may say any number.
            rows_all = u64::saturating_add(rows_all, rows);
            rows_expected = u64::saturating_add(rows_expected, rows.saturating_sub(rows_skipped));
            position.files.insert(name.clone(), FilePosition { stamp, rows_read: rows_skipped, done: false });
            pending.push(Pending { name, path, stamp, rows_skipped });
        }
        if rows_all == 0 {
            return Err(SourceError::Empty { path: self.path.display().to_string(), hint: "" });
        }
        pending.reverse();
        Ok(Box::new(Reading { source: self, pending, current: None, position, rows_expected }))
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

// === impl Reading ===

impl Batches for Reading<'_> {
    fn next_batch(&mut self) -> Result<Option<SourceBatch>, SourceError> {
        loop {
            if self.current.is_none() {
                let Some(next) = self.pending.pop() else { return Ok(None) };
                self.current = Some(self.source.start(next)?);
            }
            let Some(current) = &mut self.current else { return Ok(None) };
            let first_row = current.rows_read;
            let columns = current.next(&self.source.wanted)?;
            let entry = FilePosition { stamp: current.stamp, rows_read: current.rows_read, done: columns.is_none() };
            self.position.files.insert(current.name.clone(), entry);
            let Some(columns) = columns else {
                current.check_unchanged()?;
                self.current = None;
                continue;
            };
            return Ok(Some(SourceBatch {
                rows: SourceRows::Columns(columns),
                origin: Arc::clone(&current.origin),
                first_row,
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
    fn next(&mut self, wanted: &Wanted) -> Result<Option<RecordBatch>, SourceError> {
        let unreadable = |why| SourceError::Unreadable { path: self.origin.to_string(), why };
        let reader = &mut self.reader;
        let Some(batch) = guarded(|| reader.next().transpose()).map_err(unreadable)? else { return Ok(None) };
        self.rows_read += batch.num_rows() as u64;
        self.shape.project(wanted, &self.origin, &batch).map(Some)
    }

    /// Fails if the file was rewritten in place while it was read: what was read may be half of each. A file that
    /// was replaced by rename was read as it had been; the next sync will find its successor.
    fn check_unchanged(&self) -> Result<(), SourceError> {
        match fs::metadata(&self.path) {
            Ok(meta) if Stamp::of(&meta).inode == self.stamp.inode && Stamp::of(&meta) != self.stamp => {
                Err(SourceError::Changed { path: self.origin.to_string() })
            }
            _ => Ok(()),
        }
    }
}

// === impl Position ===

impl Position {
    /// A position that does not read, from another kind of source perhaps, is the beginning.
    fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    fn print(&self) -> String {
        // String keys and numbers always serialize.
        serde_json::to_string(self).unwrap_or_default()
    }
}

// === impl Stamp ===

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        let modified = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let modified_nanos = modified.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
        Self { bytes: meta.len(), modified_nanos, inode: meta.ino() }
    }
}
