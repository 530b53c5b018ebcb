//! Python plugins in a real component, with a plugin that evaluates expressions: functions that cannot work in a plugin,
//! rows and callers that fail, and results on a busy machine.

use std::{
    collections::BTreeMap,
    fs, iter,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use larder_http::Control;
use larder_model::model::{DerivedInput, DerivedView, Feature, InputSource, OnError, ValueRef};
use larder_plugin_host::{OnFailure, Outputs, PluginClass, PluginRuntime, PluginSettings, Transform};
use serde_json::{Value, json};

use crate::{
    fixture::Setup,
    guests::{compiler, guest},
};

const VIEW: &str = "derived_views:
  - name: evaluate
    inputs: [{name: code, request: String}, {name: numbers, request: Array(Float64)}, {name: items, request: Array(Float64)}]
    features: [{name: text, type: String}]
";

fn view() -> DerivedView {
    DerivedView {
        name: "evaluate".into(),
        plugin: "evaluate".into(),
        inputs: [("code", "String"), ("numbers", "Array(Float64)"), ("items", "Array(Float64)")].map(input).into(),
        features: vec![Feature {
            name: "text".into(),
            value_type: "String".parse().unwrap(),
            description: String::new(),
            tags: Default::default(),
        }],
        config: "null".into(),
        on_error: OnError::Null,
        description: String::new(),
        tags: Default::default(),
    }
}

fn input((name, value_type): (&str, &str)) -> DerivedInput {
    DerivedInput { name: name.into(), value_type: value_type.parse().unwrap(), from: InputSource::Request }
}

/// Returns the entities of a request with these expressions.
fn entities(code: &[&str]) -> Value {
    let nulls = vec![Value::Null; code.len()];
    json!({ "code": code, "numbers": nulls, "items": nulls })
}

fn transform() -> &'static Arc<Transform> {
    static TRANSFORM: OnceLock<Arc<Transform>> = OnceLock::new();
    TRANSFORM.get_or_init(|| {
        // The compiled code is kept between runs of the tests.
        let cache_dir = Some(Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("guests").join("compiled"));
        let settings = PluginSettings { cache_dir, compiler: compiler(), ..PluginSettings::default() };
        let runtime = PluginRuntime::new(settings).unwrap();
        let component = runtime.load(&fs::read(guest("evaluate")).unwrap()).unwrap();
        assert_eq!(component.class(), PluginClass::Interpreted);
        Transform::bind(&runtime, &component, &view()).unwrap()
    })
}

fn evaluate(rows: &[&str], on_failure: OnFailure) -> Outputs {
    evaluate_in(transform(), rows, on_failure)
}

fn evaluate_in(transform: &Transform, rows: &[&str], on_failure: OnFailure) -> Outputs {
    let mut inputs = transform.input_batch(0, rows.len());
    inputs.column(|column| column.extend(rows.iter().map(|row| ValueRef::Bytes(row.as_bytes()))));
    transform.try_call(&inputs.finish(), on_failure).unwrap()
}

/// Returns the result of each row, or its error.
fn results(outputs: &Outputs) -> Vec<Result<String, String>> {
    let text = |row: usize| match outputs.output(0).get(row) {
        ValueRef::Bytes(text) => String::from_utf8_lossy(text).into_owned(),
        value => format!("{value:?}"),
    };
    let mut results: Vec<_> = (0..outputs.rows()).map(|row| Ok(text(row))).collect();
    for failed in outputs.failed() {
        results[failed.row] = Err(format!("{}: {}", failed.error.kind(), failed.error));
    }
    results
}

#[test]
fn unavailable_functions_fail_in_component() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/sdk/python/tests/sandbox_calls.json");
    let calls: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(calls.len(), 3);
    for (group, calls) in &calls {
        let rows: Vec<&str> = calls.keys().map(String::as_str).collect();
        let outputs = evaluate(&rows, OnFailure::FindRows);
        for ((call, expected), result) in calls.iter().zip(results(&outputs)) {
            match result {
                Ok(result) => assert_eq!((&*result, &**group), (&**expected, "working when deployed"), "{call}"),
                Err(error) => {
                    // The source location is before the hint.
                    let error = error.replace(" (<string>:1, in <module>)", "");
                    assert!(group.starts_with("unavailable"), "{call}: {error}");
                    assert!(error.starts_with("row: ") && error.contains(expected), "{call}: {error}");
                }
            }
        }
    }
}

