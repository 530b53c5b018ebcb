//! The limits of plugins, and the directory of their compiled code.

use std::{path::PathBuf, time::Duration};

use super::{CompileLimits, PluginClass};

/// The settings for running plugins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginSettings {
    /// The directory for compiled code. If `None`, every start compiles all plugins again.
    pub cache_dir: Option<PathBuf>,
    /// The program that is started to compile a plugin. The default is the program of the current process. A process
    /// that runs a program other than `larder` must set it to the path of `larder`.
    pub compiler: PathBuf,
    /// The arguments of `compiler` before those of the command. They are needed if `compiler` is an interpreter.
    pub compiler_args: Vec<String>,
    /// Limits of one compilation.
    pub compile: CompileLimits,
    /// Limits of plugins in compiled languages.
    pub compiled: PluginLimits,
    /// Limits of plugins that contain an interpreter.
    pub interpreted: PluginLimits,
    /// The number of threads that call plugins concurrently, in addition to the compute threads. The pool of idle
    /// instances has at least one shard for each thread of either kind.
    pub threads: usize,
    /// The number of compute threads, which run calls that are expected to take long.
    pub compute_threads: usize,
    /// The maximum number of queued jobs for the compute threads. Further jobs are rejected.
    pub compute_waiting_max: usize,
    /// The maximum expected duration of a call on a serving thread; longer calls run on a compute thread.
    pub inline_max: Duration,
}

/// The limits of one plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PluginLimits {
    /// The memory of an instance in bytes.
    pub memory_bytes: usize,
    /// The CPU time of a call. The limit is checked once a millisecond.
    pub time: Duration,
    /// The size of a call's result in bytes.
    pub output_bytes: usize,
    /// The size of the file in bytes.
    pub component_bytes: u64,
    /// The number of functions of all modules in the file.
    pub functions: usize,
    /// The number of rows of a call; larger batches are split.
    pub rows_per_call: usize,
    /// The length of a log line in bytes. Longer lines are truncated.
    pub log_line_bytes: usize,
    /// The number of log lines per second. A burst may have ten times as many lines. Further lines are dropped and
    /// counted.
    pub log_lines_per_second: usize,
    /// Whether a message in the log may have several lines. In the log of a server, line breaks are escaped, so that a
    /// plugin cannot forge a line of the server.
    pub multiline_logs: bool,
}

const MIB: usize = 1 << 20;

// === impl PluginSettings ===

impl PluginSettings {
    /// Returns the limits of a class of plugins.
    #[must_use]
    pub fn limits_of(&self, class: PluginClass) -> &PluginLimits {
        match class {
            PluginClass::Compiled => &self.compiled,
            PluginClass::Interpreted => &self.interpreted,
        }
    }

    /// Returns the maximum size of a plugin's file in bytes, of any class.
    #[must_use]
    pub fn component_bytes_max(&self) -> u64 {
        self.compiled.component_bytes.max(self.interpreted.component_bytes)
    }
}

impl Default for PluginSettings {
    fn default() -> Self {
        let compiled = PluginLimits {
            memory_bytes: 16 * MIB,
            time: Duration::from_millis(10),
            output_bytes: 4 * MIB,
            component_bytes: 4 * MIB as u64,
            functions: 20_000,
            rows_per_call: 4_096,
            log_line_bytes: 4_096,
            log_lines_per_second: 10,
            multiline_logs: false,
        };
        let interpreted = PluginLimits {
            memory_bytes: 128 * MIB,
            time: Duration::from_millis(50),
            component_bytes: 40 * MIB as u64,
            functions: 200_000,
            ..compiled
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            cache_dir: None,
            // This path works even if the program's file was replaced or deleted after this process started.
            compiler: "/proc/self/exe".into(),
            compiler_args: Vec::new(),
            compile: CompileLimits { time: Duration::from_secs(60), memory_bytes: 1_536 * MIB as u64 },
            compiled,
            interpreted,
            threads: cores + 2,
            compute_threads: cores.div_ceil(2),
            compute_waiting_max: 64,
            inline_max: Duration::from_micros(100),
        }
    }
}
