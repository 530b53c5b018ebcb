//! The columns of a source's files, from their footers, without reading rows.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};

use parquet::{basic::LogicalType, file::metadata::ParquetMetaData, schema::types::TypePtr};

use super::{
    SourceError, WantedColumn,
    file_columns::WholeShape,
    parquet_reader::{self, DecodeThread},
    parquet_shape::{fault, partition},
};

/// The columns of one file.
#[derive(Clone, Debug)]
pub struct FileSchema {
    /// The file, for messages.
    pub path: String,
    /// The file's path below the path in the definition. Its directories can be partitions.
    pub(super) relative: String,
    pub(super) schema: SchemaRef,
    /// All columns of the file and its path, with the declared types.
    whole: SchemaRef,
    /// The columns with the logical type UUID. Their type in `schema` is 16 bytes.
    uuids: Vec<String>,
    rows: u64,
}

/// Where a column's values come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnAt {
    /// The file contains the column, with this type.
    File(DataType),
    /// The file's path contains a value, which is the same for all rows.
    Path,
}

/// Returns the names of the columns with the logical type UUID.
fn uuids(metadata: &ParquetMetaData) -> Vec<String> {
    let columns = metadata.file_metadata().schema_descr().root_schema().get_fields();
    let is_uuid = |column: &&TypePtr| column.get_basic_info().logical_type_ref() == Some(&LogicalType::Uuid);
    columns.iter().filter(is_uuid).map(|column| column.name().to_owned()).collect()
}

// === impl FileSchema ===

impl FileSchema {
    /// Returns the columns that a file's footer declares.
    pub(super) fn of(
        path: String,
        relative: String,
        metadata: ParquetMetaData,
        thread: &DecodeThread,
    ) -> Result<Self, SourceError> {
        let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
        let whole = WholeShape::of(&path, &relative, &metadata, thread)?.schema();
        let uuids = uuids(&metadata);
        match parquet_reader::schema(metadata, thread) {
            Ok(schema) => Ok(Self { path, relative, schema, whole, uuids, rows }),
            Err(why) => Err(SourceError::Unreadable { path, why }),
        }
    }

    /// Returns all columns of the file with the types that it declares, followed by the partitions of its path.
    #[must_use]
    pub fn all_columns(&self) -> SchemaRef {
        Arc::clone(&self.whole)
    }

    /// Returns the number of rows that the footer declares.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns where the values of the column with this name come from; `None` if neither the file nor its path has the
    /// column.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<ColumnAt> {
        let field = self.schema.fields().iter().find(|field| field.name() == name);
        let in_path = || partition(&self.relative, name).map(|_| ColumnAt::Path);
        field.map(|field| ColumnAt::File(field.data_type().clone())).or_else(in_path)
    }

    /// Returns the reason why a column cannot be read from this file, if the footer or the path shows that it cannot.
    #[must_use]
    pub fn fault(&self, column: &WantedColumn) -> Option<String> {
        fault(column, self.columns().map(|(name, _)| name), &self.relative)
    }

    /// Returns whether both the file and its path have the column. A sync fails if the values differ.
    #[must_use]
    pub fn is_also_in_path(&self, name: &str) -> bool {
        matches!(self.column(name), Some(ColumnAt::File(_))) && partition(&self.relative, name).is_some()
    }

    /// Returns whether the file declares that the values of a column are UUIDs.
    #[must_use]
    pub fn is_uuid(&self, column: &str) -> bool {
        self.uuids.iter().any(|uuid| uuid == column)
    }

    /// Returns the names and types of the columns that the file contains, in order.
    pub fn columns(&self) -> impl Iterator<Item = (&str, &DataType)> {
        self.schema.fields().iter().map(|field| (field.name().as_str(), field.data_type()))
    }
}
