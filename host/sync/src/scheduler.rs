//! Schedules syncs. At most one sync of a view runs at a time. The next sync starts when the view's interval has passed
//! or its cron time is reached, or sooner if the last sync failed.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hasher, RandomState},
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use larder_ingest::MATERIALIZATIONS_MAX;
use larder_store::ViewId;
use tokio::sync::{Notify, watch};

use super::slots::{CONCURRENT_LOADS_MAX, CONCURRENT_SCANS_MAX, LoadSlots};

/// The state that all sync engines of a process share. A new catalog gets a new engine, but this state stays. It has
/// the views that are being synced, so that two engines never sync the same view at the same time. It also has the time
/// and result of each view's last sync, and whether a shutdown has begun.
#[derive(Debug)]
pub struct SyncScheduler {
    began: Instant,
    /// The fraction of the maximum jitter by which each sync is delayed, from 0 to 1. It is different in each process,
    /// so that hundreds of servers do not read a source at the same time.
    jitter: f64,
    views: Mutex<HashMap<ViewId, ViewState>>,
    /// Notified when a sync ends and when the shutdown begins.
    changed: Condvar,
    /// Notified when a sync ends or a watched file changes. Wakes the task that waits for the next due view.
    changed_due: Notify,
    files: Mutex<WatchedFiles>,
    /// Limits the memory of loads that the schedule or a command starts.
    pub(super) loads: LoadSlots,
    /// Limits the memory of repeated scans of tables whose change stream is followed.
    pub(super) scans: LoadSlots,
    /// Limits the memory of loads that callers request over HTTP.
    pub(super) materialization_slots: LoadSlots,
    /// When the shutdown began; `None` if it has not begun.
    stop: watch::Sender<Option<Instant>>,
}

/// The watched files of sources.
#[derive(Debug, Default)]
struct WatchedFiles {
    files: HashSet<PathBuf>,
    /// When one of the files last changed; `None` if none has changed yet.
    changed: Option<Instant>,
}

/// The state of one view: whether a sync is running, how many syncs are waiting, and how the last sync ended.
#[derive(Clone, Copy, Debug, Default)]
struct ViewState {
    is_running: bool,
    waiting: usize,
    ended: Option<Instant>,
    /// How long the last sync took.
    took: Duration,
    /// The number of failures since the last success.
    failures: u32,
}

/// The permit to sync a view. Another sync of the view can begin once the permit is dropped.
#[derive(Debug)]
pub(super) struct SyncPermit<'t> {
    scheduler: &'t SyncScheduler,
    view: ViewId,
    began: Instant,
}

/// The reason why a sync cannot begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPermit {
    /// The server is shutting down.
    Stopping,
    /// [`WAITING_MAX`] syncs of the view are already waiting.
    Busy,
}

/// When a view is synced automatically.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Schedule {
    /// Never, except to retry after a failure.
    #[default]
    Never,
    /// This long after the end of the last sync.
    Every(Duration),
    /// This long after the end of the last sync, for a source that reports its changes. Unlike with
    /// [`Schedule::Every`], there is no jitter, and retries are delayed by at most [`FOLLOWED_RETRY_MAX`] or the
    /// interval, whichever is longer.
    Follow(Duration),
    /// At this time.
    At(Instant),
}

/// The maximum number of syncs of one view that wait for the running one. Each of them blocks a thread, so further
/// syncs are rejected.
pub(super) const WAITING_MAX: usize = 16;
/// The maximum delay from jitter, as a fraction of the interval.
const JITTER_FRACTION: f64 = 0.1;
/// The maximum delay from jitter for any interval.
const JITTER_MAX: Duration = Duration::from_secs(300);
/// Views that are synced more often than this get no jitter, because their syncs on different servers drift apart
/// anyway.
const JITTER_INTERVAL_MIN: Duration = Duration::from_secs(60);
/// The maximum delay before a failed sync of a view that follows a stream is retried, unless its poll interval is
/// longer.
const FOLLOWED_RETRY_MAX: Duration = Duration::from_secs(10);
/// The maximum delay before a failed sync is retried, unless the configured first delay is longer. Jitter is added to
/// this delay.
const RETRY_MAX: Duration = Duration::from_secs(300);
/// After a sync, a pause of this many times the duration of the sync must pass before the source is read again just for
/// due rows. Without the pause, the source might be read all the time, because rows may become due every second.
const REREAD_PAUSE_FACTOR: u32 = 9;

