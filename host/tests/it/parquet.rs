//! Parquet sources in a complete server. Tests each fault and its message, and each type from the file to the response.
//!
//! The message of a fault must name the file, the view and the column. The previous data must keep serving, and the
//! other view must not be affected. Files on disk and objects in S3 must behave in the same way, so tests use
//! [`everywhere`], which runs them with both.

mod faults;
mod files;
mod future;
mod guard;
mod odd;
mod space;
mod types;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    ops::Deref,
    path::Path,
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray},
    datatypes::Schema,
};
use larder_fakeaws::FakeS3;
use larder_http::{AdminEvent, Control, DeleteCommand, SyncCommand};
use larder_ingest::{Outcome, SyncReport};
use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};
use serde_json::{Value, json};

use crate::fixture::{Fixture, RECORDED_AT, Setup};

/// Two views. Tests change the files of `stats`, and `other` must keep working.
const DEFINITIONS: &str = "
entities: [{name: driver, join_key: driver_id, type: Int64}]
feature_views:
  - name: stats
    entities: [driver]
    source: {path: data/stats, timestamp_field: event_timestamp, created_timestamp_column: created}
    features: [{name: rate, type: Float64}, {name: trips, type: Int32}]
  - name: other
    entities: [driver]
    source: {path: data/other.parquet, timestamp_field: event_timestamp}
    features: [{name: n, type: Int64}]
";

const FILE: &str = "data/stats/part-0.parquet";
const SECOND: i64 = 1_000_000;

pub(crate) type Columns = Vec<(&'static str, ArrayRef)>;

/// Creates rows of `stats`. A row has the driver, the age of the event in seconds, and the rate.
fn stats(rows: &[(i64, i64, f64)]) -> Columns {
    vec![
        ("driver_id", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)))),
        ("event_timestamp", times(rows.iter().map(|row| Some(row.1)))),
        ("created", times(rows.iter().map(|_| None))),
        ("rate", Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.2)))),
        ("trips", Arc::new(Int64Array::from_iter_values(rows.iter().map(|_| 5)))),
    ]
}

/// Creates timestamps without a time zone. Each is this many seconds before the recording.
pub(crate) fn times(ages: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(ages.map(|age| age.map(|age| RECORDED_AT - age * SECOND)).collect::<TimestampMicrosecondArray>())
}

fn replaced(columns: Columns, name: &str, array: ArrayRef) -> Columns {
    columns.into_iter().map(|(known, old)| (known, if known == name { Arc::clone(&array) } else { old })).collect()
}

fn without(columns: Columns, name: &str) -> Columns {
    columns.into_iter().filter(|(known, _)| *known != name).collect()
}

fn batch(columns: &Columns) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.iter().map(|(name, array)| (*name, Arc::clone(array), true)))
        .unwrap()
}

pub(crate) fn write(path: &Path, columns: &Columns) {
    write_with(path, columns, WriterProperties::default());
}

fn write_with(path: &Path, columns: &Columns, properties: WriterProperties) {
    let batch = batch(columns);
    write_batches(path, batch.schema(), &[batch], properties);
}

/// Writes a temporary file and renames it, as a job does that replaces a file.
fn write_batches(path: &Path, schema: Arc<Schema>, batches: &[RecordBatch], properties: WriterProperties) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let unfinished = path.with_extension("unfinished");
    let mut writer = ArrowWriter::try_new(File::create(&unfinished).unwrap(), schema, Some(properties)).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.close().unwrap();
    fs::rename(unfinished, path).unwrap();
}

fn other(n: i64) -> Columns {
    vec![
        ("driver_id", Arc::new(Int64Array::from(vec![1]))),
        ("event_timestamp", times([Some(1)].into_iter())),
        ("n", Arc::new(Int64Array::from(vec![n]))),
    ]
}

/// Where the files of sources are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Disk,
    S3,
}

/// A server that is not started yet. For S3, also a bucket that receives the contents of the server's directory.
struct Prepared {
    setup: Setup,
    bucket: Option<FakeS3>,
}

struct Host {
    fixture: Fixture,
    bucket: Option<FakeS3>,
}

const BUCKET: &str = "features";

/// Runs a test twice: with files on disk, and with the same files as objects in S3.
fn everywhere(test: impl Fn(Place)) {
    [Place::Disk, Place::S3].into_iter().for_each(test);
}

// === impl Place ===

impl Place {
    fn with(self, definitions: &str, config: &str) -> Prepared {
        match self {
            Self::Disk => Prepared { setup: Setup::with(definitions).config(config), bucket: None },
            Self::S3 => {
                let bucket = FakeS3::start();
                bucket.create_bucket(BUCKET);
                let aws = format!("aws: {{s3_endpoint: \"{}\", s3_path_style: true}}\n{config}", bucket.url());
                let definitions = definitions.replace("path: data/", "path: s3://features/data/");
                Prepared { setup: Setup::with(&definitions).config(&aws), bucket: Some(bucket) }
            }
        }
    }

    /// Prepares a server with both views and valid files: drivers 1 and 2 of `stats`, and driver 1 of `other`.
    fn good(self) -> Prepared {
        self.good_with(DEFINITIONS)
    }

