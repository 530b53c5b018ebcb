//! A Feast repository instead of definition files. Tests the recorded responses with the definitions in its registry,
//! changes in Feast's SQLite store, and errors in both files.

use std::{
    fs,
    time::{Duration, Instant},
};

use larder_common::clock::{Clock as _, SystemClock};
use larder_fakeaws::{FakeS3, FaultProxy};
use rusqlite::{Connection, params};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    binary::Home,
    fixture::{Fixture, Setup, copy_dir, eventually, replace},
    guests::{FEAST_ODFV, place},
    http::assert_all_recorded,
    wire,
};

pub(crate) const FEATURE_STORE: &str = "\
project: churn_prediction
registry: {path: data/registry.db, cache_ttl_seconds: 600}
provider: local
online_store: {type: sqlite, path: data/online_store.db}
offline_store: {type: file}
entity_key_serialization_version: 3
";

const LARDER_YAML: &str = "\
feast: {repo: .}
server: {listen: 127.0.0.1:0, workers: 2}
metrics: {listen: off}
reload: {every: 50ms}
";

/// Creates the golden repository in Feast's form.
pub(crate) fn home() -> Home {
    let home = Home::empty();
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/repo/data");
    copy_dir(&golden, &home.path("data"));
    home.write("feature_store.yaml", FEATURE_STORE);
    home.write("larder.yaml", LARDER_YAML);
    home
}

fn registry(home: &Home) -> Vec<u8> {
    fs::read(home.path("data/registry.db")).unwrap()
}

/// Replaces each occurrence of a string in the registry with another text of the same length.
pub(crate) fn patch(home: &Home, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let mut bytes = registry(home);
    let places: Vec<usize> =
        bytes.windows(from.len()).enumerate().filter(|(_, part)| *part == from.as_bytes()).map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    // The file is replaced with a rename.
    replace(home.path("data/registry.db"), bytes);
}

pub(crate) fn ask(address: std::net::SocketAddr, features: &[&str], entities: Value) -> wire::Answer {
    let body = json!({ "features": features, "entities": entities }).to_string();
    wire::send(address, "POST", "/get-online-features", &[], body.as_bytes())
}

#[test]
fn registry_alone_gives_every_recorded_answer() {
    let setup = Setup::golden().plugins(&FEAST_ODFV).only_config("feast: {repo: .}\n");
    fs::remove_dir_all(setup.path("features")).unwrap();
    fs::write(setup.path("feature_store.yaml"), FEATURE_STORE).unwrap();
    let fixture = setup.start();
    assert_all_recorded(&fixture);
}

#[test]
fn invalid_registry_prevents_start() {
    let home = home();
    let whole = registry(&home);
    let half = &whole[..whole.len() / 2];
    let cases: [(&[u8], &str); 3] = [
        (half, "registry.db: error: this is not a Feast registry, or it is truncated"),
        (b"[registry]\nnot = 'protobuf'\n", "registry.db: error: this is not a Feast registry"),
        (&[0xff; 64], "registry.db: error: this is not a Feast registry"),
    ];
    for (bytes, words) in cases {
        fs::write(home.path("data/registry.db"), bytes).unwrap();
        home.run(["check"]).assert_code(3).assert_complains(&[words]);
        home.run(["serve"]).assert_code(3).assert_complains(&[words]);
    }
    fs::remove_file(home.path("data/registry.db")).unwrap();
    home.run(["check"])
        .assert_code(3)
        .assert_complains(&["registry.db cannot be read", "run 'feast apply' to write it"]);
    home.write("feature_store.yaml", &FEATURE_STORE.replace("path: data/registry.db", "path: gs://bucket/registry.db"));
    home.run(["serve"]).assert_code(3).assert_complains(&["not from gs://"]);
    fs::remove_file(home.path("feature_store.yaml")).unwrap();
    home.run(["serve"]).assert_code(3).assert_complains(&["feature_store.yaml", "a Feast repository is a directory"]);
}

