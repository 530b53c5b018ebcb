//! Tests of loads that build a generation from sorted runs, which are merged at the end.

use std::collections::BTreeMap;

use larder_model::{codec::KeyVersion, model::EntityId};
use proptest::{collection::vec, prelude::*};
use redb::{ReadableTable, WriteTransaction};

use super::model::{Change, Home, batch, change, declare, id, load, plain, tables, walk};
use crate::{
    Applied, KeySignature, Load, LoadMode, OnlineStore, RowBatch, RowTimes, Rule, StoreError, ViewId,
    record::{RowTable, VIEWS},
    tables::read_record,
    transaction::Written,
};

/// A row, or the removal of an entity's row.
#[derive(Clone, Copy, Debug)]
enum Arrival {
    Row(Change),
    Removal(u8),
}

/// Generates arrivals with few entities, times and values, so that all kinds of ties happen.
fn any_arrival() -> impl Strategy<Value = Arrival> {
    let row = (0..40_u8, 0..3_i64, proptest::option::of(0..2_i64), 0..2_i64);
    (row, 0..4_u8).prop_map(|((id, event, created, value), kind)| match kind {
        0 => Arrival::Removal(id),
        _ => Arrival::Row(Change { id, event, created, value }),
    })
}

fn batch_of(rule: Rule, arrivals: &[Arrival]) -> RowBatch {
    let mut batch = RowBatch::new(rule, RowTimes::default());
    for arrival in arrivals {
        match arrival {
            Arrival::Row(change) => batch.push(id(change.id), &change.row()),
            // [`Rule::Newest`] does not support removals.
            Arrival::Removal(byte) if rule == Rule::Latest => batch.remove(id(*byte)),
            Arrival::Removal(_) => {}
        }
    }
    batch
}

fn any_batches() -> impl Strategy<Value = Vec<RowBatch>> {
    (vec(vec(any_arrival(), 0..60), 0..7), any::<bool>()).prop_map(|(batches, is_latest)| {
        let rule = if is_latest { Rule::Latest } else { Rule::Newest };
        batches.iter().map(|arrivals| batch_of(rule, arrivals)).collect()
    })
}

/// Returns the rows and the counts after upserting these batches, one after another.
fn upserted(store: &OnlineStore, view: ViewId, batches: &[RowBatch]) -> (BTreeMap<EntityId, Vec<u8>>, Applied) {
    let mut load = store.begin_load(view, LoadMode::Upsert).unwrap();
    batches.iter().for_each(|batch| _ = load.apply(batch, None).unwrap());
    let applied = load.finish(Some("end")).unwrap();
    (walk(store, view), applied)
}

/// Stops the merge before its transaction number `transactions`. Returns the number of rows if the merge was complete
/// before that.
fn merge_some_runs(load: &mut Load<'_>, transactions: u64) -> Option<u64> {
    let mut left = transactions;
    load.merge_runs(&mut || {
        left = left.saturating_sub(1);
        left > 0
    })
    .unwrap()
}

/// Returns the names of the tables of rows in a closed store's file, including rows that callers wrote.
fn row_tables(home: &Home) -> Vec<String> {
    tables(home).into_iter().filter(|table| table.contains('/')).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn merged_runs_equal_sequential_batches(
        batches in any_batches(),
        mode in prop_oneof![Just(LoadMode::Replace), Just(LoadMode::First)],
    ) {
        let home = Home::new();
        let store = home.open();
        let [merged, reference] = declare(&store, ["merged", "reference"]);
        let (expected, outcome) = upserted(&store, reference, &batches);

        let mut load = store.begin_load(merged, mode).unwrap();
        batches.iter().for_each(|batch| _ = load.apply(batch, Some("midway")).unwrap());
        prop_assert_eq!(load.merge_runs(&mut || true).unwrap(), Some(expected.len() as u64));
        prop_assert_eq!(load.total(), outcome, "the total before the end");
        prop_assert!(walk(&store, merged).is_empty(), "nothing is served before the end");
        prop_assert_eq!(load.finish(Some("end")).unwrap(), outcome);

        prop_assert_eq!(walk(&store, merged), expected);
        let [status, of_references] = [merged, reference].map(|view| store.status(view).unwrap());
        prop_assert_eq!(status, of_references);
        drop(store);
        prop_assert_eq!(row_tables(&home).iter().filter(|table| table.starts_with("run")).count(), 0);
    }

    #[test]
    fn interrupted_load_resumes_to_same_rows(
        batches in any_batches(),
        cuts in vec((0..7_usize, 0..6_u64), 1..4),
    ) {
        let home = Home::new();
        let mut store = home.open();
        let [view, reference] = declare(&store, ["view", "reference"]);
        let (expected, _) = upserted(&store, reference, &batches);
        // Before each interruption, some more batches are applied, and a part of the merge is done.
        let mut done = 0;
        let mut load = store.begin_load(view, LoadMode::Replace).unwrap();
        for (more, transactions) in cuts {
            for batch in batches.iter().skip(done).take(more) {
                load.apply(batch, Some("midway")).unwrap();
                done += 1;
            }
            merge_some_runs(&mut load, transactions);
            drop(load);
            prop_assert!(walk(&store, view).is_empty(), "none of it is served");
            drop(store);
            store = home.open();
            load = match store.interrupted(view) {
                Some(interrupted) => {
                    prop_assert_eq!((&*interrupted.position, interrupted.is_first), ("midway", false));
                    store.resume_load(view).unwrap()
                }
                None => {
                    prop_assert_eq!(done, 0, "nothing to resume");
                    store.begin_load(view, LoadMode::Replace).unwrap()
                }
            };
        }
        batches.iter().skip(done).for_each(|batch| _ = load.apply(batch, Some("midway")).unwrap());
        prop_assert_eq!(load.merge_runs(&mut || true).unwrap(), Some(expected.len() as u64));
        let applied = load.finish(Some("end")).unwrap();
        prop_assert!(applied.inserted >= expected.len() as u64, "{:?} of {}", applied, expected.len());
        prop_assert_eq!(walk(&store, view), expected);
        prop_assert_eq!(store.interrupted(view), None);
        let [status, of_references] = [view, reference].map(|view| store.status(view).unwrap());
        prop_assert_eq!(status, of_references);
        drop(store);
        prop_assert_eq!(row_tables(&home).iter().filter(|table| table.starts_with("run")).count(), 0);
    }
}

