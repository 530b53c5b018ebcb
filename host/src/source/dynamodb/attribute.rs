//! An attribute's value as a feature's, where nothing is lost by it.

use aws_sdk_dynamodb::types::AttributeValue;
use larder_model::model::{
    BoolList, BytesList, DoubleList, FloatList, Int32List, Int64List, Kind, Micros, ScalarType, StringList, ValueType,
};

use super::item::KeyPart;
use crate::clock::parse_time;

/// What an attribute is, for messages.
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

/// A part of a key.
pub(super) fn key_part(value: &AttributeValue, value_type: ScalarType) -> Result<KeyPart, String> {
    match (value_type, value) {
        (ScalarType::String, AttributeValue::S(text)) => Ok(KeyPart::Text(text.clone())),
        (ScalarType::Bytes, AttributeValue::B(bytes)) => Ok(KeyPart::Bytes(bytes.as_ref().to_vec())),
        (ScalarType::Int64 | ScalarType::UnixTimestamp, AttributeValue::N(number)) => {
            number.parse().map(KeyPart::Number).map_err(|_| misfit(value, value_type))
        }
        (ScalarType::Int32, AttributeValue::N(number)) => {
            number.parse::<i32>().map(|number| KeyPart::Number(number.into())).map_err(|_| misfit(value, value_type))
        }
        _ => Err(misfit(value, value_type)),
    }
}

/// A value of a feature; nothing for a null.
pub(super) fn feast_value(value: &AttributeValue, declared: ValueType) -> Result<Option<Kind>, String> {
    if let AttributeValue::Null(_) = value {
        return Ok(None);
    }
    match declared {
        ValueType::Scalar(scalar) => scalar_of(value, scalar).map(Some),
        ValueType::List(item) => list_of(&items(value, declared)?, item).map(Some),
        ValueType::Set(item) => list_of(&items(value, declared)?, item).map(|kind| Some(into_set(kind))),
        ValueType::Nested(_) => Err(format!("it is {}, and {declared} has no form in this layout", kind_of(value))),
    }
}

/// An instant: text as people write it; or a number since 1970, of seconds, or of milliseconds or microseconds where it
/// is too large for those: seconds up to the year 5138 are below 100,000,000,000, and no event is from 1973 or before in
/// milliseconds.
pub(super) fn instant(value: &AttributeValue) -> Result<Micros, String> {
    const SECONDS_END: f64 = 1e11;
    const MILLIS_END: f64 = 1e14;
    match value {
        AttributeValue::S(text) => parse_time(text).ok_or_else(|| format!("'{text}' is no time")),
        AttributeValue::N(number) => {
            let count: f64 = number.parse().map_err(|_| format!("'{number}' is no time"))?;
            let factor = match count.abs() {
                count if count < SECONDS_END => 1e6,
                count if count < MILLIS_END => 1e3,
                _ => 1.0,
            };
            if let (1.0, Ok(micros)) = (factor, number.parse()) {
                return Ok(micros);
            }
            #[expect(clippy::cast_possible_truncation, reason = "microseconds of this millennium are far within")]
            Ok((count * factor).round() as Micros)
        }
        other => Err(format!("{} is no time", kind_of(other))),
    }
}

fn scalar_of(value: &AttributeValue, scalar: ScalarType) -> Result<Kind, String> {
    let no = || misfit(value, scalar);
    Ok(match (scalar, value) {
        (ScalarType::Bool, AttributeValue::Bool(v)) => Kind::Bool(*v),
        (ScalarType::Int32, AttributeValue::N(v) | AttributeValue::S(v)) => Kind::Int32(whole(v).ok_or_else(no)?),
        (ScalarType::Int64, AttributeValue::N(v) | AttributeValue::S(v)) => Kind::Int64(whole(v).ok_or_else(no)?),
        (ScalarType::Float32, AttributeValue::N(v) | AttributeValue::S(v)) => Kind::Float(v.parse().map_err(|_| no())?),
        (ScalarType::Float64, AttributeValue::N(v) | AttributeValue::S(v)) => {
            Kind::Double(v.parse().map_err(|_| no())?)
        }
        (ScalarType::UnixTimestamp, AttributeValue::N(_) | AttributeValue::S(_)) => {
            Kind::UnixTimestamp(instant(value)?.div_euclid(1_000_000))
        }
        (ScalarType::Decimal, AttributeValue::N(v) | AttributeValue::S(v)) => Kind::Decimal(v.clone()),
        (ScalarType::String, AttributeValue::S(v)) => Kind::String(v.clone()),
        (ScalarType::Json, AttributeValue::S(v)) => Kind::Json(v.clone()),
        (ScalarType::Uuid, AttributeValue::S(v)) => Kind::Uuid(v.clone()),
        (ScalarType::TimeUuid, AttributeValue::S(v)) => Kind::TimeUuid(v.clone()),
        (ScalarType::Bytes | ScalarType::PdfBytes | ScalarType::ImageBytes, AttributeValue::B(v)) => {
            Kind::Bytes(v.as_ref().to_vec())
        }
        _ => return Err(no()),
    })
}

