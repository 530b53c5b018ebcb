//! Compares one serving thread with two, to check whether a second core doubles the throughput.
//!
//! Larder starts a serving thread for each core that it may use, so it is started on one core, and then on two. If
//! there is a third core for the load, the requests per second show the difference. If there are only two cores, the
//! load shares the servers' cores, so the CPU time per request is compared instead: threads that contend for locks, or
//! evict each other's cache lines, need more CPU time per request. The capacity of two cores relative to one core is
//! twice the CPU time per request with one thread, divided by the CPU time per request with two threads.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::{
    spec::{self, HostKind, RequestFormat, Spec},
    stage::Stage,
};
use crate::{
    cores::Cores,
    endpoint::SocketKind,
    measure::{Effort, Figures, measure},
    random::Keys,
    stats::Spread,
    target::Target,
};

/// What to measure, and for how long.
#[derive(Debug, Args)]
pub(crate) struct ThreadsArgs {
    /// The `larder` program.
    #[arg(long, value_name = "PATH")]
    larder: PathBuf,
    /// A workload of `run` that needs neither a plugin nor another command.
    #[arg(long, value_name = "NAME", default_value = "svc50-100")]
    workload: String,
    /// The number of rounds. Each round measures one thread and two threads. The order alternates.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// The length of each run in seconds.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(2..=60))]
    seconds: u64,
}

/// The results.
#[derive(Debug, Serialize)]
pub(crate) struct ThreadsReport {
    workload: String,
    cores: String,
    one_cpu_us: Spread,
    two_cpu_us: Spread,
    one_requests_per_s: Spread,
    two_requests_per_s: Spread,
    /// The requests per second with two threads, divided by those with one thread.
    throughput_ratio: Spread,
    /// Twice the CPU time per request with one thread, divided by the CPU time per request with two threads.
    capacity_ratio: Spread,
    /// Whether the load had its own core when two threads were measured. Otherwise, the throughput of two threads is
    /// not meaningful.
    is_load_apart: bool,
    /// The number of requests without a response of status 200.
    pub(crate) failures: u64,
}

/// Runs the measurement.
pub(crate) async fn run(args: &ThreadsArgs) -> anyhow::Result<ThreadsReport> {
    let one = Cores::find().context("cannot find the available cores")?;
    let two = Cores::find_two_for_servers().context("cannot find the available cores")?;
    let Some(two) = two else { bail!("only one core is available, but this benchmark needs two") };
    let spec = stored(&args.workload)?;
    let scratch = tempfile::Builder::new().prefix("larder-loadtest-").tempdir();
    let scratch = scratch.context("cannot create a temporary directory")?;
    one.pin_load()?;
    let stage = Stage::set_up(scratch.path(), &args.larder, (None, None), SocketKind::Tcp, one).await?;
    eprintln!("one thread: {one}\ntwo threads: {two}");

    let (mut rounds, mut failures) = ([Vec::new(), Vec::new()], 0);
    for round in 0..args.rounds {
        let mut order = [0, 1];
        order.rotate_left(round as usize % 2);
        for index in order {
            let cores = [one, two][index];
            let (figures, failed) = args.run_once(&stage.on(cores), cores, &spec, round).await?;
            failures += failed;
            eprintln!(
                "  round {} {} thread{} {:>9.0} req/s {:>9.2} us cpu",
                round + 1,
                index + 1,
                if index == 0 { " " } else { "s" },
                figures.requests_per_s,
                figures.cpu_us_per_request
            );
            rounds[index].push(figures);
        }
    }
    let [one, two_rounds] = &rounds;
    let spread = |rounds: &[Figures], of: fn(&Figures) -> f64| Spread::of(rounds.iter().map(of));
    let ratio = |of: fn((&Figures, &Figures)) -> f64| Spread::of(one.iter().zip(two_rounds).map(of));
    Ok(ThreadsReport {
        workload: format!("{}: {}", spec.name, spec.what),
        cores: two.to_string(),
        one_cpu_us: spread(one, |figures| figures.cpu_us_per_request),
        two_cpu_us: spread(two_rounds, |figures| figures.cpu_us_per_request),
        one_requests_per_s: spread(one, |figures| figures.requests_per_s),
        two_requests_per_s: spread(two_rounds, |figures| figures.requests_per_s),
        throughput_ratio: ratio(|(one, two)| two.requests_per_s / one.requests_per_s),
        capacity_ratio: ratio(|(one, two)| 2.0 * one.cpu_us_per_request / two.cpu_us_per_request),
        is_load_apart: matches!(two, Cores::Pair { load: Some(_), .. }),
        failures,
    })
}

