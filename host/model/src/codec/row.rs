//! The row format of the online store: one record per (feature view, entity id).
//!
//! ```text
//!  0        1        2                 4                                   8
//!  +--------+--------+--------+--------+--------+--------+--------+--------+
//!  | version| flags  | number of fields|        schema fingerprint         |
//!  +--------+--------+--------+--------+--------+--------+--------+--------+
//!  |                 event time, microseconds since the epoch              | 8
//!  +--------+--------+--------+--------+--------+--------+--------+--------+
//!  |           created time, microseconds; the smallest i64 if none        | 16
//!  +--------+--------+--------+--------+--------+--------+--------+--------+
//!  | null bitmap: bit i of byte i/8, 1 = present; ceil(n/8) bytes          | 24
//!  +-----------------------------------------------------------------------+
//!  | slots: per field, in order, not aligned                               |
//!  |   bool 1 byte | int32, float32 4 | int64, float64 8                   |
//!  |   bytes, list 4: the end of its bytes, relative to the variable part  |
//!  +-----------------------------------------------------------------------+
//!  | variable part: bytes and lists, in field order, without gaps          |
//!  |   list of fixed-width items: the items                                |
//!  |   list of bytes: u32 number of items, u32 end of each item, the data  |
//!  +-----------------------------------------------------------------------+
//!  | if bit 0 of the flags is set: remaining nanoseconds of the event time |
//!  |   and of the created time, u32 each                                   |
//!  +-----------------------------------------------------------------------+
//! ```
//!
//! The nanoseconds are used only to compare rows whose headers have equal times; see [`RowRank`]. A row whose times are
//! whole microseconds has no nanoseconds.
//!
//! All integers are little-endian. A variable field begins at the end of the previous variable field, so a reader finds
//! it with two loads and does not read other fields. The slot of a null is zero, but the slot of a variable field that
//! is null contains the end of the previous variable field. Therefore, rows with equal values have equal bytes.
//!
//! [`RowView`] reads exactly the values that were pushed to a [`RowBuilder`]. Reading arbitrary bytes returns an error
//! or some value, and never panics.

use std::cmp::Ordering;

use super::{
    Fingerprint, RowSchema,
    row_layout::{CREATED_AT, EVENT_TIME_AT, FIELD_COUNT_AT, FINGERPRINT_AT, FLAGS_AT, HEADER_BYTES},
    schema::Field,
};
use crate::model::{ItemType, ListRef, Micros, Physical, Value, ValueRef};

/// The version of the row format that this code writes. It is the only version so far.
pub const FORMAT_VERSION: u8 = 1;

/// The maximum size of one row in bytes. DynamoDB limits items to 400 KB, so a larger row is probably a mistake in the
/// source.
pub const ROW_BYTES_MAX: usize = 4 << 20;

/// The flag of a row that ends with nanoseconds.
const HAS_NANOS: u8 = 1;
/// The size in bytes of the nanoseconds at the end of a row.
const NANOS_BYTES: usize = 2 * size_of::<u32>();

/// The stored created time of a row without one. It is less than every other created time, so the row loses ties.
const CREATED_NONE: i64 = i64::MIN;

/// Why a row cannot be written or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// The row has fewer bytes than its header and slots need.
    #[error("row is truncated: {len} bytes, at least {needed} needed")]
    Truncated {
        /// The number of bytes.
        len: usize,
        /// The number of bytes needed.
        needed: usize,
    },
    /// The row was written by a newer Larder, or the bytes are not a row.
    #[error("row format version {0} is unknown (expected {FORMAT_VERSION})")]
    Version(u8),
    /// The row was written with another schema.
    #[error("row has schema {got:08x}, expected {expected:08x}")]
    Schema {
        /// The fingerprint in the row.
        got: u32,
        /// The fingerprint of the schema that the row was read with.
        expected: u32,
    },
    /// The bytes of a field are not a value of its type. The text is the name of the field.
    #[error("field '{0}' of the row is damaged")]
    Damaged(String),
    /// The value does not have the shape of the field.
    #[error("field '{field}' takes {expected:?}, but got another shape")]
    Type {
        /// The field.
        field: String,
        /// The shape of the field.
        expected: Physical,
    },
    /// The number of values is not the number of fields, or there is no field with the requested index.
    #[error("row has {got} values, but its schema has {expected} fields")]
    Count {
        /// The number of values that were pushed, or one more than the requested index.
        got: usize,
        /// The number of fields in the schema.
        expected: usize,
    },
    /// The row has more than [`ROW_BYTES_MAX`] bytes.
    #[error("row is {0} bytes long, but at most {ROW_BYTES_MAX} are allowed")]
    TooLong(usize),
}

