//! What is under way on one connection, and since when.

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

/// The calls of a connection.
#[derive(Debug)]
pub(super) struct InFlightCalls {
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    /// Calls that have one answer.
    calls: usize,
    /// Calls whose answers come one by one, for as long as the client likes.
    streams: usize,
    /// When the last of all these ended; of interest while there is none.
    idle_since: Instant,
    next: u64,
    /// Answers that are on their way, oldest first: when each began.
    unsent: BTreeMap<u64, Instant>,
}

/// Keeps a call in the book for as long as it lives.
#[derive(Debug)]
pub(super) struct CallGuard {
    in_flight: Arc<InFlightCalls>,
    is_stream: bool,
    answer: Option<u64>,
    /// A permit for a stream.
    permit: Option<OwnedSemaphorePermit>,
}

/// An answer, which keeps its call in the book until it was sent.
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

    /// Notes a call that begins.
    pub(super) fn enter(self: &Arc<Self>, is_stream: bool) -> CallGuard {
        *self.counts().count(is_stream) += 1;
        CallGuard { in_flight: Arc::clone(self), is_stream, answer: None, permit: None }
    }

    /// Whether nothing was asked for as long.
    pub(super) fn is_idle(&self, bound: Duration) -> bool {
        let counts = self.counts();
        counts.calls + counts.streams == 0 && counts.idle_since.elapsed() > bound
    }

    /// Whether an answer is on its way for longer.
    pub(super) fn is_unread(&self, bound: Duration) -> bool {
        self.counts().unsent.first_key_value().is_some_and(|(_, since)| since.elapsed() > bound)
    }

    /// Whether a call waits for its one answer, or for that to be sent.
    pub(super) fn has_calls(&self) -> bool {
        self.counts().calls > 0
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Each change is whole.
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
    /// Keeps a permit until the call ends.
    pub(super) fn keep(&mut self, permit: OwnedSemaphorePermit) {
        self.permit = Some(permit);
    }

    /// The call's answer begins to leave.
    pub(super) fn leave(mut self, body: Body) -> Body {
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

    #[test]
    fn a_call_is_in_the_book_until_its_answer_is_gone() {
        let in_flight = InFlightCalls::new();
        assert!(in_flight.is_idle(Duration::ZERO) && !in_flight.has_calls());
        let call = in_flight.enter(false);
        assert!(!in_flight.is_idle(Duration::ZERO) && in_flight.has_calls() && !in_flight.is_unread(Duration::ZERO));
        let answer = call.leave(Body::new(Full::new(Bytes::from_static(b"answer"))));
        std::thread::sleep(Duration::from_millis(2));
        assert!(in_flight.is_unread(Duration::from_millis(1)) && !in_flight.is_unread(Duration::from_secs(60)));
        let stream = in_flight.enter(true);
        drop(answer);
        assert!(!in_flight.is_unread(Duration::ZERO) && !in_flight.has_calls() && !in_flight.is_idle(Duration::ZERO));
        drop(stream.leave(Body::default()));
        std::thread::sleep(Duration::from_millis(2));
        assert!(in_flight.is_idle(Duration::from_millis(1)) && !in_flight.is_idle(Duration::from_secs(60)));
    }
}
