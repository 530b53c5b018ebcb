//! An entry of the hot cache: the rows of one entity in all views, in one block of memory.

use std::{
    fmt,
    ops::{Deref, Range},
    sync::Arc,
};

use larder_model::{codec::RowText, model::EntityId};
use smallvec::SmallVec;

use crate::ViewId;

/// The bytes of a row, which [`larder_model::codec::RowView`] reads. Clones share the bytes.
#[derive(Clone)]
pub struct Row {
    block: Arc<[u8]>,
    /// The offset of the row's text, which ends at `start`.
    text: u32,
    start: u32,
    end: u32,
}

/// A block of memory that several rows may share. Two values are equal if they are the same block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowMemory {
    at: usize,
    /// The size of the block in bytes.
    pub bytes: usize,
}

/// The cached rows of one entity, in one block of memory, because a lookup spends most of its time waiting for memory.
/// The layout of the block:
///
/// ```text
/// id, 16 bytes | seen u64 | copies u32 | per copy: view, generation, text, start, end, each u32
///     | the texts, each followed by its row
/// ```
///
/// A *copy* is what the entry has for one view: the row and its text, or the fact that there is no row. `seen` is the
/// number of the commit that the reader saw. If several readers added copies, it is the lowest of their numbers.
/// `start..end` is the range of a row in the block, and `text..start` is the range of its text ([`RowText`]). If `text`
/// is [`NO_ROW`], there is no row. A JSON response reads the text and the first bytes of the row, so the two are
/// adjacent.
#[derive(Clone, Debug)]
pub(crate) struct EntityRows(Arc<[u8]>);

/// One view to look up for each entity of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The view whose row is looked up.
    pub view: ViewId,
    /// Approximately how many values of the row will be read. In a large entry, this decides whether the whole text or
    /// only its first cache line is prefetched.
    pub values: usize,
}

/// A row of one view as a reader found it in the store, or the fact that there is no row.
#[derive(Debug)]
pub(crate) struct FoundRow {
    pub(crate) view: ViewId,
    pub(crate) generation: u32,
    pub(crate) row: Option<Row>,
    /// The output of [`RowText::render`] for the row.
    pub(crate) text: Vec<u8>,
}

/// A copy: the view, the generation, and the bytes and text of the row; `None` if there is no row.
type ViewCopy<'b> = (ViewId, u32, Option<(&'b [u8], &'b [u8])>);

/// The head of a copy in its block: view, generation, text, start, end.
#[derive(Clone, Copy, Debug)]
struct CopyHead<'b>(&'b [u8; COPY_BYTES]);

/// The position of a row in its block: the offsets of its text, its start, and its end.
type Span = (u32, u32, u32);

const SEEN_AT: usize = size_of::<EntityId>();
const COPIES_AT: usize = SEEN_AT + size_of::<u64>();
const HEAD_BYTES: usize = COPIES_AT + size_of::<u32>();
const COPY_BYTES: usize = 5 * size_of::<u32>();
/// The number of cache lines that contain the heads of most entries.
const HEAD_LINES: usize = 2;
/// An entry of at most this many cache lines is prefetched as a whole.
const SMALL_LINES: usize = 16;
/// The size of a cache line in bytes.
const LINE: usize = 64;
/// The value of a text offset that records a missing row.
const NO_ROW: u32 = u32::MAX;

// === impl Row ===

impl Row {
    /// Copies a row's bytes. They must be shorter than 4 GiB, and rows are much shorter than that.
    pub(crate) fn copy_of(bytes: &[u8]) -> Self {
        let end = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Self { block: bytes.into(), text: 0, start: 0, end }
    }

    /// Creates a row whose bytes are a part of a block. Several rows can share a block.
    #[must_use]
    pub fn in_block(block: &Arc<[u8]>, bytes: Range<u32>) -> Self {
        Self { block: Arc::clone(block), text: bytes.start, start: bytes.start, end: bytes.end }
    }

    /// Returns the block of memory that the row keeps alive.
    #[must_use]
    pub fn memory(&self) -> RowMemory {
        RowMemory { at: self.block.as_ptr() as usize, bytes: self.block.len() }
    }

    /// Returns the row's values as text if the text is stored with the row, as it is for most rows in the hot cache.
    #[must_use]
    pub fn text(&self) -> Option<RowText<'_>> {
        // The slice includes the bytes after the text, so that the text can be copied in larger blocks.
        if self.text < self.start { RowText::new(&self.block[self.text as usize..]) } else { None }
    }
}

impl Deref for Row {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.block[self.start as usize..self.end as usize]
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

// === impl EntityRows ===

impl EntityRows {
    /// Returns the size of the block in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Returns the address of the block in memory.
    pub(super) fn address(&self) -> usize {
        self.0.as_ptr().addr()
    }

