//! Converts Arrow columns to rows of features, for tools that have a file and no view.

use std::sync::Arc;

use arrow::array::RecordBatch;
use larder_model::{
    codec::{RowBuilder, RowSchema},
    model::ValueType,
};

use super::Column;

/// Converts the columns of a batch that have the names of `fields` to rows. The rules are the same as in a
/// materialization, except that a value that does not match its type is an error.
///
/// # Errors
/// A message that names the missing column, the column and the row of an invalid value, or the row that is too large.
pub fn decode_rows(batch: &RecordBatch, fields: &[(Arc<str>, ValueType)]) -> Result<(RowSchema, Vec<Vec<u8>>), String> {
    let schema = RowSchema::new(fields.iter().cloned());
    let column = |(name, value_type): &(Arc<str>, ValueType)| {
        let array = batch.column_by_name(name).ok_or_else(|| format!("column '{name}' is missing"))?;
        Ok::<_, String>(Column::feature(array, *value_type))
    };
    let columns = fields.iter().map(column).collect::<Result<Vec<_>, _>>()?;
    let mut rows = Vec::with_capacity(batch.num_rows());
    let mut builder = RowBuilder::new(&schema);
    for row in 0..batch.num_rows() {
        builder.begin(0, None);
        for (column, (name, _)) in columns.iter().zip(fields) {
            if let Some(why) = column.conversion_error(row) {
                return Err(format!("column '{name}', row {row}: {why}"));
            }
            column.push(row, &mut builder).map_err(|error| format!("column '{name}', row {row}: {error}"))?;
        }
        rows.push(builder.finish().map_err(|error| format!("row {row}: {error}"))?.to_vec());
    }
    Ok((schema, rows))
}
