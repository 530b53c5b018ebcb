//! A span of event times.

use super::Micros;

/// A span of event times, both ends included; an open end is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The earliest event time that counts.
    pub from: Option<Micros>,
    /// The latest event time that counts.
    pub to: Option<Micros>,
}

// === impl Window ===

impl Window {
    /// Whether every time counts.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.from.is_none() && self.to.is_none()
    }

    /// Whether this time counts.
    #[must_use]
    pub fn contains(&self, time: Micros) -> bool {
        self.from.is_none_or(|from| time >= from) && self.to.is_none_or(|to| time <= to)
    }
}
