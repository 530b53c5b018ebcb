//! The length of each run, and an estimate of the total time of a benchmark.

use std::{fmt, time::Duration};

use serde::Serialize;

use super::spec::{BackgroundCommand, Spec};
use crate::measure::Effort;

/// The maximum estimated time of a benchmark with default options. It is short, so that the benchmark is run often.
pub(crate) const LIMIT: Duration = Duration::from_secs(9 * 60);

/// The maximum length of one paced run.
const PACED_MAX: Duration = Duration::from_secs(20);
/// The estimated overhead of a run: opening connections, warming up, and starting and stopping a floor.
const OVERHEAD: Duration = Duration::from_millis(500);
/// The number of connections to Feast's server, which has one worker.
pub(crate) const FEAST_CONNECTIONS: usize = 2;
/// The number of samples of the workload `churn-1` over all rounds. It gives a hundred samples beyond p99.99, with a
/// margin.
const CHURN_SAMPLES: u64 = 1_050_000;

/// The measured servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TargetKind {
    /// A bare hyper server, which sends copies of Larder's responses.
    Floor,
    /// `larder serve`.
    Larder,
    /// `redis-server`, read with pipelined HMGET commands.
    Redis,
    /// `feast serve` with an SQLite online store.
    Feast,
}

/// The number and the length of the runs of a benchmark.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: u64,
    /// The length of a saturated run in seconds.
    pub(crate) seconds: u64,
    pub(crate) connections: usize,
    /// Whether this is a quick check. In a quick check, runs are not extended to get more samples.
    pub(crate) quick: bool,
}

/// The estimated time of a benchmark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    /// The time to generate data and to start servers.
    pub(crate) stage: Duration,
    pub(crate) workloads: Duration,
    pub(crate) sweep: Duration,
}

// === impl TargetKind ===

impl TargetKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Larder => "larder",
            Self::Redis => "redis",
            Self::Feast => "feast",
        }
    }

    /// Returns whether a workload is measured on the target.
    pub(crate) fn supports(self, spec: &Spec) -> bool {
        match self {
            Self::Floor | Self::Larder => true,
            Self::Redis => spec.redis,
            Self::Feast => spec.feast,
        }
    }

    /// Returns a low estimate of the target's requests per second, for requests of one entity. It is only used to
    /// estimate the time of a benchmark.
    fn assumed_rate(self) -> f64 {
        match self {
            Self::Floor => 110_000.0,
            Self::Larder => 75_000.0,
            Self::Redis => 40_000.0,
            Self::Feast => 300.0,
        }
    }
}

// === impl Plan ===

impl Plan {
    /// Returns the number of rounds. Feast's server has only one round, because its results differ so much from those
    /// of the other servers that their spread does not matter.
    pub(crate) fn rounds_of(&self, target: TargetKind) -> u64 {
        if target == TargetKind::Feast { 1 } else { self.rounds }
    }

    pub(crate) fn workload(&self, spec: &Spec, target: TargetKind) -> Effort {
        let samples = if spec.name == "churn-1" && !self.quick { CHURN_SAMPLES } else { 0 };
        Effort { samples_min: samples.div_ceil(self.rounds), ..self.effort(target, self.seconds) }
    }

    pub(crate) fn point(&self, target: TargetKind) -> Effort {
        self.effort(target, 1)
    }

    fn effort(&self, target: TargetKind, seconds: u64) -> Effort {
        let feast = target == TargetKind::Feast;
        Effort {
            connections: if feast { FEAST_CONNECTIONS } else { self.connections },
            saturated: Duration::from_secs(seconds),
            paced: Duration::from_secs(if feast { seconds } else { seconds.div_ceil(2) }),
            samples_min: 0,
            paced_max: if feast { Duration::ZERO } else { PACED_MAX },
            warm_up: true,
        }
    }

