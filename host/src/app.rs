//! The composition root: builds all components from a configuration, owns the current versions, and replaces them.
//!
//! [`App`] is a server without listeners: the command line uses it to open a store that no server has open.
//! [`App::serve`] adds the listeners, the first sync, the schedules, reloads and the drain.

mod access;
mod files;
#[cfg_attr(not(feature = "grpc"), path = "app/no_grpc.rs")]
mod grpc;
mod keeper;
mod loads;
mod plugins;
mod pressure;
mod serve;
mod writer;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use larder_common::{
    clock::SharedClock,
    files::{SeenFiles, stamps},
    telemetry,
    watch::FileWatcher,
};
use larder_http::{
    AdminEvent, Control, DeleteCommand, DeployReport, EraseReport, HttpConfig, PluginStatus, ResetCommand, SyncCommand,
};
use larder_ingest::LAST_COMMIT_WITHIN;
use larder_model::yaml::Problem;
use larder_plugin_host::{Component, PluginError};
use larder_serving::{RenewDefinitions, ServingLimits, Snapshot};
use larder_source::aws::Aws;
use larder_store::{OnlineStore, StoreError};
use larder_sync::{SyncEngine, SyncScheduler, SyncSetting};
use tokio::sync::Notify;

pub use self::serve::{Serving, ShutdownReason, Signals};
use self::{
    access::Access,
    plugins::{Asked, DeployError, Loading, Plugins},
};
use crate::config::{
    Config, ConfigError, LoadedDefinitions, RegistryCache, RegistryNeed, RemoteRegistry, load_definitions_with,
    process_environment, watched_files,
};

/// The components of a server: configuration, store, catalog and sync engine.
#[derive(Debug)]
pub struct App {
    /// The configuration at startup. A reload uses definitions, serving rules, and the files of keys and tokens of a
    /// newer one; changes of addresses and directories need a restart.
    config: Config,
    /// The configuration of the last load of the definitions. Its files are watched.
    loaded_by: ArcSwap<Config>,
    clock: SharedClock,
    store: Arc<OnlineStore>,
    current: Arc<ArcSwap<Snapshot>>,
    engine: Arc<ArcSwap<SyncEngine>>,
    scheduler: Arc<SyncScheduler>,
    /// The AWS clients of sources.
    aws: Arc<Aws>,
    /// The registry in S3 from which the definitions were last loaded, if there is one.
    registry: ArcSwapOption<RemoteRegistry>,
    /// Whether Feast has not written the registry yet.
    is_unwritten: AtomicBool,
    /// The maximum age of a Feast repository's definitions.
    cache: ArcSwapOption<RegistryCache>,
    /// Watches definitions, configuration, keys, tokens and plugins for changes.
    watcher: FileWatcher,
    /// The stamps of the definition files when they were last read, whether they were accepted or not.
    seen: SeenFiles,
    /// One thread at a time checks and reads definitions: a thread that finds them unchanged must see the ones that
    /// were read.
    renewing: Mutex<()>,
    /// Notified when all views must be synced: after a reload, which may have added views.
    resync: Notify,
    /// The keys and tokens of the data listener. Not set before the listener is bound.
    access: OnceLock<Access>,
    /// The plugins. Not set before they are loaded, or if the server runs no plugins.
    plugins: OnceLock<Plugins>,
    /// Whether each plugin that was present at startup is live or rejected.
    plugins_loaded: AtomicBool,
    /// Serializes changes of the current definitions and plugins: each is bound to the other.
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

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// The configuration or the definitions are wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The plugins cannot run.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// The definitions and the live plugins are incompatible.
    #[error("{0}")]
    Unfit(String),
    /// A listener cannot be bound.
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
    /// Metrics or signals cannot be set up.
    #[error("{0}")]
    Setup(String),
}

/// The maximum number of errors of a reload in the log and in the response to a caller.
const ERRORS_SHOWN_MAX: usize = 100;

