//! Tests of the comparison with Feast: which responses it accepts and rejects, and its messages.

use std::collections::BTreeSet;

use serde_json::json;

use super::*;

/// Returns a case with the number 0, which has no difference, and with this response of Feast.
fn case(status: u16, body: &Value) -> Case {
    Case {
        number: 0,
        name: "00_made_up".to_owned(),
        method: "POST".to_owned(),
        path: "/get-online-features".to_owned(),
        content_type: None,
        body: Vec::new(),
        status,
        headers: BTreeMap::new(),
        body_json: Some(body.clone()),
        body_text: body.to_string(),
    }
}

fn answer() -> Value {
    json!({
        "results": [
            { "values": ["a", "b"], "statuses": ["PRESENT", "PRESENT"], "event_timestamps": ["e", "e"] },
            { "values": [3.0, null], "statuses": ["PRESENT", "NOT_FOUND"], "event_timestamps": ["t", "e"] },
            { "values": [9_007_199_254_740_993_i64, 1], "statuses": ["PRESENT", "PRESENT"],
              "event_timestamps": ["t", "t"] },
        ],
        "metadata": { "feature_names": ["id", "rate", "count"] },
    })
}

/// Returns the result of [`compare`] for a response that differs from Feast's by this change.
fn after(change: impl FnOnce(&mut Value)) -> Result<(), String> {
    let expected = answer();
    let mut actual = expected.clone();
    change(&mut actual);
    compare(&case(200, &expected), 200, actual.to_string().as_bytes())
}

fn assert_error(result: Result<(), String>, words: &str) {
    let error = result.unwrap_err();
    assert!(error.contains(words), "{error}");
}

#[test]
fn equal_and_permuted_columns_pass() {
    after(|_| ()).unwrap();
    after(|answer| {
        for list in ["/results", "/metadata/feature_names"] {
            answer.pointer_mut(list).unwrap().as_array_mut().unwrap().rotate_left(1);
        }
    })
    .unwrap();
}

#[test]
fn mismatched_names_are_reported() {
    let swapped = after(|answer| answer["metadata"]["feature_names"].as_array_mut().unwrap().swap(1, 2));
    assert_error(swapped, "column 'rate', row 0: values has 9007199254740993, expected 3.0");
}

#[test]
fn wrong_value_status_or_time_reported() {
    let change = |pointer: &'static str, to: Value| after(move |answer| *answer.pointer_mut(pointer).unwrap() = to);
    assert_error(change("/results/1/values/0", json!(3.5)), "column 'rate', row 0: values has 3.5, expected 3.0");
    assert_error(change("/results/1/values/1", json!(0)), "column 'rate', row 1: values has 0, expected null");
    assert_error(change("/results/1/statuses/1", json!("PRESENT")), "row 1: statuses has \"PRESENT\"");
    assert_error(change("/results/0/event_timestamps/0", json!("x")), "column 'id', row 0: event_timestamps");
}

#[test]
fn integer_versus_float_is_reported() {
    let change = |pointer: &'static str, to: Value| after(move |answer| *answer.pointer_mut(pointer).unwrap() = to);
    assert_error(change("/results/1/values/0", json!(3)), "values has 3, expected 3.0");
    assert_error(change("/results/2/values/1", json!(1.0)), "values has 1.0, expected 1");
}

#[test]
fn integers_equal_as_floats_differ() {
    let rounded = after(|answer| answer["results"][2]["values"][0] = json!(9_007_199_254_740_992_i64));
    assert_error(rounded, "values has 9007199254740992, expected 9007199254740993");
}

#[test]
fn float_notation_does_not_matter() {
    let expected = answer();
    let text = expected.to_string().replace("3.0", "0.3e1");
    compare(&case(200, &expected), 200, text.as_bytes()).unwrap();
}

