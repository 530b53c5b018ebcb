//! `larder materialize`: writes views' Parquet files to DynamoDB, for jobs without Python.
//!
//! It needs neither a running server nor the server's store. Rows are first loaded into a scratch store in a separate
//! directory, and then written to the table.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{self, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, bail};
use clap::Args;
use indicatif::ProgressBar;
use larder_common::{
    clock::SystemClock,
    telemetry::{self, LogFormat},
};
use larder_model::{
    codec::murmur3_x64_128,
    model::{AwsPlace, EntityId, FeatureView, TableLayout, Window, parse_duration},
    registry::Catalog,
    yaml::nearest,
};
use larder_source::{NewTable, TableError, TableWriter, WriteOptions};
use larder_sync::{TableReport, TableRun, TableStep, ToTableError, materialize_to_table};

use super::{CliError, ConfigArg, output, sync::parse_time};
use crate::config::{Config, load_definitions};

#[derive(Debug, Args)]
pub(super) struct MaterializeArgs {
    /// The feature views to write [default: all views with files; with --create-tables but without --table-template, only
    /// those whose source is a DynamoDB table in Feast's layout]
    #[arg(value_name = "VIEW")]
    views: Vec<String>,
    #[command(flatten)]
    config: ConfigArg,
    /// Read only rows with an event time at or after this time: 2026-01-31 or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: Option<i64>,
    /// Read only rows with an event time at or before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to: Option<i64>,
    /// The name of the table, for views whose source is not a table in Feast's layout [default: {project}.{view}]
    #[arg(long, value_name = "NAME")]
    table_template: Option<String>,
    /// Replace existing items, including newer ones; this writes in batches, which is faster
    #[arg(long)]
    overwrite: bool,
    /// Create missing tables as Feast does, with their streams turned on
    #[arg(long)]
    create_tables: bool,
    /// Do not turn on the streams of new tables: changes are then served only after the next scan of the table
    #[arg(long, requires = "create_tables")]
    no_stream: bool,
    /// The directory for temporary files. They are kept until a run succeeds, so that the next run can resume [default:
    /// next to the store's directory]
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
    /// How many requests to send concurrently
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    concurrency: u16,
    /// How long to keep retrying while DynamoDB accepts no items
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    retry_timeout: Duration,
}

/// The default of `--table-template`. It gives tables the same names as Feast's default.
const TABLE_TEMPLATE: &str = "{project}.{view}";
/// The maximum length of a scratch directory's name. File systems allow 255 bytes.
const DIR_NAME_BYTES_MAX: usize = 200;
/// Why a view has no files, if the catalog does not have a more specific reason.
const NO_FILES: &str = "neither its source nor its batch_source has Parquet files";

/// A view and its table.
struct Target<'c> {
    view: &'c Arc<FeatureView>,
    table: String,
    place: AwsPlace,
}

pub(super) fn run(args: &MaterializeArgs) -> Result<()> {
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from > to
    {
        bail!(CliError::Usage("--from is later than --to".to_owned()));
    }
    telemetry::install_logs("warn", LogFormat::Text);
    let config = args.config.load()?;
    let definitions = load_definitions(&config)?;
    definitions.warnings.iter().for_each(|warning| output::note(&warning.to_string()));
    let catalog = &definitions.catalog;
    let mut failed = 0;
    let targets = targets(args, catalog, &mut failed)?;
    let work_dir = work_dir(args, &config)?;
    let setting = config.sync_setting(Arc::new(SystemClock));
    let options = WriteOptions {
        overwrite: args.overwrite,
        concurrency: usize::from(args.concurrency),
        timeout: args.retry_timeout,
    };
    for Target { view, table, place } in targets {
        let dir = work_dir.join(dir_name(&view.name));
        check_scratch_dir(&dir, &config.store.data_dir)?;
        let features = view.features.iter().map(|feature| Arc::clone(&feature.name));
        let writer = TableWriter::new(Arc::clone(&setting.aws), place, &table, features, options);
        let run = TableRun {
            view,
            key_version: catalog.key_version(),
            setting: &setting,
            window: Window { from: args.from, to: args.to },
            writer: &writer,
            create: args.create_tables.then_some(NewTable { stream: !args.no_stream }),
            dir: &dir,
            space: config.store.space,
        };
        let mut bar = None;
        let result = materialize_to_table(run, &mut |step| draw(&mut bar, &view.name, step));
        match result {
            Ok(report) => {
                bar.iter().for_each(|(_, bar)| bar.finish_and_clear());
                output::line(&describe(&view.name, &table, &report));
            }
            Err(error) => {
                bar.iter().for_each(|(_, bar)| bar.abandon());
                output::error(&error_text(&view.name, &error));
                failed += 1;
            }
        }
    }
    if args.work_dir.is_none() {
        // If the directory has the scratch store of a failed run, this call fails, and the directory stays.
        let _ = std::fs::remove_dir(&work_dir);
    }
    if failed > 0 {
        bail!(CliError::Failed(format!(
            "{} could not be materialized",
            output::counted(failed as u64, "feature view", "feature views")
        )));
    }
    Ok(())
}

