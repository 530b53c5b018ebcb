//! Read access to committed data: a [`State`] is one commit, and a [`Reader`] looks up rows in it.

use std::{cell::Cell, sync::Arc};

use arc_swap::Guard;
use larder_model::{
    codec::{RowHeader, RowSchema, RowText},
    model::EntityId,
};
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableError};
use smallvec::SmallVec;

use super::{
    OnlineStore, StoreError, ViewId,
    hot::{EntityRows, FoundRow, Lookup, Row},
    record::{RowKey, RowTable, VIEWS, ViewRecord, unseal},
};

/// One committed state, open for reading. It pins the pages of its commit until it is dropped.
pub(super) struct State {
    /// The number of the commit in this process, from 1.
    pub(super) commit: u64,
    views: Views,
}

enum Views {
    /// The views by id.
    Open(Vec<Option<ViewState>>),
    /// The file is being reopened after a failure; the next state follows shortly.
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
    /// `None` before the first commit of rows.
    pub(super) rows: Option<ReadOnlyTable<RowKey, &'static [u8]>>,
}

/// Looks up rows in one committed state.
pub struct Reader<'s> {
    store: &'s OnlineStore,
    state: Guard<Arc<State>>,
    counts: Counts,
}

/// Counts of a reader, added to the metrics once when it is dropped.
#[derive(Default)]
struct Counts {
    hot_hits: Cell<u64>,
    hot_misses: Cell<u64>,
    reads: Cell<u64>,
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
            let place = record.id as usize;
            if views.len() <= place {
                views.resize_with(place + 1, || None);
            }
            views[place] = Some(ViewState { name: name.value().to_owned(), record, schemas, rows });
        }
        Ok(Self { commit, views: Views::Open(views) })
    }

    /// Creates the state for the time while the file is reopened.
    pub(super) fn reopening(commit: u64, records: Records) -> Self {
        Self { commit, views: Views::Reopening(records) }
    }

    /// Creates a state in which nothing can be read until the file is reopened.
    pub(super) fn closed(commit: u64, why: &StoreError, records: Records) -> Self {
        Self { commit, views: Views::Closed(why.to_string().into(), records) }
    }

    /// Returns the views' names and records; while the file is not open, those of the last open state.
    pub(super) fn records(&self) -> Records {
        match &self.views {
            Views::Open(views) => views.iter().flatten().map(|view| (view.name.clone(), view.record.clone())).collect(),
            Views::Reopening(records) | Views::Closed(_, records) => records.clone(),
        }
    }

    /// The number of views that were never loaded, or lost rows to damage.
    pub(super) fn count_unloaded(&self) -> usize {
        let is_loaded = |view: &&ViewState| view.record.last_success.is_some() && !view.record.is_damaged;
        self.views().map_or(0, |views| views.filter(|view| !is_loaded(view)).count())
    }

    pub(super) fn is_reopening(&self) -> bool {
        matches!(self.views, Views::Reopening(_))
    }

    /// Returns the reason why nothing can be read, if so.
    pub(super) fn why_closed(&self) -> Option<Arc<str>> {
        match &self.views {
            Views::Open(_) => None,
            Views::Reopening(_) => Some("it is being reopened".into()),
            Views::Closed(why, _) => Some(Arc::clone(why)),
        }
    }

    /// Returns a view, if it has any state.
    ///
    /// # Errors
    /// [`StoreError::Closed`]: a closed store is not an empty one.
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
    /// Renders a row's values as text; empty if that is not possible.
    fn text_of(&self, row: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        let Ok(header) = RowHeader::read(row) else { return text };
        if let Some(schema) = self.schemas.iter().find(|schema| schema.fingerprint() == header.fingerprint) {
            RowText::render(schema, row, &mut text);
        }
        text
    }
}

// === impl Reader ===

impl<'s> Reader<'s> {
    pub(super) fn new(store: &'s OnlineStore, state: Guard<Arc<State>>) -> Self {
        Self { store, state, counts: Counts::default() }
    }

    /// Returns the commit that this reader sees.
    #[must_use]
    pub fn commit(&self) -> u64 {
        self.state.commit
    }

    /// Returns the row of an entity in one view, if there is one, from memory or else from disk.
    ///
    /// # Errors
    /// Errors of a failed read.
    pub fn get(&self, view: ViewId, id: &EntityId) -> Result<Option<Row>, StoreError> {
        let mut found = None;
        let wanted = Lookup { view, values: 1 };
        self.get_each(&[wanted], std::slice::from_ref(id), |_, _, row| {
            found = row;
            Ok::<_, StoreError>(())
        })?;
        Ok(found)
    }

