//! Reads a table's stream: lists its shards, and reads the readable ones concurrently, in rounds.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use larder_model::model::Micros;

use super::{
    calls::{Calls, Record, ShardRecords},
    lineage::{self, Shard},
    position::{ShardPosition, StreamPosition},
};
use crate::{
    SourceError,
    aws::{AwsError, AwsErrorKind},
};

/// The state of a stream between two reads.
#[derive(Debug, Default)]
pub(super) struct Shards {
    listed: Vec<Shard>,
    listed_at: Option<Instant>,
    cursors: HashMap<String, Cursor>,
}

/// The state of reading a shard.
#[derive(Debug, Default)]
struct Cursor {
    /// The iterator for the next request; `None` if a new iterator must be requested for the shard's position.
    iterator: Option<String>,
    requested_at: Option<Instant>,
    /// The number of consecutive responses without records. A single such response does not mean that the shard has no
    /// more records.
    empty_responses: u32,
    /// The time at which the first of the `empty_responses` arrived.
    empty_since: Option<Instant>,
    /// The time of the last change that was read.
    last_at: Option<Micros>,
}

/// The result of one round.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// The records, grouped by shard, and in order within each shard. The positions of the shards are already after
    /// these records.
    pub(super) records: Vec<Record>,
    /// Whether a shard was read to its end, so that its children can be read.
    pub(super) has_closed: bool,
    /// Whether a shard returned so many records that more may follow.
    pub(super) has_more: bool,
    /// The error of a shard, if one failed. The caller returns the records of the other shards first.
    pub(super) failed: Option<SourceError>,
}

/// How often to list the shards while no known shard ends.
const LIST_EVERY: Duration = Duration::from_secs(10);
/// The minimum interval between requests to a shard: DynamoDB accepts five a second.
const REQUEST_EVERY: Duration = Duration::from_millis(200);
/// After a response with at least this many records, the shard may have more. The maximum of a response is 1,000
/// records or 1 MB.
const MANY_RECORDS: usize = 100;
/// After this many consecutive responses without records, a shard is assumed to have no more records.
const EMPTY_RESPONSES: u32 = 5;

// === impl Shards ===

impl Shards {
    /// Drops the iterators, so that reading resumes at the committed positions.
    pub(super) fn rewind(&mut self) {
        self.cursors.clear();
    }

    /// Lists the current shards of the stream.
    pub(super) async fn list(&mut self, calls: &Calls, stream: &str) -> Result<&[Shard], AwsError> {
        self.listed = calls.shards(stream).await?;
        self.listed_at = Some(Instant::now());
        Ok(&self.listed)
    }

    /// Reads every readable shard once, and advances `position` past the returned records.
    pub(super) async fn round(&mut self, calls: &Calls, position: &mut StreamPosition) -> Result<Round, SourceError> {
        if self.listed_at.is_none_or(|at| at.elapsed() >= LIST_EVERY) {
            self.list(calls, &position.arn).await.map_err(|error| lost_or(error, "its stream no longer exists"))?;
            self.update(position, &calls.table)?;
        }
        let readable = lineage::readable(&position.shards, &self.listed);
        self.cursors.retain(|id, _| readable.contains(id));
        for id in &readable {
            self.cursors.entry(id.clone()).or_default();
        }
        let at: &StreamPosition = position;
        let requests = self.cursors.iter_mut().filter_map(|(id, cursor)| {
            let shard = at.shards.get(id)?;
            Some(async move { (id.clone(), cursor.request(calls, &at.arn, id, shard).await) })
        });
        let responses: BTreeMap<String, Result<ShardRecords, AwsError>> =
            join_all(requests).await.into_iter().collect();

        let mut round = Round::default();
        let mut failed = None;
        for (id, response) in responses {
            match response {
                Ok(response) => self.apply(id, response, position, &mut round),
                Err(error) => failed = Some(error),
            }
        }
        if round.has_closed {
            // List the shards in the next round, because the children of the closed shard can be read now.
            self.listed_at = None;
        }
        let failed = failed.map(|error| lost_or(error, "records were removed before they were read"));
        match failed {
            Some(error) if round.records.is_empty() => Err(error),
            failed => Ok(Round { failed, ..round }),
        }
    }

