//! The report of a training set.

/// The report of a training set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The number of entity rows.
    pub rows: u64,
    /// The number of entity rows without a time, whose features are null.
    pub rows_without_time: u64,
    /// The reads of views, in the order of the request. A view with several projections in a service is read once for each projection.
    pub views: Vec<ViewReport>,
    /// The derived views, in the order in which they were computed.
    pub derived: Vec<DerivedReport>,
}

/// The rows of a derived view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DerivedReport {
    /// The view.
    pub view: String,
    /// The number of entity rows that the plugin could not compute.
    pub failed: u64,
}

/// The counts of one read of a view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewReport {
    /// The view.
    pub view: String,
    /// The number of feature rows that were read.
    pub feature_rows: u64,
    /// The number of feature rows without a key or an event time, which were skipped.
    pub skipped: u64,
    /// The number of entity rows with a feature row that is not older than the view's `ttl`.
    pub matched: u64,
    /// The number of entity rows whose feature row is older than the view's `ttl`.
    pub expired: u64,
    /// The number of entity rows without a feature row.
    pub not_found: u64,
    /// The number of entity rows whose feature row was created after the entity row's time: a lookup at that time would not
    /// have found it.
    pub late: u64,
}
