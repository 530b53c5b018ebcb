//! A server with its listeners: from startup to drain.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use larder_common::{
    compute::Compute,
    memory::{MemoryBudget, default_budget, memory_limit},
    telemetry,
};
use larder_http::{Control, Listener, ListenerRole, Router, Server, Writes};
use larder_ingest::CurrentWriter;
use larder_serving::{ConnectionLimits, LookupService, RenewDefinitions, Resources, WriteService};
use tokio::{
    task::{JoinError, JoinHandle},
    time::sleep,
};

use super::{
    App, AppError,
    access::Access,
    changes::{reload, watch_files, watch_plugins, watch_registry, watch_rollouts, watch_sources},
    files::{ADMIN_IDLE_MAX, CONTROL_CONNECTIONS_MAX, fit_connections, raise_file_limit},
    grpc::GrpcServer,
    keeper,
    plugins::Plugins,
    pressure::watch_memory,
    schedule::schedule,
    signals::{SignalAction, Signals},
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

/// Why a server stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownReason {
    /// All requests in flight completed.
    Drained,
    /// The drain timed out, or a second signal arrived.
    Hurried,
}

/// The minimum time for the feature log, and for captures, to write their files during a shutdown. Clients that use up the
/// drain time must not prevent this.
const LOG_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// The maximum number of large requests that wait for a thread. Further large requests are rejected.
const LARGE_WAITING_MAX: usize = 256;

// === impl App ===

impl App {
    /// Loads the plugins that have cached code, binds the listeners and starts the background tasks, such as the
    /// compilation of other plugins, the first sync, the scheduler, and the file watchers. When this function returns,
    /// requests are served; `/ready` reports when all views and plugins are loaded.
    ///
    /// # Errors
    /// [`AppError::Config`] if a key or a token cannot be read, [`AppError::Server`] or [`AppError::Grpc`] if a
    /// listener cannot be started, [`AppError::Plugin`], and [`AppError::Setup`].
    pub async fn serve(self: &Arc<Self>) -> Result<Serving, AppError> {
        let metrics = telemetry::install_metrics().map_err(AppError::Setup)?;
        // Loading cached plugins takes milliseconds, so it runs before requests are accepted. Plugins without cached
        // code become live later.
        let loading = Arc::clone(self);
        let loaded = tokio::task::spawn_blocking(move || {
            loading.retire_views();
            loading.load_cached_plugins()
        });
        let loaded = loaded.await;
        loaded.map_err(|error| {
            AppError::Setup(format!("loading plugins failed because of a bug in Larder: {error}"))
        })??;
        let is_compiling = self.plugins.get().is_some_and(Plugins::is_compiling);
        self.current.readiness().set_awaits_plugins(is_compiling && self.lacks_plugins());
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
                // Commands send a request as soon as they are connected, so idle connections are closed early.
                // Otherwise, they would use up the limit on connections.
                limits.header_timeout = limits.header_timeout.min(ADMIN_IDLE_MAX);
            }
            router_with(limits, role)
        };

        let (access, warnings) = Access::open(http)?;
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let (tls, authenticator) = (access.tls.clone(), Arc::clone(&access.authenticator));
        // `set` cannot fail, because a server is started only once.
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
        // The command line connects to the server through this socket. If the socket cannot be opened, only commands do
        // not work.
        match Listener::unix(&self.config.admin_socket).await {
            Ok(listener) => {
                let own: Arc<dyn Control> = Arc::<Self>::clone(self);
                let server = Server::start(listener, control(ListenerRole::Admin(own)), 1);
                others.push(server.map_err(of("admin: socket"))?);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot open the admin socket; 'larder sync' and other commands cannot reach this server")
            }
        }

        let background = vec![
            tokio::spawn(watch_memory(Arc::clone(self), Arc::clone(&resources.memory))),
            tokio::spawn(keeper::keep(Arc::clone(self), metrics)),
            tokio::spawn(keeper::scan(Arc::clone(self))),
            tokio::spawn(schedule(Arc::clone(self))),
            tokio::spawn(watch_files(Arc::clone(self))),
            tokio::spawn(watch_plugins(Arc::clone(self))),
            tokio::spawn(watch_rollouts(Arc::clone(self))),
            tokio::spawn(watch_sources(Arc::clone(self))),
            tokio::spawn(watch_registry(Arc::clone(self))),
        ];
        self.apply_logging(&self.loaded_by.load());
        telemetry::note_reload(true);
        if self.config.sync.on_start {
            self.resync.notify_one();
        }
        Ok(Serving { app: Arc::clone(self), data, grpc, metrics_address, others, background })
    }
}

