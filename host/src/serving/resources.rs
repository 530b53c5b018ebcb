//! What all listeners share.

use std::sync::Arc;

use super::Room;
use crate::{memory::MemoryBudget, plugin::Compute};

/// The budget of memory for requests, and threads for requests that take long.
#[derive(Clone, Debug)]
pub struct Resources {
    /// What bodies and answers in flight may hold, over all listeners.
    pub memory: Arc<MemoryBudget>,
    /// Threads of lower priority, where large answers are made.
    pub compute: Arc<Compute>,
    /// Bytes of one answer.
    pub answer_bytes_max: usize,
}

// === impl Resources ===

impl Resources {
    /// For an answer that is made on a serving thread.
    #[must_use]
    pub fn thread_room(&self) -> Room {
        Room::of_thread(self.answer_bytes_max)
    }

    /// For an answer that is made on a compute thread.
    #[must_use]
    pub fn leased_room(&self) -> Room {
        Room::leased(self.memory.lease(), self.answer_bytes_max)
    }
}
