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
mod server;
mod smoke;
mod stats;
mod target;
mod workload;

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};

use crate::{bench::RunArgs, floor::FloorArgs, report::Report, smoke::SmokeArgs};

#[derive(Debug, Parser)]
#[command(name = "larder-loadtest", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure one-customer lookups beside the floor, in under a minute.
    Smoke(SmokeCommand),
    /// Measure every workload beside the floor, Redis and Feast, and write a report.
    Run(RunArgs),
    /// Send the same bytes to everyone: the server that others are measured beside.
    #[command(hide = true)]
    Floor(FloorArgs),
}

#[derive(Debug, Args)]
struct SmokeCommand {
    #[command(flatten)]
    args: SmokeArgs,
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
        Command::Smoke(command) => smoke(&command),
        Command::Run(args) => runtime()?.block_on(async {
            tokio::select! {
                done = bench::run(&args) => done,
                // Dropping the run stops the servers that it started.
                stopped = told_to_stop() => Err(stopped),
            }
        }),
        Command::Floor(args) => runtime()?.block_on(floor::serve(&args)),
    }
}

fn smoke(command: &SmokeCommand) -> anyhow::Result<()> {
    let report = runtime()?.block_on(async {
        tokio::select! {
            report = smoke::run(&command.args) => report,
            // Dropping the run stops the servers that it started.
            stopped = told_to_stop() => Err(stopped),
        }
    })?;
    print!("{report}");
    if let Some(path) = &command.json {
        write_json(&report, path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if report.failures > 0 {
        bail!("{} requests failed: what was measured does not count", report.failures);
    }
    Ok(())
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

fn write_json(report: &Report, path: &Path) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(File::create(path)?, report)?;
    Ok(())
}
