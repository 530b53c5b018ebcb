//! The metrics of a plugin in a derived view, bound once.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use super::CallError;

pub(super) struct TransformMetrics {
    calls: Counter,
    rows: Counter,
    failed_rows: Counter,
    duration: Histogram,
    errors: [(&'static str, Counter); CallError::KINDS.len()],
    memory: Gauge,
    /// The current value of the gauge `memory`.
    high_water: AtomicUsize,
    instances: Counter,
    info: Gauge,
}

// === impl TransformMetrics ===

impl TransformMetrics {
    pub(super) fn bind(plugin: &str, version: &str, view: &str, digest: &str) -> Self {
        describe_counter!("larder_plugin_calls_total", "Attempts to compute a batch, each with one or several calls.");
        describe_counter!("larder_plugin_rows_total", "Rows in these attempts.");
        describe_counter!("larder_plugin_failed_rows_total", "Rows that a plugin could not compute.");
        describe_counter!("larder_plugin_errors_total", "Failed calls to a plugin, by kind of error.");
        describe_histogram!(
            "larder_plugin_duration_seconds",
            "Duration of all calls of an attempt to compute a batch."
        );
        describe_gauge!("larder_plugin_memory_high_water_bytes", "Highest memory use of an instance.");
        describe_counter!("larder_plugin_instances_total", "Instances that were created.");
        describe_gauge!("larder_plugin_info", "1 for each live version, with the digest of its file.");
        describe_counter!(
            "larder_plugin_log_lines_dropped_total",
            "Log lines dropped because a plugin exceeded its rate limit."
        );
        let labels = || [("plugin", plugin.to_owned()), ("version", version.to_owned()), ("view", view.to_owned())];
        let error = |kind: &'static str| {
            let [plugin, version, view] = labels();
            let kind_label = ("kind", kind.to_owned());
            (kind, counter!("larder_plugin_errors_total", &[plugin, version, view, kind_label]))
        };
        let [plugin, version, view] = labels();
        let info_labels = [plugin, version, view, ("digest", digest.to_owned())];
        Self {
            calls: counter!("larder_plugin_calls_total", &labels()),
            rows: counter!("larder_plugin_rows_total", &labels()),
            failed_rows: counter!("larder_plugin_failed_rows_total", &labels()),
            duration: histogram!("larder_plugin_duration_seconds", &labels()),
            errors: CallError::KINDS.map(error),
            memory: gauge!("larder_plugin_memory_high_water_bytes", &labels()),
            high_water: AtomicUsize::new(0),
            instances: counter!("larder_plugin_instances_total", &labels()),
            info: gauge!("larder_plugin_info", &info_labels),
        }
    }

    pub(super) fn call(&self, rows: usize, took: Duration) {
        self.calls.increment(1);
        self.rows.increment(rows as u64);
        self.duration.record(took.as_secs_f64());
    }

    pub(super) fn failed_rows(&self, rows: usize) {
        self.failed_rows.increment(rows as u64);
    }

    pub(super) fn error(&self, kind: &'static str) {
        if let Some((_, counter)) = self.errors.iter().find(|(known, _)| *known == kind) {
            counter.increment(1);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "bytes, far below 2^53")]
    pub(super) fn memory(&self, bytes: usize) {
        if self.high_water.fetch_max(bytes, Ordering::Relaxed) < bytes {
            self.memory.set(bytes as f64);
        }
    }

    pub(super) fn instance(&self) {
        self.instances.increment(1);
    }

    pub(super) fn in_service(&self, is_in_service: bool) {
        self.info.set(if is_in_service { 1.0 } else { 0.0 });
    }
}
