//! gRPC: Feast's recorded responses over both services, and invalid requests. `writes.rs` tests writes.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use larder_grpc::proto::{
    PushRequest, PushResponse,
    feast::serving::{
        FeatureList, FieldStatus, GetFeastServingInfoRequest, GetFeastServingInfoResponse, GetOnlineFeaturesRequest,
        GetOnlineFeaturesResponse, get_online_features_request::Kind as Asked,
        get_online_features_response::FeatureVector,
    },
};
use larder_model::model::{DoubleList, FeastMap, FeastValue, Kind, RepeatedValue};
use prost::Message;
use rustix::process::Signal;
use serde_json::json;
use tokio::sync::mpsc;
use tonic::{
    Code, Request, Status,
    codegen::{
        http::uri::PathAndQuery,
        tokio_stream::{self, StreamExt, wrappers::ReceiverStream},
    },
};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, ServerReflectionResponse, server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
};

use crate::{
    binary::Home,
    dynamo,
    fixture::{Setup, eventually},
    grpc_client::{CHECK, Client, LOOKUPS},
    wire,
};

mod bounds;
mod writes;

const GRPC: &str = "grpc: {listen: 127.0.0.1:0}\n";

const PUSH: &str = "/GrpcFeatureServer/Push";
const WRITE: &str = "/GrpcFeatureServer/WriteToOnlineStore";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// The HTTP/2 connection preface.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const TOKEN: &str = "ops-token-0123456789abcdef";
const NARROW: &str = "narrow-token-0123456789abcdef";

fn text(text: &str) -> FeastValue {
    FeastValue { kind: Some(Kind::String(text.to_owned())) }
}

fn int(value: i64) -> FeastValue {
    FeastValue { kind: Some(Kind::Int64(value)) }
}

fn double(value: f64) -> FeastValue {
    FeastValue { kind: Some(Kind::Double(value)) }
}

fn columns(columns: &[(&str, &[FeastValue])]) -> BTreeMap<String, RepeatedValue> {
    columns.iter().map(|(name, values)| ((*name).to_owned(), RepeatedValue { val: values.to_vec() })).collect()
}

fn asks(features: &[&str], entities: &[(&str, &[FeastValue])]) -> GetOnlineFeaturesRequest {
    let val = features.iter().map(|feature| (*feature).to_owned()).collect();
    GetOnlineFeaturesRequest {
        kind: Some(Asked::Features(FeatureList { val })),
        entities: columns(entities),
        ..Default::default()
    }
}

fn conv_rate(driver: FeastValue) -> GetOnlineFeaturesRequest {
    asks(&["driver_stats:conv_rate"], &[("driver_id", &[driver])])
}

/// Returns the columns of a response by name.
fn by_name(answer: &GetOnlineFeaturesResponse) -> BTreeMap<String, FeatureVector> {
    let names = answer.metadata.as_ref().unwrap().feature_names.as_ref().unwrap().val.clone();
    assert_eq!(names.len(), answer.results.len());
    names.into_iter().zip(answer.results.clone()).collect()
}

/// Returns the first value of a column.
fn value(answer: &GetOnlineFeaturesResponse, column: &str) -> Option<Kind> {
    by_name(answer)[column].values[0].kind.clone()
}

#[track_caller]
fn assert_refused<A: std::fmt::Debug>(answer: Result<A, Status>, code: Code, words: &str) {
    let status = answer.expect_err("a refusal");
    assert!(status.code() == code && status.message().contains(words), "{status:?}");
}

/// Returns Feast's response with Larder's deliberate differences applied (`golden.rs` has the reasons).
fn expected(name: &str, mut feast: BTreeMap<String, FeatureVector>) -> BTreeMap<String, FeatureVector> {
    // Feast converted the column to float64 and back, which changed the last digits of 9007199254740993, the value in
    // the file.
    for value in feast.get_mut("txn_count").into_iter().flat_map(|column| &mut column.values) {
        if value.kind == Some(Kind::Int64(9_007_199_254_740_992)) {
            value.kind = Some(Kind::Int64(9_007_199_254_740_993));
        }
    }
    if name.starts_with("14_") {
        feast.get_mut("stale_value").unwrap().statuses = vec![FieldStatus::OutsideMaxAge.into()];
    }
    feast
}

