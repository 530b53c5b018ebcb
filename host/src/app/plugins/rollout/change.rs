//! Checks running rollouts, and applies the changes that the gates require.

use larder_http::{RolloutEnd, RolloutReport};
use larder_model::{
    model::{Micros, Rfc3339},
    registry::Catalog,
};
use larder_plugin_host::Digest;
use metrics::{counter, describe_counter};

use super::{RolledBack, Rollout, Stage, compared_rows};
use crate::{
    app::plugins::{DeployError, Entry, Plugins, State, version::ChosenVersion},
    config::RolloutConfig,
};

/// A change of a rollout.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::app) struct Change {
    pub(in crate::app) plugin: String,
    /// The candidate for which the change was decided. If another one is rolled out meanwhile, the change has no effect.
    candidate: Digest,
    /// The stage for which it was decided.
    stage: Stage,
    kind: ChangeKind,
}

#[derive(Clone, Debug, PartialEq)]
enum ChangeKind {
    /// The canary computes a larger share of the requests.
    Step { percent: f64 },
    /// The candidate becomes the live version.
    GoLive,
    /// The candidate is dropped, or the base becomes the live version again.
    RollBack { why: String },
    /// The rollout has ended, and the candidate stays live.
    Finish,
}

// === impl Plugins ===

impl Plugins {
    /// Returns whether a rollout is running.
    pub(in crate::app) fn has_rollouts(&self) -> bool {
        self.state().entries.values().any(|entry| entry.rollout.is_some())
    }

    /// Checks the gates of all rollouts. Returns the changes that have to be applied.
    pub(in crate::app) fn check_rollouts(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (name, entry) in &mut self.state().entries {
            let Some(rollout) = &mut entry.rollout else { continue };
            let config = self.rollout_configs.of(name);
            let breach = rollout.check_service(config);
            let (kind, waiting) = match breach {
                Some(breach) => (Some(ChangeKind::RollBack { why: breach.why }), None),
                None => decide(rollout, config),
            };
            rollout.waiting = waiting;
            let (candidate, stage) = (*rollout.candidate.digest(), rollout.stage);
            changes.extend(kind.map(|kind| Change { plugin: name.clone(), candidate, stage, kind }));
        }
        changes
    }

    /// Applies a change that [`Plugins::check_rollouts`] returned. Returns the version whose files have to be written with
    /// [`Plugins::write_restored`], if a live version was rolled back. The caller holds the lock for changes, makes the
    /// plugins visible to requests afterwards, and then calls [`Plugins::write_ended`].
    pub(in crate::app) fn apply(
        &self,
        change: &Change,
        catalog: &Catalog,
    ) -> Result<Option<ChosenVersion>, DeployError> {
        let name = &change.plugin;
        let is_current = |entry: &Entry| {
            let rollout = entry.rollout.as_ref();
            rollout
                .is_some_and(|rollout| *rollout.candidate.digest() == change.candidate && rollout.stage == change.stage)
        };
        if !self.state().entries.get(name).is_some_and(is_current) {
            return Ok(None);
        }
        match &change.kind {
            ChangeKind::Step { percent } => self.step(name, *percent, false)?,
            ChangeKind::GoLive => self.go_live(name, catalog)?,
            ChangeKind::RollBack { why } => return self.roll_back_candidate(name, why, true),
            ChangeKind::Finish => self.finish_rollout(name),
        }
        Ok(None)
    }

    /// Enters the canary stage, or changes the share of a canary.
    pub(super) fn step(&self, name: &str, percent: f64, is_held: bool) -> Result<(), DeployError> {
        let stage = Stage::Canary { percent, is_held, since: self.clock.now() };
        let mut rollout = self.rollout(name)?;
        rollout.enter(stage);
        self.save(name, &rollout)?;
        let version = rollout.candidate.component.signature().version.clone();
        self.set_rollout(name, rollout);
        tracing::info!(plugin = name, version, percent, "canary share changed");
        Ok(())
    }