// === impl AppError ===

impl AppError {
    /// Returns the error text for the log and for callers: the first [`ERRORS_SHOWN_MAX`] errors and the number of the
    /// others.
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
    /// Builds a server without its plugins. Returns warnings about the definitions.
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
        let (snapshot, engine) = build(&config, &definitions, &store, &clock, &scheduler)?;
        let current = Arc::new(ArcSwap::from_pointee(snapshot));
        let loaded_by = ArcSwap::from_pointee(config.clone());
        let engine = Arc::new(ArcSwap::from_pointee(engine));
        let (resync, access) = (Notify::new(), OnceLock::new());
        let registry = ArcSwapOption::from_pointee(definitions.registry.clone());
        let is_unwritten = AtomicBool::new(definitions.is_unwritten);
        let (cache, renewing) = (ArcSwapOption::from_pointee(definitions.cache), Mutex::new(()));
        let (plugins, plugins_loaded, changing) = (OnceLock::new(), AtomicBool::new(false), Mutex::new(()));
        let app = Self {
            config,
            loaded_by,
            clock,
            store,
            current,
            engine,
            scheduler,
            aws,
            registry,
            is_unwritten,
            cache,
            watcher: FileWatcher::new(),
            seen,
            renewing,
            resync,
            access,
            plugins,
            plugins_loaded,
            changing,
        };
        Ok((Arc::new(app), definitions.warnings))
    }

    /// Loads the plugins in the configured directory, and compiles those that have no cached code. Logs plugins that
    /// cannot be loaded; their derived views use `on_error`. Blocks while plugins are compiled.
    ///
    /// # Errors
    /// [`AppError::Plugin`], if there are derived views and plugins cannot run at all.
    pub fn load_plugins(&self) -> Result<(), AppError> {
        self.load_cached_plugins()?;
        self.compile_plugins();
        Ok(())
    }

    /// Loads the plugins whose compiled code is in the cache. This part of loading does not need the compiler.
    ///
    /// # Errors
    /// [`AppError::Plugin`], if there are derived views and plugins cannot run at all.
    fn load_cached_plugins(&self) -> Result<(), AppError> {
        let plugins = match Plugins::open(&self.config.plugins) {
            Ok(Some(plugins)) => plugins,
            Ok(None) => return Ok(()),
            // The engines need address space, which not every container has. A server without derived views does not
            // need them.
            Err(error) if self.current.load().catalog().derived_views().is_empty() => {
                tracing::warn!(%error, "cannot run plugins; continuing without them");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        // The plugins are loaded only once.
        let plugins = self.plugins.get_or_init(|| plugins);
        self.check_plugin_dir(Loading::Cached);
        self.recall_plugins(plugins, Loading::Cached);
        Ok(())
    }

    /// Compiles the plugins that [`App::load_cached_plugins`] skipped, and makes them live. Blocks.
    fn compile_plugins(&self) {
        if let Some(plugins) = self.plugins.get() {
            self.check_plugin_dir(Loading::Compiled);
            self.recall_plugins(plugins, Loading::Compiled);
        }
        self.plugins_loaded.store(true, Ordering::Release);
    }

    /// Returns whether each plugin that was present at startup is live or rejected. Until then, a derived view may use
    /// its `on_error` because its plugin is being compiled.
    #[must_use]
    pub fn plugins_are_loaded(&self) -> bool {
        self.plugins_loaded.load(Ordering::Acquire)
    }

    fn recall_plugins(&self, plugins: &Plugins, loading: Loading) {
        // Compiles before taking the lock, because it can take minutes. The snapshot may be replaced in the meantime.
        plugins.recall(self.current.load().catalog(), loading);
        let _changing = self.changing();
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
                (self.take_definitions(config), access)
            }
            Err(error) => (Err(error), self.renew_access(None)),
        };
        Reloaded { definitions: self.note_reload(definitions), access }
    }

    /// Reloads definitions and serving rules, and replaces them as a whole. Requests in flight keep the previous ones.
    /// Then all views are synced, because new views have no rows yet, and the source of a changed view must be read
    /// again.
    ///
    /// # Errors
    /// The problems. The previous definitions keep serving.
    pub fn reload_definitions(&self) -> Result<Vec<Problem>, AppError> {
        let _renewing = self.renewing();
        self.read_definitions()
    }

    fn read_definitions(&self) -> Result<Vec<Problem>, AppError> {
        self.seen.note(self.definition_files());
        let reloaded = self.newer_config().and_then(|config| self.take_definitions(config));
        self.note_reload(reloaded)
    }

    fn renewing(&self) -> MutexGuard<'_, ()> {
        self.renewing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the files and directories of the definitions, and the configuration.
    fn definition_files(&self) -> Vec<PathBuf> {
        watched_files(&self.loaded_by.load())
    }

    /// Returns whether the registry in S3, if there is one, changed since it was last read.
    fn remote_registry_changed(&self) -> bool {
        let Some(registry) = self.registry.load_full() else { return false };
        // While S3 is unavailable, the definitions that were read last keep serving.
        registry.at.version(&self.aws).is_ok_and(|version| registry.version.as_ref() != Some(&version))
    }

    /// Counts the result of a reload. After a successful one, all views are synced.
    fn note_reload(&self, reloaded: Result<Vec<Problem>, AppError>) -> Result<Vec<Problem>, AppError> {
        telemetry::note_reload(reloaded.is_ok());
        if reloaded.is_ok() {
            self.resync.notify_one();
        }
        reloaded
    }

    /// Reloads the files of keys and tokens: those of a newer configuration, if there is one.
    fn renew_access(&self, newer: Option<&Config>) -> Result<Vec<Problem>, AppError> {
        self.access.get().map_or(Ok(Vec::new()), |access| Ok(access.renew(newer)?))
    }

    /// Returns the files of keys and tokens.
    fn access_files(&self) -> Vec<PathBuf> {
        self.access.get().map(Access::files).unwrap_or_default()
    }

    /// Returns whether the files of keys and tokens changed since they were last read.
    fn access_changed(&self) -> bool {
        self.access.get().is_some_and(Access::has_changed)
    }

    /// Reloads the configuration. Returns it with only those changes that a running server can apply.
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

    fn take_definitions(&self, config: Config) -> Result<Vec<Problem>, AppError> {
        let need = if self.is_unwritten.load(Ordering::Relaxed) { RegistryNeed::Later } else { RegistryNeed::Written };
        let definitions = load_definitions_with(&config, need)?;
        let changing = self.changing();
        let catalog = &definitions.catalog;
        let refit = |plugins: &Plugins| plugins.refit(catalog).map_err(|error| AppError::Unfit(error.to_string()));
        let refitted = self.plugins.get().map(refit).transpose()?;
        let (mut snapshot, engine) = build(&config, &definitions, &self.store, &self.clock, &self.scheduler)?;
        if let (Some(plugins), Some(refitted)) = (self.plugins.get(), refitted) {
            snapshot = snapshot.with_transforms(refitted.transforms(plugins, catalog));
            plugins.accept(refitted);
        }
        let snapshot = snapshot.after(&self.current.load());
        self.current.store(Arc::new(snapshot));
        self.engine.store(Arc::new(engine));
        self.loaded_by.store(Arc::new(config));
        self.registry.store(definitions.registry.map(Arc::new));
        self.is_unwritten.store(definitions.is_unwritten, Ordering::Relaxed);
        self.cache.store(definitions.cache.map(Arc::new));
        drop(changing);
        self.retire_views();
        Ok(definitions.warnings)
    }

    /// Checks the plugin directory, and deploys new plugins.
    fn check_plugin_dir(&self, loading: Loading) {
        let Some(plugins) = self.plugins.get() else { return };
        for (name, bytes) in plugins.arrivals(self.current.load().catalog()) {
            let taken = match (loading, bytes) {
                (Loading::Cached, Ok(bytes)) => match plugins.load_cached(&bytes) {
                    Ok(Some(component)) => self.take_component(plugins, &component, &bytes, Some(&name)),
                    Ok(None) => {
                        plugins.put_off(&name);
                        continue;
                    }
                    Err(error) => Err(error),
                },
                (Loading::Compiled, Ok(bytes)) => {
                    plugins.mark_compiling(&name);
                    self.take_plugin(plugins, &bytes, Some(&name))
                }
                (_, Err(error)) => Err(error),
            };
            plugins.note(Some(&name), &taken);
        }
        if loading == Loading::Compiled {
            plugins.mark_compiled();
        }
    }

    /// Compiles a plugin's file, and deploys it.
    fn take_plugin(
        &self,
        plugins: &Plugins,
        bytes: &[u8],
        found_as: Option<&str>,
    ) -> Result<DeployReport, DeployError> {
        // Compilation takes long, so it runs first: the current definitions may change meanwhile.
        let reason = if found_as.is_some() { Asked::ByDirectory } else { Asked::ByCommand };
        let component = plugins.load(bytes, reason)?;
        self.take_component(plugins, &component, bytes, found_as)
    }

    /// Deploys a loaded plugin.
    fn take_component(
        &self,
        plugins: &Plugins,
        component: &Arc<Component>,
        bytes: &[u8],
        found_as: Option<&str>,
    ) -> Result<DeployReport, DeployError> {
        let _changing = self.changing();
        let report = plugins.take(component, bytes, found_as, self.current.load().catalog())?;
        self.swap_plugins(plugins);
        Ok(report)
    }

    /// Makes the live plugins visible to requests. Requests in flight keep the previous ones.
    fn swap_plugins(&self, plugins: &Plugins) {
        let current = self.current.load();
        self.current.store(Arc::new(current.with_transforms(plugins.transforms(current.catalog()))));
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        // A panic cannot leave an incomplete change: each change ends with one swap.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how long a running load has to reach its next commit during shutdown.
    #[must_use]
    pub fn last_commit_within(&self) -> Duration {
        let since = self.scheduler.stopping_since().map(|since| since.elapsed());
        since.map_or(Duration::ZERO, |since| LAST_COMMIT_WITHIN.saturating_sub(since))
    }

    /// Returns the maximum time until a changed file is reloaded, which is also the poll interval if no events report
    /// changes. Zero turns reloads off.
    fn reload_every(&self) -> Duration {
        self.config.sync.reload_every
    }

    /// Returns the interval at which definitions are checked for changes, if they are: the shorter of Larder's interval
    /// and the Feast repository's.
    fn definitions_every(&self, own: Duration) -> Duration {
        let ttl = self.cache.load().as_ref().and_then(|cache| cache.ttl);
        ttl.map_or(own, |ttl| ttl.min(own))
    }
}

