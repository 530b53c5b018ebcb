//! Writes rows to a table in Feast's own layout, with many concurrent requests. [`super::item`] does the reverse.
//!
//! By default, an item is written only if the table has no item for the entity, or an older one. Event times
//! (`event_ts`) are compared as text. This works if all of them are in UTC, which is the case unless a caller of Feast
//! passed times in another time zone. Temporary errors (too many requests, internal errors of AWS, the network) are
//! retried until no request has succeeded for [`WriteOptions::timeout`].

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::{
    Client,
    types::{
        AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, PutRequest, ScalarAttributeType,
        StreamSpecification, StreamViewType, TableStatus, WriteRequest,
    },
};
use larder_common::clock::python_text;
use larder_model::model::{AwsPlace, EntityId, Micros};
use tokio::{task::JoinSet, time::sleep};

use super::item::{Attributes, ENTITY_ID, EVENT_TS, VALUES};
use crate::aws::{Aws, AwsError, AwsErrorKind};

/// Writes rows of one view to one table.
#[derive(Clone, Debug)]
pub struct TableWriter {
    aws: Arc<Aws>,
    place: AwsPlace,
    table: Arc<str>,
    /// The view's features, in the order of the values in rows.
    features: Arc<[Arc<str>]>,
    options: WriteOptions,
}

/// Options for writing rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOptions {
    /// Whether a row replaces the item of its entity even if the item is newer. This takes fewer requests, because a
    /// request can write several rows.
    pub overwrite: bool,
    /// The maximum number of concurrent requests.
    pub concurrency: usize,
    /// How long to retry while no request succeeds.
    pub timeout: Duration,
}

/// Options for creating a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewTable {
    /// Whether to turn on its stream, so that servers read changes within seconds instead of with the next scan.
    pub stream: bool,
}

/// A row for a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRow {
    /// The hash of the entity's key.
    pub id: EntityId,
    /// The time at which its values were true.
    pub event_time: Micros,
    /// For each feature, the bytes of a `feast.types.Value`; empty for a null.
    pub values: Vec<Vec<u8>>,
}

/// The counts of written rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The number of rows that were written.
    pub written: u64,
    /// The number of rows that were not written, because the table had an item that is at least as new. This includes
    /// rows that were written by an attempt whose response was lost, because the next attempt finds the written item.
    pub older: u64,
}

/// Why rows cannot be written to a table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The table does not exist.
    #[error("DynamoDB table '{table}' does not exist")]
    Missing {
        /// The table.
        table: String,
    },
    /// The table does not have Feast's layout.
    #[error("DynamoDB table '{table}': its key is {found}, but the key of Feast's layout is '{ENTITY_ID}'")]
    Keys {
        /// The table.
        table: String,
        /// The attributes of its key.
        found: String,
    },
    /// No request succeeded within the timeout, or the table was not ready within the timeout.
    #[error("DynamoDB table '{table}': no progress for {timeout:?}: {why}")]
    NoProgress {
        /// The table.
        table: String,
        /// The timeout.
        timeout: Duration,
        /// The error of the last attempt, or the state of the table.
        why: String,
    },
    /// AWS rejected the request for a permanent reason.
    #[error(transparent)]
    Aws(#[from] AwsError),
}

/// State shared by all requests of one call to [`TableWriter::write`].
struct Shared {
    client: Client,
    rows: Mutex<std::vec::IntoIter<TableRow>>,
    written: AtomicU64,
    older: AtomicU64,
    progress: Progress,
}

/// The time of the last successful request.
struct Progress(Mutex<Instant>);

/// The maximum number of items in one BatchWriteItem request.
const BATCH: usize = 25;
/// DynamoDB's maximum size of an item in bytes, including attribute names.
const ITEM_BYTES_MAX: usize = 400 << 10;
/// The pause before the first retry; doubled before each further retry. Each pause is shortened randomly, so that
/// requests that were rejected together are not retried together.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The interval between polls of a table that is being created.
const POLL_EVERY: Duration = Duration::from_millis(500);
/// The interval between progress reports.
const REPORT_EVERY: Duration = Duration::from_millis(200);

// === impl TableWriter ===

impl TableWriter {
    /// Creates a writer. `features` are the names of the view's features, in the order of the values in rows.
    #[must_use]
    pub fn new(
        aws: Arc<Aws>,
        place: AwsPlace,
        table: &str,
        features: impl IntoIterator<Item = Arc<str>>,
        options: WriteOptions,
    ) -> Self {
        Self { aws, place, table: table.into(), features: features.into_iter().collect(), options }
    }

