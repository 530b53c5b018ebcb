//! A server with its listeners: from startup to drain.

use std::{
    collections::HashMap,
    future::pending,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use larder_common::{
    clock::next_beat,
    compute::Compute,
    files::{FileStamps, stamps},
    memory::{MemoryBudget, default_budget, memory_limit},
    telemetry,
    watch::RECHECK_EVERY,
};
use larder_http::{Control, Listener, ListenerRole, Router, Server, Writes};
use larder_ingest::{CurrentWriter, SyncRequest};
use larder_model::yaml::Problem;
use larder_serving::{ConnectionLimits, LookupService, RenewDefinitions, Resources, WriteService};
use larder_source::aws::ObjectAt;
use larder_sync::CONCURRENT_LOADS_MAX;
use metrics::{describe_gauge, gauge};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Semaphore, watch},
    task::{self, JoinError, JoinHandle, JoinSet},
    time::{sleep, sleep_until},
};

use super::{
    App, AppError, Reloaded,
    access::Access,
    files::{ADMIN_IDLE_MAX, CONTROL_CONNECTIONS_MAX, fit_connections, raise_file_limit},
    grpc::GrpcServer,
    keeper,
    plugins::{Loading, Plugins},
    pressure::watch_memory,
    writer::EngineWriter,
};

/// A running server. [`Serving::run`] returns after a signal to stop.
#[derive(Debug)]
pub struct Serving {
    app: Arc<App>,
    data: Server,
    grpc: Option<GrpcServer>,
    metrics_address: Option<SocketAddr>,
    others: Vec<Server>,
    background: Vec<JoinHandle<()>>,
}

/// The signals of the process. They are handled from [`Signals::listen`] on. Before that, SIGTERM ends the process
/// immediately, so call it before the server is visible to others.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// Why a server stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownReason {
    /// All requests in flight completed.
    Drained,
    /// The drain timed out, or a second signal arrived.
    Hurried,
}

/// The poll interval of the plugin directory if no events report changes. At most two seconds may pass from a file's
/// arrival to its first response, including its compilation.
const PLUGINS_EVERY: Duration = Duration::from_millis(300);

/// The minimum time between two rounds of due syncs. It limits the rate if syncs fail immediately, for example because
/// of a missing file.
const SCHEDULE_PAUSE: Duration = Duration::from_millis(100);
/// The maximum sleep of the scheduler. Cron schedules and postponed rows are due by the wall clock, which may be set
/// meanwhile.
const SCHEDULE_CHECK_EVERY: Duration = Duration::from_secs(8);

/// The minimum time from the end of a reload to the next check of the files, for files that change continuously. It is
/// shorter if `reload: every` is.
const RELOAD_PAUSE: Duration = Duration::from_millis(500);

/// The limit on large requests that are queued for a thread. Further ones are rejected.
const LARGE_WAITING_MAX: usize = 256;
/// A scheduled sync without a commit for this long is stalled by its source; the next sync may start.
const STALLED_AFTER: Duration = Duration::from_secs(2);

// === impl App ===

