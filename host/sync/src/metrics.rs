//! The sync engine's metrics, bound once per view when the catalog is loaded.

use std::time::Duration;

use larder_ingest::{Skipped, SyncReport};
use larder_model::codec::Retyped;
use larder_store::{Applied, ViewStatus};
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use super::SyncError;

const LAST_MATERIALIZATION: &str = "larder_view_last_materialization_timestamp_seconds";

/// The metric handles of one view.
#[derive(Clone)]
pub(super) struct ViewMetrics {
    view: String,
    inserted: Counter,
    updated: Counter,
    unchanged: Counter,
    stale: Counter,
    removed: Counter,
    skipped: Counter,
    future: Counter,
    written: Counter,
    refused: Counter,
    duration: Histogram,
    last_success: Gauge,
    last_materialization: Gauge,
    newest_event: Gauge,
    rows: Gauge,
    converted: Gauge,
    not_converted: Gauge,
}

const RETYPED: &str = "larder_view_features_retyped";

/// Counts values that became null because they do not match their feature's type.
pub(super) fn note_values(view: &str, skipped: &Skipped) {
    for values in &skipped.values {
        let (view, feature) = (view.to_owned(), values.feature.clone());
        counter!("larder_sync_values_nulled_total", "view" => view, "feature" => feature).increment(values.count);
    }
}

// === impl ViewMetrics ===

impl ViewMetrics {
    pub(super) fn bind(view: &str) -> Self {
        describe_counter!("larder_sync_rows_total", "Rows read from a view's source, by result.");
        describe_counter!(
            "larder_sync_values_nulled_total",
            "Values of a view's source that became null because they do not match their feature's type."
        );
        describe_counter!(
            "larder_rows_written_total",
            "Rows that callers wrote or materialized, by whether the store had a newer row."
        );
        describe_histogram!("larder_sync_duration_seconds", "Duration of successful syncs of a view.");
        describe_counter!("larder_sync_errors_total", "Syncs and materializations of a view that failed, by reason.");
        describe_gauge!("larder_view_last_success_timestamp_seconds", "Time of the last successful sync of the view.");
        describe_gauge!(
            LAST_MATERIALIZATION,
            "Time of the last successful sync of the view, or of the last materialization of a time range if \
             that was later."
        );
        describe_gauge!("larder_view_newest_event_timestamp_seconds", "The newest event time of the view's rows.");
        describe_gauge!(
            "larder_view_lag_seconds",
            "Age of the oldest unread change in the stream of a view's table; 0 if every change was read."
        );
        describe_gauge!(
            "larder_view_staleness_bound_seconds",
            "Longest time from a change in the view's table until the change is served: the poll interval of the \
             table's stream or, if the table has no stream, the scan interval or 'fresh_for'."
        );
        describe_gauge!("larder_view_rows", "Rows of the view in the store.");
        describe_gauge!(
            RETYPED,
            "Features whose type in the definition may differ from their type in stored rows, by how the values \
             are served."
        );
        let retyped = |served: &'static str| gauge!(RETYPED, "view" => view.to_owned(), "served" => served);
        let rows =
            |result: &'static str| counter!("larder_sync_rows_total", "view" => view.to_owned(), "result" => result);
        Self {
            view: view.to_owned(),
            inserted: rows("inserted"),
            updated: rows("updated"),
            unchanged: rows("unchanged"),
            stale: rows("stale"),
            removed: rows("removed"),
            skipped: rows("skipped"),
            future: rows("future"),
            written: counter!("larder_rows_written_total", "view" => view.to_owned(), "result" => "newest"),
            refused: counter!("larder_rows_written_total", "view" => view.to_owned(), "result" => "stale"),
            duration: histogram!("larder_sync_duration_seconds", "view" => view.to_owned()),
            last_success: gauge!("larder_view_last_success_timestamp_seconds", "view" => view.to_owned()),
            last_materialization: gauge!(LAST_MATERIALIZATION, "view" => view.to_owned()),
            newest_event: gauge!("larder_view_newest_event_timestamp_seconds", "view" => view.to_owned()),
            rows: gauge!("larder_view_rows", "view" => view.to_owned()),
            converted: retyped("converted"),
            not_converted: retyped("not_found"),
        }
    }

    pub(super) fn record_success(&self, report: &SyncReport) {
        self.inserted.increment(report.applied.inserted);
        self.updated.increment(report.applied.updated);
        self.unchanged.increment(report.applied.unchanged);
        self.stale.increment(report.applied.stale);
        self.removed.increment(report.applied.removed);
        if let Some(lag) = report.lag {
            gauge!("larder_view_lag_seconds", "view" => self.view.clone()).set(lag.as_secs_f64());
        }
        self.skipped.increment(report.skipped.rows());
        note_values(&self.view, &report.skipped);
        self.future.increment(report.skipped.future);
        self.duration.record(report.elapsed.as_secs_f64());
    }

    pub(super) fn record_write(&self, applied: Applied) {
        self.refused.increment(applied.stale);
        self.written.increment(applied.rows() - applied.stale);
    }

    pub(super) fn record_failure(&self, error: &SyncError) {
        counter!("larder_sync_errors_total", "view" => self.view.clone(), "reason" => error.kind()).increment(1);
    }

    pub(super) fn set_staleness_bound(&self, bound: Duration) {
        gauge!("larder_view_staleness_bound_seconds", "view" => self.view.clone()).set(bound.as_secs_f64());
    }

    /// Records the number of features that may have another type in stored rows than in the definition.
    #[expect(clippy::cast_precision_loss, reason = "a number of features")]
    pub(super) fn set_retyped(&self, retyped: &[Retyped]) {
        let converted = retyped.iter().filter(|feature| feature.conversion.is_some()).count();
        self.converted.set(converted as f64);
        self.not_converted.set((retyped.len() - converted) as f64);
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a double; microseconds of a date are exact in it")]
    pub(super) fn set_status(&self, status: &ViewStatus) {
        self.rows.set(status.rows as f64);
        if let Some(at) = status.freshness.last_success {
            self.last_success.set(at as f64 / 1e6);
        }
        if let Some(at) = status.freshness.last_success.max(status.last_materialized) {
            self.last_materialization.set(at as f64 / 1e6);
        }
        if let Some(at) = status.freshness.newest_event {
            self.newest_event.set(at as f64 / 1e6);
        }
    }
}

impl std::fmt::Debug for ViewMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ViewMetrics").field("view", &self.view).finish_non_exhaustive()
    }
}
