//! The fixture: a store in a temporary directory, rows built from four numbers, and a naive reference model of a view.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use larder_common::clock::ManualClock;
use larder_model::{
    codec::{KeyVersion, RowBuilder, RowSchema},
    model::{EntityId, Feature, FeatureView, JoinKey, Micros, ScalarType, Tags, ValueRef, WriteMode},
};
use redb::{ReadableDatabase, TableHandle};
use tempfile::TempDir;

use crate::{
    Applied, HotCacheConfig, KeySignature, Load, LoadMode, OnlineStore, RowBatch, StoreConfig, StoreError, ViewId,
};

/// The time of every fixture's clock at the start: a moment on 2025-11-23, in microseconds.
pub(super) const NOW: Micros = 1_763_885_590_000_000;

/// A directory for a store, removed on drop.
pub(super) struct Home {
    dir: TempDir,
    pub(super) clock: Arc<ManualClock>,
    hot_bytes_max: u64,
}

/// A row to write: entity, event time, created time, value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) id: u8,
    pub(super) event: Micros,
    pub(super) created: Option<Micros>,
    pub(super) value: i64,
}

/// The expected rows of a view, by the byte from which their ids are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ReferenceStore(BTreeMap<u8, Change>);

/// Pseudo-random numbers from a seed (SplitMix64). They are the same on every machine.
pub(super) struct Dice(pub(super) u64);

/// In a child process, this variable contains the directory to work in.
const CHILD_DIR: &str = "LARDER_TEST_CHILD_DIR";

pub(super) fn id(byte: u8) -> EntityId {
    // The multiplication spreads ids over the key space, like hashes.
    EntityId([byte.wrapping_mul(37); 16])
}

pub(super) fn change(id: u8, event: Micros, value: i64) -> Change {
    Change { id, event, created: None, value }
}

pub(super) fn batch(changes: &[Change]) -> RowBatch {
    let mut batch = RowBatch::default();
    for change in changes {
        batch.push(id(change.id), &change.row());
    }
    batch
}

/// Creates a view with one integer join key. Each feature is given as `name:Type`.
pub(super) fn view(name: &str, features: &[&str]) -> Arc<FeatureView> {
    let feature = |text: &&str| {
        let (name, value_type) = text.split_once(':').unwrap();
        let value_type = value_type.parse().unwrap();
        Feature { name: name.into(), value_type, description: String::new(), tags: Tags::new() }
    };
    Arc::new(FeatureView {
        name: name.into(),
        entities: vec!["driver".into()],
        join_keys: vec![JoinKey { name: "driver_id".into(), value_type: ScalarType::Int64 }],
        features: features.iter().map(feature).collect(),
        ttl: None,
        source: None,
        batch_source: None,
        push_source: None,
        mode: WriteMode::Upsert,
        description: String::new(),
        tags: Tags::new(),
        created: None,
    })
}

/// Creates the view that rows of [`Change`] belong to.
pub(super) fn plain(name: &str) -> Arc<FeatureView> {
    view(name, &["value:Int64"])
}

/// Returns the key signature of the views that [`plain`] creates.
pub(super) fn key() -> KeySignature {
    KeySignature::of(&plain("any"), KeyVersion::V3)
}

/// Declares views with these names, as [`plain`] creates them.
pub(super) fn declare<const N: usize>(store: &OnlineStore, names: [&str; N]) -> [ViewId; N] {
    store.declare(&names.map(plain), KeyVersion::V3).unwrap().try_into().unwrap()
}

/// Begins a load, applies one batch, and finishes the load.
pub(super) fn load(store: &OnlineStore, view: ViewId, mode: LoadMode, changes: &[Change]) -> Applied {
    let mut load = store.begin_load(view, mode).unwrap();
    load.apply(&batch(changes), Some("midway")).unwrap();
    load.finish(Some("end")).unwrap()
}

/// Begins an upserting load.
pub(super) fn upsert(store: &OnlineStore, view: ViewId) -> Load<'_> {
    store.begin_load(view, LoadMode::Upsert).unwrap()
}

/// Returns the stored rows by visiting all of them.
pub(super) fn walk(store: &OnlineStore, view: ViewId) -> BTreeMap<EntityId, Vec<u8>> {
    let mut rows = BTreeMap::new();
    let visit = |id, row: &[u8]| {
        rows.insert(id, row.to_vec());
        Ok::<(), StoreError>(())
    };
    store.reader().for_each(view, visit).unwrap();
    rows
}

