//! Tracks the live plugins, and deploys other versions of them.
//!
//! To deploy a version, the server checks and compiles its file, binds it to every derived view that names the plugin,
//! and runs the acceptance checks. Only then do requests use the version, for all of these views at the same time.
//! If anything fails, the previous version stays live. After a deployment, the previous version stays compiled and
//! bound to its views, so that a rollback to it only has to swap versions. Older versions are only files.

mod error;
mod history;
mod rollback;
mod rollout;
mod version;

use std::{
    collections::{BTreeMap, HashMap},
    iter,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use larder_captures::{CaptureLog, SampleRequest};
use larder_common::{clock::SharedClock, files::FileStamp};
use larder_http::{DeployReport, PluginStatus, RolloutReport};
use larder_model::{
    model::{DerivedView, Micros},
    registry::Catalog,
};
use larder_plugin_host::{
    BindError, CompileKill, Component, Digest, HistoryEntry, KilledCompilations, LoadError, PluginDir, PluginDirError,
    PluginError, PluginRuntime, RolloutDir, Transform, is_lower_version,
};
use larder_serving::{Canary, MissingPlugins, Transforms, ViewPlugin};
use metrics::{counter, describe_counter};

pub(super) use self::{error::DeployError, rollout::CHECK_EVERY};
use self::{
    rollout::{RolledBackList, Rollout},
    version::Version,
};
use crate::config::{PluginConfig, Rollouts};

/// The plugins of a server.
#[derive(Debug)]
pub(super) struct Plugins {
    runtime: Arc<PluginRuntime>,
    captures: Arc<CaptureLog>,
    plugin_dir: PluginDir,
    rollout_dir: RolloutDir,
    rollout_configs: Rollouts,
    /// Files whose compilation was killed. These files are not compiled again automatically.
    killed: KilledCompilations,
    /// The limit on the size of a plugin's file, in bytes.
    file_bytes_max: u64,
    clock: SharedClock,
    missing: MissingPlugins,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<String, Entry>,
    /// The stamps that the files in the directory had when they were last read.
    seen: HashMap<String, FileStamp>,
    /// The versions that are not taken from the directory again.
    rolled_back: RolledBackList,
    /// The rollouts of an earlier process that are not continued yet: the digest of the live version, by plugin.
    pending: BTreeMap<String, Digest>,
}

/// One plugin.
#[derive(Clone, Debug, Default)]
struct Entry {
    live: Option<Version>,
    /// The version that a rollback restores if it names no version. It may be incompatible with the current definitions,
    /// so a rollback checks it first.
    previous: Option<Version>,
    /// Why the file in the directory is not live, if it was rejected.
    rejected: Option<String>,
    /// Whether the file in the directory is being compiled or is queued for compilation.
    compiling: bool,
    /// The rollout of another version, if one is running.
    rollout: Option<Rollout>,
    /// The comparisons of the last rollout.
    last_report: Option<RolloutReport>,
}

/// Which files to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loading {
    /// Files with cached code; each loads within milliseconds.
    Cached,
    /// All files; those without cached code are compiled, which may take minutes.
    Compiled,
}

/// Where a file comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileOrigin {
    /// From the plugin directory, or from the copies that the server stores.
    Directory,
    /// From a command, whose caller waits for the result.
    Command,
}

/// A version that was bound to all views that name its plugin, and passed the acceptance checks.
#[derive(Debug)]
pub(super) struct CheckedVersion {
    version: Version,
    started: Instant,
    /// Why the version was rejected, if it is deployed by force.
    overridden: Option<String>,
}

/// The plugins, bound to the views of a new catalog. They become live together with that catalog.
#[derive(Debug)]
pub(super) struct Rebound(BTreeMap<String, Entry>);

// === impl Plugins ===

