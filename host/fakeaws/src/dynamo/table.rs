//! A table: its items in the order of a scan, and the stream records of its writes.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    ACCOUNT,
    stream::Stream,
    value::{normal_item, ordered, size},
};
use crate::serve::{hash, now};

/// The position of an item in a scan. Items are ordered by the hash of the partition key, and then by the sort key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ItemPosition {
    pub(super) hash: u64,
    partition: Vec<u8>,
    sort: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) id: u64,
    created: f64,
    /// The names and types of the key attributes, the partition key first.
    pub(super) keys: Vec<(String, String)>,
    pub(super) items: BTreeMap<ItemPosition, Value>,
    pub(super) stream: Option<Stream>,
    /// The ARN and label of the latest stream. A table reports them even after its stream is turned off.
    latest: Option<(String, String)>,
    /// The attribute with the expiration time of an item.
    pub(super) ttl: Option<String>,
    /// The generated keys of pages without items. Each key has the position after which a scan continues; `None` is the
    /// beginning of the table.
    generated: BTreeMap<String, Option<ItemPosition>>,
}

// === impl Table ===

impl Table {
    pub(super) fn new(name: &str, keys: Vec<(String, String)>, id: u64) -> Self {
        let items = BTreeMap::new();
        let generated = BTreeMap::new();
        Self {
            name: name.to_owned(),
            id,
            created: now(),
            keys,
            items,
            stream: None,
            latest: None,
            ttl: None,
            generated,
        }
    }

    pub(super) fn enable_stream(&mut self, view: &str, counter: &mut u64) {
        let stream = Stream::new(&self.name, view, counter);
        self.latest = Some((stream.arn.clone(), stream.label.clone()));
        self.stream = Some(stream);
    }

    /// Returns the table's stream. Panics if the table has none.
    pub(super) fn stream_mut(&mut self) -> &mut Stream {
        self.stream.as_mut().unwrap_or_else(|| panic!("table '{}' has no stream", self.name))
    }

    /// Returns the name of the partition key.
    pub(super) fn partition(&self) -> &str {
        self.keys.first().map_or("", |(name, _)| name)
    }

    /// Returns the key attributes of an item.
    pub(super) fn key_of(&self, item: &Value) -> Value {
        let key = self.keys.iter().filter_map(|(name, _)| Some((name.clone(), item.get(name)?.clone())));
        Value::Object(key.collect::<Map<_, _>>())
    }

    /// Returns the position of an item; `None` if its key is incomplete.
    pub(super) fn position(&self, item: &Value) -> Option<ItemPosition> {
        let part = |name: &str, kind: &str| {
            let value = item.get(name)?;
            value.get(kind).and_then(|_| ordered(value))
        };
        let mut parts = self.keys.iter().map(|(name, kind)| part(name, kind)).collect::<Option<Vec<_>>>()?.into_iter();
        let partition = parts.next()?;
        Some(ItemPosition { hash: hash(&partition), partition, sort: parts.next().unwrap_or_default() })
    }

    /// Returns the position of a key; `None` if the key is incomplete or has other attributes.
    pub(super) fn position_of_key(&self, key: &Value) -> Option<ItemPosition> {
        let has_no_others = key.as_object().is_some_and(|key| key.len() == self.keys.len());
        self.position(key).filter(|_| has_no_others)
    }

    /// Generates a key that no item has. A scan from this key continues after the given position.
    pub(super) fn generate_key(&mut self, position: Option<ItemPosition>, number: u64) -> Value {
        let value = |kind: &str| match kind {
            "N" => json!({ "N": (9_000_000_000_000_000_000 + number).to_string() }),
            "B" => json!({ "B": format!("{:016}", number) }),
            _ => json!({ "S": format!("generated-{number}") }),
        };
        let key: Map<_, _> = self.keys.iter().map(|(name, kind)| (name.clone(), value(kind))).collect();
        let key = Value::Object(key);
        self.generated.insert(key.to_string(), position);
        key
    }

