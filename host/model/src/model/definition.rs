//! Served definitions: entities, feature views and feature services, as a validated catalog contains them.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc, time::Duration};

use super::{Micros, ScalarType, ValueType};

/// The name that Feast gives to the join key of a view without entities. In stored rows, the value of this key is the
/// empty string. Requests do not contain the key.
pub const JOIN_KEY_DUMMY: &str = "__dummy_id";

/// Free-text tags of a definition, by key; `version` and `owner` are customary.
pub type Tags = BTreeMap<String, String>;

/// Identifies the entity of a row: the 16 bytes that Feast writes, in hexadecimal, as `entity_id` in DynamoDB.
///
/// The bytes are the MurmurHash3 of the serialized entity key: see [`crate::codec::KeyEncoder`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityId(pub [u8; 16]);

/// The error for text that is not an entity id of 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidEntityId;

/// An object that features describe, such as a customer or a driver.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity {
    /// The entity's name in definitions.
    pub name: Arc<str>,
    /// The name of the column that contains the entity's key in requests and sources.
    pub join_key: Arc<str>,
    /// The key's type. [`ValueType::can_be_join_key`] returns true for it.
    pub value_type: ScalarType,
    /// A description for users.
    pub description: String,
    /// User-defined tags.
    pub tags: Tags,
}

/// A named, typed value of an entity.
#[derive(Clone, Debug, PartialEq)]
pub struct Feature {
    /// The feature's name, unique in its view.
    pub name: Arc<str>,
    /// The type of the feature's values.
    pub value_type: ValueType,
    /// A description for users.
    pub description: String,
    /// User-defined tags.
    pub tags: Tags,
}

/// A join key of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinKey {
    /// The name of the column that contains the key's values.
    pub name: Arc<str>,
    /// The key's type. [`ValueType::can_be_join_key`] returns true for it.
    pub value_type: ScalarType,
}

/// Features that share a key, a source and a time to live.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureView {
    /// The view's name, unique in the project.
    pub name: Arc<str>,
    /// The names of the view's entities.
    pub entities: Vec<Arc<str>>,
    /// The view's join keys, sorted by name. A view without entities has the single key [`JOIN_KEY_DUMMY`].
    pub join_keys: Vec<JoinKey>,
    /// The view's features, in declared order.
    pub features: Vec<Feature>,
    /// How long a row is fresh after its event time; `None` means forever.
    pub ttl: Option<Duration>,
    /// The source from which rows are loaded automatically; `None` if only callers write rows.
    pub source: Option<Source>,
    /// The files for materialization on demand, if `source` is not Parquet files.
    pub batch_source: Option<FileSource>,
    /// The name of the push source that writes rows to this view.
    pub push_source: Option<Arc<str>>,
    /// How a load treats stored rows that it does not contain.
    pub mode: WriteMode,
    /// A description for users.
    pub description: String,
    /// User-defined tags.
    pub tags: Tags,
    /// When the view was added to the registry that defines it, if the registry records that. If the time changes, the
    /// view was removed from the registry and added again.
    pub created: Option<Micros>,
}

/// The source of a view's rows, and how often they are read.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// The kind of source.
    pub from: SourceKind,
    /// How often the source is read again while the server runs. `None` means that there is no fixed interval: the
    /// source is read at startup, on demand, at the times in `cron`, and after a failed sync.
    pub every: Option<Duration>,
    /// When the source is read again, as a cron expression in UTC.
    pub cron: Option<String>,
}

/// The kinds of sources.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceKind {
    /// Parquet files.
    Files(FileSource),
    /// A table in DynamoDB.
    DynamoDb(TableSource),
    /// A table in the SQLite file in which Feast's local provider keeps its online store.
    FeastSqlite {
        /// The file, as written in the definition.
        path: String,
        /// The table's name.
        table: String,
    },
}

/// Parquet files with a view's rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileSource {
    /// A file or a directory of `*.parquet` files, or an object or a prefix in S3 (`s3://bucket/key`), as written in
    /// the definition.
    pub path: String,
    /// For a path in S3: the region and endpoint.
    pub place: AwsPlace,
    /// For a path in S3: how to detect that a set of objects is complete.
    pub gate: Gate,
    /// The event time column, by its name after `field_mapping`. `None` for a static table: the event time of its rows
    /// is the time at which they are read.
    pub timestamp_field: Option<String>,
    /// The column of created times, by its name after `field_mapping`. Created times break ties between equal event
    /// times.
    pub created_timestamp_column: Option<String>,
    /// Maps columns in the file to names in the definitions.
    pub field_mapping: BTreeMap<String, String>,
}

