//! What keeps the store whole while the host runs: it is checked, repaired, and read through in the background.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use larder_model::registry::Catalog;
use metrics::{describe_gauge, gauge};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::App;
use crate::config::load_definitions;

/// How often the store's file is looked for, and damage that was found is repaired.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// From the end of one scan of the whole store to the next one.
const SCAN_EVERY: Duration = Duration::from_hours(24);
/// For how long a view has to be missing in the definitions before what callers wrote to it is dropped.
const SETTLE: Duration = Duration::from_millis(300);
/// When a scan that was interrupted is begun again.
const SCAN_RETRY: Duration = Duration::from_secs(60);
/// A scan pauses this many times as long as it works: it takes at most a fifth of one core.
const PAUSE_FACTOR: u32 = 4;
/// How soon a scan notices that the host stops.
const PAUSE_STEP: Duration = Duration::from_millis(20);

impl App {
    /// Ends what callers wrote to views that the definitions no longer have. A view that cannot be served stays: it is
    /// defined. Files of definitions are read once more before: one that is being written can be valid and lack views.
    /// Blocks for [`SETTLE`] then.
    pub(super) fn retire_views(&self) {
        let has = |catalog: &Catalog, view: &str| {
            catalog.view(view).is_some() || catalog.unservable_views().contains_key(view)
        };
        let current = self.current.load();
        // Without definitions nothing is known of views.
        if current.awaits_registry() {
            return;
        }
        let current = Arc::clone(current.catalog());
        if self.store.views().iter().all(|view| has(&current, view)) {
            return;
        }
        let loaded_by = self.loaded_by.load();
        let again = if loaded_by.feast.is_some() {
            // A part of a registry is refused as a whole.
            None
        } else {
            thread::sleep(SETTLE);
            // Definitions that cannot be read now are read again soon.
            let Ok(again) = load_definitions(&loaded_by) else { return };
            Some(again.catalog)
        };
        let is_kept = |view: &str| has(&current, view) || again.as_ref().is_some_and(|again| has(again, view));
        if let Err(error) = self.store.retire(is_kept) {
            tracing::error!(%error, "cannot drop rows that callers wrote to removed views");
        }
    }

    /// Checks the store and repairs damage. Returns the views that have to be loaded again because of it.
    fn keep_store(&self) -> Vec<String> {
        self.store.mend();
        // An error is in the log, and the repair is tried again.
        let _ = self.store.repair();
        let damaged = self.store.damaged_views();
        if damaged.is_empty() { damaged } else { self.engine.load().to_reload(damaged) }
    }

    /// Reads the whole store; false if that was interrupted.
    fn scan_store(&self) -> bool {
        let mut pause = |worked: Duration| {
            let until = Instant::now() + worked * PAUSE_FACTOR;
            loop {
                if self.engine.load().is_stopping() {
                    return false;
                }
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return true;
                }
                thread::sleep(left.min(PAUSE_STEP));
            }
        };
        match self.store.scan(&mut pause) {
            Ok(Some(scanned)) => {
                let seconds = scanned.elapsed.as_secs_f64();
                tracing::info!(rows = scanned.rows, seconds, "the whole store was scanned; it is intact");
                true
            }
            Ok(None) => false,
            // It is in the log, and the store is repaired.
            Err(_) => false,
        }
    }
}

/// Keeps the store usable for as long as the host runs.
pub(super) async fn keep(app: Arc<App>) {
    describe_gauge!("larder_store_failing", "1 if the store is damaged, closed or gone, 0 if it works.");
    describe_gauge!("larder_store_damaged_views", "Views that lost rows to damage and are being loaded again.");
    let (failing, damaged) = (gauge!("larder_store_failing"), gauge!("larder_store_damaged_views"));
    let mut ticks = interval(KEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known: Vec<String> = Vec::new();
    loop {
        ticks.tick().await;
        let keeping = Arc::clone(&app);
        // Waiting for a disk is not for this thread; a panic in there is in the log already.
        let Ok(reload) = tokio::task::spawn_blocking(move || keeping.keep_store()).await else { continue };
        #[expect(clippy::cast_precision_loss, reason = "a number of views")]
        damaged.set(reload.len() as f64);
        failing.set(if app.store.failure().is_some() { 1.0 } else { 0.0 });
        // A load that fails is tried again by the schedule.
        if reload.iter().any(|view| !known.contains(view)) {
            tracing::warn!(views = ?reload, "views that lost rows to damage are loaded again");
            app.resync.notify_one();
        }
        known = reload;
    }
}

/// Scans the store after each start, and once a day.
pub(super) async fn scan(app: Arc<App>) {
    loop {
        let scanning = Arc::clone(&app);
        let is_done = tokio::task::spawn_blocking(move || scanning.scan_store()).await.unwrap_or(false);
        sleep(if is_done { SCAN_EVERY } else { SCAN_RETRY }).await;
    }
}
