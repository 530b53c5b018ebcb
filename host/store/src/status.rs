//! The ids and the status of views.

use larder_model::model::Micros;

/// Identifies a view in the store. It is valid for as long as the store exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewId(pub(super) u32);

// === impl ViewId ===

impl ViewId {
    /// Returns an ID for a view that is in no store, which only differs from those of other such views.
    #[must_use]
    pub fn without_store(index: usize) -> Self {
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }
}

/// The status of a view, which is available without reading the view's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewStatus {
    /// The number of rows.
    pub rows: u64,
    /// How far the source was read, in the source's own format.
    pub position: Option<String>,
    /// The freshness of the view.
    pub freshness: Freshness,
    /// Whether rows were lost to damage and have not been restored by a full load yet.
    pub is_damaged: bool,
    /// The number of rows that were lost to damage and have not been restored.
    pub rows_lost: u64,
    /// The time of the last successful materialization of a time range.
    pub last_materialized: Option<Micros>,
}

/// The freshness of a view. It has two times, because a successful load may contain no new rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    /// The time of the last successful load or, for a view without a source, of the last write. `None` if there was
    /// none since the view was created or its rows were last dropped: the view is then not loaded.
    pub last_success: Option<Micros>,
    /// The newest event time of any row.
    pub newest_event: Option<Micros>,
}

// === impl ViewId ===

impl ViewId {
    /// Creates an id without a store, for code that only passes ids on or compares them.
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        Self(number)
    }
}
