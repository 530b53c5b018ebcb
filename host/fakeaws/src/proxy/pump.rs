//! The pump, which copies bytes between a client's socket and the proxy's HTTP server.

use std::{
    cell::Cell,
    future::{Future, pending},
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf},
    net::{
        TcpStream,
        tcp::{ReadHalf as ClientReadHalf, WriteHalf as ClientWriteHalf},
    },
    sync::{Notify, watch},
    time::sleep,
};

/// The maximum number of bytes that are read at a time.
const CHUNK: usize = 16 << 10;

/// The properties of the connection to the client, which a test can change at any time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire {
    pub(super) is_plugged: bool,
    /// Whether new connections are accepted.
    pub(super) is_listening: bool,
    pub(super) is_silent: bool,
    pub(super) is_half_closed: bool,
    pub(super) delay: Duration,
    /// The maximum number of bytes per second.
    pub(super) bandwidth: Option<u64>,
    /// The number of bytes of a response after which the connection is closed.
    pub(super) truncate: Option<usize>,
}

/// Where a response is truncated.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    /// After this many bytes, including the head.
    Response(usize),
    /// After this many bytes of the body.
    Body(usize),
}

/// Instructions from the HTTP server to the pump of the same connection.
#[derive(Debug, Default)]
pub(super) struct Orders {
    cut: Cell<Option<Cut>>,
    /// Whether the next bytes are the start of another response.
    begins: Cell<bool>,
    reset: Notify,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            is_plugged: true,
            is_listening: true,
            is_silent: false,
            is_half_closed: false,
            delay: Duration::ZERO,
            bandwidth: None,
            truncate: None,
        }
    }
}

// === impl Orders ===

impl Orders {
    /// Records that the next bytes are the start of another response.
    pub(super) fn begin(&self) {
        self.begins.set(true);
        self.cut.set(None);
    }

    /// Truncates the current response.
    pub(super) fn cut(&self, cut: Cut) {
        self.cut.set(Some(cut));
    }

    /// Resets the connection. Never returns.
    pub(super) async fn reset<T>(&self) -> T {
        self.reset.notify_one();
        pending().await
    }
}

/// Creates both ends of the pipe between the pump and the HTTP server.
pub(super) fn pipe() -> (DuplexStream, DuplexStream) {
    tokio::io::duplex(64 << 10)
}

/// Copies bytes until the client or the HTTP server closes the connection, the connection is reset, or the wire is
/// unplugged. Counts the response bytes that are copied, and the request bytes that are dropped.
pub(super) async fn run(
    mut client: TcpStream,
    near: DuplexStream,
    http: impl Future<Output = ()>,
    wire: watch::Receiver<Wire>,
    orders: &Orders,
    (passed, ignored): (&AtomicU64, &AtomicU64),
) {
    let end = {
        let (from_client, to_client) = client.split();
        let (from_http, to_http) = tokio::io::split(near);
        let mut plug = wire.clone();
        let serving = async {
            http.await;
            // The rest of the server's output is still in the pipe. `down` copies it, and then ends.
            pending::<End>().await
        };
        tokio::select! {
            biased;
            () = until(&mut plug, |wire| !wire.is_plugged) => End::Reset,
            () = orders.reset.notified() => End::Reset,
            end = up(from_client, to_http, wire.clone(), ignored) => end,
            end = down(from_http, to_client, wire, orders, passed) => end,
            end = serving => end,
        }
    };
    if end == End::Reset {
        // Closing a socket without lingering resets the connection.
        let _ = client.set_zero_linger();
    }
}

/// Copies the client's bytes to the HTTP server.
async fn up(
    mut from: ClientReadHalf<'_>,
    mut to: WriteHalf<DuplexStream>,
    wire: watch::Receiver<Wire>,
    ignored: &AtomicU64,
) -> End {
    let mut buffer = vec![0; CHUNK];
    let mut drops_bytes = false;
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return End::Closed,
            Ok(count) => count,
        };
        let now = *wire.borrow();
        // If a byte was dropped, all later bytes must be dropped, too.
        drops_bytes |= now.is_silent || now.is_half_closed;
        if drops_bytes {
            ignored.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
            continue;
        }
        sleep_for(now.delay).await;
        if write(&mut to, &buffer[..count], &wire).await.is_err() {
            // The server has closed its end of the pipe, but its earlier output is still copied to the client.
            drops_bytes = true;
        }
    }
}

