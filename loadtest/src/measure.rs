//! One server under load: saturated first, then at 60 % of that.

use std::{process as own, sync::Arc, time::Duration};

use anyhow::bail;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    load::{Load, Schedule, Tally},
    process,
    target::Target,
    workload::Workload,
};

/// Latency is read at this part of the rate that saturates a server: busy, as a server should be, but not full.
const PACE: f64 = 0.6;

/// How much load, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) connections: usize,
    /// Time on the core is counted in ticks of 10 ms: a second or more.
    pub(crate) saturated: Duration,
    pub(crate) paced: Duration,
    /// The paced run goes on until it has so many samples, if `paced_max` allows.
    pub(crate) samples_min: u64,
    pub(crate) paced_max: Duration,
    /// Whether everything is asked for once before.
    pub(crate) warm_up: bool,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) side: Side,
    /// Of the paced run.
    pub(crate) latencies_ns: Histogram<u64>,
    /// Of all requests, also those of the warm-up.
    pub(crate) tally: Tally,
}

/// One server in one round.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Side {
    /// Saturated.
    pub(crate) requests_per_s: f64,
    /// How much of its core the saturated server used. Well below 100, the load was the bottleneck.
    pub(crate) busy_percent: f64,
    pub(crate) cpu_us_per_request: f64,
    pub(crate) wire_bytes_per_answer: f64,
    /// Time for which the load was ready to run and another process had its core. 0 where the kernel does not tell.
    pub(crate) load_waited_percent: f64,
    /// The same for the server; the threads of a server on one core wait for each other too.
    pub(crate) server_waited_percent: f64,
    /// At 60 % of that.
    pub(crate) paced_requests_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// Memory that the server held after both runs; 0 where the kernel does not tell.
    pub(crate) resident_bytes: f64,
}

/// What the processes had got from the machine at some moment.
#[derive(Clone, Copy, Debug)]
struct Clocks {
    server_cpu: Duration,
    server_waited: Duration,
    load_waited: Duration,
}

/// Measures. The seed decides which keys are asked for, in which order.
pub(crate) async fn measure(
    target: &Target,
    workload: &Arc<Workload>,
    effort: &Effort,
    seed: u64,
) -> anyhow::Result<Measured> {
    let mut load = Load::open(&target.endpoint, effort.connections, Arc::clone(workload)).await?;
    let warm_up = if effort.warm_up { load.warm_up().await? } else { Tally::default() };

    let before = Clocks::read(target)?;
    let saturated = load.saturate(effort.saturated, seed).await?;
    let spent = Clocks::read(target)?.since(before);
    let answered = saturated.tally.answered as f64;
    if answered == 0.0 {
        let tally: Tally = [warm_up, saturated.tally].into_iter().collect();
        bail!("{} answered nothing: {}", target.name, tally.first_failure.as_deref().unwrap_or("nothing was sent"));
    }

    let requests_per_s = answered / saturated.elapsed.as_secs_f64();
    let rate = requests_per_s * PACE;
    let paced = load.pace(Schedule::new(rate, effort.paced_for(rate)), seed).await?;
    let percent = |time: Duration| time.as_secs_f64() / saturated.elapsed.as_secs_f64() * 100.0;
    let latency_us = |quantile| paced.latencies_ns.value_at_quantile(quantile) as f64 / 1000.0;
    let side = Side {
        requests_per_s,
        busy_percent: percent(spent.server_cpu),
        cpu_us_per_request: spent.server_cpu.as_secs_f64() * 1e6 / answered,
        wire_bytes_per_answer: saturated.tally.wire_bytes as f64 / answered,
        load_waited_percent: percent(spent.load_waited),
        server_waited_percent: percent(spent.server_waited),
        paced_requests_per_s: paced.tally.answered as f64 / paced.elapsed.as_secs_f64(),
        p50_us: latency_us(0.5),
        p99_us: latency_us(0.99),
        p999_us: latency_us(0.999),
        resident_bytes: process::resident_bytes(&target.pids).unwrap_or(0) as f64,
    };
    let mut tally: Tally = [warm_up, saturated.tally, paced.tally].into_iter().collect();
    tally.first_failure = tally.first_failure.map(|failure| format!("{}: {failure}", target.name));
    Ok(Measured { side, latencies_ns: paced.latencies_ns, tally })
}

// === impl Effort ===

impl Effort {
    /// How long a paced run at this rate, per second, takes.
    pub(crate) fn paced_for(&self, rate: f64) -> Duration {
        let wanted = self.samples_min as f64 / rate.max(1.0);
        self.paced.max(Duration::from_secs_f64(wanted.min(self.paced_max.as_secs_f64())))
    }
}

// === impl Side ===

impl Side {
    /// The median of each number; the numbers need not be of the same round.
    pub(crate) fn median(sides: &[Self]) -> Self {
        let median = |number: fn(&Self) -> f64| crate::stats::Spread::of(sides.iter().map(number)).median;
        Self {
            requests_per_s: median(|side| side.requests_per_s),
            busy_percent: median(|side| side.busy_percent),
            cpu_us_per_request: median(|side| side.cpu_us_per_request),
            wire_bytes_per_answer: median(|side| side.wire_bytes_per_answer),
            load_waited_percent: median(|side| side.load_waited_percent),
            server_waited_percent: median(|side| side.server_waited_percent),
            paced_requests_per_s: median(|side| side.paced_requests_per_s),
            p50_us: median(|side| side.p50_us),
            p99_us: median(|side| side.p99_us),
            p999_us: median(|side| side.p999_us),
            resident_bytes: median(|side| side.resident_bytes),
        }
    }
}

// === impl Clocks ===

impl Clocks {
    fn read(target: &Target) -> anyhow::Result<Self> {
        Ok(Self {
            server_cpu: process::cpu_time(&target.pids)?,
            server_waited: process::time_without_core(&target.pids).unwrap_or_default(),
            load_waited: process::time_without_core(&[own::id()]).unwrap_or_default(),
        })
    }

    fn since(self, before: Self) -> Self {
        Self {
            server_cpu: self.server_cpu.saturating_sub(before.server_cpu),
            // A thread that ended takes its count along.
            server_waited: self.server_waited.saturating_sub(before.server_waited),
            load_waited: self.load_waited.saturating_sub(before.load_waited),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paced_run_is_as_long_as_its_samples_want_within_bounds() {
        let seconds = Duration::from_secs;
        let effort = Effort {
            connections: 1,
            saturated: seconds(2),
            paced: seconds(3),
            samples_min: 100_000,
            paced_max: seconds(20),
            warm_up: true,
        };
        assert_eq!(effort.paced_for(100_000.0), seconds(3));
        assert_eq!(effort.paced_for(10_000.0), seconds(10));
        assert_eq!(effort.paced_for(10.0), seconds(20));
        assert_eq!(Effort { samples_min: 0, ..effort }.paced_for(10.0), seconds(3));
    }
}
