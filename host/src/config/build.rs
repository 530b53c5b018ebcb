//! The Cargo features of a build, and the errors for a configuration that needs a feature that the build lacks.
//!
//! Every build parses all settings and definitions. The functions here take the features as a value, so that tests in
//! one build cover all combinations of features.

use std::fmt;

use larder_model::{
    model::{FeatureView, FileSource, SourceKind},
    registry::Catalog,
    yaml::{Place, Problem, Severity},
};

/// A set of Cargo features of the package `larder`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildFeatures {
    /// S3 and DynamoDB.
    pub aws: bool,
    /// Feast's SQLite store.
    pub sqlite: bool,
    /// The gRPC listener.
    pub grpc: bool,
    /// The subcommands of `larder plugin` for developers.
    pub tools: bool,
}

/// A part of Larder that a build may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildPart {
    /// The AWS clients.
    Aws,
    /// Objects in S3.
    S3,
    /// Tables in DynamoDB.
    DynamoDb,
    /// SQLite files.
    Sqlite,
    /// The gRPC listener.
    Grpc,
}

/// The prefix of paths in S3.
const S3: &str = "s3://";
/// The key of a view's batch source, whose files materialization reads.
const BATCH: &str = "batch_source";

// === impl BuildFeatures ===

impl BuildFeatures {
    /// The features of this build.
    pub const COMPILED: Self = Self {
        aws: cfg!(feature = "aws"),
        sqlite: cfg!(feature = "sqlite"),
        grpc: cfg!(feature = "grpc"),
        tools: cfg!(feature = "tools"),
    };

    /// Returns whether a build with these features includes a part.
    #[must_use]
    pub fn has(self, part: BuildPart) -> bool {
        match part {
            BuildPart::Aws | BuildPart::S3 | BuildPart::DynamoDb => self.aws,
            BuildPart::Sqlite => self.sqlite,
            BuildPart::Grpc => self.grpc,
        }
    }

    /// Returns whether a build with these features can read a view's source and batch source.
    #[must_use]
    pub fn can_read(self, view: &FeatureView) -> bool {
        parts_of(view).all(|(_, part)| self.has(part))
    }

    /// Returns a problem for each source and batch source that a build with these features cannot read.
    #[must_use]
    pub fn missing_sources(self, catalog: &Catalog) -> Vec<Problem> {
        let mut problems = Vec::new();
        for view in catalog.views() {
            for (what, part) in parts_of(view).filter(|(_, part)| !self.has(*part)) {
                let at = catalog.place_of_source(&view.name).cloned().unwrap_or_else(|| Place::file(&view.name));
                let message = format!("feature view '{}': {what}: {part}", view.name);
                // A view of a Feast repository is served even if its batch source cannot be read, because only
                // materialization reads it.
                let is_served = what.starts_with(BATCH) && catalog.is_imported();
                let severity = if is_served { Severity::Warning } else { Severity::Error };
                problems.push(Problem { severity, at, message, help: Some(part.help()) });
            }
        }
        problems
    }
}

/// Returns the optional parts that a view's source and batch source need. Each comes with the text that names the
/// source in messages.
fn parts_of(view: &FeatureView) -> impl Iterator<Item = (String, BuildPart)> {
    let in_s3 = |key: &str, files: &FileSource| {
        files.path.starts_with(S3).then(|| (format!("{key}: {}", files.path), BuildPart::S3))
    };
    let source = view.source.as_ref().and_then(|source| match &source.from {
        SourceKind::Files(files) => in_s3("source", files),
        SourceKind::DynamoDb(table) => Some((format!("source: {}", table.table), BuildPart::DynamoDb)),
        SourceKind::FeastSqlite { path, .. } => Some((format!("source: {path}"), BuildPart::Sqlite)),
    });
    let batch = view.batch_source.as_ref().and_then(|files| in_s3(BATCH, files));
    source.into_iter().chain(batch)
}

// === impl BuildPart ===

impl BuildPart {
    /// Returns the Cargo feature that enables the part.
    #[must_use]
    pub fn feature(self) -> &'static str {
        match self {
            Self::Aws | Self::S3 | Self::DynamoDb => "aws",
            Self::Sqlite => "sqlite",
            Self::Grpc => "grpc",
        }
    }

    /// Returns the hint for users of a build that lacks the part.
    #[must_use]
    pub fn help(self) -> String {
        format!("build with the Cargo feature '{}'", self.feature())
    }
}

impl fmt::Display for BuildPart {
    /// Formats the error message for a build that lacks the part.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Aws => "AWS",
            Self::S3 => "S3",
            Self::DynamoDb => "DynamoDB",
            Self::Sqlite => "SQLite",
            Self::Grpc => "gRPC",
        };
        write!(f, "this build of larder does not support {name}")
    }
}
