//! The pump between a client's socket and the proxy's HTTP server.

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

/// The number of bytes that are passed on at once.
const CHUNK: usize = 16 << 10;

/// The properties of the wire.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire {
    pub(super) is_plugged: bool,
    /// Whether new connections are accepted.
    pub(super) is_listening: bool,
    pub(super) is_silent: bool,
    pub(super) is_half_closed: bool,
    pub(super) delay: Duration,
    /// Bytes per second.
    pub(super) bandwidth: Option<u64>,
    /// The maximum number of bytes of a response.
    pub(super) truncate: Option<usize>,
}

/// Where a response ends early.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    /// After this many bytes.
    Answer(usize),
    /// After this many bytes of its body.
    Body(usize),
}

/// Instructions from the HTTP server to the pump of its connection.
#[derive(Debug, Default)]
pub(super) struct Orders {
    cut: Cell<Option<Cut>>,
    /// Whether the next bytes are those of another response.
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
    /// Announces another response.
    pub(super) fn begin(&self) {
        self.begins.set(true);
        self.cut.set(None);
    }

    /// Cuts this response off.
    pub(super) fn cut(&self, cut: Cut) {
        self.cut.set(Some(cut));
    }

    /// Resets the connection; never returns.
    pub(super) async fn reset<T>(&self) -> T {
        self.reset.notify_one();
        pending().await
    }
}

/// Creates both ends of the pipe between the pump and the server.
pub(super) fn pipe() -> (DuplexStream, DuplexStream) {
    tokio::io::duplex(64 << 10)
}

/// Pumps until one of the ends is closed, or the wire is unplugged.
pub(super) async fn run(
    mut client: TcpStream,
    near: DuplexStream,
    http: impl Future<Output = ()>,
    wire: watch::Receiver<Wire>,
    orders: &Orders,
    bytes: &AtomicU64,
) {
    let end = {
        let (from_client, to_client) = client.split();
        let (from_http, to_http) = tokio::io::split(near);
        let mut plug = wire.clone();
        let serving = async {
            http.await;
            // The rest of its output still comes out of the pipe, which then ends.
            pending::<End>().await
        };
        tokio::select! {
            biased;
            () = until(&mut plug, |wire| !wire.is_plugged) => End::Reset,
            () = orders.reset.notified() => End::Reset,
            end = up(from_client, to_http, wire.clone()) => end,
            end = down(from_http, to_client, wire, orders, bytes) => end,
            end = serving => end,
        }
    };
    if end == End::Reset {
        // Closing a socket without lingering resets the connection.
        let _ = client.set_zero_linger();
    }
}

/// Passes on the client's bytes.
async fn up(mut from: ClientReadHalf<'_>, mut to: WriteHalf<DuplexStream>, wire: watch::Receiver<Wire>) -> End {
    let mut buffer = vec![0; CHUNK];
    let mut is_deaf = false;
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return End::Closed,
            Ok(count) => count,
        };
        let now = *wire.borrow();
        // Later bytes would be out of sequence after dropped ones.
        is_deaf |= now.is_silent || now.is_half_closed;
        if is_deaf {
            continue;
        }
        sleep_for(now.delay).await;
        if write(&mut to, &buffer[..count], &wire).await.is_err() {
            // The server has closed: its earlier output is still passed on.
            is_deaf = true;
        }
    }
}

/// Passes on the server's response.
async fn down(
    mut from: ReadHalf<DuplexStream>,
    mut to: ClientWriteHalf<'_>,
    mut wire: watch::Receiver<Wire>,
    orders: &Orders,
    bytes: &AtomicU64,
) -> End {
    let mut buffer = vec![0; CHUNK];
    let mut answer = Answer::default();
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
            answer = Answer::default();
        }
        let cut = orders.cut.get().or(now.truncate.map(Cut::Answer));
        let told = answer.until(cut, &buffer[..count]);
        if write(&mut to, told, &wire).await.is_err() {
            return End::Closed;
        }
        bytes.fetch_add(u64::try_from(told.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if told.len() < count || answer.is_at(cut) {
            let _ = to.shutdown().await;
            return End::Closed;
        }
    }
}

/// Waits until the wire has a property. Drops the channel's value immediately, because changing the wire waits for it.
async fn until(wire: &mut watch::Receiver<Wire>, is_so: fn(&Wire) -> bool) {
    if wire.wait_for(is_so).await.is_err() {
        // No handle is left that could change it.
        pending::<()>().await;
    }
}

async fn sleep_for(delay: Duration) {
    if !delay.is_zero() {
        sleep(delay).await;
    }
}

/// Writes at the bandwidth of the wire.
async fn write(to: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8], wire: &watch::Receiver<Wire>) -> io::Result<()> {
    while !bytes.is_empty() {
        let bandwidth = wire.borrow().bandwidth.map(|bandwidth| bandwidth.max(1));
        // 50 times a second, so that changes take effect immediately.
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

/// The progress of a response.
#[derive(Debug, Default)]
struct Answer {
    told: usize,
    /// The last bytes of the head so far, and the length of the head once it is complete.
    tail: Vec<u8>,
    head: Option<usize>,
}

// === impl Answer ===

impl Answer {
    /// Returns the part of the next bytes of a response that is passed on.
    fn until<'b>(&mut self, cut: Option<Cut>, bytes: &'b [u8]) -> &'b [u8] {
        let Some(cut) = cut else {
            self.told += bytes.len();
            return bytes;
        };
        if self.head.is_none() {
            let before = self.tail.len();
            self.tail.extend_from_slice(bytes);
            match self.tail.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(place) => self.head = Some(self.told + place + 4 - before),
                None => drop(self.tail.drain(..self.tail.len().saturating_sub(3))),
            }
        }
        let left = self.end(cut).map_or(bytes.len(), |end| end.saturating_sub(self.told));
        let told = &bytes[..left.min(bytes.len())];
        self.told += told.len();
        told
    }

    /// Returns whether the response has reached its cut.
    fn is_at(&self, cut: Option<Cut>) -> bool {
        cut.and_then(|cut| self.end(cut)).is_some_and(|end| self.told >= end)
    }

    fn end(&self, cut: Cut) -> Option<usize> {
        match cut {
            Cut::Answer(bytes) => Some(bytes),
            Cut::Body(bytes) => self.head.map(|head| head + bytes),
        }
    }
}
