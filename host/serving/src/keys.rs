//! Converts entity values to keys with Feast's coercion rules.
//!
//! Feast calls Python's `int()` or `str()` on the caller's value, depending on the key's declared type (`type_map.py`,
//! `PYTHON_SCALAR_VALUE_TYPE_TO_PROTO_VALUE`). A column that is not a key gets the type of its first value that is not
//! null. The response repeats the coerced value. There are two differences from Feast: no row is found for a null, and
//! a number with a fraction is an error in an integer key, so 5.5 is not the key 5.

use std::borrow::Cow;

use larder_model::{
    codec::{
        KeyValue,
        python::{self, IntError},
    },
    model::{ScalarType, ValueRef},
};
use smallvec::SmallVec;

use super::{EntityValue, RequestError};

/// A value of an entity column, coerced to the column's type. The response repeats it.
#[derive(Clone, Debug, PartialEq)]
pub enum EchoedValue<'a> {
    /// Null: no row is found for it.
    Null,
    /// A whole number.
    Int(i64),
    /// A floating-point number; only in columns that are not keys.
    Float(f64),
    /// Text.
    Text(Cow<'a, str>),
    /// True or false; only in columns that are not keys.
    Bool(bool),
}

impl EchoedValue<'_> {
    /// Returns the value as a key of this type; null if it is not a key of the type, or a time that 64-bit microseconds
    /// cannot represent.
    #[must_use]
    pub fn as_key(&self, key_type: ScalarType) -> ValueRef<'_> {
        key_as_value(self, key_type).unwrap_or(ValueRef::Null)
    }

    /// Returns the approximate memory of the value in bytes.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + if let Self::Text(text) = self { text.len() } else { 0 }
    }

    /// Returns a copy that owns its text.
    pub(super) fn to_static(&self) -> EchoedValue<'static> {
        match self {
            Self::Null => EchoedValue::Null,
            Self::Int(value) => EchoedValue::Int(*value),
            Self::Float(value) => EchoedValue::Float(*value),
            Self::Text(text) => EchoedValue::Text(Cow::Owned(text.to_string())),
            Self::Bool(value) => EchoedValue::Bool(*value),
        }
    }
}

/// The values of one entity column. A single value is stored inline, because most requests have one entity row.
pub(super) type EchoedColumn<'a> = SmallVec<[EchoedValue<'a>; 1]>;

/// Coerces a column to the type of its key. If the column is not a key, uses the type that Feast infers from the first
/// value that is not null.
pub(super) fn coerce<'a>(
    values: &'a [EntityValue<'a>],
    key_type: Option<ScalarType>,
) -> Result<EchoedColumn<'a>, RequestError> {
    let wanted = key_type.unwrap_or_else(|| inferred(values));
    let mut column = EchoedColumn::with_capacity(values.len());
    // A loop, because `collect` would move every `Result`, which is large because of its error type.
    for value in values {
        column.push(match value {
            EntityValue::Text(text) if wanted == ScalarType::String => EchoedValue::Text(Cow::Borrowed(text)),
            EntityValue::Int(value) if wanted == ScalarType::Int64 => EchoedValue::Int(*value),
            value => coerce_one(value, wanted, key_type.is_some())?,
        });
    }
    Ok(column)
}

/// Returns the key for a coerced value. Returns `None` for a null and for a value of another type, for which no row is
/// found. A column can be the key of several views with different types, and has the type of the first of these views.
pub(super) fn key_value<'a>(value: &'a EchoedValue<'a>, key_type: ScalarType) -> Option<KeyValue<'a>> {
    match (value, key_type) {
        (EchoedValue::Int(v), ScalarType::Int32) => i32::try_from(*v).ok().map(KeyValue::Int32),
        (EchoedValue::Int(v), ScalarType::Int64) => Some(KeyValue::Int64(*v)),
        (EchoedValue::Int(v), ScalarType::UnixTimestamp) => Some(KeyValue::UnixTimestamp(*v)),
        (EchoedValue::Text(v), ScalarType::String) => Some(KeyValue::String(v)),
        (EchoedValue::Text(v), ScalarType::Bytes) => Some(KeyValue::Bytes(v.as_bytes())),
        (
            EchoedValue::Null
            | EchoedValue::Int(_)
            | EchoedValue::Text(_)
            | EchoedValue::Float(_)
            | EchoedValue::Bool(_),
            _,
        ) => None,
    }
}

