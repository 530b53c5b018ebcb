//! Resources that all listeners share.

use std::sync::Arc;

use larder_common::{
    compute::{Compute, Full, Owner},
    memory::MemoryBudget,
};

use super::ResponseBudget;

/// The memory budget of requests, and the threads for requests that take long.
#[derive(Clone, Debug)]
pub struct Resources {
    /// The memory budget of request and response bodies in flight, across all listeners.
    pub memory: Arc<MemoryBudget>,
    /// Threads of lower priority for large requests.
    pub compute: Arc<Compute>,
    /// The size limit of one response in bytes.
    pub answer_bytes_max: usize,
}

/// Why work on a compute thread returned no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OffloadError {
    /// The queue is full.
    #[error("too many requests are queued. hint: retry later")]
    Full,
    /// The work panicked. The panic is in the log.
    #[error("request processing failed because of a bug in Larder; see the server's log")]
    Panicked,
}

// === impl Resources ===

impl Resources {
    /// Creates the resources of a server. `answer_bytes_max` is the size limit of one response in bytes.
    #[must_use]
    pub fn new(memory: Arc<MemoryBudget>, compute: Arc<Compute>, answer_bytes_max: usize) -> Self {
        Self { memory, compute, answer_bytes_max }
    }

    /// Returns a budget for a response that is built on a serving thread.
    #[must_use]
    pub fn thread_budget(&self) -> ResponseBudget {
        ResponseBudget::of_thread(self.answer_bytes_max)
    }

    /// Returns a budget for a response that is built on a compute thread.
    #[must_use]
    pub fn leased_budget(&self) -> ResponseBudget {
        ResponseBudget::leased(self.memory.lease(), self.answer_bytes_max)
    }
}

/// Runs work on a compute thread, and returns its result. If the future is dropped, work that still waits for a thread
/// is dropped too.
///
/// # Errors
/// Errors of the work; [`OffloadError`].
pub async fn offload<T, E>(
    compute: &Compute,
    owner: Owner,
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<OffloadError> + Send + 'static,
{
    let full = |_: Full| OffloadError::Full;
    let pending = compute.try_run(owner, work).map_err(full)?;
    pending.await.map_err(|_dropped| OffloadError::Panicked)?.map_err(full)?
}
