//! Loads that write sorted runs, and merge them at the end.

use proptest::{collection::vec, prelude::*};
use redb::ReadableTableMetadata;

use super::model::{Change, Home, batch, change, declare, id, load, tables, walk};
use crate::store::{
    Applied, LoadMode, OnlineStore, RowBatch, Rule, StoreError, ViewId,
    record::{RowTable, ViewRecord},
};

/// A row, or the removal of one.
#[derive(Clone, Copy, Debug)]
enum Arrival {
    Row(Change),
    Removal(u8),
}

/// Few entities, times and values, so that all kinds of ties happen; and enough of them for several transactions.
fn any_arrival() -> impl Strategy<Value = Arrival> {
    let row = (0..40_u8, 0..3_i64, proptest::option::of(0..2_i64), 0..2_i64);
    (row, 0..4_u8).prop_map(|((id, event, created, value), kind)| match kind {
        0 => Arrival::Removal(id),
        _ => Arrival::Row(Change { id, event, created, value }),
    })
}

fn batch_of(rule: Rule, arrivals: &[Arrival]) -> RowBatch {
    let mut batch = RowBatch::new(rule);
    for arrival in arrivals {
        match arrival {
            Arrival::Row(change) => batch.push(id(change.id), &change.row()),
            // Counts under the other rule only.
            Arrival::Removal(byte) if rule == Rule::Latest => batch.remove(id(*byte)),
            Arrival::Removal(_) => {}
        }
    }
    batch
}

fn load_all(store: &OnlineStore, view: ViewId, mode: LoadMode, batches: &[RowBatch]) -> Applied {
    let mut load = store.begin_load(view, mode).unwrap();
    for batch in batches {
        load.apply(batch, None).unwrap();
    }
    load.gather().unwrap();
    let gathered = load.total();
    let applied = load.finish(Some("end")).unwrap();
    assert_eq!(gathered, applied, "what is told before the end is what there is");
    applied
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn runs_merge_to_what_the_same_batches_come_to_one_after_the_other(
        batches in vec(vec(any_arrival(), 0..60), 0..6),
        latest in any::<bool>(),
    ) {
        let rule = if latest { Rule::Latest } else { Rule::Newest };
        let batches: Vec<RowBatch> = batches.iter().map(|arrivals| batch_of(rule, arrivals)).collect();
        let home = Home::new();
        let store = home.open();
        let [merged, upserted] = declare(&store, ["merged", "upserted"]);
        let applied = load_all(&store, merged, LoadMode::Replace, &batches);
        let expected = load_all(&store, upserted, LoadMode::Upsert, &batches);
        prop_assert_eq!(walk(&store, merged), walk(&store, upserted));
        prop_assert_eq!(applied, expected);
        let status = [merged, upserted].map(|view| {
            let status = store.status(view).unwrap();
            (status.rows, status.freshness)
        });
        prop_assert_eq!(&status[0], &status[1]);
        drop(store);
        prop_assert!(tables(&home).iter().all(|table| !table.starts_with("run") && !table.starts_with("merge")));
    }
}

fn changes(first: u8, event: i64) -> Vec<Change> {
    (first..first + 30).map(|id| change(id, event, i64::from(id))).collect()
}

/// A load of three runs that was cut off: after its runs, or after they were merged.
fn cut_off(store: &OnlineStore, view: ViewId, is_gathered: bool) {
    let mut load = store.begin_load(view, LoadMode::Replace).unwrap();
    for (first, event) in [(0, 1), (10, 2), (20, 0)] {
        load.apply(&batch(&changes(first, event)), Some("midway")).unwrap();
    }
    if is_gathered {
        load.gather().unwrap();
    }
}

#[test]
fn a_load_that_was_cut_off_goes_on_with_its_runs() {
    for is_gathered in [false, true] {
        let home = Home::new();
        let store = home.open();
        let [view] = declare(&store, ["stats"]);
        cut_off(&store, view, is_gathered);
        drop(store);

        let store = home.open();
        assert_eq!(store.cut_off(view).as_deref(), Some("midway"));
        assert!(walk(&store, view).is_empty(), "none of it is served");
        let mut load = store.resume_load(view).unwrap();
        load.apply(&batch(&changes(40, 5)), Some("end")).unwrap();
        load.finish(Some("end")).unwrap();
        let [all, expected] = [view, declare(&store, ["stats", "expected"])[1]];
        let parts = [(0, 1), (10, 2), (20, 0), (40, 5)].map(|(first, event)| batch(&changes(first, event)));
        load_all(&store, expected, LoadMode::Upsert, &parts);
        assert_eq!(walk(&store, all), walk(&store, expected));
        assert_eq!(store.cut_off(view), None);
    }
}

#[test]
fn what_a_cut_off_load_left_is_gone_with_the_next_one() {
    for is_gathered in [false, true] {
        for next in [LoadMode::Upsert, LoadMode::Replace] {
            let home = Home::new();
            let store = home.open();
            let [view] = declare(&store, ["stats"]);
            cut_off(&store, view, is_gathered);
            load(&store, view, next, &changes(7, 7));
            assert_eq!(walk(&store, view).len(), 30);
            drop(store);
            assert_eq!(tables(&home).len(), 3, "meta, views and one table of rows: {:?}", tables(&home));
        }
    }
}

#[test]
fn a_half_done_merge_is_done_again() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    cut_off(&store, view, false);
    // As a kill in the middle of it leaves it.
    let name = "merge/0/1";
    let left = |store: &OnlineStore| {
        store.write(|txn| {
            txn.open_table(RowTable::new(name))?.insert(&[0xff; 16], &b"left"[..])?;
            Ok(crate::store::online::Written::Commit { value: (), changed: Vec::new() })
        })
    };
    left(&store).unwrap();
    store.resume_load(view).unwrap().finish(Some("end")).unwrap();
    assert_eq!(walk(&store, view).len(), 50);
    drop(store);
    assert!(!tables(&home).contains(&name.to_owned()));
}

#[test]
fn a_generation_that_an_older_version_was_building_becomes_a_run() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    cut_off(&store, view, true);
    // As that version kept it: under the generation's name, and without a number of runs.
    store
        .write(|txn| {
            let mut record = crate::store::write::read_record(txn, "stats")?;
            txn.rename_table(RowTable::new("run/0/1/0"), RowTable::new("rows/0/1"))?;
            record.runs = 0;
            let mut json: serde_json::Value = serde_json::from_slice(&record.encode()).unwrap();
            json.as_object_mut().unwrap().remove("runs");
            let record = ViewRecord::decode("stats", json.to_string().as_bytes())?;
            crate::store::write::put_record(txn, "stats", &record)?;
            assert_eq!(txn.open_table(RowTable::new("rows/0/1"))?.len()?, 50);
            Ok(crate::store::online::Written::Commit { value: (), changed: Vec::new() })
        })
        .unwrap();
    let mut load = store.resume_load(view).unwrap();
    load.apply(&batch(&changes(60, 9)), Some("end")).unwrap();
    load.finish(Some("end")).unwrap();
    assert_eq!(walk(&store, view).len(), 80);
}

#[test]
fn a_merge_that_another_load_took_the_place_of_is_refused() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    let mut first = store.begin_load(view, LoadMode::Replace).unwrap();
    for (start, event) in [(0, 1), (10, 2)] {
        first.apply(&batch(&changes(start, event)), None).unwrap();
    }
    load(&store, view, LoadMode::Upsert, &changes(3, 3));
    assert!(matches!(first.gather(), Err(StoreError::Superseded { .. })));
    assert_eq!(walk(&store, view).len(), 30);
}
