//! `larder plugin`: derived features, from a first draft to what is in service.

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

/// What to do with plugins.
#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// Write a project that builds as it stands
    New(new::NewArgs),
    /// Make a component of a project
    Build(build::BuildArgs),
    /// Find out whether a host would take a plugin, and whether it keeps its promises
    Check(check::CheckArgs),
    /// Send rows through a plugin and print what it computes
    Run(run::RunArgs),
    /// Measure how long calls of a plugin take
    Bench(bench::BenchArgs),
    /// Print what a plugin says of itself
    Inspect(inspect::InspectArgs),
    /// Put a plugin's file into service, on the running host or for the next start
    Deploy(deploy::DeployArgs),
    /// List the plugins in service, with the version that a rollback brings back
    List(deploy::ListArgs),
    /// Put the version before back into service
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

/// What a host would run a plugin with, if its configuration says nothing. What it compiles is kept for the next
/// command: Python's interpreter takes ten seconds.
fn local_runtime() -> Result<Arc<PluginRuntime>> {
    let cache_dir = Some(cache::dir()?.join("compiled"));
    Ok(PluginRuntime::new(PluginSettings { cache_dir, ..PluginSettings::default() })?)
}
