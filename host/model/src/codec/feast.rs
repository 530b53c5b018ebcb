//! Values of rows to Feast's own message and back: what its online stores hold, and what gRPC carries.
//!
//! The two forms differ in what a type is. A row's field has one declared type; Feast's message names the type of each
//! single value, and an online store may hold values from before a type was changed. What loses nothing is widened;
//! everything else is refused by name.

use prost::Message as _;

use super::{RowBuilder, RowError};
use crate::model::{
    BoolList, BytesList, DoubleList, FeastValue, FloatList, Int32List, Int64List, Kind, ListRef,
    NULL_TIMESTAMP_SECONDS, ScalarType, StringList, ValueRef, ValueType,
};

/// Why a value of Feast's does not go into a row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeastMisfit {
    /// It is of another type than the feature.
    #[error("the value is a {found}, the definition says {declared}")]
    Type {
        /// The name of its kind in `feast.types.Value`.
        found: &'static str,
        /// The feature's type.
        declared: ValueType,
    },
    /// An instant that microseconds cannot say.
    #[error("the instant {0} s is too far from 1970 for microseconds")]
    Instant(i64),
    /// The row does not take it.
    #[error(transparent)]
    Row(#[from] RowError),
}

const MICROS: i64 = 1_000_000;

/// Puts a value of Feast's into a row's next field, which is of type `declared`.
///
/// # Errors
/// [`FeastMisfit`]; the row cannot be finished then.
pub fn push_feast_value(
    builder: &mut RowBuilder<'_>,
    declared: ValueType,
    value: &FeastValue,
) -> Result<(), FeastMisfit> {
    let Some(kind) = value.kind.as_ref().filter(|kind| !matches!(kind, Kind::Null(_))) else {
        return Ok(builder.push(ValueRef::Null)?);
    };
    let misfit = || FeastMisfit::Type { found: name_of(kind), declared };
    match declared {
        ValueType::Scalar(scalar) => Ok(builder.push(scalar_of(kind, scalar)?.ok_or_else(misfit)?)?),
        ValueType::List(item) | ValueType::Set(item) => {
            let items = items_of(kind, item)?.ok_or_else(misfit)?;
            Ok(builder.push_list(&items)?)
        }
        ValueType::Nested(_) => match kind {
            Kind::Map(_)
            | Kind::MapList(_)
            | Kind::Struct(_)
            | Kind::StructList(_)
            | Kind::List(_)
            | Kind::Set(_)
            | Kind::ZonedTimestamp(_) => Ok(builder.push(ValueRef::Bytes(&value.encode_to_vec()))?),
            _ => Err(misfit()),
        },
    }
}

/// A value of a row as Feast's message. A null is one without a kind; that of an instant has Feast's stand-in for it,
/// as in Feast.
#[must_use]
pub fn to_feast_value(value: ValueRef<'_>, value_type: ValueType) -> FeastValue {
    let kind = match (value, value_type) {
        (ValueRef::Null, ValueType::Scalar(ScalarType::UnixTimestamp)) => {
            Some(Kind::UnixTimestamp(NULL_TIMESTAMP_SECONDS))
        }
        (ValueRef::Bytes(bytes), ValueType::Nested(_)) => return FeastValue::decode(bytes).unwrap_or_default(),
        (value, ValueType::Scalar(scalar)) => kind_of_scalar(value, scalar),
        (ValueRef::List(list), ValueType::List(item)) => Some(kind_of_list(list, item)),
        (ValueRef::List(list), ValueType::Set(item)) => Some(into_set(kind_of_list(list, item))),
        // A row's shapes are those of its types.
        _ => None,
    };
    FeastValue { kind }
}

fn scalar_of(kind: &Kind, scalar: ScalarType) -> Result<Option<ValueRef<'_>>, FeastMisfit> {
    Ok(Some(match (scalar, kind) {
        (ScalarType::UnixTimestamp, Kind::UnixTimestamp(NULL_TIMESTAMP_SECONDS)) => ValueRef::Null,
        (ScalarType::UnixTimestamp, Kind::UnixTimestamp(v) | Kind::Int64(v)) => {
            ValueRef::Int64(v.checked_mul(MICROS).ok_or(FeastMisfit::Instant(*v))?)
        }
        (ScalarType::Int64, Kind::Int64(v)) => ValueRef::Int64(*v),
        (ScalarType::Int64, Kind::Int32(v)) => ValueRef::Int64(i64::from(*v)),
        (ScalarType::Int32, Kind::Int32(v)) => ValueRef::Int32(*v),
        (ScalarType::Float64, Kind::Double(v)) => ValueRef::Float64(*v),
        (ScalarType::Float64, Kind::Float(v)) => ValueRef::Float64(f64::from(*v)),
        (ScalarType::Float64, Kind::Int32(v)) => ValueRef::Float64(f64::from(*v)),
        (ScalarType::Float32, Kind::Float(v)) => ValueRef::Float32(*v),
        (ScalarType::Bool, Kind::Bool(v)) => ValueRef::Bool(*v),
        (text, Kind::String(v) | Kind::Json(v) | Kind::Uuid(v) | Kind::TimeUuid(v) | Kind::Decimal(v))
            if text.is_text() =>
        {
            ValueRef::Bytes(v.as_bytes())
        }
        (ScalarType::Bytes | ScalarType::PdfBytes | ScalarType::ImageBytes, Kind::Bytes(v)) => ValueRef::Bytes(v),
        _ => return Ok(None),
    }))
}

