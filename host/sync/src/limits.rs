//! The limits of a sync.

use std::time::Duration;

use larder_ingest::MATERIALIZATIONS_MAX;
use larder_model::{codec::ROW_BYTES_MAX, model::Micros};
use larder_source::Source;
use larder_store::RowTimes;

use super::SanityLimits;

/// The limits of a sync.
#[derive(Clone, Copy, Debug)]
pub struct SyncLimits {
    /// A transaction is committed once it has at least this many rows.
    pub commit_rows: usize,
    /// A transaction is committed once its rows have at least this many bytes.
    pub commit_bytes: usize,
    /// The delay before a failed sync is retried. It doubles with each further failure, up to five minutes.
    pub retry: Duration,
    /// The limits of the sanity checks of a source.
    pub sanity: SanityLimits,
    /// How far in the future a row's event time may be. Rows with later event times are held back until they are due.
    pub future_tolerance: Duration,
}

/// The number of syncs that share the memory of one sync; see [`SyncLimits::shared`].
const SHARED_RUNS: usize = MATERIALIZATIONS_MAX;

impl Default for SyncLimits {
    fn default() -> Self {
        // Transactions are large because each one rewrites the pages that it changes, and the rows of a transaction are
        // spread over all pages, because their IDs are random.
        let (retry, sanity) = (Duration::from_secs(5), SanityLimits::default());
        // Clocks of producers may be slightly ahead, while a wrong time zone shifts times by an hour or more.
        let future_tolerance = Duration::from_hours(1);
        Self { commit_rows: 262_144, commit_bytes: 64 << 20, retry, sanity, future_tolerance }
    }
}

// === impl SyncLimits ===

impl SyncLimits {
    /// Returns how the times of a source's rows are interpreted.
    #[must_use]
    pub fn times(&self, source: &dyn Source) -> RowTimes {
        // A DynamoDB table cannot be read by event time either, but it is not static, because its stream has the order
        // of the writes.
        let properties = source.properties();
        let is_static = !properties.has_windows && !properties.last_put_wins;
        RowTimes { is_static, ..self.times_of(properties.time_unit) }
    }

    /// Returns the limits of a sync that shares the memory of one sync with other syncs.
    pub(super) fn shared(self) -> Self {
        let (commit_rows, commit_bytes) = (self.commit_rows / SHARED_RUNS, self.commit_bytes / SHARED_RUNS);
        Self { commit_rows: commit_rows.max(1), commit_bytes: commit_bytes.max(ROW_BYTES_MAX), ..self }
    }

    /// Returns how the times of rows are interpreted if the source truncates them to `unit`, in microseconds, or does
    /// not truncate them (`None`). Unlike [`SyncLimits::times`], assumes that the source has event times.
    pub(super) fn times_of(&self, unit: Option<Micros>) -> RowTimes {
        let tolerance = Micros::try_from(self.future_tolerance.as_micros()).unwrap_or(Micros::MAX);
        RowTimes { tolerance, coarse: unit.is_some(), is_static: false }
    }
}
