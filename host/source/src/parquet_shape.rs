//! Finds the wanted columns of a Parquet file, which is a local file or an object in S3. A column can be in the file,
//! in the partitions of the file's path, or in both.

use std::{collections::BTreeSet, sync::Arc};

use arrow::array::{
    ArrayRef, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch, RecordBatchOptions,
    Scalar, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::{cast, kernels::cmp::not_distinct};
use arrow::datatypes::{DataType, Field, Schema};
use larder_common::clock::parse_time;
use larder_model::{
    model::{ItemType, ScalarType, ValueType},
    yaml::nearest,
};
use parquet::file::metadata::ParquetMetaData;

use super::{SourceError, Wanted, WantedColumn};

/// Where each wanted column of a file comes from.
#[derive(Debug)]
pub(super) struct Shape {
    /// The indexes of the file's columns to read, in ascending order, each once.
    roots: Vec<usize>,
    /// For each column in `roots`, whether its values become protobuf messages.
    is_message: Vec<bool>,
    columns: Vec<Origin>,
    absent: Vec<Absent>,
}

/// Where a column comes from.
#[derive(Debug)]
enum Origin {
    /// The column of the file that is at this index of [`Shape::roots`].
    File(usize),
    /// As [`Origin::File`], but the file's path also has the column. All rows must have the value in the path.
    FileAndPartition(usize, Option<String>),
    /// The file's path, which has one value for all rows of the file, as in Hive's partitions
    /// (`day=2026-11-25/part-0`). `None` is a null.
    Partition(Option<String>),
    /// The file does not have the column, so it is null in all rows.
    Absent,
    /// The event time of a static table: the time of the read.
    AsOf,
}

/// A column that a file does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Absent {
    /// The column, by its name in files.
    pub(super) column: String,
    /// The most similar column name, to append to the message, or an empty string.
    pub(super) hint: String,
}

/// The partition value that Hive writes for a null.
const NULL_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";

// === impl Shape ===

impl Shape {
    /// Finds the wanted columns in a file. `relative` is the file's path below the configured path.
    ///
    /// Schemas evolve, so a file may lack features and created times that other files have. Such columns are listed in
    /// [`Shape::absent`], and their values are null. Every file must have the keys and, unless the table is static, the
    /// event time.
    ///
    /// # Errors
    /// If a required column is missing, or for the reasons of [`fault`].
    pub(super) fn of(
        wanted: &Wanted,
        path: &str,
        relative: &str,
        metadata: &ParquetMetaData,
    ) -> Result<Self, SourceError> {
        let names: Vec<&str> = metadata
            .file_metadata()
            .schema_descr()
            .root_schema()
            .get_fields()
            .iter()
            .map(|field| field.name())
            .collect();
        let (mut found, mut absent) = (Vec::new(), Vec::new());
        let mut roots = BTreeSet::new();
        for (place, column) in wanted.columns().enumerate() {
            if place == 0 && wanted.is_static() {
                found.push(Err(Origin::AsOf));
                continue;
            }
            if let Some(why) = fault(column, names.iter().copied(), relative) {
                return Err(SourceError::Column { path: path.to_owned(), column: column.column.to_string(), why });
            }
            let root = names.iter().position(|name| *name == &*column.column);
            found.push(match (root, partition(relative, &column.column)) {
                (Some(root), value) => {
                    roots.insert(root);
                    Ok((root, value))
                }
                (None, Some(value)) => Err(Origin::Partition(value)),
                (None, None) => {
                    let help = nearest(&column.column, names.iter().copied());
                    let hint = help.map_or_else(String::new, |help| format!(" ({help})"));
                    let missing = Absent { column: column.column.to_string(), hint };
                    if wanted.is_required(place) {
                        return Err(missing.error(path));
                    }
                    absent.push(missing);
                    Err(Origin::Absent)
                }
            });
        }
        let roots: Vec<usize> = roots.into_iter().collect();
        let mut is_message = vec![false; roots.len()];
        let mut columns = Vec::new();
        for (origin, column) in found.into_iter().zip(wanted.columns()) {
            columns.push(match origin {
                Ok((root, value)) => {
                    let place = roots.binary_search(&root).unwrap_or_default();
                    is_message[place] |= matches!(column.value_type, ValueType::Nested(_));
                    value.map_or(Origin::File(place), |value| Origin::FileAndPartition(place, value))
                }
                Err(origin) => origin,
            });
        }
        Ok(Self { roots, is_message, columns, absent })
    }

