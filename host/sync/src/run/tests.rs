//! Tests of how rows are loaded, and of interrupted syncs.

use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use larder_common::clock::{Clock, ManualClock};
use larder_model::{
    codec::{KeyEncoder, KeyValue, RowSchema, RowView},
    model::{Feature, JoinKey, Micros, ScalarType, Tags, ValueRef},
};
use larder_source::{FileSchema, SourceBatch, SourceProperties, SourceRows};
use larder_store::StoreConfig;
use tempfile::TempDir;

use super::*;
use crate::slots::LoadSlots;

/// The number of rows of a batch and of a transaction.
const BATCH: usize = 100;
const NOW: Micros = 1_763_885_590_000_000;

/// A source in memory, given by the keys of its rows.
#[derive(Debug, Default)]
struct Fake {
    keys: Vec<i64>,
    /// The event times of the first rows. The event time of each other row is its index.
    times: Vec<Micros>,
    /// The row before which reading fails.
    breaks_at: Option<usize>,
    /// Whether the source is a table with a change stream. It is scanned if it is read without a position.
    is_followed: bool,
    /// The positions from which the source was read.
    readings: Mutex<Vec<Option<String>>>,
}

struct Reading<'s> {
    source: &'s Fake,
    from: usize,
    at: usize,
}

impl Source for Fake {
    fn has_changes(&self, position: &str) -> Result<bool, SourceError> {
        Ok(position != self.keys.len().to_string())
    }

    fn read(&self, position: Option<&str>) -> Result<Box<dyn Batches + '_>, SourceError> {
        self.readings.lock().unwrap().push(position.map(str::to_owned));
        let from = position.map_or(0, |position| position.parse().unwrap());
        Ok(Box::new(Reading { source: self, from, at: from }))
    }

    fn schemas(&self) -> Result<Vec<FileSchema>, SourceError> {
        Ok(Vec::new())
    }

    fn name(&self) -> String {
        "fake".to_owned()
    }

    fn properties(&self) -> SourceProperties {
        let poll_every = self.is_followed.then_some(Duration::from_secs(1));
        SourceProperties { poll_every, ..SourceProperties::default() }
    }
}

impl Batches for Reading<'_> {
    fn is_scan(&self) -> bool {
        !self.source.is_followed || self.from == 0
    }

    fn next_batch(&mut self) -> Result<Option<SourceBatch>, SourceError> {
        let keys = &self.source.keys[self.at..];
        let keys = &keys[..keys.len().min(BATCH)];
        if self.source.breaks_at.is_some_and(|row| row < self.at + keys.len()) {
            return Err(SourceError::Unreadable { path: "fake".to_owned(), why: "it was interrupted".to_owned() });
        }
        if keys.is_empty() {
            return Ok(None);
        }
        let first_row = self.at as u64;
        let rows = i64::try_from(self.at).unwrap()..;
        self.at += keys.len();
        let time = |row: i64| self.source.times.get(usize::try_from(row).unwrap()).copied().unwrap_or(row);
        let times = rows.clone().take(keys.len()).map(time);
        let columns: [(&str, ArrayRef); 3] = [
            ("event_timestamp", Arc::new(TimestampMicrosecondArray::from_iter_values(times))),
            ("key", Arc::new(Int64Array::from(keys.to_vec()))),
            ("row", Arc::new(rows.take(keys.len()).collect::<Int64Array>())),
        ];
        let rows = SourceRows::Columns(RecordBatch::try_from_iter(columns).unwrap());
        Ok(Some(SourceBatch { rows, origin: "fake".into(), file: 0, first_row }))
    }

    fn rows_expected(&self) -> u64 {
        (self.source.keys.len() - self.from) as u64
    }

    fn position(&self) -> String {
        self.at.to_string()
    }
}

struct World {
    _dir: TempDir,
    clock: Arc<ManualClock>,
    store: OnlineStore,
    view: FeatureView,
    id: ViewId,
}

// === impl World ===

