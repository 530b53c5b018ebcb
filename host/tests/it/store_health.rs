//! A store that is damaged, moved or replaced while the server runs, and rows that are removed on request.

use std::{fs, path::Path, sync::Arc};

use arrow::array::{Int64Array, StringArray};
use larder_http::{Control as _, ResetCommand};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    binary::{Home, Running},
    fixture::{Fixture, Setup, copy_dir, replace},
    parquet::{Columns, times, write},
    wire,
};

/// A view with a source, and a view that only callers write.
const DEFINITIONS: &str = "
entities: [{name: driver, join_key: driver_id, type: Int64}]
feature_views:
  - name: loaded
    entities: [driver]
    features: [{name: text, type: String}]
    source: {path: data/loaded.parquet, timestamp_field: event_timestamp}
  - {name: written, entities: [driver], features: [{name: text, type: String}]}
";

fn started() -> Fixture {
    let setup = Setup::with(DEFINITIONS);
    let columns: Columns = vec![
        ("driver_id", Arc::new(Int64Array::from(vec![1, 2]))),
        ("event_timestamp", times([Some(60), Some(60)].into_iter())),
        ("text", Arc::new(StringArray::from(vec!["loaded-needle", "loaded-other"]))),
    ];
    write(&setup.path("data/loaded.parquet"), &columns);
    let fixture = setup.start();
    assert_eq!(put(&fixture, "written", 1, "written-needle").status, 200);
    assert_eq!(put(&fixture, "written", 2, "written-other").status, 200);
    fixture
}

fn put(fixture: &Fixture, view: &str, driver: i64, text: &str) -> wire::Answer {
    let rows = json!({ "driver_id": [driver], "event_timestamp": ["2026-11-23T09:13:00Z"], "text": [text] });
    let body = json!({ "feature_view_name": view, "df": rows });
    fixture.post("/write-to-online-store", body.to_string().as_bytes())
}

/// Returns the strings of drivers 1 and 2; `None` if the lookup fails.
fn texts(fixture: &Fixture, view: &str) -> Option<Value> {
    let answer = fixture.features(&[&format!("{view}:text")], json!({ "driver_id": [1, 2] }));
    (answer.status == 200).then(|| answer.column("text")["values"].clone())
}

fn catalog_of(fixture: &Fixture, view: &str) -> Value {
    let catalog = fixture.get("/v1/catalog").json();
    catalog["feature_views"].as_array().unwrap().iter().find(|known| known["name"] == view).unwrap().clone()
}

/// Flips a bit in each occurrence of a string in the store file.
fn flip(file: &Path, text: &str) {
    let mut image = fs::read(file).unwrap();
    let copies: Vec<usize> =
        (0..image.len() - text.len()).filter(|&at| image[at..].starts_with(text.as_bytes())).collect();
    assert!(!copies.is_empty(), "'{text}' is not in the store");
    copies.into_iter().for_each(|at| image[at] ^= 0x04);
    fs::write(file, image).unwrap();
}

#[test]
fn damage_heals_from_the_source() {
    let fixture = started();
    flip(&fixture.path("store/online.redb"), "loaded-needle");
    let fixture = fixture.restart();
    fixture.eventually("the damage is detected and repaired", || {
        let healed = texts(&fixture, "loaded") == Some(json!(["loaded-needle", "loaded-other"]));
        healed && fixture.get("/ready").status == 200
    });
    let aside = fs::read_dir(fixture.path("store")).unwrap().map(|entry| entry.unwrap().file_name());
    let aside: Vec<_> = aside.filter(|name| name.to_string_lossy().contains(".corrupt-")).collect();
    assert_eq!(aside.len(), 1, "the damaged file is kept");
    assert_eq!(texts(&fixture, "written"), Some(json!(["written-needle", "written-other"])));
    let view = catalog_of(&fixture, "loaded");
    assert_eq!((&view["damaged"], &view["rows_lost"]), (&json!(false), &json!(0)));
    assert_eq!(put(&fixture, "written", 2, "again").status, 200);
}

#[test]
fn damage_without_source_reports_loss() {
    let fixture = started();
    flip(&fixture.path("store/online.redb"), "written-needle");
    let fixture = fixture.restart();
    fixture.eventually("the damage and the lost row are reported", || {
        texts(&fixture, "written") == Some(json!([null, "written-other"]))
            && fixture.get("/ready").status == 200
            && catalog_of(&fixture, "written")["rows_lost"] == json!(1)
    });
    assert_eq!(texts(&fixture, "loaded"), Some(json!(["loaded-needle", "loaded-other"])));
    let fixture = fixture.restart();
    fixture.until_ready();
    assert_eq!(catalog_of(&fixture, "written")["rows_lost"], 1, "the loss is reported after a restart");
}

