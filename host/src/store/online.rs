//! Opening the store and reading rows.

use std::{
    cell::Cell,
    fs,
    hash::{BuildHasher, RandomState},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::{ArcSwap, Guard};
use larder_model::{
    codec::{KeyVersion, RowSchema},
    model::{EntityId, FeatureView, Micros},
};
use redb::{
    Builder, Database, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableError,
    WriteTransaction,
};
use smallvec::SmallVec;

use super::{
    HotCacheConfig, KeySignature, StoreError,
    hot::{FoundRow, HotCache, Row},
    metrics::StoreMetrics,
    record::{META, META_FORMAT, RowKey, RowTable, STORE_FORMAT, SchemaRecord, VIEWS, ViewRecord},
};
use crate::clock::SharedClock;

/// Where the store lies and how much memory it may take.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The directory of the store's file; made if it is not there.
    pub data_dir: PathBuf,
    /// The most bytes of file pages that the embedded database keeps in memory.
    pub page_cache_bytes_max: usize,
    /// The cache of rows above it.
    pub hot: HotCacheConfig,
}

/// Stands for a view in the store for as long as the store exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewId(pub(super) u32);

/// What the store can tell of a view without reading its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewStatus {
    /// How many rows it has.
    pub rows: u64,
    /// The source's words for how far it was read.
    pub position: Option<String>,
    /// How fresh it is.
    pub freshness: Freshness,
}

/// How fresh a view is: two times, because a load that ends well may bring nothing new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    /// When a load last ended well; `None`: never, so the view is not served as loaded.
    pub last_success: Option<Micros>,
    /// The newest event time of any row.
    pub newest_event: Option<Micros>,
}

/// The online store. One process has it open at a time.
pub struct OnlineStore {
    pub(super) db: Database,
    pub(super) clock: SharedClock,
    pub(super) hot: HotCache,
    pub(super) metrics: StoreMetrics,
    path: PathBuf,
    /// What readers see; a commit swaps it whole.
    state: ArcSwap<State>,
    /// Held from a commit until readers see it, so that states appear in the order of their commits.
    pub(super) publishing: Mutex<()>,
    set_aside: Option<SetAside>,
}

/// One committed state, open for reading. It pins the pages of its commit; the next state lets them go.
struct State {
    /// Counts the commits of this process, from 1.
    commit: u64,
    /// By view id.
    views: Vec<Option<ViewState>>,
}

struct ViewState {
    name: String,
    record: ViewRecord,
    schemas: Arc<[Arc<RowSchema>]>,
    /// None before the first commit of rows.
    rows: Option<ReadOnlyTable<RowKey, &'static [u8]>>,
}

/// A damaged file that was moved out of the way when the store was opened.
#[derive(Clone, Debug)]
pub struct SetAside {
    /// Where it is now.
    pub path: PathBuf,
    /// What was wrong with it.
    pub why: String,
}

/// Reads rows in one committed state.
pub struct Reader<'s> {
    store: &'s OnlineStore,
    state: Guard<Arc<State>>,
    counts: Counts,
}

/// What a reader did, told to the metrics once at its end.
#[derive(Default)]
struct Counts {
    hot_hits: Cell<u64>,
    hot_misses: Cell<u64>,
    reads: Cell<u64>,
}

const FILE_NAME: &str = "online.redb";
/// What the file's extension begins with while it is being made.
const UNFINISHED: &str = "new-";

impl StoreConfig {
    /// A store in this directory, with production bounds.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), page_cache_bytes_max: 256 << 20, hot: HotCacheConfig::default() }
    }
}

// === impl OnlineStore ===

impl OnlineStore {
    /// Opens the store, or makes an empty one where there is none. A damaged file is renamed (`.corrupt-<time>`),
    /// reported by [`OnlineStore::set_aside`], and replaced by an empty store, none of whose views counts as loaded.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Newer`], [`StoreError::Io`] and [`StoreError::DiskFull`]: the file stays
    /// as it is.
    pub fn open(config: &StoreConfig, clock: SharedClock) -> Result<Self, StoreError> {
        let dir = &config.data_dir;
        fs::create_dir_all(dir).map_err(|source| StoreError::Io { action: "create", path: dir.clone(), source })?;
        let path = dir.join(FILE_NAME);
        let (db, set_aside) = match open_checked(&path, config) {
            Ok(db) => (db, None),
            Err(StoreError::Damaged(why)) => {
                let aside = set_aside(&path, &clock, why)?;
                (open_checked(&path, config)?, Some(aside))
            }
            Err(other) => return Err(other),
        };
        let state = State::read(&db, 1)?;
        Ok(Self {
            db,
            clock,
            hot: HotCache::new(config.hot),
            metrics: StoreMetrics::bind(),
            path,
            state: ArcSwap::from_pointee(state),
            publishing: Mutex::new(()),
            set_aside,
        })
    }

