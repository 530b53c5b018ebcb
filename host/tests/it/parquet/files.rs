//! Tests which files, rows and columns are read: directories, changed files, time ranges, and only the needed columns.

use std::fs;

use arrow::array::{FixedSizeListArray, StringArray, new_null_array};
use arrow::datatypes::{DataType, Field};
use larder_common::clock::{SharedClock, SystemClock};
use larder_source::{ParquetFiles, ParquetLimits, Source, SourceError, Wanted};

use super::*;

fn clock() -> SharedClock {
    Arc::new(SystemClock)
}

fn wanted(fixture: &Fixture) -> Wanted {
    let snapshot = fixture.app.current();
    let view = snapshot.catalog().view("stats").unwrap();
    Wanted::of(view, view.files().unwrap())
}

#[test]
fn directory_includes_files_at_any_depth() {
    everywhere(|place| {
        let fixture = place.good().start();
        write(&fixture.path("data/stats/day=1/part-0.parquet"), &stats(&[(3, 10, 0.3)]));
        write(&fixture.path("data/stats/day=2/hour=1/part-0.parquet"), &stats(&[(4, 10, 0.4)]));
        for hidden in ["_temporary/part-9.parquet", ".cache/part-9.parquet", "_part-9.parquet", ".part-9.parquet"] {
            write(&fixture.path("data/stats").join(hidden), &stats(&[(9, 10, 0.9)]));
        }
        for foreign in ["_SUCCESS", "part-0.parquet.crc", "notes.txt"] {
            fs::write(fixture.path("data/stats").join(foreign), "no parquet").unwrap();
        }
        assert_eq!(sync_all(&fixture).failures, []);
        assert_eq!(rates(&fixture, &[1, 3, 4, 9]), json!([0.1, 0.3, 0.4, null]));
    });
}

#[test]
fn hive_partitions_are_columns() {
    let definitions = "
entities: [{name: driver, join_key: driver_id, type: Int64}, {name: city, join_key: city, type: String}]
feature_views:
  - name: parts
    entities: [driver, city]
    source: {path: data/parts, timestamp_field: day}
    features: [{name: n, type: Int64}, {name: share, type: Float64}, {name: is_new, type: Bool}, {name: own, type: Int32}]
";
    everywhere(|place| {
        let setup = place.with(definitions, "");
        let columns = |driver: i64| -> Columns {
            vec![
                ("driver_id", Arc::new(Int64Array::from(vec![driver, driver + 10]))),
                ("own", Arc::new(Int64Array::from(vec![driver, driver]))),
            ]
        };
        for (dirs, driver) in [
            ("day=2026-11-22/city=S%C3%A3o%20Paulo%2F1/n=7/share=0.5/is_new=true", 1),
            ("day=2026-11-23T09%3A13%3A09Z/city=Oslo/n=__HIVE_DEFAULT_PARTITION__/share=-1e3/is_new=false/own=2", 2),
        ] {
            write(&setup.path("data/parts").join(dirs).join("n=1.parquet"), &columns(driver));
        }
        let fixture = setup.start();
        let entities = json!({ "driver_id": [1, 11, 2, 1], "city": ["São Paulo/1", "São Paulo/1", "Oslo", "Oslo"] });
        let answer = fixture.features(&["parts:n", "parts:share", "parts:is_new", "parts:own"], entities);
        let values = |name| answer.column(name)["values"].clone();
        assert_eq!(values("n"), json!([7, 7, null, null]));
        assert_eq!(values("share"), json!([0.5, 0.5, -1000.0, null]));
        assert_eq!(values("is_new"), json!([true, true, false, null]));
        assert_eq!(values("own"), json!([1, 1, 2, null]), "the file and its path have the same value");
        let times = &answer.column("n")["event_timestamps"];
        assert_eq!((&times[0], &times[2]), (&json!("2026-11-22T00:00:00Z"), &json!("2026-11-23T09:13:09Z")));

        write(&fixture.path("data/parts/day=2026-11-23/city=Oslo/n=many/share=1/is_new=true/x.parquet"), &columns(3));
        let synced = sync_all(&fixture);
        let error = &synced.failures[0].1;
        assert!(
            error.contains("x.parquet, column 'n': the path has 'many', which does not match the column's type"),
            "{error}"
        );
    });
}

/// A file has a column with the same name as its partition directory, but with other values.
#[test]
fn partition_must_equal_column_of_file() {
    for (dir, value) in [("trips=6", "6"), ("trips=__HIVE_DEFAULT_PARTITION__", "__HIVE_DEFAULT_PARTITION__")] {
        let words = [
            &format!("{dir}/part-1.parquet, column 'trips'"),
            &format!("the file has values other than '{value}', which is the column's value in the file's path"),
            &format!("rename the directory '{dir}'"),
        ];
        assert_refused(&words.map(String::as_str), |fixture| {
            write(&fixture.path("data/stats").join(dir).join("part-1.parquet"), &stats(&[(3, 10, 0.9)]));
        });
    }
}

