//! The admin door: what the command line asks of a running host, over a Unix socket that only its owner can open.

use serde::{Deserialize, Serialize};

use crate::sync::{Progress, SyncReport, SyncRequest};

/// What can be asked of a running host beside features.
pub trait Control: Send + Sync + std::fmt::Debug {
    /// Syncs views, all with a source if none is named, and tells every step. Blocks until the end.
    fn sync(&self, command: &SyncCommand, tell: &mut dyn FnMut(AdminEvent));

    /// Reads configuration and definitions again. The error is what is wrong with them.
    ///
    /// # Errors
    /// The mistakes, one per line; what was served is served on.
    fn reload(&self) -> Result<String, String>;
}

/// The body of `POST /v1/sync`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyncCommand {
    /// The views, by name; all with a source when empty.
    pub views: Vec<String>,
    /// Read everything, also what was read before.
    pub full: bool,
    /// Only event times from here on, in microseconds.
    pub from: Option<i64>,
    /// Only event times up to here, in microseconds.
    pub to: Option<i64>,
}

/// One line of the answer to `POST /v1/sync`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum AdminEvent {
    /// A view is being read.
    Progress {
        /// The view.
        view: String,
        /// How far it is.
        #[serde(flatten)]
        progress: Progress,
    },
    /// A view has been brought up to date.
    Synced {
        /// What came of it.
        report: SyncReport,
    },
    /// A view could not be brought up to date.
    Failed {
        /// The view.
        view: String,
        /// Why.
        error: String,
    },
}

// === impl SyncCommand ===

impl SyncCommand {
    /// What each view's run is asked for.
    #[must_use]
    pub fn request(&self) -> SyncRequest {
        SyncRequest { full: self.full, window: crate::source::Window { from: self.from, to: self.to } }
    }
}
