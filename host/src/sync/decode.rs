//! Arrow columns to the values of a row.
//!
//! A file's column is brought once per batch to the one Arrow type that stands for the feature's type; reading a value
//! of a row is then an index. What converts: integers widen, and narrow where the value fits; floats widen and round
//! (a `Float32` feature from a column of doubles, as Feast has it); text, bytes and lists come in all of Arrow's
//! layouts; timestamps in any unit, a naive one being UTC. Everything else is refused with both types named.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, BooleanArray, FixedSizeBinaryArray, Float32Array, Float64Array,
        Int32Array, Int64Array, ListArray, PrimitiveArray, StringArray,
    },
    compute::{CastOptions, cast_with_options},
    datatypes::{
        ArrowPrimitiveType, ArrowTimestampType, DataType, Date32Type, Date64Type, Field, Float64Type, Int64Type,
        TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    },
    util::display::FormatOptions,
};
use larder_model::{
    codec::{KeyEncoder, KeyValue, RowBuilder, RowError},
    model::{ItemType, Micros, NULL_TIMESTAMP_SECONDS, ScalarType, ValueRef, ValueType},
};

use super::nested;

/// A column whose values can be pushed into rows.
#[derive(Debug)]
pub(super) struct Column {
    value_type: ValueType,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Bool(BooleanArray),
    Int32(Int32Array),
    /// Integers, and instants in microseconds.
    Int64(Int64Array),
    Float32(Float32Array),
    Float64(Float64Array),
    Text(StringArray),
    Bytes(BinaryArray),
    List(ListArray, Box<Column>),
    /// Protobuf bytes, or null.
    Nested(Vec<Option<Vec<u8>>>),
}

/// Why a column does not become what it should; the caller adds file and column.
pub(super) type Misfit = String;

const STRICT: CastOptions<'_> = CastOptions { safe: false, format_options: FormatOptions::new() };

// === impl Column ===

impl Column {
    /// Makes a column of a type readable.
    pub(super) fn new(array: &ArrayRef, value_type: ValueType) -> Result<Self, Misfit> {
        let array = plain(array)?;
        let values = match value_type {
            ValueType::Scalar(scalar) => Self::scalar(&array, scalar)?,
            ValueType::List(item) | ValueType::Set(item) => Self::list(&array, item, value_type)?,
            ValueType::Nested(kind) => Values::Nested(nested::encode_column(&array, kind)?),
        };
        Ok(Self { value_type, values })
    }

    /// Makes a column of instants readable. Numbers are no instants here: nobody could tell seconds from
    /// milliseconds, and the wrong guess would decide which rows win.
    pub(super) fn instants(array: &ArrayRef) -> Result<Self, Misfit> {
        if array.data_type().is_integer() {
            return Err(format!("the column is {}, and has to be a timestamp or a date", name_of(array.data_type())));
        }
        Self::new(array, ValueType::Scalar(ScalarType::UnixTimestamp))
    }

    fn scalar(array: &ArrayRef, scalar: ScalarType) -> Result<Values, Misfit> {
        let value_type = ValueType::Scalar(scalar);
        let from = array.data_type();
        let misfit = || Err(format!("the column is {}, the definition says {value_type}", name_of(from)));
        Ok(match scalar {
            ScalarType::Bool if *from == DataType::Boolean => Values::Bool(array.as_boolean().clone()),
            ScalarType::Int32 if from.is_integer() || is_float(from) => {
                Values::Int32(cast(&whole(array)?, &DataType::Int32, value_type)?.as_primitive().clone())
            }
            ScalarType::Int64 if from.is_integer() || is_float(from) => {
                Values::Int64(cast(&whole(array)?, &DataType::Int64, value_type)?.as_primitive().clone())
            }
            ScalarType::Float32 if from.is_numeric() => {
                Values::Float32(cast(array, &DataType::Float32, value_type)?.as_primitive().clone())
            }
            ScalarType::Float64 if from.is_numeric() => {
                Values::Float64(cast(array, &DataType::Float64, value_type)?.as_primitive().clone())
            }
            ScalarType::UnixTimestamp => match micros(array) {
                Some(micros) => Values::Int64(micros?),
                None => return misfit(),
            },
            ScalarType::Decimal if is_decimal(from) => {
                Values::Text(cast(array, &DataType::Utf8, value_type)?.as_string().clone())
            }
            ScalarType::Uuid | ScalarType::TimeUuid if *from == DataType::FixedSizeBinary(16) => {
                Values::Text(uuid_text(array.as_fixed_size_binary()))
            }
            scalar if scalar.is_text() && is_text(from) => {
                Values::Text(cast(array, &DataType::Utf8, value_type)?.as_string().clone())
            }
            ScalarType::Bytes | ScalarType::PdfBytes | ScalarType::ImageBytes if is_binary(from) || is_text(from) => {
                Values::Bytes(cast(array, &DataType::Binary, value_type)?.as_binary().clone())
            }
            _ => return misfit(),
        })
    }

