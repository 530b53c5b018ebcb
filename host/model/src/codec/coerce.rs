//! The conversion rules: converts a [`Cell`] from any source to a value of a declared type.
//!
//! The rules are the same as in Feast 0.67, which calls Python's constructors (`type_map.py`,
//! `PYTHON_SCALAR_VALUE_TYPE_TO_PROTO_VALUE`). Values that Feast would turn into infinity, split into characters, or
//! store as text that its own client cannot read are rejected here. `docs/src/reference/values.md` documents the rules
//! and the differences from Feast. `host/tests/feast/values.py` compares the results with those of Feast.
//!
//! The caller decides what happens with a rejected value. A write request with such a value fails. In a row from a
//! source, a rejected feature value becomes null and is counted.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    Cell, ConversionError, KeyEncoder, KeyValue, RowBuilder,
    python::{self, IntError},
    tree,
};
use crate::model::{ItemType, NULL_TIMESTAMP_SECONDS, ScalarType, Value, ValueType, parse_time};

/// Which losses of information a conversion accepts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// The losses of Feast's conversions: `int()` truncates a fraction, and a double is rounded to single precision.
    Feast,
    /// Fractions are rejected. This rule is for keys, because truncation would select another row, and for lists,
    /// because Feast rejects fractions in lists.
    Whole,
    /// No loss. This rule is for stored values of another type, which must stay the same number.
    Lossless,
}

const MICROS: i64 = 1_000_000;

// === impl Cell ===

impl Cell {
    /// Converts the cell to a value of a type. Returns null for a null cell. For a scalar type, also returns null for
    /// NaN, which represents null in pandas.
    ///
    /// # Errors
    /// [`ConversionError`].
    pub fn to_value(&self, declared: ValueType) -> Result<Value, ConversionError> {
        self.convert(declared, Rule::Feast, Rule::Whole)
    }

    /// Converts the cell to a value of a type without loss: a number must stay the same number. This is for values that
    /// were stored with another type.
    ///
    /// # Errors
    /// [`ConversionError`].
    pub fn to_value_lossless(&self, declared: ValueType) -> Result<Value, ConversionError> {
        self.convert(declared, Rule::Lossless, Rule::Lossless)
    }

    fn convert(&self, declared: ValueType, rule: Rule, rule_of_items: Rule) -> Result<Value, ConversionError> {
        match (self, declared) {
            (Self::Null, _) => Ok(Value::Null),
            (cell, ValueType::Scalar(wanted)) => scalar(cell, wanted, rule),
            (Self::List(cells), ValueType::List(item)) => Ok(Value::List(items(cells, item, rule_of_items)?)),
            (Self::List(cells), ValueType::Set(item)) => Ok(Value::List(set(items(cells, item, rule_of_items)?))),
            // Athena and Redshift export arrays as JSON text in bytes.
            (Self::Bytes(bytes), ValueType::List(_) | ValueType::Set(_)) => {
                match std::str::from_utf8(bytes).ok().and_then(|text| Self::from_json(text).ok()) {
                    Some(list @ Self::List(_)) => list.convert(declared, rule, rule_of_items),
                    _ => Err(ConversionError::of_type(self, declared)),
                }
            }
            (cell, ValueType::List(_) | ValueType::Set(_)) => Err(ConversionError::of_type(cell, declared)),
            (cell, ValueType::Nested(nested)) => Ok(Value::Bytes(tree::encode(cell, nested)?)),
        }
    }

    /// Converts the cell to a list item of a type. The result is never null; see [`null_item`]. `all_null` is whether
    /// all items of the list are null.
    ///
    /// # Errors
    /// [`ConversionError`].
    pub fn to_item(&self, item: ScalarType, all_null: bool) -> Result<Value, ConversionError> {
        one_item(self, item, all_null, Rule::Whole)
    }

