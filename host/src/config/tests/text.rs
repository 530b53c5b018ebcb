//! Tests of the values in a file's text, and of the errors in them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use expect_test::expect;
use larder_captures::CaptureSettings;
use larder_common::telemetry::LogFormat;
use larder_http::HttpLimits;
use larder_model::codec::KeyVersion;
use larder_serving::{ConnectionLimits, ServingLimits, TtlPolicy};
use larder_store::{SpaceLimits, StoreConfig};
use larder_sync::{SanityLimits, SyncLimits};

use super::{BASE, addresses, check, comparable, lines, nested, parse, parse_with};
use crate::config::{LogConfig, SyncConfig};

#[test]
fn empty_file_has_the_defaults() {
    let config = parse("# nothing\n");
    assert_eq!(config.origin.file, Path::new("larder.yaml"));
    assert_eq!(config.base_dir, Path::new(BASE));
    assert_eq!((&config.project, config.key_version, &config.feast), (&None, None, &None));
    assert_eq!(config.features.iter().map(|f| &*f.value).collect::<Vec<_>>(), ["features/*.yaml"]);
    assert_eq!(addresses(&config), ("127.0.0.1:6566".into(), "127.0.0.1:9566".into()));
    assert_eq!((config.http.unix_socket.as_deref(), config.http.insecure), (None, false));
    assert_eq!(config.grpc_listen, None);
    assert!((1..=256).contains(&config.http.workers));
    assert_eq!(config.http.limits, HttpLimits::default());
    assert_eq!(config.admin_socket, Path::new("/etc/larder/data/store/admin.sock"));
    let store = StoreConfig::new("/etc/larder/data/store");
    assert_eq!(config.store.data_dir, store.data_dir);
    assert_eq!(config.store.page_cache_bytes_max, store.page_cache_bytes_max);
    assert_eq!(config.store.hot.bytes_max, store.hot.bytes_max);
    assert_eq!(config.ttl, TtlPolicy::Mark);
    assert!(config.sync.on_start);
    assert_eq!(config.sync.limits.commit_rows, SyncLimits::default().commit_rows);
    assert_eq!(config.sync.limits.commit_bytes, SyncLimits::default().commit_bytes);
    assert_eq!(config.sync.reload_every, Duration::from_secs(1));
    assert_eq!(config.log, LogConfig { level: "info".into(), format: LogFormat::Text });
}

#[test]
fn empty_sections_count_as_absent() {
    let text = "project:\nserver:\nmetrics: {}\nadmin: ~\nlog: {level: ~}\n";
    assert_eq!(comparable(parse(text)), comparable(parse("")));
}

