//! Validates the frame that a plugin returned, before any value is read from it.
//!
//! The bytes of the frame are untrusted. The validation first computes the offsets of all parts, and checks that the
//! parts are within the bytes. Then it checks the contents of each column.

use larder_model::model::ValueRef;

use super::{
    ColumnRef, Frame, FrameBuilder, Parts, ValueSlice,
    layout::{ALIGN, end_at, has_ends, is_set, padded, presence_len, slot_width, start_at, width, words},
};
use crate::{ColumnScalar, ColumnType, Field};

/// The reason why a column that a plugin returned is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ColumnFault {
    /// Values of another type.
    #[error("is {found}, but was declared as {declared}")]
    Type {
        /// The returned type.
        found: ColumnType,
        /// The declared type.
        declared: ColumnType,
    },
    /// Too few or too many slots.
    #[error("has {found} slots for {rows} rows")]
    Length {
        /// Returned slots.
        found: usize,
        /// Rows of the call.
        rows: usize,
    },
    /// Ends that decrease, or that do not match the size of the data.
    #[error("has ends that decrease or do not match its data")]
    Ends,
    /// Text that is not valid UTF-8.
    #[error("has text that is not UTF-8")]
    Utf8,
    /// A bool that is neither 0 nor 1.
    #[error("has a bool that is neither 0 nor 1")]
    Bool,
    /// A validity bitmap of the wrong size, or with bits set beyond the last row.
    #[error("has a validity bitmap that does not match {rows} rows")]
    Validity {
        /// Rows of the call.
        rows: usize,
    },
    /// Presence bits of list items that are set beyond the last item.
    #[error("has presence bits that do not match its {items} list items")]
    ItemPresence {
        /// The items of all lists.
        items: usize,
    },
    /// A failed row with a value.
    #[error("has a value in row {row}, which failed")]
    FailedValue {
        /// The index of the row.
        row: usize,
    },
    /// Nulls in a column that is declared not nullable.
    #[error("has a null, but was declared not nullable")]
    Null,
    /// The returned bytes end before the column does.
    #[error("is truncated: the returned bytes end before it does")]
    Cut,
    /// Padding that is not zero.
    #[error("has padding that is not zero: are its ends too small?")]
    Padding,
}

/// Why bytes are not a valid frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FrameFault {
    /// The column at this index is invalid.
    Column(usize, ColumnFault),
    /// This many bytes follow the last column.
    Surplus(usize),
}

/// Computes the offsets of the parts of a frame, one column after another.
struct Parser<'f> {
    bytes: &'f [u8],
    heads: Cursor,
    tails: Cursor,
}

/// The range of bytes that is not assigned to a column yet.
struct Cursor {
    at: usize,
    end: usize,
}

/// Validates the bytes as a frame with one column for each field, and returns the frame. Clears the values in the slots
/// of null rows and null items. All values of the rows `failed`, which are in ascending order, must be null.
///
/// # Errors
/// The first fault. The parts of all columns are checked before the contents of any column.
pub(crate) fn read(bytes: Vec<u8>, fields: &[Field], rows: usize, failed: &[usize]) -> Result<Frame, FrameFault> {
    let columns = locate(&bytes, fields, rows)?;
    let mut frame = Frame { bytes, rows, columns };
    for (index, field) in fields.iter().enumerate() {
        let faulty = |fault| FrameFault::Column(index, fault);
        let column = frame.column(index);
        let has_nulls = check_contents(column, field.nullable, failed).map_err(faulty)?;
        let has_null_items = column.item_presence().iter().map(|byte| byte.count_ones() as usize).sum::<usize>()
            != if column.column_type().nullable_items { column.values().len() } else { 0 };
        (frame.columns[index].has_nulls, frame.columns[index].has_null_items) = (has_nulls, has_null_items);
    }
    // The slots of nulls must be zero or empty when a column of this frame becomes the input of another plugin. If
    // this plugin left values in them, they are cleared.
    if frame.columns().all(has_empty_nulls) { Ok(frame) } else { Ok(with_empty_nulls(&frame)) }
}

