//! The start of a server, its syncs, reloads and its stop.

use std::{
    fs,
    io::Write as _,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use larder_common::{compute::Compute, memory::MemoryBudget};
use larder_http::{
    AdminEvent, CaptureCommand, CaptureReport, Control, DeleteCommand, DeployReport, EraseReport, Listener,
    ListenerRole, PastVersion, PluginStatus, PromoteCommand, ResetCommand, RolloutReport, RolloutStatus, Router,
    Server, SyncCommand,
};
use larder_ingest::Outcome;
use larder_serving::{ConnectionLimits, CurrentSnapshot, LookupService, RenewDefinitions, Resources};
use serde_json::json;

use crate::{
    fixture::{RECORDED_AT, Setup, replace},
    wire::{self, Underway},
};

#[test]
fn restart_without_sources_is_ready() {
    let fixture = Setup::golden().start();
    fs::remove_dir_all(fixture.path("data")).unwrap();
    let fixture = fixture.restart();
    assert_eq!(fixture.get("/ready").status, 200, "the server responds before any sync");
    let column = fixture.features(&["driver_stats:conv_rate"], json!({ "driver_id": [1001] })).column("conv_rate");
    assert_eq!(column["values"], json!([0.6001]));
}

#[test]
fn missing_source_keeps_server_unready() {
    let setup = Setup::golden().unready();
    fs::remove_file(setup.path("data/pair_stats.parquet")).unwrap();
    let fixture = setup.start();
    fixture.eventually("the other views are loaded", || {
        fixture.get("/ready").json()["feature_views"] == json!(["pair_stats"])
    });
    assert_eq!(fixture.get("/ready").status, 503);
    assert_eq!(fixture.get("/health").status, 200);
    let column = fixture.features(&["driver_stats:conv_rate"], json!({ "driver_id": [1001] })).column("conv_rate");
    assert_eq!(column["statuses"], json!(["PRESENT"]), "the other views keep serving");
}

#[test]
fn unchanged_source_needs_full_to_reload() {
    let fixture = Setup::golden().start();
    let views = vec!["driver_stats".to_owned()];
    let again = fixture.sync(&SyncCommand { views: views.clone(), ..SyncCommand::default() }).unwrap();
    assert_eq!(again[0].outcome, Outcome::UpToDate);
    let full = fixture.sync(&SyncCommand { views, full: true, ..SyncCommand::default() }).unwrap();
    assert_eq!(full[0].outcome, Outcome::Loaded);
    assert_eq!(full[0].applied.changed(), 0, "the same rows change nothing");
}

#[test]
fn broken_definitions_keep_previous_ones() {
    let fixture = Setup::golden().start();
    let file = fixture.path("features/feast_repo.yaml");
    let good = fs::read_to_string(&file).unwrap();
    let serves = |view: &str| {
        let catalog = fixture.get("/v1/catalog").json();
        catalog["feature_views"].as_array().unwrap().iter().any(|known| known["name"] == view)
    };

    replace(&file, good.replace("name: driver_stats", "nam: driver_stats"));
    let refused = fixture.app.reload_definitions().unwrap_err().to_string();
    assert!(refused.contains("unknown key 'nam'"), "{refused}");
    assert!(serves("driver_stats"), "the previous data keeps serving");

    let more = good
        .replace("feature_views:\n", "feature_views:\n  - {name: extra_view, features: [{name: x, type: Int64}]}\n");
    assert_ne!(more, good);
    fs::write(&file, more).unwrap();
    fixture.eventually("the change is detected", || serves("extra_view"));
}

#[test]
fn stopping_answers_what_is_under_way() {
    let mut fixture = Setup::golden().start();
    let address = fixture.address();
    let body = json!({ "features": ["driver_stats:conv_rate"], "entities": { "driver_id": [1001] } }).to_string();
    let under_way: Vec<Underway> = (0..8).map(|_| Underway::begin(address, body.as_bytes())).collect();
    let mut idle = wire::connect(address);
    thread::scope(|scope| {
        let stopping = scope.spawn(|| fixture.stop());
        assert!(wire::read_answer(&mut idle).is_none(), "idle connections are closed at once");
        for request in under_way {
            assert_eq!(request.end().column("conv_rate")["values"], json!([0.6001]));
        }
        stopping.join().unwrap();
    });
}

#[test]
fn added_definition_files_are_watched() {
    let fixture = Setup::golden().start();
    let serves = |view: &str| {
        let catalog = fixture.get("/v1/catalog").json();
        catalog["feature_views"].as_array().unwrap().iter().any(|known| known["name"] == view)
    };
    let view = |name: &str| format!("feature_views: [{{name: {name}, features: [{{name: x, type: Int64}}]}}]\n");
    fs::write(fixture.path("more.yaml"), view("more_stats")).unwrap();
    fs::write(fixture.path("larder.yaml"), "project: churn_prediction\nfeatures: [features/*.yaml, more.yaml]\n")
        .unwrap();
    fixture.eventually("the added file is read", || serves("more_stats"));
    fs::write(fixture.path("more.yaml"), view("other_stats")).unwrap();
    fixture.eventually("a change in the added file is detected", || serves("other_stats"));
}

/// A lookup of an unknown name reloads changed definitions. This also works while the file watcher reloads them.
#[test]
fn lookup_during_a_reload_finds_a_new_name() {
    let fixture = Setup::golden().start();
    for round in 0..8 {
        // The rate of reloads by lookups is limited. The limit uses this clock.
        fixture.clock.set(RECORDED_AT + 1_000_000 * (round + 1));
        let view = format!("feature_views: [{{name: new_{round}, features: [{{name: x, type: Int64}}]}}]\n");
        replace(fixture.path(&format!("features/new_{round}.yaml")), view);
        // In each round, the lookup arrives at a different time during the watcher's reload.
        thread::sleep(Duration::from_millis(20 * u64::try_from(round).unwrap()));
        let answer = fixture.features(&[&format!("new_{round}:x")], json!({}));
        assert_eq!(answer.status, 200, "round {round}: {}", answer.text());
    }
}

#[test]
fn new_view_without_source_stays_ready() {
    let fixture = Setup::golden().start();
    let view =
        "feature_views: [{name: new_stats, features: [{name: x, type: Int64}], source: {path: nowhere.parquet}}]\n";
    fs::write(fixture.path("features/new.yaml"), view).unwrap();
    fixture.eventually("the view is served", || fixture.get("/v1/catalog").text().contains("new_stats"));
    assert_eq!(fixture.get("/ready").status, 200);
}

#[test]
fn failed_load_is_retried() {
    let setup = Setup::golden().unready().config("sync: {retry: 100ms}\n");
    let file = setup.path("data/pair_stats.parquet");
    let elsewhere = setup.path("pair_stats.parquet");
    fs::rename(&file, &elsewhere).unwrap();
    let fixture = setup.start();
    fixture.eventually("the other views are loaded", || {
        fixture.get("/ready").json()["feature_views"] == json!(["pair_stats"])
    });
    fs::rename(&elsewhere, &file).unwrap();
    fixture.eventually("the source is loaded", || fixture.get("/ready").status == 200);
}

#[test]
fn view_added_by_reload_is_loaded() {
    let fixture = Setup::golden().start();
    let view = "feature_views: [{name: pair_again, entities: [customer, driver], \
                features: [{name: rides, type: Int64}], \
                source: {path: data/pair_stats.parquet, timestamp_field: event_timestamp}}]\n";
    fs::write(fixture.path("features/new.yaml"), view).unwrap();
    let told = Control::reload(&*fixture.app).unwrap();
    assert!(told.starts_with("reloaded"), "{told}");
    let rows = || {
        let catalog = fixture.get("/v1/catalog").json();
        let views = catalog["feature_views"].as_array().unwrap().clone();
        views.iter().find(|view| view["name"] == "pair_again").map(|view| view["rows"].clone())
    };
    fixture.eventually("its rows are served", || rows().is_some_and(|rows| rows.as_u64() > Some(0)));
}

#[test]
fn stopping_server_serves_during_drain_delay() {
    let mut fixture = Setup::golden().limits(|limits| limits.drain_delay = Duration::from_millis(500)).start();
    let address = fixture.address();
    let ask = |path: &str| wire::send(address, "GET", path, &[], b"");
    thread::scope(|scope| {
        let stopping = scope.spawn(|| fixture.stop());
        let until = Instant::now() + Duration::from_secs(5);
        while ask("/ready").status == 200 && Instant::now() < until {
            thread::yield_now();
        }
        let ready = ask("/ready");
        assert_eq!((ready.status, ready.json()["status"].as_str()), (503, Some("stopping")));
        assert_eq!(ask("/health").status, 200, "new connections are still accepted");
        stopping.join().unwrap();
    });
}

/// A [`Control`] with commands that never end, as if a disk hangs.
#[derive(Debug, Default)]
struct Hanging {
    begun: AtomicUsize,
}

impl Hanging {
    fn hang(&self) -> ! {
        self.begun.fetch_add(1, Ordering::SeqCst);
        loop {
            thread::park();
        }
    }
}

impl Control for Hanging {
    fn sync(&self, _command: &SyncCommand, _notify: &mut dyn FnMut(AdminEvent)) {}

    fn reload(&self) -> Result<String, String> {
        self.hang()
    }

    fn delete(&self, _command: &DeleteCommand) -> Result<EraseReport, String> {
        self.hang()
    }

    fn reset(&self, _command: &ResetCommand) -> Result<EraseReport, String> {
        self.hang()
    }

    fn deploy(&self, _file: &[u8], _force: bool) -> Result<DeployReport, String> {
        self.hang()
    }

    fn deploy_shadow(&self, _file: &[u8], _ratio: f64, _force: bool) -> Result<RolloutStatus, String> {
        self.hang()
    }

    fn promote(&self, _plugin: &str, _command: &PromoteCommand) -> Result<RolloutStatus, String> {
        self.hang()
    }

    fn plugin_diff(&self, _plugin: &str) -> Result<RolloutReport, String> {
        self.hang()
    }

    fn roll_back(&self, _plugin: &str, _version: Option<&str>) -> Result<DeployReport, String> {
        self.hang()
    }

    fn capture(&self, _plugin: &str, _command: &CaptureCommand) -> Result<CaptureReport, String> {
        self.hang()
    }

    fn plugin_history(&self, _plugin: &str) -> Result<Vec<PastVersion>, String> {
        self.hang()
    }

    fn plugins(&self) -> Vec<PluginStatus> {
        Vec::new()
    }

    fn plugin_bytes_max(&self) -> usize {
        1_000
    }
}

#[test]
fn server_stops_though_commands_hang() {
    let fixture = Setup::with("").start();
    let hanging = Arc::new(Hanging::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let path = fixture.path("hanging.sock");
    let current = Arc::new(CurrentSnapshot::new(fixture.app.current()));
    let control: Arc<dyn Control> = Arc::<Hanging>::clone(&hanging);
    let clock = Arc::clone(fixture.app.clock());
    let limits = ConnectionLimits { drain_timeout: Duration::from_secs(600), ..ConnectionLimits::default() };
    let compute = Arc::new(Compute::start("test", 1, 1).unwrap());
    let resources = Resources::new(MemoryBudget::new(1 << 20), compute, 1 << 20);
    let definitions: Arc<dyn RenewDefinitions> = Arc::<larder::app::App>::clone(&fixture.app);
    let lookups = Arc::new(LookupService::new(current, resources, definitions, Arc::clone(&clock)));
    let router = Arc::new(Router::new(lookups, clock, limits, ListenerRole::Admin(control)));
    let server = runtime.block_on(async { Server::start(Listener::unix(&path).await.unwrap(), router, 1).unwrap() });
    let commands = ["/v1/reload", "/v1/plugins", "/v1/plugins/x/rollback"];
    let ask = |command: &str| {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
            .write_all(format!("POST {command} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").as_bytes())
            .unwrap();
        stream
    };
    let mut waiting: Vec<UnixStream> = commands.iter().map(|command| ask(command)).collect();
    let leaving: Vec<UnixStream> = commands.iter().map(|command| ask(command)).collect();
    fixture.eventually("all hang", || hanging.begun.load(Ordering::SeqCst) == 2 * commands.len());
    drop(leaving);
    let started = Instant::now();
    let drained = runtime.block_on(async {
        server.announce_stop();
        server.stop().await
    });
    assert!(drained && started.elapsed() < Duration::from_secs(30), "{drained}, after {:?}", started.elapsed());
    for stream in &mut waiting {
        assert_eq!(wire::read_answer(stream).unwrap().status, 503);
    }
    runtime.shutdown_background();
}
