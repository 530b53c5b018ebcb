//! A table in DynamoDB, which is scanned once and then followed through its stream of changes.
//!
//! A full read lists the shards of the stream, scans the table in segments, and then reads the shards that were open
//! (and their parents) from their starts to the time at which the scan ended. Rows of a table have no versions, so a
//! scanned row may be older or newer than a row of the stream. When the stream has been read up to the end of the scan,
//! all rows belong to one state of the table, and the sync replaces the previous rows with them. After that, each read
//! returns the changes since the previous read.
//!
//! The position contains the table, the segments and the shards, so an interrupted scan resumes in each segment. A
//! position becomes invalid if, for example, the stream was turned on or off, the table was recreated, or changes were
//! dropped before they were read. The read then returns [`SourceError::Lost`], and the table is read again from the
//! start. The previous rows keep serving until that read ends.
//!
//! A table without a stream is scanned repeatedly. A table with `on_miss: fetch` is not scanned: rows are fetched when
//! lookups need them, and the table's stream shows which fetched rows are outdated.

mod attribute;
mod calls;
mod fetch;
mod item;
mod lineage;
mod position;
mod scan;
mod stream;
mod write;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use larder_common::clock::SharedClock;
use larder_model::{
    codec::KeyVersion,
    model::{EntityId, FeatureView, Micros, OnMiss, TableLayout, TableSource, duration_text},
};

pub use self::write::{NewTable, TableError, TableRow, TableWriter, WriteOptions, Written};
use self::{
    calls::{Calls, Described, Record},
    item::{Attributes, ItemReader},
    position::{Position, ScanPosition, SegmentPosition, StreamPosition},
    scan::Scan,
    stream::Shards,
};
use super::{Batches, Change, FileSchema, Item, Source, SourceBatch, SourceError, SourceProperties, SourceRows};
use crate::aws::{Aws, AwsErrorKind};

/// One view's table.
#[derive(Debug)]
pub struct DynamoDb {
    aws: Arc<Aws>,
    clock: SharedClock,
    source: TableSource,
    items: ItemReader,
    /// The interval between scans of a table without a stream.
    rescan_every: Duration,
    /// Whether the table had a stream to follow at the last check. This is an atomic, because lookups read it and must
    /// not wait for a read of the table.
    follows: AtomicBool,
    /// Whether the current lack of a stream was already logged.
    warned: AtomicBool,
    view: Arc<str>,
    known: Mutex<Known>,
}

/// The state between two reads.
#[derive(Debug, Default)]
struct Known {
    described: Option<(Instant, Described)>,
    shards: Shards,
    /// The position that the iterators of `shards` have reached.
    left_at: Option<StreamPosition>,
}

/// A full read.
struct Loading<'s> {
    source: &'s DynamoDb,
    calls: Calls,
    position: Position,
    origin: Arc<str>,
    scan: Option<Scan>,
    /// For each segment, the items of the last entity on the last page. The entity may have more items on the next
    /// page.
    held: HashMap<usize, Vec<Attributes>>,
    scan_ended: Option<Instant>,
    /// The error that the next call returns, after the batch with the records of the other shards.
    failed: Option<SourceError>,
    expected: u64,
    rows: u64,
    has_ended: bool,
}

/// A read of changes.
struct Tail<'s> {
    source: &'s DynamoDb,
    calls: Calls,
    position: Position,
    origin: Arc<str>,
    until: Instant,
    has_ended: bool,
    /// The error that the next call returns, after the batch with the records of the other shards.
    failed: Option<SourceError>,
    /// Whether a shard failed, so that the read is not up to date.
    is_partial: bool,
    rows: u64,
    lag: Duration,
}

