//! Responses with different types of rows: fresh, expired, with an older schema, too long to be stored as text, or
//! missing. Rows in the hot cache are encoded by copying their text. The result must be byte for byte the same as for
//! rows from disk.

use std::sync::Arc;

use larder_common::clock::ManualClock;
use larder_http::{decode_request, encode_answer};
use larder_model::{
    codec::{KeyEncoder, KeyValue, KeyVersion, RowBuilder, RowSchema},
    model::{EntityId, ValueRef},
    registry::{Catalog, Definitions, validate},
    yaml::Problems,
};
use larder_serving::{Authenticator, ServingLimits, Snapshot, TtlPolicy};
use larder_store::{HotCacheConfig, LoadMode, OnlineStore, RowBatch, StoreConfig};
use serde_json::Value;
use tempfile::TempDir;

use crate::fixture::RECORDED_AT;

const HOUR: i64 = 3_600_000_000;
/// The length of a string that is too long for the stored text of a row.
const LONG: usize = 20_000;

fn catalog(features: &str) -> Arc<Catalog> {
    let definitions = format!(
        "entities: [{{name: customer_id, type: String}}]\nfeature_views:\n  - {{name: stats, entities: [customer_id], ttl: \
         2h, features: [{features}]}}\n  - {{name: other, entities: [customer_id], features: [{{name: c, type: Int64}}]}}\n\
         feature_services: [{{name: all, features: [stats, other]}}]\n"
    );
    let problems = Problems::default();
    let mut read = Definitions::default();
    read.read("mixed.yaml", &definitions, &problems);
    let catalog = validate("test", KeyVersion::V3, read, &problems);
    Arc::new(catalog.unwrap_or_else(|| panic!("{:?}", problems.into_sorted())))
}

fn id(customer: &str) -> EntityId {
    KeyEncoder::new(KeyVersion::V3, ["customer_id"]).encode([KeyValue::String(customer)], &mut Vec::new())
}

fn load(store: &OnlineStore, catalog: &Catalog, view: &str, rows: &[(&str, i64, &[ValueRef<'_>])]) {
    let ids = store.declare(catalog.views(), KeyVersion::V3).unwrap();
    let view = catalog.view_index(view).unwrap();
    let schema = RowSchema::of_view(&catalog.views()[view]);
    let mut batch = RowBatch::default();
    for (customer, age, values) in rows {
        let mut builder = RowBuilder::new(&schema);
        builder.begin(RECORDED_AT - age, None);
        values.iter().for_each(|value| builder.push(*value).unwrap());
        batch.push(id(customer), builder.finish().unwrap());
    }
    let mut load = store.begin_load(ids[view], LoadMode::Upsert).unwrap();
    load.apply(&batch, None).unwrap();
    load.finish(None).unwrap();
}

fn snapshot(hot_bytes_max: u64, ttl: TtlPolicy) -> (TempDir, Snapshot) {
    let dir = TempDir::new().unwrap();
    let clock = ManualClock::at(RECORDED_AT);
    let config = StoreConfig { hot: HotCacheConfig { bytes_max: hot_bytes_max }, ..StoreConfig::new(dir.path()) };
    let store = OnlineStore::open(&config, Arc::<ManualClock>::clone(&clock)).unwrap();
    let before = catalog("{name: a, type: Float64}");
    load(&store, &before, "stats", &[("old", HOUR, &[ValueRef::Float64(0.1)])]);
    let retyped = catalog("{name: a, type: Float64}, {name: b, type: Int64}");
    for (customer, age) in [("retyped", HOUR), ("late retyped", 3 * HOUR)] {
        load(&store, &retyped, "stats", &[(customer, age, &[ValueRef::Float64(0.2), ValueRef::Int64(7)])]);
    }
    let catalog = catalog("{name: a, type: Float64}, {name: b, type: String}");
    let long = "x".repeat(LONG);
    let text = |text: &'static str| ValueRef::Bytes(text.as_bytes());
    load(
        &store,
        &catalog,
        "stats",
        &[
            ("fresh", HOUR, &[ValueRef::Float64(-1.5e300), text("a text that is longer than what is copied at once")]),
            ("short", HOUR, &[ValueRef::Float64(1.0), text("")]),
            ("null", HOUR, &[ValueRef::Null, ValueRef::Null]),
            ("late", 3 * HOUR, &[ValueRef::Float64(3.0), text("late")]),
            ("long", HOUR, &[ValueRef::Float64(4.0), ValueRef::Bytes(long.as_bytes())]),
        ],
    );
    load(&store, &catalog, "other", &[("fresh", HOUR, &[ValueRef::Int64(1)]), ("late", HOUR, &[ValueRef::Int64(2)])]);
    let limits = ServingLimits { rows_max: 100, features_max: 100, values_max: 10_000 };
    (dir, Snapshot::new(catalog, Arc::new(store), clock, ttl, limits).unwrap())
}

#[test]
fn mixed_rows_from_memory_equal_disk() {
    let asked: [&[&str]; 12] = [
        &["retyped"],
        &["fresh", "retyped", "late retyped", "none"],
        &["late retyped", "old"],
        &["fresh", "short", "null", "late", "none"],
        &["none", "fresh"],
        &["late", "none", "late"],
        &["none", "none"],
        &["none"],
        &["late"],
        &["null"],
        &["fresh", "old", "short"],
        &["fresh", "long", "none", "late"],
    ];
    for ttl in [TtlPolicy::Mark, TtlPolicy::Null, TtlPolicy::Ignore] {
        let (_cold_dir, cold) = snapshot(0, ttl);
        let (_hot_dir, hot) = snapshot(1 << 20, ttl);
        for customers in asked {
            let body =
                serde_json::json!({"feature_service": "all", "entities": {"customer_id": customers}}).to_string();
            let authorization = Authenticator::open().authenticate_anonymous().unwrap();
            let answer = |snapshot: &Snapshot| {
                let request = decode_request(body.as_bytes()).unwrap();
                encode_answer(&snapshot.answer(&authorization, &request).unwrap())
            };
            let expected = answer(&cold);
            assert!(serde_json::from_slice::<Value>(&expected).is_ok());
            for look in ["first", "second"] {
                let found = answer(&hot);
                let text = String::from_utf8_lossy;
                assert!(
                    found == expected,
                    "{ttl:?}, {customers:?}, {look} look: {} and not {}",
                    text(&found),
                    text(&expected)
                );
            }
        }
    }
}