#[test]
fn only_changed_files_are_read() {
    everywhere(|place| {
        let fixture = place.good().start();
        let read = |synced: &Synced| synced.report("stats").applied.rows();
        assert_eq!(sync_all(&fixture).report("stats").outcome, Outcome::UpToDate);

        write(&fixture.path("data/stats/part-1.parquet"), &stats(&[(3, 10, 0.3)]));
        assert_eq!(read(&sync_all(&fixture)), 1, "the new file's row");

        write(&fixture.path(FILE), &stats(&[(1, 5, 0.5), (2, 60, 0.2)]));
        let synced = sync_all(&fixture);
        assert_eq!((read(&synced), synced.report("stats").applied.changed()), (2, 1), "the changed file's rows");
        assert_eq!(rates(&fixture, &[1, 2, 3]), json!([0.5, 0.2, 0.3]));

        let everything = SyncCommand { full: true, ..SyncCommand::default() };
        assert_eq!(read(&sync(&fixture, &everything)), 3);

        // If a file is removed, its rows stay, because this view only upserts.
        fs::remove_file(fixture.path(FILE)).unwrap();
        assert_eq!(read(&sync_all(&fixture)), 0);
        assert_eq!(rates(&fixture, &[1, 2, 3]), json!([0.5, 0.2, 0.3]));
    });
}

#[test]
fn replacing_view_equals_its_source() {
    everywhere(|place| {
        let replacing = DEFINITIONS.replace("  - name: stats\n", "  - name: stats\n    mode: replace\n");
        let fixture = place.good_with(&replacing).start();
        write(&fixture.path(FILE), &stats(&[(2, 500, 0.7), (3, 500, 0.3)]));
        assert_eq!(sync_all(&fixture).failures, []);
        assert_eq!(rates(&fixture, &[1, 2, 3]), json!([null, 0.7, 0.3]), "even if the new rows are older");
    });
}

#[test]
fn time_range_includes_both_ends() {
    everywhere(|place| {
        let fixture = place.good().start();
        write(&fixture.path(FILE), &stats(&[(3, 40, 0.3), (4, 30, 0.4), (5, 20, 0.5), (6, 10, 0.6)]));
        let at = |age: i64| Some(RECORDED_AT - age * SECOND);
        let views = vec!["stats".to_owned()];
        let span = SyncCommand { views: views.clone(), from: at(30), to: at(20), ..SyncCommand::default() };
        assert_eq!(sync(&fixture, &span).report("stats").skipped.outside_window, 2);
        assert_eq!(rates(&fixture, &[3, 4, 5, 6]), json!([null, 0.4, 0.5, null]));

        let open_end = SyncCommand { views, from: at(20), to: None, ..SyncCommand::default() };
        assert_eq!(sync(&fixture, &open_end).failures, []);
        assert_eq!(rates(&fixture, &[3, 4, 5, 6]), json!([null, 0.4, 0.5, 0.6]));
        // A sync with a time range does not affect later syncs: the next sync reads the whole file.
        assert_eq!(sync_all(&fixture).failures, []);
        assert_eq!(rates(&fixture, &[3, 4, 5, 6]), json!([0.3, 0.4, 0.5, 0.6]));
    });
}

#[test]
fn unneeded_columns_are_not_read() {
    everywhere(|place| {
        let fixture = place.good().start();
        let item = Arc::new(Field::new("item", DataType::Float64, true));
        let strange = FixedSizeListArray::new_null(item, 2, 1);
        let mut columns = stats(&[(1, 10, 0.5)]);
        columns.insert(0, ("strange", Arc::new(strange)));
        columns.push(("nothing", new_null_array(&DataType::Null, 1)));
        columns.push(("garbage", Arc::new(StringArray::from(vec!["x".repeat(100_000)]))));
        // Neither the order of the columns nor additional columns matter.
        columns.reverse();
        let uncompressed = WriterProperties::builder().set_dictionary_enabled(false).build();
        write_with(&fixture.path(FILE), &columns, uncompressed);
        let mut bytes = fs::read(fixture.path(FILE)).unwrap();
        let garbage = bytes.windows(50_000).position(|window| window.iter().all(|byte| *byte == b'x')).unwrap();
        // The page header before the text is overwritten, so reading this column would fail.
        bytes[garbage - 20..garbage].fill(0xff);
        fs::write(fixture.path(FILE), bytes).unwrap();
        assert_eq!(sync_all(&fixture).failures, []);
        assert_eq!(rates(&fixture, &[1]), json!([0.5]));

        if place == Place::Disk {
            let mut wanted = wanted(&fixture);
            wanted.features[0].column = "garbage".into();
            let files = ParquetFiles::new(fixture.path(FILE), wanted, ParquetLimits::default(), clock());
            assert!(files.read(None).unwrap().next_batch().is_err(), "reading the column fails");
        }
    });
}