    fn good_with(self, definitions: &str) -> Prepared {
        // Failed syncs are not retried soon, so that tests control when syncs happen.
        let prepared = self.with(definitions, "sync: {retry: 1h}\n");
        write(&prepared.path(FILE), &stats(&[(1, 60, 0.1), (2, 60, 0.2)]));
        write(&prepared.path("data/other.parquet"), &other(1));
        prepared
    }
}

// === impl Prepared ===

impl Prepared {
    fn start(self) -> Host {
        let Self { setup, bucket } = self;
        bucket.iter().for_each(|bucket| mirror(&setup.path(""), bucket));
        Host { fixture: setup.start(), bucket }
    }
}

impl Deref for Prepared {
    type Target = Setup;

    fn deref(&self) -> &Setup {
        &self.setup
    }
}

impl Deref for Host {
    type Target = Fixture;

    fn deref(&self) -> &Fixture {
        &self.fixture
    }
}

/// Changes a bucket so that it contains exactly the files in a directory's `data/`.
fn mirror(dir: &Path, bucket: &FakeS3) {
    let mut keys = BTreeSet::new();
    let mut dirs = vec![dir.join("data")];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let key = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            let bytes = fs::read(&path).unwrap();
            if bucket.get(BUCKET, &key).is_none_or(|known| known != bytes) {
                bucket.put(BUCKET, &key, bytes);
            }
            keys.insert(key);
        }
    }
    bucket.keys(BUCKET).iter().filter(|key| !keys.contains(*key)).for_each(|key| bucket.delete(BUCKET, key));
}

/// The result of syncing everything once.
struct Synced {
    reports: Vec<SyncReport>,
    failures: Vec<(String, String)>,
}

fn sync(host: &Host, command: &SyncCommand) -> Synced {
    host.bucket.iter().for_each(|bucket| mirror(&host.path(""), bucket));
    let mut synced = Synced { reports: Vec::new(), failures: Vec::new() };
    host.app.sync(command, &mut |event| match event {
        AdminEvent::Progress { .. } => {}
        AdminEvent::Synced { report } => synced.reports.push(report),
        AdminEvent::Failed { view, error } => synced.failures.push((view, error)),
    });
    synced
}

fn sync_all(host: &Host) -> Synced {
    sync(host, &SyncCommand::default())
}

impl Synced {
    fn report(&self, view: &str) -> &SyncReport {
        let report = self.reports.iter().find(|report| report.view == view);
        report.unwrap_or_else(|| panic!("{view} failed: {:?}", self.failures))
    }
}

/// Returns the values of a feature for drivers. The value is null if there is none.
fn values(fixture: &Fixture, reference: &str, drivers: &[i64]) -> Value {
    let (_, name) = reference.split_once(':').unwrap();
    fixture.features(&[reference], json!({ "driver_id": drivers })).column(name)["values"].clone()
}

fn rates(fixture: &Fixture, drivers: &[i64]) -> Value {
    values(fixture, "stats:rate", drivers)
}

/// Damages the source of `stats`. Checks that the sync fails with this message, that the view's previous rows keep
/// serving, and that `other` is not affected.
fn assert_refused(words: &[&str], damage: impl Fn(&Fixture)) {
    assert_refused_with(DEFINITIONS, words, damage);
}

fn assert_refused_with(definitions: &str, words: &[&str], damage: impl Fn(&Fixture)) {
    everywhere(|place| assert_refused_at(place, definitions, words, &damage));
}

fn assert_refused_at(place: Place, definitions: &str, words: &[&str], damage: impl Fn(&Fixture)) {
    let fixture = place.good_with(definitions).start();
    assert_eq!(rates(&fixture, &[1, 2]), json!([0.1, 0.2]));

    damage(&fixture);
    write(&fixture.path("data/other.parquet"), &other(2));
    let synced = sync_all(&fixture);
    let [(view, error)] = &synced.failures[..] else { panic!("{place:?}: the sync succeeded: {:?}", synced.reports) };
    assert_eq!(view, "stats");
    for word in ["view 'stats'", "data/stats"].iter().chain(words) {
        assert!(error.contains(word), "'{word}' is not in: {error}");
    }
    assert_eq!(rates(&fixture, &[1, 2, 3]), json!([0.1, 0.2, null]), "the previous data keeps serving: {error}");
    assert_eq!(synced.report("other").outcome, Outcome::Loaded);
    assert_eq!(values(&fixture, "other:n", &[1]), json!([2]), "the other view is not affected");
    assert_eq!(fixture.get("/ready").status, 200);

    // After the source is repaired, it is loaded.
    let _ = fs::remove_dir_all(fixture.path("data/stats"));
    let _ = fs::remove_file(fixture.path("data/stats"));
    write(&fixture.path(FILE), &stats(&[(1, 30, 0.5), (3, 30, 0.3)]));
    assert_eq!(sync_all(&fixture).failures, []);
    assert_eq!(rates(&fixture, &[1, 3]), json!([0.5, 0.3]));
}
