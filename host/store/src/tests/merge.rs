//! Tests which row wins, and that rows and position are committed together.

use proptest::{collection::vec, prelude::*};

use super::model::{Change, Home, NOW, ReferenceStore, batch, change, declare, id, load, upsert, walk};
use crate::{Applied, LoadMode, OnlineStore, RowBatch, StoreError, ViewId};

/// Generates changes with few entities, times and values, so that all kinds of ties happen.
fn any_change() -> impl Strategy<Value = Change> {
    (0..6_u8, 0..4_i64, proptest::option::of(0..3_i64), 0..3_i64).prop_map(|(id, event, created, value)| Change {
        id,
        event,
        created,
        value,
    })
}

/// The ids to look up: one more than [`any_change`] generates, for an entity that never has a row.
const IDS: std::ops::Range<u8> = 0..7;

/// Returns all rows, through one reader, and through the hot cache if it is on.
fn get_all(store: &OnlineStore, view: ViewId) -> Vec<Option<Vec<u8>>> {
    let reader = store.reader();
    IDS.map(|byte| reader.get(view, &id(byte)).unwrap().map(|row| row.to_vec())).collect()
}

fn reference_all(reference: &ReferenceStore) -> Vec<Option<Vec<u8>>> {
    IDS.map(|byte| reference.row(byte)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn batches_follow_rule_and_are_idempotent(
        batches in vec(vec(any_change(), 0..12), 1..6),
        hot in any::<bool>(),
    ) {
        let home = if hot { Home::new() } else { Home::with_hot(0) };
        let store = home.open();
        let [view] = declare(&store, ["stats"]);
        let mut reference = ReferenceStore::default();
        let mut load = upsert(&store, view);
        let mut total = Applied::default();
        for (n, changes) in batches.iter().enumerate() {
            let before = reference.clone();
            let old_reader = store.reader();
            prop_assert_eq!(get_all(&store, view), reference_all(&before));

            reference.apply(changes);
            let applied = load.apply(&batch(changes), Some(&n.to_string())).unwrap();
            prop_assert_eq!(applied.rows(), changes.len() as u64);
            prop_assert_eq!(applied.inserted, reference.len() - before.len());
            prop_assert_eq!(applied.changed() > 0, reference != before);
            total.inserted += applied.inserted;

            let again = load.apply(&batch(changes), Some(&n.to_string())).unwrap();
            prop_assert_eq!((again.changed(), again.rows()), (0, changes.len() as u64));

            prop_assert_eq!(get_all(&store, view), reference_all(&reference));
            prop_assert_eq!(walk(&store, view), reference.rows());
            for byte in IDS {
                let row = old_reader.get(view, &id(byte)).unwrap().map(|row| row.to_vec());
                prop_assert_eq!(row, before.row(byte), "a reader sees one state, entity {}", byte);
            }
            prop_assert_eq!(get_all(&store, view), reference_all(&reference));
            let status = store.status(view).unwrap();
            prop_assert_eq!(status.rows, reference.len());
            prop_assert_eq!(status.freshness.newest_event, reference.newest_event());
        }
        prop_assert_eq!(load.total().inserted, reference.len());
        prop_assert_eq!(load.finish(Some("end")).unwrap().inserted, total.inserted);
    }
}

#[test]
fn event_then_created_then_arrival_wins() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    let first = Change { id: 1, event: 10, created: Some(5), value: 0 };
    load(&store, view, LoadMode::Upsert, &[first]);

    let kind = |change| {
        let applied = load(&store, view, LoadMode::Upsert, &[change]);
        assert_eq!(applied.rows(), 1);
        (applied.updated, applied.stale, applied.unchanged)
    };
    assert_eq!(kind(Change { event: 9, created: Some(99), ..first }), (0, 1, 0), "an earlier event");
    assert_eq!(kind(Change { created: Some(4), value: 1, ..first }), (0, 1, 0), "an earlier creation");
    assert_eq!(kind(Change { created: None, value: 1, ..first }), (0, 1, 0), "no creation time");
    assert_eq!(kind(first), (0, 0, 1), "the same bytes");
    assert_eq!(kind(Change { value: 2, ..first }), (1, 0, 0), "a full tie that came later");
    assert_eq!(kind(Change { created: Some(6), value: 1, ..first }), (1, 0, 0), "a later creation");
    assert_eq!(kind(Change { event: 11, created: None, value: 1, ..first }), (1, 0, 0), "a later event");
}

#[test]
fn ties_in_batch_are_stable() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    let tied = batch(&[change(1, 10, 1), change(1, 10, 2), change(1, 10, 2)]);
    let mut load = upsert(&store, view);
    let first = load.apply(&tied, Some("1")).unwrap();
    assert_eq!(first, Applied { inserted: 1, stale: 1, unchanged: 1, ..Applied::default() });
    let again = load.apply(&tied, Some("1")).unwrap();
    assert_eq!(again, Applied { stale: 1, unchanged: 2, ..Applied::default() });
    assert_eq!(walk(&store, view)[&id(1)], change(1, 10, 2).row());
}

#[test]
fn commit_has_rows_and_position() {
    let home = Home::new();
    let mut reference = ReferenceStore::default();
    for n in 0..6_u8 {
        let store = home.open();
        let [view] = declare(&store, ["stats"]);
        let changes = [change(n, 1, 0), change(n / 2, i64::from(n), 7)];
        let mut load = upsert(&store, view);
        load.apply(&batch(&changes), Some(&format!("file {n}"))).unwrap();
        reference.apply(&changes);
        // The load is dropped before it ends. Committed rows stay, but the view is not loaded.
        drop(load);
        drop(store);

        let store = home.open();
        let [view] = declare(&store, ["stats"]);
        let status = store.status(view).unwrap();
        assert_eq!(status.position, Some(format!("file {n}")));
        assert_eq!((status.rows, status.freshness.last_success), (reference.len(), None));
        assert_eq!(walk(&store, view), reference.rows());
    }
}

#[test]
fn empty_load_records_its_success() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    upsert(&store, view).apply(&RowBatch::default(), Some("nothing yet")).unwrap();
    assert_eq!(store.status(view).unwrap().position.as_deref(), Some("nothing yet"));
    assert_eq!(store.status(view).unwrap().freshness.last_success, None);

    home.clock.set(NOW + 5);
    upsert(&store, view).finish(Some("all of it")).unwrap();
    drop(store);
    let store = home.open();
    let mut load = upsert(&store, view);
    load.apply(&RowBatch::default(), None).unwrap();
    load.finish(None).unwrap();
    let status = store.status(view).unwrap();
    assert_eq!(status.position.as_deref(), Some("all of it"), "without a new position, the previous one stays");
    assert_eq!((status.freshness.last_success, status.freshness.newest_event, status.rows), (Some(NOW + 5), None, 0));
}

#[test]
fn unreadable_row_rejects_its_batch() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    let mut load = upsert(&store, view);
    load.apply(&batch(&[change(1, 1, 1)]), Some("good")).unwrap();

    let mut bad = batch(&[change(1, 2, 2), change(2, 2, 2)]);
    bad.push(id(3), b"no row");
    let error = load.apply(&bad, Some("bad")).unwrap_err();
    assert!(matches!(&error, StoreError::Row { view, .. } if view == "stats"), "{error}");
    let status = store.status(view).unwrap();
    assert_eq!((status.rows, status.position.as_deref()), (1, Some("good")));
    assert_eq!(walk(&store, view)[&id(1)], change(1, 1, 1).row());
    assert_eq!(load.finish(Some("end")).unwrap().rows(), 1, "the load continues without it");
}
