//! The fast path: reads and answers simple requests for features without hyper.
//!
//! Nearly all requests are alike: a POST of a few hundred bytes with a known length, answered with JSON after one
//! lookup in memory. hyper supports all of HTTP/1.1. When hyper served these requests, half the time of a lookup was
//! spent in hyper. So each connection starts on the fast path. The fast path answers complete lookups that use no
//! special features of HTTP, and also sends their error responses. At the first other request, the connection is handed
//! to hyper with all bytes from that request on, and never returns to the fast path. Both paths send the same
//! responses. The fuzz target `fast_path` compares them.
//!
//! A worker thread reads, parses, answers and writes without a pause, and uses the thread's own buffers. So an idle
//! connection holds no buffers. A request waits only if another thread computes its response, or if rows are fetched
//! for it. During that time, the connection keeps the bytes that follow the request.

mod request;
mod response;
#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use hyper::StatusCode;
use larder_common::memory::{Lease, SMALL_BYTES};
use larder_ingest::READ_THROUGH_HEADER;
use larder_serving::LookupResponse;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(super) use self::request::is_lookup;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) use self::request::lookup_length;
use self::{
    request::{Parsed, REQUEST_BYTES_MAX, parse},
    response::{Head, Output},
};
use super::{
    Router,
    limited_io::yield_poll,
    router::PendingAnswer,
    timer::{CoarseSleep, CoarseTimer},
};

/// A connection that has sent only fast-path requests so far.
pub(super) struct FastConnection<S> {
    stream: S,
    router: Arc<Router>,
    /// Bytes that were read but not answered: complete requests, or the beginning of a request.
    partial: Vec<u8>,
    /// The lease on the in-flight memory budget for `partial`, unless `partial` is small.
    partial_lease: Option<Lease>,
    /// Response bytes that the client has not accepted yet.
    unsent: Vec<u8>,
    /// The body of a response from another thread, sent after `unsent`.
    unsent_body: Bytes,
    /// The lease on the in-flight memory budget for `unsent`, unless `unsent` is small.
    lease: Option<Lease>,
    /// The client's address, for the log.
    client: Option<SocketAddr>,
    /// The next step after all response bytes are sent.
    then: Then,
    sleep: CoarseSleep,
}

/// How a connection continues after the fast path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The connection ended.
    Ended,
    /// hyper takes over the connection, and reads these bytes first.
    Hyper(Vec<u8>),
}

enum Then {
    Read,
    /// Parse `partial` before reading, because it may have complete requests.
    Again,
    /// Serve other connections first, then continue as for `Again`.
    Yield,
    /// A response is pending. The variant is boxed to keep the other variants cheap to move.
    Wait(Box<Waiting>),
    Close,
    Hyper(Vec<u8>),
}

/// A request whose response is pending.
struct Waiting {
    answer: PendingAnswer,
    started: Instant,
    /// The bytes that follow the request.
    bytes: Vec<u8>,
}

/// The buffers of a worker thread, which all its connections share.
struct Buffers {
    input: Vec<u8>,
    output: Output,
}

/// Once this many bytes are ready to send, further requests wait until the client has accepted them, because a request
/// of a few bytes can have a large response.
const OUTPUT_BYTES_FULL: usize = 64 << 10;
/// How long consecutive responses may take before other connections are served.
const YIELD_AFTER: Duration = super::router::YIELD_AFTER;
/// How long the fast path waits for the rest of a request before it hands the connection to hyper, which has its own
/// time limits for requests that arrive slowly.
const STALL_CHECK: Duration = Duration::from_secs(1);
thread_local! {
    static BUFFERS: RefCell<Buffers> =
        RefCell::new(Buffers { input: vec![0; REQUEST_BYTES_MAX], output: Output::default() });
}

// === impl FastConnection ===

impl<S: AsyncRead + AsyncWrite + Unpin> FastConnection<S> {
    pub(super) fn new(stream: S, router: Arc<Router>, client: Option<SocketAddr>) -> Self {
        let sleep = CoarseSleep::new(CoarseTimer::after(router.limits().header_timeout));
        let (partial, unsent, unsent_body) = (Vec::new(), Vec::new(), Bytes::new());
        Self {
            stream,
            router,
            partial,
            unsent,
            unsent_body,
            lease: None,
            client,
            then: Then::Read,
            sleep,
            partial_lease: None,
        }
    }

