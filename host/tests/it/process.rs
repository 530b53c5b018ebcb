//! The running program from an operator's view: signals, a second server with the same configuration, and the demo.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use larder_fakeaws::{FakeDynamo, FakeS3, Fault, FaultProxy, When};
use rustix::process::Signal;
use serde_json::json;

use crate::{
    binary::{Home, LARDER_YAML, Running},
    feast_repo::FEATURE_STORE,
    fixture::{eventually, eventually_within},
    generations::{Generations, VIEWS, is_read_whole, rows_at, rows_of},
    wire::{self, Underway},
};

/// The maximum time for a stop. It is much shorter than the 20 s after which a server drops requests in progress.
const SOON: Duration = Duration::from_secs(10);

const CLIENTS: usize = 4;

const LISTEN: &str = "server: {listen: 127.0.0.1:0}\nmetrics: {listen: off}\n";

const DRIVERS_IN_S3: &str = "\
entities: [{name: driver, join_key: driver_id, type: Int64}]
feature_views:
  - name: drivers
    entities: [driver]
    features: [{name: conv_rate, type: Float32}]
    source: {path: 's3://rows/x.parquet', timestamp_field: event_timestamp}
";

fn lookup() -> String {
    json!({ "features": ["driver_stats:conv_rate"], "entities": { "driver_id": [1001] } }).to_string()
}

fn get(address: SocketAddr, path: &str) -> wire::Answer {
    wire::send(address, "GET", path, &[], b"")
}

/// Stops a server. Checks that this takes less than [`SOON`], and that no request was dropped. Returns the output.
#[track_caller]
fn stop_soon(host: Running) -> String {
    let started = Instant::now();
    let said = host.stop(Signal::TERM);
    assert!(started.elapsed() < SOON, "stopping took {:?}:\n{said}", started.elapsed());
    assert!(!said.contains("stopped without waiting"), "{said}");
    said
}

/// Sends requests on one connection until the server closes it. Checks each response.
fn hammer(address: SocketAddr, answered: &AtomicUsize) {
    let body = lookup();
    let length = body.len();
    let ask = format!("POST /get-online-features HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}");
    let mut stream = wire::connect(address);
    while stream.write_all(ask.as_bytes()).is_ok() {
        // The server may close the connection between two responses, but it completes each response that it has begun.
        let Some(answer) = wire::read_answer(&mut stream) else { return };
        assert_eq!(answer.column("conv_rate")["values"], json!([0.6001]));
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn sigterm_under_load_completes_responses() {
    let home = Home::golden_loaded();
    for _ in 0..5 {
        let (host, address) = home.serve();
        let answered = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| hammer(address, &answered));
            }
            eventually("the clients send requests", || answered.load(Ordering::Relaxed) > 20 * CLIENTS);
            stop_soon(host);
        });
        // The port may stay open for a moment if the server of another test has taken it meanwhile.
        eventually("the server no longer listens", || TcpStream::connect(address).is_err());
    }
}

#[test]
fn sigterm_answers_request_in_progress() {
    let home = Home::golden_loaded();
    let (mut host, address) = home.serve();
    let request = Underway::begin(address, lookup().as_bytes());
    // Two other connections do not delay the stop. One has had a response, and the other has not sent a request.
    let mut idle = wire::connect(address);
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert_eq!(wire::read_answer(&mut idle).unwrap().status, 200);
    host.signal(Signal::TERM);
    eventually("the server no longer listens", || TcpStream::connect(address).is_err());
    assert_eq!(request.end().column("conv_rate")["values"], json!([0.6001]));
    assert_eq!(idle.read(&mut [0; 16]).unwrap_or(0), 0, "closed");
    let (code, said) = host.end();
    assert!(code == Some(0) && !said.contains("stopped without waiting"), "{code:?}: {said}");
}

#[test]
fn failed_sighup_reload_keeps_definitions() {
    let home = Home::golden_loaded();
    home.configure("reload: {every: 0}\n");
    let (mut host, address) = home.serve();
    let serves = |view: &str| get(address, "/v1/catalog").text().contains(view);
    let view = |key: &str| format!("feature_views: [{{{key}: more_stats, features: [{{name: x, type: Int64}}]}}]\n");
    home.write("features/more.yaml", &view("nam"));
    host.signal(Signal::HUP);
    host.until("reload failed; keeping the previous definitions");
    assert!(serves("driver_stats") && !serves("more_stats"));

    home.write("features/more.yaml", &view("name"));
    host.signal(Signal::HUP);
    host.until("definitions reloaded");
    assert!(serves("more_stats"));
    stop_soon(host);
}

