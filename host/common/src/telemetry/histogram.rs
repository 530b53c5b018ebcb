//! Histograms that record a sample with two atomic updates.
//!
//! The exporter's own histograms keep every sample until they are rendered. At a hundred thousand requests per second,
//! this constantly allocates and writes memory, and evicts rows from the processor's caches. The histograms in this
//! module have fixed buckets, so a sample is counted immediately. Threads count in separate stripes, and rendering sums
//! the stripes.

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{
    LabelSet, PrometheusRecorder,
    formatting::{write_help_line, write_metric_line, write_type_line},
};

/// The exporter's recorder, with the histograms of this module instead of the exporter's own.
pub(super) struct WithHistograms {
    pub(super) recorder: PrometheusRecorder,
    pub(super) histograms: Arc<Histograms>,
}

/// All histograms, by name and labels.
#[derive(Debug)]
pub(super) struct Histograms {
    /// Returns the upper bounds of the buckets of the metric with this name, without the infinite bound.
    bounds: fn(&str) -> &'static [f64],
    families: RwLock<BTreeMap<String, Family>>,
}

#[derive(Debug, Default)]
struct Family {
    help: Option<SharedString>,
    series: Vec<(Key, Arc<Buckets>)>,
}

/// One histogram: one series of a metric.
#[derive(Debug)]
struct Buckets {
    bounds: &'static [f64],
    stripes: [Stripe; STRIPES],
}

/// The counts of one or more threads. It is aligned so that no two stripes share a cache line.
#[derive(Debug)]
#[repr(align(128))]
struct Stripe {
    /// The number of samples in each bucket, with the infinite bucket last.
    counts: Box<[AtomicU64]>,
    /// The sum of all samples, as the bits of a double.
    sum: AtomicU64,
}

/// The number of stripes. If more than 8 threads record samples, some of them share a stripe. By default, there are as
/// many serving threads as cores.
const STRIPES: usize = 8;

thread_local! {
    /// The index of this thread's stripe; `None` before the thread's first sample.
    static STRIPE: Cell<Option<usize>> = const { Cell::new(None) };
}

// === impl WithHistograms ===

impl Recorder for WithHistograms {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, description: SharedString) {
        self.recorder.describe_counter(name, unit, description);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, description: SharedString) {
        self.recorder.describe_gauge(name, unit, description);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, description: SharedString) {
        self.histograms.family(name.as_str(), |family| _ = family.help.get_or_insert(description));
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.recorder.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.recorder.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.histograms.series(key))
    }
}

// === impl Histograms ===

impl Histograms {
    pub(super) fn new(bounds: fn(&str) -> &'static [f64]) -> Self {
        Self { bounds, families: RwLock::default() }
    }

    fn family<T>(&self, name: &str, change: impl FnOnce(&mut Family) -> T) -> T {
        let mut families = self.families.write().unwrap_or_else(PoisonError::into_inner);
        change(families.entry(name.to_owned()).or_default())
    }

    fn series(&self, key: &Key) -> Arc<Buckets> {
        self.family(key.name(), |family| {
            if let Some((_, known)) = family.series.iter().find(|(known, _)| known == key) {
                return Arc::clone(known);
            }
            let added = Arc::new(Buckets::new((self.bounds)(key.name())));
            family.series.push((key.clone(), Arc::clone(&added)));
            added
        })
    }

