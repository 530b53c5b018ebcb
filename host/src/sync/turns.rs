//! Whose turn it is: at most one sync of a view at a time, the next one after `every`, and sooner after a failure.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        Arc, Mutex, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::store::ViewId;

/// What all engines of a host share, for it outlives every catalog: each view's turn, so that two engines never write
/// one view at once, and whether the host stops.
#[derive(Debug)]
pub struct Turns {
    began: Instant,
    /// By this much of its `every` a view is late, so that hundreds of hosts do not ask at one moment: from 0 to 1,
    /// another in each process.
    jitter: f64,
    by_view: Mutex<HashMap<ViewId, Arc<Mutex<Turn>>>>,
    stopping: AtomicBool,
}

/// A view's last sync. Locked while one runs.
#[derive(Debug, Default)]
pub(super) struct Turn {
    ended: Option<Instant>,
    /// Failures since the last success.
    failures: u32,
}

/// When a view is synced by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Schedule {
    /// Never, but after a failure.
    #[default]
    Never,
    /// So long after the last end.
    Every(Duration),
    /// At this moment.
    At(Instant),
}

/// The most that jitter adds, as a part of `every`, and at all.
const JITTER_PART: f64 = 0.1;
const JITTER_MAX: Duration = Duration::from_secs(300);
/// Views that are synced more often than this are not late: their hosts part ways by themselves.
const JITTER_FROM: Duration = Duration::from_secs(60);
/// Of a view that is followed a failed sync is tried again after so long at the latest.
const FOLLOWED_RETRY_MAX: Duration = Duration::from_secs(10);

/// After so long a failed sync is tried again at the latest, unless its view has a longer `every`.
const RETRY_MAX: Duration = Duration::from_secs(300);

// === impl Turns ===

