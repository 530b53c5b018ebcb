//! Servers that we start: they come up before anything is asked, and they are gone when we are.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::{
    param::clock_ticks_per_second,
    process::{Pid, Signal, kill_process},
};

use crate::{
    client::{self, Connection},
    cores::Cores,
};

/// A demo makes its data first, which takes seconds.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// How long one look at `/ready` may take.
const READY_ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// How long a server may take to end its work after SIGTERM; then it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// How often we look whether something has happened.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How much of a server's output is shown when it fails.
const TAIL_BYTES: u64 = 4 << 10;

/// A server that runs as long as this is held.
#[derive(Debug)]
pub(crate) struct Server {
    name: &'static str,
    address: SocketAddr,
    child: Child,
    /// What it prints.
    log: PathBuf,
}

// === impl Server ===

impl Server {
    /// Starts a server on the servers' core and waits until it is ready.
    pub(crate) async fn start(
        name: &'static str,
        command: &mut Command,
        address: SocketAddr,
        log: PathBuf,
        cores: Cores,
    ) -> anyhow::Result<Self> {
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = cores
            .start_on_server_core(|| command.spawn())
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let mut server = Self { name, address, child, log };
        server.until_ready().await?;
        Ok(server)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last that it printed, with a heading, or nothing.
    pub(crate) fn last_words(&self) -> String {
        match self.read_tail() {
            Ok(tail) if tail.trim().is_empty() => format!("{} printed nothing", self.name),
            Ok(tail) => format!("{} printed last:\n{}", self.name, tail.trim_end()),
            Err(error) => format!("what {} printed cannot be read: {error}", self.name),
        }
    }

    async fn until_ready(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        while !is_ready(self.address).await {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended before it was ready: {status}; {}", self.name, self.last_words());
            }
            if start.elapsed() > READY_LIMIT {
                bail!("{} is not ready after {READY_LIMIT:?}; {}", self.name, self.last_words());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn read_tail(&self) -> std::io::Result<String> {
        let mut log = File::open(&self.log)?;
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
        // Not yet waited for, so the number cannot have gone to another process.
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

/// An address of this machine that nobody listens on. Someone else may take it before our server does; then the server
/// says so and the run ends.
pub(crate) fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// The time that a process has spent on a core so far: all of its threads, in user space and in the kernel.
pub(crate) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}: is the server gone?"))?;
    let ticks = cpu_ticks(&stat).with_context(|| format!("cannot make sense of {path}: {stat:?}"))?;
    Ok(Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64))
}

/// The time that a process was ready to run and had no core: all of its threads. None where the kernel does not count it.
pub(crate) fn time_without_core(pid: u32) -> Option<Duration> {
    let waited_ns = fs::read_dir(format!("/proc/{pid}/task")).ok()?.map(|thread| {
        let schedstat = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        schedstat.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
    });
    waited_ns.sum::<Option<u64>>().map(Duration::from_nanos)
}

/// utime + stime, the 14th and 15th field. The 2nd is the name in parentheses, in which anything may stand.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, from_state) = stat.rsplit_once(") ")?;
    let mut fields = from_state.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

async fn is_ready(address: SocketAddr) -> bool {
    let look = async {
        let mut connection = Connection::open(address).await.ok()?;
        let answer = connection.exchange(&client::get("/ready")).await.ok()?;
        Some(answer.status)
    };
    matches!(tokio::time::timeout(READY_ANSWER_LIMIT, look).await, Ok(Some(200)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "4711 (a ) 1 2 (b) S 1 4711 4711 0 -1 4194304 2310 0 5 0 123 45 6 7 20 0 3 0 89 1 2 3";
        assert_eq!(cpu_ticks(stat), Some(123 + 45));
        assert_eq!(cpu_ticks("4711 (short) S 1 2 3"), None);
    }

    #[test]
    fn our_own_times_can_be_read() {
        cpu_time(std::process::id()).unwrap();
        // A kernel that does not count it has no such file, and that is all right.
        let counts = fs::exists("/proc/self/schedstat").unwrap();
        assert_eq!(time_without_core(std::process::id()).is_some(), counts);
    }

    #[tokio::test]
    async fn a_server_that_dies_is_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such table >&2; exit 3"]);
        let log = dir.path().join("log");
        let error = Server::start("sh", &mut command, free_address().unwrap(), log, Cores::Shared)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("exit status: 3") && error.ends_with("no such table"), "{error}");
    }
}
