//! What a Parquet file has of what is wanted, wherever the file is: its columns, its partition, its bounds.
//!
//! A file is input. It may name a million columns, promise a billion bytes, or make the reader panic: each is an error
//! that names it, and nothing worse.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use arrow::{
    array::{
        ArrayRef, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
        TimestampMicrosecondArray,
    },
    datatypes::Schema,
};
use larder_model::{
    model::{ScalarType, ValueType},
    yaml::nearest,
};
use parquet::{
    errors::ParquetError,
    file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData},
};

use super::{SourceError, Wanted, WantedColumn};
use crate::{clock::parse_time, telemetry::panic_words};

/// Bounds on what a file may make the reader do.
#[derive(Clone, Copy, Debug)]
pub struct ParquetLimits {
    /// Rows decoded at a time.
    pub batch_rows: usize,
    /// The most columns of a file, nested ones counted each.
    pub columns_max: usize,
    /// The most bytes, decoded, of the wanted columns in one row group: a column's part of it is in memory at once.
    pub row_group_bytes_max: u64,
    /// The most bytes, as they are stored, of the wanted columns in one row group that has to come from elsewhere: it
    /// comes as a whole.
    pub row_group_fetch_max: u64,
}

impl Default for ParquetLimits {
    fn default() -> Self {
        Self { batch_rows: 16_384, columns_max: 20_000, row_group_bytes_max: 4 << 30, row_group_fetch_max: 1 << 30 }
    }
}

/// Where each wanted column comes from, in files of one schema.
#[derive(Debug)]
pub(super) struct Shape {
    /// The file's columns that are read, in its order, each once.
    roots: Vec<usize>,
    columns: Vec<Origin>,
}

/// Where a column comes from.
#[derive(Debug)]
enum Origin {
    /// The reader's column at this place.
    File(usize),
    /// The file's path, which says the same of all of its rows, as Hive writes partitions: `day=2026-11-25/part-0`.
    Partition(Option<String>),
}

/// What Hive writes for a null.
const NULL_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";

// === impl Shape ===

impl Shape {
    /// Checks that what is wanted is in a file, and not too much of it. `relative` is its path below what was named.
    pub(super) fn of(
        wanted: &Wanted,
        limits: ParquetLimits,
        path: &str,
        relative: &str,
        metadata: &ParquetMetaData,
        schema: &Schema,
    ) -> Result<Self, SourceError> {
        check_limits(wanted, limits, path, metadata)?;
        let mut roots = Vec::new();
        let mut found = Vec::new();
        for column in wanted.columns() {
            let root = schema.fields().iter().position(|field| field.name() == &*column.column);
            let from = match (root, partition(relative, &column.column)) {
                (Some(root), _) => Ok(root),
                (None, Some(value)) => Err(value),
                (None, None) => {
                    let names = schema.fields().iter().map(|field| field.name().as_str());
                    let hint = nearest(&column.column, names).map_or_else(String::new, |help| format!(" ({help})"));
                    let column = column.column.to_string();
                    return Err(SourceError::MissingColumn { path: path.to_owned(), column, hint });
                }
            };
            roots.extend(from.as_ref().ok());
            found.push(from);
        }
        roots.sort_unstable();
        roots.dedup();
        let place = |from: Result<usize, Option<String>>| match from {
            Ok(root) => Origin::File(roots.binary_search(&root).unwrap_or_default()),
            Err(value) => Origin::Partition(value),
        };
        let columns = found.into_iter().map(place).collect();
        Ok(Self { roots, columns })
    }

    /// The file's columns that are to be read.
    pub(super) fn roots(&self) -> &[usize] {
        &self.roots
    }

    /// A batch of those as exactly the wanted columns, in their order.
    pub(super) fn project(&self, wanted: &Wanted, path: &str, batch: &RecordBatch) -> Result<RecordBatch, SourceError> {
        let column = |(wanted, from): (&WantedColumn, &Origin)| {
            let array = match from {
                Origin::File(place) => Arc::clone(batch.column(*place)),
                Origin::Partition(value) => constant(wanted, value.as_deref(), batch.num_rows()).map_err(|why| {
                    SourceError::Column { path: path.to_owned(), column: wanted.column.to_string(), why }
                })?,
            };
            Ok((wanted.name.to_string(), array, true))
        };
        let columns = wanted.columns().zip(&self.columns).map(column).collect::<Result<Vec<_>, SourceError>>()?;
        // Two wanted columns can be one in the file, under two names; there is no other way to fail here.
        RecordBatch::try_from_iter_with_nullable(columns)
            .map_err(|error| SourceError::Unreadable { path: path.to_owned(), why: error.to_string() })
    }
}

fn check_limits(
    wanted: &Wanted,
    limits: ParquetLimits,
    path: &str,
    metadata: &ParquetMetaData,
) -> Result<(), SourceError> {
    let columns = metadata.file_metadata().schema_descr().num_columns();
    limit(path, "the number of columns", columns as u64, limits.columns_max as u64)?;
    let bytes = row_group_bytes_max(wanted, metadata, ColumnChunkMetaData::uncompressed_size);
    limit(path, "a row group's size in bytes", bytes, limits.row_group_bytes_max)
}

