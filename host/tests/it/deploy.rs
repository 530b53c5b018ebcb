//! Deployment of plugins through the admin API and through the plugin directory, and rollbacks.

mod command;
mod compiled_code;
mod history;

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use larder_http::Control;
use larder_plugin_host::Digest;
use serde_json::{Value, json};

use crate::{
    fixture::{Fixture, Setup, eventually_within, replace},
    guests::{guest, guest_with},
    wire,
};

const SINGLETON: &str = "feast_odfv/odfv_singleton";
/// A long timeout, because compilation runs with a low priority.
const COMPILED: Duration = Duration::from_secs(300);

fn first() -> Vec<u8> {
    fs::read(guest(SINGLETON)).unwrap()
}

fn second() -> Vec<u8> {
    fs::read(guest_with(SINGLETON, "second")).unwrap()
}

/// Returns the plugin's result for driver 1001, who has 1001 trips. The first version of the plugin adds one to the
/// trips, and the second version adds two.
fn trips(fixture: &Fixture) -> Value {
    let answer = fixture.features(&["odfv_singleton:trips_plus_one"], json!({ "driver_id": [1001] }));
    if answer.status == 200 { answer.column("trips_plus_one")["values"][0].clone() } else { answer.json() }
}

/// Writes a file, and creates its directory if needed.
fn bring(bytes: &[u8], path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    replace(path, bytes);
}

#[test]
fn deploy_and_rollback_take_effect_immediately() {
    let fixture = Setup::golden().start();
    assert!(trips(&fixture).as_str().unwrap().contains("derived view odfv_singleton has no plugin"));
    let report = fixture.app.deploy(&first(), false).unwrap();
    assert_eq!((report.plugin.as_str(), report.version.as_str(), report.replaced), ("odfv_singleton", "1.0.0", None));
    assert_eq!(report.views, ["odfv_singleton"]);
    assert_eq!(trips(&fixture), json!(1002));
    let report = fixture.app.deploy(&second(), false).unwrap();
    assert_eq!((report.version.as_str(), report.replaced.as_deref()), ("2.0.0", Some("1.0.0")));
    assert_eq!(trips(&fixture), json!(1003));
    assert_eq!(fs::read(fixture.path("plugins/odfv_singleton.wasm")).unwrap(), second(), "for the next start");

    assert_eq!(fixture.app.roll_back("odfv_singleton", None).unwrap().version, "1.0.0");
    assert_eq!(trips(&fixture), json!(1002));
    assert_eq!(fs::read(fixture.path("plugins/odfv_singleton.wasm")).unwrap(), first());
    // Rolling back twice returns to the original version.
    assert_eq!(fixture.app.roll_back("odfv_singleton", None).unwrap().version, "2.0.0");
    assert_eq!(trips(&fixture), json!(1003));
    let error = fixture.app.roll_back("odfv_python", None).unwrap_err();
    assert!(error.starts_with("plugin 'odfv_python' does not exist. hint: "), "{error}");
}

/// A poll that read the directory before a rollback must not deploy the newer version again after it.
#[test]
fn rollback_is_not_undone_by_polling() {
    let fixture = Setup::golden().start();
    fixture.app.deploy(&first(), false).unwrap();
    fixture.app.deploy(&second(), false).unwrap();
    // This takes long enough for about ten polls of the directory.
    let (started, mut wanted) = (Instant::now(), ["1.0.0", "2.0.0"].into_iter().cycle());
    while started.elapsed() < Duration::from_secs(4) {
        let report = fixture.app.roll_back("odfv_singleton", None).unwrap();
        assert_eq!(Some(report.version.as_str()), wanted.next());
    }
}

#[test]
fn rollback_survives_restart() {
    let fixture = Setup::golden().start();
    fixture.app.deploy(&first(), false).unwrap();
    let error = fixture.app.roll_back("odfv_singleton", None).unwrap_err();
    assert!(error.starts_with("plugin 'odfv_singleton' has no previous version. hint: "), "{error}");
    fixture.app.deploy(&second(), false).unwrap();
    let fixture = fixture.restart();
    fixture.until_ready();
    assert_eq!(trips(&fixture), json!(1003));
    assert!(!fixture.app.deploy(&second(), false).unwrap().compiled, "the code is cached");
    assert_eq!(fixture.app.roll_back("odfv_singleton", None).unwrap().version, "1.0.0");
    let fixture = fixture.restart();
    fixture.until_ready();
    assert_eq!(trips(&fixture), json!(1002));
}

