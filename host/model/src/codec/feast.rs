//! Converts values of rows to Feast's own message and back. Feast uses this message in its online stores and in gRPC.
//!
//! A field of a row has one declared type. In contrast, Feast's message contains the type of each individual value, and
//! an online store may have values that were written before a type was changed. A value of the declared type is used
//! unchanged, and so is any nested value in a field of a nested type. A value of another type is converted by the rules
//! in `coerce.rs`, if nothing is lost.

use prost::Message as _;

use super::{Cell, ConversionError, RowBuilder, coerce::is_text_of};
use crate::model::{
    BoolList, BytesList, DoubleList, FeastValue, FloatList, Int32List, Int64List, Kind, ListRef,
    NULL_TIMESTAMP_SECONDS, ScalarType, StringList, ValueRef, ValueType,
};

const MICROS: i64 = 1_000_000;

/// Converts a Feast value and appends it as the next field of a row. The field's type is `declared`.
///
/// # Errors
/// [`ConversionError`]. After [`ConversionError::Row`], the row must be discarded. After any other error, the row is
/// unchanged, and another value can be pushed instead.
pub fn push_feast_value(
    builder: &mut RowBuilder<'_>,
    declared: ValueType,
    value: &FeastValue,
) -> Result<(), ConversionError> {
    let Some(kind) = value.kind.as_ref().filter(|kind| !matches!(kind, Kind::Null(_))) else {
        return Ok(builder.push(ValueRef::Null)?);
    };
    match declared {
        ValueType::Scalar(scalar) => {
            if let Some(value) = scalar_of(kind, scalar) {
                return Ok(builder.push(value)?);
            }
        }
        ValueType::List(item) | ValueType::Set(item) => {
            if is_set(kind) == matches!(declared, ValueType::Set(_))
                && let Some(items) = items_of(kind, item)
            {
                return Ok(builder.push_list(&items)?);
            }
        }
        ValueType::Nested(_) => match kind {
            Kind::Map(_)
            | Kind::MapList(_)
            | Kind::Struct(_)
            | Kind::StructList(_)
            | Kind::List(_)
            | Kind::Set(_)
            | Kind::ZonedTimestamp(_) => return Ok(builder.push(ValueRef::Bytes(&value.encode_to_vec()))?),
            _ => {}
        },
    }
    let value = Cell::from(value.clone()).to_value_lossless(declared)?;
    Ok(builder.push_value(&value)?)
}

/// Converts a value of a row to Feast's message. A null is a message without a kind.
#[must_use]
pub fn to_feast_value(value: ValueRef<'_>, value_type: ValueType) -> FeastValue {
    let kind = match (value, value_type) {
        (ValueRef::Bytes(bytes), ValueType::Nested(_)) => return FeastValue::decode(bytes).unwrap_or_default(),
        (value, ValueType::Scalar(scalar)) => kind_of_scalar(value, scalar),
        (ValueRef::List(list), ValueType::List(item)) => Some(kind_of_list(list, item)),
        (ValueRef::List(list), ValueType::Set(item)) => Some(into_set(kind_of_list(list, item))),
        // A null. No other combination occurs, because values in a row have the shape of their type.
        _ => None,
    };
    FeastValue { kind }
}

/// Returns the value if it has this type or a narrower type.
fn scalar_of(kind: &Kind, scalar: ScalarType) -> Option<ValueRef<'_>> {
    Some(match (scalar, kind) {
        (ScalarType::UnixTimestamp, Kind::UnixTimestamp(v)) => ValueRef::Int64(micros(*v)?),
        (ScalarType::Int64, Kind::Int64(v)) => ValueRef::Int64(*v),
        (ScalarType::Int64, Kind::Int32(v)) => ValueRef::Int64(i64::from(*v)),
        (ScalarType::Int32, Kind::Int32(v)) => ValueRef::Int32(*v),
        (ScalarType::Float64, Kind::Double(v)) => ValueRef::Float64(*v),
        (ScalarType::Float64, Kind::Float(v)) => ValueRef::Float64(f64::from(*v)),
        (ScalarType::Float64, Kind::Int32(v)) => ValueRef::Float64(f64::from(*v)),
        (ScalarType::Float32, Kind::Float(v)) => ValueRef::Float32(*v),
        (ScalarType::Bool, Kind::Bool(v)) => ValueRef::Bool(*v),
        (ScalarType::String, Kind::String(v)) => ValueRef::Bytes(v.as_bytes()),
        (ScalarType::Bytes | ScalarType::PdfBytes | ScalarType::ImageBytes, Kind::Bytes(v)) => ValueRef::Bytes(v),
        _ => return None,
    })
}