#[test]
fn file_size_limit_fails_only_writes() {
    let home = Home::with(DEFINITIONS.split("    source:").next().unwrap());
    // The limit is 8 or 16 MiB, because shells use different units.
    let limited = format!("ulimit -f 16384; exec {} serve", env!("CARGO_BIN_EXE_larder"));
    let mut host = Running::new(home.call(Path::new("sh"), ["-c", &limited]).spawn().unwrap());
    let address = host.listens_at();
    let put = |driver: usize, text: String| {
        let rows = json!({ "driver_id": [driver], "event_timestamp": ["2026-11-23T09:13:00Z"], "text": [text] });
        let body = json!({ "feature_view_name": "loaded", "df": rows }).to_string();
        wire::send(address, "POST", "/write-to-online-store", &[], body.as_bytes())
    };
    assert_eq!(put(1, "small".to_owned()).status, 200);
    let failed = (2..30).map(|driver| put(driver, "x".repeat(1_000_000))).find(|answer| answer.status != 200);
    let failed = failed.expect("28 MB exceed the file size limit");
    assert!(failed.status == 503 && failed.text().contains("the store cannot grow"), "{}", failed.text());

    let lookup = json!({ "features": ["loaded:text"], "entities": { "driver_id": [1] } }).to_string();
    let answer = wire::send(address, "POST", "/get-online-features", &[], lookup.as_bytes());
    assert_eq!(answer.column("text")["values"], json!(["small"]));
    host.stop(Signal::TERM);
}

#[test]
fn missing_store_file_is_logged() {
    for is_removed in [true, false] {
        let home = Home::golden_loaded();
        let (mut host, _) = home.serve();
        host.signal(Signal::KILL);
        host.end();
        let file = home.path("data/store/online.redb");
        if is_removed {
            fs::remove_file(&file).unwrap()
        } else {
            fs::write(&file, "").unwrap()
        }
        let mut host = home.start(["serve"]);
        host.until("the store file is missing or empty");
        host.until("serving listen=");
    }
    // If the server was shut down cleanly, a missing store file is not reported.
    let home = Home::golden_loaded();
    fs::remove_file(home.path("data/store/online.redb")).unwrap();
    let (host, _) = home.serve();
    assert!(!host.stop(Signal::TERM).contains("missing or empty"));
}

#[test]
fn changed_keys_and_settings_are_reported() {
    let definitions = DEFINITIONS.split("    source:").next().unwrap();
    let home = Home::with(definitions);
    let (mut host, address) = home.serve();
    let rows = json!({ "driver_id": [1], "event_timestamp": ["2026-11-23T09:13:00Z"], "text": ["a"] });
    let body = json!({ "feature_view_name": "loaded", "df": rows }).to_string();
    assert_eq!(wire::send(address, "POST", "/write-to-online-store", &[], body.as_bytes()).status, 200);
    home.write("features/all.yaml", &definitions.replace("Int64", "String"));
    let line = host.until("the keys of the view changed");
    assert!(line.contains("including rows that callers wrote") && line.contains("rows=1"), "{line}");

    let config = fs::read_to_string(home.path("larder.yaml")).unwrap();
    let config = config.replace("workers: 2", "workers: 3, limits: {rows_max: 5}");
    home.write("larder.yaml", &(config + "plugins: {waiting_max: 65}\nreload: {registry_every: 5s}\n"));
    for section in ["server", "server: limits", "plugins", "reload"] {
        let line = host.until(&format!("section=\"{section}\""));
        assert!(line.contains("it takes effect at the next start"), "{line}");
    }
    host.stop(Signal::TERM);
}

#[test]
fn moved_store_rejects_writes() {
    let fixture = started();
    let (store, aside) = (fixture.path("store"), fixture.path("aside"));
    let another = fixture.path("another");
    copy_dir(&store, &another);
    for replacement in [None, Some(another)] {
        fs::rename(&store, &aside).unwrap();
        replacement.iter().for_each(|another| fs::rename(another, &store).unwrap());
        let answer = put(&fixture, "written", 1, "lost");
        assert_eq!(answer.status, 500, "{}", answer.text());
        fixture.eventually("the server is not ready", || fixture.get("/ready").status == 503);
        assert_eq!(texts(&fixture, "written"), Some(json!(["written-needle", "written-other"])), "lookups continue");
        if replacement.is_some() {
            fs::rename(&store, fixture.path("removed")).unwrap();
        }
        fs::rename(&aside, &store).unwrap();
        fixture.eventually("the file was moved back", || fixture.get("/ready").status == 200);
    }
    assert_eq!(put(&fixture, "written", 1, "kept").status, 200);
    let fixture = fixture.restart();
    assert_eq!(texts(&fixture, "written"), Some(json!(["kept", "written-other"])));
}

