//! `larder plugin deploy`, `list`, `history` and `rollback`: manage the deployed versions.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use hyper::Method;
use larder_http::{Control, DeployReport, PastVersion, PluginStatus, RollbackCommand};
use larder_plugin_host::is_lower_version;
use serde_json::Value;

use super::{
    admin::{find, path_of, percent},
    rollout,
};
use crate::cli::{
    ConfigArg, output,
    target::{Target, send_command},
};

#[derive(Debug, Args)]
pub(in crate::cli) struct DeployArgs {
    /// The plugin's file: a component from `larder plugin build`
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Deploy the plugin even if its acceptance checks fail, or if a different file of the same version is live
    #[arg(long)]
    force: bool,
    /// Compute copies of a share of the requests with the new version, and compare the outputs. Requests get the outputs of
    /// the live version. `larder plugin diff NAME` prints the differences
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, default_missing_value = "1%", value_parser = percent)]
    shadow: Option<f64>,
    #[command(flatten)]
    config: ConfigArg,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct HistoryArgs {
    /// The plugin's name
    #[arg(value_name = "NAME")]
    plugin: String,
    #[command(flatten)]
    config: ConfigArg,
    /// Print the versions as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RollbackArgs {
    /// The plugin's name
    #[arg(value_name = "NAME")]
    plugin: String,
    /// A version of the plugin's history: its number, or at least 8 digits of its digest [default: the previous version]
    #[arg(value_name = "VERSION")]
    version: Option<String>,
    #[command(flatten)]
    config: ConfigArg,
}

pub(super) fn deploy(args: &DeployArgs) -> Result<()> {
    let file = super::read_plugin(&args.file)?;
    // An error in the file may be found before the plugin's name is known.
    let of_file = || format!("{} is not deployed", args.file.display());
    if let Some(percent) = args.shadow {
        return rollout::deploy_shadow(&args.config, file, percent, args.force).with_context(of_file);
    }
    let report: DeployReport = match find(&args.config)? {
        Target::Running(client) => {
            let path = if args.force { "/v1/plugins?force=true" } else { "/v1/plugins" };
            send_command(&client, Method::POST, path, file).with_context(of_file)?
        }
        Target::Local(app) => {
            let deployed = app.deploy(&file, args.force).map_err(crate::cli::CliError::Failed);
            let report = deployed.with_context(of_file)?;
            output::note("no server is running; the plugin will be loaded at the next start");
            report
        }
    };
    print_report(&report);
    note_override(&report);
    if let Some(dropped) = &report.dropped {
        output::note(&format!("the rollout of {} {dropped} ended", report.plugin));
    }
    note_lower_version(&report);
    Ok(())
}

pub(super) fn roll_back(args: &RollbackArgs) -> Result<()> {
    let report: DeployReport = match find(&args.config)? {
        Target::Running(client) => {
            let command = RollbackCommand { version: args.version.clone() };
            let body = serde_json::to_vec(&command)?;
            send_command(&client, Method::POST, &path_of(&args.plugin, "rollback"), body)?
        }
        Target::Local(app) => {
            app.roll_back(&args.plugin, args.version.as_deref()).map_err(crate::cli::CliError::Failed)?
        }
    };
    print_rollback(&report);
    Ok(())
}

pub(super) fn history(args: &HistoryArgs) -> Result<()> {
    let versions: Vec<PastVersion> = match Target::find_with_plugins(&args.config)? {
        Target::Running(client) => {
            let path = path_of(&args.plugin, "history");
            let mut answer: Value = send_command(&client, Method::GET, &path, Vec::new())?;
            serde_json::from_value(answer["versions"].take()).context("cannot parse the server's response")?
        }
        Target::Local(app) => app.plugin_history(&args.plugin).map_err(crate::cli::CliError::Failed)?,
    };
    if args.json {
        output::line(&serde_json::to_string(&versions)?);
        return Ok(());
    }
    let row = |version: &PastVersion| {
        vec![
            version.version.clone().unwrap_or_else(|| "unknown".to_owned()),
            short(&version.digest),
            version.language.clone(),
            output::bytes(version.bytes),
            version.went_live.clone(),
            (if version.live { "live" } else { "-" }).to_owned(),
        ]
    };
    let rows: Vec<_> = versions.iter().map(row).collect();
    output::table(&["VERSION", "DIGEST", "LANGUAGE", "SIZE", "WENT LIVE", "STATUS"], &rows);
    Ok(())
}