/// A whole number; DynamoDB may write `1E+2` and tools write `3.0`.
fn whole<T: std::str::FromStr + TryFrom<i64>>(text: &str) -> Option<T> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    // Doubles count exactly up to here.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let number: f64 = text.parse().ok().filter(|number: &f64| number.fract() == 0.0 && number.abs() <= EXACT)?;
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and within")]
    T::try_from(number as i64).ok()
}

/// A list's items, or a set's.
fn items(value: &AttributeValue, declared: ValueType) -> Result<Vec<AttributeValue>, String> {
    Ok(match value {
        AttributeValue::L(items) => items.clone(),
        AttributeValue::Ss(items) => items.iter().cloned().map(AttributeValue::S).collect(),
        AttributeValue::Ns(items) => items.iter().cloned().map(AttributeValue::N).collect(),
        AttributeValue::Bs(items) => items.iter().cloned().map(AttributeValue::B).collect(),
        other => return Err(format!("it is {}, the definition says {declared}", kind_of(other))),
    })
}

fn list_of(items: &[AttributeValue], item: ScalarType) -> Result<Kind, String> {
    macro_rules! all {
        ($kind:ident) => {
            items
                .iter()
                .map(|value| match scalar_of(value, item)? {
                    Kind::$kind(v) => Ok(v),
                    _ => Err(misfit(value, item)),
                })
                .collect::<Result<Vec<_>, String>>()?
        };
    }
    Ok(match item {
        ScalarType::Bool => Kind::BoolList(BoolList { val: all!(Bool) }),
        ScalarType::Int32 => Kind::Int32List(Int32List { val: all!(Int32) }),
        ScalarType::Int64 => Kind::Int64List(Int64List { val: all!(Int64) }),
        ScalarType::Float32 => Kind::FloatList(FloatList { val: all!(Float) }),
        ScalarType::Float64 => Kind::DoubleList(DoubleList { val: all!(Double) }),
        ScalarType::UnixTimestamp => Kind::UnixTimestampList(Int64List { val: all!(UnixTimestamp) }),
        ScalarType::Decimal => Kind::DecimalList(StringList { val: all!(Decimal) }),
        ScalarType::String => Kind::StringList(StringList { val: all!(String) }),
        ScalarType::Json => Kind::JsonList(StringList { val: all!(Json) }),
        ScalarType::Uuid => Kind::UuidList(StringList { val: all!(Uuid) }),
        ScalarType::TimeUuid => Kind::TimeUuidList(StringList { val: all!(TimeUuid) }),
        ScalarType::Bytes | ScalarType::PdfBytes | ScalarType::ImageBytes => {
            Kind::BytesList(BytesList { val: all!(Bytes) })
        }
    })
}

/// Rows hold sets as lists; the codec takes either kind for a set.
fn into_set(kind: Kind) -> Kind {
    match kind {
        Kind::BoolList(l) => Kind::BoolSet(l),
        Kind::Int32List(l) => Kind::Int32Set(l),
        Kind::Int64List(l) => Kind::Int64Set(l),
        Kind::FloatList(l) => Kind::FloatSet(l),
        Kind::DoubleList(l) => Kind::DoubleSet(l),
        Kind::UnixTimestampList(l) => Kind::UnixTimestampSet(l),
        Kind::StringList(l) => Kind::StringSet(l),
        Kind::BytesList(l) => Kind::BytesSet(l),
        other => other,
    }
}

fn misfit(value: &AttributeValue, declared: ScalarType) -> String {
    let declared = ValueType::Scalar(declared);
    match value {
        AttributeValue::N(text) | AttributeValue::S(text) if text.len() <= 40 => {
            format!("it is {} ('{text}'), the definition says {declared}", kind_of(value))
        }
        other => format!("it is {}, the definition says {declared}", kind_of(other)),
    }
}
