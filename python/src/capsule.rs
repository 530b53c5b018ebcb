//! Exchanges Arrow data with other packages: the Arrow PyCapsule interface.
//!
//! A stream of record batches passes between packages as a capsule, which holds the struct `ArrowArrayStream` of Arrow's
//! C stream interface. The data is not copied.

use std::ffi::CStr;

use arrow::{
    array::RecordBatchReader, datatypes::Schema, error::ArrowError, ffi::FFI_ArrowSchema,
    ffi_stream::FFI_ArrowArrayStream,
};
use pyo3::{Bound, PyErr, PyResult, Python, exceptions::PyRuntimeError, types::PyCapsule};

const STREAM: &CStr = c"arrow_array_stream";
const SCHEMA: &CStr = c"arrow_schema";

/// Returns a capsule with a stream of batches. The reader is used from the thread that reads the stream, which may be
/// attached to the interpreter or not.
pub(crate) fn export_stream(
    py: Python<'_>,
    reader: Box<dyn RecordBatchReader + Send>,
) -> PyResult<Bound<'_, PyCapsule>> {
    PyCapsule::new_with_value(py, FFI_ArrowArrayStream::new(reader), STREAM)
}

/// Returns a capsule with a schema.
pub(crate) fn export_schema<'py>(py: Python<'py>, schema: &Schema) -> PyResult<Bound<'py, PyCapsule>> {
    let schema = FFI_ArrowSchema::try_from(schema).map_err(|error| arrow_error(&error))?;
    PyCapsule::new_with_value(py, schema, SCHEMA)
}

fn arrow_error(error: &ArrowError) -> PyErr {
    PyRuntimeError::new_err(error.to_string())
}
