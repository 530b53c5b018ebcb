//! The memory budget of request and response bodies in flight.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use metrics::{Counter, counter, describe_counter};
use tokio::sync::Notify;

/// HTTP bodies of up to this many bytes need no lease. The memory bound in `docs/src/guides/tune.md` includes them in
/// the memory of each open connection.
pub const SMALL_BYTES: usize = 16 << 10;

/// A lease of at least this many bytes is large.
const LARGE_BYTES: usize = 256 << 10;

/// A large lease for a request is granted only if all leases together then hold at most this percentage of the budget.
/// The rest is for smaller leases, and for the metrics and admin listeners.
const LARGE_PERCENT: usize = 75;
/// A lease for a request is granted only if all leases together then hold at most this percentage of the budget. The
/// rest is for the metrics and admin listeners.
const REQUESTS_PERCENT: usize = 90;

/// Leases grow in steps of this size, so that a growing response does not change the shared counter each time.
const STEP_BYTES: usize = 16 << 10;

/// Limits the bytes that requests hold, across all listeners.
#[derive(Debug)]
pub struct MemoryBudget {
    bytes_max: usize,
    used: AtomicUsize,
    /// When `used` reaches this number of bytes, `grew` is notified.
    alert_at: AtomicUsize,
    grew: Notify,
    /// Whether resident memory is close to its limit; if so, large leases are rejected.
    is_tight: AtomicBool,
    refused: Refused,
}

/// Bytes of a [`MemoryBudget`]. They are released when the lease is dropped.
#[derive(Debug)]
pub struct Lease {
    budget: Arc<MemoryBudget>,
    /// The requested bytes.
    held: usize,
    /// The bytes taken from the budget: `held`, rounded up to whole steps.
    taken: usize,
    /// Whether the lease may use the reserve for the metrics and admin listeners.
    is_control: bool,
}

/// Why a lease was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverBudget {
    /// The lease would be larger than a single lease may be, even if there were no other leases.
    #[error(
        "the request and its response need more than {limit} bytes of memory. hint: request less at once, or raise \
         'server: limits: in_flight_bytes_max'"
    )]
    TooLarge {
        /// The maximum size of one lease, in bytes.
        limit: usize,
    },
    /// Other leases hold too much of the budget.
    #[error(
        "requests and responses in flight use their whole memory budget; try again later. hint: raise 'server: limits: \
         in_flight_bytes_max'"
    )]
    Full,
    /// Resident memory is close to the memory limit.
    #[error("the process is close to its memory limit and rejects large requests; try again later")]
    Tight,
}

struct Refused {
    too_large: Counter,
    full: Counter,
    tight: Counter,
}

// === impl MemoryBudget ===

impl MemoryBudget {
    /// Creates a budget of this many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Arc<Self> {
        describe_counter!("larder_in_flight_refused_total", "Requests rejected for lack of memory, by reason.");
        let refused = |reason: &'static str| counter!("larder_in_flight_refused_total", "reason" => reason);
        let refused =
            Refused { too_large: refused("too_large"), full: refused("full"), tight: refused("memory_limit") };
        Arc::new(Self {
            bytes_max,
            used: AtomicUsize::new(0),
            alert_at: AtomicUsize::new(usize::MAX),
            grew: Notify::new(),
            is_tight: AtomicBool::new(false),
            refused,
        })
    }

    /// Creates a budget without a limit.
    #[must_use]
    pub fn unbounded() -> Arc<Self> {
        Self::new(usize::MAX)
    }

    /// Creates an empty lease for a request.
    #[must_use]
    pub fn lease(self: &Arc<Self>) -> Lease {
        Lease { budget: Arc::clone(self), held: 0, taken: 0, is_control: false }
    }

    /// Creates an empty lease for the metrics and admin listeners.
    #[must_use]
    pub fn control_lease(self: &Arc<Self>) -> Lease {
        Lease { budget: Arc::clone(self), held: 0, taken: 0, is_control: true }
    }

    /// Returns the bytes that are leased.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns the maximum number of bytes that leases can hold.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Rejects new large leases, or allows them again. Existing leases are kept.
    pub fn set_tight(&self, is_tight: bool) {
        self.is_tight.store(is_tight, Ordering::Relaxed);
    }

    /// Waits until all leases together hold at least `more` bytes more than at the time of the call. Only one task at a
    /// time may wait.
    pub async fn grown_by(&self, more: usize) {
        let alert_at = self.used().saturating_add(more);
        self.alert_at.store(alert_at, Ordering::Relaxed);
        while self.used() < alert_at {
            self.grew.notified().await;
            // The notification may be left over from an earlier call.
            self.alert_at.store(alert_at, Ordering::Relaxed);
        }
    }

    /// Returns the limit for the sum of all leases when one of them grows to `bytes`.
    fn limit_for(&self, bytes: usize, is_control: bool) -> usize {
        let percent = match bytes {
            _ if is_control => 100,
            LARGE_BYTES.. => LARGE_PERCENT,
            _ => REQUESTS_PERCENT,
        };
        // An unlimited budget stays unlimited.
        if self.bytes_max == usize::MAX { usize::MAX } else { self.bytes_max / 100 * percent }
    }

    fn take(&self, more: usize, total: usize, is_control: bool) -> Result<(), OverBudget> {
        let limit = self.limit_for(total, is_control);
        if total > limit {
            self.refused.too_large.increment(1);
            return Err(OverBudget::TooLarge { limit });
        }
        if total >= LARGE_BYTES && !is_control && self.is_tight.load(Ordering::Relaxed) {
            self.refused.tight.increment(1);
            return Err(OverBudget::Tight);
        }
        let fits = |used: usize| used.checked_add(more).filter(|used| *used <= limit);
        let used = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map_err(|_| {
            self.refused.full.increment(1);
            OverBudget::Full
        })?;
        if used + more >= self.alert_at.load(Ordering::Relaxed) {
            // Each wait gets only one notification.
            self.alert_at.store(usize::MAX, Ordering::Relaxed);
            self.grew.notify_one();
        }
        Ok(())
    }
}

