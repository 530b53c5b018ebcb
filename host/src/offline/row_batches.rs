//! Divides the rows of a training set into batches of limited size.

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    compute::{cast, concat_batches},
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
};
use larder_columns::{fixed_row_size, row_sizes};
use larder_training::TrainingError;

use super::OfflineError;

/// Collects rows until they are a batch. The end of a batch depends only on the rows, and not on how they were divided before,
/// because the sizes of batches decide the ends of Parquet's pages and row groups.
///
/// Dictionaries are replaced by their values. Otherwise, the values of several batches could have more distinct values than the
/// type of the keys can count.
#[derive(Debug)]
pub(super) struct RowBatches {
    /// The columns, without dictionaries.
    schema: SchemaRef,
    /// The size of each row in bytes, if all rows have the same size.
    row_bytes: Option<u64>,
    pending: Vec<RecordBatch>,
    rows: usize,
    bytes: u64,
}

/// The maximum number of rows in a batch.
const ROWS_MAX: usize = 1 << 14;
/// The maximum size of a batch in bytes, unless a single row is larger.
const BYTES_MAX: u64 = 8 << 20;

// === impl RowBatches ===

impl RowBatches {
    pub(super) fn new(schema: SchemaRef) -> Self {
        let row_bytes = fixed_row_size(schema.fields().iter().map(|field| field.data_type()));
        let schema = without_dictionaries(&schema);
        Self { schema, row_bytes, pending: Vec::new(), rows: 0, bytes: 0 }
    }

    /// Adds rows, and passes each complete batch to `emit`.
    pub(super) fn push(
        &mut self,
        rows: &RecordBatch,
        emit: &mut dyn FnMut(RecordBatch) -> Result<(), OfflineError>,
    ) -> Result<(), OfflineError> {
        let sizes = self.row_bytes.map_or_else(|| row_sizes(rows), |bytes| vec![bytes; rows.num_rows()]);
        let mut start = 0;
        for (row, bytes) in sizes.into_iter().enumerate() {
            if self.rows > 0 && (self.rows == ROWS_MAX || self.bytes.saturating_add(bytes) > BYTES_MAX) {
                self.add(rows, start..row);
                start = row;
                self.emit(emit)?;
            }
            self.rows += 1;
            self.bytes = self.bytes.saturating_add(bytes);
        }
        self.add(rows, start..rows.num_rows());
        Ok(())
    }

    /// Passes the rows that are left to `emit`.
    pub(super) fn finish(
        &mut self,
        emit: &mut dyn FnMut(RecordBatch) -> Result<(), OfflineError>,
    ) -> Result<(), OfflineError> {
        if self.rows > 0 { self.emit(emit) } else { Ok(()) }
    }

    fn add(&mut self, rows: &RecordBatch, range: std::ops::Range<usize>) {
        if !range.is_empty() {
            self.pending.push(rows.slice(range.start, range.len()));
        }
    }

    fn emit(&mut self, emit: &mut dyn FnMut(RecordBatch) -> Result<(), OfflineError>) -> Result<(), OfflineError> {
        let pending = self.pending.drain(..).map(|batch| with_values(&batch, &self.schema));
        let pending = pending.collect::<Result<Vec<_>, _>>().map_err(TrainingError::from)?;
        let batch = match &*pending {
            [one] => one.clone(),
            several => concat_batches(&self.schema, several).map_err(TrainingError::from)?,
        };
        (self.rows, self.bytes) = (0, 0);
        emit(batch)
    }
}

/// Returns the columns with the types of the values of dictionaries.
pub(super) fn without_dictionaries(schema: &SchemaRef) -> SchemaRef {
    let field = |field: &Arc<Field>| match field.data_type() {
        DataType::Dictionary(_, values) => Arc::new(Field::clone(field).with_data_type(DataType::clone(values))),
        _ => Arc::clone(field),
    };
    let fields: Vec<_> = schema.fields().iter().map(field).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Replaces dictionaries by their values.
fn with_values(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        if column.data_type() == field.data_type() { Ok(Arc::clone(column)) } else { cast(column, field.data_type()) }
    });
    RecordBatch::try_new(SchemaRef::clone(schema), columns.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{ArrayRef, Int64Array, StringArray},
        datatypes::{DataType, Field, Schema},
    };

    use super::*;

    fn texts(rows: usize, bytes: usize) -> RecordBatch {
        let text = "t".repeat(bytes);
        let column: ArrayRef = Arc::new(StringArray::from(vec![text.as_str(); rows]));
        RecordBatch::try_from_iter([("text", column)]).unwrap()
    }

    /// Returns the numbers of rows of the batches of some rows, which are pushed in pieces of `piece` rows.
    fn batches(rows: &RecordBatch, piece: usize) -> Vec<usize> {
        let (mut batches, mut found) = (RowBatches::new(rows.schema()), Vec::new());
        let mut emit = |batch: RecordBatch| {
            found.push(batch.num_rows());
            Ok(())
        };
        for start in (0..rows.num_rows()).step_by(piece) {
            batches.push(&rows.slice(start, piece.min(rows.num_rows() - start)), &mut emit).unwrap();
        }
        batches.finish(&mut emit).unwrap();
        found
    }

    #[test]
    fn batches_have_at_most_their_rows() {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..40_000));
        let rows = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
        for piece in [1_000, 16_384, 40_000] {
            assert_eq!(batches(&rows, piece), [16_384, 16_384, 40_000 - 2 * 16_384], "{piece}");
        }
        assert_eq!(batches(&rows.slice(0, 16_384), 16_384), [16_384]);
    }

    #[test]
    fn batches_have_at_most_their_bytes() {
        let mib = 1 << 20;
        // Each text has 4 bytes for its length.
        for piece in [1, 3, 20] {
            assert_eq!(batches(&texts(20, mib - 4), piece), [8, 8, 4], "{piece}");
            assert_eq!(batches(&texts(3, 9 * mib), piece), [1, 1, 1], "{piece}");
        }
        let fields: Vec<Field> = (0..2_048).map(|at| Field::new(format!("f{at}"), DataType::Float64, true)).collect();
        let wide = RecordBatch::new_empty(Arc::new(Schema::new(fields)));
        let columns = wide.columns().iter().map(|column| arrow::array::new_null_array(column.data_type(), 1_000));
        let wide = RecordBatch::try_new(wide.schema(), columns.collect()).unwrap();
        assert_eq!(batches(&wide, 300), [512, 488]);
    }

    #[test]
    fn dictionaries_become_values() {
        let column = |first: i32| {
            let texts: ArrayRef = Arc::new(StringArray::from_iter_values((first..first + 100).map(|n| n.to_string())));
            cast(&texts, &DataType::Dictionary(DataType::Int8.into(), DataType::Utf8.into())).unwrap()
        };
        let rows = |first| RecordBatch::try_from_iter([("d", column(first))]).unwrap();
        let (mut batches, mut found) = (RowBatches::new(rows(0).schema()), Vec::new());
        let mut emit = |batch: RecordBatch| {
            found.push(batch);
            Ok(())
        };
        // 200 distinct values are more than keys of 8 bits can count.
        batches.push(&rows(0), &mut emit).unwrap();
        batches.push(&rows(100), &mut emit).unwrap();
        batches.finish(&mut emit).unwrap();
        let expected: ArrayRef = Arc::new(StringArray::from_iter_values((0..200).map(|n| n.to_string())));
        assert_eq!(found[0].column(0), &expected);
    }

    #[test]
    fn batches_of_nothing_are_not_emitted() {
        assert!(batches(&texts(0, 1), 1).is_empty());
    }
}
