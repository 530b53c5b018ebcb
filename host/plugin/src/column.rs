//! Typed columns: the inputs of a plugin, and its outputs after validation.
//!
//! Columns have the shape that version 0.1 of the contract defines, a few long vectors each, so that one is copied
//! without iterating over values; `frame.rs` lays them out for version 0.2. [`ColumnBuilder`] fills one row by row;
//! [`Output`] is read row by row.

use std::{fmt, ops::Range};

use larder_model::model::{ItemType, ListRef, ScalarType, ValueRef, ValueType};

use super::bindings::types::{self, Lists, Scalars, Values, VarBytes};

/// The types of columns that plugins support.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ColumnType {
    /// The type of each value, or of each item.
    pub scalar: ColumnScalar,
    /// Whether each slot contains a list.
    pub is_list: bool,
}

/// The type of one value, and of the items of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ColumnScalar {
    /// True or false.
    Bool,
    /// 32-bit integers.
    Int32,
    /// 64-bit integers.
    Int64,
    /// Singles.
    Float32,
    /// Doubles.
    Float64,
    /// UTF-8 text: strings, and types that Feast stores as text (JSON, UUIDs, decimals).
    Utf8,
    /// Any bytes.
    Binary,
    /// Microseconds since the Unix epoch.
    Timestamp,
}

/// An input column of a plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct Column(pub(super) types::Column);

/// Builds a column row by row, or from many rows at once with [`Extend`], which checks the type once.
#[derive(Debug)]
pub struct ColumnBuilder {
    values: Values,
    validity: Validity,
}

/// Which rows of a column have values.
#[derive(Debug, Default)]
struct Validity {
    /// A bit per row, least significant first. It begins with the first null, so that columns without nulls have none.
    bitmap: Vec<u8>,
    rows: usize,
    nulls: usize,
}

/// An output column of a plugin that was validated against the signature.
#[derive(Debug)]
pub struct Output {
    column: Column,
    /// For lists: the position of each slot's bytes in `list_bytes`, in the format that [`ListRef`] reads.
    lists: Option<OutputLists>,
}

#[derive(Debug)]
struct OutputLists {
    item: ItemType,
    slots: Vec<Range<usize>>,
    bytes: Vec<u8>,
}

/// The reason why a column that a plugin returned is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ColumnFault {
    /// Values of another type.
    #[error("is {found}, but was declared as {declared}")]
    Type {
        /// The returned type.
        found: ColumnType,
        /// The declared type.
        declared: ColumnType,
    },
    /// Too few or too many slots.
    #[error("has {found} slots for {rows} rows")]
    Length {
        /// Returned slots.
        found: usize,
        /// Rows of the call.
        rows: usize,
    },
    /// Ends that decrease, or that do not match the size of the data.
    #[error("has ends that decrease or exceed its data")]
    Ends,
    /// Text that is not valid UTF-8.
    #[error("has text that is not UTF-8")]
    Utf8,
    /// A bool that is neither 0 nor 1.
    #[error("has a bool that is neither 0 nor 1")]
    Bool,
    /// A bitmap of another size, or with bits beyond the rows.
    #[error("has a validity bitmap that does not match {rows} rows")]
    Validity {
        /// Rows of the call.
        rows: usize,
    },
    /// Nulls in a column that is declared not nullable.
    #[error("has a null, but was declared not nullable")]
    Null,
    /// The returned bytes end before the column does.
    #[error("is truncated: the returned bytes end before it does")]
    Cut,
    /// Padding that is not zero.
    #[error("has padding that is not zero: are its ends too small?")]
    Padding,
}

// === impl ColumnType ===

impl ColumnType {
    /// Text, one per slot.
    pub const TEXT: Self = Self { scalar: ColumnScalar::Utf8, is_list: false };

    /// Instants, one per slot.
    pub const TIMESTAMP: Self = Self { scalar: ColumnScalar::Timestamp, is_list: false };

