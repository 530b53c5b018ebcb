//! A stream: its shards, each with a range of key hashes, and their records.

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
    /// Whether new records are withheld.
    is_held: bool,
}

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) id: String,
    pub(super) parent: Option<String>,
    /// The range of hashes of partition keys, both ends included. The shard has the records of these keys.
    range: (u64, u64),
    /// The shard's starting sequence number. No record has this number.
    pub(super) first: u64,
    /// The shard's ending sequence number. No record has this number. `None` while the shard is open.
    pub(super) last: Option<u64>,
    /// Whether the stream still lists the shard. A closed shard can be removed from the list.
    pub(super) is_listed: bool,
    /// All records that were ever added, including removed records.
    pub(super) records: Vec<Record>,
    /// The number of removed records at the start.
    pub(super) trimmed: usize,
    /// Records before this sequence number are removed.
    pub(super) trim_point: u64,
    /// The number of records that are not withheld, including removed records.
    pub(super) visible: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) sequence: u64,
    pub(super) body: Value,
}

/// Formats a sequence number with 25 digits, because AWS's sequence numbers also have many digits.
pub(super) fn sequence_text(sequence: u64) -> String {
    format!("1{sequence:024}")
}

/// Parses a sequence number that [`sequence_text`] formatted.
pub(super) fn sequence_of(text: &str) -> Option<u64> {
    text.strip_prefix('1').filter(|digits| digits.len() == 24)?.parse().ok()
}

// === impl Stream ===

impl Stream {
    pub(super) fn new(table: &str, view: &str, counter: &mut u64) -> Self {
        let known = ["KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES"];
        assert!(known.contains(&view), "'{view}' is not a view type of a stream");
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

    /// Closes a shard, and opens one or two children for its range.
    pub(super) fn replace(&mut self, id: &str, children: u64, counter: &mut u64) {
        let shard = self.shards.iter_mut().find(|shard| shard.id == id && shard.last.is_none());
        let shard = shard.unwrap_or_else(|| panic!("no open shard '{id}'"));
        *counter += 1;
        shard.last = Some(*counter);
        let (low, high) = shard.range;
        if children == 1 {
            self.open(Some(id), (low, high), counter);
        } else {
            assert!(low < high, "shard '{id}' has only one hash and cannot be split");
            let middle = low + (high - low) / 2;
            self.open(Some(id), (low, middle), counter);
            self.open(Some(id), (middle + 1, high), counter);
        }
    }

    /// Closes a shard without opening a child. The next write to a key of the closed shard opens a child.
    pub(super) fn close(&mut self, id: &str, counter: &mut u64) {
        let shard = self.shards.iter_mut().find(|shard| shard.id == id && shard.last.is_none());
        let shard = shard.unwrap_or_else(|| panic!("no open shard '{id}'"));
        *counter += 1;
        shard.last = Some(*counter);
    }

    /// Returns the IDs of the open shards.
    pub(super) fn open_ids(&self) -> Vec<String> {
        self.shards.iter().filter(|shard| shard.last.is_none()).map(|shard| shard.id.clone()).collect()
    }

    /// Adds a record to the open shard of its key.
    pub(super) fn append(&mut self, key_hash: u64, kind: &str, mut change: Value, counter: &mut u64) {
        let owns = |shard: &Shard| (shard.range.0..=shard.range.1).contains(&key_hash);
        if !self.shards.iter().any(|shard| shard.last.is_none() && owns(shard)) {
            // The key's shard was closed without a child. The newest shard that had the key becomes the parent.
            let owner = self.shards.iter().rfind(|shard| owns(shard)).map(|shard| (shard.id.clone(), shard.range));
            let (id, range) = owner.expect("every hash has had a shard");
            self.open(Some(&id), range, counter);
        }
        *counter += 1;
        change["SequenceNumber"] = json!(sequence_text(*counter));
        let body = json!({
            "awsRegion": "eu-west-1", "eventID": format!("{counter:032x}"), "eventName": kind,
            "eventSource": "aws:dynamodb", "eventVersion": "1.1", "dynamodb": change,
        });
        let is_held = self.is_held;
        let owner = self.shards.iter_mut().find(|shard| shard.last.is_none() && owns(shard));
        let owner = owner.expect("every hash has an open shard");
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

    /// Removes closed shards.
    pub(super) fn trim_closed(&mut self) {
        self.shards.iter_mut().filter(|shard| shard.last.is_some()).for_each(|shard| shard.is_listed = false);
    }

    /// Removes the records before a sequence number.
    pub(super) fn trim_to(&mut self, sequence: u64) {
        for shard in &mut self.shards {
            let removed = shard.records.partition_point(|record| record.sequence < sequence);
            shard.trimmed = shard.trimmed.max(removed);
            shard.visible = shard.visible.max(shard.trimmed);
            shard.trim_point = shard.trim_point.max(sequence);
        }
    }

    /// Returns the sequence numbers of the remaining records, in the order of the writes.
    pub(super) fn sequences(&self) -> Vec<u64> {
        let kept = self.shards.iter().flat_map(|shard| &shard.records[shard.trimmed..]);
        let mut sequences: Vec<u64> = kept.map(|record| record.sequence).collect();
        sequences.sort_unstable();
        sequences
    }

    /// Removes all records.
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

    /// Parses a sequence number. Returns `None` if the shard does not have this number.
    pub(super) fn sequence(&self, text: &str) -> Option<u64> {
        let own = self.records.iter().map(|record| record.sequence).chain([self.first]).chain(self.last);
        own.into_iter().find(|sequence| sequence_text(*sequence) == text)
    }
}