/// The fixed start of every row, readable without a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowHeader {
    /// The schema that the row was written with.
    pub fingerprint: Fingerprint,
    /// The time at which the values were true.
    pub event_time: Micros,
    /// The created time of the row, if its source has one. `None` is less than every time.
    pub created: Option<Micros>,
}

/// The times of a row, at the precision of its source. If two rows have the same key, their ranks decide which row
/// wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowRank {
    /// The header of the row.
    pub header: RowHeader,
    /// The remaining nanoseconds of the event time and the created time; `None` if the row has no nanoseconds.
    nanos: Option<(u32, u32)>,
}

/// Writes rows of one schema, one after another, into one buffer that is reused.
#[derive(Debug)]
pub struct RowBuilder<'s> {
    schema: &'s RowSchema,
    row: Vec<u8>,
    /// The index of the field that gets the next value.
    next: usize,
    /// The remaining nanoseconds of the row's event time and created time.
    nanos: (u32, u32),
}

/// A row whose values are read from its bytes, without a copy.
#[derive(Clone, Copy, Debug)]
pub struct RowView<'a> {
    schema: &'a RowSchema,
    row: &'a [u8],
}

// === impl RowHeader ===

impl RowHeader {
    /// Reads the header of a row.
    ///
    /// # Errors
    /// [`RowError::Truncated`] and [`RowError::Version`].
    pub fn read(row: &[u8]) -> Result<Self, RowError> {
        let truncated = || RowError::Truncated { len: row.len(), needed: HEADER_BYTES };
        match row.first() {
            None => return Err(truncated()),
            Some(&FORMAT_VERSION) => {}
            Some(&other) => return Err(RowError::Version(other)),
        }
        let created = i64::from_le_bytes(load(row, CREATED_AT).ok_or_else(truncated)?);
        Ok(Self {
            fingerprint: Fingerprint(u32::from_le_bytes(load(row, FINGERPRINT_AT).ok_or_else(truncated)?)),
            event_time: i64::from_le_bytes(load(row, EVENT_TIME_AT).ok_or_else(truncated)?),
            created: (created != CREATED_NONE).then_some(created),
        })
    }

    /// Returns the times of the row in microseconds. If two rows have the same key, the row with the greater pair wins.
    /// [`RowRank`] also compares nanoseconds.
    #[must_use]
    pub fn precedence(&self) -> (Micros, Option<Micros>) {
        (self.event_time, self.created)
    }
}

// === impl RowRank ===

impl RowRank {
    /// Reads the times of a row, including nanoseconds.
    ///
    /// # Errors
    /// [`RowError::Truncated`] and [`RowError::Version`].
    pub fn read(row: &[u8]) -> Result<Self, RowError> {
        let header = RowHeader::read(row)?;
        let has_nanos = row.get(FLAGS_AT).is_some_and(|flags| flags & HAS_NANOS != 0);
        let nanos = if has_nanos && row.len() >= HEADER_BYTES + NANOS_BYTES {
            let at = row.len() - NANOS_BYTES;
            let part = |at| load(row, at).map_or(0, u32::from_le_bytes);
            Some((part(at), part(at + size_of::<u32>())))
        } else {
            None
        };
        Ok(Self { header, nanos })
    }

    /// Returns the remaining nanoseconds of the event time and the created time.
    #[must_use]
    pub fn nanos(&self) -> (u32, u32) {
        self.nanos.unwrap_or_default()
    }

