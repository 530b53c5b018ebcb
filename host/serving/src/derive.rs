//! Computes derived features: passes looked-up values and request data to plugins.

use std::{sync::Arc, time::Instant};

use larder_model::{
    codec::{is_text_of, json::nested_json, single, stored_set},
    model::{NULL_TIMESTAMP_SECONDS, ScalarType, Value, ValueRef, ValueType},
};
use larder_plugin_host::{
    AsOf, CallError, ColumnScalar, ColumnType, ColumnWriter, FailedRow, Field, Frame, FrameBuilder, Inputs, OnFailure,
    Transform,
};

use super::{
    Answer, ColumnFrom, EntityValue, OnlineRequest, RequestError,
    answer::Derived,
    keys::{self, EchoedValue},
    plan::{Step, StepInput},
};

/// Computes the derived views of an answer after its stored features were looked up. `as_of` has the
/// reference times of the rows. `on_failure` decides what happens if a call of a plugin fails.
///
/// # Errors
/// [`RequestError::NeedsIsolation`], unless `on_failure` is to find rows or to fail calls; errors of request data; and failures of views
/// with `on_error: fail`.
pub(super) fn derive(
    answer: &mut Answer<'_>,
    request: &OnlineRequest<'_>,
    as_of: &AsOf,
    on_failure: OnFailure,
) -> Result<(), RequestError> {
    let plan = Arc::clone(&answer.plan);
    // Request data is converted before the first plugin is called, because a value of the wrong type fails the whole
    // request. Each plugin that reads a column gets a copy of the column.
    let types = plan.request_inputs.iter().map(|input| input.column_type);
    let mut request_data = FrameBuilder::new(types, answer.rows);
    for input in &plan.request_inputs {
        let (_, values) = &request.entities[input.request_index];
        request_data.column(|column| fill_typed(column, &input.name, input.value_type, values))?;
    }
    let request_data = request_data.finish();
    for step in &plan.steps {
        let derived = compute(answer, step, &request_data, as_of, on_failure)?;
        answer.derived.push(derived);
    }
    // Counted only now, because the whole request is computed again if a later view needs isolation.
    for (step, derived) in plan.steps.iter().zip(&answer.derived) {
        match (derived, &step.transform) {
            (Derived::Outputs(outputs), Some(transform)) => {
                transform.count_failed(outputs);
                step.counters.note(outputs, transform.outputs());
            }
            _ => step.counters.note_all_invalid(answer.rows),
        }
    }
    Ok(())
}

fn compute(
    answer: &Answer<'_>,
    step: &Step,
    request_data: &Frame,
    as_of: &AsOf,
    on_failure: OnFailure,
) -> Result<Derived, RequestError> {
    let Some(transform) = &step.transform else {
        return no_plugin(step);
    };
    let inputs = fill_inputs(answer, transform, &step.inputs, request_data, as_of);
    let started = step.comparison.is_some().then(Instant::now);
    let outputs =
        transform.try_call(&inputs, on_failure).map_err(|_| RequestError::NeedsIsolation(Arc::clone(transform)))?;
    if let (Some(comparison), Some(started)) = (&step.comparison, started)
        && comparison.note(transform, &outputs, started.elapsed())
    {
        let other = |from: &Vec<StepInput>| fill_inputs(answer, comparison.other(transform), from, request_data, as_of);
        comparison.offer(transform, inputs, &outputs, step.other_inputs.as_ref().map(other));
    }
    match outputs.failed().first() {
        Some(failed) if step.is_fatal() => {
            transform.count_failed(&outputs);
            Err(failure(step, failed))
        }
        _ => Ok(Derived::Outputs(outputs)),
    }
}

