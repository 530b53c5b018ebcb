//! The feature log: its values are those of the responses, and its faults do not affect lookups.

mod faults;
mod parity;

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, AsArray, Float32Array, Float64Array, Int64Array, ListArray, RecordBatch, StringArray},
    compute::{cast, concat_batches},
    datatypes::{DataType, Date32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType},
    ipc::reader::StreamReader,
};
use larder_grpc::proto::feast::serving::{GetOnlineFeaturesRequest, get_online_features_request::Kind as Asked};
use larder_http::SyncCommand;
use larder_model::model::{FeastValue, Kind, RepeatedValue};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use crate::{
    fixture::{Fixture, RECORDED_AT, Setup, metric},
    grpc_client::Client,
    parquet::{times, write},
    wire,
};

const ARROW: &str = "application/vnd.apache.arrow.stream";

/// A view with values whose bits are easily lost, a service with values of every type and with derived features, and a service
/// that only has derived features.
const MORE: &str = "
feature_views:
  - name: odd
    entities: [driver]
    source: {path: data/odd.parquet, timestamp_field: event_timestamp}
    features:
      - {name: double, type: Float64}
      - {name: single, type: Float32}
      - {name: doubles, type: Array(Float64)}
      - {name: numbers, type: Set(Int64)}
      - {name: decimal, type: Decimal}
feature_services:
  - {name: every_type, features: [customer_stats, driver_stats, odd, odfv_python]}
  - {name: derived_only, features: [odfv_python]}
  - {name: other, features: [driver_stats]}
";

/// Returns the files of a log, sorted by name.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "parquet")).collect();
    files.retain(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.'));
    files.sort();
    files
}

/// Reads a file of a log.
fn read_file(path: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

/// Reads all files of the log of a service, in the order in which they were written.
fn read(dir: &Path) -> RecordBatch {
    let batches: Vec<RecordBatch> = files(dir).iter().map(|path| read_file(path)).collect();
    concat_batches(&batches.first().unwrap_or_else(|| panic!("no files in {}", dir.display())).schema(), &batches)
        .unwrap()
}

/// The golden repository with [`MORE`]. Logs services, each with its rate.
fn setup(services: &str) -> Setup {
    setup_with(&format!("logging: {{services: {{{services}}}, to: log}}\n"))
}

fn setup_with(logging: &str) -> Setup {
    let payload = f64::from_bits(f64::NAN.to_bits() | 7);
    let doubles = vec![Some(vec![Some(-0.0), Some(payload)]), Some(vec![]), None];
    let numbers = vec![Some(vec![Some(3), Some(1), Some(3)]), Some(vec![]), None];
    let setup = Setup::golden().plugins(&["feast_odfv/odfv_python"]).config(logging);
    fs::write(setup.path("features/more.yaml"), MORE).unwrap();
    let columns: Vec<(&'static str, ArrayRef)> = vec![
        ("driver_id", Arc::new(Int64Array::from(vec![1001, 1002, 1003]))),
        ("event_timestamp", times([Some(1), Some(2), Some(3)].into_iter())),
        ("double", Arc::new(Float64Array::from(vec![Some(-0.0), Some(f64::MIN_POSITIVE / 8.0), None]))),
        ("single", Arc::new(Float32Array::from(vec![Some(-0.0), Some(f32::INFINITY), None]))),
        ("doubles", Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(doubles))),
        ("numbers", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(numbers))),
        ("decimal", Arc::new(StringArray::from(vec![Some("1.50"), Some("-0"), None]))),
    ];
    write(&setup.path("data/odd.parquet"), &columns);
    setup
}

