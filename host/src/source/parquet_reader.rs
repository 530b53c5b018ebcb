//! Reading Parquet, wherever the file is, with memory and stack that have bounds.
//!
//! A file is input. Its footer may be nested so deep that converting it overflows the stack (`footer.rs`, `thread.rs`), its
//! pages may decompress to any size (`pages.rs`, `codec.rs`), and its rows may be a thousand times larger than its pages
//! (`levels.rs`, `rows.rs`, `cut.rs`). Each is an error that names the file, and nothing worse.

mod codec;
mod cut;
mod footer;
mod input;
mod levels;
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

/// Bounds on what a file may make the reader do.
#[derive(Clone, Copy, Debug)]
pub struct ParquetLimits {
    /// Rows decoded at a time.
    pub batch_rows: usize,
    /// The most columns of a file, nested ones counted each.
    pub columns_max: usize,
    /// The most bytes of memory for decoding a file: for its metadata, and then for pages and decoded rows.
    pub memory_max: u64,
    /// What is added to it for each column that is read: a dictionary and a page as writers make them, with what is decoded
    /// of them.
    pub column_bytes: u64,
    /// The most bytes of decoded rows that are returned at once, unless a row alone has more.
    pub piece_bytes: u64,
    /// The most bytes, as they are stored, of the wanted columns of a row group of an object that are fetched as a whole.
    /// Of larger ones parts of so many bytes together are fetched when they are needed.
    pub fetch_bytes: u64,
}

const COMMIT_BYTES: usize = 64 << 20;

impl Default for ParquetLimits {
    fn default() -> Self {
        Self::of(COMMIT_BYTES)
    }
}

// === impl ParquetLimits ===

impl ParquetLimits {
    /// The bounds beside transactions of so many bytes, `sync: commit_bytes`.
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

    /// The most memory for decoding so many columns.
    fn memory_of(&self, columns: usize) -> u64 {
        self.memory_max.saturating_add(self.column_bytes.saturating_mul(columns as u64))
    }

    fn check_memory(&self, path: &str, what: &str, found: u64) -> Result<(), SourceError> {
        if found <= self.memory_max {
            return Ok(());
        }
        let hint = "; hint: raise 'sync: commit_bytes', or write fewer columns and row groups";
        let (path, what) = (path.to_owned(), what.to_owned());
        Err(SourceError::Limit { path, what, found, limit: self.memory_max, hint })
    }

    fn memory_error(&self, path: &str, what: String, found: u64, limit: u64) -> SourceError {
        let hint = "; hint: raise 'sync: commit_bytes', or write smaller pages and row groups";
        SourceError::Limit { path: path.to_owned(), what, found, limit, hint }
    }
}

/// Checks a bound that no setting changes.
pub(super) fn check(path: &str, what: &str, found: u64, limit: u64) -> Result<(), SourceError> {
    if found <= limit {
        return Ok(());
    }
    Err(SourceError::Limit { path: path.to_owned(), what: what.to_owned(), found, limit, hint: "" })
}

/// Reads the footer of a file of `size` bytes, checked before it is converted. `fetch` reads a range of the file.
///
/// # Errors
/// [`SourceError::Unreadable`], [`SourceError::Limit`], and those of `fetch`.
pub(super) fn metadata(
    path: &str,
    size: u64,
    limits: &ParquetLimits,
    thread: &DecodeThread,
    fetch: &mut dyn FnMut(Range<u64>) -> Result<Bytes, SourceError>,
) -> Result<ParquetMetaData, SourceError> {
    footer::read(path, size, limits, thread, fetch)
}

/// The columns of a file, of the types that they are decoded to.
///
/// # Errors
/// Why the file cannot be read.
pub(super) fn schema(metadata: ParquetMetaData, thread: &DecodeThread) -> Result<SchemaRef, String> {
    thread.guarded(move || rows::decoded_schema(&metadata))
}

/// What the reader says of a file, without its own error names in front.
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
                // The reader puts its name in front as often as an error passes through it.
                why.strip_prefix("Parquet error: ").map(str::to_owned).unwrap_or(why)
            }
            other => other.to_string(),
        })
    }
}
