//! What is served: entities, feature views and feature services, as a validated catalog holds them.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc, time::Duration};

use super::{Micros, ScalarType, ValueType};

/// The join key of a view without entities, as Feast names it. Its value is the empty string.
pub const JOIN_KEY_DUMMY: &str = "__dummy_id";

/// Free words about a definition, by name; `version` and `owner` are the customary ones.
pub type Tags = BTreeMap<String, String>;

/// Which entity a row belongs to: the 16 bytes that Feast writes as `entity_id` in DynamoDB.
///
/// They are the MurmurHash3 of the serialized entity key: see [`crate::codec::KeyEncoder`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityId(pub [u8; 16]);

/// A text is no entity id: that is 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEntityId;

/// Something that features describe: a customer, a driver.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity {
    /// Its name in definitions.
    pub name: Arc<str>,
    /// The column that holds its key in requests and sources.
    pub join_key: Arc<str>,
    /// The key's type; one of those for which [`ValueType::can_be_join_key`] holds.
    pub value_type: ScalarType,
    /// What it is, for people.
    pub description: String,
    /// Free words.
    pub tags: Tags,
}

/// A named, typed value of an entity.
#[derive(Clone, Debug, PartialEq)]
pub struct Feature {
    /// Its name, unique in its view.
    pub name: Arc<str>,
    /// Its type.
    pub value_type: ValueType,
    /// What it is, for people.
    pub description: String,
    /// Free words.
    pub tags: Tags,
}

/// One part of a view's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinKey {
    /// The column that holds it.
    pub name: Arc<str>,
    /// Its type; one of those for which [`ValueType::can_be_join_key`] holds.
    pub value_type: ScalarType,
}

/// Features that share a key, a source and a time to live.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureView {
    /// Its name, unique in the project.
    pub name: Arc<str>,
    /// Names of its entities.
    pub entities: Vec<Arc<str>>,
    /// Its key, sorted by name; the dummy key for a view without entities.
    pub join_keys: Vec<JoinKey>,
    /// Its features, in declared order.
    pub features: Vec<Feature>,
    /// How long a row is fresh after its event time; `None` is for ever.
    pub ttl: Option<Duration>,
    /// Where its rows come from, by themselves; others write them here otherwise.
    pub source: Option<Source>,
    /// The files that are materialized on demand, where they are not the source already.
    pub batch_source: Option<FileSource>,
    /// The name under which rows are pushed.
    pub push_source: Option<Arc<str>>,
    /// What becomes of rows that are absent from a newer load.
    pub mode: WriteMode,
    /// What it is, for people.
    pub description: String,
    /// Free words.
    pub tags: Tags,
    /// When the registry that defines it got it first, if it says so. Another time means that the view was removed and
    /// added again in between.
    pub created: Option<Micros>,
}

/// Where a view's rows come from, and how often they are fetched.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// What is read.
    pub from: SourceKind,
    /// How often it is read again while the host runs; `None`: on start, on demand, and as `cron` says.
    pub every: Option<Duration>,
    /// When it is read again, as a line of cron in UTC.
    pub cron: Option<String>,
}

/// What a view's rows are read from.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceKind {
    /// Parquet files.
    Files(FileSource),
    /// A table in DynamoDB.
    DynamoDb(TableSource),
    /// A table of the SQLite file that Feast's local provider keeps its online store in.
    FeastSqlite {
        /// The file, as written in the definition.
        path: String,
        /// The table's name.
        table: String,
    },
}

/// Parquet files that hold a view's rows.
#[derive(Clone, Debug, PartialEq)]
pub struct FileSource {
    /// A file, or a directory of `*.parquet` files, as written in the definition; or an object in S3, or a prefix of
    /// them: `s3://bucket/key`.
    pub path: String,
    /// Of a path in S3: where to ask.
    pub place: AwsPlace,
    /// Of a path in S3: what tells that a set of objects is whole.
    pub gate: Gate,
    /// The column of event times, by its mapped name; `None` for a static table, where the event time of rows is the
    /// time at which they are read.
    pub timestamp_field: Option<String>,
    /// The column of creation times, by its mapped name: it breaks ties between equal event times.
    pub created_timestamp_column: Option<String>,
    /// Column in the file to the name that definitions use.
    pub field_mapping: BTreeMap<String, String>,
}

