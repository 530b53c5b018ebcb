//! A table in Arrow's format: the response to a lookup, or a part of a training set.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchIterator},
    datatypes::{
        DataType, Float32Type, Float64Type, Int8Type, Int32Type, Int64Type, SchemaRef, TimestampMicrosecondType,
    },
    error::ArrowError,
    ipc::reader::StreamReader,
};
use pyo3::{
    Bound, IntoPyObject, IntoPyObjectExt, PyAny, PyResult, Python, pyclass, pymethods,
    types::{PyBytes, PyCapsule, PyList, PyListMethods, PyTuple},
};

use crate::{capsule, errors::ErrorClass, numpy};

/// Record batches with one schema.
#[pyclass(frozen, module = "larder._native")]
#[derive(Debug)]
pub(crate) struct ArrowTable {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl ArrowTable {
    /// Creates a table from batches with this schema.
    pub(crate) fn new(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        Self { schema, batches }
    }

    /// Reads an Arrow IPC stream.
    pub(crate) fn read(ipc: &[u8]) -> Result<Self, ArrowError> {
        let reader = StreamReader::try_new(ipc, None)?;
        let schema = reader.schema();
        Ok(Self { schema, batches: reader.collect::<Result<_, _>>()? })
    }

    fn arrays(&self, column: usize) -> impl Iterator<Item = &ArrayRef> {
        self.batches.iter().map(move |batch| batch.column(column))
    }

    fn index(&self, py: Python<'_>, name: &str) -> PyResult<usize> {
        let index = self.schema.index_of(name);
        index.map_err(|_| ErrorClass::Request.error(py, format!("the table has no column '{name}'")))
    }
}

#[pymethods]
impl ArrowTable {
    /// The names of the columns.
    #[getter]
    fn column_names(&self) -> Vec<&str> {
        self.schema.fields().iter().map(|field| field.name().as_str()).collect()
    }

    /// The number of rows.
    #[getter]
    fn num_rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// Returns a table with only these columns.
    fn select(&self, py: Python<'_>, names: Vec<String>) -> PyResult<Self> {
        let indexes: Vec<usize> = names.iter().map(|name| self.index(py, name)).collect::<PyResult<_>>()?;
        let project = |batch: &RecordBatch| batch.project(&indexes);
        let batches = self.batches.iter().map(project).collect::<Result<Vec<_>, _>>();
        let schema = self.schema.project(&indexes).map(Arc::new);
        match (schema, batches) {
            (Ok(schema), Ok(batches)) => Ok(Self { schema, batches }),
            (Err(error), _) | (_, Err(error)) => Err(ErrorClass::Response.error(py, error.to_string())),
        }
    }

    /// Returns a column's values as Python's objects. Timestamps are microseconds since 1970, in UTC.
    fn values<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for array in self.arrays(self.index(py, name)?) {
            for row in 0..array.len() {
                list.append(value(py, array, row)?)?;
            }
        }
        Ok(list)
    }

    /// Returns a column as the name of a NumPy type and the bytes of an array. If NumPy has no type for the values,
    /// returns `None` and a list of values.
    fn numpy<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyTuple>> {
        let column = self.index(py, name)?;
        match numpy::bytes(py, self.schema.field(column).data_type(), &self.arrays(column).collect::<Vec<_>>())? {
            Some((kind, bytes)) => (kind, bytes).into_pyobject(py),
            None => (py.None(), self.values(py, name)?).into_pyobject(py),
        }
    }

    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        // The interface allows ignoring the requested schema.
        let _ = requested_schema;
        let batches = self.batches.clone().into_iter().map(Ok);
        capsule::export_stream(py, Box::new(RecordBatchIterator::new(batches, Arc::clone(&self.schema))))
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        capsule::export_schema(py, &self.schema)
    }
}

/// Converts a value of one of the types that Larder uses.
fn value<'py>(py: Python<'py>, array: &ArrayRef, row: usize) -> PyResult<Bound<'py, PyAny>> {
    if array.is_null(row) {
        return Ok(py.None().into_bound(py));
    }
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).into_bound_py_any(py),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into_bound_py_any(py),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into_bound_py_any(py),
        DataType::Float32 => f64::from(array.as_primitive::<Float32Type>().value(row)).into_bound_py_any(py),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).into_bound_py_any(py),
        DataType::Timestamp(..) => array.as_primitive::<TimestampMicrosecondType>().value(row).into_bound_py_any(py),
        DataType::Utf8 => array.as_string::<i32>().value(row).into_bound_py_any(py),
        DataType::Binary => Ok(PyBytes::new(py, array.as_binary::<i32>().value(row)).into_any()),
        DataType::List(_) => {
            let (items, list) = (array.as_list::<i32>().value(row), PyList::empty(py));
            (0..items.len()).try_for_each(|item| list.append(value(py, &items, item)?))?;
            Ok(list.into_any())
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_dictionary::<Int8Type>();
            let key = usize::try_from(dictionary.keys().value(row)).unwrap_or_default();
            value(py, dictionary.values(), key)
        }
        other => {
            Err(ErrorClass::Response.error(py, format!("a column has the type {other}, which Larder never sends")))
        }
    }
}
