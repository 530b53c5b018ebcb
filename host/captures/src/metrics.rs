//! The metrics of captures.

use metrics::{Counter, counter, describe_counter};

use super::CaptureKind;

/// The counters of captures.
#[derive(Clone)]
pub(crate) struct CaptureMetrics {
    failed: Counter,
    sampled: Counter,
    /// The rows that were dropped because the queue was full.
    pub(crate) queue_full: Counter,
    /// The rows that were dropped because their file could not be written.
    pub(crate) write_failed: Counter,
    /// The files that were removed to keep the limit on the size of all files.
    pub(crate) removed: Counter,
}

const ROWS: &str = "larder_plugin_captured_rows_total";
const DROPPED: &str = "larder_plugin_capture_dropped_rows_total";
const REMOVED: &str = "larder_plugin_capture_removed_files_total";

// === impl CaptureMetrics ===

impl CaptureMetrics {
    pub(crate) fn bind() -> Self {
        describe_counter!(ROWS, "Rows of plugin calls in capture files, by kind of call.");
        describe_counter!(DROPPED, "Rows of plugin calls that were not captured, by reason.");
        describe_counter!(REMOVED, "Capture files that were removed because all files exceeded their limit.");
        Self {
            failed: counter!(ROWS, "kind" => "failed"),
            sampled: counter!(ROWS, "kind" => "sampled"),
            queue_full: counter!(DROPPED, "reason" => "queue_full"),
            write_failed: counter!(DROPPED, "reason" => "write_failed"),
            removed: counter!(REMOVED),
        }
    }

    /// Returns the counter of rows in files.
    pub(crate) fn written(&self, kind: CaptureKind) -> &Counter {
        match kind {
            CaptureKind::Failed => &self.failed,
            CaptureKind::Sampled => &self.sampled,
        }
    }
}