    fn list(array: &ArrayRef, item: ScalarType, value_type: ValueType) -> Result<Values, Misfit> {
        let Some(field) = list_item(array.data_type()) else {
            return Err(format!("the column is {}, the definition says {value_type}", name_of(array.data_type())));
        };
        let list_of_same = DataType::List(Arc::new(Field::new("item", field.data_type().clone(), true)));
        let list: ListArray = cast(array, &list_of_same, value_type)?.as_list().clone();
        let items = Self::new(list.values(), ValueType::Scalar(item))?;
        Ok(Values::List(list, Box::new(items)))
    }

    /// Puts the value of a row into the row's next field.
    pub(super) fn push(&self, row: usize, builder: &mut RowBuilder<'_>) -> Result<(), RowError> {
        match &self.values {
            Values::List(list, _) if list.is_null(row) => builder.push(ValueRef::Null),
            Values::List(list, items) => items.push_items(list, row, builder),
            _ => builder.push(self.value(row)),
        }
    }

    /// The value of a row; null for lists, which are not read this way.
    fn value(&self, row: usize) -> ValueRef<'_> {
        match &self.values {
            Values::Bool(array) if array.is_valid(row) => ValueRef::Bool(array.value(row)),
            Values::Int32(array) if array.is_valid(row) => ValueRef::Int32(array.value(row)),
            Values::Int64(array) if array.is_valid(row) => ValueRef::Int64(array.value(row)),
            Values::Float32(array) if array.is_valid(row) => ValueRef::Float32(array.value(row)),
            Values::Float64(array) if array.is_valid(row) => ValueRef::Float64(array.value(row)),
            Values::Text(array) if array.is_valid(row) => ValueRef::Bytes(array.value(row).as_bytes()),
            Values::Bytes(array) if array.is_valid(row) => ValueRef::Bytes(array.value(row)),
            Values::Nested(values) => values[row].as_deref().map_or(ValueRef::Null, ValueRef::Bytes),
            _ => ValueRef::Null,
        }
    }

    /// Puts one list into the row's next field; `self` holds the items of all lists.
    fn push_items(&self, list: &ListArray, row: usize, builder: &mut RowBuilder<'_>) -> Result<(), RowError> {
        let ends = list.value_offsets();
        // Arrow's offsets are not negative and not past the items.
        let span = |i: usize| usize::try_from(ends[i]).unwrap_or(0);
        let (start, end) = (span(row), span(row + 1));
        match &self.values {
            Values::Int32(items) if items.null_count() == 0 => builder.push_list_bytes(bytes_of(items, start, end)),
            Values::Int64(items) if items.null_count() == 0 => builder.push_list_bytes(bytes_of(items, start, end)),
            Values::Float32(items) if items.null_count() == 0 => builder.push_list_bytes(bytes_of(items, start, end)),
            Values::Float64(items) if items.null_count() == 0 => builder.push_list_bytes(bytes_of(items, start, end)),
            _ => {
                let items: Vec<ValueRef<'_>> = (start..end).map(|i| self.item(i)).collect();
                builder.push_list(&items)
            }
        }
    }

    /// An item of a list. Feast has no null items: it stores the type's default for them
    /// (`type_map.py`, `_LIST_NONE_DEFAULTS`).
    fn item(&self, i: usize) -> ValueRef<'_> {
        match (self.value(i), self.value_type) {
            (ValueRef::Null, ValueType::Scalar(ScalarType::UnixTimestamp)) => ValueRef::Int64(NULL_TIMESTAMP_SECONDS),
            (ValueRef::Null, ValueType::Scalar(scalar)) => match scalar.item() {
                ItemType::Bool => ValueRef::Bool(false),
                ItemType::Int32 => ValueRef::Int32(0),
                ItemType::Int64 => ValueRef::Int64(0),
                ItemType::Float32 => ValueRef::Float32(0.0),
                ItemType::Float64 => ValueRef::Float64(0.0),
                ItemType::Bytes => ValueRef::Bytes(&[]),
            },
            (value, _) => value,
        }
    }

    /// The instant of a row in microseconds, for time columns.
    pub(super) fn micros(&self, row: usize) -> Option<Micros> {
        match &self.values {
            Values::Int64(array) if array.is_valid(row) => Some(array.value(row)),
            _ => None,
        }
    }

    /// Adds the value of a row to an entity key; false when it is null.
    pub(super) fn push_key(&self, row: usize, key: &mut Vec<u8>) -> bool {
        let instant = self.value_type == ValueType::Scalar(ScalarType::UnixTimestamp);
        let value = match (&self.values, self.value(row)) {
            (_, ValueRef::Int32(v)) => KeyValue::Int32(v),
            (_, ValueRef::Int64(v)) if instant => KeyValue::UnixTimestamp(v.div_euclid(1_000_000)),
            (_, ValueRef::Int64(v)) => KeyValue::Int64(v),
            (Values::Text(array), ValueRef::Bytes(_)) => KeyValue::String(array.value(row)),
            (_, ValueRef::Bytes(v)) => KeyValue::Bytes(v),
            _ => return false,
        };
        KeyEncoder::push(key, value);
        true
    }

    /// The value of a row as a request would have it in text; none when it is null, or bytes that are no text.
    pub(super) fn key_text(&self, row: usize) -> Option<String> {
        let instant = self.value_type == ValueType::Scalar(ScalarType::UnixTimestamp);
        match self.value(row) {
            ValueRef::Int32(v) => Some(v.to_string()),
            ValueRef::Int64(v) if instant => Some(v.div_euclid(1_000_000).to_string()),
            ValueRef::Int64(v) => Some(v.to_string()),
            ValueRef::Bytes(v) => String::from_utf8(v.to_vec()).ok(),
            _ => None,
        }
    }
}

