//! Reads the feature rows of a view: first the keys and times of all rows, and then the features of the winners.
//!
//! Each thread reads some of the row groups.

use std::{
    collections::HashSet,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use larder_model::{
    codec::{RowBuilder, RowHeader, RowSchema},
    model::{EntityId, FeatureView, Micros},
};
use larder_source::{RowGroup, RowGroupFilter, SourceRows, ViewColumns, Wanted};
use larder_store::Row;

use super::{
    Progress, TrainingError, TrainingJob, ViewReport,
    kernel::{Arrival, Best, Candidate, Group, Join, Spine, Winners, prefetch},
};

/// The feature rows of a view that are winners.
#[derive(Debug)]
pub(super) struct ViewRows {
    winners: Winners,
    blocks: Vec<Arc<[u8]>>,
    /// The position of each winner's row, in the order of the winners. The rows of a block are adjacent.
    positions: Vec<RowPosition>,
    /// The size of the largest row in bytes.
    row_bytes_max: u64,
}

/// The position of a row.
#[derive(Clone, Copy, Debug)]
struct RowPosition {
    /// The index of the block.
    block: u32,
    /// The end of the row in the block. The row starts at the end of the previous row, or of the block.
    end: u32,
}

/// Encoded rows of winners with adjacent indexes.
#[derive(Debug)]
struct Block {
    /// The index of the first row.
    first: usize,
    bytes: Arc<[u8]>,
    /// The end of each row in `bytes`.
    ends: Vec<u32>,
}

/// One read of a view.
struct Reader<'r> {
    job: &'r TrainingJob<'r>,
    view: &'r FeatureView,
    /// The index of the read's key in the plan.
    key: usize,
    spine: &'r Spine,
    progress: &'r Progress,
}

/// The event times of rows that are needed. Both bounds are included.
#[derive(Clone, Copy)]
struct TimeRange {
    min: Option<Micros>,
    max: Micros,
}

/// The counts of a thread that reads keys and times.
#[derive(Default)]
struct Counts {
    rows: u64,
    skipped: u64,
}

// === impl ViewRows ===

impl ViewRows {
    /// Reads the winners of a view, which may take `bytes_max` bytes. Returns `None` if they take more. `report` gets the
    /// numbers of feature rows.
    pub(super) fn read(
        job: &TrainingJob<'_>,
        read: usize,
        key: usize,
        spine: &Spine,
        bytes_max: u64,
        progress: &Progress,
        report: &mut ViewReport,
    ) -> Result<Option<Self>, TrainingError> {
        let reader = Reader { job, view: &job.historical.views[read], key, spine, progress };
        let Some((first, last)) = spine.time_range() else {
            // No entity row has a key and a time, so no feature row can be found.
            let (winners, _) = Join::new(spine).finish();
            return Ok(Some(Self { winners, blocks: Vec::new(), positions: Vec::new(), row_bytes_max: 0 }));
        };
        let range = TimeRange { min: job.event_time_min(read, first), max: last };
        let (winners, candidates) = reader.find_winners(range, report)?;
        let Some(blocks) = reader.read_rows(&candidates, bytes_max)? else { return Ok(None) };
        let mut positions = Vec::with_capacity(candidates.len());
        let mut row_bytes_max = 0;
        for (block, of) in (0..).zip(&blocks) {
            let starts = std::iter::once(&0).chain(&of.ends);
            let sizes = of.ends.iter().zip(starts).map(|(end, start)| end - start);
            row_bytes_max = row_bytes_max.max(sizes.max().unwrap_or(0));
            positions.extend(of.ends.iter().map(|end| RowPosition { block, end: *end }));
        }
        let blocks = blocks.into_iter().map(|block| block.bytes).collect();
        Ok(Some(Self { winners, blocks, positions, row_bytes_max: row_bytes_max.into() }))
    }

    /// Returns the row of a slot's winner.
    pub(super) fn row(&self, slot: usize) -> Option<Row> {
        let (block, bytes) = self.find(slot)?;
        Some(Row::in_block(block, bytes))
    }

