//! Lookups: a [`Reader`] looks up rows in one committed state, first in the hot cache and then on disk.

use std::{cell::Cell, sync::Arc};

use arc_swap::Guard;
use larder_model::model::EntityId;
use redb::ReadableTable;
use smallvec::SmallVec;

use super::{
    OnlineStore, StoreError, ViewId,
    hot::{EntityRows, FoundRow, Lookup, Row},
    record::verified_row,
    state::{State, ViewState},
};

/// Looks up rows in one committed state.
pub struct Reader<'s> {
    store: &'s OnlineStore,
    state: Guard<Arc<State>>,
    counts: Counts,
}

/// The counts of a reader. They are added to the metrics once, when the reader is dropped.
#[derive(Default)]
struct Counts {
    hot_hits: Cell<u64>,
    hot_misses: Cell<u64>,
    reads: Cell<u64>,
}

// === impl OnlineStore ===

impl OnlineStore {
    /// Creates a reader of the currently committed state.
    #[must_use]
    pub fn reader(&self) -> Reader<'_> {
        Reader::new(self, self.state())
    }
}

// === impl Reader ===

impl<'s> Reader<'s> {
    fn new(store: &'s OnlineStore, state: Guard<Arc<State>>) -> Self {
        Self { store, state, counts: Counts::default() }
    }

    /// Returns the commit that this reader sees.
    #[must_use]
    pub fn commit(&self) -> u64 {
        self.state.commit
    }

    /// Returns the row of an entity in one view; `None` if the entity has no row in it.
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

    /// Looks up the rows of entities in several views. For each entity and view, calls `visit` with the index of the
    /// entity in `ids`, the index of the view in `views`, and the row, or `None` if there is none. An error of `visit`
    /// ends the lookup.
    ///
    /// # Errors
    /// Errors of `visit`, errors of a failed read, and [`StoreError::Damaged`] for a row that does not match its
    /// checksum.
    pub fn get_each<E: From<StoreError>>(
        &self,
        views: &[Lookup],
        ids: &[EntityId],
        mut visit: impl FnMut(usize, usize, Option<Row>) -> Result<(), E>,
    ) -> Result<(), E> {
        let states = views.iter().map(|wanted| self.state.view(wanted.view));
        let states = states.collect::<Result<SmallVec<[_; 4]>, _>>()?;
        let known = self.store.hot.get(ids, views, self.state.commit);
        let mut hits = 0;
        for ((entity, id), known) in ids.iter().enumerate().zip(known) {
            let mut is_all_cached = true;
            for (index, (&Lookup { view, .. }, state)) in views.iter().zip(&states).enumerate() {
                let Some(state) = state else {
                    visit(entity, index, None)?;
                    continue;
                };
                let row = known.as_ref().and_then(|known| known.row(view, state.record.generation));
                match row {
                    Some(row) => {
                        hits += 1;
                        visit(entity, index, row)?;
                    }
                    None => is_all_cached = false,
                }
            }
            if !is_all_cached {
                self.read_uncached(views, &states, id, known.as_ref(), |index, row| visit(entity, index, row))?;
            }
        }
        self.counts.hot_hits.update(|count| count + hits);
        Ok(())
    }

    /// Reads the rows of an entity that are not cached, and caches them.
    #[cold]
    fn read_uncached<E: From<StoreError>>(
        &self,
        views: &[Lookup],
        states: &[Option<&ViewState>],
        id: &EntityId,
        known: Option<&EntityRows>,
        mut visit: impl FnMut(usize, Option<Row>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut fresh: SmallVec<[FoundRow; 4]> = SmallVec::new();
        let mut fresh_indexes: SmallVec<[usize; 4]> = SmallVec::new();
        for (index, (&Lookup { view, .. }, state)) in views.iter().zip(states).enumerate() {
            let Some(state) = state else { continue };
            let generation = state.record.generation;
            if known.is_some_and(|known| known.row(view, generation).is_some()) {
                continue;
            }
            self.counts.hot_misses.update(|count| count + 1);
            let row = self.read(state, id)?;
            if !self.store.hot.is_enabled() {
                visit(index, row)?;
                continue;
            }
            let text = row.as_deref().map(|row| state.text_of(row)).unwrap_or_default();
            fresh.push(FoundRow { view, generation, row, text });
            fresh_indexes.push(index);
        }
        if !fresh.is_empty() {
            let rows = self.store.hot.put(id, known, &fresh, self.state.commit);
            // Pass the rows of the cache entry, because they include their text, as they do in later lookups.
            for (index, found) in fresh_indexes.into_iter().zip(fresh) {
                visit(index, rows.row(found.view, found.generation).flatten())?;
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
            let (id, checksummed) = entry.map_err(StoreError::from)?;
            let id = EntityId(*id.value());
            visit(id, verified(view, &id, checksummed.value())?)?;
        }
        Ok(())
    }

    fn read(&self, view: &ViewState, id: &EntityId) -> Result<Option<Row>, StoreError> {
        let Some(table) = &view.rows else { return Ok(None) };
        self.counts.reads.update(|count| count + 1);
        self.store.catch_panics(|| match table.get(&id.0)? {
            Some(checksummed) => Ok(Some(Row::copy_of(verified(view, id, checksummed.value())?))),
            None => Ok(None),
        })
    }
}

fn verified<'b>(view: &ViewState, id: &EntityId, checksummed: &'b [u8]) -> Result<&'b [u8], StoreError> {
    verified_row(id, checksummed).ok_or_else(|| {
        let message = format!("view '{}': the row of entity id {id:?} does not match its checksum", view.name);
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
