//! Errors of syncs. Each message names the view. If the source failed, the message also names the file and the column.

use larder_source::SourceError;
use larder_store::StoreError;

/// The reason why a sync failed. Previously committed rows are still served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The source cannot be read.
    #[error("view '{view}': {source}")]
    Source {
        /// The name of the view.
        view: String,
        /// The error of its source.
        source: SourceError,
    },
    /// The store cannot be written.
    #[error("view '{view}': {source}")]
    Store {
        /// The name of the view.
        view: String,
        /// The error of the store.
        source: StoreError,
    },
    /// The source failed the sanity checks: see [`super::SanityLimits`].
    #[error("view '{view}': {path}: {why}")]
    Refused {
        /// The name of the view.
        view: String,
        /// The path or name of the source.
        path: String,
        /// The check that failed, the numbers, and a hint.
        why: String,
    },
    /// The view has no source.
    #[error("view '{view}' has no source to sync from")]
    NoSource {
        /// The name of the view.
        view: String,
    },
    /// The view does not exist.
    #[error("feature view '{view}' does not exist{hint}")]
    UnknownView {
        /// The requested name.
        view: String,
        /// The suggestion of a similar name, in parentheses; empty if there is none.
        hint: String,
    },
    /// Too many syncs of the view are waiting for the running one.
    #[error("view '{view}': a sync is running, and too many others are waiting for it; try again later")]
    Busy {
        /// The name of the view.
        view: String,
    },
    /// The sync was interrupted because the process is stopping.
    #[error("view '{view}': the sync was stopped early; committed rows are kept")]
    Stopped {
        /// The name of the view.
        view: String,
    },
    /// The thread of the sync cannot be started.
    #[error("view '{view}': cannot start a thread for the sync: {source}")]
    NoThread {
        /// The name of the view.
        view: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The sync panicked, which is a bug in Larder.
    #[error("view '{view}': the sync failed because of a bug in Larder: {what}")]
    Panicked {
        /// The name of the view.
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
            | Self::NoThread { view, .. }
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
            Self::NoThread { .. } => "no_thread",
            Self::Panicked { .. } => "panic",
        }
    }
}
