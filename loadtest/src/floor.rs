//! The floor: the least that an HTTP/1.1 server can do with a request. It reads the body and sends fixed bytes.

use std::{convert::Infallible, fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::net::{TcpListener, TcpStream};

/// What the floor answers, and where.
#[derive(Debug, Args)]
pub(crate) struct FloorArgs {
    /// Where to listen.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: SocketAddr,
    /// The body of every answer.
    #[arg(long, value_name = "FILE")]
    pub(crate) body_file: PathBuf,
    /// The content type of every answer.
    #[arg(long, value_name = "TYPE", default_value = "application/json")]
    pub(crate) content_type: String,
}

/// What it answers.
#[derive(Clone, Debug)]
struct Answer {
    content_type: HeaderValue,
    body: Bytes,
}

/// Serves until it is stopped.
pub(crate) async fn serve(args: &FloorArgs) -> anyhow::Result<()> {
    // A floor is of no use to anyone after the run that started it.
    set_parent_process_death_signal(Some(Signal::TERM)).context("cannot tie the floor to its parent")?;
    let answer = Answer::load(args)?;
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve_connection(stream, answer.clone()));
            }
            // A connection that was gone before we took it, or no file descriptors for now: the next may do better.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

// === impl Answer ===

impl Answer {
    fn load(args: &FloorArgs) -> anyhow::Result<Self> {
        let body = fs::read(&args.body_file).with_context(|| format!("cannot read {}", args.body_file.display()))?;
        let content_type = HeaderValue::from_str(&args.content_type).context("not a content type")?;
        Ok(Self { content_type, body: body.into() })
    }

    fn to_response(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body.clone()));
        response.headers_mut().insert(CONTENT_TYPE, self.content_type.clone());
        response
    }
}

async fn serve_connection(stream: TcpStream, answer: Answer) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let answer = &answer;
    let service = service_fn(async |request: Request<Incoming>| Ok::<_, Infallible>(respond(request, answer).await));
    // The client counts a connection that breaks; there is nobody to tell here.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn respond(request: Request<Incoming>, answer: &Answer) -> Response<Full<Bytes>> {
    match request.into_body().collect().await {
        Ok(_) => answer.to_response(),
        Err(_) => {
            let mut refusal = Response::new(Full::new(Bytes::new()));
            *refusal.status_mut() = StatusCode::BAD_REQUEST;
            refusal
        }
    }
}
