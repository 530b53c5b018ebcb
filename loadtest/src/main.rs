//! Measures a Larder server as a separate process, and compares it with a floor in the same run.
//!
//! The floor is a bare hyper server that sends the same response bodies as the measured server. Both servers have the
//! costs of the machine, the kernel and HTTP, so the difference between their results is the cost of the measured
//! server's own work.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a command-line program")]

mod bench;
mod client;
mod cores;
mod dataset;
mod definitions;
mod endpoint;
mod floor;
mod load;
mod measure;
mod plot;
mod process;
mod random;
mod report;
mod resp;
mod scale;
mod server;
mod smoke;
mod stats;
mod target;
mod workload;

use std::{
    fmt,
    fs::File,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};

use crate::{
    bench::{
        RunArgs,
        threads::{self, ThreadsArgs},
        turns::{self, TurnsArgs},
    },
    floor::FloorArgs,
    scale::ScaleArgs,
    smoke::SmokeArgs,
};

#[derive(Debug, Parser)]
#[command(name = "larder-loadtest", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure lookups of one customer and compare them with the floor, in under a minute.
    Smoke(Measuring<SmokeArgs>),
    /// Measure every workload on Larder, the floor, Redis and Feast, and write a report.
    Run(RunArgs),
    /// Measure loads, restarts, memory and lookups with millions of entities.
    Scale(Measuring<ScaleArgs>),
    /// Compare one serving thread with two.
    Threads(Measuring<ThreadsArgs>),
    /// Compare builds with each other and with bare hyper, in short alternating runs.
    Turns(Measuring<TurnsArgs>),
    /// Run the floor: a server that sends fixed responses, with which other servers are compared.
    #[command(hide = true)]
    Floor(FloorArgs),
}

/// A command that prints its measurements.
#[derive(Debug, Args)]
struct Measuring<A: Args> {
    #[command(flatten)]
    args: A,
    /// Also write the results to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // `main` does not return a `Result`, because if `RUST_BACKTRACE` is set, a long backtrace would follow the
            // message.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Smoke(command) => {
            let report = until_signal(smoke::run(&command.args))?;
            print_report(&report, command.json.as_deref(), report.failures)
        }
        Command::Run(args) => until_signal(bench::run(&args)),
        Command::Scale(command) => {
            let report = until_signal(scale::run(&command.args))?;
            print_report(&report, command.json.as_deref(), report.failures)
        }
        Command::Threads(command) => {
            let report = until_signal(threads::run(&command.args))?;
            print_report(&report, command.json.as_deref(), report.failures)
        }
        Command::Turns(command) => {
            let report = until_signal(turns::run(&command.args))?;
            print_report(&report, command.json.as_deref(), report.failures)
        }
        Command::Floor(args) => runtime()?.block_on(floor::serve(&args)),
    }
}

/// Prints a report, and writes it as JSON if requested.
fn print_report<R: fmt::Display + Serialize>(report: &R, json: Option<&Path>, failures: u64) -> anyhow::Result<()> {
    print!("{report}");
    if let Some(path) = json {
        write_json(report, path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if failures > 0 {
        bail!("{failures} requests failed, so the results are not valid");
    }
    Ok(())
}

/// Runs a measurement to its end, or until a signal arrives. Dropping a measurement stops the servers that it started.
fn until_signal<T>(measured: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    runtime()?.block_on(async {
        tokio::select! {
            done = measured => done,
            stopped = stop_signal() => Err(stopped),
        }
    })
}

/// Creates a single-threaded runtime for the floor or the load. A second thread would compete for the same core.
fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start a tokio runtime")
}

/// Waits for Ctrl-C or SIGTERM, and returns an error that names the signal.
async fn stop_signal() -> anyhow::Error {
    let (mut interrupt, mut terminate) = match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
        (Err(error), _) | (_, Err(error)) => return anyhow::Error::new(error).context("cannot listen for signals"),
    };
    tokio::select! {
        _ = interrupt.recv() => anyhow::anyhow!("interrupted"),
        _ = terminate.recv() => anyhow::anyhow!("terminated"),
    }
}

fn write_json(report: &impl Serialize, path: &Path) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(File::create(path)?, report)?;
    Ok(())
}
