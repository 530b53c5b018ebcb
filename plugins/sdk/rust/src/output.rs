//! Writes structs of outputs: converts rows to columns.
//!
//! Slots are written directly to the frame. Texts, bytes and items of lists, whose lengths are not known in advance,
//! are collected separately and appended at the end.

use std::borrow::{Borrow, Cow};

use bytemuck::Pod;

use crate::{
    __private::types::ScalarType,
    List, Timestamp,
    frame::{END, Heads, append, end, padded},
    list::{Item, Scalar},
    run::{ColumnType, FieldSpec},
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
    type Writers<'h>;
    /// The sink of each writer.
    type Sinks;

    /// Reserves the columns in the heads of the frame.
    fn writers<'h>(heads: &mut Heads<'h>) -> Self::Writers<'h>;
    /// Writes a row. Rows must be written in order, each exactly once.
    fn write(self, row: usize, writers: &mut Self::Writers<'_>);
    /// Writes a row of nulls.
    fn write_nulls(row: usize, writers: &mut Self::Writers<'_>);
    /// Releases the heads, and returns the sinks.
    fn sinks(writers: Self::Writers<'_>) -> Self::Sinks;
    /// Appends the tails of the columns to the heads.
    fn append(sinks: Self::Sinks, frame: &mut Vec<u8>);
}

/// A type that an output can have.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the type of an output",
    label = "not a type of an output",
    note = "outputs are bool, i32, i64, f32, f64, &str, String, &[u8], Vec<u8>, Timestamp, and Vec<_>, slices and arrays \
            of these; use Option for an output that may be null, and for items that may be null"
)]
pub trait Output: Sized {
    /// The type of the column.
    const TYPE: ColumnType;
    /// Whether the output can be null.
    const NULLABLE: bool;
    /// Collects the data that does not fit into a slot.
    #[doc(hidden)]
    type Sink: Sink;

    /// Writes the value into its column.
    #[doc(hidden)]
    fn write(self, row: usize, writer: &mut Writer<'_, Self::Sink>);
}

/// A type of values that are not null.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the type of an output",
    label = "not a type of an output",
    note = "outputs are bool, i32, i64, f32, f64, &str, String, &[u8], Vec<u8>, Timestamp, and Vec<_>, slices and arrays \
            of these; use Option for an output that may be null, and for items that may be null"
)]
pub trait Put {
    /// The type of the column.
    const TYPE: ColumnType;
    /// Collects the data that does not fit into a slot.
    #[doc(hidden)]
    type Sink: Sink;

    #[doc(hidden)]
    fn put(&self, slot: &mut <Self::Sink as Sink>::Slot, sink: &mut Self::Sink);
}

/// A type of list items.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the type of a list's items",
    label = "not a type of a list's items",
    note = "items are bool, i32, i64, f32, f64, &str, String, &[u8], Vec<u8> and Timestamp; use Option for an item that \
            may be null"
)]
pub trait PutItem {
    /// The contract's name of the type.
    #[doc(hidden)]
    const SCALAR: ScalarType;
    /// Whether an item can be null.
    #[doc(hidden)]
    const NULLABLE: bool;
    /// Collects the items of lists.
    #[doc(hidden)]
    type Items: Collect;

    #[doc(hidden)]
    fn put_item(&self, items: &mut Self::Items);
}

/// A column that is being written.
#[derive(Debug)]
pub struct Writer<'h, S: Sink> {
    presence: &'h mut [u8],
    slots: &'h mut [S::Slot],
    sink: S,
}

/// Collects the part of a column's data that does not fit into the column's slots.
#[doc(hidden)]
pub trait Sink: Default {
    /// The bytes of a slot. A slot that is not written is zero.
    type Slot: Pod;
    /// Writes the slot of a null.
    fn put_null(&self, slot: &mut Self::Slot);
    /// Returns the size of the column's tail, in bytes.
    fn tail_len(&self) -> usize;
    /// Appends the column's tail.
    fn append(self, frame: &mut Vec<u8>);
}

/// Items that are being written.
#[doc(hidden)]
pub trait Collect: Default {
    fn count(&self) -> usize;
    fn put_null(&mut self);
    fn tail_len(&self) -> usize;
    fn append(self, frame: &mut Vec<u8>);
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
pub struct FixedItems<const WIDTH: usize>(Vec<[u8; WIDTH]>);

/// Texts or bytes as items.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct BytesItems {
    ends: Vec<[u8; END]>,
    data: Vec<u8>,
}

/// Items that can be null, and their presence bitmap.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct NullableItems<C> {
    presence: Vec<u8>,
    items: C,
}

