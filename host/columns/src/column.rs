//! Converts Arrow columns to values.
//!
//! A file's column is converted once per batch to the Arrow type for the feature's type, so reading the value of a row
//! is an index operation. A column that does not convert as a whole is converted value by value, by the rules in
//! `larder_model::codec::coerce`. A value that does not match the type is read as null, and
//! [`Column::conversion_error`] reports it. Converting a column as a whole gives the same values as these rules.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array,
        ListArray, PrimitiveArray, StringArray, TimestampNanosecondArray,
    },
    compute::cast,
    datatypes::{
        ArrowPrimitiveType, ArrowTimestampType, DataType, Date32Type, Date64Type, Field, Float32Type, Float64Type,
        Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
        TimestampSecondType,
    },
};
use larder_model::{
    codec::{Cell, KeyEncoder, KeyValue, RowBuilder, RowError, is_text_of, key_value, null_item, set, single},
    model::{Micros, NULL_TIMESTAMP_SECONDS, NestedType, ScalarType, Value, ValueRef, ValueType},
};

use super::arrow_cell;

/// A column whose values can be pushed into rows.
#[derive(Debug)]
pub struct Column {
    value_type: ValueType,
    values: Values,
    /// The rows whose values do not match the type, in order.
    unconverted: Vec<usize>,
    /// The reason why the first of these values does not match; empty if all values match.
    first_error: String,
}

#[derive(Debug)]
enum Values {
    /// Only nulls.
    Nulls,
    Bool(BooleanArray),
    Int32(Int32Array),
    /// Integers, and instants in microseconds.
    Int64(Int64Array),
    Float32(Float32Array),
    Float64(Float64Array),
    Text(StringArray),
    Bytes(BinaryArray),
    /// Lists, and a column with the items of all lists. No item is null.
    List(ListArray, Box<Column>),
    /// Values that were converted one by one.
    Converted(Vec<Value>),
}

/// The use of a column's values, which determines how NaN, nulls and fractions are converted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Feature,
    Key,
    /// An item of a list.
    Item,
}

/// A column of event times or created times.
#[derive(Debug)]
pub struct Instants {
    micros: Column,
    /// The column in nanoseconds, if the file has that precision.
    nanos: Option<TimestampNanosecondArray>,
}

/// The reason why a column cannot be converted. The caller adds the names of the file and the column.
pub type ColumnError = String;

// === impl Column ===

impl Column {
    /// Decodes a column of a feature.
    pub fn feature(array: &ArrayRef, value_type: ValueType) -> Self {
        Self::new(array, value_type, Role::Feature)
    }

    /// Decodes a column of a join key.
    pub fn key(array: &ArrayRef, key_type: ScalarType) -> Self {
        Self::new(array, ValueType::Scalar(key_type), Role::Key)
    }

    /// Returns a message with both types if no value of a column of type `from` can be converted to the declared type.
    pub fn mismatch(from: &DataType, declared: ValueType) -> Option<String> {
        let from = match from {
            DataType::Dictionary(_, values) => values,
            DataType::RunEndEncoded(_, values) => values.data_type(),
            other => other,
        };
        let is_mapping = matches!(from, DataType::Struct(_) | DataType::Map(..));
        let is_list = list_item(from).is_some();
        let converts = match declared {
            ValueType::Scalar(ScalarType::Json) => true,
            ValueType::Scalar(_) if is_mapping || is_list => false,
            ValueType::Scalar(ScalarType::Bool) => *from == DataType::Boolean || from.is_integer(),
            ValueType::Scalar(ScalarType::Bytes | ScalarType::PdfBytes | ScalarType::ImageBytes) => {
                is_binary(from) || is_text(from)
            }
            ValueType::Scalar(ScalarType::UnixTimestamp) => !from.is_floating(),
            ValueType::Scalar(_) => true,
            ValueType::List(item) | ValueType::Set(item) => match list_item(from) {
                Some(field) => Self::mismatch(field.data_type(), ValueType::Scalar(item)).is_none(),
                None => is_binary(from),
            },
            ValueType::Nested(NestedType::Map | NestedType::Struct) => is_mapping || is_text(from),
            ValueType::Nested(NestedType::ZonedTimestamp) => matches!(from, DataType::Timestamp(..)) || is_text(from),
            ValueType::Nested(_) => is_list || is_text(from),
        };
        let is_mismatch = !converts && *from != DataType::Null;
        is_mismatch.then(|| format!("the column is {}, but the definition has {declared}", name_of(from)))
    }

