//! Servers that this program starts: they are ready before the first request, and end with this program.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    client::{self, Connection, Request},
    cores::Cores,
    endpoint::Endpoint,
};

/// A demo generates its data first, and Feast's server loads Python: that takes seconds.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// The timeout of a request to `/ready`.
const READY_ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// How long a server may take to stop after SIGTERM; then it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// The poll interval.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How much of a failed server's output is shown.
const TAIL_BYTES: u64 = 4 << 10;

/// A server that runs as long as this is held.
#[derive(Debug)]
pub(crate) struct Server {
    startup: Startup,
    child: Child,
}

/// How to start a server, in addition to its command.
#[derive(Clone, Debug)]
pub(crate) struct Startup {
    pub(crate) name: &'static str,
    /// Its address.
    pub(crate) endpoint: Endpoint,
    /// The request that it answers with status 200 once it is ready.
    pub(crate) ready: Request,
    /// The maximum time until then.
    pub(crate) limit: Duration,
    /// The file for its output.
    pub(crate) log: PathBuf,
}

// === impl Startup ===

impl Startup {
    /// Creates the startup of a server that answers `/ready`.
    pub(crate) fn new(name: &'static str, endpoint: Endpoint, log: PathBuf) -> Self {
        Self { name, endpoint, ready: client::get("/ready"), limit: READY_LIMIT, log }
    }
}

// === impl Server ===

impl Server {
    /// Starts a server on the servers' core and waits until it is ready.
    pub(crate) async fn start(command: &mut Command, startup: Startup, cores: Cores) -> anyhow::Result<Self> {
        let output = File::create(&startup.log).with_context(|| format!("cannot write {}", startup.log.display()))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = cores
            .start_on_server_core(|| command.spawn())
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let mut server = Self { startup, child };
        server.until_ready().await?;
        Ok(server)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.startup.name
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.startup.endpoint
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the end of its output, with a heading, or nothing.
    pub(crate) fn last_words(&self) -> String {
        let name = self.name();
        match self.read_tail() {
            Ok(tail) if tail.trim().is_empty() => format!("{name} printed nothing"),
            Ok(tail) => format!("{name} printed last:\n{}", tail.trim_end()),
            Err(error) => format!("what {name} printed cannot be read: {error}"),
        }
    }

    /// Stops it and waits: with SIGTERM, or with SIGKILL.
    pub(crate) fn stop(mut self, signal: Signal) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), signal).with_context(|| format!("cannot stop {}", self.name()))?;
        self.child.wait().with_context(|| format!("cannot wait for {}", self.name()))?;
        Ok(())
    }

    async fn until_ready(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        while !is_ready(&self.startup.endpoint, &self.startup.ready).await {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} exited before it was ready: {status}; {}", self.name(), self.last_words());
            }
            if start.elapsed() > self.startup.limit {
                bail!("{} is not ready after {:?}; {}", self.name(), self.startup.limit, self.last_words());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn read_tail(&self) -> std::io::Result<String> {
        let mut log = File::open(&self.startup.log)?;
        let end = log.metadata()?.len();
        log.seek(SeekFrom::Start(end.saturating_sub(TAIL_BYTES)))?;
        let mut tail = Vec::new();
        log.take(TAIL_BYTES).read_to_end(&mut tail)?;
        Ok(String::from_utf8_lossy(&tail).into_owned())
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process is not waited for yet, so its ID cannot belong to another process.
        if self.has_ended() || kill_process(Pid::from_child(&self.child), Signal::TERM).is_err() {
            return;
        }
        let start = Instant::now();
        while !self.has_ended() {
            if start.elapsed() > STOP_LIMIT {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

async fn is_ready(endpoint: &Endpoint, ready: &Request) -> bool {
    let look = async {
        let mut connection = Connection::open(endpoint).await.ok()?;
        let answer = connection.exchange(ready).await.ok()?;
        Some(answer.status)
    };
    matches!(tokio::time::timeout(READY_ANSWER_LIMIT, look).await, Ok(Some(200)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::free_address;

    #[tokio::test]
    async fn a_server_that_dies_is_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such table >&2; exit 3"]);
        let startup = Startup::new("sh", free_address().unwrap().into(), dir.path().join("log"));
        let error = Server::start(&mut command, startup, Cores::Shared).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.ends_with("no such table"), "{error}");
    }
}
