//! The history of a plugin, and rollbacks to chosen versions.

use std::{
    collections::HashMap,
    fs,
    io::Write as _,
    os::unix::net::UnixStream,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use larder_common::clock::Clock as _;
use larder_http::{Control as _, PastVersion};
use larder_plugin_host::Digest;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{SINGLETON, first, replace, second, trips};
use crate::{
    binary::Home,
    dice::Dice,
    fixture::{Fixture, Setup},
    plugin_compile::{bomb, loops},
    wire,
};

const NAME: &str = "odfv_singleton";
pub(super) const OWN: &str = "data/store/plugins";
const SEED: u64 = 0x0b5e_55ed;

/// Returns a plugin's file with an additional custom section, and so with another digest.
pub(super) fn variant(mut bytes: Vec<u8>, n: u8) -> Vec<u8> {
    bytes.extend([0, 3, 2, b'v', b'0' + n]);
    bytes
}

pub(super) fn digest(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

fn history(fixture: &Fixture) -> Vec<PastVersion> {
    fixture.app.plugin_history(NAME).unwrap()
}

/// Checks that the history has these versions, that the first one is live, and that its file is in the plugin directory.
#[track_caller]
fn assert_history(fixture: &Fixture, expected: &[&[u8]]) {
    let versions = history(fixture);
    let digests: Vec<&str> = versions.iter().map(|version| &*version.digest).collect();
    assert_eq!(digests, expected.iter().map(|bytes| digest(bytes)).collect::<Vec<_>>());
    let live: Vec<bool> = versions.iter().map(|version| version.live).collect();
    assert_eq!(live.iter().filter(|live| **live).count(), 1);
    assert!(live[0]);
    assert_eq!(fs::read(fixture.path("plugins").join(NAME).with_extension("wasm")).unwrap(), expected[0]);
}

fn roll_back(fixture: &Fixture, version: &str) -> Result<String, String> {
    fixture.app.roll_back(NAME, Some(version)).map(|report| report.digest)
}

/// Sends a request to the admin socket.
fn ask_admin(fixture: &Fixture, method: &str, path: &str, body: &str) -> wire::Answer {
    let mut stream = UnixStream::connect(fixture.path("admin.sock")).unwrap();
    let length = body.len();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    wire::read_answer(&mut stream).unwrap()
}

#[test]
fn chosen_version_is_restored() {
    let fixture = Setup::golden().start();
    let (one, two, three) = (first(), second(), variant(second(), 3));
    for version in [&one, &two, &three] {
        fixture.app.deploy(version, true).unwrap();
    }
    assert_history(&fixture, &[&three, &two, &one]);
    let oldest = &history(&fixture)[2];
    let expected = (Some("1.0.0"), "rust", one.len() as u64, "2026-11-23T09:13:10Z");
    assert_eq!((oldest.version.as_deref(), &*oldest.language, oldest.bytes, &*oldest.went_live), expected);

    assert_eq!(roll_back(&fixture, "1.0.0"), Ok(digest(&one)));
    assert_eq!(trips(&fixture), json!(1002));
    assert_history(&fixture, &[&one, &three, &two]);
    // The version before the rollback is the previous version now.
    assert_eq!(fixture.app.roll_back(NAME, None).unwrap().digest, digest(&three));
    assert_history(&fixture, &[&three, &one, &two]);
    assert_eq!(roll_back(&fixture, &digest(&two)[..8]), Ok(digest(&two)));
    assert_eq!(trips(&fixture), json!(1003));
    assert_history(&fixture, &[&two, &three, &one]);
    // A rollback to the live version changes neither the order nor the previous version.
    assert_eq!(roll_back(&fixture, &digest(&two)), Ok(digest(&two)));
    assert_history(&fixture, &[&two, &three, &one]);

    // After a restart, only the live and the previous version are in memory.
    let fixture = fixture.restart();
    fixture.until_ready();
    assert_history(&fixture, &[&two, &three, &one]);
    assert_eq!(roll_back(&fixture, "1.0.0"), Ok(digest(&one)));
    let fixture = fixture.restart();
    fixture.until_ready();
    assert_eq!(trips(&fixture), json!(1002));
    assert_history(&fixture, &[&one, &two, &three]);
    assert_eq!(fixture.app.roll_back(NAME, None).unwrap().digest, digest(&two));
}

#[test]
fn unknown_and_ambiguous_versions_are_rejected() {
    let fixture = Setup::golden().start();
    let (one, two, three) = (first(), second(), variant(second(), 3));
    let error = fixture.app.plugin_history(NAME).unwrap_err();
    assert!(error.starts_with("plugin 'odfv_singleton' does not exist"), "{error}");
    for version in [&one, &two, &three] {
        fixture.app.deploy(version, true).unwrap();
    }
    let error = roll_back(&fixture, "2.0.0").unwrap_err();
    let digests = format!("{}, {}", digest(&three), digest(&two));
    let expected =
        format!("several versions of plugin 'odfv_singleton' match '2.0.0'. hint: name one by its digest: {digests}");
    assert_eq!(error, expected);
    let shown = |bytes: &[u8]| digest(bytes)[..12].to_owned();
    let known = format!("it has 2.0.0 ({}), 2.0.0 ({}), 1.0.0 ({})", shown(&three), shown(&two), shown(&one));
    for wanted in ["3.0.0", &digest(&one)[..7], "", "../x"] {
        let error = roll_back(&fixture, wanted).unwrap_err();
        let expected =
            format!("plugin 'odfv_singleton' has no version '{wanted}' in its history. hint: {known}; name one by ");
        assert!(error.starts_with(&expected), "{error}");
    }
    for name in ["odfv_python", "..", ""] {
        let error = fixture.app.roll_back(name, Some("1.0.0")).unwrap_err();
        assert!(error.starts_with(&format!("plugin '{name}' does not exist")), "{error}");
    }
    assert_history(&fixture, &[&three, &two, &one]);
    assert_eq!(trips(&fixture), json!(1003));
}

#[test]
fn older_version_is_compiled_again() {
    let fixture = Setup::golden().start();
    for version in [first(), second(), variant(second(), 3)] {
        fixture.app.deploy(&version, true).unwrap();
    }
    for entry in fs::read_dir(fixture.path(OWN).join("compiled")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "cwasm") {
            fs::remove_file(path).unwrap();
        }
    }
    let report = fixture.app.roll_back(NAME, Some("1.0.0")).unwrap();
    assert_eq!((report.compiled, report.replaced.as_deref()), (true, Some("2.0.0")));
    assert_eq!(trips(&fixture), json!(1002));
    // The version before it is in memory.
    assert!(!fixture.app.roll_back(NAME, None).unwrap().compiled);
}

#[test]
fn incompatible_chosen_version_changes_nothing() {
    let fixture = Setup::golden().start();
    let (one, two, three) = (first(), second(), variant(second(), 3));
    for version in [&one, &two, &three] {
        fixture.app.deploy(version, true).unwrap();
    }
    let file = fixture.path("features/derived.yaml");
    let feature = "      - { name: trips_plus_one, type: Int64 }\n";
    let good = fs::read_to_string(&file).unwrap();
    replace(&file, good.replace(feature, &format!("{feature}      - {{ name: trips_twice, type: Int64 }}\n")));
    fixture.app.reload_definitions().unwrap();
    let why = "derived view 'odfv_singleton' and plugin 'odfv_singleton' 1.0.0 are incompatible: the view has a feature \
               'trips_twice', but the plugin does not compute it";
    let rejected = roll_back(&fixture, "1.0.0").unwrap_err();
    assert!(rejected.starts_with(why), "{rejected}");
    assert_history(&fixture, &[&three, &two, &one]);
    assert_eq!(fixture.app.plugins()[0].previous.as_ref().unwrap().digest, digest(&two));
    replace(&file, good);
    fixture.app.reload_definitions().unwrap();
    roll_back(&fixture, "1.0.0").unwrap();
    assert_history(&fixture, &[&one, &three, &two]);
}

#[test]
fn eleventh_version_replaces_oldest() {
    let fixture = Setup::golden().start();
    fixture.app.deploy(&first(), false).unwrap();
    let later: Vec<Vec<u8>> = (0..10).map(|n| variant(second(), n)).collect();
    later[..9].iter().for_each(|version| _ = fixture.app.deploy(version, true).unwrap());
    assert_eq!(roll_back(&fixture, "1.0.0"), Ok(digest(&first())), "the tenth version is kept");
    later.iter().for_each(|version| _ = fixture.app.deploy(version, true).unwrap());
    let expected: Vec<&[u8]> = later.iter().rev().map(Vec::as_slice).collect();
    assert_history(&fixture, &expected);
    roll_back(&fixture, "1.0.0").unwrap_err();
    let files = fs::read_dir(fixture.path(OWN).join("history").join(NAME)).unwrap().count();
    assert_eq!(files, 11, "ten versions and the list");
}

#[test]
fn rollback_completes_while_deployment_compiles() {
    let fixture = Setup::golden().config("plugins: {compile_time_max: 10m}\n").start();
    let (one, two, three) = (first(), second(), variant(first(), 3));
    for version in [&three, &one, &two] {
        fixture.app.deploy(version, true).unwrap();
    }
    let (slow, is_deployed) = (bomb(&loops(6_000)), AtomicBool::new(false));
    let mut rollbacks = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            assert!(fixture.app.deploy(&slow, true).unwrap().compiled);
            is_deployed.store(true, Ordering::SeqCst);
        });
        for version in [&three, &one, &two].into_iter().cycle() {
            roll_back(&fixture, &digest(version)).unwrap();
            if is_deployed.load(Ordering::SeqCst) {
                break;
            }
            rollbacks += 1;
            thread::sleep(Duration::from_millis(20));
        }
    });
    assert!(rollbacks > 3, "{rollbacks} rollbacks during the deployment");
    // The last rollback may have been before or after the deployment.
    let versions = history(&fixture);
    assert!(versions[0].live && versions.len() == 4, "{versions:?}");
    let placed = fs::read(fixture.path("plugins").join(NAME).with_extension("wasm")).unwrap();
    assert_eq!(digest(&placed), versions[0].digest);
    assert!(versions[..2].iter().any(|version| version.digest == digest(&slow)), "{versions:?}");
}

