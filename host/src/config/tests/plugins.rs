//! Tests of the settings of plugins.

use std::time::Duration;

use expect_test::expect;
use larder_plugin_host::{LimitOverrides, PluginClass, PluginSettings};

use super::{check, parse};

fn settings(text: &str) -> PluginSettings {
    parse(text).plugins.settings
}

#[test]
fn each_class_has_own_limits() {
    let settings = settings("plugins:\n  limits: {time: 1ms}\n  interpreted: {time: 2ms}\n");
    let time = |class| settings.limits_of(class).time;
    assert_eq!(PluginClass::ALL.map(time), [1, 2].map(Duration::from_millis));
}

#[test]
fn former_key_of_python_is_unknown() {
    check(
        "plugins:\n  python: {time: 2ms}\n",
        expect![
            "larder.yaml:2:3: error: plugins: unknown key 'python' (known keys: dir, overrides, limits, interpreted, compiled_max, compile_time_max, compile_memory_max, waiting_max)"
        ],
    );
}

#[test]
fn overrides_have_every_limit() {
    let text =
        "{memory: 2MiB, time: 3ms, output: 4KiB, component: 5KiB, functions: 6, rows: 7, log_line: 80, log_lines: 9}";
    let settings = settings(&format!("plugins: {{overrides: {{churn: {text}, fraud: {{time: 1s}}}}}}\n"));
    let all = LimitOverrides {
        memory_bytes: Some(2 << 20),
        time: Some(Duration::from_millis(3)),
        output_bytes: Some(4 << 10),
        component_bytes: Some(5 << 10),
        functions: Some(6),
        rows_per_call: Some(7),
        log_line_bytes: Some(80),
        log_lines_per_second: Some(9),
    };
    let time = LimitOverrides { time: Some(Duration::from_secs(1)), ..LimitOverrides::default() };
    assert_eq!(settings.overrides, [("churn".to_owned(), all), ("fraud".to_owned(), time)].into());
}

#[test]
fn overrides_are_checked_like_limits() {
    check(
        "plugins: {overrides: {churn: {time: 0, speed: 1}, fraud: 1}}\n",
        expect![[r#"
        larder.yaml:1:37: error: plugins.overrides: 'time' is 0, but must be between 1ms and 1m
        larder.yaml:1:40: error: plugins.overrides: unknown key 'speed' (known keys: memory, time, output, component, functions, rows, log_line, log_lines)
        larder.yaml:1:58: error: plugins.overrides: expected a mapping, got a whole number"#]],
    );
    check(
        "plugins: {overrides: [churn]}\n",
        expect!["larder.yaml:1:22: error: plugins: 'overrides' must be a mapping, got a list"],
    );
}

#[test]
fn compiled_max_has_range() {
    assert_eq!(settings("").cache_bytes_max, 1 << 30);
    assert_eq!(settings("plugins: {compiled_max: 1MiB}\n").cache_bytes_max, 1 << 20);
    check(
        "plugins: {compiled_max: 1023KiB}\n",
        expect!["larder.yaml:1:25: error: plugins: 'compiled_max' is 1023KiB, but must be between 1MiB and 1TiB"],
    );
}
