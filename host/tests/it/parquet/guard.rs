//! Sanity checks of new data: far fewer or far more rows than before, or too many invalid rows.

use arrow::array::StringArray;

use super::*;

const REPLACING: &str = "  - name: stats\n    mode: replace\n";

/// Creates rows of drivers 1 to `count`.
fn drivers(count: i64, rate: f64) -> Columns {
    stats(&(1..=count).map(|driver| (driver, 30, rate)).collect::<Vec<_>>())
}

/// Starts a server with a view that each load replaces, and with rows of this many drivers.
fn served(place: Place, count: i64) -> Host {
    let prepared = place.good_with(&DEFINITIONS.replace("  - name: stats\n", REPLACING));
    write(&prepared.path(FILE), &drivers(count, 0.1));
    prepared.start()
}

fn by_force() -> SyncCommand {
    SyncCommand { force: true, ..SyncCommand::default() }
}

fn assert_judged(host: &Host, words: &str) {
    let synced = sync_all(host);
    let [(view, error)] = &synced.failures[..] else { panic!("the sync succeeded: {:?}", synced.reports) };
    assert_eq!(view, "stats");
    assert!(error.contains("data/stats") && error.contains(words), "{error}");
    assert_eq!(rates(host, &[1, 2]), json!([0.1, 0.1]), "the previous data keeps serving");
}

#[test]
fn larger_shrink_needs_force() {
    everywhere(|place| {
        let host = served(place, 2_000);
        write(&host.path(FILE), &drivers(199, 0.2));
        assert_judged(&host, "the new set has 199 rows and the previous one has 2000");
        assert_judged(&host, "'sync: shrink_percent_max' is 90. hint: 'larder sync --force' accepts it");
        assert_eq!(sync(&host, &by_force()).failures, []);
        assert_eq!(rates(&host, &[1, 199, 200]), json!([0.2, 0.2, null]));
        // The next file is compared with the rows that are served now.
        write(&host.path(FILE), &drivers(20, 0.3));
        assert_eq!(sync_all(&host).failures, []);
        assert_eq!(rates(&host, &[1, 21]), json!([0.3, null]));
    });
}

#[test]
fn allowed_shrink_is_accepted() {
    let host = served(Place::Disk, 2_000);
    write(&host.path(FILE), &drivers(200, 0.2));
    assert_eq!(sync_all(&host).failures, []);
    assert_eq!(rates(&host, &[200, 201]), json!([0.2, null]));
}

#[test]
fn small_sets_are_checked_by_share() {
    everywhere(|place| {
        let host = served(place, 80);
        write(&host.path(FILE), &drivers(1, 0.2));
        assert_judged(&host, "the new set has 1 rows and the previous one has 80");
        write(&host.path(FILE), &drivers(801, 0.2));
        assert_judged(&host, "the new set has 801 rows and the previous one has 80, but 'sync: growth_max' is 10");
        let keys: ArrayRef = Arc::new((1..=80).map(|driver| (driver > 2).then_some(driver)).collect::<Int64Array>());
        write(&host.path(FILE), &replaced(drivers(80, 0.2), "driver_id", keys));
        assert_judged(&host, "2 of 80 rows are invalid (2 with a null key");
        // The checks ignore rows that callers wrote, so a tenth of the file's previous rows is accepted.
        for driver in 1_000..1_100 {
            let df = json!({
                "driver_id": [driver], "event_timestamp": ["2026-11-23"], "created": [null], "rate": [0.5], "trips": [1],
            });
            let body = json!({ "feature_view_name": "stats", "df": df }).to_string();
            assert_eq!(host.post("/write-to-online-store", body.as_bytes()).status, 200);
        }
        write(&host.path(FILE), &drivers(8, 0.2));
        assert_eq!(sync_all(&host).failures, []);
        assert_eq!(rates(&host, &[8, 9, 1_000]), json!([0.2, null, 0.5]));
    });
}

#[test]
fn growth_needs_force() {
    everywhere(|place| {
        let host = served(place, 1_000);
        write(&host.path(FILE), &drivers(10_001, 0.2));
        assert_judged(&host, "the new set has 10001 rows and the previous one has 1000, but 'sync: growth_max' is 10");
        write(&host.path(FILE), &drivers(10_000, 0.2));
        assert_eq!(sync_all(&host).failures, []);
        write(&host.path(FILE), &drivers(100_001, 0.3));
        assert_eq!(sync(&host, &by_force()).failures, []);
        assert_eq!(rates(&host, &[100_001]), json!([0.3]));
    });
}

#[test]
fn bad_rows_need_force() {
    everywhere(|place| {
        let host = place.good().start();
        write(&host.path(FILE), &drivers(2, 0.1));
        assert_eq!(sync_all(&host).failures, []);
        let with_bad = |bad: i64| {
            let keys = (1..=12_000).map(|driver| (driver > bad).then_some(driver));
            let keys: ArrayRef = Arc::new(keys.collect::<Int64Array>());
            write(&host.path(FILE), &replaced(drivers(12_000, 0.2), "driver_id", keys));
        };
        with_bad(121);
        assert_judged(&host, "121 of 12000 rows are invalid (121 with a null key; the first: ");
        let synced = sync(&host, &by_force());
        assert_eq!((synced.report("stats").skipped.null_key, rates(&host, &[122])), (121, json!([0.2])));
        with_bad(120);
        let synced = sync_all(&host);
        assert_eq!((synced.report("stats").skipped.null_key, rates(&host, &[121])), (120, json!([0.2])));
    });
}

#[test]
fn bad_values_need_force() {
    let host = served(Place::Disk, 300);
    let texts = |driver: i64| if driver % 2 == 0 { "many".to_owned() } else { driver.to_string() };
    let trips = Arc::new(StringArray::from_iter_values((1..=300).map(texts)));
    write(&host.path(FILE), &replaced(drivers(300, 0.2), "trips", trips));
    assert_judged(&host, "150 of 300 values of feature 'trips' do not match its type");
    assert_judged(&host, "'sync: bad_percent_max' is 1. hint: 'larder sync --force' sets them to null");
    assert_eq!(sync(&host, &by_force()).failures, []);
    assert_eq!(rates(&host, &[1, 2]), json!([0.2, 0.2]));
    let answer = host.features(&["stats:trips"], json!({ "driver_id": [1, 2] }));
    assert_eq!(answer.column("trips")["values"], json!([1, null]));
}