/// Returns the selected views, each with its table. For each named view that does not exist or has no files, prints an
/// error and increments `failed`.
fn targets<'c>(args: &MaterializeArgs, catalog: &'c Catalog, failed: &mut usize) -> Result<Vec<Target<'c>>> {
    let mut targets = Vec::new();
    let mut add_error = |message: String| {
        output::error(&message);
        *failed += 1;
    };
    let all = args.views.is_empty();
    let named = args.views.iter().map(String::as_str);
    let names: Vec<&str> = if all { catalog.views().iter().map(|view| &*view.name).collect() } else { named.collect() };
    for name in names {
        let Some(view) = catalog.views().iter().find(|view| &*view.name == name) else {
            let hint = nearest(name, catalog.views().iter().map(|view| &*view.name));
            let hint = hint.map_or_else(String::new, |help| format!(" ({help})"));
            add_error(format!("feature view '{name}' does not exist{hint}"));
            continue;
        };
        if view.files().is_none() {
            let why = catalog.unmaterializable_views().get(name).map_or(NO_FILES, |why| why);
            if all {
                output::note(&format!("skipping view '{name}': {why}"));
            } else {
                add_error(format!("view '{name}' has no files to materialize: {why}"));
            }
            continue;
        }
        let own = view.table().filter(|table| table.layout == TableLayout::Feast);
        let (table, place) = match own {
            Some(own) => (own.table.clone(), own.place.clone()),
            // If no views are named, tables are created only if a definition or `--table-template` names them.
            None if all && args.create_tables && args.table_template.is_none() => {
                output::note(&format!(
                    "skipping view '{name}': it names no table in Feast's layout. hint: name the view, or set \
                     --table-template"
                ));
                continue;
            }
            None => {
                let template = args.table_template.as_deref().unwrap_or(TABLE_TEMPLATE);
                (table_name(template, catalog.project(), name)?, AwsPlace::default())
            }
        };
        targets.push(Target { view, table, place });
    }
    if all && targets.is_empty() {
        let which = if args.create_tables && args.table_template.is_none() {
            "no feature view has files to materialize and also names a table in Feast's layout. hint: name the views, or \
             set --table-template"
        } else {
            "no feature view has files to materialize"
        };
        bail!(CliError::Failed(which.to_owned()));
    }
    // An entity has one item in a table, so two views with the same table would overwrite each other's items.
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    for target in &targets {
        if let Some(other) = taken.insert(&target.table, &target.view.name) {
            let (view, table) = (&target.view.name, &target.table);
            bail!(CliError::Usage(format!(
                "the views '{other}' and '{view}' would both be written to table '{table}'"
            )));
        }
    }
    Ok(targets)
}

/// Returns the name of a view's scratch directory: the view's name, or a hash of the name if it is not safe as a file
/// name.
fn dir_name(view: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if view.len() <= DIR_NAME_BYTES_MAX && !view.starts_with('.') && view.chars().all(is_plain) {
        view.to_owned()
    } else {
        EntityId(murmur3_x64_128(view.as_bytes())).to_string()
    }
}

