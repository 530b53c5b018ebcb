//! Reloads of definitions that may have changed since they were read.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use larder_common::clock::SharedClock;
use larder_model::model::Micros;
use tokio::task::spawn_blocking;

/// Reloads changed definitions for a request that asks for the current ones.
pub trait RenewDefinitions: fmt::Debug + Send + Sync {
    /// Reads changed definitions, unless both the caller and the configuration allow cached ones. Returns whether the
    /// served definitions changed. Blocks: it may read files and objects in S3.
    fn renew(&self, caller_allows_cache: bool) -> bool;

    /// Returns whether requests get the current definitions by default.
    fn is_always_wanted(&self) -> bool;
}

/// Reloads changed definitions before a name is reported as unknown, because it may just have been applied.
#[derive(Debug)]
pub(super) struct Renewal {
    definitions: Arc<dyn RenewDefinitions>,
    clock: SharedClock,
    /// The time of the last reload.
    last: AtomicI64,
}

/// The minimum interval of reloads, in microseconds, unless requests get the current definitions by default. A caller
/// of unknown names must not slow down other callers.
const RENEWAL_EVERY: Micros = 100_000;

// === impl Renewal ===

impl Renewal {
    pub(super) fn new(definitions: Arc<dyn RenewDefinitions>, clock: SharedClock) -> Self {
        Self { definitions, clock, last: AtomicI64::new(Micros::MIN) }
    }

    /// Returns whether an unknown name is a reason for a reload now.
    pub(super) fn is_due(&self) -> bool {
        self.definitions.is_always_wanted() || Self::is_after(self.clock.now(), self.last.load(Ordering::Relaxed))
    }

    fn is_after(now: Micros, last: Micros) -> bool {
        now.saturating_sub(last) >= RENEWAL_EVERY || now < last
    }

    /// Reloads definitions if they changed, unless that was done within [`RENEWAL_EVERY`].
    pub(super) async fn renew(&self) {
        if !self.definitions.is_always_wanted() {
            let (now, last) = (self.clock.now(), self.last.load(Ordering::Relaxed));
            let is_first = || self.last.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
            if !Self::is_after(now, last) || !is_first() {
                return;
            }
        }
        let definitions = Arc::clone(&self.definitions);
        // A panic there is already logged.
        let _ = spawn_blocking(move || definitions.renew(false)).await;
    }
}