/// Returns the value of a key as the input of a plugin; null if there is no key. Returns `None` for a time that is out of
/// range, because plugins receive times in microseconds.
pub(super) fn key_as_value<'a>(value: &'a EchoedValue<'a>, key_type: ScalarType) -> Option<ValueRef<'a>> {
    Some(match key_value(value, key_type) {
        None => ValueRef::Null,
        Some(KeyValue::Int32(value)) => ValueRef::Int32(value),
        Some(KeyValue::Int64(value)) => ValueRef::Int64(value),
        // As in Feast, timestamps in keys are whole seconds.
        Some(KeyValue::UnixTimestamp(value)) => ValueRef::Int64(value.checked_mul(1_000_000)?),
        Some(KeyValue::String(value)) => ValueRef::Bytes(value.as_bytes()),
        Some(KeyValue::Bytes(value)) => ValueRef::Bytes(value),
    })
}

/// Returns the type that Feast infers from the Python type of the first value that is not null.
fn inferred(values: &[EntityValue<'_>]) -> ScalarType {
    match values.iter().find(|value| **value != EntityValue::Null) {
        Some(EntityValue::Int(_) | EntityValue::Large(_)) => ScalarType::Int64,
        Some(EntityValue::Float(_)) => ScalarType::Float64,
        Some(EntityValue::Bool(_)) => ScalarType::Bool,
        _ => ScalarType::String,
    }
}

fn coerce_one<'a>(
    value: &'a EntityValue<'a>,
    wanted: ScalarType,
    is_key: bool,
) -> Result<EchoedValue<'a>, RequestError> {
    match value {
        EntityValue::Null => return Ok(EchoedValue::Null),
        EntityValue::List(_) | EntityValue::Nested => {
            return Err(RequestError::BadKey(
                "the value of an entity column must be a single value, not a list or a mapping".to_owned(),
            ));
        }
        _ => {}
    }
    Ok(match wanted {
        ScalarType::Int64 | ScalarType::UnixTimestamp => EchoedValue::Int(int(value, is_key)?),
        ScalarType::Int32 => {
            let wide = int(value, is_key)?;
            i32::try_from(wide).map_err(|_| out_of_range(wide))?;
            EchoedValue::Int(wide)
        }
        ScalarType::Float64 => EchoedValue::Float(float(value)?),
        ScalarType::Bool => EchoedValue::Bool(truth(value)),
        _ => EchoedValue::Text(text(value)),
    })
}

/// Converts a value like Python's `int(x)`, except that a key with a fraction is an error. The message is Python's for
/// the text of that number. A result beyond 64 bits is also an error.
fn int(value: &EntityValue<'_>, is_key: bool) -> Result<i64, RequestError> {
    match value {
        EntityValue::Int(v) => Ok(*v),
        EntityValue::Large(digits) => Err(out_of_range(digits)),
        EntityValue::Bool(v) => Ok(i64::from(*v)),
        EntityValue::Float(v) => {
            // 2^63 is the first double beyond `i64`.
            const EDGE: f64 = 9_223_372_036_854_775_808.0;
            let whole = v.trunc();
            if is_key && whole != *v {
                return Err(not_an_int(&python::float_text(*v)));
            }
            if !(-EDGE..EDGE).contains(&whole) {
                return Err(out_of_range(format!("{whole:.0}")));
            }
            #[expect(clippy::cast_possible_truncation, reason = "whole, and the range was checked")]
            Ok(whole as i64)
        }
        EntityValue::Text(text) => python::int(text).map_err(|error| match error {
            IntError::Literal => not_an_int(text),
            IntError::Range => out_of_range(text.trim().trim_start_matches('+').replace('_', "")),
        }),
        EntityValue::Null | EntityValue::List(_) | EntityValue::Nested => Err(not_an_int("")),
    }
}