#[test]
fn rejected_reload_logs_hundred_errors() {
    let home = Home::golden_loaded();
    home.configure("reload: {every: 0}\n");
    let (mut host, _) = home.serve();
    let views: String = (0..150).map(|n| format!("  - {{name: v{n}, features: [], wrong_{n}: 1}}\n")).collect();
    home.write("features/more.yaml", &format!("feature_views:\n{views}"));
    host.signal(Signal::HUP);
    host.until("more; 'larder check' lists all of them");
    host.signal(Signal::TERM);
    let (_, said) = host.end();
    assert_eq!(said.matches("more.yaml:").count(), 100, "{said}");
}

#[test]
fn idle_connection_does_not_delay_stop() {
    let home = Home::golden_loaded();
    let (host, address) = home.serve();
    let silent = wire::connect(address);
    // Connections are accepted in order, so when this response arrives, the silent connection has been accepted.
    assert_eq!(get(address, "/health").status, 200);
    stop_soon(host);
    drop(silent);
}

#[test]
fn second_signal_skips_waiting() {
    let home = Home::golden_loaded();
    let (mut host, address) = home.serve();
    let _unfinished = Underway::begin(address, lookup().as_bytes());
    host.signal(Signal::TERM);
    eventually("the server no longer listens", || TcpStream::connect(address).is_err());
    assert!(!host.has_ended(), "the server waits for the request");
    host.signal(Signal::INT);
    let started = Instant::now();
    let (code, said) = host.end();
    assert!(started.elapsed() < SOON && code == Some(0), "{code:?}: {said}");
    assert!(said.contains("stopped without waiting for open requests"), "{said}");
}

#[test]
fn drain_timeout_drops_requests() {
    let home = Home::golden_loaded();
    home.write("larder.yaml", &LARDER_YAML.replace("workers: 2", "workers: 2, limits: {drain_timeout: 100ms}"));
    let (host, address) = home.serve();
    let mut unfinished = Underway::begin(address, lookup().as_bytes());
    let said = host.stop(Signal::TERM);
    assert!(said.contains("stopped without waiting for open requests"), "{said}");
    assert!(unfinished.is_closed());
}

#[test]
fn sigterm_ends_sync_at_commit() {
    let world = Generations::new();
    world.write(1);
    world.home.run(["sync"]).assert_code(0);
    world.write(2);
    let (host, address) = world.home.serve();
    let newest_event = || get(address, "/v1/catalog").json()["feature_views"][0]["newest_event"].clone();
    let before = newest_event();
    eventually("a sync is in progress", || newest_event() != before);
    stop_soon(host);

    let stored = world.stored(&world.open());
    assert!(stored[0].rows == rows_at(VIEWS[0], 2, &stored[0].read), "at {:?}", stored[0].read);
    assert!(!is_read_whole(VIEWS[1], &stored[1].read), "the sync was not interrupted: {:?}", stored[1].read);
    world.home.run(["sync"]).assert_code(0);
    let stored = world.stored(&world.open());
    assert!(VIEWS.iter().zip(&stored).all(|(view, stored)| stored.rows == rows_of(view, 2)));
}

/// Rows of a large first load are stored as they are read, but they are not served before the load is complete.
#[test]
fn interrupted_first_sync_resumes() {
    let world = Generations::new();
    world.write(1);
    for delay in (20..).step_by(20) {
        let mut sync = world.home.start(["sync"]);
        // In each round, the signal arrives at a later time during the load.
        thread::sleep(Duration::from_millis(delay));
        sync.signal(Signal::TERM);
        sync.end();
        let read = world.built(&world.open());
        let stored = world.stored(&world.open());
        let is_served = stored[0].rows == rows_of(VIEWS[0], 1);
        assert!(is_served || stored[0].rows == rows_of(VIEWS[0], 0), "all rows are served, or none");
        assert!(!is_served, "the sync was never interrupted");
        if read.iter().sum::<u64>() > 0 {
            break;
        }
    }
    // A file that was read completely is not read again, so it can be missing.
    assert_eq!(world.built(&world.open())[0], 300);
    let (file, away) = (world.home.path("data/account_stats/00.parquet"), world.home.path("away"));
    std::fs::rename(&file, &away).unwrap();
    world.home.run(["sync", "account_stats"]).assert_code(0);
    std::fs::rename(&away, &file).unwrap();
    assert!(world.stored(&world.open())[0].rows == rows_of(VIEWS[0], 1));
}