    /// Returns a message with both types if a column of type `from` has text, but the declared type has numbers or
    /// instants. In this case, only values that can be parsed are converted.
    pub fn parsed_text(from: &DataType, declared: ValueType) -> Option<String> {
        let (item, scalar) = match (from, declared) {
            (DataType::Dictionary(_, values), _) => return Self::parsed_text(values, declared),
            (DataType::RunEndEncoded(_, values), _) => return Self::parsed_text(values.data_type(), declared),
            (list, ValueType::List(scalar) | ValueType::Set(scalar)) => (list_item(list)?.data_type(), scalar),
            (scalar, ValueType::Scalar(declared)) => (scalar, declared),
            (_, ValueType::Nested(_)) => return None,
        };
        let is_parsed = matches!(
            scalar,
            ScalarType::Int32
                | ScalarType::Int64
                | ScalarType::Float32
                | ScalarType::Float64
                | ScalarType::UnixTimestamp
        );
        let differs = is_parsed && is_text(item);
        differs.then(|| format!("the column is {}, but the definition has {declared}", name_of(from)))
    }

    /// Decodes a column of instants. Numbers are not accepted, because seconds and milliseconds cannot be
    /// distinguished, and after a wrong guess, the wrong rows would win.
    pub fn instants(array: &ArrayRef) -> Result<Self, ColumnError> {
        let array = arrow_cell::unpacked(array)?;
        let instant = ValueType::Scalar(ScalarType::UnixTimestamp);
        if *array.data_type() == DataType::Null {
            return Ok(Self::of(instant, Values::Nulls));
        }
        let Some((micros, unconverted)) = micros(&array) else {
            return Err(format!("the column is {}, not a timestamp or a date", name_of(array.data_type())));
        };
        let first_error = if unconverted.is_empty() { String::new() } else { arrow_cell::OUT_OF_RANGE.to_owned() };
        Ok(Self { unconverted, first_error, ..Self::of(instant, Values::Int64(micros)) })
    }

    fn of(value_type: ValueType, values: Values) -> Self {
        Self { value_type, values, unconverted: Vec::new(), first_error: String::new() }
    }

    fn new(array: &ArrayRef, value_type: ValueType, role: Role) -> Self {
        // Items of lists are never null.
        if *array.data_type() == DataType::Null && role != Role::Item {
            return Self::of(value_type, Values::Nulls);
        }
        // Values that Arrow cannot unpack are converted one by one.
        let array = &arrow_cell::unpacked(array).unwrap_or_else(|_| Arc::clone(array));
        match value_type {
            ValueType::Scalar(scalar) => match convert_whole(array, scalar, role) {
                Some(values) => Self::of(value_type, values),
                None => Self::convert_each(array, value_type, role),
            },
            ValueType::List(item) | ValueType::Set(item) => {
                Self::list(array, item, value_type).unwrap_or_else(|| Self::convert_each(array, value_type, role))
            }
            ValueType::Nested(_) => Self::convert_each(array, value_type, role),
        }
    }

