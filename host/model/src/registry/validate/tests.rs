use expect_test::{Expect, expect};

use super::*;

const GOOD: &str = "
entities:
  - {name: customer, join_key: customer_id, type: String}
  - {name: driver, join_key: driver_id, type: INT64}
feature_views:
  - name: customer_stats
    entities: [customer]
    ttl: 1d
    source: {path: data/customer.parquet, field_mapping: {src: txn_count}}
    features:
      - {name: txn_count, type: Int64, description: transactions so far}
      - {name: tags, type: Array(String), tags: {version: 2}}
  - name: pair_stats
    entities: [driver, customer]
    mode: replace
    features: [{name: rides, type: Int64}]
  - name: global_stats
    features: [{name: global_mean, type: Float64}]
feature_services:
  - name: churn_online
    features:
      - customer_stats
      - pair_stats:rides
      - {view: pair_stats, alias: origin, join_key_map: {driver_id: origin_driver_id}}
";

pub(super) fn catalog_of(texts: &[&str]) -> (Option<Catalog>, String) {
    let problems = Problems::default();
    let mut definitions = Definitions::default();
    for (i, text) in texts.iter().enumerate() {
        definitions.read(&format!("{i}.yaml"), text, &problems);
    }
    let catalog = validate("churn", KeyVersion::V3, definitions, &problems).filter(|_| !problems.has_errors());
    let lines: Vec<String> = problems.into_sorted().iter().map(ToString::to_string).collect();
    (catalog, lines.join("\n"))
}

pub(super) fn check(texts: &[&str], expected: Expect) {
    let (catalog, lines) = catalog_of(texts);
    assert_eq!(catalog.is_none(), lines.contains(": error: "), "exactly definitions with errors have no catalog");
    expected.assert_eq(&lines);
}

