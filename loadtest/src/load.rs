//! Generates load on one server, in two modes.
//!
//! *Saturating* (a closed loop): every connection sends the next request as soon as it has received a response. This
//! measures the maximum throughput and its cost. The latencies are not meaningful, because a slow server gets fewer
//! requests.
//!
//! *Paced* (an open loop): requests are scheduled before the run begins. The latency of a request is measured from its
//! scheduled time, even if it was sent later because all connections were waiting for responses. A stall therefore
//! affects the latency of all requests that it delays, as it would for independent clients.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::{
    client::{Connection, Request},
    endpoint::Endpoint,
    random::XorShift,
    workload::Workload,
};

#[cfg(test)]
mod tests;

/// The maximum time by which a run may exceed its length. A run that takes longer fails.
const OVERRUN_MAX: Duration = Duration::from_secs(10);

/// The maximum time to send every request once, with cold caches.
const WARM_UP_LIMIT: Duration = Duration::from_secs(20);

/// The maximum latency that is recorded, in nanoseconds. Longer latencies are recorded as this value.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Connections to one server, and the requests to send over them.
#[derive(Debug)]
pub(crate) struct Load {
    connections: Vec<Connection>,
    workload: Arc<Workload>,
}

/// Counts of responses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// The number of responses with status 200.
    pub(crate) succeeded: u64,
    /// The total size of these responses on the wire, in bytes.
    pub(crate) wire_bytes: u64,
    /// The number of responses with another status, plus the number of requests without a valid response.
    pub(crate) failures: u64,
    /// The first failure.
    pub(crate) first_failure: Option<String>,
}

/// The result of a saturating run.
#[derive(Clone, Debug)]
pub(crate) struct Saturated {
    pub(crate) tally: Tally,
    pub(crate) elapsed: Duration,
}

/// The result of a paced run.
#[derive(Debug)]
pub(crate) struct Paced {
    pub(crate) tally: Tally,
    pub(crate) elapsed: Duration,
    pub(crate) latencies_ns: Histogram<u64>,
}

/// The schedule of a paced run's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// The number of requests per second. At least 1.
    rate_per_s: u64,
    arrivals: u64,
}

// === impl Load ===

