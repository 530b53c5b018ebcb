//! Tests of `logging`.

use std::{fs, path::PathBuf, time::Duration};

use expect_test::expect;
use larder_feature_log::{FeatureLogSettings, LogTarget, Roll};

use super::{check, lines, no_env, parse};
use crate::config::{BuildFeatures, Config, check_logging, load_definitions};

#[test]
fn settings_have_their_values() {
    let config =
        parse("logging: {services: {a: 0.25, b: 1, c: 0}, to: logs/, roll: {bytes: 64KiB, every: 1s}, queue: 1MiB}\n")
            .logging;
    assert_eq!(config.rates().collect::<Vec<_>>(), [("a", 0.25), ("b", 1.0), ("c", 0.0)]);
    let expected = FeatureLogSettings {
        target: Some(LogTarget::Dir(PathBuf::from("/etc/larder/logs"))),
        roll: Roll { bytes: 64 << 10, every: Duration::from_secs(1) },
        queue_bytes_max: 1 << 20,
    };
    assert_eq!(config.log, expected);
    assert_eq!(parse("logging: {services: {}, to: logs}\n").logging.log, FeatureLogSettings::default());
    let config = parse("logging: {services: {a: 1}, to: \"s3://bucket/some/prefix/\"}\n").logging;
    let Some(LogTarget::S3(prefix)) = config.log.target else { panic!("{config:?}") };
    assert_eq!(prefix.url(), "s3://bucket/some/prefix");
}

