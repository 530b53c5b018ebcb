//! Candidates with faults: they are rolled back, and requests do not suffer from shadow runs.

use std::fs;

use larder_http::Control;
use serde_json::{Value, json};

use super::{
    AFFECTED, PLUGIN, ask, ask_good, candidate, comparison, live_version, promote, report, shadow, stage, start,
    until_compared, until_rolled_back,
};
use crate::fixture::{Fixture, replace};

/// Starts a canary with this fault, whose shadow run had only rows without the fault.
fn canary(fault: &str, percent: f64, rollout: &str) -> Fixture {
    let fixture = start(&format!("samples_min: 100, {rollout}"));
    shadow(&fixture, fault);
    ask_good(&fixture, 100);
    until_compared(&fixture, 100);
    promote(&fixture, percent).unwrap();
    fixture
}

/// Requests affected rows of many drivers until the candidate is rolled back. Returns the reason.
fn ask_until_rolled_back(fixture: &Fixture) -> String {
    for driver in 0.. {
        ask(fixture, driver % 1_000, AFFECTED + 1..AFFECTED + 3);
        ask(fixture, driver % 1_000, 1..3);
        if driver % 50 == 0 && stage(fixture).is_none() {
            break;
        }
        assert!(driver < 100_000, "the candidate was not rolled back");
    }
    until_rolled_back(fixture)
}

fn assert_live_serves(fixture: &Fixture) {
    assert_eq!(live_version(fixture), "1.0.0");
    for driver in 0..100 {
        assert_eq!(ask(fixture, driver, [AFFECTED + 1].into_iter()), [json!(14_000_002.0)]);
    }
}

#[test]
fn failing_canary_is_rolled_back() {
    let fixture = canary("fails", 20.0, "");
    let why = ask_until_rolled_back(&fixture);
    assert!(why.starts_with("view 'doubled': ") && why.contains("'rollout: errors_max"), "{why}");
    assert_live_serves(&fixture);
    let report = report(&fixture);
    assert_eq!(report.versions, Some(("1.0.0".to_owned(), "1.1.0".to_owned())), "the last comparison is kept");
}

#[test]
fn canary_with_more_nulls_is_rolled_back() {
    let fixture = canary("nulls", 20.0, "max_changed: {ratio: 1}");
    let why = ask_until_rolled_back(&fixture);
    assert!(why.contains("null") && why.contains("null_rate_increase_max"), "{why}");
    assert_live_serves(&fixture);
}

#[test]
fn slow_canary_is_rolled_back() {
    let fixture = canary("slow", 20.0, "p99_ratio_max: 4");
    let why = ask_until_rolled_back(&fixture);
    assert!(why.contains("took longer than") && why.contains("'rollout: p99_ratio_max'"), "{why}");
    assert_live_serves(&fixture);
}

#[test]
fn canary_that_spins_is_rolled_back() {
    let fixture = canary("spins", 20.0, "");
    let why = ask_until_rolled_back(&fixture);
    assert!(why.contains("'rollout: errors_max"), "{why}");
    assert_live_serves(&fixture);
}

#[test]
fn changed_values_of_canary_cause_rollback() {
    let fixture = canary("ulp", 20.0, "");
    for driver in 0..200 {
        ask(&fixture, driver, [AFFECTED].into_iter());
    }
    let why = until_rolled_back(&fixture);
    assert!(why.contains("values of feature 'y' differ") && why.contains("max_changed: ratio: 0.001"), "{why}");
}

/// The gates also apply after the promotion, until the bake ends. Then the replaced version is restored, on disk too.
#[test]
fn live_candidate_is_rolled_back_during_bake() {
    let fixture = canary("fails", 100.0, "bake: 1h");
    assert_eq!(live_version(&fixture), "1.1.0");
    let why = ask_until_rolled_back(&fixture);
    assert!(why.contains("'rollout: errors_max"), "{why}");
    assert!(!why.contains("live version"), "the candidate was the live version: {why}");
    assert_live_serves(&fixture);
    let live = fs::read(super::guest(PLUGIN)).unwrap();
    fixture.eventually("the file is restored", || fs::read(fixture.path("plugins/candidate.wasm")).unwrap() == live);
    let fixture = fixture.restart();
    fixture.until_ready();
    assert_live_serves(&fixture);
    // A user who repeats the rollback after an alert must not get the faulty version again.
    let error = fixture.app.roll_back(PLUGIN, None).unwrap_err();
    assert!(error.starts_with("version 1.1.0 of plugin 'candidate' was rolled back at "), "{error}");
    assert!(error.ends_with("hint: to restore it anyway, run `larder plugin rollback candidate 1.1.0`"), "{error}");
    assert_eq!(live_version(&fixture), "1.0.0");
    assert_eq!(fixture.app.roll_back(PLUGIN, Some("1.1.0")).unwrap().version, "1.1.0");
}

