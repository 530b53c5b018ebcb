//! The state that readers see: usually one commit, open for reading.

use std::sync::Arc;

use larder_model::codec::{RowHeader, RowSchema, RowText};
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableError};

use super::{
    StoreError, ViewId,
    record::{RowKey, RowTable, VIEWS, ViewRecord},
};

/// One commit, open for reading, or the reason why nothing can be read. An open state pins the pages of its commit
/// until the state is dropped.
pub(super) struct State {
    /// The number of the state. It starts at 1 when the process opens the store, and each commit, reopening and rebuild
    /// increments it.
    pub(super) commit: u64,
    views: Views,
}

enum Views {
    /// The views, indexed by id.
    Open(Vec<Option<ViewState>>),
    /// The file is being reopened after a failure, or replaced by a rebuilt file; the next state follows shortly.
    Reopening(Records),
    /// The file could not be reopened.
    Closed(Arc<str>, Records),
}

/// The views' names and records, as last read.
pub(super) type Records = Vec<(String, ViewRecord)>;

pub(super) struct ViewState {
    pub(super) name: String,
    pub(super) record: ViewRecord,
    pub(super) schemas: Arc<[Arc<RowSchema>]>,
    /// `None` if the served generation has no table yet.
    pub(super) rows: Option<ReadOnlyTable<RowKey, &'static [u8]>>,
}

// === impl State ===

impl State {
    /// Opens the currently committed state.
    pub(super) fn read(db: &Database, commit: u64) -> Result<Self, StoreError> {
        let txn = db.begin_read()?;
        let mut views: Vec<Option<ViewState>> = Vec::new();
        for entry in txn.open_table(VIEWS)?.iter()? {
            let (name, bytes) = entry?;
            let record = ViewRecord::decode(name.value(), bytes.value())?;
            let rows = match txn.open_table(RowTable::new(&record.table_name(record.generation))) {
                Ok(table) => Some(table),
                Err(TableError::TableDoesNotExist(_)) => None,
                Err(other) => return Err(other.into()),
            };
            let schemas = record.row_schemas(name.value())?;
            let index = record.id as usize;
            if views.len() <= index {
                views.resize_with(index + 1, || None);
            }
            views[index] = Some(ViewState { name: name.value().to_owned(), record, schemas, rows });
        }
        Ok(Self { commit, views: Views::Open(views) })
    }

    /// Creates the state that readers see while the file is being reopened.
    pub(super) fn reopening(commit: u64, records: Records) -> Self {
        Self { commit, views: Views::Reopening(records) }
    }

    /// Creates the state in which nothing can be read until the file is reopened.
    pub(super) fn closed(commit: u64, why: &StoreError, records: Records) -> Self {
        Self { commit, views: Views::Closed(why.to_string().into(), records) }
    }

    /// Returns the names and records of the views. While the file is not open, returns the ones of the last open state.
    pub(super) fn records(&self) -> Records {
        match &self.views {
            Views::Open(views) => views.iter().flatten().map(|view| (view.name.clone(), view.record.clone())).collect(),
            Views::Reopening(records) | Views::Closed(_, records) => records.clone(),
        }
    }

    /// Returns the number of views that are not loaded, or that lost rows to damage.
    pub(super) fn count_unloaded(&self) -> usize {
        let is_loaded = |view: &&ViewState| view.record.last_success.is_some() && !view.record.is_damaged;
        self.views().map_or(0, |views| views.filter(|view| !is_loaded(view)).count())
    }

    pub(super) fn is_reopening(&self) -> bool {
        matches!(self.views, Views::Reopening(_))
    }

    /// Returns the reason why nothing can be read; `None` if the file is open.
    pub(super) fn why_closed(&self) -> Option<Arc<str>> {
        match &self.views {
            Views::Open(_) => None,
            Views::Reopening(_) => Some("it is being reopened".into()),
            Views::Closed(why, _) => Some(Arc::clone(why)),
        }
    }

    /// Returns a view; `None` if it was never declared.
    ///
    /// # Errors
    /// [`StoreError::Closed`] while the file is not open, because a closed store must not look like an empty one.
    pub(super) fn view(&self, view: ViewId) -> Result<Option<&ViewState>, StoreError> {
        match &self.views {
            Views::Open(views) => Ok(views.get(view.0 as usize).and_then(Option::as_ref)),
            Views::Reopening(_) | Views::Closed(..) => Err(self.closed_error()),
        }
    }

    pub(super) fn views(&self) -> Result<impl Iterator<Item = &ViewState>, StoreError> {
        match &self.views {
            Views::Open(views) => Ok(views.iter().flatten()),
            Views::Reopening(_) | Views::Closed(..) => Err(self.closed_error()),
        }
    }

    #[cold]
    fn closed_error(&self) -> StoreError {
        StoreError::Closed(self.why_closed().unwrap_or_default().to_string())
    }
}

// === impl ViewState ===

impl ViewState {
    /// Renders a row's values as text. The text is empty if the row cannot be decoded.
    pub(super) fn text_of(&self, row: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        let Ok(header) = RowHeader::read(row) else { return text };
        if let Some(schema) = self.schemas.iter().find(|schema| schema.fingerprint() == header.fingerprint) {
            RowText::render(schema, row, &mut text);
        }
        text
    }
}
