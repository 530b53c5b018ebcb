//! Reads the footer of a Parquet file, and checks it before it is converted.
//!
//! A schema is a tree in which each node has the number of its children. The Parquet reader builds the tree
//! recursively, and copies the names of all ancestors to each leaf. It allocates about 640 bytes for each column of
//! each row group, which may take only 20 bytes in the file. So a small file can overflow the stack or exhaust memory
//! before its first row is read. This module scans the bytes first, without recursion over the schema, and computes the
//! memory that the conversion would take.

use std::ops::Range;

use bytes::Bytes;
use parquet::file::metadata::{
    FooterTail, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader, ParquetStatisticsPolicy,
};

use super::{DecodeThread, ParquetLimits, ReadFailure, check, thrift::Compact};
use crate::SourceError;

/// The size of a file's metadata after conversion, as computed by scanning the footer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Extent {
    /// The number of leaves of the schema.
    columns: u64,
    /// The approximate memory in bytes.
    bytes: u64,
    /// The offset of the list of row groups, if the list is empty.
    no_row_groups: Option<u64>,
}

/// The maximum nesting depth of a schema. A list counts as two levels.
const DEPTH_MAX: u64 = 64;
/// The header of an empty list of structs in Thrift's compact protocol.
const EMPTY_LIST_OF_STRUCTS: u8 = 0x0c;
/// The number of bytes after the footer: its length and a magic number.
const TAIL: u64 = 8;
/// The number of bytes at the end of a file that are read first. Most footers are shorter.
const FIRST_READ: u64 = 64 << 10;
/// The Parquet reader's allocations in bytes: for a column of a row group, for a schema node, and for each name in a
/// leaf's path.
const CHUNK_BYTES: u64 = 640;
const NODE_BYTES: u64 = 512;
const PATH_PART_BYTES: u64 = 32;
/// The bytes of memory for each byte of key-value metadata. The metadata is copied, and the Arrow schema in it is
/// decoded.
const KEY_VALUE_FACTOR: u64 = 6;

/// Reads the footer of a file of `size` bytes. `fetch` reads a range of the file. Statistics are only decoded for the root
/// column with the name `statistics_of`, if there is one.
///
/// # Errors
/// [`SourceError::Unreadable`], [`SourceError::Limit`], and the errors of `fetch`.
pub(super) fn read(
    path: &str,
    size: u64,
    limits: &ParquetLimits,
    thread: &DecodeThread,
    statistics_of: Option<&str>,
    fetch: &mut dyn FnMut(Range<u64>) -> Result<Bytes, SourceError>,
) -> Result<ParquetMetaData, SourceError> {
    let unreadable = |why: String| SourceError::Unreadable { path: path.to_owned(), why };
    if size < TAIL {
        return Err(unreadable(format!("the file has only {size} bytes, which is too short for a footer")));
    }
    let first = size.saturating_sub(FIRST_READ)..size;
    let end = fetch(first.clone())?;
    let tail = end.len().checked_sub(TAIL.try_into().unwrap_or(0)).and_then(|at| end[at..].first_chunk());
    let tail = tail.ok_or_else(|| unreadable("the end of the file is truncated".to_owned()))?;
    let tail = FooterTail::try_new(tail).map_err(|error| unreadable(ReadFailure::from(error).0))?;
    if tail.is_encrypted_footer() {
        return Err(unreadable("the footer is encrypted, which is not supported".to_owned()));
    }
    let length = tail.metadata_length() as u64;
    let Some(start) = (size - TAIL).checked_sub(length) else {
        return Err(unreadable(format!("the footer has {length} bytes, but the file has only {size}")));
    };
    limits.check_memory(path, "the size of the footer in bytes", length)?;
    let footer = if start >= first.start {
        let at = |offset: u64| usize::try_from(offset - first.start).unwrap_or(usize::MAX);
        end.slice(at(start)..at(size - TAIL))
    } else {
        fetch(start..size - TAIL)?
    };
    let extent = extent(&footer).map_err(|why| unreadable(format!("invalid footer: {why}")))?;
    // fastparquet writes an empty list of row groups as a list of bytes, which the Parquet library does not accept.
    let short_list = |at: &usize| footer.get(*at).is_some_and(|head| head >> 4 == 0);
    let footer = match extent.no_row_groups.and_then(|at| usize::try_from(at).ok()).filter(short_list) {
        Some(at) => {
            let mut footer = footer.to_vec();
            footer[at] = EMPTY_LIST_OF_STRUCTS;
            footer.into()
        }
        None => footer,
    };
    check(path, "the number of columns", extent.columns, limits.columns_max as u64)?;
    limits.check_memory(path, "the memory for the file's metadata in bytes", extent.bytes)?;
    let column = statistics_of.map(str::to_owned);
    let decode = move || {
        let metadata = decode(&footer, &[])?;
        // The index of the column is known only now.
        match column.and_then(|column| leaf(&metadata, &column)) {
            Some(leaf) => decode(&footer, &[leaf]),
            None => Ok(metadata),
        }
    };
    thread.guarded(decode).map_err(unreadable)
}

