//! Rebuilds a damaged store while it is open: copies every intact row to a new file, which replaces the damaged one.
//!
//! The database checks its pages only in a full check of a closed file. If it follows a damaged page, it may panic or
//! overwrite live pages. So nothing is written to a damaged file, and its tables are not repaired in place: the intact
//! rows are copied (`salvage.rs`). Views with missing rows are marked, and their sources are read from the start. The
//! server is not ready until these loads have ended.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, PoisonError, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use redb::Database;

use super::{
    OnlineStore, StoreError,
    metrics::StoreMetrics,
    open::{create_unfinished, open_checked, open_damaged, replace},
    salvage::{Copies, copy_intact},
    state::State,
};

/// The result of a rebuild.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// The new path of the damaged file.
    pub quarantine_path: PathBuf,
    /// The number of rows copied, over all views.
    pub rows: u64,
    /// The views that lost rows, with the number of lost rows.
    pub lost: Vec<(String, u64)>,
}

/// How long the rebuild waits for requests that read the damaged file.
const READERS_TIMEOUT: Duration = Duration::from_secs(5);

impl OnlineStore {
    /// Rebuilds the file if damage was found in it, unless a rebuild failed recently. Returns `None` if no rebuild was
    /// due. Writes wait for the rebuild. Lookups continue, except for a moment while the files are swapped.
    ///
    /// # Errors
    /// [`StoreError::Gone`], [`StoreError::DiskFull`] if there is no space for a second file, and errors of a failed
    /// write. The damage then stays recorded, and a later call tries to repair it again.
    pub fn repair(&self) -> Result<Option<Repaired>, StoreError> {
        if !self.health.is_repair_due() {
            return Ok(None);
        }
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.repair_locked(&mut writer)
    }

    /// Works like [`OnlineStore::repair`], for a caller that holds the writer lock.
    pub(super) fn repair_locked(&self, writer: &mut Option<Database>) -> Result<Option<Repaired>, StoreError> {
        if !self.health.is_repair_due() {
            return Ok(None);
        }
        // If there is another file at the path now, that file must not be replaced.
        self.health.check_file(&self.path)?;
        let started = Instant::now();
        tracing::warn!(path = %self.path.display(), "rebuilding the damaged store from its intact rows");
        let rebuilt = catch_unwind(AssertUnwindSafe(|| self.rebuild(writer)));
        let rebuilt = rebuilt.unwrap_or_else(|panic| Err(StoreError::from_panic(&*panic)));
        match &rebuilt {
            Ok(repaired) => {
                self.metrics.rebuilt.increment(1);
                let (rows, seconds) = (repaired.rows, started.elapsed().as_secs_f64());
                tracing::warn!(moved_to = %repaired.quarantine_path.display(), rows, seconds, "the damaged store was rebuilt");
            }
            Err(error) => {
                self.health.note_repair_failed();
                self.metrics.rebuilds_failed.increment(1);
                tracing::error!(%error, "cannot rebuild the damaged store; retrying later");
            }
        }
        rebuilt.map(Some)
    }

    fn rebuild(&self, writer: &mut Option<Database>) -> Result<Repaired, StoreError> {
        let state = self.state.load_full();
        if writer.is_none() {
            // The file was closed after an earlier failure.
            *writer = match open_damaged(&self.path) {
                Ok(db) => Some(db),
                Err(StoreError::Damaged(why)) => {
                    tracing::error!(why, "none of the rows of the damaged store can be read");
                    None
                }
                Err(other) => return Err(other),
            };
        }
        let (unfinished, new) = create_unfinished(&self.path, &self.config)?;
        let copied = copy_intact(writer.as_ref(), state.records(), &new);
        drop(new);
        let Copies { lost, rows, is_broken } = copied.inspect_err(|_| _ = fs::remove_file(&unfinished))?;

        let commit = state.commit + 1;
        let kept = state.records();
        drop(state);
        let before = self.state.swap(Arc::new(State::reopening(commit, kept.clone())));
        self.release(writer.take(), before, is_broken);
        let why = self.health.damage().unwrap_or_default();
        let swapped = replace(&self.path, &unfinished, &self.clock, why).and_then(|aside| {
            let aside = aside.path;
            let db = open_checked(&self.path, &self.config)?;
            let state = State::read(&db, commit)?;
            Ok((aside, db, state))
        });
        self.hot.invalidate_all(commit);
        match swapped {
            Ok((aside, db, state)) => {
                *writer = Some(db);
                self.health.note_repaired(&self.path)?;
                self.has_panicked.store(false, Ordering::Relaxed);
                self.failed.store(false, Ordering::Relaxed);
                self.marker.create();
                self.state.store(Arc::new(state));
                self.health.note_change();
                for (view, rows) in &lost {
                    StoreMetrics::rows_lost(view, *rows);
                    tracing::error!(view, rows, "rows of the view were lost to damage");
                }
                Ok(Repaired { quarantine_path: aside, rows, lost })
            }
            Err(error) => {
                self.state.store(Arc::new(State::closed(commit, &error, kept)));
                self.health.note_change();
                Err(error)
            }
        }
    }

    /// Waits until no request reads the damaged file any more, for at most [`READERS_TIMEOUT`], and then closes the
    /// file, unless closing it could end the process.
    fn release(&self, db: Option<Database>, mut state: Arc<State>, is_broken: bool) {
        let until = Instant::now() + READERS_TIMEOUT;
        while let Err(still_read) = Arc::try_unwrap(state) {
            if Instant::now() >= until {
                break;
            }
            state = still_read;
            thread::sleep(Duration::from_micros(200));
        }
        if is_broken || self.has_panicked.load(Ordering::Relaxed) {
            // Closing the database writes to the file again. If the database panics at a damaged page while it writes,
            // the process may end. So the file is not closed, and the memory of its page cache is leaked.
            std::mem::forget(db);
        } else {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
        }
    }

    /// Returns the names of views that lost rows to damage and have not been restored by a full load yet.
    #[must_use]
    pub fn damaged_views(&self) -> Vec<String> {
        let state = self.state();
        let Ok(views) = state.views() else { return Vec::new() };
        views.filter(|view| view.record.is_damaged).map(|view| view.name.clone()).collect()
    }
}
