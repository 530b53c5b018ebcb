//! A batch in the layout in which host and plugin exchange it: a byte buffer with the columns of all rows.
//! `wit/transform.wit` describes the layout.
//!
//! A [`Frame`] is read column by column, without copies. For writing, [`Heads`] are allocated at their final size.
//! Texts, bytes and items of lists, whose lengths are not known in advance, are collected separately and appended at the
//! end.

use std::borrow::Cow;

use bytemuck::Pod;

use crate::{
    __private::types::{DataType, ScalarType},
    Fault,
    input::FrameError,
    run::FieldSpec,
};

/// A batch that the host sent.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// A frame with a column for each input.
    pub frame: &'a [u64],
    /// The number of rows of every column.
    pub rows: usize,
}

/// The columns of a frame that have not been read yet.
#[derive(Debug)]
pub struct Frame<'a> {
    heads: &'a [u8],
    tails: &'a [u8],
    pub(crate) rows: usize,
}

/// The two halves of a frame. A column can have a part in each.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Head,
    Tail,
}

/// The heads of a frame that is being written. Every column has a fixed offset.
#[derive(Debug)]
pub struct Heads {
    bytes: Vec<u8>,
    /// The offset of the next column.
    next: usize,
    pub(crate) rows: usize,
}

/// The offsets of a column's head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    presence: usize,
    slots: usize,
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

pub(crate) fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGN)
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

/// Returns the width of a slot (a value or an end), in bytes.
const fn slot_width(of: DataType) -> usize {
    match of.scalar {
        _ if of.is_list => END,
        ScalarType::Bool => 1,
        ScalarType::Int32 | ScalarType::Float32 | ScalarType::Utf8 | ScalarType::Binary => 4,
        ScalarType::Int64 | ScalarType::Float64 | ScalarType::Timestamp => 8,
    }
}

/// Returns the size of the heads of these columns, in bytes.
#[inline]
fn heads_len(fields: &[FieldSpec], rows: usize) -> usize {
    fields.iter().map(|field| words(rows) * 8 + padded(rows * slot_width(field.data_type))).sum()
}

// === impl Frame ===

impl<'a> Frame<'a> {
    /// Splits the frame into the heads and tails of these fields.
    ///
    /// # Errors
    /// Returns a fault if the frame is smaller than the heads of the columns.
    #[inline]
    pub fn open(batch: Batch<'a>, fields: &[FieldSpec]) -> Result<Self, Fault> {
        let (frame, rows): (&[u8], _) = (bytemuck::cast_slice(batch.frame), batch.rows);
        let heads = heads_len(fields, rows);
        let (heads, tails) = frame.split_at_checked(heads).ok_or_else(|| cut_fault(frame.len(), heads))?;
        Ok(Self { heads, tails, rows })
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
    Fault::bad_input(format!("received a frame of {found} bytes, but the heads of this plugin's inputs take {heads}"))
}

#[cold]
fn surplus_fault(left: usize) -> Fault {
    Fault::bad_input(format!("the received frame has {left} bytes more than this plugin's inputs"))
}

// === impl Heads ===

impl Heads {
    /// Allocates the heads of these columns, which are all zeros: no row is present.
    #[must_use]
    #[inline]
    pub fn new(fields: &[FieldSpec], rows: usize) -> Self {
        Self { bytes: vec![0; heads_len(fields, rows)], next: 0, rows }
    }

    /// Reserves the next column, with slots of `width` bytes, and marks all its rows as present.
    #[inline]
    pub(crate) fn place(&mut self, width: usize) -> Place {
        let presence = self.next;
        let slots = presence + words(self.rows) * 8;
        self.next = slots + padded(self.rows * width);
        let bits = self.rows / 8;
        self.bytes[presence..presence + bits].fill(0xff);
        if !self.rows.is_multiple_of(8) {
            self.bytes[presence + bits] = (1 << (self.rows % 8)) - 1;
        }
        Place { presence, slots }
    }

    /// Writes a row's slot.
    #[inline]
    pub(crate) fn set<const WIDTH: usize>(&mut self, place: Place, row: usize, slot: [u8; WIDTH]) {
        let at = place.slots + row * WIDTH;
        self.bytes[at..at + WIDTH].copy_from_slice(&slot);
    }

    /// Returns the heads, with capacity for tails of `tails` bytes.
    #[must_use]
    #[inline]
    pub fn into_frame(self, tails: usize) -> Vec<u8> {
        let mut frame = self.bytes;
        // The exact capacity is reserved, because a vector with spare capacity is copied when it is returned.
        frame.reserve_exact(tails);
        frame
    }

    /// Marks a row as null. The caller must set the row's slot to zero, or to an end.
    #[inline]
    pub(crate) fn set_null(&mut self, place: Place, row: usize) {
        self.bytes[place.presence + row / 8] &= !(1 << (row % 8));
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
        let field = FieldSpec {
            name: "x",
            data_type: DataType { scalar: ScalarType::Bool, is_list: false },
            nullable: true,
            doc: "",
        };
        for (rows, presence) in
            [(0, 0), (1, 1), (8, 0xff), (9, 0x1ff), (63, u64::MAX >> 1), (64, u64::MAX), (130, u64::MAX)]
        {
            let mut heads = Heads::new(&[field], rows);
            heads.place(1);
            let frame = aligned(&heads.bytes).into_owned();
            assert_eq!(frame.first().copied().unwrap_or(0), presence, "{rows} rows");
            assert_eq!(frame.len(), words(rows) + rows.div_ceil(8));
            if rows == 130 {
                assert_eq!(frame[1..3], [u64::MAX, 0b11]);
            }
        }
    }
}
