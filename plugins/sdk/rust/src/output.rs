//! Writes structs of outputs: converts rows to columns.
//!
//! Slots are written directly to the frame. Texts, bytes and items of lists, whose lengths are not known in advance,
//! are collected separately and appended at the end.

use std::borrow::Cow;

use crate::{
    __private::types::{DataType, ScalarType},
    List, Timestamp,
    frame::{END, Heads, Place, append, end, padded},
    list::Item,
    run::FieldSpec,
};

/// A struct of outputs. Derive it with `#[derive(Outputs)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a struct of outputs",
    label = "not a struct of outputs",
    note = "add #[derive(Outputs)]"
)]
pub trait Outputs: Sized {
    /// The outputs, in order.
    const FIELDS: &'static [FieldSpec];
    /// A writer for the column of each output.
    type Writers;

    /// Reserves the columns in the frame.
    fn writers(heads: &mut Heads) -> Self::Writers;
    /// Writes a row. Rows must be written in order, each exactly once.
    fn write(self, row: usize, heads: &mut Heads, writers: &mut Self::Writers);
    /// Writes a row of nulls.
    fn write_nulls(row: usize, heads: &mut Heads, writers: &mut Self::Writers);
    /// Returns the frame: the heads of the columns, then their tails.
    fn finish(writers: Self::Writers, heads: Heads) -> Vec<u8>;
}

/// A type that an output can have.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the type of an output",
    label = "not a type of an output",
    note = "outputs are bool, i32, i64, f32, f64, &str, String, &[u8], Vec<u8>, Timestamp, and Vec<_>, slices and arrays \
            of these; use Option for an output that may be null"
)]
pub trait Output: Sized {
    /// The type of the column.
    const TYPE: DataType;
    /// Whether the output can be null.
    const NULLABLE: bool;
    /// Collects the data that does not fit into a slot.
    #[doc(hidden)]
    type Sink: Sink;

    /// Writes the value into its column.
    #[doc(hidden)]
    fn write(self, row: usize, heads: &mut Heads, writer: &mut Writer<Self::Sink>);
}

/// A type of values that are not null.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the type of an output",
    label = "not a type of an output",
    note = "outputs are bool, i32, i64, f32, f64, &str, String, &[u8], Vec<u8>, Timestamp, and Vec<_>, slices and arrays \
            of these; use Option for an output that may be null"
)]
pub trait Put {
    /// The type of the column.
    const TYPE: DataType;
    /// Collects the data that does not fit into a slot.
    #[doc(hidden)]
    type Sink: Sink;

    #[doc(hidden)]
    fn put(&self, slot: Slot<'_>, sink: &mut Self::Sink);
}

/// A type of list items.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the type of a list's items",
    label = "not a type of a list's items",
    note = "items are bool, i32, i64, f32, f64, &str, String, &[u8], Vec<u8> and Timestamp"
)]
pub trait PutItem {
    /// The contract's name of the type.
    #[doc(hidden)]
    const SCALAR: ScalarType;
    /// Collects the items of lists.
    #[doc(hidden)]
    type Items: Collect;
    /// Collects the data that does not fit into a slot, for a column with one value per row.
    #[doc(hidden)]
    type Single: Sink;

    #[doc(hidden)]
    fn put_item(&self, items: &mut Self::Items);

    #[doc(hidden)]
    fn put_single(&self, slot: Slot<'_>, sink: &mut Self::Single);
}

/// A row's slot in the column that is being written.
#[doc(hidden)]
#[derive(Debug)]
pub struct Slot<'h> {
    heads: &'h mut Heads,
    place: Place,
    row: usize,
}

/// A column that is being written.
#[derive(Debug)]
pub struct Writer<S> {
    place: Place,
    sink: S,
}

/// Collects the part of a column's data that does not fit into the column's slots.
#[doc(hidden)]
pub trait Sink: Default {
    /// The width of a slot, in bytes.
    const WIDTH: usize;
    /// Writes the slot of a null.
    fn put_nothing(&mut self, slot: Slot<'_>);
    /// Returns the size of the column's tail, in bytes.
    fn tail_len(&self) -> usize;
    /// Appends the column's tail.
    fn finish(self, frame: &mut Vec<u8>);
}

/// Items that are being written.
#[doc(hidden)]
pub trait Collect: Default {
    fn count(&self) -> usize;
    fn tail_len(&self) -> usize;
    fn finish(self, frame: &mut Vec<u8>);
}

/// A sink for values that fit into their slots.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Fixed<const WIDTH: usize>;

/// A sink for texts or byte strings, with the bytes of all rows.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Bytes(Vec<u8>);

/// A sink for lists, with the items of all rows.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Many<C>(C);

/// Items of fixed width.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct FixedItems<const WIDTH: usize>(Vec<u8>);

/// Texts or bytes as items.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct BytesItems {
    ends: Vec<u8>,
    data: Vec<u8>,
}

