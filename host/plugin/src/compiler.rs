//! Compiles components in a child process, which has resource limits and can be killed.
//!
//! The time and memory of a compilation cannot be predicted from the size of the component: 100 kB of nested loops take
//! a minute. A running compilation cannot be stopped within a process. So the program executes itself as a child
//! process, with a hidden command (`larder compile-plugin`).
//!
//! The child limits its own CPU time, memory and output with `setrlimit`, and has a low priority. It is the first
//! process that the kernel kills when memory is short, and it is killed when its parent ends. All of its memory is
//! freed when it ends.
//!
//! The component, the code and messages are passed through anonymous files in memory (`memfd_create`), so neither
//! process waits for the other one to read. A file may contain two parts: the component and the functions that are known
//! from earlier compilations, or the code and the functions for later ones. The length of the first part is in front of
//! it, in 8 bytes.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use larder_common::compute::lower_priority;
use metrics::{counter, describe_counter};
use rustix::{
    fs::{MemfdFlags, memfd_create},
    process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit},
};

use super::{CompileKill, CompileLimits, LoadError, engine, function_cache::FunctionCache};

/// Runs the compiler in child processes.
#[derive(Debug)]
pub(super) struct Compiler {
    program: PathBuf,
    /// The arguments before those of the command.
    args: Vec<String>,
    limits: CompileLimits,
    threads: usize,
    state: Mutex<State>,
    /// Notified when a child has ended, and when compiling is stopped.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    /// Whether running compilations are killed and no further ones are allowed.
    stopped: bool,
}

/// The code of a component.
pub(super) struct Compiled {
    pub(super) code: Vec<u8>,
    /// The functions for later compilations, if some of them are new.
    pub(super) functions: Option<Vec<u8>>,
}

/// The hidden command that runs the compiler in a child process.
pub const COMPILE_COMMAND: &str = "compile-plugin";
/// The niceness of the child. It is not the maximum of 19, because the child would then get a thousandth of a core on a
/// saturated machine, and a deploy would wait for minutes.
const NICE: i32 = 10;
/// The maximum number of concurrent compilations: one for files in the plugin directory, and one for a deploy.
const CHILDREN_MAX: usize = 2;
/// The limit on the child's wall-clock time, as a multiple of the limit on its CPU time. On a busy machine, a child
/// with low priority may get almost no CPU time. Only the limit on wall-clock time ends such a child.
const WALL_FACTOR: u32 = 20;
/// The maximum number of bytes read from the child's message.
const MESSAGE_BYTES_MAX: u64 = 4 << 10;
/// The child's exit code for a component that does not compile.
const REJECTED: u8 = 3;

// === impl Compiler ===

impl Compiler {
    pub(super) fn new(program: PathBuf, args: Vec<String>, limits: CompileLimits, threads: usize) -> Self {
        describe_counter!("larder_plugin_compilations_total", "Compilations of plugins, by result.");
        Self { program, args, limits, threads, state: Mutex::default(), ended: Condvar::new() }
    }

    /// Compiles a component. Blocks until the child ends. `functions` are known from an earlier compilation; `None` if
    /// functions need not be kept for later ones.
    ///
    /// # Errors
    /// [`LoadError::Broken`], [`LoadError::Killed`], [`LoadError::Stopped`] and [`LoadError::Compiler`].
    pub(super) fn compile(&self, bytes: &[u8], functions: Option<&[u8]>) -> Result<Compiled, LoadError> {
        let _slot = self.slot()?;
        let compiled = self.run(bytes, functions);
        let result = match &compiled {
            Ok(_) => "done",
            Err(LoadError::Killed(CompileKill::Time(_) | CompileKill::Wall(_))) => "time",
            Err(LoadError::Killed(CompileKill::Memory(_) | CompileKill::Output(_))) => "memory",
            Err(LoadError::Killed(_)) => "crashed",
            Err(LoadError::Stopped) => "stopped",
            Err(_) => "rejected",
        };
        counter!("larder_plugin_compilations_total", "result" => result).increment(1);
        compiled
    }

