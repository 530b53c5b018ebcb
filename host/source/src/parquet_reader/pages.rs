//! Reads the pages of a row group, and checks each page before it is decompressed and before it is decoded.
//!
//! A page of a few bytes can claim a decompressed size of up to 2 GiB, and any number of values in one row. [`Budget`]
//! tracks the memory that is held and the decoded size of a batch. A page that does not fit into the budget is
//! rejected, and the caller reads again with fewer rows at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use parquet::{
    arrow::arrow_reader::RowGroups,
    basic::{Compression, Encoding, Type},
    column::page::{Page, PageIterator, PageMetadata, PageReader},
    errors::ParquetError,
    file::{
        metadata::{ParquetMetaData, RowGroupMetaData},
        reader::{ChunkReader as _, SerializedPageReader},
    },
};

use super::{
    codec::{self, Unbounded},
    input::Input,
    levels::{Lengths, Levels},
    page_header::Header,
};

/// The pages of one row group.
pub(super) struct CheckedPages {
    pub(super) input: Arc<Input>,
    pub(super) metadata: Arc<ParquetMetaData>,
    pub(super) group: usize,
    pub(super) budget: Arc<Budget>,
    /// For each leaf of the schema, its index among the budget's columns; `None` if the leaf is not read.
    pub(super) columns: Arc<Vec<Option<usize>>>,
}

/// The memory that decoding a row group takes, and its limit.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    state: Mutex<State>,
}

/// The cost of decoding a column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// The memory of a decoded value with its levels and null bits, in bytes.
    pub(super) value: u64,
    /// Whether values of variable length are copied out of a page. Otherwise, they are views that refer to the page.
    pub(super) copies: bool,
}

/// Why a batch does not fit into the budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Excess {
    /// The path of the column whose page did not fit. If the cause is not a page, the path of the largest column.
    pub(super) column: String,
    /// The number of bytes that all columns together need.
    pub(super) bytes: u64,
}

#[derive(Debug)]
struct State {
    columns: Vec<Held>,
    /// The maximum number of rows of the batch that is being decoded.
    rows: u64,
    excess: Option<Excess>,
}

/// The memory that a column holds.
#[derive(Debug)]
struct Held {
    path: String,
    cost: Cost,
    is_repeated: bool,
    /// The bytes of the dictionary: its page, and its decoded values.
    dictionary: u64,
    /// The length of the dictionary's longest value, if values are copied.
    dictionary_value: u64,
    /// The bytes of the page that is being decoded.
    page: u64,
    /// The maximum bytes that a value of that page adds to the batch, in addition to [`Cost::value`].
    page_value: u64,
    /// The bytes of the batch so far: decoded values, and earlier pages to which these values refer.
    batch: u64,
    /// The number of rows that are still to be skipped before the first batch.
    skip: u64,
    is_skipping: bool,
    /// The number of rows of the batch that began so far.
    begun: u64,
    /// The repetition levels of the page, if their encoding is supported.
    levels: Option<Levels>,
    /// The number of values of the page, if its levels have an unsupported encoding.
    uncounted: u64,
}

/// Reads and checks the pages of one column.
struct CheckedColumn {
    inner: SerializedPageReader<Input>,
    input: Arc<Input>,
    budget: Arc<Budget>,
    column: usize,
    compression: Compression,
    physical: Type,
    type_length: usize,
    max_rep_level: i16,
    max_def_level: i16,
    /// The offset of the next header, and the number of bytes of the column from there on.
    at: u64,
    left: u64,
    /// The next header, if it was already read.
    next: Option<Header>,
    /// The header of a skipped dictionary, which may be needed later, and the offset of the dictionary's bytes.
    deferred: Option<(Header, u64)>,
}

/// The additional size that the size check of a page allows: a fixed number of bytes, and a number of bytes for each
/// value, for its levels and its share of an encoding block.
const PAGE_BYTES_FREE: u64 = 1 << 20;
const VALUE_BYTES_FREE: u64 = 16;
/// The maximum length of a header in bytes. Headers contain statistics, but writers truncate long values in them.
const HEADER_BYTES_MAX: u64 = 16 << 20;
const INDEX_PAGE: i64 = 1;
const DICTIONARY_PAGE: i64 = 2;

// === impl Budget ===

