//! The SQLite file in which Feast's local provider keeps its online store.
//!
//! The file has a table per feature view, `<project>_<view>`, with a row for each feature of each entity (Feast 0.67,
//! `infra/online_stores/sqlite.py`). This module calls such a row a line, because Larder's rows have all features of an
//! entity:
//!
//! ```text
//! entity_key BLOB      the serialized key, not hashed
//! feature_name TEXT
//! value BLOB           a serialized `feast.types.Value`
//! event_ts timestamp   whole seconds since the epoch; text in tables that older versions of Feast wrote
//! created_ts timestamp the same, or null
//! PRIMARY KEY (entity_key, feature_name)
//! ```
//!
//! Feast inserts, overwrites and deletes lines without comparing times, and serves the current content of the table. So
//! each read returns the whole content. Polls are cheap: the file's stamp shows whether anything was written to the
//! file. If so, the table is read, and a digest shows whether the table changed.
//!
//! An SQLite value can be as large as 1 GB. So each query checks the length of a value first, which does not load the
//! value. A value that is longer than a row can be (`VALUE_BYTES_MAX`, 4 MiB) is reported as unreadable. A table with a
//! key or feature name longer than `KEY_BYTES_MAX` (64 KiB) is rejected.
//!
//! This module does not write. The file is opened for writing so that SQLite can roll back the unfinished transaction
//! of a killed writer, as any reader of the file does.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use larder_common::{
    clock::parse_time,
    files::{FileStamp, check_regular, open_regular},
};
use larder_model::{
    codec::{KeyEncoder, ROW_BYTES_MAX, murmur3_x64_128},
    model::{FeatureView, Micros},
};
use rusqlite::{Connection, ErrorCode, OpenFlags, params, types::ValueRef};

use super::{Batches, FileSchema, Item, ItemValue, Source, SourceBatch, SourceError, SourceProperties, SourceRows};

/// One view's table.
#[derive(Debug)]
pub struct FeastSqlite {
    path: PathBuf,
    table: String,
    /// The names of the view's features, in the view's order.
    features: Vec<Arc<str>>,
    /// The file's stamp at the last check, and the table's digest at that time.
    seen: Mutex<Option<(Stamp, String)>>,
}

/// Detects whether a file was written to: the stamps of the file and of its write-ahead log, and the change counter in
/// SQLite's header.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    file: FileStamp,
    log: Option<FileStamp>,
    changes: [u8; 4],
}

/// A read in progress: one transaction, which sees one state of the table.
struct Reading<'s> {
    source: &'s FeastSqlite,
    connection: Connection,
    origin: Arc<str>,
    /// The last line that was read.
    last: Option<(Vec<u8>, String)>,
    /// The entity whose lines are being read.
    entity: Option<Entity>,
    digest: Digest,
    entities: u64,
    expected: u64,
    ended: bool,
}

/// The content of one entity's lines so far.
struct Entity {
    key: Vec<u8>,
    event_time: Option<Micros>,
    created: Option<Micros>,
    values: Vec<Option<ItemValue>>,
    /// The total size of the values read so far in bytes, including values that were dropped.
    bytes: usize,
}

/// A running digest of lines.
#[derive(Clone, Default)]
struct Digest([u8; 16]);

/// One line of the table.
struct Line {
    key: Vec<u8>,
    feature: String,
    value: ItemValue,
    event_time: Option<Micros>,
    created: Option<Micros>,
}

/// Feast truncates times to whole seconds.
const SECOND: Micros = 1_000_000;
/// How long a read waits for a writer to finish.
const BUSY_TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 5_000 });
/// The maximum number of lines of a query: 8,192 entities of 8 features.
const LINES_PER_BATCH: u32 = 65_536;
/// The size in bytes at which a query ends. A query can exceed it by one line.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// The maximum size in bytes of a value, and of all values of an entity together. It is the maximum size of a row in
/// the store.
const VALUE_BYTES_MAX: usize = ROW_BYTES_MAX;
/// The maximum length of a key or feature name.
const KEY_BYTES_MAX: usize = 64 << 10;
/// The maximum length of a timestamp stored as text.
const TIME_BYTES_MAX: usize = 64;
/// The offset of the change counter in SQLite's header (`fileformat2.html`, "file change counter").
const CHANGES_AT: usize = 24;

