//! Operations on streams.

use serde_json::{Value, json};

use super::{
    Answer, Refusal, State, invalid, missing,
    stream::{Shard, Stream},
    text,
};

/// The most records of one answer.
const RECORDS_MAX: usize = 1_000;

/// The most bytes of one answer, if it has more than one record.
const BYTES_MAX: usize = 1 << 20;

/// The most shards of one description.
pub(super) const SHARDS_MAX: usize = 100;

fn trimmed() -> Refusal {
    Refusal(
        "TrimmedDataAccessException",
        "The operation attempted to read past the oldest stream record in a shard.".to_owned(),
    )
}

// === impl State ===

impl State {
    fn stream(&self, arn: &str) -> Result<&Stream, Refusal> {
        let mut streams = self.tables.values().filter_map(|table| table.stream.as_ref());
        streams.find(|stream| stream.arn == arn).ok_or_else(|| missing(&format!("Stream: {arn}")))
    }

    fn shard(&self, arn: &str, id: &str) -> Result<&Shard, Refusal> {
        let mut shards = self.stream(arn)?.shards.iter();
        shards.find(|shard| shard.id == id && shard.is_listed).ok_or_else(|| missing(&format!("Shard: {id}")))
    }

    pub(super) fn list_streams(&self, body: &Value) -> Answer {
        let wanted = text(body, "TableName");
        let streams = self.tables.values().filter_map(|table| table.stream.as_ref());
        let streams = streams.filter(|stream| wanted.is_empty() || stream.table == wanted);
        let streams = streams
            .map(|stream| json!({ "StreamArn": stream.arn, "TableName": stream.table, "StreamLabel": stream.label }));
        Ok(json!({ "Streams": streams.collect::<Vec<_>>() }))
    }

    pub(super) fn describe_stream(&self, body: &Value) -> Answer {
        let stream = self.stream(text(body, "StreamArn"))?;
        let keys = self.tables.get(&stream.table).map(|table| table.describe()["KeySchema"].clone());
        let listed: Vec<&Shard> = stream.shards.iter().filter(|shard| shard.is_listed).collect();
        let start = match text(body, "ExclusiveStartShardId") {
            "" => 0,
            // A start that is gone meanwhile is still a start: ids grow with time.
            id => listed.partition_point(|shard| shard.id.as_str() <= id),
        };
        let limit = match body.get("Limit").and_then(Value::as_u64) {
            Some(limit @ 1..=100) => usize::try_from(limit).unwrap_or(SHARDS_MAX),
            None => SHARDS_MAX,
            Some(_) => return Err(invalid("Limit is between 1 and 100")),
        };
        let here: Vec<&Shard> = listed.iter().skip(start).take(limit.min(self.page_shards)).copied().collect();
        let mut description = json!({
            "StreamArn": stream.arn,
            "StreamLabel": stream.label,
            "StreamStatus": "ENABLED",
            "StreamViewType": stream.view,
            "CreationRequestDateTime": stream.created,
            "TableName": stream.table,
            "KeySchema": keys,
            "Shards": here.iter().map(|shard| shard.describe()).collect::<Vec<_>>(),
        });
        if start + here.len() < listed.len()
            && let Some(last) = here.last()
        {
            description["LastEvaluatedShardId"] = json!(last.id);
        }
        Ok(json!({ "StreamDescription": description }))
    }

    pub(super) fn shard_iterator(&self, body: &Value) -> Answer {
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
            other => return Err(invalid(&format!("ShardIteratorType is not '{other}'"))),
        };
        Ok(json!({ "ShardIterator": self.iterator(arn, id, index) }))
    }

    pub(super) fn records(&mut self, body: &Value) -> Answer {
        let iterator = text(body, "ShardIterator").to_owned();
        let parts: Vec<&str> = iterator.split('|').collect();
        let [arn, id, index, epoch] = parts.as_slice() else { return Err(invalid("Invalid ShardIterator")) };
        let (Ok(index), Ok(epoch)) = (index.parse::<usize>(), epoch.parse::<u64>()) else {
            return Err(invalid("Invalid ShardIterator"));
        };
        let limit = match body.get("Limit").and_then(Value::as_u64) {
            Some(limit @ 1..=1_000) => usize::try_from(limit).unwrap_or(RECORDS_MAX),
            None => RECORDS_MAX,
            Some(_) => return Err(invalid("Limit is between 1 and 1000")),
        };
        let shard = self.shard(arn, id)?;
        if epoch < self.epoch {
            return Err(Refusal("ExpiredIteratorException", "The provided iterator has expired.".to_owned()));
        }
        if index < shard.trimmed {
            return Err(trimmed());
        }
        let met = self.emptied.get(*id).copied().unwrap_or(0);
        if met < self.empty_pages {
            let answer = json!({ "Records": [], "NextShardIterator": self.iterator(arn, id, index) });
            self.emptied.insert((*id).to_owned(), met + 1);
            return Ok(answer);
        }
        let from = index.saturating_sub(self.redeliver).max(shard.trimmed);
        let mut bytes = 0;
        let told = shard.records[from..shard.visible.max(index)].iter().take(limit).take_while(|record| {
            let is_first = bytes == 0;
            bytes += usize::try_from(record.body["dynamodb"]["SizeBytes"].as_u64().unwrap_or(0)).unwrap_or(0).max(1);
            is_first || bytes <= BYTES_MAX
        });
        let told: Vec<Value> = told.map(|record| record.body.clone()).collect();
        // What is told once more does not take the place back.
        let next = (from + told.len()).max(index);
        let is_over = shard.last.is_some() && next >= shard.records.len();
        let mut answer = json!({ "Records": told });
        if !is_over {
            answer["NextShardIterator"] = json!(self.iterator(arn, id, next));
        }
        if from < index {
            self.redeliver = 0;
        }
        Ok(answer)
    }

    fn iterator(&self, arn: &str, id: &str, index: usize) -> String {
        format!("{arn}|{id}|{index}|{}", self.epoch)
    }
}
