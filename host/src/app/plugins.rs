//! Tracks the live plugins, and deploys other versions of them.
//!
//! A version is deployed as a whole: its file is checked and compiled, and bound to every derived view that names it,
//! which includes a test call. Only then do requests see it, with all its views at once. If any step fails, the
//! previous version stays live. The previous version also stays compiled and configured, so a rollback is a swap.

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
    BindError, Component, Digest, KilledCompilations, LoadError, PluginDir, PluginDirError, PluginError, PluginRuntime,
    StoredVersion, Transform,
};
use larder_serving::Transforms;
use metrics::{counter, describe_counter};

use crate::config::PluginConfig;

/// The plugins of a server.
#[derive(Debug)]
pub(super) struct Plugins {
    runtime: Arc<PluginRuntime>,
    plugin_dir: PluginDir,
    /// Files that are not compiled again automatically.
    killed: KilledCompilations,
    /// The limit on the size of a plugin's file, in bytes.
    file_bytes_max: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<String, Entry>,
    /// The stamps of the files in the directory at the last check.
    seen: HashMap<String, FileStamp>,
}

/// One plugin.
#[derive(Clone, Debug, Default)]
struct Entry {
    live: Option<Version>,
    previous: Option<Version>,
    /// Why the file in the directory is not live, if it was rejected.
    refused: Option<String>,
    /// Whether the file in the directory is being compiled or is queued for compilation.
    compiling: bool,
}

/// Which files to load.
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

/// A version, bound to the derived views that name it.
#[derive(Clone, Debug)]
struct Version {
    component: Arc<Component>,
    transforms: BTreeMap<Arc<str>, Arc<Transform>>,
    /// The views at the time when the version was bound to them.
    views: BTreeMap<Arc<str>, Arc<DerivedView>>,
}

/// The plugins, bound to another catalog. They become live with that catalog.
#[derive(Debug)]
pub(super) struct Refitted(BTreeMap<String, Entry>);

/// Why a version is not deployed.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeployError {
    /// The file is not a valid plugin.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An earlier compilation of it was killed.
    #[error(
        "an earlier compilation of this file was stopped because it {0}; it is not retried until the file changes. hint: \
         raise 'plugins: compile_time_max' or 'compile_memory_max', or run `larder plugin deploy`"
    )]
    KilledBefore(String),
    /// The plugin is incompatible with the derived views that name it.
    #[error("{}", lines(.0))]
    Bind(Vec<BindError>),
    /// The file's name is not the plugin's name.
    #[error("the file is named '{file}', but contains plugin '{plugin}'. hint: rename the file to {plugin}.wasm")]
    Name { file: String, plugin: String },
    /// The file was replaced after it was read, by a rollback or by a user.
    #[error("the file of plugin '{0}' was replaced while it was checked; it is checked again")]
    Replaced(String),
    /// A file cannot be read or written.
    #[error(transparent)]
    PluginDir(#[from] PluginDirError),
    /// The plugin does not exist.
    #[error("there is no plugin '{0}'")]
    Unknown(String),
    /// The plugin has no previous version.
    #[error("plugin '{0}' has no previous version")]
    NothingBefore(String),
}

// === impl Plugins ===

impl Plugins {
    /// Creates the plugins of a server without loading any. Returns `None` if the configuration turns them off.
    pub(super) fn open(config: &PluginConfig) -> Result<Option<Self>, PluginError> {
        describe_counter!("larder_plugin_deploys_total", "Deployments of plugins, by result.");
        let Some(dir) = &config.dir else { return Ok(None) };
        let plugin_dir = PluginDir::open(dir, &config.own_dir)?;
        let killed = KilledCompilations::open(&config.own_dir.join("killed"))?;
        let runtime = PluginRuntime::new(config.settings.clone())?;
        let file_bytes_max = config.settings.component_bytes_max();
        Ok(Some(Self { runtime, plugin_dir, killed, file_bytes_max, state: Mutex::default() }))
    }

    /// Returns the limit on the size of a plugin's file, in bytes.
    pub(super) fn file_bytes_max(&self) -> u64 {
        self.file_bytes_max
    }

    /// Loads the last live versions for which the directory has no usable file, and the versions for rollback. With
    /// `Loading::Cached`, loads only versions with cached code.
    pub(super) fn recall(&self, catalog: &Catalog, loading: Loading) {
        let wanted: Vec<(String, StoredVersion)> = {
            let state = self.state();
            let missing = |(name, entry): (&String, &Entry)| {
                let live = entry.live.is_none().then(|| (name.clone(), StoredVersion::Live));
                let previous = entry.previous.is_none().then(|| (name.clone(), StoredVersion::Previous));
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
                StoredVersion::Live => &mut entry.live,
                StoredVersion::Previous => &mut entry.previous,
            };
            if slot.is_some() {
                continue;
            }
            if which == StoredVersion::Live {
                let version = &version.component.signature().version;
                tracing::warn!(plugin = name, version, "keeping the last live version");
            }
            *slot = Some(version);
        }
    }

    /// Returns the live plugins of a catalog's derived views.
    pub(super) fn transforms(&self, catalog: &Catalog) -> Transforms {
        transforms(&self.state().entries, catalog, &self.runtime)
    }

