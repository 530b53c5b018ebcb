//! A small server on a thread of its own.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Builder,
    sync::oneshot,
    task::{LocalSet, spawn_local},
};

/// A server; it ends when it is dropped, and its port is free then.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What a server does with one connection.
pub(crate) fn run<C, F>(connection: C) -> Running
where
    C: Fn(TcpStream) -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.set_nonblocking(true).expect("a socket can be made not to block");
    let address = listener.local_addr().expect("a bound socket has an address");
    let (stop, stopped) = oneshot::channel();
    let thread = thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
        // Tasks that are left when it stops are dropped with it, and their connections are closed.
        LocalSet::new().block_on(&runtime, async move {
            let listener = TcpListener::from_std(listener).expect("the socket is one");
            let accept = async {
                loop {
                    if let Ok((stream, _)) = listener.accept().await {
                        // Answers are small: they are not held back to be sent with more.
                        let _ = stream.set_nodelay(true);
                        spawn_local(connection(stream));
                    }
                }
            };
            tokio::select! {
                () = accept => {}
                _ = stopped => {}
            }
        });
    });
    Running { address, stop: Some(stop), thread: Some(thread) }
}

/// Answers requests whose bodies are collected.
pub(crate) fn serve<A, R>(answer: A) -> Running
where
    A: Fn(Request<Bytes>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<Full<Bytes>>> + 'static,
{
    let answer = Arc::new(answer);
    run(move |stream| {
        let answer = Arc::clone(&answer);
        async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = Arc::clone(&answer);
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                    Ok::<_, Infallible>(answer(Request::from_parts(head, body)).await)
                }
            });
            // A client that goes away is its own affair.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    })
}

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "what AWS says of the time is not in the hands of a test either")]
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Any hash will do, if all of its bits are good: FNV-1a, and a mixer for its upper ones.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325;
    let hash = bytes.iter().fold(start, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

// === impl Running ===

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
