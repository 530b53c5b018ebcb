//! Compares builds of Larder with each other and with the floor, in short alternating runs, to check whether a change
//! is an improvement.
//!
//! On a shared machine, the same build differs by a tenth from minute to minute. So all servers run at once on the
//! servers' core, idle until they get requests, and each gets load for a second in turn. A ratio is between two
//! neighboring runs; the report has the middle half of many rounds, which a few disturbed ones do not affect.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::{
    spec::{self, HostKind, Spec, Tongue},
    stage::{Host, Stage},
};
use crate::{
    cores::Cores,
    endpoint::SocketKind,
    floor,
    load::{Load, Tally},
    process::RunTimes,
    random::Keys,
    server::Server,
    stats::Quartiles,
    target::Target,
    workload::Workload,
};

const CONNECTIONS: usize = 32;
/// A workload, which another one extends by derived features.
const PLAIN: &str = "churn-1";
const DERIVED: &str = "churn-derived-1";

/// What to measure, and for how long.
#[derive(Debug, Args)]
pub(crate) struct TurnsArgs {
    /// The `larder` program; several are compared with the first.
    #[arg(long = "larder", value_name = "PATH", required = true)]
    larders: Vec<PathBuf>,
    /// Workloads of `run`, comma-separated [default: those with a target].
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    workloads: Vec<String>,
    /// The built plugin of plugins/examples/churn, for `churn-derived-1`.
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// The number of rounds.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(4..=1000))]
    rounds: u64,
    /// The length of each run in seconds.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// How requests choose customers.
    #[arg(long, value_name = "HOW", default_value = "uniform")]
    keys: Keys,
}

/// The results.
#[derive(Debug, Serialize)]
pub(crate) struct TurnsReport {
    cores: String,
    rounds: u64,
    seconds: u64,
    workloads: Vec<WorkloadTurns>,
    /// Requests without a response of status 200.
    pub(crate) failures: u64,
}

#[derive(Debug, Serialize)]
struct WorkloadTurns {
    name: String,
    what: String,
    floor: Turns,
    builds: Vec<BuildTurns>,
}

/// The runs of one server with one workload.
#[derive(Debug, Serialize)]
struct Turns {
    cpu_us_per_request: Quartiles,
    wire_bytes_per_answer: f64,
}

/// The runs of one build, compared with those of other servers in the same rounds.
#[derive(Debug, Serialize)]
struct BuildTurns {
    larder: String,
    turns: Turns,
    /// The floor's time divided by this build's.
    of_floor: Quartiles,
    /// This build's time divided by the first one's; `None` for the first.
    by_first: Option<Quartiles>,
    /// Microseconds that a derived view adds to the same request without it, if that was measured, too.
    added_us: Option<Quartiles>,
}

/// A workload with all servers that answer it.
struct Course {
    spec: Spec,
    /// The floor, then the builds in their order.
    runners: Vec<Runner>,
    /// Stopped on drop.
    _floor: Server,
}

/// One server, with open connections to it.
struct Runner {
    target: Target,
    load: Load,
    /// The CPU time of a request in microseconds, round by round.
    cpu_us: Vec<f64>,
    tally: Tally,
}

/// A build's files and processes.
struct Build {
    /// Dropped before the stage, whose files they have open.
    hosts: Vec<Host>,
    stage: Stage,
}

/// Runs the measurement.
pub(crate) async fn run(args: &TurnsArgs) -> anyhow::Result<TurnsReport> {
    let specs = args.specs()?;
    for file in args.larders.iter().chain(&args.plugin) {
        file.metadata().with_context(|| format!("there is no {}", file.display()))?;
    }
    let cores = Cores::find().context("cannot tell which cores there are")?;
    cores.pin_load().context("cannot move to the core of the load")?;
    let scratch = tempfile::Builder::new().prefix("larder-loadtest-").tempdir().context("cannot make a directory")?;
    eprintln!("{cores}\nmaking data, and starting {}", count(args.larders.len(), "build"));
    let mut builds = Vec::new();
    for (place, larder) in args.larders.iter().enumerate() {
        let dir = scratch.path().join(format!("build-{place}"));
        let stage = Stage::set(&dir, larder, (args.plugin.clone(), None), SocketKind::Tcp, cores).await;
        let stage = stage.with_context(|| format!("cannot measure {}", larder.display()))?;
        let mut build = Build { hosts: Vec::new(), stage };
        for kind in [HostKind::Main, HostKind::Cold] {
            if specs.iter().any(|spec| spec.host == kind) {
                build.hosts.push(build.stage.host(kind).await?);
            }
        }
        builds.push(build);
    }
    let mut courses = Vec::new();
    for spec in specs {
        courses.push(Course::set_up(spec, &builds, cores, args.keys).await?);
    }
    let turns = courses.iter().map(|course| course.runners.len() as u64).sum::<u64>();
    eprintln!("this takes about {} min", (turns * args.rounds * args.seconds).div_ceil(60));
    for round in 0..args.rounds {
        for course in &mut courses {
            course.round(round, Duration::from_secs(args.seconds)).await?;
        }
        eprintln!("  round {} of {}", round + 1, args.rounds);
    }
    let failures = courses.iter().flat_map(|course| &course.runners).map(|runner| runner.tally.failures).sum();
    let workloads = courses.iter().map(|course| course.report(&courses, &args.larders)).collect();
    Ok(TurnsReport { cores: cores.to_string(), rounds: args.rounds, seconds: args.seconds, workloads, failures })
}

