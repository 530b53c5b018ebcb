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

/// Bytes that are passed on at once.
const CHUNK: usize = 16 << 10;

/// How the wire is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire {
    pub(super) is_plugged: bool,
    pub(super) is_silent: bool,
    pub(super) is_half_closed: bool,
    pub(super) delay: Duration,
    /// Bytes of a second.
    pub(super) bandwidth: Option<u64>,
    /// Bytes of an answer.
    pub(super) truncate: Option<usize>,
}

/// Where an answer ends early.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    /// After so many bytes.
    Answer(usize),
    /// After so many bytes of its body.
    Body(usize),
}

/// What the HTTP server wants of the pump of its connection.
#[derive(Debug, Default)]
pub(super) struct Orders {
    cut: Cell<Option<Cut>>,
    /// The next bytes are those of another answer.
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
    /// Another answer comes.
    pub(super) fn begin(&self) {
        self.begins.set(true);
        self.cut.set(None);
    }

    /// Cuts this answer off.
    pub(super) fn cut(&self, cut: Cut) {
        self.cut.set(Some(cut));
    }

    /// Resets the connection: there is nothing after it.
    pub(super) async fn reset<T>(&self) -> T {
        self.reset.notify_one();
        pending().await
    }
}

/// Both ends of what lies between the pump and the server.
pub(super) fn pipe() -> (DuplexStream, DuplexStream) {
    tokio::io::duplex(64 << 10)
}

/// Pumps until one of both ends is closed, or the wire is unplugged.
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
            // What it has written comes out of the pipe yet; the pipe ends then.
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
        // A socket that does not linger is not closed but reset.
        let _ = client.set_zero_linger();
    }
}

/// What the client sends.
async fn up(mut from: ClientReadHalf<'_>, mut to: WriteHalf<DuplexStream>, wire: watch::Receiver<Wire>) -> End {
    let mut buffer = vec![0; CHUNK];
    let mut is_deaf = false;
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return End::Closed,
            Ok(count) => count,
        };
        let now = *wire.borrow();
        // What was swallowed once is missing for ever.
        is_deaf |= now.is_silent || now.is_half_closed;
        if is_deaf {
            continue;
        }
        sleep_for(now.delay).await;
        if write(&mut to, &buffer[..count], &wire).await.is_err() {
            // The server has closed: what it said before is passed on.
            is_deaf = true;
        }
    }
}

/// What the server answers.
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

/// Waits until the wire is so. What the channel gives is let go at once: who turns the wire waits for it.
async fn until(wire: &mut watch::Receiver<Wire>, is_so: fn(&Wire) -> bool) {
    if wire.wait_for(is_so).await.is_err() {
        // Nobody is left who could turn it.
        pending::<()>().await;
    }
}

async fn sleep_for(delay: Duration) {
    if !delay.is_zero() {
        sleep(delay).await;
    }
}

/// Writes as fast as the wire is.
async fn write(to: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8], wire: &watch::Receiver<Wire>) -> io::Result<()> {
    while !bytes.is_empty() {
        let bandwidth = wire.borrow().bandwidth.map(|bandwidth| bandwidth.max(1));
        // Fifty times a second: what is turned meanwhile holds at once.
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

/// How far an answer is told.
#[derive(Debug, Default)]
struct Answer {
    told: usize,
    /// The last bytes of the head so far, and how long the head is once it has ended.
    tail: Vec<u8>,
    head: Option<usize>,
}

// === impl Answer ===

impl Answer {
    /// Of the next bytes of an answer those that are told.
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

    /// Whether it is told up to where it is cut.
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
