//! Writing: a [`Load`] brings one view's rows from a source into the store, batch by batch.

use larder_model::{
    codec::{RowError, RowHeader},
    model::{EntityId, Micros},
};
use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use super::{
    OnlineStore, StoreError, ViewId,
    online::Written,
    put::overlay,
    record::{RowKey, RowTable, VIEWS, ViewRecord, seal, unseal},
};

/// What becomes of the rows that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadMode {
    /// They stay, and newer ones replace them.
    Upsert,
    /// They are served until the load has ended, then they go all at once.
    Replace,
}

/// Encoded rows with their ids, in one piece of memory, as they will be stored.
#[derive(Debug, Default)]
pub struct RowBatch {
    ids: Vec<EntityId>,
    /// Where each row ends in `bytes`.
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

/// What a batch, or a load, did to the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rows of keys that were not there.
    pub inserted: u64,
    /// Rows that replaced another one.
    pub updated: u64,
    /// Rows that were there already, byte for byte.
    pub unchanged: u64,
    /// Rows that lost against a newer one, in the store or in the same batch.
    pub stale: u64,
}

/// A load under way. Dropping it keeps what was committed: the next load goes on or starts over.
#[derive(Debug)]
pub struct Load<'s> {
    store: &'s OnlineStore,
    name: String,
    mode: LoadMode,
    /// The view's record when the load began.
    began: ViewRecord,
    /// The generation that is written.
    generation: u32,
    total: Applied,
    newest_event: Option<Micros>,
}

// === impl RowBatch ===

impl RowBatch {
    /// Adds a row.
    pub fn push(&mut self, id: EntityId, row: &[u8]) {
        self.ids.push(id);
        seal(&id, row, &mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Bytes of all rows, as stored.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets the rows and keeps the memory.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.ends.clear();
        self.bytes.clear();
    }

    /// Hands on the row that stays of each id, with its seal, in the order in which to write; those that lose against
    /// their own batch are counted.
    pub(super) fn each_winner(
        &self,
        applied: &mut Applied,
        row_error: impl Fn(RowError) -> StoreError,
        mut take: impl FnMut(EntityId, &[u8], &RowHeader) -> Result<Applied, StoreError>,
    ) -> Result<(), StoreError> {
        let order = self.order();
        for arrivals in order.chunk_by(|&a, &b| self.ids[a] == self.ids[b]) {
            let Some((i, header)) = self.winner(arrivals, applied).map_err(&row_error)? else { continue };
            applied.add(take(self.ids[i], self.sealed(i), &header)?);
        }
        Ok(())
    }

    /// A row and its seal.
    fn sealed(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.bytes[start..self.ends[i]]
    }

    /// The order in which to write: by id, because neighbours share pages, and rows of one id as they arrived.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by_key(|&i| (self.ids[i], i));
        order
    }

    /// Which of the rows of one id stays, if the others arrive with it; those are counted. Were they merged one
    /// after another, rows that tie would take turns whenever the batch is applied again.
    fn winner(&self, arrivals: &[usize], lost: &mut Applied) -> Result<Option<(usize, RowHeader)>, RowError> {
        let mut winner: Option<(usize, RowHeader)> = None;
        for &i in arrivals {
            let header = RowHeader::read(self.sealed(i))?;
            match winner {
                Some((best, _)) if self.sealed(best) == self.sealed(i) => lost.unchanged += 1,
                Some(_) => lost.stale += 1,
                None => {}
            }
            if winner.is_none_or(|(_, best)| best.precedence() <= header.precedence()) {
                winner = Some((i, header));
            }
        }
        Ok(winner)
    }
}

// === impl Applied ===

impl Applied {
    /// All rows that arrived.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.inserted + self.updated + self.unchanged + self.stale
    }

    /// Rows that made a difference.
    #[must_use]
    pub fn changed(&self) -> u64 {
        self.inserted + self.updated
    }

    /// Adds what another batch did.
    pub fn add(&mut self, other: Self) {
        self.inserted += other.inserted;
        self.updated += other.updated;
        self.unchanged += other.unchanged;
        self.stale += other.stale;
    }
}

// === impl OnlineStore ===

