//! Reads rows for plugins from files, batch by batch.
//!
//! * JSON: a list of objects. It is one batch, because a JSON file is limited in size.
//! * Parquet and Arrow: a column for each input, with values that are converted by the rules for materialization.
//! * Captures: the captured inputs, without a conversion, and their reference times.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, anyhow, bail};
use arrow::{array::RecordBatch, datatypes::Schema};
use larder_captures::{ArrowFile, CaptureFile, CapturedRows, capture_files, is_capture};
use larder_columns::{Column, decode_rows, row_sizes};
use larder_common::{
    clock::SystemClock,
    files::{FILE_BYTES_MAX, read_regular},
};
use larder_http::decode_request;
use larder_model::{
    codec::RowView,
    model::{Micros, ValueRef},
    yaml::nearest,
};
use larder_plugin_host::{Inputs, Signature, Transform};
use larder_serving::fill_typed;
use larder_source::{ParquetFiles, ParquetLimits, Source as _, SourceRows};
use serde_json::{Map, Value, json};

use super::project::value_type;
use crate::cli::{CliError, output};

/// Some rows of a file.
pub(super) enum RowBatch<'f> {
    /// Objects with names of inputs as keys.
    Json(Vec<Map<String, Value>>),
    /// Columns, some with the names of inputs.
    Columns(RecordBatch),
    /// Captured inputs.
    Captured(&'f CaptureFile, Box<CapturedRows>),
}

/// The maximum size of the decoded rows of a batch in bytes, unless a single row is larger.
const PIECE_BYTES: u64 = 8 << 20;
/// The maximum size of a decoded row in bytes.
const ROW_BYTES_MAX: u64 = 64 << 20;
/// The maximum number of rows of a batch.
const BATCH_ROWS: usize = 16_384;

