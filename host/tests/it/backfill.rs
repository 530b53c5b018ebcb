//! `larder backfill`: derived features over history.

use std::{fs, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray, TimestampNanosecondArray},
    datatypes::{Float64Type, TimestampMicrosecondType},
};

use crate::{
    binary::{Ended, Home},
    training_runs::{SECOND, START, has, project, read, times, with_derived, write},
};

fn backfill(home: &Home, view: &str, from: &str, to: &str) -> Ended {
    home.run(["backfill", view, "--from", from, "--to", to, "--out", "filled"])
}

/// A backfill has the values of a training set whose entity rows are the keys and times of the feature rows.
#[test]
fn backfill_equals_training_set() {
    let home = project(300);
    with_derived(&home);
    // 2025-10-09T08:53:20Z is `START`.
    let ended = backfill(&home, "numbers", "2025-10-09T09:00:00Z", "2025-10-09T09:20:00Z");
    ended.assert_code(0);
    let files = ["filled/numbers.limits.parquet", "filled/numbers.stats.parquet"].map(|file| read(&home.path(file)));
    assert!(files.iter().all(|rows| rows.num_rows() > 50), "{}", ended.out);
    let mut seen = std::collections::HashSet::new();
    for rows in &files {
        let names: Vec<_> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(names, ["customer_id", "event_timestamp", "sum", "ratio"]);
        let at = rows["event_timestamp"].as_primitive::<TimestampMicrosecondType>();
        for row in 0..rows.num_rows() {
            assert!((400 * SECOND..1_600 * SECOND).contains(&(at.value(row) - START)));
            let customer = rows["customer_id"].as_string::<i32>().value(row).to_owned();
            assert!(seen.insert((customer, at.value(row))), "a key and a time are in one file only");
        }
        let entities = ["customer_id", "event_timestamp"].map(|name| (name, Arc::clone(&rows[name])));
        write(&home.path("entities.parquet"), entities.into());
        let args = ["--entities", "entities.parquet", "--feature", "numbers:sum", "--feature", "numbers:ratio"];
        home.run(["training-set", "--out", "set.parquet"].into_iter().chain(args)).assert_code(0);
        let set = read(&home.path("set.parquet"));
        for name in ["sum", "ratio"] {
            let bits = |rows: &RecordBatch| -> Vec<_> {
                rows[name].as_primitive::<Float64Type>().iter().map(|value| value.map(f64::to_bits)).collect()
            };
            assert!(bits(rows).iter().any(Option::is_some));
            assert_eq!(bits(rows), bits(&set), "{name}");
        }
    }
}

#[test]
fn backfill_skips_rows_without_key() {
    let home = project(10);
    with_derived(&home);
    for (file, feature) in [("stats.parquet", "visits"), ("limits.parquet", "credit")] {
        let mut columns = vec![
            ("customer_id", Arc::new(StringArray::from(vec![Some("c1"), None])) as ArrayRef),
            ("at", times(0..2)),
            (feature, Arc::new(Float64Array::from(vec![1.0, 2.0]))),
        ];
        if file == "stats.parquet" {
            columns.extend([("spent", Arc::clone(&columns[2].1)), ("created", times(0..2))]);
        }
        write(&home.path(file), columns);
    }
    backfill(&home, "numbers", "2025-10-09", "2025-10-10").assert_code(0);
    let rows: usize = ["filled/numbers.limits.parquet", "filled/numbers.stats.parquet"]
        .map(|file| read(&home.path(file)).num_rows())
        .iter()
        .sum();
    assert_eq!(rows, 1);
}

#[test]
fn backfill_mistakes_are_named() {
    let home = project(10);
    with_derived(&home);
    let (from, to) = ("2025-10-09", "2025-10-10");
    let mistakes = |view: &str, from: &str, to: &str, code: i32, words: &str| {
        backfill(&home, view, from, to).assert_code(code).assert_complains(&[words]);
        assert!(!has(&home, "filled"));
    };
    mistakes("number", from, to, 1, "there is no derived view with this name (did you mean 'numbers'?)");
    mistakes("needs_request", from, to, 1, "input 'a' of 'needs_request' is request data, which has no history");
    mistakes("numbers", to, from, 2, "--from must be before --to");
    mistakes("numbers", "yesterday", to, 2, "yesterday");
}

/// The join compares nanoseconds, so a backfill must not truncate them.
#[test]
fn backfill_keeps_nanoseconds() {
    let home = project(100);
    with_derived(&home);
    let stats = read(&home.path("stats.parquet"));
    let nanos = stats["at"].as_primitive::<TimestampMicrosecondType>().values().iter().map(|at| at * 1_000 + 900);
    let nanos: ArrayRef = Arc::new(TimestampNanosecondArray::from_iter_values(nanos).with_timezone("UTC"));
    let columns = stats.schema();
    let column = |name: &str| if name == "at" { Arc::clone(&nanos) } else { Arc::clone(&stats[name]) };
    let columns = columns.fields().iter().map(|field| (field.name().as_str(), column(field.name()))).collect();
    write(&home.path("stats.parquet"), columns);
    backfill(&home, "numbers", "2025-01-01", "2026-01-01").assert_code(0);
    let rows = read(&home.path("filled/numbers.stats.parquet"));
    // `sum` is `visits + spent` of the row at exactly this time.
    let expected: Vec<_> = (0..100).map(|row| Some(f64::from(row) + f64::from(row) / 3.0)).collect();
    assert_eq!(rows["sum"].as_primitive::<Float64Type>().iter().collect::<Vec<_>>(), expected);
    assert_eq!(rows["event_timestamp"].data_type(), nanos.data_type());
}

/// The second file cannot be written, so the first one keeps its content.
#[test]
fn failed_backfill_changes_no_file() {
    let home = project(100);
    with_derived(&home);
    backfill(&home, "numbers", "2025-01-01", "2026-01-01").assert_code(0);
    let (first, second) = (home.path("filled/numbers.limits.parquet"), home.path("filled/numbers.stats.parquet"));
    let before = fs::read(&first).unwrap();
    fs::remove_file(&second).unwrap();
    fs::create_dir(&second).unwrap();
    let run = || backfill(&home, "numbers", "2025-01-01", "2025-10-09T09:10:00Z");
    run().assert_code(1).assert_complains(&["numbers.stats.parquet"]);
    assert!(fs::read(&first).unwrap() == before);
    assert_eq!(fs::read_dir(home.path("filled")).unwrap().count(), 2, "no temporary file is left");
    fs::remove_dir(&second).unwrap();
    run().assert_code(0);
    assert!(fs::read(&first).unwrap() != before);
}
