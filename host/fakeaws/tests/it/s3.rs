//! Tests of objects that are listed, read in parts, and replaced.

use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::Request;
use larder_fakeaws::{FakeS3, FaultProxy};

use crate::client::{Connection, Response, request, send};

async fn call_s3(s3: &FakeS3, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    send(s3.address(), request(method, path, headers)).await.unwrap()
}

async fn put(s3: &FakeS3, path: &str, headers: &[(&str, &str)], body: &'static str) -> Response {
    let request =
        headers.iter().fold(Request::put(path).header("host", "x"), |r, (name, value)| r.header(*name, *value));
    send(s3.address(), request.body(Full::from(body)).unwrap()).await.unwrap()
}

/// Returns the content of each element with this tag.
fn all(xml: &str, tag: &str) -> Vec<String> {
    let begin = format!("<{tag}>");
    let parts = xml.split(&begin).skip(1);
    parts.map(|part| part.split(&format!("</{tag}>")).next().unwrap().to_owned()).collect()
}

/// Starts a server with an object of ten bytes.
fn ten() -> FakeS3 {
    let s3 = FakeS3::start();
    s3.put("lake", "a/ten", "0123456789");
    s3
}

#[tokio::test]
async fn put_objects_are_returned_until_deleted() {
    let s3 = FakeS3::start();
    assert_eq!(put(&s3, "/lake/a", &[], "x").await.status, 404);
    assert_eq!(call_s3(&s3, "HEAD", "/lake", &[]).await.status, 404);
    assert_eq!(put(&s3, "/lake", &[], "").await.status, 200);
    assert_eq!(call_s3(&s3, "HEAD", "/lake", &[]).await.status, 200);
    let etag = put(&s3, "/lake/a%20b/%C3%BC", &[], "hello").await.header("etag").to_owned();
    assert!(etag.len() == 34 && etag.starts_with('"') && etag.ends_with('"'), "{etag}");
    assert_eq!(s3.keys("lake"), ["a b/ü"]);
    let got = call_s3(&s3, "GET", "/lake/a%20b/%C3%BC", &[]).await;
    assert_eq!((got.status, got.text().as_str(), got.header("etag")), (200, "hello", etag.as_str()));
    assert!(got.header("last-modified").ends_with(" GMT"));
    // The connection can be used after a response to HEAD, which has no body.
    let mut connection = Connection::open(s3.address()).await.unwrap();
    for _ in 0..2 {
        let head = connection.send(request("HEAD", "/lake/a%20b/%C3%BC", &[])).await.unwrap();
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "5", 0));
        assert_eq!(connection.send(request("GET", "/lake/a%20b/%C3%BC", &[])).await.unwrap().text(), "hello");
    }
    let missing = connection.send(request("GET", "/lake/b", &[])).await.unwrap();
    assert_eq!((missing.status, all(&missing.text(), "Code")), (404, vec!["NoSuchKey".to_owned()]));
    assert_eq!(call_s3(&s3, "DELETE", "/lake/a%20b/%C3%BC", &[]).await.status, 204);
    assert_eq!(s3.get("lake", "a b/ü"), None);
    assert_eq!(call_s3(&s3, "GET", "/lake/a?versionId=1", &[]).await.status, 501, "versions are not supported");
    let operations: Vec<&str> = s3.calls().iter().map(|call| call.operation).collect();
    assert_eq!(operations[..4], ["PutObject", "HeadBucket", "CreateBucket", "HeadBucket"]);
    assert_eq!(s3.url(), format!("http://{}", s3.address()));
}