#[test]
fn field_mapping_renames_columns() {
    everywhere(|place| {
        let mapped = DEFINITIONS.replace(
            "created_timestamp_column: created}",
            "created_timestamp_column: created, field_mapping: {DRV: driver_id, TS: event_timestamp, r: rate}}",
        );
        let setup = place.with(&mapped, "");
        let renamed = stats(&[(1, 60, 0.1)]).into_iter().map(|(name, array)| match name {
            "driver_id" => ("DRV", array),
            "event_timestamp" => ("TS", array),
            "rate" => ("r", array),
            other => (other, array),
        });
        write(&setup.path(FILE), &renamed.collect());
        write(&setup.path("data/other.parquet"), &other(1));
        let fixture = setup.start();
        assert_eq!(rates(&fixture, &[1]), json!([0.1]));
    });
}

#[test]
fn row_groups_and_batches_are_complete() {
    everywhere(|place| {
        let setup = place.with(DEFINITIONS, "sync: {commit_rows: 777}\n");
        write(&setup.path("data/other.parquet"), &other(1));
        let rows: Vec<(i64, i64, f64)> = (0..40_000).map(|n| (n, 10, n as f64)).collect();
        let small_groups = WriterProperties::builder().set_max_row_group_row_count(Some(1_000)).build();
        write_with(&setup.path(FILE), &stats(&rows), small_groups);
        let fixture = setup.start();
        assert_eq!(
            rates(&fixture, &[0, 776, 777, 16_383, 16_384, 39_999]),
            json!([0.0, 776.0, 777.0, 16383.0, 16384.0, 39999.0])
        );
        let catalog = fixture.get("/v1/catalog").json();
        let view = catalog["feature_views"].as_array().unwrap().iter().find(|view| view["name"] == "stats").unwrap();
        assert_eq!(view["rows"], 40_000);
    });
}

#[test]
fn column_and_memory_limits_hold() {
    let fixture = Place::Disk.good().start();
    let wanted = wanted(&fixture);
    let open = |limits: ParquetLimits| {
        let files = ParquetFiles::new(fixture.path(FILE), wanted.clone(), limits, clock());
        files.read(None)?.next_batch().map(|_| ())
    };
    let exact = |limits: ParquetLimits, what: &str| {
        let Err(SourceError::Limit { what: found, .. }) = open(limits) else { panic!("{what} is not bounded") };
        assert!(found.contains(what), "{found}");
    };
    let default = ParquetLimits::default();
    assert!(open(ParquetLimits { columns_max: 5, ..default }).is_ok());
    exact(ParquetLimits { columns_max: 4, ..default }, "columns");
    exact(ParquetLimits { memory_max: 10, ..default }, "the footer");
    exact(ParquetLimits { memory_max: 5_000, ..default }, "the memory for the file's metadata");
}

#[test]
fn in_place_rewrite_fails_the_read() {
    let fixture = Place::Disk.good().start();
    let files = ParquetFiles::new(fixture.path(FILE), wanted(&fixture), ParquetLimits::default(), clock());
    let mut batches = files.read(None).unwrap();
    assert_eq!(batches.next_batch().unwrap().unwrap().rows.len(), 2);
    // The file is overwritten in place, not replaced with a rename.
    let bytes = fs::read(fixture.path(FILE)).unwrap();
    fs::write(fixture.path(FILE), [&bytes[..], b"more"].concat()).unwrap();
    let error = batches.next_batch().unwrap_err();
    assert!(matches!(&error, SourceError::Changed { path } if path.ends_with("part-0.parquet")), "{error}");
}

#[test]
fn replaced_file_is_read_as_before() {
    let fixture = Place::Disk.good().start();
    let files = ParquetFiles::new(fixture.path(FILE), wanted(&fixture), ParquetLimits::default(), clock());
    let mut batches = files.read(None).unwrap();
    assert_eq!(batches.next_batch().unwrap().unwrap().rows.len(), 2);
    write(&fixture.path(FILE), &stats(&[(1, 1, 0.9)]));
    assert!(batches.next_batch().unwrap().is_none());
    assert!(files.has_changes(&batches.position()).unwrap(), "the next version is a change");
}
