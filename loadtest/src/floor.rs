//! The floor: a bare hyper server that does the minimum work for a request. It reads the request's body and sends a
//! fixed response.

use std::{
    convert::Infallible,
    env, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

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
use tokio::net::{TcpListener, UnixListener};

use crate::{
    client,
    cores::Cores,
    endpoint::{SocketKind, Stream, free_address},
    server::{Server, Startup},
};

/// The floor's address and responses.
#[derive(Debug, Args)]
pub(crate) struct FloorArgs {
    /// The address to listen on.
    #[arg(long, value_name = "ADDR", conflicts_with = "unix", required_unless_present = "unix")]
    pub(crate) listen: Option<SocketAddr>,
    /// The Unix socket to listen on, instead of an address.
    #[arg(long, value_name = "PATH")]
    pub(crate) unix: Option<PathBuf>,
    /// A response body, and the size of the request bodies for which it is sent. Can be repeated. Requests with bodies
    /// of any other size get the first response body.
    #[arg(long = "response", value_name = "BYTES:FILE", required = true, value_parser = parse_response)]
    pub(crate) responses: Vec<(usize, PathBuf)>,
    /// The content type of every response.
    #[arg(long, value_name = "TYPE", default_value = "application/json")]
    pub(crate) content_type: String,
}

/// The responses of the floor.
#[derive(Clone, Debug)]
struct Responses {
    content_type: HeaderValue,
    /// The sizes of request bodies, and the response body for each size. Never empty.
    bodies: Arc<[(usize, Bytes)]>,
}

/// The listening socket.
#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Starts this program as a floor that responds to these requests with these bodies. Other requests get the first body.
pub(crate) async fn start(
    responses: &[(&client::Request, &[u8])],
    dir: &Path,
    kind: SocketKind,
    cores: Cores,
) -> anyhow::Result<Server> {
    let mut command = Command::new(env::current_exe().context("cannot find this program")?);
    command.arg("floor");
    for (index, (request, body)) in responses.iter().enumerate() {
        let path = dir.join(format!("body-{index}"));
        fs::write(&path, body).with_context(|| format!("cannot write {}", path.display()))?;
        command.arg("--response").arg(format!("{}:{}", request.body_bytes(), path.display()));
    }
    let endpoint = match kind {
        SocketKind::Tcp => {
            let address = free_address().context("no free port")?;
            command.arg("--listen").arg(address.to_string());
            address.into()
        }
        SocketKind::Unix => {
            let path = dir.join("floor.sock");
            // A previous floor may have left its socket file.
            let _ = fs::remove_file(&path);
            command.arg("--unix").arg(&path);
            path.as_path().into()
        }
    };
    Server::start(&mut command, Startup::new("floor", endpoint, dir.join("floor.log")), cores).await
}

/// Serves until the process is stopped.
pub(crate) async fn serve(args: &FloorArgs) -> anyhow::Result<()> {
    // The floor must not outlive the run that started it.
    set_parent_process_death_signal(Some(Signal::TERM)).context("cannot set the signal for the parent's exit")?;
    let responses = Responses::load(args)?;
    let listener = Listener::bind(args.listen, args.unix.as_deref()).await.context("cannot listen")?;
    loop {
        match listener.accept().await {
            Ok(stream) => {
                tokio::spawn(serve_connection(stream, responses.clone()));
            }
            // The connection was closed before it was accepted, or no file descriptor is free. Both are temporary, so
            // the loop retries.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

// === impl Responses ===

impl Responses {
    fn load(args: &FloorArgs) -> anyhow::Result<Self> {
        let content_type = HeaderValue::from_str(&args.content_type).context("not a content type")?;
        let load = |(bytes, path): &(usize, PathBuf)| {
            let body = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            anyhow::Ok((*bytes, Bytes::from(body)))
        };
        let bodies = args.responses.iter().map(load).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Self { content_type, bodies: bodies.into() })
    }

    fn to(&self, request_bytes: usize) -> Response<Full<Bytes>> {
        let named = self.bodies.iter().find(|(bytes, _)| *bytes == request_bytes);
        let (_, body) = named.unwrap_or(&self.bodies[0]);
        let mut response = Response::new(Full::new(body.clone()));
        response.headers_mut().insert(CONTENT_TYPE, self.content_type.clone());
        response
    }
}

// === impl Listener ===

impl Listener {
    async fn bind(address: Option<SocketAddr>, path: Option<&Path>) -> io::Result<Self> {
        match (address, path) {
            (Some(address), _) => TcpListener::bind(address).await.map(Self::Tcp),
            (None, Some(path)) => UnixListener::bind(path).map(Self::Unix),
            (None, None) => Err(io::Error::new(io::ErrorKind::InvalidInput, "no address")),
        }
    }

    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

async fn serve_connection(stream: Stream, responses: Responses) {
    let responses = &responses;
    let service = service_fn(async |request: Request<Incoming>| Ok::<_, Infallible>(respond(request, responses).await));
    // The client counts failed connections, so the error is ignored here.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn respond(request: Request<Incoming>, responses: &Responses) -> Response<Full<Bytes>> {
    match request.into_body().collect().await {
        Ok(body) => responses.to(body.to_bytes().len()),
        Err(_) => {
            let mut refusal = Response::new(Full::new(Bytes::new()));
            *refusal.status_mut() = StatusCode::BAD_REQUEST;
            refusal
        }
    }
}

fn parse_response(text: &str) -> Result<(usize, PathBuf), String> {
    let (bytes, path) = text.split_once(':').ok_or("expected BYTES:FILE")?;
    let bytes = bytes.parse().map_err(|error| format!("{bytes:?}: {error}"))?;
    Ok((bytes, path.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn body_is_chosen_by_request_size() {
        let responses = Responses {
            content_type: HeaderValue::from_static("text/plain"),
            bodies: [(3, Bytes::from_static(b"first")), (7, Bytes::from_static(b"second"))].into(),
        };
        for (request_bytes, expected) in [(3, "first"), (7, "second"), (0, "first")] {
            let body = responses.to(request_bytes).into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, expected.as_bytes());
        }
        assert_eq!(parse_response("12:/a:b").unwrap(), (12, "/a:b".into()));
        assert!(parse_response("/a").is_err() && parse_response("x:/a").is_err());
    }
}
