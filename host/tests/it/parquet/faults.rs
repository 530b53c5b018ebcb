//! Files that cannot be read, or that lack columns or types that the view needs.

use std::{fs, os::unix::fs::symlink};

use arrow::array::{StringArray, TimestampMillisecondArray, TimestampSecondArray};

use super::*;

/// Returns three new rows, for a valid file next to the invalid file.
fn fresh() -> Columns {
    stats(&[(1, 10, 0.9), (2, 10, 0.9), (3, 10, 0.9)])
}

#[test]
fn truncated_file_is_rejected() {
    let setup = Setup::with("");
    write(&setup.path(FILE), &fresh());
    let whole = fs::read(setup.path(FILE)).unwrap();
    for len in [0, 1, 4, 8, 12, whole.len() / 4, whole.len() / 2, whole.len() - 9, whole.len() - 1] {
        assert_refused(&["part-0.parquet is not a readable Parquet file"], |setup| {
            fs::write(setup.path(FILE), &whole[..len]).unwrap();
        });
    }
}

#[test]
fn non_parquet_file_is_rejected() {
    for bytes in [&b"driver_id,rate\n1,0.5\n"[..], b"PAR1", b"PAR1PAR1", b"PAR1\xff\xff\xff\xff\xff\xff\xff\x7fPAR1"] {
        assert_refused(&["part-0.parquet is not a readable Parquet file"], |setup| {
            fs::write(setup.path(FILE), bytes).unwrap();
        });
    }
}

#[test]
fn garbage_pages_reject_the_file() {
    assert_refused(&["part-0.parquet is not a readable Parquet file"], |setup| {
        write(&setup.path(FILE), &fresh());
        let mut bytes = fs::read(setup.path(FILE)).unwrap();
        // The pages begin after the magic number; the footer at the end stays intact.
        bytes[4..200].fill(0xa5);
        fs::write(setup.path(FILE), bytes).unwrap();
    });
}

#[test]
fn directory_with_broken_file_is_rejected() {
    assert_refused(&["part-1.parquet is not a readable Parquet file"], |setup| {
        write(&setup.path(FILE), &fresh());
        fs::write(setup.path("data/stats/part-1.parquet"), "PAR1").unwrap();
    });
}

#[test]
fn missing_column_gets_suggestion() {
    assert_refused(&["part-0.parquet has no column 'rate' (did you mean 'rates'?)"], |setup| {
        let renamed = fresh().into_iter().map(|(name, array)| (if name == "rate" { "rates" } else { name }, array));
        write(&setup.path(FILE), &renamed.collect());
    });
    for column in ["driver_id", "event_timestamp", "created", "trips"] {
        assert_refused(&[&format!("part-0.parquet has no column '{column}'")], |setup| {
            write(&setup.path(FILE), &without(fresh(), column));
        });
    }
}

#[test]
fn mistyped_value_costs_only_itself() {
    everywhere(|place| {
        let fixture = place.good().start();
        let texts = |texts: &[&str]| Arc::new(StringArray::from(texts.to_vec()));
        let columns = replaced(fresh(), "trips", texts(&["7", "many", "9"]));
        write(&fixture.path(FILE), &replaced(columns, "driver_id", texts(&["1", "2", "3"])));
        let synced = sync_all(&fixture);
        assert_eq!(synced.failures, []);
        let skipped = &synced.report("stats").skipped;
        assert_eq!(skipped.rows(), 0);
        let [values] = &skipped.values[..] else { panic!("{skipped:?}") };
        assert_eq!((&*values.feature, values.count), ("trips", 1));
        assert!(values.example.ends_with("part-0.parquet, row 1: 'many' is not Int32"), "{}", values.example);
        assert_eq!(rates(&fixture, &[1, 2, 3]), json!([0.9, 0.9, 0.9]));
        let answer = fixture.features(&["stats:trips"], json!({ "driver_id": [1, 2, 3] }));
        assert_eq!(answer.column("trips")["values"], json!([7, null, 9]));
        assert_eq!(answer.column("trips")["statuses"], json!(vec!["PRESENT"; 3]));
    });
}

