//! Faults of the log: a full queue, a target that cannot be written, a full disk, a kill.

use std::{fs, process::Command, time::Duration};

use larder_fakeaws::FakeS3;
use rustix::process::Signal;
use serde_json::json;

use super::*;
use crate::{
    binary::{Home, Running},
    fixture::eventually_within,
    moto::Moto,
};

const DROPPED: &str = "larder_feature_log_dropped_rows_total";

/// Definitions of a service that needs no files.
const PUSHED: &str = "
entities: [{name: driver, join_key: driver_id, type: Int64}]
feature_views:
  - {name: stats, entities: [driver], push_source: stats, features: [{name: trips, type: Int64}, {name: text, type: String}]}
feature_services: [{name: pushed, features: [stats]}]
";

fn ask_at(address: std::net::SocketAddr, drivers: &[i64]) {
    let body = json!({ "feature_service": "pushed", "entities": { "driver_id": drivers } }).to_string();
    let answer = wire::send(address, "POST", "/get-online-features", &[], body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn full_queue_drops_and_counts() {
    let mut fixture = Setup::with(PUSHED).config("logging: {services: {pushed: 1}, to: log, queue: 64KiB}\n").start();
    let dropped = || metric(&format!("{DROPPED}{{reason=\"queue_full\"}}"));
    let before = dropped();
    let all: Vec<i64> = (0..5_000).collect();
    ask_at(fixture.address(), &all);
    assert_eq!(dropped() - before, 5_000.0);
    ask_at(fixture.address(), &[1, 2]);
    fixture.stop();
    assert_eq!(ints(&read(&fixture.path("log/pushed")), "driver_id"), [1, 2], "smaller answers fit");
    assert_eq!(dropped() - before, 5_000.0);
}

/// However often it is requested, an answer that is larger than the queue is not logged, so the server logs a warning.
#[test]
fn answer_larger_than_queue_is_reported() {
    let home = Home::with(PUSHED);
    home.configure("logging: {services: {pushed: 1}, to: log, queue: 64KiB}\n");
    let (mut host, address) = home.serve();
    let all: Vec<i64> = (0..5_000).collect();
    ask_at(address, &all);
    let line = host.until("a response was not logged, because it is larger than the queue of the feature log");
    assert!(
        line.contains("raise 'logging: queue'") && line.contains("limit=65536") && line.contains("rows=5000"),
        "{line}"
    );
    ask_at(address, &all);
    let said = host.stop(Signal::TERM);
    assert_eq!(said.matches("larger than the queue").count(), 1, "once a minute: {said}");
}

/// A file that cannot be written is tried again, and then dropped. Later files are written.
#[test]
fn failed_write_is_retried_then_dropped() {
    let mut fixture =
        Setup::with(PUSHED).config("logging: {services: {pushed: 1}, to: log, roll: {every: 1s}}\n").start();
    let (failures, dropped) = (
        || metric("larder_feature_log_write_failures_total"),
        || metric(&format!("{DROPPED}{{reason=\"write_failed\"}}")),
    );
    let before = (failures(), dropped());
    // A file in place of the directory.
    fs::write(fixture.path("log"), "").unwrap();
    ask_at(fixture.address(), &[1]);
    fixture.eventually("a failure", || failures() > before.0);
    fs::remove_file(fixture.path("log")).unwrap();
    fixture.eventually("a file", || !files(&fixture.path("log/pushed")).is_empty());
    assert_eq!(dropped(), before.1);
    fs::remove_dir_all(fixture.path("log")).unwrap();
    fs::write(fixture.path("log"), "").unwrap();
    ask_at(fixture.address(), &[2, 3]);
    fixture.eventually("rows are dropped", || dropped() == before.1 + 2.0);
    fs::remove_file(fixture.path("log")).unwrap();
    ask_at(fixture.address(), &[4]);
    fixture.stop();
    assert_eq!(ints(&read(&fixture.path("log/pushed")), "driver_id"), [4]);
}

#[test]
fn objects_in_s3_have_all_rows() {
    let moto = Moto::start();
    moto.bucket("logs");
    let config = format!(
        "aws: {{s3_endpoint: \"{}\", s3_path_style: true}}\n\
         logging: {{services: {{pushed: 1}}, to: \"s3://logs/features/\", roll: {{every: 1s}}}}\n",
        moto.url()
    );
    let mut fixture = Setup::with(PUSHED).config(&config).start();
    ask_at(fixture.address(), &[1, 2]);
    let listed = || wire::send(moto.address, "GET", "/logs?list-type=2", &[], b"").text();
    fixture.eventually("an object", || listed().contains("<Key>"));
    // The last rows are written during the shutdown.
    ask_at(fixture.address(), &[3]);
    fixture.stop();
    let text = listed();
    let keys: Vec<&str> = text.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap()).collect();
    assert!(keys.len() == 2 && keys.iter().all(|key| key.starts_with("features/pushed/")), "{keys:?}");
    let mut ids = Vec::new();
    for key in keys {
        let path = fixture.path("object.parquet");
        fs::write(&path, moto.get("logs", key)).unwrap();
        ids.extend(ints(&read_file(&path), "driver_id"));
    }
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3]);
}

