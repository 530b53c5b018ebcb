//! Tests of conversions and their error messages.

use super::*;
use crate::{
    codec::{ROW_BYTES_MAX, RowSchema, RowView, to_feast_value},
    model::{DoubleList, FeastMap, FeastValue, Int64List, Kind, NestedType, RepeatedValue, StringList, ZonedTimestamp},
};

const UUID: &str = "123e4567-e89b-42d3-a456-426614174000";

/// Converts a cell to a value of a type, and the value to Feast's message.
fn through(cell: &Cell, declared: ValueType) -> Result<FeastValue, String> {
    let schema = RowSchema::new([("value".into(), declared)]);
    let mut builder = RowBuilder::new(&schema);
    builder.begin(0, None);
    cell.push(declared, &mut builder).map_err(|error| error.to_string())?;
    let row = builder.finish().map_err(|error| error.to_string())?;
    let value = RowView::new(&schema, row).and_then(|view| view.get(0)).map_err(|error| error.to_string())?;
    Ok(to_feast_value(value, declared))
}

fn typed(json: &str, declared: &str) -> Result<Option<Kind>, String> {
    through(&Cell::from_json(json).unwrap(), declared.parse().unwrap()).map(|value| value.kind)
}

fn text(text: &str) -> Result<Option<Kind>, String> {
    Ok(Some(Kind::String(text.into())))
}

