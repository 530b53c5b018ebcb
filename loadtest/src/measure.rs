//! Measures one server: first saturated, and then at 60 % of the saturated rate.

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

/// The fraction of the saturated rate at which latency is measured. At this rate, the server is busy but not
/// overloaded.
const PACE: f64 = 0.6;

/// The amount of load, and its duration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) connections: usize,
    /// The length of the saturated run. It should be a second or more, because CPU time is counted in ticks of 10 ms.
    pub(crate) saturated: Duration,
    pub(crate) paced: Duration,
    /// The minimum number of samples of the paced run. The run is extended to get them, but not beyond `paced_max`.
    pub(crate) samples_min: u64,
    pub(crate) paced_max: Duration,
    /// Whether every request is sent once before the measurement.
    pub(crate) warm_up: bool,
}

/// The results of a measurement.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) figures: Figures,
    /// The latencies of the paced run.
    pub(crate) latencies_ns: Histogram<u64>,
    /// The counts of all requests, including those of the warm-up.
    pub(crate) tally: Tally,
}

/// The results of one server in one round.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Figures {
    /// The throughput of the saturated run.
    pub(crate) requests_per_s: f64,
    /// The CPU usage of the saturated server. If it is well below 100, the load was the bottleneck.
    pub(crate) busy_percent: f64,
    pub(crate) cpu_us_per_request: f64,
    pub(crate) wire_bytes_per_response: f64,
    /// The percentage of the saturated run in which the load was runnable but did not have its core. 0 if the kernel
    /// does not report it.
    pub(crate) load_waited_percent: f64,
    /// The percentage of the saturated run in which the server's threads were runnable without a core, summed over the
    /// threads. Threads on one core also wait for each other.
    pub(crate) server_waited_percent: f64,
    /// The rate of the paced run: 60 % of the saturated rate, if the server kept up.
    pub(crate) paced_requests_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// The server's resident memory in bytes after both runs. 0 if the kernel does not report it.
    pub(crate) resident_bytes: f64,
}

/// The CPU times and waiting times of the server and of the load so far.
#[derive(Clone, Copy, Debug)]
struct Clocks {
    server_cpu: Duration,
    server_waited: Duration,
    load_waited: Duration,
}

/// Measures a server. The seed determines which keys are requested, and in which order.
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
    let succeeded = saturated.tally.succeeded as f64;
    if succeeded == 0.0 {
        let tally: Tally = [warm_up, saturated.tally].into_iter().collect();
        let why = tally.first_failure.as_deref().unwrap_or("no request was sent");
        bail!("{} sent no successful response: {why}", target.name);
    }

    let requests_per_s = succeeded / saturated.elapsed.as_secs_f64();
    let rate = requests_per_s * PACE;
    let paced = load.pace(Schedule::new(rate, effort.paced_for(rate)), seed).await?;
    let percent = |time: Duration| time.as_secs_f64() / saturated.elapsed.as_secs_f64() * 100.0;
    let latency_us = |quantile| paced.latencies_ns.value_at_quantile(quantile) as f64 / 1000.0;
    let figures = Figures {
        requests_per_s,
        busy_percent: percent(spent.server_cpu),
        cpu_us_per_request: spent.server_cpu.as_secs_f64() * 1e6 / succeeded,
        wire_bytes_per_response: saturated.tally.wire_bytes as f64 / succeeded,
        load_waited_percent: percent(spent.load_waited),
        server_waited_percent: percent(spent.server_waited),
        paced_requests_per_s: paced.tally.succeeded as f64 / paced.elapsed.as_secs_f64(),
        p50_us: latency_us(0.5),
        p99_us: latency_us(0.99),
        p999_us: latency_us(0.999),
        resident_bytes: process::resident_bytes(&target.pids).unwrap_or(0) as f64,
    };
    let mut tally: Tally = [warm_up, saturated.tally, paced.tally].into_iter().collect();
    tally.first_failure = tally.first_failure.map(|failure| format!("{}: {failure}", target.name));
    Ok(Measured { figures, latencies_ns: paced.latencies_ns, tally })
}

// === impl Effort ===

impl Effort {
    /// Returns the length of a paced run at this rate per second.
    pub(crate) fn paced_for(&self, rate: f64) -> Duration {
        let wanted = self.samples_min as f64 / rate.max(1.0);
        self.paced.max(Duration::from_secs_f64(wanted.min(self.paced_max.as_secs_f64())))
    }
}

// === impl Figures ===

impl Figures {
    /// Returns the median of each number. The medians may come from different rounds.
    pub(crate) fn median(rounds: &[Self]) -> Self {
        let median = |number: fn(&Self) -> f64| crate::stats::Spread::of(rounds.iter().map(number)).median;
        Self {
            requests_per_s: median(|figures| figures.requests_per_s),
            busy_percent: median(|figures| figures.busy_percent),
            cpu_us_per_request: median(|figures| figures.cpu_us_per_request),
            wire_bytes_per_response: median(|figures| figures.wire_bytes_per_response),
            load_waited_percent: median(|figures| figures.load_waited_percent),
            server_waited_percent: median(|figures| figures.server_waited_percent),
            paced_requests_per_s: median(|figures| figures.paced_requests_per_s),
            p50_us: median(|figures| figures.p50_us),
            p99_us: median(|figures| figures.p99_us),
            p999_us: median(|figures| figures.p999_us),
            resident_bytes: median(|figures| figures.resident_bytes),
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
            // The kernel removes the count of a thread that has ended, so the sum can decrease.
            server_waited: self.server_waited.saturating_sub(before.server_waited),
            load_waited: self.load_waited.saturating_sub(before.load_waited),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paced_run_length_follows_samples() {
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
