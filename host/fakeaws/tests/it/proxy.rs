//! Tests of the proxy in front of a DynamoDB.

use std::time::{Duration, Instant};

use larder_fakeaws::{FakeDynamo, Fault, FaultProxy, Match, When};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::client::{Connection, Response, call_request, request, send};

const TABLE: &str = "shop.stats";

/// The time after which a test concludes that no response will arrive.
const SHORT: Duration = Duration::from_millis(150);

/// Starts a server with one item, and a proxy in front of it.
fn proxied() -> (FakeDynamo, FaultProxy) {
    let dynamo = FakeDynamo::start();
    dynamo.create_table(TABLE, &[("id", "N")], None);
    dynamo.put(TABLE, json!({ "id": { "N": "1" }, "v": { "S": "x".repeat(1_000) } }));
    let proxy = FaultProxy::start(dynamo.address());
    (dynamo, proxy)
}

fn scan_request() -> hyper::Request<http_body_util::Full<bytes::Bytes>> {
    call_request("Scan", &json!({ "TableName": TABLE }))
}

async fn scan(proxy: &FaultProxy) -> Result<Response, String> {
    send(proxy.address(), scan_request()).await
}

fn is_whole(answer: &Response) -> bool {
    answer.header("x-amz-crc32") == crc32fast::hash(&answer.body).to_string() && answer.json()["Count"] == 1
}

/// Sends a request over a raw socket. Returns the received bytes, and the result of reading to the end.
async fn raw(proxy: &FaultProxy) -> (Vec<u8>, std::io::Result<usize>) {
    let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
    let body = json!({ "TableName": TABLE }).to_string();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: x\r\nx-amz-target: DynamoDB_20120810.Scan\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let _ = socket.write_all((head + &body).as_bytes()).await;
    let mut received = Vec::new();
    let end = socket.read_to_end(&mut received).await;
    (received, end)
}

#[tokio::test]
async fn proxy_without_rules_forwards_everything() {
    let (dynamo, proxy) = proxied();
    let mut connection = Connection::open(proxy.address()).await.unwrap();
    for _ in 0..3 {
        assert!(is_whole(&connection.send(scan_request()).await.unwrap()));
    }
    assert_eq!((proxy.counts(), proxy.connections()), ((3, 0), 1));
    assert_eq!(dynamo.calls()["Scan"], 3);
    assert_eq!(proxy.url(), format!("http://{}", proxy.address()));
    let address = dynamo.address();
    drop(dynamo);
    assert!(scan(&proxy).await.is_err(), "no server listens on {address}");
}

