//! The columns of a batch in one piece, as version 0.2 of the contract lays them out (`wit/0.2.0/transform.wit` has the
//! drawing): heads of all columns, then tails. What comes back is bytes of somebody who may mean harm: every part is
//! looked for within them, and what the parts say is for [`Output::check`](super::Output::check) to look at.

use std::iter;

use super::{
    ColumnFault, ColumnScalar, ColumnType, Field,
    bindings::types::{Column, Lists, Scalars, Values, VarBytes},
};

/// Why bytes are no columns.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FrameFault {
    /// A column, by its place, is none.
    Column(usize, ColumnFault),
    /// So many bytes follow the last column.
    Surplus(usize),
}

/// What nobody has read yet.
struct Parts<'f> {
    heads: &'f [u8],
    tails: &'f [u8],
}

/// All parts begin at a multiple of so many bytes.
const ALIGN: usize = 8;
/// How wide an end is.
const END: usize = 4;

/// Lays columns out, each of which has so many rows.
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

/// The columns of these fields, as far as a frame has them: types, rows and lengths are right then, and nothing else is
/// looked at.
pub(super) fn read(frame: &[u8], fields: &[Field], rows: usize) -> Result<Vec<Column>, FrameFault> {
    let heads = fields.iter().map(|field| presence_len(rows) + padded(rows * slot_width(field.column_type)));
    // Where there is less, the first column that wants more than there is says so.
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

    /// So many values, whose slots are in one of the parts.
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

/// The next so many values of a part, which are so wide.
fn take<'f>(part: &mut &'f [u8], count: usize, width: usize) -> Result<&'f [u8], ColumnFault> {
    let bytes = count.checked_mul(width).ok_or(ColumnFault::Cut)?;
    let with_padding = bytes.checked_next_multiple_of(ALIGN).ok_or(ColumnFault::Cut)?;
    let (taken, rest) = part.split_at_checked(with_padding).ok_or(ColumnFault::Cut)?;
    *part = rest;
    let (values, padding) = taken.split_at(bytes);
    // What is nothing now can come to mean something, and would not be read by a host that let it pass.
    if padding.iter().any(|byte| *byte != 0) { Err(ColumnFault::Padding) } else { Ok(values) }
}

fn numbers<T, const WIDTH: usize>(bytes: &[u8], number: impl Fn([u8; WIDTH]) -> T) -> Vec<T> {
    bytes.as_chunks::<WIDTH>().0.iter().map(|bytes| number(*bytes)).collect()
}

/// Presence as columns have it: none where all rows are present.
fn validity(presence: &[u8], rows: usize) -> Result<Option<Vec<u8>>, ColumnFault> {
    let (bitmap, beyond) = presence.split_at(rows.div_ceil(8));
    if beyond.iter().any(|byte| *byte != 0) {
        return Err(ColumnFault::Validity { rows });
    }
    let is_whole = bitmap.iter().copied().eq(whole(rows));
    Ok((!is_whole).then(|| bitmap.to_vec()))
}

/// A bitmap with a bit for each row.
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

/// What lies between ends.
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

/// How wide a value is, or its end.
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
