//! The limits of plugins, and the directory of their compiled code.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{CompileLimits, PluginClass};

/// The settings for running plugins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginSettings {
    /// The directory for compiled code. If `None`, every start compiles all plugins again.
    pub cache_dir: Option<PathBuf>,
    /// The maximum size of the files with compiled code, in bytes. Files of plugins that a process uses are kept beyond it.
    pub cache_bytes_max: u64,
    /// The program that is started to compile a plugin. The default is the program of the current process. A process
    /// that runs a program other than `larder` must set it to the path of `larder`.
    pub compiler: PathBuf,
    /// The arguments of `compiler` before those of the command. They are needed if `compiler` is an interpreter.
    pub compiler_args: Vec<String>,
    /// Limits of one compilation.
    pub compile: CompileLimits,
    /// The number of threads of one compilation. The default is half of the cores, so that requests have the other half.
    pub compile_threads: usize,
    /// Limits of plugins in compiled languages.
    pub compiled: PluginLimits,
    /// Limits of plugins that contain an interpreter.
    pub interpreted: PluginLimits,
    /// Limits of single plugins, by the name of the plugin.
    pub overrides: BTreeMap<String, LimitOverrides>,
    /// The number of threads that call plugins concurrently, in addition to the compute threads. The pool of idle
    /// instances has at least one shard for each thread of either kind.
    pub threads: usize,
    /// The number of compute threads, which run calls that are expected to take long.
    pub compute_threads: usize,
    /// The maximum number of queued jobs for the compute threads. Further jobs are rejected.
    pub compute_waiting_max: usize,
    /// The maximum expected duration of a call on a serving thread; longer calls run on a compute thread.
    pub inline_max: Duration,
    /// The percentage of the CPU time of one core that comparisons of two versions may use, from 1 to 100.
    pub shadow_cpu_percent: u32,
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

/// Limits of one plugin that replace the limits of its class. The fields are those of [`PluginLimits`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of PluginLimits")]
pub struct LimitOverrides {
    pub memory_bytes: Option<usize>,
    pub time: Option<Duration>,
    pub output_bytes: Option<usize>,
    pub component_bytes: Option<u64>,
    pub functions: Option<usize>,
    pub rows_per_call: Option<usize>,
    pub log_line_bytes: Option<usize>,
    pub log_lines_per_second: Option<usize>,
}

const MIB: usize = 1 << 20;

// === impl PluginLimits ===

impl PluginLimits {
    /// Returns the higher one of each limit.
    fn max(&self, other: &Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
            time: self.time.max(other.time),
            output_bytes: self.output_bytes.max(other.output_bytes),
            component_bytes: self.component_bytes.max(other.component_bytes),
            functions: self.functions.max(other.functions),
            rows_per_call: self.rows_per_call.max(other.rows_per_call),
            log_line_bytes: self.log_line_bytes.max(other.log_line_bytes),
            log_lines_per_second: self.log_lines_per_second.max(other.log_lines_per_second),
            multiline_logs: self.multiline_logs,
        }
    }
}

// === impl LimitOverrides ===

impl LimitOverrides {
    /// Returns these limits, and those of `limits` where there is none.
    #[must_use]
    pub fn over(&self, limits: PluginLimits) -> PluginLimits {
        PluginLimits {
            memory_bytes: self.memory_bytes.unwrap_or(limits.memory_bytes),
            time: self.time.unwrap_or(limits.time),
            output_bytes: self.output_bytes.unwrap_or(limits.output_bytes),
            component_bytes: self.component_bytes.unwrap_or(limits.component_bytes),
            functions: self.functions.unwrap_or(limits.functions),
            rows_per_call: self.rows_per_call.unwrap_or(limits.rows_per_call),
            log_line_bytes: self.log_line_bytes.unwrap_or(limits.log_line_bytes),
            log_lines_per_second: self.log_lines_per_second.unwrap_or(limits.log_lines_per_second),
            multiline_logs: limits.multiline_logs,
        }
    }
}

