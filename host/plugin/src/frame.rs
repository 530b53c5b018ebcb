//! The columns of a batch, in one block of bytes.
//!
//! Version 0.3 of the plugin contract defines the layout, which `wit/0.3.0/transform.wit` specifies. The layout of
//! version 0.2 is the same without null items. The heads of all columns come first, then the tails of all columns that
//! have one. A head has one presence bit and one slot per row. A slot holds a number or, in a column of text, bytes or
//! lists, an end: the position in the tail after the row's last byte or list item. A tail holds texts, bytes, or the
//! items of lists. If items may be null, their presence bits come first.
//!
//! Outside `world/v1.rs`, a frame is the host's only representation of columns. A [`FrameBuilder`] fills the frame that
//! a plugin gets. The frame that a plugin returns is validated by `check.rs`, and then read without decoding it.
//! [`ColumnWriter::append`] copies all or some rows of a [`ColumnRef`] to another frame.

mod builder;
mod check;
mod layout;

use std::{fmt, ops::Range};

use larder_model::model::ValueRef;

pub use self::builder::{ColumnWriter, FrameBuilder};
pub use self::check::ColumnFault;
pub(super) use self::check::{FrameFault, check_bools, check_ends, check_presence, check_text, read};
use self::layout::{END, chunk, ends, has_ends, is_set, padded, presence_len, slot_width, start_at, width};
use super::{ColumnScalar, ColumnType};

/// The columns of a batch.
#[derive(Clone)]
pub struct Frame {
    bytes: Vec<u8>,
    rows: usize,
    columns: Vec<Parts>,
}

/// A column of a [`Frame`].
#[derive(Clone, Copy, Debug)]
pub struct ColumnRef<'f> {
    frame: &'f Frame,
    parts: &'f Parts,
}

/// A column's type, and the offsets of its parts in the bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts {
    column_type: ColumnType,
    /// The offset of the presence bits. The slots follow them.
    presence: usize,
    slots: usize,
    /// The offset of the presence bits of list items. Used only if items may be null.
    item_presence: usize,
    /// The offset of the slots of list items. Used only for a column of lists.
    items: usize,
    /// The offset of the contents of text or bytes, which belong to rows or, in a column of lists, to items.
    data: usize,
    has_nulls: bool,
    has_null_items: bool,
}

/// Values of one type, one after another: the rows of a column, or the items of all of its lists.
#[derive(Clone, Copy, Debug)]
pub(super) struct ValueSlice<'f> {
    scalar: ColumnScalar,
    count: usize,
    bytes: &'f [u8],
    /// The offset of the first slot in `bytes`.
    slots: usize,
    /// The offset in `bytes` of the contents of text or bytes.
    data: usize,
}

// === impl Frame ===

impl Frame {
    /// Returns the number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the number of columns.
    #[must_use]
    pub fn column_count(&self) -> usize {
        self.columns.len()
    }

    /// Returns the column at this index.
    ///
    /// # Panics
    /// If there are fewer columns.
    #[must_use]
    pub fn column(&self, index: usize) -> ColumnRef<'_> {
        ColumnRef { frame: self, parts: &self.columns[index] }
    }

    /// Returns the columns, in order.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = ColumnRef<'_>> {
        self.columns.iter().map(|parts| ColumnRef { frame: self, parts })
    }

    /// Copies consecutive rows to a new frame.
    #[must_use]
    pub fn slice(&self, rows: Range<usize>) -> Self {
        let mut slice = FrameBuilder::new(self.columns().map(|column| column.column_type()), rows.len());
        for column in self.columns() {
            slice.column(|to| to.append(column, rows.clone()));
        }
        slice.finish()
    }

    /// Copies the rows with these indexes to a new frame, in the given order. Copies consecutive rows together.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        let mut selected = FrameBuilder::new(self.columns().map(|column| column.column_type()), rows.len());
        for column in self.columns() {
            selected.column(|to| {
                for run in rows.chunk_by(|row, next| row + 1 == *next) {
                    to.append(column, run[0]..run[0] + run.len());
                }
            });
        }
        selected.finish()
    }

    /// Copies the frame, with nulls in all columns of some rows.
    pub(super) fn with_nulls(&self, is_null: impl Fn(usize) -> bool) -> Self {
        let mut copy = FrameBuilder::new(self.columns().map(ColumnRef::column_type), self.rows);
        for column in self.columns() {
            copy.column(|to| {
                for row in 0..self.rows {
                    if is_null(row) { to.push(ValueRef::Null) } else { to.append(column, row..row + 1) }
                }
            });
        }
        copy.finish()
    }

    /// Concatenates the rows of frames. `types` are the column types of each of the frames.
    pub(super) fn concat(types: impl IntoIterator<Item = ColumnType>, frames: &[Self]) -> Self {
        let mut whole = FrameBuilder::new(types, frames.iter().map(Self::rows).sum());
        for index in 0..whole.column_count() {
            whole.column(|to| frames.iter().for_each(|frame| to.append(frame.column(index), 0..frame.rows)));
        }
        whole.finish()
    }

    /// Returns the bytes that a plugin gets.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the number of bytes that a plugin gets for some of the rows, without copying them.
    #[must_use]
    pub fn bytes_of(&self, rows: Range<usize>) -> usize {
        self.columns().map(|column| column.bytes_of(rows.clone())).sum()
    }
}

