//! A row's values as JSON text, which responses copy. The text is rendered once, when a row enters the hot cache,
//! because formatting numbers costs more than looking up a row.
//!
//! ```text
//! number of pieces u16 | start of each piece u16 | end of the last piece u16 | the pieces
//! ```
//!
//! A piece is a comma and one value as JSON. The first piece has the event time, and the following pieces have the
//! fields in their order. Starts and ends are offsets from the start of the first piece. A column of a response is a
//! sequence of pieces of different rows, without the first comma.
//!
//! A piece of at most 32 bytes is copied as a block of 32 bytes, which takes one instruction. This is possible only if
//! at least 32 bytes follow the start of the piece. For the last pieces of a row, it is possible only if other bytes
//! are stored after the text.
//!
//! The offsets are small and adjacent so that a lookup reads little memory: a hundred rows exceed a processor's L1
//! cache, and most of the time is spent waiting for the L2 cache.

use std::ops::Range;

use super::{RowSchema, RowView, json};
use crate::model::Rfc3339;

/// The rendered text of a row, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct RowText<'a> {
    bounds: &'a [u8],
    pieces: &'a [u8],
}

/// The maximum number of fields of a row that is rendered. A request for a few fields should not pay for rendering all
/// fields of a wide row.
const FIELDS_MAX: usize = 256;
/// The maximum size of the pieces of a row in bytes. Longer text is not stored, because it would evict many other
/// entries of the cache.
const BYTES_MAX: usize = 16 << 10;

const BOUND_BYTES: usize = size_of::<u16>();
const CHUNK: usize = 32;

// === impl RowText ===

impl<'a> RowText<'a> {
    /// [`RowText::copy`] is fastest if `out` has at least this many bytes from the offset `at` on, even for a shorter
    /// value.
    pub const COPY_BYTES: usize = CHUNK;

    /// Appends the text of a row. Appends nothing if the row is damaged or has too many fields, or if the text would be
    /// too long.
    pub fn render(schema: &RowSchema, row: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        if Self::write(schema, row, out).is_none() {
            out.truncate(start);
        }
    }

    fn write(schema: &RowSchema, row: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let view = RowView::new(schema, row).ok()?;
        if schema.len() > FIELDS_MAX {
            return None;
        }
        let pieces = schema.len() + 1;
        out.extend_from_slice(&u16::try_from(pieces).ok()?.to_le_bytes());
        let bounds_at = out.len();
        let text_at = bounds_at + (pieces + 1) * BOUND_BYTES;
        out.resize(text_at, 0);
        out.extend_from_slice(b",\"");
        out.extend_from_slice(Rfc3339::of(view.event_time()).as_bytes());
        out.push(b'"');
        set_bound(out, bounds_at + BOUND_BYTES, text_at)?;
        for (index, (_, value_type)) in schema.fields().enumerate() {
            out.push(b',');
            json::value(out, view.get(index).ok()?, value_type);
            set_bound(out, bounds_at + (index + 2) * BOUND_BYTES, text_at)?;
        }
        Some(())
    }

