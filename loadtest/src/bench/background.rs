//! Runs a command of Larder repeatedly during the load, on the servers' cores.

use std::{
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use crate::cores::Cores;

/// A thread that runs a command repeatedly. Ending or dropping it waits until the current run of the command ends.
#[derive(Debug)]
pub(crate) struct RepeatedCommand {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Runs>>,
}

/// The results of the runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs {
    /// The number of successful runs.
    pub(crate) done: u64,
    /// The failure, after which the command is not run again.
    pub(crate) failed: Option<String>,
}

// === impl RepeatedCommand ===

impl RepeatedCommand {
    pub(crate) fn start(mut command: Command, cores: Cores) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        command.stdin(Stdio::null());
        let thread = thread::spawn(move || {
            let mut runs = Runs::default();
            while !stopped.load(Ordering::Relaxed) {
                match cores.start_on_server_cores(|| command.output()) {
                    Ok(output) if output.status.success() => runs.done += 1,
                    Ok(output) => {
                        let message = String::from_utf8_lossy(&output.stderr);
                        runs.failed = Some(format!("{}: {}", output.status, message.trim()));
                        break;
                    }
                    Err(error) => {
                        runs.failed = Some(error.to_string());
                        break;
                    }
                }
            }
            runs
        });
        Self { stop, thread: Some(thread) }
    }

    /// Waits until the current run ends, and returns the results of all runs.
    pub(crate) fn end(mut self) -> Runs {
        self.finish()
    }

    fn finish(&mut self) -> Runs {
        self.stop.store(true, Ordering::Relaxed);
        let panicked = || Runs { done: 0, failed: Some("the thread that runs the command panicked".to_owned()) };
        self.thread.take().map_or_else(Runs::default, |thread| thread.join().unwrap_or_else(|_| panicked()))
    }
}

impl Drop for RepeatedCommand {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(text: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", text]);
        command
    }

    #[test]
    fn command_repeats_until_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let marks = dir.path().join("marks");
        let repeated = RepeatedCommand::start(shell(&format!("echo >> {}", marks.display())), Cores::Shared);
        while std::fs::read(&marks).map_or(0, |marks| marks.len()) < 3 {
            thread::yield_now();
        }
        let runs = repeated.end();
        assert!(runs.done >= 3 && runs.failed.is_none(), "{runs:?}");
    }

    #[test]
    fn failed_command_is_not_repeated() {
        let repeated = RepeatedCommand::start(shell("echo no such view >&2; exit 1"), Cores::Shared);
        while repeated.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            thread::yield_now();
        }
        let runs = repeated.end();
        assert_eq!(runs.done, 0);
        assert!(runs.failed.unwrap().ends_with("no such view"));
    }
}
