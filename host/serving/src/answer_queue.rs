//! The queue of answers to log, from the threads of requests to the thread that writes the log.
//!
//! The queue is limited in bytes. A request never waits for it: an answer that does not fit is dropped and counted. The limit
//! includes answers that were taken from the queue and are not dropped yet.

use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use larder_common::log_interval::LogInterval;
use metrics::{Counter, counter, describe_counter};

use super::{Answer, EntityValue, LoggedService};

/// The queue of answers to log.
pub struct AnswerQueue {
    bytes_max: AtomicUsize,
    /// The bytes of all answers that exist.
    held: AtomicUsize,
    state: Mutex<State>,
    changed: Condvar,
    /// The entity rows that were dropped because the queue was full.
    dropped: Counter,
    too_large_logged: LogInterval,
}

#[derive(Default)]
struct State {
    answers: Vec<LoggedAnswer>,
    /// Whether the reader waits for the first answer.
    is_waiting: bool,
    /// Whether [`AnswerQueue::interrupt`] was called since the last [`AnswerQueue::take`].
    is_interrupted: bool,
}

/// An answer to log. It does not borrow from the request.
#[derive(Debug)]
pub struct LoggedAnswer {
    /// The requested service.
    pub service: Arc<LoggedService>,
    /// The sampled rows of the answer.
    pub answer: Answer<'static>,
    /// The values of [`crate::Plan::request_inputs`] in the sampled rows, as the caller sent them.
    pub request_data: Vec<Vec<EntityValue<'static>>>,
    /// The bytes of the queue that the answer occupies until it is dropped.
    pub(super) _reservation: Reservation,
}

/// The bytes that an answer occupies. They are released when the reservation is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    queue: Arc<AnswerQueue>,
    bytes: usize,
}

/// How long the reader waits for further answers after the first one. This limits its wake-ups, which cost more than the
/// answers.
const GATHER: Duration = Duration::from_millis(250);

/// The metric of dropped entity rows, with the label `reason`.
pub const DROPPED_ROWS: &str = "larder_feature_log_dropped_rows_total";

// === impl AnswerQueue ===

impl AnswerQueue {
    /// Creates a queue with a limit in bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Arc<Self> {
        describe_counter!(DROPPED_ROWS, "Sampled entity rows that were not logged, by reason.");
        Arc::new(Self {
            bytes_max: AtomicUsize::new(bytes_max),
            held: AtomicUsize::new(0),
            state: Mutex::default(),
            changed: Condvar::new(),
            dropped: counter!(DROPPED_ROWS, "reason" => "queue_full"),
            too_large_logged: LogInterval::default(),
        })
    }

    /// Changes the limit. Answers in the queue stay.
    pub fn set_bytes_max(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// Returns the bytes of all answers that exist.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Reserves memory for an answer with this many rows. Returns `None`, and counts the rows, if the queue is full.
    pub(super) fn reserve(self: &Arc<Self>, bytes: usize, rows: usize) -> Option<Reservation> {
        let bytes_max = self.bytes_max.load(Ordering::Relaxed);
        let add = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= bytes_max);
        if self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_err() {
            self.dropped.increment(u64::try_from(rows).unwrap_or(u64::MAX));
            // An answer that is larger than the whole queue is never logged, however often it is requested.
            if bytes > bytes_max && self.too_large_logged.is_due() {
                tracing::warn!(
                    rows,
                    bytes,
                    limit = bytes_max,
                    "a response was not logged, because it is larger than the queue of the \
                     feature log. hint: raise 'logging: queue'"
                );
            }
            return None;
        }
        Some(Reservation { queue: Arc::clone(self), bytes })
    }

    /// Adds an answer.
    pub(super) fn push(&self, answer: LoggedAnswer) {
        let mut state = self.lock();
        state.answers.push(answer);
        let is_awaited = (state.is_waiting && state.answers.len() == 1) || self.is_half_full();
        drop(state);
        if is_awaited {
            self.changed.notify_one();
        }
    }

    /// Takes all answers. Waits for an answer until this instant, or without a limit, and then briefly for further ones. Returns
    /// no answers if there are none until the instant, or after a call of [`AnswerQueue::interrupt`].
    #[must_use]
    pub fn take(&self, until: Option<Instant>) -> Vec<LoggedAnswer> {
        let mut state = self.lock();
        state.is_waiting = true;
        while state.answers.is_empty() && !state.is_interrupted {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            state = match left {
                Some(Duration::ZERO) => break,
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        state.is_waiting = false;
        let gathered = Instant::now() + GATHER;
        while !state.answers.is_empty() && !state.is_interrupted && !self.is_half_full() {
            let left = gathered.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.is_interrupted = false;
        std::mem::take(&mut state.answers)
    }

    /// Ends the current or the next wait of [`AnswerQueue::take`].
    pub fn interrupt(&self) {
        self.lock().is_interrupted = true;
        self.changed.notify_one();
    }

    fn is_half_full(&self) -> bool {
        self.held() >= self.bytes_max.load(Ordering::Relaxed) / 2
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent after every statement, so the state behind a poisoned lock is valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for AnswerQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerQueue").field("held", &self.held()).finish_non_exhaustive()
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
        let queue = AnswerQueue::new(100);
        let first = queue.reserve(60, 1).unwrap();
        assert!(queue.reserve(41, 1).is_none());
        let second = queue.reserve(40, 1).unwrap();
        assert_eq!(queue.held(), 100);
        drop(first);
        assert_eq!(queue.held(), 40);
        queue.set_bytes_max(39);
        assert!(queue.reserve(0, 1).is_none(), "a lower limit applies at once");
        drop(second);
        assert!(queue.reserve(39, 1).is_some());
    }

    #[test]
    fn take_ends_at_instant_or_interrupt() {
        let queue = AnswerQueue::new(100);
        assert!(queue.take(Some(Instant::now())).is_empty());
        queue.interrupt();
        assert!(queue.take(None).is_empty());
        let waiting = Arc::clone(&queue);
        let thread = std::thread::spawn(move || waiting.take(None).len());
        queue.interrupt();
        assert_eq!(thread.join().unwrap(), 0);
    }
}
