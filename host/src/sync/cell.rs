//! Values that callers write, loosely typed as JSON and protobuf have them, to the values of a row.
//!
//! The rules are Feast's, which calls Python's constructors (`type_map.py`): a number that stands in text counts where
//! a number is wanted, and a number where text is. What would lose something is refused: a fraction where a whole
//! number is wanted, a number that is out of range.

use std::collections::BTreeMap;

use larder_model::{
    codec::{KeyEncoder, KeyValue, RowBuilder},
    model::{
        BoolList, DoubleList, FeastMap, FeastMapList, FeastValue, Int64List, ItemType, Kind, NULL_TIMESTAMP_SECONDS,
        NestedType, RepeatedValue, ScalarType, StringList, Value, ValueRef, ValueType, ZonedTimestamp,
    },
};

use crate::clock::parse_time;

/// A value that a caller writes.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// No value.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// Raw bytes.
    Bytes(Vec<u8>),
    /// Microseconds since the epoch.
    Instant(i64),
    /// Values in order.
    List(Vec<Cell>),
    /// Values by name.
    Map(BTreeMap<String, Cell>),
    /// An instant with its zone.
    Zoned(ZonedTimestamp),
}

const MICROS: i64 = 1_000_000;

// === impl Cell ===

impl Cell {
    /// The event time, or the created time, of a row.
    ///
    /// # Errors
    /// What it is instead. Numbers are no instants here: nobody could tell seconds from milliseconds.
    pub(super) fn instant(&self) -> Result<Option<i64>, String> {
        match self {
            Self::Null => Ok(None),
            Self::Instant(micros) => Ok(Some(*micros)),
            Self::Text(text) => parse_time(text)
                .map(Some)
                .ok_or_else(|| format!("'{text}' is no time; write for example 2026-01-31T12:00:00Z")),
            other => Err(format!("{} is no time; write for example 2026-01-31T12:00:00Z", other.describe())),
        }
    }

    /// Adds the value to an entity key.
    ///
    /// # Errors
    /// What does not fit.
    pub(super) fn push_key(&self, key_type: ScalarType, key: &mut Vec<u8>) -> Result<(), String> {
        match scalar(self, key_type)? {
            Value::Int32(value) => KeyEncoder::push(key, KeyValue::Int32(value)),
            Value::Int64(value) if key_type == ScalarType::UnixTimestamp => {
                KeyEncoder::push(key, KeyValue::UnixTimestamp(value.div_euclid(MICROS)));
            }
            Value::Int64(value) => KeyEncoder::push(key, KeyValue::Int64(value)),
            Value::Bytes(bytes) if key_type == ScalarType::Bytes => KeyEncoder::push(key, KeyValue::Bytes(&bytes)),
            Value::Bytes(bytes) => KeyEncoder::push(key, KeyValue::String(&String::from_utf8_lossy(&bytes))),
            _ => return Err("the key is null".to_owned()),
        }
        Ok(())
    }

    /// Puts the value into a row's next field, which is of type `declared`.
    ///
    /// # Errors
    /// What does not fit.
    pub(super) fn push(&self, declared: ValueType, builder: &mut RowBuilder<'_>) -> Result<(), String> {
        let pushed = match (self, declared) {
            (Self::Null, _) => builder.push(ValueRef::Null),
            (cell, ValueType::Scalar(wanted)) => builder.push(borrowed(&scalar(cell, wanted)?)),
            (Self::List(cells), ValueType::List(item) | ValueType::Set(item)) => {
                let items = cells.iter().map(|cell| item_of(cell, item)).collect::<Result<Vec<_>, _>>()?;
                builder.push_list(&items.iter().map(borrowed).collect::<Vec<_>>())
            }
            (cell, ValueType::List(_) | ValueType::Set(_)) => {
                return Err(format!("{} is not {declared}", cell.describe()));
            }
            (cell, ValueType::Nested(nested)) => {
                let value = FeastValue { kind: Some(tree(cell, nested)?) };
                builder.push(ValueRef::Bytes(&prost::Message::encode_to_vec(&value)))
            }
        };
        pushed.map_err(|error| error.to_string())
    }

    /// What it is, in a few words.
    fn describe(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Float(value) => format!("{value:?}"),
            Self::Text(text) => {
                let start: String = text.chars().take(40).collect();
                format!("'{start}{}'", if start.len() < text.len() { "…" } else { "" })
            }
            Self::Bytes(bytes) => format!("a value of {} bytes", bytes.len()),
            Self::Instant(_) | Self::Zoned(_) => "an instant".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a mapping".to_owned(),
        }
    }
}

