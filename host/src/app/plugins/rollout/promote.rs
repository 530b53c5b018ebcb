//! Begins and promotes rollouts, and continues them after a restart.

use std::collections::BTreeMap;

use larder_http::{PromoteCommand, RolloutStatus};
use larder_model::{registry::Catalog, yaml::nearest};
use larder_plugin_host::{Digest, RolloutDir};

use super::{
    RolledBack, Rollout, Stage, compared_rows, count,
    gates::{Accepted, null_increase},
    saved::{FORMAT, SavedRollout},
};
use crate::app::plugins::{CheckedVersion, DeployError, Loading, Plugins, Version};

// === impl Plugins ===

impl Plugins {
    /// Begins the rollout of a checked version in the shadow stage. `ratio` is the share of the requests that both versions
    /// compute, from 0 to 1. Fails if a rollout of the plugin is running, unless `force` is set: then that rollout ends.
    pub(in crate::app) fn begin_rollout(
        &self,
        checked: &CheckedVersion,
        bytes: &[u8],
        ratio: f64,
        force: bool,
        catalog: &Catalog,
    ) -> Result<RolloutStatus, DeployError> {
        let component = &checked.version.component;
        let name = component.signature().name.clone();
        if !force {
            self.check_no_rollout(&name)?;
        }
        let base = self.state().entries.get(&name).and_then(|entry| entry.live.clone());
        let base = base.ok_or_else(|| DeployError::NoBase(name.clone()))?;
        if base.is(component) {
            return Err(DeployError::CandidateIsLive { plugin: name, version: component.signature().version.clone() });
        }
        // The definitions may have changed since the check.
        let candidate = self.bind(&name, component, catalog, Some(&checked.version)).map_err(DeployError::Bind)?;
        let rollout = Rollout::begin(candidate, base, ratio, self.rollout_configs.of(&name), self.clock.now())?;
        self.rollout_dir.write_candidate(&name, bytes)?;
        self.save(&name, &rollout)?;
        let dropped = self.state().end_rollout(&name, self.clock.now(), "another candidate was deployed by force");
        dropped.iter().for_each(|_| count(&name, "dropped"));
        // A user deploys it again on purpose.
        let was_rolled_back = self.state().rolled_back.remove(&name, component.digest());
        let status = rollout.status(&name);
        self.set_rollout(&name, rollout);
        if was_rolled_back {
            self.write_ended(&name)?;
        }
        tracing::info!(plugin = name, version = status.candidate.version, "shadow run started");
        Ok(status)
    }

    /// Fails if a rollout of the plugin is running.
    pub(in crate::app::plugins) fn check_no_rollout(&self, name: &str) -> Result<(), DeployError> {
        let state = self.state();
        let Some(rollout) = state.entries.get(name).and_then(|entry| entry.rollout.as_ref()) else { return Ok(()) };
        let version = rollout.candidate.component.signature().version.clone();
        let (stage, is_live) = (rollout.stage_text(), rollout.is_live());
        Err(DeployError::RolloutRunning { plugin: name.to_owned(), version, stage, is_live })
    }