/// Returns the names of the tables in a closed store's file.
pub(super) fn tables(home: &Home) -> Vec<String> {
    let db = redb::Database::open(home.file()).unwrap();
    let txn = db.begin_read().unwrap();
    txn.list_tables().unwrap().map(|table| table.name().to_owned()).collect()
}

/// Expands to the name of a test of the calling module, as the test runner prints it.
macro_rules! test_name {
    ($test:ident) => {{
        // Does not compile if there is no such test.
        let _: fn() = $test;
        module_path!().split_once("::").unwrap().1.to_owned() + "::" + stringify!($test)
    }};
}
pub(super) use test_name;

/// Returns the arguments that run one test of this binary.
pub(super) fn child_args(test: &str) -> [OsString; 4] {
    let exe = std::env::current_exe().unwrap();
    [exe.into(), "--exact".into(), test.into(), "--nocapture".into()]
}

/// Creates the command for a child process that works in `dir`. The child gets the directory from [`child_dir`].
pub(super) fn run_in(dir: &Path, args: impl IntoIterator<Item = OsString>) -> Command {
    let mut args = args.into_iter();
    let mut command = Command::new(args.next().unwrap());
    command.args(args).env(CHILD_DIR, dir);
    command
}

/// In a child process, returns the directory to work in. In an ordinary test run, returns `None`.
pub(super) fn child_dir() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIR).map(PathBuf::from)
}

// === impl Home ===

impl Home {
    pub(super) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), clock: ManualClock::at(NOW), hot_bytes_max: 1 << 20 }
    }

    /// Creates a fixture with a hot cache of this many bytes.
    pub(super) fn with_hot(hot_bytes_max: u64) -> Self {
        Self { hot_bytes_max, ..Self::new() }
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn file(&self) -> PathBuf {
        self.path().join("online.redb")
    }

    pub(super) fn config(&self) -> StoreConfig {
        config(self.path(), self.hot_bytes_max)
    }

    pub(super) fn try_open(&self) -> Result<OnlineStore, StoreError> {
        OnlineStore::open(&self.config(), Arc::clone(&self.clock) as _)
    }

    pub(super) fn open(&self) -> OnlineStore {
        self.try_open().unwrap()
    }

    /// Returns the path of the marker that exists while the store is open, or after its owner ended without closing it.
    pub(super) fn marker(&self) -> PathBuf {
        self.path().join("online.open")
    }

    /// Returns the names of the files in the directory, sorted, without the marker.
    pub(super) fn files(&self) -> Vec<String> {
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<String> = fs::read_dir(self.path()).unwrap().map(name).collect();
        names.retain(|name| *name != "online.open");
        names.sort();
        names
    }
}

pub(super) fn config(dir: &Path, hot_bytes_max: u64) -> StoreConfig {
    StoreConfig {
        page_cache_bytes_max: 4 << 20,
        hot: HotCacheConfig { bytes_max: hot_bytes_max },
        ..StoreConfig::new(dir)
    }
}

// === impl Change ===

impl Change {
    pub(super) fn row(&self) -> Vec<u8> {
        let schema = RowSchema::of(&plain("any").features);
        let mut row = RowBuilder::new(&schema);
        row.begin(self.event, self.created);
        row.push(ValueRef::Int64(self.value)).unwrap();
        row.finish().unwrap().to_vec()
    }
}

// === impl ReferenceStore ===

impl ReferenceStore {
    /// Merges rows one after another by the documented rule.
    pub(super) fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            let age = |change: &Change| (change.event, change.created);
            if self.0.get(&change.id).is_none_or(|kept| age(kept) <= age(change)) {
                self.0.insert(change.id, *change);
            }
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    pub(super) fn row(&self, id: u8) -> Option<Vec<u8>> {
        self.0.get(&id).map(Change::row)
    }

    pub(super) fn rows(&self) -> BTreeMap<EntityId, Vec<u8>> {
        self.0.iter().map(|(&byte, change)| (id(byte), change.row())).collect()
    }

    pub(super) fn newest_event(&self) -> Option<Micros> {
        self.0.values().map(|change| change.event).max()
    }
}

// === impl Dice ===

impl Dice {
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.roll().to_le_bytes()[0]).collect()
    }
}
