//! Exchanges Arrow data with other packages: the Arrow PyCapsule interface.
//!
//! A stream of record batches passes between packages as a capsule, which holds the struct `ArrowArrayStream` of Arrow's
//! C stream interface. The data is not copied.

#![expect(unsafe_code, reason = "Arrow's C interface passes pointers to structs; each block has its reason")]

use std::ffi::CStr;

use arrow::{
    array::RecordBatchReader,
    datatypes::Schema,
    error::ArrowError,
    ffi::FFI_ArrowSchema,
    ffi_stream::{FFI_ArrowArrayStream, RecordBatchStreamReader},
};
use pyo3::{
    Bound, PyAny, PyErr, PyResult, Python,
    exceptions::PyRuntimeError,
    intern,
    types::{PyAnyMethods, PyCapsule, PyCapsuleMethods},
};

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

/// Returns the batches of an object with the method `__arrow_c_stream__`, or `None` if the object has no such method.
pub(crate) fn import_stream(object: &Bound<'_, PyAny>) -> PyResult<Option<RecordBatchStreamReader>> {
    let Some(method) = object.getattr_opt(intern!(object.py(), "__arrow_c_stream__"))? else { return Ok(None) };
    let capsule = method.call0()?.cast_into::<PyCapsule>()?;
    let stream = capsule.pointer_checked(Some(STREAM))?.cast::<FFI_ArrowArrayStream>();
    // SAFETY: by the PyCapsule interface, a capsule of this name holds a valid `ArrowArrayStream`, which the consumer may
    // move out. `from_raw` replaces it with an empty stream, so the capsule does not release it a second time. The
    // capsule is alive until the end of this function.
    let reader = unsafe { RecordBatchStreamReader::from_raw(stream.as_ptr()) };
    reader.map(Some).map_err(|error| arrow_error(&error))
}

fn arrow_error(error: &ArrowError) -> PyErr {
    PyRuntimeError::new_err(error.to_string())
}
