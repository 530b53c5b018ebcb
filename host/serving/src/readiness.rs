//! Whether the server can receive traffic.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Awaited, Snapshot};

/// Records whether an earlier snapshot was loaded, as `is_loaded` defines it, and whether plugins are being loaded. A
/// server that was ready stays ready regardless of what a reload adds: one new view whose source is missing must not
/// make every pod unready at once.
#[derive(Debug, Default)]
pub struct Readiness {
    was_loaded: AtomicBool,
    /// Whether plugins that were present at startup are still being loaded.
    awaits_plugins: AtomicBool,
}

// === impl Readiness ===

impl Readiness {
    /// Returns whether the server can receive traffic with its current snapshot. All of these conditions must be met:
    ///
    /// * The definitions are available, and every view with a source has been loaded at least once. It is enough if
    ///   this was true of an earlier snapshot.
    /// * Each plugin that was present at startup is live or rejected.
    /// * The store works.
    /// * No rows of the current views are missing because of damage.
    #[must_use]
    pub fn is_ready(&self, current: &Snapshot) -> bool {
        let was_loaded = self.was_loaded.load(Ordering::Acquire) || is_loaded(current);
        let is_intact = current.store().failure().is_none() && current.damaged().next().is_none();
        was_loaded && is_intact && !self.awaits_plugins()
    }

    /// Returns whether plugins that were present at startup are still being loaded.
    #[must_use]
    pub fn awaits_plugins(&self) -> bool {
        self.awaits_plugins.load(Ordering::Acquire)
    }

    /// Sets whether plugins that were present at startup are still being loaded.
    pub fn set_awaits_plugins(&self, awaits: bool) {
        self.awaits_plugins.store(awaits, Ordering::Release);
    }

    /// Records whether a snapshot that is about to be replaced is loaded.
    pub(super) fn note_replaced(&self, before: &Snapshot) {
        if is_loaded(before) {
            self.was_loaded.store(true, Ordering::Release);
        }
    }
}

/// Returns whether the definitions are available, and every view with a source was loaded at least once. Staleness has
/// no effect: a loaded view keeps serving while its source is unavailable.
fn is_loaded(snapshot: &Snapshot) -> bool {
    snapshot.awaited() == Awaited::Nothing && snapshot.not_loaded().next().is_none()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use larder_common::clock::{ManualClock, SharedClock};
    use larder_model::{
        codec::KeyVersion,
        registry::{Definitions, validate},
        yaml::Problems,
    };
    use larder_store::{LoadMode, OnlineStore, StoreConfig};
    use tempfile::TempDir;

    use super::*;
    use crate::{CurrentSnapshot, ServingLimits, TtlPolicy};

    /// A store for the snapshots of a test.
    struct Fixture {
        store: Arc<OnlineStore>,
        clock: SharedClock,
        _dir: TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let clock: SharedClock = ManualClock::at(1_760_000_000_000_000);
            let store = OnlineStore::open(&StoreConfig::new(dir.path()), Arc::clone(&clock)).unwrap();
            Self { store: Arc::new(store), clock, _dir: dir }
        }

        /// Returns a snapshot with one view for each name, and a source for each view.
        fn snapshot(&self, views: &[&str]) -> Snapshot {
            let views: Vec<String> = views
                .iter()
                .map(|view| {
                    format!(
                        "  - name: {view}\n    entities: [customer]\n    features: [{{name: total, type: Int64}}]\n    \
                         source: {{path: {view}.parquet, timestamp_field: ts}}\n"
                    )
                })
                .collect();
            let text = format!(
                "entities: [{{name: customer, join_key: customer_id, type: Int64}}]\nfeature_views:\n{}",
                views.join("")
            );
            let (problems, mut read) = (Problems::default(), Definitions::default());
            read.read("readiness.yaml", &text, &problems);
            let catalog = validate("test", KeyVersion::V3, read, &problems);
            let catalog = Arc::new(catalog.unwrap_or_else(|| panic!("{:?}", problems.into_sorted())));
            let (store, clock) = (Arc::clone(&self.store), Arc::clone(&self.clock));
            Snapshot::new(catalog, store, clock, TtlPolicy::Mark, ServingLimits::default()).unwrap()
        }

        /// Loads a view of a snapshot, without rows.
        fn load(&self, snapshot: &Snapshot, view: &str) {
            let index = snapshot.catalog().views().iter().position(|known| &*known.name == view).unwrap();
            self.store.begin_load(snapshot.view_ids()[index], LoadMode::Upsert).unwrap().finish(None).unwrap();
        }
    }

    fn is_ready(current: &CurrentSnapshot) -> bool {
        current.readiness().is_ready(&current.load())
    }

    #[test]
    fn server_is_ready_once_views_are_loaded() {
        let fixture = Fixture::new();
        let current = CurrentSnapshot::new(fixture.snapshot(&["orders"]));
        assert!(!is_ready(&current));
        fixture.load(&current.load(), "orders");
        assert!(is_ready(&current));
    }

    #[test]
    fn ready_server_stays_ready_with_new_views() {
        let fixture = Fixture::new();
        let current = CurrentSnapshot::new(fixture.snapshot(&["orders"]));
        fixture.load(&current.load(), "orders");
        for views in [&["orders", "new"][..], &["orders", "new", "newer"]] {
            current.replace(fixture.snapshot(views));
            assert!(current.load().not_loaded().next().is_some());
            assert!(is_ready(&current), "{views:?}");
        }
    }

    #[test]
    fn unready_server_stays_unready_with_new_views() {
        let fixture = Fixture::new();
        let current = CurrentSnapshot::new(fixture.snapshot(&["orders", "never"]));
        fixture.load(&current.load(), "orders");
        current.replace(fixture.snapshot(&["orders", "never", "new"]));
        assert!(!is_ready(&current));
        // The view that was never loaded is removed.
        current.replace(fixture.snapshot(&["orders"]));
        assert!(is_ready(&current));
    }

    #[test]
    fn compilation_of_plugins_keeps_server_unready() {
        let fixture = Fixture::new();
        let current = CurrentSnapshot::new(fixture.snapshot(&["orders"]));
        fixture.load(&current.load(), "orders");
        current.readiness().set_awaits_plugins(true);
        assert!(!is_ready(&current));
        current.readiness().set_awaits_plugins(false);
        assert!(is_ready(&current));
    }

    #[test]
    fn missing_registry_keeps_server_unready() {
        let fixture = Fixture::new();
        let current = CurrentSnapshot::new(fixture.snapshot(&["orders"]).awaiting(Awaited::Registry));
        fixture.load(&current.load(), "orders");
        assert!(!is_ready(&current), "no views are known yet");
        current.replace(fixture.snapshot(&["orders", "new"]));
        assert!(!is_ready(&current), "the previous snapshot had no definitions");
    }

    #[test]
    fn registry_without_views_keeps_server_unready() {
        let fixture = Fixture::new();
        let current = CurrentSnapshot::new(fixture.snapshot(&[]).awaiting(Awaited::Views));
        assert!(!is_ready(&current));
        current.replace(fixture.snapshot(&["orders"]));
        assert!(!is_ready(&current), "the first view is not loaded yet");
        fixture.load(&current.load(), "orders");
        assert!(is_ready(&current));
    }
}
