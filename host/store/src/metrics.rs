//! The store's metrics. The handles are bound once, when the store is opened.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

#[derive(Clone)]
pub(super) struct StoreMetrics {
    pub(super) hot_hits: Counter,
    pub(super) hot_misses: Counter,
    pub(super) reads: Counter,
    pub(super) commits: Counter,
    pub(super) reopened: Counter,
    pub(super) damage: Counter,
    pub(super) rebuilt: Counter,
    pub(super) rebuilds_failed: Counter,
    pub(super) scanned: Gauge,
}

const REBUILDS: &str = "larder_store_rebuilds_total";
const ROWS_LOST: &str = "larder_store_rows_lost_total";

// === impl StoreMetrics ===

impl StoreMetrics {
    /// Binds the handles. Install the recorder before this call, because counts are lost otherwise.
    pub(super) fn bind() -> Self {
        describe_counter!("larder_hot_cache_requests_total", "Rows looked up in the hot cache, by result.");
        describe_counter!("larder_store_reads_total", "Rows looked up in the store on disk.");
        describe_counter!("larder_store_commits_total", "Transactions committed to the store.");
        describe_counter!("larder_store_reopened_total", "Number of times the store was reopened after a failure.");
        describe_counter!("larder_store_damage_total", "Number of times damage was found in the store file.");
        describe_counter!(REBUILDS, "Rebuilds of a damaged store, by result.");
        describe_counter!(ROWS_LOST, "Rows lost to damage, by view. Views with a source load them again.");
        describe_gauge!(
            "larder_store_last_scan_timestamp_seconds",
            "Time of the last background scan of the whole store that found no damage."
        );
        Self {
            hot_hits: counter!("larder_hot_cache_requests_total", "result" => "hit"),
            hot_misses: counter!("larder_hot_cache_requests_total", "result" => "miss"),
            reads: counter!("larder_store_reads_total"),
            commits: counter!("larder_store_commits_total"),
            reopened: counter!("larder_store_reopened_total"),
            damage: counter!("larder_store_damage_total"),
            rebuilt: counter!(REBUILDS, "result" => "success"),
            rebuilds_failed: counter!(REBUILDS, "result" => "error"),
            scanned: gauge!("larder_store_last_scan_timestamp_seconds"),
        }
    }

    pub(super) fn rows_lost(view: &str, rows: u64) {
        counter!(ROWS_LOST, "view" => view.to_owned()).increment(rows);
    }
}

impl std::fmt::Debug for StoreMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreMetrics").finish_non_exhaustive()
    }
}
