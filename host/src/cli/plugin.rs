//! `larder plugin`: creates, builds, checks and deploys plugins.

mod admin;
mod cache;
mod captures;
mod compat;
mod deploy;
mod diff;
mod diff_text;
#[cfg_attr(not(feature = "tools"), expect(dead_code, reason = "only the Python kit is used, by `larder import`"))]
mod embedded;
mod rollout;
#[cfg(feature = "tools")]
mod tools;

use std::{io::ErrorKind, path::Path};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use larder_common::files::{FILE_BYTES_MAX, read_regular};

pub(super) use self::{compat::compat_problems, embedded::python_project};
use super::CliError;

/// The subcommands of `larder plugin`.
#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    #[cfg(feature = "tools")]
    #[command(flatten)]
    Tool(tools::ToolCommand),
    /// Deploy a plugin to the running server, or install it for the next start
    Deploy(deploy::DeployArgs),
    /// List the deployed plugins, with their previous versions
    List(deploy::ListArgs),
    /// List the last ten versions of a plugin that were live
    History(deploy::HistoryArgs),
    /// Print the differences between the outputs of two versions: of a rollout, or of two files
    Diff(diff::DiffArgs),
    /// Promote a candidate to a larger share of the requests, and finally to the live version
    Promote(rollout::PromoteArgs),
    /// Roll a plugin back to its previous version, or to another version of its history; during a rollout, drop the candidate
    Rollback(deploy::RollbackArgs),
    /// Capture a sample of the calls of a live plugin, with their inputs and outputs
    Capture(captures::CaptureArgs),
    /// List the captured calls of a plugin: those that failed, and samples
    Captures(captures::CapturesArgs),
}

pub(super) fn run(command: &PluginCommand) -> Result<()> {
    match command {
        #[cfg(feature = "tools")]
        PluginCommand::Tool(command) => tools::run(command),
        PluginCommand::Deploy(args) => deploy::deploy(args),
        PluginCommand::List(args) => deploy::list(args),
        PluginCommand::History(args) => deploy::history(args),
        PluginCommand::Diff(args) => diff::run(args),
        PluginCommand::Promote(args) => rollout::promote(args),
        PluginCommand::Rollback(args) => deploy::roll_back(args),
        PluginCommand::Capture(args) => captures::capture(args),
        PluginCommand::Captures(args) => captures::list(args),
    }
}

/// Reads the file of a plugin.
fn read_plugin(file: &Path) -> Result<Vec<u8>> {
    match read_regular(file, FILE_BYTES_MAX) {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(CliError::Failed(format!(
            "the plugin {} does not exist. hint: `larder plugin build` writes it",
            file.display()
        ))),
        read => read.with_context(|| format!("{} cannot be read", file.display())),
    }
}
