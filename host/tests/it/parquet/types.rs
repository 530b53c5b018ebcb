//! Every type in definitions, from a Parquet column to the response.

use std::sync::Arc;

use arrow::{
    array::{
        Array as _, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array, Int8Array,
        Int32Array, LargeStringArray, ListArray, MapBuilder, StringArray, StringBuilder, StringViewArray, StructArray,
        TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt32Array,
    },
    datatypes::{DataType, Field, Int32Type, Int64Type},
};

use super::*;

/// Serves a feature of this type from this column. The column has a row for each driver, beginning with driver 1.
/// Returns the values in the response.
fn served(place: Place, value_type: &str, array: ArrayRef) -> Value {
    let definitions = format!(
        "entities: [{{name: driver, join_key: driver_id, type: Int64}}]\n\
         feature_views: [{{name: stats, entities: [driver], features: [{{name: f, type: {value_type}}}], \
         source: {{path: data/stats.parquet, timestamp_field: event_timestamp}}}}]\n"
    );
    let drivers: Vec<i64> = (1..=i64::try_from(array.len()).unwrap()).collect();
    let setup = place.with(&definitions, "");
    let columns: Columns = vec![
        ("driver_id", Arc::new(Int64Array::from(drivers.clone()))),
        ("event_timestamp", times(drivers.iter().map(|_| Some(1)))),
        ("f", array),
    ];
    write(&setup.path("data/stats.parquet"), &columns);
    let fixture = setup.start();
    let column = fixture.features(&["stats:f"], json!({ "driver_id": drivers })).column("f");
    crate::arrow::assert_same(&fixture, &json!({ "features": ["stats:f"], "entities": { "driver_id": drivers } }));
    // If the row exists, a null value also has the status `PRESENT`.
    assert_eq!(column["statuses"], json!(vec!["PRESENT"; drivers.len()]), "{value_type}");
    column["values"].clone()
}

fn assert_served(value_type: &str, array: impl arrow::array::Array + 'static, expected: Value) {
    let array: ArrayRef = Arc::new(array);
    everywhere(|place| {
        assert_eq!(served(place, value_type, Arc::clone(&array)), expected, "{place:?} {value_type}");
    });
}

#[test]
fn integers() {
    let extremes = Int64Array::from(vec![Some(i64::MAX), Some(i64::MIN), Some(9_007_199_254_740_993), None]);
    assert_served("Int64", extremes, json!([i64::MAX, i64::MIN, 9_007_199_254_740_993_i64, null]));
    assert_served("Int64", UInt32Array::from(vec![u32::MAX]), json!([u32::MAX]));
    assert_served(
        "Int32",
        Int32Array::from(vec![Some(i32::MAX), Some(i32::MIN), None]),
        json!([i32::MAX, i32::MIN, null]),
    );
    assert_served("Int32", Int8Array::from(vec![-1]), json!([-1]));
    // pandas writes integers with missing values as floats.
    assert_served("Int64", Float64Array::from(vec![3.0, f64::NAN]), json!([3, null]));
}

#[test]
fn floats_include_nan_and_infinity() {
    let odd = vec![Some(0.1), Some(-0.0), Some(f64::NAN), Some(f64::INFINITY), Some(f64::NEG_INFINITY), None];
    assert_served("Float64", Float64Array::from(odd), json!([0.1, -0.0, null, "Infinity", "-Infinity", null]));
    assert_served("Float32", Float32Array::from(vec![0.5, f32::NAN]), json!([0.5, null]));
    assert_served("Float32", Float64Array::from(vec![0.25]), json!([0.25]));
}

