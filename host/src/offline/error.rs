//! Why a training set cannot be built from a configuration.

use std::{io, path::PathBuf};

use larder_training::TrainingError;
use parquet::errors::ParquetError;

use crate::config::ConfigError;

/// Why a training set cannot be built from a configuration.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The configuration or the definitions have errors.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Plugins cannot be run.
    #[error("plugins cannot be run: {0}")]
    PluginRuntime(String),
    /// A plugin cannot be loaded.
    #[error("{}: {why}", path.display())]
    Plugin {
        /// The component.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// The training set cannot be built.
    #[error(transparent)]
    Training(#[from] TrainingError),
    /// A file of entity rows cannot be read.
    #[error("{}: {why}", path.display())]
    Entities {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// The output cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The output would replace an input.
    #[error("cannot write {}: {why}. hint: write to another directory", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// Inputs changed during the run.
    #[error("inputs changed during the run: {}. hint: repeat the run", differences.join("; "))]
    InputsChanged {
        /// A description of each difference.
        differences: Vec<String>,
    },
    /// The output cannot be encoded.
    #[error("cannot write {}: {source}", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: ParquetError,
    },
    /// A manifest cannot be read.
    #[error("{}: {why}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// Inputs differ from those in a manifest.
    #[error("{}: inputs differ, so the set cannot be built again: {}", manifest.display(), differences.join("; "))]
    InputsDiffer {
        /// The manifest.
        manifest: PathBuf,
        /// A description of each difference.
        differences: Vec<String>,
    },
    /// A derived view cannot be backfilled.
    #[error("derived view '{view}': {why}")]
    Backfill {
        /// The view.
        view: String,
        /// The reason.
        why: String,
    },
}
