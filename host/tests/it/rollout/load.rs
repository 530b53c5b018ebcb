//! Rollouts under load: no request fails.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
};

use larder_http::{Control, PromoteCommand};
use serde_json::json;

use super::{AFFECTED, PLUGIN, ask, live_version, promote, shadow, start};

/// Candidates are compared, promoted, and rolled back from each stage, while requests for all versions are sent.
#[test]
fn rollouts_under_load_fail_no_request() {
    // Set `LARDER_ROLLOUTS=1000` for a long run.
    let cycles: u32 = std::env::var("LARDER_ROLLOUTS").map_or(12, |cycles| cycles.parse().unwrap());
    let fixture = start("samples_min: 1, max_changed: {ratio: 1}, bake: 1h");
    let (over, requests) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        for first in 0..2 {
            let (fixture, over, requests) = (&fixture, &over, &requests);
            scope.spawn(move || {
                for driver in (first..).step_by(2).take_while(|_| !over.load(Ordering::Relaxed)) {
                    let values = ask(fixture, driver % 1_000, [AFFECTED, 1].into_iter());
                    let is_known = values[0] == json!(14_000_000.0) || values[0] == json!(14_000_000.000_000_002);
                    assert!(is_known && values[1] == json!(2.0), "{values:?}");
                    requests.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for cycle in 0..cycles {
            shadow(&fixture, "ulp");
            fixture.eventually("a row is compared", || super::comparison(&fixture).diff.rows > 0);
            if cycle % 3 > 0 {
                promote(&fixture, 50.0).unwrap();
            }
            if cycle % 3 > 1 {
                promote(&fixture, 100.0).unwrap();
                assert_eq!(live_version(&fixture), "1.1.0");
            }
            assert_eq!(fixture.app.roll_back(PLUGIN, None).unwrap().version, "1.0.0");
            assert_eq!(live_version(&fixture), "1.0.0");
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(requests.into_inner() > cycles);
}

/// Of two promotions at a time, one takes effect, and the other one reports the state.
#[test]
fn two_promotions_do_not_skip_step() {
    let fixture = start("samples_min: 1, steps: [10, 50], step_for: 1h");
    shadow(&fixture, "ulp");
    ask(&fixture, 1, 1..2);
    fixture.eventually("a row is compared", || super::comparison(&fixture).diff.rows > 0);
    let promoted: Vec<Result<f64, String>> = thread::scope(|scope| {
        let promote = || fixture.app.promote(PLUGIN, &PromoteCommand::default()).map(|status| status.percent);
        let (one, other) = (scope.spawn(promote), scope.spawn(promote));
        vec![one.join().unwrap(), other.join().unwrap()]
    });
    assert_eq!(promoted.iter().filter(|promoted| **promoted == Ok(10.0)).count(), 1, "{promoted:?}");
    let error = promoted.iter().find_map(|promoted| promoted.as_ref().err()).unwrap();
    assert!(error.contains("is promoted further automatically"), "{error}");
}
