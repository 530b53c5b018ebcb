//! Sends requests to DynamoDB. Errors name the table and the operation. Beyond the SDK's own retries, only unprocessed
//! keys are retried here.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, ReturnConsumedCapacity};
use aws_sdk_dynamodbstreams::types::{AttributeValue as StreamValue, OperationType, ShardIteratorType, StreamViewType};
use larder_model::model::Micros;

use super::{
    item::Attributes,
    lineage::Shard,
    position::{ShardPosition, TableIdentity},
};
use crate::aws::{AwsError, Dynamo};

/// A table and its clients.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    pub(super) dynamo: Dynamo,
    pub(super) table: String,
}

/// The description of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) identity: TableIdentity,
    /// The names of the attributes of the table's primary key.
    pub(super) keys: Vec<String>,
    /// The ARN of the table's stream, and whether the records of the stream contain the new state of the items; `None`
    /// if the stream is off.
    pub(super) stream: Option<(String, bool)>,
    /// DynamoDB's own count of the items, which can be some hours old.
    pub(super) items: u64,
}

/// A page of a scan.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) items: Vec<Attributes>,
    pub(super) last_key: Option<Attributes>,
    pub(super) read_units: f64,
}

/// The records of a shard from one request.
#[derive(Debug)]
pub(super) struct ShardRecords {
    pub(super) records: Vec<Record>,
    /// The next iterator; `None` if the shard is closed and these are its last records.
    pub(super) next: Option<String>,
}

/// A change of an item.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) sequence: String,
    /// The approximate time of the change.
    pub(super) at: Option<Micros>,
    pub(super) keys: Attributes,
    /// The new state of the item; `None` if the item was removed, or if the stream does not contain new states.
    pub(super) image: Option<Attributes>,
    pub(super) is_removal: bool,
}

/// The maximum number of keys in one BatchGetItem request.
const KEYS_MAX: usize = 100;
/// The pause before the first retry of keys that DynamoDB did not process; doubled before each further retry.
const UNPROCESSED_PAUSE: Duration = Duration::from_millis(20);
const UNPROCESSED_PAUSE_MAX: Duration = Duration::from_secs(2);

// === impl Calls ===

impl Calls {
    fn what(&self, operation: &str) -> String {
        format!("DynamoDB table '{}': {operation}", self.table)
    }

    pub(super) async fn describe(&self) -> Result<Described, AwsError> {
        let what = self.what("DescribeTable");
        let output = self.dynamo.tables.describe_table().table_name(&self.table).send().await;
        let output = output.map_err(|error| AwsError::of(&what, error))?;
        let table = output.table.ok_or_else(|| AwsError::garbled(&what, "the response has no table description"))?;
        let is_on = table.stream_specification().is_some_and(|stream| stream.stream_enabled());
        let view = table.stream_specification().and_then(|stream| stream.stream_view_type());
        let has_images = view.is_some_and(|view| matches!(view.as_str(), "NEW_IMAGE" | "NEW_AND_OLD_IMAGES"));
        let created = table.creation_date_time().map(|time| time.as_nanos().to_string());
        let id = table.table_id().map(str::to_owned).or(created).unwrap_or_default();
        let arn = table.table_arn().unwrap_or(&self.table).to_owned();
        Ok(Described {
            identity: TableIdentity { arn, id },
            keys: table.key_schema().iter().map(|key| key.attribute_name().to_owned()).collect(),
            stream: table.latest_stream_arn().filter(|_| is_on).map(|arn| (arn.to_owned(), has_images)),
            items: u64::try_from(table.item_count().unwrap_or(0)).unwrap_or(0),
        })
    }

    pub(super) async fn scan(
        &self,
        segment: usize,
        segments: usize,
        start: Option<Attributes>,
    ) -> Result<Page, AwsError> {
        let what = self.what("Scan");
        // The SDK takes 32-bit integers.
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let request = self
            .dynamo
            .tables
            .scan()
            .table_name(&self.table)
            .segment(number(segment))
            .total_segments(number(segments))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .set_exclusive_start_key(start);
        let output = request.send().await.map_err(|error| AwsError::of(&what, error))?;
        let read_units = output.consumed_capacity().and_then(|used| used.capacity_units()).unwrap_or(0.0);
        Ok(Page { items: output.items.unwrap_or_default(), last_key: output.last_evaluated_key, read_units })
    }

    /// Returns the items with these keys, in no particular order; missing items are left out. Retries keys that
    /// DynamoDB did not process, until `until`.
    pub(super) async fn get(
        &self,
        keys: Vec<Attributes>,
        consistent: bool,
        until: Instant,
    ) -> Result<Vec<Attributes>, AwsError> {
        let what = self.what("BatchGetItem");
        let mut items = Vec::new();
        for keys in keys.chunks(KEYS_MAX) {
            let mut pause = UNPROCESSED_PAUSE;
            let mut left = Some(keys.to_vec());
            while let Some(keys) = left.take() {
                let wanted = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(consistent).build();
                let wanted = wanted.map_err(|error| AwsError::garbled(&what, error.to_string()))?;
                let request = self.dynamo.tables.batch_get_item().request_items(&self.table, wanted);
                let output = request.send().await.map_err(|error| AwsError::of(&what, error))?;
                items.extend(output.responses.into_iter().flatten().flat_map(|(_, items)| items));
                let unprocessed = output.unprocessed_keys.unwrap_or_default();
                left = unprocessed.into_values().map(|keys| keys.keys).find(|keys| !keys.is_empty());
                if left.is_some() {
                    if Instant::now() + pause > until {
                        return Err(AwsError {
                            what,
                            kind: crate::aws::AwsErrorKind::Throttled,
                            why: "DynamoDB did not process all keys in time".to_owned(),
                        });
                    }
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(UNPROCESSED_PAUSE_MAX);
                }
            }
        }
        Ok(items)
    }