    /// Returns the type of columns with a feature's values; `None` for nested types, which plugins can neither read nor
    /// compute.
    #[must_use]
    pub fn of(value_type: ValueType) -> Option<Self> {
        let scalar = |scalar: ScalarType| match scalar {
            ScalarType::Bool => ColumnScalar::Bool,
            ScalarType::Int32 => ColumnScalar::Int32,
            ScalarType::Int64 => ColumnScalar::Int64,
            ScalarType::Float32 => ColumnScalar::Float32,
            ScalarType::Float64 => ColumnScalar::Float64,
            ScalarType::String | ScalarType::Json | ScalarType::Uuid | ScalarType::TimeUuid | ScalarType::Decimal => {
                ColumnScalar::Utf8
            }
            ScalarType::Bytes | ScalarType::PdfBytes | ScalarType::ImageBytes => ColumnScalar::Binary,
            ScalarType::UnixTimestamp => ColumnScalar::Timestamp,
        };
        match value_type {
            ValueType::Scalar(of) => Some(Self { scalar: scalar(of), is_list: false }),
            ValueType::List(of) | ValueType::Set(of) => Some(Self { scalar: scalar(of), is_list: true }),
            ValueType::Nested(_) => None,
        }
    }
}

/// Formats the type as in definitions.
impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scalar = ScalarType::from(self.scalar);
        let value_type = if self.is_list { ValueType::List(scalar) } else { ValueType::Scalar(scalar) };
        write!(f, "{value_type}")
    }
}

impl From<ColumnScalar> for ScalarType {
    /// Returns the plain type among those that share a column's shape.
    fn from(scalar: ColumnScalar) -> Self {
        match scalar {
            ColumnScalar::Bool => Self::Bool,
            ColumnScalar::Int32 => Self::Int32,
            ColumnScalar::Int64 => Self::Int64,
            ColumnScalar::Float32 => Self::Float32,
            ColumnScalar::Float64 => Self::Float64,
            ColumnScalar::Utf8 => Self::String,
            ColumnScalar::Binary => Self::Bytes,
            ColumnScalar::Timestamp => Self::UnixTimestamp,
        }
    }
}

// === impl Column ===

impl Column {
    /// Returns the number of slots.
    #[must_use]
    pub fn rows(&self) -> usize {
        match &self.0.values {
            Values::Scalars(scalars) => len(scalars),
            Values::Lists(lists) => lists.ends.len(),
        }
    }

    /// Returns the type of its values.
    #[must_use]
    pub fn column_type(&self) -> ColumnType {
        match &self.0.values {
            Values::Scalars(scalars) => ColumnType { scalar: scalar_of(scalars), is_list: false },
            Values::Lists(lists) => ColumnType { scalar: scalar_of(&lists.items), is_list: true },
        }
    }

    /// Copies some of its slots to a new column.
    #[must_use]
    pub fn slice(&self, rows: Range<usize>) -> Self {
        let mut part = ColumnBuilder::new(self.column_type(), rows.len());
        for row in rows {
            match &self.0.values {
                _ if !self.is_present(row) => part.push(ValueRef::Null),
                Values::Scalars(scalars) => part.push(at(scalars, row)),
                Values::Lists(lists) => part.push_list(slot(&lists.ends, row).map(|item| at(&lists.items, item))),
            }
        }
        part.finish()
    }

    /// Returns whether all slots without a value are zero or empty.
    fn has_empty_nulls(&self) -> bool {
        let is_empty = |row: usize| match &self.0.values {
            Values::Scalars(scalars) => match at(scalars, row) {
                ValueRef::Bool(value) => !value,
                ValueRef::Int32(value) => value == 0,
                ValueRef::Int64(value) => value == 0,
                ValueRef::Float32(value) => value.to_bits() == 0,
                ValueRef::Float64(value) => value.to_bits() == 0,
                ValueRef::Bytes(value) => value.is_empty(),
                _ => true,
            },
            Values::Lists(lists) => slot(&lists.ends, row).is_empty(),
        };
        let bitmap = self.0.validity.iter().flatten().enumerate();
        let with_nulls = bitmap.filter(|(_, byte)| **byte != 0xff);
        with_nulls
            .flat_map(|(at, byte)| (0..8).filter(move |bit| byte >> bit & 1 == 0).map(move |bit| at * 8 + bit))
            .take_while(|row| *row < self.rows())
            .all(is_empty)
    }

    /// Returns whether a slot has a value.
    #[must_use]
    pub fn is_present(&self, row: usize) -> bool {
        let bit = |bitmap: &Vec<u8>| bitmap.get(row / 8).is_some_and(|byte| byte >> (row % 8) & 1 == 1);
        self.0.validity.as_ref().is_none_or(bit)
    }
}

// === impl ColumnBuilder ===

