//! Reads `plugins: rollout:`, the gates and steps by which a new version of a plugin goes into production.

use std::{collections::BTreeMap, time::Duration};

use larder_model::yaml::Tree;

use super::{
    section::{Section, number},
    units::HOUR,
};

/// The gates and steps of rollouts.
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutConfig {
    /// The number of rows that must be compared before a candidate is promoted.
    pub samples_min: u64,
    /// Numbers are within the tolerance if they differ by at most this much, relative to the larger one or to 1.
    pub tolerance: f64,
    /// `max_changed: ratio`: the maximum share of the values of a feature that differ, from 0 to 1.
    pub changed_ratio_max: f64,
    /// By how much the share of nulls of a feature may increase, from 0 to 1.
    pub null_rate_increase_max: f64,
    /// By how much the share of failed rows may increase, from 0 to 1.
    pub errors_max: f64,
    /// At most 1 % of the candidate's batches may take longer than this many times the 99th percentile of the live version.
    pub p99_ratio_max: f64,
    /// The shares of the requests that a canary computes, in percent, in ascending order.
    pub steps: Vec<f64>,
    /// How long each step lasts.
    pub step_for: Duration,
    /// How long a promoted version can be rolled back automatically.
    pub bake: Duration,
    /// The period for which the candidate and the live version are compared.
    pub window: Duration,
}

/// The gates and steps of the rollouts of all plugins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rollouts {
    /// `plugins: rollout`.
    pub(super) common: RolloutConfig,
    /// `plugins: overrides: NAME: rollout`, by the name of the plugin.
    pub(super) of_plugins: BTreeMap<String, RolloutConfig>,
}

// === impl Rollouts ===

impl Rollouts {
    /// Returns the gates and steps for a plugin.
    #[must_use]
    pub fn of(&self, plugin: &str) -> &RolloutConfig {
        self.of_plugins.get(plugin).unwrap_or(&self.common)
    }
}

// === impl RolloutConfig ===

impl Default for RolloutConfig {
    fn default() -> Self {
        Self {
            samples_min: 10_000,
            tolerance: 0.0,
            changed_ratio_max: 0.001,
            null_rate_increase_max: 0.01,
            errors_max: 0.001,
            p99_ratio_max: 1.5,
            steps: vec![1.0, 10.0, 50.0],
            step_for: Duration::from_mins(10),
            bake: Duration::from_mins(30),
            window: Duration::from_secs(10),
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_hours(24);

/// Reads the section. `default` has the values of absent keys.
pub(super) fn rollout(mut section: Section<'_>, default: &RolloutConfig) -> RolloutConfig {
    let samples_min = usize::try_from(default.samples_min).unwrap_or(usize::MAX);
    let mut changed = section.section("plugins.rollout.max_changed");
    let changed_ratio_max = changed.number("ratio", 0.0..=1.0, default.changed_ratio_max);
    changed.finish();
    let rollout = RolloutConfig {
        samples_min: section.count("samples_min", 1..=1_000_000_000_000, samples_min) as u64,
        tolerance: section.number("tolerance", 0.0..=1.0, default.tolerance),
        changed_ratio_max,
        null_rate_increase_max: section.number("null_rate_increase_max", 0.0..=1.0, default.null_rate_increase_max),
        errors_max: section.number("errors_max", 0.0..=1.0, default.errors_max),
        p99_ratio_max: section.number("p99_ratio_max", 1.0..=1e6, default.p99_ratio_max),
        steps: steps(&mut section).unwrap_or_else(|| default.steps.clone()),
        step_for: section.duration("step_for", SECOND..=30 * DAY, default.step_for),
        bake: section.duration("bake", Duration::ZERO..=30 * DAY, default.bake),
        window: section.duration("window", SECOND..=HOUR, default.window),
    };
    section.finish();
    rollout
}

fn steps(section: &mut Section<'_>) -> Option<Vec<f64>> {
    let node = section.get("steps")?;
    let numbers: Option<Vec<f64>> =
        if let Tree::List(items) = &node.tree { items.iter().map(|item| number(&item.tree)).collect() } else { None };
    let is_valid = |steps: &Vec<f64>| {
        steps.iter().all(|step| *step > 0.0 && *step < 100.0) && steps.is_sorted_by(|one, next| one < next)
    };
    let valid = numbers.filter(is_valid);
    if valid.is_none() {
        let message = "'steps' must be a list of ascending percentages above 0 and below 100";
        section.error(&node.at, message, "for example [1, 10, 50]; the step to 100 is implied".to_owned());
    }
    valid
}