/// Computes the offsets of the parts of all columns. Checks that the parts take exactly all of the bytes, and that
/// padding is zero. Does not check the contents of the parts.
fn locate(bytes: &[u8], fields: &[Field], rows: usize) -> Result<Vec<Parts>, FrameFault> {
    let heads = fields.iter().map(|field| presence_len(rows) + padded(rows * slot_width(field.column_type)));
    // If the frame is too short, the first column that does not fit reports it.
    let heads = heads.sum::<usize>().min(bytes.len());
    let (heads, tails) = (Cursor { at: 0, end: heads }, Cursor { at: heads, end: bytes.len() });
    let mut parser = Parser { bytes, heads, tails };
    let columns = fields
        .iter()
        .enumerate()
        .map(|(index, field)| parser.column(field.column_type, rows).map_err(|fault| FrameFault::Column(index, fault)));
    let columns = columns.collect::<Result<_, _>>()?;
    match parser.heads.left() + parser.tails.left() {
        0 => Ok(columns),
        bytes => Err(FrameFault::Surplus(bytes)),
    }
}

// === impl Parser ===

impl Parser<'_> {
    fn column(&mut self, column_type: ColumnType, rows: usize) -> Result<Parts, ColumnFault> {
        let ColumnType { scalar, is_list, .. } = column_type;
        let bytes = self.bytes;
        let presence = self.heads.take(bytes, words(rows), 8)?;
        let beyond = &bytes[presence..][..presence_len(rows)][rows.div_ceil(8)..];
        if beyond.iter().any(|byte| *byte != 0) {
            return Err(ColumnFault::Validity { rows });
        }
        let slots = self.heads.take(bytes, rows, slot_width(column_type))?;
        let count = if is_list { start_at(&bytes[slots..], rows) } else { rows };
        let mut item_presence = 0;
        if column_type.nullable_items {
            item_presence = self.tails.take(bytes, words(count), ALIGN)?;
            let beyond = &bytes[item_presence..][..presence_len(count)][count.div_ceil(8)..];
            if beyond.iter().any(|byte| *byte != 0) {
                return Err(ColumnFault::ItemPresence { items: count });
            }
        }
        let items = if is_list { self.tails.take(bytes, count, width(scalar))? } else { slots };
        let data =
            if has_ends(scalar) { self.tails.take(bytes, start_at(&bytes[items..], count), 1)? } else { self.tails.at };
        Ok(Parts {
            column_type,
            presence,
            slots,
            item_presence,
            items,
            data,
            has_nulls: true,
            has_null_items: column_type.nullable_items,
        })
    }
}

// === impl Cursor ===

impl Cursor {
    fn left(&self) -> usize {
        self.end - self.at
    }

    /// Takes the next `count` values of `width` bytes each, with their padding. Returns the offset of the first value.
    fn take(&mut self, bytes: &[u8], count: usize, width: usize) -> Result<usize, ColumnFault> {
        let values = count.checked_mul(width).ok_or(ColumnFault::Cut)?;
        let with_padding = values.checked_next_multiple_of(ALIGN).ok_or(ColumnFault::Cut)?;
        if with_padding > self.left() {
            return Err(ColumnFault::Cut);
        }
        let at = self.at;
        self.at += with_padding;
        let padding = &bytes[at + values..self.at];
        // A later version of the contract may use the padding. A host that accepts any padding would not notice that.
        if padding.iter().any(|byte| *byte != 0) { Err(ColumnFault::Padding) } else { Ok(at) }
    }
}

/// Checks the contents of a column. Returns whether it has nulls.
fn check_contents(column: ColumnRef<'_>, nullable: bool, failed: &[usize]) -> Result<bool, ColumnFault> {
    let (rows, values) = (column.rows(), column.values());
    check_values(values)?;
    if column.column_type().is_list {
        check_ends(column.list_ends(0..rows), values.len())?;
    }
    let items = if column.column_type().nullable_items { values.len() } else { 0 };
    check_presence(column.item_presence(), items, items).map_err(|_| ColumnFault::ItemPresence { items })?;
    if let Some(row) = failed.iter().find(|row| is_set(column.presence(), **row)) {
        return Err(ColumnFault::FailedValue { row: *row });
    }
    // If the column is not nullable, the failed rows must be its only nulls.
    check_presence(column.presence(), rows, if nullable { rows } else { failed.len() })
}