#[test]
fn earlier_layout_does_not_stop_start() {
    let setup = Setup::golden().plugins(&[SINGLETON]);
    for part in ["live", "previous"] {
        let dir = setup.path(OWN).join(part);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(NAME).with_extension("wasm"), second()).unwrap();
    }
    let fixture = setup.start();
    assert_eq!(trips(&fixture), json!(1002));
    assert_history(&fixture, &[&first()]);
    let error = fixture.app.roll_back(NAME, None).unwrap_err();
    assert!(error.starts_with("plugin 'odfv_singleton' has no previous version"), "{error}");
}

#[test]
fn damaged_history_is_rebuilt() {
    let fixture = Setup::golden().start();
    let (one, two, three) = (first(), second(), variant(second(), 3));
    for version in [&one, &two, &three] {
        fixture.app.deploy(version, true).unwrap();
        fixture.clock.set(fixture.clock.now() + 1_000_000);
    }
    let dir = fixture.path(OWN).join("history").join(NAME);
    let list = dir.join("history.json");
    let good = fs::read(&list).unwrap();
    fs::write(&list, &good[..good.len() / 2]).unwrap();
    assert_history(&fixture, &[&three, &two, &one]);
    let numbers: Vec<Option<String>> = history(&fixture).into_iter().map(|version| version.version).collect();
    let expected = ["2.0.0", "2.0.0", "1.0.0"].map(|number| Some(number.to_owned()));
    assert_eq!(numbers, expected, "the code is cached");
    // The next start writes the list, because it checks the live version.
    let fixture = fixture.restart();
    fixture.until_ready();
    let written: Value = serde_json::from_slice(&fs::read(&list).unwrap()).unwrap();
    assert_eq!(written["versions"].as_array().unwrap().len(), 3);
    assert_eq!(roll_back(&fixture, "1.0.0"), Ok(digest(&one)));
    assert_history(&fixture, &[&one, &three, &two]);

    // A damaged or missing file is an error. It is not loaded.
    let oldest = dir.join(digest(&two)).with_extension("wasm");
    fs::write(&oldest, "x").unwrap();
    let error = roll_back(&fixture, &digest(&two)).unwrap_err();
    assert!(error.ends_with(".wasm: the file is damaged: it has another digest"), "{error}");
    fs::remove_file(&oldest).unwrap();
    let error = roll_back(&fixture, &digest(&two)).unwrap_err();
    assert!(error.ends_with("is missing. hint: deploy the version's file"), "{error}");
    assert_history(&fixture, &[&one, &three, &two]);
}

