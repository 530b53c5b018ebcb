//! `larder plugin run`: runs rows through a plugin, without a server.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use larder_columns::decode_rows;
use larder_common::files::{FILE_BYTES_MAX, open_regular, read_regular};
use larder_http::decode_request;
use larder_model::{
    codec::RowView,
    model::{Micros, ValueRef},
};
use larder_plugin_host::{FailedRow, Inputs, InputsBuilder, Outputs, Signature};
use larder_serving::fill_typed;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value, json};

use super::project::{LoadedPlugin, cell, value_type};
use crate::cli::{CliError, output};

#[derive(Debug, Args)]
pub(in crate::cli) struct RunArgs {
    /// The plugin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The rows: a JSON list of objects with input names as keys, or a Parquet file with a column for each input
    #[arg(long, short, value_name = "FILE")]
    input: PathBuf,
    /// The plugin's configuration, as JSON; in a server, it is the `config` of the derived view
    #[arg(long, value_name = "JSON", default_value = "null")]
    config: String,
    /// The reference time of all rows, in microseconds since 1970
    #[arg(long, value_name = "MICROS", default_value_t = 0)]
    as_of: Micros,
    /// Print a JSON list of objects with output names as keys
    #[arg(long)]
    json: bool,
}

/// The number of failed rows that are printed.
const FAILED_SHOWN: usize = 20;

pub(super) fn run(args: &RunArgs) -> Result<()> {
    let plugin = LoadedPlugin::open(&args.file)?;
    let signature = plugin.signature();
    let is_parquet = args.input.extension().is_some_and(|extension| extension == "parquet");
    let failed = |why: String| CliError::Failed(format!("{}: {why}", args.input.display()));
    let transform = plugin.transform(&args.config)?;
    let batch = |rows| transform.input_batch(args.as_of, rows);
    let inputs =
        if is_parquet { parquet(&args.input, signature, batch) } else { json_rows(&args.input, signature, batch) };
    let inputs = inputs.map_err(|error| failed(output::describe(&error)))?;
    let outputs = transform.call(&inputs);
    let value = |index: usize, row: usize| cell(outputs.output(index), signature.outputs[index].column_type, row);
    let rows = inputs.rows();
    if args.json {
        let object = |row: usize| -> Value {
            let outputs = signature.outputs.iter().enumerate();
            outputs.map(|(index, field)| (field.name.clone(), value(index, row))).collect::<Map<_, _>>().into()
        };
        output::line(&(0..rows).map(object).collect::<Value>().to_string());
        return report_failed(signature, &outputs);
    }
    let headings: Vec<&str> = signature.outputs.iter().map(|field| field.name.as_str()).collect();
    let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let lines: Vec<Vec<String>> =
        (0..rows).map(|row| (0..headings.len()).map(|index| text(value(index, row))).collect()).collect();
    output::table(&headings, &lines);
    report_failed(signature, &outputs)
}

/// Prints the rows that failed.
///
/// # Errors
/// If there is one.
fn report_failed(signature: &Signature, outputs: &Outputs) -> Result<()> {
    let failed = outputs.failed();
    for FailedRow { row, error } in failed.iter().take(FAILED_SHOWN) {
        output::note(&format!("row {row} failed: {error}"));
    }
    if failed.is_empty() {
        return Ok(());
    }
    let more = failed.len().saturating_sub(FAILED_SHOWN);
    if more > 0 {
        output::note(&format!("{more} more rows failed"));
    }
    let (name, rows) = (&signature.name, outputs.rows());
    bail!(CliError::Failed(format!(
        "plugin '{name}': {} of {rows} rows failed, and their outputs are null. hint: the lines above have the errors",
        failed.len()
    )))
}

/// Adds a description to an error of the file of rows.
fn opened<T>(result: io::Result<T>) -> Result<T> {
    result.map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow!(
            "the file does not exist. hint: --input is a JSON file with a list of objects, as in [{{\"input\": 1.0}}], or \
             a Parquet file with a column for each input"
        ),
        _ => anyhow!(error).context("cannot be read"),
    })
}

/// Reads rows from a JSON file. Converts values by the rules for request inputs. An input that a row does not have is
/// null.
fn json_rows(path: &Path, signature: &Signature, batch: impl FnOnce(usize) -> InputsBuilder) -> Result<Inputs> {
    let text = opened(read_regular(path, FILE_BYTES_MAX))?;
    let rows: Vec<Map<String, Value>> =
        serde_json::from_slice(&text).context("must be a JSON list of objects, as in [{\"input\": 1.0}]")?;
    let mut columns = Map::new();
    for (i, row) in rows.iter().enumerate() {
        if let Some(name) = row.keys().find(|name| signature.inputs.iter().all(|input| input.name != **name)) {
            let inputs: Vec<&str> = signature.inputs.iter().map(|input| input.name.as_str()).collect();
            bail!(
                "row {i}: plugin '{}' has no input '{name}'. hint: its inputs are {}",
                signature.name,
                inputs.join(", ")
            );
        }
    }
    for input in &signature.inputs {
        let values: Vec<Value> = rows.iter().map(|row| row.get(&input.name).cloned().unwrap_or(Value::Null)).collect();
        columns.insert(input.name.clone(), values.into());
    }
    let body = json!({ "entities": columns }).to_string();
    let request = decode_request(body.as_bytes()).map_err(|error| anyhow!("{}", error.body))?;
    let mut inputs = batch(rows.len());
    for input in &signature.inputs {
        let values = request.entities.iter().find(|(name, _)| *name == input.name);
        let values = values.map(|(_, values)| values.as_slice()).unwrap_or_default();
        inputs.column(|column| fill_typed(column, &input.name, value_type(input.column_type), values))?;
    }
    Ok(inputs.finish())
}

/// Reads rows from a Parquet file, which needs a column for each input, with the same name. Converts values by the
/// rules for materialization.
fn parquet(path: &Path, signature: &Signature, batch: impl FnOnce(usize) -> InputsBuilder) -> Result<Inputs> {
    let fields: Vec<(Arc<str>, _)> =
        signature.inputs.iter().map(|input| (input.name.as_str().into(), value_type(input.column_type))).collect();
    let batches = ParquetRecordBatchReaderBuilder::try_new(opened(open_regular(path))?)?.build()?;
    let batches = batches.map(|batch| decode_rows(&batch?, &fields).map_err(anyhow::Error::msg));
    let batches = batches.collect::<Result<Vec<_>>>()?;
    let mut inputs = batch(batches.iter().map(|(_, rows)| rows.len()).sum());
    for index in 0..inputs.column_count() {
        inputs.column(|column| {
            for (schema, rows) in &batches {
                for row in rows {
                    column.push(RowView::new(schema, row)?.get(index).unwrap_or(ValueRef::Null));
                }
            }
            anyhow::Ok(())
        })?;
    }
    Ok(inputs.finish())
}
