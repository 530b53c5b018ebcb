//! An idle server rarely uses the processor, but reacts to changes to its files within seconds.
//!
//! `cargo nextest run -p larder --test it idle_server --no-capture` prints the wake-ups by thread.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    binary::{Home, LARDER_YAML, Running},
    feast_repo,
    fixture::{eventually, eventually_within, replace},
    guests, wire,
};

/// The configuration of all listeners.
const CONFIG: &str = "grpc: {listen: 127.0.0.1:0}\nmetrics: {listen: 127.0.0.1:0}\n";

/// The time after which startup is complete: connections are closed, and threads that are only needed for startup have
/// ended.
const SETTLED: Duration = Duration::from_secs(12);
/// The time for which wake-ups are counted. All periodic checks run a whole number of times in it.
const MEASURED: Duration = Duration::from_secs(8);
/// The maximum number of wake-ups per second. On a quiet machine, there are at most 3; on a busy machine, more.
const WAKES_MAX: f64 = 10.0;
/// The maximum time until the server reacts to a change. `reload: every` is one second. The maximum is shorter
/// than the 8 seconds between checks without events, so the test also shows that events work.
const REACTS_WITHIN: Duration = Duration::from_secs(3);

fn serve(home: &Home) -> Running {
    home.write("larder.yaml", &(LARDER_YAML.replace("metrics: {listen: off}\n", "") + CONFIG));
    guests::place(&["feast_odfv/odfv_singleton"], &home.path("plugins"));
    let (mut host, address) = home.serve();
    host.until("plugin deployed");
    eventually("ready", || wire::send(address, "GET", "/ready", &[], b"").status == 200);
    host
}

/// Returns the name and the number of voluntary context switches of each thread, by thread ID.
fn switches(process: u32) -> BTreeMap<String, (String, u64)> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let of = |path: &Path| {
        let name = fs::read_to_string(path.join("comm")).ok()?;
        let status = fs::read_to_string(path.join("status")).ok()?;
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        let thread = path.file_name()?.to_string_lossy().into_owned();
        Some((thread, (name.trim().to_owned(), count.trim().parse().ok()?)))
    };
    threads.filter_map(|thread| of(&thread.unwrap().path())).collect()
}

#[cfg(target_os = "linux")]
#[expect(clippy::print_stdout, reason = "the figure is of interest, also below the limit")]
fn assert_rarely_wakes(host: &Running) {
    thread::sleep(SETTLED);
    let before = switches(host.id());
    thread::sleep(MEASURED);
    let mut by_name: BTreeMap<String, f64> = BTreeMap::new();
    for (thread, (name, count)) in switches(host.id()) {
        let more = count - before.get(&thread).map_or(0, |(_, before)| *before);
        *by_name.entry(name).or_default() += more as f64 / MEASURED.as_secs_f64();
    }
    let wakes: f64 = by_name.values().sum();
    println!("an idle server wakes {wakes:.1} times a second:");
    by_name.iter().for_each(|(name, wakes)| println!("  {name:<16} {wakes:.2}"));
    assert!(wakes <= WAKES_MAX, "{by_name:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn idle_server_rarely_wakes() {
    let home = Home::golden();
    assert_rarely_wakes(&serve(&home));
}

/// While Feast's store changes, the six views are synced every second.
#[test]
#[cfg(target_os = "linux")]
fn idle_server_of_feasts_store_rarely_wakes() {
    let home = feast_repo::home();
    let store = feast_repo::online_store(&home);
    let (host, address) = home.serve();
    eventually("ready", || wire::send(address, "GET", "/ready", &[], b"").status == 200);
    assert_rarely_wakes(&host);
    for trips in [8, 9] {
        feast_repo::put_driver(&store, 1001, trips, 1_764_000_000);
        let ask = || feast_repo::ask(address, &["driver_stats:avg_daily_trips"], json!({ "driver_id": [1001] }));
        let is_read = || ask().column("avg_daily_trips")["values"] == json!([trips]);
        eventually_within("the new row is served", REACTS_WITHIN, is_read);
    }
}

#[test]
fn idle_server_reacts_to_changed_files() {
    let home = Home::golden();
    let mut host = serve(&home);
    // The first checks after the start would detect a change without an event. The test waits for a fixed time, because
    // there is no sign that they are complete.
    thread::sleep(Duration::from_secs(1));
    let definitions = home.path("features/derived.yaml");
    let change = |path: &Path, text: &[u8]| {
        replace(path, text);
        Instant::now()
    };
    let changed = change(&definitions, &[&fs::read(&definitions).unwrap()[..], b"\n# changed\n"].concat());
    host.until("definitions reloaded");
    assert!(changed.elapsed() < REACTS_WITHIN, "definitions: {:?}", changed.elapsed());
    let changed = change(&home.path("plugins/odfv_singleton.wasm"), b"no plugin");
    host.until("plugin rejected");
    assert!(changed.elapsed() < REACTS_WITHIN, "plugin: {:?}", changed.elapsed());
}
