//! Logs and metrics of the process: installed once, before any room touches a handle.

use std::{fs, io};

use metrics::{describe_gauge, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// From 10 µs, where a hot lookup lies, to 10 s.
const SECONDS: [f64; 19] =
    [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const SYNC_SECONDS: [f64; 10] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0];
const COUNTS: [f64; 11] = [1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 5_000.0, 10_000.0];

/// Installs the recorder of all metrics, or finds that it is installed. Handles that were bound before count nothing.
///
/// # Errors
/// When another recorder is installed, or the buckets are refused: a bug.
pub fn install_metrics() -> Result<PrometheusHandle, String> {
    use std::sync::OnceLock;
    static HANDLE: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    HANDLE.get_or_init(install).clone()
}

fn install() -> Result<PrometheusHandle, String> {
    let set = |builder: PrometheusBuilder, matcher, buckets: &[f64]| {
        builder.set_buckets_for_metric(matcher, buckets).map_err(|error| error.to_string())
    };
    let builder = PrometheusBuilder::new();
    let builder = set(builder, Matcher::Suffix("_seconds".to_owned()), &SECONDS)?;
    let builder = set(builder, Matcher::Full("larder_sync_duration_seconds".to_owned()), &SYNC_SECONDS)?;
    let builder = set(builder, Matcher::Prefix("larder_request_".to_owned()), &COUNTS)?;
    let builder = set(builder, Matcher::Full("feast_online_features_entity_count".to_owned()), &COUNTS)?;
    let handle = builder.install_recorder().map_err(|error| error.to_string())?;
    describe_gauge!("larder_process_resident_memory_bytes", "Resident memory of the process.");
    describe_gauge!("larder_process_open_fds", "Open files and sockets of the process.");
    describe_gauge!("larder_build_info", "Always 1; the labels tell the version.");
    gauge!("larder_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}

/// Reads what the operating system knows of the process into its gauges.
///
/// # Errors
/// When `/proc` is not there.
#[expect(clippy::cast_precision_loss, reason = "bytes of memory are far below 2^53")]
pub fn note_process() -> io::Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = resident.and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    gauge!("larder_process_resident_memory_bytes").set((kilobytes.unwrap_or(0) * 1_024) as f64);
    gauge!("larder_process_open_fds").set(fs::read_dir("/proc/self/fd")?.count() as f64);
    Ok(())
}

/// Starts to log to standard error. A second call changes nothing.
pub fn install_logs(filter: &str, format: LogFormat) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // Only the first subscriber can be installed; tests and tools that have one keep theirs.
    let _installed = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
