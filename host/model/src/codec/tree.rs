//! Converts cells to Feast's value messages: maps, structs, lists of lists and zoned timestamps.

use prost::Message as _;

use super::{Cell, ConversionError};
use crate::model::{
    BoolList, BytesList, DoubleList, FeastMap, FeastMapList, FeastValue, FloatList, Int64List, Kind, Micros,
    NULL_TIMESTAMP_SECONDS, NestedType, RepeatedValue, StringList, ValueType, ZonedTimestamp, parse_time,
};

const MICROS: i64 = 1_000_000;
/// The maximum nesting depth of a message. It is lower than the limit of the protobuf decoders of prost and of Feast,
/// which is 100 levels.
const DEPTH_MAX: usize = 97;

/// Encodes a cell of a nested type as the bytes of a [`FeastValue`].
///
/// # Errors
/// [`ConversionError`].
pub(super) fn encode(cell: &Cell, nested: NestedType) -> Result<Vec<u8>, ConversionError> {
    let depth = message_depth(cell);
    if depth > DEPTH_MAX {
        return Err(ConversionError::Unreadable(format!(
            "the value is nested too deeply: its message would have {depth} levels, but at most {DEPTH_MAX} can be read (a struct or a map is 3 of them, a list 2)"
        )));
    }
    Ok(FeastValue { kind: Some(kind(cell, nested)?) }.encode_to_vec())
}

/// Returns the nesting depth of a value's message.
fn message_depth(cell: &Cell) -> usize {
    match cell {
        Cell::List(items) => 2 + items.iter().map(message_depth).max().unwrap_or(0),
        Cell::Map(entries) => 3 + entries.iter().map(|(_, value)| message_depth(value)).max().unwrap_or(0),
        _ => 1,
    }
}

fn kind(cell: &Cell, nested: NestedType) -> Result<Kind, ConversionError> {
    let wrong = || ConversionError::of_type(cell, ValueType::Nested(nested));
    // Feast's remote client sends maps as JSON text.
    if let Cell::Text(text) = cell
        && nested != NestedType::ZonedTimestamp
    {
        let parsed = Cell::from_json(text)
            .map_err(|error| ConversionError::Json { found: cell.describe(), why: error.to_string() })?;
        let is_too_deep = message_depth(&parsed) > DEPTH_MAX;
        return if matches!(parsed, Cell::Text(_)) || is_too_deep { Err(wrong()) } else { kind(&parsed, nested) };
    }
    Ok(match (nested, cell) {
        (NestedType::Map, Cell::Map(entries)) => Kind::Map(map(entries)),
        (NestedType::Struct, Cell::Map(entries)) => Kind::Struct(map(entries)),
        (NestedType::MapList, Cell::List(items)) => Kind::MapList(maps(items).ok_or_else(wrong)?),
        (NestedType::StructList, Cell::List(items)) => Kind::StructList(maps(items).ok_or_else(wrong)?),
        (NestedType::ValueList, Cell::List(items)) => Kind::List(lists(items).ok_or_else(wrong)?),
        (NestedType::ValueSet, Cell::List(items)) => Kind::Set(lists(items).ok_or_else(wrong)?),
        (NestedType::ZonedTimestamp, Cell::Zoned(zoned)) => Kind::ZonedTimestamp(zoned.clone()),
        (NestedType::ZonedTimestamp, Cell::Text(text)) => match (parse_time(text), offset(text)) {
            (Some(micros), Some(zone)) => Kind::ZonedTimestamp(ZonedTimestamp {
                unix_timestamp: micros.div_euclid(MICROS),
                zone: zone.to_owned(),
            }),
            _ => return Err(wrong()),
        },
        _ => return Err(wrong()),
    })
}

fn map(entries: &[(String, Cell)]) -> FeastMap {
    FeastMap { val: entries.iter().map(|(name, value)| (name.clone(), inferred(value))).collect() }
}

/// Converts maps, each given as a mapping or as JSON text.
fn maps(items: &[Cell]) -> Option<FeastMapList> {
    let of = |item: &Cell| match item {
        Cell::Map(entries) => Some(map(entries)),
        Cell::Text(text) => match Cell::from_json(text) {
            Ok(Cell::Map(entries)) => Some(map(&entries)),
            _ => None,
        },
        _ => None,
    };
    Some(FeastMapList { val: items.iter().map(of).collect::<Option<_>>()? })
}

