//! Computes derived features: passes looked-up values and request data to plugins.

use larder_model::{
    codec::single,
    model::{Micros, NULL_TIMESTAMP_SECONDS, ScalarType, ValueRef},
};
use larder_plugin_host::{CallError, Column, ColumnBuilder, ColumnScalar, ColumnType, Output};

use super::{
    Answer, ColumnFrom, EntityValue, OnlineRequest, RequestError,
    keys::{self, EchoedValue},
    plan::{Step, StepInput},
};

/// The result of a step.
#[derive(Debug)]
pub(super) enum Derived {
    /// One column for each output of the plugin.
    Outputs(Vec<Output>),
    /// The plugin is missing or failed. The view's fallback is served.
    Failed,
}

/// Computes the derived views of an answer after its stored features were looked up. `as_of` is the time of the
/// request.
pub(super) fn derive(answer: &mut Answer<'_>, request: &OnlineRequest<'_>, as_of: Micros) -> Result<(), RequestError> {
    let plan = std::sync::Arc::clone(&answer.plan);
    let request_columns = plan.request_inputs.iter().map(|input| {
        let (_, values) = &request.entities[input.request_place];
        typed_column(&input.name, input.column_type, values)
    });
    let request_columns = request_columns.collect::<Result<Vec<_>, _>>()?;
    for step in &plan.steps {
        let derived = compute(answer, step, &request_columns, as_of)?;
        answer.derived.push(derived);
    }
    Ok(())
}

fn compute(
    answer: &Answer<'_>,
    step: &Step,
    request_columns: &[Column],
    as_of: Micros,
) -> Result<Derived, RequestError> {
    let failed = |why: RequestError| if step.is_fatal() { Err(why) } else { Ok(Derived::Failed) };
    let Some(transform) = &step.transform else {
        return failed(RequestError::NoPlugin {
            view: step.view.name.to_string(),
            plugin: step.view.plugin.to_string(),
        });
    };
    let mut inputs: Vec<Column> = Vec::with_capacity(step.inputs.len());
    for input in &step.inputs {
        inputs.push(match *input {
            StepInput::Feature(from, column_type) => feature_column(answer, from, column_type),
            StepInput::Request(index) => request_columns[index].clone(),
            StepInput::Key(index, key_type) => {
                key_column(index.map(|index| answer.entity_column(index)), key_type, answer.rows)
            }
        });
    }
    match transform.call(as_of, answer.rows, inputs) {
        Ok(outputs) => Ok(Derived::Outputs(outputs)),
        Err(error) => failed(failure(step, &error)),
    }
}

fn failure(step: &Step, error: &CallError) -> RequestError {
    RequestError::Plugin { view: step.view.name.to_string(), why: error.for_client() }
}

/// Returns a feature's values in all rows; null if no value was found.
fn feature_column(answer: &Answer<'_>, from: ColumnFrom, column_type: ColumnType) -> Column {
    if let Some(column) = answer.output(from) {
        return column.column().clone();
    }
    let mut column = ColumnBuilder::new(column_type, answer.rows);
    // Feast's placeholder for a null timestamp is passed to a plugin as null.
    let is_null = |value: &ValueRef<'_>| {
        column_type == ColumnType::TIMESTAMP && matches!(value, ValueRef::Int64(NULL_TIMESTAMP_SECONDS))
    };
    column.extend(answer.cells(from).map(|cell| if is_null(&cell.value) { ValueRef::Null } else { cell.value }));
    column.finish()
}

fn key_column(values: Option<&[EchoedValue<'_>]>, key_type: ScalarType, rows: usize) -> Column {
    let column_type = ColumnType::of(larder_model::model::ValueType::Scalar(key_type)).unwrap_or(ColumnType::TEXT);
    let mut column = ColumnBuilder::new(column_type, rows);
    let value = |row: usize| values.map_or(ValueRef::Null, |values| keys::key_as_value(&values[row], key_type));
    column.extend((0..rows).map(value));
    column.finish()
}

/// Converts the caller's values for an input to its type. A number is accepted if the type can represent it exactly;
/// for doubles and singles, the nearest value is used. There are no other conversions.
///
/// # Errors
/// [`RequestError::BadRequestData`] for the first value that is not of the type.
pub fn typed_column(name: &str, column_type: ColumnType, values: &[EntityValue<'_>]) -> Result<Column, RequestError> {
    let fault = |row: usize, found: &EntityValue<'_>| RequestError::BadRequestData {
        name: name.to_owned(),
        row,
        declared: column_type.to_string(),
        found: found.describe(),
    };
    let scalar = column_type.scalar;
    let mut column = ColumnBuilder::new(column_type, values.len());
    if column_type.is_list {
        for (row, value) in values.iter().enumerate() {
            match value {
                EntityValue::Null => column.push(ValueRef::Null),
                EntityValue::List(items) => {
                    let items = items.iter().map(|item| sent(item, scalar).ok_or_else(|| fault(row, item)));
                    column.push_list(items.collect::<Result<Vec<_>, _>>()?.into_iter());
                }
                value => return Err(fault(row, value)),
            }
        }
    } else {
        let mut wrong = None;
        column.extend(values.iter().enumerate().map(|(row, value)| match value {
            EntityValue::Null => ValueRef::Null,
            value => sent(value, scalar).unwrap_or_else(|| {
                wrong.get_or_insert((row, value));
                ValueRef::Null
            }),
        }));
        if let Some((row, value)) = wrong {
            return Err(fault(row, value));
        }
    }
    Ok(column.finish())
}

/// Returns a value of the caller, if it is of the type.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "the nearest double, or checked")]
fn sent<'v>(value: &'v EntityValue<'_>, scalar: ColumnScalar) -> Option<ValueRef<'v>> {
    /// The first double beyond all 64-bit integers.
    const EDGE: f64 = 9_223_372_036_854_775_808.0;
    let whole = || match *value {
        EntityValue::Int(value) => Some(value),
        EntityValue::Float(value) if value.trunc() == value && (-EDGE..EDGE).contains(&value) => Some(value as i64),
        _ => None,
    };
    let real = || match *value {
        EntityValue::Int(value) => Some(value as f64),
        EntityValue::Large(ref digits) => digits.parse().ok(),
        EntityValue::Float(value) => Some(value),
        _ => None,
    };
    match (scalar, value) {
        (ColumnScalar::Bool, EntityValue::Bool(value)) => Some(ValueRef::Bool(*value)),
        (ColumnScalar::Int32, _) => i32::try_from(whole()?).ok().map(ValueRef::Int32),
        (ColumnScalar::Int64, _) => whole().map(ValueRef::Int64),
        (ColumnScalar::Float32, _) => single(real()?).map(ValueRef::Float32),
        (ColumnScalar::Float64, _) => real().map(ValueRef::Float64),
        // Whole seconds, as in responses.
        (ColumnScalar::Timestamp, _) => whole()?.checked_mul(1_000_000).map(ValueRef::Int64),
        (ColumnScalar::Utf8 | ColumnScalar::Binary, EntityValue::Text(text)) => Some(ValueRef::Bytes(text.as_bytes())),
        _ => None,
    }
}
