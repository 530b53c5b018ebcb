//! A table's stream: lists its shards and reads all of them concurrently, in rounds.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use larder_model::model::Micros;

use super::{
    calls::{Calls, Record, Told},
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

/// The position in a shard that is being read.
#[derive(Debug, Default)]
struct Cursor {
    /// `None`: to be requested, from the position.
    iterator: Option<String>,
    asked_at: Option<Instant>,
    /// Consecutive responses without records. A single one can come from the middle of a shard.
    empties: u32,
    /// When the first of those was requested.
    empty_since: Option<Instant>,
    /// The time of the last change that was read.
    last_at: Option<Micros>,
}

/// The result of one round.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// The changes, shard by shard, in order; the shards' positions are after them.
    pub(super) records: Vec<Record>,
    /// Whether a shard came to its end, so that its children may start.
    pub(super) has_closed: bool,
    /// Whether a shard returned so many records that more may follow.
    pub(super) has_more: bool,
    /// The error of a shard, if one failed. The records of the other shards are applied first.
    pub(super) failed: Option<SourceError>,
}

/// How often to look for new shards while no known shard ends.
const LIST_EVERY: Duration = Duration::from_secs(10);
/// DynamoDB accepts five requests a second for a shard.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// A response ends at 1,000 records or 1 MB. One with fewer records than this usually contains all that there were.
const MUCH: usize = 100;
/// This many consecutive responses without records mean that a shard has no more.
const EMPTIES: u32 = 5;

// === impl Shards ===

impl Shards {
    /// Drops the iterators: the positions are those of the last commit.
    pub(super) fn rewind(&mut self) {
        self.cursors.clear();
    }

    /// Returns the current shards of the stream.
    pub(super) async fn list(&mut self, calls: &Calls, stream: &str) -> Result<&[Shard], AwsError> {
        self.listed = calls.shards(stream).await?;
        self.listed_at = Some(Instant::now());
        Ok(&self.listed)
    }

    /// Reads every readable shard once. Advances `position` past the returned records.
    pub(super) async fn round(&mut self, calls: &Calls, position: &mut StreamPosition) -> Result<Round, SourceError> {
        if self.listed_at.is_none_or(|at| at.elapsed() >= LIST_EVERY) {
            self.list(calls, &position.arn).await.map_err(|error| lost_or(error, "its stream no longer exists"))?;
            self.take_in(position, &calls.table)?;
        }
        let readable = lineage::readable(&position.shards, &self.listed);
        self.cursors.retain(|id, _| readable.contains(id));
        for id in &readable {
            self.cursors.entry(id.clone()).or_default();
        }
        let at: &StreamPosition = position;
        let asked = self.cursors.iter_mut().filter_map(|(id, cursor)| {
            let shard = at.shards.get(id)?;
            Some(async move { (id.clone(), cursor.ask(calls, &at.arn, id, shard).await) })
        });
        let answers: BTreeMap<String, Result<Told, AwsError>> = join_all(asked).await.into_iter().collect();

        let mut round = Round::default();
        let mut failed = None;
        for (id, told) in answers {
            match told {
                Ok(told) => self.take(id, told, position, &mut round),
                Err(error) => failed = Some(error),
            }
        }
        if round.has_closed {
            // Its children are waiting.
            self.listed_at = None;
        }
        let failed = failed.map(|error| lost_or(error, "records were removed before they were read"));
        match failed {
            Some(error) if round.records.is_empty() => Err(error),
            failed => Ok(Round { failed, ..round }),
        }
    }

    fn take(&mut self, id: String, told: Told, position: &mut StreamPosition, round: &mut Round) {
        let at = position.shards.get(&id).cloned().unwrap_or(ShardPosition::Start);
        // A repeated record is applied once: an older state must not reappear even briefly.
        let is_new = |record: &Record| match &at {
            ShardPosition::After(last) => is_behind(&record.sequence, last),
            ShardPosition::Start | ShardPosition::Done => true,
        };
        round.has_more |= told.records.len() >= MUCH;
        let records: Vec<Record> = told.records.into_iter().filter(is_new).collect();
        if let Some(cursor) = self.cursors.get_mut(&id)
            && let Some(last) = records.last()
        {
            cursor.last_at = last.at.or(cursor.last_at);
        }
        let reached = if told.next.is_none() {
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

    fn take_in(&mut self, position: &mut StreamPosition, table: &str) -> Result<(), SourceError> {
        lineage::take_in(&mut position.shards, &self.listed).map_err(|shard| SourceError::Lost {
            path: format!("DynamoDB table '{table}'"),
            why: format!("shard {shard} of its stream was removed before it was read to its end"),
        })
    }

    /// Returns whether every shard that is read has returned a change after a time, or has been empty for a while since
    /// then. `moment` is the same time by the monotonic clock.
    pub(super) fn have_passed(&self, time: Micros, moment: Instant) -> bool {
        self.listed_at.is_some()
            && self.cursors.values().all(|cursor| {
                cursor.last_at.is_some_and(|at| at > time + MARGIN)
                    || (cursor.empties >= EMPTIES && cursor.empty_since.is_some_and(|since| since > moment))
            })
    }

    /// Returns the maximum age of unread changes in the shards.
    pub(super) fn lag(&self, now: Micros) -> Duration {
        let behind = self.cursors.values().filter(|cursor| cursor.empties == 0).filter_map(|cursor| cursor.last_at);
        let behind = behind.map(|at| u64::try_from(now.saturating_sub(at)).unwrap_or(0)).max();
        Duration::from_micros(behind.unwrap_or(0))
    }
}

/// Times of records are rounded, and come from other clocks.
const MARGIN: Micros = 1_000_000;

// === impl Cursor ===

impl Cursor {
    async fn ask(&mut self, calls: &Calls, stream: &str, id: &str, position: &ShardPosition) -> Result<Told, AwsError> {
        if let Some(wait) = self.asked_at.and_then(|at| ASK_EVERY.checked_sub(at.elapsed())) {
            tokio::time::sleep(wait).await;
        }
        let iterator = match self.iterator.take() {
            Some(iterator) => iterator,
            None => calls.iterator(stream, id, position).await?,
        };
        self.asked_at = Some(Instant::now());
        let told = match calls.records(&iterator).await {
            // The iterator was not used for 15 minutes. Its position is known.
            Err(error) if error.trouble == AwsErrorKind::Expired => {
                let iterator = calls.iterator(stream, id, position).await?;
                calls.records(&iterator).await?
            }
            // After any other error, the iterator could be reused, but a new one is equally good.
            told => told?,
        };
        self.iterator.clone_from(&told.next);
        if told.records.is_empty() {
            self.empties += 1;
            self.empty_since.get_or_insert_with(Instant::now);
        } else {
            (self.empties, self.empty_since) = (0, None);
        }
        Ok(told)
    }
}

/// Returns whether `one` is greater than `other`, in the same shard. Sequence numbers can be too long for an integer
/// type, so they are compared by length and then as text.
fn is_behind(one: &str, other: &str) -> bool {
    let digits = |text: &str| text.trim_start_matches('0').len();
    (digits(one), one.trim_start_matches('0')) > (digits(other), other.trim_start_matches('0'))
}

fn lost_or(error: AwsError, why: &str) -> SourceError {
    match error.trouble {
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
        assert!(is_behind("10", "9"));
        assert!(is_behind("100000000000000000000002", "100000000000000000000001"));
        assert!(!is_behind("5", "5"));
        assert!(!is_behind("0005", "6"));
    }
}
