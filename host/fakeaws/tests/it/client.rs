//! A raw HTTP client. It sends exactly the request that the test specifies, without retries.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use larder_fakeaws::FakeDynamo;
use serde_json::Value;
use tokio::net::TcpStream;

/// A complete response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An open connection.
pub(crate) struct Connection(http1::SendRequest<Full<Bytes>>);

// === impl Response ===

impl Response {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }
}

// === impl Connection ===

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("{error:?}"))?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| format!("{error:?}"))?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response, String> {
        self.0.ready().await.map_err(|error| format!("{error:?}"))?;
        let answer = self.0.send_request(request).await.map_err(|error| format!("{error:?}"))?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| format!("{error:?}"))?.to_bytes();
        Ok(Response { status: head.status.as_u16(), headers: head.headers, body })
    }
}

/// Creates the request of a DynamoDB call.
pub(crate) fn call_request(operation: &str, body: &Value) -> Request<Full<Bytes>> {
    let is_stream = ["ListStreams", "DescribeStream", "GetShardIterator", "GetRecords"].contains(&operation);
    let service = if is_stream { "DynamoDBStreams_20120810" } else { "DynamoDB_20120810" };
    Request::post("/")
        .header("host", "localhost")
        .header("x-amz-target", format!("{service}.{operation}"))
        .header("content-type", "application/x-amz-json-1.0")
        .body(Full::from(body.to_string()))
        .unwrap()
}

/// Creates a request without a body.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(Full::default()).unwrap()
}

/// Sends one request over a separate connection.
pub(crate) async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Result<Response, String> {
    Connection::open(address).await?.send(request).await
}

/// Sends a call to the fake DynamoDB. Returns the body of the response, or the name of the error. Checks the response's
/// headers and checksum.
pub(crate) async fn call(dynamo: &FakeDynamo, operation: &str, body: Value) -> Result<Value, String> {
    let answer = send(dynamo.address(), call_request(operation, &body)).await.unwrap();
    assert_eq!(answer.header("x-amz-crc32"), crc32fast::hash(&answer.body).to_string());
    assert_eq!(answer.header("content-type"), "application/x-amz-json-1.0");
    let body = answer.json();
    if answer.status == 200 {
        return Ok(body);
    }
    assert_eq!(answer.status, 400);
    let kind = body["__type"].as_str().unwrap();
    Err(kind.strip_prefix("com.amazonaws.dynamodb.v20120810#").unwrap().to_owned())
}
