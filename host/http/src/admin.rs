//! The admin door: what the command line asks of a running host, over a Unix socket that only its owner can open.

use std::collections::BTreeMap;

use larder_ingest::{Progress, SyncReport, SyncRequest};
use serde::{Deserialize, Serialize};

/// What can be asked of a running host beside features.
pub trait Control: Send + Sync + std::fmt::Debug {
    /// Syncs views, all with a source if none is named, each once, and reports every step. Blocks until the end; during
    /// a shutdown, only until the load's next commit.
    fn sync(&self, command: &SyncCommand, tell: &mut dyn FnMut(AdminEvent));

    /// Reads configuration and definitions again. The error is what is wrong with them.
    ///
    /// # Errors
    /// The errors, one per line. The previous definitions stay in effect.
    fn reload(&self) -> Result<String, String>;

    /// Deletes an entity's row from a view, until a newer one arrives. Blocks for a commit.
    ///
    /// # Errors
    /// A problem with the view, the key or the store; nothing was deleted in that case.
    fn delete(&self, command: &DeleteCommand) -> Result<EraseReport, String>;

    /// Drops all rows of a view. Blocks for a commit. Use [`Control::sync`] to load the rows again.
    ///
    /// # Errors
    /// A problem with the view or the store; nothing was dropped in that case.
    fn reset(&self, command: &ResetCommand) -> Result<EraseReport, String>;

    /// Takes a plugin's file into service. Blocks until it is compiled, fitted and tried. The error is why it is refused.
    ///
    /// # Errors
    /// What is wrong with it; what was in service goes on.
    fn deploy(&self, file: &[u8]) -> Result<DeployReport, String>;

    /// Puts the version before back into service.
    ///
    /// # Errors
    /// That there is none.
    fn roll_back(&self, plugin: &str) -> Result<DeployReport, String>;

    /// The plugins, by name.
    fn plugins(&self) -> Vec<PluginStatus>;

    /// The most bytes that a plugin's file can have.
    fn plugin_bytes_max(&self) -> usize;
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
    /// Load what the source has even if it fails the sanity checks.
    pub force: bool,
    /// Leave sources alone that were read a short time ago. Nobody asks for that; a start and a reload do.
    #[serde(skip)]
    pub spare: bool,
}

/// The body of `POST /v1/delete`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteCommand {
    /// The feature view.
    pub view: String,
    /// The value of each join key, as text.
    pub key: BTreeMap<String, String>,
}

/// The body of `POST /v1/reset`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResetCommand {
    /// The feature view.
    pub view: String,
    /// Whether rows may be dropped that cannot be loaded from a source.
    #[serde(default)]
    pub confirmed: bool,
}

/// The response to both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EraseReport {
    /// How many rows there were.
    pub rows: u64,
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

/// The answer to `POST /v1/plugins` and `POST /v1/plugins/NAME/rollback`: a version is in service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeployReport {
    /// The plugin.
    pub plugin: String,
    /// The version that is in service now.
    pub version: String,
    /// SHA-256 of its file, in hexadecimal.
    pub digest: String,
    /// The version that was in service before.
    pub replaced: Option<String>,
    /// The derived views that it computes.
    pub views: Vec<String>,
    /// Whether its code had to be compiled; cached otherwise.
    pub compiled: bool,
    /// How long it took from the file's arrival.
    pub seconds: f64,
}

/// One of the answer to `GET /v1/plugins`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginStatus {
    /// The plugin.
    pub plugin: String,
    /// The version in service.
    pub live: Option<PluginVersion>,
    /// The version that a rollback brings back.
    pub previous: Option<PluginVersion>,
    /// The derived views that the version in service computes.
    pub views: Vec<PluginViewStatus>,
    /// Why the plugin's file in the directory is not in service, if it is not.
    pub refused: Option<String>,
    /// Whether the plugin's file in the directory is being compiled or is queued for compilation.
    #[serde(default)]
    pub compiling: bool,
}

/// A version of a plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginVersion {
    /// What it calls itself.
    pub version: String,
    /// SHA-256 of its file, in hexadecimal.
    pub digest: String,
    /// What it was written in, as far as that is known.
    pub language: String,
    /// Bytes of its file.
    pub bytes: u64,
    /// What it computes.
    pub doc: String,
}

/// A derived view that a plugin computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginViewStatus {
    /// The view.
    pub view: String,
    /// Whether the plugin is called for it: `closed` when all is well, `open` after failures, `half-open` in between.
    pub breaker: String,
}

// === impl SyncCommand ===

impl SyncCommand {
    /// What each view's run is asked for.
    #[must_use]
    pub fn request(&self) -> SyncRequest {
        let window = larder_model::model::Window { from: self.from, to: self.to };
        SyncRequest { full: self.full, window, force: self.force, spare: self.spare, ..SyncRequest::default() }
    }
}
