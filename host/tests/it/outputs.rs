//! Standard output and error that cannot be written to, socket paths in use, and directories writable by other users.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::{binary::Home, fixture::eventually, wire};

/// A running server. It is killed on drop.
struct Host(Child);

impl Host {
    /// Starts a server, with standard error and standard output redirected.
    fn start(command: &mut Command, err: impl Into<Stdio>, out: impl Into<Stdio>) -> Self {
        Self(command.stderr(err).stdout(out).spawn().unwrap())
    }

    fn stop(mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        let started = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            assert!(started.elapsed() < Duration::from_secs(30), "the server does not stop");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Creates a copy of the golden repository, with a port in its configuration that was free a moment ago. The test
/// cannot read the port from the log.
fn home_on_a_port(logs: &str) -> (Home, std::net::SocketAddr) {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let home = Home::golden_loaded();
    let config = fs::read_to_string(home.path("larder.yaml")).unwrap();
    let config = config.replace("listen: 127.0.0.1:0, workers", &format!("listen: '{address}', workers"));
    home.write("larder.yaml", &format!("{config}log: {{level: {logs}}}\n"));
    (home, address)
}

fn is_ready(address: std::net::SocketAddr) -> bool {
    std::net::TcpStream::connect(address).is_ok() && wire::send(address, "GET", "/ready", &[], b"").status == 200
}

fn lookup(address: std::net::SocketAddr) -> u16 {
    let body = json!({ "features": ["driver_stats:conv_rate"], "entities": { "driver_id": [1001] } }).to_string();
    wire::send(address, "POST", "/get-online-features", &[], body.as_bytes()).status
}

#[test]
fn server_runs_without_log_reader() {
    for gone_before in [true, false] {
        let (home, address) = home_on_a_port("debug");
        let (reader, writer) = io::pipe().unwrap();
        let reader = Some(reader).filter(|_| !gone_before);
        let host = Host::start(&mut home.larder(["serve"]), writer, Stdio::null());
        eventually("ready", || is_ready(address));
        drop(reader);
        kill_process(Pid::from_child(&host.0), Signal::HUP).unwrap();
        assert_eq!(lookup(address), 200);
        assert_eq!(host.stop(), Some(0), "reader closed before the start: {gone_before}");
    }
}

#[test]
fn server_runs_with_blocked_log_reader() {
    let (home, address) = home_on_a_port("trace");
    let (_reader, writer) = io::pipe().unwrap();
    let host = Host::start(&mut home.larder(["serve"]), writer, Stdio::null());
    eventually("ready", || is_ready(address));
    // The reloads log more lines than fit into the pipe and the log's queue.
    for _ in 0..200 {
        kill_process(Pid::from_child(&host.0), Signal::HUP).unwrap();
        assert_eq!(lookup(address), 200);
    }
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn server_runs_with_full_output_device() {
    let (home, address) = home_on_a_port("debug");
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let host = Host::start(&mut home.larder(["serve"]), full(), full());
    eventually("ready", || is_ready(address));
    assert_eq!((lookup(address), host.stop()), (200, Some(0)));
}

#[test]
fn demo_runs_without_output_reader() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let home = Home::empty();
    let (reader, out) = io::pipe().unwrap();
    drop(reader);
    let listen = address.to_string();
    let mut command = home.larder(["demo", "--dir", "demo", "--customers", "50", "--listen", &listen]);
    let host = Host::start(&mut command, out.try_clone().unwrap(), out);
    eventually("ready", || is_ready(address));
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn result_into_full_device_exits_1() {
    let home = Home::golden_loaded();
    home.write("rows.json", "[]");
    let commands: &[&[&str]] = &[
        &["list"],
        &["list", "--json"],
        &["get", "--feature", "driver_stats:conv_rate", "driver_id=1001"],
        &["get", "--json", "--feature", "driver_stats:conv_rate", "driver_id=1001"],
        &["verify", "--feature", "driver_stats:conv_rate", "driver_id=1001"],
        &["check"],
        &["sync"],
        &["plugin", "list"],
        &["plugin", "list", "--json"],
        &["--help"],
        &["list", "--help"],
        &["--version"],
    ];
    for words in commands {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let ended = home.larder(words.iter().copied()).stdout(full).output().unwrap();
        let err = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{words:?}: {err}");
        assert!(err.contains("cannot write to standard output: No space left on device"), "{words:?}: {err}");
    }
}

#[test]
fn closed_stdout_pipe_is_not_error() {
    let home = Home::golden_loaded();
    for words in [&["list", "--json"][..], &["check"], &["--help"]] {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let ended = home.larder(words.iter().copied()).stdout(writer).output().unwrap();
        let err = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), err.as_str()), (Some(0), ""), "{words:?}");
    }
}

