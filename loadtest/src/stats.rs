//! Computes medians, and quantiles for which there are enough samples.

use hdrhistogram::Histogram;
use serde::Serialize;

/// A quantile beyond p99 is reported only if at least this many samples are beyond it.
const BEYOND_MIN: f64 = 100.0;

/// The median, the minimum and the maximum of several numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// The median and the quartiles of many numbers. A few outliers do not affect them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Quartiles {
    pub(crate) median: f64,
    pub(crate) lower: f64,
    pub(crate) upper: f64,
}

/// Latencies of many requests, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) samples: u64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    /// The 99th percentile. `None` if there are fewer than 100 samples.
    pub(crate) p99_us: Option<f64>,
    /// The 99.9th percentile. `None` if there are fewer than 100 samples beyond it.
    pub(crate) p999_us: Option<f64>,
    /// The 99.99th percentile. `None` if there are fewer than 100 samples beyond it.
    pub(crate) p9999_us: Option<f64>,
    pub(crate) max_us: f64,
}

// === impl Spread ===

impl Spread {
    pub(crate) fn of(numbers: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<_> = numbers.collect();
        sorted.sort_by(f64::total_cmp);
        let [min, .., max] = sorted[..] else {
            let only = sorted.first().copied().unwrap_or(f64::NAN);
            return Self { median: only, min: only, max: only };
        };
        let (below, above) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Self { median: f64::midpoint(below, above), min, max }
    }
}

// === impl Quartiles ===

impl Quartiles {
    /// Computes the quartiles. Interpolates between two numbers if needed. Returns NaN for each quartile if there are
    /// no numbers.
    pub(crate) fn of(numbers: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<_> = numbers.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let index = part * sorted.len().saturating_sub(1) as f64;
            let number = |index: f64| sorted.get(index as usize).copied().unwrap_or(f64::NAN);
            number(index.floor()) + (number(index.ceil()) - number(index.floor())) * index.fract()
        };
        Self { median: at(0.5), lower: at(0.25), upper: at(0.75) }
    }

    /// Formats the median and the quartiles. `number` formats each of them.
    pub(crate) fn text(&self, number: impl Fn(f64) -> String) -> String {
        format!("{} ({} to {})", number(self.median), number(self.lower), number(self.upper))
    }
}

// === impl Latency ===

impl Latency {
    pub(crate) fn of(latencies_ns: &Histogram<u64>) -> Self {
        let samples = latencies_ns.len();
        let us = |quantile| latencies_ns.value_at_quantile(quantile) as f64 / 1000.0;
        let is_reported = |quantile| beyond(samples, quantile) >= BEYOND_MIN - 1e-6;
        Self {
            samples,
            p50_us: us(0.5),
            p90_us: us(0.9),
            p99_us: (samples >= 100).then(|| us(0.99)),
            p999_us: is_reported(0.999).then(|| us(0.999)),
            p9999_us: is_reported(0.9999).then(|| us(0.9999)),
            max_us: latencies_ns.max() as f64 / 1000.0,
        }
    }
}

/// Returns pairs of a quantile and its latency in microseconds, for increasing quantiles with at least ten samples
/// beyond them. A quantile is given as a number of nines: 1 is p90, 2 is p99.
pub(crate) fn tail(latencies_ns: &Histogram<u64>) -> Vec<(f64, f64)> {
    const STEPS_PER_NINE: u32 = 10;
    (0..=5 * STEPS_PER_NINE)
        .map(|step| f64::from(step) / f64::from(STEPS_PER_NINE))
        .map(|nines| (nines, 1.0 - 10_f64.powf(-nines)))
        .take_while(|&(_, quantile)| beyond(latencies_ns.len(), quantile) >= 10.0)
        .map(|(nines, quantile)| (nines, latencies_ns.value_at_quantile(quantile) as f64 / 1000.0))
        .collect()
}

fn beyond(samples: u64, quantile: f64) -> f64 {
    samples as f64 * (1.0 - quantile)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(samples: u64) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 1_000_000_000, 3).unwrap();
        (1..=samples).for_each(|sample| histogram.record(sample * 1000).unwrap());
        histogram
    }

    #[test]
    fn spread_has_median_and_extremes() {
        let spread = |numbers: &[f64]| Spread::of(numbers.iter().copied());
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(spread(&[7.0]), Spread { median: 7.0, min: 7.0, max: 7.0 });
    }

    #[test]
    fn quartiles_are_interpolated() {
        let quartiles = |numbers: &[f64]| Quartiles::of(numbers.iter().copied());
        assert_eq!(quartiles(&[5.0, 1.0, 100.0, 2.0, 4.0]), Quartiles { median: 4.0, lower: 2.0, upper: 5.0 });
        assert_eq!(quartiles(&[4.0, 1.0, 2.0, 3.0]), Quartiles { median: 2.5, lower: 1.75, upper: 3.25 });
        assert_eq!(quartiles(&[7.0]), Quartiles { median: 7.0, lower: 7.0, upper: 7.0 });
        assert!(quartiles(&[]).median.is_nan());
        assert_eq!(quartiles(&[1.0, 2.0, 3.0]).text(|number| format!("{number:.1}")), "2.0 (1.5 to 2.5)");
    }

    #[test]
    fn tail_needs_enough_samples() {
        let reported = |samples| {
            let latency = Latency::of(&histogram(samples));
            (latency.p99_us.is_some(), latency.p999_us.is_some(), latency.p9999_us.is_some())
        };
        assert_eq!(reported(99), (false, false, false));
        assert_eq!(reported(100), (true, false, false));
        assert_eq!(reported(100_000), (true, true, false));
        assert_eq!(reported(1_000_000), (true, true, true));
        let latency = Latency::of(&histogram(1000));
        assert!((latency.p50_us - 500.0).abs() < 1.0 && (latency.max_us - 1000.0).abs() < 1.0, "{latency:?}");
    }

    #[test]
    fn curve_ends_before_last_ten_samples() {
        let curve = tail(&histogram(1000));
        assert_eq!(curve.first().map(|&(nines, _)| nines), Some(0.0));
        assert_eq!(curve.last().map(|&(nines, _)| nines), Some(2.0));
        assert!(curve.is_sorted_by(|(_, a), (_, b)| a <= b));
        assert!(tail(&histogram(5)).is_empty());
    }
}