    /// Adds the records of a shard to the round, and advances the shard's position.
    fn apply(&mut self, id: String, response: ShardRecords, position: &mut StreamPosition, round: &mut Round) {
        let at = position.shards.get(&id).cloned().unwrap_or(ShardPosition::Start);
        // Drop repeated records, because an older state must not reappear even briefly.
        let is_new = |record: &Record| match &at {
            ShardPosition::After(last) => is_after(&record.sequence, last),
            ShardPosition::Start | ShardPosition::Done => true,
        };
        round.has_more |= response.records.len() >= MANY_RECORDS;
        let records: Vec<Record> = response.records.into_iter().filter(is_new).collect();
        if let Some(cursor) = self.cursors.get_mut(&id)
            && let Some(last) = records.last()
        {
            cursor.last_at = last.at.or(cursor.last_at);
        }
        let reached = if response.next.is_none() {
            round.has_closed = true;
            Some(ShardPosition::Done)
        } else {
            records.last().map(|last| ShardPosition::After(last.sequence.clone()))
        };
        if let Some(reached) = reached {
            position.shards.insert(id, reached);
        }
        round.records.extend(records);
    }

    /// Updates the positions from the list of shards.
    fn update(&mut self, position: &mut StreamPosition, table: &str) -> Result<(), SourceError> {
        lineage::update(&mut position.shards, &self.listed).map_err(|shard| SourceError::Lost {
            path: format!("DynamoDB table '{table}'"),
            why: format!("shard {shard} of its stream was removed before it was read to its end"),
        })
    }

    /// Returns whether all readable shards have been read up to `time`. This is the case for a shard if it returned a
    /// change that was made more than [`MARGIN`] after `time`, or at least [`EMPTY_RESPONSES`] consecutive responses
    /// without records since `time`. `moment` is the same time by the monotonic clock.
    pub(super) fn have_passed(&self, time: Micros, moment: Instant) -> bool {
        self.listed_at.is_some()
            && self.cursors.values().all(|cursor| {
                cursor.last_at.is_some_and(|at| at > time + MARGIN)
                    || (cursor.empty_responses >= EMPTY_RESPONSES
                        && cursor.empty_since.is_some_and(|since| since > moment))
            })
    }

    /// Returns the age of the last change that was read from the shard that is furthest behind; zero if the last
    /// response of every shard had no records.
    pub(super) fn lag(&self, now: Micros) -> Duration {
        let behind =
            self.cursors.values().filter(|cursor| cursor.empty_responses == 0).filter_map(|cursor| cursor.last_at);
        let behind = behind.map(|at| u64::try_from(now.saturating_sub(at)).unwrap_or(0)).max();
        Duration::from_micros(behind.unwrap_or(0))
    }
}

/// The tolerance in microseconds when times of records are compared with the local time: they are rounded, and come
/// from other clocks.
const MARGIN: Micros = 1_000_000;

// === impl Cursor ===

impl Cursor {
    /// Requests the next records of the shard.
    async fn request(
        &mut self,
        calls: &Calls,
        stream: &str,
        id: &str,
        position: &ShardPosition,
    ) -> Result<ShardRecords, AwsError> {
        if let Some(wait) = self.requested_at.and_then(|at| REQUEST_EVERY.checked_sub(at.elapsed())) {
            tokio::time::sleep(wait).await;
        }
        let iterator = match self.iterator.take() {
            Some(iterator) => iterator,
            None => calls.iterator(stream, id, position).await?,
        };
        self.requested_at = Some(Instant::now());
        let response = match calls.records(&iterator).await {
            // The iterator was not used for 15 minutes. A new one starts at the known position.
            Err(error) if error.kind == AwsErrorKind::Expired => {
                let iterator = calls.iterator(stream, id, position).await?;
                calls.records(&iterator).await?
            }
            // After any other error, the next round requests a new iterator.
            response => response?,
        };
        self.iterator.clone_from(&response.next);
        if response.records.is_empty() {
            self.empty_responses += 1;
            self.empty_since.get_or_insert_with(Instant::now);
        } else {
            (self.empty_responses, self.empty_since) = (0, None);
        }
        Ok(response)
    }
}

/// Returns whether the sequence number `one` is greater than `other`, in the same shard. Sequence numbers can be too
/// long for an integer type, so they are compared by length and then as text.
fn is_after(one: &str, other: &str) -> bool {
    let digits = |text: &str| text.trim_start_matches('0').len();
    (digits(one), one.trim_start_matches('0')) > (digits(other), other.trim_start_matches('0'))
}

/// Converts the error of a request. If the stream or the position no longer exists, returns [`SourceError::Lost`] with
/// the reason `why`.
fn lost_or(error: AwsError, why: &str) -> SourceError {
    match error.kind {
        AwsErrorKind::Trimmed | AwsErrorKind::Missing => {
            SourceError::Lost { path: error.what, why: format!("{why} ({})", error.why) }
        }
        _ => SourceError::Aws(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_are_compared_as_numbers() {
        assert!(is_after("10", "9"));
        assert!(is_after("100000000000000000000002", "100000000000000000000001"));
        assert!(!is_after("5", "5"));
        assert!(!is_after("0005", "6"));
    }
}
