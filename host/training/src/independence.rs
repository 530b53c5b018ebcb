//! Checks that plugins compute each row by itself, with a sample of the entity rows.
//!
//! Larder divides rows into batches differently in training and in serving. A plugin whose outputs depend on the other rows
//! of its batch, or on their order, would give a feature two different values.

use arrow::{
    array::{Array, ArrayRef, RecordBatch, UInt64Array},
    compute::{concat_batches, take, take_record_batch},
};
use larder_columns::feature_array;
use larder_serving::{Answer, ColumnFrom, Step};

use super::{
    TrainingError, TrainingJob, answer, entities::EntityColumns, found::FoundRows, part::Part, pieces::ANSWER_BYTES,
    times::times,
};

/// The maximum number of rows of the sample. It has fewer rows, but at least two, if their features take more than
/// [`ANSWER_BYTES`].
const ROWS_MAX: usize = 64;

/// A sample of a part's entity rows, and their indexes in the part.
struct Sample {
    batch: RecordBatch,
    rows: Vec<usize>,
}

/// Computes the derived features of a sample together, in reverse order, and row by row.
///
/// # Errors
/// [`TrainingError::NotIndependent`] if the values differ, and errors of the plugins.
pub(super) fn check(job: &TrainingJob<'_>, part: &Part, found: &impl FoundRows) -> Result<(), TrainingError> {
    if job.historical.plan.steps.is_empty() {
        return Ok(());
    }
    let sample = Sample::of(job, part, found)?;
    let all: Vec<usize> = (0..sample.rows.len()).collect();
    let together = sample.derived(job, found, &all)?;
    let reversed: Vec<usize> = all.iter().rev().copied().collect();
    compare(job, &sample, &together, &sample.derived(job, found, &reversed)?, &reversed, "in reverse order")?;
    for row in all {
        compare(job, &sample, &together, &sample.derived(job, found, &[row])?, &[row], "alone")?;
    }
    Ok(())
}

/// Compares the values of some rows of the sample. `other` has the rows with the indexes `rows` of the sample.
fn compare(
    job: &TrainingJob<'_>,
    sample: &Sample,
    together: &[Vec<ArrayRef>],
    other: &[Vec<ArrayRef>],
    rows: &[usize],
    when: &'static str,
) -> Result<(), TrainingError> {
    let indexes: UInt64Array = rows.iter().map(|row| *row as u64).collect();
    for (step, (together, other)) in job.historical.plan.steps.iter().zip(together.iter().zip(other)) {
        for (feature, (expected, found)) in step.view.features.iter().zip(together.iter().zip(other)) {
            let expected = take(expected, &indexes, None)?;
            // Arrays are compared by the bits of their values.
            if expected.to_data() == found.to_data() {
                continue;
            }
            let differs = |at: &usize| expected.slice(*at, 1).to_data() != found.slice(*at, 1).to_data();
            let rows = (0..rows.len()).filter(differs).map(|at| sample.rows[rows[at]] as u64).collect();
            let (view, feature) = (step.view.name.to_string(), feature.name.to_string());
            return Err(TrainingError::NotIndependent {
                view,
                plugin: step.view.plugin.to_string(),
                feature,
                rows,
                when,
            });
        }
    }
    Ok(())
}

// === impl Sample ===

impl Sample {
    /// Selects rows that have a time, at regular intervals.
    fn of(job: &TrainingJob<'_>, part: &Part, found: &impl FoundRows) -> Result<Self, TrainingError> {
        let step = part.rows().div_ceil(ROWS_MAX).max(1);
        let (mut batches, mut rows, mut first, mut bytes) = (Vec::new(), Vec::new(), 0, 0_u64);
        for (batch, _) in &part.batches {
            let times = times(batch, job.request.time_column, found.first_row() + first)?;
            let mut chosen = Vec::new();
            for row in 0..batch.num_rows() {
                if !(first + row).is_multiple_of(step) || times.micros(row).is_none() {
                    continue;
                }
                bytes = bytes.saturating_add(found.row_bytes(first + row));
                if bytes <= ANSWER_BYTES || rows.len() + chosen.len() < 2 {
                    chosen.push(row);
                }
            }
            batches.push(take_record_batch(batch, &chosen.iter().map(|row| *row as u64).collect::<UInt64Array>())?);
            rows.extend(chosen.iter().map(|row| first + row));
            first += batch.num_rows();
        }
        Ok(Self { batch: concat_batches(&job.entities, &batches)?, rows })
    }

    /// Computes the derived features of rows of the sample. Returns the columns of each derived view.
    fn derived(
        &self,
        job: &TrainingJob<'_>,
        found: &impl FoundRows,
        rows: &[usize],
    ) -> Result<Vec<Vec<ArrayRef>>, TrainingError> {
        let batch = take_record_batch(&self.batch, &rows.iter().map(|row| *row as u64).collect::<UInt64Array>())?;
        let times = times(&batch, job.request.time_column, found.first_row())?;
        let as_of = (0..batch.num_rows()).filter_map(|row| times.micros(row)).collect();
        let columns = EntityColumns::new(job, &batch, found.first_row())?;
        let of_part: Vec<usize> = rows.iter().map(|row| self.rows[*row]).collect();
        let (answer, _) = answer::answer(job, found, &columns, &of_part, as_of)?;
        job.historical.plan.steps.iter().enumerate().map(|(index, step)| arrays(&answer, index, step)).collect()
    }
}

fn arrays(answer: &Answer<'_>, step: usize, of: &Step) -> Result<Vec<ArrayRef>, TrainingError> {
    let array = |(feature, definition): (usize, &larder_model::model::Feature)| {
        let values = answer.cells(ColumnFrom::Step { step, feature }).map(|cell| cell.value);
        Ok(feature_array(&definition.name, definition.value_type, values)?)
    };
    of.view.features.iter().enumerate().map(array).collect()
}