/// Loads three runs of 30 rows each. They have rows of 50 entities: 20 entities are in two runs, and 10 are in all
/// three.
fn three_runs(store: &OnlineStore, view: ViewId, mode: LoadMode) -> Load<'_> {
    let mut load = store.begin_load(view, mode).unwrap();
    for (first, event) in [(0, 1), (10, 2), (20, 0)] {
        load.apply(&batch(&rows(first, event)), Some("midway")).unwrap();
    }
    load
}

fn rows(first: u8, event: i64) -> Vec<Change> {
    (first..first + 30).map(|id| change(id, event, i64::from(id))).collect()
}

#[test]
fn counts_of_many_runs_are_exact() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    let mut load = three_runs(&store, view, LoadMode::Replace);
    assert_eq!(load.merge_runs(&mut || true).unwrap(), Some(50));
    let expected = Applied { inserted: 50, updated: 20, stale: 20, ..Applied::default() };
    assert_eq!(load.total(), expected);
    assert_eq!(load.merge_runs(&mut || true).unwrap(), Some(50), "a second merge changes nothing");
    assert_eq!(load.finish(None).unwrap(), expected);
    assert_eq!(store.status(view).unwrap().rows, 50);
}

#[test]
fn other_writes_succeed_during_merge() {
    let home = Home::new();
    let store = home.open();
    let [view, other] = declare(&store, ["stats", "other"]);
    let mut load = three_runs(&store, view, LoadMode::Replace);
    let key = KeySignature::of(&plain("other"), KeyVersion::V3);
    let mut calls = 0;
    let merged = load.merge_runs(&mut || {
        calls += 1;
        store.put(other, &key, &batch(&[change(1, calls, calls)]), false).unwrap();
        true
    });
    assert_eq!(merged.unwrap(), Some(50));
    // There are 90 rows, and each transaction processes 30 of them, the size of the largest batch.
    assert_eq!(calls, 3);
    assert_eq!(walk(&store, other)[&id(1)], change(1, 3, 3).row());
}

#[test]
fn merged_rows_are_not_stored_twice() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    let mut load = three_runs(&store, view, LoadMode::Replace);
    assert_eq!(merge_some_runs(&mut load, 3), None);
    let stored: usize = store
        .write(|txn| {
            let runs = txn.list_tables()?.filter(|table| redb::TableHandle::name(table).starts_with("run/"));
            let names: Vec<String> = runs.map(|table| redb::TableHandle::name(&table).to_owned()).collect();
            let rows = names.iter().map(|name| Ok(txn.open_table(RowTable::new(name))?.iter()?.count()));
            Ok(Written::Nothing(rows.sum::<Result<usize, StoreError>>()?))
        })
        .unwrap();
    // Each of two transactions processed 30 rows or slightly more, and kept only the winners.
    assert!((50..75).contains(&stored), "{stored} rows of 90");
}

#[test]
fn next_load_deletes_interrupted_one() {
    for transactions in 0..6 {
        for next in [LoadMode::Upsert, LoadMode::Replace, LoadMode::First] {
            let home = Home::new();
            let store = home.open();
            let [view] = declare(&store, ["stats"]);
            let mut interrupted = three_runs(&store, view, LoadMode::Replace);
            merge_some_runs(&mut interrupted, transactions);
            drop(interrupted);
            drop(store);
            let store = home.open();
            load(&store, view, next, &rows(7, 7));
            assert_eq!(walk(&store, view).len(), 30);
            drop(store);
            assert_eq!(row_tables(&home).len(), 1, "{:?}", row_tables(&home));
        }
    }
}

