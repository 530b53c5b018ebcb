//! DynamoDB in memory, over its own protocol, with a script for what its streams do.
//!
//! Spoken is JSON 1.0: `POST /`, the operation in `X-Amz-Target`. What operations do and which errors they have is from
//! AWS's API reference (2012-08-10), as far as a reader and a writer of feature tables meet it. Not modelled: capacity,
//! indexes, transactions, filter expressions, projections, deletion by ttl.

mod operations;
mod streams;
mod table;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response};
use serde_json::{Value, json};

use self::table::Table;
use crate::serve::{Running, serve};

/// A DynamoDB; it ends with its last handle.
#[derive(Clone, Debug)]
pub struct FakeDynamo {
    state: Arc<Mutex<State>>,
    running: Arc<Running>,
}

/// A shard, as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardInfo {
    /// Its id.
    pub id: String,
    /// Its parent's.
    pub parent: Option<String>,
    /// Whether nothing is added to it any more.
    pub is_closed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    tables: BTreeMap<String, Table>,
    /// Counts everything that needs a new name.
    counter: u64,
    /// Iterators of an epoch before this one have expired.
    epoch: u64,
    calls: BTreeMap<String, u64>,
    throttled: BTreeMap<String, u64>,
    /// The next answers of GetRecords without records.
    empty_pages: u64,
    /// The next answers of Scan without items.
    empty_scan_pages: u64,
    /// The next batches of which a part is left over.
    left_over: u64,
    /// The next answers of DescribeTable that say that the table is being made.
    creating: u64,
    /// Items of one page of a scan.
    page_items: usize,
    /// Shards of one page of DescribeStream.
    page_shards: usize,
    /// How many records the next GetRecords tells once more.
    redeliver: usize,
}

