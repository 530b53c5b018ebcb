//! Interfaces for writes on request: rows that callers send, and materializations that callers start.

use std::{fmt::Debug, sync::Arc, time::Duration};

use larder_model::model::Window;
use larder_store::Applied;

use super::{Frame, Progress, WriteError};

/// Writes to the views of one catalog. Each call blocks the calling thread.
pub trait RowWriter: Send + Sync + Debug {
    /// Writes the rows of a frame to one view. When this returns, the rows are durable and served.
    ///
    /// # Errors
    /// [`WriteError`]. In that case, nothing was written.
    fn write(&self, view: &str, frame: &Frame) -> Result<Applied, WriteError>;

    /// Writes the rows of a frame to every view with this push source. If any row is invalid for any view, nothing is
    /// written. The views are committed one after another.
    ///
    /// # Errors
    /// [`WriteError`]. If a commit fails ([`WriteError::Store`], [`WriteError::Superseded`]), the rows were written to
    /// the views that were committed before. The caller can repeat the same push.
    fn push(&self, source: &str, frame: &Frame) -> Result<Applied, WriteError>;

    /// Returns the names of the views that can be materialized.
    fn materializable(&self) -> Vec<String>;

    /// Returns the names of the views that cannot be materialized, each with the reason.
    fn not_materializable(&self) -> Vec<(String, String)>;

    /// Loads the rows with event times in a range from a view's files.
    ///
    /// # Errors
    /// [`MaterializeError`]. The reason for a failure of the source or the store is logged.
    fn materialize(
        &self,
        view: &str,
        window: Window,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), MaterializeError>;
}

/// The writer for the current definitions.
pub trait CurrentWriter: Send + Sync + Debug {
    /// Returns the current writer. When the definitions change, another writer replaces it.
    fn current(&self) -> Arc<dyn RowWriter>;
}

/// The status of a source.
pub trait SourceStatus: Send + Sync + Debug {
    /// Returns the maximum time until a change in the source is detected. Returns `None` if the kind of source does not
    /// determine this time.
    fn staleness(&self) -> Option<Duration>;

    /// Returns a notice for users, with a hint, if changes to the source cannot be followed as configured. Returns
    /// `None` otherwise.
    fn caveat(&self) -> Option<String>;
}

/// Why a view was not materialized, as reported to the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("feature view '{view}' was not materialized")]
pub struct MaterializeError {
    /// The view; empty if unknown.
    pub view: String,
    /// Whether the same request can succeed later, because the server is only busy or stopping.
    pub is_busy: bool,
}

/// The maximum number of concurrent materializations.
pub const MATERIALIZATIONS_MAX: usize = 4;

/// The maximum time that a shutdown waits for a load to reach its next commit. After this time, the load is abandoned,
/// for example if it waits for its source. After the next start, the rows that were not committed are read again.
pub const LAST_COMMIT_WITHIN: Duration = Duration::from_millis(2_500);
