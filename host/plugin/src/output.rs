//! The outputs of a call, which are read value by value.

use std::sync::Arc;

use larder_model::{
    codec::null_item,
    model::{ListRef, ScalarType, ValueRef},
};

use super::{
    CallError, ColumnType,
    frame::{ColumnRef, Frame},
};

/// The outputs of a plugin, validated against its signature.
#[derive(Clone, Debug)]
pub struct Outputs {
    frame: Frame,
    /// The index of each column of lists that are not in the format of stored rows, and its lists in this format.
    lists: Vec<(usize, RowLists)>,
    /// The rows that failed, in ascending order. Their outputs are null.
    failed: Vec<FailedRow>,
}

/// A row that a plugin could not compute.
#[derive(Clone, Debug)]
pub struct FailedRow {
    /// The index of the row.
    pub row: usize,
    /// The reason.
    pub error: Arc<CallError>,
}

/// An output of a plugin.
#[derive(Clone, Copy, Debug)]
pub struct Output<'o> {
    column: ColumnRef<'o>,
    lists: Option<&'o RowLists>,
}

/// The lists of a column in the format of stored rows, which is the only one that [`ListRef`] reads. They are copied in
/// two cases:
///
/// * Lists of text or bytes. A stored row has the number of a list's items, their ends and their contents next to each
///   other, but in a frame they are in three separate parts.
/// * Lists with null items. A stored list has no nulls, so [`null_item`] replaces them.
#[derive(Clone, Debug)]
struct RowLists {
    /// The offset in `bytes` at which each row's list ends.
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

// === impl Outputs ===

impl Outputs {
    /// Wraps a validated frame. `item_types` has the type of the list items of each column.
    pub(super) fn new(frame: Frame, item_types: &[ScalarType], failed: Vec<FailedRow>) -> Self {
        let has_ends = |of: ColumnType| ScalarType::from(of.scalar).item().width().is_none();
        let is_copied = |column: ColumnRef<'_>| {
            column.column_type().is_list && (has_ends(column.column_type()) || column.has_null_items())
        };
        let lists = frame.columns().zip(item_types).enumerate().filter(|(_, (column, _))| is_copied(*column));
        let lists = lists.map(|(index, (column, item_type))| (index, RowLists::of(column, *item_type))).collect();
        Self { frame, lists, failed }
    }

    /// Adds rows that were not computed. Their outputs become null.
    pub(super) fn without(mut self, rejected: &[FailedRow]) -> Self {
        if rejected.is_empty() {
            return self;
        }
        self.failed.retain(|failed| rejected.iter().all(|rejected| rejected.row != failed.row));
        self.failed.extend_from_slice(rejected);
        self.failed.sort_by_key(|failed| failed.row);
        self.frame = self.frame.with_nulls(|row| rejected.iter().any(|rejected| rejected.row == row));
        self
    }

    /// Copies the outputs of the rows with these ascending indexes.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        let lists = self.lists.iter().map(|(index, lists)| (*index, lists.select(rows)));
        let failed = rows.iter().enumerate().filter_map(|(row, of)| {
            let found = self.failed.binary_search_by_key(of, |failed| failed.row).ok()?;
            Some(FailedRow { row, error: Arc::clone(&self.failed[found].error) })
        });
        Self { frame: self.frame.select(rows), lists: lists.collect(), failed: failed.collect() }
    }

    /// Returns the approximate memory of the outputs in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        let lists = self.lists.iter().map(|(_, lists)| lists.bytes.len() + lists.ends.len() * size_of::<usize>());
        self.frame.bytes().len() + lists.sum::<usize>() + self.failed.len() * size_of::<FailedRow>()
    }

    /// Returns the columns.
    #[must_use]
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.frame.rows()
    }

    /// Returns the rows that the plugin could not compute, in ascending order. All of their outputs are null.
    #[must_use]
    pub fn failed(&self) -> &[FailedRow] {
        &self.failed
    }

    /// Returns whether the plugin could not compute this row.
    #[inline]
    #[must_use]
    pub fn is_failed(&self, row: usize) -> bool {
        !self.failed.is_empty() && self.failed.binary_search_by_key(&row, |failed| failed.row).is_ok()
    }

    /// Returns the number of outputs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frame.column_count()
    }

    /// Returns whether there are no outputs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the output at this index of the signature.
    ///
    /// # Panics
    /// If there are fewer outputs.
    #[must_use]
    pub fn output(&self, index: usize) -> Output<'_> {
        let lists = self.lists.iter().find(|(of, _)| *of == index).map(|(_, lists)| lists);
        Output { column: self.frame.column(index), lists }
    }

    /// Returns the outputs, in the order of the signature.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Output<'_>> {
        (0..self.len()).map(|index| self.output(index))
    }
}

