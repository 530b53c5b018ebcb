//! Feast's value types, and the physical shapes in which rows store their values.

use std::{fmt, str::FromStr};

/// A value type that a feature or a join key can be declared with.
///
/// The types are the same as in `feast.types.ValueType` (Feast 0.67). A type parses from the SDK's spelling (`Int64`,
/// `Array(Float32)`, `Set(String)`) and from the registry's spelling (`INT64`, `FLOAT_LIST`, `STRING_SET`), both in any
/// case. It is displayed in the SDK's spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// One value.
    Scalar(ScalarType),
    /// A list of values, such as an embedding or tags. Items are never null: [`crate::codec::null_item`] returns the
    /// replacement for a null.
    List(ScalarType),
    /// A list without duplicates.
    Set(ScalarType),
    /// Maps, structs, lists of lists and zoned timestamps.
    Nested(NestedType),
}

/// The type of one value, and of the items of lists and sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScalarType {
    /// Raw bytes; served as base64.
    Bytes,
    /// UTF-8 text.
    String,
    /// 32-bit signed integer.
    Int32,
    /// 64-bit signed integer, always exact.
    Int64,
    /// IEEE 754 double (Feast: `DOUBLE`).
    Float64,
    /// IEEE 754 single (Feast: `FLOAT`).
    Float32,
    /// True or false.
    Bool,
    /// An instant. It is stored in microseconds since the Unix epoch, and served in whole seconds as in Feast.
    UnixTimestamp,
    /// JSON text, served as a string.
    Json,
    /// A UUID as text.
    Uuid,
    /// A time-based UUID as text.
    TimeUuid,
    /// A decimal number as text, so that no digits are lost.
    Decimal,
    /// The bytes of a PDF; stored and served like [`ScalarType::Bytes`].
    PdfBytes,
    /// The bytes of an image; stored and served like [`ScalarType::Bytes`].
    ImageBytes,
}

/// Types whose values are stored as the bytes of Feast's own protobuf `Value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NestedType {
    /// A map from strings to values.
    Map,
    /// A list of maps.
    MapList,
    /// Named fields, encoded in the same protobuf message as a map.
    Struct,
    /// A list of structs.
    StructList,
    /// A list of lists.
    ValueList,
    /// A set of lists.
    ValueSet,
    /// A map from scalars to values. Feast serves it as null.
    ScalarMap,
    /// An instant with its time zone.
    ZonedTimestamp,
}

/// The shape of a value in a row: how its bytes are encoded, regardless of their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Physical {
    /// One byte, 0 or 1.
    Bool,
    /// 4 bytes.
    Int32,
    /// 8 bytes.
    Int64,
    /// 4 bytes.
    Float32,
    /// 8 bytes.
    Float64,
    /// Any number of bytes: text, raw bytes, or the protobuf bytes of a nested value.
    Bytes,
    /// Any number of items.
    List(ItemType),
}

/// The shape of a list's items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ItemType {
    /// One byte each, 0 or 1.
    Bool,
    /// 4 bytes each.
    Int32,
    /// 8 bytes each.
    Int64,
    /// 4 bytes each.
    Float32,
    /// 8 bytes each.
    Float64,
    /// Any number of bytes each.
    Bytes,
}

/// A type name that is not one of Feast's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown type '{0}'")]
pub struct UnknownType(pub String);

/// Every scalar type with its name in the SDK and in the registry.
const SCALARS: [(ScalarType, &str, &str); 14] = [
    (ScalarType::Bytes, "Bytes", "BYTES"),
    (ScalarType::String, "String", "STRING"),
    (ScalarType::Int32, "Int32", "INT32"),
    (ScalarType::Int64, "Int64", "INT64"),
    (ScalarType::Float64, "Float64", "DOUBLE"),
    (ScalarType::Float32, "Float32", "FLOAT"),
    (ScalarType::Bool, "Bool", "BOOL"),
    (ScalarType::UnixTimestamp, "UnixTimestamp", "UNIX_TIMESTAMP"),
    (ScalarType::Json, "Json", "JSON"),
    (ScalarType::Uuid, "Uuid", "UUID"),
    (ScalarType::TimeUuid, "TimeUuid", "TIME_UUID"),
    (ScalarType::Decimal, "Decimal", "DECIMAL"),
    (ScalarType::PdfBytes, "PdfBytes", "PDF_BYTES"),
    (ScalarType::ImageBytes, "ImageBytes", "IMAGE_BYTES"),
];

/// Every nested type with its name in the SDK and in the registry.
const NESTED: [(NestedType, &str, &str); 8] = [
    (NestedType::Map, "Map", "MAP"),
    (NestedType::MapList, "Array(Map)", "MAP_LIST"),
    (NestedType::Struct, "Struct", "STRUCT"),
    (NestedType::StructList, "Array(Struct)", "STRUCT_LIST"),
    (NestedType::ValueList, "Array(Array)", "VALUE_LIST"),
    (NestedType::ValueSet, "Set(Array)", "VALUE_SET"),
    (NestedType::ScalarMap, "ScalarMap", "SCALAR_MAP"),
    (NestedType::ZonedTimestamp, "ZonedTimestamp", "ZONED_TIMESTAMP"),
];

