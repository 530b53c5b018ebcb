//! Writing: a [`Load`] writes one view's rows from a source to the store, batch by batch.

use std::cmp::Ordering;

use larder_model::{
    codec::{Fingerprint, RowError, RowRank},
    model::{EntityId, Micros},
};
use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::{
    OnlineStore, StoreError, ViewId,
    erase::{Deletions, apply_deletions},
    online::Written,
    put::{overlay, restore_written},
    record::{Postponed, RowKey, RowTable, VIEWS, ViewRecord, seal, unseal, without_seal},
    runs::{delete_building, take_run},
    working_set::cost,
};

/// How a load treats the stored rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadMode {
    /// They stay, and newer rows replace them.
    Upsert,
    /// They are served until the load has ended, then all of them are dropped at once.
    Replace,
    /// There are none yet, and the view's rows are upserted: the new rows are served once the load has ended. If the
    /// load is interrupted, it resumes at the position, as an upsert would, whatever the kind of source.
    First,
}

/// The rule for which of two rows of one entity wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The row with the newer event time, then the one with the newer created time, then the later arrival.
    #[default]
    Newest,
    /// The later arrival, which is also what the source serves.
    Latest,
}

/// How the times of rows are interpreted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowTimes {
    /// How far in the future an event time may be, in microseconds. A stored row that is later than that loses against
    /// any row that arrives.
    pub tolerance: Micros,
    /// Whether the source of the view truncates its times. If so, rows are compared at the precision that both have.
    pub coarse: bool,
    /// Whether the source has no event times. The event time of its rows is the time at which they were read, so it cannot
    /// show that a row is newer than a deletion.
    pub is_static: bool,
}

/// How to compare the rows of one transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judge {
    /// The latest event time that may be served now.
    latest: Micros,
    coarse: bool,
}

/// Encoded rows with their ids, in one block of memory, as they will be stored.
#[derive(Debug, Default)]
pub struct RowBatch {
    rule: Rule,
    times: RowTimes,
    /// Event times of rows that were skipped because they are in the future.
    postponed: Option<Postponed>,
    ids: Vec<EntityId>,
    /// The end of each row in `bytes`. An empty row stands for a removal, because a row has at least a seal.
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

/// An arrival for one entity.
pub(super) enum Arrival<'b> {
    /// A row with its seal, and its times.
    Row(&'b [u8], RowRank),
    /// The entity no longer has a row.
    Removal,
}

/// The effect of a batch, or of a load, on the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rows of new keys.
    pub inserted: u64,
    /// Rows that replaced another one.
    pub updated: u64,
    /// Rows that were stored already, byte for byte.
    pub unchanged: u64,
    /// Rows that lost against a newer one, in the store or in the same batch.
    pub stale: u64,
    /// Rows that were removed.
    pub removed: u64,
}

/// A load in progress. Dropping it keeps committed batches: the next load resumes it or starts from scratch.
#[derive(Debug)]
pub struct Load<'s> {
    pub(super) store: &'s OnlineStore,
    pub(super) name: String,
    pub(super) mode: LoadMode,
    /// The view's record when the load began.
    began: ViewRecord,
    /// The generation that is being written.
    generation: u32,
    pub(super) total: Applied,
    /// Whether the batches so far were merged, so that the total is exact.
    pub(super) is_gathered: bool,
    times: RowTimes,
    /// Event times of rows that this load skipped.
    postponed: Option<Postponed>,
    /// Whether this load reads all rows that earlier loads skipped.
    picks_up: bool,
}

/// A load that was interrupted before its generation was served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterruptedLoad {
    /// How far it read its source, in the source's own format.
    pub position: String,
    /// Whether its mode was [`LoadMode::First`] instead of [`LoadMode::Replace`].
    pub is_first: bool,
}

// === impl RowBatch ===

impl RowBatch {
    /// Creates an empty batch with a rule.
    #[must_use]
    pub fn new(rule: Rule, times: RowTimes) -> Self {
        Self { rule, times, ..Self::default() }
    }

    /// Records a row that is skipped because of its event time, to read it again when it is due.
    pub fn postpone(&mut self, event_time: Micros) {
        self.postponed = Postponed::union(self.postponed, Some(Postponed::at(event_time)));
    }

