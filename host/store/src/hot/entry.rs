//! What the hot cache has of one entity: its rows of all views, in one piece of memory.

use std::{fmt, ops::Deref, sync::Arc};

use larder_model::{codec::RowText, model::EntityId};
use smallvec::SmallVec;

use crate::ViewId;

/// A row's bytes; [`larder_model::codec::RowView`] reads them. Cloning shares them.
#[derive(Clone)]
pub struct Row {
    block: Arc<[u8]>,
    /// Where its text begins, which ends where its bytes start.
    text: u32,
    start: u32,
    end: u32,
}

/// A piece of memory that rows may share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowMemory {
    at: usize,
    /// Its bytes.
    pub bytes: usize,
}

/// What is known of one entity, in one piece of memory, for most of a look is waiting for memory:
///
/// ```text
/// id, 16 bytes | seen u64 | copies u32 | per copy: view, generation, text, start, end, each u32
///     | the texts, each with its row behind it
/// ```
///
/// `seen` is the commit that the reader saw; of several, the earliest. `start..end` is where a row lies in the piece,
/// and `text..start` its text ([`RowText`]); a copy whose text is nowhere knows that there is no row. An answer in JSON reads
/// the text and the first bytes of the row, which so lie together.
#[derive(Clone, Debug)]
pub(crate) struct EntityRows(Arc<[u8]>);

/// What is looked up of each entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The row of this view.
    pub view: ViewId,
    /// How many of its values will be read, about: as much of the row is brought near in time.
    pub values: usize,
}

/// A row, or the knowledge that there is none, as a reader found it.
#[derive(Debug)]
pub(crate) struct FoundRow {
    pub(crate) view: ViewId,
    pub(crate) generation: u32,
    pub(crate) row: Option<Row>,
    /// What [`RowText::render`] made of the row.
    pub(crate) text: Vec<u8>,
}

/// A copy: a view, a generation, and the row and its text or the knowledge that there is none.
type ViewCopy<'b> = (ViewId, u32, Option<(&'b [u8], &'b [u8])>);

/// The head of a copy in its piece: view, generation, text, start, end.
#[derive(Clone, Copy, Debug)]
struct CopyHead<'b>(&'b [u8; COPY_BYTES]);

/// Where a row lies in its piece: its text, its start, and its end.
type Span = (u32, u32, u32);

const SEEN_AT: usize = size_of::<EntityId>();
const COPIES_AT: usize = SEEN_AT + size_of::<u64>();
const HEAD_BYTES: usize = COPIES_AT + size_of::<u32>();
const COPY_BYTES: usize = 5 * size_of::<u32>();
/// Where the rows lie stands in so many lines of most entries.
const HEAD_LINES: usize = 2;
/// An entry of no more lines is near as a whole before it is known what of it is wanted.
const SMALL_LINES: usize = 16;
/// What a processor fetches from memory at once.
const LINE: usize = 64;
/// Where a row starts that is not there.
const NOWHERE: u32 = u32::MAX;

// === impl Row ===

impl Row {
    /// A copy of a row's bytes. They have to be fewer than 4 GiB; rows are far below.
    pub(crate) fn copy_of(bytes: &[u8]) -> Self {
        let end = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Self { block: bytes.into(), text: 0, start: 0, end }
    }

    /// The memory that it holds.
    #[must_use]
    pub fn memory(&self) -> RowMemory {
        RowMemory { at: self.block.as_ptr() as usize, bytes: self.block.len() }
    }

    /// The row's values as text, if they are kept as such: rows in the hot cache are.
    #[must_use]
    pub fn text(&self) -> Option<RowText<'_>> {
        // With what is behind it: there a copy of many bytes at once may end.
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
    /// Bytes of the piece.
    pub(super) fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Where the piece is in memory.
    pub(super) fn address(&self) -> usize {
        self.0.as_ptr().addr()
    }