    /// Reads the output of [`RowText::render`]; other bytes may follow the output in `bytes`. Returns `None` if `bytes`
    /// is empty or too short.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let (count, rest) = bytes.split_first_chunk()?;
        let (bounds, pieces) = rest.split_at_checked((usize::from(u16::from_le_bytes(*count)) + 1) * BOUND_BYTES)?;
        Some(Self { bounds, pieces })
    }

    /// Appends the event time as JSON, with or without a comma before it.
    pub fn append_event_time(&self, with_comma: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(self.text_of(0, with_comma));
    }

    /// Adds the start of each piece, and the end of the last piece, to the elements of `sums`. The sums over all rows
    /// of a response determine the space that each field needs: see [`RowText::width_of_sums`].
    #[inline]
    pub fn add_bounds(&self, sums: &mut [u32]) {
        for (sum, bound) in sums.iter_mut().zip(self.bounds.as_chunks().0) {
            *sum += u32::from(u16::from_le_bytes(*bound));
        }
    }

    /// Returns the number of elements of `sums` that [`RowText::add_bounds`] changes.
    #[must_use]
    pub fn bound_count(&self) -> usize {
        self.bounds.len() / BOUND_BYTES
    }

    /// Returns the total size in bytes of the values of field `index`, each with its comma, in the rows whose bounds
    /// were added; 0 for a field that does not exist.
    #[must_use]
    pub fn width_of_sums(sums: &[u32], index: usize) -> usize {
        match sums.get(index + 1..index + 3) {
            Some(&[start, end]) => end.saturating_sub(start) as usize,
            _ => 0,
        }
    }

    /// Returns the value of field `index`, without a comma; empty for a field that does not exist.
    #[inline]
    #[must_use]
    pub fn value(&self, index: usize) -> &'a [u8] {
        self.text_of(index + 1, false)
    }

    /// Writes the value of field `index` to `out` at offset `at`, with or without a comma, and returns its size in
    /// bytes. May also overwrite bytes of `out` after the value, so these bytes must be unused.
    ///
    /// Writes nothing for a field that does not exist, or that does not fit.
    #[inline]
    pub fn copy(&self, index: usize, with_comma: bool, out: &mut [u8], at: usize) -> usize {
        let Some(piece) = self.piece(index + 1) else { return 0 };
        let start = piece.start + usize::from(!with_comma);
        let len = piece.end.saturating_sub(start);
        if len <= CHUNK
            && let Some(chunk) = self.pieces.get(start..start + CHUNK)
            && let Some(out) = out.get_mut(at..at + CHUNK)
        {
            out.copy_from_slice(chunk);
            return len;
        }
        match (out.get_mut(at..at + len), self.pieces.get(start..start + len)) {
            (Some(out), Some(piece)) => {
                out.copy_from_slice(piece);
                len
            }
            _ => 0,
        }
    }

    #[inline]
    fn text_of(&self, index: usize, with_comma: bool) -> &'a [u8] {
        let piece = self.piece(index).and_then(|piece| self.pieces.get(piece)).unwrap_or_default();
        piece.get(usize::from(!with_comma)..).unwrap_or_default()
    }

    /// Returns the range of a piece.
    #[inline]
    fn piece(&self, index: usize) -> Option<Range<usize>> {
        let both = self.bounds.get(index * BOUND_BYTES..(index + 2) * BOUND_BYTES)?.first_chunk()?;
        let both = u32::from_le_bytes(*both);
        Some((both & 0xffff) as usize..(both >> 16) as usize)
    }
}