#[test]
fn both_services_give_recorded_answers() {
    let fixture = Setup::golden().config(GRPC).start();
    let mut client = Client::of(&fixture);
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/grpc");
    let mut cases = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = file.strip_suffix(".request.bin") else { continue };
        cases += 1;
        let request = GetOnlineFeaturesRequest::decode(&*fs::read(dir.join(&file)).unwrap()).unwrap();
        let response = fs::read(dir.join(format!("{name}.response.bin"))).unwrap();
        let feast = GetOnlineFeaturesResponse::decode(&*response).unwrap();
        let expected = expected(name, by_name(&feast));
        for path in LOOKUPS {
            let answer: GetOnlineFeaturesResponse = client.call(path, request.clone()).unwrap();
            assert_eq!(answer.status, feast.status);
            let found = by_name(&answer);
            assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{name}");
            for (column, expected) in &expected {
                assert_eq!(&found[column], expected, "{name}: {column}");
            }
        }
    }
    assert_eq!(cases, 5);
    let info: GetFeastServingInfoResponse =
        client.call("/feast.serving.ServingService/GetFeastServingInfo", GetFeastServingInfoRequest {}).unwrap();
    assert_eq!(info.version, env!("CARGO_PKG_VERSION"));
}

#[test]
fn names_follow_request_and_calls_count() {
    let fixture = Setup::golden().config(GRPC).start();
    let mut client = Client::of(&fixture);
    let request = GetOnlineFeaturesRequest {
        full_feature_names: true,
        include_feature_view_version_metadata: true,
        ..conv_rate(int(1001))
    };
    let answer = client.look_up(&request).unwrap();
    assert_eq!(value(&answer, "driver_stats__conv_rate"), Some(Kind::Double(0.6001)));
    let views = answer.metadata.unwrap().feature_view_metadata;
    assert_eq!(views.iter().map(|view| &*view.name).collect::<Vec<_>>(), ["driver_stats"]);

    let metrics = larder_common::telemetry::install_metrics().unwrap().render();
    for series in [
        r#"larder_grpc_requests_total{method="GetOnlineFeatures",status="success"}"#,
        r#"larder_grpc_request_duration_seconds_count{method="GetOnlineFeatures"}"#,
        "larder_grpc_connections ",
    ] {
        assert!(metrics.contains(series), "{series}");
    }
}