    /// Promotes a candidate: from the shadow stage to the canary stage, to another share of the requests, or to the live
    /// version.
    pub(in crate::app) fn promote(
        &self,
        name: &str,
        command: &PromoteCommand,
        catalog: &Catalog,
    ) -> Result<RolloutStatus, DeployError> {
        let config = self.rollout_configs.of(name);
        let mut rollout = self.rollout(name)?;
        let (plugin, version) = (name.to_owned(), rollout.candidate.component.signature().version.clone());
        let current = match rollout.stage {
            Stage::Shadow => None,
            Stage::Canary { percent, is_held, .. } => Some((percent, is_held)),
            Stage::Bake { .. } if command.percent.is_some() || !command.accept_diff.is_empty() => {
                return Err(DeployError::CandidateIsLive { plugin, version });
            }
            Stage::Bake { .. } => {
                let status = rollout.status(name);
                self.finish_rollout(name);
                self.write_ended(name)?;
                return Ok(status);
            }
        };
        if let Some(percent) = command.percent.filter(|percent| !(*percent > 0.0 && *percent <= 100.0)) {
            return Err(DeployError::BadPercent(percent));
        }
        if let (None, Some((percent, false))) = (command.percent, current)
            && command.accept_diff.is_empty()
        {
            return Err(DeployError::PromotedAutomatically { plugin, version, percent });
        }
        self.accept_differences(name, &mut rollout, &command.accept_diff)?;
        let next = command.percent.or_else(|| {
            let above = current.map_or(0.0, |(percent, _)| percent);
            config.steps.iter().copied().find(|step| *step > above)
        });
        let next = match (command.percent, current) {
            // Only differences were accepted.
            (None, Some((percent, false))) => percent,
            _ => next.unwrap_or(100.0),
        };
        if current.is_none_or(|(percent, _)| next > percent) {
            let reports = rollout.reports();
            let rows = compared_rows(&reports);
            let mut missing: Vec<String> = Vec::new();
            if rows < config.samples_min {
                missing.push(format!("{rows} rows are compared, but 'rollout: samples_min' is {}", config.samples_min));
            }
            let breaches = rollout.breaches_in_diff(config, &reports);
            let features: Vec<&str> = breaches.iter().filter_map(|breach| breach.feature.as_deref()).collect();
            let hint = promote_hint(name, &features, rows < config.samples_min, rollout.ratio);
            missing.extend(breaches.iter().map(|breach| breach.why.clone()));
            if !missing.is_empty() {
                return Err(DeployError::GatesNotMet { plugin, version, gates: missing.join("\n  "), hint });
            }
        }
        self.save(name, &rollout)?;
        self.set_rollout(name, rollout);
        if next >= 100.0 {
            self.go_live(name, catalog)?;
        } else if current != Some((next, command.percent.is_some())) {
            self.step(name, next, command.percent.is_some())?;
        }
        Ok(self.rollout(name)?.status(name))
    }

    /// Records that the differences of features are intended.
    fn accept_differences(&self, name: &str, rollout: &mut Rollout, features: &[String]) -> Result<(), DeployError> {
        let reports = rollout.reports();
        for feature in features {
            let outputs = || reports.values().flat_map(|report| &report.diff.outputs);
            if outputs().all(|output| output.name != *feature) {
                let suggestion = nearest(feature, outputs().map(|output| &*output.name));
                return Err(DeployError::NoSuchFeature {
                    plugin: name.to_owned(),
                    feature: feature.clone(),
                    suggestion,
                });
            }
            let of = outputs().filter(|output| output.name == *feature);
            let (changed, compared) = of
                .clone()
                .fold((0, 0), |(changed, compared), output| (changed + output.changed(), compared + output.compared()));
            let null_increase = of.map(null_increase).fold(0.0, f64::max);
            let version = &rollout.candidate.component.signature().version;
            tracing::warn!(plugin = name, version, feature, changed, compared, null_increase, "difference accepted");
            rollout.accepted.insert(feature.clone(), Accepted { null_increase });
        }
        Ok(())
    }