/// Formats the shape, and not the values, which may be many.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").field("rows", &self.rows).field("columns", &self.columns).finish_non_exhaustive()
    }
}

// === impl ColumnRef ===

impl<'f> ColumnRef<'f> {
    /// Returns the number of rows.
    #[inline]
    #[must_use]
    pub fn rows(self) -> usize {
        self.frame.rows
    }

    /// Returns the column's type.
    #[inline]
    #[must_use]
    pub fn column_type(self) -> ColumnType {
        self.parts.column_type
    }

    /// Returns whether any row is null.
    #[inline]
    #[must_use]
    pub fn has_nulls(self) -> bool {
        self.parts.has_nulls
    }

    /// Returns the number of rows that are null.
    #[must_use]
    pub fn null_count(self) -> usize {
        if !self.parts.has_nulls {
            return 0;
        }
        let present: u32 = self.presence().iter().map(|byte| byte.count_ones()).sum();
        self.frame.rows - present as usize
    }

    /// Returns whether a row has a value.
    #[must_use]
    #[inline]
    pub fn is_present(self, row: usize) -> bool {
        !self.parts.has_nulls || is_set(self.presence(), row)
    }

    /// Returns whether any item of a list is null.
    #[inline]
    #[must_use]
    pub fn has_null_items(self) -> bool {
        self.parts.has_null_items
    }

    /// Returns whether a list item has a value. `item` is its index in [`ColumnRef::values`].
    #[inline]
    pub(super) fn is_item_present(self, item: usize) -> bool {
        !self.parts.has_null_items || is_set(&self.frame.bytes[self.parts.item_presence..], item)
    }

    /// Returns the value of a row of a column without lists, or a null.
    #[must_use]
    pub fn value(self, row: usize) -> ValueRef<'f> {
        if self.is_present(row) { self.values().get(row) } else { ValueRef::Null }
    }

    /// Returns an item of a list, or a null. `item` is an index in the range that [`ColumnRef::items`] returns.
    #[must_use]
    pub fn item(self, item: usize) -> ValueRef<'f> {
        if self.is_item_present(item) { self.values().get(item) } else { ValueRef::Null }
    }

    /// Returns the presence bits of all list items, without padding. Empty if items cannot be null.
    fn item_presence(self) -> &'f [u8] {
        let items = if self.parts.column_type.nullable_items { self.values().count } else { 0 };
        &self.frame.bytes[self.parts.item_presence..][..items.div_ceil(8)]
    }

    /// Returns the presence bits of all rows, without padding.
    #[inline]
    pub(super) fn presence(self) -> &'f [u8] {
        &self.frame.bytes[self.parts.presence..][..self.frame.rows.div_ceil(8)]
    }

    /// Returns the slots of all rows, without padding.
    #[inline]
    fn slots(self) -> &'f [u8] {
        &self.frame.bytes[self.parts.slots..][..self.frame.rows * slot_width(self.parts.column_type)]
    }

    /// Returns the ends of the lists in these rows of a column of lists, as indexes of [`ColumnRef::values`].
    pub(super) fn list_ends(self, rows: Range<usize>) -> impl DoubleEndedIterator<Item = u32> + Clone + use<'f> {
        ends(&self.slots()[rows.start * END..rows.end * END])
    }

    /// Returns the indexes of the list items of these rows among the items of all rows of a column of lists.
    #[must_use]
    pub fn items(self, rows: Range<usize>) -> Range<usize> {
        start_at(self.slots(), rows.start)..start_at(self.slots(), rows.end)
    }

    /// Returns the values of all rows; for a column of lists, the items of all lists.
    #[inline]
    pub(super) fn values(self) -> ValueSlice<'f> {
        let ColumnType { scalar, is_list, .. } = self.parts.column_type;
        let (count, slots) = if is_list {
            (start_at(self.slots(), self.frame.rows), self.parts.items)
        } else {
            (self.frame.rows, self.parts.slots)
        };
        ValueSlice { scalar, count, bytes: &self.frame.bytes, slots, data: self.parts.data }
    }

    /// Returns the size of the column in a frame that has only these rows.
    fn bytes_of(self, rows: Range<usize>) -> usize {
        let of @ ColumnType { scalar, is_list, nullable_items } = self.parts.column_type;
        let head = presence_len(rows.len()) + padded(rows.len() * slot_width(of));
        let values = if is_list { self.items(rows) } else { rows };
        let presence = if nullable_items { presence_len(values.len()) } else { 0 };
        let slots = if is_list { padded(values.len() * width(scalar)) } else { 0 };
        let contents = if has_ends(scalar) { padded(self.values().data(values).len()) } else { 0 };
        head + presence + slots + contents
    }

    /// Returns the indexes of the null rows.
    fn nulls(self) -> impl Iterator<Item = usize> + use<'f> {
        let presence = if self.parts.has_nulls { self.presence() } else { &[] };
        zeros(presence, self.frame.rows)
    }

    /// Returns the indexes of the null items of all lists.
    fn null_items(self) -> impl Iterator<Item = usize> + use<'f> {
        let presence = if self.parts.has_null_items { self.item_presence() } else { &[] };
        zeros(presence, self.values().count)
    }
}

