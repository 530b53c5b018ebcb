//! `larder plugin run`: runs rows through a plugin, without a server.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use larder_model::model::Micros;
use larder_plugin_host::{FailedRow, Inputs, Outputs, Signature};
use serde_json::{Map, Value};

use super::{
    out_file::OutFile,
    project::{LoadedPlugin, cell},
    replay::replay,
    rows::{for_each_batch, named},
};
use crate::cli::{CliError, output};

#[derive(Debug, Args)]
pub(in crate::cli) struct RunArgs {
    /// The plugin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The rows: a JSON list of objects with input names as keys, or a Parquet or Arrow file with a column for each input
    #[arg(long, short, value_name = "FILE", required_unless_present = "replay")]
    input: Option<PathBuf>,
    /// Compute captured rows again, with their configuration and their reference times, and compare the outputs with the
    /// captured ones: a capture file, or a directory of them
    #[arg(long, value_name = "PATH", conflicts_with_all = ["input", "view_config", "as_of", "json", "out"])]
    replay: Option<PathBuf>,
    /// The plugin's configuration, as JSON; in a server, it is the `config` of the derived view
    #[arg(long, value_name = "JSON", default_value = "null")]
    view_config: String,
    /// The reference time of all rows, in microseconds since 1970
    #[arg(long, value_name = "MICROS", default_value_t = 0)]
    as_of: Micros,
    /// Write the inputs, the outputs and the errors to a Parquet file, instead of printing the outputs
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    out: Option<PathBuf>,
    /// Print a JSON list of objects with output names as keys
    #[arg(long)]
    json: bool,
}

/// Where the outputs go.
enum Sink {
    /// A table of at most [`ROWS_SHOWN`] rows.
    Table(Vec<Vec<String>>),
    /// A JSON list that is partly printed.
    Json,
    File(Box<OutFile>),
}

/// The rows so far.
#[derive(Default)]
struct Count {
    rows: usize,
    failed: usize,
    /// The first failed rows, as text.
    shown: Vec<String>,
}

/// The number of failed rows that are printed.
const FAILED_SHOWN: usize = 20;
/// The number of rows of a table.
const ROWS_SHOWN: usize = 1_000;

pub(super) fn run(args: &RunArgs) -> Result<()> {
    let plugin = LoadedPlugin::open(&args.file)?;
    match (&args.replay, &args.input) {
        (Some(captures), _) => replay(&plugin, &args.file, captures),
        (None, Some(input)) => run_rows(args, &plugin, input),
        (None, None) => bail!(CliError::Usage("no rows. hint: pass --input FILE or --replay PATH".to_owned())),
    }
}

fn run_rows(args: &RunArgs, plugin: &LoadedPlugin, input: &Path) -> Result<()> {
    let signature = plugin.signature();
    let transform = plugin.transform(&args.view_config)?;
    let mut sink = match &args.out {
        Some(out) => Sink::File(Box::new(OutFile::create(out, signature)?)),
        None if args.json => Sink::Json,
        None => Sink::Table(Vec::new()),
    };
    let mut count = Count::default();
    for_each_batch(input, |batch| {
        let inputs = batch.inputs_for(&transform, args.as_of, &[])?;
        let outputs = transform.call(&inputs);
        sink.add(signature, &inputs, &outputs, count.rows)?;
        count.add(&outputs);
        Ok(true)
    })
    .map_err(|error| named(input, error))?;
    sink.finish(signature, &count)?;
    count.report(signature)
}

// === impl Sink ===

impl Sink {
    /// Adds rows. The first one has the number `first`.
    fn add(&mut self, signature: &Signature, inputs: &Inputs, outputs: &Outputs, first: usize) -> Result<()> {
        let value = |index: usize, row: usize| cell(outputs.output(index), signature.outputs[index].column_type, row);
        match self {
            Self::File(file) => file.write(inputs, outputs)?,
            Self::Json => {
                for row in 0..outputs.rows() {
                    let outputs = signature.outputs.iter().enumerate();
                    let object: Map<_, _> =
                        outputs.map(|(index, field)| (field.name.clone(), value(index, row))).collect();
                    let start = if first + row == 0 { "[" } else { "," };
                    output::part(&format!("{start}{}", Value::Object(object)));
                }
            }
            Self::Table(lines) => {
                let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let left = ROWS_SHOWN.saturating_sub(lines.len()).min(outputs.rows());
                lines.extend(
                    (0..left).map(|row| {
                        (0..signature.outputs.len()).map(|index| text(value(index, row))).collect::<Vec<_>>()
                    }),
                );
            }
        }
        Ok(())
    }

    fn finish(self, signature: &Signature, count: &Count) -> Result<()> {
        match self {
            Self::File(file) => {
                let path = file.finish()?;
                let rows = output::counted(count.rows as u64, "row", "rows");
                output::line(&format!("{rows} written to {path}"));
            }
            Self::Json => output::line(if count.rows == 0 { "[]" } else { "]" }),
            Self::Table(lines) => {
                let headings: Vec<&str> = signature.outputs.iter().map(|field| field.name.as_str()).collect();
                output::table(&headings, &lines);
                if count.rows > lines.len() {
                    let more = output::thousands((count.rows - lines.len()) as u64);
                    output::note(&format!("{more} more rows are not shown. hint: --json and --out have all rows"));
                }
            }
        }
        Ok(())
    }
}

// === impl Count ===

impl Count {
    fn add(&mut self, outputs: &Outputs) {
        for FailedRow { row, error } in outputs.failed() {
            if self.shown.len() < FAILED_SHOWN {
                self.shown.push(format!("row {} failed: {error}", self.rows + row));
            }
            self.failed += 1;
        }
        self.rows += outputs.rows();
    }

    /// Prints the rows that failed.
    ///
    /// # Errors
    /// If there is one.
    fn report(&self, signature: &Signature) -> Result<()> {
        if self.failed == 0 {
            return Ok(());
        }
        self.shown.iter().for_each(|failed| output::note(failed));
        let more = self.failed.saturating_sub(FAILED_SHOWN);
        if more > 0 {
            output::note(&format!("{more} more rows failed"));
        }
        bail!(CliError::Failed(format!(
            "plugin '{}': {} of {} rows failed, and their outputs are null. hint: the lines above have the errors",
            signature.name, self.failed, self.rows
        )))
    }
}