#[test]
fn broken_registry_keeps_last_good_one() {
    let home = home();
    let (mut host, address) = home.serve();
    host.until("sync ended view=\"driver_stats\"");
    let whole = registry(&home);
    fs::write(home.path("data/registry.db"), &whole[..100]).unwrap();
    host.until("not a Feast registry");
    let answer = ask(address, &["driver_stats:avg_daily_trips"], json!({ "driver_id": [1001] }));
    assert_eq!(answer.column("avg_daily_trips")["values"], json!([1001]));
    // The last good registry also stays if the file is empty or missing, because Feast overwrites the file in place.
    let trips = || ask(address, &["driver_stats:avg_daily_trips"], json!({ "driver_id": [1001] })).status;
    fs::write(home.path("data/registry.db"), b"").unwrap();
    host.until("the registry is empty");
    fs::remove_file(home.path("data/registry.db")).unwrap();
    host.until("registry.db cannot be read");
    assert_eq!(trips(), 200);
    // When the registry is complete again, it is used. This one has another name for a service.
    fs::write(home.path("data/registry.db"), &whole).unwrap();
    patch(&home, "fs_basic", "fs_other");
    host.until("definitions reloaded");
    let by_service = |service: &str| {
        let entities = json!({ "customer_id": ["CUST_000123"], "driver_id": [1001] });
        let body = json!({ "feature_service": service, "entities": entities }).to_string();
        wire::send(address, "POST", "/get-online-features", &[], body.as_bytes()).status
    };
    eventually("the other name is served", || by_service("fs_other") == 200);
    assert_eq!(by_service("fs_basic"), 404);
    host.stop(Signal::TERM);
}

#[test]
fn unservable_definitions_are_listed_with_reasons() {
    let home = home();
    patch(&home, "data/global_stats.parquet", "gs://bucket/g_stats.parqu");
    let check = home.run(["check"]);
    check.assert_code(0);
    let why = "feature view 'global_stats' is not served: its batch source is gs://bucket/g_stats.parqu";
    assert!(check.out.contains(why), "{}", check.out);
    assert!(check.out.contains("5 feature views"), "{}", check.out);
    let (mut host, address) = home.serve();
    host.until("sync ended view=\"driver_stats\"");
    let answer = ask(address, &["global_stats:global_mean"], json!({ "driver_id": [1] }));
    // The status is not 503, because Feast's client would then retry endlessly, and users would not see the message.
    assert_eq!(answer.status, 501);
    assert!(
        answer.text().contains("global_stats cannot be served by Larder: its batch source is gs:"),
        "{}",
        answer.text()
    );
    let answer = ask(address, &["driver_stats:avg_daily_trips"], json!({ "driver_id": [1001] }));
    assert_eq!(answer.column("avg_daily_trips")["values"], json!([1001]));
    host.stop(Signal::TERM);
}

#[test]
fn missing_files_spare_other_views() {
    let home = home();
    fs::remove_file(home.path("data/pair_stats.parquet")).unwrap();
    let (mut host, address) = home.serve();
    host.until("pair_stats.parquet");
    let driver = || ask(address, &["driver_stats:avg_daily_trips"], json!({ "driver_id": [1001] }));
    eventually("the other view is loaded", || driver().column("avg_daily_trips")["values"] == json!([1001]));
    host.stop(Signal::TERM);
}

/// Creates Feast's online store with one driver.
pub(crate) fn online_store(home: &Home) -> Connection {
    let store = Connection::open(home.path("data/online_store.db")).unwrap();
    for view in ["customer_stats", "driver_stats", "pair_stats", "expired_stats", "mapped_stats", "global_stats"] {
        let columns = "entity_key BLOB, feature_name TEXT, value BLOB, value_text TEXT, vector_value BLOB, event_ts \
                       timestamp, created_ts timestamp, PRIMARY KEY(entity_key, feature_name)";
        store.execute_batch(&format!("CREATE TABLE churn_prediction_{view} ({columns})")).unwrap();
    }
    put_driver(&store, 1001, 7, 1_764_000_000);
    store
}

