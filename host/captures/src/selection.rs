//! Selects the rows of a call that are captured.

/// The maximum size in bytes of the rows of one call that are captured.
pub(crate) const CALL_BYTES_MAX: usize = 256 << 10;

/// Returns the rows to capture of a call, in ascending order. The first rows that failed come first; then the row before
/// and the row after each of them are added. Without failed rows, the first rows are returned. There are at most
/// `rows_max` rows, and the sum of their sizes (`bytes_of`) is at most [`CALL_BYTES_MAX`]. Larger rows are left out.
pub(crate) fn select(
    rows: usize,
    failed: impl Iterator<Item = usize>,
    rows_max: usize,
    bytes_of: impl Fn(usize) -> usize,
) -> Vec<usize> {
    let mut selected = Vec::new();
    let mut bytes = 0;
    let mut add = |row: usize| {
        if selected.len() == rows_max || selected.contains(&row) {
            return;
        }
        let size = bytes_of(row);
        if size <= CALL_BYTES_MAX - bytes {
            bytes += size;
            selected.push(row);
        }
    };
    // Rows that are left out for their size are few, so twice the number of rows is enough.
    let failed: Vec<usize> = failed.take(rows_max.saturating_mul(2)).collect();
    if failed.is_empty() {
        (0..rows.min(rows_max.saturating_mul(2))).for_each(&mut add);
    } else {
        failed.iter().for_each(|row| add(*row));
        for row in failed {
            [row.checked_sub(1), Some(row + 1).filter(|next| *next < rows)].into_iter().flatten().for_each(&mut add);
        }
    }
    selected.sort_unstable();
    selected
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(rows: usize, failed: &[usize], rows_max: usize) -> Vec<usize> {
        select(rows, failed.iter().copied(), rows_max, |_| 1)
    }

    #[test]
    fn failed_rows_come_before_their_neighbours() {
        assert_eq!(selected(100, &[50], 32), [49, 50, 51]);
        assert_eq!(selected(100, &[0, 99], 32), [0, 1, 98, 99]);
        assert_eq!(selected(100, &[10, 20, 30], 4), [9, 10, 20, 30]);
        assert_eq!(selected(100, &[10, 20, 30], 2), [10, 20]);
        assert_eq!(selected(1, &[0], 32), [0]);
        assert_eq!(selected(100, &[], 3), [0, 1, 2]);
        assert_eq!(selected(0, &[], 3), [0; 0]);
    }

    #[test]
    fn selected_rows_stay_within_byte_limit() {
        let sizes = |size: usize| select(9, 0..9, 9, |_| size).len();
        assert_eq!(sizes(CALL_BYTES_MAX / 9), 9);
        assert_eq!(sizes(CALL_BYTES_MAX / 9 + 1), 8);
        assert_eq!(sizes(CALL_BYTES_MAX + 1), 0);
        let large_first = |row: usize| if row == 0 { CALL_BYTES_MAX + 1 } else { 1 };
        assert_eq!(select(3, 0..3, 9, large_first), [1, 2], "a large row does not exclude others");
    }
}
