//! What can be wrong with a source. Every message names the file, and the column where there is one.

use std::io;

use crate::aws::AwsError;

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// Nothing is there, or the operating system refuses.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file or directory.
        path: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// There are files, or not even that, but no rows.
    #[error("No data found in source {path}{hint}")]
    Empty {
        /// The file or directory.
        path: String,
        /// What there is instead, if anything.
        hint: &'static str,
    },
    /// The bytes are not Parquet, or break off.
    #[error("{path} is not a readable Parquet file: {why}")]
    Unreadable {
        /// The file.
        path: String,
        /// The reader's reason.
        why: String,
    },
    /// A column that the view needs is not there.
    #[error("{path} has no column '{column}'{hint}")]
    MissingColumn {
        /// The file.
        path: String,
        /// The column, by its name in the file.
        column: String,
        /// What was probably meant.
        hint: String,
    },
    /// A column cannot be read as the type that the view declares.
    #[error("{path}, column '{column}': {why}")]
    Column {
        /// The file.
        path: String,
        /// The column.
        column: String,
        /// What does not fit.
        why: String,
    },
    /// Beyond a bound that keeps the host's memory safe.
    #[error("{path}: {what} is {found}, at most {limit} is allowed{hint}")]
    Limit {
        /// The file.
        path: String,
        /// What is bounded.
        what: String,
        /// How much there is.
        found: u64,
        /// How much there may be.
        limit: u64,
        /// The hint, if there is one.
        hint: &'static str,
    },
    /// Another process writes to the file, and does not come to an end.
    #[error("{path} is locked by another process; the next sync tries again")]
    Busy {
        /// The file.
        path: String,
    },
    /// The bytes are no SQLite database, or a damaged one.
    #[error("{path} is not a readable SQLite file: {why}")]
    NotSqlite {
        /// The file.
        path: String,
        /// SQLite's reason.
        why: String,
    },
    /// The view has no table there.
    #[error("{path} has no table '{table}': 'feast apply' makes it")]
    MissingTable {
        /// The file.
        path: String,
        /// The table.
        table: String,
    },
    /// A table whose log determines its valid files: reading it without the log would bring back rows that were deleted
    /// or overwritten.
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
    /// AWS did not answer, or with a refusal.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// A table that cannot be read as the definition says.
    #[error("DynamoDB table '{table}': {why}")]
    Table {
        /// The table.
        table: String,
        /// What does not fit.
        why: String,
    },
    /// The position that a reading should go on from says nothing any more: everything is to be read anew.
    #[error("{path}: {why}")]
    Lost {
        /// What was read.
        path: String,
        /// Why there is no going on.
        why: String,
    },
    /// A set of objects of which not all were written yet.
    #[error("{path} is not whole yet: {gate} is not there")]
    NotWhole {
        /// The set.
        path: String,
        /// What tells that it is whole.
        gate: String,
    },
    /// A manifest that does not read, or names what is not there.
    #[error("{path}: {why}")]
    Manifest {
        /// The manifest.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// A span of event times was asked for, of something that has no order of times.
    #[error("{path}: its rows cannot be selected by event time: it is read as a whole")]
    NoWindow {
        /// The table.
        path: String,
    },
    /// The file was replaced while it was read.
    #[error("{path} changed while it was read; the next sync reads it again")]
    Changed {
        /// The file.
        path: String,
    },
}

// === impl SourceError ===

impl SourceError {
    /// The kind of failure, as a metric label.
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
            Self::Aws(error) => error.trouble.kind(),
            Self::Table { .. } => "table",
            Self::Lost { .. } => "lost",
            Self::NoWindow { .. } => "no_window",
            Self::NotWhole { .. } => "not_whole",
            Self::Manifest { .. } => "manifest",
            Self::TableFormat { .. } => "table_format",
        }
    }
}
