//! Rows that callers write: columns of loosely typed cells, and what can be wrong with them.

use std::fmt;

use larder_model::{codec::Cell, model::FeatureView};
use larder_store::StoreError;

/// Columns by name, which should have one length: see [`Frame::rows`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frame {
    /// Each column's name and cells.
    pub columns: Vec<(String, Vec<Cell>)>,
}

/// Why a table cannot be written. No row of it was written to the view of the error; see [`super::RowWriter::push`] for
/// several views.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// There is no such view. The words are Feast's.
    #[error("Can't recognize feast object with a name {view}")]
    UnknownView {
        /// The name.
        view: String,
    },
    /// No view has such a push source. The words are Feast's.
    #[error("Unable to find push source '{source_name}'.")]
    UnknownPushSource {
        /// The name.
        source_name: String,
    },
    /// Columns of different lengths.
    #[error("column '{column}' has {found} values, and '{first}' has {expected}")]
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
    /// The view needs columns that are not there.
    #[error("feature view '{view}' needs {}, which the data does not have", Columns(missing))]
    MissingColumns {
        /// The view.
        view: String,
        /// The columns.
        missing: Vec<String>,
    },
    /// A value that does not fit.
    #[error("feature view '{view}', column '{column}', row {row}: {why}")]
    Value {
        /// The view.
        view: String,
        /// The column.
        column: String,
        /// The row, from 0.
        row: usize,
        /// What is wrong.
        why: String,
    },
    /// A row that does not fit, as a whole.
    #[error("feature view '{view}', row {row}: {why}")]
    Row {
        /// The view.
        view: String,
        /// The row, from 0.
        row: usize,
        /// What is wrong.
        why: String,
    },
    /// The definitions changed at this moment; the same again will do.
    #[error("feature view '{view}' was declared anew while this was written; try again")]
    Superseded {
        /// The view.
        view: String,
    },
    /// The store failed: not the caller's doing.
    #[error("view '{view}': {source}")]
    Store {
        /// The view.
        view: String,
        /// What is wrong with the store.
        source: StoreError,
    },
}

struct Columns<'c>(&'c [String]);

// === impl Frame ===

impl Frame {
    /// How many rows it has.
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

    /// The column of this name, with the name as the frame has it.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<(&str, &[Cell])> {
        let found = self.columns.iter().find(|(column, _)| column == name);
        found.map(|(column, cells)| (column.as_str(), cells.as_slice()))
    }
}

// === impl WriteError ===

impl WriteError {
    /// The kind of failure, as a metric label.
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

    /// What the store said of a write to a view.
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