// === impl App ===

impl App {
    /// Returns the configured limits on connections. If the limit on open files is low, reduces the number of
    /// connections.
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
                 listener. hint: raise the hard limit (ulimit -Hn, LimitNOFILE)"
            );
        }
        ConnectionLimits { connections_max, ..configured }
    }

    /// Returns whether a derived view has no plugin. The plugin may have to be compiled, or may not be deployed yet.
    fn lacks_plugins(&self) -> bool {
        let snapshot = self.current.load();
        let mut views = 0..snapshot.catalog().derived_views().len();
        views.any(|view| snapshot.transforms().get(view).is_none())
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

    /// Serves until SIGTERM or SIGINT, then calls `stopping` and drains. On SIGHUP, reloads.
    pub async fn run(self, mut signals: Signals, stopping: impl FnOnce()) -> ShutdownReason {
        let mut reloading = None;
        while signals.next().await == SignalAction::Reload {
            // The reload runs in the background, because a registry that hangs must not delay the next signal.
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

    /// Drains the server. A running sync ends at its next commit. After `drain_delay`, listeners accept no more
    /// connections, and requests in flight have until `drain_timeout` to complete. The feature log and captures are written in
    /// the rest of this time, or at least in [`LOG_TIMEOUT_MIN`].
    pub async fn stop(self) -> ShutdownReason {
        let limits = &self.app.config.http.limits;
        let drained_by = Instant::now() + limits.drain_delay + limits.connection.drain_timeout;
        self.app.engine.load().stop();
        self.app.plugins.get().into_iter().for_each(Plugins::stop_compiling);
        self.data.announce_stop();
        self.grpc.iter().for_each(GrpcServer::announce_stop);
        self.others.iter().for_each(Server::announce_stop);
        sleep(self.app.config.http.limits.drain_delay).await;
        for task in self.background {
            task.abort();
        }
        // All listeners stop concurrently, because one timeout applies to all of them.
        let grpc = async {
            match self.grpc {
                Some(grpc) => grpc.stop().await,
                None => true,
            }
        };
        let others = join_all(self.others.into_iter().map(Server::stop));
        let (data, grpc, others) = tokio::join!(self.data.stop(), grpc, others);
        let drained = data && grpc && others.into_iter().all(|drained| drained);
        let app = Arc::clone(&self.app);
        let within = drained_by.saturating_duration_since(Instant::now()).max(LOG_TIMEOUT_MIN);
        // The panic hook has already logged a panic of the task.
        if !tokio::task::spawn_blocking(move || app.feature_log.stop(within)).await.unwrap_or_default() {
            tracing::warn!("the feature log was not written completely before the end of the shutdown");
        }
        let app = Arc::clone(&self.app);
        let within = drained_by.saturating_duration_since(Instant::now()).max(LOG_TIMEOUT_MIN);
        let captured = move || app.plugins.get().is_none_or(|plugins| plugins.stop_captures(within));
        if !tokio::task::spawn_blocking(captured).await.unwrap_or_default() {
            tracing::warn!("the captures of plugin calls were not written completely before the end of the shutdown");
        }
        if drained { ShutdownReason::Drained } else { ShutdownReason::Hurried }
    }
}
