//! One run: a view's source into the store.

use std::{
    fmt,
    time::{Duration, Instant},
};

use arrow::array::RecordBatch;
use larder_model::{
    codec::{KeyEncoder, KeyValue, KeyVersion, RowBuilder, RowSchema, push_feast_value},
    model::{EntityId, FeastValue, FeatureView, WriteMode},
};
use prost::Message as _;
use serde::{Deserialize, Serialize};

use super::{SyncError, decode::Column};
use crate::{
    source::{Batches, Item, Source, SourceBatch, SourceError, SourceRows, Window},
    store::{Applied, KeySignature, LoadMode, OnlineStore, RowBatch, StoreError, ViewId},
};

/// What to bring over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncRequest {
    /// Read everything, also what was read before.
    pub full: bool,
    /// Only rows of these event times. The source then counts as unread as before: the next run reads it all.
    pub window: Window,
}

/// Bounds of a run.
#[derive(Clone, Copy, Debug)]
pub struct SyncLimits {
    /// Rows per transaction.
    pub commit_rows: usize,
    /// Bytes of rows per transaction.
    pub commit_bytes: usize,
    /// How long after a failed run the next one begins; doubled with every further failure, up to five minutes.
    pub retry: Duration,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Rows read and committed so far.
    pub rows: u64,
    /// Rows that the source is expected to have.
    pub expected: u64,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncReport {
    /// The view.
    pub view: String,
    /// Whether there was anything to read.
    pub outcome: Outcome,
    /// What the rows did to the store.
    #[serde(with = "AppliedFields")]
    pub applied: Applied,
    /// Rows that could not be taken.
    pub skipped: Skipped,
    /// How long it took.
    pub elapsed: Duration,
}

/// Whether there was anything to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The source is as it was at the last run.
    UpToDate,
    /// Rows were read.
    Loaded,
}

/// Rows that could not be taken, with an example.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Rows whose key has a null.
    pub null_key: u64,
    /// Rows without an event time.
    pub null_event_time: u64,
    /// Rows that are too large.
    pub too_large: u64,
    /// Rows with values that are not of their features' types.
    #[serde(default)]
    pub unreadable: u64,
    /// Rows outside of the requested event times; nothing is wrong with them.
    pub outside_window: u64,
    /// Where the first bad one stands, and what is wrong with it.
    pub example: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Applied")]
struct AppliedFields {
    inserted: u64,
    updated: u64,
    unchanged: u64,
    stale: u64,
}

impl Default for SyncLimits {
    fn default() -> Self {
        // Large transactions: every one rewrites the pages that it touches, and random ids touch them all.
        Self { commit_rows: 262_144, commit_bytes: 64 << 20, retry: Duration::from_secs(5) }
    }
}

// === impl Skipped ===

impl Skipped {
    /// Rows with something wrong.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.null_key + self.null_event_time + self.too_large + self.unreadable
    }

    fn note(&mut self, example: impl FnOnce() -> String) {
        if self.example.is_none() {
            self.example = Some(example());
        }
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.null_key, "with a null key"),
            (self.null_event_time, "without an event time"),
            (self.too_large, "too large"),
            (self.unreadable, "with values of other types"),
        ];
        let parts: Vec<String> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        write!(f, "{}", parts.join(", "))?;
        self.example.iter().try_for_each(|example| write!(f, "; the first: {example}"))
    }
}

/// Who is synced, from where to where.
#[derive(Clone, Copy, Debug)]
pub struct SyncRun<'a> {
    /// Where the rows go.
    pub store: &'a OnlineStore,
    /// The view.
    pub view: &'a FeatureView,
    /// The view, in the store.
    pub id: ViewId,
    /// Which entity ids its rows get.
    pub key_version: KeyVersion,
    /// Where the rows come from.
    pub source: &'a dyn Source,
    /// Bounds.
    pub limits: SyncLimits,
}

