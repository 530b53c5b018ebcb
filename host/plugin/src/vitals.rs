//! Counts the results that requests receive from a version of a plugin while another version is rolled out: batches, rows,
//! failures, nulls and durations of batches.
//!
//! A batch has the rows of one request for one derived view. A plugin may compute it in several calls.
//!
//! The counts only grow. A window is the difference of two copies.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{CallError, Outputs};

/// The counters of one version in one derived view.
#[derive(Debug)]
pub(super) struct Vitals {
    calls: AtomicU64,
    rows: AtomicU64,
    failed: AtomicU64,
    interrupted: AtomicU64,
    /// The number of nulls of each output of the version, without failed rows.
    nulls: Box<[AtomicU64]>,
    durations: Box<[AtomicU64]>,
}

/// The counts of a version, since it is observed or in a window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VitalCounts {
    /// The number of batches.
    pub calls: u64,
    /// The number of rows.
    pub rows: u64,
    /// The number of rows that the plugin could not compute.
    pub failed: u64,
    /// The number of batches in which a call trapped, exceeded a limit or returned an invalid result.
    pub interrupted: u64,
    /// The number of nulls of each output, in the order of the version's signature, without failed rows.
    pub nulls: Vec<u64>,
    /// The number of batches by duration. See [`VitalCounts::quantile`].
    durations: Vec<u64>,
}

/// Durations below 2^`FIRST_BITS` nanoseconds are in the first bucket.
const FIRST_BITS: u32 = 8;
/// Each power of two is divided into 2^`SUB_BITS` buckets, so that a bucket's bounds differ by at most 12.5 %.
const SUB_BITS: u32 = 3;
/// The number of powers of two. The last bucket also has all longer durations, from about 17 s on.
const OCTAVES: u32 = 26;
const BUCKETS: usize = ((OCTAVES << SUB_BITS) + 1) as usize;

// === impl Vitals ===

impl Vitals {
    /// Creates counters for a version with this many outputs.
    pub(super) fn new(outputs: usize) -> Self {
        let zeros = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            calls: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            interrupted: AtomicU64::new(0),
            nulls: zeros(outputs),
            durations: zeros(BUCKETS),
        }
    }

    /// Counts a batch.
    /// The duration is only counted if it is given.
    pub(super) fn note(&self, outputs: &Outputs, took: Option<Duration>) {
        let add = |counter: &AtomicU64, count: u64| {
            if count > 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        };
        // A row whose input cannot be cast is the fault of the caller, whatever the version is.
        let is_of_plugin = |error: &CallError| !matches!(error, CallError::Cast { .. } | CallError::Busy(_));
        let failed = outputs.failed();
        add(&self.calls, 1);
        add(&self.rows, outputs.rows() as u64);
        add(&self.failed, failed.iter().filter(|failed| is_of_plugin(&failed.error)).count() as u64);
        let is_interrupted = |error: &CallError| matches!(error, CallError::Interrupt(_) | CallError::Skipped);
        add(&self.interrupted, u64::from(failed.iter().any(|failed| is_interrupted(&failed.error))));
        for (nulls, output) in self.nulls.iter().zip(outputs.iter()) {
            add(nulls, (output.column().null_count() - failed.len()) as u64);
        }
        if let Some(took) = took {
            add(&self.durations[bucket(took)], 1);
        }
    }

    /// Returns a copy of the counts.
    pub(super) fn get(&self) -> VitalCounts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        VitalCounts {
            calls: load(&self.calls),
            rows: load(&self.rows),
            failed: load(&self.failed),
            interrupted: load(&self.interrupted),
            nulls: self.nulls.iter().map(load).collect(),
            durations: self.durations.iter().map(load).collect(),
        }
    }
}

// === impl VitalCounts ===

