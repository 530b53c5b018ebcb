//! Values as text for messages and reports, and the comparison of their bits.

use larder_model::model::{Value, ValueRef};

use super::{ColumnRef, ColumnScalar};

/// The maximum number of characters of a value in a message.
const SHOWN: usize = 60;

/// Returns whether two values have the same bits. Unlike `==`, this is true for equal NaNs, and false for 0.0 and -0.0.
pub(crate) fn same_bits(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Float32(one), Value::Float32(other)) => one.to_bits() == other.to_bits(),
        (Value::Float64(one), Value::Float64(other)) => one.to_bits() == other.to_bits(),
        (Value::List(one), Value::List(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same_bits(one, other))
        }
        (one, other) => one == other,
    }
}

/// Returns an input of a row as text for messages.
pub(crate) fn input_text(column: ColumnRef<'_>, row: usize) -> String {
    let scalar = column.column_type().scalar;
    let value = match (column.is_present(row), column.column_type().is_list) {
        (false, _) => Value::Null,
        (true, false) => column.values().get(row).to_value(),
        (true, true) => Value::List(column.items(row..row + 1).map(|item| column.item(item).to_value()).collect()),
    };
    shown(&value_text(&value, scalar))
}

/// Returns a value of a column of this type as text. Bytes are not shown, only their number.
pub(crate) fn value_text(value: &Value, scalar: ColumnScalar) -> String {
    match value {
        Value::List(items) => {
            let items: Vec<String> = items.iter().take(SHOWN).map(|item| value_text(item, scalar)).collect();
            format!("[{}]", items.join(", "))
        }
        value => match value.as_item() {
            ValueRef::Null | ValueRef::List(_) => "null".to_owned(),
            ValueRef::Bool(value) => value.to_string(),
            ValueRef::Int32(value) => value.to_string(),
            ValueRef::Int64(value) => value.to_string(),
            ValueRef::Float32(value) => format!("{value:?}"),
            ValueRef::Float64(value) => format!("{value:?}"),
            ValueRef::Bytes(bytes) if scalar == ColumnScalar::Utf8 => format!("{:?}", String::from_utf8_lossy(bytes)),
            ValueRef::Bytes(bytes) => format!("{} bytes", bytes.len()),
        },
    }
}

/// Truncates a text for a message.
pub(crate) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
