//! Accepts connections and distributes them over worker threads.
//!
//! One task accepts connections and assigns them round-robin to worker threads. Each worker has a single-threaded
//! runtime, so one thread reads a request, answers it and writes the response, unless a part of the work is offloaded.
//! Each wait for a client has a time limit: `timer` has the limit for headers, `request_body` for bodies, and
//! `limited_io` for responses. TLS handshakes and the shutdown are limited in this module.

use std::{
    convert::Infallible,
    error::Error,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    path::Path,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    thread,
    time::Duration,
};

use larder_common::compute::{WRITE_NICE, lower_priority};
use larder_ingest::LAST_COMMIT_WITHIN;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    runtime::Builder,
    sync::{Semaphore, mpsc, watch},
    time::timeout,
};

use super::{
    Router, Tls,
    connection::{ConnectionContext, Phase, serve_connection},
    limited_io::{LimitedIo, LingerFlag},
    socket::{self, SocketFile},
    timer,
};

/// A running server. [`Server::stop`] drains it.
#[derive(Debug)]
pub struct Server {
    address: Option<SocketAddr>,
    router: Arc<Router>,
    phase: watch::Sender<Phase>,
    open: Arc<AtomicUsize>,
    workers: Vec<thread::JoinHandle<()>>,
    accepting: tokio::task::JoinHandle<()>,
    /// The file of a Unix socket, which is removed when the server stops.
    socket_file: Option<SocketFile>,
}

/// A bound listener.
#[derive(Debug)]
pub enum Listener {
    /// On a TCP port.
    Tcp(TcpListener),
    /// On a TCP port, encrypted.
    Tls(TcpListener, Arc<Tls>),
    /// On a Unix socket.
    Unix(UnixListener, SocketFile),
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address or path cannot be bound, for example because it is in use.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address or path.
        address: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A thread or runtime could not be started.
    #[error("cannot start a worker thread: {0}")]
    Worker(#[from] io::Error),
}

enum Connection {
    Tcp(std::net::TcpStream, SocketAddr),
    Tls(std::net::TcpStream, SocketAddr, Arc<Tls>),
    Unix(std::os::unix::net::UnixStream),
}

/// Counts a connection as open until the guard is dropped.
struct OpenGuard {
    open: Arc<AtomicUsize>,
    router: Arc<Router>,
}

/// The pause after an accept error such as too many open files: long enough to use no noticeable processor time, and
/// short enough to delay new connections only slightly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The time limit for all workers to end, after the connections have ended or were dropped.
const WORKERS_END_WITHIN: Duration = Duration::from_secs(1);

/// The limit on connections that are queued for a worker.
const HANDOVER_MAX: usize = 1_024;

// === impl Listener ===

impl Listener {
    /// Binds a TCP address, with TLS if it is configured.
    ///
    /// # Errors
    /// [`ServerError::Bind`].
    pub async fn tcp(address: SocketAddr, tls: Option<Arc<Tls>>) -> Result<Self, ServerError> {
        let bind = |source| ServerError::Bind { address: address.to_string(), source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        Ok(match tls {
            None => Self::Tcp(listener),
            Some(tls) => Self::Tls(listener, tls),
        })
    }

    /// Binds a Unix socket that only its owner can open. Replaces a stale socket of a dead process. Fails if anything
    /// else is at the path.
    ///
    /// # Errors
    /// [`ServerError::Bind`].
    pub async fn unix(path: &Path) -> Result<Self, ServerError> {
        use std::os::unix::fs::PermissionsExt;
        let bind = |source| ServerError::Bind { address: path.display().to_string(), source };
        socket::vacate(path).map_err(bind)?;
        let listener = UnixListener::bind(path).map_err(bind)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(bind)?;
        Ok(Self::Unix(listener, SocketFile::of(path).map_err(bind)?))
    }

    async fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Tcp(listener) => {
                let (stream, client) = accept_tcp(listener).await?;
                Ok(Connection::Tcp(stream, client))
            }
            Self::Tls(listener, tls) => {
                let (stream, client) = accept_tcp(listener).await?;
                Ok(Connection::Tls(stream, client, Arc::clone(tls)))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok(Connection::Unix(stream.into_std()?))
            }
        }
    }
}

async fn accept_tcp(listener: &TcpListener) -> io::Result<(std::net::TcpStream, SocketAddr)> {
    let (stream, client) = listener.accept().await?;
    // Responses are written immediately: waiting to fill a packet would only delay them.
    stream.set_nodelay(true)?;
    Ok((stream.into_std()?, client))
}

// === impl Server ===

