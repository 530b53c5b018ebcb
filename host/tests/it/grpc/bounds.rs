//! Tests the limits on the memory of calls, and compressed messages, with a client that builds the frames of its
//! messages itself.

use std::{
    convert::Infallible,
    io::{Read, Write},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use flate2::{
    Compression,
    read::{GzDecoder, ZlibDecoder},
    write::{GzEncoder, ZlibEncoder},
};
use http_body_util::BodyExt;
use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming},
    client::conn::http2::{Builder, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use larder_grpc::proto::{
    PushRequest, PushResponse,
    feast::serving::{
        FeatureList, GetOnlineFeaturesRequest, GetOnlineFeaturesResponse, get_online_features_request::Kind as Asked,
    },
};
use larder_model::model::{FeastValue, Kind, RepeatedValue};
use prost::Message;
use tokio::{runtime::Runtime, task::JoinHandle};

use crate::{
    bounds::{MIB, assert_small_lookup_succeeds, lookup_of, with_texts},
    fixture::Fixture,
    grpc_client::{CHECK, Client, LOOKUPS},
};

const UNAVAILABLE: &str = "14";
const RESOURCE_EXHAUSTED: &str = "8";
const UNIMPLEMENTED: &str = "12";

/// An HTTP/2 connection.
struct Connection {
    runtime: Runtime,
    sender: SendRequest<Sent>,
}

/// The bytes that a call sends, and whether the stream ends after them.
struct Sent {
    bytes: Option<Bytes>,
    ends: bool,
}

/// A complete response.
struct Answer {
    encoding: Option<String>,
    accepted: Option<String>,
    status: String,
    body: Vec<u8>,
}

impl Connection {
    /// Creates a client with a flow-control window of this many bytes.
    fn to(fixture: &Fixture, window: u32) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = fixture.grpc_address();
        let sender = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let (sender, connection) = Builder::new(TokioExecutor::new())
                .initial_stream_window_size(window)
                .handshake(TokioIo::new(stream))
                .await
                .unwrap();
            tokio::spawn(connection);
            sender
        });
        Self { runtime, sender }
    }

    /// Starts a call, and returns a handle for its response. The call ends when the response is dropped.
    fn begin(&mut self, path: &str, sent: Sent) -> JoinHandle<Response<Incoming>> {
        let request = Request::post(format!("http://larder{path}")).header("content-type", "application/grpc");
        let answer = self.sender.send_request(request.body(sent).unwrap());
        self.runtime.spawn(async { answer.await.unwrap() })
    }

    fn call(&mut self, path: &str, headers: &[(&str, &str)], framed: Vec<u8>) -> Answer {
        let mut request = Request::post(format!("http://larder{path}")).header("content-type", "application/grpc");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let sent = Sent { bytes: Some(framed.into()), ends: true };
        let answer = self.sender.send_request(request.body(sent).unwrap());
        self.runtime.block_on(async {
            let (head, body) = answer.await.unwrap().into_parts();
            let header = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            let collected = body.collect().await.unwrap();
            let trailers = collected.trailers().cloned().unwrap_or_default();
            let status = trailers.get("grpc-status").map(|status| status.to_str().unwrap().to_owned());
            Answer {
                encoding: header("grpc-encoding"),
                accepted: header("grpc-accept-encoding"),
                status: status.or_else(|| header("grpc-status")).unwrap(),
                body: collected.to_bytes().to_vec(),
            }
        })
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.bytes.take() {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

fn message(key: &str, rows: usize) -> Vec<u8> {
    let features = FeatureList { val: vec!["texts:text".to_owned()] };
    let mut message = GetOnlineFeaturesRequest { kind: Some(Asked::Features(features)), ..Default::default() };
    let value = FeastValue { kind: Some(Kind::String(key.to_owned())) };
    message.entities.insert("k".to_owned(), RepeatedValue { val: vec![value; rows] });
    message.encode_to_vec()
}

fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn values(answer: &[u8]) -> Vec<Option<Kind>> {
    let answer = GetOnlineFeaturesResponse::decode(answer).unwrap();
    answer.results[1].values.iter().map(|value| value.kind.clone()).collect()
}

#[test]
fn compressed_calls_get_same_response() {
    let fixture = with_texts(5_000, |_| {});
    let mut connection = Connection::to(&fixture, 1 << 20);
    // The last two requests are decompressed and served on a compute thread, because they are large enough.
    for (key, rows) in [("small", 1), ("large", 3), ("nobody", 20_000)] {
        let rows = rows.min(10_000);
        let message = message(key, rows);
        let plain = connection.call(LOOKUPS[0], &[], framed(0, &message));
        assert_eq!((&*plain.status, plain.accepted.as_deref()), ("0", Some("identity,deflate,gzip")));
        assert_eq!(plain.body[0], 0);
        for (name, compressed) in [("gzip", gzip(&message)), ("deflate", deflate(&message))] {
            for path in LOOKUPS {
                let headers = [("grpc-encoding", name)];
                let answer = connection.call(path, &headers, framed(1, &compressed));
                assert_eq!(
                    (&*answer.status, answer.encoding),
                    ("0", None),
                    "{name}: the client accepts no compression"
                );
                assert_eq!(answer.body, plain.body);
                let headers = [("grpc-encoding", name), ("grpc-accept-encoding", "identity, deflate, gzip")];
                let answer = connection.call(path, &headers, framed(1, &compressed));
                assert_eq!(answer.encoding.as_deref(), Some(name));
                let mut decoded = Vec::new();
                match (answer.body[0], name) {
                    (0, _) => decoded.extend_from_slice(&answer.body[5..]),
                    (_, "gzip") => drop(GzDecoder::new(&answer.body[5..]).read_to_end(&mut decoded).unwrap()),
                    _ => drop(ZlibDecoder::new(&answer.body[5..]).read_to_end(&mut decoded).unwrap()),
                }
                assert_eq!(answer.body[0] == 1, plain.body.len() > 1_100, "{}", plain.body.len());
                assert_eq!(decoded, plain.body[5..]);
            }
        }
        assert_eq!(values(&plain.body[5..]).len(), rows);
    }
}

#[test]
fn compressed_messages_have_bounds() {
    let fixture = with_texts(10, |limits| limits.connection.body_bytes_max = MIB);
    let mut connection = Connection::to(&fixture, 1 << 20);
    let mut status = |path, encoding, message: &[u8]| {
        connection.call(path, &[("grpc-encoding", encoding)], framed(1, message)).status
    };
    for path in LOOKUPS {
        assert_eq!(status(path, "gzip", &gzip(&vec![0; 64 * MIB])), RESOURCE_EXHAUSTED);
        assert_eq!(status(path, "deflate", &deflate(&vec![0; 2 * MIB])), RESOURCE_EXHAUSTED);
        assert_eq!(status(path, "gzip", b"no such thing"), "13");
        assert_eq!(status(path, "br", &gzip(b"")), UNIMPLEMENTED);
        assert_eq!(status(path, "identity", &gzip(b"")), "13");
    }
    assert_eq!(status(CHECK, "gzip", &gzip(&[])), "0");
    assert_eq!(status(CHECK, "gzip", &gzip(&vec![0; 64 << 10])), RESOURCE_EXHAUSTED);
    assert_eq!(connection.call(CHECK, &[], framed(0, &vec![0; 64 << 10])).status, RESOURCE_EXHAUSTED);
}

#[test]
fn closed_windows_share_one_budget() {
    let fixture = with_texts(500_000, |limits| limits.in_flight_bytes_max = Some(24 * MIB));
    let ask = || fixture.post("/get-online-features", &lookup_of("large", 8)).status;
    assert_eq!(ask(), 200);
    let mut connection = Connection::to(&fixture, 1);
    let mut begin = || {
        let sent = Sent { bytes: Some(framed(0, &message("large", 8)).into()), ends: true };
        let answer = connection.begin(LOOKUPS[0], sent);
        connection.runtime.block_on(answer).unwrap()
    };
    let held: Vec<Response<Incoming>> = (0..20).map(|_| begin()).collect();
    let refused = held.iter().filter(|answer| is_unavailable(answer)).count();
    assert!((10..20).contains(&refused), "{refused} of 20");
    assert_eq!(ask(), 503);
    assert_small_lookup_succeeds(&fixture);
    drop((held, connection));
    fixture.eventually("memory is available again", || ask() == 200);
}

#[test]
fn unread_small_answers_share_one_budget() {
    let fixture = with_texts(10_000, |limits| limits.in_flight_bytes_max = Some(MIB));
    let mut connection = Connection::to(&fixture, 1);
    let mut begin = || {
        let sent = Sent { bytes: Some(framed(0, &message("large", 1)).into()), ends: true };
        let answer = connection.begin(LOOKUPS[0], sent);
        connection.runtime.block_on(answer).unwrap()
    };
    let held: Vec<Response<Incoming>> = (0..110).map(|_| begin()).collect();
    let refused = held.iter().filter(|answer| is_unavailable(answer)).count();
    assert!((5..60).contains(&refused), "{refused} of 110");
}

#[test]
fn unfinished_messages_share_one_budget() {
    let fixture = with_texts(10, |limits| limits.in_flight_bytes_max = Some(16 * MIB));
    let mut connection = Connection::to(&fixture, 1 << 20);
    let start: Bytes = [&[0][..], &u32::try_from(4 * MIB - 5).unwrap().to_be_bytes(), &vec![0; MIB]].concat().into();
    let mut pending: Vec<JoinHandle<Response<Incoming>>> =
        (0..40).map(|_| connection.begin(LOOKUPS[1], Sent { bytes: Some(start.clone()), ends: false })).collect();
    // Each message holds between 1 and 3 MiB while it grows. Large messages may hold 12 MiB in all.
    fixture
        .eventually("most calls are rejected", || pending.iter().filter(|answer| answer.is_finished()).count() >= 28);
    let ended = pending.extract_if(.., |answer| answer.is_finished());
    for answer in ended {
        assert!(is_unavailable(&connection.runtime.block_on(answer).unwrap()));
    }
    assert!(!pending.is_empty());
    assert_small_lookup_succeeds(&fixture);
}

fn is_unavailable(answer: &Response<Incoming>) -> bool {
    answer.headers().get("grpc-status").is_some_and(|status| status == UNAVAILABLE)
}

#[test]
fn large_lookups_equal_small_ones() {
    let fixture = with_texts(10, |_| {});
    let mut connection = Connection::to(&fixture, 1 << 20);
    for rows in [1, 3_000, 10_000] {
        let answer = connection.call(LOOKUPS[1], &[], framed(0, &message("small", rows)));
        assert_eq!(answer.status, "0");
        assert_eq!(values(&answer.body[5..]), vec![Some(Kind::String("small".to_owned())); rows]);
    }
}

#[test]
fn long_names_are_cut_in_messages() {
    let fixture = with_texts(10, |_| {});
    let mut client = Client::of(&fixture);
    let long = "x".repeat(MIB);
    let of = |kind| GetOnlineFeaturesRequest { kind: Some(kind), ..Default::default() };
    let list = |name: &str| Asked::Features(FeatureList { val: vec![name.to_owned()] });
    let mut twice = of(list("texts:text"));
    twice.entities.insert(long.clone(), RepeatedValue::default());
    twice.request_context = twice.entities.clone();
    for message in [of(list(&long)), of(list(&format!("{long}:x"))), of(Asked::FeatureService(long.clone())), twice] {
        let refused = client.look_up(&message).unwrap_err();
        assert!(refused.message().len() < 2_000 && !refused.message().is_empty(), "{}", refused.message().len());
    }
    let push = PushRequest { to: long.clone(), ..Default::default() };
    let refused = client.call::<_, PushResponse>("/GrpcFeatureServer/Push", push).unwrap_err();
    assert!(refused.message().contains("cannot push to 'xxx") && refused.message().len() < 2_000);
    let features = [(long.clone(), "1".to_owned())].into();
    let push = PushRequest { to: "online".to_owned(), stream_feature_view: long, features, ..Default::default() };
    let refused = client.call::<_, PushResponse>("/GrpcFeatureServer/Push", push).unwrap_err();
    assert!(refused.message().len() < 2_000, "{}", refused.message().len());
}
