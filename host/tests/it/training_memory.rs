//! The memory of `larder training-set` for rows with large texts and for many columns.

use std::{io::Read as _, sync::Arc};

use arrow::{
    array::{ArrayRef, Float64Array, StringViewArray, UInt64Array},
    compute::take,
};

use crate::{
    binary::{Home, peak_mebibytes},
    training_runs::{customers, times, write},
};

/// Runs `larder training-set` with the least memory. Returns the maximum resident memory in mebibytes.
fn peak(home: &Home) -> u64 {
    let args = ["training-set", "--entities", "entities.parquet", "--service", "all", "--out", "out.parquet"];
    let mut child = home.larder(args.into_iter().chain(["--memory", "16MiB", "--threads", "2"])).spawn().unwrap();
    let peak = peak_mebibytes(&mut child);
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("wrote 2,048 rows"), "{said}");
    peak
}

fn entities(home: &Home, more: Vec<(&str, ArrayRef)>) {
    let rows = [("customer_id", customers(std::iter::repeat_n(1, 2_048))), ("event_timestamp", times(0..2_048))];
    write(&home.path("entities.parquet"), rows.into_iter().chain(more).collect());
}

/// Returns a column with the same text of 1.1 MB in all rows.
fn texts(rows: usize) -> ArrayRef {
    let text = StringViewArray::from_iter_values(["t".repeat(1_100_000)]);
    take(&text, &UInt64Array::from(vec![0; rows]), None).unwrap()
}

/// The set has 2.2 GB of text.
#[test]
fn large_feature_needs_bounded_memory() {
    let home = Home::with(
        "
entities:
  - {name: customer, join_key: customer_id, type: String}
feature_views:
  - name: notes
    entities: [customer]
    features: [{name: note, type: String}]
    source: {path: notes.parquet, timestamp_field: at}
feature_services:
  - {name: all, features: [notes]}
",
    );
    let notes = vec![("customer_id", customers(1..2)), ("at", times(0..1)), ("note", texts(1))];
    write(&home.path("notes.parquet"), notes);
    entities(&home, Vec::new());
    let peak = peak(&home);
    assert!(peak < 400, "{peak} MiB");
}

#[test]
fn large_entity_column_needs_bounded_memory() {
    let home = Home::with(
        "
entities:
  - {name: customer, join_key: customer_id, type: String}
feature_views:
  - name: stats
    entities: [customer]
    features: [{name: visits, type: Float64}]
    source: {path: stats.parquet, timestamp_field: at}
feature_services:
  - {name: all, features: [stats]}
",
    );
    let visits: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
    write(&home.path("stats.parquet"), vec![("customer_id", customers(1..2)), ("at", times(0..1)), ("visits", visits)]);
    entities(&home, vec![("text", texts(2_048))]);
    let peak = peak(&home);
    assert!(peak < 400, "{peak} MiB");
}
