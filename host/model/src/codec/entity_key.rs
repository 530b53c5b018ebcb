//! Entity keys: Feast's serialization of a key, and the entity id, which is the hash of these bytes.
//!
//! The layout is the same as in Feast 0.67, `infra/key_encoding_utils.py`. Integers are little-endian, and keys are
//! sorted by name. `type` is a number of `feast.types.ValueType.Enum`.
//!
//! ```text
//! version 3   u32 number of keys
//!             per key     u32 2 (STRING) | u32 length | name
//!             per value   u32 type       | u32 length | bytes
//! version 2   per key     u32 2 (STRING) | name
//!             per value   u32 type       | u32 length | bytes
//! ```
//!
//! All names come before the first value, so they are a constant prefix. A [`KeyEncoder`] builds this prefix once.

use super::murmur3_x64_128;
use crate::model::EntityId;

/// The version of Feast's serialization of keys (`entity_key_serialization_version`). Entity ids depend on this
/// version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KeyVersion {
    /// Version 2: deprecated in Feast, but still common in old repositories.
    V2,
    /// Version 3: Feast's default.
    #[default]
    V3,
}

/// The value of one join key, as [`KeyEncoder::push`] encodes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyValue<'a> {
    /// UTF-8 text.
    String(&'a str),
    /// Raw bytes.
    Bytes(&'a [u8]),
    /// 32-bit integer.
    Int32(i32),
    /// 64-bit integer.
    Int64(i64),
    /// Seconds since the Unix epoch.
    UnixTimestamp(i64),
}

/// Computes entity ids for one list of join keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEncoder {
    /// The bytes before the first value.
    prefix: Vec<u8>,
}

const TYPE_BYTES: u32 = 1;
const TYPE_STRING: u32 = 2;
const TYPE_INT32: u32 = 3;
const TYPE_INT64: u32 = 4;
const TYPE_UNIX_TIMESTAMP: u32 = 8;

// === impl KeyVersion ===

impl KeyVersion {
    /// Returns the version with this number; `None` if Larder does not support it.
    #[must_use]
    pub fn from_number(number: i64) -> Option<Self> {
        match number {
            2 => Some(Self::V2),
            3 => Some(Self::V3),
            _ => None,
        }
    }
}

// === impl KeyEncoder ===

impl KeyEncoder {
    /// Creates an encoder for join keys with these names. The names must be sorted, as the join keys of a catalog's
    /// views are.
    #[must_use]
    pub fn new<'n>(version: KeyVersion, names: impl IntoIterator<Item = &'n str>) -> Self {
        let mut prefix = Vec::new();
        let mut count: u32 = 0;
        if version == KeyVersion::V3 {
            prefix.extend_from_slice(&count.to_le_bytes());
        }
        for name in names {
            count += 1;
            prefix.extend_from_slice(&TYPE_STRING.to_le_bytes());
            if version == KeyVersion::V3 {
                prefix.extend_from_slice(&len_u32(name.as_bytes()).to_le_bytes());
            }
            prefix.extend_from_slice(name.as_bytes());
        }
        if version == KeyVersion::V3 {
            prefix[..4].copy_from_slice(&count.to_le_bytes());
        }
        Self { prefix }
    }

    /// Clears `buffer` and starts a key in it. After this, call [`KeyEncoder::push`] once for each name, in order.
    pub fn begin(&self, buffer: &mut Vec<u8>) {
        buffer.clear();
        buffer.extend_from_slice(&self.prefix);
    }

    /// Adds the next value to a key.
    pub fn push(buffer: &mut Vec<u8>, value: KeyValue<'_>) {
        match value {
            KeyValue::String(text) => push_part(buffer, TYPE_STRING, text.as_bytes()),
            KeyValue::Bytes(bytes) => push_part(buffer, TYPE_BYTES, bytes),
            KeyValue::Int32(int) => push_part(buffer, TYPE_INT32, &int.to_le_bytes()),
            KeyValue::Int64(int) => push_part(buffer, TYPE_INT64, &int.to_le_bytes()),
            KeyValue::UnixTimestamp(seconds) => push_part(buffer, TYPE_UNIX_TIMESTAMP, &seconds.to_le_bytes()),
        }
    }

    /// Returns the id of a finished key.
    #[must_use]
    pub fn id(buffer: &[u8]) -> EntityId {
        EntityId(murmur3_x64_128(buffer))
    }

    /// Computes the id of a key in one call. The previous contents of `buffer` are replaced with the key's bytes.
    pub fn encode<'v>(&self, values: impl IntoIterator<Item = KeyValue<'v>>, buffer: &mut Vec<u8>) -> EntityId {
        self.begin(buffer);
        for value in values {
            Self::push(buffer, value);
        }
        Self::id(buffer)
    }
}

fn push_part(buffer: &mut Vec<u8>, value_type: u32, bytes: &[u8]) {
    buffer.extend_from_slice(&value_type.to_le_bytes());
    buffer.extend_from_slice(&len_u32(bytes).to_le_bytes());
    buffer.extend_from_slice(bytes);
}

/// Converts a length to u32, as the format requires. A key of 4 GiB cannot occur here, because requests and rows are
/// limited far below that.
fn len_u32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