/// Returns the items if the value is a list or a set, and its items have this type or a narrower type.
fn items_of(kind: &Kind, item: ScalarType) -> Option<Vec<ValueRef<'_>>> {
    Some(match (item, kind) {
        (ScalarType::UnixTimestamp, Kind::UnixTimestampList(l) | Kind::UnixTimestampSet(l)) => {
            l.val.iter().map(|v| micros(*v).map(ValueRef::Int64)).collect::<Option<_>>()?
        }
        (ScalarType::Int64, Kind::Int64List(l) | Kind::Int64Set(l)) => {
            l.val.iter().map(|v| ValueRef::Int64(*v)).collect()
        }
        (ScalarType::Int64, Kind::Int32List(l) | Kind::Int32Set(l)) => {
            l.val.iter().map(|v| ValueRef::Int64(i64::from(*v))).collect()
        }
        (ScalarType::Int32, Kind::Int32List(l) | Kind::Int32Set(l)) => {
            l.val.iter().map(|v| ValueRef::Int32(*v)).collect()
        }
        (ScalarType::Float64, Kind::DoubleList(l) | Kind::DoubleSet(l)) => {
            l.val.iter().map(|v| ValueRef::Float64(*v)).collect()
        }
        (ScalarType::Float64, Kind::FloatList(l) | Kind::FloatSet(l)) => {
            l.val.iter().map(|v| ValueRef::Float64(f64::from(*v))).collect()
        }
        (ScalarType::Float32, Kind::FloatList(l) | Kind::FloatSet(l)) => {
            l.val.iter().map(|v| ValueRef::Float32(*v)).collect()
        }
        (ScalarType::Bool, Kind::BoolList(l) | Kind::BoolSet(l)) => l.val.iter().map(|v| ValueRef::Bool(*v)).collect(),
        (ScalarType::String, Kind::StringList(l) | Kind::StringSet(l))
        | (ScalarType::Json, Kind::JsonList(l))
        | (ScalarType::Uuid, Kind::UuidList(l) | Kind::UuidSet(l))
        | (ScalarType::TimeUuid, Kind::TimeUuidList(l) | Kind::TimeUuidSet(l))
        | (ScalarType::Decimal, Kind::DecimalList(l) | Kind::DecimalSet(l)) => {
            // Empty text represents a null.
            let is_valid = |text: &String| text.is_empty() || is_text_of(text, item);
            if !l.val.iter().all(is_valid) {
                return None;
            }
            l.val.iter().map(|v| ValueRef::Bytes(v.as_bytes())).collect()
        }
        (ScalarType::Bytes | ScalarType::PdfBytes | ScalarType::ImageBytes, Kind::BytesList(l) | Kind::BytesSet(l)) => {
            l.val.iter().map(|v| ValueRef::Bytes(v)).collect()
        }
        _ => return None,
    })
}

fn is_set(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::BytesSet(_)
            | Kind::StringSet(_)
            | Kind::Int32Set(_)
            | Kind::Int64Set(_)
            | Kind::DoubleSet(_)
            | Kind::FloatSet(_)
            | Kind::BoolSet(_)
            | Kind::UnixTimestampSet(_)
            | Kind::UuidSet(_)
            | Kind::TimeUuidSet(_)
            | Kind::DecimalSet(_)
    )
}