    /// Checks a file and compiles it, unless its code is in the cache. A file whose compilation was killed is compiled
    /// again only on command.
    pub(super) fn load(&self, bytes: &[u8], reason: Asked) -> Result<Arc<Component>, DeployError> {
        if let Some(component) = self.runtime.load_cached(bytes)? {
            return Ok(component);
        }
        let (digest, limits) = (Digest::of(bytes), self.runtime.settings().compile);
        if reason == Asked::ByDirectory
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

    /// Returns the component of a file whose code is in the cache.
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

    /// Returns the plugin directory and its files, which may be links to other directories.
    pub(super) fn watched_paths(&self) -> Vec<PathBuf> {
        let dir = self.plugin_dir.dir();
        // An error is logged when the directory is checked.
        let files = self.plugin_dir.files().unwrap_or_default();
        let files = files.iter().map(|(name, _)| PluginDir::file_in(dir, name));
        iter::once(dir.to_path_buf()).chain(files).collect()
    }

    /// Returns the files in the directory that are new since the last call and not live: first those that a derived
    /// view names, then the small ones, because compilations may queue.
    pub(super) fn arrivals(&self, catalog: &Catalog) -> Vec<(String, Result<Vec<u8>, DeployError>)> {
        let files = self.plugin_dir.files().unwrap_or_else(|error| {
            tracing::error!(%error, "cannot read the plugin directory");
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
            // The file is the live version: a deployment or a rollback wrote it, or a user restored it over an invalid
            // one.
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

    /// Clears the marks of all files in the directory, because files that were queued may be deleted.
    pub(super) fn mark_compiled(&self) {
        self.state().entries.values_mut().for_each(|entry| entry.compiling = false);
    }

    /// Makes a loaded file live. A file from a command is then written to the directory. A file from the directory must
    /// still be there, with the plugin's name.
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
        // A rollback meanwhile may have replaced the file, and must not be undone.
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
            // The same file again does not become the version for a rollback.
            entry.previous = replaced;
        }
        entry.refused = None;
        drop(state);
        // At startup nothing is live yet, and the file is usually the last live version.
        let kept = self.plugin_dir.stored(StoredVersion::Live, &name, self.file_bytes_max)?;
        if kept.is_none_or(|kept| Digest::of(&kept) != *component.digest()) {
            self.plugin_dir.keep(&name, bytes)?;
        }
        Ok(report)
    }

    /// Records the result of a deployment.
    pub(super) fn note(&self, found_as: Option<&str>, taken: &Result<DeployReport, DeployError>) {
        if let Some(name) = found_as {
            self.state().entries.entry(name.to_owned()).and_modify(|entry| entry.compiling = false);
        }
        let (result, plugin) = match taken {
            Ok(report) => {
                let DeployReport { plugin, version, digest, replaced, seconds, .. } = report;
                tracing::info!(plugin, version, digest, replaced, seconds, "plugin deployed");
                ("taken", plugin.as_str())
            }
            Err(error @ (DeployError::Replaced(_) | DeployError::Load(LoadError::Stopped))) => {
                return tracing::info!("{error}");
            }
            Err(error) => {
                let plugin = found_as.unwrap_or("sent");
                tracing::error!(plugin, "plugin rejected; any previous version keeps serving: {error}");
                ("refused", plugin)
            }
        };
        counter!("larder_plugin_deploys_total", "result" => result).increment(1);
        if let (Err(error), Some(_)) = (taken, found_as) {
            self.state().entries.entry(plugin.to_owned()).or_default().refused = Some(error.to_string());
        }
    }

    /// Rolls back to the previous version, in memory and in the directory.
    pub(super) fn roll_back(&self, name: &str) -> Result<DeployReport, DeployError> {
        let _span = tracing::debug_span!("roll_back", plugin = name).entered();
        let started = Instant::now();
        let mut state = self.state();
        let entry = state.entries.get_mut(name).ok_or_else(|| DeployError::Unknown(name.to_owned()))?;
        let Some(back) = entry.previous.take() else { return Err(DeployError::NothingBefore(name.to_owned())) };
        let replaced = entry.live.replace(back.clone());
        // The previous version was kept with its instances, so nothing is compiled.
        let report = DeployReport { compiled: false, ..back.report(replaced.as_ref(), started.elapsed()) };
        entry.previous = replaced;
        entry.refused = None;
        drop(state);
        tracing::warn!(plugin = name, version = report.version, "rolled back");
        // Files are written last: a full disk must not keep a bad version live.
        let bytes = self.plugin_dir.stored(StoredVersion::Previous, name, self.file_bytes_max)?.unwrap_or_default();
        self.plugin_dir.keep(name, &bytes)?;
        self.plugin_dir.place(name, &bytes)?;
        Ok(report)
    }

    /// Binds the live plugins to another catalog.
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
            // If the previous version is incompatible with the catalog, a rollback to it is not possible any more.
            entry.previous = entry
                .previous
                .take()
                .and_then(|version| self.fit(name, &version.component, catalog, Some(&version)).ok());
        }
        if errors.is_empty() { Ok(Refitted(entries)) } else { Err(DeployError::Bind(errors)) }
    }

    /// Makes the plugins live that were bound to another catalog.
    pub(super) fn accept(&self, refitted: Refitted) {
        self.state().entries = refitted.0;
    }

    /// Returns the state of all plugins.
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

    /// Binds a component to all derived views that name it. Views that did not change keep their bound component.
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

    /// Returns one of the server's copies of a plugin, if it exists and is valid.
    fn kept(&self, which: StoredVersion, name: &str, catalog: &Catalog, loading: Loading) -> Option<Version> {
        let bytes = self.plugin_dir.stored(which, name, self.file_bytes_max).ok()??;
        let component = match loading {
            Loading::Cached => self.load_cached(&bytes).ok()??,
            Loading::Compiled => self.load(&bytes, Asked::ByDirectory).ok()?,
        };
        self.fit(name, &component, catalog, None).ok()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is consistent after every step, so a poisoned lock is safe to use.
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
    /// Returns the plugins of the derived views of the catalog to which they were bound.
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
