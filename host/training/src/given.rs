//! Answers entity rows whose feature rows are in columns: those that a distributed join found, or the features of a frame.

use std::sync::Arc;

use arrow::{
    array::{Array, BinaryArray, RecordBatch},
    datatypes::Schema,
    error::ArrowError,
};
use larder_columns::Column;
use larder_model::{
    codec::{RowBuilder, RowError, RowHeader, RowSchema},
    model::{Feature, Micros, ValueRef},
};
use larder_serving::HistoricalRows;
use larder_store::Row;

use super::{
    Progress, Report, TrainingError, TrainingJob, answer,
    entities::EntityColumns,
    found::FoundRows,
    independence,
    part::{BATCH_ROWS, Part},
    pieces::pieces,
    shuffle_columns::{binary, row_column},
    times::times,
};

/// The feature rows of a batch of entity rows.
pub(super) struct GivenRows {
    /// The feature row of each entity row, for each read.
    rows: Vec<Vec<Option<Row>>>,
    /// For each read, whether each entity row has a complete key. Empty for the rows of a frame: all of them count as having one.
    has_key: Vec<Vec<bool>>,
    /// The index of the first row among all rows.
    first_row: usize,
}

/// Returns the feature rows of a batch. The second argument is the index of its first row in the set.
pub(super) type Give<'g> = dyn Fn(&RecordBatch, usize) -> Result<GivenRows, TrainingError> + 'g;

// === impl GivenRows ===

impl GivenRows {
    /// Takes the feature rows that a distributed join found ([`TrainingJob::find`]).
    pub(super) fn of_join(job: &TrainingJob<'_>, batch: &RecordBatch, first_row: usize) -> Result<Self, TrainingError> {
        let plan = &job.historical.plan;
        let mut rows = Vec::with_capacity(plan.reads.len());
        for read in 0..plan.reads.len() {
            rows.push(rows_of(&binary(batch, &row_column(read))?));
        }
        let columns = EntityColumns::new(job, batch, first_row)?;
        let keys = HistoricalRows::new(plan, &columns.request, batch.num_rows())?;
        let has_key = |read: usize| {
            let key = plan.keys.iter().position(|key| key.reads.contains(&read)).unwrap_or_default();
            keys.ids(key).map(|id| id.is_some()).collect()
        };
        Ok(Self { rows, has_key: (0..plan.reads.len()).map(has_key).collect(), first_row })
    }

    /// Encodes the features in columns of a frame. `columns[view][feature]` is the index of the frame's column; `None` if no plugin
    /// reads the feature.
    pub(super) fn of_frame(
        job: &TrainingJob<'_>,
        columns: &[Vec<Option<usize>>],
        batch: &RecordBatch,
        first_row: usize,
    ) -> Result<Self, TrainingError> {
        let times = times(batch, job.request.time_column, first_row)?;
        let time = |row: usize| times.micros(row).unwrap_or_default();
        let views = job.historical.views.iter().zip(columns);
        let rows = views.map(|(view, columns)| {
            if columns.iter().all(Option::is_none) {
                return Ok(vec![None; batch.num_rows()]);
            }
            let schema = RowSchema::of_view(view);
            encode(&view.features, columns, batch, first_row, &schema, &time)
        });
        Ok(Self { rows: rows.collect::<Result<_, TrainingError>>()?, has_key: Vec::new(), first_row })
    }
}

impl FoundRows for GivenRows {
    fn first_row(&self) -> usize {
        self.first_row
    }

    fn row_bytes(&self, row: usize) -> u64 {
        self.rows.iter().filter_map(|rows| rows[row].as_ref()).map(|row| row.len() as u64).sum()
    }

    fn row_bytes_max(&self) -> u64 {
        let rows = self.rows.first().map_or(0, Vec::len);
        (0..rows).map(|row| self.row_bytes(row)).max().unwrap_or(0)
    }

    fn has_key(&self, read: usize, row: usize) -> bool {
        self.has_key.get(read).is_none_or(|rows| rows[row])
    }

    fn headers(&self, read: usize, rows: &[usize]) -> Vec<Option<RowHeader>> {
        rows.iter().map(|row| RowHeader::read(self.rows[read][*row].as_ref()?).ok()).collect()
    }

    fn row(&self, read: usize, row: usize) -> Option<Row> {
        self.rows[read][row].clone()
    }
}

// === impl TrainingJob ===

