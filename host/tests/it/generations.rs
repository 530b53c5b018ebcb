//! A source in which every value identifies the generation that wrote it, so that tests detect rows that mix two
//! generations.
//!
//! There are two views of the same accounts. Each sync of `account_stats` upserts rows, and each sync of
//! `balance_stats` replaces all rows. A generation has several files, so that a sync commits often. One file has more
//! rows than a batch, so that some commits have a position within a file.

use std::{
    collections::HashMap,
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::Int64Type,
};
use larder::config::{Config, load_definitions};
use larder_common::clock::ManualClock;
use larder_model::{
    codec::{KeyEncoder, KeyValue, RowSchema, RowView},
    model::{EntityId, ValueRef},
};
use larder_store::{OnlineStore, StoreError, ViewId};
use parquet::arrow::ArrowWriter;
use serde_json::Value;

use crate::{binary::Home, fixture::RECORDED_AT};

/// The number of rows in each file of the upserted view.
const FILES: [u64; 11] = [300, 300, 300, 300, 300, 17_000, 300, 300, 300, 300, 300];
/// The number of rows in each file of the replaced view. Its files are small, because a replacing load has no usable
/// position before its end.
const REPLACED_FILES: [u64; 14] = [300; 14];
/// An upper bound for the number of accounts of a generation.
const ACCOUNTS: usize = 20_000;
/// In every second generation, the accounts of the replaced view begin with this number instead of 0, so that each
/// generation adds accounts and removes others.
const SHIFT: u64 = 150;

/// The views in the order in which they are synced.
pub(crate) const VIEWS: [&str; 2] = ["account_stats", "balance_stats"];

const DEFINITIONS: &str = "
entities: [{name: account, join_key: account_id, type: Int64}]
feature_views:
  - name: account_stats
    entities: [account]
    source: {path: data/account_stats}
    features: &features
      - {name: number, type: Int64}
      - {name: words, type: String}
      - {name: fraction, type: Float64}
  - name: balance_stats
    entities: [account]
    mode: replace
    source: {path: data/balance_stats}
    features: *features
";

/// The generation of each account's row; `None` if there is no row.
pub(crate) type Rows = Vec<Option<u64>>;

/// The stored state of one view.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The generations of its rows.
    pub(crate) rows: Rows,
    /// For each current file, the number of rows that have been read according to the position.
    pub(crate) read: Vec<u64>,
}

/// A Larder with such a source, which runs as a separate program.
pub(crate) struct Generations {
    pub(crate) home: Home,
    ids: HashMap<EntityId, u64>,
}

/// Returns the first account of a view in a generation.
fn first(view: &str, generation: u64) -> u64 {
    if view == VIEWS[1] { generation % 2 * SHIFT } else { 0 }
}

/// Returns the number of rows in each file of a view.
fn files(view: &str) -> &'static [u64] {
    if view == VIEWS[1] { &REPLACED_FILES } else { &FILES }
}

fn words(account: u64, generation: u64) -> String {
    format!("account {account} of generation {generation}")
}

#[expect(clippy::cast_precision_loss, reason = "generations are small")]
fn fraction(generation: u64) -> f64 {
    generation as f64 + 0.5
}

fn event_time(generation: u64) -> i64 {
    RECORDED_AT + i64::try_from(generation).unwrap() * 1_000_000
}

/// Returns the rows of a view when a generation is completely loaded.
pub(crate) fn rows_of(view: &str, generation: u64) -> Rows {
    let mut rows = vec![None; ACCOUNTS];
    if generation > 0 {
        let start = place(first(view, generation));
        rows[start..start + place(files(view).iter().sum())].fill(Some(generation));
    }
    rows
}

/// Returns the rows of the upserted view if the previous generation is complete, and this many rows of each file of
/// `generation` were read after it.
pub(crate) fn rows_at(view: &str, generation: u64, read: &[u64]) -> Rows {
    let mut rows = rows_of(view, generation - 1);
    let mut start = 0;
    for (file, read) in files(view).iter().zip(read) {
        rows[place(start)..place(start + read)].fill(Some(generation));
        start += file;
    }
    rows
}

pub(crate) fn is_read_whole(view: &str, read: &[u64]) -> bool {
    read == files(view)
}

fn place(account: u64) -> usize {
    usize::try_from(account).unwrap()
}

// === impl Generations ===

impl Generations {
    pub(crate) fn new() -> Self {
        let home = Home::with(DEFINITIONS);
        home.configure("sync: {commit_rows: 300}\n");
        let encoder = KeyEncoder::new(larder_model::codec::KeyVersion::V3, ["account_id"]);
        let mut buffer = Vec::new();
        let mut id = |account: u64| encoder.encode([KeyValue::Int64(account.cast_signed())], &mut buffer);
        let ids = (0..ACCOUNTS as u64).map(|account| (id(account), account)).collect();
        Self { home, ids }
    }

