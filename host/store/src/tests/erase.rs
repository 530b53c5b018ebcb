//! Tests of rows that are removed on request, or because their view was removed.

use std::sync::Arc;

use larder_model::{codec::KeyVersion, model::FeatureView};

use super::model::{Change, Home, NOW, batch, change, declare, id, key, load, plain, walk};
use crate::{Applied, KeySignature, LoadMode, OnlineStore, RowBatch, RowTimes, Rule, StoreError, ViewId};

fn is_there(store: &OnlineStore, view: ViewId, entity: u8) -> bool {
    store.reader().get(view, &id(entity)).unwrap().is_some()
}

fn latest(changes: &[Change]) -> RowBatch {
    let mut batch = RowBatch::new(Rule::Latest, RowTimes::default());
    changes.iter().for_each(|change| batch.push(id(change.id), &change.row()));
    batch
}

/// Writes rows in one of the ways in which sources and callers write them.
fn write(store: &OnlineStore, view: ViewId, way: &str, changes: &[Change]) {
    match way {
        "upsert" => _ = load(store, view, LoadMode::Upsert, changes),
        "replace" => _ = load(store, view, LoadMode::Replace, changes),
        "first" => _ = load(store, view, LoadMode::First, changes),
        "changes" => {
            let mut load = store.begin_load(view, LoadMode::Upsert).unwrap();
            load.apply(&latest(changes), Some("midway")).unwrap();
            load.finish(Some("end")).unwrap();
        }
        "put" => _ = store.put(view, &key(), &batch(changes), true).unwrap(),
        _ => _ = store.put_fetched(view, &key(), &latest(changes), &[], store.visible_commit(), 1 << 20).unwrap(),
    }
}

#[test]
fn deleted_entity_returns_with_newer_row() {
    for way in ["upsert", "replace", "first", "changes", "put", "fetch"] {
        let home = Home::new();
        let store = home.open();
        let [view] = declare(&store, ["stats"]);
        load(&store, view, LoadMode::Upsert, &[change(1, 10, 1), change(2, 10, 2)]);
        store.put(view, &key(), &batch(&[change(1, 20, 3)]), true).unwrap();
        assert!(is_there(&store, view, 1), "in the hot cache now");
        assert!(store.delete(view, &key(), &id(1)).unwrap());
        assert!(!is_there(&store, view, 1) && is_there(&store, view, 2));
        assert_eq!(store.status(view).unwrap().rows, 1);

        // Neither the source's current rows nor deleted rows are served again, even after a restart.
        write(&store, view, way, &[change(1, 10, 1), change(2, 10, 2)]);
        drop(store);
        let store = home.open();
        write(&store, view, way, &[change(1, 20, 3), change(2, 10, 2)]);
        assert!(!is_there(&store, view, 1) && is_there(&store, view, 2), "{way}");
        assert_eq!(walk(&store, view).len(), 1, "{way}");
        assert!(!store.delete(view, &key(), &id(1)).unwrap(), "{way}: again");
        write(&store, view, way, &[change(1, 20, 3), change(2, 10, 2)]);
        assert!(!is_there(&store, view, 1), "{way}");

        write(&store, view, way, &[change(1, 21, 4), change(2, 10, 2)]);
        assert!(is_there(&store, view, 1), "{way}: a newer row");
        // The deletion has ended, so the usual rules apply from here on.
        write(&store, view, way, &[change(1, 22, 5), change(2, 10, 2)]);
        assert_eq!(store.reader().get(view, &id(1)).unwrap().unwrap()[..], change(1, 22, 5).row(), "{way}");
        assert!(store.scan(&mut |_| true).unwrap().is_some(), "{way}");
    }
}

#[test]
fn absent_entity_deletion_blocks_old_rows() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    assert!(!store.delete(view, &key(), &id(1)).unwrap());
    load(&store, view, LoadMode::Upsert, &[change(1, 10, 1), change(2, 10, 1)]);
    assert!(!is_there(&store, view, 1) && is_there(&store, view, 2));
    load(&store, view, LoadMode::Upsert, &[change(1, super::model::NOW + 1, 1)]);
    assert!(is_there(&store, view, 1));
}

#[test]
fn deletion_with_other_key_is_rejected() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    let other = KeySignature::of(&plain("stats"), KeyVersion::V2);
    assert!(matches!(store.delete(view, &other, &id(1)), Err(StoreError::Superseded { .. })));
}

