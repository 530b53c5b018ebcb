//! Reads the rows of a Parquet file, batch by batch, within a memory budget.
//!
//! The number of rows that are decoded at a time is estimated from the budget. If a page does not fit into the budget,
//! the row group is read again from the first row that was not returned, with half as many rows at a time. A single row
//! that does not fit is an error.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Schema, SchemaRef},
};
use larder_columns::row_sizes;
use parquet::{
    arrow::{
        FieldLevels, ProjectionMask,
        arrow_reader::{ParquetRecordBatchReader, RowSelection, RowSelector},
        parquet_to_arrow_field_levels, parquet_to_arrow_schema,
    },
    basic::Type,
    errors::ParquetError,
    file::metadata::ParquetMetaData,
    schema::types::ColumnDescriptor,
};

use super::{
    DecodeThread, Input, ParquetLimits,
    cut::{decoded_fields, piece},
    pages::{Budget, CheckedPages, Cost, Excess},
};
use crate::{SourceError, row_group::FileFilter};

/// How the wanted columns of a file are read.
pub(crate) struct Plan {
    metadata: Arc<ParquetMetaData>,
    levels: FieldLevels,
    /// For each leaf of the schema, its index in `costs`; `None` if the leaf is not read.
    columns: Arc<Vec<Option<usize>>>,
    /// For each leaf that is read, its path, its cost, and whether it is repeated (in a list or map).
    costs: Vec<(String, Cost, bool)>,
    /// The number of root columns. Each root column adds to the memory limit, regardless of its number of leaves.
    roots: usize,
}

/// Reads the rows of a file, starting at the first unread row.
pub(crate) struct FileRows {
    path: Arc<str>,
    plan: Arc<Plan>,
    filter: FileFilter,
    limits: ParquetLimits,
    /// The index of the next row group.
    next: usize,
    /// The number of rows that are still to be skipped.
    skip: u64,
    group: Option<Group>,
    batch: Option<Batch>,
    rows_read: u64,
}

/// A row group that is being read.
struct Group {
    number: usize,
    input: Arc<Input>,
    rows: u64,
    /// The number of rows that were decoded or skipped.
    done: u64,
    batch_rows: u64,
    open: Option<(ParquetRecordBatchReader, Arc<Budget>)>,
}

/// Provides the bytes of a row group. The last argument is the row group that is read next, if there is one.
type InputOf<'i> = dyn FnMut(&Plan, usize, Option<usize>) -> Result<Input, SourceError> + 'i;

/// A decoded batch, which is returned in pieces.
struct Batch {
    rows: RecordBatch,
    sizes: Vec<u64>,
    from: usize,
}

/// The bytes of a nested value's protobuf message, in addition to the value.
const MESSAGE_BYTES: u64 = 256;
/// The bytes for the levels of a repeated value, and for the spare capacity of a growing list.
const LEVEL_BYTES: u64 = 24;

/// Returns the columns of a file, with the types that they are decoded to.
pub(super) fn decoded_schema(metadata: &ParquetMetaData) -> Result<SchemaRef, ParquetError> {
    Ok(Arc::new(Schema::new(decoded_fields(declared_schema(metadata)?.fields()))))
}

/// Returns the columns of a file, with the types that it declares.
pub(super) fn declared_schema(metadata: &ParquetMetaData) -> Result<SchemaRef, ParquetError> {
    let file = metadata.file_metadata();
    Ok(Arc::new(parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata())?))
}

// === impl Plan ===

impl Plan {
    /// Plans how to read the root columns with these indexes, which are in ascending order. `is_message` has a flag for
    /// each root column, in the same order: whether its values become protobuf messages.
    ///
    /// # Errors
    /// A message with the reason why the file cannot be read.
    pub(crate) fn new(
        metadata: Arc<ParquetMetaData>,
        roots: &[usize],
        is_message: &[bool],
        thread: &DecodeThread,
    ) -> Result<Self, String> {
        let (roots, is_message) = (roots.to_vec(), is_message.to_vec());
        thread.guarded(move || Self::make(metadata, &roots, &is_message))
    }

