//! Operations on streams.

use serde_json::{Value, json};

use super::{
    Refusal, State,
    table::{Shard, Stream, sequence_text},
};

/// The most records of one answer.
const RECORDS_MAX: usize = 1_000;

fn text<'v>(body: &'v Value, name: &str) -> &'v str {
    body.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn gone(what: &str) -> Refusal {
    Refusal("ResourceNotFoundException", format!("Requested resource not found: {what}"))
}

fn trimmed() -> Refusal {
    Refusal(
        "TrimmedDataAccessException",
        "The operation attempted to read past the oldest stream record in a shard.".to_owned(),
    )
}

// === impl State ===

impl State {
    fn stream(&self, arn: &str) -> Result<&Stream, Refusal> {
        let streams = self.tables.values().filter_map(|table| table.stream.as_ref());
        streams.into_iter().find(|stream| stream.arn == arn).ok_or_else(|| gone("Stream"))
    }

    fn shard(&self, arn: &str, id: &str) -> Result<&Shard, Refusal> {
        let shards = &self.stream(arn)?.shards;
        shards.iter().find(|shard| shard.id == id && shard.is_listed).ok_or_else(|| gone("Shard"))
    }

    pub(super) fn describe_stream(&mut self, body: &Value) -> Result<Value, Refusal> {
        let page = self.page_shards;
        let stream = self.stream(text(body, "StreamArn"))?;
        let listed: Vec<&Shard> = stream.shards.iter().filter(|shard| shard.is_listed).collect();
        let start = match text(body, "ExclusiveStartShardId") {
            "" => 0,
            id => listed.iter().position(|shard| shard.id == id).map_or(listed.len(), |place| place + 1),
        };
        let here: Vec<&Shard> = listed.iter().skip(start).take(page).copied().collect();
        let shards: Vec<Value> = here
            .iter()
            .map(|shard| {
                let mut range = json!({ "StartingSequenceNumber": sequence_text(shard.first) });
                if shard.is_closed {
                    let last = shard.records.last().map_or(shard.first, |record| record.sequence);
                    range["EndingSequenceNumber"] = json!(sequence_text(last));
                }
                let mut described = json!({ "ShardId": shard.id, "SequenceNumberRange": range });
                if let Some(parent) = &shard.parent {
                    described["ParentShardId"] = json!(parent);
                }
                described
            })
            .collect();
        let mut description = json!({
            "StreamArn": stream.arn, "StreamLabel": stream.label, "StreamStatus": "ENABLED",
            "StreamViewType": stream.view, "Shards": shards,
        });
        if start + here.len() < listed.len()
            && let Some(last) = here.last()
        {
            description["LastEvaluatedShardId"] = json!(last.id);
        }
        Ok(json!({ "StreamDescription": description }))
    }

    pub(super) fn shard_iterator(&mut self, body: &Value) -> Result<Value, Refusal> {
        let (arn, id) = (text(body, "StreamArn"), text(body, "ShardId"));
        let shard = self.shard(arn, id)?;
        let sequence = text(body, "SequenceNumber");
        let place = |sequence: &str| {
            let place = shard.records.iter().position(|record| sequence_text(record.sequence) == sequence);
            place.ok_or_else(|| Refusal("ValidationException", "Invalid SequenceNumber".to_owned()))
        };
        let index = match text(body, "ShardIteratorType") {
            "TRIM_HORIZON" => shard.trimmed,
            "LATEST" => shard.visible,
            "AT_SEQUENCE_NUMBER" => place(sequence)?,
            "AFTER_SEQUENCE_NUMBER" => {
                let place = place(sequence)?;
                if place < shard.trimmed {
                    return Err(trimmed());
                }
                place + 1
            }
            other => return Err(Refusal("ValidationException", format!("ShardIteratorType {other}"))),
        };
        if index < shard.trimmed {
            return Err(trimmed());
        }
        Ok(json!({ "ShardIterator": self.token(arn, id, index) }))
    }

    pub(super) fn records(&mut self, body: &Value) -> Result<Value, Refusal> {
        let token = text(body, "ShardIterator").to_owned();
        let parts: Vec<&str> = token.split('|').collect();
        let [arn, id, index, epoch] = parts.as_slice() else {
            return Err(Refusal("ValidationException", "Invalid ShardIterator".to_owned()));
        };
        if epoch.parse() != Ok(self.epoch) {
            return Err(Refusal("ExpiredIteratorException", "The shard iterator has expired".to_owned()));
        }
        let index: usize = index.parse().unwrap_or(0);
        let (is_empty, again) = (self.empty_pages > 0, std::mem::take(&mut self.redeliver));
        self.empty_pages = self.empty_pages.saturating_sub(1);
        let shard = self.shard(arn, id)?;
        if index < shard.trimmed {
            return Err(trimmed());
        }
        let from = index.saturating_sub(again).max(shard.trimmed);
        let to = if is_empty { index } else { (index + RECORDS_MAX).min(shard.visible.max(index)) };
        let told: Vec<&Value> =
            shard.records[if is_empty { index } else { from }..to].iter().map(|record| &record.body).collect();
        let is_over = shard.is_closed && to >= shard.records.len() && !is_empty;
        let mut answer = json!({ "Records": told });
        if !is_over {
            answer["NextShardIterator"] = json!(self.token(arn, id, to));
        }
        Ok(answer)
    }

    fn token(&self, arn: &str, id: &str, index: usize) -> String {
        format!("{arn}|{id}|{index}|{}", self.epoch)
    }
}