/// Returns the first digits of a digest.
fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}

pub(super) fn list(args: &ListArgs) -> Result<()> {
    let plugins: Vec<PluginStatus> = match Target::find_with_plugins(&args.config)? {
        Target::Running(client) => {
            let mut answer: Value = send_command(&client, Method::GET, "/v1/plugins", Vec::new())?;
            serde_json::from_value(answer["plugins"].take()).context("cannot parse the server's response")?
        }
        Target::Local(app) => app.plugins(),
    };
    if args.json {
        output::line(&serde_json::to_string(&plugins)?);
        return Ok(());
    }
    if plugins.is_empty() {
        let hint = if cfg!(feature = "tools") { ". hint: `larder plugin new` creates one" } else { "" };
        output::line(&format!("no plugins{hint}"));
        return Ok(());
    }
    let rows: Vec<_> = plugins.iter().map(row).collect();
    output::table(&["PLUGIN", "VERSION", "DIGEST", "LANGUAGE", "SIZE", "PREVIOUS", "DERIVED VIEWS"], &rows);
    for plugin in &plugins {
        plugin.rollout.iter().for_each(rollout::print_status);
        if let Some(why) = &plugin.rejected {
            output::note(&format!("{}.wasm is not deployed: {why}", plugin.plugin));
        }
    }
    Ok(())
}

fn note_override(report: &DeployReport) {
    if let Some(why) = &report.overridden {
        output::note(&format!("deployed by force, although it was rejected: {why}"));
    }
}

fn note_lower_version(report: &DeployReport) {
    let (plugin, version) = (&report.plugin, &report.version);
    if let Some(before) = report.replaced.as_ref().filter(|before| is_lower_version(&report.version, before)) {
        output::note(&format!(
            "version {version} of plugin '{plugin}' is lower than {before}, which it replaced. hint: to restore {before}, run \
             `larder plugin rollback {plugin}`"
        ));
    }
}

fn print_rollback(report: &DeployReport) {
    let DeployReport { plugin, version, .. } = report;
    match (&report.dropped, &report.replaced) {
        (Some(dropped), None) => {
            output::line(&format!("candidate {plugin} {dropped} is dropped; {version} stays live"));
        }
        (_, Some(replaced)) if *replaced != *version => {
            output::line(&format!("{plugin} is rolled back to {version}, replacing {replaced}"));
        }
        _ => output::line(&format!("{plugin} {version} is live")),
    }
    if let (Some(dropped), Some(replaced)) = (&report.dropped, &report.replaced)
        && dropped != replaced
    {
        output::note(&format!("the rollout of {plugin} {dropped} ended"));
    }
}

fn print_report(report: &DeployReport) {
    let instead = match &report.replaced {
        Some(before) if *before == report.version => " again".to_owned(),
        Some(before) => format!(", replacing {before}"),
        None => String::new(),
    };
    let how = if report.compiled { "compiled" } else { "compiled code was cached" };
    let (plugin, version, seconds) = (&report.plugin, &report.version, report.seconds);
    output::line(&format!("{plugin} {version} is deployed{instead} ({how}, {seconds:.3} s)"));
    if report.views.is_empty() {
        output::note(&format!(
            "no derived view uses plugin '{plugin}' yet. hint: set 'plugin: {plugin}' in a derived view"
        ));
    } else {
        output::line(&format!("{plugin} computes {}", report.views.join(", ")));
    }
}

fn row(plugin: &PluginStatus) -> Vec<String> {
    let live = plugin.live.as_ref();
    let of = |part: fn(&larder_http::PluginVersion) -> String| live.map_or_else(|| "-".to_owned(), part);
    vec![
        plugin.plugin.clone(),
        of(|version| version.version.clone()),
        of(|version| short(&version.digest)),
        of(|version| version.language.clone()),
        of(|version| output::bytes(version.bytes)),
        plugin.previous.as_ref().map_or_else(|| "-".to_owned(), |version| version.version.clone()),
        plugin.views.join(", "),
    ]
}