/// Stores the end of the piece that was just written; `None` if the text is too long.
fn set_bound(out: &mut [u8], at: usize, text_at: usize) -> Option<()> {
    let end = out.len() - text_at;
    if end > BYTES_MAX {
        return None;
    }
    let end = u16::try_from(end).ok()?;
    out[at..at + BOUND_BYTES].copy_from_slice(&end.to_le_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{codec::RowBuilder, model::ValueRef};

    fn schema(types: &[&str]) -> RowSchema {
        let field = |(i, name): (usize, &&str)| (Arc::from(format!("f{i}")), name.parse().unwrap());
        RowSchema::new(types.iter().enumerate().map(field))
    }

    fn rendered(schema: &RowSchema, values: &[ValueRef<'_>]) -> Vec<u8> {
        let mut builder = RowBuilder::new(schema);
        builder.begin(1_763_885_590_000_000, None);
        values.iter().for_each(|value| builder.push(*value).unwrap());
        let mut text = Vec::new();
        RowText::render(schema, builder.finish().unwrap(), &mut text);
        text
    }

    #[test]
    fn each_field_renders_as_json() {
        let long = "a text that is longer than one chunk";
        let values = [
            ValueRef::Int64(-7),
            ValueRef::Float64(0.1),
            ValueRef::Null,
            ValueRef::Bytes(long.as_bytes()),
            // With the comma and the quotes, the first text fills exactly one chunk, and the second text has one byte
            // more.
            ValueRef::Bytes(b"0123456789abcdef0123456789abc"),
            ValueRef::Bytes(b"0123456789abcdef0123456789abcd"),
            ValueRef::Bytes(b""),
            ValueRef::Bool(true),
        ];
        let types = ["Int64", "Float64", "UnixTimestamp", "String", "String", "String", "String", "Bool"];
        // Other bytes follow the text.
        let bytes = [rendered(&schema(&types), &values), vec![7; CHUNK]].concat();
        let text = RowText::new(&bytes).unwrap();
        let mut sums = vec![0; text.bound_count()];
        text.add_bounds(&mut sums);
        text.add_bounds(&mut sums);
        for (index, (value, name)) in values.iter().zip(types).enumerate() {
            let mut expected = Vec::new();
            json::value(&mut expected, *value, name.parse().unwrap());
            let mut out = Vec::new();
            out.extend_from_slice(text.value(index));
            assert_eq!(out, expected, "{name}");
            assert_eq!(RowText::width_of_sums(&sums, index), 2 * (expected.len() + 1), "{name}");
            // Exactly enough space, and more space than one chunk.
            for space in [expected.len() + 1, 100] {
                let mut out = vec![7; 1 + space];
                assert_eq!(text.copy(index, true, &mut out, 1), expected.len() + 1, "{name}");
                assert_eq!(out[..expected.len() + 2], [b"\x07,", &*expected].concat(), "{name}");
                assert_eq!(text.copy(index, false, &mut out, 0), expected.len(), "{name}");
                assert_eq!(out[..expected.len()], expected, "{name}");
            }
            assert_eq!(text.copy(index, true, &mut vec![0; expected.len() + 1], 1), 0, "{name} does not fit");
        }
        let mut times = Vec::new();
        text.append_event_time(false, &mut times);
        text.append_event_time(true, &mut times);
        assert_eq!(times, br#""2025-11-23T08:13:10Z","2025-11-23T08:13:10Z""#);
        let beyond = types.len();
        let copied = text.copy(beyond, false, &mut [0; 100], 0);
        times.extend_from_slice(text.value(beyond));
        assert_eq!(
            (times.len(), RowText::width_of_sums(&sums, beyond), copied),
            (45, 0, 0),
            "a field that does not exist"
        );
    }

    #[test]
    fn unsuitable_rows_have_no_text() {
        let strings = schema(&["String"]);
        let fits = vec![b'x'; BYTES_MAX - r#","2025-11-23T08:13:10Z","""#.len()];
        assert!(RowText::new(&rendered(&strings, &[ValueRef::Bytes(&fits)])).is_some());
        let long = [fits, vec![b'x']].concat();
        assert!(RowText::new(&rendered(&strings, &[ValueRef::Bytes(&long)])).is_none());

        let wide = |fields: usize| rendered(&schema(&vec!["Bool"; fields]), &vec![ValueRef::Null; fields]);
        assert!(RowText::new(&wide(FIELDS_MAX)).is_some() && RowText::new(&wide(FIELDS_MAX + 1)).is_none());

        let mut builder = RowBuilder::new(&strings);
        builder.begin(0, None);
        builder.push(ValueRef::Bytes(b"abc")).unwrap();
        let row = builder.finish().unwrap();
        let mut text = b"kept".to_vec();
        RowText::render(&strings, &row[..row.len() - 1], &mut text);
        assert_eq!(text, b"kept");
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        let bytes = rendered(&schema(&["Int64", "String"]), &[ValueRef::Int64(1), ValueRef::Bytes(b"abc")]);
        for index in 0..bytes.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut damaged = bytes.clone();
                damaged[index] = byte;
                for len in [index, damaged.len()] {
                    let Some(text) = RowText::new(&damaged[..len]) else { continue };
                    (0..4).for_each(|field| assert!(text.copy(field, field % 2 == 0, &mut [0; 100], 0) <= 100));
                    (0..4).for_each(|field| _ = text.value(field));
                }
            }
        }
    }
}