impl Plugins {
    /// Opens the plugin directory and starts the runtime, without loading a plugin. Returns `None` if the configuration
    /// turns plugins off.
    pub(super) fn open(config: &PluginConfig, clock: SharedClock) -> Result<Option<Self>, PluginError> {
        describe_counter!("larder_plugin_deploys_total", "Deployments of plugins, by result.");
        let Some(dir) = &config.dir else { return Ok(None) };
        let plugin_dir = PluginDir::open(dir, &config.own_dir)?;
        let rollout_dir = RolloutDir::open(&config.own_dir)?;
        let (rolled_back, pending) = (read_rolled_back(&rollout_dir), rollout::pending(&rollout_dir));
        let killed = KilledCompilations::open(&config.own_dir.join("killed"))?;
        let runtime = PluginRuntime::new(config.settings.clone())?;
        let captures = CaptureLog::start(config.captures_dir.clone(), config.captures, Arc::clone(&clock));
        let captures = captures.map_err(PluginError::Thread)?;
        runtime.set_observer(Arc::<CaptureLog>::clone(&captures));
        let file_bytes_max = config.settings.component_bytes_max();
        Ok(Some(Self {
            runtime,
            captures,
            plugin_dir,
            rollout_dir,
            rollout_configs: config.rollouts.clone(),
            killed,
            file_bytes_max,
            clock,
            missing: MissingPlugins::default(),
            state: Mutex::new(State { rolled_back, pending, ..State::default() }),
        }))
    }

    /// Returns the limit on the size of a plugin's file, in bytes.
    pub(super) fn file_bytes_max(&self) -> u64 {
        self.file_bytes_max
    }

    /// Captures a sample of a plugin's calls from now on. Returns the end of the period; `None` if the plugin is not live.
    pub(super) fn capture(&self, plugin: &str, request: &SampleRequest) -> Option<Micros> {
        self.state().entries.get(plugin)?.live.as_ref()?;
        Some(self.captures.sample(plugin, request))
    }

    /// Writes the captured calls in memory. Blocks. Returns whether that was possible within this time.
    pub(super) fn stop_captures(&self, within: Duration) -> bool {
        self.captures.stop(within)
    }

    /// Returns the live plugins, bound to the derived views of a catalog.
    pub(super) fn transforms(&self, catalog: &Catalog) -> Transforms {
        self.transforms_of(&self.state().entries, catalog)
    }

    /// Checks a file and compiles it, unless its code is in the cache. If an earlier compilation of the file was
    /// killed, compiles it again only if a command requests that, a limit was raised, or the version of Larder changed.
    pub(super) fn load(&self, bytes: &[u8], origin: FileOrigin) -> Result<Arc<Component>, DeployError> {
        if let Some(component) = self.runtime.load_cached(bytes)? {
            return Ok(component);
        }
        let (digest, limits) = (Digest::of(bytes), self.runtime.settings().compile);
        if origin == FileOrigin::Directory
            && let Some(why) = self.killed.find(&digest, limits)
        {
            return Err(DeployError::KilledBefore(why));
        }
        let loaded = self.runtime.load(bytes);
        match &loaded {
            Ok(_) => self.killed.remove(&digest),
            // Whether a compilation gets enough CPU time depends on the machine, so it is tried again at the next start.
            Err(LoadError::Killed(CompileKill::Wall(_))) => {}
            Err(LoadError::Killed(kill)) => self.killed.note(&digest, limits, *kill),
            Err(_) => {}
        }
        Ok(loaded?)
    }

    /// Returns the component of a file, or `None` if its code is not in the cache.
    pub(super) fn load_cached(&self, bytes: &[u8]) -> Result<Option<Arc<Component>>, DeployError> {
        Ok(self.runtime.load_cached(bytes)?)
    }

    /// Defers a file that has to be compiled, so that the next poll of the directory returns it again.
    pub(super) fn defer(&self, name: &str) {
        self.state().seen.remove(name);
        self.mark_compiling(name);
    }

    /// Stops running compilations and starts no new ones.
    pub(super) fn stop_compiling(&self) {
        self.runtime.stop_compiling();
    }

    /// Returns the plugin directory and its files, which may be links to other directories.
    pub(super) fn watched_paths(&self) -> Vec<PathBuf> {
        let dir = self.plugin_dir.dir();
        // The error is ignored here, because `changed_files` logs it.
        let files = self.plugin_dir.files().unwrap_or_default();
        let files = files.iter().map(|(name, _)| PluginDir::file_in(dir, name));
        iter::once(dir.to_path_buf()).chain(files).collect()
    }