/// How often to check whether a table was recreated, or its stream turned on or off.
const DESCRIBE_EVERY: Duration = Duration::from_secs(60);
/// The maximum age of a position in a stream, in microseconds. DynamoDB keeps changes for a day, so an older position
/// may have missed changes.
const POSITION_AGE_MAX: Micros = 23 * 3_600 * 1_000_000;
/// A read of changes ends after this time even if more follow, so that the store can serve the changes so far.
const TAIL_MAX: Duration = Duration::from_millis(500);
/// The maximum time to retry keys that DynamoDB did not process, while looking up the items of changes without images.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(20);
/// The pause after a round without changes, while a full read reads the stream to the end of the scan.
const ROUND_PAUSE: Duration = Duration::from_millis(50);

// === impl DynamoDb ===

impl DynamoDb {
    /// The default interval between scans of a table without a stream. It is long, because AWS charges for each scan.
    pub const RESCAN_EVERY: Duration = Duration::from_hours(1);

    /// Creates the source for a view's table. `version` is the key version of entity IDs, `every` the interval between
    /// scans of a table without a stream, and `position` the position after the last read.
    #[must_use]
    pub fn new(
        aws: Arc<Aws>,
        clock: SharedClock,
        view: &FeatureView,
        source: &TableSource,
        version: KeyVersion,
        every: Option<Duration>,
        position: Option<&str>,
    ) -> Self {
        let items = ItemReader::new(view, source, version);
        let rescan_every = every.unwrap_or(Self::RESCAN_EVERY);
        // Until the first check, assume that the table still has a stream if it had one at the last read.
        let had_stream = position.and_then(Position::parse).is_none_or(|position| position.stream.is_some());
        let follows = AtomicBool::new(source.poll.is_some() && had_stream);
        let (warned, view) = (AtomicBool::new(false), Arc::clone(&view.name));
        let (source, known) = (source.clone(), Mutex::default());
        Self { aws, clock, source, items, rescan_every, follows, warned, view, known }
    }

    async fn calls(&self) -> Calls {
        Calls { dynamo: self.aws.dynamodb(&self.source.place).await, table: self.source.table.clone() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the last description of the table if it is younger than `age`; otherwise requests a new one.
    fn describe(&self, calls: &Calls, age: Duration) -> Result<Described, SourceError> {
        if let Some((at, described)) = &self.known().described
            && at.elapsed() < age
        {
            return Ok(described.clone());
        }
        let described = self.aws.wait_for(calls.describe())?;
        if let Some(why) = self.items.mismatch(&described.keys) {
            return Err(SourceError::Table { table: self.source.table.clone(), why });
        }
        self.follows.store(self.stream_of(&described).is_some(), Ordering::Relaxed);
        match self.caveat() {
            None => self.warned.store(false, Ordering::Relaxed),
            Some(caveat) if !self.warned.swap(true, Ordering::Relaxed) => {
                tracing::warn!(view = &*self.view, "{caveat}")
            }
            Some(_) => {}
        }
        self.known().described = Some((Instant::now(), described.clone()));
        Ok(described)
    }

    /// Returns the ARN of the stream to follow, if the table has one and the definition does not turn it off.
    fn stream_of<'d>(&self, described: &'d Described) -> Option<&'d str> {
        self.source.poll?;
        described.stream.as_ref().map(|(arn, _)| arn.as_str())
    }

    fn lost(&self, why: impl Into<String>) -> SourceError {
        SourceError::Lost { path: self.name(), why: why.into() }
    }

