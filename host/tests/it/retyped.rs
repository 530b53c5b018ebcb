//! Features whose type changes in the definitions. Until their source is loaded again, rows of the previous load keep
//! serving. Values are converted to the new type if no information is lost.

use std::{fs, sync::Arc};

use arrow::array::{Float64Array, Int64Array, StringArray};
use larder_http::SyncCommand;
use serde_json::{Value, json};

use crate::{
    arrow::assert_same,
    fixture::{Fixture, Setup, metric, replace},
    parquet::{Columns, times, write},
};

const FILE: &str = "data/stats.parquet";

/// Returns the definitions of a view with a source and this `mode`, and of a view that only callers write.
fn definitions(mode: &str, features: &str) -> String {
    format!(
        "entities: [{{name: driver, join_key: driver_id, type: Int64}}]\n\
         feature_views:\n\
         \x20 - {{name: stats, entities: [driver], mode: {mode}, features: [{features}],\n\
         \x20    source: {{path: {FILE}, timestamp_field: event_timestamp}}}}\n\
         \x20 - {{name: written, entities: [driver], features: [{features}]}}\n"
    )
}

fn columns() -> Columns {
    vec![
        ("driver_id", Arc::new(Int64Array::from(vec![1, 2]))),
        ("event_timestamp", times([Some(60), Some(60)].into_iter())),
        ("x", Arc::new(Int64Array::from(vec![5, i64::from(i32::MAX) + 1]))),
        ("y", Arc::new(Float64Array::from(vec![0.5, 1.5]))),
        ("z", Arc::new(StringArray::from(vec!["a", "b"]))),
    ]
}

const BEFORE: &str = "{name: x, type: Int64}, {name: y, type: Float64}, {name: z, type: String}";

/// Starts a server with rows of drivers 1 and 2 in both views, and then removes the source's file.
fn loaded(mode: &str) -> Fixture {
    let setup = Setup::with(&definitions(mode, BEFORE)).config("sync: {retry: 1h}\n");
    write(&setup.path(FILE), &columns());
    let fixture = setup.start();
    let rows = json!({
        "driver_id": [1, 2], "event_timestamp": ["2026-11-23T00:00:00", "2026-11-23T00:00:00"],
        "x": [5, i64::from(i32::MAX) + 1], "y": [0.5, 1.5], "z": ["a", "b"],
    });
    let body = json!({ "feature_view_name": "written", "df": rows });
    assert_eq!(fixture.post("/write-to-online-store", body.to_string().as_bytes()).status, 200);
    fs::remove_file(fixture.path(FILE)).unwrap();
    fixture
}

/// Reloads changed definitions, without waiting for the file watcher.
fn redefine(fixture: &Fixture, mode: &str, features: &str) {
    replace(fixture.path("features/defined.yaml"), definitions(mode, features));
    fixture.app.reload_definitions().unwrap_or_else(|error| panic!("{error}"));
}

/// Returns the values and statuses of a feature for drivers 1 and 2.
fn answer(fixture: &Fixture, view: &str, feature: &str) -> (Value, Value) {
    let body = json!({ "features": [format!("{view}:{feature}")], "entities": { "driver_id": [1, 2] } });
    assert_same(fixture, &body);
    let column = fixture.post("/get-online-features", body.to_string().as_bytes()).column(feature);
    (column["values"].clone(), column["statuses"].clone())
}

fn assert_answer(fixture: &Fixture, feature: &str, values: Value, statuses: Value) {
    for view in ["stats", "written"] {
        // The first lookup reads rows from disk, and the second one reads them from memory.
        for _ in 0..2 {
            assert_eq!(answer(fixture, view, feature), (values.clone(), statuses.clone()), "{view}:{feature}");
        }
    }
}

const PRESENT: [&str; 2] = ["PRESENT", "PRESENT"];
const NOT_FOUND: [&str; 2] = ["NOT_FOUND", "NOT_FOUND"];

