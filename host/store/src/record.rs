//! The record that the store has for each view, and the names of the tables for records and rows.
//!
//! ```text
//! table "meta"                 &str → u64     "format" → 2
//! table "views"                &str → &[u8]   view name → ViewRecord, as JSON
//! table "rows/<id>/<gen>"      [u8;16] → &[u8]  entity id → row (larder_model::codec), then its checksum
//! table "run/<id>/<n>"         the same, a part of a generation that is being built, see `runs.rs`
//! table "written/<id>"         the same, for rows that callers wrote, see `put.rs`
//! table "deleted/<id>"         entity id → event and created time of the row that was deleted, then their checksum,
//!                              see `erase.rs`
//! ```
//!
//! The checksum is the CRC-32 of the entity id and the row: four bytes, least significant first. The database has
//! checksums of its pages, but does not verify them on reads. Without the row's own checksum, a flipped bit would be
//! served as a value.
//!
//! A generation is a complete set of a view's rows. An upsert writes to the served generation. A load that is not
//! served until it ends builds the next generation, and its last commit makes this generation the served one.

use std::{collections::HashSet, sync::Arc};

use larder_model::{
    codec::{Fingerprint, KeyVersion, RowSchema},
    model::{EntityId, FeatureView, Micros},
};
use redb::TableDefinition;
use serde::{Deserialize, Serialize};

use super::{StoreError, rule::Rule};

/// The version of the table layout above. The row format has its own version.
pub(super) const STORE_FORMAT: u32 = 2;

pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
pub(super) const META_FORMAT: &str = "format";
pub(super) const VIEWS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("views");

pub(super) type RowKey = &'static [u8; size_of::<EntityId>()];
pub(super) type RowTable<'n> = TableDefinition<'n, RowKey, &'static [u8]>;

/// The size of the checksum at the end of a stored row, in bytes.
const CHECKSUM_BYTES: usize = size_of::<u32>();

/// Appends a row and its checksum.
pub(super) fn append_with_checksum(id: &EntityId, row: &[u8], into: &mut Vec<u8>) {
    into.extend_from_slice(row);
    into.extend_from_slice(&checksum(id, row));
}

/// Returns the row in the bytes stored for an id; `None` if the checksum does not match.
pub(super) fn verified_row<'b>(id: &EntityId, checksummed: &'b [u8]) -> Option<&'b [u8]> {
    let (row, sum) = checksummed.split_last_chunk::<CHECKSUM_BYTES>()?;
    (*sum == checksum(id, row)).then_some(row)
}

/// Removes the checksum from the bytes stored for a row, without verifying it.
pub(super) fn without_checksum(checksummed: &[u8]) -> &[u8] {
    checksummed.split_last_chunk::<CHECKSUM_BYTES>().map_or(checksummed, |(row, _)| row)
}

fn checksum(id: &EntityId, row: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&id.0);
    sum.update(row);
    sum.finalize().to_le_bytes()
}

fn record_checksum(json: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(json))
}

/// Identifies how a view's ids were computed. Rows that were stored under another signature can no longer be found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySignature(String);

/// The span of the event times of rows that are held back until they are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Postponed {
    /// The earliest event time.
    pub first: Micros,
    /// The latest event time.
    pub last: Micros,
}

/// The store's record of a view.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ViewRecord {
    /// Identifies the view in table names and cache keys. It is never reused.
    pub(super) id: u32,
    /// The signature of the keys under which the rows are stored.
    pub(super) key: KeySignature,
    /// The served generation.
    pub(super) generation: u32,
    /// The generation that a load is building, or that an interrupted load was building.
    pub(super) building: Option<u32>,
    /// The runs of the generation in `building`. Records of earlier versions have none, so a load that such a version
    /// began starts from scratch.
    #[serde(default, rename = "building_runs")]
    pub(super) runs: Runs,
    /// The schemas that rows in the served generation may have, the current one last.
    pub(super) schemas: Vec<SchemaRecord>,
    /// The number of rows of the served generation at the last commit.
    pub(super) rows: u64,
    /// The number of rows of the load that built the served generation, without rows that callers wrote; `None` if no
    /// load built the served generation.
    #[serde(default)]
    pub(super) loaded_rows: Option<u64>,
    /// The span of the event times of rows that are held back because they are from the future.
    #[serde(default)]
    pub(super) postponed: Option<Postponed>,
    /// Whether callers wrote rows to the view in addition to the rows of its source. These rows are also stored in a
    /// separate table.
    #[serde(default)]
    pub(super) written: bool,
    /// The size of the stored rows in bytes, if the view stores only the rows that were requested (`working_set.rs`).
    #[serde(default)]
    pub(super) bytes: u64,
    /// If the view stores only the rows that were requested, the id at which the next eviction starts.
    #[serde(default)]
    pub(super) hand: [u8; size_of::<EntityId>()],
    /// Incremented whenever rows were dropped or lost, so that the source must be read from the start again. A load
    /// that began before must not continue.
    #[serde(default, rename = "life")]
    pub(super) epoch: u32,
    /// Whether rows were lost to damage and have not been restored by a full load yet.
    #[serde(default)]
    pub(super) is_damaged: bool,
    /// The number of rows that were lost to damage and have not been restored.
    #[serde(default)]
    pub(super) rows_lost: u64,
    /// When the view was created, according to Feast's registry.
    #[serde(default)]
    pub(super) created: Option<Micros>,
    /// Whether the view is no longer defined.
    #[serde(default)]
    pub(super) is_retired: bool,
    /// Whether callers wrote rows to the view while it had no source.
    #[serde(default)]
    pub(super) is_local: bool,
    /// Whether there are deleted entities. The source may still have their rows.
    #[serde(default)]
    pub(super) has_deletions: bool,
    /// The position of the source at the last commit, in the source's own format.
    pub(super) position: Option<String>,
    /// The newest event time of any row.
    pub(super) newest_event: Option<Micros>,
    /// The time of the last successful load or, for a view without a source, of the last write.
    pub(super) last_success: Option<Micros>,
    /// The time of the last successful materialization of a time range.
    #[serde(default)]
    pub(super) last_materialized: Option<Micros>,
}

