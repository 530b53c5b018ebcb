//! Derived features: what was found, and what the caller sent, goes through plugins.

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

/// What a step came to.
#[derive(Debug)]
pub(super) enum Derived {
    /// One column per output of the plugin.
    Outputs(Vec<Output>),
    /// The plugin is not there, or failed: its features are what the view says for that case.
    Failed,
}

/// Computes the derived views of an answer whose stored features are found. `as_of` is the time of the request.
pub(super) fn derive(answer: &mut Answer<'_>, request: &OnlineRequest<'_>, as_of: Micros) -> Result<(), RequestError> {
    let plan = std::sync::Arc::clone(&answer.plan);
    let asked = plan.request_inputs.iter().map(|input| {
        let (_, values) = &request.entities[input.request_place];
        typed_column(&input.name, input.column_type, values)
    });
    let asked = asked.collect::<Result<Vec<_>, _>>()?;
    for step in &plan.steps {
        let derived = compute(answer, step, &asked, as_of)?;
        answer.derived.push(derived);
    }
    Ok(())
}

fn compute(answer: &Answer<'_>, step: &Step, asked: &[Column], as_of: Micros) -> Result<Derived, RequestError> {
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
            StepInput::Request(place) => asked[place].clone(),
            StepInput::Key(place, key_type) => {
                key_column(place.map(|place| answer.entity_column(place)), key_type, answer.rows)
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

/// A feature of all rows; null where nothing was found.
fn feature_column(answer: &Answer<'_>, from: ColumnFrom, column_type: ColumnType) -> Column {
    if let Some(column) = answer.output(from) {
        return column.column().clone();
    }
    let mut column = ColumnBuilder::new(column_type, answer.rows);
    // Feast's placeholder for a null instant is null for a plugin.
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

/// What the caller sent for an input, brought to its type. A number is taken where it is exactly that number in the
/// type, or the nearest double or single; nothing else is guessed at.
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

/// A value that the caller sent, if it is of the type.
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
        // Whole seconds, as answers have them.
        (ColumnScalar::Timestamp, _) => whole()?.checked_mul(1_000_000).map(ValueRef::Int64),
        (ColumnScalar::Utf8 | ColumnScalar::Binary, EntityValue::Text(text)) => Some(ValueRef::Bytes(text.as_bytes())),
        _ => None,
    }
}
