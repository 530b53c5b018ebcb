//! Columns with pickled objects of Python.

use arrow::datatypes::Schema;

use super::TrainingError;

/// The extension type of columns of Ray whose values Ray could not convert to Arrow.
const PYTHON_OBJECTS: &str = "ray.data.arrow_pickled_object";

/// Checks that columns have values, and not the bytes of pickled objects.
///
/// # Errors
/// [`TrainingError::PythonObjects`].
pub(super) fn check_values(schema: &Schema, columns: impl IntoIterator<Item = usize>) -> Result<(), TrainingError> {
    let mut fields = columns.into_iter().map(|column| schema.field(column));
    let objects = fields.find(|field| field.extension_type_name() == Some(PYTHON_OBJECTS));
    objects.map_or(Ok(()), |field| Err(TrainingError::PythonObjects(field.name().clone())))
}