    pub(super) fn into_stream(self) -> S {
        self.stream
    }

    /// Serves requests until the connection ends or is handed to hyper. While the server drains, answers a request that
    /// has begun, and then ends the connection.
    ///
    /// # Errors
    /// I/O errors of the connection.
    pub(super) fn poll_serve(&mut self, is_draining: bool, cx: &mut Context<'_>) -> Poll<io::Result<Next>> {
        loop {
            ready!(self.poll_send(cx))?;
            let mut is_read = false;
            match std::mem::replace(&mut self.then, Then::Read) {
                Then::Read => {}
                Then::Again => is_read = true,
                Then::Yield => {
                    self.then = Then::Again;
                    yield_poll(cx);
                    return Poll::Pending;
                }
                Then::Wait(waiting) => {
                    ready!(self.poll_waiting(waiting, is_draining, cx));
                    continue;
                }
                Then::Close => return Poll::Ready(Ok(Next::Ended)),
                Then::Hyper(bytes) => return Poll::Ready(Ok(Next::Hyper(bytes))),
            }
            if is_draining && self.partial.is_empty() {
                return Poll::Ready(Ok(Next::Ended));
            }
            match BUFFERS.with_borrow_mut(|buffers| self.poll_turn(buffers, is_read, is_draining, cx))? {
                Poll::Ready(true) => {}
                Poll::Ready(false) => return Poll::Ready(Ok(Next::Ended)),
                Poll::Pending => {
                    ready!(Pin::new(&mut self.sleep).poll(cx));
                    return Poll::Ready(Ok(match std::mem::take(&mut self.partial) {
                        partial if partial.is_empty() => Next::Ended,
                        partial => Next::Hyper(partial),
                    }));
                }
            }
        }
    }

