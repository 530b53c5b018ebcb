//! Captures of plugin calls: which calls a server writes, and what `larder plugin run --replay`, `run`, `bench` and `diff`
//! do with captures, Parquet files and Arrow files.

mod faults;
mod observer;
mod rows;

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    binary::{Ended, Home, Running},
    fixture::eventually_within,
    plugin_tools::{end, tool},
    wire,
};

const RATIOS: &str = "
derived_views:
  - name: ratios
    plugin: ratio
    inputs: [{name: numerator, request: Float64}, {name: denominator, request: Float64}]
    features: [{name: ratio, type: Float64}]
";

fn run<'a>(home: &Home, args: impl IntoIterator<Item = &'a str>) -> Ended {
    end(&mut tool(home, args))
}

/// Builds the plugin of a new project as `ratio.wasm`, and a changed version as `changed.wasm`. The changed version rounds
/// twice, so that some ratios differ in the last bit, and it has another message for rows that fail.
fn build_versions(home: &Home) {
    run(home, ["plugin", "new", "ratio", "--lang", "rust"]).assert_code(0);
    run(home, ["plugin", "build", "ratio", "--out", "ratio.wasm"]).assert_code(0);
    let source = fs::read_to_string(home.path("ratio/src/lib.rs")).unwrap();
    let changed = source
        .replace("numerator / denominator)", "numerator * (1.0 / denominator))")
        .replace("\"the denominator is below 0\"", "\"the denominator is negative\"")
        .replace("0.1.0", "0.2.0");
    home.write("ratio/src/lib.rs", &changed);
    run(home, ["plugin", "build", "ratio", "--out", "changed.wasm", "--unchecked"]).assert_code(0);
}

