//! Divides the entity rows of a part into pieces whose answers have a limited size.

use std::ops::Range;

use super::{TrainingJob, found::FoundRows, part::Part};

/// Some rows of a batch, which are answered together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The index of the batch in the part.
    pub(super) batch: usize,
    /// The rows of the batch.
    pub(super) rows: Range<usize>,
    /// The index of the first row in the part.
    pub(super) first: usize,
}

/// The maximum size in bytes of the features that are answered together, unless those of a single row are larger. A plugin's
/// outputs are not counted: they have the limits of a call.
pub(super) const ANSWER_BYTES: u64 = 8 << 20;
/// The memory in bytes of a value in an array, without the contents of strings and lists.
const VALUE_BYTES: u64 = 16;

/// Returns the pieces of a part, in the order of its rows.
pub(super) fn pieces(job: &TrainingJob<'_>, part: &Part, found: &impl FoundRows) -> Vec<Piece> {
    let of_columns = VALUE_BYTES * job.historical.plan.feature_columns.len() as u64;
    let row_max = found.row_bytes_max().saturating_add(of_columns);
    let (mut pieces, mut first) = (Vec::with_capacity(part.batches.len()), 0);
    for (index, (batch, _)) in part.batches.iter().enumerate() {
        let rows = batch.num_rows();
        // The sizes of single rows matter only if there are large rows.
        let ends = if row_max.saturating_mul(rows as u64) <= ANSWER_BYTES {
            vec![rows]
        } else {
            ends((0..rows).map(|row| found.row_bytes(first + row).saturating_add(of_columns)))
        };
        let mut start = 0;
        for end in ends {
            pieces.push(Piece { batch: index, rows: start..end, first: first + start });
            start = end;
        }
        first += rows;
    }
    pieces
}

/// Divides rows of these sizes into pieces of at most [`ANSWER_BYTES`]; returns where the pieces end.
fn ends(sizes: impl ExactSizeIterator<Item = u64>) -> Vec<usize> {
    let (rows, mut sum, mut ends) = (sizes.len(), 0_u64, Vec::new());
    for (row, size) in sizes.enumerate() {
        sum = sum.saturating_add(size);
        if sum > ANSWER_BYTES && row > ends.last().copied().unwrap_or(0) {
            ends.push(row);
            sum = size;
        }
    }
    ends.push(rows);
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_have_at_most_their_bytes() {
        let half = ANSWER_BYTES / 2;
        let of = |sizes: &[u64]| ends(sizes.iter().copied());
        assert_eq!(of(&[half, half]), [2]);
        assert_eq!(of(&[half, half + 1]), [1, 2]);
        assert_eq!(of(&[1, half, half, 1]), [2, 4]);
        assert_eq!(of(&[ANSWER_BYTES + 1, ANSWER_BYTES + 1, u64::MAX]), [1, 2, 3]);
        assert_eq!(of(&[1, u64::MAX, 1]), [1, 2, 3]);
    }
}