// === impl TurnsArgs ===

impl TurnsArgs {
    /// Returns the selected workloads, by default those with a target.
    fn wanted(&self) -> Vec<String> {
        if !self.workloads.is_empty() {
            return self.workloads.clone();
        }
        let derived = self.plugin.as_ref().map(|_| DERIVED);
        let stored = [PLAIN, "svc50-100", "svc200-50", "cold-1"];
        stored.into_iter().chain(derived).map(str::to_owned).collect()
    }

    fn specs(&self) -> anyhow::Result<Vec<Spec>> {
        let specs = spec::named(&self.wanted(), |spec| spec.host != HostKind::Python && spec.beside.is_none())?;
        if let Some(spec) = specs.iter().find(|spec| spec.needs_plugin() && self.plugin.is_none()) {
            bail!("{} needs its plugin: larder plugin build plugins/examples/churn, then --plugin FILE", spec.name);
        }
        Ok(specs)
    }
}

// === impl Course ===

impl Course {
    async fn set_up(spec: Spec, builds: &[Build], cores: Cores, keys: Keys) -> anyhow::Result<Self> {
        let workload = Arc::new(spec.requests(Tongue::Http, &[], keys));
        let mut larders = Vec::new();
        for build in builds {
            let host = build.hosts.iter().find(|host| host.kind == spec.host).context("its larder does not run")?;
            let target = Target::of_server("larder", &host.server);
            let captured = target.capture(workload.sample()).await?;
            spec.check(&captured).with_context(|| host.server.last_words())?;
            larders.push(target);
        }
        let (Some(first), Some(build)) = (larders.first(), builds.first()) else { bail!("there is no build") };
        let mut answers = Vec::new();
        for part in workload.parts() {
            answers.push((part.sample(), first.body_of(part.sample()).await?));
        }
        let answers: Vec<_> = answers.iter().map(|(request, body)| (*request, body.as_slice())).collect();
        let floor = floor::start(&answers, build.stage.dir(), SocketKind::Tcp, cores).await?;
        let mut runners = vec![Runner::set_up(Target::of_server("floor", &floor), &workload).await?];
        for target in larders {
            runners.push(Runner::set_up(target, &workload).await?);
        }
        Ok(Self { spec, runners, _floor: floor })
    }

    /// Runs each server once. A different server is first in each round, so that a machine that gets slower or faster
    /// favors none of them.
    async fn round(&mut self, round: u64, length: Duration) -> anyhow::Result<()> {
        let count = self.runners.len();
        for turn in 0..count {
            let runner = &mut self.runners[(round as usize + turn) % count];
            runner
                .turn(length, round)
                .await
                .with_context(|| format!("{} at {}", runner.target.name, self.spec.name))?;
        }
        Ok(())
    }

    fn report(&self, all: &[Self], larders: &[PathBuf]) -> WorkloadTurns {
        let (floor, builds) = (&self.runners[0], &self.runners[1..]);
        let plain = all.iter().find(|course| self.spec.name == DERIVED && course.spec.name == PLAIN);
        let build = |(place, larder): (usize, &PathBuf)| {
            let runner = &builds[place];
            let plain = plain.map(|plain| &plain.runners[1 + place]);
            BuildTurns {
                larder: larder.display().to_string(),
                turns: runner.turns(),
                of_floor: runner.beside(floor, |own, floor| floor / own),
                by_first: (place > 0).then(|| runner.beside(&builds[0], |own, first| own / first)),
                added_us: plain.map(|plain| runner.beside(plain, |own, plain| own - plain)),
            }
        };
        WorkloadTurns {
            name: self.spec.name.clone(),
            what: self.spec.what.clone(),
            floor: floor.turns(),
            builds: larders.iter().enumerate().map(build).collect(),
        }
    }
}

// === impl Runner ===

impl Runner {
    async fn set_up(target: Target, workload: &Arc<Workload>) -> anyhow::Result<Self> {
        let mut load = Load::open(&target.endpoint, CONNECTIONS, Arc::clone(workload)).await?;
        let mut tally = load.warm_up().await?;
        // Only the later runs count.
        (tally.answered, tally.wire_bytes) = (0, 0);
        Ok(Self { target, load, cpu_us: Vec::new(), tally })
    }

    async fn turn(&mut self, length: Duration, seed: u64) -> anyhow::Result<()> {
        let before = RunTimes::read(&self.target.pids)?;
        let found = self.load.saturate(length, seed).await?;
        let spent = RunTimes::read(&self.target.pids)?.since(&before);
        if found.tally.answered == 0 {
            bail!("nothing was answered: {}", found.tally.first_failure.as_deref().unwrap_or("nothing was sent"));
        }
        self.cpu_us.push(spent.as_secs_f64() * 1e6 / found.tally.answered as f64);
        self.tally = [std::mem::take(&mut self.tally), found.tally].into_iter().collect();
        Ok(())
    }