/// Writes one row as Feast does: the serialized key (version 3), and a `feast.types.Value` with an int64.
pub(crate) fn put_driver(store: &Connection, driver: i64, trips: u8, at: i64) {
    let mut key = b"\x01\0\0\0\x02\0\0\0\x09\0\0\0driver_id\x04\0\0\0\x08\0\0\0".to_vec();
    key.extend_from_slice(&driver.to_le_bytes());
    let sql = "INSERT OR REPLACE INTO churn_prediction_driver_stats (entity_key, feature_name, value, event_ts) \
               VALUES (?1, 'avg_daily_trips', ?2, ?3)";
    store.execute(sql, params![key, [0x20, trips], at]).unwrap();
}

#[test]
fn online_store_changes_are_served() {
    let home = home();
    let store = online_store(&home);
    let (host, address) = home.serve();
    let trips = |driver: i64| {
        let answer = ask(address, &["driver_stats:avg_daily_trips"], json!({ "driver_id": [driver] }));
        answer.column("avg_daily_trips")["values"][0].clone()
    };
    eventually("loaded", || trips(1001) == 7);
    // The Parquet file has a row of driver 1002, but the online store has none, and values come from the online store.
    assert_eq!(trips(1002), Value::Null);
    put_driver(&store, 1002, 9, 1_764_000_001);
    eventually("the new row is served", || trips(1002) == 9);
    // Feast now writes an older event. The last write wins, as in Feast.
    put_driver(&store, 1001, 8, 1_763_000_000);
    eventually("the last write is served", || trips(1001) == 8);
    store.execute("DELETE FROM churn_prediction_driver_stats WHERE event_ts = 1764000001", []).unwrap();
    eventually("the deleted row is gone", || trips(1002) == Value::Null);

    // A row that a caller writes to Larder stays when Feast writes to its store.
    let df =
        json!({ "driver_id": [77], "event_timestamp": ["2026-01-01"], "conv_rate": [0.5], "avg_daily_trips": [5] });
    let body = json!({ "feature_view_name": "driver_stats", "df": df }).to_string();
    assert_eq!(wire::send(address, "POST", "/write-to-online-store", &[], body.as_bytes()).status, 200);
    put_driver(&store, 1003, 3, 1_764_000_002);
    eventually("another new row is served", || trips(1003) == 3);
    assert_eq!(trips(77), 5);
    // Rows that are materialized from the view's files also stay.
    let body = json!({ "disable_event_timestamp": true, "feature_views": ["driver_stats"] }).to_string();
    assert_eq!(wire::send(address, "POST", "/materialize", &[], body.as_bytes()).status, 200);
    assert_eq!((trips(1002), trips(77)), (json!(1002), json!(5)));
    host.stop(Signal::TERM);
}

#[test]
fn correction_written_by_feast_is_served() {
    let home = home();
    let store = online_store(&home);
    let (host, address) = home.serve();
    let asked = || ask(address, &["driver_stats:avg_daily_trips"], json!({ "driver_id": [77] }));
    let trips = || asked().column("avg_daily_trips")["values"][0].clone();
    let write = |time: &str, trips: i64| {
        let df =
            json!({ "driver_id": [77], "event_timestamp": [time], "conv_rate": [0.5], "avg_daily_trips": [trips] });
        let body = json!({ "feature_view_name": "driver_stats", "df": df }).to_string();
        assert_eq!(wire::send(address, "POST", "/write-to-online-store", &[], body.as_bytes()).status, 200);
    };
    eventually("loaded", || wire::send(address, "GET", "/ready", &[], b"").status == 200);
    write("2025-11-24T16:00:00.987654Z", 5);
    assert_eq!(trips(), 5);
    // The event time is returned in whole seconds, as in Feast.
    assert_eq!(asked().column("avg_daily_trips")["event_timestamps"], json!(["2025-11-24T16:00:00Z"]));
    // The online store does not have the row yet. A later sync of the store must not remove it.
    put_driver(&store, 1002, 1, 1_764_000_000);
    let other = || ask(address, &["driver_stats:avg_daily_trips"], json!({ "driver_id": [1002] }));
    eventually("another row is served", || other().column("avg_daily_trips")["values"] == json!([1]));
    assert_eq!(trips(), 5);
    // Feast writes a corrected value with the same event time, which its store truncates to seconds.
    put_driver(&store, 77, 6, 1_764_000_000);
    eventually("the correction is served", || trips() == 6);
    write("2025-11-24T16:00:01Z", 7);
    assert_eq!(trips(), 7);
    host.stop(Signal::TERM);
}

