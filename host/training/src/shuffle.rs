//! The steps of a join that an engine for distributed data runs.
//!
//! The engine moves rows between machines by the number of their *bucket*, which is computed from their key. For each distinct
//! key of the request:
//!
//! 1. [`TrainingJob::with_buckets`] adds the bucket to entity rows.
//! 2. [`TrainingJob::feature_rows`] reads some of the feature rows of a view, each with its bucket, its ID and its position, and
//!    encoded as in the store. So no value and no time depends on the engine's types.
//! 3. [`TrainingJob::find`] joins the rows of one bucket, and adds the feature row of each entity row in a column of bytes.
//!
//! [`TrainingJob::answer_found`] then makes the answers from these columns. All of these steps use the code of a join on one
//! machine.

use std::{num::NonZeroU32, sync::Arc};

use arrow::{
    array::{ArrayRef, BinaryBuilder, Int32Array, RecordBatch},
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
};
use larder_columns::Instants;
use larder_model::{
    codec::{RowBuilder, RowSchema},
    model::{EntityId, Micros},
};
use larder_serving::HistoricalRows;
use larder_source::{RowGroupFilter, SourceRows, ViewColumns, Wanted};

use super::{
    Progress, TrainingError, TrainingJob,
    entities::EntityColumns,
    kernel::{Arrival, Best, Join, Spine, SpineBuilder},
    shuffle_columns::{BATCH_BYTES, BUCKET_COLUMN, FeatureBatch, FeatureColumns, row_column},
    times::times,
};

/// The row groups of a view that one task reads: those for which (index of the file + index of the row group) modulo `parts`
/// is `part`.
#[derive(Clone, Copy, Debug)]
pub struct SharePart {
    /// The index of the task.
    pub part: usize,
    /// The number of tasks.
    pub parts: usize,
}

// === impl TrainingJob ===