/// Requests a service, in JSON or in Arrow.
fn ask(fixture: &Fixture, service: &str, entities: &Value, accept: &str) -> wire::Answer {
    let body = json!({ "feature_service": service, "entities": entities, "full_feature_names": true });
    let headers = [("accept", accept), ("content-type", "application/json")];
    let answer = wire::send(fixture.address(), "POST", "/get-online-features", &headers, body.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

fn drivers(fixture: &Fixture, service: &str, ids: &[i64]) {
    ask(fixture, service, &json!({ "driver_id": ids }), "application/json");
}

fn texts(batch: &RecordBatch, column: &str) -> Vec<Option<String>> {
    batch[column].as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
}

fn ints(batch: &RecordBatch, column: &str) -> Vec<i64> {
    batch[column].as_primitive::<Int64Type>().values().to_vec()
}

fn micros(batch: &RecordBatch, column: &str) -> Vec<Option<i64>> {
    batch[column].as_primitive::<TimestampMicrosecondType>().iter().collect()
}

/// The values in the log are the bits of the response, for every type and every protocol.
#[test]
fn log_equals_responses() {
    let mut fixture = setup("every_type: 1").config("grpc: {listen: 127.0.0.1:0}\n").start();
    let customers = ["CUST_000124", "CUST_000123", "NOPE", "CUST_000125"];
    let (ids, amounts, hours) = ([1001, 1002, 1003, 9999], [2.5, -0.0, 1e300, 1.0], [1, 23, 4, 5]);
    let entities = json!({ "customer_id": customers, "driver_id": ids, "amount": amounts, "hour": hours });
    let arrow = ask(&fixture, "every_type", &entities, ARROW);
    ask(&fixture, "every_type", &entities, "application/json");
    // A request that closes the connection is not a fast-path request.
    let body = json!({ "feature_service": "every_type", "entities": entities, "full_feature_names": true });
    let slow = [("content-type", "application/json"), ("connection", "close")];
    let answer = wire::send(fixture.address(), "POST", "/get-online-features", &slow, body.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let value = |kind: Kind| FeastValue { kind: Some(kind) };
    let column = |name: &str, val: Vec<FeastValue>| (name.to_owned(), RepeatedValue { val });
    let request = GetOnlineFeaturesRequest {
        kind: Some(Asked::FeatureService("every_type".to_owned())),
        entities: HashMap::from([
            column("customer_id", customers.iter().map(|id| value(Kind::String((*id).to_owned()))).collect()),
            column("driver_id", ids.iter().map(|id| value(Kind::Int64(*id))).collect()),
        ])
        .into_iter()
        .collect(),
        request_context: HashMap::from([
            column("amount", amounts.iter().map(|amount| value(Kind::Double(*amount))).collect()),
            column("hour", hours.iter().map(|hour| value(Kind::Int64(*hour))).collect()),
        ])
        .into_iter()
        .collect(),
        full_feature_names: true,
        ..Default::default()
    };
    Client::of(&fixture).look_up(&request).unwrap();
    fixture.stop();

    let expected = StreamReader::try_new(&arrow.body[..], None).unwrap().next().unwrap().unwrap();
    let log = read(&fixture.path("log/every_type"));
    assert_eq!(log.num_rows() % 4, 0);
    let requests = log.num_rows() / 4;
    assert!(requests >= 3, "{requests}");
    let statuses: BTreeMap<&str, i32> =
        BTreeMap::from([("INVALID", 0), ("PRESENT", 1), ("NOT_FOUND", 3), ("OUTSIDE_MAX_AGE", 4)]);
    let mut features = 0;
    for request in 0..requests {
        let rows = log.slice(request * 4, 4);
        for name in ["customer_id", "driver_id"] {
            assert_eq!(&rows[name], &expected[name], "{name}");
        }
        let doubles: Vec<u64> =
            rows["amount"].as_primitive::<Float64Type>().iter().map(|v| v.unwrap().to_bits()).collect();
        assert_eq!(doubles, amounts.map(f64::to_bits));
        assert_eq!(ints(&rows, "hour"), hours);
        features = 0;
        for field in expected.schema().fields() {
            let Some(name) = field.name().strip_suffix("__status") else { continue };
            features += 1;
            assert_eq!(&rows[name], &expected[name], "{name}");
            assert_eq!(
                &rows[&*format!("{name}__timestamp")],
                &expected[&*format!("{name}__event_timestamp")],
                "{name}"
            );
            let words = cast(&expected[field.name().as_str()], &DataType::Utf8).unwrap();
            let words: Vec<i32> = words.as_string::<i32>().iter().map(|word| statuses[word.unwrap()]).collect();
            assert_eq!(rows[field.name().as_str()].as_primitive::<Int32Type>().values(), &words[..], "{name}");
        }
        let ids: Vec<_> = texts(&rows, "__request_id");
        assert!(ids.iter().all(|id| *id == ids[0]));
    }
    assert_eq!(features, 17 + 2 + 5 + 2);
    assert_eq!(requests, 4, "each protocol is logged");
    assert!(micros(&log, "__log_timestamp").iter().all(|time| *time == Some(RECORDED_AT)));
    let day = i32::try_from(RECORDED_AT / 86_400_000_000).unwrap();
    assert!(log["__log_date"].as_primitive::<Date32Type>().values().iter().all(|date| *date == day));
    assert!(texts(&log, "__larder_ttl").iter().all(|ttl| ttl.as_deref() == Some("mark")));
    let digest = fs::read(fixture.path("plugins/odfv_python.wasm")).unwrap();
    let digest = larder_plugin_host::Digest::of(&digest).to_string();
    assert!(texts(&log, "__larder_component__odfv_python").iter().all(|found| *found == Some(digest.clone())));
    assert!(micros(&log, "__larder_loaded__driver_stats").iter().all(|time| *time == Some(RECORDED_AT)));
    // The event times of the input are those of the feature.
    assert_eq!(&log["__larder_read__driver_stats"], &log["driver_stats__conv_rate__timestamp"]);
}

/// A service that has only derived features logs the keys of the views that they read.
#[test]
fn keys_of_inputs_are_logged() {
    let mut fixture = setup("derived_only: 1").start();
    ask(&fixture, "derived_only", &json!({ "driver_id": [1001], "amount": [2], "hour": [1] }), "application/json");
    fixture.stop();
    let log = read(&fixture.path("log/derived_only"));
    let names: Vec<String> = log.schema().fields().iter().map(|field| field.name().clone()).collect();
    let feast = [
        "amount",
        "hour",
        "odfv_python__conv_x_amount",
        "odfv_python__conv_x_amount__timestamp",
        "odfv_python__conv_x_amount__status",
        "odfv_python__label",
        "odfv_python__label__timestamp",
        "odfv_python__label__status",
        "__log_timestamp",
        "__log_date",
        "__request_id",
    ];
    let larder = [
        "__larder_definitions",
        "__larder_ttl",
        "driver_id",
        "__larder_loaded__driver_stats",
        "__larder_read__driver_stats",
        "__larder_component__odfv_python",
    ];
    assert_eq!(names, [&feast[..], &larder[..]].concat());
    assert_eq!(ints(&log, "driver_id"), [1001]);
}

/// A key is in the log of every server with all of its rows, or not at all.
#[test]
fn sampled_keys_are_whole() {
    let mut logged = Vec::new();
    for _ in 0..2 {
        let mut fixture = setup("other: 0.3").start();
        let all: Vec<i64> = (0..300).collect();
        drivers(&fixture, "other", &all);
        all.chunks(7).for_each(|ids| drivers(&fixture, "other", ids));
        all.iter().for_each(|id| drivers(&fixture, "other", &[*id]));
        fixture.stop();
        let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
        ints(&read(&fixture.path("log/other")), "driver_id").iter().for_each(|id| *counts.entry(*id).or_default() += 1);
        assert!(counts.values().all(|count| *count == 3), "{counts:?}");
        assert!((50..130).contains(&counts.len()), "{}", counts.len());
        logged.push(counts.into_keys().collect::<Vec<_>>());
    }
    assert_eq!(logged[0], logged[1]);
}

#[test]
fn only_named_services_are_logged() {
    let mut fixture = setup("other: 0, every_type: 1").start();
    drivers(&fixture, "other", &[1001]);
    fixture.features(&["driver_stats:conv_rate"], json!({ "driver_id": [1001] }));
    let failed =
        fixture.post("/get-online-features", br#"{"feature_service": "every_type", "entities": {"driver_id": [1]}}"#);
    assert_ne!(failed.status, 200);
    fixture.stop();
    assert!(!fs::exists(fixture.path("log")).unwrap(), "an error is not logged");
}

/// A reload changes the services, the rates and the target. Rows from before are in the previous target.
#[test]
fn reload_changes_settings() {
    let mut fixture = setup("other: 1").start();
    drivers(&fixture, "other", &[1]);
    let reload = |text: &str| {
        let config = fs::read_to_string(fixture.path("larder.yaml")).unwrap();
        let kept: String =
            config.lines().filter(|line| !line.starts_with("logging:")).map(|line| format!("{line}\n")).collect();
        fs::write(fixture.path("larder.yaml"), kept + text).unwrap();
        fixture.app.reload_all().definitions.unwrap();
    };
    reload("logging: {services: {other: 1}, to: second}\n");
    drivers(&fixture, "other", &[2]);
    fixture.eventually("the first file", || !files(&fixture.path("log/other")).is_empty());
    reload("");
    drivers(&fixture, "other", &[3]);
    fixture.eventually("the second file", || !files(&fixture.path("second/other")).is_empty());
    reload("logging: {services: {every_type: 1}, to: third}\n");
    drivers(&fixture, "other", &[4]);
    fixture.stop();
    assert_eq!(ints(&read(&fixture.path("log/other")), "driver_id"), [1]);
    assert_eq!(ints(&read(&fixture.path("second/other")), "driver_id"), [2]);
    assert!(!fs::exists(fixture.path("third")).unwrap());
}

/// A file is complete after `roll: every`, and a file of a changed service has other columns.
#[test]
fn files_are_rolled() {
    let mut fixture = setup_with("logging: {services: {other: 1}, to: log, roll: {every: 1s}}\n").start();
    let (rows, bytes) = (metric("larder_feature_log_rows_total"), metric("larder_feature_log_bytes_total"));
    drivers(&fixture, "other", &[1, 2]);
    fixture.eventually("a file", || !files(&fixture.path("log/other")).is_empty());
    assert_eq!(metric("larder_feature_log_rows_total") - rows, 2.0);
    let first = files(&fixture.path("log/other"));
    let size = fs::metadata(&first[0]).unwrap().len();
    assert_eq!(metric("larder_feature_log_bytes_total") - bytes, size as f64);
    let more = fs::read_to_string(fixture.path("features/more.yaml")).unwrap();
    let changed = more.replace(
        "{name: other, features: [driver_stats]}",
        "{name: other, features: [{view: driver_stats, features: [conv_rate]}]}",
    );
    drivers(&fixture, "other", &[3]);
    fs::write(fixture.path("features/more.yaml"), changed).unwrap();
    fixture.app.reload_definitions().unwrap();
    fixture.sync(&SyncCommand::default()).unwrap();
    drivers(&fixture, "other", &[4]);
    fixture.stop();
    let logged: Vec<(Vec<i64>, bool)> = files(&fixture.path("log/other"))
        .iter()
        .map(|path| read_file(path))
        .map(|batch| (ints(&batch, "driver_id"), batch.column_by_name("driver_stats__avg_daily_trips").is_some()))
        .collect();
    assert_eq!(logged, [(vec![1, 2], true), (vec![3], true), (vec![4], false)]);
}
