//! Fills a frame column by column.
//!
//! The number of rows and the types of the columns are known before the first row is read, so the heads of all columns
//! have their positions from the start, and values are written to their final position. Tails grow at the end of the
//! frame: columns are filled in order, so each tail is complete when the next one begins. Only the bytes of a list's
//! items are kept apart until all lists of the column are there, because the ends of the items come before them.

use std::ops::Range;

use larder_model::model::ValueRef;

use super::{
    ColumnRef, Frame, Parts, ValueSlice,
    layout::{END, all_present, end, has_ends, padded, presence_len, slot_width, start_at, width},
};
use crate::{ColumnScalar, ColumnType};

/// Fills a frame column by column, in order.
#[derive(Debug)]
pub struct FrameBuilder {
    frame: Frame,
    /// The number of columns that are filled.
    filled: usize,
    /// The bytes of the items of the current column, if it has lists of text or bytes.
    item_bytes: Vec<u8>,
}

/// Fills a column row by row, or with many rows at once by [`Extend`], which checks the type once.
///
/// Rows that remain are null, and surplus ones are ignored: all columns of a frame have as many rows.
#[derive(Debug)]
pub struct ColumnWriter<'b> {
    bytes: &'b mut Vec<u8>,
    item_bytes: &'b mut Vec<u8>,
    parts: &'b mut Parts,
    rows: usize,
    /// The number of rows that are written.
    row: usize,
    /// The number of items of their lists.
    items: usize,
}

/// The capacity for the tail of a column, in bytes for each row: tails are the parts whose size is not known before
/// the rows are read.
const TAIL_PER_ROW: usize = 16;

// === impl FrameBuilder ===

impl FrameBuilder {
    /// Creates a frame with columns of these types. Each column has `rows` rows.
    #[must_use]
    pub fn new(types: impl IntoIterator<Item = ColumnType>, rows: usize) -> Self {
        let (mut heads, mut tails) = (0, 0);
        let parts = |column_type: ColumnType| {
            let (presence, slots) = (heads, heads + presence_len(rows));
            heads = slots + padded(rows * slot_width(column_type));
            if column_type.is_list || has_ends(column_type.scalar) {
                tails += padded(rows * TAIL_PER_ROW);
            }
            Parts { column_type, presence, slots, items: 0, data: 0, has_nulls: false }
        };
        let columns = types.into_iter().map(parts).collect();
        let mut bytes = Vec::with_capacity(heads + tails);
        bytes.resize(heads, 0);
        Self { frame: Frame { bytes, rows, columns }, filled: 0, item_bytes: Vec::new() }
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
        let (item_bytes, parts) = (&mut self.item_bytes, &mut columns[self.filled]);
        let mut column = ColumnWriter { bytes, item_bytes, parts, rows: *rows, row: 0, items: 0 };
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

    /// Adds a row. A value that is not of the column's type becomes a null: types were compared when the column was
    /// planned.
    pub fn push(&mut self, value: ValueRef<'_>) {
        self.extend([value]);
    }

    /// Adds a row of a list column, item by item; in another column, adds a null.
    pub fn push_list<'v>(&mut self, items: impl Iterator<Item = ValueRef<'v>>) {
        let ColumnType { scalar, is_list } = self.parts.column_type;
        if !is_list {
            return self.push(ValueRef::Null);
        }
        if self.row == self.rows {
            return;
        }
        match scalar {
            ColumnScalar::Bool => self.put_items(items, as_bool),
            ColumnScalar::Int32 => self.put_items(items, as_int32),
            ColumnScalar::Int64 | ColumnScalar::Timestamp => self.put_items(items, as_int64),
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
        self.end_row(self.items);
    }

    /// Adds a row of zero, false or nothing, which is not a null.
    pub fn push_default(&mut self) {
        if self.row < self.rows {
            if self.has_ends() {
                self.end_row(self.last_end());
            } else {
                self.row += 1;
            }
        }
    }

    /// Copies rows of a column of the same type; rows of another type become nulls.
    pub fn append(&mut self, column: ColumnRef<'_>, rows: Range<usize>) {
        let count = rows.len().min(self.rows - self.row);
        let rows = rows.start..rows.start + count;
        if column.column_type() != self.parts.column_type {
            return rows.for_each(|_| self.push(ValueRef::Null));
        }
        if column.has_nulls() {
            let nulls = rows.clone().filter(|row| !column.is_present(*row));
            nulls.for_each(|row| self.clear(self.row + row - rows.start));
        }
        let values = column.values();
        if column.column_type().is_list {
            let items = column.items(rows.clone());
            self.put_ends(column.list_ends(rows), items.start, self.items);
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

    /// Marks all rows as present, and lets the tail begin at the end of the frame.
    fn begin(&mut self) {
        let presence = &mut self.bytes[self.parts.presence..];
        presence.iter_mut().zip(all_present(self.rows)).for_each(|(to, byte)| *to = byte);
        (self.parts.items, self.parts.data) = (self.bytes.len(), self.bytes.len());
    }

    /// Completes the rows and the tail.
    fn end(&mut self) {
        while self.row < self.rows {
            self.push(ValueRef::Null);
        }
        self.pad();
        if self.parts.column_type.is_list {
            self.parts.data = self.bytes.len();
            self.bytes.append(self.item_bytes);
            self.pad();
        }
    }

    fn pad(&mut self) {
        self.bytes.resize(padded(self.bytes.len()), 0);
    }

    /// Returns whether the slots of rows are ends.
    fn has_ends(&self) -> bool {
        self.parts.column_type.is_list || has_ends(self.parts.column_type.scalar)
    }

    /// Returns the end of the previous row.
    fn last_end(&self) -> usize {
        start_at(&self.bytes[self.parts.slots..], self.row)
    }

    /// Completes a row whose slot is an end.
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

    /// Writes numbers to the slots of the next rows.
    #[inline]
    fn put<'v, const WIDTH: usize>(
        &mut self,
        values: impl Iterator<Item = ValueRef<'v>>,
        bytes_of: impl Fn(ValueRef<'v>) -> Option<[u8; WIDTH]>,
    ) {
        let (heads, slots) = self.bytes.split_at_mut(self.parts.slots);
        let presence = &mut heads[self.parts.presence..];
        let slots = &mut slots.as_chunks_mut().0[self.row..self.rows];
        // Local, so that they are in registers.
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

    /// Adds text or bytes to the tail.
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
        // Makes space once for as many items as there are at least.
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

    /// Writes the ends of the next rows, which count from `start` in their own frame and from `base` in this one.
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
        let ColumnType { scalar, is_list } = self.parts.column_type;
        match scalar {
            _ if is_list => {
                for value in values.take(self.rows - self.row) {
                    match value {
                        ValueRef::List(list) => self.push_list(list.iter()),
                        _ => {
                            self.clear(self.row);
                            self.push_default();
                        }
                    }
                }
            }
            ColumnScalar::Bool => self.put(values, as_bool),
            ColumnScalar::Int32 => self.put(values, as_int32),
            ColumnScalar::Int64 | ColumnScalar::Timestamp => self.put(values, as_int64),
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