impl ColumnBuilder {
    /// Creates a column of this type, with capacity for this many rows.
    #[must_use]
    pub fn new(column_type: ColumnType, rows: usize) -> Self {
        let values = if column_type.is_list {
            Values::Lists(Lists { ends: Vec::with_capacity(rows), items: empty(column_type.scalar, rows) })
        } else {
            Values::Scalars(empty(column_type.scalar, rows))
        };
        Self { values, validity: Validity::default() }
    }

    /// Adds a row. A value that is not of the column's type becomes a null: types were compared when the column was
    /// planned.
    pub fn push(&mut self, value: ValueRef<'_>) {
        self.extend([value]);
    }

    /// Adds a row of a list column, item by item; in another column, adds a null.
    pub fn push_list<'v>(&mut self, items: impl Iterator<Item = ValueRef<'v>>) {
        let Values::Lists(lists) = &mut self.values else { return self.push(ValueRef::Null) };
        lists.push(items);
        self.validity.note(true);
    }

    /// Adds a row of zero, false or nothing, which is not a null.
    pub fn push_default(&mut self) {
        match &mut self.values {
            Values::Scalars(scalars) => put(scalars, [ValueRef::Null].into_iter(), |_| ()),
            Values::Lists(lists) => lists.push([].into_iter()),
        }
        self.validity.note(true);
    }

    /// Returns the finished column.
    #[must_use]
    pub fn finish(self) -> Column {
        let validity = (self.validity.nulls > 0).then_some(self.validity.bitmap);
        Column(types::Column { values: self.values, validity })
    }
}

impl<'v> Extend<ValueRef<'v>> for ColumnBuilder {
    fn extend<T: IntoIterator<Item = ValueRef<'v>>>(&mut self, values: T) {
        let Self { values: of, validity } = self;
        match of {
            Values::Scalars(scalars) => put(scalars, values.into_iter(), |present| validity.note(present)),
            Values::Lists(lists) => {
                for value in values {
                    match value {
                        ValueRef::List(list) => lists.push(list.iter()),
                        _ => lists.push([].into_iter()),
                    }
                    validity.note(matches!(value, ValueRef::List(_)));
                }
            }
        }
    }
}

impl Lists {
    fn push<'v>(&mut self, items: impl Iterator<Item = ValueRef<'v>>) {
        put(&mut self.items, items, |_| ());
        self.ends.push(end(len(&self.items)));
    }
}

// === impl Validity ===

impl Validity {
    #[inline]
    fn note(&mut self, present: bool) {
        if !present || self.nulls > 0 {
            self.note_among_nulls(present);
        }
        self.rows += 1;
    }

    #[cold]
    fn note_among_nulls(&mut self, present: bool) {
        if self.nulls == 0 {
            self.bitmap = vec![0xff; self.rows / 8];
            if !self.rows.is_multiple_of(8) {
                self.bitmap.push((1 << (self.rows % 8)) - 1);
            }
        }
        self.nulls += usize::from(!present);
        if self.rows.is_multiple_of(8) {
            self.bitmap.push(0);
        }
        if let Some(byte) = self.bitmap.last_mut() {
            *byte |= u8::from(present) << (self.rows % 8);
        }
    }
}

// === impl Output ===

impl Output {
    /// Validates a column that a plugin returned against its declaration.
    ///
    /// # Errors
    /// The first fault.
    pub fn check(column: Column, declared: ColumnType, nullable: bool, rows: usize) -> Result<Self, ColumnFault> {
        let found = column.column_type();
        if found != declared {
            return Err(ColumnFault::Type { found, declared });
        }
        match &column.0.values {
            Values::Scalars(scalars) => check_scalars(scalars)?,
            Values::Lists(lists) => {
                check_scalars(&lists.items)?;
                check_ends(&lists.ends, len(&lists.items))?;
            }
        }
        if column.rows() != rows {
            return Err(ColumnFault::Length { found: column.rows(), rows });
        }
        if let Some(bitmap) = &column.0.validity {
            let stray = match (bitmap.last(), rows % 8) {
                (Some(last), used @ 1..) => last >> used != 0,
                _ => false,
            };
            if bitmap.len() != rows.div_ceil(8) || stray {
                return Err(ColumnFault::Validity { rows });
            }
            let present: usize = bitmap.iter().map(|byte| byte.count_ones() as usize).sum();
            if !nullable && present != rows {
                return Err(ColumnFault::Null);
            }
            // The next plugin expects zeros there, and so does a plugin that gets a part of a batch.
            if present != rows && !column.has_empty_nulls() {
                return Ok(Self::trusted(column.slice(0..rows)));
            }
        }
        Ok(Self::trusted(column))
    }