#[test]
fn reset_drops_rows_and_keeps_deletions() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    let rows = [change(1, 10, 1), change(2, 10, 2), change(3, 10, 3)];
    load(&store, view, LoadMode::Upsert, &rows);
    store.put(view, &key(), &batch(&[change(4, 20, 4)]), true).unwrap();
    store.delete(view, &key(), &id(1)).unwrap();
    let mut under_way = store.begin_load(view, LoadMode::Upsert).unwrap();
    assert_eq!(store.reset(view).unwrap(), 3);
    assert!(matches!(under_way.apply(&batch(&rows), Some("x")), Err(StoreError::Superseded { .. })));
    let status = store.status(view).unwrap();
    assert_eq!((status.rows, status.position, status.freshness.last_success), (0, None, None));
    assert!(!is_there(&store, view, 2) && !is_there(&store, view, 4));
    drop(store);
    let store = home.open();
    assert!(store.quarantined().is_none());
    load(&store, view, LoadMode::Replace, &rows);
    assert!(!is_there(&store, view, 1) && is_there(&store, view, 2) && !is_there(&store, view, 4));
}

/// A view that was removed and added again loses the rows that callers wrote. Only its creation time shows that this
/// happened.
#[test]
fn recreated_view_loses_caller_rows() {
    let home = Home::new();
    let store = home.open();
    let declare_at = |created| {
        let view = |name| Arc::new(FeatureView { created, ..FeatureView::clone(&plain(name)) });
        let ids = store.declare(&[view("stats"), view("local")], KeyVersion::V3).unwrap();
        (ids[0], ids[1])
    };
    let (view, local) = declare_at(None);
    load(&store, view, LoadMode::Upsert, &[change(1, 10, 1)]);
    store.put(view, &key(), &batch(&[change(2, 20, 3)]), true).unwrap();
    store.put(local, &key(), &batch(&[change(1, 20, 3)]), false).unwrap();
    let there = || [(view, 1), (view, 2), (local, 1)].map(|(view, n)| is_there(&store, view, n));
    for created in [Some(NOW), Some(NOW), None] {
        assert_eq!(declare_at(created), (view, local));
        assert_eq!(there(), [true; 3], "{created:?}");
    }
    declare_at(Some(NOW + 1));
    assert_eq!(there(), [true, false, false]);
    assert_eq!(store.status(view).unwrap().position, None, "the source is read again");
}

#[test]
fn retired_view_loses_caller_rows() {
    let home = Home::new();
    let store = home.open();
    let [view, local, other] = declare(&store, ["stats", "local", "other"]);
    load(&store, view, LoadMode::Upsert, &[change(1, 10, 1), change(2, 10, 2)]);
    store.put(view, &key(), &batch(&[change(2, 20, 3), change(3, 20, 3)]), true).unwrap();
    store.put(local, &key(), &batch(&[change(1, 20, 3)]), false).unwrap();
    store.put(other, &key(), &batch(&[change(1, 20, 3)]), false).unwrap();
    assert!(is_there(&store, view, 3), "in the hot cache now");
    store.retire(|name| name == "other").unwrap();
    let late = store.put(local, &key(), &batch(&[change(1, 30, 3)]), false);
    assert!(matches!(late, Err(StoreError::Superseded { .. })), "a write of an earlier definition");
    store.retire(|name| name == "other").unwrap();
    drop(store);

    let store = home.open();
    declare(&store, ["stats", "local", "other"]);
    assert_eq!([1, 2, 3].map(|n| is_there(&store, view, n)), [true, false, false]);
    assert!(!is_there(&store, local, 1) && is_there(&store, other, 1));
    let status = store.status(view).unwrap();
    assert_eq!((status.position, status.freshness.last_success), (None, None), "the source is read again");
    load(&store, view, LoadMode::Upsert, &[change(1, 10, 1), change(2, 10, 2)]);
    assert_eq!(store.reader().get(view, &id(2)).unwrap().unwrap()[..], change(2, 10, 2).row());
    let again = store.put(local, &key(), &batch(&[change(1, 5, 1)]), false).unwrap();
    assert_eq!(again, Applied { inserted: 1, ..Applied::default() });
    assert!(store.scan(&mut |_| true).unwrap().is_some());
}
