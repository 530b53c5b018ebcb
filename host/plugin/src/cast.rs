//! Casts inputs of a view to the types that its plugin declares, if no information can be lost.
//!
//! The types are checked when the plugin is bound: integers cast to wider integers and to doubles, and floats to doubles.
//! An `Int64` casts to a double if the double has exactly its value. A row with another value fails.

use larder_model::model::ValueRef;

use super::ColumnScalar;

/// The number of whole numbers from zero on that doubles represent exactly: 2^53.
const EXACT: u64 = 1 << 53;

// === impl ColumnScalar ===

impl ColumnScalar {
    /// Returns whether values of this type can be passed to an input of type `to`.
    #[must_use]
    pub fn casts_to(self, to: Self) -> bool {
        self == to
            || matches!(
                (self, to),
                (Self::Int32, Self::Int64 | Self::Float64) | (Self::Int64 | Self::Float32, Self::Float64)
            )
    }
}

/// Converts a value to a type to which its own type casts. Returns `None` if the value would change, and for values of
/// other types. A null stays a null.
#[must_use]
pub fn cast<'v>(value: ValueRef<'v>, to: ColumnScalar) -> Option<ValueRef<'v>> {
    match (value, to) {
        (ValueRef::Int32(value), ColumnScalar::Int64) => Some(ValueRef::Int64(value.into())),
        (ValueRef::Int32(value), ColumnScalar::Float64) => Some(ValueRef::Float64(value.into())),
        (ValueRef::Float32(value), ColumnScalar::Float64) => Some(ValueRef::Float64(value.into())),
        (ValueRef::Int64(value), ColumnScalar::Float64) => exact(value).map(ValueRef::Float64),
        (ValueRef::Null, _)
        | (ValueRef::Bool(_), ColumnScalar::Bool)
        | (ValueRef::Int32(_), ColumnScalar::Int32)
        | (ValueRef::Int64(_), ColumnScalar::Int64 | ColumnScalar::Timestamp)
        | (ValueRef::Float32(_), ColumnScalar::Float32)
        | (ValueRef::Float64(_), ColumnScalar::Float64)
        | (ValueRef::Bytes(_), ColumnScalar::Utf8 | ColumnScalar::Binary) => Some(value),
        _ => None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "only numbers that doubles represent exactly")]
fn exact(value: i64) -> Option<f64> {
    let magnitude = value.unsigned_abs();
    let fits = magnitude <= EXACT || magnitude >> (magnitude.ilog2() - 52) << (magnitude.ilog2() - 52) == magnitude;
    fits.then_some(value as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_have_exact_integers_only() {
        for value in [0, 1, -1, i64::from(i32::MIN), 1 << 53, -(1 << 53), (1 << 53) + 2, i64::MIN, 1 << 62] {
            #[expect(clippy::cast_precision_loss, reason = "the expected value")]
            let expected = ValueRef::Float64(value as f64);
            assert_eq!(cast(ValueRef::Int64(value), ColumnScalar::Float64), Some(expected), "{value}");
        }
        for value in [(1 << 53) + 1, -(1 << 53) - 1, i64::MAX, i64::MIN + 1, (1 << 60) + 1] {
            assert_eq!(cast(ValueRef::Int64(value), ColumnScalar::Float64), None, "{value}");
        }
    }

    #[test]
    fn only_lossless_types_cast() {
        use ColumnScalar::{Bool, Float32, Float64, Int32, Int64, Timestamp, Utf8};
        for (from, to) in [(Int32, Int64), (Int32, Float64), (Int64, Float64), (Float32, Float64), (Utf8, Utf8)] {
            assert!(from.casts_to(to), "{from:?} to {to:?}");
        }
        for (from, to) in [(Int64, Int32), (Int32, Float32), (Float64, Int64), (Bool, Int32), (Timestamp, Int64)] {
            assert!(!from.casts_to(to), "{from:?} to {to:?}");
        }
        assert_eq!(cast(ValueRef::Int32(-7), Int64), Some(ValueRef::Int64(-7)));
        assert_eq!(cast(ValueRef::Float32(0.1), Float64), Some(ValueRef::Float64(f64::from(0.1_f32))));
        assert_eq!(cast(ValueRef::Null, Int64), Some(ValueRef::Null));
        assert_eq!(cast(ValueRef::Bool(true), Int64), None);
    }
}
