//! Compares two values of an output.

use larder_model::model::ValueRef;

use crate::value_text::same_bits;

/// The result of a comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Comparison {
    /// The values have the same bits, or both are null.
    Equal,
    /// Only the first value is null.
    NullToValue,
    /// Only the second value is null.
    ValueToNull,
    /// The values are numbers, or lists of numbers with equal lengths, that differ within the tolerance; and their
    /// largest difference.
    Within(f64),
    /// The values differ otherwise; and their largest difference, if both are finite numbers, or lists of finite numbers
    /// with equal lengths.
    Different(Option<f64>),
}

/// Compares two values. For the tolerance, see [`super::Diff::tolerance`].
pub(super) fn compare(old: ValueRef<'_>, new: ValueRef<'_>, tolerance: f64) -> Comparison {
    match (old, new) {
        (ValueRef::Null, ValueRef::Null) => return Comparison::Equal,
        (ValueRef::Null, _) => return Comparison::NullToValue,
        (_, ValueRef::Null) => return Comparison::ValueToNull,
        _ => {}
    }
    if same_bits(&old.to_value(), &new.to_value()) {
        return Comparison::Equal;
    }
    match (old, new) {
        (ValueRef::List(old), ValueRef::List(new)) if old.len() == new.len() => {
            let items = || old.iter().zip(new.iter());
            let largest = items().try_fold(0.0_f64, |largest, (old, new)| Some(largest.max(difference(old, new)?)));
            match largest {
                Some(largest) if items().all(|(old, new)| is_within_tolerance(old, new, tolerance)) => {
                    Comparison::Within(largest)
                }
                largest => Comparison::Different(largest),
            }
        }
        (old, new) => match difference(old, new) {
            Some(difference) if is_within_tolerance(old, new, tolerance) => Comparison::Within(difference),
            difference => Comparison::Different(difference),
        },
    }
}

/// Returns the difference of two finite numbers, which is 0 for values with the same bits, and for 0.0 and -0.0. Returns
/// `None` for other values.
fn difference(old: ValueRef<'_>, new: ValueRef<'_>) -> Option<f64> {
    if same_bits(&old.to_value(), &new.to_value()) {
        return Some(0.0);
    }
    let difference = (number(old)? - number(new)?).abs();
    difference.is_finite().then_some(difference)
}

fn is_within_tolerance(old: ValueRef<'_>, new: ValueRef<'_>, tolerance: f64) -> bool {
    let (Some(difference), largest) = (difference(old, new), |value| number(value).map_or(0.0, f64::abs)) else {
        return false;
    };
    // Two large integers can differ although their difference as floating-point numbers is 0.
    let is_rounded =
        difference == 0.0 && matches!((old, new), (ValueRef::Int64(old), ValueRef::Int64(new)) if old != new);
    !(is_rounded && tolerance == 0.0) && difference <= tolerance * largest(old).max(largest(new)).max(1.0)
}