    /// Decodes a column of lists. The items of all lists are converted as one column. Returns `None` if the column does
    /// not have lists.
    fn list(array: &ArrayRef, item: ScalarType, value_type: ValueType) -> Option<Self> {
        let field = list_item(array.data_type())?;
        let list_of_same = DataType::List(Arc::new(Field::new("item", field.data_type().clone(), true)));
        let list: ListArray = cast(array, &list_of_same).ok()?.as_list().clone();
        let mut items = Self::new(list.values(), ValueType::Scalar(item), Role::Item);
        let wrong = std::mem::take(&mut items.unconverted);
        let first_error = std::mem::take(&mut items.first_error);
        let mut column = Self::of(value_type, Values::List(list, Box::new(items)));
        if !wrong.is_empty()
            && let Values::List(list, _) = &column.values
        {
            let has_wrong = |row: &usize| {
                let (start, end) = span(list, *row);
                list.is_valid(*row) && wrong.partition_point(|i| *i < start) < wrong.partition_point(|i| *i < end)
            };
            column.unconverted = (0..list.len()).filter(has_wrong).collect();
            column.first_error = format!("an item of the list: {first_error}");
        }
        Some(column)
    }

    fn convert_each(array: &ArrayRef, value_type: ValueType, role: Role) -> Self {
        let mut column = Self::of(value_type, Values::Nulls);
        let convert = |row: usize| {
            let cell =
                arrow_cell::cell_for(array, row, value_type).map_err(|found| format!("{found} is not {value_type}"))?;
            let value = match (cell, value_type, role) {
                (Cell::Null, ValueType::Scalar(ScalarType::UnixTimestamp), Role::Feature) if is_time(array) => {
                    return Ok(Value::Int64(NULL_TIMESTAMP_SECONDS));
                }
                (cell, ValueType::Scalar(scalar), Role::Item) => {
                    cell.to_item(scalar, *array.data_type() == DataType::Null)
                }
                (cell, ValueType::Scalar(scalar), Role::Key) => cell.to_key(scalar),
                (cell, ..) => cell.to_value(value_type),
            };
            value.map_err(|error| error.to_string())
        };
        let mut values = Vec::with_capacity(array.len());
        for row in 0..array.len() {
            values.push(convert(row).unwrap_or_else(|why: String| {
                if column.unconverted.is_empty() {
                    column.first_error = why;
                }
                column.unconverted.push(row);
                Value::Null
            }));
        }
        column.values = Values::Converted(values);
        column
    }

    /// If the value of a row does not match the type, returns the reason for the first such value of the column.
    pub fn conversion_error(&self, row: usize) -> Option<&str> {
        let is_unconverted = !self.unconverted.is_empty() && self.unconverted.binary_search(&row).is_ok();
        is_unconverted.then_some(&*self.first_error)
    }

    /// Writes the value of a row to the row's next field; writes null for a value that does not match the type.
    pub fn push(&self, row: usize, builder: &mut RowBuilder<'_>) -> Result<(), RowError> {
        match &self.values {
            Values::List(list, _) if list.is_null(row) || self.conversion_error(row).is_some() => {
                builder.push(ValueRef::Null)
            }
            Values::List(list, items) => items.push_items(span(list, row), self.value_type, builder),
            Values::Converted(values) => builder.push_value(&values[row]),
            _ => builder.push(self.value(row)),
        }
    }

