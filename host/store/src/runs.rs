//! Loads of sets that are not served yet: each batch becomes a run, sorted by id, and the runs are merged once, at the end.
//!
//! Ids are hashes. A batch that is put into one big tree touches a page of it for nearly every row, and each is written
//! anew: ten million rows in forty batches would write thirty gigabytes, and leave pages half full. A run is written from
//! its beginning to its end, with full pages, and so is what the runs are merged into. What was merged leaves the runs in
//! the same transaction, and the next ones write over it: on the disk everything lies once, and a little more.
//!
//! ```text
//! run/<view>/<n>   one run: entity id → row with its seal, or nothing for a removal
//! ```
//!
//! The runs and how far their source was read are committed together, so a load that was cut off goes on. A merge that was
//! cut off has moved a part of all rows into one more run, which is the oldest from then on.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
    ops::Bound,
};

use larder_model::{
    codec::RowRank,
    model::{EntityId, Micros},
};
use redb::{AccessGuard, Range, ReadableTable, ReadableTableMetadata, Table, TableHandle, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::{
    Applied, Load, RowBatch, StoreError,
    online::Written,
    record::{Postponed, RowKey, RowTable, ViewRecord, unseal},
    write::{Arrival, LoadMode, Rule, put_record},
};

/// What there is of a generation that is being built.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Runs {
    /// The numbers of its runs, in the order in which they arrived.
    numbers: Vec<u32>,
    /// The run that they are being merged into.
    merging: Option<u32>,
    /// Which of two rows stays.
    rule: Rule,
    /// Whether this is the first load of a view that takes new rows over old ones.
    pub(super) is_first: bool,
    /// How far the source was read; its own words.
    pub(super) position: Option<String>,
    /// The newest event time of any row.
    pub(super) newest_event: Option<Micros>,
    /// Event times of rows that were skipped because they are in the future.
    #[serde(default)]
    pub(super) postponed: Option<Postponed>,
    /// Rows of the largest batch: a transaction of the merge takes as much, for others wait for it, too.
    batch_rows: u64,
    /// Bytes of the largest batch.
    batch_bytes: u64,
}

/// Where an id stands at the head of a run: id, as a number, and place of the run. The least comes first.
type Head = Reverse<(u128, usize)>;

/// A run, read in the order of its ids.
struct Cursor<'t> {
    rows: Range<'t, RowKey, &'static [u8]>,
    next: Option<(u128, Sealed<'t>)>,
}

/// A row with its seal, or nothing for a removal.
type Sealed<'t> = AccessGuard<'t, &'static [u8]>;

/// What one transaction merged.
struct Merged {
    outcome: Applied,
    /// The last id that was looked at, if there was any.
    last: Option<u128>,
    is_all: bool,
}

type RunTable<'t> = Table<'t, RowKey, &'static [u8]>;

const NO_BOUND: Bound<&[u8; size_of::<EntityId>()]> = Bound::Unbounded;

// === impl Runs ===

impl Runs {
    /// A number that no run has.
    fn next(&self) -> u32 {
        self.numbers.iter().chain(&self.merging).max().map_or(0, |last| last + 1)
    }
}

fn run_name(record: &ViewRecord, number: u32) -> String {
    format!("{}{number}", prefix(record))
}

fn prefix(record: &ViewRecord) -> String {
    format!("run/{}/", record.id)
}

/// Deletes what there is of a generation that is being built, and forgets it.
pub(super) fn delete_building(txn: &WriteTransaction, record: &mut ViewRecord) -> Result<(), StoreError> {
    let prefix = prefix(record);
    for table in txn.list_tables()?.filter(|table| table.name().starts_with(&prefix)) {
        txn.delete_table(table)?;
    }
    if let Some(building) = record.building.take() {
        // A version of Larder that knew no runs wrote into the generation's own table.
        txn.delete_table(RowTable::new(&record.table_name(building)))?;
    }
    record.runs = Runs::default();
    Ok(())
}

