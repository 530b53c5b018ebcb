//! `larder sync`: syncs views now.

use std::collections::HashMap;

use anyhow::{Result, bail};
use clap::Args;
use indicatif::ProgressBar;
use larder_common::clock;
use larder_http::{AdminEvent, SyncCommand};
use larder_ingest::{Outcome, SyncReport};

use super::{CliError, ConfigArg, output, target::Target};

#[derive(Debug, Args)]
pub(super) struct SyncArgs {
    /// The feature views to sync [default: all with a source]
    #[arg(value_name = "VIEW")]
    views: Vec<String>,
    #[command(flatten)]
    config: ConfigArg,
    /// Read everything again, including data that has not changed since the last sync
    #[arg(long)]
    full: bool,
    /// Skip the sanity checks: accept any number of invalid rows and values, and any change in the number of rows
    #[arg(long)]
    force: bool,
    /// Read only rows with an event time at or after this time: 2026-01-31 or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: Option<i64>,
    /// Read only rows with an event time at or before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to: Option<i64>,
}

pub(super) fn run(args: &SyncArgs) -> Result<()> {
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from > to
    {
        bail!(CliError::Usage("--from is later than --to".to_owned()));
    }
    let target = Target::find(&args.config)?;
    let SyncArgs { views, full, force, from, to, .. } = args;
    let command =
        SyncCommand { views: views.clone(), full: *full, from: *from, to: *to, force: *force, skip_recent: false };
    let failed = sync_and_print(&target, &command)?;
    if failed > 0 {
        bail!(CliError::Failed(format!(
            "{} could not be synced",
            output::counted(failed as u64, "feature view", "feature views")
        )));
    }
    Ok(())
}

/// Syncs views. Shows a progress bar for each view, and prints a line when its sync ends. Returns the number of views
/// that failed.
pub(super) fn sync_and_print(target: &Target, command: &SyncCommand) -> Result<usize> {
    let mut bars: HashMap<String, ProgressBar> = HashMap::new();
    let mut failed = 0;
    target.sync(command, |event| match event {
        AdminEvent::Progress { view, progress } => {
            let bar = bars.entry(view).or_insert_with_key(|view| output::progress(view, progress.expected));
            bar.set_length(progress.expected);
            bar.set_position(progress.rows);
        }
        AdminEvent::Synced { report } => {
            if let Some(bar) = bars.remove(&report.view) {
                bar.finish_and_clear();
            }
            output::line(&describe(&report));
        }
        AdminEvent::Failed { view, error } => {
            if let Some(bar) = bars.remove(&view) {
                bar.abandon();
            }
            failed += 1;
            output::error(&error);
        }
    })?;
    Ok(failed)
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate for people"
)]
fn describe(report: &SyncReport) -> String {
    let view = &report.view;
    if report.outcome != Outcome::Loaded {
        return format!("{view}: up to date");
    }
    let applied = report.applied;
    let rows = applied.rows() + report.skipped.rows() + report.skipped.outside_window + report.skipped.future;
    let seconds = report.elapsed.as_secs_f64();
    let rate = (rows as f64 / seconds.max(1e-6)) as u64;
    let parts = [
        (applied.inserted, "new"),
        (applied.updated, "changed"),
        (applied.unchanged, "unchanged"),
        (applied.stale, "older than the stored rows"),
        (applied.removed, "removed"),
        (report.skipped.outside_window, "outside the given times"),
        (report.skipped.future, "not served yet (later than now plus 'sync: future_tolerance')"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", output::thousands(*count)))
        .collect();
    let what = if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") };
    let mut line = format!(
        "{view}: {} in {seconds:.2} s ({} rows/s): {what}",
        output::counted(rows, "row", "rows"),
        output::thousands(rate)
    );
    if report.skipped.rows() > 0 {
        line.push_str(&format!("; SKIPPED: {}", report.skipped));
    }
    if let Some(values) = report.skipped.values_text() {
        line.push_str(&format!("; values set to null because they do not match their feature's type: {values}"));
    }
    line
}

/// Parses a time. Returns it in microseconds since 1970.
pub(super) fn parse_time(text: &str) -> Result<i64, String> {
    let invalid = || format!("'{text}' is not a time. hint: write, for example, 2026-01-31 or 2026-01-31T12:00:00Z");
    clock::parse_time(text).ok_or_else(invalid)
}
