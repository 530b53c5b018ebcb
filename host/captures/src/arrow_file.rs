//! Reads Arrow files with bounded memory.
//!
//! A file is untrusted input. Arrow's reader allocates the sizes that a file claims, and it panics if a buffer is outside
//! its message. Here, sizes are compared with the size of the file and with limits before memory is allocated, the buffers
//! of each message are checked, and buffers are read in place, so that many columns cannot copy one large buffer. Types
//! whose rows can be larger than the file are rejected.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use arrow::{
    array::RecordBatch,
    buffer::{Buffer, MutableBuffer},
    datatypes::{DataType, Schema, SchemaRef},
    error::ArrowError,
    ipc::{Block, convert::try_fb_to_schema, reader::FileDecoder, root_as_footer, root_as_message},
};
use larder_common::{files::open_regular, telemetry::panic_message};

use super::CaptureError;

/// An open Arrow file.
#[derive(Debug)]
pub struct ArrowFile {
    path: String,
    file: File,
    bytes: u64,
    schema: SchemaRef,
    blocks: Vec<Block>,
    /// `None` after an error.
    decoder: Option<FileDecoder>,
}

const MAGIC: &[u8; 6] = b"ARROW1";
/// The size of the footer's length and the final magic bytes.
const TRAILER_BYTES: u64 = 10;
/// The maximum size of the footer in bytes.
const FOOTER_BYTES_MAX: u64 = 16 << 20;
/// The maximum size of a record batch in bytes, and of all dictionaries together.
const BATCH_BYTES_MAX: u64 = 256 << 20;
/// The marker before the length of a message.
const CONTINUATION: [u8; 4] = [0xff; 4];

// === impl ArrowFile ===

impl ArrowFile {
    /// Opens a file, and reads its schema and its dictionaries.
    ///
    /// # Errors
    /// [`CaptureError`], which names the file.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let shown = path.display().to_string();
        let io = |source| CaptureError::Io { path: shown.clone(), source };
        let file = open_regular(path).map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        let not_arrow = || CaptureError::NotArrow { path: shown.clone() };
        let mut head = [0; MAGIC.len()];
        let mut trailer = [0; TRAILER_BYTES as usize];
        let body_end = bytes.checked_sub(TRAILER_BYTES).filter(|end| *end >= 8).ok_or_else(not_arrow)?;
        file.read_exact_at(&mut head, 0).map_err(io)?;
        file.read_exact_at(&mut trailer, body_end).map_err(io)?;
        let (length, magic) = trailer.split_at(4);
        if head != *MAGIC || magic != MAGIC {
            return Err(not_arrow());
        }
        let length = length.try_into().map_or(0, u32::from_le_bytes);
        let length = u64::from(length);
        let damaged = |why: String| CaptureError::Damaged { path: shown.clone(), why };
        let start = body_end.checked_sub(length).ok_or_else(|| damaged("its footer is larger than the file".into()))?;
        if length > FOOTER_BYTES_MAX {
            let (path, found, limit) = (shown.clone(), length, FOOTER_BYTES_MAX);
            return Err(CaptureError::TooLarge { path, what: "the footer", found, limit });
        }
        let mut footer = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut footer, start).map_err(io)?;
        let footer = guarded(|| {
            let footer = root_as_footer(&footer).map_err(|error| ArrowError::ParseError(error.to_string()))?;
            let missing = || ArrowError::ParseError("the footer has no schema".to_owned());
            let schema = footer.schema().ok_or_else(missing)?;
            if !schema.endianness().equals_to_target_endianness() {
                return Err(ArrowError::ParseError("the file is big-endian".to_owned()));
            }
            let schema: Schema = try_fb_to_schema(schema)?;
            let blocks = |blocks: Option<_>| -> Vec<Block> { blocks.into_iter().flatten().copied().collect() };
            Ok((schema, blocks(footer.recordBatches()), blocks(footer.dictionaries()), footer.version()))
        });
        let (schema, blocks, dictionaries, version) = footer.map_err(damaged)?;
        let schema = Arc::new(schema);
        check_types(&shown, &schema)?;
        let decoder = FileDecoder::new(Arc::clone(&schema), version).with_require_alignment(true);
        let mut opened = Self { path: shown, file, bytes, schema, blocks, decoder: Some(decoder) };
        opened.read_dictionaries(&dictionaries)?;
        Ok(opened)
    }

    /// Returns the columns and the metadata of the schema.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns the path, for messages.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the size of the file in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the number of record batches.
    #[must_use]
    pub fn batch_count(&self) -> usize {
        self.blocks.len()
    }

    /// Reads a record batch.
    ///
    /// # Errors
    /// [`CaptureError`], which names the file.
    pub fn batch(&self, index: usize) -> Result<RecordBatch, CaptureError> {
        let damaged = |why: String| CaptureError::Damaged { path: self.path.clone(), why };
        let block = self.blocks.get(index).ok_or_else(|| damaged(format!("there is no record batch {index}")))?;
        let buffer = self.read(block)?;
        let decoder = self.decoder.as_ref().ok_or_else(|| damaged("its dictionaries cannot be read".to_owned()))?;
        let batch = guarded(|| decoder.read_record_batch(block, &buffer)).map_err(damaged)?;
        batch.ok_or_else(|| damaged(format!("record batch {index} is empty")))
    }

    fn read_dictionaries(&mut self, dictionaries: &[Block]) -> Result<(), CaptureError> {
        let mut left = BATCH_BYTES_MAX;
        for block in dictionaries {
            let buffer = self.read(block)?;
            let found = buffer.len() as u64;
            left = left.checked_sub(found).ok_or_else(|| self.too_large("the dictionaries", found))?;
            let Some(mut decoder) = self.decoder.take() else { continue };
            let read = guarded(|| decoder.read_dictionary(block, &buffer).map(|()| decoder));
            let damaged = |why| CaptureError::Damaged { path: self.path.clone(), why };
            self.decoder = Some(read.map_err(damaged)?);
        }
        Ok(())
    }

    /// Reads a message, and checks that its buffers are within it.
    fn read(&self, block: &Block) -> Result<Buffer, CaptureError> {
        let damaged = |why: &str| CaptureError::Damaged { path: self.path.clone(), why: why.to_owned() };
        let outside = || damaged("a record batch is outside the file");
        let size = |size: i64| u64::try_from(size).map_err(|_| outside());
        let (start, head, body) =
            (size(block.offset())?, size(i64::from(block.metaDataLength()))?, size(block.bodyLength())?);
        let length = head.checked_add(body).ok_or_else(outside)?;
        if start.checked_add(length).is_none_or(|end| end > self.bytes) || head < 8 {
            return Err(outside());
        }
        if length > BATCH_BYTES_MAX {
            return Err(self.too_large("a record batch", length));
        }
        let mut buffer = MutableBuffer::from_len_zeroed(usize::try_from(length).unwrap_or(usize::MAX));
        let read = self.file.read_exact_at(&mut buffer, start);
        read.map_err(|source| CaptureError::Io { path: self.path.clone(), source })?;
        let head = usize::try_from(head).unwrap_or(usize::MAX);
        check_message(&buffer[..head], body).map_err(damaged)?;
        Ok(buffer.into())
    }

    fn too_large(&self, what: &'static str, found: u64) -> CaptureError {
        CaptureError::TooLarge { path: self.path.clone(), what, found, limit: BATCH_BYTES_MAX }
    }
}