    /// Makes the candidate the live version.
    pub(super) fn go_live(&self, name: &str, catalog: &Catalog) -> Result<(), DeployError> {
        let mut rollout = self.rollout(name)?;
        let bytes = self.rollout_dir.read_candidate(name, self.file_bytes_max)?;
        let candidate = self.bind(name, &rollout.candidate.component, catalog, Some(&rollout.candidate));
        let candidate = candidate.map_err(DeployError::Bind)?;
        let counts = rollout.comparisons.iter().map(|(view, comparison)| (view.to_string(), comparison.vitals().0));
        rollout.baseline = counts.collect();
        rollout.enter(Stage::Bake { since: self.clock.now() });
        // The files are written first, so that nothing can fail afterwards. If the process is killed after the state was
        // written, the next start finds another live version than the state has, and ends the rollout.
        let is_directory_written = !self.has_waiting_file(name);
        self.write_files(&rollout.candidate.component, &bytes, is_directory_written)?;
        self.save(name, &rollout)?;
        let version = rollout.candidate.component.signature().version.clone();
        let mut state = self.state();
        let entry = state.entries.entry(name.to_owned()).or_default();
        entry.previous = entry.set_live(candidate);
        entry.rejected = None;
        entry.rollout = Some(rollout);
        drop(state);
        count(name, "promoted");
        tracing::info!(plugin = name, version, "candidate promoted; it is live");
        Ok(())
    }

    /// Drops the candidate. If it is live, the base becomes live again, and is returned. A candidate that computed requests
    /// is not taken from the plugin directory again, unless a command dropped it before it was live.
    pub(in crate::app::plugins) fn roll_back_candidate(
        &self,
        name: &str,
        why: &str,
        is_automatic: bool,
    ) -> Result<Option<ChosenVersion>, DeployError> {
        let rollout = self.rollout(name)?;
        let candidate = &rollout.candidate.component;
        let (digest, version) = (*candidate.digest(), candidate.signature().version.clone());
        let entry = RolledBack {
            plugin: name.to_owned(),
            version: version.clone(),
            digest,
            at: self.clock.now(),
            why: why.to_owned(),
            is_automatic,
        };
        let restored = rollout
            .is_live()
            .then(|| ChosenVersion { keeps_waiting_file: true, ..ChosenVersion::in_memory(&rollout.base.component) });
        let mut state = self.state();
        if is_automatic || restored.is_some() {
            state.rolled_back.add(entry);
        }
        if restored.is_some() {
            let entry = state.entries.entry(name.to_owned()).or_default();
            entry.previous = entry.set_live(rollout.base.clone());
        }
        state.end_rollout(name, self.clock.now(), why);
        drop(state);
        if is_automatic {
            count(name, "rolled_back");
            tracing::error!(plugin = name, version, why, "candidate rolled back");
        } else {
            count(name, "dropped");
            tracing::warn!(plugin = name, version, why, "candidate dropped");
        }
        Ok(restored)
    }

    pub(super) fn finish_rollout(&self, name: &str) {
        self.state().end_rollout(name, self.clock.now(), "it finished, and the candidate stays live");
        count(name, "finished");
        tracing::info!(plugin = name, "rollout finished; the candidate stays live");
    }

    /// Removes the files of a rollout if it has ended, and writes the list of versions that were rolled back. Called after
    /// the change took effect, so that a rollback takes effect even if the disk is full or slow.
    ///
    /// # Errors
    /// If the list cannot be written.
    pub(in crate::app) fn write_ended(&self, name: &str) -> Result<(), DeployError> {
        let (is_running, list) = {
            let state = self.state();
            let is_running = state.entries.get(name).is_some_and(|entry| entry.rollout.is_some());
            (is_running, serde_json::to_vec(&state.rolled_back).unwrap_or_default())
        };
        if !is_running {
            self.remove_state(name);
        }
        self.rollout_dir
            .write_rolled_back(&list)
            .map_err(|source| DeployError::ListNotWritten { plugin: name.to_owned(), source })
    }

