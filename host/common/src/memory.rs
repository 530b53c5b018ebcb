//! Memory: the limit of this process, and one budget for all requests.
//!
//! Each request body that is read, and each response that waits to be sent, holds a [`Lease`] of the [`MemoryBudget`].
//! Over HTTP, small bodies ([`SMALL_BYTES`]) need no lease. All listeners and protocols share the budget.
//! [`memory_limit`] finds the limit from which the default budget is derived, and [`resident_bytes`] returns the memory
//! that the process uses.

mod budget;
mod leased;
mod limit;

pub use self::{
    budget::{Lease, MemoryBudget, OverBudget, SMALL_BYTES},
    leased::leased_bytes,
    limit::{default_budget, memory_limit, resident_bytes},
};