    /// Starts or resumes a full read.
    fn load(&self, calls: Calls, described: &Described, from: Option<Position>) -> Result<Loading<'_>, SourceError> {
        let position = match from {
            Some(position) => position,
            None => {
                let stream = match self.stream_of(described) {
                    None => None,
                    Some(arn) => {
                        let listed = self.aws.wait_for(calls.shards(arn))?;
                        Some(StreamPosition { arn: arn.to_owned(), shards: lineage::begin(&listed) })
                    }
                };
                // A table whose rows are fetched is not scanned.
                let segments = if self.is_fetched() { 0 } else { usize::from(self.source.segments) };
                let table = described.identity.clone();
                Position { table, stream, scan: Some(ScanPosition::new(segments)), as_of: self.clock.now() }
            }
        };
        self.known().shards = Shards::default();
        let scan = match &position.scan {
            Some(scan) if !scan.is_done() => {
                Some(Scan::start(&self.aws, &calls, &scan.segments, self.source.read_units)?)
            }
            _ => None,
        };
        Ok(Loading {
            source: self,
            calls,
            position,
            origin: self.name().into(),
            scan,
            held: HashMap::new(),
            scan_ended: None,
            failed: None,
            expected: described.items,
            rows: 0,
            has_ended: false,
        })
    }

    fn is_fetched(&self) -> bool {
        matches!(self.source.on_miss, OnMiss::Fetch(_))
    }

    /// Returns whether DynamoDB may have dropped changes since a position.
    fn is_too_old(&self, position: &Position) -> bool {
        self.clock.now().saturating_sub(position.as_of) > POSITION_AGE_MAX
    }

    /// Converts stream records to changes. The changes of an entity stay in order, or are merged into one change.
    fn changes(&self, calls: &Calls, records: Vec<Record>) -> Result<Vec<Change>, SourceError> {
        let has_images = self
            .known()
            .described
            .as_ref()
            .is_none_or(|(_, described)| described.stream.as_ref().is_none_or(|(_, has_images)| *has_images));
        let now = self.clock.now();
        if self.is_fetched() {
            // A record may be older than the fetched row and must not replace it, so the row is only marked as
            // outdated.
            return Ok(self.changed_ids(&records).map(Change::Remove).collect());
        }
        if self.items.is_split() || !has_images {
            return self.look_up(calls, &records, now);
        }
        let change = |record: Record| match &record.image {
            Some(image) => Change::Put(self.items.row(image, now)),
            None if record.is_removal => match self.items.id(&record.keys) {
                Ok(id) => Change::Remove(id),
                Err(why) => Change::Put(Item::unreadable(EntityId([0; 16]), why)),
            },
            None => Change::Put(self.items.row(&record.keys, now)),
        };
        Ok(records.into_iter().map(change).collect())
    }

    fn changed_ids<'a>(&'a self, records: &'a [Record]) -> impl Iterator<Item = EntityId> + 'a {
        records.iter().filter_map(|record| self.items.id(&record.keys).ok())
    }

    /// Looks up the current rows of changed entities in the table. This is necessary if the records of the stream do
    /// not contain the new state of whole rows.
    fn look_up(&self, calls: &Calls, records: &[Record], now: Micros) -> Result<Vec<Change>, SourceError> {
        let keys = records.iter().filter_map(|record| {
            let key = if self.items.is_split() { self.items.partition_of(&record.keys) } else { record.keys.clone() };
            Some((self.items.id(&record.keys).ok()?, key))
        });
        let rows = self.aws.wait_for(self.rows(calls, keys.collect(), now, Instant::now() + LOOKUP_TIMEOUT))?;
        Ok(rows.into_iter().map(|(id, row)| row.map_or(Change::Remove(id), Change::Put)).collect())
    }
}

impl Source for DynamoDb {
    fn has_changes(&self, _position: &str) -> Result<bool, SourceError> {
        // Only a read detects changes.
        Ok(true)
    }

