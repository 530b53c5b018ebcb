//! The entity rows of a training set: an Arrow stream of another package, or Parquet files.

use std::{
    fmt::{self, Debug, Formatter},
    path::PathBuf,
};

use arrow::{
    array::{RecordBatch, RecordBatchReader as _},
    datatypes::SchemaRef,
    error::ArrowError,
    ffi_stream::RecordBatchStreamReader,
};
use larder::offline::{self, EntityFiles, OfflineError, Project};
use pyo3::{
    Bound, PyAny, PyErr, PyResult,
    exceptions::{PyRuntimeError, PyTypeError, PyValueError},
    types::{PyAnyMethods, PyStringMethods, PyTypeMethods},
};

use crate::{capsule, definitions::offline_error, errors::ErrorClass};

/// The entity rows of a training set.
pub(crate) enum EntityRows {
    /// The rows of an object with an Arrow stream. Reading them may need the interpreter.
    Stream(RecordBatchStreamReader),
    /// The rows of files or of objects in S3.
    Files(EntityFiles),
}

/// The rows of [`EntityRows`].
pub(crate) type EntityBatches<'a> = dyn Iterator<Item = Result<RecordBatch, ArrowError>> + 'a;

/// The class of polars for a query, which has no rows yet.
const LAZY_FRAME: &str = "LazyFrame";

/// Returns the error for an object whose Arrow stream cannot be read, such as a `polars.Series`, which is a single column.
/// Other errors, such as those of a training set that is used as entity rows, stay the same.
fn unreadable(entities: &Bound<'_, PyAny>, error: PyErr) -> PyErr {
    let py = entities.py();
    let is_of_data = error.is_instance_of::<PyTypeError>(py)
        || error.is_instance_of::<PyValueError>(py)
        || error.is_instance_of::<PyRuntimeError>(py);
    if !is_of_data {
        return error;
    }
    let kind = entities.get_type().qualname().map(|kind| kind.to_string()).unwrap_or_default();
    let message = format!(
        "entity_df: cannot read Arrow data from a value of the type '{kind}': {}. hint: use a data frame with distinct column \
         names, and one type in each column",
        error.value(py)
    );
    ErrorClass::Request.error(py, message)
}

// === impl EntityRows ===

impl EntityRows {
    /// Opens entity rows: the path or URL of Parquet files, or an object with an Arrow stream.
    pub(crate) fn open(project: &Project, entities: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = entities.py();
        if let Some(reader) = capsule::import_stream(entities).map_err(|error| unreadable(entities, error))? {
            return Ok(Self::Stream(reader));
        }
        let Ok(path) = entities.extract::<PathBuf>() else {
            let kind = entities.get_type().qualname()?;
            let hint = if kind.to_str()? == LAZY_FRAME {
                "call collect() first"
            } else {
                "use a pandas (with pyarrow) or polars data frame, a pyarrow table, or the path of a Parquet file"
            };
            let message = format!(
                "entity_df: a value of the type '{kind}' is neither a path nor an object with Arrow data. hint: {hint}"
            );
            return Err(ErrorClass::Request.error(py, message));
        };
        let files = py.detach(|| project.entities(&path)).map_err(|error| offline_error(py, &error))?;
        Ok(Self::Files(files))
    }

    /// Returns the columns of the rows.
    pub(crate) fn schema(&self) -> SchemaRef {
        match self {
            Self::Stream(reader) => reader.schema(),
            Self::Files(files) => files.schema(),
        }
    }

    /// Passes the rows to a function.
    pub(crate) fn read<T>(
        &mut self,
        run: impl FnOnce(&mut EntityBatches<'_>) -> Result<T, OfflineError>,
    ) -> Result<T, OfflineError> {
        match self {
            Self::Stream(rows) => run(rows),
            Self::Files(files) => run(&mut files.read()?),
        }
    }

    /// Returns the files, if the rows are in files.
    pub(crate) fn files(&self) -> Option<&EntityFiles> {
        match self {
            Self::Stream(_) => None,
            Self::Files(files) => Some(files),
        }
    }

    /// Describes the rows for a manifest. A stream has no files.
    ///
    /// # Errors
    /// [`OfflineError::Entities`].
    pub(crate) fn describe(&self) -> Result<offline::Entities, OfflineError> {
        match self {
            Self::Stream(_) => Ok(offline::Entities { path: None, files: Default::default() }),
            Self::Files(files) => files.describe(),
        }
    }
}

impl Debug for EntityRows {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(_) => f.write_str("Stream"),
            Self::Files(files) => f.debug_tuple("Files").field(files).finish(),
        }
    }
}
