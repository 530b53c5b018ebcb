//! Parquet in S3: an object, or all under a prefix.
//!
//! Of an object the footer is read, and then, row group by row group, the parts of the wanted columns; a small one comes
//! whole, and the next ones with it. Every request says which version of the object it means (`If-Match`): one that was
//! replaced meanwhile fails the reading, and is never read half and half. In memory is one row group's part of the wanted
//! columns, as it lies in the object.
//!
//! The position is the list of objects with the version, size and rows read of each. An object that is the same is not
//! read again. The list is written with every commit: some 90 bytes an object, so a prefix should have thousands of
//! objects and not millions.
//!
//! A set of objects is never replaced at one moment, so a definition can name what tells that it is whole: a marker that
//! is written last, or a manifest that names the objects (`Gate`).

mod manifest;
mod object;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use aws_sdk_s3::Client;
use larder_model::model::{FileSource, Gate};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use self::object::{Object, Opened, SMALL, fetch_whole};
use super::{Batches, Source, SourceBatch, SourceError, SourceRows, Wanted, parquet_shape::ParquetLimits};
use crate::aws::{Aws, AwsError};

/// The objects of one view.
#[derive(Debug)]
pub struct S3Parquet {
    aws: Arc<Aws>,
    source: FileSource,
    bucket: String,
    /// The key of an object, or a prefix.
    key: String,
    wanted: Wanted,
    limits: ParquetLimits,
}

/// What is remembered of the objects that were read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    objects: BTreeMap<String, ObjectPosition>,
    /// The version of what told that the set was whole.
    #[serde(default)]
    gate: Option<Version>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ObjectPosition {
    #[serde(flatten)]
    version: Version,
    rows: u64,
    done: bool,
}

/// What tells an object from its successor of the same key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Version {
    etag: String,
    bytes: u64,
    /// Of a marker, which has no bytes to tell it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    modified: Option<i64>,
}

/// An object that is there.
#[derive(Clone, Debug)]
struct Listed {
    key: String,
    version: Version,
}

/// What there is to be read.
#[derive(Debug)]
struct Set {
    /// The prefix below which paths are relative.
    base: String,
    objects: Vec<Listed>,
    gate: Option<Listed>,
}

struct Reading<'s> {
    source: &'s S3Parquet,
    client: Client,
    base: String,
    gate: Option<Listed>,
    pending: VecDeque<Pending>,
    current: Option<Opened>,
    position: Position,
    rows_all: u64,
    rows_expected: u64,
}

struct Pending {
    listed: Listed,
    rows_skipped: u64,
    /// Its bytes, on their way.
    ahead: Option<JoinHandle<Result<bytes::Bytes, AwsError>>>,
}

/// How many small objects are asked for ahead.
const AHEAD: usize = 16;

// === impl S3Parquet ===

impl S3Parquet {
    /// The objects at `s3://bucket/key`; they are looked at when they are read.
    #[must_use]
    pub fn new(aws: Arc<Aws>, source: &FileSource, wanted: Wanted, limits: ParquetLimits) -> Self {
        let path = source.path.strip_prefix("s3://").unwrap_or(&source.path);
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        Self { aws, source: source.clone(), bucket, key, wanted, limits }
    }

