//! Parses JSON to cells, with exact integers and names in their order.
//!
//! `serde_json` returns integers beyond 64 bits, and `-0`, as doubles. Such a double ends the parse with an error, and
//! so does a number beyond the range of doubles. The text is then parsed again on a slow path that reads each number as
//! it is written. On this path, [`Cell::from_python_json`] accepts numbers beyond the range of doubles.

use std::{fmt, num::ParseFloatError};

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Cell;
use crate::codec::ROW_BYTES_MAX;

/// The depth limit of `serde_json`.
const DEPTH_MAX: usize = 127;
/// The smallest magnitude of a double that may be an integer beyond `i64`.
const INT_EDGE: f64 = 9_223_372_036_854_775_808.0;

/// The meaning of a number beyond the range of doubles.
#[derive(Clone, Copy)]
enum Overflow {
    Error,
    Infinity,
}

struct CellVisitor;

/// The entries of an object, in order. The values are not parsed yet.
struct RawEntries<'a>(Vec<(String, &'a RawValue)>);

struct RawEntriesVisitor;

/// Returns whether `serde_json` may have read this double from the text of an integer. The text must then be parsed
/// again.
#[must_use]
pub fn may_be_integer(value: f64) -> bool {
    value.abs() >= INT_EDGE || (value == 0.0 && value.is_sign_negative())
}

impl Cell {
    /// Parses JSON text.
    ///
    /// # Errors
    /// If the text is not valid JSON, is nested too deeply, has a number beyond the range of doubles, or has more than
    /// [`ROW_BYTES_MAX`] bytes.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        parse(text, Overflow::Error)
    }

    /// Parses JSON text as Python's `json` does: a number beyond the range of doubles, such as `1e999`, is an
    /// infinity. Integers of any size stay exact.
    ///
    /// # Errors
    /// If the text is not valid JSON, is nested too deeply, or has more than [`ROW_BYTES_MAX`] bytes.
    pub fn from_python_json(text: &str) -> Result<Self, serde_json::Error> {
        parse(text, Overflow::Infinity)
    }
}

fn parse(text: &str, overflow: Overflow) -> Result<Cell, serde_json::Error> {
    // Parsed values take many times the memory of their text.
    if text.len() > ROW_BYTES_MAX {
        return Err(serde_json::Error::custom(format!("it has more than {ROW_BYTES_MAX} bytes")));
    }
    serde_json::from_str(text).or_else(|_| exact(text, overflow, 0))
}

fn exact(text: &str, overflow: Overflow, depth: usize) -> Result<Cell, serde_json::Error> {
    if depth > DEPTH_MAX {
        return Err(serde_json::Error::custom("recursion limit exceeded"));
    }
    let text = text.trim();
    match text.as_bytes().first() {
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text)?;
            let items = items.into_iter().map(|item| exact(item.get(), overflow, depth + 1));
            Ok(Cell::List(items.collect::<Result<_, _>>()?))
        }
        Some(b'{') => {
            let RawEntries(entries) = serde_json::from_str(text)?;
            let entries = entries.into_iter().map(|(name, value)| Ok((name, exact(value.get(), overflow, depth + 1)?)));
            Ok(Cell::map(entries.collect::<Result<_, serde_json::Error>>()?))
        }
        Some(b'-' | b'0'..=b'9') => {
            // The parser checks the format of the number.
            let value = serde_json::from_str(text).or_else(|error| match overflow {
                // Only the range can be wrong in a valid JSON number.
                Overflow::Infinity if serde_json::from_str::<IgnoredAny>(text).is_ok() => {
                    text.parse().map_err(|_: ParseFloatError| error)
                }
                _ => Err(error),
            })?;
            if text.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
                return Ok(Cell::Float(value));
            }
            Ok(text.parse().map_or_else(|_| Cell::Number(text.to_owned()), Cell::Int))
        }
        _ => serde_json::from_str(text),
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CellVisitor)
    }
}

impl<'de> Visitor<'de> for CellVisitor {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Cell, E> {
        Ok(Cell::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Cell, E> {
        Ok(Cell::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Cell, E> {
        Ok(Cell::Int(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Cell, E> {
        Ok(i64::try_from(value).map_or_else(|_| Cell::Number(value.to_string()), Cell::Int))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Cell, E> {
        if may_be_integer(value) {
            Err(E::custom("a number that must be parsed exactly"))
        } else {
            Ok(Cell::Float(value))
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Cell, E> {
        Ok(Cell::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Cell, E> {
        Ok(Cell::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Cell, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Cell::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cell, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Cell::map(entries))
    }
}

impl<'de> Deserialize<'de> for RawEntries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawEntriesVisitor)
    }
}

impl<'de> Visitor<'de> for RawEntriesVisitor {
    type Value = RawEntries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawEntries<'de>, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(RawEntries(entries))
    }
}
