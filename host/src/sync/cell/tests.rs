//! Which cell becomes which value, and what is refused in which words.

use larder_model::{
    codec::{RowSchema, RowView, to_feast_value},
    model::FeastValue,
};
use serde_json::{Value as Json, json};

use super::*;

/// A cell as a value of a type, in Feast's form.
fn through(cell: &Cell, declared: ValueType) -> Result<FeastValue, String> {
    let schema = RowSchema::new([("value".into(), declared)]);
    let mut builder = RowBuilder::new(&schema);
    builder.begin(0, None);
    cell.push(declared, &mut builder)?;
    let row = builder.finish().map_err(|error| error.to_string())?;
    let value = RowView::new(&schema, row).and_then(|view| view.get(0)).map_err(|error| error.to_string())?;
    Ok(to_feast_value(value, declared))
}

fn typed(json: Json, declared: &str) -> Result<Option<Kind>, String> {
    through(&Cell::from(json), declared.parse().unwrap()).map(|value| value.kind)
}

#[test]
fn numbers_and_texts_stand_for_each_other_where_nothing_is_lost() {
    assert_eq!(typed(json!(9_007_199_254_740_993_i64), "Int64"), Ok(Some(Kind::Int64(9_007_199_254_740_993))));
    assert_eq!(typed(json!("9007199254740993"), "Int64"), Ok(Some(Kind::Int64(9_007_199_254_740_993))));
    // pandas has whole numbers as doubles where a null stands among them.
    assert_eq!(typed(json!(7.0), "Int64"), Ok(Some(Kind::Int64(7))));
    assert_eq!(typed(json!(7), "Float64"), Ok(Some(Kind::Double(7.0))));
    assert_eq!(typed(json!("Infinity"), "Float32"), Ok(Some(Kind::Float(f32::INFINITY))));
    assert_eq!(typed(json!(1), "Bool"), Ok(Some(Kind::Bool(true))));
    assert_eq!(typed(json!(12), "String"), Ok(Some(Kind::String("12".into()))));
    assert_eq!(typed(json!(true), "String"), Ok(Some(Kind::String("True".into()))));
    assert_eq!(typed(json!("AAH/"), "Bytes"), Ok(Some(Kind::Bytes(vec![0, 1, 255]))));
    assert_eq!(typed(json!({"a": [1, null]}), "Json"), Ok(Some(Kind::Json(r#"{"a":[1,null]}"#.into()))));
}

#[test]
fn instants_are_seconds_or_texts_and_the_stand_in_for_null_is_one() {
    let instant = |seconds| Ok(Some(Kind::UnixTimestamp(seconds)));
    assert_eq!(typed(json!(1_700_000_000), "UnixTimestamp"), instant(1_700_000_000));
    assert_eq!(typed(json!("1970-01-01T00:00:01+00:00"), "UnixTimestamp"), instant(1));
    assert_eq!(typed(json!(null), "UnixTimestamp"), instant(NULL_TIMESTAMP_SECONDS));
    assert_eq!(typed(json!(NULL_TIMESTAMP_SECONDS), "UnixTimestamp"), instant(NULL_TIMESTAMP_SECONDS));
}

#[test]
fn a_null_is_a_null_of_every_type_and_the_types_default_in_a_list() {
    for declared in ["Int64", "String", "Bool", "Bytes", "Array(Int64)", "Set(String)", "Map", "Json"] {
        assert_eq!(typed(json!(null), declared), Ok(None), "{declared}");
    }
    assert_eq!(typed(json!([1, null]), "Array(Int64)"), Ok(Some(Kind::Int64List(Int64List { val: vec![1, 0] }))));
    assert_eq!(
        typed(json!(["a", null]), "Set(String)"),
        Ok(Some(Kind::StringSet(StringList { val: vec!["a".into(), String::new()] })))
    );
    assert_eq!(typed(json!([]), "Array(Float64)"), Ok(Some(Kind::DoubleList(DoubleList { val: vec![] }))));
}

#[test]
fn mappings_come_as_json_or_as_its_text() {
    let expected = Kind::Map(FeastMap { val: [("a".to_owned(), FeastValue { kind: Some(Kind::Int64(1)) })].into() });
    assert_eq!(typed(json!({"a": 1}), "Map"), Ok(Some(expected.clone())));
    assert_eq!(typed(json!(r#"{"a": 1}"#), "Map"), Ok(Some(expected)));
    let inner = |kind| FeastValue { kind: Some(kind) };
    let nested = RepeatedValue {
        val: vec![
            inner(Kind::Int64List(Int64List { val: vec![1] })),
            inner(Kind::StringList(StringList { val: vec!["a".into()] })),
        ],
    };
    assert_eq!(typed(json!([[1], ["a"]]), "Array(Array)"), Ok(Some(Kind::List(nested))));
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let refused = |json: Json, declared: &str, words: &str| assert_eq!(typed(json, declared), Err(words.to_owned()));
    refused(json!(1.5), "Int64", "1.5 is not Int64");
    refused(json!("x"), "Int64", "'x' is not Int64");
    refused(json!(9_300_000_000_000_000_000_u64), "Int64", "9.3e18 is not Int64");
    refused(json!(3_000_000_000_i64), "Int32", "3000000000 is not Int32");
    refused(json!([1]), "Int64", "a list is not Int64");
    refused(json!(1), "Array(Int64)", "1 is not Array(Int64)");
    refused(json!(2), "Bool", "2 is not Bool");
    refused(json!("é"), "Bytes", "'é' is no base64");
    refused(json!("{"), "Json", "'{' is no JSON: EOF while parsing an object at line 1 column 1");
    refused(json!({"a": 1}), "String", "a mapping is not String");
    refused(json!("tomorrow"), "UnixTimestamp", "'tomorrow' is not UnixTimestamp");
}

#[test]
fn a_value_of_feasts_becomes_the_cell_that_becomes_it_again() {
    let kinds = [
        ("Int64", Kind::Int64(-1)),
        ("Float32", Kind::Float(0.1)),
        ("Bytes", Kind::Bytes(vec![0, 255])),
        ("UnixTimestamp", Kind::UnixTimestamp(1_700_000_000)),
        ("Array(UnixTimestamp)", Kind::UnixTimestampList(Int64List { val: vec![NULL_TIMESTAMP_SECONDS, 5] })),
        ("Array(Bool)", Kind::BoolList(BoolList { val: vec![true] })),
        ("Map", Kind::Map(FeastMap { val: [("k".to_owned(), FeastValue { kind: None })].into() })),
    ];
    for (declared, kind) in kinds {
        let cell = Cell::from(FeastValue { kind: Some(kind.clone()) });
        assert_eq!(through(&cell, declared.parse().unwrap()), Ok(FeastValue { kind: Some(kind) }), "{declared}");
    }
}

#[test]
fn keys_have_the_types_that_their_views_say() {
    let key = |json: Json, key_type| {
        let mut key = Vec::new();
        Cell::from(json).push_key(key_type, &mut key).map(|()| key)
    };
    let mut expected = Vec::new();
    KeyEncoder::push(&mut expected, KeyValue::Int64(1001));
    assert_eq!(key(json!(1001), ScalarType::Int64), Ok(expected.clone()));
    assert_eq!(key(json!("1001"), ScalarType::Int64), Ok(expected));
    assert_eq!(key(json!(null), ScalarType::Int64), Err("the key is null".to_owned()));
    assert_eq!(key(json!("x"), ScalarType::Int64), Err("'x' is not Int64".to_owned()));
}
