//! Loads: a [`Load`] writes one view's rows from a source to the store, batch by batch.
//!
//! This file begins and resumes loads. `runs.rs` writes batches that are not served until the load ends. `write.rs`
//! writes the batches of upserts, and ends loads.

use larder_model::codec::{Fingerprint, RowError};
use redb::WriteTransaction;

use super::{
    Applied, OnlineStore, RowTimes, StoreError, ViewId,
    record::{Postponed, ViewRecord},
    tables::{delete_building, put_record, read_record},
    transaction::Written,
};

/// How a load treats the stored rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadMode {
    /// The stored rows stay. An arriving row replaces a stored row if it wins.
    Upsert,
    /// The stored rows are served until the load ends. Then the new rows replace all of them at once, except rows that
    /// callers wrote.
    Replace,
    /// The first load of a view that is upserted: there are no stored rows yet, and the new rows are served once the
    /// load has ended. If the load is interrupted, the next one can resume at its position, as an upsert does. An
    /// interrupted [`LoadMode::Replace`] can resume only with some kinds of sources.
    First,
}

/// A load in progress. If it is dropped before [`Load::finish`], its committed batches stay in the store, and the next
/// load resumes it or starts from scratch.
#[derive(Debug)]
pub struct Load<'s> {
    pub(super) store: &'s OnlineStore,
    pub(super) name: String,
    pub(super) mode: LoadMode,
    /// The view's record when the load began.
    began: ViewRecord,
    /// The generation that is being written.
    pub(super) generation: u32,
    pub(super) total: Applied,
    /// Whether all batches so far were merged. If so, the total is exact.
    pub(super) is_merged: bool,
    pub(super) times: RowTimes,
    /// The span of the event times of rows that this load skipped because they are from the future.
    pub(super) postponed: Option<Postponed>,
    /// Whether this load reads all rows that earlier loads postponed.
    pub(super) reads_postponed: bool,
    /// Whether a removal only means that the stored row may be outdated.
    pub(super) removals_invalidate: bool,
}

/// A load that was interrupted before its generation was served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterruptedLoad {
    /// How far the load read its source, in the source's own format.
    pub position: String,
    /// Whether the load's mode was [`LoadMode::First`] instead of [`LoadMode::Replace`].
    pub is_first: bool,
}

// === impl OnlineStore ===

impl OnlineStore {
    /// Starts a load of a view. The caller must ensure that only one load of a view runs at a time.
    ///
    /// # Errors
    /// If the transaction fails.
    pub fn begin_load(&self, view: ViewId, mode: LoadMode) -> Result<Load<'_>, StoreError> {
        let (name, known) = self.record(view)?;
        let builds_generation = mode != LoadMode::Upsert;
        let (began, generation) = if builds_generation || known.building.is_some() {
            // The rows of an interrupted load are deleted. A load that builds a generation gets a new generation
            // number.
            self.write(|txn| {
                let mut record = read_record(txn, &name)?;
                let last = record.building.unwrap_or(record.generation);
                delete_building(txn, &mut record)?;
                let generation = if builds_generation { last + 1 } else { record.generation };
                record.building = builds_generation.then_some(generation);
                record.runs.is_first = mode == LoadMode::First;
                put_record(txn, &name, &record)?;
                Ok(Written::Commit { value: (record, generation), changed: Vec::new() })
            })?
        } else {
            let generation = known.generation;
            (known, generation)
        };
        Ok(Load::new(self, name, mode, began, generation))
    }

    /// Returns the view's load that was interrupted while it built a generation; `None` if there is no such load, or if
    /// it has no position to resume at.
    #[must_use]
    pub fn interrupted(&self, view: ViewId) -> Option<InterruptedLoad> {
        let (_, record) = self.record(view).ok()?;
        record.building?;
        Some(InterruptedLoad { position: record.runs.position?, is_first: record.runs.is_first })
    }

    /// Deletes the unserved rows of an interrupted load, so that other loads can use their space.
    ///
    /// # Errors
    /// If the transaction fails.
    pub fn discard_interrupted(&self, view: ViewId) -> Result<(), StoreError> {
        let (name, _) = self.record(view)?;
        self.write(|txn| {
            let mut record = read_record(txn, &name)?;
            if record.building.is_none() {
                return Ok(Written::Nothing(()));
            }
            delete_building(txn, &mut record)?;
            put_record(txn, &name, &record)?;
            Ok(Written::Commit { value: (), changed: Vec::new() })
        })
    }

    /// Resumes the interrupted load at the position of [`OnlineStore::interrupted`]. The caller must ensure that only
    /// one load of a view runs at a time.
    ///
    /// # Errors
    /// [`StoreError::Superseded`] if there is no interrupted load.
    pub fn resume_load(&self, view: ViewId) -> Result<Load<'_>, StoreError> {
        let (name, began) = self.record(view)?;
        let Some((generation, _)) = began.building.zip(began.runs.position.as_ref()) else {
            return Err(StoreError::Superseded { view: name });
        };
        let mode = if began.runs.is_first { LoadMode::First } else { LoadMode::Replace };
        Ok(Load::new(self, name, mode, began, generation))
    }
}

// === impl Load ===

impl<'s> Load<'s> {
    fn new(store: &'s OnlineStore, name: String, mode: LoadMode, began: ViewRecord, generation: u32) -> Self {
        Self {
            store,
            name,
            mode,
            began,
            generation,
            total: Applied::default(),
            is_merged: false,
            times: RowTimes::default(),
            postponed: None,
            reads_postponed: false,
            removals_invalidate: false,
        }
    }

    /// Sets how the times of rows are interpreted, and whether the load reads all rows that earlier loads postponed. If
    /// it does, [`Load::finish`] replaces the recorded span of postponed event times with the span of this load.
    #[must_use]
    pub fn with_times(self, times: RowTimes, reads_postponed: bool) -> Self {
        Self { times, reads_postponed, ..self }
    }

    /// Sets whether a removal only means that the stored row may be outdated, as in a view whose rows are fetched. Rows
    /// that callers wrote then stay in their table, and the next fetch compares them with the source's row.
    #[must_use]
    pub fn with_invalidations(self, removals_invalidate: bool) -> Self {
        Self { removals_invalidate, ..self }
    }
}

impl Load<'_> {
    /// Returns the counts so far; see [`Load::merge_runs`].
    #[must_use]
    pub fn total(&self) -> Applied {
        self.total
    }

    /// Returns the view's record if the load may continue, and [`StoreError::Superseded`] otherwise. A superseded load
    /// would write its rows to a generation that no longer exists, or with an obsolete schema. It would also store its
    /// position, so the source would not be read again.
    pub(super) fn record(&self, txn: &WriteTransaction) -> Result<ViewRecord, StoreError> {
        let record = read_record(txn, &self.name)?;
        if record.load_may_continue(&self.began) { Ok(record) } else { Err(self.superseded()) }
    }

    /// Returns the fingerprint of the schema that arriving rows must have. A load that began before the definitions
    /// changed may have rows with another schema.
    pub(super) fn current_schema(&self, record: &ViewRecord) -> Result<Fingerprint, StoreError> {
        let schemas = record.row_schemas(&self.name)?;
        schemas.last().map(|schema| schema.fingerprint()).ok_or_else(|| self.superseded())
    }

    pub(super) fn superseded(&self) -> StoreError {
        StoreError::Superseded { view: self.name.clone() }
    }

    pub(super) fn row_error(&self, source: RowError) -> StoreError {
        StoreError::Row { view: self.name.clone(), source }
    }
}
