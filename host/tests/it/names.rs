//! Names with all sorts of characters, in all inputs and outputs. In Feast, any text is a valid name.
//! `tests/feast/registry_fields.py` has the same names in registries that Feast wrote.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use arrow::{
    array::{Array, AsArray, Float64Array, Int64Array},
    datatypes::Float64Type,
    ipc::reader::StreamReader,
};
use larder_grpc::proto::feast::serving::{
    FeatureList, GetOnlineFeaturesRequest, get_online_features_request::Kind as Asked,
};
use larder_model::model::{FeastValue, Kind, RepeatedValue};
use serde_json::{Value, json};

use crate::{
    binary::Home,
    fixture::Setup,
    grpc_client::Client,
    parquet::{Columns, times, write},
    wire,
};

const ODD: [&str; 12] = [
    "Größe in cm",
    "a,b",
    "x[0].y",
    "it's \"quoted\"",
    "100 %",
    "日本",
    "-1",
    ".hidden",
    "a__b",
    "a=b",
    "back\\slash",
    "../../etc",
];
const FILE: &str = "data/odd.parquet";

/// Returns all names, including a very long one.
fn names() -> Vec<&'static str> {
    let long: &'static str = "n".repeat(5_000).leak();
    ODD.iter().copied().chain([long]).collect()
}

/// Returns definitions with a view and a service for each name. Each view has a feature for each name. The entity
/// and its join key also have unusual names.
fn definitions() -> String {
    // The definitions are written as JSON, which is valid YAML.
    let features: Vec<Value> = names().iter().map(|name| json!({ "name": name, "type": "Float64" })).collect();
    let view = |name: &&str| {
        let source = json!({ "path": FILE, "timestamp_field": "event_timestamp" });
        json!({ "name": name, "entities": ["who?"], "source": source, "features": features, "push_source": name })
    };
    let service = |name: &&str| json!({ "name": name, "features": [{ "view": name }] });
    json!({
        "entities": [{ "name": "who?", "join_key": "the=key", "type": "Int64" }],
        "feature_views": names().iter().map(view).collect::<Vec<_>>(),
        "feature_services": names().iter().map(service).collect::<Vec<_>>(),
    })
    .to_string()
}

fn write_rows(path: &Path) {
    let mut columns: Columns = vec![
        ("the=key", Arc::new(Int64Array::from(vec![1, 2]))),
        ("event_timestamp", times([Some(2), Some(1)].into_iter())),
    ];
    for (at, name) in names().into_iter().enumerate() {
        columns.push((name, Arc::new(Float64Array::from(vec![at as f64, -(at as f64)]))));
    }
    write(path, &columns);
}

#[test]
fn any_name_works_in_every_protocol() {
    let setup = Setup::with(&definitions()).config("grpc: {listen: 127.0.0.1:0}\n");
    write_rows(&setup.path(FILE));
    let fixture = setup.start();
    let mut client = Client::of(&fixture);
    for (at, name) in names().into_iter().enumerate() {
        let body = json!({ "feature_service": name, "entities": { "the=key": [1, 3] }, "full_feature_names": true });
        let answer = fixture.post("/get-online-features", body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        for (place, feature) in names().into_iter().enumerate() {
            let column = answer.column(&format!("{name}__{feature}"));
            assert_eq!(column["values"], json!([place as f64, null]), "{name}:{feature}");
        }

        let reference = format!("{}:{name}", ODD[0]);
        let body = json!({ "features": [reference], "entities": { "the=key": [2] } }).to_string();
        let accept = [("accept", "application/vnd.apache.arrow.stream")];
        let answer = wire::send(fixture.address(), "POST", "/get-online-features", &accept, body.as_bytes());
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        let batch = StreamReader::try_new(&answer.body[..], None).unwrap().next().unwrap().unwrap();
        let column = batch.column_by_name(name).unwrap();
        assert_eq!(column.as_primitive::<Float64Type>().value(0), -(at as f64), "{name}");
        assert_eq!(batch.column_by_name(&format!("{name}__status")).unwrap().len(), 1);

        let asked = GetOnlineFeaturesRequest {
            kind: Some(Asked::Features(FeatureList { val: vec![reference] })),
            entities: BTreeMap::from([(
                "the=key".to_owned(),
                RepeatedValue { val: vec![FeastValue { kind: Some(Kind::Int64(2)) }] },
            )]),
            ..GetOnlineFeaturesRequest::default()
        };
        let answer = client.look_up(&asked).unwrap();
        let found = answer.metadata.unwrap().feature_names.unwrap().val;
        let place = found.iter().position(|found| found == name).unwrap();
        assert_eq!(answer.results[place].values[0].kind, Some(Kind::Double(-(at as f64))), "{name}");

        let row: serde_json::Map<String, Value> =
            names().iter().map(|name| ((*name).to_owned(), json!([7.5]))).collect();
        let mut frame = json!(row);
        frame["the=key"] = json!([9]);
        frame["event_timestamp"] = json!(["2026-11-23 00:00:00"]);
        let push = json!({ "push_source_name": name, "df": frame });
        let answer = fixture.post("/push", push.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        let answer = fixture.features(&[&format!("{name}:a,b")], json!({ "the=key": [9] }));
        assert_eq!(answer.column("a,b")["values"], json!([7.5]), "{name}");
    }
    // A suffix is a version only if it has the form of one.
    let answer = fixture.features(&["Größe in cm@x:a,b"], json!({ "the=key": [1] }));
    assert_eq!(answer.status, 404, "{}", answer.text());
}

#[test]
fn any_name_works_on_command_line() {
    let home = Home::with(&definitions());
    write_rows(&home.path(FILE));
    home.run(["check"]).assert_code(0);
    home.run(["sync"]).assert_code(0);
    for (at, name) in ODD.into_iter().enumerate() {
        let reference = format!("{name}:{name}");
        let got = home.run(["get", "--feature", &reference, "--json", "the=key=2"]);
        got.assert_code(0);
        let answer: Value = serde_json::from_str(&got.out).unwrap();
        let names = answer["metadata"]["feature_names"].as_array().unwrap();
        let place = names.iter().position(|found| found == name).unwrap();
        assert_eq!(answer["results"][place]["values"], json!([-(at as f64)]), "{name}: {}", got.out);
    }
    let listed = home.run(["list"]);
    listed.assert_code(0);
    for name in ODD {
        assert!(listed.out.contains(name), "{name}: {}", listed.out);
    }
    home.run(["verify"]).assert_code(0);
    assert!(fs::exists(home.path("data")).unwrap());
}
