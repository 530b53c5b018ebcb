//! The columns of a batch as one block of bytes, in the layout of version 0.2 of the contract (drawn in
//! `wit/0.2.0/transform.wit`): heads of all columns, then tails. The bytes that a plugin returns are untrusted: every
//! part is bounds-checked here, and [`Output::check`](super::Output::check) validates the contents.

use std::iter;

use super::{
    ColumnFault, ColumnScalar, ColumnType, Field,
    bindings::types::{Column, Lists, Scalars, Values, VarBytes},
};

/// Why bytes are not valid columns.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FrameFault {
    /// The column at this index is invalid.
    Column(usize, ColumnFault),
    /// This many bytes follow the last column.
    Surplus(usize),
}

/// The bytes that are not read yet.
struct Parts<'f> {
    heads: &'f [u8],
    tails: &'f [u8],
}

/// All parts begin at a multiple of this many bytes.
const ALIGN: usize = 8;
/// The size of an end in bytes.
const END: usize = 4;

/// Lays out columns, each of which has this many rows.
pub(super) fn write(columns: &[Column], rows: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(columns.iter().map(|column| len(column, rows)).sum());
    for column in columns {
        let presence = frame.len();
        frame.resize(presence + presence_len(rows), 0);
        match &column.validity {
            Some(bitmap) => frame[presence..presence + bitmap.len()].copy_from_slice(bitmap),
            None => fill(&mut frame[presence..], rows),
        }
        match &column.values {
            Values::Scalars(scalars) => put_scalars(&mut frame, scalars),
            Values::Lists(lists) => put(&mut frame, &lists.ends, u32::to_le_bytes),
        }
    }
    for column in columns {
        match &column.values {
            Values::Scalars(scalars) => put_data(&mut frame, scalars),
            Values::Lists(lists) => {
                put_scalars(&mut frame, &lists.items);
                put_data(&mut frame, &lists.items);
            }
        }
    }
    frame
}

/// Reads the columns of these fields from a frame. Types, numbers of rows and lengths of the result are correct;
/// nothing else is checked.
pub(super) fn read(frame: &[u8], fields: &[Field], rows: usize) -> Result<Vec<Column>, FrameFault> {
    let heads = fields.iter().map(|field| presence_len(rows) + padded(rows * slot_width(field.column_type)));
    // If the frame is too short, the first column that does not fit reports it.
    let (heads, tails) = frame.split_at(heads.sum::<usize>().min(frame.len()));
    let mut parts = Parts { heads, tails };
    let columns = fields
        .iter()
        .enumerate()
        .map(|(place, field)| parts.column(field.column_type, rows).map_err(|fault| FrameFault::Column(place, fault)));
    let columns = columns.collect::<Result<_, _>>()?;
    match parts.heads.len() + parts.tails.len() {
        0 => Ok(columns),
        bytes => Err(FrameFault::Surplus(bytes)),
    }
}

// === impl Parts ===

impl<'f> Parts<'f> {
    fn column(&mut self, of: ColumnType, rows: usize) -> Result<Column, ColumnFault> {
        let presence = take(&mut self.heads, rows.div_ceil(64), 8)?;
        let validity = validity(presence, rows)?;
        let values = if of.is_list {
            let ends = numbers(take(&mut self.heads, rows, END)?, u32::from_le_bytes);
            let items = ends.last().map_or(0, |end| *end as usize);
            Values::Lists(Lists { items: self.scalars(of.scalar, items, |parts| &mut parts.tails)?, ends })
        } else {
            Values::Scalars(self.scalars(of.scalar, rows, |parts| &mut parts.heads)?)
        };
        Ok(Column { values, validity })
    }

    /// Reads this many values, whose slots are in one of the parts.
    fn scalars(
        &mut self,
        of: ColumnScalar,
        count: usize,
        slots: impl Fn(&mut Self) -> &mut &'f [u8],
    ) -> Result<Scalars, ColumnFault> {
        let bytes = take(slots(self), count, width(of))?;
        Ok(match of {
            ColumnScalar::Bool => Scalars::Bools(bytes.to_vec()),
            ColumnScalar::Int32 => Scalars::Int32s(numbers(bytes, i32::from_le_bytes)),
            ColumnScalar::Int64 => Scalars::Int64s(numbers(bytes, i64::from_le_bytes)),
            ColumnScalar::Float32 => Scalars::Float32s(numbers(bytes, f32::from_le_bytes)),
            ColumnScalar::Float64 => Scalars::Float64s(numbers(bytes, f64::from_le_bytes)),
            ColumnScalar::Timestamp => Scalars::Timestamps(numbers(bytes, i64::from_le_bytes)),
            ColumnScalar::Utf8 => Scalars::Strings(self.texts(bytes)?),
            ColumnScalar::Binary => Scalars::Binaries(self.texts(bytes)?),
        })
    }

    fn texts(&mut self, ends: &[u8]) -> Result<VarBytes, ColumnFault> {
        let ends = numbers(ends, u32::from_le_bytes);
        let data = take(&mut self.tails, ends.last().map_or(0, |end| *end as usize), 1)?;
        Ok(VarBytes { ends, data: data.to_vec() })
    }
}