    /// Appends all histograms that have samples, in Prometheus' text format.
    pub(super) fn render(&self, text: &mut String) {
        let families = self.families.read().unwrap_or_else(PoisonError::into_inner);
        for (name, family) in &*families {
            let series = family.series.iter().map(|(key, buckets)| (key, buckets, buckets.counts()));
            let mut series = series.filter(|(.., counts)| counts.iter().any(|count| *count > 0)).peekable();
            if series.peek().is_none() {
                continue;
            }
            if let Some(help) = &family.help {
                write_help_line(text, name, None, None, help);
            }
            write_type_line(text, name, None, None, "histogram");
            for (key, buckets, counts) in series {
                let labels = LabelSet::from_key_and_global(key, &Default::default());
                let mut below = 0;
                for (bound, count) in buckets.bounds.iter().zip(&counts) {
                    below += count;
                    write_metric_line(text, name, Some("bucket"), &labels, Some(("le", *bound)), below, None);
                }
                let all: u64 = counts.iter().sum();
                write_metric_line(text, name, Some("bucket"), &labels, Some(("le", "+Inf")), all, None);
                write_metric_line::<&str, f64>(text, name, Some("sum"), &labels, None, buckets.sum(), None);
                write_metric_line::<&str, u64>(text, name, Some("count"), &labels, None, all, None);
            }
            text.push('\n');
        }
    }
}

// === impl Buckets ===

impl Buckets {
    fn new(bounds: &'static [f64]) -> Self {
        let stripe =
            |_| Stripe { counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) };
        Self { bounds, stripes: std::array::from_fn(stripe) }
    }

    fn counts(&self) -> Vec<u64> {
        let count = |bucket: usize| self.stripes.iter().map(|s| s.counts[bucket].load(Ordering::Relaxed)).sum();
        (0..=self.bounds.len()).map(count).collect()
    }

    fn sum(&self) -> f64 {
        self.stripes.iter().map(|stripe| f64::from_bits(stripe.sum.load(Ordering::Relaxed))).sum()
    }
}

impl HistogramFn for Buckets {
    fn record(&self, sample: f64) {
        let bucket = self.bounds.iter().position(|bound| sample <= *bound).unwrap_or(self.bounds.len());
        let stripe = &self.stripes[own_stripe()];
        stripe.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let added = |sum: u64| Some((f64::from_bits(sum) + sample).to_bits());
        // The closure always returns `Some`, so there is no error.
        let _ = stripe.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added);
    }
}

fn own_stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    STRIPE.get().unwrap_or_else(|| {
        let stripe = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
        STRIPE.set(Some(stripe));
        stripe
    })
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    fn bounds(name: &str) -> &'static [f64] {
        if name == "sizes" { &[1.0, 10.0] } else { &[0.5] }
    }

    #[test]
    fn samples_of_all_threads_are_summed() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let with = WithHistograms { recorder, histograms: Arc::new(Histograms::new(bounds)) };
        metrics::with_local_recorder(&with, || {
            metrics::describe_histogram!("sizes", "How large.");
            metrics::describe_histogram!("never", "Nothing.");
            let (small, large) =
                (metrics::histogram!("sizes", "of" => "a \"b\""), metrics::histogram!("sizes", "of" => "c"));
            let again = metrics::histogram!("sizes", "of" => "c");
            std::thread::scope(|scope| {
                for _ in 0..20 {
                    scope.spawn(|| {
                        small.record(1.0);
                        large.record(10.5);
                        again.record(2.0);
                    });
                }
            });
            metrics::histogram!("other").record(f64::NAN);
        });
        let mut text = String::new();
        with.histograms.render(&mut text);
        expect_test::expect![[r##"
            # TYPE other histogram
            other_bucket{le="0.5"} 0
            other_bucket{le="+Inf"} 1
            other_sum NaN
            other_count 1

            # HELP sizes How large.
            # TYPE sizes histogram
            sizes_bucket{of="a \"b\"",le="1"} 20
            sizes_bucket{of="a \"b\"",le="10"} 20
            sizes_bucket{of="a \"b\"",le="+Inf"} 20
            sizes_sum{of="a \"b\""} 20
            sizes_count{of="a \"b\""} 20
            sizes_bucket{of="c",le="1"} 0
            sizes_bucket{of="c",le="10"} 20
            sizes_bucket{of="c",le="+Inf"} 40
            sizes_sum{of="c"} 250
            sizes_count{of="c"} 40

        "##]]
        .assert_eq(&text);
    }
}
