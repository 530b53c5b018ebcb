//! The choice of the columns of files: those that a view needs, or all of them.

use std::{collections::HashSet, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray},
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use larder_model::model::Micros;
use parquet::file::metadata::ParquetMetaData;

use super::{
    RowGroupFilter, SourceError, Wanted,
    parquet_reader::{self, DecodeThread},
    parquet_shape::{Absent, Shape, partitions},
};

/// The columns to read.
#[derive(Clone, Debug)]
pub(super) enum Columns {
    /// The columns of a view.
    Of(Wanted),
    /// All columns, with the types that the files declare, and then the partitions of the files' paths as strings.
    All,
}

/// Where the columns of a file come from.
#[derive(Debug)]
pub(super) enum FileShape {
    Of(Shape),
    All(WholeShape),
}

/// All columns of a file.
#[derive(Debug)]
pub(super) struct WholeShape {
    /// The columns: first those of the file, then those of its path.
    schema: SchemaRef,
    /// The index of each column of the file.
    roots: Vec<usize>,
    is_message: Vec<bool>,
    /// The values of the columns of the path.
    partitions: Vec<Option<String>>,
}

// === impl Columns ===

impl Columns {
    /// Finds the columns in a file. `relative` is the file's path below the configured path.
    ///
    /// # Errors
    /// Errors of [`Shape::of`], and [`SourceError::Unreadable`].
    pub(super) fn in_file(
        &self,
        path: &str,
        relative: &str,
        metadata: &ParquetMetaData,
        thread: &DecodeThread,
    ) -> Result<FileShape, SourceError> {
        match self {
            Self::Of(wanted) => Shape::of(wanted, path, relative, metadata).map(FileShape::Of),
            Self::All => WholeShape::of(path, relative, metadata, thread).map(FileShape::All),
        }
    }

    /// See [`Wanted::statistics_of`].
    pub(super) fn statistics_of(&self) -> Option<&str> {
        match self {
            Self::Of(wanted) => wanted.statistics_of(),
            Self::All => None,
        }
    }

    /// Returns the choice of row groups; `None` to read all of them.
    pub(super) fn row_groups(&self) -> Option<&RowGroupFilter> {
        match self {
            Self::Of(wanted) => wanted.row_groups.as_ref(),
            Self::All => None,
        }
    }

    /// See [`Wanted::read_at`].
    pub(super) fn read_at(&self, now: Micros) -> Self {
        match self {
            Self::Of(wanted) => Self::Of(wanted.read_at(now)),
            Self::All => Self::All,
        }
    }

    /// See [`Wanted::is_static`]. If all columns are read, none of them is known to have event times.
    pub(super) fn is_static(&self) -> bool {
        match self {
            Self::Of(wanted) => wanted.is_static(),
            Self::All => true,
        }
    }

    /// Returns whether files without rows are an error.
    pub(super) fn needs_rows(&self) -> bool {
        matches!(self, Self::Of(_))
    }
}

// === impl FileShape ===

impl FileShape {
    /// Returns the indexes of the file's columns to read, in ascending order.
    pub(super) fn roots(&self) -> &[usize] {
        match self {
            Self::Of(shape) => shape.roots(),
            Self::All(whole) => &whole.roots,
        }
    }

    /// Returns, for each of [`FileShape::roots`], whether its values become protobuf messages.
    pub(super) fn is_message(&self) -> &[bool] {
        match self {
            Self::Of(shape) => shape.is_message(),
            Self::All(whole) => &whole.is_message,
        }
    }

    /// Returns the index of the file's column with the event times; `None` if the file does not have them.
    pub(super) fn event_time_root(&self) -> Option<usize> {
        match self {
            Self::Of(shape) => shape.event_time_root(),
            Self::All(_) => None,
        }
    }

    /// Returns the columns that the file does not have.
    pub(super) fn absent(&self) -> &[Absent] {
        match self {
            Self::Of(shape) => shape.absent(),
            Self::All(_) => &[],
        }
    }

    /// Converts a batch of the file's columns to exactly the chosen columns.
    pub(super) fn project(
        &self,
        columns: &Columns,
        path: &str,
        batch: &RecordBatch,
    ) -> Result<RecordBatch, SourceError> {
        match (self, columns) {
            (Self::Of(shape), Columns::Of(wanted)) => shape.project(wanted, path, batch),
            (Self::All(whole), _) => whole.project(path, batch),
            (Self::Of(_), Columns::All) => {
                let why = "its columns were chosen for a view".to_owned();
                Err(SourceError::Unreadable { path: path.to_owned(), why })
            }
        }
    }
}

// === impl WholeShape ===

impl WholeShape {
    /// Finds all columns of a file, and of its path.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`].
    pub(super) fn of(
        path: &str,
        relative: &str,
        metadata: &ParquetMetaData,
        thread: &DecodeThread,
    ) -> Result<Self, SourceError> {
        let declared = parquet_reader::declared_schema(metadata.clone(), thread);
        let declared = declared.map_err(|why| SourceError::Unreadable { path: path.to_owned(), why })?;
        let roots: Vec<usize> = (0..declared.fields().len()).collect();
        let names: HashSet<&str> = declared.fields().iter().map(|field| field.name().as_str()).collect();
        let of_path = partitions(relative).filter(|(name, _)| !names.contains(name.as_str()));
        let (of_path, partitions): (Vec<_>, Vec<_>) =
            of_path.map(|(name, value)| (Arc::new(Field::new(name, DataType::Utf8, true)), value)).unzip();
        let fields: Vec<_> = declared.fields().iter().cloned().chain(of_path).collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, declared.metadata().clone()));
        Ok(Self { schema, is_message: vec![false; roots.len()], roots, partitions })
    }

    /// Returns the columns.
    pub(super) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Converts the columns, which were decoded with other types, to the types that the file declares.
    fn project(&self, path: &str, batch: &RecordBatch) -> Result<RecordBatch, SourceError> {
        let rows = batch.num_rows();
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let of_file = batch.columns().iter().zip(self.schema.fields()).map(|(array, field)| {
            if array.data_type() == field.data_type() {
                return Ok(Arc::clone(array));
            }
            cast_with_options(array, field.data_type(), &options).map_err(|error| SourceError::Column {
                path: path.to_owned(),
                column: field.name().clone(),
                why: format!("cannot be read as {}: {error}", field.data_type()),
            })
        });
        let of_path = self.partitions.iter().map(|value| {
            let array: ArrayRef = Arc::new(StringArray::from(vec![value.as_deref(); rows]));
            Ok(array)
        });
        let arrays = of_file.chain(of_path).collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema(), arrays, &options)
            .map_err(|error| SourceError::Unreadable { path: path.to_owned(), why: error.to_string() })
    }
}
