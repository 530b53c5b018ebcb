//! The fast path of lookups, and the transitions between it and hyper. Responses equal hyper's and are in the order of
//! the requests, regardless of how the bytes arrive.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    fixture::{Fixture, Setup},
    wire::{self, Answer},
};

const CLOSE: [(&str, &str); 1] = [("connection", "close")];

fn body(drivers: &[i64]) -> Vec<u8> {
    json!({ "features": ["driver_stats:conv_rate"], "entities": { "driver_id": drivers } }).to_string().into_bytes()
}

fn request(body: &[u8]) -> Vec<u8> {
    let head = format!("POST /get-online-features HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn next(stream: &mut TcpStream) -> Answer {
    // This reader reads single bytes, so that it does not consume bytes of the next response.
    struct Bytewise<'s>(&'s mut TcpStream);
    impl Read for Bytewise<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(&mut buffer[..1])
        }
    }
    wire::read_answer(&mut Bytewise(stream)).expect("a response arrives")
}

fn keys(answer: &Answer) -> Value {
    answer.column("driver_id")["values"].clone()
}

fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_))
}

#[test]
fn fast_path_equals_hyper() {
    let fixture = Setup::golden().start();
    for drivers in [&[1001][..], &[1001, 1002, 9999], &[]] {
        let plain = wire::send(fixture.address(), "POST", "/get-online-features", &[], &body(drivers));
        let other = wire::send(fixture.address(), "POST", "/get-online-features", &CLOSE, &body(drivers));
        assert_eq!((plain.status, plain.text()), (other.status, other.text()));
        let names = |answer: &Answer| {
            let names = answer.headers.keys().filter(|name| *name != "connection");
            names.cloned().collect::<Vec<_>>()
        };
        assert_eq!(names(&plain), names(&other));
        assert_eq!(plain.headers["content-type"], other.headers["content-type"]);
    }
}

#[test]
fn large_repetitive_responses_equal_hyper() {
    let fixture = Setup::golden().start();
    let large = |first: i64| {
        let drivers: Vec<i64> = (first..first + 300).collect();
        let features = ["conv_rate", "acc_rate", "avg_daily_trips"].map(|name| format!("driver_stats:{name}"));
        json!({ "features": features, "entities": { "driver_id": drivers } }).to_string().into_bytes()
    };
    let firsts = [0, 900, 1001, 701];
    let expected = firsts.map(|first| {
        wire::send(fixture.address(), "POST", "/get-online-features", &CLOSE, &large(first)).text().to_owned()
    });
    // A round has large and small responses, alternately, on one connection. In later rounds, all rows are in memory.
    for _ in 0..3 {
        let mut stream = wire::connect(fixture.address());
        let all: Vec<u8> =
            firsts.iter().flat_map(|first| [request(&large(*first)), request(&body(&[*first]))].concat()).collect();
        stream.write_all(&all).unwrap();
        for (first, expected) in firsts.iter().zip(&expected) {
            assert_eq!(next(&mut stream).text(), &**expected);
            assert_eq!(keys(&next(&mut stream)), json!([first]));
        }
    }
}

