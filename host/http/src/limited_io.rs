//! A wrapper of connections that limits how long writes can stall, yields after large reads and writes, and drains
//! unread input when a connection is closed.
//!
//! hyper limits how long headers may take to arrive, but not how long a response may take to send: a client that stops
//! reading would keep its connection, and a response in memory, forever. A client that reads a large response as fast
//! as it is written, or sends as fast as the server reads, would occupy its serving thread until it is done.
//!
//! If a connection is closed while the client is still sending, the kernel resets it and the client may lose the
//! response. So if a response is sent before its request was read completely, the wrapper reads and discards the rest
//! of the request, up to limits on time and bytes ([`LingerFlag`]).

use std::{
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// Set if a response is sent before its request was read completely. Shared by the connection and its requests.
#[derive(Clone, Debug, Default)]
pub(super) struct LingerFlag(Arc<AtomicBool>);

/// A stream with the limits of this module. A write, flush or shutdown fails if it makes no progress for the duration
/// `bound`.
#[derive(Debug)]
pub(super) struct LimitedIo<S> {
    stream: S,
    bound: Duration,
    /// Runs while a write is pending. It is created when a write is pending for the first time, because most
    /// connections never need it.
    timer: Option<Pin<Box<Sleep>>>,
    is_waiting: bool,
    /// The number of bytes in large writes since this connection last yielded.
    large_written: usize,
    /// Whether the last write did not write all of its bytes.
    is_partial: bool,
    /// The number of bytes that were read since this connection last yielded.
    read: usize,
    linger: LingerFlag,
    /// The timer that ends the discarding of the rest of the request, and the number of bytes that were discarded so
    /// far. `None` until the stream is shut down with the linger flag set.
    lingering: Option<(Pin<Box<Sleep>>, usize)>,
}

/// The minimum size of a large write, in bytes. Smaller writes never yield.
const LARGE_BYTES: usize = 64 << 10;

/// A connection yields after it has written this many bytes in large writes.
const WRITE_YIELD_BYTES: usize = 1 << 20;

/// A connection yields after it has read this many bytes. For some bytes, such as chunk sizes, parsing costs
/// the server more than sending costs the client.
const READ_YIELD_BYTES: usize = 64 << 10;

/// Limits on discarding the rest of a request after an early response.
const LINGER_FOR: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 64 << 20;

/// Schedules the task to be polled again after the runtime has polled for I/O events. Use it instead of `wake_by_ref`:
/// a task that wakes itself can be polled up to 61 times before the runtime polls for events.
pub(super) fn yield_poll(cx: &mut Context<'_>) {
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}

/// Waits until the runtime has polled for I/O events and has run the tasks that are ready.
///
/// A task of hyper that yields would be polled again immediately, because hyper wakes its own task while it passes on a
/// body. So this function waits for a separate task, which nothing wakes early.
pub(super) async fn yield_to_events() {
    // The spawned task cannot panic.
    let _ = tokio::spawn(tokio::task::yield_now()).await;
}

// === impl LingerFlag ===

impl LingerFlag {
    /// Records that a response is sent before its request has been read completely, so that the connection
    /// lingers when it is closed.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl LimitedIo ===

impl<S> LimitedIo<S> {
    pub(super) fn new(stream: S, bound: Duration, linger: LingerFlag) -> Self {
        Self {
            stream,
            bound,
            timer: None,
            is_waiting: false,
            large_written: 0,
            is_partial: false,
            read: 0,
            linger,
            lingering: None,
        }
    }

    /// Returns whether the connection must yield before it writes this many more bytes. If so, schedules the task to be
    /// polled after other connections. If not, adds the bytes of a large write to `large_written`.
    fn must_yield(&mut self, bytes: usize, cx: &mut Context<'_>) -> bool {
        if bytes < LARGE_BYTES {
            return false;
        }
        if self.large_written < WRITE_YIELD_BYTES {
            self.large_written += bytes.min(WRITE_YIELD_BYTES);
            return false;
        }
        self.large_written = 0;
        yield_poll(cx);
        true
    }

    fn note_written(&mut self, written: &Poll<io::Result<usize>>, bytes: usize) {
        self.is_partial = !matches!(written, Poll::Ready(Ok(written)) if *written == bytes);
    }

    /// Returns the result of a write if it is ready. If it is pending, starts or polls the timer, and returns an error
    /// if the timer has ended.
    fn or_timed_out<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.is_waiting = false;
            return written;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(self.bound)));
        if !self.is_waiting {
            self.is_waiting = true;
            timer.as_mut().reset(Instant::now() + self.bound);
        }
        timer
            .as_mut()
            .poll(cx)
            .map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the client did not read in time")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LimitedIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read >= READ_YIELD_BYTES {
            self.read = 0;
            yield_poll(cx);
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.read += buffer.filled().len() - before;
        if read.is_pending() {
            self.read = 0;
            if !self.is_partial {
                // All bytes are written, and the thread serves other connections until the next request arrives.
                self.large_written = 0;
            }
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for LimitedIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.must_yield(bytes.len(), cx) {
            return Poll::Pending;
        }
        let piece = &bytes[..bytes.len().min(WRITE_YIELD_BYTES)];
        let written = Pin::new(&mut self.stream).poll_write(cx, piece);
        self.note_written(&written, bytes.len());
        self.or_timed_out(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        if self.must_yield(bytes, cx) {
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note_written(&written, bytes);
        self.or_timed_out(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.or_timed_out(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
            if let result @ (Poll::Pending | Poll::Ready(Err(_))) = self.or_timed_out(shut, cx) {
                return result;
            }
            if !self.linger.is_set() {
                return Poll::Ready(Ok(()));
            }
            self.lingering = Some((Box::pin(sleep(LINGER_FOR)), 0));
        }
        self.poll_linger(cx).map(Ok)
    }
}

impl<S: AsyncRead + Unpin> LimitedIo<S> {
    /// Reads and discards input until the client closes the connection or a limit (`LINGER_FOR`, `LINGER_BYTES_MAX`) is
    /// reached.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut buffer = [0; 8 << 10];
        loop {
            let mut rest = ReadBuf::new(&mut buffer);
            let read = Pin::new(&mut *self).poll_read(cx, &mut rest);
            let bytes = rest.filled().len();
            let Some((until, dropped)) = &mut self.lingering else { return Poll::Ready(()) };
            *dropped += bytes;
            match read {
                Poll::Ready(Ok(())) if bytes > 0 && *dropped < LINGER_BYTES_MAX => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return until.as_mut().poll(cx),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// A stream that accepts all bytes immediately, and never has bytes to read.
    struct Sink;

    impl AsyncRead for Sink {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Sink {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Writes all bytes, and reads in between as hyper does. Returns how often the stream yielded to other connections.
    fn write(timed: &mut LimitedIo<Sink>, mut bytes: &[u8]) -> usize {
        let cx = &mut Context::from_waker(Waker::noop());
        let mut yields = 0;
        while !bytes.is_empty() {
            assert!(Pin::new(&mut *timed).poll_read(cx, &mut ReadBuf::new(&mut [0])).is_pending());
            match Pin::new(&mut *timed).poll_write(cx, bytes) {
                Poll::Ready(written) => bytes = &bytes[written.unwrap()..],
                Poll::Pending => yields += 1,
            }
        }
        yields
    }

    /// A stream that always fills the whole buffer.
    struct Source;

    impl AsyncRead for Source {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let bytes = buffer.remaining();
            buffer.initialize_unfilled();
            buffer.advance(bytes);
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn fast_sender_yields_to_other_connections() {
        let mut timed = LimitedIo::new(Source, Duration::from_secs(1), LingerFlag::default());
        let cx = &mut Context::from_waker(Waker::noop());
        let mut buffer = [0; 16 << 10];
        let yields =
            (0..100).filter(|_| Pin::new(&mut timed).poll_read(cx, &mut ReadBuf::new(&mut buffer)).is_pending());
        assert_eq!(yields.count(), 20, "after each 64 KiB");
    }

    #[test]
    fn only_large_writes_yield() {
        let timed = || LimitedIo::new(Sink, Duration::from_secs(1), LingerFlag::default());
        assert_eq!(write(&mut timed(), &vec![0; 8 * WRITE_YIELD_BYTES]), 7);
        let mut timed = timed();
        for _ in 0..100 {
            assert_eq!(write(&mut timed, &vec![0; 4 * LARGE_BYTES]), 0, "a read came in between");
        }
        // If a client pipelines its requests, no read is ever pending.
        let cx = &mut Context::from_waker(Waker::noop());
        let answer = vec![0; 4 * LARGE_BYTES];
        let written = (0..100).filter(|_| Pin::new(&mut timed).poll_write(cx, &answer).is_ready()).count();
        assert_eq!(written, 80, "every fifth attempt yields");
    }
}
