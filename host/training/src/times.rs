//! The times of entity rows.

use arrow::{array::RecordBatch, datatypes::DataType};
use larder_columns::Instants;

use super::TrainingError;

/// Returns the times of the rows. The first row has the index `first_row` in the set.
///
/// # Errors
/// [`TrainingError::NoTimeColumn`], [`TrainingError::NotTimes`] and [`TrainingError::Column`].
pub(super) fn times(rows: &RecordBatch, column: &str, first_row: usize) -> Result<Instants, TrainingError> {
    let Some(array) = rows.column_by_name(column) else {
        let schema = rows.schema();
        let columns = schema.fields().iter().map(|field| field.name().clone()).collect();
        return Err(TrainingError::NoTimeColumn { column: column.to_owned(), columns });
    };
    let error = |why: String| TrainingError::Column { column: column.to_owned(), why };
    let is_text = is_text(array.data_type());
    let times = Instants::new(array);
    let times = times.map_err(|why| TrainingError::NotTimes { column: column.to_owned(), why, is_text })?;
    match (0..rows.num_rows()).find_map(|row| Some((row, times.conversion_error(row)?))) {
        Some((row, why)) => Err(error(format!("row {}: {why}", first_row + row))),
        None => Ok(times),
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_text(values),
        other => matches!(other, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
    }
}
