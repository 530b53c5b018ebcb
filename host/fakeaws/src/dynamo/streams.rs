//! Operations on streams.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    OperationResult, Rejection, State, invalid, missing,
    stream::{Shard, Stream},
    text,
};

/// The maximum number of records in a response.
const RECORDS_MAX: usize = 1_000;

/// The maximum size in bytes of a response with more than one record.
const BYTES_MAX: usize = 1 << 20;

/// The maximum number of shards in a page of DescribeStream.
pub(super) const SHARDS_MAX: usize = 100;

/// A reader that has not read from a shard for this long is no longer counted as a reader of the shard.
const READER_TIMEOUT: Duration = Duration::from_secs(1);

fn trimmed() -> Rejection {
    Rejection(
        "TrimmedDataAccessException",
        "The operation attempted to read past the oldest stream record in a shard.".to_owned(),
    )
}

// === impl State ===

impl State {
    fn stream(&self, arn: &str) -> Result<&Stream, Rejection> {
        let mut streams = self.tables.values().filter_map(|table| table.stream.as_ref());
        streams.find(|stream| stream.arn == arn).ok_or_else(|| missing(&format!("Stream: {arn}")))
    }

    fn shard(&self, arn: &str, id: &str) -> Result<&Shard, Rejection> {
        let mut shards = self.stream(arn)?.shards.iter();
        shards.find(|shard| shard.id == id && shard.is_listed).ok_or_else(|| missing(&format!("Shard: {id}")))
    }

    pub(super) fn list_streams(&self, body: &Value) -> OperationResult {
        let wanted = text(body, "TableName");
        let streams = self.tables.values().filter_map(|table| table.stream.as_ref());
        let streams = streams.filter(|stream| wanted.is_empty() || stream.table == wanted);
        let streams = streams
            .map(|stream| json!({ "StreamArn": stream.arn, "TableName": stream.table, "StreamLabel": stream.label }));
        Ok(json!({ "Streams": streams.collect::<Vec<_>>() }))
    }

    pub(super) fn describe_stream(&self, body: &Value) -> OperationResult {
        let stream = self.stream(text(body, "StreamArn"))?;
        let keys = self.tables.get(&stream.table).map(|table| table.describe()["KeySchema"].clone());
        let listed: Vec<&Shard> = stream.shards.iter().filter(|shard| shard.is_listed).collect();
        let start = match text(body, "ExclusiveStartShardId") {
            "" => 0,
            // If the start shard was removed in the meantime, its ID is still a valid start, because IDs increase with
            // time.
            id => listed.partition_point(|shard| shard.id.as_str() <= id),
        };
        let limit = match body.get("Limit").and_then(Value::as_u64) {
            Some(limit @ 1..=100) => usize::try_from(limit).unwrap_or(SHARDS_MAX),
            None => SHARDS_MAX,
            Some(_) => return Err(invalid("Limit must be between 1 and 100")),
        };
        let page: Vec<&Shard> = listed.iter().skip(start).take(limit.min(self.page_shards)).copied().collect();
        let mut description = json!({
            "StreamArn": stream.arn,
            "StreamLabel": stream.label,
            "StreamStatus": "ENABLED",
            "StreamViewType": stream.view,
            "CreationRequestDateTime": stream.created,
            "TableName": stream.table,
            "KeySchema": keys,
            "Shards": page.iter().map(|shard| shard.describe()).collect::<Vec<_>>(),
        });
        if start + page.len() < listed.len()
            && let Some(last) = page.last()
        {
            description["LastEvaluatedShardId"] = json!(last.id);
        }
        Ok(json!({ "StreamDescription": description }))
    }