/// The numbers and names of `feast.types.ValueType.Enum`, and the two numbers that only Feast's Python code has (30 and
/// 31).
const NUMBERS: [(i32, &str); 45] = [
    (1, "BYTES"),
    (2, "STRING"),
    (3, "INT32"),
    (4, "INT64"),
    (5, "DOUBLE"),
    (6, "FLOAT"),
    (7, "BOOL"),
    (8, "UNIX_TIMESTAMP"),
    (11, "BYTES_LIST"),
    (12, "STRING_LIST"),
    (13, "INT32_LIST"),
    (14, "INT64_LIST"),
    (15, "DOUBLE_LIST"),
    (16, "FLOAT_LIST"),
    (17, "BOOL_LIST"),
    (18, "UNIX_TIMESTAMP_LIST"),
    (20, "MAP"),
    (21, "MAP_LIST"),
    (22, "BYTES_SET"),
    (23, "STRING_SET"),
    (24, "INT32_SET"),
    (25, "INT64_SET"),
    (26, "DOUBLE_SET"),
    (27, "FLOAT_SET"),
    (28, "BOOL_SET"),
    (29, "UNIX_TIMESTAMP_SET"),
    (30, "PDF_BYTES"),
    (31, "IMAGE_BYTES"),
    (32, "JSON"),
    (33, "JSON_LIST"),
    (34, "STRUCT"),
    (35, "STRUCT_LIST"),
    (36, "UUID"),
    (37, "TIME_UUID"),
    (38, "UUID_LIST"),
    (39, "TIME_UUID_LIST"),
    (40, "UUID_SET"),
    (41, "TIME_UUID_SET"),
    (42, "VALUE_LIST"),
    (43, "VALUE_SET"),
    (44, "DECIMAL"),
    (45, "DECIMAL_LIST"),
    (46, "DECIMAL_SET"),
    (47, "SCALAR_MAP"),
    (48, "ZONED_TIMESTAMP"),
];

// === impl ValueType ===

impl ValueType {
    /// Returns the shape of values of this type in a row.
    #[must_use]
    pub fn physical(self) -> Physical {
        match self {
            Self::Scalar(scalar) => match scalar.item() {
                ItemType::Bool => Physical::Bool,
                ItemType::Int32 => Physical::Int32,
                ItemType::Int64 => Physical::Int64,
                ItemType::Float32 => Physical::Float32,
                ItemType::Float64 => Physical::Float64,
                ItemType::Bytes => Physical::Bytes,
            },
            Self::List(scalar) | Self::Set(scalar) => Physical::List(scalar.item()),
            Self::Nested(_) => Physical::Bytes,
        }
    }

    /// Returns whether a join key may have this type, that is, whether Feast can serialize values of this type into an
    /// entity key.
    #[must_use]
    pub fn can_be_join_key(self) -> bool {
        matches!(
            self,
            Self::Scalar(
                ScalarType::String
                    | ScalarType::Bytes
                    | ScalarType::Int32
                    | ScalarType::Int64
                    | ScalarType::UnixTimestamp
            )
        )
    }

    /// Returns the type that has this number in Feast's registry: a number of `feast.types.ValueType.Enum`, or 30 or
    /// 31. Returns `None` for `INVALID` (0) and for unknown numbers.
    #[must_use]
    pub fn from_feast_number(number: i32) -> Option<Self> {
        NUMBERS.iter().find(|(known, _)| *known == number).and_then(|(_, name)| name.parse().ok())
    }

    /// Returns the names of all types in the SDK's spelling, for suggestions in messages.
    pub fn names() -> impl Iterator<Item = String> {
        let scalars = SCALARS.iter().map(|(_, name, _)| (*name).to_owned());
        let lists = SCALARS.iter().map(|(_, name, _)| format!("Array({name})"));
        let sets = SCALARS.iter().map(|(_, name, _)| format!("Set({name})"));
        let nested = NESTED.iter().map(|(_, name, _)| (*name).to_owned());
        scalars.chain(lists).chain(sets).chain(nested)
    }
}

impl FromStr for ValueType {
    type Err = UnknownType;

