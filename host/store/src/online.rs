//! The store itself: one writer, many readers, and recovery after a failure.
//!
//! After an I/O error, including a full disk, the database rejects every later read and write until its file is closed
//! and reopened. So a failed transaction ends with a reopen. Readers wait for it, usually for a few milliseconds.
//! Afterwards the committed rows are available again, and cached rows are read again, because it is unknown whether the
//! failed commit reached the disk.
//!
//! The database does not verify the pages that it reads. On a damaged page it may panic, even while it cleans up after
//! a panic, which aborts the process. Panics are caught where possible; [`Mark`] keeps the next start from hitting the
//! same page.

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
use larder_model::{
    codec::{KeyVersion, RowSchema},
    model::{EntityId, FeatureView, Micros},
};
use redb::{Database, Durability, ReadableTable, WriteTransaction};
use tokio::sync::watch;

use super::{
    HotCacheConfig, KeySignature, Postponed, Quarantine, Reader, SpaceLimits, StoreError,
    erase::drop_rows_of_callers,
    health::Health,
    hot::HotCache,
    metrics::StoreMetrics,
    open::{Mark, open_checked, open_or_replace},
    record::{RowTable, SchemaRecord, VIEWS, ViewRecord},
    runs::delete_building,
    space::bytes_on_disk,
    state::State,
    write::{put_record, read_record},
};

/// The location of the store and its memory limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// The directory of the store file; created if it does not exist.
    pub data_dir: PathBuf,
    /// The maximum number of bytes of file pages that the embedded database caches.
    pub page_cache_bytes_max: usize,
    /// The row cache in front of the database.
    pub hot: HotCacheConfig,
    /// Limits on the disk space of the store file.
    pub space: SpaceLimits,
    /// Whether opening the store reads the whole file and checks every page. Otherwise, pages are not verified, and a
    /// row is checked when it is read.
    pub check_on_open: bool,
}

/// Identifies a view in the store for as long as the store exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewId(pub(super) u32);

impl ViewId {
    /// Creates an id without a store, for code that only passes it on or compares it.
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        Self(number)
    }
}

/// The status of a view, available without reading its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewStatus {
    /// The number of rows.
    pub rows: u64,
    /// How far the source was read, in the source's own format.
    pub position: Option<String>,
    /// The freshness of the view.
    pub freshness: Freshness,
    /// Whether rows were lost to damage and not yet restored by a full load.
    pub is_damaged: bool,
    /// The number of rows that were lost to damage and not restored.
    pub rows_lost: u64,
    /// The time of the last successful materialization of a time range.
    pub last_materialized: Option<Micros>,
}

/// The freshness of a view: two times, because a successful load may contain no new rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    /// The time of the last successful load; `None`: never, so the view does not count as loaded.
    pub last_success: Option<Micros>,
    /// The newest event time of any row.
    pub newest_event: Option<Micros>,
}

/// The online store. One process has it open at a time.
pub struct OnlineStore {
    /// Held during a whole write, until readers can see it, so states appear in the order of their commits. `None` if
    /// the file could not be reopened.
    pub(super) writer: Mutex<Option<Database>>,
    pub(super) clock: SharedClock,
    pub(super) hot: HotCache,
    pub(super) metrics: StoreMetrics,
    pub(super) config: StoreConfig,
    pub(super) path: PathBuf,
    /// The state that readers see; a commit replaces it as a whole.
    pub(super) state: ArcSwap<State>,
    /// Whether a read failed in a way that only reopening the file can fix.
    pub(super) failed: AtomicBool,
    /// Damage to the file, and whether it is still at its path.
    pub(super) health: Health,
    /// Whether the database panicked: closing it could abort the process.
    pub(super) gave_up: AtomicBool,
    pub(super) mark: Mark,
    set_aside: Option<Quarantine>,
}

/// The result of a write transaction's work.
pub(super) enum Written<T> {
    /// To be committed; cached copies of the rows in `changed` become invalid.
    Commit { value: T, changed: Vec<EntityId> },
    /// No changes.
    Nothing(T),
}

