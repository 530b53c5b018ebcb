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
            "larder.yaml:2:3: error: plugins: unknown key 'python' (known keys: dir, rollout, overrides, limits, interpreted, compiled_max, compile_time_max, compile_memory_max, waiting_max, shadow_cpu_percent, captures)"
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
            larder.yaml:1:40: error: plugins.overrides: unknown key 'speed' (known keys: rollout, memory, time, output, component, functions, rows, log_line, log_lines)
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

#[test]
fn rollout_of_plugin_replaces_common_keys() {
    let text = "plugins:\n  rollout: {samples_min: 5, steps: [2.5, 50], bake: 0s}\n  overrides: {churn: {rollout: {errors_max: \
                0.5}}}\n";
    let rollouts = parse(text).plugins.rollouts;
    let (common, own) = (rollouts.of("fraud"), rollouts.of("churn"));
    assert_eq!((common.samples_min, &*common.steps, common.bake), (5, &[2.5, 50.0][..], Duration::ZERO));
    assert_eq!((own.samples_min, common.errors_max, own.errors_max), (5, 0.001, 0.5));
}

#[test]
fn invalid_gates_of_rollouts_are_reported() {
    check(
        "plugins: {rollout: {errors_max: 2, max_changed: {ratio: x}, steps: [50, 10], tolerance: -1, window: 1ms}}\n",
        expect![[r#"
            larder.yaml:1:33: error: plugins.rollout: 'errors_max' must be a number from 0 to 1
            larder.yaml:1:57: error: plugins.rollout.max_changed: 'ratio' must be a number from 0 to 1
            larder.yaml:1:68: error: plugins.rollout: 'steps' must be a list of ascending percentages above 0 and below 100 (for example [1, 10, 50]; the step to 100 is implied)
            larder.yaml:1:89: error: plugins.rollout: 'tolerance' must be a number from 0 to 1
            larder.yaml:1:101: error: plugins.rollout: 'window' is 1ms, but must be between 1s and 1h"#]],
    );
    check(
        "plugins: {rollout: {steps: [0]}}\n",
        expect![
            "larder.yaml:1:28: error: plugins.rollout: 'steps' must be a list of ascending percentages above 0 and below 100 (for example [1, 10, 50]; the step to 100 is implied)"
        ],
    );
    check(
        "plugins: {rollout: {steps: [10, 100], gate: 1}}\n",
        expect![[r#"
        larder.yaml:1:28: error: plugins.rollout: 'steps' must be a list of ascending percentages above 0 and below 100 (for example [1, 10, 50]; the step to 100 is implied)
        larder.yaml:1:39: error: plugins.rollout: unknown key 'gate' (known keys: max_changed, samples_min, tolerance, null_rate_increase_max, errors_max, p99_ratio_max, steps, step_for, bake, window)"#]],
    );
}
