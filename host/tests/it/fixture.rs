//! A complete server in the test's process, on a free port.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use larder::{
    app::{App, Serving},
    config::{Config, SyncConfig},
};
use larder_common::{
    clock::{Clock, ManualClock},
    telemetry,
};
use larder_http::{AdminEvent, Control, HttpLimits, SyncCommand};
use larder_source::aws::{Aws, AwsConfig, StandInKeys};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    guests,
    wire::{self, Answer},
};

/// The time at which the responses in `golden/` were recorded: 2026-11-23T09:13:10Z.
pub(crate) const RECORDED_AT: i64 = 1_795_425_190_000_000;

pub(crate) struct Fixture {
    pub(crate) app: Arc<App>,
    pub(crate) clock: Arc<ManualClock>,
    /// The directory of the configuration, data and store. It is removed when the fixture is dropped.
    pub(crate) dir: TempDir,
    serving: Option<Serving>,
    /// `None` after the server has stopped.
    runtime: Option<tokio::runtime::Runtime>,
}

/// The setup of a server.
pub(crate) struct Setup {
    dir: TempDir,
    limits: HttpLimits,
    hot_bytes: Option<u64>,
    /// The maximum time of a plugin's call on a serving thread. `None` means the default.
    inline_max: Option<Duration>,
    config: String,
    wait: bool,
    with_metrics: bool,
}

// === impl Setup ===

impl Setup {
    /// Copies the golden repository.
    pub(crate) fn golden() -> Self {
        let setup = Self::empty();
        copy_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/repo"), setup.dir.path());
        setup
    }

    /// Creates an empty repository with these definitions.
    pub(crate) fn with(definitions: &str) -> Self {
        let setup = Self::empty();
        fs::create_dir_all(setup.path("features")).unwrap();
        fs::create_dir_all(setup.path("data")).unwrap();
        fs::write(setup.path("features/defined.yaml"), definitions).unwrap();
        setup
    }

    fn empty() -> Self {
        let config = "project: churn_prediction\nfeatures: [features/*.yaml]\n".to_owned();
        Self {
            dir: TempDir::new().unwrap(),
            limits: HttpLimits::default(),
            hot_bytes: None,
            inline_max: None,
            config,
            wait: true,
            with_metrics: false,
        }
    }

    /// Serves metrics on a separate port.
    pub(crate) fn with_metrics(mut self) -> Self {
        self.with_metrics = true;
        self
    }

    pub(crate) fn limits(mut self, change: impl FnOnce(&mut HttpLimits)) -> Self {
        change(&mut self.limits);
        self
    }

    /// Puts plugins into the plugin directory.
    pub(crate) fn plugins(self, projects: &[&str]) -> Self {
        guests::place(projects, &self.path("plugins"));
        self
    }

    pub(crate) fn hot_bytes(mut self, bytes: u64) -> Self {
        self.hot_bytes = Some(bytes);
        self
    }

    /// Runs every plugin on the compute threads.
    pub(crate) fn plugins_in_separate_dir(mut self) -> Self {
        self.inline_max = Some(Duration::ZERO);
        self
    }

    /// Adds lines to `larder.yaml`.
    pub(crate) fn config(mut self, lines: &str) -> Self {
        self.config.push_str(lines);
        self
    }

    /// Writes only these lines to `larder.yaml`.
    pub(crate) fn only_config(mut self, lines: &str) -> Self {
        self.config = lines.to_owned();
        self
    }

