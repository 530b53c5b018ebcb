//! Values from sources and callers before conversion: from JSON, Feast's messages, file columns and table attributes.
//! `coerce.rs` has the rules that convert a [`Cell`] to a feature's value.

mod json;

use std::collections::{HashMap, hash_map::Entry};

pub use self::json::may_be_integer;
use crate::model::{FeastMap, FeastValue, Kind, Micros, NULL_TIMESTAMP_SECONDS, ZonedTimestamp};

/// One value, with the type that it has in its source.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Null.
    Null,
    /// True or false.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A number as exact decimal text: an integer outside the range of `i64`, or a decimal.
    Number(String),
    /// A single-precision float. Its shortest text can differ from the shortest text of the same number as a double.
    Single(f32),
    /// A double.
    Float(f64),
    /// Text.
    Text(String),
    /// Raw bytes.
    Bytes(Vec<u8>),
    /// Microseconds since the Unix epoch.
    Instant(Micros),
    /// Values in order.
    List(Vec<Cell>),
    /// Values by name, in the source's order.
    Map(Vec<(String, Cell)>),
    /// An instant with its time zone.
    Zoned(ZonedTimestamp),
}

const MICROS: i64 = 1_000_000;
/// The maximum number of characters of a string that a message shows.
const SHOWN_CHARS_MAX: usize = 40;

// === impl Cell ===

impl Cell {
    /// Creates a mapping. As in Python, if a name occurs twice, the last value wins, at the position of the first.
    #[must_use]
    pub fn map(entries: Vec<(String, Self)>) -> Self {
        let mut positions: HashMap<String, usize> = HashMap::with_capacity(entries.len());
        let mut kept: Vec<(String, Self)> = Vec::with_capacity(entries.len());
        for (name, value) in entries {
            match positions.entry(name.clone()) {
                Entry::Occupied(position) => kept[*position.get()].1 = value,
                Entry::Vacant(position) => {
                    position.insert(kept.len());
                    kept.push((name, value));
                }
            }
        }
        Self::Map(kept)
    }

    /// Describes the value briefly, for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Number(text) => shortened(text),
            Self::Single(value) => format!("{value:?}"),
            Self::Float(value) => format!("{value:?}"),
            Self::Text(text) => format!("'{}'", shortened(text)),
            Self::Bytes(bytes) => format!("a value of {} bytes", bytes.len()),
            Self::Instant(_) | Self::Zoned(_) => "an instant".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a mapping".to_owned(),
        }
    }
}

fn shortened(text: &str) -> String {
    let start: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    let more = if start.len() < text.len() { "…" } else { "" };
    format!("{start}{more}")
}

impl From<FeastValue> for Cell {
    fn from(value: FeastValue) -> Self {
        fn list<T>(items: Vec<T>, cell: impl Fn(T) -> Cell) -> Cell {
            Cell::List(items.into_iter().map(cell).collect())
        }
        fn map(map: FeastMap) -> Cell {
            Cell::Map(map.val.into_iter().map(|(name, value)| (name, Cell::from(value))).collect())
        }
        // An instant beyond the range of microseconds stays a number of seconds, which `coerce.rs` rejects.
        let instant = |seconds: i64| match seconds {
            NULL_TIMESTAMP_SECONDS => Self::Instant(NULL_TIMESTAMP_SECONDS),
            seconds => seconds.checked_mul(MICROS).map_or(Self::Int(seconds), Self::Instant),
        };
        let Some(kind) = value.kind else { return Self::Null };
        match kind {
            Kind::Null(_) => Self::Null,
            Kind::Bytes(v) => Self::Bytes(v),
            Kind::String(v) | Kind::Json(v) | Kind::Uuid(v) | Kind::TimeUuid(v) | Kind::Decimal(v) => Self::Text(v),
            Kind::Int32(v) => Self::Int(v.into()),
            Kind::Int64(v) => Self::Int(v),
            Kind::Double(v) => Self::Float(v),
            Kind::Float(v) => Self::Single(v),
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
            Kind::FloatList(v) | Kind::FloatSet(v) => list(v.val, Self::Single),
            Kind::BoolList(v) | Kind::BoolSet(v) => list(v.val, Self::Bool),
            Kind::Map(v) | Kind::Struct(v) => map(v),
            Kind::MapList(v) | Kind::StructList(v) => list(v.val, map),
            Kind::List(v) | Kind::Set(v) => list(v.val, Self::from),
            Kind::ZonedTimestamp(v) => Self::Zoned(v),
        }
    }
}
