//! Views whose rows are in DynamoDB. The table is scanned, and then its stream is followed.
//!
//! The tests cover every type of event in a stream, and known bugs of other stream readers.

use std::time::Duration;

use larder_fakeaws::{FakeDynamo, FaultProxy, When};
use larder_http::SyncCommand;
use serde_json::{Value, json};

use crate::{
    fixture::{Fixture, RECORDED_AT, Setup, eventually, eventually_within, metric},
    wire::Answer,
};

mod dynoxide;
mod faults;
mod kill;
mod layouts;
mod read_through;
mod shards;
mod source;

const TABLE: &str = "shop.driver_stats";

/// Returns the definition of a view whose source is a table. `more` is appended to the source.
fn definitions(more: &str) -> String {
    format!(
        "
entities:
  - {{name: driver, join_key: driver_id, type: Int64}}
feature_views:
  - name: driver_stats
    entities: [driver]
    source: {{dynamodb: {TABLE}, layout: wide, timestamp_field: ts, poll: 200ms, segments: 3{more}}}
    features:
      - {{name: trips, type: Int64}}
      - {{name: rate, type: Float64}}
"
    )
}

fn config(url: &str) -> String {
    format!(
        "aws: {{dynamodb_endpoint: \"{url}\", connect_timeout: 500ms, attempt_timeout: 1s, operation_timeout: 2s, \
         attempts_max: 2}}\nsync: {{retry: 200ms}}\n"
    )
}

pub(crate) fn setup(url: &str, more: &str) -> Setup {
    Setup::with(&definitions(more)).config(&config(url))
}

fn key(driver: i64) -> Value {
    json!({ "driver_id": { "N": driver.to_string() } })
}

fn item(driver: i64, trips: i64) -> Value {
    json!({
        "driver_id": { "N": driver.to_string() },
        "trips": { "N": trips.to_string() },
        "rate": { "N": "0.5" },
        "ts": { "N": (RECORDED_AT / 1_000_000).to_string() },
    })
}

/// Creates a table with a stream and drivers 1 to `drivers`. The trips of each driver equal the driver's number.
pub(crate) fn table(drivers: i64) -> FakeDynamo {
    let dynamo = FakeDynamo::start();
    dynamo.create_table(TABLE, &[("driver_id", "N")], Some("NEW_AND_OLD_IMAGES"));
    (1..=drivers).for_each(|driver| dynamo.put(TABLE, item(driver, driver)));
    dynamo
}

fn ask(host: &Fixture, drivers: &[i64]) -> Answer {
    host.features(&["driver_stats:trips"], json!({ "driver_id": drivers }))
}

fn trips(host: &Fixture, driver: i64) -> Value {
    ask(host, &[driver]).column("trips")["values"][0].clone()
}

/// Waits until a driver has this many trips.
fn until(host: &Fixture, driver: i64, expected: impl Into<Value>) {
    let expected = expected.into();
    eventually(&format!("driver {driver} has {expected} trips"), || trips(host, driver) == expected);
}

/// Waits until the store has exactly the rows of the table.
fn until_equal(host: &Fixture, dynamo: &FakeDynamo, drivers: i64) {
    let items = dynamo.items(TABLE);
    let of = |driver: i64| {
        let item = items.iter().find(|item| item["driver_id"]["N"].as_str() == Some(&driver.to_string()));
        item.map_or(Value::Null, |item| json!(item["trips"]["N"].as_str().unwrap().parse::<i64>().unwrap()))
    };
    let expected: Vec<Value> = (1..=drivers).map(of).collect();
    let all: Vec<i64> = (1..=drivers).collect();
    eventually("the store equals the table", || ask(host, &all).column("trips")["values"] == json!(expected));
}

fn sync(host: &Fixture) -> Result<(), String> {
    host.sync(&SyncCommand::default()).map(|_| ())
}

#[test]
fn table_is_scanned_then_followed() {
    let dynamo = table(500);
    dynamo.page_items(7);
    let host = setup(&dynamo.url(), "").start();
    until_equal(&host, &dynamo, 500);
    dynamo.put(TABLE, item(7, 700));
    dynamo.put(TABLE, item(501, 1));
    dynamo.delete(TABLE, &key(8));
    until(&host, 7, 700);
    until(&host, 501, 1);
    until(&host, 8, Value::Null);
    assert_eq!(ask(&host, &[8]).column("trips")["statuses"], json!(["NOT_FOUND"]));
    until_equal(&host, &dynamo, 501);
}