#[test]
fn numbers_and_text_convert_as_feast() {
    let int = |value| Ok(Some(Kind::Int64(value)));
    assert_eq!(typed("9007199254740993", "Int64"), int(9_007_199_254_740_993));
    assert_eq!(typed(r#"" 9_007_199_254_740_993 ""#, "Int64"), int(9_007_199_254_740_993));
    // pandas stores whole numbers as doubles if there are nulls among them.
    assert_eq!(typed("7.0", "Int64"), int(7));
    assert_eq!(typed("-1.5", "Int64"), int(-1));
    assert_eq!(typed("true", "Int64"), int(1));
    assert_eq!(typed("7", "Float64"), Ok(Some(Kind::Double(7.0))));
    assert_eq!(typed("18446744073709551617", "Float64"), Ok(Some(Kind::Double(18_446_744_073_709_551_616.0))));
    assert_eq!(typed(r#""Infinity""#, "Float32"), Ok(Some(Kind::Float(f32::INFINITY))));
    assert_eq!(typed("2", "Bool"), Ok(Some(Kind::Bool(true))));
    assert_eq!(typed(r#""AAH/""#, "Bytes"), Ok(Some(Kind::Bytes(vec![0, 1, 255]))));
    assert_eq!(typed("12", "String"), text("12"));
    assert_eq!(typed("true", "String"), text("True"));
    assert_eq!(typed("1e16", "String"), text("1e+16"));
    assert_eq!(typed("0.00001", "String"), text("1e-05"));
    assert_eq!(typed("18446744073709551617", "String"), text("18446744073709551617"));
    assert_eq!(typed("12345678901234567890", "Decimal"), Ok(Some(Kind::Decimal("12345678901234567890".into()))));
    assert_eq!(
        typed(r#"{"b": [1, null], "a": "é"}"#, "Json"),
        Ok(Some(Kind::Json(r#"{"b": [1, null], "a": "\u00e9"}"#.into())))
    );
    assert_eq!(typed("1", "Json"), Ok(Some(Kind::Json("1".into()))));
}

#[test]
fn instants_parse_from_seconds_and_text() {
    let instant = |seconds| Ok(Some(Kind::UnixTimestamp(seconds)));
    assert_eq!(typed("1700000000", "UnixTimestamp"), instant(1_700_000_000));
    assert_eq!(typed(r#"" 1_001 ""#, "UnixTimestamp"), instant(1_001));
    assert_eq!(typed(r#""1970-01-01T00:00:01+00:00""#, "UnixTimestamp"), instant(1));
    assert_eq!(typed("true", "UnixTimestamp"), instant(1));
    assert_eq!(typed("null", "UnixTimestamp"), Ok(None));
    // Feast's placeholder for a null instant is unchanged.
    assert_eq!(typed("-9223372036854775808", "UnixTimestamp"), instant(i64::MIN));
    assert_eq!(typed("9007199254740993", "UnixTimestamp"), Err("9007199254740993 is not UnixTimestamp".into()));
}

#[test]
fn null_and_nan_are_always_null() {
    for declared in ["Int64", "String", "Bool", "Bytes", "Array(Int64)", "Set(String)", "Map", "Json", "Float32"] {
        assert_eq!(typed("null", declared), Ok(None), "{declared}");
    }
    for declared in ["Int64", "Float32", "Float64", "String", "Bool", "Json", "Decimal", "UnixTimestamp"] {
        let declared: ValueType = declared.parse().unwrap();
        assert_eq!(through(&Cell::Float(f64::NAN), declared), Ok(FeastValue { kind: None }), "{declared}");
    }
}

#[test]
fn null_items_become_feast_defaults() {
    let value = |json: &str, declared: &str| Cell::from_json(json).unwrap().to_value(declared.parse().unwrap());
    assert_eq!(value("[1, null]", "Array(Int64)"), Ok(Value::List(vec![Value::Int64(1), Value::Int64(0)])));
    assert_eq!(value("[null]", "Array(Float64)"), Ok(Value::List(vec![Value::Float64(0.0)])));
    let Ok(Value::List(floats)) = value("[1, null]", "Array(Float32)") else { panic!("a list") };
    assert!(matches!(*floats, [Value::Float32(1.0), Value::Float32(nan)] if nan.is_nan()));
    assert_eq!(
        value(r#"["a", null]"#, "Array(String)"),
        Ok(Value::List(vec![Value::Bytes(b"a".to_vec()), Value::Bytes(Vec::new())]))
    );
    assert_eq!(value("[null]", "Array(Json)"), Ok(Value::List(vec![Value::Bytes(b"null".to_vec())])));
    assert_eq!(value("[null]", "Array(UnixTimestamp)"), Ok(Value::List(vec![Value::Int64(i64::MIN)])));
    assert_eq!(value("[]", "Array(Float64)"), Ok(Value::List(vec![])));
}

#[test]
fn set_items_are_sorted_and_unique() {
    let ints = |val| Ok(Some(Kind::Int64Set(Int64List { val })));
    assert_eq!(typed("[3, 3, 1]", "Set(Int64)"), ints(vec![1, 3]));
    let texts = StringList { val: vec![String::new(), "a".into(), "b".into()] };
    assert_eq!(typed(r#"["b", "a", "b", null]"#, "Set(String)"), Ok(Some(Kind::StringSet(texts))));
    let floats = DoubleList { val: vec![-0.0, 1.5] };
    assert_eq!(typed("[1.5, -0.0, 0.0, 1.5]", "Set(Float64)"), Ok(Some(Kind::DoubleSet(floats))));
    let nans = Cell::List(vec![Cell::Float(f64::NAN), Cell::Float(1.0), Cell::Float(f64::NAN)]);
    let Ok(Value::List(once)) = nans.to_value("Set(Float64)".parse().unwrap()) else { panic!("a set") };
    assert!(matches!(*once, [Value::Float64(1.0), Value::Float64(nan)] if nan.is_nan()));
}

#[test]
fn json_list_in_bytes_is_converted() {
    let bytes = |text: &[u8]| Cell::Bytes(text.to_vec());
    let list = "Array(Int64)".parse().unwrap();
    assert_eq!(bytes(b"[1, 2]").to_value(list), Ok(Value::List(vec![Value::Int64(1), Value::Int64(2)])));
    assert!(bytes(b"{}").to_value(list).is_err());
    assert!(bytes(&[0xff]).to_value(list).is_err());
}

#[test]
fn mappings_parse_from_json_text() {
    let inner = |kind| FeastValue { kind: Some(kind) };
    let expected = Kind::Map(FeastMap { val: [("a".to_owned(), inner(Kind::Int64(1)))].into() });
    assert_eq!(typed(r#"{"a": 1}"#, "Map"), Ok(Some(expected.clone())));
    assert_eq!(typed(r#""{\"a\": 1}""#, "Map"), Ok(Some(expected)));
    let mixed = Kind::DoubleList(DoubleList { val: vec![1.0, 1.5] });
    let expected = Kind::Map(FeastMap { val: [("a".to_owned(), inner(mixed))].into() });
    assert_eq!(typed(r#"{"a": [1, 1.5]}"#, "Map"), Ok(Some(expected)));
    let nested = RepeatedValue {
        val: vec![
            inner(Kind::Int64List(Int64List { val: vec![1] })),
            inner(Kind::StringList(StringList { val: vec!["a".into()] })),
            // As in Feast, an empty list inside a list becomes null.
            FeastValue { kind: None },
            FeastValue { kind: None },
        ],
    };
    assert_eq!(typed(r#"[[1], ["a"], [], null]"#, "Array(Array)"), Ok(Some(Kind::List(nested))));
    let zoned = ZonedTimestamp { unix_timestamp: 0, zone: "+02:00".into() };
    assert_eq!(typed(r#""1970-01-01T02:00:00+02:00""#, "ZonedTimestamp"), Ok(Some(Kind::ZonedTimestamp(zoned))));
}

#[test]
fn incompatible_values_are_rejected() {
    let refused = |json: &str, declared: &str, words: &str| assert_eq!(typed(json, declared), Err(words.to_owned()));
    refused(r#""x""#, "Int64", "'x' is not Int64");
    refused(r#""1.5""#, "Int64", "'1.5' is not Int64");
    refused(r#""9007199254740993.0""#, "Int64", "'9007199254740993.0' is not Int64");
    refused("9300000000000000000", "Int64", "9300000000000000000 is not Int64");
    refused("1e39", "Int64", "1e39 is not Int64");
    refused("3000000000", "Int32", "3000000000 is not Int32");
    refused("[1]", "Int64", "a list is not Int64");
    refused("1", "Array(Int64)", "1 is not Array(Int64)");
    refused("[1.5]", "Array(Int64)", "1.5 is not Int64");
    refused("1e39", "Float32", "1e39 is not Float32");
    refused(r#""1E+39""#, "Float32", "'1E+39' is not Float32");
    refused(r#""1e400""#, "Float64", "'1e400' is not Float64");
    refused("[1e39]", "Array(Float32)", "1e39 is not Float32");
    refused("1.0", "Bool", "1.0 is not Bool");
    refused(r#""true""#, "Bool", "'true' is not Bool");
    refused(r#""é""#, "Bytes", "'é' is not valid base64");
    refused(r#""{""#, "Json", "'{' is not valid JSON: EOF while parsing an object at line 1 column 1");
    refused(r#"{"a": 1}"#, "String", "a mapping is not String");
    refused(r#""tomorrow""#, "UnixTimestamp", "'tomorrow' is not UnixTimestamp");
    refused(r#""NULL""#, "UnixTimestamp", "'NULL' is not UnixTimestamp");
    refused("1.5", "UnixTimestamp", "1.5 is not UnixTimestamp");
    refused(r#""abc""#, "Decimal", "'abc' is not Decimal");
    refused(r#""abc""#, "Uuid", "'abc' is not Uuid");
    refused(r#"["abc"]"#, "Array(Decimal)", "'abc' is not Decimal");
    refused("[1]", "Array(Array)", "a list is not Array(Array)");
}

#[test]
fn feast_value_round_trips_through_cell() {
    let kinds = [
        ("Int64", Kind::Int64(-1)),
        ("Float32", Kind::Float(0.1)),
        ("Bytes", Kind::Bytes(vec![0, 255])),
        ("Uuid", Kind::Uuid(UUID.into())),
        ("UnixTimestamp", Kind::UnixTimestamp(1_700_000_000)),
        ("UnixTimestamp", Kind::UnixTimestamp(i64::MIN)),
        ("Array(UnixTimestamp)", Kind::UnixTimestampList(Int64List { val: vec![i64::MIN, 5] })),
        ("Map", Kind::Map(FeastMap { val: [("k".to_owned(), FeastValue { kind: None })].into() })),
    ];
    for (declared, kind) in kinds {
        let cell = Cell::from(FeastValue { kind: Some(kind.clone()) });
        assert_eq!(through(&cell, declared.parse().unwrap()), Ok(FeastValue { kind: Some(kind) }), "{declared}");
    }
}

#[test]
fn key_is_never_cut_or_rounded() {
    let key = |json: &str, key_type| {
        let mut key = Vec::new();
        let pushed = Cell::from_json(json).unwrap().push_key(key_type, &mut key);
        pushed.map(|()| key).map_err(|error| error.to_string())
    };
    let of = |value: KeyValue<'_>| {
        let mut key = Vec::new();
        KeyEncoder::push(&mut key, value);
        Ok(key)
    };
    assert_eq!(key("1001", ScalarType::Int64), of(KeyValue::Int64(1001)));
    assert_eq!(key(r#""1001""#, ScalarType::Int64), of(KeyValue::Int64(1001)));
    assert_eq!(key("1001.0", ScalarType::Int64), of(KeyValue::Int64(1001)));
    assert_eq!(key("7", ScalarType::UnixTimestamp), of(KeyValue::UnixTimestamp(7)));
    assert_eq!(key("18446744073709551617", ScalarType::String), of(KeyValue::String("18446744073709551617")));
    assert_eq!(key("1e16", ScalarType::String), of(KeyValue::String("1e+16")));
    // As in lookups, text in a key of bytes is not decoded as base64.
    assert_eq!(key(r#""AAH/""#, ScalarType::Bytes), of(KeyValue::Bytes(b"AAH/")));
    assert_eq!(key("null", ScalarType::Int64), Err("the key is null".to_owned()));
    assert_eq!(key("5.5", ScalarType::Int64), Err("5.5 is not Int64".to_owned()));
    assert_eq!(key(r#""x""#, ScalarType::Int64), Err("'x' is not Int64".to_owned()));
}

#[test]
fn integers_of_any_size_are_exact() {
    let one = |json: &str| Cell::from_json(json).unwrap();
    assert_eq!(one("-0"), Cell::Int(0));
    assert_eq!(one("-0.0"), Cell::Float(-0.0));
    assert_eq!(one("9223372036854775807"), Cell::Int(i64::MAX));
    assert_eq!(one("18446744073709551615"), Cell::Number("18446744073709551615".into()));
    assert_eq!(one("18446744073709551617"), Cell::Number("18446744073709551617".into()));
    assert_eq!(one("-9223372036854775809"), Cell::Number("-9223372036854775809".into()));
    assert_eq!(one("1e20"), Cell::Float(1e20));
    let nested = one(r#"{"b": [1, {"c": 100000000000000000000}], "a": "1e20", "b2": null}"#);
    let inner = Cell::Map(vec![("c".into(), Cell::Number("100000000000000000000".into()))]);
    let entries = vec![
        ("b".into(), Cell::List(vec![Cell::Int(1), inner])),
        ("a".into(), Cell::Text("1e20".into())),
        ("b2".into(), Cell::Null),
    ];
    assert_eq!(nested, Cell::Map(entries));
    // If a name occurs twice, the last value wins, at the position of the first.
    let twice = Cell::Map(vec![("a".into(), Cell::Int(3)), ("b".into(), Cell::Int(2))]);
    assert_eq!(one(r#"{"a": 1, "b": 2, "a": 3}"#), twice);
}

#[test]
fn deep_json_with_large_integer_fails() {
    let deep = format!("{}18446744073709551617{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Cell::from_json(&deep).is_err());
    let shallow = format!("{}18446744073709551617{}", "[".repeat(100), "]".repeat(100));
    assert!(Cell::from_json(&shallow).is_ok());
}

#[test]
fn nested_types_reject_integers() {
    for nested in [NestedType::Map, NestedType::Struct, NestedType::MapList, NestedType::ZonedTimestamp] {
        assert!(Cell::Int(1).to_value(ValueType::Nested(nested)).is_err(), "{nested:?}");
    }
}

#[test]
fn too_deep_map_is_rejected() {
    let nested = |depth: usize| format!("{}1{}", r#"{"s":"#.repeat(depth), "}".repeat(depth));
    let map = ValueType::Nested(NestedType::Map);
    assert!(matches!(through(&Cell::from_json(&nested(32)).unwrap(), map).unwrap().kind, Some(Kind::Map(_))));
    let error = through(&Cell::from_json(&nested(33)).unwrap(), map).unwrap_err();
    assert!(error.starts_with("the value is nested too deeply: its message would have 100 levels"), "{error}");
    assert!(through(&Cell::Text(nested(33)), map).is_err());
}

#[test]
fn oversized_json_text_is_rejected() {
    let padded = |bytes: usize| format!("[1{}]", " ".repeat(bytes - 3));
    assert_eq!(Cell::from_json(&padded(ROW_BYTES_MAX)).unwrap(), Cell::List(vec![Cell::Int(1)]));
    assert!(Cell::from_json(&padded(ROW_BYTES_MAX + 1)).unwrap_err().to_string().contains("more than 4194304 bytes"));
}
