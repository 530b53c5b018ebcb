//! `larder verify --parity`: equal values, and every class of differences.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arrow::array::{BooleanArray, TimestampMicrosecondArray};
use larder_model::model::Rfc3339;
use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};
use rustix::process::Signal;

use super::*;
use crate::{
    binary::{Ended, Home, LARDER_YAML},
    fixture::copy_dir,
    guests::guest,
};

const DEFINITIONS: &str = "
entities: [{name: driver, join_key: driver_id, type: Int64}]
feature_views:
  - name: stats
    entities: [driver]
    source: {path: data/stats, timestamp_field: event_timestamp, created_timestamp_column: created}
    push_source: stats
    features: [{name: conv_rate, type: Float64}, {name: trips, type: Int64}, {name: scores, type: Array(Float64)}]
  - name: aged
    entities: [driver]
    ttl: 1h
    source: {path: data/aged.parquet, timestamp_field: event_timestamp}
    features: [{name: n, type: Int64}]
derived_views:
  - name: odfv_python
    inputs: ['stats:conv_rate', {name: amount, request: Float64}, {name: hour, request: Int64}]
    features: [{name: conv_x_amount, type: Float64}, {name: label, type: String}]
feature_services:
  - {name: rides, features: [stats, aged]}
  - {name: prices, features: [odfv_python]}
";

const DRIVERS: i64 = 30;
const HOUR: i64 = 3_600_000_000;

fn now() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "the server uses the system's clock")]
    let now = SystemTime::now();
    i64::try_from(now.duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

fn instants(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
}

/// Writes a file of `stats`: a row of each driver with this event time, created time and rate.
fn write_stats(path: &Path, event: i64, created: i64, rate: impl Fn(i64) -> f64) {
    let drivers = || 0..DRIVERS;
    let payload = f64::from_bits(f64::NAN.to_bits() | 7);
    let scores = drivers().map(|driver| (driver % 3 > 0).then(|| vec![Some(-0.0), Some(payload), Some(rate(driver))]));
    let columns: Vec<(&'static str, ArrayRef)> = vec![
        ("driver_id", Arc::new(Int64Array::from_iter_values(drivers()))),
        ("event_timestamp", instants(drivers().map(|_| event))),
        ("created", instants(drivers().map(|_| created))),
        (
            "conv_rate",
            Arc::new(drivers().map(|driver| (driver % 7 > 0).then(|| rate(driver))).collect::<Float64Array>()),
        ),
        ("trips", Arc::new(Int64Array::from_iter_values(drivers().map(|driver| (1 << 60) + driver)))),
        ("scores", Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(scores))),
    ];
    write(path, &columns);
}

/// Creates a directory with files, and a server that logs all requests.
fn home() -> Home {
    let home = Home::with(DEFINITIONS);
    home.configure("logging: {services: {rides: 1, prices: 1}, to: log}\n");
    write_stats(&home.path("data/stats/a.parquet"), now() - 2 * HOUR, now() - 2 * HOUR, |driver| driver as f64 / 7.0);
    // Rows of every second driver are expired.
    let age = |driver: i64| if driver % 2 == 0 { 2 * HOUR } else { HOUR / 2 };
    let columns: Vec<(&'static str, ArrayRef)> = vec![
        ("driver_id", Arc::new(Int64Array::from_iter_values(0..DRIVERS))),
        ("event_timestamp", instants((0..DRIVERS).map(|driver| now() - age(driver)))),
        ("n", Arc::new(Int64Array::from_iter_values(0..DRIVERS))),
    ];
    write(&home.path("data/aged.parquet"), &columns);
    fs::create_dir_all(home.path("plugins")).unwrap();
    fs::copy(guest("feast_odfv/odfv_python"), home.path("plugins/odfv_python.wasm")).unwrap();
    home
}