    fn make(metadata: Arc<ParquetMetaData>, roots: &[usize], is_message: &[bool]) -> Result<Self, ParquetError> {
        let file = metadata.file_metadata();
        let schema = file.schema_descr();
        let mask = ProjectionMask::roots(schema, roots.iter().copied());
        // The file's metadata may contain the Arrow schema from which the file was written.
        let arrow = parquet_to_arrow_schema(schema, file.key_value_metadata())?;
        let levels = parquet_to_arrow_field_levels(schema, mask.clone(), Some(&decoded_fields(arrow.fields())))?;
        let (mut columns, mut costs) = (Vec::with_capacity(schema.num_columns()), Vec::new());
        let mut types = Vec::new();
        roots.iter().for_each(|root| leaf_types(arrow.field(*root).data_type(), &mut types));
        for (leaf, descr) in schema.columns().iter().enumerate() {
            let root = roots.binary_search(&schema.get_column_root_idx(leaf));
            let Some(index) = root.ok().filter(|_| mask.leaf_included(leaf)) else {
                columns.push(None);
                continue;
            };
            columns.push(Some(costs.len()));
            let cost = cost(descr, types.get(costs.len()), is_message.get(index).copied().unwrap_or(false));
            costs.push((descr.path().string(), cost, descr.max_rep_level() > 0));
        }
        if types.len() != costs.len() {
            // The leaves cannot be matched to their types, so assume that all values are copied.
            costs.iter_mut().for_each(|(_, cost, _)| cost.copies = true);
        }
        Ok(Self { columns: Arc::new(columns), costs, roots: roots.len(), levels, metadata })
    }

    /// Returns the byte ranges of the columns to read in a row group.
    pub(crate) fn ranges(&self, group: usize) -> Vec<Range<u64>> {
        let chunks = self.metadata.row_group(group).columns().iter().zip(self.columns.iter());
        let chunks = chunks.filter(|(_, column)| column.is_some());
        let range = |start: i64, length: i64| {
            let at = |number: i64| u64::try_from(number).unwrap_or(u64::MAX);
            at(start)..at(start).saturating_add(at(length))
        };
        chunks
            .map(|(chunk, _)| {
                let start = chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset());
                range(start, chunk.compressed_size())
            })
            .collect()
    }

    /// Returns the number of row groups.
    pub(crate) fn groups(&self) -> usize {
        self.metadata.num_row_groups()
    }

    /// Returns the decoded size of a row in bytes, without lists and the contents of strings; at least 1.
    fn row_bytes(&self) -> u64 {
        self.costs.iter().filter(|(.., is_repeated)| !is_repeated).map(|(_, cost, _)| cost.value).sum::<u64>().max(1)
    }

    fn open(
        self: &Arc<Self>,
        group: &Group,
        limit: u64,
        thread: &DecodeThread,
    ) -> Result<(ParquetRecordBatchReader, Arc<Budget>), String> {
        let budget = Arc::new(Budget::new(limit, self.costs.iter().cloned(), group.done));
        let pages = CheckedPages {
            input: Arc::clone(&group.input),
            metadata: Arc::clone(&self.metadata),
            group: group.number,
            budget: Arc::clone(&budget),
            columns: Arc::clone(&self.columns),
        };
        let rows = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        let (done, left) = (rows(group.done), rows(group.rows - group.done));
        let selection =
            (done > 0).then(|| RowSelection::from(vec![RowSelector::skip(done), RowSelector::select(left)]));
        let (plan, batch_rows) = (Arc::clone(self), rows(group.batch_rows));
        let reader = thread.guarded(move || {
            ParquetRecordBatchReader::try_new_with_row_groups(&plan.levels, &pages, batch_rows, selection)
        })?;
        Ok((reader, budget))
    }
}

/// Appends the types of a column's leaves, in the order of the schema.
fn leaf_types(of: &DataType, leaves: &mut Vec<DataType>) {
    match of {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => leaf_types(item.data_type(), leaves),
        DataType::Struct(fields) => fields.iter().for_each(|field| leaf_types(field.data_type(), leaves)),
        other => leaves.push(other.clone()),
    }
}