    fn read(&self, position: Option<&str>) -> Result<Box<dyn Batches + '_>, SourceError> {
        let calls = self.aws.wait_for(async { Ok(self.calls().await) })?;
        let Some(text) = position else {
            let described = self.describe(&calls, Duration::ZERO)?;
            return Ok(Box::new(self.load(calls, &described, None)?));
        };
        let position = Position::parse(text).ok_or_else(|| self.lost("the position belongs to another source"))?;
        let described = self.describe(&calls, DESCRIBE_EVERY)?;
        if position.table != described.identity {
            return Err(self.lost("the table was recreated"));
        }
        let stream = self.stream_of(&described);
        match (&position.stream, stream) {
            (Some(known), Some(arn)) if known.arn == arn => {}
            (Some(_), Some(_)) => return Err(self.lost("its stream was turned off and on")),
            (Some(_), None) => return Err(self.lost("its stream was turned off")),
            (None, Some(_)) => return Err(self.lost("it has a stream now")),
            // Rows are fetched on lookups, so a read has nothing to return.
            (None, None) if self.is_fetched() => return Ok(Box::new(self.empty_tail(calls, position))),
            // Without a stream, each read is a full read.
            (None, None) if position.scan.is_none() => return Ok(Box::new(self.load(calls, &described, None)?)),
            (None, None) => {}
        }
        if position.stream.is_some() && self.is_too_old(&position) {
            return Err(self.lost("nothing was read for nearly a day, and DynamoDB keeps changes for only one day"));
        }
        if let Some(scan) = &position.scan {
            let segments = if self.is_fetched() { 0 } else { usize::from(self.source.segments) };
            if scan.segments.len() != segments {
                return Err(self.lost("the number of segments has changed"));
            }
            return Ok(Box::new(self.load(calls, &described, Some(position))?));
        }
        Ok(Box::new(self.tail(calls, position)))
    }

    fn schemas(&self) -> Result<Vec<FileSchema>, SourceError> {
        let calls = self.aws.wait_for(async { Ok(self.calls().await) })?;
        self.describe(&calls, Duration::ZERO).map(|_| Vec::new())
    }

    fn name(&self) -> String {
        format!("DynamoDB table '{}'", self.source.table)
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties {
            last_put_wins: true,
            resumes: true,
            has_windows: false,
            // Feast stores times as Python's `datetime`, which has a resolution of one microsecond.
            time_unit: matches!(self.source.layout, TableLayout::Feast).then_some(1),
            poll_every: self.poll_every(),
        }
    }

    fn is_recent_enough(&self, position: &str, age: Duration) -> Result<bool, SourceError> {
        let position =
            Position::parse(position).filter(|position| position.stream.is_none() && position.scan.is_none());
        let Some(position) = position else { return Ok(false) };
        if self.is_fetched() || age >= self.rescan_every / 2 {
            return Ok(false);
        }
        // A sync is needed if the table was recreated, or if it has a stream now, which must be followed.
        let calls = self.aws.wait_for(async { Ok(self.calls().await) })?;
        let described = self.describe(&calls, Duration::ZERO)?;
        Ok(position.table == described.identity && self.stream_of(&described).is_none())
    }

    fn staleness(&self) -> Option<Duration> {
        match (self.poll_every(), &self.source.on_miss) {
            (Some(every), _) => Some(every),
            (None, OnMiss::Fetch(how)) => Some(how.fresh_for),
            (None, OnMiss::NotFound) => Some(self.rescan_every),
        }
    }

    fn caveat(&self) -> Option<String> {
        // No warning if the definition turns the stream off.
        self.source.poll?;
        let staleness = self.poll_every().is_none().then(|| self.staleness()).flatten()?;
        Some(format!(
            "{} has no stream: changes are served up to {} late. hint: turn its stream on (NEW_IMAGE), or set 'stream: \
             off' in the view's source to accept the delay",
            self.name(),
            duration_text(staleness)
        ))
    }
}

impl DynamoDb {
    /// Returns the poll interval, if the table is followed through its stream.
    fn poll_every(&self) -> Option<Duration> {
        if self.follows.load(Ordering::Relaxed) { self.source.poll } else { None }
    }

