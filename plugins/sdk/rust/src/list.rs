//! Lists and the items of a column, borrowed from the frame that the host sent.

use std::borrow::Cow;

use crate::{
    __private::types::ScalarType,
    Timestamp,
    frame::{Frame, Part, words},
    input::{FrameError, Reader},
};

/// A list of values. Items can be null if their type is an `Option`: `List<'a, Option<f64>>`.
pub struct List<'a, T: Item<'a>> {
    items: T::Values,
    start: usize,
    end: usize,
}

/// The items of a [`List`], in order.
pub struct Items<'a, T: Item<'a>> {
    list: List<'a, T>,
}

/// A type of the values of a column, and of the items of a list.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the type of a list's items",
    label = "not a type of a list's items",
    note = "items are bool, i32, i64, f32, f64, &str, String, &[u8], Vec<u8> and Timestamp; use Option for an item that \
            may be null"
)]
pub trait Item<'a>: Sized + 'a {
    /// The contract's name of the type.
    #[doc(hidden)]
    const SCALAR: ScalarType;
    /// Whether an item can be null.
    #[doc(hidden)]
    const NULLABLE: bool;
    /// All items of a column.
    #[doc(hidden)]
    type Values: Copy;

    /// Returns the next `count` items of a part of a frame. Checks them here, so that `at` need not.
    #[doc(hidden)]
    fn values(frame: &mut Frame<'a>, part: Part, count: usize) -> Result<Self::Values, FrameError>;

    /// Returns item `i`, which must exist.
    #[doc(hidden)]
    fn at(values: Self::Values, i: usize) -> Self;
}

/// A type of items that are not null. With this trait, an item can have at most one `Option`:
///
/// ```compile_fail
/// #[derive(larder_plugin::Inputs)]
/// struct Nested {
///     items: Vec<Option<Option<f64>>>,
/// }
/// ```
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`Option<{Self}>` cannot be the type of a list's items",
    label = "not a type of a list's items",
    note = "items are bool, i32, i64, f32, f64, &str, String, &[u8], Vec<u8> and Timestamp, with at most one Option"
)]
pub trait Scalar {}

/// A type whose items have the same memory layout in the frame and in Rust.
#[diagnostic::on_unimplemented(
    message = "a list of `{Self}` cannot be read as a slice",
    label = "not a number",
    note = "slices have items of type i32, i64, f32 or f64; use `List<_>` or `Vec<_>` for other types"
)]
pub trait Number: for<'a> Item<'a, Values = &'a [Self]> + Copy {}

/// The texts or byte strings of a column.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Slots<'a, D> {
    ends: &'a [u32],
    data: D,
}

// === impl List ===

impl<'a, T: Item<'a>> List<'a, T> {
    /// Returns the list of the items from `start` to `end`, which must exist.
    pub(crate) fn new(items: T::Values, start: usize, end: usize) -> Self {
        Self { items, start, end }
    }

    /// Returns the number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Returns whether there are no items.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Returns item `i`, or `None` if the list is shorter.
    #[must_use]
    pub fn get(&self, i: usize) -> Option<T> {
        (i < self.len()).then(|| T::at(self.items, self.start + i))
    }

    /// Returns the items in order.
    #[must_use]
    pub fn iter(&self) -> Items<'a, T> {
        Items { list: *self }
    }
}

impl<'a, T: Number> List<'a, T> {
    /// Returns the items as a slice.
    #[must_use]
    pub fn as_slice(&self) -> &'a [T] {
        self.items.get(self.start..self.end).unwrap_or_default()
    }
}

impl<'a, T: Item<'a>> Clone for List<'a, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<'a, T: Item<'a>> Copy for List<'a, T> {}

impl<'a, T: Item<'a> + std::fmt::Debug> std::fmt::Debug for List<'a, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a, T: Item<'a>> IntoIterator for List<'a, T> {
    type Item = T;
    type IntoIter = Items<'a, T>;

    fn into_iter(self) -> Items<'a, T> {
        self.iter()
    }
}

// === impl Items ===

impl<'a, T: Item<'a>> Iterator for Items<'a, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let item = self.list.get(0)?;
        self.list.start += 1;
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.list.len(), Some(self.list.len()))
    }
}

impl<'a, T: Item<'a>> ExactSizeIterator for Items<'a, T> {}