impl World {
    fn new(mode: WriteMode) -> Self {
        let dir = TempDir::new().unwrap();
        let clock = ManualClock::at(NOW);
        let shared: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        let store = OnlineStore::open(&StoreConfig::new(dir.path()), shared).unwrap();
        let feature = Feature {
            name: "row".into(),
            value_type: "Int64".parse().unwrap(),
            description: String::new(),
            tags: Tags::new(),
        };
        let view = FeatureView {
            name: "stats".into(),
            entities: vec!["key".into()],
            join_keys: vec![JoinKey { name: "key".into(), value_type: ScalarType::Int64 }],
            features: vec![feature],
            ttl: None,
            source: None,
            batch_source: None,
            push_source: None,
            mode,
            description: String::new(),
            tags: Tags::new(),
            created: None,
        };
        let id = store.declare(&[Arc::new(view.clone())], KeyVersion::V3).unwrap()[0];
        Self { _dir: dir, clock, store, view, id }
    }

    /// Syncs, and returns the number of served rows at each call to `progress`. The sync ends at the call for which
    /// `should_continue` returns false.
    fn sync(
        &self,
        source: &Fake,
        request: SyncRequest,
        should_continue: impl Fn(usize) -> bool,
    ) -> (Result<SyncReport, SyncError>, Vec<u64>) {
        let limits = SyncLimits { commit_rows: BATCH, ..SyncLimits::default() };
        let (store, view, id) = (&self.store, &self.view, self.id);
        let run = SyncRun { store, view, id, key_version: KeyVersion::V3, source, limits, slots: None };
        let mut served = Vec::new();
        let report = sync_view(run, request, &mut |_| {
            served.push(self.rows());
            should_continue(served.len())
        });
        (report, served)
    }

    fn sync_all(&self, source: &Fake) -> SyncReport {
        self.sync(source, SyncRequest::default(), |_| true).0.unwrap()
    }

    /// Returns the index of the source's row that is served for a key; `None` if no row is served.
    fn row_of(&self, key: i64) -> Option<i64> {
        let mut bytes = Vec::new();
        KeyEncoder::new(KeyVersion::V3, ["key"]).begin(&mut bytes);
        KeyEncoder::push(&mut bytes, KeyValue::Int64(key));
        let row = self.store.reader().get(self.id, &KeyEncoder::id(&bytes)).unwrap()?;
        match RowView::new(&RowSchema::of_view(&self.view), &row).unwrap().get(0).unwrap() {
            ValueRef::Int64(value) => Some(value),
            other => panic!("{other:?}"),
        }
    }

    fn rows(&self) -> u64 {
        self.store.status(self.id).unwrap().rows
    }
}

/// Returns a source with rows for ten transactions. Each of its 200 keys occurs five times.
fn large() -> Fake {
    Fake { keys: (0..1_000).map(|row| row * 7 % 200).collect(), ..Fake::default() }
}

#[test]
fn large_first_load_becomes_visible_at_end() {
    let world = World::new(WriteMode::Upsert);
    let (report, served) = world.sync(&large(), SyncRequest::default(), |_| true);
    let applied = report.unwrap().applied;
    assert_eq!(applied, Applied { inserted: 200, updated: 800, ..Applied::default() });
    assert!(served.len() > 15 && served.iter().all(|rows| *rows == 0), "{served:?}");
    let status = world.store.status(world.id).unwrap();
    assert_eq!((status.rows, status.position.as_deref()), (200, Some("1000")));
    assert_eq!((status.freshness.last_success, status.freshness.newest_event), (Some(NOW), Some(999)));
}

