//! Plugins for version 0.3 of the contract: failed rows, the column of times, and null items of lists. The hostile guest
//! violates each rule.

use std::{
    fs,
    sync::{Arc, OnceLock},
};

use larder_model::model::{Value, ValueRef};
use larder_plugin_host::{AsOf, CallError, Component, OnFailure, Outputs, Transform};

use crate::{
    guests::{guest, guest_with},
    plugin_limits::{runtime, view},
};

fn hostile() -> &'static Arc<Component> {
    static HOSTILE: OnceLock<Arc<Component>> = OnceLock::new();
    HOSTILE.get_or_init(|| runtime().load(&fs::read(guest_with("hostile", "batches")).unwrap()).unwrap())
}

fn bind(component: &Arc<Component>, mode: &str, more: &str) -> Arc<Transform> {
    let config = format!(r#"{{"mode": "{mode}"{more}}}"#);
    Transform::bind(runtime(), component, &view(&config)).unwrap_or_else(|error| panic!("{mode}: {error}"))
}

fn compute(transform: &Transform, as_of: impl Into<AsOf>, x: &[f64], on_failure: OnFailure) -> Outputs {
    let mut inputs = transform.input_batch(as_of, x.len());
    inputs.column(|column| column.extend(x.iter().copied().map(ValueRef::Float64)));
    transform.try_call(&inputs.finish(), on_failure).unwrap()
}

fn column(outputs: &Outputs, index: usize) -> Vec<Value> {
    (0..outputs.rows()).map(|row| outputs.output(index).get(row).to_value()).collect()
}

fn failed(outputs: &Outputs) -> Vec<(usize, String)> {
    outputs.failed().iter().map(|failed| (failed.row, failed.error.to_string())).collect()
}

fn texts(texts: &[&str]) -> Vec<Value> {
    texts.iter().map(|text| Value::Bytes((*text).into())).collect()
}

#[test]
fn all_contract_versions_give_equal_values() {
    let load = |features: &str| {
        let file = if features.is_empty() { guest("hostile") } else { guest_with("hostile", features) };
        runtime().load(&fs::read(file).unwrap()).unwrap()
    };
    let components = [load(""), load("frames"), load("batches")];
    assert_eq!(components.each_ref().map(|component| component.contract()), ["0.1", "0.2", "0.3"]);
    for rows in [0, 1, 3, 64, 65, 4_096, 5_000] {
        let x: Vec<f64> = (0..rows).map(f64::from).collect();
        let outputs =
            components.each_ref().map(|component| compute(&bind(component, "good", ""), 7, &x, OnFailure::FindRows));
        for index in [0, 1, 3, 4] {
            let [first, second, third] = outputs.each_ref().map(|outputs| column(outputs, index));
            assert!(first == second && second == third, "output {index}, {rows} rows");
        }
    }
}

#[test]
fn reported_rows_fail_alone() {
    let x: Vec<f64> =
        (0..100).map(|row| if row % 40 == 3 { 1_000.0 + f64::from(row) } else { f64::from(row) }).collect();
    let transform = bind(hostile(), "fail", "");
    // The rows are known from one call, so there is nothing to search for.
    for on_failure in [OnFailure::Escalate, OnFailure::FindRows, OnFailure::FailCall] {
        let outputs = compute(&transform, 0, &x, on_failure);
        let expected = [3, 43, 83].map(|row: i32| (row as usize, format!("x is {}", 1_000 + row)));
        assert_eq!(failed(&outputs), expected);
        for (row, x) in x.iter().enumerate() {
            let is_failed = expected.iter().any(|(failed, _)| *failed == row);
            assert_eq!(outputs.is_failed(row), is_failed);
            let y = if is_failed { ValueRef::Null } else { ValueRef::Float64(2.0 * x) };
            assert_eq!(outputs.output(0).get(row), y, "row {row}");
            assert_eq!(outputs.output(4).get(row) == ValueRef::Null, is_failed, "row {row}");
        }
    }
    let all = compute(&bind(hostile(), "fail_all", ""), 0, &[1.0, 2.0], OnFailure::FindRows);
    assert_eq!(failed(&all), [(0, "x is 1".to_owned()), (1, "x is 2".to_owned())]);
    assert_eq!(all.failed()[0].error.kind(), "row");
}

#[test]
fn failed_rows_of_large_batch_keep_their_index() {
    let rows = 10_000;
    let x: Vec<f64> = (0..rows).map(|row| if [0, 4_095, 4_096, 9_999].contains(&row) { 1e9 } else { 1.0 }).collect();
    let outputs = compute(&bind(hostile(), "fail", ""), 0, &x, OnFailure::FindRows);
    let rows: Vec<usize> = outputs.failed().iter().map(|failed| failed.row).collect();
    assert_eq!(rows, [0, 4_095, 4_096, 9_999]);
}

#[test]
fn malformed_failed_rows_are_reported() {
    let cases = [
        ("failed_twice", "it reported failed row 0 after row 0, but the rows must be in ascending order"),
        ("failed_order", "it reported failed row 0 after row 1, but the rows must be in ascending order"),
        ("failed_beyond", "it reported failed row 3, but the batch has 3 rows"),
        ("failed_value", "output 'y' has a value in row 0, which failed"),
        ("failed_null", "output 'y' has a null, but was declared not nullable"),
        ("stray_item", "output 'words' has presence bits that do not match its 6 list items"),
        // Without the presence bits, the ends of the items are read as presence bits.
        ("no_item_presence", "output 'words' has presence bits that do not match its 6 list items"),
    ];
    for (mode, expected) in cases {
        let transform = bind(hostile(), mode, r#", "after": 4"#);
        let outputs = compute(&transform, 0, &[1.0, 2.0, 3.0], OnFailure::FailCall);
        let error = &outputs.failed()[0].error;
        assert_eq!((error.kind(), error.to_string().as_str()), ("bad_output", expected), "{mode}");
        assert_eq!(outputs.failed().len(), 3, "{mode}");
        let next = compute(&transform, 0, &[1.0, 2.0, 3.0], OnFailure::FailCall);
        assert_eq!(next.failed().len(), 0, "{mode}: the next instance");
    }
}

#[test]
fn messages_of_failed_rows_are_limited() {
    let transform = bind(hostile(), "failed_flood", r#", "after": 4, "amount": 1000000"#);
    let outputs = compute(&transform, 0, &[1.0], OnFailure::FindRows);
    assert!(outputs.failed()[0].error.to_string().len() < 1_030, "the message is truncated");
    let transform = bind(hostile(), "failed_flood", r#", "after": 4"#);
    let outputs = compute(&transform, 0, &[1.0], OnFailure::FailCall);
    assert_eq!(outputs.failed()[0].error.kind(), "output_bytes");
}

#[test]
fn each_row_has_its_time() {
    let transform = bind(hostile(), "good", "");
    let rows = 5_000;
    let (x, times): (Vec<f64>, Vec<i64>) = (vec![1.0; rows], (0..5_000).map(|row| 1_000_000 - row * 7).collect());
    let outputs = compute(&transform, AsOf::Each(times.clone().into()), &x, OnFailure::FindRows);
    let expected: Vec<String> = times.iter().map(i64::to_string).collect();
    assert_eq!(column(&outputs, 2), texts(&expected.iter().map(String::as_str).collect::<Vec<_>>()));
    let outputs = compute(&transform, -5, &[1.0, 2.0], OnFailure::FindRows);
    assert_eq!(column(&outputs, 2), texts(&["-5", "-5"]));
}

#[test]
fn null_items_become_defaults() {
    for mode in ["null_item", "null_item_value"] {
        let outputs = compute(&bind(hostile(), mode, ""), 0, &[1.0, 2.0], OnFailure::FindRows);
        assert_eq!(failed(&outputs), []);
        let list = Value::List(texts(&["", "well"]));
        assert_eq!(column(&outputs, 4), [list.clone(), list], "{mode}");
    }
}

#[test]
fn failed_batch_of_batches_is_searched() {
    let x = [1.0, 2.0, 3.0];
    let outputs = compute(&bind(hostile(), "fault", r#", "after": 4"#), 0, &x, OnFailure::FailCall);
    assert_eq!(outputs.failed().len(), 3);
    assert_eq!(*outputs.failed()[0].error, CallError::Fault("the hostile plugin gives up".to_owned()));
}

/// Returns the message of the acceptance checks in a mode.
fn rejected(component: &Arc<Component>, mode: &str) -> String {
    bind(component, mode, "").accept(None).expect_err(mode).to_string()
}

#[test]
fn acceptance_finds_state_and_dependent_rows() {
    let accepted = bind(hostile(), "good", "").accept(None).unwrap();
    assert_eq!((accepted.generated, accepted.served, accepted.failed), (256, 0, 0));
    for (mode, expected) in [
        (
            "batch_size",
            "the outputs of a row depend on other rows: output 'y' of generated row 0 (x = null) is 256.0, but 1.0 alone",
        ),
        (
            "row_number",
            "the outputs of a row depend on other rows: output 'y' of generated row 0 (x = null) is 0.0, but 255.0 if the order of the rows is reversed",
        ),
        ("sum", "the outputs of a row depend on other rows: output 'y' of generated row 0"),
    ] {
        let why = rejected(hostile(), mode);
        assert!(why.starts_with(expected), "{mode}: {why}");
    }
    let old = runtime().load(&fs::read(guest("hostile")).unwrap()).unwrap();
    assert!(bind(&old, "good", "").accept(None).is_ok());
    let why = rejected(&old, "random");
    assert!(why.starts_with("it is not deterministic: output 'y' of generated row 0 (x = null) is "), "{why}");
    let why = rejected(&old, "remember");
    assert!(why.starts_with("it is not deterministic: output 'y' of generated row"), "{why}");
}

#[test]
fn acceptance_finds_limits_and_failures() {
    let old = runtime().load(&fs::read(guest("hostile")).unwrap()).unwrap();
    let bad = |mode: &str, bad: &str| {
        let transform = bind(&old, mode, &format!(r#", "bad": {bad}"#));
        transform
            .accept(None)
            .map(|accepted| (accepted.failed, accepted.first_failed.map(|(row, why)| format!("{row}: {why}"))))
    };
    // Inputs beyond 1e300 are generated, and no other rows fail.
    let (failed, first) = bad("trap", "1e300").unwrap();
    assert!((1..64).contains(&failed), "{failed}");
    assert!(first.unwrap().ends_with("it trapped: `unreachable` instruction executed"));
    let why = bad("spin", "1e300").unwrap_err().to_string();
    assert!(why.starts_with("generated row ") && why.ends_with("of CPU time"), "{why}");
    let why = bad("memory", "1e300").unwrap_err().to_string();
    assert!(why.contains("it requested more than 16777216 bytes of memory"), "{why}");
    let why = bind(hostile(), "fail_all", "").accept(None).unwrap_err().to_string();
    assert!(why.starts_with("all 256 rows failed. The first one is generated row 0 (x = null"), "{why}");
    assert!(why.ends_with("): x is 0"), "{why}");
}

#[test]
fn acceptance_computes_served_rows() {
    let live = bind(hostile(), "good", "");
    compute(&live, 7, &[123_456.0, 1.0], OnFailure::FindRows);
    let accepted = bind(hostile(), "good", "").accept(Some(&live)).unwrap();
    assert_eq!((accepted.served, accepted.failed), (2, 0));
    // Only the served row reaches this value, except for extreme rows.
    let next = bind(hostile(), "fail", "");
    let accepted = next.accept(Some(&live)).unwrap();
    let generated = next.accept(None).unwrap();
    assert_eq!(accepted.failed, generated.failed + 1);
}
