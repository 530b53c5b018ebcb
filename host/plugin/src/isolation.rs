//! Admits batches that failed to isolation threads, one at a time for each plugin and view.
//!
//! A request moves to an isolation thread if a call on a compute thread traps, exceeds a limit or returns an invalid
//! result, or if more than a few calls return an error. After a batch with failed calls, the next
//! batch of the same plugin and view is not admitted until the failed calls took only one part in [`SHARE`] of the
//! elapsed time.
//!
//! No call is rejected because other calls failed. But a batch that is not admitted within [`WAIT_MAX`] is computed
//! without a search for the rows that fail, so a row that could be computed alone fails together with its call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

/// Admits batches of a plugin and a view to isolation threads.
#[derive(Debug)]
pub struct Isolation {
    /// Has one permit.
    permit: Arc<Semaphore>,
    /// Has one permit for batches that waited too long for the other one.
    late_permit: Arc<Semaphore>,
    /// The CPU time of failed calls since the last batch was admitted, in nanoseconds.
    failed_nanos: Arc<AtomicU64>,
}

/// The permission to run a batch on an isolation thread. Drop it when the batch is done.
#[derive(Debug)]
pub struct IsolationPermit {
    permit: Option<OwnedSemaphorePermit>,
    failed_nanos: Arc<AtomicU64>,
    runtime: Handle,
}

/// Failed calls of a plugin and a view take at most one in this many parts of a core.
const SHARE: u32 = 4;
/// The maximum time for which a batch waits.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// The maximum additional time for which a batch that was not admitted waits.
const LATE_WAIT_MAX: Duration = Duration::from_secs(30);

// === impl Isolation ===

impl Isolation {
    pub(super) fn new() -> Self {
        Self { permit: one(), late_permit: one(), failed_nanos: Arc::default() }
    }

    /// Waits until a batch may run on an isolation thread. Returns `None` if this takes more than two seconds.
    pub async fn enter(&self) -> Option<IsolationPermit> {
        let permit = timeout(WAIT_MAX, Arc::clone(&self.permit).acquire_owned()).await.ok()?.ok()?;
        let failed_nanos = Arc::clone(&self.failed_nanos);
        Some(IsolationPermit { permit: Some(permit), failed_nanos, runtime: Handle::current() })
    }

    /// Waits until a batch that was not admitted may run without a search for the rows that fail. Such batches run one at a
    /// time, so that they do not keep the isolation threads from other plugins. Returns `None` if this takes more than 30
    /// seconds.
    pub async fn enter_late(&self) -> Option<OwnedSemaphorePermit> {
        timeout(LATE_WAIT_MAX, Arc::clone(&self.late_permit).acquire_owned()).await.ok()?.ok()
    }

    /// Records the CPU time of a failed call.
    pub(super) fn failed(&self, cpu: Duration) {
        if cpu.is_zero() {
            return;
        }
        let nanos = u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX);
        self.failed_nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

fn one() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(1))
}

// === impl IsolationPermit ===

impl Drop for IsolationPermit {
    fn drop(&mut self) {
        let failed = Duration::from_nanos(self.failed_nanos.swap(0, Ordering::Relaxed));
        let permit = self.permit.take();
        if !failed.is_zero() {
            self.runtime.spawn(async move {
                sleep(failed * (SHARE - 1)).await;
                drop(permit);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_batch_at_a_time() {
        let isolation = Isolation::new();
        let first = isolation.enter().await.unwrap();
        let started = Instant::now();
        assert!(isolation.enter().await.is_none(), "the first one is not done");
        assert_eq!(started.elapsed(), WAIT_MAX);
        let late = isolation.enter_late().await.unwrap();
        assert!(isolation.enter_late().await.is_none(), "the late one is not done");
        assert_eq!(started.elapsed(), WAIT_MAX + LATE_WAIT_MAX);
        drop(late);
        assert!(isolation.enter_late().await.is_some());
        drop(first);
        assert!(isolation.enter().await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn failed_calls_delay_the_next_batch() {
        let isolation = Isolation::new();
        let cost = Duration::from_millis(100);
        isolation.failed(cost);
        let started = Instant::now();
        drop(isolation.enter().await.unwrap());
        assert_eq!(started.elapsed(), Duration::ZERO, "the first batch");
        drop(isolation.enter().await.unwrap());
        assert_eq!(started.elapsed(), cost * (SHARE - 1));
        drop(isolation.enter().await.unwrap());
        assert_eq!(started.elapsed(), cost * (SHARE - 1), "no further failure");
    }

    #[tokio::test(start_paused = true)]
    async fn permit_may_be_dropped_on_any_thread() {
        let isolation = Isolation::new();
        let permit = isolation.enter().await.unwrap();
        isolation.failed(Duration::from_millis(1));
        std::thread::spawn(move || drop(permit)).join().unwrap();
        assert!(isolation.enter().await.is_some());
    }
}
