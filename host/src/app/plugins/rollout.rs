//! Rolls out a new version of a plugin in stages, and rolls it back if it does not meet the gates.
//!
//! * *Shadow*: the candidate computes copies of the inputs of some requests. No request gets its outputs.
//! * *Canary*: the candidate computes a share of the requests, which grows in steps.
//! * *Bake*: the candidate is live. It can still be rolled back automatically.
//!
//! In all stages, rows that one version computed for requests are computed again with the other version
//! ([`Comparison`]). `gates.rs` decides from the counts. [`Plugins::check_rollouts`] runs every second, and
//! [`Plugins::apply`] makes the change that it returns.

mod change;
mod gates;
mod promote;
mod saved;
mod status;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use larder_common::log_interval::LogInterval;
use larder_model::model::Micros;
use larder_plugin_host::{Comparison, ComparisonReport, VitalCounts};
use serde::{Deserialize, Serialize};

pub(super) use self::{
    change::count,
    promote::pending,
    saved::{RolledBack, RolledBackList},
};
use self::{
    gates::{AcceptedDiffs, Breach, Observed, breach_in_service, breaches_in_diff},
    saved::SavedRollout,
};
use super::{DeployError, Version};
use crate::config::RolloutConfig;

/// The rollout of a candidate.
#[derive(Clone, Debug)]
pub(super) struct Rollout {
    pub(super) candidate: Version,
    /// The version that the candidate replaces.
    pub(super) base: Version,
    stage: Stage,
    /// The comparisons of the two versions, by view.
    comparisons: BTreeMap<Arc<str>, Arc<Comparison>>,
    accepted: AcceptedDiffs,
    /// The share of requests that are compared, from 0 to 1.
    ratio: f64,
    started: Micros,
    /// Counts of the results that requests received from the base before the candidate was live, by view. Empty before that.
    baseline: BTreeMap<String, VitalCounts>,
    /// Counts of the results that requests received from the versions at each of the last checks, oldest first.
    checks: VecDeque<Counts>,
    /// Counts of the results that requests received from the versions when the current stage or step began.
    stage_began: Counts,
    /// How long the current stage or step has lasted, without the time in which no server ran.
    lasted: Duration,
    last_check: Option<Instant>,
    /// Set while samples confirm that requests do not meet a gate.
    confirmation: Option<Confirmation>,
    /// Why the rollout does not advance.
    waiting: Option<String>,
    blocked_logged: Arc<LogInterval>,
}

/// The confirmation that a candidate does not meet a gate. In requests, the two versions compute rows of different entities, and
/// after the promotion, at different times. So a difference may have another cause than the candidate. Before a rollback,
/// all requests are therefore sampled for some time, and both versions compute the same rows.
#[derive(Clone, Debug)]
struct Confirmation {
    /// The counts of samples when it began.
    since: Counts,
    /// The number of checks since then.
    checks: usize,
}

/// Counts of the results that requests or samples received from the base and from the candidate, by view.
type Counts = BTreeMap<Arc<str>, (VitalCounts, VitalCounts)>;

/// The stage of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Stage {
    Shadow,
    Canary {
        /// The share of the requests in percent.
        percent: f64,
        /// Whether a user chose the share, so that it does not grow.
        is_held: bool,
        since: Micros,
    },
    Bake {
        since: Micros,
    },
}

/// The minimum number of checks within which samples must confirm a violated gate.
const CONFIRMED_WITHIN: usize = 10;
/// How often rollouts are checked.
pub(in crate::app) const CHECK_EVERY: Duration = Duration::from_secs(1);

// === impl Rollout ===

impl Rollout {
    /// Begins in the shadow stage.
    fn begin(
        candidate: Version,
        base: Version,
        ratio: f64,
        config: &RolloutConfig,
        now: Micros,
    ) -> Result<Self, DeployError> {
        let comparisons = compare(&base, &candidate, ratio, config, BTreeMap::new(), &BTreeMap::new())?;
        Ok(Self {
            candidate,
            base,
            stage: Stage::Shadow,
            comparisons,
            accepted: AcceptedDiffs::new(),
            ratio,
            started: now,
            baseline: BTreeMap::new(),
            checks: VecDeque::new(),
            stage_began: Counts::new(),
            lasted: Duration::ZERO,
            last_check: None,
            confirmation: None,
            waiting: None,
            blocked_logged: Arc::default(),
        })
    }

