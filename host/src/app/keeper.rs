//! Maintenance of the store while the server runs: checks, repairs, and a background scan.

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

/// The interval at which the store file is checked and detected damage is repaired.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// The time from the end of one full scan of the store to the start of the next.
const SCAN_EVERY: Duration = Duration::from_hours(24);
/// How long a view must be missing from the definitions before rows that callers wrote to it are dropped.
const SETTLE: Duration = Duration::from_millis(300);
/// The delay before an interrupted scan is restarted.
const SCAN_RETRY: Duration = Duration::from_secs(60);
/// A scan pauses this many times as long as it works: it takes at most a fifth of one core.
const PAUSE_FACTOR: u32 = 4;
/// How soon a scan notices a shutdown.
const PAUSE_STEP: Duration = Duration::from_millis(20);

impl App {
    /// Drops the rows that callers wrote to views that are no longer defined. A view that cannot be served is still
    /// defined, so its rows stay. Reads definition files again before it drops rows, because a file that is only partly
    /// written can be valid and lack views; blocks for [`SETTLE`] in that case.
    pub(super) fn retire_views(&self) {
        let has = |catalog: &Catalog, view: &str| {
            catalog.view(view).is_some() || catalog.unservable_views().contains_key(view)
        };
        let current = self.current.load();
        // Without definitions it is not known which views exist.
        if current.awaits_registry() {
            return;
        }
        let current = Arc::clone(current.catalog());
        if self.store.views().iter().all(|view| has(&current, view)) {
            return;
        }
        let loaded_by = self.loaded_by.load();
        let again = if loaded_by.feast.is_some() {
            // A partly written registry is rejected as a whole.
            None
        } else {
            thread::sleep(SETTLE);
            // If the definitions cannot be read now, the next check reads them again.
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
        // The error is logged, and the repair is retried.
        let _ = self.store.repair();
        let damaged = self.store.damaged_views();
        if damaged.is_empty() { damaged } else { self.engine.load().to_reload(damaged) }
    }

    /// Scans the whole store. Returns false if the scan was interrupted.
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
            // The error is logged, and the store is repaired.
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
        // This thread must not wait for a disk. A panic there is already logged.
        let Ok(reload) = tokio::task::spawn_blocking(move || keeping.keep_store()).await else { continue };
        #[expect(clippy::cast_precision_loss, reason = "a number of views")]
        damaged.set(reload.len() as f64);
        failing.set(if app.store.failure().is_some() { 1.0 } else { 0.0 });
        // The schedule retries a failed load.
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