    /// Returns the position after which a scan or query continues. The outer `None` means that the key is invalid. The
    /// inner `None` means that the scan starts at the beginning.
    pub(super) fn start(&self, key: &Value) -> Option<Option<ItemPosition>> {
        match self.generated.get(&key.to_string()) {
            Some(position) => Some(position.clone()),
            None => self.position_of_key(key).map(Some),
        }
    }

    /// Puts an item, and returns the previous item with its key. The error is the reason why the item is rejected.
    pub(super) fn put(&mut self, item: &Value, counter: &mut u64) -> Result<Option<Value>, String> {
        let item = normal_item(item)?;
        let position = self.position(&item).ok_or("One of the required keys was not given a value")?;
        let before = self.items.insert(position, item.clone());
        // A write that changes nothing creates no record.
        if before.as_ref() != Some(&item) {
            let kind = if before.is_some() { "MODIFY" } else { "INSERT" };
            let key = self.key_of(&item);
            self.record(kind, key, Some(item), before.clone(), counter);
        }
        Ok(before)
    }

    /// Deletes the item with this key, and returns the item. The error is the reason why the key is rejected.
    pub(super) fn delete(&mut self, key: &Value, counter: &mut u64) -> Result<Option<Value>, String> {
        let position = self.position_of_key(key).ok_or("The provided key element does not match the schema")?;
        let before = self.items.remove(&position);
        if let Some(before) = &before {
            let key = self.key_of(before);
            self.record("REMOVE", key, None, Some(before.clone()), counter);
        }
        Ok(before)
    }

    /// Adds a record of a change to the table's stream. Does nothing if the table has no stream.
    pub(super) fn record(&mut self, kind: &str, key: Value, new: Option<Value>, old: Option<Value>, counter: &mut u64) {
        let Some(position) = self.position(&key) else { return };
        let Some(stream) = &mut self.stream else { return };
        let mut change = json!({ "Keys": key, "ApproximateCreationDateTime": now().floor() });
        let mut bytes = size(&key);
        let (has_new, has_old) = match stream.view.as_str() {
            "NEW_IMAGE" => (true, false),
            "OLD_IMAGE" => (false, true),
            "NEW_AND_OLD_IMAGES" => (true, true),
            _ => (false, false),
        };
        for (name, image) in [("NewImage", new.filter(|_| has_new)), ("OldImage", old.filter(|_| has_old))] {
            if let Some(image) = image {
                bytes += size(&image);
                change[name] = image;
            }
        }
        change["SizeBytes"] = json!(bytes);
        change["StreamViewType"] = json!(stream.view);
        stream.append(position.hash, kind, change, counter);
    }

    pub(super) fn describe(&self) -> Value {
        let keys = self.keys.iter().enumerate().map(
            |(index, (name, _))| json!({ "AttributeName": name, "KeyType": if index == 0 { "HASH" } else { "RANGE" } }),
        );
        let kinds = self.keys.iter().map(|(name, kind)| json!({ "AttributeName": name, "AttributeType": kind }));
        let mut described = json!({
            "TableName": self.name,
            "TableStatus": "ACTIVE",
            "TableId": format!("00000000-0000-4000-8000-{:012x}", self.id),
            "TableArn": format!("{ACCOUNT}:table/{}", self.name),
            // Tables that are created in the same millisecond get different times.
            "CreationDateTime": ((self.created * 1_000.0).floor() + f64::from(u32::try_from(self.id % 1_000).unwrap_or(0))) / 1_000.0,
            "ItemCount": self.items.len(),
            "TableSizeBytes": self.items.values().map(size).sum::<usize>(),
            "KeySchema": keys.collect::<Vec<_>>(),
            "AttributeDefinitions": kinds.collect::<Vec<_>>(),
            "BillingModeSummary": { "BillingMode": "PAY_PER_REQUEST" },
        });
        if let Some(stream) = &self.stream {
            described["StreamSpecification"] = json!({ "StreamEnabled": true, "StreamViewType": stream.view });
        }
        if let Some((arn, label)) = &self.latest {
            described["LatestStreamArn"] = json!(arn);
            described["LatestStreamLabel"] = json!(label);
        }
        described
    }
}