#[test]
fn key_change_deletes_interrupted_load() {
    for transactions in 0..4 {
        let home = Home::new();
        let store = home.open();
        let [view, other] = declare(&store, ["stats", "other"]);
        let mut interrupted = three_runs(&store, view, LoadMode::Replace);
        merge_some_runs(&mut interrupted, transactions);
        drop(interrupted);
        let _others = three_runs(&store, other, LoadMode::Replace);
        store.declare(&[plain("stats")], KeyVersion::V2).unwrap();
        assert_eq!(store.interrupted(view), None);
        drop(store);
        assert_eq!(row_tables(&home), ["run/1/0", "run/1/1", "run/1/2"], "the other view's runs stay");
    }
}

#[test]
fn interrupted_first_load_is_reported() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    drop(three_runs(&store, view, LoadMode::First));
    drop(store);
    let store = home.open();
    assert!(store.interrupted(view).unwrap().is_first);
    let mut load = store.resume_load(view).unwrap();
    load.apply(&batch(&rows(40, 5)), None).unwrap();
    assert!(store.interrupted(view).unwrap().is_first, "also the second time");
    load.finish(Some("end")).unwrap();
    assert_eq!(walk(&store, view).len(), 70);
}

#[test]
fn runs_with_old_definition_never_resume() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    drop(three_runs(&store, view, LoadMode::First));
    store.declare(&[super::model::view("stats", &["value:Float64"])], KeyVersion::V3).unwrap();
    assert_eq!(store.interrupted(view), None);
    assert!(matches!(store.resume_load(view), Err(StoreError::Superseded { .. })));
}

#[test]
fn superseded_merge_is_rejected() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    let mut first = three_runs(&store, view, LoadMode::Replace);
    merge_some_runs(&mut first, 2);
    load(&store, view, LoadMode::Upsert, &rows(3, 3));
    assert!(matches!(first.merge_runs(&mut || true), Err(StoreError::Superseded { .. })));
    assert!(matches!(first.finish(None), Err(StoreError::Superseded { .. })));
    assert_eq!(walk(&store, view).len(), 30);
}

/// Modifies the store directly while a load is open.
fn tamper(store: &OnlineStore, change: impl FnOnce(&WriteTransaction) -> Result<(), StoreError>) {
    let commit = |txn: &WriteTransaction| {
        change(txn)?;
        Ok(Written::Commit { value: (), changed: Vec::new() })
    };
    store.write(commit).unwrap();
}

#[test]
fn damaged_run_row_blocks_older_one() {
    for rule in [Rule::Newest, Rule::Latest] {
        let home = Home::with_hot(0);
        let store = home.open();
        let [view] = declare(&store, ["stats"]);
        let mut load = store.begin_load(view, LoadMode::Replace).unwrap();
        for event in [1, 2] {
            load.apply(&batch_of(rule, &[Arrival::Row(change(1, event, event))]), None).unwrap();
        }
        tamper(&store, |txn| {
            let mut run = txn.open_table(RowTable::new("run/0/1"))?;
            let mut checksummed = run.get(&id(1).0)?.unwrap().value().to_vec();
            checksummed[9] ^= 1;
            run.insert(&id(1).0, &checksummed[..])?;
            Ok(())
        });
        match load.finish(None) {
            Err(error) => assert!(matches!(error, StoreError::Damaged(_)), "{error}"),
            // With [`Rule::Latest`], the merge does not read ranks, but a reader gets an error.
            Ok(_) => assert!(matches!(store.reader().get(view, &id(1)), Err(StoreError::Damaged(_)))),
        }
        assert!(store.failure().is_some());
    }
}

#[test]
fn load_without_runs_starts_over() {
    for next in [LoadMode::Upsert, LoadMode::Replace] {
        let home = Home::new();
        let store = home.open();
        let [view] = declare(&store, ["stats"]);
        load(&store, view, LoadMode::Upsert, &rows(0, 1));
        tamper(&store, |txn| {
            let record = read_record(txn, "stats")?;
            let encoded = record.encode();
            // Records of versions without runs have no checksum.
            let json = encoded.split(|byte| *byte == b'\n').next().unwrap();
            let mut json: serde_json::Value = serde_json::from_slice(json).unwrap();
            json["building"] = 1.into();
            json["building_position"] = "midway".into();
            json.as_object_mut().unwrap().remove("building_runs");
            txn.open_table(VIEWS)?.insert("stats", json.to_string().as_bytes())?;
            txn.open_table(RowTable::new("rows/0/1"))?.insert(&id(99).0, &b"half a generation"[..])?;
            Ok(())
        });
        drop(store);
        let store = home.open();
        assert_eq!((declare(&store, ["stats"]), store.interrupted(view)), ([view], None));
        assert!(matches!(store.resume_load(view), Err(StoreError::Superseded { .. })));
        load(&store, view, next, &rows(10, 2));
        assert_eq!(walk(&store, view).len(), if next == LoadMode::Upsert { 40 } else { 30 });
        drop(store);
        assert_eq!(row_tables(&home).len(), 1, "{:?}", row_tables(&home));
    }
}