// === impl SyncScheduler ===

impl SyncScheduler {
    /// Creates a scheduler that has recorded no syncs, with random jitter.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let random = RandomState::new().build_hasher().finish();
        #[expect(clippy::cast_precision_loss, reason = "any number from 0 to 1 will do")]
        Self::with_jitter(random as f64 / u64::MAX as f64)
    }

    fn with_jitter(jitter: f64) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            jitter,
            views: Mutex::default(),
            changed: Condvar::new(),
            changed_due: Notify::new(),
            files: Mutex::default(),
            loads: LoadSlots::new(CONCURRENT_LOADS_MAX),
            scans: LoadSlots::new(CONCURRENT_SCANS_MAX),
            materialization_slots: LoadSlots::new(MATERIALIZATIONS_MAX),
            stop: watch::Sender::new(None),
        })
    }

    fn views(&self) -> MutexGuard<'_, HashMap<ViewId, ViewState>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no sync of the view is running, and returns the permit for the next one. Returns [`NoPermit::Busy`]
    /// if too many syncs are waiting, and [`NoPermit::Stopping`] as soon as the shutdown begins.
    pub(super) fn acquire(&self, view: ViewId) -> Result<SyncPermit<'_>, NoPermit> {
        let mut views = self.views();
        let state = views.entry(view).or_default();
        if state.is_running {
            if state.waiting >= WAITING_MAX {
                return Err(NoPermit::Busy);
            }
            state.waiting += 1;
            let waits = |views: &mut HashMap<ViewId, ViewState>| {
                !self.is_stopping() && views.get(&view).is_some_and(|state| state.is_running)
            };
            views = self.changed.wait_while(views, waits).unwrap_or_else(PoisonError::into_inner);
            views.entry(view).or_default().waiting -= 1;
        }
        if self.is_stopping() {
            return Err(NoPermit::Stopping);
        }
        views.entry(view).or_default().is_running = true;
        Ok(SyncPermit { scheduler: self, view, began: Instant::now() })
    }

    fn state_of(&self, view: ViewId) -> ViewState {
        self.views().get(&view).copied().unwrap_or_default()
    }

    /// Returns when a view is due; `None` while it is being synced, or if it has no schedule and the last sync did not
    /// fail.
    pub(super) fn due_at(&self, view: ViewId, schedule: Schedule, retry: Duration) -> Option<Instant> {
        let state = self.state_of(view);
        if state.is_running { None } else { state.next_sync_at(self.began, schedule, retry, self.jitter) }
    }

    /// Returns the time from which a source may be read again only for skipped rows that are due. Returns `None` while
    /// the view is being synced, and after a failure, because the retry has its own delay.
    pub(super) fn may_reread_at(&self, view: ViewId) -> Option<Instant> {
        let state = self.state_of(view);
        if state.is_running || state.failures > 0 {
            return None;
        }
        state.ended.map_or(Some(self.began), |ended| ended.checked_add(REREAD_PAUSE_FACTOR * state.took))
    }

    /// Waits until a sync of any view ends, regardless of its trigger, or a watched file changes. Returns immediately
    /// if this happened since the last call. Only one task at a time may wait.
    pub async fn changed(&self) {
        self.changed_due.notified().await;
    }

    /// Replaces the set of watched files, whose changes are reported by [`SyncScheduler::note_changed_files`]. If some
    /// of the files are new, all files are treated as changed.
    pub fn set_watched_files(&self, files: Vec<PathBuf>) {
        let files: HashSet<PathBuf> = files.into_iter().collect();
        let mut watched = self.files();
        let are_new = !files.is_subset(&watched.files);
        watched.files = files;
        drop(watched);
        if are_new {
            self.note_changed_files();
        }
    }

    /// Records that at least one watched file changed. The views with watched files are then due again by their
    /// `every`.
    pub fn note_changed_files(&self) {
        self.files().changed = Some(Instant::now());
        self.changed_due.notify_one();
    }

    /// Returns whether all of these files are watched, the view's last sync succeeded, and no watched file changed
    /// since that sync began. Returns false if there are no files.
    pub(super) fn are_unchanged(&self, view: ViewId, files: &[PathBuf]) -> bool {
        let state = self.state_of(view);
        let Some(began) = state.ended.and_then(|ended| ended.checked_sub(state.took)) else { return false };
        let watched = self.files();
        state.failures == 0
            && !files.is_empty()
            && files.iter().all(|file| watched.files.contains(file))
            && watched.changed.is_none_or(|changed| changed < began)
    }

    fn files(&self) -> MutexGuard<'_, WatchedFiles> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when a view's last sync ended, or when this scheduler was created if there was none.
    pub(super) fn last_end(&self, view: ViewId) -> Instant {
        self.state_of(view).ended.unwrap_or(self.began)
    }

    /// Prevents new syncs, and ends the wait for permits.
    pub fn stop(&self) {
        self.stop.send_if_modified(|stop| stop.is_none().then(|| *stop = Some(Instant::now())).is_some());
        // A thread checks under this lock whether the shutdown has begun before it waits. Taking the lock here ensures
        // that every such thread either sees the shutdown or is notified.
        drop(self.views());
        self.changed.notify_all();
    }

    /// Returns whether the shutdown has begun.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping_since().is_some()
    }

    /// Returns when the shutdown began; `None` if it has not begun.
    #[must_use]
    pub fn stopping_since(&self) -> Option<Instant> {
        *self.stop.borrow()
    }
}