    /// Kills running compilations and allows no further ones. Callers that wait get [`LoadError::Stopped`].
    pub(super) fn stop(&self) {
        self.state().stopped = true;
        self.ended.notify_all();
    }

    fn slot(&self) -> Result<Slot<'_>, LoadError> {
        let mut state = self.state();
        while state.running >= CHILDREN_MAX && !state.stopped {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stopped {
            return Err(LoadError::Stopped);
        }
        state.running += 1;
        Ok(Slot(self))
    }

    fn run(&self, bytes: &[u8], functions: Option<&[u8]>) -> Result<Compiled, LoadError> {
        let failed = |error: io::Error| LoadError::Compiler(format!("{}: {error}", self.program.display()));
        let (mut code, mut message) = (memory_file().map_err(failed)?, memory_file().map_err(failed)?);
        let mut child = self.spawn(bytes, functions, &code, &message).map_err(failed)?;
        let status = self.wait(&mut child).map_err(failed)??;
        let mut text = Vec::new();
        message.rewind().map_err(failed)?;
        message.take(MESSAGE_BYTES_MAX).read_to_end(&mut text).map_err(failed)?;
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        if !status.success() {
            return Err(self.verdict(status, text));
        }
        code.rewind().map_err(failed)?;
        let (code, functions) = read_parts(&mut code).map_err(failed)?;
        Ok(Compiled { code, functions: Some(functions).filter(|functions| !functions.is_empty()) })
    }

    fn spawn(&self, bytes: &[u8], functions: Option<&[u8]>, code: &File, message: &File) -> io::Result<Child> {
        let mut input = memory_file()?;
        write_parts(&mut input, bytes, functions.unwrap_or_default())?;
        input.rewind()?;
        let CompileLimits { time, memory_bytes } = self.limits;
        Command::new(&self.program)
            .args(&self.args)
            .arg(COMPILE_COMMAND)
            .args(["--parent", &std::process::id().to_string()])
            .args(["--cpu-seconds", &whole_seconds(time).to_string()])
            .args(["--memory-bytes", &memory_bytes.to_string()])
            .args(["--threads", &self.threads.to_string()])
            .args(functions.map(|_| "--keep-functions"))
            // The child needs neither the environment of this process, which may contain tokens, nor its directory.
            .env_clear()
            .current_dir("/")
            // A separate process group, so that Ctrl-C in a terminal interrupts only the parent.
            .process_group(0)
            .stdin(input)
            .stdout(Stdio::from(code.try_clone()?))
            .stderr(Stdio::from(message.try_clone()?))
            .spawn()
    }

    /// Waits for the child. Kills it if compiling is stopped, or if it exceeds the limit on wall-clock time.
    fn wait(&self, child: &mut Child) -> io::Result<Result<ExitStatus, LoadError>> {
        let started = Instant::now();
        let wall = Duration::from_secs(whole_seconds(self.limits.time)) * WALL_FACTOR;
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Ok(status));
            }
            let why = if self.state().stopped {
                LoadError::Stopped
            } else if started.elapsed() > wall {
                LoadError::Killed(CompileKill::Wall(wall))
            } else {
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(20));
                continue;
            };
            child.kill()?;
            child.wait()?;
            return Ok(Err(why));
        }
    }

    /// Returns the reason why a child failed.
    fn verdict(&self, status: ExitStatus, message: String) -> LoadError {
        let CompileLimits { time, memory_bytes } = self.limits;
        let Some(signal) = status.signal() else {
            if status.code() == Some(REJECTED.into()) {
                return LoadError::Broken(message);
            }
            return LoadError::Compiler(format!("{} ended with {status}: {message}", self.program.display()));
        };
        let is = |of: Signal| signal == of.as_raw();
        LoadError::Killed(if is(Signal::XCPU) {
            CompileKill::Time(time)
        } else if is(Signal::XFSZ) {
            CompileKill::Output(memory_bytes)
        } else if is(Signal::ABORT) && message.contains("memory allocation") {
            CompileKill::Memory(memory_bytes)
        } else {
            CompileKill::Signal(signal)
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a child while it runs.
struct Slot<'c>(&'c Compiler);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.state().running -= 1;
        self.0.ended.notify_all();
    }
}

