//! A range of event times.

use super::Micros;

/// A range of event times. Both ends are included; `None` means that the end is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The earliest event time in the range.
    pub from: Option<Micros>,
    /// The latest event time in the range.
    pub to: Option<Micros>,
}

// === impl Window ===

impl Window {
    /// Returns whether both ends are open, so that the range contains every time.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.from.is_none() && self.to.is_none()
    }

    /// Returns whether the range contains a time.
    #[must_use]
    pub fn contains(&self, time: Micros) -> bool {
        self.from.is_none_or(|from| time >= from) && self.to.is_none_or(|to| time <= to)
    }
}
