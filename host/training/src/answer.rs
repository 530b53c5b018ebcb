//! Answers batches of entity rows.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray, UInt64Array},
    compute::{take, take_record_batch},
};
use larder_columns::{feature_array, instants};
use larder_model::model::Micros;
use larder_serving::{Answer, ColumnFrom, HistoricalRows, Status, TtlPolicy};

use super::{
    DerivedReport, Report, TrainingError, TrainingJob, ViewReport, entities::EntityColumns, found::FoundRows,
    times::times,
};

/// Answers a batch of entity rows. `first` is the index of its first row in the part.
pub(super) fn batch(
    job: &TrainingJob<'_>,
    found: &impl FoundRows,
    batch: &RecordBatch,
    first: usize,
) -> Result<(RecordBatch, Report), TrainingError> {
    let times = times(batch, job.request.time_column, found.first_row() + first)?;
    // Rows without a time are left out, because their derived features are null, too.
    let kept: Vec<usize> = (0..batch.num_rows()).filter(|row| times.micros(*row).is_some()).collect();
    let missing = batch.num_rows() - kept.len();
    if job.request.strict && missing > 0 {
        return Err(TrainingError::NoTime { column: job.request.time_column.to_owned() });
    }
    let with_time = if missing == 0 {
        batch.clone()
    } else {
        take_record_batch(batch, &kept.iter().map(|row| *row as u64).collect::<UInt64Array>())?
    };
    let as_of: Vec<Micros> = kept.iter().filter_map(|row| times.micros(*row)).collect();
    let slots: Vec<usize> = kept.iter().map(|row| first + row).collect();
    let columns = EntityColumns::new(job, &with_time, found.first_row() + first)?;
    let (answer, mut report) = answer(job, found, &columns, &slots, as_of)?;
    report.rows = batch.num_rows() as u64;
    report.rows_without_time = missing as u64;
    report.latest_time = kept.iter().filter_map(|row| times.micros(*row)).max();
    if job.request.strict
        && let Some(view) = report.views.iter().find(|view| view.no_key > 0)
    {
        return Err(TrainingError::NoKey { view: view.view.clone() });
    }
    let mut arrays = batch.columns().to_vec();
    let indexes = (missing > 0).then(|| {
        let mut next = 0;
        let index = |row: usize| {
            times.micros(row).map(|_| {
                next += 1;
                next - 1
            })
        };
        (0..batch.num_rows()).map(index).collect::<UInt64Array>()
    });
    let mut add = |array: ArrayRef| {
        arrays.push(match &indexes {
            Some(indexes) => take(&array, indexes, None)?,
            None => array,
        });
        Ok::<_, TrainingError>(())
    };
    for column in &job.historical.plan.feature_columns {
        let values = answer.cells(column.from).map(|cell| cell.value);
        add(feature_array(&column.name, column.value_type, values)?)?;
        if job.request.ttl == TtlPolicy::Mark {
            let statuses = answer.cells(column.from).map(|cell| Some(cell.status.name()));
            add(Arc::new(statuses.collect::<StringArray>()))?;
        }
        if job.request.event_timestamps
            && let ColumnFrom::Read { read, .. } = column.from
        {
            add(event_times(job, &answer, column.from, read))?;
        }
    }
    Ok((RecordBatch::try_new(job.schema(), arrays)?, report))
}

/// Answers entity rows. `rows` are their indexes in the part, and `as_of` are their times.
pub(super) fn answer<'a>(
    job: &TrainingJob<'_>,
    found: &impl FoundRows,
    columns: &'a EntityColumns<'a>,
    rows: &[usize],
    as_of: Vec<Micros>,
) -> Result<(Answer<'a>, Report), TrainingError> {
    let plan = &job.historical.plan;
    let view = |read: &larder_serving::ViewRead| ViewReport { view: read.name.to_string(), ..ViewReport::default() };
    let mut views: Vec<ViewReport> = plan.reads.iter().map(view).collect();
    for (read, report) in views.iter_mut().enumerate() {
        let headers = found.headers(read, rows);
        for (row, (header, time)) in headers.iter().zip(&as_of).enumerate() {
            let Some(header) = header else {
                if found.has_key(read, rows[row]) {
                    report.not_found += 1
                } else {
                    report.no_key += 1
                }
                continue;
            };
            if plan.reads[read].ttl.is_some_and(|ttl| time.saturating_sub(header.event_time) > ttl) {
                report.expired += 1;
            } else {
                report.matched += 1;
            }
            report.same_time += u64::from(header.event_time == *time);
            report.late += u64::from(header.created.is_some_and(|created| created > *time));
        }
    }
    let answer = HistoricalRows::new(plan, &columns.request, rows.len())
        .and_then(|of| of.answer(as_of, job.request.ttl, |read, row| found.row(read, rows[row])));
    let answer = answer.map_err(|error| error.map_row(|row| found.first_row() + rows[row]))?;
    let failed = |step: usize| {
        let cells = answer.cells(ColumnFrom::Step { step, feature: 0 });
        cells.filter(|cell| cell.status == Status::Invalid).count() as u64
    };
    let derived = plan.steps.iter().enumerate();
    let derived = derived.map(|(step, of)| DerivedReport { view: of.view.name.to_string(), failed: failed(step) });
    let report = Report { derived: derived.collect(), views, ..Report::default() };
    Ok((answer, report))
}

/// Returns the event times of a feature's values. They are null where the value is null because it is expired.
fn event_times(job: &TrainingJob<'_>, answer: &Answer<'_>, from: ColumnFrom, read: usize) -> ArrayRef {
    let hides = job.request.ttl == TtlPolicy::Null;
    let statuses = answer.cells(from).map(|cell| cell.status);
    instants(statuses.enumerate().map(|(row, status)| {
        let is_hidden = hides && status == Status::OutsideMaxAge;
        if is_hidden { None } else { answer.event_time(read, row) }
    }))
}