fn whole_seconds(time: Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)
}

fn memory_file() -> io::Result<File> {
    Ok(memfd_create("larder-compile", MemfdFlags::CLOEXEC)?.into())
}

fn write_parts(to: &mut impl io::Write, first: &[u8], second: &[u8]) -> io::Result<()> {
    to.write_all(&(first.len() as u64).to_le_bytes())?;
    to.write_all(first)?;
    to.write_all(second)?;
    to.flush()
}

fn read_parts(from: &mut impl io::Read) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut length = [0; 8];
    from.read_exact(&mut length)?;
    let (mut first, mut second) = (Vec::new(), Vec::new());
    from.take(u64::from_le_bytes(length)).read_to_end(&mut first)?;
    from.read_to_end(&mut second)?;
    Ok((first, second))
}

/// Runs in the child: limits this process, reads a component from standard input and writes its code to standard
/// output. With `keep_functions`, also reads the functions of an earlier compilation, and writes those for later ones.
/// Returns the exit code.
#[must_use]
pub fn compile_here(parent: u32, limits: CompileLimits, threads: usize, keep_functions: bool) -> u8 {
    // The threads are started before memory is limited, because rayon may wait forever for a thread that cannot start.
    if threads > 1 && rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().is_err() {
        let _ = write!(io::stderr(), "cannot start {threads} threads");
        return 1;
    }
    let message = match limit_this_process(parent, limits).map_err(|error| error.to_string()) {
        Ok(()) => match compile_stdin(threads, keep_functions) {
            Ok(()) => return 0,
            Err(Failed::Rejected(message)) => {
                let _ = write!(io::stderr(), "{message}");
                return REJECTED;
            }
            Err(Failed::Io(error)) => error.to_string(),
        },
        Err(message) => message,
    };
    let _ = write!(io::stderr(), "{message}");
    1
}

enum Failed {
    Rejected(String),
    Io(io::Error),
}

fn compile_stdin(threads: usize, keep_functions: bool) -> Result<(), Failed> {
    let (bytes, functions) = read_parts(&mut io::stdin().lock()).map_err(Failed::Io)?;
    let functions = keep_functions.then(|| Arc::new(FunctionCache::read(functions)));
    let engine = engine::compiling(threads, functions.clone());
    let engine = engine.map_err(|error| Failed::Io(io::Error::other(format!("{error:#}"))))?;
    let code = engine.precompile_component(&bytes).map_err(|error| Failed::Rejected(format!("{error:#}")))?;
    let functions = functions.and_then(|functions| functions.write()).unwrap_or_default();
    write_parts(&mut io::stdout().lock(), &code, &functions).map_err(Failed::Io)
}

fn limit_this_process(parent: u32, limits: CompileLimits) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if std::os::unix::process::parent_id() != parent {
        return Err(io::Error::other("the server has exited"));
    }
    lower_priority(NICE);
    // If /proc is read-only, this fails, and the kernel chooses the process to kill by its size.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let limit = |resource, amount: u64| {
        setrlimit(resource, Rlimit { current: Some(amount), maximum: Some(amount) }).map_err(io::Error::from)
    };
    limit(Resource::Core, 0)?;
    limit(Resource::Data, limits.memory_bytes)?;
    limit(Resource::Fsize, limits.memory_bytes)?;
    // At the soft limit, the kernel sends SIGXCPU, which shows the reason. At the hard limit, it sends SIGKILL.
    let seconds = whole_seconds(limits.time);
    setrlimit(Resource::Cpu, Rlimit { current: Some(seconds), maximum: Some(seconds + 5) })?;
    Ok(())
}
