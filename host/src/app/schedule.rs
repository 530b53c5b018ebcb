//! The schedule of syncs: starts each view's sync when it is due, a few at a time.

use std::{
    collections::HashMap,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use larder_common::clock::next_beat;
use larder_ingest::SyncRequest;
use larder_sync::CONCURRENT_LOADS_MAX;
use tokio::{
    sync::{Semaphore, watch},
    task::{self, JoinSet},
    time::{sleep, sleep_until},
};

use super::App;

/// The minimum time between two rounds of due syncs. It limits how often syncs are retried if they fail immediately,
/// for example because a file is missing.
const SCHEDULE_PAUSE: Duration = Duration::from_millis(100);
/// The maximum sleep of the scheduler. Cron schedules and postponed rows depend on the wall clock, which may be set
/// while the scheduler sleeps.
const SCHEDULE_CHECK_EVERY: Duration = Duration::from_secs(8);

/// If a scheduled sync makes no progress for this long, its source is considered stalled, and the next sync may start.
const STALLED_AFTER: Duration = Duration::from_secs(2);

/// Syncs all views when [`App::resync`] is notified, for example after a reload. Otherwise, syncs each view when it is
/// due, according to its schedule or after a failure, and sleeps until then. Anything that may change when views are
/// due wakes the scheduler.
pub(super) async fn schedule(app: Arc<App>) {
    // With more than one slot, one load can read its source while another one writes. Views with a followed change
    // stream take no slot.
    let slots = Arc::new(Semaphore::new(CONCURRENT_LOADS_MAX));
    let mut syncs = JoinSet::new();
    // The newest running sync of each view.
    let mut running: HashMap<String, task::Id> = HashMap::new();
    let mut clock_changes = app.clock.changes();
    let mut earliest = Instant::now();
    loop {
        let engine = app.engine.load_full();
        let now = Instant::now();
        let next = engine.next_due(now, |view| !running.contains_key(view));
        let wake_at = next_beat(SCHEDULE_CHECK_EVERY).min(next.unwrap_or(now + SCHEDULE_CHECK_EVERY)).max(earliest);
        let mut skip_recent = false;
        let views: Vec<String> = tokio::select! {
            // The list includes views that are being synced, because their running syncs may use the previous
            // definitions.
            () = app.resync.notified() => {
                skip_recent = true;
                app.engine.load().views().map(str::to_owned).collect()
            }
            () = sleep_until(wake_at.into()) => {
                let now = Instant::now();
                earliest = now + SCHEDULE_PAUSE;
                engine.due(now).filter(|view| !running.contains_key(*view)).map(str::to_owned).collect()
            }
            Some(ended) = syncs.join_next_with_id() => {
                let ended = ended.map_or_else(|error| error.id(), |(id, ())| id);
                running.retain(|_, sync| *sync != ended);
                continue;
            }
            () = app.scheduler.changed() => continue,
            () = changed(&mut clock_changes) => continue,
        };
        for view in views {
            let sync = syncs.spawn(sync_one(Arc::clone(&app), view.clone(), skip_recent, Arc::clone(&slots)));
            running.insert(view, sync.id());
        }
    }
}

/// Waits until the clock is set to another time. Waits forever if `clock` is `None`.
async fn changed(clock: &mut Option<watch::Receiver<()>>) {
    if let Some(changes) = clock
        && changes.changed().await.is_ok()
    {
        return;
    }
    pending().await
}

async fn sync_one(app: Arc<App>, view: String, skip_recent: bool, slots: Arc<Semaphore>) {
    let engine = app.engine.load_full();
    // `acquire` never fails, because the semaphore is never closed.
    let mut slot = if engine.is_followed(&view) { None } else { slots.acquire().await.ok() };
    let commits = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&commits);
    // The result is ignored here, because the engine logs it and records it in the metrics.
    let mut sync = tokio::task::spawn_blocking(move || {
        let request = SyncRequest { skip_recent, ..SyncRequest::default() };
        let _ = engine.sync(&view, request, &mut |_| _ = counted.fetch_add(1, Ordering::Relaxed));
    });
    let mut seen = 0;
    while slot.is_some() {
        tokio::select! {
            _ = &mut sync => return,
            () = sleep(STALLED_AFTER) => {
                let now = commits.load(Ordering::Relaxed);
                if now == seen {
                    slot = None;
                }
                seen = now;
            }
        }
    }
    let _ = sync.await;
}