fn kind_of_scalar(value: ValueRef<'_>, scalar: ScalarType) -> Option<Kind> {
    Some(match value {
        ValueRef::Null | ValueRef::List(_) => return None,
        ValueRef::Bool(v) => Kind::Bool(v),
        ValueRef::Int32(v) => Kind::Int32(v),
        ValueRef::Int64(v) if scalar == ScalarType::UnixTimestamp => Kind::UnixTimestamp(seconds(v)),
        ValueRef::Int64(v) => Kind::Int64(v),
        ValueRef::Float32(v) => Kind::Float(v),
        ValueRef::Float64(v) => Kind::Double(v),
        ValueRef::Bytes(v) => match scalar {
            ScalarType::Json => Kind::Json(text(v)),
            ScalarType::Uuid => Kind::Uuid(text(v)),
            ScalarType::TimeUuid => Kind::TimeUuid(text(v)),
            ScalarType::Decimal => Kind::Decimal(text(v)),
            ScalarType::String => Kind::String(text(v)),
            _ => Kind::Bytes(v.to_vec()),
        },
    })
}

fn kind_of_list(list: ListRef<'_>, item: ScalarType) -> Kind {
    macro_rules! all {
        ($shape:ident) => {
            list.iter().filter_map(|item| if let ValueRef::$shape(v) = item { Some(v) } else { None })
        };
    }
    let texts = || StringList { val: all!(Bytes).map(text).collect() };
    match item {
        ScalarType::Bool => Kind::BoolList(BoolList { val: all!(Bool).collect() }),
        ScalarType::Int32 => Kind::Int32List(Int32List { val: all!(Int32).collect() }),
        ScalarType::Int64 => Kind::Int64List(Int64List { val: all!(Int64).collect() }),
        ScalarType::UnixTimestamp => Kind::UnixTimestampList(Int64List { val: all!(Int64).map(seconds).collect() }),
        ScalarType::Float32 => Kind::FloatList(FloatList { val: all!(Float32).collect() }),
        ScalarType::Float64 => Kind::DoubleList(DoubleList { val: all!(Float64).collect() }),
        ScalarType::String => Kind::StringList(texts()),
        ScalarType::Json => Kind::JsonList(texts()),
        ScalarType::Uuid => Kind::UuidList(texts()),
        ScalarType::TimeUuid => Kind::TimeUuidList(texts()),
        ScalarType::Decimal => Kind::DecimalList(texts()),
        ScalarType::Bytes | ScalarType::PdfBytes | ScalarType::ImageBytes => {
            Kind::BytesList(BytesList { val: all!(Bytes).map(<[u8]>::to_vec).collect() })
        }
    }
}