// === impl FeastSqlite ===

impl FeastSqlite {
    /// Creates the source for a view's table. Ignores lines of features that the view does not have.
    #[must_use]
    pub fn new(path: PathBuf, table: &str, view: &FeatureView) -> Self {
        let features = view.features.iter().map(|feature| Arc::clone(&feature.name)).collect();
        Self { path, table: table.to_owned(), features, seen: Mutex::new(None) }
    }

    fn begin(&self) -> Result<Reading<'_>, SourceError> {
        // Checks that the database, and any files that SQLite keeps next to it, are regular files. SQLite would not
        // report why it cannot open a file, and would block on a pipe.
        let is_regular = |path: &Path| check_regular(&fs::metadata(path)?);
        is_regular(&self.path).map_err(|error| self.io(error))?;
        for suffix in ["-wal", "-shm", "-journal"] {
            let path = companion(&self.path, suffix);
            match is_regular(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(SourceError::Io { path: path.display().to_string(), source: error });
                }
                _ => {}
            }
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags).map_err(|error| self.failed(&error))?;
        let begun = connection.busy_timeout(BUSY_TIMEOUT).and_then(|()| {
            connection.execute_batch("PRAGMA query_only = ON; BEGIN")?;
            let known = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?1";
            connection.query_row(known, [&self.table], |row| row.get::<_, i64>(0))
        });
        if begun.map_err(|error| self.failed(&error))? == 0 {
            return Err(SourceError::MissingTable { path: self.shown(), table: self.table.clone() });
        }
        // The lengths are checked first, because the queries below compare keys, which loads them into memory
        // regardless of their length.
        let long = format!(
            "SELECT count(*) FROM {} NOT INDEXED WHERE max(octet_length(entity_key), octet_length(feature_name)) > \
             {KEY_BYTES_MAX}",
            self.quoted()
        );
        let long = connection.query_row(&long, [], |row| row.get::<_, i64>(0)).map_err(|error| self.failed(&error))?;
        if long > 0 {
            let what = format!("the number of rows in table '{}' with a key or name longer than 64 KiB", self.table);
            return Err(SourceError::Limit {
                path: self.shown(),
                what,
                found: long.unsigned_abs(),
                limit: 0,
                hint: ". hint: delete these rows from the table",
            });
        }
        let count = format!("SELECT count(DISTINCT entity_key) FROM {}", self.quoted());
        let expected = connection.query_row(&count, [], |row| row.get::<_, i64>(0));
        let expected = expected.map_err(|error| self.failed(&error))?;
        Ok(Reading {
            source: self,
            connection,
            origin: self.shown().into(),
            last: None,
            entity: None,
            digest: Digest::default(),
            entities: 0,
            expected: u64::try_from(expected).unwrap_or(0),
            ended: false,
        })
    }

    /// Returns the table's name as a quoted SQL identifier.
    fn quoted(&self) -> String {
        format!("\"{}\"", self.table.replace('"', "\"\""))
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }

    fn io(&self, source: io::Error) -> SourceError {
        SourceError::Io { path: self.shown(), source }
    }

    fn failed(&self, error: &rusqlite::Error) -> SourceError {
        let path = self.shown();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => SourceError::Busy { path },
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) | None => {
                SourceError::NotSqlite { path, why: error.to_string() }
            }
            Some(_) => SourceError::Io { path, source: io::Error::other(error.to_string()) },
        }
    }

    fn remember(&self, stamp: Stamp, digest: String) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some((stamp, digest));
    }
}

