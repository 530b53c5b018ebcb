//! Hostile files, paths that are not regular files, and schemas that change between files.

use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    process::Command,
    time::{Duration, UNIX_EPOCH},
};

use larder_common::clock::parse_time;

use super::*;

/// Returns a file that has only a footer, with a schema that is nested this deep.
fn nested(depth: usize) -> Vec<u8> {
    // struct FileMetaData { 1: version, 2: list<SchemaElement>, 3: num_rows, 4: list<RowGroup> }
    let mut footer = vec![0x15, 0x02, 0x19, 0xfc];
    let mut count = depth + 1;
    while count > 0x7f {
        footer.push((count & 0x7f) as u8 | 0x80);
        count >>= 7;
    }
    footer.push(count as u8);
    // { 3: repetition_type = OPTIONAL, 4: name = "g", 5: num_children = 1 }, and a leaf of integers.
    (0..depth).for_each(|_| footer.extend([0x35, 0x02, 0x18, 0x01, b'g', 0x15, 0x02, 0x00]));
    footer.extend([0x15, 0x02, 0x25, 0x02, 0x18, 0x01, b'x', 0x00]);
    footer.extend([0x16, 0x00, 0x19, 0x0c, 0x00]);
    let length = u32::try_from(footer.len()).unwrap().to_le_bytes();
    [b"PAR1", &*footer, &length, b"PAR1"].concat()
}

#[test]
fn file_of_deep_schema_is_refused() {
    assert_refused(&["part-0.parquet", "nested more than 64 levels deep"], |fixture| {
        fs::write(fixture.path(FILE), nested(1_500)).unwrap();
    });
}

fn make_pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn pipe_device_or_socket_is_refused() {
    let pipe = ["part-1.parquet", "it is a named pipe, not a regular file"];
    assert_refused_at(Place::Disk, DEFINITIONS, &pipe, |fixture| {
        make_pipe(&fixture.path("data/stats/part-1.parquet"));
    });
    // The pipe is at the path of the source's directory.
    assert_refused_at(Place::Disk, DEFINITIONS, &["it is a named pipe"], |fixture| {
        fs::remove_dir_all(fixture.path("data/stats")).unwrap();
        make_pipe(&fixture.path("data/stats"));
    });
    assert_refused_at(Place::Disk, DEFINITIONS, &["part-1.parquet", "it is a socket"], |fixture| {
        drop(UnixListener::bind(fixture.path("data/stats/part-1.parquet")).unwrap());
    });
    assert_refused_at(Place::Disk, DEFINITIONS, &["part-1.parquet", "it is a device"], |fixture| {
        symlink("/dev/zero", fixture.path("data/stats/part-1.parquet")).unwrap();
    });
}

#[test]
fn column_missing_somewhere_is_null() {
    everywhere(|place| {
        let fixture = place.good().start();
        // The first file is like one that was written before a feature and the created time were added. The second file
        // is like one that was written after a feature was dropped.
        write(
            &fixture.path("data/stats/part-1.parquet"),
            &without(without(stats(&[(3, 10, 0.3)]), "trips"), "created"),
        );
        write(&fixture.path("data/stats/part-2.parquet"), &without(stats(&[(4, 10, 0.4)]), "rate"));
        assert_eq!(sync_all(&fixture).failures, []);
        assert_eq!(rates(&fixture, &[1, 3, 4]), json!([0.1, 0.3, null]));
        assert_eq!(values(&fixture, "stats:trips", &[1, 3, 4]), json!([5, null, 5]));
        // This is also true if everything is read again and the first file by name lacks the column.
        write(&fixture.path("data/stats/part-.parquet"), &without(stats(&[(5, 10, 0.5)]), "trips"));
        let everything = SyncCommand { full: true, ..SyncCommand::default() };
        assert_eq!(sync(&fixture, &everything).failures, []);
        assert_eq!(values(&fixture, "stats:trips", &[1, 3, 5]), json!([5, null, null]));
    });
}

#[test]
fn column_missing_everywhere_is_an_error() {
    assert_refused(&["has no column 'trips'"], |fixture| {
        write(&fixture.path(FILE), &without(stats(&[(1, 10, 0.9)]), "trips"));
        write(&fixture.path("data/stats/part-1.parquet"), &without(stats(&[(3, 10, 0.9)]), "trips"));
    });
    // Every file must have keys and event times.
    for column in ["driver_id", "event_timestamp"] {
        assert_refused(&["part-1.parquet", &format!("has no column '{column}'")], |fixture| {
            write(&fixture.path("data/stats/part-1.parquet"), &without(stats(&[(3, 10, 0.9)]), column));
        });
    }
}

#[test]
fn duplicate_column_names_are_an_error() {
    assert_refused(&["part-0.parquet, column 'rate'", "more than one column with this name"], |fixture| {
        let mut twice = stats(&[(1, 10, 0.9)]);
        twice.push(("rate", Arc::new(Float64Array::from(vec![0.1]))));
        write(&fixture.path(FILE), &twice);
    });
}

