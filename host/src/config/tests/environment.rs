//! Tests of environment variables that override the file.

use std::path::{Path, PathBuf};

use expect_test::expect;
use larder_common::telemetry::LogFormat;
use larder_serving::TtlPolicy;

use super::{addresses, check_with, lines, parse_with};
use crate::config::LogConfig;

#[test]
fn variables_override_the_file() {
    let env = [
        ("LARDER_PROJECT", "2024"),
        ("LARDER_SERVER_LISTEN", "[::1]:1"),
        ("LARDER_SERVER_UNIX_SOCKET", "s.sock"),
        ("LARDER_SERVER_INSECURE", "true"),
        ("LARDER_SERVER_WORKERS", "5"),
        ("LARDER_METRICS_LISTEN", "off"),
        ("LARDER_ADMIN_SOCKET", "/run/a.sock"),
        ("LARDER_STORE_DATA_DIR", "/var/lib/larder"),
        ("LARDER_STORE_PAGE_CACHE", "2MiB"),
        ("LARDER_STORE_HOT_CACHE", "0"),
        ("LARDER_SERVING_TTL", "null"),
        ("LARDER_SYNC_ON_START", "false"),
        ("LARDER_LOG_LEVEL", "debug"),
        ("LARDER_LOG_FORMAT", "json"),
    ];
    // In these files, the keys have other values, the keys are missing, or the sections are missing.
    for text in
        ["project: x\nserver: {listen: nonsense, workers: 7}\nlog: {format: text}\n", "server: {workers: auto}\n", ""]
    {
        let config = parse_with(text, &env).unwrap_or_else(|problems| panic!("{}", lines(&problems)));
        assert_eq!(config.project.as_deref(), Some("2024"));
        assert_eq!(addresses(&config), ("[::1]:1".into(), "off".into()));
        assert_eq!(config.http.unix_socket, Some(PathBuf::from("/etc/larder/s.sock")));
        assert_eq!((config.http.insecure, config.http.workers), (true, 5));
        assert_eq!(config.admin_socket, Path::new("/run/a.sock"));
        assert_eq!(config.store.data_dir, Path::new("/var/lib/larder"));
        assert_eq!((config.store.page_cache_bytes_max, config.store.hot.bytes_max), (2 << 20, 0));
        assert_eq!((config.ttl, config.sync.on_start), (TtlPolicy::Null, false));
        assert_eq!(config.log, LogConfig { level: "debug".into(), format: LogFormat::Json });
    }
}

#[test]
fn empty_variable_counts_as_unset() {
    let config = parse_with("project: churn\n", &[("LARDER_PROJECT", ""), ("LARDER_LOG_LEVEL", " ")]).unwrap();
    assert_eq!((config.project.as_deref(), &*config.log.level), (Some("churn"), "info"));
}

#[test]
fn variables_are_checked_like_keys() {
    check_with(
        "server:\n  listen: 127.0.0.1:1\nmetrics: 3\n",
        &[
            ("LARDER_PROJECT", "a/b"),
            ("LARDER_SERVER_LISTEN", "0.0.0.0:6566"),
            ("LARDER_SERVER_WORKERS", "many"),
            ("LARDER_METRICS_LISTEN", "off"),
            ("LARDER_STORE_HOT_CACHE", "lots"),
            ("LARDER_SYNC_ON_START", "1"),
            ("LARDER_LOG_LEVEL", "verbose"),
        ],
        expect![[r#"
            LARDER_LOG_LEVEL: error: log: 'level' is 'verbose': expected one of error, warn, info, debug, trace, or a filter by module (for example info,larder_sync=debug)
            LARDER_PROJECT: error: configuration: 'project' is 'a/b', which is not a valid name (use up to 200 letters, digits, '_' and '-', beginning with a letter or digit)
            LARDER_SERVER_LISTEN: error: server: 'listen' is 0.0.0.0:6566, which other machines can reach without encryption (listen on 127.0.0.1:6566, set 'tls', or add 'insecure: true' next to 'listen' if everyone on the network may read the traffic)
            LARDER_SERVER_WORKERS: error: server: 'workers' must be auto, or a number between 1 and 256
            LARDER_STORE_HOT_CACHE: error: store: 'hot_cache' must be a number of bytes such as 256MiB, got text
            LARDER_SYNC_ON_START: error: sync: 'on_start' must be true or false, got a whole number
            larder.yaml:3:10: error: metrics: expected a mapping, got a whole number"#]],
    );
}

#[test]
fn retired_variable_is_an_error() {
    let problems = parse_with("project: churn\n", &[("LARDER_FEAST_FROM", "batch")]).unwrap_err();
    let text = lines(&problems);
    assert!(text.contains("LARDER_FEAST_FROM") && text.contains("values"), "{text}");
}
