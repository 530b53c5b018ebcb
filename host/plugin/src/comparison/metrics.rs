//! The metrics of a comparison.

use std::sync::atomic::{AtomicU64, Ordering};

use larder_model::model::DerivedView;
use metrics::{Counter, counter, describe_counter};

use crate::{Diff, OutputDiff};

pub(super) struct ComparisonMetrics {
    rows: Counter,
    /// The counters of the outputs, in the order of [`Diff::outputs`].
    changed: Vec<Counter>,
    dropped: Counter,
    /// The number of dropped batches of this comparison.
    dropped_count: AtomicU64,
    impure: Counter,
}

// === impl ComparisonMetrics ===

impl ComparisonMetrics {
    pub(super) fn bind(plugin: &str, view: &DerivedView, diff: &Diff) -> Self {
        describe_counter!("larder_plugin_compared_rows_total", "Rows that two versions of a plugin computed.");
        describe_counter!(
            "larder_plugin_changed_values_total",
            "Values of compared rows that differ by more than the tolerance or are null in one version, by feature."
        );
        describe_counter!(
            "larder_plugin_compare_dropped_batches_total",
            "Sampled batches that were not compared because the queue was full."
        );
        describe_counter!(
            "larder_plugin_impure_batches_total",
            "Batches whose outputs were different when the same version computed them again."
        );
        let labels = || [("plugin", plugin.to_owned()), ("view", view.name.to_string())];
        let feature = |output: &OutputDiff| {
            let [plugin, view] = labels();
            counter!("larder_plugin_changed_values_total", &[plugin, view, ("feature", output.name.clone())])
        };
        Self {
            rows: counter!("larder_plugin_compared_rows_total", &labels()),
            changed: diff.outputs.iter().map(feature).collect(),
            dropped: counter!("larder_plugin_compare_dropped_batches_total", &labels()),
            dropped_count: AtomicU64::new(0),
            impure: counter!("larder_plugin_impure_batches_total", &labels()),
        }
    }

    /// Counts compared rows. `before` has the changed values of each output before these rows.
    pub(super) fn compared(&self, rows: usize, before: &[u64], diff: &Diff) {
        self.rows.increment(rows as u64);
        for ((counter, before), output) in self.changed.iter().zip(before).zip(&diff.outputs) {
            counter.increment(output.changed() - before);
        }
    }

    pub(super) fn dropped(&self) {
        self.dropped.increment(1);
        self.dropped_count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn dropped_count(&self) -> u64 {
        self.dropped_count.load(Ordering::Relaxed)
    }

    pub(super) fn impure(&self) {
        self.impure.increment(1);
    }
}