impl App {
    /// Loads the plugins that are compiled, binds the listeners and starts the background tasks: the compilation of
    /// other plugins, the first sync, the schedules, and the file watcher. Requests are served from now on; `/ready`
    /// reports when all views are loaded.
    ///
    /// # Errors
    /// [`AppError::Config`] if a key or a token cannot be read, [`AppError::Server`] if an address is in use,
    /// [`AppError::Plugin`], [`AppError::Setup`].
    pub async fn serve(self: &Arc<Self>) -> Result<Serving, AppError> {
        let metrics = telemetry::install_metrics().map_err(AppError::Setup)?;
        // This takes milliseconds, so it runs before requests are accepted. Plugins without cached code become live
        // later.
        let loading = Arc::clone(self);
        let loaded = tokio::task::spawn_blocking(move || {
            loading.retire_views();
            loading.load_cached_plugins()
        });
        let loaded = loaded.await;
        loaded.map_err(|error| {
            AppError::Setup(format!("loading plugins failed because of a bug in Larder: {error}"))
        })??;
        let http = &self.config.http;
        let limits = self.connection_limits();
        let resources = self.resources()?;
        let definitions: Arc<dyn RenewDefinitions> = Arc::<Self>::clone(self);
        let lookups = LookupService::new(
            Arc::clone(&self.current),
            resources.clone(),
            Arc::clone(&definitions),
            Arc::clone(&self.clock),
        );
        let lookups = Arc::new(lookups);
        let writes = http.writes.then(|| Arc::new(WriteService::new(self.writer(), definitions)));
        let router_with = |limits: ConnectionLimits, role| {
            Arc::new(Router::new(Arc::clone(&lookups), Arc::clone(&self.clock), limits, role))
        };
        let router = |role| router_with(limits, role);
        let control = |role| {
            let mut limits = ConnectionLimits { connections_max: CONTROL_CONNECTIONS_MAX, ..limits };
            if matches!(role, ListenerRole::Admin(_)) {
                // Commands connect only to send a request, and idle connections would use up the connection limit.
                limits.header_timeout = limits.header_timeout.min(ADMIN_IDLE_MAX);
            }
            router_with(limits, role)
        };

        let (access, warnings) = Access::open(http)?;
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let (tls, authenticator) = (access.tls.clone(), Arc::clone(&access.authenticator));
        // A server is started only once.
        let _ = self.access.set(access);

        let of = |key| move |source| AppError::Server { key, source };
        let http_writes = writes.clone().map(|service| Arc::new(Writes::new(service)));
        let role = |encrypted| {
            let authenticator = Arc::clone(&authenticator);
            ListenerRole::Data { authenticator, encrypted, writes: http_writes.clone() }
        };
        let encrypted = router(role(tls.is_some()));
        let listener = Listener::tcp(http.listen, tls).await;
        let data = listener.and_then(|listener| Server::start(listener, encrypted, http.workers));
        let data = data.map_err(of("server: listen"))?;
        let mut others = Vec::new();
        if let Some(path) = &http.unix_socket {
            let listener = Listener::unix(path).await;
            let server = listener.and_then(|listener| Server::start(listener, router(role(false)), http.workers));
            others.push(server.map_err(of("server: unix_socket"))?);
        }
        let grpc = self.serve_grpc(Arc::clone(&lookups), writes, Arc::clone(&authenticator), limits).await?;
        let mut metrics_address = None;
        if let Some(address) = self.config.metrics_listen {
            let role = ListenerRole::Metrics(metrics.clone());
            let listener = Listener::tcp(address, None).await;
            let server = listener.and_then(|listener| Server::start(listener, control(role), 1));
            let server = server.map_err(of("metrics: listen"))?;
            metrics_address = server.address();
            others.push(server);
        }
        // The command line connects to a running server here. If the path is invalid, commands do not work, but the
        // server does.
        match Listener::unix(&self.config.admin_socket).await {
            Ok(listener) => {
                let own: Arc<dyn Control> = Arc::<Self>::clone(self);
                let server = Server::start(listener, control(ListenerRole::Admin(own)), 1);
                others.push(server.map_err(of("admin: socket"))?);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot open the admin socket; 'larder sync' cannot reach this server")
            }
        }

        let background = vec![
            tokio::spawn(watch_memory(Arc::clone(self), Arc::clone(&resources.memory))),
            tokio::spawn(keeper::keep(Arc::clone(self), metrics)),
            tokio::spawn(keeper::scan(Arc::clone(self))),
            tokio::spawn(schedule(Arc::clone(self))),
            tokio::spawn(watch_files(Arc::clone(self))),
            tokio::spawn(watch_plugins(Arc::clone(self))),
            tokio::spawn(watch_sources(Arc::clone(self))),
            tokio::spawn(watch_registry(Arc::clone(self))),
        ];
        telemetry::note_reload(true);
        if self.config.sync.on_start {
            self.resync.notify_one();
        }
        Ok(Serving { app: Arc::clone(self), data, grpc, metrics_address, others, background })
    }
}

// === impl App ===

impl App {
    /// Returns the configured limits on connections, with the number of connections that the limit on open files allows.
    fn connection_limits(&self) -> ConnectionLimits {
        let (http, files) = (&self.config.http, raise_file_limit());
        let configured = http.limits.connection;
        let listeners = 1 + usize::from(http.unix_socket.is_some()) + usize::from(self.config.grpc_listen.is_some());
        let connections_max = fit_connections(configured.connections_max, listeners, files);
        if connections_max < configured.connections_max {
            tracing::warn!(
                files,
                connections_max,
                configured = configured.connections_max,
                "the limit on open files allows fewer connections than 'server: limits: connections_max' for each \
                 listener; hint: raise the hard limit (ulimit -Hn, LimitNOFILE)"
            );
        }
        ConnectionLimits { connections_max, ..configured }
    }

