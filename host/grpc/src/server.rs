//! Listening, and the life of a connection.
//!
//! Threads of their own answer: a lookup blocks while it reads the store file, and must hold up neither schedules nor
//! HTTP. Every wait has a bound: a message's in [`Calls`], all others are looked at here, a few times in each bound's
//! time. A peer that is gone without a word is found by HTTP/2's pings.

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

use super::{Calls, calls::received, in_flight::InFlightCalls};

/// A gRPC server that listens. [`GrpcServer::stop`] drains it.
#[derive(Debug)]
pub struct GrpcServer {
    address: SocketAddr,
    calls: Arc<Calls>,
    phase: watch::Sender<Phase>,
    open: Arc<AtomicUsize>,
    /// There until the server is dropped.
    runtime: Option<Runtime>,
}

/// Why a gRPC server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum GrpcServerError {
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The threads could not be started.
    #[error("cannot start threads: {0}")]
    Threads(#[source] io::Error),
}

/// How a server's life goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// As before, save that it says that it is not healthy.
    UnsentBody,
    /// Connections end once they have answered what is under way.
    Draining,
}

/// Counts an open connection for as long as it lives.
struct OpenGuard {
    open: Arc<AtomicUsize>,
    calls: Arc<Calls>,
}

/// How long accepting rests after an error such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Calls under way on one connection; a client that has more waits with them. The least that HTTP/2 recommends is 100.
const STREAMS_MAX: u32 = 128;

/// Bytes of a call's headers. A token has its place in them, and little else.
const HEADER_BYTES_MAX: u32 = 16 << 10;

/// Bytes of answers that a connection holds for a client that reads slower than it asks; each call's.
const SEND_BUFFER_BYTES: usize = 64 << 10;

/// How many bytes a client may send before they are read, for each call and each connection.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 128 << 10;

/// The interval at which the time limits of a connection are checked: a quarter of the shortest one, within these
/// bounds.
const CHECK_EVERY_MAX: Duration = Duration::from_secs(5);
const CHECK_EVERY_MIN: Duration = Duration::from_millis(10);
/// The longest interval of checks after a connection was told to end: a client that only watches keeps it open.
const CHECK_ENDING_EVERY_MAX: Duration = Duration::from_millis(250);

/// How often readiness is polled while a stream is open.
const HEALTH_EVERY: Duration = Duration::from_secs(1);

// === impl GrpcServer ===

impl GrpcServer {
    /// Starts to answer on an address with `workers` threads. It has no TLS.
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
            // The listener is polled by the threads that answer.
            let _inside = runtime.enter();
            TcpListener::from_std(listener).map_err(bind)?
        };
        calls.report(false).await;
        runtime.spawn(report(Arc::clone(&calls), phases.clone()));
        runtime.spawn(accept(listener, Arc::clone(&calls), Arc::clone(&open), phases));
        Ok(Self { address, calls, phase, open, runtime: Some(runtime) })
    }

    /// The address that is listened on; with port 0 in the configuration, the port that was found.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From here on health says that the server stops; all else goes on.
    pub fn announce_stop(&self) {
        self.phase.send_replace(Phase::UnsentBody);
    }

    /// Stops accepting, lets calls under way end within the drain's bound, and closes. True if all ended.
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
        // What is left is dropped. To wait for it here could block a thread that others need.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Reports changes of readiness to health watches, until the server stops. Changes in the store are notified; others,
/// such as a registry that arrives, are polled, but only while a stream is open.
async fn report(calls: Arc<Calls>, mut phases: watch::Receiver<Phase>) {
    let mut changes = calls.readiness_changes();
    while *phases.borrow_and_update() == Phase::Serving {
        changes.mark_unchanged();
        calls.refresh_health().await;
        let has_streams = calls.has_streams();
        tokio::select! {
            _ = phases.changed() => {}
            // The store, which has the sender, lives as long as the features.
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
                tracing::warn!(%error, "cannot accept a gRPC connection");
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

/// A connection's life.
async fn serve(stream: TcpStream, client: SocketAddr, guard: OpenGuard, mut phases: watch::Receiver<Phase>) {
    // Answers are written at once; waiting to fill a packet only delays them. Where it cannot be had, it goes without.
    let _ = stream.set_nodelay(true);
    let limits = *guard.calls.limits();
    let in_flight = InFlightCalls::new();
    let (calls, own) = (Arc::clone(&guard.calls), Arc::clone(&in_flight));
    let service = service_fn(move |request| {
        let (calls, in_flight) = (Arc::clone(&calls), Arc::clone(&own));
        // Not inside the future: hyper accepts all requests of a read before it polls the first one, so their headers
        // would pile up.
        let request = received(request);
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
        .keep_alive_interval(limits.answer_timeout)
        .keep_alive_timeout(limits.answer_timeout);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let shortest = limits.idle_timeout.min(limits.answer_timeout);
    let every = (shortest / 4).clamp(CHECK_EVERY_MIN, CHECK_EVERY_MAX);
    let checks_every = |every| {
        let mut checks = interval(every);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        checks
    };
    let mut checks = checks_every(every);
    // Whether it was told to end, and since when nothing keeps it from ending.
    let (mut is_told, mut is_done) = (false, false);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                // Clients that go away, are slow or speak no HTTP/2: their business, and theirs to see.
                if let Err(error) = ended {
                    tracing::debug!(%error, "gRPC connection ended");
                }
                return;
            }
            _ = phases.wait_for(|phase| *phase == Phase::Draining), if !is_told => {
                is_told = true;
                connection.as_mut().graceful_shutdown();
                checks = checks_every(every.min(CHECK_ENDING_EVERY_MAX));
            }
            _ = checks.tick() => {
                if in_flight.is_unread(limits.answer_timeout) {
                    tracing::debug!("gRPC connection closed: its client does not read");
                    return;
                }
                if is_told {
                    // Two checks in a row, so that a last answer is out. A client that only watches would stay forever.
                    if std::mem::replace(&mut is_done, !in_flight.has_calls()) && is_done {
                        return;
                    }
                } else if in_flight.is_idle(limits.idle_timeout) {
                    is_told = true;
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