/// The region and endpoint of an AWS service; unset values come from the server's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AwsPlace {
    /// The region.
    pub region: Option<String>,
    /// The address of the service.
    pub endpoint: Option<String>,
}

/// How to detect that the set of objects under a prefix is complete. A check is useful because a set is written object
/// by object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// No check: all existing `*.parquet` objects are read.
    #[default]
    Open,
    /// The set is complete once an object with this name exists under the prefix, because it is written last. Nothing
    /// is read before that. A set that was read completely is not read again until this object is written again.
    Marker(String),
    /// An object with this name under the prefix lists the objects of the set. Other objects are not read.
    Manifest(String),
}

/// A table in DynamoDB with a view's rows.
#[derive(Clone, Debug, PartialEq)]
pub struct TableSource {
    /// The table's name.
    pub table: String,
    /// The region and endpoint.
    pub place: AwsPlace,
    /// The layout of its items.
    pub layout: TableLayout,
    /// How often the table's stream is polled for changes. `None` means that the stream is not followed.
    pub poll: Option<Duration>,
    /// The number of segments that are scanned concurrently.
    pub segments: u16,
    /// The maximum number of read capacity units per second for a scan; `None` means no limit.
    pub read_units: Option<u32>,
    /// The attribute that DynamoDB's own TTL uses. It contains the time, in seconds since 1970, after which DynamoDB
    /// deletes the item. DynamoDB deletes expired items with a delay, so Larder skips them.
    pub ttl_attribute: Option<String>,
    /// How to treat an entity without a stored row.
    pub on_miss: OnMiss,
}

/// The layouts of a table's items.
#[derive(Clone, Debug, PartialEq)]
pub enum TableLayout {
    /// Feast's layout. `entity_id` is the entity id in hexadecimal digits, `event_ts` is the event time as text, and
    /// `values` is a map of serialized values.
    Feast,
    /// An item for each entity, with an attribute for each join key and each feature.
    Wide {
        /// Maps attributes to names in the definitions.
        field_mapping: BTreeMap<String, String>,
        /// The attribute that contains the event time. `None` means that the event time of a row is the time at which
        /// the row was read.
        timestamp: Option<String>,
    },
    /// An item for each feature of each entity.
    ItemPerFeature {
        /// The attribute that contains the entity's key. It is the table's partition key.
        key: String,
        /// The attribute that contains the feature's name. It is the table's sort key.
        feature: String,
        /// The attribute that contains the feature's value.
        value: String,
        /// Maps names of features in the table to names in the definitions.
        field_mapping: BTreeMap<String, String>,
        /// The attribute of event times. `None` means that the event time of a row is the time at which the row was
        /// read.
        timestamp: Option<String>,
    },
}

/// How to treat an entity without a stored row.
#[derive(Clone, Debug, PartialEq)]
pub enum OnMiss {
    /// The entity is reported as not found, because the store has the whole table.
    NotFound,
    /// The row is fetched from the table, because the store has only the recently requested entities.
    Fetch(ReadThrough),
}

/// Settings for fetching single rows from a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadThrough {
    /// The maximum size of all fetched rows on disk, in bytes. Beyond this size, rows are evicted.
    pub max_bytes: u64,
    /// The maximum time that a request waits for fetched rows.
    pub timeout: Duration,
    /// How long to wait before the table is queried again for an entity that the table does not have.
    pub negative_ttl: Duration,
    /// How long a row is served before it is fetched again, if no stream reports changes.
    pub fresh_for: Duration,
    /// The maximum number of concurrent requests to DynamoDB.
    pub max_concurrent: u16,
}

/// How a load treats stored rows that it does not contain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// The load keeps them.
    #[default]
    Upsert,
    /// The load deletes them: it builds a new generation of rows, which replaces the served generation atomically.
    Replace,
}

/// A named selection of features, which models request by name.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureService {
    /// The service's name, unique in the project.
    pub name: Arc<str>,
    /// The features that the service selects from each view, in order.
    pub projections: Vec<Projection>,
    /// A description for users.
    pub description: String,
    /// User-defined tags.
    pub tags: Tags,
}

