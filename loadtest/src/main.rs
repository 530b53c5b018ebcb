//! Load on a Larder from outside, beside a floor in the same run.
//!
//! The floor is a bare hyper server that sends back the very bytes that the measured server sent. What the measured
//! server costs above it is what its work costs; everything that the machine, the kernel and HTTP cost is in both.
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
    /// Measure one-customer lookups beside the floor, in under a minute.
    Smoke(Measuring<SmokeArgs>),
    /// Measure every workload beside the floor, Redis and Feast, and write a report.
    Run(RunArgs),
    /// Measure loads, restarts, memory and lookups of millions of entities.
    Scale(Measuring<ScaleArgs>),
    /// Measure what a second serving thread gives.
    Threads(Measuring<ThreadsArgs>),
    /// Measure builds beside each other and beside the floor, in short turns.
    Turns(Measuring<TurnsArgs>),
    /// Send the same bytes to everyone: the server that others are measured beside.
    #[command(hide = true)]
    Floor(FloorArgs),
}

/// A command that prints what it measured.
#[derive(Debug, Args)]
struct Measuring<A: Args> {
    #[command(flatten)]
    args: A,
    /// Write what was measured to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not as `Result` from main: with RUST_BACKTRACE set that buries the message under a page of frames.
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

/// Prints a report, and writes it as JSON if that is wanted.
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

/// Measures, unless a signal comes first. Dropping what is under way stops the servers that it started.
fn until_told_to_stop<T>(measured: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    runtime()?.block_on(async {
        tokio::select! {
            done = measured => done,
            stopped = told_to_stop() => Err(stopped),
        }
    })
}

/// One thread does it all, for the floor and for the load: a second one would fight for the same core.
fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start a tokio runtime")
}

/// Waits for Ctrl-C or SIGTERM, and says which.
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
