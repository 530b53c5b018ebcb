//! Sources of a view's rows.
//!
//! A [`Source`] yields batches of rows and a position. The position is a string in the source's own format that records
//! how far the source was read. The store keeps the position with the rows, and the sync engine passes it to the next
//! read. A source handles files, tables and their formats, and does not depend on how its rows are used.

pub mod aws;

#[cfg(feature = "aws")]
mod dynamodb;
mod error;
#[cfg(feature = "sqlite")]
mod feast_sqlite;
mod file_columns;
#[cfg(not(all(feature = "aws", feature = "sqlite")))]
mod left_out;
mod listed;
mod parquet_files;
#[cfg_attr(
    not(feature = "aws"),
    expect(dead_code, unused_imports, reason = "some items are only used for objects in S3")
)]
mod parquet_reader;
mod parquet_shape;
mod row_group;
#[cfg(feature = "aws")]
mod s3_parquet;
mod schema;
mod view_columns;
mod wanted;

use std::{fmt::Debug, path::PathBuf, time::Duration};

use arrow::array::RecordBatch;
use larder_model::{
    codec::Cell,
    model::{EntityId, Micros},
};

#[cfg(feature = "sqlite")]
pub use self::feast_sqlite::FeastSqlite;
#[cfg(not(all(feature = "aws", feature = "sqlite")))]
pub use self::left_out::*;
#[cfg(feature = "aws")]
pub use self::{
    dynamodb::{DynamoDb, NewTable, TableError, TableRow, TableWriter, WriteOptions, Written},
    s3_parquet::S3Parquet,
};
pub use self::{
    error::SourceError,
    parquet_files::ParquetFiles,
    parquet_reader::ParquetLimits,
    row_group::{RowGroup, RowGroupFilter},
    schema::{ColumnAt, FileSchema},
    view_columns::ViewColumns,
    wanted::{Wanted, WantedColumn},
};

/// A source that rows can be read from repeatedly.
pub trait Source: Send + Sync + Debug {
    /// Returns whether the source may have data that the position does not cover.
    ///
    /// # Errors
    /// If the source cannot be checked.
    fn has_changes(&self, position: &str) -> Result<bool, SourceError>;

    /// Starts to read the rows that the position does not cover, or all rows if there is no position. Some sources
    /// always read all rows ([`Batches::is_whole`]).
    ///
    /// # Errors
    /// If the source cannot be opened, or has no rows at all.
    fn read(&self, position: Option<&str>) -> Result<Box<dyn Batches + '_>, SourceError>;

    /// Opens the source without reading a row, and returns the columns of each of its files. Returns an empty list for
    /// a source that does not consist of Parquet files. Opens only some of the files if there are very many.
    ///
    /// # Errors
    /// If the source cannot be opened.
    fn schemas(&self) -> Result<Vec<FileSchema>, SourceError>;

    /// Returns the name of the source, for messages.
    fn name(&self) -> String;

    /// Returns the versions of the source's files, in the order of [`SourceBatch::file`]. Returns an empty list for a source
    /// that does not consist of Parquet files.
    ///
    /// # Errors
    /// If the source cannot be listed.
    fn versions(&self) -> Result<Vec<FileVersion>, SourceError> {
        Ok(Vec::new())
    }

    /// Returns the properties that decide how the source's rows are loaded.
    fn properties(&self) -> SourceProperties {
        SourceProperties::default()
    }

    /// Returns whether the last successful sync, which ended at this position and this long ago, is recent enough to
    /// skip the sync at startup. Only sources in which nothing but an expensive full read detects changes may return
    /// true.
    ///
    /// # Errors
    /// If the source cannot be checked.
    fn is_recent_enough(&self, _position: &str, _age: Duration) -> Result<bool, SourceError> {
        Ok(false)
    }

    /// Returns the maximum time until a change to the source is detected; `None` if only the configuration determines
    /// it.
    fn staleness(&self) -> Option<Duration> {
        None
    }

    /// Returns a warning for users, with a hint, if changes to the source are detected late; `None` if no warning
    /// applies.
    fn caveat(&self) -> Option<String> {
        None
    }

    /// Returns the local files to watch. Every change to the source must change at least one of them. Returns an empty
    /// list if only a poll detects changes. Must not block.
    fn watched_files(&self) -> Vec<PathBuf> {
        Vec::new()
    }
}