#[test]
fn other_upserts_become_visible_per_batch() {
    // A small load.
    let world = World::new(WriteMode::Upsert);
    let small = Fake { keys: (0..199).collect(), ..Fake::default() };
    let (report, served) = world.sync(&small, SyncRequest::default(), |_| true);
    assert_eq!((report.unwrap().applied.inserted, served), (199, vec![100, 199]));
    // A load into a view that has rows.
    let grown = Fake { keys: (0..1_199).collect(), ..Fake::default() };
    let (_, served) = world.sync(&grown, SyncRequest::default(), |_| true);
    assert_eq!(served[0], 299);
    // A load of a window. Afterwards, the view is not loaded.
    let world = World::new(WriteMode::Upsert);
    let window = Window { from: Some(100), to: None };
    let (_, served) = world.sync(&large(), SyncRequest { window, ..SyncRequest::default() }, |_| true);
    assert_eq!(served[0], 100);
    assert_eq!(world.store.status(world.id).unwrap().freshness.last_success, None);
}

#[test]
fn interrupted_first_load_resumes() {
    let world = World::new(WriteMode::Upsert);
    // The load is interrupted by its source, by the server while it reads, and by the server while it merges.
    let mut source = Fake { breaks_at: Some(450), ..large() };
    assert!(matches!(world.sync(&source, SyncRequest::default(), |_| true).0, Err(SyncError::Source { .. })));
    source.breaks_at = None;
    for step in [3, 5] {
        let (stopped, served) = world.sync(&source, SyncRequest::default(), |now| now < step);
        assert!(matches!(stopped, Err(SyncError::Stopped { .. })), "{stopped:?}");
        assert_eq!((served.len(), world.rows()), (step, 0));
    }
    // The first sync read four of the ten transactions, the second read three, and the third read the rest. The last
    // sync completes the merge.
    let report = world.sync_all(&source);
    let from = |row: usize| Some(row.to_string());
    assert_eq!(*source.readings.lock().unwrap(), [None, from(400), from(700), from(1_000)]);
    assert_eq!((report.applied.inserted, world.rows()), (200, 200));
    assert_eq!(world.store.status(world.id).unwrap().freshness.newest_event, Some(999));
}

#[test]
fn full_or_changed_mode_restarts_load() {
    for (full, mode) in [(true, WriteMode::Upsert), (false, WriteMode::Replace)] {
        let mut world = World::new(WriteMode::Upsert);
        let mut source = Fake { breaks_at: Some(450), ..large() };
        world.sync(&source, SyncRequest::default(), |_| true).0.unwrap_err();
        // The rows that were read before do not exist any more.
        (source.breaks_at, source.keys) = (None, (1_000..2_000).collect());
        world.view.mode = mode;
        world.sync(&source, SyncRequest { full, ..SyncRequest::default() }, |_| true).0.unwrap();
        assert_eq!(*source.readings.lock().unwrap(), [None, None]);
        assert_eq!(world.rows(), 1_000);
    }
}

#[test]
fn set_with_few_keys_is_rejected() {
    let world = World::new(WriteMode::Replace);
    let good = Fake { keys: (0..1_500).collect(), ..Fake::default() };
    assert_eq!(world.sync_all(&good).applied.inserted, 1_500);
    // The set has about as many rows as before, but only a hundredth of the keys.
    let bad = Fake { keys: (0..1_501).map(|row| row % 15).collect(), ..Fake::default() };
    let (refused, _) = world.sync(&bad, SyncRequest::default(), |_| true);
    let refused = refused.unwrap_err();
    assert!(matches!(&refused, SyncError::Refused { why, .. } if why.contains("has 15 rows")), "{refused}");
    let status = world.store.status(world.id).unwrap();
    assert_eq!((status.rows, status.position.as_deref()), (1_500, Some("1500")));
}

const HOUR: Micros = 3_600_000_000;

/// Returns a source in which key 1 has a row from the past and a row dated in three hours, key 2 has a row dated in two
/// hours, and key 3 has a row dated in one hour.
fn with_future() -> Fake {
    Fake { keys: vec![1, 1, 2, 3], times: vec![NOW - 1, NOW + 3 * HOUR, NOW + 2 * HOUR, NOW + HOUR], ..Fake::default() }
}

