//! Errors of sync runs. The message names the view; the source's part names the file and the column.

use larder_source::SourceError;
use larder_store::StoreError;

/// The reason why a sync failed. Previously committed rows keep serving.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The source cannot be read.
    #[error("view '{view}': {source}")]
    Source {
        /// The view.
        view: String,
        /// The error of its source.
        source: SourceError,
    },
    /// The store cannot be written.
    #[error("view '{view}': {source}")]
    Store {
        /// The view.
        view: String,
        /// The error of the store.
        source: StoreError,
    },
    /// The source failed the sanity checks: see [`super::SanityLimits`].
    #[error("view '{view}': {path}: {why}")]
    Refused {
        /// The view.
        view: String,
        /// The source.
        path: String,
        /// The reason.
        why: String,
    },
    /// The view has no source.
    #[error("view '{view}' has no source to sync from")]
    NoSource {
        /// The view.
        view: String,
    },
    /// The view does not exist.
    #[error("feature view '{view}' does not exist{hint}")]
    UnknownView {
        /// The requested name.
        view: String,
        /// A suggestion.
        hint: String,
    },
    /// Too many syncs of the view are waiting for the running one.
    #[error("view '{view}': a sync is running, and too many others are waiting for it; try again later")]
    Busy {
        /// The view.
        view: String,
    },
    /// The run was interrupted by a request to stop.
    #[error("view '{view}': the sync was stopped early; committed rows are kept")]
    Stopped {
        /// The view.
        view: String,
    },
    /// The run panicked, which is a bug in Larder.
    #[error("view '{view}': the sync failed because of a bug in Larder: {what}")]
    Panicked {
        /// The view.
        view: String,
        /// The message of the panic.
        what: String,
    },
}

// === impl SyncError ===

impl SyncError {
    /// Returns the name of the view.
    #[must_use]
    pub fn view(&self) -> &str {
        match self {
            Self::Source { view, .. }
            | Self::Store { view, .. }
            | Self::Refused { view, .. }
            | Self::NoSource { view }
            | Self::UnknownView { view, .. }
            | Self::Busy { view }
            | Self::Stopped { view }
            | Self::Panicked { view, .. } => view,
        }
    }

    /// Returns the kind of failure, as a metric label.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Source { source, .. } => source.kind(),
            Self::Store { source, .. } => source.kind(),
            Self::Refused { .. } => "refused",
            Self::NoSource { .. } => "no_source",
            Self::UnknownView { .. } => "unknown_view",
            Self::Busy { .. } => "busy",
            Self::Stopped { .. } => "stopped",
            Self::Panicked { .. } => "panic",
        }
    }
}