    fn writer(&self) -> Arc<dyn CurrentWriter> {
        Arc::new(EngineWriter(Arc::clone(&self.engine)))
    }

    /// Creates the resources that the listeners share: memory for requests, and threads for large requests.
    fn resources(&self) -> Result<Resources, AppError> {
        let limits = &self.config.http.limits;
        let auto = || usize::try_from(default_budget(memory_limit())).unwrap_or(usize::MAX);
        let memory = MemoryBudget::new(limits.in_flight_bytes_max.unwrap_or_else(auto));
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        let compute = Compute::start("large", threads, LARGE_WAITING_MAX)
            .map_err(|error| AppError::Setup(format!("a thread for large requests cannot be started: {error}")))?;
        Ok(Resources::new(memory, Arc::new(compute), limits.answer_bytes_max))
    }
}

// === impl Serving ===

impl Serving {
    /// Returns the address of the data listener.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.data.address()
    }

    /// Returns the address of the gRPC listener, if there is one.
    #[must_use]
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc.as_ref().map(GrpcServer::address)
    }

    /// Returns the address of the metrics listener, if there is one.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Serves until SIGTERM or SIGINT, then calls `stopping` and drains. SIGHUP reloads.
    pub async fn run(self, mut signals: Signals, stopping: impl FnOnce()) -> ShutdownReason {
        let mut reloading = None;
        while signals.next().await == SignalAction::Reload {
            // Runs in the background: a registry that hangs must not delay the next signal.
            let (app, before) = (Arc::clone(&self.app), reloading.take());
            reloading = Some(tokio::spawn(async move {
                if let Some(before) = before {
                    let _: Result<(), JoinError> = before.await;
                }
                reload(&app, "SIGHUP").await;
            }));
        }
        stopping();
        tracing::info!("stopping; waiting for open requests");
        tokio::select! {
            reason = self.stop() => reason,
            () = signals.stop() => ShutdownReason::Hurried,
        }
    }

    /// Drains: after `drain_delay`, no connections are accepted, requests in flight complete, and a running sync ends
    /// at its next commit.
    pub async fn stop(self) -> ShutdownReason {
        self.app.engine.load().stop();
        self.app.plugins.get().into_iter().for_each(Plugins::stop_compiling);
        self.data.announce_stop();
        self.grpc.iter().for_each(GrpcServer::announce_stop);
        self.others.iter().for_each(Server::announce_stop);
        sleep(self.app.config.http.limits.drain_delay).await;
        for task in self.background {
            task.abort();
        }
        // All of them stop concurrently, because they share one limit.
        let grpc = async {
            match self.grpc {
                Some(grpc) => grpc.stop().await,
                None => true,
            }
        };
        let others = join_all(self.others.into_iter().map(Server::stop));
        let (data, grpc, others) = tokio::join!(self.data.stop(), grpc, others);
        let drained = data && grpc && others.into_iter().all(|drained| drained);
        if drained { ShutdownReason::Drained } else { ShutdownReason::Hurried }
    }
}

/// The action of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SignalAction {
    Reload,
    Stop,
}

// === impl Signals ===

impl Signals {
    /// Starts handling signals.
    ///
    /// # Errors
    /// [`AppError::Setup`] if the operating system refuses.
    pub fn listen() -> Result<Self, AppError> {
        let of = |kind| signal(kind).map_err(|error| AppError::Setup(format!("cannot listen to signals: {error}")));
        // A write beyond the limit on file sizes then fails instead of ending the process. The handler stays installed.
        drop(of(SignalKind::from_raw(libc::SIGXFSZ))?);
        let (terminate, interrupt) = (of(SignalKind::terminate())?, of(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, hangup: of(SignalKind::hangup())? })
    }

    async fn next(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.terminate.recv() => SignalAction::Stop,
            _ = self.interrupt.recv() => SignalAction::Stop,
            _ = self.hangup.recv() => SignalAction::Reload,
        }
    }

    async fn stop(&mut self) {
        while self.next().await != SignalAction::Stop {}
    }

    /// Waits for work to end, or for a shutdown.
    pub async fn unless_stopped<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.stop() => None,
        }
    }
}

/// Reloads everything that changed. If there is an error, logs it and keeps the previous state.
async fn reload(app: &Arc<App>, why: &'static str) {
    let reloading = Arc::clone(app);
    let reloaded = tokio::task::spawn_blocking(move || reloading.reload_all()).await;
    let Reloaded { definitions, access } = match reloaded {
        Ok(reloaded) => reloaded,
        Err(error) => {
            tracing::error!(why, %error, "reload failed because of a bug in Larder");
            return;
        }
    };
    note_access(app, why, access);
    match definitions {
        Ok(warnings) => {
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            tracing::info!(why, "definitions reloaded");
        }
        Err(error) => {
            let error = error.brief();
            tracing::error!(why, "reload failed; keeping the previous definitions:\n{error}");
        }
    }
}