    /// Converts the cell and appends it as the next field of a row. The field's type is `declared`.
    ///
    /// # Errors
    /// [`ConversionError`]. After [`ConversionError::Row`], the row must be discarded. After any other error, the row
    /// is unchanged, and another value can be pushed instead.
    pub fn push(&self, declared: ValueType, builder: &mut RowBuilder<'_>) -> Result<(), ConversionError> {
        Ok(builder.push_value(&self.to_value(declared)?)?)
    }

    /// Appends the cell as the next value of an entity key.
    ///
    /// If the key's type is `Bytes`, text is converted to its UTF-8 bytes and is not decoded as base64. Lookups do the
    /// same.
    ///
    /// # Errors
    /// [`ConversionError`].
    pub fn push_key(&self, key_type: ScalarType, key: &mut Vec<u8>) -> Result<(), ConversionError> {
        if let (ScalarType::Bytes, Self::Text(text)) = (key_type, self) {
            KeyEncoder::push(key, KeyValue::Bytes(text.as_bytes()));
            return Ok(());
        }
        let value = self.to_key(key_type)?;
        KeyEncoder::push(key, key_value(&value, key_type).ok_or(ConversionError::NullKey)?);
        Ok(())
    }

    /// Converts the cell to the value of a join key. A null stays null, and NaN becomes null.
    ///
    /// # Errors
    /// [`ConversionError`], for example if a fraction would have to be truncated.
    pub fn to_key(&self, key_type: ScalarType) -> Result<Value, ConversionError> {
        scalar(self, key_type, Rule::Whole)
    }
}

/// Converts the value of a join key for the [`KeyEncoder`]. Returns `None` for a null, and for a value that cannot be
/// part of a key.
#[must_use]
pub fn key_value(value: &Value, key_type: ScalarType) -> Option<KeyValue<'_>> {
    Some(match value {
        Value::Int32(value) => KeyValue::Int32(*value),
        Value::Int64(NULL_TIMESTAMP_SECONDS) if key_type == ScalarType::UnixTimestamp => return None,
        Value::Int64(value) if key_type == ScalarType::UnixTimestamp => {
            KeyValue::UnixTimestamp(value.div_euclid(MICROS))
        }
        Value::Int64(value) => KeyValue::Int64(*value),
        Value::Bytes(bytes) if key_type == ScalarType::Bytes => KeyValue::Bytes(bytes),
        // Values of text types are valid UTF-8.
        Value::Bytes(bytes) => KeyValue::String(std::str::from_utf8(bytes).ok()?),
        _ => return None,
    })
}

