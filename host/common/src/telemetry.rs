//! Logs and metrics of the process. Install both once, before binding the handle of any metric.

mod histogram;
mod log_writer;

use std::{
    any::Any,
    fs,
    io::{self, IsTerminal},
    sync::{Arc, OnceLock},
    time::Duration,
};

use metrics::{describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use self::histogram::{Histograms, WithHistograms};
pub use self::log_writer::{flush_logs, write_line};

/// The metrics of the process. Renders them as text.
#[derive(Clone, Debug)]
pub struct Metrics {
    recorder: PrometheusHandle,
    histograms: Arc<Histograms>,
}

/// A metric of Larder that is also rendered under the name and label that Feast's dashboards use.
struct Alias {
    own: &'static str,
    feast: &'static str,
    /// The name of the label in Larder, and its name in Feast.
    label: Option<(&'static str, &'static str)>,
}

/// The metrics with aliases. Feast's names are from `metrics.py` of Feast 0.67 and from Feast's materialization guide.
/// Larder counts each request only once, in its own metric, and renders the alias from that metric.
const ALIASES: [Alias; 7] = [
    Alias { own: "larder_http_requests_total", feast: "feast_feature_server_request_total", label: None },
    Alias {
        own: "larder_http_request_duration_seconds",
        feast: "feast_feature_server_request_latency_seconds",
        label: None,
    },
    Alias {
        own: "larder_http_request_duration_seconds",
        feast: "feast_feature_retrieval_duration_seconds",
        label: None,
    },
    Alias { own: "larder_online_requests_total", feast: "feast_online_features_request_total", label: None },
    Alias { own: "larder_request_entities", feast: "feast_online_features_entity_count", label: None },
    Alias {
        own: "larder_rows_served_total",
        feast: "feast_online_features_status_total",
        label: Some(("view", "feature_view")),
    },
    Alias {
        own: "larder_view_last_materialization_timestamp_seconds",
        feast: "feast_materialization_last_success_timestamp",
        label: Some(("view", "feature_view")),
    },
];

/// The maximum time that a panic of the main thread waits for the log to be written.
const PANIC_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For terminals.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Bucket bounds for durations, in seconds: from 10 µs, which is about the time of a lookup in the hot cache, to 10 s.
const SECONDS: [f64; 19] =
    [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const SYNC_SECONDS: [f64; 10] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0];
const COUNTS: [f64; 11] = [1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 5_000.0, 10_000.0];

/// Installs the recorder of all metrics, unless it is already installed. A handle that was bound before the
/// installation records nothing.
///
/// # Errors
/// If another recorder is installed, which is a bug.
pub fn install_metrics() -> Result<Metrics, String> {
    static INSTALLED: OnceLock<Result<Metrics, String>> = OnceLock::new();
    INSTALLED.get_or_init(install).clone()
}

fn install() -> Result<Metrics, String> {
    let recorder = PrometheusBuilder::new().build_recorder();
    let histograms = Arc::new(Histograms::new(bounds));
    let metrics = Metrics { recorder: recorder.handle(), histograms: Arc::clone(&histograms) };
    metrics::set_global_recorder(WithHistograms { recorder, histograms }).map_err(|error| error.to_string())?;
    describe_gauge!("larder_process_resident_memory_bytes", "Resident memory of the process.");
    describe_gauge!("larder_process_open_fds", "Open files and sockets of the process.");
    describe_gauge!("larder_build_info", "Always 1; the label contains the version.");
    gauge!("larder_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(metrics)
}

/// Returns the bounds of a histogram's buckets, by its name.
fn bounds(name: &str) -> &'static [f64] {
    match name {
        "larder_sync_duration_seconds" => &SYNC_SECONDS,
        name if name.starts_with("larder_request_") => &COUNTS,
        _ => &SECONDS,
    }
}

// === impl Metrics ===

impl Metrics {
    /// Renders all metrics in Prometheus' text format, under Larder's names and, where there is an alias, also under
    /// Feast's names.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = self.recorder.render();
        self.histograms.render(&mut text);
        let aliases = ALIASES.iter().map(|alias| alias.of(&text)).collect::<Vec<_>>().join("\n");
        text.push_str(&aliases);
        text
    }

    /// Runs the exporter's periodic work. Call this every few seconds.
    pub fn run_upkeep(&self) {
        self.recorder.run_upkeep();
    }
}

// === impl Alias ===