#[test]
fn future_rows_are_served_when_due() {
    for mode in [WriteMode::Upsert, WriteMode::Replace] {
        let world = World::new(mode);
        let source = with_future();
        let report = world.sync_all(&source);
        assert_eq!((report.skipped.future, report.skipped.rows(), report.applied.inserted), (2, 0, 2));
        let example = report.skipped.describe_future(SyncLimits::default().future_tolerance).unwrap();
        let expected = "2 dated later than now plus 'sync: future_tolerance' (1h), the earliest 2025-11-23T10:13:10Z (fake, \
                        row 2)";
        assert_eq!(example, expected);
        let served = || [1, 2, 3].map(|key| world.row_of(key));
        assert_eq!(served(), [Some(0), None, Some(3)], "including one exactly at the tolerance");

        // Nothing is due, and the source did not change.
        world.clock.set(NOW + HOUR - 1);
        assert_eq!(world.sync_all(&source).outcome, Outcome::UpToDate);
        assert_eq!(served(), [Some(0), None, Some(3)]);
        world.clock.set(NOW + HOUR);
        let report = world.sync_all(&source);
        assert_eq!((report.outcome, report.skipped.future), (Outcome::Loaded, 1));
        assert_eq!(served(), [Some(0), Some(2), Some(3)]);
        let status = world.store.status(world.id).unwrap();
        assert_eq!((status.position.as_deref(), status.freshness.last_success), (Some("4"), Some(NOW + HOUR)));
        world.clock.set(NOW + 2 * HOUR);
        world.sync_all(&source);
        assert_eq!((served(), world.store.postponed(world.id)), ([Some(1), Some(2), Some(3)], None));
        let readings = source.readings.lock().unwrap().len();
        assert_eq!(world.sync_all(&source).outcome, Outcome::UpToDate);
        assert_eq!(source.readings.lock().unwrap().len(), readings, "no row is due, so nothing is read again");
    }
}

#[test]
fn retracted_future_row_is_never_served() {
    let world = World::new(WriteMode::Replace);
    let mut source = with_future();
    world.sync_all(&source);
    (source.keys, source.times) = (vec![1; 5], vec![NOW; 5]);
    world.sync_all(&source);
    assert_eq!(world.store.postponed(world.id), None);
    world.clock.set(NOW + 9 * HOUR);
    world.sync_all(&source);
    assert_eq!([1, 2].map(|key| world.row_of(key)), [Some(4), None]);
}

#[test]
fn every_run_records_future_rows() {
    let world = World::new(WriteMode::Upsert);
    let mut source = Fake { keys: vec![7], times: vec![NOW], ..Fake::default() };
    world.sync_all(&source);
    source.keys.push(8);
    source.times.push(NOW + 2 * HOUR);
    world.sync_all(&source);
    assert_eq!(world.row_of(8), None);
    world.clock.set(NOW + HOUR);
    world.sync_all(&source);
    assert_eq!(world.row_of(8), Some(1), "though it was read before");

    let world = World::new(WriteMode::Upsert);
    let window = Window { from: Some(NOW), to: Some(NOW + 5 * HOUR) };
    let windowed = SyncRequest { window, ..SyncRequest::default() };
    let report = world.sync(&with_future(), windowed, |_| true).0.unwrap();
    assert_eq!((report.skipped.future, report.skipped.outside_window), (2, 1));
    assert_eq!(world.store.postponed(world.id).map(|postponed| postponed.first), Some(NOW + 2 * HOUR));
}

#[test]
fn due_rows_are_skipped_on_request() {
    let world = World::new(WriteMode::Upsert);
    let source = with_future();
    world.sync_all(&source);
    world.clock.set(NOW + 9 * HOUR);
    let leave_due = SyncRequest { leave_due: true, ..SyncRequest::default() };
    world.sync(&source, leave_due, |_| true).0.unwrap();
    assert_eq!(world.row_of(2), None);
    world.sync_all(&source);
    assert_eq!(world.row_of(2), Some(2));
}

