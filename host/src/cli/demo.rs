//! `larder demo`: generates a churn data set, loads it and serves it.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use larder_common::{
    clock::{Clock, SystemClock},
    files::read_text,
};
use larder_http::SyncCommand;
use larder_serving::Authenticator;
use metrics::NoopRecorder;
use serde_json::{Value, json};

use super::{
    CliError,
    dataset::{DatasetSpec, generate},
    init::{CHURN_YAML, LARDER_YAML},
    output,
    serve::{install_telemetry, load, serve_until_stopped},
    sync::sync_and_print,
    target::Target,
};
use crate::{
    app::{App, Serving},
    config::{Config, Origin},
};

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// The directory for data, configuration and store; kept for the next run
    #[arg(long, value_name = "DIR", default_value = "demo")]
    dir: PathBuf,
    /// The address to listen on; overrides DIR/larder.yaml
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// How many customers to generate
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    customers: u64,
    /// The plugin built from plugins/examples/churn; the demo then also serves its derived features
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
}

const CHURN_DERIVED_YAML: &str = include_str!("../../../configs/features/churn_derived.yaml");
const SERVICE: &str = "churn_prediction_online";
/// The service that also has the plugin's features. It needs a request input.
const DERIVED_SERVICE: &str = "churn_prediction_derived";
const DISCOUNT: &str = "discount_percent";
/// The fixed seed of the data set. Every run generates the same customers.
const SEED: u64 = 20_260_101;
/// The number of the customer in the printed examples. If there are fewer customers, the examples use the last one.
const EXAMPLE: u64 = 123;
/// The number of lookups in the printed latency. The same number of lookups precedes them, to warm up caches.
const LOOKUPS: usize = 2_000;

pub(super) fn run(args: &DemoArgs) -> Result<()> {
    prepare(args)?;
    let mut config = load(Origin::file(args.dir.join("larder.yaml")), args.listen)?;
    config.metrics_listen = config.metrics_listen.map(free_address);
    // The demo prints its own messages, so the log only has warnings and errors.
    config.log.level = "warn".to_owned();
    install_telemetry(&config)?;
    let app = open(&config)?;
    // This stores the plugin's compiled code in the cache, so the plugin is live as soon as the server below starts.
    app.load_plugins()?;
    let target = Target::Local(app);
    if sync_and_print(&target, &SyncCommand::default())? > 0 {
        bail!(CliError::Failed("cannot load the demo data; see the errors above".to_owned()));
    }
    drop(target);
    let customer = format!("CUST_{:06}", EXAMPLE.min(args.customers));
    let request = json!({ "feature_service": SERVICE, "entities": { "customer_id": [customer] } });
    // The lookups of the measurement must not appear in the metrics. They run on a separate `App`, with a recorder that
    // discards metrics.
    let times = metrics::with_local_recorder(&NoopRecorder, || measure(&*open(&config)?, &request))?;
    serve_until_stopped(
        move || open(&config),
        |app, serving| {
            print_instructions(app, serving, args, &request)?;
            output::line(&times);
            output::line("Press Ctrl-C to stop.");
            Ok(())
        },
    )?;
    let program = output::program();
    output::line(&format!("\nstopped; run `{program} demo` with the same --dir to use the same data again"));
    Ok(())
}

fn open(config: &Config) -> Result<Arc<App>> {
    let (app, _) = App::open(config.clone(), Arc::new(SystemClock))?;
    Ok(app)
}

/// Returns `address`, or the same address with port 0 (any free port) if another program uses its port. This allows two
/// demos to run at the same time.
fn free_address(address: SocketAddr) -> SocketAddr {
    match TcpListener::bind(address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            output::note(&format!("{address} is in use; metrics use another port"));
            SocketAddr::new(address.ip(), 0)
        }
        _ => address,
    }
}

