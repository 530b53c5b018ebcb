//! Fills a frame column by column.
//!
//! The number of rows and the types of the columns are known at the start. They determine the offsets of all heads, so
//! slots are written directly to their final offsets. Tails are appended to the frame: columns are filled in order, so
//! each tail is complete when the next one begins.
//!
//! A column of lists of text or bytes needs a separate buffer for the contents of the items. In the frame, the contents
//! come after the ends of all items, so they are appended when the column is complete. The presence bits of items come
//! before the items, so they are inserted then.

use std::ops::Range;

use larder_model::model::{NULL_TIMESTAMP_SECONDS, ValueRef};

use super::{
    ColumnRef, Frame, Parts, ValueSlice,
    layout::{END, end, has_ends, padded, presence_len, set_present, slot_width, start_at, width},
};
use crate::{ColumnScalar, ColumnType, cast};

/// Fills a frame column by column, in order.
#[derive(Debug)]
pub struct FrameBuilder {
    frame: Frame,
    /// The number of columns filled so far.
    filled: usize,
    /// The contents of the current column's items so far, if it is a column of lists of text or bytes.
    item_bytes: Vec<u8>,
    /// The indexes of the current column's null items so far, if items may be null.
    null_items: Vec<usize>,
}

/// Fills a column row by row, or with many rows at once through [`Extend`], which checks the column's type only once.
///
/// All columns of a frame have the same number of rows. If fewer rows are written, the remaining rows are null. Rows
/// beyond that number are ignored.
#[derive(Debug)]
pub struct ColumnWriter<'b> {
    bytes: &'b mut Vec<u8>,
    item_bytes: &'b mut Vec<u8>,
    null_items: &'b mut Vec<usize>,
    parts: &'b mut Parts,
    rows: usize,
    /// The number of rows written so far.
    row: usize,
    /// The number of list items written so far.
    items: usize,
}

/// The initial capacity for the tail of a column, in bytes per row. The size of a tail is not known before the rows are
/// written.
const TAIL_PER_ROW: usize = 16;

// === impl FrameBuilder ===

impl FrameBuilder {
    /// Creates a builder of a frame with columns of these types. Each column has `rows` rows.
    #[must_use]
    pub fn new(types: impl IntoIterator<Item = ColumnType>, rows: usize) -> Self {
        let (mut heads, mut tails) = (0, 0);
        let parts = |column_type: ColumnType| {
            let (presence, slots) = (heads, heads + presence_len(rows));
            heads = slots + padded(rows * slot_width(column_type));
            if column_type.is_list || has_ends(column_type.scalar) {
                tails += padded(rows * TAIL_PER_ROW);
            }
            Parts {
                column_type,
                presence,
                slots,
                item_presence: 0,
                items: 0,
                data: 0,
                has_nulls: false,
                has_null_items: false,
            }
        };
        let columns = types.into_iter().map(parts).collect();
        let mut bytes = Vec::with_capacity(heads + tails);
        bytes.resize(heads, 0);
        Self { frame: Frame { bytes, rows, columns }, filled: 0, item_bytes: Vec::new(), null_items: Vec::new() }
    }

    /// Returns the number of columns.
    #[must_use]
    pub fn column_count(&self) -> usize {
        self.frame.column_count()
    }

    /// Fills the next column.
    ///
    /// # Panics
    /// If all columns are filled.
    pub fn column<R>(&mut self, fill: impl FnOnce(&mut ColumnWriter<'_>) -> R) -> R {
        let Frame { bytes, rows, columns } = &mut self.frame;
        let (item_bytes, null_items) = (&mut self.item_bytes, &mut self.null_items);
        let parts = &mut columns[self.filled];
        let mut column = ColumnWriter { bytes, item_bytes, null_items, parts, rows: *rows, row: 0, items: 0 };
        column.begin();
        let result = fill(&mut column);
        column.end();
        self.filled += 1;
        result
    }

    /// Returns the frame. Columns that are not filled are null.
    #[must_use]
    pub fn finish(mut self) -> Frame {
        while self.filled < self.column_count() {
            self.column(|_| ());
        }
        self.frame
    }
}

// === impl ColumnWriter ===

impl ColumnWriter<'_> {
    /// Returns the type of the column.
    #[must_use]
    pub fn column_type(&self) -> ColumnType {
        self.parts.column_type
    }

