//! Compares builds of Larder with each other and with the floor, in short alternating runs, to check whether a change
//! is an improvement.
//!
//! On a shared machine, results of the same build differ by a tenth from minute to minute. Therefore, all servers are
//! started on the servers' core and stay idle until they get requests. In each round, every server gets load for a
//! second by default, one server after the other. A ratio compares two runs of the same round. The report has the
//! median and the quartiles of many rounds, which a few disturbed rounds do not affect.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::{
    spec::{self, HostKind, RequestFormat, Spec},
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
/// A workload without derived features.
const PLAIN: &str = "churn-1";
/// The same workload with derived features.
const DERIVED: &str = "churn-derived-1";

/// What to measure, and for how long.
#[derive(Debug, Args)]
pub(crate) struct TurnsArgs {
    /// The `larder` program. If this is repeated, each further program is compared with the first one.
    #[arg(long = "larder", value_name = "PATH", required = true)]
    larders: Vec<PathBuf>,
    /// The workloads of `run` to measure, comma-separated [default: the workloads with a performance target].
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    workloads: Vec<String>,
    /// The plugin built from plugins/examples/churn, for `churn-derived-1`.
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// The number of rounds.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(4..=1000))]
    rounds: u64,
    /// The length of each run in seconds.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Also run the first program with a feature log of this share of the entities, such as 0.01, and compare the two. May be
    /// repeated.
    #[arg(long = "log", value_name = "RATE")]
    log_rates: Vec<f64>,
    /// Also run the first program with a shadow run of the plugin for this share of the requests, such as 0.01, and compare the
    /// two. The time of the thread that computes the samples is not counted. May be repeated.
    #[arg(long = "shadow", value_name = "RATE", requires = "plugin")]
    shadow_rates: Vec<f64>,
    /// How requests select customers.
    #[arg(long, value_name = "HOW", default_value = "uniform")]
    keys: Keys,
}

/// The results.
#[derive(Debug, Serialize)]
pub(crate) struct TurnsReport {
    cores: String,
    rounds: u64,
    seconds: u64,
    workloads: Vec<WorkloadReport>,
    /// The number of requests without a response of status 200.
    pub(crate) failures: u64,
}

#[derive(Debug, Serialize)]
struct WorkloadReport {
    name: String,
    what: String,
    floor: RunSummary,
    builds: Vec<BuildReport>,
}

/// The summary of all runs of one server with one workload.
#[derive(Debug, Serialize)]
struct RunSummary {
    cpu_us_per_request: Quartiles,
    wire_bytes_per_response: f64,
}

/// The summary of all runs of one build, with comparisons to other servers in the same rounds.
#[derive(Debug, Serialize)]
struct BuildReport {
    larder: String,
    summary: RunSummary,
    /// The floor's CPU time per request divided by this build's.
    of_floor: Quartiles,
    /// This build's CPU time per request divided by the first build's. `None` for the first build.
    by_first: Option<Quartiles>,
    /// The CPU time in microseconds that the derived view adds to a request. `None` for workloads other than
    /// `churn-derived-1`, and if `churn-1` was not measured.
    added_us: Option<Quartiles>,
}

/// A workload, and all servers on which it is measured.
struct WorkloadRun {
    spec: Spec,
    /// The floor, then the builds in the order of the arguments.
    runners: Vec<Runner>,
    /// The floor's process, which is stopped on drop.
    _floor: Server,
}

/// A program, and how its servers are configured.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Variant<'a> {
    larder: &'a Path,
    addition: Option<Addition>,
}

/// What a server does in addition to answering requests, and for which share of the entities or requests.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Addition {
    Log(f64),
    Shadow(f64),
}

/// One server, with open connections to it and its results so far.
struct Runner {
    target: Target,
    load: Load,
    /// The CPU time per request in microseconds, for each round.
    cpu_us: Vec<f64>,
    tally: Tally,
}

/// A build's files and servers.
struct Build {
    /// The running servers of the build, one for each set of views and plugins.
    hosts: Vec<Host>,
    stage: Stage,
}

