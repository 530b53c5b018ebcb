//! Plugins in a server process: its log, and its use of the processor while calls fail.

use std::{
    fs,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    binary::{Home, Running},
    derived::SetOnDrop,
    guests::guest,
    wire,
};

fn ask(address: SocketAddr, features: &[&str], entities: Value) -> wire::Answer {
    let body = json!({ "features": features, "entities": entities }).to_string();
    wire::send(address, "POST", "/get-online-features", &[], body.as_bytes())
}

#[test]
fn missing_plugin_is_logged_once() {
    let home = Home::golden_loaded();
    let view = |name: &str, plugin: &str| {
        format!(
            "  - name: {name}\n    plugin: {plugin}\n    inputs: [{{name: x, request: Float64}}]\n    \
             features: [{{name: y_of_{name}, type: Float64}}]\n"
        )
    };
    let views = [view("prices", "price_plugin"), view("ratings", "rating_plugin")].concat();
    home.write("features/missing.yaml", &format!("derived_views:\n{views}"));
    let (mut host, address) = home.serve();
    // Requests of different shapes have different plans.
    for features in
        [&["prices:y_of_prices"][..], &["prices:y_of_prices"], &["prices:y_of_prices", "driver_stats:conv_rate"]]
    {
        let answer = ask(address, features, json!({ "x": [1.0, 2.0], "driver_id": [1001, 1001] }));
        assert_eq!(answer.column("y_of_prices")["statuses"], json!(["INVALID", "INVALID"]));
    }
    let line = host.until("a requested derived view has no plugin, so its features are INVALID");
    assert!(line.contains("WARN"), "{line}");
    assert!(line.contains("view=prices") && line.contains("plugin=price_plugin"), "{line}");
    // Other plugins and other definitions do not repeat the line.
    fs::copy(guest("feast_odfv/odfv_singleton"), home.path("singleton.wasm")).unwrap();
    home.run(["plugin", "deploy", "singleton.wasm"]).assert_code(0);
    ask(address, &["prices:y_of_prices"], json!({ "x": [1.0] }));
    home.write("features/missing.yaml", &format!("derived_views:\n{views}{}", view("totals", "total_plugin")));
    host.until("definitions reloaded");
    ask(address, &["prices:y_of_prices"], json!({ "x": [1.0] }));
    ask(address, &["ratings:y_of_ratings"], json!({ "x": [1.0] }));
    let said = host.stop(Signal::TERM);
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("has no plugin, so")).collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[1].contains("view=ratings") && lines[1].contains("plugin=rating_plugin"), "{lines:?}");
}

/// A view of the hostile plugin. Its calls do not end if they have a row whose `x` is at least 1000.
const SPIN: (&str, &str) = ("spin", "{mode: spin, bad: 1000}");

/// Starts a server with views of the hostile plugin, which have these names and configurations.
fn serve_hostile(views: &[(&str, &str)], config: &str) -> (Home, Running, SocketAddr) {
    let home = Home::golden_loaded();
    let view = |(name, config): &(&str, &str)| {
        format!(
            "  - {{name: {name}, plugin: hostile, inputs: [{{name: x, request: Float64}}], features: [{{name: y, \
             type: Float64}}], config: {config}}}\n"
        )
    };
    home.write("features/hostile.yaml", &format!("derived_views:\n{}", views.iter().map(view).collect::<String>()));
    let base = fs::read_to_string(home.path("larder.yaml")).unwrap();
    home.write("larder.yaml", &(base + config));
    fs::copy(guest("hostile"), home.path("hostile.wasm")).unwrap();
    home.run(["plugin", "deploy", "--force", "hostile.wasm"]).assert_code(0);
    // Plugins with cached code are deployed before the server listens.
    let (host, address) = home.serve();
    (home, host, address)
}

/// Returns the CPU time of a process.
fn cpu_time(host: &Running) -> Duration {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{}/stat", host.id())).unwrap();
    // The program's name, in parentheses, is followed by the state, which is field 3. The times are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks = |field: usize| fields[field - 3].parse::<f64>().unwrap();
    Duration::from_secs_f64((ticks(14) + ticks(15)) / TICKS_PER_SECOND)
}

/// The number of callers whose calls fail. About 35 calls of a request use all of their time, which is 10 ms, and the next
/// request is admitted a second later. Without a limit, a request would wait for more than 10 s.
const CALLERS: usize = 8;
/// The number of rows of such a request.
const ROWS: usize = 64;
/// A request waits for at most 2 s. On a busy machine, its calls take longer than their CPU time.
const ANSWER_MAX: Duration = Duration::from_secs(12);