#[test]
fn pipelined_requests_stay_in_order() {
    let fixture = Setup::golden().start();
    let mut stream = wire::connect(fixture.address());
    let many: Vec<u8> = (0..50).flat_map(|n| request(&body(&[n]))).collect();
    stream.write_all(&many).unwrap();
    for n in 0..50 {
        assert_eq!(keys(&next(&mut stream)), json!([n]));
    }
    for (place, byte) in many[..many.len() / 25].iter().enumerate() {
        stream.write_all(&[*byte]).unwrap();
        // With the pauses, the server receives the bytes in several pieces.
        if place % 37 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    assert_eq!((keys(&next(&mut stream)), keys(&next(&mut stream))), (json!([0]), json!([1])));
}

#[test]
fn slow_path_requests_stay_in_order() {
    let fixture = Setup::golden().start();
    let mut stream = wire::connect(fixture.address());
    let mut all = request(&body(&[1]));
    all.extend(request(b"{\"entities\": 1}"));
    all.extend(request(&body(&[2])));
    all.extend(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
    all.extend(request(&body(&[3])));
    stream.write_all(&all).unwrap();
    assert_eq!(keys(&next(&mut stream)), json!([1]));
    assert_eq!(next(&mut stream).status, 422);
    assert_eq!(keys(&next(&mut stream)), json!([2]));
    assert_eq!(next(&mut stream).status, 200);
    assert_eq!(keys(&next(&mut stream)), json!([3]));
}

#[test]
fn long_or_late_body_uses_hyper() {
    let fixture = Setup::golden().limits(|limits| limits.connection.body_timeout = Duration::from_millis(500)).start();
    let drivers: Vec<i64> = (0..9_000).collect();
    assert!(body(&drivers).len() < 64 << 10);
    let answer = wire::send(fixture.address(), "POST", "/get-online-features", &[], &body(&drivers));
    assert_eq!(keys(&answer), json!(drivers));
    let spaced = [&body(&[1])[..], &vec![b' '; 100 << 10]].concat();
    assert_eq!(keys(&wire::send(fixture.address(), "POST", "/get-online-features", &[], &spaced)), json!([1]));

    let whole = request(&body(&[1]));
    let mut stream = wire::connect(fixture.address());
    stream.write_all(&whole[..whole.len() - 1]).unwrap();
    assert_eq!(next(&mut stream).status, 408);
    assert!(is_closed(&mut stream));
}

#[test]
fn endless_head_and_idle_connection_close() {
    let fixture =
        Setup::golden().limits(|limits| limits.connection.header_timeout = Duration::from_millis(300)).start();
    let began = Instant::now();
    let mut silent = wire::connect(fixture.address());
    let mut slow = wire::connect(fixture.address());
    slow.write_all(b"POST /get-online-features HTTP/1.1\r\nhost: x\r\n").unwrap();
    let mut asked = wire::connect(fixture.address());
    asked.write_all(&request(&body(&[1]))).unwrap();
    assert_eq!(keys(&next(&mut asked)), json!([1]));
    assert!(is_closed(&mut silent) && is_closed(&mut asked));
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn client_that_never_reads_is_disconnected() {
    let fixture = Setup::golden().limits(|limits| limits.connection.write_timeout = Duration::from_secs(1)).start();
    let drivers: Vec<i64> = (0..5_000).collect();
    let many = || request(&body(&drivers)).repeat(60);
    let mut late = wire::connect(fixture.address());
    let reader = std::thread::spawn({
        let mut stream = late.try_clone().unwrap();
        move || {
            // The client reads late, but within the timeout.
            std::thread::sleep(Duration::from_millis(300));
            (0..60).map(|_| keys(&wire_answer(&mut stream)).as_array().unwrap().len()).collect::<Vec<_>>()
        }
    });
    late.write_all(&many()).unwrap();
    assert_eq!(reader.join().unwrap(), vec![5_000; 60]);

    let mut never = wire::connect(fixture.address());
    assert!(never.write_all(&many().repeat(4)).is_err(), "the server stops reading and then closes the connection");
}

/// Reads exactly one of several responses, with the length from its head.
fn wire_answer(stream: &mut TcpStream) -> Answer {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let text = String::from_utf8(head.clone()).unwrap();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    wire::read_answer(&mut &[head, body].concat()[..]).unwrap()
}

#[test]
fn stop_finishes_begun_responses() {
    let mut fixture = Setup::golden().start();
    let whole = request(&body(&[1]));
    let (mut idle, mut begun) = (wire::connect(fixture.address()), wire::connect(fixture.address()));
    idle.write_all(&whole).unwrap();
    assert_eq!(keys(&next(&mut idle)), json!([1]));
    // The server receives all of these bytes in one read, so when it responds to the first request, it has already
    // received the beginning of the second.
    begun.write_all(&[&whole[..], &whole[..whole.len() - 5]].concat()).unwrap();
    assert_eq!(keys(&next(&mut begun)), json!([1]));
    let stopping = std::thread::spawn(move || {
        fixture.stop();
        fixture
    });
    assert!(is_closed(&mut idle));
    begun.write_all(&whole[whole.len() - 5..]).unwrap();
    let answer = next(&mut begun);
    assert_eq!((keys(&answer), answer.header("connection")), (json!([1]), Some("close".to_owned())));
    assert!(is_closed(&mut begun));
    let _: Fixture = stopping.join().unwrap();
}

#[test]
fn pipelined_large_responses_stay_in_order() {
    let fixture = Setup::golden().start();
    let drivers = |first: i64| (first..first + 400).collect::<Vec<_>>();
    let mut stream = wire::connect(fixture.address());
    let reader = std::thread::spawn({
        let mut stream = stream.try_clone().unwrap();
        move || (0..300).map(|_| keys(&wire_answer(&mut stream))[0].as_i64().unwrap()).collect::<Vec<_>>()
    });
    // About 30 of these requests fit into one read, and their responses total about 1 MB.
    let all: Vec<u8> = (0..300).flat_map(|first| request(&body(&drivers(first)))).collect();
    stream.write_all(&all).unwrap();
    assert_eq!(reader.join().unwrap(), (0..300).collect::<Vec<i64>>());
    // No bytes are left over: the response to the next request is the next one that arrives.
    stream.write_all(&request(&body(&[7]))).unwrap();
    assert_eq!(keys(&next(&mut stream)), json!([7]));
}

/// A view whose calls take about ten milliseconds each.
const SLOW: &str = "derived_views:
  - name: slow
    plugin: hostile
    inputs: [{name: x, request: Float64}]
    features: [{name: y, type: Float64}]
    config: {mode: slow, amount: 10000}
";

fn with_slow() -> Fixture {
    let setup = Setup::golden().plugins(&["hostile", "feast_odfv/odfv_singleton"]);
    fs::write(setup.path("features/more.yaml"), SLOW).unwrap();
    setup.start()
}

fn slow(x: i64) -> Vec<u8> {
    json!({ "features": ["slow:y"], "entities": { "x": [x] } }).to_string().into_bytes()
}

#[test]
fn offloaded_response_stays_in_order() {
    let metrics = larder_common::telemetry::install_metrics().unwrap();
    let fixture = with_slow();
    let mut stream = wire::connect(fixture.address());
    let left = || {
        let text = metrics.render();
        let line = text.lines().find(|line| line.starts_with("larder_http_fast_path_exits_total ")).unwrap();
        line.split(' ').nth(1).unwrap().parse::<u32>().unwrap()
    };
    let before = left();
    // The last request arrives in two parts. The second part arrives late.
    let mut all: Vec<u8> =
        (0..20).flat_map(|n| if n % 3 == 0 { request(&slow(n)) } else { request(&body(&[n])) }).collect();
    let rest = all.split_off(all.len() - 7);
    stream.write_all(&all).unwrap();
    for n in 0..20 {
        if n == 19 {
            stream.write_all(&rest).unwrap();
        }
        let answer = next(&mut stream);
        if n % 3 == 0 {
            let twice = 2.0 * n as f64;
            assert_eq!(answer.column("y")["values"], json!([twice]));
        } else {
            assert_eq!(keys(&answer), json!([n]));
        }
    }
    assert_eq!(left(), before);
    let plain = wire::send(fixture.address(), "POST", "/get-online-features", &[], &slow(4));
    let other = wire::send(fixture.address(), "POST", "/get-online-features", &CLOSE, &slow(4));
    assert_eq!((plain.status, plain.text()), (other.status, other.text()));
    assert_eq!(left(), before + 1, "only the request that closes leaves the fast path");
    let counted = "larder_http_requests_total{endpoint=\"/get-online-features\",status=\"success\"} 22";
    assert!(metrics.render().contains(counted), "{}", metrics.render());
}

#[test]
fn offloaded_error_equals_hyper() {
    let metrics = larder_common::telemetry::install_metrics().unwrap();
    let fixture = with_slow();
    let counted = |series: &str| {
        let text = metrics.render();
        let line = text.lines().find(|line| line.starts_with(series)).unwrap_or_else(|| panic!("{series}: {text}"));
        line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()
    };
    // The second view's plugin fails if there are no trips, and this fails the request.
    let features = ["slow:y", "odfv_singleton:trips_plus_one"];
    let both =
        json!({ "features": features, "entities": { "x": [1.0], "driver_id": [9999] } }).to_string().into_bytes();
    let mut stream = wire::connect(fixture.address());
    let all = [request(&slow(1)), request(&both), request(&body(&[2])), request(&slow(3))].concat();
    stream.write_all(&all).unwrap();
    assert_eq!(next(&mut stream).status, 200);
    let wrong = next(&mut stream);
    assert_eq!(keys(&next(&mut stream)), json!([2]));
    assert_eq!(next(&mut stream).column("y")["values"], json!([6.0]));
    assert_eq!(counted("larder_http_fast_path_exits_total "), 0);
    let failed_rows = || {
        let labels = "plugin=\"odfv_singleton\",version=\"1.0.0\",view=\"odfv_singleton\"";
        counted(&format!("larder_plugin_failed_rows_total{{{labels}}} "))
    };
    let errors = || counted("larder_http_requests_total{endpoint=\"/get-online-features\",status=\"error\"} ");
    assert_eq!((failed_rows(), errors()), (1, 1));

    let other = wire::send(fixture.address(), "POST", "/get-online-features", &CLOSE, &both);
    assert_eq!((wrong.status, wrong.text()), (other.status, other.text()));
    assert_eq!(wrong.headers["content-type"], other.headers["content-type"]);
    assert_eq!((wrong.status, wrong.text().contains("odfv_singleton")), (500, true), "{}", wrong.text());
    assert_eq!((failed_rows(), errors()), (2, 2));
    assert_eq!(counted("larder_http_fast_path_exits_total "), 1);
    // Other requests are not affected.
    assert_eq!(fixture.get("/health").status, 200);
    assert_eq!(counted("larder_http_fast_path_exits_total "), 1);
}

#[test]
fn stop_finishes_offloaded_response() {
    let mut fixture = with_slow();
    let mut idle = wire::connect(fixture.address());
    idle.write_all(&request(&body(&[1]))).unwrap();
    assert_eq!(next(&mut idle).status, 200);
    let mut stream = wire::connect(fixture.address());
    let whole = request(&slow(2));
    // The server receives all of these bytes in one read, so when it responds to the first request, it has already
    // received the beginning of the second.
    stream.write_all(&[&request(&slow(1))[..], &whole[..whole.len() - 5]].concat()).unwrap();
    assert_eq!(next(&mut stream).status, 200);
    let stopping = std::thread::spawn(move || {
        fixture.stop();
        fixture
    });
    assert!(is_closed(&mut idle), "the server drains");
    stream.write_all(&whole[whole.len() - 5..]).unwrap();
    let answer = next(&mut stream);
    assert_eq!(answer.column("y")["values"], json!([4.0]));
    assert_eq!(answer.header("connection"), Some("close".to_owned()));
    assert!(is_closed(&mut stream));
    let _: Fixture = stopping.join().unwrap();
}

/// Returns the value of a metric without labels.
fn metric(metrics: &larder_common::telemetry::Metrics, name: &str) -> u64 {
    let text = metrics.render();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[test]
fn errors_stay_on_the_fast_path() {
    let metrics = larder_common::telemetry::install_metrics().unwrap();
    let fixture = Setup::golden().start();
    let unknown = json!({ "feature_service": "none", "entities": { "driver_id": [1001] } }).to_string().into_bytes();
    let wrong = [
        (unknown, 404),
        (b"{".to_vec(), 422),
        (json!({ "features": ["driver_stats"], "entities": {} }).to_string().into_bytes(), 400),
    ];
    let mut stream = wire::connect(fixture.address());
    for (body, status) in &wrong {
        stream.write_all(&request(body)).unwrap();
        let answer = next(&mut stream);
        let expected = wire::send(fixture.address(), "POST", "/get-online-features", &CLOSE, body);
        assert_eq!((answer.status, answer.text()), (*status, expected.text()));
    }
    let exits = metric(&metrics, "larder_http_fast_path_exits_total");
    for n in 0..1_000 {
        stream.write_all(&request(&wrong[n % wrong.len()].0)).unwrap();
        assert!(next(&mut stream).status >= 400);
    }
    stream.write_all(&request(&body(&[1001]))).unwrap();
    assert_eq!(keys(&next(&mut stream)), json!([1001]));
    assert_eq!(metric(&metrics, "larder_http_fast_path_exits_total"), exits, "no error left the fast path");
}