#[test]
fn retyped_feature_keeps_serving_converted_values() {
    for mode in ["upsert", "replace"] {
        let mut fixture = loaded(mode);
        for (of, values, statuses) in [
            ("String", json!(["5", "2147483648"]), json!(PRESENT)),
            ("Int32", json!([5, null]), json!(["PRESENT", "NOT_FOUND"])),
            ("Float64", json!([5.0, 2_147_483_648.0]), json!(PRESENT)),
            ("Array(Int64)", json!([[5], [2_147_483_648_i64]]), json!(PRESENT)),
            ("Bytes", json!([null, null]), json!(NOT_FOUND)),
            ("Int64", json!([5, 2_147_483_648_i64]), json!(PRESENT)),
        ] {
            let features = format!("{{name: x, type: {of}}}, {{name: y, type: Float64}}, {{name: z, type: String}}");
            redefine(&fixture, mode, &features);
            for _ in 0..2 {
                assert_answer(&fixture, "x", values.clone(), statuses.clone());
                // Features that did not change are not affected.
                assert_answer(&fixture, "y", json!([0.5, 1.5]), json!(PRESENT));
                assert_answer(&fixture, "z", json!(["a", "b"]), json!(PRESENT));
                assert_eq!(fixture.get("/ready").status, 200, "{of}");
                fixture = fixture.restart();
            }
        }
    }
}

#[test]
fn feature_added_again_keeps_its_values() {
    let fixture = loaded("upsert");
    redefine(&fixture, "upsert", "{name: y, type: Float64}, {name: z, type: Bytes}");
    assert_answer(&fixture, "z", json!(["YQ==", "Yg=="]), json!(PRESENT));
    redefine(&fixture, "upsert", "{name: x, type: String}, {name: y, type: Float64}, {name: new, type: Int64}");
    assert_answer(&fixture, "x", json!(["5", "2147483648"]), json!(PRESENT));
    assert_answer(&fixture, "new", json!([null, null]), json!(NOT_FOUND));
}

#[test]
fn new_load_replaces_converted_values() {
    let fixture = loaded("replace");
    redefine(&fixture, "replace", "{name: x, type: String}, {name: y, type: Float64}");
    assert_eq!(answer(&fixture, "stats", "x").0, json!(["5", "2147483648"]));
    let mut columns = columns();
    columns[2].1 = Arc::new(StringArray::from(vec!["five", "many"]));
    write(&fixture.path(FILE), &columns);
    fixture.sync(&SyncCommand { views: vec!["stats".to_owned()], ..SyncCommand::default() }).unwrap();
    assert_eq!(answer(&fixture, "stats", "x").0, json!(["five", "many"]));
    assert_eq!(retyped(&fixture, "stats"), json!([]), "no row of the previous type is left");
    assert_eq!(answer(&fixture, "written", "x").0, json!(["5", "2147483648"]), "this view has no source");
}

/// A view that upserts keeps its rows. Only when all rows have been read again is it certain that no row has the
/// previous type.
#[test]
fn retyped_list_ends_when_all_rows_are_read() {
    let fixture = loaded("upsert");
    redefine(&fixture, "upsert", "{name: x, type: Float64}, {name: y, type: Float64}, {name: z, type: String}");
    assert_eq!(retyped(&fixture, "stats")[0]["served"], "converted");
    let count = || metric("larder_view_features_retyped{view=\"stats\",served=\"converted\"}");
    fixture.eventually("the feature is counted", || count() == 1.0);
    write(&fixture.path(FILE), &columns());
    fixture.sync(&SyncCommand { views: vec!["stats".to_owned()], ..SyncCommand::default() }).unwrap();
    assert_eq!(answer(&fixture, "stats", "x").0, json!([5.0, 2_147_483_648.0]));
    assert_eq!(retyped(&fixture, "stats"), json!([]));
    assert_eq!(count(), 0.0);
    assert_eq!(retyped(&fixture, "written")[0]["name"], "x", "this view has no source");
}

/// Returns the list of a view's features with a changed type, from the catalog.
fn retyped(fixture: &Fixture, view: &str) -> Value {
    let catalog = fixture.get("/v1/catalog").json();
    let views = catalog["feature_views"].as_array().unwrap();
    views.iter().find(|known| known["name"] == view).unwrap()["retyped_features"].clone()
}

#[test]
fn catalog_lists_inconvertible_features() {
    let fixture = loaded("upsert");
    assert_eq!(retyped(&fixture, "stats"), json!([]));
    redefine(&fixture, "upsert", "{name: x, type: Bytes}, {name: y, type: Float32}, {name: z, type: String}");
    let expected = json!([
        { "name": "x", "stored_type": "Int64", "type": "Bytes", "served": "not_found" },
        { "name": "y", "stored_type": "Float64", "type": "Float32", "served": "converted" },
    ]);
    assert_eq!((retyped(&fixture, "stats"), retyped(&fixture, "written")), (expected.clone(), expected));
}
