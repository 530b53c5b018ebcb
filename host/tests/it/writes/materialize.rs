//! `/materialize` and `/materialize-incremental`: time ranges, callers that disconnect, and sources that do not
//! respond.

use larder_fakeaws::{FakeS3, FaultProxy};
use larder_http::{AdminEvent, Control as _};

use super::*;
use crate::binary::LARDER_YAML;

/// Starts a server with the golden repository, without syncs. Views only have rows from writes and from `/materialize`.
fn unloaded() -> Fixture {
    Setup::golden().config("sync: {on_start: false}\n").unready().start()
}

#[test]
fn materialize_reads_range_and_incremental() {
    let fixture = unloaded();
    let stale = || value(&fixture, "expired_stats:stale_value", json!({ "customer_id": ["CUST_000123"] }));
    let trips = || value(&fixture, "driver_stats:avg_daily_trips", json!({ "driver_id": [1001] }));
    assert_eq!(stale(), Value::Null);
    let post = |path: &str, body: Value| fixture.post(path, body.to_string().as_bytes());

    let before = json!({ "start_ts": "2020-01-01", "end_ts": "2020-01-02" });
    let answer = post("/materialize", before);
    assert_eq!((answer.status, answer.text().as_ref()), (200, "null"));
    assert_eq!((stale(), trips()), (Value::Null, Value::Null));

    let some =
        json!({ "start_ts": "2026-11-01", "end_ts": "2026-12-01T00:00:00Z", "feature_views": ["expired_stats"] });
    assert_eq!(post("/materialize", some).status, 200);
    assert_eq!((stale(), trips()), (json!(11), Value::Null));

    assert_eq!(post("/materialize-incremental", json!({ "end_ts": "2026-12-01" })).status, 200);
    assert_eq!(trips(), json!(1001));

    let unknown = post("/materialize-incremental", json!({ "end_ts": "2026-12-01", "feature_views": ["nope"] }));
    assert_eq!(unknown.status, 404);
    assert!(unknown.text().contains("Feature view nope does not exist"), "{}", unknown.text());
    let backwards = post("/materialize", json!({ "start_ts": "2026-12-01", "end_ts": "2026-11-01" }));
    assert_eq!(backwards.status, 400);
    assert!(backwards.text().contains("must be before"), "{}", backwards.text());
    assert_eq!(post("/materialize-incremental", json!({})).status, 422);
}

#[test]
fn async_materialize_continues_after_response() {
    let fixture = unloaded();
    let body = json!({ "disable_event_timestamp": true, "feature_views": ["driver_stats"] }).to_string();
    let answer = fixture.post("/materialize?async=true", body.as_bytes());
    assert_eq!(answer.status, 202);
    assert_eq!(answer.json(), json!({ "status": "accepted", "feature_views": ["driver_stats"] }));
    let trips = || value(&fixture, "driver_stats:avg_daily_trips", json!({ "driver_id": [1001] }));
    fixture.eventually("materialized", || trips() == 1001);
}

#[test]
fn view_named_often_is_materialized_once() {
    let fixture = unloaded();
    let names = vec!["driver_stats"; 130_000];
    let mut body = json!({ "disable_event_timestamp": true, "feature_views": names });
    let answer = fixture.post("/materialize?async=true", body.to_string().as_bytes());
    assert_eq!(answer.json(), json!({ "status": "accepted", "feature_views": ["driver_stats"] }));
    body["feature_views"] = json!(["expired_stats", "driver_stats", "expired_stats"]);
    let answer = fixture.post("/materialize?async=true", body.to_string().as_bytes());
    assert_eq!(answer.json()["feature_views"], json!(["expired_stats", "driver_stats"]));
    assert_eq!(fixture.post("/materialize", body.to_string().as_bytes()).status, 200);
    let named = vec!["driver_stats".to_owned(); 130_000];
    let reports = fixture.sync(&SyncCommand { views: named, ..SyncCommand::default() }).unwrap();
    assert_eq!(reports.len(), 1);
}

/// Starts a server with a view whose source does not respond, and views whose files are on disk.
fn with_silent_view() -> (FakeS3, FaultProxy, Fixture) {
    let s3 = FakeS3::start();
    s3.create_bucket("rows");
    let proxy = FaultProxy::start(s3.address());
    proxy.silence(true);
    let aws = format!(
        "sync: {{on_start: false}}\naws: {{region: eu-west-1, s3_endpoint: '{}', s3_path_style: true, \
         attempt_timeout: 10m, operation_timeout: 10m}}\n",
        proxy.url()
    );
    let setup = Setup::golden().config(&aws).unready();
    let silent = "feature_views:\n  - {name: silent, entities: [driver], source: {path: 's3://rows/x.parquet'}, \
                  features: [{name: x, type: Int64}]}\n";
    fs::write(setup.path("features/silent.yaml"), silent).unwrap();
    let fixture = setup.start();
    (s3, proxy, fixture)
}