/// The features that a service selects from one view.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    /// The view's name.
    pub view: Arc<str>,
    /// The selected features, in order.
    pub features: Vec<Arc<str>>,
    /// The name that replaces the view's name in full feature names (Feast: `with_name`).
    pub alias: Option<Arc<str>>,
    /// Maps a view's join key to the request column that contains it (Feast: `with_join_key_map`).
    pub join_key_map: BTreeMap<Arc<str>, Arc<str>>,
}

impl Default for ReadThrough {
    fn default() -> Self {
        Self {
            max_bytes: 1 << 30,
            timeout: Duration::from_millis(50),
            negative_ttl: Duration::from_secs(10),
            fresh_for: Duration::from_secs(60),
            max_concurrent: 16,
        }
    }
}

// === impl EntityId ===

impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for EntityId {
    type Err = InvalidEntityId;

    fn from_str(text: &str) -> Result<Self, InvalidEntityId> {
        // `from_str_radix` would accept a sign and fewer digits.
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidEntityId);
        }
        u128::from_str_radix(text, 16).map(|id| Self(id.to_be_bytes())).map_err(|_| InvalidEntityId)
    }
}

impl fmt::Debug for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntityId({self})")
    }
}

// === impl TableSource ===

impl TableSource {
    /// The default poll interval of a stream. DynamoDB accepts five requests per second for each shard, in total for
    /// all readers.
    pub const POLL: Duration = Duration::from_secs(1);

    /// The default number of segments that are scanned concurrently.
    pub const SEGMENTS: u16 = 4;

    /// Returns a table in Feast's layout, with default settings.
    #[must_use]
    pub fn feast(table: String, place: AwsPlace) -> Self {
        Self {
            table,
            place,
            layout: TableLayout::Feast,
            poll: Some(Self::POLL),
            segments: Self::SEGMENTS,
            read_units: None,
            ttl_attribute: None,
            on_miss: OnMiss::NotFound,
        }
    }
}

// === impl FeatureView ===

impl FeatureView {
    /// Returns the index of the feature with this name in [`FeatureView::features`].
    #[must_use]
    pub fn feature_index(&self, name: &str) -> Option<usize> {
        self.features.iter().position(|feature| &*feature.name == name)
    }

    /// Returns the Parquet files from which the view's rows are materialized; `None` if there are none.
    #[must_use]
    pub fn files(&self) -> Option<&FileSource> {
        match self.source.as_ref().map(|source| &source.from) {
            Some(SourceKind::Files(files)) => Some(files),
            _ => self.batch_source.as_ref(),
        }
    }

    /// Returns the DynamoDB table that is the view's source; `None` if the source is not a table.
    #[must_use]
    pub fn table(&self) -> Option<&TableSource> {
        match &self.source.as_ref()?.from {
            SourceKind::DynamoDb(table) => Some(table),
            SourceKind::Files(_) | SourceKind::FeastSqlite { .. } => None,
        }
    }

    /// Returns the read-through settings; `None` if missing rows are not fetched from a table.
    #[must_use]
    pub fn read_through(&self) -> Option<&ReadThrough> {
        match &self.table()?.on_miss {
            OnMiss::Fetch(how) => Some(how),
            OnMiss::NotFound => None,
        }
    }

    /// Returns whether each row can have its own expiration time, in addition to the view's TTL.
    #[must_use]
    pub fn has_expiry(&self) -> bool {
        self.table().is_some_and(|table| table.ttl_attribute.is_some())
    }

    /// Returns whether the view has no entities, and therefore a single row.
    #[must_use]
    pub fn is_entityless(&self) -> bool {
        self.entities.is_empty()
    }
}

// === impl Projection ===

impl Projection {
    /// Returns the name before `__` in full feature names: the alias, or else the view's name.
    #[must_use]
    pub fn prefix(&self) -> &Arc<str> {
        self.alias.as_ref().unwrap_or(&self.view)
    }

    /// Returns the request column that contains a join key of the view.
    #[must_use]
    pub fn request_column<'p>(&'p self, join_key: &'p Arc<str>) -> &'p Arc<str> {
        self.join_key_map.get(join_key).unwrap_or(join_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_id_round_trips() {
        let id = EntityId([0x0a, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff]);
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text.to_uppercase().parse(), Ok(id));
        let signed = format!("+{}", &text[1..]);
        for wrong in ["", &text[1..], &format!("{text}0"), &signed, "0123456789abcdef0123456789abcdeg", "äöü"] {
            assert_eq!(wrong.parse::<EntityId>(), Err(InvalidEntityId), "{wrong}");
        }
    }
}
