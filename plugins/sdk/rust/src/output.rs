//! Rows to columns: how a struct of outputs is written.
//!
//! Buffers have their size from the start: the component model hands vectors over by pointer and length, and one with
//! room to spare would be copied. Only texts, bytes and items of lists, whose lengths nobody knows before, grow.

use std::borrow::Cow;

use crate::{
    __private::types::{Column, DataType, Lists, ScalarType, Scalars, Values, VarBytes},
    List, Timestamp,
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

    /// Empty columns, for so many rows.
    fn writers(rows: usize) -> Self::Writers;
    /// Writes this row. Rows come in order, each once.
    fn write(self, row: usize, writers: &mut Self::Writers);
    /// Writes a row of nulls.
    fn write_nulls(row: usize, writers: &mut Self::Writers);
    /// The columns.
    fn finish(writers: Self::Writers) -> Vec<Column>;
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
    /// What collects the values.
    #[doc(hidden)]
    type Sink: Sink;

    /// Writes the value into its column.
    #[doc(hidden)]
    fn write(self, row: usize, writer: &mut Writer<Self::Sink>);
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
    /// What collects the values.
    #[doc(hidden)]
    type Sink: Sink;

    #[doc(hidden)]
    fn put(&self, row: usize, sink: &mut Self::Sink);
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
    /// What collects the items.
    #[doc(hidden)]
    type Items: Collect;

    #[doc(hidden)]
    fn put_item(&self, items: &mut Self::Items);

    /// The item of a row, in items that began with [`Collect::with_rows`].
    #[doc(hidden)]
    #[inline]
    fn put_row(&self, _row: usize, items: &mut Self::Items) {
        self.put_item(items);
    }
}

/// A column that is being written.
#[derive(Debug)]
pub struct Writer<S> {
    sink: S,
    rows: usize,
    /// Bitmap as the contract has it; none as long as nothing is null.
    validity: Option<Vec<u8>>,
}

/// The values of a column that is being written.
#[doc(hidden)]
pub trait Sink {
    fn with_rows(rows: usize) -> Self;
    fn put_nothing(&mut self);
    fn into_values(self) -> Values;
}

/// Items that are being written.
#[doc(hidden)]
pub trait Collect {
    fn with_capacity(items: usize) -> Self;
    /// For one item in each row: of fixed width all are there from the start, as zeros, so that writing one need not look
    /// for room.
    fn with_rows(rows: usize) -> Self;
    /// A row without one, after [`Collect::with_rows`].
    fn put_nothing(&mut self);
    fn count(&self) -> usize;
    fn into_scalars(self) -> Scalars;
}

/// The items of single values: the column's slots.
#[doc(hidden)]
#[derive(Debug)]
pub struct Single<C>(C);

/// The items of lists.
#[doc(hidden)]
#[derive(Debug)]
pub struct Many<C> {
    ends: Vec<u32>,
    items: C,
}

// === impl Writer ===

impl<S: Sink> Writer<S> {
    /// An empty column, for so many rows.
    #[must_use]
    pub fn new(rows: usize) -> Self {
        Self { sink: S::with_rows(rows), rows, validity: None }
    }

    /// Writes a null.
    #[inline]
    pub fn put_null(&mut self, row: usize) {
        self.sink.put_nothing();
        let bitmap = self.validity.get_or_insert_with(|| all_present(self.rows));
        bitmap[row / 8] &= !(1 << (row % 8));
    }

    /// The column.
    #[must_use]
    pub fn finish(self) -> Column {
        Column { values: self.sink.into_values(), validity: self.validity }
    }
}

/// A bitmap without a null. Bits beyond the rows are 0.
#[cold]
fn all_present(rows: usize) -> Vec<u8> {
    let mut bitmap = vec![0xff; rows.div_ceil(8)];
    if let Some(last) = bitmap.last_mut()
        && !rows.is_multiple_of(8)
    {
        *last = (1 << (rows % 8)) - 1;
    }
    bitmap
}

// === impl Output ===

impl<T: Put> Output for T {
    const TYPE: DataType = T::TYPE;
    const NULLABLE: bool = false;
    type Sink = T::Sink;

    #[inline]
    fn write(self, row: usize, writer: &mut Writer<Self::Sink>) {
        self.put(row, &mut writer.sink);
    }
}

impl<T: Put> Output for Option<T> {
    const TYPE: DataType = T::TYPE;
    const NULLABLE: bool = true;
    type Sink = T::Sink;

    #[inline]
    fn write(self, row: usize, writer: &mut Writer<Self::Sink>) {
        match self {
            Some(value) => value.put(row, &mut writer.sink),
            None => writer.put_null(row),
        }
    }
}

// === impl Sink ===

impl<C: Collect> Sink for Single<C> {
    fn with_rows(rows: usize) -> Self {
        Self(C::with_rows(rows))
    }

    #[inline]
    fn put_nothing(&mut self) {
        self.0.put_nothing();
    }

    fn into_values(self) -> Values {
        Values::Scalars(self.0.into_scalars())
    }
}

impl<C: Collect> Many<C> {
    #[inline]
    fn end_list(&mut self) {
        self.ends.push(end(self.items.count()));
    }

    #[inline]
    fn put_list<T: PutItem<Items = C>>(&mut self, items: &[T]) {
        items.iter().for_each(|item| item.put_item(&mut self.items));
        self.end_list();
    }
}

impl<C: Collect> Sink for Many<C> {
    fn with_rows(rows: usize) -> Self {
        Self { ends: Vec::with_capacity(rows), items: C::with_capacity(0) }
    }

