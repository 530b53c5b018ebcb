//! Runs a training job for a command: options, progress bar, and signals.

use std::{num::NonZeroUsize, thread, time::Duration};

use anyhow::{Context, Result};
use clap::Args;
use larder_model::yaml::parse_bytes;
use larder_training::{Limits, MEMORY_MIN, Progress, THREADS_MAX};
use tokio::{sync::oneshot, time::interval};

use super::output;
use crate::app::Signals;

/// The resources of a job.
#[derive(Debug, Args)]
pub(super) struct JobArgs {
    /// The memory for entity rows and their features, at least 16MiB [default: 2GiB]. Rows that do not fit are joined
    /// in parts, each of which reads the feature files again
    #[arg(long, value_name = "BYTES", value_parser = parse_memory)]
    memory: Option<u64>,
    /// The number of threads [default: the number of processors]
    #[arg(long, value_name = "NUMBER", value_parser = parse_threads)]
    threads: Option<NonZeroUsize>,
}

/// The interval at which the progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

// === impl JobArgs ===

impl JobArgs {
    pub(super) fn limits(&self) -> Limits {
        let limits = Limits::default();
        Limits { memory: self.memory.unwrap_or(limits.memory), threads: self.threads.unwrap_or(limits.threads) }
    }
}

fn parse_threads(text: &str) -> Result<NonZeroUsize, String> {
    let threads = text.parse().ok().filter(|threads: &NonZeroUsize| threads.get() <= THREADS_MAX);
    threads.ok_or_else(|| format!("must be a number from 1 to {THREADS_MAX}"))
}

fn parse_memory(text: &str) -> Result<u64, String> {
    parse_size(text, MEMORY_MIN)
}

/// Parses a size of at least `min` bytes.
pub(super) fn parse_size(text: &str, min: u64) -> Result<u64, String> {
    let bytes = parse_bytes(text).ok_or("not a size such as 512MiB or 2GiB")?;
    if bytes < min { Err(format!("must be at least {} MiB", min >> 20)) } else { Ok(bytes) }
}

/// Runs a job on another thread, and shows its progress. A signal to stop the program stops the job, so that it removes its
/// temporary files. `rows` is the number of entity rows, or 0 if it is not known.
pub(super) fn run_job<T: Send, E: Send + Into<anyhow::Error>>(
    rows: u64,
    job: impl FnOnce(&Progress) -> Result<T, E> + Send,
) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the thread that handles signals")?;
    let mut signals = runtime.block_on(async { Signals::listen() })?;
    let progress = Progress::default();
    let (done, mut is_done) = oneshot::channel();
    let result = thread::scope(|scope| {
        let job = scope.spawn(|| {
            let result = job(&progress);
            // The receiver is dropped after a signal.
            let _ = done.send(());
            result
        });
        let bar = output::progress("", rows);
        let show = async {
            let mut ticks = interval(PROGRESS_EVERY);
            loop {
                tokio::select! {
                    _ = &mut is_done => return,
                    _ = ticks.tick() => {
                        bar.set_position(progress.rows());
                        bar.set_prefix(format!("{} feature rows", output::thousands(progress.feature_rows())));
                    }
                }
            }
        };
        if runtime.block_on(signals.unless_stopped(show)).is_none() {
            progress.stop();
        }
        bar.finish_and_clear();
        job.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    result.map_err(Into::into)
}
