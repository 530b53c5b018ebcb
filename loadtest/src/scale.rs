//! Measures Larder with millions of entities: the time to load them, the size of the store on disk, the memory of the
//! process, the time to restart after a stop or a kill, and the cost of a lookup with and without the hot cache.

mod report;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args;
use rustix::process::Signal;

pub(crate) use self::report::ScaleReport;
use self::report::{Load, Lookups, Memory};
use crate::{
    cores::Cores,
    dataset,
    definitions::{Feature, Service, View, larder_yaml, wide_views},
    endpoint::{SocketKind, free_address},
    floor,
    load::Tally,
    measure::{Effort, Measured, measure},
    process,
    random::{Keys, XorShift},
    server::{Server, Startup},
    stats::Latency,
    target::{Captured, Target},
    workload::{Entities, Part, Workload, customer_id, feature_server_request},
};

/// The maximum time for a load. It is sufficient for a hundred million rows on a slow machine.
const LOAD_LIMIT: Duration = Duration::from_hours(2);
/// The number of keys that are requested repeatedly. They fit into the hot cache.
const WARM_KEYS: u32 = 100_000;
/// The number of random keys for lookups without the hot cache. Each is requested about once or twice.
const COLD_KEYS: u32 = 500_000;
const SERVICE: &str = "scale";
const MIB: u64 = 1 << 20;

/// The options of the measurement.
#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    /// The `larder` program.
    #[arg(long, value_name = "PATH")]
    larder: PathBuf,
    /// The directory for the data and the store. It needs several hundred bytes for each entity.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The number of entities.
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(1000..))]
    entities: u32,
    /// The number of features of an entity: alternating floats, integers and strings.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=50))]
    features: u16,
    /// `store: hot_cache`, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    hot_cache: u64,
    /// `store: page_cache`, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    page_cache: u64,
    /// The length of each saturating and each paced run in seconds.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// The time in seconds for which a process runs before it is killed. If a process ran for less than two minutes,
    /// the next start checks the whole store file, because damage may have caused a crash.
    #[arg(long, value_name = "SECONDS", default_value_t = 125)]
    kill_after: u64,
}

/// A run of the measurement.
#[derive(Debug)]
struct Scale<'a> {
    args: &'a ScaleArgs,
    cores: Cores,
    failed: Tally,
}

/// Runs the measurement.
pub(crate) async fn run(args: &ScaleArgs) -> anyhow::Result<ScaleReport> {
    let cores = Cores::find().context("cannot find the available cores")?;
    cores.pin_load().context("cannot pin the load to its core")?;
    eprintln!("{cores}");
    Scale { args, cores, failed: Tally::default() }.run().await
}

// === impl Scale ===