    #[inline]
    fn put_nothing(&mut self) {
        self.end_list();
    }

    fn into_values(self) -> Values {
        Values::Lists(Lists { ends: self.ends, items: self.items.into_scalars() })
    }
}

// === impl Put ===

macro_rules! scalars {
    ($($type:ty),*) => {$(
        impl Put for $type {
            const TYPE: DataType = DataType { scalar: <Self as PutItem>::SCALAR, is_list: false };
            type Sink = Single<<Self as PutItem>::Items>;

            #[inline]
            fn put(&self, row: usize, sink: &mut Self::Sink) {
                self.put_row(row, &mut sink.0);
            }
        }
    )*};
}

scalars!(bool, i32, i64, f32, f64, Timestamp, &str, String, Cow<'_, str>, &[u8], Vec<u8>);

impl<T: PutItem> Put for Vec<T> {
    const TYPE: DataType = DataType { scalar: T::SCALAR, is_list: true };
    type Sink = Many<T::Items>;

    #[inline]
    fn put(&self, _row: usize, sink: &mut Self::Sink) {
        sink.put_list(self);
    }
}

impl<T: PutItem> Put for &[T] {
    const TYPE: DataType = DataType { scalar: T::SCALAR, is_list: true };
    type Sink = Many<T::Items>;

    #[inline]
    fn put(&self, _row: usize, sink: &mut Self::Sink) {
        sink.put_list(self);
    }
}

impl<T: PutItem, const N: usize> Put for [T; N] {
    const TYPE: DataType = DataType { scalar: T::SCALAR, is_list: true };
    type Sink = Many<T::Items>;

    #[inline]
    fn put(&self, _row: usize, sink: &mut Self::Sink) {
        sink.put_list(self);
    }
}

impl<'a, T: Item<'a> + PutItem> Put for List<'a, T> {
    const TYPE: DataType = DataType { scalar: <T as PutItem>::SCALAR, is_list: true };
    type Sink = Many<T::Items>;

    #[inline]
    fn put(&self, _row: usize, sink: &mut Self::Sink) {
        self.iter().for_each(|item| item.put_item(&mut sink.items));
        sink.end_list();
    }
}

// === impl Collect ===

macro_rules! fixed {
    ($($type:ty: $items:ident, $case:ident, $raw:ty, $read:expr;)*) => {$(
        #[doc(hidden)]
        #[derive(Debug)]
        pub struct $items(Vec<$raw>);

        impl $items {
            const READ: fn($type) -> $raw = $read;
        }

        impl Collect for $items {
            fn with_capacity(items: usize) -> Self {
                Self(Vec::with_capacity(items))
            }

            fn with_rows(rows: usize) -> Self {
                let mut items = Vec::with_capacity(rows);
                items.resize(rows, <$raw>::default());
                Self(items)
            }

            #[inline]
            fn put_nothing(&mut self) {}

            #[inline]
            fn count(&self) -> usize {
                self.0.len()
            }

            fn into_scalars(self) -> Scalars {
                Scalars::$case(self.0)
            }
        }

        impl PutItem for $type {
            const SCALAR: ScalarType = <Self as Item<'static>>::SCALAR;
            type Items = $items;

            #[inline]
            fn put_item(&self, items: &mut Self::Items) {
                items.0.push($items::READ(*self));
            }

            #[inline]
            fn put_row(&self, row: usize, items: &mut Self::Items) {
                items.0[row] = $items::READ(*self);
            }
        }
    )*};
}

fixed! {
    bool: Bools, Bools, u8, u8::from;
    i32: Int32s, Int32s, i32, |value| value;
    i64: Int64s, Int64s, i64, |value| value;
    f32: Float32s, Float32s, f32, |value| value;
    f64: Float64s, Float64s, f64, |value| value;
    Timestamp: Timestamps, Timestamps, i64, |value| value.0;
}

macro_rules! variable {
    ($($items:ident: $case:ident, $scalar:ident; $($type:ty),*;)*) => {$(
        #[doc(hidden)]
        #[derive(Debug)]
        pub struct $items(VarBytes);

        impl Collect for $items {
            fn with_capacity(items: usize) -> Self {
                Self(VarBytes { ends: Vec::with_capacity(items), data: Vec::new() })
            }

            fn with_rows(rows: usize) -> Self {
                Self::with_capacity(rows)
            }

            #[inline]
            fn put_nothing(&mut self) {
                self.0.ends.push(end(self.0.data.len()));
            }

            #[inline]
            fn count(&self) -> usize {
                self.0.ends.len()
            }

            fn into_scalars(self) -> Scalars {
                Scalars::$case(self.0)
            }
        }

        $(impl PutItem for $type {
            const SCALAR: ScalarType = ScalarType::$scalar;
            type Items = $items;

            #[inline]
            fn put_item(&self, items: &mut Self::Items) {
                items.0.data.extend_from_slice(self.as_ref());
                items.put_nothing();
            }
        })*
    )*};
}

variable! {
    Texts: Strings, Utf8; &str, String;
    Blobs: Binaries, Binary; &[u8], Vec<u8>;
}

impl PutItem for Cow<'_, str> {
    const SCALAR: ScalarType = ScalarType::Utf8;
    type Items = Texts;

    #[inline]
    fn put_item(&self, items: &mut Self::Items) {
        (&**self).put_item(items);
    }
}

/// A component's memory ends long before 2^32 bytes.
fn end(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