/// Runs the measurement.
pub(crate) async fn run(args: &TurnsArgs) -> anyhow::Result<TurnsReport> {
    let specs = args.specs()?;
    for file in args.larders.iter().chain(&args.plugin) {
        file.metadata().with_context(|| format!("cannot find {}", file.display()))?;
    }
    let cores = Cores::find().context("cannot find the available cores")?;
    cores.pin_load().context("cannot pin the load to its core")?;
    let scratch = tempfile::Builder::new().prefix("larder-loadtest-").tempdir();
    let scratch = scratch.context("cannot create a temporary directory")?;
    let variants = args.variants();
    eprintln!("{cores}\ngenerating data and starting {}", count(variants.len(), "build"));
    let mut builds = Vec::new();
    for (index, variant) in variants.iter().enumerate() {
        let dir = scratch.path().join(format!("build-{index}"));
        let stage = Stage::set_up(&dir, variant.larder, (args.plugin.clone(), None), SocketKind::Tcp, cores).await;
        let log_rate = if let Some(Addition::Log(rate)) = variant.addition { Some(rate) } else { None };
        let stage = stage.with_context(|| format!("cannot measure {variant}"))?.with_log(log_rate);
        let mut build = Build { hosts: Vec::new(), stage };
        for kind in [HostKind::Main, HostKind::Cold] {
            if specs.iter().any(|spec| spec.host == kind) {
                build.hosts.push(build.stage.host(kind).await?);
            }
        }
        if let Some(Addition::Shadow(rate)) = variant.addition {
            build.hosts.iter().try_for_each(|host| build.stage.begin_shadow(host, rate))?;
        }
        builds.push(build);
    }
    let mut workload_runs = Vec::new();
    for spec in specs {
        workload_runs.push(WorkloadRun::set_up(spec, &builds, cores, args.keys).await?);
    }
    let runs = workload_runs.iter().map(|workload_run| workload_run.runners.len() as u64).sum::<u64>();
    eprintln!("estimated time: {} min", (runs * args.rounds * args.seconds).div_ceil(60));
    for round in 0..args.rounds {
        for workload_run in &mut workload_runs {
            workload_run.round(round, Duration::from_secs(args.seconds)).await?;
        }
        eprintln!("  round {} of {}", round + 1, args.rounds);
    }
    let failures =
        workload_runs.iter().flat_map(|workload_run| &workload_run.runners).map(|runner| runner.tally.failures).sum();
    let workloads = workload_runs.iter().map(|workload_run| workload_run.report(&workload_runs, &variants)).collect();
    Ok(TurnsReport { cores: cores.to_string(), rounds: args.rounds, seconds: args.seconds, workloads, failures })
}

// === impl TurnsArgs ===

impl TurnsArgs {
    /// Returns the names of the selected workloads; by default, those with a performance target.
    fn wanted(&self) -> Vec<String> {
        if !self.workloads.is_empty() {
            return self.workloads.clone();
        }
        let derived = self.plugin.as_ref().map(|_| DERIVED);
        let stored = [PLAIN, "svc50-100", "svc200-50", "cold-1"];
        stored.into_iter().chain(derived).map(str::to_owned).collect()
    }

    /// Returns what is measured; the first variant is compared with the others.
    fn variants(&self) -> Vec<Variant<'_>> {
        let plain = self.larders.iter().map(|larder| Variant { larder, addition: None });
        let logs = self.log_rates.iter().map(|rate| Addition::Log(*rate));
        let additions = logs.chain(self.shadow_rates.iter().map(|rate| Addition::Shadow(*rate)));
        let first = self.larders.first();
        let added = additions.filter_map(|addition| Some(Variant { larder: first?, addition: Some(addition) }));
        plain.chain(added).collect()
    }

    fn specs(&self) -> anyhow::Result<Vec<Spec>> {
        let specs = spec::named(&self.wanted(), |spec| spec.host != HostKind::Python && spec.background.is_none())?;
        if let Some(spec) = specs.iter().find(|spec| spec.needs_plugin() && self.plugin.is_none()) {
            let name = &spec.name;
            bail!(
                "{name} needs its plugin. hint: run larder plugin build plugins/examples/churn, then set --plugin FILE"
            );
        }
        Ok(specs)
    }
}

