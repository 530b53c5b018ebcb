//! Tests of loads that build a generation while another one is served, and that replace it when they end.

use super::model::{Change, Home, NOW, ReferenceStore, batch, change, declare, id, load, tables, upsert, walk};
use crate::{LoadMode, OnlineStore, StoreError, ViewId};

const OLD: [Change; 3] = [
    Change { id: 1, event: 100, created: None, value: 1 },
    Change { id: 2, event: 100, created: None, value: 2 },
    Change { id: 3, event: 900, created: None, value: 3 },
];
/// These rows have earlier event times than the old rows, because a new generation is not compared with the old one.
const NEW: [Change; 2] =
    [Change { id: 2, event: 50, created: None, value: 22 }, Change { id: 4, event: 60, created: None, value: 4 }];

fn reference(changes: &[Change]) -> ReferenceStore {
    let mut reference = ReferenceStore::default();
    reference.apply(changes);
    reference
}

fn assert_served(store: &OnlineStore, view: ViewId, changes: &[Change], position: &str) {
    let reference = reference(changes);
    assert_eq!(walk(store, view), reference.rows());
    let reader = store.reader();
    for byte in 0..6 {
        let row = reader.get(view, &id(byte)).unwrap().map(|row| row.to_vec());
        assert_eq!(row, reference.row(byte), "entity {byte}");
    }
    let status = store.status(view).unwrap();
    assert_eq!((status.rows, status.position.as_deref()), (reference.len(), Some(position)));
    assert_eq!(status.freshness.newest_event, reference.newest_event());
}

#[test]
fn replacing_load_becomes_visible_at_end() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    load(&store, view, LoadMode::Upsert, &OLD);
    assert_served(&store, view, &OLD, "end");

    home.clock.set(NOW + 9);
    let mut replacing = store.begin_load(view, LoadMode::Replace).unwrap();
    for change in NEW {
        let applied = replacing.apply(&batch(&[change]), Some("midway")).unwrap();
        assert_eq!(applied.inserted, 1, "into a generation of its own");
        assert_served(&store, view, &OLD, "end");
    }
    let reader = store.reader();
    replacing.finish(Some("replaced")).unwrap();
    assert_served(&store, view, &NEW, "replaced");
    assert_eq!(store.status(view).unwrap().freshness.last_success, Some(NOW + 9));
    let old_row = reader.get(view, &id(1)).unwrap().unwrap();
    assert_eq!(*old_row, *OLD[0].row(), "an earlier reader keeps its generation");
    drop(reader);
    drop(store);
    assert_served(&home.open(), view, &NEW, "replaced");
}

#[test]
fn empty_replacing_load_leaves_no_rows() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    load(&store, view, LoadMode::Upsert, &OLD);
    store.begin_load(view, LoadMode::Replace).unwrap().finish(Some("empty")).unwrap();
    assert_served(&store, view, &[], "empty");
    drop(store);
    assert_served(&home.open(), view, &[], "empty");
}

#[test]
fn interrupted_replacing_load_keeps_old_rows() {
    for next in [LoadMode::Upsert, LoadMode::Replace] {
        let home = Home::new();
        let store = home.open();
        let [view] = declare(&store, ["stats"]);
        load(&store, view, LoadMode::Upsert, &OLD);
        let mut interrupted = store.begin_load(view, LoadMode::Replace).unwrap();
        interrupted.apply(&batch(&[change(5, 999, 5)]), Some("midway")).unwrap();
        drop(interrupted);
        assert_served(&store, view, &OLD, "end");
        drop(store);

        let store = home.open();
        assert_eq!(declare(&store, ["stats"]), [view]);
        assert_served(&store, view, &OLD, "end");
        load(&store, view, next, &NEW);
        let expected = match next {
            LoadMode::Upsert => [&OLD[..], &NEW[1..]].concat(),
            LoadMode::Replace | LoadMode::First => NEW.to_vec(),
        };
        assert_served(&store, view, &expected, "end");
        drop(store);
        assert_eq!(tables(&home).len(), 3, "meta, views and one table of rows: {:?}", tables(&home));
        assert_served(&home.open(), view, &expected, "end");
    }
}

#[test]
fn superseded_load_is_rejected() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    load(&store, view, LoadMode::Upsert, &OLD);
    let mut first = store.begin_load(view, LoadMode::Replace).unwrap();
    first.apply(&batch(&NEW), None).unwrap();
    load(&store, view, LoadMode::Upsert, &[change(5, 70, 5)]);

    let error = first.apply(&batch(&NEW), None).unwrap_err();
    assert!(matches!(&error, StoreError::Superseded { view } if view == "stats"), "{error}");
    assert!(matches!(first.finish(Some("late")), Err(StoreError::Superseded { .. })));
    assert_served(&store, view, &[&OLD[..], &[change(5, 70, 5)]].concat(), "end");
}

#[test]
fn views_have_independent_generations() {
    let home = Home::new();
    let store = home.open();
    let [one, two] = declare(&store, ["one", "two"]);
    load(&store, one, LoadMode::Replace, &OLD);
    load(&store, two, LoadMode::Upsert, &NEW);
    let _under_way = store.begin_load(one, LoadMode::Replace).unwrap();
    upsert(&store, two).apply(&batch(&[change(5, 70, 5)]), Some("more")).unwrap();
    assert_served(&store, one, &OLD, "end");
    assert_served(&store, two, &[NEW[0], NEW[1], change(5, 70, 5)], "more");
}
