//! A lookup of rows in the hot cache needs only a few allocations, regardless of the number of features.

use std::sync::Arc;

use larder_common::clock::ManualClock;
use larder_http::{decode_request, encode_answer};
use larder_model::{
    codec::{KeyEncoder, KeyValue, KeyVersion, RowBuilder, RowSchema},
    model::ValueRef,
    registry::{Definitions, validate},
    yaml::Problems,
};
use larder_serving::{Authenticator, ServingLimits, Snapshot, TtlPolicy};
use larder_store::{LoadMode, OnlineStore, RowBatch, StoreConfig};
use tempfile::TempDir;

use crate::fixture::RECORDED_AT;

/// The maximum number of allocations for a lookup of one entity. They are for the request's list of columns, for the
/// values of a column, for the entity's key, and for the response.
const ALLOCATIONS: u64 = 4;

/// Creates a service with this many features, half of them doubles and half of them text, and a row of customer `C7`.
fn snapshot(features: usize) -> (TempDir, Snapshot) {
    let list: Vec<String> = (0..features)
        .map(|n| format!("{{name: f{n}, type: {}}}", if n % 2 == 0 { "Float64" } else { "String" }))
        .collect();
    let definitions = format!(
        "entities: [{{name: customer_id, type: String}}]\nfeature_views:\n  - name: customer_wide\n    entities: \
         [customer_id]\n    features: [{}]\nfeature_services: [{{name: all, features: [customer_wide]}}]\n",
        list.join(", ")
    );
    let problems = Problems::default();
    let mut read = Definitions::default();
    read.read("wide.yaml", &definitions, &problems);
    let catalog = validate("test", KeyVersion::V3, read, &problems);
    let catalog = Arc::new(catalog.unwrap_or_else(|| panic!("{:?}", problems.into_sorted())));

    let dir = TempDir::new().unwrap();
    let clock = ManualClock::at(RECORDED_AT);
    let store = OnlineStore::open(&StoreConfig::new(dir.path()), Arc::<ManualClock>::clone(&clock)).unwrap();
    let view = store.declare(catalog.views(), KeyVersion::V3).unwrap()[0];
    let schema = RowSchema::of_view(&catalog.views()[0]);
    let mut builder = RowBuilder::new(&schema);
    builder.begin(RECORDED_AT, None);
    for n in 0..features {
        let value = if n % 2 == 0 { ValueRef::Float64(0.1) } else { ValueRef::Bytes(b"some text") };
        builder.push(value).unwrap();
    }
    let mut batch = RowBatch::default();
    let id = KeyEncoder::new(KeyVersion::V3, ["customer_id"]).encode([KeyValue::String("C7")], &mut Vec::new());
    batch.push(id, builder.finish().unwrap());
    let mut load = store.begin_load(view, LoadMode::Upsert).unwrap();
    load.apply(&batch, None).unwrap();
    load.finish(None).unwrap();
    let limits = ServingLimits { rows_max: 100, features_max: 1_000, values_max: 10_000 };
    (dir, Snapshot::new(catalog, Arc::new(store), clock, TtlPolicy::Mark, limits).unwrap())
}

#[test]
fn hot_lookup_allocates_a_few_times() {
    for features in [1, 8, 50, 200] {
        let (_dir, snapshot) = snapshot(features);
        let body = br#"{"feature_service": "all", "entities": {"customer_id": ["C7"]}}"#;
        let authorization = Authenticator::open().authenticate_anonymous().unwrap();
        let answer = || encode_answer(&snapshot.answer(&authorization, &decode_request(body).unwrap()).unwrap());
        let first = answer();
        for _ in 0..3 {
            let mut again = Vec::new();
            let counted = allocation_counter::measure(|| again = answer());
            assert_eq!(again, first, "the response from memory equals the one from disk");
            assert!(counted.count_total <= ALLOCATIONS, "{features} features: {counted:?}");
        }
    }
}
