//! Tests of the limits of single plugins, which replace the limits of their class.

use std::{fs, sync::Arc, time::Duration};

use larder_plugin_host::{
    CallError, Interrupt, LimitOverrides, LoadError, PluginLimits, PluginRuntime, PluginSettings, Transform,
};

use crate::{
    guests::{compiler, guest, guest_with},
    plugin_limits::{call, view},
};

const MIB: usize = 1 << 20;

/// Returns a runtime with limits for one plugin.
fn runtime(plugin: &str, overrides: LimitOverrides, compiled: PluginLimits) -> Arc<PluginRuntime> {
    let overrides = [(plugin.to_owned(), overrides)].into();
    PluginRuntime::new(PluginSettings { overrides, compiled, compiler: compiler(), ..PluginSettings::default() })
        .unwrap()
}

/// Returns limits with enough time for a debug build on a busy machine.
fn ample() -> PluginLimits {
    PluginLimits { time: Duration::from_secs(2), ..PluginSettings::default().compiled }
}

fn hostile() -> Vec<u8> {
    fs::read(guest("hostile")).unwrap()
}

/// Loads the guest. It enters the mode for rows from 1 on.
fn in_mode(runtime: &Arc<PluginRuntime>, mode: &str, amount: u64) -> Arc<Transform> {
    let config = format!(r#"{{"mode": "{mode}", "bad": 1, "amount": {amount}}}"#);
    Transform::bind(runtime, &runtime.load(&hostile()).unwrap(), &view(&config)).unwrap()
}

#[test]
fn own_limit_on_size_decides() {
    let bytes = hostile();
    let size = bytes.len() as u64;
    let load = |plugin: &str, own: u64, class: u64| {
        let overrides = LimitOverrides { component_bytes: Some(own), ..LimitOverrides::default() };
        runtime(plugin, overrides, PluginLimits { component_bytes: class, ..ample() }).load(&bytes)
    };
    load("hostile", size, size - 1).unwrap();
    assert_eq!(
        load("hostile", size - 1, size).unwrap_err().to_string(),
        format!(
            "the file has more than {} bytes, which is the limit for plugin 'hostile'. hint: leave out dependencies, or raise \
             'plugins: overrides: hostile: component'",
            size - 1
        )
    );
    // The limit of another plugin applies only until the name is known.
    let error = load("other", size, size - 1).unwrap_err();
    assert!(matches!(error, LoadError::TooLarge { limit, .. } if limit == size - 1), "{error}");
}

#[test]
fn own_limit_on_functions_decides() {
    let bytes = hostile();
    let load = |plugin: &str, own: usize, class: usize| {
        let overrides = LimitOverrides { functions: Some(own), ..LimitOverrides::default() };
        runtime(plugin, overrides, PluginLimits { functions: class, ..ample() }).load(&bytes)
    };
    load("hostile", 20_000, 1).unwrap();
    let error = load("hostile", 1, 20_000).unwrap_err().to_string();
    assert!(error.contains("more than 1 functions, which is the limit for plugin 'hostile'"), "{error}");
    assert!(error.ends_with("hint: raise 'plugins: overrides: hostile: functions'"), "{error}");
    assert!(matches!(load("other", 20_000, 1).unwrap_err(), LoadError::Functions { limit: 1, .. }));
}

#[test]
fn limits_apply_to_cached_code() {
    let (bytes, dir) = (hostile(), tempfile::tempdir().unwrap());
    let load = |functions: usize| {
        let compiled = PluginLimits { functions, ..ample() };
        let cache_dir = Some(dir.path().join("compiled"));
        let settings = PluginSettings { cache_dir, compiled, compiler: compiler(), ..PluginSettings::default() };
        PluginRuntime::new(settings).unwrap().load(&bytes)
    };
    assert!(load(20_000).unwrap().was_compiled());
    assert!(!load(20_000).unwrap().was_compiled());
    assert!(matches!(load(1).unwrap_err(), LoadError::Functions { limit: 1, .. }));
}

#[test]
fn own_memory_may_exceed_that_of_class() {
    let memory = |plugin: &str, limit: usize, allocated: u64| {
        let overrides = LimitOverrides { memory_bytes: Some(limit), ..LimitOverrides::default() };
        call(&in_mode(&runtime(plugin, overrides, ample()), "memory", allocated), 3).map(|_| ())
    };
    let exceeded = |limit| Err(CallError::Interrupt(Interrupt::Memory { limit }));
    assert_eq!(memory("hostile", 64 * MIB, 32), Ok(()));
    assert_eq!(memory("hostile", 64 * MIB, 80), exceeded(64 * MIB));
    assert_eq!(memory("hostile", 4 * MIB, 8), exceeded(4 * MIB));
    // The slots of the pool suffice, but the limits of another plugin do not apply.
    assert_eq!(memory("other", 64 * MIB, 32), exceeded(16 * MIB));
}

#[test]
fn own_time_decides() {
    let time = Duration::from_millis(300);
    let own = LimitOverrides { time: Some(time), ..LimitOverrides::default() };
    let spinning = in_mode(&runtime("hostile", own, ample()), "spin", 0);
    assert_eq!(call(&spinning, 3).unwrap_err(), CallError::Interrupt(Interrupt::Timeout(time)));
    let other = runtime("other", own, ample()).load(&hostile()).unwrap();
    assert_eq!(other.limits(), &ample());
}

#[test]
fn highest_time_applies_before_name_is_known() {
    let time = Duration::from_millis(500);
    let longer = LimitOverrides { time: Some(time), ..LimitOverrides::default() };
    let class = PluginLimits { time: Duration::from_millis(100), ..ample() };
    let spinning = fs::read(guest_with("hostile", "spin-describe")).unwrap();
    let error = runtime("other", longer, class).load(&spinning).unwrap_err();
    assert!(matches!(error, LoadError::Describe(Interrupt::Timeout(limit)) if limit == time), "{error}");
}