/// Converts a cell to a value of a scalar type.
fn scalar(cell: &Cell, wanted: ScalarType, rule: Rule) -> Result<Value, ConversionError> {
    let declared = ValueType::Scalar(wanted);
    let value = match (wanted, cell) {
        (_, Cell::Null) => Some(Value::Null),
        // pandas represents null as NaN.
        (_, Cell::Float(value)) if value.is_nan() => Some(Value::Null),
        (_, Cell::Single(value)) if value.is_nan() => Some(Value::Null),
        (ScalarType::Int64, _) => whole(cell, rule).map(Value::Int64),
        (ScalarType::Int32, _) => whole(cell, rule).and_then(|value| i32::try_from(value).ok()).map(Value::Int32),
        (ScalarType::Float64, _) => double(cell, rule).map(Value::Float64),
        (ScalarType::Float32, Cell::Single(value)) => Some(Value::Float32(*value)),
        (ScalarType::Float32, _) => {
            let keeps = |value: f64, single: &f32| rule != Rule::Lossless || f64::from(*single) == value;
            double(cell, rule).and_then(|value| single(value).filter(|single| keeps(value, single))).map(Value::Float32)
        }
        (ScalarType::Bool, Cell::Bool(value)) => Some(Value::Bool(*value)),
        (ScalarType::Bool, Cell::Int(value)) if rule != Rule::Lossless || (0..=1).contains(value) => {
            Some(Value::Bool(*value != 0))
        }
        (ScalarType::UnixTimestamp, _) => instant(cell, rule).map(Value::Int64),
        (ScalarType::Bytes | ScalarType::PdfBytes | ScalarType::ImageBytes, Cell::Bytes(bytes)) => {
            Some(Value::Bytes(bytes.clone()))
        }
        // Responses contain bytes as base64, so writes accept base64, too.
        (ScalarType::Bytes | ScalarType::PdfBytes | ScalarType::ImageBytes, Cell::Text(text))
            if rule != Rule::Lossless =>
        {
            let bytes = STANDARD.decode(text).map_err(|_| ConversionError::Base64 { found: cell.describe() })?;
            Some(Value::Bytes(bytes))
        }
        (ScalarType::String, _) => plain_text(cell).map(|text| Value::Bytes(text.into_bytes())),
        (ScalarType::Json, _) => json(cell)?.map(|text| Value::Bytes(text.into_bytes())),
        (ScalarType::Uuid | ScalarType::TimeUuid | ScalarType::Decimal, Cell::Text(text))
            if is_text_of(text, wanted) =>
        {
            text_value(text)
        }
        (ScalarType::Uuid | ScalarType::TimeUuid, Cell::Bytes(bytes)) => {
            uuid_text(bytes).map(|text| Value::Bytes(text.into_bytes()))
        }
        (ScalarType::Decimal, Cell::Number(text)) => text_value(text),
        (ScalarType::Decimal, Cell::Int(value)) => text_value(&value.to_string()),
        (ScalarType::Decimal, Cell::Float(value)) if value.is_finite() => text_value(&python::float_text(*value)),
        (ScalarType::Decimal, Cell::Single(value)) if value.is_finite() => text_value(&python::single_text(*value)),
        _ => None,
    };
    value.ok_or_else(|| ConversionError::of_type(cell, declared))
}

/// Converts the items of a list or a set. Null items are replaced: see [`null_item`].
fn items(cells: &[Cell], item: ScalarType, rule: Rule) -> Result<Vec<Value>, ConversionError> {
    let all_null = cells.iter().all(|cell| *cell == Cell::Null);
    cells.iter().map(|cell| one_item(cell, item, all_null, rule)).collect()
}

fn one_item(cell: &Cell, item: ScalarType, all_null: bool, rule: Rule) -> Result<Value, ConversionError> {
    match (item, cell) {
        (_, Cell::Null) => Ok(null_item(item, all_null)),
        // In a list of floats, NaN is a value and does not represent null.
        (ScalarType::Float32, Cell::Float(value)) if value.is_nan() => Ok(Value::Float32(f32::NAN)),
        (ScalarType::Float64, Cell::Float(value)) if value.is_nan() => Ok(Value::Float64(f64::NAN)),
        (ScalarType::Float32, Cell::Single(value)) => Ok(Value::Float32(*value)),
        (ScalarType::Float64, Cell::Single(value)) => Ok(Value::Float64(f64::from(*value))),
        _ => match scalar(cell, item, rule)? {
            Value::Null => Err(ConversionError::of_type(cell, ValueType::Scalar(item))),
            value => Ok(value),
        },
    }
}

/// Returns the replacement for a null in a list. It is the type's default (`type_map.py`, `_LIST_NONE_DEFAULTS`). In a
/// list of floats whose items are not all null, it is NaN, because numpy has no other null. `all_null` is whether all
/// items of the list are null.
#[must_use]
pub fn null_item(item: ScalarType, all_null: bool) -> Value {
    match (item, item.item()) {
        (ScalarType::UnixTimestamp, _) => Value::Int64(NULL_TIMESTAMP_SECONDS),
        (ScalarType::Json, _) => Value::Bytes(b"null".to_vec()),
        (_, ItemType::Bool) => Value::Bool(false),
        (_, ItemType::Int32) => Value::Int32(0),
        (_, ItemType::Int64) => Value::Int64(0),
        (_, ItemType::Float32) => Value::Float32(if all_null { 0.0 } else { f32::NAN }),
        (_, ItemType::Float64) => Value::Float64(if all_null { 0.0 } else { f64::NAN }),
        (_, ItemType::Bytes) => Value::Bytes(Vec::new()),
    }
}