#[test]
fn future_row_in_online_store_waits() {
    let home = home();
    home.configure("sync: {future_tolerance: 0s}\n");
    let store = online_store(&home);
    let now = SystemClock.now() / 1_000_000;
    put_driver(&store, 1001, 7, now);
    put_driver(&store, 1002, 8, now + 4);
    put_driver(&store, 1003, 9, now + 100_000);
    let (mut host, address) = home.serve();
    host.until("2 dated later than now plus 'sync: future_tolerance' (0)");
    let trips = || {
        let answer = ask(address, &["driver_stats:avg_daily_trips"], json!({ "driver_id": [1001, 1002, 1003] }));
        answer.column("avg_daily_trips")["values"].clone()
    };
    eventually("the row is served when it is due", || trips() == json!([7, 8, null]));
    assert!(SystemClock.now() / 1_000_000 >= now + 4, "the row is not served before its event time");
    host.stop(Signal::TERM);
}

#[test]
fn locked_or_damaged_store_keeps_rows() {
    let home = home();
    let store = online_store(&home);
    let (mut host, address) = home.serve();
    let trips = || {
        let answer = ask(address, &["driver_stats:avg_daily_trips"], json!({ "driver_id": [1001] }));
        answer.column("avg_daily_trips")["values"][0].clone()
    };
    eventually("loaded", || trips() == 7);
    put_driver(&store, 1001, 8, 1_764_000_005);
    eventually("Larder equals the online store", || trips() == 8);
    drop(store);
    fs::write(home.path("data/online_store.db"), "no database any more, only a long enough text".repeat(100)).unwrap();
    host.until("is not a readable SQLite file");
    assert_eq!(trips(), 8);
    host.stop(Signal::TERM);
}

#[test]
fn store_locked_at_start_loads_later() {
    let home = home();
    let store = online_store(&home);
    store.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let (mut host, address) = home.serve();
    // The sync waits for the lock for some time before it fails.
    host.until("online_store.db is locked by another process");
    let ask = || ask(address, &["driver_stats:avg_daily_trips"], json!({ "driver_id": [1001] }));
    assert_eq!(wire::send(address, "GET", "/ready", &[], b"").status, 503);
    store.execute_batch("COMMIT").unwrap();
    eventually("loaded", || ask().status == 200 && ask().column("avg_daily_trips")["values"] == json!([7]));
    host.stop(Signal::TERM);
}

#[test]
fn half_written_rows_are_not_served() {
    let home = home();
    let store = online_store(&home);
    (0..200).for_each(|driver| put_driver(&store, driver, 1, 1_764_000_000));
    // A cache of a few pages makes SQLite write into the file before the transaction ends.
    store.execute_batch("PRAGMA cache_size = 2; BEGIN").unwrap();
    (0..2_000).for_each(|driver| put_driver(&store, driver, 2, 1_764_000_001));
    let copy = |from: &str, to: &str| fs::copy(home.path(from), home.path(to)).unwrap();
    copy("data/online_store.db", "data/killed.db");
    copy("data/online_store.db-journal", "data/killed.db-journal");
    home.write("feature_store.yaml", &FEATURE_STORE.replace("online_store.db", "killed.db"));
    let (host, address) = home.serve();
    eventually("ready", || wire::send(address, "GET", "/ready", &[], b"").status == 200);
    let answer = ask(address, &["driver_stats:avg_daily_trips"], json!({ "driver_id": [0, 199, 200, 1999] }));
    assert_eq!(answer.column("avg_daily_trips")["values"], json!([1, 1, null, null]));
    host.stop(Signal::TERM);
}

