//! `larder plugin bench`: measures how long calls to a plugin take.

use std::{
    hint::black_box,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::Args;
use larder_plugin_host::{FailedRow, RowGenerator, Transform};

use super::project::LoadedPlugin;
use crate::cli::{CliError, output};

#[derive(Debug, Args)]
pub(in crate::cli) struct BenchArgs {
    /// The plugin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The plugin's configuration, as JSON; in a server, it is the `config` of the derived view
    #[arg(long, value_name = "JSON", default_value = "null")]
    config: String,
}

/// The numbers of rows to measure. A call with 0 rows shows the fixed cost of every call.
const ROWS: [usize; 5] = [0, 1, 32, 100, 1_000];
const SEED: u64 = 20_260_101;
/// The minimum time for which calls with each number of rows are measured.
const MEASURE_TIME: Duration = Duration::from_millis(300);
/// The number of calls before the measured ones.
const WARM_UP_CALLS: usize = 50;

pub(super) fn run(args: &BenchArgs) -> Result<()> {
    let plugin = LoadedPlugin::open(&args.file)?;
    let transform = plugin.transform(&args.config)?;
    let signature = plugin.signature();
    output::line(&format!(
        "{} {}: {} inputs, {} outputs; loaded in {:.1} ms",
        signature.name,
        signature.version,
        signature.inputs.len(),
        signature.outputs.len(),
        plugin.component.load_time().as_secs_f64() * 1e3
    ));
    let mut lines = Vec::new();
    for rows in ROWS {
        let times = measure(&transform, rows)?;
        let (median, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        let micros = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e6);
        #[expect(clippy::cast_precision_loss, reason = "rows, far below 2^53")]
        let per_row =
            if rows == 0 { "-".to_owned() } else { format!("{:.1}", median.as_secs_f64() * 1e9 / rows as f64) };
        let what = if rows == 0 { "0 (call overhead)".to_owned() } else { output::thousands(rows as u64) };
        lines.push(vec![what, micros(median), micros(p99), per_row, output::thousands(times.len() as u64)]);
    }
    output::table(&["ROWS", "US/CALL (MEDIAN)", "US/CALL (P99)", "NS/ROW", "CALLS"], &lines);
    Ok(())
}

/// Prints the first row that failed. A plugin may fail for some of the generated rows, which include extreme values.
///
/// # Errors
/// If all rows failed.
fn note_failed(transform: &Transform, rows: usize, failed: &[FailedRow]) -> Result<()> {
    let Some(FailedRow { row, error }) = failed.first() else { return Ok(()) };
    let (name, count) = (&transform.component().signature().name, failed.len());
    let message = format!(
        "plugin '{name}': {count} of {rows} generated rows failed. The first one is row {row}: {}",
        error.with_hint()
    );
    if count == rows {
        bail!(CliError::Failed(message));
    }
    output::note(&message);
    Ok(())
}

/// Measures calls with this many rows. The time to build the columns is not included. Returns the times in ascending
/// order.
fn measure(transform: &Transform, rows: usize) -> Result<Vec<Duration>> {
    let inputs = RowGenerator::new(SEED).inputs(transform, rows);
    let mut times = Vec::new();
    let mut calls = 0;
    let started = Instant::now();
    while started.elapsed() < MEASURE_TIME || times.is_empty() {
        let call = Instant::now();
        let outputs = black_box(transform.call(&inputs));
        let took = call.elapsed();
        if calls == 0 {
            note_failed(transform, rows, outputs.failed())?;
        }
        calls += 1;
        if calls > WARM_UP_CALLS {
            times.push(took);
        }
    }
    times.sort();
    Ok(times)
}
