//! Rolls a plugin back to its previous version, or to a chosen version of its history.

use std::{sync::Arc, time::Instant};

use larder_http::DeployReport;
use larder_model::registry::Catalog;

use super::{
    DeployError, FileOrigin, Plugins, Version,
    rollout::{RolledBack, Rollout},
    version::ChosenVersion,
};

/// Why a version was rolled back, if a user requested it.
const BY_COMMAND: &str = "`larder plugin rollback` was called";

// === impl Plugins ===

impl Plugins {
    /// Loads a version of a plugin's history, unless it is in memory already. `wanted` is the number of the version, or
    /// at least eight digits of its digest. A version without cached code is compiled, which may take minutes.
    pub(in crate::app) fn choose(&self, name: &str, wanted: &str) -> Result<ChosenVersion, DeployError> {
        let past = self.select_past(name, wanted)?;
        let in_memory = self.state().entries.get(name).and_then(|entry| {
            let version = entry.live.iter().chain(&entry.previous).find(|version| *version.digest() == past.digest)?;
            Some(Arc::clone(&version.component))
        });
        if let Some(component) = in_memory {
            return Ok(ChosenVersion::in_memory(&component));
        }
        let bytes = self.plugin_dir.stored(name, &past)?;
        let bytes = bytes.ok_or_else(|| DeployError::NoCopy { plugin: name.to_owned(), digest: past.digest })?;
        let component = self.load(&bytes, FileOrigin::Command)?;
        Ok(ChosenVersion { component, bytes: Some(bytes), keeps_waiting_file: false })
    }

    /// Makes a chosen version live in memory, or the previous version. Returns an error if there is no previous version,
    /// or if the version is incompatible with `catalog`; nothing changes in this case. During a rollout, drops the candidate.
    /// Call [`Plugins::write_ended`] afterwards, and pass the returned version, if there is one, to
    /// [`Plugins::write_restored`].
    pub(in crate::app) fn roll_back(
        &self,
        name: &str,
        chosen: Option<ChosenVersion>,
        catalog: &Catalog,
    ) -> Result<(DeployReport, Option<ChosenVersion>), DeployError> {
        let _span = tracing::debug_span!("roll_back", plugin = name).entered();
        let started = Instant::now();
        if let (None, Ok(rollout)) = (&chosen, self.rollout(name)) {
            return self.roll_back_rollout(name, &rollout, started);
        }
        let before = self.state().entries.get(name).cloned().ok_or_else(|| DeployError::Unknown(name.to_owned()))?;
        let ChosenVersion { component, bytes, .. } = match (chosen, &before.previous) {
            (Some(chosen), _) => chosen,
            (None, Some(previous)) => {
                // Without this check, the reaction to an alert about a rollback could repeat the outage.
                self.check_not_rolled_back(name, previous)?;
                ChosenVersion::in_memory(&previous.component)
            }
            (None, None) => return Err(DeployError::NoPrevious(name.to_owned())),
        };
        // If a compatible version is in memory, it is already bound to all views, so this does not call plugin code.
        let bound = before.live.iter().chain(&before.previous).find(|version| version.digest() == component.digest());
        let back = self.bind(name, &component, catalog, bound).map_err(DeployError::Bind)?;
        let mut report = back.report(before.live.as_ref(), started.elapsed());
        if bytes.is_some() {
            report.seconds += component.load_time().as_secs_f64();
        } else {
            report.compiled = false;
        }
        let replaced = before.live.as_ref().filter(|live| live.digest() != component.digest());
        let replaced = replaced.map(|replaced| self.rolled_back(name, replaced));
        let mut state = self.state();
        report.dropped = state.end_rollout(name, self.clock.now(), BY_COMMAND);
        replaced.into_iter().for_each(|replaced| state.rolled_back.add(replaced));
        state.rolled_back.remove(name, component.digest());
        let entry = state.entries.entry(name.to_owned()).or_default();
        let again = entry.live.as_ref().is_some_and(|live| live.digest() == component.digest());
        let replaced = entry.set_live(back);
        if !again {
            entry.previous = replaced;
        }
        entry.rejected = None;
        drop(state);
        tracing::warn!(plugin = name, version = report.version, "plugin rolled back");
        Ok((report, Some(ChosenVersion { component, bytes, keeps_waiting_file: false })))
    }

    /// Drops the candidate of a rollout. If it is live, the version that it replaced becomes live again.
    fn roll_back_rollout(
        &self,
        name: &str,
        rollout: &Rollout,
        started: Instant,
    ) -> Result<(DeployReport, Option<ChosenVersion>), DeployError> {
        let restored = self.roll_back_candidate(name, BY_COMMAND, false)?;
        let mut report = rollout.base.report(restored.as_ref().map(|_| &rollout.candidate), started.elapsed());
        report.compiled = false;
        report.dropped = Some(rollout.candidate.component.signature().version.clone());
        Ok((report, restored))
    }

    /// Fails if a version was rolled back automatically.
    fn check_not_rolled_back(&self, name: &str, version: &Version) -> Result<(), DeployError> {
        match self.find_rolled_back(name, version.digest()) {
            Some(entry) if entry.is_automatic => {
                let (plugin, rolled_back) = (name.to_owned(), Box::new(entry.describe()));
                Err(DeployError::PreviousRolledBack { plugin, rolled_back })
            }
            _ => Ok(()),
        }
    }

    /// Returns the entry for a live version that a command replaced by an older one.
    fn rolled_back(&self, name: &str, replaced: &Version) -> RolledBack {
        RolledBack {
            plugin: name.to_owned(),
            version: replaced.component.signature().version.clone(),
            digest: *replaced.digest(),
            at: self.clock.now(),
            why: BY_COMMAND.to_owned(),
            is_automatic: false,
        }
    }

    /// Writes the files of a version that a rollback has made live. Returns an error if the stored copy is missing or a
    /// file cannot be written.
    pub(in crate::app) fn write_restored(&self, restored: ChosenVersion) -> Result<(), DeployError> {
        let ChosenVersion { component, bytes, keeps_waiting_file } = restored;
        let name = &component.signature().name;
        let failed = |source| DeployError::FilesNotRolledBack { plugin: name.clone(), source };
        let bytes = match bytes {
            Some(bytes) => Some(bytes),
            None => self.plugin_dir.stored(name, &self.history_entry(&component)).map_err(failed)?,
        };
        let bytes = bytes.ok_or_else(|| DeployError::MissingCopy(name.clone()))?;
        if keeps_waiting_file && self.has_waiting_file(name) {
            return self.write_files(&component, &bytes, false).map_err(failed);
        }
        self.write_files(&component, &bytes, true).map_err(|source| {
            // The next start then finds the restored version in the history, even if the directory cannot be written.
            let _ = self.write_files(&component, &bytes, false);
            failed(source)
        })
    }
}