/// Where AWS is asked: what is not said here is as in the host's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AwsPlace {
    /// The region.
    pub region: Option<String>,
    /// The address of the service.
    pub endpoint: Option<String>,
}

/// What tells that a set of objects under one prefix is whole: a set is written object by object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// Nothing: whatever is there is read.
    #[default]
    Open,
    /// An object of this name under the prefix, written last: nothing is read before it is there, and nothing again
    /// before it is written anew.
    Marker(String),
    /// An object of this name under the prefix that lists the objects of the set; the others are not read.
    Manifest(String),
}

/// A table in DynamoDB that holds a view's rows.
#[derive(Clone, Debug, PartialEq)]
pub struct TableSource {
    /// Its name.
    pub table: String,
    /// Where to ask.
    pub place: AwsPlace,
    /// What its items look like.
    pub layout: TableLayout,
    /// How often the table's stream is asked for changes; `None`: the stream is not followed.
    pub poll: Option<Duration>,
    /// How many segments are scanned at once.
    pub segments: u16,
    /// How many units of read capacity a scan takes in a second; `None`: as many as it gets.
    pub read_units: Option<u32>,
    /// The attribute in which DynamoDB itself finds the time, in seconds since 1970, after which it deletes an item: it
    /// takes its time for that, so such items are left out here.
    pub ttl_attribute: Option<String>,
    /// What becomes of an entity that has no row here.
    pub on_miss: OnMiss,
}

/// What a table's items look like.
#[derive(Clone, Debug, PartialEq)]
pub enum TableLayout {
    /// Feast's: `entity_id`, the id in hexadecimal digits; `event_ts`, text; `values`, a map of serialized values.
    Feast,
    /// An item for each entity, an attribute for each part of the key and each feature.
    Wide {
        /// Attribute to the name that definitions use.
        field_mapping: BTreeMap<String, String>,
        /// The attribute of event times; `None`: a row is as old as the reading that brought it.
        timestamp: Option<String>,
    },
    /// An item for each feature of each entity.
    ItemPerFeature {
        /// The attribute of the entity's key: the partition key.
        key: String,
        /// The attribute of the feature's name: the sort key.
        feature: String,
        /// The attribute of its value.
        value: String,
        /// A feature's name in the table to the name that definitions use.
        field_mapping: BTreeMap<String, String>,
        /// The attribute of event times; `None`: a row is as old as the reading that brought it.
        timestamp: Option<String>,
    },
}

/// What becomes of an entity that has no row in the store.
#[derive(Clone, Debug, PartialEq)]
pub enum OnMiss {
    /// It has none: the store has the whole table.
    NotFound,
    /// The table is asked: the store has a part of it, those entities that were asked for lately.
    Fetch(ReadThrough),
}

/// How single rows are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadThrough {
    /// The limit on bytes of fetched rows on disk; beyond it, rows are evicted.
    pub max_bytes: u64,
    /// How long a request waits for them.
    pub timeout: Duration,
    /// How long an entity that the table does not have is not asked for again.
    pub negative_ttl: Duration,
    /// How long a row is served before the table is asked again, where no stream tells of changes.
    pub fresh_for: Duration,
    /// How many requests to DynamoDB are under way at once.
    pub at_once: u16,
}

/// What becomes of stored rows that a new load does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// They stay.
    #[default]
    Upsert,
    /// They go: the load is built beside what is served and swapped in at once.
    Replace,
}

/// A named selection of features, which models ask for by name.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureService {
    /// Its name, unique in the project.
    pub name: Arc<str>,
    /// What it selects, in order.
    pub projections: Vec<Projection>,
    /// What it is for, for people.
    pub description: String,
    /// Free words.
    pub tags: Tags,
}