/// Gives the one run that is left, if there is one, the name of its generation.
pub(super) fn take_run(txn: &WriteTransaction, record: &mut ViewRecord, generation: u32) -> Result<(), StoreError> {
    if let Some(&run) = record.runs.numbers.first() {
        let (run, rows) = (run_name(record, run), record.table_name(generation));
        txn.rename_table(RowTable::new(&run), RowTable::new(&rows))?;
    }
    record.runs = Runs::default();
    Ok(())
}

// === impl Load ===

impl Load<'_> {
    /// Writes a batch as a run of its own.
    pub(super) fn add_run(&mut self, batch: &RowBatch, position: Option<&str>) -> Result<Applied, StoreError> {
        let applied = self.store.write(|txn| {
            let mut record = self.record(txn)?;
            let mut newest = record.runs.newest_event;
            let mut applied = Applied::default();
            let number = record.runs.next();
            let is_oldest = record.runs.numbers.is_empty() && record.runs.merging.is_none();
            let mut table = txn.open_table(RowTable::new(&run_name(&record, number)))?;
            let mut run = table.upper_bound_mut(NO_BOUND)?;
            let row_error = |source| self.row_error(source);
            let current = self.current_schema(&record)?;
            batch.each_winner(&mut applied, row_error, |id, arrival| match arrival {
                Arrival::Row(_, rank) if rank.header.fingerprint != current => Err(self.superseded()),
                Arrival::Row(sealed, rank) => {
                    newest = newest.max(Some(rank.header.event_time));
                    run.insert_before(&id.0, sealed)?;
                    Ok(Applied { inserted: 1, ..Applied::default() })
                }
                Arrival::Removal => {
                    // Before the oldest run there is nothing that could be removed.
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
        self.is_gathered = false;
        self.total.add(applied);
        Ok(applied)
    }

    /// Merges the batches so far, and tells how many rows there are then; nothing if `goes_on`, which is asked before each
    /// transaction, said no. From here on [`Load::total`] tells what became of all of them: before, it counts rows of one
    /// entity in several batches as if they were of several entities. Upserts have nothing to merge.
    ///
    /// # Errors
    /// [`StoreError::Superseded`], [`StoreError::Damaged`] for a row that cannot be compared, and those of a failed
    /// transaction. What was written is still there then.
    pub fn gather(&mut self, goes_on: &mut dyn FnMut() -> bool) -> Result<Option<u64>, StoreError> {
        if self.mode == LoadMode::Upsert {
            return self.store.write(|txn| Ok(Written::Nothing(Some(self.record(txn)?.rows))));
        }
        let mut outcome = Applied::default();
        let mut is_all = !self.begin_merge()?;
        while !is_all {
            if !goes_on() {
                return Ok(None);
            }
            let merged = self.merge_some()?;
            outcome.add(merged.outcome);
            is_all = merged.is_all;
        }
        let rows = self.rows()?;
        if !self.is_gathered {
            // One run is what it is: all of its rows were inserted, also those of a load that was cut off.
            self.total.inserted = if outcome == Applied::default() { rows } else { 0 };
            self.total.add(outcome);
            self.is_gathered = true;
        }
        Ok(Some(rows))
    }

    /// Notes that the runs are to be merged, and into which one. False when there is nothing to merge.
    fn begin_merge(&self) -> Result<bool, StoreError> {
        self.store.write(|txn| {
            let mut record = self.record(txn)?;
            let runs = &mut record.runs;
            // What a merge that was cut off has come to is older than all that is left.
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

    /// Merges on, for one transaction.
    fn merge_some(&self) -> Result<Merged, StoreError> {
        self.store.write(|txn| {
            let mut record = self.record(txn)?;
            let Some(merging) = record.runs.merging else {
                return Err(self.superseded());
            };
            let names: Vec<String> = record.runs.numbers.iter().map(|&number| run_name(&record, number)).collect();
            let tables = names.iter().map(|name| txn.open_table(RowTable::new(name)));
            let mut tables = tables.collect::<Result<Vec<_>, _>>()?;
            let mut into = txn.open_table(RowTable::new(&run_name(&record, merging)))?;
            let merged = self.merge(&record.runs, &tables, &mut into)?;
            drop(into);
            if merged.is_all {
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

    /// Appends what stays of the runs' first rows to a table; as many of them as a transaction takes.
    fn merge(&self, runs: &Runs, tables: &[RunTable<'_>], into: &mut RunTable<'_>) -> Result<Merged, StoreError> {
        let mut cursors = tables.iter().map(Cursor::new).collect::<Result<Vec<_>, _>>()?;
        let heads = cursors.iter().enumerate().filter_map(|(run, cursor)| Some(Reverse((cursor.next_id()?, run))));
        let mut heads: BinaryHeap<Head> = heads.collect();
        let mut into = into.upper_bound_mut(NO_BOUND)?;
        let (mut rows, mut bytes) = (0, 0);
        let mut arrivals: Vec<Sealed<'_>> = Vec::new();
        let mut merged = Merged { outcome: Applied::default(), last: None, is_all: false };
        while rows < runs.batch_rows.max(1) && bytes < runs.batch_bytes.max(1) {
            let Some(Reverse((id, _))) = heads.peek().copied() else { break };
            arrivals.clear();
            // Those of one id come in the order of their runs, which is that of their arrival.
            while let Some(mut head) = heads.peek_mut()
                && head.0.0 == id
            {
                let cursor = &mut cursors[head.0.1];
                arrivals.extend(cursor.take()?);
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
            bytes += arrivals.iter().map(|sealed| sealed.value().len() as u64).sum::<u64>();
            merged.last = Some(id);
        }
        into.close()?;
        merged.is_all = heads.is_empty();
        Ok(merged)
    }

    /// Which of one entity's arrivals stays, if any does, as if each had been merged into a table before the next.
    fn winner(
        &self,
        rule: Rule,
        id: &EntityId,
        arrivals: &[Sealed<'_>],
        outcome: &mut Applied,
    ) -> Result<Option<usize>, StoreError> {
        let mut stays: Option<(usize, &[u8])> = None;
        for (place, arrival) in arrivals.iter().enumerate() {
            let sealed = arrival.value();
            let Some((_, rival)) = stays else {
                if !sealed.is_empty() {
                    outcome.inserted += 1;
                    stays = Some((place, sealed));
                }
                continue;
            };
            if sealed.is_empty() {
                outcome.removed += 1;
                stays = None;
            } else if rival == sealed {
                outcome.unchanged += 1;
            } else if rule == Rule::Newest && self.rank(id, rival)?.compare(&self.rank(id, sealed)?).is_gt() {
                outcome.stale += 1;
            } else {
                outcome.updated += 1;
                stays = Some((place, sealed));
            }
        }
        Ok(stays.map(|(place, _)| place))
    }

    /// A row that was damaged since it was written has no rank: to continue without it could serve an older row.
    fn rank(&self, id: &EntityId, sealed: &[u8]) -> Result<RowRank, StoreError> {
        let rank = unseal(id, sealed).and_then(|row| RowRank::read(row).ok());
        rank.ok_or_else(|| StoreError::Damaged(format!("view '{}': a row of {id} is not as it was written", self.name)))
    }

    /// Rows of the one run that is left.
    fn rows(&self) -> Result<u64, StoreError> {
        self.store.write(|txn| {
            let record = self.record(txn)?;
            let Some(&run) = record.runs.numbers.first() else { return Ok(Written::Nothing(0)) };
            let rows = txn.open_table(RowTable::new(&run_name(&record, run)))?.len()?;
            Ok(Written::Nothing(rows))
        })
    }
}

// === impl Cursor ===

impl<'t> Cursor<'t> {
    fn new(table: &'t RunTable<'_>) -> Result<Self, StoreError> {
        let mut cursor = Self { rows: table.iter()?, next: None };
        cursor.take()?;
        Ok(cursor)
    }

    /// Of the next row.
    fn next_id(&self) -> Option<u128> {
        self.next.as_ref().map(|(id, _)| *id)
    }

    /// The next row, and goes on behind it.
    fn take(&mut self) -> Result<Option<Sealed<'t>>, StoreError> {
        let next = self.rows.next().transpose()?;
        // As a number an id is compared at once, and ordered as its bytes are.
        let next = next.map(|(id, sealed)| (u128::from_be_bytes(*id.value()), sealed));
        Ok(std::mem::replace(&mut self.next, next).map(|(_, sealed)| sealed))
    }
}
