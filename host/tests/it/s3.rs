//! Views whose rows are in Parquet files in S3.
//!
//! The tests cover changes to objects, and faults of S3 and of the network. Most tests start their own server, which
//! takes less than a second.

mod source;

use std::{fs, io::Read as _, sync::Arc, time::Duration};

use arrow::array::{ArrayRef, Int64Array};
use larder_fakeaws::{FakeS3, Fault, FaultProxy, When};
use larder_http::SyncCommand;
use larder_ingest::{Outcome, SyncReport};
use serde_json::{Value, json};

use crate::{
    binary::{Home, LARDER_YAML, peak_mebibytes},
    fixture::{Fixture, Setup, eventually, eventually_within},
    moto::Moto,
    parquet,
};

const BUCKET: &str = "features";

fn definitions(source: &str) -> String {
    format!(
        "
entities: [{{name: driver, join_key: driver_id, type: Int64}}]
feature_views:
  - name: stats
    entities: [driver]
    source: {{{source}, timestamp_field: event_timestamp}}
    features: [{{name: trips, type: Int64}}]
"
    )
}

fn setup(url: &str, source: &str) -> Setup {
    let config = format!(
        "aws: {{s3_endpoint: \"{url}\", s3_path_style: true, connect_timeout: 500ms, attempt_timeout: 2s, \
         operation_timeout: 4s, attempts_max: 2}}\nsync: {{retry: 200ms}}\n"
    );
    Setup::with(&definitions(source)).config(&config)
}

/// Returns a file of these drivers, each with this many trips.
fn file(drivers: std::ops::RangeInclusive<i64>, trips: i64) -> Vec<u8> {
    let count = drivers.clone().count();
    let wide: ArrayRef = Arc::new(Int64Array::from_iter_values(
        (0..count as i64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64)),
    ));
    let columns = vec![
        ("driver_id", Arc::new(Int64Array::from_iter_values(drivers)) as ArrayRef),
        ("event_timestamp", parquet::times((0..count).map(|_| Some(60)))),
        ("trips", Arc::new(Int64Array::from(vec![trips; count])) as ArrayRef),
        ("not_wanted", wide),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    parquet::write(&path, &columns);
    fs::read(path).unwrap()
}

fn server() -> Moto {
    let moto = Moto::start();
    moto.bucket(BUCKET);
    moto
}

fn trips(host: &Fixture, drivers: &[i64]) -> Value {
    host.features(&["stats:trips"], json!({ "driver_id": drivers })).column("trips")["values"].clone()
}

fn sync(host: &Fixture) -> Result<SyncReport, String> {
    host.sync(&SyncCommand::default()).map(|mut reports| reports.remove(0))
}

#[test]
fn objects_are_reread_when_they_change() {
    let moto = server();
    moto.put(BUCKET, "stats/a.parquet", &file(1..=3, 1));
    moto.put(BUCKET, "stats/deep/b.parquet", &file(4..=6, 2));
    moto.put(BUCKET, "stats/_temporary/c.parquet", &file(7..=9, 3));
    moto.put(BUCKET, "stats/readme.txt", b"no");
    moto.put(BUCKET, "stats2/d.parquet", &file(1..=9, 4));
    let host = setup(&moto.url(), "path: \"s3://features/stats\"").start();
    assert_eq!(trips(&host, &[1, 4, 7]), json!([1, 2, null]));
    assert_eq!(sync(&host).unwrap().outcome, Outcome::UpToDate);
    moto.put(BUCKET, "stats/a.parquet", &file(1..=4, 9));
    let report = sync(&host).unwrap();
    assert_eq!(
        (report.applied.rows(), trips(&host, &[1, 4, 5])),
        (4, json!([9, 9, 2])),
        "only the changed object is read"
    );
    moto.delete(BUCKET, "stats/deep/b.parquet");
    assert_eq!(sync(&host).unwrap().applied.rows(), 0, "an upsert removes no rows");
}

