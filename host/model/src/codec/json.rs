//! Appends values to a buffer, formatted as Feast's JSON.
//!
//! Numbers, strings and special values follow Feast 0.67 (`feature_server_utils.py`, `_value_to_native`): integers are
//! numbers of full precision, floats are widened to doubles and have the shortest digits, NaN and the infinities are
//! strings, bytes are base64, and instants are whole seconds. A null is `null`. Feast's placeholder for a null instant
//! occurs in timestamp columns of files and in Feast's stores. It is served as the smallest 64-bit integer.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::zone::zoned_text;
use crate::model::{
    FeastMap, FeastValue, Kind, ListRef, NULL_TIMESTAMP_SECONDS, ScalarType, ValueRef, ValueType, ZonedTimestamp,
};

/// Appends a value of a feature that has the type `value_type`.
pub fn value(out: &mut Vec<u8>, value: ValueRef<'_>, value_type: ValueType) {
    match (value, value_type) {
        (ValueRef::Null, _) => out.extend_from_slice(b"null"),
        (ValueRef::List(list), ValueType::List(item) | ValueType::Set(item)) => items(out, list, item),
        (ValueRef::Bytes(bytes), ValueType::Nested(_)) => nested(out, bytes),
        (value, ValueType::Scalar(scalar)) => one(out, value, scalar),
        // Unreachable: values in a row have the shape of their type.
        _ => out.extend_from_slice(b"null"),
    }
}

fn items(out: &mut Vec<u8>, list: ListRef<'_>, item: ScalarType) {
    out.push(b'[');
    for (i, value) in list.iter().enumerate() {
        separate(out, i);
        one(out, value, item);
    }
    out.push(b']');
}

fn one(out: &mut Vec<u8>, value: ValueRef<'_>, scalar: ScalarType) {
    match value {
        ValueRef::Bool(v) => boolean(out, v),
        ValueRef::Int32(v) => int(out, i64::from(v)),
        ValueRef::Int64(v) if scalar == ScalarType::UnixTimestamp => int(out, seconds(v)),
        ValueRef::Int64(v) => int(out, v),
        ValueRef::Float32(v) => float(out, f64::from(v)),
        ValueRef::Float64(v) => float(out, v),
        ValueRef::Bytes(v) if scalar.is_text() => text(out, &String::from_utf8_lossy(v)),
        ValueRef::Bytes(v) => base64(out, v),
        ValueRef::Null | ValueRef::List(_) => out.extend_from_slice(b"null"),
    }
}

/// Converts microseconds to whole seconds; the null placeholder is unchanged.
fn seconds(micros: i64) -> i64 {
    if micros == NULL_TIMESTAMP_SECONDS { micros } else { micros.div_euclid(1_000_000) }
}

fn nested(out: &mut Vec<u8>, bytes: &[u8]) {
    match <FeastValue as prost::Message>::decode(bytes) {
        Ok(value) => feast_value(out, &value),
        Err(_) => out.extend_from_slice(b"null"),
    }
}

/// Formats the bytes of a nested value as JSON; `None` if responses have null for it.
#[must_use]
pub fn nested_json(bytes: &[u8]) -> Option<String> {
    let mut out = Vec::new();
    nested(&mut out, bytes);
    String::from_utf8(out).ok().filter(|json| json != "null")
}

