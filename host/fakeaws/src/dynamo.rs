//! A fake DynamoDB in memory. It implements DynamoDB's protocol, and tests can script the behavior of its tables and
//! streams.
//!
//! The protocol is JSON 1.0: `POST /`, with the operation in `X-Amz-Target`. Operations and their errors follow AWS's
//! API reference (2012-08-10), as far as a reader and a writer of feature tables need them. Operations and expressions
//! that are not supported are rejected, and so are the unsupported parameters that `expressions.rs` lists.

mod expressions;
mod items;
mod pages;
mod projection;
mod script;
mod stream;
mod streams;
mod table;
mod value;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response};
use serde_json::{Value, json};

use self::table::Table;
use crate::serve::{Running, serve};

/// The prefix of all ARNs.
const ACCOUNT: &str = "arn:aws:dynamodb:eu-west-1:123456789012";

/// A fake DynamoDB. The server stops when its last handle is dropped.
///
/// Tests script the server with the methods of this type. The methods take effect immediately and do not use the
/// network. They panic if a table or an open shard does not exist, or if another argument is invalid.
#[derive(Clone, Debug)]
pub struct FakeDynamo {
    state: Arc<Mutex<State>>,
    running: Arc<Running>,
}

/// The state of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardInfo {
    /// The shard's ID.
    pub id: String,
    /// The ID of the parent shard, which may already be removed.
    pub parent: Option<String>,
    /// Whether the shard is closed, so that it gets no more records.
    pub is_closed: bool,
}

#[derive(Debug)]
pub(crate) struct State {
    tables: BTreeMap<String, Table>,
    /// A counter for IDs and sequence numbers.
    counter: u64,
    /// The current epoch. Iterators from an earlier epoch have expired.
    epoch: u64,
    calls: BTreeMap<String, u64>,
    throttled: BTreeMap<String, u64>,
    /// The number of empty GetRecords responses that each shard returns before it returns records.
    empty_pages: u64,
    /// The number of empty GetRecords responses that each shard has already returned.
    emptied: BTreeMap<String, u64>,
    /// The number of further scan pages that are returned without items.
    empty_scan_pages: u64,
    /// The number of further DescribeTable responses that have the status CREATING.
    creating: u64,
    /// The number of further BatchGetItem calls that leave some keys unprocessed.
    unprocessed_keys: u64,
    /// The number of further BatchWriteItem calls that leave some writes unprocessed.
    unprocessed_items: u64,
    /// The maximum number of items in a page of a scan or a query.
    page_items: usize,
    /// The maximum number of keys that a BatchGetItem call processes.
    batch_get_items: usize,
    /// Whether the response has a key from which to continue if the page is full and ends with the last item.
    full_page_has_key: bool,
    /// The maximum number of shards in a page of DescribeStream.
    page_shards: usize,
    /// The maximum number of earlier records that the next GetRecords call repeats, if the shard has records before the
    /// call's position.
    redeliver: usize,
    /// The maximum number of concurrent readers of a shard.
    readers_max: usize,
    /// For each shard, the readers and the time of each reader's last read.
    readers: BTreeMap<String, BTreeMap<u64, Instant>>,
}

/// Why an operation is rejected: DynamoDB's error type and message.
struct Rejection(&'static str, String);

type OperationResult = Result<Value, Rejection>;

fn invalid(message: &str) -> Rejection {
    Rejection("ValidationException", message.to_owned())
}

fn missing(what: &str) -> Rejection {
    Rejection("ResourceNotFoundException", format!("Requested resource not found: {what} not found"))
}

/// Returns the string with this name in a body; an empty string if it is absent.
fn text<'v>(body: &'v Value, name: &str) -> &'v str {
    body.get(name).and_then(Value::as_str).unwrap_or_default()
}

impl Default for State {
    fn default() -> Self {
        Self {
            tables: BTreeMap::new(),
            counter: 0,
            epoch: 0,
            calls: BTreeMap::new(),
            throttled: BTreeMap::new(),
            empty_pages: 0,
            emptied: BTreeMap::new(),
            empty_scan_pages: 0,
            creating: 0,
            unprocessed_keys: 0,
            unprocessed_items: 0,
            page_items: usize::MAX,
            batch_get_items: usize::MAX,
            full_page_has_key: false,
            page_shards: streams::SHARDS_MAX,
            redeliver: 0,
            readers_max: usize::MAX,
            readers: BTreeMap::new(),
        }
    }
}