// === impl Slot ===

impl Slot<'_> {
    #[inline]
    fn set<const WIDTH: usize>(self, slot: [u8; WIDTH]) {
        self.heads.set(self.place, self.row, slot);
    }

    #[inline]
    fn set_end(self, end: usize) {
        self.set(self::end(end));
    }
}

// === impl Writer ===

impl<S: Sink> Writer<S> {
    /// Reserves the next column in the frame.
    #[must_use]
    #[inline]
    pub fn new(heads: &mut Heads) -> Self {
        Self { place: heads.place(S::WIDTH), sink: S::default() }
    }

    /// Writes a null.
    #[inline]
    pub fn put_null(&mut self, row: usize, heads: &mut Heads) {
        heads.set_null(self.place, row);
        self.sink.put_nothing(Slot { heads, place: self.place, row });
    }

    /// Returns the size of the column's tail, in bytes.
    #[inline]
    pub fn tail_len(&self) -> usize {
        self.sink.tail_len()
    }

    /// Appends the column's tail.
    #[inline]
    pub fn finish(self, frame: &mut Vec<u8>) {
        self.sink.finish(frame);
    }
}

// === impl Output ===

impl<T: Put> Output for T {
    const TYPE: DataType = T::TYPE;
    const NULLABLE: bool = false;
    type Sink = T::Sink;

    #[inline]
    fn write(self, row: usize, heads: &mut Heads, writer: &mut Writer<Self::Sink>) {
        self.put(Slot { heads, place: writer.place, row }, &mut writer.sink);
    }
}

impl<T: Put> Output for Option<T> {
    const TYPE: DataType = T::TYPE;
    const NULLABLE: bool = true;
    type Sink = T::Sink;

    #[inline]
    fn write(self, row: usize, heads: &mut Heads, writer: &mut Writer<Self::Sink>) {
        match self {
            Some(value) => value.write(row, heads, writer),
            None => writer.put_null(row, heads),
        }
    }
}

// === impl Sink ===

impl<const WIDTH: usize> Sink for Fixed<WIDTH> {
    const WIDTH: usize = WIDTH;

    #[inline]
    fn put_nothing(&mut self, _slot: Slot<'_>) {}

    #[inline]
    fn tail_len(&self) -> usize {
        0
    }

    #[inline]
    fn finish(self, _frame: &mut Vec<u8>) {}
}

impl Sink for Bytes {
    const WIDTH: usize = END;

    #[inline]
    fn put_nothing(&mut self, slot: Slot<'_>) {
        slot.set_end(self.0.len());
    }

    fn tail_len(&self) -> usize {
        padded(self.0.len())
    }

    fn finish(self, frame: &mut Vec<u8>) {
        append(frame, &self.0);
    }
}

impl<C: Collect> Sink for Many<C> {
    const WIDTH: usize = END;

    #[inline]
    fn put_nothing(&mut self, slot: Slot<'_>) {
        slot.set_end(self.0.count());
    }

    fn tail_len(&self) -> usize {
        self.0.tail_len()
    }

    fn finish(self, frame: &mut Vec<u8>) {
        self.0.finish(frame);
    }
}

impl<C: Collect> Many<C> {
    #[inline]
    fn put_list<T: PutItem<Items = C>>(&mut self, items: &[T], slot: Slot<'_>) {
        items.iter().for_each(|item| item.put_item(&mut self.0));
        self.put_nothing(slot);
    }
}

// === impl Collect ===

impl<const WIDTH: usize> Collect for FixedItems<WIDTH> {
    #[inline]
    fn count(&self) -> usize {
        self.0.len() / WIDTH
    }

    fn tail_len(&self) -> usize {
        padded(self.0.len())
    }

    fn finish(self, frame: &mut Vec<u8>) {
        append(frame, &self.0);
    }
}

impl Collect for BytesItems {
    #[inline]
    fn count(&self) -> usize {
        self.ends.len() / END
    }

    fn tail_len(&self) -> usize {
        padded(self.ends.len()) + padded(self.data.len())
    }

