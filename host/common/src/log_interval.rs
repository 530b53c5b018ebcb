//! Limits how often a log line is written that any request can cause.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Allows a log line once a minute.
#[derive(Debug, Default)]
pub struct LogInterval {
    last: Mutex<Option<Instant>>,
}

const INTERVAL: Duration = Duration::from_mins(1);

// === impl LogInterval ===

impl LogInterval {
    /// Returns whether the line may be written now. If so, it may be written again after a minute.
    pub fn is_due(&self) -> bool {
        self.is_due_at(Instant::now())
    }

    fn is_due_at(&self, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= INTERVAL);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_due_once_a_minute() {
        let (interval, start) = (LogInterval::default(), Instant::now());
        assert!(interval.is_due_at(start));
        assert!(!interval.is_due_at(start + INTERVAL - Duration::from_millis(1)));
        assert!(interval.is_due_at(start + INTERVAL));
        assert!(!interval.is_due_at(start + INTERVAL));
    }
}