/// A plugin that calls such a function only in some rows is not accepted, either.
#[test]
fn acceptance_rejects_unavailable_functions() {
    let transform = transform();
    assert!(transform.accept(Some(transform)).is_ok());
    evaluate(&["1 / 0", "1"], OnFailure::FindRows);
    assert!(transform.accept(Some(transform)).is_ok(), "other errors depend on the inputs");
    evaluate(&["1", "random.random()"], OnFailure::FindRows);
    let why = transform.accept(Some(transform)).unwrap_err().to_string();
    assert!(why.contains("served recently failed: Unavailable: random.random(): a plugin has no randomness"), "{why}");
}

/// Each view has an instance of its own.
#[test]
fn many_views_use_one_plugin() {
    let first = transform();
    let view = view();
    let bound = |number: usize| {
        let view = DerivedView { name: format!("evaluate_{number}").into(), ..view.clone() };
        Transform::bind(first.runtime(), first.component(), &view).unwrap()
    };
    let views: Vec<_> = (0..24).map(bound).collect();
    for view in &views {
        let outputs = evaluate_in(view, &["1 + 1"], OnFailure::FindRows);
        assert_eq!(results(&outputs), [Ok("2".to_owned())]);
    }
}

/// A plugin can keep memory between calls, although it should not. The callers that fill the memory must not make the
/// rows of other callers fail.
#[test]
fn kept_memory_does_not_fail_other_rows() {
    let keep = "sys.__dict__.setdefault('kept', []).append(bytearray(20 << 20))";
    for _ in 0..12 {
        assert_eq!(results(&evaluate(&[keep], OnFailure::FindRows)), [Ok("None".to_owned())]);
        let large = "len(bytearray(20 << 20))";
        assert_eq!(results(&evaluate(&[large], OnFailure::FindRows)), [Ok((20 << 20).to_string())]);
    }
    let too_large = evaluate(&["len(bytearray(200 << 20))"], OnFailure::FindRows);
    assert_eq!(too_large.failed()[0].error.kind(), "memory");
}

#[test]
fn failing_python_rows_fail_alone() {
    let nested = format!("eval('{}{}')", "[".repeat(150), "]".repeat(150));
    for (bad, error) in [
        ("1 / 0", "row: ZeroDivisionError: division by zero"),
        ("None * 2", "row: TypeError"),
        ("sys.exit(1)", "row: "),
        ("[0] * 10 ** 9", "row: MemoryError"),
        ("(lambda f: f(f))(lambda f: f(f))", "row: RecursionError"),
        (&*nested, "stack: its stack overflowed"),
        ("sum(range(10 ** 12))", "timeout: it used more than 50ms of CPU time"),
    ] {
        let mut rows = vec!["1 + 1"; 100];
        rows[41] = bad;
        let results = results(&evaluate(&rows, OnFailure::FindRows));
        for (row, result) in results.iter().enumerate() {
            match result {
                Ok(text) => assert_eq!((row != 41, &**text), (true, "2"), "{bad}, row {row}"),
                Err(found) => assert!(row == 41 && found.starts_with(error), "{bad}, row {row}: {found}"),
            }
        }
    }
}

#[test]
fn bad_python_caller_does_not_affect_good_caller() {
    let setup = Setup::golden();
    fs::write(setup.path("features/evaluate.yaml"), VIEW).unwrap();
    let fixture = setup.plugins(&["evaluate"]).start();
    fixture.eventually("the plugin is compiled", || {
        let answer = fixture.features(&["evaluate:text"], entities(&["1 + 1"]));
        answer.column("text")["statuses"] == json!(["PRESENT"])
    });
    let nested = format!("eval('{}{}')", "[".repeat(150), "]".repeat(150));
    for bad in ["None * 2", &nested, "sum(range(10 ** 12))"] {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let ended = crate::derived::SetOnDrop(&over);
            let calls = || {
                let mut answers = 0;
                while !over.load(Ordering::Relaxed) {
                    let answer = fixture.features(&["evaluate:text"], entities(&[bad]));
                    assert_eq!(answer.column("text")["statuses"], json!(["INVALID"]), "{bad}");
                    answers += 1;
                }
                answers
            };
            let callers = [scope.spawn(calls), scope.spawn(calls)];
            for x in 0..200 {
                let answer = fixture.features(&["evaluate:text"], entities(&[&format!("{x} * 2")]));
                assert_eq!(answer.column("text")["values"], json!([(x * 2).to_string()]), "{bad}: {}", answer.text());
            }
            drop(ended);
            assert!(callers.into_iter().map(|caller| caller.join().unwrap()).sum::<i32>() > 0, "{bad}");
        });
    }
}