#[test]
fn every_key_takes_effect() {
    let config = parse(
        "project: churn\nentity_key_version: 2\nfeatures: [a.yaml, 'f/*.yaml']\n\
         server:\n  listen: '[::1]:1'\n  unix_socket: run/larder.sock\n  insecure: true\n  workers: 3\n  limits:\n    \
         connections_max: 1\n    header_timeout: 2s\n    body_timeout: 3s\n    write_timeout: 4s\n    \
         body_bytes_max: 5KiB\n    rows_max: 6\n    features_max: 7\n    values_max: 8\n    \
         answer_bytes_max: 9MiB\n    in_flight_bytes_max: 17MiB\n    drain_delay: 3s\n    drain_timeout: 9s\n\
         metrics: {listen: 127.0.0.1:2}\nadmin: {socket: /run/admin.sock}\n\
         store: {data_dir: /var/lib/larder, page_cache: 3MiB, hot_cache: 0, check_on_open: true,\n  free_bytes_min: 18MiB, file_bytes_max: 19MiB}\nserving: {ttl: ignore}\n\
         sync: {on_start: false, commit_rows: 10, commit_bytes: 11MB, retry: 12s,\n  bad_percent_max: 13, shrink_percent_max: 14, growth_max: 15}\nreload: {every: 0}\n\
         log: {level: 'warn,larder_sync=debug', format: json}\n",
    );
    assert_eq!((config.project.as_deref(), config.key_version), (Some("churn"), Some(KeyVersion::V2)));
    assert_eq!(config.features.iter().map(|f| &*f.value).collect::<Vec<_>>(), ["a.yaml", "f/*.yaml"]);
    assert_eq!(addresses(&config), ("[::1]:1".into(), "127.0.0.1:2".into()));
    assert_eq!(config.http.unix_socket, Some(PathBuf::from("/etc/larder/run/larder.sock")));
    assert_eq!((config.http.insecure, config.http.workers), (true, 3));
    let seconds = Duration::from_secs;
    let limits = HttpLimits {
        connection: ConnectionLimits {
            connections_max: 1,
            header_timeout: seconds(2),
            body_timeout: seconds(3),
            write_timeout: seconds(4),
            body_bytes_max: 5 * 1_024,
            drain_timeout: seconds(9),
        },
        request: ServingLimits { rows_max: 6, features_max: 7, values_max: 8 },
        answer_bytes_max: 9 << 20,
        in_flight_bytes_max: Some(17 << 20),
        drain_delay: seconds(3),
    };
    assert_eq!(config.http.limits, limits);
    assert_eq!(config.admin_socket, Path::new("/run/admin.sock"));
    assert_eq!(config.store.data_dir, Path::new("/var/lib/larder"));
    assert_eq!((config.store.page_cache_bytes_max, config.store.hot.bytes_max), (3 << 20, 0));
    assert!(config.store.check_on_open);
    assert_eq!(config.store.space, SpaceLimits { free_bytes_min: Some(18 << 20), file_bytes_max: Some(19 << 20) });
    let default_words = parse("store: {free_bytes_min: auto, file_bytes_max: off}\n");
    assert_eq!(default_words.store.space, SpaceLimits::default());
    assert_eq!(config.ttl, TtlPolicy::Ignore);
    let SyncConfig { on_start, limits, reload_every, registry_every } = config.sync;
    assert_eq!((on_start, limits.commit_rows, limits.commit_bytes), (false, 10, 11_000_000));
    assert_eq!(limits.retry, seconds(12));
    assert_eq!(limits.sanity, SanityLimits { bad_percent_max: 13, shrink_percent_max: 14, growth_max: 15 });
    assert_eq!((reload_every, registry_every), (Duration::ZERO, seconds(60)));
    assert_eq!(config.log, LogConfig { level: "warn,larder_sync=debug".into(), format: LogFormat::Json });
}

