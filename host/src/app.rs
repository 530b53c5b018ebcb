//! The composition root: builds all components from a configuration, owns the current versions, and replaces them.
//!
//! [`App`] is a server without listeners: the command line uses it to open a store that no server has open.
//! [`App::serve`] adds the listeners, the first sync, the schedules, reloads and the drain.

mod access;
mod changes;
mod control;
mod files;
#[cfg_attr(not(feature = "grpc"), path = "app/no_grpc.rs")]
mod grpc;
mod keeper;
mod loads;
mod plugins;
mod pressure;
mod schedule;
mod serve;
mod signals;
mod writer;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use larder_common::{
    clock::SharedClock,
    files::{SeenFiles, stamps},
    telemetry,
    watch::FileWatcher,
};
use larder_feature_log::FeatureLog;
use larder_http::{DeployReport, HttpConfig, RolloutStatus};
use larder_ingest::LAST_COMMIT_WITHIN;
use larder_model::yaml::Problem;
use larder_plugin_host::{Component, PluginError};
use larder_serving::{Awaited, CurrentSnapshot, LoggedServices, Snapshot};
use larder_source::aws::Aws;
use larder_store::{OnlineStore, StoreError};
use larder_sync::{SyncEngine, SyncScheduler};
use tokio::sync::Notify;

use self::{
    access::Access,
    plugins::{DeployError, FileOrigin, Loading, Plugins},
};
pub use self::{
    serve::{Serving, ShutdownReason},
    signals::Signals,
};
use crate::config::{
    Config, ConfigError, LoadedDefinitions, RegistryCache, RegistryNeed, RemoteRegistry, load_definitions_with,
    process_environment, watched_files,
};

/// The components of a server: configuration, store, definitions, sync engine and plugins.
#[derive(Debug)]
pub struct App {
    /// The configuration at startup. A reload reads the configuration again, but applies only the settings that a
    /// running server can change. [`Config::fixed_sections_that_differ`] lists the others, which need a restart.
    config: Config,
    /// The configuration with which the current definitions were loaded. The definition files that it names are
    /// watched.
    loaded_by: ArcSwap<Config>,
    clock: SharedClock,
    store: Arc<OnlineStore>,
    current: Arc<CurrentSnapshot>,
    engine: Arc<ArcSwap<SyncEngine>>,
    scheduler: Arc<SyncScheduler>,
    /// The feature log. It writes files only if [`App::serve`] was called.
    feature_log: FeatureLog,
    /// The AWS clients that sources and a registry in S3 use.
    aws: Arc<Aws>,
    /// The registry in S3 from which the current definitions were loaded, if any.
    registry: ArcSwapOption<RemoteRegistry>,
    /// The rules for cached definitions of a Feast repository, if one is configured.
    cache: ArcSwapOption<RegistryCache>,
    /// Watches definitions, configuration, keys, tokens and plugins for changes.
    watcher: FileWatcher,
    /// The stamps that the definition files had when they were last read, whether or not they were accepted.
    seen: SeenFiles,
    /// Held while definition files are checked and read. A thread that finds the files unchanged therefore sees the
    /// definitions that another thread read from them.
    renewing: Mutex<()>,
    /// Notified when all views must be synced: at startup, after a reload, and after rows were lost to damage.
    resync: Notify,
    /// The keys and tokens of the data listener. Set by [`App::serve`].
    access: OnceLock<Access>,
    /// The plugins. Set when the plugin directory is opened. Never set if the server runs no plugins.
    plugins: OnceLock<Plugins>,
    /// Notified when a rollout begins.
    rollouts_changed: Notify,
    /// Held while the current definitions or plugins are changed, because plugins are bound to definitions.
    changing: Mutex<()>,
}

/// The result of a reload. Its two parts succeed or fail independently: an error in a definition must not keep a stolen
/// token valid, and an invalid certificate must not block new definitions. A part that fails keeps its previous state.
#[derive(Debug)]
pub struct Reloaded {
    /// The warnings about the configuration and the definitions, or the error.
    pub definitions: Result<Vec<Problem>, AppError>,
    /// The warnings about the files of keys and tokens, or the error.
    pub access: Result<Vec<Problem>, AppError>,
}

/// Why a server cannot start, or why a reload failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// The configuration, the definitions, or files of keys and tokens are invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The plugins cannot run.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// The new definitions and a live plugin are incompatible.
    #[error("{0}")]
    Incompatible(String),
    /// A listener cannot be started.
    #[error("{key}: {source}")]
    Server {
        /// The setting of the listener.
        key: &'static str,
        /// The reason.
        source: larder_http::ServerError,
    },
    /// The gRPC listener cannot be started.
    #[error("grpc: listen: {0}")]
    Grpc(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Something else cannot be set up, such as metrics, signals or a thread.
    #[error("{0}")]
    Setup(String),
}

