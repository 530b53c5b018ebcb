//! A row's values as the JSON that answers copy: made once, when a row is kept in memory, for numbers cost more to print
//! than to look up.
//!
//! ```text
//! pieces u32 | where each piece ends u32, from the first piece's start | the pieces | 16 bytes of nothing
//! ```
//!
//! The first piece is the event time, the others are the fields in their order. Each begins with a comma, so that a
//! column of an answer is a row of pieces; the first leaves its comma out. The nothing at the end lets a short piece be
//! copied as 16 bytes, which a processor does at once.

use super::{RowSchema, RowView, json};
use crate::model::Rfc3339;

/// A row's values as text, read in place.
#[derive(Clone, Copy, Debug)]
pub struct RowText<'a> {
    ends: &'a [u8],
    pieces: &'a [u8],
}

/// Rows with more fields are not kept as text: who asks for a few of them should not pay for all.
const FIELDS_MAX: usize = 256;
/// Longer text is not kept: it would push out many others.
const BYTES_MAX: usize = 16 << 10;

const COUNT_BYTES: usize = size_of::<u32>();
const END_BYTES: usize = size_of::<u32>();
const CHUNK: usize = 16;

// === impl RowText ===

impl<'a> RowText<'a> {
    /// Appends the text of a row; nothing if the row is damaged, or if its text would be too long to keep.
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
        let ends_at = out.len() + COUNT_BYTES;
        let text_at = ends_at + pieces * END_BYTES;
        out.extend_from_slice(&u32::try_from(pieces).ok()?.to_le_bytes());
        out.resize(text_at, 0);
        out.extend_from_slice(b",\"");
        out.extend_from_slice(Rfc3339::of(view.event_time()).as_bytes());
        out.push(b'"');
        set_end(out, ends_at, text_at)?;
        for (place, (_, value_type)) in schema.fields().enumerate() {
            out.push(b',');
            json::value(out, view.get(place).ok()?, value_type);
            set_end(out, ends_at + (place + 1) * END_BYTES, text_at)?;
        }
        out.resize(out.len() + CHUNK, 0);
        Some(())
    }

    /// What [`RowText::render`] wrote; none of nothing.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let (count, rest) = bytes.split_first_chunk::<COUNT_BYTES>()?;
        let (ends, pieces) = rest.split_at_checked((u32::from_le_bytes(*count) as usize).checked_mul(END_BYTES)?)?;
        Some(Self { ends, pieces })
    }

    /// Appends the event time, with its comma or without.
    #[inline]
    pub fn append_event_time(&self, with_comma: bool, out: &mut Vec<u8>) {
        self.append_piece(0, with_comma, out);
    }

    /// Appends the value of field `index`, with a comma before it or without. Of a field that there is not, nothing.
    #[inline]
    pub fn append(&self, index: usize, with_comma: bool, out: &mut Vec<u8>) {
        self.append_piece(index + 1, with_comma, out);
    }

    #[inline]
    fn append_piece(&self, place: usize, with_comma: bool, out: &mut Vec<u8>) {
        let start = if place == 0 { 0 } else { self.end(place - 1) } + usize::from(!with_comma);
        let len = self.end(place).saturating_sub(start);
        match self.pieces.get(start..).and_then(<[u8]>::first_chunk::<CHUNK>) {
            Some(chunk) if len <= CHUNK => {
                out.extend_from_slice(chunk);
                out.truncate(out.len() - (CHUNK - len));
            }
            _ => out.extend_from_slice(self.pieces.get(start..start + len).unwrap_or_default()),
        }
    }

    #[inline]
    fn end(&self, place: usize) -> usize {
        let at = place * END_BYTES;
        self.ends.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |end| u32::from_le_bytes(*end) as usize)
    }
}

/// Notes where the piece that was just written ends; none when that is too far.
fn set_end(out: &mut [u8], at: usize, text_at: usize) -> Option<()> {
    let end = out.len() - text_at;
    if end > BYTES_MAX {
        return None;
    }
    let end = u32::try_from(end).ok()?;
    out[at..at + END_BYTES].copy_from_slice(&end.to_le_bytes());
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
    fn each_field_is_what_its_value_is_written_as() {
        let long = "a text that is longer than what is copied at once";
        let values = [
            ValueRef::Int64(-7),
            ValueRef::Float64(0.1),
            ValueRef::Null,
            ValueRef::Bytes(long.as_bytes()),
            ValueRef::Bytes(b"0123456789ab"),
            ValueRef::Bytes(b"0123456789abc"),
            ValueRef::Bytes(b""),
            ValueRef::Bool(true),
        ];
        let types = ["Int64", "Float64", "UnixTimestamp", "String", "String", "String", "String", "Bool"];
        let bytes = rendered(&schema(&types), &values);
        let text = RowText::new(&bytes).unwrap();
        for (place, (value, name)) in values.iter().zip(types).enumerate() {
            let mut expected = Vec::new();
            json::value(&mut expected, *value, name.parse().unwrap());
            let (mut with, mut without) = (b"before".to_vec(), b"before".to_vec());
            text.append(place, true, &mut with);
            text.append(place, false, &mut without);
            assert_eq!(without, [b"before", &*expected].concat(), "{name}");
            assert_eq!(with, [b"before,", &*expected].concat(), "{name}");
        }
        let mut times = Vec::new();
        text.append_event_time(false, &mut times);
        text.append_event_time(true, &mut times);
        assert_eq!(times, br#""2025-11-23T08:13:10Z","2025-11-23T08:13:10Z""#);
        let mut none = Vec::new();
        text.append(types.len(), false, &mut none);
        assert_eq!(none, b"");
    }

    #[test]
    fn what_is_too_long_too_wide_or_damaged_has_no_text() {
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
    fn of_arbitrary_bytes_nothing_or_something_is_appended() {
        let bytes = rendered(&schema(&["Int64", "String"]), &[ValueRef::Int64(1), ValueRef::Bytes(b"abc")]);
        for place in 0..bytes.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut damaged = bytes.clone();
                damaged[place] = byte;
                for len in [place, damaged.len()] {
                    let Some(text) = RowText::new(&damaged[..len]) else { continue };
                    (0..4).for_each(|field| text.append(field, field % 2 == 0, &mut Vec::new()));
                }
            }
        }
    }
}
