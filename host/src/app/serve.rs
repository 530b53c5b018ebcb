//! A host with its listeners: from start to drain.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use metrics::{describe_gauge, gauge};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{App, AppError};
use crate::{
    config::watched_files,
    http::{Control, Door, Listener, Router, Server, SyncCommand},
    telemetry,
};

/// A host that serves. [`Serving::run`] lives until it is told to stop.
#[derive(Debug)]
pub struct Serving {
    app: Arc<App>,
    data: Server,
    others: Vec<Server>,
    background: Vec<JoinHandle<()>>,
}

/// Why a host stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownReason {
    /// Everything under way was ended.
    Drained,
    /// The drain took too long, or a second signal came.
    Hurried,
}

/// How often the process's own figures are refreshed, and histograms folded.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

// === impl App ===

impl App {
    /// Binds the listeners and starts what runs beside them: the first sync, the schedules, the watch over files.
    /// Answers come from now on; `/ready` says when all views are loaded.
    ///
    /// # Errors
    /// [`AppError::Server`] when an address is taken, [`AppError::Setup`].
    pub async fn serve(self: &Arc<Self>) -> Result<Serving, AppError> {
        let metrics = telemetry::install_metrics().map_err(AppError::Setup)?;
        let http = &self.config.http;
        let router =
            |door| Arc::new(Router::new(Arc::clone(&self.current), Arc::clone(&self.clock), http.limits, door));

        let data = Server::start(Listener::tcp(http.listen).await?, router(Door::Data), http.workers)?;
        let mut others = Vec::new();
        if let Some(path) = &http.unix_socket {
            others.push(Server::start(Listener::unix(path).await?, router(Door::Data), http.workers)?);
        }
        if let Some(address) = self.config.metrics_listen {
            let listener = Listener::tcp(address).await?;
            others.push(Server::start(listener, router(Door::Metrics(metrics.clone())), 1)?);
        }
        // The command line reaches a running host here. A path that no socket can have costs that, and not the host.
        match Listener::unix(&self.config.admin_socket).await {
            Ok(listener) => {
                let control: Arc<dyn Control> = Arc::<Self>::clone(self);
                others.push(Server::start(listener, router(Door::Admin(control)), 1)?);
            }
            Err(error) => tracing::warn!(%error, "no admin socket: 'larder sync' cannot reach this host"),
        }

        let background = vec![
            tokio::spawn(upkeep(Arc::clone(self), metrics)),
            tokio::spawn(schedule(Arc::clone(self))),
            tokio::spawn(watch(Arc::clone(self))),
        ];
        if self.config.sync.on_start {
            let app = Arc::clone(self);
            tokio::task::spawn_blocking(move || app.sync(&SyncCommand::default(), &mut |_| {}));
        }
        Ok(Serving { app: Arc::clone(self), data, others, background })
    }
}

// === impl Serving ===

impl Serving {
    /// The address of the data listener.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.data.address()
    }

    /// Serves until SIGTERM or SIGINT, then drains. SIGHUP reloads.
    ///
    /// # Errors
    /// [`AppError::Setup`] when signals cannot be listened to.
    pub async fn run(self) -> Result<ShutdownReason, AppError> {
        let listen = |kind| signal(kind).map_err(|error| AppError::Setup(format!("cannot listen to signals: {error}")));
        let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        let mut hangup = listen(SignalKind::hangup())?;
        loop {
            tokio::select! {
                _ = stop_signal(&mut terminate, &mut interrupt) => break,
                _ = hangup.recv() => reload(&self.app, "SIGHUP").await,
            }
        }
        tracing::info!("stopping: requests under way are ended, new ones are not taken");
        tokio::select! {
            reason = self.stop() => Ok(reason),
            _ = stop_signal(&mut terminate, &mut interrupt) => Ok(ShutdownReason::Hurried),
        }
    }

    /// Drains: requests under way are answered, a sync under way ends at its next commit.
    pub async fn stop(self) -> ShutdownReason {
        self.app.engine.load().stop();
        for task in self.background {
            task.abort();
        }
        let mut drained = self.data.stop().await;
        for server in self.others {
            drained &= server.stop().await;
        }
        if drained { ShutdownReason::Drained } else { ShutdownReason::Hurried }
    }
}

