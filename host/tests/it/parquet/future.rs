//! Rows with an event time in the future, and rows whose event times differ by nanoseconds.

use arrow::array::TimestampNanosecondArray;

use super::*;

const HOUR: i64 = 3_600;

#[test]
fn future_row_appears_without_sync() {
    everywhere(|place| {
        for mode in ["upsert", "replace"] {
            let named = format!("  - name: stats\n    mode: {mode}\n");
            let prepared = place.good_with(&DEFINITIONS.replace("  - name: stats\n", &named));
            // Driver 1 also has a row in the past. Driver 3 has only a row in the future.
            write(
                &prepared.path(FILE),
                &stats(&[(1, 60, 0.1), (1, -3 * HOUR, 0.9), (2, -HOUR, 0.2), (3, -2 * HOUR, 0.3)]),
            );
            let host = prepared.start();
            assert_eq!(rates(&host, &[1, 2, 3]), json!([0.1, 0.2, null]));
            let full = SyncCommand { full: true, views: vec!["stats".to_owned()], ..SyncCommand::default() };
            let synced = sync(&host, &full);
            let skipped = &synced.report("stats").skipped;
            assert_eq!((skipped.future, skipped.rows()), (2, 0));
            let first = skipped.future_example.as_ref().unwrap();
            assert!(
                first.0 == RECORDED_AT + 2 * HOUR * SECOND && first.1.contains("part-0.parquet, row 3"),
                "{first:?}"
            );

            // A write is served, although a row with a later event time is postponed.
            let df = json!({
                "driver_id": [1], "event_timestamp": ["2026-11-23T09:13:10Z"], "created": [null], "rate": [0.5],
                "trips": [1],
            });
            let body = json!({ "feature_view_name": "stats", "df": df }).to_string();
            assert_eq!(host.post("/write-to-online-store", body.as_bytes()).status, 200);
            assert_eq!(rates(&host, &[1, 2, 3]), json!([0.5, 0.2, null]));

            host.clock.set(RECORDED_AT + HOUR * SECOND);
            host.eventually("the first row is served when it is due", || {
                rates(&host, &[1, 2, 3]) == json!([0.5, 0.2, 0.3])
            });
            // Postponed rows survive a restart.
            let Host { fixture, bucket } = host;
            let host = Host { fixture: fixture.restart(), bucket };
            assert_eq!(rates(&host, &[1, 2]), json!([0.5, 0.2]));
            host.clock.set(RECORDED_AT + 2 * HOUR * SECOND);
            host.eventually("the second row is served when it is due", || {
                rates(&host, &[1, 2, 3]) == json!([0.9, 0.2, 0.3])
            });
        }
    });
}

#[test]
fn later_nanosecond_wins_in_any_order() {
    everywhere(|place| {
        let nanos = |parts: &[i64]| -> ArrayRef {
            let times = parts.iter().map(|part| (RECORDED_AT - SECOND) * 1_000 + part);
            Arc::new(TimestampNanosecondArray::from_iter_values(times))
        };
        let with = |rows: &[(i64, f64)]| {
            let columns = stats(&rows.iter().map(|(_, rate)| (1, 0, *rate)).collect::<Vec<_>>());
            replaced(columns, "event_timestamp", nanos(&rows.iter().map(|(part, _)| *part).collect::<Vec<_>>()))
        };
        let prepared = place.good();
        write(&prepared.path(FILE), &with(&[(500, 0.1), (501, 0.2), (499, 0.3)]));
        let host = prepared.start();
        assert_eq!(rates(&host, &[1]), json!([0.2]));
        // The next row is older by a nanosecond. It is in another file and is read later.
        write(&host.path("data/stats/part-1.parquet"), &with(&[(500, 0.4)]));
        sync_all(&host);
        assert_eq!(rates(&host, &[1]), json!([0.2]));
        write(&host.path("data/stats/part-2.parquet"), &with(&[(502, 0.5)]));
        sync_all(&host);
        assert_eq!(rates(&host, &[1]), json!([0.5]));
    });
}