// === impl Writer ===

impl<'h, S: Sink> Writer<'h, S> {
    /// Reserves the next column in the heads.
    #[must_use]
    #[inline]
    pub fn new(heads: &mut Heads<'h>) -> Self {
        let (presence, slots) = heads.column();
        Self { presence, slots, sink: S::default() }
    }

    /// Writes a null.
    #[inline]
    pub fn put_null(&mut self, row: usize) {
        self.presence[row / 8] &= !(1 << (row % 8));
        self.sink.put_null(&mut self.slots[row]);
    }

    /// Releases the heads, and returns the sink.
    #[must_use]
    #[inline]
    pub fn into_sink(self) -> S {
        self.sink
    }
}

// === impl Output ===

impl<T: Put> Output for T {
    const TYPE: ColumnType = T::TYPE;
    const NULLABLE: bool = false;
    type Sink = T::Sink;

    #[inline]
    fn write(self, row: usize, writer: &mut Writer<'_, Self::Sink>) {
        self.put(&mut writer.slots[row], &mut writer.sink);
    }
}

impl<T: Put> Output for Option<T> {
    const TYPE: ColumnType = T::TYPE;
    const NULLABLE: bool = true;
    type Sink = T::Sink;

    #[inline]
    fn write(self, row: usize, writer: &mut Writer<'_, Self::Sink>) {
        match self {
            Some(value) => value.write(row, writer),
            None => writer.put_null(row),
        }
    }
}

// === impl Sink ===

impl<const WIDTH: usize> Sink for Fixed<WIDTH> {
    type Slot = [u8; WIDTH];

    #[inline]
    fn put_null(&self, _slot: &mut [u8; WIDTH]) {}

    #[inline]
    fn tail_len(&self) -> usize {
        0
    }

    #[inline]
    fn append(self, _frame: &mut Vec<u8>) {}
}

impl Sink for Bytes {
    type Slot = [u8; END];

    #[inline]
    fn put_null(&self, slot: &mut [u8; END]) {
        *slot = end(self.0.len());
    }

    fn tail_len(&self) -> usize {
        padded(self.0.len())
    }

    fn append(self, frame: &mut Vec<u8>) {
        append(frame, &self.0);
    }
}

impl<C: Collect> Sink for Many<C> {
    type Slot = [u8; END];

    #[inline]
    fn put_null(&self, slot: &mut [u8; END]) {
        *slot = end(self.0.count());
    }

    fn tail_len(&self) -> usize {
        self.0.tail_len()
    }

    fn append(self, frame: &mut Vec<u8>) {
        self.0.append(frame);
    }
}

impl<C: Collect> Many<C> {
    #[inline]
    fn put_list<T: PutItem<Items = C>>(&mut self, items: impl Iterator<Item = impl Borrow<T>>, slot: &mut [u8; END]) {
        items.for_each(|item| item.borrow().put_item(&mut self.0));
        *slot = end(self.0.count());
    }
}

// === impl Collect ===

impl<const WIDTH: usize> Collect for FixedItems<WIDTH> {
    #[inline]
    fn count(&self) -> usize {
        self.0.len()
    }

    fn put_null(&mut self) {
        self.0.push([0; WIDTH]);
    }

    fn tail_len(&self) -> usize {
        padded(self.0.as_flattened().len())
    }

    fn append(self, frame: &mut Vec<u8>) {
        append(frame, self.0.as_flattened());
    }
}

impl Collect for BytesItems {
    #[inline]
    fn count(&self) -> usize {
        self.ends.len()
    }

    fn put_null(&mut self) {
        self.ends.push(end(self.data.len()));
    }

    fn tail_len(&self) -> usize {
        padded(self.ends.as_flattened().len()) + padded(self.data.len())
    }

    fn append(self, frame: &mut Vec<u8>) {
        append(frame, self.ends.as_flattened());
        append(frame, &self.data);
    }
}

impl<C: Collect> NullableItems<C> {
    /// Writes the presence bit of the next item.
    fn put_presence(&mut self, is_present: bool) {
        let i = self.items.count();
        if i.is_multiple_of(8) {
            self.presence.push(0);
        }
        self.presence[i / 8] |= u8::from(is_present) << (i % 8);
    }
}

impl<C: Collect> Collect for NullableItems<C> {
    #[inline]
    fn count(&self) -> usize {
        self.items.count()
    }

    fn put_null(&mut self) {
        self.put_presence(false);
        self.items.put_null();
    }

    fn tail_len(&self) -> usize {
        padded(self.presence.len()) + self.items.tail_len()
    }

