//! The parts of builds that run a program from the cache: a directory for the build, a lock, and a time limit.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use larder_common::files::temporary_path_for;

/// A temporary directory, which is removed on drop.
#[derive(Debug)]
pub(super) struct Staging(pub(super) PathBuf);

/// The result of a program with a time limit.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// The standard error, as text.
    pub(super) printed: String,
}

/// The file that is written last into the directory of an installed tool. If it does not exist, the installation is
/// incomplete.
pub(super) const READY: &str = "ready";
/// The time between two checks of whether a program has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Locks the cache, so that two concurrent builds do not install into the same directory. Dropping the file releases the
/// lock.
pub(super) fn lock(cache: &Path) -> Result<fs::File> {
    let path = cache.join("lock");
    let file = fs::File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Removes an incomplete installation.
pub(super) fn remove_incomplete(home: &Path) -> Result<()> {
    if home.try_exists().with_context(|| format!("cannot access {}", home.display()))? {
        fs::remove_dir_all(home).with_context(|| format!("cannot remove {}", home.display()))?;
    }
    Ok(())
}

/// Records that the installation is complete.
pub(super) fn mark_ready(home: &Path, version: &str) -> Result<()> {
    fs::write(home.join(READY), version).with_context(|| format!("cannot write into {}", home.display()))
}

/// Runs a command without input, and captures its output.
pub(super) fn run(command: &mut Command) -> Result<Output> {
    let output = command.stdin(Stdio::null()).output();
    output.with_context(|| format!("cannot run {}", Path::new(command.get_program()).display()))
}

/// Runs a command without input, and captures its standard error. Returns `None` if it did not end in time; it is then
/// killed.
pub(super) fn run_within(command: &mut Command, time_max: Duration) -> Result<Option<Ended>> {
    let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = started.with_context(|| format!("cannot run {}", Path::new(command.get_program()).display()))?;
    let stderr = child.stderr.take();
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        // If the pipe breaks, the output so far is used.
        let _ = stderr.map(|mut pipe| pipe.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).trim_end().to_owned()
    });
    let Some(status) = wait(&mut child, time_max)? else {
        // The program may have ended by itself in the meantime. The reader is not joined, because a child process of the
        // program could keep the pipe open.
        let _ = child.kill();
        let _ = child.wait();
        return Ok(None);
    };
    Ok(Some(Ended { status, printed: reader.join().unwrap_or_default() }))
}

/// Returns the exit status of a program, or `None` if it does not end in time.
fn wait(child: &mut Child, time_max: Duration) -> Result<Option<ExitStatus>> {
    let started = Instant::now();
    loop {
        match child.try_wait().context("cannot wait for a program")? {
            Some(status) => return Ok(Some(status)),
            None if started.elapsed() >= time_max => return Ok(None),
            None => thread::sleep(POLL_INTERVAL),
        }
    }
}

/// Returns the end of the output of a failed program.
pub(super) fn output_tail(output: &Output) -> String {
    const LINES_MAX: usize = 6;
    let bytes = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES_MAX)..].iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

// === impl Staging ===

impl Staging {
    pub(super) fn new(cache: &Path) -> Result<Self> {
        let path = temporary_path_for(&cache.join("build"));
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // The error is ignored, because a leftover directory in the cache does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}
