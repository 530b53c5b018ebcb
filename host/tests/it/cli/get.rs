//! `larder get` and `larder delete`: how arguments name entities, and messages about invalid arguments.

use std::sync::Arc;

use arrow::array::{Int64Array, StringArray};
use serde_json::{Value, json};

use crate::{
    binary::Home,
    parquet::{self, Columns},
    wire,
};

/// Two views with one key, a view with two keys, a view of users with another key name, and a derived view.
const DEFINITIONS: &str = "
entities:
  - {name: user, type: String}
  - {name: account, join_key: account_id, type: String}
  - {name: ts, type: UnixTimestamp}
feature_views:
  - name: user_stats
    entities: [user]
    features: [{name: clicks, type: Int64}]
    source: {path: data/users.parquet, timestamp_field: event_timestamp}
  - name: k_ts
    entities: [ts]
    features: [{name: x, type: Int64}]
    source: {path: data/times.parquet, timestamp_field: event_timestamp}
  - name: pair_stats
    entities: [user, account]
    features: [{name: rides, type: Int64}]
derived_views:
  - name: user_ratio
    inputs: ['user_stats:clicks', {name: denominator, request: Float64}, {name: since, request: UnixTimestamp}]
    features: [{name: ratio, type: Float64}]
feature_services:
  - {name: user_online, features: [user_stats]}
  - {name: ratio_online, features: [user_ratio]}
  - {name: friend_online, features: [{view: user_stats, join_key_map: {user: friend}}]}
";

/// 2026-11-20T01:02:03Z.
const TIME: i64 = 1_795_136_523;

fn home() -> Home {
    let home = Home::with(DEFINITIONS);
    let times = || parquet::times([Some(60), Some(60)].into_iter());
    let users: Columns = vec![
        ("user", Arc::new(StringArray::from(vec!["a,b", "ann"]))),
        ("event_timestamp", times()),
        ("clicks", Arc::new(Int64Array::from(vec![1, 2]))),
    ];
    let instants: Columns = vec![
        ("ts", Arc::new(Int64Array::from(vec![TIME, 7]))),
        ("event_timestamp", times()),
        ("x", Arc::new(Int64Array::from(vec![1, 2]))),
    ];
    std::fs::create_dir_all(home.path("data")).unwrap();
    parquet::write(&home.path("data/users.parquet"), &users);
    parquet::write(&home.path("data/times.parquet"), &instants);
    home.run(["sync", "user_stats", "k_ts"]).assert_code(0);
    home
}

/// Requests features as JSON, and returns the values of each column.
fn values(home: &Home, args: &[&str]) -> Value {
    let got: Value = serde_json::from_str(&home.run([&["get", "--json"], args].concat()).assert_code(0).out).unwrap();
    got["results"].as_array().unwrap().iter().map(|column| column["values"].clone()).collect()
}

#[track_caller]
fn assert_message(home: &Home, args: &[&str], expected: &str) {
    let ended = home.run(args.iter().copied());
    assert_eq!(ended.assert_code(1).err.trim_end(), format!("larder: {expected}"));
}

#[test]
fn get_without_entities_names_join_keys() {
    let home = home();
    let expected = "'user_online' needs user. hint: larder get -s user_online user=VALUE";
    assert_message(&home, &["get", "-s", "user_online"], expected);
    assert_message(
        &home,
        &["get", "-s", "ratio_online"],
        "'ratio_online' needs user, denominator, since. hint: larder get -s ratio_online user=VALUE \
         denominator=VALUE since=VALUE",
    );
    assert_message(
        &home,
        &["get", "-f", "pair_stats:rides"],
        "'pair_stats:rides' needs account_id, user. hint: larder get -f pair_stats:rides account_id=VALUE user=VALUE",
    );
    let expected = "'friend_online' needs friend. hint: larder get -s friend_online friend=VALUE";
    assert_message(&home, &["get", "-s", "friend_online"], expected);
}