    /// The damaged file that [`OnlineStore::open`] moved out of the way, if it did.
    #[must_use]
    pub fn set_aside(&self) -> Option<&SetAside> {
        self.set_aside.as_ref()
    }

    /// The store's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes views known, and tells their ids, in order. Stored rows of a view stay, unless they lie under other
    /// keys (another type or name of a join key, another key version): those can never be found again and go.
    /// When a view's features changed, its rows stay and its source will be read from the start.
    ///
    /// # Errors
    /// Those of a failed transaction.
    pub fn declare(&self, views: &[Arc<FeatureView>], version: KeyVersion) -> Result<Vec<ViewId>, StoreError> {
        let mut ids = Vec::with_capacity(views.len());
        let mut txn = self.db.begin_write()?;
        txn.set_quick_repair(true);
        let mut changed = false;
        let mut useless = Vec::new();
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
                ids.push(ViewId(record.id));
                if known.as_ref().is_none_or(|known| known.encode() != record.encode()) {
                    table.insert(&*view.name, record.encode().as_slice())?;
                    changed = true;
                }
                if let Some(known) = known.filter(|known| known.key != record.key) {
                    useless.extend(known.building.map(|building| known.table_name(building)));
                    useless.push(known.table_name(known.generation));
                }
            }
        }
        for table in useless {
            txn.delete_table(RowTable::new(&table))?;
        }
        if changed {
            self.commit(txn, &[])?;
        } else {
            txn.abort()?;
        }
        Ok(ids)
    }

    /// A reader of the state that is committed now.
    #[must_use]
    pub fn reader(&self) -> Reader<'_> {
        Reader { store: self, state: self.state.load(), counts: Counts::default() }
    }

    /// What is known of a view.
    #[must_use]
    pub fn status(&self, view: ViewId) -> Option<ViewStatus> {
        let state = self.state.load();
        let record = &state.view(view)?.record;
        let freshness = Freshness { last_success: record.last_success, newest_event: record.newest_event };
        Some(ViewStatus { rows: record.rows, position: record.position.clone(), freshness })
    }

    /// The schemas that a view's stored rows have, the current one last.
    #[must_use]
    pub fn schemas(&self, view: ViewId) -> Arc<[Arc<RowSchema>]> {
        self.state.load().view(view).map_or_else(|| Arc::from([]), |view| Arc::clone(&view.schemas))
    }

    /// Bytes that the hot cache takes.
    #[must_use]
    pub fn hot_bytes(&self) -> u64 {
        self.hot.weight()
    }

    /// Bytes of the store's file, or 0 if it cannot be asked.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |meta| meta.len())
    }

    /// Commits, and lets readers see it. `changed` are the rows whose copies in memory are old then.
    pub(super) fn commit(&self, txn: WriteTransaction, changed: &[EntityId]) -> Result<(), StoreError> {
        // Another commit in between would be read while older copies of its rows still count.
        let _one_at_a_time = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        txn.commit()?;
        let commit = self.state.load().commit + 1;
        // The order matters: see the module doc of `hot`.
        for id in changed {
            self.hot.outdate(id, commit);
        }
        self.state.store(Arc::new(State::read(&self.db, commit)?));
        self.metrics.commits.increment(1);
        Ok(())
    }

    /// A view's name and record, as readers see them. A writer reads the record again in its transaction.
    pub(super) fn record(&self, view: ViewId) -> Result<(String, ViewRecord), StoreError> {
        let state = self.state.load();
        let view = state.view(view).ok_or_else(|| StoreError::Damaged(format!("no record of view {}", view.0)))?;
        Ok((view.name.clone(), view.record.clone()))
    }
}