impl Budget {
    /// Creates a budget of `limit` bytes for these columns. Each column has a path, a cost, and a flag for whether it
    /// is repeated. `skip` rows are skipped before the first batch.
    pub(super) fn new(limit: u64, columns: impl Iterator<Item = (String, Cost, bool)>, skip: u64) -> Self {
        let held = |(path, cost, is_repeated)| Held {
            path,
            cost,
            is_repeated,
            dictionary: 0,
            dictionary_value: 0,
            page: 0,
            page_value: 0,
            batch: 0,
            skip,
            is_skipping: skip > 0,
            begun: 0,
            levels: None,
            uncounted: 0,
        };
        let state = State { columns: columns.map(held).collect(), rows: 0, excess: None };
        Self { limit, state: Mutex::new(state) }
    }

    /// Begins a batch of at most this many rows, after the previous batch was released.
    ///
    /// # Errors
    /// If the batch does not fit.
    pub(super) fn begin(&self, rows: u64) -> Result<(), Excess> {
        let mut state = self.state();
        state.rows = rows;
        for held in &mut state.columns {
            held.begin(rows);
        }
        self.check(&mut state, None, 0)
    }

    /// Returns the reason of the last rejection, if a batch or page was rejected.
    pub(super) fn excess(&self) -> Option<Excess> {
        self.state().excess.clone()
    }