    /// Returns the value of a row; null for a list, because [`Column::push`] writes the items of lists.
    pub fn value(&self, row: usize) -> ValueRef<'_> {
        match &self.values {
            Values::Bool(array) if array.is_valid(row) => ValueRef::Bool(array.value(row)),
            Values::Int32(array) if array.is_valid(row) => ValueRef::Int32(array.value(row)),
            Values::Int64(array) if array.is_valid(row) => ValueRef::Int64(array.value(row)),
            Values::Float32(array) if array.is_valid(row) => ValueRef::Float32(array.value(row)),
            Values::Float64(array) if array.is_valid(row) => ValueRef::Float64(array.value(row)),
            Values::Text(array) if array.is_valid(row) => ValueRef::Bytes(array.value(row).as_bytes()),
            Values::Bytes(array) if array.is_valid(row) => ValueRef::Bytes(array.value(row)),
            Values::Converted(values) => match &values[row] {
                Value::Bool(v) => ValueRef::Bool(*v),
                Value::Int32(v) => ValueRef::Int32(*v),
                Value::Int64(v) => ValueRef::Int64(*v),
                Value::Float32(v) => ValueRef::Float32(*v),
                Value::Float64(v) => ValueRef::Float64(*v),
                Value::Bytes(v) => ValueRef::Bytes(v),
                Value::Null | Value::List(_) => ValueRef::Null,
            },
            _ => ValueRef::Null,
        }
    }

    /// Appends one list to the row's next field; `self` has the items of all lists.
    fn push_items(
        &self,
        (start, end): (usize, usize),
        list_type: ValueType,
        builder: &mut RowBuilder<'_>,
    ) -> Result<(), RowError> {
        if matches!(list_type, ValueType::Set(_)) {
            let items = (start..end).map(|i| self.value(i).to_value()).collect();
            return builder.push_value(&Value::List(set(items)));
        }
        match &self.values {
            Values::Int32(items) => builder.push_list_bytes(bytes_of(items, start, end)),
            Values::Int64(items) => builder.push_list_bytes(bytes_of(items, start, end)),
            Values::Float32(items) => builder.push_list_bytes(bytes_of(items, start, end)),
            Values::Float64(items) => builder.push_list_bytes(bytes_of(items, start, end)),
            _ => builder.push_list(&(start..end).map(|i| self.value(i)).collect::<Vec<_>>()),
        }
    }

    /// Returns the instant of a row in microseconds; `None` if it is null, or if the column has no instants.
    pub fn micros(&self, row: usize) -> Option<Micros> {
        match &self.values {
            Values::Int64(array) if array.is_valid(row) => Some(array.value(row)),
            _ => None,
        }
    }

    /// Adds the value of a row to an entity key; returns false if it is null or does not match the key's type.
    pub fn push_key(&self, row: usize, key: &mut Vec<u8>) -> bool {
        let ValueType::Scalar(key_type) = self.value_type else { return false };
        let value = match (&self.values, self.value(row)) {
            (Values::Converted(values), _) => key_value(&values[row], key_type),
            (_, ValueRef::Int32(v)) => Some(KeyValue::Int32(v)),
            (_, ValueRef::Int64(v)) if key_type == ScalarType::UnixTimestamp => {
                Some(KeyValue::UnixTimestamp(v.div_euclid(1_000_000)))
            }
            (_, ValueRef::Int64(v)) => Some(KeyValue::Int64(v)),
            (Values::Text(array), ValueRef::Bytes(_)) => Some(KeyValue::String(array.value(row))),
            (_, ValueRef::Bytes(v)) => Some(KeyValue::Bytes(v)),
            _ => None,
        };
        value.map(|value| KeyEncoder::push(key, value)).is_some()
    }

    /// Returns the value of a row as the text of a key in a request; `None` if the value is null or is bytes that are
    /// not UTF-8.
    pub fn key_text(&self, row: usize) -> Option<String> {
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

// === impl Instants ===

impl Instants {
    /// Decodes a column of instants, to the nanosecond.
    pub fn new(array: &ArrayRef) -> Result<Self, ColumnError> {
        let array = arrow_cell::unpacked(array)?;
        let nanos = match array.data_type() {
            DataType::Timestamp(TimeUnit::Nanosecond, _) => Some(array.as_primitive().clone()),
            _ => None,
        };
        Ok(Self { micros: Column::instants(&array)?, nanos })
    }

    /// Returns the instant of a row in microseconds; `None` if it is null.
    pub fn micros(&self, row: usize) -> Option<Micros> {
        self.micros.micros(row)
    }

    /// Returns the reason why the time of a row cannot be read; `None` if it can be read.
    pub fn conversion_error(&self, row: usize) -> Option<&str> {
        self.micros.conversion_error(row)
    }

    /// Returns the part of a row's instant that its microseconds do not contain, in nanoseconds: 0 to 999.
    pub fn nanos(&self, row: usize) -> u32 {
        let nanos = self.nanos.as_ref().filter(|nanos| nanos.is_valid(row));
        nanos.map_or(0, |nanos| u32::try_from(nanos.value(row).rem_euclid(1_000)).unwrap_or(0))
    }
}

/// Returns the range of the items of a row's list.
fn span(list: &ListArray, row: usize) -> (usize, usize) {
    let ends = list.value_offsets();
    // Arrow guarantees that offsets are neither negative nor beyond the last item.
    let at = |i: usize| usize::try_from(ends[i]).unwrap_or(0);
    (at(row), at(row + 1))
}

/// Returns the bytes of items in memory. Rows use the same format, because both are little-endian.
fn bytes_of<T: ArrowPrimitiveType>(items: &PrimitiveArray<T>, start: usize, end: usize) -> &[u8] {
    const { assert!(cfg!(target_endian = "little"), "rows are little-endian: swap the items here") };
    let width = size_of::<T::Native>();
    &items.values().inner().as_slice()[start * width..end * width]
}

/// Converts a column as a whole; returns `None` if a value does not convert, or if the values must be converted
/// individually.
fn convert_whole(array: &ArrayRef, scalar: ScalarType, role: Role) -> Option<Values> {
    let from = array.data_type();
    let is_number = from.is_integer() || from.is_floating();
    let values = match scalar {
        ScalarType::Bool if *from == DataType::Boolean => Values::Bool(array.as_boolean().clone()),
        ScalarType::Int32 if from.is_integer() => {
            Values::Int32(cast_all(array, &DataType::Int32)?.as_primitive().clone())
        }
        ScalarType::Int64 if from.is_integer() => {
            Values::Int64(cast_all(array, &DataType::Int64)?.as_primitive().clone())
        }
        // Arrow truncates fractions, as Python's `int()` does. NaN represents null, because pandas stores integers with
        // nulls as floats.
        ScalarType::Int32 if from.is_floating() && role == Role::Feature => {
            Values::Int32(cast_all(&without_nan(array)?, &DataType::Int32)?.as_primitive().clone())
        }
        ScalarType::Int64 if from.is_floating() && role == Role::Feature => {
            Values::Int64(cast_all(&without_nan(array)?, &DataType::Int64)?.as_primitive().clone())
        }
        ScalarType::Float32 if *from == DataType::Float64 => {
            let doubles = array.as_primitive::<Float64Type>();
            let fits = |value: &f64| single(*value).is_some();
            if !doubles.values().iter().all(fits) {
                return None;
            }
            Values::Float32(cast_all(&for_floats(array, role)?, &DataType::Float32)?.as_primitive().clone())
        }
        ScalarType::Float32 if is_number => {
            Values::Float32(cast_all(&for_floats(array, role)?, &DataType::Float32)?.as_primitive().clone())
        }
        ScalarType::Float64 if is_number || is_short_decimal(from) => {
            Values::Float64(cast_all(&for_floats(array, role)?, &DataType::Float64)?.as_primitive().clone())
        }
        ScalarType::UnixTimestamp => Values::Int64(instants(array, role)?),
        ScalarType::String if is_text(from) => Values::Text(cast_all(array, &DataType::Utf8)?.as_string().clone()),
        ScalarType::Json | ScalarType::Uuid | ScalarType::TimeUuid | ScalarType::Decimal if is_text(from) => {
            let texts: StringArray = cast_all(array, &DataType::Utf8)?.as_string().clone();
            if !texts.iter().flatten().all(|text| is_text_of(text, scalar)) {
                return None;
            }
            Values::Text(texts)
        }
        // For a feature of bytes, text in a file is its UTF-8 bytes. It is not base64, which only JSON needs to
        // represent bytes.
        ScalarType::Bytes | ScalarType::PdfBytes | ScalarType::ImageBytes if is_binary(from) || is_text(from) => {
            Values::Bytes(cast_all(array, &DataType::Binary)?.as_binary().clone())
        }
        _ => return None,
    };
    Some(if role == Role::Item { without_nulls(values, scalar) } else { values })
}

/// Casts a column to another type; returns `None` if a value would be lost.
fn cast_all(array: &ArrayRef, to: &DataType) -> Option<ArrayRef> {
    if array.data_type() == to {
        return Some(Arc::clone(array));
    }
    // Arrow converts values that are out of range to nulls.
    cast(array, to).ok().filter(|cast| cast.null_count() == array.null_count())
}

/// Replaces NaN with null, as in pandas, except in items of lists.
fn for_floats(array: &ArrayRef, role: Role) -> Option<ArrayRef> {
    if role == Role::Item { Some(Arc::clone(array)) } else { without_nan(array) }
}

/// Returns a column of floats with NaN replaced by null. Returns other columns unchanged.
fn without_nan(array: &ArrayRef) -> Option<ArrayRef> {
    fn of<T: ArrowPrimitiveType>(array: &ArrayRef, is_nan: impl Fn(T::Native) -> bool) -> ArrayRef {
        let floats = array.as_primitive::<T>();
        if !floats.values().iter().any(|value| is_nan(*value)) {
            return Arc::clone(array);
        }
        Arc::new(floats.iter().map(|value| value.filter(|value| !is_nan(*value))).collect::<PrimitiveArray<T>>())
    }
    Some(match array.data_type() {
        DataType::Float16 => of::<Float32Type>(&cast(array, &DataType::Float32).ok()?, f32::is_nan),
        DataType::Float32 => of::<Float32Type>(array, f32::is_nan),
        DataType::Float64 => of::<Float64Type>(array, f64::is_nan),
        _ => Arc::clone(array),
    })
}

/// Returns the items of lists with nulls replaced by the placeholder for their type.
fn without_nulls(values: Values, item: ScalarType) -> Values {
    macro_rules! filled {
        ($array:expr, $values:ident, $shape:ident) => {
            match null_item(item, false) {
                Value::$shape(filler) if $array.null_count() > 0 => {
                    Values::$values($array.iter().map(|value| Some(value.unwrap_or(filler))).collect())
                }
                _ => Values::$values($array),
            }
        };
    }
    match values {
        Values::Bool(array) => filled!(array, Bool, Bool),
        Values::Int32(array) => filled!(array, Int32, Int32),
        Values::Int64(array) => filled!(array, Int64, Int64),
        Values::Float32(array) => filled!(array, Float32, Float32),
        Values::Float64(array) => filled!(array, Float64, Float64),
        Values::Text(array) if array.null_count() > 0 => {
            let filler = if item == ScalarType::Json { "null" } else { "" };
            Values::Text(array.iter().map(|value| Some(value.unwrap_or(filler))).collect())
        }
        Values::Bytes(array) if array.null_count() > 0 => {
            Values::Bytes(array.iter().map(|value| Some(value.unwrap_or_default())).collect())
        }
        other => other,
    }
}

/// Converts timestamps, dates, or integers (in seconds) to instants in microseconds. A null timestamp or date
/// becomes the placeholder that Feast also uses, except in keys.
fn instants(array: &ArrayRef, role: Role) -> Option<Int64Array> {
    if is_time(array) {
        let (micros, unconverted) = micros(array)?;
        if !unconverted.is_empty() {
            return None;
        }
        if role == Role::Key || micros.null_count() == 0 {
            return Some(micros);
        }
        return Some(micros.iter().map(|value| Some(value.unwrap_or(NULL_TIMESTAMP_SECONDS))).collect());
    }
    if !array.data_type().is_integer() {
        return None;
    }
    let seconds = cast_all(array, &DataType::Int64)?;
    let micros = |seconds: i64| match seconds {
        NULL_TIMESTAMP_SECONDS => Ok(seconds),
        seconds => seconds.checked_mul(1_000_000).ok_or(()),
    };
    seconds.as_primitive::<Int64Type>().try_unary(micros).ok()
}

fn is_time(array: &ArrayRef) -> bool {
    matches!(array.data_type(), DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
}

/// Converts timestamps and dates to microseconds. Also returns the rows whose time is out of range; their values are
/// null. Returns `None` if the column has neither timestamps nor dates.
fn micros(array: &ArrayRef) -> Option<(Int64Array, Vec<usize>)> {
    fn scaled<T: ArrowPrimitiveType>(array: &ArrayRef, factor: i64) -> (Int64Array, Vec<usize>)
    where
        T::Native: Into<i64>,
    {
        let array = array.as_primitive::<T>();
        let scale = |value: T::Native| value.into().checked_mul(factor);
        let micros: Int64Array = array.unary_opt(scale);
        let is_unconverted = |row: &usize| micros.is_null(*row) && array.is_valid(*row);
        let unconverted = if micros.null_count() == array.null_count() {
            Vec::new()
        } else {
            (0..array.len()).filter(is_unconverted).collect()
        };
        (micros, unconverted)
    }
    fn same<T: ArrowTimestampType>(array: &ArrayRef, divisor: i64) -> (Int64Array, Vec<usize>) {
        (array.as_primitive::<T>().unary(|value| value.div_euclid(divisor)), Vec::new())
    }
    Some(match array.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => scaled::<TimestampSecondType>(array, 1_000_000),
        DataType::Timestamp(TimeUnit::Millisecond, _) => scaled::<TimestampMillisecondType>(array, 1_000),
        DataType::Timestamp(TimeUnit::Microsecond, _) => same::<TimestampMicrosecondType>(array, 1),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => same::<TimestampNanosecondType>(array, 1_000),
        DataType::Date32 => scaled::<Date32Type>(array, 86_400_000_000),
        DataType::Date64 => scaled::<Date64Type>(array, 1_000),
        _ => return None,
    })
}

/// Returns whether the unscaled values and the power of ten of a decimal type are exact as doubles. If so, their
/// quotient is the double that is nearest to the decimal.
fn is_short_decimal(of: &DataType) -> bool {
    match of {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => *precision <= 15 && (0..=22).contains(scale),
        _ => false,
    }
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

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_binary(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
}

/// Returns the name of a column's type as users write it in definitions, instead of Arrow's name.
fn name_of(of: &DataType) -> String {
    match of {
        DataType::Struct(_) => "a struct".to_owned(),
        DataType::Map(..) => "a map".to_owned(),
        DataType::Null => "null".to_owned(),
        DataType::Boolean => "Bool".to_owned(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "String".to_owned(),
        binary if is_binary(binary) => "Bytes".to_owned(),
        DataType::Timestamp(..) => "a timestamp".to_owned(),
        DataType::Date32 | DataType::Date64 => "a date".to_owned(),
        DataType::Time32(_) | DataType::Time64(_) => "a time of day".to_owned(),
        DataType::Duration(_) | DataType::Interval(_) => "a duration".to_owned(),
        DataType::Decimal32(digits, scale)
        | DataType::Decimal64(digits, scale)
        | DataType::Decimal128(digits, scale)
        | DataType::Decimal256(digits, scale) => format!("Decimal({digits}, {scale})"),
        DataType::Dictionary(_, values) => name_of(values),
        DataType::RunEndEncoded(_, values) => name_of(values.data_type()),
        other => list_item(other)
            .map_or_else(|| other.to_string(), |item| format!("a list of {}", name_of(item.data_type()))),
    }
}

#[cfg(test)]
mod tests;