/// Reloads keys and tokens only, because a renewed certificate does not require syncing the sources.
async fn renew(app: &Arc<App>, why: &'static str) {
    let renewing = Arc::clone(app);
    match tokio::task::spawn_blocking(move || renewing.renew_access(None)).await {
        Ok(access) => note_access(app, why, access),
        Err(error) => tracing::error!(why, %error, "reload failed because of a bug in Larder"),
    }
}

fn note_access(app: &App, why: &'static str, access: Result<Vec<Problem>, AppError>) {
    describe_gauge!(
        "larder_access_last_reload_success",
        "1 if the last reload of keys and tokens succeeded, 0 if it failed."
    );
    if app.access_files().is_empty() && access.as_ref().is_ok_and(Vec::is_empty) {
        return;
    }
    gauge!("larder_access_last_reload_success").set(if access.is_ok() { 1.0 } else { 0.0 });
    match access {
        Ok(warnings) => {
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            tracing::info!(why, "keys and tokens reloaded");
        }
        Err(error) => tracing::error!(why, "reload of keys or tokens failed; keeping the previous ones:\n{error}"),
    }
}

/// Reloads definitions, configuration, keys and tokens when their files change. Events only wake this task; stamps of
/// the files decide.
async fn watch_files(app: Arc<App>) {
    if app.reload_every().is_zero() {
        return;
    }
    let changes = Arc::new(app.watcher.subscribe());
    let check = || {
        let (app, changes) = (Arc::clone(&app), Arc::clone(&changes));
        // A file system that hangs must not block this runtime, which accepts connections and receives signals.
        tokio::task::spawn_blocking(move || {
            let (definitions, access) = (app.definition_files(), app.access_files());
            // Watch first, so that no change between the check and the watch is missed.
            changes.watch(definitions.iter().chain(&access));
            (app.seen.differ(definitions), app.access_changed())
        })
    };
    loop {
        // A panic there is already logged.
        if let Ok((definitions, access)) = check().await {
            if definitions {
                reload(&app, "a file changed").await;
            } else if access {
                renew(&app, "a file changed").await;
            }
            if definitions || access {
                // The new configuration may name other files, which are not watched yet.
                sleep(RELOAD_PAUSE.min(app.reload_every())).await;
                continue;
            }
        }
        let every = app.definitions_every(app.reload_every());
        if every > RECHECK_EVERY {
            // In this configuration, cached definitions are intended.
            sleep(every).await;
        } else {
            changes.changed(every).await;
        }
    }
}

/// Compiles the plugins that were present at startup, then checks their directory when it changes.
async fn watch_plugins(app: Arc<App>) {
    let compiling = Arc::clone(&app);
    // A panic there is already logged.
    let _ = tokio::task::spawn_blocking(move || compiling.compile_plugins()).await;
    if app.reload_every().is_zero() || app.plugins.get().is_none() {
        return;
    }
    let changes = Arc::new(app.watcher.subscribe());
    loop {
        let (checking, watching) = (Arc::clone(&app), Arc::clone(&changes));
        let check = move || {
            watching.watch(checking.plugins.get().map(Plugins::watched_paths).unwrap_or_default());
            checking.check_plugin_dir(Loading::Compiled);
        };
        let _ = tokio::task::spawn_blocking(check).await;
        changes.changed(PLUGINS_EVERY.min(app.reload_every())).await;
    }
}

/// Watches files of sources, so that the schedule need not sync their views to detect changes.
async fn watch_sources(app: Arc<App>) {
    let changes = Arc::new(app.watcher.subscribe());
    let mut before = FileStamps::new();
    loop {
        let files = app.engine.load().watched_files();
        if files.is_empty() {
            // A reload may add some.
            sleep_until(next_beat(RECHECK_EVERY).into()).await;
            continue;
        }
        let (watching, watched) = (Arc::clone(&changes), files.clone());
        let check = move || {
            watching.watch(&watched);
            (watching.is_covered(), stamps(watched))
        };
        // A panic there is already logged.
        let (is_covered, now) = tokio::task::spawn_blocking(check).await.unwrap_or_default();
        app.scheduler.set_watched_files(if is_covered { files } else { Vec::new() });
        if now != before {
            app.scheduler.note_changed_files();
        }
        before = now;
        changes.changed(RECHECK_EVERY).await;
    }
}

