//! Reads the files of a feature log.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute::concat_batches,
};
use larder_columns::Instants;
use larder_common::files::open_regular;
use larder_feature_log::SERVICE_KEY;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::super::super::CliError;

/// Rows of the log of one service.
#[derive(Debug)]
pub(super) struct LoggedRows {
    pub(super) service: String,
    pub(super) rows: RecordBatch,
}

/// The number of rows from which rows of further files are verified separately. Each time, the files of the views are read
/// again.
const ROWS: usize = 1_000_000;

// === impl LoggedRows ===

impl LoggedRows {
    /// Returns a column.
    ///
    /// # Errors
    /// If the log does not have the column.
    pub(super) fn column(&self, name: &str) -> Result<ArrayRef> {
        let column = self.rows.column_by_name(name).cloned();
        column.with_context(|| {
            format!("the log of feature service '{}' has no column '{name}', because it was written with different definitions. hint: use \
                 the definitions of that time", self.service)
        })
    }

    /// Returns a column of times.
    ///
    /// # Errors
    /// If the log does not have the column, or if it has no times.
    pub(super) fn times(&self, name: &str) -> Result<Instants> {
        Instants::new(&self.column(name)?).map_err(anyhow::Error::msg)
    }

    /// Returns a text; `None` if it is null, or if the log does not have the column.
    pub(super) fn text(&self, name: &str, row: usize) -> Option<String> {
        let column = self.rows.column_by_name(name)?;
        let texts = column.as_string_opt::<i32>()?;
        texts.is_valid(row).then(|| texts.value(row).to_owned())
    }
}

/// Returns the files of a log, sorted by path: the file itself, or the Parquet files in a directory and in its directories.
/// Leaves out hidden files, which are incomplete.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let describe = || path.display().to_string();
    if !fs::metadata(path).with_context(describe)?.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    add_files(path, &mut files)?;
    files.sort();
    if files.is_empty() {
        let message = format!("{} has no files of a feature log (*.parquet)", path.display());
        bail!(CliError::Failed(message));
    }
    Ok(files)
}

fn add_files(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry.with_context(|| dir.display().to_string())?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let path = entry.path();
        if entry.file_type().with_context(|| path.display().to_string())?.is_dir() {
            add_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            files.push(path);
        }
    }
    Ok(())
}

/// Reads the files. Combines the rows of consecutive files of one service whose columns are equal.
pub(super) fn read(files: &[PathBuf]) -> impl Iterator<Item = Result<LoggedRows>> {
    let mut files = files.iter();
    let mut next: Option<LoggedRows> = None;
    std::iter::from_fn(move || {
        let mut current: Option<LoggedRows> = next.take();
        for path in files.by_ref() {
            let read = match read_file(path).with_context(|| path.display().to_string()) {
                Ok(read) => read,
                Err(error) => return Some(Err(error)),
            };
            let Some(known) = &mut current else {
                current = Some(read);
                continue;
            };
            let is_same = known.service == read.service && known.rows.schema() == read.rows.schema();
            if !is_same || known.rows.num_rows() >= ROWS {
                next = Some(read);
                break;
            }
            match concat_batches(&known.rows.schema(), [&known.rows, &read.rows]) {
                Ok(rows) => known.rows = rows,
                Err(error) => return Some(Err(error.into())),
            }
        }
        current.map(Ok)
    })
}

fn read_file(path: &Path) -> Result<LoggedRows> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(open_regular(path)?)?;
    let metadata = builder.metadata().file_metadata().key_value_metadata();
    let service = metadata.into_iter().flatten().find(|entry| entry.key == SERVICE_KEY);
    let Some(service) = service.and_then(|entry| entry.value.clone()) else {
        bail!(CliError::Failed(format!("not a file of Larder's feature log: its metadata has no '{SERVICE_KEY}'")));
    };
    let schema = std::sync::Arc::clone(builder.schema());
    let batches = builder.build()?.collect::<Result<Vec<_>, _>>()?;
    // The schema of a batch has no metadata of the file.
    let schema = batches.first().map_or(schema, RecordBatch::schema);
    Ok(LoggedRows { service, rows: concat_batches(&schema, &batches)? })
}