/// Converts a list of lists. As in Feast, an empty inner list becomes a null.
fn lists(items: &[Cell]) -> Option<RepeatedValue> {
    let of = |item: &Cell| match item {
        Cell::Null => Some(FeastValue { kind: None }),
        Cell::List(items) if items.is_empty() => Some(FeastValue { kind: None }),
        Cell::List(_) => Some(inferred(item)),
        _ => None,
    };
    Some(RepeatedValue { val: items.iter().map(of).collect::<Option<_>>()? })
}

/// Converts a value inside a nested value. The type is the one that Feast infers from the value.
fn inferred(cell: &Cell) -> FeastValue {
    let kind = match cell {
        Cell::Null => None,
        Cell::Bool(v) => Some(Kind::Bool(*v)),
        Cell::Int(v) => Some(Kind::Int64(*v)),
        Cell::Number(v) => Some(Kind::Decimal(v.clone())),
        Cell::Single(v) if v.is_nan() => None,
        Cell::Float(v) if v.is_nan() => None,
        Cell::Single(v) => Some(Kind::Float(*v)),
        Cell::Float(v) => Some(Kind::Double(*v)),
        Cell::Text(v) => Some(Kind::String(v.clone())),
        Cell::Bytes(v) => Some(Kind::Bytes(v.clone())),
        Cell::Instant(v) => Some(Kind::UnixTimestamp(seconds(*v))),
        Cell::Zoned(v) => Some(Kind::ZonedTimestamp(v.clone())),
        Cell::Map(entries) => Some(Kind::Map(map(entries))),
        Cell::List(items) => Some(inferred_list(items)),
    };
    FeastValue { kind }
}

/// Converts items to a typed list if all of them have the same type, and otherwise to a list of values of any types. If
/// all items are doubles, integers or nulls, and at least one is a double, integers become doubles, and nulls become
/// NaN.
fn inferred_list(items: &[Cell]) -> Kind {
    macro_rules! all {
        ($($shape:pat => $value:expr),+) => {
            items.iter().map(|item| match item { $($shape => Some($value),)+ _ => None }).collect::<Option<_>>()
        };
    }
    #[expect(clippy::cast_precision_loss, reason = "as numpy does with numbers of both kinds")]
    let doubles = || all!(Cell::Float(v) => *v, Cell::Int(v) => *v as f64, Cell::Null => f64::NAN);
    let has_float = items.iter().any(|item| matches!(item, Cell::Float(_)));
    if items.is_empty() {
        return Kind::List(RepeatedValue::default());
    }
    None.or_else(|| Some(Kind::Int64List(Int64List { val: all!(Cell::Int(v) => *v)? })))
        .or_else(|| has_float.then(|| Some(Kind::DoubleList(DoubleList { val: doubles()? }))).flatten())
        .or_else(|| Some(Kind::FloatList(FloatList { val: all!(Cell::Single(v) => *v)? })))
        .or_else(|| Some(Kind::StringList(StringList { val: all!(Cell::Text(v) => v.clone())? })))
        .or_else(|| Some(Kind::BoolList(BoolList { val: all!(Cell::Bool(v) => *v)? })))
        .or_else(|| Some(Kind::BytesList(BytesList { val: all!(Cell::Bytes(v) => v.clone())? })))
        .or_else(|| Some(Kind::UnixTimestampList(Int64List { val: all!(Cell::Instant(v) => seconds(*v))? })))
        .or_else(|| Some(Kind::MapList(maps_of(items)?)))
        .unwrap_or_else(|| Kind::List(RepeatedValue { val: items.iter().map(inferred).collect() }))
}

/// Converts a list of mappings. Returns `None` if an item is not a mapping.
fn maps_of(items: &[Cell]) -> Option<FeastMapList> {
    let of = |item: &Cell| if let Cell::Map(entries) = item { Some(map(entries)) } else { None };
    Some(FeastMapList { val: items.iter().map(of).collect::<Option<_>>()? })
}

/// Converts microseconds to whole seconds; the null placeholder is unchanged.
fn seconds(micros: Micros) -> i64 {
    if micros == NULL_TIMESTAMP_SECONDS { micros } else { micros.div_euclid(MICROS) }
}

/// Returns the offset at the end of an ISO 8601 time: `+02:00`, or `UTC` for `Z`.
fn offset(text: &str) -> Option<&str> {
    if text.ends_with(['Z', 'z']) {
        return Some("UTC");
    }
    let at = text.len().checked_sub("+00:00".len())?;
    let offset = text.get(at..)?;
    (offset.starts_with(['+', '-']) && offset.as_bytes()[3] == b':').then_some(offset)
}