fn table_name(template: &str, project: &str, view: &str) -> Result<String> {
    let name = template.replace("{project}", project).replace("{view}", view);
    if name.contains(['{', '}']) {
        let message = format!("--table-template '{template}': only {{project}} and {{view}} are placeholders");
        bail!(CliError::Usage(message));
    }
    Ok(name)
}

/// Returns the directory of the scratch stores, by default `<data_dir>-materialize`.
fn work_dir(args: &MaterializeArgs, config: &Config) -> Result<PathBuf> {
    if let Some(dir) = &args.work_dir {
        return Ok(path::absolute(dir)?);
    }
    let data_dir = path::absolute(&config.store.data_dir)?;
    let mut name = data_dir.file_name().map_or_else(|| OsString::from("store"), ToOwned::to_owned);
    name.push("-materialize");
    Ok(data_dir.with_file_name(name))
}

/// Checks that a scratch directory, whose contents are removed after a run, does not contain the served store.
fn check_scratch_dir(dir: &Path, data_dir: &Path) -> Result<()> {
    let data_dir = path::absolute(data_dir)?;
    if data_dir.starts_with(dir) {
        let dir = dir.display();
        bail!(CliError::Usage(format!("{dir} contains the served store. hint: set --work-dir to another directory")));
    }
    Ok(())
}

/// Draws one progress bar for the files, then one for the table.
fn draw(bar: &mut Option<(&'static str, ProgressBar)>, view: &str, step: TableStep) {
    let (what, at) = match step {
        TableStep::Reading(at) => ("reading", at),
        TableStep::Writing(at) => ("writing", at),
    };
    if bar.as_ref().is_none_or(|(before, _)| *before != what) {
        bar.iter().for_each(|(_, bar)| bar.finish_and_clear());
        *bar = Some((what, output::progress(&format!("{view}: {what}"), at.expected)));
    }
    if let Some((_, bar)) = bar {
        bar.set_length(at.expected);
        bar.set_position(at.rows);
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate for people"
)]
fn describe(view: &str, table: &str, report: &TableReport) -> String {
    let rows = report.written.written + report.written.older;
    let seconds = report.elapsed.as_secs_f64();
    let rate = output::thousands((rows as f64 / seconds.max(1e-6)) as u64);
    let written = output::thousands(report.written.written);
    let mut line = format!(
        "{view}: {} to DynamoDB table '{table}' in {seconds:.2} s ({rate} rows/s): {written} written",
        output::counted(rows, "row", "rows")
    );
    if report.written.older > 0 {
        line.push_str(&format!(", {} not newer than the table's items", output::thousands(report.written.older)));
    }
    if report.done_before > 0 {
        line.push_str(&format!("; an earlier run wrote {}", output::thousands(report.done_before)));
    }
    if report.skipped.outside_window > 0 {
        let outside = output::counted(report.skipped.outside_window, "row is", "rows are");
        line.push_str(&format!("; {outside} outside the given times"));
    }
    if report.skipped.future > 0 {
        let future = output::counted(report.skipped.future, "row", "rows");
        line.push_str(&format!("; {future} skipped for an event time later than now plus 'sync: future_tolerance'"));
    }
    if report.skipped.rows() > 0 {
        line.push_str(&format!("; SKIPPED: {}", report.skipped));
    }
    if let Some(values) = report.skipped.values_text() {
        line.push_str(&format!("; values set to null because they do not match their feature's type: {values}"));
    }
    line
}

fn error_text(view: &str, error: &ToTableError) -> String {
    match error {
        ToTableError::Sync(error) => error.to_string(),
        ToTableError::Table(TableError::Missing { .. }) => {
            format!("view '{view}': {error}. hint: --create-tables creates it, as 'feast apply' does")
        }
        error => format!("view '{view}': {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_view_has_separate_directory() {
        assert_eq!(dir_name("driver_stats-2.v1"), "driver_stats-2.v1");
        let long = "n".repeat(5_000);
        let unsafe_names = ["..", ".", "a/b", "../../etc", "größe", &long];
        for name in unsafe_names {
            assert!(dir_name(name).bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
        }
        let names: std::collections::BTreeSet<String> = unsafe_names.iter().map(|name| dir_name(name)).collect();
        assert_eq!(names.len(), unsafe_names.len());
    }
}
