//! Converts single values of Arrow columns to cells, for columns that do not match their feature's type and for nested
//! values.

use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::cast,
    datatypes::{
        ArrowPrimitiveType, DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type,
        Decimal256Type, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType,
        Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Time32MillisecondType,
        Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
        TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
        UInt64Type,
    },
};
use jiff::{SignedDuration, Span, civil::Date};
use larder_model::{
    codec::{Cell, python},
    model::{NestedType, ScalarType, ValueType, ZonedTimestamp},
};

const MICROS: i64 = 1_000_000;
const NANOS: i64 = 1_000_000_000;
const DAY_MICROS: i64 = 86_400 * MICROS;

/// Converts the value of a row for a feature of type `declared`. As in Feast, which uses numpy, a timestamp, a date or
/// a half-precision float becomes text for a `String` feature, and a timestamp in nanoseconds becomes an integer for an
/// `Int32`, `Int64` or `Float32` feature.
///
/// # Errors
/// A description of the problem, for example a type without a counterpart in Feast, or an instant that is out of range
/// for microseconds.
pub(super) fn cell_for(array: &ArrayRef, row: usize, declared: ValueType) -> Result<Cell, String> {
    if array.is_null(row) {
        return Ok(Cell::Null);
    }
    match (declared, array.data_type()) {
        // NaN represents null, as in other floats.
        (ValueType::Scalar(_), DataType::Float16) if array.as_primitive::<Float16Type>().value(row).is_nan() => {
            Ok(Cell::Null)
        }
        (ValueType::Scalar(ScalarType::String), from) if has_numpy_format(from) => text(array, row).map(Cell::Text),
        (
            ValueType::Scalar(ScalarType::Int64 | ScalarType::Int32 | ScalarType::Float32),
            DataType::Timestamp(TimeUnit::Nanosecond, _),
        ) => Ok(Cell::Int(array.as_primitive::<TimestampNanosecondType>().value(row))),
        (ValueType::Nested(NestedType::ZonedTimestamp), DataType::Timestamp(_, Some(zone))) => {
            let unix_timestamp = nanos(array, row).div_euclid(i128::from(NANOS));
            let unix_timestamp = i64::try_from(unix_timestamp).map_err(|_| OUT_OF_RANGE.to_owned())?;
            Ok(Cell::Zoned(ZonedTimestamp { unix_timestamp, zone: zone.to_string() }))
        }
        (ValueType::List(item) | ValueType::Set(item), _) => match items(array, row) {
            Some(list) => cells(&list, ValueType::Scalar(item)),
            None => cell(array, row),
        },
        _ => cell(array, row),
    }
}

pub(super) const OUT_OF_RANGE: &str = "a time outside the range of microsecond timestamps";

fn cells(items: &ArrayRef, declared: ValueType) -> Result<Cell, String> {
    Ok(Cell::List((0..items.len()).map(|i| cell_for(items, i, declared)).collect::<Result<_, _>>()?))
}

