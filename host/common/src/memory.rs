//! Memory: how much this process may use, and one budget for all requests.
//!
//! Each body that is read and each response that waits to be sent holds a [`Lease`] of the [`MemoryBudget`], across all
//! listeners and protocols. [`memory_limit`] finds the limit from which the budget is derived, and [`resident_bytes`]
//! returns the current use of the process.

mod budget;
mod leased;
mod limit;

pub use self::{
    budget::{Lease, MemoryBudget, OverBudget, SMALL_BYTES},
    leased::leased_bytes,
    limit::{default_budget, memory_limit, resident_bytes},
};
