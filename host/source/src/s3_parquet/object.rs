//! Reads one object: fetches ranges of one version of the object, and decodes their rows.

use std::{ops::Range, sync::Arc, time::Duration};

use arrow::array::RecordBatch;
use aws_sdk_s3::Client;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use parquet::file::metadata::ParquetMetaData;
use tokio::task::{JoinError, JoinHandle};

use crate::{
    SourceError,
    aws::{Aws, AwsError, AwsErrorKind},
    file_columns::{Columns, FileShape},
    parquet_reader::{self, DecodeThread, FileRows, Input, ParquetLimits, Plan, Windows},
    parquet_shape::Absent,
    row_group::FileFilter,
};

/// One version of an object.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) etag: String,
    pub(super) bytes: u64,
    /// The timeout for one attempt at a range. The SDK's own timeouts cover only the response headers.
    pub(super) timeout: Duration,
    /// The maximum number of attempts at a range whose response body is truncated.
    pub(super) attempts: u32,
}

/// Why fetching a range failed.
enum Failure {
    /// The request failed after the SDK's own retries, or the response is not for the requested version or range.
    Final(AwsError),
    /// The response body is truncated; another attempt may succeed.
    Body(AwsError),
}

/// An object that is being read.
pub(super) struct Opened {
    groups: Groups,
    origin: Arc<str>,
    file_rows: FileRows,
    shape: FileShape,
    rows: u64,
}

/// How the bytes of an object's row groups are fetched.
struct Groups {
    object: Object,
    /// The whole object, if it is small.
    whole: Option<Bytes>,
    ahead: Option<Ahead>,
    fetch_bytes: u64,
}

/// Ranges that are being fetched ahead of their use.
struct Ahead {
    ranges: Vec<Range<u64>>,
    fetched: JoinHandle<Result<Vec<Bytes>, AwsError>>,
}

/// The maximum size of an object that is fetched as a whole, with one request.
pub(super) const SMALL: u64 = 1 << 20;
/// The maximum number of bytes in one request.
const PART: u64 = 8 << 20;
/// The maximum number of concurrent requests for ranges of an object, or for the objects of a manifest.
pub(super) const CONCURRENCY: usize = 8;
/// Ranges are fetched together if the gap between them is at most this many bytes.
const GAP: u64 = 256 << 10;
/// The pause before the first retry of a truncated response. It grows with each attempt.
const PAUSE: Duration = Duration::from_millis(100);
/// The minimum size of the part of a column that is fetched on demand.
const WINDOW_MIN: u64 = 256 << 10;

// === impl Object ===

impl Object {
    pub(super) fn url(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.key)
    }

    /// Fetches a range. The SDK retries failed requests, but not a request whose response body is truncated, so this
    /// function retries such a request.
    async fn fetch(&self, client: &Client, range: Range<u64>) -> Result<Bytes, AwsError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let mut attempt = 1;
        loop {
            let fetch = tokio::time::timeout(self.timeout, self.fetch_once(client, &range));
            let fetched = fetch.await.map_err(|_| AwsError::timed_out(self.what(), self.timeout))?;
            match fetched {
                Ok(bytes) => return Ok(bytes),
                Err(Failure::Body(_)) if attempt < self.attempts => {
                    tokio::time::sleep(PAUSE * attempt).await;
                    attempt += 1;
                }
                Err(Failure::Final(error) | Failure::Body(error)) => return Err(error),
            }
        }
    }

    async fn fetch_once(&self, client: &Client, range: &Range<u64>) -> Result<Bytes, Failure> {
        let length = range.end - range.start;
        let garbled = |why: String| AwsError::garbled(self.what(), why);
        let request = client.get_object().bucket(&self.bucket).key(&self.key).if_match(&self.etag);
        let output = request.range(format!("bytes={}-{}", range.start, range.end - 1)).send().await;
        let output = output.map_err(|error| Failure::Final(AwsError::of(self.what(), error)))?;
        // A server without support for `If-Match` may return another version.
        let etag = output.e_tag().unwrap_or(&self.etag).trim_matches('"');
        if etag != self.etag.trim_matches('"') {
            let why = "the server returned another version of the object".to_owned();
            return Err(Failure::Final(AwsError { what: self.what(), kind: AwsErrorKind::Changed, why }));
        }
        let mut body = output.body;
        let mut bytes = BytesMut::with_capacity(usize::try_from(length).unwrap_or(0));
        while let Some(chunk) = body.next().await {
            let broken = |error| Failure::Body(garbled(format!("the body ended early: {error}")));
            bytes.extend_from_slice(&chunk.map_err(broken)?);
            if bytes.len() as u64 > length {
                // A server without support for ranges sends the whole object.
                return Err(Failure::Final(garbled(format!(
                    "the response has more than the {length} requested bytes"
                ))));
            }
        }
        if bytes.len() as u64 == length {
            Ok(bytes.freeze())
        } else {
            Err(Failure::Body(garbled(format!("the response has {} bytes, but {length} were requested", bytes.len()))))
        }
    }

    fn what(&self) -> String {
        format!("{}: GetObject", self.url())
    }

    /// Fetches ranges concurrently. Ranges that are close together share a request, and large ones are split.
    async fn fetch_all(&self, client: &Client, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, AwsError> {
        let spans = coalesced(ranges);
        let mut parts = Vec::new();
        for span in &spans {
            parts.extend(split(span.clone()).map(|part| (span.end - span.start, part)));
        }
        let fetched = stream::iter(parts);
        let fetched = fetched.map(|(length, part)| async move { Ok((length, self.fetch(client, part).await?)) });
        let mut fetched = fetched.buffered(CONCURRENCY);
        // The stream yields parts in order, and each part is appended immediately. So only the parts in flight take
        // additional memory.
        let (mut whole, mut growing) = (Vec::with_capacity(spans.len()), BytesMut::new());
        while let Some((length, bytes)) = fetched.try_next().await? {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if bytes.len() == length {
                whole.push(bytes);
                continue;
            }
            growing.reserve(length - growing.len());
            growing.extend_from_slice(&bytes);
            if growing.len() == length {
                whole.push(std::mem::take(&mut growing).freeze());
            }
        }
        let piece = |range: &Range<u64>| {
            if range.is_empty() {
                return Bytes::new();
            }
            let index = spans.partition_point(|span| span.end < range.end);
            let at = |offset: u64| usize::try_from(offset - spans[index].start).unwrap_or(usize::MAX);
            whole[index].slice(at(range.start)..at(range.end))
        };
        Ok(ranges.iter().map(piece).collect())
    }
}