#[test]
fn readded_view_has_no_local_writes() {
    let fixture = started();
    assert_eq!(put(&fixture, "loaded", 1, "local").status, 200);
    assert_eq!(put(&fixture, "loaded", 3, "local").status, 200);
    assert_eq!(texts(&fixture, "loaded"), Some(json!(["local", "loaded-other"])));
    let define = |definitions: &str| {
        replace(fixture.path("features/defined.yaml"), definitions);
        fixture.app.reload_definitions().unwrap_or_else(|error| panic!("{error}"));
    };
    let entities = DEFINITIONS.split("feature_views:").next().unwrap();
    define(&format!(
        "{entities}\nfeature_views: [{{name: other, entities: [driver], features: [{{name: x, type: Int64}}]}}]\n"
    ));
    define(DEFINITIONS);
    assert_eq!(texts(&fixture, "written"), Some(json!([null, null])));
    fixture.eventually("the source is read again", || {
        texts(&fixture, "loaded") == Some(json!(["loaded-needle", "loaded-other"]))
    });
    assert_eq!(catalog_of(&fixture, "loaded")["rows"], 2);
    assert_eq!(put(&fixture, "written", 1, "new").status, 200);
    let fixture = fixture.restart();
    assert_eq!(texts(&fixture, "written"), Some(json!(["new", null])));
}

/// A reset drops rows that callers wrote, and the view's source does not have these rows.
#[test]
fn reset_of_written_rows_needs_confirmation() {
    let fixture = started();
    let reset = |confirmed| fixture.app.reset(&ResetCommand { view: "loaded".to_owned(), confirmed });
    assert_eq!(reset(false).unwrap().rows, 2, "all rows are from the source");
    assert_eq!(put(&fixture, "loaded", 1, "written").status, 200);
    let why = reset(false).unwrap_err();
    assert!(why.contains("feature view 'loaded' may have rows that callers wrote") && why.contains("--yes"), "{why}");
    assert_eq!(texts(&fixture, "loaded").unwrap()[0], "written");
    assert_eq!(reset(true).unwrap().rows, 1);
    assert_eq!(reset(false).unwrap().rows, 0, "the written row is gone");
}

const DRIVER: [&str; 2] = ["driver_stats", "driver_id=1001"];

fn status_of(home: &Home) -> Value {
    let asked = home.run(["get", "--json", "--feature", "driver_stats:conv_rate", "driver_id=1001"]);
    let answer: Value = serde_json::from_str(&asked.assert_code(0).out).unwrap();
    answer["results"][1]["statuses"][0].clone()
}

#[test]
fn delete_command_keeps_an_entity_deleted() {
    let home = Home::golden_loaded();
    assert_eq!(status_of(&home), "PRESENT");
    for is_running in [false, true] {
        let host = is_running.then(|| home.serve().0);
        let deleted = home.run([&["delete"][..], &DRIVER].concat());
        let said = if is_running { "no row found" } else { "driver_stats: deleted" };
        assert!(deleted.assert_code(0).out.contains(said), "{}", deleted.out);
        assert_eq!(status_of(&home), "NOT_FOUND");
        home.run(["sync", "--full", "driver_stats"]).assert_code(0);
        assert_eq!(status_of(&home), "NOT_FOUND", "the source still has the row");
        let reset = home.run(["reset", "driver_stats"]);
        assert!(reset.assert_code(0).out.contains("dropped"), "{}", reset.out);
        assert_eq!(status_of(&home), "NOT_FOUND", "a reset loads the other rows again");
        let other = home.run(["get", "--feature", "driver_stats:conv_rate", "driver_id=1002"]);
        assert!(!other.assert_code(0).out.contains("NOT_FOUND"), "{}", other.out);
        host.into_iter().for_each(|host| _ = host.stop(Signal::TERM));
    }
}

#[test]
fn invalid_delete_and_reset_name_error() {
    let home = Home::golden_loaded();
    for (args, code, words) in [
        (&["delete", "nope", "driver_id=1"][..], 1, "nope"),
        (&["delete", "driver_stats"], 1, "join key 'driver_id' is missing"),
        (&["delete", "driver_stats", "driver=1"], 1, "'driver' is not one of its join keys"),
        (&["delete", "driver_stats", "driver_id=many"], 1, "join key 'driver_id' is Int64, but 'many' is not"),
        (&["delete", "driver_stats", "1001"], 2, "'1001' is not in the form KEY=VALUE"),
        (&["delete", "driver_stats", "driver_id=1", "driver_id=2"], 2, "'driver_id' is given twice"),
        (&["reset", "nope"], 1, "nope"),
    ] {
        home.run(args.iter().copied()).assert_code(code).assert_complains(&[words]);
    }
    assert_eq!(status_of(&home), "PRESENT");
    home.write("features/local.yaml", "feature_views: [{name: local, features: [{name: x, type: Int64}]}]\n");
    let file = home.path("data/driver_stats.parquet");
    let aside = file.with_extension("aside");
    fs::rename(&file, &aside).unwrap();
    let words = ["nothing was dropped, because its source cannot be read", "--yes"];
    home.run(["reset", "driver_stats"]).assert_code(1).assert_complains(&words);
    assert_eq!(status_of(&home), "PRESENT");
    fs::rename(&aside, &file).unwrap();
    home.run(["reset", "local"]).assert_code(1).assert_complains(&["has no source", "--yes"]);
    home.run(["reset", "local", "--yes"]).assert_code(0);
}
