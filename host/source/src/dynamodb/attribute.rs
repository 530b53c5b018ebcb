//! Converts an attribute's value to a part of a key, a time, or a cell that becomes a feature's value.

use aws_sdk_dynamodb::types::AttributeValue;
use larder_common::clock::parse_time;
use larder_model::{
    codec::{Cell, KeyPart},
    model::{Micros, ScalarType, ValueType},
};

use crate::ItemValue;

/// Returns the type of an attribute, for messages.
pub(super) fn kind_of(value: &AttributeValue) -> &'static str {
    match value {
        AttributeValue::S(_) => "a string",
        AttributeValue::N(_) => "a number",
        AttributeValue::B(_) => "binary",
        AttributeValue::Bool(_) => "a boolean",
        AttributeValue::Null(_) => "null",
        AttributeValue::L(_) => "a list",
        AttributeValue::M(_) => "a map",
        AttributeValue::Ss(_) => "a string set",
        AttributeValue::Ns(_) => "a number set",
        AttributeValue::Bs(_) => "a binary set",
        _ => "of an unknown type",
    }
}

/// Converts an attribute to a part of a key.
pub(super) fn key_part(value: &AttributeValue, value_type: ScalarType) -> Result<KeyPart, String> {
    match (value_type, value) {
        (ScalarType::String, AttributeValue::S(text)) => Ok(KeyPart::Text(text.clone())),
        (ScalarType::Bytes, AttributeValue::B(bytes)) => Ok(KeyPart::Bytes(bytes.as_ref().to_vec())),
        (ScalarType::Int64 | ScalarType::UnixTimestamp, AttributeValue::N(number)) => {
            number.parse().map(KeyPart::Number).map_err(|_| wrong_type(value, value_type))
        }
        (ScalarType::Int32, AttributeValue::N(number)) => number
            .parse::<i32>()
            .map(|number| KeyPart::Number(number.into()))
            .map_err(|_| wrong_type(value, value_type)),
        _ => Err(wrong_type(value, value_type)),
    }
}

/// Converts an attribute to a value of a feature of type `declared`. If that type is an instant, numbers are converted
/// to instants.
pub(super) fn value(value: &AttributeValue, declared: ValueType) -> ItemValue {
    let is_instant = matches!(declared, ValueType::Scalar(scalar) | ValueType::List(scalar) | ValueType::Set(scalar)
            if scalar == ScalarType::UnixTimestamp);
    cell(value, is_instant).map_or_else(ItemValue::Unreadable, ItemValue::Cell)
}

fn cell(value: &AttributeValue, is_instant: bool) -> Result<Cell, String> {
    fn list<T>(items: &[T], of: impl Fn(&T) -> Result<Cell, String>) -> Result<Cell, String> {
        Ok(Cell::List(items.iter().map(of).collect::<Result<_, _>>()?))
    }
    let number = |text: &String| {
        if is_instant {
            return instant_of(text).map(Cell::Instant);
        }
        // An integer, or a decimal of up to 38 digits.
        Ok(text.parse().map_or_else(|_| Cell::Number(text.clone()), Cell::Int))
    };
    Ok(match value {
        AttributeValue::Null(_) => Cell::Null,
        AttributeValue::Bool(value) => Cell::Bool(*value),
        AttributeValue::N(text) => number(text)?,
        AttributeValue::S(text) => Cell::Text(text.clone()),
        AttributeValue::B(bytes) => Cell::Bytes(bytes.as_ref().to_vec()),
        AttributeValue::L(items) => list(items, |item| cell(item, is_instant))?,
        AttributeValue::Ss(items) => list(items, |text| Ok(Cell::Text(text.clone())))?,
        AttributeValue::Ns(items) => list(items, number)?,
        AttributeValue::Bs(items) => list(items, |bytes| Ok(Cell::Bytes(bytes.as_ref().to_vec())))?,
        AttributeValue::M(entries) => {
            let entries = entries.iter().map(|(name, value)| Ok((name.clone(), cell(value, is_instant)?)));
            let mut entries = entries.collect::<Result<Vec<_>, String>>()?;
            // Sorted by name, because the entries of a map have no order.
            entries.sort_by(|(one, _), (other, _)| one.cmp(other));
            Cell::Map(entries)
        }
        other => return Err(format!("it is {}", kind_of(other))),
    })
}

/// Converts an attribute to an instant. The attribute is text, or a number of time units since 1970 ([`instant_of`]).
pub(super) fn instant(value: &AttributeValue) -> Result<Micros, String> {
    match value {
        AttributeValue::S(text) => {
            parse_time(text).map_or_else(|| instant_of(text).map_err(|_| format!("'{text}' is not a time")), Ok)
        }
        AttributeValue::N(number) => instant_of(number),
        other => Err(format!("{} is not a time", kind_of(other))),
    }
}

/// Converts a number of seconds, milliseconds, microseconds or nanoseconds since 1970 to an instant. The unit is the
/// one in which the number is a time before the year 2200. In units finer than seconds, only times at least 1e8 seconds
/// (about three years) away from 1970-01-01 are accepted, so that at most one unit matches.
fn instant_of(number: &str) -> Result<Micros, String> {
    /// Seconds in 230 years, rounded up.
    const SECONDS_END: f64 = 7.3e9;
    let implausible =
        || format!("'{number}' is not a time within 230 years of 1970 in any unit from seconds to nanoseconds");
    let count: f64 = number.parse().map_err(|_| format!("'{number}' is not a time"))?;
    let of = |per_second: f64| count.abs() < SECONDS_END * per_second && count.abs() >= 1e8 * per_second;
    let per_second: i64 = match count.abs() {
        seconds if seconds < SECONDS_END => 1,
        _ if of(1e3) => 1_000,
        _ if of(1e6) => 1_000_000,
        _ if of(1e9) => 1_000_000_000,
        _ => return Err(implausible()),
    };
    if let Ok(count) = number.parse::<i64>() {
        let micros = i128::from(count) * 1_000_000;
        return i64::try_from(micros.div_euclid(per_second.into())).map_err(|_| implausible());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "plausible times are far within")]
    Ok((count / per_second as f64 * 1e6).round() as Micros)
}

fn wrong_type(value: &AttributeValue, declared: ScalarType) -> String {
    let declared = ValueType::Scalar(declared);
    match value {
        AttributeValue::N(text) | AttributeValue::S(text) if text.len() <= 40 => {
            format!("it is {} ('{text}'), but the definition has {declared}", kind_of(value))
        }
        other => format!("it is {}, but the definition has {declared}", kind_of(other)),
    }
}

/// Returns the attribute that holds a part of a key.
pub(super) fn of_key_part(part: &KeyPart) -> AttributeValue {
    match part {
        KeyPart::Text(text) => AttributeValue::S(text.clone()),
        KeyPart::Bytes(bytes) => AttributeValue::B(bytes.clone().into()),
        KeyPart::Number(number) => AttributeValue::N(number.to_string()),
    }
}