#[test]
fn lagging_server_is_not_ready() {
    let dynamo = table(20);
    dynamo.hold(TABLE);
    let proxy = FaultProxy::start(dynamo.address());
    proxy.refuse("GetRecords", When::Always, 500, "InternalServerError");
    let host = setup(&proxy.url(), "").unready().start();
    eventually("the scan has ended", || dynamo.calls().get("Scan").is_some_and(|scans| *scans >= 3));
    let refused = proxy.counts().1;
    eventually("the stream is read again", || proxy.counts().1 >= refused + 4);
    assert_eq!(host.get("/ready").status, 503, "scanned rows are not served before the stream has caught up");
    assert_eq!(trips(&host, 1), Value::Null);
    proxy.heal();
    host.until_ready();
    until_equal(&host, &dynamo, 20);
}

#[test]
fn values_never_go_back_during_scan() {
    let dynamo = table(50);
    let writing = dynamo.clone();
    let writer = std::thread::spawn(move || {
        for trips in 1_000..1_200 {
            writing.put(TABLE, item(1, trips));
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let host = setup(&dynamo.url(), "").start();
    let mut last = 0;
    while !writer.is_finished() || last < 1_199 {
        let now = trips(&host, 1).as_i64().unwrap();
        assert!(now >= last, "{now} after {last}");
        last = now;
    }
    writer.join().unwrap();
}

#[test]
fn restart_resumes_without_rescan() {
    let dynamo = table(10);
    let host = setup(&dynamo.url(), "").start();
    dynamo.put(TABLE, item(1, 100));
    until(&host, 1, 100);
    // The position in the stream is stored in the same transaction as the row.
    let scans = dynamo.calls()["Scan"];
    let mut host = host;
    host.stop();
    dynamo.put(TABLE, item(1, 101));
    dynamo.delete(TABLE, &key(2));
    let host = host.restart();
    host.until_ready();
    until(&host, 1, 101);
    until(&host, 2, Value::Null);
    assert_eq!(dynamo.calls()["Scan"], scans, "the table was scanned again");
}

#[test]
fn rescan_removes_deleted_rows() {
    let dynamo = FakeDynamo::start();
    dynamo.create_table(TABLE, &[("driver_id", "N")], None);
    (1..=5).for_each(|driver| dynamo.put(TABLE, item(driver, driver)));
    let host = setup(&dynamo.url(), ", every: 1s").start();
    until_equal(&host, &dynamo, 5);
    dynamo.put(TABLE, item(1, 10));
    dynamo.delete(TABLE, &key(2));
    host.clock.set(RECORDED_AT + 10_000_000);
    until_equal(&host, &dynamo, 5);
}

#[test]
fn recent_scan_is_skipped_unless_requested() {
    let dynamo = FakeDynamo::start();
    dynamo.create_table(TABLE, &[("driver_id", "N")], None);
    dynamo.put(TABLE, item(1, 1));
    let host = setup(&dynamo.url(), ", every: 1h").start();
    assert_eq!((trips(&host, 1), dynamo.calls()["Scan"]), (json!(1), 3));
    let syncs = || metric("larder_sync_duration_seconds_count{view=\"driver_stats\"}");
    eventually("the first sync has ended", || syncs() == 1.0);
    let host = host.restart();
    eventually("a sync after the start", || syncs() == 2.0);
    host.app.reload_definitions().unwrap();
    eventually("a sync after the reload", || syncs() == 3.0);
    assert_eq!(dynamo.calls()["Scan"], 3, "each scan reads the whole table");
    dynamo.put(TABLE, item(1, 2));
    sync(&host).unwrap();
    assert_eq!((trips(&host, 1), dynamo.calls()["Scan"]), (json!(2), 6));
    // Reloads do not postpone a due sync.
    host.clock.set(RECORDED_AT + 40 * 60 * 1_000_000);
    dynamo.put(TABLE, item(1, 3));
    host.app.reload_definitions().unwrap();
    until(&host, 1, 3);
}

#[test]
fn start_detects_newly_enabled_stream() {
    let dynamo = FakeDynamo::start();
    dynamo.create_table(TABLE, &[("driver_id", "N")], None);
    dynamo.put(TABLE, item(1, 1));
    let host = setup(&dynamo.url(), ", every: 1h").start();
    assert_eq!(trips(&host, 1), json!(1));
    dynamo.enable_stream(TABLE, "NEW_IMAGE");
    let host = host.restart();
    dynamo.put(TABLE, item(1, 2));
    until(&host, 1, 2);
    dynamo.put(TABLE, item(1, 3));
    until(&host, 1, 3);
}

#[test]
fn ttl_expired_item_is_not_served() {
    let dynamo = table(1);
    let mut expiring = item(2, 2);
    expiring["gone_at"] = json!({ "N": (RECORDED_AT / 1_000_000 + 60).to_string() });
    dynamo.put(TABLE, expiring);
    let host = setup(&dynamo.url(), ", ttl_attribute: gone_at").start();
    until(&host, 2, 2);
    host.clock.set(RECORDED_AT + 61_000_000);
    assert_eq!(ask(&host, &[2]).column("trips")["statuses"], json!(["NOT_FOUND"]));
    assert_eq!(trips(&host, 1), json!(1));
}

#[test]
fn ttl_zero_or_old_never_expires() {
    let dynamo = table(0);
    let second = RECORDED_AT / 1_000_000;
    let five_years = 5 * 365 * 86_400;
    let cases = [(1, 0), (2, -1), (3, second - five_years - 60), (4, second - 60), (5, second - five_years + 86_400)];
    for (driver, gone_at) in cases {
        let mut expiring = item(driver, driver);
        expiring["gone_at"] = json!({ "N": gone_at.to_string() });
        dynamo.put(TABLE, expiring);
    }
    let host = setup(&dynamo.url(), ", ttl_attribute: gone_at").start();
    assert_eq!(ask(&host, &[1, 2, 3, 4, 5]).column("trips")["values"], json!([1, 2, 3, null, null]));
}

#[test]
fn caller_write_stays_until_newer_row() {
    let dynamo = table(3);
    let host = setup(&dynamo.url(), "").start();
    write_newer(&host, 1, 77);
    until(&host, 1, 77);
    dynamo.put(TABLE, item(1, 5));
    dynamo.put(TABLE, item(2, 5));
    until(&host, 2, 5);
    assert_eq!(trips(&host, 1), json!(77), "the item is older");
    dynamo.put(TABLE, newest_item(1, 6));
    until(&host, 1, 6);
}

/// Writes a row to Larder that is newer than the items of [`item`].
fn write_newer(host: &Fixture, driver: i64, trips: i64) {
    let body = json!({ "feature_view_name": "driver_stats", "df": {
        "driver_id": [driver], "trips": [trips], "rate": [0.1], "event_timestamp": ["2026-11-23T09:13:20Z"],
    }});
    let written = host.post("/write-to-online-store", body.to_string().as_bytes());
    assert_eq!(written.status, 200, "{written:?}");
}

/// Returns an item that is newer than the rows of [`write_newer`].
fn newest_item(driver: i64, trips: i64) -> Value {
    let mut newest = item(driver, trips);
    newest["ts"] = json!({ "N": (RECORDED_AT / 1_000_000 + 60).to_string() });
    newest
}

/// Returns the catalog's entry of the view.
fn catalogued(host: &Fixture) -> Value {
    host.get("/v1/catalog").json()["feature_views"][0].clone()
}

#[test]
fn table_without_stream_reports_its_staleness() {
    let dynamo = FakeDynamo::start();
    dynamo.create_table(TABLE, &[("driver_id", "N")], None);
    dynamo.put(TABLE, item(1, 1));
    let host = setup(&dynamo.url(), ", every: 30m").start();
    let view = catalogued(&host);
    assert_eq!(view["staleness_bound_seconds"], json!(1800.0));
    let caveat = view["caveat"].as_str().unwrap();
    for words in ["DynamoDB table 'shop.driver_stats' has no stream", "up to 30m late", "hint: turn its stream on"] {
        assert!(caveat.contains(words), "{caveat}");
    }

    let followed = setup(&table(1).url(), "").start();
    let view = catalogued(&followed);
    assert_eq!((&view["staleness_bound_seconds"], &view["caveat"]), (&json!(0.2), &Value::Null));

    // If the definitions turn the stream off, there is no notice.
    let off = setup(&dynamo.url(), ", every: 30m, stream: off").start();
    let view = catalogued(&off);
    assert_eq!((&view["staleness_bound_seconds"], &view["caveat"]), (&json!(1800.0), &Value::Null));
}

#[test]
fn future_items_are_served_when_due() {
    for stream in [true, false] {
        let dynamo = FakeDynamo::start();
        dynamo.create_table(TABLE, &[("driver_id", "N")], stream.then_some("NEW_AND_OLD_IMAGES"));
        let at = |driver: i64, trips: i64, hours: i64| {
            let mut item = item(driver, trips);
            item["ts"] = json!({ "N": (RECORDED_AT / 1_000_000 + hours * 3_600).to_string() });
            item
        };
        dynamo.put(TABLE, at(1, 1, 0));
        dynamo.put(TABLE, at(2, 2, 5));
        dynamo.put(TABLE, at(3, 3, 1));
        let host = setup(&dynamo.url(), ", every: 1h").start();
        until(&host, 1, 1);
        assert_eq!((trips(&host, 2), trips(&host, 3)), (Value::Null, json!(3)));
        if stream {
            // Until then, the previous value keeps serving.
            dynamo.put(TABLE, at(1, 10, 6));
            dynamo.put(TABLE, at(4, 4, 0));
            until(&host, 4, 4);
            assert_eq!(trips(&host, 1), 1);
        }
        host.clock.set(RECORDED_AT + 4 * 3_600_000_000);
        until(&host, 2, 2);
        if stream {
            host.clock.set(RECORDED_AT + 5 * 3_600_000_000);
            until(&host, 1, 10);
        }
    }
}