/// The properties of a source that decide how its rows are loaded. The default describes files with event times.
///
/// There are no separate traits for snapshots and change streams, because a DynamoDB table is both. The scan of a table
/// and the changes that were made during the scan are one read with one position. Whether the table has a stream of
/// changes is known only when the table is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceProperties {
    /// Whether a later write to the source replaces a row regardless of event times. Such a source yields changes in
    /// the order in which they were made, and the last change of a row wins.
    pub last_put_wins: bool,
    /// Whether an interrupted full read can resume from its position.
    pub resumes: bool,
    /// Whether a sync of the source can be limited to a range of event times.
    pub has_windows: bool,
    /// The unit, in microseconds, to which the source truncates the times of its rows; `None` if it keeps them as
    /// written.
    pub time_unit: Option<Micros>,
    /// The interval at which to poll the source for changes, if the source determines it.
    pub poll_every: Option<Duration>,
}

impl Default for SourceProperties {
    fn default() -> Self {
        Self { last_put_wins: false, resumes: false, has_windows: true, time_unit: None, poll_every: None }
    }
}

/// A read in progress.
pub trait Batches {
    /// Returns the next rows; `None` at the end.
    ///
    /// # Errors
    /// If the source fails or contains data that cannot be read. The read cannot continue after an error.
    fn next_batch(&mut self) -> Result<Option<SourceBatch>, SourceError>;

    /// Returns an estimate of the number of rows in this read; 0 if unknown. The estimate may grow during the read.
    fn rows_expected(&self) -> u64;

    /// Returns the position after all batches so far.
    fn position(&self) -> String;

    /// Returns whether this read yields all rows of the source. If so, they replace the rows of earlier reads.
    fn is_whole(&self) -> bool {
        false
    }

    /// Returns whether this read yields stored rows, and not only the changes from a stream. Such a read can have many
    /// rows.
    fn is_scan(&self) -> bool {
        true
    }

    /// Returns the age of the last change that was read, or zero if no unread changes are expected; `None` if the
    /// source has no stream of changes.
    fn lag(&self) -> Option<Duration> {
        None
    }
}

/// A version of a file or an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileVersion {
    /// The path of the file below the source's path, or the key of the object below its prefix.
    pub name: String,
    /// The size in bytes.
    pub bytes: u64,
    /// The ETag of an object. For a file, the time at which it was last modified, in seconds since 1970.
    pub version: String,
}

/// Some rows of a source.
#[derive(Debug)]
pub struct SourceBatch {
    /// The rows.
    pub rows: SourceRows,
    /// The file, object or table, for messages.
    pub origin: std::sync::Arc<str>,
    /// The index of the file or object in the source; 0 if the source does not consist of files.
    pub file: usize,
    /// The index of the batch's first row, for messages. It counts from 0 in the file or object, or in this read of a
    /// table.
    pub first_row: u64,
}

/// Rows, in the format of the source.
#[derive(Debug)]
pub enum SourceRows {
    /// The columns of [`Wanted`], in its order and with the names from the definitions. Columns that come from the file
    /// have the types that the file declares.
    Columns(RecordBatch),
    /// Rows of an online store.
    Items(Vec<Item>),
    /// Changes of rows of an online store, in the order in which they were made.
    Changes(Vec<Change>),
}

/// A change of a row of an online store.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The row was added or replaced.
    Put(Item),
    /// The row was removed.
    Remove(EntityId),
}

/// A row of an online store.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The hash of the key: either read from the store, or computed from the key that the store has.
    pub id: EntityId,
    /// The time at which the values were true.
    pub event_time: Option<Micros>,
    /// The created time, if the store has it.
    pub created: Option<Micros>,
    /// The time at which the row expires in the store; `None` if it does not expire.
    pub expires: Option<Micros>,
    /// The value of each feature of the view, in the view's order; `None` if the store has none.
    pub values: Vec<Option<ItemValue>>,
    /// The reason why the item is not a valid row; `None` for a valid row. An invalid item is skipped and reported.
    pub problem: Option<String>,
}

/// A value of a row of an online store.
#[derive(Clone, Debug, PartialEq)]
pub enum ItemValue {
    /// The bytes of a `feast.types.Value`, as in Feast's stores.
    Feast(Vec<u8>),
    /// A value of the store's own type.
    Cell(Cell),
    /// A value that cannot be read, with the reason. The other values of the row can be read.
    Unreadable(String),
}

// === impl Item ===

impl Item {
    /// Creates an item that is not a valid row.
    #[must_use]
    pub fn unreadable(id: EntityId, why: String) -> Self {
        Self { id, event_time: None, created: None, expires: None, values: Vec::new(), problem: Some(why) }
    }
}

// === impl SourceRows ===

impl SourceRows {
    /// Returns the number of rows or changes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Columns(columns) => columns.num_rows(),
            Self::Items(items) => items.len(),
            Self::Changes(changes) => changes.len(),
        }
    }

    /// Returns whether there are no rows or changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
