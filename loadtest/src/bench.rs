//! The full benchmark: measures every workload on every server, in alternating rounds, and writes a report.

mod agree;
mod background;
mod feast;
mod plan;
mod plots;
mod redis;
mod results;
mod run;
mod spec;
mod stage;
mod table;
pub(crate) mod threads;
pub(crate) mod turns;

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context, bail};
use clap::Args;

use self::{
    plan::{LIMIT, Plan, TargetKind},
    results::{BenchSetup, Results},
    run::Run,
    spec::{CUSTOMERS, Spec},
};
use crate::{
    cores::Cores,
    endpoint::SocketKind,
    random::{Keys, ZIPF_EXPONENT},
};

/// The name that selects the sweep in `--workloads`.
const SWEEP: &str = "sweep";

/// What to measure, and for how long.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The `larder` program.
    #[arg(long, value_name = "PATH")]
    larder: PathBuf,
    /// The directory for the report.
    #[arg(long, value_name = "DIR", default_value = "loadtest/report")]
    out: PathBuf,
    /// The workloads to measure, comma-separated, including `sweep` [default: all].
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    workloads: Vec<String>,
    /// The servers to measure, comma-separated. The floor and Larder are always measured.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values = ["larder", "redis", "feast"])]
    targets: Vec<TargetKind>,
    /// The number of rounds. Each round measures every server. The order alternates.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// The length of each saturating run in seconds.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// The number of open connections.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// The `feast` program of a virtual environment.
    #[arg(long, value_name = "PATH")]
    feast: Option<PathBuf>,
    /// The `redis-server` program.
    #[arg(long, value_name = "PATH")]
    redis: Option<PathBuf>,
    /// The plugin built from plugins/examples/churn.
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// The plugin built from plugins/examples/churn-python.
    #[arg(long, value_name = "FILE")]
    python_plugin: Option<PathBuf>,
    /// How requests select customers.
    #[arg(long, value_name = "HOW", default_value = "uniform")]
    keys: Keys,
    /// The kind of socket for the load.
    #[arg(long, value_name = "KIND", default_value = "tcp")]
    socket: SocketKind,
    /// Run one short round of everything, only to check that it works.
    #[arg(long)]
    quick: bool,
}

/// Runs the benchmark, and writes the report.
pub(crate) async fn run(args: &RunArgs) -> anyhow::Result<()> {
    let start = Instant::now();
    let specs = args.specs()?;
    let points = args.points();
    let targets = args.targets();
    let plan = args.plan();
    let cores = Cores::find().context("cannot find the available cores")?;
    cores.pin_load().context("cannot pin the load to its core")?;
    let total = plan.total(&specs, &points, &targets);
    eprintln!("{cores}\nestimated time: {total}");
    if total.sum() > LIMIT {
        eprintln!("hint: for a shorter run, reduce --rounds, --seconds or --workloads");
    }
    // The directory is declared before the servers, so that it is removed after they have stopped.
    let scratch = tempfile::Builder::new().prefix("larder-loadtest-").tempdir();
    let scratch = scratch.context("cannot create a temporary directory")?;
    let mut run = Run::set_up(args, scratch.path(), cores, &specs, &targets).await?;
    for (index, spec) in specs.iter().enumerate() {
        eprintln!("{} ({} of {}): {}", spec.name, index + 1, specs.len(), spec.what);
        run.workload(spec).await;
    }
    for point in &points {
        eprintln!("sweep: {}", point.what);
        run.point(point).await;
    }
    let results = Results { setup: args.setup(&run, cores), took_seconds: start.elapsed().as_secs(), ..run.results() };
    drop(run);
    args.write(&results)?;
    println!("{}", table::headline(&results));
    println!("the report is in {}", args.out.display());
    if results.is_disturbed() {
        println!("THE MACHINE WAS BUSY: the results are not reliable; measure again on an idle machine");
    }
    if results.failures > 0 {
        let first = results.first_failure.unwrap_or_default();
        bail!("{} requests failed, so the results are not valid; the first failure: {first}", results.failures);
    }
    Ok(())
}

// === impl RunArgs ===

impl RunArgs {
    fn plan(&self) -> Plan {
        let (rounds, seconds) = if self.quick { (1, 1) } else { (self.rounds, self.seconds) };
        Plan { rounds, seconds, connections: self.connections.into(), quick: self.quick }
    }

    fn specs(&self) -> anyhow::Result<Vec<Spec>> {
        let all = spec::workloads();
        for name in &self.workloads {
            if name != SWEEP && all.iter().all(|spec| spec.name != *name) {
                let names: Vec<_> = all.iter().map(|spec| spec.name.as_str()).chain([SWEEP]).collect();
                bail!("unknown workload {name:?}; the workloads are {}", names.join(", "));
            }
        }
        Ok(all.into_iter().filter(|spec| self.selects(&spec.name)).collect())
    }

    fn points(&self) -> Vec<Spec> {
        let points = if self.selects(SWEEP) { spec::sweep() } else { Vec::new() };
        points.into_iter().map(|(entities, features)| spec::point(entities, features)).collect()
    }

    fn selects(&self, name: &str) -> bool {
        self.workloads.is_empty() || self.workloads.iter().any(|wanted| wanted == name)
    }

    /// Returns the targets in the order in which they are measured.
    fn targets(&self) -> Vec<TargetKind> {
        use TargetKind::{Feast, Floor, Larder, Redis};
        let wanted = |target: &TargetKind| matches!(target, Floor | Larder) || self.targets.contains(target);
        [Floor, Larder, Redis, Feast].into_iter().filter(wanted).collect()
    }

    fn setup(&self, run: &Run<'_>, cores: Cores) -> BenchSetup {
        let plan = self.plan();
        BenchSetup {
            machine: run::machine(),
            cores: cores.to_string(),
            versions: run.versions(),
            socket: self.socket.to_string(),
            keys: match self.keys {
                Keys::Uniform => "uniform".to_owned(),
                Keys::Zipf => format!("Zipf with s = {ZIPF_EXPONENT}"),
                Keys::OneHot => "always the same".to_owned(),
            },
            connections: plan.connections,
            rounds: plan.rounds,
            saturated_seconds: plan.seconds,
            customers: CUSTOMERS,
            quick: plan.quick,
            debug_build: cfg!(debug_assertions),
        }
    }

    fn write(&self, results: &Results) -> anyhow::Result<()> {
        fs::create_dir_all(&self.out).with_context(|| format!("cannot create {}", self.out.display()))?;
        let write = |name: &str, text: &str| {
            let path = self.out.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        let mut json = serde_json::to_string_pretty(results)?;
        json.push('\n');
        write("report.json", &json)?;
        let plots = plots::draw_all(results, &self.out)?;
        write("report.md", &table::markdown(results, &plots))
    }
}