    /// Returns all items of a partition.
    pub(super) async fn query(&self, partition: &Attributes, consistent: bool) -> Result<Vec<Attributes>, AwsError> {
        let what = self.what("Query");
        let Some((name, value)) = partition.iter().next() else { return Ok(Vec::new()) };
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let request = self
                .dynamo
                .tables
                .query()
                .table_name(&self.table)
                .key_condition_expression("#key = :key")
                .expression_attribute_names("#key", name)
                .expression_attribute_values(":key", value.clone())
                .consistent_read(consistent)
                .set_exclusive_start_key(start);
            let output = request.send().await.map_err(|error| AwsError::of(&what, error))?;
            items.extend(output.items.unwrap_or_default());
            start = output.last_evaluated_key.filter(|key| !key.is_empty());
            if start.is_none() {
                return Ok(items);
            }
        }
    }

    /// Returns all shards of a stream, page by page.
    pub(super) async fn shards(&self, stream: &str) -> Result<Vec<Shard>, AwsError> {
        let what = self.what("DescribeStream");
        let mut shards = Vec::new();
        let mut start = None;
        loop {
            let request = self.dynamo.streams.describe_stream().stream_arn(stream).set_exclusive_start_shard_id(start);
            let output = request.send().await.map_err(|error| AwsError::of(&what, error))?;
            let stream = output
                .stream_description
                .ok_or_else(|| AwsError::garbled(&what, "the response has no stream description"))?;
            shards.extend(stream.shards().iter().filter_map(|shard| {
                let range = shard.sequence_number_range();
                Some(Shard {
                    id: shard.shard_id()?.to_owned(),
                    parent: shard.parent_shard_id().map(str::to_owned),
                    is_closed: range.is_some_and(|range| range.ending_sequence_number().is_some()),
                })
            }));
            start = stream.last_evaluated_shard_id().map(str::to_owned);
            if start.is_none() {
                return Ok(shards);
            }
        }
    }

    pub(super) async fn iterator(
        &self,
        stream: &str,
        shard: &str,
        position: &ShardPosition,
    ) -> Result<String, AwsError> {
        let what = self.what("GetShardIterator");
        let request = self.dynamo.streams.get_shard_iterator().stream_arn(stream).shard_id(shard);
        let request = match position {
            ShardPosition::After(sequence) => {
                request.shard_iterator_type(ShardIteratorType::AfterSequenceNumber).sequence_number(sequence)
            }
            ShardPosition::Start | ShardPosition::Done => request.shard_iterator_type(ShardIteratorType::TrimHorizon),
        };
        let output = request.send().await.map_err(|error| AwsError::of(&what, error))?;
        output.shard_iterator.ok_or_else(|| AwsError::garbled(&what, "the response has no iterator"))
    }

    pub(super) async fn records(&self, iterator: &str) -> Result<ShardRecords, AwsError> {
        let what = self.what("GetRecords");
        let output = self.dynamo.streams.get_records().shard_iterator(iterator).send().await;
        let output = output.map_err(|error| AwsError::of(&what, error))?;
        let record = |record: aws_sdk_dynamodbstreams::types::Record| {
            let is_removal = record.event_name() == Some(&OperationType::Remove);
            let change = record.dynamodb?;
            let has_image =
                !matches!(change.stream_view_type(), Some(StreamViewType::KeysOnly | StreamViewType::OldImage));
            Some(Record {
                sequence: change.sequence_number?,
                at: change
                    .approximate_creation_date_time
                    .and_then(|time| Micros::try_from(time.as_nanos() / 1_000).ok()),
                keys: attributes(change.keys?),
                image: change.new_image.filter(|_| has_image && !is_removal).map(attributes),
                is_removal,
            })
        };
        let returned = output.records.unwrap_or_default();
        let count = returned.len();
        let records: Vec<Record> = returned.into_iter().filter_map(record).collect();
        if records.len() < count {
            // Skipping such a record would lose a change.
            return Err(AwsError::garbled(&what, "a record has no sequence number or no keys"));
        }
        Ok(ShardRecords { records, next: output.next_shard_iterator })
    }
}

fn attributes(values: HashMap<String, StreamValue>) -> Attributes {
    values.into_iter().map(|(name, value)| (name, attribute(value))).collect()
}

/// Converts an attribute. The streams API has a separate type for the same values.
fn attribute(value: StreamValue) -> AttributeValue {
    match value {
        StreamValue::S(text) => AttributeValue::S(text),
        StreamValue::N(number) => AttributeValue::N(number),
        StreamValue::B(bytes) => AttributeValue::B(bytes),
        StreamValue::Bool(value) => AttributeValue::Bool(value),
        StreamValue::L(items) => AttributeValue::L(items.into_iter().map(attribute).collect()),
        StreamValue::M(values) => AttributeValue::M(attributes(values)),
        StreamValue::Ss(items) => AttributeValue::Ss(items),
        StreamValue::Ns(items) => AttributeValue::Ns(items),
        StreamValue::Bs(items) => AttributeValue::Bs(items),
        // A null, or a value of a type that the SDK does not know.
        _ => AttributeValue::Null(true),
    }
}
