//! The times of entity rows.

use arrow::array::RecordBatch;
use larder_columns::Instants;
use larder_model::yaml::nearest;

use super::TrainingError;

/// Returns the times of the rows. The first row has the index `first_row` in the set.
///
/// # Errors
/// [`TrainingError::MissingColumn`] and [`TrainingError::Column`].
pub(super) fn times(rows: &RecordBatch, column: &str, first_row: usize) -> Result<Instants, TrainingError> {
    let Some(array) = rows.column_by_name(column) else {
        let schema = rows.schema();
        let help = nearest(column, schema.fields().iter().map(|field| field.name().as_str()));
        let hint = help.map_or_else(String::new, |help| format!(" ({help})"));
        return Err(TrainingError::MissingColumn { column: column.to_owned(), hint });
    };
    let error = |why: String| TrainingError::Column { column: column.to_owned(), why };
    let times = Instants::new(array).map_err(error)?;
    match (0..rows.num_rows()).find_map(|row| Some((row, times.conversion_error(row)?))) {
        Some((row, why)) => Err(error(format!("row {}: {why}", first_row + row))),
        None => Ok(times),
    }
}