/// Converts a value like Python's `str(x)`.
fn text<'a>(value: &'a EntityValue<'a>) -> Cow<'a, str> {
    match value {
        EntityValue::Text(text) => Cow::Borrowed(text),
        EntityValue::Int(v) => v.to_string().into(),
        EntityValue::Large(digits) => Cow::Borrowed(digits),
        EntityValue::Float(v) => python::float_text(*v).into(),
        EntityValue::Bool(true) => "True".into(),
        EntityValue::Bool(false) => "False".into(),
        EntityValue::Null | EntityValue::List(_) | EntityValue::Nested => "".into(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "as Python's float() does")]
fn float(value: &EntityValue<'_>) -> Result<f64, RequestError> {
    let of_text = |text: &str| {
        let wrong = || RequestError::BadKey(format!("could not convert string to float: '{text}'"));
        python::float(text).ok_or_else(wrong)
    };
    match value {
        EntityValue::Float(v) => Ok(*v),
        EntityValue::Int(v) => Ok(*v as f64),
        EntityValue::Bool(v) => Ok(f64::from(u8::from(*v))),
        EntityValue::Large(text) => of_text(text),
        EntityValue::Text(text) => of_text(text),
        EntityValue::Null | EntityValue::List(_) | EntityValue::Nested => of_text(""),
    }
}

fn truth(value: &EntityValue<'_>) -> bool {
    match value {
        EntityValue::Bool(v) => *v,
        EntityValue::Int(v) => *v != 0,
        EntityValue::Large(_) => true,
        EntityValue::Float(v) => *v != 0.0,
        EntityValue::Text(text) => !text.is_empty(),
        EntityValue::Null | EntityValue::List(_) | EntityValue::Nested => false,
    }
}

fn not_an_int(text: &str) -> RequestError {
    RequestError::BadKey(format!("invalid literal for int() with base 10: '{text}'"))
}

fn out_of_range(value: impl std::fmt::Display) -> RequestError {
    RequestError::BadKey(format!("Value out of range: {value}"))
}

#[cfg(test)]
mod tests {
    use larder_model::model::Value;

    use super::*;

    #[test]
    fn value_of_other_key_type_finds_no_row() {
        let [large, text] = [EchoedValue::Int(5_000_000_000), EchoedValue::Text("7".into())];
        assert_eq!(key_value(&large, ScalarType::Int64), Some(KeyValue::Int64(5_000_000_000)));
        // The value is out of range, so there is no key.
        assert_eq!(key_value(&large, ScalarType::Int32), None);
        assert_eq!(key_value(&large, ScalarType::String), None);
        assert_eq!(key_value(&text, ScalarType::Int64), None);
        assert_eq!(key_value(&text, ScalarType::String), Some(KeyValue::String("7")));
        assert_eq!(key_value(&EchoedValue::Null, ScalarType::Int64), None);
    }

    #[test]
    fn time_out_of_range_is_no_input() {
        let input = |seconds: i64| {
            let value = EchoedValue::Int(seconds);
            key_as_value(&value, ScalarType::UnixTimestamp).map(|value| value.to_value())
        };
        let seconds_max = i64::MAX / 1_000_000;
        assert_eq!(input(seconds_max), Some(Value::Int64(seconds_max * 1_000_000)));
        assert_eq!(input(seconds_max + 1), None);
        assert_eq!(input(-seconds_max - 2), None);
    }

    fn check(value: EntityValue<'_>, key_type: ScalarType, expected: Result<EchoedValue<'_>, &str>) {
        let values = [value];
        let coerced = coerce(&values, Some(key_type)).map(|mut values| values.remove(0)).map_err(|e| e.to_string());
        assert_eq!(coerced, expected.map_err(ToOwned::to_owned));
    }

    #[test]
    fn integers_convert_like_python_int() {
        use EntityValue::{Bool, Float, Int, Large, Null, Text};
        let int64 = |value, expected| check(value, ScalarType::Int64, Ok(EchoedValue::Int(expected)));
        int64(Int(1001), 1001);
        int64(Text("1001".into()), 1001);
        int64(Text(" +1_001 ".into()), 1001);
        int64(Text("-9223372036854775808".into()), i64::MIN);
        int64(Float(1002.0), 1002);
        int64(Bool(true), 1);

        let fails = |value, message| check(value, ScalarType::Int64, Err(message));
        fails(Text("abc".into()), "invalid literal for int() with base 10: 'abc'");
        fails(Text("1__0".into()), "invalid literal for int() with base 10: '1__0'");
        fails(Text("".into()), "invalid literal for int() with base 10: ''");
        fails(Text("1.5".into()), "invalid literal for int() with base 10: '1.5'");
        fails(Text("9223372036854775808".into()), "Value out of range: 9223372036854775808");
        fails(Float(5.5), "invalid literal for int() with base 10: '5.5'");
        fails(Large("9223372036854775808".into()), "Value out of range: 9223372036854775808");
        fails(Float(1e19), "Value out of range: 10000000000000000000");
        check(Null, ScalarType::Int64, Ok(EchoedValue::Null));
        check(Int(2_147_483_648), ScalarType::Int32, Err("Value out of range: 2147483648"));
    }

    #[test]
    fn strings_convert_like_python_str() {
        use EntityValue::{Bool, Float, Int, Large, Text};
        let string = |value, expected: &'static str| {
            check(value, ScalarType::String, Ok(EchoedValue::Text(expected.into())));
        };
        string(Text("a".into()), "a");
        string(Int(123), "123");
        string(Float(1.5), "1.5");
        string(Float(2.0), "2.0");
        string(Float(1e16), "1e+16");
        string(Float(1e-5), "1e-05");
        string(Large("18446744073709551617".into()), "18446744073709551617");
        string(Bool(true), "True");
    }

    #[test]
    fn echoed_column_gets_first_values_type() {
        use EntityValue::{Float, Int, Text};
        let values = [Int(1), Text("2".into())];
        assert_eq!(*coerce(&values, None).unwrap(), [EchoedValue::Int(1), EchoedValue::Int(2)]);
        let values = [Float(1.5), Int(2)];
        assert_eq!(*coerce(&values, None).unwrap(), [EchoedValue::Float(1.5), EchoedValue::Float(2.0)]);
    }
}
