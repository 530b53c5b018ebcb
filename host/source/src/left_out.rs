//! Stand-ins for the sources that this build leaves out.
//!
//! They have the constructors of the real sources, so callers need no `cfg` conditions. Every read returns an error
//! that names the missing Cargo feature. The configuration check reports views with such a source.

#[cfg(not(feature = "aws"))]
mod aws;
#[cfg(not(feature = "sqlite"))]
mod sqlite;

#[cfg(not(feature = "aws"))]
pub use self::aws::{DynamoDb, S3Parquet};
#[cfg(not(feature = "sqlite"))]
pub use self::sqlite::FeastSqlite;

/// Defines a source that has only a name, and returns an error when it is checked or read.
macro_rules! left_out {
    ($(#[$doc:meta])* $source:ident, $what:literal, $feature:literal) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $source {
            name: String,
        }

        impl $source {
            fn error(&self) -> SourceError {
                SourceError::NotBuilt { path: self.name.clone(), what: $what, feature: $feature }
            }
        }

        impl Source for $source {
            fn has_changes(&self, _position: &str) -> Result<bool, SourceError> {
                Err(self.error())
            }

            fn read(&self, _position: Option<&str>) -> Result<Box<dyn Batches + '_>, SourceError> {
                Err(self.error())
            }

            fn schemas(&self) -> Result<Vec<FileSchema>, SourceError> {
                Err(self.error())
            }

            fn name(&self) -> String {
                self.name.clone()
            }
        }
    };
}

use left_out;
