//! One workload, one target, in under a minute: the floor and the target take turns, and each round gives a ratio.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use tempfile::TempDir;

use crate::{
    cores::{Cores, Pinned},
    load::{Load, Schedule, Tally},
    report::{Report, Round, Setup, Side, Summary},
    server::{self, Server},
    target::{Captured, Target},
    workload::Workload,
};

/// Latency is read at this part of the rate that saturates a server: busy, as a server should be, but not full.
const PACE: f64 = 0.6;

/// Tails take longer to show than means.
const PACED_EXTRA_SECONDS: u64 = 1;

/// What to measure, and how long.
#[derive(Debug, Args)]
pub(crate) struct SmokeArgs {
    #[command(flatten)]
    subject: Subject,
    /// Seconds of each saturating run; time on the core is counted in ticks of 10 ms, so 2 at the least.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(2..=60))]
    seconds: u64,
    /// How often the floor and the target take turns.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Connections that are kept open.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Customers to ask for, CUST_000001 and up; they have to be there.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=999_999))]
    customers: u32,
}

/// What stands beside the floor.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Subject {
    /// A server that runs on this machine, as http://127.0.0.1:PORT; it is kept on one core meanwhile.
    #[arg(long, value_name = "URL")]
    target: Option<String>,
    /// A `larder` program: its demo is started and stopped.
    #[arg(long, value_name = "PATH")]
    larder: Option<PathBuf>,
}

/// What the processes had got from the machine at some moment.
#[derive(Clone, Copy, Debug)]
struct Clocks {
    server_cpu: Duration,
    server_waited: Duration,
    load_waited: Duration,
}

/// The target, and what keeps it there.
#[derive(Debug)]
struct Stage {
    target: Target,
    /// None when it was there before us.
    server: Option<Server>,
    _pinned: Option<Pinned>,
}

/// A run that has everything it needs.
#[derive(Debug)]
struct Smoke<'a> {
    args: &'a SmokeArgs,
    workload: Arc<Workload>,
    failed: Tally,
}

/// Measures.
pub(crate) async fn run(args: &SmokeArgs) -> anyhow::Result<Report> {
    let cores = Cores::find().context("cannot tell which cores there are")?;
    cores.pin_load().context("cannot move to the core of the load")?;
    eprintln!("{cores}");
    // Declared before the servers, so it goes after them.
    let scratch = tempfile::Builder::new().prefix("larder-loadtest-").tempdir().context("cannot make a directory")?;
    let stage = Stage::set(args, &scratch, cores).await?;
    let workload = Arc::new(Workload::one_customer(args.customers));
    let captured = stage.target.capture(&workload).await.map_err(|error| stage.explain(error))?;
    let floor = start_floor(&captured, &scratch, cores).await?;
    let setup = setup(args, &stage.target, &workload, &captured, cores);
    let mut smoke = Smoke { args, workload, failed: Tally::default() };
    let rounds = smoke.rounds(&Target::of_server("floor", &floor), &stage.target).await;
    let rounds = rounds.map_err(|error| stage.explain(error))?;
    if let Some(server) = stage.server.as_ref().filter(|_| smoke.failed.failures > 0) {
        eprintln!("{}", server.last_words());
    }
    let Tally { failures, first_failure, .. } = smoke.failed;
    Ok(Report { setup, summary: Summary::of(&rounds), rounds, failures, first_failure })
}

// === impl Stage ===

impl Stage {
    async fn set(args: &SmokeArgs, scratch: &TempDir, cores: Cores) -> anyhow::Result<Self> {
        match (&args.subject.target, &args.subject.larder) {
            (Some(url), _) => {
                let target = Target::at(url)?;
                let pinned = cores.pin_server(target.pid)?;
                Ok(Self { target, server: None, _pinned: Some(pinned) })
            }
            (None, Some(program)) => {
                let server = start_larder(program, args.customers, scratch, cores).await?;
                Ok(Self { target: Target::of_server("larder", &server), server: Some(server), _pinned: None })
            }
            (None, None) => bail!("give --target or --larder"),
        }
    }

    /// Adds what our server said to what went wrong with it.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        match &self.server {
            Some(server) => anyhow!("{error:#}; {}", server.last_words()),
            None => error,
        }
    }
}

// === impl Smoke ===

