//! Loads of sets that are not served yet: each batch becomes a run, sorted by id, and the runs are merged once, at the end.
//!
//! Ids are hashes. A batch that is put into one big tree touches a page of it for nearly every row, and each is written
//! anew: ten million rows in forty batches would write thirty gigabytes. A run is written from its beginning to its end,
//! with full pages, and so is what the runs are merged into. Meanwhile both are on disk.
//!
//! ```text
//! run/<view>/<generation>/<n>   batch n, sorted: entity id → row with its seal, or nothing for a removal
//! merge/<view>/<generation>     what the runs have been merged into so far
//! ```
//!
//! The runs and how far their source was read are committed together, so a load that was cut off goes on. A merge that
//! was cut off begins anew.

use std::{cmp::Reverse, collections::BinaryHeap, ops::Bound};

use larder_model::{codec::RowHeader, model::EntityId};
use redb::{AccessGuard, Range, ReadableTable, Table, TableError, WriteTransaction};

use super::{
    Applied, Load, RowBatch, StoreError,
    online::Written,
    record::{RowKey, RowTable, ViewRecord, unseal},
    write::{Arrival, LoadMode, Rule, put_record},
};

/// Bounds of one transaction of a merge: others wait for it. Tests are to need several.
const MERGED_ROWS: u64 = if cfg!(test) { 16 } else { 1 << 18 };
const MERGED_BYTES: usize = 64 << 20;

/// A run, read in the order of its ids.
struct Cursor<'t> {
    rows: Range<'t, RowKey, &'static [u8]>,
    next: Option<Entry<'t>>,
}

/// A row with its seal, or nothing for a removal, and whose it is.
type Entry<'t> = (EntityId, AccessGuard<'t, &'static [u8]>);

/// How far a merge is.
#[derive(Debug, Default)]
struct Merged {
    /// The last id that was looked at.
    last: Option<EntityId>,
    outcome: Applied,
}

// === impl ViewRecord ===

impl ViewRecord {
    /// All tables of a generation that is being built.
    pub(super) fn building_tables(&self) -> Vec<String> {
        let Some(building) = self.building else { return Vec::new() };
        let runs = (0..self.runs).map(|run| self.run_name(building, run));
        runs.chain([self.merge_name(building), self.table_name(building)]).collect()
    }

    fn run_name(&self, generation: u32, run: u32) -> String {
        format!("run/{}/{generation}/{run}", self.id)
    }

    fn merge_name(&self, generation: u32) -> String {
        format!("merge/{}/{generation}", self.id)
    }
}

/// Deletes what there is of a generation that is being built.
pub(super) fn delete_building(txn: &WriteTransaction, record: &ViewRecord) -> Result<(), StoreError> {
    for table in record.building_tables() {
        txn.delete_table(RowTable::new(&table))?;
    }
    Ok(())
}

/// Gives the one run that is left, if there is one, the name of its generation.
pub(super) fn take_run(txn: &WriteTransaction, record: &ViewRecord, generation: u32) -> Result<(), StoreError> {
    if record.runs > 0 {
        let (run, rows) = (record.run_name(generation, 0), record.table_name(generation));
        txn.rename_table(RowTable::new(&run), RowTable::new(&rows))?;
    }
    Ok(())
}

