//! Values: borrowed from a row ([`ValueRef`]) and owned ([`Value`]).
//!
//! Both have only a physical shape ([`Physical`](super::Physical)). The [`ValueType`](super::ValueType) of the feature
//! determines the meaning of the bytes, such as text, raw bytes, a protobuf message or an instant.

use super::ItemType;

/// One value, borrowed from the bytes of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    /// No value.
    Null,
    /// True or false.
    Bool(bool),
    /// 32-bit integer.
    Int32(i32),
    /// 64-bit integer, or microseconds since the Unix epoch.
    Int64(i64),
    /// 32-bit float.
    Float32(f32),
    /// 64-bit float.
    Float64(f64),
    /// Text, raw bytes or the protobuf bytes of a nested value.
    Bytes(&'a [u8]),
    /// Items of the same shape.
    List(ListRef<'a>),
}

/// A list, borrowed from the bytes of a row: see [`crate::codec`] for the layout of its items.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ListRef<'a> {
    item: ItemType,
    len: usize,
    /// For items of fixed width, the items. Otherwise, `len` end offsets (u32), followed by the data.
    bytes: &'a [u8],
}

/// One value, owned.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// True or false.
    Bool(bool),
    /// 32-bit integer.
    Int32(i32),
    /// 64-bit integer, or microseconds since the Unix epoch.
    Int64(i64),
    /// 32-bit float.
    Float32(f32),
    /// 64-bit float.
    Float64(f64),
    /// Text, raw bytes or the protobuf bytes of a nested value.
    Bytes(Vec<u8>),
    /// The items. No item is null or a list.
    List(Vec<Value>),
}

// === impl ValueRef ===

impl ValueRef<'_> {
    /// Returns the approximate size of the value in a row, in bytes; 8 for numbers, booleans and nulls.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::List(list) => list.bytes.len(),
            _ => 8,
        }
    }

    /// Returns an owned copy of the value.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match *self {
            ValueRef::Null => Value::Null,
            ValueRef::Bool(v) => Value::Bool(v),
            ValueRef::Int32(v) => Value::Int32(v),
            ValueRef::Int64(v) => Value::Int64(v),
            ValueRef::Float32(v) => Value::Float32(v),
            ValueRef::Float64(v) => Value::Float64(v),
            ValueRef::Bytes(v) => Value::Bytes(v.to_vec()),
            ValueRef::List(list) => Value::List(list.iter().map(|item| item.to_value()).collect()),
        }
    }
}

// === impl Value ===

impl Value {
    /// Borrows a value that is not a list. Returns null for a list, which has no borrowed form.
    #[must_use]
    pub fn as_item(&self) -> ValueRef<'_> {
        match self {
            Self::Null | Self::List(_) => ValueRef::Null,
            Self::Bool(v) => ValueRef::Bool(*v),
            Self::Int32(v) => ValueRef::Int32(*v),
            Self::Int64(v) => ValueRef::Int64(*v),
            Self::Float32(v) => ValueRef::Float32(*v),
            Self::Float64(v) => ValueRef::Float64(*v),
            Self::Bytes(v) => ValueRef::Bytes(v),
        }
    }
}

// === impl ListRef ===

impl<'a> ListRef<'a> {
    /// Parses the bytes of a list. Returns `None` if the bytes are invalid: their length is not a multiple of the
    /// item's width, or the end offsets decrease or do not match the length of the data.
    #[must_use]
    pub fn parse(item: ItemType, bytes: &'a [u8]) -> Option<Self> {
        let Some(width) = item.width() else { return Self::parse_var(item, bytes) };
        bytes.len().is_multiple_of(width).then(|| Self { item, len: bytes.len() / width, bytes })
    }

    fn parse_var(item: ItemType, bytes: &'a [u8]) -> Option<Self> {
        let (count, rest) = bytes.split_first_chunk::<4>()?;
        let len = usize::try_from(u32::from_le_bytes(*count)).ok()?;
        let (ends, data) = rest.split_at_checked(len.checked_mul(4)?)?;
        let mut start = 0;
        for end in ends.as_chunks::<4>().0 {
            let end = u32::from_le_bytes(*end);
            if end < start {
                return None;
            }
            start = end;
        }
        (start as usize == data.len()).then_some(Self { item, len, bytes: rest })
    }

    /// Returns the number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the list has no items.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the items, in order. None of them is null or a list.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = ValueRef<'a>> + use<'a> {
        let list = *self;
        (0..list.len).map(move |i| list.at(i))
    }

    /// Returns item `i`. Relies on `parse`, which has checked all lengths.
    fn at(&self, i: usize) -> ValueRef<'a> {
        fn chunk<const N: usize>(bytes: &[u8], i: usize) -> [u8; N] {
            bytes.as_chunks::<N>().0.get(i).copied().unwrap_or([0; N])
        }
        match self.item {
            ItemType::Bool => ValueRef::Bool(self.bytes[i] != 0),
            ItemType::Int32 => ValueRef::Int32(i32::from_le_bytes(chunk(self.bytes, i))),
            ItemType::Int64 => ValueRef::Int64(i64::from_le_bytes(chunk(self.bytes, i))),
            ItemType::Float32 => ValueRef::Float32(f32::from_le_bytes(chunk(self.bytes, i))),
            ItemType::Float64 => ValueRef::Float64(f64::from_le_bytes(chunk(self.bytes, i))),
            ItemType::Bytes => {
                let (ends, data) = self.bytes.split_at(self.len * 4);
                let end = |i: usize| u32::from_le_bytes(chunk(ends, i)) as usize;
                let start = if i == 0 { 0 } else { end(i - 1) };
                ValueRef::Bytes(&data[start..end(i)])
            }
        }
    }
}
