//! Memory: how much this process may use, and one budget for what requests hold.
//!
//! Each body that is read and each answer that waits to be sent holds a [`Lease`] of the [`MemoryBudget`], over all
//! listeners and protocols. [`memory_limit`] finds the limit that the budget follows from, and [`resident_bytes`] what the
//! process uses now.

mod budget;
mod leased;
mod limit;

pub use self::{
    budget::{Lease, MemoryBudget, OverBudget, SMALL_BYTES},
    leased::leased_bytes,
    limit::{default_budget, memory_limit, resident_bytes},
};
