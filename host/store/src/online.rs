//! The open store: one writer, many readers, and recovery after a failure.
//!
//! After an I/O error, including a full disk, the database rejects every later read and write until its file is closed
//! and reopened. So the file is reopened after a failed transaction. Readers wait for this, usually for a few
//! milliseconds. Then the committed rows are available again. Cached rows are invalidated, because it is unknown
//! whether the failed commit reached the disk.
//!
//! The database does not verify the pages that it reads. On a damaged page it may panic, even while it cleans up after
//! another panic, which aborts the process. Panics are caught where possible. If the process ends anyway,
//! [`OpenMarker`] makes the next start check all pages, so that it does not fail at the same page.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, Guard};
use larder_common::{clock::SharedClock, private};
use larder_model::{codec::RowSchema, model::Micros};
use redb::Database;
use tokio::sync::watch;

use super::{
    Freshness, Postponed, Quarantine, StoreConfig, StoreError, ViewId, ViewStatus,
    health::Health,
    hot::HotCache,
    metrics::StoreMetrics,
    open::{open_checked, open_or_replace},
    open_marker::OpenMarker,
    record::ViewRecord,
    space::bytes_on_disk,
    state::State,
};

/// The online store. Only one process can have it open at a time.
pub struct OnlineStore {
    /// Locked during a whole write, until readers can see its commit, so that states become visible in the order of
    /// their commits. `None` if the file could not be reopened.
    pub(super) writer: Mutex<Option<Database>>,
    pub(super) clock: SharedClock,
    pub(super) hot: HotCache,
    pub(super) metrics: StoreMetrics,
    pub(super) config: StoreConfig,
    pub(super) path: PathBuf,
    /// The state that readers see. Each commit replaces the state as a whole.
    pub(super) state: ArcSwap<State>,
    /// Whether an operation failed in a way that only reopening the file can fix.
    pub(super) failed: AtomicBool,
    /// The damage that was found in the file, and whether the file is still at its path.
    pub(super) health: Health,
    /// Whether the database panicked: closing it could abort the process.
    pub(super) has_panicked: AtomicBool,
    pub(super) marker: OpenMarker,
    quarantined: Option<Quarantine>,
}

const FILE_NAME: &str = "online.redb";
/// How long reopening the file waits for requests in progress, which also keep the file open.
const READERS_TIMEOUT: Duration = Duration::from_secs(5);

// === impl OnlineStore ===

impl OnlineStore {
    /// Opens the store, or creates an empty one if there is none. A damaged file is renamed (`.corrupt-<time>`), and
    /// [`OnlineStore::quarantined`] reports it. It is replaced by a new store with its intact rows, in which views with
    /// missing rows are marked as damaged, or by an empty store if none of its rows can be read.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Newer`], and errors of the file system and the database. The stored rows
    /// stay unchanged in all of these cases.
    pub fn open(config: &StoreConfig, clock: SharedClock) -> Result<Self, StoreError> {
        let dir = &config.data_dir;
        // Features may be personal data, so other users must not read the directory. They must not write to it either,
        // because Larder would serve their data.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|source| StoreError::Io { action: "create", path: dir.clone(), source })?;
        private::open_dir(dir).map_err(|source| StoreError::Io { action: "use", path: dir.clone(), source })?;
        let path = dir.join(FILE_NAME);
        private::claim_file(&path).map_err(|source| StoreError::Io { action: "use", path: path.clone(), source })?;
        let (db, quarantined, marker) = open_or_replace(&path, config, &clock)?;
        let state = State::read(&db, 1)?;
        let health = Health::of(&path)?;
        Ok(Self {
            writer: Mutex::new(Some(db)),
            clock,
            hot: HotCache::new(config.hot),
            metrics: StoreMetrics::bind(),
            config: config.clone(),
            path,
            state: ArcSwap::from_pointee(state),
            failed: AtomicBool::new(false),
            health,
            has_panicked: AtomicBool::new(false),
            marker,
            quarantined,
        })
    }

    /// Returns the damaged file that [`OnlineStore::open`] quarantined, if there was one.
    #[must_use]
    pub fn quarantined(&self) -> Option<&Quarantine> {
        self.quarantined.as_ref()
    }

    /// Returns the path of the store file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the status of a view; `None` while the store is closed, or if the view was never declared.
    #[must_use]
    pub fn status(&self, view: ViewId) -> Option<ViewStatus> {
        let state = self.state();
        let record = &state.view(view).ok()??.record;
        let freshness = Freshness { last_success: record.last_success, newest_event: record.newest_event };
        Some(ViewStatus {
            rows: record.rows,
            position: record.position.clone(),
            freshness,
            is_damaged: record.is_damaged,
            rows_lost: record.rows_lost,
            last_materialized: record.last_materialized,
        })
    }