impl Server {
    /// Starts serving a listener with `workers` threads.
    ///
    /// # Errors
    /// [`ServerError::Worker`].
    pub fn start(listener: Listener, router: Arc<Router>, workers: usize) -> Result<Self, ServerError> {
        let (address, socket_file) = match &listener {
            Listener::Tcp(listener) | Listener::Tls(listener, _) => (listener.local_addr().ok(), None),
            Listener::Unix(_, file) => (None, Some(file.clone())),
        };
        let (phase, phases) = watch::channel(Phase::Serving);
        let open = Arc::new(AtomicUsize::new(0));
        let mut senders = Vec::with_capacity(workers);
        let mut threads = Vec::with_capacity(workers);
        for i in 0..workers.max(1) {
            let (sender, receiver) = mpsc::channel(HANDOVER_MAX);
            senders.push(sender);
            // The runtime's blocking threads run writes, which must not delay lookups.
            let runtime =
                Builder::new_current_thread().enable_all().on_thread_start(|| lower_priority(WRITE_NICE)).build()?;
            let (router, phases) = (Arc::clone(&router), phases.clone());
            let serve = move || {
                runtime.block_on(serve(receiver, router, phases));
                // Dropping the runtime would wait for blocking work that requests started, however long that takes.
                runtime.shutdown_background();
            };
            threads.push(thread::Builder::new().name(format!("serve-{i}")).spawn(serve)?);
        }
        let accepting = accept(listener, senders, Arc::clone(&router), Arc::clone(&open), phases);
        let accepting = tokio::spawn(accepting);
        Ok(Self { address, router, phase, open, workers: threads, accepting, socket_file })
    }

    /// Returns the TCP address of the listener. If port 0 is configured, it has the port that was assigned.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Makes `/ready` report from now on that the server is stopping. Everything else continues, but requests that wait
    /// for a materialization or a command get an error after [`LAST_COMMIT_WITHIN`].
    pub fn announce_stop(&self) {
        self.router.set_stopping();
        let router = Arc::clone(&self.router);
        tokio::spawn(async move {
            tokio::time::sleep(LAST_COMMIT_WITHIN).await;
            router.abort_waits();
        });
    }

