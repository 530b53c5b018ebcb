//! Time, injected: what is fresh and what is stale is decided by a clock that tests can turn.

use std::{
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use larder_model::model::Micros;

/// Something that knows what time it is.
pub trait Clock: Send + Sync + Debug {
    /// Microseconds since the Unix epoch, UTC.
    fn now(&self) -> Micros;
}

/// A clock that everyone holds.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// A clock that stands still until it is turned, for tests.
#[derive(Debug)]
pub struct ManualClock {
    now: AtomicI64,
}

// === impl SystemClock ===

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the machine")]
    fn now(&self) -> Micros {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX),
            Err(before) => -Micros::try_from(before.duration().as_micros()).unwrap_or(Micros::MAX),
        }
    }
}

// === impl ManualClock ===

impl ManualClock {
    /// A clock that shows this time.
    #[must_use]
    pub fn at(now: Micros) -> Arc<Self> {
        Arc::new(Self { now: AtomicI64::new(now) })
    }

    /// Turns the clock to this time.
    pub fn set(&self, now: Micros) {
        self.now.store(now, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Micros {
        self.now.load(Ordering::Relaxed)
    }
}