/// A feature view as one service sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    /// The view's name.
    pub view: Arc<str>,
    /// The selected features, in order.
    pub features: Vec<Arc<str>>,
    /// The name that stands for the view's in full feature names (Feast: `with_name`).
    pub alias: Option<Arc<str>>,
    /// A view's join key to the request column that holds it (Feast: `with_join_key_map`).
    pub join_key_map: BTreeMap<Arc<str>, Arc<str>>,
}

impl Default for ReadThrough {
    fn default() -> Self {
        Self {
            max_bytes: 1 << 30,
            timeout: Duration::from_millis(50),
            negative_ttl: Duration::from_secs(10),
            fresh_for: Duration::from_secs(60),
            at_once: 16,
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
    type Err = NoEntityId;

    fn from_str(text: &str) -> Result<Self, NoEntityId> {
        // `from_str_radix` would take a sign and fewer digits.
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NoEntityId);
        }
        u128::from_str_radix(text, 16).map(|id| Self(id.to_be_bytes())).map_err(|_| NoEntityId)
    }
}

impl fmt::Debug for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntityId({self})")
    }
}

// === impl TableSource ===

impl TableSource {
    /// How often a stream is asked where nothing is said. DynamoDB lets a shard be asked five times a second, by all who
    /// read it together.
    pub const POLL: Duration = Duration::from_secs(1);

    /// How many segments are scanned at once where nothing is said.
    pub const SEGMENTS: u16 = 4;

    /// A table as Feast makes it.
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
    /// The place of a feature among this view's, by name.
    #[must_use]
    pub fn feature_index(&self, name: &str) -> Option<usize> {
        self.features.iter().position(|feature| &*feature.name == name)
    }

    /// The Parquet files that the view's rows are materialized from, if there are any.
    #[must_use]
    pub fn files(&self) -> Option<&FileSource> {
        match self.source.as_ref().map(|source| &source.from) {
            Some(SourceKind::Files(files)) => Some(files),
            _ => self.batch_source.as_ref(),
        }
    }

    /// The table in DynamoDB that the view's rows come from, if it is one.
    #[must_use]
    pub fn table(&self) -> Option<&TableSource> {
        match &self.source.as_ref()?.from {
            SourceKind::DynamoDb(table) => Some(table),
            SourceKind::Files(_) | SourceKind::FeastSqlite { .. } => None,
        }
    }

    /// How rows that are not here are fetched, if they are.
    #[must_use]
    pub fn read_through(&self) -> Option<&ReadThrough> {
        match &self.table()?.on_miss {
            OnMiss::Fetch(how) => Some(how),
            OnMiss::NotFound => None,
        }
    }

    /// Whether each row says when it expires by itself, beside the view's ttl.
    #[must_use]
    pub fn has_expiry(&self) -> bool {
        self.table().is_some_and(|table| table.ttl_attribute.is_some())
    }

    /// Whether this view has one row for everything.
    #[must_use]
    pub fn is_entityless(&self) -> bool {
        self.entities.is_empty()
    }
}

// === impl Projection ===

impl Projection {
    /// The name that stands before `__` in full feature names.
    #[must_use]
    pub fn prefix(&self) -> &Arc<str> {
        self.alias.as_ref().unwrap_or(&self.view)
    }

    /// The request column that holds a join key of the view.
    #[must_use]
    pub fn request_column<'p>(&'p self, join_key: &'p Arc<str>) -> &'p Arc<str> {
        self.join_key_map.get(join_key).unwrap_or(join_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entity_id_is_read_as_it_is_written_and_nothing_else_is() {
        let id = EntityId([0x0a, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff]);
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text.to_uppercase().parse(), Ok(id));
        let signed = format!("+{}", &text[1..]);
        for wrong in ["", &text[1..], &format!("{text}0"), &signed, "0123456789abcdef0123456789abcdeg", "äöü"] {
            assert_eq!(wrong.parse::<EntityId>(), Err(NoEntityId), "{wrong}");
        }
    }
}
