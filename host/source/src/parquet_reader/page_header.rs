//! The header of a page.

use super::thrift::{Compact, Kind};

/// A page's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// The number of the page's type in Parquet's Thrift definition.
    pub(super) kind: i64,
    pub(super) uncompressed: u64,
    pub(super) compressed: u64,
    /// The length of the header itself.
    pub(super) length: u64,
    pub(super) values: Option<u64>,
    /// The number of nulls of a version 2 page.
    pub(super) nulls: u64,
    /// The number of rows of a version 2 page.
    pub(super) rows: Option<u64>,
    pub(super) encoding: Option<i64>,
    /// The encodings of the definition and repetition levels of a version 1 page.
    pub(super) level_encodings: [Option<i64>; 2],
    /// The sizes of the definition and repetition levels of a version 2 page, in bytes.
    pub(super) levels: [u64; 2],
    /// Whether a version 2 page is not compressed.
    pub(super) is_plain: bool,
}

// === impl Header ===

impl Header {
    /// Reads a header of at most `bytes_max` bytes.
    pub(super) fn read(input: impl std::io::Read, bytes_max: u64) -> Result<Self, String> {
        // struct PageHeader { 1: type, 2: uncompressed_page_size, 3: compressed_page_size, 4: crc, 5: data_page_header,
        //                     6: index_page_header, 7: dictionary_page_header, 8: data_page_header_v2 }
        let mut input = Compact::new(input, bytes_max);
        let mut header = Self { kind: -1, ..Self::default() };
        let (mut last, mut sizes) = (0, 0);
        while let Some((field, kind)) = input.field(&mut last)? {
            match field {
                1 => header.kind = input.int()?,
                2 => (header.uncompressed, sizes) = (size(input.int()?)?, sizes | 1),
                3 => (header.compressed, sizes) = (size(input.int()?)?, sizes | 2),
                5 | 7 | 8 => header.read_details(&mut input, field)?,
                _ => input.skip(kind)?,
            }
        }
        if sizes != 3 {
            return Err("the page's size is missing".to_owned());
        }
        header.length = input.position();
        Ok(header)
    }

    fn read_details(&mut self, input: &mut Compact<impl std::io::Read>, of: i16) -> Result<(), String> {
        let mut last = 0;
        while let Some((field, kind)) = input.field(&mut last)? {
            match (of, field) {
                (5 | 7 | 8, 1) => self.values = Some(size(input.int()?)?),
                // DataPageHeader { 2: encoding, 3: definition_level_encoding, 4: repetition_level_encoding }
                (5 | 7, 2) | (8, 4) => self.encoding = Some(input.int()?),
                (5, 3) => self.level_encodings[0] = Some(input.int()?),
                (5, 4) => self.level_encodings[1] = Some(input.int()?),
                // DataPageHeaderV2 { 2: num_nulls, 3: num_rows, 4: encoding, 5 and 6: bytes of levels, 7: is_compressed }
                (8, 2) => self.nulls = size(input.int()?)?,
                (8, 3) => self.rows = Some(size(input.int()?)?),
                (8, 5) => self.levels[0] = size(input.int()?)?,
                (8, 6) => self.levels[1] = size(input.int()?)?,
                (8, 7) => self.is_plain = kind == Kind::False,
                _ => input.skip(kind)?,
            }
        }
        Ok(())
    }
}

fn size(number: i64) -> Result<u64, String> {
    u64::try_from(number).map_err(|_| "a size is negative".to_owned())
}
