//! `larder plugin diff`: prints the differences between two versions of a plugin, of a rollout or of two files.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use hyper::Method;
use larder_http::{RolledBackVersion, RolloutEnd, RolloutReport};

#[cfg(feature = "tools")]
use super::tools::diff::{self, FileDiffArgs};
use super::{admin::path_of, diff_text, rollout::print_status};
use crate::cli::{
    CliError, ConfigArg, output,
    target::{Target, send_command},
};

#[derive(Debug, Args)]
pub(in crate::cli) struct DiffArgs {
    /// The name of a plugin, to compare the versions of its rollout; or the file of the old version
    #[arg(value_name = "NAME|OLD")]
    first: PathBuf,
    /// The file of the new version
    #[arg(value_name = "NEW")]
    new: Option<PathBuf>,
    #[cfg(feature = "tools")]
    #[command(flatten)]
    files: FileDiffArgs,
    /// Print the differences as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

pub(super) fn run(args: &DiffArgs) -> Result<()> {
    match &args.new {
        None => of_rollout(&args.first.to_string_lossy(), &args.config, args.json),
        #[cfg(feature = "tools")]
        Some(new) => diff::run((&args.first, new), &args.files, &args.config, args.json),
        #[cfg(not(feature = "tools"))]
        Some(_) => bail!(CliError::Usage(
            "this build cannot compare files. hint: use a build with the Cargo feature 'tools'".to_owned()
        )),
    }
}

/// Prints the differences between the versions of the running rollout of a plugin, or of the last one.
fn of_rollout(plugin: &str, config: &ConfigArg, is_json: bool) -> Result<()> {
    if plugin.ends_with(".wasm") {
        bail!(CliError::Usage(format!(
            "'{plugin}' is a file, but there is no second file. hint: pass two files, or the name of a plugin"
        )));
    }
    let Target::Running(client) = Target::find(config)? else {
        bail!(CliError::Failed(
            "no server is running, so no rollout is running. hint: start `larder serve`, or compare two files"
                .to_owned()
        ));
    };
    let report: RolloutReport = send_command(&client, Method::GET, &path_of(plugin, "diff"), Vec::new())?;
    if is_json {
        output::line(&serde_json::to_string(&report)?);
        return Ok(());
    }
    report.rollout.iter().for_each(print_status);
    let Some((old, new)) = &report.versions else {
        output::line(&format!("plugin '{plugin}' had no rollout since the server was started"));
        if let Some(RolledBackVersion { version, at, why, .. }) = &report.rolled_back {
            output::line(&format!("version {version} was rolled back at {at}: {why}"));
        }
        return Ok(());
    };
    if let Some(RolloutEnd { at, why }) = &report.ended {
        output::line(&format!("last rollout of {plugin}: {new}, replacing {old}; ended {at}: {why}"));
    }
    for (view, comparison) in &report.views {
        output::line("");
        diff_text::print_comparison(view, (old, new), comparison);
    }
    for breach in &report.breaches {
        output::note(&format!("gate not met: {breach}"));
    }
    Ok(())
}
