//! Request bodies: read within limits, or read past after an answer that did not need them.

use std::{pin::pin, task::Poll, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    StatusCode,
    body::{Body, Incoming},
};
use tokio::time::timeout;

use super::HttpError;
use crate::memory::{Lease, SMALL_BYTES, leased_bytes};

/// The body of a request.
#[derive(Debug)]
pub(super) struct Upload {
    body: Incoming,
    /// Whether its client sends it only after a response `100 Continue`, which reading it brings about.
    is_expected: bool,
    /// Whether it was given up: it is too large, too slow or broken.
    is_given_up: bool,
}

/// How much of a body that is not needed is read, and for how long, so that its connection can be kept.
const SKIPPED_BYTES_MAX: usize = 256 << 10;
const SKIPPED_WITHIN: Duration = Duration::from_secs(1);

// === impl Upload ===

impl Upload {
    /// A body; `is_expected` if the request has a header `Expect`.
    pub(super) fn new(body: Incoming, is_expected: bool) -> Self {
        Self { body, is_expected, is_given_up: false }
    }

    /// Reads the body if it has at most `max` bytes and arrives within a time. Its memory is leased.
    pub(super) async fn read(&mut self, max: usize, lease: Lease, within: Duration) -> Result<Bytes, HttpError> {
        let too_large = || {
            let message = format!("the body has more than {max} bytes; hint: 'server: limits: body_bytes_max'");
            HttpError::detail(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
        };
        if self.body.size_hint().lower() > max as u64 {
            return Err(too_large());
        }
        // A body that is here already, as nearly all are, is not worth a timer.
        let read = {
            let mut read = pin!(self.read_frames(max, lease, too_large));
            match std::future::poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await {
                Poll::Ready(body) => body,
                Poll::Pending => timeout(within, read).await.unwrap_or_else(|_| {
                    let message = "the body took too long to arrive";
                    Err(HttpError::detail(StatusCode::REQUEST_TIMEOUT, "slow_body", message))
                }),
            }
        };
        self.is_given_up = read.is_err();
        read
    }

    async fn read_frames(
        &mut self,
        max: usize,
        mut lease: Lease,
        too_large: impl Fn() -> HttpError,
    ) -> Result<Bytes, HttpError> {
        let length = usize::try_from(self.body.size_hint().lower()).unwrap_or(max);
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| {
                HttpError::detail(StatusCode::BAD_REQUEST, "broken_body", format!("the body ended early: {error}"))
            })?;
            let Ok(data) = frame.into_data() else { continue };
            let read = first.len() + rest.len() + data.len();
            if read > max {
                return Err(too_large());
            }
            // Nearly every body comes in one piece, which needs no copy.
            if first.is_empty() && rest.is_empty() {
                first = data;
                continue;
            }
            if read > rest.capacity() {
                // Both buffers exist while one is copied to the other.
                let (before, capacity) = (rest.capacity(), read.max(length.min(2 * read)));
                if capacity > SMALL_BYTES {
                    lease.resize(before + capacity)?;
                }
                let mut larger = BytesMut::with_capacity(capacity);
                larger.extend_from_slice(&std::mem::take(&mut first));
                larger.extend_from_slice(&rest);
                rest = larger;
                if capacity > SMALL_BYTES {
                    lease.resize(rest.capacity())?;
                }
            }
            rest.extend_from_slice(&data);
        }
        Ok(if rest.is_empty() {
            first
        } else if lease.held() == 0 {
            rest.freeze()
        } else {
            leased_bytes(rest, lease)
        })
    }

    /// Reads past what is left of a body that the response did not need. False if that is too much: the connection must
    /// be closed then, because the next request on it begins behind the body.
    pub(super) async fn skip(&mut self) -> bool {
        if self.body.is_end_stream() {
            return true;
        }
        if self.is_given_up || self.is_expected || self.body.size_hint().lower() > SKIPPED_BYTES_MAX as u64 {
            return false;
        }
        let read = async {
            let mut skipped = 0;
            while let Some(frame) = self.body.frame().await {
                let Ok(frame) = frame else { return false };
                skipped += frame.data_ref().map_or(0, Bytes::len);
                if skipped > SKIPPED_BYTES_MAX {
                    return false;
                }
            }
            true
        };
        timeout(SKIPPED_WITHIN, read).await.unwrap_or(false)
    }
}
