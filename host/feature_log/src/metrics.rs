//! The metrics of the feature log.

use larder_serving::DROPPED_ROWS;
use metrics::{Counter, counter, describe_counter};

/// The counters of the log.
pub(super) struct LogMetrics {
    /// The rows in files that were written.
    pub(super) rows: Counter,
    /// The bytes of files that were written.
    pub(super) bytes: Counter,
    /// The failed attempts to write a file.
    pub(super) failures: Counter,
    /// The rows that were dropped because their file could not be written.
    pub(super) not_written: Counter,
    /// The rows that were dropped because they could not be converted.
    pub(super) not_converted: Counter,
}

// === impl LogMetrics ===

impl LogMetrics {
    pub(super) fn bind() -> Self {
        describe_counter!("larder_feature_log_rows_total", "Entity rows in files of the feature log.");
        describe_counter!("larder_feature_log_bytes_total", "Bytes of files of the feature log.");
        describe_counter!(
            "larder_feature_log_write_failures_total",
            "Failed attempts to write a file of the feature log. Larder retries a few times."
        );
        Self {
            rows: counter!("larder_feature_log_rows_total"),
            bytes: counter!("larder_feature_log_bytes_total"),
            failures: counter!("larder_feature_log_write_failures_total"),
            not_written: counter!(DROPPED_ROWS, "reason" => "write_failed"),
            not_converted: counter!(DROPPED_ROWS, "reason" => "not_converted"),
        }
    }
}