    /// Merges a previous entry and newly found rows into one block. If both have a row of the same view, the found row
    /// wins.
    pub(super) fn of(id: &EntityId, before: Option<&Self>, found: &[FoundRow], seen: u64) -> Self {
        let known = before.into_iter().flat_map(|before| {
            let bytes = |from: u32, to: u32| &before.0[from as usize..to as usize];
            before.copies().map(move |copy| {
                let row = copy.span().map(|(text, start, end)| (bytes(start, end), bytes(text, start)));
                (copy.view(), copy.generation(), row)
            })
        });
        let known = known.filter(|(view, ..)| found.iter().all(|found| found.view != *view));
        let found = found
            .iter()
            .map(|found| (found.view, found.generation, found.row.as_deref().map(|row| (row, &*found.text))));
        let copies: SmallVec<[ViewCopy<'_>; 8]> = known.chain(found).collect();

        let len = |row: Option<(&[u8], &[u8])>| row.map_or((0, 0), |(row, text)| (text.len(), text.len() + row.len()));
        let rows: usize = copies.iter().map(|(.., row)| len(*row).1).sum();
        let mut at = HEAD_BYTES + copies.len() * COPY_BYTES;
        let mut block = Vec::with_capacity(at + rows);
        let seen = before.map_or(seen, |before| before.seen().min(seen));
        block.extend_from_slice(&id.0);
        block.extend_from_slice(&seen.to_le_bytes());
        // These conversions never fail: rows have at most a few MiB, and there are at most thousands of views.
        let le_bytes = |n: usize| u32::try_from(n).unwrap_or(NO_ROW).to_le_bytes();
        block.extend_from_slice(&le_bytes(copies.len()));
        for (view, generation, row) in &copies {
            let (text_len, both_len) = len(*row);
            block.extend_from_slice(&view.0.to_le_bytes());
            block.extend_from_slice(&generation.to_le_bytes());
            block.extend_from_slice(&row.map_or(NO_ROW.to_le_bytes(), |_| le_bytes(at)));
            block.extend_from_slice(&le_bytes(at + text_len));
            block.extend_from_slice(&le_bytes(at + both_len));
            at += both_len;
        }
        for (row, text) in copies.iter().filter_map(|(.., row)| *row) {
            block.extend_from_slice(text);
            block.extend_from_slice(row);
        }
        Self(block.into())
    }

    /// Returns the row of a view in a generation; `None` if the entry has no copy of it, and `Some(None)` if the entry
    /// records that there is no row.
    #[inline]
    #[expect(clippy::option_option, reason = "an unknown row and a missing row differ")]
    pub(crate) fn row(&self, view: ViewId, generation: u32) -> Option<Option<Row>> {
        let copy = self.copies().find(|copy| copy.view() == view && copy.generation() == generation)?;
        Some(copy.span().map(|(text, start, end)| Row { block: Arc::clone(&self.0), text, start, end }))
    }

    /// Reads one byte of each cache line of the entry, or only of its first lines if the entry is large. The result
    /// only keeps the compiler from removing the reads.
    fn touch_first(&self) -> u8 {
        touch(&self.0, if self.is_small() { SMALL_LINES } else { HEAD_LINES })
    }

    /// Reads one byte of each cache line that the lookups need, unless [`EntityRows::touch_first`] read the whole
    /// entry.
    fn touch(&self, views: &[Lookup]) -> u8 {
        if self.is_small() {
            return 0;
        }
        let wanted = |copy: CopyHead<'_>| views.iter().find(|wanted| wanted.view == copy.view());
        let spans = self.copies().filter_map(|copy| Some((wanted(copy)?, copy.span()?)));
        spans.fold(0, |sum, (wanted, (text, start, _))| {
            // In a long text, the caller may need only a few values, each on a different cache line. Then only the
            // first line is read, because it has offsets that are needed in any case.
            let text = &self.0[text as usize..start as usize];
            let lines = if text.len() <= wanted.values * LINE { text.len().div_ceil(LINE) } else { 1 };
            sum ^ self.0[start as usize] ^ touch(text, lines)
        })
    }

    fn is_small(&self) -> bool {
        self.bytes() <= SMALL_LINES * LINE
    }

    /// Returns whether both entries are the same block of memory.
    pub(super) fn is_same_block(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Returns how many owners share the block.
    #[cfg(test)]
    pub(super) fn owner_count(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    pub(super) fn is_for(&self, id: &EntityId) -> bool {
        self.0.first_chunk() == Some(&id.0)
    }

    pub(super) fn seen(&self) -> u64 {
        self.0[SEEN_AT..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// Returns the copies in this entry, one per view.
    fn copies(&self) -> impl Iterator<Item = CopyHead<'_>> {
        let count = self.0[COPIES_AT..].first_chunk().map_or(0, |count| u32::from_le_bytes(*count));
        self.0[HEAD_BYTES..].as_chunks().0.iter().take(count as usize).map(CopyHead)
    }
}

// === impl CopyHead ===

impl CopyHead<'_> {
    fn view(self) -> ViewId {
        ViewId(self.number(0))
    }

    fn generation(self) -> u32 {
        self.number(1)
    }

    /// Returns the position of the row, if there is one.
    fn span(self) -> Option<Span> {
        let text = self.number(2);
        (text != NO_ROW).then(|| (text, self.number(3), self.number(4)))
    }

    #[inline]
    fn number(self, index: usize) -> u32 {
        self.0.as_chunks().0.get(index).map_or(0, |number| u32::from_le_bytes(*number))
    }
}

/// Prefetches the memory of several entries before any of it is used. Here, the processor can wait for many cache lines
/// at once. Later it would wait for them one by one, because counters and branches that depend on loaded values
/// serialize the reads.
pub(super) fn prefetch(entries: &[Option<&EntityRows>], views: &[Lookup]) {
    let entries = || entries.iter().flatten();
    let heads = entries().fold(0, |sum, rows| sum ^ rows.touch_first());
    let rows = entries().fold(0, |sum, rows| sum ^ rows.touch(views));
    std::hint::black_box(heads ^ rows);
}

/// Reads one byte of each of the first `lines` cache lines.
fn touch(bytes: &[u8], lines: usize) -> u8 {
    bytes.iter().step_by(LINE).take(lines).fold(0, |sum, byte| sum ^ byte)
}