#[test]
fn get_reports_unknown_key_name() {
    let home = home();
    let expected = "'usr' is neither a join key nor a request input of 'user_online'; did you mean 'user'?";
    assert_message(&home, &["get", "-s", "user_online", "usr=ann"], expected);
    let expected = "'usr' is neither a join key nor a request input of 'user_stats:clicks'; did you mean 'user'?";
    assert_message(&home, &["verify", "-f", "user_stats:clicks", "usr=ann"], expected);
    let expected = "'ts' is neither a join key nor a request input of 'user_online'; 'user_online' needs user";
    assert_message(&home, &["get", "-s", "user_online", "ts=7"], expected);
    // As in Feast, unneeded columns are ignored, and an entity's name can be used instead of its join key.
    assert_eq!(values(&home, &["-s", "user_online", "user=ann", "ts=7", "other=x"])[1], json!(["ann"]));
    assert_eq!(values(&home, &["-f", "pair_stats:rides", "user=ann", "account=x"])[2], json!([null]));
    assert_eq!(values(&home, &["-s", "friend_online", "friend=ann"]), json!([["ann"], [2]]));
}

#[test]
fn get_reports_different_numbers_of_values() {
    let home = home();
    let expected = "'denominator' has 1 value, 'user' has 2. hint: give each the same number of values";
    assert_message(&home, &["get", "-s", "ratio_online", "user=ann,bob", "denominator=2", "since=1"], expected);
}

#[test]
fn get_accepts_times_as_keys() {
    let home = home();
    let time = "ts=2026-11-20T01:02:03Z,7,2026-11-20T02:02:03+01:00";
    assert_eq!(values(&home, &["-f", "k_ts:x", time]), json!([[TIME, 7, TIME], [1, 2, 1]]));
    home.run(["verify", "-f", "k_ts:x", time]).assert_code(0);
    // The server checks the types of request inputs.
    let input = ["-s", "ratio_online", "user=ann", "denominator=2", "since=2026-11-20T01:02:03Z"];
    home.run([&["get"], &input[..]].concat()).assert_code(0);
    let deleted = home.run(["delete", "k_ts", "ts=2026-11-20T01:02:03Z"]);
    assert!(deleted.assert_code(0).out.starts_with("k_ts: deleted"), "{}", deleted.out);
    assert_eq!(values(&home, &["-f", "k_ts:x", "ts=7,2026-11-20T01:02:03Z"])[1], json!([2, null]));
}

#[test]
fn get_accepts_quoted_key_with_comma() {
    let home = home();
    let quoted = r#"user="a,b",ann"#;
    assert_eq!(values(&home, &["-s", "user_online", quoted]), json!([["a,b", "ann"], [1, 2]]));
    assert_eq!(values(&home, &["-s", "user_online", "user=a,b"])[1], json!([null, null]));
    let deleted = home.run(["delete", "user_stats", r#"user="a,b""#]);
    assert!(deleted.assert_code(0).out.starts_with("user_stats: deleted"), "{}", deleted.out);
}

#[test]
fn catalog_has_inputs_of_services() {
    let home = home();
    let (host, address) = home.serve();
    let catalog = wire::send(address, "GET", "/v1/catalog", &[], b"").json();
    let inputs = |index: usize| catalog["feature_services"][index]["inputs"].clone();
    assert_eq!(inputs(2), json!([{ "name": "user", "type": "String", "from": "key user" }]), "{catalog}");
    let of_derived = json!([
        { "name": "denominator", "type": "Float64", "from": "request" },
        { "name": "since", "type": "UnixTimestamp", "from": "request" },
        { "name": "user", "type": "String", "from": "key user" },
    ]);
    assert_eq!(inputs(1), of_derived);
    assert_eq!(inputs(0), json!([{ "name": "friend", "type": "String", "from": "key user" }]));
    host.stop(rustix::process::Signal::TERM);
}
