//! The composition root: builds every room from a configuration, owns what is current, and swaps it.
//!
//! [`App`] is a host without its listeners: the command line uses it to look into a store that no server has open.
//! [`App::serve`] adds the listeners, the first sync, the schedules, reload and the drain.

mod access;
mod serve;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use larder_model::yaml::Problem;
use tokio::sync::Notify;

use crate::{
    clock::SharedClock,
    config::{Config, ConfigError, LoadedDefinitions, load_definitions, process_environment},
    http::{AdminEvent, Control, HttpConfig, SyncCommand},
    serving::{ServingLimits, Snapshot},
    store::{OnlineStore, StoreError},
    sync::{SyncEngine, Turns},
    telemetry,
};

use self::access::Access;
pub use self::serve::{Serving, ShutdownReason, Signals};

/// A host: configuration, store, catalog and sync engine.
#[derive(Debug)]
pub struct App {
    /// The configuration that it was started with. A reload takes definitions, serving rules, and the files of keys and
    /// tokens from a newer one; addresses and directories need a restart.
    config: Config,
    /// The configuration that the definitions were last loaded by: its files are watched.
    loaded_by: ArcSwap<Config>,
    clock: SharedClock,
    store: Arc<OnlineStore>,
    current: Arc<ArcSwap<Snapshot>>,
    engine: ArcSwap<SyncEngine>,
    turns: Arc<Turns>,
    /// Told when all views are to be synced: definitions were loaded again, and may have brought new ones.
    resync: Notify,
    /// What guards the data listener; there is none before it listens.
    access: OnceLock<Access>,
}

/// What came of a reload. Its halves stand or fall by themselves: a mistake in a definition must not keep a stolen
/// token alive, nor a certificate that was not renewed hold up definitions. What has a mistake stays as it was.
#[derive(Debug)]
pub struct Reloaded {
    /// Configuration and definitions; the warnings about them.
    pub definitions: Result<Vec<Problem>, AppError>,
    /// Keys and tokens; the warnings about their files.
    pub access: Result<Vec<Problem>, AppError>,
}

/// Why a host cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// The configuration or the definitions are wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A listener cannot be bound.
    #[error("{key}: {source}")]
    Server {
        /// The setting that names it.
        key: &'static str,
        /// Why not.
        source: crate::http::ServerError,
    },
    /// Metrics or signals cannot be set up.
    #[error("{0}")]
    Setup(String),
}

// === impl App ===

impl App {
    /// Builds a host. The warnings are about the definitions.
    ///
    /// # Errors
    /// [`AppError::Config`] and [`AppError::Store`].
    pub fn open(config: Config, clock: SharedClock) -> Result<(Arc<Self>, Vec<Problem>), AppError> {
        let definitions = load_definitions(&config)?;
        let store = Arc::new(OnlineStore::open(&config.store, Arc::clone(&clock))?);
        let turns = Turns::new();
        let (snapshot, engine) = build(&config, &definitions, &store, &clock, &turns)?;
        let current = Arc::new(ArcSwap::from_pointee(snapshot));
        let loaded_by = ArcSwap::from_pointee(config.clone());
        let engine = ArcSwap::from_pointee(engine);
        let (resync, access) = (Notify::new(), OnceLock::new());
        let app = Self { config, loaded_by, clock, store, current, engine, turns, resync, access };
        Ok((Arc::new(app), definitions.warnings))
    }

    /// The configuration that it was started with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What is served now.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The host's clock.
    #[must_use]
    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// Loads everything again that can change while the host runs.
    #[must_use]
    pub fn reload_all(&self) -> Reloaded {
        let (definitions, access) = match self.newer_config() {
            Ok(config) => {
                let access = self.renew_access(Some(&config));
                (self.take_definitions(config), access)
            }
            Err(error) => (Err(error), self.renew_access(None)),
        };
        Reloaded { definitions: self.note_reload(definitions), access }
    }

    /// Loads definitions and serving rules again and swaps them in whole. Requests under way keep what they began with.
    /// The views are synced then, for new ones have no rows yet, and changed ones want their source read again.
    ///
    /// # Errors
    /// What is wrong; everything goes on as before.
    pub fn reload_definitions(&self) -> Result<Vec<Problem>, AppError> {
        let reloaded = self.newer_config().and_then(|config| self.take_definitions(config));
        self.note_reload(reloaded)
    }

