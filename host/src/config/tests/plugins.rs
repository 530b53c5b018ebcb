//! Tests of the settings of plugins.

use std::time::Duration;

use expect_test::expect;
use larder_plugin_host::{PluginClass, PluginSettings};

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
            "larder.yaml:2:3: error: plugins: unknown key 'python' (known keys: dir, limits, interpreted, compile_time_max, compile_memory_max, waiting_max)"
        ],
    );
}