    /// Returns the table's name.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Returns the options.
    #[must_use]
    pub fn options(&self) -> WriteOptions {
        self.options
    }

    /// Returns how many rows to pass to one call to [`TableWriter::write`]. At the end of a call, writers are idle
    /// until the last requests are done, so a call should have many rows for each concurrent writer.
    #[must_use]
    pub fn rows_per_call(&self) -> usize {
        let rows_per_writer = if self.options.overwrite { 8 * BATCH } else { 64 };
        self.options.concurrency * rows_per_writer
    }

    /// Waits until the table is no longer being created, and checks that it has the key of Feast's layout. If the table
    /// does not exist and `new` is set, creates it. Returns an ID that distinguishes the table from another one of the
    /// same name. Returns `None` if `new` is not set and the role is not allowed to describe the table.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn prepare(&self, new: Option<NewTable>) -> Result<Option<String>, TableError> {
        self.aws.handle()?.block_on(self.prepare_table(new))
    }

    /// Returns the reason why a row cannot become an item; `None` if it can.
    #[must_use]
    pub fn mismatch(&self, row: &TableRow) -> Option<String> {
        let Some(time) = python_text(row.event_time) else {
            return Some(format!("its event time, {} us from 1970, is not in the years 1 to 9999", row.event_time));
        };
        // DynamoDB counts the bytes of names and values. For a map, it adds three bytes and one byte for each entry.
        let values = self.features.iter().zip(&row.values).map(|(name, value)| name.len() + value.len() + 1);
        let fixed = ENTITY_ID.len() + 32 + EVENT_TS.len() + time.len() + VALUES.len() + 3;
        let bytes = fixed + values.sum::<usize>();
        (bytes > ITEM_BYTES_MAX).then(|| format!("it has {bytes} bytes, but DynamoDB accepts at most {ITEM_BYTES_MAX}"))
    }

    /// Writes rows, each of a different entity, and returns when all of them are acknowledged. Calls `report` regularly
    /// with the counts so far. Blocks the calling thread.
    ///
    /// # Errors
    /// [`TableError`]. Some of the rows may have been written.
    pub fn write(&self, rows: Vec<TableRow>, report: &mut dyn FnMut(Written)) -> Result<Written, TableError> {
        let handle = self.aws.handle()?;
        handle.block_on(async {
            let shared = Arc::new(Shared {
                client: self.client().await,
                rows: Mutex::new(rows.into_iter()),
                written: AtomicU64::new(0),
                older: AtomicU64::new(0),
                progress: Progress::now(),
            });
            // The writers are tasks of the runtime, so that several threads sign requests. Dropping `tasks` cancels
            // them.
            let mut tasks = JoinSet::new();
            for _ in 0..self.options.concurrency {
                tasks.spawn_on(self.clone().write_remaining(Arc::clone(&shared)), handle);
            }
            let mut ticks = tokio::time::interval(REPORT_EVERY);
            loop {
                tokio::select! {
                    ended = tasks.join_next() => match ended {
                        None => return Ok(shared.counts()),
                        Some(Ok(ended)) => ended?,
                        Some(Err(error)) => return Err(self.write_error(&error.to_string())),
                    },
                    _ = ticks.tick() => report(shared.counts()),
                }
            }
        })
    }

    async fn client(&self) -> Client {
        self.aws.dynamodb(&self.place).await.tables
    }

    fn what(&self, operation: &str) -> String {
        format!("DynamoDB table '{}': {operation}", self.table)
    }

    fn write_error(&self, why: &str) -> TableError {
        AwsError { what: self.what("write"), kind: AwsErrorKind::Setup, why: why.to_owned() }.into()
    }

    fn table_error(&self, error: AwsError) -> TableError {
        match error.kind {
            AwsErrorKind::Missing => TableError::Missing { table: self.table.to_string() },
            _ => error.into(),
        }
    }

    /// Waits for the next attempt after a temporary error.
    ///
    /// # Errors
    /// Any other error, and [`TableError::NoProgress`] after the timeout.
    async fn wait_to_retry(&self, error: AwsError, attempt: u32, progress: &Progress) -> Result<(), TableError> {
        if !error.kind.is_transient() {
            return Err(self.table_error(error));
        }
        if progress.elapsed() >= self.options.timeout {
            let (table, timeout) = (self.table.to_string(), self.options.timeout);
            return Err(TableError::NoProgress { table, timeout, why: format!("{}: {}", error.what, error.why) });
        }
        tracing::debug!(%error, attempt, "request to DynamoDB failed; retrying");
        sleep(pause(attempt)).await;
        Ok(())
    }

    async fn prepare_table(&self, new: Option<NewTable>) -> Result<Option<String>, TableError> {
        let client = self.client().await;
        let what = self.what("DescribeTable");
        let progress = Progress::now();
        let mut attempt = 0;
        let mut is_created = false;
        loop {
            let described = client.describe_table().table_name(&*self.table).send().await;
            let not_yet = match described.map_err(|error| AwsError::of(&what, error)) {
                Ok(output) => {
                    let table = output
                        .table
                        .ok_or_else(|| AwsError::garbled(&what, "the response has no table description"))?;
                    if table.table_status() != Some(&TableStatus::Creating) {
                        let keys: Vec<&str> = table.key_schema().iter().map(|key| key.attribute_name()).collect();
                        if keys != [ENTITY_ID] {
                            let found = keys.iter().map(|key| format!("'{key}'")).collect::<Vec<_>>().join(" and ");
                            return Err(TableError::Keys { table: self.table.to_string(), found });
                        }
                        let created = table.creation_date_time().map(|time| time.as_nanos().to_string());
                        return Ok(table.table_id().map(str::to_owned).or(created));
                    }
                    "the table is still being created"
                }
                Err(error) if error.kind == AwsErrorKind::Missing && is_created => "the table does not exist yet",
                Err(error) => {
                    match (error.kind, new) {
                        (AwsErrorKind::Missing, Some(new)) => {
                            self.create(&client, new, &progress).await?;
                            is_created = true;
                            continue;
                        }
                        // A role that may write to the table may not be allowed to describe it. If the table is missing
                        // or has other keys, the writes fail.
                        (AwsErrorKind::Denied, None) => return Ok(None),
                        _ => {}
                    }
                    self.wait_to_retry(error, attempt, &progress).await?;
                    attempt += 1;
                    continue;
                }
            };
            if progress.elapsed() >= self.options.timeout {
                let (table, timeout) = (self.table.to_string(), self.options.timeout);
                return Err(TableError::NoProgress { table, timeout, why: not_yet.to_owned() });
            }
            sleep(POLL_EVERY).await;
        }
    }

    /// Creates the table as Feast does, except for tags and the stream.
    async fn create(&self, client: &Client, new: NewTable, progress: &Progress) -> Result<(), TableError> {
        let what = self.what("CreateTable");
        let garbled = |error: aws_sdk_dynamodb::error::BuildError| AwsError::garbled(&what, error.to_string());
        let key = KeySchemaElement::builder().attribute_name(ENTITY_ID).key_type(KeyType::Hash).build();
        let attribute = AttributeDefinition::builder()
            .attribute_name(ENTITY_ID)
            .attribute_type(ScalarAttributeType::S)
            .build()
            .map_err(garbled)?;
        let stream = StreamSpecification::builder().stream_enabled(true).stream_view_type(StreamViewType::NewImage);
        let stream = new.stream.then(|| stream.build()).transpose().map_err(garbled)?;
        let request = client
            .create_table()
            .table_name(&*self.table)
            .key_schema(key.map_err(garbled)?)
            .attribute_definitions(attribute)
            .set_stream_specification(stream)
            .billing_mode(BillingMode::PayPerRequest);
        let mut attempt = 0;
        loop {
            match request.clone().send().await {
                Ok(_) => return Ok(()),
                // Another process created the table, or an earlier attempt did but its response was lost.
                Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_in_use_exception()) => {
                    return Ok(());
                }
                Err(error) => self.wait_to_retry(AwsError::of(&what, error), attempt, progress).await?,
            }
            attempt += 1;
        }
    }

    /// Runs one of the concurrent writers: takes and writes the rows of a request until none are left.
    async fn write_remaining(self, shared: Arc<Shared>) -> Result<(), TableError> {
        loop {
            let rows = shared.take(if self.options.overwrite { BATCH } else { 1 });
            if rows.is_empty() {
                return Ok(());
            }
            if self.options.overwrite {
                self.put_all(rows, &shared).await?;
                continue;
            }
            for row in rows {
                self.put_newer(row, &shared).await?;
            }
        }
    }

    /// Puts an item, unless the table has one that is as new or newer.
    async fn put_newer(&self, row: TableRow, shared: &Shared) -> Result<(), TableError> {
        let what = self.what("PutItem");
        let item = self.item(row).map_err(|why| self.write_error(&why))?;
        let time = item.get(EVENT_TS).cloned().unwrap_or(AttributeValue::Null(true));
        let request = shared
            .client
            .put_item()
            .table_name(&*self.table)
            .condition_expression("attribute_not_exists(#id) OR #ts < :ts")
            .expression_attribute_names("#id", ENTITY_ID)
            .expression_attribute_names("#ts", EVENT_TS)
            .expression_attribute_values(":ts", time)
            .set_item(Some(item));
        let mut attempt = 0;
        loop {
            let put = request.clone().send().await;
            let count = match put {
                Ok(_) => &shared.written,
                Err(error)
                    if error.as_service_error().is_some_and(|error| error.is_conditional_check_failed_exception()) =>
                {
                    &shared.older
                }
                Err(error) => {
                    self.wait_to_retry(AwsError::of(&what, error), attempt, &shared.progress).await?;
                    attempt += 1;
                    continue;
                }
            };
            count.fetch_add(1, Ordering::Relaxed);
            shared.progress.record();
            return Ok(());
        }
    }

    /// Puts items unconditionally. Retries items that DynamoDB did not process.
    async fn put_all(&self, rows: Vec<TableRow>, shared: &Shared) -> Result<(), TableError> {
        let what = self.what("BatchWriteItem");
        let mut left = Vec::with_capacity(rows.len());
        for row in rows {
            let item = self.item(row).map_err(|why| self.write_error(&why))?;
            let put = PutRequest::builder().set_item(Some(item)).build();
            let put = put.map_err(|error| AwsError::garbled(&what, error.to_string()))?;
            left.push(WriteRequest::builder().put_request(put).build());
        }
        let mut attempt = 0;
        while !left.is_empty() {
            let request = shared.client.batch_write_item().request_items(&*self.table, left.clone());
            let error = match request.send().await {
                Ok(output) => {
                    let rest: Vec<WriteRequest> =
                        output.unprocessed_items.into_iter().flatten().flat_map(|(_, requests)| requests).collect();
                    let done = left.len().saturating_sub(rest.len());
                    left = rest;
                    if done > 0 {
                        shared.written.fetch_add(done as u64, Ordering::Relaxed);
                        shared.progress.record();
                        attempt = 0;
                    }
                    if left.is_empty() {
                        return Ok(());
                    }
                    let why = "DynamoDB did not process all items".to_owned();
                    AwsError { what: what.clone(), kind: AwsErrorKind::Throttled, why }
                }
                Err(error) => AwsError::of(&what, error),
            };
            self.wait_to_retry(error, attempt, &shared.progress).await?;
            attempt += 1;
        }
        Ok(())
    }

    fn item(&self, row: TableRow) -> Result<Attributes, String> {
        let time = python_text(row.event_time).ok_or_else(|| format!("entity id {}: invalid time", row.id))?;
        let values = self.features.iter().zip(row.values);
        let values = values.map(|(name, value)| (name.to_string(), AttributeValue::B(value.into())));
        Ok(HashMap::from([
            (ENTITY_ID.to_owned(), AttributeValue::S(row.id.to_string())),
            (EVENT_TS.to_owned(), AttributeValue::S(time)),
            (VALUES.to_owned(), AttributeValue::M(values.collect())),
        ]))
    }
}

// === impl Shared ===

impl Shared {
    fn take(&self, count: usize) -> Vec<TableRow> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).by_ref().take(count).collect()
    }

    fn counts(&self) -> Written {
        Written { written: self.written.load(Ordering::Relaxed), older: self.older.load(Ordering::Relaxed) }
    }
}

// === impl Progress ===

impl Progress {
    fn now() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    fn record(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn elapsed(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// Returns a random pause of at least half the nominal pause before this retry, and at most all of it.
fn pause(attempt: u32) -> Duration {
    let nominal = PAUSE.saturating_mul(2_u32.saturating_pow(attempt)).min(PAUSE_MAX);
    // The keys of a hasher are the standard library's only stable source of randomness.
    let random = RandomState::new().build_hasher().finish() % 1_000;
    nominal / 2 + nominal / 2 * u32::try_from(random).unwrap_or(0) / 1_000
}
