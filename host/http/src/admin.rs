//! The admin API: commands to a running server, over a Unix socket that only its owner can open.

use std::collections::BTreeMap;

use larder_ingest::{Progress, SyncReport, SyncRequest};
use serde::{Deserialize, Serialize};

use super::{PluginVersion, PromoteCommand, RolledBackVersion, RolloutReport, RolloutStatus};

/// The commands that the admin listener passes to the running server.
pub trait Control: Send + Sync + std::fmt::Debug {
    /// Syncs each view that the command names once; if it names none, syncs all views with a source. Calls `notify` for
    /// progress and for each result. Blocks until all syncs have ended, but not longer than
    /// [`larder_ingest::LAST_COMMIT_WITHIN`] after a shutdown has begun.
    fn sync(&self, command: &SyncCommand, notify: &mut dyn FnMut(AdminEvent));

    /// Reloads the configuration, the definitions, and the key and token files. Returns a message with the warnings.
    ///
    /// # Errors
    /// The first errors, one per line, and the number of further errors. Definitions are reloaded independently of keys
    /// and tokens. If one of the two reloads fails, the previous definitions, or the previous keys and tokens, stay in
    /// use.
    fn reload(&self) -> Result<String, String>;

    /// Deletes an entity's row from a view. The entity stays deleted until a newer row arrives. Blocks until the
    /// deletion is committed.
    ///
    /// # Errors
    /// A problem with the view, the key or the store; nothing was deleted in that case.
    fn delete(&self, command: &DeleteCommand) -> Result<EraseReport, String>;

    /// Drops all rows of a view. Blocks until the change is committed. Use [`Control::sync`] to load the rows again.
    ///
    /// # Errors
    /// A problem with the view or the store; nothing was dropped in that case.
    fn reset(&self, command: &ResetCommand) -> Result<EraseReport, String>;

    /// Begins the rollout of a plugin's file in the shadow stage: both versions compute this share of the requests, from 0 to
    /// 1, but requests get the outputs of the live version. Blocks until the file is compiled, bound and tested. For `force`,
    /// see [`Control::deploy`].
    ///
    /// # Errors
    /// As for [`Control::deploy`], and if the plugin has no live version, or a rollout of it is running.
    fn deploy_shadow(&self, file: &[u8], ratio: f64, force: bool) -> Result<RolloutStatus, String>;

    /// Promotes the candidate of a plugin to a larger share of the requests.
    ///
    /// # Errors
    /// If there is no candidate, it does not meet the gates, or a file cannot be written. Nothing changes in these cases.
    fn promote(&self, plugin: &str, command: &PromoteCommand) -> Result<RolloutStatus, String>;

    /// Returns the differences between the versions of the running rollout of a plugin, or of the last one.
    ///
    /// # Errors
    /// If the server runs no plugins, or the plugin does not exist.
    fn plugin_diff(&self, plugin: &str) -> Result<RolloutReport, String>;

    /// Deploys a plugin's file. Blocks until the plugin is compiled, bound to its derived views and tested. With `force`,
    /// failed acceptance checks and a repeated version number only cause a warning.
    ///
    /// # Errors
    /// If the server runs no plugins, the plugin is rejected, or its file or the server's copy of it cannot be written.
    /// The previous version keeps serving.
    fn deploy(&self, file: &[u8], force: bool) -> Result<DeployReport, String>;

    /// Rolls back to the previous version of a plugin, or to a version of its history: `version` is a version number, or
    /// at least eight hexadecimal digits of a digest. Blocks until the version is compiled, if its code is not cached.
    ///
    /// # Errors
    /// * The server runs no plugins, the plugin or the version does not exist, several versions match `version`, or the
    ///   version is incompatible with the current definitions. The live version does not change.
    /// * A file cannot be written. The restored version is live nevertheless.
    fn roll_back(&self, plugin: &str, version: Option<&str>) -> Result<DeployReport, String>;

    /// Returns the plugins, sorted by name.
    fn plugins(&self) -> Vec<PluginStatus>;

    /// Returns the last versions of a plugin that were live. The version that went live last is the first one.
    ///
    /// # Errors
    /// If the server runs no plugins, the plugin does not exist, or its history cannot be read.
    fn plugin_history(&self, plugin: &str) -> Result<Vec<PastVersion>, String>;

