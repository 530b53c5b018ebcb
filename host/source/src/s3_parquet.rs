//! Parquet files in S3: one object, or all objects under a prefix.
//!
//! Larder reads the footer of each object, and then the needed columns, row group by row group. It fetches small
//! objects as a whole, several at a time. Each of these requests names the version of the object (`If-Match`). If the
//! object has been replaced since it was listed, the read fails, so two versions are never mixed.
//!
//! Memory holds the needed columns of one row group as they are stored. It also holds the columns of the next row group,
//! which is fetched while this one is decoded. If a row group is large, memory holds only a part of each of its
//! columns. Up to 16 small objects that were fetched ahead are in memory as well.
//!
//! The position (`position.rs`) has a hash for each object that was read to its end, and the version and row count of
//! an object that was partly read. An unchanged object is not read again, and an interrupted read resumes after its
//! last commit.
//!
//! A set of objects cannot be replaced atomically. So a definition can name an object that shows that the set is
//! complete (`Gate`): a marker that is written last, or a manifest that lists the objects. Nothing is read before that
//! object exists. With a marker, a set that was read completely is read again only after the marker was written again.
//! S3 reports the time of a write in seconds, so two writes of the marker within one second are detected as one.

mod listing;
mod manifest;
mod object;
mod position;

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use aws_sdk_s3::Client;
use larder_common::clock::SharedClock;
use larder_model::model::{FileSource, Gate};
use tokio::task::JoinHandle;

use self::{
    listing::{Found, Set},
    object::{Object, Opened, SMALL, fetch_whole},
    position::{Listed, Position, Version},
};
use super::{
    Batches, FileSchema, FileVersion, Source, SourceBatch, SourceError, SourceProperties, SourceRows, Wanted,
    file_columns::Columns,
    listed::Ignored,
    parquet_reader::{DecodeThread, ParquetLimits},
    parquet_shape::Absent,
};
use crate::aws::{Aws, AwsError};

/// The objects of one view.
#[derive(Debug)]
pub struct S3Parquet {
    aws: Arc<Aws>,
    source: FileSource,
    bucket: String,
    /// The key of an object, or a prefix.
    key: String,
    columns: Columns,
    limits: ParquetLimits,
    clock: SharedClock,
    ignored: Ignored,
}

struct Reading<'s> {
    source: &'s S3Parquet,
    columns: Columns,
    thread: DecodeThread,
    /// Columns that some objects lack, although other objects have them. It is not an error that they are missing.
    known: HashSet<String>,
    client: Client,
    base: String,
    gate: Option<Listed>,
    pending: VecDeque<Pending>,
    /// The object that is being read, and its index in the source.
    current: Option<(Listed, usize, Opened)>,
    position: Position,
    rows_expected: u64,
}

struct Pending {
    listed: Listed,
    /// The index of the object in the source.
    file: usize,
    /// The fetch of the object's bytes, if it was started ahead.
    ahead: Option<JoinHandle<Result<bytes::Bytes, AwsError>>>,
}

/// The maximum number of pending objects that are searched, from the last one backwards, for a column that an object
/// lacks.
const SEARCHED_MAX: usize = 256;
/// The maximum number of objects that [`Source::schemas`] opens: each takes one or two requests.
const SCHEMAS_MAX: usize = 32;
/// The number of pending objects, starting with the next one, that are fetched ahead if they are small.
const AHEAD: usize = 16;

// === impl S3Parquet ===

impl S3Parquet {
    /// Creates the source for the objects at `s3://bucket/key`, without sending a request.
    #[must_use]
    pub fn new(aws: Arc<Aws>, source: &FileSource, wanted: Wanted, limits: ParquetLimits, clock: SharedClock) -> Self {
        Self::make(aws, source, Columns::Of(wanted), limits, clock)
    }

    /// As [`S3Parquet::new`], for all columns of the objects, with the types that the objects declare. The partitions of an
    /// object's key are columns of strings after them. Objects without rows are allowed.
    #[must_use]
    pub fn of_all_columns(aws: Arc<Aws>, url: &str, limits: ParquetLimits, clock: SharedClock) -> Self {
        let source = FileSource { path: url.to_owned(), ..FileSource::default() };
        Self::make(aws, &source, Columns::All, limits, clock)
    }

    fn make(aws: Arc<Aws>, source: &FileSource, columns: Columns, limits: ParquetLimits, clock: SharedClock) -> Self {
        let path = source.path.strip_prefix("s3://").unwrap_or(&source.path);
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        Self { aws, source: source.clone(), bucket, key, columns, limits, clock, ignored: Ignored::default() }
    }