impl Alias {
    /// Returns the lines of `text` that belong to Larder's metric, with Feast's names for the metric and its label.
    fn of(&self, text: &str) -> String {
        let mut lines = String::new();
        for line in text.lines() {
            let (comment, rest) = match line.strip_prefix("# HELP ").map(|rest| ("# HELP ", rest)) {
                Some(help) => help,
                None => line.strip_prefix("# TYPE ").map_or(("", line), |rest| ("# TYPE ", rest)),
            };
            let Some(after) = rest.strip_prefix(self.own) else { continue };
            // `_bucket`, `_sum` and `_count` are suffixes of series of this metric. A name with any other suffix is
            // another metric.
            let own = ["{", " ", "_bucket{", "_sum", "_count"].iter().any(|next| after.starts_with(next));
            if !own {
                continue;
            }
            let after = match self.label {
                Some((label, feast)) if comment.is_empty() => {
                    after.replacen(&format!("{label}=\""), &format!("{feast}=\""), 1)
                }
                _ => after.to_owned(),
            };
            lines.push_str(&format!("{comment}{}{after}\n", self.feast));
        }
        lines
    }
}

/// Updates the process gauges from the operating system.
///
/// # Errors
/// If `/proc` is not available.
#[expect(clippy::cast_precision_loss, reason = "bytes of memory are far below 2^53")]
pub fn note_process() -> io::Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = resident.and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    gauge!("larder_process_resident_memory_bytes").set((kilobytes.unwrap_or(0) * 1_024) as f64);
    gauge!("larder_process_open_fds").set(fs::read_dir("/proc/self/fd")?.count() as f64);
    Ok(())
}

/// Logs each panic as one line, because log collectors treat each line as an event. This replaces the multi-line
/// message that Rust writes to standard error.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic_message(panic.payload()).replace('\n', "\\n");
        let thread_name = thread.name().unwrap_or("unnamed");
        tracing::error!(thread = thread_name, location, panic = message, "thread panicked");
        if thread.name() == Some("main") {
            // The program may end with this panic.
            flush_logs(PANIC_FLUSH_TIMEOUT);
        }
    }));
}

/// The levels of crates whose warnings are not useful. A level does not apply if the filter is `off` or names the
/// crate. `h2` logs a warning for each misbehaving client, so clients could flood the log. `aws_config` logs the debug
/// text of errors that it also returns.
const CRATE_LEVELS: [(&str, &str); 2] = [("h2", "error"), ("aws_config", "error")];

/// Adds [`CRATE_LEVELS`] to a filter.
fn with_limits(filter: &str) -> String {
    let mut limited = filter.to_owned();
    for (name, level) in CRATE_LEVELS {
        if filter != "off" && !filter.contains(name) {
            limited.push_str(&format!(",{name}={level}"));
        }
    }
    limited
}

/// Starts logging to standard error, including panics. A second call has no effect. Logging never blocks and never
/// fails, because lines are only queued. [`flush_logs`] waits until they are written.
pub fn install_logs(filter: &str, format: LogFormat) {
    let filter = EnvFilter::try_new(with_limits(filter)).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(log_writer::writer);
    // Otherwise, `tracing_subscriber` would print its internal errors to standard error, which panics if the reader is
    // gone.
    let builder = builder.log_internal_errors(false);
    // Terminals get colors; other readers do not.
    let builder = builder.with_ansi(io::stderr().is_terminal());
    log_panics();
    // Only the first subscriber can be installed. A test or tool that already installed one keeps it.
    let _installed = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Records in a metric whether the last reload of the definitions succeeded.
pub fn note_reload(succeeded: bool) {
    describe_gauge!(
        "larder_config_last_reload_success",
        "1 if the last reload of the configuration and definitions succeeded, 0 if it failed."
    );
    gauge!("larder_config_last_reload_success").set(if succeeded { 1.0 } else { 0.0 });
}

/// Returns the message of a panic from its payload.
#[must_use]
pub fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noisy_crates_are_limited_by_default() {
        assert_eq!(with_limits("info"), "info,h2=error,aws_config=error");
        assert_eq!(with_limits("info,h2=debug"), "info,h2=debug,aws_config=error");
        assert_eq!(with_limits("off"), "off");
    }

    #[test]
    fn panic_is_one_log_line() {
        #[derive(Clone, Default)]
        struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);
        impl io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber =
            tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone()).finish();
        log_panics();
        let panicked = tracing::subscriber::with_default(subscriber, || {
            std::panic::catch_unwind(|| panic!("first line\nsecond line"))
        });
        assert!(panicked.is_err());
        let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(logged.lines().count(), 1, "{logged}");
        assert!(logged.contains("first line") && logged.contains("telemetry.rs:"), "{logged}");
    }

    #[test]
    fn alias_renames_series_and_label() {
        let alias = Alias { own: "larder_rows", feast: "feast_rows", label: Some(("view", "feature_view")) };
        let text = "# HELP larder_rows Rows.\n# TYPE larder_rows counter\nlarder_rows{view=\"a\",status=\"x\"} 3\n\
                    larder_rows_other{view=\"a\"} 4\nlarder_rows_sum 5\n";
        let expected = "# HELP feast_rows Rows.\n# TYPE feast_rows counter\n\
                        feast_rows{feature_view=\"a\",status=\"x\"} 3\nfeast_rows_sum 5\n";
        assert_eq!(alias.of(text), expected);
    }
}