/// Neither a registry poll nor a load delays the stop while it waits for S3.
#[test]
fn silent_s3_does_not_delay_stop() {
    let (s3, home) = (FakeS3::start(), Home::golden());
    for (bucket, key, file) in
        [("acme", "registry.db", "data/registry.db"), ("rows", "x.parquet", "data/driver_stats.parquet")]
    {
        s3.create_bucket(bucket);
        s3.put(bucket, key, fs::read(home.path(file)).unwrap());
    }
    for is_registry in [true, false] {
        let proxy = FaultProxy::start(s3.address());
        let aws = format!(
            "aws: {{region: eu-west-1, s3_endpoint: '{}', s3_path_style: true, attempt_timeout: 60s, operation_timeout: 120s}}\n",
            proxy.url()
        );
        let home = Home::empty();
        if is_registry {
            home.write("feature_store.yaml", &FEATURE_STORE.replace("data/registry.db", "s3://acme/registry.db"));
            home.write("larder.yaml", &format!("feast: {{repo: .}}\n{LISTEN}reload: {{registry_every: 100ms}}\n{aws}"));
        } else {
            home.write("larder.yaml", &format!("{LARDER_YAML}reload: {{every: 0}}\n{aws}"));
            home.write("features/all.yaml", DRIVERS_IN_S3);
            proxy.silence(true);
        }
        let (host, _) = home.serve();
        proxy.silence(true);
        eventually("it waits for S3", || proxy.bytes_ignored() > 0);
        stop_soon(host);
    }
}

/// Covers all ways to request a load, with callers that wait for the result and callers that have disconnected.
#[test]
fn requested_loads_do_not_delay_stop() {
    let s3 = FakeS3::start();
    s3.create_bucket("rows");
    let proxy = FaultProxy::start(s3.address());
    proxy.silence(true);
    let home = Home::empty();
    let aws = format!(
        "sync: {{on_start: false}}\naws: {{region: eu-west-1, s3_endpoint: '{}', s3_path_style: true, \
         attempt_timeout: 10m, operation_timeout: 10m}}\n",
        proxy.url()
    );
    home.write("larder.yaml", &format!("{LARDER_YAML}reload: {{every: 0}}\n{aws}"));
    home.write("features/all.yaml", DRIVERS_IN_S3);
    let body = json!({ "disable_event_timestamp": true }).to_string();
    for (caller, stays) in [("http", true), ("http", false), ("async", false), ("admin", true), ("admin", false)] {
        let before = proxy.connections();
        let (host, address) = home.serve();
        let path = if caller == "async" { "/materialize?async=true" } else { "/materialize" };
        let mut waiting = None;
        let mut command = None;
        if caller == "admin" {
            command = Some(home.start(["sync"]));
        } else {
            let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let mut stream = wire::connect(address);
            stream.write_all(head.as_bytes()).unwrap();
            waiting = Some(stream);
        }
        eventually("it waits for S3", || proxy.connections() > before);
        if !stays {
            drop((waiting.take(), command.take()));
        }
        let said = stop_soon(host);
        assert!(!said.contains("panicked"), "{caller}: {said}");
        if let Some(mut stream) = waiting {
            assert_eq!(wire::read_answer(&mut stream).unwrap().status, 503, "{caller}: {said}");
        }
        if let Some(mut command) = command {
            let (code, said) = command.end();
            assert_eq!(code, Some(1), "{said}");
            assert!(said.contains("drivers") && said.contains("stop"), "{said}");
        }
    }
}

#[test]
fn silent_dynamodb_does_not_delay_stop() {
    let dynamo = FakeDynamo::start();
    dynamo.create_table("stats", &[("driver_id", "N")], None);
    dynamo.put("stats", json!({ "driver_id": { "N": "1" }, "conv_rate": { "N": "0.5" } }));
    let proxy = FaultProxy::start(dynamo.address());
    for operation in ["DescribeTable", "Scan"] {
        proxy.heal();
        proxy.rule(operation, When::Always, Fault::Silence);
        let home = Home::empty();
        let aws = format!(
            "aws: {{region: eu-west-1, dynamodb_endpoint: '{}', attempt_timeout: 10m, operation_timeout: 10m}}\n",
            proxy.url()
        );
        home.write("larder.yaml", &format!("{LARDER_YAML}reload: {{every: 0}}\n{aws}"));
        let source = "source: {dynamodb: stats, layout: wide}";
        let files = "source: {path: 's3://rows/x.parquet', timestamp_field: event_timestamp}";
        home.write("features/all.yaml", &DRIVERS_IN_S3.replace(files, source));
        let before = proxy.counts();
        let (host, _) = home.serve();
        eventually("it waits for DynamoDB", || proxy.counts() != before);
        stop_soon(host);
    }
}

