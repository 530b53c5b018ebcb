//! A value of any type, for tests.

use crate::Timestamp;

/// A value of an input or an output. It does not have the width of a number: `2` can be used for inputs of the types
/// Int32, Int64, Float32 and Float64.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// No value.
    #[default]
    Null,
    /// True or false.
    Bool(bool),
    /// An Int32 or an Int64.
    Int(i64),
    /// A Float32 or a Float64.
    Float(f64),
    /// Text.
    Text(String),
    /// Any bytes.
    Bytes(Vec<u8>),
    /// An instant.
    Time(Timestamp),
    /// A list.
    List(Vec<Self>),
}

impl Value {
    /// Returns whether the value is null.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Returns whether the values have the same bits. All NaNs count as the same: the host makes the bits of a computed
    /// NaN the same everywhere, and the machine that runs the test may not.
    pub(super) fn has_same_bits(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(),
            (Self::List(a), Self::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.has_same_bits(b)),
            _ => self == other,
        }
    }
}

macro_rules! from {
    ($($type:ty: $value:ident => $to:expr;)*) => {$(
        impl From<$type> for Value {
            fn from($value: $type) -> Self {
                $to
            }
        }

        impl PartialEq<$type> for Value {
            fn eq(&self, other: &$type) -> bool {
                let other = Self::from(other.clone());
                self == &other
            }
        }
    )*};
}

from! {
    bool: value => Self::Bool(value);
    i32: value => Self::Int(i64::from(value));
    i64: value => Self::Int(value);
    f32: value => Self::Float(f64::from(value));
    f64: value => Self::Float(value);
    &str: value => Self::Text(value.to_owned());
    String: value => Self::Text(value);
    &[u8]: value => Self::Bytes(value.to_vec());
    Timestamp: value => Self::Time(value);
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl<T: Into<Self>> From<Vec<T>> for Value {
    fn from(items: Vec<T>) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Self>, const N: usize> From<[T; N]> for Value {
    fn from(items: [T; N]) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Self> + Clone, const N: usize> PartialEq<[T; N]> for Value {
    fn eq(&self, other: &[T; N]) -> bool {
        let other = Self::from(other.clone());
        self == &other
    }
}
