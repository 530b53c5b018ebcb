//! The limits on how long a call waits: its deadline, and the caller's interrupts.

use std::{
    fmt, io,
    time::{Duration, Instant},
};

/// How long a call may wait.
pub struct Wait<'c> {
    deadline: Instant,
    interrupted: &'c dyn Fn() -> bool,
}

/// The longest time that a call waits before it checks for interrupts.
pub(crate) const SLICE: Duration = Duration::from_millis(100);

/// Why a call stopped to wait. It is the inner error of an [`io::Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stopped {
    #[error("the deadline has passed")]
    Deadline,
    #[error("interrupted")]
    Interrupt,
}

// === impl Wait ===

impl<'c> Wait<'c> {
    /// Returns a limit of `timeout` from now. While a call waits, it calls `interrupted` about ten times a second, and
    /// stops if the result is true.
    #[must_use]
    pub fn new(timeout: Duration, interrupted: &'c dyn Fn() -> bool) -> Self {
        let now = Instant::now();
        // A timeout beyond the range of the clock is a century.
        let deadline = now.checked_add(timeout).unwrap_or_else(|| now + Duration::from_secs(100 * 365 * 86_400));
        Self { deadline, interrupted }
    }

    /// Returns how long a call may wait before it checks again.
    pub(crate) fn slice(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::Error::other(Stopped::Deadline)) } else { Ok(left.min(SLICE)) }
    }

    /// Returns an error if the caller has interrupted the call, or if the deadline has passed.
    pub(crate) fn check(&self) -> io::Result<()> {
        if (self.interrupted)() { Err(io::Error::other(Stopped::Interrupt)) } else { self.slice().map(drop) }
    }
}

impl fmt::Debug for Wait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

// === impl Stopped ===

impl Stopped {
    /// Returns why waiting stopped, if that is the cause of the error.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()).copied()
    }
}