    /// Returns the number of rows of the load that built the served generation, without rows that callers wrote; `None`
    /// if no load built the served generation.
    #[must_use]
    pub fn loaded_rows(&self, view: ViewId) -> Option<u64> {
        self.state().view(view).ok()??.record.loaded_rows
    }

    /// Returns whether a view may have rows that callers wrote. This can be true even if newer rows of the source have
    /// replaced all of them.
    ///
    /// # Errors
    /// [`StoreError::Closed`] while the file is not open.
    pub fn may_have_rows_of_callers(&self, view: ViewId) -> Result<bool, StoreError> {
        let state = self.state();
        Ok(state.view(view)?.is_some_and(|view| view.record.has_rows_of_callers()))
    }

    /// Returns the span of the event times of a view's rows that are held back until they are due; `None` if there are
    /// no such rows.
    #[must_use]
    pub fn postponed(&self, view: ViewId) -> Option<Postponed> {
        self.state().view(view).ok()??.record.postponed
    }

    /// Returns the time by the store's clock.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.clock.now()
    }

    /// Returns the schemas that a view's stored rows may have, the current one last.
    ///
    /// # Errors
    /// [`StoreError::Closed`] while the file is not open.
    pub fn schemas(&self, view: ViewId) -> Result<Arc<[Arc<RowSchema>]>, StoreError> {
        let state = self.state();
        Ok(state.view(view)?.map_or_else(|| Arc::from([]), |view| Arc::clone(&view.schemas)))
    }

    /// Returns the time since `time`, by the store's clock; zero if `time` is in the future.
    #[must_use]
    pub fn age(&self, time: Micros) -> Duration {
        Duration::from_micros(u64::try_from(self.clock.now().saturating_sub(time)).unwrap_or(0))
    }

    /// Returns the reason why the server should get no traffic, if there is one: the store could not be reopened after
    /// a failure, damage was found in it, or its file is gone.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let closed = self.state().why_closed().map(|why| why.to_string());
        closed.or_else(|| self.health.failure())
    }

    /// Returns a receiver that is notified when the result of [`OnlineStore::failure`] may have changed, or when views
    /// may have become loaded or damaged.
    #[must_use]
    pub fn health_changes(&self) -> watch::Receiver<()> {
        self.health.changes()
    }

    /// Checks that the file is at its path, and reopens the file if a failure closed it or made it unusable for
    /// readers. Call this function every few seconds. Writes also check and reopen the file, but hours may pass without
    /// a write.
    pub fn check_and_reopen(&self) {
        let checked = self.health.check_file(&self.path);
        // A running commit may change the length, so the length is checked only while no commit is running. If a commit
        // is running now, the next call checks the length.
        if checked.is_ok()
            && let Ok(_writer) = self.writer.try_lock()
            && let Ok(len) = self.health.check_file(&self.path)
            && let Some(what) = self.health.truncation(len)
        {
            self.note_damage(&what);
        }
        if self.failed.load(Ordering::Relaxed) || self.state.load().why_closed().is_some() {
            let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            // The error is logged, and is part of the state that readers see.
            let _ = self.reopen(&mut writer);
        }
    }

    /// Pauses or resumes the insertion of rows into the hot cache.
    pub fn pause_hot_cache(&self, is_paused: bool) {
        self.hot.set_paused(is_paused);
    }

    /// Evicts half of the hot cache.
    pub fn shrink_hot_cache(&self) {
        self.hot.shrink();
    }

    /// Returns the size of the hot cache in bytes.
    #[must_use]
    pub fn hot_bytes(&self) -> u64 {
        self.hot.weight()
    }

    /// Returns the disk space of the store file in bytes, or 0 if its metadata cannot be read. The file is sparse, so
    /// its length can be greater.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |meta| bytes_on_disk(&meta))
    }

    /// Returns the length of the store file, or 0 if its metadata cannot be read.
    fn file_bytes(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |meta| meta.len())
    }

    pub(super) fn commit(&self) -> u64 {
        self.state.load().commit
    }

    /// Closes the file and reopens it. Readers wait meanwhile. If the file cannot be reopened, readers get errors until
    /// a later attempt succeeds.
    pub(super) fn reopen(&self, writer: &mut Option<Database>) -> Result<(), StoreError> {
        // If there is another file at the path now, that file must not be opened.
        self.health.check_file(&self.path)?;
        if self.has_panicked.load(Ordering::Relaxed) {
            return Err(StoreError::Closed("it is damaged and will be rebuilt".to_owned()));
        }
        self.failed.store(false, Ordering::Relaxed);
        let (commit, records) = {
            let state = self.state.load();
            (state.commit + 1, state.records())
        };
        let before = self.state.swap(Arc::new(State::reopening(commit, records.clone())));
        let db = writer.take();
        let opened = self.catch_panics(|| {
            self.close(db, before)?;
            if self.file_bytes() == 0 {
                // Creating a new file here would serve an empty store.
                let (path, source) = (self.path.clone(), io::ErrorKind::NotFound.into());
                return Err(StoreError::Io { action: "open", path, source });
            }
            let db = open_checked(&self.path, &self.config)?;
            let state = State::read(&db, commit)?;
            Ok((db, state))
        });
        self.hot.invalidate_all(commit);
        match opened {
            Ok((db, state)) => {
                *writer = Some(db);
                // Closing and reopening may truncate the file.
                self.health.note_len(self.file_bytes());
                self.state.store(Arc::new(state));
                self.health.note_change();
                self.metrics.reopened.increment(1);
                tracing::info!(path = %self.path.display(), "the store was reopened");
                Ok(())
            }
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "cannot reopen the store; lookups fail until it is open");
                self.state.store(Arc::new(State::closed(commit, &error, records)));
                self.health.note_change();
                Err(error)
            }
        }
    }

    /// Closes the file. Requests in progress also keep the file open, so this function waits for them, for at most
    /// [`READERS_TIMEOUT`].
    fn close(&self, db: Option<Database>, mut state: Arc<State>) -> Result<(), StoreError> {
        drop(db);
        let until = Instant::now() + READERS_TIMEOUT;
        loop {
            state = match Arc::try_unwrap(state) {
                Ok(_) => return Ok(()),
                Err(still_read) if Instant::now() < until => still_read,
                Err(_) => return Err(StoreError::InUse { path: self.path.clone() }),
            };
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// Returns the state that readers see. Waits while the file is being reopened.
    pub(super) fn state(&self) -> Guard<Arc<State>> {
        loop {
            let state = self.state.load();
            if !state.is_reopening() {
                return state;
            }
            drop(state);
            drop(self.writer.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Returns whether to retry a failed read: the read failed only because a write had failed before, and the store is
    /// open again. Waits for a running write or reopening. `seen` is the value of [`OnlineStore::visible_commit`] from
    /// before the read.
    ///
    /// The caller must have dropped its [`Reader`], because reopening the file waits for all readers.
    #[cold]
    pub fn was_reopened(&self, error: &StoreError, seen: u64) -> bool {
        if !error.needs_reopening() {
            return false;
        }
        drop(self.writer.lock().unwrap_or_else(PoisonError::into_inner));
        let state = self.state.load();
        state.commit > seen && state.why_closed().is_none()
    }

    /// Runs `work`, which reads pages, and turns a panic of the database into an error. Passes errors to
    /// [`OnlineStore::note_failure`].
    pub(super) fn catch_panics<T>(&self, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            self.note_panic();
            Err(StoreError::from_panic(&*panic))
        });
        done.inspect_err(|error| self.note_failure(error))
    }

    /// Handles a failed read or write: records damage or requests a reopen.
    #[cold]
    pub(super) fn note_failure(&self, error: &StoreError) {
        match error {
            StoreError::Damaged(what) => self.note_damage(what),
            error => {
                if error.needs_reopening() && !self.failed.swap(true, Ordering::Relaxed) {
                    self.health.note_change();
                }
            }
        }
    }

    fn note_damage(&self, what: &str) {
        self.health.note_damage(what, &self.path, &self.marker, &self.metrics);
    }

    /// Records that the database panicked.
    pub(super) fn note_panic(&self) {
        self.has_panicked.store(true, Ordering::Relaxed);
    }

    /// Returns a view's name and record as readers see them. A writer must read the record again in its transaction.
    pub(super) fn record(&self, view: ViewId) -> Result<(String, ViewRecord), StoreError> {
        let state = self.state();
        let view = state.view(view)?.ok_or_else(|| StoreError::Damaged(format!("no record of view {}", view.0)))?;
        Ok((view.name.clone(), view.record.clone()))
    }
}

impl std::fmt::Debug for OnlineStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnlineStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Drop for OnlineStore {
    fn drop(&mut self) {
        let db = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if self.has_panicked.load(Ordering::Relaxed) {
            // Closing would write to a file that may be damaged. The operating system closes the file when the process
            // ends.
            std::mem::forget(db);
            return;
        }
        let commit = self.state.load().commit;
        drop(self.state.swap(Arc::new(State::reopening(commit, Vec::new()))));
        drop(db);
        if self.health.failure().is_none() && self.health.check_file(&self.path).is_ok() {
            self.marker.remove();
        }
    }
}
