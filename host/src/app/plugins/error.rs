//! Why a version of a plugin is not deployed.

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
        "plugin '{plugin}' {version} is live already, with other bytes (sha256 {live}). hint: raise the plugin's \
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
}

/// The end of a hint: how to deploy a plugin that is rejected.
const FORCE_HINT: &str = ", or deploy it anyway with `larder plugin deploy --force`";

fn lines(errors: &[BindError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