#[test]
fn underscore_partition_is_data() {
    let definitions =
        DEFINITIONS.replace("{name: trips, type: Int32}", "{name: trips, type: Int32}, {name: _day, type: Int64}");
    everywhere(|place| {
        let prepared = place.with(&definitions, "sync: {retry: 1h}\n");
        write(&prepared.path("data/stats/_day=7/part-0.parquet"), &stats(&[(1, 10, 0.1)]));
        write(&prepared.path("data/stats/_day=8/_hour=1/part-0.parquet"), &stats(&[(2, 10, 0.2)]));
        write(&prepared.path("data/stats/_temporary/_day=9/part-0.parquet"), &stats(&[(3, 10, 0.3)]));
        write(&prepared.path("data/other.parquet"), &other(1));
        let fixture = prepared.start();
        assert_eq!(values(&fixture, "stats:_day", &[1, 2, 3]), json!([7, 8, null]));
    });
}

#[test]
fn swapped_equal_link_is_read() {
    let fixture = Place::Disk.good().start();
    let time = fs::FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(1_000));
    for (name, rate) in [("a", 0.5), ("b", 0.6)] {
        let path = fixture.path(&format!("data/{name}.parquet"));
        write(&path, &stats(&[(1, 10, rate)]));
        File::options().write(true).open(path).unwrap().set_times(time).unwrap();
    }
    let length = |name: &str| fs::metadata(fixture.path(name)).unwrap().len();
    assert_eq!(length("data/a.parquet"), length("data/b.parquet"));
    fs::remove_file(fixture.path(FILE)).unwrap();
    symlink("../a.parquet", fixture.path(FILE)).unwrap();
    assert_eq!(sync_all(&fixture).failures, []);
    assert_eq!(rates(&fixture, &[1]), json!([0.5]));
    symlink("../b.parquet", fixture.path("data/next")).unwrap();
    fs::rename(fixture.path("data/next"), fixture.path(FILE)).unwrap();
    fs::rename(fixture.path(FILE), fixture.path("data/stats/part-0.parquet")).unwrap();
    assert_eq!(sync_all(&fixture).failures, []);
    assert_eq!(rates(&fixture, &[1]), json!([0.6]));
}

#[test]
fn static_table_needs_no_time_column() {
    let definitions = DEFINITIONS
        .replace("timestamp_field: event_timestamp, created_timestamp_column: created", "timestamp_field: none");
    everywhere(|place| {
        let table = |rows: &[(i64, i64, f64)]| without(without(stats(rows), "event_timestamp"), "created");
        let prepared = place.with(&definitions, "sync: {retry: 1h}\n");
        write(&prepared.path(FILE), &table(&[(1, 0, 0.1), (2, 0, 0.2)]));
        write(&prepared.path("data/other.parquet"), &other(1));
        let fixture = prepared.start();
        assert_eq!(rates(&fixture, &[1, 2, 3]), json!([0.1, 0.2, null]));
        // The event time of the rows is the time at which they were read.
        let answer = fixture.features(&["stats:rate"], json!({ "driver_id": [1] }));
        let time = answer.column("rate")["event_timestamps"][0].as_str().and_then(parse_time);
        assert_eq!(time, Some(RECORDED_AT));
        // The rows of a newer file are read later, so they replace the stored rows.
        fixture.clock.set(RECORDED_AT + 10 * SECOND);
        write(&fixture.path(FILE), &table(&[(1, 0, 0.7)]));
        assert_eq!(sync_all(&fixture).failures, []);
        assert_eq!(rates(&fixture, &[1, 2]), json!([0.7, 0.2]));
        // A deleted entity stays deleted, although each read gives its row a later time.
        let delete = DeleteCommand { view: "stats".to_owned(), key: [("driver_id".to_owned(), "1".to_owned())].into() };
        assert_eq!(fixture.app.delete(&delete).unwrap().rows, 1);
        for (n, full) in [(20, false), (30, true), (40, false)] {
            fixture.clock.set(RECORDED_AT + n * SECOND);
            write(&fixture.path(FILE), &table(&[(1, 0, 0.8), (2, 0, n as f64)]));
            assert_eq!(sync(&fixture, &SyncCommand { full, ..SyncCommand::default() }).failures, []);
            assert_eq!(rates(&fixture, &[1, 2]), json!([null, n as f64]));
        }
        // A time range cannot be used, because there are no event times.
        let views = vec!["stats".to_owned()];
        let span = SyncCommand { views, from: Some(0), to: Some(1), ..SyncCommand::default() };
        let synced = sync(&fixture, &span);
        assert!(synced.failures[0].1.contains("cannot be selected by event time"), "{:?}", synced.failures);
    });
}
