//! Components that are expensive to compile. They are rejected because of their structure, or their compilation is
//! stopped at a limit. Meanwhile, the server keeps serving.

use std::{
    collections::HashSet,
    fs,
    io::Write as _,
    net::SocketAddr,
    os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use larder_http::Control;
use larder_plugin_host::{
    BuildInfo, COMPILE_COMMAND, CompileKill, CompileLimits, LoadError, PluginClass, PluginLimits, PluginRuntime,
    PluginSettings,
};
use rustix::process::Signal;
use serde_json::json;

use crate::{
    binary::{Home, Running},
    fixture::{Fixture, Setup, eventually, eventually_within},
    guests::{compiler, guest},
    wire,
};

const SINGLETON: &str = "feast_odfv/odfv_singleton";
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
const MIB: u64 = 1 << 20;
/// The number of loops in a function that takes cranelift minutes to compile. The time is quadratic in the number of
/// loops.
const ENDLESS: usize = 100_000;

/// Returns a number in the encoding LEB128, which WebAssembly uses.
fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).unwrap();
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn section(id: u8, body: &[u8]) -> Vec<u8> {
    [&[id][..], &leb128(body.len()), body].concat()
}

/// Returns a core module with this many functions of the type `() -> ()`, which all have the same body.
fn module(functions: usize, body: &[u8]) -> Vec<u8> {
    let body = [&[0][..], body, &[0x0b]].concat();
    let body = [leb128(body.len()), body].concat();
    let types = section(1, &[1, 0x60, 0, 0]);
    let declared = section(3, &[leb128(functions), vec![0; functions]].concat());
    let code = section(10, &[leb128(functions), body.repeat(functions)].concat());
    [&b"\0asm\x01\0\0\0"[..], &types, &declared, &code].concat()
}

/// Returns a core module with one function that has this many empty loops.
pub(crate) fn loops(count: usize) -> Vec<u8> {
    module(1, &[0x03, 0x40, 0x0b].repeat(count))
}

/// Returns a valid plugin that also contains this module, but never instantiates it.
pub(crate) fn bomb(module: &[u8]) -> Vec<u8> {
    [fs::read(guest(SINGLETON)).unwrap(), section(1, module)].concat()
}

fn runtime(compiler: PathBuf, compile: CompileLimits, functions: usize) -> Arc<PluginRuntime> {
    let default = PluginSettings::default();
    // The time limit is long, because debug builds on a busy machine are slow.
    let compiled = PluginLimits { functions, time: Duration::from_secs(5), ..default.compiled };
    PluginRuntime::new(PluginSettings { compiler, compile, compiled, ..default }).unwrap()
}

const WIDE: CompileLimits = CompileLimits { time: Duration::from_secs(600), memory_bytes: 4_096 * MIB };
const SHORT: CompileLimits = CompileLimits { time: Duration::from_secs(1), ..WIDE };

