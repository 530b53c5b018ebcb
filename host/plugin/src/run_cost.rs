//! The cost of running a plugin for some rows.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The cost of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunCost {
    /// The number of rows.
    pub rows: u64,
    /// The CPU time of all calls in nanoseconds.
    pub cpu_nanos: u64,
    /// The highest memory use of an instance in bytes.
    pub memory: u64,
}

// === impl RunCost ===

impl RunCost {
    /// Adds the cost of a call. `memory` is the highest memory use of the instance in bytes.
    pub(super) fn add(&mut self, cpu: Duration, memory: usize) {
        self.cpu_nanos = self.cpu_nanos.saturating_add(u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX));
        self.memory = self.memory.max(memory as u64);
    }

    /// Returns the cost of both.
    #[must_use]
    pub(super) fn plus(mut self, other: Self) -> Self {
        self.rows += other.rows;
        self.cpu_nanos = self.cpu_nanos.saturating_add(other.cpu_nanos);
        self.memory = self.memory.max(other.memory);
        self
    }

    /// Returns the CPU time of a row in nanoseconds; 0 if there are no rows.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a mean of durations")]
    pub fn nanos_per_row(&self) -> f64 {
        if self.rows == 0 { 0.0 } else { self.cpu_nanos as f64 / self.rows as f64 }
    }
}
