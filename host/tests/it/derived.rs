//! Derived features in responses: their inputs, and the values that replace them if they cannot be computed.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use larder_http::{Control, decode_request};
use larder_serving::{Answer, Authenticator, OnlineRequest};
use serde_json::{Value, json};

use crate::{
    fixture::{Fixture, Setup},
    guests::{FEAST_ODFV, guest},
};

/// Adds a definition file to the golden ones.
fn with(definitions: &str) -> Setup {
    let setup = Setup::golden();
    fs::write(setup.path("features/more.yaml"), definitions).unwrap();
    setup
}

/// Starts a server with these definitions, and deploys the hostile plugin, which the acceptance checks reject.
fn with_hostile(definitions: &str) -> Fixture {
    let fixture = with(definitions).start();
    fixture.app.deploy(&fs::read(guest("hostile")).unwrap(), true).unwrap();
    fixture
}

fn amounts() -> Value {
    json!({ "driver_id": [1001, 9999], "amount": [2.0, 3.0], "hour": [1, 2] })
}

fn cells(fixture: &Fixture, features: &[&str], entities: Value, column: &str) -> (Value, Value) {
    let column = fixture.features(features, entities).column(column);
    (column["values"].clone(), column["statuses"].clone())
}

#[test]
fn missing_plugin_gives_null_and_status() {
    let fixture = Setup::golden().start();
    let features = ["odfv_python:label", "driver_stats:conv_rate"];
    assert_eq!(cells(&fixture, &features, amounts(), "label"), (json!([null, null]), json!(["INVALID", "INVALID"])));
    let stored = cells(&fixture, &features, amounts(), "conv_rate");
    assert_eq!(stored, (json!([0.6001, null]), json!(["PRESENT", "NOT_FOUND"])));
    // A view with `on_error: fail` fails the request with a server error, not a client error.
    let answer = fixture.features(&["odfv_singleton:trips_plus_one"], json!({ "driver_id": [1001] }));
    assert_eq!((answer.status, answer.text().contains("derived view odfv_singleton has no plugin")), (501, true));
}

#[test]
fn default_replaces_uncomputable_values() {
    let fixture = with(
        "derived_views:
  - name: trips_default
    plugin: odfv_singleton
    inputs: ['driver_stats:avg_daily_trips']
    features: [{name: trips_plus_one, type: Int64}]
    on_error: {default: {trips_plus_one: 7}}
  - name: lists_default
    plugin: not_there
    inputs: []
    features: [{name: words, type: Array(String)}, {name: numbers, type: Array(Float32)}, {name: none, type: Int64}]
    on_error: {default: {words: [a, ''], numbers: [1, 2.5]}}
",
    )
    .plugins(&FEAST_ODFV)
    .start();
    let ask = |driver: i64| {
        cells(&fixture, &["trips_default:trips_plus_one"], json!({ "driver_id": [driver] }), "trips_plus_one")
    };
    assert_eq!(ask(1001), (json!([1002]), json!(["PRESENT"])));
    assert_eq!(ask(9999), (json!([7]), json!(["INVALID"])), "its plugin faults where there are no trips");
    let answer = fixture.features(&["lists_default:words", "lists_default:numbers", "lists_default:none"], json!({}));
    assert_eq!(answer.column("words")["values"], json!([["a", ""]]));
    assert_eq!(answer.column("numbers")["values"], json!([[1.0, 2.5]]));
    assert_eq!(answer.column("none")["values"], json!([null]));
}