impl OnlineStore {
    /// Starts a load of a view. One load of a view at a time: the caller sees to it.
    ///
    /// # Errors
    /// Those of a failed transaction.
    pub fn begin_load(&self, view: ViewId, mode: LoadMode) -> Result<Load<'_>, StoreError> {
        let (name, known) = self.record(view)?;
        let replace = mode == LoadMode::Replace;
        let (began, generation) = if replace || known.building.is_some() {
            // What a load that was cut off left behind goes; a replacing load gets a generation of its own.
            self.write(|txn| {
                let mut record = read_record(txn, &name)?;
                let mut last = record.generation;
                if let Some(cut_off) = record.building.take() {
                    txn.delete_table(RowTable::new(&record.table_name(cut_off)))?;
                    last = cut_off;
                }
                let generation = if replace { last + 1 } else { record.generation };
                record.building = replace.then_some(generation);
                put_record(txn, &name, &record)?;
                Ok(Written::Commit { value: (record, generation), changed: Vec::new() })
            })?
        } else {
            let generation = known.generation;
            (known, generation)
        };
        Ok(Load { store: self, name, mode, began, generation, total: Applied::default(), newest_event: None })
    }
}

// === impl Load ===

impl Load<'_> {
    /// Writes a batch and the position of the source after it, in one transaction. An upsert is served from here on.
    /// Without a position the one before stays.
    ///
    /// # Errors
    /// [`StoreError::Superseded`], [`StoreError::Row`], and those of a failed transaction: nothing of the batch is
    /// there then.
    pub fn apply(&mut self, batch: &RowBatch, position: Option<&str>) -> Result<Applied, StoreError> {
        let (applied, newest) = self.store.write(|txn| {
            let mut record = self.record(txn)?;
            let mut changed = Vec::new();
            let mut newest = self.newest_event;
            let mut applied = Applied::default();
            let mut table = txn.open_table(RowTable::new(&record.table_name(self.generation)))?;
            let row_error = |source| self.row_error(source);
            batch.each_winner(&mut applied, row_error, |id, sealed, header| {
                newest = newest.max(Some(header.event_time));
                let outcome = merge(&mut table, &id, sealed, header)?;
                if outcome.changed() > 0 && self.mode == LoadMode::Upsert {
                    changed.push(id);
                }
                Ok(outcome)
            })?;
            if self.mode == LoadMode::Upsert {
                record.rows = table.len()?;
                record.position = position.map(str::to_owned).or(record.position);
                record.newest_event = record.newest_event.max(newest);
            }
            drop(table);
            put_record(txn, &self.name, &record)?;
            Ok(Written::Commit { value: (applied, newest), changed })
        })?;
        self.newest_event = newest;
        self.total.add(applied);
        Ok(applied)
    }

    /// Ends the load well: notes the time and the position, and makes a replacing load the served one. Without a
    /// position the one before stays.
    ///
    /// # Errors
    /// [`StoreError::Superseded`], and those of a failed transaction; a replacing load has not happened then.
    pub fn finish(self, position: Option<&str>) -> Result<Applied, StoreError> {
        self.store.write(|txn| {
            let mut record = self.record(txn)?;
            if self.mode == LoadMode::Replace {
                let written = overlay(txn, &self.name, &record, self.generation)?;
                let old_table = record.table_name(record.generation);
                record.generation = self.generation;
                record.building = None;
                record.retain_schemas(&self.name, &written.schemas)?;
                record.newest_event = self.newest_event.max(written.newest_event);
                record.written = !written.schemas.is_empty();
                record.rows = txn.open_table(RowTable::new(&record.table_name(self.generation)))?.len()?;
                txn.delete_table(RowTable::new(&old_table))?;
            }
            record.position = position.map(str::to_owned).or(record.position);
            record.last_success = Some(self.store.clock.now());
            put_record(txn, &self.name, &record)?;
            Ok(Written::Commit { value: (), changed: Vec::new() })
        })?;
        Ok(self.total)
    }

    /// What was done so far.
    #[must_use]
    pub fn total(&self) -> Applied {
        self.total
    }

    /// The view's record, if it is still what the load began with: otherwise its rows would land in a generation
    /// that is gone, or under a schema that nobody asks for, and its position would hide that.
    fn record(&self, txn: &WriteTransaction) -> Result<ViewRecord, StoreError> {
        let record = read_record(txn, &self.name)?;
        if record.is_same_life(&self.began) {
            Ok(record)
        } else {
            Err(StoreError::Superseded { view: self.name.clone() })
        }
    }

    fn row_error(&self, source: RowError) -> StoreError {
        StoreError::Row { view: self.name.clone(), source }
    }
}

/// Puts one row where it belongs, unless a newer one is there.
pub(super) fn merge(
    table: &mut Table<'_, RowKey, &'static [u8]>,
    id: &EntityId,
    sealed: &[u8],
    header: &RowHeader,
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
            // A stored row that does not read has no say: the source heals it.
            unseal(id, stored.value()).and_then(|row| RowHeader::read(row).ok())
        }
    };
    if rival.is_some_and(|stored| stored.precedence() > header.precedence()) {
        return Ok(Applied { stale: 1, ..Applied::default() });
    }
    table.insert(&id.0, sealed)?;
    Ok(outcome)
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