/// Returns the cost of decoding a value of a column.
fn cost(descr: &ColumnDescriptor, arrow: Option<&DataType>, is_message: bool) -> Cost {
    let value = match descr.physical_type() {
        Type::BOOLEAN => 2,
        Type::INT32 | Type::FLOAT => 8,
        Type::INT64 | Type::DOUBLE | Type::INT96 => 16,
        Type::BYTE_ARRAY => 32,
        // A null takes the same memory as a value.
        Type::FIXED_LEN_BYTE_ARRAY => {
            u64::try_from(descr.type_length()).unwrap_or(0).saturating_mul(2).saturating_add(32)
        }
    };
    let levels = if descr.max_rep_level() > 0 { value + LEVEL_BYTES } else { 2 };
    let message = if is_message { MESSAGE_BYTES } else { 0 };
    let is_text = |of: &DataType| {
        matches!(
            of,
            DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Utf8View
                | DataType::Binary
                | DataType::LargeBinary
                | DataType::BinaryView
        )
    };
    let is_view = match arrow {
        Some(DataType::Dictionary(_, values)) => is_text(values),
        Some(other) => is_text(other),
        None => false,
    };
    let copies = descr.physical_type() == Type::BYTE_ARRAY && !is_view;
    Cost { value: value.saturating_add(levels).saturating_add(message), copies }
}

// === impl FileRows ===

impl FileRows {
    /// Creates a reader of the file's rows. It skips the first `skip` rows.
    pub(crate) fn new(path: Arc<str>, plan: Plan, filter: FileFilter, limits: ParquetLimits, skip: u64) -> Self {
        let plan = Arc::new(plan);
        Self { path, plan, filter, limits, next: 0, skip, group: None, batch: None, rows_read: skip }
    }

    /// Returns the number of rows that were returned or skipped.
    pub(crate) fn rows_read(&self) -> u64 {
        self.rows_read
    }

    /// Returns the next rows; `None` at the end. `input_of` provides the bytes of a row group.
    ///
    /// # Errors
    /// Errors of `input_of`, [`SourceError::Unreadable`] and [`SourceError::Limit`]. Reading cannot continue after an
    /// error.
    pub(crate) fn next(
        &mut self,
        thread: &DecodeThread,
        input_of: &mut InputOf<'_>,
    ) -> Result<Option<RecordBatch>, SourceError> {
        loop {
            if let Some(batch) = &mut self.batch {
                let piece = batch.piece(&self.path, &self.limits, self.plan.roots, self.rows_read)?;
                if let Some(piece) = piece {
                    self.rows_read += piece.num_rows() as u64;
                    return Ok(Some(piece));
                }
                self.batch = None;
            }
            if let Some(group) = &mut self.group {
                self.batch = group.next(&self.path, &self.plan, &self.limits, thread)?.map(Batch::new);
                if self.batch.is_none() {
                    self.group = None;
                }
                continue;
            }
            if self.next == self.plan.groups() {
                return Ok(None);
            }
            let number = self.next;
            self.next += 1;
            let rows = self.plan.metadata.row_group(number).num_rows();
            let rows = u64::try_from(rows)
                .map_err(|_| unreadable(&self.path, format!("row group {number} has {rows} rows")))?;
            let done = self.skip.min(rows);
            self.skip -= done;
            if done == rows {
                continue;
            }
            // A partly read group continues, even if its first rows are not known here.
            let first_row = self.rows_read - done;
            if !self.filter.is_chosen(&self.plan.metadata, number, first_row) {
                self.rows_read = self.rows_read.saturating_add(rows - done);
                continue;
            }
            let following = self.following(number + 1, first_row.saturating_add(rows));
            let input = Arc::new(input_of(&self.plan, number, following)?);
            let rows_max = self.limits.memory_of(self.plan.roots) / 8 / self.plan.row_bytes();
            // The reader allocates this number of rows for each column, even if the row group has fewer.
            let batch_rows = rows_max.clamp(1, self.limits.batch_rows as u64).min(rows - done);
            self.group = Some(Group { number, input, rows, done, batch_rows, open: None });
        }
    }