/// Writes the configuration and the data, unless a previous run wrote them, and copies the plugin.
fn prepare(args: &DemoArgs) -> Result<()> {
    let (dir, data) = (&args.dir, args.dir.join("data"));
    write_new(&dir.join("larder.yaml"), LARDER_YAML)?;
    write_new(&dir.join("features/churn.yaml"), CHURN_YAML)?;
    if let Some(file) = &args.plugin {
        write_new(&dir.join("features/churn_derived.yaml"), CHURN_DERIVED_YAML)?;
        let place = dir.join("plugins/customer_derived_features.wasm");
        let failed = || format!("cannot copy {} to {}", file.display(), place.display());
        fs::create_dir_all(dir.join("plugins")).and_then(|()| fs::copy(file, &place)).with_context(failed)?;
    }
    let marker = data.join(".customers");
    let customers = args.customers.to_string();
    if read_text(&marker, 64).is_ok_and(|generated| generated == customers) {
        return Ok(());
    }
    let bar = output::progress("generating customers", args.customers * 3);
    let spec = DatasetSpec { customers: args.customers, seed: SEED, now: SystemClock.now() };
    generate(&data, &spec, &mut |done, _| bar.set_position(done))?;
    bar.finish_and_clear();
    fs::write(&marker, customers).with_context(|| format!("cannot write {}", marker.display()))?;
    output::line(&format!("generated {} customers in {}", output::thousands(args.customers), data.display()));
    Ok(())
}

fn write_new(path: &Path, text: &str) -> Result<()> {
    if path.try_exists().with_context(|| format!("cannot access {}", path.display()))? {
        return Ok(());
    }
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Prints the served views and services, and example requests.
fn print_instructions(app: &Arc<App>, serving: &Serving, args: &DemoArgs, request: &Value) -> Result<()> {
    let catalog = Target::Local(Arc::clone(app)).catalog()?;
    let url = serving.address().map(|address| format!("http://{address}")).unwrap_or_default();
    output::line("");
    let list = |part: &str| catalog[part].as_array().cloned().unwrap_or_default();
    for view in list("feature_views") {
        let features = view["features"].as_array().map_or(0, Vec::len);
        let rows = output::thousands(view["rows"].as_u64().unwrap_or(0));
        output::line(&format!("  view     {:<34} {features} features, {rows} rows", text(&view["name"])));
    }
    for view in list("derived_views") {
        let features = view["features"].as_array().map_or(0, Vec::len);
        let plugin =
            view["plugin_version"].as_str().map_or("no plugin".to_owned(), |version| format!("plugin {version}"));
        output::line(&format!("  derived  {:<34} {features} features, {plugin}", text(&view["name"])));
    }
    for service in list("feature_services") {
        let features = service["features"].as_array().map_or(0, Vec::len);
        output::line(&format!("  service  {:<34} {features} features", text(&service["name"])));
    }
    output::line(&format!("\nServing on {url}. Request a customer:\n"));
    output::line(&format!("  curl -s {url}/get-online-features -d '{request}'\n"));
    if args.plugin.is_some() {
        let mut entities = request["entities"].clone();
        entities[DISCOUNT] = json!([10.0]);
        let request = json!({ "feature_service": DERIVED_SERVICE, "entities": entities });
        output::line(&format!("  curl -s {url}/get-online-features -d '{request}'\n"));
    }
    let (program, config) = (output::program(), args.dir.join("larder.yaml"));
    let (config, customer) = (output::shell_word(&config.to_string_lossy()), &request["entities"]["customer_id"][0]);
    output::line(&format!("  {program} get --config {config} --service {SERVICE} customer_id={}", text(customer)));
    if let Some(metrics) = serving.metrics_address() {
        output::line(&format!("  curl -s http://{metrics}/metrics"));
    }
    Ok(())
}

/// Measures how long a lookup takes, from the JSON of the request to the JSON of the response.
fn measure(app: &App, request: &Value) -> Result<String> {
    let body = request.to_string().into_bytes();
    let snapshot = app.current();
    let authorization = Authenticator::open().authenticate_anonymous()?;
    let mut times = Vec::with_capacity(LOOKUPS);
    for _ in 0..LOOKUPS * 2 {
        let started = Instant::now();
        let request = larder_http::decode_request(&body).map_err(|error| anyhow::anyhow!("{}", error.body))?;
        let answer = snapshot.answer(&authorization, &request);
        let answer = answer.map_err(|error| anyhow::anyhow!("{}", larder_http::HttpError::from(error).body))?;
        std::hint::black_box(larder_http::encode_answer(&answer));
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    let mut times = times.split_off(LOOKUPS);
    times.sort_by(f64::total_cmp);
    let (median, p99) = (times[LOOKUPS / 2], times[LOOKUPS * 99 / 100]);
    Ok(format!(
        "\nLatency of the first of these requests, without HTTP: median {median:.1} us, p99 {p99:.1} us, over {} lookups.",
        output::thousands(LOOKUPS as u64)
    ))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
