//! Views that store only the rows that were requested, up to a size limit.
//!
//! The rows of such a view are fetched from its table on request. A fetched row replaces the stored row, with two
//! exceptions: a newer row that a caller wrote stays, and so does the row of an entity that may have changed in the store
//! since the fetch began, because the fetched row may then be old. The commit numbers of the hot cache's slots show whether the entity may have changed. Commits of fetched rows do not wait for
//! the disk: rows that are lost in a crash are fetched again.
//!
//! If the rows exceed the size limit, some of them are evicted, in the order of their ids. Ids are hashes, so this
//! choice is unbiased. A limited number of recently requested rows is skipped at first; they are recognized because
//! they are in the hot cache.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use larder_model::{
    codec::{Fingerprint, RowRank},
    model::EntityId,
};
use moka::sync::Cache;
use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::{
    Applied, KeySignature, OnlineStore, RowBatch, StoreError, ViewId,
    batch::Arrival,
    erase::Deletions,
    record::{RowKey, RowTable, ViewRecord, verified_row},
    rule::RowComparer,
    tables::{cost, put_record, read_record},
    transaction::Written,
};

/// Records for a limited time whether a view's table has a row for an entity.
#[derive(Clone, Debug)]
pub struct NegativeCache(Cache<EntityId, Known>);

/// The result of storing fetched rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchedRows {
    /// Entities that may have changed since the fetch began. They must be fetched again.
    pub uncertain: Vec<EntityId>,
    /// Entities with a stored row: the fetched one, or a newer one that a caller wrote.
    pub stored: Vec<EntityId>,
}

/// The rows that callers wrote to a view. Such a row is served until the table has a row that is at least as new.
struct WrittenRows<'t> {
    table: Option<redb::Table<'t, RowKey, &'static [u8]>>,
    schemas: HashSet<Fingerprint>,
    comparer: RowComparer,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    in_table: bool,
    until: Instant,
    /// The number of the commit that was readable before the table was queried.
    seen: u64,
}

/// The maximum number of entries. An entry takes about 100 bytes.
const ENTRIES_MAX: u64 = 1_000_000;

/// If the rows exceed the size limit, they are reduced to this fraction of it, so that not every fetch has to evict
/// rows.
const KEPT_FRACTION: (u64, u64) = (9, 10);
/// The maximum number of recently requested rows that one eviction skips. After that, it evicts such rows, too.
const SKIPPED_MAX: usize = 20_000;

// === impl NegativeCache ===

impl NegativeCache {
    /// Creates a cache whose entries expire after `longest` or earlier.
    #[must_use]
    pub fn new(longest: Duration) -> Self {
        Self(Cache::builder().max_capacity(ENTRIES_MAX).time_to_live(longest.max(Duration::from_millis(1))).build())
    }

    /// Records for the duration `ttl` whether the table has a row for an entity. `seen` is the value of
    /// [`OnlineStore::visible_commit`] from before the table was queried.
    pub fn note(&self, id: EntityId, in_table: bool, ttl: Duration, seen: u64) {
        self.0.insert(id, Known { in_table, until: Instant::now() + ttl, seen });
    }
}

// === impl WrittenRows ===

impl<'t> WrittenRows<'t> {
    /// Opens the table of these rows, if callers wrote any to the view. `schemas` has the schemas of the view.
    fn open(
        txn: &'t WriteTransaction,
        record: &ViewRecord,
        name: &'t str,
        schemas: HashSet<Fingerprint>,
        comparer: RowComparer,
    ) -> Result<Self, StoreError> {
        let table = if record.written { Some(txn.open_table(RowTable::new(name))?) } else { None };
        Ok(Self { table, schemas, comparer })
    }

    /// Returns an entity's row with its checksum if it is newer than the table's row; any row is newer than none.
    /// Deletes a row that is not newer. Ignores rows from the future, and rows that cannot be read.
    fn newer_than(&mut self, id: &EntityId, fetched: Option<&RowRank>) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(table) = &mut self.table else { return Ok(None) };
        let Some(checksummed) = table.get(&id.0)?.map(|row| row.value().to_vec()) else { return Ok(None) };
        let rank = verified_row(id, &checksummed).and_then(|row| RowRank::read(row).ok());
        let rank = rank.filter(|rank| self.schemas.contains(&rank.header.fingerprint));
        let Some(rank) = rank.filter(|rank| !self.comparer.is_future(rank)) else { return Ok(None) };
        if fetched.is_none_or(|fetched| self.comparer.wins_over(&rank, fetched)) {
            return Ok(Some(checksummed));
        }
        table.remove(&id.0)?;
        Ok(None)
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        self.table.as_ref().map_or(Ok(true), |table| Ok(table.is_empty()?))
    }
}

// === impl OnlineStore ===

impl OnlineStore {
    /// Returns whether callers wrote rows to a view, in addition to the rows of its source.
    #[must_use]
    pub fn has_written_rows(&self, view: ViewId) -> bool {
        self.state().view(view).ok().flatten().is_some_and(|view| view.record.written)
    }

    /// Returns the number of the commit that readers see now. Call this function before a fetch begins.
    #[must_use]
    pub fn visible_commit(&self) -> u64 {
        self.commit()
    }

    /// Returns whether no fetch is needed, because the table is known to agree with the store on whether an entity has
    /// a row. `is_stored` says whether the store has a row. If the store has evicted a row that the table has, the two
    /// do not agree. An entry for a missing row is no longer valid once the entity changed in the store.
    #[must_use]
    pub fn agrees_with_table(&self, cache: &NegativeCache, id: &EntityId, is_stored: bool) -> bool {
        cache.0.get(id).is_some_and(|known| {
            known.in_table == is_stored
                && known.until > Instant::now()
                && (is_stored || !self.hot.changed_since(id, known.seen))
        })
    }