#[test]
fn only_needed_columns_are_fetched() {
    let moto = server();
    let bytes = file(1..=400_000, 5);
    assert!(bytes.len() > 4 << 20, "{}", bytes.len());
    moto.put(BUCKET, "one.parquet", &bytes);
    let proxy = FaultProxy::start(moto.address);
    let host = setup(&proxy.url(), "path: \"s3://features/one.parquet\"").start();
    assert_eq!(trips(&host, &[1, 400_000, 400_001]), json!([5, 5, null]));
    let fetched = proxy.bytes_passed();
    assert!(fetched < bytes.len() as u64 * 7 / 10, "{fetched} of {} bytes were fetched", bytes.len());
}

#[test]
fn partitions_of_hive_are_columns() {
    let moto = server();
    for (day, trips) in [("2026-11-01", 1), ("2026-11-02", 2)] {
        let columns = vec![
            ("driver_id", Arc::new(Int64Array::from(vec![trips])) as ArrayRef),
            ("event_timestamp", parquet::times([Some(60)].into_iter())),
        ];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        parquet::write(&path, &columns);
        moto.put(BUCKET, &format!("hive/day={day}/trips={trips}/x.parquet"), &fs::read(path).unwrap());
    }
    let host = setup(&moto.url(), "path: \"s3://features/hive/\"").start();
    assert_eq!(trips(&host, &[1, 2]), json!([1, 2]));
}

#[test]
fn truncated_object_keeps_previous_rows() {
    let moto = server();
    let whole = file(1..=3, 1);
    moto.put(BUCKET, "stats/a.parquet", &whole);
    let host = setup(&moto.url(), "path: \"s3://features/stats/\"").start();
    for len in [0, 1, 8, 12, whole.len() / 2, whole.len() - 9, whole.len() - 1] {
        moto.put(BUCKET, "stats/b.parquet", &whole[..len]);
        let error = sync(&host).unwrap_err();
        assert!(error.contains("s3://features/stats/b.parquet is not a readable Parquet file"), "{len}: {error}");
        assert_eq!(trips(&host, &[1]), json!([1]));
    }
    moto.put(BUCKET, "stats/b.parquet", b"PAR1\xff\xff\xff\xff\xff\xff\xff\x7fPAR1");
    assert!(sync(&host).unwrap_err().contains("b.parquet"));
    moto.put(BUCKET, "stats/b.parquet", &file(4..=4, 4));
    sync(&host).unwrap();
    assert_eq!(trips(&host, &[1, 4]), json!([1, 4]));
}

#[test]
fn replaced_object_never_mixes_versions() {
    let moto = server();
    moto.put(BUCKET, "one.parquet", &file(1..=400_000, 1));
    let proxy = FaultProxy::start(moto.address);
    let host = setup(&proxy.url(), "path: \"s3://features/one.parquet\"").start();
    moto.put(BUCKET, "one.parquet", &file(1..=400_000, 2));
    // The footer is read without a delay. The request for the rows is delayed, and meanwhile the object is replaced.
    proxy.rule("get /features/one.parquet", When::Every(2), Fault::Delay(Duration::from_millis(700)));
    std::thread::scope(|scope| {
        let syncing = scope.spawn(|| sync(&host));
        eventually("the rows are requested", || proxy.counts().1 > 0);
        moto.put(BUCKET, "one.parquet", &file(1..=400_000, 3));
        let error = syncing.join().unwrap().unwrap_err();
        assert!(error.contains("s3://features/one.parquet changed while it was read"), "{error}");
    });
    proxy.heal();
    eventually("the next sync reads the newest version", || trips(&host, &[1, 400_000]) == json!([3, 3]));
}

