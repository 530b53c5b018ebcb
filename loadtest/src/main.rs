//! Measures a Larder from outside, in comparison with a floor in the same run.
//!
//! The floor is a bare hyper server that sends exactly the bytes that the measured server sent. The difference between
//! the measured server and the floor is the cost of its work; the costs of the machine, the kernel and HTTP are in
//! both.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a command line")]

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
    /// Measure lookups of one customer against the floor, in under a minute.
    Smoke(Measuring<SmokeArgs>),
    /// Measure every workload against the floor, Redis and Feast, and write a report.
    Run(RunArgs),
    /// Measure loads, restarts, memory and lookups with millions of entities.
    Scale(Measuring<ScaleArgs>),
    /// Measure the gain of a second serving thread.
    Threads(Measuring<ThreadsArgs>),
    /// Compare builds with each other and with the floor, in short alternating runs.
    Turns(Measuring<TurnsArgs>),
    /// Send the same bytes to every client: the server that others are compared with.
    #[command(hide = true)]
    Floor(FloorArgs),
}

/// A command that prints its measurements.
#[derive(Debug, Args)]
struct Measuring<A: Args> {
    #[command(flatten)]
    args: A,
    /// Also write the results to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not returned as `Result` from main: with `RUST_BACKTRACE` set, that hides the message below a page of
            // frames.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Smoke(command) => {
            let report = until_told_to_stop(smoke::run(&command.args))?;
            tell(&report, command.json.as_deref(), report.failures)
        }
        Command::Run(args) => until_told_to_stop(bench::run(&args)),
        Command::Scale(command) => {
            let report = until_told_to_stop(scale::run(&command.args))?;
            tell(&report, command.json.as_deref(), report.failures)
        }
        Command::Threads(command) => {
            let report = until_told_to_stop(threads::run(&command.args))?;
            tell(&report, command.json.as_deref(), report.failures)
        }
        Command::Turns(command) => {
            let report = until_told_to_stop(turns::run(&command.args))?;
            tell(&report, command.json.as_deref(), report.failures)
        }
        Command::Floor(args) => runtime()?.block_on(floor::serve(&args)),
    }
}

/// Prints a report, and writes it as JSON if requested.
fn tell<R: fmt::Display + Serialize>(report: &R, json: Option<&Path>, failures: u64) -> anyhow::Result<()> {
    print!("{report}");
    if let Some(path) = json {
        write_json(report, path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if failures > 0 {
        bail!("{failures} requests failed: what was measured does not count");
    }
    Ok(())
}

/// Measures until a signal arrives. Dropping a running measurement stops the servers that it started.
fn until_told_to_stop<T>(measured: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    runtime()?.block_on(async {
        tokio::select! {
            done = measured => done,
            stopped = told_to_stop() => Err(stopped),
        }
    })
}

/// Creates a single-threaded runtime, for the floor and for the load: a second thread would compete for the same core.
fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start a tokio runtime")
}

/// Waits for Ctrl-C or SIGTERM, and returns which one arrived.
async fn told_to_stop() -> anyhow::Error {
    let (mut interrupt, mut terminate) = match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
        (Err(error), _) | (_, Err(error)) => return anyhow::Error::new(error).context("cannot listen to signals"),
    };
    tokio::select! {
        _ = interrupt.recv() => anyhow::anyhow!("interrupted"),
        _ = terminate.recv() => anyhow::anyhow!("told to stop"),
    }
}

fn write_json(report: &impl Serialize, path: &Path) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(File::create(path)?, report)?;
    Ok(())
}