    /// Returns the files in the directory that are new or changed since the last call, except files that are the live
    /// version. Because compilations may queue, plugins that a derived view names come first, and smaller files come
    /// before larger ones.
    pub(super) fn changed_files(&self, catalog: &Catalog) -> Vec<(String, Result<Vec<u8>, DeployError>)> {
        let files = self.plugin_dir.files().unwrap_or_else(|error| {
            tracing::error!(%error, "cannot read the plugin directory");
            Vec::new()
        });
        let mut state = self.state();
        let State { entries, seen, .. } = &mut *state;
        let mut changed = Vec::new();
        for (name, stamp) in files {
            if seen.insert(name.clone(), stamp) == Some(stamp) {
                continue;
            }
            let bytes = self.plugin_dir.read(&name, self.file_bytes_max).map_err(DeployError::from);
            // The file is the live version: a deployment or a rollback wrote it, or a user replaced an invalid file
            // with it.
            if let (Ok(bytes), Some(entry)) = (&bytes, entries.get_mut(&name))
                && entry.live.as_ref().is_some_and(|live| Digest::of(bytes) == *live.component.digest())
            {
                entry.rejected = None;
                continue;
            }
            changed.push((name, bytes));
        }
        let is_named = |name: &str| catalog.derived_views().iter().any(|view| *view.plugin == *name);
        changed.sort_by_key(|(name, bytes)| (!is_named(name), bytes.as_ref().map_or(0, Vec::len)));
        changed
    }

    /// Marks a file of the directory as being compiled. [`Plugins::note`] clears the mark when it records the result.
    pub(super) fn mark_compiling(&self, name: &str) {
        self.state().entries.entry(name.to_owned()).or_default().compiling = true;
    }

    /// Returns whether a file has to be compiled.
    pub(super) fn is_compiling(&self) -> bool {
        self.state().entries.values().any(|entry| entry.compiling)
    }

    /// Clears all marks that [`Plugins::mark_compiling`] set. Marks can be left over from queued files that were
    /// deleted.
    pub(super) fn clear_compiling(&self) {
        self.state().entries.values_mut().for_each(|entry| entry.compiling = false);
    }

    /// Binds a component to the derived views that name its plugin, and runs the acceptance checks. A file in the plugin
    /// directory that the server accepted before is not checked again. With `force`, failed acceptance checks and a
    /// repeated version number only cause a warning in the log.
    pub(super) fn check(
        &self,
        component: &Arc<Component>,
        found_as: Option<&str>,
        catalog: &Catalog,
        force: bool,
    ) -> Result<CheckedVersion, DeployError> {
        let started = Instant::now();
        let (name, number) = (&component.signature().name, &component.signature().version);
        if let Some(file) = found_as.filter(|file| *file != name) {
            return Err(DeployError::NameMismatch { file: file.to_owned(), plugin: name.clone() });
        }
        if !force {
            self.check_no_rollout(name)?;
        }
        if let Some(rolled_back) = found_as.and_then(|_| self.find_rolled_back(name, component.digest())) {
            let (plugin, rolled_back) = (name.clone(), Box::new(rolled_back.describe()));
            return Err(DeployError::RolledBack { plugin, rolled_back });
        }
        if found_as.is_some() && self.state().pending.get(name).is_some_and(|live| live != component.digest()) {
            return Err(DeployError::RolloutPending(name.clone()));
        }
        let live = self.state().entries.get(name).and_then(|entry| entry.live.clone());
        let version = self.bind(name, component, catalog, live.as_ref().filter(|live| live.is(component)));
        let version = version.map_err(DeployError::Bind)?;
        let was_accepted = || {
            let history = self.plugin_dir.history(name).unwrap_or_default();
            history.iter().any(|version| version.digest == *component.digest())
        };
        if live.as_ref().is_some_and(|live| live.is(component)) || (found_as.is_some() && was_accepted()) {
            return Ok(CheckedVersion { version, started, overridden: None });
        }
        let checked = self.check_number(live.as_ref(), component).and_then(|()| version.accept(live.as_ref()));
        let mut overridden = None;
        match checked {
            Err(error) if force => {
                tracing::warn!(plugin = name, version = number, %error, "plugin deployed by force");
                // The hint would suggest to use force.
                let message = error.to_string();
                overridden = Some(message.split(". hint: ").next().unwrap_or_default().to_owned());
            }
            checked => checked?,
        }
        Ok(CheckedVersion { version, started, overridden })
    }