    /// Looks up the rows of entities in several views. Calls `tell` with each row, the index of the entity in `ids` and
    /// the index of the view in `views`; an error of `tell` ends the lookup.
    ///
    /// # Errors
    /// Errors of `tell`, and of a failed read; [`StoreError::Damaged`] also for a row whose bytes changed since it was
    /// written.
    pub fn get_each<E: From<StoreError>>(
        &self,
        views: &[Lookup],
        ids: &[EntityId],
        mut tell: impl FnMut(usize, usize, Option<Row>) -> Result<(), E>,
    ) -> Result<(), E> {
        let states = views.iter().map(|wanted| self.state.view(wanted.view));
        let states = states.collect::<Result<SmallVec<[_; 4]>, _>>()?;
        let known = self.store.hot.get(ids, views, self.state.commit);
        let mut hits = 0;
        for ((entity, id), known) in ids.iter().enumerate().zip(known) {
            let mut is_all_known = true;
            for (place, (&Lookup { view, .. }, state)) in views.iter().zip(&states).enumerate() {
                let Some(state) = state else {
                    tell(entity, place, None)?;
                    continue;
                };
                let row = known.as_ref().and_then(|known| known.row(view, state.record.generation));
                match row {
                    Some(row) => {
                        hits += 1;
                        tell(entity, place, row)?;
                    }
                    None => is_all_known = false,
                }
            }
            if !is_all_known {
                self.read_unknown(views, &states, id, known.as_ref(), |place, row| tell(entity, place, row))?;
            }
        }
        self.counts.hot_hits.update(|count| count + hits);
        Ok(())
    }

    /// Reads the rows of an entity that are not cached, and caches them.
    #[cold]
    fn read_unknown<E: From<StoreError>>(
        &self,
        views: &[Lookup],
        states: &[Option<&ViewState>],
        id: &EntityId,
        known: Option<&EntityRows>,
        mut tell: impl FnMut(usize, Option<Row>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut fresh: SmallVec<[FoundRow; 4]> = SmallVec::new();
        let mut fresh_places: SmallVec<[usize; 4]> = SmallVec::new();
        for (place, (&Lookup { view, .. }, state)) in views.iter().zip(states).enumerate() {
            let Some(state) = state else { continue };
            let generation = state.record.generation;
            if known.is_some_and(|known| known.row(view, generation).is_some()) {
                continue;
            }
            self.counts.hot_misses.update(|count| count + 1);
            let row = self.read(state, id)?;
            if !self.store.hot.is_on() {
                tell(place, row)?;
                continue;
            }
            let text = row.as_deref().map(|row| state.text_of(row)).unwrap_or_default();
            fresh.push(FoundRow { view, generation, row, text });
            fresh_places.push(place);
        }
        if !fresh.is_empty() {
            let rows = self.store.hot.put(id, known, &fresh, self.state.commit);
            // As later lookups will find them, with their text.
            for (place, found) in fresh_places.into_iter().zip(fresh) {
                tell(place, rows.row(found.view, found.generation).flatten())?;
            }
        }
        Ok(())
    }

    /// Visits all rows of a view, in the order of their ids.
    ///
    /// # Errors
    /// Errors of a failed read, and errors of `visit`.
    pub fn for_each<E: From<StoreError>>(
        &self,
        view: ViewId,
        mut visit: impl FnMut(EntityId, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(view) = self.state.view(view)? else { return Ok(()) };
        let Some(table) = &view.rows else { return Ok(()) };
        for entry in table.iter().map_err(StoreError::from)? {
            let (id, sealed) = entry.map_err(StoreError::from)?;
            let id = EntityId(*id.value());
            visit(id, unsealed(view, &id, sealed.value())?)?;
        }
        Ok(())
    }

    fn read(&self, view: &ViewState, id: &EntityId) -> Result<Option<Row>, StoreError> {
        let Some(table) = &view.rows else { return Ok(None) };
        self.counts.reads.update(|count| count + 1);
        self.store.guarded(|| match table.get(&id.0)? {
            Some(sealed) => Ok(Some(Row::copy_of(unsealed(view, id, sealed.value())?))),
            None => Ok(None),
        })
    }
}

fn unsealed<'b>(view: &ViewState, id: &EntityId, sealed: &'b [u8]) -> Result<&'b [u8], StoreError> {
    unseal(id, sealed).ok_or_else(|| {
        let message = format!("view '{}': the row of entity id {id:?} differs from the written row", view.name);
        StoreError::Damaged(message)
    })
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let metrics = &self.store.metrics;
        let counts = [
            (&metrics.hot_hits, &self.counts.hot_hits),
            (&metrics.hot_misses, &self.counts.hot_misses),
            (&metrics.reads, &self.counts.reads),
        ];
        for (counter, count) in counts {
            if count.get() > 0 {
                counter.increment(count.get());
            }
        }
    }
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("commit", &self.state.commit).finish_non_exhaustive()
    }
}
