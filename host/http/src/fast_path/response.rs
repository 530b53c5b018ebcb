//! Builds the responses of the fast path: their heads, and a buffer for consecutive responses.

use std::{
    cell::Cell,
    net::SocketAddr,
    time::{Duration, Instant, SystemTime},
};

use httpdate::HttpDate;
use hyper::StatusCode;
use larder_common::memory::{Lease, OverBudget, SMALL_BYTES};
use larder_model::model::Micros;

use super::request::FastRequest;
use crate::{
    HttpError, Router,
    router::{FastAnswer, PendingAnswer},
};

/// The head of a response.
pub(super) struct Head {
    bytes: [u8; HEAD_BYTES],
    len: usize,
}

/// A buffer for consecutive responses.
#[derive(Default)]
pub(super) struct Output {
    pub(super) bytes: Vec<u8>,
    /// The offset of the first response in `bytes`.
    from: usize,
    /// The lease on the in-flight memory budget for `bytes`, unless they are small.
    pub(super) lease: Option<Lease>,
}

/// The space that is reserved for the head of a response, in bytes. The head is shorter, and is written directly in
/// front of the body.
const HEAD_BYTES: usize = 256;
/// An output buffer with a larger capacity is freed after use.
const OUTPUT_BYTES_KEPT: usize = 4 << 20;
/// The last second of the year 9999. HTTP has no later dates.
const LAST_SECOND: u64 = 253_402_300_799;

thread_local! {
    /// The last formatted `Date` value, after its time in seconds since 1970.
    static DATE: Cell<(u64, [u8; 29])> = const { Cell::new((0, [0; 29])) };
}

// === impl Output ===

impl Output {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.from = 0;
        self.lease = None;
        if self.bytes.capacity() > OUTPUT_BYTES_KEPT {
            self.bytes = Vec::new();
        }
    }

    pub(super) fn answers(&self) -> &[u8] {
        &self.bytes[self.from..]
    }

    /// Appends the complete response to a request, and returns how long it took. If the response is pending, returns
    /// the pending response and the start time as the error.
    pub(super) fn answer(
        &mut self,
        router: &Router,
        request: &FastRequest<'_>,
        client: Option<SocketAddr>,
        is_last: bool,
    ) -> Result<Duration, (PendingAnswer, Instant)> {
        let start = self.bytes.len();
        let body = start + HEAD_BYTES;
        self.bytes.resize(body, 0);
        let took = match router.answer_fast(request.authorization, request.body, &mut self.bytes, client) {
            FastAnswer::Done(now, took) => {
                let head = Head::new(StatusCode::OK, None, self.bytes.len() - body, now, is_last);
                // The head is written after the body, because it contains the body's length.
                let head_at = body - head.len;
                self.bytes[head_at..body].copy_from_slice(head.bytes());
                if start == 0 {
                    self.from = head_at;
                } else {
                    self.bytes.copy_within(head_at.., start);
                    self.bytes.truncate(self.bytes.len() - (head_at - start));
                }
                took
            }
            FastAnswer::Failed(error, took) => {
                self.bytes.truncate(start);
                self.fail(&error, router.now(), is_last);
                took
            }
            FastAnswer::Pending(answer, started) => {
                self.bytes.truncate(start);
                return Err((answer, started));
            }
        };
        // A lease is needed, because the response stays in memory until the client reads it.
        if let Err(error) = self.lease(router) {
            self.bytes.truncate(start);
            if start == 0 {
                self.from = 0;
            }
            let error = HttpError::from(error);
            router.note_refused(&error, client);
            self.fail(&error, router.now(), is_last);
        }
        Ok(took)
    }

    /// Appends an error response.
    fn fail(&mut self, error: &HttpError, now: Micros, is_last: bool) {
        let body = error.body.to_string();
        self.bytes.extend_from_slice(Head::of_error(error, body.len(), now, is_last).bytes());
        self.bytes.extend_from_slice(body.as_bytes());
    }

    fn lease(&mut self, router: &Router) -> Result<(), OverBudget> {
        let bytes = self.bytes.len();
        if bytes <= SMALL_BYTES {
            return Ok(());
        }
        self.lease.get_or_insert_with(|| router.lease()).resize(bytes)
    }
}

// === impl Head ===

impl Head {
    /// Formats the head of a response with a body of `body_bytes` bytes. Headers are in the same order as in hyper's
    /// responses. The last response of a connection (`is_last`) has the header `connection: close`.
    pub(super) fn new(
        status: StatusCode,
        header: Option<(&str, &[u8])>,
        body_bytes: usize,
        now: Micros,
        is_last: bool,
    ) -> Self {
        let mut head = Self { bytes: [0; HEAD_BYTES], len: 0 };
        if status == StatusCode::OK {
            head.push(b"HTTP/1.1 200 OK\r\ncontent-type: application/json");
        } else {
            head.push(b"HTTP/1.1 ");
            head.push(status.as_str().as_bytes());
            head.push(b" ");
            head.push(status.canonical_reason().unwrap_or_default().as_bytes());
            head.push(b"\r\ncontent-type: application/json");
        }
        if let Some((name, value)) = header {
            head.push(b"\r\n");
            head.push(name.as_bytes());
            head.push(b": ");
            head.push(value);
        }
        head.push(b"\r\ncontent-length: ");
        head.push(itoa::Buffer::new().format(body_bytes).as_bytes());
        head.push(b"\r\ndate: ");
        head.push(&date(now));
        head.push(if is_last { b"\r\nconnection: close\r\n\r\n" } else { b"\r\n\r\n" });
        head
    }

    /// Formats the head of an error response.
    pub(super) fn of_error(error: &HttpError, body_bytes: usize, now: Micros, is_last: bool) -> Self {
        let header = error.header.as_deref().map(|(name, value)| (name.as_str(), value.as_bytes()));
        Self::new(error.status, header, body_bytes, now, is_last)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Appends bytes. They always fit, because all statuses and headers of responses to lookups are known.
    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

/// Returns the value of the `Date` header for a time. Each thread formats it at most once per second.
pub(super) fn date(now: Micros) -> [u8; 29] {
    let second = u64::try_from(now / 1_000_000).unwrap_or(0);
    let (cached, text) = DATE.get();
    if cached == second && second > 0 {
        return text;
    }
    let mut text = [b' '; 29];
    let fresh = HttpDate::from(SystemTime::UNIX_EPOCH + Duration::from_secs(second.min(LAST_SECOND))).to_string();
    // The text always has 29 characters, up to the year 9999.
    let len = fresh.len().min(text.len());
    text[..len].copy_from_slice(&fresh.as_bytes()[..len]);
    DATE.set((second, text));
    text
}
