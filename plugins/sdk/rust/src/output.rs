//! Rows to columns: how a struct of outputs is written.

use crate::{
    __private::types::{Column, DataType, Lists, ScalarType, Scalars, Values, VarBytes},
    Timestamp,
    run::FieldSpec,
};

/// A struct of outputs. `#[derive(Outputs)]` writes this.
pub trait Outputs {
    /// What is computed, in order.
    const FIELDS: &'static [FieldSpec];

    /// Adds this row to the columns, which are in the same order.
    fn push(self, columns: &mut [Builder]);
}

/// A type that an output can have.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no type of an output",
    label = "no type of an output",
    note = "outputs are bool, i32, i64, f32, f64, &str, String, &[u8], Vec<u8>, Timestamp and Vec<_> of these, each also in an Option"
)]
pub trait Output {
    /// What the column holds.
    const TYPE: DataType;
    /// Whether it can be null.
    const NULLABLE: bool;

    /// Adds the value to its column.
    fn push(self, column: &mut Builder);
}

/// A column that is being written.
#[derive(Debug)]
pub struct Builder {
    values: Values,
    validity: Option<Vec<u8>>,
    rows: usize,
    rows_max: usize,
}

impl Builder {
    /// A column of so many rows. Its buffers have that size from the start: the component model hands vectors over by
    /// pointer and length, and one with room to spare would be copied.
    #[must_use]
    pub fn new(of: DataType, rows_max: usize) -> Self {
        let items = empty(of.scalar, if of.is_list { 0 } else { rows_max });
        let values = if of.is_list {
            Values::Lists(Lists { ends: Vec::with_capacity(rows_max), items })
        } else {
            Values::Scalars(items)
        };
        Self { values, validity: None, rows: 0, rows_max }
    }

    /// The column.
    #[must_use]
    pub fn finish(self) -> Column {
        Column { values: self.values, validity: self.validity }
    }

    /// Adds a null.
    pub fn push_null(&mut self) {
        match &mut self.values {
            Values::Scalars(scalars) => put_nothing(scalars),
            Values::Lists(lists) => lists.ends.push(lists.ends.last().copied().unwrap_or(0)),
        }
        let (rows, rows_max) = (self.rows, self.rows_max);
        let validity = self.validity.get_or_insert_with(|| {
            // Rows before the first null are all there.
            let mut bitmap = vec![0; rows_max.div_ceil(8)];
            (0..rows).for_each(|row| bitmap[row / 8] |= 1 << (row % 8));
            bitmap
        });
        // A function that returns more rows than it was given ends as a fault, not here.
        if rows / 8 >= validity.len() {
            validity.push(0);
        }
        self.rows += 1;
    }

    fn push_with(&mut self, put: impl FnOnce(&mut Values)) {
        put(&mut self.values);
        if let Some(bitmap) = &mut self.validity {
            if self.rows / 8 >= bitmap.len() {
                bitmap.push(0);
            }
            bitmap[self.rows / 8] |= 1 << (self.rows % 8);
        }
        self.rows += 1;
    }
}

/// A value that goes into a column of single values, and into lists.
#[doc(hidden)]
pub trait Put: Sized {
    fn put(self, scalars: &mut Scalars);
}

macro_rules! put {
    ($($type:ty: $case:ident, $scalar:ident, $put:expr;)*) => {$(
        impl Put for $type {
            fn put(self, scalars: &mut Scalars) {
                if let Scalars::$case(values) = scalars {
                    $put(values, self);
                }
            }
        }

        impl Output for $type {
            const TYPE: DataType = DataType { scalar: ScalarType::$scalar, is_list: false };
            const NULLABLE: bool = false;

            fn push(self, column: &mut Builder) {
                column.push_with(|values| {
                    if let Values::Scalars(scalars) = values {
                        self.put(scalars);
                    }
                });
            }
        }

        impl Output for Vec<$type> {
            const TYPE: DataType = DataType { scalar: ScalarType::$scalar, is_list: true };
            const NULLABLE: bool = false;

            fn push(self, column: &mut Builder) {
                column.push_with(|values| {
                    if let Values::Lists(lists) = values {
                        let end = lists.ends.last().copied().unwrap_or(0) + end(self.len());
                        self.into_iter().for_each(|item| item.put(&mut lists.items));
                        lists.ends.push(end);
                    }
                });
            }
        }
    )*};
}

put! {
    bool: Bools, Bool, |values: &mut Vec<u8>, value| values.push(u8::from(value));
    i32: Int32s, Int32, Vec::push;
    i64: Int64s, Int64, Vec::push;
    f32: Float32s, Float32, Vec::push;
    f64: Float64s, Float64, Vec::push;
    Timestamp: Timestamps, Timestamp, |values: &mut Vec<i64>, value: Timestamp| values.push(value.0);
    String: Strings, Utf8, |var, value: String| put_bytes(var, value.as_bytes());
    &str: Strings, Utf8, |var, value: &str| put_bytes(var, value.as_bytes());
    Bytes: Binaries, Binary, |var, value: Bytes| put_bytes(var, &value.0);
    &[u8]: Binaries, Binary, put_bytes;
}

/// Bytes that a plugin owns, in lists: a `Vec<u8>` alone is one value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Output for Vec<u8> {
    const TYPE: DataType = DataType { scalar: ScalarType::Binary, is_list: false };
    const NULLABLE: bool = false;

    fn push(self, column: &mut Builder) {
        self.as_slice().push(column);
    }
}

impl<T: Output> Output for Option<T> {
    const TYPE: DataType = T::TYPE;
    const NULLABLE: bool = true;

    fn push(self, column: &mut Builder) {
        match self {
            Some(value) => value.push(column),
            None => column.push_null(),
        }
    }
}

fn empty(scalar: ScalarType, rows: usize) -> Scalars {
    let var = || VarBytes { ends: Vec::with_capacity(rows), data: Vec::new() };
    match scalar {
        ScalarType::Bool => Scalars::Bools(Vec::with_capacity(rows)),
        ScalarType::Int32 => Scalars::Int32s(Vec::with_capacity(rows)),
        ScalarType::Int64 => Scalars::Int64s(Vec::with_capacity(rows)),
        ScalarType::Float32 => Scalars::Float32s(Vec::with_capacity(rows)),
        ScalarType::Float64 => Scalars::Float64s(Vec::with_capacity(rows)),
        ScalarType::Utf8 => Scalars::Strings(var()),
        ScalarType::Binary => Scalars::Binaries(var()),
        ScalarType::Timestamp => Scalars::Timestamps(Vec::with_capacity(rows)),
    }
}

fn put_nothing(scalars: &mut Scalars) {
    match scalars {
        Scalars::Bools(values) => values.push(0),
        Scalars::Int32s(values) => values.push(0),
        Scalars::Int64s(values) | Scalars::Timestamps(values) => values.push(0),
        Scalars::Float32s(values) => values.push(0.0),
        Scalars::Float64s(values) => values.push(0.0),
        Scalars::Strings(var) | Scalars::Binaries(var) => put_bytes(var, b""),
    }
}

fn put_bytes(var: &mut VarBytes, bytes: &[u8]) {
    var.data.extend_from_slice(bytes);
    var.ends.push(end(var.data.len()));
}

/// A component's memory ends long before 2^32 bytes.
fn end(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
