//! Tests of `server: tls` and `server: auth`: keys and tokens in the file, and the files that it names.

use std::{fs, os::unix::fs::PermissionsExt};

use expect_test::{Expect, expect};

use super::{check, comparable, lines, make_pipe, no_env, parse, parse_with};
use crate::config::{Config, access_files, load_access, load_definitions};

const TLS: &str = "tls: {cert: /run/tls.crt, key: keys/tls.key}";

fn tls_paths(config: &Config) -> [Option<String>; 3] {
    let tls = config.http.tls.as_ref().unwrap();
    [Some(&tls.cert), Some(&tls.key), tls.client_ca.as_ref()].map(|file| Some(file?.value.display().to_string()))
}

#[test]
fn every_key_takes_effect() {
    let config = parse(&format!("server:\n  {TLS}\n"));
    let (cert, key) = (Some("/run/tls.crt".to_owned()), Some("/etc/larder/keys/tls.key".to_owned()));
    assert_eq!(tls_paths(&config), [cert.clone(), key.clone(), None]);
    let config = parse(
        "server:\n  tls: {cert: /run/tls.crt, key: keys/tls.key, client_ca: ca.pem}\n  auth:\n    tokens:\n      \
         - {name: ops, file: /run/ops}\n      - {name: churn, file: churn.token, services: [a, b]}\n      \
         - {name: one, file: one.token, services: c}\n",
    );
    assert_eq!(tls_paths(&config), [cert, key, Some("/etc/larder/ca.pem".to_owned())]);
    let tokens = config.http.auth.as_ref().unwrap().tokens.iter().map(|token| {
        let services = token.services.as_ref().map(|list| list.iter().map(|name| &*name.value).collect::<Vec<_>>());
        format!("{} {} {services:?}", token.name.value, token.file.value.display())
    });
    expect![[r#"
        ops /run/ops None
        churn /etc/larder/churn.token Some(["a", "b"])
        one /etc/larder/one.token Some(["c"])"#]]
    .assert_eq(&tokens.collect::<Vec<_>>().join("\n"));
    assert_eq!(access_files(&config.http).len(), 6);
}

#[test]
fn off_disables_tls_and_auth() {
    for text in [
        "server: {tls: {cert: off, key: off}}\n",
        "server: {tls: {cert: off, key: off, client_ca: off}}\n",
        "server: {auth: {tokens: off}}\n",
    ] {
        assert_eq!(comparable(parse(text)), comparable(parse("")), "{text}");
    }
}

#[test]
fn tls_allows_public_address_auth_does_not() {
    assert!(parse(&format!("server:\n  listen: 0.0.0.0:1\n  {TLS}\n")).http.tls.is_some());
    check(
        "server:\n  listen: 0.0.0.0:1\n  auth: {tokens: [{name: a, file: a}]}\n",
        expect![
            "larder.yaml:2:11: error: server: 'listen' is 0.0.0.0:1, which other machines can reach without encryption (listen on 127.0.0.1:1, set 'tls', or add 'insecure: true' next to 'listen' if everyone on the network may read the traffic)"
        ],
    );
}

#[test]
fn empty_values_do_not_disable_auth() {
    let problems_of = |text: &str| {
        let problems = parse_with(&format!("server:\n  listen: 0.0.0.0:1\n  {text}\n"), &[]);
        format!(
            "{text}\n    {}",
            lines(&problems.expect_err(text)).replace("larder.yaml:3:", "").replace('\n', "\n    ")
        )
    };
    let texts = [
        "tls:",
        "tls: {}",
        "tls: on",
        "tls: {cert: a}",
        "tls: {key: a}",
        "tls: {cert: a, key: off}",
        "tls: {cert: a, key: }",
        "tls: {cert: a, key: b, client_ca: ''}",
        "tls: {cert: a, key: b, client_ca: }",
        "tls: {client_ca: a}",
        "tls: {cert: a, key: b, ca: c}",
    ];
    expect![[r#"
        tls:
            6: error: server: 'tls' is empty (set 'cert' and 'key', or remove 'tls')
        tls: {}
            8: error: server.tls: 'cert' is missing (TLS needs both 'cert' and 'key')
        tls: on
            8: error: server.tls: expected a mapping, got text
        tls: {cert: a}
            8: error: server.tls: 'key' is missing (TLS needs both 'cert' and 'key')
        tls: {key: a}
            8: error: server.tls: 'cert' is missing (TLS needs both 'cert' and 'key')
        tls: {cert: a, key: off}
            8: error: server.tls: 'key' is missing (TLS needs both 'cert' and 'key')
        tls: {cert: a, key: }
            21: error: server.tls: 'key' is empty (set it to the path of a file, or to 'off')
        tls: {cert: a, key: b, client_ca: ''}
            37: error: server.tls: 'client_ca' is empty
        tls: {cert: a, key: b, client_ca: }
            35: error: server.tls: 'client_ca' is empty (set it to the path of a file, or to 'off')
        tls: {client_ca: a}
            8: error: server.tls: 'cert' is missing (TLS needs both 'cert' and 'key')
        tls: {cert: a, key: b, ca: c}
            26: error: server.tls: unknown key 'ca' (known keys: cert, key, client_ca)"#]]
    .assert_eq(&texts.map(problems_of).join("\n"));
    let problems_of = |text: &str| problems_of(&format!("insecure: true\n  {text}")).replace("insecure: true\n  ", "");
    let texts = [
        "auth:",
        "auth: {}",
        "auth: {tokens: }",
        "auth: {tokens: []}",
        "auth: {tokens: on}",
        "auth: {token: [{name: a, file: a}]}",
        "auth: {tokens: [{name: a}]}",
        "auth: {tokens: [{file: a}]}",
        "auth: {tokens: [{name: a, file: ''}]}",
        "auth: {tokens: [{name: a, file: a}, {name: a, file: b}]}",
        "auth: {tokens: [{name: a, file: a, services: }]}",
        "auth: {tokens: [{name: a, file: a, services: []}]}",
        "auth: {tokens: [{name: a, file: a, service: b}]}",
        "auth: {tokens: [a]}",
    ];
    expect![[r#"
        auth:
            larder.yaml:4:7: error: server: 'auth' has no 'tokens' (list at least one token, or write 'tokens: off' to turn authentication off)
        auth: {}
            larder.yaml:4:9: error: server.auth: 'tokens' is missing (list at least one token, or write 'tokens: off' to turn authentication off)
        auth: {tokens: }
            larder.yaml:4:16: error: server.auth: 'tokens' is empty (list at least one token, or write 'tokens: off' to turn authentication off)
        auth: {tokens: []}
            larder.yaml:4:18: error: server.auth: 'tokens' is empty (list at least one token, or write 'tokens: off' to turn authentication off)
        auth: {tokens: on}
            larder.yaml:4:18: error: server.auth: 'tokens' must be a list, got text
        auth: {token: [{name: a, file: a}]}
            larder.yaml:4:9: error: server.auth: 'tokens' is missing (list at least one token, or write 'tokens: off' to turn authentication off)
            larder.yaml:4:10: error: server.auth: unknown key 'token' (did you mean 'tokens'?)
        auth: {tokens: [{name: a}]}
            larder.yaml:4:19: error: server.auth.tokens: 'file' is missing
        auth: {tokens: [{file: a}]}
            larder.yaml:4:19: error: server.auth.tokens: 'name' is missing
        auth: {tokens: [{name: a, file: ''}]}
            larder.yaml:4:35: error: server.auth.tokens: 'file' is empty
        auth: {tokens: [{name: a, file: a}, {name: a, file: b}]}
            larder.yaml:4:46: error: server.auth.tokens: there are two tokens named 'a'
        auth: {tokens: [{name: a, file: a, services: }]}
            larder.yaml:4:46: error: server.auth.tokens: 'services' is empty (list feature services, or remove 'services' to let the token request everything)
        auth: {tokens: [{name: a, file: a, services: []}]}
            larder.yaml:4:48: error: server.auth.tokens: 'services' is empty (list feature services, or remove 'services' to let the token request everything)
        auth: {tokens: [{name: a, file: a, service: b}]}
            larder.yaml:4:38: error: server.auth.tokens: unknown key 'service' (did you mean 'services'?)
        auth: {tokens: [a]}
            larder.yaml:4:19: error: server.auth.tokens: expected a mapping, got text"#]].assert_eq(&texts.map(problems_of).join("\n"));
}

#[test]
fn top_level_keys_get_hints() {
    check(
        "tls: {cert: a}\nauth: {type: oidc}\n",
        expect![[r#"
        larder.yaml:1:1: error: configuration: unknown key 'tls' (write it under 'server')
        larder.yaml:2:1: error: configuration: unknown key 'auth' (Larder uses bearer tokens: write 'server: {auth: {tokens: [...]}}')"#]],
    );
}

/// Creates a directory with files. Files whose names end with `.open` are readable by all users.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        let mode = if name.ends_with(".open") { 0o644 } else { 0o600 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    dir
}

#[track_caller]
fn check_access(dir: &tempfile::TempDir, expected: Expect) {
    let config = Config::load(&dir.path().join("larder.yaml"), &no_env).unwrap_or_else(|error| panic!("{error}"));
    let found = match load_access(&config.http) {
        Ok(loaded) => format!("{:?}\n{}", loaded.tokens, lines(&loaded.warnings)),
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&found.replace(&dir.path().display().to_string(), "DIR"));
}

#[test]
fn unusable_files_are_reported_with_key() {
    let config = "server:\n  tls:\n    cert: tls.crt\n    key: tls.key\n  auth:\n    tokens:\n      \
                  - {name: a, file: a.token}\n      - {name: b, file: b.token}\n      - {name: c, file: c.token}\n      \
                  - {name: d, file: d.open}\n";
    let dir = directory(&[
        ("larder.yaml", config),
        ("a.token", "0123456789abcdef"),
        ("b.token", " 0123456789abcdef\n"),
        ("d.open", "tooshort"),
    ]);
    check_access(
        &dir,
        expect![[r#"
        DIR/larder.yaml:3:11: error: server.tls: 'cert': cannot read DIR/tls.crt: No such file or directory (os error 2)
        DIR/larder.yaml:8:25: error: server.auth.tokens: 'b' and 'a' are the same token
        DIR/larder.yaml:9:25: error: server.auth.tokens: 'file' of 'c': cannot read DIR/c.token: No such file or directory (os error 2)
        DIR/larder.yaml:10:25: warning: server.auth.tokens: 'file': DIR/d.open is readable by all users of this machine (run 'chmod o-r DIR/d.open'; for a Kubernetes volume, set its defaultMode to 0440)
        DIR/larder.yaml:10:25: error: server.auth.tokens: 'file' of 'd': DIR/d.open contains a token of fewer than 16 characters. hint: `openssl rand -hex 32` prints a valid one"#]],
    );
}

#[test]
fn readable_token_file_is_warned_about() {
    let config = "server: {auth: {tokens: [{name: a, file: a.open, services: [x]}, {name: b, file: b}]}}\n";
    let (a, b) = ("0123456789abcdef", "fedcba9876543210");
    check_access(
        &directory(&[("larder.yaml", config), ("a.open", a), ("b", b)]),
        expect![[r#"
        Some([Token { name: "a", scope: Services(["x"]), .. }, Token { name: "b", scope: All, .. }])
        DIR/larder.yaml:1:42: warning: server.auth.tokens: 'file': DIR/a.open is readable by all users of this machine (run 'chmod o-r DIR/a.open'; for a Kubernetes volume, set its defaultMode to 0440)"#]],
    );
}

#[test]
fn unknown_service_in_scope_is_reported() {
    let config = "features: [f.yaml]\nserver:\n  auth:\n    tokens:\n      - {name: a, file: a, services: [churn_online, churn_onlin]}\n      \
                  - {name: b, file: b, services: [fraud]}\n";
    let definitions = "feature_views: [{name: a_b, features: [{name: f, type: Int64}]}]\n\
                       feature_services: [{name: churn_online, features: [a_b]}]\n";
    let dir = directory(&[("larder.yaml", config), ("f.yaml", definitions)]);
    let config = Config::load(&dir.path().join("larder.yaml"), &no_env).unwrap();
    let problems = load_definitions(&config).unwrap_err().to_string();
    expect![[r#"
        DIR/larder.yaml:5:53: error: server.auth.tokens: 'a' has unknown feature service 'churn_onlin' (did you mean 'churn_online'?)
        DIR/larder.yaml:6:39: error: server.auth.tokens: 'b' has unknown feature service 'fraud'"#]].assert_eq(&problems.replace(&dir.path().display().to_string(), "DIR"));
}

#[test]
fn pipe_as_key_or_token_fails() {
    let config = "server:\n  tls: {cert: tls.crt, key: tls.key}\n  auth: {tokens: [{name: a, file: a.token}]}\n";
    let dir = directory(&[("larder.yaml", config)]);
    for name in ["tls.crt", "tls.key", "a.token"] {
        make_pipe(&dir.path().join(name));
    }
    let config = Config::load(&dir.path().join("larder.yaml"), &no_env).unwrap();
    let error = load_access(&config.http).unwrap_err().to_string();
    for name in ["tls.crt", "a.token"] {
        assert!(error.contains(&format!("{name}: it is a named pipe, not a regular file")), "{error}");
    }
}
