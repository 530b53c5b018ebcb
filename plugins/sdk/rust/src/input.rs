//! Columns to rows: how a struct of inputs is read.

use std::marker::PhantomData;

use crate::{
    __private::types::{Column, DataType, ScalarType, Scalars, Values, VarBytes},
    Fault, List, Timestamp,
    list::{Item, slot},
    run::FieldSpec,
};

/// A struct of inputs. `#[derive(Inputs)]` writes this.
pub trait Inputs<'a>: Sized {
    /// Something for each input that reads its column.
    type Readers;

    /// What is read, in order.
    const FIELDS: &'static [FieldSpec];

    /// Looks at the columns of a batch.
    fn open(columns: &'a [Column]) -> Result<Self::Readers, Fault>;

    /// Reads a row; none where a required input is null.
    fn read(readers: &Self::Readers, row: usize) -> Option<Self>;
}

/// A type that an input can have.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no type of an input",
    label = "no type of an input",
    note = "inputs are bool, i32, i64, f32, f64, &str, &[u8], Timestamp and List<_> of these, each also in an Option"
)]
pub trait Input<'a>: Sized {
    /// What the column holds.
    const TYPE: DataType;
    /// Whether a row without it is not computed.
    const REQUIRED: bool;
    /// What reads a column.
    type Reader;

    /// What reads this column, if it is of the type.
    fn open(column: &'a Column) -> Option<Self::Reader>;

    /// The value in a row; none where a required one is null.
    fn get(reader: &Self::Reader, row: usize) -> Option<Self>;
}

/// Values with their nulls.
#[derive(Debug)]
pub struct Reader<'a, V> {
    values: V,
    validity: Option<&'a [u8]>,
}

/// A column's reader, or a fault that says what is wrong with the column.
#[doc(hidden)]
pub fn open<'a, T: Input<'a>>(columns: &'a [Column], place: usize, name: &str) -> Result<T::Reader, Fault> {
    let Some(column) = columns.get(place) else {
        return Err(Fault::bad_input(format!("input '{name}' did not come: {} columns did", columns.len())));
    };
    T::open(column).ok_or_else(|| {
        let (found, declared) = (type_name(type_of(column)), type_name(T::TYPE));
        Fault::bad_input(format!("input '{name}' is {found}, and the plugin declares {declared}"))
    })
}

impl<V> Reader<'_, V> {
    fn is_present(&self, row: usize) -> bool {
        self.validity.is_none_or(|bitmap| bitmap.get(row / 8).is_some_and(|byte| byte >> (row % 8) & 1 == 1))
    }
}

/// A type that is read from a column of single values, or of lists.
#[doc(hidden)]
pub trait Read<'a>: Sized {
    const TYPE: DataType;
    type Values;
    fn values(values: &'a Values) -> Option<Self::Values>;
    fn at(values: &Self::Values, row: usize) -> Option<Self>;
}

impl<'a, T: Read<'a>> Input<'a> for Option<T> {
    const TYPE: DataType = T::TYPE;
    const REQUIRED: bool = false;
    type Reader = Reader<'a, T::Values>;

    fn open(column: &'a Column) -> Option<Self::Reader> {
        Some(Reader { values: T::values(&column.values)?, validity: column.validity.as_deref() })
    }

    fn get(reader: &Self::Reader, row: usize) -> Option<Self> {
        Some(if reader.is_present(row) { T::at(&reader.values, row) } else { None })
    }
}

macro_rules! required {
    ($($type:ty),*) => {$(
        impl<'a> Input<'a> for $type {
            const TYPE: DataType = <Self as Read<'a>>::TYPE;
            const REQUIRED: bool = true;
            type Reader = <Option<Self> as Input<'a>>::Reader;

            fn open(column: &'a Column) -> Option<Self::Reader> {
                <Option<Self> as Input<'a>>::open(column)
            }

            fn get(reader: &Self::Reader, row: usize) -> Option<Self> {
                <Option<Self> as Input<'a>>::get(reader, row).flatten()
            }
        }
    )*};
}

required!(bool, i32, i64, f32, f64, Timestamp, &'a str, &'a [u8]);

