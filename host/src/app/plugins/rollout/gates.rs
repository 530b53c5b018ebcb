//! The gates of a rollout: decides from counts whether to continue a rollout or to roll it back.
//!
//! There are two sources of counts:
//!
//! * Comparisons, in which both versions computed the same rows. Their counts have no sampling error between the versions.
//! * The results that requests received from each version. The versions computed different rows, so a difference counts only
//!   if it is larger than chance explains: [`STANDARD_ERRORS`] standard errors. The rows of a batch are often similar, so the
//!   number of batches determines the standard error, and not the number of rows.

use std::{collections::BTreeMap, time::Duration};

use larder_plugin_host::{ComparisonReport, Signature, VitalCounts};
use serde::{Deserialize, Serialize};

use crate::config::RolloutConfig;

/// A gate that a candidate does not meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Breach {
    /// The violated gate and its setting, with the counts.
    pub(super) why: String,
    /// The feature whose difference can be accepted with `--accept-diff`.
    pub(super) feature: Option<String>,
}

/// The differences of a feature that a user accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Accepted {
    /// The increase of the share of nulls when the difference was accepted.
    pub(super) null_increase: f64,
}

/// The accepted differences by feature.
pub(super) type AcceptedDiffs = BTreeMap<String, Accepted>;

/// What requests to one derived view got from a version.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observed<'v> {
    pub(super) signature: &'v Signature,
    pub(super) counts: &'v VitalCounts,
}

/// A share: `part` of `all`, of which `units` are independent.
#[derive(Clone, Copy, Debug)]
struct Share {
    part: u64,
    all: u64,
    units: u64,
}

/// By how many standard errors a difference must exceed its limit. Windows are evaluated every second, so the probability
/// of an error must be small: it is 0.003 %.
const STANDARD_ERRORS: f64 = 4.0;
/// The minimum number of batches of the candidate, and of its rows that count. With fewer, the standard error is not
/// reliable.
const OBSERVATIONS_MIN: u64 = 3;
/// The minimum number of batches of the live version for a comparison of durations.
const CALLS_MIN: u64 = 200;
/// The minimum number of slow batches of the candidate.
const SLOW_CALLS_MIN: u64 = 5;

/// Returns the gates that the comparisons of a plugin's views do not meet. The number of samples is not one of them.
pub(super) fn breaches_in_diff<'r>(
    config: &RolloutConfig,
    accepted: &AcceptedDiffs,
    reports: impl IntoIterator<Item = (&'r str, &'r ComparisonReport)>,
) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (view, report) in reports {
        let diff = &report.diff;
        let increase = ratio(diff.failed_new, diff.rows) - ratio(diff.failed_old, diff.rows);
        if increase > config.errors_max {
            let (failed, rows) = (diff.failed_new, diff.rows);
            let first = diff.failures.iter().map(|failure| format!("; the first error is: {}", failure.error)).next();
            let why = format!(
                "view '{view}': {failed} of {rows} rows fail only in the candidate, more than 'rollout: errors_max: {}' \
                 allows{}",
                config.errors_max,
                first.unwrap_or_default()
            );
            breaches.push(Breach { why, feature: None });
        }
        for output in &diff.outputs {
            let (name, compared) = (&output.name, output.compared());
            let accepted = accepted.get(name);
            if accepted.is_none() && ratio(output.changed(), compared) > config.changed_ratio_max {
                let (changed, max) = (output.changed(), config.changed_ratio_max);
                let why = format!(
                    "view '{view}': {changed} of {compared} values of feature '{name}' differ, more than 'rollout: \
                     max_changed: ratio: {max}' allows"
                );
                breaches.push(Breach { why, feature: Some(name.clone()) });
            }
            let accepted = accepted.map_or(0.0, |accepted| accepted.null_increase);
            if null_increase(output) > config.null_rate_increase_max + accepted {
                let why = format!(
                    "view '{view}': {} of {compared} values of feature '{name}' are null only in the candidate; {}",
                    output.value_to_null,
                    null_limit(config, accepted)
                );
                breaches.push(Breach { why, feature: Some(name.clone()) });
            }
        }
    }
    breaches
}

/// Returns the limit on the increase of the share of nulls as text.
fn null_limit(config: &RolloutConfig, accepted: f64) -> String {
    let max = config.null_rate_increase_max;
    if accepted > 0.0 {
        format!("'rollout: null_rate_increase_max' is {max}, and an increase by {accepted:.4} was accepted")
    } else {
        format!("'rollout: null_rate_increase_max' is {max}")
    }
}

