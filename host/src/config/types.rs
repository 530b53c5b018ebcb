//! The types of a configuration, and the functions that load it.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use larder_captures::CaptureSettings;
use larder_common::{clock::SharedClock, files::FileStamps, telemetry::LogFormat};
use larder_http::HttpConfig;
use larder_model::{
    codec::KeyVersion,
    yaml::{Located, Problem},
};
use larder_plugin_host::PluginSettings;
use larder_serving::TtlPolicy;
use larder_source::aws::Aws;
use larder_store::StoreConfig;
use larder_sync::{SyncLimits, SyncSetting};

use super::{BuildFeatures, FeastConfig, Rollouts, environment::Flag, logging::LoggingConfig};

/// All settings. Paths are already resolved against the configuration file's directory, except the paths in `features`.
#[derive(Clone, Debug)]
pub struct Config {
    /// The configuration file, and the settings from the command line.
    pub origin: Origin,
    /// The stamp that the configuration file had before it was read; empty if there was no file to read.
    pub stamps_before: FileStamps,
    /// The Cargo features of the build that uses the configuration.
    pub build: BuildFeatures,
    /// The configuration file's directory. Relative paths in definitions are resolved against it.
    pub base_dir: PathBuf,
    /// `project:`, the name of the Feast project. If `None`, the project is the one of the Feast repository, or
    /// `default` if there is no repository.
    pub project: Option<String>,
    /// `entity_key_version:`, the version of the serialization of entity keys. If `None`, the version is the one of the
    /// Feast repository, or Feast's default if there is no repository.
    pub key_version: Option<KeyVersion>,
    /// `feast:`, the Feast repository whose registry has the definitions, if there is one.
    pub feast: Option<FeastConfig>,
    /// `naming_warnings:`, whether to warn about names that do not follow the naming convention.
    pub naming_warnings: bool,
    /// `features:`, files and patterns as written; [`super::load_definitions`] resolves them.
    pub features: Vec<Located<String>>,
    /// `server:`, the settings of the HTTP listeners, with their keys, tokens and limits.
    pub http: HttpConfig,
    /// `grpc: listen`; `None` if it is off. The listener has no TLS.
    pub grpc_listen: Option<SocketAddr>,
    /// `metrics: listen`; `None` if it is off.
    pub metrics_listen: Option<SocketAddr>,
    /// `admin: socket`, the path of the admin socket.
    pub admin_socket: PathBuf,
    /// `aws:`, as the clients that are created with these settings.
    pub aws: Arc<Aws>,
    /// `store:`, the settings of the store.
    pub store: StoreConfig,
    /// `plugins:`, the settings of plugins.
    pub plugins: PluginConfig,
    /// `serving: ttl`, what is returned for expired values.
    pub ttl: TtlPolicy,
    /// `sync:` and `reload:`.
    pub sync: SyncConfig,
    /// `log:`, the settings of the log.
    pub log: LogConfig,
    /// `logging:`, the settings of the feature log.
    pub logging: LoggingConfig,
}

/// The origin of a configuration, which allows reading it again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub file: PathBuf,
    /// Whether the file may be absent. If it is, the settings come from the command line, the environment and the
    /// defaults.
    pub is_optional: bool,
    /// Settings from the command line.
    pub flags: Vec<Flag>,
}

/// A configuration that may have errors.
#[derive(Clone, Debug)]
pub struct CheckedConfig {
    /// The configuration, or `None` if the file is not YAML. Use it only for further checks: values with errors are
    /// replaced by defaults or are outside their range.
    pub config: Option<Config>,
    /// Which parts of the configuration are free of errors.
    pub sound: Sound,
    /// All errors and warnings, sorted by file and line.
    pub problems: Vec<Problem>,
}

/// Which parts of a configuration are free of errors. Definitions, sources and plugins can be checked only if the
/// settings that they need have no errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sound {
    /// `project`, `entity_key_version`, `feast` and `features`, which name the definitions.
    pub definitions: bool,
    /// `aws`, which sources need for access to S3 and DynamoDB.
    pub sources: bool,
    /// `plugins`.
    pub plugins: bool,
}