/// Returns the workload with this name. Fails if it needs a plugin, another command, or a special server.
fn stored(name: &str) -> anyhow::Result<Spec> {
    let is_stored = |spec: &Spec| spec.host == HostKind::Main && spec.background.is_none() && !spec.needs_plugin();
    Ok(spec::named(&[name.to_owned()], is_stored)?.swap_remove(0))
}

// === impl ThreadsArgs ===

impl ThreadsArgs {
    /// Starts a server, measures it, and stops it. Returns the results and the number of failures.
    async fn run_once(&self, stage: &Stage, cores: Cores, spec: &Spec, seed: u64) -> anyhow::Result<(Figures, u64)> {
        cores.pin_load().context("cannot pin the load to its core")?;
        let host = stage.host(HostKind::Main).await?;
        let workload = Arc::new(spec.requests(RequestFormat::Http, &[], Keys::Uniform));
        let effort = Effort {
            connections: 32,
            saturated: Duration::from_secs(self.seconds),
            paced: Duration::from_secs(1),
            samples_min: 0,
            paced_max: Duration::from_secs(1),
            warm_up: true,
        };
        let measured = measure(&Target::of_server("larder", &host.server), &workload, &effort, seed).await?;
        Ok((measured.figures, measured.tally.failures))
    }
}

// === impl ThreadsReport ===

impl fmt::Display for ThreadsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = |spread: &Spread| format!("{:.1} ({:.1} to {:.1})", spread.median, spread.min, spread.max);
        let ratio = |spread: &Spread| format!("{:.2} ({:.2} to {:.2})", spread.median, spread.min, spread.max);
        writeln!(f, "{}; {}", self.workload, self.cores)?;
        writeln!(f, "one thread:  {} us of CPU time per request", with(&self.one_cpu_us))?;
        writeln!(f, "two threads: {} us of CPU time per request", with(&self.two_cpu_us))?;
        writeln!(f, "two cores have {} times the capacity of one", ratio(&self.capacity_ratio))?;
        if self.is_load_apart {
            writeln!(f, "requests per second: {} times those of one thread", ratio(&self.throughput_ratio))
        } else {
            writeln!(
                f,
                "requests per second, with the load on the same two cores: {} times those of one thread",
                ratio(&self.throughput_ratio)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsuitable_workload_is_rejected() {
        assert_eq!(stored("svc50-100").unwrap().name, "svc50-100");
        for name in ["churn-derived-1", "cold-1", "during-sync", "nonsense"] {
            let error = stored(name).unwrap_err().to_string();
            assert!(
                error.contains(name) && error.ends_with("churn-1, svc50-1, svc50-100, svc200-50, miss, mixed"),
                "{error}"
            );
        }
    }

    #[test]
    fn report_states_whether_load_shared_cores() {
        let spread = |median| Spread { median, min: median, max: median };
        let mut report = ThreadsReport {
            workload: "w".to_owned(),
            cores: "c".to_owned(),
            one_cpu_us: spread(90.0),
            two_cpu_us: spread(100.0),
            one_requests_per_s: spread(10.0),
            two_requests_per_s: spread(15.0),
            throughput_ratio: spread(1.5),
            capacity_ratio: spread(1.8),
            is_load_apart: false,
            failures: 0,
        };
        let shared = report.to_string();
        assert!(shared.contains("two cores have 1.80 (1.80 to 1.80) times the capacity"), "{shared}");
        assert!(shared.contains("with the load on the same two cores: 1.50"), "{shared}");
        report.is_load_apart = true;
        assert!(report.to_string().contains("requests per second: 1.50"), "{report}");
    }
}