/// Checks a validity bitmap of `rows.div_ceil(8)` bytes with at most `nulls_max` nulls. Returns whether any row is null.
pub(crate) fn check_presence(presence: &[u8], rows: usize, nulls_max: usize) -> Result<bool, ColumnFault> {
    let is_stray = match (presence.last(), rows % 8) {
        (Some(last), used @ 1..) => last >> used != 0,
        _ => false,
    };
    if is_stray {
        return Err(ColumnFault::Validity { rows });
    }
    let present: usize = presence.iter().map(|byte| byte.count_ones() as usize).sum();
    if rows - present > nulls_max { Err(ColumnFault::Null) } else { Ok(present != rows) }
}

fn check_values(values: ValueSlice<'_>) -> Result<(), ColumnFault> {
    let all = 0..values.len();
    match values.scalar() {
        ColumnScalar::Bool => check_bools(values.slots(all)),
        ColumnScalar::Utf8 => check_text(values.ends(all), values.all_data()),
        ColumnScalar::Binary => check_ends(values.ends(all), values.all_data().len()),
        _ => Ok(()),
    }
}

/// Checks that each bool is 0 or 1.
pub(crate) fn check_bools(values: &[u8]) -> Result<(), ColumnFault> {
    if values.iter().any(|value| *value > 1) { Err(ColumnFault::Bool) } else { Ok(()) }
}

/// Checks that the ends are valid, and that each text between them is UTF-8.
pub(crate) fn check_text(ends: impl DoubleEndedIterator<Item = u32> + Clone, data: &[u8]) -> Result<(), ColumnFault> {
    check_ends(ends.clone(), data.len())?;
    let text = std::str::from_utf8(data).map_err(|_| ColumnFault::Utf8)?;
    let mut ends = ends.map(|end| end as usize);
    if ends.all(|end| text.is_char_boundary(end)) { Ok(()) } else { Err(ColumnFault::Utf8) }
}

/// Checks that ends never decrease, and that the last end is `len`, the total number of bytes or items.
pub(crate) fn check_ends(ends: impl DoubleEndedIterator<Item = u32> + Clone, len: usize) -> Result<(), ColumnFault> {
    let last = ends.clone().next_back().map_or(0, |end| end as usize);
    if ends.is_sorted() && last == len { Ok(()) } else { Err(ColumnFault::Ends) }
}

/// Returns whether the slots of all null rows and null items are zero or, if they hold ends, empty.
fn has_empty_nulls(column: ColumnRef<'_>) -> bool {
    let (slots, width) = (column.slots(), slot_width(column.column_type()));
    let has_row_ends = column.column_type().is_list || has_ends(column.column_type().scalar);
    let is_empty = |slots: &[u8], width: usize, has_ends: bool, i: usize| {
        if has_ends {
            end_at(slots, i) == start_at(slots, i)
        } else {
            slots[i * width..(i + 1) * width].iter().all(|byte| *byte == 0)
        }
    };
    let (items, item_width) = (column.values(), self::width(column.column_type().scalar));
    let item_slots = items.slots(0..items.len());
    column.nulls().all(|row| is_empty(slots, width, has_row_ends, row))
        && column.null_items().all(|item| is_empty(item_slots, item_width, has_ends(items.scalar()), item))
}

/// Copies a frame, and clears the slots of null rows and null items.
fn with_empty_nulls(frame: &Frame) -> Frame {
    let mut clean = FrameBuilder::new(frame.columns().map(ColumnRef::column_type), frame.rows());
    for column in frame.columns() {
        clean.column(|to| {
            for row in 0..frame.rows() {
                if !column.is_present(row) {
                    to.push(ValueRef::Null);
                } else if column.has_null_items() {
                    to.push_list(column.items(row..row + 1).map(|item| column.item(item)));
                } else {
                    to.append(column, row..row + 1);
                }
            }
        });
    }
    clean.finish()
}