/// Polls the version of a registry in S3, and reloads definitions if it changed.
async fn watch_registry(app: Arc<App>) {
    if app.reload_every().is_zero() {
        return;
    }
    // The last version that was tried. A rejected version is not read repeatedly.
    let mut tried: Option<(ObjectAt, String)> = None;
    loop {
        sleep(app.definitions_every(app.config.sync.registry_every)).await;
        let Some(registry) = app.registry.load_full() else { continue };
        let object = registry.at.clone();
        let aws = Arc::clone(&app.aws);
        // This thread must not wait for S3.
        let version = match tokio::task::spawn_blocking(move || object.version(&aws)).await {
            Ok(Ok(version)) => version,
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot read the registry; keeping the previous definitions");
                continue;
            }
            Err(_) => continue,
        };
        if registry.version.as_ref() == Some(&version) {
            continue;
        }
        let now = Some((registry.at.clone(), version));
        // Without a version, the definitions are from a cached copy, because the registry could not be read.
        if registry.version.is_none() || tried != now {
            reload(&app, "the registry changed").await;
            tried = now;
        }
    }
}

/// Syncs all views after a reload, and each view when it is due: by its `every`, or after a failure. Sleeps until then.
/// Anything that may change when views are due wakes it.
async fn schedule(app: Arc<App>) {
    // While one load writes, the other reads its source. Views with a followed change stream take no slot.
    let slots = Arc::new(Semaphore::new(CONCURRENT_LOADS_MAX));
    let mut syncs = JoinSet::new();
    // The last sync that was started for each view.
    let mut running: HashMap<String, task::Id> = HashMap::new();
    let mut clock_changes = app.clock.changes();
    let mut earliest = Instant::now();
    loop {
        let engine = app.engine.load_full();
        let now = Instant::now();
        let next = engine.next_due(now, |view| !running.contains_key(view));
        let wake_at = next_beat(SCHEDULE_CHECK_EVERY).min(next.unwrap_or(now + SCHEDULE_CHECK_EVERY)).max(earliest);
        let mut skip_recent = false;
        let views: Vec<String> = tokio::select! {
            // Includes views that are being synced, because their syncs may use the previous definitions.
            () = app.resync.notified() => {
                skip_recent = true;
                app.engine.load().views().map(str::to_owned).collect()
            }
            () = sleep_until(wake_at.into()) => {
                let now = Instant::now();
                earliest = now + SCHEDULE_PAUSE;
                engine.due(now).filter(|view| !running.contains_key(*view)).map(str::to_owned).collect()
            }
            Some(ended) = syncs.join_next_with_id() => {
                let ended = ended.map_or_else(|error| error.id(), |(id, ())| id);
                running.retain(|_, sync| *sync != ended);
                continue;
            }
            () = app.scheduler.changed() => continue,
            () = changed(&mut clock_changes) => continue,
        };
        for view in views {
            let sync = syncs.spawn(sync_one(Arc::clone(&app), view.clone(), skip_recent, Arc::clone(&slots)));
            running.insert(view, sync.id());
        }
    }
}

/// Waits until a clock is set. Waits forever if the clock cannot be set.
async fn changed(clock: &mut Option<watch::Receiver<()>>) {
    if let Some(changes) = clock
        && changes.changed().await.is_ok()
    {
        return;
    }
    pending().await
}

async fn sync_one(app: Arc<App>, view: String, skip_recent: bool, slots: Arc<Semaphore>) {
    let engine = app.engine.load_full();
    // The semaphore is never closed.
    let mut slot = if engine.is_followed(&view) { None } else { slots.acquire().await.ok() };
    let commits = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&commits);
    // The result is in the log and in the metrics.
    let mut sync = tokio::task::spawn_blocking(move || {
        let request = SyncRequest { skip_recent, ..SyncRequest::default() };
        let _ = engine.sync(&view, request, &mut |_| _ = counted.fetch_add(1, Ordering::Relaxed));
    });
    let mut seen = 0;
    while slot.is_some() {
        tokio::select! {
            _ = &mut sync => return,
            () = sleep(STALLED_AFTER) => {
                let now = commits.load(Ordering::Relaxed);
                if now == seen {
                    slot = None;
                }
                seen = now;
            }
        }
    }
    let _ = sync.await;
}