#[test]
fn mistyped_key_costs_its_row() {
    let fixture = Place::Disk.good().start();
    let keys = Arc::new(StringArray::from(vec!["1", "x", "3"]));
    write(&fixture.path(FILE), &replaced(fresh(), "driver_id", keys));
    let synced = sync_all(&fixture);
    let skipped = &synced.report("stats").skipped;
    assert_eq!((skipped.rows(), skipped.unreadable), (1, 1));
    let example = skipped.example.as_deref().unwrap();
    assert!(example.ends_with("part-0.parquet, row 1: invalid key: 'x' is not Int64"), "{example}");
    assert_eq!(rates(&fixture, &[1, 3]), json!([0.9, 0.9]));
}

#[test]
fn event_time_beyond_range_skips_row() {
    let fixture = Place::Disk.good().start();
    let now = RECORDED_AT / 1_000 - 10_000;
    for times in [
        Arc::new(TimestampMillisecondArray::from(vec![now, 1 << 62, now])) as ArrayRef,
        Arc::new(TimestampMillisecondArray::from(vec![now, i64::MIN, now])),
        Arc::new(TimestampSecondArray::from(vec![now / 1_000, 1 << 62, now / 1_000])),
    ] {
        write(&fixture.path(FILE), &replaced(fresh(), "event_timestamp", times));
        let synced = sync(&fixture, &SyncCommand { full: true, ..SyncCommand::default() });
        assert_eq!(synced.failures, []);
        let skipped = &synced.report("stats").skipped;
        assert_eq!((skipped.rows(), skipped.unreadable), (1, 1));
        let example = skipped.example.as_deref().unwrap();
        assert!(example.contains("part-0.parquet, row 1: invalid event time: a time outside the range"), "{example}");
        assert_eq!(rates(&fixture, &[1, 2, 3]), json!([0.9, 0.2, 0.9]));
    }
}

#[test]
fn numeric_event_times_are_rejected() {
    let words = ["part-0.parquet, column 'event_timestamp'", "not a timestamp or a date"];
    assert_refused(&words, |setup| {
        let numbers = Arc::new(Int64Array::from(vec![RECORDED_AT; 3]));
        write(&setup.path(FILE), &replaced(fresh(), "event_timestamp", numbers));
    });
}

#[test]
fn number_beyond_its_type_is_null() {
    let fixture = Place::Disk.good().start();
    write(&fixture.path(FILE), &replaced(fresh(), "trips", Arc::new(Int64Array::from(vec![1, 3_000_000_000, 1]))));
    let synced = sync_all(&fixture);
    let values = &synced.report("stats").skipped.values;
    assert!(values[0].example.ends_with("row 1: 3000000000 is not Int32"), "{values:?}");
    let answer = fixture.features(&["stats:trips"], json!({ "driver_id": [1, 2, 3] }));
    assert_eq!(answer.column("trips")["values"], json!([1, null, 1]));
}

#[test]
fn missing_source_is_reported() {
    assert_refused_at(Place::Disk, DEFINITIONS, &["cannot read", "No such file or directory"], |setup| {
        fs::remove_dir_all(setup.path("data/stats")).unwrap();
    });
    let words = ["cannot read", "part-0.parquet", "No such file or directory"];
    assert_refused_at(Place::Disk, DEFINITIONS, &words, |setup| {
        fs::remove_file(setup.path(FILE)).unwrap();
        symlink("nowhere", setup.path(FILE)).unwrap();
    });
    assert_refused_at(Place::S3, DEFINITIONS, &["No data found in source", "it has no *.parquet object"], |setup| {
        fs::remove_dir_all(setup.path("data/stats")).unwrap();
    });
}

#[test]
fn source_without_rows_has_no_data() {
    assert_refused(&["No data found in source"], |setup| write(&setup.path(FILE), &stats(&[])));
    assert_refused(&["No data found in source", "*.parquet"], |setup| {
        fs::remove_file(setup.path(FILE)).unwrap();
        fs::write(setup.path("data/stats/_SUCCESS"), "").unwrap();
        fs::write(setup.path("data/stats/.hidden.parquet"), "").unwrap();
        fs::write(setup.path("data/stats/README.md"), "").unwrap();
    });
}

