//! Decompresses pages with codecs for which the Parquet reader has no size limit.
//!
//! For zstd, Snappy and raw LZ4, the reader allocates the size in the page's header. But it decompresses gzip, Brotli
//! and LZ4 frames to their ends, whatever the header claims. The result can be a thousand times the size of the page or
//! more.

use std::io::Read;

use bytes::Bytes;
use parquet::{
    basic::{Compression, Encoding},
    column::page::Page,
    errors::ParquetError,
};

use super::page_header::Header;

/// A codec that the Parquet reader may decompress to more than the size in the page's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unbounded {
    Gzip,
    Brotli,
    Lz4Frame,
}

/// The magic numbers of LZ4 frames, including the legacy format. The Parquet reader tries to read a frame if a page is
/// not in another LZ4 format.
const LZ4_FRAMES: [u32; 2] = [0x184D_2204, 0x184C_2102];
const BROTLI_BUFFER: usize = 4_096;

const DATA_PAGE: i64 = 0;
const DICTIONARY_PAGE: i64 = 2;
const DATA_PAGE_V2: i64 = 3;

// === impl Unbounded ===

impl Unbounded {
    /// Returns the codec of a page's bytes, if the Parquet reader has no size limit for it.
    pub(super) fn of(compression: Compression, page: &[u8]) -> Option<Self> {
        match compression {
            Compression::GZIP(_) => Some(Self::Gzip),
            Compression::BROTLI(_) => Some(Self::Brotli),
            Compression::LZ4 => {
                let magic = page.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))?;
                LZ4_FRAMES.contains(&magic).then_some(Self::Lz4Frame)
            }
            _ => None,
        }
    }

    /// Decompresses bytes to exactly this size.
    fn decompress(self, bytes: &[u8], out: &mut Vec<u8>, length: usize) -> Result<(), ParquetError> {
        // Reads up to one byte more, to detect a page that is too long.
        let bound = length as u64 + 1;
        let before = out.len();
        let read = match self {
            Self::Gzip => flate2::read::MultiGzDecoder::new(bytes).take(bound).read_to_end(out),
            Self::Brotli => brotli::Decompressor::new(bytes, BROTLI_BUFFER).take(bound).read_to_end(out),
            Self::Lz4Frame => lz4_flex::frame::FrameDecoder::new(bytes).take(bound).read_to_end(out),
        };
        read?;
        if out.len() - before == length {
            return Ok(());
        }
        let what = if out.len() - before > length { "more" } else { "fewer" };
        Err(ParquetError::General(format!(
            "a page decompresses to {what} than the {length} bytes that its header declares"
        )))
    }
}

/// Builds a page from its header and compressed bytes.
pub(super) fn page(codec: Unbounded, header: &Header, bytes: &Bytes) -> Result<Page, ParquetError> {
    let invalid = |what: &str| ParquetError::General(format!("a page header {what}"));
    let at = |length: u64| usize::try_from(length).unwrap_or(usize::MAX);
    let is_v2 = header.kind == DATA_PAGE_V2;
    // The levels of a version 2 page are never compressed.
    let levels = if is_v2 { at(header.levels[0].saturating_add(header.levels[1])) } else { 0 };
    let length = at(header.uncompressed);
    if levels > bytes.len() || levels > length {
        return Err(invalid("claims more levels than the page has"));
    }
    let buf = if is_v2 && header.is_plain {
        bytes.clone()
    } else {
        let mut out = Vec::with_capacity(length);
        out.extend_from_slice(&bytes[..levels]);
        if length > levels {
            codec.decompress(&bytes[levels..], &mut out, length - levels)?;
        }
        out.into()
    };
    let count = |number: u64| {
        u32::try_from(number).map_err(|_| invalid(&format!("has a count of {number}, which is too large")))
    };
    let encoding = |number: Option<i64>| {
        let number = number.ok_or_else(|| invalid("has no encoding"))?;
        encoding(number).ok_or_else(|| invalid(&format!("has the unknown encoding {number}")))
    };
    let num_values = count(header.values.ok_or_else(|| invalid("has no number of values"))?)?;
    Ok(match header.kind {
        DATA_PAGE => Page::DataPage {
            buf,
            num_values,
            encoding: encoding(header.encoding)?,
            def_level_encoding: encoding(header.level_encodings[0])?,
            rep_level_encoding: encoding(header.level_encodings[1])?,
            statistics: None,
        },
        DATA_PAGE_V2 => Page::DataPageV2 {
            buf,
            num_values,
            encoding: encoding(header.encoding)?,
            num_nulls: count(header.nulls)?,
            num_rows: count(header.rows.unwrap_or(0))?,
            def_levels_byte_len: count(header.levels[0])?,
            rep_levels_byte_len: count(header.levels[1])?,
            is_compressed: !header.is_plain,
            statistics: None,
        },
        DICTIONARY_PAGE => {
            Page::DictionaryPage { buf, num_values, encoding: encoding(header.encoding)?, is_sorted: false }
        }
        other => return Err(invalid(&format!("has the unknown type {other}"))),
    })
}

/// Returns the encoding for a number in Parquet's Thrift definition.
fn encoding(number: i64) -> Option<Encoding> {
    Some(match number {
        0 => Encoding::PLAIN,
        2 => Encoding::PLAIN_DICTIONARY,
        3 => Encoding::RLE,
        #[expect(deprecated, reason = "old files use it for levels")]
        4 => Encoding::BIT_PACKED,
        5 => Encoding::DELTA_BINARY_PACKED,
        6 => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        7 => Encoding::DELTA_BYTE_ARRAY,
        8 => Encoding::RLE_DICTIONARY,
        9 => Encoding::BYTE_STREAM_SPLIT,
        _ => return None,
    })
}
