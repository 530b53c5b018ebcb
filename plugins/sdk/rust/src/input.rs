//! Columns to rows: how a struct of inputs is read.
//!
//! A column is checked when a batch begins: its length, its ends, its text. Reading a row then only indexes.

use crate::{
    __private::types::{DataType, ScalarType},
    Fault, List, Timestamp,
    frame::{Frame, Part},
    list::{Item, Number, bounds},
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
    fn open(frame: &mut Frame<'a>) -> Result<Self::Readers, Fault>;

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

    /// What reads the next column, if it is one.
    #[doc(hidden)]
    fn open(frame: &mut Frame<'a>) -> Result<Self::Reader, FrameError>;

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
    fn values(frame: &mut Frame<'a>) -> Result<Self::Values, FrameError>;

    #[doc(hidden)]
    fn at(values: Self::Values, row: usize) -> Self;
}

/// Values with their nulls.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a, V> {
    pub(crate) values: V,
    /// As the contract has it; none where no row is null.
    presence: Option<&'a [u64]>,
}

/// Why a column is not what an input declares.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The frame ends before the column does.
    Cut,
    /// Ends that fall.
    Ends,
    /// Text that is none.
    Utf8,
}

/// The next column's reader, or a fault that says what is wrong with the column.
///
/// # Errors
/// If the column is not what was declared.
#[doc(hidden)]
#[inline]
pub fn open<'a, T: Input<'a>>(frame: &mut Frame<'a>, place: usize, fields: &[FieldSpec]) -> Result<T::Reader, Fault> {
    T::open(frame).map_err(|error| error.fault(fields.get(place)))
}

// === impl Reader ===

impl<'a, V> Reader<'a, V> {
    #[inline]
    fn new(presence: &'a [u64], values: V, rows: usize) -> Self {
        let mut left = rows;
        let is_whole = presence.iter().all(|word| {
            let here = left.min(64);
            left -= here;
            word.count_ones() as usize == here
        });
        Self { values, presence: (!is_whole).then_some(presence) }
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
        Fault::bad_input(match self {
            Self::Cut => format!("the frame that came ends before input '{name}' does"),
            Self::Ends => format!("input '{name}' has ends that run backwards"),
            Self::Utf8 => format!("input '{name}' has text that is not UTF-8"),
        })
    }
}

// === impl Input ===

impl<'a, T: Read<'a>> Input<'a> for Option<T> {
    const TYPE: DataType = T::TYPE;
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
    const TYPE: DataType = T::TYPE;
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
            const TYPE: DataType = DataType { scalar: <Self as Item<'a>>::SCALAR, is_list: false };
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
    const TYPE: DataType = DataType { scalar: T::SCALAR, is_list: true };
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
    const TYPE: DataType = <List<'a, T> as Read<'a>>::TYPE;
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
    const TYPE: DataType = <List<'a, T> as Read<'a>>::TYPE;
    type Values = <List<'a, T> as Read<'a>>::Values;

    fn values(frame: &mut Frame<'a>) -> Result<Self::Values, FrameError> {
        <List<'a, T> as Read<'a>>::values(frame)
    }

    #[inline]
    fn at(values: Self::Values, row: usize) -> Self {
        <List<'a, T> as Read<'a>>::at(values, row).into_iter().collect()
    }
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