impl Smoke<'_> {
    async fn rounds(&mut self, floor: &Target, target: &Target) -> anyhow::Result<Vec<Round>> {
        let mut rounds = Vec::new();
        for number in 0..self.args.rounds {
            // Taking turns at being first, so that a machine that gets slower or faster favours neither.
            let (floor_side, target_side) = if number % 2 == 0 {
                let floor_side = self.measure(floor, number).await?;
                (floor_side, self.measure(target, number).await?)
            } else {
                let target_side = self.measure(target, number).await?;
                (self.measure(floor, number).await?, target_side)
            };
            let round = Round::new(floor_side, target_side);
            eprintln!("round {} of {}: {:.1} % of bare hyper", number + 1, self.args.rounds, round.cpu_ratio * 100.0);
            rounds.push(round);
        }
        Ok(rounds)
    }

    /// One server in one round. Both servers get the same keys in the same order.
    async fn measure(&mut self, target: &Target, round: u64) -> anyhow::Result<Side> {
        let connections = usize::from(self.args.connections);
        let mut load = Load::open(target.address, connections, Arc::clone(&self.workload)).await?;
        self.note(target, load.warm_up().await?);

        let before = Clocks::read(target)?;
        let saturated = load.saturate(Duration::from_secs(self.args.seconds), round).await?;
        let spent = Clocks::read(target)?.since(before);
        let answered = saturated.tally.answered as f64;
        self.note(target, saturated.tally.clone());
        if answered == 0.0 {
            let why = self.failed.first_failure.as_deref().unwrap_or("no request was sent");
            bail!("{} answered nothing: {why}", target.name);
        }

        let requests_per_s = answered / saturated.elapsed.as_secs_f64();
        let schedule = Schedule::new(requests_per_s * PACE, Duration::from_secs(self.args.paced_seconds()));
        let paced = load.pace(schedule, round).await?;
        self.note(target, paced.tally.clone());
        let percent = |time: Duration| time.as_secs_f64() / saturated.elapsed.as_secs_f64() * 100.0;
        let latency_us = |quantile| paced.latencies_ns.value_at_quantile(quantile) as f64 / 1000.0;
        Ok(Side {
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
        })
    }

    fn note(&mut self, target: &Target, mut tally: Tally) {
        tally.first_failure = tally.first_failure.map(|failure| format!("{}: {failure}", target.name));
        self.failed = [std::mem::take(&mut self.failed), tally].into_iter().collect();
    }
}

// === impl Clocks ===

impl Clocks {
    fn read(target: &Target) -> anyhow::Result<Self> {
        Ok(Self {
            server_cpu: server::cpu_time(target.pid)?,
            server_waited: server::time_without_core(target.pid).unwrap_or_default(),
            load_waited: server::time_without_core(process::id()).unwrap_or_default(),
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

// === impl SmokeArgs ===

impl SmokeArgs {
    fn paced_seconds(&self) -> u64 {
        self.seconds + PACED_EXTRA_SECONDS
    }
}

async fn start_larder(program: &Path, customers: u32, scratch: &TempDir, cores: Cores) -> anyhow::Result<Server> {
    let dir = scratch.path().join("demo");
    fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let address = server::free_address().context("no free port")?;
    let mut command = Command::new(program);
    command.arg("demo").arg("--dir").arg(dir);
    command.arg("--listen").arg(address.to_string()).arg("--customers").arg(customers.to_string());
    Server::start("larder", &mut command, address, scratch.path().join("larder.log"), cores).await
}

async fn start_floor(captured: &Captured, scratch: &TempDir, cores: Cores) -> anyhow::Result<Server> {
    let body = scratch.path().join("body");
    fs::write(&body, &captured.body).with_context(|| format!("cannot write {}", body.display()))?;
    let address = server::free_address().context("no free port")?;
    let mut command = Command::new(env::current_exe().context("cannot find this program")?);
    command.arg("floor").arg("--listen").arg(address.to_string());
    command.arg("--body-file").arg(body).arg("--content-type").arg(&captured.content_type);
    Server::start("floor", &mut command, address, scratch.path().join("floor.log"), cores).await
}

fn setup(args: &SmokeArgs, target: &Target, workload: &Workload, captured: &Captured, cores: Cores) -> Setup {
    Setup {
        target: target.name,
        workload: workload.name.clone(),
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
