//! Reads entity rows from a Parquet file, or from all Parquet files of a directory.

use std::{
    collections::BTreeMap,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{array::RecordBatch, datatypes::SchemaRef, error::ArrowError};
use larder_common::{files::open_regular, telemetry::panic_message};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::{OfflineError, OutputFile};

/// The rows of the files, in the order of the files' names.
#[derive(Debug)]
pub struct EntityFiles {
    schema: SchemaRef,
    rows: u64,
    files: Vec<PathBuf>,
    /// The files that were not opened yet, in reverse order.
    pending: Vec<PathBuf>,
    current: Option<(PathBuf, ParquetRecordBatchReader)>,
}

/// The number of rows that are read at a time.
const BATCH_ROWS: usize = 16_384;

// === impl EntityFiles ===

impl EntityFiles {
    /// Opens a file or a directory. All files of a directory must have the same columns.
    ///
    /// # Errors
    /// [`OfflineError::Entities`].
    pub fn open(path: &Path) -> Result<Self, OfflineError> {
        let error = |path: &Path, why: String| OfflineError::Entities { path: path.to_owned(), why };
        let files = files(path).map_err(|why| error(path, why.to_string()))?;
        let Some(first) = files.first() else {
            return Err(error(path, "the directory has no *.parquet file".to_owned()));
        };
        let mut rows = 0;
        let schema = Arc::clone(reader(first).map_err(|why| error(first, why))?.schema());
        for file in &files {
            let reader = reader(file).map_err(|why| error(file, why))?;
            if reader.schema().fields() != schema.fields() {
                let why = format!("its columns differ from those of {}", first.display());
                return Err(error(file, why));
            }
            rows += u64::try_from(reader.metadata().file_metadata().num_rows()).unwrap_or(0);
        }
        let pending = files.iter().rev().cloned().collect();
        Ok(Self { schema, rows, files, pending, current: None })
    }

    /// Returns the columns of the rows.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Returns the number of rows in the footers of all files.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the files.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Computes the digest of each file, by name.
    ///
    /// # Errors
    /// [`OfflineError::Entities`].
    pub fn digests(&self) -> Result<BTreeMap<String, OutputFile>, OfflineError> {
        let digest = |path: &PathBuf| {
            let error = |why: io::Error| OfflineError::Entities { path: path.clone(), why: why.to_string() };
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok((name, OutputFile::of(path).map_err(error)?))
        };
        self.files.iter().map(digest).collect()
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>, String> {
        loop {
            if let Some((path, reader)) = &mut self.current {
                match guarded(|| Ok::<_, String>(reader.next())).map_err(|why| format!("{}: {why}", path.display()))? {
                    Some(Ok(batch)) => return Ok(Some(batch)),
                    Some(Err(why)) => return Err(format!("{}: {why}", path.display())),
                    None => self.current = None,
                }
            }
            let Some(path) = self.pending.pop() else { return Ok(None) };
            let named = |why: String| format!("{}: {why}", path.display());
            let built = reader(&path).map_err(named)?;
            if built.schema().fields() != self.schema.fields() {
                return Err(named("its columns changed while the entity rows were read".to_owned()));
            }
            let reader = guarded(|| built.with_batch_size(BATCH_ROWS).build()).map_err(named)?;
            self.current = Some((path, reader));
        }
    }
}

impl Iterator for EntityFiles {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().map_err(ArrowError::ParquetError).transpose()
    }
}

/// Returns the data files at a path, in the order of their names.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".parquet") && !name.starts_with(['.', '_']) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn reader(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<fs::File>, String> {
    let file = open_regular(path).map_err(|why| why.to_string())?;
    guarded(|| ParquetRecordBatchReaderBuilder::try_new(file))
}

/// Calls the Parquet library, which may panic if a file is damaged. A panic becomes an error.
fn guarded<T, E: ToString>(read: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => Err(format!("the reader panicked: {}", panic_message(&*panic))),
    }
}