    pub(super) fn shard_iterator(&mut self, body: &Value) -> OperationResult {
        let (arn, id) = (text(body, "StreamArn"), text(body, "ShardId"));
        if id.len() < 28 {
            return Err(invalid("Value at 'shardId' failed to satisfy constraint: length is at least 28"));
        }
        let shard = self.shard(arn, id)?;
        let sequence = || shard.sequence(text(body, "SequenceNumber")).ok_or_else(|| invalid("Invalid SequenceNumber"));
        let before = |sequence: u64| shard.records.partition_point(|record| record.sequence < sequence);
        let index = match text(body, "ShardIteratorType") {
            "TRIM_HORIZON" => shard.trimmed,
            "LATEST" => shard.visible,
            kind @ ("AT_SEQUENCE_NUMBER" | "AFTER_SEQUENCE_NUMBER") => {
                let sequence = sequence()?;
                if sequence < shard.trim_point {
                    return Err(trimmed());
                }
                before(if kind.starts_with("AT") { sequence } else { sequence + 1 })
            }
            other => return Err(invalid(&format!("ShardIteratorType '{other}' is invalid"))),
        };
        self.counter += 1;
        Ok(json!({ "ShardIterator": self.iterator(arn, id, index, self.counter) }))
    }

    pub(super) fn records(&mut self, body: &Value) -> OperationResult {
        let iterator = text(body, "ShardIterator").to_owned();
        let parts: Vec<&str> = iterator.split('|').collect();
        let [arn, id, index, epoch, reader] = parts.as_slice() else { return Err(invalid("Invalid ShardIterator")) };
        let (Ok(index), Ok(epoch), Ok(reader)) = (index.parse::<usize>(), epoch.parse::<u64>(), reader.parse::<u64>())
        else {
            return Err(invalid("Invalid ShardIterator"));
        };
        let limit = match body.get("Limit").and_then(Value::as_u64) {
            Some(limit @ 1..=1_000) => usize::try_from(limit).unwrap_or(RECORDS_MAX),
            None => RECORDS_MAX,
            Some(_) => return Err(invalid("Limit must be between 1 and 1000")),
        };
        self.shard(arn, id)?;
        self.count_reader(id, reader)?;
        let shard = self.shard(arn, id)?;
        if epoch < self.epoch {
            return Err(Rejection("ExpiredIteratorException", "The provided iterator has expired.".to_owned()));
        }
        if index < shard.trimmed {
            return Err(trimmed());
        }
        let emptied = self.emptied.get(*id).copied().unwrap_or(0);
        if emptied < self.empty_pages {
            let response = json!({ "Records": [], "NextShardIterator": self.iterator(arn, id, index, reader) });
            self.emptied.insert((*id).to_owned(), emptied + 1);
            return Ok(response);
        }
        let from = index.saturating_sub(self.redeliver).max(shard.trimmed);
        let mut bytes = 0;
        let returned = shard.records[from..shard.visible.max(index)].iter().take(limit).take_while(|record| {
            let is_first = bytes == 0;
            bytes += usize::try_from(record.body["dynamodb"]["SizeBytes"].as_u64().unwrap_or(0)).unwrap_or(0).max(1);
            is_first || bytes <= BYTES_MAX
        });
        let returned: Vec<Value> = returned.map(|record| record.body.clone()).collect();
        // Repeated records do not move the position back.
        let next = (from + returned.len()).max(index);
        let has_ended = shard.last.is_some() && next >= shard.records.len();
        let mut response = json!({ "Records": returned });
        if !has_ended {
            response["NextShardIterator"] = json!(self.iterator(arn, id, next, reader));
        }
        if from < index {
            self.redeliver = 0;
        }
        Ok(response)
    }

    /// Counts a reader of a shard, or rejects the reader if the shard has too many readers.
    fn count_reader(&mut self, id: &str, reader: u64) -> Result<(), Rejection> {
        let now = Instant::now();
        let readers = self.readers.entry(id.to_owned()).or_default();
        readers.retain(|_, last| now.duration_since(*last) < READER_TIMEOUT);
        if !readers.contains_key(&reader) && readers.len() >= self.readers_max {
            return Err(Rejection(
                "LimitExceededException",
                "No more than two processes at most should read from one shard at the same time.".to_owned(),
            ));
        }
        readers.insert(reader, now);
        Ok(())
    }

    fn iterator(&self, arn: &str, id: &str, index: usize, reader: u64) -> String {
        format!("{arn}|{id}|{index}|{}|{reader}", self.epoch)
    }
}