#[test]
fn marker_gates_the_set() {
    let moto = server();
    let host = setup(&moto.url(), "path: \"s3://features/set/\", marker: _SUCCESS").unready().start();
    moto.put(BUCKET, "set/a.parquet", &file(1..=1, 1));
    let error = sync(&host).unwrap_err();
    let expected = "s3://features/set/ is not complete yet: s3://features/set/_SUCCESS does not exist";
    assert!(error.contains(expected), "{error}");
    moto.put(BUCKET, "set/b.parquet", &file(2..=2, 1));
    moto.put(BUCKET, "set/_SUCCESS", b"");
    host.until_ready();
    assert_eq!(trips(&host, &[1, 2]), json!([1, 1]));
    // The marker is missing while the next set is being written.
    moto.delete(BUCKET, "set/_SUCCESS");
    moto.put(BUCKET, "set/a.parquet", &file(1..=1, 2));
    assert_eq!(sync(&host).unwrap().outcome, Outcome::UpToDate);
    assert_eq!(trips(&host, &[1, 2]), json!([1, 1]));
    // S3 reports the time of the marker in seconds of the real clock, so the new marker must be at least a second
    // newer.
    std::thread::sleep(Duration::from_millis(1_100));
    moto.put(BUCKET, "set/_SUCCESS", b"");
    sync(&host).unwrap();
    assert_eq!(trips(&host, &[1, 2]), json!([2, 1]));
}

#[test]
fn manifest_names_the_objects() {
    let moto = server();
    moto.put(BUCKET, "set/a.parquet", &file(1..=1, 1));
    moto.put(BUCKET, "set/b.parquet", &file(2..=2, 1));
    moto.put(BUCKET, "set/manifest.json", b"{\"files\": [\"a.parquet\"]}");
    let host = setup(&moto.url(), "path: \"s3://features/set/\", manifest: manifest.json").start();
    assert_eq!(trips(&host, &[1, 2]), json!([1, null]));
    moto.put(BUCKET, "set/manifest.json", b"{\"files\": [\"a.parquet\", \"gone.parquet\"]}");
    let error = sync(&host).unwrap_err();
    let expected = "s3://features/set/manifest.json: s3://features/set/gone.parquet does not exist";
    assert!(error.contains(expected), "{error}");
    moto.put(BUCKET, "set/manifest.json", b"[\"a.parquet\", \"s3://features/set/b.parquet\"]");
    sync(&host).unwrap();
    assert_eq!(trips(&host, &[1, 2]), json!([1, 1]));
}

#[test]
fn many_objects_are_listed_quickly() {
    let moto = server();
    let one = file(1..=1, 1);
    for n in 0..2_000 {
        moto.put(BUCKET, &format!("many/{n:04}.parquet"), if n == 1_500 { b"" } else { &one });
    }
    moto.put(BUCKET, "many/1500.parquet", &file(2..=2, 2));
    let host = setup(&moto.url(), "path: \"s3://features/many/\"").unready().start();
    // The server that emulates S3 is slow on a busy machine.
    let patience = Duration::from_secs(120);
    eventually_within("all objects are read", patience, || trips(&host, &[1, 2]) == json!([1, 2]));
    eventually("the server is ready", || host.get("/ready").status == 200);
    assert_eq!(sync(&host).unwrap().outcome, Outcome::UpToDate);
}

#[test]
fn slow_down_retried_redirects_rejected() {
    let moto = server();
    moto.put(BUCKET, "stats/a.parquet", &file(1..=3, 1));
    let proxy = FaultProxy::start(moto.address);
    let error =
        |code: &str| format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>by order</Message></Error>");
    proxy.rule("get /features", When::First(3), Fault::Respond(503, vec![], error("SlowDown")));
    let host = setup(&proxy.url(), "path: \"s3://features/stats/\"").start();
    assert_eq!(trips(&host, &[1]), json!([1]));
    let other_endpoint = FaultProxy::start(moto.address);
    let location = vec![("location".to_owned(), format!("{}/features/", other_endpoint.url()))];
    proxy.heal();
    proxy.rule("get /features", When::Always, Fault::Respond(307, location, error("TemporaryRedirect")));
    let error = sync(&host).unwrap_err();
    assert!(error.contains("s3://features/stats/: ListObjectsV2: TemporaryRedirect"), "{error}");
    assert_eq!(other_endpoint.counts(), (0, 0), "no redirect was followed");
    assert_eq!(trips(&host, &[1]), json!([1]));
}