    fn from_str(text: &str) -> Result<Self, UnknownType> {
        let unknown = || UnknownType(text.to_owned());
        let name = text.trim();
        if let Some((nested, ..)) = NESTED.iter().find(|(_, sdk, core)| same_name(name, sdk) || same_name(name, core)) {
            return Ok(Self::Nested(*nested));
        }
        if let Some(item) = within(name, &["array", "list"]).or_else(|| strip_suffix_ignore_case(name, "_LIST")) {
            return Ok(Self::List(item.parse().map_err(|_| unknown())?));
        }
        if let Some(item) = within(name, &["set"]).or_else(|| strip_suffix_ignore_case(name, "_SET")) {
            return Ok(Self::Set(item.parse().map_err(|_| unknown())?));
        }
        Ok(Self::Scalar(name.parse().map_err(|_| unknown())?))
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(scalar) => f.write_str(scalar.name()),
            Self::List(scalar) => write!(f, "Array({})", scalar.name()),
            Self::Set(scalar) => write!(f, "Set({})", scalar.name()),
            Self::Nested(nested) => {
                f.write_str(NESTED.iter().find(|(kind, ..)| kind == nested).map_or("Nested", |(_, name, _)| *name))
            }
        }
    }
}

// === impl ScalarType ===

impl ScalarType {
    /// Returns the shape of this type's items in a list, and of its values in a row.
    #[must_use]
    pub fn item(self) -> ItemType {
        match self {
            Self::Bool => ItemType::Bool,
            Self::Int32 => ItemType::Int32,
            Self::Int64 | Self::UnixTimestamp => ItemType::Int64,
            Self::Float32 => ItemType::Float32,
            Self::Float64 => ItemType::Float64,
            Self::Bytes
            | Self::String
            | Self::Json
            | Self::Uuid
            | Self::TimeUuid
            | Self::Decimal
            | Self::PdfBytes
            | Self::ImageBytes => ItemType::Bytes,
        }
    }

    /// Returns whether the bytes of this type are text, and therefore UTF-8.
    #[must_use]
    pub fn is_text(self) -> bool {
        matches!(self, Self::String | Self::Json | Self::Uuid | Self::TimeUuid | Self::Decimal)
    }

    fn name(self) -> &'static str {
        SCALARS.iter().find(|(scalar, ..)| *scalar == self).map_or("Scalar", |(_, name, _)| *name)
    }
}

impl FromStr for ScalarType {
    type Err = UnknownType;

    fn from_str(text: &str) -> Result<Self, UnknownType> {
        SCALARS
            .iter()
            .find(|(_, sdk, core)| same_name(text.trim(), sdk) || same_name(text.trim(), core))
            .map(|(scalar, ..)| *scalar)
            .ok_or_else(|| UnknownType(text.to_owned()))
    }
}

// === impl ItemType ===

impl ItemType {
    /// Returns the size of one item in bytes, or `None` if the size varies.
    #[must_use]
    pub fn width(self) -> Option<usize> {
        match self {
            Self::Bool => Some(1),
            Self::Int32 | Self::Float32 => Some(4),
            Self::Int64 | Self::Float64 => Some(8),
            Self::Bytes => None,
        }
    }
}

fn same_name(text: &str, name: &str) -> bool {
    text.eq_ignore_ascii_case(name)
}

/// Returns the text between the brackets of `outer(..)` or `outer<..>`.
fn within<'t>(text: &'t str, outers: &[&str]) -> Option<&'t str> {
    let open = text.find(['(', '<'])?;
    let (outer, rest) = text.split_at(open);
    let inner = rest[1..].strip_suffix([')', '>'])?;
    outers.iter().any(|name| same_name(outer.trim(), name)).then_some(inner.trim())
}

fn strip_suffix_ignore_case<'t>(text: &'t str, suffix: &str) -> Option<&'t str> {
    let cut = text.len().checked_sub(suffix.len())?;
    (text.is_char_boundary(cut) && same_name(&text[cut..], suffix)).then(|| &text[..cut])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_names_round_trip() {
        for name in ValueType::names() {
            assert_eq!(name.parse::<ValueType>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn registry_names_and_any_case_parse() {
        for (registry, sdk) in [
            ("INT64", "Int64"),
            ("double", "Float64"),
            ("FLOAT_LIST", "Array(Float32)"),
            ("string_set", "Set(String)"),
            ("array(float32)", "Array(Float32)"),
            ("List<Int64>", "Array(Int64)"),
            ("MAP_LIST", "Array(Map)"),
        ] {
            assert_eq!(registry.parse::<ValueType>().unwrap().to_string(), sdk);
        }
    }

    #[test]
    fn registry_numbers_map_to_types() {
        for (number, name) in NUMBERS {
            assert!(ValueType::from_feast_number(number).is_some(), "{number} {name}");
        }
        for number in [-1, 0, 9, 10, 19, 49, i32::MAX] {
            assert_eq!(ValueType::from_feast_number(number), None, "{number}");
        }
    }

    #[test]
    fn unknown_type_is_rejected() {
        for text in ["", "Int", "Array", "Array(", "Array(Array(Int64))", "é_LIST", "_LIST", "Set()"] {
            assert_eq!(text.parse::<ValueType>(), Err(UnknownType(text.to_owned())), "{text}");
        }
    }
}