/// Converts a value by its Arrow type.
pub fn cell(array: &ArrayRef, row: usize) -> Result<Cell, String> {
    fn int<T: ArrowPrimitiveType>(array: &ArrayRef, row: usize) -> Cell
    where
        T::Native: Into<i64>,
    {
        Cell::Int(array.as_primitive::<T>().value(row).into())
    }
    fn decimal<T: ArrowPrimitiveType>(array: &ArrayRef, row: usize, scale: i8) -> Cell
    where
        T::Native: ToString,
    {
        Cell::Number(python::decimal_text(&array.as_primitive::<T>().value(row).to_string(), scale.into()))
    }
    if array.is_null(row) {
        return Ok(Cell::Null);
    }
    Ok(match array.data_type() {
        DataType::Null => Cell::Null,
        DataType::Boolean => Cell::Bool(array.as_boolean().value(row)),
        DataType::Int8 => int::<Int8Type>(array, row),
        DataType::Int16 => int::<Int16Type>(array, row),
        DataType::Int32 => int::<Int32Type>(array, row),
        DataType::Int64 => int::<Int64Type>(array, row),
        DataType::UInt8 => int::<UInt8Type>(array, row),
        DataType::UInt16 => int::<UInt16Type>(array, row),
        DataType::UInt32 => int::<UInt32Type>(array, row),
        DataType::UInt64 => {
            let value = array.as_primitive::<UInt64Type>().value(row);
            i64::try_from(value).map_or_else(|_| Cell::Number(value.to_string()), Cell::Int)
        }
        DataType::Float16 => Cell::Single(array.as_primitive::<Float16Type>().value(row).to_f32()),
        DataType::Float32 => Cell::Single(array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => Cell::Float(array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal32(_, scale) => decimal::<Decimal32Type>(array, row, *scale),
        DataType::Decimal64(_, scale) => decimal::<Decimal64Type>(array, row, *scale),
        DataType::Decimal128(_, scale) => decimal::<Decimal128Type>(array, row, *scale),
        DataType::Decimal256(_, scale) => decimal::<Decimal256Type>(array, row, *scale),
        DataType::Utf8 => Cell::Text(array.as_string::<i32>().value(row).to_owned()),
        DataType::LargeUtf8 => Cell::Text(array.as_string::<i64>().value(row).to_owned()),
        DataType::Utf8View => Cell::Text(array.as_string_view().value(row).to_owned()),
        DataType::Binary => Cell::Bytes(array.as_binary::<i32>().value(row).to_vec()),
        DataType::LargeBinary => Cell::Bytes(array.as_binary::<i64>().value(row).to_vec()),
        DataType::BinaryView => Cell::Bytes(array.as_binary_view().value(row).to_vec()),
        DataType::FixedSizeBinary(_) => Cell::Bytes(array.as_fixed_size_binary().value(row).to_vec()),
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
            let micros = nanos(array, row).div_euclid(1_000);
            Cell::Instant(i64::try_from(micros).map_err(|_| OUT_OF_RANGE.to_owned())?)
        }
        DataType::Time32(_) | DataType::Time64(_) | DataType::Duration(_) => Cell::Text(text(array, row)?),
        DataType::Dictionary(..) | DataType::RunEndEncoded(..) => return cell(&unpacked(&array.slice(row, 1))?, 0),
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(array.as_struct().columns());
            let entries = columns.map(|(field, column)| Ok((field.name().clone(), cell(column, row)?)));
            Cell::map(entries.collect::<Result<_, String>>()?)
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let (keys, values) = (entries.column(0), entries.column(1));
            let entries = (0..entries.len()).map(|i| Ok((key_text(keys, i)?, cell(values, i)?)));
            Cell::map(entries.collect::<Result<_, String>>()?)
        }
        other => match items(array, row) {
            Some(items) => Cell::List((0..items.len()).map(|i| cell(&items, i)).collect::<Result<_, _>>()?),
            None => return Err(format!("a value of type {other}")),
        },
    })
}

/// Returns the text of a map's key, in the format of Python's `str`.
fn key_text(keys: &ArrayRef, i: usize) -> Result<String, String> {
    let declared = ValueType::Scalar(ScalarType::String);
    let value = cell_for(keys, i, declared)?.to_value(declared).map_err(|error| error.to_string())?;
    match value {
        larder_model::model::Value::Bytes(text) => String::from_utf8(text).map_err(|error| error.to_string()),
        _ => Err("a map with a null key".to_owned()),
    }
}

/// Returns the items of the list in a row; `None` if the column does not have lists.
fn items(array: &ArrayRef, row: usize) -> Option<ArrayRef> {
    Some(match array.data_type() {
        DataType::List(_) => array.as_list::<i32>().value(row),
        DataType::LargeList(_) => array.as_list::<i64>().value(row),
        DataType::FixedSizeList(..) => array.as_fixed_size_list().value(row),
        DataType::ListView(_) => array.as_list_view::<i32>().value(row),
        DataType::LargeListView(_) => array.as_list_view::<i64>().value(row),
        _ => return None,
    })
}

/// Unpacks a column with dictionary or run-end encoding.
///
/// # Errors
/// The message of Arrow's error.
pub fn unpacked(array: &ArrayRef) -> Result<ArrayRef, String> {
    let values = match array.data_type() {
        DataType::Dictionary(_, values) => &**values,
        DataType::RunEndEncoded(_, values) => values.data_type(),
        _ => return Ok(ArrayRef::clone(array)),
    };
    cast(array, values).map_err(|error| error.to_string())
}

/// Returns the nanoseconds since 1970 of an instant or a date.
fn nanos(array: &ArrayRef, row: usize) -> i128 {
    let (count, unit) = match array.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => (array.as_primitive::<TimestampSecondType>().value(row), NANOS),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            (array.as_primitive::<TimestampMillisecondType>().value(row), MICROS)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            (array.as_primitive::<TimestampMicrosecondType>().value(row), 1_000)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => (array.as_primitive::<TimestampNanosecondType>().value(row), 1),
        DataType::Date32 => (array.as_primitive::<Date32Type>().value(row).into(), DAY_MICROS * 1_000),
        _ => (array.as_primitive::<Date64Type>().value(row), MICROS),
    };
    i128::from(count) * i128::from(unit)
}

