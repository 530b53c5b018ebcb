//! Writes over gRPC. A write is either rejected with a message, or its rows are served as soon as it is acknowledged.

use std::collections::BTreeMap;

use larder_grpc::proto::{PushRequest, PushResponse, WriteToOnlineStoreRequest, WriteToOnlineStoreResponse};
use larder_model::model::{FeastValue, Kind};
use tonic::Code;

use super::{GRPC, PUSH, WRITE, asks, assert_refused, by_name, double, int, text, value};
use crate::{
    fixture::{Setup, replace},
    grpc_client::Client,
};

/// A view that only callers write, and a push source for this view and a second one.
const SHOP: &str = "
entities: [{name: customer, join_key: customer_id, type: String}]
feature_views:
  - name: cart
    entities: [customer]
    push_source: clicks
    features: [{name: items, type: Int64}, {name: total, type: Float64}]
  - name: visits
    entities: [customer]
    push_source: clicks
    features: [{name: items, type: Int64}]
";

fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn acknowledged_writes_are_served() {
    let fixture = Setup::with(SHOP).config(GRPC).start();
    let mut client = Client::of(&fixture);
    let push = |features, typed_features| PushRequest {
        features,
        typed_features,
        stream_feature_view: "clicks".to_owned(),
        to: "online".to_owned(),
        allow_registry_cache: true,
    };
    let row = |at: &str, items: &str| {
        texts(&[("customer_id", "A"), ("event_timestamp", at), ("items", items), ("total", "1.5")])
    };
    let pushed: PushResponse = client.call(PUSH, push(row("2026-11-23T00:00:00Z", "3"), BTreeMap::new())).unwrap();
    assert!(pushed.status);
    let ask = asks(&["cart:items", "cart:total"], &[("customer_id", &[text("A")])]);
    let answer = client.look_up(&ask).unwrap();
    assert_eq!((value(&answer, "items"), value(&answer, "total")), (Some(Kind::Int64(3)), Some(Kind::Double(1.5))));
    let visits = asks(&["visits:items"], &[("customer_id", &[text("A")])]);
    assert_eq!(value(&client.look_up(&visits).unwrap(), "items"), Some(Kind::Int64(3)));

    let seconds = FeastValue { kind: Some(Kind::UnixTimestamp(1_795_425_000)) };
    let typed: BTreeMap<String, FeastValue> =
        [("customer_id", text("A")), ("event_timestamp", seconds), ("items", int(4)), ("total", double(2.5))]
            .map(|(name, value)| (name.to_owned(), value))
            .into();
    let write = |features, typed_features, view: &str| WriteToOnlineStoreRequest {
        features,
        typed_features,
        feature_view_name: view.to_owned(),
        allow_registry_cache: false,
    };
    let written: WriteToOnlineStoreResponse =
        client.call(WRITE, write(BTreeMap::new(), typed.clone(), "cart")).unwrap();
    assert!(written.status);
    let answer = client.look_up(&ask).unwrap();
    assert_eq!((value(&answer, "items"), value(&answer, "total")), (Some(Kind::Int64(4)), Some(Kind::Double(2.5))));
    assert_eq!(by_name(&answer)["items"].event_timestamps[0].seconds, 1_795_425_000);
    assert_eq!(value(&client.look_up(&visits).unwrap(), "items"), Some(Kind::Int64(3)), "the row was not written");

    let text_row = || row("2026-11-23T00:00:00Z", "3");
    let mut push_refused = |request: PushRequest, code, words| {
        assert_refused(client.call::<_, PushResponse>(PUSH, request), code, words);
    };
    for to in ["offline", "online_and_offline", "", "nowhere"] {
        let request = PushRequest { to: to.to_owned(), ..push(text_row(), BTreeMap::new()) };
        push_refused(request, Code::InvalidArgument, "push to 'online'");
    }
    let future = PushRequest { features: row("2027-01-01T00:00:00Z", "3"), ..push(text_row(), BTreeMap::new()) };
    push_refused(future, Code::InvalidArgument, "later than now plus 'sync: future_tolerance' (1h)");
    let nobody = PushRequest { stream_feature_view: "nobody".to_owned(), ..push(text_row(), BTreeMap::new()) };
    push_refused(nobody, Code::NotFound, "nobody");
    push_refused(push(BTreeMap::new(), BTreeMap::new()), Code::InvalidArgument, "missing");
    push_refused(push(text_row(), typed), Code::InvalidArgument, "only one");
    push_refused(push(texts(&[("customer_id", "A")]), BTreeMap::new()), Code::InvalidArgument, "event_timestamp");
    push_refused(push(row("yesterday", "3"), BTreeMap::new()), Code::InvalidArgument, "yesterday");
    push_refused(push(row("2026-11-23T00:00:00Z", "3.5"), BTreeMap::new()), Code::InvalidArgument, "items");
    let unknown: Result<WriteToOnlineStoreResponse, _> = client.call(WRITE, write(text_row(), BTreeMap::new(), "nope"));
    assert_refused(unknown, Code::NotFound, "nope");
}

#[test]
fn uncached_write_accepts_new_view() {
    let fixture = Setup::with(SHOP).config(&format!("reload: {{every: 1h}}\n{GRPC}")).start();
    let mut client = Client::of(&fixture);
    let mut write = |view: &str, allow_registry_cache| {
        let features = texts(&[("customer_id", "A"), ("event_timestamp", "2025-11-23T00:00:00Z"), ("stars", "3")]);
        let feature_view_name = view.to_owned();
        let request =
            WriteToOnlineStoreRequest { features, feature_view_name, allow_registry_cache, ..Default::default() };
        client.call::<_, WriteToOnlineStoreResponse>(WRITE, request)
    };
    // Shortly after the start, the file watcher may find a new view before the first write to it. The test then tries
    // another view.
    let mut views = (0..10).map(|n| format!("stars_{n}"));
    let (view, cached) = loop {
        let view = views.next().expect("a view that the server does not know yet");
        let more = format!(
            "feature_views: [{{name: {view}, entities: [customer], features: [{{name: stars, type: Int64}}]}}]\n"
        );
        replace(fixture.path("features/more.yaml"), more);
        let cached = write(&view, true);
        if cached.is_err() {
            break (view, cached);
        }
    };
    assert_refused(cached, Code::NotFound, &view);
    assert!(write(&view, false).unwrap().status);
    let ask = asks(&[&format!("{view}:stars")], &[("customer_id", &[text("A")])]);
    assert_eq!(value(&client.look_up(&ask).unwrap(), "stars"), Some(Kind::Int64(3)));
}

#[test]
fn server_without_writes_rejects_writes() {
    let fixture = Setup::with(SHOP).config(&format!("server: {{writes: false}}\n{GRPC}")).start();
    let features = texts(&[("customer_id", "A"), ("event_timestamp", "2026-11-23"), ("items", "3")]);
    let request = WriteToOnlineStoreRequest { features, feature_view_name: "visits".to_owned(), ..Default::default() };
    let written: Result<WriteToOnlineStoreResponse, _> = Client::of(&fixture).call(WRITE, request);
    assert_refused(written, Code::PermissionDenied, "server: writes");
}