    fn turns(&self) -> Turns {
        Turns {
            cpu_us_per_request: Quartiles::of(self.cpu_us.iter().copied()),
            wire_bytes_per_answer: self.tally.wire_bytes as f64 / self.tally.answered as f64,
        }
    }

    /// Compares its times with another's of the same rounds.
    fn beside(&self, other: &Self, of: impl Fn(f64, f64) -> f64) -> Quartiles {
        Quartiles::of(self.cpu_us.iter().zip(&other.cpu_us).map(|(own, other)| of(*own, *other)))
    }
}

// === impl TurnsReport ===

impl fmt::Display for TurnsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}; {} of {} s; the median and the middle half of them",
            self.cores,
            count(self.rounds as usize, "round"),
            self.seconds
        )?;
        self.workloads.iter().try_for_each(|workload| workload.fmt(f))
    }
}

impl fmt::Display for WorkloadTurns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}: {}", self.name, self.what)?;
        writeln!(f, "  {}  bare hyper", self.floor)?;
        for build in &self.builds {
            write!(f, "  {}  {}: {} of bare hyper", build.turns, build.larder, percent(&build.of_floor))?;
            if let Some(ratio) = &build.by_first {
                write!(f, ", {} times the first's", ratio.told(|ratio| format!("{ratio:.3}")))?;
            }
            if let Some(added) = &build.added_us {
                write!(f, ", {} us more than without the plugin", added.told(|us| format!("{us:.2}")))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = self.cpu_us_per_request.told(|us| format!("{us:.2}"));
        write!(f, "{cpu:<24} us of a core, {:.0} bytes", self.wire_bytes_per_answer)
    }
}

fn percent(ratio: &Quartiles) -> String {
    let told = ratio.told(|ratio| format!("{:.1}", ratio * 100.0));
    format!("{told} %")
}

fn count(number: usize, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        turns: TurnsArgs,
    }

    fn args(words: &[&str]) -> TurnsArgs {
        Line::parse_from(["turns", "--larder", "one"].iter().chain(words)).turns
    }

    #[test]
    fn workloads_are_checked_first() {
        let names = |words: &[&str]| {
            let specs = args(words).specs();
            specs.map(|specs| specs.into_iter().map(|spec| spec.name).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(names(&[]).unwrap(), "churn-1 svc50-100 svc200-50 cold-1");
        assert_eq!(names(&["--plugin", "p"]).unwrap(), "churn-1 churn-derived-1 svc50-100 svc200-50 cold-1");
        assert_eq!(
            names(&["--workloads", "churn-derived-1,churn-1", "--plugin", "p"]).unwrap(),
            "churn-1 churn-derived-1"
        );
        let without_plugin = names(&["--workloads", "churn-derived-1"]).unwrap_err().to_string();
        assert!(without_plugin.contains("--plugin FILE"), "{without_plugin}");
        for name in ["during-sync", "churn-derived-py-1", "nonsense"] {
            let error = names(&["--workloads", name]).unwrap_err().to_string();
            assert!(error.contains(name) && error.ends_with("svc200-50, cold-1, miss, mixed"), "{error}");
        }
    }

    #[test]
    fn report_compares_builds_and_floor() {
        let turns =
            |us: f64| Turns { cpu_us_per_request: Quartiles::of([us].into_iter()), wire_bytes_per_answer: 999.6 };
        let of = |number: f64| Quartiles::of([number - 0.25, number, number + 0.25].into_iter());
        let build = |larder: &str, us, by_first: Option<f64>, added: Option<f64>| BuildTurns {
            larder: larder.to_owned(),
            turns: turns(us),
            of_floor: Quartiles::of([0.9, 0.92, 0.94].into_iter()),
            by_first: by_first.map(of),
            added_us: added.map(of),
        };
        let workload = WorkloadTurns {
            name: "w".to_owned(),
            what: "words".to_owned(),
            floor: turns(6.0),
            builds: vec![build("one", 6.5, None, None), build("two", 7.0, Some(1.0), Some(2.5))],
        };
        let told = workload.to_string();
        let lines: Vec<_> = told.trim().lines().collect();
        let [heading, floor, one, two] = lines[..] else { panic!("{told}") };
        assert_eq!(heading, "w: words");
        assert!(floor.contains("6.00") && floor.contains("1000 bytes") && floor.ends_with("bare hyper"), "{floor}");
        assert!(one.ends_with("one: 92.0 (91.0 to 93.0) % of bare hyper"), "{one}");
        assert!(two.contains("two: ") && two.contains("1.000 (0.875 to 1.125) times the first's"), "{two}");
        assert!(two.ends_with("2.50 (2.38 to 2.62) us more than without the plugin"), "{two}");
    }
}
