//! The limits of a compilation, and the reasons why one is killed.

use std::time::Duration;

/// The limits of one compilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// The maximum CPU time, rounded up to whole seconds.
    pub time: Duration,
    /// The maximum writable memory of the compiler's process in bytes, as the kernel counts it for `RLIMIT_DATA`.
    pub memory_bytes: u64,
}

/// Why a compilation was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileKill {
    /// It used up its CPU time.
    #[error("took more than {} s of CPU time", .0.as_secs())]
    Time(Duration),
    /// It exceeded its wall-clock time before it used up its CPU time.
    #[error("did not end within {} s, because it did not get enough CPU time", .0.as_secs())]
    Wall(Duration),
    /// It needed more memory than its limit.
    #[error("needed more than {} MiB of memory", .0 >> 20)]
    Memory(u64),
    /// It wrote more code than its memory limit.
    #[error("produced more than {} MiB of code", .0 >> 20)]
    Output(u64),
    /// The compiler's process crashed, or the kernel killed it because memory was short.
    #[error("was killed by signal {0}")]
    Signal(i32),
}
