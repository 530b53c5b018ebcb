//! Whose turn it is: at most one sync of a view at a time, the next one after `every`, and sooner after a failure.

use std::{
    collections::HashMap,
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

/// After so long a failed sync is tried again at the latest, unless its view has a longer `every`.
const RETRY_MAX: Duration = Duration::from_secs(300);

// === impl Turns ===

impl Turns {
    /// Nothing was synced yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), by_view: Mutex::default(), stopping: AtomicBool::new(false) })
    }

    pub(super) fn of(&self, view: ViewId) -> Arc<Mutex<Turn>> {
        let mut by_view = self.by_view.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(by_view.entry(view).or_default())
    }

    /// Whether a view is to be synced by now. One that is being synced is not.
    pub(super) fn is_due(&self, view: ViewId, every: Option<Duration>, retry: Duration, now: Instant) -> bool {
        match self.of(view).try_lock() {
            Ok(turn) => turn.next(self.began, every, retry).is_some_and(|next| next <= now),
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Poisoned(turn)) => {
                turn.into_inner().next(self.began, every, retry).is_some_and(|next| next <= now)
            }
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

    /// When to sync next; never, if the view has no `every` and nothing went wrong.
    fn next(&self, began: Instant, every: Option<Duration>, retry: Duration) -> Option<Instant> {
        let wait = match self.failures {
            0 => every?,
            n => {
                let doubled = retry.saturating_mul(1 << (n - 1).min(16));
                doubled.min(every.unwrap_or(RETRY_MAX)).min(RETRY_MAX.max(retry))
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
        (0..=7_200).find(|&n| turns.is_due(VIEW, every, RETRY, since + seconds(n)))
    }

    fn end(turns: &Turns, well: bool, now: Instant) {
        turns.of(VIEW).lock().unwrap().ended(well, now);
    }

    #[test]
    fn a_view_with_every_is_due_so_long_after_the_last_end() {
        let turns = Turns::new();
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
        let turns = Turns::new();
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
    fn a_view_that_is_being_synced_is_not_due() {
        let turns = Turns::new();
        let turn = turns.of(VIEW);
        let running = turn.lock().unwrap();
        assert!(!turns.is_due(VIEW, Some(seconds(1)), RETRY, turns.began + seconds(10)));
        drop(running);
        assert!(turns.is_due(VIEW, Some(seconds(1)), RETRY, turns.began + seconds(10)));
    }
}