/// Fills the inputs of a version of a plugin. `from` has the origins of its inputs, in its order.
fn fill_inputs(
    answer: &Answer<'_>,
    transform: &Transform,
    from: &[StepInput],
    request_data: &Frame,
    as_of: &AsOf,
) -> Inputs {
    let mut inputs = transform.input_batch(as_of.clone(), answer.rows);
    let mut lossy = Vec::new();
    for (position, input) in from.iter().enumerate() {
        let mut note = |row: usize| lossy.push((row, position));
        inputs.column(|column| match *input {
            StepInput::Feature(from) if matches!(transform.input_type(position), ValueType::Nested(_)) => {
                fill_nested(column, answer, from);
            }
            StepInput::Feature(from) => fill_feature(column, answer, from, transform.is_cast(position), &mut note),
            StepInput::Request(index) => column.append_cast(request_data.column(index), 0..answer.rows, &mut note),
            StepInput::Key(index, key_type) => {
                let values = index.map(|index| answer.entity_column(index));
                fill_key(column, values, key_type, answer.rows, &mut note);
            }
        });
    }
    let declared = &transform.component().signature().inputs;
    for (row, position) in lossy {
        let Field { name, column_type, .. } = &declared[position];
        inputs.reject(row, CallError::Cast { input: name.clone(), to: *column_type });
    }
    inputs.finish()
}

/// Handles a derived view whose plugin is not loaded.
fn no_plugin(step: &Step) -> Result<Derived, RequestError> {
    let (view, plugin) = (&step.view.name, &step.view.plugin);
    if step.is_fatal() {
        return Err(RequestError::NoPlugin { view: view.to_string(), plugin: plugin.to_string() });
    }
    if step.missing.is_due() {
        tracing::warn!(%view, %plugin, "a requested derived view has no plugin, so its features are INVALID");
    }
    Ok(Derived::NoPlugin)
}

fn failure(step: &Step, failed: &FailedRow) -> RequestError {
    let (view, plugin) = (step.view.name.to_string(), step.view.plugin.to_string());
    let (why, details) = (failed.error.for_client(), failed.error.to_string());
    RequestError::Plugin { view, plugin, row: failed.row, why, details }
}

/// Appends a feature's values in all rows. The value is null in rows without a value. Passes rows with values that would
/// change to `lossy`.
fn fill_feature(
    column: &mut ColumnWriter<'_>,
    answer: &Answer<'_>,
    from: ColumnFrom,
    is_cast: bool,
    lossy: &mut impl FnMut(usize),
) {
    let mut values = answer.cells(from).map(|cell| cell.value);
    if let Some(output) = answer.output(from) {
        // Copies the other plugin's outputs, because the values of a response have no null items. Rows that failed have
        // the other view's fallback.
        let mut start = 0;
        for FailedRow { row, .. } in answer.failed_rows(from) {
            column.append_cast(output.column(), start..*row, &mut *lossy);
            column.extend_cast(values.nth(*row - start).into_iter(), |_| lossy(*row));
            start = row + 1;
        }
        column.append_cast(output.column(), start..answer.rows, lossy);
    } else if is_cast {
        column.extend_cast(values, lossy);
    } else {
        column.extend(values);
    }
}

/// Appends the JSON text of a feature of a nested type in all rows.
fn fill_nested(column: &mut ColumnWriter<'_>, answer: &Answer<'_>, from: ColumnFrom) {
    for cell in answer.cells(from) {
        let text = if let ValueRef::Bytes(bytes) = cell.value { nested_json(bytes) } else { None };
        column.push(text.as_ref().map_or(ValueRef::Null, |text| ValueRef::Bytes(text.as_bytes())));
    }
}

