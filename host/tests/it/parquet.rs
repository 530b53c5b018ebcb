//! Parquet sources through a whole host: every fault by its name, and every type to the answer.
//!
//! A fault must be told with file, view and column; what was served before is served on; the other view goes on.

mod faults;
mod files;
mod types;

use std::{fs::File, path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray},
    datatypes::Schema,
};
use larder::{
    http::{AdminEvent, Control, SyncCommand},
    sync::{Outcome, SyncReport},
};
use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};
use serde_json::{Value, json};

use crate::fixture::{Fixture, RECORDED_AT, Setup};

/// Two views: `stats` is what a test is about, `other` has to go on whatever becomes of it.
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

/// Rows of `stats`: driver, age of the event in seconds, rate.
fn stats(rows: &[(i64, i64, f64)]) -> Columns {
    vec![
        ("driver_id", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)))),
        ("event_timestamp", times(rows.iter().map(|row| Some(row.1)))),
        ("created", times(rows.iter().map(|_| None))),
        ("rate", Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.2)))),
        ("trips", Arc::new(Int64Array::from_iter_values(rows.iter().map(|_| 5)))),
    ]
}

/// Naive instants, so many seconds before the answers were recorded.
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

/// Writes beside and renames, as a job does that replaces a file.
fn write_batches(path: &Path, schema: Arc<Schema>, batches: &[RecordBatch], properties: WriterProperties) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let unfinished = path.with_extension("unfinished");
    let mut writer = ArrowWriter::try_new(File::create(&unfinished).unwrap(), schema, Some(properties)).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.close().unwrap();
    std::fs::rename(unfinished, path).unwrap();
}

fn other(n: i64) -> Columns {
    vec![
        ("driver_id", Arc::new(Int64Array::from(vec![1]))),
        ("event_timestamp", times([Some(1)].into_iter())),
        ("n", Arc::new(Int64Array::from(vec![n]))),
    ]
}

/// Both views with good files: drivers 1 and 2 of `stats`, driver 1 of `other`.
fn good() -> Setup {
    good_with(DEFINITIONS)
}

fn good_with(definitions: &str) -> Setup {
    // What happens between two syncs is up to the test.
    let setup = Setup::with(definitions).config("sync: {retry: 1h}\n");
    write(&setup.path(FILE), &stats(&[(1, 60, 0.1), (2, 60, 0.2)]));
    write(&setup.path("data/other.parquet"), &other(1));
    setup
}

/// What came of syncing everything once.
struct Synced {
    reports: Vec<SyncReport>,
    failures: Vec<(String, String)>,
}

fn sync(fixture: &Fixture, command: &SyncCommand) -> Synced {
    let mut synced = Synced { reports: Vec::new(), failures: Vec::new() };
    fixture.app.sync(command, &mut |event| match event {
        AdminEvent::Progress { .. } => {}
        AdminEvent::Synced { report } => synced.reports.push(report),
        AdminEvent::Failed { view, error } => synced.failures.push((view, error)),
    });
    synced
}

fn sync_all(fixture: &Fixture) -> Synced {
    sync(fixture, &SyncCommand::default())
}

impl Synced {
    fn report(&self, view: &str) -> &SyncReport {
        let report = self.reports.iter().find(|report| report.view == view);
        report.unwrap_or_else(|| panic!("{view} failed: {:?}", self.failures))
    }
}

/// The values of a feature for drivers; null where there is none.
fn values(fixture: &Fixture, reference: &str, drivers: &[i64]) -> Value {
    let (_, name) = reference.split_once(':').unwrap();
    fixture.features(&[reference], json!({ "driver_id": drivers })).column(name)["values"].clone()
}

fn rates(fixture: &Fixture, drivers: &[i64]) -> Value {
    values(fixture, "stats:rate", drivers)
}

/// Breaks the source of `stats`: the sync says so in these words, its rows are served on, and `other` goes on.
fn assert_refused(words: &[&str], damage: impl FnOnce(&Fixture)) {
    assert_refused_with(DEFINITIONS, words, damage);
}

fn assert_refused_with(definitions: &str, words: &[&str], damage: impl FnOnce(&Fixture)) {
    let fixture = good_with(definitions).start();
    assert_eq!(rates(&fixture, &[1, 2]), json!([0.1, 0.2]));

    damage(&fixture);
    write(&fixture.path("data/other.parquet"), &other(2));
    let synced = sync_all(&fixture);
    let [(view, error)] = &synced.failures[..] else { panic!("it was taken: {:?}", synced.reports) };
    assert_eq!(view, "stats");
    for word in ["view 'stats'", "data/stats"].iter().chain(words) {
        assert!(error.contains(word), "'{word}' is not in: {error}");
    }
    assert_eq!(rates(&fixture, &[1, 2, 3]), json!([0.1, 0.2, null]), "what was served is served on: {error}");
    assert_eq!(synced.report("other").outcome, Outcome::Loaded);
    assert_eq!(values(&fixture, "other:n", &[1]), json!([2]), "the other view goes on");
    assert_eq!(fixture.get("/ready").status, 200);

    // Mended, it is taken.
    let _ = std::fs::remove_dir_all(fixture.path("data/stats"));
    let _ = std::fs::remove_file(fixture.path("data/stats"));
    write(&fixture.path(FILE), &stats(&[(1, 30, 0.5), (3, 30, 0.3)]));
    assert_eq!(sync_all(&fixture).failures, []);
    assert_eq!(rates(&fixture, &[1, 3]), json!([0.5, 0.3]));
}