    /// Compares two rows with the same key. The row with the later event time is greater. If the event times are equal,
    /// the row with the later created time is greater. A row without a created time is less than a row with one.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        let (own, others) = (self.nanos.unwrap_or_default(), other.nanos.unwrap_or_default());
        let key = |rank: &Self, nanos: (u32, u32)| (rank.header.event_time, nanos.0, rank.header.created, nanos.1);
        key(self, own).cmp(&key(other, others))
    }

    /// Compares two rows with the same key, if the source of one of them may truncate times. Compares nanoseconds and
    /// created times only if both rows have them. Rows with equal times at that precision are equal.
    #[must_use]
    pub fn compare_coarsely(&self, other: &Self) -> Ordering {
        let both = self.nanos.zip(other.nanos);
        let event = self.header.event_time.cmp(&other.header.event_time);
        let event = event.then_with(|| both.map_or(Ordering::Equal, |(own, others)| own.0.cmp(&others.0)));
        event.then_with(|| match (self.header.created, other.header.created) {
            (Some(own), Some(others)) => {
                own.cmp(&others).then_with(|| both.map_or(Ordering::Equal, |(own, others)| own.1.cmp(&others.1)))
            }
            _ => Ordering::Equal,
        })
    }
}

// === impl RowBuilder ===

impl<'s> RowBuilder<'s> {
    /// Creates a builder of rows with this schema.
    #[must_use]
    pub fn new(schema: &'s RowSchema) -> Self {
        Self { schema, row: Vec::new(), next: 0, nanos: (0, 0) }
    }

    /// Starts a row. After this, call [`RowBuilder::push`] once for each field, and then [`RowBuilder::finish`].
    pub fn begin(&mut self, event_time: Micros, created: Option<Micros>) {
        self.next = 0;
        self.nanos = (0, 0);
        self.row.clear();
        self.row.resize(self.schema.var_at(), 0);
        self.row[0] = FORMAT_VERSION;
        // `finish` returns an error for a schema with more fields.
        let count = u16::try_from(self.schema.len()).unwrap_or(u16::MAX);
        self.store(FIELD_COUNT_AT, &count.to_le_bytes());
        self.store(FINGERPRINT_AT, &self.schema.fingerprint().0.to_le_bytes());
        self.store(EVENT_TIME_AT, &event_time.to_le_bytes());
        self.store(CREATED_AT, &created.unwrap_or(CREATED_NONE).to_le_bytes());
    }

    /// Sets the nanoseconds of the current row's times: the remainders, from 0 to 999, below the microseconds that
    /// [`RowBuilder::begin`] gets.
    pub fn set_nanos(&mut self, event_time: u32, created: u32) {
        self.nanos = (event_time, created);
    }

    /// Appends the next field's value.
    ///
    /// # Errors
    /// [`RowError::Type`] if the value does not have the shape of the field, [`RowError::Count`] if all fields already
    /// have values, and [`RowError::TooLong`] if the row becomes too long.
    pub fn push(&mut self, value: ValueRef<'_>) -> Result<(), RowError> {
        let field = self.next_field()?;
        let at = field.at;
        match (field.physical, value) {
            (Physical::Bytes | Physical::List(_), ValueRef::Null) => return self.end_var(at, false),
            (_, ValueRef::Null) => return Ok(()),
            (Physical::Bool, ValueRef::Bool(v)) => self.store(at, &[u8::from(v)]),
            (Physical::Int32, ValueRef::Int32(v)) => self.store(at, &v.to_le_bytes()),
            (Physical::Int64, ValueRef::Int64(v)) => self.store(at, &v.to_le_bytes()),
            (Physical::Float32, ValueRef::Float32(v)) => self.store(at, &v.to_le_bytes()),
            (Physical::Float64, ValueRef::Float64(v)) => self.store(at, &v.to_le_bytes()),
            (Physical::Bytes, ValueRef::Bytes(v)) => {
                self.row.extend_from_slice(v);
                return self.end_var(at, true);
            }
            (Physical::List(item), ValueRef::List(list)) => {
                let items: Vec<ValueRef<'_>> = list.iter().collect();
                return self.push_items(at, item.width().is_none(), &items);
            }
            (expected, _) => return Err(RowError::Type { field: field.name.to_string(), expected }),
        }
        self.set_present(self.next - 1);
        Ok(())
    }

