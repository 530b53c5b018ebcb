//! Columns to rows: how a struct of inputs is read.
//!
//! A column is checked when a batch begins: its type, its length, its ends, its text. Reading a row then only indexes.

use crate::{
    __private::types::{Column, DataType, ScalarType, Scalars, Values},
    Fault, List, Timestamp,
    list::{Item, Number, bounds, check_ends},
    run::FieldSpec,
};

/// A struct of inputs. `#[derive(Inputs)]` writes this.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no struct of inputs",
    label = "no struct of inputs",
    note = "it wants #[derive(Inputs)], or #[derive(InputColumns)] and `by = \"columns\"`"
)]
pub trait Inputs<'a>: Sized {
    /// What is read, in order.
    const FIELDS: &'static [FieldSpec];
    /// Something for each input that reads its column.
    type Readers;

    /// Checks the columns of a batch.
    ///
    /// # Errors
    /// A fault that names the column which is not what was declared.
    fn open(batch: Batch<'a>) -> Result<Self::Readers, Fault>;

    /// Reads a row; none where a required input is null.
    fn read(readers: &Self::Readers, row: usize) -> Option<Self>;
}

/// A type that an input can have.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no type of an input",
    label = "no type of an input",
    note = "inputs are bool, i32, i64, f32, f64, &str, String, &[u8], Vec<u8>, Timestamp, slices of numbers, and List<_> \
            and Vec<_> of any of these; each also in an Option, where it may be null"
)]
pub trait Input<'a>: Sized {
    /// What the column holds.
    const TYPE: DataType;
    /// Whether a row without it is not computed.
    const REQUIRED: bool;
    /// What reads a column.
    type Reader;

    /// What reads this column, if it is of the type.
    #[doc(hidden)]
    fn open(column: &'a Column, rows: usize) -> Result<Self::Reader, Misfit>;

    /// The value in a row; none where a required one is null.
    fn get(reader: &Self::Reader, row: usize) -> Option<Self>;
}

/// A type of values, each of which is there.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no type of an input",
    label = "no type of an input",
    note = "inputs are bool, i32, i64, f32, f64, &str, String, &[u8], Vec<u8>, Timestamp, slices of numbers, and List<_> \
            and Vec<_> of any of these; each also in an Option, where it may be null"
)]
pub trait Read<'a>: Sized {
    /// What the column holds.
    const TYPE: DataType;
    /// The values of a column.
    #[doc(hidden)]
    type Values: Copy;

    #[doc(hidden)]
    fn values(values: &'a Values, rows: usize) -> Result<Self::Values, Misfit>;

    #[doc(hidden)]
    fn at(values: Self::Values, row: usize) -> Self;
}

/// What the host sent.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// One for each input.
    pub columns: &'a [Column],
    /// Slots of every column.
    pub rows: usize,
}

/// Values with their nulls.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a, V> {
    pub(crate) values: V,
    /// Bitmap as the contract has it, of all rows.
    validity: Option<&'a [u8]>,
}

/// Why a column is not what an input declares.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// Values of another type.
    Type,
    /// So many slots, and not as many as there are rows.
    Slots(usize),
    /// Ends that fall, or that do not end where the data does.
    Ends,
    /// Text that is none.
    Utf8,
    /// A bitmap that is too short.
    Validity,
}

/// A column's reader, or a fault that says what is wrong with the column.
///
/// # Errors
/// If there are not as many columns as inputs, or this one is not what was declared.
#[doc(hidden)]
pub fn open<'a, T: Input<'a>>(batch: Batch<'a>, place: usize, fields: &[FieldSpec]) -> Result<T::Reader, Fault> {
    let (Some(column), Some(field)) = (batch.columns.get(place), fields.get(place)) else {
        return Err(count_fault(batch, fields));
    };
    if batch.columns.len() > fields.len() {
        return Err(count_fault(batch, fields));
    }
    T::open(column, batch.rows).map_err(|misfit| misfit.fault(column, field, batch.rows))
}

#[cold]
fn count_fault(batch: Batch<'_>, fields: &[FieldSpec]) -> Fault {
    Fault::bad_input(format!("{} columns came for the {} inputs of this plugin", batch.columns.len(), fields.len()))
}

// === impl Reader ===

impl<'a, V> Reader<'a, V> {
    pub(crate) fn new(values: V, column: &'a Column, rows: usize) -> Result<Self, Misfit> {
        let validity = column.validity.as_deref();
        if validity.is_some_and(|bitmap| bitmap.len() != rows.div_ceil(8)) {
            return Err(Misfit::Validity);
        }
        Ok(Self { values, validity })
    }

    #[inline]
    pub(crate) fn is_present(&self, row: usize) -> bool {
        match self.validity {
            Some(bitmap) => bitmap[row / 8] >> (row % 8) & 1 == 1,
            None => true,
        }
    }
}