    /// Wraps a column that the host built, which needs no validation.
    pub(super) fn trusted(column: Column) -> Self {
        let lists = match &column.0.values {
            Values::Lists(lists) => Some(OutputLists::of(lists)),
            Values::Scalars(_) => None,
        };
        Self { column, lists }
    }

    /// Returns the value in a row; null if there is none.
    #[must_use]
    pub fn get(&self, row: usize) -> ValueRef<'_> {
        if row >= self.column.rows() || !self.column.is_present(row) {
            return ValueRef::Null;
        }
        match (&self.column.0.values, &self.lists) {
            (Values::Scalars(scalars), _) => at(scalars, row),
            (_, Some(lists)) => {
                let bytes = lists.bytes.get(lists.slots[row].clone()).unwrap_or_default();
                ListRef::parse(lists.item, bytes).map_or(ValueRef::Null, ValueRef::List)
            }
            (_, None) => ValueRef::Null,
        }
    }

    /// Returns the column, as input for a plugin that reads it.
    #[must_use]
    pub fn column(&self) -> &Column {
        &self.column
    }
}

impl OutputLists {
    /// Lays out lists as in rows, which is the format for all readers of lists.
    fn of(lists: &Lists) -> Self {
        let item = ScalarType::from(scalar_of(&lists.items)).item();
        let mut bytes = Vec::new();
        let mut slots = Vec::with_capacity(lists.ends.len());
        let mut first = 0;
        for last in lists.ends.iter().map(|end| *end as usize) {
            let start = bytes.len();
            put_list(&lists.items, first..last, &mut bytes);
            slots.push(start..bytes.len());
            first = last;
        }
        Self { item, slots, bytes }
    }
}

fn empty(scalar: ColumnScalar, rows: usize) -> Scalars {
    let var = || VarBytes { ends: Vec::with_capacity(rows), data: Vec::new() };
    match scalar {
        ColumnScalar::Bool => Scalars::Bools(Vec::with_capacity(rows)),
        ColumnScalar::Int32 => Scalars::Int32s(Vec::with_capacity(rows)),
        ColumnScalar::Int64 => Scalars::Int64s(Vec::with_capacity(rows)),
        ColumnScalar::Float32 => Scalars::Float32s(Vec::with_capacity(rows)),
        ColumnScalar::Float64 => Scalars::Float64s(Vec::with_capacity(rows)),
        ColumnScalar::Utf8 => Scalars::Strings(var()),
        ColumnScalar::Binary => Scalars::Binaries(var()),
        ColumnScalar::Timestamp => Scalars::Timestamps(Vec::with_capacity(rows)),
    }
}

/// Adds values; a null, or a value of another type, is added as zero or empty. Calls `note` with whether each value was
/// added unchanged.
#[inline]
fn put<'v>(scalars: &mut Scalars, values: impl Iterator<Item = ValueRef<'v>>, mut note: impl FnMut(bool)) {
    macro_rules! fixed {
        ($to:ident, $case:ident, $as:ty) => {
            $to.extend(values.map(|value| -> $as {
                let known = if let ValueRef::$case(value) = value { Some(value.into()) } else { None };
                note(known.is_some());
                known.unwrap_or_default()
            }))
        };
    }
    match scalars {
        Scalars::Bools(to) => fixed!(to, Bool, u8),
        Scalars::Int32s(to) => fixed!(to, Int32, i32),
        Scalars::Int64s(to) | Scalars::Timestamps(to) => fixed!(to, Int64, i64),
        Scalars::Float32s(to) => fixed!(to, Float32, f32),
        Scalars::Float64s(to) => fixed!(to, Float64, f64),
        Scalars::Strings(to) | Scalars::Binaries(to) => {
            for value in values {
                let known = if let ValueRef::Bytes(value) = value { Some(value) } else { None };
                note(known.is_some());
                to.data.extend_from_slice(known.unwrap_or_default());
                to.ends.push(end(to.data.len()));
            }
        }
    }
}

