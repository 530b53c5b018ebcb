//! Faults of captures: a full disk, a kill, limits of calls, files that are not captures.

use std::{process::Command, time::Duration};

use super::*;
use crate::guests::guest;

/// A view of the hostile plugin, which violates a rule if a row has an `x` of at least 1000.
fn hostile_views(modes: &[&str]) -> String {
    let view = |mode: &&str| {
        format!(
            "  - {{name: {mode}, plugin: hostile, inputs: [{{name: x, request: Float64}}], features: [{{name: y, type: \
             Float64}}], config: {{mode: {mode}, bad: 1000}}}}\n"
        )
    };
    format!("derived_views:\n{}", modes.iter().map(view).collect::<String>())
}

fn ask_hostile(address: SocketAddr, view: &str, xs: &[f64]) {
    let body = json!({ "features": [format!("{view}:y")], "entities": { "x": xs } }).to_string();
    let answer = wire::send(address, "POST", "/get-online-features", &[], body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn serve_hostile(home: &Home) -> (Running, SocketAddr) {
    fs::copy(guest("hostile"), home.path("hostile.wasm")).unwrap();
    home.run(["plugin", "deploy", "--force", "hostile.wasm"]).assert_code(0);
    home.serve()
}

#[test]
fn failures_of_every_kind_are_replayed() {
    let home = Home::with(&hostile_views(&["trap", "spin", "fault", "bad_utf8"]));
    let (host, address) = serve_hostile(&home);
    for view in ["trap", "spin", "fault", "bad_utf8"] {
        ask_hostile(address, view, &[1.0, 2.0, 3_000.0, 4.0]);
    }
    host.stop(Signal::TERM);
    let replayed = run(&home, ["plugin", "run", "hostile.wasm", "--replay", "data/store/captures/hostile"]);
    replayed.assert_code(0);
    assert!(replayed.out.contains("8 rows equal in all bits\n3 rows failed again\n"), "{}", replayed.out);
    assert!(
        replayed.out.contains("1 row not compared: they failed because of a limit on time or memory"),
        "{}",
        replayed.out
    );
}

#[test]
fn impure_plugin_differs_in_replay() {
    let home = Home::with(&hostile_views(&["random"]).replace(", bad: 1000", ""));
    let (host, address) = serve_hostile(&home);
    ask_hostile(address, "random", &[1.0]);
    home.run(["plugin", "capture", "hostile", "--sample", "100%"]).assert_code(0);
    ask_hostile(address, "random", &[1.0]);
    host.stop(Signal::TERM);
    let replayed = run(&home, ["plugin", "run", "hostile.wasm", "--replay", "data/store/captures/hostile"]);
    replayed.assert_code(1).assert_complains(&["1 of 1 row differ from the captured ones"]);
    assert!(replayed.out.contains("CALL  ROW  OUTPUT  CAPTURED  NOW"), "{}", replayed.out);
}

#[test]
fn full_disk_does_not_affect_requests() {
    let may_mount = Command::new("unshare").args(["-m", "true"]).output();
    if !may_mount.is_ok_and(|output| output.status.success()) {
        println!("skipped: this user may not mount a file system to fill (unshare -m)");
        return;
    }
    let home = Home::with(&hostile_views(&["trap"]));
    fs::copy(guest("hostile"), home.path("hostile.wasm")).unwrap();
    home.run(["plugin", "deploy", "--force", "hostile.wasm"]).assert_code(0);
    fs::create_dir_all(home.path("data/store/captures/hostile")).unwrap();
    fs::set_permissions(home.path("data/store/captures"), fs::Permissions::from_mode(0o700)).unwrap();
    let mount = "mount -t tmpfs -o size=4k larder data/store/captures/hostile && chmod 700 data/store/captures/hostile && exec \"$0\" serve";
    let mut command = home.call(Path::new("unshare"), ["-m", "sh", "-c", mount, env!("CARGO_BIN_EXE_larder")]);
    let mut host = Running::new(command.spawn().unwrap());
    let address = host.listens_at();
    ask_hostile(address, "trap", &[3_000.0; 30]);
    let line = host.until("capture write failed; dropped rows");
    assert!(line.contains("No space left on device") && line.contains("rows=30"), "{line}");
    ask_hostile(address, "trap", &[3_000.0; 30]);
    let dir = format!("/proc/{}/root{}", host.id(), home.path("data/store/captures/hostile").display());
    eventually_within("incomplete files are removed", Duration::from_secs(30), || {
        fs::read_dir(&dir).unwrap().next().is_none()
    });
    let said = host.stop(Signal::TERM);
    assert_eq!(said.matches("capture write failed").count(), 1, "once a minute: {said}");
}

#[test]
fn killed_server_leaves_readable_captures() {
    let home = Home::with(&hostile_views(&["trap"]));
    let (mut host, address) = serve_hostile(&home);
    eventually_within("a capture", Duration::from_secs(30), || {
        ask_hostile(address, "trap", &[1.0, 3_000.0]);
        !captures(&home, "hostile").is_empty()
    });
    host.signal(Signal::KILL);
    host.end();
    let incomplete = home.path("data/store/captures/hostile/.20260101T000000.000000Z-failed-0-1.arrow.0123");
    fs::write(&incomplete, "incomplete").unwrap();
    let replayed = run(&home, ["plugin", "run", "hostile.wasm", "--replay", "data/store/captures/hostile"]);
    assert!(replayed.assert_code(0).out.contains("failed again"), "{}", replayed.out);
    let (host, _) = home.serve();
    eventually_within("incomplete files are removed", Duration::from_secs(30), || !incomplete.is_file());
    host.stop(Signal::TERM);
}

#[test]
fn unusable_directory_does_not_affect_requests() {
    let home = Home::with(&hostile_views(&["trap"]));
    fs::create_dir_all(home.path("data/store")).unwrap();
    fs::write(home.path("data/store/captures"), "a file").unwrap();
    let (mut host, address) = serve_hostile(&home);
    ask_hostile(address, "trap", &[3_000.0]);
    host.until("capture write failed; dropped rows");
    ask_hostile(address, "trap", &[3_000.0]);
    host.stop(Signal::TERM);
}

#[test]
fn files_that_are_not_captures_are_reported() {
    let home = Home::empty();
    fs::copy(guest("hostile"), home.path("hostile.wasm")).unwrap();
    home.write("text.arrow", "not an Arrow file");
    fs::create_dir(home.path("empty")).unwrap();
    for (path, words) in [
        ("text.arrow", "text.arrow is not an Arrow file"),
        ("empty", "empty has no captures"),
        ("none", "none: No such file or directory"),
    ] {
        run(&home, ["plugin", "run", "hostile.wasm", "--replay", path]).assert_code(1).assert_complains(&[words]);
    }
    let both = run(&home, ["plugin", "run", "hostile.wasm", "--replay", "empty", "--view-config", "{}"]);
    both.assert_code(2);
}
