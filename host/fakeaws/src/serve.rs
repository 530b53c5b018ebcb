//! A small server on its own thread.

use std::{
    convert::Infallible,
    future::{Future, pending},
    io,
    net::SocketAddr,
    sync::{Arc, mpsc as blocking},
    thread::{self, JoinHandle},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::Builder,
    sync::{mpsc, oneshot},
    task::{LocalSet, spawn_local},
};

/// A running server. Dropping it stops the server and frees its port.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    orders: mpsc::UnboundedSender<ListenOrder>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Whether to listen, and a sender that is notified when this is in effect.
type ListenOrder = (bool, blocking::Sender<()>);

/// The maximum number of connections that wait to be accepted.
const BACKLOG: u32 = 1_024;

/// Starts a server that passes each connection to this handler.
pub(crate) fn run<C, F>(connection: C) -> Running
where
    C: Fn(TcpStream) -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    // This socket stays bound as long as the server runs, so that no other process can take the port while the server
    // does not listen.
    let port = socket(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback has a free port");
    let address = port.local_addr().expect("a bound socket has an address");
    let (sender, orders) = mpsc::unbounded_channel();
    let (stop, stopped) = oneshot::channel();
    let thread = thread::spawn(move || {
        let _port = port;
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime can be created");
        // When the server stops, the remaining tasks are dropped, which closes their connections.
        LocalSet::new().block_on(&runtime, async move {
            tokio::select! {
                () = accept(address, orders, connection) => {}
                _ = stopped => {}
            }
        });
    });
    let running = Running { address, orders: sender, stop: Some(stop), thread: Some(thread) };
    running.listen(true);
    running
}

/// Binds a socket to an address. Several sockets may be bound to the same address, but only a listening socket gets
/// connections.
fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Accepts connections while the server listens, as set by `orders`.
async fn accept<C, F>(address: SocketAddr, mut orders: mpsc::UnboundedReceiver<ListenOrder>, connection: C)
where
    C: Fn(TcpStream) -> F,
    F: Future<Output = ()> + 'static,
{
    let mut listener: Option<TcpListener> = None;
    loop {
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            Some((is_listening, done)) = orders.recv() => {
                if !is_listening {
                    listener = None;
                } else if listener.is_none() {
                    let opened = socket(address).and_then(|socket| socket.listen(BACKLOG));
                    listener = Some(opened.expect("the port is reserved"));
                }
                let _ = done.send(());
            }
            accepted = accepted => {
                if let Ok((stream, _)) = accepted {
                    // Small responses are sent without delay.
                    let _ = stream.set_nodelay(true);
                    spawn_local(connection(stream));
                }
            }
        }
    }
}

/// Starts an HTTP server that passes each request with its complete body to this handler.
pub(crate) fn serve<A, R>(respond: A) -> Running
where
    A: Fn(Request<Bytes>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<Full<Bytes>>> + 'static,
{
    let respond = Arc::new(respond);
    run(move |stream| {
        let respond = Arc::clone(&respond);
        async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let respond = Arc::clone(&respond);
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                    Ok::<_, Infallible>(respond(Request::from_parts(head, body)).await)
                }
            });
            // A client that disconnects causes an error, which is ignored.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    })
}

/// Returns the seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "AWS's clock is not under a test's control either")]
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Returns a hash with well-distributed bits: FNV-1a, followed by a mixer, because the upper bits of FNV-1a are not
/// well distributed.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325;
    let hash = bytes.iter().fold(start, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

// === impl Running ===

impl Running {
    /// Sets whether the server listens. A server that does not listen refuses connections. Returns when the change is
    /// in effect.
    pub(crate) fn listen(&self, is_listening: bool) {
        let (done, in_effect) = blocking::channel();
        let _ = self.orders.send((is_listening, done));
        in_effect.recv().expect("the server runs");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
