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
    /// Files whose compilation was killed. They are not compiled again automatically.
    killed: KilledCompilations,
    /// The limit on the size of a plugin's file, in bytes.
    file_bytes_max: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<String, Entry>,
    /// The stamps of the files in the directory when they were last read.
    seen: HashMap<String, FileStamp>,
}

/// One plugin.
#[derive(Clone, Debug, Default)]
struct Entry {
    live: Option<Version>,
    /// The version that a rollback restores. It may be incompatible with the current definitions: a rollback checks it.
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

/// Where a file comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileOrigin {
    /// From the plugin directory, or from the server's copies.
    Directory,
    /// From a command, whose caller waits for the result.
    Command,
}

/// A version, bound to the derived views that name it.
#[derive(Clone, Debug)]
struct Version {
    component: Arc<Component>,
    transforms: BTreeMap<Arc<str>, Arc<Transform>>,
    /// The definitions of the views when the version was bound to them.
    views: BTreeMap<Arc<str>, Arc<DerivedView>>,
}

/// The plugins, bound to another catalog. They become live together with it.
#[derive(Debug)]
pub(super) struct Rebound(BTreeMap<String, Entry>);

/// Why a version is not deployed.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeployError {
    /// The file cannot be loaded as a plugin.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An earlier compilation of the file was killed.
    #[error(
        "an earlier compilation of this file was killed because it {0}; the file is not compiled again automatically. \
         hint: raise 'plugins: compile_time_max' or 'compile_memory_max', or run `larder plugin deploy`"
    )]
    KilledBefore(String),
    /// The plugin is incompatible with the derived views that name it.
    #[error("{}", lines(.0))]
    Bind(Vec<BindError>),
    /// The file's name is not the plugin's name.
    #[error("the file is named '{file}', but contains plugin '{plugin}'. hint: rename the file to {plugin}.wasm")]
    NameMismatch { file: String, plugin: String },
    /// The file was replaced or removed after it was read, by a rollback or by a user.
    #[error("the file of plugin '{0}' was replaced while it was checked; it is checked again")]
    Replaced(String),
    /// A file cannot be read or written.
    #[error(transparent)]
    PluginDir(#[from] PluginDirError),
    /// The plugin does not exist.
    #[error("plugin '{0}' does not exist")]
    Unknown(String),
    /// The plugin has no previous version.
    #[error("plugin '{0}' has no previous version")]
    NoPrevious(String),
}

// === impl Plugins ===

impl Plugins {
    /// Opens the plugin directory and starts the runtime, without loading a plugin. Returns `None` if the configuration
    /// turns plugins off.
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

