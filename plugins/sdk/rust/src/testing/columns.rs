//! Values to columns and back.

use super::{Row, Value};
use crate::{
    __private::types::{Column, Lists, ScalarType, Scalars, Values, VarBytes},
    Timestamp,
    input::type_name,
    run::FieldSpec,
};

/// The column of an input.
#[track_caller]
pub(super) fn write(field: &FieldSpec, rows: &[Row]) -> Column {
    let of = field.data_type;
    let slots: Vec<&Value> = rows.iter().map(|row| value(row, field.name)).collect();
    let wrong = |value: &Value| -> ! { panic!("input '{}' is {}, got {value:?}", field.name, type_name(of)) };
    let values = if of.is_list {
        let (mut ends, mut items) = (Vec::new(), Vec::new());
        for slot in &slots {
            match slot {
                Value::List(list) => items.extend(list),
                Value::Null => {}
                value => wrong(value),
            }
            ends.push(end(items.len()));
        }
        if let Some(null) = items.iter().find(|item| item.is_null()) {
            wrong(null);
        }
        Values::Lists(Lists { ends, items: scalars(of.scalar, &items).unwrap_or_else(|value| wrong(value)) })
    } else {
        Values::Scalars(scalars(of.scalar, &slots).unwrap_or_else(|value| wrong(value)))
    };
    let validity = slots.iter().any(|slot| slot.is_null()).then(|| {
        let mut bitmap = vec![0; slots.len().div_ceil(8)];
        let present = slots.iter().enumerate().filter(|(_, slot)| !slot.is_null());
        present.for_each(|(row, _)| bitmap[row / 8] |= 1 << (row % 8));
        bitmap
    });
    Column { values, validity }
}

/// The values of an output.
#[track_caller]
pub(super) fn read(column: &Column, rows: usize) -> Vec<Value> {
    let read = |row: usize| match &column.values {
        Values::Scalars(scalars) => item(scalars, row),
        Values::Lists(lists) => {
            let start = if row == 0 { 0 } else { lists.ends[row - 1] };
            Value::List((start..lists.ends[row]).map(|i| item(&lists.items, i as usize)).collect())
        }
    };
    let is_present = |row: usize| match &column.validity {
        Some(bitmap) => bitmap[row / 8] >> (row % 8) & 1 == 1,
        None => true,
    };
    (0..rows).map(|row| if is_present(row) { read(row) } else { Value::Null }).collect()
}

fn value<'r>(row: &'r Row, name: &str) -> &'r Value {
    row.iter().find(|(own, _)| *own == name).map_or(&Value::Null, |(_, value)| value)
}

/// Slots of one type, or the value that is of another. Nulls are zero.
fn scalars<'v>(of: ScalarType, values: &[&'v Value]) -> Result<Scalars, &'v Value> {
    Ok(match of {
        ScalarType::Bool => Scalars::Bools(all(values, |value| match value {
            Value::Bool(value) => Some(u8::from(*value)),
            _ => None,
        })?),
        ScalarType::Int32 => Scalars::Int32s(all(values, |value| match value {
            Value::Int(value) => i32::try_from(*value).ok(),
            _ => None,
        })?),
        ScalarType::Int64 => Scalars::Int64s(all(values, |value| match value {
            Value::Int(value) => Some(*value),
            _ => None,
        })?),
        ScalarType::Float32 => Scalars::Float32s(all(values, |value| number(value).map(|value| value as f32))?),
        ScalarType::Float64 => Scalars::Float64s(all(values, number)?),
        ScalarType::Timestamp => Scalars::Timestamps(all(values, |value| match value {
            Value::Time(Timestamp(micros)) => Some(*micros),
            _ => None,
        })?),
        ScalarType::Utf8 => Scalars::Strings(var(all(values, |value| match value {
            Value::Text(text) => Some(text.as_bytes().to_vec()),
            _ => None,
        })?)),
        ScalarType::Binary => Scalars::Binaries(var(all(values, |value| match value {
            Value::Bytes(bytes) => Some(bytes.clone()),
            _ => None,
        })?)),
    })
}

fn all<'v, T: Default>(values: &[&'v Value], read: impl Fn(&Value) -> Option<T>) -> Result<Vec<T>, &'v Value> {
    let read = |value: &&'v Value| if value.is_null() { Ok(T::default()) } else { read(value).ok_or(*value) };
    values.iter().map(read).collect()
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Float(value) => Some(*value),
        Value::Int(value) => Some(*value as f64),
        _ => None,
    }
}

fn var(slots: Vec<Vec<u8>>) -> VarBytes {
    let mut var = VarBytes { ends: Vec::new(), data: Vec::new() };
    for slot in slots {
        var.data.extend(slot);
        var.ends.push(end(var.data.len()));
    }
    var
}

fn item(scalars: &Scalars, i: usize) -> Value {
    let slot = |var: &VarBytes| {
        let start = if i == 0 { 0 } else { var.ends[i - 1] };
        var.data[start as usize..var.ends[i] as usize].to_vec()
    };
    match scalars {
        Scalars::Bools(values) => Value::Bool(values[i] != 0),
        Scalars::Int32s(values) => values[i].into(),
        Scalars::Int64s(values) => values[i].into(),
        Scalars::Float32s(values) => values[i].into(),
        Scalars::Float64s(values) => values[i].into(),
        Scalars::Strings(var) => Value::Text(String::from_utf8_lossy(&slot(var)).into_owned()),
        Scalars::Binaries(var) => Value::Bytes(slot(var)),
        Scalars::Timestamps(values) => Value::Time(Timestamp(values[i])),
    }
}

fn end(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
