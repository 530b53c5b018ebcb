//! `larder plugin bench`: measures how long calls to a plugin take.

use std::{
    hint::black_box,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::Args;
use larder_plugin_host::{FailedRow, Inputs, RowGenerator, Transform};

use super::{
    inspect::size_of,
    project::LoadedPlugin,
    rows::{for_each_batch, named},
};
use crate::cli::{CliError, output};

#[derive(Debug, Args)]
pub(in crate::cli) struct BenchArgs {
    /// The plugin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Use the rows of this file, as for `larder plugin run`, instead of generated ones
    #[arg(long, short, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The plugin's configuration, as JSON; in a server, it is the `config` of the derived view
    #[arg(long, value_name = "JSON", default_value = "null")]
    view_config: String,
}

/// The numbers of rows to measure.
const ROWS: [usize; 4] = [1, 32, 100, 1_000];
/// The number of rows of a file that are used.
const ROWS_OF_FILE_MAX: usize = 1_000;
const SEED: u64 = 20_260_101;
/// The minimum time for which calls with each number of rows are measured.
const MEASURE_TIME: Duration = Duration::from_millis(300);
/// The number of calls before the measured ones.
const WARM_UP_CALLS: usize = 50;

pub(super) fn run(args: &BenchArgs) -> Result<()> {
    let plugin = LoadedPlugin::open(&args.file)?;
    let transform = plugin.transform(&args.view_config)?;
    let signature = plugin.signature();
    let rows_of_file = args.input.as_deref().map(|input| first_rows(input, &transform)).transpose()?;
    output::line(&format!(
        "{} {}: {}; loaded in {:.1} ms",
        signature.name,
        signature.version,
        size_of(signature),
        plugin.component.load_time().as_secs_f64() * 1e3
    ));
    let mut lines = Vec::new();
    for rows in ROWS {
        let inputs = match &rows_of_file {
            // A file with fewer rows is repeated.
            Some(of_file) => of_file.select(&(0..rows).map(|row| row % of_file.rows()).collect::<Vec<_>>()),
            None => RowGenerator::new(SEED).inputs(&transform, rows),
        };
        let times = measure(&transform, &inputs)?;
        let (median, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        let micros = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e6);
        #[expect(clippy::cast_precision_loss, reason = "rows, far below 2^53")]
        let per_row = format!("{:.1}", median.as_secs_f64() * 1e9 / rows as f64);
        let (rows, calls) = (output::thousands(rows as u64), output::thousands(times.len() as u64));
        lines.push(vec![rows, micros(median), micros(p99), per_row, calls]);
    }
    output::table(&["ROWS", "US/CALL (MEDIAN)", "US/CALL (P99)", "NS/ROW", "CALLS"], &lines);
    Ok(())
}

/// Returns the first rows of a file.
///
/// # Errors
/// If it cannot be read, or has no rows.
fn first_rows(input: &Path, transform: &Transform) -> Result<Inputs> {
    let mut first = None;
    for_each_batch(input, |batch| {
        let inputs = batch.inputs_for(transform, 0, &[])?;
        if inputs.rows() > 0 {
            first = Some(inputs.slice(0..inputs.rows().min(ROWS_OF_FILE_MAX)));
        }
        Ok(first.is_none())
    })
    .map_err(|error| named(input, error))?;
    let no_rows = || CliError::Failed(format!("{} has no rows. hint: pass a file with rows", input.display()));
    Ok(first.ok_or_else(no_rows)?)
}

/// Prints the first row that failed. A plugin may fail for some of the generated rows, which include extreme values.
///
/// # Errors
/// If all rows failed.
fn note_failed(transform: &Transform, rows: usize, failed: &[FailedRow]) -> Result<()> {
    let Some(FailedRow { row, error }) = failed.first() else { return Ok(()) };
    let (name, count) = (&transform.component().signature().name, failed.len());
    let message =
        format!("plugin '{name}': {count} of {rows} rows failed. The first one is row {row}: {}", error.with_hint());
    if count == rows {
        bail!(CliError::Failed(message));
    }
    output::note(&message);
    Ok(())
}

/// Measures calls with these rows. The time to build the columns is not included. Returns the times in ascending
/// order.
fn measure(transform: &Transform, inputs: &Inputs) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    let mut calls = 0;
    let started = Instant::now();
    while started.elapsed() < MEASURE_TIME || times.is_empty() {
        let call = Instant::now();
        let outputs = black_box(transform.call(inputs));
        let took = call.elapsed();
        if calls == 0 {
            note_failed(transform, inputs.rows(), outputs.failed())?;
        }
        calls += 1;
        if calls > WARM_UP_CALLS {
            times.push(took);
        }
    }
    times.sort();
    Ok(times)
}
