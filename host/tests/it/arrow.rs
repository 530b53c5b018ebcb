//! Responses in Arrow: they have the same values as the JSON responses, with types.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, TimestampSecondArray,
    },
    compute::cast,
    datatypes::{DataType, Field, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType},
    ipc::reader::StreamReader,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    fixture::{Fixture, Setup},
    guests::FEAST_ODFV,
    parquet::{times, write},
    wire,
};

const ARROW: &str = "application/vnd.apache.arrow.stream";

const CUSTOMERS: [&str; 15] = [
    "customer_stats:txn_count",
    "customer_stats:small_int",
    "customer_stats:avg_amount",
    "customer_stats:balance",
    "customer_stats:is_active",
    "customer_stats:segment",
    "customer_stats:raw_blob",
    "customer_stats:last_login",
    "customer_stats:tags",
    "customer_stats:recent_ids",
    "customer_stats:embedding",
    "customer_stats:scores",
    "customer_stats:flags",
    "customer_stats:blobs",
    "customer_stats:login_times",
];

fn ask(fixture: &Fixture, accept: &[&str], body: &Value) -> wire::Answer {
    let headers: Vec<_> = accept.iter().map(|accept| ("accept", *accept)).collect();
    wire::send(fixture.address(), "POST", "/get-online-features", &headers, body.to_string().as_bytes())
}

/// Returns the only batch of a response.
fn batch(answer: &wire::Answer) -> RecordBatch {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.headers["content-type"], ARROW);
    let batches: Vec<_> = StreamReader::try_new(&answer.body[..], None).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(batches.len(), 1);
    batches.into_iter().next().unwrap()
}

fn column(batch: &RecordBatch, name: &str) -> ArrayRef {
    Arc::clone(batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name}: {:?}", batch.schema())))
}

fn strings(batch: &RecordBatch, name: &str) -> Vec<String> {
    let texts = cast(&column(batch, name), &DataType::Utf8).unwrap();
    texts.as_string::<i32>().iter().map(|text| text.unwrap().to_owned()).collect()
}

fn micros(batch: &RecordBatch, name: &str) -> Vec<Option<i64>> {
    column(batch, name).as_primitive::<TimestampMicrosecondType>().iter().collect()
}

/// Clients concatenate responses, which is only possible if their schemas are equal.
#[test]
fn schema_does_not_depend_on_nulls() {
    let fixture = Setup::golden().start();
    let of = |keys: Value| {
        let body = json!({ "features": CUSTOMERS, "entities": { "customer_id": keys } });
        batch(&ask(&fixture, &[ARROW], &body)).schema()
    };
    let schema = of(json!(["CUST_000123"]));
    assert!(schema.field_with_name("customer_id").unwrap().is_nullable());
    for keys in [json!([null]), json!(["NOPE"]), json!(["CUST_000123", null])] {
        assert_eq!(of(keys.clone()), schema, "{keys}");
    }
    // A key that no requested feature uses has its declared type, too, unless its values have another one.
    let type_of_unused = |keys: Value| {
        let entities = json!({ "customer_id": ["CUST_000123"], "driver_id": keys });
        let body = json!({ "features": CUSTOMERS, "entities": entities });
        column(&batch(&ask(&fixture, &[ARROW], &body)), "driver_id").data_type().clone()
    };
    assert_eq!([json!([null]), json!([1001])].map(type_of_unused), [DataType::Int64, DataType::Int64]);
    assert_eq!(type_of_unused(json!(["a"])), DataType::Utf8);
}

/// Returns a value of an array as it must be in the JSON response.
fn as_json(array: &dyn Array, row: usize) -> Value {
    let float = |value: f64| match value {
        value if value.is_nan() => json!("NaN"),
        f64::INFINITY => json!("Infinity"),
        f64::NEG_INFINITY => json!("-Infinity"),
        // The number is formatted and parsed again, because serde_json may parse a double with an error in its last
        // bit, and the JSON response was parsed in the same way.
        value => serde_json::from_str(&json!(value).to_string()).unwrap(),
    };
    match array.data_type() {
        // Feast's placeholder for a null instant.
        DataType::Timestamp(..) if array.is_null(row) => json!(i64::MIN),
        _ if array.is_null(row) => Value::Null,
        DataType::Int64 => json!(array.as_primitive::<Int64Type>().value(row)),
        DataType::Int32 => json!(array.as_primitive::<Int32Type>().value(row)),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(row)),
        DataType::Float32 => float(f64::from(array.as_primitive::<Float32Type>().value(row))),
        DataType::Boolean => json!(array.as_boolean().value(row)),
        DataType::Utf8 => json!(array.as_string::<i32>().value(row)),
        DataType::Binary => json!(STANDARD.encode(array.as_binary::<i32>().value(row))),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            assert_eq!(zone.as_deref(), Some("UTC"));
            json!(array.as_primitive::<TimestampMicrosecondType>().value(row).div_euclid(1_000_000))
        }
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            (0..items.len()).map(|item| as_json(&items, item)).collect()
        }
        other => panic!("{other}"),
    }
}

