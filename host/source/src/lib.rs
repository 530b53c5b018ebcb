//! Sources: where a view's rows come from.
//!
//! A [`Source`] yields batches of typed columns and a position: its own words for how far it was read, kept in the
//! store beside the rows and given back to it on the next reading. A source knows files and their formats; it does
//! not know what becomes of the rows.

pub mod aws;

mod dynamodb;
mod error;
mod feast_sqlite;
mod listed;
mod parquet_files;
mod parquet_reader;
mod parquet_shape;
mod s3_parquet;
mod schema;
mod wanted;

use std::{fmt::Debug, time::Duration};

use arrow::array::RecordBatch;
use larder_model::{
    codec::Cell,
    model::{EntityId, Micros},
};

pub use self::{
    dynamodb::{DynamoDb, NewTable, TableError, TableRow, TableWriter, WriteOptions, Written},
    error::SourceError,
    feast_sqlite::FeastSqlite,
    parquet_files::ParquetFiles,
    parquet_reader::ParquetLimits,
    s3_parquet::S3Parquet,
    schema::{ColumnAt, FileSchema},
    wanted::{Wanted, WantedColumn},
};

/// Something that rows can be read from, again and again.
pub trait Source: Send + Sync + Debug {
    /// Whether there is anything that was not read yet at this position.
    ///
    /// # Errors
    /// When the source cannot be looked at.
    fn has_news(&self, position: &str) -> Result<bool, SourceError>;

    /// Starts to read: all that is not covered by the position, or everything when there is none.
    ///
    /// # Errors
    /// When the source cannot be opened, or has not one row.
    fn read(&self, position: Option<&str>) -> Result<Box<dyn Batches + '_>, SourceError>;

    /// Opens the source without reading a row, and returns the columns of its files; empty for a source without files.
    /// If there are very many files, it opens only some.
    ///
    /// # Errors
    /// When the source cannot be opened.
    fn schemas(&self) -> Result<Vec<FileSchema>, SourceError>;

    /// What it is, for messages.
    fn name(&self) -> String;

    /// Whether it puts one row in the place of another whatever their times: its rows are told in the order in which
    /// that happened, and the last one stays.
    fn last_put_wins(&self) -> bool {
        false
    }

    /// Whether a reading of the whole that was cut off can go on from its position.
    fn resumes(&self) -> bool {
        false
    }

    /// Whether rows of a span of event times can be read apart from the others.
    fn has_windows(&self) -> bool {
        true
    }

    /// Whether a reading that ended well at this position, so long ago, will do where nobody asks for one: where to look is
    /// to read all of it, that costs.
    ///
    /// # Errors
    /// What keeps it from being looked at.
    fn will_do(&self, _position: &str, _age: Duration) -> Result<bool, SourceError> {
        Ok(false)
    }

    /// The unit, in microseconds, to which the source truncates the times of its rows; `None` if it keeps them as
    /// written.
    fn time_unit(&self) -> Option<Micros> {
        None
    }

    /// The maximum time before a change is noticed, if the kind of source determines it.
    fn staleness(&self) -> Option<Duration> {
        None
    }

    /// A notice for users about how the source is followed, if there is one, with a hint.
    fn caveat(&self) -> Option<String> {
        None
    }

    /// How often it has to be looked at to be followed, where it says so itself.
    fn pace(&self) -> Option<Duration> {
        None
    }
}

/// A reading under way.
pub trait Batches {
    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// When the source breaks off or holds what cannot be read. There is no way on after an error.
    fn next_batch(&mut self) -> Result<Option<SourceBatch>, SourceError>;

    /// How many rows this reading will yield, as far as is known at its start.
    fn rows_expected(&self) -> u64;

    /// How far the source was read with all batches so far.
    fn position(&self) -> String;

    /// Whether this is the whole of what there is, and takes the place of all that was read before.
    fn is_whole(&self) -> bool {
        false
    }

    /// How old the newest change is that was read, while there are others behind it; zero when there are none, `None`
    /// where changes are not told one by one.
    fn lag(&self) -> Option<Duration> {
        None
    }
}

/// Some rows of a source.
#[derive(Debug)]
pub struct SourceBatch {
    /// The rows.
    pub rows: SourceRows,
    /// The file, for messages.
    pub origin: std::sync::Arc<str>,
    /// The place of the batch's first row in the file, from 0, for messages.
    pub first_row: u64,
}

/// Rows, in the form that the source has them in.
#[derive(Debug)]
pub enum SourceRows {
    /// Columns under the names that definitions use: exactly those that were [`Wanted`], in that order, of the types
    /// that the file has.
    Columns(RecordBatch),
    /// Rows of an online store.
    Items(Vec<Item>),
    /// What became of rows of an online store, in the order in which it happened.
    Changes(Vec<Change>),
}

/// What became of a row of an online store.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It is this now.
    Put(Item),
    /// It is gone.
    Remove(EntityId),
}

/// A row of an online store.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The hash of the key, which such stores hold, or that of the key that they hold.
    pub id: EntityId,
    /// When its values were true.
    pub event_time: Option<Micros>,
    /// When it was made, if the store says.
    pub created: Option<Micros>,
    /// When it expires, if it does so by itself.
    pub expires: Option<Micros>,
    /// The value of each feature of the view, in the view's order; `None` if the store has none.
    pub values: Vec<Option<ItemValue>>,
    /// Why it cannot be a row, if so: it is left out, and told.
    pub problem: Option<String>,
}

/// A value of a row of an online store.
#[derive(Clone, Debug, PartialEq)]
pub enum ItemValue {
    /// The bytes of a `feast.types.Value`, as in Feast's stores.
    Feast(Vec<u8>),
    /// A value of the store's own type.
    Cell(Cell),
    /// The reason why it cannot be read. The other values of the row can be read.
    Unreadable(String),
}

// === impl Item ===

impl Item {
    /// One that cannot be a row.
    #[must_use]
    pub fn unreadable(id: EntityId, why: String) -> Self {
        Self { id, event_time: None, created: None, expires: None, values: Vec::new(), problem: Some(why) }
    }
}

// === impl SourceRows ===

impl SourceRows {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Columns(columns) => columns.num_rows(),
            Self::Items(items) => items.len(),
            Self::Changes(changes) => changes.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