impl Source for FeastSqlite {
    fn has_changes(&self, position: &str) -> Result<bool, SourceError> {
        // The stamp is taken before the lines are read, so that the next poll detects a concurrent write.
        let stamp = Stamp::of(&self.path).map_err(|error| self.io(error))?;
        if let Some((known, digest)) = &*self.seen.lock().unwrap_or_else(PoisonError::into_inner)
            && *known == stamp
        {
            return Ok(digest != position);
        }
        let mut reading = self.begin()?;
        while reading.next_batch()?.is_some() {}
        let digest = reading.position();
        let has_changes = digest != position;
        self.remember(stamp, digest);
        Ok(has_changes)
    }

    fn read(&self, _position: Option<&str>) -> Result<Box<dyn Batches + '_>, SourceError> {
        Ok(Box::new(self.begin()?))
    }

    fn schemas(&self) -> Result<Vec<FileSchema>, SourceError> {
        self.begin().map(|_| Vec::new())
    }

    fn name(&self) -> String {
        self.shown()
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties { time_unit: Some(SECOND), ..SourceProperties::default() }
    }

    fn watched_files(&self) -> Vec<PathBuf> {
        vec![self.path.clone(), companion(&self.path, "-wal")]
    }
}

// === impl Reading ===

impl Reading<'_> {
    /// Returns the next lines, in the order of the primary key; empty at the end.
    fn lines(&mut self) -> Result<Vec<Line>, rusqlite::Error> {
        let behind = if self.last.is_some() { "WHERE (entity_key, feature_name) > (?1, ?2)" } else { "" };
        let sql = format!(
            "SELECT entity_key, feature_name, {}, {}, {}, octet_length(value) FROM {} {behind} \
             ORDER BY entity_key, feature_name LIMIT {LINES_PER_BATCH}",
            null_if_longer("value", VALUE_BYTES_MAX),
            null_if_longer("event_ts", TIME_BYTES_MAX),
            null_if_longer("created_ts", TIME_BYTES_MAX),
            self.source.quoted()
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = match &self.last {
            Some((key, feature)) => statement.query(params![key, feature])?,
            None => statement.query([])?,
        };
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES_MAX
            && let Some(row) = rows.next()?
        {
            let (event_time, created) = (row.get_ref(3)?, row.get_ref(4)?);
            let (key, feature): (Vec<u8>, String) = (row.get(0)?, row.get(1)?);
            let value_bytes: usize = row.get::<_, Option<i64>>(5)?.and_then(|len| len.try_into().ok()).unwrap_or(0);
            let value = match row.get_ref(2)? {
                _ if value_bytes > VALUE_BYTES_MAX => {
                    self.digest.add(&[&(value_bytes as u64).to_le_bytes()], [ValueRef::Null; 2]);
                    ItemValue::Unreadable(format!(
                        "its value has {value_bytes} bytes, but at most {VALUE_BYTES_MAX} are allowed"
                    ))
                }
                ValueRef::Blob(bytes) => ItemValue::Feast(bytes.to_vec()),
                // A null is an empty `feast.types.Value`, which takes no bytes.
                ValueRef::Null => ItemValue::Feast(Vec::new()),
                other => ItemValue::Unreadable(format!("its value is {} in SQLite, not a blob", other.data_type())),
            };
            let digested = if let ItemValue::Feast(bytes) = &value { &**bytes } else { &[] };
            self.digest.add(&[&key, feature.as_bytes(), digested], [event_time, created]);
            let (event_time, created) = (instant(event_time), instant(created));
            bytes += key.len() + feature.len() + if value_bytes > VALUE_BYTES_MAX { 0 } else { value_bytes };
            lines.push(Line { key, feature, value, event_time, created });
        }
        Ok(lines)
    }

    /// Adds a line to its entity. When a new entity begins, the previous one is complete and is added to `items`.
    fn add(&mut self, line: Line, items: &mut Vec<Item>) {
        if self.entity.as_ref().is_none_or(|entity| entity.key != line.key) {
            items.extend(self.entity.take().map(Entity::finish));
            let values = vec![None; self.source.features.len()];
            self.entity = Some(Entity { key: line.key, event_time: None, created: None, values, bytes: 0 });
        }
        let Some(entity) = &mut self.entity else { return };
        // Feast writes all features of a row together, and serves the time of any one of them.
        entity.event_time = entity.event_time.max(line.event_time);
        entity.created = entity.created.max(line.created);
        if let Some(place) = self.source.features.iter().position(|feature| **feature == *line.feature) {
            if let ItemValue::Feast(bytes) = &line.value {
                entity.bytes += bytes.len();
            }
            // If the limit is exceeded, the row will be skipped, so the value is dropped to save memory.
            entity.values[place] = (entity.bytes <= VALUE_BYTES_MAX).then_some(line.value);
        }
    }
}

