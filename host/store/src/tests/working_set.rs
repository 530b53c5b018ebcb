//! Tests of views that store only some of their rows.

use super::model::{Home, batch, change, declare, id, key};

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
    assert_eq!(fetch(&[], &[id(1)], before), [id(1)], "the entity changed since the fetch began");
    assert!(is_there());
    assert!(fetch(&[], &[id(1)], store.visible_commit()).is_empty());
    assert!(!is_there());
}