/// Why an operation is refused.
pub(crate) struct Refusal(pub(crate) &'static str, pub(crate) String);

impl Default for FakeDynamo {
    fn default() -> Self {
        Self::start()
    }
}

// === impl FakeDynamo ===

impl FakeDynamo {
    /// Starts one, on a free port of loopback.
    #[must_use]
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State { page_items: 1_000, page_shards: 100, ..State::default() }));
        let answering = Arc::clone(&state);
        let running = serve(move |request| {
            let answer = respond(&answering, &request);
            async { answer }
        });
        Self { state, running: Arc::new(running) }
    }

    /// Where it answers.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.running.address)
    }

    /// The same as an address.
    #[must_use]
    pub fn address(&self) -> std::net::SocketAddr {
        self.running.address
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, table: &str, work: impl FnOnce(&mut Table, &mut u64) -> T) -> T {
        let mut state = self.state();
        let State { tables, counter, .. } = &mut *state;
        work(tables.get_mut(table).unwrap_or_else(|| panic!("no table '{table}'")), counter)
    }

    /// Makes a table with these key attributes, the partition key first; with a stream of this view type, if one is named.
    pub fn create_table(&self, name: &str, keys: &[(&str, &str)], stream: Option<&str>) {
        let mut state = self.state();
        state.counter += 1;
        let keys = keys.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect();
        let mut table = Table::new(name, keys, state.counter);
        if let Some(view) = stream {
            table.enable_stream(view, &mut state.counter);
        }
        state.tables.insert(name.to_owned(), table);
    }

    /// Puts an item, in DynamoDB's JSON.
    pub fn put(&self, table: &str, item: Value) {
        self.with(table, |table, counter| table.put(item, counter));
    }

    /// Deletes the item of a key.
    pub fn delete(&self, table: &str, key: &Value) {
        self.with(table, |table, counter| table.delete(key, counter));
    }

    /// Its items.
    #[must_use]
    pub fn items(&self, table: &str) -> Vec<Value> {
        self.with(table, |table, _| table.items.values().cloned().collect())
    }

    /// The shards of a table's stream that it lists.
    #[must_use]
    pub fn shards(&self, table: &str) -> Vec<ShardInfo> {
        self.with(table, |table, _| {
            table.stream_now().shards.iter().filter(|shard| shard.is_listed).map(|s| s.info()).collect()
        })
    }

    /// Closes a shard, and opens two that share its keys.
    pub fn split(&self, table: &str, shard: &str) {
        self.with(table, |table, counter| table.stream_now().replace(shard, 2, counter));
    }

    /// Closes every open shard, and opens one in the place of each.
    pub fn rotate(&self, table: &str) {
        self.with(table, |table, counter| {
            let open: Vec<String> = table
                .stream_now()
                .shards
                .iter()
                .filter(|shard| !shard.is_closed)
                .map(|shard| shard.id.clone())
                .collect();
            open.iter().for_each(|shard| table.stream_now().replace(shard, 1, counter));
        });
    }

    /// Forgets closed shards: children whose parents are gone stay.
    pub fn trim_closed(&self, table: &str) {
        self.with(table, |table, _| {
            table
                .stream_now()
                .shards
                .iter_mut()
                .filter(|shard| shard.is_closed)
                .for_each(|shard| shard.is_listed = false);
        });
    }

    /// Forgets all records so far.
    pub fn trim_records(&self, table: &str) {
        self.with(table, |table, _| {
            table.stream_now().shards.iter_mut().for_each(|shard| shard.trimmed = shard.records.len());
        });
    }

    /// Lets all iterators expire that were handed out.
    pub fn expire_iterators(&self) {
        self.state().epoch += 1;
    }

    /// The next `n` answers of GetRecords have no records, whatever there is.
    pub fn empty_pages(&self, n: u64) {
        self.state().empty_pages = n;
    }

    /// The next `n` pages of scans have no items, and a key to go on from.
    pub fn empty_scan_pages(&self, n: u64) {
        self.state().empty_scan_pages = n;
    }

    /// Of the next `n` batches one half is left over.
    pub fn left_over(&self, n: u64) {
        self.state().left_over = n;
    }

    /// The next `n` answers of DescribeTable say that the table is being made.
    pub fn creating(&self, n: u64) {
        self.state().creating = n;
    }

    /// How many items a page of a scan has at most.
    pub fn page_items(&self, n: usize) {
        self.state().page_items = n;
    }

    /// How many shards a page of DescribeStream has at most.
    pub fn page_shards(&self, n: usize) {
        self.state().page_shards = n;
    }

    /// The next answer of GetRecords begins with the `n` records that came before.
    pub fn redeliver(&self, n: usize) {
        self.state().redeliver = n;
    }

    /// Withholds records of a table from now on.
    pub fn hold(&self, table: &str) {
        self.with(table, |table, _| table.stream_now().hold(true));
    }

    /// Shows what was withheld.
    pub fn release(&self, table: &str) {
        self.with(table, |table, _| table.stream_now().hold(false));
    }

    /// Turns the stream off.
    pub fn disable_stream(&self, table: &str) {
        self.with(table, |table, _| table.stream = None);
    }

    /// Turns on a new one.
    pub fn enable_stream(&self, table: &str, view: &str) {
        self.with(table, |table, counter| table.enable_stream(view, counter));
    }

    /// Another table in the place of this one, of the same name and keys, without items.
    pub fn recreate(&self, name: &str) {
        let mut state = self.state();
        state.counter += 1;
        let State { tables, counter, .. } = &mut *state;
        let Some(old) = tables.get(name) else { panic!("no table '{name}'") };
        let mut table = Table::new(name, old.keys.clone(), *counter);
        if let Some(stream) = &old.stream {
            table.enable_stream(&stream.view, counter);
        }
        tables.insert(name.to_owned(), table);
    }

    /// A record of an item that has its key and nothing else, as some imitations send it.
    pub fn phantom_insert(&self, table: &str, key: &Value) {
        self.with(table, |table, counter| table.record("INSERT", key.clone(), Some(key.clone()), None, counter));
    }

    /// The next `n` calls of an operation are refused for too many requests.
    pub fn throttle(&self, operation: &str, n: u64) {
        self.state().throttled.insert(operation.to_owned(), n);
    }

    /// How often each operation was called.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.state().calls.clone()
    }
}

fn respond(state: &Mutex<State>, request: &Request<Bytes>) -> Response<Full<Bytes>> {
    let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
    let body: Value = serde_json::from_slice(request.body()).unwrap_or(Value::Null);
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    *state.calls.entry(operation.clone()).or_default() += 1;
    let throttled = state.throttled.get_mut(&operation).filter(|left| **left > 0).map(|left| *left -= 1).is_some();
    let answer = if throttled {
        Err(Refusal("ProvisionedThroughputExceededException", "slow down".to_owned()))
    } else {
        state.answer(&operation, &body)
    };
    let (status, body) = match answer {
        Ok(body) => (200, body),
        Err(Refusal(kind, message)) => {
            (400, json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{kind}"), "message": message }))
        }
    };
    let body = body.to_string();
    Response::builder()
        .status(status)
        .header("content-type", "application/x-amz-json-1.0")
        .header("x-amzn-requestid", "FAKE")
        .header("x-amz-crc32", crc32fast::hash(body.as_bytes()).to_string())
        .body(Full::from(body))
        .expect("the head is valid")
}
