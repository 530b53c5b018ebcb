//! Which plugins are in service, and how another version takes a plugin's place.
//!
//! A version goes into service whole: its file is checked and compiled, every derived view that names it is fitted and
//! tried, and only then requests see it, all at once. Whatever fails on the way leaves what was there. The version
//! before stays compiled and configured, so that rolling back is a swap.

use std::{
    collections::{BTreeMap, HashMap},
    iter,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use larder_common::files::FileStamp;
use larder_http::{DeployReport, PluginStatus, PluginVersion, PluginViewStatus};
use larder_model::{model::DerivedView, registry::Catalog};
use larder_plugin_host::{
    BindError, Component, Copy, Digest, KilledCompilations, LoadError, PluginDir, PluginDirError, PluginError,
    PluginRuntime, Transform,
};
use larder_serving::Transforms;
use metrics::{counter, describe_counter};

use crate::config::PluginConfig;

/// The plugins of a host.
#[derive(Debug)]
pub(super) struct Plugins {
    runtime: Arc<PluginRuntime>,
    plugin_dir: PluginDir,
    /// Files that are not compiled again automatically.
    killed: KilledCompilations,
    /// The most bytes that a plugin's file can have.
    file_bytes_max: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<String, Entry>,
    /// The files of the directory as they were last looked at.
    seen: HashMap<String, FileStamp>,
}

/// One plugin.
#[derive(Clone, Debug, Default)]
struct Entry {
    live: Option<Version>,
    previous: Option<Version>,
    /// Why the file in the directory is not in service, if it is not.
    refused: Option<String>,
    /// Whether the file in the directory is being compiled or is queued for compilation.
    compiling: bool,
}

/// Which files are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loading {
    /// Files with cached code; each loads within milliseconds.
    Cached,
    /// All files; those without cached code are compiled, which may take minutes.
    Compiled,
}

/// Why a file is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It is in the directory.
    ByDirectory,
    /// A caller deploys it and waits for the result.
    ByCommand,
}

/// A version, fitted to the derived views that name it.
#[derive(Clone, Debug)]
struct Version {
    component: Arc<Component>,
    transforms: BTreeMap<Arc<str>, Arc<Transform>>,
    /// The views as they were when it was fitted to them.
    views: BTreeMap<Arc<str>, Arc<DerivedView>>,
}

/// The plugins fitted to another catalog, to be taken when that is.
#[derive(Debug)]
pub(super) struct Refitted(BTreeMap<String, Entry>);

/// Why a version does not go into service.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeployError {
    /// The file is none, or no good.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An earlier compilation of it was killed.
    #[error(
        "an earlier compilation of this file was stopped because it {0}; it is not retried until the file changes. hint: \
         raise 'plugins: compile_time_max' or 'compile_memory_max', or run `larder plugin deploy`"
    )]
    KilledBefore(String),
    /// It does not fit the derived views that name it.
    #[error("{}", lines(.0))]
    Bind(Vec<BindError>),
    /// Its file has another's name.
    #[error("the file is named '{file}', but the plugin in it '{plugin}'. hint: rename the file to {plugin}.wasm")]
    Name { file: String, plugin: String },
    /// Its file is another one since it was read, by a roll-back or by somebody else.
    #[error("the file of plugin '{0}' was replaced while it was looked at, and is looked at again")]
    Replaced(String),
    /// A file cannot be read or written.
    #[error(transparent)]
    PluginDir(#[from] PluginDirError),
    /// No such plugin.
    #[error("there is no plugin '{0}'")]
    Unknown(String),
    /// No version before.
    #[error("plugin '{0}' has no version before this one")]
    NothingBefore(String),
}

// === impl Plugins ===

impl Plugins {
    /// The plugins of a host, none of them loaded yet. None where the configuration turns them off.
    pub(super) fn open(config: &PluginConfig) -> Result<Option<Self>, PluginError> {
        describe_counter!("larder_plugin_deploys_total", "Versions that came, by whether they went into service.");
        let Some(dir) = &config.dir else { return Ok(None) };
        let plugin_dir = PluginDir::open(dir, &config.own_dir)?;
        let killed = KilledCompilations::open(&config.own_dir.join("killed"))?;
        let runtime = PluginRuntime::new(config.settings.clone())?;
        let file_bytes_max = config.settings.component_bytes_max();
        Ok(Some(Self { runtime, plugin_dir, killed, file_bytes_max, state: Mutex::default() }))
    }

    /// The most bytes that a plugin's file can have.
    pub(super) fn file_bytes_max(&self) -> u64 {
        self.file_bytes_max
    }

