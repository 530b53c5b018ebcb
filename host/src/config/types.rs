//! The configuration as the rest of the host sees it: complete, and valid.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use larder_model::{
    codec::KeyVersion,
    yaml::{Located, Problems},
};

use super::{ConfigError, Environment, read::read};
use crate::{
    http::HttpConfig, plugin::PluginSettings, serving::TtlPolicy, store::StoreConfig, sync::SyncLimits,
    telemetry::LogFormat,
};

/// Everything that an operator can set. Its paths start at the configuration file's directory already.
#[derive(Clone, Debug)]
pub struct Config {
    /// The configuration file.
    pub file: PathBuf,
    /// Its directory: the start of the relative paths in definitions.
    pub base_dir: PathBuf,
    /// `project:`, the name under which Feast knows these definitions.
    pub project: String,
    /// `entity_key_version:`, the serialization that makes the entity ids.
    pub key_version: KeyVersion,
    /// `features:`, files and patterns as they were written; [`super::load_definitions`] reads them.
    pub features: Vec<Located<String>>,
    /// `server:`.
    pub http: HttpConfig,
    /// `metrics: listen`; none when turned off.
    pub metrics_listen: Option<SocketAddr>,
    /// `admin: socket`.
    pub admin_socket: PathBuf,
    /// `store:`.
    pub store: StoreConfig,
    /// `plugins:`.
    pub plugins: PluginConfig,
    /// `serving: ttl`.
    pub ttl: TtlPolicy,
    /// `sync:` and `reload:`.
    pub sync: SyncConfig,
    /// `log:`.
    pub log: LogConfig,
}

/// When sources and definitions are looked at.
#[derive(Clone, Copy, Debug)]
pub struct SyncConfig {
    /// Whether every view with a source is synced when the server starts.
    pub on_start: bool,
    /// Bounds of a run.
    pub limits: SyncLimits,
    /// `reload: every`, how often the configuration and definition files are looked at; zero is only at SIGHUP.
    pub reload_every: Duration,
}

/// Where plugins come from, and what they may take.
#[derive(Clone, Debug)]
pub struct PluginConfig {
    /// `plugins: dir`; none when turned off.
    pub dir: Option<PathBuf>,
    /// Where the host keeps its own copies, and compiled code: in the store's directory.
    pub own_dir: PathBuf,
    /// Everything else.
    pub settings: PluginSettings,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A level or a filter, such as `info` or `info,larder::sync=debug`; `tracing_subscriber::EnvFilter` takes it.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

impl Default for SyncConfig {
    fn default() -> Self {
        // A second is short beside a deployment, and looking at a handful of files costs microseconds.
        Self { on_start: true, limits: SyncLimits::default(), reload_every: Duration::from_secs(1) }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::default() }
    }
}

// === impl Config ===

impl Config {
    /// Reads a configuration file; variables of the environment win over it.
    ///
    /// # Errors
    /// [`ConfigError::Io`] when the file cannot be read, [`ConfigError::Invalid`] with every mistake in it.
    pub fn load(path: &Path, env: Environment<'_>) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Io { path: path.to_path_buf(), source })?;
        let base_dir = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            // A bare file name has an empty parent, which no system call takes for a directory.
            _ => Path::new("."),
        };
        let problems = Problems::default();
        match Self::parse(&path.display().to_string(), base_dir, &text, env, &problems) {
            Some(config) => Ok(Self { file: path.to_path_buf(), ..config }),
            None => Err(ConfigError::Invalid(problems.into_sorted())),
        }
    }

    /// Reads a configuration file's text. `file_name` is for messages, relative paths start at `base_dir`. None when
    /// an error was noted in `problems`.
    #[must_use]
    pub fn parse(
        file_name: &str,
        base_dir: &Path,
        text: &str,
        env: Environment<'_>,
        problems: &Problems,
    ) -> Option<Self> {
        read(file_name, base_dir, text, env, problems)
    }
}
