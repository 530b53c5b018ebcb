//! Maintenance of the store while the server runs: checks, repairs, and a background scan.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use larder_common::{clock::next_beat, telemetry};
use larder_model::registry::Catalog;
use larder_serving::Awaited;
use metrics::{describe_gauge, gauge};
use tokio::time::{sleep, sleep_until, timeout_at};

use super::App;
use crate::config::load_definitions;

/// The interval between checks while the store works. A check examines the store file, sets the gauges of the process, and
/// folds histograms. Failed lookups and writes send a notification, which starts a check earlier.
const KEEP_EVERY: Duration = Duration::from_secs(4);
/// The interval between checks while the store does not work, or while views are being loaded again because of damage. It is
/// also the minimum time between two checks, because a check that tries to reopen the store sends a notification
/// itself, and a lookup may fail again immediately after the check.
const KEEP_EVERY_FAILING: Duration = Duration::from_secs(1);
/// The time from the end of one full scan of the store to the start of the next.
const SCAN_EVERY: Duration = Duration::from_hours(24);
/// How long to wait before definition files that lack a view are read again. Only if they still lack the view are the
/// rows that callers wrote to it dropped.
const SETTLE: Duration = Duration::from_millis(300);
/// The time from the end of a scan that was interrupted or failed to the start of the next.
const SCAN_RETRY: Duration = Duration::from_secs(60);
/// A scan pauses four times as long as it works, so it uses at most a fifth of one core.
const PAUSE_FACTOR: u32 = 4;
/// The maximum time until a scan notices a shutdown.
const PAUSE_STEP: Duration = Duration::from_millis(20);

impl App {
    /// Drops the rows that callers wrote to views that are no longer defined. A view that cannot be served is still
    /// defined, so its rows stay. Before it drops rows, this function waits for [`SETTLE`] and reads the definition
    /// files again, because a partly written file can be valid and lack views. A Feast registry is not read again,
    /// because a partly written registry is never valid.
    pub(super) fn retire_views(&self) {
        let has = |catalog: &Catalog, view: &str| {
            catalog.view(view).is_some() || catalog.unservable_views().contains_key(view)
        };
        let current = self.current.load();
        // Before Feast writes its registry, it is unknown which views exist.
        if current.awaited() == Awaited::Registry {
            return;
        }
        let current = Arc::clone(current.catalog());
        if self.store.views().iter().all(|view| has(&current, view)) {
            return;
        }
        let loaded_by = self.loaded_by.load();
        let again = if loaded_by.feast.is_some() {
            // A partly written registry is never valid, so the current definitions are complete.
            None
        } else {
            thread::sleep(SETTLE);
            // If the definitions cannot be read, the rows stay. The next reload or restart tries again.
            let Ok(again) = load_definitions(&loaded_by) else { return };
            Some(again.catalog)
        };
        let is_kept = |view: &str| has(&current, view) || again.as_ref().is_some_and(|again| has(again, view));
        if let Err(error) = self.store.retire(is_kept) {
            tracing::error!(%error, "cannot drop rows that callers wrote to removed views");
        }
    }

    /// Checks the store, and repairs damage. Returns the views that have to be loaded again because of the damage.
    fn keep_store(&self) -> Vec<String> {
        self.store.check_and_reopen();
        // The store logs the error, and the next check retries the repair.
        let _ = self.store.repair();
        let damaged = self.store.damaged_views();
        if damaged.is_empty() { damaged } else { self.engine.load().handle_damaged_views(damaged) }
    }

    /// Scans the whole store. Returns false if the scan was interrupted, or ended with an error such as damage.
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
                tracing::info!(rows = scanned.rows, seconds, "store scan completed; no damage found");
                true
            }
            Ok(None) => false,
            // The store logs the error, and `keep` repairs the damage.
            Err(_) => false,
        }
    }
}

/// Checks and repairs the store, and updates gauges, until the server stops.
#[expect(clippy::cast_precision_loss, reason = "gauges of bytes and views, far below 2^53")]
pub(super) async fn keep(app: Arc<App>, metrics: telemetry::Metrics) {
    describe_gauge!(
        "larder_store_failing",
        "1 if the store is damaged or closed, or if its file was removed or replaced; 0 if it works."
    );
    describe_gauge!("larder_store_damaged_views", "Views that lost rows to damage and are being loaded again.");
    describe_gauge!("larder_hot_cache_bytes", "Bytes in the hot cache.");
    describe_gauge!("larder_store_file_bytes", "Disk space used by the store file, in bytes.");
    let (failing, damaged) = (gauge!("larder_store_failing"), gauge!("larder_store_damaged_views"));
    let (hot, file) = (gauge!("larder_hot_cache_bytes"), gauge!("larder_store_file_bytes"));
    let mut changes = app.store.health_changes();
    let mut known: Vec<String> = Vec::new();
    loop {
        let earliest = Instant::now() + KEEP_EVERY_FAILING;
        changes.mark_unchanged();
        let keeping = Arc::clone(&app);
        // The async thread must not wait for a disk. The panic hook logs a panic of the task.
        let kept = tokio::task::spawn_blocking(move || (keeping.keep_store(), keeping.store.disk_bytes())).await;
        metrics.run_upkeep();
        // Only Linux provides these figures; on other systems, they are absent.
        let _ = telemetry::note_process();
        let mut next = earliest;
        if let Ok((reload, bytes)) = kept {
            let is_failing = app.store.failure().is_some();
            damaged.set(reload.len() as f64);
            failing.set(if is_failing { 1.0 } else { 0.0 });
            hot.set(app.store.hot_bytes() as f64);
            file.set(bytes as f64);
            if !is_failing && reload.is_empty() {
                next = next_beat(KEEP_EVERY);
            }
            // Only new damage requests a sync here, because the scheduler retries a sync that failed.
            if reload.iter().any(|view| !known.contains(view)) {
                tracing::warn!(views = ?reload, "reloading views that lost rows to damage");
                app.resync.notify_one();
            }
            known = reload;
        }
        // The sender is never dropped: the store lives as long as the server.
        if timeout_at(next.into(), changes.changed()).await.is_ok() {
            sleep_until(earliest.into()).await;
        }
    }
}

/// Scans the store after startup, and again a day after each complete scan.
pub(super) async fn scan(app: Arc<App>) {
    loop {
        let scanning = Arc::clone(&app);
        let is_done = tokio::task::spawn_blocking(move || scanning.scan_store()).await.unwrap_or(false);
        sleep(if is_done { SCAN_EVERY } else { SCAN_RETRY }).await;
    }
}
