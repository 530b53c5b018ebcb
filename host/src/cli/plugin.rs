//! `larder plugin`: creates, builds, checks and deploys plugins.

mod bench;
mod build;
mod cache;
mod check;
mod compat;
mod deploy;
mod embedded;
mod inspect;
mod name;
mod new;
mod project;
mod run;

use std::sync::Arc;

use anyhow::Result;
use clap::Subcommand;
use larder_plugin_host::{PluginRuntime, PluginSettings};

pub(super) use self::{compat::fit, new::python_project};

/// The subcommands of `larder plugin`.
#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// Create a plugin project that builds without changes
    New(new::NewArgs),
    /// Build a project into a component
    Build(build::BuildArgs),
    /// Check whether a server would accept a plugin, and whether the plugin is deterministic
    Check(check::CheckArgs),
    /// Run rows through a plugin and print the results
    Run(run::RunArgs),
    /// Measure how long calls of a plugin take
    Bench(bench::BenchArgs),
    /// Print a plugin's signature and build information
    Inspect(inspect::InspectArgs),
    /// Deploy a plugin's file to the running server, or for the next start
    Deploy(deploy::DeployArgs),
    /// List the deployed plugins, with the version that a rollback restores
    List(deploy::ListArgs),
    /// Roll back to the previous version
    Rollback(deploy::RollbackArgs),
}

pub(super) fn run(command: &PluginCommand) -> Result<()> {
    match command {
        PluginCommand::New(args) => new::run(args),
        PluginCommand::Build(args) => build::run(args),
        PluginCommand::Check(args) => check::run(args),
        PluginCommand::Run(args) => run::run(args),
        PluginCommand::Bench(args) => bench::run(args),
        PluginCommand::Inspect(args) => inspect::run(args),
        PluginCommand::Deploy(args) => deploy::deploy(args),
        PluginCommand::List(args) => deploy::list(args),
        PluginCommand::Rollback(args) => deploy::roll_back(args),
    }
}

/// Creates a runtime with a server's default settings. Compiled code is cached for the next command: compiling Python's
/// interpreter takes ten seconds.
fn local_runtime() -> Result<Arc<PluginRuntime>> {
    let cache_dir = Some(cache::dir()?.join("compiled"));
    Ok(PluginRuntime::new(PluginSettings { cache_dir, ..PluginSettings::default() })?)
}