    /// What was known and what was found, in one piece. Of a view that is in both, what was found counts.
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
        // Rows have a few MiB at most, and views are thousands at most.
        let small = |n: usize| u32::try_from(n).unwrap_or(NOWHERE).to_le_bytes();
        block.extend_from_slice(&small(copies.len()));
        for (view, generation, row) in &copies {
            let (text_len, both_len) = len(*row);
            block.extend_from_slice(&view.0.to_le_bytes());
            block.extend_from_slice(&generation.to_le_bytes());
            block.extend_from_slice(&row.map_or(NOWHERE.to_le_bytes(), |_| small(at)));
            block.extend_from_slice(&small(at + text_len));
            block.extend_from_slice(&small(at + both_len));
            at += both_len;
        }
        for (row, text) in copies.iter().filter_map(|(.., row)| *row) {
            block.extend_from_slice(text);
            block.extend_from_slice(row);
        }
        Self(block.into())
    }

    /// The row of a view in a generation: `Some(None)` when it is known that there is none.
    #[inline]
    #[expect(clippy::option_option, reason = "not known, and known not to be there, differ")]
    pub(crate) fn row(&self, view: ViewId, generation: u32) -> Option<Option<Row>> {
        let copy = self.copies().find(|copy| copy.view() == view && copy.generation() == generation)?;
        Some(copy.span().map(|(text, start, end)| Row { block: Arc::clone(&self.0), text, start, end }))
    }

    /// Looks once at each line of it, or of its head if it is large. What comes of it means nothing.
    fn touch_first(&self) -> u8 {
        touch(&self.0, if self.is_small() { SMALL_LINES } else { HEAD_LINES })
    }

    /// Looks once at each line of what views have here, as far as it is wanted, if [`EntityRows::touch_first`] did not.
    fn touch(&self, views: &[Lookup]) -> u8 {
        if self.is_small() {
            return 0;
        }
        let wanted = |copy: CopyHead<'_>| views.iter().find(|wanted| wanted.view == copy.view());
        let spans = self.copies().filter_map(|copy| Some((wanted(copy)?, copy.span()?)));
        spans.fold(0, |sum, (wanted, (text, start, _))| {
            // Of many values few may be wanted, each in a line of its own; where they begin is needed in any case.
            let text = &self.0[text as usize..start as usize];
            let lines = if text.len() <= wanted.values * LINE { text.len().div_ceil(LINE) } else { 1 };
            sum ^ self.0[start as usize] ^ touch(text, lines)
        })
    }

    fn is_small(&self) -> bool {
        self.bytes() <= SMALL_LINES * LINE
    }

    /// Whether this is the same piece of memory.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// How many share it.
    #[cfg(test)]
    pub(super) fn shares(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    pub(super) fn is_of(&self, id: &EntityId) -> bool {
        self.0.first_chunk() == Some(&id.0)
    }

    pub(super) fn seen(&self) -> u64 {
        self.0[SEEN_AT..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// What is here, view by view.
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

    /// Where the row lies, if there is one.
    fn span(self) -> Option<Span> {
        let text = self.number(2);
        (text != NOWHERE).then(|| (text, self.number(3), self.number(4)))
    }

    #[inline]
    fn number(self, place: usize) -> u32 {
        self.0.as_chunks().0.get(place).map_or(0, |number| u32::from_le_bytes(*number))
    }
}

/// Looks at what lies in memory far away before anything is read of it. A processor waits for many lines at once then; later
/// it would wait for one by one, for what counts in others, and what chooses by what it reads, is in the way.
pub(super) fn look_ahead(entries: &[Option<&EntityRows>], views: &[Lookup]) {
    let entries = || entries.iter().flatten();
    let heads = entries().fold(0, |sum, rows| sum ^ rows.touch_first());
    let rows = entries().fold(0, |sum, rows| sum ^ rows.touch(views));
    std::hint::black_box(heads ^ rows);
}

/// Looks at the first lines of some bytes.
fn touch(bytes: &[u8], lines: usize) -> u8 {
    bytes.iter().step_by(LINE).take(lines).fold(0, |sum, byte| sum ^ byte)
}
