//! Lists as inputs of plugins: large lists, and lists with null items, in each version of the contract.

use std::{fs, sync::Arc};

use larder_http::Control as _;
use larder_model::model::{DerivedInput, DerivedView, Feature, InputSource, OnError, ValueRef};
use larder_plugin_host::{Inputs, OnFailure, Transform};
use serde_json::{Value, json};

use crate::{
    fixture::{Fixture, Setup},
    guests::{guest, guest_with},
    plugin_limits::runtime,
};

const INPUTS: [(&str, &str); 3] = [("text", "String"), ("numbers", "Array(Float64)"), ("items", "Array(Float64)")];
const OUTPUTS: [(&str, &str); 3] = [("text", "String"), ("sum", "Float64"), ("items", "Array(Float64)")];

/// The number of items of a large list.
const ITEMS: usize = 768;
const ROWS: usize = 4_096;

fn echo() -> Arc<Transform> {
    let view = DerivedView {
        name: "echo".into(),
        plugin: "echo".into(),
        inputs: INPUTS
            .map(|(name, value_type)| DerivedInput {
                name: name.into(),
                value_type: value_type.parse().unwrap(),
                from: InputSource::Request,
            })
            .into(),
        features: OUTPUTS
            .map(|(name, value_type)| Feature {
                name: name.into(),
                value_type: value_type.parse().unwrap(),
                description: String::new(),
                tags: Default::default(),
            })
            .into(),
        config: "null".into(),
        on_error: OnError::Null,
        description: String::new(),
        tags: Default::default(),
    };
    let component = runtime().load(&fs::read(guest("echo")).unwrap()).unwrap();
    Transform::bind(runtime(), &component, &view).unwrap()
}

/// Returns a large list. Sums of the numbers are exact, so they do not depend on the order of the additions.
fn list(row: usize) -> impl Iterator<Item = f64> {
    (0..ITEMS).map(move |item| f64::from(u32::try_from(row * ITEMS + item).unwrap()) / 2.0)
}

/// Returns a large list in which some items are null.
fn list_with_nulls(row: usize) -> impl Iterator<Item = Option<f64>> {
    list(row).enumerate().map(move |(item, x)| (!(row + item).is_multiple_of(7)).then_some(x))
}

fn value(item: Option<f64>) -> ValueRef<'static> {
    item.map_or(ValueRef::Null, ValueRef::Float64)
}

/// Returns inputs with a list in each row of one column. The other columns are null.
fn inputs<'v, I: Iterator<Item = ValueRef<'v>>>(
    transform: &Transform,
    index: usize,
    list: impl Fn(usize) -> I,
) -> Inputs {
    let mut inputs = transform.input_batch(0, ROWS);
    (0..index).for_each(|_| inputs.column(|_| ()));
    inputs.column(|column| (0..ROWS).for_each(|row| column.push_list(list(row))));
    inputs.finish()
}

/// The inputs take 25 MB, which is more than the memory of an instance. A call that needs too much memory would need
/// isolation.
#[test]
fn large_lists_give_all_values() {
    let transform = echo();
    let numbers = inputs(&transform, 1, |row| list(row).map(ValueRef::Float64));
    let outputs = transform.try_call(&numbers, OnFailure::Escalate).unwrap();
    assert!(outputs.failed().is_empty());
    for row in 0..ROWS {
        assert_eq!(outputs.output(1).get(row), ValueRef::Float64(list(row).sum()), "row {row}");
    }
    let items = inputs(&transform, 2, |row| list_with_nulls(row).map(value));
    let outputs = transform.try_call(&items, OnFailure::Escalate).unwrap();
    assert!(outputs.failed().is_empty());
    for row in 0..ROWS {
        let ValueRef::List(found) = outputs.output(2).get(row) else { panic!("row {row} is null") };
        // A null item is served as NaN.
        let bits = |x: Option<f64>| x.unwrap_or(f64::NAN).to_bits();
        let found = found.iter().map(|item| if let ValueRef::Float64(x) = item { bits(Some(x)) } else { 0 });
        assert!(found.eq(list_with_nulls(row).map(bits)), "row {row}");
    }
}

/// Returns the values and statuses of a feature.
fn cells(fixture: &Fixture, feature: &str, entities: Value) -> (Value, Value) {
    let column = fixture.features(&[feature], entities).column(feature.split(':').nth(1).unwrap());
    (column["values"].clone(), column["statuses"].clone())
}