    /// Fails if the memory of all columns plus `more` bytes exceeds the limit. Then records the cause: `column` or, if
    /// it is `None`, the largest column.
    fn check(&self, state: &mut State, column: Option<usize>, more: u64) -> Result<(), Excess> {
        let sum = state.columns.iter().map(Held::bytes).fold(more, u64::saturating_add);
        if sum <= self.limit {
            return Ok(());
        }
        let largest = || state.columns.iter().enumerate().max_by_key(|(_, held)| held.bytes()).map(|(place, _)| place);
        let column = column.or_else(largest).and_then(|column| state.columns.get(column));
        let excess = Excess { column: column.map(|held| held.path.clone()).unwrap_or_default(), bytes: sum };
        state.excess = Some(excess.clone());
        Err(excess)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is consistent even if a thread panicked while it held the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Held ===

impl Held {
    fn bytes(&self) -> u64 {
        [self.dictionary, self.page, self.batch].into_iter().fold(0, u64::saturating_add)
    }

    fn begin(&mut self, rows: u64) {
        (self.batch, self.begun) = (0, 0);
        if !self.is_repeated {
            self.batch = rows.saturating_mul(self.cost.value.saturating_add(self.page_value));
            return;
        }
        self.count_page(rows);
    }

    /// Adds the memory of the page's values that belong to the batch.
    fn count_page(&mut self, rows: u64) {
        let mut values = self.uncounted;
        if let Some(levels) = &mut self.levels {
            if self.is_skipping {
                self.skip -= levels.consume(self.skip).rows.min(self.skip);
                self.is_skipping = levels.is_empty();
            }
            if !self.is_skipping {
                let taken = levels.consume(rows.saturating_sub(self.begun));
                self.begun += taken.rows;
                values = taken.levels;
            }
        }
        let each = self.cost.value.saturating_add(self.page_value);
        self.batch = self.batch.saturating_add(values.saturating_mul(each));
    }
}

// === impl CheckedColumn ===

impl CheckedColumn {
    /// Returns the header of the next page; `None` at the end.
    fn header(&mut self) -> Result<Option<Header>, ParquetError> {
        if self.next.is_none() && self.left > 0 {
            let bytes_max = self.left.min(HEADER_BYTES_MAX);
            let header = Header::read(self.input.get_read(self.at)?, bytes_max);
            let header = header.map_err(|why| general(format!("invalid page header: {why}")))?;
            if header.kind == INDEX_PAGE {
                return Err(general("a column has an index page, which is not supported".to_owned()));
            }
            if header.length.checked_add(header.compressed).is_none_or(|length| length > self.left) {
                let (bytes, left) = (header.compressed, self.left);
                return Err(general(format!("a page claims {bytes} bytes, but its column has only {left} left")));
            }
            self.next = Some(header);
        }
        Ok(self.next)
    }

    fn advance(&mut self, header: Header) {
        self.next = None;
        self.at += header.length + header.compressed;
        self.left -= header.length + header.compressed;
    }

    /// Rejects a page that is larger than its values can be, because decompressing it could take seconds.
    fn check_size(&self, header: Header) -> Result<(), ParquetError> {
        // Values of type `BYTE_ARRAY` can have any length.
        let Some(values) = header.values.filter(|_| self.physical != Type::BYTE_ARRAY) else { return Ok(()) };
        let most = values.saturating_mul(self.fixed_width() + VALUE_BYTES_FREE).saturating_add(PAGE_BYTES_FREE);
        if header.uncompressed <= most {
            return Ok(());
        }
        Err(general(format!(
            "a page claims {} bytes for {values} values, but at most {most} are possible",
            header.uncompressed
        )))
    }

    /// Returns the size of a value in `PLAIN` encoding in bytes; for `BYTE_ARRAY`, the size of its length prefix. A
    /// boolean takes one bit, which is rounded up to a byte.
    fn fixed_width(&self) -> u64 {
        match self.physical {
            Type::BOOLEAN => 1,
            Type::INT32 | Type::FLOAT | Type::BYTE_ARRAY => 4,
            Type::INT64 | Type::DOUBLE => 8,
            Type::INT96 => 12,
            Type::FIXED_LEN_BYTE_ARRAY => self.type_length.max(1) as u64,
        }
    }

    /// Rejects a page whose bytes do not fit, before they are read and decompressed.
    fn admit(&self, header: Header) -> Result<(), ParquetError> {
        self.check_size(header)?;
        let mut state = self.budget.state();
        if let Some(held) = state.columns.get_mut(self.column) {
            if header.kind == DICTIONARY_PAGE {
                held.dictionary = header.uncompressed.max(header.compressed);
            } else {
                // The strings of a batch refer to the previous page, which stays in memory until the batch is dropped.
                if self.physical == Type::BYTE_ARRAY && !held.cost.copies {
                    held.batch = held.batch.saturating_add(held.page);
                }
                (held.page, held.page_value) = (header.uncompressed.max(header.compressed), 0);
                (held.levels, held.uncounted) = (None, 0);
            }
        }
        // The compressed bytes stay in memory until they are decompressed.
        self.budget.check(&mut state, Some(self.column), header.compressed).map_err(excess_error)
    }

    /// Decompresses a page with a size limit, if the Parquet reader has none for its codec; returns `None` otherwise.
    fn decompress_bounded(&self, header: Header, at: u64) -> Result<Option<Page>, ParquetError> {
        if !matches!(self.compression, Compression::GZIP(_) | Compression::BROTLI(_) | Compression::LZ4) {
            return Ok(None);
        }
        let bytes = self.input.get_bytes(at, usize::try_from(header.compressed).unwrap_or(usize::MAX))?;
        let codec = Unbounded::of(self.compression, &bytes);
        codec.map(|codec| codec::page(codec, &header, &bytes)).transpose()
    }

    /// Adds the decoded size of a decompressed page to the budget.
    fn add_to_budget(&self, page: &Page) -> Result<(), ParquetError> {
        let mut state = self.budget.state();
        let rows = state.rows;
        let Some(held) = state.columns.get_mut(self.column) else { return Ok(()) };
        match page {
            Page::DictionaryPage { buf, num_values, .. } => self.count_dictionary(held, buf, u64::from(*num_values))?,
            Page::DataPage { buf, num_values, encoding, rep_level_encoding, def_level_encoding, .. } => {
                let (mut rest, count) = (buf.clone(), u64::from(*num_values));
                if self.max_rep_level > 0 {
                    let levels = level_section(&mut rest, *rep_level_encoding, self.max_rep_level, count)?;
                    held.set_levels(levels, self.max_rep_level, count);
                }
                if self.max_def_level > 0 {
                    level_section(&mut rest, *def_level_encoding, self.max_def_level, count)?;
                }
                self.count_values(held, &rest, *encoding, count, rows)?;
            }
            Page::DataPageV2 { buf, num_values, encoding, rep_levels_byte_len, def_levels_byte_len, .. } => {
                let count = u64::from(*num_values);
                let at = |length: u32| usize::try_from(length).unwrap_or(usize::MAX);
                let levels_end = at(*rep_levels_byte_len);
                let end = levels_end.saturating_add(at(*def_levels_byte_len));
                if end > buf.len() {
                    return Err(general(format!("a page has {} bytes, but claims {end} bytes of levels", buf.len())));
                }
                if self.max_rep_level > 0 {
                    held.set_levels(Some(buf.slice(..levels_end)), self.max_rep_level, count);
                }
                self.count_values(held, &buf.slice(end..), *encoding, count, rows)?;
            }
        }
        self.budget.check(&mut state, Some(self.column), 0).map_err(excess_error)
    }

    /// Adds the memory of a dictionary, which is decoded as a whole, with as many values as its header claims.
    fn count_dictionary(&self, held: &mut Held, buf: &Bytes, count: u64) -> Result<(), ParquetError> {
        let width = self.fixed_width();
        if count.checked_mul(width).is_none_or(|bytes| bytes > buf.len() as u64) {
            return Err(general(format!("a dictionary claims {count} values in {} bytes", buf.len())));
        }
        // Strings become views of 16 bytes that refer to the page; other values are copied, and the page is dropped.
        held.dictionary = match self.physical {
            Type::BYTE_ARRAY => held.dictionary.saturating_add(count.saturating_mul(16)),
            _ => count.saturating_mul(width),
        };
        if held.cost.copies && self.physical == Type::BYTE_ARRAY {
            held.dictionary_value = longest(buf);
        }
        Ok(())
    }

    /// Adds the memory of a data page's values to the page and the batch.
    fn count_values(
        &self,
        held: &mut Held,
        data: &[u8],
        encoding: Encoding,
        count: u64,
        rows: u64,
    ) -> Result<(), ParquetError> {
        let lengths = |data: &[u8]| {
            let lengths = Lengths::of(data).map_err(|why| general(format!("invalid page: {why}")))?;
            if lengths.count > count {
                return Err(general(format!("a page has {count} values, but claims {} lengths", lengths.count)));
            }
            Ok(lengths)
        };
        match encoding {
            Encoding::DELTA_LENGTH_BYTE_ARRAY => {
                held.page = held.page.saturating_add(lengths(data)?.count.saturating_mul(4));
            }
            Encoding::DELTA_BYTE_ARRAY => {
                // The page stores only the part of each value that differs from the previous one, so all values are
                // copied.
                let prefixes = lengths(data)?;
                let suffixes = lengths(data.get(prefixes.end..).unwrap_or_default())?;
                held.page = held.page.saturating_add((prefixes.count + suffixes.count).saturating_mul(4));
                held.page_value = prefixes.max + suffixes.max;
            }
            Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY => held.page_value = held.dictionary_value,
            _ if held.cost.copies && self.physical == Type::BYTE_ARRAY => {
                held.page = held.page.saturating_add(data.len() as u64);
            }
            _ => {}
        }
        if held.is_repeated {
            held.count_page(rows);
        } else {
            held.batch = held.batch.saturating_add(rows.min(count).saturating_mul(held.page_value));
        }
        Ok(())
    }
}

impl PageReader for CheckedColumn {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        let Some(header) = self.header()? else { return Ok(None) };
        self.admit(header)?;
        let at = self.at + header.length;
        self.advance(header);
        let page = match self.decompress_bounded(header, at)? {
            Some(page) => {
                self.inner.skip_next_page()?;
                Some(page)
            }
            None => self.inner.get_next_page()?,
        };
        page.iter().try_for_each(|page| self.add_to_budget(page))?;
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        if self.header()?.is_none() {
            return Ok(None);
        }
        self.inner.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        let Some(header) = self.header()? else { return Ok(()) };
        let at = self.at + header.length;
        self.advance(header);
        if header.kind == DICTIONARY_PAGE {
            self.deferred = Some((header, at));
        } else if let Some(held) = self.budget.state().columns.get_mut(self.column) {
            held.skip = held.skip.saturating_sub(header.rows.unwrap_or(0));
        }
        self.inner.skip_next_page()
    }

    fn supports_deferred_dictionary(&self) -> bool {
        self.inner.supports_deferred_dictionary()
    }

    fn take_deferred_dictionary(&mut self) -> Result<Option<Page>, ParquetError> {
        let Some((header, at)) = self.deferred.take() else { return Ok(None) };
        // The data page that needs the dictionary was counted when the lengths of the dictionary's values were unknown.
        // They are added below.
        self.admit(header)?;
        let page = match self.decompress_bounded(header, at)? {
            Some(page) => Some(page),
            None => self.inner.take_deferred_dictionary()?,
        };
        page.iter().try_for_each(|page| self.add_to_budget(page))?;
        let mut state = self.budget.state();
        let rows = state.rows;
        if let Some(held) = state.columns.get_mut(self.column).filter(|held| held.dictionary_value > 0) {
            held.page_value = held.dictionary_value;
            let values = if held.is_repeated { held.batch / held.cost.value.max(1) } else { rows };
            held.batch = held.batch.saturating_add(values.saturating_mul(held.page_value));
        }
        self.budget.check(&mut state, Some(self.column), 0).map_err(excess_error)?;
        Ok(page)
    }

    fn at_record_boundary(&mut self) -> Result<bool, ParquetError> {
        self.header()?;
        self.inner.at_record_boundary()
    }
}

impl Iterator for CheckedColumn {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl Held {
    /// Sets the levels of a new page. If there are none, all values of the page are assumed to belong to one row.
    fn set_levels(&mut self, levels: Option<Bytes>, max: i16, count: u64) {
        match levels {
            Some(levels) => self.levels = Some(Levels::new(levels, max, count)),
            None => self.uncounted = count,
        }
    }
}

/// Splits the levels off the beginning of a version 1 page. Returns `None` if their encoding is not supported.
fn level_section(page: &mut Bytes, encoding: Encoding, max: i16, count: u64) -> Result<Option<Bytes>, ParquetError> {
    let short = || general("a page is too short for its levels".to_owned());
    if encoding == Encoding::RLE {
        let length = page.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)).ok_or_else(short)?;
        let end = usize::try_from(length).ok().and_then(|length| length.checked_add(4));
        let end = end.filter(|end| *end <= page.len()).ok_or_else(short)?;
        let levels = page.slice(4..end);
        *page = page.slice(end..);
        return Ok(Some(levels));
    }
    // Any other encoding is the deprecated `BIT_PACKED`.
    let width = u64::from(i16::BITS - max.leading_zeros());
    let length = usize::try_from(count.saturating_mul(width).div_ceil(8)).unwrap_or(usize::MAX);
    if length > page.len() {
        return Err(short());
    }
    *page = page.slice(length..);
    Ok(None)
}