    /// Appends an owned value as the next field's value.
    ///
    /// # Errors
    /// As [`RowBuilder::push`].
    pub fn push_value(&mut self, value: &Value) -> Result<(), RowError> {
        match value {
            Value::List(items) => self.push_list(&items.iter().map(Value::as_item).collect::<Vec<_>>()),
            one => self.push(one.as_item()),
        }
    }

    /// Appends a list of these items as the next field's value.
    ///
    /// # Errors
    /// As [`RowBuilder::push`].
    pub fn push_list(&mut self, items: &[ValueRef<'_>]) -> Result<(), RowError> {
        let field = self.next_field()?;
        let Physical::List(item) = field.physical else {
            return Err(RowError::Type { field: field.name.to_string(), expected: field.physical });
        };
        self.push_items(field.at, item.width().is_none(), items)
    }

    /// Appends a list of fixed-width items as the next field's value. `bytes` contains the items, each little-endian.
    ///
    /// # Errors
    /// As [`RowBuilder::push`]. Also [`RowError::Type`] if the length of `bytes` is not a multiple of the item's width.
    pub fn push_list_bytes(&mut self, bytes: &[u8]) -> Result<(), RowError> {
        let field = self.next_field()?;
        match field.physical {
            Physical::List(item) if item.width().is_some_and(|width| bytes.len().is_multiple_of(width)) => {}
            expected => return Err(RowError::Type { field: field.name.to_string(), expected }),
        }
        self.row.extend_from_slice(bytes);
        self.end_var(field.at, true)
    }

    /// Returns the finished row, which is valid until the next [`RowBuilder::begin`].
    ///
    /// # Errors
    /// [`RowError::Count`] if values are missing, or if the schema has too many fields.
    pub fn finish(&mut self) -> Result<&[u8], RowError> {
        if self.next != self.schema.len() || self.next > usize::from(u16::MAX) {
            return Err(RowError::Count { got: self.next, expected: self.schema.len() });
        }
        let (event_time, created) = std::mem::take(&mut self.nanos);
        if (event_time, created) != (0, 0) {
            self.row[FLAGS_AT] |= HAS_NANOS;
            self.row.extend_from_slice(&event_time.to_le_bytes());
            self.row.extend_from_slice(&created.to_le_bytes());
        }
        Ok(&self.row)
    }

    fn next_field(&mut self) -> Result<&'s Field, RowError> {
        let count = || RowError::Count { got: self.next + 1, expected: self.schema.len() };
        let field = self.schema.field(self.next).ok_or_else(count)?;
        self.next += 1;
        Ok(field)
    }

