//! The limits of a compilation, and what happens at them.

use std::time::Duration;

/// The limits of one compilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// CPU time, rounded up to whole seconds.
    pub time: Duration,
    /// Bytes of the compiler's memory, counted as the kernel counts writable memory (`RLIMIT_DATA`).
    pub memory_bytes: u64,
}

/// Why a compilation was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileKill {
    /// It used up its CPU time, or did not get CPU time for too long.
    #[error("took more than {} s of CPU time", .0.as_secs())]
    Time(Duration),
    /// It needed more memory than its limit.
    #[error("needed more than {} MiB of memory", .0 >> 20)]
    Memory(u64),
    /// It wrote more code than its memory limit.
    #[error("produced more than {} MiB of code", .0 >> 20)]
    Output(u64),
    /// It ended otherwise: by a crash, or killed by the kernel when memory was short.
    #[error("was killed by signal {0}")]
    Signal(i32),
}
