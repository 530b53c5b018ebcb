//! Converts values from a feature's previous type to its current type, if no information is lost.
//!
//! A definition may change the type of a feature while rows of the previous type are stored. [`Conversion::between`]
//! decides once for each pair of types whether a conversion exists. [`Conversion::apply`] decides for each value,
//! because some pairs lose information only for some values. For example, an `Int64` can become an `Int32` only if it
//! is in the range of `Int32`.
//!
//! | from | to | condition for a value |
//! |---|---|---|
//! | integers, floats | integers, floats | the same number |
//! | integers | `UnixTimestamp`, in seconds | within the range of microseconds |
//! | `UnixTimestamp` | integers, in seconds | whole seconds |
//! | integers, floats | text (`String`, `Json`, `Decimal`) | floats: finite |
//! | text | integers, floats | decimal text of exactly that number |
//! | `Bool` | integers, text | |
//! | integers | `Bool` | 0 or 1 |
//! | text | `Bool` | `true`, `True`, `false` or `False` |
//! | text, bytes | text, bytes | text: UTF-8, and text of the type: JSON, a decimal, a UUID |
//! | one value | list, set | its own conversion |
//! | list, set | one value | exactly one item |
//! | list, set | list, set | each item's own conversion; to a set: no item twice |
//! | map, list of maps | struct, list of structs, and back | |
//! | list of lists | set of lists, and back | set: no item twice |

use std::{collections::HashSet, sync::Arc};

use prost::Message as _;

use super::{RowSchema, coerce::is_text_of, python::float_text};
use crate::model::{FeastValue, Feature, Kind, NestedType, ScalarType, Value, ValueRef, ValueType};

/// A conversion from one type to another. It exists only if at least some values of the first type can be converted to
/// the second type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversion {
    from: ValueType,
    to: ValueType,
}

/// A feature whose type in stored rows differs from the type in its definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retyped {
    /// The feature's name.
    pub feature: Arc<str>,
    /// The type that stored rows have.
    pub stored: ValueType,
    /// The type in the definition.
    pub declared: ValueType,
    /// How stored values are converted. `None` if they cannot be converted; in these rows, the feature is then
    /// `NOT_FOUND`.
    pub conversion: Option<Conversion>,
}

/// Classes of scalar types. The class decides which conversions exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Int,
    Float,
    Instant,
    Bool,
    /// Text that can be a number: `String`, `Json`, `Decimal`.
    Text,
    /// Text that cannot be a number.
    Uuid,
    Bytes,
}

/// A scalar value, independent of its width.
enum Scalar<'v> {
    Int(i64),
    Float(f64),
    Bool(bool),
    Bytes(&'v [u8]),
}

const MICROS: i64 = 1_000_000;

/// Lists the features whose stored type differs from the declared type. `schemas` contains the schemas of the stored
/// rows, and the result has their order.
#[must_use]
pub fn retyped(features: &[Feature], schemas: &[Arc<RowSchema>]) -> Vec<Retyped> {
    let mut all: Vec<Retyped> = Vec::new();
    for (schema, feature) in schemas.iter().flat_map(|schema| features.iter().map(move |feature| (schema, feature))) {
        let Some((_, stored)) = schema.find(&feature.name).filter(|(_, stored)| *stored != feature.value_type) else {
            continue;
        };
        let (name, declared) = (Arc::clone(&feature.name), feature.value_type);
        let conversion = Conversion::between(stored, declared);
        let found = Retyped { feature: name, stored, declared, conversion };
        if !all.contains(&found) {
            all.push(found);
        }
    }
    all
}

// === impl Conversion ===

impl Conversion {
    /// Returns the conversion from one type to another; `None` if no value can be converted.
    #[must_use]
    pub fn between(from: ValueType, to: ValueType) -> Option<Self> {
        use ValueType::{List, Nested, Scalar, Set};
        let exists = match (from, to) {
            _ if from == to => true,
            (Scalar(a) | List(a) | Set(a), Scalar(b) | List(b) | Set(b)) => has_conversion(a, b),
            (Nested(a), Nested(b)) => tree_kind(a).is_some() && tree_kind(a) == tree_kind(b),
            _ => false,
        };
        exists.then_some(Self { from, to })
    }

    /// Returns whether both types are the same.
    #[must_use]
    pub fn is_identity(self) -> bool {
        self.from == self.to
    }