    /// Adds the removal of a row. It only counts under [`Rule::Latest`], where arrivals have an order.
    pub fn remove(&mut self, id: EntityId) {
        self.ids.push(id);
        self.ends.push(self.bytes.len());
    }

    /// Adds a row.
    pub fn push(&mut self, id: EntityId, row: &[u8]) {
        self.ids.push(id);
        seal(&id, row, &mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Returns whether there is nothing to commit: no rows and no postponed rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.postponed.is_none()
    }

    /// Returns the size of all rows in bytes, as stored.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Removes the rows and keeps the allocated memory.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.ends.clear();
        self.bytes.clear();
        self.postponed = None;
    }

    /// Returns how the times of its rows are interpreted.
    #[must_use]
    pub fn times(&self) -> RowTimes {
        self.times
    }

    pub(super) fn postponed(&self) -> Option<Postponed> {
        self.postponed
    }

    pub(super) fn rule(&self) -> Rule {
        self.rule
    }

    /// Passes on the winning row of each id, with its seal, in the order for writing; counts the rows that lose within
    /// their own batch.
    pub(super) fn each_winner(
        &self,
        applied: &mut Applied,
        row_error: impl Fn(RowError) -> StoreError,
        mut take: impl FnMut(EntityId, Arrival<'_>) -> Result<Applied, StoreError>,
    ) -> Result<(), StoreError> {
        let order = self.order();
        for arrivals in order.chunk_by(|&a, &b| self.ids[a] == self.ids[b]) {
            let Some((i, arrival)) = self.winner(arrivals, applied).map_err(&row_error)? else { continue };
            applied.add(take(self.ids[i], arrival)?);
        }
        Ok(())
    }

    /// Returns a row and its seal.
    fn sealed(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.bytes[start..self.ends[i]]
    }

    /// Returns the order for writing: by id, because neighbors share pages, and rows of one id in the order of arrival.
    fn order(&self) -> Vec<usize> {
        // Ids are hashes: their first bytes distinguish nearly all of them, and are adjacent in memory here.
        let beginning = |id: &EntityId| id.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let mut order: Vec<(u64, usize)> = self.ids.iter().map(beginning).zip(0..).collect();
        order.sort_unstable_by(|(a, i), (b, j)| a.cmp(b).then_with(|| (self.ids[*i], i).cmp(&(self.ids[*j], j))));
        order.into_iter().map(|(_, i)| i).collect()
    }

    /// Returns which row of one id wins if the others arrive with it; counts the others. If they were merged one after
    /// another, rows that tie would alternate whenever the batch is applied again.
    fn winner(&self, arrivals: &[usize], lost: &mut Applied) -> Result<Option<(usize, Arrival<'_>)>, RowError> {
        if self.rule == Rule::Latest {
            let Some((&last, before)) = arrivals.split_last() else { return Ok(None) };
            lost.stale += before.len() as u64;
            let sealed = self.sealed(last);
            let arrival = if sealed.is_empty() { Arrival::Removal } else { Arrival::Row(sealed, rank_of(sealed)?) };
            return Ok(Some((last, arrival)));
        }
        let mut winner: Option<(usize, RowRank)> = None;
        for &i in arrivals {
            let rank = rank_of(self.sealed(i))?;
            match winner {
                Some((best, _)) if self.sealed(best) == self.sealed(i) => lost.unchanged += 1,
                Some(_) => lost.stale += 1,
                None => {}
            }
            if winner.is_none_or(|(_, best)| self.times.compare(&best, &rank).is_le()) {
                winner = Some((i, rank));
            }
        }
        Ok(winner.map(|(i, rank)| (i, Arrival::Row(self.sealed(i), rank))))
    }
}

// === impl RowTimes ===

impl Default for RowTimes {
    /// Accepts any event time, with exact times.
    fn default() -> Self {
        Self { tolerance: Micros::MAX, coarse: false, is_static: false }
    }
}

impl RowTimes {
    /// Returns the latest event time that may be served at a time.
    #[must_use]
    pub fn latest(self, now: Micros) -> Micros {
        now.saturating_add(self.tolerance)
    }

    /// Returns how rows are compared at this time.
    pub(super) fn judge(self, now: Micros) -> Judge {
        Judge { latest: self.latest(now), coarse: self.coarse }
    }

