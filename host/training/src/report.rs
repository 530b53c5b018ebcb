//! The report of a training set, and its warnings.

use std::time::Duration;

use larder_model::model::Micros;
use serde::{Deserialize, Serialize};

/// The report of a training set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The number of entity rows.
    pub rows: u64,
    /// The number of entity rows without a time, whose features are null.
    pub rows_without_time: u64,
    /// The latest time of an entity row, in microseconds since 1970.
    pub latest_time: Option<Micros>,
    /// The number of parts in which the entity rows were joined.
    pub parts: u64,
    /// The reads of views, in the order of the request. A view with several projections in a service is read once for each
    /// projection.
    pub views: Vec<ViewReport>,
    /// The derived views, in the order in which they were computed.
    pub derived: Vec<DerivedReport>,
}

/// The rows of a derived view.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DerivedReport {
    /// The view.
    pub view: String,
    /// The number of entity rows that the plugin could not compute.
    pub failed: u64,
}

/// The counts of one read of a view.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewReport {
    /// The view.
    pub view: String,
    /// The view's `ttl`.
    pub ttl: Option<Duration>,
    /// The number of feature rows that were read.
    pub feature_rows: u64,
    /// The number of feature rows without a key or an event time, which were skipped.
    pub skipped: u64,
    /// The number of row groups that were not read, because all of their rows are later than all entity rows, or are
    /// expired for all of them. An entity row counts as not found if its feature row is in such a row group.
    pub row_groups_skipped: u64,
    /// The number of entity rows with a feature row that is not older than the view's `ttl`.
    pub matched: u64,
    /// The number of entity rows whose feature row is older than the view's `ttl`.
    pub expired: u64,
    /// The number of entity rows without a feature row.
    pub not_found: u64,
    /// The number of entity rows with a time but without a complete key.
    pub no_key: u64,
    /// The number of entity rows whose feature row was created after the entity row's time: a lookup at that time would not
    /// have found it.
    pub late: u64,
    /// The number of entity rows whose feature row has the entity row's time.
    pub same_time: u64,
}

// === impl Report ===

impl Report {
    /// Adds the counts of more entity rows.
    pub(super) fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.rows_without_time += other.rows_without_time;
        self.latest_time = self.latest_time.max(other.latest_time);
        for (view, more) in self.views.iter_mut().zip(&other.views) {
            view.matched += more.matched;
            view.expired += more.expired;
            view.not_found += more.not_found;
            view.no_key += more.no_key;
            view.late += more.late;
            view.same_time += more.same_time;
        }
        for (view, more) in self.derived.iter_mut().zip(&other.derived) {
            view.failed += more.failed;
        }
    }
}