// === impl Misfit ===

impl Misfit {
    #[cold]
    fn fault(self, column: &Column, field: &FieldSpec, rows: usize) -> Fault {
        let name = field.name;
        Fault::bad_input(match self {
            Self::Type => {
                let (found, declared) = (type_name(type_of(column)), type_name(field.data_type));
                format!("input '{name}' is {found}, and the plugin declares {declared}")
            }
            Self::Slots(found) => format!("input '{name}' has {found} slots for {rows} rows"),
            Self::Ends => format!("input '{name}' has ends that run backwards or beyond its data"),
            Self::Utf8 => format!("input '{name}' has text that is not UTF-8"),
            Self::Validity => format!("input '{name}' has a validity bitmap that does not fit {rows} rows"),
        })
    }
}

// === impl Input ===

impl<'a, T: Read<'a>> Input<'a> for Option<T> {
    const TYPE: DataType = T::TYPE;
    const REQUIRED: bool = false;
    type Reader = Reader<'a, T::Values>;

    fn open(column: &'a Column, rows: usize) -> Result<Self::Reader, Misfit> {
        Reader::new(T::values(&column.values, rows)?, column, rows)
    }

    #[inline]
    fn get(reader: &Self::Reader, row: usize) -> Option<Self> {
        Some(reader.is_present(row).then(|| T::at(reader.values, row)))
    }
}

impl<'a, T: Read<'a>> Input<'a> for T {
    const TYPE: DataType = T::TYPE;
    const REQUIRED: bool = true;
    type Reader = Reader<'a, T::Values>;

    fn open(column: &'a Column, rows: usize) -> Result<Self::Reader, Misfit> {
        Reader::new(T::values(&column.values, rows)?, column, rows)
    }

    #[inline]
    fn get(reader: &Self::Reader, row: usize) -> Option<Self> {
        reader.is_present(row).then(|| T::at(reader.values, row))
    }
}

// === impl Read ===

macro_rules! scalars {
    ($($type:ty),*) => {$(
        impl<'a> Read<'a> for $type {
            const TYPE: DataType = DataType { scalar: <Self as Item<'a>>::SCALAR, is_list: false };
            type Values = <Self as Item<'a>>::Values;

            fn values(values: &'a Values, rows: usize) -> Result<Self::Values, Misfit> {
                let Values::Scalars(scalars) = values else { return Err(Misfit::Type) };
                let values = <Self as Item<'a>>::values(scalars)?;
                match <Self as Item<'a>>::count(values) {
                    count if count == rows => Ok(values),
                    count => Err(Misfit::Slots(count)),
                }
            }

            #[inline]
            fn at(values: Self::Values, row: usize) -> Self {
                <Self as Item<'a>>::at(values, row)
            }
        }
    )*};
}

scalars!(bool, i32, i64, f32, f64, Timestamp, &'a str, String, &'a [u8], Vec<u8>);

impl<'a, T: Item<'a>> Read<'a> for List<'a, T> {
    const TYPE: DataType = DataType { scalar: T::SCALAR, is_list: true };
    type Values = (&'a [u32], T::Values);

    fn values(values: &'a Values, rows: usize) -> Result<Self::Values, Misfit> {
        let Values::Lists(lists) = values else { return Err(Misfit::Type) };
        let items = T::values(&lists.items)?;
        if lists.ends.len() != rows {
            return Err(Misfit::Slots(lists.ends.len()));
        }
        check_ends(&lists.ends, T::count(items))?;
        Ok((&lists.ends, items))
    }

    #[inline]
    fn at((ends, items): Self::Values, row: usize) -> Self {
        let (start, end) = bounds(ends, row);
        Self::new(items, start, end)
    }
}

impl<'a, T: Number> Read<'a> for &'a [T] {
    const TYPE: DataType = <List<'a, T> as Read<'a>>::TYPE;
    type Values = <List<'a, T> as Read<'a>>::Values;

    fn values(values: &'a Values, rows: usize) -> Result<Self::Values, Misfit> {
        <List<'a, T> as Read<'a>>::values(values, rows)
    }

    #[inline]
    fn at(values: Self::Values, row: usize) -> Self {
        <List<'a, T> as Read<'a>>::at(values, row).as_slice()
    }
}

impl<'a, T: Item<'a>> Read<'a> for Vec<T> {
    const TYPE: DataType = <List<'a, T> as Read<'a>>::TYPE;
    type Values = <List<'a, T> as Read<'a>>::Values;

    fn values(values: &'a Values, rows: usize) -> Result<Self::Values, Misfit> {
        <List<'a, T> as Read<'a>>::values(values, rows)
    }

    #[inline]
    fn at(values: Self::Values, row: usize) -> Self {
        <List<'a, T> as Read<'a>>::at(values, row).into_iter().collect()
    }
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
