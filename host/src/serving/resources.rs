//! Resources that all listeners share.

use std::sync::Arc;

use super::Room;
use crate::{memory::MemoryBudget, plugin::Compute};

/// The budget of memory for requests, and threads for requests that take long.
#[derive(Clone, Debug)]
pub struct Resources {
    /// The memory budget of request and response bodies in flight, over all listeners.
    pub memory: Arc<MemoryBudget>,
    /// Threads of lower priority that build large responses.
    pub compute: Arc<Compute>,
    /// The size limit of one response in bytes.
    pub answer_bytes_max: usize,
}

// === impl Resources ===

impl Resources {
    /// For a response that is built on a serving thread.
    #[must_use]
    pub fn thread_room(&self) -> Room {
        Room::of_thread(self.answer_bytes_max)
    }

    /// For a response that is built on a compute thread.
    #[must_use]
    pub fn leased_room(&self) -> Room {
        Room::leased(self.memory.lease(), self.answer_bytes_max)
    }
}
