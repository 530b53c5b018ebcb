//! Why a cell cannot be converted.

use super::{Cell, RowError};
use crate::model::ValueType;

/// Why a cell cannot be converted to a type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConversionError {
    /// The value has another type, or is out of the type's range.
    #[error("{found} is not {declared}")]
    Type {
        /// A short description of the value.
        found: String,
        /// The type.
        declared: ValueType,
    },
    /// Text that is not valid JSON.
    #[error("{found} is not valid JSON: {why}")]
    Json {
        /// The text.
        found: String,
        /// The parser's message.
        why: String,
    },
    /// Text that is not valid base64.
    #[error("{found} is not valid base64")]
    Base64 {
        /// The text.
        found: String,
    },
    /// The value cannot be decoded, or is nested too deeply. The text is the complete message.
    #[error("{0}")]
    Unreadable(String),
    /// A value of a key is null.
    #[error("the key is null")]
    NullKey,
    /// The row cannot contain the value.
    #[error(transparent)]
    Row(#[from] RowError),
}

// === impl ConversionError ===

impl ConversionError {
    /// Returns the error for a cell that cannot be converted to a type.
    pub(super) fn of_type(cell: &Cell, declared: ValueType) -> Self {
        Self::Type { found: cell.describe(), declared }
    }
}
