//! Converts the signatures of all versions of the contract.

use crate::{
    ColumnScalar, ColumnType, Field, Signature,
    bindings::{types, v3},
};

impl From<types::Signature> for Signature {
    /// Converts a signature of version 0.1 or 0.2. Every plugin of these versions gets the time.
    fn from(raw: types::Signature) -> Self {
        let field = |field: types::Field| Field {
            name: field.name,
            column_type: ColumnType {
                scalar: field.data_type.scalar.into(),
                is_list: field.data_type.is_list,
                nullable_items: false,
            },
            nullable: field.nullable,
            doc: field.doc,
        };
        Self {
            name: raw.name,
            version: raw.version,
            doc: raw.doc,
            reads_time: true,
            inputs: raw.inputs.into_iter().map(field).collect(),
            outputs: raw.outputs.into_iter().map(field).collect(),
        }
    }
}

impl From<v3::larder::transform::types::Signature> for Signature {
    fn from(raw: v3::larder::transform::types::Signature) -> Self {
        let field = |field: v3::larder::transform::types::Field| Field {
            name: field.name,
            column_type: ColumnType {
                scalar: field.data_type.scalar.into(),
                is_list: field.data_type.is_list,
                nullable_items: field.nullable_items,
            },
            nullable: field.nullable,
            doc: field.doc,
        };
        Self {
            name: raw.name,
            version: raw.version,
            doc: raw.doc,
            reads_time: raw.reads_time,
            inputs: raw.inputs.into_iter().map(field).collect(),
            outputs: raw.outputs.into_iter().map(field).collect(),
        }
    }
}

/// Converts the scalar types of a version of the contract.
macro_rules! scalar_of {
    ($($raw:ty),*) => {$(
        impl From<$raw> for ColumnScalar {
            fn from(raw: $raw) -> Self {
                match raw {
                    <$raw>::Bool => Self::Bool,
                    <$raw>::Int32 => Self::Int32,
                    <$raw>::Int64 => Self::Int64,
                    <$raw>::Float32 => Self::Float32,
                    <$raw>::Float64 => Self::Float64,
                    <$raw>::Utf8 => Self::Utf8,
                    <$raw>::Binary => Self::Binary,
                    <$raw>::Timestamp => Self::Timestamp,
                }
            }
        }
    )*};
}

scalar_of!(types::ScalarType, v3::larder::transform::types::ScalarType);