/// Returns the increase of the share of nulls of an output.
pub(super) fn null_increase(output: &larder_plugin_host::OutputDiff) -> f64 {
    let compared = output.compared();
    ratio(output.value_to_null, compared) - ratio(output.null_to_value, compared)
}

/// Returns the first gate that requests to a view do not meet. `compared_with` is how messages name the other version.
pub(super) fn breach_in_service(
    config: &RolloutConfig,
    accepted: &AcceptedDiffs,
    (view, compared_with): (&str, &str),
    live: Observed<'_>,
    candidate: Observed<'_>,
) -> Option<Breach> {
    let breach = |why: String| Some(Breach { why: format!("view '{view}': {why}"), feature: None });
    let failed = |counts: &VitalCounts| Share { part: counts.failed, all: counts.rows, units: counts.calls };
    let (new, old) = (failed(candidate.counts), failed(live.counts));
    if exceeds(new, old, config.errors_max) {
        return breach(format!(
            "{} of {} rows failed in the candidate, and {} of {} in {compared_with}; 'rollout: errors_max' is {}",
            new.part, new.all, old.part, old.all, config.errors_max
        ));
    }
    // A call that exceeds a limit costs far more than its rows, so the share of the batches counts.
    let interrupted = |counts: &VitalCounts| Share { part: counts.interrupted, all: counts.calls, units: counts.calls };
    let (new, old) = (interrupted(candidate.counts), interrupted(live.counts));
    if exceeds(new, old, config.errors_max) {
        return breach(format!(
            "calls of {} of {} batches trapped or exceeded a limit in the candidate, and of {} of {} in {compared_with}; \
             'rollout: errors_max' is {}",
            new.part, new.all, old.part, old.all, config.errors_max
        ));
    }
    for (index, field) in candidate.signature.outputs.iter().enumerate() {
        let Some(live_index) = live.signature.outputs.iter().position(|output| output.name == field.name) else {
            continue;
        };
        let nulls = |observed: Observed<'_>, index: usize| Share {
            part: observed.counts.nulls.get(index).copied().unwrap_or_default(),
            all: observed.counts.rows.saturating_sub(observed.counts.failed),
            units: observed.counts.calls,
        };
        let (new, old) = (nulls(candidate, index), nulls(live, live_index));
        let accepted = accepted.get(&field.name).map_or(0.0, |accepted| accepted.null_increase);
        if old.units > 0 && exceeds(new, old, config.null_rate_increase_max + accepted) {
            return breach(format!(
                "{} of {} values of feature '{}' are null in the candidate, and {} of {} in {compared_with}; {}",
                new.part,
                new.all,
                field.name,
                old.part,
                old.all,
                null_limit(config, accepted)
            ));
        }
    }
    if let Some((slow, calls, limit)) = slow_calls(live.counts, candidate.counts, config.p99_ratio_max) {
        return breach(format!(
            "{slow} of {calls} batches of the candidate took longer than {} us, which is {} times the 99th percentile of \
             {compared_with} ('rollout: p99_ratio_max')",
            limit.as_micros(),
            config.p99_ratio_max
        ));
    }
    None
}

/// Returns the number of slow batches of the candidate, its number of batches and the limit on the duration, if more than 1 %
/// are slower than this limit.
fn slow_calls(live: &VitalCounts, candidate: &VitalCounts, ratio_max: f64) -> Option<(u64, u64, Duration)> {
    if live.calls < CALLS_MIN {
        return None;
    }
    let limit = live.quantile(0.99)?.mul_f64(ratio_max);
    let (slow, calls) = candidate.slower_than(limit);
    let expected = number(calls) * 0.01;
    let is_more = number(slow) > expected + STANDARD_ERRORS * (expected * 0.99).sqrt();
    (slow >= SLOW_CALLS_MIN && is_more).then_some((slow, calls, limit))
}

/// Returns whether a share exceeds another one by more than `allowed` and by more than chance explains. Without any rows of
/// the other one, it is taken as 0.
fn exceeds(new: Share, old: Share, allowed: f64) -> bool {
    if new.units < OBSERVATIONS_MIN || new.part < OBSERVATIONS_MIN {
        return false;
    }
    let (of_new, of_old) = (ratio(new.part, new.all), ratio(old.part, old.all));
    // The additional row and the additional success keep the error above 0 if all rows or no rows fail.
    let pooled = (number(new.part + old.part) + 1.0) / (number(new.all + old.all) + 2.0);
    let per_unit = 1.0 / number(new.units) + if old.units == 0 { 0.0 } else { 1.0 / number(old.units) };
    of_new - of_old > allowed + STANDARD_ERRORS * (pooled * (1.0 - pooled) * per_unit).sqrt()
}

fn ratio(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { number(part) / number(all) }
}

