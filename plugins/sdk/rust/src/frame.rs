//! A batch in the layout in which host and plugin exchange it: a byte buffer with the columns of all rows.
//! `wit/transform.wit` describes the layout.
//!
//! A [`Frame`] is read column by column, without copies. For writing, the heads are allocated at their final size, and
//! [`Heads`] divides them into columns. Texts, bytes and items of lists, whose lengths are not known in advance, are
//! collected separately and appended at the end.

use std::borrow::Cow;

use bytemuck::Pod;

use crate::{
    __private::types::ScalarType,
    Fault,
    input::{FrameError, Reader},
    run::{ColumnType, FieldSpec},
};

/// The columns of a frame that have not been read yet.
#[derive(Debug)]
pub struct Frame<'a> {
    heads: &'a [u8],
    tails: &'a [u8],
    pub(crate) rows: usize,
    /// The reference time of each row, in microseconds since the Unix epoch. Empty if the plugin does not
    /// read the time.
    pub(crate) times: &'a [i64],
}

/// The two halves of a frame. A column can have a part in each.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Head,
    Tail,
}

/// The heads of the columns of a frame that have not been reserved yet.
#[derive(Debug)]
pub struct Heads<'h> {
    bytes: &'h mut [u8],
    pub(crate) rows: usize,
}

/// The alignment of all parts, in bytes.
const ALIGN: usize = 8;
/// The width of an end, in bytes.
pub(crate) const END: usize = 4;

/// Returns the frame at an address that is aligned for its numbers. A frame at any other address is copied, but
/// allocators return aligned ones.
pub(crate) fn aligned(frame: &[u8]) -> Cow<'_, [u64]> {
    match bytemuck::try_cast_slice(frame) {
        Ok(words) => Cow::Borrowed(words),
        Err(_) => Cow::Owned(bytemuck::allocation::pod_collect_to_vec(frame)),
    }
}

/// Returns the size of a part with its padding.
///
/// Here and in the functions below, arithmetic wraps: checks for overflow, with which plugins are compiled, would make a
/// call with one row a quarter slower. An overflow is harmless, because parts are divided with checks of their sizes.
#[inline]
pub(crate) fn padded(bytes: usize) -> usize {
    bytes.wrapping_add(ALIGN - 1) & !(ALIGN - 1)
}

/// Appends a part, and pads it with zeros to the alignment.
pub(crate) fn append(to: &mut Vec<u8>, part: &[u8]) {
    to.extend_from_slice(part);
    to.resize(padded(to.len()), 0);
}

/// Returns the bytes of an end, which always fits: a component's memory is smaller than 2^32 bytes.
pub(crate) fn end(len: usize) -> [u8; END] {
    u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()
}

/// Returns the number of 64-bit words in the presence bitmap of this many rows.
pub(crate) fn words(rows: usize) -> usize {
    rows.div_ceil(64)
}

/// Returns the last word of the presence bitmap of `count` values, at least one, of which none is null.
#[inline]
pub(crate) fn last_word(count: usize) -> u64 {
    u64::MAX >> (count.wrapping_neg() % 64)
}

/// Returns the width of a slot (a value or an end), in bytes.
const fn slot_width(of: ColumnType) -> usize {
    match of.scalar {
        _ if of.is_list => END,
        ScalarType::Bool => 1,
        ScalarType::Int32 | ScalarType::Float32 | ScalarType::Utf8 | ScalarType::Binary => 4,
        ScalarType::Int64 | ScalarType::Float64 | ScalarType::Timestamp => 8,
    }
}

/// Returns the size of the head of a column, in bytes.
#[inline]
fn head_len(of: ColumnType, rows: usize) -> usize {
    (words(rows) * 8).wrapping_add(padded(rows.wrapping_mul(slot_width(of))))
}

/// Returns the size of the heads of these columns, in bytes.
#[inline]
fn heads_len(fields: &[FieldSpec], rows: usize) -> usize {
    fields.iter().fold(0, |len, field| len.wrapping_add(head_len(field.column_type, rows)))
}

/// Allocates the heads of these columns, which are all zeros.
#[inline]
pub(crate) fn zero_heads(fields: &[FieldSpec], rows: usize) -> Vec<u8> {
    vec![0; heads_len(fields, rows)]
}

// === impl Frame ===

impl<'a> Frame<'a> {
    /// Splits the frame into the heads and tails of these fields. If the plugin reads the time, also reads the column of
    /// times, which is in front of the others.
    ///
    /// # Errors
    /// Returns a fault if the frame is smaller than the heads of the columns, or if a row has no time.
    #[inline]
    pub fn open(frame: &'a [u64], rows: usize, reads_time: bool, fields: &[FieldSpec]) -> Result<Self, Fault> {
        let frame: &[u8] = bytemuck::cast_slice(frame);
        let times = if reads_time { head_len(ColumnType::scalar(ScalarType::Timestamp), rows) } else { 0 };
        let heads = times + heads_len(fields, rows);
        let (heads, tails) = frame.split_at_checked(heads).ok_or_else(|| cut_fault(frame.len(), heads))?;
        let mut frame = Self { heads, tails, rows, times: &[] };
        if reads_time {
            frame.times = frame.take_times()?;
        }
        Ok(frame)
    }

