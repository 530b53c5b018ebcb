//! Rollouts in the admin API.

use std::collections::BTreeMap;

use larder_plugin_host::ComparisonReport;
use serde::{Deserialize, Serialize};

use super::PluginVersion;

/// The body of `POST /v1/plugins/NAME/promote`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromoteCommand {
    /// The share of the requests that the candidate computes, in percent. If it is given, the share stays until the next
    /// promotion. Otherwise, it grows in the configured steps.
    pub percent: Option<f64>,
    /// The features whose differences are intended.
    pub accept_diff: Vec<String>,
}

/// The state of a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutStatus {
    /// The plugin.
    pub plugin: String,
    /// The new version.
    pub candidate: PluginVersion,
    /// The version that the candidate replaces.
    pub base: PluginVersion,
    /// The stage.
    pub stage: RolloutStage,
    /// The share of the requests that the candidate computes, in percent.
    pub percent: f64,
    /// Whether a user chose the share, so that it does not grow.
    pub held: bool,
    /// The share of the requests that both versions compute, in percent.
    pub sampled_percent: f64,
    /// When the rollout began, in the format of RFC 3339.
    pub started: String,
    /// When the stage or the step began, in the format of RFC 3339.
    pub since: String,
    /// The features whose differences were accepted.
    pub accepted: Vec<String>,
    /// The number of rows that both versions computed.
    pub compared_rows: u64,
    /// Why the rollout does not advance, if something is missing.
    pub waiting: Option<String>,
}

/// The stage of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RolloutStage {
    /// The candidate computes only copies of inputs.
    Shadow,
    /// The candidate computes a share of the requests.
    Canary,
    /// The candidate is live, and can still be rolled back automatically.
    Bake,
}

/// The version of a plugin that was rolled back last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBackVersion {
    /// The version that the plugin declares.
    pub version: String,
    /// The SHA-256 digest of the file, in hexadecimal.
    pub digest: String,
    /// When it was rolled back, in the format of RFC 3339.
    pub at: String,
    /// Why it was rolled back.
    pub why: String,
}

/// The end of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutEnd {
    /// When it ended, in the format of RFC 3339.
    pub at: String,
    /// Why it ended.
    pub why: String,
}

/// The response to `GET /v1/plugins/NAME/diff`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutReport {
    /// The running rollout. `None` if it ended; the comparisons are then those of the last one.
    pub rollout: Option<RolloutStatus>,
    /// The numbers of the compared versions: the one that was live, and the candidate.
    pub versions: Option<(String, String)>,
    /// The comparisons of the two versions, by derived view.
    pub views: BTreeMap<String, ComparisonReport>,
    /// The gates that the candidate does not meet.
    pub breaches: Vec<String>,
    /// When and why the rollout ended, if it has ended.
    pub ended: Option<RolloutEnd>,
    /// The version that was rolled back last, if there is one.
    pub rolled_back: Option<RolledBackVersion>,
}