impl Scale<'_> {
    async fn run(mut self) -> anyhow::Result<ScaleReport> {
        let args = self.args;
        let parquet_bytes = self.prepare()?;

        eprintln!("loading {} entities", args.entities);
        let start = Instant::now();
        let server = self.start(args.hot_cache).await?;
        let started = start;
        let seconds = start.elapsed().as_secs_f64();
        let family = process::family(server.pid());
        let load = Load {
            seconds,
            rows_per_s: f64::from(args.entities) / seconds,
            rows_per_cpu_s: f64::from(args.entities) / process::cpu_time(&family)?.as_secs_f64(),
            parquet_bytes,
            store_bytes: dir_bytes(&self.store())?,
        };
        let after_load = process::resident_bytes(&family).unwrap_or(0);

        let warm_keys = self.workload(WARM_KEYS);
        let spread_keys = self.workload(COLD_KEYS);
        let larder = Target::of_server("larder", &server);
        let captured = larder.capture(warm_keys.sample()).await?.with_values()?;
        let answers = [(warm_keys.sample(), &captured.body[..])];
        let floor_server = floor::start(&answers, &args.dir, SocketKind::Tcp, self.cores).await?;
        let floor = self.measure(&Target::of_server("floor", &floor_server), &warm_keys, true).await?;
        let warm = self.measure(&larder, &warm_keys, true).await?;
        let spread = self.measure(&larder, &spread_keys, false).await?;
        let after_lookups = process::resident_bytes(&family).unwrap_or(0);

        let wait = Duration::from_secs(args.kill_after).saturating_sub(started.elapsed());
        if !wait.is_zero() {
            eprintln!("waiting {} s before the kill", wait.as_secs());
            tokio::time::sleep(wait).await;
        }
        server.stop(Signal::KILL)?;
        let (server, ready_after_kill_seconds) = self.restart(args.hot_cache, &captured).await?;
        server.stop(Signal::TERM)?;
        let (server, ready_after_stop_seconds) = self.restart(args.hot_cache, &captured).await?;
        server.stop(Signal::TERM)?;

        let server = self.start(0).await?;
        let cold = self.measure(&Target::of_server("larder", &server), &spread_keys, false).await?;
        server.stop(Signal::TERM)?;
        let lookups = |name: &str, measured: &Measured| Lookups {
            name: name.to_owned(),
            figures: measured.figures,
            cpu_ratio: floor.figures.cpu_us_per_request / measured.figures.cpu_us_per_request,
            latency: Latency::of(&measured.latencies_ns),
        };
        Ok(ScaleReport {
            entities: args.entities,
            features: args.features,
            cores: self.cores.to_string(),
            debug_build: cfg!(debug_assertions),
            load,
            ready_after_stop_seconds,
            ready_after_kill_seconds,
            killed_after_seconds: args.kill_after,
            lookups: vec![
                lookups("floor", &floor),
                lookups("warm: keys in the hot cache", &warm),
                lookups("spread: random keys, hot cache on", &spread),
                lookups("cold: random keys, hot cache off", &cold),
            ],
            memory: Memory { cap: (args.hot_cache + args.page_cache) * MIB, after_load, after_lookups },
            failures: self.failed.failures,
            first_failure: self.failed.first_failure,
        })
    }

    /// Writes the data and the definitions. Fails if the directory has a store. Returns the size of the data file in
    /// bytes.
    fn prepare(&self) -> anyhow::Result<u64> {
        let (dir, store) = (&self.args.dir, self.store());
        fs::create_dir_all(dir.join("data")).with_context(|| format!("cannot create {}", dir.display()))?;
        fs::create_dir_all(dir.join("features"))?;
        if store.try_exists()? {
            bail!("{} exists, and Larder would not load its rows again. hint: remove it", store.display());
        }
        let features: Vec<Feature> = wide_views()[0].features.iter().take(self.args.features.into()).cloned().collect();
        let names = features.iter().map(|feature| feature.name.clone()).collect();
        let view = View { name: "scaled".to_owned(), file: "scaled.parquet".to_owned(), features };
        let service = Service { name: SERVICE.to_owned(), parts: vec![(view.name.clone(), names)] };
        let yaml = format!(
            "entities:\n  - {{name: customer_id, type: String}}\n{}",
            larder_yaml(std::slice::from_ref(&view), &[service])
        );
        fs::write(dir.join("features/scaled.yaml"), yaml)?;
        eprintln!("writing {} entities of {} features as Parquet", self.args.entities, self.args.features);
        let path = dir.join("data").join(&view.file);
        dataset::write_view(&path, &view.features, self.args.entities.into(), |number| customer_id(number as u32))
    }

    fn store(&self) -> PathBuf {
        self.args.dir.join("store")
    }

    async fn start(&self, hot_cache: u64) -> anyhow::Result<Server> {
        let dir = &self.args.dir;
        let address = free_address().context("no free port")?;
        let config = dir.join("larder.yaml");
        let yaml = format!(
            "project: scale\nserver: {{listen: {address}}}\nmetrics: {{listen: 127.0.0.1:0}}\nlog: {{level: warn}}\n\
             store: {{data_dir: store, hot_cache: {hot_cache}MiB, page_cache: {}MiB}}\n",
            self.args.page_cache
        );
        fs::write(&config, yaml).with_context(|| format!("cannot write {}", config.display()))?;
        let mut command = Command::new(&self.args.larder);
        command.arg("serve").arg("--config").arg(&config);
        let startup = Startup { limit: LOAD_LIMIT, ..Startup::new("larder", address.into(), dir.join("larder.log")) };
        Server::start(&mut command, startup, self.cores).await
    }

    /// Starts a server with the existing store, and checks that it returns the same response as before. Returns the
    /// server, and the seconds until it was ready.
    async fn restart(&self, hot_cache: u64, before: &Captured) -> anyhow::Result<(Server, f64)> {
        let start = Instant::now();
        let server = self.start(hot_cache).await?;
        let seconds = start.elapsed().as_secs_f64();
        eprintln!("ready again after {seconds:.2} s");
        let again = Target::of_server("larder", &server).capture(self.workload(WARM_KEYS).sample()).await?;
        if again.body != before.body {
            bail!("the response after the restart differs from before: {}", String::from_utf8_lossy(&again.body));
        }
        Ok((server, seconds))
    }

    async fn measure(&mut self, target: &Target, workload: &Arc<Workload>, warm_up: bool) -> anyhow::Result<Measured> {
        let seconds = Duration::from_secs(self.args.seconds);
        let effort =
            Effort { connections: 32, saturated: seconds, paced: seconds, samples_min: 0, paced_max: seconds, warm_up };
        let measured = measure(target, workload, &effort, 1).await?;
        eprintln!(
            "{:<7}{:>9.0} req/s {:>8.2} us cpu {:>9.1} us p99",
            target.name, measured.figures.requests_per_s, measured.figures.cpu_us_per_request, measured.figures.p99_us
        );
        self.failed = [std::mem::take(&mut self.failed), measured.tally.clone()].into_iter().collect();
        Ok(measured)
    }

    /// Returns a workload with this many requests. Each request is for one entity, which is selected at random.
    fn workload(&self, keys: u32) -> Arc<Workload> {
        let (all, keys) = (self.args.entities, keys.min(self.args.entities));
        let entities = Entities { each: 1, customers: keys, offset: 0, pool: 0, keys: Keys::Uniform };
        let mut random = XorShift::new(7, 0);
        let drawn: Vec<_> = (0..keys).map(|_| random.below(all as usize) as u32 + 1).collect();
        Arc::new(Workload::of(vec![Part::numbered(1, &entities, |number| {
            let id = customer_id(drawn[number as usize - 1]);
            feature_server_request(SERVICE, &[id], false)
        })]))
    }
}

/// Returns the total size of all files below a directory.
fn dir_bytes(dir: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let entry = entry?;
        let kind = entry.metadata()?;
        bytes += if kind.is_dir() { dir_bytes(&entry.path())? } else { kind.len() };
    }
    Ok(bytes)
}