fn ask(address: SocketAddr, numerators: &[f64], denominators: &[f64]) -> Value {
    let entities = json!({ "numerator": numerators, "denominator": denominators });
    let body = json!({ "features": ["ratios:ratio"], "entities": entities }).to_string();
    let answer = wire::send(address, "POST", "/get-online-features", &[], body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.column("ratio")["statuses"].clone()
}

fn captures(home: &Home, plugin: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(home.path("data/store/captures").join(plugin)).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files
}

fn serve_ratio(home: &Home) -> (Running, SocketAddr) {
    run(home, ["plugin", "deploy", "ratio.wasm"]).assert_code(0);
    home.serve()
}

#[test]
fn replay_proves_equality_or_shows_differences() {
    let home = Home::with(RATIOS);
    build_versions(&home);
    let (host, address) = serve_ratio(&home);
    let numerators: Vec<f64> = (0..20).map(f64::from).collect();
    let mut denominators = vec![3.0; 20];
    denominators[10] = -1.0;
    let statuses = ask(address, &numerators, &denominators);
    assert_eq!(statuses.as_array().unwrap().iter().filter(|status| *status == "INVALID").count(), 1);
    // Calls without failed rows are only captured on request.
    ask(address, &[1.0], &[3.0]);
    let ended = home.run(["plugin", "capture", "ratio", "--sample", "100%", "--for", "60s", "--rows", "4"]);
    ended.assert_code(0);
    assert!(ended.out.contains("data/store/captures/ratio until "), "{}", ended.out);
    ask(address, &[1.0, 2.0, 5.0], &[3.0, 7.0, 49.0]);
    ask(address, &[1.0, 2.0], &[3.0, 7.0]);
    ask(address, &[1.0, 2.0], &[3.0, 7.0]);
    host.stop(Signal::TERM);

    let listed = run(&home, ["plugin", "captures", "ratio", "--json"]);
    let listed: Value = serde_json::from_str(&listed.assert_code(0).out).unwrap();
    let counts =
        |index: usize| (listed[index]["kind"].clone(), listed[index]["rows"].clone(), listed[index]["failed"].clone());
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
    assert_eq!(counts(0), (json!("failed"), json!(3), json!(1)), "the failed row and its neighbours");
    assert_eq!(counts(1), (json!("sampled"), json!(4), json!(0)), "at most four rows");
    let shown = run(&home, ["plugin", "captures", "ratio"]);
    assert!(shown.assert_code(0).out.contains("ratios  sampled  4"), "{}", shown.out);
    for file in captures(&home, "ratio") {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    let same = run(&home, ["plugin", "run", "ratio.wasm", "--replay", "data/store/captures/ratio"]);
    same.assert_code(0);
    assert!(same.out.contains("6 rows equal in all bits\n1 row failed again\n"), "{}", same.out);
    assert!(!same.err.contains("digest"), "{}", same.err);

    let changed = run(&home, ["plugin", "run", "changed.wasm", "--replay", "data/store/captures/ratio"]);
    changed
        .assert_code(1)
        .assert_complains(&["is version 0.2.0 of 'ratio' with digest", "the captured calls are of version 0.1.0"]);
    assert!(changed.out.contains("the denominator is below 0  the denominator is negative"), "{}", changed.out);
    let row = changed.out.lines().find(|line| line.contains("0.10204081632653061"));
    assert!(row.is_some_and(|row| row.contains("ratio")), "5/49 differs in the last bit: {}", changed.out);
    assert!(changed.err.contains("differ from the captured ones"), "{}", changed.err);
}

#[test]
fn diff_finds_a_difference_of_one_bit() {
    let home = Home::with(RATIOS);
    build_versions(&home);
    let (host, address) = serve_ratio(&home);
    ask(address, &[5.0, 1.0], &[49.0, -1.0]);
    host.stop(Signal::TERM);

    let diff = |more: &[&str]| run(&home, ["plugin", "diff", "ratio.wasm", "changed.wasm"].iter().chain(more).copied());
    let same = run(&home, ["plugin", "diff", "ratio.wasm", "ratio.wasm", "--captured", "ratio"]);
    assert!(same.assert_code(0).out.contains("ratio 0.1.0 and ratio 0.1.0: 2 rows compared"), "{}", same.out);
    let found = diff(&["--captured", "data/store/captures/ratio"]);
    found.assert_code(1).assert_complains(&["the outputs of 'ratio' 0.1.0 and 0.2.0 differ"]);
    assert!(found.out.contains("1 row failed in both versions"), "{}", found.out);
    assert!(found.out.contains("numerator = 5.0, denominator = 49.0"), "{}", found.out);
    assert!(found.out.contains("CPU US/ROW  PEAK MEMORY"), "{}", found.out);
    diff(&["--captured", "ratio", "--tolerance", "1e-9"]).assert_code(0);

    let rows: Vec<Value> = (0..1_000).map(|row| json!({ "numerator": f64::from(row), "denominator": 64.0 })).collect();
    let mut rows = json!(rows);
    rows[500] = json!({ "numerator": 5.0, "denominator": 49.0 });
    home.write("rows.json", &rows.to_string());
    let json = diff(&["--input", "rows.json", "--json"]);
    let json: Value = serde_json::from_str(&json.assert_code(1).out).unwrap();
    let output = &json["diff"]["outputs"][0];
    assert_eq!((&output["equal"], &output["different"]), (&json!(999), &json!(1)), "{json}");
    assert_eq!((&output["worst"][0]["row"], &json["equal"]), (&json!(500), &json!(false)));
    assert_eq!((&json["old"]["version"], &json["new"]["cost"]["rows"]), (&json!("0.1.0"), &json!(1_000)));

    for (args, words) in [
        (&["--captured", "none"][..], "'none' is neither a path nor a plugin with captures"),
        (&["--captured", "rows.json"], "is not an Arrow file"),
        (&["--input", "none.parquet"], "the file does not exist"),
    ] {
        let failed = diff(args);
        failed.assert_code(1).assert_complains(&[words]);
        assert_eq!(failed.err.matches("hint:").count(), 1, "{}", failed.err);
    }
    diff(&["--input", "rows.json", "--tolerance", "-1"]).assert_code(2);
}

#[test]
fn only_first_failed_calls_are_captured() {
    let home = Home::with(RATIOS);
    home.configure("plugins: {captures: {failed_per_minute: 2, rows: 2}}\n");
    build_versions(&home);
    let (host, address) = serve_ratio(&home);
    // At most one new minute begins between the requests.
    for _ in 0..20 {
        ask(address, &[1.0; 9], &[-1.0; 9]);
    }
    host.stop(Signal::TERM);
    let listed = run(&home, ["plugin", "captures", "ratio", "--json"]);
    let listed: Value = serde_json::from_str(&listed.assert_code(0).out).unwrap();
    let rows: u64 = listed.as_array().unwrap().iter().map(|file| file["rows"].as_u64().unwrap()).sum();
    assert!(rows == 4 || rows == 8, "two calls of two rows in each minute: {listed}");
}

#[test]
fn captures_can_be_turned_off() {
    let home = Home::with(RATIOS);
    home.configure("plugins: {captures: {failed_per_minute: 0}}\n");
    build_versions(&home);
    let (host, address) = serve_ratio(&home);
    ask(address, &[1.0], &[-1.0]);
    for (args, words) in [
        (["plugin", "capture", "other", "--sample", "1%"], "plugin 'other' is not live"),
        (["plugin", "capture", "ratio", "--sample", "0.5"], ""),
    ] {
        let ended = home.run(args);
        ended.assert_code(i32::from(!words.is_empty())).assert_complains(&[words]);
    }
    home.run(["plugin", "capture", "ratio", "--sample", "1%", "--for", "25h"])
        .assert_code(1)
        .assert_complains(&["'seconds' is 90000, but must be at most 86400"]);
    home.run(["plugin", "capture", "ratio", "--sample", "150%"]).assert_code(2);
    home.run(["plugin", "capture", "ratio", "--sample", "0"]).assert_code(0);
    host.stop(Signal::TERM);
    assert!(!home.path("data/store/captures").is_dir());
    let none = run(&home, ["plugin", "captures", "ratio"]);
    assert!(none.assert_code(0).out.contains("no captures of plugin 'ratio'"), "{}", none.out);
    home.run(["plugin", "capture", "ratio", "--sample", "1%"])
        .assert_code(1)
        .assert_complains(&["no server is running"]);
}