impl<'a, T: Item<'a>> Input<'a> for List<'a, T>
where
    Self: Read<'a>,
{
    const TYPE: DataType = <Self as Read<'a>>::TYPE;
    const REQUIRED: bool = true;
    type Reader = <Option<Self> as Input<'a>>::Reader;

    fn open(column: &'a Column) -> Option<Self::Reader> {
        <Option<Self> as Input<'a>>::open(column)
    }

    fn get(reader: &Self::Reader, row: usize) -> Option<Self> {
        <Option<Self> as Input<'a>>::get(reader, row).flatten()
    }
}

macro_rules! scalars {
    ($($type:ty: $case:ident, $scalar:ident, $values:ty, $read:expr;)*) => {$(
        impl<'a> Read<'a> for $type {
            const TYPE: DataType = DataType { scalar: ScalarType::$scalar, is_list: false };
            type Values = &'a $values;

            fn values(values: &'a Values) -> Option<Self::Values> {
                if let Values::Scalars(Scalars::$case(values)) = values { Some(values) } else { None }
            }

            fn at(values: &Self::Values, row: usize) -> Option<Self> {
                let read: fn(&'a $values, usize) -> Option<Self> = $read;
                read(values, row)
            }
        }

        impl<'a> Read<'a> for List<'a, $type> {
            const TYPE: DataType = DataType { scalar: ScalarType::$scalar, is_list: true };
            type Values = (&'a [u32], &'a Scalars);

            fn values(values: &'a Values) -> Option<Self::Values> {
                match values {
                    Values::Lists(lists) if matches!(lists.items, Scalars::$case(_)) => {
                        Some((&lists.ends, &lists.items))
                    }
                    _ => None,
                }
            }

            fn at((ends, items): &Self::Values, row: usize) -> Option<Self> {
                let start = if row == 0 { 0 } else { *ends.get(row - 1)? as usize };
                let end = *ends.get(row)? as usize;
                (start <= end).then_some(List { items: *items, start, end, of: PhantomData })
            }
        }
    )*};
}

scalars! {
    bool: Bools, Bool, Vec<u8>, |values, row| values.get(row).map(|value| *value != 0);
    i32: Int32s, Int32, Vec<i32>, |values, row| values.get(row).copied();
    i64: Int64s, Int64, Vec<i64>, |values, row| values.get(row).copied();
    f32: Float32s, Float32, Vec<f32>, |values, row| values.get(row).copied();
    f64: Float64s, Float64, Vec<f64>, |values, row| values.get(row).copied();
    Timestamp: Timestamps, Timestamp, Vec<i64>, |values, row| values.get(row).copied().map(Timestamp);
    &'a str: Strings, Utf8, VarBytes, |var, row| std::str::from_utf8(slot(&var.ends, &var.data, row)?).ok();
    &'a [u8]: Binaries, Binary, VarBytes, |var, row| slot(&var.ends, &var.data, row);
}

pub(crate) fn type_of(column: &Column) -> DataType {
    let (scalars, is_list) = match &column.values {
        Values::Scalars(scalars) => (scalars, false),
        Values::Lists(lists) => (&lists.items, true),
    };
    let scalar = match scalars {
        Scalars::Bools(_) => ScalarType::Bool,
        Scalars::Int32s(_) => ScalarType::Int32,
        Scalars::Int64s(_) => ScalarType::Int64,
        Scalars::Float32s(_) => ScalarType::Float32,
        Scalars::Float64s(_) => ScalarType::Float64,
        Scalars::Strings(_) => ScalarType::Utf8,
        Scalars::Binaries(_) => ScalarType::Binary,
        Scalars::Timestamps(_) => ScalarType::Timestamp,
    };
    DataType { scalar, is_list }
}

/// A type as definitions write it.
pub(crate) fn type_name(of: DataType) -> String {
    let scalar = match of.scalar {
        ScalarType::Bool => "Bool",
        ScalarType::Int32 => "Int32",
        ScalarType::Int64 => "Int64",
        ScalarType::Float32 => "Float32",
        ScalarType::Float64 => "Float64",
        ScalarType::Utf8 => "String",
        ScalarType::Binary => "Bytes",
        ScalarType::Timestamp => "UnixTimestamp",
    };
    if of.is_list { format!("Array({scalar})") } else { scalar.to_owned() }
}