// === impl PluginSettings ===

impl PluginSettings {
    /// Returns the same settings for a process that serves no requests: it compiles with all cores.
    #[must_use]
    pub fn without_requests(self) -> Self {
        Self { compile_threads: cores(), ..self }
    }

    /// Returns the limits of a class of plugins.
    #[must_use]
    pub fn limits_of(&self, class: PluginClass) -> &PluginLimits {
        match class {
            PluginClass::Compiled => &self.compiled,
            PluginClass::Interpreted => &self.interpreted,
        }
    }

    /// Returns the limits of the plugin with this name.
    #[must_use]
    pub fn limits_for(&self, class: PluginClass, plugin: &str) -> PluginLimits {
        let limits = *self.limits_of(class);
        self.overrides.get(plugin).map_or(limits, |overrides| overrides.over(limits))
    }

    /// Returns the highest limits that a plugin of a class can have. They apply until the plugin's name is known.
    #[must_use]
    pub fn highest_limits(&self, class: PluginClass) -> PluginLimits {
        let limits = *self.limits_of(class);
        self.overrides.values().fold(limits, |highest, overrides| highest.max(&overrides.over(limits)))
    }

    /// Returns the maximum size of a plugin's file in bytes, of any class.
    #[must_use]
    pub fn component_bytes_max(&self) -> u64 {
        let sizes = PluginClass::ALL.map(|class| self.highest_limits(class).component_bytes);
        sizes.into_iter().max().unwrap_or_default()
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
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
        let cores = cores();
        Self {
            cache_dir: None,
            cache_bytes_max: 1 << 30,
            // This path works even if the program's file was replaced or deleted after this process started.
            compiler: "/proc/self/exe".into(),
            compiler_args: Vec::new(),
            compile: CompileLimits { time: Duration::from_secs(60), memory_bytes: 1_536 * MIB as u64 },
            compile_threads: (cores / 2).max(1),
            compiled,
            interpreted,
            overrides: BTreeMap::new(),
            threads: cores + 2,
            compute_threads: cores.div_ceil(2),
            compute_waiting_max: 64,
            inline_max: Duration::from_micros(100),
            shadow_cpu_percent: 25,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> PluginSettings {
        let raised =
            LimitOverrides { time: Some(Duration::from_secs(1)), functions: Some(300_000), ..Default::default() };
        let lowered = LimitOverrides { time: Some(Duration::from_millis(1)), ..Default::default() };
        let overrides = [("raised", raised), ("lowered", lowered)].map(|(name, limits)| (name.to_owned(), limits));
        PluginSettings { overrides: overrides.into(), ..PluginSettings::default() }
    }

    #[test]
    fn overrides_replace_limits_of_class() {
        let settings = settings();
        for class in PluginClass::ALL {
            let limits = *settings.limits_of(class);
            assert_eq!(settings.limits_for(class, "other"), limits);
            let raised = PluginLimits { time: Duration::from_secs(1), functions: 300_000, ..limits };
            assert_eq!(settings.limits_for(class, "raised"), raised);
            let lowered = PluginLimits { time: Duration::from_millis(1), ..limits };
            assert_eq!(settings.limits_for(class, "lowered"), lowered);
            assert_eq!(settings.highest_limits(class), raised);
        }
    }

    #[test]
    fn commands_compile_with_all_cores() {
        let settings = PluginSettings::default();
        assert!(settings.compile_threads <= cores().div_ceil(2));
        assert_eq!(settings.without_requests().compile_threads, cores());
    }

    #[test]
    fn largest_file_is_that_of_any_plugin() {
        let mut settings = settings();
        assert_eq!(settings.component_bytes_max(), settings.interpreted.component_bytes);
        let component_bytes = Some(64 << 20);
        settings.overrides.insert("large".to_owned(), LimitOverrides { component_bytes, ..Default::default() });
        assert_eq!(settings.component_bytes_max(), 64 << 20);
    }
}
