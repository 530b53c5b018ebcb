//! Loads that are not served until they end. Each batch becomes a run, which is sorted by id, and the runs are merged
//! at the end of the load.
//!
//! Ids are hashes, so a batch that is inserted into one big tree modifies a page for nearly every row, and each of
//! these pages is rewritten. Ten million rows in forty batches would write thirty gigabytes, and leave pages half full.
//! A run is written sequentially with full pages, and so is the result of the merge. Each transaction of the merge also
//! deletes the merged rows from the runs, and later transactions reuse the freed pages. So disk usage stays slightly
//! above the size of one copy of the rows.
//!
//! ```text
//! run/<view>/<n>   one run: entity id → row with its checksum, or nothing for a removal
//! ```
//!
//! The runs and the position of their source are committed together, so an interrupted load can resume. An interrupted
//! merge leaves some of the rows in one more run. The next merge treats this run as the oldest one.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
    ops::Bound,
};

use larder_model::{codec::RowRank, model::EntityId};
use redb::{AccessGuard, Range, ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use super::{
    Applied, Load, LoadMode, RowBatch, Rule, StoreError,
    batch::Arrival,
    record::{Postponed, RowKey, RowTable, Runs, ViewRecord, verified_row},
    tables::put_record,
    transaction::Written,
};

/// The next id of a run: the id as a number, and the index of the run. The reversed order puts the smallest id at the
/// top of the heap.
type Head = Reverse<(u128, usize)>;

/// A cursor over a run, in the order of ids.
struct Cursor<'t> {
    rows: Range<'t, RowKey, &'static [u8]>,
    next: Option<(u128, StoredRow<'t>)>,
}

/// A row with its checksum, or nothing for a removal.
type StoredRow<'t> = AccessGuard<'t, &'static [u8]>;

/// The result of one merge transaction.
struct Merged {
    outcome: Applied,
    /// The last id that was processed; `None` if there was none.
    last: Option<u128>,
    is_complete: bool,
}

type RunTable<'t> = Table<'t, RowKey, &'static [u8]>;

const NO_BOUND: Bound<&[u8; size_of::<EntityId>()]> = Bound::Unbounded;

/// Renames the only remaining run, if there is one, to the table of its generation.
pub(super) fn promote_run(txn: &WriteTransaction, record: &mut ViewRecord, generation: u32) -> Result<(), StoreError> {
    if let Some(&run) = record.runs.numbers.first() {
        let (run, rows) = (record.run_name(run), record.table_name(generation));
        txn.rename_table(RowTable::new(&run), RowTable::new(&rows))?;
    }
    record.runs = Runs::default();
    Ok(())
}

// === impl Load ===

impl Load<'_> {
    /// Writes a batch as a new run.
    pub(super) fn add_run(&mut self, batch: &RowBatch, position: Option<&str>) -> Result<Applied, StoreError> {
        let applied = self.store.write(|txn| {
            let mut record = self.record(txn)?;
            let mut newest = record.runs.newest_event;
            let mut applied = Applied::default();
            let number = record.runs.next();
            let is_oldest = record.runs.numbers.is_empty() && record.runs.merging.is_none();
            let mut table = txn.open_table(RowTable::new(&record.run_name(number)))?;
            let mut run = table.upper_bound_mut(NO_BOUND)?;
            let row_error = |source| self.row_error(source);
            let current = self.current_schema(&record)?;
            batch.for_each_winner(&mut applied, row_error, |id, arrival| match arrival {
                Arrival::Row(_, rank) if rank.header.fingerprint != current => Err(self.superseded()),
                Arrival::Row(checksummed, rank) => {
                    newest = newest.max(Some(rank.header.event_time));
                    run.insert_before(&id.0, checksummed)?;
                    Ok(Applied { inserted: 1, ..Applied::default() })
                }
                Arrival::Removal => {
                    // In the oldest run, there is no earlier row to remove.
                    if !is_oldest {
                        run.insert_before(&id.0, &[][..])?;
                    }
                    Ok(Applied::default())
                }
            })?;
            run.close()?;
            drop(table);
            let runs = &mut record.runs;
            runs.numbers.push(number);
            runs.rule = batch.rule();
            runs.newest_event = newest;
            runs.postponed = Postponed::union(runs.postponed, batch.postponed());
            runs.batch_rows = runs.batch_rows.max(batch.len() as u64);
            runs.batch_bytes = runs.batch_bytes.max(batch.bytes() as u64);
            runs.position = position.map(str::to_owned).or(runs.position.take());
            put_record(txn, &self.name, &record)?;
            Ok(Written::Commit { value: applied, changed: Vec::new() })
        })?;
        self.is_merged = false;
        self.total.add(applied);
        Ok(applied)
    }

    /// Merges the batches so far and returns the resulting number of rows. Calls `should_continue` before each
    /// transaction, and returns `None` if it returns false.
    ///
    /// After the merge, [`Load::total`] is exact. Before the merge, it counts rows of one entity in several batches as
    /// if they belonged to different entities. An upsert has nothing to merge, so this function returns the number of
    /// stored rows.
    ///
    /// # Errors
    /// [`StoreError::Superseded`], [`StoreError::Damaged`] for a row that cannot be compared, and errors of a failed
    /// transaction. The batches then stay stored.
    pub fn merge_runs(&mut self, should_continue: &mut dyn FnMut() -> bool) -> Result<Option<u64>, StoreError> {
        if self.mode == LoadMode::Upsert {
            return self.store.write(|txn| Ok(Written::Nothing(Some(self.record(txn)?.rows))));
        }
        let mut outcome = Applied::default();
        let mut is_complete = !self.begin_merge()?;
        while !is_complete {
            if !should_continue() {
                return Ok(None);
            }
            let merged = self.merge_some()?;
            outcome.add(merged.outcome);
            is_complete = merged.is_complete;
        }
        let rows = self.rows()?;
        if !self.is_merged {
            // A single run needs no merge. All of its rows count as inserted, including the rows of an interrupted
            // load.
            self.total.inserted = if outcome == Applied::default() { rows } else { 0 };
            self.total.add(outcome);
            self.is_merged = true;
        }
        Ok(Some(rows))
    }

    /// Records that a merge has begun, and the run into which the runs are merged. Returns false if there is nothing to
    /// merge.
    fn begin_merge(&self) -> Result<bool, StoreError> {
        self.store.write(|txn| {
            let mut record = self.record(txn)?;
            let runs = &mut record.runs;
            // The result of an interrupted merge is older than all remaining runs.
            let begun = runs.merging.take();
            runs.numbers.splice(0..0, begun);
            if runs.numbers.len() < 2 && begun.is_none() {
                return Ok(Written::Nothing(false));
            }
            runs.merging = Some(runs.next());
            put_record(txn, &self.name, &record)?;
            Ok(Written::Commit { value: true, changed: Vec::new() })
        })
    }

    /// Continues the merge for one transaction.
    fn merge_some(&self) -> Result<Merged, StoreError> {
        self.store.write(|txn| {
            let mut record = self.record(txn)?;
            let Some(merging) = record.runs.merging else {
                return Err(self.superseded());
            };
            let names: Vec<String> = record.runs.numbers.iter().map(|&number| record.run_name(number)).collect();
            let tables = names.iter().map(|name| txn.open_table(RowTable::new(name)));
            let mut tables = tables.collect::<Result<Vec<_>, _>>()?;
            let mut into = txn.open_table(RowTable::new(&record.run_name(merging)))?;
            let merged = self.merge(&record.runs, &tables, &mut into)?;
            drop(into);
            if merged.is_complete {
                drop(tables);
                for name in &names {
                    txn.delete_table(RowTable::new(name))?;
                }
                record.runs.numbers = vec![merging];
                record.runs.merging = None;
            } else if let Some(last) = merged.last {
                for table in &mut tables {
                    table.retain_in::<&[u8; size_of::<EntityId>()], _>(..=&last.to_be_bytes(), |_, _| false)?;
                }
            }
            put_record(txn, &self.name, &record)?;
            Ok(Written::Commit { value: merged, changed: Vec::new() })
        })
    }

    /// Reads the runs from their beginnings and appends the winning rows to a table, until the size limit of a
    /// transaction is reached.
    fn merge(&self, runs: &Runs, tables: &[RunTable<'_>], into: &mut RunTable<'_>) -> Result<Merged, StoreError> {
        let mut cursors = tables.iter().map(Cursor::new).collect::<Result<Vec<_>, _>>()?;
        let heads = cursors.iter().enumerate().filter_map(|(run, cursor)| Some(Reverse((cursor.next_id()?, run))));
        let mut heads: BinaryHeap<Head> = heads.collect();
        let mut into = into.upper_bound_mut(NO_BOUND)?;
        let (mut rows, mut bytes) = (0, 0);
        let mut arrivals: Vec<StoredRow<'_>> = Vec::new();
        let mut merged = Merged { outcome: Applied::default(), last: None, is_complete: false };
        while rows < runs.batch_rows.max(1) && bytes < runs.batch_bytes.max(1) {
            let Some(Reverse((id, _))) = heads.peek().copied() else { break };
            arrivals.clear();
            // Rows of one id are processed in the order of their runs, which is the order of arrival.
            while let Some(mut head) = heads.peek_mut()
                && head.0.0 == id
            {
                let cursor = &mut cursors[head.0.1];
                arrivals.extend(cursor.advance()?);
                match cursor.next_id() {
                    Some(next) => head.0.0 = next,
                    None => _ = PeekMut::pop(head),
                }
            }
            let key = EntityId(id.to_be_bytes());
            if let Some(winner) = self.winner(runs.rule, &key, &arrivals, &mut merged.outcome)? {
                into.insert_before(&key.0, arrivals[winner].value())?;
            }
            rows += arrivals.len() as u64;
            bytes += arrivals.iter().map(|checksummed| checksummed.value().len() as u64).sum::<u64>();
            merged.last = Some(id);
        }
        into.close()?;
        merged.is_complete = heads.is_empty();
        Ok(merged)
    }

    /// Returns the index of the arrival of an entity that wins; `None` if the last change is a removal. The result and
    /// the counts are the same as if the arrivals were merged into a table one by one.
    fn winner(
        &self,
        rule: Rule,
        id: &EntityId,
        arrivals: &[StoredRow<'_>],
        outcome: &mut Applied,
    ) -> Result<Option<usize>, StoreError> {
        let mut stays: Option<(usize, &[u8])> = None;
        for (index, arrival) in arrivals.iter().enumerate() {
            let checksummed = arrival.value();
            let Some((_, rival)) = stays else {
                if !checksummed.is_empty() {
                    outcome.inserted += 1;
                    stays = Some((index, checksummed));
                }
                continue;
            };
            if checksummed.is_empty() {
                outcome.removed += 1;
                stays = None;
            } else if rival == checksummed {
                outcome.unchanged += 1;
            } else if rule == Rule::Newest && self.rank(id, rival)?.compare(&self.rank(id, checksummed)?).is_gt() {
                outcome.stale += 1;
            } else {
                outcome.updated += 1;
                stays = Some((index, checksummed));
            }
        }
        Ok(stays.map(|(index, _)| index))
    }

    /// Returns the rank of a row. A damaged row is an error: if it were ignored, an older row might be served.
    fn rank(&self, id: &EntityId, checksummed: &[u8]) -> Result<RowRank, StoreError> {
        let rank = verified_row(id, checksummed).and_then(|row| RowRank::read(row).ok());
        rank.ok_or_else(|| {
            StoreError::Damaged(format!("view '{}': the row of entity id {id} does not match its checksum", self.name))
        })
    }

    /// Returns the number of rows of the only remaining run.
    fn rows(&self) -> Result<u64, StoreError> {
        self.store.write(|txn| {
            let record = self.record(txn)?;
            let Some(&run) = record.runs.numbers.first() else { return Ok(Written::Nothing(0)) };
            let rows = txn.open_table(RowTable::new(&record.run_name(run)))?.len()?;
            Ok(Written::Nothing(rows))
        })
    }
}

// === impl Cursor ===

impl<'t> Cursor<'t> {
    fn new(table: &'t RunTable<'_>) -> Result<Self, StoreError> {
        let mut cursor = Self { rows: table.iter()?, next: None };
        cursor.advance()?;
        Ok(cursor)
    }

    /// Returns the id of the next row.
    fn next_id(&self) -> Option<u128> {
        self.next.as_ref().map(|(id, _)| *id)
    }

    /// Returns the next row and advances.
    fn advance(&mut self) -> Result<Option<StoredRow<'t>>, StoreError> {
        let next = self.rows.next().transpose()?;
        // Comparing two numbers is faster than comparing their bytes, and the order is the same.
        let next = next.map(|(id, checksummed)| (u128::from_be_bytes(*id.value()), checksummed));
        Ok(std::mem::replace(&mut self.next, next).map(|(_, checksummed)| checksummed))
    }
}
