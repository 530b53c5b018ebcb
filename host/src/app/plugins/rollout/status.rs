//! The state of rollouts for the admin API, and on disk.

use std::collections::BTreeMap;

use larder_http::{RolledBackVersion, RolloutReport, RolloutStage, RolloutStatus};
use larder_model::model::Rfc3339;
use larder_plugin_host::ComparisonReport;

use super::{
    RolledBack, Rollout, Stage, compared_rows,
    saved::{FORMAT, SavedRollout},
};
use crate::app::plugins::{DeployError, Plugins};

// === impl Plugins ===

impl Plugins {
    /// Returns the differences between the two versions of a running rollout, or of the last one.
    pub(in crate::app) fn diff(&self, name: &str) -> Result<RolloutReport, DeployError> {
        let state = self.state();
        let entry = state.entries.get(name).ok_or_else(|| DeployError::Unknown(name.to_owned()))?;
        let rolled_back = state.rolled_back.last(name).map(RolledBack::describe);
        let (running, last) = (entry.rollout.clone(), entry.last_report.clone());
        drop(state);
        let report = match running {
            Some(rollout) => {
                let status = rollout.status(name);
                let mut report = rollout.last_report();
                let breaches = rollout.breaches_in_diff(self.rollout_configs.of(name), &report.views);
                report.breaches = breaches.into_iter().map(|breach| breach.why).collect();
                report.rollout = Some(status);
                report
            }
            None => last.unwrap_or_else(|| RolloutReport {
                rollout: None,
                versions: None,
                views: BTreeMap::new(),
                breaches: Vec::new(),
                ended: None,
                rolled_back: None,
            }),
        };
        Ok(RolloutReport { rolled_back, ..report })
    }

    /// Writes the state of a rollout.
    pub(super) fn save(&self, name: &str, rollout: &Rollout) -> Result<(), DeployError> {
        let state = serde_json::to_vec(&rollout.saved())
            .map_err(|error| DeployError::InvalidState { plugin: name.to_owned(), why: error.to_string() })?;
        Ok(self.rollout_dir.write_state(name, &state)?)
    }

    /// Records that a change of a rollout failed, so that it is tried again.
    pub(in crate::app) fn record_blocked(&self, name: &str, error: &DeployError) {
        let mut state = self.state();
        let rollout = state.entries.get_mut(name).and_then(|entry| entry.rollout.as_mut());
        if let Some(rollout) = rollout {
            rollout.record_blocked(name, error);
        }
    }

    /// Writes the results of the comparisons of all rollouts, so that a restart keeps them.
    pub(in crate::app) fn save_rollouts(&self) {
        let rollouts: Vec<(String, Rollout)> = {
            let state = self.state();
            let running = state.entries.iter().filter_map(|(name, entry)| Some((name.clone(), entry.rollout.clone()?)));
            running.collect()
        };
        for (name, rollout) in rollouts {
            if let Err(error) = self.save(&name, &rollout) {
                tracing::warn!(plugin = name, %error, "cannot write the state of a rollout; a restart loses its last results");
            }
        }
    }
}

// === impl Rollout ===

impl Rollout {
    /// Returns the state for the admin API.
    pub(in crate::app::plugins) fn status(&self, name: &str) -> RolloutStatus {
        let (stage, percent, held, since) = match self.stage {
            Stage::Shadow => (RolloutStage::Shadow, 0.0, false, self.started),
            Stage::Canary { percent, is_held, since } => (RolloutStage::Canary, percent, is_held, since),
            Stage::Bake { since } => (RolloutStage::Bake, 100.0, false, since),
        };
        RolloutStatus {
            plugin: name.to_owned(),
            candidate: self.candidate.describe(),
            base: self.base.describe(),
            stage,
            percent,
            held,
            sampled_percent: self.ratio * 100.0,
            started: Rfc3339::of(self.started).as_str().to_owned(),
            since: Rfc3339::of(since).as_str().to_owned(),
            accepted: self.accepted.keys().cloned().collect(),
            compared_rows: compared_rows(&self.reports()),
            waiting: self.waiting.clone(),
        }
    }

    fn record_blocked(&mut self, name: &str, error: &DeployError) {
        if self.blocked_logged.is_due() {
            tracing::error!(plugin = name, %error, "rollout stage change failed; the live version keeps serving");
        }
        self.waiting = Some(error.to_string());
    }

    /// Returns the stage as text for messages.
    pub(super) fn stage_text(&self) -> String {
        match self.stage {
            Stage::Shadow => "in a shadow run".to_owned(),
            Stage::Canary { percent, .. } => format!("a canary with {percent}% of the requests"),
            Stage::Bake { .. } => "live, but can still be rolled back automatically".to_owned(),
        }
    }

    /// Returns the comparisons, without the state of the rollout.
    pub(super) fn last_report(&self) -> RolloutReport {
        let version = |version: &super::Version| version.component.signature().version.clone();
        RolloutReport {
            rollout: None,
            versions: Some((version(&self.base), version(&self.candidate))),
            views: self.reports(),
            breaches: Vec::new(),
            ended: None,
            rolled_back: None,
        }
    }

    fn saved(&self) -> SavedRollout {
        SavedRollout {
            format: FORMAT,
            candidate: *self.candidate.digest(),
            base: *self.base.digest(),
            stage: self.stage,
            ratio: self.ratio,
            accepted: self.accepted.clone(),
            started: self.started,
            lasted_seconds: self.lasted.as_secs(),
            baseline: self.baseline.clone(),
            reports: self.reports().into_iter().collect::<BTreeMap<String, ComparisonReport>>(),
        }
    }
}

// === impl RolledBack ===

impl RolledBack {
    /// Returns the version for the admin API.
    pub(in crate::app::plugins) fn describe(&self) -> RolledBackVersion {
        RolledBackVersion {
            version: self.version.clone(),
            digest: self.digest.to_string(),
            at: Rfc3339::of(self.at).as_str().to_owned(),
            why: self.why.clone(),
        }
    }
}