/// The items' bytes as they lie in memory, which is how they lie in a row: both are little-endian.
fn bytes_of<T: ArrowPrimitiveType>(items: &PrimitiveArray<T>, start: usize, end: usize) -> &[u8] {
    const { assert!(cfg!(target_endian = "little"), "rows are little-endian: swap the items here") };
    let width = size_of::<T::Native>();
    &items.values().inner().as_slice()[start * width..end * width]
}

/// A column without a dictionary.
fn plain(array: &ArrayRef) -> Result<ArrayRef, Misfit> {
    match array.data_type() {
        DataType::Dictionary(_, values) => cast_with_options(array, values, &STRICT).map_err(|error| error.to_string()),
        _ => Ok(Arc::clone(array)),
    }
}

fn cast(array: &ArrayRef, to: &DataType, value_type: ValueType) -> Result<ArrayRef, Misfit> {
    if array.data_type() == to {
        return Ok(Arc::clone(array));
    }
    cast_with_options(array, to, &STRICT).map_err(|error| {
        let why = error.to_string();
        let why = why.strip_prefix("Cast error: ").unwrap_or(&why);
        format!("a value of the column ({}) does not fit {value_type}: {why}", name_of(array.data_type()))
    })
}

/// A column of doubles that stands for integers, as pandas writes integers with nulls: NaN is null, a fraction is
/// an error.
fn whole(array: &ArrayRef) -> Result<ArrayRef, Misfit> {
    if !is_float(array.data_type()) {
        return Ok(Arc::clone(array));
    }
    let doubles = cast(array, &DataType::Float64, ValueType::Scalar(ScalarType::Float64))?;
    let doubles = doubles.as_primitive::<Float64Type>();
    if let Some(fraction) = doubles.iter().flatten().find(|value| !value.is_nan() && value.fract() != 0.0) {
        return Err(format!(
            "the column is {} and has {fraction}, which is no whole number",
            name_of(array.data_type())
        ));
    }
    let whole: Float64Array = doubles.iter().map(|value| value.filter(|value| !value.is_nan())).collect();
    Ok(Arc::new(whole))
}

