//! The rows that a caller sends, as columns of cells, and the errors that prevent writing them.

use std::fmt;

use larder_model::{codec::Cell, model::FeatureView};
use larder_store::StoreError;

/// Named columns, which must all have the same length: see [`Frame::rows`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frame {
    /// Each column's name and cells.
    pub columns: Vec<(String, Vec<Cell>)>,
}

/// Why a frame was not written. No row was written to the view that the error names. For a push to several views, see
/// [`super::RowWriter::push`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// There is no view with this name. The message is the same as Feast's.
    #[error("Can't recognize feast object with a name {view}")]
    UnknownView {
        /// The name.
        view: String,
    },
    /// No view has a push source with this name. The message is the same as Feast's.
    #[error("Unable to find push source '{source_name}'.")]
    UnknownPushSource {
        /// The name.
        source_name: String,
    },
    /// The columns have different lengths.
    #[error("column '{column}' has {found} values, but '{first}' has {expected}")]
    Ragged {
        /// The column.
        column: String,
        /// Its length.
        found: usize,
        /// The first column.
        first: String,
        /// Its length.
        expected: usize,
    },
    /// The frame does not have all columns that the view needs.
    #[error("feature view '{view}' needs {}, but the data has no such column", Columns(missing))]
    MissingColumns {
        /// The view.
        view: String,
        /// The missing columns.
        missing: Vec<String>,
    },
    /// A value cannot be written.
    #[error("feature view '{view}', column '{column}', row {row}: {why}")]
    Value {
        /// The view.
        view: String,
        /// The column.
        column: String,
        /// The number of the row, counted from 0.
        row: usize,
        /// The reason.
        why: String,
    },
    /// A row cannot be written, although each of its values is valid.
    #[error("feature view '{view}', row {row}: {why}")]
    Row {
        /// The view.
        view: String,
        /// The number of the row, counted from 0.
        row: usize,
        /// The reason.
        why: String,
    },
    /// The definitions changed during the write. The caller can repeat the same request.
    #[error("the definition of feature view '{view}' changed during the write; try again")]
    Superseded {
        /// The view.
        view: String,
    },
    /// The request is valid, but the store failed.
    #[error("feature view '{view}': {source}")]
    Store {
        /// The view.
        view: String,
        /// The error of the store.
        source: StoreError,
    },
}

struct Columns<'c>(&'c [String]);

// === impl Frame ===

impl Frame {
    /// Returns the number of rows.
    ///
    /// # Errors
    /// [`WriteError::Ragged`].
    pub fn rows(&self) -> Result<usize, WriteError> {
        let Some((first, cells)) = self.columns.first() else { return Ok(0) };
        let expected = cells.len();
        match self.columns.iter().find(|(_, cells)| cells.len() != expected) {
            None => Ok(expected),
            Some((column, cells)) => {
                Err(WriteError::Ragged { column: column.clone(), found: cells.len(), first: first.clone(), expected })
            }
        }
    }

    /// Returns the name and the cells of the column with this name. The returned name is borrowed from the frame.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<(&str, &[Cell])> {
        let found = self.columns.iter().find(|(column, _)| column == name);
        found.map(|(column, cells)| (column.as_str(), cells.as_slice()))
    }
}

// === impl WriteError ===

impl WriteError {
    /// Returns the kind of failure, as a metric label.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::UnknownView { .. } => "unknown_view",
            Self::UnknownPushSource { .. } => "unknown_push_source",
            Self::Ragged { .. } => "ragged",
            Self::MissingColumns { .. } => "missing_columns",
            Self::Value { .. } => "bad_value",
            Self::Row { .. } => "bad_row",
            Self::Superseded { .. } => "superseded",
            Self::Store { .. } => "store",
        }
    }

    /// Converts an error that the store returned for a write to a view.
    #[must_use]
    pub fn store(view: &FeatureView, source: StoreError) -> Self {
        let view = view.name.to_string();
        match source {
            StoreError::Superseded { .. } => Self::Superseded { view },
            source => Self::Store { view, source },
        }
    }
}

impl fmt::Display for Columns<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.0.iter().map(|name| format!("'{name}'")).collect();
        write!(f, "{} {}", if names.len() == 1 { "column" } else { "columns" }, names.join(", "))
    }
}