/// The settings of syncs and reloads.
#[derive(Clone, Copy, Debug)]
pub struct SyncConfig {
    /// Whether the views are synced when the server starts. Views with a recent sync are skipped.
    pub on_start: bool,
    /// The limits of a sync.
    pub limits: SyncLimits,
    /// `reload: every`, how often files are checked for changes if file system events do not cover them. If zero,
    /// neither these files nor a registry in S3 are checked; SIGHUP and the admin socket still reload.
    pub reload_every: Duration,
    /// `reload: registry_every`, how often a registry in S3 is polled.
    pub registry_every: Duration,
}

/// The settings in `plugins:`.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginConfig {
    /// `plugins: dir`; `None` if it is off.
    pub dir: Option<PathBuf>,
    /// The directory of the stored copies of plugins and of compiled code, in the store's directory.
    pub own_dir: PathBuf,
    /// `plugins: rollout` and `plugins: overrides: NAME: rollout`.
    pub rollouts: Rollouts,
    /// `plugins: captures`, which calls are captured.
    pub captures: CaptureSettings,
    /// The directory of captures, in the store's directory.
    pub captures_dir: PathBuf,
    /// All other settings in `plugins:`.
    pub settings: PluginSettings,
    /// The plugins that have limits of their own, with their positions in the file.
    pub(super) override_names: Vec<Located<String>>,
}

/// The settings in `log:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A level or a filter, such as `info` or `info,larder_sync=debug`, for `tracing_subscriber::EnvFilter`.
    pub level: String,
    /// The format of log lines.
    pub format: LogFormat,
}

impl Default for SyncConfig {
    fn default() -> Self {
        // One second is short compared to a deployment, and polling a few files takes microseconds.
        Self {
            on_start: true,
            limits: SyncLimits::default(),
            reload_every: Duration::from_secs(1),
            registry_every: Duration::from_secs(60),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::default() }
    }
}

// === impl Origin ===

impl Origin {
    /// Returns the origin of a file that must exist.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { file: path.into(), ..Self::default() }
    }

    /// Returns whether the file exists or is optional.
    #[must_use]
    pub fn can_be_loaded(&self) -> bool {
        self.is_optional || self.file.is_file()
    }
}

// === impl Config ===

impl Config {
    /// Returns the settings that the sync engine needs, with this clock.
    #[must_use]
    pub fn sync_setting(&self, clock: SharedClock) -> SyncSetting {
        SyncSetting { base_dir: self.base_dir.clone(), aws: Arc::clone(&self.aws), clock, limits: self.sync.limits }
    }

    /// Returns the names of sections and keys that differ in another configuration and that a running server cannot
    /// change.
    #[must_use]
    pub fn fixed_sections_that_differ(&self, other: &Self) -> Vec<&'static str> {
        let listener =
            |http: &HttpConfig| (http.listen, http.unix_socket.clone(), http.insecure, http.workers, http.writes);
        // These settings are derived from other sections.
        let plugins = |plugins: &PluginConfig| {
            let settings = PluginSettings { cache_dir: None, threads: 0, ..plugins.settings.clone() };
            PluginConfig {
                own_dir: PathBuf::new(),
                captures_dir: PathBuf::new(),
                settings,
                override_names: Vec::new(),
                ..plugins.clone()
            }
        };
        let reload = |sync: &SyncConfig| (sync.reload_every, sync.registry_every);
        let differs = [
            ("server", listener(&self.http) != listener(&other.http)),
            ("server: limits", self.http.limits != other.http.limits),
            ("grpc", self.grpc_listen != other.grpc_listen),
            ("metrics", self.metrics_listen != other.metrics_listen),
            ("admin", self.admin_socket != other.admin_socket),
            ("aws", self.aws.config() != other.aws.config()),
            ("store", self.store != other.store),
            ("plugins", plugins(&self.plugins) != plugins(&other.plugins)),
            ("reload", reload(&self.sync) != reload(&other.sync)),
            ("log", self.log != other.log),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(section, _)| section).collect()
    }
}