    /// Loads the last versions in service for which the directory has no usable file, and the versions for rollback.
    /// With `Loading::Cached`, loads only versions with cached code.
    pub(super) fn recall(&self, catalog: &Catalog, loading: Loading) {
        let wanted: Vec<(String, Copy)> = {
            let state = self.state();
            let missing = |(name, entry): (&String, &Entry)| {
                let live = entry.live.is_none().then(|| (name.clone(), Copy::Live));
                let previous = entry.previous.is_none().then(|| (name.clone(), Copy::Previous));
                [live, previous].into_iter().flatten().collect::<Vec<_>>()
            };
            state.entries.iter().flat_map(missing).collect()
        };
        for (name, which) in wanted {
            // Loading takes long; other callers may list or deploy plugins meanwhile.
            let Some(version) = self.kept(which, &name, catalog, loading) else { continue };
            let mut state = self.state();
            let Some(entry) = state.entries.get_mut(&name) else { continue };
            let slot = match which {
                Copy::Live => &mut entry.live,
                Copy::Previous => &mut entry.previous,
            };
            if slot.is_some() {
                continue;
            }
            if which == Copy::Live {
                let version = &version.component.signature().version;
                tracing::warn!(plugin = name, version, "keeping the last version in service");
            }
            *slot = Some(version);
        }
    }

    /// What computes the derived views of a catalog now.
    pub(super) fn transforms(&self, catalog: &Catalog) -> Transforms {
        transforms(&self.state().entries, catalog, &self.runtime)
    }

    /// Checks a file and compiles it, unless its code is in the cache. A file whose compilation was killed is compiled
    /// again only on command.
    pub(super) fn load(&self, bytes: &[u8], asked: Asked) -> Result<Arc<Component>, DeployError> {
        if let Some(component) = self.runtime.load_cached(bytes)? {
            return Ok(component);
        }
        let (digest, limits) = (Digest::of(bytes), self.runtime.settings().compile);
        if asked == Asked::ByDirectory
            && let Some(why) = self.killed.find(&digest, limits)
        {
            return Err(DeployError::KilledBefore(why));
        }
        let loaded = self.runtime.load(bytes);
        match &loaded {
            Ok(_) => self.killed.forget(&digest),
            Err(LoadError::Killed(kill)) => self.killed.note(&digest, limits, *kill),
            Err(_) => {}
        }
        Ok(loaded?)
    }

    /// The component of a file whose code is in the cache.
    pub(super) fn load_cached(&self, bytes: &[u8]) -> Result<Option<Arc<Component>>, DeployError> {
        Ok(self.runtime.load_cached(bytes)?)
    }

    /// Defers a file that has to be compiled: the next poll of the directory finds it again.
    pub(super) fn put_off(&self, name: &str) {
        self.state().seen.remove(name);
        self.mark_compiling(name);
    }

    /// Stops running compilations and starts no new ones.
    pub(super) fn stop_compiling(&self) {
        self.runtime.stop_compiling();
    }

    /// The plugin directory and its files, which may be links to other directories.
    pub(super) fn watched_paths(&self) -> Vec<PathBuf> {
        let dir = self.plugin_dir.dir();
        // An error is logged when the directory is checked.
        let files = self.plugin_dir.files().unwrap_or_default();
        let files = files.iter().map(|(name, _)| PluginDir::file_in(dir, name));
        iter::once(dir.to_path_buf()).chain(files).collect()
    }

    /// The files in the directory that are new since the last call and not in service: first those that a derived view
    /// names, then the small ones, because compilations may queue.
    pub(super) fn arrivals(&self, catalog: &Catalog) -> Vec<(String, Result<Vec<u8>, DeployError>)> {
        let files = self.plugin_dir.files().unwrap_or_else(|error| {
            tracing::error!(%error, "the directory of plugins cannot be read");
            Vec::new()
        });
        let mut state = self.state();
        let State { entries, seen } = &mut *state;
        let mut arrivals = Vec::new();
        for (name, stamp) in files {
            if seen.insert(name.clone(), stamp) == Some(stamp) {
                continue;
            }
            let bytes = self.plugin_dir.read(&name, self.file_bytes_max).map_err(DeployError::from);
            // What is deployed or rolled back to is put there by us; or somebody put it back, in place of a bad one.
            if let (Ok(bytes), Some(entry)) = (&bytes, entries.get_mut(&name))
                && entry.live.as_ref().is_some_and(|live| Digest::of(bytes) == *live.component.digest())
            {
                entry.refused = None;
                continue;
            }
            arrivals.push((name, bytes));
        }
        let is_named = |name: &str| catalog.derived_views().iter().any(|view| *view.plugin == *name);
        arrivals.sort_by_key(|(name, bytes)| (!is_named(name), bytes.as_ref().map_or(0, Vec::len)));
        arrivals
    }

