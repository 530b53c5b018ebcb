//! `larder delete` and `larder reset`: remove rows on request.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::Args;
use larder_http::{DeleteCommand, ResetCommand, SyncCommand};

use super::{
    CliError, ConfigArg, arguments, output,
    selection::{Input, all_inputs, not_key_value},
    sync,
    target::Target,
};

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// The feature view
    #[arg(value_name = "VIEW")]
    view: String,
    /// The entity: join_key=value for each join key of the view. Values of type UnixTimestamp are seconds since 1970 or
    /// times, such as 2026-01-31T12:00:00Z
    #[arg(value_name = "KEY=VALUE")]
    key: Vec<String>,
    #[command(flatten)]
    config: ConfigArg,
}

#[derive(Debug, Args)]
pub(super) struct ResetArgs {
    /// The feature view
    #[arg(value_name = "VIEW")]
    view: String,
    #[command(flatten)]
    config: ConfigArg,
    /// Drop the rows even if some of them cannot be loaded again: rows that callers wrote, or all rows of a view that
    /// has no source or whose source cannot be read. Without this option, the command fails in these cases
    #[arg(long)]
    yes: bool,
}

pub(super) fn delete(args: &DeleteArgs) -> Result<()> {
    if let Some(argument) = args.key.iter().find(|argument| !argument.contains('=')) {
        bail!(not_key_value(argument));
    }
    let target = Target::find(&args.config)?;
    let known = all_inputs(&target.catalog()?);
    let mut key = BTreeMap::new();
    for argument in &args.key {
        let Some((name, text)) = arguments::split(argument, known.keys().map(String::as_str)) else {
            bail!(not_key_value(argument));
        };
        let is_time = known.get(name).is_some_and(Input::is_time);
        let value = arguments::single_value(text);
        let seconds = arguments::seconds(&value).filter(|_| is_time);
        if key.insert(name.to_owned(), seconds.map_or(value, |seconds| seconds.to_string())).is_some() {
            bail!(CliError::Usage(format!("'{name}' is given twice; delete one entity at a time")));
        }
    }
    let report = target.delete(&DeleteCommand { view: args.view.clone(), key })?;
    let what = if report.rows > 0 { "deleted" } else { "no row found" };
    output::line(&format!("{}: {what}; a later load restores it only from a newer row", args.view));
    Ok(())
}

pub(super) fn reset(args: &ResetArgs) -> Result<()> {
    let target = Target::find(&args.config)?;
    let report = target.reset(&ResetCommand { view: args.view.clone(), confirmed: args.yes })?;
    output::line(&format!("{}: {} dropped", args.view, output::counted(report.rows, "row", "rows")));
    if !has_source(&target, &args.view)? {
        return Ok(());
    }
    let command = SyncCommand { views: vec![args.view.clone()], full: true, ..SyncCommand::default() };
    if sync::sync_and_print(&target, &command)? > 0 {
        bail!(CliError::Failed(format!("feature view '{}' could not be loaded again", args.view)));
    }
    Ok(())
}

fn has_source(target: &Target, view: &str) -> Result<bool> {
    let catalog = target.catalog()?;
    let views = catalog["feature_views"].as_array().into_iter().flatten();
    Ok(views.into_iter().any(|known| known["name"] == view && !known["source"].is_null()))
}