#[test]
fn sigterm_during_start_ends_server() {
    let s3 = FakeS3::start();
    let proxy = FaultProxy::start(s3.address());
    proxy.silence(true);
    let home = Home::empty();
    home.write("feature_store.yaml", &FEATURE_STORE.replace("data/registry.db", "s3://acme/registry.db"));
    let aws = format!(
        "aws: {{region: eu-west-1, s3_endpoint: '{}', s3_path_style: true, attempt_timeout: 10m, operation_timeout: 10m}}\n",
        proxy.url()
    );
    home.write("larder.yaml", &format!("feast: {{repo: .}}\n{LISTEN}{aws}"));
    let host = home.start(["serve"]);
    eventually("it waits for its registry", || proxy.connections() > 0);
    let started = Instant::now();
    let said = host.stop(Signal::TERM);
    assert!(started.elapsed() < SOON && said.contains("stopped during startup, before serving requests"), "{said}");
}

#[test]
fn sync_ended_by_stop_has_reason() {
    let world = Generations::new();
    world.home.configure("reload: {every: 0}\n");
    world.write(1);
    let (host, address) = world.home.serve();
    eventually("all views are loaded", || get(address, "/ready").status == 200);
    world.write(2);
    let mut sync = world.home.start(["sync"]);
    // Views are synced in order, and the result of each is printed when it ends. After this line, the second sync is in
    // progress.
    sync.until("account_stats: ");
    stop_soon(host);
    let (code, said) = sync.end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("balance_stats") && said.contains("stop"), "{said}");
}