impl<'a, T: Item<'a> + std::fmt::Debug> std::fmt::Debug for Items<'a, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.list.fmt(f)
    }
}

// === impl Item ===

macro_rules! fixed {
    ($($type:ty: $scalar:ident, $raw:ty, $read:expr;)*) => {$(
        impl Scalar for $type {}

        impl<'a> Item<'a> for $type {
            const SCALAR: ScalarType = ScalarType::$scalar;
            const NULLABLE: bool = false;
            type Values = &'a [$raw];

            #[inline]
            fn values(frame: &mut Frame<'a>, part: Part, count: usize) -> Result<Self::Values, FrameError> {
                frame.take(part, count)
            }

            #[inline]
            fn at(values: Self::Values, i: usize) -> Self {
                let read: fn($raw) -> Self = $read;
                read(values[i])
            }
        }
    )*};
}

fixed! {
    bool: Bool, u8, |value| value != 0;
    i32: Int32, i32, |value| value;
    i64: Int64, i64, |value| value;
    f32: Float32, f32, |value| value;
    f64: Float64, f64, |value| value;
    Timestamp: Timestamp, i64, Timestamp;
}

impl Number for i32 {}
impl Number for i64 {}
impl Number for f32 {}
impl Number for f64 {}

macro_rules! variable {
    ($($type:ty: $scalar:ident, $data:ty, $open:expr, $read:expr;)*) => {$(
        impl<'a> Item<'a> for $type {
            const SCALAR: ScalarType = ScalarType::$scalar;
            const NULLABLE: bool = false;
            type Values = Slots<'a, &'a $data>;

            fn values(frame: &mut Frame<'a>, part: Part, count: usize) -> Result<Self::Values, FrameError> {
                let (ends, bytes) = frame.ends(part, count)?;
                $open(ends, frame.take(Part::Tail, bytes)?)
            }

            #[inline]
            fn at(values: Self::Values, i: usize) -> Self {
                let (start, end) = bounds(values.ends, i);
                let read: fn(&'a $data) -> Self = $read;
                read(values.data.get(start..end).unwrap_or_default())
            }
        }
    )*};
}

variable! {
    &'a str: Utf8, str, texts, |text| text;
    String: Utf8, str, texts, str::to_owned;
    &'a [u8]: Binary, [u8], bytes, |bytes| bytes;
    Vec<u8>: Binary, [u8], bytes, <[u8]>::to_vec;
}

impl Scalar for &str {}
impl Scalar for String {}
impl Scalar for Cow<'_, str> {}
impl Scalar for &[u8] {}
impl Scalar for Vec<u8> {}

impl<'a, T: Item<'a> + Scalar> Item<'a> for Option<T> {
    const SCALAR: ScalarType = T::SCALAR;
    const NULLABLE: bool = true;
    type Values = Reader<'a, T::Values>;

    fn values(frame: &mut Frame<'a>, part: Part, count: usize) -> Result<Self::Values, FrameError> {
        let presence = frame.take(part, words(count))?;
        Ok(Reader::new(presence, T::values(frame, part, count)?, count))
    }

    #[inline]
    fn at(items: Self::Values, i: usize) -> Self {
        items.is_present(i).then(|| T::at(items.values, i))
    }
}

/// Checks that all texts are UTF-8, and that each one ends at a character boundary.
fn texts<'a>(ends: &'a [u32], data: &'a [u8]) -> Result<Slots<'a, &'a str>, FrameError> {
    let data = std::str::from_utf8(data).map_err(|_| FrameError::Utf8)?;
    if !ends.iter().all(|end| data.is_char_boundary(*end as usize)) {
        return Err(FrameError::Utf8);
    }
    Ok(Slots { ends, data })
}

#[expect(clippy::unnecessary_wraps, reason = "same signature as `texts`")]
fn bytes<'a>(ends: &'a [u32], data: &'a [u8]) -> Result<Slots<'a, &'a [u8]>, FrameError> {
    Ok(Slots { ends, data })
}

/// Returns the start and the end of slot `i`.
#[inline]
pub(crate) fn bounds(ends: &[u32], i: usize) -> (usize, usize) {
    let start = if i == 0 { 0 } else { ends[i - 1] };
    (start as usize, ends[i] as usize)
}
