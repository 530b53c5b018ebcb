//! Tests the limits on the memory and time of requests, for each request and for all requests together, with requests
//! at and beyond every limit.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use larder_http::HttpLimits;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    binary::{Home, LARDER_YAML},
    fixture::{Fixture, Setup},
    wire::{self, Answer},
};

const PATH: &str = "/get-online-features";
pub(crate) const MIB: usize = 1 << 20;

/// A view that only callers write.
const TEXTS: &str = "
entities: [{name: k, type: String}]
feature_views:
  - {name: texts, entities: [k], push_source: texts, features: [{name: text, type: String}]}
";

/// Checks that a small lookup succeeds, as it must under any load.
pub(crate) fn assert_small_lookup_succeeds(fixture: &Fixture) {
    let answer = fixture.features(&["texts:text"], json!({ "k": ["nobody"] }));
    assert_eq!(answer.column("text")["statuses"], json!(["NOT_FOUND"]));
}

/// Starts a server with two rows: `large` has a string of this many bytes, and `small` has a short text.
pub(crate) fn with_texts(bytes: usize, limits: impl FnOnce(&mut HttpLimits)) -> Fixture {
    let fixture = Setup::with(TEXTS).config("grpc: {listen: 127.0.0.1:0}\n").limits(limits).start();
    let df = json!({
        "k": ["large", "small"], "text": ["x".repeat(bytes), "small"],
        "event_timestamp": vec!["2026-11-23T08:00:00Z"; 2],
    });
    let pushed = fixture.post("/push", json!({ "push_source_name": "texts", "df": df }).to_string().as_bytes());
    assert_eq!(pushed.status, 200, "{}", pushed.text());
    fixture
}

pub(crate) fn lookup_of(key: &str, rows: usize) -> Vec<u8> {
    json!({ "features": ["texts:text"], "entities": { "k": vec![key; rows] } }).to_string().into_bytes()
}

fn assert_refused(answer: &Answer, status: u16, setting: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert!(answer.text().contains(setting) && answer.body.len() < 2_000, "{}", answer.text());
}

// === responses ===

#[test]
fn answer_beyond_its_bytes_is_refused() {
    let fixture = with_texts(100_000, |limits| limits.answer_bytes_max = MIB);
    let arrow = [("accept", "application/vnd.apache.arrow.stream")];
    let close = [("connection", "close")];
    for headers in [&[][..], &close, &arrow] {
        let ask = |rows| wire::send(fixture.address(), "POST", PATH, headers, &lookup_of("large", rows));
        let whole = ask(9);
        assert!(whole.status == 200 && whole.body.len() > 900_000, "{headers:?}: {}", whole.status);
        // The first response exceeds the limit while it is written. The second response would have 500 MB.
        for rows in [12, 5_000] {
            assert_refused(&ask(rows), 413, "answer_bytes_max");
        }
    }
    assert_small_lookup_succeeds(&fixture);
}

#[test]
fn large_response_is_complete_everywhere() {
    let fixture = with_texts(200_000, |_| {});
    for headers in [&[][..], &[("connection", "close")]] {
        // The largest response is built on a compute thread.
        for rows in [1, 10, 50] {
            let answer = wire::send(fixture.address(), "POST", PATH, headers, &lookup_of("large", rows));
            let values = &answer.column("text")["values"];
            assert_eq!(values.as_array().unwrap().len(), rows);
            assert!(values.as_array().unwrap().iter().all(|value| value.as_str().unwrap().len() == 200_000));
        }
    }
}

#[test]
fn many_lookups_equal_single_ones() {
    let fixture = with_texts(10, |_| {});
    let keys: Vec<&str> = (0..3_000).map(|n| if n % 3 == 0 { "small" } else { "nobody" }).collect();
    let answer = fixture.features(&["texts:text"], json!({ "k": keys }));
    let column = answer.column("text");
    for n in 0..3_000 {
        assert_eq!(column["values"][n], if n % 3 == 0 { json!("small") } else { Value::Null });
    }
}

#[test]
fn unread_responses_share_one_budget() {
    let fixture = with_texts(500_000, |limits| limits.in_flight_bytes_max = Some(24 * MIB));
    let ask = |rows| wire::send(fixture.address(), "POST", PATH, &[], &lookup_of("large", rows));
    assert_eq!(ask(8).status, 200);
    // Connections are opened one after the other until the budget is used up, because the kernel buffers the first
    // few megabytes of each connection.
    let request = [
        format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", lookup_of("large", 8).len())
            .into_bytes(),
        lookup_of("large", 8),
    ]
    .concat();
    let mut deaf: Vec<TcpStream> = Vec::new();
    fixture.eventually("the budget is used up", || {
        if deaf.len() < 40 {
            let mut stream = wire::connect(fixture.address());
            stream.write_all(&request.repeat(5)).unwrap();
            deaf.push(stream);
        }
        assert_small_lookup_succeeds(&fixture);
        ask(8).status == 503
    });
    assert_refused(&ask(8), 503, "in_flight_bytes_max");
    assert_small_lookup_succeeds(&fixture);
    drop(deaf);
    fixture.eventually("memory is available again", || ask(8).status == 200);
}