/// A version that was rolled back is not taken from the directory again, but a command may deploy it.
#[test]
fn rolled_back_version_is_not_taken_from_directory() {
    let fixture = canary("fails", 20.0, "");
    ask_until_rolled_back(&fixture);
    replace(fixture.path("plugins/candidate.wasm"), candidate("fails"));
    let rejected = |fixture: &Fixture| {
        let plugins = fixture.app.plugins();
        plugins.into_iter().find(|plugin| plugin.plugin == PLUGIN).unwrap().rejected
    };
    fixture.eventually("the file is rejected", || rejected(&fixture).is_some());
    let why = rejected(&fixture).unwrap();
    assert!(why.starts_with("version 1.1.0 of plugin 'candidate' is not deployed from the plugin directory"), "{why}");
    let fixture = fixture.restart();
    fixture.until_ready();
    assert_live_serves(&fixture);
    fixture.app.deploy(&candidate("fails"), false).unwrap();
    let fixture = fixture.restart();
    fixture.until_ready();
    assert_eq!(live_version(&fixture), "1.1.0");
}

/// A file in the directory waits until the rollout has ended.
#[test]
fn file_in_directory_waits_for_end_of_rollout() {
    let fixture = start("samples_min: 1");
    shadow(&fixture, "nulls");
    replace(fixture.path("plugins/candidate.wasm"), candidate("ulp"));
    let rejected = || {
        let plugins = fixture.app.plugins();
        plugins.into_iter().find(|plugin| plugin.plugin == PLUGIN).unwrap().rejected
    };
    fixture.eventually("the file waits", || {
        rejected().is_some_and(|why| why.contains("a rollout of plugin 'candidate' is running"))
    });
    fixture.app.roll_back(PLUGIN, None).unwrap();
    // The candidate was never live, so the directory still has the other file.
    fixture.eventually("the file is deployed", || live_version(&fixture) == "1.1.0" && rejected().is_none());
}

fn affected_shadow(fault: &str) -> Fixture {
    let fixture = start("samples_min: 10");
    shadow(&fixture, fault);
    for driver in 0..20 {
        assert_eq!(ask(&fixture, driver, [AFFECTED + 1, 1].into_iter()), [json!(14_000_002.0), json!(2.0)]);
    }
    fixture
}

/// Requests get the live values although the candidate spins or leaks, and the failures are in the comparison.
#[test]
fn failures_of_shadow_run_do_not_affect_requests() {
    for (fault, message) in [("spins", "CPU time"), ("leaks", "memory"), ("fails", "an affected row")] {
        let fixture = affected_shadow(fault);
        until_compared(&fixture, 40);
        let diff = comparison(&fixture).diff;
        assert_eq!((diff.failed_new, diff.failed_old, diff.outputs[0].equal), (20, 0, 20), "{fault}");
        assert!(diff.failures[0].error.contains(message), "{fault}: {}", diff.failures[0].error);
        let error = promote(&fixture, 10.0).unwrap_err();
        assert!(error.contains("20 of 40 rows fail only in the candidate"), "{error}");
        let values: Vec<Value> = ask(&fixture, 1, [AFFECTED + 1].into_iter());
        assert_eq!(values, [json!(14_000_002.0)]);
    }
}

#[test]
fn impure_candidate_is_reported() {
    let fixture = start("samples_min: 1, max_changed: {ratio: 1}");
    shadow(&fixture, "impure");
    ask_good(&fixture, 100);
    until_compared(&fixture, 100);
    // The candidate is computed again only where it computed the requests.
    promote(&fixture, 100.0).unwrap();
    for driver in 0..300 {
        ask(&fixture, driver, [AFFECTED + 1].into_iter());
    }
    fixture.eventually("the impure version is found", || comparison(&fixture).impure > 0);
    let first = comparison(&fixture).first_impure.unwrap();
    assert!(first.starts_with("output 'y' of version 1.1.0 was 14000"), "{first}");
}

#[test]
fn full_queue_drops_samples() {
    // The candidate takes 10 ms for each row, so the queue fills up.
    let fixture = start("samples_min: 1");
    shadow(&fixture, "spins");
    // A row of the candidate takes its limit on CPU time, and a sample has about 5 KiB.
    let batches = 3_000_u64;
    for driver in 0..u32::try_from(batches).unwrap() {
        ask(&fixture, driver, (0..200).map(|_| AFFECTED + 1));
    }
    let report = comparison(&fixture);
    assert!(report.samples < batches / 10 && report.dropped > 0, "{} {}", report.samples, report.dropped);
    assert!(report.dropped < batches, "the queue is used");
    assert_eq!(live_version(&fixture), "1.0.0");
}

/// Only a part of a large batch is compared.
#[test]
fn sample_has_limited_rows() {
    let fixture = start("samples_min: 1");
    shadow(&fixture, "ulp");
    ask(&fixture, 1, 0..256);
    until_compared(&fixture, 256);
    ask(&fixture, 1, 0..4_000);
    until_compared(&fixture, 512);
    assert_eq!(comparison(&fixture).samples, 2);
}
