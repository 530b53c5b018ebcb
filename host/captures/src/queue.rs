//! The queue of captured calls, from the threads of requests to the thread that writes them.
//!
//! The queue is limited in bytes, which include the calls that were taken and are not written yet. A request never waits
//! for the queue.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use super::format::{CaptureHeader, CapturedCall, Column};

/// The plugin, the version and the view of a call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CallOrigin {
    pub(crate) header: CaptureHeader,
    pub(crate) inputs: Vec<Column>,
    pub(crate) outputs: Vec<Column>,
}

/// A call in the queue.
#[derive(Debug)]
pub(crate) struct QueuedCall {
    pub(crate) origin: CallOrigin,
    pub(crate) call: CapturedCall,
    pub(crate) reservation: Reservation,
}

/// The bytes that a call occupies. They are released when the reservation is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    queue: Arc<CallQueue>,
    pub(crate) bytes: usize,
}

#[derive(Debug)]
pub(crate) struct CallQueue {
    bytes_max: usize,
    /// The bytes of all calls that exist.
    held: AtomicUsize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<QueuedCall>,
    is_stopping: bool,
}

/// The result of taking calls from the queue.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) calls: Vec<QueuedCall>,
    pub(crate) is_stopping: bool,
}

// === impl CallQueue ===

impl CallQueue {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, held: AtomicUsize::new(0), state: Mutex::default(), changed: Condvar::new() })
    }

    /// Reserves memory for a call. Returns `None` if the queue is full.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        let add = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= self.bytes_max);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        Some(Reservation { queue: Arc::clone(self), bytes })
    }

    /// Adds a call. After [`CallQueue::stop`], drops it.
    pub(crate) fn push(&self, call: QueuedCall) {
        let mut state = self.lock();
        if !state.is_stopping {
            state.calls.push(call);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Takes all calls. Waits for a call until this instant, or without a limit.
    pub(crate) fn take(&self, until: Option<Instant>) -> Taken {
        let mut state = self.lock();
        while state.calls.is_empty() && !state.is_stopping {
            state = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(left) if left.is_zero() => break,
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        Taken { calls: std::mem::take(&mut state.calls), is_stopping: state.is_stopping }
    }

    /// Accepts no further calls, and ends the wait of [`CallQueue::take`].
    pub(crate) fn stop(&self) {
        self.lock().is_stopping = true;
        self.changed.notify_one();
    }

    /// Returns whether calls should be written now, to release memory.
    pub(crate) fn is_half_full(&self) -> bool {
        self.held.load(Ordering::Relaxed) >= self.bytes_max / 2
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is valid after every statement, so the state behind a poisoned lock is valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.queue.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_stay_within_limit() {
        let queue = CallQueue::new(100);
        let first = queue.reserve(60).unwrap();
        assert!(queue.reserve(41).is_none() && !CallQueue::new(100).is_half_full() && queue.is_half_full());
        let second = queue.reserve(40).unwrap();
        drop(first);
        assert!(queue.reserve(usize::MAX).is_none());
        assert!(queue.reserve(60).is_some());
        drop(second);
        assert!(queue.reserve(101).is_none() && queue.reserve(100).is_some());
    }

    #[test]
    fn stop_ends_the_wait() {
        let queue = CallQueue::new(100);
        queue.stop();
        let taken = queue.take(None);
        assert!(taken.is_stopping && taken.calls.is_empty());
    }
}
