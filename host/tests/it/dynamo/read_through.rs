//! Views that store only a part of their table: rows are fetched on lookups.

use std::{io::Write, thread, time::Instant};

use larder_fakeaws::Fault;

use super::*;
use crate::wire;

const HEADER: &str = "x-larder-read-through";

/// Starts a server that stores only a part of its table.
fn host(url: &str, more: &str) -> Fixture {
    setup(url, &format!(", on_miss: fetch, fetch_timeout: 3s{more}")).start()
}

fn gets(dynamo: &FakeDynamo) -> u64 {
    dynamo.calls().get("BatchGetItem").copied().unwrap_or(0)
}

#[test]
fn requested_row_is_fetched_once() {
    let dynamo = table(100);
    let host = host(&dynamo.url(), "");
    assert!(!dynamo.calls().contains_key("Scan"), "nothing is scanned");
    let answer = ask(&host, &[1, 2, 101, 1]);
    assert_eq!(answer.column("trips")["values"], json!([1, 2, null, 1]));
    assert_eq!(answer.column("trips")["statuses"], json!(["PRESENT", "PRESENT", "NOT_FOUND", "PRESENT"]));
    assert_eq!((answer.header(HEADER), gets(&dynamo)), (None, 1), "one request fetches all rows");
    assert_eq!(ask(&host, &[2, 101, 1]).column("trips")["values"], json!([2, null, 1]));
    assert_eq!(gets(&dynamo), 1, "missing rows are cached, too");
    ask(&host, &[3, 1]);
    assert_eq!(gets(&dynamo), 2);
}

#[test]
fn concurrent_callers_share_one_fetch() {
    let dynamo = table(10);
    let proxy = FaultProxy::start(dynamo.address());
    proxy.rule(".batchgetitem", When::Always, Fault::Delay(Duration::from_millis(300)));
    let host = host(&proxy.url(), "");
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| assert_eq!(trips(&host, 5), json!(5)));
        }
    });
    assert_eq!(gets(&dynamo), 1);
}

#[test]
fn only_leftover_keys_are_retried() {
    let dynamo = table(100);
    let host = host(&dynamo.url(), "");
    dynamo.unprocessed_keys(3);
    let all: Vec<i64> = (1..=100).collect();
    assert_eq!(ask(&host, &all).column("trips")["values"], json!(all));
    assert_eq!(gets(&dynamo), 4);
}

#[test]
fn many_entities_need_several_requests() {
    let dynamo = table(350);
    let host = host(&dynamo.url(), "");
    let all: Vec<i64> = (1..=350).collect();
    assert_eq!(ask(&host, &all).column("trips")["values"], json!(all));
    // If two rows share a slot of the cache, the first row is fetched again, so more than four requests are possible.
    assert!((4..=12).contains(&gets(&dynamo)), "{}", gets(&dynamo));
}

#[test]
fn stream_change_refetches_the_row() {
    let dynamo = table(10);
    // The stream also updates rows that were missing, despite the long `negative_ttl` of the negative cache.
    let host = host(&dynamo.url(), ", negative_ttl: 1h");
    assert_eq!((trips(&host, 1), trips(&host, 77)), (json!(1), Value::Null));
    dynamo.put(TABLE, item(1, 100));
    dynamo.put(TABLE, item(77, 7));
    until(&host, 1, 100);
    until(&host, 77, 7);
    dynamo.delete(TABLE, &key(1));
    until(&host, 1, Value::Null);
}

#[test]
fn written_row_stays_until_newer_item() {
    let dynamo = table(3);
    let host = host(&dynamo.url(), "");
    write_newer(&host, 1, 77);
    assert_eq!(trips(&host, 1), json!(77), "the item is older");
    dynamo.put(TABLE, item(1, 5));
    dynamo.put(TABLE, item(2, 5));
    until(&host, 2, 5);
    assert_eq!(trips(&host, 1), json!(77), "the changed item is older, too");
    dynamo.put(TABLE, newest_item(1, 6));
    until(&host, 1, 6);
    // The table may already have a newer item when a caller writes a row.
    dynamo.put(TABLE, newest_item(3, 9));
    write_newer(&host, 3, 77);
    assert_eq!(trips(&host, 3), json!(9));
}

#[test]
fn values_never_go_back_during_fetches() {
    let dynamo = table(1);
    let host = host(&dynamo.url(), "");
    let writing = dynamo.clone();
    let writer = thread::spawn(move || {
        for trips in 2..=300 {
            writing.put(TABLE, item(1, trips));
            thread::sleep(Duration::from_millis(4));
        }
    });
    let mut last = 0;
    let patience = Instant::now() + Duration::from_secs(20);
    while last < 300 {
        let now = trips(&host, 1).as_i64().unwrap_or(last);
        assert!(now >= last, "{now} after {last}");
        assert!(Instant::now() < patience, "never: the last change; the last value is {last}");
        last = now;
    }
    writer.join().unwrap();
}