    /// Adds a row. A value whose type differs from the column's becomes a null; callers compare the types beforehand.
    /// In a column of times, Feast's placeholder for a null time ([`NULL_TIMESTAMP_SECONDS`]) becomes a null. A list with
    /// such items becomes a null if items may not be null.
    pub fn push(&mut self, value: ValueRef<'_>) {
        self.extend([value]);
    }

    /// Adds a row with a list of these items. If the column is not a column of lists, adds a null. If items may not be
    /// null, the default value replaces a null item.
    pub fn push_list<'v>(&mut self, items: impl Iterator<Item = ValueRef<'v>>) {
        if !self.parts.column_type.is_list {
            return self.push(ValueRef::Null);
        }
        if self.row == self.rows {
            return;
        }
        if self.parts.column_type.nullable_items {
            let (mut null_items, mut item) = (std::mem::take(self.null_items), self.items);
            let is_time = self.parts.column_type.scalar == ColumnScalar::Timestamp;
            self.put_list(items.inspect(|value| {
                if matches!(value, ValueRef::Null) || (is_time && is_null_time(value)) {
                    null_items.push(item);
                }
                item += 1;
            }));
            *self.null_items = null_items;
        } else {
            self.put_list(items);
        }
        self.end_row(self.items);
    }

    /// Adds the items of a list. The default value of the type is in the slot of a null item.
    fn put_list<'v>(&mut self, items: impl Iterator<Item = ValueRef<'v>>) {
        match self.parts.column_type.scalar {
            ColumnScalar::Bool => self.put_items(items, as_bool),
            ColumnScalar::Int32 => self.put_items(items, as_int32),
            ColumnScalar::Int64 => self.put_items(items, as_int64),
            ColumnScalar::Timestamp => self.put_items(items, as_time),
            ColumnScalar::Float32 => self.put_items(items, as_float32),
            ColumnScalar::Float64 => self.put_items(items, as_float64),
            ColumnScalar::Utf8 | ColumnScalar::Binary => {
                for item in items {
                    self.item_bytes.extend_from_slice(as_bytes(item).unwrap_or_default());
                    self.bytes.extend_from_slice(&end(self.item_bytes.len()).to_le_bytes());
                    self.items += 1;
                }
            }
        }
    }

    /// Adds a row with the default value of the column's type, which is not a null: zero, false, or an empty string or
    /// list.
    pub fn push_default(&mut self) {
        if self.row < self.rows {
            if self.has_ends() {
                self.end_row(self.last_end());
            } else {
                self.row += 1;
            }
        }
    }

    /// Copies rows of another column. If the columns have different types, adds nulls instead. If items may not be null in
    /// this column, lists with null items become nulls.
    pub fn append(&mut self, column: ColumnRef<'_>, rows: Range<usize>) {
        let count = rows.len().min(self.rows - self.row);
        let rows = rows.start..rows.start + count;
        if !column.column_type().has_values_of(self.parts.column_type) {
            return rows.for_each(|_| self.push(ValueRef::Null));
        }
        if column.has_null_items() && !self.parts.column_type.nullable_items {
            return rows.for_each(|row| {
                if column.items(row..row + 1).all(|item| column.is_item_present(item)) {
                    self.append_present(column, row..row + 1);
                } else {
                    self.push(ValueRef::Null);
                }
            });
        }
        self.append_present(column, rows);
    }

    /// Adds rows of a type that casts to this column's type. Adds a null for a value that would change, and passes the
    /// index of its row to `lossy`.
    pub fn extend_cast<'v>(&mut self, values: impl Iterator<Item = ValueRef<'v>>, mut lossy: impl FnMut(usize)) {
        let ColumnType { scalar, is_list, .. } = self.parts.column_type;
        for (row, value) in values.enumerate() {
            match value {
                ValueRef::List(list) if is_list => {
                    // The list is checked first, because items cannot be removed.
                    if list.iter().all(|item| cast(item, scalar).is_some()) {
                        self.push_list(list.iter().map(|item| cast(item, scalar).unwrap_or(ValueRef::Null)));
                    } else {
                        lossy(row);
                        self.push(ValueRef::Null);
                    }
                }
                value => self.push(cast(value, scalar).unwrap_or_else(|| {
                    lossy(row);
                    ValueRef::Null
                })),
            }
        }
    }

    /// Adds rows of a column, whose type casts to this column's type. Adds a null for a value that would change, and
    /// passes the index of its row to `lossy`. If items may not be null in this column, lists with null items become nulls.
    pub fn append_cast(&mut self, column: ColumnRef<'_>, rows: Range<usize>, mut lossy: impl FnMut(usize)) {
        let ColumnType { scalar, is_list, nullable_items } = self.parts.column_type;
        if column.column_type().scalar == scalar {
            return self.append(column, rows);
        }
        for row in rows {
            if !column.is_present(row) {
                self.push(ValueRef::Null);
            } else if is_list {
                let items = column.items(row..row + 1).map(|item| cast(column.item(item), scalar));
                if !nullable_items && items.clone().any(|item| item == Some(ValueRef::Null)) {
                    self.push(ValueRef::Null);
                } else if items.clone().all(|item| item.is_some()) {
                    self.push_list(items.map(|item| item.unwrap_or(ValueRef::Null)));
                } else {
                    lossy(row);
                    self.push(ValueRef::Null);
                }
            } else {
                self.extend_cast([column.values().get(row)].into_iter(), |_| lossy(row));
            }
        }
    }

    /// Copies rows of a column of the same type, which has no null items that this column cannot have.
    fn append_present(&mut self, column: ColumnRef<'_>, rows: Range<usize>) {
        let count = rows.len();
        if column.has_nulls() {
            let nulls = rows.clone().filter(|row| !column.is_present(*row));
            nulls.for_each(|row| self.clear(self.row + row - rows.start));
        }
        let values = column.values();
        if column.column_type().is_list {
            let items = column.items(rows.clone());
            self.put_ends(column.list_ends(rows), items.start, self.items);
            if column.has_null_items() && self.parts.column_type.nullable_items {
                let nulls = items.clone().filter(|item| !column.is_item_present(*item));
                self.null_items.extend(nulls.map(|item| item - items.start + self.items));
            }
            self.items += items.len();
            self.append_items(values, items);
        } else if has_ends(values.scalar()) {
            let start = values.data_start(rows.start);
            self.put_ends(values.ends(rows.clone()), start, self.last_end());
            self.bytes.extend_from_slice(values.data(rows));
        } else {
            let slots = values.slots(rows);
            self.bytes[self.parts.slots + self.row * width(values.scalar())..][..slots.len()].copy_from_slice(slots);
        }
        self.row += count;
    }

    /// Marks all rows as present, and sets the start of the column's tail to the end of the frame.
    fn begin(&mut self) {
        set_present(&mut self.bytes[self.parts.presence..], self.rows);
        (self.parts.items, self.parts.data) = (self.bytes.len(), self.bytes.len());
    }

    /// Fills the remaining rows with nulls, and completes the tail.
    fn end(&mut self) {
        while self.row < self.rows {
            self.push(ValueRef::Null);
        }
        self.pad();
        if self.parts.column_type.nullable_items {
            self.insert_item_presence();
        }
        if self.parts.column_type.is_list {
            self.parts.data = self.bytes.len();
            self.bytes.append(self.item_bytes);
            self.pad();
        }
    }

    /// Inserts the presence bits of list items in front of the items.
    fn insert_item_presence(&mut self) {
        let mut presence = vec![0; presence_len(self.items)];
        set_present(&mut presence, self.items);
        self.parts.has_null_items = !self.null_items.is_empty();
        for item in self.null_items.drain(..) {
            presence[item / 8] &= !(1 << (item % 8));
        }
        self.parts.item_presence = self.parts.items;
        self.parts.items += presence.len();
        self.bytes.splice(self.parts.item_presence..self.parts.item_presence, presence);
    }

    fn pad(&mut self) {
        self.bytes.resize(padded(self.bytes.len()), 0);
    }

    /// Returns whether the slots of rows hold ends.
    fn has_ends(&self) -> bool {
        self.parts.column_type.is_list || has_ends(self.parts.column_type.scalar)
    }

    /// Returns the end of the previous row.
    fn last_end(&self) -> usize {
        start_at(&self.bytes[self.parts.slots..], self.row)
    }

    /// Writes the end `at` to the slot of the current row, and completes the row.
    #[inline]
    fn end_row(&mut self, at: usize) {
        self.bytes[self.parts.slots + self.row * END..][..END].copy_from_slice(&end(at).to_le_bytes());
        self.row += 1;
    }

    #[cold]
    fn clear(&mut self, row: usize) {
        self.bytes[self.parts.presence + row / 8] &= !(1 << (row % 8));
        self.parts.has_nulls = true;
    }

    /// Writes values of a fixed size to the slots of the next rows.
    #[inline]
    fn put<'v, const WIDTH: usize>(
        &mut self,
        values: impl Iterator<Item = ValueRef<'v>>,
        bytes_of: impl Fn(ValueRef<'v>) -> Option<[u8; WIDTH]>,
    ) {
        let (heads, slots) = self.bytes.split_at_mut(self.parts.slots);
        let presence = &mut heads[self.parts.presence..];
        let slots = &mut slots.as_chunks_mut().0[self.row..self.rows];
        // Local variables, because the compiler keeps them in registers.
        let (mut row, mut has_nulls) = (self.row, false);
        for (slot, value) in slots.iter_mut().zip(values) {
            match bytes_of(value) {
                Some(bytes) => *slot = bytes,
                // The slot is zero already.
                None => {
                    presence[row / 8] &= !(1 << (row % 8));
                    has_nulls = true;
                }
            }
            row += 1;
        }
        self.row = row;
        self.parts.has_nulls |= has_nulls;
    }

    /// Adds rows of text or bytes: appends the contents to the tail, and writes the ends to the slots.
    #[inline]
    fn put_bytes<'v>(&mut self, values: impl Iterator<Item = ValueRef<'v>>) {
        for value in values.take(self.rows - self.row) {
            match as_bytes(value) {
                Some(value) => self.bytes.extend_from_slice(value),
                None => self.clear(self.row),
            }
            self.end_row(self.bytes.len() - self.parts.data);
        }
    }

    /// Adds items of a fixed size to the tail.
    #[inline]
    fn put_items<'v, const WIDTH: usize>(
        &mut self,
        mut items: impl Iterator<Item = ValueRef<'v>>,
        bytes_of: impl Fn(ValueRef<'v>) -> Option<[u8; WIDTH]>,
    ) {
        let bytes_of = |item: ValueRef<'v>| bytes_of(item).unwrap_or([0; WIDTH]);
        // Allocates once for the minimum number of items.
        let (start, least) = (self.bytes.len(), items.size_hint().0);
        self.bytes.resize(start + least * WIDTH, 0);
        let slots = self.bytes[start..].as_chunks_mut().0;
        slots.iter_mut().zip(&mut items).for_each(|(slot, item)| *slot = bytes_of(item));
        self.items += least;
        for item in items {
            self.bytes.extend_from_slice(&bytes_of(item));
            self.items += 1;
        }
    }

    /// Writes the ends of the next rows. In the frame that the rows are copied from, the first of them starts at
    /// `start`; in this frame, it starts at `base`.
    fn put_ends(&mut self, ends: impl Iterator<Item = u32>, start: usize, base: usize) {
        let slots = &mut self.bytes[self.parts.slots..].as_chunks_mut().0[self.row..self.rows];
        for (slot, at) in slots.iter_mut().zip(ends) {
            *slot = end(at as usize - start + base).to_le_bytes();
        }
    }

    fn append_items(&mut self, values: ValueSlice<'_>, items: Range<usize>) {
        if !has_ends(values.scalar()) {
            return self.bytes.extend_from_slice(values.slots(items));
        }
        let (start, base) = (values.data_start(items.start), self.item_bytes.len());
        for at in values.ends(items.clone()) {
            self.bytes.extend_from_slice(&end(at as usize - start + base).to_le_bytes());
        }
        self.item_bytes.extend_from_slice(values.data(items));
    }
}