    fn url(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket)
    }

    /// Lists the objects, and returns the client that was used.
    fn list_objects(&self) -> Result<(Client, Found), SourceError> {
        self.aws.wait(async {
            let client = self.aws.s3(&self.source.place).await;
            let found = self.find(&client).await?;
            Ok::<_, SourceError>((client, found))
        })
    }

    fn object(&self, listed: &Listed) -> Object {
        let config = self.aws.config();
        Object {
            bucket: self.bucket.clone(),
            key: listed.key.clone(),
            etag: listed.version.etag.clone(),
            bytes: listed.version.bytes,
            timeout: config.operation_timeout,
            attempts: config.attempts_max,
        }
    }

    fn check_objects(&self, set: &Set) -> Result<(), SourceError> {
        if !set.objects.is_empty() {
            return Ok(());
        }
        Err(self.empty(match self.source.gate {
            Gate::Manifest(_) => ": the manifest names no objects",
            Gate::Open | Gate::Marker(_) => ": it has no *.parquet object",
        }))
    }

    fn empty(&self, hint: &'static str) -> SourceError {
        SourceError::Empty { path: self.source.path.clone(), hint }
    }
}

impl Source for S3Parquet {
    fn has_changes(&self, position: &str) -> Result<bool, SourceError> {
        let known = Position::parse(position);
        Ok(match self.list_objects()?.1 {
            // The next set is being written. If the previous set was read completely, its rows keep serving.
            Found::Incomplete { .. } => !known.is_whole(),
            Found::Complete(Set { gate: Some(gate), .. }) if matches!(self.source.gate, Gate::Marker(_)) => {
                !known.is_whole() || known.gate != Some(gate.version)
            }
            Found::Complete(set) => !known.is_all_of(&set.objects),
        })
    }

    fn read(&self, position: Option<&str>) -> Result<Box<dyn Batches + '_>, SourceError> {
        let known = position.map(Position::parse).unwrap_or_default();
        let (client, found) = self.list_objects()?;
        let set = match found {
            Found::Complete(set) => set,
            Found::Incomplete { gate } => return Err(SourceError::NotWhole { path: self.source.path.clone(), gate }),
        };
        self.check_objects(&set)?;
        let Set { base, objects, gate } = set;
        let position = known.begin(&objects, gate.as_ref().map(|gate| gate.version.clone()));
        let pending = objects.into_iter().enumerate().filter(|(_, object)| !position.has(object));
        let pending = pending.map(|(file, listed)| Pending { listed, file, ahead: None }).collect();
        let thread = DecodeThread::start().map_err(|source| SourceError::Io { path: self.name(), source })?;
        Ok(Box::new(Reading {
            source: self,
            columns: self.columns.read_at(self.clock.now()),
            thread,
            known: HashSet::new(),
            client,
            base,
            gate,
            pending,
            current: None,
            position,
            rows_expected: 0,
        }))
    }

    fn schemas(&self) -> Result<Vec<FileSchema>, SourceError> {
        let (client, found) = self.list_objects()?;
        let set = match found {
            Found::Complete(set) => set,
            Found::Incomplete { gate } => return Err(SourceError::NotWhole { path: self.source.path.clone(), gate }),
        };
        self.check_objects(&set)?;
        let thread = DecodeThread::start().map_err(|source| SourceError::Io { path: self.name(), source })?;
        let open = |listed: &Listed| {
            let relative = listed.key.strip_prefix(&set.base).unwrap_or(&listed.key).to_owned();
            let object = self.object(listed);
            let metadata = object::metadata(&self.aws, &client, &thread, &object, None, &self.limits, None)?;
            FileSchema::of(object.url(), relative, metadata, &thread)
        };
        set.objects.iter().take(SCHEMAS_MAX).map(open).collect()
    }

    fn name(&self) -> String {
        self.source.path.clone()
    }

    fn versions(&self) -> Result<Vec<FileVersion>, SourceError> {
        let Found::Complete(set) = self.list_objects()?.1 else { return Ok(Vec::new()) };
        let version = |object: Listed| {
            let Version { etag, bytes, .. } = object.version;
            let name = object.key.strip_prefix(&set.base).unwrap_or(&object.key).to_owned();
            FileVersion { name, bytes, version: etag }
        };
        Ok(set.objects.iter().cloned().map(version).collect())
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties { has_windows: !self.columns.is_static(), ..SourceProperties::default() }
    }
}

// === impl Reading ===

