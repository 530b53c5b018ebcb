//! Decides which of two rows of one entity wins.

use std::cmp::Ordering;

use larder_model::{codec::RowRank, model::Micros};
use serde::{Deserialize, Serialize};

/// The rule for which of two rows of one entity wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The row with the newer event time wins. If the event times are equal, the row with the newer created time wins.
    /// If these are equal too, the row that arrives later wins.
    #[default]
    Newest,
    /// The row that arrives later wins, because in the source, the last write wins.
    Latest,
}

/// How the times of rows are interpreted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowTimes {
    /// How far in the future an event time may be, in microseconds. A stored row with a later event time loses against
    /// any arriving row.
    pub tolerance: Micros,
    /// Whether the source of the view truncates the times of its rows. If so, rows are compared at the precision that
    /// both have.
    pub coarse: bool,
    /// Whether the source has no event times. The event time of a row is then the time at which the row was read, so it
    /// cannot show that the row is newer than a deletion.
    pub is_static: bool,
}

/// Compares the rows of one transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowComparer {
    /// The latest event time that may be served now.
    pub(super) latest: Micros,
    coarse: bool,
}

// === impl RowTimes ===

impl Default for RowTimes {
    /// Accepts any event time, and compares exact times.
    fn default() -> Self {
        Self { tolerance: Micros::MAX, coarse: false, is_static: false }
    }
}

impl RowTimes {
    /// Returns the latest event time that may be served at the time `now`.
    #[must_use]
    pub fn latest(self, now: Micros) -> Micros {
        now.saturating_add(self.tolerance)
    }

    /// Returns the comparer for rows at the time `now`.
    pub(super) fn comparer(self, now: Micros) -> RowComparer {
        RowComparer { latest: self.latest(now), coarse: self.coarse }
    }

    pub(super) fn compare(self, one: &RowRank, other: &RowRank) -> Ordering {
        if self.coarse { one.compare_coarsely(other) } else { one.compare(other) }
    }
}

// === impl RowComparer ===

impl RowComparer {
    /// Returns whether a row must not be served yet.
    pub(super) fn is_future(self, rank: &RowRank) -> bool {
        rank.header.event_time > self.latest
    }

    /// Returns whether a stored row wins over an arriving row. On a tie, the arriving row wins. A stored row from the
    /// future never wins, because it would block all other rows until it is due.
    pub(super) fn wins_over(self, stored: &RowRank, arriving: &RowRank) -> bool {
        let order = if self.coarse { stored.compare_coarsely(arriving) } else { stored.compare(arriving) };
        order.is_gt() && !self.is_future(stored)
    }
}