/// The maximum number of errors of a failed reload in the log and in a response.
const ERRORS_SHOWN_MAX: usize = 100;

// === impl AppError ===

impl AppError {
    /// Returns the text for the log and for responses: the first [`ERRORS_SHOWN_MAX`] errors and the number of further
    /// errors.
    fn brief(&self) -> String {
        let Self::Config(ConfigError::Invalid(problems)) = self else { return self.to_string() };
        let more = problems.len().saturating_sub(ERRORS_SHOWN_MAX);
        let mut lines: Vec<String> = problems.iter().take(ERRORS_SHOWN_MAX).map(ToString::to_string).collect();
        if more > 0 {
            lines.push(format!("and {more} more; 'larder check' lists all of them"));
        }
        lines.join("\n")
    }
}

// === impl App ===

impl App {
    /// Builds a server without its plugins. Also returns warnings about the definitions.
    ///
    /// # Errors
    /// [`AppError::Config`] and [`AppError::Store`].
    pub fn open(config: Config, clock: SharedClock) -> Result<(Arc<Self>, Vec<Problem>), AppError> {
        let mut before = stamps(watched_files(&config));
        before.extend(config.stamps_before.clone());
        let seen = SeenFiles::new(before);
        let definitions = load_definitions_with(&config, RegistryNeed::Later)?;
        let store = Arc::new(OnlineStore::open(&config.store, Arc::clone(&clock))?);
        let scheduler = SyncScheduler::new();
        let aws = Arc::clone(&config.aws);
        let loaded = Arc::clone(&store);
        let last_load = move |view| loaded.status(view)?.freshness.last_success;
        let feature_log = FeatureLog::new(Arc::clone(&aws), Box::new(last_load));
        let (snapshot, engine) = build(&config, &definitions, &store, &clock, &scheduler, &feature_log)?;
        let current = Arc::new(CurrentSnapshot::new(snapshot));
        let loaded_by = ArcSwap::from_pointee(config.clone());
        let engine = Arc::new(ArcSwap::from_pointee(engine));
        let (resync, access) = (Notify::new(), OnceLock::new());
        let registry = ArcSwapOption::from_pointee(definitions.registry.clone());
        let (cache, renewing) = (ArcSwapOption::from_pointee(definitions.cache), Mutex::new(()));
        let (plugins, changing) = (OnceLock::new(), Mutex::new(()));
        let app = Self {
            config,
            loaded_by,
            clock,
            store,
            current,
            engine,
            scheduler,
            feature_log,
            aws,
            registry,
            cache,
            watcher: FileWatcher::new(),
            seen,
            renewing,
            resync,
            access,
            plugins,
            rollouts_changed: Notify::new(),
            changing,
        };
        Ok((Arc::new(app), definitions.warnings))
    }

    /// Loads the plugins in the configured directory, and compiles plugins that have no cached code. If a plugin cannot
    /// be loaded, logs an error and loads the plugin's last live version instead. If there is no such version, the
    /// plugin's derived views use `on_error`. Blocks while plugins are compiled.
    ///
    /// # Errors
    /// [`AppError::Plugin`], if there are derived views and plugins cannot run at all.
    pub fn load_plugins(&self) -> Result<(), AppError> {
        self.load_cached_plugins()?;
        self.compile_plugins();
        Ok(())
    }