/// A view's record after a declaration.
fn declared(known: Option<&ViewRecord>, view: &FeatureView, version: KeyVersion, next_id: &mut u32) -> ViewRecord {
    let key = KeySignature::of(view, version);
    let schema = RowSchema::of(&view.features);
    let Some(known) = known else {
        *next_id += 1;
        return ViewRecord::new(*next_id - 1, key, &schema);
    };
    if known.key != key {
        return known.reset(key, &schema);
    }
    let mut record = known.clone();
    let current = SchemaRecord::of(&schema);
    if record.schemas.last() != Some(&current) {
        record.schemas.retain(|schema| *schema != current);
        record.schemas.push(current);
        record.position = None;
    }
    record
}

/// Opens the file and checks that it is a store of ours with everything in it that its records promise.
fn open_checked(path: &Path, config: &StoreConfig) -> Result<Database, StoreError> {
    let new = match fs::metadata(path) {
        Ok(meta) => meta.len() == 0,
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(source) => return Err(StoreError::Io { action: "open", path: path.to_owned(), source }),
    };
    let mut builder = Database::builder();
    builder.set_cache_size(config.page_cache_bytes_max);
    // A file of arbitrary bytes must not end the process, whatever it does inside the database.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        if new {
            return create(&builder, path);
        }
        let db = builder.create(path).map_err(|error| open_error(path, error))?;
        check(&db, path)?;
        remove_unfinished(path);
        Ok(db)
    }));
    opened.unwrap_or_else(|panic| {
        let words =
            panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(StoreError::Damaged(format!("the database gave up: {}", words.unwrap_or("no reason given"))))
    })
}

/// Makes a new store under another name first and gives it its own when it is whole: a process that is killed in
/// between leaves nothing that the next one would take for a damaged store.
fn create(builder: &Builder, path: &Path) -> Result<Database, StoreError> {
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::Io { action, path, source }
    };
    // A name that nobody else has, not even a process of the same number in another container.
    let unfinished = path.with_extension(format!("{UNFINISHED}{:016x}", RandomState::new().hash_one(0)));
    match fs::metadata(path) {
        // An empty file, as `touch` makes it, only holds the name.
        Ok(meta) if meta.len() == 0 => fs::remove_file(path).map_err(io("replace", path))?,
        _ => {}
    }
    let db = builder.create(&unfinished).map_err(|error| open_error(path, error));
    let made = db.and_then(|db| {
        initialize(&db)?;
        // A link and not a rename: of two processes that start at once, one finds the name taken.
        fs::hard_link(&unfinished, path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => StoreError::InUse { path: path.to_owned() },
            _ => io("create", path)(source),
        })?;
        Ok(db)
    });
    // Left to the next start is as good.
    let _ = fs::remove_file(&unfinished);
    made
}

/// Removes what creations that were cut off left behind. One that is under way beside us has lost its race: the store
/// is there.
fn remove_unfinished(path: &Path) {
    let Some(entries) = path.parent().and_then(|dir| fs::read_dir(dir).ok()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let extension = Path::new(&name).extension().map(|extension| extension.to_string_lossy().into_owned());
        if extension.is_some_and(|extension| extension.starts_with(UNFINISHED)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn open_error(path: &Path, error: redb::DatabaseError) -> StoreError {
    match error {
        redb::DatabaseError::DatabaseAlreadyOpen | redb::DatabaseError::LockProtocolMismatch => {
            StoreError::InUse { path: path.to_owned() }
        }
        other => match redb::Error::from(other).into() {
            StoreError::Database(error) => match *error {
                redb::Error::Io(source) => StoreError::Io { action: "open", path: path.to_owned(), source },
                other => StoreError::Database(Box::new(other)),
            },
            known => known,
        },
    }
}

fn initialize(db: &Database) -> Result<(), StoreError> {
    let mut txn = db.begin_write()?;
    txn.set_quick_repair(true);
    txn.open_table(META)?.insert(META_FORMAT, u64::from(STORE_FORMAT))?;
    txn.open_table(VIEWS)?;
    txn.commit()?;
    Ok(())
}

fn check(db: &Database, path: &Path) -> Result<(), StoreError> {
    let txn = db.begin_read()?;
    let missing = |what: &str| StoreError::Damaged(format!("it has no {what}"));
    let format = match txn.open_table(META) {
        Ok(meta) => meta.get(META_FORMAT)?.map(|format| format.value()),
        Err(TableError::TableDoesNotExist(_)) => None,
        Err(other) => return Err(other.into()),
    };
    let found = u32::try_from(format.ok_or_else(|| missing("format record"))?).unwrap_or(u32::MAX);
    if found > STORE_FORMAT {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: STORE_FORMAT });
    }
    // Reading the state opens every table; counting its rows is one look at the tree's root.
    let state = State::read(db, 0)?;
    for view in state.views.iter().flatten() {
        let rows = view.rows.as_ref().map_or(Ok(0), ReadableTableMetadata::len)?;
        if rows != view.record.rows {
            let message = format!("view '{}' has {rows} rows, its record says {}", view.name, view.record.rows);
            return Err(StoreError::Damaged(message));
        }
    }
    Ok(())
}

fn set_aside(path: &Path, clock: &SharedClock, why: String) -> Result<SetAside, StoreError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".corrupt-{}", clock.now() / 1_000_000));
    let aside = PathBuf::from(aside);
    fs::rename(path, &aside).map_err(|source| StoreError::Io { action: "rename", path: path.to_owned(), source })?;
    tracing::error!(path = %path.display(), moved_to = %aside.display(), why, "store is damaged; it was set aside and is rebuilt from the sources");
    Ok(SetAside { path: aside, why })
}