/// Runs the compiler's process.
fn compiler_output(component: &[u8], functions: Option<&[u8]>, threads: usize, memory_bytes: u64) -> Output {
    let mut command = Command::new(compiler());
    command.args([COMPILE_COMMAND, "--cpu-seconds", "600", "--memory-bytes", &memory_bytes.to_string()]);
    command.args(["--threads", &threads.to_string(), "--parent", &std::process::id().to_string()]);
    command.args(functions.map(|_| "--keep-functions"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let parts = [&(component.len() as u64).to_le_bytes(), component, functions.unwrap_or_default()].concat();
    input.write_all(&parts).unwrap();
    drop(input);
    child.wait_with_output().unwrap()
}

/// Compiles a component. Returns the code, and the functions for later compilations.
fn compile(component: &[u8], functions: Option<&[u8]>, threads: usize) -> (Vec<u8>, Vec<u8>) {
    let output = compiler_output(component, functions, threads, WIDE.memory_bytes);
    assert!(output.status.success());
    let (length, rest) = output.stdout.split_first_chunk().unwrap();
    let (code, functions) = rest.split_at(usize::try_from(u64::from_le_bytes(*length)).unwrap());
    (code.to_vec(), functions.to_vec())
}

/// Returns the keys of functions for later compilations.
fn keys(mut functions: &[u8]) -> HashSet<&[u8]> {
    let mut keys = HashSet::new();
    while let Some((key, rest)) = functions.split_at_checked(32) {
        let (length, rest) = rest.split_first_chunk().unwrap();
        functions = &rest[u32::from_le_bytes(*length) as usize..];
        keys.insert(key);
    }
    keys
}

#[test]
fn known_functions_are_not_compiled_again() {
    let component = fs::read(guest(SINGLETON)).unwrap();
    let (code, none) = compile(&component, None, 1);
    assert!(none.is_empty());
    let (first, functions) = compile(&component, Some(b""), 1);
    assert!(first == code);
    assert!(!functions.is_empty());
    let known = keys(&functions);
    for threads in [1, 4] {
        let (second, new) = compile(&component, Some(&functions), threads);
        assert!(second == code, "the same code from the cache, {threads} threads");
        let missed = keys(&new).difference(&known).count();
        assert!(missed < known.len() / 2, "{missed} of {} functions", known.len());
    }
    let other = bomb(&loops(10));
    let (third, new) = compile(&other, Some(&functions), 1);
    assert!(third == compile(&other, None, 4).0);
    assert!(keys(&new).difference(&known).count() > 0, "one more function");
}

#[test]
fn python_plugins_share_functions() {
    let dir = tempfile::tempdir().unwrap();
    // A compiler that records the size of its input.
    let (script, sizes) = (dir.path().join("compiler"), dir.path().join("sizes"));
    let [input, log, real] = [&dir.path().join("input"), &sizes, &compiler()].map(|path| path.display().to_string());
    let text =
        format!("#!/bin/sh\n/bin/cat > {input}\n/usr/bin/wc -c < {input} >> {log}\nexec {real} \"$@\" < {input}\n");
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let settings = PluginSettings {
        compiler: script,
        compile: WIDE,
        cache_dir: Some(dir.path().join("compiled")),
        ..PluginSettings::default()
    };
    let runtime = PluginRuntime::new(settings).unwrap();
    let build = |class: PluginClass| {
        let [language, sources, sdk, tool] = ["any", "sha256:0", "0.3.0", "test"].map(str::to_owned);
        BuildInfo { format: 1, language, class, sources, sdk, tool }
    };
    // The size of the input without functions is the size of the component and of its length.
    let functions_of = |class: PluginClass, loop_count: usize| {
        let mut component = bomb(&loops(loop_count));
        build(class).append(&mut component);
        runtime.load(&component).unwrap();
        let sizes = fs::read_to_string(&sizes).unwrap();
        sizes.lines().last().unwrap().trim().parse::<usize>().unwrap() - component.len() - 8
    };
    assert_eq!(functions_of(PluginClass::Interpreted, 1), 0, "the first one");
    assert!(functions_of(PluginClass::Interpreted, 2) > 10_000, "the functions of the first one");
    assert_eq!(functions_of(PluginClass::Compiled, 3), 0, "another class");
}

#[test]
fn compiler_with_threads_ends_without_memory() {
    let many = bomb(&module(4_000, &[0x03, 0x40, 0x0b]));
    for threads in [1, 4] {
        let output = compiler_output(&many, None, threads, 16 * MIB);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(Signal::ABORT.as_raw()), "{message}");
        assert!(message.contains("memory allocation"), "{message}");
    }
}

#[test]
fn outline_is_checked_before_compiling() {
    // The compiler does not exist, so a file that has to be compiled fails with another error.
    let runtime = runtime("/no/compiler".into(), WIDE, 20_000);
    let rejected = |bytes: &[u8]| runtime.load(bytes).unwrap_err();
    let without_exports = [COMPONENT, &section(1, &loops(ENDLESS))].concat();
    assert!(matches!(rejected(&without_exports), LoadError::Exports(missing) if missing.len() == 3));
    let many = bomb(&module(20_000, &[]));
    assert!(matches!(rejected(&many), LoadError::Functions { limit: 20_000, .. }));
    let imports = [COMPONENT, &[0x0a, 6, 1, 0, 1, b'x', 1, 0]].concat();
    assert!(matches!(rejected(&imports), LoadError::Imports(_) | LoadError::Broken(_)));
    let cut = bomb(&loops(ENDLESS));
    assert!(matches!(rejected(&cut[..cut.len() - 1]), LoadError::Broken(_)));
    // A file that passes the checks has to be compiled.
    assert!(matches!(rejected(&bomb(&loops(1))), LoadError::Compiler(why) if why.contains("/no/compiler")));
}

#[test]
fn compiling_is_bounded_in_cpu_time() {
    let error = runtime(compiler(), SHORT, 20_000).load(&bomb(&loops(ENDLESS))).unwrap_err();
    assert!(matches!(error, LoadError::Killed(CompileKill::Time(_))), "{error}");
    assert!(error.to_string().contains("took more than 1 s of CPU time"), "{error}");
    assert!(error.to_string().ends_with("hint: raise 'plugins: compile_time_max'"), "{error}");
    runtime(compiler(), WIDE, 20_000).load(&bomb(&loops(100))).unwrap();
}

#[test]
fn compiling_is_bounded_in_memory() {
    let many = bomb(&module(4_000, &[0x03, 0x40, 0x0b]));
    let tight = CompileLimits { memory_bytes: 24 * MIB, ..WIDE };
    let error = runtime(compiler(), tight, 100_000).load(&many).unwrap_err();
    assert!(matches!(error, LoadError::Killed(CompileKill::Memory(_))), "{error}");
    assert!(error.to_string().contains("needed more than 24 MiB of memory"), "{error}");
    // The limit is sufficient for a typical plugin.
    runtime(compiler(), tight, 100_000).load(&fs::read(guest(SINGLETON)).unwrap()).unwrap();
}

#[test]
fn compilers_memory_does_not_stay() {
    let resident = || {
        let statm = fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
    };
    let runtime = runtime(compiler(), WIDE, 100_000);
    let before = resident();
    // The compiler needs about 25 MiB for this module.
    runtime.load(&bomb(&module(2_000, &[0x03, 0x40, 0x0b]))).unwrap();
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 * MIB, "{} MiB more", grown / MIB);
}