    /// Continues the rollouts of an earlier process whose candidates are not loaded yet. With [`Loading::Cached`], loads only
    /// candidates with cached code.
    pub(in crate::app) fn resume_rollouts(&self, catalog: &Catalog, loading: Loading) {
        let names = self.rollout_dir.names().unwrap_or_else(|error| {
            tracing::error!(%error, "cannot read the state of rollouts");
            Vec::new()
        });
        for name in names {
            if self.state().entries.get(&name).is_some_and(|entry| entry.rollout.is_some()) {
                continue;
            }
            match self.resume_rollout(&name, catalog, loading) {
                Ok(Some(rollout)) => {
                    let (version, stage) = (&rollout.candidate.component.signature().version, rollout.stage_text());
                    tracing::info!(plugin = name, version, stage, "rollout continues");
                    self.set_rollout(&name, rollout);
                    self.state().pending.remove(&name);
                }
                // The candidate or the live version has to be compiled first.
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(plugin = name, %error, "a rollout cannot be continued; the live version keeps serving");
                    self.remove_state(&name);
                    let mut state = self.state();
                    state.pending.remove(&name);
                    state.seen.remove(&name);
                }
            }
        }
    }

    fn resume_rollout(&self, name: &str, catalog: &Catalog, loading: Loading) -> Result<Option<Rollout>, DeployError> {
        let invalid = |why: String| DeployError::InvalidState { plugin: name.to_owned(), why };
        let saved: SavedRollout = serde_json::from_slice(&self.rollout_dir.read_state(name)?)
            .map_err(|error| invalid(format!("the file of its state is damaged: {error}")))?;
        if saved.format != FORMAT {
            return Err(invalid(format!(
                "its state has format {}, which this version of Larder cannot read",
                saved.format
            )));
        }
        let (live, previous) = {
            let state = self.state();
            let entry = state.entries.get(name);
            (entry.and_then(|entry| entry.live.clone()), entry.and_then(|entry| entry.previous.clone()))
        };
        let Some(live) = live else {
            return if loading == Loading::Cached {
                Ok(None)
            } else {
                Err(invalid("it has no live version".to_owned()))
            };
        };
        let is = |version: &Version, digest: &Digest| version.digest() == digest;
        let is_baking = matches!(saved.stage, Stage::Bake { .. });
        if !is(&live, if is_baking { &saved.candidate } else { &saved.base }) {
            return Err(invalid("another version is live now".to_owned()));
        }
        if is_baking {
            return match previous {
                Some(base) if is(&base, &saved.base) => {
                    Rollout::resume(saved, live, base, self.rollout_configs.of(name)).map(Some)
                }
                _ if loading == Loading::Cached => Ok(None),
                _ => Err(invalid("the version that it replaced is not available".to_owned())),
            };
        }
        let bytes = self.rollout_dir.read_candidate(name, self.file_bytes_max)?;
        if Digest::of(&bytes) != saved.candidate {
            return Err(invalid("the candidate's file is damaged".to_owned()));
        }
        let component = match (self.load_cached(&bytes)?, loading) {
            (Some(component), _) => component,
            (None, Loading::Cached) => return Ok(None),
            (None, Loading::Compiled) => self.load(&bytes, super::super::FileOrigin::Directory)?,
        };
        let candidate = self.bind(name, &component, catalog, None).map_err(DeployError::Bind)?;
        Rollout::resume(saved, candidate, live, self.rollout_configs.of(name)).map(Some)
    }

    /// Returns the version of a plugin that was rolled back, if this is its digest.
    pub(in crate::app::plugins) fn find_rolled_back(&self, name: &str, digest: &Digest) -> Option<RolledBack> {
        self.state().rolled_back.find(name, digest).cloned()
    }
}

/// Returns the digests of the versions that were live in the rollouts of an earlier process, by plugin. States that cannot be
/// read are reported when the rollouts are continued.
pub(in crate::app::plugins) fn pending(dir: &RolloutDir) -> BTreeMap<String, Digest> {
    let live = |name: &String| {
        let saved: SavedRollout = serde_json::from_slice(&dir.read_state(name).ok()?).ok()?;
        Some(if matches!(saved.stage, Stage::Bake { .. }) { saved.candidate } else { saved.base })
    };
    let names = dir.names().unwrap_or_default();
    names.into_iter().filter_map(|name| Some((name.clone(), live(&name)?))).collect()
}

/// Returns what a user can do if the gates are not met.
fn promote_hint(name: &str, features: &[&str], needs_samples: bool, ratio: f64) -> String {
    let mut options: Vec<String> = features.iter().map(|feature| format!("--accept-diff {feature}")).collect();
    options.sort();
    options.dedup();
    if !options.is_empty() {
        return format!(
            "`larder plugin diff {name}` shows the differences; if they are intended, run `larder plugin promote {name} {}`",
            options.join(" ")
        );
    }
    if needs_samples && ratio >= 1.0 {
        return "wait for more requests, or set a lower 'rollout: samples_min'".to_owned();
    }
    if needs_samples {
        return format!(
            "wait for more requests, or compare more of them: `larder plugin rollback {name}`, then `larder plugin deploy \
             FILE --shadow 100%`"
        );
    }
    format!("`larder plugin diff {name}` shows the rows; drop the candidate with `larder plugin rollback {name}`")
}
