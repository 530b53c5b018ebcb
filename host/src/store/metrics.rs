//! The store's metrics. Handles are bound once, here; the read path adds to plain counters.

use metrics::{Counter, counter, describe_counter};

#[derive(Clone)]
pub(super) struct StoreMetrics {
    pub(super) hot_hits: Counter,
    pub(super) hot_misses: Counter,
    pub(super) reads: Counter,
    pub(super) commits: Counter,
    pub(super) reopened: Counter,
}

// === impl StoreMetrics ===

impl StoreMetrics {
    /// Binds the handles; the recorder has to be installed before, or what they count is lost.
    pub(super) fn bind() -> Self {
        describe_counter!("larder_hot_cache_requests_total", "Rows looked for in the hot cache, by result.");
        describe_counter!("larder_store_reads_total", "Rows looked for in the store on disk.");
        describe_counter!("larder_store_commits_total", "Transactions committed to the store.");
        describe_counter!("larder_store_reopened_total", "How often the store was opened again after a failure.");
        Self {
            hot_hits: counter!("larder_hot_cache_requests_total", "result" => "hit"),
            hot_misses: counter!("larder_hot_cache_requests_total", "result" => "miss"),
            reads: counter!("larder_store_reads_total"),
            commits: counter!("larder_store_commits_total"),
            reopened: counter!("larder_store_reopened_total"),
        }
    }
}

impl std::fmt::Debug for StoreMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreMetrics").finish_non_exhaustive()
    }
}
