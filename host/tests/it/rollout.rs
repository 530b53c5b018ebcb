//! Rollouts of a new version of a plugin: shadow runs, canaries, promotion and automatic rollback. The versions are those of
//! `plugins/candidate`, whose faults only affect some rows.

mod faults;
mod load;
mod restart;

use std::{fs, time::Duration};

use larder_http::{Control, PromoteCommand, RolloutReport, RolloutStage, RolloutStatus};
use larder_plugin_host::ComparisonReport;
use serde_json::{Value, json};

use crate::{
    fixture::{Fixture, Setup, eventually_within},
    guests::{guest, guest_with},
};

const PLUGIN: &str = "candidate";
/// The first row that the faults of the candidates affect.
const AFFECTED: u32 = 7_000_000;

const VIEW: &str = "derived_views:
  - name: doubled
    plugin: candidate
    inputs: [{name: x, request: Float64}, {name: z, request: Float64}]
    features: [{name: y, type: Float64}]
";

/// Starts a server with the live version. `rollout` are settings in `plugins: rollout:`.
fn start(rollout: &str) -> Fixture {
    let setup = Setup::golden();
    fs::write(setup.path("features/doubled.yaml"), VIEW).unwrap();
    let config = format!("plugins: {{shadow_cpu_percent: 100, rollout: {{{rollout}}}}}\n");
    let fixture = setup.config(&config).start();
    fixture.app.deploy(&fs::read(guest(PLUGIN)).unwrap(), false).unwrap();
    fixture
}

fn candidate(feature: &str) -> Vec<u8> {
    fs::read(guest_with(PLUGIN, feature)).unwrap()
}

fn shadow(fixture: &Fixture, feature: &str) -> RolloutStatus {
    fixture.app.deploy_shadow(&candidate(feature), 1.0, false).unwrap()
}

/// Promotes the candidate to a share of the requests.
fn promote(fixture: &Fixture, percent: f64) -> Result<RolloutStatus, String> {
    fixture.app.promote(PLUGIN, &PromoteCommand { percent: Some(percent), accept_diff: Vec::new() })
}

fn accept(fixture: &Fixture, percent: f64) -> RolloutStatus {
    let command = PromoteCommand { percent: Some(percent), accept_diff: vec!["y".to_owned()] };
    fixture.app.promote(PLUGIN, &command).unwrap()
}

/// Requests the rows of one driver. Returns the values of `y`.
fn ask(fixture: &Fixture, driver: u32, rows: impl Iterator<Item = u32>) -> Vec<Value> {
    let x: Vec<u32> = rows.collect();
    let (drivers, z) = (vec![driver; x.len()], vec![0; x.len()]);
    let answer = fixture.features(&["doubled:y"], json!({ "driver_id": drivers, "x": x, "z": z }));
    assert_eq!(answer.status, 200, "{}", answer.json());
    answer.column("y")["values"].as_array().unwrap().clone()
}

/// Requests rows that no fault affects, in batches of 100.
fn ask_good(fixture: &Fixture, rows: u32) {
    for first in (0..rows).step_by(100) {
        ask(fixture, first, first..first + 100);
    }
}

fn report(fixture: &Fixture) -> RolloutReport {
    fixture.app.plugin_diff(PLUGIN).unwrap()
}

fn comparison(fixture: &Fixture) -> ComparisonReport {
    report(fixture).views["doubled"].clone()
}

/// Waits until this many rows are compared.
fn until_compared(fixture: &Fixture, rows: u64) {
    // The thread of shadow runs has the lowest priority, so it gets little CPU time on a busy machine.
    let patience = Duration::from_secs(300);
    eventually_within("rows are compared", patience, || comparison(fixture).diff.rows >= rows);
}

fn stage(fixture: &Fixture) -> Option<RolloutStage> {
    report(fixture).rollout.map(|rollout| rollout.stage)
}

fn live_version(fixture: &Fixture) -> String {
    let plugins = fixture.app.plugins();
    let plugin = plugins.iter().find(|plugin| plugin.plugin == PLUGIN).unwrap();
    plugin.live.as_ref().unwrap().version.clone()
}

/// Waits until the candidate is rolled back. Returns the reason.
fn until_rolled_back(fixture: &Fixture) -> String {
    fixture.eventually("the candidate is rolled back", || stage(fixture).is_none());
    report(fixture).rolled_back.unwrap().why
}

