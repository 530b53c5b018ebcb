//! Lists, borrowed from the column that they came in.

use crate::{__private::types::Scalars, Timestamp};

/// A list of values. Items are never null.
#[derive(Clone, Copy, Debug)]
pub struct List<'a, T> {
    pub(crate) items: &'a Scalars,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) of: std::marker::PhantomData<T>,
}

/// The items of a [`List`].
#[derive(Clone, Debug)]
pub struct Items<'a, T> {
    list: List<'a, T>,
}

/// A type that lists hold.
pub trait Item<'a>: Sized + Copy {
    /// Item `i` of a column of this type.
    #[doc(hidden)]
    fn at(items: &'a Scalars, i: usize) -> Option<Self>;

    /// Items as they lie in memory, where they do.
    #[doc(hidden)]
    fn slice(_items: &'a Scalars) -> Option<&'a [Self]> {
        None
    }
}

impl<'a, T: Item<'a>> List<'a, T> {
    /// How many items there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there is no item.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Item `i`, if there are so many.
    #[must_use]
    pub fn get(&self, i: usize) -> Option<T> {
        if i < self.len() { T::at(self.items, self.start + i) } else { None }
    }

    /// The items in order.
    #[must_use]
    pub fn iter(&self) -> Items<'a, T> {
        Items { list: *self }
    }

    /// The items as a slice: numbers have one, booleans and texts have none.
    #[must_use]
    pub fn as_slice(&self) -> Option<&'a [T]> {
        T::slice(self.items)?.get(self.start..self.end)
    }
}

impl<'a, T: Item<'a>> IntoIterator for List<'a, T> {
    type Item = T;
    type IntoIter = Items<'a, T>;

    fn into_iter(self) -> Items<'a, T> {
        self.iter()
    }
}

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

macro_rules! numbers {
    ($($type:ty: $case:ident;)*) => {$(
        impl<'a> Item<'a> for $type {
            fn at(items: &'a Scalars, i: usize) -> Option<Self> {
                if let Scalars::$case(values) = items { values.get(i).copied() } else { None }
            }

            fn slice(items: &'a Scalars) -> Option<&'a [Self]> {
                if let Scalars::$case(values) = items { Some(values) } else { None }
            }
        }
    )*};
}

numbers! {
    i32: Int32s;
    i64: Int64s;
    f32: Float32s;
    f64: Float64s;
}

impl<'a> Item<'a> for bool {
    fn at(items: &'a Scalars, i: usize) -> Option<Self> {
        if let Scalars::Bools(values) = items { values.get(i).map(|value| *value != 0) } else { None }
    }
}

impl<'a> Item<'a> for Timestamp {
    fn at(items: &'a Scalars, i: usize) -> Option<Self> {
        if let Scalars::Timestamps(values) = items { values.get(i).copied().map(Self) } else { None }
    }
}

impl<'a> Item<'a> for &'a str {
    fn at(items: &'a Scalars, i: usize) -> Option<Self> {
        let Scalars::Strings(var) = items else { return None };
        std::str::from_utf8(slot(&var.ends, &var.data, i)?).ok()
    }
}

impl<'a> Item<'a> for &'a [u8] {
    fn at(items: &'a Scalars, i: usize) -> Option<Self> {
        let Scalars::Binaries(var) = items else { return None };
        slot(&var.ends, &var.data, i)
    }
}

/// Slot `i` of values of any width.
pub(crate) fn slot<'a>(ends: &[u32], data: &'a [u8], i: usize) -> Option<&'a [u8]> {
    let start = if i == 0 { 0 } else { *ends.get(i - 1)? };
    data.get(start as usize..*ends.get(i)? as usize)
}
