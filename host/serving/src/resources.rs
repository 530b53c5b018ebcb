//! Resources that all listeners share.

use std::sync::Arc;

use larder_common::{compute::Compute, memory::MemoryBudget};
use tokio::sync::Semaphore;

use super::ResponseBudget;

/// The budget of memory for requests, threads for requests that take long, and the limit of concurrent writes.
#[derive(Clone, Debug)]
pub struct Resources {
    /// The memory budget of request and response bodies in flight, over all listeners.
    pub memory: Arc<MemoryBudget>,
    /// Threads of lower priority that build large responses.
    pub compute: Arc<Compute>,
    /// The size limit of one response in bytes.
    pub answer_bytes_max: usize,
    /// Permits for writes. Each holds its table in memory, and waits for the one writer of the store.
    pub writes: Arc<Semaphore>,
}

/// The maximum number of concurrent writes, over all listeners.
const WRITES_AT_ONCE_MAX: usize = 32;

// === impl Resources ===

impl Resources {
    /// Resources with these limits.
    #[must_use]
    pub fn new(memory: Arc<MemoryBudget>, compute: Arc<Compute>, answer_bytes_max: usize) -> Self {
        Self { memory, compute, answer_bytes_max, writes: Arc::new(Semaphore::new(WRITES_AT_ONCE_MAX)) }
    }

    /// For a response that is built on a serving thread.
    #[must_use]
    pub fn thread_budget(&self) -> ResponseBudget {
        ResponseBudget::of_thread(self.answer_bytes_max)
    }

    /// For a response that is built on a compute thread.
    #[must_use]
    pub fn leased_budget(&self) -> ResponseBudget {
        ResponseBudget::leased(self.memory.lease(), self.answer_bytes_max)
    }
}
