//! Reloads definitions that may have changed since they were read.

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

/// Reloads changed definitions when a request needs the current ones.
pub trait RenewDefinitions: fmt::Debug + Send + Sync {
    /// Reloads the definitions if they changed and one of these conditions is met:
    ///
    /// * The configuration forbids cached definitions.
    /// * `caller_allows_cache` is false, and `reload: every` does not turn reloads off.
    ///
    /// Returns whether the served definitions changed. Blocks, because it may read files and objects in S3.
    fn renew(&self, caller_allows_cache: bool) -> bool;

    /// Returns whether the configuration forbids cached definitions. If so, each write, and each lookup of an unknown
    /// name, first reloads changed definitions.
    fn forbids_cached(&self) -> bool;
}

/// Reloads changed definitions before a name is reported as unknown: its definition may just have been added.
#[derive(Debug)]
pub(super) struct Renewal {
    definitions: Arc<dyn RenewDefinitions>,
    clock: SharedClock,
    /// The time of the last reload for an unknown name, in microseconds.
    last: AtomicI64,
}

/// The minimum interval between reloads for unknown names, in microseconds, so that a client that requests unknown
/// names does not slow down other clients. It does not apply if the configuration forbids cached definitions.
const RENEWAL_INTERVAL: Micros = 100_000;

// === impl Renewal ===

impl Renewal {
    pub(super) fn new(definitions: Arc<dyn RenewDefinitions>, clock: SharedClock) -> Self {
        Self { definitions, clock, last: AtomicI64::new(Micros::MIN) }
    }

    /// Returns whether a request for an unknown name may cause a reload now.
    pub(super) fn is_due(&self) -> bool {
        self.definitions.forbids_cached()
            || Self::has_interval_passed(self.clock.now(), self.last.load(Ordering::Relaxed))
    }

    fn has_interval_passed(now: Micros, last: Micros) -> bool {
        now.saturating_sub(last) >= RENEWAL_INTERVAL || now < last
    }

    /// Reloads definitions if they changed. Does nothing within [`RENEWAL_INTERVAL`] of the last reload, unless the
    /// configuration forbids cached definitions.
    pub(super) async fn renew(&self) {
        if !self.definitions.forbids_cached() {
            let (now, last) = (self.clock.now(), self.last.load(Ordering::Relaxed));
            let is_first = || self.last.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
            if !Self::has_interval_passed(now, last) || !is_first() {
                return;
            }
        }
        let definitions = Arc::clone(&self.definitions);
        // The result is not needed: if the reload panics, the panic hook logs that.
        let _ = spawn_blocking(move || definitions.renew(false)).await;
    }
}
