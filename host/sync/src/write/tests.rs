//! Tests which columns of a table are used for a view, and which are reported as missing. The tests of values are in
//! `larder_model::codec::coerce`.

use larder_model::{
    registry::{Definitions, validate},
    yaml::Problems,
};
use serde_json::{Value, json};

use super::*;

const DEFINITIONS: &str = "
entities: [{name: customer, join_key: customer_id, type: String}]
feature_views:
  - name: mapped
    entities: [customer]
    source:
      path: x.parquet
      timestamp_field: event_ts
      created_timestamp_column: made
      field_mapping: {cust: customer_id, ts: event_ts, val: value}
    features: [{name: value, type: Int64}]
  - name: everybody
    features: [{name: created, type: String}]
";

fn frame(json: Value) -> Frame {
    let Value::Object(columns) = json else { panic!("an object") };
    let cell = |value: &Value| Cell::from_json(&value.to_string()).unwrap();
    let cells = |values: Value| values.as_array().unwrap().iter().map(cell).collect();
    Frame { columns: columns.into_iter().map(|(name, values)| (name, cells(values))).collect() }
}

/// 2026-11-23T00:00:00Z.
const NOW: Micros = 1_795_392_000_000_000;

/// An hour of tolerance, and exact times.
const RULES: TimeRules =
    TimeRules { now: NOW, times: RowTimes { tolerance: 3_600_000_000, coarse: false, is_static: false }, unit: None };

fn encode(view: &str, json: Value) -> Result<usize, String> {
    encode_with(view, json, RULES)
}

fn encode_with(view: &str, json: Value, rules: TimeRules) -> Result<usize, String> {
    let problems = Problems::default();
    let mut definitions = Definitions::default();
    definitions.read("test", DEFINITIONS, &problems);
    let catalog = validate("shop", KeyVersion::V3, definitions, &problems).unwrap();
    let view = catalog.view(view).unwrap();
    super::encode(&frame(json), view, KeyVersion::V3, rules).map(|batch| batch.len()).map_err(|error| error.to_string())
}

#[test]
fn columns_match_definition_or_client_names() {
    let one = Ok(1);
    assert_eq!(encode("mapped", json!({"customer_id": ["A"], "event_ts": ["2026-01-01"], "value": [1]})), one);
    assert_eq!(encode("mapped", json!({"cust": ["A"], "ts": ["2026-01-01"], "val": [1], "made": [null]})), one);
    assert_eq!(
        encode(
            "mapped",
            json!({"customer_id": ["A"], "event_timestamp": ["2026-01-01"], "value": [1], "created": [null]})
        ),
        one
    );
    assert_eq!(
        encode("mapped", json!({"customer_id": ["A"], "value": [1]})),
        Err("feature view 'mapped' needs column 'event_ts', but the data has no such column".to_owned())
    );
    assert_eq!(
        encode("mapped", json!({"made": ["A"]})),
        Err("feature view 'mapped' needs columns 'event_ts', 'customer_id', 'value', but the data has no such column"
            .to_owned())
    );
}

#[test]
fn feature_may_have_time_columns_name() {
    assert_eq!(encode("everybody", json!({"event_timestamp": ["2026-01-01"], "created": ["by hand"]})), Ok(1));
}

#[test]
fn columns_of_different_length_are_rejected() {
    assert_eq!(
        encode("mapped", json!({"customer_id": ["A", "B"], "event_ts": ["2026-01-01"], "value": [1]})),
        Err("column 'event_ts' has 1 values, but 'customer_id' has 2".to_owned())
    );
}

#[test]
fn future_event_is_rejected_with_setting() {
    let two = |time: &str| {
        encode(
            "mapped",
            json!({"customer_id": ["A", "B"], "event_ts": ["2026-11-23", time], "value": [1, 2], "made": [null, "2040-01-01"]}),
        )
    };
    assert_eq!(two("2026-11-23T01:00:00Z"), Ok(2), "up to the tolerance, whatever the created time is");
    assert_eq!(
        two("2026-11-23T01:00:00.000001Z"),
        Err("feature view 'mapped', column 'event_ts', row 1: the event time 2026-11-23T01:00:00.000001Z is later than \
             now plus 'sync: future_tolerance' (1h)"
            .to_owned())
    );
}

#[test]
fn times_are_truncated_like_the_sources() {
    let exact = RULES.truncate((NOW + 987_654, 321));
    assert_eq!(exact, (NOW + 987_654, 321));
    let whole_seconds = TimeRules { unit: Some(1_000_000), ..RULES };
    assert_eq!(whole_seconds.truncate((NOW + 987_654, 321)), (NOW, 987_654_321));
    assert_eq!(whole_seconds.truncate((-1, 999)), (-1_000_000, 999_999_999), "before 1970 too");
    let whole_micros = TimeRules { unit: Some(1), ..RULES };
    assert_eq!(whole_micros.truncate((NOW + 987_654, 321)), (NOW + 987_654, 321));
}
