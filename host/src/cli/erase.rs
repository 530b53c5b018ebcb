//! `larder delete` and `larder reset`: remove rows on request.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::Args;
use larder_http::{DeleteCommand, ResetCommand, SyncCommand};

use super::{CliError, ConfigArg, output, sync, target::Target};

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// The feature view
    #[arg(value_name = "VIEW")]
    view: String,
    /// The entity: a value for each join key of the view
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
    /// Also drop rows that cannot be loaded again: those that callers wrote, those of a view without a source or whose
    /// source cannot be read
    #[arg(long)]
    yes: bool,
}

pub(super) fn delete(args: &DeleteArgs) -> Result<()> {
    let mut key = BTreeMap::new();
    for part in &args.key {
        let Some((name, value)) = part.split_once('=') else {
            bail!(CliError::Usage(format!(
                "'{part}' is not in the form KEY=VALUE. hint: use, for example, customer_id=CUST_000123"
            )));
        };
        if key.insert(name.to_owned(), value.to_owned()).is_some() {
            bail!(CliError::Usage(format!("'{name}' is given twice; delete one entity at a time")));
        }
    }
    let command = DeleteCommand { view: args.view.clone(), key };
    let report = Target::find(&args.config)?.delete(&command)?;
    let what = if report.rows > 0 { "deleted" } else { "no row found" };
    output::line(&format!("{}: {what}; later loads drop rows that are not newer", args.view));
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
