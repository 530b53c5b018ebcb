//! A table, its stream, and what happens to both.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value};

use super::ShardInfo;

#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) id: u64,
    /// Names and types, the partition key first.
    pub(super) keys: Vec<(String, String)>,
    /// By the partition key's hash, and the whole key.
    pub(super) items: BTreeMap<(u64, String), Value>,
    pub(super) stream: Option<Stream>,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) arn: String,
    pub(super) label: String,
    pub(super) view: String,
    pub(super) shards: Vec<Shard>,
    is_held: bool,
}

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) id: String,
    pub(super) parent: Option<String>,
    /// The hashes of partition keys whose records it has, both included.
    range: (u64, u64),
    pub(super) first: u64,
    pub(super) is_closed: bool,
    /// Whether DescribeStream knows it.
    pub(super) is_listed: bool,
    pub(super) records: Vec<Record>,
    /// How many records at the beginning are gone.
    pub(super) trimmed: usize,
    /// How many can be seen.
    pub(super) visible: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) sequence: u64,
    pub(super) body: Value,
}

/// A sequence number as AWS writes it: many digits.
pub(super) fn sequence_text(sequence: u64) -> String {
    format!("1{sequence:024}")
}

/// FNV-1a: any hash will do.
pub(super) fn hash(value: &Value) -> u64 {
    let text = value.to_string();
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[expect(clippy::disallowed_methods, reason = "records have the time of the machine, as those of AWS have AWS's")]
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

// === impl Table ===

impl Table {
    pub(super) fn new(name: &str, keys: Vec<(String, String)>, id: u64) -> Self {
        Self { name: name.to_owned(), id, keys, items: BTreeMap::new(), stream: None }
    }

    pub(super) fn enable_stream(&mut self, view: &str, counter: &mut u64) {
        *counter += 1;
        let label = format!("2026-01-01T00:00:00.{counter:03}");
        let arn = format!("arn:aws:dynamodb:eu-west-1:123456789012:table/{}/stream/{label}", self.name);
        let mut stream = Stream { arn, label, view: view.to_owned(), shards: Vec::new(), is_held: false };
        stream.open(None, (0, u64::MAX), counter);
        self.stream = Some(stream);
    }

    pub(super) fn stream_now(&mut self) -> &mut Stream {
        self.stream.as_mut().expect("the table has a stream")
    }

    /// The key of an item, or of a key with more beside it.
    pub(super) fn key_of(&self, item: &Value) -> Value {
        let key = self.keys.iter().filter_map(|(name, _)| Some((name.clone(), item.get(name)?.clone())));
        Value::Object(key.collect::<Map<_, _>>())
    }

    /// Where an item lies; none if its key is not whole.
    pub(super) fn place(&self, item: &Value) -> Option<(u64, String)> {
        let parts = self.keys.iter().map(|(name, kind)| item.get(name)?.get(kind));
        let parts: Vec<String> = parts.map(|part| part.map(ToString::to_string)).collect::<Option<_>>()?;
        Some((hash(item.get(&self.keys[0].0)?), parts.join("\0")))
    }

    pub(super) fn put(&mut self, item: Value, counter: &mut u64) {
        let place = self.place(&item).expect("the item has its key");
        let before = self.items.insert(place, item.clone());
        // A write that changes nothing makes no record.
        if before.as_ref() != Some(&item) {
            let kind = if before.is_some() { "MODIFY" } else { "INSERT" };
            let key = self.key_of(&item);
            self.record(kind, key, Some(item), before, counter);
        }
    }

    pub(super) fn delete(&mut self, key: &Value, counter: &mut u64) {
        let place = self.place(key).expect("the key is whole");
        if let Some(before) = self.items.remove(&place) {
            let key = self.key_of(key);
            self.record("REMOVE", key, None, Some(before), counter);
        }
    }

    pub(super) fn record(&mut self, kind: &str, key: Value, new: Option<Value>, old: Option<Value>, counter: &mut u64) {
        let partition = hash(key.get(&self.keys[0].0).expect("the key has its partition key"));
        let Some(stream) = &mut self.stream else { return };
        *counter += 1;
        let mut change = serde_json::json!({
            "ApproximateCreationDateTime": now(),
            "Keys": key,
            "SequenceNumber": sequence_text(*counter),
            "SizeBytes": 100,
            "StreamViewType": stream.view,
        });
        if let (Some(new), "NEW_IMAGE" | "NEW_AND_OLD_IMAGES") = (new, stream.view.as_str()) {
            change["NewImage"] = new;
        }
        if let (Some(old), "OLD_IMAGE" | "NEW_AND_OLD_IMAGES") = (old, stream.view.as_str()) {
            change["OldImage"] = old;
        }
        let body = serde_json::json!({
            "awsRegion": "eu-west-1", "eventID": format!("{counter:032x}"), "eventName": kind,
            "eventSource": "aws:dynamodb", "eventVersion": "1.1", "dynamodb": change,
        });
        let is_held = stream.is_held;
        let owns = |shard: &&mut Shard| !shard.is_closed && (shard.range.0..=shard.range.1).contains(&partition);
        let shard = stream.shards.iter_mut().find(owns).expect("an open shard owns every key");
        shard.records.push(Record { sequence: *counter, body });
        if !is_held {
            shard.visible = shard.records.len();
        }
    }
}

// === impl Stream ===

impl Stream {
    fn open(&mut self, parent: Option<&str>, range: (u64, u64), counter: &mut u64) {
        *counter += 1;
        self.shards.push(Shard {
            id: format!("shardId-{:020}-{counter:08x}", 1_700_000_000_000 + *counter),
            parent: parent.map(str::to_owned),
            range,
            first: *counter,
            is_closed: false,
            is_listed: true,
            records: Vec::new(),
            trimmed: 0,
            visible: 0,
        });
    }

    /// Closes a shard, and opens `children` in its place.
    pub(super) fn replace(&mut self, id: &str, children: u64, counter: &mut u64) {
        let shard = self.shards.iter_mut().find(|shard| shard.id == id).expect("there is such a shard");
        shard.is_closed = true;
        let (low, high) = shard.range;
        let middle = low + (high - low) / 2;
        match children {
            2 => {
                self.open(Some(id), (low, middle), counter);
                self.open(Some(id), (middle + 1, high), counter);
            }
            _ => self.open(Some(id), (low, high), counter),
        }
    }

    pub(super) fn hold(&mut self, is_held: bool) {
        self.is_held = is_held;
        if !is_held {
            self.shards.iter_mut().for_each(|shard| shard.visible = shard.records.len());
        }
    }
}

// === impl Shard ===

impl Shard {
    pub(super) fn info(&self) -> ShardInfo {
        ShardInfo { id: self.id.clone(), parent: self.parent.clone(), is_closed: self.is_closed }
    }
}
