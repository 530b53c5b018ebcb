//! The command `larder plugin deploy`: what it rejects, and what `--force` changes.

use std::fs;

use larder_plugin_host::Digest;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{first, history::variant, second};
use crate::{
    binary::{Ended, Home},
    guests::guest,
    wire,
};

/// A view whose plugin fails the acceptance checks, because its outputs are random.
const RANDOM: &str = "derived_views:
  - name: random
    plugin: hostile
    inputs: [{name: x, request: Float64}]
    features: [{name: y, type: Float64}]
    config: {mode: random}
";

const NOT_DETERMINISTIC: &str =
    "plugin 'hostile' 1.0.0 is not accepted for derived view 'random': it is not deterministic";
const OTHER_BYTES: &str = "plugin 'odfv_singleton' 1.0.0 is live already, from a different file";

fn deploy(home: &Home, file: &str) -> Ended {
    home.run(["plugin", "deploy", file])
}

fn deploy_by_force(home: &Home, file: &str) -> Ended {
    home.run(["plugin", "deploy", "--force", file])
}

/// Creates a home with files of plugins: `random.wasm`, two versions, and another file of the first version.
fn home() -> Home {
    let home = Home::golden_loaded();
    home.write("features/random.yaml", RANDOM);
    fs::copy(guest("hostile"), home.path("random.wasm")).unwrap();
    let files = [("first.wasm", first()), ("other.wasm", variant(first(), 1)), ("second.wasm", second())];
    files.iter().for_each(|(name, bytes)| fs::write(home.path(name), bytes).unwrap());
    home
}

#[test]
fn force_deploys_rejected_plugins() {
    let home = home();
    let (mut host, address) = home.serve();
    let status = |feature: &str| {
        let body = json!({ "features": [feature], "entities": { "x": [1.0], "driver_id": [1001] } }).to_string();
        let answer = wire::send(address, "POST", "/get-online-features", &[], body.as_bytes());
        if answer.status == 200 {
            answer.column(feature.split(':').nth(1).unwrap())["statuses"][0].clone()
        } else {
            Value::Null
        }
    };
    deploy(&home, "random.wasm").assert_code(1).assert_complains(&[NOT_DETERMINISTIC, "larder plugin deploy --force"]);
    assert_eq!(status("random:y"), "INVALID");
    let forced = deploy_by_force(&home, "random.wasm");
    assert!(forced.assert_code(0).out.starts_with("hostile 1.0.0 is deployed ("), "{}", forced.out);
    forced.assert_complains(&["deployed by force, although it was rejected", NOT_DETERMINISTIC]);
    assert_eq!(status("random:y"), "PRESENT");
    let line = host.until("plugin deployed by force");
    assert!(line.contains("WARN") && line.contains("hostile") && line.contains("not deterministic"), "{line}");

    deploy(&home, "first.wasm").assert_code(0);
    let live = || home.run(["plugin", "list", "--json"]).assert_code(0).out.clone();
    let before = live();
    deploy(&home, "other.wasm").assert_code(1).assert_complains(&[OTHER_BYTES, "larder plugin deploy --force"]);
    assert_eq!(live(), before);
    deploy_by_force(&home, "other.wasm").assert_code(0);
    let digest = Digest::of(&fs::read(home.path("other.wasm")).unwrap()).to_string();
    assert!(live().contains(&digest), "{}", live());
    let line = host.until("plugin deployed by force");
    assert!(line.contains("odfv_singleton") && line.contains("from a different file"), "{line}");
    assert_eq!(status("odfv_singleton:trips_plus_one"), "PRESENT");
    // A plugin that passes the checks needs no force, so there is no warning.
    deploy_by_force(&home, "second.wasm").assert_code(0);
    let said = host.stop(Signal::TERM);
    assert_eq!(said.matches("plugin deployed by force").count(), 2, "{said}");
}

#[test]
fn force_works_without_server() {
    let home = home();
    deploy(&home, "random.wasm").assert_code(1).assert_complains(&[NOT_DETERMINISTIC]);
    assert!(!home.path("plugins/hostile.wasm").is_file());
    deploy_by_force(&home, "random.wasm").assert_code(0);
    assert!(home.path("plugins/hostile.wasm").is_file());
}

#[test]
fn lower_version_is_deployed_with_warning() {
    let home = home();
    let (mut host, _) = home.serve();
    deploy(&home, "second.wasm").assert_code(0);
    let lower = deploy(&home, "first.wasm");
    lower.assert_code(0).assert_complains(&["version 1.0.0 of plugin 'odfv_singleton' is lower than 2.0.0"]);
    let line = host.until("the plugin's version is lower than the live version");
    assert!(line.contains("WARN") && line.contains("odfv_singleton"), "{line}");
    let higher = deploy(&home, "second.wasm");
    assert!(!higher.assert_code(0).err.contains("is lower than"), "{}", higher.err);
    let said = host.stop(Signal::TERM);
    assert_eq!(said.matches("is lower than the live version").count(), 1, "{said}");
}
