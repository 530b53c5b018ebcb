//! A small HTTP server on a thread of its own.

use std::{convert::Infallible, future::Future, net::SocketAddr, sync::Arc, thread};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, runtime::Builder, sync::oneshot};

/// A server; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
}

/// Runs a future on a thread of its own until the handle is dropped. `listen` is called there with a socket on loopback.
pub(crate) fn run<F, W>(work: F) -> Running
where
    F: FnOnce(TcpListener) -> W + Send + 'static,
    W: Future<Output = ()>,
{
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.set_nonblocking(true).expect("a socket can be made not to block");
    let address = listener.local_addr().expect("a bound socket has an address");
    let (stop, stopped) = oneshot::channel();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).expect("the socket is one");
            tokio::select! {
                () = work(listener) => {}
                _ = stopped => {}
            }
        });
    });
    Running { address, stop: Some(stop) }
}

/// Answers requests with whole bodies.
pub(crate) fn serve<A, R>(answer: A) -> Running
where
    A: Fn(Request<Bytes>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<Full<Bytes>>> + 'static,
{
    run(async move |listener| {
        let answer = Arc::new(answer);
        let connections = tokio::task::LocalSet::new();
        connections
            .run_until(async {
                while let Ok((stream, _)) = listener.accept().await {
                    let answer = Arc::clone(&answer);
                    tokio::task::spawn_local(async move {
                        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                            let answer = Arc::clone(&answer);
                            async move {
                                let (head, body) = request.into_parts();
                                let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                                Ok::<_, Infallible>(answer(Request::from_parts(head, body)).await)
                            }
                        });
                        // A client that goes away is its own affair.
                        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                    });
                }
            })
            .await;
    })
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}
