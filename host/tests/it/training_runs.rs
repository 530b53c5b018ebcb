//! Runs of `larder training-set`: manifests, interruptions, full disks, and concurrent runs.

use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, RecordBatchReader as _, StringArray,
        TimestampMicrosecondArray,
    },
    compute::cast,
    datatypes::{DataType, Float64Type, TimestampMicrosecondType},
};
use parquet::arrow::{
    ArrowWriter,
    arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    binary::{Ended, Home, Running, TIMEOUT},
    guests::{guest, guest_with},
};

pub(crate) const DEFINITIONS: &str = "
entities:
  - {name: customer, join_key: customer_id, type: String}
feature_views:
  - name: stats
    entities: [customer]
    ttl: 100d
    features: [{name: visits, type: Float64}, {name: spent, type: Float64}]
    source: {path: stats.parquet, timestamp_field: at, created_timestamp_column: created}
  - name: limits
    entities: [customer]
    features: [{name: credit, type: Float64}]
    source: {path: limits.parquet, timestamp_field: at}
feature_services:
  - {name: all, features: [stats, limits]}
";
pub(crate) const SECOND: i64 = 1_000_000;
pub(crate) const START: i64 = 1_760_000_000 * SECOND;

pub(crate) fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
}

pub(crate) fn times(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(
        TimestampMicrosecondArray::from_iter_values(values.map(|value| START + value * SECOND)).with_timezone("UTC"),
    )
}

pub(crate) fn customers(values: impl Iterator<Item = usize>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values.map(|customer| format!("c{customer}"))))
}

/// Creates a project with `rows` rows of ten customers in each view, and as many entity rows.
pub(crate) fn project(rows: usize) -> Home {
    let home = Home::with(DEFINITIONS);
    let number = |row: usize| i64::try_from(row).unwrap();
    let floats = |of: fn(usize) -> f64| Arc::new(Float64Array::from_iter_values((0..rows).map(of))) as ArrayRef;
    write(
        &home.path("stats.parquet"),
        vec![
            ("customer_id", customers((0..rows).map(|row| row % 10))),
            ("at", times((0..rows).map(|row| number(row) * 10))),
            ("created", times((0..rows).map(|row| number(row) * 10 + 5))),
            ("visits", floats(|row| row as f64)),
            ("spent", floats(|row| row as f64 / 3.0)),
        ],
    );
    write(
        &home.path("limits.parquet"),
        vec![
            ("customer_id", customers((0..rows).map(|row| row % 10))),
            ("at", times((0..rows).map(|row| number(row) * 20))),
            ("credit", floats(|row| row as f64 / 7.0)),
        ],
    );
    write(
        &home.path("entities.parquet"),
        vec![
            ("customer_id", customers((0..rows).map(|row| (row * 7) % 11))),
            ("event_timestamp", times((0..rows).map(|row| number(rows - row) * 13))),
            ("label", Arc::new(Int64Array::from_iter_values((0..rows).map(number)))),
        ],
    );
    home
}

/// `DEFINITIONS` with a derived view that reads two stored views with the same key, and one that needs request data.
pub(crate) fn with_derived(home: &Home) {
    let inputs: String = [("a", "stats:visits"), ("b", "stats:spent"), ("c", "limits:credit"), ("d", "stats:spent")]
        .iter()
        .chain(&[("e", "limits:credit"), ("f", "stats:spent"), ("g", "stats:visits"), ("h", "limits:credit")])
        .map(|(name, from)| format!("      - {{name: {name}, from: \"{from}\"}}\n"))
        .collect();
    let derived = format!(
        "derived_views:\n  - name: numbers\n    plugin: bench_floats\n    inputs:\n{inputs}    features:\n      - {{name: sum, type: \
         Float64}}\n      - {{name: ratio, type: Float64}}\n  - name: needs_request\n    plugin: bench_floats\n    inputs:\n      - \
         {{name: a, request: Float64}}\n    features: [{{name: sum, type: Float64}}]\n"
    );
    home.write("features/all.yaml", &(DEFINITIONS.to_owned() + &derived));
    fs::create_dir_all(home.path("plugins")).unwrap();
    fs::copy(guest("bench/floats"), home.path("plugins/bench_floats.wasm")).unwrap();
}