/// Converts an end. A request's values are far below 2^32 bytes; a larger end would be truncated, and the guest would
/// see ends that decrease.
fn end(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn len(scalars: &Scalars) -> usize {
    match scalars {
        Scalars::Bools(values) => values.len(),
        Scalars::Int32s(values) => values.len(),
        Scalars::Int64s(values) | Scalars::Timestamps(values) => values.len(),
        Scalars::Float32s(values) => values.len(),
        Scalars::Float64s(values) => values.len(),
        Scalars::Strings(var) | Scalars::Binaries(var) => var.ends.len(),
    }
}

fn scalar_of(scalars: &Scalars) -> ColumnScalar {
    match scalars {
        Scalars::Bools(_) => ColumnScalar::Bool,
        Scalars::Int32s(_) => ColumnScalar::Int32,
        Scalars::Int64s(_) => ColumnScalar::Int64,
        Scalars::Float32s(_) => ColumnScalar::Float32,
        Scalars::Float64s(_) => ColumnScalar::Float64,
        Scalars::Strings(_) => ColumnScalar::Utf8,
        Scalars::Binaries(_) => ColumnScalar::Binary,
        Scalars::Timestamps(_) => ColumnScalar::Timestamp,
    }
}

fn at(scalars: &Scalars, row: usize) -> ValueRef<'_> {
    match scalars {
        Scalars::Bools(values) => ValueRef::Bool(values[row] != 0),
        Scalars::Int32s(values) => ValueRef::Int32(values[row]),
        Scalars::Int64s(values) | Scalars::Timestamps(values) => ValueRef::Int64(values[row]),
        Scalars::Float32s(values) => ValueRef::Float32(values[row]),
        Scalars::Float64s(values) => ValueRef::Float64(values[row]),
        Scalars::Strings(var) | Scalars::Binaries(var) => ValueRef::Bytes(&var.data[slot(&var.ends, row)]),
    }
}

/// Returns the range of slot `row`; [`check_ends`] has validated the ends.
fn slot(ends: &[u32], row: usize) -> Range<usize> {
    let start = if row == 0 { 0 } else { ends[row - 1] };
    start as usize..ends[row] as usize
}

fn check_scalars(scalars: &Scalars) -> Result<(), ColumnFault> {
    match scalars {
        Scalars::Bools(values) if values.iter().any(|value| *value > 1) => Err(ColumnFault::Bool),
        Scalars::Strings(var) => {
            check_ends(&var.ends, var.data.len())?;
            let text = std::str::from_utf8(&var.data).map_err(|_| ColumnFault::Utf8)?;
            let whole = var.ends.iter().all(|end| text.is_char_boundary(*end as usize));
            if whole { Ok(()) } else { Err(ColumnFault::Utf8) }
        }
        Scalars::Binaries(var) => check_ends(&var.ends, var.data.len()),
        _ => Ok(()),
    }
}

fn check_ends(ends: &[u32], len: usize) -> Result<(), ColumnFault> {
    let last = ends.last().map_or(0, |end| *end as usize);
    if ends.is_sorted() && last == len { Ok(()) } else { Err(ColumnFault::Ends) }
}

/// Writes items in the format of [`ListRef`]: items of fixed width one after another; others after their ends.
fn put_list(items: &Scalars, range: Range<usize>, bytes: &mut Vec<u8>) {
    match items {
        Scalars::Bools(values) => bytes.extend_from_slice(&values[range]),
        Scalars::Int32s(values) => values[range].iter().for_each(|value| bytes.extend(value.to_le_bytes())),
        Scalars::Int64s(values) | Scalars::Timestamps(values) => {
            values[range].iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        }
        Scalars::Float32s(values) => values[range].iter().for_each(|value| bytes.extend(value.to_le_bytes())),
        Scalars::Float64s(values) => values[range].iter().for_each(|value| bytes.extend(value.to_le_bytes())),
        Scalars::Strings(var) | Scalars::Binaries(var) => {
            bytes.extend(end(range.len()).to_le_bytes());
            let (start, stop) = (slot_start(&var.ends, range.start), slot_start(&var.ends, range.end));
            for last in &var.ends[range] {
                bytes.extend((last - end(start)).to_le_bytes());
            }
            bytes.extend_from_slice(&var.data[start..stop]);
        }
    }
}

/// Returns the start of slot `row`; for the slot after the last one, the end of the data.
fn slot_start(ends: &[u32], row: usize) -> usize {
    if row == 0 { 0 } else { ends[row - 1] as usize }
}

#[cfg(test)]
pub(super) mod tests;