impl Turns {
    /// Nothing was synced yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let random = RandomState::new().build_hasher().finish();
        #[expect(clippy::cast_precision_loss, reason = "any number from 0 to 1 will do")]
        Self::with_jitter(random as f64 / u64::MAX as f64)
    }

    fn with_jitter(jitter: f64) -> Arc<Self> {
        let (by_view, stopping) = (Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { began: Instant::now(), jitter, by_view, stopping })
    }

    pub(super) fn of(&self, view: ViewId) -> Arc<Mutex<Turn>> {
        let mut by_view = self.by_view.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(by_view.entry(view).or_default())
    }

    /// Whether a view is to be synced by now. One that is being synced is not.
    pub(super) fn is_due(&self, view: ViewId, schedule: Schedule, retry: Duration, now: Instant) -> bool {
        let turn = self.of(view);
        let next = match turn.try_lock() {
            Ok(turn) => turn.next(self.began, schedule, retry),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner().next(self.began, schedule, retry),
        };
        next.is_some_and(|next| next + self.late_by(schedule) <= now)
    }

    /// When a view's last sync ended, or the host began.
    pub(super) fn last(&self, view: ViewId) -> Instant {
        let turn = self.of(view);
        turn.try_lock().ok().and_then(|turn| turn.ended).unwrap_or(self.began)
    }

    fn late_by(&self, schedule: Schedule) -> Duration {
        match schedule {
            Schedule::Every(every) if every >= JITTER_FROM => every.mul_f64(JITTER_PART * self.jitter).min(JITTER_MAX),
            Schedule::At(_) => JITTER_FROM.mul_f64(JITTER_PART * self.jitter),
            Schedule::Every(_) | Schedule::Never => Duration::ZERO,
        }
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

// === impl Turn ===

impl Turn {
    pub(super) fn ended(&mut self, well: bool, now: Instant) {
        self.ended = Some(now);
        self.failures = if well { 0 } else { self.failures.saturating_add(1) };
    }

    /// Failed in a way that a try soon after would, too: as after many failures.
    pub(super) fn was_refused(&mut self, now: Instant) {
        self.ended = Some(now);
        self.failures = u32::MAX;
    }

    /// When to sync next; never, if the view has no schedule and nothing went wrong.
    fn next(&self, began: Instant, schedule: Schedule, retry: Duration) -> Option<Instant> {
        let wait = match (self.failures, schedule) {
            (0, Schedule::Never) => return None,
            (0, Schedule::At(next)) => return Some(next),
            (0, Schedule::Every(every)) => every,
            (n, schedule) => {
                let doubled = retry.saturating_mul(1 << (n - 1).min(16));
                let every = match schedule {
                    Schedule::Every(every) => every.max(FOLLOWED_RETRY_MAX),
                    Schedule::At(_) | Schedule::Never => RETRY_MAX,
                };
                doubled.min(every).min(RETRY_MAX.max(retry))
            }
        };
        self.ended.unwrap_or(began).checked_add(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Duration = Duration::from_secs(5);
    const VIEW: ViewId = ViewId::FOR_TESTS;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// The first second, from the last end or the beginning on, in which the view is due.
    fn due_after(turns: &Turns, every: Option<Duration>, since: Instant) -> Option<u64> {
        let schedule = every.map_or(Schedule::Never, Schedule::Every);
        (0..=7_200).find(|&n| turns.is_due(VIEW, schedule, RETRY, since + seconds(n)))
    }

    fn end(turns: &Turns, well: bool, now: Instant) {
        turns.of(VIEW).lock().unwrap().ended(well, now);
    }

    #[test]
    fn a_view_with_every_is_due_so_long_after_the_last_end() {
        let turns = Turns::with_jitter(0.0);
        assert_eq!(due_after(&turns, Some(seconds(60)), turns.began), Some(60), "or after the beginning");
        let now = turns.began + seconds(100);
        end(&turns, true, now);
        assert_eq!(due_after(&turns, Some(seconds(60)), now), Some(60));
    }

    #[test]
    fn a_view_without_every_is_due_only_after_a_failure() {
        let turns = Turns::new();
        assert_eq!(due_after(&turns, None, turns.began), None);
        end(&turns, false, turns.began);
        assert_eq!(due_after(&turns, None, turns.began), Some(5));
        end(&turns, true, turns.began);
        assert_eq!(due_after(&turns, None, turns.began), None);
    }

    #[test]
    fn a_sync_that_keeps_failing_is_tried_ever_less_often_up_to_a_bound() {
        let turns = Turns::with_jitter(0.0);
        let mut waits = Vec::new();
        for _ in 0..9 {
            end(&turns, false, turns.began);
            waits.push(due_after(&turns, None, turns.began).unwrap());
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(due_after(&turns, Some(seconds(30)), turns.began), Some(30), "never later than every");
        assert_eq!(due_after(&turns, Some(seconds(3_600)), turns.began), Some(300));
    }

    #[test]
    fn a_source_that_was_refused_is_not_read_again_soon() {
        let turns = Turns::with_jitter(0.0);
        let refused = || turns.of(VIEW).lock().unwrap().was_refused(turns.began);
        refused();
        assert_eq!(due_after(&turns, None, turns.began), Some(300));
        assert_eq!(due_after(&turns, Some(seconds(30)), turns.began), Some(30), "never later than every");
        end(&turns, false, turns.began);
        assert_eq!(due_after(&turns, None, turns.began), Some(300));
        end(&turns, true, turns.began);
        assert_eq!(due_after(&turns, None, turns.began), None);
        end(&turns, false, turns.began);
        assert_eq!(due_after(&turns, None, turns.began), Some(5));
    }

    #[test]
    fn hosts_that_sync_seldom_do_not_do_it_at_one_moment() {
        let late = |jitter| due_after(&Turns::with_jitter(jitter), Some(seconds(3_600)), Instant::now());
        assert_eq!(late(0.0), Some(3_600));
        assert!(late(0.5).is_some_and(|at| (3_775..=3_785).contains(&at)), "{:?}", late(0.5));
        assert!(late(1.0).is_some_and(|at| (3_895..=3_905).contains(&at)), "never by more than five minutes");
        assert_eq!(due_after(&Turns::with_jitter(1.0), Some(seconds(5)), Instant::now()), Some(5));
    }

    #[test]
    fn a_view_with_a_time_is_due_then_and_sooner_after_a_failure() {
        let turns = Turns::with_jitter(0.0);
        let at = turns.began + seconds(1_000);
        let due = |turns: &Turns, n| turns.is_due(VIEW, Schedule::At(at), RETRY, turns.began + seconds(n));
        assert!(!due(&turns, 999) && due(&turns, 1_000));
        end(&turns, false, turns.began);
        assert!(due(&turns, 5));
    }

    #[test]
    fn a_view_that_is_being_synced_is_not_due() {
        let turns = Turns::new();
        let turn = turns.of(VIEW);
        let running = turn.lock().unwrap();
        let schedule = Schedule::Every(seconds(1));
        assert!(!turns.is_due(VIEW, schedule, RETRY, turns.began + seconds(10)));
        drop(running);
        assert!(turns.is_due(VIEW, schedule, RETRY, turns.began + seconds(10)));
    }
}
