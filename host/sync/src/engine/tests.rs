//! Tests of when views are due.

use larder_common::clock::{Clock, ManualClock};
use larder_model::{
    registry::{Definitions, validate},
    yaml::Problems,
};
use larder_source::aws::{Aws, AwsConfig};
use larder_store::StoreConfig;
use tempfile::TempDir;

use super::*;

/// Views with and without a schedule, over files that do not exist.
const DEFINITIONS: &str = "\
entities:
  - {name: key, join_key: key, type: Int64}
feature_views:
  - {name: often, entities: [key], features: [{name: a, type: Int64}], source: {path: a.parquet, timestamp_field: t, every: 30s}}
  - {name: rarely, entities: [key], features: [{name: b, type: Int64}], source: {path: b.parquet, timestamp_field: t, every: 50s}}
  - {name: once, entities: [key], features: [{name: c, type: Int64}], source: {path: c.parquet, timestamp_field: t}}
";

fn engine(dir: &TempDir) -> SyncEngine {
    let (problems, mut definitions) = (Problems::default(), Definitions::default());
    definitions.read("defined.yaml", DEFINITIONS, &problems);
    let catalog = validate("test", KeyVersion::V3, definitions, &problems);
    let catalog = catalog.filter(|_| !problems.has_errors());
    let catalog = catalog.unwrap_or_else(|| panic!("{:?}", problems.into_sorted()));
    let clock: Arc<dyn Clock> = ManualClock::at(1_763_885_590_000_000);
    let store = Arc::new(OnlineStore::open(&StoreConfig::new(dir.path()), Arc::clone(&clock)).unwrap());
    let ids = store.declare(catalog.views(), KeyVersion::V3).unwrap();
    let setting = SyncSetting {
        base_dir: dir.path().to_path_buf(),
        aws: Aws::new(AwsConfig::default()),
        clock,
        limits: SyncLimits { retry: Duration::from_secs(5), ..SyncLimits::default() },
    };
    SyncEngine::new(store, &catalog, &ids, setting, SyncScheduler::new())
}

#[test]
fn next_due_is_earliest_wanted_view() {
    let dir = TempDir::new().unwrap();
    let engine = engine(&dir);
    let now = Instant::now();
    let next = |wanted: &[&str]| {
        let next = engine.next_due(now, |view| wanted.contains(&view))?;
        Some(next.saturating_duration_since(now).as_secs_f64().round() as u64)
    };
    assert_eq!([next(&["often", "rarely"]), next(&["rarely"]), next(&["once"])], [Some(30), Some(50), None]);
    assert_eq!(engine.due(now).count(), 0);
    // A view is due at the time that `next_due` returns.
    let at = engine.next_due(now, |_| true).unwrap();
    assert_eq!(engine.due(at).collect::<Vec<_>>(), ["often"]);
    // The file of the view is missing, so the sync fails and is retried.
    engine.sync("once", SyncRequest::default(), &mut |_| ()).unwrap_err();
    assert_eq!(next(&["often", "rarely", "once"]), Some(5));
    engine.scheduler.stop();
    assert_eq!(engine.next_due(now, |_| true), None, "no retries during a shutdown");
    assert_eq!(engine.due(at + Duration::from_secs(100)).count(), 0);
}
