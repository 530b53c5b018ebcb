//! The outputs of a call, which are read value by value.

use std::sync::Arc;

use larder_model::model::{ListRef, ScalarType, ValueRef};

use super::{
    CallError, ColumnType,
    frame::{ColumnRef, Frame},
};

/// The outputs of a plugin, validated against its signature.
#[derive(Debug)]
pub struct Outputs {
    frame: Frame,
    /// The index of each column of lists of text or bytes, and its lists in the format of stored rows.
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

/// The lists of a column of lists of text or bytes, in the format of stored rows.
///
/// [`ListRef`] reads only this format. It stores the number of a list's items, their ends and their contents next to
/// each other, but in a frame they are in three separate parts. So the lists are copied.
#[derive(Debug)]
struct RowLists {
    /// The offset in `bytes` at which each row's list ends.
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

// === impl Outputs ===

impl Outputs {
    /// Wraps a validated frame.
    pub(super) fn new(frame: Frame, failed: Vec<FailedRow>) -> Self {
        let is_copied = |of: ColumnType| of.is_list && ScalarType::from(of.scalar).item().width().is_none();
        let lists = frame.columns().enumerate().filter(|(_, column)| is_copied(column.column_type()));
        let lists = lists.map(|(place, column)| (place, RowLists::of(column))).collect();
        Self { frame, lists, failed }
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
    pub fn output(&self, place: usize) -> Output<'_> {
        let lists = self.lists.iter().find(|(of, _)| *of == place).map(|(_, lists)| lists);
        Output { column: self.frame.column(place), lists }
    }

    /// Returns the outputs, in the order of the signature.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Output<'_>> {
        (0..self.len()).map(|place| self.output(place))
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
        let ColumnType { scalar, is_list } = column.column_type();
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
    fn of(column: ColumnRef<'_>) -> Self {
        let values = column.values();
        let mut lists = Self { ends: Vec::with_capacity(column.rows()), bytes: Vec::new() };
        for row in 0..column.rows() {
            let items = column.items(row..row + 1);
            let start = values.data_start(items.start);
            lists.bytes.extend(u32::try_from(items.len()).unwrap_or(u32::MAX).to_le_bytes());
            for end in values.ends(items.clone()) {
                let end = end as usize - start;
                lists.bytes.extend(u32::try_from(end).unwrap_or(u32::MAX).to_le_bytes());
            }
            lists.bytes.extend_from_slice(values.data(items));
            lists.ends.push(lists.bytes.len());
        }
        lists
    }

    fn get(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.bytes[start..self.ends[row]]
    }
}