    fn url(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket)
    }

    async fn list(&self, client: &Client, prefix: &str, most: Option<i32>) -> Result<Vec<Listed>, AwsError> {
        let what = format!("{}: ListObjectsV2", self.url(prefix));
        let mut listed = Vec::new();
        let mut token = None;
        loop {
            let request = client.list_objects_v2().bucket(&self.bucket).prefix(prefix);
            let request = request.set_continuation_token(token.take()).set_max_keys(most);
            let page = request.send().await.map_err(|error| AwsError::of(&what, error))?;
            listed.extend(page.contents().iter().filter_map(|object| {
                let version = Version {
                    etag: object.e_tag()?.to_owned(),
                    bytes: u64::try_from(object.size().unwrap_or(0)).unwrap_or(0),
                    modified: object.last_modified().and_then(|time| time.to_millis().ok()),
                };
                Some(Listed { key: object.key()?.to_owned(), version })
            }));
            token = page.next_continuation_token().map(str::to_owned);
            if most.is_some() || token.is_none() {
                return Ok(listed);
            }
        }
    }

    /// What there is to be read; none while the set is not whole.
    fn set(&self) -> Result<Option<(Client, Set)>, SourceError> {
        let found = self.aws.wait_for(async {
            let client = self.aws.s3(&self.source.place).await;
            // An object comes before all others of which its key is a prefix.
            let first = self.list(&client, &self.key, Some(1)).await?;
            if let Some(object) = first.into_iter().find(|object| object.key == self.key && !self.key.is_empty()) {
                let base = self.key.rsplit_once('/').map_or(String::new(), |(dir, _)| format!("{dir}/"));
                return Ok((client, Set { base, objects: vec![object], gate: None }));
            }
            let base = match self.key.as_str() {
                "" => String::new(),
                key if key.ends_with('/') => key.to_owned(),
                key => format!("{key}/"),
            };
            let objects = self.list(&client, &base, None).await?;
            Ok((client, Set { base, objects, gate: None }))
        });
        let (client, mut set) = found?;
        let name = match &self.source.gate {
            Gate::Open => None,
            Gate::Marker(name) | Gate::Manifest(name) => Some(format!("{}{name}", set.base)),
        };
        if let Some(name) = name {
            set.gate = set.objects.iter().find(|object| object.key == name).cloned();
            if set.gate.is_none() {
                return Ok(None);
            }
        }
        if let (Gate::Manifest(_), Some(gate)) = (&self.source.gate, &set.gate) {
            let bytes = self.aws.wait_for(fetch_whole(&client, self.object(gate)))?;
            let url = self.url(&gate.key);
            let keys = manifest::keys(&bytes, &self.bucket, &set.base);
            let keys = keys.map_err(|why| SourceError::Manifest { path: url.clone(), why })?;
            let known: BTreeMap<&str, &Listed> =
                set.objects.iter().map(|object| (object.key.as_str(), object)).collect();
            let object = |key: &String| {
                let missing =
                    || SourceError::Manifest { path: url.clone(), why: format!("{} is not there", self.url(key)) };
                known.get(key.as_str()).map(|object| (*object).clone()).ok_or_else(missing)
            };
            set.objects = keys.iter().map(object).collect::<Result<_, _>>()?;
        } else {
            let base = set.base.clone();
            let is_one = |key: &str| key == self.key && !self.key.is_empty();
            set.objects
                .retain(|object| is_one(&object.key) || is_data(object.key.strip_prefix(&base).unwrap_or_default()));
        }
        Ok(Some((client, set)))
    }

    fn object(&self, listed: &Listed) -> Object {
        Object {
            bucket: self.bucket.clone(),
            key: listed.key.clone(),
            etag: listed.version.etag.clone(),
            bytes: listed.version.bytes,
            patience: self.aws.config().operation_timeout,
        }
    }

    fn empty(&self, hint: &'static str) -> SourceError {
        SourceError::Empty { path: self.source.path.clone(), hint }
    }
}

/// Whether a path below a prefix is one of a file with rows: as on disk, what begins with `.` or `_` is not.
fn is_data(relative: &str) -> bool {
    relative.ends_with(".parquet") && !relative.split('/').any(|part| part.starts_with(['.', '_']))
}

impl Source for S3Parquet {
    fn has_news(&self, position: &str) -> Result<bool, SourceError> {
        let known = Position::parse(position);
        let Some((_, set)) = self.set()? else {
            // The next set is being written; this one is as whole as it was.
            return Ok(known.objects.is_empty());
        };
        if let Gate::Marker(_) = self.source.gate {
            return Ok(known.gate != set.gate.map(|gate| gate.version));
        }
        let is_same = |object: &Listed| {
            known.objects.get(&object.key).is_some_and(|known| known.done && known.version.is(&object.version))
        };
        Ok(set.objects.len() != known.objects.len() || !set.objects.iter().all(is_same))
    }

    fn read(&self, position: Option<&str>) -> Result<Box<dyn Batches + '_>, SourceError> {
        let known = position.map(Position::parse).unwrap_or_default();
        let Some((client, set)) = self.set()? else {
            return Err(self.empty(": what tells that the set is whole is not there yet"));
        };
        if set.objects.is_empty() {
            return Err(self.empty(": nothing that ends in .parquet is there"));
        }
        let mut position =
            Position { objects: BTreeMap::new(), gate: set.gate.as_ref().map(|gate| gate.version.clone()) };
        let mut pending = VecDeque::new();
        let mut rows_all = 0;
        for listed in set.objects {
            let before = known.objects.get(&listed.key).filter(|known| known.version.is(&listed.version));
            let entry = before.cloned().unwrap_or_else(|| ObjectPosition {
                version: listed.version.clone(),
                rows: 0,
                done: false,
            });
            rows_all += entry.rows;
            if !entry.done {
                pending.push_back(Pending { listed: listed.clone(), rows_skipped: entry.rows, ahead: None });
            }
            position.objects.insert(listed.key, entry);
        }
        let (base, gate) = (set.base, set.gate);
        Ok(Box::new(Reading {
            source: self,
            client,
            base,
            gate,
            pending,
            current: None,
            position,
            rows_all,
            rows_expected: 0,
        }))
    }

    fn name(&self) -> String {
        self.source.path.clone()
    }
}