#[test]
fn failed_replacing_load_changes_nothing() {
    let replacing = DEFINITIONS.replace("  - name: stats\n", "  - name: stats\n    mode: replace\n");
    // The invalid column is in the second file, after the load has written the rows of the first file.
    assert_refused_with(&replacing, &["part-1.parquet, column 'event_timestamp'"], |setup| {
        write(&setup.path(FILE), &stats(&[(3, 10, 0.9)]));
        let numbers = Arc::new(Int64Array::from(vec![RECORDED_AT]));
        write(&setup.path("data/stats/part-1.parquet"), &replaced(stats(&[(4, 10, 0.9)]), "event_timestamp", numbers));
    });
}

#[test]
fn incomplete_rows_are_skipped_and_counted() {
    everywhere(|place| {
        let fixture = place.good().start();
        let rows = stats(&[(1, 10, 0.5), (2, 10, 0.5), (3, 10, 0.5), (4, 10, 0.5)]);
        let keys = Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(4)]));
        let times = times([Some(10), Some(10), None, Some(10)].into_iter());
        write(&fixture.path(FILE), &replaced(replaced(rows, "driver_id", keys), "event_timestamp", times));

        let synced = sync_all(&fixture);
        let report = synced.report("stats");
        assert_eq!((report.skipped.null_key, report.skipped.null_event_time, report.applied.changed()), (1, 1, 2));
        let example = report.skipped.example.as_deref().unwrap();
        assert!(example.ends_with("data/stats/part-0.parquet, row 1: the key is null"), "{example}");
        assert_eq!(rates(&fixture, &[1, 2, 3, 4]), json!([0.5, 0.2, null, 0.5]));
    });
}

#[test]
fn newest_row_of_a_key_wins() {
    everywhere(|place| {
        let fixture = place.good().start();
        let created = times([None, Some(5), Some(9), None, Some(1), Some(2)].into_iter());
        // For driver 1, the event times differ, so the later one wins. For drivers 2 and 3, the event times are equal,
        // so the created times decide: the first row has the later one.
        let rows = stats(&[(1, 10, 0.5), (2, 10, 0.6), (2, 10, 0.7), (1, 20, 0.8), (3, 10, 0.1), (3, 10, 0.9)]);
        write(&fixture.path(FILE), &replaced(rows, "created", created));
        assert_eq!(sync_all(&fixture).failures, []);
        assert_eq!(rates(&fixture, &[1, 2, 3]), json!([0.5, 0.6, 0.1]));

        write(&fixture.path(FILE), &stats(&[(4, 10, 0.1), (4, 10, 0.2)]));
        assert_eq!(sync_all(&fixture).failures, []);
        assert_eq!(rates(&fixture, &[4]), json!([0.2]), "the later of two equal rows wins");

        // Rows in another file that are older than the stored rows change nothing.
        write(&fixture.path("data/stats/part-1.parquet"), &stats(&[(1, 1_000, 0.0), (4, 1_000, 0.0)]));
        let synced = sync_all(&fixture);
        assert_eq!(synced.report("stats").applied.stale, 2);
        assert_eq!(rates(&fixture, &[1, 4]), json!([0.5, 0.2]));
    });
}

/// In these formats, overwritten and deleted rows stay in the files, and only the table's log excludes them.
#[test]
fn table_formats_are_refused() {
    for (file, format) in [
        ("_delta_log/00000000000000000000.json", "is a table of Delta Lake"),
        ("metadata/v1.metadata.json", "is a table of Apache Iceberg"),
        (".hoodie/hoodie.properties", "is a table of Apache Hudi"),
    ] {
        assert_refused(&[format, "hint: write its rows to a separate directory"], |fixture| {
            let path = fixture.path("data/stats").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "{}").unwrap();
        });
    }
}
