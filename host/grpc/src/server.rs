//! Accepts connections, and enforces their time limits.
//!
//! The server has its own threads, because a lookup blocks its thread while it reads the store file, and must delay
//! neither schedules nor HTTP. Every wait for a client has a time limit. [`Calls`] limits the wait for a message. This
//! module limits how long a connection may be idle, how long a client may take to read a response, and how long the
//! shutdown may take. HTTP/2 pings detect clients that are gone without having closed the connection.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::watch,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{Calls, calls::reduced, in_flight::InFlightCalls};

/// A running gRPC server. [`GrpcServer::stop`] drains it.
#[derive(Debug)]
pub struct GrpcServer {
    address: SocketAddr,
    calls: Arc<Calls>,
    phase: watch::Sender<Phase>,
    open: Arc<AtomicUsize>,
    /// `None` only after the server was dropped.
    runtime: Option<Runtime>,
}

/// Why a gRPC server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum GrpcServerError {
    /// The address is in use, or does not belong to this machine.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The threads cannot be started.
    #[error("cannot start threads: {0}")]
    Threads(#[source] io::Error),
}

/// The phases of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Calls are served as before, but the health service reports that the server is not serving.
    Stopping,
    /// Each connection is closed once its calls in flight are answered.
    Draining,
}

/// Counts a connection as open until it is dropped.
struct OpenGuard {
    open: Arc<AtomicUsize>,
    calls: Arc<Calls>,
}

/// The pause after an accept error such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The maximum number of calls in flight on one connection. The client must delay further calls. HTTP/2 recommends a
/// limit of at least 100.
const STREAMS_MAX: u32 = 128;

/// The maximum size of a call's headers in bytes: enough for a token, and little else.
const HEADER_BYTES_MAX: u32 = 16 << 10;

/// The maximum number of response bytes that a connection buffers for each call, if its client reads slowly.
const SEND_BUFFER_BYTES: usize = 64 << 10;

/// The number of bytes that a client may send before they are read, for each call, and for each connection.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 128 << 10;

/// The bounds of the interval at which the time limits of a connection are checked. The interval is a quarter of the
/// header timeout or the write timeout, whichever is shorter.
const CHECK_EVERY_MAX: Duration = Duration::from_secs(5);
const CHECK_EVERY_MIN: Duration = Duration::from_millis(10);
/// The maximum interval between checks once a connection is shutting down. If a client has an open health watch, only these
/// checks close its connection.
const CHECK_ENDING_EVERY_MAX: Duration = Duration::from_millis(250);

/// The interval at which readiness is polled while a stream is open.
const HEALTH_EVERY: Duration = Duration::from_secs(1);

// === impl GrpcServer ===

impl GrpcServer {
    /// Starts serving an address with `workers` threads, without TLS.
    ///
    /// # Errors
    /// [`GrpcServerError`].
    pub async fn start(address: SocketAddr, calls: Calls, workers: usize) -> Result<Self, GrpcServerError> {
        let bind = |source| GrpcServerError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let listener = listener.into_std().map_err(bind)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(workers.max(1))
            .thread_name("grpc")
            .enable_all()
            .build()
            .map_err(GrpcServerError::Threads)?;
        let (phase, phases) = watch::channel(Phase::Serving);
        let (calls, open) = (Arc::new(calls), Arc::new(AtomicUsize::new(0)));
        let listener = {
            // The listener must be polled by the server's own threads.
            let _inside = runtime.enter();
            TcpListener::from_std(listener).map_err(bind)?
        };
        calls.report(false).await;
        runtime.spawn(report(Arc::clone(&calls), phases.clone()));
        runtime.spawn(accept(listener, Arc::clone(&calls), Arc::clone(&open), phases));
        Ok(Self { address, calls, phase, open, runtime: Some(runtime) })
    }

    /// Returns the TCP address of the listener. If port 0 is configured, it has the port that was assigned.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes the health service report from now on that the server is not serving. Calls are still served.
    pub fn announce_stop(&self) {
        self.phase.send_replace(Phase::Stopping);
    }

