//! Writes a training set as a Parquet file.
//!
//! The rows are written to a temporary file next to the final path, which is renamed at the end. So an interrupted or failed
//! run leaves no half-written file at the final path.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use parquet::{arrow::ArrowWriter, basic::Compression, errors::ParquetError, file::properties::WriterProperties};

use super::OfflineError;

/// Writes a training set. If it is dropped without [`TrainingWriter::finish`], the temporary file is removed.
#[derive(Debug)]
pub struct TrainingWriter {
    path: PathBuf,
    temporary: PathBuf,
    writer: Option<ArrowWriter<File>>,
}

/// The number of rows in a row group, which the writer holds in memory.
const GROUP_ROWS: usize = 1 << 17;

// === impl TrainingWriter ===

impl TrainingWriter {
    /// Creates the temporary file.
    ///
    /// # Errors
    /// [`OfflineError::Write`].
    pub fn create(path: &Path, schema: SchemaRef) -> Result<Self, OfflineError> {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(name);
        let error = |source| OfflineError::Write { path: path.to_owned(), source };
        if path.is_dir() {
            return Err(error(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        let file = File::create(&temporary).map_err(error)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .build();
        let mut this = Self { path: path.to_owned(), temporary, writer: None };
        this.writer = Some(ArrowWriter::try_new(file, schema, Some(properties)).map_err(|source| this.encode(source))?);
        Ok(this)
    }

    /// Writes rows.
    ///
    /// # Errors
    /// [`OfflineError::Write`] and [`OfflineError::Encode`].
    pub fn write(&mut self, rows: &RecordBatch) -> Result<(), OfflineError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.write(rows).map_err(|source| self.encode(source))
    }

    /// Renames the file to its final path, after its content is on the disk.
    ///
    /// # Errors
    /// [`OfflineError::Write`] and [`OfflineError::Encode`].
    pub fn finish(mut self) -> Result<(), OfflineError> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let file = writer.into_inner().map_err(|source| self.encode(source))?;
        let renamed = file.sync_all().and_then(|()| fs::rename(&self.temporary, &self.path));
        renamed.map_err(|source| OfflineError::Write { path: self.path.clone(), source })
    }

    fn encode(&self, source: ParquetError) -> OfflineError {
        let path = self.path.clone();
        match source {
            // The writer wraps errors of the file.
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
        // After `finish`, the file does not exist any more.
        let _ = fs::remove_file(&self.temporary);
    }
}