/// Returns the index of the first leaf of a root column.
fn leaf(metadata: &ParquetMetaData, root: &str) -> Option<usize> {
    let schema = metadata.file_metadata().schema_descr();
    (0..schema.num_columns()).find(|leaf| schema.get_column_root(*leaf).name() == root)
}

/// Converts a checked footer. Skips statistics, except those of the columns `statistics_of`.
fn decode(footer: &[u8], statistics_of: &[usize]) -> Result<ParquetMetaData, parquet::errors::ParquetError> {
    let mut options = ParquetMetaDataOptions::new();
    options.set_column_stats_policy(ParquetStatisticsPolicy::skip_except(statistics_of));
    options.set_encoding_stats_policy(ParquetStatisticsPolicy::SkipAll);
    options.set_size_stats_policy(ParquetStatisticsPolicy::SkipAll);
    ParquetMetaDataReader::decode_metadata_with_options(footer, Some(&options))
}

/// Scans a footer, and computes the size of its metadata after conversion. Fails if the schema is nested too deeply.
fn extent(footer: &[u8]) -> Result<Extent, String> {
    // struct FileMetaData { 1: version, 2: list<SchemaElement> schema, 3: num_rows, 4: list<RowGroup> row_groups,
    //                       5: list<KeyValue> key_value_metadata, .. }
    let mut input = Compact::new(footer, footer.len() as u64);
    let mut extent = Extent { bytes: 2 * footer.len() as u64, ..Extent::default() };
    let mut last = 0;
    while let Some((field, kind)) = input.field(&mut last)? {
        match field {
            2 => schema(&mut input, &mut extent)?,
            4 => {
                let at = input.position();
                let groups = row_groups(&mut input, &mut extent)?;
                extent.no_row_groups = (groups == 0).then_some(at);
            }
            5 => {
                let before = input.position();
                input.skip(kind)?;
                extent.add((input.position() - before).saturating_mul(KEY_VALUE_FACTOR));
            }
            _ => input.skip(kind)?,
        }
    }
    Ok(extent)
}

fn schema(input: &mut Compact<&[u8]>, extent: &mut Extent) -> Result<(), String> {
    /// A node whose children are being read.
    struct Open {
        /// The number of remaining children.
        children: u64,
        /// The memory for the names on the path to the node.
        path_bytes: u64,
    }
    let mut open: Vec<Open> = Vec::new();
    let (_, size) = input.list()?;
    for _ in 0..size {
        // struct SchemaElement { .., 4: name, 5: num_children, .. }
        let (mut name, mut children) = (0, 0);
        let mut last = 0;
        while let Some((field, kind)) = input.field(&mut last)? {
            match field {
                4 => name = input.binary()?,
                5 => children = u64::try_from(input.int()?).unwrap_or(0),
                _ => input.skip(kind)?,
            }
        }
        while open.pop_if(|node| node.children == 0).is_some() {}
        let depth = open.len() as u64;
        let mut path_bytes = 0;
        if let Some(parent) = open.last_mut() {
            parent.children -= 1;
            path_bytes = parent.path_bytes + name + PATH_PART_BYTES;
        }
        extent.add(NODE_BYTES + name);
        if children > 0 {
            open.push(Open { children, path_bytes });
        } else if depth > 0 {
            extent.columns += 1;
            extent.add(path_bytes);
        }
        if depth > DEPTH_MAX {
            return Err(format!("the schema is nested more than {DEPTH_MAX} levels deep"));
        }
    }
    Ok(())
}

/// Adds the memory for the row groups to `extent`, and returns the number of row groups.
fn row_groups(input: &mut Compact<&[u8]>, extent: &mut Extent) -> Result<u64, String> {
    let (_, groups) = input.list()?;
    for _ in 0..groups {
        extent.add(NODE_BYTES);
        // struct RowGroup { 1: list<ColumnChunk> columns, .. }
        let mut last = 0;
        while let Some((field, kind)) = input.field(&mut last)? {
            if field != 1 {
                input.skip(kind)?;
                continue;
            }
            let (kind, chunks) = input.list()?;
            extent.add(chunks.saturating_mul(CHUNK_BYTES));
            (0..chunks).try_for_each(|_| input.skip(kind))?;
        }
    }
    Ok(groups)
}

// === impl Extent ===

impl Extent {
    fn add(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }
}