    /// Checks the version number of a component that replaces the live version.
    fn check_number(&self, live: Option<&Version>, component: &Component) -> Result<(), DeployError> {
        let (name, number) = (&component.signature().name, &component.signature().version);
        let Some(live) = live.map(|live| &live.component) else { return Ok(()) };
        if live.signature().version == *number {
            let (plugin, version) = (name.clone(), number.clone());
            return Err(DeployError::SameVersion { plugin, version, live: live.digest().to_string() });
        }
        if is_lower_version(number, &live.signature().version) {
            let live = &live.signature().version;
            tracing::warn!(
                plugin = name,
                version = number,
                live,
                "the plugin's version is lower than the live version"
            );
        }
        Ok(())
    }

    /// Makes a loaded file live, and stores a copy of it. A file from a command is first written to the plugin
    /// directory. For a file from the plugin directory, `found_as` is its name there. Such a file must still be there,
    /// unchanged, and have the plugin's name. Fails if a rollout of the plugin is running, unless `force` is set: then the
    /// rollout ends.
    pub(super) fn deploy(
        &self,
        checked: &CheckedVersion,
        bytes: &[u8],
        found_as: Option<&str>,
        force: bool,
        catalog: &Catalog,
    ) -> Result<DeployReport, DeployError> {
        let CheckedVersion { version: Version { component, .. }, started, overridden } = checked;
        let name = component.signature().name.clone();
        let _span = tracing::debug_span!("deploy", plugin = name, version = component.signature().version).entered();
        // If a rollback has replaced the file since it was read, deploying it would undo the rollback.
        let is_there = || self.plugin_dir.read(&name, self.file_bytes_max).is_ok_and(|there| there == bytes);
        if found_as.is_some() && !is_there() {
            return Err(DeployError::Replaced(name));
        }
        if !force {
            self.check_no_rollout(&name)?;
        }
        // The definitions may have changed since the check.
        let version = self.bind(&name, component, catalog, Some(&checked.version)).map_err(DeployError::Bind)?;
        // The files are written before the version goes live, so that nothing can fail afterwards.
        let written = self.write_files(component, bytes, found_as.is_none());
        // A file in the directory is tried again by the next poll.
        written.inspect_err(|_| _ = self.state().seen.remove(&name))?;
        let mut state = self.state();
        let dropped = state.end_rollout(&name, self.clock.now(), "another version was deployed by force");
        let was_rolled_back = state.rolled_back.remove(&name, component.digest());
        let entry = state.entries.entry(name.clone()).or_default();
        let again = entry.live.as_ref().is_some_and(|live| live.component.digest() == component.digest());
        let mut report = version.report(entry.live.as_ref(), component.load_time() + started.elapsed());
        report.overridden.clone_from(overridden);
        report.dropped = dropped;
        let replaced = entry.set_live(version);
        if !again {
            // If the live file is deployed again, `previous` does not change, so a rollback still restores the version
            // before it.
            entry.previous = replaced;
        }
        entry.rejected = None;
        drop(state);
        report.dropped.iter().for_each(|_| rollout::count(&name, "dropped"));
        if report.dropped.is_some() || was_rolled_back {
            self.write_ended(&name)?;
        }
        Ok(report)
    }

    /// Stores a version as the first one of the plugin's history, unless it is the first one already, as it usually is at
    /// startup. Also writes the file to the plugin directory, if `to_plugin_dir` is set.
    fn write_files(&self, component: &Component, bytes: &[u8], to_plugin_dir: bool) -> Result<(), PluginDirError> {
        let name = &component.signature().name;
        let prepared = self.plugin_dir.prepare(name, self.history_entry(component), bytes)?;
        // If the process is killed between these two steps, the next start deploys the file again.
        if to_plugin_dir {
            self.plugin_dir.write(name, bytes)?;
        }
        prepared.commit()
    }

    /// Returns the entry of the plugin's history for a version that goes live now.
    fn history_entry(&self, component: &Component) -> HistoryEntry {
        HistoryEntry {
            digest: *component.digest(),
            version: Some(component.signature().version.clone()),
            language: component.language().to_owned(),
            bytes: component.bytes(),
            went_live: self.clock.now(),
        }
    }