impl Default for FakeDynamo {
    fn default() -> Self {
        Self::start()
    }
}

// === impl FakeDynamo ===

impl FakeDynamo {
    /// Starts a server on a free loopback port.
    #[must_use]
    pub fn start() -> Self {
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let running = serve(move |request| {
            let response = respond(&shared, &request);
            async { response }
        });
        Self { state, running: Arc::new(running) }
    }

    /// Returns the server's URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.running.address)
    }

    /// Returns the server's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.running.address
    }
}

fn respond(state: &Mutex<State>, request: &Request<Bytes>) -> Response<Full<Bytes>> {
    let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let result = match serde_json::from_slice(request.body()) {
        _ if request.method() != "POST" || request.uri().path() != "/" => Err(unknown(target)),
        Ok(body) => state.call(target, &body),
        Err(error) => Err(Rejection("SerializationException", error.to_string())),
    };
    let (status, body) = match result {
        Ok(body) => (200, body),
        Err(Rejection(kind, message)) => {
            (400, json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{kind}"), "message": message }))
        }
    };
    state.counter += 1;
    let body = body.to_string();
    Response::builder()
        .status(status)
        .header("content-type", "application/x-amz-json-1.0")
        .header("x-amzn-requestid", format!("FAKE{:048}", state.counter))
        .header("x-amz-crc32", crc32fast::hash(body.as_bytes()).to_string())
        .body(Full::from(body))
        .expect("the head is valid")
}

fn unknown(target: &str) -> Rejection {
    Rejection("UnknownOperationException", format!("'{target}' is not an operation"))
}

// === impl State ===

impl State {
    fn call(&mut self, target: &str, body: &Value) -> OperationResult {
        let (service, operation) = target.rsplit_once('.').unwrap_or_default();
        *self.calls.entry(operation.to_owned()).or_default() += 1;
        if let Some(left) = self.throttled.get_mut(operation).filter(|left| **left > 0) {
            *left -= 1;
            return Err(Rejection(
                "ProvisionedThroughputExceededException",
                "The level of configured provisioned throughput for the table was exceeded.".to_owned(),
            ));
        }
        match (service, operation) {
            ("DynamoDB_20120810", "CreateTable") => self.create_table_from(body),
            ("DynamoDB_20120810", "DescribeTable") => {
                let mut described = self.table(body)?.describe();
                if self.creating > 0 {
                    self.creating -= 1;
                    described["TableStatus"] = json!("CREATING");
                }
                Ok(json!({ "Table": described }))
            }
            ("DynamoDB_20120810", "DeleteTable") => self.delete_table(body),
            ("DynamoDB_20120810", "PutItem") => self.put_item(body),
            ("DynamoDB_20120810", "DeleteItem") => self.delete_item(body),
            ("DynamoDB_20120810", "GetItem") => self.get_item(body),
            ("DynamoDB_20120810", "BatchGetItem") => self.batch_get(body),
            ("DynamoDB_20120810", "BatchWriteItem") => self.batch_write(body),
            ("DynamoDB_20120810", "Scan") => self.scan(body),
            ("DynamoDB_20120810", "Query") => self.query(body),
            ("DynamoDB_20120810", "DescribeTimeToLive") => self.describe_ttl(body),
            ("DynamoDB_20120810", "UpdateTimeToLive") => self.update_ttl(body),
            ("DynamoDBStreams_20120810", "ListStreams") => self.list_streams(body),
            ("DynamoDBStreams_20120810", "DescribeStream") => self.describe_stream(body),
            ("DynamoDBStreams_20120810", "GetShardIterator") => self.shard_iterator(body),
            ("DynamoDBStreams_20120810", "GetRecords") => self.records(body),
            _ => Err(unknown(target)),
        }
    }

    fn table(&self, body: &Value) -> Result<&Table, Rejection> {
        let name = text(body, "TableName");
        self.tables.get(name).ok_or_else(|| missing(&format!("Table: {name}")))
    }

    fn table_to_write(&mut self, name: &str) -> Result<(&mut Table, &mut u64), Rejection> {
        let Self { tables, counter, .. } = self;
        let table = tables.get_mut(name).ok_or_else(|| missing(&format!("Table: {name}")))?;
        Ok((table, counter))
    }
}
