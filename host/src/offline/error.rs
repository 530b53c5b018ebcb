//! Why a training set cannot be built from a configuration.

use std::{io, path::PathBuf};

use larder_source::{SourceError, aws::AwsError};
use larder_training::TrainingError;
use parquet::errors::ParquetError;

use super::location::{Location, NotAnObject};
use crate::config::ConfigError;

/// Why a training set cannot be built from a configuration. [`crate::hints`] has the hints that depend on the front end.
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
    /// The entity rows cannot be read.
    #[error("entity rows: {0}")]
    Entities(SourceError),
    /// The files of entity rows have different columns.
    #[error("entity rows: {path}: {why}")]
    EntityColumns {
        /// The file.
        path: String,
        /// The reason.
        why: String,
    },
    /// A URL does not name an object in S3.
    #[error(transparent)]
    Url(#[from] NotAnObject),
    /// The output cannot be written.
    #[error("cannot write {at}: {source}")]
    Write {
        /// The file.
        at: Location,
        /// The reason.
        source: io::Error,
    },
    /// The output cannot be written to S3.
    #[error("cannot write {0}")]
    Upload(AwsError),
    /// The location of the output is not allowed: it is in an input, or it already has Parquet files.
    #[error("cannot write {at}: {why}. hint: write to another directory or prefix")]
    Output {
        /// The file or object.
        at: Location,
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
    #[error("cannot write {at}: {source}")]
    Encode {
        /// The file or object.
        at: Location,
        /// The reason.
        source: ParquetError,
    },
    /// A manifest cannot be read.
    #[error("{at}: {why}")]
    Manifest {
        /// The file or object.
        at: Location,
        /// The reason.
        why: String,
    },
    /// Inputs differ from those in a manifest.
    #[error("{manifest}: inputs differ, so the set cannot be built again: {}", differences.join("; "))]
    InputsDiffer {
        /// The manifest.
        manifest: Location,
        /// A description of each difference.
        differences: Vec<String>,
    },
    /// The entity rows of a manifest were a data frame.
    #[error("{manifest}: the entity rows were a data frame, so the manifest does not identify them")]
    NoEntityFiles {
        /// The manifest.
        manifest: Location,
    },
    /// The rows of a derived view that a backfill computes are unknown.
    #[error("derived view '{view}': {why}")]
    NoRows {
        /// The view.
        view: String,
        /// The reason.
        why: String,
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