    /// Marks a file of the directory as being compiled, until [`Plugins::note`] is called with its result.
    pub(super) fn mark_compiling(&self, name: &str) {
        self.state().entries.entry(name.to_owned()).or_default().compiling = true;
    }

    /// Clears the marks of all files in the directory: files that were queued may be gone.
    pub(super) fn mark_compiled(&self) {
        self.state().entries.values_mut().for_each(|entry| entry.compiling = false);
    }

    /// Takes a loaded file into service: one that was sent, which is put into the directory then, or one that was found
    /// there under a name, and is still there.
    pub(super) fn take(
        &self,
        component: &Arc<Component>,
        bytes: &[u8],
        found_as: Option<&str>,
        catalog: &Catalog,
    ) -> Result<DeployReport, DeployError> {
        let started = Instant::now();
        let name = component.signature().name.clone();
        let _span = tracing::debug_span!("deploy", plugin = name, version = component.signature().version).entered();
        if let Some(file) = found_as.filter(|file| **file != name) {
            return Err(DeployError::Name { file: file.to_owned(), plugin: name });
        }
        // A roll-back that came in between has put another file there, and is not to be undone.
        let is_there = || self.plugin_dir.read(&name, self.file_bytes_max).is_ok_and(|there| there == bytes);
        if found_as.is_some() && !is_there() {
            return Err(DeployError::Replaced(name));
        }
        let version = self.fit(&name, component, catalog, None).map_err(DeployError::Bind)?;
        if found_as.is_none() {
            self.plugin_dir.place(&name, bytes)?;
        }
        let mut state = self.state();
        let entry = state.entries.entry(name.clone()).or_default();
        let again = entry.live.as_ref().is_some_and(|live| live.component.digest() == component.digest());
        let report = version.report(entry.live.as_ref(), component.load_time() + started.elapsed());
        let replaced = entry.live.replace(version);
        if !again {
            // The same file again is no version to roll back to.
            entry.previous = replaced;
        }
        entry.refused = None;
        drop(state);
        // At a start nothing is in service yet, and the file is most often the one that was.
        let kept = self.plugin_dir.copy(Copy::Live, &name, self.file_bytes_max)?;
        if kept.is_none_or(|kept| Digest::of(&kept) != *component.digest()) {
            self.plugin_dir.keep(&name, bytes)?;
        }
        Ok(report)
    }

    /// Notes how a version's arrival ended.
    pub(super) fn note(&self, found_as: Option<&str>, taken: &Result<DeployReport, DeployError>) {
        if let Some(name) = found_as {
            self.state().entries.entry(name.to_owned()).and_modify(|entry| entry.compiling = false);
        }
        let (result, plugin) = match taken {
            Ok(report) => {
                let DeployReport { plugin, version, digest, replaced, seconds, .. } = report;
                tracing::info!(plugin, version, digest, replaced, seconds, "a plugin went into service");
                ("taken", plugin.as_str())
            }
            Err(error @ (DeployError::Replaced(_) | DeployError::Load(LoadError::Stopped))) => {
                return tracing::info!("{error}");
            }
            Err(error) => {
                let plugin = found_as.unwrap_or("sent");
                tracing::error!(plugin, "a plugin was refused, what was in service goes on: {error}");
                ("refused", plugin)
            }
        };
        counter!("larder_plugin_deploys_total", "result" => result).increment(1);
        if let (Err(error), Some(_)) = (taken, found_as) {
            self.state().entries.entry(plugin.to_owned()).or_default().refused = Some(error.to_string());
        }
    }

    /// Puts the version before back into service, here and in the directory.
    pub(super) fn roll_back(&self, name: &str) -> Result<DeployReport, DeployError> {
        let _span = tracing::debug_span!("roll_back", plugin = name).entered();
        let started = Instant::now();
        let mut state = self.state();
        let entry = state.entries.get_mut(name).ok_or_else(|| DeployError::Unknown(name.to_owned()))?;
        let Some(back) = entry.previous.take() else { return Err(DeployError::NothingBefore(name.to_owned())) };
        let replaced = entry.live.replace(back.clone());
        // It was kept as it was, instances and all.
        let report = DeployReport { compiled: false, ..back.report(replaced.as_ref(), started.elapsed()) };
        entry.previous = replaced;
        entry.refused = None;
        drop(state);
        tracing::warn!(plugin = name, version = report.version, "rolled back");
        // Files last: a disk that is full must not keep a bad version in service.
        let bytes = self.plugin_dir.copy(Copy::Previous, name, self.file_bytes_max)?.unwrap_or_default();
        self.plugin_dir.keep(name, &bytes)?;
        self.plugin_dir.place(name, &bytes)?;
        Ok(report)
    }