/// Instants in microseconds, or `None` where the column is no such thing.
fn micros(array: &ArrayRef) -> Option<Result<Int64Array, Misfit>> {
    fn scaled<T: ArrowPrimitiveType>(array: &ArrayRef, factor: i64) -> Result<Int64Array, Misfit>
    where
        T::Native: Into<i64>,
    {
        array
            .as_primitive::<T>()
            .try_unary(|value| {
                let value: i64 = value.into();
                value.checked_mul(factor).ok_or_else(|| {
                    arrow::error::ArrowError::ComputeError(format!("{value} is too far from 1970 for microseconds"))
                })
            })
            .map_err(|error| error.to_string())
    }
    fn same<T: ArrowTimestampType>(array: &ArrayRef, divisor: i64) -> Int64Array {
        array.as_primitive::<T>().unary(|value| value.div_euclid(divisor))
    }
    Some(match array.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => scaled::<TimestampSecondType>(array, 1_000_000),
        DataType::Timestamp(TimeUnit::Millisecond, _) => scaled::<TimestampMillisecondType>(array, 1_000),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Ok(same::<TimestampMicrosecondType>(array, 1)),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => Ok(same::<TimestampNanosecondType>(array, 1_000)),
        DataType::Date32 => scaled::<Date32Type>(array, 86_400_000_000),
        DataType::Date64 => scaled::<Date64Type>(array, 1_000),
        // Feast takes numbers for seconds.
        from if from.is_integer() => {
            let seconds = cast(array, &DataType::Int64, ValueType::Scalar(ScalarType::UnixTimestamp));
            return Some(seconds.and_then(|seconds| scaled::<Int64Type>(&seconds, 1_000_000)));
        }
        _ => return None,
    })
}

fn uuid_text(array: &FixedSizeBinaryArray) -> StringArray {
    let text = |bytes: &[u8]| {
        let hex = |span: std::ops::Range<usize>| bytes[span].iter().map(|b| format!("{b:02x}")).collect::<String>();
        format!("{}-{}-{}-{}-{}", hex(0..4), hex(4..6), hex(6..8), hex(8..10), hex(10..16))
    };
    array.iter().map(|value| value.map(text)).collect()
}

fn list_item(list: &DataType) -> Option<&Field> {
    match list {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => Some(item),
        _ => None,
    }
}

fn is_float(of: &DataType) -> bool {
    of.is_floating()
}

fn is_decimal(of: &DataType) -> bool {
    matches!(
        of,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..)
    )
}

fn is_text(of: &DataType) -> bool {
    matches!(of, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_binary(of: &DataType) -> bool {
    matches!(of, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
}

/// A column's type in few words; a struct's fields would fill the screen.
fn name_of(of: &DataType) -> String {
    match of {
        DataType::Struct(_) => "a struct".to_owned(),
        DataType::Map(..) => "a map".to_owned(),
        other => list_item(other)
            .map_or_else(|| other.to_string(), |item| format!("a list of {}", name_of(item.data_type()))),
    }
}

#[cfg(test)]
mod tests;