#[tokio::test]
async fn range_requests_return_parts() {
    let s3 = ten();
    for (range, status, body, content_range) in [
        ("bytes=2-4", 206, "234", "bytes 2-4/10"),
        ("bytes=7-", 206, "789", "bytes 7-9/10"),
        ("bytes=-3", 206, "789", "bytes 7-9/10"),
        ("bytes=-30", 206, "0123456789", "bytes 0-9/10"),
        ("bytes=8-100", 206, "89", "bytes 8-9/10"),
        ("bytes=4-2", 200, "0123456789", ""),
        ("lines=1-2", 200, "0123456789", ""),
    ] {
        let got = call_s3(&s3, "GET", "/lake/a/ten", &[("range", range)]).await;
        assert_eq!(
            (got.status, got.text().as_str(), got.header("content-range")),
            (status, body, content_range),
            "{range}"
        );
    }
    for range in ["bytes=10-", "bytes=10-12", "bytes=-0"] {
        let got = call_s3(&s3, "GET", "/lake/a/ten", &[("range", range)]).await;
        assert_eq!((got.status, all(&got.text(), "Code")[0].as_str()), (416, "InvalidRange"), "{range}");
    }
    let call = s3.calls()[0].clone();
    assert_eq!((call.bucket.as_str(), call.key.as_str()), ("lake", "a/ten"));
    assert_eq!((call.range.as_deref(), call.status), (Some("bytes=2-4"), 206));
    s3.clear_calls();
    assert!(s3.calls().is_empty());
}

#[tokio::test]
async fn conditions_are_checked_before_ranges() {
    let s3 = ten();
    let etag = s3.put("lake", "a/ten", "0123456789");
    let ranged = ("range", "bytes=0-1");
    let get =
        async |name: &'static str, etag: &str| call_s3(&s3, "GET", "/lake/a/ten", &[(name, etag), ranged]).await.status;
    assert_eq!(get("if-match", &etag).await, 206);
    assert_eq!(get("if-match", "\"other\"").await, 412);
    assert_eq!(get("if-none-match", &etag).await, 304);
    assert_eq!(get("if-none-match", "\"other\"").await, 206);
    assert_eq!(call_s3(&s3, "HEAD", "/lake/a/ten", &[("if-match", "\"other\"")]).await.status, 412);
    assert_eq!(put(&s3, "/lake/a/ten", &[("if-none-match", "*")], "x").await.status, 412);
    assert_eq!(put(&s3, "/lake/a/new", &[("if-none-match", "*")], "x").await.status, 200);
    assert_eq!(put(&s3, "/lake/a/ten", &[("if-match", "\"other\"")], "x").await.status, 412);
    assert_eq!(put(&s3, "/lake/a/ten", &[("if-match", &etag)], "x").await.status, 200);
    assert_ne!(s3.put("lake", "a/ten", "y"), etag);
}

#[tokio::test]
async fn lists_are_returned_in_pages() {
    let s3 = FakeS3::start();
    for n in 0..25 {
        s3.put("lake", &format!("data/{n:02}&.parquet"), "x");
    }
    s3.put("lake", "other", "x");
    s3.page_size(10);
    let (mut keys, mut pages, mut token) = (Vec::new(), 0, String::new());
    loop {
        let path = format!("/lake?list-type=2&prefix=data%2F{token}");
        let xml = call_s3(&s3, "GET", &path, &[]).await.text();
        keys.extend(all(&xml, "Key"));
        pages += 1;
        assert_eq!(all(&xml, "KeyCount")[0], all(&xml, "Key").len().to_string());
        match all(&xml, "NextContinuationToken").first() {
            Some(next) => token = format!("&continuation-token={}", next.replace('=', "%3D").replace('+', "%2B")),
            None => {
                assert_eq!(all(&xml, "IsTruncated"), ["false"]);
                break;
            }
        }
    }
    assert_eq!((keys.len(), pages), (25, 3));
    assert_eq!(keys[24], "data/24&amp;.parquet");
    let xml =
        call_s3(&s3, "GET", "/lake/?list-type=2&max-keys=2&encoding-type=url&start-after=data/1", &[]).await.text();
    assert_eq!(all(&xml, "Key"), ["data/10%26.parquet", "data/11%26.parquet"]);
    assert!(all(&xml, "ETag")[0].starts_with("&quot;") && all(&xml, "LastModified")[0].ends_with(".000Z"));
    assert_eq!(all(&call_s3(&s3, "GET", "/lake?list-type=2&prefix=none", &[]).await.text(), "KeyCount"), ["0"]);
    assert_eq!(call_s3(&s3, "GET", "/lake?list-type=2&continuation-token=%21", &[]).await.status, 400);
    assert_eq!(call_s3(&s3, "GET", "/none?list-type=2", &[]).await.status, 404);
    assert_eq!((s3.calls()[0].operation, s3.calls()[0].key.as_str()), ("ListObjectsV2", "data/"));
}