    /// Loads the plugins whose compiled code is in the cache. Does not compile.
    ///
    /// # Errors
    /// [`AppError::Plugin`], if there are derived views and plugins cannot run at all.
    fn load_cached_plugins(&self) -> Result<(), AppError> {
        let plugins = match Plugins::open(&self.config.plugins, Arc::clone(&self.clock)) {
            Ok(Some(plugins)) => plugins,
            Ok(None) => return Ok(()),
            // The engines need more address space than some containers have. A server without derived views does not
            // need the engines.
            Err(error) if self.current.load().catalog().derived_views().is_empty() => {
                tracing::warn!(%error, "cannot run plugins; continuing without them");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        // If the directory is already open, the plugins that are loaded stay.
        let plugins = self.plugins.get_or_init(|| plugins);
        self.check_plugin_dir(Loading::Cached);
        self.restore_plugins(plugins, Loading::Cached);
        Ok(())
    }

    /// Compiles the plugins that [`App::load_cached_plugins`] deferred, and makes them live. Blocks.
    fn compile_plugins(&self) {
        if let Some(plugins) = self.plugins.get() {
            self.check_plugin_dir(Loading::Compiled);
            self.restore_plugins(plugins, Loading::Compiled);
        }
    }

    /// Calls [`Plugins::restore`], and makes the live plugins visible to requests.
    fn restore_plugins(&self, plugins: &Plugins, loading: Loading) {
        // Compilation can take minutes, so the lock is taken after it.
        let current = self.current.load_full();
        plugins.restore(current.catalog(), loading);
        let _changing = self.changing();
        plugins.resume_rollouts(current.catalog(), loading);
        self.swap_plugins(plugins);
    }

    /// Returns the configuration at startup.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the current snapshot.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Returns the server's clock.
    #[must_use]
    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// Reloads everything that can change while the server runs.
    #[must_use]
    pub fn reload_all(&self) -> Reloaded {
        let _renewing = self.renewing();
        self.seen.note(self.definition_files());
        let (definitions, access) = match self.newer_config() {
            Ok(config) => {
                let access = self.renew_access(Some(&config));
                (self.apply_definitions(config), access)
            }
            Err(error) => (Err(error), self.renew_access(None)),
        };
        Reloaded { definitions: self.note_reload(definitions), access }
    }

    /// Reloads definitions and serving rules, and replaces both in one step. Requests in flight keep the previous ones.
    /// Then requests a sync of all views, because new views have no rows yet, and the source of a changed view must be
    /// read again.
    ///
    /// # Errors
    /// [`AppError::Config`], [`AppError::Incompatible`] and [`AppError::Store`]. The previous definitions keep serving.
    pub fn reload_definitions(&self) -> Result<Vec<Problem>, AppError> {
        let _renewing = self.renewing();
        self.read_definitions()
    }

    fn read_definitions(&self) -> Result<Vec<Problem>, AppError> {
        self.seen.note(self.definition_files());
        let reloaded = self.newer_config().and_then(|config| self.apply_definitions(config));
        self.note_reload(reloaded)
    }

    fn renewing(&self) -> MutexGuard<'_, ()> {
        self.renewing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the files and directories of the definitions, and the configuration file.
    fn definition_files(&self) -> Vec<PathBuf> {
        watched_files(&self.loaded_by.load())
    }

    /// Returns whether the registry in S3 changed since it was last read. Returns false if there is no registry in S3.
    fn remote_registry_changed(&self) -> bool {
        let Some(registry) = self.registry.load_full() else { return false };
        // If S3 is unavailable, this returns false, and the current definitions keep serving.
        registry.at.version(&self.aws).is_ok_and(|version| registry.version.as_ref() != Some(&version))
    }

    /// Records the result of a reload in the metrics, and requests a sync of all views if it succeeded.
    fn note_reload(&self, reloaded: Result<Vec<Problem>, AppError>) -> Result<Vec<Problem>, AppError> {
        telemetry::note_reload(reloaded.is_ok());
        if reloaded.is_ok() {
            self.resync.notify_one();
        }
        reloaded
    }

    /// Reloads the files of keys and tokens that `newer` names, or the current ones if `newer` is `None`.
    fn renew_access(&self, newer: Option<&Config>) -> Result<Vec<Problem>, AppError> {
        self.access.get().map_or(Ok(Vec::new()), |access| Ok(access.renew(newer)?))
    }

    /// Returns the files of keys and tokens. Returns no files before [`App::serve`] is called.
    fn access_files(&self) -> Vec<PathBuf> {
        self.access.get().map(Access::files).unwrap_or_default()
    }

    /// Returns whether the files of keys and tokens changed since they were last read.
    fn access_changed(&self) -> bool {
        self.access.get().is_some_and(Access::has_changed)
    }

    /// Reads the configuration again. Returns it with only the changes that a running server can apply, and logs a
    /// warning for each changed section that needs a restart.
    fn newer_config(&self) -> Result<Config, AppError> {
        let config = self.config.clone();
        // A configuration that was built in memory has no file to reload.
        if !config.origin.can_be_loaded() {
            return Ok(config);
        }
        let newer = Config::load_from(&config.origin, &process_environment)?;
        for section in config.fixed_sections_that_differ(&newer) {
            let path = config.origin.file.display();
            tracing::warn!(section, %path, "configuration section changed; it takes effect at the next start");
        }
        let http = HttpConfig { tls: newer.http.tls, auth: newer.http.auth, ..config.http };
        Ok(Config { store: config.store, aws: config.aws, http, ..newer })
    }

    /// Loads the definitions of a configuration. Replaces the current definitions, the snapshot, the engine, and the
    /// bindings of the plugins.
    fn apply_definitions(&self, config: Config) -> Result<Vec<Problem>, AppError> {
        let need = if self.current.load().awaited() == Awaited::Registry {
            RegistryNeed::Later
        } else {
            RegistryNeed::Written
        };
        let definitions = load_definitions_with(&config, need)?;
        let changing = self.changing();
        let catalog = &definitions.catalog;
        let rebind =
            |plugins: &Plugins| plugins.rebind(catalog).map_err(|error| AppError::Incompatible(error.to_string()));
        let rebound = self.plugins.get().map(rebind).transpose()?;
        let (mut snapshot, engine) =
            build(&config, &definitions, &self.store, &self.clock, &self.scheduler, &self.feature_log)?;
        if let (Some(plugins), Some(rebound)) = (self.plugins.get(), rebound) {
            snapshot = snapshot.with_transforms(rebound.transforms(plugins, catalog));
            plugins.accept(rebound);
        }
        self.current.replace(snapshot);
        self.engine.store(Arc::new(engine));
        self.apply_logging(&config);
        self.loaded_by.store(Arc::new(config));
        self.registry.store(definitions.registry.map(Arc::new));
        self.cache.store(definitions.cache.map(Arc::new));
        drop(changing);
        self.retire_views();
        Ok(definitions.warnings)
    }

    /// Applies the settings of the feature log. If its thread cannot be started, logs an error, and answers are dropped.
    fn apply_logging(&self, config: &Config) {
        if let Err(error) = self.feature_log.apply(&config.logging.log) {
            tracing::error!(%error, "cannot start the thread of the feature log; no features are logged");
        }
    }

    /// Checks the plugin directory, and deploys new and changed files. With [`Loading::Cached`], defers files that have
    /// to be compiled.
    fn check_plugin_dir(&self, loading: Loading) {
        let Some(plugins) = self.plugins.get() else { return };
        for (name, bytes) in plugins.changed_files(self.current.load().catalog()) {
            let deployed = match (loading, bytes) {
                (Loading::Cached, Ok(bytes)) => match plugins.load_cached(&bytes) {
                    Ok(Some(component)) => self.deploy_component(plugins, &component, &bytes, Some(&name), false),
                    Ok(None) => {
                        plugins.defer(&name);
                        continue;
                    }
                    Err(error) => Err(error),
                },
                (Loading::Compiled, Ok(bytes)) => {
                    plugins.mark_compiling(&name);
                    self.deploy_file(plugins, &bytes, Some(&name), false)
                }
                (_, Err(error)) => Err(error),
            };
            plugins.note(Some(&name), &deployed);
        }
        if loading == Loading::Compiled {
            plugins.clear_compiling();
        }
    }

    /// Loads a plugin's file, compiles it if necessary, and deploys it. `found_as` is the file's name in the plugin
    /// directory, or `None` for a file from a command. For `force`, see [`Plugins::check`].
    fn deploy_file(
        &self,
        plugins: &Plugins,
        bytes: &[u8],
        found_as: Option<&str>,
        force: bool,
    ) -> Result<DeployReport, DeployError> {
        let origin = if found_as.is_some() { FileOrigin::Directory } else { FileOrigin::Command };
        let component = plugins.load(bytes, origin)?;
        self.deploy_component(plugins, &component, bytes, found_as, force)
    }

    /// Deploys a loaded plugin. For `found_as`, see [`App::deploy_file`].
    fn deploy_component(
        &self,
        plugins: &Plugins,
        component: &Arc<Component>,
        bytes: &[u8],
        found_as: Option<&str>,
        force: bool,
    ) -> Result<DeployReport, DeployError> {
        // Compilation and checks can take minutes, so the lock is taken after them.
        let checked = plugins.check(component, found_as, self.current.load().catalog(), force)?;
        let _changing = self.changing();
        let report = plugins.deploy(&checked, bytes, found_as, force, self.current.load().catalog())?;
        self.swap_plugins(plugins);
        Ok(report)
    }

    /// Begins the rollout of a file from a command, in the shadow stage. For `ratio`, see [`Plugins::begin_rollout`].
    fn deploy_shadow_file(
        &self,
        plugins: &Plugins,
        bytes: &[u8],
        ratio: f64,
        force: bool,
    ) -> Result<RolloutStatus, DeployError> {
        let component = plugins.load(bytes, FileOrigin::Command)?;
        let checked = plugins.check(&component, None, self.current.load().catalog(), force)?;
        let _changing = self.changing();
        let status = plugins.begin_rollout(&checked, bytes, ratio, force, self.current.load().catalog())?;
        self.swap_plugins(plugins);
        self.rollouts_changed.notify_one();
        Ok(status)
    }

    /// Checks the gates of all rollouts, and makes the changes that they require. Returns whether a rollout is running.
    fn check_rollouts(&self) -> bool {
        let Some(plugins) = self.plugins.get() else { return false };
        for change in plugins.check_rollouts() {
            let _changing = self.changing();
            match plugins.apply(&change, self.current.load().catalog()) {
                Ok(restored) => {
                    self.swap_plugins(plugins);
                    // Files are written last, so that a rollback takes effect even if the disk is full or slow.
                    let listed = plugins.write_ended(&change.plugin);
                    let written = restored.map_or(Ok(()), |restored| plugins.write_restored(restored));
                    if let Err(error) = written.and(listed) {
                        tracing::error!(plugin = change.plugin, %error, "cannot write the files of a rollback");
                    }
                }
                Err(error) => plugins.record_blocked(&change.plugin, &error),
            }
        }
        plugins.has_rollouts()
    }

    /// Makes the live plugins visible to requests. Requests in flight keep the previous ones.
    fn swap_plugins(&self, plugins: &Plugins) {
        let current = self.current.load();
        self.current.replace(current.with_transforms(plugins.transforms(current.catalog())));
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        // Poisoning is ignored: a change replaces the current objects only after all work that can fail, so a panic
        // does not leave an incomplete change.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how much longer a shutdown waits for a running load to reach its next commit. Returns zero if the server
    /// is not stopping.
    #[must_use]
    pub fn last_commit_within(&self) -> Duration {
        let since = self.scheduler.stopping_since().map(|since| since.elapsed());
        since.map_or(Duration::ZERO, |since| LAST_COMMIT_WITHIN.saturating_sub(since))
    }

    /// Returns the maximum time until a changed file is reloaded. It is also the poll interval for files that file
    /// system events do not cover. Zero turns automatic reloads off.
    fn reload_every(&self) -> Duration {
        self.config.sync.reload_every
    }

    /// Returns the interval at which definitions are checked for changes: `own`, or the cache TTL of the Feast
    /// repository if that is shorter.
    fn definitions_every(&self, own: Duration) -> Duration {
        let ttl = self.cache.load().as_ref().and_then(|cache| cache.ttl);
        ttl.map_or(own, |ttl| ttl.min(own))
    }
}

/// Creates the snapshot for definitions, and the engine that syncs their views.
fn build(
    config: &Config,
    definitions: &LoadedDefinitions,
    store: &Arc<OnlineStore>,
    clock: &SharedClock,
    scheduler: &Arc<SyncScheduler>,
    feature_log: &FeatureLog,
) -> Result<(Snapshot, SyncEngine), StoreError> {
    let limits = config.http.limits.request;
    let catalog = Arc::new(definitions.catalog.clone());
    let snapshot = Snapshot::new(Arc::clone(&catalog), Arc::clone(store), Arc::clone(clock), config.ttl, limits)?;
    let has_views = !catalog.views().is_empty() || !catalog.derived_views().is_empty();
    let snapshot = snapshot.awaiting(match (definitions.is_unwritten, config.feast.is_some() && !has_views) {
        (true, _) => Awaited::Registry,
        (false, true) => Awaited::Views,
        (false, false) => Awaited::Nothing,
    });
    let setting = config.sync_setting(Arc::clone(clock));
    let engine = SyncEngine::new(Arc::clone(store), &catalog, snapshot.view_ids(), setting, Arc::clone(scheduler));
    let snapshot = snapshot.with_fetchers(engine.fetchers()).with_sources(engine.sources());
    let logged = LoggedServices::new(&catalog, config.logging.rates());
    Ok((snapshot.with_logged(logged, Arc::clone(feature_log.queue())), engine))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use larder_common::clock::SystemClock;
    use larder_serving::RenewDefinitions as _;

    use super::*;

    #[test]
    fn configuration_changed_while_server_starts_is_reloaded() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("larder.yaml");
        let text = "project: p\nfeatures: [features.yaml]\nstore: {data_dir: data}\n";
        fs::write(&file, text).unwrap();
        fs::write(dir.path().join("features.yaml"), "entities: [{name: user, join_key: user_id, type: String}]\n")
            .unwrap();
        let config = Config::load(&file, &|_| None).unwrap();
        fs::write(&file, format!("{text}serving: {{ttl: ignore}}\n")).unwrap();
        let (app, _) = App::open(config, Arc::new(SystemClock)).unwrap();
        assert!(app.seen.differ(app.definition_files()));
        assert!(app.renew(false));
        assert!(!app.seen.differ(app.definition_files()) && !app.renew(false));
    }
}
