//! TLS and tokens: authentication, authorization, and changes while the server runs.

use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixStream,
    },
    path::Path,
    process::{Command, Output},
    sync::Mutex,
    time::{Duration, Instant},
};

use larder::app::Reloaded;
use rustls::{
    ProtocolVersion,
    version::{TLS12, TLS13},
};
use serde_json::{Value, json};

use crate::{
    certificates::{Authority, Client, Stream},
    fixture::{Fixture, Setup},
    wire::{self, Answer},
};

const PATH: &str = "/get-online-features";
const LOOKUP: &[u8] = br#"{"features":["driver_stats:conv_rate"],"entities":{"driver_id":[1001]}}"#;
const TLS: &str = "server: {tls: {cert: tls.crt, key: tls.key}}\n";
const MUTUAL: &str = "server: {tls: {cert: tls.crt, key: tls.key, client_ca: clients.crt}}\n";

const OPS: &str = "ops-token-0123456789abcdef";
const NARROW: &str = "narrow-token-0123456789abcdef";
const OTHER: &str = "other-token-0123456789abcdef";
const AUTH: &str = "server:\n  unix_socket: data.sock\n  auth:\n    tokens:\n      - {name: ops, file: ops.token}\n      \
                    - {name: narrow, file: narrow.token, services: [fs_basic]}\nadmin: {socket: admin.sock}\n";

/// Starts a server with TLS. Returns the server, its certificate authority, and a client that trusts this authority.
fn encrypted(config: &str, change: impl FnOnce(Setup, &Authority) -> Setup) -> (Fixture, Authority, Client) {
    let authority = Authority::new();
    let setup = Setup::golden().config(config).unready();
    authority.issue().write(&setup.path(""));
    let fixture = change(setup, &authority).start();
    let client = authority.client();
    (fixture, authority, client)
}

fn until_ready(fixture: &Fixture, client: &Client) {
    fixture.eventually("ready", || {
        client.send(fixture.address(), "/ready", &[], b"").is_some_and(|answer| answer.status == 200)
    });
}

fn with_tokens() -> Setup {
    let setup = Setup::golden().config(AUTH);
    write_token(&setup.path("ops.token"), OPS);
    write_token(&setup.path("narrow.token"), NARROW);
    setup
}

fn write_token(path: &Path, token: &str) {
    let new = path.with_extension("new");
    fs::write(&new, format!("{token}\n")).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(new, path).unwrap();
}

/// Sends a request with or without an `Authorization` header.
fn ask(fixture: &Fixture, method: &str, path: &str, token: Option<&str>, body: &[u8]) -> Answer {
    let value = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> = value.iter().map(|value| ("authorization", &**value)).collect();
    wire::send(fixture.address(), method, path, &headers, body)
}

fn lookup(fixture: &Fixture, token: &str) -> u16 {
    ask(fixture, "POST", PATH, Some(token), LOOKUP).status
}

fn by_service(service: &str) -> Vec<u8> {
    json!({ "feature_service": service, "entities": { "driver_id": [1001], "customer_id": ["CUST_000123"] } })
        .to_string()
        .into_bytes()
}

fn larder(fixture_dir: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.args(words).arg("--config").arg(fixture_dir.join("larder.yaml")).env_clear().output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
}

// === TLS ===

#[test]
fn both_tls_versions_are_served() {
    let (fixture, authority, client) = encrypted(TLS, |setup, _| setup);
    until_ready(&fixture, &client);
    for (version, number) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let client = authority.client_with(None, &[version]).offering("http/1.1");
        assert_eq!(client.agreed(fixture.address()), (Some(number), Some(b"http/1.1".to_vec())));
        let mut stream = client.connect(fixture.address()).unwrap();
        for _ in 0..3 {
            let answer = wire::ask(&mut stream, "POST", PATH, &[], LOOKUP).unwrap();
            assert_eq!(answer.column("conv_rate")["values"], json!([0.6001]));
        }
    }
    let redirect = client.send(fixture.address(), "/ready/", &[], b"").unwrap();
    assert_eq!(redirect.headers["location"], "https://larder/ready");
}

