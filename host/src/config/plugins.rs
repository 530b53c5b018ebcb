//! Reads `plugins:`, the settings of plugins.

use std::{path::Path, time::Duration};

use larder_http::HttpConfig;
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
        compiled: limits(section.section("plugins.limits"), default.compiled),
        interpreted: limits(section.section("plugins.interpreted"), default.interpreted),
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
    section.finish();
    PluginConfig { dir, own_dir, settings }
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
