//! `larder materialize`, which writes files to tables in Feast's layout. The tests run the program itself, with and
//! without faults of DynamoDB.

use std::{fs, sync::Arc, time::Duration};

use arrow::array::{ArrayRef, Float64Array, Int64Array, TimestampMicrosecondArray};
use expect_test::expect;
use larder_fakeaws::{FakeDynamo, Fault, FaultProxy, When};
use serde_json::{Value, json};

use crate::{
    binary::{Ended, Home, Running},
    fixture::{RECORDED_AT, Setup, eventually},
    moto::Moto,
    parquet,
};

const TABLE: &str = "churn_prediction.driver_stats";
const FILE: &str = "data/stats.parquet";

const DEFINITIONS: &str = "
entities: [{name: driver, join_key: driver_id, type: Int64}]
feature_views:
  - name: driver_stats
    entities: [driver]
    source: {path: data/stats.parquet, timestamp_field: event_timestamp}
    features:
      - {name: trips, type: Int64}
      - {name: rate, type: Float64}
      - {name: seen, type: UnixTimestamp}
";

/// A row: the driver, the event time in microseconds after the recording, and the trips.
type Row = (i64, i64, Option<i64>);

fn write(home: &Home, rows: &[Row]) {
    let columns = columns(rows);
    parquet::write(&home.path(FILE), &columns);
}

fn columns(rows: &[Row]) -> parquet::Columns {
    vec![
        ("driver_id", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))) as ArrayRef),
        (
            "event_timestamp",
            Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| RECORDED_AT + row.1))),
        ),
        ("trips", Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>())),
        ("rate", Arc::new(rows.iter().map(|row| row.2.map(|_| 0.5)).collect::<Float64Array>())),
        (
            "seen",
            Arc::new(
                rows.iter().map(|row| row.2.map(|_| 1_700_000_000_000_000)).collect::<TimestampMicrosecondArray>(),
            ),
        ),
    ]
}

/// Returns rows of drivers 1 to `drivers`. The trips of each driver are the driver's number times `factor`.
fn drivers(drivers: i64, factor: i64) -> Vec<Row> {
    (1..=drivers).map(|driver| (driver, 0, Some(driver * factor))).collect()
}

fn aws(url: &str) -> String {
    format!(
        "aws: {{dynamodb_endpoint: \"{url}\", connect_timeout: 500ms, attempt_timeout: 1s, operation_timeout: 2s, \
         attempts_max: 2}}\n"
    )
}

fn home(url: &str, rows: &[Row]) -> Home {
    let home = Home::with(DEFINITIONS);
    home.configure(&aws(url));
    write(&home, rows);
    home
}

fn table() -> FakeDynamo {
    let dynamo = FakeDynamo::start();
    dynamo.create_table(TABLE, &[("entity_id", "S")], None);
    dynamo
}

fn command(home: &Home, args: &[&str]) -> std::process::Command {
    let mut command = home.larder(["materialize"].iter().chain(args).copied());
    command.env("AWS_REGION", "eu-west-1");
    command
}