#[test]
fn invalid_settings_are_reported() {
    check(
        "logging: {services: {a: 1}}\n",
        expect!["larder.yaml:1:10: error: logging: 'to' is missing (set it to a directory, or to s3://BUCKET/PREFIX)"],
    );
    check(
        "logging:\n  services: {a: 1.5, b: -1, c: yes, d: 2, e: .nan}\n  to: logs\n  roll: {bytes: 1, every: 0s}\n  queue: 1KiB\n",
        expect!["larder.yaml:2:46: error: non-finite float `.nan` rejected by the configured policy"],
    );
    check(
        "logging: {services: [a], to: \"http://x/y\", path: x}\n",
        expect![[r#"
        larder.yaml:1:21: error: logging: 'services' must be a mapping, got a list (map the name of each service to a rate, for example {churn_prediction_v1: 0.01})
        larder.yaml:1:30: error: logging: 'to' is 'http://x/y', which is neither a path nor a prefix in S3 (set it to a directory, or to s3://BUCKET/PREFIX)
        larder.yaml:1:44: error: logging: unknown key 'path' (known keys: services, to, queue, roll)"#]],
    );
    check(
        "logging: {services: {a: 1}, to: \"s3://\"}\n",
        expect![
            "larder.yaml:1:33: error: logging: 'to' is 's3://', which is neither a path nor a prefix in S3 (set it to a directory, or to s3://BUCKET/PREFIX)"
        ],
    );
    check(
        "logging: {services: {a: 1}, to: \"s3://bucket\"}\n",
        expect![
            "larder.yaml:1:33: error: logging: 'to' is 's3://bucket', which is neither a path nor a prefix in S3 (set it to a directory, or to s3://BUCKET/PREFIX)"
        ],
    );
}

/// Writes a configuration with a feature service `rides`, and loads it.
fn load(dir: &std::path::Path, logging: &str) -> Config {
    let definitions = "
entities: [{name: driver, join_key: driver_id, type: Int64}]
feature_views: [{name: stats, entities: [driver], push_source: stats, features: [{name: trips, type: Int64}]}]
feature_services: [{name: rides, features: [stats]}]
";
    fs::create_dir_all(dir.join("features")).unwrap();
    fs::write(dir.join("features/all.yaml"), definitions).unwrap();
    let file = dir.join("larder.yaml");
    fs::write(&file, format!("naming_warnings: false\n{logging}\n")).unwrap();
    Config::load(&file, &no_env).unwrap()
}

#[test]
fn unknown_service_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    load_definitions(&load(dir.path(), "logging: {services: {rides: 1}, to: logs}")).unwrap();
    let error =
        load_definitions(&load(dir.path(), "logging: {services: {ride: 1}, to: logs}")).unwrap_err().to_string();
    assert!(
        error.contains("larder.yaml:2:22: error: logging: 'services' has unknown feature service 'ride'"),
        "{error}"
    );
    assert!(error.contains("did you mean 'rides'?"), "{error}");
}

#[test]
fn log_in_the_files_of_a_view_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let files = |to: &str| {
        let config = load(dir.path(), &format!("logging: {{services: {{rides: 1}}, to: {to}}}"));
        let definitions = fs::read_to_string(dir.path().join("features/all.yaml")).unwrap();
        let source = "source: {path: data/stats, timestamp_field: at}";
        fs::write(dir.path().join("features/all.yaml"), definitions.replace("push_source: stats", source)).unwrap();
        load_definitions(&config).map(drop).map_err(|error| error.to_string())
    };
    for to in ["data/stats", "data/stats/log"] {
        let error = files(to).unwrap_err();
        let expected =
            "logging: 'to' is in data/stats, the files of feature view 'stats' (set 'to' to another directory)";
        assert!(error.contains(expected), "{error}");
    }
    files("data/stats-log").unwrap();
}

#[test]
fn features_with_names_of_log_columns_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let with = |feature: &str| {
        let config = load(dir.path(), "logging: {services: {rides: 1}, to: logs}");
        let definitions = fs::read_to_string(dir.path().join("features/all.yaml")).unwrap();
        let features = format!("[{{name: trips, type: Int64}}, {{name: {feature}, type: Int64}}]");
        let definitions = definitions.replace("[{name: trips, type: Int64}]", &features);
        fs::write(dir.path().join("features/all.yaml"), definitions).unwrap();
        load_definitions(&config).map(drop).map_err(|error| error.to_string())
    };
    for feature in ["trips__timestamp", "trips__status"] {
        let error = with(feature).unwrap_err();
        let expected = format!("logging: feature 'stats:{feature}' of feature service 'rides' cannot be logged");
        assert!(error.contains(&expected), "{error}");
    }
    with("trips_status").unwrap();
    let long = "r".repeat(256);
    let config = load(dir.path(), &format!("logging: {{services: {{{long}: 1}}, to: logs}}"));
    let definitions = fs::read_to_string(dir.path().join("features/all.yaml")).unwrap();
    fs::write(dir.path().join("features/all.yaml"), definitions.replace("rides", &long)).unwrap();
    let error = load_definitions(&config).unwrap_err().to_string();
    assert!(error.contains("is too long for a directory (use at most 255 bytes)"), "{error}");
}

#[test]
fn directory_must_be_writable() {
    let dir = tempfile::tempdir().unwrap();
    let problem = |to: &str| {
        let config = load(dir.path(), &format!("logging: {{services: {{rides: 1}}, to: {to}}}")).logging;
        check_logging(&config).map(|problem| lines(&[problem]))
    };
    assert_eq!(problem("logs/deep"), None);
    assert_eq!(problem("s3://bucket/x"), None);
    assert!(!fs::exists(dir.path().join("logs")).unwrap(), "the check creates nothing");
    fs::write(dir.path().join("file"), "").unwrap();
    let found = problem("file/logs").unwrap();
    assert!(
        found.contains("logging: 'to' is") && found.contains("/file cannot be written: not a directory"),
        "{found}"
    );
}

#[test]
fn target_in_s3_needs_a_feature() {
    let problems = larder_model::yaml::Problems::default();
    let build = BuildFeatures { aws: false, ..BuildFeatures::COMPILED };
    let text = "logging: {services: {a: 1}, to: \"s3://bucket/x\"}\n";
    let path = std::path::Path::new(super::BASE);
    let _ = crate::config::read::read("larder.yaml", path, text, &[], &no_env, build, &problems);
    let found = lines(&problems.into_sorted());
    assert!(
        found.contains("'to': this build of larder does not support S3 (build with the Cargo feature 'aws')"),
        "{found}"
    );
}
