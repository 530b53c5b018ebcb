//! The commands of `larder plugin` for developers, in builds with the feature `tools`.

mod bench;
mod build;
mod check;
pub(super) mod diff;
mod inspect;
mod name;
mod new;
mod out_file;
mod project;
mod replay;
mod rows;
mod run;

use std::sync::Arc;

use anyhow::Result;
use clap::Subcommand;
use larder_plugin_host::{PluginRuntime, PluginSettings};

use super::{cache, embedded, read_plugin};

/// Subcommands of `larder plugin`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ToolCommand {
    /// Create a plugin project that builds without changes
    New(new::NewArgs),
    /// Build a plugin project into a WebAssembly component
    Build(build::BuildArgs),
    /// Check whether a server would accept a plugin, and whether the plugin is deterministic
    Check(check::CheckArgs),
    /// Run rows through a plugin and print the results
    Run(run::RunArgs),
    /// Measure how long calls to a plugin take
    Bench(bench::BenchArgs),
    /// Print a plugin's signature and build information
    Inspect(inspect::InspectArgs),
}

pub(super) fn run(command: &ToolCommand) -> Result<()> {
    match command {
        ToolCommand::New(args) => new::run(args),
        ToolCommand::Build(args) => build::run(args),
        ToolCommand::Check(args) => check::run(args),
        ToolCommand::Run(args) => run::run(args),
        ToolCommand::Bench(args) => bench::run(args),
        ToolCommand::Inspect(args) => inspect::run(args),
    }
}

/// Creates a runtime with a server's default settings. It caches compiled code for later commands, because compiling
/// Python's interpreter takes ten seconds.
fn local_runtime() -> Result<Arc<PluginRuntime>> {
    runtime_with(PluginSettings::default())
}

/// Creates a runtime for a component that was just built. Its time limits are 20 times as long as a server's, because
/// they limit elapsed time, and a machine that builds components is often busy. The server applies its own limits at
/// deployment.
fn build_runtime() -> Result<Arc<PluginRuntime>> {
    let mut settings = PluginSettings::default();
    for limits in [&mut settings.compiled, &mut settings.interpreted] {
        limits.time *= 20;
    }
    runtime_with(settings)
}

fn runtime_with(mut settings: PluginSettings) -> Result<Arc<PluginRuntime>> {
    for limits in [&mut settings.compiled, &mut settings.interpreted] {
        limits.multiline_logs = true;
    }
    let cache_dir = Some(cache::dir()?.join("compiled"));
    Ok(PluginRuntime::new(PluginSettings { cache_dir, ..settings }.without_requests())?)
}