    /// Reads the bytes that have arrived unless `is_read` is set, answers complete requests, and writes as much as
    /// the client accepts. Returns false if the client has closed the connection.
    fn poll_turn(
        &mut self,
        buffers: &mut Buffers,
        is_read: bool,
        is_draining: bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<bool>> {
        let Buffers { input, output } = buffers;
        let before = self.partial.len();
        input[..before].copy_from_slice(&self.partial);
        let mut end = before;
        if !is_read {
            let mut read = ReadBuf::new(&mut input[before..]);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
            end += read.filled().len();
            if end == before {
                return Poll::Ready(Ok(false));
            }
        }
        let input = &input[..end];
        if !self.router.has_fast_path() {
            self.then = Then::Hyper(input.to_vec());
            return Poll::Ready(Ok(true));
        }
        let mut took = Duration::ZERO;
        let mut done = 0;
        let body_bytes_max = self.router.limits().body_bytes_max;
        output.clear();
        let then = loop {
            let rest = &input[done..];
            if rest.is_empty() {
                break Then::Read;
            }
            match parse(rest, body_bytes_max) {
                Parsed::Lookup(request) => {
                    done += request.len;
                    match output.answer(&self.router, &request, self.client, is_draining) {
                        Ok(duration) => took += duration,
                        Err((answer, started)) => {
                            let bytes = input[done..].to_vec();
                            break Then::Wait(Box::new(Waiting { answer, started, bytes }));
                        }
                    }
                }
                Parsed::Partial if rest.len() < REQUEST_BYTES_MAX => break Then::Read,
                _ => break Then::Hyper(rest.to_vec()),
            }
            if is_draining {
                break Then::Close;
            }
            if took > YIELD_AFTER {
                break Then::Yield;
            }
            // Large responses to pipelined requests are sent one at a time, and other connections are served in
            // between.
            if output.bytes.len() >= OUTPUT_BYTES_FULL && done < end {
                break Then::Yield;
            }
        };
        let then = self.keep_partial(then, &input[done..]);
        if let Then::Read | Then::Again | Then::Yield = then {
            let header_timeout = self.router.limits().header_timeout;
            if self.partial.is_empty() {
                self.sleep.reset(CoarseTimer::after(header_timeout));
            } else if before == 0 || done > 0 {
                self.sleep.reset(CoarseTimer::after(STALL_CHECK.min(header_timeout)));
            }
        }
        self.then = then;
        // The client nearly always accepts all bytes at once.
        let answers = output.answers();
        if !answers.is_empty() {
            let written = match Pin::new(&mut self.stream).poll_write(cx, answers) {
                Poll::Ready(written) => written?,
                Poll::Pending => 0,
            };
            if written < answers.len() {
                self.unsent = answers[written..].to_vec();
                self.lease = output.lease.take();
            }
        }
        output.clear();
        Poll::Ready(Ok(true))
    }

    /// Stores the bytes that were not answered in `partial`, if the connection stays on the fast path. If they are
    /// large and exceed the memory budget, hands the connection to hyper, and the hyper path reports the error.
    fn keep_partial(&mut self, then: Then, rest: &[u8]) -> Then {
        let is_kept = matches!(then, Then::Read | Then::Again | Then::Yield);
        self.partial_lease = None;
        if is_kept && rest.len() > SMALL_BYTES {
            let mut lease = self.router.lease();
            if lease.grow(rest.len()).is_err() {
                return Then::Hyper(rest.to_vec());
            }
            self.partial_lease = Some(lease);
        }
        // An empty buffer holds no memory.
        self.partial = if is_kept { rest.to_vec() } else { Vec::new() };
        then
    }

    /// Waits for a pending response.
    fn poll_waiting(&mut self, mut waiting: Box<Waiting>, is_draining: bool, cx: &mut Context<'_>) -> Poll<()> {
        let Poll::Ready(answer) = waiting.answer.as_mut().poll(cx) else {
            if poll_departure(&mut self.stream, &mut waiting.bytes, cx).is_pending() {
                self.then = Then::Wait(waiting);
                return Poll::Pending;
            }
            // This drops `waiting`, and with it the work on the response if that has not started.
            self.then = Then::Close;
            return Poll::Ready(());
        };
        let _ = self.router.note_fast(waiting.started, answer.as_ref().err(), self.client);
        let now = self.router.now();
        let (head, body) = match answer {
            Ok(LookupResponse { body, fetched }) => {
                let header = fetched.reason().map(|reason| (READ_THROUGH_HEADER, reason.as_bytes()));
                (Head::new(StatusCode::OK, header, body.len(), now, is_draining), body)
            }
            Err(error) => {
                let body = Bytes::from(error.body.to_string());
                (Head::of_error(&error, body.len(), now, is_draining), body)
            }
        };
        self.unsent = head.bytes().to_vec();
        self.unsent_body = body;
        self.partial = std::mem::take(&mut waiting.bytes);
        // The bytes after the request were not parsed while the response was pending, so their timeout starts now.
        self.sleep.reset(CoarseTimer::after(STALL_CHECK.min(self.router.limits().header_timeout)));
        self.then = if is_draining { Then::Close } else { Then::Again };
        Poll::Ready(())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.unsent.is_empty() || !self.unsent_body.is_empty() {
            ready!(self.poll_unsent(cx))?;
        }
        // TLS may have buffered some of the bytes.
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut sent = 0;
        while sent < self.unsent.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.unsent[sent..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(more)) => sent += more,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.unsent.drain(..sent);
                    return Poll::Pending;
                }
            }
        }
        self.unsent = Vec::new();
        self.lease = None;
        while !self.unsent_body.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unsent_body))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.unsent_body.advance(sent),
            }
        }
        self.unsent_body = Bytes::new();
        Poll::Ready(Ok(()))
    }
}

/// Waits until the client closes the connection, or its sending half, while a response is pending. The connection is
/// then closed, as hyper does in this case. Appends bytes that follow the request to `bytes`, up to
/// [`REQUEST_BYTES_MAX`] in total.
fn poll_departure<S: AsyncRead + Unpin>(stream: &mut S, bytes: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<()> {
    let mut piece = [0; 1 << 10];
    while bytes.len() < REQUEST_BYTES_MAX {
        let room = piece.len().min(REQUEST_BYTES_MAX - bytes.len());
        let mut read = ReadBuf::new(&mut piece[..room]);
        match ready!(Pin::new(&mut *stream).poll_read(cx, &mut read)) {
            Ok(()) if !read.filled().is_empty() => bytes.extend_from_slice(read.filled()),
            _ => return Poll::Ready(()),
        }
    }
    Poll::Pending
}
