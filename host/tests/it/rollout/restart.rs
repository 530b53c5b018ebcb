//! Rollouts across restarts, changed definitions, and disks that cannot be written.

use std::fs;

use larder_http::{Control, RolloutStage};

use super::{
    AFFECTED, PLUGIN, accept, ask_good, comparison, live_version, promote, report, shadow, stage, start, until_compared,
};
use crate::fixture::{Fixture, eventually, replace};

fn compared(rollout: &str) -> Fixture {
    let fixture = start(&format!("samples_min: 100, {rollout}"));
    shadow(&fixture, "ulp");
    ask_good(&fixture, 100);
    until_compared(&fixture, 100);
    fixture
}

#[test]
fn rollout_survives_restart_in_each_stage() {
    let fixture = compared("bake: 1h");
    promote(&fixture, 10.0).unwrap();
    let fixture = fixture.restart();
    fixture.until_ready();
    let rollout = report(&fixture).rollout.unwrap();
    assert_eq!((rollout.stage, rollout.percent, rollout.held), (RolloutStage::Canary, 10.0, true));
    assert_eq!(comparison(&fixture).diff.rows, 100, "the comparison continues");
    assert_eq!(live_version(&fixture), "1.0.0");

    promote(&fixture, 100.0).unwrap();
    let fixture = fixture.restart();
    fixture.until_ready();
    assert_eq!((stage(&fixture), &*live_version(&fixture)), (Some(RolloutStage::Bake), "1.1.0"));
    assert_eq!(fixture.app.roll_back(PLUGIN, None).unwrap().version, "1.0.0");
    let fixture = fixture.restart();
    fixture.until_ready();
    assert_eq!((stage(&fixture), &*live_version(&fixture)), (None, "1.0.0"));
}

#[test]
fn accepted_difference_survives_restart() {
    let fixture = start("samples_min: 100");
    shadow(&fixture, "ulp");
    super::ask(&fixture, 1, [AFFECTED; 100].into_iter());
    until_compared(&fixture, 100);
    accept(&fixture, 10.0);
    let fixture = fixture.restart();
    fixture.until_ready();
    assert_eq!(report(&fixture).rollout.unwrap().accepted, ["y"]);
    assert_eq!(report(&fixture).breaches, [""; 0]);
}

/// Definitions that do not concern the view keep its comparison. A changed configuration begins a new one.
#[test]
fn changed_definitions_keep_rollout() {
    let fixture = compared("");
    let other = "derived_views:\n  - {name: other, plugin: none, inputs: [{name: x, request: Float64}], features: [{name: \
                 q, type: Float64}]}\n";
    fs::write(fixture.path("features/other.yaml"), other).unwrap();
    fixture.app.reload().unwrap();
    assert_eq!((stage(&fixture), comparison(&fixture).diff.rows), (Some(RolloutStage::Shadow), 100));
    fs::write(
        fixture.path("features/doubled.yaml"),
        super::VIEW.replace("    features:", "    on_error: fail\n    features:"),
    )
    .unwrap();
    fixture.app.reload().unwrap();
    assert_eq!((stage(&fixture), comparison(&fixture).diff.rows), (Some(RolloutStage::Shadow), 0));
    ask_good(&fixture, 100);
    until_compared(&fixture, 100);
}

#[test]
fn promotion_without_disk_changes_nothing() {
    let fixture = compared("");
    // No file can be written into a directory that is a file.
    let dir = fixture.path("data/store/plugins/rollouts");
    let aside = fixture.path("aside");
    fs::rename(&dir, &aside).unwrap();
    fs::write(&dir, "").unwrap();
    let error = promote(&fixture, 10.0).unwrap_err();
    assert!(error.contains("rollouts/"), "{error}");
    assert_eq!((stage(&fixture), &*live_version(&fixture)), (Some(RolloutStage::Shadow), "1.0.0"));
    fs::remove_file(&dir).unwrap();
    fs::rename(&aside, &dir).unwrap();
    promote(&fixture, 10.0).unwrap();
    // The version cannot go live without a place for its file.
    let plugins = fixture.path("plugins");
    fs::rename(&plugins, fixture.path("aside2")).unwrap();
    fs::write(&plugins, "").unwrap();
    promote(&fixture, 100.0).unwrap_err();
    assert_eq!((stage(&fixture), &*live_version(&fixture)), (Some(RolloutStage::Canary), "1.0.0"));
}

#[test]
fn damaged_state_ends_rollout() {
    let fixture = compared("");
    fs::write(fixture.path("data/store/plugins/rollouts/candidate.json"), "{").unwrap();
    let fixture = fixture.restart();
    fixture.until_ready();
    assert_eq!((stage(&fixture), &*live_version(&fixture)), (None, "1.0.0"));
    let gone = fixture.path("data/store/plugins/rollouts/candidate.wasm");
    eventually("the files are removed", || !gone.try_exists().unwrap());
}

/// A file that waits for the end of a rollout also waits after a restart, and is not replaced by the versions of the rollout.
#[test]
fn waiting_file_survives_restart_and_promotion() {
    let fixture = compared("bake: 1h");
    promote(&fixture, 10.0).unwrap();
    let waiting = super::candidate("nulls");
    replace(fixture.path("plugins/candidate.wasm"), &waiting);
    let fixture = fixture.restart();
    fixture.until_ready();
    assert_eq!((stage(&fixture), &*live_version(&fixture)), (Some(RolloutStage::Canary), "1.0.0"));
    promote(&fixture, 100.0).unwrap();
    let file = |fixture: &Fixture| fs::read(fixture.path("plugins/candidate.wasm")).unwrap();
    assert!(file(&fixture) == waiting, "the file was replaced");
    let fixture = fixture.restart();
    fixture.until_ready();
    assert_eq!((stage(&fixture), &*live_version(&fixture)), (Some(RolloutStage::Bake), "1.1.0"));
    assert!(file(&fixture) == waiting, "the file was replaced");
}

/// If the plugin directory cannot be written, it keeps a version that was rolled back. The next start does not load it.
#[test]
fn rolled_back_version_is_not_restored_from_history() {
    let fixture = compared("bake: 1h");
    promote(&fixture, 100.0).unwrap();
    let plugins = fixture.path("plugins");
    let bad = fs::read(plugins.join("candidate.wasm")).unwrap();
    fs::remove_dir_all(&plugins).unwrap();
    fs::write(&plugins, "").unwrap();
    let error = fixture.app.roll_back(PLUGIN, None).unwrap_err();
    assert!(error.contains("was rolled back, but its files were not"), "{error}");
    assert_eq!(live_version(&fixture), "1.0.0");
    fs::remove_file(&plugins).unwrap();
    fs::create_dir(&plugins).unwrap();
    fs::write(plugins.join("candidate.wasm"), bad).unwrap();
    let fixture = fixture.restart();
    fixture.until_ready();
    assert_eq!(live_version(&fixture), "1.0.0");
}