fn materialize(home: &Home, args: &[&str]) -> Ended {
    let output = command(home, args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

#[track_caller]
fn assert_says(ended: &Ended, words: &[&str]) {
    ended.assert_code(0);
    words.iter().for_each(|words| assert!(ended.out.contains(words), "no '{words}' in: {}", ended.out));
}

/// Returns the trips of all items, sorted.
fn trips(dynamo: &FakeDynamo) -> Vec<u64> {
    let trips = |item: &Value| varint(&item["values"]["M"]["trips"]["B"]);
    let mut trips: Vec<u64> = dynamo.items(TABLE).iter().map(trips).collect();
    trips.sort_unstable();
    trips
}

/// Returns the number in a `feast.types.Value` with an `int64_val`.
fn varint(bytes: &Value) -> u64 {
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, bytes.as_str().unwrap()).unwrap();
    assert_eq!(bytes[0], 0x20, "{bytes:?}");
    bytes[1..].iter().rev().fold(0, |number, byte| (number << 7) | u64::from(byte & 0x7f))
}

fn expected(drivers: u64, factor: u64) -> Vec<u64> {
    (1..=drivers).map(|driver| driver * factor).collect()
}

#[test]
fn items_equal_feast_byte_for_byte() {
    let dynamo = table();
    let home = home(&dynamo.url(), &[(1001, 0, Some(300)), (1002, 123_000, None), (1003, -1, Some(0))]);
    let ended = materialize(&home, &[]);
    assert_eq!(ended.err, "");
    assert_says(
        &ended,
        &["driver_stats: 3 rows to DynamoDB table 'churn_prediction.driver_stats' in ", " rows/s): 3 written\n"],
    );
    let mut items: Vec<String> = dynamo.items(TABLE).iter().map(Value::to_string).collect();
    items.sort();
    expect![[r#"
        {"entity_id":{"S":"1c2e07235588d781baea24f146ff4a77"},"event_ts":{"S":"2026-11-23 09:13:10.123000+00:00"},"values":{"M":{"rate":{"B":""},"seen":{"B":"QICAgICAgICAgAE="},"trips":{"B":""}}}}
        {"entity_id":{"S":"2bef5f27a21320edd171a70520ef420e"},"event_ts":{"S":"2026-11-23 09:13:09.999999+00:00"},"values":{"M":{"rate":{"B":"KQAAAAAAAOA/"},"seen":{"B":"QIDiz6oG"},"trips":{"B":"IAA="}}}}
        {"entity_id":{"S":"f3cfd4a822f245b63975464763babaec"},"event_ts":{"S":"2026-11-23 09:13:10+00:00"},"values":{"M":{"rate":{"B":"KQAAAAAAAOA/"},"seen":{"B":"QIDiz6oG"},"trips":{"B":"IKwC"}}}}
    "#]]
    .assert_eq(&(items.join("\n") + "\n"));
}

#[test]
fn golden_repository_equals_feast_tables() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/dynamodb/tables.json");
    let recorded: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let dynamo = FakeDynamo::start();
    let home = Home::golden();
    home.configure(&aws(&dynamo.url()));
    materialize(&home, &["--create-tables", "--table-template", "{project}.{view}"]).assert_code(0);
    let values = |items: &[Value]| {
        let mut values: Vec<(String, String, String)> = Vec::new();
        for item in items {
            for (name, value) in item["values"]["M"].as_object().unwrap() {
                values.push((item["entity_id"]["S"].to_string(), name.clone(), value.to_string()));
            }
        }
        values.sort();
        values
    };
    let mut differ = Vec::new();
    for (name, table) in recorded.as_object().unwrap() {
        let (ours, theirs) = (values(&dynamo.items(name)), values(table["Items"].as_array().unwrap()));
        assert_eq!(ours.len(), theirs.len(), "{name}");
        let pairs = ours.into_iter().zip(theirs).filter(|(ours, theirs)| ours != theirs);
        differ.extend(pairs.map(|(ours, theirs)| format!("{}: {} and {}", ours.1, ours.2, theirs.2)));
    }
    // Feast had converted one integer, 2^53 + 1, to a double.
    assert_eq!(differ, [r#"txn_count: {"B":"IIGAgICAgIAQ"} and {"B":"IICAgICAgIAQ"}"#]);
}

#[test]
fn newest_row_wins_in_table() {
    let dynamo = table();
    let home = home(&dynamo.url(), &[(1, 10, Some(2)), (1, 20, Some(3)), (1, 0, Some(1)), (2, 0, Some(20))]);
    assert_says(&materialize(&home, &[]), &[": 2 rows to ", "): 2 written\n"]);
    assert_eq!(trips(&dynamo), [3, 20]);
    // The first row is older than the table's item, the second has the same time, and the third is new. Some times have
    // fractions of a second in the table.
    write(&home, &[(1, 19, Some(4)), (2, 0, Some(21)), (3, 0, Some(30))]);
    assert_says(&materialize(&home, &[]), &["): 1 written, 2 not newer than the table's items\n"]);
    assert_eq!(trips(&dynamo), [3, 20, 30]);
    write(&home, &[(1, 21, Some(5)), (2, 1, Some(22)), (3, -1, Some(31))]);
    assert_says(&materialize(&home, &[]), &["): 2 written, 1 not newer than the table's items\n"]);
    assert_eq!(trips(&dynamo), [5, 22, 30]);
}

#[test]
fn future_rows_are_skipped() {
    let dynamo = table();
    let century = 100 * 365 * 86_400_000_000;
    let home = home(&dynamo.url(), &[(1, 0, Some(1)), (1, century, Some(9)), (2, century, Some(2)), (3, 0, Some(3))]);
    let ended = materialize(&home, &[]);
    let skipped = "2 rows skipped for an event time later than now plus 'sync: future_tolerance'";
    assert_says(&ended, &[": 2 rows to ", skipped]);
    assert_eq!(trips(&dynamo), [1, 3]);

    home.run(["sync"]).assert_code(0);
    let verified = home.run(["verify"]);
    verified.assert_code(0);
    let words = "driver_stats: skipped 2 rows with an event time later than now plus 'sync: future_tolerance' (1h)";
    assert!(verified.out.contains(words) || verified.err.contains(words), "{}{}", verified.out, verified.err);
}

#[test]
fn overwrite_replaces_newer_rows() {
    let dynamo = table();
    let home = home(&dynamo.url(), &drivers(60, 1));
    assert_says(&materialize(&home, &["--overwrite"]), &[": 60 rows to ", "): 60 written\n"]);
    assert_eq!(dynamo.calls()["BatchWriteItem"], 3, "batches of 25 items");
    let older: Vec<Row> = (1..=60).map(|driver| (driver, -1_000_000, Some(driver * 2))).collect();
    write(&home, &older);
    assert_says(&materialize(&home, &["--overwrite"]), &["): 60 written\n"]);
    assert_eq!(trips(&dynamo), expected(60, 2));
}

#[test]
fn only_the_time_range_is_written() {
    let dynamo = table();
    let second = 1_000_000;
    let home = home(&dynamo.url(), &[(1, 0, Some(1)), (1, 90 * second, Some(9)), (2, 50 * second, Some(2))]);
    let span = ["--from", "2026-11-23T09:13:10Z", "--to", "2026-11-23T09:13:50Z"];
    assert_says(&materialize(&home, &span), &[": 1 row to ", "; 2 rows are outside the given times"]);
    assert_eq!(trips(&dynamo), [1]);
    materialize(&home, &["--config", "nowhere.yaml"]).assert_code(3).assert_complains(&["nowhere.yaml"]);
    let ended = materialize(&home, &["--from", "2026-11-24", "--to", "2026-11-23"]);
    ended.assert_code(2).assert_complains(&["--from is later than --to"]);
}

#[test]
fn rejected_run_resumes_after_written_rows() {
    let dynamo = table();
    let proxy = FaultProxy::start(dynamo.address());
    let home = home(&proxy.url(), &drivers(300, 1));
    proxy.refuse("PutItem", When::Every(250), 400, "AccessDeniedException");
    let cut_off = materialize(&home, &["--concurrency", "1"]);
    cut_off.assert_code(1).assert_complains(&[
        "view 'driver_stats': DynamoDB table 'churn_prediction.driver_stats': PutItem: AccessDeniedException",
        "1 feature view could not be materialized",
    ]);
    let note = home.path("data/store-materialize/driver_stats/progress.json");
    assert!(fs::read_to_string(&note).unwrap().contains("\"done\":192"));
    proxy.heal();
    assert_says(
        &materialize(&home, &["--concurrency", "1"]),
        &[": 108 rows to ", "): 51 written, 57 not newer than the table's items; an earlier run wrote 192\n"],
    );
    assert_eq!(dynamo.calls()["PutItem"], 249 + 108);
    assert_eq!(trips(&dynamo), expected(300, 1));
    assert!(!home.path("data/store-materialize").try_exists().unwrap(), "the scratch directory is removed");
}

#[test]
fn killed_run_resumes() {
    let dynamo = table();
    let proxy = FaultProxy::start(dynamo.address());
    let home = home(&proxy.url(), &drivers(900, 1));
    proxy.rule(".PutItem\r", When::Always, Fault::Delay(Duration::from_millis(10)));
    let running = Running::new(command(&home, &["--concurrency", "1", "--work-dir", "work"]).spawn().unwrap());
    eventually("some items are written", || dynamo.items(TABLE).len() > 150);
    // A second run with the same directory fails while the first one runs.
    let second = materialize(&home, &["--work-dir", "work"]);
    second.assert_code(1).assert_complains(&["view 'driver_stats': the scratch store: ", "in use"]);
    drop(running);
    proxy.heal();
    assert!(dynamo.items(TABLE).len() < 900);
    assert_says(&materialize(&home, &["--work-dir", "work"]), &["; an earlier run wrote "]);
    assert_eq!(trips(&dynamo), expected(900, 1));
    assert_eq!(fs::read_dir(home.path("work")).unwrap().count(), 0, "the directory is empty");
}

#[test]
fn changed_input_starts_from_scratch() {
    let dynamo = table();
    let proxy = FaultProxy::start(dynamo.address());
    let home = home(&proxy.url(), &drivers(200, 1));
    let cut_off = |args: &[&str]| {
        proxy.refuse("PutItem", When::Every(150), 400, "AccessDeniedException");
        materialize(&home, &[&["--concurrency", "1"], args].concat()).assert_code(1);
        proxy.heal();
    };
    let anew = |args: &[&str]| {
        let ended = materialize(&home, args);
        ended.assert_code(0);
        assert!(!ended.out.contains("an interrupted run"), "{}", ended.out);
    };
    cut_off(&[]);
    let newer: Vec<Row> = (1..=200).map(|driver| (driver, 1, Some(driver * 3))).collect();
    write(&home, &newer);
    anew(&[]);
    assert_eq!(trips(&dynamo), expected(200, 3), "another file");

    cut_off(&[]);
    anew(&["--overwrite"]);
    cut_off(&["--from", "2026-01-01"]);
    anew(&["--from", "2026-01-02"]);

    cut_off(&[]);
    dynamo.recreate(TABLE);
    anew(&[]);
    assert_eq!(trips(&dynamo), expected(200, 3), "another table");

    cut_off(&[]);
    home.write("features/all.yaml", &DEFINITIONS.replace("      - {name: rate, type: Float64}\n", ""));
    anew(&["--overwrite"]);
    assert!(dynamo.items(TABLE).iter().all(|item| item["values"]["M"]["rate"].is_null()), "another view");
}

#[test]
fn failed_requests_are_retried() {
    let dynamo = table();
    let proxy = FaultProxy::start(dynamo.address());
    let home = home(&proxy.url(), &drivers(200, 1));
    dynamo.throttle("PutItem", 40);
    proxy.refuse("PutItem", When::First(20), 500, "InternalServerError");
    proxy.rule(".PutItem\r", When::First(10), Fault::Reset);
    proxy.rule(".PutItem\r", When::First(2), Fault::Silence);
    proxy.refuse("DescribeTable", When::First(3), 400, "ThrottlingException");
    let ended = materialize(&home, &[]);
    assert_says(&ended, &[": 200 rows to "]);
    assert_eq!(trips(&dynamo), expected(200, 1));
}

#[test]
fn leftover_batch_items_are_retried() {
    let dynamo = table();
    let home = home(&dynamo.url(), &drivers(300, 1));
    dynamo.unprocessed_items(10);
    dynamo.throttle("BatchWriteItem", 10);
    assert_says(&materialize(&home, &["--overwrite"]), &["): 300 written\n"]);
    assert_eq!(trips(&dynamo), expected(300, 1));
}

#[test]
fn stuck_table_is_an_error() {
    let dynamo = table();
    let home = home(&dynamo.url(), &drivers(10, 1));
    for (operation, args) in
        [("PutItem", &["--retry-timeout", "1s"][..]), ("BatchWriteItem", &["--retry-timeout", "1s", "--overwrite"])]
    {
        dynamo.throttle(operation, 1_000_000);
        materialize(&home, args).assert_code(1).assert_complains(&[
            "view 'driver_stats': DynamoDB table 'churn_prediction.driver_stats': no progress for 1s: ",
            operation,
            "ProvisionedThroughputExceededException",
        ]);
    }
}

#[test]
fn missing_table_is_created_on_demand() {
    let dynamo = FakeDynamo::start();
    let home = home(&dynamo.url(), &drivers(3, 1));
    materialize(&home, &[]).assert_code(1).assert_complains(&[
        "view 'driver_stats': DynamoDB table 'churn_prediction.driver_stats' does not exist. hint: --create-tables creates it",
    ]);
    assert!(!home.path("data/store-materialize").try_exists().unwrap(), "no file was read");
    dynamo.creating(2);
    assert_says(&materialize(&home, &["--create-tables", "--table-template", "{project}.{view}"]), &["): 3 written\n"]);
    assert_eq!(dynamo.calls()["CreateTable"], 1);
    assert_eq!(trips(&dynamo), expected(3, 1));
    assert_says(
        &materialize(&home, &["--create-tables", "--table-template", "{project}.{view}"]),
        &["): 0 written, 3 not newer"],
    );
    assert_eq!(dynamo.calls()["CreateTable"], 1);
}

#[test]
fn table_with_other_keys_is_rejected() {
    let dynamo = FakeDynamo::start();
    dynamo.create_table(TABLE, &[("driver_id", "N"), ("day", "S")], None);
    let home = home(&dynamo.url(), &drivers(3, 1));
    materialize(&home, &["--create-tables", "--table-template", "{project}.{view}"])
        .assert_code(1)
        .assert_complains(&["its key is 'driver_id' and 'day', but the key of Feast's layout is 'entity_id'"]);
}

#[test]
fn write_only_role_suffices() {
    let dynamo = table();
    let proxy = FaultProxy::start(dynamo.address());
    proxy.refuse("DescribeTable", When::Always, 400, "AccessDeniedException");
    assert_says(&materialize(&home(&proxy.url(), &drivers(3, 1)), &[]), &["): 3 written\n"]);
    let missing = FakeDynamo::start();
    let proxy = FaultProxy::start(missing.address());
    proxy.refuse("DescribeTable", When::Always, 400, "AccessDeniedException");
    let ended = materialize(&home(&proxy.url(), &drivers(3, 1)), &[]);
    ended.assert_code(1).assert_complains(&["DynamoDB table 'churn_prediction.driver_stats' does not exist"]);
}

#[test]
fn invalid_views_do_not_affect_others() {
    let dynamo = table();
    let home = home(&dynamo.url(), &drivers(3, 1));
    let pushed = "  - {name: pushed_stats, entities: [driver], features: [{name: n, type: Int64}]}\n";
    home.write("features/all.yaml", &(DEFINITIONS.to_owned() + pushed));
    let ended = materialize(&home, &["pushed_stats", "driver_stat", "driver_stats"]);
    ended.assert_code(1).assert_complains(&[
        "view 'pushed_stats' has no files to materialize",
        "feature view 'driver_stat' does not exist (did you mean 'driver_stats'?)",
        "2 feature views could not be materialized",
    ]);
    assert!(ended.out.contains("driver_stats: 3 rows to "), "{}", ended.out);
    // Views without files are an error only if they are named.
    assert_says(&materialize(&home, &[]), &["driver_stats: 3 rows to "]);
    fs::remove_file(home.path(FILE)).unwrap();
    materialize(&home, &[]).assert_code(1).assert_complains(&["view 'driver_stats'", FILE]);
    home.write(
        "features/all.yaml",
        &format!("entities: [{{name: driver, join_key: driver_id, type: Int64}}]\nfeature_views:\n{pushed}"),
    );
    materialize(&home, &[]).assert_code(1).assert_complains(&["no feature view has files to materialize"]);
}

#[test]
fn table_comes_from_view_or_template() {
    let dynamo = FakeDynamo::start();
    dynamo.create_table("shop.drivers", &[("entity_id", "S")], None);
    let home = home(&dynamo.url(), &drivers(3, 1));
    assert_says(
        &materialize(&home, &["--table-template", "dev_{view}_of_{project}", "--create-tables"]),
        &["DynamoDB table 'dev_driver_stats_of_churn_prediction'"],
    );
    let own = DEFINITIONS.replace("    source: {path", "    source: {dynamodb: shop.drivers}\n    batch_source: {path");
    home.write("features/all.yaml", &own);
    assert_says(&materialize(&home, &[]), &["driver_stats: 3 rows to DynamoDB table 'shop.drivers'"]);
    let twice = own
        .replace("  - name: driver_stats", "  - name: other_stats")
        .split_once("feature_views:\n")
        .unwrap()
        .1
        .to_owned();
    home.write("features/all.yaml", &(own + &twice));
    materialize(&home, &[]).assert_code(2).assert_complains(&["would both be written to table 'shop.drivers'"]);
    home.write("features/all.yaml", DEFINITIONS);
    let ended = materialize(&home, &["--table-template", "{projekt}.{view}"]);
    ended.assert_code(2).assert_complains(&["only {project} and {view} are placeholders"]);
    home.configure("store: {data_dir: work/driver_stats/scratch}\n");
    let ended = materialize(&home, &["--work-dir", "work"]);
    ended.assert_code(2).assert_complains(&["contains the served store"]);
}

#[test]
fn oversized_item_is_skipped() {
    let dynamo = FakeDynamo::start();
    let home = Home::with(&DEFINITIONS.replace("{name: rate, type: Float64}", "{name: note, type: String}"));
    home.configure(&aws(&dynamo.url()));
    let mut rows = columns(&drivers(2, 1));
    rows.push(("note", Arc::new(arrow::array::StringArray::from(vec!["x".repeat(500_000), "y".to_owned()]))));
    parquet::write(&home.path(FILE), &rows);
    assert_says(
        &materialize(&home, &["--create-tables", "--table-template", "{project}.{view}"]),
        &["): 1 written; SKIPPED: 1 too large; the first: entity id ", "DynamoDB accepts at most 409600"],
    );
    assert_eq!(trips(&dynamo), [2]);
}

#[test]
fn s3_files_work_with_other_dynamodb() {
    let (dynamo, moto) = (table(), Moto::start());
    moto.bucket("features");
    let home = home(&dynamo.url(), &drivers(20, 1));
    moto.put("features", "stats/part-0.parquet", &fs::read(home.path(FILE)).unwrap());
    home.write("features/all.yaml", &DEFINITIONS.replace(FILE, "\"s3://features/stats/\""));
    let config = fs::read_to_string(home.path("larder.yaml")).unwrap();
    let s3 = format!("aws: {{s3_endpoint: \"{}\", s3_path_style: true, ", moto.url());
    home.write("larder.yaml", &config.replace("aws: {", &s3));
    assert_says(&materialize(&home, &[]), &["): 20 written\n"]);
    assert_eq!(trips(&dynamo), expected(20, 1));
    // Tests conditions, batches and new tables with an independent implementation of DynamoDB.
    let config = fs::read_to_string(home.path("larder.yaml")).unwrap();
    home.write("larder.yaml", &config.replace(&dynamo.url(), &moto.url()));
    materialize(&home, &[]).assert_code(1).assert_complains(&["DynamoDB table '", "' does not exist"]);
    assert_says(
        &materialize(&home, &["--create-tables", "--table-template", "{project}.{view}"]),
        &["): 20 written\n"],
    );
    assert_says(&materialize(&home, &[]), &["): 0 written, 20 not newer than the table's items\n"]);
    assert_says(&materialize(&home, &["--overwrite"]), &["): 20 written\n"]);
    let mut newer: Vec<Row> = (1..=20).map(|driver| (driver, driver % 2, Some(driver))).collect();
    newer.push((21, -5, None));
    write(&home, &newer);
    moto.put("features", "stats/part-0.parquet", &fs::read(home.path(FILE)).unwrap());
    assert_says(&materialize(&home, &[]), &["): 11 written, 10 not newer than the table's items\n"]);
}

#[test]
fn table_and_file_servers_agree() {
    let dynamo = FakeDynamo::start();
    let home = Home::golden();
    home.configure(&aws(&dynamo.url()));
    materialize(&home, &["--create-tables", "--table-template", "{project}.{view}"]).assert_code(0);
    let golden = Setup::golden().config(&format!("{}sync: {{retry: 200ms}}\n", aws(&dynamo.url())));
    let path = golden.path("features/feast_repo.yaml");
    let mut text = fs::read_to_string(&path).unwrap();
    let mut views = 0;
    while let Some(at) = text.find("    source:\n      path: data/") {
        let view = text[at..].split_once("data/").unwrap().1.split_once('.').unwrap().0.to_owned();
        let end = at + text[at..].find("    features:").unwrap();
        text.replace_range(at..end, &format!("    source: {{dynamodb: churn_prediction.{view}}}\n"));
        views += 1;
    }
    assert_eq!(views, 6);
    fs::write(&path, text).unwrap();
    let (tables, files) = (golden.start(), Setup::golden().start());
    let catalog: Value = serde_json::from_slice(&files.get("/v1/catalog").body).unwrap();
    let customers = json!(["CUST_000123", "CUST_000124", "CUST_000125", "CUST_MISSING", "", "é中"]);
    let pairs = json!([1001, 1002, 1001, 1003, 9999, -1]);
    for view in catalog["feature_views"].as_array().unwrap() {
        let name = view["name"].as_str().unwrap();
        let features = view["features"].as_array().unwrap().iter();
        let features: Vec<String> = features.map(|one| format!("{name}:{}", one["name"].as_str().unwrap())).collect();
        let features: Vec<&str> = features.iter().map(String::as_str).collect();
        let mut entities = json!({});
        for key in view["join_keys"].as_array().unwrap() {
            match key.as_str().unwrap() {
                "customer_id" => entities["customer_id"] = customers.clone(),
                "driver_id" => entities["driver_id"] = pairs.clone(),
                _ => {}
            }
        }
        let (ours, theirs) = (tables.features(&features, entities.clone()), files.features(&features, entities));
        assert_eq!(theirs.status, 200, "{name}: {}", theirs.text());
        assert_eq!(ours.json(), theirs.json(), "{name}");
        assert!(theirs.text().contains("PRESENT"), "{name}");
    }
}

/// Returns a table's stream specification, as DescribeTable reports it.
fn stream(dynamo: &FakeDynamo, table: &str) -> Value {
    let body = serde_json::json!({ "TableName": table }).to_string();
    let headers = [("x-amz-target", "DynamoDB_20120810.DescribeTable"), ("content-type", "application/x-amz-json-1.0")];
    let answer = crate::wire::send(dynamo.address(), "POST", "/", &headers, body.as_bytes());
    answer.json()["Table"]["StreamSpecification"].clone()
}

#[test]
fn new_tables_get_their_stream() {
    let dynamo = FakeDynamo::start();
    let home = home(&dynamo.url(), &drivers(3, 1));
    assert_says(&materialize(&home, &["driver_stats", "--create-tables"]), &["): 3 written\n"]);
    assert_eq!(stream(&dynamo, TABLE)["StreamViewType"], "NEW_IMAGE");
    let off = ["driver_stats", "--create-tables", "--no-stream", "--table-template", "off.{view}"];
    assert_says(&materialize(&home, &off), &["): 3 written\n"]);
    assert_eq!(stream(&dynamo, "off.driver_stats"), Value::Null);
    materialize(&home, &["--no-stream"]).assert_code(2);
}

#[test]
fn unnamed_tables_are_not_created() {
    let dynamo = FakeDynamo::start();
    let home = home(&dynamo.url(), &drivers(3, 1));
    let ended = materialize(&home, &["--create-tables"]);
    ended.assert_code(1).assert_complains(&["no feature view has files to materialize and also names a table"]);
    assert_eq!(dynamo.calls().get("CreateTable"), None);
    let (entities, view) = DEFINITIONS.split_once("feature_views:\n").unwrap();
    let own = view.replace("driver_stats", "own_stats");
    let own = own.replace("    source: {path", "    source: {dynamodb: shop.own}\n    batch_source: {path");
    home.write("features/all.yaml", &format!("{entities}feature_views:\n{view}{own}"));
    let ended = materialize(&home, &["--create-tables"]);
    assert_says(&ended, &["own_stats: 3 rows to DynamoDB table 'shop.own'"]);
    assert!(!ended.out.contains("driver_stats: "), "{}", ended.out);
    assert!(ended.err.contains("skipping view 'driver_stats': it names no table"), "{}", ended.err);
    assert_eq!(dynamo.calls()["CreateTable"], 1);
}
