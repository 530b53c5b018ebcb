//! Tests the source without a Larder server, with a fake S3 that can replace objects during a read. Covers the ranges
//! that are requested, the contents of positions, and reads that are interrupted, inconsistent or invalid.

use std::{
    io::{Read, Write},
    net::TcpListener,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use arrow::array::{ArrayRef, AsArray as _, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use larder_common::clock::SystemClock;
use larder_fakeaws::{FakeS3, Fault, FaultProxy, S3Call, When};
use larder_model::{
    codec::KeyVersion,
    model::AwsPlace,
    registry::{Definitions, validate},
    yaml::Problems,
};
use larder_source::{
    ParquetLimits, S3Parquet, Source, SourceBatch, SourceError, SourceRows, Wanted,
    aws::{Aws, AwsConfig, AwsErrorKind, ObjectAt, StandInKeys},
};

use super::{BUCKET, definitions, file};
use crate::{fixture::eventually, parquet};
use ::parquet::{
    arrow::ArrowWriter,
    file::{properties::WriterProperties, reader::FileReader as _, serialized_reader::SerializedFileReader},
};

const KEY: &str = "set/a.parquet";

fn aws(url: String) -> Arc<Aws> {
    Aws::new(AwsConfig {
        region: Some("eu-west-1".to_owned()),
        s3_endpoint: Some(url),
        s3_path_style: true,
        attempt_timeout: Duration::from_secs(5),
        attempts_max: 2,
        keys: Some(StandInKeys),
        ..AwsConfig::default()
    })
}

fn source_at(url: String, source: &str, limits: ParquetLimits) -> S3Parquet {
    let problems = Problems::default();
    let mut read = Definitions::default();
    read.read("test", &definitions(source), &problems);
    let catalog = validate("shop", KeyVersion::V3, read, &problems).unwrap();
    let view = &catalog.views()[0];
    let files = view.files().unwrap();
    S3Parquet::new(aws(url), files, Wanted::of(view, files), limits, Arc::new(SystemClock))
}

fn source(s3: &FakeS3, source: &str) -> S3Parquet {
    source_at(s3.url(), source, ParquetLimits::default())
}

/// Starts a server with these objects.
fn server(objects: &[(&str, &[u8])]) -> FakeS3 {
    let s3 = FakeS3::start();
    s3.create_bucket(BUCKET);
    objects.iter().for_each(|(key, bytes)| {
        s3.put(BUCKET, key, bytes.to_vec());
    });
    s3
}

/// Returns the driver and the trips of each row.
fn rows(batch: SourceBatch) -> Vec<(i64, i64)> {
    let SourceRows::Columns(columns) = batch.rows else { panic!("files have columns") };
    let column = |name| columns.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
    let (drivers, trips) = (column("driver_id"), column("trips"));
    (0..columns.num_rows()).map(|row| (drivers.value(row), trips.value(row))).collect()
}

/// Returns all rows, and the position after them.
fn read(source: &S3Parquet, position: Option<&str>) -> Result<(Vec<(i64, i64)>, String), SourceError> {
    let mut reading = source.read(position)?;
    let mut all = Vec::new();
    while let Some(batch) = reading.next_batch()? {
        all.extend(rows(batch));
    }
    Ok((all, reading.position()))
}

/// Interrupts a read after this many batches. Returns the rows of these batches and the position.
fn cut_off(source: &S3Parquet, position: Option<&str>, batches: usize) -> (Vec<(i64, i64)>, String) {
    let mut reading = source.read(position).unwrap();
    let all = (0..batches).flat_map(|_| rows(reading.next_batch().unwrap().unwrap())).collect();
    (all, reading.position())
}

fn gets(s3: &FakeS3) -> Vec<S3Call> {
    s3.calls().into_iter().filter(|call| call.operation == "GetObject").collect()
}

/// Creates a file with row groups of this size. Numbers do not compress, and `trips` is the same in all rows.
fn grouped(count: i64, group: usize, trips: i64) -> Vec<u8> {
    let dice = |seed: i64| {
        let dice = move |n: i64| (n + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64.cast_signed()).rotate_left(29);
        Arc::new(Int64Array::from_iter_values((0..count).map(dice))) as ArrayRef
    };
    let columns = vec![
        ("unwanted_1", dice(1)),
        ("driver_id", dice(2)),
        ("unwanted_2", dice(3)),
        ("unwanted_3", dice(4)),
        ("event_timestamp", parquet::times((0..count).map(|_| Some(60)))),
        ("trips", Arc::new(Int64Array::from_iter_values((0..count).map(|_| trips))) as ArrayRef),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group))
        .set_dictionary_enabled(false)
        .set_data_page_size_limit(64 << 10)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn only_footer_and_columns_are_requested() {
    // A column of a row group has 9.6 MB, which is more than the maximum of one request.
    let bytes = grouped(2_400_000, 1_200_000, 7);
    let s3 = server(&[(KEY, &bytes)]);
    let source = source(&s3, "path: \"s3://features/set/a.parquet\"");
    let (all, position) = read(&source, None).unwrap();
    assert_eq!((all.len(), all[2_399_999].1), (2_400_000, 7));

    let range = |call: &S3Call| -> Range<u64> {
        let range = call.range.as_deref().unwrap().strip_prefix("bytes=").unwrap();
        let (from, to) = range.split_once('-').unwrap();
        from.parse().unwrap()..to.parse::<u64>().unwrap() + 1
    };
    let asked: Vec<Range<u64>> = gets(&s3).iter().map(range).collect();
    let end = bytes.len() as u64;
    assert_eq!(asked[0], end - (64 << 10)..end, "the tail comes first");
    assert!(asked.iter().all(|range| range.end - range.start <= 8 << 20), "{asked:?}");

    let file = SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap();
    let chunks = file.metadata().row_groups().iter().flat_map(|group| group.columns().iter());
    let wanted = ["driver_id", "event_timestamp", "trips"];
    let chunks = chunks.filter(|chunk| wanted.contains(&chunk.column_path().string().as_str()));
    let needed: u64 = chunks.map(|chunk| chunk.byte_range().1).sum();
    let fetched: u64 = asked[1..].iter().map(|range| range.end - range.start).sum();
    assert_eq!(fetched, needed, "exactly the needed columns are fetched");
    // For each group, there are two or three requests for the drivers. The times and trips are next to each other, and
    // are requested together.
    let sides = needed / 2 - 9_600_000;
    assert!(asked.len() as u64 <= 1 + 2 * (3 + sides.div_ceil(8 << 20)), "{asked:?}");
    assert!(s3.concurrent_max() <= 8, "{}", s3.concurrent_max());

    s3.clear_calls();
    assert!(!source.has_changes(&position).unwrap());
    assert_eq!((gets(&s3).len(), s3.calls().len()), (0, 1), "a check without changes is one list request");
}

#[test]
fn one_row_group_is_prefetched() {
    let s3 = server(&[(KEY, &grouped(300_000, 50_000, 1))]);
    let source = source(&s3, "path: \"s3://features/set/\"");
    let (all, position) = read(&source, None).unwrap();
    let requests = gets(&s3).len();
    assert_eq!((all.len(), (requests - 1) % 6), (300_000, 0), "the tail, and as many requests for each of six groups");
    s3.clear_calls();
    let mut reading = source.read(None).unwrap();
    reading.next_batch().unwrap().unwrap();
    let two_groups = 1 + (requests - 1) / 3;
    eventually("the second group is requested", || gets(&s3).len() >= two_groups);
    reading.next_batch().unwrap().unwrap();
    // When this request is complete, all earlier requests have also arrived.
    assert!(!source.has_changes(&position).unwrap());
    assert_eq!(gets(&s3).len(), two_groups);
}

#[test]
fn small_objects_are_fetched_ahead() {
    let bytes = file(1..=3, 1);
    let keys: Vec<String> = (0..100).map(|n| format!("set/dt=2026-11-25/{n:03}.parquet")).collect();
    let objects: Vec<(&str, &[u8])> = keys.iter().map(|key| (key.as_str(), &bytes[..])).collect();
    let s3 = server(&objects);
    s3.page_size(7);
    s3.delay(Duration::from_millis(20));
    let source = source(&s3, "path: \"s3://features/set/\"");
    let started = std::time::Instant::now();
    let (all, position) = read(&source, None).unwrap();
    assert_eq!((all.len(), gets(&s3).len()), (300, 100));
    assert!(s3.concurrent_max() > 4 && s3.concurrent_max() <= 16, "{}", s3.concurrent_max());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(position.len() < 2_500, "{}: {position}", position.len());
    assert!(!source.has_changes(&position).unwrap());
    // Only a new object is read.
    s3.put(BUCKET, "set/dt=2026-11-24/x.parquet", file(9..=9, 9));
    s3.clear_calls();
    assert!(source.has_changes(&position).unwrap());
    assert_eq!(read(&source, Some(&position)).unwrap().0, [(9, 9)]);
    assert_eq!(gets(&s3).len(), 1);
}

#[test]
fn interrupted_read_resumes_same_version() {
    let bytes = grouped(200_000, 30_000, 1);
    let s3 = server(&[(KEY, &bytes), ("set/b.parquet", &file(5..=5, 5))]);
    let source = source(&s3, "path: \"s3://features/set/\"");
    let (whole, end) = read(&source, None).unwrap();
    assert_eq!(whole.len(), 200_001);
    for batches in [1, 2, 5, 13] {
        let (mut begun, position) = cut_off(&source, None, batches);
        assert!(source.has_changes(&position).unwrap(), "after {batches} batches");
        // It may be interrupted again.
        let (more, position) = cut_off(&source, Some(&position), 1);
        let (rest, last) = read(&source, Some(&position)).unwrap();
        begun.extend(more);
        begun.extend(rest);
        assert!(
            begun == whole,
            "{} rows after {batches} batches, {} without an interruption",
            begun.len(),
            whole.len()
        );
        assert_eq!(last, end);
    }
    let (_, position) = cut_off(&source, None, 2);
    s3.put(BUCKET, KEY, file(1..=2, 2));
    let (rest, _) = read(&source, Some(&position)).unwrap();
    assert_eq!(rest, [(1, 2), (2, 2), (5, 5)], "another version is read from its beginning");
    // The read is interrupted after the first batch of the second object. The first object has 14 batches.
    s3.put(BUCKET, KEY, bytes.clone());
    s3.put(BUCKET, "set/b.parquet", bytes);
    let (_, position) = cut_off(&source, None, 15);
    assert_eq!(read(&source, Some(&position)).unwrap().0.len(), 200_000 - 16_384);
}

#[test]
fn truncated_object_is_rejected() {
    let whole = file(1..=3, 1);
    let s3 = server(&[]);
    let source = source(&s3, "path: \"s3://features/set/\"");
    for len in 0..whole.len() {
        s3.put(BUCKET, KEY, whole[..len].to_vec());
        let error = read(&source, None).unwrap_err();
        assert!(matches!(&error, SourceError::Unreadable { .. }), "{len}: {error}");
        assert!(error.to_string().starts_with("s3://features/set/a.parquet is not a readable Parquet file"), "{error}");
    }
}

#[test]
fn replaced_object_never_mixes_versions() {
    let (old, new) = (grouped(200_000, 30_000, 1), grouped(200_000, 30_000, 2));
    let s3 = server(&[(KEY, &old)]);
    let source = source(&s3, "path: \"s3://features/set/\"");
    let (_, position) = read(&source, None).unwrap();
    let requests = gets(&s3).len() as u64;
    assert!(requests > 7, "{requests}");
    let mut changed = 0;
    for n in 0..=requests {
        s3.put(BUCKET, KEY, old.clone());
        s3.stale_list(true);
        s3.swap_after(BUCKET, KEY, n, new.clone());
        match read(&source, None) {
            Ok((all, _)) => assert!(n == requests && all.iter().all(|row| row.1 == 1), "after {n}"),
            Err(SourceError::Changed { path }) => {
                assert_eq!(path, "s3://features/set/a.parquet");
                changed += 1;
            }
            Err(error) => panic!("after {n}: {error}"),
        }
        s3.stale_list(false);
    }
    assert_eq!(changed, requests);
    assert!(source.has_changes(&position).unwrap());
    assert!(read(&source, Some(&position)).unwrap().0.iter().all(|row| row.1 == 2));
}

#[test]
fn server_ignoring_versions_is_detected() {
    let s3 = server(&[(KEY, &file(1..=3, 1))]);
    let proxy = FaultProxy::start(s3.address());
    let source = source_at(proxy.url(), "path: \"s3://features/set/\"", ParquetLimits::default());
    let headers = vec![("etag".to_owned(), "\"another\"".to_owned())];
    let body = "x".repeat(file(1..=3, 2).len());
    proxy.rule("GET /features/set/", When::Always, Fault::Respond(206, headers, body));
    let error = read(&source, None).unwrap_err();
    assert!(matches!(error, SourceError::Changed { .. }), "{error}");
    proxy.heal();
    // A server without support for ranges sends more than requested. The reader stops before the end of the response.
    proxy.rule("GET /features/set/", When::Always, Fault::Respond(200, vec![], "x".repeat(50 << 20)));
    let error = read(&source, None).unwrap_err();
    assert!(
        error.to_string().contains("s3://features/set/a.parquet: GetObject: the response has more than"),
        "{error}"
    );
    assert!(proxy.bytes_passed() < 20 << 20, "{}", proxy.bytes_passed());
}

#[test]
fn interrupted_marker_set_is_news() {
    let s3 = server(&[(KEY, &file(1..=1, 1)), ("set/b.parquet", &file(2..=2, 1)), ("set/_SUCCESS", b"")]);
    let source = source(&s3, "path: \"s3://features/set/\", marker: _SUCCESS");
    let (first, position) = cut_off(&source, None, 1);
    assert_eq!(first, [(1, 1)]);
    assert!(source.has_changes(&position).unwrap(), "the marker is the same, and half of the set was not read");
    assert_eq!(read(&source, Some(&position)).unwrap().0, [(2, 1)]);
    // The marker is missing while the next set is being written. The read must not continue without it, because the
    // rest of the set may change.
    s3.delete(BUCKET, "set/_SUCCESS");
    assert!(source.has_changes(&position).unwrap());
    let error = read(&source, Some(&position)).unwrap_err();
    assert!(matches!(&error, SourceError::NotWhole { gate, .. } if gate == "s3://features/set/_SUCCESS"), "{error}");
    assert_eq!(error.kind(), "not_whole");
}

#[test]
fn changed_marker_fails_the_read() {
    let s3 = server(&[(KEY, &file(1..=1, 1)), ("set/_SUCCESS", b"1")]);
    let source = source(&s3, "path: \"s3://features/set/\", marker: _SUCCESS");
    let changes: [&dyn Fn(); 2] = [&|| s3.delete(BUCKET, "set/_SUCCESS"), &|| {
        s3.put(BUCKET, "set/_SUCCESS", "3");
    }];
    for change in changes {
        s3.put(BUCKET, "set/_SUCCESS", "2");
        let mut reading = source.read(None).unwrap();
        reading.next_batch().unwrap().unwrap();
        change();
        let error = reading.next_batch().unwrap_err();
        assert!(matches!(&error, SourceError::Changed { path } if path == "s3://features/set/_SUCCESS"), "{error}");
    }
}

#[test]
fn single_object_has_adjacent_marker() {
    let s3 = server(&[(KEY, &file(1..=1, 1)), ("set/b.parquet", &file(2..=2, 1))]);
    let source = source(&s3, "path: \"s3://features/set/a.parquet\", marker: a.done");
    assert!(matches!(read(&source, None), Err(SourceError::NotWhole { .. })));
    s3.put(BUCKET, "set/a.done", "");
    let (all, position) = read(&source, None).unwrap();
    assert_eq!(all, [(1, 1)]);
    assert!(!source.has_changes(&position).unwrap());
}

#[test]
fn manifest_may_name_any_object() {
    let entries = r#"{"entries": [{"url": "s3://features/set/a.parquet", "mandatory": true}, {"url": "s3://features/else where/b.parquet"},
        {"url": "s3://features/set/a.parquet"}], "schema": {}}"#;
    let s3 = server(&[
        (KEY, &file(1..=1, 1)),
        ("else where/b.parquet", &file(2..=2, 1)),
        ("set/not_named.parquet", &file(3..=3, 1)),
        ("set/manifest", entries.as_bytes()),
    ]);
    let listed = source(&s3, "path: \"s3://features/set/\", manifest: manifest");
    let (all, position) = read(&listed, None).unwrap();
    assert_eq!(all, [(1, 1), (2, 1)]);
    assert!(!listed.has_changes(&position).unwrap());
    // The version of this object comes from a HEAD request instead of the list. It must have the same format in both.
    s3.put(BUCKET, "else where/b.parquet", file(2..=2, 2));
    assert!(listed.has_changes(&position).unwrap());
    assert_eq!(read(&listed, Some(&position)).unwrap().0, [(2, 2)]);

    let refused = |text: &str| {
        s3.put(BUCKET, "set/manifest", text.to_owned());
        let error = read(&listed, None).unwrap_err();
        assert!(error.to_string().contains("s3://features/set/manifest"), "{error}");
        error.to_string()
    };
    assert!(refused(r#"["s3://features/gone/c.parquet"]"#).contains("s3://features/gone/c.parquet does not exist"));
    assert!(refused(r#"["c.parquet"]"#).contains("s3://features/set/c.parquet does not exist"));
    assert!(
        refused(r#"["s3://other/set/a.parquet"]"#).contains("s3://other/set/a.parquet, which is in another bucket")
    );
    assert!(refused("{").contains("it is not a manifest"));
    s3.put(BUCKET, "set/manifest", "[]");
    assert!(matches!(read(&listed, None), Err(SourceError::Empty { .. })));
    s3.put(BUCKET, "set/manifest", vec![b' '; (32 << 20) + 1]);
    s3.clear_calls();
    assert!(matches!(read(&listed, None), Err(SourceError::Limit { what, .. }) if what.contains("manifest")));
    assert_eq!(gets(&s3).len(), 0, "no request is sent");
}

/// Changes every byte of a file, one at a time. No read may hang or panic, so the reader has to check every number in
/// the file.
#[test]
fn damaged_byte_never_panics() {
    let whole = file(1..=3, 1);
    let s3 = server(&[]);
    let source = source(&s3, "path: \"s3://features/set/\"");
    for place in 0..whole.len() {
        for flip in [0x01, 0xff] {
            let mut damaged = whole.clone();
            damaged[place] ^= flip;
            s3.put(BUCKET, KEY, damaged);
            if let Err(error) = read(&source, None) {
                assert!(error.to_string().contains("s3://features/set"), "{place}: {error}");
            }
        }
    }
}

#[test]
fn object_cannot_exceed_limits() {
    let s3 = server(&[(KEY, &grouped(200_000, 100_000, 1))]);
    let refused = |limits: ParquetLimits| {
        let source = source_at(s3.url(), "path: \"s3://features/set/\"", limits);
        let Err(SourceError::Limit { path, what, .. }) = read(&source, None) else { panic!("the size is not bounded") };
        assert_eq!(path, "s3://features/set/a.parquet");
        what
    };
    let default = ParquetLimits::default();
    assert_eq!(refused(ParquetLimits { columns_max: 5, ..default }), "the number of columns");
    assert_eq!(refused(ParquetLimits { memory_max: 1_000, ..default }), "the size of the footer in bytes");
    assert!(gets(&s3).iter().all(|call| call.range.as_deref().unwrap() != "bytes=4-"), "only footers were read");
}

#[test]
fn directory_marker_object_is_skipped() {
    let s3 =
        server(&[("set/", b""), (KEY, &file(1..=1, 1)), ("set/deep/", b""), ("set/deep/b.parquet", &file(2..=2, 1))]);
    for path in ["s3://features/set/", "s3://features/set", "s3://features"] {
        let source = source(&s3, &format!("path: \"{path}\""));
        assert_eq!(read(&source, None).unwrap().0, [(1, 1), (2, 1)], "{path}");
    }
    let nothing = source(&s3, "path: \"s3://features/se\"");
    let error = read(&nothing, None).unwrap_err().to_string();
    assert_eq!(error, "No data found in source s3://features/se: it has no *.parquet object");
    let error = read(&source(&s3, "path: \"s3://nowhere/set/\""), None).unwrap_err();
    assert!(matches!(&error, SourceError::Aws(error) if error.kind == AwsErrorKind::Missing), "{error}");
}

#[test]
fn broken_body_is_requested_again() {
    let s3 = server(&[(KEY, &grouped(200_000, 50_000, 3))]);
    let proxy = FaultProxy::start(s3.address());
    let source = source_at(proxy.url(), "path: \"s3://features/set/\"", ParquetLimits::default());
    // Every third request fails, so a repeated request succeeds.
    proxy.rule("GET /features/set/", When::Every(3), Fault::ShortBody(1_000));
    let (all, _) = read(&source, None).unwrap();
    assert_eq!((all.len(), all.iter().all(|row| row.1 == 3)), (200_000, true));
    assert!(proxy.counts().1 >= 2, "{:?}", proxy.counts());
    proxy.heal();
    proxy.rule("GET /features/set/", When::Always, Fault::ShortBody(1_000));
    let error = read(&source, None).unwrap_err();
    assert!(matches!(&error, SourceError::Aws(error) if error.kind == AwsErrorKind::Garbled), "{error}");
    assert!(error.to_string().starts_with("s3://features/set/a.parquet: GetObject: the body ended early"), "{error}");
}

#[test]
fn aws_faults_are_reported_by_kind() {
    let s3 = server(&[(KEY, &file(1..=1, 1))]);
    let proxy = FaultProxy::start(s3.address());
    let source = source_at(proxy.url(), "path: \"s3://features/set/\"", ParquetLimits::default());
    let cases = [
        (Fault::slow_down(), AwsErrorKind::Throttled),
        (Fault::s3_error(500, "InternalError"), AwsErrorKind::Server),
        (Fault::redirect("http://127.0.0.1:1/"), AwsErrorKind::Redirected),
        (Fault::skewed(), AwsErrorKind::Denied),
        (Fault::s3_error(403, "AccessDenied"), AwsErrorKind::Denied),
        (Fault::Reset, AwsErrorKind::Unreachable),
    ];
    for (fault, kind) in cases {
        for what in ["GET /features/set/", "GET /features"] {
            proxy.rule(what, When::Always, fault.clone());
            let error = read(&source, None).unwrap_err();
            let SourceError::Aws(found) = &error else { panic!("{fault:?}: {error}") };
            assert_eq!(found.kind, kind, "{fault:?}: {error}");
            let message = error.to_string();
            assert!(message.starts_with("s3://features/set/"), "{message}");
            assert!(!message.contains("stand-in") && !message.contains("AWS4-HMAC"), "{message}");
            proxy.heal();
        }
    }
}

#[test]
fn empty_directory_object_is_a_marker() {
    let good = grouped(10, 10, 1);
    for marker in ["set", "set/"] {
        let s3 = server(&[(KEY, &good), (marker, b"")]);
        for path in ["s3://features/set", "s3://features/set/"] {
            let (rows, _) = read(&source(&s3, &format!("path: \"{path}\"")), None).unwrap();
            assert_eq!(rows.len(), 10, "{marker}, {path}");
        }
    }
    // If the only object is empty, the read fails, because it is not a readable file.
    let s3 = server(&[("set", b"")]);
    let error = read(&source(&s3, "path: \"s3://features/set\""), None).unwrap_err().to_string();
    assert!(error.contains("s3://features/set is not a readable Parquet file"), "{error}");
}

#[test]
fn large_row_group_comes_in_parts() {
    let s3 = server(&[(KEY, &grouped(200_000, 100_000, 1))]);
    let whole = read(&source(&s3, "path: \"s3://features/set/\""), None).unwrap().0;
    let limits = ParquetLimits { fetch_bytes: 400_000, ..ParquetLimits::default() };
    let before = gets(&s3).len();
    let parts = read(&source_at(s3.url(), "path: \"s3://features/set/\"", limits), None).unwrap().0;
    assert!(whole == parts, "{} and {} rows", whole.len(), parts.len());
    assert!(gets(&s3).len() - before > 6, "{}", gets(&s3).len() - before);
}

/// Starts a server that responds to every request with a body that does not end. Returns its address and the counter of
/// the bytes that it has sent.
fn endless() -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, sent) = (format!("http://{}", listener.local_addr().unwrap()), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&sent);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, sent) = (stream.unwrap(), Arc::clone(&counted));
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 1 << 16]);
                let chunk = [&b"10000\r\n"[..], &[b' '; 1 << 16], b"\r\n"].concat();
                let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/xml\r\ntransfer-encoding: chunked\r\n\r\n";
                let mut ended = stream.write_all(head);
                while ended.is_ok() {
                    ended = stream.write_all(&chunk);
                    sent.fetch_add(1 << 16, Ordering::Relaxed);
                }
            });
        }
    });
    (url, sent)
}

#[test]
fn endless_response_is_cut_off() {
    let (url, sent) = endless();
    let registry = ObjectAt::parse("s3://bucket/registry.db", AwsPlace::default()).unwrap();
    let refused = registry.read(&aws(url.clone()), 1 << 20, Duration::from_secs(30)).unwrap_err();
    assert!(refused.to_string().contains("the limit is 1048576"), "{refused}");
    assert!(sent.load(Ordering::Relaxed) < 64 << 20);

    let source = source_at(url, &format!("path: \"s3://{BUCKET}/set/\""), ParquetLimits::default());
    source.schemas().unwrap_err();
    // There are two attempts. Each reads at most 64 MiB, and the kernel's buffers contain more.
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent < 3 * (64 << 20), "{sent}");
}
