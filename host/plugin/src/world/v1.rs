//! The columns of version 0.1 of the contract, each of which consists of a few typed vectors.
//!
//! Only this module uses such columns. It converts the frame of inputs to columns, and validates the columns that a
//! plugin returns and converts them to a frame.

use larder_model::model::ValueRef;

use crate::{
    CallError, ColumnFault, ColumnRef, ColumnScalar, ColumnType, ColumnWriter, Field, Frame, FrameBuilder,
    bindings::types::{Column, Lists, Scalars, Values, VarBytes},
    frame::{ValueSlice, check_bools, check_ends, check_presence, check_text},
};

/// The columns that a plugin returned, not validated yet.
pub(crate) struct ReturnedColumns(pub(super) Vec<Column>);

/// Converts the columns of a frame.
pub(super) fn columns(frame: &Frame) -> Vec<Column> {
    frame.columns().map(column).collect()
}

fn column(column: ColumnRef<'_>) -> Column {
    // In the contract, a column without nulls has no bitmap.
    let validity = column.has_nulls().then(|| column.presence().to_vec());
    let values = scalars(column.values());
    let values = if column.column_type().is_list {
        Values::Lists(Lists { ends: column.list_ends(0..column.rows()).collect(), items: values })
    } else {
        Values::Scalars(values)
    };
    Column { values, validity }
}

fn scalars(values: ValueSlice<'_>) -> Scalars {
    let all = 0..values.len();
    let slots = values.slots(all.clone());
    let var = || VarBytes { ends: values.ends(all).collect(), data: values.all_data().to_vec() };
    match values.scalar() {
        ColumnScalar::Bool => Scalars::Bools(slots.to_vec()),
        ColumnScalar::Int32 => Scalars::Int32s(numbers(slots, i32::from_le_bytes)),
        ColumnScalar::Int64 => Scalars::Int64s(numbers(slots, i64::from_le_bytes)),
        ColumnScalar::Float32 => Scalars::Float32s(numbers(slots, f32::from_le_bytes)),
        ColumnScalar::Float64 => Scalars::Float64s(numbers(slots, f64::from_le_bytes)),
        ColumnScalar::Utf8 => Scalars::Strings(var()),
        ColumnScalar::Binary => Scalars::Binaries(var()),
        ColumnScalar::Timestamp => Scalars::Timestamps(numbers(slots, i64::from_le_bytes)),
    }
}

fn numbers<T, const WIDTH: usize>(bytes: &[u8], number: impl Fn([u8; WIDTH]) -> T) -> Vec<T> {
    bytes.as_chunks::<WIDTH>().0.iter().map(|bytes| number(*bytes)).collect()
}

// === impl ReturnedColumns ===

impl ReturnedColumns {
    /// Validates the columns against the signature, and converts them.
    ///
    /// # Errors
    /// The first fault.
    pub(super) fn check(&self, declared: &[Field], rows: usize) -> Result<Frame, CallError> {
        if self.0.len() != declared.len() {
            return Err(CallError::Columns { found: self.0.len(), declared: declared.len() });
        }
        let mut frame = FrameBuilder::new(declared.iter().map(|field| field.column_type), rows);
        for (column, field) in self.0.iter().zip(declared) {
            check_column(column, field, rows).map_err(|fault| CallError::Column { name: field.name.clone(), fault })?;
            frame.column(|to| fill(to, column));
        }
        Ok(frame.finish())
    }
}