// === bodies ===

/// Sends the beginning of a body of 4 MiB.
fn unfinished(address: SocketAddr, path: &str, bytes: usize) -> TcpStream {
    let mut stream = wire::connect(address);
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", 4 * MIB);
    stream.write_all(head.as_bytes()).unwrap();
    let _ = stream.write_all(&vec![b' '; bytes]);
    stream
}

#[test]
fn unfinished_bodies_share_one_budget() {
    let fixture = with_texts(10, |limits| limits.in_flight_bytes_max = Some(16 * MIB));
    for path in [PATH, "/push"] {
        let mut open: Vec<TcpStream> = (0..40).map(|_| unfinished(fixture.address(), path, MIB)).collect();
        let mut refused = 0;
        for stream in &mut open {
            stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            refused += usize::from(wire::read_answer(stream).is_some_and(|answer| {
                assert_refused(&answer, 503, "in_flight_bytes_max");
                true
            }));
        }
        // Each body holds between 1 and 3 MiB while it grows. Large bodies may hold 12 MiB in all.
        assert!((28..40).contains(&refused), "{refused} of 40");
        assert_small_lookup_succeeds(&fixture);
        drop(open);
        let body = [&lookup_of("small", 1)[..], &vec![b' '; MIB]].concat();
        fixture.eventually("memory is available again", || fixture.post(PATH, &body).status == 200);
    }
}