    fn compare(self, one: &RowRank, other: &RowRank) -> Ordering {
        if self.coarse { one.compare_coarsely(other) } else { one.compare(other) }
    }
}

// === impl Judge ===

impl Judge {
    /// Returns whether a row must not be served yet.
    pub(super) fn is_future(self, rank: &RowRank) -> bool {
        rank.header.event_time > self.latest
    }

    /// Returns whether a stored row stays when another one arrives. A row from the future never stays: it would win
    /// until it is due.
    pub(super) fn outlasts(self, stored: &RowRank, arriving: &RowRank) -> bool {
        let order = if self.coarse { stored.compare_coarsely(arriving) } else { stored.compare(arriving) };
        order.is_gt() && !self.is_future(stored)
    }
}

// === impl Applied ===

impl Applied {
    /// Returns the number of rows that arrived.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.inserted + self.updated + self.unchanged + self.stale + self.removed
    }

    /// Returns the number of rows that changed the store.
    #[must_use]
    pub fn changed(&self) -> u64 {
        self.inserted + self.updated + self.removed
    }

    /// Adds the counts of another batch.
    pub fn add(&mut self, other: Self) {
        self.inserted += other.inserted;
        self.updated += other.updated;
        self.unchanged += other.unchanged;
        self.stale += other.stale;
        self.removed += other.removed;
    }
}

// === impl OnlineStore ===