    /// Stops accepting connections, waits until all connections have ended, but not longer than the drain timeout, and
    /// drops the remaining connections. Returns true if all connections and all workers ended in time.
    pub async fn stop(self) -> bool {
        self.router.set_stopping();
        self.phase.send_replace(Phase::Draining);
        self.accepting.abort();
        self.socket_file.iter().for_each(SocketFile::remove);
        let drained = async {
            while self.open.load(Ordering::Acquire) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let drained = timeout(self.router.limits().drain_timeout, drained).await.is_ok();
        self.phase.send_replace(Phase::Ended);
        let ended = async {
            while !self.workers.iter().all(thread::JoinHandle::is_finished) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        // The workers have no connections any more, so they normally end now. A worker that hangs is ended with the
        // process.
        drained && timeout(WORKERS_END_WITHIN, ended).await.is_ok()
    }
}

async fn accept(
    listener: Listener,
    workers: Vec<mpsc::Sender<(Connection, OpenGuard)>>,
    router: Arc<Router>,
    open: Arc<AtomicUsize>,
    mut phases: watch::Receiver<Phase>,
) {
    for next in (0..workers.len()).cycle() {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = phases.changed() => return,
        };
        match accepted {
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            Ok(_) if open.load(Ordering::Acquire) >= router.limits().connections_max => {
                router.metrics.connections_refused.increment(1);
            }
            Ok(connection) => {
                let guard = OpenGuard::new(&open, &router);
                if workers[next].send((connection, guard)).await.is_err() {
                    tracing::error!("a worker thread stopped unexpectedly");
                }
            }
        }
    }
}

/// Runs a worker: serves connections until the server stops and the last connection has ended.
async fn serve(
    mut connections: mpsc::Receiver<(Connection, OpenGuard)>,
    router: Arc<Router>,
    mut phases: watch::Receiver<Phase>,
) {
    let handshakes = Arc::new(Semaphore::new(1));
    let clock = tokio::spawn(timer::run(timer::tick_for(router.limits().header_timeout)));
    // Each connection holds a sender until it ends. Nothing is ever sent on this channel.
    let (alive, mut all_ended) = mpsc::channel::<Infallible>(1);
    while let Some((connection, guard)) = connections.recv().await {
        let (router, phases, alive) = (Arc::clone(&router), phases.clone(), alive.clone());
        let handshakes = Arc::clone(&handshakes);
        tokio::spawn(async move {
            let _until_the_end = (guard, alive);
            let bound = router.limits().write_timeout;
            let context = ConnectionContext { router, phases, linger: LingerFlag::default() };
            let linger = context.linger.clone();
            let served = match connection {
                Connection::Tcp(stream, client) => match TcpStream::from_std(stream) {
                    Ok(stream) => serve_connection(LimitedIo::new(stream, bound, linger), Some(client), context).await,
                    Err(_) => return,
                },
                Connection::Tls(stream, client, tls) => match TcpStream::from_std(stream) {
                    Ok(stream) => {
                        // Boxed, so that connections without TLS do not take the memory for it.
                        Box::pin(serve_encrypted(
                            LimitedIo::new(stream, bound, linger),
                            client,
                            &tls,
                            &handshakes,
                            context,
                        ))
                        .await
                    }
                    Err(_) => return,
                },
                Connection::Unix(stream) => match UnixStream::from_std(stream) {
                    Ok(stream) => serve_connection(LimitedIo::new(stream, bound, linger), None, context).await,
                    Err(_) => return,
                },
            };
            // Clients that disconnect, are slow or do not speak HTTP are not errors of the server.
            if let Err(error) = served {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    // From now on, only connections hold senders. If the phase becomes `Ended` first, the remaining connections are
    // dropped on return.
    drop(alive);
    tokio::select! {
        _ = all_ended.recv() => {}
        _ = phases.wait_for(|phase| *phase == Phase::Ended) => {}
    }
    clock.abort();
}

/// Completes the TLS handshake within the header timeout, then serves the connection. When the server stops, incomplete
/// handshakes are dropped, because their connections have no request in flight.
async fn serve_encrypted<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    client: SocketAddr,
    tls: &Tls,
    handshakes: &Semaphore,
    mut context: ConnectionContext,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let handshake = poll_one_at_a_time(handshakes, tls.handshake(stream));
    let result = tokio::select! {
        result = timeout(context.router.limits().header_timeout, handshake) => result,
        _ = context.phases.wait_for(|phase| *phase != Phase::Serving) => return Ok(()),
    };
    let error = match result {
        Ok(Ok(stream)) => return serve_connection(stream, Some(client), context).await,
        Ok(Err(error)) => error,
        Err(_) => io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long"),
    };
    context.router.metrics.handshakes_failed.increment(1);
    // Logged at `debug` only: scanners, plain HTTP, and certificates that one side rejects are common causes.
    tracing::debug!(%error, "TLS handshake failed");
    Ok(())
}

/// Waits for `work`. Only one of the futures that share the semaphore is polled at a time. Between two polls, the
/// runtime polls for I/O events and serves ready connections. Without this, TLS handshakes would delay them, because
/// one poll of a handshake computes for up to a millisecond.
async fn poll_one_at_a_time<T>(semaphore: &Semaphore, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        // The semaphore is never closed.
        let mut permit = semaphore.acquire().await.ok();
        tokio::task::yield_now().await;
        let mut is_polled = false;
        let done = poll_fn(|cx| {
            if std::mem::replace(&mut is_polled, true) {
                return Poll::Ready(None);
            }
            let done = work.as_mut().poll(cx).map(Some);
            // If `work` is pending, it wakes this task later.
            permit = None;
            done
        });
        if let Some(value) = done.await {
            return value;
        }
    }
}

// === impl OpenGuard ===

impl OpenGuard {
    fn new(open: &Arc<AtomicUsize>, router: &Arc<Router>) -> Self {
        open.fetch_add(1, Ordering::AcqRel);
        router.metrics.connections.increment(1.0);
        Self { open: Arc::clone(open), router: Arc::clone(router) }
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
        self.router.metrics.connections.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn handshakes_yield_to_other_work() {
        const HANDSHAKES: usize = 20;
        let polls = Arc::new(Mutex::new(Vec::new()));
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let semaphore = Arc::new(Semaphore::new(1));
            let shaking = (0..HANDSHAKES).map(|_| {
                let (semaphore, polls) = (Arc::clone(&semaphore), Arc::clone(&polls));
                tokio::spawn(async move {
                    let mut left = 3;
                    let work = poll_fn(|cx| {
                        polls.lock().unwrap().push("handshake");
                        left -= 1;
                        cx.waker().wake_by_ref();
                        if left == 0 { Poll::Ready(()) } else { Poll::Pending }
                    });
                    poll_one_at_a_time(&semaphore, work).await;
                })
            });
            let shaking: Vec<_> = shaking.collect();
            let other = tokio::spawn({
                let polls = Arc::clone(&polls);
                async move {
                    loop {
                        polls.lock().unwrap().push("other");
                        tokio::task::yield_now().await;
                    }
                }
            });
            for one in shaking {
                one.await.unwrap();
            }
            other.abort();
        });
        let polls = polls.lock().unwrap();
        assert_eq!(polls.iter().filter(|poll| **poll == "handshake").count(), 3 * HANDSHAKES);
        assert!(!polls.windows(3).any(|polls| polls == ["handshake"; 3]), "{polls:?}");
    }
}