/// Returns the length of the longest value in a dictionary of strings.
fn longest(mut dictionary: &[u8]) -> u64 {
    let mut longest = 0;
    while let Some((length, rest)) = dictionary.split_first_chunk() {
        let length = u32::from_le_bytes(*length);
        longest = longest.max(u64::from(length));
        dictionary = usize::try_from(length).ok().and_then(|length| rest.get(length..)).unwrap_or_default();
    }
    longest
}

fn general(why: String) -> ParquetError {
    ParquetError::General(why)
}

fn excess_error(excess: Excess) -> ParquetError {
    general(format!("column '{}' takes {} bytes to decode", excess.column, excess.bytes))
}

// === impl CheckedPages ===

impl RowGroups for CheckedPages {
    fn num_rows(&self) -> usize {
        usize::try_from(self.metadata.row_group(self.group).num_rows()).unwrap_or(0)
    }

    fn column_chunks(&self, leaf: usize) -> Result<Box<dyn PageIterator>, ParquetError> {
        let chunk = self.metadata.row_group(self.group).column(leaf);
        // The Parquet reader adds the offset and the size without a check, which could overflow.
        if chunk.data_page_offset() < 0
            || chunk.compressed_size() < 0
            || chunk.dictionary_page_offset().is_some_and(|offset| offset < 0)
        {
            return Err(general("a column has a negative offset or size".to_owned()));
        }
        let (at, left) = chunk.byte_range();
        let descr = chunk.column_descr();
        let column = self.columns.get(leaf).copied().flatten();
        let physical = descr.physical_type();
        let checked = CheckedColumn {
            inner: SerializedPageReader::new(Arc::clone(&self.input), chunk, self.num_rows(), None)?,
            input: Arc::clone(&self.input),
            budget: Arc::clone(&self.budget),
            column: column.ok_or_else(|| general("the reader requested a column that is not wanted".to_owned()))?,
            compression: chunk.compression(),
            physical,
            type_length: usize::try_from(descr.type_length()).unwrap_or(0),
            max_rep_level: descr.max_rep_level(),
            max_def_level: descr.max_def_level(),
            at,
            left,
            next: None,
            deferred: None,
        };
        Ok(Box::new(OneChunk(Some(Box::new(checked)))))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(std::iter::once(self.metadata.row_group(self.group)))
    }

    fn metadata(&self) -> &ParquetMetaData {
        &self.metadata
    }
}

/// Yields the reader of one column.
struct OneChunk(Option<Box<CheckedColumn>>);

impl Iterator for OneChunk {
    type Item = Result<Box<dyn PageReader>, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.take().map(|checked| Ok(checked as Box<dyn PageReader>))
    }
}

impl PageIterator for OneChunk {}