#[test]
fn stale_row_without_stream_is_refetched() {
    let dynamo = FakeDynamo::start();
    dynamo.create_table(TABLE, &[("driver_id", "N")], None);
    dynamo.put(TABLE, item(1, 1));
    let host = host(&dynamo.url(), ", fresh_for: 300ms");
    assert_eq!(trips(&host, 1), json!(1));
    dynamo.put(TABLE, item(1, 2));
    assert_eq!(trips(&host, 1), json!(1));
    until(&host, 1, 2);
}

#[test]
fn unavailable_table_serves_stored_rows() {
    let dynamo = table(10);
    let proxy = FaultProxy::start(dynamo.address());
    let host = host(&proxy.url(), "");
    assert_eq!(trips(&host, 1), json!(1));
    proxy.plug(false);
    eventually("the table is known to be unavailable", || {
        ask(&host, &[2]).header(HEADER) == Some("unavailable".to_owned())
    });
    let started = Instant::now();
    for _ in 0..50 {
        let answer = ask(&host, &[1, 2]);
        assert_eq!(answer.column("trips")["values"], json!([1, null]));
        assert_eq!(answer.column("trips")["statuses"], json!(["PRESENT", "NOT_FOUND"]));
        assert_eq!(answer.status, 200);
    }
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    assert_eq!(host.get("/ready").status, 200);
    proxy.plug(true);
    until(&host, 2, 2);
    assert_eq!(ask(&host, &[2]).header(HEADER), None);
}

#[test]
fn slow_table_costs_only_the_timeout() {
    let dynamo = table(10);
    let proxy = FaultProxy::start(dynamo.address());
    let host = setup(&proxy.url(), ", on_miss: fetch, fetch_timeout: 100ms").start();
    proxy.rule(".batchgetitem", When::First(1), Fault::Delay(Duration::from_millis(700)));
    let started = Instant::now();
    let answer = ask(&host, &[3]);
    assert!(started.elapsed() < Duration::from_millis(600), "{:?}", started.elapsed());
    assert_eq!(
        (answer.header(HEADER), answer.column("trips")["values"].clone()),
        (Some("timeout".to_owned()), json!([null]))
    );
    until(&host, 3, 3);
    assert_eq!(gets(&dynamo), 1, "a row that arrives late is served to the next lookup");
}

#[test]
fn large_table_stays_within_max_bytes() {
    let dynamo = table(3_000);
    let host = host(&dynamo.url(), ", max_bytes: 64KiB");
    for round in 0..2 {
        for first in (1..=3_000).step_by(100) {
            let some: Vec<i64> = (first..first + 100).collect();
            assert_eq!(ask(&host, &some).column("trips")["values"], json!(some), "round {round}");
        }
    }
    let id = host.app.current().view_ids()[0];
    let rows = host.app.current().store().status(id).unwrap().rows;
    assert!((100..=800).contains(&rows), "{rows} rows of 90 bytes or more are within 64 KiB");
}

#[test]
fn item_per_feature_fetch_gives_row() {
    let dynamo = FakeDynamo::start();
    dynamo.create_table(TABLE, &[("entity_id", "N"), ("feature_name", "S")], Some("NEW_IMAGE"));
    let feature = |name: &str, value: &str| json!({ "entity_id": { "N": "1" }, "feature_name": { "S": name }, "value": { "N": value } });
    dynamo.put(TABLE, feature("trips", "7"));
    dynamo.put(TABLE, feature("rate", "0.5"));
    let definitions = definitions(", on_miss: fetch, fetch_timeout: 3s")
        .replace(", layout: wide, timestamp_field: ts", ", layout: item-per-feature");
    let host = Setup::with(&definitions).config(&config(&dynamo.url())).start();
    let answer = host.features(&["driver_stats:trips", "driver_stats:rate"], json!({ "driver_id": [1, 2] }));
    assert_eq!(answer.column("trips")["values"], json!([7, null]));
    assert_eq!(answer.column("rate")["values"], json!([0.5, null]));
}

#[test]
fn lookups_of_a_view_that_fetches_stay_on_the_fast_path() {
    let metrics = larder_common::telemetry::install_metrics().unwrap();
    let dynamo = table(10);
    let host = host(&dynamo.url(), "");
    // The first lookup fetches the row, and the others find it in the store.
    let mut stream = wire::connect(host.address());
    for _ in 0..3 {
        let body = json!({ "features": ["driver_stats:trips"], "entities": { "driver_id": [1] } }).to_string();
        let head = format!("POST /get-online-features HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let answer = wire::read_answer(&mut stream).unwrap();
        assert_eq!(answer.column("trips")["values"], json!([1]));
    }
    let text = metrics.render();
    assert!(text.contains("\nlarder_http_fast_path_exits_total 0\n"), "{text}");
}