impl Load {
    /// Opens this many connections.
    pub(crate) async fn open(endpoint: &Endpoint, count: usize, workload: Arc<Workload>) -> anyhow::Result<Self> {
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            let opened = Connection::open(endpoint).await;
            connections.push(opened.with_context(|| format!("cannot connect to {endpoint}"))?);
        }
        Ok(Self { connections, workload })
    }

    /// Sends every request once, so that the caches of the server and of the load are warm before the measurement.
    pub(crate) async fn warm_up(&mut self) -> anyhow::Result<Tally> {
        let (workload, step) = (Arc::clone(&self.workload), self.connections.len());
        let tallies = self
            .on_every_connection(WARM_UP_LIMIT, |index, mut connection| {
                let workload = Arc::clone(&workload);
                async move {
                    let mut tally = Tally::default();
                    for request in workload.requests().skip(index).step_by(step) {
                        if send_counted(&mut connection, request, &mut tally).await.is_break() {
                            break;
                        }
                    }
                    (connection, tally)
                }
            })
            .await?;
        Ok(tallies.into_iter().collect())
    }

    /// Sends requests for `length`, as fast as the server responds.
    pub(crate) async fn saturate(&mut self, length: Duration, seed: u64) -> anyhow::Result<Saturated> {
        let workload = Arc::clone(&self.workload);
        let start = Instant::now();
        let end = start + length;
        let tallies = self
            .on_every_connection(length + OVERRUN_MAX, |index, mut connection| {
                let workload = Arc::clone(&workload);
                async move {
                    let (mut tally, mut random) = (Tally::default(), XorShift::new(seed, index));
                    while Instant::now() < end {
                        if send_counted(&mut connection, workload.pick(&mut random), &mut tally).await.is_break() {
                            break;
                        }
                    }
                    (connection, tally)
                }
            })
            .await?;
        Ok(Saturated { tally: tallies.into_iter().collect(), elapsed: start.elapsed() })
    }

    /// Sends requests on schedule. The next free connection sends the next request.
    pub(crate) async fn pace(&mut self, schedule: Schedule, seed: u64) -> anyhow::Result<Paced> {
        let workload = Arc::clone(&self.workload);
        let next_arrival = Arc::new(AtomicU64::new(0));
        let empty = latency_histogram()?;
        let start = Instant::now();
        let found = self
            .on_every_connection(schedule.length() + OVERRUN_MAX, |index, mut connection| {
                let (workload, next_arrival) = (Arc::clone(&workload), Arc::clone(&next_arrival));
                let mut latencies_ns = empty.clone();
                async move {
                    let (mut tally, mut random) = (Tally::default(), XorShift::new(seed, index));
                    while let Some(arrival) = schedule.claim(&next_arrival) {
                        wait_until(start + schedule.offset(arrival)).await;
                        let failures_before = tally.failures;
                        let flow = send_counted(&mut connection, workload.pick(&mut random), &mut tally).await;
                        if tally.failures == failures_before {
                            latencies_ns.saturating_record(nanos(schedule.latency(arrival, start.elapsed())));
                        }
                        if flow.is_break() {
                            break;
                        }
                    }
                    (connection, (tally, latencies_ns))
                }
            })
            .await?;
        let elapsed = start.elapsed();
        let (mut tallies, mut latencies_ns) = (Vec::new(), empty);
        for (tally, latencies) in found {
            tallies.push(tally);
            latencies_ns.add(&latencies).context("the histograms have different bounds")?;
        }
        Ok(Paced { tally: tallies.into_iter().collect(), elapsed, latencies_ns })
    }

    /// Runs `work` on all connections concurrently, and waits for all of them. If this fails, the connections whose
    /// work has not ended are closed.
    async fn on_every_connection<T, W, F>(&mut self, limit: Duration, work: W) -> anyhow::Result<Vec<T>>
    where
        T: Send + 'static,
        W: Fn(usize, Connection) -> F,
        F: Future<Output = (Connection, T)> + Send + 'static,
    {
        let mut running: JoinSet<_> =
            self.connections.drain(..).enumerate().map(|(index, connection)| work(index, connection)).collect();
        let mut found = Vec::with_capacity(running.len());
        let all = async {
            while let Some(done) = running.join_next().await {
                let (connection, each) = done.context("a connection's task failed")?;
                self.connections.push(connection);
                found.push(each);
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout(limit, all).await {
            Ok(done) => done.map(|()| found),
            Err(_) => bail!("{} connections are still waiting for a response after {limit:?}", running.len()),
        }
    }
}

/// Sends one request, and counts the result. Returns `Break` if the connection failed and cannot be reopened.
async fn send_counted(connection: &mut Connection, request: &Request, tally: &mut Tally) -> std::ops::ControlFlow<()> {
    use std::ops::ControlFlow::{Break, Continue};
    match connection.exchange(request).await {
        Ok(answer) if answer.status == 200 => {
            tally.succeeded += 1;
            tally.wire_bytes += answer.wire_bytes() as u64;
            Continue(())
        }
        Ok(answer) => {
            tally.fail(|| format!("status {}: {}", answer.status, answer.excerpt()));
            Continue(())
        }
        Err(error) => {
            tally.fail(|| error.to_string());
            connection.reopen().await.map_or(Break(()), Continue)
        }
    }
}

/// Waits by polling the clock, and lets other tasks run between polls. Tokio's timers have a resolution of a
/// millisecond, which is too coarse, because a response takes hundredths of a millisecond. Polling is acceptable,
/// because the load normally has its own core.
async fn wait_until(due: Instant) {
    while Instant::now() < due {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn latency_histogram() -> anyhow::Result<Histogram<u64>> {
    // With three significant digits, 1,000 µs and 1,001 µs are distinct.
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).context("cannot create a histogram")
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

// === impl Tally ===

impl Tally {
    fn fail(&mut self, what: impl FnOnce() -> String) {
        self.failures += 1;
        self.first_failure.get_or_insert_with(what);
    }
}

impl FromIterator<Self> for Tally {
    fn from_iter<I: IntoIterator<Item = Self>>(tallies: I) -> Self {
        tallies.into_iter().fold(Self::default(), |sum, each| Self {
            succeeded: sum.succeeded + each.succeeded,
            wire_bytes: sum.wire_bytes + each.wire_bytes,
            failures: sum.failures + each.failures,
            first_failure: sum.first_failure.or(each.first_failure),
        })
    }
}

// === impl Schedule ===

impl Schedule {
    /// Creates a schedule of requests at a constant rate, for this long.
    pub(crate) fn new(rate_per_s: f64, length: Duration) -> Self {
        // The error from rounding the rate down is too small to be measured.
        let rate_per_s = (rate_per_s as u64).max(1);
        Self { rate_per_s, arrivals: (rate_per_s as f64 * length.as_secs_f64()).ceil() as u64 }
    }

    /// Claims the next request and returns its number. Returns `None` after the last request.
    fn claim(self, next: &AtomicU64) -> Option<u64> {
        let arrival = next.fetch_add(1, Ordering::Relaxed);
        (arrival < self.arrivals).then_some(arrival)
    }

    /// Returns the time from the start of the run until a request is due. Whole seconds are computed separately, so
    /// that rounding errors do not accumulate in long runs.
    fn offset(self, arrival: u64) -> Duration {
        let rest_ns = (arrival % self.rate_per_s) * 1_000_000_000 / self.rate_per_s;
        Duration::from_secs(arrival / self.rate_per_s) + Duration::from_nanos(rest_ns)
    }

    /// Returns the latency of a request: the time from its scheduled time until its response was received.
    fn latency(self, arrival: u64, received: Duration) -> Duration {
        received.saturating_sub(self.offset(arrival))
    }

    fn length(self) -> Duration {
        self.offset(self.arrivals)
    }
}
