//! `larder plugin deploy --shadow` and `promote`: roll out a new version in stages.

use anyhow::{Result, bail};
use clap::Args;
use hyper::Method;
use larder_http::{PromoteCommand, RolloutStage, RolloutStatus};

use super::admin::{find, path_of, percent};
use crate::cli::{
    CliError, ConfigArg, output,
    target::{Target, send_command},
};

#[derive(Debug, Args)]
pub(in crate::cli) struct PromoteArgs {
    /// The plugin's name
    #[arg(value_name = "NAME")]
    plugin: String,
    /// The share of the requests that the candidate computes, until the next promotion. 100% makes it the live version
    /// [default: the steps in `plugins: rollout: steps`]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    percent: Option<f64>,
    /// Accept the differences of a feature, because they are intended. Can be repeated
    #[arg(long, value_name = "FEATURE")]
    accept_diff: Vec<String>,
    #[command(flatten)]
    config: ConfigArg,
}

/// Deploys a file with a shadow run. `percent` is the share of the requests.
pub(super) fn deploy_shadow(config: &ConfigArg, file: Vec<u8>, percent: f64, force: bool) -> Result<()> {
    let path = format!("/v1/plugins?shadow={}&force={force}", percent / 100.0);
    let status: RolloutStatus = match find(config)? {
        Target::Running(client) => send_command(&client, Method::POST, &path, file)?,
        Target::Local(_) => return no_server(),
    };
    print_status(&status);
    let name = &status.plugin;
    output::note(&format!("next: `larder plugin diff {name}`, then `larder plugin promote {name}`"));
    Ok(())
}

pub(super) fn promote(args: &PromoteArgs) -> Result<()> {
    let command = PromoteCommand { percent: args.percent, accept_diff: args.accept_diff.clone() };
    let status: RolloutStatus = match find(&args.config)? {
        Target::Running(client) => {
            let body = serde_json::to_vec(&command)?;
            send_command(&client, Method::POST, &path_of(&args.plugin, "promote"), body)?
        }
        Target::Local(_) => return no_server(),
    };
    print_status(&status);
    Ok(())
}

/// Prints the state of a rollout.
pub(super) fn print_status(status: &RolloutStatus) {
    let RolloutStatus { plugin, candidate, base, since, compared_rows, .. } = status;
    let (new, old) = (&candidate.version, &base.version);
    let stage = match status.stage {
        RolloutStage::Shadow => format!("computes copies of {} of the requests", percent_text(status.sampled_percent)),
        RolloutStage::Canary if status.held => format!("computes {} of the requests", percent_text(status.percent)),
        RolloutStage::Canary => {
            format!("computes {} of the requests, and is promoted further automatically", percent_text(status.percent))
        }
        RolloutStage::Bake => "is live, and is rolled back automatically if a gate is not met".to_owned(),
    };
    let rows = output::thousands(*compared_rows);
    output::line(&format!("{plugin} {new}, replacing {old}: {stage}; since {since}; {rows} rows compared"));
    if let Some(waiting) = &status.waiting {
        output::note(&format!("the rollout of {plugin} waits: {waiting}"));
    }
    if !status.accepted.is_empty() {
        output::line(&format!("{plugin} {new}: accepted differences: {}", status.accepted.join(", ")));
    }
}

fn percent_text(percent: f64) -> String {
    format!("{percent}%")
}

fn no_server() -> Result<()> {
    bail!(CliError::Failed("no server is running, and a rollout needs requests. hint: start `larder serve`".to_owned()))
}
