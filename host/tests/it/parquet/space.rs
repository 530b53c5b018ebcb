//! Limits on the disk space of the store, with small files whose rows are large.

use std::{
    os::unix::fs::MetadataExt,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use arrow::array::StringArray;

use super::*;

const TEXTS: &str = "
entities: [{name: driver, join_key: driver_id, type: Int64}]
feature_views:
  - name: texts
    entities: [driver]
    mode: replace
    source: {path: data/texts, timestamp_field: event_timestamp}
    features: [{name: text, type: String}]
  - name: stats
    entities: [driver]
    push_source: rates
    source: {path: data/stats, timestamp_field: event_timestamp, created_timestamp_column: created}
    features: [{name: rate, type: Float64}, {name: trips, type: Int32}]
";

const MIB: u64 = 1 << 20;

/// Writes a file in which all rows have the same text of 1 MB. The file stores the text only once.
fn write_texts(fixture: &Fixture, rows: i64) {
    let columns: Columns = vec![
        ("driver_id", Arc::new(Int64Array::from_iter_values(0..rows))),
        ("event_timestamp", times((0..rows).map(|_| Some(60)))),
        ("text", Arc::new(StringArray::from_iter_values((0..rows).map(|_| "x".repeat(1_000_000))))),
    ];
    write(&fixture.path("data/texts/part-0.parquet"), &columns);
    assert!(fs::metadata(fixture.path("data/texts/part-0.parquet")).unwrap().len() < 3 * MIB);
}

/// Starts a server with one row in each view and limits on its store.
fn start(place: Place, store: &str) -> Host {
    let prepared = place.with(TEXTS, &format!("store: {{{store}}}\nsync: {{commit_bytes: 4MiB, retry: 1h}}\n"));
    let columns: Columns = vec![
        ("driver_id", Arc::new(Int64Array::from(vec![1]))),
        ("event_timestamp", times([Some(60)].into_iter())),
        ("text", Arc::new(StringArray::from(vec!["small"]))),
    ];
    write(&prepared.path("data/texts/part-0.parquet"), &columns);
    write(&prepared.path(FILE), &stats(&[(1, 60, 0.1)]));
    prepared.start()
}

fn bytes_on_disk(host: &Host) -> u64 {
    fs::metadata(host.path("store/online.redb")).unwrap().blocks() * 512
}

fn sync_texts(host: &Host) -> Synced {
    sync(host, &SyncCommand { views: vec!["texts".to_owned()], ..SyncCommand::default() })
}

fn assert_others_go_on(host: &Host, rate: f64) {
    write(&host.path(FILE), &stats(&[(1, 30, rate), (2, 30, rate)]));
    let command = SyncCommand { views: vec!["stats".to_owned()], ..SyncCommand::default() };
    assert_eq!(sync(host, &command).failures, []);
    assert_eq!(rates(host, &[1, 2]), json!([rate, rate]));
    let df = json!({ "driver_id": [3], "event_timestamp": ["2026-01-01T00:00:00Z"], "created": [null], "rate": [rate],
                     "trips": [1] });
    let pushed = host.post("/push", json!({ "push_source_name": "rates", "df": df }).to_string().as_bytes());
    assert_eq!(pushed.status, 200, "{}", pushed.text());
}

#[test]
fn load_fails_at_file_size_limit() {
    everywhere(|place| {
        let host = start(place, "file_bytes_max: 96MiB");
        // These rows fit within the limit, even while the load is merged.
        write_texts(&host, 12);
        assert_eq!(sync_all(&host).failures, []);
        assert_eq!(values(&host, "texts:text", &[11])[0].as_str().unwrap().len(), 1_000_000);

        for rate in [0.2, 0.3] {
            write_texts(&host, 200);
            let synced = sync_all(&host);
            let [(view, error)] = &synced.failures[..] else { panic!("{place:?}: {:?}", synced.failures) };
            assert!(view == "texts" && error.contains("'store: file_bytes_max' is 100663296"), "{error}");
            let bytes = bytes_on_disk(&host);
            assert!(bytes <= 96 * MIB, "{place:?}: {bytes}");
            // The rows of the failed load are deleted, so that other loads have space.
            assert_eq!(values(&host, "texts:text", &[11])[0].as_str().unwrap().len(), 1_000_000);
            assert_others_go_on(&host, rate);
            assert_eq!(host.get("/ready").status, 200);
        }
        write_texts(&host, 13);
        assert_eq!(sync_all(&host).failures, []);
    });
}

#[test]
fn pushes_fail_at_file_size_limit() {
    let host = start(Place::Disk, "file_bytes_max: 24MiB, hot_cache: 0");
    let push = |batch: i64| {
        let rows = batch * 2_000..(batch + 1) * 2_000;
        let many = |value: Value| vec![value; 2_000];
        let df = json!({ "driver_id": rows.collect::<Vec<_>>(), "event_timestamp": many(json!("2026-01-01T00:00:00Z")),
                         "created": many(Value::Null), "rate": many(json!(0.5)), "trips": many(json!(1)) });
        host.post("/push", json!({ "push_source_name": "rates", "df": df }).to_string().as_bytes())
    };
    // Each rejected write closes the store for a short time. Lookups must succeed meanwhile.
    let is_over = AtomicBool::new(false);
    let body = json!({ "features": ["stats:rate"], "entities": { "driver_id": [1] } }).to_string();
    let look_up = || {
        let mut lookups = 0;
        let started = Instant::now();
        while !is_over.load(Ordering::Relaxed) && started.elapsed() < Duration::from_secs(60) {
            let answer = host.post("/get-online-features", body.as_bytes());
            assert_eq!(answer.status, 200, "{}", answer.text());
            lookups += 1;
        }
        lookups
    };
    let mut refused = 0;
    let mut accepted = Vec::new();
    let looked_up = std::thread::scope(|scope| {
        let looking = [(); 4].map(|()| scope.spawn(look_up));
        for batch in 1..1_000 {
            let answer = push(batch);
            if answer.status == 200 {
                accepted.push(batch);
            } else {
                assert_eq!(answer.status, 503, "{}", answer.text());
                assert!(answer.text().contains("file_bytes_max"), "{}", answer.text());
                refused += 1;
            }
            // The bound is higher than the limit, because reopening the file after a failure is not limited.
            let bytes = bytes_on_disk(&host);
            assert!(bytes <= 25 * MIB, "{bytes} after {batch} pushes");
            if refused > 40 {
                break;
            }
        }
        is_over.store(true, Ordering::Relaxed);
        looking.map(|thread| thread.join().unwrap())
    });
    assert!(looked_up.iter().all(|lookups| *lookups > 50), "{looked_up:?} lookups");
    assert!(refused > 40 && accepted.len() > 20, "{refused} refused, {} accepted", accepted.len());
    for batch in accepted {
        assert_eq!(rates(&host, &[batch * 2_000, batch * 2_000 + 1_999]), json!([0.5, 0.5]));
    }
}

#[test]
fn load_fails_on_low_disk_space() {
    everywhere(|place| {
        // The required free space is larger than any disk.
        let host = start(place, "free_bytes_min: 1000000GiB");
        write_texts(&host, 200);
        let synced = sync_texts(&host);
        let [(view, error)] = &synced.failures[..] else { panic!("{place:?}: {:?}", synced.failures) };
        assert!(view == "texts" && error.contains("'store: free_bytes_min' is 1073741824000000"), "{error}");
        assert!(bytes_on_disk(&host) <= 16 * MIB, "files up to 16 MiB can grow");
        assert_eq!(values(&host, "texts:text", &[1]), json!(["small"]));
        assert_others_go_on(&host, 0.2);
        drop(host);

        let host = start(place, "free_bytes_min: 1MiB");
        write_texts(&host, 60);
        assert_eq!(sync_texts(&host).failures, []);
    });
}
