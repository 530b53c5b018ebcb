//! Checks that reading the written definitions results in the same catalog.

use super::*;
use crate::{
    codec::KeyVersion,
    registry::{Catalog, FeastRegistry, FeastValues, validate},
    yaml::Problems,
};

const REGISTRY: &[u8] = include_bytes!("../../../../tests/golden/repo/data/registry.db");

fn catalog(definitions: Definitions) -> Catalog {
    let problems = Problems::default();
    let catalog = validate("churn_prediction", KeyVersion::V3, definitions, &problems);
    catalog.unwrap_or_else(|| panic!("{:?}", problems.into_sorted()))
}

fn read(text: &str) -> Definitions {
    let problems = Problems::default();
    let mut definitions = Definitions::default();
    definitions.read("written.yaml", text, &problems);
    assert!(!problems.has_errors(), "{:?}\n{text}", problems.into_sorted());
    definitions
}

#[track_caller]
fn assert_same(one: &Catalog, other: &Catalog) {
    assert_eq!(format!("{:#?}", one.entities()), format!("{:#?}", other.entities()));
    assert_eq!(one.views(), other.views());
    assert_eq!(format!("{:#?}", one.derived_views()), format!("{:#?}", other.derived_views()));
    assert_eq!(one.services(), other.services());
}

#[test]
fn written_registry_reads_back_unchanged() {
    let registry = FeastRegistry::parse(REGISTRY).unwrap();
    for values in [FeastValues::BatchSources, FeastValues::OnlineStore("data/on line.db".to_owned())] {
        let mut definitions = registry.definitions("registry.db", "churn_prediction", &values.into());
        assert!(definitions.views.iter().all(|view| view.created.is_some()));
        // YAML cannot contain the time at which a view was created.
        definitions.views.iter_mut().for_each(|view| view.created = None);
        let text = to_yaml(&definitions);
        let direct = catalog(definitions);
        assert_eq!((direct.views().len(), direct.derived_views().len(), direct.services().len()), (6, 5, 4));
        assert_same(&catalog(read(&text)), &direct);
    }
}

const ALL: &str = r#"
entities:
  - {name: customer, join_key: customer_id, type: String, description: "yes", tags: {owner: "team: a"}}
  - {name: driver, type: Int64}
feature_views:
  - name: stats
    entities: [customer, driver]
    key_types: {driver: Int32}
    ttl: 90s
    mode: replace
    source: {path: "data/a b.parquet", timestamp_field: ts, created_timestamp_column: made, field_mapping: {"a:b": c}, every: 1500ms}
    push_source: clicks
    description: "- it's a \"text\": # not a comment\n\twith\\lines"
    tags: {version: "1", on: "off", "": "~"}
    features:
      - {name: c, type: Array(Float32), description: "é中 \u2028 {[*&!|>%@`"}
      - {name: d, type: Map}
  - name: mirrored
    source: {feast_sqlite: data/online.db, table: x_y}
    batch_source: {path: data/b.parquet}
    features: [{name: e, type: Int64}]
derived_views:
  - name: ratios
    plugin: ratio
    on_error: {default: {f: 1.5}}
    config: {"limit": [1, null]}
    inputs:
      - {name: top, from: "mirrored:e"}
      - {name: bottom, request: Float64}
      - {name: who, key: customer_id}
    features: [{name: f, type: Float64}]
feature_services:
  - name: both
    description: two of them
    features:
      - {view: stats, features: [c], alias: other, join_key_map: {customer_id: buyer_id}}
      - {view: ratios}
"#;

#[test]
fn every_setting_is_written() {
    let definitions = read(ALL);
    let text = to_yaml(&definitions);
    assert_same(&catalog(read(&text)), &catalog(definitions));
    // Writing the result again changes nothing.
    assert_eq!(to_yaml(&read(&text)), text);
}

#[test]
fn texts_are_quoted_only_if_needed() {
    let shown = |text: &str| Scalar(text).to_string();
    for plain in ["customer_id", "data/a.parquet", "v1", "a-b", "_x", "../data/b", "/srv/x"] {
        assert_eq!(shown(plain), plain);
    }
    for quoted in ["", "1", "1.5", "no", "NULL", "On", "~", "-", "- a", "a: b", "a #b", "[a]", "{a}", "a b", ".5", "é"]
    {
        assert_eq!(shown(quoted), format!("\"{quoted}\""));
    }
    assert_eq!(shown("a\"\\\n\u{7f}\u{2028}"), "\"a\\\"\\\\\\n\\u007f\\u2028\"");
}

#[test]
fn unservable_definitions_become_comments() {
    use crate::registry::Unservable;
    let mut definitions = read(ALL);
    definitions.unservable_views.push(Unservable { name: "far".into(), why: "its source is\nfar away".into() });
    let text = to_yaml(&definitions);
    assert!(text.contains("\n  # Not served: feature view far: its source is far away\n"), "{text}");
    assert_same(&catalog(read(&text)), &catalog(read(ALL)));
}