#[test]
fn skewed_clock_is_reported() {
    let moto = server();
    moto.put(BUCKET, "stats/a.parquet", &file(1..=3, 1));
    let proxy = FaultProxy::start(moto.address);
    let body = "<Error><Code>RequestTimeTooSkewed</Code><Message>The difference is too large.</Message></Error>";
    proxy.rule("get /features", When::Always, Fault::Respond(403, vec![], body.to_owned()));
    let host = setup(&proxy.url(), "path: \"s3://features/stats/\"").unready().start();
    let error = sync(&host).unwrap_err();
    assert!(error.contains("RequestTimeTooSkewed: The difference is too large."), "{error}");
    proxy.heal();
    host.until_ready();
}

#[test]
fn broken_bodies_and_silence_time_out() {
    let moto = server();
    moto.put(BUCKET, "one.parquet", &file(1..=400_000, 1));
    let proxy = FaultProxy::start(moto.address);
    let host = setup(&proxy.url(), "path: \"s3://features/one.parquet\"").start();
    moto.put(BUCKET, "one.parquet", &file(1..=400_000, 2));
    for fault in [Fault::Truncate(5_000), Fault::Reset, Fault::Silence] {
        proxy.rule("get /features/one.parquet", When::Always, fault.clone());
        let started = std::time::Instant::now();
        sync(&host).unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(15), "{fault:?}: {:?}", started.elapsed());
        assert_eq!(trips(&host, &[1, 400_000]), json!([1, 1]), "{fault:?}");
        proxy.heal();
    }
    eventually("the view recovers", || trips(&host, &[1, 400_000]) == json!([2, 2]));
}

/// The memory for reading an object with many row groups does not depend on the object's size. Set
/// `LARDER_BIG_OBJECT_MB=2000` to test this with an object that is larger than the limit.
#[test]
fn large_object_needs_bounded_memory() {
    let megabytes = std::env::var("LARDER_BIG_OBJECT_MB").map_or(60, |text| text.parse::<i64>().unwrap());
    let moto = FakeS3::start();
    moto.create_bucket(BUCKET);
    moto.put(BUCKET, "big.parquet", big(megabytes));
    let home = Home::empty();
    let definitions =
        definitions("path: \"s3://features/big.parquet\"").replace("name: trips", "name: not_wanted_twice");
    home.write("features/defined.yaml", &definitions);
    let aws = format!("aws: {{region: eu-west-1, s3_endpoint: \"{}\", s3_path_style: true}}\n", moto.url());
    home.write("larder.yaml", &format!("{LARDER_YAML}{aws}"));
    let mut child = home.larder(["sync"]).spawn().unwrap();
    let peak = peak_mebibytes(&mut child);
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.starts_with("stats: ") && said.contains("new"), "{said}");
    println!("{megabytes} MB: {peak} MiB at most; {said}");
    // The limit allows a row group of 32 MB, a transaction of 64 MiB and its copy in the database, and the page cache
    // of 256 MiB.
    assert!(peak < 700, "{peak} MiB resident for an object of {megabytes} MB");
}

/// Returns an object of this many megabytes, in row groups of 2,000,000 rows of numbers that do not compress.
fn big(megabytes: i64) -> Vec<u8> {
    const GROUP: i64 = 2_000_000;
    let mut writer = None;
    let mut dice = 1_u64;
    let mut random = |count: i64| {
        Int64Array::from_iter_values((0..count).map(|_| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 1).cast_signed()
        }))
    };
    // Two columns have 8 bytes per row that do not compress. Keys repeat, so that the store stays small.
    for _ in 0..(megabytes * 1_000_000 / (16 * GROUP)).max(1) {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("driver_id", Arc::new(Int64Array::from_iter_values((0..GROUP).map(|n| n % 1_000)))),
            ("event_timestamp", parquet::times((0..GROUP).map(|_| Some(60)))),
            ("not_wanted_twice", Arc::new(random(GROUP))),
            ("other", Arc::new(random(GROUP))),
        ];
        let batch = arrow::array::RecordBatch::try_from_iter(columns).unwrap();
        let writer = writer
            .get_or_insert_with(|| ::parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap());
        writer.write(&batch).unwrap();
        writer.flush().unwrap();
    }
    writer.unwrap().into_inner().unwrap()
}