impl From<serde_json::Value> for Cell {
    fn from(value: serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match value {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(value),
            Json::Number(number) => {
                number.as_i64().map_or_else(|| Self::Float(number.as_f64().unwrap_or(f64::NAN)), Self::Int)
            }
            Json::String(text) => Self::Text(text),
            Json::Array(items) => Self::List(items.into_iter().map(Self::from).collect()),
            Json::Object(entries) => {
                Self::Map(entries.into_iter().map(|(name, value)| (name, Self::from(value))).collect())
            }
        }
    }
}

impl From<FeastValue> for Cell {
    fn from(value: FeastValue) -> Self {
        fn list<T>(items: Vec<T>, cell: impl Fn(T) -> Cell) -> Cell {
            Cell::List(items.into_iter().map(cell).collect())
        }
        fn map(map: FeastMap) -> Cell {
            Cell::Map(map.val.into_iter().map(|(name, value)| (name, Cell::from(value))).collect())
        }
        let instant = |seconds: i64| match seconds {
            NULL_TIMESTAMP_SECONDS => Self::Null,
            seconds => Self::Instant(seconds.saturating_mul(MICROS)),
        };
        let Some(kind) = value.kind else { return Self::Null };
        match kind {
            Kind::Null(_) => Self::Null,
            Kind::Bytes(v) => Self::Bytes(v),
            Kind::String(v) | Kind::Json(v) | Kind::Uuid(v) | Kind::TimeUuid(v) | Kind::Decimal(v) => Self::Text(v),
            Kind::Int32(v) => Self::Int(v.into()),
            Kind::Int64(v) => Self::Int(v),
            Kind::Double(v) => Self::Float(v),
            Kind::Float(v) => Self::Float(v.into()),
            Kind::Bool(v) => Self::Bool(v),
            Kind::UnixTimestamp(v) => instant(v),
            Kind::BytesList(v) | Kind::BytesSet(v) => list(v.val, Self::Bytes),
            Kind::StringList(v)
            | Kind::StringSet(v)
            | Kind::JsonList(v)
            | Kind::UuidList(v)
            | Kind::TimeUuidList(v)
            | Kind::UuidSet(v)
            | Kind::TimeUuidSet(v)
            | Kind::DecimalList(v)
            | Kind::DecimalSet(v) => list(v.val, Self::Text),
            Kind::Int32List(v) | Kind::Int32Set(v) => list(v.val, |v| Self::Int(v.into())),
            Kind::Int64List(v) | Kind::Int64Set(v) => list(v.val, Self::Int),
            Kind::UnixTimestampList(v) | Kind::UnixTimestampSet(v) => list(v.val, instant),
            Kind::DoubleList(v) | Kind::DoubleSet(v) => list(v.val, Self::Float),
            Kind::FloatList(v) | Kind::FloatSet(v) => list(v.val, |v| Self::Float(v.into())),
            Kind::BoolList(v) | Kind::BoolSet(v) => list(v.val, Self::Bool),
            Kind::Map(v) | Kind::Struct(v) => map(v),
            Kind::MapList(v) | Kind::StructList(v) => list(v.val, map),
            Kind::List(v) | Kind::Set(v) => list(v.val, Self::from),
            Kind::ZonedTimestamp(v) => Self::Zoned(v),
        }
    }
}

/// A value of a scalar type; null for a null.
fn scalar(cell: &Cell, wanted: ScalarType) -> Result<Value, String> {
    let misfit = || format!("{} is not {}", cell.describe(), ValueType::Scalar(wanted));
    Ok(match (wanted, cell) {
        (_, Cell::Null) => Value::Null,
        (ScalarType::Int64, _) => Value::Int64(whole(cell).ok_or_else(misfit)?),
        (ScalarType::Int32, _) => Value::Int32(whole(cell).and_then(|int| i32::try_from(int).ok()).ok_or_else(misfit)?),
        (ScalarType::Float64, _) => Value::Float64(double(cell).ok_or_else(misfit)?),
        #[expect(clippy::cast_possible_truncation, reason = "rounding is what a Float32 feature asks for, as in Feast")]
        (ScalarType::Float32, _) => Value::Float32(double(cell).ok_or_else(misfit)? as f32),
        (ScalarType::Bool, Cell::Bool(value)) => Value::Bool(*value),
        (ScalarType::Bool, Cell::Int(0 | 1)) => Value::Bool(*cell == Cell::Int(1)),
        (ScalarType::UnixTimestamp, Cell::Instant(micros)) => Value::Int64(*micros),
        (ScalarType::UnixTimestamp, Cell::Int(NULL_TIMESTAMP_SECONDS)) => Value::Null,
        // As it is served: whole seconds.
        (ScalarType::UnixTimestamp, Cell::Int(seconds)) => {
            Value::Int64(seconds.checked_mul(MICROS).ok_or_else(misfit)?)
        }
        (ScalarType::UnixTimestamp, Cell::Text(text)) => Value::Int64(parse_time(text).ok_or_else(misfit)?),
        (ScalarType::Json, Cell::Text(text)) => {
            let valid = serde_json::from_str::<serde::de::IgnoredAny>(text);
            valid.map_err(|error| format!("{} is no JSON: {error}", cell.describe()))?;
            Value::Bytes(text.clone().into_bytes())
        }
        (ScalarType::Json, Cell::Map(_) | Cell::List(_)) => Value::Bytes(json(cell).to_string().into_bytes()),
        (ScalarType::Bytes | ScalarType::PdfBytes | ScalarType::ImageBytes, Cell::Bytes(bytes)) => {
            Value::Bytes(bytes.clone())
        }
        // As they are served.
        (ScalarType::Bytes | ScalarType::PdfBytes | ScalarType::ImageBytes, Cell::Text(text)) => {
            use base64::{Engine, engine::general_purpose::STANDARD};
            Value::Bytes(STANDARD.decode(text).map_err(|_| format!("{} is no base64", cell.describe()))?)
        }
        (text, Cell::Text(value)) if text.is_text() => Value::Bytes(value.clone().into_bytes()),
        (text, Cell::Int(value)) if text.is_text() => Value::Bytes(value.to_string().into_bytes()),
        (text, Cell::Float(value)) if text.is_text() => Value::Bytes(format!("{value:?}").into_bytes()),
        (text, Cell::Bool(value)) if text.is_text() => {
            Value::Bytes(if *value { b"True".to_vec() } else { b"False".to_vec() })
        }
        _ => return Err(misfit()),
    })
}