#[test]
fn nested_values_and_null_items_are_passed() {
    let setup = Setup::golden();
    let nested = VIEW.replace("{name: text, type: String}", "{name: text, type: Array(Array)}");
    let again = VIEW.replace("derived_views:\n", "").replace("name: evaluate", "name: again\n    plugin: evaluate");
    let again = again.replace("{name: code, request: String}", "{name: code, from: 'evaluate:text'}");
    fs::write(setup.path("features/evaluate.yaml"), nested + &again).unwrap();
    let fixture = setup.start();
    // Values of generated rows are not lists of lists, so the acceptance checks fail.
    let plugin = fs::read(guest("evaluate")).unwrap();
    let why = fixture.app.deploy(&plugin, false).unwrap_err();
    assert!(
        why.contains("failed: output 'text' is not the JSON text of a value of type Array(Array). hint: "),
        "{why}"
    );
    fixture.app.deploy(&plugin, true).unwrap();
    let body = json!({
        "features": ["evaluate:text", "again:text"],
        "full_feature_names": true,
        "entities": entities(&["[[1, 2], [3]]", "{}", "None + 1"]),
    });
    let answer = fixture.post("/get-online-features", body.to_string().as_bytes());
    let nested = answer.column("evaluate__text");
    assert_eq!(nested["values"], json!([[[1, 2], [3]], null, null]));
    assert_eq!(nested["statuses"], json!(["PRESENT", "INVALID", "INVALID"]), "a map is not a list of lists");
    let text = answer.column("again__text");
    assert_eq!(text["values"], json!(["[[1, 2], [3]]", null, null]), "the second plugin got JSON text");

    let code = "[[int(items == [1.5, None])], [len(numbers)]]";
    let ask = |numbers: Value| {
        let entities = json!({ "code": [code], "numbers": [numbers], "items": [[1.5, null]] });
        fixture.features(&["evaluate:text"], entities)
    };
    assert_eq!(ask(json!([2.5])).column("text")["values"], json!([[[1], [1]]]));
    let why = "request data 'numbers', row 0: null is not Array(Float64)";
    assert_eq!((ask(json!([2.5, null])).status, ask(json!([2.5, null])).json()), (400, json!(why)));
}

#[test]
fn large_lists_give_all_values() {
    const ROWS: usize = 4_096;
    let transform = transform();
    // The sums are exact, so they do not depend on the order of the additions.
    let list = |row: usize| (0..768).map(move |item| f64::from(u32::try_from(row * 768 + item).unwrap()) / 2.0);
    let null_at = |row: usize, item: usize| (row + item).is_multiple_of(7);
    for (column, code) in ["math.fsum(numbers)", "math.fsum(x for x in items if x is not None)"].into_iter().enumerate()
    {
        let mut inputs = transform.input_batch(0, ROWS);
        inputs.column(|column| column.extend(iter::repeat_n(ValueRef::Bytes(code.as_bytes()), ROWS)));
        for index in 0..=column {
            inputs.column(|to| {
                for row in (0..ROWS).filter(|_| index == column) {
                    to.push_list(list(row).enumerate().map(|(item, x)| {
                        if column == 1 && null_at(row, item) { ValueRef::Null } else { ValueRef::Float64(x) }
                    }));
                }
            });
        }
        let outputs = transform.call(&inputs.finish());
        assert!(outputs.failed().is_empty(), "{code}: {:?}", outputs.failed());
        for row in 0..ROWS {
            let present = list(row).enumerate().filter(|(item, _)| column == 0 || !null_at(row, *item));
            let sum = format!("{:?}", present.map(|(_, x)| x).sum::<f64>());
            assert_eq!(outputs.output(0).get(row), ValueRef::Bytes(sum.as_bytes()), "{code}, row {row}");
        }
    }
}

#[test]
fn json_of_large_request_is_parsed_under_load() {
    let text = json!({ "id": 7, "items": (0..20).map(|i| json!({ "price": i, "name": "a" })).collect::<Vec<Value>>() });
    let code = format!("len(json.loads({:?})['items'])", text.to_string());
    let rows = vec![code.as_str(); 10_000];
    let stop = AtomicBool::new(false);
    let threads = 4 * thread::available_parallelism().unwrap().get();
    let outputs = thread::scope(|scope| {
        let ended = crate::derived::SetOnDrop(&stop);
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let outputs = evaluate(&rows, OnFailure::FindRows);
        drop(ended);
        outputs
    });
    assert!(outputs.failed().is_empty(), "{:?}", outputs.failed());
    assert_eq!(outputs.output(0).column().null_count(), 0);
    assert!((0..rows.len()).all(|row| outputs.output(0).get(row) == ValueRef::Bytes(b"20")));
}