#[test]
fn missing_or_surplus_columns_are_reported() {
    let drop_last = |answer: &mut Value| {
        answer["results"].as_array_mut().unwrap().pop();
        answer["metadata"]["feature_names"].as_array_mut().unwrap().pop();
    };
    assert_error(after(drop_last), "column 'count' is missing");
    assert_error(
        after(|answer| {
            answer["results"].as_array_mut().unwrap().pop();
        }),
        "3 feature_names for 2 results",
    );
    assert_error(after(|answer| answer["metadata"]["feature_names"][2] = json!("rate")), "two columns 'rate'");
    assert_error(after(|answer| answer["metadata"]["feature_names"][2] = json!("more")), "'more' is unexpected");
}

#[test]
fn missing_rows_and_surplus_keys_reported() {
    let one_row = |answer: &mut Value| answer["results"][1]["statuses"] = json!(["PRESENT"]);
    assert_error(after(one_row), "column 'rate': 1 statuses, expected 2");
    let no_list = |answer: &mut Value| answer["results"][1]["values"] = json!(3.0);
    assert_error(after(no_list), "column 'rate': values is 3.0");
    assert_error(after(|answer| answer["status"] = Value::Null), "answer: the other keys are");
    assert_error(after(|answer| answer["results"][0]["x"] = json!(1)), "column 'id': the other keys");
    let versions = |answer: &mut Value| answer["metadata"]["feature_view_metadata"] = json!([{ "name": "v" }]);
    assert_error(after(versions), "metadata: the other keys");
}

#[test]
fn errors_compare_status_and_body() {
    let body = json!("{\"module\": \"feast.errors\"}");
    compare(&case(404, &body), 404, body.to_string().as_bytes()).unwrap();
    assert_error(compare(&case(404, &body), 500, body.to_string().as_bytes()), "status is 500, expected 404");
    assert_error(compare(&case(404, &body), 404, b"\"other\""), "body is not\n");
    assert_error(compare(&case(404, &body), 404, b"gateway"), "body is not JSON");
    let empty = Case { body_json: None, body_text: String::new(), ..case(200, &body) };
    compare(&empty, 200, b"").unwrap();
    assert_error(compare(&empty, 200, b"null"), "body is not empty");
}

#[test]
fn recorded_cases_are_complete() {
    let cases = Case::load_all();
    let numbers: BTreeSet<u32> = cases.iter().map(|case| case.number).collect();
    assert_eq!(numbers.len(), cases.len(), "each case has its own number");
    assert_eq!(cases.len(), 61);
    assert_eq!(cases.iter().filter(|case| !writes(case.number)).count(), 52);
    for case in &cases {
        assert_eq!(case.headers["content-length"], case.body_text.len().to_string(), "{}", case.name);
        assert_eq!(case.body_json.is_none(), case.body_text.is_empty(), "{}", case.name);
    }
}

#[test]
fn recorded_response_passes_without_difference() {
    for case in Case::load_all() {
        let result = compare(&case, case.status, case.body_text.as_bytes());
        assert_eq!(result.is_err(), difference(case.number).is_some(), "{}: {result:?}", case.name);
    }
}

#[test]
fn every_difference_has_a_reachable_case() {
    let cases = Case::load_all();
    let mut seen = BTreeSet::new();
    for difference in DIFFERENCES {
        assert!(seen.insert(difference.case), "case {}", difference.case);
        let case = cases.iter().find(|case| case.number == difference.case).unwrap();
        let expected = Expectation::of(case).unwrap();
        compare(case, expected.status, expected.body.unwrap().to_string().as_bytes()).unwrap();
    }
}

#[test]
fn every_rounded_integer_has_a_difference() {
    for case in Case::load_all().iter().filter(|case| case.body_text.contains("9007199254740992")) {
        let expected = Expectation::of(case).unwrap().body.unwrap().to_string();
        assert!(!expected.contains("9007199254740992"), "{}", case.name);
    }
}

#[test]
fn only_failing_plugin_case_expects_500() {
    for case in Case::load_all().iter().filter(|case| case.number != 31) {
        assert!(Expectation::of(case).unwrap().status < 500, "{}", case.name);
    }
}
