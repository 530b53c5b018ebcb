//! Serves one connection. The fast path serves lookups until it receives a request that it cannot serve. From that
//! request on, hyper serves all requests of the connection.

use std::{
    error::Error,
    future::poll_fn,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};

use super::{
    Router,
    fast_path::{FastConnection, Next, is_lookup},
    framing::{Framed, HEAD_BYTES_MAX},
    limited_io::{LingerFlag, yield_to_events},
    prefixed_io::PrefixedIo,
    timer::CoarseTimer,
};

/// The phases of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    /// Each connection ends once the requests that have begun are answered.
    Draining,
    /// The remaining connections are dropped.
    Ended,
}

/// The state of the server that a connection uses.
pub(super) struct ConnectionContext {
    pub(super) router: Arc<Router>,
    pub(super) phases: watch::Receiver<Phase>,
    pub(super) linger: LingerFlag,
}

/// Limits the duration of one poll of a connection to [`POLL_BUDGET`]. Stores when the current poll started.
#[derive(Default)]
struct PollBudget(Mutex<Option<Instant>>);

/// How long one poll may serve pipelined requests with hyper before the connection yields.
const POLL_BUDGET: Duration = Duration::from_micros(200);

/// Serves a connection until it ends.
pub(super) async fn serve_connection<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    client: Option<SocketAddr>,
    context: ConnectionContext,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut phases = context.phases.clone();
    let mut signal = pin!(phases.changed());
    // Polls the signal once, so that a phase change wakes this task. After that, `has_changed` is called, because it
    // costs less than another poll of the signal.
    poll_fn(|cx| Poll::Ready(_ = signal.as_mut().poll(cx))).await;
    let is_draining = || context.phases.has_changed().unwrap_or(true);

    let mut fast = FastConnection::new(stream, Arc::clone(&context.router), client);
    let first = match poll_fn(|cx| fast.poll_serve(is_draining(), cx)).await? {
        Next::Ended => return Ok(()),
        Next::Hyper(bytes) => bytes,
    };
    // Other requests, such as probes and scrapes, are not counted: the fast path never serves them.
    if is_lookup(&first) {
        context.router.metrics.fast_path_exits.increment(1);
    }
    serve_with_hyper(PrefixedIo::new(first, fast.into_stream()), client, &context).await
}

/// Serves a connection with hyper until it ends. The caller must ensure that a change of the phase wakes the task.
pub(super) async fn serve_with_hyper<S: AsyncRead + AsyncWrite + Unpin>(
    stream: PrefixedIo<S>,
    client: Option<SocketAddr>,
    context: &ConnectionContext,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let ConnectionContext { router, phases, linger } = context;
    let is_draining = || phases.has_changed().unwrap_or(true);
    let limits = *router.limits();
    // A graceful shutdown closes the connection if hyper has not begun to read a request. So the shutdown has to wait
    // while the bytes of the first request are still in the prefix.
    let has_begun = AtomicBool::new(stream.is_prefix_read());
    let stream = Framed::new(stream);
    let (ambiguous, requests) = (stream.ambiguous(), AtomicUsize::new(0));
    let budget = PollBudget::default();
    let service = service_fn(|request| {
        has_begun.store(true, Ordering::Relaxed);
        let (router, linger, is_spent) = (Arc::clone(router), linger.clone(), budget.is_spent());
        let is_ambiguous = ambiguous.is_ambiguous(requests.fetch_add(1, Ordering::Relaxed));
        async move {
            // Yields between pipelined requests, so that one client does not occupy the thread.
            if is_spent {
                yield_to_events().await;
            }
            router.answer(request, client, is_ambiguous, &linger).await
        }
    });
    let connection = http1::Builder::new()
        .timer(CoarseTimer)
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut is_ending = false;
    poll_fn(|cx| {
        if !is_ending && is_draining() && has_begun.load(Ordering::Relaxed) {
            is_ending = true;
            connection.as_mut().graceful_shutdown();
        }
        budget.begin();
        connection.as_mut().poll(cx)
    })
    .await?;
    Ok(())
}

// === impl PollBudget ===

impl PollBudget {
    /// Records the start of a poll of the connection.
    fn begin(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Returns whether this poll has lasted longer than `POLL_BUDGET`.
    fn is_spent(&self) -> bool {
        let begun = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        begun.is_some_and(|begun| begun.elapsed() > POLL_BUDGET)
    }
}
