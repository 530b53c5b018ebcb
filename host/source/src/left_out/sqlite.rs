//! Feast's SQLite store, in a build without the feature `sqlite`.

use std::path::PathBuf;

use larder_model::model::FeatureView;

use super::left_out;
use crate::{Batches, FileSchema, Source, SourceError};

left_out! {
    /// A table in Feast's SQLite store, which this build cannot read.
    FeastSqlite, "SQLite", "sqlite"
}

// === impl FeastSqlite ===

impl FeastSqlite {
    /// Creates a stand-in that keeps the path of the file.
    #[must_use]
    pub fn new(path: PathBuf, _table: &str, _: &FeatureView) -> Self {
        Self { name: path.display().to_string() }
    }
}