// === impl SyncPermit ===

impl SyncPermit<'_> {
    /// Records whether the sync succeeded.
    pub(super) fn finish(self, succeeded: bool) {
        self.note(|failures| if succeeded { 0 } else { failures.saturating_add(1) });
    }

    /// Records a failure that an early retry would not fix. The retry is delayed as long as after many failures.
    pub(super) fn finish_rejected(self) {
        self.note(|_| u32::MAX);
    }

    fn note(&self, failures: impl FnOnce(u32) -> u32) {
        let now = Instant::now();
        let mut views = self.scheduler.views();
        let state = views.entry(self.view).or_default();
        (state.ended, state.took) = (Some(now), now.saturating_duration_since(self.began));
        state.failures = failures(state.failures);
    }
}

impl Drop for SyncPermit<'_> {
    fn drop(&mut self) {
        self.scheduler.views().entry(self.view).or_default().is_running = false;
        self.scheduler.changed.notify_all();
        self.scheduler.changed_due.notify_one();
    }
}

// === impl ViewState ===

impl ViewState {
    /// Returns when to sync the view next; `None` if it has no schedule and the last sync did not fail. `jitter` is
    /// from 0 to 1.
    fn next_sync_at(&self, began: Instant, schedule: Schedule, retry: Duration, jitter: f64) -> Option<Instant> {
        let jitter_delay = |wait: Duration| {
            if wait >= JITTER_INTERVAL_MIN {
                (wait.mul_f64(JITTER_FRACTION * jitter)).min(JITTER_MAX)
            } else {
                Duration::ZERO
            }
        };
        let last = self.ended.unwrap_or(began);
        if self.failures == 0 {
            return match schedule {
                Schedule::Never => None,
                Schedule::At(next) => next.checked_add(jitter_delay(JITTER_INTERVAL_MIN)),
                Schedule::Every(every) => last.checked_add(every + jitter_delay(every)),
                Schedule::Follow(interval) => last.checked_add(interval),
            };
        }
        let doubled = retry.saturating_mul(1 << (self.failures - 1).min(16));
        let wait = doubled.min(RETRY_MAX.max(retry));
        let wait = wait + jitter_delay(wait);
        match schedule {
            Schedule::Never => last.checked_add(wait),
            // A retry is never later than the next scheduled sync.
            Schedule::At(next) => last.checked_add(wait).map(|retry| retry.min(next)),
            Schedule::Every(every) => last.checked_add(wait.min(every)),
            Schedule::Follow(interval) => last.checked_add(wait.min(interval.max(FOLLOWED_RETRY_MAX))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    const RETRY: Duration = Duration::from_secs(5);
    const VIEW: ViewId = ViewId::from_number(0);

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// Waits until the clock returns a later time.
    fn tick() {
        let now = Instant::now();
        while now.elapsed().is_zero() {
            std::hint::spin_loop();
        }
    }

    impl SyncScheduler {
        fn is_due(&self, view: ViewId, schedule: Schedule, retry: Duration, now: Instant) -> bool {
            self.due_at(view, schedule, retry).is_some_and(|at| at <= now)
        }

        fn may_reread(&self, view: ViewId, now: Instant) -> bool {
            self.may_reread_at(view).is_some_and(|at| at <= now)
        }
    }

    /// Returns after how many seconds from `since` the view is due; `None` if it is not due within two hours.
    fn due_after(scheduler: &SyncScheduler, schedule: Schedule, since: Instant) -> Option<u64> {
        (0..=7_200).find(|&n| scheduler.is_due(VIEW, schedule, RETRY, since + seconds(n)))
    }

    fn every(n: u64) -> Schedule {
        Schedule::Every(seconds(n))
    }

    /// Records how and when the last sync ended.
    fn end(scheduler: &SyncScheduler, failures: u32, ended: Instant) {
        scheduler.views().insert(VIEW, ViewState { ended: Some(ended), failures, ..ViewState::default() });
    }

    #[test]
    fn view_is_due_after_its_interval() {
        let scheduler = SyncScheduler::with_jitter(0.0);
        assert_eq!(
            due_after(&scheduler, every(60), scheduler.began),
            Some(60),
            "counted from the start if it was never synced"
        );
        let now = scheduler.began + seconds(100);
        end(&scheduler, 0, now);
        assert_eq!(due_after(&scheduler, every(60), now), Some(60));
    }

    #[test]
    fn unscheduled_view_is_due_after_failure() {
        let scheduler = SyncScheduler::new();
        assert_eq!(due_after(&scheduler, Schedule::Never, scheduler.began), None);
        end(&scheduler, 1, scheduler.began);
        assert_eq!(due_after(&scheduler, Schedule::Never, scheduler.began), Some(5));
        end(&scheduler, 0, scheduler.began);
        assert_eq!(due_after(&scheduler, Schedule::Never, scheduler.began), None);
    }

    #[test]
    fn retries_double_up_to_five_minutes() {
        let scheduler = SyncScheduler::with_jitter(0.0);
        let waits: Vec<u64> = (1..=9)
            .map(|failures| {
                end(&scheduler, failures, scheduler.began);
                due_after(&scheduler, Schedule::Never, scheduler.began).unwrap()
            })
            .collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(due_after(&scheduler, every(3_600), scheduler.began), Some(300));
    }

    #[test]
    fn retry_is_never_later_than_every() {
        for jitter in [0.0, 1.0] {
            let scheduler = SyncScheduler::with_jitter(jitter);
            for failures in [1, 2, 5, 9, u32::MAX] {
                end(&scheduler, failures, scheduler.began);
                for n in [1, 2, 7, 30, 65, 200, 301] {
                    let due = due_after(&scheduler, every(n), scheduler.began).unwrap();
                    assert!(due <= n, "{failures} failures, every {n} s: after {due} s, jitter {jitter}");
                }
                let next = Schedule::At(scheduler.began + seconds(7));
                assert!(due_after(&scheduler, next, scheduler.began).unwrap() <= 7, "{failures} failures, by cron");
                let followed = due_after(&scheduler, Schedule::Follow(seconds(1)), scheduler.began).unwrap();
                assert!(followed <= 10, "{failures} failures: after {followed} s");
            }
        }
        // A retry is never later than the interval, even if the first retry delay is longer than the interval.
        let scheduler = SyncScheduler::with_jitter(0.0);
        end(&scheduler, 1, scheduler.began);
        assert!(scheduler.is_due(VIEW, every(30), seconds(600), scheduler.began + seconds(30)));
    }

    #[test]
    fn rejected_source_is_retried_late() {
        let scheduler = SyncScheduler::with_jitter(0.0);
        scheduler.acquire(VIEW).unwrap().finish_rejected();
        let ended = scheduler.last_end(VIEW);
        assert_eq!(due_after(&scheduler, Schedule::Never, ended), Some(300));
        scheduler.acquire(VIEW).unwrap().finish(false);
        assert_eq!(due_after(&scheduler, Schedule::Never, scheduler.last_end(VIEW)), Some(300));
        scheduler.acquire(VIEW).unwrap().finish(true);
        assert_eq!(due_after(&scheduler, Schedule::Never, scheduler.last_end(VIEW)), None);
        scheduler.acquire(VIEW).unwrap().finish(false);
        assert_eq!(due_after(&scheduler, Schedule::Never, scheduler.last_end(VIEW)), Some(5));
    }

    #[test]
    fn rare_syncs_are_spread_by_jitter() {
        let late = |jitter| due_after(&SyncScheduler::with_jitter(jitter), every(3_600), Instant::now());
        assert_eq!(late(0.0), Some(3_600));
        assert!(late(0.5).is_some_and(|at| (3_775..=3_785).contains(&at)), "{:?}", late(0.5));
        assert!(late(1.0).is_some_and(|at| (3_895..=3_905).contains(&at)), "never by more than five minutes");
        assert_eq!(due_after(&SyncScheduler::with_jitter(1.0), every(5), Instant::now()), Some(5));
    }

    #[test]
    fn cron_view_is_due_at_its_time() {
        let scheduler = SyncScheduler::with_jitter(0.0);
        let at = scheduler.began + seconds(1_000);
        let due = |scheduler: &SyncScheduler, n| {
            scheduler.is_due(VIEW, Schedule::At(at), RETRY, scheduler.began + seconds(n))
        };
        assert!(!due(&scheduler, 999) && due(&scheduler, 1_000));
        end(&scheduler, 1, scheduler.began);
        assert!(due(&scheduler, 5));
    }

    #[test]
    fn syncing_view_is_not_due() {
        let scheduler = SyncScheduler::new();
        let running = scheduler.acquire(VIEW).unwrap();
        let later = scheduler.began + seconds(10);
        assert!(!scheduler.is_due(VIEW, every(1), RETRY, later) && !scheduler.may_reread(VIEW, later));
        drop(running);
        assert!(scheduler.is_due(VIEW, every(1), RETRY, later) && scheduler.may_reread(VIEW, later));
    }

    #[test]
    fn watched_files_stay_changed_until_read() {
        let scheduler = SyncScheduler::new();
        let file = |name: &str| vec![PathBuf::from(name)];
        scheduler.set_watched_files(file("a"));
        assert!(!scheduler.are_unchanged(VIEW, &file("a")), "never read");
        let sync = || {
            tick();
            scheduler.acquire(VIEW).unwrap().finish(true);
        };
        sync();
        assert!(scheduler.are_unchanged(VIEW, &file("a")));
        assert!(!scheduler.are_unchanged(VIEW, &file("b")) && !scheduler.are_unchanged(VIEW, &[]), "not watched");
        scheduler.acquire(VIEW).unwrap().finish(false);
        assert!(!scheduler.are_unchanged(VIEW, &file("a")), "a failure is not delayed beyond `every`");
        sync();
        scheduler.note_changed_files();
        assert!(!scheduler.are_unchanged(VIEW, &file("a")));
        sync();
        assert!(scheduler.are_unchanged(VIEW, &file("a")));
        scheduler.set_watched_files([file("a"), file("b")].concat());
        assert!(!scheduler.are_unchanged(VIEW, &file("a")), "a newly watched file counts as changed");
        let permit = scheduler.acquire(VIEW).unwrap();
        tick();
        scheduler.note_changed_files();
        permit.finish(true);
        assert!(!scheduler.are_unchanged(VIEW, &file("a")), "changed during the sync");
    }

    #[test]
    fn due_rows_wait_nine_times_duration() {
        let scheduler = SyncScheduler::new();
        let ended = scheduler.began;
        scheduler.views().insert(VIEW, ViewState { ended: Some(ended), took: seconds(10), ..ViewState::default() });
        assert!(!scheduler.may_reread(VIEW, ended + seconds(89)));
        assert!(scheduler.may_reread(VIEW, ended + seconds(90)));
        end(&scheduler, 1, ended);
        assert!(!scheduler.may_reread(VIEW, ended + seconds(900)), "a failure has its own delays");
    }

    #[test]
    fn waiting_syncs_are_limited_until_shutdown() {
        let scheduler = SyncScheduler::new();
        let running = scheduler.acquire(VIEW).unwrap();
        let (sender, ended) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..WAITING_MAX {
                let (scheduler, sender) = (&scheduler, sender.clone());
                scope.spawn(move || sender.send(scheduler.acquire(VIEW).map(|_| ())).unwrap());
            }
            while scheduler.state_of(VIEW).waiting < WAITING_MAX {
                thread::yield_now();
            }
            assert_eq!(scheduler.acquire(VIEW).map(|_| ()), Err(NoPermit::Busy));
            scheduler.stop();
            for _ in 0..WAITING_MAX {
                assert_eq!(ended.recv(), Ok(Err(NoPermit::Stopping)), "although one is still running");
            }
        });
        drop(running);
        assert_eq!(scheduler.acquire(VIEW).map(|_| ()), Err(NoPermit::Stopping));
    }
}