#[test]
fn deployment_without_stored_copy_changes_nothing() {
    let fixture = Setup::golden().start();
    fixture.app.deploy(&first(), false).unwrap();
    // No copy can be written into a directory that is a file.
    let history = fixture.path("data/store/plugins/history/odfv_singleton");
    fs::remove_dir_all(&history).unwrap();
    fs::write(&history, "").unwrap();
    fixture.app.deploy(&second(), false).unwrap_err();
    let plugins = fixture.app.plugins();
    let plugin = plugins.iter().find(|plugin| plugin.plugin == "odfv_singleton").unwrap();
    assert_eq!(plugin.live.as_ref().map(|live| &*live.version), Some("1.0.0"));
    assert_eq!(trips(&fixture), json!(1002));
    assert_eq!(fs::read(fixture.path("plugins/odfv_singleton.wasm")).unwrap(), first());
}

#[test]
fn rollback_without_stored_copy_keeps_files() {
    let fixture = Setup::golden().start();
    fixture.app.deploy(&first(), false).unwrap();
    fixture.app.deploy(&second(), false).unwrap();
    let history = fixture.path("data/store/plugins/history/odfv_singleton");
    let list = fs::read(history.join("history.json")).unwrap();
    fs::remove_file(history.join(Digest::of(&first()).to_string()).with_extension("wasm")).unwrap();
    let error = fixture.app.roll_back("odfv_singleton", None).unwrap_err();
    assert!(error.contains("the server's copy of the restored version is missing"), "{error}");
    assert_eq!(trips(&fixture), json!(1002));
    assert_eq!(fs::read(fixture.path("plugins/odfv_singleton.wasm")).unwrap(), second());
    assert_eq!(fs::read(history.join("history.json")).unwrap(), list);
}

/// If definitions need an output that only the newer version has, the previous version is kept.
#[test]
fn incompatible_previous_version_is_kept() {
    let mut fixture = Setup::golden().start();
    fixture.app.deploy(&first(), false).unwrap();
    fixture.app.deploy(&second(), false).unwrap();
    let file = fixture.path("features/derived.yaml");
    let good = fs::read_to_string(&file).unwrap();
    let feature = "      - { name: trips_plus_one, type: Int64 }\n";
    let more = good.replace(feature, &format!("{feature}      - {{ name: trips_twice, type: Int64 }}\n"));
    assert_ne!(good, more);
    replace(&file, more);
    fixture.app.reload_definitions().unwrap();
    for _ in 0..2 {
        let plugins = fixture.app.plugins();
        let plugin = plugins.iter().find(|plugin| plugin.plugin == "odfv_singleton").unwrap();
        assert_eq!(plugin.previous.as_ref().map(|previous| &*previous.version), Some("1.0.0"));
        let why = "derived view 'odfv_singleton' and plugin 'odfv_singleton' 1.0.0 are incompatible: the view has a feature \
                   'trips_twice', but the plugin does not compute it";
        let rejected = fixture.app.roll_back("odfv_singleton", None).unwrap_err();
        assert!(rejected.starts_with(why), "{rejected}");
        assert_eq!(trips(&fixture), json!(1003));
        fixture = fixture.restart();
        fixture.until_ready();
    }
    replace(fixture.path("features/derived.yaml"), good);
    fixture.app.reload_definitions().unwrap();
    assert_eq!(fixture.app.roll_back("odfv_singleton", None).unwrap().version, "1.0.0");
    assert_eq!(trips(&fixture), json!(1002));
}

#[test]
fn file_added_by_rename_is_deployed() {
    let fixture = Setup::golden().start();
    let file = fixture.path("plugins/odfv_singleton.wasm");
    bring(&first(), &file);
    eventually_within("the first version is live", COMPILED, || trips(&fixture) == json!(1002));
    bring(&second(), &file);
    eventually_within("the second version is live", COMPILED, || trips(&fixture) == json!(1003));
}