/// The state of a generation that is being built.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Runs {
    /// The numbers of the generation's runs, in the order of arrival.
    pub(super) numbers: Vec<u32>,
    /// The run into which the runs in `numbers` are being merged; `None` if no merge is in progress.
    pub(super) merging: Option<u32>,
    /// The rule that decides which of two rows wins.
    pub(super) rule: Rule,
    /// Whether this is the first load of a view whose rows are upserted.
    pub(super) is_first: bool,
    /// How far the source was read, in the source's own format.
    pub(super) position: Option<String>,
    /// The newest event time of any row.
    pub(super) newest_event: Option<Micros>,
    /// The span of the event times of rows that were skipped because they are from the future.
    #[serde(default)]
    pub(super) postponed: Option<Postponed>,
    /// The number of rows in the largest batch. Each transaction of a merge processes about this many rows, because
    /// other writers wait for the transaction.
    pub(super) batch_rows: u64,
    /// The size of the largest batch in bytes.
    pub(super) batch_bytes: u64,
}

/// A stored row schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SchemaRecord {
    /// The name and type of each field, in order.
    fields: Vec<(String, String)>,
}

// === impl Postponed ===

impl Postponed {
    /// Returns the span that covers both spans; `None` if both are `None`.
    #[must_use]
    pub fn union(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => {
                Some(Self { first: one.first.min(other.first), last: one.last.max(other.last) })
            }
            (one, other) => one.or(other),
        }
    }

    /// Returns the span of a single event time.
    #[must_use]
    pub fn at(time: Micros) -> Self {
        Self { first: time, last: time }
    }
}

// === impl KeySignature ===

impl KeySignature {
    /// Returns the signature of a view's ids.
    #[must_use]
    pub fn of(view: &FeatureView, version: KeyVersion) -> Self {
        let version = match version {
            KeyVersion::V2 => 2,
            KeyVersion::V3 => 3,
        };
        let keys: Vec<String> = view.join_keys.iter().map(|key| format!("{}:{:?}", key.name, key.value_type)).collect();
        Self(format!("v{version} {}", keys.join(" ")))
    }
}

// === impl ViewRecord ===

impl ViewRecord {
    pub(super) fn new(id: u32, key: KeySignature, schema: &RowSchema) -> Self {
        Self {
            id,
            key,
            generation: 0,
            building: None,
            runs: Runs::default(),
            schemas: vec![SchemaRecord::of(schema)],
            rows: 0,
            loaded_rows: None,
            postponed: None,
            written: false,
            bytes: 0,
            hand: [0; size_of::<EntityId>()],
            epoch: 0,
            is_damaged: false,
            rows_lost: 0,
            created: None,
            is_retired: false,
            is_local: false,
            has_deletions: false,
            position: None,
            newest_event: None,
            last_success: None,
            last_materialized: None,
        }
    }

    /// Returns the new record of a view whose stored rows can no longer be found. It has the next generation, which is
    /// empty.
    pub(super) fn reset(&self, key: KeySignature, schema: &RowSchema) -> Self {
        let generation = self.building.unwrap_or(self.generation) + 1;
        Self { generation, epoch: self.epoch.wrapping_add(1), ..Self::new(self.id, key, schema) }
    }

    /// Returns whether the view may have rows that callers wrote. This can be true even if newer rows of the source
    /// have replaced all of them.
    pub(super) fn has_rows_of_callers(&self) -> bool {
        self.written || self.is_local
    }