    fn take_times(&mut self) -> Result<&'a [i64], Fault> {
        let fault = |_| Fault::new("the received frame has no column of times");
        let presence = self.presence().map_err(fault)?;
        let times = self.take(Part::Head, self.rows).map_err(fault)?;
        if Reader::new(presence, (), self.rows).has_nulls() {
            return Err(Fault::new("the received frame has a row without a time"));
        }
        Ok(times)
    }

    /// Returns the presence bitmap of the next column.
    #[inline]
    pub(crate) fn presence(&mut self) -> Result<&'a [u64], FrameError> {
        self.take(Part::Head, words(self.rows))
    }

    /// Returns the next `count` numbers of a part.
    #[inline]
    pub(crate) fn take<T: Pod>(&mut self, part: Part, count: usize) -> Result<&'a [T], FrameError> {
        let from = match part {
            Part::Head => &mut self.heads,
            Part::Tail => &mut self.tails,
        };
        let bytes = count.checked_mul(size_of::<T>()).ok_or(FrameError::Cut)?;
        let with_padding = bytes.checked_next_multiple_of(ALIGN).ok_or(FrameError::Cut)?;
        let (taken, rest) = from.split_at_checked(with_padding).ok_or(FrameError::Cut)?;
        *from = rest;
        bytemuck::try_cast_slice(&taken[..bytes]).map_err(|_| FrameError::Cut)
    }

    /// Returns the next `count` ends, and the last of them.
    #[inline]
    pub(crate) fn ends(&mut self, part: Part, count: usize) -> Result<(&'a [u32], usize), FrameError> {
        let ends: &[u32] = self.take(part, count)?;
        if !ends.is_sorted() {
            return Err(FrameError::Ends);
        }
        Ok((ends, ends.last().map_or(0, |end| *end as usize)))
    }

    /// Checks that the whole frame was read.
    ///
    /// # Errors
    /// Returns a fault if bytes are left.
    #[inline]
    pub fn close(self) -> Result<(), Fault> {
        match self.heads.len() + self.tails.len() {
            0 => Ok(()),
            left => Err(surplus_fault(left)),
        }
    }
}

#[cold]
fn cut_fault(found: usize, heads: usize) -> Fault {
    Fault::new(format!("received a frame of {found} bytes, but the heads of this plugin's inputs take {heads}"))
}

#[cold]
fn surplus_fault(left: usize) -> Fault {
    Fault::new(format!("the received frame has {left} bytes more than this plugin's inputs"))
}

// === impl Heads ===

impl<'h> Heads<'h> {
    /// Returns the heads of a frame with these bytes, which [`zero_heads`] returned.
    #[must_use]
    #[inline]
    pub fn new(bytes: &'h mut [u8], rows: usize) -> Self {
        Self { bytes, rows }
    }

    /// Reserves the presence bitmap and the slots of the next column, and marks all its rows as present.
    #[inline]
    pub(crate) fn column<S: Pod>(&mut self) -> (&'h mut [u8], &'h mut [S]) {
        let rows = self.rows;
        let presence = self.take(words(rows) * 8);
        if let Some((last, others)) = presence.as_chunks_mut().0.split_last_mut() {
            *last = last_word(rows).to_le_bytes();
            for word in others {
                *word = u64::MAX.to_le_bytes();
            }
        }
        let slots = self.take(padded(rows * size_of::<S>()));
        (presence, bytemuck::cast_slice_mut(&mut slots[..rows * size_of::<S>()]))
    }

    #[inline]
    fn take(&mut self, len: usize) -> &'h mut [u8] {
        let (taken, rest) = std::mem::take(&mut self.bytes).split_at_mut(len);
        self.bytes = rest;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unaligned_frame_is_copied() {
        let words = [0_u64, 0x0102_0304_0506_0708, 0];
        let bytes: &[u8] = bytemuck::cast_slice(&words);
        assert!(matches!(aligned(&bytes[8..16]), Cow::Borrowed([0x0102_0304_0506_0708])));
        let Cow::Owned(copied) = aligned(&bytes[7..15]) else { panic!("the address is not aligned") };
        assert_eq!(bytemuck::cast_slice::<u64, u8>(&copied), &bytes[7..15]);
    }

    #[test]
    fn presence_has_one_bit_per_row() {
        let field = FieldSpec { name: "x", column_type: ColumnType::scalar(ScalarType::Bool), nullable: true, doc: "" };
        for (rows, presence) in
            [(0, 0), (1, 1), (8, 0xff), (9, 0x1ff), (63, u64::MAX >> 1), (64, u64::MAX), (130, u64::MAX)]
        {
            let mut bytes = zero_heads(&[field], rows);
            let (_, slots) = Heads::new(&mut bytes, rows).column::<u8>();
            assert_eq!(slots.len(), rows);
            let frame = aligned(&bytes).into_owned();
            assert_eq!(frame.first().copied().unwrap_or(0), presence, "{rows} rows");
            assert_eq!(frame.len(), words(rows) + rows.div_ceil(8));
            if rows == 130 {
                assert_eq!(frame[1..3], [u64::MAX, 0b11]);
            }
        }
    }
}