    /// Fits what is in service to another catalog.
    pub(super) fn refit(&self, catalog: &Catalog) -> Result<Refitted, DeployError> {
        let mut entries = self.state().entries.clone();
        let mut errors = Vec::new();
        for (name, entry) in &mut entries {
            if let Some(live) = &entry.live {
                match self.fit(name, &live.component, catalog, Some(live)) {
                    Ok(version) => entry.live = Some(version),
                    Err(wrong) => errors.extend(wrong),
                }
            }
            // One that does not fit any more is no way back.
            entry.previous = entry
                .previous
                .take()
                .and_then(|version| self.fit(name, &version.component, catalog, Some(&version)).ok());
        }
        if errors.is_empty() { Ok(Refitted(entries)) } else { Err(DeployError::Bind(errors)) }
    }

    /// Takes what was fitted to another catalog.
    pub(super) fn accept(&self, refitted: Refitted) {
        self.state().entries = refitted.0;
    }

    /// What there is.
    pub(super) fn list(&self) -> Vec<PluginStatus> {
        let state = self.state();
        let status = |(name, entry): (&String, &Entry)| PluginStatus {
            plugin: name.clone(),
            live: entry.live.as_ref().map(Version::describe),
            previous: entry.previous.as_ref().map(Version::describe),
            views: entry.live.iter().flat_map(Version::view_statuses).collect(),
            refused: entry.refused.clone(),
            compiling: entry.compiling,
        };
        state.entries.iter().map(status).collect()
    }

    /// Fits a component to all derived views that name it; to those that are as they were, it is fitted already.
    fn fit(
        &self,
        name: &str,
        component: &Arc<Component>,
        catalog: &Catalog,
        before: Option<&Version>,
    ) -> Result<Version, Vec<BindError>> {
        let mut version =
            Version { component: Arc::clone(component), transforms: BTreeMap::new(), views: BTreeMap::new() };
        let mut errors = Vec::new();
        for view in catalog.derived_views().iter().filter(|view| *view.plugin == *name) {
            let same = before.filter(|before| before.views.get(&view.name) == Some(view));
            let fitted = match same.and_then(|before| before.transforms.get(&view.name)) {
                Some(transform) => Ok(Arc::clone(transform)),
                None => Transform::bind(&self.runtime, component, view),
            };
            match fitted {
                Ok(transform) => {
                    version.transforms.insert(Arc::clone(&view.name), transform);
                    version.views.insert(Arc::clone(&view.name), Arc::clone(view));
                }
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(version) } else { Err(errors) }
    }

    /// One of the host's copies, if it is there and good.
    fn kept(&self, which: Copy, name: &str, catalog: &Catalog, loading: Loading) -> Option<Version> {
        let bytes = self.plugin_dir.copy(which, name, self.file_bytes_max).ok()??;
        let component = match loading {
            Loading::Cached => self.load_cached(&bytes).ok()??,
            Loading::Compiled => self.load(&bytes, Asked::ByDirectory).ok()?,
        };
        self.fit(name, &component, catalog, None).ok()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What is in there is whole at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Version ===

impl Version {
    fn describe(&self) -> PluginVersion {
        let signature = self.component.signature();
        PluginVersion {
            version: signature.version.clone(),
            digest: self.component.digest().to_string(),
            language: self.component.language().to_string(),
            bytes: self.component.bytes(),
            doc: signature.doc.clone(),
        }
    }

    fn report(&self, replaced: Option<&Self>, took: Duration) -> DeployReport {
        let signature = self.component.signature();
        DeployReport {
            plugin: signature.name.clone(),
            version: signature.version.clone(),
            digest: self.component.digest().to_string(),
            replaced: replaced.map(|version| version.component.signature().version.clone()),
            views: self.transforms.keys().map(ToString::to_string).collect(),
            compiled: self.component.was_compiled(),
            seconds: took.as_secs_f64(),
        }
    }

    fn view_statuses(&self) -> impl Iterator<Item = PluginViewStatus> {
        self.transforms.iter().map(|(view, transform)| PluginViewStatus {
            view: view.to_string(),
            breaker: transform.breaker().to_string(),
        })
    }
}

// === impl Refitted ===

impl Refitted {
    /// What computes the derived views of the catalog that it was fitted to.
    pub(super) fn transforms(&self, plugins: &Plugins, catalog: &Catalog) -> Transforms {
        transforms(&self.0, catalog, &plugins.runtime)
    }
}

fn transforms(entries: &BTreeMap<String, Entry>, catalog: &Catalog, runtime: &Arc<PluginRuntime>) -> Transforms {
    let of = |view: &Arc<DerivedView>| {
        let version = entries.get(&*view.plugin)?.live.as_ref()?;
        version.transforms.get(&view.name).cloned()
    };
    Transforms::new(catalog.derived_views().iter().map(of).collect(), Arc::clone(runtime))
}

fn lines(errors: &[BindError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