fn check_column(column: &Column, field: &Field, rows: usize) -> Result<(), ColumnFault> {
    let (items, list_ends) = match &column.values {
        Values::Scalars(scalars) => (scalars, None),
        Values::Lists(lists) => (&lists.items, Some(&lists.ends)),
    };
    let (scalar, count) = shape(items);
    let (found, declared) =
        (if list_ends.is_some() { ColumnType::list(scalar) } else { ColumnType::single(scalar) }, field.column_type);
    if found != declared {
        return Err(ColumnFault::Type { found, declared });
    }
    match items {
        Scalars::Bools(values) => check_bools(values)?,
        Scalars::Strings(var) => check_text(var.ends.iter().copied(), &var.data)?,
        Scalars::Binaries(var) => check_ends(var.ends.iter().copied(), var.data.len())?,
        _ => {}
    }
    if let Some(ends) = list_ends {
        check_ends(ends.iter().copied(), count)?;
    }
    let found = list_ends.map_or(count, Vec::len);
    if found != rows {
        return Err(ColumnFault::Length { found, rows });
    }
    match &column.validity {
        Some(bitmap) if bitmap.len() != rows.div_ceil(8) => Err(ColumnFault::Validity { rows }),
        Some(bitmap) => check_presence(bitmap, rows, if field.nullable { rows } else { 0 }).map(|_| ()),
        None => Ok(()),
    }
}

/// Runs code with an iterator over values. The type of the values is matched once, not for each value.
macro_rules! with_values {
    ($scalars:expr, $range:expr, |$values:ident| $code:expr) => {
        with_values!($scalars, $range, |$values| $code,
            Bools => |value| ValueRef::Bool(*value != 0),
            Int32s => |value| ValueRef::Int32(*value),
            Int64s => |value| ValueRef::Int64(*value),
            Timestamps => |value| ValueRef::Int64(*value),
            Float32s => |value| ValueRef::Float32(*value),
            Float64s => |value| ValueRef::Float64(*value),
        )
    };
    ($scalars:expr, $range:expr, |$values:ident| $code:expr, $($case:ident => $value:expr,)*) => {
        match $scalars {
            $(Scalars::$case(all) => {
                let $values = all[$range].iter().map($value);
                $code
            })*
            Scalars::Strings(var) | Scalars::Binaries(var) => {
                let $values = ($range).map(|i| ValueRef::Bytes(bytes(var, i)));
                $code
            }
        }
    };
}

/// Copies a column. Rows that are null are written as nulls, whatever their slots contain.
fn fill(to: &mut ColumnWriter<'_>, column: &Column) {
    let is_present = |row: usize| match &column.validity {
        Some(bitmap) => bitmap[row / 8] >> (row % 8) & 1 == 1,
        None => true,
    };
    match &column.values {
        Values::Scalars(scalars) => with_values!(scalars, 0..shape(scalars).1, |values| {
            to.extend(values.enumerate().map(|(row, value)| if is_present(row) { value } else { ValueRef::Null }));
        }),
        Values::Lists(lists) => {
            let mut start = 0;
            for (row, end) in lists.ends.iter().map(|end| *end as usize).enumerate() {
                if is_present(row) {
                    with_values!(&lists.items, start..end, |items| to.push_list(items));
                } else {
                    to.push(ValueRef::Null);
                }
                start = end;
            }
        }
    }
}

/// Returns the type of values, and their number.
fn shape(scalars: &Scalars) -> (ColumnScalar, usize) {
    match scalars {
        Scalars::Bools(values) => (ColumnScalar::Bool, values.len()),
        Scalars::Int32s(values) => (ColumnScalar::Int32, values.len()),
        Scalars::Int64s(values) => (ColumnScalar::Int64, values.len()),
        Scalars::Float32s(values) => (ColumnScalar::Float32, values.len()),
        Scalars::Float64s(values) => (ColumnScalar::Float64, values.len()),
        Scalars::Strings(var) => (ColumnScalar::Utf8, var.ends.len()),
        Scalars::Binaries(var) => (ColumnScalar::Binary, var.ends.len()),
        Scalars::Timestamps(values) => (ColumnScalar::Timestamp, values.len()),
    }
}

/// Returns value `i` of text or bytes. The ends must have been validated by [`check_column`].
fn bytes(var: &VarBytes, i: usize) -> &[u8] {
    let start = if i == 0 { 0 } else { var.ends[i - 1] };
    &var.data[start as usize..var.ends[i] as usize]
}

#[cfg(test)]
mod tests;