    fn finish(self, frame: &mut Vec<u8>) {
        append(frame, &self.ends);
        append(frame, &self.data);
    }
}

// === impl Put ===

macro_rules! scalars {
    ($($type:ty),*) => {$(
        impl Put for $type {
            const TYPE: DataType = DataType { scalar: <Self as PutItem>::SCALAR, is_list: false };
            type Sink = <Self as PutItem>::Single;

            #[inline]
            fn put(&self, slot: Slot<'_>, sink: &mut Self::Sink) {
                self.put_single(slot, sink);
            }
        }
    )*};
}

scalars!(bool, i32, i64, f32, f64, Timestamp, &str, String, Cow<'_, str>, &[u8], Vec<u8>);

impl<T: PutItem> Put for Vec<T> {
    const TYPE: DataType = DataType { scalar: T::SCALAR, is_list: true };
    type Sink = Many<T::Items>;

    #[inline]
    fn put(&self, slot: Slot<'_>, sink: &mut Self::Sink) {
        sink.put_list(self, slot);
    }
}

impl<T: PutItem> Put for &[T] {
    const TYPE: DataType = DataType { scalar: T::SCALAR, is_list: true };
    type Sink = Many<T::Items>;

    #[inline]
    fn put(&self, slot: Slot<'_>, sink: &mut Self::Sink) {
        sink.put_list(self, slot);
    }
}

impl<T: PutItem, const N: usize> Put for [T; N] {
    const TYPE: DataType = DataType { scalar: T::SCALAR, is_list: true };
    type Sink = Many<T::Items>;

    #[inline]
    fn put(&self, slot: Slot<'_>, sink: &mut Self::Sink) {
        sink.put_list(self, slot);
    }
}

impl<'a, T: Item<'a> + PutItem> Put for List<'a, T> {
    const TYPE: DataType = DataType { scalar: <T as PutItem>::SCALAR, is_list: true };
    type Sink = Many<T::Items>;

    #[inline]
    fn put(&self, slot: Slot<'_>, sink: &mut Self::Sink) {
        self.iter().for_each(|item| item.put_item(&mut sink.0));
        sink.put_nothing(slot);
    }
}

// === impl PutItem ===

macro_rules! fixed {
    ($($type:ty: $width:literal, $bytes:expr;)*) => {$(
        impl PutItem for $type {
            const SCALAR: ScalarType = <Self as Item<'static>>::SCALAR;
            type Items = FixedItems<$width>;
            type Single = Fixed<$width>;

            #[inline]
            fn put_item(&self, items: &mut Self::Items) {
                let bytes: fn(Self) -> [u8; $width] = $bytes;
                items.0.extend_from_slice(&bytes(*self));
            }

            #[inline]
            fn put_single(&self, slot: Slot<'_>, _sink: &mut Self::Single) {
                let bytes: fn(Self) -> [u8; $width] = $bytes;
                slot.set(bytes(*self));
            }
        }
    )*};
}

fixed! {
    bool: 1, |value| [u8::from(value)];
    i32: 4, Self::to_le_bytes;
    i64: 8, Self::to_le_bytes;
    f32: 4, Self::to_le_bytes;
    f64: 8, Self::to_le_bytes;
    Timestamp: 8, |value| value.0.to_le_bytes();
}

macro_rules! variable {
    ($($scalar:ident: $($type:ty),*;)*) => {$($(
        impl PutItem for $type {
            const SCALAR: ScalarType = ScalarType::$scalar;
            type Items = BytesItems;
            type Single = Bytes;

            #[inline]
            fn put_item(&self, items: &mut Self::Items) {
                items.data.extend_from_slice(self.as_ref());
                items.ends.extend_from_slice(&end(items.data.len()));
            }

            #[inline]
            fn put_single(&self, slot: Slot<'_>, sink: &mut Self::Single) {
                sink.0.extend_from_slice(self.as_ref());
                sink.put_nothing(slot);
            }
        }
    )*)*};
}

variable! {
    Utf8: &str, String;
    Binary: &[u8], Vec<u8>;
}

impl PutItem for Cow<'_, str> {
    const SCALAR: ScalarType = ScalarType::Utf8;
    type Items = BytesItems;
    type Single = Bytes;

    #[inline]
    fn put_item(&self, items: &mut Self::Items) {
        (&**self).put_item(items);
    }

    #[inline]
    fn put_single(&self, slot: Slot<'_>, sink: &mut Self::Single) {
        (&**self).put_single(slot, sink);
    }
}