#[test]
fn request_inputs_are_type_checked() {
    let fixture = Setup::golden().plugins(&FEAST_ODFV).start();
    let ask = |amount: Value, hour: Value| {
        let entities = json!({ "driver_id": [1001], "amount": [amount], "hour": [hour] });
        fixture.features(&["odfv_python:conv_x_amount", "odfv_python:label"], entities)
    };
    // An integer is accepted as a double, and a whole double as an integer.
    let answer = ask(json!(2), json!(3.0));
    assert_eq!(answer.column("conv_x_amount")["values"], json!([1.2002]));
    assert_eq!(answer.column("label")["values"], json!(["h3"]));
    let answer = ask(json!(null), json!(null));
    assert_eq!(answer.column("conv_x_amount")["values"], json!([null]));
    for (amount, hour, expected) in [
        (json!("2.0"), json!(3), "request data 'amount', row 0: '2.0' is not Float64"),
        (json!(2.0), json!(3.5), "request data 'hour', row 0: 3.5 is not Int64"),
        (json!(true), json!(3), "request data 'amount', row 0: true is not Float64"),
        (json!([2.0]), json!(3), "request data 'amount', row 0: a list is not Float64"),
        (json!(2.0), json!({"h": 3}), "request data 'hour', row 0: a mapping is not Int64"),
        (
            json!(2.0),
            json!(9_223_372_036_854_775_808_u64),
            "request data 'hour', row 0: 9223372036854775808 is not Int64",
        ),
    ] {
        let answer = ask(amount, hour);
        assert_eq!((answer.status, answer.json()), (400, json!(expected)));
    }
}

#[test]
fn a_list_may_be_sent_too() {
    let fixture = with(
        "derived_views:
  - name: embedding_similarity
    inputs:
      - {name: query, request: Array(Float32)}
      - {name: embeddings, request: Array(Float32)}
      - {name: labels, request: Array(String)}
    features:
      - {name: nearest, type: String}
      - {name: ranking, type: Array(String)}
      - {name: similarities, type: Array(Float64)}
",
    )
    .plugins(&["examples/similarity"])
    .start();
    let features =
        ["embedding_similarity:nearest", "embedding_similarity:ranking", "embedding_similarity:similarities"];
    let answer = fixture.features(
        &features,
        json!({
            "query": [[1, 0], null, []],
            "embeddings": [[0.0, 2.0, 3.0, 0.0], [1.0], []],
            "labels": [["up", "right"], ["alone"], []],
        }),
    );
    assert_eq!(answer.column("nearest")["values"], json!(["right", null, null]));
    assert_eq!(answer.column("ranking")["values"], json!([["right", "up"], null, null]));
    assert_eq!(answer.column("similarities")["values"], json!([[1.0, 0.0], null, null]));
    let answer = fixture.features(&features, json!({ "query": [["x"]], "embeddings": [[]], "labels": [[]] }));
    assert_eq!(answer.json(), json!("request data 'query', row 0: 'x' is not Array(Float32)"));
}

#[test]
fn derived_views_read_each_other() {
    let fixture = with(
        "derived_views:
  - name: a_third_trip
    plugin: odfv_singleton
    inputs: [{name: avg_daily_trips, from: 'b_second_trip:trips_plus_one'}]
    features: [{name: trips_plus_one, type: Int64}]
  - name: b_second_trip
    plugin: odfv_singleton
    inputs: [{name: avg_daily_trips, from: 'odfv_singleton:trips_plus_one'}]
    features: [{name: trips_plus_one, type: Int64}]
feature_services:
  - name: all_trips
    features: ['driver_stats:avg_daily_trips', a_third_trip, odfv_singleton, {view: b_second_trip, alias: other}]
",
    )
    .plugins(&FEAST_ODFV)
    .start();
    let third = cells(&fixture, &["a_third_trip:trips_plus_one"], json!({ "driver_id": [1001] }), "trips_plus_one");
    assert_eq!(third, (json!([1004]), json!(["PRESENT"])));
    let body = json!({
        "feature_service": "all_trips", "full_feature_names": true, "entities": { "driver_id": [1001, 1002] },
    });
    let answer = fixture.post("/get-online-features", body.to_string().as_bytes());
    let names = json!([
        "driver_id",
        "driver_stats__avg_daily_trips",
        "a_third_trip__trips_plus_one",
        "odfv_singleton__trips_plus_one",
        "other__trips_plus_one",
    ]);
    assert_eq!(answer.json()["metadata"]["feature_names"], names, "in the order of the request");
    assert_eq!(answer.column("other__trips_plus_one")["values"], json!([1003, 1004]));
    // A failed view also fails the views that read it.
    let answer = fixture.features(&["a_third_trip:trips_plus_one"], json!({ "driver_id": [9999] }));
    assert_eq!(answer.status, 500);
}