pub(crate) fn run(home: &Home, out: &str, more: &[&str]) -> Ended {
    let args = ["training-set", "--entities", "entities.parquet", "--service", "all", "--out", out];
    home.run(args.into_iter().chain(more.iter().copied()))
}

pub(crate) fn read(path: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
    let schema = reader.schema();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    arrow::compute::concat_batches(&schema, &batches).unwrap()
}

pub(crate) fn names(home: &Home) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(home.path(".")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub(crate) fn has(home: &Home, name: &str) -> bool {
    names(home).iter().any(|other| other == name)
}

#[test]
fn output_ignores_memory_and_threads() {
    let home = project(40_000);
    run(&home, "a.parquet", &["--threads", "1"]).assert_code(0);
    // The entity rows and their features do not fit into 16 MiB.
    run(&home, "b.parquet", &["--threads", "3", "--memory", "16MiB"]).assert_code(0);
    assert!(fs::read(home.path("a.parquet")).unwrap() == fs::read(home.path("b.parquet")).unwrap());
    run(&home, "c.parquet", &["--memory", "15MiB"]).assert_code(2).assert_complains(&["must be at least 16 MiB"]);
    run(&home, "c.parquet", &["--memory", "many"])
        .assert_code(2)
        .assert_complains(&["not a size such as 512MiB or 2GiB"]);
    run(&home, "c.parquet", &["--threads", "0"]).assert_code(2);
}

#[test]
fn manifest_reproduces_the_set() {
    let home = project(5_000);
    run(&home, "a.parquet", &["--known-at", "created", "--event-timestamps", "--ttl", "mark"]).assert_code(0);
    let manifest: Value = serde_json::from_slice(&fs::read(home.path("a.parquet.manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["request"]["known_at"], "created");
    assert_eq!(manifest["report"]["rows"], 5_000);
    assert_eq!(manifest["inputs"]["views"]["stats"]["files"].as_object().unwrap().len(), 1);
    let again = |out: &str| home.run(["training-set", "--from", "a.parquet.manifest.json", "--out", out]);
    again("b.parquet").assert_code(0);
    assert!(fs::read(home.path("a.parquet")).unwrap() == fs::read(home.path("b.parquet")).unwrap());
    let options = ["training-set", "--from", "a.parquet.manifest.json", "--out", "c.parquet", "--ttl", "null"];
    home.run(options).assert_code(2).assert_complains(&["cannot be used with"]);

    let definitions = DEFINITIONS.replace("ttl: 100d", "ttl: 99d");
    home.write("features/all.yaml", &definitions);
    let message = ["a.parquet.manifest.json", "inputs differ", "feature view 'stats': the definition differs"];
    again("c.parquet").assert_code(1).assert_complains(&message);
    home.write("features/all.yaml", DEFINITIONS);
    again("c.parquet").assert_code(0);
    let stats = read(&home.path("stats.parquet"));
    write(
        &home.path("stats.parquet"),
        stats.schema().fields().iter().map(|field| (field.name().as_str(), Arc::clone(&stats[field.name()]))).collect(),
    );
    again("d.parquet").assert_code(1).assert_complains(&["feature view 'stats': file stats.parquet changed"]);
    assert!(!names(&home).iter().any(|name| name.contains("d.parquet")), "{:?}", names(&home));
    let entities = read(&home.path("entities.parquet")).slice(1, 10);
    let columns = entities.schema();
    write(
        &home.path("entities.parquet"),
        columns.fields().iter().map(|field| (field.name().as_str(), Arc::clone(&entities[field.name()]))).collect(),
    );
    again("d.parquet").assert_code(1).assert_complains(&["entity rows: file entities.parquet changed"]);
}

#[test]
fn damaged_manifest_is_an_error() {
    let home = project(10);
    for (text, words) in [("{", "a.json: EOF"), ("{\"format\": 1}", "a.json: missing field")] {
        home.write("a.json", text);
        let ended = home.run(["training-set", "--from", "a.json", "--out", "b.parquet"]);
        ended.assert_code(1).assert_complains(&[words]);
    }
    home.run(["training-set", "--from", "absent.json", "--out", "b.parquet"])
        .assert_code(1)
        .assert_complains(&["absent.json"]);
}

/// Waits until the temporary file of a run exists.
fn wait_for_temporary(home: &Home) {
    let deadline = Instant::now() + TIMEOUT;
    while !has(home, ".set.parquet.tmp") {
        assert!(Instant::now() < deadline, "the run did not begin to write");
        thread::sleep(Duration::from_millis(1));
    }
}

fn start(home: &Home) -> Running {
    home.start(["training-set", "--entities", "entities.parquet", "--service", "all", "--out", "set.parquet"])
}

#[test]
fn interrupted_run_leaves_no_file() {
    let home = project(200_000);
    fs::write(home.path("set.parquet"), "an earlier set").unwrap();
    let mut running = start(&home);
    wait_for_temporary(&home);
    running.signal(Signal::INT);
    let (code, said) = running.end();
    assert!(code == Some(1) && said.contains("the run was stopped"), "{code:?} {said}");
    assert_eq!(fs::read(home.path("set.parquet")).unwrap(), b"an earlier set");
    assert!(!has(&home, ".set.parquet.tmp"));
}

#[test]
fn next_run_reuses_temporary_file() {
    let home = project(200_000);
    let mut running = start(&home);
    wait_for_temporary(&home);
    // Two runs cannot write to one path.
    run(&home, "set.parquet", &[])
        .assert_code(1)
        .assert_complains(&["set.parquet", "another run is writing to this path"]);
    running.signal(Signal::KILL);
    running.end();
    assert!(has(&home, ".set.parquet.tmp") && !has(&home, "set.parquet"));
    run(&home, "set.parquet", &[]).assert_code(0);
    assert_eq!(read(&home.path("set.parquet")).num_rows(), 200_000);
    assert!(!has(&home, ".set.parquet.tmp"));
}

#[test]
fn full_disk_leaves_no_file() {
    let home = project(200_000);
    // The limit is 512 KiB or 1 MiB, because shells use different units. It acts like a full disk.
    let program = env!("CARGO_BIN_EXE_larder");
    let limited = format!(
        "ulimit -f 1024; exec {program} training-set --entities entities.parquet --service all --out set.parquet"
    );
    let output = home.call(Path::new("sh"), ["-c", &limited]).output().unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("cannot write set.parquet: ") && complaint.contains("File too large"), "{complaint}");
    assert!(!names(&home).iter().any(|name| name.contains("set.parquet")), "{:?}", names(&home));
}

#[test]
fn directory_is_read_in_order() {
    let home = project(100);
    fs::create_dir(home.path("rows")).unwrap();
    let entities = read(&home.path("entities.parquet"));
    let columns = |rows: RecordBatch| -> Vec<(String, ArrayRef)> {
        rows.schema().fields().iter().map(|field| (field.name().clone(), Arc::clone(&rows[field.name()]))).collect()
    };
    for (name, rows) in [("0.parquet", entities.slice(0, 30)), ("1.parquet", entities.slice(30, 70))] {
        let columns = columns(rows);
        let columns = columns.iter().map(|(name, array)| (name.as_str(), Arc::clone(array))).collect();
        write(&home.path("rows").join(name), columns);
    }
    fs::write(home.path("rows/_SUCCESS"), "").unwrap();
    run(&home, "a.parquet", &[]).assert_code(0);
    let args = ["training-set", "--entities", "rows", "--service", "all", "--out", "b.parquet"];
    home.run(args).assert_code(0);
    assert!(fs::read(home.path("a.parquet")).unwrap() == fs::read(home.path("b.parquet")).unwrap());
    write(&home.path("rows/2.parquet"), vec![("customer_id", customers(0..1))]);
    home.run(args).assert_code(1).assert_complains(&["2.parquet: its columns differ from those of", "0.parquet"]);
    fs::create_dir(home.path("empty")).unwrap();
    let args = ["training-set", "--entities", "empty", "--service", "all", "--out", "b.parquet"];
    home.run(args).assert_code(1).assert_complains(&["empty: the directory has no *.parquet file"]);
}

/// A run must not replace its own inputs, or add a file to the files of a view.
#[test]
fn outputs_never_replace_inputs() {
    let home = project(10);
    for view in ["entities.parquet", "stats.parquet"] {
        let before = fs::read(home.path(view)).unwrap();
        run(&home, view, &[]).assert_code(1).assert_complains(&[
            "cannot write",
            view,
            "hint: write to another directory",
        ]);
        assert!(fs::read(home.path(view)).unwrap() == before, "{view}");
    }
    fs::create_dir(home.path("stats")).unwrap();
    fs::rename(home.path("stats.parquet"), home.path("stats/0.parquet")).unwrap();
    home.write("features/all.yaml", &DEFINITIONS.replace("stats.parquet", "stats"));
    run(&home, "stats/set.parquet", &[])
        .assert_code(1)
        .assert_complains(&["it is in the files of feature view 'stats'"]);
    std::os::unix::fs::symlink(home.path("entities.parquet"), home.path("link.parquet")).unwrap();
    run(&home, "link.parquet", &[]).assert_code(1).assert_complains(&["it is in the files of the entity rows"]);
    let fifo = home.path("pipe.parquet");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    run(&home, "pipe.parquet", &[]).assert_code(1).assert_complains(&["pipe.parquet"]);
    assert!(!fs::metadata(&fifo).unwrap().is_file());
    let left: Vec<_> =
        names(&home).into_iter().filter(|name| name.ends_with(".tmp") || name.ends_with(".lock")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A link or a pipe with the name of the temporary file is not followed.
#[test]
fn outputs_are_never_in_entity_rows() {
    let home = project(10);
    fs::create_dir(home.path("dir")).unwrap();
    fs::copy(home.path("entities.parquet"), home.path("dir/a.parquet")).unwrap();
    let set = |entities: &str, out: &str| {
        home.run(["training-set", "--entities", entities, "--service", "all", "--out", out])
    };
    for (entities, out, named) in [
        ("dir", "dir/set.parquet", "dir/set.parquet"),
        ("dir", "dir/parts/", "dir/parts"),
        ("dir/a.parquet", "dir/a.parquet", "dir/a.parquet"),
    ] {
        let words = format!("cannot write {named}: it is in the files of the entity rows. hint: ");
        set(entities, out).assert_code(1).assert_complains(&[&words]);
    }
    fs::copy(home.path("entities.parquet"), home.path("x.parquet.manifest.json")).unwrap();
    set("x.parquet.manifest.json", "x.parquet")
        .assert_code(1)
        .assert_complains(&["cannot write x.parquet.manifest.json: it is in the files of the entity rows"]);
    set("dir", "missing/set.parquet").assert_code(1).assert_complains(&["the directory missing does not exist"]);
    set("dir/a.parquet", "dir/set.parquet").assert_code(0);
}

#[test]
fn temporary_file_replaces_links() {
    let home = project(10);
    fs::write(home.path("other"), "kept").unwrap();
    std::os::unix::fs::symlink(home.path("other"), home.path(".set.parquet.tmp")).unwrap();
    run(&home, "set.parquet", &[]).assert_code(0);
    assert_eq!(fs::read(home.path("other")).unwrap(), b"kept");
    assert!(fs::symlink_metadata(home.path("set.parquet")).unwrap().is_file());
}

#[test]
fn threads_have_a_limit() {
    let home = project(10);
    run(&home, "a.parquet", &["--threads", "1024"]).assert_code(0);
    run(&home, "a.parquet", &["--threads", "1025"])
        .assert_code(2)
        .assert_complains(&["must be a number from 1 to 1024"]);
}

#[test]
fn manifest_of_other_format_is_named() {
    let home = project(10);
    home.write("a.json", "{\"format\": 2, \"new\": []}");
    home.run(["training-set", "--from", "a.json", "--out", "b.parquet"])
        .assert_code(1)
        .assert_complains(&["a.json: it has format 2, but this Larder reads format 1"]);
}

/// A derived view can read another one that is not requested.
#[test]
fn nested_derived_views_are_computed() {
    let home = project(50);
    with_derived(&home);
    let definitions = fs::read_to_string(home.path("features/all.yaml")).unwrap();
    let outer = "  - name: outer\n    plugin: bench_floats\n    inputs:\n      - {name: a, from: \"numbers:sum\"}\n      - {name: b, \
                 from: \"numbers:ratio\"}\n    features: [{name: sum, type: Float64}]\n";
    let inputs: String = ["c", "d", "e", "f", "g", "h"]
        .iter()
        .map(|name| format!("      - {{name: {name}, from: \"stats:visits\"}}\n"))
        .collect();
    let outer = outer.replace("    features: [{name: sum", &format!("{inputs}    features: [{{name: sum"));
    home.write("features/all.yaml", &(definitions + &outer));
    let args = ["training-set", "--entities", "entities.parquet", "--out", "set.parquet", "--feature", "outer:sum"];
    home.run(args).assert_code(0);
    let set = read(&home.path("set.parquet"));
    assert!(set["sum"].as_primitive::<Float64Type>().iter().any(|value| value.is_some()));
}

/// The Parquet library panics when it reads this file.
#[test]
fn damaged_entity_file_is_an_error() {
    let home = project(10);
    fs::copy(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/training/damaged.parquet"),
        home.path("entities.parquet"),
    )
    .unwrap();
    home.write("features/all.yaml", &DEFINITIONS.replace("customer_id", "id").replace("type: String", "type: Int64"));
    run(&home, "a.parquet", &[])
        .assert_code(1)
        .assert_complains(&["entity rows: entities.parquet is not a readable Parquet file: the reader panicked"]);
}

/// Each file has its own categories, as pandas writes them. Together, they are more than keys of 8 bits can count.
#[test]
fn categories_of_files_may_differ() {
    let home = project(100);
    fs::create_dir(home.path("entities")).unwrap();
    let category = DataType::Dictionary(DataType::Int8.into(), DataType::Utf8.into());
    for file in 0..3 {
        let labels: ArrayRef = Arc::new(StringArray::from_iter_values((0..100).map(|row| format!("{file}-{row}"))));
        let rows = vec![
            ("customer_id", customers(0..100)),
            ("event_timestamp", times(0..100)),
            ("label", cast(&labels, &category).unwrap()),
        ];
        write(&home.path(&format!("entities/{file}.parquet")), rows);
    }
    home.run(["training-set", "--entities", "entities", "--service", "all", "--out", "a.parquet"]).assert_code(0);
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(home.path("a.parquet")).unwrap()).unwrap();
    assert_eq!(reader.schema().field(2).data_type(), &category);
    // Without the declared type, the column has strings.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let file = File::open(home.path("a.parquet")).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).unwrap().build().unwrap();
    let labels: Vec<String> = reader
        .flat_map(|batch| {
            batch.unwrap()["label"].as_string::<i32>().iter().map(|text| text.unwrap().to_owned()).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!((labels.len(), labels[0].as_str(), labels[299].as_str()), (300, "0-0", "2-99"));
}

#[test]
fn wrong_key_names_its_row() {
    let home = project(10);
    home.write("features/all.yaml", &DEFINITIONS.replace("customer_id, type: String", "customer_id, type: Int64"));
    let keys = (0..5_000).map(|row| if row == 4_500 { "c7".to_owned() } else { row.to_string() });
    let rows = vec![
        ("customer_id", Arc::new(StringArray::from_iter_values(keys)) as ArrayRef),
        ("event_timestamp", times(0..5_000)),
    ];
    write(&home.path("entities.parquet"), rows);
    run(&home, "a.parquet", &[])
        .assert_code(1)
        .assert_complains(&["entity row 4500, column 'customer_id': invalid literal for int() with base 10: 'c7'"]);
    assert!(!has(&home, "a.parquet"));
}

/// The plugin returns the number of rows of the call.
#[test]
fn batch_dependent_plugin_is_rejected() {
    let home = project(100);
    let derived = "derived_views:\n  - name: counted\n    plugin: hostile\n    inputs:\n      - {name: x, from: \
                   \"stats:visits\"}\n    features: [{name: y, type: Float64}]\n    config: {mode: batch_size}\n";
    home.write("features/all.yaml", &(DEFINITIONS.to_owned() + derived));
    fs::create_dir_all(home.path("plugins")).unwrap();
    fs::copy(guest_with("hostile", "batches"), home.path("plugins/hostile.wasm")).unwrap();
    let args = ["training-set", "--entities", "entities.parquet", "--out", "set.parquet", "--feature", "counted:y"];
    // On a loaded machine, a call may exceed its time limit. Its rows are then computed alone, which is another difference.
    home.run(args).assert_code(1).assert_complains(&[
        "derived view 'counted': plugin 'hostile' returns different values of feature 'y' for entity rows ",
        " if the rows are computed ",
        "hint: change the plugin so that each row depends only on its own inputs",
    ]);
    assert!(!has(&home, "set.parquet"));
}

/// There is no server whose log could have the reason.
#[test]
fn failed_plugin_is_named_with_reason() {
    let home = project(10);
    fs::create_dir_all(home.path("plugins")).unwrap();
    fs::copy(guest("hostile"), home.path("plugins/hostile.wasm")).unwrap();
    let rows = read(&home.path("entities.parquet"));
    let x = (0..rows.num_rows()).map(|row| if row == 7 { 1_000.0 } else { 1.0 }).collect::<Float64Array>();
    let schema = rows.schema();
    let columns = schema.fields().iter().map(|field| (field.name().as_str(), Arc::clone(&rows[field.name().as_str()])));
    write(&home.path("entities.parquet"), columns.chain([("x", Arc::new(x) as ArrayRef)]).collect());
    for (mode, why) in [("fault", "the hostile plugin gives up"), ("trap", "unreachable"), ("spin", "ms")] {
        let derived = format!(
            "derived_views:\n  - name: failing\n    plugin: hostile\n    on_error: fail\n    inputs: [{{name: x, request: \
             Float64}}]\n    features: [{{name: y, type: Float64}}]\n    config: {{mode: {mode}, bad: 1000}}\n"
        );
        home.write("features/all.yaml", &(DEFINITIONS.to_owned() + &derived));
        let args = ["training-set", "--entities", "entities.parquet", "--out", "set.parquet", "--feature", "failing:y"];
        let ended = home.run(args);
        let expected = "entity row 7: plugin 'hostile' failed to compute derived view 'failing': ";
        ended.assert_code(1).assert_complains(&[expected, why]);
        assert!(!ended.err.contains("server's log"), "{}", ended.err);
    }
}

/// The plugin returns its reference time as text: each row has its own.
#[test]
fn plugins_get_time_of_each_row() {
    let home = project(100);
    let derived = "derived_views:\n  - name: timed\n    plugin: hostile\n    inputs:\n      - {name: x, from: \
                   \"stats:visits\"}\n    features: [{name: text, type: String}]\n    config: {mode: good}\n";
    home.write("features/all.yaml", &(DEFINITIONS.to_owned() + derived));
    fs::create_dir_all(home.path("plugins")).unwrap();
    fs::copy(guest_with("hostile", "batches"), home.path("plugins/hostile.wasm")).unwrap();
    let args = ["training-set", "--entities", "entities.parquet", "--out", "set.parquet", "--feature", "timed:text"];
    home.run(args).assert_code(0);
    let set = read(&home.path("set.parquet"));
    let times = set["event_timestamp"].as_primitive::<TimestampMicrosecondType>();
    let texts = set["text"].as_string::<i32>();
    let computed: Vec<usize> = (0..set.num_rows()).filter(|row| texts.is_valid(*row)).collect();
    assert!(computed.len() > 50, "{} rows were computed", computed.len());
    assert!(computed.iter().all(|row| texts.value(*row) == times.value(*row).to_string()));
}

/// A manifest must describe the entity rows that were read.
#[test]
fn replaced_entity_rows_fail_the_run() {
    let home = project(200_000);
    let other = read(&home.path("entities.parquet")).slice(0, 10);
    let mut running = start(&home);
    wait_for_temporary(&home);
    let columns = other.schema();
    let columns = columns.fields().iter().map(|field| (field.name().as_str(), Arc::clone(&other[field.name()])));
    write(&home.path("other.parquet"), columns.collect());
    fs::rename(home.path("other.parquet"), home.path("entities.parquet")).unwrap();
    let (code, said) = running.end();
    assert!(code == Some(1) && said.contains("inputs changed during the run: entity rows: file"), "{code:?} {said}");
    assert!(!has(&home, "set.parquet"));
}
