//! Measures one workload on one target, by default in less than a minute. The floor and the target alternate, and each
//! round compares them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use tempfile::TempDir;

use crate::{
    cores::{Cores, Pinned},
    endpoint::{SocketKind, free_address},
    floor,
    load::Tally,
    measure::{Effort, Figures, measure},
    random::Keys,
    report::{Report, Round, Setup, Summary},
    server::{Server, Startup},
    target::{Captured, Target},
    workload::Workload,
};

/// The number of seconds by which the paced run is longer than the saturated run. The tail of the latencies needs more
/// samples than a mean.
const PACED_EXTRA_SECONDS: u64 = 1;

/// What to measure, and for how long.
#[derive(Debug, Args)]
pub(crate) struct SmokeArgs {
    #[command(flatten)]
    subject: Subject,
    /// The length of each saturating run in seconds, at least 2, because CPU time is counted in ticks of 10 ms.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(2..=60))]
    seconds: u64,
    /// The number of rounds. Each round measures the floor and the target.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// The number of open connections.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// The number of customers to request, from CUST_000001 on. They must exist.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=999_999))]
    customers: u32,
}

/// The server to compare with the floor.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Subject {
    /// A server that runs on this machine, as http://127.0.0.1:PORT. It is pinned to one core during the measurement.
    #[arg(long, value_name = "URL")]
    target: Option<String>,
    /// A `larder` program. Its demo is started for the measurement.
    #[arg(long, value_name = "PATH")]
    larder: Option<PathBuf>,
}

/// The target, and its process if this program started it.
#[derive(Debug)]
struct Stage {
    target: Target,
    /// The target's server; `None` if it was already running.
    server: Option<Server>,
    _pinned: Option<Pinned>,
}

/// A run of the measurement.
#[derive(Debug)]
struct Smoke<'a> {
    args: &'a SmokeArgs,
    workload: Arc<Workload>,
    failed: Tally,
}

/// Runs the measurement.
pub(crate) async fn run(args: &SmokeArgs) -> anyhow::Result<Report> {
    let cores = Cores::find().context("cannot find the available cores")?;
    cores.pin_load().context("cannot pin the load to its core")?;
    eprintln!("{cores}");
    // The directory is declared before the servers, so that it is removed after they have stopped.
    let scratch = tempfile::Builder::new().prefix("larder-loadtest-").tempdir();
    let scratch = scratch.context("cannot create a temporary directory")?;
    let stage = Stage::set_up(args, &scratch, cores).await?;
    let workload = Arc::new(Workload::one_customer("churn_prediction_online", args.customers, Keys::Uniform));
    let captured = stage.target.capture(workload.sample()).await.and_then(Captured::with_values);
    let captured = captured.map_err(|error| stage.explain(error))?;
    let answers = [(workload.sample(), &captured.body[..])];
    let floor = floor::start(&answers, scratch.path(), SocketKind::Tcp, cores).await?;
    let setup = setup(args, &stage.target, &captured, cores);
    let mut smoke = Smoke { args, workload, failed: Tally::default() };
    let rounds = smoke.rounds(&Target::of_server("floor", &floor), &stage.target).await;
    let rounds = rounds.map_err(|error| stage.explain(error))?;
    if let Some(server) = stage.server.as_ref().filter(|_| smoke.failed.failures > 0) {
        eprintln!("{}", server.output_tail());
    }
    let Tally { failures, first_failure, .. } = smoke.failed;
    Ok(Report { setup, summary: Summary::of(&rounds), rounds, failures, first_failure })
}

// === impl Stage ===

impl Stage {
    async fn set_up(args: &SmokeArgs, scratch: &TempDir, cores: Cores) -> anyhow::Result<Self> {
        match (&args.subject.target, &args.subject.larder) {
            (Some(url), _) => {
                let target = Target::at(url)?;
                let pinned = cores.pin_processes(&target.pids)?;
                Ok(Self { target, server: None, _pinned: Some(pinned) })
            }
            (None, Some(program)) => {
                let server = start_larder(program, args.customers, scratch, cores).await?;
                Ok(Self { target: Target::of_server("larder", &server), server: Some(server), _pinned: None })
            }
            (None, None) => bail!("--target or --larder is required"),
        }
    }

    /// Appends the end of the server's output to an error, if this program started the server.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        match &self.server {
            Some(server) => anyhow!("{error:#}; {}", server.output_tail()),
            None => error,
        }
    }
}

// === impl Smoke ===

impl Smoke<'_> {
    async fn rounds(&mut self, floor: &Target, target: &Target) -> anyhow::Result<Vec<Round>> {
        let mut rounds = Vec::new();
        for number in 0..self.args.rounds {
            // The order alternates, so that a machine that gets slower or faster does not favor either server.
            let (floor_figures, target_figures) = if number % 2 == 0 {
                let floor_figures = self.measure(floor, number).await?;
                (floor_figures, self.measure(target, number).await?)
            } else {
                let target_figures = self.measure(target, number).await?;
                (self.measure(floor, number).await?, target_figures)
            };
            let round = Round::new(floor_figures, target_figures);
            eprintln!("round {} of {}: {:.1} % of bare hyper", number + 1, self.args.rounds, round.cpu_ratio * 100.0);
            rounds.push(round);
        }
        Ok(rounds)
    }

    /// Measures one server in one round. Both servers get the same keys, in the same order on each connection.
    async fn measure(&mut self, target: &Target, round: u64) -> anyhow::Result<Figures> {
        let paced = Duration::from_secs(self.args.paced_seconds());
        let effort = Effort {
            connections: self.args.connections.into(),
            saturated: Duration::from_secs(self.args.seconds),
            paced,
            samples_min: 0,
            paced_max: paced,
            warm_up: true,
        };
        let measured = measure(target, &self.workload, &effort, round).await?;
        self.failed = [std::mem::take(&mut self.failed), measured.tally].into_iter().collect();
        Ok(measured.figures)
    }
}

// === impl SmokeArgs ===

impl SmokeArgs {
    fn paced_seconds(&self) -> u64 {
        self.seconds + PACED_EXTRA_SECONDS
    }
}

async fn start_larder(program: &Path, customers: u32, scratch: &TempDir, cores: Cores) -> anyhow::Result<Server> {
    let dir = scratch.path().join("demo");
    fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let address = free_address().context("no free port")?;
    let mut command = Command::new(program);
    command.arg("demo").arg("--dir").arg(dir);
    command.arg("--listen").arg(address.to_string()).arg("--customers").arg(customers.to_string());
    let startup = Startup::new("larder", address.into(), scratch.path().join("larder.log"));
    Server::start(&mut command, startup, cores).await
}

fn setup(args: &SmokeArgs, target: &Target, captured: &Captured, cores: Cores) -> Setup {
    Setup {
        target: target.name,
        workload: format!("1 entity, uniform over {} customers", args.customers),
        connections: args.connections.into(),
        saturated_seconds: args.seconds,
        paced_seconds: args.paced_seconds(),
        sample_body_bytes: captured.body.len(),
        sample_features: captured.features.total,
        sample_features_with_value: captured.features.with_value,
        cores: cores.to_string(),
        debug_build: cfg!(debug_assertions),
    }
}
