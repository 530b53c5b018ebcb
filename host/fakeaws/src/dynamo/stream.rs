//! A stream: shards, which own the hashes of keys, and their records.

use serde_json::{Value, json};

use super::{ACCOUNT, ShardInfo};
use crate::serve::{hash, now};

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) table: String,
    pub(super) arn: String,
    pub(super) label: String,
    pub(super) view: String,
    pub(super) created: f64,
    pub(super) shards: Vec<Shard>,
    /// Records that are written are not shown.
    is_held: bool,
}

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) id: String,
    pub(super) parent: Option<String>,
    /// The hashes of partition keys whose records it has, both included.
    range: (u64, u64),
    /// The sequence number that it begins with; no record has it.
    pub(super) first: u64,
    /// The one that it ended with; no record has it either.
    pub(super) last: Option<u64>,
    /// Whether DescribeStream knows it.
    pub(super) is_listed: bool,
    /// All that there ever were.
    pub(super) records: Vec<Record>,
    /// How many records at the beginning are gone.
    pub(super) trimmed: usize,
    /// What is before this sequence number is gone.
    pub(super) trim_point: u64,
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

// === impl Stream ===

impl Stream {
    pub(super) fn new(table: &str, view: &str, counter: &mut u64) -> Self {
        let known = ["KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES"];
        assert!(known.contains(&view), "'{view}' is no view type of a stream");
        *counter += 1;
        let (minutes, millis) = (*counter / 60_000, *counter % 60_000);
        let label = format!(
            "2026-01-01T{:02}:{:02}:{:02}.{:03}",
            minutes / 60 % 24,
            minutes % 60,
            millis / 1_000,
            millis % 1_000
        );
        let arn = format!("{ACCOUNT}:table/{table}/stream/{label}");
        let (table, view) = (table.to_owned(), view.to_owned());
        let mut stream = Self { table, arn, label, view, created: now().floor(), shards: Vec::new(), is_held: false };
        stream.open(None, (0, u64::MAX), counter);
        stream
    }

    fn open(&mut self, parent: Option<&str>, range: (u64, u64), counter: &mut u64) {
        *counter += 1;
        let random = hash(&counter.to_le_bytes()) & u64::from(u32::MAX);
        self.shards.push(Shard {
            id: format!("shardId-{:020}-{random:08x}", 1_700_000_000_000 + *counter),
            parent: parent.map(str::to_owned),
            range,
            first: *counter,
            last: None,
            is_listed: true,
            records: Vec::new(),
            trimmed: 0,
            trim_point: 0,
            visible: 0,
        });
    }

    /// Closes a shard, and opens `children` in its place, one or two.
    pub(super) fn replace(&mut self, id: &str, children: u64, counter: &mut u64) {
        let shard = self.shards.iter_mut().find(|shard| shard.id == id && shard.last.is_none());
        let shard = shard.unwrap_or_else(|| panic!("no open shard '{id}'"));
        *counter += 1;
        shard.last = Some(*counter);
        let (low, high) = shard.range;
        if children == 1 {
            self.open(Some(id), (low, high), counter);
        } else {
            assert!(low < high, "shard '{id}' owns one hash, which cannot be split");
            let middle = low + (high - low) / 2;
            self.open(Some(id), (low, middle), counter);
            self.open(Some(id), (middle + 1, high), counter);
        }
    }

    /// The ids of open shards.
    pub(super) fn open_ids(&self) -> Vec<String> {
        self.shards.iter().filter(|shard| shard.last.is_none()).map(|shard| shard.id.clone()).collect()
    }

    /// Adds a record to the open shard that owns its key.
    pub(super) fn append(&mut self, key_hash: u64, kind: &str, mut change: Value, counter: &mut u64) {
        *counter += 1;
        change["SequenceNumber"] = json!(sequence_text(*counter));
        let body = json!({
            "awsRegion": "eu-west-1", "eventID": format!("{counter:032x}"), "eventName": kind,
            "eventSource": "aws:dynamodb", "eventVersion": "1.1", "dynamodb": change,
        });
        let is_held = self.is_held;
        let owner = self
            .shards
            .iter_mut()
            .find(|shard| shard.last.is_none() && (shard.range.0..=shard.range.1).contains(&key_hash));
        let owner = owner.expect("the open shards own all hashes");
        owner.records.push(Record { sequence: *counter, body });
        if !is_held {
            owner.visible = owner.records.len();
        }
    }

    pub(super) fn hold(&mut self, is_held: bool) {
        self.is_held = is_held;
        if !is_held {
            self.shards.iter_mut().for_each(|shard| shard.visible = shard.records.len());
        }
    }

    /// Forgets closed shards.
    pub(super) fn trim_closed(&mut self) {
        self.shards.iter_mut().filter(|shard| shard.last.is_some()).for_each(|shard| shard.is_listed = false);
    }

    /// Forgets all records.
    pub(super) fn trim_records(&mut self, counter: u64) {
        for shard in &mut self.shards {
            shard.trimmed = shard.records.len();
            shard.visible = shard.records.len();
            shard.trim_point = counter + 1;
        }
    }
}

// === impl Shard ===

impl Shard {
    pub(super) fn info(&self) -> ShardInfo {
        ShardInfo { id: self.id.clone(), parent: self.parent.clone(), is_closed: self.last.is_some() }
    }

    pub(super) fn describe(&self) -> Value {
        let mut range = json!({ "StartingSequenceNumber": sequence_text(self.first) });
        if let Some(last) = self.last {
            range["EndingSequenceNumber"] = json!(sequence_text(last));
        }
        let mut described = json!({ "ShardId": self.id, "SequenceNumberRange": range });
        if let Some(parent) = &self.parent {
            described["ParentShardId"] = json!(parent);
        }
        described
    }

    /// The sequence number that a text says, if this shard has it.
    pub(super) fn sequence(&self, text: &str) -> Option<u64> {
        let own = self.records.iter().map(|record| record.sequence).chain([self.first]).chain(self.last);
        own.into_iter().find(|sequence| sequence_text(*sequence) == text)
    }
}
