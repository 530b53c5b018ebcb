//! The parts of the entity rows. Each part is joined as a whole.

use std::collections::VecDeque;

use arrow::{array::RecordBatch, error::ArrowError};

use super::{TrainingError, TrainingJob};

/// Reads the entity rows in parts that are expected to fit into memory.
pub(super) struct Parts<'j, I> {
    job: &'j TrainingJob<'j>,
    entities: I,
    /// Rows that were read, but are not in a part yet, with the memory of each row.
    read: VecDeque<(RecordBatch, u64)>,
    /// The number of rows in all parts so far.
    rows: usize,
    /// Parts that did not fit into memory, in reverse order.
    split: Vec<Part>,
    /// The expected memory of a row, in addition to its own columns.
    row_bytes: u64,
}

/// Some consecutive entity rows.
#[derive(Debug)]
pub(super) struct Part {
    /// The index of the first row in the set.
    pub(super) first_row: usize,
    /// Batches of at most [`BATCH_ROWS`] rows and about [`BATCH_BYTES`], with the memory in bytes of their rows.
    pub(super) batches: Vec<(RecordBatch, u64)>,
}

/// The number of entity rows that are answered at a time: few enough that the processor caches their feature rows, which are
/// read once for each feature.
pub(super) const BATCH_ROWS: usize = 2_048;
/// The size in bytes of entity rows from which fewer rows are answered at a time.
const BATCH_BYTES: u64 = 8 << 20;
/// The expected size in bytes of a feature row, and of each feature in it, before the first feature row was read.
const ROW_BYTES: u64 = 24;
const FEATURE_BYTES: u64 = 16;
/// The memory in bytes of an entity row in a spine, while the spine is built.
const SPINE_BYTES: u64 = 36;
/// The memory in bytes of a slot during a join: in each thread, and in the list of winners.
const JOIN_BYTES: u64 = 32;
const WINNER_BYTES: u64 = 48;

// === impl Parts ===

impl<'j, I: Iterator<Item = Result<RecordBatch, ArrowError>>> Parts<'j, I> {
    pub(super) fn new(job: &'j TrainingJob<'j>, entities: I) -> Self {
        let views = job.historical.views.iter();
        let rows = views.map(|view| ROW_BYTES + FEATURE_BYTES * view.features.len() as u64).sum();
        let row_bytes = Self::row_bytes(job, rows);
        Self { job, entities, read: VecDeque::new(), rows: 0, split: Vec::new(), row_bytes }
    }

    /// Returns the expected memory of an entity row whose feature rows have this size.
    fn row_bytes(job: &TrainingJob<'_>, feature_rows: u64) -> u64 {
        let plan = &job.historical.plan;
        let (keys, threads) = (plan.keys.len() as u64, job.limits.threads.get() as u64);
        feature_rows + SPINE_BYTES * keys + JOIN_BYTES * threads + WINNER_BYTES
    }

    /// Returns the next part; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Part>, TrainingError> {
        if let Some(part) = self.split.pop() {
            return Ok(Some(part));
        }
        let mut part = Part { first_row: self.rows, batches: Vec::new() };
        let mut bytes: u64 = 0;
        loop {
            if self.read.is_empty() && !self.fill()? {
                break;
            }
            let Some((batch, own)) = self.read.front() else { continue };
            let more = own + self.row_bytes * batch.num_rows() as u64;
            if !part.batches.is_empty() && bytes.saturating_add(more) > self.job.limits.memory {
                break;
            }
            bytes = bytes.saturating_add(more);
            part.batches.extend(self.read.pop_front());
        }
        self.rows += part.rows();
        Ok((!part.batches.is_empty()).then_some(part))
    }

    /// Reads the next batch; returns false at the end.
    fn fill(&mut self) -> Result<bool, TrainingError> {
        let Some(batch) = self.entities.next() else { return Ok(false) };
        let batch = batch.map_err(TrainingError::of_entities)?;
        let (rows, bytes) = (batch.num_rows(), batch.get_array_memory_size() as u64);
        let rows_max = BATCH_BYTES.saturating_mul(rows as u64) / bytes.max(1);
        let rows_max = usize::try_from(rows_max).unwrap_or(BATCH_ROWS).clamp(1, BATCH_ROWS);
        for start in (0..rows).step_by(rows_max) {
            let length = rows_max.min(rows - start);
            self.read.push_back((batch.slice(start, length), bytes * length as u64 / rows as u64));
        }
        Ok(true)
    }

    /// Splits a part that did not fit into memory. Its halves are the next parts.
    pub(super) fn split(&mut self, mut part: Part) {
        if let [(batch, bytes)] = &*part.batches {
            let half = batch.num_rows() / 2;
            let piece = |start, rows| (batch.slice(start, rows), bytes / 2);
            part.batches = vec![piece(0, half), piece(half, batch.num_rows() - half)];
        }
        let second = part.batches.split_off(part.batches.len() / 2);
        let first_row = part.first_row + part.rows();
        self.split.extend([Part { first_row, batches: second }, part]);
    }

    /// Sets the expected size of a row from the feature rows of a part, which take `bytes` bytes.
    pub(super) fn update_estimate(&mut self, part: &Part, bytes: u64) {
        self.row_bytes = Self::row_bytes(self.job, bytes.div_ceil(part.rows().max(1) as u64));
    }
}

// === impl Part ===

impl Part {
    pub(super) fn rows(&self) -> usize {
        self.batches.iter().map(|(batch, _)| batch.num_rows()).sum()
    }
}