impl Batches for Reading<'_> {
    fn next_batch(&mut self) -> Result<Option<SourceBatch>, SourceError> {
        let first_row = self.entities;
        let mut items = Vec::new();
        while items.is_empty() && !self.ended {
            let lines = self.lines().map_err(|error| self.source.failed(&error))?;
            match lines.last() {
                Some(line) => self.last = Some((line.key.clone(), line.feature.clone())),
                None => self.ended = true,
            }
            for line in lines {
                self.add(line, &mut items);
            }
            if self.ended {
                items.extend(self.entity.take().map(Entity::finish));
            }
        }
        self.entities += items.len() as u64;
        let batch =
            SourceBatch { rows: SourceRows::Items(items), origin: Arc::clone(&self.origin), file: 0, first_row };
        Ok(if batch.rows.is_empty() { None } else { Some(batch) })
    }

    fn rows_expected(&self) -> u64 {
        self.expected
    }

    fn position(&self) -> String {
        self.digest.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn is_whole(&self) -> bool {
        true
    }
}

// === impl Entity ===

impl Entity {
    fn finish(self) -> Item {
        let Self { key, event_time, created, values, bytes } = self;
        let problem = (bytes > VALUE_BYTES_MAX)
            .then(|| format!("its values have {bytes} bytes, but at most {VALUE_BYTES_MAX} are allowed"));
        Item { id: KeyEncoder::id(&key), event_time, created, expires: None, values, problem }
    }
}

// === impl Digest ===

impl Digest {
    fn add(&mut self, parts: &[&[u8]], times: [ValueRef<'_>; 2]) {
        let mut bytes = self.0.to_vec();
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part);
        }
        times.iter().for_each(|time| bytes.extend_from_slice(format!("{time:?};").as_bytes()));
        self.0 = murmur3_x64_128(&bytes);
    }
}

// === impl Stamp ===

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let file = FileStamp::at(path)?;
        let log = FileStamp::at(&companion(path, "-wal")).ok();
        let mut head = Vec::new();
        open_regular(path)?.take(CHANGES_AT as u64 + 4).read_to_end(&mut head)?;
        let changes = head.get(CHANGES_AT..).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or_default();
        Ok(Self { file, log, changes })
    }
}

/// Returns an SQL expression for a column's value, or null if the value has more than `bytes_max` bytes.
fn null_if_longer(column: &str, bytes_max: usize) -> String {
    format!("CASE WHEN octet_length({column}) <= {bytes_max} THEN {column} END")
}

/// Returns the path of a file that SQLite keeps next to a database.
fn companion(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Parses a time written by any version of Feast. It is a number of seconds, or text. Text without a time zone is in
/// UTC.
fn instant(value: ValueRef<'_>) -> Option<Micros> {
    match value {
        ValueRef::Integer(seconds) => seconds.checked_mul(SECOND),
        #[expect(clippy::cast_possible_truncation, reason = "checked to be within the range of `i64`")]
        ValueRef::Real(seconds) => {
            // The number below is 2^63. A time outside the range of `i64` is treated as missing.
            let micros = (seconds * 1e6).round();
            (micros.abs() < 9_223_372_036_854_775_808.0).then_some(micros as i64)
        }
        ValueRef::Text(text) => parse_time(std::str::from_utf8(text).ok()?),
        ValueRef::Null | ValueRef::Blob(_) => None,
    }
}

#[cfg(test)]
mod tests;