    /// Records the result of a deployment in the plugin's status, the log and the metrics.
    pub(super) fn note(&self, found_as: Option<&str>, result: &Result<DeployReport, DeployError>) {
        if let Some(name) = found_as {
            self.state().entries.entry(name.to_owned()).and_modify(|entry| entry.compiling = false);
        }
        let (label, plugin) = match result {
            Ok(report) => {
                let DeployReport { plugin, version, digest, replaced, seconds, .. } = report;
                tracing::info!(plugin, version, digest, replaced, seconds, "plugin deployed");
                ("accepted", plugin.as_str())
            }
            Err(error @ (DeployError::Replaced(_) | DeployError::Load(LoadError::Stopped))) => {
                return tracing::info!(%error, "plugin not deployed");
            }
            Err(error) => {
                let plugin = found_as.unwrap_or("uploaded");
                tracing::error!(plugin, %error, "plugin rejected; any previous version keeps serving");
                ("rejected", plugin)
            }
        };
        counter!("larder_plugin_deploys_total", "result" => label).increment(1);
        if let (Err(error), Some(_)) = (result, found_as) {
            self.state().entries.entry(plugin.to_owned()).or_default().rejected = Some(error.to_string());
        }
    }

    /// Binds the live versions to another catalog. Fails if a live version is incompatible with it. Also binds the
    /// previous versions that are compatible; incompatible ones keep their bindings to the current catalog.
    pub(super) fn rebind(&self, catalog: &Catalog) -> Result<Rebound, DeployError> {
        let mut entries = self.state().entries.clone();
        let mut errors = Vec::new();
        let mut incompatible = Vec::new();
        for (name, entry) in &mut entries {
            if let Some(live) = &entry.live {
                match self.bind(name, &live.component, catalog, Some(live)) {
                    Ok(version) => entry.live = Some(version),
                    Err(wrong) => errors.extend(wrong),
                }
            }
            if let Some(rollout) = &entry.rollout {
                match self.rebind_rollout(name, rollout, entry.live.as_ref(), catalog) {
                    Ok(rollout) => entry.rollout = Some(rollout),
                    Err(error) => {
                        tracing::error!(
                            plugin = name, %error,
                            "candidate dropped, because it is incompatible with the definitions"
                        );
                        entry.rollout = None;
                        rollout::count(name, "dropped");
                    }
                }
            }
            if let Some(previous) = &mut entry.previous {
                match self.bind(name, &previous.component, catalog, Some(previous)) {
                    Ok(version) => *previous = version,
                    Err(wrong) => incompatible.extend(wrong),
                }
            }
        }
        if !errors.is_empty() {
            return Err(DeployError::Bind(errors));
        }
        for error in incompatible {
            tracing::warn!(
                plugin = error.plugin, view = error.view, version = error.version, %error,
                "the previous version is incompatible with the definitions; a rollback to it is rejected"
            );
        }
        Ok(Rebound(entries))
    }

    /// Replaces the plugins with the ones that were bound to another catalog.
    pub(super) fn accept(&self, rebound: Rebound) {
        let mut state = self.state();
        let is_running = |entries: &BTreeMap<String, Entry>, name: &str| {
            entries.get(name).is_some_and(|entry| entry.rollout.is_some())
        };
        let ended =
            state.entries.keys().filter(|name| is_running(&state.entries, name) && !is_running(&rebound.0, name));
        ended.for_each(|name| self.remove_state(name));
        state.entries.values().filter_map(|entry| entry.live.as_ref()).for_each(|live| live.set_in_service(false));
        state.entries = rebound.0;
        state.entries.values().filter_map(|entry| entry.live.as_ref()).for_each(|live| live.set_in_service(true));
    }

    /// Returns the state of all plugins, sorted by name.
    pub(super) fn list(&self) -> Vec<PluginStatus> {
        let state = self.state();
        let status = |(name, entry): (&String, &Entry)| PluginStatus {
            plugin: name.clone(),
            live: entry.live.as_ref().map(Version::describe),
            previous: entry.previous.as_ref().map(Version::describe),
            views: entry.live.iter().flat_map(|live| live.transforms.keys().map(ToString::to_string)).collect(),
            rejected: entry.rejected.clone(),
            compiling: entry.compiling,
            rollout: entry.rollout.as_ref().map(|rollout| rollout.status(name)),
            rolled_back: state.rolled_back.last(name).map(rollout::RolledBack::describe),
        };
        state.entries.iter().map(status).collect()
    }

