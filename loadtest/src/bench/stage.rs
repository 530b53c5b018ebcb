//! Generates the data of a benchmark, and starts its Larder servers.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};
use rustix::process::Signal;

use super::spec::{BackgroundCommand, CUSTOMERS, HostKind};
use crate::{
    cores::Cores,
    dataset,
    definitions::{churn_service, churn_views, larder_yaml, wide_services, wide_views},
    endpoint::{SocketKind, free_address},
    server::{Server, Startup},
    workload::customer_id,
};

/// The maximum time until a server is ready. It is long, because a Python plugin is compiled at the first start.
const READY_LIMIT: Duration = Duration::from_secs(120);

/// The file name of the churn plugin, which is the same for both languages.
const PLUGIN: &str = "customer_derived_features.wasm";

/// The directory with the data and the configurations of the servers, and everything that is needed to start the
/// servers.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    dir: PathBuf,
    larder: PathBuf,
    socket: SocketKind,
    cores: Cores,
    /// The Rust plugin, if it is available.
    plugin: Option<PathBuf>,
    /// The Python plugin, if it is available.
    python_plugin: Option<PathBuf>,
    /// The share of the entities whose requests are logged.
    log_rate: Option<f64>,
}

/// A Larder server with its own directory.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) kind: HostKind,
    pub(crate) server: Server,
    config: PathBuf,
}

// === impl Stage ===

impl Stage {
    /// Generates the data: the churn views with `larder demo`, and the wide views in this program.
    pub(crate) async fn set_up(
        dir: &Path,
        larder: &Path,
        plugins: (Option<PathBuf>, Option<PathBuf>),
        socket: SocketKind,
        cores: Cores,
    ) -> anyhow::Result<Self> {
        let larder = larder.canonicalize().with_context(|| format!("cannot find {}", larder.display()))?;
        let (plugin, python_plugin) = plugins;
        let stage = Self { dir: dir.to_owned(), larder, socket, cores, plugin, python_plugin, log_rate: None };
        let main = stage.dir_of(HostKind::Main);
        fs::create_dir_all(&main)?;
        let address = free_address().context("no free port")?;
        let mut command = Command::new(&stage.larder);
        command.arg("demo").arg("--dir").arg(&main).arg("--listen").arg(address.to_string());
        command.arg("--customers").arg(CUSTOMERS.to_string());
        if let Some(plugin) = &stage.plugin {
            command.arg("--plugin").arg(plugin);
        }
        let startup = Startup::new("larder demo", address.into(), dir.join("demo.log"));
        Server::start(&mut command, startup, cores).await?.stop(Signal::TERM)?;
        for view in wide_views() {
            let path = stage.data().join(&view.file);
            dataset::write_view(&path, &view.features, CUSTOMERS.into(), |number| customer_id(number as u32))?;
        }
        fs::write(main.join("features/wide.yaml"), larder_yaml(&wide_views(), &wide_services()))?;
        Ok(stage)
    }

    /// Returns a copy that starts servers on these cores.
    pub(crate) fn on(&self, cores: Cores) -> Self {
        Self { cores, ..self.clone() }
    }

    /// Returns a copy that starts servers with a feature log of all services.
    pub(crate) fn with_log(self, rate: Option<f64>) -> Self {
        Self { log_rate: rate, ..self }
    }

    /// Returns the directory of the Parquet files.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir_of(HostKind::Main).join("data")
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn has_plugin(&self, kind: HostKind) -> bool {
        match kind {
            HostKind::Main | HostKind::Cold => self.plugin.is_some(),
            HostKind::Python => self.python_plugin.is_some(),
        }
    }