    /// Returns the indexes of the file's columns to read, in ascending order.
    pub(super) fn roots(&self) -> &[usize] {
        &self.roots
    }

    /// Returns the index of the file's column with the event times; `None` if the file does not have them.
    pub(super) fn event_time_root(&self) -> Option<usize> {
        match self.columns.first()? {
            Origin::File(place) | Origin::FileAndPartition(place, _) => self.roots.get(*place).copied(),
            Origin::Partition(_) | Origin::Absent | Origin::AsOf => None,
        }
    }

    /// Returns, for each of [`Shape::roots`], whether its values become protobuf messages.
    pub(super) fn is_message(&self) -> &[bool] {
        &self.is_message
    }

    /// Returns the columns that the file does not have.
    pub(super) fn absent(&self) -> &[Absent] {
        &self.absent
    }

    /// Converts a batch of the file's columns to exactly the wanted columns, in their order.
    pub(super) fn project(&self, wanted: &Wanted, path: &str, batch: &RecordBatch) -> Result<RecordBatch, SourceError> {
        let (rows, as_of) = (batch.num_rows(), wanted.as_of);
        let column = |(wanted, from): (&WantedColumn, &Origin)| {
            let error = |why| SourceError::Column { path: path.to_owned(), column: wanted.column.to_string(), why };
            let array = match from {
                Origin::File(place) => Arc::clone(batch.column(*place)),
                Origin::FileAndPartition(place, value) => {
                    let array = batch.column(*place);
                    check_equal(wanted, array, value.as_deref()).map_err(error)?;
                    Arc::clone(array)
                }
                Origin::Partition(value) => constant(wanted, value.as_deref(), rows).map_err(error)?,
                Origin::Absent => nulls(wanted.value_type, rows),
                Origin::AsOf => Arc::new(TimestampMicrosecondArray::from(vec![as_of; rows]).with_timezone("UTC")),
            };
            Ok((Field::new(wanted.name.as_ref(), array.data_type().clone(), true), array))
        };
        let columns = wanted.columns().zip(&self.columns).map(column).collect::<Result<Vec<_>, SourceError>>()?;
        // All columns have `rows` rows and match their fields, so this does not fail.
        let (fields, columns): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
            .map_err(|error| SourceError::Unreadable { path: path.to_owned(), why: error.to_string() })
    }
}

// === impl Absent ===

impl Absent {
    /// Returns the error for a column that is missing in all files, or that is required.
    pub(super) fn error(self, path: &str) -> SourceError {
        SourceError::MissingColumn { path: path.to_owned(), column: self.column, hint: self.hint }
    }

    /// Logs that the file lacks the column, although other files have it.
    pub(super) fn warn(&self, source: &str, path: &str) {
        let column = &self.column;
        tracing::warn!(source, file = path, column, "column is missing in this file; it is null in the file's rows");
    }
}

/// Returns a column of nulls.
fn nulls(value_type: ValueType, rows: usize) -> ArrayRef {
    let item = |item: ScalarType| match item.item() {
        ItemType::Bool => DataType::Boolean,
        ItemType::Int32 => DataType::Int32,
        ItemType::Int64 if item == ScalarType::UnixTimestamp => {
            DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None)
        }
        ItemType::Int64 => DataType::Int64,
        ItemType::Float32 => DataType::Float32,
        ItemType::Float64 => DataType::Float64,
        ItemType::Bytes => DataType::Utf8,
    };
    let of = match value_type {
        ValueType::Scalar(scalar) => item(scalar),
        ValueType::List(scalar) | ValueType::Set(scalar) => {
            DataType::List(Arc::new(Field::new("item", item(scalar), true)))
        }
        ValueType::Nested(_) => DataType::Utf8,
    };
    new_null_array(&of, rows)
}

