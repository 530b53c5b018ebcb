//! Measures the cost of syncs. Run it with `make bench-sync`. The figures are: rows per second from each type of source
//! into the store, compared with decoding the same Parquet file without storing it; memory, compared with its limits;
//! the time until a change in a table can be read; and lookups during a sync.
//!
//! S3 and DynamoDB are fakes in this process, on loopback. The figures therefore include the work of the fakes, but no
//! real network.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark that cannot go on panics, and prints")]

use std::{
    env, fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use larder_common::clock::{Clock, SystemClock};
use larder_fakeaws::{FakeDynamo, FakeS3};
use larder_ingest::{SyncReport, SyncRequest};
use larder_model::{
    codec::{KeyEncoder, KeyValue, KeyVersion},
    model::EntityId,
    registry::{Catalog, Definitions, validate},
    yaml::Problems,
};
use larder_source::{
    ParquetFiles, ParquetLimits, Source, Wanted,
    aws::{Aws, AwsConfig, StandInKeys},
};
use larder_store::{OnlineStore, StoreConfig, ViewId};
use larder_sync::{SyncEngine, SyncLimits, SyncScheduler, SyncSetting};
use parquet::{arrow::ArrowWriter, basic::Compression, file::properties::WriterProperties};
use serde_json::json;
use tempfile::TempDir;

const ROWS: u32 = 1_000_000;
const ITEMS: u32 = 100_000;
const ROUNDS: usize = 3;
const BUCKET: &str = "bench";
const TABLE: &str = "bench.customers";
const EVENT_TIME: i64 = 1_795_425_190_000_000;

fn main() {
    // `cargo test` runs benchmarks with this argument, to check that they start.
    if env::args().any(|argument| argument == "--test") {
        return;
    }
    let world = World::new();
    let before = peak_memory();
    println!(
        "rows per second, {ROWS} rows of 5 features ({ITEMS} items); one figure for each of {ROUNDS} alternating rounds\n"
    );
    let mut rates: Vec<(&str, Vec<f64>)> =
        ["decode only", "local Parquet", "S3 Parquet", "DynamoDB scan"].map(|name| (name, Vec::new())).into();
    for _ in 0..ROUNDS {
        rates[0].1.push(world.decode());
        rates[1].1.push(world.sync("local").0);
        rates[2].1.push(world.sync("remote").0);
        rates[3].1.push(world.sync("table").0);
    }
    let baseline = median(&rates[0].1);
    for (name, rates) in &rates {
        let shown: Vec<String> = rates.iter().map(|rate| format!("{:>9.0}", rate)).collect();
        println!("{name:<16} {}   {:.2} of decoding alone", shown.join(" "), median(rates) / baseline);
    }
    let limits = SyncLimits::default();
    println!(
        "\npeak memory: the syncs added {:.0} MiB to the {:.0} MiB of the process with the fake services; limits: {} MiB of \
         rows in a transaction, {} MiB of page cache",
        mib(peak_memory().saturating_sub(before)),
        mib(before),
        limits.commit_bytes >> 20,
        StoreConfig::new("").page_cache_bytes_max >> 20,
    );
    world.changes();
    world.lookups();
}

/// A Parquet file, the same file in S3, a table in DynamoDB, and definitions that read them.
struct World {
    dir: TempDir,
    dynamo: FakeDynamo,
    _s3: FakeS3,
    aws: Arc<Aws>,
}

/// A store that is empty at first, and an engine that syncs into it.
struct Run {
    _dir: TempDir,
    store: Arc<OnlineStore>,
    engine: SyncEngine,
    ids: Vec<ViewId>,
}

impl World {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("customers.parquet");
        write(&path);
        let bytes = fs::read(&path).unwrap();
        let s3 = FakeS3::start();
        s3.create_bucket(BUCKET);
        s3.put(BUCKET, "customers.parquet", bytes);
        let dynamo = FakeDynamo::start();
        dynamo.create_table(TABLE, &[("customer_id", "S")], Some("NEW_IMAGE"));
        (0..ITEMS).for_each(|customer| dynamo.put(TABLE, item(customer, 1)));
        // A new stream skips the initial writes: it only has later changes.
        dynamo.disable_stream(TABLE);
        dynamo.enable_stream(TABLE, "NEW_IMAGE");
        let config = AwsConfig {
            region: Some("eu-west-1".to_owned()),
            s3_endpoint: Some(s3.url()),
            s3_path_style: true,
            dynamodb_endpoint: Some(dynamo.url()),
            keys: Some(StandInKeys),
            ..AwsConfig::default()
        };
        Self { dir, dynamo, _s3: s3, aws: Aws::new(config) }
    }

    fn catalog(&self) -> Catalog {
        let features = "
    features:
      - {name: tenure_months, type: Int64}
      - {name: monthly_charges, type: Float64}
      - {name: total_charges, type: Float64}
      - {name: support_tickets, type: Int64}
      - {name: contract_type, type: String}
";
        let view = |name: &str, source: &str| {
            format!("  - name: {name}\n    entities: [customer_id]\n    source: {{{source}}}{features}")
        };
        let text = format!(
            "entities: [{{name: customer_id, type: String}}]\nfeature_views:\n{}{}{}",
            view("local", "path: customers.parquet"),
            view("remote", &format!("path: \"s3://{BUCKET}/customers.parquet\"")),
            view("table", &format!("dynamodb: {TABLE}, layout: wide, timestamp_field: ts, poll: 1s")),
        );
        let problems = Problems::default();
        let mut definitions = Definitions::default();
        definitions.read("bench.yaml", &text, &problems);
        let catalog = validate("bench", KeyVersion::V3, definitions, &problems);
        catalog.unwrap_or_else(|| panic!("{:?}", problems.into_sorted()))
    }

    fn run(&self) -> Run {
        let catalog = self.catalog();
        let dir = TempDir::new().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = Arc::new(OnlineStore::open(&StoreConfig::new(dir.path()), Arc::clone(&clock)).unwrap());
        let ids = store.declare(catalog.views(), KeyVersion::V3).unwrap();
        let setting = SyncSetting {
            base_dir: self.dir.path().to_path_buf(),
            aws: Arc::clone(&self.aws),
            clock,
            limits: SyncLimits::default(),
        };
        let engine = SyncEngine::new(Arc::clone(&store), &catalog, &ids, setting, SyncScheduler::new());
        Run { _dir: dir, store, engine, ids }
    }

    /// Decodes the local file, as the baseline, and returns rows per second.
    fn decode(&self) -> f64 {
        let catalog = self.catalog();
        let view = catalog.views().iter().find(|view| &*view.name == "local").unwrap();
        let wanted = Wanted::of(view, view.files().unwrap());
        let files = ParquetFiles::new(
            self.dir.path().join("customers.parquet"),
            wanted,
            ParquetLimits::default(),
            Arc::new(SystemClock),
        );
        let started = Instant::now();
        let mut batches = files.read(None).unwrap();
        let mut rows = 0;
        while let Some(batch) = batches.next_batch().unwrap() {
            rows += batch.rows.len();
        }
        assert_eq!(rows, ROWS as usize);
        f64::from(ROWS) / started.elapsed().as_secs_f64()
    }

    /// Loads a view into a new store, and returns rows per second and the report.
    fn sync(&self, view: &str) -> (f64, SyncReport) {
        let run = self.run();
        let started = Instant::now();
        let report = run.engine.sync(view, SyncRequest::default(), &mut |_| ()).unwrap();
        let rows = u32::try_from(report.applied.rows()).unwrap();
        (f64::from(rows) / started.elapsed().as_secs_f64(), report)
    }

    /// Measures the time from a change in the table until a reader sees it.
    fn changes(&self) {
        let run = self.run();
        run.engine.sync("table", SyncRequest::default(), &mut |_| ()).unwrap();
        let is_over = AtomicBool::new(false);
        let mut took = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                // The stream is polled every second (`poll: 1s`). A server sleeps until the poll is due, but this loop
                // checks every 100 ms whether it is due.
                while !is_over.load(Ordering::Relaxed) {
                    let due: Vec<String> = run.engine.due(Instant::now()).map(str::to_owned).collect();
                    due.iter().filter(|view| *view == "table").for_each(|view| {
                        run.engine.sync(view, SyncRequest::default(), &mut |_| ()).unwrap();
                    });
                    thread::sleep(Duration::from_millis(100));
                }
            });
            for change in 0..60 {
                thread::sleep(Duration::from_millis(u64::from(change * 37 % 300)));
                let before = run.row(2, id(change));
                let started = Instant::now();
                self.dynamo.put(TABLE, item(change, i64::from(change) + 1_000));
                while run.row(2, id(change)) == before {
                    thread::sleep(Duration::from_millis(1));
                }
                took.push(started.elapsed().as_secs_f64() * 1e3);
            }
            is_over.store(true, Ordering::Relaxed);
        });
        println!(
            "\nchange in a table to readable, polled each second: p50 {:.0} ms, p99 {:.0} ms",
            quantile(&mut took, 0.5),
            quantile(&mut took, 0.99)
        );
    }

    /// Measures lookups in the store on one thread, alternately without a sync and during a full sync of another view.
    fn lookups(&self) {
        let run = self.run();
        run.engine.sync("local", SyncRequest::default(), &mut |_| ()).unwrap();
        let (mut alone, mut during) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            alone.push(run.p99(&AtomicBool::new(false), Duration::from_secs(3)));
            let is_over = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    let full = SyncRequest { full: true, ..SyncRequest::default() };
                    run.engine.sync("remote", full, &mut |_| ()).unwrap();
                    is_over.store(true, Ordering::Relaxed);
                });
                during.push(run.p99(&is_over, Duration::from_secs(60)));
            });
        }
        let ratios: Vec<f64> = alone.iter().zip(&during).map(|(alone, during)| during / alone).collect();
        let list = |figures: &[f64]| figures.iter().map(|figure| format!("{figure:.1}")).collect::<Vec<_>>().join(" ");
        println!("p99 of a lookup, us: alone {}; during a full sync {}", list(&alone), list(&during));
        println!("ratio, during a sync to alone: {:.2}, median of {ROUNDS} rounds", median(&ratios));
    }
}