#[test]
fn only_used_inputs_are_looked_up() {
    let fixture = with(
        "derived_views:
  - name: reads_little
    plugin: odfv_singleton
    inputs:
      - customer_stats:balance
      - pair_stats:rides
      - driver_stats:avg_daily_trips
      - driver_stats:conv_rate
      - {name: unused, request: Int64}
    features: [{name: trips_plus_one, type: Int64}]
",
    )
    .plugins(&FEAST_ODFV)
    .start();
    let body = json!({
        "features": ["reads_little:trips_plus_one"], "entities": { "driver_id": [1001], "unused": [1] },
    })
    .to_string();
    let request: OnlineRequest<'_> = decode_request(body.as_bytes()).unwrap();
    let snapshot = fixture.app.current();
    let authorization = Authenticator::open().authenticate_anonymous().unwrap();
    let answer: Answer<'_> = snapshot.answer(&authorization, &request).unwrap();
    let reads: Vec<(&str, usize)> =
        answer.plan.reads.iter().map(|read| (&*read.name, read.schemas[0].fields.len())).collect();
    assert_eq!(reads, [("driver_stats", 1)]);
    // The request inputs of the view are required even if the plugin does not read them, because they are part of the
    // view's definition.
    let answer = fixture.features(&["reads_little:trips_plus_one"], json!({ "driver_id": [1001] }));
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("['unused']"), "{}", answer.text());
}

#[test]
fn many_rows_equal_single_rows() {
    let fixture = Setup::golden().plugins(&FEAST_ODFV).start();
    let rows = 9_000;
    let entities = json!({
        "driver_id": vec![1001; rows], "amount": (0..rows).collect::<Vec<_>>(), "hour": vec![1; rows],
    });
    let values = fixture.features(&["odfv_python:conv_x_amount"], entities).column("conv_x_amount")["values"].clone();
    let values = values.as_array().unwrap();
    assert_eq!(values.len(), rows);
    for row in [0, 1, 4_095, 4_096, 8_191, 8_192, rows - 1] {
        let entities = json!({ "driver_id": [1001], "amount": [row], "hour": [1] });
        let (single, _) = cells(&fixture, &["odfv_python:conv_x_amount"], entities, "conv_x_amount");
        assert_eq!(values[row], single[0], "row {row}");
    }
}

#[test]
fn violations_do_not_affect_other_lookups() {
    let modes = ["spin", "memory", "recurse", "gigantic", "alias", "bad_utf8", "trap", "log_flood", "slow"];
    let views = modes.map(|mode| {
        format!(
            "  - name: hostile_{mode}
    plugin: hostile
    inputs: [{{name: x, request: Float64}}]
    features: [{{name: y, type: Float64}}]
    config: {{mode: {mode}, after: 4}}
"
        )
    });
    let fixture = with_hostile(&format!("derived_views:\n{}", views.concat()));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let lookups = scope.spawn(|| {
            let mut answers = 0;
            while !over.load(Ordering::Relaxed) {
                let answer = fixture.features(&["driver_stats:conv_rate"], json!({ "driver_id": [1001] }));
                assert_eq!(answer.column("conv_rate")["values"], json!([0.6001]));
                answers += 1;
            }
            answers
        });
        for mode in modes {
            for _ in 0..8 {
                let answer = fixture.features(&[&format!("hostile_{mode}:y")], json!({ "x": [1.0] }));
                assert_eq!(answer.status, 200, "{mode}: {}", answer.text());
                let status = answer.column("y")["statuses"][0].clone();
                assert!(status == "PRESENT" || status == "INVALID", "{mode}: {status}");
            }
        }
        over.store(true, Ordering::Relaxed);
        assert!(lookups.join().unwrap() > 10);
    });
}

/// Returns definitions of views of the hostile plugin that fails in rows whose `x` is at least 1000.
fn hostile_views(modes: &[&str], on_error: &str) -> String {
    let view = |mode: &&str| {
        format!(
            "  - name: hostile_{mode}
    plugin: hostile
    inputs: [{{name: x, request: Float64}}]
    features: [{{name: y, type: Float64}}, {{name: text, type: String}}]
    config: {{mode: {mode}, bad: 1000}}
    on_error: {on_error}
"
        )
    };
    format!("derived_views:\n{}", modes.iter().map(view).collect::<String>())
}

