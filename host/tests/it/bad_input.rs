//! Bad requests: each gets a clear 4xx, and the server keeps serving.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    fixture::{Fixture, Setup},
    wire,
};

const PATH: &str = "/get-online-features";

/// Checks that the server still answers.
fn assert_alive(fixture: &Fixture) {
    let column = fixture.features(&["driver_stats:conv_rate"], json!({ "driver_id": [1001] })).column("conv_rate");
    assert_eq!(column["statuses"], json!(["PRESENT"]));
}

#[test]
fn invalid_bodies_get_error_messages() {
    let fixture = Setup::golden().start();
    let deep = format!(r#"{{"entities":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let invalid_utf8 = b"{\"entities\":{\"driver_id\":[\"\xff\xfe\"]}}";
    let unread = b"{\"entities\":{\"driver_id\":[1001]},\"features\":[],\"note\":\"\xff\"}";
    let cases: [(&[u8], u16, &str); 10] = [
        (b"", 422, "Field required"),
        (b"{", 422, "JSON decode error"),
        (b"null", 422, "valid dictionary"),
        (b"[]", 422, "valid dictionary"),
        (b"{} {}", 422, "Extra data"),
        (b"\xef\xbb\xbf{}", 422, "JSON decode error"),
        (deep.as_bytes(), 422, "recursion limit"),
        (invalid_utf8, 422, "JSON decode error"),
        (unread, 422, "JSON decode error"),
        (br#"{"entities":{},"features":[1]}"#, 422, "valid string"),
    ];
    for (body, status, words) in cases {
        let answer = fixture.post(PATH, body);
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.text().contains(words), "{words}: {}", answer.text());
    }
    assert_alive(&fixture);
}

#[test]
fn ragged_columns_and_nested_keys_rejected() {
    let fixture = Setup::golden().start();
    let answer = fixture.features(&["pair_stats:rides"], json!({ "driver_id": [1, 2], "customer_id": ["a"] }));
    assert_eq!((answer.status, answer.json()), (400, json!("All entity rows must have the same columns.")));
    let answer = fixture.features(&["driver_stats:conv_rate"], json!({ "driver_id": [[1]] }));
    assert_eq!(answer.status, 400, "{}", answer.text());
}

/// If a response does not depend on the body, the server sends it before it has read the whole body. The server then
/// either discards the rest of the body, or sends `Connection: close`. In both cases, the response reaches a client
/// that sends everything before it reads.
#[test]
fn early_response_keeps_or_closes_connection() {
    let fixture = Setup::golden().limits(|limits| limits.connection.body_bytes_max = 1 << 20).start();
    let request = |method: &str, path: &str, bytes: usize| {
        format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {bytes}\r\n\r\n").into_bytes()
    };
    let cases = [("POST", "/nowhere", 404), ("POST", "/push/", 307), ("PUT", PATH, 405)];
    for (method, path, status) in cases {
        for (bytes, is_kept) in [(200, true), (200_000, true), (3_000_000, false), (20_000_000, false)] {
            let mut stream = wire::connect(fixture.address());
            stream.write_all(&request(method, path, bytes)).unwrap();
            if is_kept {
                // With this pause, the head arrives without the body. The test has to wait for a fixed time: the server
                // discards the body before it responds, so there is no sign that it has read the head.
                std::thread::sleep(Duration::from_millis(5));
            } else {
                assert_eq!(stream.peek(&mut [0]).unwrap(), 1, "{path}, {bytes}: the response comes before the body");
            }
            stream.write_all(&vec![b'x'; bytes]).unwrap_or_else(|error| panic!("{path}, {bytes}: {error}"));
            let answer = wire::read_answer(&mut stream).unwrap_or_else(|| panic!("{path}, {bytes}: no answer"));
            assert_eq!(answer.status, status);
            let closes = answer.headers.get("connection").is_some_and(|value| value == "close");
            assert_eq!(closes, !is_kept, "{path}, {bytes}");
            if is_kept {
                stream.write_all(&request("POST", "/nowhere", 0)).unwrap();
                assert_eq!(wire::read_answer(&mut stream).unwrap().status, 404, "the next request is answered");
            }
        }
    }
    for bytes in [1_500_000, 5_000_000, 30_000_000] {
        let mut stream = wire::connect(fixture.address());
        stream.write_all(&request("POST", PATH, bytes)).unwrap();
        stream.write_all(&vec![b'x'; bytes]).unwrap();
        let answer = wire::read_answer(&mut stream).unwrap();
        assert_eq!((answer.status, &*answer.headers["connection"]), (413, "close"));
    }
    // A client that waits for `100 Continue` gets the final response instead.
    let mut stream = wire::connect(fixture.address());
    let head = "POST /nowhere HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 10\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let answer = wire::read_answer(&mut stream).unwrap();
    assert_eq!((answer.status, &*answer.headers["connection"]), (404, "close"));
    assert_alive(&fixture);
}

#[test]
fn endless_chunk_size_closes_connection() {
    let fixture = Setup::golden().start();
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    let body = json!({ "features": ["driver_stats:conv_rate"], "entities": { "driver_id": [1001] } }).to_string();
    for zeros in [0, 10, 14, 15, 1_000_000] {
        let mut stream = wire::connect(fixture.address());
        let chunk = format!("{}{:02x}\r\n{body}\r\n0\r\n\r\n", "0".repeat(zeros), body.len());
        stream.write_all(head.as_bytes()).unwrap();
        // The server can close the connection before the whole chunk is sent.
        let _ = stream.write_all(chunk.as_bytes());
        let status = wire::read_answer(&mut stream).map(|answer| answer.status);
        if zeros <= 14 {
            assert_eq!(status, Some(200), "{zeros}");
        } else {
            assert!(matches!(status, None | Some(400)), "{zeros}: {status:?}");
        }
    }
    assert_alive(&fixture);
}

#[test]
fn body_limit_is_exact() {
    let fixture = Setup::golden().limits(|limits| limits.connection.body_bytes_max = 1_000).start();
    let body = |bytes: usize| {
        let mut body =
            json!({ "features": ["driver_stats:conv_rate"], "entities": { "driver_id": [1001] } }).to_string();
        let padding = bytes - body.len();
        body.push_str(&" ".repeat(padding));
        body
    };
    assert_eq!(fixture.post(PATH, body(1_000).as_bytes()).status, 200);
    let refused = fixture.post(PATH, body(1_001).as_bytes());
    assert_eq!(refused.status, 413);
    assert!(refused.text().contains("more than 1000 bytes"), "{}", refused.text());

    // If a body has no content-length, the server counts the bytes as they arrive.
    let mut stream = wire::connect(fixture.address());
    write!(stream, "POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    let chunk = [b' '; 600];
    for _ in 0..2 {
        write!(stream, "{:x}\r\n", chunk.len()).unwrap();
        stream.write_all(&chunk).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    assert_eq!(wire::read_answer(&mut stream).unwrap().status, 413);
    assert_alive(&fixture);
}

#[test]
fn million_keys_get_413_with_limit() {
    let fixture = Setup::golden().limits(|limits| limits.connection.body_bytes_max = 64 << 20).start();
    let ask = |rows: usize| {
        let keys: Vec<String> = (0..rows).map(|row| row.to_string()).collect();
        let body =
            format!(r#"{{"features":["driver_stats:conv_rate"],"entities":{{"driver_id":[{}]}}}}"#, keys.join(","));
        fixture.post(PATH, body.as_bytes())
    };
    assert_eq!(ask(10_000).status, 200);
    let refused = ask(1_000_000);
    assert_eq!(refused.status, 413);
    assert!(refused.text().contains("1000000 in this request, at most 10000 are allowed"), "{}", refused.text());
    assert_alive(&fixture);
}

#[test]
fn feature_and_value_limits_are_exact() {
    let fixture = Setup::golden()
        .limits(|limits| {
            limits.request.features_max = 2;
            limits.request.values_max = 6;
        })
        .start();
    let ask = |features: &[&str], rows: usize| {
        let keys: Vec<usize> = (0..rows).collect();
        fixture.features(features, json!({ "driver_id": keys })).status
    };
    let both = ["driver_stats:conv_rate", "driver_stats:avg_daily_trips"];
    assert_eq!(ask(&both, 2), 200, "2 features, 2 rows of 3 columns");
    assert_eq!(ask(&both, 3), 413, "9 values");
    assert_eq!(ask(&[both[0], both[1], "global_stats:global_mean"], 1), 413, "3 features");
}

#[test]
fn slow_headers_close_the_connection() {
    let fixture =
        Setup::golden().limits(|limits| limits.connection.header_timeout = Duration::from_millis(200)).start();
    let started = Instant::now();
    let mut silent = wire::connect(fixture.address());
    let mut slow = wire::connect(fixture.address());
    slow.write_all(b"POST /get-online-features HTTP/1.1\r\nhost: x\r\nx-slow:").unwrap();
    for stream in [&mut silent, &mut slow] {
        let answer = wire::read_answer(stream);
        assert!(answer.is_none_or(|answer| answer.status == 408));
    }
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_alive(&fixture);
}

#[test]
fn slow_body_gets_408() {
    let fixture = Setup::golden().limits(|limits| limits.connection.body_timeout = Duration::from_millis(200)).start();
    let mut stream = wire::connect(fixture.address());
    stream.write_all(b"POST /get-online-features HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{").unwrap();
    assert_eq!(wire::read_answer(&mut stream).unwrap().status, 408);
    assert_alive(&fixture);
}

#[test]
fn excess_connections_are_closed_at_once() {
    let fixture = Setup::golden().limits(|limits| limits.connection.connections_max = 20).start();
    let ask = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
    // Connections that the fixture used to check readiness may still be open, so this needs several attempts.
    let mut open = Vec::new();
    fixture.eventually("20 connections are open", || {
        let mut stream = wire::connect(fixture.address());
        if stream.write_all(ask).is_ok() && wire::read_answer(&mut stream).is_some() {
            open.push(stream);
        }
        open.len() == 20
    });
    for _ in 0..30 {
        let mut stream = wire::connect(fixture.address());
        let _ = stream.write_all(ask);
        assert!(wire::read_answer(&mut stream).is_none(), "a connection beyond the limit is closed");
    }
    for stream in &mut open {
        stream.write_all(ask).unwrap();
        assert_eq!(wire::read_answer(stream).unwrap().status, 200, "connections within the limit stay open");
    }
    drop(open);
    fixture.eventually("a new connection is accepted", || {
        let mut stream = wire::connect(fixture.address());
        let _ = stream.write_all(ask);
        wire::read_answer(&mut stream).is_some()
    });
}

#[test]
fn non_http_bytes_are_rejected() {
    let fixture = Setup::golden().start();
    for bytes in [&b"\x16\x03\x01\x02\x00\x01"[..], b"GET / HTTP/9.9\r\n\r\n", b"POST  HTTP/1.1\r\n\r\n", &[0; 100_000]]
    {
        let mut stream = wire::connect(fixture.address());
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        assert!(wire::read_answer(&mut stream).is_none_or(|answer| (400..500).contains(&answer.status)));
    }
    assert_alive(&fixture);
}

#[test]
fn client_that_never_reads_is_disconnected() {
    let fixture = Setup::golden().limits(|limits| limits.connection.write_timeout = Duration::from_millis(300)).start();
    let keys: Vec<String> = (0..10_000).map(|row| row.to_string()).collect();
    let body = format!(r#"{{"features":["driver_stats:conv_rate"],"entities":{{"driver_id":[{}]}}}}"#, keys.join(","));
    let ask = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());

    // Each response has about a megabyte, so a dozen responses fill all buffers between server and client.
    let mut deaf = wire::connect(fixture.address());
    let cut_off = (0..200).any(|_| deaf.write_all(ask.as_bytes()).is_err());
    assert!(cut_off, "the server read 200 requests of a client that reads no response");

    let mut reader = wire::connect(fixture.address());
    for _ in 0..3 {
        reader.write_all(ask.as_bytes()).unwrap();
        assert_eq!(wire::read_answer(&mut reader).unwrap().status, 200);
    }
    assert_alive(&fixture);
}