impl TrainingJob<'_> {
    /// Returns the reads of each distinct key of the request.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &[usize]> {
        self.historical.plan.keys.iter().map(|key| &*key.reads)
    }

    /// Returns the columns of entity rows after [`TrainingJob::with_buckets`], if they had these columns before.
    #[must_use]
    pub fn schema_with_buckets(&self, before: &Schema) -> SchemaRef {
        let mut fields = before.fields().to_vec();
        fields.push(Arc::new(Field::new(BUCKET_COLUMN, DataType::Int32, false)));
        Arc::new(Schema::new_with_metadata(fields, before.metadata().clone()))
    }

    /// Returns the columns of entity rows after [`TrainingJob::find`], if they had these columns before.
    #[must_use]
    pub fn schema_with_rows(&self, key: usize, before: &Schema) -> SchemaRef {
        let mut fields = before.fields().to_vec();
        fields.retain(|field| field.name() != BUCKET_COLUMN);
        let reads = &self.historical.plan.keys[key].reads;
        fields.extend(reads.iter().map(|read| Arc::new(Field::new(row_column(*read), DataType::Binary, true))));
        Arc::new(Schema::new_with_metadata(fields, before.metadata().clone()))
    }

    /// Adds the number of the bucket to entity rows, and passes them to `emit`. Entity rows without a complete key, and all entity
    /// rows for views without entities, get a bucket from their times.
    ///
    /// # Errors
    /// [`TrainingError`], and errors of `emit`.
    pub fn with_buckets<E: From<TrainingError>>(
        &self,
        key: usize,
        buckets: NonZeroU32,
        batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
        progress: &Progress,
        emit: &mut dyn FnMut(RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut first_row = 0;
        for batch in batches {
            progress.check()?;
            let batch = batch.map_err(TrainingError::of_entities)?;
            emit(self.bucketed(key, buckets, &batch, first_row)?)?;
            first_row += batch.num_rows();
        }
        Ok(())
    }

    fn bucketed(
        &self,
        key: usize,
        buckets: NonZeroU32,
        batch: &RecordBatch,
        first_row: usize,
    ) -> Result<RecordBatch, TrainingError> {
        let times = times(batch, self.request.time_column, first_row)?;
        let ids = self.ids(key, batch, first_row)?;
        let has_key = !self.is_entityless(key);
        let bucket = |(row, id): (usize, &Option<EntityId>)| match id {
            Some(id) if has_key => bucket_of(id, buckets),
            _ => bucket_of_time(times.micros(row), buckets),
        };
        let mut columns = batch.columns().to_vec();
        columns.push(Arc::new(ids.iter().enumerate().map(bucket).collect::<Int32Array>()));
        Ok(RecordBatch::try_new(self.schema_with_buckets(&batch.schema()), columns)?)
    }

    /// Reads a share of the feature rows of a read, and passes batches of [`feature_row_schema`](super::feature_row_schema) to
    /// `emit`. The feature rows of a view without entities are in every bucket.
    ///
    /// # Errors
    /// [`TrainingError`], and errors of `emit`.
    pub fn feature_rows<E: From<TrainingError>>(
        &self,
        read: usize,
        share: SharePart,
        buckets: NonZeroU32,
        progress: &Progress,
        emit: &mut dyn FnMut(RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        let view = &self.historical.views[read];
        let error = |source| TrainingError::Source { view: view.name.to_string(), source };
        let SharePart { part, parts } = share;
        let filter = RowGroupFilter::new(move |group| (group.file + group.index) % parts == part);
        let choose = |wanted: Wanted| Wanted { row_groups: Some(filter.clone()), ..wanted };
        let source = self.source(view, &choose)?;
        let mut batches = source.read(None).map_err(error)?;
        let key = self.key_of(read);
        let encoder = &self.historical.plan.keys[key].encoder;
        let everywhere = self.is_entityless(key);
        let schema = RowSchema::of_view(view);
        let mut builder = RowBuilder::new(&schema);
        let mut buffer = Vec::new();
        let mut out = FeatureBatch::default();
        while let Some(batch) = batches.next_batch().map_err(error)? {
            progress.check()?;
            let SourceRows::Columns(rows) = &batch.rows else { continue };
            progress.add_feature_rows(rows.num_rows() as u64);
            let columns = ViewColumns::new(view, &view.features, rows, &batch.origin).map_err(error)?;
            for row in 0..rows.num_rows() {
                if columns.event_time.micros(row).is_none() {
                    continue;
                }
                let Some(id) = columns.id(encoder, row, &mut buffer) else { continue };
                let index = batch.first_row + row as u64;
                let encoded = columns.encode(row, &schema, &mut builder).map_err(|why| TrainingError::Row {
                    view: view.name.to_string(),
                    location: format!("{}, row {index}", batch.origin),
                    why: why.to_string(),
                })?;
                // A source has at most 2^32 files.
                let arrival = Arrival { file: u32::try_from(batch.file).unwrap_or(u32::MAX), row: index };
                let all = 0..i32::try_from(buckets.get()).unwrap_or(i32::MAX);
                let own = bucket_of(&id, buckets);
                for bucket in if everywhere { all } else { own..own + 1 } {
                    out.push(bucket, read, &id, arrival, encoded);
                    if out.is_full() {
                        emit(out.finish()?)?;
                    }
                }
            }
        }
        if out.is_empty() { Ok(()) } else { emit(out.finish()?) }
    }

    /// Joins the entity rows of a bucket with its feature rows. Removes the number of the bucket from the entity rows, and adds
    /// the feature rows of the key's reads: see [`TrainingJob::schema_with_rows`].
    ///
    /// # Errors
    /// [`TrainingError`].
    pub fn find(
        &self,
        key: usize,
        entities: &[RecordBatch],
        features: &[RecordBatch],
    ) -> Result<Vec<RecordBatch>, TrainingError> {
        let mut spine = SpineBuilder::default();
        let mut first = 0;
        for batch in entities {
            let times = times(batch, self.request.time_column, first)?;
            for (row, id) in self.ids(key, batch, first)?.into_iter().enumerate() {
                push(&mut spine, id, &times, row)?;
            }
            first += batch.num_rows();
        }
        let spine = spine.finish();
        let features = features.iter().map(FeatureColumns::new).collect::<Result<Vec<_>, _>>()?;
        let reads = &self.historical.plan.keys[key].reads;
        let found: Vec<_> =
            reads.iter().map(|read| self.winners(*read, &spine, &features)).collect::<Result<_, _>>()?;
        let mut first = 0;
        let mut out = Vec::new();
        for batch in entities {
            let schema = self.schema_with_rows(key, &batch.schema());
            let kept: Vec<usize> =
                (0..batch.num_columns()).filter(|at| batch.schema().field(*at).name() != BUCKET_COLUMN).collect();
            let own = batch.project(&kept)?;
            let mut start = 0;
            while start < own.num_rows() {
                let mut rows: Vec<BinaryBuilder> = reads.iter().map(|_| BinaryBuilder::new()).collect();
                let mut end = start;
                // A column of bytes is at most 2 GiB long.
                while end < own.num_rows() && rows.iter().all(|rows| rows.values_slice().len() < BATCH_BYTES) {
                    let slot = spine.slot(first + end);
                    for (rows, found) in rows.iter_mut().zip(&found) {
                        rows.append_option(slot.and_then(|slot| found[slot]));
                    }
                    end += 1;
                }
                let mut columns = own.slice(start, end - start).columns().to_vec();
                columns.extend(rows.iter_mut().map(|rows| Arc::new(rows.finish()) as ArrayRef));
                out.push(RecordBatch::try_new(Arc::clone(&schema), columns)?);
                start = end;
            }
            first += own.num_rows();
        }
        Ok(out)
    }

    /// Returns the feature row of each slot.
    fn winners<'f>(
        &self,
        read: usize,
        spine: &Spine,
        features: &'f [FeatureColumns],
    ) -> Result<Vec<Option<&'f [u8]>>, TrainingError> {
        let mut join = Join::new(spine);
        let rows = || features.iter().flat_map(|batch| batch.of_read(read).map(move |row| (batch, row)));
        for (batch, row) in rows() {
            let Some(group) = spine.group(&batch.id(row)) else { continue };
            let candidate = batch.candidate(row).ok_or_else(|| self.damaged(read))?;
            let (event_nanos, created_nanos) = candidate.nanos;
            let created = candidate.created.map(|created| (created, created_nanos));
            let visible = self.request.visibility.of((candidate.event_time, event_nanos), created);
            if let Some(slot) = spine.first_slot(group, visible) {
                join.add(slot, &candidate);
            }
        }
        let (winners, distinct) = join.finish();
        let mut bytes: Vec<Option<&[u8]>> = vec![None; distinct.len()];
        for (batch, row) in rows() {
            if let Ok(at) = distinct.binary_search_by_key(&batch.arrival(row), Best::arrival) {
                bytes[at] = Some(batch.rows.value(row));
            }
        }
        Ok((0..spine.slots()).map(|slot| winners.get(slot).and_then(|winner| bytes[winner])).collect())
    }

    fn damaged(&self, read: usize) -> TrainingError {
        let (view, location) = (self.historical.views[read].name.to_string(), "a row of the shuffle".to_owned());
        TrainingError::Row { view, location, why: "its bytes are not a row".to_owned() }
    }

    fn ids(&self, key: usize, batch: &RecordBatch, first: usize) -> Result<Vec<Option<EntityId>>, TrainingError> {
        let columns = EntityColumns::new(self, batch, first)?;
        let rows = HistoricalRows::new(&self.historical.plan, &columns.request, batch.num_rows());
        let rows = rows.map_err(|error| error.map_row(|row| first + row))?;
        Ok(rows.ids(key).collect())
    }

    fn key_of(&self, read: usize) -> usize {
        self.historical.plan.keys.iter().position(|key| key.reads.contains(&read)).unwrap_or_default()
    }

    /// Returns whether a key is the one of views without entities.
    fn is_entityless(&self, key: usize) -> bool {
        let mut reads = self.historical.plan.keys[key].reads.iter();
        reads.all(|read| self.historical.views[*read].is_entityless())
    }
}

fn push(spine: &mut SpineBuilder, id: Option<EntityId>, times: &Instants, row: usize) -> Result<(), TrainingError> {
    // Nanoseconds are less than 1,000.
    Ok(spine.push(id, times.micros(row), u16::try_from(times.nanos(row)).unwrap_or(0))?)
}

/// Returns the bucket of a key. The ID is a hash of the key.
fn bucket_of(id: &EntityId, buckets: NonZeroU32) -> i32 {
    let [.., a, b, c, d] = id.0;
    number(u32::from_le_bytes([a, b, c, d]) % buckets)
}

fn bucket_of_time(time: Option<Micros>, buckets: NonZeroU32) -> i32 {
    /// 2^64 divided by the golden ratio, whose multiples are evenly distributed.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mixed = time.unwrap_or_default().cast_unsigned().wrapping_mul(FACTOR) >> 32;
    number(u32::try_from(mixed).unwrap_or_default() % buckets)
}

/// Converts the number of a bucket. There are fewer than 2^31.
fn number(bucket: u32) -> i32 {
    i32::try_from(bucket).unwrap_or_default()
}