#[test]
fn dense_push_json_is_limited() {
    let fixture = with_texts(10, |limits| limits.in_flight_bytes_max = Some(64 * MIB));
    let push = |items: &str| {
        let body = format!(r#"{{"push_source_name":"texts","df":{{"k":[{items}]}}}}"#);
        assert!(body.len() < MIB, "{}", body.len());
        fixture.post("/push", body.as_bytes())
    };
    for item in [r#"{"":0}"#, "[[]]", "[1]"] {
        let dense = vec![item; 900_000 / (item.len() + 1)].join(",");
        assert_refused(&push(&dense), 413, "in_flight_bytes_max");
    }
    assert_small_lookup_succeeds(&fixture);
}

#[test]
fn bodies_in_pieces_are_read_whole() {
    let fixture = with_texts(10, |_| {});
    let body = [&lookup_of("small", 1)[..], &vec![b' '; 300_000]].concat();
    let mut stream = wire::connect(fixture.address());
    write!(stream, "POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    for piece in body.chunks(7_777) {
        write!(stream, "{:x}\r\n", piece.len()).unwrap();
        stream.write_all(piece).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(wire::read_answer(&mut stream).unwrap().column("text")["values"], json!(["small"]));
}

// === shapes ===

#[test]
fn many_columns_rejected_in_linear_time() {
    let fixture = with_texts(10, |_| {});
    let body = |count: usize| {
        let columns: Vec<String> = (0..count).map(|n| format!(r#""c{n}":[1]"#)).collect();
        format!(r#"{{"features":["texts:text"],"entities":{{"k":["small"],{}}}}}"#, columns.join(","))
    };
    let started = Instant::now();
    let refused = fixture.post(PATH, body(80_000).as_bytes());
    assert_eq!(refused.status, 413, "{}", refused.text());
    assert!(refused.text().contains("columns: 80001"), "{}", refused.text());
    // On a busy machine, the check takes seconds. A pairwise comparison of columns would take minutes.
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert_eq!(fixture.post(PATH, body(9_999).as_bytes()).column("text")["values"], json!(["small"]));
}

#[test]
fn at_most_hundred_problems_are_listed() {
    let fixture = with_texts(10, |_| {});
    let many = |item: &str| vec![item; MIB / (item.len() + 1)].join(",");
    let long = "x".repeat(MIB);
    for (body, status) in [
        (format!(r#"{{"features":[{}],"entities":{{}}}}"#, many("1")), 422),
        (format!(r#"{{"features":["{long}"],"entities":{{"k":["a"]}}}}"#), 400),
        (format!(r#"{{"features":["{long}:a"],"entities":{{"k":["a"]}}}}"#), 404),
        (format!(r#"{{"features":["texts:{long}"],"entities":{{"k":["a"]}}}}"#), 404),
        (format!(r#"{{"feature_service":"{long}","entities":{{"k":["a"]}}}}"#), 404),
        (format!(r#"{{"entities":"{long}"}}"#), 422),
        (format!(r#"["{long}"]"#), 422),
        (format!(r#"{{"{long}":1}}"#), 422),
    ] {
        let refused = fixture.post(PATH, body.as_bytes());
        assert_eq!(refused.status, status, "{}", &refused.text()[..200]);
        assert!(refused.body.len() < 64 << 10, "{} bytes: {}", refused.body.len(), &refused.text()[..200]);
        if let Some(problems) = refused.json()["detail"].as_array() {
            assert!(problems.len() <= 100, "{}", problems.len());
        }
    }
    for (path, body) in [
        ("/push", format!(r#"{{"push_source_name":"{long}","df":{{}}}}"#)),
        ("/push", format!(r#"{{"push_source_name":"texts","to":"{long}","df":{{}}}}"#)),
        ("/push", format!(r#"{{"push_source_name":"texts","df":{{"k":"{long}"}}}}"#)),
        ("/push", format!(r#"{{"push_source_name":"texts","df":"{long}"}}"#)),
        ("/push", format!(r#"{{"x":"{long}"}}"#)),
        ("/write-to-online-store", format!(r#"{{"feature_view_name":"{long}","df":{{}}}}"#)),
        ("/materialize", format!(r#"{{"start_ts":"{long}","end_ts":"{long}"}}"#)),
        ("/materialize", format!(r#"{{"feature_views":"{long}"}}"#)),
        ("/materialize-incremental", format!(r#"{{"end_ts":"2026-01-01T00:00:00Z","feature_views":["{long}"]}}"#)),
    ] {
        let refused = fixture.post(path, body.as_bytes());
        assert!((400..500).contains(&refused.status), "{path}: {}", refused.status);
        assert!(refused.body.len() < 64 << 10, "{path}: {} bytes", refused.body.len());
    }
}

#[test]
fn large_shapes_are_not_kept() {
    let fixture = with_texts(10, |_| {});
    let ask = |column: &str| {
        let body = format!(r#"{{"features":["texts:text"],"entities":{{"k":["small"],"{column}":[1]}}}}"#);
        assert_eq!(fixture.post(PATH, body.as_bytes()).status, 200);
    };
    ask("x");
    let before = fixture.app.current().plan_bytes();
    assert!(before > 0);
    (0..20).for_each(|n| ask(&format!("{n}{}", "x".repeat(200_000))));
    assert_eq!(fixture.app.current().plan_bytes(), before);
    (0..20).for_each(|n| ask(&format!("{n}{}", "x".repeat(30_000))));
    let kept = fixture.app.current().plan_bytes();
    assert!((600_000..2 * MIB).contains(&kept), "{kept}");
    let many = 32 * MIB / 50_000 + 100;
    (0..many).for_each(|n| ask(&format!("{n}{}", "x".repeat(50_000))));
    assert!(fixture.app.current().plan_bytes() <= 32 * MIB);
}

#[test]
fn nearest_names_are_in_404s() {
    let fixture = Setup::golden().start();
    let ask = |body: Value| fixture.post(PATH, body.to_string().as_bytes());
    let keys = json!({ "driver_id": [1001] });
    for (asked, nearest) in [
        (json!({ "features": ["driver_stat:conv_rate"], "entities": keys }), "did you mean 'driver_stats'?"),
        (json!({ "features": ["driver_stats:conv_rat"], "entities": keys }), "did you mean 'conv_rate'?"),
        (json!({ "feature_service": "fs_basik", "entities": keys }), "did you mean 'fs_basic'?"),
    ] {
        let refused = ask(asked);
        assert!(refused.status == 404 && refused.text().contains(nearest), "{}", refused.text());
    }
    let missing = fixture.features(&["driver_stats:conv_rate"], json!({ "customer_id": ["x"] }));
    let text = "Missing join key values for keys: ['driver_id']. No values provided for keys: []. Provided \
                join_key_values: ['customer_id']";
    assert!(missing.status == 400 && missing.text().contains(text), "{}", missing.text());
}

// === framing ===

#[test]
fn repeated_length_or_host_is_rejected() {
    let fixture = Setup::golden().with_metrics().start();
    let body = r#"{"features":["driver_stats:conv_rate"],"entities":{"driver_id":[1001]}}"#;
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let length = format!("content-length: {}\r\n", body.len());
    let lookup = |headers: &str, body: &str| format!("POST {PATH} HTTP/1.1\r\n{headers}\r\n{body}");
    let good = lookup(&format!("host: x\r\n{length}"), body);
    let get = |headers: &str| format!("GET /health HTTP/1.1\r\n{headers}\r\n");
    let health = get("host: x\r\n");
    let te = "transfer-encoding: chunked\r\n";
    let status = |address: SocketAddr, before: &[&str], request: &str| {
        let mut stream = wire::connect(address);
        for before in before {
            stream.write_all(before.as_bytes()).unwrap();
            assert_eq!(wire::read_answer(&mut stream).unwrap().status, 200);
        }
        let _ = stream.write_all(request.as_bytes());
        let status = wire::read_answer(&mut stream).map(|answer| answer.status);
        // Bytes after a rejected request are not treated as a request.
        assert!(status == Some(200) || matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
        status
    };
    for (address, good, is_data) in [
        (fixture.address(), &good, true),
        (fixture.address(), &health, true),
        (fixture.metrics_address(), &health, false),
    ] {
        // The bad request comes first on a connection, after a request on the fast path, or after a request that hyper
        // handles.
        for before in [&[][..], &[&**good], &[&*health], &[&*health, &**good]] {
            let bad = [
                lookup(&format!("host: x\r\n{length}{te}"), &chunked),
                lookup(&format!("host: x\r\n{te}{length}"), &chunked),
                lookup(&length, body),
                lookup(&format!("host: x\r\nhost: y\r\n{length}"), body),
                lookup(&format!("host: x\r\nhost: x\r\n{length}"), body),
                get(""),
                get("host: x\r\nHost: y\r\n"),
            ];
            for bad in bad {
                assert_eq!(status(address, before, &bad), Some(400), "behind {before:?}: {bad}");
            }
            if is_data {
                let chunked = lookup(&format!("host: x\r\n{te}"), &chunked);
                assert_eq!(status(address, before, &chunked), Some(200));
            }
            assert_eq!(status(address, before, good), Some(200));
        }
    }
    assert_eq!(status(fixture.address(), &[], "GET /health HTTP/1.0\r\n\r\n"), Some(200), "1.0 has no Host");
}

#[test]
fn long_heads_are_refused() {
    let fixture = Setup::golden().start();
    let mut stream = wire::connect(fixture.address());
    let head = format!("GET /health HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    let _ = stream.write_all(head.as_bytes());
    assert!(wire::read_answer(&mut stream).is_none_or(|answer| answer.status == 431));
    assert_eq!(fixture.get("/health").status, 200);
}

// === connections ===

#[test]
fn probes_work_with_full_data_port() {
    let fixture = Setup::golden().with_metrics().limits(|limits| limits.connection.connections_max = 5).start();
    let mut open: Vec<TcpStream> = Vec::new();
    fixture.eventually("the limit on connections is reached", || {
        let mut stream = wire::connect(fixture.address());
        let _ = stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
        let is_refused = wire::read_answer(&mut stream).is_none();
        open.push(stream);
        is_refused
    });
    for path in ["/health", "/ready", "/metrics"] {
        assert_eq!(wire::send(fixture.metrics_address(), "GET", path, &[], b"").status, 200, "{path}");
    }
}

#[test]
fn memory_metrics_are_exported() {
    let fixture = Setup::golden().with_metrics().limits(|limits| limits.in_flight_bytes_max = Some(32 * MIB)).start();
    let scrape = || wire::send(fixture.metrics_address(), "GET", "/metrics", &[], b"").text();
    fixture.eventually("the gauges are set", || scrape().contains(&format!("larder_in_flight_max_bytes {}", 32 * MIB)));
    let text = scrape();
    for name in ["larder_in_flight_bytes 0", "larder_memory_steps_total{step=\"shrink_caches\"}", "larder_memory_level"]
    {
        assert!(text.contains(name), "{name} is missing");
    }
}

#[test]
fn failed_request_logs_no_values() {
    let home = Home::golden_loaded();
    home.write("larder.yaml", &format!("{LARDER_YAML}log: {{level: debug}}\n"));
    let (mut host, address) = home.serve();
    let ask = |body: Value| {
        let token = [("authorization", "Bearer very-secret-token")];
        wire::send(address, "POST", PATH, &token, body.to_string().as_bytes()).status
    };
    assert_eq!(
        ask(json!({ "features": ["driver_stats:conv_rate"], "entities": { "driver_id": ["secret-value"] } })),
        400
    );
    let line = host.until("bad_key");
    assert!(line.contains("request failed") && line.contains(PATH) && line.contains("127.0.0.1:"), "{line}");
    assert_eq!(ask(json!({ "features": ["nope:conv_rate"], "entities": { "driver_id": ["secret-value"] } })), 404);
    assert!(host.until("unknown_view").contains("Feature view nope does not exist"));
    let said = host.stop(Signal::TERM);
    assert!(!said.contains("secret-value") && !said.contains("very-secret-token"), "{said}");
}