    /// Counts a reload's end, and has the views synced after a good one.
    fn note_reload(&self, reloaded: Result<Vec<Problem>, AppError>) -> Result<Vec<Problem>, AppError> {
        telemetry::note_reload(reloaded.is_ok());
        if reloaded.is_ok() {
            self.resync.notify_one();
        }
        reloaded
    }

    /// Reads the files of keys and tokens again; those that a newer configuration names, if there is one.
    fn renew_access(&self, newer: Option<&Config>) -> Result<Vec<Problem>, AppError> {
        self.access.get().map_or(Ok(Vec::new()), |access| Ok(access.renew(newer)?))
    }

    /// The files of keys and tokens.
    fn access_files(&self) -> Vec<PathBuf> {
        self.access.get().map(Access::files).unwrap_or_default()
    }

    /// The configuration as its file says now, in what a running host can change.
    fn newer_config(&self) -> Result<Config, AppError> {
        let config = self.config.clone();
        // A host that was built in memory has no file to look at again.
        if !config.file.is_file() {
            return Ok(config);
        }
        let newer = Config::load(&config.file, &process_environment)?;
        let http = HttpConfig { tls: newer.http.tls, auth: newer.http.auth, ..config.http };
        Ok(Config { store: config.store, http, ..newer })
    }

    fn take_definitions(&self, config: Config) -> Result<Vec<Problem>, AppError> {
        let definitions = load_definitions(&config)?;
        let (snapshot, engine) = build(&config, &definitions, &self.store, &self.clock, &self.turns)?;
        let snapshot = snapshot.after(&self.current.load());
        self.current.store(Arc::new(snapshot));
        self.engine.store(Arc::new(engine));
        self.loaded_by.store(Arc::new(config));
        Ok(definitions.warnings)
    }

    /// How often files are looked at for changes; zero is never.
    fn reload_every(&self) -> Duration {
        self.config.sync.reload_every
    }
}

impl Control for App {
    fn sync(&self, command: &SyncCommand, tell: &mut dyn FnMut(AdminEvent)) {
        let engine = self.engine.load_full();
        let views: Vec<String> =
            if command.views.is_empty() { engine.views().map(str::to_owned).collect() } else { command.views.clone() };
        for view in views {
            let result = engine.sync(&view, command.request(), &mut |progress| {
                tell(AdminEvent::Progress { view: view.clone(), progress });
            });
            tell(match result {
                Ok(report) => AdminEvent::Synced { report },
                Err(error) => AdminEvent::Failed { view: view.clone(), error: error.to_string() },
            });
        }
    }

    fn reload(&self) -> Result<String, String> {
        let Reloaded { definitions, access } = self.reload_all();
        match (definitions, access) {
            (Ok(definitions), Ok(access)) if definitions.is_empty() && access.is_empty() => Ok("reloaded".to_owned()),
            (Ok(definitions), Ok(access)) => {
                let lines: Vec<String> = definitions.iter().chain(&access).map(ToString::to_string).collect();
                Ok(format!("reloaded, with warnings:\n{}", lines.join("\n")))
            }
            (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error.to_string()),
            (Err(definitions), Err(access)) => Err(format!("{definitions}\n{access}")),
        }
    }
}

/// A snapshot of definitions, and the engine that keeps it in step.
fn build(
    config: &Config,
    definitions: &LoadedDefinitions,
    store: &Arc<OnlineStore>,
    clock: &SharedClock,
    turns: &Arc<Turns>,
) -> Result<(Snapshot, SyncEngine), StoreError> {
    let limits = ServingLimits {
        rows_max: config.http.limits.rows_max,
        features_max: config.http.limits.features_max,
        values_max: config.http.limits.values_max,
    };
    let catalog = Arc::new(definitions.catalog.clone());
    let snapshot = Snapshot::new(Arc::clone(&catalog), Arc::clone(store), Arc::clone(clock), config.ttl, limits)?;
    let base_dir: &Path = &config.base_dir;
    let (store, turns) = (Arc::clone(store), Arc::clone(turns));
    let engine = SyncEngine::new(store, &catalog, snapshot.view_ids(), base_dir, config.sync.limits, turns);
    Ok((snapshot, engine))
}
