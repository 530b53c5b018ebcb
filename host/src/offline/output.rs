//! Writes a training set as a Parquet file.
//!
//! The rows are written to a temporary file next to the final path, which is renamed at the end. So an interrupted or failed
//! run leaves no half-written file at the final path. A lock file makes sure that two runs do not write to the same path. The
//! files have fixed names, so the next run with the same path replaces a file that a killed run left.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use arrow::{array::RecordBatch, compute::BatchCoalescer, datatypes::SchemaRef, error::ArrowError};
use larder_common::files::check_regular;
use parquet::{
    arrow::ArrowWriter, basic::Compression, errors::ParquetError, file::properties::WriterProperties,
    schema::types::ColumnPath,
};
use rustix::fs::{FlockOperation, flock};

use super::OfflineError;

/// Writes a training set. If it is dropped without [`TrainingWriter::finish`], the temporary file is removed.
#[derive(Debug)]
pub struct TrainingWriter {
    path: PathBuf,
    temporary: PathBuf,
    /// Divides the rows into batches of equal size, because the sizes of batches decide where Parquet's pages end.
    batches: BatchCoalescer,
    /// `None` after the file was closed.
    writer: Option<ArrowWriter<File>>,
    is_finished: bool,
    lock: Option<PathLock>,
}

/// The right to write to a path, until it is dropped.
#[derive(Debug)]
pub struct PathLock {
    path: PathBuf,
    /// The lock ends when the file is closed.
    _file: File,
}

/// The number of rows in a row group, which the writer holds in memory.
const GROUP_ROWS: usize = 1 << 17;
/// The number of rows that are encoded at a time.
const BATCH_ROWS: usize = 1 << 14;

// === impl TrainingWriter ===

impl TrainingWriter {
    /// Creates the temporary file.
    ///
    /// # Errors
    /// [`OfflineError::Write`], also if another run writes to the same path.
    pub fn create(path: &Path, schema: SchemaRef) -> Result<Self, OfflineError> {
        let error = |source| OfflineError::Write { path: path.to_owned(), source };
        match fs::metadata(path) {
            Ok(meta) => check_regular(&meta).map_err(error)?,
            Err(source) if source.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(error(source)),
        }
        let lock = PathLock::new(path).map_err(error)?;
        let temporary = hidden(path, ".tmp");
        // Only a killed run leaves the file, because this run has the lock.
        remove_if_there(&temporary).map_err(error)?;
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary).map_err(error)?;
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            // Parquet has no type for `Date64`. Without coercion, it would become an integer.
            .set_coerce_types(true)
            .set_max_row_group_row_count(Some(GROUP_ROWS));
        // Floats rarely repeat, and building a dictionary takes more time than the rest of the encoding.
        for field in schema.fields().iter().filter(|field| field.data_type().is_floating()) {
            properties = properties.set_column_dictionary_enabled(ColumnPath::from(field.name().as_str()), false);
        }
        let properties = properties.build();
        let batches = BatchCoalescer::new(SchemaRef::clone(&schema), BATCH_ROWS);
        let mut this =
            Self { path: path.to_owned(), temporary, batches, writer: None, is_finished: false, lock: Some(lock) };
        let writer = ArrowWriter::try_new(file, schema, Some(properties));
        this.writer = Some(writer.map_err(|source| this.encode(source))?);
        Ok(this)
    }

    /// Writes rows.
    ///
    /// # Errors
    /// [`OfflineError::Write`] and [`OfflineError::Encode`].
    pub fn write(&mut self, rows: RecordBatch) -> Result<(), OfflineError> {
        if rows.num_rows() == BATCH_ROWS && self.batches.is_empty() {
            return self.encode_batch(&rows);
        }
        self.batches.push_batch(rows).map_err(|source| self.arrow(source))?;
        self.encode_completed()
    }

    /// Renames the file to its final path, after its content is on the disk. Returns the lock, which the caller may keep while
    /// it writes more files that belong to this one.
    ///
    /// # Errors
    /// [`OfflineError::Write`] and [`OfflineError::Encode`].
    pub fn finish(mut self) -> Result<Option<PathLock>, OfflineError> {
        self.batches.finish_buffered_batch().map_err(|source| self.arrow(source))?;
        self.encode_completed()?;
        let Some(writer) = self.writer.take() else { return Ok(None) };
        let file = writer.into_inner().map_err(|source| self.encode(source))?;
        let renamed = file.sync_all().and_then(|()| fs::rename(&self.temporary, &self.path));
        renamed.map_err(|source| OfflineError::Write { path: self.path.clone(), source })?;
        self.is_finished = true;
        Ok(self.lock.take())
    }

    fn encode_completed(&mut self) -> Result<(), OfflineError> {
        while let Some(batch) = self.batches.next_completed_batch() {
            self.encode_batch(&batch)?;
        }
        Ok(())
    }

    fn encode_batch(&mut self, rows: &RecordBatch) -> Result<(), OfflineError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.write(rows).map_err(|source| self.encode(source))
    }

    fn arrow(&self, source: ArrowError) -> OfflineError {
        self.encode(source.into())
    }

    fn encode(&self, source: ParquetError) -> OfflineError {
        let path = self.path.clone();
        match source {
            // The Parquet library wraps errors of the file.
            ParquetError::External(source) => match source.downcast::<io::Error>() {
                Ok(source) => OfflineError::Write { path, source: *source },
                Err(source) => OfflineError::Encode { path, source: ParquetError::External(source) },
            },
            source => OfflineError::Encode { path, source },
        }
    }
}

// === impl PathLock ===

impl PathLock {
    fn new(path: &Path) -> io::Result<Self> {
        let path = hidden(path, ".lock");
        loop {
            let mut options = OpenOptions::new();
            let options =
                options.write(true).create(true).truncate(false).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
            let file = options.open(&path)?;
            flock(&file, FlockOperation::NonBlockingLockExclusive)
                .map_err(|_| io::Error::other("another run is writing to this path"))?;
            // The previous owner may have removed the file between `open` and `flock`.
            let (own, meta) = (file.metadata()?, fs::symlink_metadata(&path));
            if meta.is_ok_and(|meta| (meta.dev(), meta.ino()) == (own.dev(), own.ino())) {
                return Ok(Self { path, _file: file });
            }
        }
    }
}

impl Drop for PathLock {
    fn drop(&mut self) {
        // The file is removed while it is locked. A file that stays is locked again by the next run.
        let _ = fs::remove_file(&self.path);
    }
}

/// Returns the path of a hidden file next to a path.
fn hidden(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(suffix);
    path.with_file_name(name)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Drop for TrainingWriter {
    fn drop(&mut self) {
        if !self.is_finished {
            // The error that ended the run matters more than an error here.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}
