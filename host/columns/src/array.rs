//! Builds Arrow arrays from values.

use std::{borrow::Cow, sync::Arc};

use arrow::{
    array::{
        ArrayRef, BinaryBuilder, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, ListArray,
        StringBuilder, TimestampMicrosecondArray,
    },
    buffer::OffsetBuffer,
    datatypes::{Field, FieldRef},
    error::ArrowError,
};
use larder_model::{
    codec::json::nested_json,
    model::{Micros, NULL_TIMESTAMP_SECONDS, ScalarType, ValueRef, ValueType},
};

/// Why an array cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ArrayError {
    /// A column is larger than Arrow's 32-bit offsets can address.
    #[error("as Arrow, column '{0}' would be larger than 2 GiB. hint: request fewer rows")]
    TooLarge(String),
    /// Arrow rejects the array, which is a bug in Larder.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// Builds the array of a feature. JSON, UUIDs and decimals are text, sets are lists, and timestamps are microseconds in
/// UTC. Nested values are text: the same JSON as in JSON responses. Feast's placeholder for a null timestamp is null. `name`
/// is the column's name, for the error.
///
/// # Errors
/// [`ArrayError`], if the values are too large.
pub fn feature_array<'a>(
    name: &str,
    value_type: ValueType,
    values: impl Iterator<Item = ValueRef<'a>> + Clone,
) -> Result<ArrayRef, ArrayError> {
    match value_type {
        ValueType::Scalar(scalar) => scalar_array(name, scalar, values),
        ValueType::List(item) | ValueType::Set(item) => lists(name, item, values),
        ValueType::Nested(_) => texts(name, values.map(|value| bytes(value).and_then(nested_json).map(Cow::Owned))),
    }
}

fn lists<'a>(
    name: &str,
    item: ScalarType,
    values: impl Iterator<Item = ValueRef<'a>> + Clone,
) -> Result<ArrayRef, ArrayError> {
    let lists = values.map(|value| match value {
        ValueRef::List(list) => Some(list),
        _ => None,
    });
    let lengths = lists.clone().map(|list| list.map(|list| list.len()));
    let items = scalar_array(name, item, lists.flatten().flat_map(|list| list.iter()))?;
    let field = Arc::new(Field::new_list_field(items.data_type().clone(), true));
    list_array(name, lengths, field, items)
}

/// Builds an array of lists from the length of each list, `None` for a null, and the items of all lists. `field` describes
/// the items. `name` is the column's name, for the error.
///
/// # Errors
/// [`ArrayError`], if there are too many items, or if `field` does not describe the items.
pub fn list_array(
    name: &str,
    lengths: impl Iterator<Item = Option<usize>>,
    field: FieldRef,
    items: ArrayRef,
) -> Result<ArrayRef, ArrayError> {
    let mut end = 0;
    let mut ends = vec![0];
    let mut present = Vec::new();
    for length in lengths {
        end += length.unwrap_or(0);
        ends.push(offset(name, end)?);
        present.push(length.is_some());
    }
    Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::new(ends.into()), items, Some(present.into()))?))
}

/// Builds an array of values of one type. A value of another type would become null, but the values of a valid row have
/// the types of its schema.
///
/// # Errors
/// [`ArrayError`], if the values are too large.
pub fn scalar_array<'a>(
    name: &str,
    scalar: ScalarType,
    values: impl Iterator<Item = ValueRef<'a>>,
) -> Result<ArrayRef, ArrayError> {
    macro_rules! numbers {
        ($array:ident, $shape:ident) => {
            Arc::new($array::from_iter(values.map(|value| match value {
                ValueRef::$shape(value) => Some(value),
                _ => None,
            })))
        };
    }
    Ok(match scalar {
        ScalarType::Bool => numbers!(BooleanArray, Bool),
        ScalarType::Int32 => numbers!(Int32Array, Int32),
        ScalarType::Int64 => numbers!(Int64Array, Int64),
        ScalarType::Float32 => numbers!(Float32Array, Float32),
        ScalarType::Float64 => numbers!(Float64Array, Float64),
        ScalarType::UnixTimestamp => instants(values.map(|value| match value {
            ValueRef::Int64(micros) if micros != NULL_TIMESTAMP_SECONDS => Some(micros),
            _ => None,
        })),
        ScalarType::String | ScalarType::Json | ScalarType::Uuid | ScalarType::TimeUuid | ScalarType::Decimal => {
            texts(name, values.map(|value| bytes(value).map(String::from_utf8_lossy)))?
        }
        ScalarType::Bytes | ScalarType::PdfBytes | ScalarType::ImageBytes => {
            let mut array = BinaryBuilder::new();
            for value in values.map(bytes) {
                offset(name, array.values_slice().len() + value.map_or(0, <[u8]>::len))?;
                array.append_option(value);
            }
            Arc::new(array.finish())
        }
    })
}

fn texts<'a>(name: &str, values: impl Iterator<Item = Option<Cow<'a, str>>>) -> Result<ArrayRef, ArrayError> {
    let mut array = StringBuilder::new();
    for value in values {
        offset(name, array.values_slice().len() + value.as_ref().map_or(0, |value| value.len()))?;
        array.append_option(value);
    }
    Ok(Arc::new(array.finish()))
}

/// Builds an array of instants in microseconds.
pub fn instants(values: impl Iterator<Item = Option<Micros>>) -> ArrayRef {
    Arc::new(values.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

fn bytes(value: ValueRef<'_>) -> Option<&[u8]> {
    match value {
        ValueRef::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}

/// Returns an offset into a column's data. Arrow would panic if an offset did not fit into a signed 32-bit integer.
fn offset(name: &str, offset: usize) -> Result<i32, ArrayError> {
    i32::try_from(offset).map_err(|_| ArrayError::TooLarge(name.to_owned()))
}
