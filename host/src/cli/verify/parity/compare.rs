//! Compares the bits of values.

use arrow::array::{Array, ArrayRef};

/// Returns for each row whether the values differ. Compares bits: `-0.0` differs from `0.0`, and a NaN equals only a NaN with
/// the same bits. Values of different types differ.
pub(super) fn differing(logged: &ArrayRef, computed: &ArrayRef) -> Vec<bool> {
    if logged.data_type() != computed.data_type() {
        return vec![true; logged.len()];
    }
    // Arrow compares the bytes of numbers.
    if logged == computed {
        return vec![false; logged.len()];
    }
    (0..logged.len()).map(|row| logged.slice(row, 1) != computed.slice(row, 1)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{BooleanArray, Float32Array, Float64Array, Int64Array, ListArray, StringArray},
        datatypes::Float64Type,
    };

    use super::*;

    fn assert_differing(logged: impl Array + 'static, computed: impl Array + 'static, expected: &[bool]) {
        let (logged, computed): (ArrayRef, ArrayRef) = (Arc::new(logged), Arc::new(computed));
        assert_eq!(differing(&logged, &computed), expected);
        assert_eq!(differing(&computed, &logged), expected);
        assert_eq!(differing(&logged, &logged), vec![false; expected.len()]);
    }

    #[test]
    fn bits_of_values_are_compared() {
        let payload = f64::from_bits(f64::NAN.to_bits() | 1);
        assert_differing(
            Float64Array::from(vec![Some(0.0), Some(f64::NAN), Some(f64::NAN), None, Some(1.0)]),
            Float64Array::from(vec![Some(-0.0), Some(payload), Some(f64::NAN), Some(0.0), Some(1.0)]),
            &[true, true, false, true, false],
        );
        assert_differing(Float32Array::from(vec![0.0, 1.0]), Float32Array::from(vec![-0.0, 1.0]), &[true, false]);
        assert_differing(
            BooleanArray::from(vec![Some(true), None]),
            BooleanArray::from(vec![Some(false), None]),
            &[true, false],
        );
        assert_differing(StringArray::from(vec!["", "a"]), StringArray::from(vec![None, Some("a")]), &[true, false]);
        assert_differing(Float64Array::from(vec![1.0]), Int64Array::from(vec![1]), &[true]);
        let lists = |rows: Vec<Option<Vec<Option<f64>>>>| ListArray::from_iter_primitive::<Float64Type, _, _>(rows);
        assert_differing(
            lists(vec![Some(vec![Some(0.0), Some(payload)]), Some(vec![]), None, Some(vec![None])]),
            lists(vec![Some(vec![Some(0.0), Some(f64::NAN)]), None, None, Some(vec![None])]),
            &[true, true, false, false],
        );
    }
}