impl fmt::Display for Variant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.larder.display().fmt(f)?;
        match self.addition {
            None => Ok(()),
            Some(Addition::Log(rate)) => write!(f, " with a log of {} %", rate * 100.0),
            Some(Addition::Shadow(rate)) => write!(f, " with a shadow run of {} %", rate * 100.0),
        }
    }
}

// === impl WorkloadRun ===

impl WorkloadRun {
    async fn set_up(spec: Spec, builds: &[Build], cores: Cores, keys: Keys) -> anyhow::Result<Self> {
        let workload = Arc::new(spec.requests(RequestFormat::Http, &[], keys));
        let mut larders = Vec::new();
        for build in builds {
            let host =
                build.hosts.iter().find(|host| host.kind == spec.host).context("its Larder server is not running")?;
            let target = Target::of_server("larder", &host.server);
            let captured = target.capture(workload.sample()).await?;
            spec.check(&captured).with_context(|| host.server.output_tail())?;
            larders.push(target);
        }
        let (Some(first), Some(build)) = (larders.first(), builds.first()) else { bail!("no build was specified") };
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

    /// Measures each server once. In each round, a different server is first, so that a machine that gets slower or
    /// faster does not favor any server.
    async fn round(&mut self, round: u64, length: Duration) -> anyhow::Result<()> {
        let count = self.runners.len();
        for offset in 0..count {
            let runner = &mut self.runners[(round as usize + offset) % count];
            runner
                .measure(length, round)
                .await
                .with_context(|| format!("{} at {}", runner.target.name, self.spec.name))?;
        }
        Ok(())
    }

    fn report(&self, all: &[Self], variants: &[Variant<'_>]) -> WorkloadReport {
        let (floor, builds) = (&self.runners[0], &self.runners[1..]);
        let plain = all.iter().find(|workload_run| self.spec.name == DERIVED && workload_run.spec.name == PLAIN);
        let build = |(index, variant): (usize, &Variant<'_>)| {
            let runner = &builds[index];
            let plain = plain.map(|plain| &plain.runners[1 + index]);
            BuildReport {
                larder: variant.to_string(),
                summary: runner.summary(),
                of_floor: runner.compare(floor, |own, floor| floor / own),
                by_first: (index > 0).then(|| runner.compare(&builds[0], |own, first| own / first)),
                added_us: plain.map(|plain| runner.compare(plain, |own, plain| own - plain)),
            }
        };
        WorkloadReport {
            name: self.spec.name.clone(),
            what: self.spec.what.clone(),
            floor: floor.summary(),
            builds: variants.iter().enumerate().map(build).collect(),
        }
    }
}

// === impl Runner ===

impl Runner {
    async fn set_up(target: Target, workload: &Arc<Workload>) -> anyhow::Result<Self> {
        let mut load = Load::open(&target.endpoint, CONNECTIONS, Arc::clone(workload)).await?;
        let mut tally = load.warm_up().await?;
        // The counts of successful requests are reset after the warm-up, but failures are kept.
        (tally.succeeded, tally.wire_bytes) = (0, 0);
        Ok(Self { target, load, cpu_us: Vec::new(), tally })
    }

    async fn measure(&mut self, length: Duration, seed: u64) -> anyhow::Result<()> {
        let before = RunTimes::read(&self.target.pids)?;
        let found = self.load.saturate(length, seed).await?;
        let spent = RunTimes::read(&self.target.pids)?.since(&before);
        if found.tally.succeeded == 0 {
            let why = found.tally.first_failure.as_deref().unwrap_or("no request was sent");
            bail!("the server sent no successful response: {why}");
        }
        self.cpu_us.push(spent.as_secs_f64() * 1e6 / found.tally.succeeded as f64);
        self.tally = [std::mem::take(&mut self.tally), found.tally].into_iter().collect();
        Ok(())
    }

    fn summary(&self) -> RunSummary {
        RunSummary {
            cpu_us_per_request: Quartiles::of(self.cpu_us.iter().copied()),
            wire_bytes_per_response: self.tally.wire_bytes as f64 / self.tally.succeeded as f64,
        }
    }

    /// Compares the CPU times per request with those of another server in the same rounds.
    fn compare(&self, other: &Self, of: impl Fn(f64, f64) -> f64) -> Quartiles {
        Quartiles::of(self.cpu_us.iter().zip(&other.cpu_us).map(|(own, other)| of(*own, *other)))
    }
}

// === impl TurnsReport ===

impl fmt::Display for TurnsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}; {} of {} s; the medians and quartiles of the rounds",
            self.cores,
            count(self.rounds as usize, "round"),
            self.seconds
        )?;
        self.workloads.iter().try_for_each(|workload| workload.fmt(f))
    }
}