/// Fetches a whole object.
pub(super) async fn fetch_whole(client: &Client, object: Object) -> Result<Bytes, AwsError> {
    object.fetch(client, 0..object.bytes).await
}

/// Sorts ranges, and merges those that are close together.
fn coalesced(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted: Vec<Range<u64>> = ranges.iter().filter(|range| !range.is_empty()).cloned().collect();
    sorted.sort_by_key(|range| range.start);
    let mut spans: Vec<Range<u64>> = Vec::new();
    for range in sorted {
        match spans.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(GAP) => last.end = last.end.max(range.end),
            _ => spans.push(range),
        }
    }
    spans
}

fn split(span: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = span.end;
    (span.start..end).step_by(usize::try_from(PART).unwrap_or(usize::MAX)).map(move |from| from..end.min(from + PART))
}

/// Converts the error of a fetch. If the object changed or was deleted, this is [`SourceError::Changed`].
pub(super) fn changed(url: &str, error: AwsError) -> SourceError {
    match error.kind {
        AwsErrorKind::Changed | AwsErrorKind::Missing => SourceError::Changed { path: url.to_owned() },
        _ => SourceError::Aws(error),
    }
}

// === impl Opened ===

impl Opened {
    /// Reads the footer of an object, and finds the wanted columns in it. Fails if a required column is missing.
    #[expect(clippy::too_many_arguments, reason = "has one caller, and a struct would only repeat the names")]
    pub(super) fn open(
        aws: &Aws,
        client: &Client,
        thread: &DecodeThread,
        object: Object,
        whole: Option<Bytes>,
        columns: &Columns,
        limits: ParquetLimits,
        relative: &str,
        file: usize,
        rows_skipped: u64,
    ) -> Result<Self, SourceError> {
        let url = object.url();
        let metadata = metadata(aws, client, thread, &object, whole.as_ref(), &limits, columns.statistics_of())?;
        let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
        let shape = columns.in_file(&url, relative, &metadata, thread)?;
        let filter = FileFilter::new(columns.row_groups(), file, shape.event_time_root(), &metadata);
        let plan = Plan::new(Arc::new(metadata), shape.roots(), shape.is_message(), thread);
        let plan = plan.map_err(|why| SourceError::Unreadable { path: url.clone(), why })?;
        let origin: Arc<str> = url.into();
        let file_rows = FileRows::new(Arc::clone(&origin), plan, filter, limits, rows_skipped);
        let groups = Groups { object, whole, ahead: None, fetch_bytes: limits.fetch_bytes };
        Ok(Self { groups, origin, file_rows, shape, rows })
    }

    /// Returns the wanted columns that the object does not have.
    pub(super) fn absent(&self) -> &[Absent] {
        self.shape.absent()
    }

    pub(super) fn origin(&self) -> Arc<str> {
        Arc::clone(&self.origin)
    }

    /// Returns the number of rows of the object.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the number of rows that were returned or skipped so far.
    pub(super) fn rows_read(&self) -> u64 {
        self.file_rows.rows_read()
    }

    /// Returns the next rows; `None` at the end.
    pub(super) fn next(
        &mut self,
        aws: &Arc<Aws>,
        client: &Client,
        thread: &DecodeThread,
        columns: &Columns,
    ) -> Result<Option<RecordBatch>, SourceError> {
        let groups = &mut self.groups;
        let batch =
            self.file_rows.next(thread, &mut |plan, group, next| groups.input(aws, client, plan, group, next))?;
        batch.map(|batch| self.shape.project(columns, &self.origin, &batch)).transpose()
    }
}