#[test]
fn start_reports_flag_and_missing_plugins() {
    let home = home();
    fs::remove_file(home.path("larder.yaml")).unwrap();
    let words = "this directory has no larder.yaml, but it is a Feast repository. hint: use '--feast-repo .'";
    home.run(["serve"]).assert_code(2).assert_complains(&[words]);
    home.run(["list"]).assert_code(2).assert_complains(&[words]);
    place(&["feast_odfv/odfv_python"], &home.path("plugins"));
    home.write("larder.yaml", LARDER_YAML);
    let (mut host, _) = home.serve();
    let line = host.until("derived view has no plugin");
    assert!(line.contains("odfv_p") && !line.contains("odfv_python"), "{line}");
    host.stop(Signal::TERM);
    // No directory can be created at this path, as in a repository that is mounted read-only.
    home.configure("store: {data_dir: feature_store.yaml/store}\n");
    home.run(["serve"]).assert_code(4).assert_complains(&["cannot create feature_store.yaml/store", "data_dir"]);
}

#[test]
fn shared_request_input_is_typed_once() {
    let home = home();
    place(&["feast_odfv/odfv_python"], &home.path("plugins"));
    home.run(["sync"]).assert_code(0);
    let got = home.run(["get", "--feature", "odfv_python:label", "driver_id=1001,1002", "amount=2.0,1", "hour=1,23"]);
    got.assert_code(0);
    assert!(got.out.contains("h1 ") && got.out.contains("h23 "), "{}", got.out);
}

#[test]
fn silent_s3_registry_delays_start_briefly() {
    let (home, s3) = (home(), FakeS3::start());
    s3.create_bucket("acme");
    s3.put("acme", "registry.db", registry(&home));
    let proxy = FaultProxy::start(s3.address());
    let config = format!(
        "feast: {{repo: repo}}\nreload: {{registry_every: 500ms}}\n\
         aws: {{s3_endpoint: \"{}\", s3_path_style: true, attempt_timeout: 8s, operation_timeout: 30s}}\n",
        proxy.url()
    );
    let setup = Setup::with("").only_config(&config).unready();
    fs::create_dir(setup.path("repo")).unwrap();
    fs::write(
        setup.path("repo/feature_store.yaml"),
        FEATURE_STORE.replace("data/registry.db", "s3://acme/registry.db"),
    )
    .unwrap();
    let mut host = setup.start();
    let has = |host: &Fixture, view: &str| host.get("/v1/catalog").json()["feature_views"].to_string().contains(view);
    assert!(has(&host, "driver_stats"));
    let reads = || s3.calls().iter().filter(|call| call.operation == "GetObject").count();
    assert_eq!(reads(), 1);

    host.stop();
    proxy.silence(true);
    let began = Instant::now();
    let host = host.restart();
    assert!(began.elapsed() < Duration::from_secs(14), "there is a local copy: {:?}", began.elapsed());
    assert!(has(&host, "driver_stats"));
    // The server started with the local copy, whose version is unknown, but it still detects that the registry changed
    // meanwhile.
    patch(&home, "driver_stats", "driver_facts");
    s3.put("acme", "registry.db", registry(&home));
    proxy.heal();
    host.eventually("the registry is read", || has(&host, "driver_facts"));
    let polls = || s3.calls().iter().filter(|call| call.operation == "HeadObject").count();
    let (now, polled) = (reads(), polls());
    // When the third poll begins, the two polls before it are complete.
    host.eventually("the registry is polled again", || polls() >= polled + 3);
    assert_eq!(reads(), now, "a version that was read is not read again");
}