#[test]
fn shadow_run_finds_change_of_one_ulp() {
    let fixture = start("samples_min: 1000");
    let status = shadow(&fixture, "ulp");
    assert_eq!(
        (status.stage, &*status.base.version, &*status.candidate.version),
        (RolloutStage::Shadow, "1.0.0", "1.1.0")
    );
    for first in (AFFECTED..AFFECTED + 1_000).step_by(100) {
        let values = ask(&fixture, first, first..first + 100);
        let live: Vec<Value> = (first..first + 100).map(|x| json!(2.0 * f64::from(x))).collect();
        assert_eq!(values, live, "requests get the outputs of the live version");
    }
    until_compared(&fixture, 1_000);
    let report = comparison(&fixture);
    let y = &report.diff.outputs[0];
    assert_eq!((report.diff.rows, y.equal, y.different, y.worst.len()), (1_000, 999, 1, 1));
    let worst = &y.worst[0];
    assert_eq!((&*worst.inputs[0].value, &*worst.old, &*worst.new), ("7000000.0", "14000000.0", "14000000.000000002"));
    assert_eq!((report.dropped, report.impure, report.first_impure), (0, 0, None));
    assert!(report.repeated > 0 && report.old_cost.rows > 0 && report.new_cost.rows == 1_000);

    let catalog = fixture.get("/v1/catalog").json();
    let view = catalog["derived_views"].as_array().unwrap().iter().find(|view| view["name"] == "doubled").unwrap();
    let counts = &view["comparison"]["features"][0];
    assert_eq!((&counts["name"], &counts["equal"], &counts["different"]), (&json!("y"), &json!(999), &json!(1)));

    // One of 1,000 values is what `max_changed` allows by default. Two of 1,010 are more.
    ask(&fixture, 1, (0..10).map(|_| AFFECTED));
    until_compared(&fixture, 1_010);
    let error = promote(&fixture, 10.0).unwrap_err();
    let expected = "view 'doubled': 11 of 1010 values of feature 'y' differ, more than 'rollout: max_changed: ratio: 0.001' \
                    allows\nhint: `larder plugin diff candidate` shows the differences; if they are intended, run `larder \
                    plugin promote candidate --accept-diff y`";
    assert!(error.ends_with(expected), "{error}");
    assert_eq!(accept(&fixture, 10.0).accepted, ["y"]);
    assert_eq!(stage(&fixture), Some(RolloutStage::Canary));
}

#[test]
fn too_few_samples_stop_promotion() {
    let fixture = start("samples_min: 101");
    shadow(&fixture, "ulp");
    ask_good(&fixture, 100);
    until_compared(&fixture, 100);
    let error = promote(&fixture, 10.0).unwrap_err();
    assert!(error.contains("100 rows are compared, but 'rollout: samples_min' is 101"), "{error}");
    ask(&fixture, 1, 0..1);
    until_compared(&fixture, 101);
    promote(&fixture, 10.0).unwrap();
}

/// The candidate computes its share of the requests. All rows of a request, and all requests of an entity, have one version.
#[test]
fn canary_computes_its_share_of_requests() {
    let fixture = start("samples_min: 1, max_changed: {ratio: 1}");
    shadow(&fixture, "ulp");
    ask_good(&fixture, 100);
    until_compared(&fixture, 100);
    let share = |fixture: &Fixture| -> Vec<u32> {
        let is_new = |driver: &u32| {
            let values = ask(fixture, *driver, [AFFECTED; 3].into_iter());
            assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
            values[0] != json!(14_000_000.0)
        };
        (0..500).filter(is_new).collect()
    };
    assert_eq!(share(&fixture), [0; 0]);
    promote(&fixture, 20.0).unwrap();
    let twenty = share(&fixture);
    assert!((60..140).contains(&twenty.len()), "{}", twenty.len());
    assert_eq!(share(&fixture), twenty, "the same entities");
    promote(&fixture, 60.0).unwrap();
    let sixty = share(&fixture);
    assert!((240..360).contains(&sixty.len()) && twenty.iter().all(|driver| sixty.contains(driver)), "{}", sixty.len());
    promote(&fixture, 100.0).unwrap();
    assert_eq!((share(&fixture).len(), &*live_version(&fixture)), (500, "1.1.0"));
    assert_eq!(stage(&fixture), Some(RolloutStage::Bake));
    assert_eq!(fs::read(fixture.path("plugins/candidate.wasm")).unwrap(), candidate("ulp"));
}

/// Without a share in the command, the candidate is promoted in the configured steps.
#[test]
fn candidate_is_promoted_in_steps() {
    let fixture = start("samples_min: 1, steps: [10, 50], step_for: 1s, bake: 1s");
    shadow(&fixture, "ulp");
    ask_good(&fixture, 100);
    until_compared(&fixture, 100);
    let status = fixture.app.promote(PLUGIN, &PromoteCommand::default()).unwrap();
    assert_eq!((status.percent, status.held), (10.0, false));
    let error = fixture.app.promote(PLUGIN, &PromoteCommand::default()).unwrap_err();
    assert!(error.contains("computes 10% of the requests, and is promoted further automatically"), "{error}");
    let mut seen = Vec::new();
    fixture.eventually("the rollout ends", || {
        let rollout = report(&fixture).rollout;
        let percent = rollout.as_ref().map(|rollout| rollout.percent);
        if seen.last() != Some(&percent) {
            seen.push(percent);
        }
        rollout.is_none()
    });
    assert_eq!(seen, [Some(10.0), Some(50.0), Some(100.0), None]);
    assert_eq!(live_version(&fixture), "1.1.0");
}