impl Reading<'_> {
    /// Starts to fetch the small objects among the next [`AHEAD`] pending objects.
    fn fetch_ahead(&mut self) -> Result<(), AwsError> {
        let handle = self.source.aws.handle()?;
        let next = self.pending.iter_mut().take(AHEAD);
        for pending in next.filter(|pending| pending.ahead.is_none() && pending.listed.version.bytes <= SMALL) {
            let (client, object) = (self.client.clone(), self.source.object(&pending.listed));
            pending.ahead = Some(handle.spawn(async move { fetch_whole(&client, object).await }));
        }
        Ok(())
    }

    fn open(&mut self, mut next: Pending) -> Result<(Listed, usize, Opened), SourceError> {
        let source = self.source;
        let object = source.object(&next.listed);
        let whole = match next.ahead.take() {
            None => None,
            Some(ahead) => {
                let url = object.url();
                let fetched = async { ahead.await.map_err(|error| AwsError::garbled(&url, error.to_string()))? };
                Some(source.aws.wait_for(fetched).map_err(|error| object::changed(&url, error))?)
            }
        };
        let relative = next.listed.key.strip_prefix(&self.base).unwrap_or(&next.listed.key);
        let skipped = self.position.rows_of(&next.listed);
        let (columns, limits) = (&source.columns, source.limits);
        let thread = &self.thread;
        let (aws, client, file) = (&source.aws, &self.client, next.file);
        let opened = Opened::open(aws, client, thread, object, whole, columns, limits, relative, file, skipped)?;
        for absent in opened.absent().to_vec() {
            self.check_absent(&absent, &opened.origin())?;
        }
        self.rows_expected = self.rows_expected.saturating_add(opened.rows().saturating_sub(skipped));
        Ok((next.listed, next.file, opened))
    }

    /// Returns an error if it is likely that no object has a column that this object lacks. This is the case if no
    /// object was read to its end, and none of the last [`SEARCHED_MAX`] pending objects has the column. Otherwise logs
    /// that this object lacks the column.
    fn check_absent(&mut self, absent: &Absent, path: &str) -> Result<(), SourceError> {
        let source = self.source;
        if !self.known.contains(&absent.column) && !self.position.has_done() {
            let mut others = self.pending.iter().rev().take(SEARCHED_MAX);
            let has_it = others.try_fold(false, |has_it, other| {
                if has_it {
                    return Ok(true);
                }
                let object = source.object(&other.listed);
                let metadata =
                    object::metadata(&source.aws, &self.client, &self.thread, &object, None, &source.limits, None)?;
                let relative = other.listed.key.strip_prefix(&self.base).unwrap_or(&other.listed.key);
                let shape = source.columns.in_file(&object.url(), relative, &metadata, &self.thread)?;
                Ok::<_, SourceError>(!shape.absent().iter().any(|other| other.column == absent.column))
            });
            if !has_it? {
                return Err(absent.clone().error(path));
            }
        }
        self.known.insert(absent.column.clone());
        absent.warn(&source.source.path, path);
        Ok(())
    }

    /// Checks that the marker or manifest is unchanged. If it changed, some of the objects that were read may belong to
    /// another set.
    fn check_gate(&self) -> Result<(), SourceError> {
        let Some(gate) = &self.gate else { return Ok(()) };
        let now = self.source.aws.wait(self.source.one(&self.client, &gate.key))?;
        if now.as_ref() == Some(gate) {
            return Ok(());
        }
        Err(SourceError::Changed { path: self.source.url(&gate.key) })
    }
}

impl Batches for Reading<'_> {
    fn next_batch(&mut self) -> Result<Option<SourceBatch>, SourceError> {
        loop {
            if self.current.is_none() {
                self.fetch_ahead()?;
                let Some(next) = self.pending.pop_front() else {
                    if !self.position.has_rows() && self.source.columns.needs_rows() {
                        return Err(self.source.empty(""));
                    }
                    self.check_gate()?;
                    return Ok(None);
                };
                self.current = Some(self.open(next)?);
            }
            let Some((listed, file, opened)) = &mut self.current else { return Ok(None) };
            let batch = opened.next(&self.source.aws, &self.client, &self.thread, &self.columns)?;
            let Some(columns) = batch else {
                self.position.end(listed, opened.rows_read());
                self.current = None;
                continue;
            };
            self.position.read(listed, opened.rows_read());
            let origin = opened.origin();
            // The read may have skipped row groups before these rows.
            let first_row = opened.rows_read() - columns.num_rows() as u64;
            return Ok(Some(SourceBatch { rows: SourceRows::Columns(columns), origin, file: *file, first_row }));
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