    /// Resets the fields about rows, so that the source is read from the start. Deletions stay, because a load must not
    /// restore deleted rows. The caller must delete the tables.
    pub(super) fn clear_rows(&mut self) {
        self.schemas.drain(..self.schemas.len().saturating_sub(1));
        *self = Self {
            generation: self.building.unwrap_or(self.generation) + 1,
            building: None,
            runs: Runs::default(),
            rows: 0,
            written: false,
            bytes: 0,
            hand: [0; size_of::<EntityId>()],
            is_damaged: false,
            rows_lost: 0,
            is_local: false,
            newest_event: None,
            ..self.clone()
        };
        self.read_from_start();
        self.last_success = None;
    }

    /// Makes the next load read the source from the start, and makes running loads fail at their next transaction.
    pub(super) fn read_from_start(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.position = None;
        self.runs.position = None;
    }

    /// Returns whether a load that began with the record `began` may continue: the view has the same schema, the source
    /// does not have to be read from the start again, and no other load has begun or finished a generation.
    pub(super) fn load_may_continue(&self, began: &Self) -> bool {
        let identity = |record: &Self| (record.generation, record.building, record.epoch);
        identity(self) == identity(began) && self.schemas.last() == began.schemas.last()
    }

    /// Decodes a record: JSON, followed by a line with the checksum of the JSON. Records of earlier versions have no
    /// checksum.
    pub(super) fn decode(name: &str, bytes: &[u8]) -> Result<Self, StoreError> {
        let damaged = |why: String| StoreError::Damaged(format!("record of view '{name}': {why}"));
        let json = match bytes.iter().rposition(|byte| *byte == b'\n') {
            None => bytes,
            Some(end) if bytes[end + 1..] == *record_checksum(&bytes[..end]).as_bytes() => &bytes[..end],
            Some(_) => return Err(damaged("its checksum does not match".to_owned())),
        };
        serde_json::from_slice(json).map_err(|error| damaged(error.to_string()))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        // Serialization never fails, because all keys of the record are strings.
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        let checksum = record_checksum(&bytes);
        bytes.push(b'\n');
        bytes.extend_from_slice(checksum.as_bytes());
        bytes
    }

    /// Returns the name of the table of one generation's rows.
    pub(super) fn table_name(&self, generation: u32) -> String {
        format!("rows/{}/{generation}", self.id)
    }

    /// Returns the name of the table of deleted entities.
    pub(super) fn deleted_name(&self) -> String {
        format!("deleted/{}", self.id)
    }

    /// Returns the name of the table of the rows that callers wrote.
    pub(super) fn written_name(&self) -> String {
        format!("written/{}", self.id)
    }

    /// Returns the name of the table of a run.
    pub(super) fn run_name(&self, number: u32) -> String {
        format!("{}{number}", self.run_prefix())
    }

    /// Returns the prefix of the names of all run tables.
    pub(super) fn run_prefix(&self) -> String {
        format!("run/{}/", self.id)
    }

    /// Drops the schemas that no row uses any more: all schemas except the current one and the ones in `used`.
    pub(super) fn retain_schemas(&mut self, name: &str, used: &HashSet<Fingerprint>) -> Result<(), StoreError> {
        let schemas = self.row_schemas(name)?;
        let current = schemas.last().map(|schema| schema.fingerprint());
        let mut fingerprints = schemas.iter().map(|schema| schema.fingerprint());
        self.schemas.retain(|_| {
            let fingerprint = fingerprints.next();
            fingerprint == current || fingerprint.is_some_and(|fingerprint| used.contains(&fingerprint))
        });
        Ok(())
    }

    /// Returns the schemas of stored rows, the current one last.
    pub(super) fn row_schemas(&self, name: &str) -> Result<Arc<[Arc<RowSchema>]>, StoreError> {
        self.schemas.iter().map(|schema| schema.to_schema(name).map(Arc::new)).collect()
    }
}

// === impl Runs ===

impl Runs {
    /// Returns an unused run number.
    pub(super) fn next(&self) -> u32 {
        self.numbers.iter().chain(&self.merging).max().map_or(0, |last| last + 1)
    }
}

// === impl SchemaRecord ===

impl SchemaRecord {
    pub(super) fn of(schema: &RowSchema) -> Self {
        Self { fields: schema.fields().map(|(name, value_type)| (name.to_string(), value_type.to_string())).collect() }
    }

    fn to_schema(&self, view: &str) -> Result<RowSchema, StoreError> {
        let field = |(name, value_type): &(String, String)| {
            let value_type = value_type
                .parse()
                .map_err(|error| StoreError::Damaged(format!("schema of view '{view}', field '{name}': {error}")))?;
            Ok((Arc::from(name.as_str()), value_type))
        };
        Ok(RowSchema::new(self.fields.iter().map(field).collect::<Result<Vec<_>, StoreError>>()?))
    }
}
