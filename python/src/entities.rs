//! The entity rows of a training set: an Arrow stream of another package, or Parquet files.

use std::{
    fmt::{self, Debug, Formatter},
    path::PathBuf,
};

use arrow::{
    array::{RecordBatch, RecordBatchReader},
    datatypes::SchemaRef,
    error::ArrowError,
    ffi_stream::RecordBatchStreamReader,
};
use larder::offline::{self, EntityFiles, OfflineError};
use pyo3::{
    Bound, PyAny, PyResult,
    types::{PyAnyMethods, PyTypeMethods},
};

use crate::{capsule, definitions::offline_error, errors::ErrorClass};

/// The entity rows of a training set.
pub(crate) enum EntityRows {
    /// The rows of an object with an Arrow stream. Reading them may need the interpreter.
    Stream(RecordBatchStreamReader),
    /// The rows of a file or of a directory, and its path.
    Files(PathBuf, EntityFiles),
}

// === impl EntityRows ===

impl EntityRows {
    /// Opens entity rows: the path of Parquet files, or an object with an Arrow stream.
    pub(crate) fn open(entities: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = entities.py();
        if let Some(reader) = capsule::import_stream(entities)? {
            return Ok(Self::Stream(reader));
        }
        let Ok(path) = entities.extract::<PathBuf>() else {
            let message = format!(
                "entity_df: a value of the type '{}' is neither a path nor an object with Arrow data. hint: use a data frame \
                 of pandas (with pyarrow), polars or pyarrow, or the path of a Parquet file",
                entities.get_type().qualname()?
            );
            return Err(ErrorClass::Request.error(py, message));
        };
        let files = EntityFiles::open(&path).map_err(|error| offline_error(py, &error))?;
        Ok(Self::Files(path, files))
    }

    /// Returns the columns of the rows.
    pub(crate) fn schema(&self) -> SchemaRef {
        match self {
            Self::Stream(reader) => reader.schema(),
            Self::Files(_, files) => files.schema(),
        }
    }

    /// Returns the files.
    pub(crate) fn files(&self) -> &[PathBuf] {
        match self {
            Self::Stream(_) => &[],
            Self::Files(_, files) => files.files(),
        }
    }

    /// Describes the rows for a manifest. A stream has no files.
    ///
    /// # Errors
    /// [`OfflineError::Entities`].
    pub(crate) fn describe(&self) -> Result<offline::Entities, OfflineError> {
        match self {
            Self::Stream(_) => Ok(offline::Entities { path: None, files: Default::default() }),
            Self::Files(path, files) => {
                let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                Ok(offline::Entities { path: Some(absolute), files: files.digests()? })
            }
        }
    }
}

impl Iterator for EntityRows {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Stream(reader) => reader.next(),
            Self::Files(_, files) => files.next(),
        }
    }
}

impl Debug for EntityRows {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(_) => f.write_str("Stream"),
            Self::Files(path, _) => f.debug_tuple("Files").field(path).finish(),
        }
    }
}
