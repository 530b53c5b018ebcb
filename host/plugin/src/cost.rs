//! Estimates the CPU time of a call from the CPU times of earlier calls.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Estimates the cost of calls. For each power of two of rows, it has an exponentially weighted moving average, in
/// which recent calls have more weight. Reads and writes take no lock, because a cost that is occasionally lost does not
/// matter.
///
/// A call that costs far more than many calls before it was most likely delayed by other load on the machine: the cost
/// of a short call is its elapsed time. If such an outlier changed the average, the next calls would run on a compute
/// thread, and the switch of threads costs more than a short call. So an outlier is ignored if it follows at least
/// [`DOUBTED_AFTER`] calls without one. A plugin with more frequent outliers must run on a compute thread, so these
/// outliers are included in the average.
#[derive(Debug, Default)]
pub(super) struct CostEstimator {
    buckets: [Bucket; BUCKETS],
}

/// The estimate for calls of up to 2^i rows, where i is the bucket's index.
#[derive(Debug, Default)]
struct Bucket {
    /// The average cost in nanoseconds; 0 before the first call.
    nanos: AtomicU64,
    /// The number of calls since the last outlier.
    since: AtomicU64,
}

/// The number of buckets, which are for up to 2^20 rows. Calls with more rows use the last bucket.
const BUCKETS: usize = 21;
/// The weight of a new call in the moving average is 1 / `WEIGHT`.
const WEIGHT: u64 = 8;
/// A call is an outlier if it costs more than this many times the average.
const FAR: u64 = 16;
/// An outlier is ignored if it follows at least this many calls without one.
const DOUBTED_AFTER: u64 = 256;

// === impl CostEstimator ===

impl CostEstimator {
    /// Records the cost of a call.
    pub(super) fn note(&self, rows: usize, cost: Duration) {
        let Bucket { nanos, since } = &self.buckets[bucket(rows)];
        let cost = u64::try_from(cost.as_nanos()).unwrap_or(u64::MAX).max(1);
        let (before, quiet) = (nanos.load(Ordering::Relaxed), since.load(Ordering::Relaxed));
        let is_far = before != 0 && cost / FAR > before;
        since.store(if is_far { 0 } else { quiet.saturating_add(1) }, Ordering::Relaxed);
        if is_far && quiet >= DOUBTED_AFTER {
            return;
        }
        let now = if before == 0 { cost } else { before - before / WEIGHT + cost / WEIGHT };
        nanos.store(now.max(1), Ordering::Relaxed);
    }

    /// Returns the expected cost of a call with this many rows: the average of its bucket. If this bucket has
    /// no calls, the estimate is the average of the next smaller bucket with calls, multiplied in proportion to the
    /// rows. If there is no such bucket, it is the average of the next larger one with calls. Returns zero before the
    /// first call.
    pub(super) fn expect(&self, rows: usize) -> Duration {
        let wanted = bucket(rows);
        let known = |bucket: usize| match self.buckets[bucket].nanos.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(nanos),
        };
        let fewer = || (0..wanted).rev().find_map(|bucket| Some(known(bucket)?.saturating_mul(1 << (wanted - bucket))));
        let more = || (wanted..BUCKETS).find_map(known);
        let nanos = known(wanted).or_else(fewer).or_else(more).unwrap_or(0);
        Duration::from_nanos(nanos)
    }
}

fn bucket(rows: usize) -> usize {
    let bits = usize::BITS - rows.max(1).saturating_sub(1).leading_zeros();
    usize::try_from(bits).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    #[test]
    fn rows_fall_into_powers_of_two() {
        assert_eq!([0, 1, 2, 3, 4, 5, 1_024, 1_025].map(bucket), [0, 0, 1, 2, 2, 3, 10, 11]);
        assert_eq!(bucket(usize::MAX), BUCKETS - 1);
    }

    #[test]
    fn unknown_size_is_estimated_from_others() {
        let costs = CostEstimator::default();
        assert_eq!(costs.expect(1), Duration::ZERO);
        costs.note(1, 2 * US);
        assert_eq!(costs.expect(64), 128 * US, "in proportion, to be on the safe side");
        costs.note(64, 4 * US);
        assert_eq!(costs.expect(64), 4 * US);
        let other = CostEstimator::default();
        other.note(64, 4 * US);
        assert_eq!(other.expect(1), 4 * US, "the same as for more rows");
    }

    #[test]
    fn quick_calls_outweigh_a_slow_one() {
        let costs = CostEstimator::default();
        costs.note(1, US);
        costs.note(1, Duration::from_millis(10));
        assert!(costs.expect(1) > Duration::from_millis(1));
        (0..100).for_each(|_| costs.note(1, US));
        assert!(costs.expect(1) < 10 * US);
    }

    #[test]
    fn single_outlier_is_ignored_repeated_counts() {
        let slow = Duration::from_millis(10);
        let costs = CostEstimator::default();
        for _ in 0..10 {
            (0..=DOUBTED_AFTER).for_each(|_| costs.note(1, US));
            costs.note(1, slow);
            assert_eq!(costs.expect(1), US, "a single outlier");
        }
        (1..DOUBTED_AFTER).for_each(|_| costs.note(1, US));
        costs.note(1, slow);
        assert!(costs.expect(1) > Duration::from_millis(1), "repeated outliers");
    }

    #[test]
    fn slow_growth_is_no_outlier() {
        let costs = CostEstimator::default();
        costs.note(1, US);
        for _ in 0..20 {
            let before = costs.expect(1);
            costs.note(1, before * 8);
            assert!(costs.expect(1) > before);
        }
    }
}
