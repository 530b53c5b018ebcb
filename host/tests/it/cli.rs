//! The command line: every command as users call it, with exit codes and messages.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::Stdio,
    sync::Arc,
};

use arrow::array::{ArrayRef, Int64Array, StringArray};
use expect_test::expect;
use serde_json::{Value, json};

use crate::{
    binary::{Home, LARDER_YAML},
    parquet, wire,
};

mod get;
mod init;
mod verify;

const GOOD: &str = "
entities: [{name: user, join_key: user_id, type: Int64}]
feature_views: [{name: user_stats, entities: [user], features: [{name: clicks, type: Int64}]}]
feature_services: [{name: clicks_online, features: [user_stats]}]
";

/// The arguments that select an expired value of the golden repository.
const EXPIRED: [&str; 3] = ["--feature", "expired_stats:stale_value", "customer_id=CUST_000123"];
const PRESENT: [&str; 3] = ["--feature", "driver_stats:conv_rate", "driver_id=1001"];

fn with<'a>(command: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [command, more].concat()
}

/// Formats a table as lines of cells. Replaces ages, because they depend on when the test runs.
fn cells(table: &str) -> String {
    let cell = |cell: &str| if cell.ends_with(" ago") { "AGE ago".to_owned() } else { cell.to_owned() };
    let line = |line: &str| {
        let cells = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
        cells.map(cell).collect::<Vec<_>>().join(" | ")
    };
    table.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn check_errors_exit_3() {
    let home = Home::with(GOOD);
    home.write("features/more.yaml", "feature_views:\n  - name: late_stats\n    ttl: 5\n    features: []\n");
    home.write(
        "features/other.yaml",
        "feature_services:\n  - {name: some_online, features: [user_stat, 'user_stats:click']}\n",
    );
    let checked = home.run(["check"]);
    checked.assert_code(3);
    assert_eq!(checked.out, "", "errors go to standard error");
    expect![[r#"
        features/more.yaml:2:11: error: feature view 'late_stats' has no features
        features/more.yaml:3:10: error: feature view: 'ttl' needs a unit (write, for example, 5s or 5d)
        features/other.yaml:2:36: error: feature view 'user_stat' does not exist (did you mean 'user_stats'?)
        features/other.yaml:2:47: error: feature view 'user_stats' has no feature 'click' (did you mean 'clicks'?)
    "#]]
    .assert_eq(&checked.err);
}

#[test]
fn check_reports_invalid_input_name_once() {
    let derived = "
derived_views:
  - name: user_ratio
    inputs: [{name: a b, request: Float64}]
    features: [{name: ratio, type: Float64}]
";
    let checked = Home::with(&(GOOD.to_owned() + derived)).run(["check"]);
    let expected = "features/all.yaml:8:21: error: 'a b' is not a valid input name (give it a 'name' of letters, digits \
                    and '_')\n";
    assert_eq!(checked.assert_code(3).err, expected);
}

#[test]
fn check_counts_valid_definitions() {
    let checked = Home::with(GOOD).run(["check"]);
    checked.assert_code(0);
    expect![[r#"
        larder.yaml: project churn_prediction, 1 entity, 1 feature view with 1 feature, 1 feature service: no errors
    "#]]
    .assert_eq(&checked.out);
    assert_eq!(checked.err, "");
}

#[test]
fn check_warns_of_names_once() {
    let checked =
        Home::with(&GOOD.replace("clicks_online", "clicks").replace("user_stats", "userStats")).run(["check"]);
    checked.assert_code(0);
    expect![[r#"
        features/all.yaml:3:24: warning: these names do not follow the convention <domain>_<feature> for views and services, and snake_case for features: feature view 'userStats', feature service 'clicks' (set 'naming_warnings: false' to turn this warning off)
        larder.yaml: project churn_prediction, 1 entity, 1 feature view with 1 feature, 1 feature service: no errors, 1 warning
    "#]].assert_eq(&checked.out);
}

#[test]
fn invalid_configuration_exits_3_with_position() {
    let home = Home::with(GOOD);
    for command in ["check", "serve", "sync", "list"] {
        home.run([command, "--config", "nowhere.yaml"]).assert_code(3).assert_complains(&["nowhere.yaml"]);
        let directory = home.run([command, "--config", "features"]);
        directory.assert_code(3).assert_complains(&["features", "directory"]);
        assert!(!directory.err.contains("hint"), "{}", directory.err);
        let hint = "Is a directory (os error 21). hint: set --config to ./larder.yaml";
        home.run([command, "--config", "."]).assert_code(3).assert_complains(&[hint]);
    }
    let by_variable = home.larder(["check"]).env("LARDER_CONFIG", "elsewhere.yaml").output().unwrap();
    assert_eq!(by_variable.status.code(), Some(3));
    home.configure("serving: {tll: mark}\nlimits: 5\n");
    let words = ["larder.yaml:5:", "unknown key 'tll' (known keys: ttl)", "larder.yaml:6:", "unknown key 'limits'"];
    home.run(["serve"]).assert_code(3).assert_complains(&words);
}

#[test]
fn error_of_flag_names_flag() {
    let home = Home::with(GOOD);
    for (flag, value, words) in [
        ("--listen", "0.0.0.0:1", "--listen: error: server: 'listen' is 0.0.0.0:1,"),
        ("--grpc", "0.0.0.0:1", "--grpc: error: grpc: 'listen' is 0.0.0.0:1,"),
    ] {
        let served = home.run(["serve", "--config", "larder.yaml", flag, value]);
        served.assert_code(3).assert_complains(&[words]);
        assert!(!served.err.contains("LARDER_"), "{}", served.err);
    }
    let by_variable = home.larder(["serve"]).env("LARDER_SERVER_LISTEN", "0.0.0.0:1").output().unwrap();
    let err = String::from_utf8(by_variable.stderr).unwrap();
    assert!(err.starts_with("LARDER_SERVER_LISTEN: error: "), "{err}");
}

#[test]
fn sync_of_unknown_view_syncs_others() {
    let home = Home::golden();
    let synced = home.run(["sync", "driver_stat", "pair_stats"]);
    synced
        .assert_code(1)
        .assert_complains(&["feature view 'driver_stat' does not exist (did you mean 'driver_stats'?)"]);
    assert!(synced.out.starts_with("pair_stats: 2 rows in "), "{}", synced.out);
    home.run(["sync", "nope"]).assert_code(1).assert_complains(&["feature view 'nope' does not exist"]);
}

#[test]
fn sync_of_missing_source_exits_1() {
    let home = Home::golden();
    fs::remove_file(home.path("data/pair_stats.parquet")).unwrap();
    let synced = home.run(["sync"]);
    synced.assert_code(1).assert_complains(&[
        "pair_stats",
        "data/pair_stats.parquet",
        "1 feature view could not be synced",
    ]);
    assert!(synced.out.contains("driver_stats: 3 rows in "), "{}", synced.out);
    assert_eq!(synced.err.matches("No such file").count(), 1, "the error is reported once: {}", synced.err);
}

#[test]
fn get_prints_one_table_per_row() {
    let home = Home::golden_loaded();
    let got = home.run(with(
        &["get"],
        &["-f", "driver_stats:conv_rate", "-f", "driver_stats:avg_daily_trips", "driver_id=1001,7"],
    ));
    got.assert_code(0);
    expect![[r#"
        FEATURE          VALUE   STATUS   EVENT TIME
        driver_id        1001    PRESENT
        conv_rate        0.6001  PRESENT  2026-11-23T08:13:10Z
        avg_daily_trips  1001    PRESENT  2026-11-23T08:13:10Z

        FEATURE          VALUE  STATUS     EVENT TIME
        driver_id        7      PRESENT
        conv_rate        null   NOT_FOUND
        avg_daily_trips  null   NOT_FOUND
    "#]]
    .assert_eq(&got.out);
    assert_eq!(got.err, "");
}

#[test]
fn get_json_equals_http_response() {
    let home = Home::golden_loaded();
    let alone: Value = serde_json::from_str(&home.run(with(&["get", "--json"], &PRESENT)).assert_code(0).out).unwrap();
    let (host, address) = home.serve();
    let asked: Value = serde_json::from_str(&home.run(with(&["get", "--json"], &PRESENT)).assert_code(0).out).unwrap();
    let body = json!({ "features": ["driver_stats:conv_rate"], "entities": { "driver_id": [1001] } });
    let http = wire::send(address, "POST", "/get-online-features", &[], body.to_string().as_bytes()).json();
    assert_eq!(alone["results"][1], http["results"][1]);
    assert_eq!(alone, asked, "through the admin socket");
    host.stop(rustix::process::Signal::TERM);
}

#[test]
fn get_of_undefined_feature_exits_1() {
    let home = Home::golden_loaded();
    let wrong = |args: &[&str], words: &str| {
        home.run(with(&["get"], args)).assert_code(1).assert_complains(&[words]);
    };
    wrong(
        &["--service", "fs_nope", "driver_id=1"],
        "Feature service fs_nope does not exist in project churn_prediction",
    );
    wrong(&["--feature", "nope_stats:x", "driver_id=1"], "nope_stats");
    wrong(&["--feature", "driver_stats:conv_rate", "rider_id=1"], "did you mean 'driver_id'?");
    wrong(&["--feature", "driver_stats:conv_rate", "driver_id=abc"], "'abc'");
}

#[test]
fn contradictory_arguments_exit_2() {
    let home = Home::golden();
    for words in [
        &["get"][..],
        &["get", "driver_id=1"],
        &["get", "--service", "fs_basic", "--feature", "a:b"],
        &["get", "--feature", "driver_stats:conv_rate", "1001"],
        &["get", "--feature", "driver_stats:conv_rate", "driver_id=1", "driver_id=2"],
        &["verify", "driver_id=1"],
        &["verify", "--sample", "0"],
        &["verify", "--feature", "conv_rate"],
        &["sync", "--from", "2026-02-01", "--to", "2026-01-01"],
        &["sync", "--from", "yesterday"],
        &["serve", "--listen", "nowhere"],
        &["serve", "--port", "1"],
        &["demo", "--customers", "0"],
        &["list", "--nope"],
        &["check", "one", "two"],
        &["init"],
        &["nope"],
        &[],
    ] {
        let ended = home.run(words.iter().copied());
        ended.assert_code(2);
        assert!(ended.out.is_empty() && !ended.err.is_empty(), "{words:?}: {}", ended.out);
    }
}

#[test]
fn list_is_plain_text_in_pipes() {
    let home = Home::golden_loaded();
    let listed = home.run(["list", "--features"]);
    listed.assert_code(0);
    assert!(!listed.out.contains('\u{1b}'), "colors are only for terminals");
    expect![[r#"
        project churn_prediction

        FEATURE VIEW | KEYS | FEATURES | ROWS | SYNCED | NEWEST EVENT | TTL | SOURCE | TAGS
        customer_stats | customer_id | 17 | 3 | AGE ago | AGE ago | 36500d | data/customer_stats.parquet
        driver_stats | driver_id | 2 | 3 | AGE ago | AGE ago | - | data/driver_stats.parquet
        expired_stats | customer_id | 1 | 1 | AGE ago | AGE ago | 60m | data/expired_stats.parquet
        global_stats | - | 1 | 1 | AGE ago | AGE ago | 36500d | data/global_stats.parquet
        mapped_stats | customer_id | 2 | 1 | AGE ago | AGE ago | 36500d | data/mapped_stats.parquet
        pair_stats | customer_id,driver_id | 1 | 2 | AGE ago | AGE ago | 36500d | data/pair_stats.parquet

        DERIVED VIEW | PLUGIN | VERSION | FEATURES | READS | TAGS
        odfv_pandas | odfv_pandas | MISSING | 2 | customer_stats:avg_amount, request amount, request hour
        odfv_probe | odfv_probe | MISSING | 1 | driver_stats:conv_rate, driver_stats:avg_daily_trips
        odfv_probe_py | odfv_probe_py | MISSING | 1 | key driver_id, request amount, request hour, driver_stats:avg_daily_trips, driver_stats:conv_rate
        odfv_python | odfv_python | MISSING | 2 | driver_stats:conv_rate, request amount, request hour
        odfv_singleton | odfv_singleton | MISSING | 1 | driver_stats:avg_daily_trips

        FEATURE SERVICE | FEATURES | TAGS | DESCRIPTION
        fs_alias | 2
        fs_basic | 5
        fs_odfv | 3
        fs_precompute | 2

        FEATURE | TYPE | TAGS | DESCRIPTION
        customer_stats:txn_count | Int64
        customer_stats:small_int | Int32
        customer_stats:avg_amount | Float32
        customer_stats:balance | Float64
        customer_stats:is_active | Bool
        customer_stats:segment | String
        customer_stats:raw_blob | Bytes
        customer_stats:last_login | UnixTimestamp
        customer_stats:tags | Array(String)
        customer_stats:recent_ids | Array(Int64)
        customer_stats:embedding | Array(Float32)
        customer_stats:scores | Array(Float64)
        customer_stats:flags | Array(Bool)
        customer_stats:blobs | Array(Bytes)
        customer_stats:login_times | Array(UnixTimestamp)
        customer_stats:profile_json | Json
        customer_stats:device_uuid | Uuid
        driver_stats:conv_rate | Float64
        driver_stats:avg_daily_trips | Int64
        expired_stats:stale_value | Int64
        global_stats:global_mean | Float64
        mapped_stats:mapped_value | Int64
        mapped_stats:segment | String
        pair_stats:rides | Int64
        odfv_pandas:amount_over_avg | Float64
        odfv_pandas:is_night | Bool
        odfv_probe:seen_columns | String
        odfv_probe_py:seen_keys | String
        odfv_python:conv_x_amount | Float64
        odfv_python:label | String
        odfv_singleton:trips_plus_one | Int64"#]]
    .assert_eq(&cells(&listed.out));

    let json: Value = serde_json::from_str(&home.run(["list", "--json"]).assert_code(0).out).unwrap();
    assert_eq!(json["feature_views"].as_array().unwrap().len(), 6);
}

#[test]
fn list_into_closed_pipe_succeeds() {
    let home = Home::golden_loaded();
    let mut child = home.larder(["list"]).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), ended.stderr), (Some(0), Vec::new()));
}

#[test]
fn verify_fails_on_bad_values() {
    let home = Home::golden_loaded();
    let verified = home.run(with(&["verify"], &PRESENT));
    assert_eq!(verified.assert_code(0).out, "nothing is missing, expired or invalid in 1 value\n");

    let missing = home.run(["verify", "--feature", "driver_stats:conv_rate", "driver_id=1001,7"]);
    missing.assert_code(1).assert_complains(&["1 of 2 values is missing, expired or invalid"]);
    assert_eq!(missing.out, "driver_id=7: conv_rate is missing\n");

    let expired = home.run(with(&["verify"], &EXPIRED));
    expired.assert_code(1).assert_complains(&["1 of 1 value is missing, expired or invalid"]);
    assert_eq!(expired.out, "customer_id=CUST_000123: stale_value is older than its ttl\n");

    // The row is old and has a null. With this setting, its age is ignored.
    home.configure("serving: {ttl: ignore}\n");
    let null = ["--feature", "customer_stats:segment", "customer_id=CUST_000125"];
    home.run(with(&["verify"], &null)).assert_code(0);
    assert_eq!(
        home.run(with(&["verify", "--no-nulls"], &null)).assert_code(1).out,
        "customer_id=CUST_000125: segment is null\n"
    );
}

#[test]
fn verify_skips_view_without_keys() {
    let home = Home::golden_loaded();
    let columns: parquet::Columns = vec![
        ("sid", Arc::new(StringArray::from(vec!["k0", "k1"]))),
        ("event_timestamp", parquet::times([Some(60), Some(60)].into_iter())),
        ("x", Arc::new(StringArray::from(vec!["a", "b"]))),
    ];
    parquet::write(&home.path("data/unreadable.parquet"), &columns);
    home.write(
        "features/more.yaml",
        "entities: [{name: sid, type: Int64}]
feature_views:
  - name: unreadable_keys
    entities: [sid]
    features: [{name: x, type: String}]
    source: {path: data/unreadable.parquet, timestamp_field: event_timestamp}
",
    );
    let verified = home.run(["verify"]);
    verified.assert_code(1).assert_complains(&[
        "unreadable_keys: its files have no row with a readable key and time",
        "1 view cannot be verified",
    ]);
    assert!(verified.out.contains("driver_stats") && verified.out.contains("pair_stats"), "{}", verified.out);
}

#[test]
fn verify_samples_entities_from_sources() {
    let home = Home::golden();
    home.run(["sync", "pair_stats", "global_stats"]).assert_code(0);
    let verified = home.run(["verify", "--feature", "pair_stats:rides", "--feature", "global_stats:global_mean"]);
    let out = &verified.assert_code(0).out;
    assert!(cells(out).contains("global_stats | 1 | 1 | 0 | 0 | 0\npair_stats | 2 | 2 | 0 | 0 | 0"), "{out}");
    assert!(out.contains("nothing is missing, expired or invalid in "), "{out}");

    let missing = home.run(["verify", "--sample", "1", "--feature", "driver_stats:conv_rate"]);
    missing.assert_code(1).assert_complains(&["1 of 1 value is missing, expired or invalid"]);
    assert!(missing.out.contains("driver_stats driver_id="), "{}", missing.out);

    // `sync` without arguments syncs every view.
    home.run(["sync"]).assert_code(0);
    let all = home.run(["verify"]);
    all.assert_code(1).assert_complains(&["missing, expired or invalid"]);
    assert!(
        all.out.contains("expired_stats customer_id=CUST_000123: stale_value is older than its ttl"),
        "{}",
        all.out
    );
    assert!(!all.out.contains("is missing"), "{}", all.out);

    home.run(["verify", "--service", "fs_basi"]).assert_code(1).assert_complains(&["did you mean 'fs_basic'?"]);
    home.run(["verify", "--feature", "driver_stat:x"])
        .assert_code(1)
        .assert_complains(&["did you mean 'driver_stats'?"]);
}

#[test]
fn check_reports_all_source_problems() {
    let home = Home::golden();
    home.write(
        "features/more.yaml",
        "feature_views:
  - name: lost_stats
    entities: [driver]
    features: [{name: x, type: Int64}]
    source: {path: data/lost.parquet, timestamp_field: event_timestamp}
  - name: renamed_stats
    entities: [driver]
    features:
      - {name: conv_rat, type: Float64}
      - {name: avg_daily_trips, type: Array(String)}
      - {name: conv_rate, type: Float64}
    source: {path: data/driver_stats.parquet, timestamp_field: event_time}
feature_services:
  - name: two_rates
    features: [driver_stats, {view: renamed_stats, features: [conv_rate]}]
",
    );
    let checked = home.run(["check"]);
    checked.assert_code(3);
    expect![[r#"
        features/more.yaml:5:20: error: feature view 'lost_stats': cannot read ./data/lost.parquet: No such file or directory (os error 2)
        features/more.yaml:9:16: error: feature view 'renamed_stats': ./data/driver_stats.parquet has no column 'conv_rat' (did you mean 'conv_rate'?)
        features/more.yaml:10:16: error: feature view 'renamed_stats': ./data/driver_stats.parquet, column 'avg_daily_trips': the column is Int64, but the definition has Array(String)
        features/more.yaml:12:20: error: feature view 'renamed_stats': ./data/driver_stats.parquet has no column 'event_time' (did you mean 'event_timestamp'?)
        features/more.yaml:14:11: error: feature service 'two_rates': driver_stats:conv_rate and renamed_stats:conv_rate have the same feature name, 'conv_rate', so requests without full_feature_names fail (rename one of the features, remove one, or tag the service 'full_feature_names: "true"')"#]]
    .assert_eq(&checked.errors().join("\n"));
    // With `--offline`, sources are skipped, but services are still checked.
    let offline = home.run(["check", "--offline"]);
    offline.assert_code(3);
    assert_eq!(offline.errors().len(), 1, "{}", offline.err);
    let tagged = fs::read_to_string(home.path("features/more.yaml")).unwrap();
    home.write(
        "features/more.yaml",
        &tagged.replace("  - name: two_rates\n", "  - name: two_rates\n    tags: {full_feature_names: 'true'}\n"),
    );
    home.run(["check", "--offline"]).assert_code(0);
}

/// `check` reports the same error as `sync` for files with which every sync fails.
#[test]
fn check_reports_faults_as_sync_does() {
    let home = Home::with(
        "
entities: [{name: user, join_key: user, type: Int64}]
feature_views:
  - {name: two_columns, entities: [user], features: [{name: x, type: Int64}], source: {path: data/two.parquet, timestamp_field: none}}
  - {name: bad_part, entities: [user], features: [{name: y, type: Int64}], source: {path: data/parts, timestamp_field: none}}
",
    );
    let one = || -> ArrayRef { Arc::new(Int64Array::from(vec![1])) };
    parquet::write(&home.path("data/two.parquet"), &vec![("user", one()), ("x", one()), ("x", one())]);
    parquet::write(&home.path("data/parts/user=1e3/part-0.parquet"), &vec![("y", one())]);
    for command in ["check", "sync"] {
        let ended = home.run([command]);
        for words in [
            "data/two.parquet, column 'x': the file has more than one column with this name",
            "user=1e3/part-0.parquet, column 'user': the path has '1e3', which does not match the column's type",
        ] {
            assert!(ended.err.contains(words), "{command}: {}{}", ended.out, ended.err);
        }
    }
    home.run(["check"]).assert_code(3);
    let made = home.run(["init", "new", "--from", "data/two.parquet"]);
    made.assert_code(1).assert_complains(&["data/two.parquet: the file has more than one column named 'x'"]);
}

#[test]
fn check_warns_of_text_that_is_parsed() {
    let home = Home::with(
        "
entities: [{name: user, join_key: user, type: Int64}]
feature_views:
  - name: user_stats
    entities: [user]
    features: [{name: x, type: Int64}, {name: label, type: String}, {name: g, type: Int64}]
    source: {path: data, timestamp_field: none}
",
    );
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
    let columns = vec![
        ("user", text("one")),
        ("x", text("two")),
        ("label", text("three")),
        ("g", Arc::new(Int64Array::from(vec![5])) as ArrayRef),
    ];
    parquet::write(&home.path("data/g=5/part-0.parquet"), &columns);
    let checked = home.run(["check"]);
    for words in [
        "part-0.parquet, column 'user': the column is String, but the definition has Int64, so its text is parsed; rows \
         that do not match are skipped",
        "part-0.parquet, column 'x': the column is String, but the definition has Int64, so its text is parsed; values \
         that do not match are null",
        "part-0.parquet, column 'g': both the file and its path have the column; a sync fails if the values differ",
    ] {
        assert!(checked.assert_code(0).out.contains(words), "{}{}", checked.out, checked.err);
    }
    assert!(checked.out.contains("no errors, 3 warnings"), "{}", checked.out);
}

#[test]
fn check_reports_errors_of_all_stages() {
    let home = Home::golden();
    let config = fs::read_to_string(home.path("larder.yaml")).unwrap();
    home.write("larder.yaml", &format!("{config}serving: {{ttl: never}}\n"));
    home.write(
        "features/more.yaml",
        "feature_views:
  - name: lost_stats
    entities: [driver]
    features: [{name: x, type: Int64}]
    source: {path: data/lost.parquet, timestamp_field: event_timestamp}
  - name: unknown_entity
    entities: [drivr]
    features: [{name: x, type: Int64}]
    source: {path: data/lost.parquet, timestamp_field: event_timestamp}
  - name: unknown_type
    entities: [driver]
    features: [{name: y, type: Int46}, {name: conv_rat, type: Float64}]
    source: {path: data/driver_stats.parquet, timestamp_field: event_timestamp}
feature_services:
  - name: two_rates
    features: [driver_stats, {view: driver_stats, alias: b}, {view: nowhere}]
  - name: keys
    features: [lost_stats, {view: unknown_type, features: [x]}]
",
    );
    let checked = home.run(["check"]);
    checked.assert_code(3);
    expect![[r#"
        features/more.yaml:5:20: error: feature view 'lost_stats': cannot read ./data/lost.parquet: No such file or directory (os error 2)
        features/more.yaml:7:16: error: entity 'drivr' does not exist (did you mean 'driver'?)
        features/more.yaml:12:32: error: unknown type 'Int46' (did you mean 'Int64'?)
        features/more.yaml:12:47: error: feature view 'unknown_type': ./data/driver_stats.parquet has no column 'conv_rat' (did you mean 'conv_rate'?)
        features/more.yaml:16:69: error: feature view 'nowhere' does not exist
        features/more.yaml:18:60: error: feature view 'unknown_type' has no feature 'x'
        larder.yaml:5:16: error: serving: 'ttl' is 'never', expected one of mark, null, ignore"#]].assert_eq(&checked.errors().join("\n"));
}

#[test]
fn check_warns_of_duplicate_column_names() {
    let home = Home::with(
        "
entities: [{name: user, join_key: user_id, type: Int64}, {name: shop, join_key: shop_id, type: Int64}]
feature_views:
  - {name: user_stats, entities: [user], features: [{name: clicks, type: Int64}]}
  - {name: shop_stats, entities: [shop], features: [{name: clicks, type: Int64}, {name: user_id, type: Int64}]}
feature_services:
  - {name: aliased_online, features: [user_stats, {view: shop_stats, alias: s, features: [clicks]}]}
  - {name: keys_online, features: [user_stats, {view: shop_stats, features: [user_id]}]}
",
    );
    let checked = home.run(["check"]);
    for words in [
        "feature service 'aliased_online': user_stats:clicks and s:clicks have the same feature name, 'clicks', so \
         requests without full_feature_names fail",
        "feature service 'keys_online': shop_stats:user_id has the name of a join key, so responses without \
         full_feature_names have two columns 'user_id'",
    ] {
        assert!(checked.assert_code(0).out.contains(words), "{}{}", checked.out, checked.err);
    }
}

#[test]
fn help_lists_options_and_exit_codes() {
    let home = Home::empty();
    let lookup = ["--config", "--service", "--feature", "--full-feature-names", "KEY=VALUE"];
    let flags: [(&str, &[&str]); 8] = [
        ("serve", &["--config", "--listen"]),
        ("demo", &["--dir", "--listen", "--customers"]),
        ("check", &["--config", "LARDER_CONFIG", "--offline"]),
        ("sync", &["--config", "--full", "--from", "--to", "[VIEW]..."]),
        ("get", &[&lookup[..], &["--json"]].concat()),
        ("list", &["--config", "--features", "--json"]),
        ("verify", &[&lookup[..], &["--no-nulls"]].concat()),
        ("init", &["[DIR]", "--from"]),
    ];
    let all = home.run(["--help"]);
    for (command, flags) in flags {
        assert!(all.assert_code(0).out.contains(&format!("\n  {command} ")), "{}", all.out);
        let help = home.run([command, "--help"]);
        for words in flags.iter().chain(&["Exit codes: 0 done; 1 failed; 2 usage error; 3 invalid configuration"]) {
            assert!(help.assert_code(0).out.contains(words), "{command}: no {words} in\n{}", help.out);
        }
    }
}

#[test]
fn invalid_data_dir_exits_4() {
    let home = Home::golden();
    home.write("taken", "a file");
    for dir in ["taken", "taken/below", "/proc/nowhere"] {
        home.write("larder.yaml", &format!("{LARDER_YAML}store: {{data_dir: {dir}}}\nadmin: {{socket: admin.sock}}\n"));
        for command in ["serve", "sync", "list"] {
            home.run([command]).assert_code(4).assert_complains(&["cannot create", dir]);
        }
    }
}

#[test]
fn read_only_store_exits_4() {
    let home = Home::golden_loaded();
    let allow = |path: &str, mode| fs::set_permissions(home.path(path), fs::Permissions::from_mode(mode)).unwrap();
    allow("", 0o755);
    allow("data/store", 0o555);
    allow("data/store/online.redb", 0o444);
    // Permissions do not apply to root, so the program runs as another user. That user may not be able to access the
    // program's directory, so the program is copied.
    let program = home.path("larder");
    let original = env!("CARGO_BIN_EXE_larder");
    fs::hard_link(original, &program).or_else(|_| fs::copy(original, &program).map(|_| ())).unwrap();
    let mut command = home.call(&program, ["list"]);
    if rustix::process::getuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    let output = command.output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{err}");
    assert!(err.contains("cannot open data/store/online.redb: Permission denied"), "{err}");
    // This allows the directory to be removed.
    allow("data/store", 0o755);
}