#[expect(clippy::cast_precision_loss, reason = "the nearest double; equal values were found by their bits")]
fn number(value: ValueRef<'_>) -> Option<f64> {
    match value {
        ValueRef::Int32(value) => Some(f64::from(value)),
        ValueRef::Int64(value) => Some(value as f64),
        ValueRef::Float32(value) => Some(f64::from(value)),
        ValueRef::Float64(value) => Some(value),
        ValueRef::Null | ValueRef::Bool(_) | ValueRef::Bytes(_) | ValueRef::List(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use larder_model::model::Value;

    use super::*;

    fn float(old: f64, new: f64, tolerance: f64) -> Comparison {
        compare(ValueRef::Float64(old), ValueRef::Float64(new), tolerance)
    }

    #[test]
    fn change_of_one_ulp_is_found() {
        let next = f64::from_bits(0.1_f64.to_bits() + 1);
        assert_eq!(float(0.1, 0.1, 0.0), Comparison::Equal);
        assert_eq!(float(0.1, next, 0.0), Comparison::Different(Some(next - 0.1)));
        assert_eq!(float(0.1, next, 1e-15), Comparison::Within(next - 0.1));
    }

    #[test]
    fn tolerance_is_relative_above_one() {
        assert_eq!(float(0.0, 1e-6, 1e-6), Comparison::Within(1e-6));
        assert_eq!(float(0.0, 1.1e-6, 1e-6), Comparison::Different(Some(1.1e-6)));
        assert_eq!(float(1e6, 1e6 + 1.0, 1e-6), Comparison::Within(1.0));
        assert_eq!(float(1e6, 1e6 + 1.1, 1e-6), Comparison::Different(Some(1e6 + 1.1 - 1e6)));
    }

    #[test]
    fn special_numbers_are_compared_by_bits() {
        assert_eq!(float(f64::NAN, f64::NAN, 0.0), Comparison::Equal);
        assert_eq!(float(f64::NAN, 1.0, 1.0), Comparison::Different(None));
        assert_eq!(float(f64::INFINITY, 1.0, 1.0), Comparison::Different(None));
        assert_eq!(float(0.0, -0.0, 0.0), Comparison::Within(0.0), "the difference is 0, but the bits differ");
    }

    #[test]
    fn nulls_are_counted_by_direction() {
        let one = ValueRef::Int32(1);
        assert_eq!(compare(ValueRef::Null, ValueRef::Null, 0.0), Comparison::Equal);
        assert_eq!(compare(ValueRef::Null, one, 0.0), Comparison::NullToValue);
        assert_eq!(compare(one, ValueRef::Null, 0.0), Comparison::ValueToNull);
    }

    #[test]
    fn large_integers_are_compared_exactly() {
        let big = i64::MAX;
        let compared = |tolerance| compare(ValueRef::Int64(big), ValueRef::Int64(big - 1), tolerance);
        assert_eq!(compared(0.0), Comparison::Different(Some(0.0)));
        assert_eq!(compared(1e-15), Comparison::Within(0.0));
    }

    #[test]
    fn text_and_bools_have_no_difference() {
        let text = |text: &'static str| ValueRef::Bytes(text.as_bytes());
        assert_eq!(compare(text("a"), text("a"), 1.0), Comparison::Equal);
        assert_eq!(compare(text("a"), text("b"), 1.0), Comparison::Different(None));
        assert_eq!(compare(ValueRef::Bool(true), ValueRef::Bool(false), 1.0), Comparison::Different(None));
    }

    #[test]
    fn lists_are_compared_item_by_item() {
        let list = |items: &[f64]| Value::List(items.iter().map(|item| Value::Float64(*item)).collect());
        let compared = |old: &[f64], new: &[f64], tolerance| {
            let (old, new) = (list(old), list(new));
            compare_lists(&old, &new, tolerance)
        };
        assert_eq!(compared(&[1.0, 2.0], &[1.0, 2.0], 0.0), Comparison::Equal);
        assert_eq!(compared(&[1.0, 2.0], &[1.5, 2.25], 0.5), Comparison::Within(0.5));
        assert_eq!(compared(&[1.0, 2.0], &[1.0, 4.0], 0.1), Comparison::Different(Some(2.0)));
        assert_eq!(compared(&[1.0, 2.0], &[1.0], 10.0), Comparison::Different(None));
    }

    /// Compares lists that are encoded as in stored rows.
    fn compare_lists(old: &Value, new: &Value, tolerance: f64) -> Comparison {
        use larder_model::{
            codec::RowView,
            model::{ScalarType, ValueType},
        };
        let schema = larder_model::codec::RowSchema::new([("l".into(), ValueType::List(ScalarType::Float64))]);
        let row = |value: &Value| {
            let mut builder = larder_model::codec::RowBuilder::new(&schema);
            builder.begin(0, None);
            builder.push_value(value).unwrap();
            builder.finish().unwrap().to_vec()
        };
        let (old, new) = (row(old), row(new));
        let get = |row| RowView::new(&schema, row).unwrap().get(0).unwrap();
        compare(get(&old), get(&new), tolerance)
    }
}
