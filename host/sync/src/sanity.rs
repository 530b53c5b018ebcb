//! Sanity checks of the rows that a source returns, so that broken data does not replace good data. A set of rows is
//! rejected if it has too many invalid rows or values, or if it would replace a set with far more or far fewer rows.

use larder_ingest::Skipped;

/// The limits of the sanity checks of a source. DynamoDB tables are not checked, because they already serve other
/// readers as an online store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SanityLimits {
    /// The maximum percentage of invalid rows, and the maximum percentage of invalid values of each feature.
    pub bad_percent_max: u64,
    /// The maximum percentage by which a replacing set may be smaller than the set that it replaces.
    pub shrink_percent_max: u64,
    /// The maximum ratio of the size of a replacing set to the size of the set that it replaces.
    pub growth_max: u64,
}

/// Sets with fewer rows are not checked, because a single row is a large part of them.
const ROWS_COMPARED: u64 = 10;

impl Default for SanityLimits {
    fn default() -> Self {
        Self { bad_percent_max: 1, shrink_percent_max: 90, growth_max: 10 }
    }
}

// === impl SanityLimits ===

impl SanityLimits {
    /// Turns all checks off.
    pub const OFF: Self = Self { bad_percent_max: 100, shrink_percent_max: 100, growth_max: u64::MAX };

    /// Checks how many rows of a set were skipped. `rows` is the number of all rows, including the skipped ones. The
    /// limit is rounded up to whole rows, so that one bad row does not fail a small set. A limit of 0 allows no bad
    /// rows. Sets with fewer than [`ROWS_COMPARED`] rows are not checked.
    ///
    /// # Errors
    /// The reason why the set is rejected.
    pub(super) fn check_skipped(self, skipped: &Skipped, rows: u64) -> Result<(), String> {
        let (bad, max) = (skipped.rows(), self.bad_percent_max);
        let allowed = (u128::from(rows) * u128::from(max)).div_ceil(100);
        if rows < ROWS_COMPARED || u128::from(bad) <= allowed {
            return Ok(());
        }
        Err(format!(
            "{bad} of {rows} rows are invalid ({skipped}), but 'sync: bad_percent_max' is {max}. hint: 'larder sync --force' loads the other rows"
        ))
    }

    /// Rejects a set in which too many values of a feature do not match its type, because good values would be replaced
    /// by nulls. `rows` is the number of rows in the set.
    ///
    /// # Errors
    /// The reason why the set is rejected.
    pub(super) fn check_values(self, skipped: &Skipped, rows: u64) -> Result<(), String> {
        let allowed = (u128::from(rows) * u128::from(self.bad_percent_max)).div_ceil(100);
        let is_too_much = |count: u64| rows >= ROWS_COMPARED && u128::from(count) > allowed;
        let Some(values) = skipped.values.iter().find(|values| is_too_much(values.count)) else { return Ok(()) };
        let (count, feature, example, max) = (values.count, &values.feature, &values.example, self.bad_percent_max);
        Err(format!(
            "{count} of {rows} values of feature '{feature}' do not match its type (the first: {example}), but 'sync: bad_percent_max' is {max}. hint: 'larder sync --force' sets them to null"
        ))
    }

    /// Checks the size of a set that would replace a set of `before` rows.
    ///
    /// # Errors
    /// The reason why the set is rejected.
    pub(super) fn check_size(self, before: u64, rows: u64) -> Result<(), String> {
        let kept = 100_u64.saturating_sub(self.shrink_percent_max);
        let (key, max) = if before < ROWS_COMPARED {
            return Ok(());
        } else if u128::from(rows) * 100 < u128::from(before) * u128::from(kept) {
            ("shrink_percent_max", self.shrink_percent_max)
        } else if rows > before.saturating_mul(self.growth_max) {
            ("growth_max", self.growth_max)
        } else {
            return Ok(());
        };
        Err(format!(
            "the new set has {rows} rows and the previous one has {before}, but 'sync: {key}' is {max}. hint: 'larder sync --force' accepts it"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(null_key: u64) -> Skipped {
        Skipped { null_key, ..Skipped::default() }
    }

    #[test]
    fn bad_rows_are_limited_by_share() {
        let limits = SanityLimits::default();
        for (bad, rows, is_taken) in [
            (200, 20_000, true),
            (201, 20_000, false),
            // The limit is rounded up to one row.
            (1, 10, true),
            (2, 10, false),
            (1, 80, true),
            (2, 80, false),
            (2, 101, true),
            (80, 80, false),
            // Sets of so few rows are not checked.
            (9, 9, true),
        ] {
            assert_eq!(limits.check_skipped(&skipped(bad), rows).is_ok(), is_taken, "{bad} of {rows}");
            assert_eq!(SanityLimits::OFF.check_skipped(&skipped(bad), rows), Ok(()));
        }
        let refused = limits.check_skipped(&skipped(201), 20_000).unwrap_err();
        assert!(refused.starts_with("201 of 20000 rows are invalid (201 with a null key)"), "{refused}");
        let none = SanityLimits { bad_percent_max: 0, ..limits };
        assert!(none.check_skipped(&skipped(1), 1_000_000_000).is_err());
    }

    #[test]
    fn size_is_checked_from_ten_rows() {
        let limits = SanityLimits::default();
        for (before, rows, is_taken) in [
            (1_000, 100, true),
            (1_000, 99, false),
            (1_000, 10_000, true),
            (1_000, 10_001, false),
            (80, 8, true),
            (80, 7, false),
            (80, 1, false),
            (80, 800, true),
            (80, 801, false),
            (10, 1, true),
            (10, 0, false),
            (10, 101, false),
            (9, 0, true),
            (9, 1_000_000, true),
            (0, 1_000_000, true),
        ] {
            assert_eq!(limits.check_size(before, rows).is_ok(), is_taken, "{before} to {rows}");
            assert_eq!(SanityLimits::OFF.check_size(before, rows), Ok(()));
        }
        let refused = limits.check_size(5_000, 3).unwrap_err();
        assert!(refused.contains("has 3 rows") && refused.contains("has 5000, but 'sync: shrink_percent_max' is 90"));
    }
}