impl<'v> Extend<ValueRef<'v>> for ColumnWriter<'_> {
    fn extend<T: IntoIterator<Item = ValueRef<'v>>>(&mut self, values: T) {
        let values = values.into_iter();
        let ColumnType { scalar, is_list, nullable_items } = self.parts.column_type;
        match scalar {
            _ if is_list => {
                for value in values.take(self.rows - self.row) {
                    match value {
                        // A stored list has no other null items.
                        ValueRef::List(list)
                            if nullable_items
                                || scalar != ColumnScalar::Timestamp
                                || !list.iter().any(|item| is_null_time(&item)) =>
                        {
                            self.push_list(list.iter());
                        }
                        _ => {
                            self.clear(self.row);
                            self.push_default();
                        }
                    }
                }
            }
            ColumnScalar::Bool => self.put(values, as_bool),
            ColumnScalar::Int32 => self.put(values, as_int32),
            ColumnScalar::Int64 => self.put(values, as_int64),
            ColumnScalar::Timestamp => self.put(values, as_time),
            ColumnScalar::Float32 => self.put(values, as_float32),
            ColumnScalar::Float64 => self.put(values, as_float64),
            ColumnScalar::Utf8 | ColumnScalar::Binary => self.put_bytes(values),
        }
    }
}

#[inline]
fn as_bool(value: ValueRef<'_>) -> Option<[u8; 1]> {
    if let ValueRef::Bool(value) = value { Some([u8::from(value)]) } else { None }
}