/// Returns the items of a set as they are stored: nulls are replaced (see [`null_item`]), and the items are sorted and
/// deduplicated.
#[must_use]
pub fn stored_set(mut items: Vec<Value>, item: ScalarType) -> Vec<Value> {
    let all_null = items.iter().all(|value| *value == Value::Null);
    for null in items.iter_mut().filter(|value| **value == Value::Null) {
        *null = null_item(item, all_null);
    }
    set(items)
}

/// Sorts and deduplicates the items of a set, so that equal sets have equal bytes. 0.0 and -0.0 are duplicates, and the
/// first of them is kept.
#[must_use]
pub fn set(mut items: Vec<Value>) -> Vec<Value> {
    use std::cmp::Ordering;
    let order = |one: &Value, other: &Value| match (one, other) {
        (Value::Bool(one), Value::Bool(other)) => one.cmp(other),
        (Value::Int32(one), Value::Int32(other)) => one.cmp(other),
        (Value::Int64(one), Value::Int64(other)) => one.cmp(other),
        // 0.0 and -0.0 are equal, and NaN is the greatest value.
        (Value::Float32(one), Value::Float32(other)) => {
            one.partial_cmp(other).unwrap_or_else(|| one.is_nan().cmp(&other.is_nan()))
        }
        (Value::Float64(one), Value::Float64(other)) => {
            one.partial_cmp(other).unwrap_or_else(|| one.is_nan().cmp(&other.is_nan()))
        }
        (Value::Bytes(one), Value::Bytes(other)) => one.cmp(other),
        _ => Ordering::Equal,
    };
    items.sort_by(order);
    items.dedup_by(|later, first| order(first, later) == Ordering::Equal);
    items
}

/// Implements Python's `int(x)`.
fn whole(cell: &Cell, rule: Rule) -> Option<i64> {
    match cell {
        Cell::Int(value) => Some(*value),
        Cell::Bool(value) => Some(i64::from(*value)),
        Cell::Float(value) => whole_of_double(*value, rule),
        Cell::Single(value) => whole_of_double(f64::from(*value), rule),
        Cell::Number(text) => match python::whole_of_decimal(text) {
            Ok((value, was_cut)) => (!was_cut || rule == Rule::Feast).then_some(value),
            Err(IntError::Literal | IntError::Range) => None,
        },
        Cell::Text(text) => python::int(text).ok(),
        Cell::Bytes(bytes) => python::int(std::str::from_utf8(bytes).ok()?).ok(),
        _ => None,
    }
}

fn whole_of_double(value: f64, rule: Rule) -> Option<i64> {
    // 2^63 is the first double beyond `i64`.
    const EDGE: f64 = 9_223_372_036_854_775_808.0;
    let whole = value.trunc();
    let fits = (-EDGE..EDGE).contains(&whole) && (rule == Rule::Feast || whole == value);
    #[expect(clippy::cast_possible_truncation, reason = "whole, and the range was checked")]
    fits.then_some(whole as i64)
}

