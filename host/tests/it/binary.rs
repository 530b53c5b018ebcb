//! Runs the program itself, as a child process in a separate directory: exit codes, output, signals.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::fixture::{copy_dir, replace};

/// Far longer than any operation in these tests takes, so that it only expires if a test fails.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// `larder.yaml` of these servers. Several servers run at the same time, so each uses a free port.
pub(crate) const LARDER_YAML: &str = "\
project: churn_prediction
features: [features/*.yaml]
server: {listen: 127.0.0.1:0, workers: 2}
metrics: {listen: off}
";

/// A directory with the configuration, definitions, data and store of one server. It is removed on drop.
pub(crate) struct Home {
    dir: TempDir,
}

/// The exit status and the output of a child.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code. `None` if a signal ended the process.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A child that runs until it is stopped or dropped.
pub(crate) struct Running {
    child: Child,
    /// The lines of its standard output and standard error, in the order in which they arrive.
    lines: Receiver<String>,
    heard: Vec<String>,
}

// === impl Home ===

impl Home {
    /// Creates an empty directory.
    pub(crate) fn empty() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    /// Creates a directory with a configuration and definitions.
    pub(crate) fn with(definitions: &str) -> Self {
        let home = Self::empty();
        home.write("larder.yaml", LARDER_YAML);
        home.write("features/all.yaml", definitions);
        home
    }

    /// Creates a copy of the golden repository. Replaces the TTLs of 1 and 30 days, so that the results do not
    /// depend on the machine's clock. The view with a TTL of one hour keeps it.
    pub(crate) fn golden() -> Self {
        let home = Self::empty();
        copy_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/repo"), home.dir.path());
        let definitions = fs::read_to_string(home.path("features/feast_repo.yaml")).unwrap();
        let ageless = definitions.replace("ttl: 30d", "ttl: 36500d").replace("ttl: 1d", "ttl: 36500d");
        home.write("features/feast_repo.yaml", &ageless);
        home.write("larder.yaml", LARDER_YAML);
        home
    }

    /// Creates a copy of the golden repository, and loads its rows into the store.
    pub(crate) fn golden_loaded() -> Self {
        let home = Self::golden();
        home.run(["sync"]).assert_code(0);
        home
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Creates or replaces a file. This is safe while a server runs.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        replace(path, text);
    }

    /// Adds lines to `larder.yaml`.
    pub(crate) fn configure(&self, lines: &str) {
        let text = fs::read_to_string(self.path("larder.yaml")).unwrap();
        self.write("larder.yaml", &(text + lines));
    }

    /// Returns a command that runs the program in this directory, with dummy AWS keys and without the environment
    /// variables that configure Larder.
    pub(crate) fn larder<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        self.call(Path::new(env!("CARGO_BIN_EXE_larder")), args)
    }

    /// Like [`Home::larder`], but runs the program at the path `program`.
    pub(crate) fn call<'a>(&self, program: &Path, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(program);
        let ours = env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("LARDER_"));
        ours.for_each(|name| _ = command.env_remove(name));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env("AWS_ACCESS_KEY_ID", "stand-in").env("AWS_SECRET_ACCESS_KEY", "stand-in");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Ended {
        let output = self.larder(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Starts a command that keeps running.
    pub(crate) fn start<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Running {
        Running::new(self.larder(args).spawn().unwrap())
    }

    /// Starts a server, and waits until it listens.
    pub(crate) fn serve(&self) -> (Running, SocketAddr) {
        let mut host = self.start(["serve"]);
        let address = host.listens_at();
        (host, address)
    }
}

// === impl Ended ===

impl Ended {
    #[track_caller]
    pub(crate) fn assert_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        self
    }

    /// Returns the lines of standard error that report an error at a position in a file.
    pub(crate) fn errors(&self) -> Vec<&str> {
        self.err.lines().filter(|line| line.contains(": error: ")).collect()
    }

    /// Checks that standard error contains each of these strings.
    #[track_caller]
    pub(crate) fn assert_complains(&self, words: &[&str]) -> &Self {
        words.iter().for_each(|words| assert!(self.err.contains(words), "no '{words}' in: {}", self.err));
        self
    }
}

/// Waits until a process ends. Returns its maximum resident memory in mebibytes.
pub(crate) fn peak_mebibytes(child: &mut Child) -> u64 {
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0);
        peak = peak.max(kilobytes >> 10);
        thread::sleep(Duration::from_millis(5));
    }
    peak
}

// === impl Running ===

impl Running {
    pub(crate) fn new(mut child: Child) -> Self {
        let (sender, lines) = channel();
        let outputs: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for output in outputs {
            let sender = sender.clone();
            thread::spawn(move || {
                BufReader::new(output).lines().map_while(Result::ok).for_each(|line| _ = sender.send(line));
            });
        }
        Self { child, lines, heard: Vec::new() }
    }

    /// Waits for a line that contains this text, and returns the line.
    #[track_caller]
    pub(crate) fn until(&mut self, words: &str) -> String {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.heard.push(line.clone());
                    if line.contains(words) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("it never said '{words}', but:\n{}", self.heard.join("\n"))
                }
            }
        }
    }

    /// Waits until a server listens, and returns its address.
    #[track_caller]
    pub(crate) fn listens_at(&mut self) -> SocketAddr {
        let line = self.until("serving listen=");
        let address = line.split("listen=").nth(1).unwrap().split(' ').next().unwrap();
        address.trim_matches('"').parse().unwrap()
    }

    /// Returns the lines that were read so far.
    pub(crate) fn heard(&self) -> &[String] {
        &self.heard
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until the process ends. Returns the exit code and all output.
    #[track_caller]
    pub(crate) fn end(&mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + TIMEOUT;
        while !self.has_ended() {
            assert!(Instant::now() < deadline, "it does not end; it said:\n{}", self.heard.join("\n"));
            thread::sleep(Duration::from_millis(2));
        }
        self.heard.extend(self.lines.iter());
        (self.child.wait().unwrap().code(), self.heard.join("\n"))
    }

    /// Stops the process with a signal. Checks that it exits successfully, and returns all output.
    #[track_caller]
    pub(crate) fn stop(mut self, signal: Signal) -> String {
        self.signal(signal);
        let (code, said) = self.end();
        assert_eq!(code, Some(0), "{said}");
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both calls fail only if the child has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
