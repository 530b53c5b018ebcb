//! Reads Parquet from files and objects with bounded memory and stack size.
//!
//! A file is untrusted input. Its footer may be nested so deeply that converting it overflows the stack (`footer.rs`,
//! `thread.rs`), its pages may decompress to any size (`pages.rs`, `codec.rs`), and its rows may be a thousand times
//! larger than its pages (`levels.rs`, `rows.rs`, `cut.rs`). A file that exceeds the limits causes an error that names
//! the file.

mod codec;
mod cut;
mod footer;
mod input;
mod levels;
mod page_header;
mod pages;
mod rows;
mod thread;
mod thrift;

#[cfg(test)]
mod tests;

use std::ops::Range;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::{errors::ParquetError, file::metadata::ParquetMetaData};

pub(super) use self::{
    input::{Input, Windows},
    rows::{FileRows, Plan},
    thread::DecodeThread,
};
use super::SourceError;

/// Limits on the resources for reading a file.
#[derive(Clone, Copy, Debug)]
pub struct ParquetLimits {
    /// The maximum number of rows decoded at a time.
    pub batch_rows: usize,
    /// The maximum number of columns in a file. Each leaf of a nested column counts.
    pub columns_max: usize,
    /// The maximum memory in bytes for a file's metadata, and then for its pages and decoded rows.
    pub memory_max: u64,
    /// The number of bytes that each column to read adds to the limit for pages and decoded rows. It is enough for a
    /// dictionary and a page of usual size, with their decoded values.
    pub column_bytes: u64,
    /// The maximum size in bytes of the decoded rows in one batch, unless a single row is larger.
    pub piece_bytes: u64,
    /// The maximum size in bytes of a row group that is fetched from an object as a whole, counting only the wanted
    /// columns as they are stored. Larger row groups are fetched on demand, in parts of about this total size.
    pub fetch_bytes: u64,
}

/// The default of `sync: commit_bytes`.
const COMMIT_BYTES: usize = 64 << 20;

impl Default for ParquetLimits {
    fn default() -> Self {
        Self::of(COMMIT_BYTES)
    }
}

// === impl ParquetLimits ===

impl ParquetLimits {
    /// Returns the limits that are derived from the size of a transaction in bytes (`sync: commit_bytes`).
    #[must_use]
    pub fn of(commit_bytes: usize) -> Self {
        let commit_bytes = commit_bytes as u64;
        Self {
            batch_rows: 16_384,
            columns_max: 20_000,
            memory_max: commit_bytes.saturating_mul(2),
            column_bytes: 6 << 20,
            piece_bytes: commit_bytes / 8,
            fetch_bytes: commit_bytes,
        }
    }

    /// Returns the maximum memory for decoding this many columns.
    fn memory_of(&self, columns: usize) -> u64 {
        self.memory_max.saturating_add(self.column_bytes.saturating_mul(columns as u64))
    }

    fn check_memory(&self, path: &str, what: &str, found: u64) -> Result<(), SourceError> {
        if found <= self.memory_max {
            return Ok(());
        }
        let hint = ". hint: raise 'sync: commit_bytes', or write fewer columns and row groups";
        let (path, what) = (path.to_owned(), what.to_owned());
        Err(SourceError::Limit { path, what, found, limit: self.memory_max, hint })
    }

    fn memory_error(&self, path: &str, what: String, found: u64, limit: u64) -> SourceError {
        let hint = ". hint: raise 'sync: commit_bytes', or write smaller pages and row groups";
        SourceError::Limit { path: path.to_owned(), what, found, limit, hint }
    }
}

/// Checks a limit that no setting changes.
pub(super) fn check(path: &str, what: &str, found: u64, limit: u64) -> Result<(), SourceError> {
    if found <= limit {
        return Ok(());
    }
    Err(SourceError::Limit { path: path.to_owned(), what: what.to_owned(), found, limit, hint: "" })
}

/// Reads the footer of a file of `size` bytes, and checks it before converting it. `fetch` reads a range of the file.
/// Statistics are only decoded for the root column with the name `statistics_of`, if there is one.
///
/// # Errors
/// [`SourceError::Unreadable`], [`SourceError::Limit`], and the errors of `fetch`.
pub(super) fn metadata(
    path: &str,
    size: u64,
    limits: &ParquetLimits,
    thread: &DecodeThread,
    statistics_of: Option<&str>,
    fetch: &mut dyn FnMut(Range<u64>) -> Result<Bytes, SourceError>,
) -> Result<ParquetMetaData, SourceError> {
    footer::read(path, size, limits, thread, statistics_of, fetch)
}

/// Returns the columns of a file, with the types that they are decoded to.
///
/// # Errors
/// A message with the reason why the file cannot be read.
pub(super) fn schema(metadata: ParquetMetaData, thread: &DecodeThread) -> Result<SchemaRef, String> {
    thread.guarded(move || rows::decoded_schema(&metadata))
}

/// Returns the columns of a file, with the types that it declares.
///
/// # Errors
/// A message with the reason why the file cannot be read.
pub(super) fn declared_schema(metadata: ParquetMetaData, thread: &DecodeThread) -> Result<SchemaRef, String> {
    thread.guarded(move || rows::declared_schema(&metadata))
}

/// The Parquet reader's error message, without the error type in front.
#[derive(Debug)]
pub(super) struct ReadFailure(String);

impl From<ParquetError> for ReadFailure {
    fn from(error: ParquetError) -> Self {
        Self(match error {
            ParquetError::General(why) | ParquetError::EOF(why) | ParquetError::ArrowError(why) => why,
            other => other.to_string(),
        })
    }
}

impl From<arrow::error::ArrowError> for ReadFailure {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self(match error {
            arrow::error::ArrowError::ParquetError(why) => {
                // The reader adds this prefix each time it wraps an error.
                why.strip_prefix("Parquet error: ").map(str::to_owned).unwrap_or(why)
            }
            other => other.to_string(),
        })
    }
}
