//! The results of a benchmark. They are written to `report.json`.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::plan::TargetKind;
use crate::{
    load::Tally,
    measure::{Figures, Measured},
    report::DISTURBED_PERCENT_MIN,
    stats::{self, Latency, Spread},
};

/// The results of a benchmark.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Results {
    pub(crate) setup: BenchSetup,
    pub(crate) workloads: Vec<WorkloadResult>,
    pub(crate) sweep: Vec<Point>,
    /// The measurements that were not possible, with the reasons.
    pub(crate) absent: Vec<Absent>,
    /// The number of requests without a response of status 200, including requests of warm-ups and of failed workloads.
    pub(crate) failures: u64,
    /// The first failure.
    pub(crate) first_failure: Option<String>,
    /// The time from the start to the report, in seconds.
    pub(crate) took_seconds: u64,
}

/// The conditions of the measurement.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct BenchSetup {
    /// The processor's model and the kernel.
    pub(crate) machine: String,
    pub(crate) cores: String,
    /// The servers' names and versions.
    pub(crate) versions: Vec<String>,
    pub(crate) socket: String,
    pub(crate) keys: String,
    pub(crate) connections: usize,
    pub(crate) rounds: u64,
    pub(crate) saturated_seconds: u64,
    pub(crate) customers: u32,
    /// Whether this was a quick check.
    pub(crate) quick: bool,
    /// Whether this program, and therefore the floor, was built without optimization.
    pub(crate) debug_build: bool,
}

/// The results of a workload on all targets.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct WorkloadResult {
    pub(crate) name: String,
    pub(crate) what: String,
    /// The size of the sample response body, which the floor sends.
    pub(crate) sample_body_bytes: usize,
    pub(crate) sample_values: usize,
    pub(crate) sample_values_present: usize,
    /// For each other server, the result of comparing its response to the sample request with Larder's.
    pub(crate) agreement: Vec<String>,
    /// The command that ran during the load on Larder, and how often it ran.
    pub(crate) background: Option<String>,
    pub(crate) targets: Vec<TargetResult>,
}

/// The results of a workload on one target.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TargetResult {
    pub(crate) target: TargetKind,
    pub(crate) rounds: Vec<Figures>,
    /// The median of each number over all rounds.
    pub(crate) median: Figures,
    /// The floor's CPU time per request divided by this target's, over all rounds. At 1, the target is as cheap as bare
    /// hyper.
    pub(crate) cpu_ratio: Option<Spread>,
    /// This target's p99 divided by the floor's, over all rounds.
    pub(crate) p99_ratio: Option<Spread>,
    /// The latencies of the paced runs of all rounds together.
    pub(crate) latency: Latency,
    /// Pairs of a quantile and its latency in microseconds. A quantile is given as a number of nines: 2 is p99.
    pub(crate) tail: Vec<(f64, f64)>,
}

/// The results of a point of the sweep.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Point {
    pub(crate) entities: usize,
    pub(crate) features: usize,
    pub(crate) result: WorkloadResult,
}

/// A measurement that was not possible, with the reason and, if there is one, a way to make it possible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Absent {
    pub(crate) what: String,
    pub(crate) why: String,
}

/// The results of one target's rounds so far.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) target: TargetKind,
    rounds: Vec<Figures>,
    latencies_ns: Option<Histogram<u64>>,
}

// === impl Results ===

impl Results {
    /// Adds the failures of a tally.
    pub(crate) fn add_failures(&mut self, tally: &Tally) {
        self.failures += tally.failures;
        if let (None, Some(failure)) = (&self.first_failure, &tally.first_failure) {
            self.first_failure = Some(failure.clone());
        }
    }

    /// Records that something could not be measured.
    pub(crate) fn add_absent(&mut self, what: &str, why: impl Into<String>) {
        self.absent.push(Absent { what: what.to_owned(), why: why.into() });
    }

    /// Returns the maximum percentage of a run for which the load or the floor waited for its core because of other
    /// processes. Ignores workloads with a background command, which itself uses the cores.
    pub(crate) fn disturbed_percent(&self) -> f64 {
        let all = self.workloads.iter().filter(|result| result.background.is_none());
        all.chain(self.sweep.iter().map(|point| &point.result))
            .flat_map(|result| &result.targets)
            .flat_map(|target| target.rounds.iter().map(|figures| figures.disturbed_percent(target.target)))
            .fold(0.0, f64::max)
    }

    pub(crate) fn is_disturbed(&self) -> bool {
        self.disturbed_percent() >= DISTURBED_PERCENT_MIN
    }

    pub(crate) fn workload(&self, name: &str) -> Option<&WorkloadResult> {
        self.workloads.iter().find(|workload| workload.name == name)
    }
}

// === impl WorkloadResult ===

impl WorkloadResult {
    pub(crate) fn target(&self, target: TargetKind) -> Option<&TargetResult> {
        self.targets.iter().find(|result| result.target == target)
    }

    /// Sets the results of the targets. A ratio compares a target with the floor in the same round, or with the floor's
    /// median if the target has a different number of rounds.
    pub(crate) fn set_targets(&mut self, gathered: Vec<Gathered>) {
        let floor = gathered.iter().find(|gathered| gathered.target == TargetKind::Floor);
        let floor = floor.map(|floor| floor.rounds.clone()).unwrap_or_default();
        self.targets = gathered.into_iter().filter_map(|gathered| gathered.close(&floor)).collect();
    }
}