#[test]
fn derived_features_equal_http() {
    let fixture = Setup::golden().config(GRPC).plugins(&["feast_odfv/odfv_python"]).start();
    let mut client = Client::of(&fixture);
    let features = ["odfv_python:conv_x_amount"];
    let (drivers, amounts, hours) = ([int(1001), int(9999)], [double(2.0), double(3.0)], [int(1), int(2)]);
    let among = asks(&features, &[("driver_id", &drivers), ("amount", &amounts), ("hour", &hours)]);
    let beside = GetOnlineFeaturesRequest {
        request_context: columns(&[("amount", &amounts), ("hour", &hours)]),
        ..asks(&features, &[("driver_id", &drivers)])
    };
    let http = json!({ "driver_id": [1001, 9999], "amount": [2.0, 3.0], "hour": [1, 2] });
    let http = fixture.features(&features, http);
    let http = http.column("conv_x_amount");
    for request in [&among, &beside] {
        let column = by_name(&client.look_up(request).unwrap()).remove("conv_x_amount").unwrap();
        let values: Vec<_> = column
            .values
            .iter()
            .map(|value| match value.kind {
                Some(Kind::Double(value)) => json!(value),
                None => json!(null),
                ref other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(json!(values), http["values"]);
        assert_eq!(column.event_timestamps, vec![prost_types::Timestamp::default(); 2]);
    }
    let twice = GetOnlineFeaturesRequest { request_context: columns(&[("amount", &amounts)]), ..among };
    assert_refused(client.look_up(&twice), Code::InvalidArgument, "'amount'");
    let without = asks(&features, &[("driver_id", &drivers)]);
    assert_refused(client.look_up(&without), Code::InvalidArgument, "request data");
    let text = asks(&features, &[("driver_id", &drivers), ("amount", &[text("1"), text("2")]), ("hour", &hours)]);
    assert_refused(client.look_up(&text), Code::InvalidArgument, "Float64");

    let fixture = Setup::golden().config(GRPC).start();
    let mut client = Client::of(&fixture);
    let column = by_name(&client.look_up(&beside).unwrap()).remove("conv_x_amount").unwrap();
    assert_eq!(column.statuses, vec![i32::from(FieldStatus::Invalid); 2], "the view has no plugin");
    let singleton = asks(&["odfv_singleton:trips_plus_one"], &[("driver_id", &[int(1001)])]);
    assert_refused(client.look_up(&singleton), Code::FailedPrecondition, "has no plugin");
}

#[test]
fn call_that_takes_long_is_offloaded() {
    let setup = Setup::golden().config(GRPC).plugins(&["hostile"]);
    let view = "
derived_views:
  - name: slow
    plugin: hostile
    inputs: [{name: x, request: Float64}]
    features: [{name: y, type: Float64}]
    config: {mode: slow, after: 4, amount: 20000}
";
    fs::write(setup.path("features/more.yaml"), view).unwrap();
    let fixture = setup.start();
    let mut client = Client::of(&fixture);
    // From the second call on, the server expects calls of the plugin to be slow, and runs them on compute threads.
    let answers = [0; 4].map(|_| client.look_up(&asks(&["slow:y"], &[("x", &[double(1.0)])])).unwrap());
    assert_eq!(by_name(&answers[0])["y"].statuses, [i32::from(FieldStatus::Present)]);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[test]
fn missing_rows_are_fetched() {
    let dynamo = dynamo::table(10);
    let fixture = dynamo::setup(&dynamo.url(), ", on_miss: fetch, fetch_timeout: 3s").config(GRPC).start();
    let mut client = Client::of(&fixture);
    let answer = client.look_up(&asks(&["driver_stats:trips"], &[("driver_id", &[int(7)])])).unwrap();
    assert_eq!(value(&answer, "trips"), Some(Kind::Int64(7)));
    assert_eq!(dynamo.calls().get("BatchGetItem"), Some(&1));
}

#[test]
fn errors_have_code_and_http_message() {
    let fixture = Setup::golden().config(GRPC).limits(|limits| limits.request.rows_max = 3).start();
    let mut client = Client::of(&fixture);
    let driver: (&str, &[FeastValue]) = ("driver_id", &[int(1001)]);
    let refused = |client: &mut Client, request: GetOnlineFeaturesRequest, code, words| {
        assert_refused(client.look_up(&request), code, words);
    };
    use Code::{InvalidArgument, NotFound, ResourceExhausted};
    refused(&mut client, asks(&["nope:x"], &[driver]), NotFound, "Feature view nope does not exist");
    refused(&mut client, asks(&["driver_stats:nope"], &[driver]), NotFound, "Feature nope not found");
    let service =
        GetOnlineFeaturesRequest { kind: Some(Asked::FeatureService("nope".to_owned())), ..conv_rate(int(1)) };
    refused(&mut client, service, NotFound, "Feature service nope does not exist");
    refused(&mut client, GetOnlineFeaturesRequest::default(), InvalidArgument, "No features specified");
    refused(&mut client, asks(&["conv_rate"], &[driver]), InvalidArgument, "Invalid feature reference 'conv_rate'");
    refused(&mut client, asks(&["driver_stats:conv_rate"], &[]), InvalidArgument, "");
    refused(&mut client, conv_rate(text("abc")), InvalidArgument, "invalid literal for int()");
    refused(&mut client, conv_rate(double(5.5)), InvalidArgument, "invalid literal for int() with base 10: '5.5'");
    // No row is found for a null key.
    let null = client.look_up(&conv_rate(FeastValue { kind: None })).unwrap();
    assert_eq!(value(&null, "conv_rate"), None);
    assert_eq!(value(&null, "driver_id"), None);
    let list = FeastValue { kind: Some(Kind::DoubleList(DoubleList { val: vec![1.0] })) };
    refused(&mut client, conv_rate(list), InvalidArgument, "not a list or a mapping");
    refused(&mut client, conv_rate(FeastValue { kind: Some(Kind::Map(FeastMap::default())) }), InvalidArgument, "");
    let bytes = FeastValue { kind: Some(Kind::Bytes(vec![0xff])) };
    refused(&mut client, conv_rate(bytes), InvalidArgument, "not UTF-8");
    let ragged = asks(&["pair_stats:affinity"], &[("driver_id", &[int(1)]), ("customer_id", &[text("a"), text("b")])]);
    refused(&mut client, ragged, InvalidArgument, "");
    let rows: Vec<FeastValue> = (0..4).map(int).collect();
    refused(&mut client, asks(&["driver_stats:conv_rate"], &[("driver_id", &rows)]), ResourceExhausted, "entity rows");
    refused(&mut client, conv_rate(text(&"中".repeat(50_000))), InvalidArgument, "中中中");
    // As over HTTP, values of other types are accepted if they can be converted to the key's type without loss.
    for driver in [FeastValue { kind: Some(Kind::Int32(1001)) }, double(1001.0), text("1001")] {
        let answer = client.look_up(&conv_rate(driver)).unwrap();
        assert_eq!(value(&answer, "driver_id"), Some(Kind::Int64(1001)));
        assert_eq!(value(&answer, "conv_rate"), Some(Kind::Double(0.6001)));
    }
    let other: Result<GetOnlineFeaturesResponse, _> = client.call("/feast.serving.Other/Get", conv_rate(int(1)));
    assert_refused(other, Code::Unimplemented, "");
    let other: Result<GetOnlineFeaturesResponse, _> = client.call("/GrpcFeatureServer/Other", conv_rate(int(1)));
    assert_refused(other, Code::Unimplemented, "");
}

#[test]
fn health_and_reflection_are_served() {
    let fixture = Setup::golden().config(GRPC).start();
    let mut client = Client::of(&fixture);
    for service in ["", "GrpcFeatureServer", "feast.serving.ServingService"] {
        eventually("healthy", || client.health(service).unwrap() == ServingStatus::Serving);
    }
    assert_refused(client.health("nope"), Code::NotFound, "");

    let names = client.runtime.block_on(async {
        client.channel.ready().await.unwrap();
        let message_request = Some(MessageRequest::ListServices(String::new()));
        let ask = ServerReflectionRequest { host: String::new(), message_request };
        let symbol = Some(MessageRequest::FileContainingSymbol("GrpcFeatureServer".to_owned()));
        let file = ServerReflectionRequest { host: String::new(), message_request: symbol };
        let codec = ProstCodec::<ServerReflectionRequest, ServerReflectionResponse>::default();
        let path = PathAndQuery::from_static("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
        let asked = Request::new(tokio_stream::iter([ask, file]));
        let mut answers = client.channel.streaming(asked, path, codec).await.unwrap().into_inner();
        let names = match answers.next().await.unwrap().unwrap().message_response {
            Some(MessageResponse::ListServicesResponse(list)) => list.service,
            other => panic!("{other:?}"),
        };
        let file = answers.next().await.unwrap().unwrap().message_response;
        assert!(matches!(file, Some(MessageResponse::FileDescriptorResponse(_))), "{file:?}");
        names.into_iter().map(|service| service.name).collect::<Vec<_>>()
    });
    for service in ["GrpcFeatureServer", "feast.serving.ServingService", "grpc.health.v1.Health"] {
        assert!(names.contains(&service.to_owned()), "{names:?}");
    }
}

#[test]
fn unloaded_server_reports_not_serving() {
    let setup = Setup::golden().config(GRPC).unready();
    fs::remove_file(setup.path("data/driver_stats.parquet")).unwrap();
    let fixture = setup.start();
    let mut client = Client::of(&fixture);
    assert_eq!(client.health("").unwrap(), ServingStatus::NotServing);
}

#[test]
fn oversized_or_invalid_messages_are_rejected() {
    let fixture = Setup::golden().config(GRPC).limits(|limits| limits.connection.body_bytes_max = 2_048).start();
    let mut client = Client::of(&fixture);
    for bytes in [2_049, 100_000, 3_000_000] {
        for path in [LOOKUPS[0], LOOKUPS[1], PUSH, WRITE] {
            assert_refused(client.raw(path, &vec![0; bytes]), Code::ResourceExhausted, "more than 2048 bytes");
        }
    }
    let garbage: [&[u8]; 5] =
        [b"\xff\xff\xff\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x1a\x02\x0a", &[0x0a; 500], &[0; 3]];
    for bytes in garbage {
        for path in [LOOKUPS[0], LOOKUPS[1], PUSH, WRITE, CHECK] {
            assert_refused(client.raw(path, bytes), Code::Internal, "Protobuf");
        }
    }
    // Values that are nested far deeper than in any real request.
    let mut deep = FeastValue::default();
    for _ in 0..90 {
        deep = FeastValue { kind: Some(Kind::List(RepeatedValue { val: vec![deep] })) };
    }
    assert!(client.look_up(&conv_rate(deep)).is_err());

    let frames: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        &[0xff; 4_096],
        &[PREFACE, &[0xff; 4_096][..]].concat(),
        &[PREFACE, b"\0\0\0\x04\0\0\0\0\0", b"\xff\xff\xff\x01\x05\0\0\0\x01"].concat(),
        &[PREFACE, b"\0\0\0\x04\0\0\0\0\0", b"\0\0\x04\x01\x05\0\0\0\x01\xff\xff\xff\xff"].concat(),
    ];
    for bytes in frames {
        let mut stream = wire::connect(fixture.grpc_address());
        let _ = stream.write_all(bytes);
        // The server sends GOAWAY, and closes.
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        assert!(!said.starts_with(b"HTTP/1"), "{said:?}");
    }
    assert!(client.look_up(&conv_rate(int(1001))).is_ok());
}

#[test]
fn waits_have_bounds() {
    let fixture = Setup::golden()
        .config(GRPC)
        .limits(|limits| {
            limits.connection.header_timeout = Duration::from_millis(300);
            limits.connection.body_timeout = Duration::from_millis(300);
            limits.connection.connections_max = 3;
        })
        .start();
    // The client sends no bytes, or not enough bytes for a call.
    for bytes in [&b""[..], b"PRI * HT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        let mut stream = wire::connect(fixture.grpc_address());
        stream.write_all(bytes).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    // The message of this call never completes. `_sender` keeps the stream open.
    let mut client = Client::of(&fixture);
    let (_sender, messages) = mpsc::channel(1);
    assert_refused(begin(&mut client, messages, || {}), Code::DeadlineExceeded, "too long to arrive");
    // A connection beyond the limit is closed at once.
    let _held = [wire::connect(fixture.grpc_address()), wire::connect(fixture.grpc_address())];
    let started = Instant::now();
    wire::connect(fixture.grpc_address()).read_to_end(&mut Vec::new()).unwrap();
    assert!(started.elapsed() < Duration::from_secs(10));
}

/// Encodes an HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

#[test]
fn client_that_never_reads_is_disconnected() {
    let fixture = Setup::golden()
        .config(GRPC)
        .limits(|limits| limits.connection.write_timeout = Duration::from_millis(400))
        .start();
    let mut stream = wire::connect(fixture.grpc_address());
    // The client's window has no space for a response: SETTINGS_INITIAL_WINDOW_SIZE is 0.
    let settings = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    // Headers have their names as indices into HPACK's table, and their values as literals.
    let literal = |name: &[u8], value: &str| [name, &[u8::try_from(value.len()).unwrap()], value.as_bytes()].concat();
    let head = [vec![0x83, 0x86], literal(&[0x04], LOOKUPS[0]), literal(&[0x0f, 0x10], "application/grpc")].concat();
    let message = conv_rate(int(1001)).encode_to_vec();
    let message = [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()], &*message].concat();
    let call = [PREFACE, &settings, &frame(1, 4, 1, &head), &frame(0, 1, 1, &message)].concat();
    stream.write_all(&call).unwrap();
    let mut kinds = Vec::new();
    let mut head = [0; 9];
    while stream.read_exact(&mut head).is_ok() {
        let [_, a, b, kind, flags, ..] = head;
        let mut payload = vec![0; usize::from(a) << 8 | usize::from(b)];
        if stream.read_exact(&mut payload).is_err() {
            break;
        }
        kinds.push(kind);
        // The client answers pings.
        if (kind, flags) == (6, 0) {
            let _ = stream.write_all(&frame(6, 1, 0, &payload));
        }
    }
    assert!(kinds.contains(&1) && !kinds.contains(&0), "a response began and did not end: {kinds:?}");
}

/// Starts a lookup and waits for its response. The request is complete when `messages` has returned its message and is
/// closed. Calls `begun` when the server has received the headers of the call.
fn begin(
    client: &mut Client,
    messages: mpsc::Receiver<GetOnlineFeaturesRequest>,
    begun: impl FnOnce(),
) -> Result<GetOnlineFeaturesResponse, Status> {
    client.runtime.block_on(async {
        client.channel.ready().await.unwrap();
        let codec = ProstCodec::<GetOnlineFeaturesRequest, GetOnlineFeaturesResponse>::default();
        let path = PathAndQuery::from_static(LOOKUPS[1]);
        let request = Request::new(ReceiverStream::new(messages));
        let mut checks = client.channel.clone();
        let lookup = client.channel.client_streaming(request, path, codec);
        // The server receives the calls of a connection in order. When it responds to the check, it has received the
        // lookup's headers.
        let check = async {
            checks.ready().await.unwrap();
            let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
            let request = Request::new(HealthCheckRequest::default());
            checks.unary(request, PathAndQuery::from_static(CHECK), codec).await.unwrap();
            begun();
        };
        let (answer, ()) = tokio::join!(lookup, check);
        Ok(answer?.into_inner())
    })
}

#[test]
fn stop_finishes_calls_but_not_watches() {
    let mut fixture = Setup::golden().config(GRPC).start();
    let address = fixture.grpc_address();
    let mut watcher = Client::to(address);
    let mut watched = watcher.runtime.block_on(async {
        watcher.channel.ready().await.unwrap();
        let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        let request = Request::new(HealthCheckRequest::default());
        let path = PathAndQuery::from_static(WATCH);
        watcher.channel.server_streaming(request, path, codec).await.unwrap().into_inner()
    });
    let (sender, messages) = mpsc::channel(1);
    let (begun, has_begun) = std::sync::mpsc::channel();
    let underway = thread::spawn(move || begin(&mut Client::to(address), messages, || begun.send(()).unwrap()));
    has_begun.recv().unwrap();
    let started = Instant::now();
    let stopping = thread::spawn(move || fixture.stop());
    let last = watcher.runtime.block_on(async {
        let mut last = None;
        while let Some(Ok(answer)) = watched.next().await {
            last = Some(answer.status());
        }
        last
    });
    assert_eq!(last, Some(ServingStatus::NotServing));
    // The server closes connections without calls, and keeps other connections. The test can only wait for some time to
    // see that a connection is kept.
    thread::sleep(Duration::from_millis(300));
    assert!(!stopping.is_finished(), "a call is in progress");
    sender.blocking_send(conv_rate(int(1001))).unwrap();
    drop(sender);
    assert_eq!(value(&underway.join().unwrap().unwrap(), "conv_rate"), Some(Kind::Double(0.6001)));
    stopping.join().unwrap();
    assert!(started.elapsed() < Duration::from_secs(15), "the stop took as long as the drain timeout");
}

#[test]
fn tokens_are_required_except_for_health() {
    let auth = "server: {auth: {tokens: [{name: ops, file: ops.token}, {name: narrow, file: narrow.token, services: \
                [fs_basic]}]}}\n";
    let setup = Setup::golden().config(&format!("{auth}{GRPC}"));
    for (file, token) in [("ops.token", TOKEN), ("narrow.token", NARROW)] {
        fs::write(setup.path(file), token).unwrap();
        fs::set_permissions(setup.path(file), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let fixture = setup.start();
    let features = conv_rate(int(1001));
    let service = |name: &str| GetOnlineFeaturesRequest {
        kind: Some(Asked::FeatureService(name.to_owned())),
        entities: columns(&[("driver_id", &[int(1001)]), ("customer_id", &[text("CUST_000123")])]),
        ..Default::default()
    };
    let row = || PushRequest {
        stream_feature_view: "customer_push".to_owned(),
        to: "online".to_owned(),
        features: [("customer_id".to_owned(), "A".to_owned())].into(),
        ..Default::default()
    };

    let mut anonymous = Client::of(&fixture);
    eventually("healthy", || anonymous.health("").unwrap() == ServingStatus::Serving);
    for path in [LOOKUPS[0], LOOKUPS[1], PUSH, WRITE] {
        assert_refused(anonymous.raw(path, &[0xff; 100]), Code::Unauthenticated, "A bearer token is required.");
    }
    let mut wrong = Client::of(&fixture).with("wrong-token-0123456789abcdef");
    assert_refused(wrong.look_up(&features), Code::Unauthenticated, "not valid");

    let mut ops = Client::of(&fixture).with(TOKEN);
    assert!(ops.look_up(&features).is_ok() && ops.look_up(&service("fs_basic")).is_ok());
    let pushed: Result<PushResponse, _> = ops.call(PUSH, row());
    assert_refused(pushed, Code::InvalidArgument, "column");

    let mut narrow = Client::of(&fixture).with(NARROW);
    assert!(narrow.look_up(&service("fs_basic")).is_ok());
    assert_refused(narrow.look_up(&service("fs_other")), Code::PermissionDenied, "'fs_other'");
    assert_refused(narrow.look_up(&features), Code::PermissionDenied, "fs_basic");
    // Suggestions for a mistyped name do not include names that the token may not use.
    for wrong in [service("fs_alia"), asks(&["driver_stat:conv_rate"], &[("driver_id", &[int(1001)])])] {
        let status = narrow.look_up(&wrong).unwrap_err();
        let hidden = ["fs_alias", "driver_stats"].iter().any(|name| status.message().contains(name));
        assert!(status.code() == Code::PermissionDenied && !hidden, "{status:?}");
    }
    let pushed: Result<PushResponse, _> = narrow.call(PUSH, row());
    assert_refused(pushed, Code::PermissionDenied, "not writes");
}

#[test]
fn command_line_opens_grpc_port() {
    let home = Home::golden_loaded();
    let mut host = home.start(["serve", "--grpc", "127.0.0.1:0"]);
    let line = host.until("serving listen=");
    let address = line.split("grpc=").nth(1).unwrap().split(' ').next().unwrap();
    let mut client = Client::to(address.trim_matches('"').parse().unwrap());
    assert_eq!(value(&client.look_up(&conv_rate(int(1001))).unwrap(), "conv_rate"), Some(Kind::Double(0.6001)));
    host.stop(Signal::TERM);
    home.run(["serve", "--grpc", "0.0.0.0:0"]).assert_code(3).assert_complains(&["--grpc: error", "insecure: true"]);
}
