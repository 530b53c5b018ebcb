//! The choice of the row for an entity row: ties, the order of rows in files, and views without a ttl or without entities.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};

use crate::files::{Files, SECOND, column, customers, features, ints, times};

const A: Option<&str> = Some("a");

/// Feast's file store uses an arbitrary row.
#[test]
fn later_created_row_wins_tie() {
    let row = |created: Option<i64>, visits| (A, Some(20 * SECOND), created.map(|at| at * SECOND), Some(visits));
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let files = Files::new();
        let rows = [row(Some(40), 4), row(Some(30), 3), row(None, 1)];
        files.stats("a", &order.map(|place: usize| rows[place]));
        let set = files.join(&features(&["stats:visits"]), &[customers(&[(A, Some(25 * SECOND))])]).unwrap();
        assert_eq!(column(&set, "visits"), [Some(4)], "{order:?}");
    }
}

/// polars' `join_asof` gives wrong values without an error.
#[test]
fn order_of_rows_does_not_matter() {
    let files = Files::new();
    let row = |at: i64| (A, Some(at * SECOND), None, Some(at));
    files.stats("0", &[row(24), row(21), row(27)]);
    files.stats("1", &[row(22), row(26), row(20)]);
    files.stats("2", &[]);
    files.stats("3", &[row(25), row(23)]);
    let entities: Vec<_> = [27, 20, 23, 19, 25, 22].map(|at| (A, Some(at * SECOND))).into();
    let set = files.join(&features(&["stats:visits"]), &[customers(&entities)]).unwrap();
    assert_eq!(column(&set, "visits"), [Some(27), Some(20), Some(23), None, Some(25), Some(22)]);
}

/// Feast's Ray store finds only rows of the same hour if the view is large.
#[test]
fn view_without_ttl_has_no_limit() {
    let files = Files::new();
    files.limits(&[("a", 0, 7)]);
    let year = 365 * 86_400 * SECOND;
    let set = files.join(&features(&["limits:limit"]), &[customers(&[(A, Some(0)), (A, Some(50 * year))])]).unwrap();
    assert_eq!(column(&set, "limit"), [Some(7), Some(7)]);
    assert_eq!(set.report.views[0].expired, 0);
}

#[test]
fn view_without_entities_has_newest_row() {
    let files = Files::new();
    let at = [30, 10, 20].map(|at| Some(at * SECOND));
    let rates = [3, 1, 2].map(Some);
    files.write("rates/a.parquet", vec![("at", times(at.into_iter())), ("rate", ints(rates.into_iter()))]);
    let rows = RecordBatch::try_from_iter([
        ("label", Arc::new(Int64Array::from(vec![0, 1, 2, 3])) as ArrayRef),
        ("event_timestamp", times([Some(25), Some(5), Some(30), None].map(|at| at.map(|at| at * SECOND)).into_iter())),
    ]);
    let set = files.join(&features(&["rates:rate"]), &[rows.unwrap()]).unwrap();
    assert_eq!(column(&set, "rate"), [Some(2), None, Some(3), None]);
}
