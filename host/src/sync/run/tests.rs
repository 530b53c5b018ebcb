//! Which way the rows of a run go, and that it goes on where it was.

use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use larder_model::model::{Feature, JoinKey, Micros, ScalarType, Tags};
use tempfile::TempDir;

use super::*;
use crate::{
    clock::ManualClock,
    source::{FileSchema, SourceBatch, SourceRows},
    store::StoreConfig,
};

/// Rows of a batch, and of a transaction.
const BATCH: usize = 100;
const NOW: Micros = 1_763_885_590_000_000;

/// A source in memory: the keys of its rows, whose event times rise.
#[derive(Debug, Default)]
struct Fake {
    keys: Vec<i64>,
    /// It breaks off before this row.
    breaks_at: Option<usize>,
    /// Where it was read from.
    readings: Mutex<Vec<Option<String>>>,
}

struct Reading<'s> {
    source: &'s Fake,
    from: usize,
    at: usize,
}

impl Source for Fake {
    fn has_news(&self, position: &str) -> Result<bool, SourceError> {
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
}

impl Batches for Reading<'_> {
    fn next_batch(&mut self) -> Result<Option<SourceBatch>, SourceError> {
        let keys = &self.source.keys[self.at..];
        let keys = &keys[..keys.len().min(BATCH)];
        if self.source.breaks_at.is_some_and(|row| row < self.at + keys.len()) {
            return Err(SourceError::Unreadable { path: "fake".to_owned(), why: "it broke off".to_owned() });
        }
        if keys.is_empty() {
            return Ok(None);
        }
        let first_row = self.at as u64;
        let rows = i64::try_from(self.at).unwrap()..;
        self.at += keys.len();
        let columns: [(&str, ArrayRef); 3] = [
            ("event_timestamp", Arc::new(TimestampMicrosecondArray::from_iter_values(rows.clone().take(keys.len())))),
            ("key", Arc::new(Int64Array::from(keys.to_vec()))),
            ("row", Arc::new(rows.take(keys.len()).collect::<Int64Array>())),
        ];
        let rows = SourceRows::Columns(RecordBatch::try_from_iter(columns).unwrap());
        Ok(Some(SourceBatch { rows, origin: "fake".into(), first_row }))
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
    store: OnlineStore,
    view: FeatureView,
    id: ViewId,
}

// === impl World ===

impl World {
    fn new(mode: WriteMode) -> Self {
        let dir = TempDir::new().unwrap();
        let store = OnlineStore::open(&StoreConfig::new(dir.path()), ManualClock::at(NOW)).unwrap();
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
        };
        let id = store.declare(&[Arc::new(view.clone())], KeyVersion::V3).unwrap()[0];
        Self { _dir: dir, store, view, id }
    }

    /// Syncs, and hears at each step how many rows are served; the run ends with the step for which `goes_on` is false.
    fn sync(
        &self,
        source: &Fake,
        request: SyncRequest,
        goes_on: impl Fn(usize) -> bool,
    ) -> (Result<SyncReport, SyncError>, Vec<u64>) {
        let limits = SyncLimits { commit_rows: BATCH, ..SyncLimits::default() };
        let (store, view, id) = (&self.store, &self.view, self.id);
        let run = SyncRun { store, view, id, key_version: KeyVersion::V3, source, limits };
        let mut served = Vec::new();
        let report = sync_view(run, request, &mut |_| {
            served.push(self.rows());
            goes_on(served.len())
        });
        (report, served)
    }

    fn sync_all(&self, source: &Fake) -> SyncReport {
        self.sync(source, SyncRequest::default(), |_| true).0.unwrap()
    }

    fn rows(&self) -> u64 {
        self.store.status(self.id).unwrap().rows
    }
}

/// Ten transactions, in which 200 keys come five times each.
fn large() -> Fake {
    Fake { keys: (0..1_000).map(|row| row * 7 % 200).collect(), ..Fake::default() }
}