/// Requests JSON and Arrow, and compares every value, status and time.
pub(crate) fn assert_same(fixture: &Fixture, body: &Value) -> RecordBatch {
    let json = ask(fixture, &[], body);
    assert_eq!(json.status, 200, "{}", json.text());
    let json = json.json();
    let batch = batch(&ask(fixture, &[ARROW], body));
    let names: Vec<&str> =
        json["metadata"]["feature_names"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    let mut expected: Vec<String> = names.iter().map(ToString::to_string).collect();
    for (name, result) in names.iter().zip(json["results"].as_array().unwrap()) {
        let array = column(&batch, name);
        let is_tree = |value: &Value| array.data_type() == &DataType::Utf8 && !value.is_string() && !value.is_null();
        let statuses = result["statuses"].as_array().unwrap();
        for (row, value) in result["values"].as_array().unwrap().iter().enumerate() {
            let mut found = as_json(&array, row);
            if is_tree(value) {
                found = serde_json::from_str(found.as_str().unwrap()).unwrap();
            }
            if statuses[row] == "NOT_FOUND" {
                assert!(value.is_null() && array.is_null(row), "{name} {row}");
            } else {
                assert_eq!(found, *value, "{name} {row}");
            }
        }
        if body["entities"].get(name).is_some() {
            let nulls = result["values"].as_array().unwrap().iter().filter(|value| value.is_null()).count();
            assert_eq!(array.null_count(), nulls);
            continue;
        }
        expected.extend([format!("{name}__status"), format!("{name}__event_timestamp")]);
        assert_eq!(json!(strings(&batch, &format!("{name}__status"))), result["statuses"], "{name}");
        let epoch = |time: &Value| time.as_str().unwrap().parse::<Timestamp>().unwrap().as_microsecond();
        let times: Vec<i64> = result["event_timestamps"].as_array().unwrap().iter().map(epoch).collect();
        let found = micros(&batch, &format!("{name}__event_timestamp"));
        assert_eq!(found.iter().map(|time| time.unwrap_or(0)).collect::<Vec<_>>(), times, "{name}");
        assert!(!found.contains(&Some(0)), "{name}");
    }
    let schema = batch.schema();
    let mut found: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
    assert_eq!(
        found[..names.len()],
        expected.iter().collect::<Vec<_>>()[..names.len()],
        "the columns have the order of the JSON response"
    );
    found.sort();
    expected.sort();
    assert_eq!(found, expected.iter().collect::<Vec<_>>());
    batch
}

#[test]
fn every_type_in_arrow_equals_json() {
    let fixture = Setup::golden().start();
    let customers = ["CUST_000124", "CUST_000123", "NOPE", "CUST_000125", "CUST_000123"];
    let body = json!({ "features": CUSTOMERS, "entities": { "customer_id": customers } });
    let batch = assert_same(&fixture, &body);
    let instant = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let list = |of| DataType::List(Arc::new(Field::new_list_field(of, true)));
    let types = [
        DataType::Int64,
        DataType::Int32,
        DataType::Float32,
        DataType::Float64,
        DataType::Boolean,
        DataType::Utf8,
        DataType::Binary,
        instant(),
        list(DataType::Utf8),
        list(DataType::Int64),
        list(DataType::Float32),
        list(DataType::Float64),
        list(DataType::Boolean),
        list(DataType::Binary),
        list(instant()),
    ];
    for (feature, expected) in CUSTOMERS.iter().zip(types) {
        assert_eq!(*column(&batch, &feature["customer_stats:".len()..]).data_type(), expected, "{feature}");
    }
    let exact: Vec<_> = column(&batch, "txn_count").as_primitive::<Int64Type>().iter().collect();
    let large = Some(9_007_199_254_740_993);
    assert_eq!(exact, [Some(42), large, None, None, large]);
    assert_eq!(strings(&batch, "customer_id"), customers);
}

#[test]
fn missing_rows_are_null_in_arrow() {
    let fixture = Setup::golden().start();
    let entities = json!({ "customer_id": ["CUST_000125", "NOPE"] });
    let batch = batch(&ask(&fixture, &[ARROW], &json!({ "features": CUSTOMERS, "entities": entities })));
    for feature in CUSTOMERS {
        let name = &feature["customer_stats:".len()..];
        assert_eq!(column(&batch, name).null_count(), 2, "{name}");
        assert_eq!(strings(&batch, &format!("{name}__status")), ["PRESENT", "NOT_FOUND"]);
        let event_time = "2026-11-23T05:13:10Z".parse::<Timestamp>().unwrap().as_microsecond();
        assert_eq!(micros(&batch, &format!("{name}__event_timestamp")), [Some(event_time), None]);
    }
}

#[test]
fn expired_values_in_arrow_equal_json() {
    let fixture = Setup::golden().start();
    let features = ["expired_stats:stale_value", "driver_stats:conv_rate", "global_stats:global_mean"];
    let rows = |of: &[Value]| of.iter().cycle().take(1000).cloned().collect::<Vec<_>>();
    let customers = rows(&[json!("CUST_000123"), json!("NOPE")]);
    let drivers = rows(&[json!(1001), json!(9999), json!(1002)]);
    let entities = json!({ "customer_id": customers, "driver_id": drivers });
    let batch = assert_same(&fixture, &json!({ "features": features, "entities": entities }));
    assert_eq!(strings(&batch, "stale_value__status")[..2], ["OUTSIDE_MAX_AGE", "NOT_FOUND"]);
    // A request without entities, with full names.
    let body = json!({ "features": ["global_stats:global_mean"], "entities": {}, "full_feature_names": true });
    let batch = assert_same(&fixture, &body);
    assert_eq!((batch.num_rows(), batch.num_columns()), (1, 3));
}

#[test]
fn derived_features_in_arrow_equal_json() {
    let body = json!({
        "features": ["odfv_python:label", "odfv_python:conv_x_amount", "driver_stats:conv_rate"],
        "entities": { "driver_id": [1001, 9999], "amount": [2.0, 3.0], "hour": [1, 2] },
    });
    // With the second setup, every plugin runs on the compute threads.
    for setup in [Setup::golden(), Setup::golden().plugins_in_separate_dir()] {
        let fixture = setup.plugins(&FEAST_ODFV).start();
        let batch = assert_same(&fixture, &body);
        assert_eq!(as_json(&column(&batch, "conv_x_amount"), 0), json!(1.2002));
        assert_eq!(strings(&batch, "label"), ["h1", "h2"]);
        assert_eq!(micros(&batch, "label__event_timestamp"), [None, None], "a computed feature has no event time");
    }
    let batch = assert_same(&Setup::golden().start(), &body);
    assert_eq!(strings(&batch, "label__status"), ["INVALID", "INVALID"], "the view has no plugin");
}

#[test]
fn unused_key_has_its_values_type() {
    let fixture = Setup::golden().start();
    for (customers, expected) in [
        (json!([1.5, 2]), DataType::Float64),
        (json!([1, 2.9]), DataType::Int64),
        (json!(["a", 1]), DataType::Utf8),
        (json!([true, 0]), DataType::Boolean),
    ] {
        let entities = json!({ "driver_id": ["1001", 9999.0], "customer_id": customers });
        let batch = assert_same(&fixture, &json!({ "features": ["driver_stats:conv_rate"], "entities": entities }));
        assert_eq!(*column(&batch, "customer_id").data_type(), expected);
        assert_eq!(*column(&batch, "driver_id").data_type(), DataType::Int64);
    }
}

/// Starts a server with one view, which has one row and these features, which are doubles.
fn one_row(key_type: &str, key: ArrayRef, features: &[&'static str]) -> Fixture {
    let named = features.iter().map(|name| format!("{{name: {name}, type: Float64}}")).collect::<Vec<_>>().join(", ");
    let setup = Setup::with(&format!(
        "entities: [{{name: k, join_key: k, type: {key_type}}}]\n\
         feature_views: [{{name: stats, entities: [k], features: [{named}], \
         source: {{path: data/stats.parquet, timestamp_field: event_timestamp}}}}]\n"
    ));
    let mut columns: Vec<(&'static str, ArrayRef)> =
        vec![("k", key), ("event_timestamp", times([Some(1)].into_iter()))];
    let value: ArrayRef = Arc::new(Float64Array::from(vec![0.5]));
    columns.extend(features.iter().map(|name| (*name, Arc::clone(&value))));
    write(&setup.path("data/stats.parquet"), &columns);
    setup.start()
}

#[test]
fn keys_of_every_other_type() {
    let keys: [(&str, ArrayRef, Value, DataType); 3] = [
        ("Int32", Arc::new(Int32Array::from(vec![7])), json!([7, 8]), DataType::Int32),
        ("Bytes", Arc::new(BinaryArray::from(vec![&b"ab"[..]])), json!(["ab", ""]), DataType::Binary),
        (
            "UnixTimestamp",
            Arc::new(TimestampSecondArray::from(vec![1_700_000_000])),
            json!([1_700_000_000, -1]),
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        ),
    ];
    for (key_type, array, asked, expected) in keys {
        let fixture = one_row(key_type, array, &["f"]);
        let body = json!({ "features": ["stats:f"], "entities": { "k": asked } });
        let batch = batch(&ask(&fixture, &[ARROW], &body));
        assert_eq!(*column(&batch, "k").data_type(), expected);
        assert_eq!(strings(&batch, "f__status"), ["PRESENT", "NOT_FOUND"], "{key_type}");
        match key_type {
            "Bytes" => assert_eq!(column(&batch, "k").as_binary::<i32>().value(0), b"ab"),
            _ => assert_eq!(json!([as_json(&column(&batch, "k"), 0), as_json(&column(&batch, "k"), 1)]), asked),
        }
        if key_type == "UnixTimestamp" {
            let body = json!({ "features": ["stats:f"], "entities": { "k": [i64::MAX] } });
            assert_eq!(ask(&fixture, &[], &body).status, 200);
            let answer = ask(&fixture, &[ARROW], &body);
            assert_eq!(answer.status, 400);
            assert!(answer.text().contains("column 'k' cannot hold 9223372036854775807"), "{}", answer.text());
        }
    }
}

#[test]
fn accept_header_selects_arrow() {
    let fixture = Setup::golden().start();
    let body = json!({ "features": ["driver_stats:conv_rate"], "entities": { "driver_id": [1001] } });
    for accept in [
        &[ARROW][..],
        &["application/vnd.apache.arrow.stream, */*;q=0.1"],
        &["application/json;q=0.9, application/vnd.apache.arrow.stream"],
        &["application/json;q=0.9", "Application/Vnd.Apache.Arrow.Stream; q=0.9"],
    ] {
        assert_eq!(batch(&ask(&fixture, accept, &body)).num_rows(), 1, "{accept:?}");
    }
    let plain = ask(&fixture, &[], &body);
    for accept in [
        "*/*",
        "application/json",
        "text/html",
        "application/vnd.apache.arrow.stream;q=0",
        "application/json, application/vnd.apache.arrow.stream;q=0.9",
    ] {
        let answer = ask(&fixture, &[accept], &body);
        assert_eq!(answer.headers["content-type"], "application/json", "{accept}");
        assert_eq!(answer.body, plain.body, "{accept}");
    }
}

#[test]
fn errors_stay_json() {
    let fixture = Setup::golden().start();
    for body in [
        json!({ "features": ["driver_stats:nope"], "entities": { "driver_id": [1001] } }),
        json!({ "features": ["driver_stats:conv_rate"], "entities": {} }),
        json!([]),
    ] {
        let (json, arrow) = (ask(&fixture, &[], &body), ask(&fixture, &[ARROW], &body));
        assert!(arrow.status >= 400, "{body}");
        assert_eq!((arrow.status, arrow.json()), (json.status, json.json()));
        assert_eq!(arrow.headers["content-type"], "application/json");
    }
}

#[test]
fn names_that_collide_are_refused() {
    let fixture = one_row("Int64", Arc::new(Int64Array::from(vec![1])), &["a", "a__status"]);
    let body = json!({ "features": ["stats:a", "stats:a__status"], "entities": { "k": [1] } });
    assert_eq!(ask(&fixture, &[], &body).status, 200);
    let answer = ask(&fixture, &[ARROW], &body);
    assert_eq!(answer.status, 400);
    let message = "as Arrow, two columns would be named 'a__status': each feature comes with NAME__status and \
                NAME__event_timestamp. hint: request full feature names, fewer features, or JSON";
    assert_eq!(answer.json(), json!({ "detail": message }));
}

#[test]
fn schema_lists_views_on_request() {
    let fixture = Setup::golden().start();
    let body = |wanted: bool| {
        json!({
            "features": ["driver_stats:conv_rate"], "entities": { "driver_id": [1001] },
            "include_feature_view_version_metadata": wanted,
        })
    };
    assert!(assert_same(&fixture, &body(false)).schema().metadata().is_empty());
    let batch = assert_same(&fixture, &body(true));
    assert_eq!(batch.schema().metadata()["feature_view_metadata"], r#"[{"name":"driver_stats"}]"#);
}
