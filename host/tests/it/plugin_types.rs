//! Types whose values a plugin gets or returns in another form: text that is checked, sets, and times.

use std::fs;

use serde_json::{Value, json};

use crate::{
    binary::Home,
    fixture::{Fixture, Setup},
    guests::guest,
};
use larder_http::Control as _;

const UUID: &str = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";

/// For each type, a view that reads its values from the request, and a view that returns text as its values.
fn text_views() -> String {
    let view = |value_type: &str| {
        format!(
            "  - name: in_{value_type}
    plugin: echo
    inputs: [{{name: text, request: {value_type}}}, {{name: numbers, request: Array(Float64)}}, {{name: items, request: \
             Array(Float64)}}]
    features: [{{name: text, type: String}}]
  - name: out_{value_type}
    plugin: echo
    inputs: [{{name: text, request: String}}, {{name: numbers, request: Array(Float64)}}, {{name: items, request: \
             Array(Float64)}}]
    features: [{{name: text, type: {value_type}}}, {{name: sum, type: Float64}}]
"
        )
    };
    format!("derived_views:\n{}", ["Uuid", "TimeUuid", "Decimal", "Json"].map(view).concat())
}

fn start(views: &str) -> Fixture {
    let setup = Setup::golden();
    fs::write(setup.path("features/types.yaml"), views).unwrap();
    let fixture = setup.start();
    // Deployment would reject the views that return any text as values of another type.
    fixture.app.deploy(&fs::read(guest("echo")).unwrap(), true).unwrap();
    fixture
}

fn entities(texts: Value) -> Value {
    let nulls = vec![Value::Null; texts.as_array().unwrap().len()];
    json!({ "text": texts, "numbers": nulls, "items": nulls })
}

const TEXTS: [(&str, &str, &str); 4] = [
    ("Uuid", UUID, "3f2504e0"),
    ("TimeUuid", UUID, ""),
    ("Decimal", "12.50", "12,50"),
    ("Json", "{\"a\": [1, null]}", "{a: 1}"),
];

#[test]
fn text_in_requests_is_checked() {
    let fixture = start(&text_views());
    for (value_type, good, bad) in TEXTS {
        let feature = format!("in_{value_type}:text");
        let ask = |texts: Value| fixture.features(&[&feature], entities(texts));
        assert_eq!(ask(json!([good, null])).column("text")["values"], json!([good, null]), "{value_type}");
        let answer = ask(json!([good, bad]));
        let expected = format!("request data 'text', row 1: '{bad}' is not {value_type}");
        assert_eq!((answer.status, answer.json()), (400, json!(expected)));
    }
}

#[test]
fn text_of_outputs_is_checked() {
    let fixture = start(&text_views());
    for (value_type, good, bad) in TEXTS {
        let features = [&*format!("out_{value_type}:text"), &*format!("out_{value_type}:sum")];
        let mut entities = entities(json!([good, bad, null]));
        entities["numbers"] = json!([[1], [1], [1]]);
        let answer = fixture.features(&features, entities);
        assert_eq!(answer.column("text")["values"], json!([good, null, null]), "{value_type}");
        assert_eq!(answer.column("text")["statuses"], json!(["PRESENT", "INVALID", "PRESENT"]), "{value_type}");
        assert_eq!(answer.column("sum")["values"], json!([1.0, null, 1.0]), "the whole row is invalid");
    }
}

#[test]
fn unchecked_text_is_not_accepted() {
    let setup = Setup::golden();
    fs::write(setup.path("features/types.yaml"), text_views()).unwrap();
    let why = setup.start().app.deploy(&fs::read(guest("echo")).unwrap(), false).unwrap_err();
    assert!(why.contains("failed: output 'text' is not a value of type"), "{why}");
}

/// `larder plugin run` prints values as responses have them.
#[test]
fn run_prints_values_like_responses() {
    let home = Home::empty();
    fs::copy(guest("echo"), home.path("echo.wasm")).unwrap();
    home.write("rows.json", r#"[{"text": "a", "numbers": [1e308, 1e308], "items": [null, 1.5]}, {"items": [null]}]"#);
    let ended = home.run(["plugin", "run", "echo.wasm", "--input", "rows.json", "--json"]).assert_code(0).out.clone();
    let entities = json!({ "text": ["a", null], "numbers": [[1e308, 1e308], null], "items": [[null, 1.5], [null]] });
    let fixture = start(
        "derived_views:
  - name: echo
    inputs: [{name: text, request: String}, {name: numbers, request: Array(Float64)}, {name: items, request: \
         Array(Float64)}]
    features: [{name: text, type: String}, {name: sum, type: Float64}, {name: items, type: Array(Float64)}]
",
    );
    let answer = fixture.features(&["echo:sum", "echo:items"], entities);
    let printed: Vec<Value> = serde_json::from_str(&ended).unwrap();
    for (row, printed) in printed.iter().enumerate() {
        for name in ["sum", "items"] {
            assert_eq!(printed[name], answer.column(name)["values"][row], "{name}, row {row}");
        }
    }
    assert_eq!((&printed[0]["sum"], &printed[0]["items"]), (&json!("Infinity"), &json!(["NaN", 1.5])));
}

/// A set that a plugin returns is the same as a stored set, in the response and for the next plugin.
#[test]
fn returned_sets_are_sorted() {
    let fixture = start(
        "derived_views:
  - name: echo
    inputs: [{name: text, request: String}, {name: numbers, request: Array(Float64)}, {name: items, request: \
         Array(Float64)}]
    features: [{name: items, type: Set(Float64)}]
  - name: next
    plugin: echo
    inputs: [{name: text, request: String}, {name: numbers, from: 'echo:items'}, 'echo:items']
    features: [{name: sum, type: Float64}, {name: items, type: Array(Float64)}]
",
    );
    let mut entities = entities(json!([null, null, null]));
    entities["items"] = json!([[3, 1, 3], [1, 2], [2, null, 1, null]]);
    let answer = fixture.post(
        "/get-online-features",
        json!({ "features": ["echo:items", "next:items", "next:sum"], "entities": entities, "full_feature_names": true })
            .to_string()
            .as_bytes(),
    );
    let expected = json!([[1.0, 3.0], [1.0, 2.0], [1.0, 2.0, "NaN"]]);
    for column in ["echo__items", "next__items"] {
        assert_eq!(answer.column(column)["values"], expected, "{column}");
    }
    assert_eq!(answer.column("next__sum")["values"], json!([4.0, 3.0, "NaN"]));
}

/// A set from the request is the same as a stored set, even if the plugin declares that items may be null.
#[test]
fn sets_in_requests_are_sorted() {
    let fixture = start(
        "derived_views:
  - name: sets
    plugin: echo
    inputs: [{name: text, request: String}, {name: numbers, request: Set(Float64)}, {name: items, request: Set(Float64)}]
    features: [{name: sum, type: Float64}, {name: items, type: Array(Float64)}]
",
    );
    let sets = json!([[3, 1, 2, 1, 3.0], [], null, [2, null, 1]]);
    let mut entities = entities(json!([null, null, null, null]));
    entities["items"] = sets;
    entities["numbers"] = json!([[3, 1, 2, 1, 3.0], [], null, [null, null]]);
    let answer = fixture.features(&["sets:sum", "sets:items"], entities);
    assert_eq!(answer.column("sum")["values"], json!([6.0, 0.0, null, 0.0]));
    assert_eq!(answer.column("items")["values"], json!([[1.0, 2.0, 3.0], [], null, [1.0, 2.0, "NaN"]]));
}