impl OnlineStore {
    /// Starts a load of a view. The caller must ensure that there is only one load of a view at a time.
    ///
    /// # Errors
    /// If the transaction fails.
    pub fn begin_load(&self, view: ViewId, mode: LoadMode) -> Result<Load<'_>, StoreError> {
        let (name, known) = self.record(view)?;
        let builds = mode != LoadMode::Upsert;
        let (began, generation) = if builds || known.building.is_some() {
            // Data of an interrupted load is deleted; a load that builds a generation gets a new one.
            self.write(|txn| {
                let mut record = read_record(txn, &name)?;
                let last = record.building.unwrap_or(record.generation);
                delete_building(txn, &mut record)?;
                let generation = if builds { last + 1 } else { record.generation };
                record.building = builds.then_some(generation);
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

    /// Returns the view's load that was interrupted while it built a generation, if there is one with a position.
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
    pub fn discard_cut_off(&self, view: ViewId) -> Result<(), StoreError> {
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

    /// Resumes the interrupted load at the position of [`OnlineStore::interrupted`]. As always, only one load of a view at
    /// a time.
    ///
    /// # Errors
    /// [`StoreError::Superseded`] if there is none.
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
            is_gathered: false,
            times: RowTimes::default(),
            postponed: None,
            picks_up: false,
        }
    }

    /// Sets how the times of rows are interpreted, and whether the load reads all rows that earlier loads postponed. If
    /// so, its end clears those that it did not postpone again.
    #[must_use]
    pub fn with_times(self, times: RowTimes, picks_up: bool) -> Self {
        Self { times, picks_up, ..self }
    }
}

impl Load<'_> {
    /// Writes a batch and the source's position after it, in one transaction. An upsert is served immediately; in other
    /// loads, a row counts as inserted until [`Load::gather`] finds others of its entity. Without a position, the
    /// previous one stays.
    ///
    /// # Errors
    /// [`StoreError::Superseded`], [`StoreError::Row`], and errors of a failed transaction: nothing of the batch is
    /// stored then.
    pub fn apply(&mut self, batch: &RowBatch, position: Option<&str>) -> Result<Applied, StoreError> {
        if self.mode != LoadMode::Upsert {
            return self.add_run(batch, position);
        }
        self.postponed = Postponed::union(self.postponed, batch.postponed);
        let judge = batch.times.judge(self.store.clock.now());
        let applied = self.store.write(|txn| {
            let mut record = self.record(txn)?;
            let mut changed = Vec::new();
            let mut newest = record.newest_event;
            let mut applied = Applied::default();
            let mut table = txn.open_table(RowTable::new(&record.table_name(self.generation)))?;
            let row_error = |source| self.row_error(source);
            let written_name = record.written_name();
            // Rows of callers are stored separately from a source's rows, and are compared with those by their times.
            let overlaid = batch.rule == Rule::Latest && record.written;
            let mut written = if overlaid { Some(txn.open_table(RowTable::new(&written_name))?) } else { None };
            let mut deletions = Deletions::open(txn, &record)?;
            let current = self.current_schema(&record)?;
            batch.each_winner(&mut applied, row_error, |id, arrival| {
                if let Arrival::Row(_, rank) = &arrival {
                    if rank.header.fingerprint != current {
                        return Err(self.superseded());
                    }
                    if deletions.bars(&id, &rank.header, batch.times.is_static)? {
                        return Ok(Applied { stale: 1, ..Applied::default() });
                    }
                }
                if let Some(written) = &mut written
                    && outlasts(written, &id, &arrival, judge)?
                {
                    return Ok(Applied { stale: 1, ..Applied::default() });
                }
                let outcome = match arrival {
                    Arrival::Row(sealed, rank) => {
                        newest = newest.max(Some(rank.header.event_time));
                        merge(&mut table, &id, sealed, &rank, batch.rule, judge)?
                    }
                    Arrival::Removal => {
                        let old = table.remove(&id.0)?.map(|old| cost(old.value()));
                        record.bytes = record.bytes.saturating_sub(old.unwrap_or_default());
                        // Also for a missing row: a fetch in progress may return an old one.
                        changed.push(id);
                        Applied { removed: u64::from(old.is_some()), ..Applied::default() }
                    }
                };
                if outcome.inserted + outcome.updated > 0 {
                    changed.push(id);
                }
                Ok(outcome)
            })?;
            record.rows = table.len()?;
            record.position = position.map(str::to_owned).or(record.position);
            record.newest_event = newest;
            record.postponed = Postponed::union(record.postponed, batch.postponed);
            drop((table, written, deletions));
            put_record(txn, &self.name, &record)?;
            Ok(Written::Commit { value: applied, changed })
        })?;
        self.total.add(applied);
        Ok(applied)
    }

    /// Ends the load successfully: gathers, records the time and the position, and makes the new generation the served
    /// one. Without a position, the previous one stays.
    ///
    /// # Errors
    /// [`StoreError::Superseded`], and errors of a failed transaction or of [`Load::gather`]; the new generation is not
    /// served then.
    pub fn finish(mut self, position: Option<&str>) -> Result<Applied, StoreError> {
        if self.mode != LoadMode::Upsert {
            self.gather(&mut || true)?;
        }
        let judge = self.times.judge(self.store.clock.now());
        self.store.write(|txn| {
            let mut record = self.record(txn)?;
            let mut changed = Vec::new();
            if self.mode == LoadMode::Upsert {
                if self.picks_up {
                    record.postponed = self.postponed;
                    // If the load has no rows, the clock may be wrong instead of the stored rows.
                    let has_future = record.newest_event.is_some_and(|newest| newest > judge.latest);
                    if has_future && self.total.rows() > 0 {
                        remove_future(txn, &mut record, judge, &mut changed)?;
                    }
                    restore_written(txn, &mut record, judge, &mut changed)?;
                }
            } else {
                let newest_event = record.runs.newest_event;
                record.postponed = record.runs.postponed;
                take_run(txn, &mut record, self.generation)?;
                record.loaded_rows = Some(txn.open_table(RowTable::new(&record.table_name(self.generation)))?.len()?);
                let written = overlay(txn, &self.name, &record, self.generation, judge)?;
                apply_deletions(txn, &mut record, self.generation, self.times.is_static)?;
                let old_table = record.table_name(record.generation);
                record.generation = self.generation;
                record.building = None;
                record.retain_schemas(&self.name, &written.schemas)?;
                record.newest_event = newest_event.max(written.newest_event);
                record.postponed = Postponed::union(record.postponed, written.postponed);
                (record.bytes, record.hand) = (0, Default::default());
                record.written = !written.schemas.is_empty();
                record.rows = txn.open_table(RowTable::new(&record.table_name(self.generation)))?.len()?;
                txn.delete_table(RowTable::new(&old_table))?;
            }
            record.position = position.map(str::to_owned).or(record.position);
            record.last_success = Some(self.store.clock.now());
            if record.is_damaged {
                // Since the damage, this load and those that it continues have read the source from the start.
                (record.is_damaged, record.rows_lost) = (false, 0);
                tracing::info!(view = %self.name, "the view was fully reloaded; its damage is repaired");
            }
            put_record(txn, &self.name, &record)?;
            Ok(Written::Commit { value: (), changed })
        })?;
        Ok(self.total)
    }

    /// Returns the counts so far; see [`Load::gather`].
    #[must_use]
    pub fn total(&self) -> Applied {
        self.total
    }

    /// Returns the view's record, if it still matches the beginning of the load. Otherwise its rows would be written to
    /// a generation that is gone, or with an obsolete schema, and its position would hide that.
    pub(super) fn record(&self, txn: &WriteTransaction) -> Result<ViewRecord, StoreError> {
        let record = read_record(txn, &self.name)?;
        if record.is_same_life(&self.began) { Ok(record) } else { Err(self.superseded()) }
    }

    /// Returns the schema that arriving rows must have. A load with earlier definitions could have other rows after a
    /// change.
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

/// Inserts one row, unless a newer one is stored.
pub(super) fn merge(
    table: &mut Table<'_, RowKey, &'static [u8]>,
    id: &EntityId,
    sealed: &[u8],
    rank: &RowRank,
    rule: Rule,
    judge: Judge,
) -> Result<Applied, StoreError> {
    let mut outcome = Applied::default();
    let rival = match table.get(&id.0)? {
        None => {
            outcome.inserted = 1;
            None
        }
        Some(stored) if stored.value() == sealed => {
            outcome.unchanged = 1;
            return Ok(outcome);
        }
        Some(stored) => {
            outcome.updated = 1;
            // An unreadable stored row never wins: the source's row replaces it.
            unseal(id, stored.value()).and_then(|row| RowRank::read(row).ok())
        }
    };
    if rule == Rule::Newest && rival.is_some_and(|stored| judge.outlasts(&stored, rank)) {
        return Ok(Applied { stale: 1, ..Applied::default() });
    }
    table.insert(&id.0, sealed)?;
    Ok(outcome)
}

/// Returns whether a caller's row stays, whatever arrives from the source. Deletes it once the source has a row that is
/// at least as new.
fn outlasts(
    written: &mut Table<'_, RowKey, &'static [u8]>,
    id: &EntityId,
    arrival: &Arrival<'_>,
    judge: Judge,
) -> Result<bool, StoreError> {
    let Some(stored) =
        written.get(&id.0)?.map(|stored| unseal(id, stored.value()).and_then(|row| RowRank::read(row).ok()))
    else {
        return Ok(false);
    };
    let outlasts = match arrival {
        Arrival::Removal => stored.is_none_or(|stored| !judge.is_future(&stored)),
        Arrival::Row(_, arriving) => stored.is_some_and(|stored| judge.outlasts(&stored, arriving)),
    };
    if !outlasts {
        written.remove(&id.0)?;
    }
    Ok(outlasts)
}

/// Removes served rows that are in the future: a version without that check accepted them. Their source is read again
/// when they are due.
fn remove_future(
    txn: &WriteTransaction,
    record: &mut ViewRecord,
    judge: Judge,
    changed: &mut Vec<EntityId>,
) -> Result<(), StoreError> {
    let mut table = txn.open_table(RowTable::new(&record.table_name(record.generation)))?;
    let (mut newest, first) = (None, changed.len());
    for entry in table.iter()? {
        let (key, sealed) = entry?;
        let id = EntityId(*key.value());
        let Some(rank) = unseal(&id, sealed.value()).and_then(|row| RowRank::read(row).ok()) else { continue };
        let time = rank.header.event_time;
        if judge.is_future(&rank) {
            record.postponed = Postponed::union(record.postponed, Some(Postponed::at(time)));
            changed.push(id);
        } else {
            newest = newest.max(Some(time));
        }
    }
    for id in &changed[first..] {
        table.remove(&id.0)?;
    }
    record.newest_event = newest;
    record.rows = table.len()?;
    Ok(())
}

/// Returns the times of a row with its seal.
pub(super) fn rank_of(sealed: &[u8]) -> Result<RowRank, RowError> {
    RowRank::read(without_seal(sealed))
}

pub(super) fn read_record(txn: &WriteTransaction, name: &str) -> Result<ViewRecord, StoreError> {
    match txn.open_table(VIEWS)?.get(name)? {
        Some(bytes) => ViewRecord::decode(name, bytes.value()),
        None => Err(StoreError::Damaged(format!("no record of view '{name}'"))),
    }
}

pub(super) fn put_record(txn: &WriteTransaction, name: &str, record: &ViewRecord) -> Result<(), StoreError> {
    txn.open_table(VIEWS)?.insert(name, record.encode().as_slice())?;
    Ok(())
}