#[test]
fn rejected_file_keeps_previous_version() {
    let fixture = Setup::golden().start();
    fixture.app.deploy(&first(), false).unwrap();
    let good = first();
    let oversized = [good.clone(), vec![0; 41 << 20]].concat();
    let foreign = fs::read(guest_with("hostile", "foreign-import")).unwrap();
    for bytes in [b"no plugin", &good[..good.len() / 2], &oversized, &foreign] {
        fixture.app.deploy(bytes, false).unwrap_err();
        assert_eq!(trips(&fixture), json!(1002));
    }
    let fixture = incompatible(fixture);
    // A file in the directory is rejected in the same way. It stays there, and the list shows it as rejected.
    bring(b"no plugin", &fixture.path("plugins/odfv_singleton.wasm"));
    fixture.eventually("it is listed as rejected", || {
        fixture.app.plugins().iter().any(|plugin| plugin.rejected.is_some())
    });
    let plugins = fixture.app.plugins();
    let plugin = plugins.iter().find(|plugin| plugin.plugin == "odfv_singleton").unwrap();
    let why = plugin.rejected.as_deref().unwrap();
    assert!(why.starts_with("the file is not a WebAssembly component. hint: "), "{why}");
    assert_eq!(plugin.live.as_ref().unwrap().version, "1.0.0");
    assert_eq!(trips(&fixture), json!(1002));
    // The good version is live after a restart, too, because the server has a copy of it.
    let fixture = fixture.restart();
    fixture.until_ready();
    assert_eq!(trips(&fixture), json!(1002));
    // When the good file is back, the list shows no rejected file.
    bring(&good, &fixture.path("plugins/odfv_singleton.wasm"));
    fixture.eventually("nothing is rejected", || fixture.app.plugins().iter().all(|plugin| plugin.rejected.is_none()));
    // A file whose name differs from the plugin's name is rejected.
    bring(&good, &fixture.path("plugins/other.wasm"));
    fixture.eventually("the wrong name is reported", || {
        fixture.app.plugins().iter().any(|plugin| {
            plugin.rejected.as_deref()
                == Some("the file is named 'other', but contains plugin 'odfv_singleton'. hint: rename the file to odfv_singleton.wasm")
        })
    });
}

/// Rejects a plugin whose outputs differ from its view's features.
fn incompatible(fixture: Fixture) -> Fixture {
    let definitions = "derived_views:
  - name: wants_text
    plugin: odfv_python
    inputs: ['driver_stats:conv_rate', {name: amount, request: Float64}, {name: hour, request: Int64}]
    features: [{name: label, type: Int64}]
";
    replace(fixture.path("features/more.yaml"), definitions);
    fixture.app.reload_definitions().unwrap();
    let why = fixture.app.deploy(&fs::read(guest("feast_odfv/odfv_python")).unwrap(), false).unwrap_err();
    let expected = "derived view 'wants_text' and plugin 'odfv_python' 1.0.0 are incompatible: feature 'label' is Int64 in the view, \
                but String in the plugin";
    assert!(why.starts_with(expected), "{why}");
    fixture
}

#[test]
fn incompatible_definitions_are_rejected() {
    let fixture = Setup::golden().plugins(&[SINGLETON]).start();
    let file = fixture.path("features/derived.yaml");
    let good = fs::read_to_string(&file).unwrap();
    let bad = good.replace("{ name: trips_plus_one, type: Int64 }", "{ name: trips_plus_one, type: String }");
    assert_ne!(good, bad);
    replace(&file, bad);
    let why = fixture.app.reload_definitions().unwrap_err().to_string();
    assert!(why.contains("feature 'trips_plus_one' is String in the view, but Int64 in the plugin"), "{why}");
    assert_eq!(trips(&fixture), json!(1002));
    replace(&file, good.replace("on_error: fail", "on_error: null"));
    fixture.app.reload_definitions().unwrap();
    let answer = fixture.features(&["odfv_singleton:trips_plus_one"], json!({ "driver_id": [9999] }));
    assert_eq!(answer.column("trips_plus_one")["statuses"], json!(["INVALID"]), "the plugin is bound to the new view");
}

#[test]
fn a_host_without_plugins_says_so() {
    let fixture = Setup::golden().plugins(&[SINGLETON]).config("plugins: {dir: off}\n").start();
    assert!(trips(&fixture).as_str().unwrap().contains("has no plugin"));
    assert!(fixture.app.deploy(&first(), false).unwrap_err().contains("runs no plugins"));
    assert_eq!(fixture.app.plugins(), []);
}

