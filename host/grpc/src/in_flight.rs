//! Tracks the calls in flight on one connection, and since when the connection is idle.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tonic::body::Body;

/// The calls in flight on one connection.
#[derive(Debug)]
pub(super) struct InFlightCalls {
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    /// Unary calls.
    calls: usize,
    /// Streaming calls, which last as long as the client wants.
    streams: usize,
    /// When the last call ended, or when the connection began. Meaningful only while no call is in flight.
    idle_since: Instant,
    /// The sequence number of the next unary response.
    next: u64,
    /// For each unary response that has not been sent completely: its sequence number, and when sending it began. The
    /// first entry is the oldest.
    unsent: BTreeMap<u64, Instant>,
}

/// Counts a call as in flight until the guard is dropped.
#[derive(Debug)]
pub(super) struct CallGuard {
    in_flight: Arc<InFlightCalls>,
    is_stream: bool,
    /// The sequence number of the response of a unary call.
    answer: Option<u64>,
    /// The permit of a streaming call, released when the call ends.
    permit: Option<OwnedSemaphorePermit>,
}

/// A response body that keeps its call in flight until the body is sent and dropped.
#[derive(Debug)]
pub(super) struct UnsentBody {
    body: Body,
    _guard: CallGuard,
}

// === impl InFlightCalls ===

impl InFlightCalls {
    pub(super) fn new() -> Arc<Self> {
        let counts = Counts { calls: 0, streams: 0, idle_since: Instant::now(), next: 0, unsent: BTreeMap::default() };
        Arc::new(Self { counts: Mutex::new(counts) })
    }

    /// Records that a call begins.
    pub(super) fn enter(self: &Arc<Self>, is_stream: bool) -> CallGuard {
        *self.counts().count(is_stream) += 1;
        CallGuard { in_flight: Arc::clone(self), is_stream, answer: None, permit: None }
    }

    /// Returns whether no call is in flight, and the last call ended more than `bound` ago.
    pub(super) fn is_idle(&self, bound: Duration) -> bool {
        let counts = self.counts();
        counts.calls + counts.streams == 0 && counts.idle_since.elapsed() > bound
    }

    /// Returns whether a response is not sent completely, although sending it began more than `bound` ago.
    pub(super) fn is_unread(&self, bound: Duration) -> bool {
        self.counts().unsent.first_key_value().is_some_and(|(_, since)| since.elapsed() > bound)
    }

    /// Returns whether a unary call is in flight, which means that its response is pending or is not sent completely.
    pub(super) fn has_calls(&self) -> bool {
        self.counts().calls > 0
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // A panic cannot leave an incomplete change, so a poisoned lock is safe to use.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Counts ===

impl Counts {
    fn count(&mut self, is_stream: bool) -> &mut usize {
        if is_stream { &mut self.streams } else { &mut self.calls }
    }
}

// === impl CallGuard ===

impl CallGuard {
    /// Holds a permit until the call ends.
    pub(super) fn keep(&mut self, permit: OwnedSemaphorePermit) {
        self.permit = Some(permit);
    }

    /// Wraps the response body, so that the call is in flight until the body is dropped. Records when the sending of a
    /// unary response begins.
    pub(super) fn wrap_response(mut self, body: Body) -> Body {
        if !self.is_stream {
            let mut counts = self.in_flight.counts();
            let number = counts.next;
            counts.next += 1;
            counts.unsent.insert(number, Instant::now());
            drop(counts);
            self.answer = Some(number);
        }
        Body::new(UnsentBody { body, _guard: self })
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let mut counts = self.in_flight.counts();
        *counts.count(self.is_stream) -= 1;
        if let Some(number) = self.answer {
            counts.unsent.remove(&number);
        }
        counts.idle_since = Instant::now();
    }
}

// === impl UnsentBody ===

impl hyper::body::Body for UnsentBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    /// Waits until the clock has a later time.
    fn tick() {
        let now = Instant::now();
        while now.elapsed().is_zero() {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn call_ends_when_response_is_dropped() {
        let in_flight = InFlightCalls::new();
        tick();
        assert!(in_flight.is_idle(Duration::ZERO) && !in_flight.has_calls());
        let call = in_flight.enter(false);
        assert!(!in_flight.is_idle(Duration::ZERO) && in_flight.has_calls() && !in_flight.is_unread(Duration::ZERO));
        let answer = call.wrap_response(Body::new(Full::new(Bytes::from_static(b"answer"))));
        tick();
        assert!(in_flight.is_unread(Duration::ZERO) && !in_flight.is_unread(Duration::from_secs(60)));
        let stream = in_flight.enter(true);
        drop(answer);
        assert!(!in_flight.is_unread(Duration::ZERO) && !in_flight.has_calls() && !in_flight.is_idle(Duration::ZERO));
        drop(stream.wrap_response(Body::default()));
        tick();
        assert!(in_flight.is_idle(Duration::ZERO) && !in_flight.is_idle(Duration::from_secs(60)));
    }
}