#[test]
fn bad_row_does_not_affect_other_rows() {
    let modes = ["fault", "trap", "spin", "bad_utf8"];
    let fixture = with_hostile(&hostile_views(&modes, "{default: {y: -1.0}}"));
    let x: Vec<f64> = (0..100).map(|row| if row == 41 { 1_000.0 } else { f64::from(row) }).collect();
    let y: Vec<f64> = (0..100).map(|row| if row == 41 { -1.0 } else { f64::from(row) * 2.0 }).collect();
    let statuses: Vec<&str> = (0..100).map(|row| if row == 41 { "INVALID" } else { "PRESENT" }).collect();
    for mode in modes {
        let features = [&*format!("hostile_{mode}:y"), &*format!("hostile_{mode}:text")];
        let answer = fixture.features(&features, json!({ "x": x }));
        assert_eq!(answer.column("y")["values"], json!(y), "{mode}");
        assert_eq!(answer.column("y")["statuses"], json!(statuses), "{mode}");
        assert_eq!(answer.column("text")["values"][41], Value::Null, "{mode}");
        let of = |name: &str, feature: &str| {
            crate::fixture::metric(&format!("{name}{{view=\"hostile_{mode}\",feature=\"{feature}\"}}"))
        };
        for feature in ["y", "text"] {
            assert_eq!(of("larder_derived_invalid_values_total", feature), 1.0, "{mode}: {feature}");
            assert_eq!(of("larder_derived_null_values_total", feature), 0.0, "{mode}: {feature}");
        }
    }
}

/// The trap of the second view moves the request to an isolation thread, where the first view is computed again.
#[test]
fn repeated_views_are_counted_once() {
    let fixture = with_hostile(&hostile_views(&["fault", "trap"], "null"));
    let answer = fixture.features(&["hostile_fault:y", "hostile_trap:text"], json!({ "x": [1.0, 1_000.0, 2.0] }));
    assert_eq!(answer.status, 200);
    for view in ["hostile_fault", "hostile_trap"] {
        let invalid = format!("larder_derived_invalid_values_total{{view=\"{view}\",feature=\"y\"}}");
        assert_eq!(crate::fixture::metric(&invalid), 1.0, "{view}");
        let failed = format!("larder_plugin_failed_rows_total{{plugin=\"hostile\",version=\"1.0.0\",view=\"{view}\"}}");
        assert_eq!(crate::fixture::metric(&failed), 1.0, "{view}");
    }
    // Nothing is served if the request fails, but the failed row counts for the plugin.
    let fixture = with_hostile(&hostile_views(&["spin"], "fail"));
    assert_eq!(fixture.features(&["hostile_spin:y"], json!({ "x": [1_000.0] })).status, 500);
    let of = |name: &str| crate::fixture::metric(&format!("{name}{{"));
    assert_eq!(of("larder_derived_invalid_values_total"), 4.0, "two features of two views");
    assert_eq!(of("larder_plugin_failed_rows_total"), 3.0);
}

#[test]
fn failed_request_names_the_row() {
    let fixture = with_hostile(&hostile_views(&["fault", "trap"], "fail"));
    for (mode, why) in [
        ("fault", "the hostile plugin gives up"),
        ("trap", "the call failed. hint: look for the reason in the server's log"),
    ] {
        let answer = fixture.features(&[&format!("hostile_{mode}:y")], json!({ "x": [1.0, 2.0, 1_000.0, 4.0] }));
        let expected = format!("derived view hostile_{mode}, row 2, could not be computed by plugin hostile: {why}");
        assert_eq!((answer.status, answer.json()), (500, json!(expected)));
        let answer = fixture.features(&[&format!("hostile_{mode}:y")], json!({ "x": [1.0, 2.0] }));
        assert_eq!(answer.column("y")["values"], json!([2.0, 4.0]), "{mode}");
    }
}