    /// Starts a server, and waits until it is ready, with all views loaded.
    pub(crate) async fn host(&self, kind: HostKind) -> anyhow::Result<Host> {
        let dir = self.dir_of(kind);
        if kind != HostKind::Main {
            self.copy_churn(&dir, kind)?;
        }
        let (endpoint, listens) = match self.socket {
            SocketKind::Tcp => {
                let address = free_address().context("no free port")?;
                (address.into(), format!("listen: {address}"))
            }
            SocketKind::Unix => {
                let path = dir.join("larder.sock");
                (path.as_path().into(), format!("listen: 127.0.0.1:0, unix_socket: {}", path.display()))
            }
        };
        let hot_cache = if kind == HostKind::Cold { "0" } else { "256MiB" };
        let config = dir.join("larder.yaml");
        let log = self.log_rate.map(|rate| {
            let services = wide_services().into_iter().chain([churn_service()]);
            let rates: Vec<_> = services.map(|service| format!("{}: {rate}", service.name)).collect();
            format!("logging: {{services: {{{}}}, to: log}}\n", rates.join(", "))
        });
        let yaml = format!(
            "project: bench\nserver: {{{listens}}}\nmetrics: {{listen: 127.0.0.1:0}}\n\
             store: {{data_dir: store, hot_cache: {hot_cache}}}\nlog: {{level: warn}}\n{}",
            log.unwrap_or_default()
        );
        fs::write(&config, yaml).with_context(|| format!("cannot write {}", config.display()))?;
        let mut command = Command::new(&self.larder);
        command.arg("serve").arg("--config").arg(&config);
        let startup =
            Startup { limit: READY_LIMIT, ..Startup::new("larder", endpoint, self.dir.join(format!("{kind:?}.log"))) };
        Ok(Host { kind, server: Server::start(&mut command, startup, self.cores).await?, config })
    }

    /// Begins a shadow run of a copy of the plugin for this share of the requests.
    pub(crate) fn begin_shadow(&self, host: &Host, rate: f64) -> anyhow::Result<()> {
        let plugin = self.plugin.as_ref().context("no plugin was specified")?;
        let mut bytes = fs::read(plugin).with_context(|| format!("cannot read {}", plugin.display()))?;
        // A custom section with an empty name and no data. The copy has another digest, but computes the same.
        bytes.extend([0, 1, 0]);
        let copy = self.dir.join("candidate.wasm");
        fs::write(&copy, bytes)?;
        let mut command = Command::new(&self.larder);
        command.arg("plugin").arg("deploy").arg(&copy).arg("--force");
        command.arg("--shadow").arg(format!("{}%", rate * 100.0)).arg("--config").arg(&host.config);
        let output = command.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Returns the command to run repeatedly during the load on a server.
    pub(crate) fn background(&self, host: &Host, background: BackgroundCommand) -> Command {
        let mut command = Command::new(&self.larder);
        match (background, &self.plugin) {
            (BackgroundCommand::Deploy, Some(plugin)) => {
                command.arg("plugin").arg("deploy").arg(plugin);
            }
            _ => {
                command.arg("sync").arg("--full").args(churn_views().iter().map(|view| &view.name));
            }
        }
        command.arg("--config").arg(&host.config);
        command
    }

    fn dir_of(&self, kind: HostKind) -> PathBuf {
        self.dir.join(match kind {
            HostKind::Main => "main",
            HostKind::Cold => "cold",
            HostKind::Python => "python",
        })
    }

    /// Copies the churn views to the directory of a server. Also copies the Python plugin if the server needs it.
    fn copy_churn(&self, dir: &Path, kind: HostKind) -> anyhow::Result<()> {
        let main = self.dir_of(HostKind::Main);
        let mut files: Vec<_> = churn_views().into_iter().map(|view| format!("data/{}", view.file)).collect();
        files.push("features/churn.yaml".to_owned());
        fs::create_dir_all(dir.join("data"))?;
        fs::create_dir_all(dir.join("features"))?;
        for file in files {
            fs::copy(main.join(&file), dir.join(&file)).with_context(|| format!("cannot copy {file}"))?;
        }
        if let (HostKind::Python, Some(plugin)) = (kind, &self.python_plugin) {
            fs::write(dir.join("features/churn_derived.yaml"), CHURN_DERIVED_YAML)?;
            fs::create_dir_all(dir.join("plugins"))?;
            fs::copy(plugin, dir.join("plugins").join(PLUGIN))
                .with_context(|| format!("cannot copy {}", plugin.display()))?;
        }
        Ok(())
    }
}

/// The definition of the derived view, which `larder demo --plugin` also writes.
const CHURN_DERIVED_YAML: &str = include_str!("../../../configs/features/churn_derived.yaml");
