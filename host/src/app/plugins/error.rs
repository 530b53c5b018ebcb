//! Why a version of a plugin is not deployed.

use larder_http::RolledBackVersion;
use larder_plugin_host::{BindError, Digest, LoadError, PluginDirError, Rejection};

/// Why a version is not deployed.
#[derive(Debug, thiserror::Error)]
pub(in crate::app) enum DeployError {
    /// The file cannot be loaded as a plugin.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An earlier compilation of the file was killed.
    #[error(
        "an earlier compilation of this file was killed because it {0}; the file is not compiled again automatically. \
         hint: raise 'plugins: compile_time_max' or 'compile_memory_max', or run `larder plugin deploy`"
    )]
    KilledBefore(String),
    /// The plugin cannot compute derived views that name it.
    #[error("{}", lines(.0))]
    Bind(Vec<BindError>),
    /// The acceptance checks failed.
    #[error(
        "plugin '{plugin}' {version} is not accepted for derived view '{view}': {}",
        rejection.with_hint(FORCE_HINT)
    )]
    Rejected { plugin: String, version: String, view: String, rejection: Box<Rejection> },
    /// Another file of the same version is live.
    #[error(
        "plugin '{plugin}' {version} is live already, from a different file (sha256 {live}). hint: raise the plugin's \
         version{FORCE_HINT}"
    )]
    SameVersion { plugin: String, version: String, live: String },
    /// The file's name is not the plugin's name.
    #[error("the file is named '{file}', but contains plugin '{plugin}'. hint: rename the file to {plugin}.wasm")]
    NameMismatch { file: String, plugin: String },
    /// A rollback or a user replaced or removed the file after it was read.
    #[error("the file of plugin '{0}' was replaced or removed while it was checked; a new file is checked next")]
    Replaced(String),
    /// A file cannot be read or written.
    #[error(transparent)]
    PluginDir(#[from] PluginDirError),
    /// The plugin does not exist.
    #[error("plugin '{0}' does not exist. hint: `larder plugin list` prints the plugins")]
    Unknown(String),
    /// The plugin has no previous version.
    #[error("plugin '{0}' has no previous version. hint: deploy the file of the version that you want")]
    NoPrevious(String),
    /// A rollback took effect, but the server's copy of the version is missing.
    #[error(
        "plugin '{0}' was rolled back, but the server's copy of the restored version is missing, so the next start loads \
         the newer version again. hint: deploy the file of the restored version"
    )]
    MissingCopy(String),
    /// A rollback took effect, but a file cannot be read or written.
    #[error(
        "plugin '{plugin}' was rolled back, but its files were not, so the next start may load the newer version again: \
         {source}. hint: solve this problem, and repeat the rollback with the restored version as argument"
    )]
    FilesNotRolledBack { plugin: String, source: PluginDirError },
    /// A version of the history has no file.
    #[error("the server's copy of plugin '{plugin}' with digest {digest} is missing. hint: deploy the version's file")]
    NoCopy { plugin: String, digest: Digest },
    /// No version of the history matches.
    #[error("plugin '{plugin}' has no version '{wanted}' in its history. hint: {known}")]
    UnknownVersion { plugin: String, wanted: String, known: String },
    /// Several versions of the history match.
    #[error("several versions of plugin '{plugin}' match '{wanted}'. hint: name one by its digest: {digests}")]
    AmbiguousVersion { plugin: String, wanted: String, digests: String },
    /// The thread that compares versions cannot be started.
    #[error("cannot start the thread that compares versions of plugins: {0}")]
    ShadowThread(std::io::Error),
    /// There is no version with which a candidate can be compared.
    #[error("plugin '{0}' has no live version to compare the candidate with. hint: deploy the file without --shadow")]
    NoBase(String),
    /// The candidate is the live version.
    #[error("version {version} of plugin '{plugin}' is live already. hint: deploy a file with another version")]
    CandidateIsLive { plugin: String, version: String },
    /// There is no candidate to promote.
    #[error("plugin '{0}' has no candidate. hint: deploy one with `larder plugin deploy FILE --shadow`")]
    NoCandidate(String),
    /// A rollout of the plugin is running.
    #[error(
        "a rollout of plugin '{plugin}' is running: version {version} is {stage}. hint: {}",
        if *is_live {
            format!("keep this version, and end its rollout, with `larder plugin promote {plugin}`")
        } else {
            format!("promote it, drop it with `larder plugin rollback {plugin}`, or replace it with --force")
        }
    )]
    RolloutRunning { plugin: String, version: String, stage: String, is_live: bool },
    /// The share of a promotion is not a percentage.
    #[error("the percentage is {0}, but must be above 0 and at most 100")]
    BadPercent(f64),
    /// The share of the candidate grows without a command.
    #[error(
        "version {version} of plugin '{plugin}' computes {percent}% of the requests, and is promoted further automatically. \
         hint: to set another share, add --percent"
    )]
    PromotedAutomatically { plugin: String, version: String, percent: f64 },
    /// A rollout of the plugin is continued after a restart, so a file in the plugin directory waits.
    #[error("a rollout of plugin '{0}' is continued after a restart. hint: the file is deployed when it has ended")]
    RolloutPending(String),
    /// A feature whose difference is accepted does not exist.
    #[error(
        "plugin '{plugin}' has no compared feature '{feature}'. hint: {}",
        nearest_or(suggestion.as_deref(), "`larder plugin diff` lists the features")
    )]
    NoSuchFeature { plugin: String, feature: String, suggestion: Option<String> },
    /// The candidate does not meet the gates.
    #[error("version {version} of plugin '{plugin}' is not promoted:\n  {gates}\nhint: {hint}")]
    GatesNotMet { plugin: String, version: String, gates: String, hint: String },
    /// The previous version was rolled back automatically.
    #[error(
        "version {} of plugin '{plugin}' was rolled back at {}: {}. hint: to restore it anyway, run `larder plugin rollback \
         {plugin} {}`",
        rolled_back.version, rolled_back.at, rolled_back.why, rolled_back.version
    )]
    PreviousRolledBack { plugin: String, rolled_back: Box<RolledBackVersion> },
    /// A change took effect, but the list of versions that were rolled back cannot be written.
    #[error(
        "plugin '{plugin}': the list of versions that were rolled back cannot be written, so the next start may load them \
         again: {source}. hint: solve this problem, and repeat the command"
    )]
    ListNotWritten { plugin: String, source: PluginDirError },
    /// The state of a rollout cannot be used.
    #[error("the rollout of plugin '{plugin}' cannot be continued: {why}. hint: deploy the candidate again")]
    InvalidState { plugin: String, why: String },
    /// A file in the plugin directory has a version that was rolled back.
    #[error(
        "version {} of plugin '{plugin}' is not deployed from the plugin directory, because it was rolled back at {}: {}. \
         hint: deploy a corrected version, or deploy this one with `larder plugin deploy FILE`",
        rolled_back.version, rolled_back.at, rolled_back.why
    )]
    RolledBack { plugin: String, rolled_back: Box<RolledBackVersion> },
}

/// The end of a hint: how to deploy a plugin that is rejected.
const FORCE_HINT: &str = ", or deploy it anyway with `larder plugin deploy --force`";

fn lines(errors: &[BindError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Returns a suggestion, or another hint if there is none.
fn nearest_or(suggestion: Option<&str>, other: &str) -> String {
    suggestion.unwrap_or(other).to_owned()
}