fn fill_key(
    column: &mut ColumnWriter<'_>,
    values: Option<&[EchoedValue<'_>]>,
    key_type: ScalarType,
    rows: usize,
    lossy: &mut impl FnMut(usize),
) {
    for row in 0..rows {
        match values.map_or(Some(ValueRef::Null), |values| keys::key_as_value(&values[row], key_type)) {
            Some(value) => column.extend_cast([value].into_iter(), |_| lossy(row)),
            None => {
                lossy(row);
                column.push(ValueRef::Null);
            }
        }
    }
}

/// Appends the caller's values for an input, converted to the column's type:
///
/// * An integer type accepts whole numbers within its range.
/// * A floating-point type accepts numbers within its range, and rounds them to the nearest value.
/// * A timestamp is a whole number of seconds since 1970. The smallest integer is null, as in responses.
/// * A bytes type accepts text, as UTF-8.
/// * `Uuid`, `TimeUuid`, `Decimal` and `Json` accept text that is such a value.
/// * A set becomes the list of the set as it would be stored: see [`stored_set`].
///
/// There are no other conversions. `value_type` is the declared type of the values.
///
/// # Errors
/// [`RequestError::BadRequestData`] for the first value that cannot be converted.
pub fn fill_typed(
    column: &mut ColumnWriter<'_>,
    name: &str,
    value_type: ValueType,
    values: &[EntityValue<'_>],
) -> Result<(), RequestError> {
    let ColumnType { scalar, is_list, nullable_items } = column.column_type();
    let text = match value_type {
        ValueType::Scalar(of) | ValueType::List(of) | ValueType::Set(of) if of.is_text() => of,
        _ => ScalarType::String,
    };
    // As in a stored set, a default value replaces a null in a set.
    let may_have_nulls = nullable_items || matches!(value_type, ValueType::Set(_));
    // Responses have this integer for a null time.
    let is_null_time = |value: &EntityValue<'_>| {
        scalar == ColumnScalar::Timestamp && *value == EntityValue::Int(NULL_TIMESTAMP_SECONDS)
    };
    let is_null = |value: &EntityValue<'_>| *value == EntityValue::Null || is_null_time(value);
    let sent = |value| sent(value, scalar).filter(|value| has_text_of(value, text));
    let mut wrong = None;
    let mut note = |row: usize, value| {
        wrong.get_or_insert((row, value));
        ValueRef::Null
    };
    if is_list {
        for (row, value) in values.iter().enumerate() {
            match value {
                value if is_null(value) => column.push(ValueRef::Null),
                EntityValue::List(items) => {
                    let items = items.iter().map(|item| match item {
                        item if may_have_nulls && is_null(item) => ValueRef::Null,
                        item => sent(item).unwrap_or_else(|| note(row, item)),
                    });
                    if let ValueType::Set(of) = value_type {
                        let items = stored_set(items.map(|item| item.to_value()).collect(), of);
                        column.push_list(items.iter().map(Value::as_item));
                    } else {
                        column.push_list(items);
                    }
                }
                value => column.push(note(row, value)),
            }
        }
    } else {
        column.extend(values.iter().enumerate().map(|(row, value)| match value {
            value if is_null(value) => ValueRef::Null,
            value => sent(value).unwrap_or_else(|| note(row, value)),
        }));
    }
    wrong.map_or(Ok(()), |(row, found)| {
        Err(RequestError::BadRequestData {
            name: name.to_owned(),
            row,
            declared: value_type.to_string(),
            found: found.describe(),
        })
    })
}

/// Returns a value of request data as its declared type, or an item of a list as the type of the items; null for a null, and
/// for a value that cannot be converted, with which a request fails.
#[must_use]
pub fn request_value<'v>(value: &'v EntityValue<'_>, scalar: ScalarType) -> ValueRef<'v> {
    let scalar = ColumnType::of(ValueType::Scalar(scalar)).scalar;
    if scalar == ColumnScalar::Timestamp && *value == EntityValue::Int(NULL_TIMESTAMP_SECONDS) {
        return ValueRef::Null;
    }
    sent(value, scalar).unwrap_or(ValueRef::Null)
}

/// Returns whether a text is a value of this type. Returns true for values that are not text.
fn has_text_of(value: &ValueRef<'_>, wanted: ScalarType) -> bool {
    match value {
        ValueRef::Bytes(text) if wanted != ScalarType::String => {
            std::str::from_utf8(text).is_ok_and(|text| is_text_of(text, wanted))
        }
        _ => true,
    }
}

/// Converts a value of the caller to the type. Returns `None` if that is not possible.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "the nearest double, or checked")]
fn sent<'v>(value: &'v EntityValue<'_>, scalar: ColumnScalar) -> Option<ValueRef<'v>> {
    /// 2^63, the smallest double that is greater than all 64-bit integers.
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
        // Timestamps are whole seconds, as in responses.
        (ColumnScalar::Timestamp, _) => whole()?.checked_mul(1_000_000).map(ValueRef::Int64),
        (ColumnScalar::Utf8 | ColumnScalar::Binary, EntityValue::Text(text)) => Some(ValueRef::Bytes(text.as_bytes())),
        _ => None,
    }
}
