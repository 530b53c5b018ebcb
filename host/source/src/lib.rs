//! Sources of a view's rows.
//!
//! A [`Source`] yields batches of rows and a position: a string in the source's own format that records how far it was
//! read. The store keeps the position with the rows, and the next read passes it to the source. A source handles files,
//! tables and their formats, and does not depend on how its rows are used.

pub mod aws;

#[cfg(feature = "aws")]
mod dynamodb;
mod error;
#[cfg(feature = "sqlite")]
mod feast_sqlite;
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
#[cfg(feature = "aws")]
mod s3_parquet;
mod schema;
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
    schema::{ColumnAt, FileSchema},
    wanted::{Wanted, WantedColumn},
};

/// A source that rows can be read from repeatedly.
pub trait Source: Send + Sync + Debug {
    /// Returns whether the source may have data that the position does not cover.
    ///
    /// # Errors
    /// If the source cannot be checked.
    fn has_changes(&self, position: &str) -> Result<bool, SourceError>;

    /// Starts to read all rows that the position does not cover, or all rows if there is no position.
    ///
    /// # Errors
    /// If the source cannot be opened, or has no rows at all.
    fn read(&self, position: Option<&str>) -> Result<Box<dyn Batches + '_>, SourceError>;

    /// Opens the source without reading a row, and returns the columns of its files; empty for a source without Parquet
    /// files. Opens only some of the files if there are very many.
    ///
    /// # Errors
    /// If the source cannot be opened.
    fn schemas(&self) -> Result<Vec<FileSchema>, SourceError>;

    /// Returns the name of the source, for messages.
    fn name(&self) -> String;

    /// Returns the properties that decide how the source's rows are loaded.
    fn properties(&self) -> SourceProperties {
        SourceProperties::default()
    }

    /// Returns whether a sync that succeeded at this position and is this old is recent enough to skip the sync at
    /// startup. For sources in which only an expensive full read detects changes.
    ///
    /// # Errors
    /// If the source cannot be checked.
    fn is_recent_enough(&self, _position: &str, _age: Duration) -> Result<bool, SourceError> {
        Ok(false)
    }

    /// Returns the maximum time before a change is detected, if the kind of source determines it.
    fn staleness(&self) -> Option<Duration> {
        None
    }

    /// Returns a warning for users about how the source is followed, with a hint; `None` if no warning applies.
    fn caveat(&self) -> Option<String> {
        None
    }

    /// Returns local files to watch: every change of the source changes at least one of them. Empty if only a poll
    /// detects changes. Must not block.
    fn watched_files(&self) -> Vec<PathBuf> {
        Vec::new()
    }
}

/// The properties of a source that decide how its rows are loaded. The default describes files with event times.
///
/// A snapshot source and a change stream are not two traits, because a DynamoDB table is both: a full read and the
/// changes after it are one read with one position, and whether changes follow is only known when the table is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceProperties {
    /// Whether a later write to the source replaces a row regardless of event times. Such a source yields changes in
    /// the order in which they were made, and the last one wins.
    pub last_put_wins: bool,
    /// Whether an interrupted full read can resume from its position.
    pub resumes: bool,
    /// Whether a sync of the source can be limited to a range of event times.
    pub has_windows: bool,
    /// The unit, in microseconds, to which the source truncates the times of its rows; `None` if it keeps them as
    /// written.
    pub time_unit: Option<Micros>,
    /// The poll interval for following the source, if the source determines it.
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

    /// Returns whether this read yields all rows of the source, so that they replace the rows of earlier reads.
    fn is_whole(&self) -> bool {
        false
    }

    /// Returns the age of the newest change that was read, or zero if no unread changes are expected; `None` if the
    /// source has no stream of changes.
    fn lag(&self) -> Option<Duration> {
        None
    }
}

/// Some rows of a source.
#[derive(Debug)]
pub struct SourceBatch {
    /// The rows.
    pub rows: SourceRows,
    /// The file, object or table, for messages.
    pub origin: std::sync::Arc<str>,
    /// The index of the batch's first row, from 0, for messages: in the file or object, or in this read of a table.
    pub first_row: u64,
}

/// Rows, in the format of the source.
#[derive(Debug)]
pub enum SourceRows {
    /// Columns with the names from the definitions: exactly the [`Wanted`] columns, in that order. A column of a file
    /// keeps its type there.
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
    /// The hash of the key: read from the store, or computed from the key in the store.
    pub id: EntityId,
    /// The time at which the values were true.
    pub event_time: Option<Micros>,
    /// The created time, if the store has it.
    pub created: Option<Micros>,
    /// When the row expires in the store, if it does.
    pub expires: Option<Micros>,
    /// The value of each feature of the view, in the view's order; `None` if the store has none.
    pub values: Vec<Option<ItemValue>>,
    /// The reason why the item is not a valid row, if so. Such an item is skipped and reported.
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