impl RenewDefinitions for App {
    fn renew(&self, caller_allows_cache: bool) -> bool {
        let always = self.is_always_wanted();
        // A server without reloads keeps the definitions that it started with, whatever a client requests.
        if !always && (caller_allows_cache || self.reload_every().is_zero()) {
            return false;
        }
        let _renewing = self.renewing();
        if !self.seen.differ(self.definition_files()) && !self.remote_registry_changed() {
            return false;
        }
        match self.read_definitions() {
            Ok(warnings) => {
                warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                tracing::info!(why = "a request needs the current definitions", "definitions reloaded");
                true
            }
            Err(error) => {
                let error = error.brief();
                tracing::error!("reload failed; keeping the previous definitions:\n{error}");
                false
            }
        }
    }

    fn is_always_wanted(&self) -> bool {
        self.cache.load().as_ref().is_some_and(|cache| !cache.allowed)
    }
}

impl Control for App {
    fn sync(&self, command: &SyncCommand, notify: &mut dyn FnMut(AdminEvent)) {
        loads::sync(&self.engine.load_full(), command, notify);
    }

    fn reload(&self) -> Result<String, String> {
        let Reloaded { definitions, access } = self.reload_all();
        match (definitions, access) {
            (Ok(definitions), Ok(access)) if definitions.is_empty() && access.is_empty() => Ok("reloaded".to_owned()),
            (Ok(definitions), Ok(access)) => {
                let lines: Vec<String> = definitions.iter().chain(&access).map(ToString::to_string).collect();
                Ok(format!("reloaded, with warnings:\n{}", lines.join("\n")))
            }
            (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error.brief()),
            (Err(definitions), Err(access)) => Err(format!("{}\n{}", definitions.brief(), access.brief())),
        }
    }