/// Returns the indexes of the first `count` bits that are not set. Bytes that are missing count as set.
fn zeros(bits: &[u8], count: usize) -> impl Iterator<Item = usize> {
    let with_zeros = bits.iter().enumerate().filter(|(_, byte)| **byte != 0xff);
    let zeros = with_zeros.flat_map(|(at, byte)| (at * 8..at * 8 + 8).filter(move |bit| byte >> (bit % 8) & 1 == 0));
    zeros.take_while(move |bit| *bit < count)
}

/// Two columns are equal if they have equal types, the same rows and items are null, and the values are
/// equal bit by bit.
impl PartialEq for ColumnRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        let (values, others) = (self.values(), other.values());
        self.column_type() == other.column_type()
            && self.rows() == other.rows()
            && self.presence() == other.presence()
            && self.slots() == other.slots()
            && self.item_presence() == other.item_presence()
            && values.slots(0..values.count) == others.slots(0..others.count)
            && (!has_ends(values.scalar) || values.all_data() == others.all_data())
    }
}

// === impl ValueSlice ===

impl<'f> ValueSlice<'f> {
    /// Returns value `i`.
    #[inline]
    pub(super) fn get(self, i: usize) -> ValueRef<'f> {
        let slots = &self.bytes[self.slots..];
        match self.scalar {
            ColumnScalar::Bool => ValueRef::Bool(slots[i] != 0),
            ColumnScalar::Int32 => ValueRef::Int32(i32::from_le_bytes(chunk(slots, i))),
            ColumnScalar::Int64 | ColumnScalar::Timestamp => ValueRef::Int64(i64::from_le_bytes(chunk(slots, i))),
            ColumnScalar::Float32 => ValueRef::Float32(f32::from_le_bytes(chunk(slots, i))),
            ColumnScalar::Float64 => ValueRef::Float64(f64::from_le_bytes(chunk(slots, i))),
            ColumnScalar::Utf8 | ColumnScalar::Binary => ValueRef::Bytes(self.data(i..i + 1)),
        }
    }

    /// Returns the type of the values.
    pub(super) fn scalar(self) -> ColumnScalar {
        self.scalar
    }

    /// Returns the number of values.
    pub(super) fn len(self) -> usize {
        self.count
    }

    /// Returns the slots of these values: numbers, or the ends of text or bytes.
    pub(super) fn slots(self, values: Range<usize>) -> &'f [u8] {
        let width = width(self.scalar);
        &self.bytes[self.slots..][values.start * width..values.end * width]
    }

    /// Returns the ends of these values of text or bytes, as offsets in [`ValueSlice::all_data`].
    pub(super) fn ends(self, values: Range<usize>) -> impl DoubleEndedIterator<Item = u32> + Clone + use<'f> {
        ends(self.slots(values))
    }

    /// Returns the contents of these values of text or bytes.
    pub(super) fn data(self, values: Range<usize>) -> &'f [u8] {
        &self.bytes[self.data..][self.data_start(values.start)..self.data_start(values.end)]
    }

    /// Returns the contents of all values of text or bytes.
    pub(super) fn all_data(self) -> &'f [u8] {
        self.data(0..self.count)
    }

    /// Returns the offset in [`ValueSlice::all_data`] at which value `i` starts. For the index after the last value,
    /// this is the length of the contents.
    pub(super) fn data_start(self, i: usize) -> usize {
        start_at(&self.bytes[self.slots..], i)
    }
}

#[cfg(test)]
pub(super) mod tests;
