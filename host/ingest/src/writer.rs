//! Writes on request: rows of callers, and materializations that callers start.

use std::{fmt::Debug, sync::Arc, time::Duration};

use larder_model::model::Window;
use larder_store::Applied;

use super::{Frame, Progress, WriteError};

/// Writes to the views of one catalog. Each call blocks its thread.
pub trait RowWriter: Send + Sync + Debug {
    /// Writes rows of a caller to one view. They are durable and served when this returns.
    ///
    /// # Errors
    /// [`WriteError`]; nothing was written in that case.
    fn write(&self, view: &str, frame: &Frame) -> Result<Applied, WriteError>;

    /// Writes rows of a caller to every view that a push source feeds. Either all rows are valid, or none is written;
    /// the views are committed one after another.
    ///
    /// # Errors
    /// [`WriteError`]. If a row is invalid for one of the views, nothing was written. If a commit fails
    /// ([`WriteError::Store`], [`WriteError::Superseded`]), the views before that one were written; the same push can
    /// be repeated.
    fn push(&self, source: &str, frame: &Frame) -> Result<Applied, WriteError>;

    /// Returns the names of the views that can be materialized.
    fn materializable(&self) -> Vec<String>;

    /// Returns the views that cannot be materialized: their names and the reasons.
    fn not_materializable(&self) -> Vec<(String, String)>;

    /// Loads the rows with event times in a range from a view's files.
    ///
    /// # Errors
    /// [`MaterializeError`]; a failure of the source or the store is logged.
    fn materialize(
        &self,
        view: &str,
        window: Window,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), MaterializeError>;
}

/// The writer for the current definitions.
pub trait CurrentWriter: Send + Sync + Debug {
    /// Returns the current writer. A change of the definitions replaces it.
    fn current(&self) -> Arc<dyn RowWriter>;
}

/// The status of a source.
pub trait SourceStatus: Send + Sync + Debug {
    /// Returns the maximum time before a change in the source is detected, if the kind of source determines it.
    fn staleness(&self) -> Option<Duration>;

    /// Returns a notice for users, with a hint, if changes of the source cannot be followed as configured.
    fn caveat(&self) -> Option<String>;
}

/// Why a view was not materialized, as reported to the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("feature view '{view}' was not materialized")]
pub struct MaterializeError {
    /// The view; empty if unknown.
    pub view: String,
    /// Whether the same request can succeed later: the server is busy, or stopping.
    pub is_busy: bool,
}

/// The maximum number of concurrent materializations.
pub const MATERIALIZATIONS_MAX: usize = 4;

/// How long a shutdown waits for a load to reach its next commit. A load that waits for its source is abandoned, and
/// the next start reads uncommitted rows again.
pub const LAST_COMMIT_WITHIN: Duration = Duration::from_millis(2_500);