/// An item of a list: as in Parquet, a null becomes the type's default (`type_map.py`, `_LIST_NONE_DEFAULTS`).
fn item_of(cell: &Cell, item: ScalarType) -> Result<Value, String> {
    Ok(match scalar(cell, item)? {
        Value::Null if item == ScalarType::UnixTimestamp => Value::Int64(NULL_TIMESTAMP_SECONDS),
        Value::Null => match item.item() {
            ItemType::Bool => Value::Bool(false),
            ItemType::Int32 => Value::Int32(0),
            ItemType::Int64 => Value::Int64(0),
            ItemType::Float32 => Value::Float32(0.0),
            ItemType::Float64 => Value::Float64(0.0),
            ItemType::Bytes => Value::Bytes(Vec::new()),
        },
        value => value,
    })
}

fn borrowed(value: &Value) -> ValueRef<'_> {
    match value {
        Value::Bool(v) => ValueRef::Bool(*v),
        Value::Int32(v) => ValueRef::Int32(*v),
        Value::Int64(v) => ValueRef::Int64(*v),
        Value::Float32(v) => ValueRef::Float32(*v),
        Value::Float64(v) => ValueRef::Float64(*v),
        Value::Bytes(v) => ValueRef::Bytes(v),
        Value::Null | Value::List(_) => ValueRef::Null,
    }
}