// === impl Lease ===

impl Lease {
    /// Grows the lease by this many bytes.
    ///
    /// # Errors
    /// [`OverBudget`]. In that case, the lease keeps its size.
    pub fn grow(&mut self, more: usize) -> Result<(), OverBudget> {
        self.resize(self.held.saturating_add(more))
    }

    /// Changes the size of the lease to this many bytes.
    ///
    /// # Errors
    /// [`OverBudget`]. In that case, the lease keeps its size. Shrinking never fails.
    pub fn resize(&mut self, bytes: usize) -> Result<(), OverBudget> {
        let wanted = bytes.checked_next_multiple_of(STEP_BYTES).unwrap_or(usize::MAX);
        if wanted > self.taken {
            self.budget.take(wanted - self.taken, wanted, self.is_control)?;
        } else {
            self.budget.used.fetch_sub(self.taken - wanted, Ordering::Relaxed);
        }
        (self.held, self.taken) = (bytes, wanted);
        Ok(())
    }

    /// Returns the size of the lease in bytes.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refused").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn leases_never_exceed_the_budget() {
        let budget = MemoryBudget::new(100 * MIB);
        let mut large = budget.lease();
        large.grow(70 * MIB).unwrap();
        assert_eq!(budget.lease().grow(MIB * 6), Err(OverBudget::Full), "large leases may use 75 percent");
        let mut small = Vec::new();
        while let Ok(lease) = {
            let mut lease = budget.lease();
            lease.grow(100 << 10).map(|()| lease)
        } {
            small.push(lease);
        }
        assert!((89 * MIB..=90 * MIB).contains(&budget.used()), "{}", budget.used());
        let mut control = budget.control_lease();
        control.grow(9 * MIB).unwrap();
        assert_eq!(control.grow(2 * MIB), Err(OverBudget::Full));
        drop((large, small, control));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn growth_of_leases_is_notified() {
        use std::{future::Future, pin::pin, task};
        let budget = MemoryBudget::new(100 * MIB);
        let mut before = budget.lease();
        before.grow(MIB).unwrap();
        for _ in 0..2 {
            let mut grown = pin!(budget.grown_by(10 * MIB));
            let mut poll = || grown.as_mut().poll(&mut task::Context::from_waker(task::Waker::noop()));
            let mut leases = [budget.lease(), budget.lease()];
            assert!(poll().is_pending());
            leases[0].grow(9 * MIB).unwrap();
            assert!(poll().is_pending());
            leases[1].grow(MIB).unwrap();
            assert!(poll().is_ready());
        }
    }

    #[test]
    fn impossible_lease_reports_its_limit() {
        let budget = MemoryBudget::new(100 * MIB);
        assert_eq!(budget.lease().grow(80 * MIB), Err(OverBudget::TooLarge { limit: 75 * MIB }));
        let mut lease = budget.lease();
        lease.grow(75 * MIB).unwrap();
        assert_eq!(lease.grow(1), Err(OverBudget::TooLarge { limit: 75 * MIB }));
        assert_eq!(lease.held(), 75 * MIB, "a rejected lease keeps its size");
        lease.resize(MIB).unwrap();
        assert_eq!(budget.used(), MIB);
    }

    #[test]
    fn tight_memory_rejects_large_leases_only() {
        let budget = MemoryBudget::new(100 * MIB);
        let mut before = budget.lease();
        before.grow(MIB).unwrap();
        budget.set_tight(true);
        assert_eq!(budget.lease().grow(MIB), Err(OverBudget::Tight));
        assert_eq!(before.grow(MIB), Err(OverBudget::Tight), "large leases do not grow either");
        budget.lease().grow(100 << 10).unwrap();
        budget.control_lease().grow(MIB).unwrap();
        budget.set_tight(false);
        budget.lease().grow(MIB).unwrap();
    }

    #[test]
    fn threads_release_all_leases() {
        let budget = MemoryBudget::new(10 * MIB);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let budget = &budget;
                scope.spawn(move || {
                    for n in 0..2_000 {
                        let mut lease = budget.lease();
                        let _ = lease.grow((n * 7_919 + thread) % (3 * MIB));
                        assert!(budget.used() <= 10 * MIB);
                        let _ = lease.resize(n);
                    }
                });
            }
        });
        assert_eq!(budget.used(), 0);
    }
}