#[test]
fn a_large_first_load_is_served_all_at_once() {
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
fn other_loads_that_upsert_are_served_batch_by_batch() {
    // A small one.
    let world = World::new(WriteMode::Upsert);
    let small = Fake { keys: (0..199).collect(), ..Fake::default() };
    let (report, served) = world.sync(&small, SyncRequest::default(), |_| true);
    assert_eq!((report.unwrap().applied.inserted, served), (199, vec![100, 199]));
    // One over rows that are there.
    let grown = Fake { keys: (0..1_199).collect(), ..Fake::default() };
    let (_, served) = world.sync(&grown, SyncRequest::default(), |_| true);
    assert_eq!(served[0], 299);
    // One of a span of event times, which does not make the view a loaded one.
    let world = World::new(WriteMode::Upsert);
    let window = Window { from: Some(100), to: None };
    let (_, served) = world.sync(&large(), SyncRequest { window, ..SyncRequest::default() }, |_| true);
    assert_eq!(served[0], 100);
    assert_eq!(world.store.status(world.id).unwrap().freshness.last_success, None);
}

#[test]
fn a_first_load_that_was_cut_off_goes_on() {
    let world = World::new(WriteMode::Upsert);
    // By its source, by the host while it reads, and by the host while it merges.
    let mut source = Fake { breaks_at: Some(450), ..large() };
    assert!(matches!(world.sync(&source, SyncRequest::default(), |_| true).0, Err(SyncError::Source { .. })));
    source.breaks_at = None;
    for step in [3, 5] {
        let (stopped, served) = world.sync(&source, SyncRequest::default(), |now| now < step);
        assert!(matches!(stopped, Err(SyncError::Stopped { .. })), "{stopped:?}");
        assert_eq!((served.len(), world.rows()), (step, 0));
    }
    // Of the ten transactions four were there, then three more; then the other three, and one of the merge.
    let report = world.sync_all(&source);
    let from = |row: usize| Some(row.to_string());
    assert_eq!(*source.readings.lock().unwrap(), [None, from(400), from(700), from(1_000)]);
    assert_eq!((report.applied.inserted, world.rows()), (200, 200));
    assert_eq!(world.store.status(world.id).unwrap().freshness.newest_event, Some(999));
}

#[test]
fn a_first_load_that_was_cut_off_is_begun_anew_where_all_is_asked_for_and_when_the_mode_has_changed() {
    for (full, mode) in [(true, WriteMode::Upsert), (false, WriteMode::Replace)] {
        let mut world = World::new(WriteMode::Upsert);
        let mut source = Fake { breaks_at: Some(450), ..large() };
        world.sync(&source, SyncRequest::default(), |_| true).0.unwrap_err();
        // What was read by then is not there any more.
        (source.breaks_at, source.keys) = (None, (1_000..2_000).collect());
        world.view.mode = mode;
        world.sync(&source, SyncRequest { full, ..SyncRequest::default() }, |_| true).0.unwrap();
        assert_eq!(*source.readings.lock().unwrap(), [None, None]);
        assert_eq!(world.rows(), 1_000);
    }
}

#[test]
fn a_set_whose_batches_repeat_few_keys_is_refused_and_changes_nothing() {
    let world = World::new(WriteMode::Replace);
    let good = Fake { keys: (0..1_500).collect(), ..Fake::default() };
    assert_eq!(world.sync_all(&good).applied.inserted, 1_500);
    // As many rows as before, of a hundredth of the keys.
    let bad = Fake { keys: (0..1_501).map(|row| row % 15).collect(), ..Fake::default() };
    let (refused, _) = world.sync(&bad, SyncRequest::default(), |_| true);
    let refused = refused.unwrap_err();
    assert!(matches!(&refused, SyncError::Refused { why, .. } if why.contains("has 15 rows")), "{refused}");
    let status = world.store.status(world.id).unwrap();
    assert_eq!((status.rows, status.position.as_deref()), (1_500, Some("1500")));
}