/// Appends a value inside a nested value.
fn feast_value(out: &mut Vec<u8>, value: &FeastValue) {
    let Some(kind) = &value.kind else { return out.extend_from_slice(b"null") };
    match kind {
        Kind::Null(_) => out.extend_from_slice(b"null"),
        Kind::Bytes(v) => base64(out, v),
        Kind::String(v) | Kind::Json(v) | Kind::Uuid(v) | Kind::TimeUuid(v) | Kind::Decimal(v) => text(out, v),
        Kind::Int32(v) => int(out, i64::from(*v)),
        Kind::Int64(v) | Kind::UnixTimestamp(v) => int(out, *v),
        Kind::Double(v) => float(out, *v),
        Kind::Float(v) => float(out, f64::from(*v)),
        Kind::Bool(v) => boolean(out, *v),
        Kind::BytesList(v) | Kind::BytesSet(v) => list(out, &v.val, |out, v| base64(out, v)),
        Kind::StringList(v)
        | Kind::StringSet(v)
        | Kind::JsonList(v)
        | Kind::UuidList(v)
        | Kind::TimeUuidList(v)
        | Kind::UuidSet(v)
        | Kind::TimeUuidSet(v)
        | Kind::DecimalList(v)
        | Kind::DecimalSet(v) => list(out, &v.val, |out, v| text(out, v)),
        Kind::Int32List(v) | Kind::Int32Set(v) => list(out, &v.val, |out, v| int(out, i64::from(*v))),
        Kind::Int64List(v) | Kind::Int64Set(v) | Kind::UnixTimestampList(v) | Kind::UnixTimestampSet(v) => {
            list(out, &v.val, |out, v| int(out, *v));
        }
        Kind::DoubleList(v) | Kind::DoubleSet(v) => list(out, &v.val, |out, v| float(out, *v)),
        Kind::FloatList(v) | Kind::FloatSet(v) => list(out, &v.val, |out, v| float(out, f64::from(*v))),
        Kind::BoolList(v) | Kind::BoolSet(v) => list(out, &v.val, |out, v| boolean(out, *v)),
        Kind::Map(v) | Kind::Struct(v) => map(out, v),
        Kind::MapList(v) | Kind::StructList(v) => list(out, &v.val, map),
        Kind::List(v) | Kind::Set(v) => list(out, &v.val, feast_value),
        Kind::ZonedTimestamp(v) => zoned(out, v),
    }
}

fn list<T>(out: &mut Vec<u8>, items: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (i, item) in items.iter().enumerate() {
        separate(out, i);
        write(out, item);
    }
    out.push(b']');
}

fn map(out: &mut Vec<u8>, map: &FeastMap) {
    out.push(b'{');
    for (i, (key, value)) in map.val.iter().enumerate() {
        separate(out, i);
        text(out, key);
        out.push(b':');
        feast_value(out, value);
    }
    out.push(b'}');
}

/// Appends ISO 8601 text in the value's own zone, or null if the instant is out of range. The placeholder for a null
/// instant is out of range, too.
fn zoned(out: &mut Vec<u8>, zoned: &ZonedTimestamp) {
    match zoned_text(zoned.unix_timestamp, &zoned.zone) {
        Some(iso) => text(out, &iso),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends a comma, except before the first item of a list.
pub fn separate(out: &mut Vec<u8>, i: usize) {
    if i > 0 {
        out.push(b',');
    }
}

/// Appends true or false.
pub fn boolean(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// Appends a whole number.
pub fn int(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a number; numbers that JSON cannot represent are strings.
pub fn float(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else if value.is_nan() {
        out.extend_from_slice(br#""NaN""#);
    } else if value > 0.0 {
        out.extend_from_slice(br#""Infinity""#);
    } else {
        out.extend_from_slice(br#""-Infinity""#);
    }
}

fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let start = out.len();
    // Base64 has four characters for every three bytes, rounded up.
    out.resize(start + bytes.len().div_ceil(3) * 4, b'=');
    // This never fails, because the space was just allocated.
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
    out.push(b'"');
}

/// Appends a string: raw UTF-8, except for characters that JSON must escape.
pub fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (i, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[copied..i]);
        copied = i + 1;
        match byte {
            b'"' => out.extend_from_slice(br#"\""#),
            b'\\' => out.extend_from_slice(br"\\"),
            b'\n' => out.extend_from_slice(br"\n"),
            b'\r' => out.extend_from_slice(br"\r"),
            b'\t' => out.extend_from_slice(br"\t"),
            0x08 => out.extend_from_slice(br"\b"),
            0x0c => out.extend_from_slice(br"\f"),
            other => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(br"\u00");
                out.push(HEX[usize::from(other >> 4)]);
                out.push(HEX[usize::from(other & 15)]);
            }
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}