// === impl Groups ===

impl Groups {
    /// Returns the bytes of a row group, and starts to fetch the row group `next`. A large row group is not fetched in
    /// advance: each part of it is fetched when it is decoded.
    fn input(
        &mut self,
        aws: &Arc<Aws>,
        client: &Client,
        plan: &Plan,
        group: usize,
        next: Option<usize>,
    ) -> Result<Input, SourceError> {
        let length = self.object.bytes;
        if let Some(whole) = &self.whole {
            return Ok(Input::Parts(Arc::new(vec![(0, whole.clone())]), length));
        }
        let ranges = plan.ranges(group);
        check_ranges(&self.object, &ranges)?;
        if sum(&ranges) > self.fetch_bytes {
            let (aws, client, object) = (Arc::clone(aws), client.clone(), self.object.clone());
            let window = self.fetch_bytes / ranges.len().max(1) as u64;
            let fetch = move |range| {
                let fetched = aws.wait_for(object.fetch_all(&client, &[range]));
                let mut parts = fetched.map_err(|error| changed(&object.url(), error))?;
                Ok(parts.pop().unwrap_or_default())
            };
            return Ok(Input::Windows(Arc::new(Windows::new(ranges, window.max(WINDOW_MIN), length, fetch))));
        }
        let fetched = match self.ahead.take().filter(|ahead| ahead.ranges == ranges) {
            Some(mut ahead) => {
                let url = self.object.url();
                let lost = |error: JoinError| AwsError::garbled(&url, error.to_string());
                let fetched = async { (&mut ahead.fetched).await.map_err(lost)? };
                aws.wait_for(fetched).map_err(|error| changed(&url, error))?
            }
            None => {
                let fetched = aws.wait_for(self.object.fetch_all(client, &ranges));
                fetched.map_err(|error| changed(&self.object.url(), error))?
            }
        };
        if let Some(next) = next {
            self.ahead = self.fetch_ahead(aws, client, plan.ranges(next))?;
        }
        let mut parts: Vec<(u64, Bytes)> = ranges.iter().map(|range| range.start).zip(fetched).collect();
        parts.sort_by_key(|(start, _)| *start);
        Ok(Input::Parts(Arc::new(parts), length))
    }

    fn fetch_ahead(&self, aws: &Aws, client: &Client, ranges: Vec<Range<u64>>) -> Result<Option<Ahead>, AwsError> {
        if sum(&ranges) > self.fetch_bytes || check_ranges(&self.object, &ranges).is_err() {
            return Ok(None);
        }
        let (object, client, wanted) = (self.object.clone(), client.clone(), ranges.clone());
        let fetched = aws.handle()?.spawn(async move { object.fetch_all(&client, &wanted).await });
        Ok(Some(Ahead { ranges, fetched }))
    }
}

/// Returns the total size of ranges in bytes.
fn sum(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().fold(0, |sum: u64, range| sum.saturating_add(range.end.saturating_sub(range.start)))
}

/// Checks that ranges from a footer, which can contain any offsets, are within the object.
fn check_ranges(object: &Object, ranges: &[Range<u64>]) -> Result<(), SourceError> {
    let beyond = ranges.iter().find(|range| range.end > object.bytes || range.start > range.end);
    let Some(beyond) = beyond else { return Ok(()) };
    let why = format!("it refers to bytes {} to {}, but has only {}", beyond.start, beyond.end, object.bytes);
    Err(SourceError::Unreadable { path: object.url(), why })
}

// === impl Ahead ===

impl Drop for Ahead {
    fn drop(&mut self) {
        self.fetched.abort();
    }
}

/// Reads the footer of an object.
pub(super) fn metadata(
    aws: &Aws,
    client: &Client,
    thread: &DecodeThread,
    object: &Object,
    whole: Option<&Bytes>,
    limits: &ParquetLimits,
    statistics_of: Option<&str>,
) -> Result<ParquetMetaData, SourceError> {
    let url = object.url();
    let fetch = &mut |range: Range<u64>| {
        if let Some(whole) = whole {
            let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
            return Ok(whole.slice(at(range.start)..at(range.end)));
        }
        let mut parts = aws.wait_for(object.fetch_all(client, &[range])).map_err(|error| changed(&url, error))?;
        Ok(parts.pop().unwrap_or_default())
    };
    parquet_reader::metadata(&url, object.bytes, limits, thread, statistics_of, fetch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_merged_and_split() {
        assert_eq!(coalesced(&[0..10, 10..20, 15..30, 900_000..900_001]), [0..30, 900_000..900_001]);
        assert_eq!(coalesced(&[900_000..900_010, 7..7, 0..10]), [0..10, 900_000..900_010]);
        let parts: Vec<_> = split(5..5 + 2 * PART + 1).collect();
        assert_eq!(parts, [5..5 + PART, 5 + PART..5 + 2 * PART, 5 + 2 * PART..6 + 2 * PART]);
    }
}
