//! The feature rows of entity rows, however they were found.

use larder_model::codec::RowHeader;
use larder_store::Row;

use super::{joined::Joined, view_rows::ViewRows};

/// The feature rows of a part of the entity rows. `read` is an index in the plan's reads, and `row` is the index of an entity
/// row in the part.
pub(super) trait FoundRows: Sync {
    /// Returns the index in the set of the part's first row.
    fn first_row(&self) -> usize;

    /// Returns the size in bytes of the stored features of an entity row.
    fn row_bytes(&self, row: usize) -> u64;

    /// Returns a size that no entity row exceeds.
    fn row_bytes_max(&self) -> u64;

    /// Returns whether the entity row has a complete key.
    fn has_key(&self, read: usize, row: usize) -> bool;

    /// Returns the headers of the feature rows of these entity rows; `None` for an entity row without one.
    fn headers(&self, read: usize, rows: &[usize]) -> Vec<Option<RowHeader>>;

    /// Returns the feature row; `None` if there is none.
    fn row(&self, read: usize, row: usize) -> Option<Row>;
}

// === impl Joined ===

impl FoundRows for Joined {
    fn first_row(&self) -> usize {
        self.first_row
    }

    fn row_bytes(&self, row: usize) -> u64 {
        let bytes =
            |(key, rows): &(usize, ViewRows)| self.spines[*key].slot(row).map_or(0, |slot| rows.row_bytes(slot));
        self.reads.iter().map(bytes).sum()
    }

    fn row_bytes_max(&self) -> u64 {
        // As if each view's largest row belonged to the same entity row.
        self.reads.iter().map(|(_, rows)| rows.row_bytes_max()).sum()
    }

    fn has_key(&self, read: usize, row: usize) -> bool {
        self.spines[self.reads[read].0].slot(row).is_some()
    }

    fn headers(&self, read: usize, rows: &[usize]) -> Vec<Option<RowHeader>> {
        let (key, found) = &self.reads[read];
        let spine = &self.spines[*key];
        found.headers(rows.iter().map(|row| spine.slot(*row)))
    }

    fn row(&self, read: usize, row: usize) -> Option<Row> {
        let (key, found) = &self.reads[read];
        found.row(self.spines[*key].slot(row)?)
    }
}
