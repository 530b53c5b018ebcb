//! Limits the memory of one response, and the work that a serving thread does for it.

use larder_common::memory::{Lease, leased_bytes};

use super::RequestError;

/// The memory budget of one response. It covers the rows that were looked up, and the bytes that were written.
#[derive(Debug)]
pub struct ResponseBudget {
    account: Account,
    answer_bytes_max: usize,
}

#[derive(Debug)]
enum Account {
    /// A serving thread builds the response. No lease is needed, because a thread builds one response at a time.
    Thread {
        /// The bytes left for rows, and for the list of rows to fetch.
        left: usize,
    },
    /// A compute thread builds the response.
    Leased(Lease),
    /// No limits apply.
    Unbounded,
}

/// The limit on the bytes of rows, and separately on the bytes of output, of a response on a serving thread. Reading or
/// writing this many bytes takes a few milliseconds.
const THREAD_BYTES_MAX: usize = 4 << 20;

/// The limit on lookups of one request on a serving thread: one for each entity row and view. If all of them read from
/// disk, they take a few milliseconds.
const THREAD_LOOKUPS_MAX: usize = 1_024;

/// The limit on values of a response on a serving thread.
const THREAD_VALUES_MAX: usize = 1 << 15;

/// The limit on names of a new request shape that a serving thread resolves.
const THREAD_NAMES_MAX: usize = 1_024;

/// The memory of each lookup and of each value, in bytes, in addition to the bytes of rows and output.
const LOOKUP_BYTES: usize = 80;
const VALUE_BYTES: usize = 32;

// === impl ResponseBudget ===

impl ResponseBudget {
    /// Creates a budget for a serving thread. Work that would take more than a few milliseconds fails with
    /// [`RequestError::TooLong`] and must be retried on a compute thread.
    #[must_use]
    pub fn of_thread(answer_bytes_max: usize) -> Self {
        Self { account: Account::Thread { left: THREAD_BYTES_MAX }, answer_bytes_max }
    }

    /// Creates a budget for a compute thread. The lease grows with the reserved memory.
    #[must_use]
    pub fn leased(lease: Lease, answer_bytes_max: usize) -> Self {
        Self { account: Account::Leased(lease), answer_bytes_max }
    }

    /// Creates a budget without limits, for tools.
    #[must_use]
    pub fn unbounded() -> Self {
        Self { account: Account::Unbounded, answer_bytes_max: usize::MAX }
    }

    /// Checks the number of lookups and values, and reserves memory for their overhead.
    ///
    /// # Errors
    /// [`RequestError::TooLong`] on a serving thread, [`RequestError::Memory`].
    pub(super) fn begin(&mut self, lookups: usize, values: usize) -> Result<(), RequestError> {
        match &mut self.account {
            Account::Thread { .. } if lookups > THREAD_LOOKUPS_MAX || values > THREAD_VALUES_MAX => {
                Err(RequestError::TooLong)
            }
            Account::Leased(lease) => Ok(lease.grow(lookups * LOOKUP_BYTES + values * VALUE_BYTES)?),
            Account::Thread { .. } | Account::Unbounded => Ok(()),
        }
    }

    /// Checks the number of names to resolve for a new request shape.
    ///
    /// # Errors
    /// [`RequestError::TooLong`] on a serving thread.
    pub(super) fn check_names(&self, names: usize) -> Result<(), RequestError> {
        match &self.account {
            Account::Thread { .. } if names > THREAD_NAMES_MAX => Err(RequestError::TooLong),
            _ => Ok(()),
        }
    }

    /// Reserves memory for rows or other data of the request, but not for output.
    ///
    /// # Errors
    /// [`RequestError::TooLong`] on a serving thread, [`RequestError::Memory`].
    #[inline]
    pub fn hold(&mut self, bytes: usize) -> Result<(), RequestError> {
        match &mut self.account {
            Account::Thread { left } => {
                *left = left.checked_sub(bytes).ok_or(RequestError::TooLong)?;
                Ok(())
            }
            Account::Leased(lease) => Ok(lease.grow(bytes)?),
            Account::Unbounded => Ok(()),
        }
    }

