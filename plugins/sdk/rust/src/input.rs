//! Reads structs of inputs: converts columns to rows.
//!
//! The length, ends and text of a column are checked once per batch. Reading a row then only needs its index.

use crate::{
    __private::types::ScalarType,
    Fault, List, Timestamp,
    frame::{Frame, Part, last_word},
    list::{Item, Number, bounds},
    run::{ColumnType, FieldSpec},
};

/// A struct of inputs. Derive it with `#[derive(Inputs)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a struct of inputs",
    label = "not a struct of inputs",
    note = "add #[derive(Inputs)], or #[derive(InputColumns)] and `by = \"columns\"`"
)]
pub trait Inputs<'a>: Sized {
    /// The inputs, in order.
    const FIELDS: &'static [FieldSpec];
    /// A reader for the column of each input.
    type Readers;

    /// Checks the columns of a batch.
    ///
    /// # Errors
    /// Returns a fault with the name of a column that does not match its declaration.
    fn open(frame: &mut Frame<'a>) -> Result<Self::Readers, Fault>;

    /// Reads a row. Returns `None` if a required input is null.
    fn read(readers: &Self::Readers, row: usize) -> Option<Self>;
}

/// A type that an input can have.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the type of an input",
    label = "not a type of an input",
    note = "inputs are bool, i32, i64, f32, f64, &str, String, &[u8], Vec<u8>, Timestamp, slices of numbers, and List<_> \
            and Vec<_> of these; use Option for an input that may be null, and for items that may be null"
)]
pub trait Input<'a>: Sized {
    /// The type of the column.
    const TYPE: ColumnType;
    /// Whether rows without a value are skipped.
    const REQUIRED: bool;
    /// The reader of a column.
    type Reader;

    /// Returns the reader of the next column, if it matches the type.
    #[doc(hidden)]
    fn open(frame: &mut Frame<'a>) -> Result<Self::Reader, FrameError>;

    /// Returns the value in a row, or `None` if the value is null and required.
    fn get(reader: &Self::Reader, row: usize) -> Option<Self>;
}

/// A type of values that are not null.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the type of an input",
    label = "not a type of an input",
    note = "inputs are bool, i32, i64, f32, f64, &str, String, &[u8], Vec<u8>, Timestamp, slices of numbers, and List<_> \
            and Vec<_> of these; use Option for an input that may be null, and for items that may be null"
)]
pub trait Read<'a>: Sized {
    /// The type of the column.
    const TYPE: ColumnType;
    /// The values of a column.
    #[doc(hidden)]
    type Values: Copy;

    #[doc(hidden)]
    fn values(frame: &mut Frame<'a>) -> Result<Self::Values, FrameError>;

    #[doc(hidden)]
    fn at(values: Self::Values, row: usize) -> Self;
}

/// The values of a column, or the items of its lists, and their presence bitmap.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a, V> {
    pub(crate) values: V,
    /// The bitmap in the layout of the contract; `None` if no value is null.
    presence: Option<&'a [u64]>,
}

/// Why a column does not match the declaration of its input.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The frame ends before the column does.
    Cut,
    /// The ends decrease.
    Ends,
    /// The text is not UTF-8.
    Utf8,
}

/// Returns the reader of the next column.
///
/// # Errors
/// Returns a fault that describes how the column differs from its declaration.
#[doc(hidden)]
#[inline]
pub fn open<'a, T: Input<'a>>(frame: &mut Frame<'a>, index: usize, fields: &[FieldSpec]) -> Result<T::Reader, Fault> {
    T::open(frame).map_err(|error| error.fault(fields.get(index)))
}

// === impl Reader ===

impl<'a, V> Reader<'a, V> {
    #[inline]
    pub(crate) fn new(presence: &'a [u64], values: V, count: usize) -> Self {
        let is_whole = match presence.split_last() {
            Some((last, others)) => *last == last_word(count) && others.iter().all(|word| *word == u64::MAX),
            None => true,
        };
        Self { values, presence: (!is_whole).then_some(presence) }
    }