/// Calls `add` with each batch of a file or of a directory. `add` returns whether to continue.
///
/// # Errors
/// If a file cannot be read, and errors of `add`. [`named`] adds the name of the file.
pub(super) fn for_each_batch(path: &Path, mut add: impl FnMut(RowBatch<'_>) -> Result<bool>) -> Result<()> {
    let has_extension = |wanted: &str| path.extension().is_some_and(|extension| extension == wanted);
    if has_extension("parquet") {
        return parquet(path, add);
    }
    if has_extension("arrow") || path.is_dir() {
        for file in opened(capture_files(path))? {
            if !arrow(&file.path, &mut add)? {
                break;
            }
        }
        return Ok(());
    }
    let rows = json_rows(path)?;
    add(RowBatch::Json(rows)).map(|_| ())
}

/// Calls `add` with each batch of captures: of a file, or of the files in a directory.
///
/// # Errors
/// As [`for_each_batch`], and if a file is not a capture.
pub(super) fn for_each_capture(
    path: &Path,
    mut add: impl FnMut(&CaptureFile, CapturedRows) -> Result<()>,
) -> Result<()> {
    let files = capture_files(path).map_err(|error| CliError::Failed(format!("{}: {error}", path.display())))?;
    if files.is_empty() {
        bail!(CliError::Failed(format!(
            "{} has no captures. hint: `larder plugin captures NAME` lists the captures of a plugin",
            path.display()
        )));
    }
    for file in files {
        let file = CaptureFile::open(&file.path)?;
        for index in 0..file.batch_count() {
            add(&file, file.batch(index)?)?;
        }
    }
    Ok(())
}

fn parquet(path: &Path, mut add: impl FnMut(RowBatch<'_>) -> Result<bool>) -> Result<()> {
    opened(std::fs::metadata(path))?;
    let limits = ParquetLimits { batch_rows: BATCH_ROWS, ..ParquetLimits::default() };
    let source = ParquetFiles::of_all_columns(PathBuf::from(path), limits, Arc::new(SystemClock));
    let mut batches = source.read(None)?;
    while let Some(batch) = batches.next_batch()? {
        if let SourceRows::Columns(columns) = batch.rows
            && !add(RowBatch::Columns(columns))?
        {
            break;
        }
    }
    Ok(())
}

/// Returns whether to continue with the next file.
fn arrow(path: &Path, add: &mut impl FnMut(RowBatch<'_>) -> Result<bool>) -> Result<bool> {
    let file = ArrowFile::open(path)?;
    if is_capture(file.schema()) {
        let file = CaptureFile::open(path)?;
        for index in 0..file.batch_count() {
            if !add(RowBatch::Captured(&file, Box::new(file.batch(index)?)))? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    for index in 0..file.batch_count() {
        let batch = file.batch(index)?;
        for piece in pieces(&batch).with_context(|| file.path().to_owned())? {
            let added = add(RowBatch::Columns(piece)).with_context(|| file.path().to_owned())?;
            if !added {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Divides a batch into pieces of limited size, because rows can be larger than the file: dictionaries and views are
/// copied.
fn pieces(batch: &RecordBatch) -> Result<Vec<RecordBatch>> {
    let sizes = row_sizes(batch);
    if let Some(row) = sizes.iter().position(|size| *size > ROW_BYTES_MAX) {
        bail!("row {row} has {} bytes, but at most {ROW_BYTES_MAX} are allowed. hint: leave it out", sizes[row]);
    }
    let (mut pieces, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (row, size) in sizes.iter().enumerate() {
        if row > start && (bytes + size > PIECE_BYTES || row - start == BATCH_ROWS) {
            pieces.push(batch.slice(start, row - start));
            (start, bytes) = (row, 0);
        }
        bytes += size;
    }
    pieces.push(batch.slice(start, sizes.len() - start));
    Ok(pieces)
}

/// Adds a description to an error of the file of rows.
fn opened<T>(result: io::Result<T>) -> Result<T> {
    result.map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow!(
            "the file does not exist. hint: --input is a JSON file with a list of objects, as in [{{\"input\": 1.0}}], or \
             a Parquet or Arrow file with a column for each input"
        ),
        _ => anyhow!(error).context("cannot be read"),
    })
}

fn json_rows(path: &Path) -> Result<Vec<Map<String, Value>>> {
    let text = opened(read_regular(path, FILE_BYTES_MAX))?;
    serde_json::from_slice(&text).context("must be a JSON list of objects, as in [{\"input\": 1.0}]")
}

/// Adds the name of the file of rows to an error, unless the error has it.
pub(super) fn named(input: &Path, error: anyhow::Error) -> CliError {
    let (name, message) = (input.display().to_string(), output::describe(&error));
    if message.contains(&name) { CliError::Failed(message) } else { CliError::Failed(format!("{name}: {message}")) }
}

// === impl RowBatch ===

impl RowBatch<'_> {
    /// Returns the inputs of a plugin. `as_of` is the reference time of rows that have none. Keys of JSON objects must be
    /// inputs of this plugin or of one of `others`.
    pub(super) fn inputs_for(&self, transform: &Transform, as_of: Micros, others: &[&Signature]) -> Result<Inputs> {
        match self {
            Self::Json(rows) => json_inputs(rows, transform, as_of, others),
            Self::Columns(batch) => column_inputs(batch, transform, as_of),
            Self::Captured(file, rows) => rows.inputs_for(transform, file).map_err(anyhow::Error::msg),
        }
    }
}

/// Converts values by the rules for request inputs. An input that a row does not have is null.
fn json_inputs(
    rows: &[Map<String, Value>],
    transform: &Transform,
    as_of: Micros,
    others: &[&Signature],
) -> Result<Inputs> {
    let signature = transform.component().signature();
    let has_input = |name: &String| {
        let mut signatures = others.iter().copied().chain([signature]);
        signatures.any(|signature| signature.inputs.iter().any(|input| input.name == *name))
    };
    for (i, row) in rows.iter().enumerate() {
        if let Some(name) = row.keys().find(|name| !has_input(name)) {
            let inputs: Vec<&str> = signature.inputs.iter().map(|input| input.name.as_str()).collect();
            bail!(
                "row {i}: plugin '{}' has no input '{name}'. hint: its inputs are {}",
                signature.name,
                inputs.join(", ")
            );
        }
    }
    let mut columns = Map::new();
    for input in &signature.inputs {
        let values: Vec<Value> = rows.iter().map(|row| row.get(&input.name).cloned().unwrap_or(Value::Null)).collect();
        columns.insert(input.name.clone(), values.into());
    }
    let body = json!({ "entities": columns }).to_string();
    let request = decode_request(body.as_bytes()).map_err(|error| anyhow!("{}", error.body))?;
    let mut inputs = transform.input_batch(as_of, rows.len());
    for input in &signature.inputs {
        let values = request.entities.iter().find(|(name, _)| *name == input.name);
        let values = values.map(|(_, values)| values.as_slice()).unwrap_or_default();
        inputs.column(|column| fill_typed(column, &input.name, value_type(input.column_type), values))?;
    }
    Ok(inputs.finish())
}

/// Converts columns by the rules for materialization.
fn column_inputs(batch: &RecordBatch, transform: &Transform, as_of: Micros) -> Result<Inputs> {
    let signature = transform.component().signature();
    check_columns(&batch.schema(), signature)?;
    let fields: Vec<(Arc<str>, _)> =
        signature.inputs.iter().map(|input| (input.name.as_str().into(), value_type(input.column_type))).collect();
    let (schema, rows) = decode_rows(batch, &fields).map_err(anyhow::Error::msg)?;
    let mut inputs = transform.input_batch(as_of, rows.len());
    for index in 0..inputs.column_count() {
        inputs.column(|column| {
            for row in &rows {
                column.push(RowView::new(&schema, row)?.get(index).unwrap_or(ValueRef::Null));
            }
            anyhow::Ok(())
        })?;
    }
    Ok(inputs.finish())
}

/// Checks that a file has a column of a suitable type for each input.
fn check_columns(schema: &Schema, signature: &Signature) -> Result<()> {
    for input in &signature.inputs {
        let Some((_, field)) = schema.column_with_name(&input.name) else {
            let names = schema.fields().iter().map(|field| field.name().as_str());
            let hint = nearest(&input.name, names).map_or_else(
                || format!("add a column '{}'", input.name),
                |nearest| format!("{nearest} If so, rename the column to '{}'", input.name),
            );
            bail!(
                "column '{}' is missing, which plugin '{}' reads as {}. hint: {hint}",
                input.name,
                signature.name,
                input.column_type
            );
        };
        if Column::mismatch(field.data_type(), value_type(input.column_type)).is_some() {
            bail!(
                "column '{}' has the type {}, but plugin '{}' reads it as {}. hint: convert the column to {}",
                input.name,
                field.data_type(),
                signature.name,
                input.column_type,
                input.column_type
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{ArrayRef, DictionaryArray, Int32Array, Int64Array, StringArray},
        datatypes::Int32Type,
    };

    use super::*;

    /// Returns rows with a text of this size. All rows share one value of a dictionary.
    fn rows(count: usize, bytes: usize) -> RecordBatch {
        let texts = Arc::new(StringArray::from(vec!["a".repeat(bytes)]));
        let keys = Int32Array::from(vec![0; count]);
        let column: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::try_new(keys, texts).unwrap());
        RecordBatch::try_from_iter([("text", column)]).unwrap()
    }

    fn sizes(batch: &RecordBatch) -> Vec<usize> {
        pieces(batch).unwrap().iter().map(RecordBatch::num_rows).collect()
    }

    #[test]
    fn pieces_stay_within_limits() {
        let mebibyte = (1 << 20) - 64;
        assert_eq!(sizes(&rows(8, mebibyte)), [8]);
        assert_eq!(sizes(&rows(20, mebibyte)), [8, 8, 4]);
        assert_eq!(sizes(&rows(2, 9 << 20)), [1, 1], "a larger row is a piece of its own");
        let short = |count: i64| {
            let column: ArrayRef = Arc::new((0..count).collect::<Int64Array>());
            sizes(&RecordBatch::try_from_iter([("x", column)]).unwrap())
        };
        assert_eq!(short(0), [0]);
        assert_eq!(short(16_384), [16_384]);
        assert_eq!(short(16_385), [16_384, 1]);
    }

    #[test]
    fn too_large_row_is_an_error() {
        let bytes_max = usize::try_from(ROW_BYTES_MAX).unwrap();
        assert_eq!(sizes(&rows(1, bytes_max - 64)), [1]);
        let error = pieces(&rows(1, bytes_max + 1)).unwrap_err().to_string();
        assert!(error.contains("row 0 has 6710") && error.contains("hint: leave it out"), "{error}");
    }
}