    fn delete(&self, command: &DeleteCommand) -> Result<EraseReport, String> {
        let was_there = self.engine.load().delete(&command.view, &command.key).map_err(|error| error.to_string())?;
        Ok(EraseReport { rows: u64::from(was_there) })
    }

    fn reset(&self, command: &ResetCommand) -> Result<EraseReport, String> {
        let rows = self.engine.load().reset(&command.view, command.confirmed).map_err(|error| error.to_string())?;
        Ok(EraseReport { rows })
    }

    fn deploy(&self, file: &[u8]) -> Result<DeployReport, String> {
        let plugins = self.plugins.get().ok_or(NO_PLUGINS)?;
        let taken = self.take_plugin(plugins, file, None);
        plugins.note(None, &taken);
        taken.map_err(|error| error.to_string())
    }

    fn roll_back(&self, plugin: &str) -> Result<DeployReport, String> {
        let plugins = self.plugins.get().ok_or(NO_PLUGINS)?;
        let _changing = self.changing();
        let rolled_back = plugins.roll_back(plugin);
        // Even if a file could not be written, the version is live.
        self.swap_plugins(plugins);
        rolled_back.map_err(|error| error.to_string())
    }

    fn plugins(&self) -> Vec<PluginStatus> {
        self.plugins.get().map(Plugins::list).unwrap_or_default()
    }