const FILE_NAME: &str = "online.redb";
/// How long reopening the file waits for requests in progress, which also hold the file.
const READERS_PATIENCE: Duration = Duration::from_secs(5);

impl StoreConfig {
    /// Configures a store in this directory, with production limits.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            page_cache_bytes_max: 256 << 20,
            hot: HotCacheConfig::default(),
            space: SpaceLimits::default(),
            check_on_open: false,
        }
    }
}

// === impl OnlineStore ===

impl OnlineStore {
    /// Opens the store, or creates an empty one if there is none. A damaged file is renamed (`.corrupt-<time>`),
    /// reported by [`OnlineStore::set_aside`], and replaced by an empty store, in which no view counts as loaded.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Newer`], [`StoreError::Io`] and [`StoreError::DiskFull`]: the file stays
    /// unchanged.
    pub fn open(config: &StoreConfig, clock: SharedClock) -> Result<Self, StoreError> {
        let dir = &config.data_dir;
        // Features may be personal data, so other users must not read them. Data that other users write would be
        // served.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|source| StoreError::Io { action: "create", path: dir.clone(), source })?;
        private::open_dir(dir).map_err(|source| StoreError::Io { action: "use", path: dir.clone(), source })?;
        let path = dir.join(FILE_NAME);
        private::claim_file(&path).map_err(|source| StoreError::Io { action: "use", path: path.clone(), source })?;
        let (db, set_aside, mark) = open_or_replace(&path, config, &clock)?;
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
            gave_up: AtomicBool::new(false),
            mark,
            set_aside,
        })
    }

    /// Returns the damaged file that [`OnlineStore::open`] quarantined, if there was one.
    #[must_use]
    pub fn set_aside(&self) -> Option<&Quarantine> {
        self.set_aside.as_ref()
    }

    /// Returns the path of the store file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Declares views and returns their ids, in order. Stored rows of a view stay, unless they were stored under other
    /// keys (another type or name of a join key, another key version): such rows can no longer be found and are
    /// deleted. If a view's features changed, its rows stay and its source will be read from the start.
    ///
    /// # Errors
    /// Errors of a failed transaction.
    pub fn declare(&self, views: &[Arc<FeatureView>], version: KeyVersion) -> Result<Vec<ViewId>, StoreError> {
        self.write(|txn| {
            let mut ids = Vec::with_capacity(views.len());
            let mut changed = false;
            let mut useless = Vec::new();
            let mut recreated = Vec::new();
            {
                let mut table = txn.open_table(VIEWS)?;
                let mut next_id = 0;
                for entry in table.iter()? {
                    let (name, bytes) = entry?;
                    next_id = next_id.max(ViewRecord::decode(name.value(), bytes.value())?.id + 1);
                }
                for view in views {
                    let known = match table.get(&*view.name)? {
                        Some(bytes) => Some(ViewRecord::decode(&view.name, bytes.value())?),
                        None => None,
                    };
                    let record = declared(known.as_ref(), view, version, &mut next_id);
                    let was_created = known.as_ref().and_then(|known| known.created);
                    if was_created.zip(view.created).is_some_and(|(before, now)| before != now) {
                        recreated.push(view.name.to_string());
                    }
                    ids.push(ViewId(record.id));
                    if known.as_ref().is_none_or(|known| known.encode() != record.encode()) {
                        table.insert(&*view.name, record.encode().as_slice())?;
                        changed = true;
                    }
                    let known = known.filter(|known| known.key != record.key);
                    useless.extend(known.map(|known| (&view.name, known)));
                }
            }
            for (view, mut known) in useless {
                if known.rows > 0 {
                    let (rows, has_rows_of_callers) = (known.rows, known.written || known.is_local);
                    if has_rows_of_callers {
                        tracing::warn!(
                            %view, rows,
                            "the keys of the view changed, so its rows are deleted, including rows that callers wrote"
                        );
                    } else {
                        tracing::info!(%view, rows, "the keys of the view changed, so its rows are deleted and loaded again");
                    }
                }
                delete_building(txn, &mut known)?;
                for table in [known.table_name(known.generation), known.written_name()] {
                    txn.delete_table(RowTable::new(&table))?;
                }
            }
            let mut rows = Vec::new();
            for name in recreated {
                // The view was removed and added again before the removal was noticed.
                let mut record = read_record(txn, &name)?;
                drop_rows_of_callers(txn, &name, &mut record, &mut rows)?;
                put_record(txn, &name, &record)?;
            }
            Ok(if changed { Written::Commit { value: ids, changed: rows } } else { Written::Nothing(ids) })
        })
    }

    /// Creates a reader of the currently committed state.
    #[must_use]
    pub fn reader(&self) -> Reader<'_> {
        Reader::new(self, self.state())
    }

    /// Returns the status of a view; `None` while the store is closed.
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

    /// Returns the number of rows of the last load that replaced all others, without rows that callers wrote; `None` if
    /// there was no such load.
    #[must_use]
    pub fn loaded_rows(&self, view: ViewId) -> Option<u64> {
        self.state().view(view).ok()??.record.loaded_rows
    }

    /// Returns the event times of rows of a view's source that are held back until they are due, if there are any.
    #[must_use]
    pub fn postponed(&self, view: ViewId) -> Option<Postponed> {
        self.state().view(view).ok()??.record.postponed
    }

    /// Records a successful materialization of a time range. The view counts as neither loaded nor fresh because of it.
    ///
    /// # Errors
    /// Errors of a failed transaction.
    pub fn note_materialized(&self, view: ViewId) -> Result<(), StoreError> {
        let (name, _) = self.record(view)?;
        self.write(|txn| {
            let mut record = read_record(txn, &name)?;
            record.last_materialized = Some(self.clock.now());
            put_record(txn, &name, &record)?;
            Ok(Written::Commit { value: (), changed: Vec::new() })
        })
    }

    /// Returns the time by the store's clock.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.clock.now()
    }

    /// Returns the schemas that a view's stored rows have, the current one last.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub fn schemas(&self, view: ViewId) -> Result<Arc<[Arc<RowSchema>]>, StoreError> {
        let state = self.state();
        Ok(state.view(view)?.map_or_else(|| Arc::from([]), |view| Arc::clone(&view.schemas)))
    }

    /// Returns the time elapsed since `time`, by the store's clock; zero for a time in the future.
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

    /// Notified when [`OnlineStore::failure`], or which views are loaded or damaged, may have changed.
    #[must_use]
    pub fn health_changes(&self) -> watch::Receiver<()> {
        self.health.changes()
    }

    /// Checks that the file is at its path, and reopens it if a failure closed it or made it unusable for readers. Call
    /// this function every few seconds: writes do the same, but there may be none for hours.
    pub fn check_and_reopen(&self) {
        let checked = self.health.check_file(&self.path);
        // A running commit changes the length; the next check follows soon.
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

    /// Pauses or resumes the addition of rows to the hot cache.
    pub fn close_hot_cache(&self, is_closed: bool) {
        self.hot.set_closed(is_closed);
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

    /// Works like [`OnlineStore::write`] without waiting for the disk: the next commit that waits also flushes this
    /// one.
    pub(super) fn write_lazily<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<Written<T>, StoreError>,
    ) -> Result<T, StoreError> {
        self.write_at(Durability::None, work)
    }

    /// Runs a write transaction and publishes its commit to readers.
    ///
    /// # Errors
    /// Errors of `work` and of the database; nothing of the transaction is visible then. (After an error in the last
    /// step of a commit, it may be on disk anyway and become visible later.)
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
            // A write to a file with a damaged page could destroy more.
            self.repair_locked(&mut writer)?.ok_or(StoreError::Damaged(damage))?;
        }
        if writer.is_none() {
            self.reopen(&mut writer)?;
        }
        let Some(db) = &*writer else { return Err(StoreError::Closed("no database".to_owned())) };
        // The database does not verify its pages, and may panic on a damaged one.
        let written = self.guarded(|| self.write_and_publish(db, durability, work));
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
        // The order matters: see the module documentation of `hot`.
        for id in &changed {
            self.hot.outdate(id, commit);
        }
        let state = State::read(db, commit)?;
        let has_loaded = state.count_unloaded() != self.state.load().count_unloaded();
        self.state.store(Arc::new(state));
        if has_loaded {
            self.health.note_change();
        }
        self.metrics.commits.increment(1);
        // If the next start cannot find the file, the commit is visible, so that the cache stays consistent, but it is
        // not acknowledged.
        self.health.note_len(self.health.check_file(&self.path)?);
        Ok(value)
    }

    /// Closes the file and reopens it. Readers wait meanwhile; if it cannot be reopened, they get errors until it can.
    fn reopen(&self, writer: &mut Option<Database>) -> Result<(), StoreError> {
        // The file at the path is no longer this store.
        self.health.check_file(&self.path)?;
        if self.gave_up.load(Ordering::Relaxed) {
            return Err(StoreError::Closed("it is damaged and will be rebuilt".to_owned()));
        }
        self.failed.store(false, Ordering::Relaxed);
        let (commit, records) = {
            let state = self.state.load();
            (state.commit + 1, state.records())
        };
        let before = self.state.swap(Arc::new(State::reopening(commit, records.clone())));
        let db = writer.take();
        let opened = self.guarded(|| {
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
        self.hot.outdate_all(commit);
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
                tracing::error!(%error, "cannot reopen the store; lookups fail until it succeeds");
                self.state.store(Arc::new(State::closed(commit, &error, records)));
                self.health.note_change();
                Err(error)
            }
        }
    }

    /// Closes the file. Requests also hold it, so this function waits for the ones in progress.
    fn close(&self, db: Option<Database>, mut state: Arc<State>) -> Result<(), StoreError> {
        drop(db);
        let until = Instant::now() + READERS_PATIENCE;
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

    /// Returns whether a read failed only because a write failed, and the store is open again. Waits for the write.
    /// `seen` is [`OnlineStore::seen`] from before the read.
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

    /// Runs `work`, which reads pages, and turns a panic of the database into an error.
    pub(super) fn guarded<T>(&self, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            self.note_panic();
            Err(StoreError::gave_up(&*panic))
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
        self.health.note_damage(what, &self.path, &self.mark, &self.metrics);
    }

    /// Records that the database panicked.
    pub(super) fn note_panic(&self) {
        self.gave_up.store(true, Ordering::Relaxed);
    }

    /// Returns a view's name and record, as readers see them. A writer reads the record again in its transaction.
    pub(super) fn record(&self, view: ViewId) -> Result<(String, ViewRecord), StoreError> {
        let state = self.state();
        let view = state.view(view)?.ok_or_else(|| StoreError::Damaged(format!("no record of view {}", view.0)))?;
        Ok((view.name.clone(), view.record.clone()))
    }
}