#[test]
#[cfg(target_os = "linux")]
fn failing_calls_are_bounded_in_server() {
    /// The time for which the server has only callers whose calls fail.
    const MEASURED: Duration = Duration::from_secs(8);
    /// Requests that search for failed rows take at most a quarter of a core. Each request also has a failed call before
    /// and after it waits.
    const CORES_MAX: f64 = 0.6;

    let (_home, host, address) = serve_hostile(&[SPIN], "");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let ended = SetOnDrop(&over);
        let fail = || {
            let mut answers = 0;
            while !over.load(Ordering::Relaxed) {
                let started = Instant::now();
                let answer = ask(address, &["spin:y"], json!({ "x": vec![1_000.0; ROWS] }));
                let took = started.elapsed();
                assert_eq!(answer.column("y")["statuses"], json!(vec!["INVALID"; ROWS]));
                assert!(took < ANSWER_MAX, "{took:?}");
                answers += 1;
            }
            answers
        };
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(fail)).collect();
        let before = cpu_time(&host);
        thread::sleep(MEASURED);
        let cores = (cpu_time(&host) - before).as_secs_f64() / MEASURED.as_secs_f64();
        assert!(cores < CORES_MAX, "{cores} cores");
        for x in (0..100).map(f64::from) {
            let column = ask(address, &["spin:y"], json!({ "x": [x, x + 1.0] })).column("y");
            assert_eq!(column["values"], json!([2.0 * x, 2.0 * (x + 1.0)]));
            assert_eq!(column["statuses"], json!(["PRESENT", "PRESENT"]));
        }
        drop(ended);
        let answers: usize = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
        assert!(answers >= CALLERS, "{answers}");
    });
}

/// Counts the requests that a client gets rejected.
fn rejected(address: SocketAddr, feature: &str, x: f64, rows: usize, over: &AtomicBool) -> usize {
    let mut rejected = 0;
    while !over.load(Ordering::Relaxed) {
        let answer = ask(address, &[feature], json!({ "x": vec![x; rows] }));
        rejected += usize::from(answer.status == 503);
    }
    rejected
}

/// Before the queue of the compute threads was shared fairly, other plugins got status 503 for most requests.
#[test]
fn busy_plugin_rejects_no_other_plugin() {
    const CROWD: usize = 40;
    // Both take more than 100 us, so they use the compute threads.
    let views = [("busy", "{mode: slow, amount: 1000}"), ("other", "{mode: slow, amount: 500}")];
    let (_home, _host, address) = serve_hostile(&views, "plugins: {waiting_max: 4}\n");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let ended = SetOnDrop(&over);
        let crowd: Vec<_> = (0..CROWD).map(|_| scope.spawn(|| rejected(address, "busy:y", 1.0, 1, &over))).collect();
        thread::sleep(Duration::from_millis(500));
        for x in (0..200).map(f64::from) {
            let answer = ask(address, &["other:y"], json!({ "x": [x] }));
            assert_eq!(answer.status, 200, "{x}: {}", answer.text());
            assert_eq!(answer.column("y")["values"], json!([2.0 * x]));
        }
        drop(ended);
        let rejected: usize = crowd.into_iter().map(|client| client.join().unwrap()).sum();
        assert!(rejected > 0, "the queue was never full");
    });
}

/// A request with several views was charged to the first slow one, so other requests of that view got status 503.
#[test]
fn request_is_charged_to_slowest_plugin() {
    let views = [("light", "{mode: slow, amount: 500}"), ("heavy", "{mode: slow, amount: 2000}")];
    let (_home, _host, address) = serve_hostile(&views, "plugins: {waiting_max: 4}\n");
    let both = json!({ "features": ["light:y", "heavy:y"], "entities": { "x": [1.0] }, "full_feature_names": true });
    let both = both.to_string();
    // The costs of both plugins are known.
    ask(address, &["light:y"], json!({ "x": [1.0] }));
    ask(address, &["heavy:y"], json!({ "x": [1.0] }));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let ended = SetOnDrop(&over);
        for _ in 0..20 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    wire::send(address, "POST", "/get-online-features", &[], both.as_bytes());
                }
            });
        }
        thread::sleep(Duration::from_millis(500));
        for x in (0..50).map(f64::from) {
            let answer = ask(address, &["light:y"], json!({ "x": [x] }));
            assert_eq!(answer.status, 200, "{x}: {}", answer.text());
        }
        drop(ended);
    });
}
