//! Measures the codec, the store and the encoder, which lookups and loads use, each separately.
//!
//! Run it with `make bench-micro`. Compare only results from an idle machine. `make bench-smoke` measures the whole
//! server, and a bare hyper server for comparison.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on panics")]

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use larder_common::clock::ManualClock;
use larder_http::{decode_request, encode_answer};
use larder_model::{
    codec::{KeyEncoder, KeyValue, KeyVersion, RowBuilder, RowSchema, RowView},
    model::{EntityId, ValueRef},
    registry::{Catalog, Definitions, validate},
    yaml::Problems,
};
use larder_serving::{Authenticator, ServingLimits, Snapshot, TtlPolicy};
use larder_store::{HotCacheConfig, LoadMode, OnlineStore, RowBatch, StoreConfig};
use tempfile::TempDir;

const CUSTOMERS: u32 = 10_000;
const EVENT_TIME: i64 = 1_795_425_190_000_000;

const DEFINITIONS: &str = "
entities: [{name: customer_id, type: String}]
feature_views:
  - name: customer_behavior
    entities: [customer_id]
    features:
      - {name: tenure_months, type: Int64}
      - {name: monthly_charges, type: Float64}
      - {name: total_charges, type: Float64}
      - {name: support_tickets, type: Int64}
      - {name: contract_type, type: String}
";

fn catalog() -> Arc<Catalog> {
    let problems = Problems::default();
    let mut definitions = Definitions::default();
    definitions.read("bench.yaml", DEFINITIONS, &problems);
    Arc::new(validate("bench", KeyVersion::V3, definitions, &problems).unwrap())
}

fn id(customer: u32) -> EntityId {
    let encoder = KeyEncoder::new(KeyVersion::V3, ["customer_id"]);
    encoder.encode([KeyValue::String(&format!("CUST_{customer:06}"))], &mut Vec::new())
}

fn push_row(builder: &mut RowBuilder<'_>, customer: u32) {
    builder.begin(EVENT_TIME, None);
    builder.push(ValueRef::Int64(i64::from(customer % 72))).unwrap();
    builder.push(ValueRef::Float64(f64::from(customer) * 0.25)).unwrap();
    builder.push(ValueRef::Float64(f64::from(customer) * 3.75)).unwrap();
    builder.push(ValueRef::Int64(2)).unwrap();
    builder.push(ValueRef::Bytes(b"Month-to-month")).unwrap();
}

fn rows(schema: &RowSchema) -> RowBatch {
    let mut batch = RowBatch::default();
    let mut builder = RowBuilder::new(schema);
    for customer in 0..CUSTOMERS {
        push_row(&mut builder, customer);
        batch.push(id(customer), builder.finish().unwrap());
    }
    batch
}

fn store(hot_bytes: u64, catalog: &Catalog) -> (TempDir, Arc<OnlineStore>) {
    let dir = TempDir::new().unwrap();
    let config = StoreConfig { hot: HotCacheConfig { bytes_max: hot_bytes }, ..StoreConfig::new(dir.path()) };
    let store = OnlineStore::open(&config, ManualClock::at(EVENT_TIME)).unwrap();
    let ids = store.declare(catalog.views(), KeyVersion::V3).unwrap();
    let mut load = store.begin_load(ids[0], LoadMode::Upsert).unwrap();
    load.apply(&rows(&RowSchema::of(&catalog.views()[0].features)), None).unwrap();
    load.finish(None).unwrap();
    (dir, Arc::new(store))
}

fn codec(c: &mut Criterion) {
    let catalog = catalog();
    let schema = RowSchema::of(&catalog.views()[0].features);
    let mut builder = RowBuilder::new(&schema);
    c.bench_function("codec/encode a row of 5", |b| {
        b.iter(|| {
            push_row(&mut builder, black_box(123));
            black_box(builder.finish().unwrap().len())
        });
    });
    push_row(&mut builder, 123);
    let row = builder.finish().unwrap().to_vec();
    c.bench_function("codec/read 5 fields", |b| {
        b.iter(|| {
            let view = RowView::new(&schema, black_box(&row)).unwrap();
            for field in 0..5 {
                black_box(view.get(field).unwrap());
            }
        });
    });
    let encoder = KeyEncoder::new(KeyVersion::V3, ["customer_id"]);
    let mut buffer = Vec::new();
    c.bench_function("codec/entity id", |b| {
        b.iter(|| black_box(encoder.encode([KeyValue::String(black_box("CUST_000123"))], &mut buffer)));
    });
}

fn reading(c: &mut Criterion) {
    let catalog = catalog();
    let ids: Vec<EntityId> = (0..CUSTOMERS).map(id).collect();
    for (name, hot_bytes) in [("hot", 64 << 20), ("cold", 0)] {
        let (_dir, store) = store(hot_bytes, &catalog);
        let view = store.declare(catalog.views(), KeyVersion::V3).unwrap()[0];
        let mut next = 0;
        c.bench_function(&format!("store/get {name}"), |b| {
            b.iter(|| {
                next = (next + 7_919) % ids.len();
                black_box(store.reader().get(view, &ids[next]).unwrap())
            });
        });
    }
}

fn writing(c: &mut Criterion) {
    let catalog = catalog();
    let mut group = c.benchmark_group("store");
    group.sample_size(20);
    group.throughput(Throughput::Elements(u64::from(CUSTOMERS)));
    group.bench_function("open, encode and apply 10,000 rows", |b| {
        b.iter_with_large_drop(|| store(0, &catalog));
    });
    group.finish();
}

fn answering(c: &mut Criterion) {
    let catalog = catalog();
    let (_dir, store) = store(64 << 20, &catalog);
    let limits = ServingLimits { rows_max: 10_000, features_max: 1_000, values_max: 1_000_000 };
    let clock = ManualClock::at(EVENT_TIME);
    let snapshot = Snapshot::new(catalog, store, clock, TtlPolicy::Mark, limits).unwrap();
    let features = ["tenure_months", "monthly_charges", "total_charges", "support_tickets", "contract_type"];
    let features: Vec<String> = features.iter().map(|name| format!("\"customer_behavior:{name}\"")).collect();
    let authorization = Authenticator::open().authenticate_anonymous().unwrap();
    for count in [1, 100] {
        let keys: Vec<String> = (0..count).map(|i| format!("\"CUST_{:06}\"", i * 97)).collect();
        let body =
            format!(r#"{{"features":[{}],"entities":{{"customer_id":[{}]}}}}"#, features.join(","), keys.join(","));
        c.bench_function(&format!("answer/decode, look up and encode {count} x 5"), |b| {
            b.iter(|| {
                let request = decode_request(black_box(body.as_bytes())).unwrap();
                encode_answer(&snapshot.answer(&authorization, &request).unwrap()).len()
            });
        });
        let request = decode_request(body.as_bytes()).unwrap();
        let answer = snapshot.answer(&authorization, &request).unwrap();
        c.bench_function(&format!("answer/encode {count} x 5"), |b| b.iter(|| encode_answer(black_box(&answer)).len()));
    }
}

criterion_group!(benches, codec, reading, writing, answering);
criterion_main!(benches);