#[tokio::test]
async fn unplugging_resets_connections() {
    let (_dynamo, proxy) = proxied();
    let mut open = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(scan(&proxy).await.is_ok());
    proxy.plug(false);
    let error = timeout(Duration::from_secs(5), open.read(&mut [0; 8])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let refused = TcpStream::connect(proxy.address()).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    proxy.plug(true);
    assert!(is_whole(&scan(&proxy).await.unwrap()));
}

#[tokio::test]
async fn delay_and_bandwidth_slow_responses() {
    let (_dynamo, proxy) = proxied();
    let begin = Instant::now();
    proxy.delay(Duration::from_millis(80));
    assert!(is_whole(&scan(&proxy).await.unwrap()));
    assert!(begin.elapsed() >= Duration::from_millis(80));
    proxy.heal();
    let begin = Instant::now();
    proxy.bandwidth(Some(5_000));
    assert!(is_whole(&scan(&proxy).await.unwrap()));
    assert!(begin.elapsed() >= Duration::from_millis(200), "1,300 bytes: {:?}", begin.elapsed());
}

#[tokio::test]
async fn silent_and_half_closed_wires_send_nothing() {
    let (dynamo, proxy) = proxied();
    proxy.silence(true);
    assert_eq!(proxy.bytes_ignored(), 0);
    assert!(timeout(SHORT, scan(&proxy)).await.is_err());
    assert_eq!(dynamo.calls().get("Scan"), None);
    assert!(proxy.bytes_ignored() > 0);
    proxy.silence(false);
    assert!(is_whole(&scan(&proxy).await.unwrap()));

    let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
    proxy.half_close(true);
    let end = timeout(Duration::from_secs(2), socket.read(&mut [0; 8])).await;
    assert_eq!(end.expect("first read").unwrap(), 0, "the stream ends");
    for _ in 0..3 {
        socket.write_all(b"POST / HTTP/1.1\r\n").await.unwrap();
        // If the proxy had closed the connection, a reset would arrive, and the next write would fail. Waiting is the
        // only way to check that no reset arrives.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(timeout(Duration::from_secs(2), scan(&proxy)).await.expect("second scan").is_err());
    proxy.heal();
    assert!(is_whole(&scan(&proxy).await.unwrap()));
}

#[tokio::test]
async fn responses_are_truncated() {
    let (_dynamo, proxy) = proxied();
    let (whole, head) = {
        let answer = scan(&proxy).await.unwrap();
        proxy.rule(Match::Any, When::First(1), Fault::ShortBody(0));
        let (head, _) = raw(&proxy).await;
        (head.len() + answer.body.len(), head.len())
    };
    proxy.truncate(Some(300));
    let (received, end) = raw(&proxy).await;
    assert_eq!((received.len(), end.unwrap()), (300, 300));
    assert_eq!(proxy.bytes_passed(), u64::try_from(whole + head + 300).unwrap());
    assert!(scan(&proxy).await.is_err());
    // The limit applies to each response separately, not to the connection.
    proxy.truncate(Some(whole + 100));
    let mut connection = Connection::open(proxy.address()).await.unwrap();
    for _ in 0..3 {
        assert!(is_whole(&connection.send(scan_request()).await.unwrap()));
    }
    proxy.heal();
    proxy.rule("Scan", When::First(1), Fault::Truncate(17));
    proxy.rule("Scan", When::First(1), Fault::ShortBody(10));
    proxy.rule("Scan", When::First(1), Fault::ShortBody(1 << 20));
    assert_eq!(raw(&proxy).await.0.len(), 17);
    let (received, _) = raw(&proxy).await;
    assert_eq!(received.len(), head + 10);
    assert!(String::from_utf8(received).unwrap().to_lowercase().contains("content-length: 1"));
    assert!(is_whole(&connection.send(scan_request()).await.unwrap()), "the body is shorter than the limit");
    assert!(is_whole(&connection.send(scan_request()).await.unwrap()));
}

#[tokio::test]
async fn rules_match_operations_and_paths() {
    let (dynamo, proxy) = proxied();
    proxy.refuse("Scan", When::First(2), 400, "ThrottlingException");
    proxy.refuse(".scan", When::First(1), 500, "InternalServerError");
    let describe = || send(proxy.address(), call_request("DescribeTable", &json!({ "TableName": TABLE })));
    assert_eq!(describe().await.unwrap().status, 200, "another operation");
    for (status, kind) in [(400, "ThrottlingException"), (400, "ThrottlingException"), (500, "InternalServerError")] {
        let answer = scan(&proxy).await.unwrap();
        assert_eq!(answer.status, status);
        assert_eq!(answer.json()["__type"], format!("com.amazonaws.dynamodb.v20120810#{kind}"));
    }
    assert!(is_whole(&scan(&proxy).await.unwrap()));
    assert_eq!((proxy.counts(), dynamo.calls()["Scan"]), ((2, 3), 1));

    proxy.rule("GET /bucket/a", When::First(1), Fault::slow_down());
    proxy.rule("GET /bucket/a", When::First(1), Fault::redirect("http://elsewhere/"));
    proxy.rule("GET /bucket/a", When::First(1), Fault::skewed());
    let get = async |method: &str, path: &str| send(proxy.address(), request(method, path, &[])).await.unwrap();
    assert_eq!(get("GET", "/bucket/b").await.status, 400, "the response of the server");
    assert_eq!(get("PUT", "/bucket/a").await.status, 400);
    let slow = get("GET", "/bucket/a/1?x=y").await;
    assert_eq!((slow.status, slow.text().contains("<Code>SlowDown</Code>")), (503, true));
    let moved = get("GET", "/bucket/a").await;
    assert_eq!((moved.status, moved.header("location")), (307, "http://elsewhere/"));
    let skewed = get("GET", "/bucket/a").await;
    assert_eq!((skewed.status, skewed.text().contains("RequestTimeTooSkewed")), (403, true));
}

#[tokio::test]
async fn rules_apply_at_configured_frequency() {
    let (_dynamo, proxy) = proxied();
    let failures = async |count: u32| {
        let mut failed = Vec::new();
        for n in 1..=count {
            if scan(&proxy).await.unwrap().status != 200 {
                failed.push(n);
            }
        }
        failed
    };
    proxy.refuse("Scan", When::Every(3), 500, "InternalServerError");
    assert_eq!(failures(7).await, [3, 6]);
    proxy.heal();
    proxy.refuse("Scan", When::Nth(2), 500, "InternalServerError");
    assert_eq!(failures(4).await, [2]);
    proxy.heal();
    proxy.refuse("Scan", When::Always, 500, "InternalServerError");
    assert_eq!(failures(2).await, [1, 2]);
    proxy.heal();
    proxy.refuse("Scan", When::Chance(0.3, 7), 500, "InternalServerError");
    let drawn = failures(60).await;
    assert!((8..=30).contains(&drawn.len()), "{drawn:?}");
    proxy.heal();
    proxy.refuse("Scan", When::Chance(0.3, 7), 500, "InternalServerError");
    assert_eq!(failures(60).await, drawn, "the seed is the same");
}

#[tokio::test]
async fn faults_change_checksum_and_body() {
    let (_dynamo, proxy) = proxied();
    proxy.rule("Scan", When::First(1), Fault::WrongChecksum);
    proxy.rule("Scan", When::First(1), Fault::json(&json!({ "Items": "none" })));
    let wrong = scan(&proxy).await.unwrap();
    assert_ne!(wrong.header("x-amz-crc32"), crc32fast::hash(&wrong.body).to_string());
    assert_eq!(wrong.json()["Count"], 1);
    let shape = scan(&proxy).await.unwrap();
    assert_eq!((shape.status, shape.json()), (200, json!({ "Items": "none" })));
    assert_eq!(shape.header("x-amz-crc32"), crc32fast::hash(&shape.body).to_string());
    assert_ne!(shape.json(), Value::Null);
}

#[tokio::test]
async fn requests_are_reset_silenced_and_delayed() {
    let (dynamo, proxy) = proxied();
    proxy.rule("Scan", When::First(1), Fault::Reset);
    proxy.rule("Scan", When::First(1), Fault::Silence);
    proxy.rule("Scan", When::First(1), Fault::Delay(Duration::from_millis(60)));
    assert_eq!(raw(&proxy).await.1.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert!(timeout(SHORT, scan(&proxy)).await.is_err());
    assert_eq!(dynamo.calls().get("Scan"), None);
    let begin = Instant::now();
    assert!(is_whole(&scan(&proxy).await.unwrap()));
    assert!(begin.elapsed() >= Duration::from_millis(60));
    assert_eq!(proxy.counts(), (0, 3));
}

#[tokio::test]
async fn proxy_without_listening_keeps_connections() {
    let (_dynamo, proxy) = proxied();
    let mut open = Connection::open(proxy.address()).await.unwrap();
    assert!(is_whole(&open.send(scan_request()).await.unwrap()));
    for _ in 0..20 {
        proxy.listen(false);
        let error = TcpStream::connect(proxy.address()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(is_whole(&open.send(scan_request()).await.unwrap()));
        proxy.listen(true);
        assert!(is_whole(&scan(&proxy).await.unwrap()), "the port is the same");
    }
    // Plugging the wire in does not make the proxy listen again, but healing does.
    proxy.listen(false);
    proxy.plug(false);
    proxy.plug(true);
    assert!(TcpStream::connect(proxy.address()).await.is_err());
    proxy.heal();
    assert!(is_whole(&scan(&proxy).await.unwrap()));
}

#[tokio::test]
async fn upstream_receives_unchanged_request() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = FaultProxy::start(listener.local_addr().unwrap());
    let sent = request("GET", "/lake/a%20b?x=%2F", &[("authorization", "AWS4-HMAC-SHA256 x"), ("x-amz-date", "now")]);
    let upstream = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4_096];
        let count = socket.read(&mut buffer).await.unwrap();
        socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    };
    let (answer, seen) = tokio::join!(send(proxy.address(), sent), upstream);
    assert_eq!(answer.unwrap().status, 204);
    assert!(seen.starts_with("GET /lake/a%20b?x=%2F HTTP/1.1\r\n"), "{seen}");
    for header in ["host: localhost\r\n", "authorization: AWS4-HMAC-SHA256 x\r\n", "x-amz-date: now\r\n"] {
        assert_eq!(seen.matches(header).count(), 1, "{seen}");
    }
}