fn limits(time: &str) -> String {
    format!("plugins: {{compile_time_max: {time}}}\n")
}

fn place(bytes: &[u8], dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("odfv_singleton.wasm"), bytes).unwrap();
}

fn rejection(fixture: &Fixture) -> Option<String> {
    let plugins = fixture.app.plugins();
    plugins.into_iter().find(|plugin| plugin.plugin == "odfv_singleton")?.rejected
}

fn trips(fixture: &Fixture) -> wire::Answer {
    fixture.features(&["odfv_singleton:trips_plus_one"], json!({ "driver_id": [1001] }))
}

#[test]
fn host_serves_while_it_compiles() {
    let setup = Setup::golden().config(&limits("10m")).unready();
    place(&bomb(&loops(ENDLESS)), &setup.path("plugins"));
    let mut fixture = setup.start();
    fixture.eventually("views loaded", || fixture.get("/ready").json()["why"] == "plugins are being compiled");
    assert_eq!(fixture.get("/ready").status, 503);
    assert!(fixture.app.plugins().iter().any(|plugin| plugin.compiling));
    // This view has `on_error: fail`, so a request for it fails.
    assert_eq!(trips(&fixture).status, 501);
    let stored = fixture.features(&["driver_stats:conv_rate"], json!({ "driver_id": [1001] }));
    assert_eq!(stored.column("conv_rate")["values"], json!([0.6001]));
    // A plugin that is deployed with a command is compiled while the other compilation runs.
    fixture.app.deploy(&fs::read(guest(SINGLETON)).unwrap(), false).unwrap();
    assert_eq!(trips(&fixture).column("trips_plus_one")["values"], json!([1002]));
    let started = Instant::now();
    fixture.stop();
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn killed_file_is_retried_on_demand() {
    let setup = Setup::golden().config(&limits("1s"));
    place(&bomb(&loops(ENDLESS)), &setup.path("plugins"));
    let fixture = setup.start();
    let why = rejection(&fixture).unwrap();
    assert!(why.contains("took more than 1 s of CPU time"), "{why}");
    let fixture = fixture.restart();
    fixture.until_ready();
    let why = rejection(&fixture).unwrap();
    assert!(
        why.starts_with("an earlier compilation of this file was killed because it took more than 1 s of CPU time"),
        "{why}"
    );
    // A command compiles the file again. Another file in the directory is also compiled.
    let why = fixture.app.deploy(&bomb(&loops(ENDLESS)), false).unwrap_err();
    assert!(why.starts_with("compiling the component took more than 1 s of CPU time"), "{why}");
    place(&bomb(&loops(100)), &fixture.path("plugins"));
    eventually_within("the good file is live", Duration::from_secs(300), || trips(&fixture).status == 200);
    assert_eq!(rejection(&fixture), None);
}

/// Starts a server with a compilation that takes minutes. Returns the server and the `/proc` directory of the process
/// that compiles.
fn compiling() -> (Home, Running, SocketAddr, PathBuf) {
    let home = Home::golden_loaded();
    home.configure(&limits("10m"));
    place(&bomb(&loops(ENDLESS)), &home.path("plugins"));
    let (host, address) = home.serve();
    let compiler = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", host.id())).unwrap();
        let children = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
        tasks.map(|task| children(task.unwrap())).collect::<String>().trim().to_owned()
    };
    eventually("the compilation has started", || !compiler().is_empty());
    let process = Path::new("/proc").join(compiler());
    (home, host, address, process)
}

/// Returns whether a process has ended. A process whose parent has ended may stay a zombie until the init process reaps
/// it.
fn has_ended(process: &Path) -> bool {
    fs::read_to_string(process.join("stat")).map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn sigterm_ends_host_that_compiles() {
    let (_home, host, address, compiler) = compiling();
    assert_eq!(wire::send(address, "GET", "/health", &[], b"").status, 200);
    let started = Instant::now();
    host.stop(Signal::TERM);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    eventually("the compiler has ended", || has_ended(&compiler));
}

#[test]
fn compiler_ends_with_killed_host() {
    let (_home, mut host, _, compiler) = compiling();
    assert!(!has_ended(&compiler));
    host.signal(Signal::KILL);
    assert_eq!(host.end().0, None);
    eventually("the compiler has ended", || has_ended(&compiler));
}

#[test]
fn check_of_a_bomb_is_bounded() {
    let home = Home::empty();
    let without_exports = [COMPONENT, &section(1, &loops(ENDLESS))].concat();
    fs::write(home.path("bomb.wasm"), without_exports).unwrap();
    for command in ["check", "bench", "inspect"] {
        let ended = home.run(["plugin", command, "bomb.wasm"]);
        ended.assert_code(1).assert_complains(&["does not export describe, configure, transform"]);
    }
}