/// Definitions of views that read request data, and of views that read the outputs of the view `echo`.
const VIEWS: &str = "derived_views:
  - name: echo
    inputs: [{name: text, request: String}, {name: numbers, request: Array(Float64)}, {name: items, request: Array(Float64)}]
    features: [{name: text, type: String}, {name: sum, type: Float64}, {name: items, type: Array(Float64)}]
    on_error: {default: {items: [7]}}
  - name: cast
    plugin: echo
    inputs: [{name: text, request: String}, {name: numbers, request: Array(Float64)}, {name: items, request: Array(Int32)}]
    features: [{name: items, type: Array(Float64)}]
  - name: again
    plugin: echo
    inputs: ['echo:text', {name: numbers, from: 'echo:items'}, 'echo:items']
    features: [{name: text, type: String}, {name: sum, type: Float64}, {name: items, type: Array(Float64)}]
  - name: old
    plugin: hostile
    inputs: [{name: x, request: Float64}, {name: list, request: Array(Float64)}]
    features: [{name: items, type: Array(Float64)}]
  - name: old_again
    plugin: hostile
    inputs: [{name: x, request: Float64}, {name: list, from: 'echo:items'}]
    features: [{name: items, type: Array(Float64)}]
";

fn fixture() -> Fixture {
    let setup = Setup::golden();
    fs::write(setup.path("features/lists.yaml"), VIEWS).unwrap();
    setup.plugins(&["echo"]).start()
}

/// Returns the entities of a request with a text in each of three rows. Items of the last two rows are null.
fn entities(texts: [&str; 3]) -> Value {
    json!({ "text": texts, "numbers": [null, null, null], "items": [[1, 2], [3, null], [null]], "x": [1.0, 1.0, 1.0] })
}

/// A null item of a list of floats is served as NaN, but as 0 if all items are null. So a plugin that gets NaN or 0
/// returns other lists.
#[test]
fn plugin_gets_null_items() {
    let fixture = fixture();
    let served = json!([[1.0, 2.0], [3.0, "NaN"], [0.0]]);
    let present = json!(["PRESENT", "PRESENT", "PRESENT"]);
    for view in ["echo", "cast", "again"] {
        let found = cells(&fixture, &format!("{view}:items"), entities(["a", "b", "c"]));
        assert_eq!(found, (served.clone(), present.clone()), "{view}");
    }
    // An input whose items cannot be null gets a null in place of a list with null items.
    assert_eq!(cells(&fixture, "again:sum", entities(["a", "b", "c"])).0, json!([3.0, null, null]));
    let mut entities = entities(["a", "b", "c"]);
    entities["numbers"] = json!([null, [], [2.0, null]]);
    let answer = fixture.features(&["echo:sum"], entities);
    let why = "request data 'numbers', row 2: null is not Array(Float64)";
    assert_eq!((answer.status, answer.json()), (400, json!(why)));
}

#[test]
fn failed_row_keeps_null_items_of_others() {
    let fixture = fixture();
    let entities = || entities(["fail", "b", "c"]);
    let (items, statuses) = cells(&fixture, "echo:items", entities());
    assert_eq!((items, statuses), (json!([[7.0], [3.0, "NaN"], [0.0]]), json!(["INVALID", "PRESENT", "PRESENT"])));
    assert_eq!(cells(&fixture, "again:items", entities()).0, json!([[7.0], [3.0, "NaN"], [0.0]]));
    assert_eq!(cells(&fixture, "again:sum", entities()).0, json!([7.0, null, null]));
    assert_eq!(cells(&fixture, "again:text", entities()).0, json!([null, "b", "c"]));
}

/// Versions 0.1 and 0.2 of the contract have no null items.
#[test]
fn older_contracts_get_no_null_items() {
    let fixture = fixture();
    let lists = |lists: Value| json!({ "x": [1.0, 1.0, 1.0], "list": lists });
    let with_null = || lists(json!([[1, 2], [3, null], [null]]));
    let invalid = json!(["INVALID", "INVALID", "INVALID"]);
    assert_eq!(cells(&fixture, "old:items", with_null()).1, invalid, "the plugin is not deployed yet");
    for features in ["list-input", "list-input,frames"] {
        fixture.app.deploy(&fs::read(guest_with("hostile", features)).unwrap(), true).unwrap();
        let found = cells(&fixture, "old:items", lists(json!([[1, 2], [], null])));
        assert_eq!(found.0, json!([[1.0, 2.0], [], []]), "{features}");
        let answer = fixture.features(&["old:items"], with_null());
        let why = "request data 'list', row 1: null is not Array(Float64)";
        assert_eq!((answer.status, answer.json()), (400, json!(why)), "{features}");
        // A list with null items in the output of another plugin is null.
        let found = cells(&fixture, "old_again:items", entities(["a", "b", "c"]));
        assert_eq!(found.0, json!([[1.0, 2.0], [], []]), "{features}");
    }
}