    /// Loads the server's copies of known plugins: the last live version if no version is live, for example because the
    /// file in the directory was rejected, and the previous version for a rollback. With [`Loading::Cached`], loads
    /// only versions with cached code.
    pub(super) fn restore(&self, catalog: &Catalog, loading: Loading) {
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
            // Loading takes long, so the lock is not held.
            let Some(version) = self.load_stored(which, &name, catalog, loading) else { continue };
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

    /// Returns the live plugins, bound to the derived views of a catalog.
    pub(super) fn transforms(&self, catalog: &Catalog) -> Transforms {
        transforms(&self.state().entries, catalog, &self.runtime)
    }

    /// Checks a file and compiles it, unless its code is in the cache. If an earlier compilation was killed, compiles
    /// it again only for a command, or with a higher limit or another version of Larder.
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
            Ok(_) => self.killed.forget(&digest),
            Err(LoadError::Killed(kill)) => self.killed.note(&digest, limits, *kill),
            Err(_) => {}
        }
        Ok(loaded?)
    }

    /// Returns the component of a file, or `None` if its code is not in the cache.
    pub(super) fn load_cached(&self, bytes: &[u8]) -> Result<Option<Arc<Component>>, DeployError> {
        Ok(self.runtime.load_cached(bytes)?)
    }

    /// Defers a file that has to be compiled: the next poll of the directory finds it again.
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
        // An error is ignored here, because `changed_files` logs it.
        let files = self.plugin_dir.files().unwrap_or_default();
        let files = files.iter().map(|(name, _)| PluginDir::file_in(dir, name));
        iter::once(dir.to_path_buf()).chain(files).collect()
    }

    /// Returns the files in the directory that are new or changed since the last call and not live. Files that a
    /// derived view names come first, then smaller ones, because compilations may queue.
    pub(super) fn changed_files(&self, catalog: &Catalog) -> Vec<(String, Result<Vec<u8>, DeployError>)> {
        let files = self.plugin_dir.files().unwrap_or_else(|error| {
            tracing::error!(%error, "cannot read the plugin directory");
            Vec::new()
        });
        let mut state = self.state();
        let State { entries, seen } = &mut *state;
        let mut changed = Vec::new();
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
            changed.push((name, bytes));
        }
        let is_named = |name: &str| catalog.derived_views().iter().any(|view| *view.plugin == *name);
        changed.sort_by_key(|(name, bytes)| (!is_named(name), bytes.as_ref().map_or(0, Vec::len)));
        changed
    }

    /// Marks a file of the directory as being compiled, until [`Plugins::note`] is called with its result.
    pub(super) fn mark_compiling(&self, name: &str) {
        self.state().entries.entry(name.to_owned()).or_default().compiling = true;
    }

    /// Clears all marks of [`Plugins::mark_compiling`], because queued files may have been deleted.
    pub(super) fn clear_compiling(&self) {
        self.state().entries.values_mut().for_each(|entry| entry.compiling = false);
    }

    /// Makes a loaded file live, and stores the server's copy of it. A file from a command is first written to the
    /// directory. A file from the directory (`found_as` is its name there) must still be there and have the plugin's
    /// name.
    pub(super) fn deploy(
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
            return Err(DeployError::NameMismatch { file: file.to_owned(), plugin: name });
        }
        // A rollback that replaced the file meanwhile must not be undone.
        let is_there = || self.plugin_dir.read(&name, self.file_bytes_max).is_ok_and(|there| there == bytes);
        if found_as.is_some() && !is_there() {
            return Err(DeployError::Replaced(name));
        }
        let version = self.bind(&name, component, catalog, None).map_err(DeployError::Bind)?;
        if found_as.is_none() {
            self.plugin_dir.place(&name, bytes)?;
        }
        let mut state = self.state();
        let entry = state.entries.entry(name.clone()).or_default();
        let again = entry.live.as_ref().is_some_and(|live| live.component.digest() == component.digest());
        let report = version.report(entry.live.as_ref(), component.load_time() + started.elapsed());
        let replaced = entry.live.replace(version);
        if !again {
            // If the same file is deployed again, a rollback still restores the version before it.
            entry.previous = replaced;
        }
        entry.refused = None;
        drop(state);
        // At startup, the file is usually the last live version, which is stored already.
        let kept = self.plugin_dir.stored(StoredVersion::Live, &name, self.file_bytes_max)?;
        if kept.is_none_or(|kept| Digest::of(&kept) != *component.digest()) {
            self.plugin_dir.keep(&name, bytes)?;
        }
        Ok(report)
    }

    /// Records the result of a deployment: in the state of the plugin, the log and the metrics.
    pub(super) fn note(&self, found_as: Option<&str>, result: &Result<DeployReport, DeployError>) {
        if let Some(name) = found_as {
            self.state().entries.entry(name.to_owned()).and_modify(|entry| entry.compiling = false);
        }
        let (label, plugin) = match result {
            Ok(report) => {
                let DeployReport { plugin, version, digest, replaced, seconds, .. } = report;
                tracing::info!(plugin, version, digest, replaced, seconds, "plugin deployed");
                ("taken", plugin.as_str())
            }
            Err(error @ (DeployError::Replaced(_) | DeployError::Load(LoadError::Stopped))) => {
                return tracing::info!(%error, "plugin not deployed");
            }
            Err(error) => {
                let plugin = found_as.unwrap_or("uploaded");
                tracing::error!(plugin, %error, "plugin rejected; any previous version keeps serving");
                ("refused", plugin)
            }
        };
        counter!("larder_plugin_deploys_total", "result" => label).increment(1);
        if let (Err(error), Some(_)) = (result, found_as) {
            self.state().entries.entry(plugin.to_owned()).or_default().refused = Some(error.to_string());
        }
    }

    /// Rolls back to the previous version, in memory and then in the directory. Fails if the version is incompatible
    /// with `catalog`. If writing a file fails, returns an error, but the version is live.
    pub(super) fn roll_back(&self, name: &str, catalog: &Catalog) -> Result<DeployReport, DeployError> {
        let _span = tracing::debug_span!("roll_back", plugin = name).entered();
        let started = Instant::now();
        let mut state = self.state();
        let entry = state.entries.get_mut(name).ok_or_else(|| DeployError::Unknown(name.to_owned()))?;
        let Some(previous) = &entry.previous else { return Err(DeployError::NoPrevious(name.to_owned())) };
        // A compatible version is bound to all views already, so this calls no plugin code.
        let back = self.bind(name, &previous.component, catalog, Some(previous)).map_err(DeployError::Bind)?;
        let replaced = entry.live.replace(back.clone());
        // The previous version is still loaded, so nothing is compiled.
        let report = DeployReport { compiled: false, ..back.report(replaced.as_ref(), started.elapsed()) };
        entry.previous = replaced;
        entry.refused = None;
        drop(state);
        tracing::warn!(plugin = name, version = report.version, "plugin rolled back");
        // Files are written last, so that a full disk does not keep a bad version live.
        let bytes = self.plugin_dir.stored(StoredVersion::Previous, name, self.file_bytes_max)?.unwrap_or_default();
        self.plugin_dir.keep(name, &bytes)?;
        self.plugin_dir.place(name, &bytes)?;
        Ok(report)
    }

    /// Binds the live versions to another catalog, and the previous ones that are compatible with it. The other
    /// previous versions stay as they are. Fails if a live version is incompatible.
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

    /// Replaces the plugins by those that were bound to another catalog.
    pub(super) fn accept(&self, rebound: Rebound) {
        self.state().entries = rebound.0;
    }

    /// Returns the state of all plugins, sorted by name.
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

    /// Binds a component to all derived views that name it. Reuses the bindings in `before` of views that did not
    /// change.
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

    /// Loads one of the server's copies of a plugin and binds it. Returns `None` if it does not exist or cannot be
    /// used. An incompatible previous version is kept without bindings, because the definitions may change again.
    fn load_stored(&self, which: StoredVersion, name: &str, catalog: &Catalog, loading: Loading) -> Option<Version> {
        let bytes = self.plugin_dir.stored(which, name, self.file_bytes_max).ok()??;
        let component = match loading {
            Loading::Cached => self.load_cached(&bytes).ok()??,
            Loading::Compiled => self.load(&bytes, FileOrigin::Directory).ok()?,
        };
        let unbound = || Version::unbound(Arc::clone(&component));
        self.bind(name, &component, catalog, None).ok().or_else(|| (which == StoredVersion::Previous).then(unbound))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is consistent after every step, so the state under a poisoned lock is valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Version ===

impl Version {
    /// Returns a version that is not bound to any view yet.
    fn unbound(component: Arc<Component>) -> Self {
        Self { component, transforms: BTreeMap::new(), views: BTreeMap::new() }
    }

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

// === impl Rebound ===

impl Rebound {
    /// Returns the live plugins for the derived views of `catalog`, to which they were bound.
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