#[test]
fn inputs_are_cast_without_loss() {
    let view = |name: &str, value_type: &str| {
        format!(
            "  - name: {name}
    plugin: hostile
    inputs: [{{name: x, request: {value_type}}}]
    features: [{{name: y, type: Float64}}]
    config: {{mode: good}}
"
        )
    };
    let views = [view("of_int64", "Int64"), view("of_int32", "Int32"), view("of_float32", "Float32")].concat();
    let fixture = with_hostile(&format!("derived_views:\n{views}"));
    let ask = |name: &str, x: Value| {
        let (values, statuses) = cells(&fixture, &[&format!("{name}:y")], json!({ "x": x }), "y");
        (values, statuses)
    };
    let present = |count: usize| Value::from(vec!["PRESENT"; count]);
    assert_eq!(ask("of_int32", json!([1, -2, null])), (json!([2.0, -4.0, 0.0]), present(3)));
    assert_eq!(ask("of_float32", json!([1.5, 0.1])), (json!([3.0, 2.0 * f64::from(0.1_f32)]), present(2)));
    assert_eq!(ask("of_int64", json!([3, 1_i64 << 53])), (json!([6.0, 18_014_398_509_481_984.0]), present(2)));
    let (values, statuses) = ask("of_int64", json!([1, (1_i64 << 53) + 1, 2]));
    assert_eq!((values, statuses), (json!([2.0, null, 4.0]), json!(["PRESENT", "INVALID", "PRESENT"])));
    // A wider type is not cast to a narrower one.
    let error = with(&format!("derived_views:\n{}", view("of_text", "String"))).start();
    let why = error.app.deploy(&fs::read(guest("hostile")).unwrap(), true).unwrap_err();
    assert!(why.contains("input 'x' is String in the view, but Float64 in the plugin"), "{why}");
}

/// Sets a flag when it is dropped.
pub(crate) struct SetOnDrop<'f>(pub(crate) &'f AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn bad_caller_does_not_affect_good_caller() {
    let modes = ["fault", "trap", "spin", "memory", "bad_utf8"];
    let fixture = with_hostile(&hostile_views(&modes, "null"));
    for mode in modes {
        let features = [&*format!("hostile_{mode}:y")];
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            // Without this, the other threads would not end after a failed assertion.
            let ended = SetOnDrop(&over);
            let bad = || {
                let mut answers = 0;
                while !over.load(Ordering::Relaxed) {
                    let answer = fixture.features(&features, json!({ "x": [1_000.0] }));
                    assert_eq!(answer.column("y")["statuses"], json!(["INVALID"]), "{mode}");
                    answers += 1;
                }
                answers
            };
            let callers = [scope.spawn(bad), scope.spawn(bad)];
            for x in (0..200).map(f64::from) {
                let answer = fixture.features(&features, json!({ "x": [x, x + 1.0] }));
                assert_eq!(
                    answer.column("y")["values"],
                    json!([x * 2.0, (x + 1.0) * 2.0]),
                    "{mode}: {}",
                    answer.text()
                );
                assert_eq!(answer.column("y")["statuses"], json!(["PRESENT", "PRESENT"]), "{mode}");
            }
            drop(ended);
            let bad: i32 = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
            assert!(bad > 0, "{mode}");
        });
    }
}

#[test]
fn catalog_lists_plugin_and_inputs() {
    let fixture = Setup::golden().plugins(&["feast_odfv/odfv_python"]).start();
    let catalog = fixture.get("/v1/catalog").json();
    let view = |name: &str| {
        catalog["derived_views"].as_array().unwrap().iter().find(|view| view["name"] == name).unwrap().clone()
    };
    let python = view("odfv_python");
    assert_eq!(python["plugin_version"], "1.0.0");
    assert_eq!(
        python["inputs"][0],
        json!({ "name": "conv_rate", "type": "Float64", "from": "driver_stats:conv_rate" })
    );
    assert_eq!(
        python["inputs"][1],
        json!({ "name": "amount", "type": "Float64", "from": "request", "doc": "From the request." })
    );
    assert_eq!(view("odfv_pandas")["plugin_version"], Value::Null);
}

#[test]
fn catalog_has_docs_of_signature() {
    let fixture = Setup::golden().plugins(&["feast_odfv/odfv_singleton"]).start();
    let catalog = fixture.get("/v1/catalog").json();
    let views = catalog["derived_views"].as_array().unwrap();
    let singleton = views.iter().find(|view| view["name"] == "odfv_singleton").unwrap();
    assert_eq!(singleton["plugin_doc"], "Adds one trip.");
    assert_eq!(singleton["features"][0]["doc"], "The number of trips plus one.");
    assert_eq!(singleton["comparison"], Value::Null);
}