/// Brings a view up to date with its source.
///
/// `progress` hears of every commit, and ends the run early by returning false.
///
/// # Errors
/// What is wrong with the source or the store. Committed batches of an upsert stay, and the next run goes on behind
/// them; a replacing load that fails has changed nothing.
pub fn sync_view(
    run: SyncRun<'_>,
    request: SyncRequest,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<SyncReport, SyncError> {
    let SyncRun { store, view, id, source, .. } = run;
    let started = Instant::now();
    let in_source = |source| SyncError::Source { view: view.name.to_string(), source };
    let in_store = |source| SyncError::Store { view: view.name.to_string(), source };

    let position = store.status(id).and_then(|status| status.position);
    let position = position.filter(|_| !request.full && request.window.is_open());
    if let Some(position) = &position
        && !source.has_news(position).map_err(in_source)?
    {
        // Looked at and found complete: that is a success too.
        let load = store.begin_load(id, LoadMode::Upsert).map_err(in_store)?;
        load.finish(Some(position)).map_err(in_store)?;
        let (outcome, elapsed) = (Outcome::UpToDate, started.elapsed());
        let (applied, skipped) = (Applied::default(), Skipped::default());
        return Ok(SyncReport { view: view.name.to_string(), outcome, applied, skipped, elapsed });
    }

    // A window selects rows to add; it says nothing of the others, so it cannot replace them.
    let replace = (view.mode == WriteMode::Replace || source.is_whole()) && request.window.is_open();
    let (mode, position) = if replace { (LoadMode::Replace, None) } else { (LoadMode::Upsert, position) };

    let mut batches = source.read(position.as_deref()).map_err(in_source)?;
    let mut load = store.begin_load(id, mode).map_err(in_store)?;
    let keeps_position = request.window.is_open();
    let commit = &mut |rows: &RowBatch, batches: &dyn Batches| {
        let position = keeps_position.then(|| batches.position());
        load.apply(rows, position.as_deref()).map(|_applied| ())
    };
    let skipped = pump(run, &mut *batches, request.window, commit, progress)?;
    // A window is a part of the source: it makes the view neither loaded nor fresh.
    let applied = if keeps_position { load.finish(Some(&batches.position())).map_err(in_store)? } else { load.total() };
    Ok(SyncReport {
        view: view.name.to_string(),
        outcome: Outcome::Loaded,
        applied,
        skipped,
        elapsed: started.elapsed(),
    })
}

/// Writes a view's files, or a span of them, beside what the view's own source brings: as callers' rows, which that
/// source does not take away. `run.source` is the files.
///
/// # Errors
/// As [`sync_view`]. What was committed stays, and the same again does it no harm.
pub(super) fn materialize_view(
    run: SyncRun<'_>,
    window: Window,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<SyncReport, SyncError> {
    let SyncRun { store, view, id, key_version, source, .. } = run;
    let started = Instant::now();
    let batches = source.read(None);
    let mut batches = batches.map_err(|source| SyncError::Source { view: view.name.to_string(), source })?;
    let key = KeySignature::of(view, key_version);
    let mut applied = Applied::default();
    let commit = &mut |rows: &RowBatch, _: &dyn Batches| {
        applied.add(store.put(id, &key, rows, true)?);
        Ok(())
    };
    let skipped = pump(run, &mut *batches, window, commit, progress)?;
    let (outcome, elapsed) = (Outcome::Loaded, started.elapsed());
    Ok(SyncReport { view: view.name.to_string(), outcome, applied, skipped, elapsed })
}

/// Takes a reading to its end: batches become rows, which `commit` takes by the transaction. Tells what was left out.
fn pump(
    run: SyncRun<'_>,
    batches: &mut dyn Batches,
    window: Window,
    commit: &mut dyn FnMut(&RowBatch, &dyn Batches) -> Result<(), StoreError>,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Skipped, SyncError> {
    let SyncRun { view, key_version, limits, .. } = run;
    let in_source = |source| SyncError::Source { view: view.name.to_string(), source };
    let mut encoder = RowEncoder::new(view, key_version, window);
    let mut rows = 0;
    loop {
        let batch = batches.next_batch().map_err(in_source)?;
        let ended = batch.is_none();
        if let Some(batch) = batch {
            rows += batch.rows.len() as u64;
            encoder.encode(&batch).map_err(in_source)?;
        }
        if encoder.is_full(limits) || (ended && !encoder.rows.is_empty()) {
            let committed = commit(&encoder.rows, batches);
            committed.map_err(|source| SyncError::Store { view: view.name.to_string(), source })?;
            encoder.rows.clear();
            if !progress(Progress { rows, expected: batches.rows_expected().max(rows) }) {
                return Err(SyncError::Stopped { view: view.name.to_string() });
            }
        }
        if ended {
            return Ok(encoder.skipped);
        }
    }
}

/// Turns batches of columns into rows with ids.
struct RowEncoder<'v> {
    view: &'v FeatureView,
    schema: RowSchema,
    keys: KeyEncoder,
    window: Window,
    rows: RowBatch,
    skipped: Skipped,
}

// === impl RowEncoder ===

impl<'v> RowEncoder<'v> {
    fn new(view: &'v FeatureView, key_version: KeyVersion, window: Window) -> Self {
        let names = view.join_keys.iter().map(|key| &*key.name);
        Self {
            view,
            schema: RowSchema::of(&view.features),
            keys: KeyEncoder::new(key_version, names),
            window,
            rows: RowBatch::default(),
            skipped: Skipped::default(),
        }
    }

    /// Whether it holds as much as one transaction takes.
    fn is_full(&self, limits: SyncLimits) -> bool {
        self.rows.len() >= limits.commit_rows || self.rows.bytes() >= limits.commit_bytes
    }

    /// Adds a batch's rows.
    fn encode(&mut self, batch: &SourceBatch) -> Result<(), SourceError> {
        match &batch.rows {
            SourceRows::Columns(columns) => self.encode_columns(columns, batch),
            SourceRows::Items(items) => {
                self.encode_items(items, batch);
                Ok(())
            }
        }
    }

    fn encode_columns(&mut self, rows: &RecordBatch, batch: &SourceBatch) -> Result<(), SourceError> {
        let columns = Columns::new(self.view, rows, &batch.origin)?;
        let mut builder = RowBuilder::new(&self.schema);
        let mut key = Vec::new();
        for row in 0..rows.num_rows() {
            let place = || place_of(batch, row);
            let Some(event_time) = columns.event_time.micros(row) else {
                self.skipped.null_event_time += 1;
                self.skipped.note(|| format!("{}: no event time", place()));
                continue;
            };
            if !self.window.contains(event_time) {
                self.skipped.outside_window += 1;
                continue;
            }
            let Some(id) = self.id(&columns, row, &mut key) else {
                self.skipped.null_key += 1;
                self.skipped.note(|| format!("{}: the key is null", place()));
                continue;
            };
            let created = columns.created.as_ref().and_then(|created| created.micros(row));
            builder.begin(event_time, created);
            let pushed = columns.features.iter().try_for_each(|column| column.push(row, &mut builder));
            match pushed.and_then(|()| builder.finish()) {
                Ok(bytes) => self.rows.push(id, bytes),
                Err(error) => {
                    self.skipped.too_large += 1;
                    self.skipped.note(|| format!("{}: {error}", place()));
                }
            }
        }
        Ok(())
    }

    /// Rows of an online store. One that does not read is left out and told: the others are served.
    fn encode_items(&mut self, items: &[Item], batch: &SourceBatch) {
        let mut builder = RowBuilder::new(&self.schema);
        for (row, item) in items.iter().enumerate() {
            let place = || format!("{} (entity id {:?})", place_of(batch, row), item.id);
            let Some(event_time) = item.event_time else {
                self.skipped.null_event_time += 1;
                self.skipped.note(|| format!("{}: no event time", place()));
                continue;
            };
            if !self.window.contains(event_time) {
                self.skipped.outside_window += 1;
                continue;
            }
            builder.begin(event_time, item.created);
            let features = self.view.features.iter().zip(&item.values);
            let pushed = features.into_iter().try_for_each(|(feature, bytes)| {
                let value = FeastValue::decode(bytes.as_deref().unwrap_or_default());
                let value = value.map_err(|error| format!("feature '{}': {error}", feature.name))?;
                let pushed = push_feast_value(&mut builder, feature.value_type, &value);
                pushed.map_err(|error| format!("feature '{}': {error}", feature.name))
            });
            match pushed.and_then(|()| builder.finish().map_err(|error| error.to_string())) {
                Ok(bytes) => self.rows.push(item.id, bytes),
                Err(error) => {
                    self.skipped.unreadable += 1;
                    self.skipped.note(|| format!("{}: {error}", place()));
                }
            }
        }
    }

    fn id(&self, columns: &Columns, row: usize, key: &mut Vec<u8>) -> Option<EntityId> {
        self.keys.begin(key);
        if columns.keys.is_empty() {
            // A view without entities has one row, under the empty dummy key.
            KeyEncoder::push(key, KeyValue::String(""));
        }
        columns.keys.iter().all(|column| column.push_key(row, key)).then(|| KeyEncoder::id(key))
    }
}

fn place_of(batch: &SourceBatch, row: usize) -> String {
    format!("{}, row {}", batch.origin, batch.first_row + row as u64)
}

/// A batch's columns, readable.
struct Columns {
    event_time: Column,
    created: Option<Column>,
    keys: Vec<Column>,
    features: Vec<Column>,
}

// === impl Columns ===

impl Columns {
    /// The columns come in the order of [`crate::source::Wanted::columns`].
    fn new(view: &FeatureView, rows: &RecordBatch, origin: &str) -> Result<Self, SourceError> {
        let source = view.files();
        let key_types: Vec<_> = if view.is_entityless() { vec![] } else { view.join_keys.iter().collect() };
        let mut columns = rows.columns().iter().enumerate();
        let mut next = |make: &dyn Fn(&arrow::array::ArrayRef) -> Result<Column, String>| {
            let missing = || SourceError::Column {
                path: origin.to_owned(),
                column: String::new(),
                why: "the batch has too few columns".to_owned(),
            };
            let (place, array) = columns.next().ok_or_else(missing)?;
            make(array).map_err(|why| SourceError::Column {
                path: origin.to_owned(),
                column: rows.schema().field(place).name().clone(),
                why,
            })
        };
        let event_time = next(&|array| Column::instants(array))?;
        let has_created = source.is_some_and(|source| source.created_timestamp_column.is_some());
        let created = has_created.then(|| next(&|array| Column::instants(array))).transpose()?;
        let keys = key_types
            .into_iter()
            .map(|key| next(&|array| Column::new(array, larder_model::model::ValueType::Scalar(key.value_type))))
            .collect::<Result<_, _>>()?;
        let features = view
            .features
            .iter()
            .map(|feature| next(&|array| Column::new(array, feature.value_type)))
            .collect::<Result<_, _>>()?;
        Ok(Self { event_time, created, keys, features })
    }
}