#[test]
fn hundred_swaps_fail_no_request() {
    let fixture = Setup::golden().start();
    fixture.app.deploy(&first(), false).unwrap();
    fixture.app.deploy(&second(), false).unwrap();
    let body =
        json!({ "features": ["odfv_singleton:trips_plus_one"], "entities": { "driver_id": [1001] } }).to_string();
    let (over, requests) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let headers = [("content-type", "application/json")];
                    let answer =
                        wire::send(fixture.address(), "POST", "/get-online-features", &headers, body.as_bytes());
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    let value = &answer.column("trips_plus_one")["values"][0];
                    assert!(*value == json!(1002) || *value == json!(1003), "{value}");
                    requests.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for swap in 0..100 {
            // Alternately, the version is deployed from cached code, or restored by a rollback.
            if swap % 2 == 0 {
                fixture.app.deploy(&first(), false).unwrap();
                fixture.app.deploy(&second(), false).unwrap();
            } else {
                fixture.app.roll_back("odfv_singleton", None).unwrap();
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(requests.into_inner() > 100);
}

/// Returns the sum of `larder_plugin_info` over all views and versions of the plugin, for one digest or for all.
fn in_service(fixture: &Fixture, digest: Option<&str>) -> f64 {
    let text = wire::send(fixture.metrics_address(), "GET", "/metrics", &[], b"").text();
    let lines = text.lines().filter(|line| line.starts_with("larder_plugin_info{plugin=\"odfv_singleton\""));
    let lines = lines.filter(|line| digest.is_none_or(|digest| line.contains(&format!("digest=\"{digest}\""))));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[test]
fn metric_has_digest_in_service() {
    let fixture = Setup::golden().with_metrics().start();
    let assert_only = |bytes: &[u8]| {
        let digest = Digest::of(bytes).to_string();
        let found = (in_service(&fixture, Some(&digest)), in_service(&fixture, None));
        assert_eq!((digest.len(), found), (64, (1.0, 1.0)));
    };
    assert_eq!(in_service(&fixture, None), 0.0);
    fixture.app.deploy(&first(), false).unwrap();
    assert_only(&first());
    // The previous version stays loaded, but it is not in service.
    fixture.app.deploy(&second(), false).unwrap();
    assert_only(&second());
    fixture.app.deploy(b"no plugin", false).unwrap_err();
    assert_only(&second());
    fixture.app.roll_back("odfv_singleton", None).unwrap();
    assert_only(&first());
    // The view changes, so the same file is bound again.
    let file = fixture.path("features/derived.yaml");
    let definitions = fs::read_to_string(&file).unwrap();
    replace(&file, definitions.replace("on_error: fail", "on_error: null"));
    fixture.app.reload_definitions().unwrap();
    assert_eq!(trips(&fixture), json!(1002));
    assert_only(&first());
    let without = definitions.split("  - name: odfv_singleton").next().unwrap();
    replace(&file, without);
    fixture.app.reload_definitions().unwrap();
    assert_eq!(in_service(&fixture, None), 0.0, "no view uses the plugin");
    replace(&file, definitions);
    fixture.app.reload_definitions().unwrap();
    assert_only(&first());
}

#[test]
fn deploy_rejects_what_checks_reject() {
    let setup = Setup::golden();
    let view = "derived_views:
  - name: hostile_view
    plugin: hostile
    inputs: [{name: x, request: Float64}]
    features: [{name: y, type: Float64}]
    config: {mode: random}
";
    fs::write(setup.path("features/hostile.yaml"), view).unwrap();
    let fixture = setup.start();
    let y = || fixture.features(&["hostile_view:y"], json!({ "x": [1.0] })).column("y");
    let (first, second) = (fs::read(guest("hostile")).unwrap(), fs::read(guest_with("hostile", "frames")).unwrap());

    let why = fixture.app.deploy(&first, false).unwrap_err();
    // The values are numbers of calls, and the number of calls depends on the measured cost.
    let expected = "plugin 'hostile' 1.0.0 is not accepted for derived view 'hostile_view': it is not deterministic: \
                    output 'y' of generated row 0 (x = null) is ";
    assert!(why.starts_with(expected) && why.contains(" when the same instance computes it again. "), "{why}");
    assert!(why.ends_with("or deploy it anyway with `larder plugin deploy --force`"), "{why}");
    assert_eq!(y()["statuses"], json!(["INVALID"]));
    fixture.app.deploy(&first, true).unwrap();
    assert_eq!(y()["statuses"], json!(["PRESENT"]));
    assert!(fixture.app.deploy(&first, false).is_ok(), "it is live already");

    // The other file has the same version, and rejects the mode.
    fs::write(fixture.path("features/hostile.yaml"), view.replace("random", "good")).unwrap();
    fixture.app.reload().unwrap();
    let why = fixture.app.deploy(&second, false).unwrap_err();
    assert!(why.starts_with("plugin 'hostile' 1.0.0 is live already, from a different file (sha256 "), "{why}");
    fixture.app.deploy(&second, true).unwrap();
    assert_eq!(y()["values"], json!([2.0]));
}