/// Converts a list to a set. A list of JSON stays a list, because Feast has no set of JSON.
fn into_set(list: Kind) -> Kind {
    match list {
        Kind::BoolList(l) => Kind::BoolSet(l),
        Kind::Int32List(l) => Kind::Int32Set(l),
        Kind::Int64List(l) => Kind::Int64Set(l),
        Kind::UnixTimestampList(l) => Kind::UnixTimestampSet(l),
        Kind::FloatList(l) => Kind::FloatSet(l),
        Kind::DoubleList(l) => Kind::DoubleSet(l),
        Kind::StringList(l) => Kind::StringSet(l),
        Kind::UuidList(l) => Kind::UuidSet(l),
        Kind::TimeUuidList(l) => Kind::TimeUuidSet(l),
        Kind::DecimalList(l) => Kind::DecimalSet(l),
        Kind::BytesList(l) => Kind::BytesSet(l),
        other => other,
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Converts microseconds to whole seconds; the null placeholder is unchanged.
fn seconds(micros: i64) -> i64 {
    if micros == NULL_TIMESTAMP_SECONDS { micros } else { micros.div_euclid(MICROS) }
}

/// Converts whole seconds to microseconds; the null placeholder is unchanged. Returns `None` if the result is out of
/// range.
fn micros(seconds: i64) -> Option<i64> {
    if seconds == NULL_TIMESTAMP_SECONDS { Some(seconds) } else { seconds.checked_mul(MICROS) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        codec::{RowSchema, RowView},
        model::{FeastMap, RepeatedValue, ZonedTimestamp},
    };

    const UUID: &str = "123e4567-e89b-42d3-a456-426614174000";

    fn through(declared: ValueType, kind: Option<Kind>) -> Result<FeastValue, ConversionError> {
        let schema = RowSchema::new([("value".into(), declared)]);
        let mut builder = RowBuilder::new(&schema);
        builder.begin(0, None);
        push_feast_value(&mut builder, declared, &FeastValue { kind })?;
        let row = builder.finish()?;
        let value = RowView::new(&schema, row)?.get(0)?;
        Ok(to_feast_value(value, declared))
    }

    /// Returns one value of every kind, each with the name of its type.
    fn one_of_each() -> Vec<(&'static str, Kind)> {
        let texts = || StringList { val: vec!["ä".into(), String::new()] };
        let uuids = || StringList { val: vec![UUID.into(), String::new()] };
        let decimals = || StringList { val: vec!["1.50".into(), String::new()] };
        let longs = || Int64List { val: vec![i64::MIN + 1, 0, i64::MAX] };
        let times = || Int64List { val: vec![NULL_TIMESTAMP_SECONDS, -1, 1_700_000_000] };
        let ints = || Int32List { val: vec![i32::MIN, 1] };
        let doubles = || DoubleList { val: vec![0.1, f64::INFINITY] };
        let floats = || FloatList { val: vec![0.1, -0.0] };
        let bools = || BoolList { val: vec![true, false] };
        let blobs = || BytesList { val: vec![vec![0, 255], vec![]] };
        let map = || FeastMap { val: [("k".to_owned(), FeastValue { kind: Some(Kind::Int64(1)) })].into() };
        let list = || RepeatedValue { val: vec![FeastValue { kind: Some(Kind::Int64List(longs())) }] };
        let maps = || crate::model::FeastMapList { val: vec![map()] };
        vec![
            ("Bytes", Kind::Bytes(vec![0, 1, 255])),
            ("PdfBytes", Kind::Bytes(vec![1])),
            ("String", Kind::String("é中".into())),
            ("Int32", Kind::Int32(i32::MIN)),
            ("Int64", Kind::Int64(9_007_199_254_740_993)),
            ("Float64", Kind::Double(0.1)),
            ("Float32", Kind::Float(0.1)),
            ("Bool", Kind::Bool(true)),
            ("UnixTimestamp", Kind::UnixTimestamp(-1)),
            ("Json", Kind::Json("{}".into())),
            ("Uuid", Kind::Uuid(UUID.into())),
            ("TimeUuid", Kind::TimeUuid(UUID.into())),
            ("Decimal", Kind::Decimal("1.50".into())),
            ("Array(Bytes)", Kind::BytesList(blobs())),
            ("Array(String)", Kind::StringList(texts())),
            ("Array(Int32)", Kind::Int32List(ints())),
            ("Array(Int64)", Kind::Int64List(longs())),
            ("Array(Float64)", Kind::DoubleList(doubles())),
            ("Array(Float32)", Kind::FloatList(floats())),
            ("Array(Bool)", Kind::BoolList(bools())),
            ("Array(UnixTimestamp)", Kind::UnixTimestampList(times())),
            ("Array(Json)", Kind::JsonList(StringList { val: vec!["{}".into(), "null".into()] })),
            ("Array(Uuid)", Kind::UuidList(uuids())),
            ("Array(TimeUuid)", Kind::TimeUuidList(uuids())),
            ("Array(Decimal)", Kind::DecimalList(decimals())),
            ("Set(Bytes)", Kind::BytesSet(blobs())),
            ("Set(String)", Kind::StringSet(texts())),
            ("Set(Int32)", Kind::Int32Set(ints())),
            ("Set(Int64)", Kind::Int64Set(longs())),
            ("Set(Float64)", Kind::DoubleSet(doubles())),
            ("Set(Float32)", Kind::FloatSet(floats())),
            ("Set(Bool)", Kind::BoolSet(bools())),
            ("Set(UnixTimestamp)", Kind::UnixTimestampSet(times())),
            ("Set(Uuid)", Kind::UuidSet(uuids())),
            ("Set(TimeUuid)", Kind::TimeUuidSet(uuids())),
            ("Set(Decimal)", Kind::DecimalSet(decimals())),
            ("Map", Kind::Map(map())),
            ("Array(Map)", Kind::MapList(maps())),
            ("Struct", Kind::Struct(map())),
            ("Array(Struct)", Kind::StructList(maps())),
            ("Array(Array)", Kind::List(list())),
            ("Set(Array)", Kind::Set(list())),
            ("ZonedTimestamp", Kind::ZonedTimestamp(ZonedTimestamp { unix_timestamp: 1, zone: "UTC".into() })),
        ]
    }

    #[test]
    fn every_kind_round_trips_through_row() {
        for (declared, kind) in one_of_each() {
            let declared: ValueType = declared.parse().unwrap();
            let back = through(declared, Some(kind.clone()));
            assert_eq!(back, Ok(FeastValue { kind: Some(kind) }), "{declared}");
        }
    }

    #[test]
    fn null_is_message_without_kind() {
        for null in [None, Some(Kind::Null(0))] {
            for (declared, _) in one_of_each() {
                let declared: ValueType = declared.parse().unwrap();
                assert_eq!(through(declared, null.clone()).unwrap().kind, None, "{declared}");
            }
        }
        // Feast's placeholder for a null instant is served as stored.
        let instant = ValueType::Scalar(ScalarType::UnixTimestamp);
        let placeholder = through(instant, Some(Kind::UnixTimestamp(i64::MIN))).unwrap();
        assert_eq!(placeholder.kind, Some(Kind::UnixTimestamp(i64::MIN)));
    }

    #[test]
    fn conversion_keeps_number_or_fails() {
        let scalar = ValueType::Scalar;
        let kept = [
            (ScalarType::Int64, Kind::Int32(-7), Kind::Int64(-7)),
            (ScalarType::Int64, Kind::Double(1.0), Kind::Int64(1)),
            (ScalarType::Int32, Kind::Int64(1), Kind::Int32(1)),
            (ScalarType::Float64, Kind::Float(0.5), Kind::Double(0.5)),
            (ScalarType::Float32, Kind::Double(0.5), Kind::Float(0.5)),
            (ScalarType::String, Kind::Int64(9_007_199_254_740_993), Kind::String("9007199254740993".into())),
            (ScalarType::Int64, Kind::String("7".into()), Kind::Int64(7)),
            (ScalarType::UnixTimestamp, Kind::Int64(7), Kind::UnixTimestamp(7)),
            (ScalarType::Bool, Kind::Int64(1), Kind::Bool(true)),
        ];
        for (declared, stored, expected) in kept {
            assert_eq!(through(scalar(declared), Some(stored)).unwrap().kind, Some(expected), "{declared:?}");
        }
        let refused = [
            (ScalarType::Int64, Kind::Double(1.5), "1.5 is not Int64"),
            (ScalarType::Int32, Kind::Int64(1 << 40), "1099511627776 is not Int32"),
            (ScalarType::Float32, Kind::Double(0.1), "0.1 is not Float32"),
            (ScalarType::Float64, Kind::Int64(9_007_199_254_740_993), "9007199254740993 is not Float64"),
            (ScalarType::Bool, Kind::Int64(2), "2 is not Bool"),
            (ScalarType::Decimal, Kind::Decimal("abc".into()), "'abc' is not Decimal"),
            (ScalarType::Uuid, Kind::Uuid("u".into()), "'u' is not Uuid"),
            (ScalarType::UnixTimestamp, Kind::UnixTimestamp(i64::MAX), "9223372036854775807 is not UnixTimestamp"),
        ];
        for (declared, stored, words) in refused {
            assert_eq!(through(scalar(declared), Some(stored)).unwrap_err().to_string(), words, "{declared:?}");
        }
        let words = Kind::DecimalList(StringList { val: vec!["1".into(), "abc".into()] });
        let refused = through(ValueType::List(ScalarType::Decimal), Some(words)).unwrap_err();
        assert_eq!(refused.to_string(), "'abc' is not Decimal");
    }
}