fn post(address: SocketAddr, path: &str, body: &Value) {
    let headers = [("content-type", "application/json")];
    let answer = wire::send(address, "POST", path, &headers, body.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Requests both services for all drivers.
fn ask_all(address: SocketAddr) {
    let drivers: Vec<i64> = (0..DRIVERS + 2).collect();
    let amounts: Vec<f64> = drivers.iter().map(|driver| *driver as f64 - 3.0).collect();
    let hours: Vec<i64> = drivers.iter().map(|driver| driver % 24).collect();
    for (service, entities) in [
        ("rides", json!({ "driver_id": drivers })),
        ("prices", json!({ "driver_id": drivers, "amount": amounts, "hour": hours })),
    ] {
        post(address, "/get-online-features", &json!({ "feature_service": service, "entities": entities }));
    }
}

/// Serves, calls `with`, requests both services, and stops the server, which writes the log.
fn log_after(home: &Home, with: impl FnOnce(SocketAddr)) {
    let (host, address) = home.serve();
    crate::fixture::eventually("ready", || wire::send(address, "GET", "/ready", &[], b"").status == 200);
    with(address);
    ask_all(address);
    host.stop(Signal::TERM);
}

fn verify(home: &Home) -> Ended {
    home.run(["verify", "--parity", "log"])
}

/// Returns the counts of a feature: rows, equal, late, pushed, overwritten, replaced, ttl mode, other component, future,
/// unexplained.
#[track_caller]
fn counts(ended: &Ended, feature: &str) -> [u64; 10] {
    let line = ended.out.lines().find(|line| line.split_whitespace().next() == Some(feature));
    let line = line.unwrap_or_else(|| panic!("no {feature}: {}\n{}", ended.out, ended.err));
    let counts: Vec<u64> = line.split_whitespace().skip(1).map(|count| count.parse().unwrap()).collect();
    counts.try_into().unwrap()
}

/// Writes a changed log of a service: `change` gets a column by its name, and returns the changed column.
fn change_log(home: &Home, service: &str, mut change: impl FnMut(&str, &ArrayRef) -> Option<ArrayRef>) {
    let path = files(&home.path(&format!("log/{service}"))).remove(0);
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap();
    let metadata = builder.metadata().file_metadata().key_value_metadata().cloned();
    let batch = read_file(&path);
    let schema = batch.schema();
    let columns = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, column)| change(field.name(), column).unwrap_or_else(|| Arc::clone(column)));
    let changed = RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap();
    let kept = metadata.map(|entries| entries.into_iter().filter(|entry| entry.key.starts_with("larder.")).collect());
    let properties = WriterProperties::builder().set_key_value_metadata(kept).build();
    let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), changed.schema(), Some(properties)).unwrap();
    writer.write(&changed).unwrap();
    writer.close().unwrap();
}

/// Returns a column of doubles with one value replaced.
fn with_double(column: &ArrayRef, row: usize, value: Option<f64>) -> ArrayRef {
    let values = column.as_primitive::<Float64Type>().iter().enumerate();
    Arc::new(values.map(|(index, old)| if index == row { value } else { old }).collect::<Float64Array>())
}

#[test]
fn equal_values_succeed() {
    let home = home();
    log_after(&home, |_| {});
    let ended = verify(&home);
    ended.assert_code(0);
    for feature in ["stats__conv_rate", "stats__trips", "stats__scores", "aged__n", "odfv_python__label"] {
        assert_eq!(counts(&ended, feature), [32, 32, 0, 0, 0, 0, 0, 0, 0, 0], "{feature}");
    }
    assert!(
        ended.out.contains("compared 192 values: 192 equal, 0 explained, 0 replaced, 0 unexplained"),
        "{}",
        ended.out
    );
}

#[test]
fn pushed_values_are_explained() {
    let home = home();
    log_after(&home, |address| {
        let drivers: Vec<i64> = (10..20).collect();
        let df = json!({ "driver_id": drivers, "conv_rate": vec![7.5; 10], "trips": vec![3; 10],
                         "scores": vec![json!([1.5]); 10],
                         "event_timestamp": vec![Rfc3339::of(now() - 60_000_000).as_str(); 10] });
        post(address, "/push", &json!({ "push_source_name": "stats", "df": df }));
    });
    let ended = verify(&home);
    ended.assert_code(0);
    for feature in ["stats__conv_rate", "stats__trips", "stats__scores", "odfv_python__conv_x_amount"] {
        assert_eq!(counts(&ended, feature), [32, 22, 0, 10, 0, 0, 0, 0, 0, 0], "{feature}");
    }
    assert_eq!(counts(&ended, "aged__n"), [32, 32, 0, 0, 0, 0, 0, 0, 0, 0]);
    // Also if the file was changed later.
    write_stats(&home.path("data/stats/a.parquet"), now() - 2 * HOUR, now() - 2 * HOUR, |driver| driver as f64 / 9.0);
    let ended = verify(&home);
    ended.assert_code(0);
    assert_eq!(counts(&ended, "stats__trips"), [32, 22, 0, 10, 0, 0, 0, 0, 0, 0]);
    assert_eq!(counts(&ended, "stats__conv_rate")[3], 10);
}