#[test]
fn candidate_with_another_input_is_compared() {
    let fixture = start("samples_min: 1");
    shadow(&fixture, "inputs");
    ask_good(&fixture, 100);
    until_compared(&fixture, 100);
    let report = comparison(&fixture);
    assert_eq!((report.diff.outputs[0].equal, report.impure), (100, 0));
    // The live version reads fewer inputs than the canary.
    promote(&fixture, 99.0).unwrap();
    ask_good(&fixture, 1_000);
    until_compared(&fixture, 1_100);
    assert_eq!(comparison(&fixture).diff.outputs[0].equal, 1_100);
}

#[test]
fn one_rollout_runs_at_a_time() {
    let fixture = start("samples_min: 1");
    shadow(&fixture, "ulp");
    for error in [
        fixture.app.deploy_shadow(&candidate("nulls"), 1.0, false).unwrap_err(),
        fixture.app.deploy(&candidate("nulls"), false).unwrap_err(),
    ] {
        let expected = "a rollout of plugin 'candidate' is running: version 1.1.0 is in a shadow run. hint: promote it, drop it \
                        with `larder plugin rollback candidate`, or replace it with --force";
        assert_eq!(error, expected);
    }
    let dropped = fixture.app.roll_back(PLUGIN, None).unwrap();
    assert_eq!((&*dropped.version, dropped.dropped.as_deref(), dropped.replaced), ("1.0.0", Some("1.1.0"), None));
    assert_eq!((stage(&fixture), &*live_version(&fixture)), (None, "1.0.0"));
    assert_eq!(report(&fixture).ended.unwrap().why, "`larder plugin rollback` was called");
    shadow(&fixture, "nulls");
    let waiting = report(&fixture).rollout.unwrap().waiting;
    assert!(waiting.is_none_or(|waiting| waiting.contains("0 of 1 rows")));
    fixture.app.deploy_shadow(&candidate("fails"), 1.0, true).unwrap();
    let forced = fixture.app.deploy(&candidate("ulp"), true).unwrap();
    assert_eq!(forced.dropped.as_deref(), Some("1.1.0"));
    assert_eq!((stage(&fixture), &*live_version(&fixture)), (None, "1.1.0"), "--force ends the rollout");
}

/// A live candidate that is good need not wait for the end of the bake.
#[test]
fn promotion_during_bake_ends_rollout() {
    let fixture = start("samples_min: 1, bake: 1h");
    shadow(&fixture, "ulp");
    ask_good(&fixture, 100);
    until_compared(&fixture, 100);
    promote(&fixture, 100.0).unwrap();
    let error = fixture.app.deploy_shadow(&candidate("nulls"), 1.0, false).unwrap_err();
    assert!(
        error.ends_with("hint: keep this version, and end its rollout, with `larder plugin promote candidate`"),
        "{error}"
    );
    // A second promotion to 100% does not end the bake.
    assert!(promote(&fixture, 100.0).unwrap_err().contains("is live already"));
    assert_eq!(stage(&fixture), Some(RolloutStage::Bake));
    fixture.app.promote(PLUGIN, &PromoteCommand::default()).unwrap();
    assert_eq!((stage(&fixture), &*live_version(&fixture)), (None, "1.1.0"));
    let fixture = fixture.restart();
    fixture.until_ready();
    assert_eq!((stage(&fixture), &*live_version(&fixture)), (None, "1.1.0"));
}

#[test]
fn commands_without_candidate_are_rejected() {
    let fixture = start("samples_min: 1");
    let error = promote(&fixture, 10.0).unwrap_err();
    assert_eq!(
        error,
        "plugin 'candidate' has no candidate. hint: deploy one with `larder plugin deploy FILE --shadow`"
    );
    let error = fixture.app.deploy_shadow(&fs::read(guest(PLUGIN)).unwrap(), 1.0, false).unwrap_err();
    assert!(error.starts_with("version 1.0.0 of plugin 'candidate' is live already"), "{error}");
    let singleton = fs::read(guest("feast_odfv/odfv_singleton")).unwrap();
    let error = fixture.app.deploy_shadow(&singleton, 1.0, false).unwrap_err();
    assert!(error.starts_with("plugin 'odfv_singleton' has no live version to compare the candidate with"), "{error}");
    shadow(&fixture, "ulp");
    let command = PromoteCommand { percent: None, accept_diff: vec!["yy".to_owned()] };
    let error = fixture.app.promote(PLUGIN, &command).unwrap_err();
    assert_eq!(error, "plugin 'candidate' has no compared feature 'yy'. hint: did you mean 'y'?");
    for percent in [0.0, -1.0, 100.5, f64::NAN] {
        assert!(promote(&fixture, percent).unwrap_err().contains("must be above 0 and at most 100"), "{percent}");
    }
}