#[expect(clippy::cast_precision_loss, reason = "counts, for which an approximation is enough")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use larder_plugin_host::{Diff, Field, OutputDiff, RunCost};

    use super::*;

    fn share(part: u64, all: u64, units: u64) -> Share {
        Share { part, all, units }
    }

    #[test]
    fn difference_within_chance_is_allowed() {
        // A third of 100 rows are null in both versions. A deviation of less than four standard errors is chance.
        assert!(!exceeds(share(50, 100, 100), share(33, 100, 100), 0.0));
        assert!(exceeds(share(95, 100, 100), share(33, 100, 100), 0.0));
        assert!(exceeds(share(3_700, 10_000, 10_000), share(3_300, 10_000, 10_000), 0.0));
        assert!(!exceeds(share(3_700, 10_000, 10_000), share(3_300, 10_000, 10_000), 0.05), "the increase is allowed");
    }

    #[test]
    fn few_failures_are_enough_without_others() {
        assert!(!exceeds(share(2, 2, 2), share(0, 1_000, 1_000), 0.001));
        assert!(!exceeds(share(3, 3, 2), share(0, 1_000, 1_000), 0.001), "of two batches");
        assert!(exceeds(share(3, 3, 3), share(0, 1_000, 1_000), 0.001));
        assert!(exceeds(share(5, 5, 5), share(0, 0, 0), 0.001), "without a live version");
        assert!(!exceeds(share(0, 0, 0), share(0, 1_000, 1_000), 0.0));
        assert!(!exceeds(share(1_000, 1_000, 1_000), share(1_000, 1_000, 1_000), 0.0), "the live version fails, too");
    }

    /// All rows of one bad request fail, but they are not independent.
    #[test]
    fn one_batch_is_one_observation() {
        assert!(!exceeds(share(1_000, 2_000, 2), share(0, 10_000, 10), 0.001));
        assert!(exceeds(share(1_000, 2_000, 2_000), share(0, 10_000, 10_000), 0.001));
    }

    fn report(changed: u64, to_null: u64, failed_new: u64) -> ComparisonReport {
        let output = OutputDiff {
            name: "y".to_owned(),
            equal: 10_000 - changed - to_null,
            different: changed,
            value_to_null: to_null,
            ..OutputDiff::default()
        };
        let signature = signature();
        let diff = Diff {
            rows: 10_000 + failed_new,
            failed_new,
            outputs: vec![output],
            ..Diff::new(&signature, &signature, 0.0)
        };
        ComparisonReport {
            diff,
            old_cost: RunCost::default(),
            new_cost: RunCost::default(),
            samples: 1,
            dropped: 0,
            repeated: 0,
            impure: 0,
            first_impure: None,
        }
    }

    fn signature() -> Signature {
        let y = Field {
            name: "y".to_owned(),
            column_type: larder_plugin_host::ColumnType::single(larder_plugin_host::ColumnScalar::Float64),
            nullable: true,
            doc: String::new(),
        };
        Signature {
            name: "p".to_owned(),
            version: "1.0.0".to_owned(),
            doc: String::new(),
            reads_time: false,
            inputs: Vec::new(),
            outputs: vec![y],
        }
    }

    fn breaches(accepted: &AcceptedDiffs, report: &ComparisonReport) -> Vec<Option<String>> {
        let config = RolloutConfig::default();
        breaches_in_diff(&config, accepted, [("v", report)]).into_iter().map(|breach| breach.feature).collect()
    }

    #[test]
    fn each_limit_of_comparison_is_a_gate() {
        let (none, y) = (AcceptedDiffs::new(), || Some("y".to_owned()));
        assert_eq!(breaches(&none, &report(10, 0, 0)), [None::<String>; 0]);
        assert_eq!(breaches(&none, &report(11, 0, 0)), [y()]);
        assert_eq!(breaches(&none, &report(0, 10, 0)), [None::<String>; 0], "nulls are changed values, too");
        assert_eq!(breaches(&none, &report(0, 101, 0)), [y(), y()]);
        assert_eq!(breaches(&none, &report(0, 0, 10)), [None::<String>; 0]);
        assert_eq!(breaches(&none, &report(0, 0, 12)), [None]);
    }

    #[test]
    fn accepted_nulls_may_not_increase_further() {
        let accepted = AcceptedDiffs::from([("y".to_owned(), Accepted { null_increase: 0.1 })]);
        assert_eq!(breaches(&accepted, &report(5_000, 1_100, 0)), [None::<String>; 0]);
        assert_eq!(breaches(&accepted, &report(0, 1_101, 0)), [Some("y".to_owned())]);
    }
}