    /// Stops accepting connections, and waits until all connections have ended, but not longer than the drain timeout.
    /// Then drops the remaining connections. Returns true if all connections ended in time.
    pub async fn stop(self) -> bool {
        self.phase.send_replace(Phase::Draining);
        let drained = async {
            while self.open.load(Ordering::Acquire) > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(self.calls.limits().drain_timeout, drained).await.is_ok()
    }
}

impl Drop for GrpcServer {
    fn drop(&mut self) {
        // The remaining tasks are dropped. Waiting for them here could block a thread that others need.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Reports changes in readiness to health watches, until the server stops. The store notifies this task when its health
/// may have changed. Other changes, such as a registry that becomes available, are polled, but only while a stream is
/// open.
async fn report(calls: Arc<Calls>, mut phases: watch::Receiver<Phase>) {
    let mut changes = calls.readiness_changes();
    while *phases.borrow_and_update() == Phase::Serving {
        changes.mark_unchanged();
        calls.refresh_health().await;
        let has_streams = calls.has_streams();
        tokio::select! {
            _ = phases.changed() => {}
            // The store, which has the sender, lives as long as `calls`.
            _ = changes.changed() => {}
            () = calls.stream_began(), if !has_streams => {}
            () = sleep(HEALTH_EVERY), if has_streams => {}
        }
    }
    calls.report_stop().await;
}

async fn accept(listener: TcpListener, calls: Arc<Calls>, open: Arc<AtomicUsize>, mut phases: watch::Receiver<Phase>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = phases.wait_for(|phase| *phase == Phase::Draining) => return,
        };
        match accepted {
            Err(error) => {
                tracing::warn!(%error, "accepting a gRPC connection failed");
                sleep(ACCEPT_PAUSE).await;
            }
            Ok(_) if open.load(Ordering::Acquire) >= calls.limits().connections_max => {
                calls.metrics.connections_refused.increment(1);
            }
            Ok((stream, client)) => {
                let guard = OpenGuard::new(&open, &calls);
                tokio::spawn(serve(stream, client, guard, phases.clone()));
            }
        }
    }
}

/// Serves a connection until it ends.
async fn serve(stream: TcpStream, client: SocketAddr, guard: OpenGuard, mut phases: watch::Receiver<Phase>) {
    // Responses are written immediately, because waiting to fill a packet would only delay them. If this fails,
    // responses are delayed, which is not an error.
    let _ = stream.set_nodelay(true);
    let limits = *guard.calls.limits();
    let in_flight = InFlightCalls::new();
    let (calls, own) = (Arc::clone(&guard.calls), Arc::clone(&in_flight));
    let service = service_fn(move |request| {
        let (calls, in_flight) = (Arc::clone(&calls), Arc::clone(&own));
        // The request is reduced here and not inside the future, because hyper accepts all requests of a read before it
        // polls the first future. The headers of all these requests would be in memory at once.
        let request = reduced(request);
        async move { Ok::<_, Infallible>(calls.answer(request, &in_flight, Some(client)).await) }
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(limits.write_timeout)
        .keep_alive_timeout(limits.write_timeout);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let shortest = limits.header_timeout.min(limits.write_timeout);
    let every = (shortest / 4).clamp(CHECK_EVERY_MIN, CHECK_EVERY_MAX);
    let checks_every = |every| {
        let mut checks = interval(every);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        checks
    };
    let mut checks = checks_every(every);
    // Whether the connection began to shut down, and whether the last check found no unary call in flight.
    let (mut is_closing, mut is_done) = (false, false);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                // Clients that disconnect, are slow or do not speak HTTP/2 are not errors of the server.
                if let Err(error) = ended {
                    tracing::debug!(%error, "gRPC connection ended");
                }
                return;
            }
            _ = phases.wait_for(|phase| *phase == Phase::Draining), if !is_closing => {
                is_closing = true;
                connection.as_mut().graceful_shutdown();
                checks = checks_every(every.min(CHECK_ENDING_EVERY_MAX));
            }
            _ = checks.tick() => {
                if in_flight.is_unread(limits.write_timeout) {
                    tracing::debug!("gRPC connection closed because its client does not read responses");
                    return;
                }
                if is_closing {
                    // Two checks in a row ensure that the last response is sent. A client with only a health watch
                    // would never disconnect.
                    if std::mem::replace(&mut is_done, !in_flight.has_calls()) && is_done {
                        return;
                    }
                } else if in_flight.is_idle(limits.header_timeout) {
                    is_closing = true;
                    connection.as_mut().graceful_shutdown();
                    checks = checks_every(every.min(CHECK_ENDING_EVERY_MAX));
                }
            }
        }
    }
}

// === impl OpenGuard ===

impl OpenGuard {
    fn new(open: &Arc<AtomicUsize>, calls: &Arc<Calls>) -> Self {
        open.fetch_add(1, Ordering::AcqRel);
        calls.metrics.connections.increment(1.0);
        Self { open: Arc::clone(open), calls: Arc::clone(calls) }
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
        self.calls.metrics.connections.decrement(1.0);
    }
}
