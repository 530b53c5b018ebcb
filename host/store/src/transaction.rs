//! Runs write transactions, one at a time, and publishes their commits to readers.

use std::sync::{Arc, PoisonError};

use larder_model::model::EntityId;
use redb::{Database, Durability, WriteTransaction};

use super::{OnlineStore, StoreError, state::State};

/// The result of a write transaction's work.
pub(super) enum Written<T> {
    /// Commit the transaction, and invalidate the cached rows of the entities in `changed`.
    Commit { value: T, changed: Vec<EntityId> },
    /// Abort, because nothing changed.
    Nothing(T),
}

// === impl OnlineStore ===

impl OnlineStore {
    /// Works like [`OnlineStore::write`], but does not wait for the disk. The next commit that waits for the disk also
    /// flushes this one.
    pub(super) fn write_lazily<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<Written<T>, StoreError>,
    ) -> Result<T, StoreError> {
        self.write_at(Durability::None, work)
    }

    /// Runs a write transaction and publishes its commit to readers.
    ///
    /// # Errors
    /// Errors of `work` and of the database. Readers then see nothing of the transaction. However, if the last step of
    /// the commit failed, the transaction may be on disk and become visible later.
    ///
    /// [`StoreError::Gone`] if the file is not at its path. If the file was removed during the commit, readers see the
    /// transaction although this error is returned.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<Written<T>, StoreError>,
    ) -> Result<T, StoreError> {
        self.write_at(Durability::Immediate, work)
    }

    fn write_at<T>(
        &self,
        durability: Durability,
        work: impl FnOnce(&WriteTransaction) -> Result<Written<T>, StoreError>,
    ) -> Result<T, StoreError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.health.check_file(&self.path)?;
        if let Some(damage) = self.health.damage() {
            // A write to a file with a damaged page could destroy other pages.
            self.repair_locked(&mut writer)?.ok_or(StoreError::Damaged(damage))?;
        }
        if writer.is_none() {
            self.reopen(&mut writer)?;
        }
        let Some(db) = &*writer else { return Err(StoreError::Closed("no database".to_owned())) };
        // The database does not verify its pages, and may panic on a damaged one.
        let written = self.catch_panics(|| self.write_and_publish(db, durability, work));
        if let Err(error) = &written
            && error.needs_reopening()
        {
            tracing::warn!(%error, "a write failed; reopening the store");
            let _ = self.reopen(&mut writer);
        }
        written
    }

    fn write_and_publish<T>(
        &self,
        db: &Database,
        durability: Durability,
        work: impl FnOnce(&WriteTransaction) -> Result<Written<T>, StoreError>,
    ) -> Result<T, StoreError> {
        let mut txn = db.begin_write()?;
        if matches!(durability, Durability::None) {
            txn.set_durability(durability).map_err(|error| StoreError::Damaged(error.to_string()))?;
        }
        // Saves the allocator's state with each commit, so that reopening after a kill takes milliseconds instead of a
        // scan of the whole file.
        txn.set_quick_repair(true);
        let (value, changed) = match work(&txn)? {
            Written::Commit { value, changed } => (value, changed),
            Written::Nothing(value) => {
                txn.abort()?;
                return Ok(value);
            }
        };
        txn.commit()?;
        let commit = self.state.load().commit + 1;
        // The slots must be raised before the new state is published; see the module documentation of `hot`.
        for id in &changed {
            self.hot.invalidate(id, commit);
        }
        let state = State::read(db, commit)?;
        let has_loaded = state.count_unloaded() != self.state.load().count_unloaded();
        self.state.store(Arc::new(state));
        if has_loaded {
            self.health.note_change();
        }
        self.metrics.commits.increment(1);
        // If the file is no longer at its path, the next start cannot find it. Readers already see the commit, so that
        // the cache stays consistent, but the caller gets an error.
        self.health.note_len(self.health.check_file(&self.path)?);
        Ok(value)
    }
}
