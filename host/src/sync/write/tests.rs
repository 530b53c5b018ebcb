//! Which columns of a table are a view's, and what is missing; the values are tested in `cell`.

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

fn encode(view: &str, json: Value) -> Result<usize, String> {
    let problems = Problems::default();
    let mut definitions = Definitions::default();
    definitions.read("test", DEFINITIONS, &problems);
    let catalog = validate("shop", KeyVersion::V3, definitions, &problems).unwrap();
    let view = catalog.view(view).unwrap();
    frame(json).encode(view, KeyVersion::V3).map(|batch| batch.len()).map_err(|error| error.to_string())
}

#[test]
fn columns_go_by_the_names_of_definitions_of_files_and_of_feasts_client() {
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
        Err("feature view 'mapped' needs column 'event_ts', which the data does not have".to_owned())
    );
    assert_eq!(
        encode("mapped", json!({"made": ["A"]})),
        Err("feature view 'mapped' needs columns 'event_ts', 'customer_id', 'value', which the data does not have"
            .to_owned())
    );
}

#[test]
fn a_feature_may_have_the_name_of_a_time_column() {
    assert_eq!(encode("everybody", json!({"event_timestamp": ["2026-01-01"], "created": ["by hand"]})), Ok(1));
}

#[test]
fn columns_have_one_length() {
    assert_eq!(
        encode("mapped", json!({"customer_id": ["A", "B"], "event_ts": ["2026-01-01"], "value": [1]})),
        Err("column 'event_ts' has 1 values, and 'customer_id' has 2".to_owned())
    );
}
