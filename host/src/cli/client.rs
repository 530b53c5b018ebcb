//! A client of a running server's admin socket.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Error, Result, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, body::Incoming, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::{
    net::UnixStream,
    runtime::{Builder, Runtime},
    time::timeout,
};

/// A connection to the admin socket of a server. Calls block.
#[derive(Debug)]
pub(super) struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

/// The timeout of the `/health` probe. A healthy server responds within a millisecond.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

// === impl Client ===

impl Client {
    /// Connects to the server that listens at the socket. Returns `None` if no connection can be made.
    ///
    /// # Errors
    /// If a process listens at the socket but does not respond within [`PROBE_TIMEOUT`], or closes the connection.
    pub(super) fn connect(socket: &Path) -> Result<Option<Self>> {
        let runtime = Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
        let listens = runtime.block_on(async { UnixStream::connect(socket).await.is_ok() });
        if !listens {
            return Ok(None);
        }
        let client = Self { socket: socket.to_owned(), runtime };
        // Only the probe has a timeout, because commands can take any time.
        let probe = async { timeout(PROBE_TIMEOUT, client.send(Method::GET, "/health", Vec::new())).await };
        client.runtime.block_on(probe).with_context(|| {
            let seconds = PROBE_TIMEOUT.as_secs();
            format!(
                "the process that listens at {} did not respond within {seconds} s. hint: check whether the server \
                 is suspended or stuck",
                socket.display()
            )
        })??;
        Ok(Some(client))
    }

    /// Sends a request, and returns the status and the body.
    pub(super) fn call(&self, method: Method, path: &str, body: Vec<u8>) -> Result<(u16, Bytes)> {
        self.runtime.block_on(async {
            let response = self.send(method, path, body).await?;
            let status = response.status().as_u16();
            let body = response
                .into_body()
                .collect()
                .await
                .context("the server closed the connection before its response was complete")?;
            Ok((status, body.to_bytes()))
        })
    }

    /// Sends a POST request with a streamed response, and calls `on_line` with each line as it arrives. Returns the
    /// status and, unless it is 200, the whole body, which is the server's message.
    pub(super) fn stream_lines(
        &self,
        path: &str,
        body: Vec<u8>,
        mut on_line: impl FnMut(&[u8]),
    ) -> Result<(u16, Bytes)> {
        self.runtime.block_on(async {
            let response = self.send(Method::POST, path, body).await?;
            let status = response.status().as_u16();
            let mut answer = response.into_body();
            let mut pending: Vec<u8> = Vec::new();
            while let Some(frame) = answer.frame().await {
                let Ok(data) =
                    frame.context("the server closed the connection before its response was complete")?.into_data()
                else {
                    continue;
                };
                pending.extend_from_slice(&data);
                if status != 200 {
                    continue;
                }
                while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = pending.drain(..=end).collect();
                    on_line(&line);
                }
            }
            Ok((status, pending.into()))
        })
    }

    async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Response<Incoming>> {
        let unreachable = |error: Error| {
            anyhow!(
                "cannot reach the server at {}: {error:#}. hint: the server may have stopped, or 128 admin connections may be \
                 open",
                self.socket.display()
            )
        };
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| unreachable(error.into()))?;
        let connection = http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(error.into()))?;
        let (mut sender, connection) = connection;
        // The task ends when the connection closes. Errors of the connection are returned by the request.
        tokio::spawn(connection);
        let request =
            Request::builder().method(method).uri(path).header(HOST, "larder").body(Full::new(Bytes::from(body)))?;
        sender.send_request(request).await.map_err(|error| unreachable(error.into()))
    }
}