// === impl Output ===

impl<'o> Output<'o> {
    /// Returns the value of a row; null if the row is null or does not exist.
    #[must_use]
    pub fn get(self, row: usize) -> ValueRef<'o> {
        let column = self.column;
        if row >= column.rows() || !column.is_present(row) {
            return ValueRef::Null;
        }
        let ColumnType { scalar, is_list, .. } = column.column_type();
        if !is_list {
            return column.values().get(row);
        }
        let bytes = match self.lists {
            Some(lists) => lists.get(row),
            None => column.values().slots(column.items(row..row + 1)),
        };
        ListRef::parse(ScalarType::from(scalar).item(), bytes).map_or(ValueRef::Null, ValueRef::List)
    }

    /// Returns the column, to copy it to the inputs of another plugin.
    #[must_use]
    pub fn column(self) -> ColumnRef<'o> {
        self.column
    }
}

// === impl RowLists ===

impl RowLists {
    fn of(column: ColumnRef<'_>, item_type: ScalarType) -> Self {
        let mut lists = Self { ends: Vec::with_capacity(column.rows()), bytes: Vec::new() };
        for row in 0..column.rows() {
            lists.push(column, row, item_type);
            lists.ends.push(lists.bytes.len());
        }
        lists
    }

    /// Copies the lists of some rows.
    fn select(&self, rows: &[usize]) -> Self {
        let mut lists = Self { ends: Vec::with_capacity(rows.len()), bytes: Vec::new() };
        for row in rows {
            lists.bytes.extend_from_slice(self.get(*row));
            lists.ends.push(lists.bytes.len());
        }
        lists
    }

    /// Appends the list of a row.
    fn push(&mut self, column: ColumnRef<'_>, row: usize, item_type: ScalarType) {
        let (values, items) = (column.values(), column.items(row..row + 1));
        let nulls = items.clone().filter(|item| !column.is_item_present(*item)).count();
        let has_ends = item_type.item().width().is_none();
        if has_ends {
            self.bytes.extend(u32::try_from(items.len()).unwrap_or(u32::MAX).to_le_bytes());
        }
        if nulls == 0 && has_ends {
            let start = values.data_start(items.start);
            for end in values.ends(items.clone()) {
                self.bytes.extend(u32::try_from(end as usize - start).unwrap_or(u32::MAX).to_le_bytes());
            }
            return self.bytes.extend_from_slice(values.data(items));
        }
        if nulls == 0 {
            return self.bytes.extend_from_slice(values.slots(items));
        }
        let replacement = null_item(item_type, nulls == items.len());
        let (mut end, mut contents) = (0, Vec::new());
        for item in items {
            let value = if column.is_item_present(item) { values.get(item) } else { replacement.as_item() };
            match value {
                ValueRef::Bytes(bytes) => {
                    end += bytes.len();
                    self.bytes.extend(u32::try_from(end).unwrap_or(u32::MAX).to_le_bytes());
                    contents.extend_from_slice(bytes);
                }
                value => push_number(&mut self.bytes, value),
            }
        }
        self.bytes.append(&mut contents);
    }

    fn get(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.bytes[start..self.ends[row]]
    }
}

/// Appends a value of a fixed size as a stored list has it.
fn push_number(bytes: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Bool(value) => bytes.push(u8::from(value)),
        ValueRef::Int32(value) => bytes.extend(value.to_le_bytes()),
        ValueRef::Int64(value) => bytes.extend(value.to_le_bytes()),
        ValueRef::Float32(value) => bytes.extend(value.to_le_bytes()),
        ValueRef::Float64(value) => bytes.extend(value.to_le_bytes()),
        ValueRef::Null | ValueRef::Bytes(_) | ValueRef::List(_) => {}
    }
}
