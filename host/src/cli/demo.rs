//! `larder demo`: a churn data set, loaded and served.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use super::{
    CliError,
    dataset::{DatasetSpec, generate},
    init::{CHURN_YAML, LARDER_YAML},
    output,
    serve::{install_telemetry, load, runtime, stop_cleanly},
    sync::run_on,
    target::Target,
};
use crate::{
    app::App,
    clock::{Clock, SystemClock},
    http::SyncCommand,
};

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// The directory of data, configuration and store; kept for the next time
    #[arg(long, value_name = "DIR", default_value = "demo")]
    dir: PathBuf,
    /// The address to listen on
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// How many customers to make up
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    customers: u64,
}

const SERVICE: &str = "churn_prediction_online";
/// Always the same customers, so that the numbers of one run can be found again in the next.
const SEED: u64 = 20_260_101;
/// The customer of the printed examples, if there are that many.
const EXAMPLE: u64 = 123;
/// Lookups whose time is measured; the first ones warm the cache.
const LOOKUPS: usize = 2_000;

pub(super) fn run(args: &DemoArgs) -> Result<()> {
    prepare(args)?;
    let config = load(&args.dir.join("larder.yaml"), args.listen)?;
    // The demo speaks for itself; only trouble is logged.
    install_telemetry(&crate::config::Config {
        log: crate::config::LogConfig { level: "warn".to_owned(), ..config.log.clone() },
        ..config.clone()
    })?;
    let (app, _) = App::open(config, Arc::new(SystemClock))?;
    let target = Target::Local(Arc::clone(&app));
    if run_on(&target, &SyncCommand::default())? > 0 {
        bail!(CliError::Failed("the data could not be loaded".to_owned()));
    }
    runtime()?.block_on(async {
        let serving = app.serve().await?;
        let url = serving.address().map(|address| format!("http://{address}")).unwrap_or_default();
        tell(&app, &target, &url, args)?;
        stop_cleanly(serving).await?;
        output::say("\nstopped; `larder demo` with the same --dir goes on with the same data");
        Ok(())
    })
}

/// Writes configuration and data, unless they are there from last time.
fn prepare(args: &DemoArgs) -> Result<()> {
    let (dir, data) = (&args.dir, args.dir.join("data"));
    write_new(&dir.join("larder.yaml"), LARDER_YAML)?;
    write_new(&dir.join("features/churn.yaml"), CHURN_YAML)?;
    let marker = data.join(".customers");
    let customers = args.customers.to_string();
    if fs::read_to_string(&marker).is_ok_and(|made| made == customers) {
        return Ok(());
    }
    let bar = output::progress("making up customers", args.customers * 3);
    let spec = DatasetSpec { customers: args.customers, seed: SEED, now: SystemClock.now() };
    generate(&data, &spec, &mut |done, _| bar.set_position(done))?;
    bar.finish_and_clear();
    fs::write(&marker, customers).with_context(|| format!("cannot write {}", marker.display()))?;
    output::say(&format!("made up {} customers in {}", output::thousands(args.customers), data.display()));
    Ok(())
}

fn write_new(path: &Path, text: &str) -> Result<()> {
    if path.try_exists().with_context(|| format!("cannot look at {}", path.display()))? {
        return Ok(());
    }
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Says what is served, how to ask for it, and how long a lookup takes.
fn tell(app: &App, target: &Target, url: &str, args: &DemoArgs) -> Result<()> {
    let catalog = target.catalog()?;
    output::say("");
    let list = |part: &str| catalog[part].as_array().cloned().unwrap_or_default();
    for view in list("feature_views") {
        let features = view["features"].as_array().map_or(0, Vec::len);
        let rows = output::thousands(view["rows"].as_u64().unwrap_or(0));
        output::say(&format!("  view     {:<34} {features} features, {rows} rows", text(&view["name"])));
    }
    for service in list("feature_services") {
        let features = service["features"].as_array().map_or(0, Vec::len);
        output::say(&format!("  service  {:<34} {features} features", text(&service["name"])));
    }
    let customer = format!("CUST_{:06}", EXAMPLE.min(args.customers));
    let request = json!({ "feature_service": SERVICE, "entities": { "customer_id": [customer] } });
    output::say(&format!("\nServing on {url}. Ask for a customer:\n"));
    output::say(&format!("  curl -s {url}/get-online-features -d '{request}'\n"));
    output::say(&format!(
        "  larder get --config {} --service {SERVICE} customer_id={customer}",
        args.dir.join("larder.yaml").display()
    ));
    if let Some(metrics) = app.config().metrics_listen {
        output::say(&format!("  curl -s http://{metrics}/metrics"));
    }
    let (median, p99) = measure(target, &request)?;
    output::say(&format!(
        "\nA lookup of that request inside the host: {median:.1} us median, {p99:.1} us p99 of {} (HTTP comes on top).",
        output::thousands(LOOKUPS as u64)
    ));
    output::say("Ctrl-C stops.");
    Ok(())
}

/// Microseconds per lookup, from the request's JSON to the answer's: median and 99th percentile.
fn measure(target: &Target, request: &Value) -> Result<(f64, f64)> {
    let Target::Local(app) = target else { return Ok((0.0, 0.0)) };
    let body = request.to_string().into_bytes();
    let snapshot = app.current();
    let mut times = Vec::with_capacity(LOOKUPS);
    for _ in 0..LOOKUPS * 2 {
        let started = Instant::now();
        let request = crate::http::decode_request(&body).map_err(|error| anyhow::anyhow!("{}", error.body))?;
        let answer = snapshot.answer(&request)?;
        std::hint::black_box(crate::http::encode_answer(&answer));
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    let mut times = times.split_off(LOOKUPS);
    times.sort_by(f64::total_cmp);
    Ok((times[LOOKUPS / 2], times[LOOKUPS * 99 / 100]))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
