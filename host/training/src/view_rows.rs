//! Reads the feature rows of a view: first the keys and times of all rows, and then the features of the winners.

use std::{collections::HashMap, ops::Range, sync::Arc};

use larder_model::{
    codec::{KeyEncoder, RowBuilder, RowSchema},
    model::FeatureView,
};
use larder_source::{Batches, Source, SourceRows, ViewColumns};
use larder_store::Row;

use super::{
    TrainingError, ViewReport,
    kernel::{Arrival, Candidate, Join, Spine, Visibility, Winners},
};

/// The rows of a view that are winners.
#[derive(Debug)]
pub(super) struct ViewRows {
    pub(super) winners: Winners,
    /// The distinct winners, in ascending order of their arrival, and the row of each.
    arrivals: Vec<Arrival>,
    rows: Vec<Row>,
}

/// The indexes of files, in the order in which they were read.
#[derive(Debug, Default)]
struct Files(HashMap<Arc<str>, u32>);

/// The size in bytes of the blocks in which rows are stored.
const BLOCK_BYTES: usize = 1 << 20;

// === impl ViewRows ===

impl ViewRows {
    /// Reads a view's files twice: `keys_only` has no features. `report` gets the numbers of feature rows.
    pub(super) fn read(
        view: &FeatureView,
        encoder: &KeyEncoder,
        spine: &Spine,
        visibility: Visibility,
        keys_only: &dyn Source,
        whole: &dyn Source,
        report: &mut ViewReport,
    ) -> Result<Self, TrainingError> {
        let error = |source| TrainingError::Source { view: view.name.to_string(), source };
        let mut files = Files::default();
        let mut batches = keys_only.read(None).map_err(error)?;
        let winners = find_winners(view, encoder, Join::new(spine, visibility), &mut *batches, &mut files, report)?;
        let mut arrivals: Vec<Arrival> =
            (0..spine.slots()).filter_map(|slot| Some(winners.get(slot)?.arrival)).collect();
        arrivals.sort_unstable();
        arrivals.dedup();
        let position = batches.position();
        drop(batches);
        if arrivals.is_empty() {
            return Ok(Self { winners, arrivals, rows: Vec::new() });
        }
        let mut batches = whole.read(None).map_err(error)?;
        let rows = read_rows(view, &arrivals, &mut *batches, &files)?;
        if batches.position() != position || rows.len() != arrivals.len() {
            return Err(TrainingError::Changed(view.name.to_string()));
        }
        Ok(Self { winners, arrivals, rows })
    }

    /// Returns the row of a winner.
    pub(super) fn row(&self, winner: &Candidate) -> Option<Row> {
        let index = self.arrivals.binary_search(&winner.arrival).ok()?;
        self.rows.get(index).cloned()
    }
}

/// Reads the keys and times of all feature rows.
fn find_winners(
    view: &FeatureView,
    encoder: &KeyEncoder,
    mut join: Join<'_>,
    batches: &mut dyn Batches,
    files: &mut Files,
    report: &mut ViewReport,
) -> Result<Winners, TrainingError> {
    let error = |source| TrainingError::Source { view: view.name.to_string(), source };
    let mut key = Vec::new();
    while let Some(batch) = batches.next_batch().map_err(error)? {
        let SourceRows::Columns(rows) = &batch.rows else { continue };
        let columns = ViewColumns::new(view, &[], rows, &batch.origin).map_err(error)?;
        let file = files.add(&batch.origin);
        for row in 0..rows.num_rows() {
            report.feature_rows += 1;
            let time = columns.event_time.micros(row);
            let (Some(event_time), Some(id)) = (time, columns.id(encoder, row, &mut key)) else {
                report.skipped += 1;
                continue;
            };
            let created = columns.created.as_ref();
            // Nanoseconds are less than 1,000.
            let nanos = |nanos: u32| u16::try_from(nanos).unwrap_or(0);
            let candidate = Candidate {
                event_time,
                created: created.and_then(|created| created.micros(row)),
                nanos: (nanos(columns.event_time.nanos(row)), nanos(created.map_or(0, |created| created.nanos(row)))),
                arrival: Arrival { file, row: batch.first_row + row as u64 },
            };
            join.add(&id, &candidate);
        }
    }
    Ok(join.finish())
}

/// Reads the rows with these arrivals, in their order. Returns fewer rows if the files have changed.
fn read_rows(
    view: &FeatureView,
    arrivals: &[Arrival],
    batches: &mut dyn Batches,
    files: &Files,
) -> Result<Vec<Row>, TrainingError> {
    let error = |source| TrainingError::Source { view: view.name.to_string(), source };
    let schema = RowSchema::of_view(view);
    let mut builder = RowBuilder::new(&schema);
    let mut rows = Vec::with_capacity(arrivals.len());
    let (mut block, mut ends): (Vec<u8>, Vec<usize>) = (Vec::new(), Vec::new());
    while let Some(batch) = batches.next_batch().map_err(error)? {
        let SourceRows::Columns(columns) = &batch.rows else { continue };
        let Some(file) = files.get(&batch.origin) else { return Ok(Vec::new()) };
        let at = |row: usize| Arrival { file, row: batch.first_row + row as u64 };
        let start = arrivals.partition_point(|arrival| *arrival < at(0));
        let end = arrivals.partition_point(|arrival| *arrival < at(columns.num_rows()));
        if start == end {
            continue;
        }
        if start != rows.len() + ends.len() {
            // The batches of this read are in another order than those of the first one.
            return Ok(Vec::new());
        }
        let decoded = ViewColumns::new(view, &view.features, columns, &batch.origin).map_err(error)?;
        for arrival in &arrivals[start..end] {
            let row = usize::try_from(arrival.row - batch.first_row).unwrap_or(usize::MAX);
            let bytes = decoded.encode(row, &schema, &mut builder).map_err(|why| TrainingError::Row {
                view: view.name.to_string(),
                location: format!("{}, row {}", batch.origin, arrival.row),
                why: why.to_string(),
            })?;
            block.extend_from_slice(bytes);
            ends.push(block.len());
            if block.len() >= BLOCK_BYTES {
                flush(&mut block, &mut ends, &mut rows);
            }
        }
    }
    flush(&mut block, &mut ends, &mut rows);
    Ok(rows)
}

/// Moves a block's rows to `rows`.
fn flush(block: &mut Vec<u8>, ends: &mut Vec<usize>, rows: &mut Vec<Row>) {
    let shared: Arc<[u8]> = std::mem::take(block).into();
    let mut start = 0;
    for end in ends.drain(..) {
        // A block is a little larger than `BLOCK_BYTES` at most, plus a row.
        let range = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        rows.push(Row::in_block(&shared, Range { start: range(start), end: range(end) }));
        start = end;
    }
}

// === impl Files ===

impl Files {
    /// Returns the index of a file, which is added if it is new.
    fn add(&mut self, origin: &Arc<str>) -> u32 {
        let next = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        *self.0.entry(Arc::clone(origin)).or_insert(next)
    }

    fn get(&self, origin: &Arc<str>) -> Option<u32> {
        self.0.get(origin).copied()
    }
}