    /// Continues a rollout after a restart.
    fn resume(
        saved: SavedRollout,
        candidate: Version,
        base: Version,
        config: &RolloutConfig,
    ) -> Result<Self, DeployError> {
        let comparisons = compare(&base, &candidate, saved.ratio, config, saved.reports, &BTreeMap::new())?;
        Ok(Self {
            candidate,
            base,
            stage: saved.stage,
            comparisons,
            accepted: saved.accepted,
            ratio: saved.ratio,
            started: saved.started,
            baseline: saved.baseline,
            checks: VecDeque::new(),
            stage_began: Counts::new(),
            lasted: Duration::from_secs(saved.lasted_seconds),
            last_check: None,
            confirmation: None,
            waiting: None,
            blocked_logged: Arc::default(),
        })
    }

    /// Returns the rollout with bindings to another catalog. Comparisons of views that did not change continue.
    pub(super) fn rebound(
        &self,
        candidate: Version,
        base: Version,
        config: &RolloutConfig,
    ) -> Result<Self, DeployError> {
        let comparisons = compare(&base, &candidate, self.ratio, config, BTreeMap::new(), &self.comparisons)?;
        let (checks, stage_began) = (VecDeque::new(), counts(&comparisons, Comparison::vitals));
        Ok(Self { candidate, base, comparisons, checks, stage_began, ..self.clone() })
    }

    /// Returns the comparison of a view.
    pub(super) fn comparison(&self, view: &str) -> Option<&Arc<Comparison>> {
        self.comparisons.get(view)
    }

    /// Returns the share of requests that the candidate computes as a canary, from 0 to 1, if it is one.
    pub(super) fn canary_share(&self) -> Option<f64> {
        match self.stage {
            Stage::Canary { percent, .. } => Some(percent / 100.0),
            Stage::Shadow | Stage::Bake { .. } => None,
        }
    }