// === impl Reading ===

impl Reading<'_> {
    /// Asks for the next objects, if they are small.
    fn look_ahead(&mut self) -> Result<(), AwsError> {
        let handle = self.source.aws.handle()?;
        let next = self.pending.iter_mut().take(AHEAD);
        for pending in next.filter(|pending| pending.ahead.is_none() && pending.listed.version.bytes <= SMALL) {
            let (client, object) = (self.client.clone(), self.source.object(&pending.listed));
            pending.ahead = Some(handle.spawn(async move { fetch_whole(&client, object).await }));
        }
        Ok(())
    }

    fn open(&mut self, mut next: Pending) -> Result<Opened, SourceError> {
        let ahead = next.ahead.take();
        let whole = match ahead {
            None => None,
            Some(ahead) => {
                let url = self.source.url(&next.listed.key);
                let fetched = async { ahead.await.map_err(|error| AwsError::garbled(&url, error.to_string()))? };
                Some(self.source.aws.wait_for(fetched).map_err(|error| self.changed(&next.listed.key, error))?)
            }
        };
        let relative = next.listed.key.strip_prefix(&self.base).unwrap_or(&next.listed.key).to_owned();
        let object = self.source.object(&next.listed);
        let source = self.source;
        let opened = Opened::open(
            &source.aws,
            &self.client,
            object,
            whole,
            &source.wanted,
            source.limits,
            &relative,
            next.rows_skipped,
        )?;
        self.rows_expected += opened.rows().saturating_sub(next.rows_skipped);
        Ok(opened)
    }

    fn changed(&self, key: &str, error: AwsError) -> SourceError {
        object::changed(&self.source.url(key), error)
    }

    /// What told that the set is whole has to be what it was, or some of what was read belongs to another set.
    fn check_gate(&self) -> Result<(), SourceError> {
        let Some(gate) = &self.gate else { return Ok(()) };
        let now = self.source.aws.wait_for(self.source.list(&self.client, &gate.key, Some(1)))?;
        match now.first().filter(|now| now.key == gate.key && now.version == gate.version) {
            Some(_) => Ok(()),
            None => Err(SourceError::Changed { path: self.source.url(&gate.key) }),
        }
    }
}

impl Batches for Reading<'_> {
    fn next_batch(&mut self) -> Result<Option<SourceBatch>, SourceError> {
        loop {
            if self.current.is_none() {
                self.look_ahead()?;
                let Some(next) = self.pending.pop_front() else {
                    if self.rows_all == 0 {
                        return Err(self.source.empty(""));
                    }
                    self.check_gate()?;
                    return Ok(None);
                };
                self.current = Some(self.open(next)?);
            }
            let Some(current) = &mut self.current else { return Ok(None) };
            let first_row = current.rows_read();
            let batch = current.next(&self.source.aws, &self.client, &self.source.wanted)?;
            if let Some(entry) = self.position.objects.get_mut(current.key()) {
                (entry.rows, entry.done) = (current.rows_read(), batch.is_none());
            }
            let Some(columns) = batch else {
                self.current = None;
                continue;
            };
            self.rows_all += columns.num_rows() as u64;
            let origin = current.origin();
            return Ok(Some(SourceBatch { rows: SourceRows::Columns(columns), origin, first_row }));
        }
    }

    fn rows_expected(&self) -> u64 {
        self.rows_expected
    }

    fn position(&self) -> String {
        self.position.print()
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.pending.iter().filter_map(|pending| pending.ahead.as_ref()).for_each(JoinHandle::abort);
    }
}

// === impl Position ===

impl Position {
    /// A position that does not read, from another kind of source perhaps, is the beginning.
    fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    fn print(&self) -> String {
        // String keys and numbers always serialize.
        serde_json::to_string(self).unwrap_or_default()
    }
}

// === impl Version ===

impl Version {
    /// Whether it has the same bytes. A copy that was written anew has another time and says the same.
    fn is(&self, other: &Self) -> bool {
        self.etag == other.etag && self.bytes == other.bytes
    }
}