async fn stop_signal(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Loads what changed and swaps it in; a mistake keeps what is served and is told.
async fn reload(app: &Arc<App>, why: &'static str) {
    describe_gauge!("larder_config_last_reload_success", "1 if the last reload was taken, 0 if it was refused.");
    let reloading = Arc::clone(app);
    let result = tokio::task::spawn_blocking(move || reloading.reload_definitions()).await;
    let taken = gauge!("larder_config_last_reload_success");
    match result {
        Ok(Ok(warnings)) => {
            taken.set(1.0);
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            tracing::info!(why, "definitions were loaded again");
            // New views have no rows yet, and changed ones want their source read again.
            let app = Arc::clone(app);
            tokio::task::spawn_blocking(move || app.sync(&SyncCommand::default(), &mut |_| {}));
        }
        Ok(Err(error)) => {
            taken.set(0.0);
            tracing::error!(why, "reload refused, what was served before is served on:\n{error}");
        }
        Err(error) => tracing::error!(why, %error, "reload ended in a bug of Larder"),
    }
}

/// Looks at the files every second or so; Kubernetes swaps a ConfigMap's directory under us, so watching by name and
/// stamp is surer than by inode.
async fn watch(app: Arc<App>) {
    let every = app.reload_every();
    if every.is_zero() {
        return;
    }
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = stamps(&app);
    loop {
        ticks.tick().await;
        let now = stamps(&app);
        if now != known {
            known = now;
            reload(&app, "a file changed").await;
        }
    }
}

type Stamp = Option<(u64, SystemTime)>;

fn stamps(app: &App) -> HashMap<PathBuf, Stamp> {
    let stamp = |path: &PathBuf| {
        let meta = std::fs::metadata(path).ok()?;
        // A directory's time changes when files come and go; its size says nothing.
        Some((if meta.is_dir() { 0 } else { meta.len() }, meta.modified().ok()?))
    };
    watched_files(&app.loaded_by.load()).into_iter().map(|path| (path.clone(), stamp(&path))).collect()
}

/// Syncs views when their `every` has passed since the last time.
async fn schedule(app: Arc<App>) {
    let mut next: HashMap<String, Instant> = HashMap::new();
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let engine = app.engine.load_full();
        let now = Instant::now();
        let mut due = Vec::new();
        for (view, every) in engine.scheduled() {
            let Some(every) = every else { continue };
            let at = next.entry(view.to_owned()).or_insert(now + every);
            if *at <= now {
                *at = now + every;
                due.push(view.to_owned());
            }
        }
        for view in due {
            let app = Arc::clone(&app);
            let command = SyncCommand { views: vec![view], ..SyncCommand::default() };
            tokio::task::spawn_blocking(move || app.sync(&command, &mut |_| {}));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "gauges of bytes, far below 2^53")]
async fn upkeep(app: Arc<App>, metrics: telemetry::Metrics) {
    describe_gauge!("larder_hot_cache_bytes", "Bytes that the hot cache holds.");
    describe_gauge!("larder_store_file_bytes", "Bytes of the store's file.");
    let (hot, file) = (gauge!("larder_hot_cache_bytes"), gauge!("larder_store_file_bytes"));
    let mut ticks = interval(UPKEEP_EVERY);
    loop {
        ticks.tick().await;
        metrics.run_upkeep();
        let store = Arc::clone(&app.store);
        // Waiting for a disk is not for this thread; a panic in there is in the log already.
        let _ = tokio::task::spawn_blocking(move || store.mend()).await;
        hot.set(app.store.hot_bytes() as f64);
        file.set(app.store.file_bytes() as f64);
        // Only Linux has these figures; elsewhere they are absent.
        let _ = telemetry::note_process();
    }
}
