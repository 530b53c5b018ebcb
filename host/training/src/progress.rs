//! The progress of a job, which other threads can read, and a way to stop the job.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::TrainingError;

/// The progress of a job.
#[derive(Debug, Default)]
pub struct Progress {
    feature_rows: AtomicU64,
    rows: AtomicU64,
    is_stopped: AtomicBool,
}

// === impl Progress ===

impl Progress {
    /// Returns the number of feature rows that were read. Rows that are read again for more entity rows are counted again.
    #[must_use]
    pub fn feature_rows(&self) -> u64 {
        self.feature_rows.load(Relaxed)
    }

    /// Returns the number of entity rows whose features were returned.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.load(Relaxed)
    }

    /// Stops the job, which then returns [`TrainingError::Stopped`] after at most one batch of rows.
    pub fn stop(&self) {
        self.is_stopped.store(true, Relaxed);
    }

    pub(super) fn add_feature_rows(&self, rows: u64) {
        self.feature_rows.fetch_add(rows, Relaxed);
    }

    pub(super) fn add_rows(&self, rows: u64) {
        self.rows.fetch_add(rows, Relaxed);
    }

    /// Fails if the job was stopped.
    pub(super) fn check(&self) -> Result<(), TrainingError> {
        if self.is_stopped.load(Relaxed) { Err(TrainingError::Stopped) } else { Ok(()) }
    }
}