/// Returns the reason why a wanted column of a file cannot be read, if the footer or the path shows that it cannot. The
/// reason is that the file has more than one column with the wanted name, or that a partition value does not match the
/// column's type. `names` are the names of the file's columns.
pub(super) fn fault<'n>(column: &WantedColumn, names: impl Iterator<Item = &'n str>, relative: &str) -> Option<String> {
    if names.filter(|name| *name == &*column.column).nth(1).is_some() {
        return Some("the file has more than one column with this name".to_owned());
    }
    let value = partition(relative, &column.column)?;
    constant(column, value.as_deref(), 0).err()
}

/// Fails unless all values of a file's column are equal to the value in the file's path.
fn check_equal(wanted: &WantedColumn, array: &ArrayRef, value: Option<&str>) -> Result<(), String> {
    let expected = constant(wanted, value, 1)?;
    let are_equal = cast(array, expected.data_type())
        .and_then(|array| not_distinct(&array, &Scalar::new(expected)))
        .is_ok_and(|equal| equal.true_count() == equal.len());
    if are_equal {
        return Ok(());
    }
    let value = value.unwrap_or(NULL_PARTITION);
    Err(format!(
        "the file has values other than '{value}', which is the column's value in the file's path. hint: remove the column \
         from the file, or rename the directory '{}={value}'",
        wanted.column
    ))
}

/// Returns a column's value in the partitions of a path: `Some(None)` for a null, `None` if no partition has this name.
pub(super) fn partition(relative: &str, column: &str) -> Option<Option<String>> {
    partitions(relative).find(|(name, _)| name == column).map(|(_, value)| value)
}

/// Returns the names and values of the partitions of a path.
pub(super) fn partitions(relative: &str) -> impl Iterator<Item = (String, Option<String>)> {
    let dirs = relative.rsplit_once('/').map_or("", |(dirs, _)| dirs);
    let parts = dirs.split('/').filter_map(|dir| dir.split_once('='));
    parts.map(|(name, value)| (unescaped(name), (value != NULL_PARTITION).then(|| unescaped(value))))
}

/// Decodes URL escapes, which Hive writes for characters that a path cannot contain.
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

/// Returns a column that has one value in all rows.
fn constant(wanted: &WantedColumn, value: Option<&str>, rows: usize) -> Result<ArrayRef, String> {
    macro_rules! all {
        ($array:ident, $parse:expr) => {{
            let value = value.map($parse).transpose()?;
            Arc::new($array::from(vec![value; rows])) as ArrayRef
        }};
    }
    fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
        text.parse().map_err(|_| format!("the path has '{text}', which does not match the column's type"))
    }
    let ValueType::Scalar(scalar) = wanted.value_type else {
        return Err(format!("the column is in the path, which cannot contain a value of type {}", wanted.value_type));
    };
    Ok(match scalar {
        ScalarType::Int64 => all!(Int64Array, number),
        ScalarType::Int32 => all!(Int32Array, number),
        ScalarType::Float64 => all!(Float64Array, number),
        ScalarType::Float32 => all!(Float32Array, number),
        ScalarType::Bool => all!(BooleanArray, number),
        ScalarType::UnixTimestamp => {
            let instant =
                |text: &str| parse_time(text).ok_or_else(|| format!("the path has '{text}', which is not a time"));
            let value = value.map(instant).transpose()?;
            Arc::new(TimestampMicrosecondArray::from(vec![value; rows]).with_timezone("UTC"))
        }
        _ => Arc::new(StringArray::from(vec![value; rows])),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_comes_from_the_path() {
        let of = |path, column| partition(path, column);
        assert_eq!(of("day=2026-11-25/hour=7/part-0.parquet", "hour"), Some(Some("7".into())));
        assert_eq!(of("day=__HIVE_DEFAULT_PARTITION__/x.parquet", "day"), Some(None));
        assert_eq!(of("city=S%C3%A3o%20Paulo%2F1/x.parquet", "city"), Some(Some("São Paulo/1".into())));
        assert_eq!(of("odd=50%/x.parquet", "odd"), Some(Some("50%".into())));
        assert_eq!(of("day=1.parquet", "day"), None, "the file's own name is not a partition");
        assert_eq!(of("day=1/x.parquet", "month"), None);
    }
}