// === impl Gathered ===

impl Gathered {
    pub(crate) fn of(target: TargetKind) -> Self {
        Self { target, rounds: Vec::new(), latencies_ns: None }
    }

    pub(crate) fn add(&mut self, measured: Measured) -> anyhow::Result<()> {
        self.rounds.push(measured.figures);
        match &mut self.latencies_ns {
            Some(sum) => sum.add(&measured.latencies_ns)?,
            none => *none = Some(measured.latencies_ns),
        }
        Ok(())
    }

    /// Computes the results. Returns `None` if there were no rounds.
    fn close(self, floor: &[Figures]) -> Option<TargetResult> {
        let latencies_ns = self.latencies_ns?;
        let ratio = |ratio: fn(&Figures, &Figures) -> f64| {
            if self.target == TargetKind::Floor || floor.is_empty() {
                None
            } else if floor.len() == self.rounds.len() {
                Some(Spread::of(floor.iter().zip(&self.rounds).map(|(floor, figures)| ratio(floor, figures))))
            } else {
                let floor = Figures::median(floor);
                Some(Spread::of(self.rounds.iter().map(|figures| ratio(&floor, figures))))
            }
        };
        Some(TargetResult {
            target: self.target,
            median: Figures::median(&self.rounds),
            cpu_ratio: ratio(|floor, figures| floor.cpu_us_per_request / figures.cpu_us_per_request),
            p99_ratio: ratio(|floor, figures| figures.p99_us / floor.p99_us),
            latency: Latency::of(&latencies_ns),
            tail: stats::tail(&latencies_ns),
            rounds: self.rounds,
        })
    }
}

// === impl Figures ===

impl Figures {
    /// Returns the percentage of the run for which the load waited for its core. If the target is the floor, returns
    /// the maximum of the load's and the floor's percentages. Both have a single thread, so they can only have waited
    /// for other processes.
    fn disturbed_percent(&self, target: TargetKind) -> f64 {
        let server = if target == TargetKind::Floor { self.server_waited_percent } else { 0.0 };
        server.max(self.load_waited_percent)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;

    pub(crate) fn measured(cpu_us_per_request: f64, p99_us: f64, samples: u64) -> Measured {
        let mut latencies_ns = crate::load::latency_histogram().unwrap();
        (1..=samples).for_each(|sample| latencies_ns.record(10_000 + sample % 90_000).unwrap());
        let figures = Figures {
            cpu_us_per_request,
            p99_us,
            requests_per_s: 1e6 / cpu_us_per_request,
            busy_percent: 99.0,
            resident_bytes: Duration::from_secs(1).as_micros() as f64 * 64.0,
            ..Figures::default()
        };
        Measured { figures, latencies_ns, tally: Tally::default() }
    }

    pub(crate) fn gathered(target: TargetKind, rounds: &[(f64, f64)], samples: u64) -> Gathered {
        let mut gathered = Gathered::of(target);
        rounds.iter().for_each(|&(cpu, p99)| gathered.add(measured(cpu, p99, samples)).unwrap());
        gathered
    }

    #[test]
    fn ratios_compare_the_same_round() {
        let mut result = WorkloadResult::default();
        result.set_targets(vec![
            gathered(TargetKind::Floor, &[(6.0, 30.0), (8.0, 40.0), (7.0, 35.0)], 10),
            gathered(TargetKind::Larder, &[(12.0, 60.0), (10.0, 40.0), (10.0, 35.0)], 10),
            gathered(TargetKind::Feast, &[(700.0, 3500.0)], 10),
            Gathered::of(TargetKind::Redis),
        ]);
        let ratio = |target| result.target(target).and_then(|result| result.cpu_ratio);
        assert_eq!(ratio(TargetKind::Floor), None);
        assert_eq!(ratio(TargetKind::Larder), Some(Spread { median: 0.7, min: 0.5, max: 0.8 }));
        assert_eq!(ratio(TargetKind::Feast), Some(Spread { median: 0.01, min: 0.01, max: 0.01 }));
        assert!(result.target(TargetKind::Redis).is_none());
        let larder = result.target(TargetKind::Larder).unwrap();
        assert_eq!(larder.p99_ratio, Some(Spread { median: 1.0, min: 1.0, max: 2.0 }));
        assert_eq!(larder.latency.samples, 30);
    }

    #[test]
    fn busy_machine_is_flagged() {
        let mut results = Results::default();
        let figures = Figures { load_waited_percent: 12.0, ..Figures::default() };
        let target = TargetResult { rounds: vec![figures], ..WorkloadResult::with_one() };
        let workload =
            WorkloadResult { targets: vec![target], background: Some("syncs".to_owned()), ..Default::default() };
        results.workloads.push(workload.clone());
        assert!(!results.is_disturbed());
        results.workloads.push(WorkloadResult { background: None, ..workload });
        assert!(results.is_disturbed());
    }

    impl WorkloadResult {
        fn with_one() -> TargetResult {
            let mut result = Self::default();
            result.set_targets(vec![gathered(TargetKind::Larder, &[(1.0, 1.0)], 1)]);
            result.targets.remove(0)
        }
    }
}