    /// Binds a component to all derived views that name its plugin. For views that did not change, reuses the bindings
    /// in `before`.
    fn bind(
        &self,
        name: &str,
        component: &Arc<Component>,
        catalog: &Catalog,
        before: Option<&Version>,
    ) -> Result<Version, Vec<BindError>> {
        let mut version = Version::unbound(Arc::clone(component));
        let mut errors = Vec::new();
        for view in catalog.derived_views().iter().filter(|view| *view.plugin == *name) {
            let same = before.filter(|before| before.views.get(&view.name) == Some(view));
            let bound = match same.and_then(|before| before.transforms.get(&view.name)) {
                Some(transform) => Ok(Arc::clone(transform)),
                None => Transform::bind(&self.runtime, component, view),
            };
            match bound {
                Ok(transform) => {
                    version.transforms.insert(Arc::clone(&view.name), transform);
                    version.views.insert(Arc::clone(&view.name), Arc::clone(view));
                }
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(version) } else { Err(errors) }
    }

    fn transforms_of(&self, entries: &BTreeMap<String, Entry>, catalog: &Catalog) -> Transforms {
        let of = |view: &Arc<DerivedView>| {
            let entry = entries.get(&*view.plugin)?;
            let live = entry.live.as_ref()?.transforms.get(&view.name)?;
            let comparison = entry.rollout.as_ref().and_then(|rollout| rollout.comparison(&view.name));
            Some(ViewPlugin { live: Arc::clone(live), comparison: comparison.cloned() })
        };
        let by_view = catalog.derived_views().iter().map(of).collect();
        let canary = |rollout: &Rollout| {
            let share = rollout.canary_share()?;
            let of = |(view, transform): (&Arc<str>, &Arc<Transform>)| {
                Some((catalog.derived_index(view)?, Arc::clone(transform)))
            };
            let transforms = rollout.candidate.transforms.iter().filter_map(of).collect();
            Some(Canary { share, digest: *rollout.candidate.digest(), transforms })
        };
        let canaries = entries.values().filter_map(|entry| canary(entry.rollout.as_ref()?)).collect();
        Transforms::new(by_view, canaries, self.missing.clone(), Arc::clone(&self.runtime))
    }

    /// Binds both versions of a rollout to another catalog. `live` is the live version, which is bound to it.
    fn rebind_rollout(
        &self,
        name: &str,
        rollout: &Rollout,
        live: Option<&Version>,
        catalog: &Catalog,
    ) -> Result<Rollout, DeployError> {
        let bind = |version: &Version| match live.filter(|live| live.is(&version.component)) {
            Some(live) => Ok(live.clone()),
            None => self.bind(name, &version.component, catalog, Some(version)).map_err(DeployError::Bind),
        };
        rollout.rebound(bind(&rollout.candidate)?, bind(&rollout.base)?, self.rollout_configs.of(name))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is consistent after every statement, so the state behind a poisoned lock is valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Entry ===

impl Entry {
    /// Makes a version the live one. Returns the version that it replaces.
    fn set_live(&mut self, version: Version) -> Option<Version> {
        // Both may be bindings of the same file, which have the same metrics, so the order matters.
        self.live.iter().for_each(|live| live.set_in_service(false));
        version.set_in_service(true);
        self.live.replace(version)
    }
}

// === impl Rebound ===

impl Rebound {
    /// Returns the live plugins for the derived views of `catalog`, to which they were bound.
    pub(super) fn transforms(&self, plugins: &Plugins, catalog: &Catalog) -> Transforms {
        plugins.transforms_of(&self.0, catalog)
    }
}

/// Reads the list of the versions that were rolled back. A damaged list is empty.
fn read_rolled_back(dir: &RolloutDir) -> RolledBackList {
    let list = match dir.read_rolled_back() {
        Ok(list) => list.unwrap_or_else(|| b"[]".to_vec()),
        Err(error) => {
            tracing::error!(%error, "cannot read the list of plugin versions that were rolled back");
            return RolledBackList::default();
        }
    };
    serde_json::from_slice(&list).unwrap_or_else(|error| {
        tracing::error!(%error, "the list of plugin versions that were rolled back is damaged");
        RolledBackList::default()
    })
}