    fn tail(&self, calls: Calls, position: Position) -> Tail<'_> {
        let mut known = self.known();
        // After a failed commit, the iterators are ahead of the committed position.
        if known.left_at != position.stream {
            known.shards.rewind();
        }
        drop(known);
        Tail {
            source: self,
            calls,
            position,
            origin: self.name().into(),
            until: Instant::now() + TAIL_MAX,
            has_ended: false,
            failed: None,
            is_partial: false,
            rows: 0,
            lag: Duration::ZERO,
        }
    }

    /// Creates a read that returns no changes.
    fn empty_tail(&self, calls: Calls, position: Position) -> Tail<'_> {
        Tail { has_ended: true, ..self.tail(calls, position) }
    }

    /// Reads the stream's readable shards once, and advances `position` past the returned records.
    fn round(&self, calls: &Calls, position: &mut StreamPosition) -> Result<stream::Round, SourceError> {
        let mut known = self.known();
        let known = &mut *known;
        let round = async { Ok(known.shards.round(calls, position).await) };
        let round = self.aws.wait_for(round)?;
        known.left_at = Some(position.clone());
        if let Err(SourceError::Lost { .. }) = &round {
            // The table may have been recreated.
            known.described = None;
        }
        round
    }
}

// === impl Loading ===

impl Loading<'_> {
    fn batch(&mut self, rows: SourceRows) -> SourceBatch {
        let first_row = self.rows;
        self.rows += rows.len() as u64;
        SourceBatch { rows, origin: Arc::clone(&self.origin), file: 0, first_row }
    }

    /// Returns the next page of the scan, as rows; `None` at its end.
    fn page(&mut self) -> Result<Option<SourceRows>, SourceError> {
        let Some(scan) = &mut self.scan else { return Ok(None) };
        let Some((segment, page)) = scan.next(&self.source.aws)? else {
            self.scan = None;
            return Ok(None);
        };
        let page = page.map_err(|error| match error.kind {
            AwsErrorKind::Missing => self.source.lost(format!("the table no longer exists ({})", error.why)),
            _ => SourceError::Aws(error),
        })?;
        let now = self.source.clock.now();
        let items = &self.source.items;
        let mut reached = SegmentPosition::after(page.last_key.as_ref());
        let rows = if items.is_split() {
            let mut waiting = self.held.remove(&segment).unwrap_or_default();
            waiting.extend(page.items);
            // The last entity may have more items on the next page.
            let held = match reached {
                SegmentPosition::Done => Vec::new(),
                _ => {
                    let last = waiting.last().cloned();
                    let is_other =
                        |item: &Attributes| last.as_ref().is_none_or(|last| !items.is_same_entity(item, last));
                    let from = waiting.iter().rposition(is_other).map_or(0, |place| place + 1);
                    waiting.split_off(from)
                }
            };
            if !held.is_empty() {
                // The held items are not returned yet, so the position is after the last returned item.
                reached = match waiting.last() {
                    Some(last) => SegmentPosition::after(Some(&self.primary_key(last))),
                    None => self.segment(segment),
                };
                self.held.insert(segment, held);
            }
            let entities = waiting.chunk_by(|one, other| items.is_same_entity(one, other));
            entities.map(|entity| items.entity_row(entity, now)).collect()
        } else {
            page.items.iter().map(|item| items.row(item, now)).collect()
        };
        if let Some(scan) = &mut self.position.scan
            && let Some(at) = scan.segments.get_mut(segment)
        {
            *at = reached;
        }
        Ok(Some(SourceRows::Items(rows)))
    }

    /// Returns the position of a segment.
    fn segment(&self, segment: usize) -> SegmentPosition {
        let scan = self.position.scan.as_ref();
        scan.and_then(|scan| scan.segments.get(segment).cloned()).unwrap_or(SegmentPosition::Start)
    }

    /// Returns the attributes of an item that are its primary key.
    fn primary_key(&self, item: &Attributes) -> Attributes {
        let known = self.source.known();
        let keys = known.described.as_ref().map(|(_, described)| described.keys.clone()).unwrap_or_default();
        keys.into_iter().filter_map(|name| Some((name.clone(), item.get(&name)?.clone()))).collect()
    }

    /// Returns the time at which the scan ended, by the wall clock and by the monotonic clock. If the read resumed
    /// after the scan, the monotonic time is that of the first call to this function.
    fn scan_ended(&mut self) -> (Micros, Instant) {
        let moment = *self.scan_ended.get_or_insert_with(Instant::now);
        let now = self.source.clock.now();
        match &mut self.position.scan {
            Some(scan) => (*scan.ended.get_or_insert(now), moment),
            None => (now, moment),
        }
    }
}

