//! Reads the files of a feature log.

use anyhow::{Context, Result, bail};
use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute::concat_batches,
};
use larder_columns::Instants;
use larder_feature_log::SERVICE_KEY;
use larder_source::{Batches, Source, SourceRows};

use super::super::super::CliError;

/// Rows of the log of one service.
#[derive(Debug)]
pub(super) struct LoggedRows {
    pub(super) service: String,
    pub(super) rows: RecordBatch,
}

/// The number of rows, and their size in bytes, from which rows of further files are verified separately. Each time, the files
/// of the views are read again.
const ROWS_MAX: usize = 1_000_000;
const BYTES_MAX: usize = 512 << 20;

// === impl LoggedRows ===

impl LoggedRows {
    /// Returns whether the log has a column.
    pub(super) fn has(&self, name: &str) -> bool {
        self.rows.column_by_name(name).is_some()
    }

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

/// Reads a log. Combines the rows of consecutive files of one service whose columns are equal.
pub(super) fn read<'s>(source: &'s dyn Source) -> Result<impl Iterator<Item = Result<LoggedRows>> + 's> {
    let mut batches = source.read(None)?;
    let mut next: Option<(String, RecordBatch)> = None;
    Ok(std::iter::from_fn(move || {
        let mut group: Option<(String, Vec<RecordBatch>)> = None;
        let (mut rows, mut bytes) = (0, 0);
        loop {
            let (service, batch) = match next.take().map_or_else(|| next_batch(&mut *batches), |batch| Ok(Some(batch)))
            {
                Ok(Some(batch)) => batch,
                Ok(None) => break,
                Err(error) => return Some(Err(error)),
            };
            let (own_rows, own_bytes) = (batch.num_rows(), batch.get_array_memory_size());
            match &mut group {
                None => group = Some((service, vec![batch])),
                Some((known, group)) => {
                    let is_same = *known == service && group[0].schema_ref().fields() == batch.schema_ref().fields();
                    if !is_same || rows >= ROWS_MAX || bytes + own_bytes > BYTES_MAX {
                        next = Some((service, batch));
                        break;
                    }
                    group.push(batch);
                }
            }
            rows += own_rows;
            bytes += own_bytes;
        }
        let (service, group) = group?;
        Some(concat_batches(group[0].schema_ref(), &group).map(|rows| LoggedRows { service, rows }).map_err(Into::into))
    }))
}

/// Returns the next rows of the log, with their service.
fn next_batch(batches: &mut dyn Batches) -> Result<Option<(String, RecordBatch)>> {
    let Some(batch) = batches.next_batch()? else { return Ok(None) };
    let SourceRows::Columns(rows) = batch.rows else { return Ok(None) };
    let Some(service) = rows.schema_ref().metadata().get(SERVICE_KEY).cloned() else {
        let why = format!("{}: not a file of Larder's feature log: its metadata has no '{SERVICE_KEY}'", batch.origin);
        bail!(CliError::Failed(why));
    };
    Ok(Some((service, rows)))
}
