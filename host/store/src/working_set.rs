//! Views of which the store has only a part: rows that were requested, up to a size limit.
//!
//! A fetched row is as new as its fetch, so it replaces any stored row, unless the row was removed since the fetch
//! began, which means that the fetched row is old. The hot cache's commit numbers reveal that. Such rows can be fetched
//! again, so their commits do not wait for the disk: a crash costs fetches.
//!
//! Beyond the limit, rows are evicted. Their ids are hashes, so walking through them in order is an unbiased choice;
//! recently requested rows are in the hot cache, and are skipped.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use larder_model::model::EntityId;
use moka::sync::Cache;
use redb::ReadableTable;

use super::{
    Applied, KeySignature, OnlineStore, RowBatch, StoreError, ViewId,
    batch::Arrival,
    erase::Deletions,
    record::{RowKey, RowTable, ViewRecord},
    tables::{cost, put_record, read_record},
    transaction::Written,
};

/// Entities whose state in the table is known for a time: the stored row, or that there is none.
#[derive(Clone, Debug)]
pub struct NegativeCache(Cache<EntityId, Known>);

#[derive(Clone, Copy, Debug)]
struct Known {
    is_there: bool,
    until: Instant,
    /// The commit that was readable before the table was queried.
    seen: u64,
}

/// The maximum number of entities that are remembered; about 100 bytes each.
const CHECKED_MAX: u64 = 1_000_000;

/// A working set above its limit is reduced to this fraction of it, so that not every fetch has to evict.
const KEPT: (u64, u64) = (9, 10);
/// The maximum number of rows skipped for one eviction; then recent ones are evicted, too.
const PASSED_OVER_MAX: usize = 20_000;

// === impl NegativeCache ===

impl NegativeCache {
    /// Creates a cache whose entries live at most this long.
    #[must_use]
    pub fn new(longest: Duration) -> Self {
        Self(Cache::builder().max_capacity(CHECKED_MAX).time_to_live(longest.max(Duration::from_millis(1))).build())
    }

    /// Records whether the table has an entity, and how long that holds; `seen` is [`OnlineStore::seen`] from before
    /// the table was queried.
    pub fn note(&self, id: EntityId, is_there: bool, holds: Duration, seen: u64) {
        self.0.insert(id, Known { is_there, until: Instant::now() + holds, seen });
    }
}

// === impl OnlineStore ===

impl OnlineStore {
    /// Returns the commit that readers see now. Call this function before a fetch begins.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.commit()
    }

    /// Returns whether the table is known to agree with the store on whether an entity has a row. The store may have
    /// evicted a row that the table has, and a missing row is uncertain once a change of it was reported.
    #[must_use]
    pub fn is_checked(&self, checked: &NegativeCache, id: &EntityId, is_here: bool) -> bool {
        checked.0.get(id).is_some_and(|known| {
            known.is_there == is_here
                && known.until > Instant::now()
                && (is_here || !self.hot.changed_since(id, known.seen))
        })
    }

    /// Stores fetched rows, and evicts others if there are more than `bytes_max`. `seen` is the commit that was
    /// readable when the fetch began: rows that may have changed since then stay unchanged and are returned, because
    /// the fetched ones may be old.
    ///
    /// # Errors
    /// [`StoreError::Superseded`] if the view was redeclared with other keys, and errors of a failed transaction.
    pub fn keep(
        &self,
        view: ViewId,
        key: &KeySignature,
        batch: &RowBatch,
        gone: &[EntityId],
        seen: u64,
        bytes_max: u64,
    ) -> Result<Vec<EntityId>, StoreError> {
        let (name, _) = self.record(view)?;
        self.write_lazily(|txn| {
            let mut record = read_record(txn, &name)?;
            if record.key != *key {
                return Err(StoreError::Superseded { view: name.clone() });
            }
            let (mut changed, mut doubtful) = (Vec::new(), Vec::new());
            let mut rows = txn.open_table(RowTable::new(&record.table_name(record.generation)))?;
            let row_error = |source| StoreError::Row { view: name.clone(), source };
            let schemas = record.row_schemas(&name)?;
            let current = schemas.last().map(|schema| schema.fingerprint());
            let mut bytes = record.bytes;
            let mut deletions = Deletions::open(txn, &record)?;
            let mut ignored = Applied::default();
            batch.each_winner(&mut ignored, row_error, |id, arrival| {
                if self.hot.changed_since(&id, seen) {
                    doubtful.push(id);
                } else if let Arrival::Row(sealed, rank) = arrival
                    && Some(rank.header.fingerprint) == current
                    && !deletions.bars(&id, &rank.header, false)?
                {
                    let before = rows.insert(&id.0, sealed)?.map_or(0, |old| cost(old.value()));
                    bytes = bytes.saturating_sub(before) + cost(sealed);
                    record.newest_event = record.newest_event.max(Some(rank.header.event_time));
                    changed.push(id);
                }
                Ok(Applied::default())
            })?;
            for id in gone {
                if let Some(old) = rows.remove(&id.0)? {
                    bytes = bytes.saturating_sub(cost(old.value()));
                    changed.push(*id);
                }
            }
            record.bytes = bytes;
            if record.bytes > bytes_max {
                self.let_go(&mut rows, &mut record, bytes_max * KEPT.0 / KEPT.1, &mut changed)?;
            }
            record.rows = redb::ReadableTableMetadata::len(&rows)?;
            drop((rows, deletions));
            put_record(txn, &name, &record)?;
            Ok(Written::Commit { value: doubtful, changed })
        })
    }

    fn let_go(
        &self,
        rows: &mut redb::Table<'_, RowKey, &'static [u8]>,
        record: &mut ViewRecord,
        bytes_max: u64,
        changed: &mut Vec<EntityId>,
    ) -> Result<(), StoreError> {
        // A caller is waiting for the rows that were just fetched.
        let fresh: HashSet<EntityId> = changed.iter().copied().collect();
        let mut passed_over = 0;
        let mut wrapped = false;
        let mut excess = record.bytes.saturating_sub(bytes_max);
        let mut going = Vec::new();
        let mut hand = record.hand;
        while excess > 0 {
            let mut last = None;
            for entry in rows.range::<&[u8; size_of::<EntityId>()]>(&hand..)? {
                let (key, value) = entry?;
                let id = EntityId(*key.value());
                last = Some(id);
                if fresh.contains(&id) {
                    continue;
                }
                if passed_over < PASSED_OVER_MAX && self.hot.holds(&id) {
                    passed_over += 1;
                    continue;
                }
                let cost = cost(value.value());
                going.push((id, cost));
                excess = excess.saturating_sub(cost);
                if excess == 0 {
                    break;
                }
            }
            for (id, cost) in going.drain(..) {
                rows.remove(&id.0)?;
                record.bytes = record.bytes.saturating_sub(cost);
                changed.push(id);
            }
            match last {
                Some(id) if excess == 0 => hand = id.0,
                // The second round: no row is recent any more.
                _ if wrapped && last.is_none() => break,
                _ => {
                    (hand, wrapped) = ([0; size_of::<EntityId>()], true);
                    passed_over = PASSED_OVER_MAX;
                }
            }
        }
        record.hand = hand;
        Ok(())
    }
}