    /// Returns the first row group to read, from the group `number` on, whose first row has the index `first_row`.
    fn following(&self, number: usize, mut first_row: u64) -> Option<usize> {
        (number..self.plan.groups()).find(|group| {
            let is_chosen = self.filter.is_chosen(&self.plan.metadata, *group, first_row);
            let rows = u64::try_from(self.plan.metadata.row_group(*group).num_rows()).unwrap_or(0);
            first_row = first_row.saturating_add(rows);
            is_chosen
        })
    }
}

fn unreadable(path: &str, why: String) -> SourceError {
    SourceError::Unreadable { path: path.to_owned(), why }
}

// === impl Group ===

impl Group {
    /// Returns the next rows of the group; `None` at its end.
    fn next(
        &mut self,
        path: &str,
        plan: &Arc<Plan>,
        limits: &ParquetLimits,
        thread: &DecodeThread,
    ) -> Result<Option<RecordBatch>, SourceError> {
        let limit = limits.memory_of(plan.roots);
        while self.done < self.rows {
            let (mut reader, budget) = match self.open.take() {
                Some(open) => open,
                None => plan.open(self, limit, thread).map_err(|why| unreadable(path, why))?,
            };
            if let Err(excess) = budget.begin(self.batch_rows.min(self.rows - self.done)) {
                self.read_fewer(path, limits, limit, &excess)?;
                continue;
            }
            let read = thread.guarded(move || {
                let batch = reader.next().transpose()?;
                Ok::<_, arrow::error::ArrowError>((reader, batch))
            });
            match (read, budget.excess()) {
                (Err(_), Some(excess)) => self.read_fewer(path, limits, limit, &excess)?,
                (Err(why), None) => {
                    return Err(self.input.take_failure().unwrap_or_else(|| unreadable(path, why)));
                }
                (Ok((_, None)), _) => {
                    let why =
                        format!("row group {} has {} rows, but {} in the footer", self.number, self.done, self.rows);
                    return Err(unreadable(path, why));
                }
                (Ok((reader, Some(batch))), _) => {
                    self.done += batch.num_rows() as u64;
                    self.open = Some((reader, budget));
                    return Ok(Some(batch));
                }
            }
        }
        Ok(None)
    }

    /// Halves the number of rows per batch after a batch did not fit into the budget. Fails if a batch has only one
    /// row.
    fn read_fewer(
        &mut self,
        path: &str,
        limits: &ParquetLimits,
        limit: u64,
        excess: &Excess,
    ) -> Result<(), SourceError> {
        if self.batch_rows == 1 {
            let what = format!("the memory to decode row group {}, column '{}', in bytes", self.number, excess.column);
            return Err(limits.memory_error(path, what, excess.bytes, limit));
        }
        self.batch_rows = (self.batch_rows / 2).max(1);
        Ok(())
    }
}

// === impl Batch ===

impl Batch {
    fn new(rows: RecordBatch) -> Self {
        let sizes = row_sizes(&rows);
        Self { rows, sizes, from: 0 }
    }

    /// Returns the next rows, up to the maximum size of a piece; `None` at the end of the batch. `first_row` is the
    /// index in the file of the first row that is returned, for messages.
    fn piece(
        &mut self,
        path: &str,
        limits: &ParquetLimits,
        columns: usize,
        first_row: u64,
    ) -> Result<Option<RecordBatch>, SourceError> {
        let left = &self.sizes[self.from..];
        let Some(first) = left.first() else { return Ok(None) };
        let limit = limits.memory_of(columns);
        if *first > limit {
            return Err(limits.memory_error(path, format!("the size of row {first_row} in bytes"), *first, limit));
        }
        let mut sum: u64 = 0;
        let fits = |size: &&u64| {
            sum = sum.saturating_add(**size);
            sum <= limits.piece_bytes
        };
        let rows = left.iter().take_while(fits).count().max(1);
        let piece =
            piece(&self.rows, self.from..self.from + rows).map_err(|error| unreadable(path, error.to_string()))?;
        self.from += rows;
        Ok(Some(piece))
    }
}
