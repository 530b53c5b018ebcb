//! Mistakes that show in requests.

use std::fs;

use expect_test::expect_file;
use larder_http::Control;
use serde_json::{Value, json};

use super::Page;
use crate::{fixture::Setup, guests::guest};

/// Returns a view of the hostile plugin in a mode that affects rows whose `x` is at least 1000.
fn view(name: &str, mode: &str, on_error: &str) -> String {
    format!(
        "  - name: {name}
    plugin: hostile
    inputs: [{{name: x, request: Float64}}]
    features: [{{name: y, type: Float64}}]
    config: {{mode: {mode}, bad: 1000}}
    on_error: {on_error}
"
    )
}

#[test]
fn request_features() {
    let views = [
        "derived_views:\n".to_owned(),
        view("fault_fails", "fault", "fail"),
        view("trap_fails", "trap", "fail"),
        view("spin_fails", "spin", "fail"),
        view("memory_fails", "memory", "fail"),
        view("fault_null", "fault", "'null'"),
        "  - name: large_numbers
    plugin: hostile
    inputs: [{name: x, request: Int64}]
    features: [{name: y, type: Float64}]
    on_error: fail
  - name: rates
    plugin: not_there
    inputs: [{name: x, request: Float64}]
    features: [{name: rate, type: Float64}]
    on_error: fail
"
        .to_owned(),
    ];
    let fixture = Setup::with(&views.concat()).start();
    fixture.app.deploy(&fs::read(guest("hostile")).unwrap(), true).unwrap();
    let mut page = Page::new();
    let rows = json!({ "x": [1.0, 2000.0] });
    for (mistake, feature, entities) in [
        ("a row fails, and the view has on_error: fail", "fault_fails:y", &rows),
        ("a row traps", "trap_fails:y", &rows),
        ("a row times out", "spin_fails:y", &rows),
        ("a row takes too much memory", "memory_fails:y", &rows),
        ("the plugin is not deployed", "rates:rate", &rows),
        ("an input of the request is missing", "fault_fails:y", &json!({ "z": [1.0] })),
        ("an input of the request has the wrong type", "fault_fails:y", &json!({ "x": [1.0, "2"] })),
        ("a whole number has no exact Float64", "large_numbers:y", &json!({ "x": [1, 9_007_199_254_740_993_i64] })),
        ("a value is out of range", "large_numbers:y", &json!({ "x": [9_223_372_036_854_775_808_u64] })),
        ("a feature is misspelled", "fault_fails:yy", &rows),
        ("a view is misspelled", "falt_fails:y", &rows),
    ] {
        let answer = fixture.features(&[feature], entities.clone());
        let message: Value = answer.json();
        let message = message.as_str().map_or_else(|| answer.text(), str::to_owned);
        page.add(
            mistake,
            &format!("POST /get-online-features {feature} {entities}"),
            &format!("{} {message}", answer.status),
        );
    }
    // With `on_error: null`, the status of the row is the message for the caller. The log names the rest.
    let column = fixture.features(&["fault_null:y"], rows).column("y");
    assert_eq!((&column["values"], &column["statuses"]), (&json!([2.0, null]), &json!(["PRESENT", "INVALID"])));
    page.assert_eq(expect_file!["serve.txt"]);
}
