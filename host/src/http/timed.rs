//! A connection with limits on its writes.
//!
//! hyper bounds how long headers may take to arrive, and nothing bounds how long an answer may take to leave: a client
//! that stops reading would hold its connection, and an answer in memory, forever. A client that reads a large answer
//! as fast as it is written would hold its serving thread until the end.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// Fails a write that has not moved a byte for the bound's time.
#[derive(Debug)]
pub(super) struct Timed<S> {
    stream: S,
    bound: Duration,
    /// Runs while a write waits. Made once, when a write first waits: most connections never need it.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    /// Bytes written in large pieces since other connections were last served.
    large_written: usize,
}

/// The minimum size of a large piece.
const LARGE_BYTES: usize = 64 << 10;

/// After this many bytes in large pieces, the thread serves its other connections.
const TURN_BYTES: usize = 1 << 20;

// === impl Timed ===

impl<S> Timed<S> {
    pub(super) fn new(stream: S, bound: Duration) -> Self {
        Self { stream, bound, timer: None, waiting: false, large_written: 0 }
    }

    /// Whether to serve other connections before this many more bytes are written; this connection is woken after them.
    fn gives_way(&mut self, bytes: usize, cx: &Context<'_>) -> bool {
        if bytes < LARGE_BYTES {
            return false;
        }
        if self.large_written < TURN_BYTES {
            self.large_written += bytes.min(TURN_BYTES);
            return false;
        }
        self.large_written = 0;
        cx.waker().wake_by_ref();
        true
    }

    /// Lets a write pass, or starts or looks at the clock while it waits.
    fn watch<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = false;
            return written;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(self.bound)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(Instant::now() + self.bound);
        }
        timer.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.gives_way(bytes.len(), cx) {
            return Poll::Pending;
        }
        let bytes = &bytes[..bytes.len().min(TURN_BYTES)];
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.gives_way(slices.iter().map(|slice| slice.len()).sum(), cx) {
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(shut, cx)
    }
}