    /// Converts a value. Returns `None` if information would be lost. Null stays null.
    #[must_use]
    pub fn apply(self, value: ValueRef<'_>) -> Option<Value> {
        use ValueType::{List, Nested, Scalar, Set};
        match (self.from, self.to, value) {
            (_, _, ValueRef::Null) => Some(Value::Null),
            (from, to, value) if from == to => Some(value.to_value()),
            (Scalar(a), Scalar(b), value) => scalar(value, a, b),
            (Scalar(a), List(b) | Set(b), value) => Some(Value::List(vec![scalar(value, a, b)?])),
            (List(a) | Set(a), Scalar(b), ValueRef::List(list)) => {
                let mut items = list.iter();
                let only = items.next().filter(|_| items.next().is_none())?;
                scalar(only, a, b)
            }
            (List(a) | Set(a), List(b) | Set(b), ValueRef::List(list)) => {
                let items: Vec<Value> = list.iter().map(|item| scalar(item, a, b)).collect::<Option<_>>()?;
                let mut seen = HashSet::new();
                let is_set = !matches!(self.to, Set(_)) || items.iter().all(|item| seen.insert(format!("{item:?}")));
                is_set.then_some(Value::List(items))
            }
            (Nested(_), Nested(to), ValueRef::Bytes(bytes)) => tree(bytes, to),
            _ => None,
        }
    }
}

fn class(scalar: ScalarType) -> Class {
    match scalar {
        ScalarType::Int32 | ScalarType::Int64 => Class::Int,
        ScalarType::Float32 | ScalarType::Float64 => Class::Float,
        ScalarType::UnixTimestamp => Class::Instant,
        ScalarType::Bool => Class::Bool,
        ScalarType::String | ScalarType::Json | ScalarType::Decimal => Class::Text,
        ScalarType::Uuid | ScalarType::TimeUuid => Class::Uuid,
        ScalarType::Bytes | ScalarType::PdfBytes | ScalarType::ImageBytes => Class::Bytes,
    }
}

fn has_conversion(from: ScalarType, to: ScalarType) -> bool {
    use Class::{Bool, Bytes, Float, Instant, Int, Text, Uuid};
    matches!(
        (class(from), class(to)),
        (Int, Int | Float | Instant | Text | Bool)
            | (Float, Int | Float | Text)
            | (Instant, Int | Instant)
            | (Bool, Bool | Int | Text)
            | (Text, Int | Float | Bool | Text | Uuid | Bytes)
            | (Uuid, Text | Uuid | Bytes)
            | (Bytes, Text | Uuid | Bytes)
    )
}

/// Converts one value, or one item of a list.
fn scalar(value: ValueRef<'_>, from: ScalarType, to: ScalarType) -> Option<Value> {
    let value = match value {
        ValueRef::Int32(v) => Scalar::Int(i64::from(v)),
        ValueRef::Int64(v) if class(from) == Class::Instant && class(to) != Class::Instant => {
            Scalar::Int((v % MICROS == 0).then_some(v / MICROS)?)
        }
        ValueRef::Int64(v) => Scalar::Int(v),
        ValueRef::Float32(v) => Scalar::Float(f64::from(v)),
        ValueRef::Float64(v) => Scalar::Float(v),
        ValueRef::Bool(v) => Scalar::Bool(v),
        ValueRef::Bytes(v) => Scalar::Bytes(v),
        ValueRef::Null | ValueRef::List(_) => return None,
    };
    match to {
        ScalarType::Int64 => value.int().map(Value::Int64),
        ScalarType::Int32 => i32::try_from(value.int()?).ok().map(Value::Int32),
        ScalarType::UnixTimestamp if class(from) == Class::Instant => value.int().map(Value::Int64),
        ScalarType::UnixTimestamp => value.int()?.checked_mul(MICROS).map(Value::Int64),
        ScalarType::Float64 => value.float().map(Value::Float64),
        ScalarType::Float32 => value.single().map(Value::Float32),
        ScalarType::Bool => value.bool().map(Value::Bool),
        _ if to.is_text() => value.text(to).map(|text| Value::Bytes(text.into_bytes())),
        _ => match value {
            Scalar::Bytes(bytes) => Some(Value::Bytes(bytes.to_vec())),
            _ => None,
        },
    }
}

// === impl Scalar ===