impl TrainingJob<'_> {
    /// Answers entity rows whose feature rows were found by a distributed join ([`TrainingJob::find`] of each key), and passes
    /// each batch of the output to `emit`.
    ///
    /// # Errors
    /// [`TrainingError`], and errors of `emit`.
    pub fn answer_found<E: From<TrainingError>>(
        &self,
        found: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
        progress: &Progress,
        emit: &mut dyn FnMut(RecordBatch) -> Result<(), E>,
    ) -> Result<Report, E> {
        self.answer_given(found, &|batch, first| GivenRows::of_join(self, batch, first), progress, emit)
    }

    /// Answers entity rows whose feature rows `give` returns.
    pub(super) fn answer_given<E: From<TrainingError>>(
        &self,
        batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
        give: &Give<'_>,
        progress: &Progress,
        emit: &mut dyn FnMut(RecordBatch) -> Result<(), E>,
    ) -> Result<Report, E> {
        let mut report = self.empty_report();
        let mut first_row = 0;
        for batch in batches {
            let batch = batch.map_err(TrainingError::of_entities)?;
            for start in (0..batch.num_rows()).step_by(BATCH_ROWS) {
                let with_features = batch.slice(start, BATCH_ROWS.min(batch.num_rows() - start));
                let given = give(&with_features, first_row)?;
                let entities = with_features.columns()[..self.entities.fields().len()].to_vec();
                let entities =
                    RecordBatch::try_new(Arc::clone(&self.entities), entities).map_err(TrainingError::from)?;
                first_row += entities.num_rows();
                let part = Part { first_row: given.first_row, batches: vec![(entities, 0)] };
                if report.parts == 0 {
                    independence::check(self, &part, &given)?;
                    report.parts = 1;
                }
                for piece in pieces(self, &part, &given) {
                    progress.check()?;
                    let rows = part.batches[piece.batch].0.slice(piece.rows.start, piece.rows.len());
                    let (answer, counts) = answer::batch(self, &given, &rows, piece.first)?;
                    report.add(&counts);
                    emit(answer)?;
                    progress.add_rows(rows.num_rows() as u64);
                }
            }
        }
        Ok(report)
    }
}

/// Returns the rows in a column.
fn rows_of(array: &BinaryArray) -> Vec<Option<Row>> {
    let offsets = array.value_offsets();
    let (first, last) = (offsets[0], offsets[array.len()]);
    // Offsets are not negative, and less than 2^31.
    let at = |offset: i32| offset.unsigned_abs();
    let block: Arc<[u8]> = array.value_data()[at(first) as usize..at(last) as usize].into();
    let row = |row: usize| {
        let range = at(offsets[row] - first)..at(offsets[row + 1] - first);
        array.is_valid(row).then(|| Row::in_block(&block, range))
    };
    (0..array.len()).map(row).collect()
}

/// Encodes a view's features as rows.
fn encode(
    features: &[Feature],
    columns: &[Option<usize>],
    batch: &RecordBatch,
    first_row: usize,
    schema: &RowSchema,
    time: &dyn Fn(usize) -> Micros,
) -> Result<Vec<Option<Row>>, TrainingError> {
    let mut decoded = Vec::with_capacity(columns.len());
    for (feature, column) in features.iter().zip(columns) {
        let Some(column) = column else {
            decoded.push(None);
            continue;
        };
        let values = Column::feature(batch.column(*column), feature.value_type);
        let error = (0..batch.num_rows()).find_map(|row| Some((row, values.conversion_error(row)?)));
        if let Some((row, why)) = error {
            let (column, why) = (name_of(&batch.schema(), *column), why.to_owned());
            return Err(TrainingError::Value { row: first_row + row, column, why });
        }
        decoded.push(Some(values));
    }
    let mut builder = RowBuilder::new(schema);
    let mut encode = |row: usize| {
        builder.begin(time(row), None);
        for values in &decoded {
            match values {
                Some(values) => values.push(row, &mut builder)?,
                None => builder.push(ValueRef::Null)?,
            }
        }
        if schema.expiry().is_some() {
            builder.push(ValueRef::Null)?;
        }
        let bytes: Arc<[u8]> = builder.finish()?.into();
        // A row is at most 4 MiB long.
        let end = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Ok(Some(Row::in_block(&bytes, 0..end)))
    };
    let names = || columns.iter().flatten().map(|column| name_of(&batch.schema(), *column));
    let too_long = |row: usize, why: RowError| TrainingError::Value {
        row: first_row + row,
        column: names().collect::<Vec<_>>().join("', '"),
        why: why.to_string(),
    };
    (0..batch.num_rows()).map(|row| encode(row).map_err(|why| too_long(row, why))).collect()
}

fn name_of(schema: &Schema, column: usize) -> String {
    schema.field(column).name().clone()
}
