//! The position up to which a table was read: the identity of the table, the position in each segment of a scan, and
//! the position in each shard of the table's stream.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use larder_model::model::Micros;
use serde::{Deserialize, Serialize};

use super::item::Attributes;

/// The position up to which a table was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) table: TableIdentity,
    /// The position in the table's stream; `None` if the table is not followed through a stream.
    pub(super) stream: Option<StreamPosition>,
    /// The progress of the scan; `None` after the full read.
    pub(super) scan: Option<ScanPosition>,
    /// The time up to which all changes were read. During a full read, this is the time at which the read started.
    pub(super) as_of: Micros,
}

/// The identity of a table, which distinguishes it from another table of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TableIdentity {
    pub(super) arn: String,
    /// DynamoDB's ID of the table, or the creation time if the server has no IDs.
    pub(super) id: String,
}

/// A position in a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StreamPosition {
    /// The stream's ARN, which changes if the stream is turned off and on.
    pub(super) arn: String,
    pub(super) shards: BTreeMap<String, ShardPosition>,
}

/// A position in a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ShardPosition {
    /// No record was read.
    Start,
    /// All records up to this sequence number were read.
    After(String),
    /// The shard is closed, and was read to its end.
    Done,
}

/// The progress of a scan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ScanPosition {
    pub(super) segments: Vec<SegmentPosition>,
    /// The time at which the last page was processed. Changes up to this time must be read before the scanned rows are
    /// served.
    pub(super) ended: Option<Micros>,
}

/// The progress of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SegmentPosition {
    Start,
    After(BTreeMap<String, KeyAttribute>),
    Done,
}

/// An attribute of a primary key, as in DynamoDB's JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum KeyAttribute {
    S(String),
    N(String),
    B(String),
}

// === impl Position ===

impl Position {
    /// Parses a position; returns `None` for text in another format, for example from another kind of source.
    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(super) fn print(&self) -> String {
        // String keys, numbers and strings always serialize.
        serde_json::to_string(self).unwrap_or_default()
    }
}

// === impl ScanPosition ===

impl ScanPosition {
    pub(super) fn new(segments: usize) -> Self {
        Self { segments: vec![SegmentPosition::Start; segments], ended: None }
    }

    pub(super) fn is_done(&self) -> bool {
        self.segments.iter().all(|segment| *segment == SegmentPosition::Done)
    }
}

// === impl SegmentPosition ===

impl SegmentPosition {
    /// Returns the position after a page that ended with this key; `None` means that the page was the last one.
    pub(super) fn after(key: Option<&Attributes>) -> Self {
        let Some(key) = key.filter(|key| !key.is_empty()) else { return Self::Done };
        let attributes = key.iter().filter_map(|(name, value)| {
            let value = match value {
                AttributeValue::S(text) => KeyAttribute::S(text.clone()),
                AttributeValue::N(number) => KeyAttribute::N(number.clone()),
                AttributeValue::B(bytes) => KeyAttribute::B(BASE64_STANDARD.encode(bytes)),
                // No other type is allowed in keys.
                _ => return None,
            };
            Some((name.clone(), value))
        });
        Self::After(attributes.collect())
    }

    /// Returns the exclusive start key of the next page; `None` to start at the beginning.
    pub(super) fn start_key(&self) -> Option<Attributes> {
        let Self::After(key) = self else { return None };
        let attributes = key.iter().filter_map(|(name, value)| {
            let value = match value {
                KeyAttribute::S(text) => AttributeValue::S(text.clone()),
                KeyAttribute::N(number) => AttributeValue::N(number.clone()),
                KeyAttribute::B(text) => AttributeValue::B(BASE64_STANDARD.decode(text).ok()?.into()),
            };
            Some((name.clone(), value))
        });
        Some(attributes.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_of_any_type_round_trips() {
        let key = Attributes::from([
            ("a".to_owned(), AttributeValue::S("x\"y".into())),
            ("b".to_owned(), AttributeValue::N("-1.5".into())),
            ("c".to_owned(), AttributeValue::B(vec![0, 255].into())),
        ]);
        let position = Position {
            table: TableIdentity { arn: "arn".into(), id: "1".into() },
            stream: None,
            scan: Some(ScanPosition { segments: vec![SegmentPosition::after(Some(&key))], ended: None }),
            as_of: 5,
        };
        let read = Position::parse(&position.print()).unwrap();
        assert_eq!(read, position);
        assert_eq!(read.scan.unwrap().segments[0].start_key(), Some(key));
        assert_eq!(SegmentPosition::after(None), SegmentPosition::Done);
        assert_eq!(Position::parse("{\"files\":{}}"), None, "the position of another kind of source");
    }
}
