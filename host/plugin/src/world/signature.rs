//! Converts the signatures of all versions of the contract.

use crate::{
    ColumnScalar, ColumnType, Field, Signature,
    bindings::{types, v3},
};

/// Converts the signatures of a version of the contract. The two expressions compute `nullable_items` of a field and
/// `reads_time` of a signature.
macro_rules! signature_of {
    ($raw:ty, |$field:ident: $raw_field:ty| $nullable_items:expr, |$signature:ident| $reads_time:expr) => {
        impl From<$raw> for Signature {
            fn from($signature: $raw) -> Self {
                let field = |$field: $raw_field| Field {
                    column_type: ColumnType {
                        scalar: $field.data_type.scalar.into(),
                        is_list: $field.data_type.is_list,
                        nullable_items: $nullable_items,
                    },
                    name: $field.name,
                    nullable: $field.nullable,
                    doc: $field.doc,
                };
                Self {
                    reads_time: $reads_time,
                    inputs: $signature.inputs.into_iter().map(field).collect(),
                    outputs: $signature.outputs.into_iter().map(field).collect(),
                    name: $signature.name,
                    version: $signature.version,
                    doc: $signature.doc,
                }
            }
        }
    };
}

// Every plugin of version 0.1 or 0.2 gets the time.
signature_of!(types::Signature, |field: types::Field| false, |signature| true);
signature_of!(
    v3::larder::transform::types::Signature,
    |field: v3::larder::transform::types::Field| field.nullable_items,
    |signature| signature.reads_time
);

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