impl VitalCounts {
    /// Returns the counts since `earlier`, which is an earlier copy of the same counters.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let list = |now: &[u64], before: &[u64]| -> Vec<u64> {
            let before = before.iter().copied().chain(std::iter::repeat(0));
            now.iter().zip(before).map(|(now, before)| now.saturating_sub(before)).collect()
        };
        Self {
            calls: self.calls.saturating_sub(earlier.calls),
            rows: self.rows.saturating_sub(earlier.rows),
            failed: self.failed.saturating_sub(earlier.failed),
            interrupted: self.interrupted.saturating_sub(earlier.interrupted),
            nulls: list(&self.nulls, &earlier.nulls),
            durations: list(&self.durations, &earlier.durations),
        }
    }

    /// Returns the sum of the counts of two views.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        let add = |to: &mut Vec<u64>, from: &[u64]| {
            to.resize(to.len().max(from.len()), 0);
            to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        };
        self.calls += other.calls;
        self.rows += other.rows;
        self.failed += other.failed;
        self.interrupted += other.interrupted;
        add(&mut self.nulls, &other.nulls);
        add(&mut self.durations, &other.durations);
        self
    }

    /// Returns the duration that this share of the batches does not exceed: the upper bound of its bucket, which is at
    /// most 12.5 % too long. Returns `None` if there are no batches.
    #[must_use]
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let total: u64 = self.durations.iter().sum();
        let wanted = ((total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let reached = self.durations.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        reached.filter(|_| total > 0).map(upper_bound)
    }

    /// Returns the number of batches that took longer than a duration, and the number of all batches. The bucket of the
    /// duration itself does not count as longer.
    #[must_use]
    pub fn slower_than(&self, limit: Duration) -> (u64, u64) {
        let slower = self.durations.iter().skip(bucket(limit) + 1).sum();
        (slower, self.durations.iter().sum())
    }
}

/// Returns the index of the bucket of a duration.
fn bucket(took: Duration) -> usize {
    let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    let Some(octave) = nanos.checked_ilog2().and_then(|bits| bits.checked_sub(FIRST_BITS)) else { return 0 };
    let sub = (nanos >> (octave + FIRST_BITS - SUB_BITS)) & ((1 << SUB_BITS) - 1);
    let index = (u64::from(octave) << SUB_BITS) + sub + 1;
    usize::try_from(index).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// Returns the upper bound of a bucket.
fn upper_bound(index: usize) -> Duration {
    let index = index as u64;
    let (octave, sub) = (index >> SUB_BITS, index & ((1 << SUB_BITS) - 1));
    let nanos = ((1_u64 << SUB_BITS) + sub) << (octave + u64::from(FIRST_BITS) - u64::from(SUB_BITS));
    Duration::from_nanos(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(durations: &[(u64, u64)]) -> VitalCounts {
        let vitals = Vitals::new(1);
        for (nanos, count) in durations {
            vitals.durations[bucket(Duration::from_nanos(*nanos))].fetch_add(*count, Ordering::Relaxed);
        }
        vitals.get()
    }

    #[test]
    fn each_duration_is_in_its_bucket() {
        for nanos in (0..40).flat_map(|bits| [(1_u64 << bits) - 1, 1 << bits, (1 << bits) + 1]) {
            let index = bucket(Duration::from_nanos(nanos));
            let bound = u64::try_from(upper_bound(index).as_nanos()).unwrap();
            assert!(nanos < bound || index == BUCKETS - 1, "{nanos} {bound}");
            if index > 0 && index < BUCKETS - 1 {
                let lower = u64::try_from(upper_bound(index - 1).as_nanos()).unwrap();
                assert!(lower <= nanos, "{lower} {nanos}");
                assert!(bound - lower <= lower / 8 + 1, "{lower} {bound}");
            }
        }
    }

    #[test]
    fn quantile_is_upper_bound_of_bucket() {
        assert_eq!(counts(&[]).quantile(0.99), None);
        let counts = counts(&[(1_000, 98), (1_000_000, 2)]);
        let p50 = counts.quantile(0.5).unwrap();
        assert!(p50 > Duration::from_nanos(1_000) && p50 <= Duration::from_nanos(1_125), "{p50:?}");
        assert!(counts.quantile(0.98).unwrap() == p50 && counts.quantile(0.99).unwrap() > Duration::from_millis(1));
        assert_eq!(counts.slower_than(Duration::from_micros(2)), (2, 100));
        assert_eq!(counts.slower_than(Duration::from_millis(1)), (0, 100));
    }

    #[test]
    fn window_is_difference_of_copies() {
        let (before, after) = (counts(&[(1_000, 2)]), counts(&[(1_000, 5), (9_000, 1)]));
        let window = after.since(&before);
        assert_eq!(window.durations.iter().sum::<u64>(), 4);
        assert_eq!(window.plus(&before), after);
    }
}