/// Returns the resident memory of a process in MiB.
fn resident(host: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", host.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

#[test]
fn freed_memory_returns_when_idle() {
    let (host, address) = Home::golden_loaded().serve();
    let before = resident(&host);
    let unfinished = || {
        let mut stream = TcpStream::connect(address).unwrap();
        let head = b"POST /get-online-features HTTP/1.1\r\nhost: x\r\ncontent-length: 2000000\r\n\r\n";
        stream.write_all(head).unwrap();
        stream.write_all(&vec![b' '; 1_900_000]).unwrap();
        stream
    };
    let bodies: Vec<TcpStream> = (0..60).map(|_| unfinished()).collect();
    eventually("the bodies are in memory", || resident(&host) >= before + 100);
    drop(bodies);
    eventually_within("memory is freed", Duration::from_secs(60), || resident(&host) < before + 40);
    stop_soon(host);
}

#[test]
fn second_server_exits_4() {
    let home = Home::golden_loaded();
    let (host, address) = home.serve();
    let second = home.run(["serve"]);
    second.assert_code(4).assert_complains(&["data/store/online.redb is in use by another Larder"]);
    assert_eq!(get(address, "/ready").status, 200);
    let asked = home.run(["get", "--feature", "driver_stats:conv_rate", "driver_id=1001"]);
    asked.assert_code(0);
    stop_soon(host);
}

#[test]
fn used_address_exits_1_with_setting() {
    let home = Home::golden();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let serve = home.run(["serve", "--listen", &address]);
    serve.assert_code(1).assert_complains(&["server: listen: cannot listen on", &address, "in use"]);
    let config = LARDER_YAML.replace("metrics: {listen: off}", &format!("metrics: {{listen: '{address}'}}"));
    home.write("larder.yaml", &config);
    let serve = home.run(["serve"]);
    serve.assert_code(1).assert_complains(&["metrics: listen: cannot listen on", &address, "in use"]);
}

#[test]
fn metrics_port_answers_head() {
    let home = Home::golden_loaded();
    home.write("larder.yaml", &LARDER_YAML.replace("listen: off", "listen: '127.0.0.1:0'"));
    let mut host = home.start(["serve"]);
    let line = host.until("serving listen=");
    let address = line.split("metrics=").nth(1).unwrap().split(' ').next().unwrap().trim_matches('"').parse().unwrap();
    let head = wire::send(address, "HEAD", "/metrics", &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(get(address, "/metrics").text().contains("larder_build_info{"));
    stop_soon(host);
}

/// A running demo in its own directory, with its output up to the last line of its start.
struct Demo {
    home: Home,
    running: Running,
    said: Vec<String>,
}

impl Demo {
    fn start(metrics: &str) -> Self {
        Self::start_with(metrics, &[])
    }

    fn start_with(metrics: &str, args: &[&str]) -> Self {
        let home = Home::empty();
        let mut command = home.larder(["demo", "--customers", "200", "--listen", "127.0.0.1:0"]);
        command.args(args);
        let mut running = Running::new(command.env("LARDER_METRICS_LISTEN", metrics).spawn().unwrap());
        running.until("Press Ctrl-C to stop.");
        let said = running.heard().to_vec();
        Self { home, running, said }
    }

    #[track_caller]
    fn line(&self, words: &str) -> &str {
        self.said.iter().find(|line| line.contains(words)).unwrap_or_else(|| panic!("no '{words}' in {:?}", self.said))
    }

    fn metrics(&self) -> SocketAddr {
        let url = self.line("/metrics").split("http://").nth(1).unwrap();
        url.split('/').next().unwrap().parse().unwrap()
    }
}

#[test]
fn demo_commands_work_and_sigint_stops() {
    let demo = Demo::start("127.0.0.1:0");
    assert!(demo.line("generated").starts_with("generated 200 customers in demo/data"));
    demo.line("churn_prediction_online");
    demo.line("Latency of the first of these requests, without HTTP: median ");

    // The test runs the printed command in the directory in which the demo was started.
    let typed = demo.line(" get --config ").trim();
    let output = Command::new("sh").args(["-c", typed]).current_dir(demo.home.path("")).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && out.contains("CUST_000123"), "{typed}: {out}");

    let curl = demo.line("/get-online-features");
    let address = curl.split("http://").nth(1).unwrap().split('/').next().unwrap().parse().unwrap();
    let body = curl.split('\'').nth(1).unwrap();
    let answer = wire::send(address, "POST", "/get-online-features", &[], body.as_bytes());
    assert_eq!(answer.column("tenure_months")["statuses"], json!(["PRESENT"]));

    let said = demo.running.stop(Signal::INT);
    assert!(said.contains("to use the same data again"), "{said}");
}

#[test]
fn demo_lists_plugin_and_serves() {
    let plugin = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/built/churn.wasm");
    let demo = Demo::start_with("off", &["--plugin", plugin]);
    assert!(demo.line("  derived  ").ends_with("4 features, plugin 1.0.0"), "{:?}", demo.said);
    let curl = demo.line("churn_prediction_derived\"}");
    let address = curl.split("http://").nth(1).unwrap().split('/').next().unwrap().parse().unwrap();
    let body = curl.split('\'').nth(1).unwrap();
    let answer = wire::send(address, "POST", "/get-online-features", &[], body.as_bytes());
    assert_eq!(answer.column("contract_risk")["statuses"], json!(["PRESENT"]));
}

#[test]
fn demo_counts_only_real_lookups() {
    let demo = Demo::start("127.0.0.1:0");
    let count = |name: &str| {
        let text = get(demo.metrics(), "/metrics").text();
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum::<f64>()
    };
    for name in ["larder_online_requests_total", "larder_rows_served_total", "larder_hot_cache_requests_total"] {
        assert_eq!(count(name), 0.0, "{name}");
    }
    assert_eq!(count("larder_sync_rows_total"), 600.0, "progress is printed");
}

#[test]
fn demo_finds_free_metrics_port() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let demo = Demo::start(&address.to_string());
    assert!(demo.line("is in use").contains(&address.to_string()));
    assert_ne!(demo.metrics(), address);
    assert!(get(demo.metrics(), "/metrics").text().contains("larder_build_info{"));
}

#[test]
fn second_demo_reuses_the_data() {
    let Demo { home, running, .. } = Demo::start("off");
    running.stop(Signal::INT);
    let written = fs::metadata(home.path("demo/data/customer_features.parquet")).unwrap().modified().unwrap();
    let mut command = home.larder(["demo", "--customers", "200", "--listen", "127.0.0.1:0"]);
    let mut running = Running::new(command.env("LARDER_METRICS_LISTEN", "off").spawn().unwrap());
    running.until("up to date");
    running.until("Press Ctrl-C to stop.");
    running.stop(Signal::INT);
    let now = fs::metadata(home.path("demo/data/customer_features.parquet")).unwrap().modified().unwrap();
    assert_eq!(now, written);
}