    /// Returns the headers of the rows of the winners of these slots.
    pub(super) fn headers(&self, slots: impl Iterator<Item = Option<usize>>) -> Vec<Option<RowHeader>> {
        let indexes: Vec<Option<usize>> = slots.map(|slot| self.winners.get(slot?)).collect();
        let rows = indexes.into_iter().map(|index| {
            let (block, bytes) = self.position(index?)?;
            Some(&block[bytes.start as usize..bytes.end as usize])
        });
        let rows: Vec<Option<&[u8]>> = rows.collect();
        prefetch(rows.iter().flatten().filter_map(|row| row.first().copied()));
        rows.into_iter().map(|row| RowHeader::read(row?).ok()).collect()
    }

    /// Returns the size in bytes of the row of a slot's winner.
    pub(super) fn row_bytes(&self, slot: usize) -> u64 {
        self.find(slot).map_or(0, |(_, bytes)| bytes.len() as u64)
    }

    /// Returns the size of the largest row in bytes.
    pub(super) fn row_bytes_max(&self) -> u64 {
        self.row_bytes_max
    }

    fn find(&self, slot: usize) -> Option<(&Arc<[u8]>, Range<u32>)> {
        self.position(self.winners.get(slot)?)
    }

    /// Returns the block and the bytes of the row with this index.
    fn position(&self, index: usize) -> Option<(&Arc<[u8]>, Range<u32>)> {
        let RowPosition { block, end } = *self.positions.get(index)?;
        let before = index.checked_sub(1).map(|before| self.positions[before]).filter(|before| before.block == block);
        Some((&self.blocks[block as usize], before.map_or(0, |before| before.end)..end))
    }

    /// Returns the size in memory, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        let blocks: usize = self.blocks.iter().map(|block| block.len()).sum();
        self.winners.bytes() + (blocks + self.positions.len() * size_of::<RowPosition>()) as u64
    }
}

// === impl Block ===

impl Block {
    /// Returns the memory in bytes of the rows, also after they are in [`ViewRows`].
    fn memory(&self) -> u64 {
        (self.bytes.len() + self.ends.len() * size_of::<RowPosition>()) as u64
    }
}

// === impl TimeRange ===

impl TimeRange {
    /// Returns whether a row group may have a row that is needed.
    fn overlaps(&self, group: &RowGroup) -> bool {
        group.event_times.is_none_or(|(min, max)| min <= self.max && self.min.is_none_or(|needed| needed <= max))
    }
}

// === impl Reader ===

