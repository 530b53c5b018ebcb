//! Commands to a server about plugins: finding the server, paths and arguments.

use anyhow::Result;
use larder_common::telemetry::{self, LogFormat};

use crate::cli::{ConfigArg, target::Target};

/// Finds the target of a command whose result is printed, so that the log lines about it would be duplicates.
pub(super) fn find(config: &ConfigArg) -> Result<Target> {
    telemetry::install_logs("warn,larder_sync::engine=off,larder::app::plugins=off", LogFormat::Text);
    Target::find_with_plugins(config)
}

/// Returns the path of a route of a plugin. Names of plugins contain only letters, digits and underscores. Other text
/// cannot name a plugin, but it must not change the structure of the path.
pub(super) fn path_of(plugin: &str, route: &str) -> String {
    format!("/v1/plugins/{}/{route}", plugin.replace(['/', '?', '#', ' '], "_"))
}

/// Parses a percentage above 0 and up to 100, with or without a percent sign.
pub(super) fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim_end();
    match number.parse() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        _ => Err("must be a percentage above 0% and up to 100%. hint: write, for example, 1%".to_owned()),
    }
}