#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "the result is compared")]
impl Scalar<'_> {
    fn int(&self) -> Option<i64> {
        match *self {
            Self::Int(v) => Some(v),
            // The cast to `i128` saturates, so doubles outside the range of `i64` are rejected.
            Self::Float(v) if v.is_finite() && v.trunc() == v => i64::try_from(v as i128).ok(),
            Self::Float(_) => None,
            Self::Bool(v) => Some(i64::from(v)),
            Self::Bytes(bytes) => {
                let text = std::str::from_utf8(bytes).ok()?;
                // Rejects text such as `007`, because leading zeros and plus signs would be lost.
                text.parse::<i64>().ok().filter(|v| v.to_string() == text)
            }
        }
    }

    fn float(&self) -> Option<f64> {
        match *self {
            Self::Int(v) => {
                let float = v as f64;
                (float as i128 == i128::from(v)).then_some(float)
            }
            Self::Float(v) => Some(v),
            Self::Bool(_) => None,
            Self::Bytes(bytes) => {
                let text = std::str::from_utf8(bytes).ok()?;
                let float: f64 = text.parse().ok().filter(|v: &f64| v.is_finite())?;
                (digits(text)? == digits(zmij::Buffer::new().format_finite(float))?).then_some(float)
            }
        }
    }

    fn single(&self) -> Option<f32> {
        let float = self.float()?;
        let single = float as f32;
        (float.is_nan() || f64::from(single) == float).then_some(single)
    }

    fn bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(v) => Some(v),
            Self::Int(0) | Self::Bytes(b"false" | b"False") => Some(false),
            Self::Int(1) | Self::Bytes(b"true" | b"True") => Some(true),
            _ => None,
        }
    }

    /// Formats the value like Python's `str`, except for booleans in JSON.
    fn text(&self, to: ScalarType) -> Option<String> {
        match *self {
            Self::Int(v) => Some(v.to_string()),
            Self::Float(v) => v.is_finite().then(|| float_text(v)),
            Self::Bool(v) if to == ScalarType::Json => Some(v.to_string()),
            Self::Bool(v) => Some(if v { "True" } else { "False" }.to_owned()),
            Self::Bytes(bytes) => {
                std::str::from_utf8(bytes).ok().filter(|text| is_text_of(text, to)).map(str::to_owned)
            }
        }
    }
}

/// Parses a decimal number into its sign, its digits without leading and trailing zeros, and the exponent of the last
/// digit. Returns `None` for any other text.
fn digits(text: &str) -> Option<(bool, String, i64)> {
    let (is_negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let significant = all.trim_end_matches('0');
    let exponent =
        exponent - i64::try_from(fraction.len()).ok()? + i64::try_from(all.len() - significant.len()).ok()?;
    let significant = significant.trim_start_matches('0');
    Some((is_negative, significant.to_owned(), if significant.is_empty() { 0 } else { exponent }))
}

/// Returns a number that two nested types share if they can be converted to each other, such as a map and a struct.
/// Returns `None` for types without conversions.
fn tree_kind(nested: NestedType) -> Option<u8> {
    match nested {
        NestedType::Map | NestedType::Struct => Some(0),
        NestedType::MapList | NestedType::StructList => Some(1),
        NestedType::ValueList | NestedType::ValueSet => Some(2),
        NestedType::ScalarMap | NestedType::ZonedTimestamp => None,
    }
}

fn tree(bytes: &[u8], to: NestedType) -> Option<Value> {
    let kind = match (FeastValue::decode(bytes).ok()?.kind?, to) {
        (Kind::Map(v) | Kind::Struct(v), NestedType::Map) => Kind::Map(v),
        (Kind::Map(v) | Kind::Struct(v), NestedType::Struct) => Kind::Struct(v),
        (Kind::MapList(v) | Kind::StructList(v), NestedType::MapList) => Kind::MapList(v),
        (Kind::MapList(v) | Kind::StructList(v), NestedType::StructList) => Kind::StructList(v),
        (Kind::List(v) | Kind::Set(v), NestedType::ValueList) => Kind::List(v),
        (Kind::List(v) | Kind::Set(v), NestedType::ValueSet) => {
            let mut seen = HashSet::new();
            v.val.iter().all(|item| seen.insert(item.encode_to_vec())).then_some(Kind::Set(v))?
        }
        _ => return None,
    };
    Some(Value::Bytes(FeastValue { kind: Some(kind) }.encode_to_vec()))
}

#[cfg(test)]
mod tests;
