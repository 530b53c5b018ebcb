//! Reads `plugins:`, the settings of plugins.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    path::Path,
    time::Duration,
};

use larder_captures::CaptureSettings;
use larder_http::HttpConfig;
use larder_model::{
    registry::Catalog,
    yaml::{Problems, nearest},
};
use larder_plugin_host::{CompileLimits, LimitOverrides, PluginSettings};
use larder_store::StoreConfig;

use super::{
    PluginConfig, RolloutConfig,
    rollout::{self, Rollouts},
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
    let (mut overrides, mut override_names) = (BTreeMap::new(), Vec::new());
    let rollout = rollout::rollout(section.section("plugins.rollout"), &RolloutConfig::default());
    let mut of_plugins = BTreeMap::new();
    for (name, mut section) in section.entries("overrides", "plugins.overrides") {
        if section.has("rollout") {
            let own = rollout::rollout(section.section("plugins.overrides.rollout"), &rollout);
            of_plugins.insert(name.value.clone(), own);
        }
        overrides.insert(name.value.clone(), limits(section));
        override_names.push(name.clone());
    }
    let settings = PluginSettings {
        cache_dir: Some(own_dir.join("compiled")),
        compiled: limits(section.section("plugins.limits")).over(default.compiled),
        interpreted: limits(section.section("plugins.interpreted")).over(default.interpreted),
        overrides,
        cache_bytes_max: section.bytes("compiled_max", MIB..=1_024 * 1_024 * MIB, default.cache_bytes_max),
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
        shadow_cpu_percent: percent(section.count("shadow_cpu_percent", 1..=100, default.shadow_cpu_percent as usize)),
        ..default
    };
    let captures = captures(section.section("plugins.captures"));
    section.finish();
    PluginConfig {
        dir,
        own_dir,
        rollouts: Rollouts { common: rollout, of_plugins },
        captures,
        captures_dir: store.data_dir.join(CAPTURES_DIR),
        settings,
        override_names,
    }
}

fn captures(mut section: Section<'_>) -> CaptureSettings {
    let default = CaptureSettings::default();
    let settings = CaptureSettings {
        failed_per_minute: section.count("failed_per_minute", 0..=10_000, default.failed_per_minute),
        sample: section.number("sample", 0.0..=1.0, default.sample),
        rows_max: section.count("rows", 1..=1_000, default.rows_max),
        bytes_max: section.bytes("max_bytes", MIB..=1_024 * 1_024 * MIB, default.bytes_max),
    };
    section.finish();
    settings
}

/// Converts a checked percentage.
fn percent(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(100)
}

/// Adds a warning for each plugin with limits of its own that no derived view names.
pub(super) fn check_overrides(config: &PluginConfig, catalog: &Catalog, problems: &Problems) {
    let plugins: BTreeSet<&str> = catalog.derived_views().iter().map(|view| &*view.plugin).collect();
    for name in config.override_names.iter().filter(|name| !plugins.contains(name.value.as_str())) {
        let message =
            format!("plugins: 'overrides' has limits for plugin '{}', which no derived view uses", name.value);
        problems.warning(&name.at, message, nearest(&name.value, plugins.iter().copied()));
    }
}

/// Reads the limits of a class or of one plugin.
fn limits(mut section: Section<'_>) -> LimitOverrides {
    let limits = LimitOverrides {
        memory_bytes: bytes(&mut section, "memory", MIB..=1_024 * MIB).map(memory),
        // The timer that interrupts calls has a resolution of a millisecond.
        time: section
            .get("time")
            .is_some()
            .then(|| section.duration("time", Duration::from_millis(1)..=Duration::from_secs(60), Duration::default())),
        output_bytes: bytes(&mut section, "output", KIB..=1_024 * MIB).map(memory),
        component_bytes: bytes(&mut section, "component", KIB..=256 * MIB),
        functions: count(&mut section, "functions", 1..=10_000_000),
        rows_per_call: count(&mut section, "rows", 1..=1_000_000),
        log_line_bytes: bytes(&mut section, "log_line", 64..=MIB).map(memory),
        log_lines_per_second: count(&mut section, "log_lines", 1..=100_000),
    };
    section.finish();
    limits
}

/// Returns a size, or `None` if the key is absent.
fn bytes(section: &mut Section<'_>, key: &'static str, within: RangeInclusive<u64>) -> Option<u64> {
    section.get(key).is_some().then(|| section.bytes(key, within, 0))
}

/// Returns a count, or `None` if the key is absent.
fn count(section: &mut Section<'_>, key: &'static str, within: RangeInclusive<i64>) -> Option<usize> {
    section.get(key).is_some().then(|| section.count(key, within, 0))
}
