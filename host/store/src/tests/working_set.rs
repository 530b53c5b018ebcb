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
    // The next fetch evicts them.
    fetch(&[6], 1);
    assert_eq!([4, 5, 6].map(is_there), [false, false, true]);
}