/// A server whose log is on a full disk keeps answering, and counts the rows that it drops.
#[test]
fn full_disk_does_not_affect_lookups() {
    let may_mount = Command::new("unshare").args(["-m", "true"]).output();
    if !may_mount.is_ok_and(|output| output.status.success()) {
        println!("skipped: this user may not mount a file system to fill (unshare -m)");
        return;
    }
    let home = Home::with(PUSHED);
    home.configure("logging: {services: {pushed: 1}, to: log, roll: {every: 1s}}\n");
    fs::create_dir(home.path("log")).unwrap();
    let mount = "mount -t tmpfs -o size=4k larder log && exec \"$0\" serve";
    let server = env!("CARGO_BIN_EXE_larder");
    let mut command = home.call(std::path::Path::new("unshare"), ["-m", "sh", "-c", mount, server]);
    let mut host = Running::new(command.spawn().unwrap());
    let address = host.listens_at();
    ask_at(address, &(0..2_000).collect::<Vec<_>>());
    let line = host.until("feature log write failed");
    assert!(line.contains("No space left on device"), "{line}");
    let line = host.until("feature log write failed; dropped rows");
    assert!(line.contains("rows=2000"), "{line}");
    ask_at(address, &[1]);
    let dir = format!("/proc/{}/root{}", host.id(), home.path("log/pushed").display());
    let left: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
    host.stop(rustix::process::Signal::TERM);
}

/// After a kill, all files of the log can be read, and the next server continues.
#[test]
fn killed_server_leaves_readable_files() {
    let home = Home::with(PUSHED);
    home.configure("logging: {services: {pushed: 1}, to: log, roll: {every: 1s}}\n");
    let mut asked = 0;
    for round in 1..=2 {
        let (mut host, address) = home.serve();
        eventually_within("files", Duration::from_secs(30), || {
            asked += 1;
            ask_at(address, &[asked]);
            files(&home.path("log/pushed")).len() >= 2 * round
        });
        host.signal(rustix::process::Signal::KILL);
        host.end();
        let rows = read(&home.path("log/pushed")).num_rows();
        assert!(rows > 0 && rows <= usize::try_from(asked).unwrap(), "{rows} of {asked}");
    }
}

/// A prefix in S3 that cannot be written does not delay a shutdown for long.
#[test]
fn unavailable_s3_does_not_block_shutdown() {
    let s3 = FakeS3::start();
    let url = s3.url();
    drop(s3);
    let home = Home::with(PUSHED);
    home.configure(&format!(
        "aws: {{region: eu-west-1, s3_endpoint: \"{url}\", s3_path_style: true}}\n\
         logging: {{services: {{pushed: 1}}, to: s3://logs/features}}\n"
    ));
    let text = fs::read_to_string(home.path("larder.yaml")).unwrap();
    home.write(
        "larder.yaml",
        &text.replace("workers: 2}", "workers: 2, limits: {drain_delay: 0s, drain_timeout: 1s}}"),
    );
    let (host, address) = home.serve();
    ask_at(address, &[1]);
    let said = host.stop(rustix::process::Signal::TERM);
    assert!(said.contains("the feature log was not written completely"), "{said}");
}
