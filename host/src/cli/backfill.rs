//! `larder backfill`: computes derived features over the history of the stored features that they read.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use larder_common::telemetry::{self, LogFormat};
use larder_model::model::Micros;

use super::{
    CliError, ConfigArg,
    offline_job::{JobArgs, run_job},
    output,
    sync::parse_time,
    training_set::views,
};
use crate::offline::{Backfill, Location, Project};

#[derive(Debug, Args)]
pub(super) struct BackfillArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The derived view
    #[arg(value_name = "VIEW", allow_hyphen_values = true)]
    view: String,
    /// Compute the features at times from this one on, such as 2026-01-31 or 2026-01-31T10:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: Micros,
    /// Compute the features at times before this one
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to: Micros,
    /// The directory or prefix in S3 to write to: one file for each stored view that has all join keys
    #[arg(long, short, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    job: JobArgs,
}

pub(super) fn run(args: &BackfillArgs) -> Result<()> {
    if args.from >= args.to {
        bail!(CliError::Usage("--from must be before --to".to_owned()));
    }
    telemetry::install_logs("warn", LogFormat::Text);
    let project = Project::load(args.config.load()?)?;
    project.definitions().warnings.iter().for_each(|warning| output::note(&warning.to_string()));
    let backfill = Backfill::new(&project, &args.view, args.from..args.to)?;
    let dir = Location::parse_dir(&args.out)?;
    let files = run_job(0, |progress| backfill.run(&dir, args.job.limits(), progress))?;
    for file in files {
        views(&file.report.views);
        output::line(&format!("wrote {} to {}", output::counted(file.rows, "row", "rows"), file.at));
    }
    Ok(())
}