/// Returns whether [`text`] can format values of this type.
fn has_numpy_format(from: &DataType) -> bool {
    matches!(
        from,
        DataType::Timestamp(..)
            | DataType::Date32
            | DataType::Date64
            | DataType::Time32(_)
            | DataType::Time64(_)
            | DataType::Duration(_)
            | DataType::Float16
    )
}

/// Returns the text of an instant, a date, a time of day, a duration or a half-precision float, in the format of numpy
/// or of Python's `str`.
fn text(array: &ArrayRef, row: usize) -> Result<String, String> {
    // The date and the time of day are computed separately, because jiff's timestamps end before the last day of 9999.
    let civil = |form: &str| {
        let nanos = nanos(array, row);
        let day = i128::from(DAY_MICROS) * 1_000;
        let days = i64::try_from(nanos.div_euclid(day)).map_err(|error| error.to_string())?;
        let rest = i64::try_from(nanos.rem_euclid(day)).map_err(|error| error.to_string())?;
        let date =
            Date::constant(1970, 1, 1).checked_add(Span::new().try_days(days).map_err(|error| error.to_string())?);
        let at = date.map(|date| date.at(0, 0, 0, 0)).and_then(|at| at.checked_add(SignedDuration::from_nanos(rest)));
        Ok(at.map_err(|error| error.to_string())?.strftime(form).to_string())
    };
    match array.data_type() {
        DataType::Date32 | DataType::Date64 => civil("%Y-%m-%d"),
        // Parquet has no timestamps in seconds, so Feast reads timestamps in seconds as milliseconds.
        DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond, _) => civil("%Y-%m-%dT%H:%M:%S.%3f"),
        DataType::Timestamp(TimeUnit::Microsecond, _) => civil("%Y-%m-%dT%H:%M:%S.%6f"),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => civil("%Y-%m-%dT%H:%M:%S.%9f"),
        DataType::Time32(TimeUnit::Second) => {
            Ok(time_of_day(i64::from(array.as_primitive::<Time32SecondType>().value(row)).saturating_mul(MICROS)))
        }
        DataType::Time32(_) => {
            Ok(time_of_day(i64::from(array.as_primitive::<Time32MillisecondType>().value(row)).saturating_mul(1_000)))
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            Ok(time_of_day(array.as_primitive::<Time64MicrosecondType>().value(row)))
        }
        DataType::Time64(_) => Ok(time_of_day(array.as_primitive::<Time64NanosecondType>().value(row) / 1_000)),
        DataType::Duration(TimeUnit::Second) => {
            Ok(format!("{} seconds", array.as_primitive::<DurationSecondType>().value(row)))
        }
        DataType::Duration(TimeUnit::Millisecond) => {
            Ok(format!("{} milliseconds", array.as_primitive::<DurationMillisecondType>().value(row)))
        }
        DataType::Duration(TimeUnit::Microsecond) => {
            Ok(format!("{} microseconds", array.as_primitive::<DurationMicrosecondType>().value(row)))
        }
        DataType::Duration(TimeUnit::Nanosecond) => {
            Ok(format!("{} nanoseconds", array.as_primitive::<DurationNanosecondType>().value(row)))
        }
        _ => Ok(half_text(array.as_primitive::<Float16Type>().value(row).to_f32())),
    }
}

fn time_of_day(micros: i64) -> String {
    let (seconds, fraction) = (micros.div_euclid(MICROS), micros.rem_euclid(MICROS));
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if fraction == 0 { clock } else { format!("{clock}.{fraction:06}") }
}

/// Returns the shortest text that parses to this half-precision float.
fn half_text(value: f32) -> String {
    type Half = <Float16Type as ArrowPrimitiveType>::Native;
    let same = |digits: &usize| {
        let shorter: f32 = format!("{value:.digits$e}").parse().unwrap_or(f32::NAN);
        Half::from_f32(shorter) == Half::from_f32(value)
    };
    let shortest = (0..6).find(same).map(|digits| format!("{value:.digits$e}"));
    let shortest = shortest.and_then(|text| text.parse().ok()).unwrap_or(value);
    python::single_text(shortest)
}