#[test]
fn stored_future_row_is_replaced() {
    let world = World::new(WriteMode::Upsert);
    let source = with_future();
    // Stores rows from the future, as an earlier version did, because it did not check event times.
    world.clock.set(NOW + 9 * HOUR);
    world.sync_all(&source);
    world.clock.set(NOW);
    assert_eq!([1, 2].map(|key| world.row_of(key)), [Some(1), Some(2)]);
    world.sync_all(&source);
    assert_eq!([1, 2, 3].map(|key| world.row_of(key)), [Some(0), None, Some(3)]);
    world.clock.set(NOW + 9 * HOUR);
    world.sync_all(&source);
    assert_eq!([1, 2].map(|key| world.row_of(key)), [Some(1), Some(2)]);
}

#[test]
fn small_shrinking_set_is_rejected() {
    let world = World::new(WriteMode::Replace);
    let set = |count: i64| Fake { keys: (0..count).collect(), ..Fake::default() };
    world.sync_all(&set(80));
    let (refused, _) = world.sync(&set(1), SyncRequest::default(), |_| true);
    assert!(matches!(&refused, Err(SyncError::Refused { .. })), "{refused:?}");
    assert_eq!(world.rows(), 80);
    let (taken, _) = world.sync(&set(1), SyncRequest { force: true, ..SyncRequest::default() }, |_| true);
    // `force` has no effect here, because the engine disables the checks before it calls `sync_view`.
    assert!(taken.is_err());
    world.sync_all(&set(8));
    assert_eq!(world.rows(), 8);
}

#[test]
fn size_checks_ignore_written_rows() {
    let world = World::new(WriteMode::Replace);
    let set = |count: i64| Fake { keys: (0..count).collect(), ..Fake::default() };
    world.sync_all(&set(11));
    let written = Fake { keys: (1_000..1_200).collect(), times: vec![NOW; 200], ..Fake::default() };
    let (store, view, id) = (&world.store, &world.view, world.id);
    let limits = SyncLimits::default();
    let run = SyncRun { store, view, id, key_version: KeyVersion::V3, source: &written, limits, slots: None };
    materialize_view(run, Window::default(), &mut |_| true).unwrap();
    assert_eq!(world.rows(), 211);
    world.sync_all(&set(12));
    assert_eq!(world.rows(), 212);
}

#[test]
fn load_without_slot_reads_nothing() {
    let world = World::new(WriteMode::Upsert);
    let source = Fake { keys: (0..10).collect(), ..Fake::default() };
    let (store, view, id) = (&world.store, &world.view, world.id);
    let (limits, none, some) = (SyncLimits::default(), LoadSlots::new(0), LoadSlots::new(1));
    let slots = Some(Slots { loads: &none, scans: &some });
    let run = SyncRun { store, view, id, key_version: KeyVersion::V3, source: &source, limits, slots };
    let stopped = sync_view(run, SyncRequest::default(), &mut |progress| {
        assert_eq!(progress.rows, 0);
        false
    });
    assert!(matches!(stopped, Err(SyncError::Stopped { .. })), "{stopped:?}");
    assert_eq!(world.rows(), 0);
}

/// A followed table whose position was lost is scanned, which needs as much memory as a first load.
#[test]
fn scan_of_followed_table_needs_slot() {
    let world = World::new(WriteMode::Upsert);
    let mut source = Fake { keys: (0..10).collect(), is_followed: true, ..Fake::default() };
    world.sync_all(&source);
    source.keys.push(10);
    let (store, view, id) = (&world.store, &world.view, world.id);
    let (limits, none, some) = (SyncLimits::default(), LoadSlots::new(0), LoadSlots::new(1));
    let slots = Some(Slots { loads: &some, scans: &none });
    let run = SyncRun { store, view, id, key_version: KeyVersion::V3, source: &source, limits, slots };
    let scan = SyncRequest { full: true, ..SyncRequest::default() };
    let stopped = sync_view(run, scan, &mut |_| false);
    assert!(matches!(stopped, Err(SyncError::Stopped { .. })), "{stopped:?}");
    sync_view(run, SyncRequest::default(), &mut |_| true).unwrap();
    assert_eq!(world.rows(), 11);
}
