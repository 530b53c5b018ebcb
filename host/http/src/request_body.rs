//! Reads request bodies within limits, and discards bodies that the handler did not read.

use std::{pin::pin, task::Poll, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    StatusCode,
    body::{Body, Incoming},
};
use larder_common::memory::{Lease, SMALL_BYTES, leased_bytes};
use tokio::time::timeout;

use super::HttpError;

/// The body of a request.
#[derive(Debug)]
pub(super) struct RequestBody {
    body: Incoming,
    /// Whether the client waits for `100 Continue` before it sends the body. hyper sends that response when the body is
    /// first read.
    expects_continue: bool,
    /// Whether reading the body failed: the body was too large, too slow or broken, or the memory budget was exceeded.
    /// Not set if nothing was read, because `Content-Length` already shows that the body is too large.
    read_failed: bool,
}

/// Limits on discarding an unread body to keep its connection open.
const SKIPPED_BYTES_MAX: usize = 256 << 10;
const SKIPPED_WITHIN: Duration = Duration::from_secs(1);

// === impl RequestBody ===

impl RequestBody {
    /// Wraps a body. Set `expects_continue` if the request has an `Expect` header.
    pub(super) fn new(body: Incoming, expects_continue: bool) -> Self {
        Self { body, expects_continue, read_failed: false }
    }

    /// Reads the body if it has at most `max` bytes and arrives within `within`. The error for a larger body ends with
    /// `hint`. Leases memory if the body arrives in several pieces and needs a buffer of more than `SMALL_BYTES`.
    pub(super) async fn read(
        &mut self,
        max: usize,
        hint: &str,
        lease: Lease,
        within: Duration,
    ) -> Result<Bytes, HttpError> {
        let too_large = || {
            let message = format!("the body has more than {max} bytes; {hint}");
            HttpError::detail(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
        };
        if self.body.size_hint().lower() > max as u64 {
            return Err(too_large());
        }
        // Nearly all bodies have already arrived and need no timer.
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
        self.read_failed = read.is_err();
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
                HttpError::detail(StatusCode::BAD_REQUEST, "broken_body", format!("cannot read the body: {error}"))
            })?;
            let Ok(data) = frame.into_data() else { continue };
            let read = first.len() + rest.len() + data.len();
            if read > max {
                return Err(too_large());
            }
            // Nearly every body arrives in one piece and needs no copy.
            if first.is_empty() && rest.is_empty() {
                first = data;
                continue;
            }
            if read > rest.capacity() {
                // Both buffers exist while the content of one is copied to the other.
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

    /// Discards the rest of the body. Returns false if the rest is too long, too slow or broken, if reading the body
    /// already failed, or if the client waits for `100 Continue`. The connection must then be closed, because the next
    /// request starts after the body.
    pub(super) async fn skip(&mut self) -> bool {
        if self.body.is_end_stream() {
            return true;
        }
        if self.read_failed || self.expects_continue || self.body.size_hint().lower() > SKIPPED_BYTES_MAX as u64 {
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