/// Makes a run of what a version of Larder that knew none left of a generation that it was building.
pub(super) fn adopt(txn: &WriteTransaction, record: &mut ViewRecord, generation: u32) -> Result<(), StoreError> {
    if record.runs > 0 {
        return Ok(());
    }
    let (rows, run) = (record.table_name(generation), record.run_name(generation, 0));
    match txn.rename_table(RowTable::new(&rows), RowTable::new(&run)) {
        Ok(()) => record.runs = 1,
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

// === impl Load ===

impl Load<'_> {
    /// Writes a batch as a run of its own.
    pub(super) fn add_run(&mut self, batch: &RowBatch, position: Option<&str>) -> Result<Applied, StoreError> {
        self.rule = batch.rule();
        let (applied, newest) = self.store.write(|txn| {
            let mut record = self.record(txn)?;
            let (mut newest, mut applied) = (self.newest_event, Applied::default());
            let is_first = record.runs == 0;
            let mut table = txn.open_table(RowTable::new(&record.run_name(self.generation, record.runs)))?;
            let mut run = table.upper_bound_mut(Bound::<&[u8; size_of::<EntityId>()]>::Unbounded)?;
            batch.each_winner(
                &mut applied,
                |source| self.row_error(source),
                |id, arrival| {
                    match arrival {
                        Arrival::Row(sealed, header) => {
                            newest = newest.max(Some(header.event_time));
                            run.insert_before(&id.0, sealed)?;
                            return Ok(Applied { inserted: 1, ..Applied::default() });
                        }
                        // In the first run there is nothing to be removed.
                        Arrival::Removal if is_first => {}
                        Arrival::Removal => run.insert_before(&id.0, &[][..])?,
                    }
                    Ok(Applied::default())
                },
            )?;
            run.close()?;
            drop(table);
            record.runs += 1;
            record.building_position = position.map(str::to_owned).or(record.building_position);
            put_record(txn, &self.name, &record)?;
            Ok(Written::Commit { value: (applied, newest), changed: Vec::new() })
        })?;
        self.newest_event = newest;
        self.total.add(applied);
        Ok(applied)
    }

    /// Merges what was written so far, so that [`Load::total`] tells what there will be once the load has ended: until
    /// then it counts rows of one entity in different batches as if they were of different ones. Upserts have nothing to
    /// merge.
    ///
    /// # Errors
    /// [`StoreError::Superseded`], and those of a failed transaction. What was written is still there then.
    pub fn gather(&mut self) -> Result<(), StoreError> {
        if self.mode == LoadMode::Upsert || self.begin_merge()? < 2 {
            return Ok(());
        }
        let mut merged = Merged::default();
        while self.merge_some(&mut merged)? {}
        self.store.write(|txn| {
            let mut record = self.record(txn)?;
            for run in 0..record.runs {
                txn.delete_table(RowTable::new(&record.run_name(self.generation, run)))?;
            }
            let (merge, run) = (record.merge_name(self.generation), record.run_name(self.generation, 0));
            txn.rename_table(RowTable::new(&merge), RowTable::new(&run))?;
            record.runs = 1;
            put_record(txn, &self.name, &record)?;
            Ok(Written::Commit { value: (), changed: Vec::new() })
        })?;
        self.total.inserted = 0;
        self.total.add(merged.outcome);
        Ok(())
    }

    /// Takes away what a merge left that was cut off, and tells how many runs there are.
    fn begin_merge(&self) -> Result<u32, StoreError> {
        self.store.write(|txn| {
            let record = self.record(txn)?;
            let is_left = txn.delete_table(RowTable::new(&record.merge_name(self.generation)))?;
            let runs = record.runs;
            Ok(if is_left { Written::Commit { value: runs, changed: Vec::new() } } else { Written::Nothing(runs) })
        })
    }

    /// Merges on, for one transaction. False once all is merged.
    fn merge_some(&self, merged: &mut Merged) -> Result<bool, StoreError> {
        let (last, outcome, goes_on) = self.store.write(|txn| {
            let record = self.record(txn)?;
            let names: Vec<String> = (0..record.runs).map(|run| record.run_name(self.generation, run)).collect();
            let tables = names.iter().map(|name| txn.open_table(RowTable::new(name)));
            let tables = tables.collect::<Result<Vec<_>, _>>()?;
            let mut runs =
                tables.iter().map(|table| Cursor::behind(table, merged.last)).collect::<Result<Vec<_>, _>>()?;
            let mut heads: BinaryHeap<Reverse<(EntityId, usize)>> = runs
                .iter()
                .enumerate()
                .filter_map(|(run, cursor)| Some(Reverse((cursor.next.as_ref()?.0, run))))
                .collect();

            let mut table = txn.open_table(RowTable::new(&record.merge_name(self.generation)))?;
            let mut into = table.upper_bound_mut(Bound::<&[u8; size_of::<EntityId>()]>::Unbounded)?;
            let (mut last, mut outcome) = (merged.last, Applied::default());
            let (mut rows, mut bytes) = (0, 0);
            let mut arrivals = Vec::new();
            while rows < MERGED_ROWS && bytes < MERGED_BYTES {
                let Some(Reverse((id, _))) = heads.peek().copied() else { break };
                // Those of one id come in the order of their runs, which is that of their arrival.
                while let Some(Reverse((next, run))) = heads.peek().copied()
                    && next == id
                {
                    heads.pop();
                    if let Some((_, sealed)) = runs[run].take()? {
                        arrivals.push(sealed);
                    }
                    heads.extend(runs[run].next.as_ref().map(|(next, _)| Reverse((*next, run))));
                }
                if let Some(winner) = self.winner(&id, &arrivals, &mut outcome) {
                    let sealed = arrivals[winner].value();
                    into.insert_before(&id.0, sealed)?;
                    bytes += sealed.len();
                }
                rows += arrivals.len() as u64;
                arrivals.clear();
                last = Some(id);
            }
            into.close()?;
            Ok(Written::Commit { value: (last, outcome, !heads.is_empty()), changed: Vec::new() })
        })?;
        merged.last = last;
        merged.outcome.add(outcome);
        Ok(goes_on)
    }

    /// Which of one entity's arrivals stays, if any does, as if they had been merged into a table one after the other.
    fn winner(
        &self,
        id: &EntityId,
        arrivals: &[AccessGuard<'_, &'static [u8]>],
        outcome: &mut Applied,
    ) -> Option<usize> {
        let mut stays: Option<usize> = None;
        for (place, arrival) in arrivals.iter().enumerate() {
            let sealed = arrival.value();
            if sealed.is_empty() {
                outcome.removed += u64::from(stays.take().is_some());
                continue;
            }
            let Some(rival) = stays.map(|place| arrivals[place].value()) else {
                outcome.inserted += 1;
                stays = Some(place);
                continue;
            };
            // One that does not read has no say.
            let precedence =
                |sealed| unseal(id, sealed).and_then(|row| RowHeader::read(row).ok()).map(|header| header.precedence());
            if rival == sealed {
                outcome.unchanged += 1;
            } else if self.rule == Rule::Newest && precedence(rival) > precedence(sealed) {
                outcome.stale += 1;
            } else {
                outcome.updated += 1;
                stays = Some(place);
            }
        }
        stays
    }
}

// === impl Cursor ===

impl<'t> Cursor<'t> {
    /// Of the rows behind an id, or of all.
    fn behind(table: &'t Table<'_, RowKey, &'static [u8]>, last: Option<EntityId>) -> Result<Self, StoreError> {
        let from = last.as_ref().map_or(Bound::Unbounded, |id| Bound::Excluded(&id.0));
        let mut cursor =
            Self { rows: table.range::<&[u8; size_of::<EntityId>()]>((from, Bound::Unbounded))?, next: None };
        cursor.take()?;
        Ok(cursor)
    }

    /// The next row, and goes on behind it.
    fn take(&mut self) -> Result<Option<Entry<'t>>, StoreError> {
        let next = self.rows.next().transpose()?.map(|(id, sealed)| (EntityId(*id.value()), sealed));
        Ok(std::mem::replace(&mut self.next, next))
    }
}