#[test]
fn hanging_view_does_not_block_others() {
    let (_s3, proxy, fixture) = with_silent_view();
    let post = |path: &str, views: &[&str]| {
        let body = json!({ "disable_event_timestamp": true, "feature_views": views }).to_string();
        fixture.post(path, body.as_bytes())
    };
    // The queue of this view is limited. The queues of other views are not affected.
    let answers: Vec<u16> = (0..20).map(|_| post("/materialize?async=true", &["silent"]).status).collect();
    assert_eq!((answers[0], answers[19]), (202, 503), "{answers:?}");
    let refused = post("/materialize", &["silent"]);
    assert!(
        refused.text().contains("too many materializations of feature view silent are queued"),
        "{}",
        refused.text()
    );
    fixture.eventually("the source gets a request", || proxy.connections() > 0);
    assert_eq!(post("/materialize", &["driver_stats"]).status, 200);
    assert_eq!(trips(&fixture, 1001), 1001);
    // Other views can also be synced with a command, and in the same request as this view.
    let command =
        SyncCommand { views: ["silent", "expired_stats"].map(str::to_owned).into(), ..SyncCommand::default() };
    let (sender, events) = std::sync::mpsc::channel();
    let app = std::sync::Arc::clone(&fixture.app);
    let syncing = thread::spawn(move || {
        app.sync(&command, &mut |event| {
            if !matches!(event, AdminEvent::Progress { .. }) {
                sender.send(event).unwrap();
            }
        });
    });
    let first = events.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(matches!(&first, AdminEvent::Synced { report } if report.view == "expired_stats"), "{first:?}");
    drop(fixture);
    syncing.join().unwrap();
    let last = events.recv().unwrap();
    assert!(matches!(&last, AdminEvent::Failed { view, .. } if view == "silent"), "{last:?}");
}

#[test]
fn hanging_view_delays_no_others() {
    let (_s3, _proxy, fixture) = with_silent_view();
    let body = json!({ "disable_event_timestamp": true, "feature_views": ["silent", "driver_stats"] }).to_string();
    assert_eq!(fixture.post("/materialize?async=true", body.as_bytes()).status, 202);
    fixture.eventually("the other view is loaded", || trips(&fixture, 1001) == 1001);
}

#[test]
fn materialization_moves_feasts_timestamp() {
    let home = Home::golden_loaded();
    home.write("larder.yaml", &LARDER_YAML.replace("listen: off", "listen: '127.0.0.1:0'"));
    home.configure("sync: {on_start: false}\n");
    let mut host = home.start(["serve"]);
    let line = host.until("serving listen=");
    let word = |name: &str| -> std::net::SocketAddr {
        line.split(name).nth(1).unwrap().split(' ').next().unwrap().trim_matches('"').parse().unwrap()
    };
    let (address, metrics) = (word("listen="), word("metrics="));
    let timestamp = || -> f64 {
        let text = wire::send(metrics, "GET", "/metrics", &[], b"").text();
        let name = "feast_materialization_last_success_timestamp{feature_view=\"driver_stats\"}";
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        found.unwrap_or_else(|| panic!("no {name} in {text}"))
    };
    for (path, span) in [
        ("/materialize", json!({ "start_ts": "2020-01-01", "end_ts": "2020-01-02" })),
        ("/materialize-incremental", json!({ "end_ts": "2026-12-01" })),
    ] {
        let before = timestamp();
        let mut body = span;
        body["feature_views"] = json!(["driver_stats"]);
        let answer = wire::send(address, "POST", path, &[], body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(timestamp() > before, "{path}");
    }
    // The time of the last materialization survives a restart.
    let last = timestamp();
    host.stop(Signal::TERM);
    let mut host = home.start(["serve"]);
    let line = host.until("serving listen=");
    let metrics = line.split("metrics=").nth(1).unwrap().split(' ').next().unwrap().trim_matches('"').parse().unwrap();
    let text = wire::send(metrics, "GET", "/metrics", &[], b"").text();
    let line = format!("feast_materialization_last_success_timestamp{{feature_view=\"driver_stats\"}} {last}");
    assert!(text.contains(&line), "{line}");
    host.stop(Signal::TERM);
}

#[test]
fn materialize_of_missing_files_fails_alone() {
    let fixture = unloaded();
    fs::remove_file(fixture.path("data/driver_stats.parquet")).unwrap();
    let of = |view: &str| {
        let body = json!({ "disable_event_timestamp": true, "feature_views": [view] }).to_string();
        fixture.post("/materialize", body.as_bytes())
    };
    let answer = of("driver_stats");
    assert_eq!(answer.status, 500);
    assert!(answer.text().contains("driver_stats could not be materialized"), "{}", answer.text());
    assert!(!answer.text().contains("parquet"), "the error must not contain paths of files: {}", answer.text());
    assert_eq!(of("expired_stats").status, 200);
}