    /// Does not wait until all views are loaded.
    pub(crate) fn unready(mut self) -> Self {
        self.wait = false;
        self
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub(crate) fn start(self) -> Fixture {
        let wait = self.wait;
        let fixture = self.open();
        if wait {
            fixture.until_ready();
        }
        fixture
    }

    fn open(self) -> Fixture {
        // As in the program, the recorder is installed before the first handle of a metric is created.
        telemetry::install_metrics().unwrap();
        let file = self.path("larder.yaml");
        fs::write(&file, &self.config).unwrap();
        let mut config = Config::load(&file, &|_: &str| None).unwrap_or_else(|error| panic!("{error}"));
        config.http.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.http.workers = 2;
        config.http.limits = self.limits;
        config.metrics_listen = self.with_metrics.then(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let aws = config.aws.config().clone();
        let region = aws.region.clone().or_else(|| Some("eu-west-1".to_owned()));
        config.aws = Aws::new(AwsConfig { keys: Some(StandInKeys), region, ..aws });
        config.store.data_dir = self.path("store");
        config.admin_socket = self.path("admin.sock");
        if config.sync.reload_every == SyncConfig::default().reload_every {
            config.sync.reload_every = Duration::from_millis(50);
        }
        config.plugins.settings.compiler = guests::compiler();
        // The limits are longer than the default, because debug builds are slow.
        config.plugins.settings.compiled.time = Duration::from_millis(200);
        config.plugins.settings.interpreted.time = Duration::from_millis(500);
        if let Some(longest) = self.inline_max {
            config.plugins.settings.inline_max = longest;
        }
        if let Some(bytes) = self.hot_bytes {
            config.store.hot.bytes_max = bytes;
        }
        let clock = ManualClock::at(RECORDED_AT);
        let shared: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        // A fetch of the test's previous server may still hold the store for a short time. With separate processes,
        // this cannot happen.
        let patience = Instant::now() + Duration::from_secs(10);
        let (app, _) = loop {
            match App::open(config.clone(), Arc::clone(&shared)) {
                Ok(opened) => break opened,
                Err(error) => assert!(error.to_string().contains("in use") && Instant::now() < patience, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let serving = runtime.block_on(app.serve()).unwrap_or_else(|error| panic!("{error}"));
        Fixture { app, clock, dir: self.dir, serving: Some(serving), runtime: Some(runtime) }
    }
}

// === impl Fixture ===

impl Fixture {
    pub(crate) fn address(&self) -> SocketAddr {
        self.serving.as_ref().and_then(Serving::address).unwrap()
    }

    pub(crate) fn metrics_address(&self) -> SocketAddr {
        self.serving.as_ref().and_then(Serving::metrics_address).unwrap()
    }

    pub(crate) fn grpc_address(&self) -> SocketAddr {
        self.serving.as_ref().and_then(Serving::grpc_address).unwrap()
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub(crate) fn until_ready(&self) {
        // A long timeout, because plugins are compiled with a low priority.
        eventually_within("ready", Duration::from_secs(300), || self.get("/ready").status == 200);
    }

    pub(crate) fn eventually(&self, what: &str, holds: impl FnMut() -> bool) {
        eventually(what, holds);
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        wire::send(self.address(), "GET", path, &[], b"")
    }

    pub(crate) fn post(&self, path: &str, body: &[u8]) -> Answer {
        wire::send(self.address(), "POST", path, &[("content-type", "application/json")], body)
    }

    /// Requests features of entities.
    pub(crate) fn features(&self, features: &[&str], entities: Value) -> Answer {
        self.post("/get-online-features", json!({ "features": features, "entities": entities }).to_string().as_bytes())
    }

    /// Syncs views. If a sync fails, returns the message of the first failure.
    pub(crate) fn sync(&self, command: &SyncCommand) -> Result<Vec<larder_ingest::SyncReport>, String> {
        let mut reports = Vec::new();
        let mut failed = None;
        self.app.sync(command, &mut |event| match event {
            AdminEvent::Progress { .. } => {}
            AdminEvent::Synced { report } => reports.push(report),
            AdminEvent::Failed { error, .. } => failed = failed.take().or(Some(error)),
        });
        failed.map_or(Ok(reports), Err)
    }

    /// Stops the server, and starts another one in the same directory.
    pub(crate) fn restart(mut self) -> Self {
        self.stop();
        let empty = TempDir::new().unwrap();
        let dir = std::mem::replace(&mut self.dir, empty);
        let config = fs::read_to_string(dir.path().join("larder.yaml")).unwrap();
        drop(self);
        Setup { dir, config, ..Setup::empty() }.open()
    }

    pub(crate) fn stop(&mut self) {
        if let (Some(serving), Some(runtime)) = (self.serving.take(), &self.runtime) {
            runtime.block_on(serving.stop());
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop();
        // As in the program, work that waits for AWS does not delay the stop.
        self.runtime.take().into_iter().for_each(|runtime| runtime.shutdown_timeout(Duration::from_secs(3)));
    }
}

/// Waits until a condition holds. The timeout is far longer than needed, so it only expires if a test fails.
pub(crate) fn eventually(what: &str, holds: impl FnMut() -> bool) {
    eventually_within(what, Duration::from_secs(30), holds);
}

pub(crate) fn eventually_within(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let patience = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < patience, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns the sum of the series whose names and labels begin with `series`. All servers of a test share these series.
pub(crate) fn metric(series: &str) -> f64 {
    let text = telemetry::install_metrics().unwrap().render();
    let lines = text.lines().filter(|line| line.starts_with(series));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// Creates or replaces a file with a rename, so that a server never reads an incomplete file.
pub(crate) fn replace(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    let path = path.as_ref();
    let mut name = path.file_name().unwrap().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    fs::write(&new, bytes).unwrap();
    fs::rename(new, path).unwrap();
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