// === impl State ===

impl State {
    /// Opens everything that is committed now.
    fn read(db: &Database, commit: u64) -> Result<Self, StoreError> {
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
        Ok(Self { commit, views })
    }

    fn view(&self, view: ViewId) -> Option<&ViewState> {
        self.views.get(view.0 as usize)?.as_ref()
    }
}

// === impl Reader ===

impl Reader<'_> {
    /// The row of an entity in one view, if there is one: from memory, else from disk.
    ///
    /// # Errors
    /// Those of a failed read.
    pub fn get(&self, view: ViewId, id: &EntityId) -> Result<Option<Row>, StoreError> {
        let mut found = None;
        self.get_each(&[view], id, |_, row| found = row)?;
        Ok(found)
    }

    /// The rows of an entity in several views, told one by one with the view's place in `views`.
    ///
    /// # Errors
    /// Those of a failed read.
    pub fn get_each(
        &self,
        views: &[ViewId],
        id: &EntityId,
        mut tell: impl FnMut(usize, Option<Row>),
    ) -> Result<(), StoreError> {
        let known = self.store.hot.get(id, self.state.commit);
        let mut fresh: SmallVec<[FoundRow; 4]> = SmallVec::new();
        for (place, &view) in views.iter().enumerate() {
            let Some(state) = self.state.view(view) else {
                tell(place, None);
                continue;
            };
            let generation = state.record.generation;
            if let Some(row) = known.as_ref().and_then(|known| known.row(view, generation)) {
                self.counts.hot_hits.update(|count| count + 1);
                tell(place, row);
                continue;
            }
            self.counts.hot_misses.update(|count| count + 1);
            let row = self.read(state, id)?;
            fresh.push(FoundRow { view, generation, row: row.clone() });
            tell(place, row);
        }
        if !fresh.is_empty() {
            self.store.hot.put(id, known.as_deref(), &fresh, self.state.commit);
        }
        Ok(())
    }

    /// Walks all rows of a view, in the order of their ids.
    ///
    /// # Errors
    /// Those of a failed read, and what `visit` returns.
    pub fn for_each<E: From<StoreError>>(
        &self,
        view: ViewId,
        mut visit: impl FnMut(EntityId, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(table) = self.state.view(view).and_then(|view| view.rows.as_ref()) else { return Ok(()) };
        for entry in table.iter().map_err(StoreError::from)? {
            let (id, row) = entry.map_err(StoreError::from)?;
            visit(EntityId(*id.value()), row.value())?;
        }
        Ok(())
    }

    fn read(&self, view: &ViewState, id: &EntityId) -> Result<Option<Row>, StoreError> {
        let Some(table) = &view.rows else { return Ok(None) };
        self.counts.reads.update(|count| count + 1);
        Ok(table.get(&id.0)?.map(|row| Row::copy_of(row.value())))
    }
}

impl std::fmt::Debug for OnlineStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnlineStore").field("path", &self.path).finish_non_exhaustive()
    }
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