    /// Estimates the time of a benchmark with these workloads, points of the sweep, and targets.
    pub(crate) fn total(&self, specs: &[Spec], points: &[Spec], targets: &[TargetKind]) -> Total {
        let has = |target| targets.contains(&target);
        let seconds = |wanted: bool, seconds| Duration::from_secs(if wanted { seconds } else { 0 });
        let python = specs.iter().any(|spec| spec.host == super::spec::HostKind::Python);
        let stage = seconds(true, 8)
            + seconds(python, 12)
            + seconds(has(TargetKind::Redis), 5)
            + seconds(has(TargetKind::Feast), 40);
        let all = |specs: &[Spec], effort: &dyn Fn(&Spec, TargetKind) -> (u64, Effort)| -> Duration {
            let pairs = specs.iter().flat_map(|spec| targets.iter().map(move |&target| (spec, target)));
            pairs
                .filter(|(spec, target)| target.supports(spec))
                .map(|(spec, target)| {
                    let (rounds, effort) = effort(spec, target);
                    let background = if matches!(spec.background, Some(BackgroundCommand::Sync)) {
                        OVERHEAD
                    } else {
                        Duration::ZERO
                    };
                    let paced = effort.paced_for(target.assumed_rate() * 0.6);
                    (OVERHEAD + background + effort.saturated + paced) * rounds as u32
                })
                .sum()
        };
        Total {
            stage,
            workloads: all(specs, &|spec, target| (self.rounds_of(target), self.workload(spec, target))),
            sweep: all(points, &|_, target| (1, self.point(target))),
        }
    }
}

// === impl Total ===

impl Total {
    pub(crate) fn sum(self) -> Duration {
        self.stage + self.workloads + self.sweep
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "about {} min {:02} s ({} s for setup, {} s for workloads, {} s for the sweep)",
            self.sum().as_secs() / 60,
            self.sum().as_secs() % 60,
            self.stage.as_secs(),
            self.workloads.as_secs(),
            self.sweep.as_secs()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::spec;

    const TARGETS: [TargetKind; 4] = [TargetKind::Floor, TargetKind::Larder, TargetKind::Redis, TargetKind::Feast];

    fn points() -> Vec<Spec> {
        spec::sweep().into_iter().map(|(entities, features)| spec::point(entities, features)).collect()
    }

    #[test]
    fn default_benchmark_is_within_limit() {
        let plan = Plan { rounds: 3, seconds: 2, connections: 32, quick: false };
        let total = plan.total(&spec::workloads(), &points(), &TARGETS);
        assert!(total.sum() < LIMIT, "{total}");
    }

    #[test]
    fn quick_run_is_much_shorter() {
        let plan = Plan { rounds: 1, seconds: 1, connections: 32, quick: true };
        let total = plan.total(&spec::workloads(), &points(), &TARGETS);
        assert!(total.sum() < LIMIT / 2, "{total}");
    }

    #[test]
    fn churn_gets_a_million_samples() {
        let plan = Plan { rounds: 3, seconds: 2, connections: 32, quick: false };
        let churn = &spec::workloads()[0];
        for target in [TargetKind::Floor, TargetKind::Larder, TargetKind::Redis] {
            let effort = plan.workload(churn, target);
            let rate = target.assumed_rate() * 0.6;
            let samples = effort.paced_for(rate).as_secs_f64() * rate * plan.rounds as f64;
            assert!(samples >= 1_000_000.0, "{target:?}: {samples}");
        }
    }

    #[test]
    fn excluded_target_takes_no_time() {
        let plan = Plan { rounds: 3, seconds: 2, connections: 32, quick: false };
        let cold: Vec<_> = spec::workloads().into_iter().filter(|spec| spec.name == "cold-1").collect();
        let alone = plan.total(&cold, &[], &[TargetKind::Larder]);
        let with_redis = plan.total(&cold, &[], &[TargetKind::Larder, TargetKind::Redis]);
        assert_eq!(alone.workloads, with_redis.workloads);
        assert_eq!(alone.workloads, Duration::from_millis(3 * 3500));
    }
}
