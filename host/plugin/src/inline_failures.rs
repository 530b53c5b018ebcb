//! Counts the CPU time of failed calls on serving threads.
//!
//! Each of these calls takes little time, but many of them would delay other requests. If they take more than 20 ms within a
//! second, the plugin's calls run on compute threads for the next second.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The failed calls of a plugin and a view. Counts may be lost if threads update them at the same time; the limit is
/// approximate.
#[derive(Debug, Default)]
pub(super) struct InlineFailures {
    /// The start of the current second, in milliseconds.
    since: AtomicU64,
    /// The CPU time of failed calls since then, in nanoseconds.
    nanos: AtomicU64,
    /// The end of the period in which the plugin is not called on serving threads, in milliseconds; 0 if there is none.
    until: AtomicU64,
}

/// The period for which failed calls are counted, and for which the plugin is then not called on serving threads.
const PERIOD: Duration = Duration::from_secs(1);
/// The maximum CPU time of failed calls in this period.
const CPU_MAX: Duration = Duration::from_millis(20);

// === impl InlineFailures ===

impl InlineFailures {
    /// Counts a failed call.
    pub(super) fn add(&self, cpu: Duration) {
        self.add_at(cpu, now());
    }

    /// Returns whether the plugin should not be called on serving threads.
    #[inline]
    pub(super) fn are_many(&self) -> bool {
        // Most plugins have no failures, so the clock is rarely read.
        self.until.load(Ordering::Relaxed) != 0 && self.are_many_at(now())
    }

    fn add_at(&self, cpu: Duration, now: u64) {
        let period = millis(PERIOD);
        if now >= self.since.load(Ordering::Relaxed) + period {
            self.since.store(now, Ordering::Relaxed);
            self.nanos.store(0, Ordering::Relaxed);
        }
        let cpu = u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX);
        let before = self.nanos.fetch_add(cpu, Ordering::Relaxed);
        if u128::from(before.saturating_add(cpu)) > CPU_MAX.as_nanos() {
            self.until.store(now + period, Ordering::Relaxed);
        }
    }

    fn are_many_at(&self, now: u64) -> bool {
        let are_many = now < self.until.load(Ordering::Relaxed);
        if !are_many {
            self.until.store(0, Ordering::Relaxed);
        }
        are_many
    }
}

/// Returns the time since the first call, in milliseconds.
fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    millis(START.elapsed())
}

fn millis(of: Duration) -> u64 {
    u64::try_from(of.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Duration = Duration::from_millis(10);

    #[test]
    fn many_failures_keep_plugin_off_threads() {
        let failures = InlineFailures::default();
        assert!(!failures.are_many());
        failures.add_at(HALF, 5_000);
        failures.add_at(HALF, 5_500);
        assert!(!failures.are_many_at(5_500), "no more than the maximum");
        failures.add_at(Duration::from_nanos(1), 5_600);
        assert!(failures.are_many_at(6_599));
        assert!(!failures.are_many_at(6_600) && !failures.are_many());
    }

    #[test]
    fn rare_failures_do_not_add_up() {
        let failures = InlineFailures::default();
        for second in 1..100 {
            failures.add_at(HALF, second * 1_000);
            assert!(!failures.are_many_at(second * 1_000));
        }
    }
}