impl Run {
    fn row(&self, view: usize, id: EntityId) -> Option<Vec<u8>> {
        self.store.reader().get(self.ids[view], &id).unwrap().map(|row| row.to_vec())
    }

    /// Looks up rows with pauses of 100 µs until `is_over` is set or `at_most` has passed, and returns the 99th
    /// percentile of their durations in microseconds.
    fn p99(&self, is_over: &AtomicBool, at_most: Duration) -> f64 {
        let until = Instant::now() + at_most;
        let mut took = Vec::new();
        let mut customer = 1_u32;
        while !is_over.load(Ordering::Relaxed) && Instant::now() < until {
            customer = customer.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let id = id(customer % ROWS);
            let started = Instant::now();
            let row = self.store.reader().get(self.ids[0], &id).unwrap();
            took.push(started.elapsed().as_secs_f64() * 1e6);
            assert!(row.is_some());
            thread::sleep(Duration::from_micros(100));
        }
        quantile(&mut took, 0.99)
    }
}

fn name(customer: u32) -> String {
    format!("CUST_{customer:06}")
}

fn id(customer: u32) -> EntityId {
    KeyEncoder::new(KeyVersion::V3, ["customer_id"]).encode([KeyValue::String(&name(customer))], &mut Vec::new())
}

fn item(customer: u32, tickets: i64) -> serde_json::Value {
    json!({
        "customer_id": { "S": name(customer) },
        "tenure_months": { "N": (customer % 72).to_string() },
        "monthly_charges": { "N": "70.35" },
        "total_charges": { "N": "1024.5" },
        "support_tickets": { "N": tickets.to_string() },
        "contract_type": { "S": "Month-to-month" },
        "ts": { "N": (EVENT_TIME / 1_000_000).to_string() },
    })
}