    fn push_items(&mut self, at: usize, variable: bool, items: &[ValueRef<'_>]) -> Result<(), RowError> {
        let index = self.next - 1;
        let field = self.schema.field(index);
        let Some((name, expected)) = field.map(|field| (&field.name, field.physical)) else { return Ok(()) };
        let wrong = || RowError::Type { field: name.to_string(), expected };
        if variable {
            let count = u32::try_from(items.len()).map_err(|_| RowError::TooLong(items.len()))?;
            self.row.extend_from_slice(&count.to_le_bytes());
            let mut end: usize = 0;
            for item in items {
                let ValueRef::Bytes(bytes) = item else { return Err(wrong()) };
                end += bytes.len();
                // The check below rejects an end beyond the row's limit, which is far below 4 GiB.
                self.row.extend_from_slice(&u32::try_from(end).unwrap_or(u32::MAX).to_le_bytes());
                if end > ROW_BYTES_MAX {
                    return Err(RowError::TooLong(end));
                }
            }
        }
        for item in items {
            match (expected, item) {
                (Physical::List(ItemType::Bool), ValueRef::Bool(v)) => self.row.push(u8::from(*v)),
                (Physical::List(ItemType::Int32), ValueRef::Int32(v)) => self.row.extend(v.to_le_bytes()),
                (Physical::List(ItemType::Int64), ValueRef::Int64(v)) => self.row.extend(v.to_le_bytes()),
                (Physical::List(ItemType::Float32), ValueRef::Float32(v)) => {
                    self.row.extend(v.to_le_bytes());
                }
                (Physical::List(ItemType::Float64), ValueRef::Float64(v)) => {
                    self.row.extend(v.to_le_bytes());
                }
                (Physical::List(ItemType::Bytes), ValueRef::Bytes(v)) => self.row.extend_from_slice(v),
                _ => return Err(wrong()),
            }
        }
        self.end_var(at, true)
    }

    /// Stores the current end of the variable part in the slot of the field that was just written.
    fn end_var(&mut self, at: usize, present: bool) -> Result<(), RowError> {
        let len = self.row.len();
        if len > ROW_BYTES_MAX {
            return Err(RowError::TooLong(len));
        }
        let end = u32::try_from(len - self.schema.var_at()).map_err(|_| RowError::TooLong(len))?;
        self.store(at, &end.to_le_bytes());
        if present {
            self.set_present(self.next - 1);
        }
        Ok(())
    }

    fn set_present(&mut self, index: usize) {
        self.row[HEADER_BYTES + index / 8] |= 1 << (index % 8);
    }

    fn store(&mut self, at: usize, bytes: &[u8]) {
        self.row[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

// === impl RowView ===

impl<'a> RowView<'a> {
    /// Creates a view of a row. The row must have been written with this schema.
    ///
    /// # Errors
    /// [`RowError::Truncated`], [`RowError::Version`] and [`RowError::Schema`].
    pub fn new(schema: &'a RowSchema, row: &'a [u8]) -> Result<Self, RowError> {
        let header = RowHeader::read(row)?;
        if header.fingerprint != schema.fingerprint() {
            return Err(RowError::Schema { got: header.fingerprint.0, expected: schema.fingerprint().0 });
        }
        if row.len() < schema.var_at() {
            return Err(RowError::Truncated { len: row.len(), needed: schema.var_at() });
        }
        Ok(Self { schema, row })
    }

    /// Returns field `index` of the row.
    ///
    /// # Errors
    /// [`RowError::Damaged`] if the bytes are not a value of the field's shape, and [`RowError::Count`] if there is no
    /// such field.
    pub fn get(&self, index: usize) -> Result<ValueRef<'a>, RowError> {
        let count = || RowError::Count { got: index + 1, expected: self.schema.len() };
        let field = self.schema.field(index).ok_or_else(count)?;
        if self.row[HEADER_BYTES + index / 8] & (1 << (index % 8)) == 0 {
            return Ok(ValueRef::Null);
        }
        self.read(field).ok_or_else(|| RowError::Damaged(field.name.to_string()))
    }

    fn read(&self, field: &Field) -> Option<ValueRef<'a>> {
        Some(match field.physical {
            Physical::Bool => ValueRef::Bool(load::<1>(self.row, field.at)?[0] != 0),
            Physical::Int32 => ValueRef::Int32(i32::from_le_bytes(load(self.row, field.at)?)),
            Physical::Int64 => ValueRef::Int64(i64::from_le_bytes(load(self.row, field.at)?)),
            Physical::Float32 => ValueRef::Float32(f32::from_le_bytes(load(self.row, field.at)?)),
            Physical::Float64 => ValueRef::Float64(f64::from_le_bytes(load(self.row, field.at)?)),
            Physical::Bytes => ValueRef::Bytes(self.read_var(field)?),
            Physical::List(item) => ValueRef::List(ListRef::parse(item, self.read_var(field)?)?),
        })
    }

    fn read_var(&self, field: &Field) -> Option<&'a [u8]> {
        let end_at = |at| Some(u32::from_le_bytes(load(self.row, at)?) as usize);
        let start = field.previous_var_at.map_or(Some(0), end_at)?;
        let end = end_at(field.at)?;
        self.row.get(self.schema.var_at()..)?.get(start..end)
    }

    /// Returns the row's event time.
    #[must_use]
    pub fn event_time(&self) -> Micros {
        // `new` has checked the whole header.
        load(self.row, EVENT_TIME_AT).map_or(0, i64::from_le_bytes)
    }
}

fn load<const N: usize>(row: &[u8], at: usize) -> Option<[u8; N]> {
    row.get(at..)?.first_chunk::<N>().copied()
}

#[cfg(test)]
mod tests;