#[test]
fn path_with_pattern_is_error() {
    let definitions = "
entities: [{name: driver, join_key: driver_id, type: Int64}]
feature_views:
  - name: daily_stats
    entities: [driver]
    features: [{name: trips, type: Int64}]
    source: {path: data/*.parquet}
  - name: table_stats
    entities: [driver]
    features: [{name: rides, type: Int64}]
    source: {dynamodb: drivers}
    batch_source: {path: 's3://bucket/day-?/part.parquet'}
  - name: odd_stats
    entities: [driver]
    features: [{name: fares, type: Int64}]
    source: {path: 'data/[1].parquet'}
";
    check(
        &[definitions],
        expect![[r#"
        0.yaml:7:20: error: feature view 'daily_stats': 'source: path' is 'data/*.parquet', but patterns are not supported (use a Parquet file, a directory (its *.parquet files are read at any depth), or s3://bucket/key (an object or a prefix))
        0.yaml:12:26: error: feature view 'table_stats': 'batch_source: path' is 's3://bucket/day-?/part.parquet', but patterns are not supported (use a Parquet file, a directory (its *.parquet files are read at any depth), or s3://bucket/key (an object or a prefix))"#]],
    );
}

#[test]
fn catalog_has_all_definitions() {
    let (catalog, problems) = catalog_of(&[GOOD]);
    assert_eq!(problems, "");
    let catalog = catalog.unwrap();
    let pair = catalog.view("pair_stats").unwrap();
    let keys: Vec<_> = pair.join_keys.iter().map(|key| &*key.name).collect();
    assert_eq!(keys, ["customer_id", "driver_id"], "sorted by name, regardless of the order of the entities");
    assert_eq!(&*catalog.view("global_stats").unwrap().join_keys[0].name, JOIN_KEY_DUMMY);
    assert_eq!(catalog.join_keys().keys().map(|key| &**key).collect::<Vec<_>>(), ["customer_id", "driver_id"]);
    let service = catalog.service("churn_online").unwrap();
    assert_eq!(service.projections[0].features.len(), 2, "all features of the view");
    assert_eq!(&**service.projections[2].prefix(), "origin");
    assert_eq!(service.projections[2].request_column(&"driver_id".into()).as_ref(), "origin_driver_id");
    assert!(catalog.view("nope").is_none() && catalog.service("nope").is_none());
}

#[test]
fn definitions_of_several_files_are_combined() {
    let (entities, rest) = GOOD.split_once("feature_views:").unwrap();
    let rest = format!("feature_views:{rest}");
    check(&[&rest, entities, "# nothing\n", ""], expect![[""]]);
}

#[test]
fn every_error_in_every_file_reported() {
    let bad = "
entities:
  - {name: customer, type: Float64}
  - {name: \"a\\tb\", type: String}
  - {name: other, join_key: driver_id, type: String}
feature_views:
  - name: customer_stats
    entities: [driver, drivr, driver]
    features:
      - {name: x, type: Int65}
      - {name: driver_id, type: Int64}
      - {name: conv, type: Float64}
      - {name: conv, type: Float64}
  - name: 'a:b'
    features: []
    source: {path: x, field_mapping: {a: c, b: c}}
feature_services:
  - name: svc_one
    features: [customer_stat, 'customer_stats:txn_cont', 'customer_stats:txn_count', customer_stats]
  - name: svc_two
  - name: svc_three
    features: [{view: pair_stats, join_key_map: {drivr_id: x}, alias: ''}]
";
    check(
        &[GOOD, bad],
        expect![[r#"
            1.yaml:3:12: error: entity 'customer' is defined twice (first defined at 0.yaml:3:12)
            1.yaml:4:12: error: 'a\tb' is not a valid entity name (a name has 1 to 16384 bytes, and no control characters)
            1.yaml:5:29: error: join key 'driver_id' is String here, but Int64 in another entity
            1.yaml:7:11: error: feature view 'customer_stats' is defined twice (first defined at 0.yaml:6:11)
            1.yaml:10:25: error: unknown type 'Int65' (did you mean 'Int64'?)
            1.yaml:14:11: error: feature view 'a:b': the name contains a colon, which separates view and feature in references
            1.yaml:14:11: error: feature view 'a:b' has no features
            1.yaml:14:11: warning: these names do not follow the convention <domain>_<feature> for views and services, and snake_case for features: feature view 'a:b' (set 'naming_warnings: false' to turn this warning off)
            1.yaml:16:48: error: feature view 'a:b': 'field_mapping' maps two columns to 'c'
            1.yaml:19:16: error: feature view 'customer_stat' does not exist (did you mean 'customer_stats'?)
            1.yaml:19:31: error: feature view 'customer_stats' has no feature 'txn_cont' (did you mean 'txn_count'?)
            1.yaml:19:86: error: feature service 'svc_one' selects 'customer_stats:txn_count' twice (remove one, or give one of them an alias)
            1.yaml:20:11: error: feature service 'svc_two' selects no features
            1.yaml:22:60: error: feature view 'pair_stats' has no join key 'drivr_id' (did you mean 'driver_id'?)
            1.yaml:22:71: error: '' is not a valid alias name (a name has 1 to 16384 bytes, and no control characters)"#]],
    );
}

#[test]
fn name_of_expiry_field_is_reserved() {
    let text = "\
feature_views:
  - name: user_stats
    features: [{name: (expires), type: UnixTimestamp}]
";
    check(
        &[text],
        expect![
            "0.yaml:3:23: error: '(expires)' is not a valid feature name (this name is reserved for the expiration time of a row)"
        ],
    );
}

#[test]
fn unusual_names_cause_one_warning() {
    let odd = "
feature_views:
  - name: Stats
    features: [{name: globalMean, type: Float64}]
feature_services:
  - {name: churn, features: [Stats]}
";
    check(
        &[odd],
        expect![[r#"
        0.yaml:3:11: warning: these names do not follow the convention <domain>_<feature> for views and services, and snake_case for features: feature view 'Stats', feature 'globalMean', feature service 'churn' (set 'naming_warnings: false' to turn this warning off)"#]],
    );
    let many: Vec<String> = (0..7).map(|i| format!("{{name: F{i}, type: Int64}}")).collect();
    let many = format!("feature_views:\n  - {{name: user_stats, features: [{}]}}\n", many.join(", "));
    check(
        &[&many],
        expect![[r#"
        0.yaml:2:42: warning: these names do not follow the convention <domain>_<feature> for views and services, and snake_case for features: feature 'F0', feature 'F1', feature 'F2', feature 'F3', feature 'F4' and 2 more (set 'naming_warnings: false' to turn this warning off)"#]],
    );
}

#[test]
fn error_is_not_repeated_for_references() {
    let uses = "
feature_views:
  - {name: user_stats, entities: [customer], features: [{name: x, type: Int64}]}
feature_services:
  - name: svc_online
    features: [customer_stats, 'pair_stats:ride_count', {view: user_stats, join_key_map: {customer_id: c}}]
";
    let good = "feature_views:
  - {name: customer_stats, features: [{name: y, type: Int64}]}
  - {name: pair_stats, features: [{name: ride_count, type: Int64}]}
entities: [{name: customer, join_key: customer_id, type: String}]
";
    check(&[uses, good], expect![[""]]);
    let broken = |good_words: &str, bad_words: &str, expected: Expect| {
        let text = good.replace(good_words, bad_words);
        assert_ne!(text, good);
        check(&[uses, &text], expected);
    };
    broken("type: String", "type: Strin", expect!["1.yaml:4:58: error: unknown type 'Strin' (did you mean 'String'?)"]);
    broken(
        "type: String",
        "type: Float64",
        expect![
            "1.yaml:4:58: error: entity 'customer': Float64 is not a valid key type (keys are String, Int64, Int32, Bytes or UnixTimestamp)"
        ],
    );
    broken(
        "{name: customer,",
        "{nam: customer,",
        expect![[r#"
        1.yaml:4:12: error: entity: 'name' is missing
        1.yaml:4:13: error: entity: unknown key 'nam' (did you mean 'name'?)"#]],
    );
    broken(
        "entities: [",
        "entitys: [",
        expect!["1.yaml:4:1: error: definitions: unknown key 'entitys' (did you mean 'entities'?)"],
    );
    broken(
        "name: customer_stats",
        "name: [customer_stats]",
        expect!["1.yaml:2:12: error: feature view: 'name' must be text, got a list"],
    );
    broken(
        "{name: ride_count, type: Int64}",
        "{name: ride_count, type: Int}",
        expect!["1.yaml:3:60: error: unknown type 'Int' (did you mean 'Int64'?)"],
    );
    broken(
        "[{name: ride_count, type: Int64}]",
        "[]",
        expect!["1.yaml:3:12: error: feature view 'pair_stats' has no features"],
    );
    broken(
        "[{name: ride_count, type: Int64}]",
        "{name: ride_count, type: Int64}",
        expect!["1.yaml:3:34: error: feature view: 'features' must be a list, got a mapping"],
    );
    broken(
        "features: [{name: ride_count",
        "feature: [{name: ride_count",
        expect!["1.yaml:3:24: error: feature view: unknown key 'feature' (did you mean 'features'?)"],
    );
    broken("feature_views:", "feature_views: [", expect![[r#"1.yaml:2:3: error: "-" is only valid inside a block"#]]);
}

#[test]
fn feature_and_name_limits_hold() {
    let view = |count: usize| {
        let features: String = (0..count).map(|i| format!("      - {{name: f{i}, type: Int64}}\n")).collect();
        format!("feature_views:\n  - name: wide_view\n    features:\n{features}")
    };
    check(&[&view(FEATURES_MAX)], expect![[""]]);
    check(
        &[&view(FEATURES_MAX + 1)],
        expect!["0.yaml:2:11: error: feature view 'wide_view' has 4097 features, but at most 4096 are allowed"],
    );
    let named = |chars: usize| format!("entities: [{{name: {}, type: String}}]", "n".repeat(chars));
    check(&[&named(NAME_BYTES_MAX)], expect![[""]]);
    assert!(catalog_of(&[&named(NAME_BYTES_MAX + 1)]).1.contains("is not a valid entity name"));
}