fn write(path: &Path) {
    const GROUP: u32 = 100_000;
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = None;
    for first in (0..ROWS).step_by(GROUP as usize) {
        let rows = first..first + GROUP;
        let count = GROUP as usize;
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("customer_id", Arc::new(StringArray::from_iter_values(rows.clone().map(name)))),
            ("event_timestamp", Arc::new(TimestampMicrosecondArray::from(vec![EVENT_TIME; count]))),
            ("tenure_months", Arc::new(Int64Array::from_iter_values(rows.clone().map(|n| i64::from(n % 72))))),
            ("monthly_charges", Arc::new(Float64Array::from_iter_values(rows.clone().map(|n| f64::from(n) * 0.25)))),
            ("total_charges", Arc::new(Float64Array::from_iter_values(rows.map(|n| f64::from(n) * 3.75)))),
            ("support_tickets", Arc::new(Int64Array::from(vec![2; count]))),
            ("contract_type", Arc::new(StringArray::from(vec!["Month-to-month"; count]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let writer = writer.get_or_insert_with(|| {
            ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), Some(properties.clone())).unwrap()
        });
        writer.write(&batch).unwrap();
        writer.flush().unwrap();
    }
    writer.unwrap().close().unwrap();
}

fn median(figures: &[f64]) -> f64 {
    quantile(&mut figures.to_vec(), 0.5)
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "few figures")]
fn quantile(figures: &mut [f64], fraction: f64) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[((figures.len() as f64 * fraction) as usize).min(figures.len() - 1)]
}

#[expect(clippy::cast_precision_loss, reason = "bytes of memory")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Returns a value from `/proc/self/status`, converted to bytes; 0 if it cannot be read.
fn status_bytes(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found = status.lines().find_map(|text| text.strip_prefix(key)?.trim().split(' ').next()?.parse::<u64>().ok());
    found.unwrap_or(0) << 10
}

fn peak_memory() -> u64 {
    status_bytes("VmHWM:")
}
