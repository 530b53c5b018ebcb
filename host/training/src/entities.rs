//! The keys and request data of entity rows, as values of a lookup.

use std::borrow::Cow;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::{DataType, Int64Type},
};
use larder_columns::{cell, unpacked};
use larder_model::codec::Cell;
use larder_plugin_host::ColumnScalar;
use larder_serving::{EntityValue, OnlineRequest};

use super::{TrainingError, TrainingJob};

/// The columns of entity rows that the plan uses, as a request.
pub(super) struct EntityColumns<'a> {
    pub(super) request: OnlineRequest<'a>,
}

const MICROS: i64 = 1_000_000;

// === impl EntityColumns ===

impl<'a> EntityColumns<'a> {
    /// Converts the columns of a batch, whose first row has the index `first_row` in the set.
    ///
    /// # Errors
    /// [`TrainingError::Column`] and [`TrainingError::Value`].
    pub(super) fn new(
        job: &'a TrainingJob<'_>,
        batch: &'a RecordBatch,
        first_row: usize,
    ) -> Result<Self, TrainingError> {
        let plan = &job.historical.plan;
        let column = |(position, index): (usize, &usize)| {
            let name = job.entities.field(*index).name();
            let inputs = plan.request_inputs.iter().filter(|input| input.request_index == position);
            let mut scalars = inputs.map(|input| input.column_type.scalar);
            let has_floats = scalars.any(|scalar| matches!(scalar, ColumnScalar::Float32 | ColumnScalar::Float64));
            Ok((name.as_str().into(), values(batch.column(*index), name, first_row, has_floats)?))
        };
        let entities = job.historical.columns.iter().enumerate().map(column).collect::<Result<_, TrainingError>>()?;
        let request = OnlineRequest {
            selection: job.request.selection.clone(),
            entities,
            full_feature_names: job.request.full_feature_names,
            view_metadata: false,
        };
        Ok(Self { request })
    }
}

/// Converts a column to values of a request.
///
/// # Errors
/// [`TrainingError::Column`] for a type, and [`TrainingError::Value`] for a value, that a request cannot have.
fn values<'a>(
    array: &'a ArrayRef,
    column: &str,
    first_row: usize,
    has_floats: bool,
) -> Result<Vec<EntityValue<'a>>, TrainingError> {
    let of_row =
        |row: usize, why: String| TrainingError::Value { row: first_row + row, column: column.to_owned(), why };
    match array.data_type() {
        DataType::Int64 => {
            let ints = array.as_primitive::<Int64Type>().iter();
            return Ok(ints.map(|value| value.map_or(EntityValue::Null, EntityValue::Int)).collect());
        }
        DataType::Utf8 => {
            let texts = array.as_string::<i32>().iter();
            let text = |text: Option<&'a str>| text.map_or(EntityValue::Null, |text| EntityValue::Text(text.into()));
            return Ok(texts.map(text).collect());
        }
        _ => {}
    }
    let array = unpacked(array).map_err(|why| TrainingError::Column { column: column.to_owned(), why })?;
    let value = |row| {
        if array.is_null(row) {
            return Ok(EntityValue::Null);
        }
        match cell(&array, row) {
            Ok(Cell::Bytes(bytes)) if std::str::from_utf8(&bytes).is_err() => {
                Err(of_row(row, "the bytes are not UTF-8, so they cannot be a value of a request".to_owned()))
            }
            // pandas stores integers with nulls as floats.
            Ok(Cell::Float(value)) if !has_floats && value.is_nan() => Ok(EntityValue::Null),
            Ok(cell) => Ok(entity_value(cell)),
            Err(why) => Err(of_row(row, why)),
        }
    };
    (0..array.len()).map(value).collect()
}

/// Converts a cell to the value with which a client would send it.
fn entity_value<'a>(cell: Cell) -> EntityValue<'a> {
    match cell {
        // A decimal without a fraction is an integer.
        Cell::Number(digits) => digits.parse().map_or_else(|_| Cell::Number(digits).into(), EntityValue::Int),
        // As in requests, times are whole seconds.
        Cell::Instant(micros) => EntityValue::Int(micros.div_euclid(MICROS)),
        Cell::Bytes(bytes) => match String::from_utf8(bytes) {
            Ok(text) => EntityValue::Text(Cow::Owned(text)),
            Err(_) => EntityValue::Nested,
        },
        Cell::List(items) => EntityValue::List(items.into_iter().map(entity_value).collect()),
        other => other.into(),
    }
}
