//! Scans the segments of a table concurrently, within a limit on read units per second if one is set.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, sleep_until},
};

use super::{
    calls::{Calls, Page},
    item::Attributes,
    position::SegmentPosition,
};
use crate::aws::{Aws, AwsError};

/// A scan in progress. Pages are returned in the order in which they arrive. Dropping this value ends the scan.
#[derive(Debug)]
pub(super) struct Scan {
    pages: mpsc::Receiver<SegmentPage>,
    _tasks: JoinSet<()>,
}

/// The index of a segment, and its next page or an error.
type SegmentPage = (usize, Result<Page, AwsError>);

/// A limit on read units per second.
#[derive(Debug)]
struct Budget {
    per_second: Option<f64>,
    /// The earliest time at which another request keeps the average use within the limit.
    free_at: Mutex<Instant>,
}

/// The maximum number of retries of a page, in addition to the SDK's own retries. If all of them fail, the sync fails,
/// so that the error is reported, and the next sync resumes the scan.
const RETRIES_MAX: u32 = 5;
/// The pause before the first retry; doubled before each further retry.
const PAUSE: Duration = Duration::from_millis(200);

// === impl Scan ===

impl Scan {
    pub(super) fn start(
        aws: &Aws,
        calls: &Calls,
        segments: &[SegmentPosition],
        read_units: Option<u32>,
    ) -> Result<Self, AwsError> {
        let handle = aws.handle()?;
        let budget = Arc::new(Budget { per_second: read_units.map(f64::from), free_at: Mutex::new(Instant::now()) });
        // The channel limits memory: each segment has about one page in it, and a page has at most 1 MB.
        let (sender, pages) = mpsc::channel(segments.len().max(1));
        let mut tasks = JoinSet::new();
        let total = segments.len();
        for (segment, position) in segments.iter().enumerate().filter(|(_, at)| **at != SegmentPosition::Done) {
            let (calls, budget, sender) = (calls.clone(), Arc::clone(&budget), sender.clone());
            let start = position.start_key();
            tasks.spawn_on(scan_segment(calls, budget, sender, segment, total, start), handle);
        }
        Ok(Self { pages, _tasks: tasks })
    }

    /// Returns the next page and its segment; `None` when all segments are done.
    ///
    /// # Errors
    /// If the server is stopping. The error of a page is inside the [`SegmentPage`].
    pub(super) fn next(&mut self, aws: &Aws) -> Result<Option<SegmentPage>, AwsError> {
        aws.wait_for(async { Ok(self.pages.recv().await) })
    }
}

async fn scan_segment(
    calls: Calls,
    budget: Arc<Budget>,
    pages: mpsc::Sender<SegmentPage>,
    segment: usize,
    segments: usize,
    mut start: Option<Attributes>,
) {
    loop {
        let page = page(&calls, &budget, segment, segments, start).await;
        let next = page.as_ref().ok().and_then(|page| page.last_key.clone()).filter(|key| !key.is_empty());
        let has_more = page.is_ok() && next.is_some();
        if pages.send((segment, page)).await.is_err() || !has_more {
            return;
        }
        start = next;
    }
}

async fn page(
    calls: &Calls,
    budget: &Budget,
    segment: usize,
    segments: usize,
    start: Option<Attributes>,
) -> Result<Page, AwsError> {
    let mut attempt = 0;
    loop {
        sleep_until(budget.free_at().into()).await;
        match calls.scan(segment, segments, start.clone()).await {
            Ok(page) => {
                budget.spend(page.read_units);
                return Ok(page);
            }
            Err(error) if error.kind.is_transient() && attempt < RETRIES_MAX => {
                sleep(PAUSE * 2_u32.pow(attempt)).await;
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

// === impl Budget ===

impl Budget {
    fn free_at(&self) -> Instant {
        *self.free_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spend(&self, units: f64) {
        let Some(per_second) = self.per_second else { return };
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        *free_at = (*free_at).max(Instant::now()) + Duration::from_secs_f64(units / per_second);
    }
}