    /// Replaces the files with the files of a generation.
    pub(crate) fn write(&self, generation: u64) {
        for view in VIEWS {
            let mut start = first(view, generation);
            fs::create_dir_all(self.home.path(&format!("data/{view}"))).unwrap();
            for (number, rows) in files(view).iter().enumerate() {
                let (path, unfinished) = (self.file(view, number), self.home.path("unfinished"));
                let batch = batch(start..start + rows, generation);
                let mut writer =
                    ArrowWriter::try_new(File::create(&unfinished).unwrap(), batch.schema(), None).unwrap();
                writer.write(&batch).unwrap();
                writer.close().unwrap();
                fs::rename(unfinished, path).unwrap();
                start += rows;
            }
        }
    }

    fn file(&self, view: &str, number: usize) -> PathBuf {
        self.home.path(&format!("data/{view}/{number:02}.parquet"))
    }

    pub(crate) fn open(&self) -> OnlineStore {
        OnlineStore::open(&self.config().store, ManualClock::at(RECORDED_AT)).unwrap()
    }

    fn config(&self) -> Config {
        Config::load(&self.home.path("larder.yaml"), &|_: &str| None).unwrap()
    }

    /// Returns the state of the store. Panics if a row has values of several generations, or belongs to an account that
    /// was never written.
    pub(crate) fn stored(&self, store: &OnlineStore) -> [Stored; 2] {
        let catalog = load_definitions(&self.config()).unwrap().catalog;
        let ids = store.declare(catalog.views(), catalog.key_version()).unwrap();
        let of = |place: usize| {
            let view = &catalog.views()[place];
            assert_eq!(&*view.name, VIEWS[place]);
            let rows = self.rows(store, ids[place], &RowSchema::of(&view.features));
            let status = store.status(ids[place]).unwrap();
            assert_eq!(status.rows, rows.iter().flatten().count() as u64, "the number of rows in the record");
            Stored { rows, read: self.read(VIEWS[place], status.position.as_deref()) }
        };
        [of(0), of(1)]
    }

    /// Returns how many rows of each file of the upserted view a first load has read that is not served yet.
    pub(crate) fn built(&self, store: &OnlineStore) -> Vec<u64> {
        let catalog = load_definitions(&self.config()).unwrap().catalog;
        let ids = store.declare(catalog.views(), catalog.key_version()).unwrap();
        self.read(VIEWS[0], store.interrupted(ids[0]).map(|cut_off| cut_off.position).as_deref())
    }

    fn rows(&self, store: &OnlineStore, view: ViewId, schema: &RowSchema) -> Rows {
        let mut rows = rows_of(VIEWS[0], 0);
        let visit = |id: EntityId, bytes: &[u8]| {
            let account = *self.ids.get(&id).expect("a row of an account that was never written");
            let row = RowView::new(schema, bytes).unwrap();
            let values = [row.get(0).unwrap(), row.get(1).unwrap(), row.get(2).unwrap()];
            let ValueRef::Int64(number) = values[0] else { panic!("account {account}: {values:?}") };
            let generation = number.cast_unsigned();
            let words = words(account, generation);
            let whole = [values[0], ValueRef::Bytes(words.as_bytes()), ValueRef::Float64(fraction(generation))];
            assert_eq!(values, whole, "account {account}: a row of two generations");
            assert_eq!(row.event_time(), event_time(generation), "account {account}");
            rows[place(account)] = Some(generation);
            Ok::<(), StoreError>(())
        };
        store.reader().for_each(view, visit).unwrap();
        rows
    }

    /// Returns how many rows of each current file have been read according to a position.
    fn read(&self, view: &str, position: Option<&str>) -> Vec<u64> {
        let position: Value = position.map_or(Value::Null, |position| serde_json::from_str(position).unwrap());
        let of = |number: usize| {
            let path = self.file(view, number);
            let known = &position["files"][path.file_name().unwrap().to_str().unwrap()];
            // If a file was replaced since then, no rows of the new file have been read.
            let same = known["stamp"]["inode"].as_u64() == Some(fs::metadata(path).unwrap().ino());
            if same { known["rows_read"].as_u64().unwrap() } else { 0 }
        };
        (0..files(view).len()).map(of).collect()
    }
}

fn batch(accounts: std::ops::Range<u64>, generation: u64) -> RecordBatch {
    let rows = usize::try_from(accounts.end - accounts.start).unwrap();
    let number = generation.cast_signed();
    let ids: Int64Array = accounts.clone().map(u64::cast_signed).collect::<arrow::array::PrimitiveArray<Int64Type>>();
    let columns: [(&str, ArrayRef); 5] = [
        ("account_id", Arc::new(ids)),
        ("event_timestamp", Arc::new(TimestampMicrosecondArray::from_value(event_time(generation), rows))),
        ("number", Arc::new(Int64Array::from_value(number, rows))),
        ("words", Arc::new(accounts.map(|account| Some(words(account, generation))).collect::<StringArray>())),
        ("fraction", Arc::new(Float64Array::from_value(fraction(generation), rows))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}