/// Builds a view's record after a declaration.
fn declared(known: Option<&ViewRecord>, view: &FeatureView, version: KeyVersion, next_id: &mut u32) -> ViewRecord {
    let key = KeySignature::of(view, version);
    let schema = RowSchema::of_view(view);
    let Some(known) = known else {
        *next_id += 1;
        return ViewRecord { created: view.created, ..ViewRecord::new(*next_id - 1, key, &schema) };
    };
    if known.key != key {
        return ViewRecord { created: view.created, ..known.reset(key, &schema) };
    }
    let mut record = known.clone();
    record.is_retired = false;
    record.created = view.created.or(record.created);
    let current = SchemaRecord::of(&schema);
    if record.schemas.last() != Some(&current) {
        record.schemas.retain(|schema| *schema != current);
        record.schemas.push(current);
        record.position = None;
        // The rows of the interrupted load have the previous schema.
        record.runs.position = None;
    }
    record
}

impl std::fmt::Debug for OnlineStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnlineStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Drop for OnlineStore {
    fn drop(&mut self) {
        let db = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if self.gave_up.load(Ordering::Relaxed) {
            // Closing would write once more. The operating system releases the file.
            std::mem::forget(db);
            return;
        }
        let commit = self.state.load().commit;
        drop(self.state.swap(Arc::new(State::reopening(commit, Vec::new()))));
        drop(db);
        if self.health.failure().is_none() && self.health.check_file(&self.path).is_ok() {
            self.mark.remove();
        }
    }
}
