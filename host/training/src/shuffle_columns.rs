//! The columns that a distributed join adds to rows, and the columns of feature rows.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayBuilder, ArrayRef, AsArray, BinaryArray, BinaryBuilder, Int32Array, Int32Builder, Int64Array,
        Int64Builder, RecordBatch,
    },
    compute::cast,
    datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef},
};
use larder_model::{codec::RowRank, model::EntityId};

use super::{
    TrainingError,
    kernel::{Arrival, Candidate},
};

/// The columns of feature rows, by name.
pub(super) struct FeatureColumns {
    reads: Int32Array,
    ids: BinaryArray,
    files: Int64Array,
    indexes: Int64Array,
    pub(super) rows: BinaryArray,
}

/// Builds batches of feature rows.
#[derive(Default)]
pub(super) struct FeatureBatch {
    buckets: Int32Builder,
    reads: Int32Builder,
    ids: BinaryBuilder,
    files: Int64Builder,
    indexes: Int64Builder,
    rows: BinaryBuilder,
}

/// The prefix of all columns that a distributed join adds.
pub const INTERNAL_PREFIX: &str = "__larder_";
/// The column with the number of a row's bucket.
pub(super) const BUCKET_COLUMN: &str = "__larder_bucket";
const READ_COLUMN: &str = "__larder_read";
const ID_COLUMN: &str = "__larder_id";
const FILE_COLUMN: &str = "__larder_file";
const INDEX_COLUMN: &str = "__larder_index";
const ROW_COLUMN: &str = "__larder_row";
/// The maximum number of feature rows in a batch, and the number of bytes after which a batch ends.
const BATCH_ROWS: usize = 8_192;
pub(super) const BATCH_BYTES: usize = 32 << 20;

/// Returns the name of the column with the feature rows of a read.
pub(super) fn row_column(read: usize) -> String {
    format!("{ROW_COLUMN}_{read}")
}

/// Returns the columns of feature rows.
#[must_use]
pub fn feature_row_schema() -> SchemaRef {
    let field = |name: &str, of: DataType| Field::new(name, of, false);
    Arc::new(Schema::new(vec![
        field(BUCKET_COLUMN, DataType::Int32),
        field(READ_COLUMN, DataType::Int32),
        field(ID_COLUMN, DataType::Binary),
        field(FILE_COLUMN, DataType::Int64),
        field(INDEX_COLUMN, DataType::Int64),
        field(ROW_COLUMN, DataType::Binary),
    ]))
}

/// Returns a column of bytes.
pub(super) fn binary(batch: &RecordBatch, name: &str) -> Result<BinaryArray, TrainingError> {
    let Some(array) = batch.column_by_name(name) else {
        return Err(TrainingError::MissingColumn { column: name.to_owned(), hint: String::new() });
    };
    Ok(cast(array, &DataType::Binary)?.as_binary::<i32>().clone())
}

// === impl FeatureBatch ===

impl FeatureBatch {
    pub(super) fn push(&mut self, bucket: i32, read: usize, id: &EntityId, arrival: Arrival, row: &[u8]) {
        self.buckets.append_value(bucket);
        self.reads.append_value(i32::try_from(read).unwrap_or(i32::MAX));
        self.ids.append_value(id.0);
        self.files.append_value(i64::from(arrival.file));
        // A file has fewer than 2^63 rows.
        self.indexes.append_value(arrival.row.cast_signed());
        self.rows.append_value(row);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.reads.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.reads.values_slice().len() >= BATCH_ROWS || self.rows.values_slice().len() >= BATCH_BYTES
    }

    pub(super) fn finish(&mut self) -> Result<RecordBatch, TrainingError> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.buckets.finish()),
            Arc::new(self.reads.finish()),
            Arc::new(self.ids.finish()),
            Arc::new(self.files.finish()),
            Arc::new(self.indexes.finish()),
            Arc::new(self.rows.finish()),
        ];
        Ok(RecordBatch::try_new(feature_row_schema(), columns)?)
    }
}

// === impl FeatureColumns ===

impl FeatureColumns {
    pub(super) fn new(batch: &RecordBatch) -> Result<Self, TrainingError> {
        let column = |name: &str, of: &DataType| match batch.column_by_name(name) {
            Some(array) if array.data_type() == of => Ok(array),
            _ => Err(TrainingError::Column { column: name.to_owned(), why: format!("it is not a column of {of}") }),
        };
        let long = |name| Ok::<_, TrainingError>(column(name, &DataType::Int64)?.as_primitive::<Int64Type>().clone());
        Ok(Self {
            reads: column(READ_COLUMN, &DataType::Int32)?.as_primitive::<Int32Type>().clone(),
            ids: binary(batch, ID_COLUMN)?,
            files: long(FILE_COLUMN)?,
            indexes: long(INDEX_COLUMN)?,
            rows: binary(batch, ROW_COLUMN)?,
        })
    }

    pub(super) fn of_read(&self, read: usize) -> impl Iterator<Item = usize> {
        (0..self.reads.len()).filter(move |row| usize::try_from(self.reads.value(*row)) == Ok(read))
    }

    pub(super) fn id(&self, row: usize) -> EntityId {
        EntityId(self.ids.value(row).try_into().unwrap_or_default())
    }

    pub(super) fn arrival(&self, row: usize) -> Arrival {
        let file = u32::try_from(self.files.value(row)).unwrap_or(u32::MAX);
        Arrival { file, row: self.indexes.value(row).cast_unsigned() }
    }

    /// Returns the times and the position of a row; `None` if its bytes are not a row.
    pub(super) fn candidate(&self, row: usize) -> Option<Candidate> {
        let rank = RowRank::read(self.rows.value(row)).ok()?;
        let nanos = |nanos: u32| u16::try_from(nanos).unwrap_or(0);
        let (event_nanos, created_nanos) = rank.nanos();
        Some(Candidate {
            event_time: rank.header.event_time,
            created: rank.header.created,
            nanos: (nanos(event_nanos), nanos(created_nanos)),
            arrival: self.arrival(row),
        })
    }
}
