//! Joins a part of the entity rows with the feature rows of all views.

use larder_serving::HistoricalRows;

use super::{
    Progress, Report, TrainingError, TrainingJob,
    entities::EntityColumns,
    kernel::{Spine, SpineBuilder},
    part::Part,
    times::times,
    view_rows::ViewRows,
};

/// A part whose feature rows were found.
#[derive(Debug)]
pub(super) struct Joined {
    /// The index in the set of the part's first row.
    pub(super) first_row: usize,
    /// The spine of each key of the plan.
    pub(super) spines: Vec<Spine>,
    /// For each read of the plan, the index of its key, and its feature rows.
    pub(super) reads: Vec<(usize, ViewRows)>,
}

// === impl Joined ===

impl Joined {
    /// Returns the size of the feature rows in memory, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.reads.iter().map(|(_, rows)| rows.bytes()).sum()
    }

    /// Finds the feature rows of a part; `None` if they do not fit into memory.
    pub(super) fn new(
        job: &TrainingJob<'_>,
        part: &Part,
        progress: &Progress,
        report: &mut Report,
    ) -> Result<Option<Self>, TrainingError> {
        let plan = &job.historical.plan;
        let spines = spines(job, part)?;
        let used: u64 = part.batches.iter().map(|(_, bytes)| bytes).sum();
        let used = spines.iter().fold(used, |used, spine| used.saturating_add(spine.bytes()));
        // A single row is joined in any case.
        let limit = if part.rows() > 1 { job.limits.memory } else { u64::MAX };
        let Some(mut left) = limit.checked_sub(used) else { return Ok(None) };
        let mut reads = Vec::with_capacity(plan.reads.len());
        for read in 0..plan.reads.len() {
            let key = plan.keys.iter().position(|key| key.reads.contains(&read)).unwrap_or_default();
            let Some(rows) = ViewRows::read(job, read, key, &spines[key], left, progress, &mut report.views[read])?
            else {
                return Ok(None);
            };
            left = left.saturating_sub(rows.bytes());
            reads.push((key, rows));
        }
        Ok(Some(Self { first_row: part.first_row, spines, reads }))
    }
}

/// Returns the spine of each key.
fn spines(job: &TrainingJob<'_>, part: &Part) -> Result<Vec<Spine>, TrainingError> {
    let plan = &job.historical.plan;
    let mut spines: Vec<SpineBuilder> = plan.keys.iter().map(|_| SpineBuilder::default()).collect();
    let mut first = part.first_row;
    for (batch, _) in &part.batches {
        let times = times(batch, job.request.time_column, first)?;
        let columns = EntityColumns::new(job, batch, first)?;
        let rows = HistoricalRows::new(plan, &columns.request, batch.num_rows());
        let rows = rows.map_err(|error| error.map_row(|row| first + row))?;
        for (key, spine) in spines.iter_mut().enumerate() {
            for (row, id) in rows.ids(key).enumerate() {
                // Nanoseconds are less than 1,000.
                spine.push(id, times.micros(row), u16::try_from(times.nanos(row)).unwrap_or(0))?;
            }
        }
        first += batch.num_rows();
    }
    Ok(spines.into_iter().map(SpineBuilder::finish).collect())
}