#[test]
fn captures_have_limits() {
    let config = parse(
        "store: {data_dir: /var/lib/larder}\n\
         plugins: {captures: {failed_per_minute: 0, sample: 0.25, rows: 1000, max_bytes: 1MiB}}\n",
    );
    assert_eq!(config.plugins.captures_dir, Path::new("/var/lib/larder/captures"));
    let settings = CaptureSettings { failed_per_minute: 0, sample: 0.25, rows_max: 1_000, bytes_max: 1 << 20 };
    assert_eq!(config.plugins.captures, settings);
    assert_eq!(parse("").plugins.captures, CaptureSettings::default());
    assert_eq!(parse("plugins: {captures: {sample: 1}}\n").plugins.captures.sample, 1.0);
    check(
        "plugins: {captures: {failed_per_minute: -1, sample: 1.1, rows: 0, max_bytes: 1KiB}}\n",
        expect![[r#"
            larder.yaml:1:41: error: plugins.captures: 'failed_per_minute' is -1, but must be between 0 and 10000
            larder.yaml:1:53: error: plugins.captures: 'sample' must be a number from 0 to 1
            larder.yaml:1:64: error: plugins.captures: 'rows' is 0, but must be between 1 and 1000
            larder.yaml:1:78: error: plugins.captures: 'max_bytes' is 1KiB, but must be between 1MiB and 1TiB"#]],
    );
}

#[test]
fn admin_socket_defaults_to_data_dir() {
    let config = parse("store: {data_dir: /var/lib/larder}\n");
    assert_eq!(config.admin_socket, Path::new("/var/lib/larder/admin.sock"));
}

#[test]
fn socket_and_metrics_can_be_disabled() {
    let config = parse("server: {unix_socket: off}\nmetrics: {listen: off}\n");
    assert_eq!((config.http.unix_socket, config.metrics_listen), (None, None));
}

#[test]
fn null_is_a_ttl_policy() {
    for text in ["serving: {ttl: null}\n", "serving:\n  ttl: null # withheld\n", "serving: {ttl: 'null'}\n"] {
        assert_eq!(parse(text).ttl, TtlPolicy::Null, "{text}");
    }
    let expected = "larder.yaml:2:6: error: serving: 'ttl' is empty, expected one of mark, null, ignore";
    for text in ["serving:\n  ttl:\n", "serving:\n  ttl:   # null\nproject: null\n"] {
        assert_eq!(lines(&parse_with(text, &[]).unwrap_err()), expected);
    }
    check(
        "serving: {ttl: marc}\n",
        expect![
            "larder.yaml:1:16: error: serving: 'ttl' is 'marc', expected one of mark, null, ignore (did you mean 'mark'?)"
        ],
    );
}

#[test]
fn all_errors_are_reported_with_positions() {
    check(
        "projct: churn\nentity_key_version: 1\nfeatures: []\n\
         server:\n  listen: localhost:6566\n  worker: 2\n  workers: 0\n  unix_socket: ''\n  limits:\n    rows_max: 0\n    \
         header_timeout: 75\n    body_bytes_max: 4 M\n    row_max: 3\n\
         metrics: on\nadmin: {socket: 3}\n\
         store: {data_dir: [a], page_cache: 1KiB}\nserving: {ttl: 3}\nsync: {on_start: yes, every: 3s}\n\
         reload: {every: 2h}\nlog: {level: inof, format: yaml}\n",
        expect![[r#"
            larder.yaml:1:1: error: configuration: unknown key 'projct' (did you mean 'project'?)
            larder.yaml:2:21: error: configuration: 'entity_key_version' is 1, but must be 3 or 2 (set it to 'entity_key_serialization_version' of Feast's feature_store.yaml)
            larder.yaml:3:11: error: configuration: 'features' is an empty list (list definition files, for example [features/*.yaml])
            larder.yaml:5:11: error: server: 'listen' is 'localhost:6566', but must be an IP address and a port (write 127.0.0.1:6566)
            larder.yaml:6:3: error: server: unknown key 'worker' (did you mean 'workers'?)
            larder.yaml:7:12: error: server: 'workers' must be auto, or a number between 1 and 256
            larder.yaml:8:16: error: server: 'unix_socket' is empty
            larder.yaml:10:15: error: server.limits: 'rows_max' is 0, but must be between 1 and 1000000
            larder.yaml:11:21: error: server.limits: 'header_timeout' needs a unit (write, for example, 75s or 75d)
            larder.yaml:12:21: error: server.limits: 'body_bytes_max' must be a number of bytes such as 256MiB, got text
            larder.yaml:13:5: error: server.limits: unknown key 'row_max' (did you mean 'rows_max'?)
            larder.yaml:14:10: error: metrics: expected a mapping, got text
            larder.yaml:15:17: error: admin: 'socket' must be text, got a whole number
            larder.yaml:16:19: error: store: 'data_dir' must be text, got a list
            larder.yaml:16:36: error: store: 'page_cache' is 1KiB, but must be between 1MiB and 1TiB
            larder.yaml:17:16: error: serving: 'ttl' must be text, got a whole number
            larder.yaml:18:18: error: sync: 'on_start' must be true or false, got text
            larder.yaml:18:23: error: sync: unknown key 'every' (known keys: on_start, commit_rows, commit_bytes, retry, bad_percent_max, shrink_percent_max, growth_max, future_tolerance)
            larder.yaml:19:17: error: reload: 'every' is 2h, but must be between 0 and 1h
            larder.yaml:20:14: error: log: 'level' is 'inof': expected one of error, warn, info, debug, trace, or a filter by module (did you mean 'info'?)
            larder.yaml:20:28: error: log: 'format' is 'yaml', expected one of text, json"#]],
    );
    check("- a\n", expect!["larder.yaml:1:1: error: configuration: expected a mapping, got a list"]);
    check("project: [\n", expect!["larder.yaml:1:10: error: unclosed bracket '['"]);
}

#[test]
fn address_needs_ip_and_port() {
    let addresses = [
        "6566",
        "127.0.0.1",
        "'::1'",
        "':6566'",
        "'localhost:6566'",
        "'*:6566'",
        "larder.svc:6566",
        "127.0.0.1:65536",
        "true",
    ];
    let problems_of = |address: &str| {
        let problems = parse_with(&format!("server: {{listen: {address}}}\n"), &[]).unwrap_err();
        lines(&problems).replace("larder.yaml:1:18: error: server: ", "")
    };
    expect![[r#"
        'listen' is '6566', but must be an IP address and a port (add the address: 127.0.0.1:6566)
        'listen' is '127.0.0.1', but must be an IP address and a port (add a port: 127.0.0.1:6566)
        'listen' is '::1', but must be an IP address and a port (add a port: [::1]:6566)
        'listen' is ':6566', but must be an IP address and a port (write 127.0.0.1:6566)
        'listen' is 'localhost:6566', but must be an IP address and a port (write 127.0.0.1:6566)
        'listen' is '*:6566', but must be an IP address and a port (write 0.0.0.0:6566)
        'listen' is 'larder.svc:6566', but must be an IP address and a port (host names are not resolved: write the IP address)
        'listen' is '127.0.0.1:65536', but must be an IP address and a port (for example 127.0.0.1:6566, or [::1]:6566)
        'listen' must be an address, got true or false (for example 127.0.0.1:6566, or [::1]:6566)"#]]
    .assert_eq(&addresses.map(problems_of).join("\n"));
}

#[test]
fn public_address_needs_insecure_or_tls() {
    for address in ["0.0.0.0:1", "10.0.0.1:1", "'[::]:1'", "'[::ffff:10.0.0.1]:1'"] {
        for section in ["server", "grpc", "metrics"] {
            let problems = parse_with(&format!("{section}: {{listen: {address}}}\n"), &[]).unwrap_err();
            assert!(problems[0].message.contains("which other machines can reach"), "{}", problems[0]);
            let meant = format!("{section}: {{listen: {address}, insecure: true}}\n");
            assert!(parse_with(&meant, &[]).is_ok(), "{meant}");
        }
    }
    for address in ["127.0.0.1:1", "127.1.2.3:1", "'[::1]:1'", "'[::ffff:127.0.0.1]:1'"] {
        assert!(parse_with(&format!("server: {{listen: {address}}}\n"), &[]).is_ok(), "{address}");
    }
    // `tls` only encrypts the data listener, so other listeners still need `insecure`.
    let tls = "server: {listen: 0.0.0.0:1, tls: {cert: a, key: b}}\n";
    assert!(parse_with(tls, &[]).is_ok());
    assert!(parse_with(&format!("{tls}grpc: {{listen: 0.0.0.0:2}}\n"), &[]).is_err());
    assert_eq!(parse("grpc: {listen: off}").grpc_listen, None);
    assert_eq!(parse("grpc: {insecure: true}").grpc_listen, None, "it is off unless an address is given");
    // `insecure` of one listener does not apply to another.
    check(
        "server: {listen: 0.0.0.0:1, insecure: true}\nmetrics: {listen: 0.0.0.0:2}\n",
        expect![
            "larder.yaml:2:19: error: metrics: 'listen' is 0.0.0.0:2, which other machines can reach without encryption (listen on 127.0.0.1:2, or add 'insecure: true' next to 'listen' if everyone on the network may read the traffic)"
        ],
    );
}

#[test]
fn listeners_need_different_addresses() {
    check(
        "server: {listen: 127.0.0.1:1, unix_socket: a.sock}\nmetrics: {listen: 127.0.0.1:1}\nadmin: {socket: a.sock}\n",
        expect![[r#"
            larder.yaml:2:19: error: metrics: 'listen' is 127.0.0.1:1, which 'server: listen' also uses (use another port)
            larder.yaml:3:17: error: admin: 'socket' is the same path as 'server: unix_socket' (use another path)"#]],
    );
    check(
        "grpc: {listen: 127.0.0.1:6566}\nmetrics: {listen: 127.0.0.1:6566}\n",
        expect![[r#"
            larder.yaml:1:16: error: grpc: 'listen' is 127.0.0.1:6566, which 'server: listen' also uses (use another port)
            larder.yaml:2:19: error: metrics: 'listen' is 127.0.0.1:6566, which 'server: listen' also uses (use another port)
            larder.yaml:2:19: error: metrics: 'listen' is 127.0.0.1:6566, which 'grpc: listen' also uses (use another port)"#]],
    );
    parse("server: {listen: 127.0.0.1:0}\ngrpc: {listen: 127.0.0.1:0}\nmetrics: {listen: 127.0.0.1:0}\n");
}

#[test]
fn socket_path_length_is_limited() {
    let path = |length: usize| format!("/{}", "s".repeat(length - 1));
    parse(&format!("server: {{unix_socket: {}}}\nadmin: {{socket: {}}}\n", path(107), path(106)));
    check(
        &format!("server: {{unix_socket: {}}}\nstore: {{data_dir: {}}}\n", path(108), path(98)),
        expect![[r#"
        larder.yaml:1:1: error: admin: 'socket' is a path of 109 bytes including its directory, but the path of a Unix socket can have at most 107 (set 'socket' to a shorter path, such as /run/larder.sock)
        larder.yaml:1:23: error: server: 'unix_socket' is a path of 108 bytes including its directory, but the path of a Unix socket can have at most 107 (set 'unix_socket' to a shorter path, such as /run/larder.sock)"#]],
    );
}

#[test]
fn limits_accept_exactly_their_range() {
    for (path, key, inside, outside) in [
        (&["server"][..], "workers", ["1", "256"], ["0", "257"]),
        (&["server", "limits"], "connections_max", ["1", "1000000"], ["0", "1000001"]),
        (&["server", "limits"], "header_timeout", ["100ms", "1h"], ["99ms", "3601s"]),
        (&["server", "limits"], "body_timeout", ["100ms", "1h"], ["0", "3601s"]),
        (&["server", "limits"], "write_timeout", ["100ms", "1h"], ["0s", "3601s"]),
        (&["server", "limits"], "body_bytes_max", ["1KiB", "1GiB"], ["1023", "1073741825"]),
        (&["server", "limits"], "rows_max", ["1", "1000000"], ["0", "1000001"]),
        (&["server", "limits"], "features_max", ["1", "100000"], ["0", "100001"]),
        (&["server", "limits"], "values_max", ["1", "100000000"], ["0", "100000001"]),
        (&["server", "limits"], "drain_delay", ["0", "1h"], ["-1s", "3601s"]),
        (&["server", "limits"], "drain_timeout", ["0", "1h"], ["-1s", "3601s"]),
        (&["store"], "page_cache", ["1MiB", "1024GiB"], ["1023KiB", "1025GiB"]),
        (&["store"], "hot_cache", ["0", "1024GiB"], ["-1", "1025GiB"]),
        (&["store"], "free_bytes_min", ["0", "1048576GiB"], ["-1", "1048577GiB"]),
        (&["store"], "file_bytes_max", ["1MiB", "1048576GiB"], ["1023KiB", "1048577GiB"]),
        (&["sync"], "retry", ["100ms", "1h"], ["0s", "3601s"]),
        (&["sync"], "commit_rows", ["1", "16777216"], ["0", "16777217"]),
        (&["sync"], "commit_bytes", ["4MiB", "4GiB"], ["4194303", "4097MiB"]),
        (&["sync"], "bad_percent_max", ["0", "100"], ["-1", "101"]),
        (&["sync"], "shrink_percent_max", ["0", "100"], ["-1", "101"]),
        (&["sync"], "growth_max", ["1", "1000000"], ["0", "1000001"]),
        (&["reload"], "every", ["0", "1h"], ["-1s", "3601s"]),
        (&[], "entity_key_version", ["2", "3"], ["1", "4"]),
        (&[], "project", ["a", "A-1_"], ["_a", "a/b"]),
    ] {
        for (value, is_inside) in
            inside.map(|value| (value, true)).into_iter().chain(outside.map(|value| (value, false)))
        {
            let text = nested(path, &format!("{key}: {value}"));
            match parse_with(&text, &[]) {
                Ok(_) => assert!(is_inside, "{text} was accepted"),
                Err(problems) => {
                    assert!(!is_inside, "{}", lines(&problems));
                    assert_eq!(problems.len(), 1, "{}", lines(&problems));
                    assert!(problems[0].message.contains(&format!("'{key}'")), "{}", problems[0]);
                }
            }
        }
    }
    check(
        "store: {page_cache: 1025KiB, hot_cache: 2048GiB}\n",
        expect!["larder.yaml:1:41: error: store: 'hot_cache' is 2TiB, but must be between 0B and 1TiB"],
    );
}

#[test]
fn log_filter_must_be_valid() {
    for level in ["error", "INFO", "larder=debug", "warn,larder_http=trace", "info,larder[sync{view=a}]=debug"] {
        assert_eq!(parse(&format!("log: {{level: '{level}'}}\n")).log.level, level);
    }
    for level in ["inof", "", "info,lader", "larder=loud", "larder=debug,,", "a[b"] {
        let text = format!("log: {{level: '{level}'}}\n");
        assert!(parse_with(&text, &[]).is_err(), "{text}");
    }
}

#[test]
fn feast_file_is_recognized() {
    check(
        "project: churn\nregistry: data/registry.db\nprovider: local\nonline_store:\n  type: sqlite\n  path: data/online.db\n\
         offline_store:\n  type: file\nentity_key_serialization_version: 3\n",
        expect![[r#"
            larder.yaml: error: configuration: this is Feast's feature_store.yaml (to use a Feast repository, set --feast-repo (feast_repo in Python) to its directory)
            larder.yaml:2:1: error: configuration: unknown key 'registry' (to serve a Feast repository, name its directory: 'feast: {repo: .}')
            larder.yaml:3:1: error: configuration: unknown key 'provider' (Larder has no providers: leave it out)
            larder.yaml:4:1: error: configuration: unknown key 'online_store' (Larder has its own store: see 'store')
            larder.yaml:7:1: error: configuration: unknown key 'offline_store' (each feature view names its Parquet files under 'source')
            larder.yaml:9:1: error: configuration: unknown key 'entity_key_serialization_version' (use 'entity_key_version')"#]],
    );
    check(
        "port: 6566\nentity: []\n",
        expect![[r#"
        larder.yaml:1:1: error: configuration: unknown key 'port' (write 'server: {listen: <address>:<port>}')
        larder.yaml:2:1: error: configuration: unknown key 'entity' (did you mean 'entity_key_version'?)"#]],
    );
}