fn items_of(kind: &Kind, item: ScalarType) -> Result<Option<Vec<ValueRef<'_>>>, FeastMisfit> {
    let instant = |v: &i64| match *v {
        NULL_TIMESTAMP_SECONDS => Ok(ValueRef::Int64(NULL_TIMESTAMP_SECONDS)),
        v => v.checked_mul(MICROS).map(ValueRef::Int64).ok_or(FeastMisfit::Instant(v)),
    };
    Ok(Some(match (item, kind) {
        (
            ScalarType::UnixTimestamp,
            Kind::UnixTimestampList(l) | Kind::UnixTimestampSet(l) | Kind::Int64List(l) | Kind::Int64Set(l),
        ) => l.val.iter().map(instant).collect::<Result<_, _>>()?,
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
        (
            text,
            Kind::StringList(l)
            | Kind::StringSet(l)
            | Kind::JsonList(l)
            | Kind::UuidList(l)
            | Kind::UuidSet(l)
            | Kind::TimeUuidList(l)
            | Kind::TimeUuidSet(l)
            | Kind::DecimalList(l)
            | Kind::DecimalSet(l),
        ) if text.is_text() => l.val.iter().map(|v| ValueRef::Bytes(v.as_bytes())).collect(),
        (ScalarType::Bytes | ScalarType::PdfBytes | ScalarType::ImageBytes, Kind::BytesList(l) | Kind::BytesSet(l)) => {
            l.val.iter().map(|v| ValueRef::Bytes(v)).collect()
        }
        _ => return Ok(None),
    }))
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

/// The set of a list's kind; Feast has none for JSON.
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

/// Whole seconds; the stand-in for null stays what it is.
fn seconds(micros: i64) -> i64 {
    if micros == NULL_TIMESTAMP_SECONDS { micros } else { micros.div_euclid(MICROS) }
}

