//! The admin API: commands to a running server, over a Unix socket that only its owner can open.

use std::collections::BTreeMap;

use larder_ingest::{Progress, SyncReport, SyncRequest};
use serde::{Deserialize, Serialize};

/// The commands of a running server, in addition to lookups.
pub trait Control: Send + Sync + std::fmt::Debug {
    /// Syncs the named views, or all views with a source if none is named, each once, and calls `notify` for every
    /// step. Blocks until all syncs have ended; during a shutdown, for at most [`larder_ingest::LAST_COMMIT_WITHIN`].
    fn sync(&self, command: &SyncCommand, notify: &mut dyn FnMut(AdminEvent));

    /// Reloads the configuration, the definitions, and the files of keys and tokens. Returns a message with the
    /// warnings.
    ///
    /// # Errors
    /// The errors, one per line. A part that fails, definitions or keys and tokens, keeps its previous state.
    fn reload(&self) -> Result<String, String>;

    /// Deletes an entity's row from a view. Only a newer row replaces it. Blocks until the deletion is committed.
    ///
    /// # Errors
    /// A problem with the view, the key or the store; nothing was deleted in that case.
    fn delete(&self, command: &DeleteCommand) -> Result<EraseReport, String>;

    /// Drops all rows of a view. Blocks until that is committed. Use [`Control::sync`] to load the rows again.
    ///
    /// # Errors
    /// A problem with the view or the store; nothing was dropped in that case.
    fn reset(&self, command: &ResetCommand) -> Result<EraseReport, String>;

    /// Deploys a plugin's file. Blocks until the plugin is compiled, bound to its derived views and tested.
    ///
    /// # Errors
    /// If the plugin is rejected; the previous version then keeps serving. Also if the server's copy of a deployed
    /// plugin cannot be written, or the server runs no plugins.
    fn deploy(&self, file: &[u8]) -> Result<DeployReport, String>;

    /// Rolls back to the previous version of a plugin.
    ///
    /// # Errors
    /// If the plugin or its previous version does not exist, or the server runs no plugins. Also if a file cannot be
    /// written; the previous version is live in that case.
    fn roll_back(&self, plugin: &str) -> Result<DeployReport, String>;

    /// Returns the plugins, sorted by name.
    fn plugins(&self) -> Vec<PluginStatus>;

    /// Returns the limit on the size of a plugin's file, in bytes; 0 if the server runs no plugins.
    fn plugin_bytes_max(&self) -> usize;
}

/// The body of `POST /v1/sync`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyncCommand {
    /// The names of the views. Empty for all views with a source.
    pub views: Vec<String>,
    /// Read everything again, including objects that were already read.
    pub full: bool,
    /// Load only rows with this event time or a later one, in microseconds since the Unix epoch.
    pub from: Option<i64>,
    /// Load only rows with this event time or an earlier one, in microseconds since the Unix epoch.
    pub to: Option<i64>,
    /// Load the rows even if they fail the sanity checks (`sync: guard`).
    pub force: bool,
    /// Skip sources that were synced recently and are expensive to read. Clients cannot set it.
    #[serde(skip)]
    pub skip_recent: bool,
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
    /// Whether to drop rows even if they cannot be loaded again from a source.
    #[serde(default)]
    pub confirmed: bool,
}

/// The response to `POST /v1/delete` and `POST /v1/reset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EraseReport {
    /// The number of rows that were removed.
    pub rows: u64,
}

/// One line of the response to `POST /v1/sync`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum AdminEvent {
    /// A view is being read.
    Progress {
        /// The view.
        view: String,
        /// The progress of the read.
        #[serde(flatten)]
        progress: Progress,
    },
    /// A view was synced.
    Synced {
        /// The result.
        report: SyncReport,
    },
    /// The sync of a view failed.
    Failed {
        /// The view.
        view: String,
        /// The reason.
        error: String,
    },
}

/// The response to `POST /v1/plugins` and `POST /v1/plugins/NAME/rollback`: the version that is now live.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeployReport {
    /// The plugin.
    pub plugin: String,
    /// The version that the plugin declares.
    pub version: String,
    /// SHA-256 of its file, in hexadecimal.
    pub digest: String,
    /// The version that was live before, if any.
    pub replaced: Option<String>,
    /// The derived views that it computes.
    pub views: Vec<String>,
    /// Whether its code was compiled; false if it was cached, and for a rollback.
    pub compiled: bool,
    /// How long loading and deploying took, without waiting for other changes.
    pub seconds: f64,
}

/// An item of the response to `GET /v1/plugins`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginStatus {
    /// The plugin.
    pub plugin: String,
    /// The live version.
    pub live: Option<PluginVersion>,
    /// The version that a rollback restores.
    pub previous: Option<PluginVersion>,
    /// The derived views that the live version computes.
    pub views: Vec<PluginViewStatus>,
    /// Why the plugin's file in the directory is not live, if it was rejected.
    pub refused: Option<String>,
    /// Whether the plugin's file in the directory is being compiled or is queued for compilation.
    #[serde(default)]
    pub compiling: bool,
}

/// A version of a plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginVersion {
    /// The version that the plugin declares.
    pub version: String,
    /// SHA-256 of its file, in hexadecimal.
    pub digest: String,
    /// The language that the file declares, or `unknown`.
    pub language: String,
    /// The size of its file in bytes.
    pub bytes: u64,
    /// The plugin's own description.
    pub doc: String,
}

/// A derived view that a plugin computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginViewStatus {
    /// The view.
    pub view: String,
    /// The state of the view's circuit breaker: `closed` (the plugin is called), `open` (it is not called after
    /// failures) or `half-open` (trial calls).
    pub breaker: String,
}

// === impl SyncCommand ===

impl SyncCommand {
    /// Returns the request for the sync of each view.
    #[must_use]
    pub fn request(&self) -> SyncRequest {
        let window = larder_model::model::Window { from: self.from, to: self.to };
        SyncRequest {
            full: self.full,
            window,
            force: self.force,
            skip_recent: self.skip_recent,
            ..SyncRequest::default()
        }
    }
}