/// Checks the sizes in the head of a message, whose body has this many bytes.
fn check_message(head: &[u8], body: u64) -> Result<(), &'static str> {
    let head = if head.starts_with(&CONTINUATION) { &head[8..] } else { &head[4..] };
    let message = root_as_message(head).map_err(|_| "the head of a record batch is invalid")?;
    let dictionary = message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data());
    let batch = message.header_as_record_batch().or(dictionary).ok_or("a message is not a record batch")?;
    if batch.compression().is_some() {
        return Err("its record batches are compressed, which Larder does not read");
    }
    for buffer in batch.buffers().into_iter().flatten() {
        let range = u64::try_from(buffer.offset()).ok().zip(u64::try_from(buffer.length()).ok());
        let end = range.and_then(|(start, length)| start.checked_add(length));
        if end.is_none_or(|end| end > body) {
            return Err("a buffer is outside its record batch");
        }
    }
    // Each row has at least one bit in some column.
    let rows_max = body.saturating_mul(8);
    let nodes = batch.nodes().into_iter().flatten().flat_map(|node| [node.length(), node.null_count()]);
    if nodes.chain([batch.length()]).any(|count| u64::try_from(count).is_ok_and(|count| count <= rows_max).eq(&false)) {
        return Err("a record batch has more rows than data");
    }
    Ok(())
}

/// Rejects types whose rows can be much larger than the file.
fn check_types(path: &str, schema: &Schema) -> Result<(), CaptureError> {
    for field in schema.fields() {
        let hint = match first_unsupported(field.data_type()) {
            None => continue,
            Some(DataType::Null) => "cast it to a type that has values",
            Some(_) => "cast it to a list or to plain values",
        };
        let (column, found) = (field.name().clone(), field.data_type().to_string());
        return Err(CaptureError::Unsupported { path: path.to_owned(), column, found, hint });
    }
    Ok(())
}

fn first_unsupported(of: &DataType) -> Option<&DataType> {
    match of {
        DataType::Null
        | DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::RunEndEncoded(..)
        | DataType::Union(..)
        | DataType::FixedSizeList(_, 0)
        | DataType::FixedSizeBinary(0) => Some(of),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => first_unsupported(item.data_type()),
        DataType::Struct(fields) => fields.iter().find_map(|field| first_unsupported(field.data_type())),
        DataType::Dictionary(_, values) => first_unsupported(values),
        _ => None,
    }
}

/// Runs a function of Arrow's reader. A panic becomes an error.
fn guarded<T>(read: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => Err(format!("Arrow's reader panicked: {}", panic_message(&*panic))),
    }
}

#[cfg(test)]
mod tests;