    /// Returns whether the plugin directory has a file that waits for the end of a rollout: a version that the server neither
    /// accepted nor rolled back.
    pub(in crate::app::plugins) fn has_waiting_file(&self, name: &str) -> bool {
        let Ok(bytes) = self.plugin_dir.read(name, self.file_bytes_max) else { return false };
        let digest = Digest::of(&bytes);
        let is_candidate = self.rollout(name).is_ok_and(|rollout| *rollout.candidate.digest() == digest);
        let is_accepted = self.plugin_dir.history(name).is_ok_and(|all| all.iter().any(|one| one.digest == digest));
        !is_candidate && !is_accepted && self.find_rolled_back(name, &digest).is_none()
    }

    /// Removes the files of a rollout that has ended.
    pub(in crate::app::plugins) fn remove_state(&self, name: &str) {
        if let Err(error) = self.rollout_dir.remove(name) {
            tracing::error!(plugin = name, %error, "cannot remove the state of a rollout that has ended");
        }
    }

    /// Returns a copy of the rollout of a plugin.
    pub(in crate::app::plugins) fn rollout(&self, name: &str) -> Result<Rollout, DeployError> {
        let state = self.state();
        let entry = state.entries.get(name).ok_or_else(|| DeployError::Unknown(name.to_owned()))?;
        entry.rollout.clone().ok_or_else(|| DeployError::NoCandidate(name.to_owned()))
    }

    pub(super) fn set_rollout(&self, name: &str, rollout: Rollout) {
        self.state().entries.entry(name.to_owned()).or_default().rollout = Some(rollout);
    }
}

// === impl State ===

impl State {
    /// Ends a rollout, and keeps its last report. The file in the plugin directory is checked again.
    /// Returns the version of the candidate, if a rollout was running.
    pub(in crate::app::plugins) fn end_rollout(&mut self, name: &str, now: Micros, why: &str) -> Option<String> {
        let entry = self.entries.get_mut(name)?;
        let rollout = entry.rollout.take()?;
        let ended = RolloutEnd { at: Rfc3339::of(now).as_str().to_owned(), why: why.to_owned() };
        entry.last_report = Some(RolloutReport { ended: Some(ended), ..rollout.last_report() });
        self.seen.remove(name);
        Some(rollout.candidate.component.signature().version.clone())
    }
}

/// Decides about a rollout whose requests meet the gates. Returns the change, and what the rollout waits for.
fn decide(rollout: &Rollout, config: &RolloutConfig) -> (Option<ChangeKind>, Option<String>) {
    let reports = rollout.reports();
    let rows = compared_rows(&reports);
    let has_samples = rows >= config.samples_min;
    let breaches = if has_samples { rollout.breaches_in_diff(config, &reports) } else { Vec::new() };
    let breach = breaches.into_iter().next().filter(|_| rollout.stage != Stage::Shadow);
    if let Some(breach) = breach {
        return (Some(ChangeKind::RollBack { why: breach.why }), None);
    }
    let waiting =
        (!has_samples).then(|| format!("{rows} of {} rows ('rollout: samples_min') are compared", config.samples_min));
    match rollout.stage {
        Stage::Canary { percent, is_held: false, .. } if rollout.lasted >= config.step_for && has_samples => {
            let kind = match config.steps.iter().find(|step| **step > percent) {
                Some(percent) => ChangeKind::Step { percent: *percent },
                None => ChangeKind::GoLive,
            };
            (Some(kind), None)
        }
        Stage::Bake { .. } if rollout.lasted >= config.bake => (Some(ChangeKind::Finish), None),
        Stage::Bake { .. } => (None, None),
        Stage::Shadow | Stage::Canary { .. } => (None, waiting),
    }
}

pub(in crate::app::plugins) fn count(plugin: &str, result: &'static str) {
    describe_counter!("larder_plugin_rollouts_total", "Changes of rollouts, by result.");
    counter!("larder_plugin_rollouts_total", "plugin" => plugin.to_owned(), "result" => result).increment(1);
}