    /// Returns whether the candidate is live.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.stage, Stage::Bake { .. })
    }

    fn reports(&self) -> BTreeMap<String, ComparisonReport> {
        self.comparisons.iter().map(|(view, comparison)| (view.to_string(), comparison.report())).collect()
    }

    /// Enters a stage.
    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.stage_began = counts(&self.comparisons, Comparison::vitals);
        self.checks.clear();
        (self.lasted, self.last_check, self.confirmation) = (Duration::ZERO, None, None);
        self.comparisons.values().for_each(|comparison| comparison.sample(self.ratio, false));
        self.waiting = None;
    }

    /// Returns the gates that the comparisons do not meet.
    fn breaches_in_diff(&self, config: &RolloutConfig, reports: &BTreeMap<String, ComparisonReport>) -> Vec<Breach> {
        breaches_in_diff(config, &self.accepted, reports.iter().map(|(view, report)| (&**view, report)))
    }

    /// Adds the current counts to the checks, and returns the first gate that requests do not meet, in the window or since the
    /// stage began, if samples confirm it.
    fn check_service(&mut self, config: &RolloutConfig) -> Option<Breach> {
        // The clock of the machine may be set, so it does not determine how long a stage lasts.
        let checked = Instant::now();
        self.lasted += self.last_check.map_or(Duration::ZERO, |last| checked.saturating_duration_since(last));
        self.last_check = Some(checked);
        let now = counts(&self.comparisons, Comparison::vitals);
        let window = usize::try_from(config.window.as_secs()).unwrap_or(usize::MAX).max(1);
        let breach = match &mut self.confirmation {
            Some(confirmation) => {
                confirmation.checks += 1;
                let is_over = confirmation.checks > window.max(CONFIRMED_WITHIN);
                let since = confirmation.since.clone();
                let paired = counts(&self.comparisons, Comparison::paired);
                let breach = self.breach_since(&since, &paired, &BTreeMap::new(), config);
                if breach.is_none() && is_over {
                    self.end_confirmation();
                }
                breach
            }
            None => {
                let starts = [self.checks.front(), Some(&self.stage_began)];
                let is_breach = |start: &Counts| self.breach_since(start, &now, &self.baseline, config).is_some();
                if self.stage != Stage::Shadow && starts.into_iter().flatten().any(is_breach) {
                    self.begin_confirmation();
                }
                None
            }
        };
        self.checks.push_back(now);
        while self.checks.len() > window {
            self.checks.pop_front();
        }
        breach
    }

    fn begin_confirmation(&mut self) {
        let since = counts(&self.comparisons, Comparison::paired);
        self.confirmation = Some(Confirmation { since, checks: 0 });
        self.comparisons.values().for_each(|comparison| comparison.sample(1.0, true));
    }

    fn end_confirmation(&mut self) {
        if self.confirmation.take().is_some() {
            self.comparisons.values().for_each(|comparison| comparison.sample(self.ratio, false));
            // The counts that were not confirmed do not count again.
            self.checks.clear();
            self.stage_began = counts(&self.comparisons, Comparison::vitals);
        }
    }

    /// Returns the first gate that is not met between two copies of the counts. `baseline` replaces the counts of the base.
    fn breach_since(
        &self,
        start: &Counts,
        now: &Counts,
        baseline: &BTreeMap<String, VitalCounts>,
        config: &RolloutConfig,
    ) -> Option<Breach> {
        let none = VitalCounts::default();
        now.iter().find_map(|(view, (old, new))| {
            let (old_start, new_start) = start.get(view).map_or((&none, &none), |(old, new)| (old, new));
            // After the promotion, no request uses the base, so its counts from before are used.
            let live = baseline.get(&**view).cloned().unwrap_or_else(|| old.since(old_start));
            let candidate = new.since(new_start);
            breach_in_service(
                config,
                &self.accepted,
                (view, if self.is_live() { "the replaced version" } else { "the live version" }),
                Observed { signature: self.base.component.signature(), counts: &live },
                Observed { signature: self.candidate.component.signature(), counts: &candidate },
            )
        })
    }
}

/// Starts the comparisons of the views of both versions, with the reports with which they continue. Comparisons in `known`
/// are kept if they are of the same bindings.
fn compare(
    base: &Version,
    candidate: &Version,
    ratio: f64,
    config: &RolloutConfig,
    mut reports: BTreeMap<String, ComparisonReport>,
    known: &BTreeMap<Arc<str>, Arc<Comparison>>,
) -> Result<BTreeMap<Arc<str>, Arc<Comparison>>, DeployError> {
    let mut comparisons = BTreeMap::new();
    for (name, new) in &candidate.transforms {
        let (Some(old), Some(view)) = (base.transforms.get(name), candidate.views.get(name)) else { continue };
        let is_same = |comparison: &&Arc<Comparison>| {
            Arc::ptr_eq(comparison.new_version(), new) && Arc::ptr_eq(comparison.old(), old)
        };
        let comparison = match known.get(name).filter(is_same) {
            Some(same) => Arc::clone(same),
            None => Comparison::start((old, new), view, ratio, config.tolerance, reports.remove(&**name))
                .map_err(DeployError::ShadowThread)?,
        };
        comparisons.insert(Arc::clone(name), comparison);
    }
    Ok(comparisons)
}

fn counts(
    comparisons: &BTreeMap<Arc<str>, Arc<Comparison>>,
    of: impl Fn(&Comparison) -> (VitalCounts, VitalCounts),
) -> Counts {
    comparisons.iter().map(|(view, comparison)| (Arc::clone(view), of(comparison))).collect()
}

/// Returns the number of compared rows of all views.
fn compared_rows(reports: &BTreeMap<String, ComparisonReport>) -> u64 {
    reports.values().map(|report| report.diff.rows).sum()
}
