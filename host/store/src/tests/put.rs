//! Tests of rows that callers write, in addition to loads that do not contain these rows.

use larder_model::codec::KeyVersion;

use super::model::{
    Change, Dice, Home, NOW, ReferenceStore, batch, change, declare, id, key, load, plain, tables, upsert, view, walk,
};
use crate::{Applied, KeySignature, LoadMode, OnlineStore, StoreError, ViewId};

fn put(store: &OnlineStore, view: ViewId, changes: &[Change], keep: bool) -> Applied {
    store.put(view, &key(), &batch(changes), keep).unwrap()
}

fn served(store: &OnlineStore, view: ViewId) -> Vec<(u8, Vec<u8>)> {
    (0..9).filter_map(|byte| Some((byte, store.reader().get(view, &id(byte)).unwrap()?.to_vec()))).collect()
}

fn rows(changes: &[Change]) -> Vec<(u8, Vec<u8>)> {
    let mut reference = ReferenceStore::default();
    reference.apply(changes);
    (0..9).filter_map(|byte| Some((byte, reference.row(byte)?))).collect()
}

#[test]
fn put_is_served_and_durable() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["cart"]);
    let applied = put(&store, view, &[change(1, 100, 1), change(2, 100, 2), change(1, 90, 9)], false);
    assert_eq!(applied, Applied { inserted: 2, stale: 1, ..Applied::default() });
    let status = store.status(view).unwrap();
    assert_eq!((status.rows, status.freshness.newest_event), (2, Some(100)));
    assert_eq!(status.freshness.last_success, Some(NOW), "a put counts as a load");
    assert_eq!(put(&store, view, &[change(1, 99, 7)], false).stale, 1);
    assert_eq!(put(&store, view, &[change(2, 101, 22)], false).updated, 1);
    let expected = rows(&[change(1, 100, 1), change(2, 101, 22)]);
    assert_eq!(served(&store, view), expected);
    drop(store);
    assert_eq!(served(&home.open(), view), expected);
}

#[test]
fn kept_put_does_not_load_view() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    put(&store, view, &[change(1, 100, 1)], true);
    let status = store.status(view).unwrap();
    assert_eq!((status.freshness.last_success, status.position), (None, None));
}

#[test]
fn kept_rows_survive_until_newer_ones() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    let source = [change(1, 100, 1), change(2, 100, 2)];
    load(&store, view, LoadMode::Replace, &source);
    let written = [change(1, 200, 11), change(3, 50, 33)];
    put(&store, view, &written, true);
    let both = rows(&[&source[..], &written[..]].concat());
    assert_eq!(served(&store, view), both);
    for _ in 0..2 {
        load(&store, view, LoadMode::Replace, &source);
        assert_eq!(served(&store, view), both);
        let status = store.status(view).unwrap();
        assert_eq!((status.rows, status.freshness.newest_event), (3, Some(200)));
    }
    // A row is also kept if it is written while a load is in progress.
    let mut building = store.begin_load(view, LoadMode::Replace).unwrap();
    building.apply(&batch(&source), None).unwrap();
    put(&store, view, &[change(4, 60, 44)], true);
    building.finish(Some("end")).unwrap();
    assert_eq!(served(&store, view), rows(&[&source[..], &written[..], &[change(4, 60, 44)]].concat()));

    // The source now has rows that are at least as new. From then on, its rows win, even older ones.
    load(&store, view, LoadMode::Replace, &[change(1, 200, 12), change(3, 51, 34), change(4, 61, 45)]);
    assert_eq!(served(&store, view), rows(&[change(1, 200, 12), change(3, 51, 34), change(4, 61, 45)]));
    load(&store, view, LoadMode::Replace, &source);
    assert_eq!(served(&store, view), rows(&source));
    drop(store);
    assert_eq!(tables(&home).len(), 3, "the table of written rows is gone: {:?}", tables(&home));
}

#[test]
fn stale_put_is_not_kept() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    load(&store, view, LoadMode::Replace, &[change(1, 100, 1)]);
    assert_eq!(put(&store, view, &[change(1, 99, 9)], true).stale, 1);
    // The source no longer has the row. The stale write must not appear instead.
    load(&store, view, LoadMode::Replace, &[change(2, 100, 2)]);
    assert_eq!(served(&store, view), rows(&[change(2, 100, 2)]));
}

#[test]
fn upsert_and_put_follow_rule() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    let mut dice = Dice(7);
    let mut reference = ReferenceStore::default();
    for round in 0..60 {
        let event = |dice: &mut Dice| i64::try_from(dice.below(20)).unwrap();
        let changes: Vec<Change> =
            (0..4).map(|_| change(dice.below(8).to_le_bytes()[0], event(&mut dice), round)).collect();
        reference.apply(&changes);
        if dice.below(2) == 0 {
            put(&store, view, &changes, dice.below(2) == 0);
        } else {
            upsert(&store, view).apply(&batch(&changes), None).unwrap();
        }
        assert_eq!(walk(&store, view), reference.rows());
    }
}

#[test]
fn put_with_other_schema_is_rejected() {
    let home = Home::new();
    let store = home.open();
    let [view_id] = declare(&store, ["stats"]);
    let other_key = KeySignature::of(&plain("any"), KeyVersion::V2);
    let refused = store.put(view_id, &other_key, &batch(&[change(1, 100, 1)]), true);
    assert!(matches!(refused, Err(StoreError::Superseded { .. })));
    store.declare(&[view("stats", &["value:Int64", "more:Int64"])], KeyVersion::V3).unwrap();
    let refused = store.put(view_id, &key(), &batch(&[change(1, 100, 1)]), true);
    assert!(matches!(refused, Err(StoreError::Superseded { .. })));
    assert_eq!(served(&store, view_id), []);
}

#[test]
fn kept_rows_survive_schema_change() {
    let home = Home::new();
    let store = home.open();
    let [view_id] = declare(&store, ["stats"]);
    put(&store, view_id, &[change(1, 100, 1)], true);
    store.declare(&[view("stats", &["value:Int64", "more:Int64"])], KeyVersion::V3).unwrap();
    load(&store, view_id, LoadMode::Replace, &[]);
    assert_eq!(store.schemas(view_id).unwrap().len(), 2, "the schema of the written row, and the current one");
    assert_eq!(served(&store, view_id), rows(&[change(1, 100, 1)]));
    store.declare(&[view("stats", &["value:Int64", "more:Int64"])], KeyVersion::V2).unwrap();
    load(&store, view_id, LoadMode::Replace, &[]);
    assert_eq!(served(&store, view_id), []);
    assert_eq!(store.schemas(view_id).unwrap().len(), 1);
}
