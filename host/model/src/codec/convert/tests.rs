use super::*;
use crate::{
    codec::RowBuilder,
    model::{FeastMap, RepeatedValue, Tags},
};

/// Converts a value that is read from a stored row, as in lookups.
fn convert(from: &str, value: &Value, to: &str) -> Option<Value> {
    let schema = RowSchema::new([(Arc::from("f"), from.parse().unwrap())]);
    let mut builder = RowBuilder::new(&schema);
    builder.begin(0, None);
    builder.push_value(value).unwrap();
    let view = crate::codec::RowView::new(&schema, builder.finish().unwrap()).unwrap();
    Conversion::between(from.parse().unwrap(), to.parse().unwrap())?.apply(view.get(0).unwrap())
}

fn text(text: &str) -> Value {
    Value::Bytes(text.as_bytes().to_vec())
}

#[test]
fn lossless_values_are_converted() {
    let two_pow_53 = 9_007_199_254_740_992;
    let list = |items: &[Value]| Value::List(items.to_vec());
    for (from, value, to, expected) in [
        ("Int32", Value::Int32(-7), "Int64", Value::Int64(-7)),
        ("Int64", Value::Int64(-7), "Int32", Value::Int32(-7)),
        ("Int64", Value::Int64(i64::from(i32::MAX)), "Int32", Value::Int32(i32::MAX)),
        ("Int64", Value::Int64(two_pow_53), "Float64", Value::Float64(9_007_199_254_740_992.0)),
        ("Int64", Value::Int64(3), "Float32", Value::Float32(3.0)),
        ("Float64", Value::Float64(3.0), "Int64", Value::Int64(3)),
        ("Float64", Value::Float64(0.5), "Float32", Value::Float32(0.5)),
        ("Float32", Value::Float32(0.1), "Float64", Value::Float64(f64::from(0.1_f32))),
        ("Int64", Value::Int64(1_763_885_590), "UnixTimestamp", Value::Int64(1_763_885_590_000_000)),
        ("UnixTimestamp", Value::Int64(1_763_885_590_000_000), "Int64", Value::Int64(1_763_885_590)),
        ("Int64", Value::Int64(i64::MAX), "String", text("9223372036854775807")),
        ("String", text("9223372036854775807"), "Int64", Value::Int64(i64::MAX)),
        ("Float64", Value::Float64(1e16), "String", text("1e+16")),
        ("Float64", Value::Float64(1.5e-7), "String", text("1.5e-07")),
        ("Float64", Value::Float64(3.0), "Decimal", text("3.0")),
        ("String", text("1.50"), "Float64", Value::Float64(1.5)),
        ("Decimal", text("12"), "Int32", Value::Int32(12)),
        ("Bool", Value::Bool(true), "Int64", Value::Int64(1)),
        ("Int32", Value::Int32(0), "Bool", Value::Bool(false)),
        ("Bool", Value::Bool(true), "String", text("True")),
        ("Bool", Value::Bool(true), "Json", text("true")),
        ("String", text("é"), "Bytes", text("é")),
        ("Bytes", text("é"), "String", text("é")),
        ("Json", text("{}"), "String", text("{}")),
        ("Int64", Value::Int64(5), "Array(Int64)", list(&[Value::Int64(5)])),
        ("Int64", Value::Int64(5), "Set(String)", list(&[text("5")])),
        ("Array(Int64)", list(&[Value::Int64(5)]), "Int32", Value::Int32(5)),
        (
            "Array(Int64)",
            list(&[Value::Int64(5), Value::Int64(6)]),
            "Array(Int32)",
            list(&[Value::Int32(5), Value::Int32(6)]),
        ),
        ("Array(String)", list(&[text("a"), text("b")]), "Set(String)", list(&[text("a"), text("b")])),
        ("Set(String)", list(&[]), "Array(Bytes)", list(&[])),
    ] {
        assert_eq!(convert(from, &value, to), Some(expected), "{from} {value:?} to {to}");
        assert_eq!(convert(from, &Value::Null, to), Some(Value::Null), "null of {from} to {to}");
    }
}

