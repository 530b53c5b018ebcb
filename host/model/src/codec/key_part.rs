//! The key of an entity, with the values from which its id was computed.

use super::KeyValue;
use crate::model::{EntityId, ScalarType};

/// The key of an entity: its id, and the parts from which the id was computed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EntityKey {
    /// The id.
    pub id: EntityId,
    /// The parts, in the order of the view's join keys.
    pub parts: Vec<KeyPart>,
}

/// One part of a key: the value of one join key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyPart {
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A whole number, or seconds since 1970.
    Number(i64),
}

// === impl KeyPart ===

impl KeyPart {
    /// Copies a borrowed part of a key.
    #[must_use]
    pub fn of(value: KeyValue<'_>) -> Self {
        match value {
            KeyValue::String(text) => Self::Text(text.to_owned()),
            KeyValue::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
            KeyValue::Int32(number) => Self::Number(number.into()),
            KeyValue::Int64(number) | KeyValue::UnixTimestamp(number) => Self::Number(number),
        }
    }

    /// Converts the part for the key encoder. A number is always in the range of its type, because it was parsed as
    /// that type.
    #[must_use]
    pub fn as_key(&self, value_type: ScalarType) -> KeyValue<'_> {
        match self {
            Self::Text(text) => KeyValue::String(text),
            Self::Bytes(bytes) => KeyValue::Bytes(bytes),
            Self::Number(number) => match value_type {
                ScalarType::Int32 => KeyValue::Int32(i32::try_from(*number).unwrap_or_default()),
                ScalarType::UnixTimestamp => KeyValue::UnixTimestamp(*number),
                _ => KeyValue::Int64(*number),
            },
        }
    }
}