    /// Reserves capacity for `at_most` more bytes of output. Fails if `at_least` more bytes would exceed the size limit
    /// of a response.
    ///
    /// # Errors
    /// [`RequestError::AnswerTooLarge`], [`RequestError::TooLong`] on a serving thread, [`RequestError::Memory`].
    #[inline]
    pub fn reserve(&mut self, out: &mut Vec<u8>, at_least: usize, at_most: usize) -> Result<(), RequestError> {
        if out.len().saturating_add(at_least) > self.answer_bytes_max {
            return Err(RequestError::AnswerTooLarge { limit: self.answer_bytes_max });
        }
        if out.capacity() - out.len() >= at_most { Ok(()) } else { self.extend(out, at_most) }
    }

    #[cold]
    fn extend(&mut self, out: &mut Vec<u8>, more: usize) -> Result<(), RequestError> {
        let len = out.len().saturating_add(more);
        let capacity = len.max(out.capacity() / 2 * 3);
        match &mut self.account {
            Account::Thread { .. } if len > THREAD_BYTES_MAX => return Err(RequestError::TooLong),
            // The old and the new buffer exist at the same time while the bytes are copied.
            Account::Leased(lease) => {
                let before = out.capacity();
                lease.grow(capacity)?;
                out.reserve_exact(capacity - out.len());
                lease.resize(lease.held().saturating_sub(before))?;
            }
            Account::Thread { .. } | Account::Unbounded => out.reserve_exact(capacity - out.len()),
        }
        Ok(())
    }

    /// Returns the finished response, and releases all other reserved memory. On a compute thread, the response keeps a
    /// lease of its own size.
    ///
    /// # Errors
    /// [`RequestError::AnswerTooLarge`], [`RequestError::Memory`].
    pub fn finish(self, mut answer: Vec<u8>) -> Result<bytes::Bytes, RequestError> {
        if answer.len() > self.answer_bytes_max {
            return Err(RequestError::AnswerTooLarge { limit: self.answer_bytes_max });
        }
        match self.account {
            Account::Leased(mut lease) => {
                answer.shrink_to_fit();
                lease.resize(answer.capacity())?;
                Ok(leased_bytes(answer, lease))
            }
            Account::Thread { .. } | Account::Unbounded => Ok(answer.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_common::memory::MemoryBudget;

    #[test]
    fn serving_thread_gives_up_long_work() {
        let begin = |lookups, values| ResponseBudget::of_thread(usize::MAX).begin(lookups, values);
        begin(THREAD_LOOKUPS_MAX, THREAD_VALUES_MAX).unwrap();
        assert!(matches!(begin(THREAD_LOOKUPS_MAX + 1, 1), Err(RequestError::TooLong)));
        assert!(matches!(begin(1, THREAD_VALUES_MAX + 1), Err(RequestError::TooLong)));
        let mut budget = ResponseBudget::of_thread(usize::MAX);
        budget.hold(THREAD_BYTES_MAX).unwrap();
        assert!(matches!(budget.hold(1), Err(RequestError::TooLong)));
        let mut out = Vec::new();
        ResponseBudget::of_thread(usize::MAX).reserve(&mut out, 0, THREAD_BYTES_MAX).unwrap();
        let too_long = ResponseBudget::of_thread(usize::MAX).reserve(&mut out, 0, THREAD_BYTES_MAX + 1);
        assert!(matches!(too_long, Err(RequestError::TooLong)));
    }

    #[test]
    fn growing_answer_is_always_leased() {
        let memory = MemoryBudget::new(100 << 20);
        let mut budget = ResponseBudget::leased(memory.lease(), 8 << 20);
        let mut out: Vec<u8> = Vec::new();
        while out.len() < 8 << 20 {
            budget.reserve(&mut out, 1 << 18, 1 << 18).unwrap();
            out.resize(out.len() + (1 << 18), b'x');
            assert!(memory.used() >= out.capacity(), "{} of {}", memory.used(), out.capacity());
        }
        let too_large = budget.reserve(&mut out, 1, 1).unwrap_err();
        assert!(matches!(too_large, RequestError::AnswerTooLarge { limit } if limit == 8 << 20));
        budget.hold(1 << 20).unwrap();
        let answer = budget.finish(out).unwrap();
        assert_eq!(memory.used(), 8 << 20, "its own size, and no more");
        drop(answer);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn answer_beyond_the_budget_is_refused() {
        let memory = MemoryBudget::new(4 << 20);
        let mut budget = ResponseBudget::leased(memory.lease(), usize::MAX);
        assert!(matches!(budget.hold(4 << 20), Err(RequestError::Memory(_))));
        assert!(matches!(budget.reserve(&mut Vec::new(), 0, 4 << 20), Err(RequestError::Memory(_))));
        drop(budget);
        assert_eq!(memory.used(), 0);
    }
}
