//! Starts and stops servers. A server is ready when its start returns, and stops when it is dropped.

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

/// The default of the maximum time until a server is ready. A demo first generates its data, which takes seconds.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// The timeout of a readiness request.
const READY_RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// If a server that was dropped has not stopped this long after SIGTERM, it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// The interval of polls for a server that starts or stops.
const POLL_EVERY: Duration = Duration::from_millis(20);

/// After a failure, the last part of the server's output is shown. This is its size in bytes.
const TAIL_BYTES: u64 = 4 << 10;

/// A running server. Dropping it stops the server.
#[derive(Debug)]
pub(crate) struct Server {
    startup: Startup,
    child: Child,
}

/// How to start a server, in addition to its command.
#[derive(Clone, Debug)]
pub(crate) struct Startup {
    pub(crate) name: &'static str,
    /// The address on which the server listens.
    pub(crate) endpoint: Endpoint,
    /// The request to which the server responds with status 200 once it is ready.
    pub(crate) ready: Request,
    /// The maximum time until the server is ready.
    pub(crate) limit: Duration,
    /// The file for the server's output.
    pub(crate) log: PathBuf,
}

// === impl Startup ===

impl Startup {
    /// Creates the startup of a server that has the endpoint `/ready`.
    pub(crate) fn new(name: &'static str, endpoint: Endpoint, log: PathBuf) -> Self {
        Self { name, endpoint, ready: client::get("/ready"), limit: READY_LIMIT, log }
    }
}

// === impl Server ===

impl Server {
    /// Starts a server on the servers' cores, and waits until it is ready.
    pub(crate) async fn start(command: &mut Command, startup: Startup, cores: Cores) -> anyhow::Result<Self> {
        let output = File::create(&startup.log).with_context(|| format!("cannot write {}", startup.log.display()))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = cores
            .start_on_server_cores(|| command.spawn())
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

    /// Returns the end of the server's output, with a heading, to append it to an error message.
    pub(crate) fn output_tail(&self) -> String {
        let name = self.name();
        match self.read_tail() {
            Ok(tail) if tail.trim().is_empty() => format!("{name} printed nothing"),
            Ok(tail) => format!("the last output of {name}:\n{}", tail.trim_end()),
            Err(error) => format!("cannot read the output of {name}: {error}"),
        }
    }

    /// Sends a signal that stops the server, such as SIGTERM or SIGKILL, and waits until it has exited.
    pub(crate) fn stop(mut self, signal: Signal) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), signal).with_context(|| format!("cannot stop {}", self.name()))?;
        self.child.wait().with_context(|| format!("cannot wait for {}", self.name()))?;
        Ok(())
    }

    async fn until_ready(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        while !is_ready(&self.startup.endpoint, &self.startup.ready).await {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} exited before it was ready: {status}; {}", self.name(), self.output_tail());
            }
            if start.elapsed() > self.startup.limit {
                bail!("{} is not ready after {:?}; {}", self.name(), self.startup.limit, self.output_tail());
            }
            tokio::time::sleep(POLL_EVERY).await;
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
        // The child has not been waited for, so its process ID cannot belong to another process.
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
            thread::sleep(POLL_EVERY);
        }
    }
}

async fn is_ready(endpoint: &Endpoint, ready: &Request) -> bool {
    let poll = async {
        let mut connection = Connection::open(endpoint).await.ok()?;
        let answer = connection.exchange(ready).await.ok()?;
        Some(answer.status)
    };
    matches!(tokio::time::timeout(READY_RESPONSE_TIMEOUT, poll).await, Ok(Some(200)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::free_address;

    #[tokio::test]
    async fn output_of_failed_server_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such table >&2; exit 3"]);
        let startup = Startup::new("sh", free_address().unwrap().into(), dir.path().join("log"));
        let error = Server::start(&mut command, startup, Cores::Shared).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.ends_with("no such table"), "{error}");
    }
}