/// Returns the next values of a part: `count` of them, with `width` bytes each.
fn take<'f>(part: &mut &'f [u8], count: usize, width: usize) -> Result<&'f [u8], ColumnFault> {
    let bytes = count.checked_mul(width).ok_or(ColumnFault::Cut)?;
    let with_padding = bytes.checked_next_multiple_of(ALIGN).ok_or(ColumnFault::Cut)?;
    let (taken, rest) = part.split_at_checked(with_padding).ok_or(ColumnFault::Cut)?;
    *part = rest;
    let (values, padding) = taken.split_at(bytes);
    // Padding may get a meaning in a later version, which a host that accepts any padding would ignore.
    if padding.iter().any(|byte| *byte != 0) { Err(ColumnFault::Padding) } else { Ok(values) }
}

fn numbers<T, const WIDTH: usize>(bytes: &[u8], number: impl Fn([u8; WIDTH]) -> T) -> Vec<T> {
    bytes.as_chunks::<WIDTH>().0.iter().map(|bytes| number(*bytes)).collect()
}

/// Converts presence to the format of columns: `None` if all rows are present.
fn validity(presence: &[u8], rows: usize) -> Result<Option<Vec<u8>>, ColumnFault> {
    let (bitmap, beyond) = presence.split_at(rows.div_ceil(8));
    if beyond.iter().any(|byte| *byte != 0) {
        return Err(ColumnFault::Validity { rows });
    }
    let is_whole = bitmap.iter().copied().eq(whole(rows));
    Ok((!is_whole).then(|| bitmap.to_vec()))
}

/// Returns a bitmap with a bit for each row.
fn whole(rows: usize) -> impl Iterator<Item = u8> {
    let last = (!rows.is_multiple_of(8)).then_some((1 << (rows % 8)) - 1);
    iter::repeat_n(0xff, rows / 8).chain(last)
}

fn fill(presence: &mut [u8], rows: usize) {
    presence.iter_mut().zip(whole(rows)).for_each(|(to, byte)| *to = byte);
}

fn put_scalars(frame: &mut Vec<u8>, scalars: &Scalars) {
    match scalars {
        Scalars::Bools(values) => put(frame, values, u8::to_le_bytes),
        Scalars::Int32s(values) => put(frame, values, i32::to_le_bytes),
        Scalars::Int64s(values) | Scalars::Timestamps(values) => put(frame, values, i64::to_le_bytes),
        Scalars::Float32s(values) => put(frame, values, f32::to_le_bytes),
        Scalars::Float64s(values) => put(frame, values, f64::to_le_bytes),
        Scalars::Strings(var) | Scalars::Binaries(var) => put(frame, &var.ends, u32::to_le_bytes),
    }
}

/// Appends the data between ends.
fn put_data(frame: &mut Vec<u8>, scalars: &Scalars) {
    if let Scalars::Strings(var) | Scalars::Binaries(var) = scalars {
        frame.extend_from_slice(&var.data);
        frame.resize(padded(frame.len()), 0);
    }
}

fn put<T: Copy, const WIDTH: usize>(frame: &mut Vec<u8>, values: &[T], bytes: impl Fn(T) -> [u8; WIDTH]) {
    let start = frame.len();
    frame.resize(start + padded(values.len() * WIDTH), 0);
    let slots = frame[start..].as_chunks_mut::<WIDTH>().0;
    slots.iter_mut().zip(values).for_each(|(slot, value)| *slot = bytes(*value));
}

fn len(column: &Column, rows: usize) -> usize {
    let scalars = |scalars: &Scalars| match scalars {
        Scalars::Bools(values) => padded(values.len()),
        Scalars::Int32s(values) => padded(values.len() * 4),
        Scalars::Float32s(values) => padded(values.len() * 4),
        Scalars::Int64s(values) | Scalars::Timestamps(values) => values.len() * 8,
        Scalars::Float64s(values) => values.len() * 8,
        Scalars::Strings(var) | Scalars::Binaries(var) => padded(var.ends.len() * END) + padded(var.data.len()),
    };
    presence_len(rows)
        + match &column.values {
            Values::Scalars(values) => scalars(values),
            Values::Lists(lists) => padded(lists.ends.len() * END) + scalars(&lists.items),
        }
}

fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGN)
}

fn presence_len(rows: usize) -> usize {
    rows.div_ceil(64) * 8
}

fn slot_width(of: ColumnType) -> usize {
    if of.is_list { END } else { width(of.scalar) }
}

/// Returns the size of a value, or of its end, in bytes.
fn width(of: ColumnScalar) -> usize {
    match of {
        ColumnScalar::Bool => 1,
        ColumnScalar::Int32 | ColumnScalar::Float32 => 4,
        ColumnScalar::Int64 | ColumnScalar::Float64 | ColumnScalar::Timestamp => 8,
        ColumnScalar::Utf8 | ColumnScalar::Binary => END,
    }
}

#[cfg(test)]
mod tests;