    fn plugin_bytes_max(&self) -> usize {
        let max = self.plugins.get().map_or(0, Plugins::file_bytes_max);
        usize::try_from(max).unwrap_or(usize::MAX)
    }
}

/// The error of plugin commands if the server runs no plugins.
const NO_PLUGINS: &str =
    "this server runs no plugins: its configuration has 'plugins: dir' off, or its log has the reason";

/// Creates a snapshot of definitions, and the engine that syncs its views.
fn build(
    config: &Config,
    definitions: &LoadedDefinitions,
    store: &Arc<OnlineStore>,
    clock: &SharedClock,
    scheduler: &Arc<SyncScheduler>,
) -> Result<(Snapshot, SyncEngine), StoreError> {
    let limits = ServingLimits {
        rows_max: config.http.limits.rows_max,
        features_max: config.http.limits.features_max,
        values_max: config.http.limits.values_max,
    };
    let catalog = Arc::new(definitions.catalog.clone());
    let snapshot = Snapshot::new(Arc::clone(&catalog), Arc::clone(store), Arc::clone(clock), config.ttl, limits)?;
    let snapshot = snapshot.awaiting_registry(definitions.is_unwritten);
    let setting = SyncSetting { scheduler: Arc::clone(scheduler), ..config.sync_setting(Arc::clone(clock)) };
    let engine = SyncEngine::new(Arc::clone(store), &catalog, snapshot.view_ids(), setting);
    let snapshot = snapshot.with_fetchers(engine.fetchers()).with_sources(engine.sources());
    Ok((snapshot, engine))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use larder_common::clock::SystemClock;

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