    pub(crate) fn has_nulls(&self) -> bool {
        self.presence.is_some()
    }

    #[inline]
    pub(crate) fn is_present(&self, row: usize) -> bool {
        match self.presence {
            Some(words) => words[row / 64] >> (row % 64) & 1 == 1,
            None => true,
        }
    }
}

// === impl FrameError ===

impl FrameError {
    #[cold]
    fn fault(self, field: Option<&FieldSpec>) -> Fault {
        let name = field.map_or("?", |field| field.name);
        Fault::new(match self {
            Self::Cut => format!("the received frame ends before the end of input '{name}'"),
            Self::Ends => format!("the end offsets of input '{name}' decrease"),
            Self::Utf8 => format!("input '{name}' has text that is not UTF-8"),
        })
    }
}

// === impl Input ===

impl<'a, T: Read<'a>> Input<'a> for Option<T> {
    const TYPE: ColumnType = T::TYPE;
    const REQUIRED: bool = false;
    type Reader = Reader<'a, T::Values>;

    #[inline]
    fn open(frame: &mut Frame<'a>) -> Result<Self::Reader, FrameError> {
        let presence = frame.presence()?;
        Ok(Reader::new(presence, T::values(frame)?, frame.rows))
    }

    #[inline]
    fn get(reader: &Self::Reader, row: usize) -> Option<Self> {
        Some(reader.is_present(row).then(|| T::at(reader.values, row)))
    }
}

impl<'a, T: Read<'a>> Input<'a> for T {
    const TYPE: ColumnType = T::TYPE;
    const REQUIRED: bool = true;
    type Reader = Reader<'a, T::Values>;

    #[inline]
    fn open(frame: &mut Frame<'a>) -> Result<Self::Reader, FrameError> {
        let presence = frame.presence()?;
        Ok(Reader::new(presence, T::values(frame)?, frame.rows))
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
            const TYPE: ColumnType = ColumnType::scalar(<Self as Item<'a>>::SCALAR);
            type Values = <Self as Item<'a>>::Values;

            #[inline]
            fn values(frame: &mut Frame<'a>) -> Result<Self::Values, FrameError> {
                let rows = frame.rows;
                <Self as Item<'a>>::values(frame, Part::Head, rows)
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
    const TYPE: ColumnType = ColumnType::list(T::SCALAR, T::NULLABLE);
    type Values = (&'a [u32], T::Values);

    fn values(frame: &mut Frame<'a>) -> Result<Self::Values, FrameError> {
        let (ends, items) = frame.ends(Part::Head, frame.rows)?;
        Ok((ends, T::values(frame, Part::Tail, items)?))
    }

    #[inline]
    fn at((ends, items): Self::Values, row: usize) -> Self {
        let (start, end) = bounds(ends, row);
        Self::new(items, start, end)
    }
}

impl<'a, T: Number> Read<'a> for &'a [T] {
    const TYPE: ColumnType = <List<'a, T> as Read<'a>>::TYPE;
    type Values = <List<'a, T> as Read<'a>>::Values;

    fn values(frame: &mut Frame<'a>) -> Result<Self::Values, FrameError> {
        <List<'a, T> as Read<'a>>::values(frame)
    }

    #[inline]
    fn at(values: Self::Values, row: usize) -> Self {
        <List<'a, T> as Read<'a>>::at(values, row).as_slice()
    }
}

impl<'a, T: Item<'a>> Read<'a> for Vec<T> {
    const TYPE: ColumnType = <List<'a, T> as Read<'a>>::TYPE;
    type Values = <List<'a, T> as Read<'a>>::Values;

    fn values(frame: &mut Frame<'a>) -> Result<Self::Values, FrameError> {
        <List<'a, T> as Read<'a>>::values(frame)
    }

    #[inline]
    fn at(values: Self::Values, row: usize) -> Self {
        <List<'a, T> as Read<'a>>::at(values, row).into_iter().collect()
    }
}

/// Returns the name of a type in feature definitions.
pub(crate) fn type_name(of: ColumnType) -> String {
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
