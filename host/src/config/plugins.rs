//! Reads `plugins:`, the settings of plugins.

use std::{path::Path, time::Duration};

use larder_captures::CaptureSettings;
use larder_http::HttpConfig;
use larder_model::yaml::Tree;
use larder_plugin_host::{CompileLimits, PluginLimits, PluginSettings};
use larder_store::StoreConfig;

use super::{
    PluginConfig,
    section::Section,
    units::{KIB, MIB, memory},
};

/// The default plugin directory, relative to the configuration's directory.
const DIR: &str = "plugins";
const SECOND: Duration = Duration::from_secs(1);
/// The directory of the stored copies of plugins and of compiled code, relative to the store's directory.
const OWN_DIR: &str = "plugins";
/// The directory of captures, relative to the store's directory.
const CAPTURES_DIR: &str = "captures";

pub(super) fn plugins(
    mut section: Section<'_>,
    base_dir: &Path,
    store: &StoreConfig,
    http: &HttpConfig,
) -> PluginConfig {
    let off = section.is_off("dir");
    let dir = if off { None } else { section.path("dir", base_dir).map(|path| path.value) };
    let dir = if off { None } else { dir.or_else(|| Some(base_dir.join(DIR))) };
    let own_dir = store.data_dir.join(OWN_DIR);
    let default = PluginSettings::default();
    let settings = PluginSettings {
        cache_dir: Some(own_dir.join("compiled")),
        native: limits(section.section("plugins.limits"), default.native),
        python: limits(section.section("plugins.python"), default.python),
        compile: CompileLimits {
            time: section.duration("compile_time_max", SECOND..=Duration::from_secs(3_600), default.compile.time),
            memory_bytes: section.bytes(
                "compile_memory_max",
                128 * MIB..=64 * 1_024 * MIB,
                default.compile.memory_bytes,
            ),
        },
        compute_waiting_max: section.count("waiting_max", 1..=100_000, default.compute_waiting_max),
        // The TCP listener and the Unix socket listener have `workers` threads each. The admin socket has one thread.
        // Commands call plugins from one additional thread. The threads of the gRPC listener are not counted, so
        // they may share shards of the pool with other threads.
        threads: 2 * http.workers + 2,
        ..default
    };
    let captures = captures(section.section("plugins.captures"));
    section.finish();
    PluginConfig { dir, own_dir, settings, captures, captures_dir: store.data_dir.join(CAPTURES_DIR) }
}

fn captures(mut section: Section<'_>) -> CaptureSettings {
    let default = CaptureSettings::default();
    let settings = CaptureSettings {
        failed_per_minute: section.count("failed_per_minute", 0..=10_000, default.failed_per_minute),
        sample: ratio(&mut section, "sample", default.sample),
        rows_max: section.count("rows", 1..=1_000, default.rows_max),
        bytes_max: section.bytes("max_bytes", MIB..=1_024 * 1_024 * MIB, default.bytes_max),
    };
    section.finish();
    settings
}

/// Reads a number from 0 to 1.
fn ratio(section: &mut Section<'_>, key: &'static str, default: f64) -> f64 {
    let Some(node) = section.get(key) else { return default };
    match node.tree {
        Tree::Int(0) => 0.0,
        Tree::Int(1) => 1.0,
        Tree::Float(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
        _ => {
            let help = "0.01 is a hundredth of the calls, 1 is all of them".to_owned();
            section.error(&node.at, format!("'{key}' must be a number from 0 to 1"), help);
            default
        }
    }
}

fn limits(mut section: Section<'_>, default: PluginLimits) -> PluginLimits {
    let limits = PluginLimits {
        memory_bytes: memory(section.bytes("memory", MIB..=1_024 * MIB, default.memory_bytes as u64)),
        // The timer that interrupts calls has a resolution of a millisecond.
        time: section.duration("time", Duration::from_millis(1)..=Duration::from_secs(60), default.time),
        output_bytes: memory(section.bytes("output", KIB..=1_024 * MIB, default.output_bytes as u64)),
        functions: section.count("functions", 1..=10_000_000, default.functions),
        component_bytes: section.bytes("component", KIB..=256 * MIB, default.component_bytes),
        rows_per_call: section.count("rows", 1..=1_000_000, default.rows_per_call),
        log_line_bytes: memory(section.bytes("log_line", 64..=MIB, default.log_line_bytes as u64)),
        log_lines_per_second: section.count("log_lines", 1..=100_000, default.log_lines_per_second),
        multiline_logs: default.multiline_logs,
    };
    section.finish();
    limits
}
