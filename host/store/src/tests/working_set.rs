//! Tests of views that store only some of their rows.

use super::model::{Home, ReferenceStore, batch, change, declare, id, key};
use crate::{FetchedRows, LoadMode, RowBatch, RowTimes, Rule, tables::cost};

#[test]
fn oversized_fetch_evicts_all_other_rows() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    let fetch = |ids: &[u8], bytes_max| {
        let rows: Vec<_> = ids.iter().map(|id| change(*id, 1, 1)).collect();
        store.put_fetched(view, &key(), &batch(&rows), &[], store.visible_commit(), bytes_max).unwrap();
    };
    fetch(&[1, 2, 3], 1 << 20);
    // The rows of this fetch alone exceed the limit.
    fetch(&[4, 5], 1);
    let is_there = |entity| store.reader().get(view, &id(entity)).unwrap().is_some();
    assert_eq!([1, 2, 3, 4, 5].map(is_there), [false, false, false, true, true]);
    // The next fetch evicts these rows.
    fetch(&[6], 1);
    assert_eq!([4, 5, 6].map(is_there), [false, false, true]);
}

#[test]
fn fetch_without_row_keeps_newer_row() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    let fetch =
        |rows: &[_], gone: &[_], seen| store.put_fetched(view, &key(), &batch(rows), gone, seen, 1 << 20).unwrap();
    let is_there = || store.reader().get(view, &id(1)).unwrap().is_some();
    let before = store.visible_commit();
    fetch(&[change(1, 1, 1)], &[], before);
    let fetched = fetch(&[], &[id(1)], before);
    assert_eq!(fetched.uncertain, [id(1)], "the entity changed since the fetch began");
    assert!(is_there());
    assert_eq!(fetch(&[], &[id(1)], store.visible_commit()), FetchedRows::default());
    assert!(!is_there());
}

#[test]
fn fetch_keeps_newer_written_row() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    let fetch = |rows: &[_], gone: &[_], bytes_max| {
        store.put_fetched(view, &key(), &batch(rows), gone, store.visible_commit(), bytes_max).unwrap()
    };
    let served = || store.reader().get(view, &id(1)).unwrap().map(|row| row.to_vec());
    let row = |event, value| {
        let mut reference = ReferenceStore::default();
        reference.apply(&[change(1, event, value)]);
        reference.row(1)
    };
    let stored = FetchedRows { stored: vec![id(1)], ..FetchedRows::default() };
    store.put(view, &key(), &batch(&[change(1, 5, 50)]), true).unwrap();
    assert_eq!(fetch(&[change(1, 3, 30)], &[], 1 << 20), stored);
    assert_eq!(served(), row(5, 50));
    assert_eq!(fetch(&[], &[id(1)], 1 << 20), stored);
    assert_eq!(served(), row(5, 50));
    // The eviction of the row does not lose it: the next fetch restores it.
    fetch(&[change(2, 1, 1)], &[], 1);
    assert_eq!(served(), None);
    assert_eq!(fetch(&[change(1, 3, 30)], &[], 1 << 20), stored);
    assert_eq!(served(), row(5, 50));
    assert!(store.has_written_rows(view));
    // Once the table has a newer row, the written row is gone for good.
    assert_eq!(fetch(&[change(1, 7, 70)], &[], 1 << 20), stored);
    assert_eq!(served(), row(7, 70));
    assert!(!store.has_written_rows(view));
    assert_eq!(fetch(&[change(1, 4, 40)], &[], 1 << 20), stored);
    assert_eq!(served(), row(4, 40));
}

/// A record of the table's stream says only that the row may be outdated.
#[test]
fn invalidation_removes_written_row_until_fetch() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    let is_there = || store.reader().get(view, &id(1)).unwrap().is_some();
    store.put(view, &key(), &batch(&[change(1, 5, 50)]), true).unwrap();
    let mut removal = RowBatch::new(Rule::Latest, RowTimes::default());
    removal.remove(id(1));
    let mut load = store.begin_load(view, LoadMode::Upsert).unwrap().with_invalidations(true);
    load.apply(&removal, Some("1")).unwrap();
    assert!(!is_there());
    store.put_fetched(view, &key(), &batch(&[change(1, 3, 30)]), &[], store.visible_commit(), 1 << 20).unwrap();
    assert!(is_there());
    let mut load = store.begin_load(view, LoadMode::Upsert).unwrap();
    assert_eq!(load.apply(&removal, Some("2")).unwrap().stale, 1, "in other views, the written row wins");
    assert!(is_there());
}

#[test]
fn written_rows_count_toward_size_limit() {
    let home = Home::new();
    let store = home.open();
    let [view] = declare(&store, ["stats"]);
    let written: Vec<_> = (1..=4).map(|entity| change(entity, 5, 50)).collect();
    store.put(view, &key(), &batch(&written), true).unwrap();
    let bytes_max = 2 * cost(&[0; 8]) + 2 * u64::try_from(written[0].row().len()).unwrap();
    store.put_fetched(view, &key(), &batch(&[change(5, 1, 1)]), &[], store.visible_commit(), bytes_max).unwrap();
    let stored = (1..=5).filter(|entity| store.reader().get(view, &id(*entity)).unwrap().is_some()).count();
    assert!(stored <= 2, "{stored} rows are stored");
}