impl Reader<'_> {
    fn error(&self, source: larder_source::SourceError) -> TrainingError {
        TrainingError::Source { view: self.view.name.to_string(), source }
    }

    /// Runs a function on each thread, with the index of the thread.
    fn on_threads<T: Send>(
        &self,
        run: impl Fn(usize) -> Result<T, TrainingError> + Sync,
    ) -> Result<Vec<T>, TrainingError> {
        let threads = self.job.limits.threads.get();
        thread::scope(|scope| {
            let run = &run;
            let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
            let joined = running
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            joined.collect()
        })
    }

    /// Returns a filter that assigns each row group to one of the threads.
    fn filter(&self, thread: usize, is_needed: impl Fn(&RowGroup) -> bool + Send + Sync + 'static) -> RowGroupFilter {
        let threads = self.job.limits.threads.get();
        RowGroupFilter::new(move |group| (group.file + group.index) % threads == thread && is_needed(group))
    }

    /// Reads the keys and times of all feature rows.
    fn find_winners(&self, range: TimeRange, report: &mut ViewReport) -> Result<(Winners, Arc<[Best]>), TrainingError> {
        let skipped_groups: Arc<Mutex<HashSet<(usize, usize)>>> = Arc::default();
        let joins = self.on_threads(|thread| {
            let skipped_groups = Arc::clone(&skipped_groups);
            let filter = self.filter(thread, move |group| {
                let is_needed = range.overlaps(group);
                if !is_needed {
                    skipped_groups.lock().unwrap_or_else(PoisonError::into_inner).insert((group.file, group.index));
                }
                is_needed
            });
            self.join_some(&filter, range)
        })?;
        let mut all: Option<Join<'_>> = None;
        let (mut rows, mut skipped) = (0, 0);
        for (join, counts) in joins {
            rows += counts.rows;
            skipped += counts.skipped;
            match (&mut all, join) {
                (Some(all), Some(join)) => all.merge(&join),
                (all, join) => *all = all.take().or(join),
            }
        }
        // The files are read once for each part of the entity rows.
        report.feature_rows = report.feature_rows.max(rows);
        report.skipped = report.skipped.max(skipped);
        let groups = skipped_groups.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
        report.row_groups_skipped = report.row_groups_skipped.max(groups);
        Ok(all.unwrap_or_else(|| Join::new(self.spine)).finish())
    }

    /// Joins the feature rows of some row groups; `None` if they have no rows.
    fn join_some(
        &self,
        filter: &RowGroupFilter,
        range: TimeRange,
    ) -> Result<(Option<Join<'_>>, Counts), TrainingError> {
        let choose = |wanted: Wanted| Wanted { features: Vec::new(), row_groups: Some(filter.clone()), ..wanted };
        let source = self.job.source(self.view, &choose)?;
        let mut batches = source.read(None).map_err(|error| self.error(error))?;
        let encoder = &self.job.historical.plan.keys[self.key].encoder;
        let visibility = self.job.request.visibility;
        let (mut join, mut counts) = (None, Counts::default());
        let mut key = Vec::new();
        let mut ids: Vec<(u32, EntityId)> = Vec::new();
        let mut groups: Vec<(u32, Group)> = Vec::new();
        let mut slots: Vec<(u32, usize)> = Vec::new();
        while let Some(batch) = batches.next_batch().map_err(|error| self.error(error))? {
            self.progress.check()?;
            let SourceRows::Columns(rows) = &batch.rows else { continue };
            self.progress.add_feature_rows(rows.num_rows() as u64);
            let columns = ViewColumns::new(self.view, &[], rows, &batch.origin).map_err(|error| self.error(error))?;
            let (times, created) = (&columns.event_time, columns.created.as_ref());
            // Nanoseconds are less than 1,000.
            let nanos = |nanos: u32| u16::try_from(nanos).unwrap_or(0);
            let event_at = |row: usize| (times.micros(row).unwrap_or_default(), nanos(times.nanos(row)));
            let created_at =
                |row: usize| created.and_then(|created| Some((created.micros(row)?, nanos(created.nanos(row)))));
            // In several loops, so that the processor waits for the memory of many rows at the same time.
            ids.clear();
            for row in 0..rows.num_rows() {
                if times.micros(row).is_none() {
                    counts.skipped += 1;
                    continue;
                }
                if visibility.of(event_at(row), created_at(row)).0 > range.max {
                    continue;
                }
                match columns.id(encoder, row, &mut key) {
                    // A batch has at most 2^32 rows.
                    Some(id) => ids.push((u32::try_from(row).unwrap_or(u32::MAX), id)),
                    None => counts.skipped += 1,
                }
            }
            groups.clear();
            groups.extend(ids.iter().filter_map(|(row, id)| Some((*row, self.spine.group(id)?))));
            self.spine.prefetch(groups.iter().map(|(_, group)| *group));
            let join = join.get_or_insert_with(|| Join::new(self.spine));
            // A source has at most 2^32 files.
            let file = u32::try_from(batch.file).unwrap_or(u32::MAX);
            slots.clear();
            slots.extend(groups.iter().filter_map(|(row, group)| {
                let at = *row as usize;
                let visible = visibility.of(event_at(at), created_at(at));
                Some((*row, self.spine.first_slot(*group, visible)?))
            }));
            join.prefetch(slots.iter().map(|(_, slot)| *slot));
            for (row, slot) in &slots {
                let row = *row as usize;
                let ((event_time, event_nanos), created) = (event_at(row), created_at(row));
                let candidate = Candidate {
                    event_time,
                    created: created.map(|(created, _)| created),
                    nanos: (event_nanos, created.map_or(0, |(_, nanos)| nanos)),
                    arrival: Arrival { file, row: batch.first_row + row as u64 },
                };
                join.add(*slot, &candidate);
            }
            counts.rows += rows.num_rows() as u64;
        }
        Ok((join, counts))
    }

    /// Reads the rows of winners; `None` if they take more than `bytes_max` bytes.
    fn read_rows(&self, winners: &Arc<[Best]>, bytes_max: u64) -> Result<Option<Vec<Block>>, TrainingError> {
        if winners.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let bytes = AtomicU64::new(0);
        let blocks = self.on_threads(|thread| {
            let of_groups = Arc::clone(winners);
            let filter = self.filter(thread, move |group| {
                let file = u32::try_from(group.file).unwrap_or(u32::MAX);
                !span(&of_groups, file, group.rows.clone()).is_empty()
            });
            self.read_some(&filter, winners, &bytes, bytes_max)
        })?;
        if bytes.load(Relaxed) > bytes_max {
            return Ok(None);
        }
        let mut blocks: Vec<Block> = blocks.into_iter().flatten().collect();
        blocks.sort_unstable_by_key(|block| block.first);
        if blocks.iter().map(|block| block.ends.len()).sum::<usize>() != winners.len() {
            return Err(TrainingError::Changed(self.view.name.to_string()));
        }
        Ok(Some(blocks))
    }

    fn read_some(
        &self,
        filter: &RowGroupFilter,
        winners: &[Best],
        bytes: &AtomicU64,
        bytes_max: u64,
    ) -> Result<Vec<Block>, TrainingError> {
        // The times are known. The source sets them to 0, as for a static table.
        let choose = |wanted: Wanted| {
            let row_groups = Some(filter.clone());
            Wanted { keys: Vec::new(), created: None, as_of: Some(0), row_groups, ..wanted }
        };
        let source = self.job.source(self.view, &choose)?;
        let mut batches = source.read(None).map_err(|error| self.error(error))?;
        let schema = RowSchema::of_view(self.view);
        let mut builder = RowBuilder::new(&schema);
        let mut blocks = Vec::new();
        while let Some(batch) = batches.next_batch().map_err(|error| self.error(error))? {
            self.progress.check()?;
            let SourceRows::Columns(rows) = &batch.rows else { continue };
            let file = u32::try_from(batch.file).unwrap_or(u32::MAX);
            let span = span(winners, file, batch.first_row..batch.first_row + rows.num_rows() as u64);
            if span.is_empty() {
                continue;
            }
            let decoded = ViewColumns::without_keys(&self.view.features, rows, &batch.origin);
            let decoded = decoded.map_err(|error| self.error(error))?;
            let (mut block, mut ends) = (Vec::new(), Vec::with_capacity(span.len()));
            for winner in &winners[span.clone()] {
                let Candidate { event_time, created, nanos: (event_nanos, created_nanos), arrival } =
                    winner.candidate();
                let row = usize::try_from(arrival.row - batch.first_row).unwrap_or(usize::MAX);
                builder.begin(event_time, created);
                builder.set_nanos(event_nanos.into(), created_nanos.into());
                let encoded =
                    decoded.encode_features(row, &schema, &mut builder).map_err(|why| TrainingError::Row {
                        view: self.view.name.to_string(),
                        location: format!("{}, row {}", batch.origin, arrival.row),
                        why: why.to_string(),
                    })?;
                block.extend_from_slice(encoded);
                // The decoded rows of a batch have a limit of much less than 4 GiB.
                ends.push(u32::try_from(block.len()).unwrap_or(u32::MAX));
            }
            let block = Block { first: span.start, bytes: block.into(), ends };
            let memory = block.memory();
            blocks.push(block);
            if bytes.fetch_add(memory, Relaxed) + memory > bytes_max {
                break;
            }
        }
        Ok(blocks)
    }
}

/// Returns the indexes of the winners with these rows of a file.
fn span(winners: &[Best], file: u32, rows: Range<u64>) -> Range<usize> {
    let at = |row| winners.partition_point(|winner| winner.arrival() < Arrival { file, row });
    at(rows.start)..at(rows.end)
}