#[test]
fn lossy_conversions_are_rejected() {
    let list = |items: &[Value]| Value::List(items.to_vec());
    for (from, value, to) in [
        ("Int64", Value::Int64(i64::from(i32::MAX) + 1), "Int32"),
        ("Int64", Value::Int64(9_007_199_254_740_993), "Float64"),
        ("Int64", Value::Int64(i64::MAX), "Float64"),
        ("Int32", Value::Int32(16_777_217), "Float32"),
        ("Float64", Value::Float64(1.5), "Int64"),
        ("Float64", Value::Float64(f64::NAN), "Int64"),
        ("Float64", Value::Float64(9.3e18), "Int64"),
        ("Float64", Value::Float64(0.1), "Float32"),
        ("Float64", Value::Float64(f64::INFINITY), "String"),
        ("String", text("007"), "Int64"),
        ("String", text("abc"), "Int64"),
        ("String", text("abc"), "Float64"),
        ("String", text("0.1000000000000000000001"), "Float64"),
        ("String", text("0.1"), "Float32"),
        ("String", text("1e999"), "Float64"),
        ("String", text("yes"), "Bool"),
        ("Int64", Value::Int64(2), "Bool"),
        ("Bytes", Value::Bytes(vec![0xff]), "String"),
        ("String", text("abc"), "Decimal"),
        ("String", text("abc"), "Json"),
        ("String", text("abc"), "Uuid"),
        ("Bytes", text("abc"), "TimeUuid"),
        ("UnixTimestamp", Value::Int64(1_500_000), "Int64"),
        ("Int64", Value::Int64(i64::MAX), "UnixTimestamp"),
        ("Array(Int64)", list(&[]), "Int64"),
        ("Array(Int64)", list(&[Value::Int64(1), Value::Int64(2)]), "Int64"),
        ("Array(Int64)", list(&[Value::Int64(1), Value::Int64(i64::MAX)]), "Array(Int32)"),
        ("Array(Int64)", list(&[Value::Int64(1), Value::Int64(1)]), "Set(Int64)"),
    ] {
        assert_eq!(convert(from, &value, to), None, "{from} {value:?} to {to}");
    }
}

#[test]
fn unrelated_types_have_no_conversion() {
    for (from, to) in [
        ("Int64", "Bytes"),
        ("Bytes", "Int64"),
        ("UnixTimestamp", "String"),
        ("Uuid", "Int64"),
        ("Map", "String"),
        ("Array(Map)", "Map"),
        ("ZonedTimestamp", "UnixTimestamp"),
        ("Float64", "Bool"),
    ] {
        assert_eq!(Conversion::between(from.parse().unwrap(), to.parse().unwrap()), None, "{from} to {to}");
    }
}

#[test]
fn maps_and_structs_keep_their_entries() {
    let entry = FeastValue { kind: Some(Kind::Int64(7)) };
    let map = FeastMap { val: [("a".to_owned(), entry.clone())].into() };
    let bytes = |kind: Kind| Value::Bytes(FeastValue { kind: Some(kind) }.encode_to_vec());
    assert_eq!(convert("Map", &bytes(Kind::Map(map.clone())), "Struct"), Some(bytes(Kind::Struct(map.clone()))));
    assert_eq!(convert("Struct", &bytes(Kind::Struct(map.clone())), "Map"), Some(bytes(Kind::Map(map))));
    let twice = RepeatedValue { val: vec![entry.clone(), entry] };
    assert_eq!(convert("Array(Array)", &bytes(Kind::List(twice)), "Set(Array)"), None);
}

/// Removes the `.0` that a number's text gains when it is converted to a float and back.
fn plain(value: Value) -> Value {
    match value {
        Value::Bytes(bytes) if bytes == b"1.0" => text("1"),
        Value::List(items) => Value::List(items.into_iter().map(plain).collect()),
        other => other,
    }
}

/// Tests every pair of types, with one value of each type.
#[test]
fn converted_values_convert_back() {
    let one = [
        ("Int32", Value::Int32(1)),
        ("Int64", Value::Int64(1)),
        ("Float32", Value::Float32(1.0)),
        ("Float64", Value::Float64(1.0)),
        ("Bool", Value::Bool(true)),
        ("String", text("1")),
        ("Json", text("1")),
        ("Decimal", text("1")),
        ("Uuid", text("6f9619ff-8b86-d011-b42d-00c04fc964ff")),
        ("Bytes", text("1")),
        ("UnixTimestamp", Value::Int64(1_000_000)),
        ("Array(Int64)", Value::List(vec![Value::Int64(1)])),
        ("Set(String)", Value::List(vec![text("1")])),
    ];
    let mut pairs = 0;
    for (from, value) in &one {
        for (to, _) in &one {
            let Some(converted) = convert(from, value, to) else { continue };
            pairs += 1;
            let Some(back) = convert(to, &converted, from) else { panic!("{from} to {to} cannot be converted back") };
            assert_eq!(plain(back), plain(value.clone()), "{from} to {to}: {converted:?}");
        }
    }
    assert!(pairs > 80, "{pairs}");
}

#[test]
fn retyped_features_are_listed_once() {
    let schema = |types: &[(&str, &str)]| {
        Arc::new(RowSchema::new(types.iter().map(|(name, of)| (Arc::from(*name), of.parse().unwrap()))))
    };
    let feature = |(name, of): (&str, &str)| Feature {
        name: name.into(),
        value_type: of.parse().unwrap(),
        description: String::new(),
        tags: Tags::new(),
    };
    let features = [("x", "String"), ("y", "Bytes"), ("z", "Int64")].map(feature);
    let first = schema(&[("x", "Int64"), ("y", "Int64"), ("z", "Int64")]);
    let second = schema(&[("x", "Int64"), ("z", "Int64")]);
    let current = schema(&[("x", "String"), ("y", "Bytes"), ("z", "Int64")]);
    let found = retyped(&features, &[first, second, current]);
    let found: Vec<_> = found.iter().map(|r| (&*r.feature, r.stored.to_string(), r.conversion.is_some())).collect();
    assert_eq!(found, [("x", "Int64".to_owned(), true), ("y", "Int64".to_owned(), false)]);
}