/// Implements Python's `float(x)`. Also returns `None` for a finite number that is out of the range of doubles.
#[expect(clippy::cast_precision_loss, reason = "as Python's float() does")]
fn double(cell: &Cell, rule: Rule) -> Option<f64> {
    // Doubles represent all integers up to this one exactly.
    const EXACT: u64 = 1 << 53;
    let of_text = |text: &str| {
        let value = python::float(text)?;
        // Accepts "inf", but not "1e400".
        (value.is_finite() || !text.bytes().any(|byte| byte.is_ascii_digit())).then_some(value)
    };
    match cell {
        Cell::Float(value) => Some(*value),
        Cell::Single(value) => Some(f64::from(*value)),
        Cell::Int(value) if rule == Rule::Lossless && value.unsigned_abs() > EXACT => None,
        Cell::Int(value) => Some(*value as f64),
        Cell::Bool(value) => Some(f64::from(u8::from(*value))),
        Cell::Number(text) | Cell::Text(text) => of_text(text),
        Cell::Bytes(bytes) => of_text(std::str::from_utf8(bytes).ok()?),
        _ => None,
    }
}

/// Rounds a double to single precision. Returns `None` for a finite number that is out of range.
#[must_use]
pub fn single(value: f64) -> Option<f32> {
    #[expect(clippy::cast_possible_truncation, reason = "values of Float32 features are rounded, as in Feast")]
    let rounded = value as f32;
    (rounded.is_finite() || !value.is_finite()).then_some(rounded)
}

/// Converts a cell to an instant in microseconds. Numbers are in seconds.
fn instant(cell: &Cell, rule: Rule) -> Option<i64> {
    let of_seconds = |seconds: i64| match seconds {
        NULL_TIMESTAMP_SECONDS => Some(NULL_TIMESTAMP_SECONDS),
        seconds => seconds.checked_mul(MICROS),
    };
    match cell {
        Cell::Instant(micros) => Some(*micros),
        Cell::Zoned(zoned) => of_seconds(zoned.unix_timestamp),
        // Feast treats every float as NaN here, so floats are rejected.
        Cell::Float(_) | Cell::Single(_) => None,
        Cell::Text(text) => match python::int(text) {
            Ok(seconds) => of_seconds(seconds),
            Err(_) => parse_time(text),
        },
        cell => of_seconds(whole(cell, rule)?),
    }
}

/// Implements Python's `str(x)`.
fn plain_text(cell: &Cell) -> Option<String> {
    Some(match cell {
        Cell::Text(text) | Cell::Number(text) => text.clone(),
        Cell::Int(value) => value.to_string(),
        Cell::Float(value) => python::float_text(*value),
        Cell::Single(value) => python::single_text(*value),
        Cell::Bool(true) => "True".to_owned(),
        Cell::Bool(false) => "False".to_owned(),
        Cell::Bytes(bytes) => python::bytes_text(bytes),
        _ => return None,
    })
}

/// Returns JSON text unchanged, and formats other values like Python's `json.dumps(x)`.
fn json(cell: &Cell) -> Result<Option<String>, ConversionError> {
    match cell {
        Cell::Text(text) => match check_json(text) {
            Ok(()) => Ok(Some(text.clone())),
            Err(error) => Err(ConversionError::Json { found: cell.describe(), why: error.to_string() }),
        },
        cell => Ok(python::json_text(cell)),
    }
}

fn check_json(text: &str) -> Result<(), serde_json::Error> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(|_| ())
}

/// Returns whether text is a valid value of a type that is stored as text.
#[must_use]
pub fn is_text_of(text: &str, wanted: ScalarType) -> bool {
    match wanted {
        ScalarType::String => true,
        ScalarType::Json => check_json(text).is_ok(),
        ScalarType::Uuid | ScalarType::TimeUuid => python::is_uuid(text),
        ScalarType::Decimal => python::is_decimal(text),
        _ => false,
    }
}

fn text_value(text: &str) -> Option<Value> {
    Some(Value::Bytes(text.as_bytes().to_vec()))
}

/// Formats the 16 bytes of a UUID as text; `None` for any other number of bytes.
#[must_use]
pub fn uuid_text(bytes: &[u8]) -> Option<String> {
    let bytes: &[u8; 16] = bytes.try_into().ok()?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

#[cfg(test)]
mod tests;