/// Copies the HTTP server's responses to the client.
async fn down(
    mut from: ReadHalf<DuplexStream>,
    mut to: ClientWriteHalf<'_>,
    mut wire: watch::Receiver<Wire>,
    orders: &Orders,
    bytes: &AtomicU64,
) -> End {
    let mut buffer = vec![0; CHUNK];
    let mut progress = Progress::default();
    let mut half = wire.clone();
    loop {
        let count = tokio::select! {
            biased;
            () = until(&mut half, |wire| wire.is_half_closed) => {
                let _ = to.shutdown().await;
                return pending().await;
            }
            count = from.read(&mut buffer) => count.unwrap_or(0),
        };
        if count == 0 {
            let _ = to.shutdown().await;
            return End::Closed;
        }
        let now = *wire.borrow_and_update();
        if now.is_silent {
            return pending().await;
        }
        if orders.begins.take() {
            progress = Progress::default();
        }
        let cut = orders.cut.get().or(now.truncate.map(Cut::Response));
        let sent = progress.until(cut, &buffer[..count]);
        if write(&mut to, sent, &wire).await.is_err() {
            return End::Closed;
        }
        bytes.fetch_add(u64::try_from(sent.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if sent.len() < count || progress.is_at(cut) {
            let _ = to.shutdown().await;
            return End::Closed;
        }
    }
}

/// Waits until the wire meets a condition. Does not return a borrow of the channel's value, because changes to the wire
/// would wait until the borrow ends.
async fn until(wire: &mut watch::Receiver<Wire>, condition: fn(&Wire) -> bool) {
    if wire.wait_for(condition).await.is_err() {
        // All handles of the proxy are dropped, so the wire cannot change any more.
        pending::<()>().await;
    }
}

async fn sleep_for(delay: Duration) {
    if !delay.is_zero() {
        sleep(delay).await;
    }
}

/// Writes bytes at the bandwidth of the wire.
async fn write(to: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8], wire: &watch::Receiver<Wire>) -> io::Result<()> {
    while !bytes.is_empty() {
        let bandwidth = wire.borrow().bandwidth.map(|bandwidth| bandwidth.max(1));
        // Writes 50 times a second, so that changes of the bandwidth take effect quickly.
        let len = bandwidth.map_or(bytes.len(), |bandwidth| usize::try_from(bandwidth / 50).unwrap_or(CHUNK).max(1));
        let (piece, rest) = bytes.split_at(len.min(bytes.len()));
        to.write_all(piece).await?;
        if let Some(bandwidth) = bandwidth {
            let bytes = u64::try_from(piece.len()).unwrap_or(u64::MAX);
            sleep(Duration::from_micros(bytes.saturating_mul(1_000_000) / bandwidth)).await;
        }
        bytes = rest;
    }
    Ok(())
}

/// The progress of sending a response.
#[derive(Debug, Default)]
struct Progress {
    /// The number of bytes sent so far.
    sent: usize,
    /// The last bytes of the head that were read so far, to detect its end.
    tail: Vec<u8>,
    /// The length of the head, once it is complete.
    head: Option<usize>,
}

// === impl Progress ===

impl Progress {
    /// Returns the part of the next bytes of a response that is before the cut.
    fn until<'b>(&mut self, cut: Option<Cut>, bytes: &'b [u8]) -> &'b [u8] {
        let Some(cut) = cut else {
            self.sent += bytes.len();
            return bytes;
        };
        if self.head.is_none() {
            let before = self.tail.len();
            self.tail.extend_from_slice(bytes);
            match self.tail.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(index) => self.head = Some(self.sent + index + 4 - before),
                None => drop(self.tail.drain(..self.tail.len().saturating_sub(3))),
            }
        }
        let left = self.end(cut).map_or(bytes.len(), |end| end.saturating_sub(self.sent));
        let sent = &bytes[..left.min(bytes.len())];
        self.sent += sent.len();
        sent
    }

    /// Returns whether the response has reached its cut.
    fn is_at(&self, cut: Option<Cut>) -> bool {
        cut.and_then(|cut| self.end(cut)).is_some_and(|end| self.sent >= end)
    }

    /// Returns the number of bytes before the cut; `None` if it is not known yet.
    fn end(&self, cut: Cut) -> Option<usize> {
        match cut {
            Cut::Response(bytes) => Some(bytes),
            Cut::Body(bytes) => self.head.map(|head| head + bytes),
        }
    }
}
