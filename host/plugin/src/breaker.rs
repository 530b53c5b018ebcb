//! A circuit breaker. It stops the calls to a plugin that keeps failing, and resumes them after a pause.
//!
//! ```text
//! closed ── within 5 s, at least 20 calls, and at least half of them failed ──► open: no calls for 1 s
//!   ▲                                                                             │ the pause is over
//!   └──── the trial call succeeds ◄── half-open: one trial call ◄─────────────────┘
//!                                       └── the trial call fails ──► open: the pause doubles, up to 60 s
//! ```

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The state of a circuit breaker, which decides whether the plugin may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Allows all calls.
    Closed,
    /// Allows one trial call, whose result decides the next state.
    HalfOpen,
    /// Allows no calls.
    Open,
}

/// A circuit breaker. Callers pass the current time, so tests do not have to wait.
#[derive(Debug)]
pub(super) struct Breaker {
    /// A copy of the state in `inner`, readable without a lock.
    state: AtomicU8,
    /// The number of successful calls in the current window. This is an atomic, because successes are frequent.
    /// Failures are rare, and are counted under the lock.
    successes: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: BreakerState,
    failures: u64,
    /// The start of the current counting window.
    window: Instant,
    /// When the next trial call is allowed, if the breaker is not closed.
    until: Instant,
    /// The duration of the next pause.
    next: Duration,
}

const WINDOW: Duration = Duration::from_secs(5);
const CALLS_MIN: u64 = 20;
const OPEN_MIN: Duration = Duration::from_secs(1);
const OPEN_MAX: Duration = Duration::from_mins(1);

// === impl Breaker ===

impl Breaker {
    pub(super) fn new(now: Instant) -> Self {
        let inner = Inner { state: BreakerState::Closed, failures: 0, window: now, until: now, next: OPEN_MIN };
        Self {
            state: AtomicU8::new(BreakerState::Closed.code()),
            successes: AtomicU64::new(0),
            inner: Mutex::new(inner),
        }
    }

    /// Returns whether a call may be made now.
    pub(super) fn admits(&self, now: Instant) -> bool {
        if self.state.load(Ordering::Relaxed) == BreakerState::Closed.code() {
            return true;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match inner.state {
            BreakerState::Closed => true,
            // If the breaker is half-open, a trial call is running. If that call has not returned by `until`, another
            // trial call is allowed.
            BreakerState::HalfOpen | BreakerState::Open if now < inner.until => false,
            BreakerState::HalfOpen | BreakerState::Open => {
                inner.until = now + inner.next;
                self.set(&mut inner, BreakerState::HalfOpen);
                true
            }
        }
    }

    /// Records a successful call. Returns whether that changed the state.
    pub(super) fn succeeded(&self) -> bool {
        if self.state.load(Ordering::Relaxed) == BreakerState::Closed.code() {
            self.successes.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.state != BreakerState::HalfOpen {
            // The call began before the breaker opened.
            return false;
        }
        (inner.failures, inner.next) = (0, OPEN_MIN);
        self.successes.store(0, Ordering::Relaxed);
        self.set(&mut inner, BreakerState::Closed);
        true
    }

    /// Records a failed call. Returns whether that changed the state.
    pub(super) fn failed(&self, now: Instant) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match inner.state {
            BreakerState::Open => return false,
            BreakerState::HalfOpen => {}
            BreakerState::Closed => {
                if now.saturating_duration_since(inner.window) > WINDOW {
                    (inner.window, inner.failures) = (now, 0);
                    self.successes.store(0, Ordering::Relaxed);
                }
                inner.failures += 1;
                let calls = inner.failures + self.successes.load(Ordering::Relaxed);
                if calls < CALLS_MIN || inner.failures * 2 < calls {
                    return false;
                }
            }
        }
        inner.until = now + inner.next;
        inner.next = (inner.next * 2).min(OPEN_MAX);
        self.set(&mut inner, BreakerState::Open);
        true
    }

    pub(super) fn state(&self) -> BreakerState {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).state
    }

    fn set(&self, inner: &mut Inner, state: BreakerState) {
        inner.state = state;
        self.state.store(state.code(), Ordering::Relaxed);
    }
}

// === impl BreakerState ===

impl BreakerState {
    /// Returns the value of the metric: 0 closed, 1 half-open, 2 open.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(breaker: &Breaker, times: u64, now: Instant) {
        (0..times).for_each(|_| _ = breaker.failed(now));
    }

    fn succeed(breaker: &Breaker, times: u64) {
        (0..times).for_each(|_| _ = breaker.succeeded());
    }

    #[test]
    fn half_of_calls_failing_opens_it() {
        let now = Instant::now();
        let breaker = Breaker::new(now);
        succeed(&breaker, 11);
        fail(&breaker, 10, now);
        assert!(breaker.admits(now));
        fail(&breaker, 1, now);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(!breaker.admits(now));
    }

    #[test]
    fn too_few_calls_say_nothing() {
        let now = Instant::now();
        let breaker = Breaker::new(now);
        fail(&breaker, CALLS_MIN - 1, now);
        assert!(breaker.admits(now));
        fail(&breaker, 1, now);
        assert!(!breaker.admits(now));
    }

    #[test]
    fn rare_failures_do_not_open_it() {
        let now = Instant::now();
        let breaker = Breaker::new(now);
        for i in 0..100 {
            fail(&breaker, 1, now + WINDOW * 2 * i);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn after_a_while_one_call_decides() {
        let now = Instant::now();
        let breaker = Breaker::new(now);
        fail(&breaker, CALLS_MIN, now);
        let later = now + OPEN_MIN;
        assert!(breaker.admits(later), "the trial call");
        assert!(!breaker.admits(later), "no second call");
        assert!(breaker.succeeded());
        assert!(breaker.admits(later) && breaker.admits(later));
        // The breaker opens again only after the usual number of failures.
        fail(&breaker, CALLS_MIN - 1, later + WINDOW * 2);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn trial_failures_double_the_pause() {
        let mut now = Instant::now();
        let breaker = Breaker::new(now);
        fail(&breaker, CALLS_MIN, now);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert!(!breaker.admits(now + Duration::from_secs(seconds) - Duration::from_millis(1)), "{seconds}");
            now += Duration::from_secs(seconds);
            assert!(breaker.admits(now), "{seconds}");
            fail(&breaker, 1, now);
        }
    }
}