/// The field's name in `feast.types.Value`.
fn name_of(kind: &Kind) -> &'static str {
    match kind {
        Kind::Bytes(_) => "bytes_val",
        Kind::String(_) => "string_val",
        Kind::Int32(_) => "int32_val",
        Kind::Int64(_) => "int64_val",
        Kind::Double(_) => "double_val",
        Kind::Float(_) => "float_val",
        Kind::Bool(_) => "bool_val",
        Kind::UnixTimestamp(_) => "unix_timestamp_val",
        Kind::BytesList(_) => "bytes_list_val",
        Kind::StringList(_) => "string_list_val",
        Kind::Int32List(_) => "int32_list_val",
        Kind::Int64List(_) => "int64_list_val",
        Kind::DoubleList(_) => "double_list_val",
        Kind::FloatList(_) => "float_list_val",
        Kind::BoolList(_) => "bool_list_val",
        Kind::UnixTimestampList(_) => "unix_timestamp_list_val",
        Kind::Null(_) => "null_val",
        Kind::Map(_) => "map_val",
        Kind::MapList(_) => "map_list_val",
        Kind::BytesSet(_) => "bytes_set_val",
        Kind::StringSet(_) => "string_set_val",
        Kind::Int32Set(_) => "int32_set_val",
        Kind::Int64Set(_) => "int64_set_val",
        Kind::DoubleSet(_) => "double_set_val",
        Kind::FloatSet(_) => "float_set_val",
        Kind::BoolSet(_) => "bool_set_val",
        Kind::UnixTimestampSet(_) => "unix_timestamp_set_val",
        Kind::Json(_) => "json_val",
        Kind::JsonList(_) => "json_list_val",
        Kind::Struct(_) => "struct_val",
        Kind::StructList(_) => "struct_list_val",
        Kind::Uuid(_) => "uuid_val",
        Kind::TimeUuid(_) => "time_uuid_val",
        Kind::UuidList(_) => "uuid_list_val",
        Kind::TimeUuidList(_) => "time_uuid_list_val",
        Kind::UuidSet(_) => "uuid_set_val",
        Kind::TimeUuidSet(_) => "time_uuid_set_val",
        Kind::List(_) => "list_val",
        Kind::Set(_) => "set_val",
        Kind::Decimal(_) => "decimal_val",
        Kind::DecimalList(_) => "decimal_list_val",
        Kind::DecimalSet(_) => "decimal_set_val",
        Kind::ZonedTimestamp(_) => "zoned_timestamp_val",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        codec::{RowSchema, RowView},
        model::{FeastMap, NestedType, RepeatedValue, ZonedTimestamp},
    };

    fn through(declared: ValueType, kind: Option<Kind>) -> Result<FeastValue, FeastMisfit> {
        let schema = RowSchema::new([("value".into(), declared)]);
        let mut builder = RowBuilder::new(&schema);
        builder.begin(0, None);
        push_feast_value(&mut builder, declared, &FeastValue { kind })?;
        let row = builder.finish()?;
        let value = RowView::new(&schema, row)?.get(0)?;
        Ok(to_feast_value(value, declared))
    }

    /// One value of every kind that there is, with the type that declares it.
    fn one_of_each() -> Vec<(&'static str, Kind)> {
        let texts = || StringList { val: vec!["ä".into(), String::new()] };
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
            ("Uuid", Kind::Uuid("u".into())),
            ("TimeUuid", Kind::TimeUuid("t".into())),
            ("Decimal", Kind::Decimal("1.50".into())),
            ("Array(Bytes)", Kind::BytesList(blobs())),
            ("Array(String)", Kind::StringList(texts())),
            ("Array(Int32)", Kind::Int32List(ints())),
            ("Array(Int64)", Kind::Int64List(longs())),
            ("Array(Float64)", Kind::DoubleList(doubles())),
            ("Array(Float32)", Kind::FloatList(floats())),
            ("Array(Bool)", Kind::BoolList(bools())),
            ("Array(UnixTimestamp)", Kind::UnixTimestampList(times())),
            ("Array(Json)", Kind::JsonList(texts())),
            ("Array(Uuid)", Kind::UuidList(texts())),
            ("Array(TimeUuid)", Kind::TimeUuidList(texts())),
            ("Array(Decimal)", Kind::DecimalList(texts())),
            ("Set(Bytes)", Kind::BytesSet(blobs())),
            ("Set(String)", Kind::StringSet(texts())),
            ("Set(Int32)", Kind::Int32Set(ints())),
            ("Set(Int64)", Kind::Int64Set(longs())),
            ("Set(Float64)", Kind::DoubleSet(doubles())),
            ("Set(Float32)", Kind::FloatSet(floats())),
            ("Set(Bool)", Kind::BoolSet(bools())),
            ("Set(UnixTimestamp)", Kind::UnixTimestampSet(times())),
            ("Set(Uuid)", Kind::UuidSet(texts())),
            ("Set(TimeUuid)", Kind::TimeUuidSet(texts())),
            ("Set(Decimal)", Kind::DecimalSet(texts())),
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
    fn every_kind_comes_back_from_a_row_as_it_went_in() {
        for (declared, kind) in one_of_each() {
            let declared: ValueType = declared.parse().unwrap();
            let back = through(declared, Some(kind.clone()));
            assert_eq!(back, Ok(FeastValue { kind: Some(kind) }), "{declared}");
        }
    }

    #[test]
    fn null_is_a_message_without_a_kind_and_of_an_instant_feasts_stand_in() {
        for null in [None, Some(Kind::Null(0))] {
            for (declared, _) in one_of_each() {
                let declared: ValueType = declared.parse().unwrap();
                let back = through(declared, null.clone()).unwrap();
                if declared == ValueType::Scalar(ScalarType::UnixTimestamp) {
                    assert_eq!(back.kind, Some(Kind::UnixTimestamp(i64::MIN)));
                } else {
                    assert_eq!(back.kind, None, "{declared}");
                }
            }
        }
        let instant = ValueType::Scalar(ScalarType::UnixTimestamp);
        let stand_in = through(instant, Some(Kind::UnixTimestamp(i64::MIN))).unwrap();
        assert_eq!(stand_in.kind, Some(Kind::UnixTimestamp(i64::MIN)));
    }

    #[test]
    fn what_loses_nothing_is_widened_and_everything_else_is_refused_by_name() {
        let int64 = ValueType::Scalar(ScalarType::Int64);
        assert_eq!(through(int64, Some(Kind::Int32(-7))).unwrap().kind, Some(Kind::Int64(-7)));
        let double = ValueType::Scalar(ScalarType::Float64);
        assert_eq!(through(double, Some(Kind::Float(0.5))).unwrap().kind, Some(Kind::Double(0.5)));
        let error = through(int64, Some(Kind::Double(1.0))).unwrap_err();
        assert_eq!(error.to_string(), "the value is a double_val, the definition says Int64");
        let int32 = ValueType::Scalar(ScalarType::Int32);
        assert!(through(int32, Some(Kind::Int64(1))).is_err());
        let map = ValueType::Nested(NestedType::Map);
        assert!(through(map, Some(Kind::String("{}".into()))).is_err());
        let instant = ValueType::Scalar(ScalarType::UnixTimestamp);
        assert_eq!(through(instant, Some(Kind::UnixTimestamp(i64::MAX))), Err(FeastMisfit::Instant(i64::MAX)));
    }
}