/// A rollback takes effect although the disk is full, and repeating it writes the files.
#[test]
fn repeated_rollback_writes_missing_files() {
    let fixture = Setup::golden().start();
    let (one, two) = (first(), second());
    fixture.app.deploy(&one, false).unwrap();
    fixture.app.deploy(&two, true).unwrap();
    let blocked = fixture.path(OWN).join("history").join(NAME).join(format!(".history.json.{}", std::process::id()));
    fs::create_dir(&blocked).unwrap();
    let error = roll_back(&fixture, "1.0.0").unwrap_err();
    assert!(error.starts_with("plugin 'odfv_singleton' was rolled back, but its files were not"), "{error}");
    assert_eq!(trips(&fixture), json!(1002));
    let versions = history(&fixture);
    assert_eq!(versions[0].digest, digest(&two));
    assert_eq!(versions.iter().map(|version| version.live).collect::<Vec<_>>(), [false, true]);
    fs::remove_dir(&blocked).unwrap();
    assert_eq!(roll_back(&fixture, "1.0.0"), Ok(digest(&one)));
    assert_history(&fixture, &[&one, &two]);
    assert_eq!(fixture.app.roll_back(NAME, None).unwrap().digest, digest(&two));
}

#[test]
fn admin_api_lists_and_restores_versions() {
    let fixture = Setup::golden().start();
    fixture.app.deploy(&first(), false).unwrap();
    fixture.app.deploy(&second(), false).unwrap();
    let answer = ask_admin(&fixture, "GET", "/v1/plugins/odfv_singleton/history", "");
    assert_eq!(answer.status, 200);
    let expected = |version: &str, bytes: &[u8], live: bool| {
        json!({ "version": version, "digest": digest(bytes), "language": "rust", "bytes": bytes.len(),
                "went_live": "2026-11-23T09:13:10Z", "live": live })
    };
    let versions = [expected("2.0.0", &second(), true), expected("1.0.0", &first(), false)];
    assert_eq!(answer.json(), json!({ "versions": versions }));
    let path = "/v1/plugins/odfv_singleton/rollback";
    for (body, status, result) in [
        (r#"{"version": "1.0.0"}"#, 200, "1.0.0"),
        (r#"{"version": null}"#, 200, "2.0.0"),
        ("", 200, "1.0.0"),
        ("{}", 200, "2.0.0"),
        (r#"{"version": "9.9.9"}"#, 422, "has no version '9.9.9'"),
        (r#"{"number": "1.0.0"}"#, 422, "unknown field `number`"),
        ("1.0.0", 422, ""),
    ] {
        let answer = ask_admin(&fixture, "POST", path, body);
        assert_eq!(answer.status, status, "{body}");
        assert!(answer.text().contains(result), "{body}: {}", answer.text());
    }
    assert_eq!(ask_admin(&fixture, "GET", "/v1/plugins/none/history", "").status, 422);
    assert_eq!(ask_admin(&fixture, "POST", "/v1/plugins/odfv_singleton/history", "").status, 405);
}

/// Writes the versions of the plugin to files, and returns the names of the files.
fn write_versions(home: &Home) -> Vec<String> {
    let versions = [first(), second(), variant(first(), 3), variant(second(), 4)];
    let write = |(n, bytes): (usize, &Vec<u8>)| {
        let name = format!("v{n}.wasm");
        fs::write(home.path(&name), bytes).unwrap();
        name
    };
    versions.iter().enumerate().map(write).collect()
}

/// Returns the history of the plugin as the command prints it.
fn printed(home: &Home) -> Vec<PastVersion> {
    let ended = home.run(["plugin", "history", NAME, "--json"]);
    serde_json::from_str(&ended.assert_code(0).out).unwrap()
}

#[test]
fn commands_list_and_restore_versions() {
    let home = Home::golden_loaded();
    let versions = write_versions(&home);
    home.run(["plugin", "deploy", &versions[0]]).assert_code(0);
    home.run(["plugin", "deploy", &versions[1]]).assert_code(0);
    let without_server = printed(&home);
    let (host, _) = home.serve();
    assert_eq!(printed(&home), without_server);
    let ended = home.run(["plugin", "history", NAME]);
    let lines: Vec<Vec<&str>> = ended.assert_code(0).out.lines().map(|line| line.split("  ").collect()).collect();
    assert_eq!(lines.len(), 3, "{}", ended.out);
    assert!(lines[1].first() == Some(&"2.0.0") && lines[1].last() == Some(&"live"), "{}", ended.out);
    assert!(lines[2].first() == Some(&"1.0.0") && lines[2].last() == Some(&"-"), "{}", ended.out);
    let ended = home.run(["plugin", "rollback", NAME, "1.0.0"]);
    assert!(
        ended.assert_code(0).out.starts_with("odfv_singleton is rolled back to 1.0.0, replacing 2.0.0"),
        "{}",
        ended.out
    );
    let ended = home.run(["plugin", "rollback", NAME, "9.9.9"]);
    ended.assert_code(1).assert_complains(&["has no version '9.9.9' in its history. hint: it has 1.0.0 ("]);
    home.run(["plugin", "history", "../x"]).assert_code(1).assert_complains(&["plugin '.._x' does not exist"]);
    drop(host.stop(Signal::TERM));
    home.run(["plugin", "rollback", NAME, &without_server[0].digest]).assert_code(0);
    assert!(printed(&home)[0].live);
    assert_eq!(printed(&home)[0].version.as_deref(), Some("2.0.0"));
}

/// Checks the files of a history without the program.
fn assert_intact(dir: &Path) {
    let list: Value = serde_json::from_slice(&fs::read(dir.join("history.json")).unwrap()).unwrap();
    for version in list["versions"].as_array().unwrap() {
        let expected = version["digest"].as_str().unwrap();
        assert_eq!(digest(&fs::read(dir.join(expected).with_extension("wasm")).unwrap()), expected);
    }
}

/// Kills the server at random times while versions are deployed and rolled back.
#[test]
fn killed_server_keeps_intact_history() {
    // Set `LARDER_KILLS=1000` for a long run.
    let kills = std::env::var("LARDER_KILLS").map_or(10, |kills| kills.parse().unwrap());
    let home = Home::golden_loaded();
    let files = write_versions(&home);
    // Their code is cached from here on.
    files.iter().for_each(|file| _ = home.run(["plugin", "deploy", file]).assert_code(0));
    let dir = home.path(OWN).join("history").join(NAME);
    let mut dice = Dice(SEED);
    let mut firsts: HashMap<String, usize> = HashMap::new();
    let mut rounds = 0;
    // On a busy machine, all servers may be killed before the first deployment takes effect.
    while rounds < kills || (firsts.len() < 2 && rounds < 10 * kills) {
        rounds += 1;
        let (mut host, _) = home.serve();
        let wait = Duration::from_millis(dice.below(400));
        let socket = home.path("data/store/admin.sock");
        let (file, other) = (dice.below(4), dice.below(4));
        thread::scope(|scope| {
            scope.spawn(|| {
                let bodies = [file, other].map(|n| fs::read(home.path(&files[usize::try_from(n).unwrap()])).unwrap());
                let requests = [
                    ("/v1/plugins", &bodies[0][..]),
                    ("/v1/plugins", &bodies[1]),
                    ("/v1/plugins/odfv_singleton/rollback", &[]),
                ];
                // The requests fail when the server is killed.
                for (path, body) in requests.into_iter().cycle() {
                    let Ok(mut stream) = UnixStream::connect(&socket) else { return };
                    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
                    let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
                    let mut answer = Vec::new();
                    let half = stream.shutdown(std::net::Shutdown::Write);
                    if sent.and(half).and_then(|()| std::io::Read::read_to_end(&mut stream, &mut answer)).is_err() {
                        return;
                    }
                }
            });
            thread::sleep(wait);
            host.signal(Signal::KILL);
            host.end();
        });
        assert_intact(&dir);
        let versions = printed(&home);
        assert_eq!(versions.len(), 4);
        assert!(versions[0].live && versions.iter().all(|version| version.version.is_some()), "{versions:?}");
        let placed = fs::read(home.path("plugins").join(NAME).with_extension("wasm")).unwrap();
        assert_eq!(digest(&placed), versions[0].digest);
        *firsts.entry(versions[0].digest.clone()).or_default() += 1;
    }
    assert!(firsts.len() > 1, "{firsts:?}");
}