#[tokio::test]
async fn object_is_replaced_between_two_reads() {
    let s3 = ten();
    let etag = s3.put("lake", "a/ten", "0123456789");
    s3.swap_after("lake", "a/ten", 2, "abcdefghij");
    let part = async |range: &str| call_s3(&s3, "GET", "/lake/a/ten", &[("range", range), ("if-match", &etag)]).await;
    assert_eq!(part("bytes=-2").await.text(), "89");
    assert_eq!(call_s3(&s3, "HEAD", "/lake/a/ten", &[]).await.header("etag"), etag, "a HEAD is not a GET");
    assert_eq!(part("bytes=0-1").await.text(), "01");
    assert_eq!(part("bytes=2-3").await.status, 412);
    assert_eq!(call_s3(&s3, "GET", "/lake/a/ten", &[]).await.text(), "abcdefghij");
    s3.swap_after("lake", "a/ten", 0, "now");
    assert_eq!(s3.get("lake", "a/ten").unwrap(), "now");
    s3.delete("lake", "a/ten");
    assert!(s3.keys("lake").is_empty());
}

#[tokio::test]
async fn sdk_chunks_are_decoded() {
    let s3 = ten();
    let chunks = "3;chunk-signature=abc\r\nabc\r\n2\r\nde\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n";
    let headers = [("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"), ("content-encoding", "aws-chunked")];
    assert_eq!(put(&s3, "/lake/b", &headers, chunks).await.status, 200);
    assert_eq!(s3.get("lake", "b").unwrap(), "abcde");
    assert_eq!(put(&s3, "/lake/b", &headers, "9\r\nabc").await.status, 400);
}

#[tokio::test]
async fn responses_are_delayed_and_counted() {
    let s3 = ten();
    s3.delay(Duration::from_millis(60));
    let begin = Instant::now();
    let (one, two, three) = tokio::join!(
        call_s3(&s3, "GET", "/lake/a/ten", &[]),
        call_s3(&s3, "GET", "/lake/a/ten", &[]),
        call_s3(&s3, "GET", "/lake/a/ten", &[])
    );
    assert_eq!((one.status, two.status, three.status), (200, 200, 200));
    assert!(begin.elapsed() >= Duration::from_millis(60));
    assert_eq!(s3.concurrent_max(), 3);
    s3.clear_calls();
    s3.delay(Duration::ZERO);
    call_s3(&s3, "GET", "/lake/a/ten", &[]).await;
    assert_eq!(s3.concurrent_max(), 1);
}

#[tokio::test]
async fn proxy_forwards_objects_and_heads() {
    let s3 = ten();
    let proxy = FaultProxy::start(s3.address());
    let mut connection = Connection::open(proxy.address()).await.unwrap();
    for _ in 0..2 {
        let head = connection.send(request("HEAD", "/lake/a/ten", &[])).await.unwrap();
        assert_eq!((head.status, head.header("content-length")), (200, "10"));
        assert_eq!(connection.send(request("GET", "/lake/a/ten", &[])).await.unwrap().text(), "0123456789");
    }
    let large: String = "x".repeat(300_000);
    s3.put("lake", "large", large.clone());
    assert_eq!(connection.send(request("GET", "/lake/large", &[])).await.unwrap().text(), large);
}

#[tokio::test]
async fn stale_list_returns_current_objects() {
    let s3 = ten();
    s3.put("lake", "a/gone", "x");
    s3.stale_list(true);
    s3.put("lake", "a/new", "y");
    s3.delete("lake", "a/gone");
    s3.create_bucket("newer");
    let list = async |path: &str| all(&call_s3(&s3, "GET", path, &[]).await.text(), "Key");
    assert_eq!(list("/lake?list-type=2").await, ["a/gone", "a/ten"]);
    assert_eq!(call_s3(&s3, "GET", "/lake/a/gone", &[]).await.status, 404);
    assert_eq!(call_s3(&s3, "GET", "/lake/a/new", &[]).await.text(), "y");
    assert!(list("/newer?list-type=2").await.is_empty());
    s3.stale_list(false);
    assert_eq!(list("/lake?list-type=2").await, ["a/new", "a/ten"]);
}