/// A file that was changed after the requests, and rows that were created after them in a file that claims to be old.
#[test]
fn late_rows_are_explained() {
    let home = home();
    log_after(&home, |_| {});
    let file = home.path("data/stats/a.parquet");
    let original = fs::read(&file).unwrap();
    write_stats(&file, now() - 2 * HOUR, now() - 2 * HOUR, |driver| driver as f64 / 9.0);
    let ended = verify(&home);
    ended.assert_code(0);
    // Driver 0 has no rate, and each seventh driver has none either. The integers are unchanged.
    let changed = u64::try_from((1..DRIVERS).filter(|driver| driver % 7 > 0).count()).unwrap();
    assert_eq!(counts(&ended, "stats__conv_rate"), [32, 32 - changed, changed, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(counts(&ended, "stats__trips"), [32, 32, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(
        counts(&ended, "odfv_python__conv_x_amount")[2],
        counts(&ended, "odfv_python__conv_x_amount")[0] - counts(&ended, "odfv_python__conv_x_amount")[1]
    );

    fs::write(&file, original).unwrap();
    let second = home.path("data/stats/b.parquet");
    write_stats(&second, now() - HOUR, now() + HOUR, |driver| driver as f64 / 9.0);
    for file in [&file, &second] {
        #[expect(clippy::disallowed_methods, reason = "the time of a file")]
        let old = SystemTime::now() - Duration::from_secs(3 * 3_600);
        File::options().write(true).open(file).unwrap().set_modified(old).unwrap();
    }
    let ended = verify(&home);
    ended.assert_code(0);
    assert_eq!(counts(&ended, "stats__conv_rate"), [32, 32 - changed, changed, 0, 0, 0, 0, 0, 0, 0]);

    // The same rows, with an earlier created time, should have been served.
    write_stats(&second, now() - HOUR, now() - HOUR, |driver| driver as f64 / 9.0);
    #[expect(clippy::disallowed_methods, reason = "the time of a file")]
    let old = SystemTime::now() - Duration::from_secs(3 * 3_600);
    File::options().write(true).open(&second).unwrap().set_modified(old).unwrap();
    let ended = verify(&home);
    ended.assert_code(1).assert_complains(&[
        "differ from the files for no known reason",
        "unexplained: odfv_python__conv_x_amount of driver_id=",
    ]);
    assert_eq!(counts(&ended, "stats__conv_rate"), [32, 32 - changed, 0, 0, 0, 0, 0, 0, 0, changed]);
}

/// A file that was written after the requests does not explain any value of a row with the same time.
#[test]
fn replaced_file_is_not_evidence() {
    let home = home();
    let event = now() - 2 * HOUR;
    let file = home.path("data/stats/a.parquet");
    write_stats(&file, event, event, |driver| driver as f64 / 7.0);
    log_after(&home, |_| {});
    write_stats(&file, event, event, |driver| driver as f64 / 7.0);
    change_log(&home, "rides", |column, old| (column == "stats__conv_rate").then(|| with_double(old, 3, Some(0.5))));
    let ended = verify(&home);
    ended.assert_code(0).assert_complains(&[
        "1 value is REPLACED: their files were written after the requests, so the earlier values are unknown",
    ]);
    assert_eq!(counts(&ended, "stats__conv_rate"), [32, 31, 0, 0, 0, 1, 0, 0, 0, 0]);
    assert!(ended.out.contains(" 0 explained, 1 replaced, 0 unexplained"), "{}", ended.out);
    assert_eq!(counts(&ended, "stats__trips"), [32, 32, 0, 0, 0, 0, 0, 0, 0, 0]);
    // Rows that were corrected with a later created time are late.
    write_stats(&file, event, now() + HOUR, |driver| driver as f64 / 9.0);
    let ended = verify(&home);
    assert_eq!(counts(&ended, "stats__conv_rate")[5], 0, "{}", ended.out);
    assert!(counts(&ended, "stats__conv_rate")[2] > 20, "{}", ended.out);
}

/// A file that arrived before the request, but after the last load of its view.
#[test]
fn rows_not_loaded_yet_are_late() {
    let home = home();
    log_after(&home, |_| {
        write_stats(&home.path("data/stats/b.parquet"), now() - HOUR, now() - HOUR, |driver| driver as f64 / 9.0);
    });
    let ended = verify(&home);
    ended.assert_code(0);
    assert!(counts(&ended, "stats__conv_rate")[2] > 0, "{}", ended.out);
}

#[test]
fn other_ttl_mode_is_explained() {
    let home = home();
    log_after(&home, |_| {});
    home.configure("serving: {ttl: \"null\"}\n");
    let ended = verify(&home);
    ended.assert_code(0);
    assert_eq!(counts(&ended, "aged__n"), [32, 17, 0, 0, 0, 0, 15, 0, 0, 0]);
    assert_eq!(counts(&ended, "stats__trips"), [32, 32, 0, 0, 0, 0, 0, 0, 0, 0]);
}

/// A value that another component computed, as the digest in the log proves.
#[test]
fn other_component_is_explained() {
    let home = home();
    log_after(&home, |_| {});
    let change = |name: &str, column: &ArrayRef| match name {
        "odfv_python__conv_x_amount" => Some(with_double(column, 4, Some(77.0))),
        "__larder_component__odfv_python" => {
            let digests = column.as_string::<i32>().iter().enumerate();
            let digest = |(row, digest): (usize, Option<&str>)| {
                if row == 4 { Some("0".repeat(64)) } else { digest.map(str::to_owned) }
            };
            Some(Arc::new(digests.map(digest).collect::<StringArray>()) as ArrayRef)
        }
        _ => None,
    };
    change_log(&home, "prices", change);
    let ended = verify(&home);
    ended.assert_code(0);
    assert_eq!(counts(&ended, "odfv_python__conv_x_amount"), [32, 31, 0, 0, 0, 0, 0, 1, 0, 0]);
}

/// The plugin was not deployed when the request was answered.
#[test]
fn missing_plugin_is_another_component() {
    let home = home();
    fs::rename(home.path("plugins/odfv_python.wasm"), home.path("plugin")).unwrap();
    log_after(&home, |_| {});
    fs::rename(home.path("plugin"), home.path("plugins/odfv_python.wasm")).unwrap();
    let ended = verify(&home);
    ended.assert_code(0);
    let counts = counts(&ended, "odfv_python__label");
    assert!(counts[7] > 0 && counts[9] == 0, "{counts:?}");
}

/// In a table, a later write replaces a row even if its event time is older.
#[test]
fn overwritten_rows_of_tables_are_explained() {
    let home = home();
    log_after(&home, |_| {});
    // The log of a server whose table has an older row of driver 5.
    let older = now() - 5 * HOUR;
    change_log(&home, "rides", |name, column| match name {
        "stats__conv_rate" => Some(with_double(column, 5, Some(0.125))),
        "stats__conv_rate__timestamp" => {
            let times = column.as_primitive::<TimestampMicrosecondType>().iter().enumerate();
            let times = times.map(|(row, time)| if row == 5 { Some(older) } else { time });
            Some(Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC")) as ArrayRef)
        }
        _ => None,
    });
    let ended = verify(&home);
    ended.assert_code(1);
    assert_eq!(counts(&ended, "stats__conv_rate"), [32, 31, 0, 0, 0, 0, 0, 0, 0, 1], "files have no later writes");
    let files = "source: {path: data/stats, timestamp_field: event_timestamp, created_timestamp_column: created}";
    assert!(DEFINITIONS.contains(files));
    let table = format!("source: {{dynamodb: stats}}\n    batch_{files}");
    home.write("features/all.yaml", &DEFINITIONS.replace(files, &table).replace("    push_source: stats\n", ""));
    let ended = verify(&home);
    ended.assert_code(0);
    assert_eq!(counts(&ended, "stats__conv_rate"), [32, 31, 0, 0, 1, 0, 0, 0, 0, 0]);
    ended.assert_complains(&["rows were logged with other definitions"]);
}

/// Any other changed bit is an error: the sign of a zero, the payload of a NaN in a list, a null.
#[test]
fn changed_bits_are_unexplained() {
    let home = home();
    log_after(&home, |_| {});
    copy_dir(&home.path("log"), &home.path("original"));
    for (name, change) in [
        ("stats__conv_rate", (|column| with_double(column, 3, None)) as fn(&ArrayRef) -> ArrayRef),
        ("stats__conv_rate", |column| {
            let bits = column.as_primitive::<Float64Type>().value(3).to_bits() ^ 1;
            with_double(column, 3, Some(f64::from_bits(bits)))
        }),
        ("stats__scores", |column| {
            let lists = column.as_list::<i32>().iter();
            let positive = |list: ArrayRef| {
                list.as_primitive::<Float64Type>().iter().map(|item| item.map(|item| item + 0.0)).collect::<Vec<_>>()
            };
            Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(lists.map(|list| list.map(positive))))
        }),
        ("odfv_python__conv_x_amount", |column| with_double(column, 3, Some(1.0))),
    ] {
        fs::remove_dir_all(home.path("log")).unwrap();
        copy_dir(&home.path("original"), &home.path("log"));
        let service = if name.starts_with("odfv") { "prices" } else { "rides" };
        change_log(&home, service, |column, old| (column == name).then(|| change(old)));
        let ended = verify(&home);
        ended.assert_code(1);
        let counts = counts(&ended, name);
        assert!(counts[9] > 0 && counts[1] + counts[9] == 32, "{name}: {counts:?}");
    }
}

/// A server serves rows with later event times. Training sets do not use them yet.
#[test]
fn future_event_times_are_explained() {
    let home = home();
    write_stats(&home.path("data/stats/b.parquet"), now() + HOUR, now() - HOUR, |driver| driver as f64 / 9.0);
    log_after(&home, |_| {});
    let ended = verify(&home);
    ended.assert_code(0);
    let conv_rate = counts(&ended, "stats__conv_rate");
    assert!(conv_rate[8] > 20 && conv_rate[1] + conv_rate[8] == 32, "{conv_rate:?}");
    let derived = counts(&ended, "odfv_python__conv_x_amount");
    assert!(derived[8] > 20 && derived[1] + derived[8] == 32, "{derived:?}");
    // The future row has other bits than the log.
    change_log(&home, "rides", |column, old| (column == "stats__conv_rate").then(|| with_double(old, 3, Some(0.5))));
    assert_eq!(counts(verify(&home).assert_code(1), "stats__conv_rate")[9], 1);
}

/// A service with all features of a view also has the features that are added to the view later.
#[test]
fn added_and_removed_features_are_reported() {
    let home = home();
    log_after(&home, |_| {});
    let trips = "{name: trips, type: Int64}";
    let with_added = DEFINITIONS.replace(trips, &format!("{{name: added, type: Int64}}, {trips}"));
    home.write("features/all.yaml", &with_added.replace("created}", "created, field_mapping: {trips: added}}"));
    write_stats(&home.path("data/stats/a.parquet"), now() - 2 * HOUR, now() - 2 * HOUR, |driver| driver as f64 / 9.0);
    let ended = verify(&home);
    ended.assert_code(0).assert_complains(&[
        "feature service 'rides': some rows of the log have no feature 'stats__added', which is not verified for them",
    ]);
    assert!(!ended.out.contains("stats__added"), "{}", ended.out);
    let conv_rate = counts(&ended, "stats__conv_rate");
    assert!(conv_rate[2] > 20 && conv_rate[1] + conv_rate[2] == 32, "{conv_rate:?}");
    home.write("features/all.yaml", &DEFINITIONS.replace(&format!(", {trips}"), ""));
    let ended = verify(&home);
    ended.assert_code(0).assert_complains(&[
        "feature service 'rides': the log has feature 'stats__trips', which the service does not have, so it is not verified",
    ]);
    assert_eq!(counts(&ended, "stats__scores")[0], 32);
}

#[test]
fn mistakes_name_the_file() {
    let home = home();
    verify(&home).assert_code(1).assert_complains(&["cannot read log: No such file"]);
    fs::create_dir(home.path("log")).unwrap();
    fs::write(home.path("log/.half.parquet.tmp"), "PAR1").unwrap();
    verify(&home)
        .assert_code(1)
        .assert_complains(&["No data found in source log: the directory has no *.parquet file"]);
    let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
    write(&home.path("log/other.parquet"), &vec![("x", flags)]);
    verify(&home).assert_code(1).assert_complains(&[
        "log/other.parquet: not a file of Larder's feature log: its metadata has no 'larder.service'",
    ]);
    fs::write(home.path("log/other.parquet"), "no").unwrap();
    verify(&home).assert_code(1).assert_complains(&["log/other.parquet"]);
    home.run(["verify", "--parity", "log", "--service", "rides"]).assert_code(2);
    fs::remove_dir_all(home.path("log")).unwrap();
    log_after(&home, |_| {});
    home.write("larder.yaml", LARDER_YAML);
    home.write("features/all.yaml", &DEFINITIONS.replace("{name: rides,", "{name: ride,"));
    let ended = verify(&home);
    ended.assert_complains(&[
        "cannot verify the log of feature service 'rides': the service is not defined",
        "did you mean 'ride'",
    ]);
    // The other service is verified nevertheless.
    assert_eq!(counts(ended.assert_code(1), "odfv_python__label")[1], 32);
}
