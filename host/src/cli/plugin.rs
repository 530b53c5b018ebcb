//! `larder plugin`: derived features, from a first draft to what is in service.

mod build;
mod deploy;
mod embedded;
mod new;

use std::sync::Arc;

use anyhow::Result;
use clap::Subcommand;

use crate::plugin::{PluginRuntime, PluginSettings};

/// What to do with plugins.
#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// Write a project that builds as it stands
    New(new::NewArgs),
    /// Make a component of a project
    Build(build::BuildArgs),
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
        PluginCommand::Deploy(args) => deploy::deploy(args),
        PluginCommand::List(args) => deploy::list(args),
        PluginCommand::Rollback(args) => deploy::roll_back(args),
    }
}

/// What a host would run a plugin with, if its configuration says nothing.
fn local_runtime() -> Result<Arc<PluginRuntime>> {
    Ok(PluginRuntime::new(PluginSettings::default())?)
}
