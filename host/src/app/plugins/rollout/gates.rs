//! The gates of a rollout: decides from counts whether a candidate may go on, or has to be rolled back.
//!
//! There are two sources of counts:
//!
//! * Comparisons, in which both versions computed the same rows. Their counts have no sampling error between the versions.
//! * What requests got from each version. The versions computed different rows, so a difference counts only if it is
//!   larger than chance explains: [`STANDARD_ERRORS`] standard errors. The rows of a batch are often similar, so the number
//!   of batches determines the standard error, and not the number of rows.

use std::{collections::BTreeMap, time::Duration};

use larder_plugin_host::{ComparisonReport, Signature, VitalCounts};
use serde::{Deserialize, Serialize};

use crate::config::RolloutConfig;

/// A gate that a candidate does not meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Breach {
    /// What is wrong, with the setting of the gate.
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
            let allowed = config.null_rate_increase_max + accepted.map_or(0.0, |accepted| accepted.null_increase);
            if null_increase(output) > allowed {
                let why = format!(
                    "view '{view}': {} of {compared} values of feature '{name}' are null only in the candidate, more than \
                     'rollout: null_rate_increase_max: {}' allows",
                    output.value_to_null, config.null_rate_increase_max
                );
                breaches.push(Breach { why, feature: Some(name.clone()) });
            }
        }
    }
    breaches
}

/// Returns the increase of the share of nulls of an output.
pub(super) fn null_increase(output: &larder_plugin_host::OutputDiff) -> f64 {
    let compared = output.compared();
    ratio(output.value_to_null, compared) - ratio(output.null_to_value, compared)
}

/// Returns the first gate that requests to a view do not meet.
pub(super) fn breach_in_service(
    config: &RolloutConfig,
    accepted: &AcceptedDiffs,
    view: &str,
    live: Observed<'_>,
    candidate: Observed<'_>,
) -> Option<Breach> {
    let breach = |why: String| Some(Breach { why: format!("view '{view}': {why}"), feature: None });
    let failed = |counts: &VitalCounts| Share { part: counts.failed, all: counts.rows, units: counts.calls };
    let (new, old) = (failed(candidate.counts), failed(live.counts));
    if exceeds(new, old, config.errors_max) {
        return breach(format!(
            "{} of {} rows failed in the candidate, and {} of {} in the live version; 'rollout: errors_max' is {}",
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
                "{} of {} values of feature '{}' are null in the candidate, and {} of {} in the live version; 'rollout: \
                 null_rate_increase_max' is {}",
                new.part, new.all, field.name, old.part, old.all, config.null_rate_increase_max
            ));
        }
    }
    if let Some((slow, calls, limit)) = slow_calls(live.counts, candidate.counts, config.p99_ratio_max) {
        return breach(format!(
            "{slow} of {calls} calls of the candidate took longer than {} us, which is {} times the 99th percentile of the \
             live version ('rollout: p99_ratio_max')",
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
    if new.units == 0 {
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