impl fmt::Display for WorkloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}: {}", self.name, self.what)?;
        writeln!(f, "  {}  bare hyper", self.floor)?;
        for build in &self.builds {
            write!(f, "  {}  {}: {} of bare hyper", build.summary, build.larder, percent(&build.of_floor))?;
            if let Some(ratio) = &build.by_first {
                write!(f, ", {} times the CPU time of the first build", ratio.text(|ratio| format!("{ratio:.3}")))?;
            }
            if let Some(added) = &build.added_us {
                write!(f, ", {} us more than without the plugin", added.text(|us| format!("{us:.2}")))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for RunSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = self.cpu_us_per_request.text(|us| format!("{us:.2}"));
        write!(f, "{cpu:<24} us of CPU time, {:.0} bytes", self.wire_bytes_per_response)
    }
}

fn percent(ratio: &Quartiles) -> String {
    let text = ratio.text(|ratio| format!("{:.1}", ratio * 100.0));
    format!("{text} %")
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

    fn args(options: &[&str]) -> TurnsArgs {
        Line::parse_from(["turns", "--larder", "one"].iter().chain(options)).turns
    }

    #[test]
    fn unusable_workloads_are_rejected() {
        let names = |options: &[&str]| {
            let specs = args(options).specs();
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
    fn logged_variants_use_the_first_program() {
        let args = args(&["--larder", "two", "--log", "0.01", "--log", "1"]);
        let variants: Vec<_> = args.variants().iter().map(ToString::to_string).collect();
        assert_eq!(variants, ["one", "two", "one with a log of 1 %", "one with a log of 100 %"]);
    }

    #[test]
    fn report_compares_builds_and_floor() {
        let summary = |us: f64| RunSummary {
            cpu_us_per_request: Quartiles::of([us].into_iter()),
            wire_bytes_per_response: 999.6,
        };
        let of = |number: f64| Quartiles::of([number - 0.25, number, number + 0.25].into_iter());
        let build = |larder: &str, us, by_first: Option<f64>, added: Option<f64>| BuildReport {
            larder: larder.to_owned(),
            summary: summary(us),
            of_floor: Quartiles::of([0.9, 0.92, 0.94].into_iter()),
            by_first: by_first.map(of),
            added_us: added.map(of),
        };
        let workload = WorkloadReport {
            name: "w".to_owned(),
            what: "words".to_owned(),
            floor: summary(6.0),
            builds: vec![build("one", 6.5, None, None), build("two", 7.0, Some(1.0), Some(2.5))],
        };
        let text = workload.to_string();
        let lines: Vec<_> = text.trim().lines().collect();
        let [heading, floor, one, two] = lines[..] else { panic!("{text}") };
        assert_eq!(heading, "w: words");
        assert!(floor.contains("6.00") && floor.contains("1000 bytes") && floor.ends_with("bare hyper"), "{floor}");
        assert!(one.ends_with("one: 92.0 (91.0 to 93.0) % of bare hyper"), "{one}");
        assert!(
            two.contains("two: ") && two.contains("1.000 (0.875 to 1.125) times the CPU time of the first build"),
            "{two}"
        );
        assert!(two.ends_with("2.50 (2.38 to 2.62) us more than without the plugin"), "{two}");
    }
}