#[test]
fn booleans_texts_and_bytes() {
    assert_served("Bool", BooleanArray::from(vec![Some(true), Some(false), None]), json!([true, false, null]));
    let odd = vec![Some("é\"\\\n\u{1f600}"), Some(""), None];
    assert_served("String", StringArray::from(odd.clone()), json!(odd));
    assert_served("String", LargeStringArray::from(odd.clone()), json!(odd));
    assert_served("String", StringViewArray::from(odd.clone()), json!(odd));
    assert_served("String", odd.clone().into_iter().collect::<DictionaryArray<Int32Type>>(), json!(odd));
    assert_served("Bytes", BinaryArray::from(vec![Some(&b"\x00\xff"[..]), Some(b""), None]), json!(["AP8=", "", null]));
    assert_served("Json", StringArray::from(vec![r#"{"a": 1}"#]), json!([r#"{"a": 1}"#]));
    let uuid = "123e4567-e89b-42d3-a456-426614174000";
    assert_served("Uuid", StringArray::from(vec![uuid]), json!([uuid]));
    let decimals = Decimal128Array::from(vec![12_345]).with_precision_and_scale(10, 2).unwrap();
    assert_served("Decimal", decimals, json!(["123.45"]));
}

#[test]
fn instants_in_every_unit_and_zone() {
    let second = 1_700_000_000;
    assert_served("UnixTimestamp", TimestampSecondArray::from(vec![second]), json!([second]));
    assert_served("UnixTimestamp", TimestampMillisecondArray::from(vec![second * 1_000 + 999]), json!([second]));
    assert_served("UnixTimestamp", TimestampNanosecondArray::from(vec![second * 1_000_000_000]), json!([second]));
    let zoned = TimestampMicrosecondArray::from(vec![second * SECOND]).with_timezone("America/New_York");
    assert_served("UnixTimestamp", zoned, json!([second]));
    assert_served("UnixTimestamp", Date32Array::from(vec![1]), json!([86_400]));
    // Feast's placeholder for a null instant.
    assert_served("UnixTimestamp", TimestampSecondArray::from(vec![None]), json!([i64::MIN]));
}

#[test]
fn equal_event_times_in_every_unit() {
    let second = RECORDED_AT / SECOND - 60;
    let columns: [ArrayRef; 4] = [
        Arc::new(TimestampSecondArray::from(vec![second; 2])),
        Arc::new(TimestampMillisecondArray::from(vec![second * 1_000; 2]).with_timezone("Asia/Tokyo")),
        Arc::new(TimestampMicrosecondArray::from(vec![second * SECOND; 2]).with_timezone("+05:30")),
        Arc::new(TimestampNanosecondArray::from(vec![second * 1_000_000_000; 2])),
    ];
    for times in columns {
        let setup = Place::Disk.good();
        write(&setup.path(FILE), &replaced(stats(&[(1, 0, 0.1), (2, 0, 0.2)]), "event_timestamp", times));
        let column = setup.start().features(&["stats:rate"], json!({ "driver_id": [1] })).column("rate");
        assert_eq!(column["event_timestamps"], json!(["2026-11-23T09:12:10Z"]));
    }
}

fn list<T: arrow::datatypes::ArrowPrimitiveType>(rows: Vec<Option<Vec<Option<T::Native>>>>) -> ListArray {
    ListArray::from_iter_primitive::<T, _, _>(rows)
}

fn texts(rows: &[Option<&[Option<&str>]>]) -> ListArray {
    let mut builder = arrow::array::ListBuilder::new(StringBuilder::new());
    for row in rows {
        match row {
            Some(items) => builder.append_value(items.iter().copied()),
            None => builder.append_null(),
        }
    }
    builder.finish()
}

#[test]
fn lists_and_sets_with_nulls() {
    let ints = || list::<Int64Type>(vec![Some(vec![Some(i64::MAX), Some(-1)]), Some(vec![]), None, Some(vec![None])]);
    assert_served("Array(Int64)", ints(), json!([[i64::MAX, -1], [], null, [0]]));
    assert_served("Set(Int64)", list::<Int64Type>(vec![Some(vec![Some(3), Some(3), Some(1)])]), json!([[1, 3]]));
    assert_served("Array(Int32)", list::<Int32Type>(vec![Some(vec![Some(7)])]), json!([[7]]));
    let doubles = vec![Some(vec![Some(0.5), Some(f64::NAN)])];
    assert_served("Array(Float64)", list::<arrow::datatypes::Float64Type>(doubles), json!([[0.5, "NaN"]]));
    assert_served("Array(Float32)", list::<arrow::datatypes::Float32Type>(vec![Some(vec![Some(0.5)])]), json!([[0.5]]));
    assert_served(
        "Array(String)",
        texts(&[Some(&[Some("a"), Some("")]), Some(&[]), None]),
        json!([["a", ""], [], null]),
    );
    let uuid = "123e4567-e89b-42d3-a456-426614174000";
    assert_served("Array(Uuid)", texts(&[Some(&[Some(uuid), None])]), json!([[uuid, ""]]));
    let seconds = vec![Some(vec![Some(1_700_000_000)])];
    let instants = list::<arrow::datatypes::TimestampSecondType>(seconds);
    assert_served("Array(UnixTimestamp)", instants, json!([[1_700_000_000]]));
}

#[test]
fn maps_and_structs() {
    let mut map = MapBuilder::new(None, StringBuilder::new(), arrow::array::Int64Builder::new());
    map.keys().append_value("a");
    map.values().append_value(i64::MAX);
    map.append(true).unwrap();
    map.append(false).unwrap();
    map.append(true).unwrap();
    assert_served("Map", map.finish(), json!([{ "a": i64::MAX }, null, {}]));

    let field = |name: &str, kind| Arc::new(Field::new(name, kind, true));
    let fields: Vec<(Arc<Field>, ArrayRef)> = vec![
        (field("city", DataType::Utf8), Arc::new(StringArray::from(vec![Some("Oslo"), None]))),
        (field("zip", DataType::Int64), Arc::new(Int64Array::from(vec![Some(150), Some(1)]))),
    ];
    assert_served(
        "Struct",
        StructArray::from(fields),
        json!([{ "city": "Oslo", "zip": 150 }, { "city": null, "zip": 1 }]),
    );
}

/// A plugin that reads a nested feature gets the JSON of the response as text.
#[test]
fn plugin_gets_nested_features_as_json() {
    let mut map = MapBuilder::new(None, StringBuilder::new(), arrow::array::Int64Builder::new());
    map.keys().append_value("a \"b\"");
    map.values().append_value(i64::MAX);
    map.append(true).unwrap();
    map.append(false).unwrap();
    map.append(true).unwrap();
    let field = |name: &str, kind| Arc::new(Field::new(name, kind, true));
    let fields: Vec<(Arc<Field>, ArrayRef)> = vec![
        (field("city", DataType::Utf8), Arc::new(StringArray::from(vec![Some("Zürich"), None, Some("")]))),
        (field("zip", DataType::Int64), Arc::new(Int64Array::from(vec![Some(8_001), Some(1), None]))),
    ];
    let places = StructArray::from(fields);
    let mut grid = arrow::array::ListBuilder::new(arrow::array::ListBuilder::new(arrow::array::Int64Builder::new()));
    grid.values().append_value([Some(1), Some(2)]);
    grid.values().append_value([Some(3)]);
    grid.append(true);
    grid.append(false);
    grid.append(true);
    let people = ListArray::new(
        field("item", places.data_type().clone()),
        arrow::buffer::OffsetBuffer::from_lengths([2, 0, 1]),
        Arc::new(places.clone()),
        None,
    );
    let columns: [(&str, &str, ArrayRef); 4] = [
        ("map", "Map", Arc::new(map.finish())),
        ("place", "Struct", Arc::new(places)),
        ("grid", "Array(Array)", Arc::new(grid.finish())),
        ("people", "Array(Struct)", Arc::new(people)),
    ];
    let features = columns.each_ref().map(|(name, of, _)| format!("{{name: {name}, type: {of}}}")).join(", ");
    let derived = columns.each_ref().map(|(name, ..)| {
        format!(
            "  - name: of_{name}\n    plugin: echo\n    inputs: [{{name: text, from: 'stats:{name}'}}, \
             {{name: numbers, request: Array(Float64)}}, {{name: items, request: Array(Float64)}}]\n    \
             features: [{{name: text, type: String}}]\n"
        )
    });
    let setup = Setup::with(&format!(
        "entities: [{{name: driver, join_key: driver_id, type: Int64}}]\n\
         feature_views: [{{name: stats, entities: [driver], features: [{features}], \
         source: {{path: data/stats.parquet, timestamp_field: event_timestamp}}}}]\n\
         derived_views:\n{}",
        derived.concat()
    ));
    let mut stored: Columns = vec![
        ("driver_id", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        ("event_timestamp", times([Some(1); 3].into_iter())),
    ];
    stored.extend(columns.iter().map(|(name, _, array)| (*name, Arc::clone(array))));
    write(&setup.path("data/stats.parquet"), &stored);
    let fixture = setup.plugins(&["echo"]).start();
    // Driver 4 has no row.
    let nulls = vec![Value::Null; 4];
    let entities = json!({ "driver_id": [1, 2, 3, 4], "numbers": nulls, "items": nulls });
    for (name, ..) in &columns {
        let served = fixture.features(&[&format!("stats:{name}")], entities.clone()).column(name)["values"].clone();
        let given = fixture.features(&[&format!("of_{name}:text")], entities.clone()).column("text");
        assert_eq!(given["statuses"], json!(vec!["PRESENT"; 4]), "{name}");
        let given = given["values"].as_array().unwrap();
        let parsed =
            given.iter().map(|text| text.as_str().map_or(Value::Null, |text| serde_json::from_str(text).unwrap()));
        assert_eq!(Value::from_iter(parsed), served, "{name}");
        assert!(given[0].is_string() && given[3].is_null(), "{name}: {given:?}");
        if *name == "map" {
            assert_eq!(given, json!([r#"{"a \"b\"":9223372036854775807}"#, null, "{}", null]).as_array().unwrap());
        }
    }
}

#[test]
fn composite_keys_and_entityless_views() {
    let definitions = "
entities: [{name: driver, join_key: driver_id, type: Int64}, {name: day, join_key: day, type: String}]
feature_views:
  - name: pairs
    entities: [driver, day]
    source: {path: data/pairs.parquet, timestamp_field: event_timestamp}
    features: [{name: n, type: Int64}]
  - name: global
    entities: []
    source: {path: data/global.parquet, timestamp_field: event_timestamp}
    features: [{name: mean, type: Float64}]
";
    let setup = Setup::with(definitions);
    let pairs: Columns = vec![
        ("day", Arc::new(StringArray::from(vec!["mon", "tue"]))),
        ("driver_id", Arc::new(Int64Array::from(vec![1, 1]))),
        ("event_timestamp", times([Some(1), Some(1)].into_iter())),
        ("n", Arc::new(Int64Array::from(vec![10, 20]))),
    ];
    write(&setup.path("data/pairs.parquet"), &pairs);
    let global: Columns = vec![
        ("event_timestamp", times([Some(9), Some(5), Some(7)].into_iter())),
        ("mean", Arc::new(Float64Array::from(vec![0.9, 0.5, 0.7]))),
    ];
    write(&setup.path("data/global.parquet"), &global);
    let fixture = setup.start();
    let entities = json!({ "driver_id": [1, 1, 2], "day": ["tue", "mon", "mon"] });
    let answer = fixture.features(&["pairs:n", "global:mean"], entities);
    assert_eq!(answer.column("n")["values"], json!([20, 10, null]));
    assert_eq!(answer.column("mean")["values"], json!([0.5, 0.5, 0.5]), "the newest row, for every request");
}