#[inline]
fn as_int32(value: ValueRef<'_>) -> Option<[u8; 4]> {
    if let ValueRef::Int32(value) = value { Some(value.to_le_bytes()) } else { None }
}

#[inline]
fn as_int64(value: ValueRef<'_>) -> Option<[u8; 8]> {
    if let ValueRef::Int64(value) = value { Some(value.to_le_bytes()) } else { None }
}

/// Converts a time. Feast's placeholder for a null time is a null.
#[inline]
fn as_time(value: ValueRef<'_>) -> Option<[u8; 8]> {
    if is_null_time(&value) { None } else { as_int64(value) }
}

#[inline]
fn is_null_time(value: &ValueRef<'_>) -> bool {
    matches!(value, ValueRef::Int64(NULL_TIMESTAMP_SECONDS))
}

#[inline]
fn as_float32(value: ValueRef<'_>) -> Option<[u8; 4]> {
    if let ValueRef::Float32(value) = value { Some(value.to_le_bytes()) } else { None }
}

#[inline]
fn as_float64(value: ValueRef<'_>) -> Option<[u8; 8]> {
    if let ValueRef::Float64(value) = value { Some(value.to_le_bytes()) } else { None }
}

#[inline]
fn as_bytes(value: ValueRef<'_>) -> Option<&[u8]> {
    if let ValueRef::Bytes(value) = value { Some(value) } else { None }
}

#[cfg(test)]
mod tests;