#[test]
fn slow_tls_client_is_disconnected() {
    let (fixture, _, client) =
        encrypted(TLS, |setup, _| setup.limits(|limits| limits.connection.write_timeout = Duration::from_millis(300)));
    until_ready(&fixture, &client);
    let keys: Vec<String> = (0..10_000).map(|row| row.to_string()).collect();
    let body = format!(r#"{{"features":["driver_stats:conv_rate"],"entities":{{"driver_id":[{}]}}}}"#, keys.join(","));
    let mut stream = client.connect(fixture.address()).unwrap();
    for _ in 0..3 {
        let answer = wire::ask(&mut stream, "POST", PATH, &[], body.as_bytes()).unwrap();
        assert_eq!(answer.column("conv_rate")["values"].as_array().unwrap().len(), 10_000);
    }
    let request = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let cut_off = (0..200).any(|_| stream.write_all(request.as_bytes()).is_err());
    assert!(cut_off, "the server read 200 requests of a client that reads no response");
}

/// Checks that the server closes the connection and sends at most a TLS alert before.
fn assert_no_http(stream: &mut impl Read) {
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    assert!(said.len() < 10, "{said:?}");
}

#[test]
fn non_tls_bytes_are_rejected() {
    let (fixture, authority, client) = encrypted(TLS, |setup, _| setup);
    let mut plain = wire::connect(fixture.address());
    plain.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert_no_http(&mut plain);
    for bytes in [&b"\x16\x03\x01\xff\xff"[..], &[0; 100_000], b"\r\n"] {
        let mut stream = wire::connect(fixture.address());
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        assert_no_http(&mut stream);
    }
    assert!(authority.client().offering("h2").connect(fixture.address()).is_err());
    assert!(
        Authority::new().client().connect(fixture.address()).is_err(),
        "a client that does not trust the authority"
    );
    assert_eq!(client.send(fixture.address(), "/health", &[], b"").unwrap().status, 200);
}

#[test]
fn stalled_handshake_times_out() {
    let (fixture, _, client) =
        encrypted(TLS, |setup, _| setup.limits(|limits| limits.connection.header_timeout = Duration::from_millis(300)));
    let started = Instant::now();
    let mut silent = wire::connect(fixture.address());
    let mut slow = wire::connect(fixture.address());
    slow.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap();
    for stream in [&mut silent, &mut slow] {
        assert_eq!(stream.read(&mut [0; 100]).unwrap_or(0), 0, "the server closes; the client does not time out");
    }
    assert!((Duration::from_millis(250)..Duration::from_secs(10)).contains(&started.elapsed()));
    assert_eq!(client.send(fixture.address(), "/health", &[], b"").unwrap().status, 200);
}

#[test]
fn handshake_does_not_delay_stop() {
    let (fixture, _, client) = encrypted(TLS, |setup, _| setup);
    let _silent: Vec<TcpStream> = (0..4).map(|_| wire::connect(fixture.address())).collect();
    assert_eq!(client.send(fixture.address(), "/health", &[], b"").unwrap().status, 200);
    let started = Instant::now();
    drop(fixture);
    assert!(started.elapsed() < Duration::from_secs(10), "the server waited for {:?}", started.elapsed());
}

#[test]
fn client_ca_rejects_other_clients() {
    let clients = Authority::new();
    let (fixture, authority, _) = encrypted(MUTUAL, |setup, _| {
        fs::write(setup.path("clients.crt"), clients.pem()).unwrap();
        setup
    });
    let (known, unknown) = (clients.issue(), Authority::new().issue());
    for versions in [&[&TLS12][..], &[&TLS13]] {
        let ask = |pair| authority.client_with(pair, versions).send(fixture.address(), "/health", &[], b"");
        assert_eq!(ask(Some(&known)).unwrap().status, 200);
        assert!(ask(None).is_none(), "without a certificate");
        assert!(ask(Some(&unknown)).is_none(), "with a certificate of another authority");
        assert!(ask(Some(&authority.issue())).is_none(), "with a certificate of the server's authority");
    }

    // A different authority takes effect for all new connections, including connections of clients that were connected
    // before.
    let returning = authority.client_with(Some(&known), rustls::ALL_VERSIONS);
    assert!(returning.send(fixture.address(), "/health", &[], b"").is_some());
    fs::write(fixture.path("clients.crt"), Authority::new().pem()).unwrap();
    fixture.eventually("the known certificate is rejected", || {
        returning.send(fixture.address(), "/health", &[], b"").is_none()
    });
}

#[test]
fn renewed_certificate_serves_new_connections() {
    let (fixture, authority, client) = encrypted(TLS, |setup, _| setup);
    let before = client.certificate(fixture.address());
    let mut open: Stream = client.connect(fixture.address()).unwrap();
    let health = |stream: &mut Stream| wire::ask(stream, "GET", "/health", &[], b"").map(|answer| answer.status);
    assert_eq!(health(&mut open), Some(200));

    let renewed = authority.issue();
    renewed.write(&fixture.path(""));
    fixture.eventually("the new certificate is presented", || client.certificate(fixture.address()) == *renewed.der());
    assert_ne!(before, *renewed.der());
    assert_eq!(health(&mut open), Some(200), "a connection from before the change");

    // A key that does not match, an incomplete file and a missing file are each rejected with a message.
    for (file, text) in [("tls.key", &*fs::read_to_string(fixture.path("tls.crt")).unwrap()), ("tls.crt", "-----BEG")] {
        let good = fs::read(fixture.path(file)).unwrap();
        fs::write(fixture.path(file), text).unwrap();
        let Reloaded { definitions, access } = fixture.app.reload_all();
        let refused = access.unwrap_err().to_string();
        assert!(refused.contains(&fixture.path(file).display().to_string()), "{refused}");
        assert!(definitions.is_ok(), "definitions are reloaded independently");
        assert_eq!(client.certificate(fixture.address()), *renewed.der());
        fs::write(fixture.path(file), good).unwrap();
    }
    fs::remove_file(fixture.path("tls.crt")).unwrap();
    let other_dir = tempfile::tempdir().unwrap();
    authority.issue().write(other_dir.path());
    fs::copy(other_dir.path().join("tls.key"), fixture.path("tls.key")).unwrap();
    let refused = fixture.app.reload_all().access.unwrap_err().to_string();
    assert!(refused.contains("'cert': cannot read"), "{refused}");
    assert_eq!(client.certificate(fixture.address()), *renewed.der(), "the new key waits for its certificate");
    fs::copy(other_dir.path().join("tls.crt"), fixture.path("tls.crt")).unwrap();
    fixture.eventually("certificate and key match", || client.certificate(fixture.address()) != *renewed.der());
    assert_eq!(health(&mut open), Some(200), "still");
}

// === Tokens ===

#[test]
fn features_and_catalog_require_token() {
    let fixture = with_tokens().start();
    for path in ["/health", "/ready"] {
        assert_eq!(ask(&fixture, "GET", path, None, b"").status, 200, "{path} is for probes");
    }
    let almost = &OPS[..OPS.len() - 1];
    for token in [None, Some(""), Some(almost), Some(OTHER), Some("ops"), Some(&*OPS.to_uppercase())] {
        for (method, path, body) in
            [("POST", PATH, LOOKUP), ("GET", "/v1/catalog", b""), ("POST", PATH, b"{"), ("POST", PATH, b"")]
        {
            let refused = ask(&fixture, method, path, token, body);
            assert_eq!((refused.status, &*refused.headers["www-authenticate"]), (401, "Bearer"), "{token:?} {path}");
            assert!(refused.json()["detail"].as_str().unwrap().contains("bearer token"), "{}", refused.text());
        }
    }
    assert_eq!(ask(&fixture, "POST", PATH, Some(OPS), LOOKUP).column("conv_rate")["values"], json!([0.6001]));
    assert_eq!(ask(&fixture, "GET", "/v1/catalog", Some(OPS), b"").json()["project"], "churn_prediction");
    // No spelling of a path bypasses authentication.
    for path in ["//get-online-features", "/get-online-features/", "/get-online-features%2f", "/./get-online-features"]
    {
        let answer = ask(&fixture, "POST", path, None, LOOKUP);
        assert!([307, 404].contains(&answer.status), "{path}: {}", answer.status);
    }
    for path in ["/v1/sync", "/v1/reload", "/metrics"] {
        assert_eq!(ask(&fixture, "POST", path, Some(OPS), b"").status, 404, "{path} is on another listener");
    }
    let twice = [("authorization", "Bearer x"), ("authorization", &*format!("Bearer {OPS}"))];
    assert_eq!(wire::send(fixture.address(), "POST", PATH, &twice, LOOKUP).status, 401);
}

#[test]
fn unix_socket_requires_tokens() {
    let fixture = with_tokens().start();
    let ask = |socket: &str, token: Option<&str>| {
        let value = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<(&str, &str)> = value.iter().map(|value| ("authorization", &**value)).collect();
        let mut stream = UnixStream::connect(fixture.path(socket)).unwrap();
        wire::ask(&mut stream, "POST", PATH, &headers, LOOKUP).unwrap().status
    };
    assert_eq!((ask("data.sock", None), ask("data.sock", Some(OPS)), ask("admin.sock", None)), (401, 200, 200));

    let get = ["get", "--feature", "driver_stats:conv_rate", "driver_id=1001", "--json"];
    let got = larder(fixture.dir.path(), &get);
    assert!(got.status.success() && said(&got).contains("0.6001"), "{}", said(&got));
    for words in
        [&["sync", "driver_stats"][..], &["list"], &["verify", "--feature", "driver_stats:conv_rate", "driver_id=1001"]]
    {
        let done = larder(fixture.dir.path(), words);
        assert!(done.status.success(), "{words:?}: {}", said(&done));
    }
}

#[test]
fn scope_limits_services() {
    let fixture = with_tokens().start();
    let ask = |body: &[u8]| ask(&fixture, "POST", PATH, Some(NARROW), body);
    assert_eq!(ask(&by_service("fs_basic")).status, 200, "{}", ask(&by_service("fs_basic")).text());
    for (body, missing) in [
        (by_service("fs_alias"), "feature service 'fs_alias'"),
        (by_service("no_such_service"), "feature service 'no_such_service'"),
        (LOOKUP.to_vec(), "by name: fs_basic"),
        (by_service(""), "by name: fs_basic"),
        (br#"{"entities":{"driver_id":[1001]},"feature_service":null}"#.to_vec(), "by name: fs_basic"),
    ] {
        let refused = ask(&body);
        assert_eq!(refused.status, 403, "{}", refused.text());
        assert!(
            refused.text().contains("FeastPermissionError") && refused.text().contains(missing),
            "{}",
            refused.text()
        );
    }
    assert_eq!(ask(b"{").status, 422);
    let services = |token| {
        let catalog = self::ask(&fixture, "GET", "/v1/catalog", Some(token), b"").json();
        let services = catalog["feature_services"].as_array().unwrap();
        services.iter().map(|service| service["name"].clone()).collect::<Vec<Value>>()
    };
    assert_eq!(services(NARROW), ["fs_basic"]);
    assert!(services(OPS).len() > 1);
}

#[test]
fn scoped_token_sees_its_services_only() {
    let fixture = with_tokens().start();
    let catalog = |token| self::ask(&fixture, "GET", "/v1/catalog", Some(token), b"").json();
    let (all, narrow) = (catalog(OPS), catalog(NARROW));
    let names = |catalog: &Value, kind: &str| {
        let items = catalog[kind].as_array().unwrap().iter();
        items.map(|item| item["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let service = &narrow["feature_services"][0];
    let in_service: Vec<&str> = service["features"].as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect();
    let views = narrow["feature_views"].as_array().unwrap().iter().chain(narrow["derived_views"].as_array().unwrap());
    for view in views {
        assert_eq!(view.get("source").unwrap_or(&Value::Null), &Value::Null, "{view}");
        for feature in view["features"].as_array().unwrap() {
            let name = format!("{}:{}", view["name"].as_str().unwrap(), feature["name"].as_str().unwrap());
            assert!(in_service.contains(&&*name), "{name} is in no service of the token");
        }
    }
    assert!(!names(&narrow, "feature_views").is_empty() && !names(&narrow, "entities").is_empty(), "{narrow}");
    assert!(names(&all, "feature_views").len() > names(&narrow, "feature_views").len());
    assert!(all.to_string().contains(".parquet") && !narrow.to_string().contains(".parquet"), "{narrow}");
}

#[test]
fn changed_token_file_takes_effect() {
    let fixture = with_tokens().start();
    assert_eq!((lookup(&fixture, OPS), lookup(&fixture, OTHER)), (200, 401));
    let mut open = wire::connect(fixture.address());
    let authorization = format!("Bearer {OPS}");
    let mut again =
        || wire::ask(&mut open, "POST", PATH, &[("authorization", &*authorization)], LOOKUP).unwrap().status;
    assert_eq!(again(), 200);

    write_token(&fixture.path("ops.token"), OTHER);
    fixture.eventually("the new token is accepted", || lookup(&fixture, OTHER) == 200);
    assert_eq!(lookup(&fixture, OPS), 401);
    assert_eq!(again(), 401, "also on a connection that was open");

    for (bad, why) in [("", "is empty"), ("short", "fewer than 16"), (NARROW, "are the same token")] {
        write_token(&fixture.path("ops.token"), bad);
        let refused = fixture.app.reload_all().access.unwrap_err().to_string();
        assert!(refused.contains(why) && !refused.contains(NARROW), "{refused}");
        assert_eq!(lookup(&fixture, OTHER), 200, "the old token is still accepted");
    }
    fs::remove_file(fixture.path("ops.token")).unwrap();
    let refused = fixture.app.reload_all().access.unwrap_err().to_string();
    assert!(refused.contains("ops.token: No such file"), "{refused}");
    assert_eq!(lookup(&fixture, OTHER), 200);
}

#[test]
fn swapped_equal_token_link_counts() {
    let setup = with_tokens();
    let new = OPS.replace("ops", "opt");
    let time = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000));
    for (name, token) in [("old", OPS), ("new", &new)] {
        write_token(&setup.path(name), token);
        fs::File::options().write(true).open(setup.path(name)).unwrap().set_times(time).unwrap();
    }
    fs::remove_file(setup.path("ops.token")).unwrap();
    symlink("old", setup.path("ops.token")).unwrap();
    let fixture = setup.start();
    assert_eq!((lookup(&fixture, OPS), lookup(&fixture, &new)), (200, 401));
    symlink("new", fixture.path("next")).unwrap();
    fs::rename(fixture.path("next"), fixture.path("ops.token")).unwrap();
    fixture.eventually("the new token is accepted", || lookup(&fixture, &new) == 200);
    assert_eq!(lookup(&fixture, OPS), 401);
}

#[test]
fn token_changes_ignore_broken_definitions() {
    let fixture = with_tokens().start();
    let config = fs::read_to_string(fixture.path("larder.yaml")).unwrap();
    fs::write(fixture.path("features/broken.yaml"), "nonsense: [").unwrap();
    write_token(&fixture.path("new.token"), OTHER);
    fs::write(fixture.path("larder.yaml"), config.replace("name: ops, file: ops.token", "name: new, file: new.token"))
        .unwrap();
    fixture.eventually("the added token is accepted", || lookup(&fixture, OTHER) == 200);
    assert_eq!(lookup(&fixture, OPS), 401, "the removed token is rejected");
    write_token(&fixture.path("new.token"), OPS);
    fixture.eventually("the added file is watched", || lookup(&fixture, OPS) == 200);

    // Authentication cannot be turned off while the server runs.
    fs::write(
        fixture.path("larder.yaml"),
        config
            .replace("  auth:", "  #")
            .replace("    tokens:", "  #")
            .lines()
            .filter(|line| !line.contains(".token"))
            .collect::<Vec<_>>()
            .join("\n"),
    )
    .unwrap();
    let warnings = fixture.app.reload_all().access.unwrap();
    assert!(warnings[0].message.contains("turning 'auth' off takes effect after a restart"), "{}", warnings[0]);
    assert_eq!((lookup(&fixture, OPS), lookup(&fixture, OTHER)), (200, 401));
}

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn no_token_is_ever_logged() {
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(|| Log);
    subscriber.try_init().unwrap();
    let fixture = with_tokens().start();
    assert_eq!((lookup(&fixture, OPS), lookup(&fixture, OTHER)), (200, 401));
    ask(&fixture, "POST", PATH, Some(NARROW), LOOKUP);
    write_token(&fixture.path("narrow.token"), OPS);
    fixture.eventually("the rejection is logged", || {
        String::from_utf8_lossy(&LOG.lock().unwrap()).contains("are the same token")
    });
    let printed = format!("{:?} {:?}", fixture.app, fixture.app.config());
    drop(fixture);
    let log = String::from_utf8(LOG.lock().unwrap().clone()).unwrap();
    for text in [&log, &printed] {
        for token in [OPS, NARROW, OTHER] {
            assert!(!text.contains(token), "{text}");
        }
    }
}

// === Start ===

#[test]
fn missing_keys_or_tokens_prevent_start() {
    let setup = with_tokens();
    let file = setup.path("larder.yaml");
    let server = "server:\n  listen: 127.0.0.1:0\n  tls: {cert: tls.crt, key: tls.key}\n  auth: {tokens: [{name: a, \
                  file: a.token, services: [fs_basc]}, {name: b, file: ops.token}]}\nmetrics: {listen: off}\n";
    fs::write(&file, server).unwrap();
    let dir = file.parent().unwrap();
    let checked = larder(dir, &["check"]);
    let said_all = said(&checked);
    assert_eq!(checked.status.code(), Some(3), "{said_all}");
    for words in
        ["unknown feature service 'fs_basc' (did you mean 'fs_basic'?)", "a.token: No such file", "tls.crt: No such"]
    {
        assert!(said_all.contains(words), "{words}: {said_all}");
    }

    fs::write(&file, server.replace("fs_basc", "fs_basic")).unwrap();
    let served = larder(dir, &["serve"]);
    assert_eq!(served.status.code(), Some(3), "{}", said(&served));
    assert!(said(&served).contains("a.token: No such file"), "{}", said(&served));

    Authority::new().issue().write(dir);
    write_token(&dir.join("a.token"), NARROW);
    assert!(larder(dir, &["check"]).status.success());
    // If no server has the store open, commands use the store without keys and tokens.
    fs::remove_file(dir.join("a.token")).unwrap();
    let synced = larder(dir, &["sync", "driver_stats"]);
    assert!(synced.status.success(), "{}", said(&synced));

    fs::write(&file, "server: {listen: '0.0.0.0:0'}\n").unwrap();
    let refused = larder(dir, &["serve"]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(said(&refused).contains("which other machines can reach without encryption"), "{}", said(&refused));
}
