//! The sizes of a frame's parts, and access to presence bits and ends. `wit/0.3.0/transform.wit` specifies the layout.

use crate::{ColumnScalar, ColumnType};

/// Each part of a frame begins at a multiple of this many bytes.
pub(super) const ALIGN: usize = 8;
/// The size in bytes of an end. An end is the position after the last byte of a row's text or bytes, or after the last
/// item of its list.
pub(super) const END: usize = 4;

/// Returns the size of a part with its padding.
pub(super) fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGN)
}

/// Returns the size in bytes of a column's presence bits: one bit per row, padded to whole words of 8 bytes.
pub(super) fn presence_len(rows: usize) -> usize {
    words(rows) * ALIGN
}

/// Returns the number of 8-byte words of a column's presence bits.
pub(super) fn words(rows: usize) -> usize {
    rows.div_ceil(64)
}

/// Returns the size in bytes of a row's slot in a column of this type.
pub(super) fn slot_width(of: ColumnType) -> usize {
    if of.is_list { END } else { width(of.scalar) }
}

/// Returns the size in bytes of a value's slot, which holds the value itself or, for text and bytes, its end.
#[inline]
pub(super) fn width(of: ColumnScalar) -> usize {
    match of {
        ColumnScalar::Bool => 1,
        ColumnScalar::Int32 | ColumnScalar::Float32 => 4,
        ColumnScalar::Int64 | ColumnScalar::Float64 | ColumnScalar::Timestamp => 8,
        ColumnScalar::Utf8 | ColumnScalar::Binary => END,
    }
}

/// Returns whether values of this type vary in length, so their slots hold ends.
#[inline]
pub(super) fn has_ends(of: ColumnScalar) -> bool {
    matches!(of, ColumnScalar::Utf8 | ColumnScalar::Binary)
}

/// Sets the bits of the first rows, which are not set yet.
#[inline]
pub(super) fn set_present(presence: &mut [u8], rows: usize) {
    presence[..rows / 8].fill(0xff);
    if !rows.is_multiple_of(8) {
        presence[rows / 8] = (1 << (rows % 8)) - 1;
    }
}

/// Returns whether a row's bit is set.
#[inline]
pub(super) fn is_set(presence: &[u8], row: usize) -> bool {
    presence[row / 8] >> (row % 8) & 1 == 1
}

/// Converts an end to 32 bits. A larger end would become `u32::MAX`, but the values of a request have far fewer than
/// 2^32 bytes.
#[inline]
pub(super) fn end(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Returns the end of value `i`.
#[inline]
pub(super) fn end_at(ends: &[u8], i: usize) -> usize {
    u32::from_le_bytes(chunk(ends, i)) as usize
}

/// Returns the start of value `i`, which is the end of the previous value, or 0 for the first one.
#[inline]
pub(super) fn start_at(ends: &[u8], i: usize) -> usize {
    if i == 0 { 0 } else { end_at(ends, i - 1) }
}

/// Decodes all ends in a part.
pub(super) fn ends(bytes: &[u8]) -> impl DoubleEndedIterator<Item = u32> + Clone {
    bytes.as_chunks().0.iter().map(|end| u32::from_le_bytes(*end))
}

/// Returns the bytes of number `i` in a part that consists of numbers of `WIDTH` bytes.
pub(super) fn chunk<const WIDTH: usize>(bytes: &[u8], i: usize) -> [u8; WIDTH] {
    bytes.as_chunks::<WIDTH>().0[i]
}