/// Checks what comes over the network at once, and is in memory then.
pub(super) fn check_fetch(
    wanted: &Wanted,
    limits: ParquetLimits,
    path: &str,
    metadata: &ParquetMetaData,
) -> Result<(), SourceError> {
    let bytes = row_group_bytes_max(wanted, metadata, ColumnChunkMetaData::compressed_size);
    limit(path, "a row group's compressed size in bytes", bytes, limits.row_group_fetch_max)
}

fn limit(path: &str, what: &'static str, found: u64, limit: u64) -> Result<(), SourceError> {
    if found <= limit {
        return Ok(());
    }
    Err(SourceError::Limit { path: path.to_owned(), what, found, limit })
}

/// The size of the wanted columns in the row group in which they are largest. A file may say any number.
fn row_group_bytes_max(wanted: &Wanted, metadata: &ParquetMetaData, size: fn(&ColumnChunkMetaData) -> i64) -> u64 {
    let wanted: Vec<&str> = wanted.columns().map(|wanted| &*wanted.column).collect();
    let is_wanted = |column: &&ColumnChunkMetaData| {
        column.column_path().parts().first().is_some_and(|root| wanted.contains(&root.as_str()))
    };
    let group = |group: &RowGroupMetaData| {
        let sizes = group.columns().iter().filter(is_wanted).map(|column| u64::try_from(size(column)).unwrap_or(0));
        sizes.fold(0, u64::saturating_add)
    };
    metadata.row_groups().iter().map(group).max().unwrap_or(0)
}

/// What a path says of a column: `Some(None)` is a null.
fn partition(relative: &str, column: &str) -> Option<Option<String>> {
    let (dirs, _file) = relative.rsplit_once('/')?;
    let value = dirs.split('/').filter_map(|dir| dir.split_once('=')).find(|(name, _)| unescaped(name) == column)?.1;
    Some((value != NULL_PARTITION).then(|| unescaped(value)))
}

/// Without the escapes of URLs, which Hive writes for what a path cannot have.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let escaped = (*first == b'%').then(|| behind.get(..2)).flatten();
        let escaped = escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A column that has one value in all rows.
fn constant(wanted: &WantedColumn, value: Option<&str>, rows: usize) -> Result<ArrayRef, String> {
    macro_rules! all {
        ($array:ident, $parse:expr) => {{
            let value = value.map($parse).transpose()?;
            Arc::new($array::from(vec![value; rows])) as ArrayRef
        }};
    }
    fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
        text.parse().map_err(|_| format!("the path says '{text}', which is none"))
    }
    let ValueType::Scalar(scalar) = wanted.value_type else {
        return Err(format!("it stands in the path, and {} cannot be written there", wanted.value_type));
    };
    Ok(match scalar {
        ScalarType::Int64 => all!(Int64Array, number),
        ScalarType::Int32 => all!(Int32Array, number),
        ScalarType::Float64 => all!(Float64Array, number),
        ScalarType::Float32 => all!(Float32Array, number),
        ScalarType::Bool => all!(BooleanArray, number),
        ScalarType::UnixTimestamp => {
            let instant =
                |text: &str| parse_time(text).ok_or_else(|| format!("the path says '{text}', which is no time"));
            let value = value.map(instant).transpose()?;
            Arc::new(TimestampMicrosecondArray::from(vec![value; rows]).with_timezone("UTC"))
        }
        _ => Arc::new(StringArray::from(vec![value; rows])),
    })
}

/// Runs the Parquet reader. Files are input: one that makes the reader panic is an unreadable file and nothing worse.
pub(super) fn guarded<T, E: Into<ReadFailure>>(read: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.into().0),
        Err(panic) => Err(format!("the reader gave up: {}", panic_words(&*panic))),
    }
}

/// What the reader says of a file, without its own error names in front.
pub(super) struct ReadFailure(String);

impl From<ParquetError> for ReadFailure {
    fn from(error: ParquetError) -> Self {
        Self(match error {
            ParquetError::General(why) | ParquetError::EOF(why) | ParquetError::ArrowError(why) => why,
            other => other.to_string(),
        })
    }
}

impl From<arrow::error::ArrowError> for ReadFailure {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self(match error {
            arrow::error::ArrowError::ParquetError(why) => why,
            other => other.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_what_its_partition_is() {
        let of = |path, column| partition(path, column);
        assert_eq!(of("day=2026-11-25/hour=7/part-0.parquet", "hour"), Some(Some("7".into())));
        assert_eq!(of("day=__HIVE_DEFAULT_PARTITION__/x.parquet", "day"), Some(None));
        assert_eq!(of("city=S%C3%A3o%20Paulo%2F1/x.parquet", "city"), Some(Some("São Paulo/1".into())));
        assert_eq!(of("odd=50%/x.parquet", "odd"), Some(Some("50%".into())));
        assert_eq!(of("day=1.parquet", "day"), None, "the file's own name is no partition");
        assert_eq!(of("day=1/x.parquet", "month"), None);
    }
}
