//! The feature rows of entity rows, however they were found.

use larder_model::codec::RowHeader;
use larder_store::Row;

use super::joined::Joined;

/// The feature rows of a part of the entity rows. `read` is an index in the plan's reads, and `row` is the index of an entity
/// row in the part.
pub(super) trait FoundRows: Sync {
    /// Returns whether the entity row has a complete key.
    fn has_key(&self, read: usize, row: usize) -> bool;

    /// Returns the header of the feature row; `None` if there is none.
    fn header(&self, read: usize, row: usize) -> Option<RowHeader>;

    /// Returns the feature row; `None` if there is none.
    fn row(&self, read: usize, row: usize) -> Option<Row>;
}

// === impl Joined ===

impl FoundRows for Joined {
    fn has_key(&self, read: usize, row: usize) -> bool {
        self.spines[self.reads[read].0].slot(row).is_some()
    }

    fn header(&self, read: usize, row: usize) -> Option<RowHeader> {
        let (key, found) = &self.reads[read];
        found.header(self.spines[*key].slot(row)?)
    }

    fn row(&self, read: usize, row: usize) -> Option<Row> {
        let (key, found) = &self.reads[read];
        found.row(self.spines[*key].slot(row)?)
    }
}
