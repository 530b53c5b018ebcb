//! The keys and times of a view's feature rows, as entity rows: the input of a backfill.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, TimestampNanosecondArray},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    error::ArrowError,
};
use larder_columns::{instants, scalar_array};
use larder_model::model::{FeatureView, Micros, ValueRef};
use larder_source::{Batches, ColumnAt, FileSchema, RowGroupFilter, SourceError, SourceRows, ViewColumns, Wanted};

use super::TrainingError;

/// The name of the time column in a history, and its default name in entity rows.
pub const TIME_COLUMN: &str = "event_timestamp";

/// Reads the keys and event times of a view's feature rows. The batches have a column for each join key, and
/// [`TIME_COLUMN`].
pub struct History<'a> {
    view: &'a FeatureView,
    batches: Box<dyn Batches + 'a>,
    times: std::ops::Range<Micros>,
    /// Whether the times of the rows are nanoseconds, because a file has that precision.
    has_nanos: bool,
    schema: SchemaRef,
}

// === impl History ===

impl std::fmt::Debug for History<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History").field("view", &self.view.name).field("times", &self.times).finish_non_exhaustive()
    }
}

impl<'a> History<'a> {
    /// Returns the columns that a source needs for a history of these times, in microseconds.
    #[must_use]
    pub fn wanted(wanted: Wanted, times: std::ops::Range<Micros>) -> Wanted {
        let is_needed = move |group: &larder_source::RowGroup| {
            group.event_times.is_none_or(|(min, max)| min < times.end && max >= times.start)
        };
        Wanted { features: Vec::new(), created: None, row_groups: Some(RowGroupFilter::new(is_needed)), ..wanted }
    }

    /// Starts to read a source that was opened with the columns of [`History::wanted`].
    ///
    /// # Errors
    /// [`TrainingError::Source`].
    pub fn read(
        view: &'a FeatureView,
        source: &'a dyn larder_source::Source,
        times: std::ops::Range<Micros>,
    ) -> Result<Self, TrainingError> {
        let error = |source| TrainingError::Source { view: view.name.to_string(), source };
        let batches = source.read(None).map_err(error)?;
        let mut fields = Vec::with_capacity(view.join_keys.len() + 1);
        for key in keys(view) {
            let empty = scalar_array(&key.name, key.value_type, std::iter::empty())?;
            fields.push(Field::new(&*key.name, empty.data_type().clone(), true));
        }
        // The join compares nanoseconds, so a truncated time would not find its own row.
        let column = view.files().map(|files| Wanted::of(view, files).event_time.column);
        let is_nanos = |of: &FileSchema| {
            let at = column.as_ref().and_then(|column| of.column(column));
            matches!(at, Some(ColumnAt::File(DataType::Timestamp(TimeUnit::Nanosecond, _))))
        };
        let has_nanos = source.schemas().map_err(error)?.iter().any(is_nanos);
        let unit = if has_nanos { TimeUnit::Nanosecond } else { TimeUnit::Microsecond };
        let of_times = DataType::Timestamp(unit, Some("UTC".into()));
        fields.push(Field::new(TIME_COLUMN, of_times, false));
        Ok(Self { view, batches, times, has_nanos, schema: Arc::new(Schema::new(fields)) })
    }

    /// Returns the columns.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        let failed = |error: SourceError| ArrowError::ExternalError(Box::new(error));
        loop {
            let Some(batch) = self.batches.next_batch().map_err(failed)? else { return Ok(None) };
            let SourceRows::Columns(rows) = &batch.rows else { continue };
            let columns = ViewColumns::new(self.view, &[], rows, &batch.origin).map_err(failed)?;
            let time = |row: usize| columns.event_time.micros(row).filter(|time| self.times.contains(time));
            // A row without a complete key is never served.
            let has_key = |row: usize| columns.keys.iter().all(|key| key.value(row) != ValueRef::Null);
            let chosen: Vec<usize> = (0..rows.num_rows()).filter(|row| time(*row).is_some() && has_key(*row)).collect();
            if chosen.is_empty() {
                continue;
            }
            let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
            for (key, column) in keys(self.view).iter().zip(&columns.keys) {
                let values = chosen.iter().map(|row| column.value(*row));
                let array = scalar_array(&key.name, key.value_type, values);
                arrays.push(array.map_err(|error| ArrowError::ExternalError(Box::new(error)))?);
            }
            arrays.push(if self.has_nanos {
                let nanos = |row: &usize| {
                    let micros = time(*row).unwrap_or_default();
                    let nanos = micros.checked_mul(1_000)?.checked_add(i64::from(columns.event_time.nanos(*row)))?;
                    Some(nanos)
                };
                // Times that do not fit into nanoseconds come from files with another precision.
                Arc::new(chosen.iter().map(nanos).collect::<TimestampNanosecondArray>().with_timezone("UTC"))
            } else {
                instants(chosen.iter().map(|row| time(*row)))
            });
            return RecordBatch::try_new(Arc::clone(&self.schema), arrays).map(Some);
        }
    }
}

impl Iterator for History<'_> {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

fn keys(view: &FeatureView) -> &[larder_model::model::JoinKey] {
    if view.is_entityless() { &[] } else { &view.join_keys }
}