    fn append(self, frame: &mut Vec<u8>) {
        append(frame, &self.presence);
        self.items.append(frame);
    }
}

// === impl Put ===

impl<T: PutItem> Put for Vec<T> {
    const TYPE: ColumnType = ColumnType::list(T::SCALAR, T::NULLABLE);
    type Sink = Many<T::Items>;

    #[inline]
    fn put(&self, slot: &mut [u8; END], sink: &mut Self::Sink) {
        sink.put_list::<T>(self.iter(), slot);
    }
}

impl<T: PutItem> Put for &[T] {
    const TYPE: ColumnType = ColumnType::list(T::SCALAR, T::NULLABLE);
    type Sink = Many<T::Items>;

    #[inline]
    fn put(&self, slot: &mut [u8; END], sink: &mut Self::Sink) {
        sink.put_list::<T>(self.iter(), slot);
    }
}

impl<T: PutItem, const N: usize> Put for [T; N] {
    const TYPE: ColumnType = ColumnType::list(T::SCALAR, T::NULLABLE);
    type Sink = Many<T::Items>;

    #[inline]
    fn put(&self, slot: &mut [u8; END], sink: &mut Self::Sink) {
        sink.put_list::<T>(self.iter(), slot);
    }
}

impl<'a, T: Item<'a> + PutItem> Put for List<'a, T> {
    const TYPE: ColumnType = ColumnType::list(<T as PutItem>::SCALAR, <T as PutItem>::NULLABLE);
    type Sink = Many<T::Items>;

    #[inline]
    fn put(&self, slot: &mut [u8; END], sink: &mut Self::Sink) {
        sink.put_list::<T>(self.iter(), slot);
    }
}

// === impl PutItem ===

macro_rules! fixed {
    ($($type:ty: $width:literal, |$value:ident| $bytes:expr;)*) => {$(
        impl PutItem for $type {
            const SCALAR: ScalarType = <Self as Item<'static>>::SCALAR;
            const NULLABLE: bool = false;
            type Items = FixedItems<$width>;

            #[inline]
            fn put_item(&self, items: &mut Self::Items) {
                let $value = *self;
                items.0.push($bytes);
            }
        }

        impl Put for $type {
            const TYPE: ColumnType = ColumnType::scalar(<Self as PutItem>::SCALAR);
            type Sink = Fixed<$width>;

            #[inline]
            fn put(&self, slot: &mut [u8; $width], _sink: &mut Self::Sink) {
                let $value = *self;
                *slot = $bytes;
            }
        }
    )*};
}

fixed! {
    bool: 1, |value| [u8::from(value)];
    i32: 4, |value| value.to_le_bytes();
    i64: 8, |value| value.to_le_bytes();
    f32: 4, |value| value.to_le_bytes();
    f64: 8, |value| value.to_le_bytes();
    Timestamp: 8, |value| value.0.to_le_bytes();
}

macro_rules! variable {
    ($($type:ty: $scalar:ident, $bytes:expr;)*) => {$(
        impl PutItem for $type {
            const SCALAR: ScalarType = ScalarType::$scalar;
            const NULLABLE: bool = false;
            type Items = BytesItems;

            #[inline]
            fn put_item(&self, items: &mut Self::Items) {
                let bytes: fn(&Self) -> &[u8] = $bytes;
                items.data.extend_from_slice(bytes(self));
                items.ends.push(end(items.data.len()));
            }
        }

        impl Put for $type {
            const TYPE: ColumnType = ColumnType::scalar(<Self as PutItem>::SCALAR);
            type Sink = Bytes;

            #[inline]
            fn put(&self, slot: &mut [u8; END], sink: &mut Self::Sink) {
                let bytes: fn(&Self) -> &[u8] = $bytes;
                sink.0.extend_from_slice(bytes(self));
                *slot = end(sink.0.len());
            }
        }
    )*};
}

variable! {
    &str: Utf8, |text| text.as_bytes();
    String: Utf8, |text| text.as_bytes();
    Cow<'_, str>: Utf8, |text| text.as_bytes();
    &[u8]: Binary, |bytes| bytes;
    Vec<u8>: Binary, |bytes| bytes;
}

impl<T: PutItem + Scalar> PutItem for Option<T> {
    const SCALAR: ScalarType = T::SCALAR;
    const NULLABLE: bool = true;
    type Items = NullableItems<T::Items>;

    #[inline]
    fn put_item(&self, items: &mut Self::Items) {
        match self {
            Some(item) => {
                items.put_presence(true);
                item.put_item(&mut items.items);
            }
            None => items.put_null(),
        }
    }
}