impl Batches for Loading<'_> {
    fn is_scan(&self) -> bool {
        !self.source.is_fetched()
    }

    fn next_batch(&mut self) -> Result<Option<SourceBatch>, SourceError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.has_ended {
            return Ok(None);
        }
        if let Some(rows) = self.page()? {
            return Ok(Some(self.batch(rows)));
        }
        if self.scan_ended.is_none() && self.position.stream.is_some() && self.source.is_too_old(&self.position) {
            // The shards were not read while the scan ran, so DynamoDB may have dropped changes from that time. Another
            // scan would fail in the same way, so the position is not reported as lost.
            let why = "the scan took nearly a day, and DynamoDB keeps changes for only one day. hint: raise 'segments' \
                       or 'read_units', or set 'stream: off'";
            return Err(SourceError::Table { table: self.source.source.table.clone(), why: why.to_owned() });
        }
        let (time, moment) = self.scan_ended();
        let Some(stream) = &mut self.position.stream else {
            self.has_ended = true;
            return Ok(None);
        };
        let round = self.source.round(&self.calls, stream)?;
        self.failed = round.failed;
        let changes = self.source.changes(&self.calls, round.records)?;
        if changes.is_empty() {
            if self.source.known().shards.have_passed(time, moment) {
                self.has_ended = true;
                return Ok(None);
            }
            thread::sleep(ROUND_PAUSE);
        }
        Ok(Some(self.batch(SourceRows::Changes(changes))))
    }

    fn rows_expected(&self) -> u64 {
        self.expected
    }

    fn position(&self) -> String {
        // Until the stream is read to the end of the scan, `as_of` remains the time at which the read started and the
        // shards were listed.
        if !self.has_ended {
            return self.position.print();
        }
        Position { scan: None, as_of: self.source.clock.now(), ..self.position.clone() }.print()
    }

    fn is_whole(&self) -> bool {
        true
    }
}

// === impl Tail ===

impl Batches for Tail<'_> {
    fn is_scan(&self) -> bool {
        false
    }

    fn next_batch(&mut self) -> Result<Option<SourceBatch>, SourceError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.has_ended {
            return Ok(None);
        }
        let Some(stream) = &mut self.position.stream else { return Ok(None) };
        let round = self.source.round(&self.calls, stream)?;
        let has_more = round.has_closed || round.has_more;
        self.failed = round.failed;
        self.is_partial |= self.failed.is_some();
        let changes = self.source.changes(&self.calls, round.records)?;
        let now = self.source.clock.now();
        self.lag = self.source.known().shards.lag(now);
        let first_row = self.rows;
        self.rows += changes.len() as u64;
        // The read does not wait for a response without records. A shard accepts only five requests a second, so
        // waiting would delay the records that have already arrived.
        let is_late = self.rows > 0 && Instant::now() >= self.until;
        self.has_ended = !has_more || is_late;
        let rows = SourceRows::Changes(changes);
        Ok(Some(SourceBatch { rows, origin: Arc::clone(&self.origin), file: 0, first_row }))
    }

    fn rows_expected(&self) -> u64 {
        0
    }

    fn position(&self) -> String {
        let as_of = if self.is_partial { self.position.as_of } else { self.source.clock.now() };
        Position { as_of, ..self.position.clone() }.print()
    }

    fn lag(&self) -> Option<Duration> {
        self.position.stream.as_ref().map(|_| self.lag)
    }
}