#[test]
fn command_times_out_on_silent_socket() {
    let home = Home::golden();
    fs::create_dir_all(home.path("data/store")).unwrap();
    // The kernel queues the connection; no process accepts it.
    let _silent = UnixListener::bind(home.path("data/store/admin.sock")).unwrap();
    for arguments in [&["list"][..], &["sync"]] {
        let started = Instant::now();
        let ended = home.run(arguments.iter().copied());
        ended.assert_code(1).assert_complains(&["data/store/admin.sock did not respond within 10 s"]);
        assert!(started.elapsed() < Duration::from_secs(25));
    }
}

#[test]
fn socket_path_of_file_is_rejected() {
    let home = Home::golden_loaded();
    home.write("precious", "precious");
    home.configure("admin: {socket: precious}\n");
    let (mut host, _) = home.serve();
    let told = host.heard().join("\n");
    assert!(told.contains("the path already names a regular file"), "{told}");
    host.signal(Signal::TERM);
    assert_eq!(host.end().0, Some(0));
    assert_eq!(fs::read_to_string(home.path("precious")).unwrap(), "precious");

    // Clients use the data socket, so the server does not start without it.
    let config = fs::read_to_string(home.path("larder.yaml")).unwrap();
    let with = |socket: &str| {
        let config = config
            .replace("admin: {socket: precious}\n", "")
            .replace("workers: 2", &format!("workers: 2, unix_socket: {socket}"));
        home.write("larder.yaml", &config);
        home.run(["serve"])
    };
    with("precious").assert_code(1).assert_complains(&["server: unix_socket", "already names a regular file"]);
    fs::create_dir(home.path("dir")).unwrap();
    with("dir").assert_code(1).assert_complains(&["already names a directory"]);
    let _live = UnixListener::bind(home.path("live")).unwrap();
    with("live").assert_code(1).assert_complains(&["already names a socket that another process may listen on"]);
    std::os::unix::fs::symlink("live", home.path("link")).unwrap();
    with("link").assert_code(1).assert_complains(&["already names a symbolic link"]);
    assert!(["precious", "dir", "live", "link"].iter().all(|name| fs::symlink_metadata(home.path(name)).is_ok()));
    assert_eq!(fs::read_to_string(home.path("precious")).unwrap(), "precious");
}

#[test]
fn shared_data_directory_becomes_private() {
    let home = Home::golden_loaded();
    let dir = home.path("data/store");
    let mode = || fs::metadata(&dir).unwrap().permissions().mode() & 0o777;
    fs::set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(dir.join("online.redb"), Permissions::from_mode(0o666)).unwrap();
    let listed = home.run(["list"]);
    listed
        .assert_code(0)
        .assert_complains(&["other users could write to this directory", "other users had permissions"]);
    assert_eq!(mode(), 0o755);
    assert_eq!(fs::metadata(dir.join("online.redb")).unwrap().permissions().mode() & 0o777, 0o600);
    home.run(["list"]).assert_code(0);

    // The directory has the same permissions as `/tmp`, which a server must not make private.
    fs::set_permissions(&dir, Permissions::from_mode(0o1777)).unwrap();
    home.run(["serve"]).assert_code(4).assert_complains(&["data/store", "other users share this directory"]);
}

#[test]
fn foreign_data_directory_is_rejected() {
    let home = Home::golden_loaded();
    let dir = home.path("data/store");
    // Only root can change the owner of a directory.
    if std::os::unix::fs::chown(&dir, Some(12_345), None).is_err() {
        return;
    }
    home.run(["serve"]).assert_code(4).assert_complains(&["data/store", "it belongs to user 12345"]);
}