    /// Stores fetched rows, and removes the rows of the entities in `gone`, which the table does not have. Evicts other
    /// rows if the view's rows take more than `bytes_max` bytes. `seen` is the commit that was readable when the fetch
    /// began. If an entity may have changed since then, its row is not replaced or removed, because the fetched state
    /// may be old. A newer row that a caller wrote stays too. Rows whose schema is not the view's current one, and
    /// rows that are not newer than a deletion of the entity, are not stored.
    ///
    /// # Errors
    /// [`StoreError::Superseded`] if the view was redeclared with other keys, and errors of a failed transaction.
    pub fn put_fetched(
        &self,
        view: ViewId,
        key: &KeySignature,
        batch: &RowBatch,
        gone: &[EntityId],
        seen: u64,
        bytes_max: u64,
    ) -> Result<FetchedRows, StoreError> {
        let (name, _) = self.record(view)?;
        let comparer = batch.times().comparer(self.clock.now());
        self.write_lazily(|txn| {
            let mut record = read_record(txn, &name)?;
            if record.key != *key {
                return Err(StoreError::Superseded { view: name.clone() });
            }
            let (mut changed, mut uncertain, mut stored) = (Vec::new(), Vec::new(), Vec::new());
            let mut rows = txn.open_table(RowTable::new(&record.table_name(record.generation)))?;
            let row_error = |source| StoreError::Row { view: name.clone(), source };
            let schemas = record.row_schemas(&name)?;
            let current = schemas.last().map(|schema| schema.fingerprint());
            let mut bytes = record.bytes;
            let mut deletions = Deletions::open(txn, &record)?;
            let written_name = record.written_name();
            let known = schemas.iter().map(|schema| schema.fingerprint()).collect();
            let mut written = WrittenRows::open(txn, &record, &written_name, known, comparer)?;
            let mut store = |id: EntityId, checksummed: &[u8]| -> Result<(), StoreError> {
                let before = rows.insert(&id.0, checksummed)?.map_or(0, |old| cost(old.value()));
                bytes = bytes.saturating_sub(before) + cost(checksummed);
                stored.push(id);
                Ok(())
            };
            let mut ignored = Applied::default();
            batch.for_each_winner(&mut ignored, row_error, |id, arrival| {
                if self.hot.changed_since(&id, seen) {
                    uncertain.push(id);
                } else if let Arrival::Row(checksummed, rank) = arrival
                    && Some(rank.header.fingerprint) == current
                    && !deletions.rejects(&id, &rank.header, false)?
                {
                    if let Some(newer) = written.newer_than(&id, Some(&rank))? {
                        store(id, &newer)?;
                    } else {
                        record.newest_event = record.newest_event.max(Some(rank.header.event_time));
                        store(id, checksummed)?;
                    }
                }
                Ok(Applied::default())
            })?;
            let mut removed = Vec::new();
            for id in gone {
                if self.hot.changed_since(id, seen) {
                    uncertain.push(*id);
                } else if let Some(row) = written.newer_than(id, None)? {
                    store(*id, &row)?;
                } else {
                    removed.push(*id);
                }
            }
            for id in removed {
                if let Some(old) = rows.remove(&id.0)? {
                    bytes = bytes.saturating_sub(cost(old.value()));
                    changed.push(id);
                }
            }
            changed.extend(&stored);
            record.bytes = bytes;
            if record.bytes > bytes_max {
                self.evict(&mut rows, &mut record, bytes_max * KEPT_FRACTION.0 / KEPT_FRACTION.1, &mut changed)?;
            }
            record.rows = rows.len()?;
            record.written &= !written.is_empty()?;
            drop((rows, deletions, written));
            put_record(txn, &name, &record)?;
            Ok(Written::Commit { value: FetchedRows { uncertain, stored }, changed })
        })
    }

    fn evict(
        &self,
        rows: &mut redb::Table<'_, RowKey, &'static [u8]>,
        record: &mut ViewRecord,
        bytes_max: u64,
        changed: &mut Vec<EntityId>,
    ) -> Result<(), StoreError> {
        // The rows of these entities were just fetched, and a caller is waiting for them.
        let fresh: HashSet<EntityId> = changed.iter().copied().collect();
        let mut skipped = 0;
        let mut excess = record.bytes.saturating_sub(bytes_max);
        let mut evicting = Vec::new();
        // The first round begins where the last eviction ended. The second round begins at the first row and also
        // evicts recently requested rows. If the fresh rows alone exceed the limit, the rows still exceed it after the
        // second round.
        for is_second in [false, true] {
            let start = if is_second { [0; size_of::<EntityId>()] } else { record.hand };
            record.hand = [0; size_of::<EntityId>()];
            if is_second {
                skipped = SKIPPED_MAX;
            }
            for entry in rows.range::<&[u8; size_of::<EntityId>()]>(&start..)? {
                let (key, value) = entry?;
                let id = EntityId(*key.value());
                if fresh.contains(&id) {
                    continue;
                }
                if skipped < SKIPPED_MAX && self.hot.contains(&id) {
                    skipped += 1;
                    continue;
                }
                let cost = cost(value.value());
                evicting.push((id, cost));
                excess = excess.saturating_sub(cost);
                if excess == 0 {
                    record.hand = id.0;
                    break;
                }
            }
            for (id, cost) in evicting.drain(..) {
                rows.remove(&id.0)?;
                record.bytes = record.bytes.saturating_sub(cost);
                changed.push(id);
            }
            if excess == 0 {
                break;
            }
        }
        Ok(())
    }
}
