//! What plugins may take, and where their compiled code is kept.

use std::{path::PathBuf, time::Duration};

use super::CompileLimits;

/// How plugins are run.
#[derive(Clone, Debug)]
pub struct PluginSettings {
    /// The directory for compiled code; without it, every start compiles again.
    pub cache_dir: Option<PathBuf>,
    /// The program that compiles, in a separate process. By default the current one; a process other than `larder` has
    /// to set it.
    pub compiler: PathBuf,
    /// Limits of one compilation.
    pub compile: CompileLimits,
    /// Bounds on plugins in languages that are compiled.
    pub native: PluginLimits,
    /// Bounds on plugins that bring a Python interpreter along.
    pub python: PluginLimits,
    /// Threads that call plugins at the same time, beside the compute threads: each keeps instances of its own.
    pub threads: usize,
    /// Threads for work that is expected to be long.
    pub compute_threads: usize,
    /// Pieces of such work that wait; beyond, they are refused.
    pub compute_waiting_max: usize,
    /// What a call may be expected to take on a serving thread; beyond, it is long.
    pub inline_max: Duration,
}

/// Bounds on one plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PluginLimits {
    /// Bytes of an instance's memory.
    pub memory_bytes: usize,
    /// How long a call may take, on the wall's clock. It is looked at once a millisecond.
    pub time: Duration,
    /// Bytes of what a call returns.
    pub output_bytes: usize,
    /// Bytes of the file.
    pub component_bytes: u64,
    /// Functions of all modules in the file.
    pub functions: usize,
    /// Rows of a call; more are split.
    pub rows_per_call: usize,
    /// Bytes of a line in the log; the rest is cut off.
    pub log_line_bytes: usize,
    /// Lines in the log per second, after a burst of ten times as many; more are dropped and counted.
    pub log_lines_per_second: usize,
}

const MIB: usize = 1 << 20;

// === impl PluginSettings ===

impl PluginSettings {
    /// The most bytes that a plugin's file can have, whatever it was written in.
    #[must_use]
    pub fn component_bytes_max(&self) -> u64 {
        self.native.component_bytes.max(self.python.component_bytes)
    }
}

impl Default for PluginSettings {
    fn default() -> Self {
        let native = PluginLimits {
            memory_bytes: 16 * MIB,
            time: Duration::from_millis(10),
            output_bytes: 4 * MIB,
            component_bytes: 4 * MIB as u64,
            functions: 20_000,
            rows_per_call: 4_096,
            log_line_bytes: 4_096,
            log_lines_per_second: 10,
        };
        let python = PluginLimits {
            memory_bytes: 128 * MIB,
            time: Duration::from_millis(50),
            component_bytes: 40 * MIB as u64,
            functions: 200_000,
            ..native
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            cache_dir: None,
            // Also if the file was replaced or deleted since this process started.
            compiler: "/proc/self/exe".into(),
            compile: CompileLimits { time: Duration::from_secs(60), memory_bytes: 1_536 * MIB as u64 },
            native,
            python,
            threads: cores + 2,
            compute_threads: cores.div_ceil(2),
            compute_waiting_max: 64,
            inline_max: Duration::from_micros(100),
        }
    }
}