fn whole(cell: &Cell) -> Option<i64> {
    match cell {
        Cell::Int(value) => Some(*value),
        Cell::Bool(value) => Some(i64::from(*value)),
        Cell::Float(value) => {
            // 2^63 is the first double that is no i64. pandas has whole numbers as doubles where a null is among them.
            const EDGE: f64 = 9_223_372_036_854_775_808.0;
            #[expect(clippy::cast_possible_truncation, reason = "whole, and the range was checked")]
            (value.fract() == 0.0 && (-EDGE..EDGE).contains(value)).then_some(*value as i64)
        }
        Cell::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A double. Text stands for one where it is a number, or one of the words that answers have for those that JSON lacks.
#[expect(clippy::cast_precision_loss, reason = "as Python's float() does")]
fn double(cell: &Cell) -> Option<f64> {
    match cell {
        Cell::Float(value) => Some(*value),
        Cell::Int(value) => Some(*value as f64),
        Cell::Bool(value) => Some(f64::from(u8::from(*value))),
        Cell::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn tree(cell: &Cell, nested: NestedType) -> Result<Kind, String> {
    // Feast's remote client sends maps as JSON text.
    if let Cell::Text(text) = cell
        && nested != NestedType::ZonedTimestamp
    {
        let parsed: serde_json::Value =
            serde_json::from_str(text).map_err(|error| format!("{} is no JSON: {error}", cell.describe()))?;
        return match Cell::from(parsed) {
            Cell::Text(_) => Err(format!("{} is not {}", cell.describe(), ValueType::Nested(nested))),
            parsed => tree(&parsed, nested),
        };
    }
    let misfit = || Err(format!("{} is not {}", cell.describe(), ValueType::Nested(nested)));
    Ok(match (nested, cell) {
        (NestedType::Map, Cell::Map(_)) => Kind::Map(map(cell)?),
        (NestedType::Struct, Cell::Map(_)) => Kind::Struct(map(cell)?),
        (NestedType::MapList, Cell::List(items)) => Kind::MapList(maps(items)?),
        (NestedType::StructList, Cell::List(items)) => Kind::StructList(maps(items)?),
        (NestedType::ValueList, Cell::List(items)) => {
            Kind::List(RepeatedValue { val: items.iter().map(inferred).collect() })
        }
        (NestedType::ValueSet, Cell::List(items)) => {
            Kind::Set(RepeatedValue { val: items.iter().map(inferred).collect() })
        }
        (NestedType::ZonedTimestamp, Cell::Zoned(zoned)) => Kind::ZonedTimestamp(zoned.clone()),
        (NestedType::ZonedTimestamp, Cell::Text(text)) => match (parse_time(text), offset(text)) {
            (Some(micros), Some(zone)) => Kind::ZonedTimestamp(ZonedTimestamp {
                unix_timestamp: micros.div_euclid(MICROS),
                zone: zone.to_owned(),
            }),
            _ => return misfit(),
        },
        _ => return misfit(),
    })
}

fn map(cell: &Cell) -> Result<FeastMap, String> {
    match cell {
        Cell::Map(entries) => {
            Ok(FeastMap { val: entries.iter().map(|(name, value)| (name.clone(), inferred(value))).collect() })
        }
        Cell::Text(text) => match serde_json::from_str::<serde_json::Value>(text).map(Cell::from) {
            Ok(parsed @ Cell::Map(_)) => map(&parsed),
            _ => Err(format!("{} is no mapping", cell.describe())),
        },
        other => Err(format!("{} is no mapping", other.describe())),
    }
}

fn maps(items: &[Cell]) -> Result<FeastMapList, String> {
    Ok(FeastMapList { val: items.iter().map(map).collect::<Result<_, _>>()? })
}

/// A value inside a tree, of the type that its looks give it, as Feast infers it.
fn inferred(cell: &Cell) -> FeastValue {
    let kind = match cell {
        Cell::Null => None,
        Cell::Bool(v) => Some(Kind::Bool(*v)),
        Cell::Int(v) => Some(Kind::Int64(*v)),
        Cell::Float(v) => Some(Kind::Double(*v)),
        Cell::Text(v) => Some(Kind::String(v.clone())),
        Cell::Bytes(v) => Some(Kind::Bytes(v.clone())),
        Cell::Instant(v) => Some(Kind::UnixTimestamp(v.div_euclid(MICROS))),
        Cell::Zoned(v) => Some(Kind::ZonedTimestamp(v.clone())),
        Cell::Map(entries) => Some(Kind::Map(FeastMap {
            val: entries.iter().map(|(name, value)| (name.clone(), inferred(value))).collect(),
        })),
        Cell::List(items) => Some(inferred_list(items)),
    };
    FeastValue { kind }
}

/// A list of one type where its items are of one, else a list of any values.
fn inferred_list(items: &[Cell]) -> Kind {
    macro_rules! all {
        ($shape:ident) => {
            items
                .iter()
                .map(|item| if let Cell::$shape(v) = item { Some(v.clone()) } else { None })
                .collect::<Option<_>>()
        };
    }
    if items.is_empty() {
        return Kind::List(RepeatedValue::default());
    }
    None.or_else(|| Some(Kind::Int64List(Int64List { val: all!(Int)? })))
        .or_else(|| Some(Kind::DoubleList(DoubleList { val: all!(Float)? })))
        .or_else(|| Some(Kind::StringList(StringList { val: all!(Text)? })))
        .or_else(|| Some(Kind::BoolList(BoolList { val: all!(Bool)? })))
        .unwrap_or_else(|| Kind::List(RepeatedValue { val: items.iter().map(inferred).collect() }))
}

fn json(cell: &Cell) -> serde_json::Value {
    match cell {
        Cell::Bool(v) => (*v).into(),
        Cell::Int(v) => (*v).into(),
        Cell::Float(v) => (*v).into(),
        Cell::Text(v) => v.clone().into(),
        Cell::List(items) => items.iter().map(json).collect(),
        Cell::Map(entries) => entries.iter().map(|(name, value)| (name.clone(), json(value))).collect(),
        // None of these comes from JSON.
        Cell::Null | Cell::Bytes(_) | Cell::Instant(_) | Cell::Zoned(_) => serde_json::Value::Null,
    }
}

/// The offset at the end of an ISO time: `+02:00`, or UTC for `Z`.
fn offset(text: &str) -> Option<&str> {
    if text.ends_with(['Z', 'z']) {
        return Some("UTC");
    }
    let at = text.len().checked_sub("+00:00".len())?;
    let offset = text.get(at..)?;
    (offset.starts_with(['+', '-']) && offset.as_bytes()[3] == b':').then_some(offset)
}

#[cfg(test)]
mod tests;
