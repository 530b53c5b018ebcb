//! Writes a training set as a Parquet file.
//!
//! The rows are written to a temporary file next to the final path, which is renamed at the end. So an interrupted or failed
//! run leaves no half-written file at the final path. The temporary file has a fixed name and is locked, so the next run with
//! the same path reuses a file that a killed run left, and two runs do not write the same file.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use arrow::{array::RecordBatch, compute::BatchCoalescer, datatypes::SchemaRef, error::ArrowError};
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
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(".tmp");
        let temporary = path.with_file_name(name);
        let error = |source| OfflineError::Write { path: path.to_owned(), source };
        if path.is_dir() {
            return Err(error(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&temporary).map_err(error)?;
        // The lock ends when the file is closed.
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| error(io::Error::other("another run is writing to this path")))?;
        file.set_len(0).map_err(error)?;
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
        let mut this = Self { path: path.to_owned(), temporary, batches, writer: None, is_finished: false };
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

    /// Renames the file to its final path, after its content is on the disk.
    ///
    /// # Errors
    /// [`OfflineError::Write`] and [`OfflineError::Encode`].
    pub fn finish(mut self) -> Result<(), OfflineError> {
        self.batches.finish_buffered_batch().map_err(|source| self.arrow(source))?;
        self.encode_completed()?;
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let file = writer.into_inner().map_err(|source| self.encode(source))?;
        let renamed = file.sync_all().and_then(|()| fs::rename(&self.temporary, &self.path));
        renamed.map_err(|source| OfflineError::Write { path: self.path.clone(), source })?;
        self.is_finished = true;
        Ok(())
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

impl Drop for TrainingWriter {
    fn drop(&mut self) {
        if !self.is_finished {
            // The error that ended the run matters more than an error here.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}
