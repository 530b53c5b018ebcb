//! Rows to columns: how a struct of outputs is written.
//!
//! Slots are written where they are handed over. Texts, bytes and items of lists, whose lengths nobody knows before, are
//! collected beside and follow at the end.

use std::borrow::Cow;

use crate::{
    __private::types::{DataType, ScalarType},
    List, Timestamp,
    frame::{END, Heads, Place, append, end, padded},
    list::Item,
    run::FieldSpec,
};

/// A struct of outputs. `#[derive(Outputs)]` writes this.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no struct of outputs",
    label = "no struct of outputs",
    note = "it wants #[derive(Outputs)]"
)]
pub trait Outputs: Sized {
    /// What is computed, in order.
    const FIELDS: &'static [FieldSpec];
    /// Something for each output that writes its column.
    type Writers;

    /// Takes the columns' places.
    fn writers(heads: &mut Heads) -> Self::Writers;
    /// Writes this row. Rows come in order, each once.
    fn write(self, row: usize, heads: &mut Heads, writers: &mut Self::Writers);
    /// Writes a row of nulls.
    fn write_nulls(row: usize, heads: &mut Heads, writers: &mut Self::Writers);
    /// The frame: the columns' heads, and their tails.
    fn finish(writers: Self::Writers, heads: Heads) -> Vec<u8>;
}

/// A type that an output can have.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no type of an output",
    label = "no type of an output",
    note = "outputs are bool, i32, i64, f32, f64, &str, String, &[u8], Vec<u8>, Timestamp, and Vec<_>, slices and arrays \
            of these; each also in an Option, where it may be null"
)]
pub trait Output: Sized {
    /// What the column holds.
    const TYPE: DataType;
    /// Whether it can be null.
    const NULLABLE: bool;
    /// What collects what has no room in a slot.
    #[doc(hidden)]
    type Sink: Sink;

    /// Writes the value into its column.
    #[doc(hidden)]
    fn write(self, row: usize, heads: &mut Heads, writer: &mut Writer<Self::Sink>);
}

/// A type of values, each of which is there.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no type of an output",
    label = "no type of an output",
    note = "outputs are bool, i32, i64, f32, f64, &str, String, &[u8], Vec<u8>, Timestamp, and Vec<_>, slices and arrays \
            of these; each also in an Option, where it may be null"
)]
pub trait Put {
    /// What the column holds.
    const TYPE: DataType;
    /// What collects what has no room in a slot.
    #[doc(hidden)]
    type Sink: Sink;

    #[doc(hidden)]
    fn put(&self, slot: Slot<'_>, sink: &mut Self::Sink);
}

/// A type that lists hold.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no type of a list's items",
    label = "no type of a list's items",
    note = "items are bool, i32, i64, f32, f64, &str, String, &[u8], Vec<u8> and Timestamp"
)]
pub trait PutItem {
    /// As the contract calls it.
    #[doc(hidden)]
    const SCALAR: ScalarType;
    /// What collects items of a list.
    #[doc(hidden)]
    type Items: Collect;
    /// What collects what has no room in a slot, of a single one in each row.
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

/// What a column has beside its slots.
#[doc(hidden)]
pub trait Sink: Default {
    /// How wide slots are.
    const WIDTH: usize;
    /// Writes the slot of a null.
    fn put_nothing(&mut self, slot: Slot<'_>);
    /// Bytes of the column's tail.
    fn tail_len(&self) -> usize;
    /// Adds the column's tail.
    fn finish(self, frame: &mut Vec<u8>);
}

/// Items that are being written.
#[doc(hidden)]
pub trait Collect: Default {
    fn count(&self) -> usize;
    fn tail_len(&self) -> usize;
    fn finish(self, frame: &mut Vec<u8>);
}

/// Values that have room in their slots.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Fixed<const WIDTH: usize>;

/// The bytes of all rows.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Bytes(Vec<u8>);

/// The items of lists.
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
    /// Takes the next column's place.
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

    /// Bytes of the column's tail.
    #[inline]
    pub fn tail_len(&self) -> usize {
        self.sink.tail_len()
    }

    /// Adds the column's tail.
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