    /// Captures a sample of a plugin's calls for some time. A later command for the plugin replaces an earlier one.
    ///
    /// # Errors
    /// If the server runs no plugins, or the plugin is not live.
    fn capture(&self, plugin: &str, command: &CaptureCommand) -> Result<CaptureReport, String>;

    /// Returns the limit on the size of a plugin's file, in bytes; 0 if the server runs no plugins.
    fn plugin_bytes_max(&self) -> usize;
}

/// The body of `POST /v1/sync`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyncCommand {
    /// The names of the views. Empty for all views with a source.
    pub views: Vec<String>,
    /// Whether to read everything again, including objects that were already read.
    pub full: bool,
    /// Load only rows with this event time or a later one, in microseconds since the Unix epoch.
    pub from: Option<i64>,
    /// Load only rows with this event time or an earlier one, in microseconds since the Unix epoch.
    pub to: Option<i64>,
    /// Whether to load the rows even if they fail the sanity checks (`sync.bad_percent_max`,
    /// `sync.shrink_percent_max` and `sync.growth_max`).
    pub force: bool,
    /// Whether to skip sources that were synced recently and are expensive to read. Clients cannot set this field.
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

/// The body of `POST /v1/plugins/NAME/rollback`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RollbackCommand {
    /// The number of a version, or at least eight hexadecimal digits of its digest. `None` for the previous version.
    pub version: Option<String>,
}

/// The body of `POST /v1/plugins/NAME/capture`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptureCommand {
    /// The share of calls without failed rows that are captured, from 0 to 1. 0 ends an earlier command.
    pub sample: f64,
    /// How long calls are captured, in seconds.
    pub seconds: u64,
    /// The number of rows after which no further calls are captured. `None` for no limit.
    #[serde(default)]
    pub rows: Option<u64>,
}

/// The response to `POST /v1/plugins/NAME/capture`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureReport {
    /// The plugin.
    pub plugin: String,
    /// The directory of the plugin's captures.
    pub directory: String,
    /// When the capture ends, in the format of RFC 3339.
    pub until: String,
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
    /// The SHA-256 digest of the file, in hexadecimal.
    pub digest: String,
    /// The version that was live before, if any.
    pub replaced: Option<String>,
    /// The derived views that the plugin computes.
    pub views: Vec<String>,
    /// Whether the plugin's code was compiled; false if the compiled code was cached or in memory.
    pub compiled: bool,
    /// How long loading and deploying took, in seconds, without the wait for other changes.
    pub seconds: f64,
    /// Why the version would have been rejected, if it was deployed by force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overridden: Option<String>,
    /// The version of the candidate whose rollout ended, if one was running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<String>,
}

/// An item of the response to `GET /v1/plugins`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginStatus {
    /// The plugin.
    pub plugin: String,
    /// The live version.
    pub live: Option<PluginVersion>,
    /// The version that a rollback restores if it names no version.
    pub previous: Option<PluginVersion>,
    /// The derived views that the live version computes.
    pub views: Vec<String>,
    /// Why the plugin's file in the directory is not live, if it was rejected.
    pub rejected: Option<String>,
    /// Whether the plugin's file in the directory is being compiled or is queued for compilation.
    #[serde(default)]
    pub compiling: bool,
    /// The rollout of another version, if one is running.
    #[serde(default)]
    pub rollout: Option<RolloutStatus>,
    /// The version that was rolled back last, if there is one.
    #[serde(default)]
    pub rolled_back: Option<RolledBackVersion>,
}

/// An item of the response to `GET /v1/plugins/NAME/history`: a version that was live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastVersion {
    /// The version that the plugin declares; `None` if the history was rebuilt and the version is not compiled.
    pub version: Option<String>,
    /// The SHA-256 digest of the file, in hexadecimal.
    pub digest: String,
    /// The language that the file declares, or `unknown`.
    pub language: String,
    /// The size of the file in bytes.
    pub bytes: u64,
    /// When the version last went live, in the format of RFC 3339.
    pub went_live: String,
    /// Whether the version is live now.
    pub live: bool,
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
