//! The types of columns that plugins support.

use std::fmt;

use larder_model::model::{ScalarType, ValueType};

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ColumnType {
    /// The type of each value, or of each item.
    pub scalar: ColumnScalar,
    /// Whether each slot contains a list.
    pub is_list: bool,
    /// Whether items of the lists may be null. False if there are no lists.
    pub nullable_items: bool,
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
    /// 32-bit floating-point numbers.
    Float32,
    /// 64-bit floating-point numbers.
    Float64,
    /// UTF-8 text: strings, and types that Feast stores as text (JSON, UUIDs, decimals).
    Utf8,
    /// Any bytes.
    Binary,
    /// Microseconds since the Unix epoch.
    Timestamp,
}

// === impl ColumnType ===

impl ColumnType {
    /// Text, one per slot.
    pub const TEXT: Self = Self::single(ColumnScalar::Utf8);

    /// Instants, one per slot.
    pub const TIMESTAMP: Self = Self::single(ColumnScalar::Timestamp);

    /// Returns the type of a column with one value per slot.
    #[must_use]
    pub const fn single(scalar: ColumnScalar) -> Self {
        Self { scalar, is_list: false, nullable_items: false }
    }

    /// Returns the type of a column of lists whose items are not null.
    #[must_use]
    pub const fn list(scalar: ColumnScalar) -> Self {
        Self { scalar, is_list: true, nullable_items: false }
    }

    /// Returns whether the columns have the same values, except that items may be null in one of them.
    #[must_use]
    pub fn has_values_of(self, other: Self) -> bool {
        (self.scalar, self.is_list) == (other.scalar, other.is_list)
    }

    /// Returns the column type for features of a type. Nested values are passed as JSON text.
    #[must_use]
    pub fn of(value_type: ValueType) -> Self {
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
            ValueType::Scalar(of) => Self::single(scalar(of)),
            ValueType::List(of) | ValueType::Set(of) => Self::list(scalar(of)),
            ValueType::Nested(_) => Self::TEXT,
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
    /// Returns the most general of the feature types that have this column type: for text, it is `String`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definition_types_map_to_columns() {
        let of = |name: &str| ColumnType::of(name.parse().unwrap()).to_string();
        for (name, plain) in [
            ("Int64", "Int64"),
            ("Json", "String"),
            ("Uuid", "String"),
            ("ImageBytes", "Bytes"),
            ("UnixTimestamp", "UnixTimestamp"),
            ("Array(Float32)", "Array(Float32)"),
            ("Set(Decimal)", "Array(String)"),
            ("Map", "String"),
            ("Array(Array)", "String"),
        ] {
            assert_eq!(of(name), plain, "{name}");
        }
    }
}
