//! Errors of sources. Every message names the file, object or table, and the column if one is involved.

use std::io;

use crate::aws::AwsError;

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The path does not exist, or the operating system returned an error.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file or directory.
        path: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The source has no files, or no rows in its files.
    #[error("No data found in source {path}{hint}")]
    Empty {
        /// The file or directory.
        path: String,
        /// Details to append to the message, or an empty string.
        hint: &'static str,
    },
    /// The bytes are not Parquet, or are truncated.
    #[error("{path} is not a readable Parquet file: {why}")]
    Unreadable {
        /// The file.
        path: String,
        /// The Parquet reader's error.
        why: String,
    },
    /// A column that the view needs is missing.
    #[error("{path} has no column '{column}'{hint}")]
    MissingColumn {
        /// The file.
        path: String,
        /// The column, by its name in the file.
        column: String,
        /// The most similar column, to append to the message, or an empty string.
        hint: String,
    },
    /// A column cannot be read as the type that the view declares.
    #[error("{path}, column '{column}': {why}")]
    Column {
        /// The file.
        path: String,
        /// The column.
        column: String,
        /// The reason.
        why: String,
    },
    /// A property of the source exceeds a limit that protects the memory of the process.
    #[error("{path}: {what} is {found}, but at most {limit} is allowed{hint}")]
    Limit {
        /// The file, object or prefix.
        path: String,
        /// The limited quantity.
        what: String,
        /// The actual amount.
        found: u64,
        /// The maximum.
        limit: u64,
        /// A hint to append to the message, or an empty string.
        hint: &'static str,
    },
    /// Another process holds a lock on the SQLite file.
    #[error("{path} is locked by another process; the next sync tries again")]
    Busy {
        /// The file.
        path: String,
    },
    /// The file is not an SQLite database, or is damaged.
    #[error("{path} is not a readable SQLite file: {why}")]
    NotSqlite {
        /// The file.
        path: String,
        /// SQLite's reason.
        why: String,
    },
    /// The SQLite file does not have the view's table.
    #[error("{path} has no table '{table}'. hint: create it with 'feast apply'")]
    MissingTable {
        /// The file.
        path: String,
        /// The table.
        table: String,
    },
    /// The files belong to a table whose log determines which of them are valid. Reading them without the log would
    /// bring back rows that were deleted or overwritten.
    #[error(
        "{path} is a table of {format}: its log lists the valid files, but Larder reads only plain Parquet. hint: write \
         its rows to a separate directory"
    )]
    TableFormat {
        /// The directory or prefix.
        path: String,
        /// The name of the format.
        format: &'static str,
    },
    /// This build leaves the source out.
    #[error("{path}: this build of larder does not support {what}. hint: build with the Cargo feature '{feature}'")]
    NotBuilt {
        /// The file or table.
        path: String,
        /// The kind of source.
        what: &'static str,
        /// The Cargo feature that adds support for it.
        feature: &'static str,
    },
    /// AWS did not respond, or rejected the request.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The table cannot be read as the view defines it.
    #[error("DynamoDB table '{table}': {why}")]
    Table {
        /// The table.
        table: String,
        /// The reason.
        why: String,
    },
    /// The position from which to resume is no longer valid: the whole source must be read again.
    #[error("{path}: {why}")]
    Lost {
        /// The source.
        path: String,
        /// Why the read cannot resume.
        why: String,
    },
    /// The set of objects is not complete yet.
    #[error("{path} is not complete yet: {gate} does not exist")]
    NotWhole {
        /// The object or prefix.
        path: String,
        /// The URL of the missing marker or manifest, whose presence means that the set is complete.
        gate: String,
    },
    /// The manifest cannot be parsed, or names a missing object or one in another bucket.
    #[error("{path}: {why}")]
    Manifest {
        /// The manifest.
        path: String,
        /// The reason.
        why: String,
    },
    /// A range of event times was requested from a source that cannot select by time.
    #[error("{path}: its rows cannot be selected by event time, because it is always read in full")]
    NoWindow {
        /// The source.
        path: String,
    },
    /// The file or object changed while it was read.
    #[error("{path} changed while it was read, so it must be read again")]
    Changed {
        /// The file or object.
        path: String,
    },
}

// === impl SourceError ===

impl SourceError {
    /// Returns the kind of failure, as a metric label.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Io { .. } => "io",
            Self::Empty { .. } => "empty",
            Self::Unreadable { .. } => "unreadable",
            Self::MissingColumn { .. } => "missing_column",
            Self::Column { .. } => "column",
            Self::Limit { .. } => "limit",
            Self::Busy { .. } => "busy",
            Self::NotSqlite { .. } => "not_sqlite",
            Self::MissingTable { .. } => "missing_table",
            Self::Changed { .. } => "changed",
            Self::NotBuilt { .. } => "not_built",
            Self::Aws(error) => error.kind.label(),
            Self::Table { .. } => "table",
            Self::Lost { .. } => "lost",
            Self::NoWindow { .. } => "no_window",
            Self::NotWhole { .. } => "not_whole",
            Self::Manifest { .. } => "manifest",
            Self::TableFormat { .. } => "table_format",
        }
    }
}
