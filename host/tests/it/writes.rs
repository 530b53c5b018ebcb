//! Rows that callers write. They are durable, as in Feast, and independent of sources.

use std::{fs, thread, time::Duration};

use larder_http::SyncCommand;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    binary::Home,
    fixture::{Fixture, RECORDED_AT, Setup},
    golden::{Case, compare, writes},
    http::send,
    wire::{self, Answer},
};

mod materialize;

/// A view that only callers write, a view with files that each load replaces, and a push source for both views.
const SHOP: &str = "
entities: [{name: customer, join_key: customer_id, type: String}]
feature_views:
  - name: cart
    entities: [customer]
    push_source: clicks
    features: [{name: items, type: Int64}, {name: total, type: Float64}, {name: tags, type: Array(String)}]
  - name: visits
    entities: [customer]
    push_source: clicks
    features: [{name: items, type: Int64}]
";

fn cart(customers: &[&str], at: &str, items: &[i64]) -> Value {
    json!({
        "feature_view_name": "cart",
        "df": {
            "customer_id": customers,
            "event_timestamp": vec![at; customers.len()],
            "items": items,
            "total": vec![1.5; customers.len()],
            "tags": vec![json!(["a", null]); customers.len()],
        },
    })
}

fn write(fixture: &Fixture, body: &Value) -> Answer {
    fixture.post("/write-to-online-store", body.to_string().as_bytes())
}

fn value(fixture: &Fixture, feature: &str, keys: Value) -> Value {
    fixture.features(&[feature], keys).json()["results"][1]["values"][0].clone()
}

fn items(fixture: &Fixture, customer: &str) -> Value {
    value(fixture, "cart:items", json!({ "customer_id": [customer] }))
}

/// Tests the limit on concurrent writes, which HTTP and gRPC share.
#[test]
fn writes_beyond_their_number_are_refused() {
    const ROWS: usize = 3_000;
    let fixture = Setup::with(
        "
entities: [{name: k, type: Int64}]
feature_views:
  - {name: numbers, entities: [k], push_source: numbers, features: [{name: n, type: Int64}]}
",
    )
    .start();
    let push = |first: usize| {
        let df = json!({ "k": (first..first + ROWS).collect::<Vec<_>>(), "n": vec![first; ROWS],
                         "event_timestamp": vec!["2026-11-23T08:00:00Z"; ROWS] });
        fixture.post("/push", json!({ "push_source_name": "numbers", "df": df }).to_string().as_bytes())
    };
    let at_once = |callers: usize| {
        let push = &push;
        std::thread::scope(|scope| {
            let callers: Vec<_> =
                (0..callers).map(|caller| scope.spawn(move || (caller, push(caller * ROWS)))).collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).collect::<Vec<_>>()
        })
    };
    assert!(at_once(30).iter().all(|(_, answer)| answer.status == 200));
    let answers = at_once(150);
    let (written, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|(_, answer)| answer.status == 200);
    assert!(written.len() >= 32 && !refused.is_empty(), "{} written, {} refused", written.len(), refused.len());
    for (_, answer) in refused {
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.text().contains("too many writes are in progress"), "{}", answer.text());
    }
    for (caller, _) in written {
        let first = caller * ROWS;
        let answer = fixture.features(&["numbers:n"], json!({ "k": [first, first + ROWS - 1] }));
        assert_eq!(answer.column("n")["values"], json!([first, first]));
    }
}

#[test]
fn recorded_writes_equal_feast() {
    let fixture = Setup::golden().start();
    let mut wrong = Vec::new();
    let cases: Vec<Case> = Case::load_all().into_iter().filter(|case| writes(case.number)).collect();
    assert_eq!(cases.len(), 9);
    for case in cases {
        let answer = send(&fixture, &case);
        if let Err(why) = compare(&case, answer.status, &answer.body) {
            wrong.push(format!("{:02} {}: {why}", case.number, case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A view with a string key, and a view with two keys.
const TEXT_KEYS: &str = "
entities: [{name: t, type: String}, {name: k, type: Int64}]
feature_views:
  - name: texts
    entities: [t]
    push_source: texts
    features: [{name: n, type: Int64}, {name: s, type: String}, {name: d, type: Decimal}, {name: at, type: UnixTimestamp}]
  - name: pairs
    entities: [t, k]
    push_source: pairs
    features: [{name: n, type: Int64}]
";

#[test]
fn large_integers_keep_their_digits() {
    let fixture = Setup::with(TEXT_KEYS).start();
    let body = br#"{"push_source_name": "texts", "df": {"event_timestamp": ["2026-11-23", "2026-11-23"], "at": [null, 5],
        "t": [18446744073709551615, 1e16], "n": [7, 8], "s": [18446744073709551617, 1e-5], "d": [12345678901234567890, 1]}}"#;
    assert_eq!(fixture.post("/push", body).status, 200);
    let body = br#"{"features": ["texts:n", "texts:s", "texts:d", "texts:at"], "entities":
        {"t": [18446744073709551615, "18446744073709551615", 18446744073709551617, 18446744073709551615.0, 1e16]}}"#;
    let answer = fixture.post("/get-online-features", body);
    let large = "18446744073709551615";
    let keys = [large, large, "18446744073709551617", "1.8446744073709552e+19", "1e+16"];
    assert_eq!(answer.column("t")["values"], json!(keys));
    assert_eq!(answer.column("n")["values"], json!([7, 7, null, null, 8]));
    assert_eq!(
        answer.column("s")["values"],
        json!(["18446744073709551617", "18446744073709551617", null, null, "1e-05"])
    );
    assert_eq!(answer.column("d")["values"][0], "12345678901234567890");
    // A null that is pushed for a timestamp is returned as null.
    assert_eq!(answer.column("at")["values"], json!([null, null, null, null, 5]));
}

#[test]
fn null_key_finds_no_row() {
    let fixture = Setup::with(TEXT_KEYS).start();
    let body = br#"{"push_source_name": "pairs", "df":
        {"event_timestamp": ["2026-11-23", "2026-11-23"], "t": ["a", "b"], "k": [1, 2], "n": [10, 20]}}"#;
    assert_eq!(fixture.post("/push", body).status, 200);
    let entities = json!({ "t": ["a", null, "b", "b", null], "k": [1, 1, null, 2, null] });
    let answer = fixture.features(&["pairs:n"], entities.clone());
    assert_eq!(answer.status, 200);
    assert_eq!(answer.column("n")["values"], json!([10, null, null, 20, null]));
    let statuses = json!(["PRESENT", "NOT_FOUND", "NOT_FOUND", "PRESENT", "NOT_FOUND"]);
    assert_eq!(answer.column("n")["statuses"], statuses);
    assert_eq!(answer.column("t")["values"], entities["t"]);
    assert_eq!(answer.column("k")["values"], entities["k"]);
    crate::arrow::assert_same(&fixture, &json!({ "features": ["pairs:n"], "entities": entities }));
}

#[test]
fn fraction_is_no_integer_key() {
    let fixture = Setup::with(TEXT_KEYS).start();
    let answer = fixture.features(&["pairs:n"], json!({ "t": ["a"], "k": [5.5] }));
    let words = json!("invalid literal for int() with base 10: '5.5'");
    assert_eq!((answer.status, answer.json()), (400, words));
    let body = br#"{"push_source_name": "pairs", "df": {"event_timestamp": ["2026-11-23"], "t": ["a"], "k": [5.5], "n": [1]}}"#;
    let answer = fixture.post("/push", body);
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("column 'k', row 0: 5.5 is not Int64"), "{}", answer.text());
}

#[test]
fn a_write_outlasts_a_restart() {
    let fixture = Setup::with(SHOP).start();
    assert_eq!(write(&fixture, &cart(&["A"], "2026-11-23T00:00:00", &[3])).status, 200);
    assert_eq!(items(&fixture, "A"), 3);
    let fixture = fixture.restart();
    assert_eq!(items(&fixture, "A"), 3);
    let answer = fixture.features(&["cart:total", "cart:tags"], json!({ "customer_id": ["A"] })).json();
    assert_eq!(answer["results"][1]["values"], json!([1.5]));
    assert_eq!(answer["results"][2]["values"], json!([["a", ""]]), "a null in a list becomes its type's default");
}

#[test]
fn newer_event_wins_over_later_write() {
    let fixture = Setup::with(SHOP).start();
    write(&fixture, &cart(&["A"], "2026-11-23T08:00:00Z", &[1]));
    write(&fixture, &cart(&["A"], "2026-11-23T07:00:00Z", &[2]));
    assert_eq!(items(&fixture, "A"), 1);
    write(&fixture, &cart(&["A"], "2026-11-23 11:00:00+02:00", &[3]));
    assert_eq!(items(&fixture, "A"), 3);
    // The same is true for two rows with one key in a single request.
    write(&fixture, &cart(&["B", "B"], "2026-11-23T08:00:00Z", &[1, 2]));
    assert_eq!(items(&fixture, "B"), 2);
}

#[test]
fn push_feeds_all_views_or_none() {
    let fixture = Setup::with(SHOP).start();
    let push =
        |df: Value| fixture.post("/push", json!({ "push_source_name": "clicks", "df": df }).to_string().as_bytes());
    let mut df = cart(&["A"], "2026-11-23T00:00:00", &[3])["df"].clone();
    let answer = push(df.clone());
    assert_eq!((answer.status, answer.body.len()), (200, 0), "{}", answer.text());
    assert_eq!(value(&fixture, "visits:items", json!({ "customer_id": ["A"] })), 3);
    assert_eq!(items(&fixture, "A"), 3);

    // The first view could accept the rows, but they lack columns of the second view.
    df["items"] = json!([4]);
    df["event_timestamp"] = json!(["2026-11-24T00:00:00"]);
    df.as_object_mut().unwrap().remove("total");
    let answer = push(df);
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("feature view 'cart' needs column 'total'"), "{}", answer.text());
    assert_eq!(value(&fixture, "visits:items", json!({ "customer_id": ["A"] })), 3, "no row was written");
}

#[test]
fn bad_write_writes_nothing() {
    let fixture = Setup::with(SHOP).start();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = cart(&["A", "B"], "2026-11-23T00:00:00", &[1, 2]);
        change(&mut body);
        body
    };
    let refused = |body: Value, status: u16, words: &str| {
        let answer = write(&fixture, &body);
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        assert!(answer.text().contains(words), "{body}: {}", answer.text());
        assert_eq!(items(&fixture, "A"), Value::Null, "{body}");
    };
    let missing = |column: &'static str| {
        move |body: &mut Value| {
            body["df"].as_object_mut().unwrap().remove(column);
        }
    };
    refused(
        with(&|body| body["feature_view_name"] = json!("nope")),
        404,
        "Can't recognize feast object with a name nope",
    );
    refused(with(&|body| body["feature_view_name"] = json!(7)), 422, "string_type");
    refused(json!({}), 422, "feature_view_name");
    refused(json!({ "feature_view_name": "cart" }), 422, "df");
    refused(json!({ "feature_view_name": "cart", "df": [] }), 422, "dict_type");
    refused(with(&|body| body["df"]["items"] = json!(1)), 422, "list_type");
    refused(with(&missing("items")), 400, "needs column 'items'");
    refused(with(&missing("customer_id")), 400, "needs column 'customer_id'");
    refused(with(&missing("event_timestamp")), 400, "needs column 'event_timestamp'");
    refused(with(&|body| body["df"]["items"] = json!([1])), 400, "has 1 values");
    refused(with(&|body| body["df"]["items"] = json!([1, "many"])), 400, "column 'items', row 1: 'many' is not Int64");
    let too_large = json!([1, 18_446_744_073_709_551_615_u64]);
    let words = "column 'items', row 1: 18446744073709551615 is not Int64";
    refused(with(&|body| body["df"]["items"] = too_large.clone()), 400, words);
    refused(
        with(&|body| body["df"]["tags"] = json!([["a"], "b"])),
        400,
        "column 'tags', row 1: 'b' is not Array(String)",
    );
    refused(with(&|body| body["df"]["customer_id"] = json!(["A", null])), 400, "row 1: the key is null");
    refused(
        with(&|body| body["df"]["event_timestamp"] = json!(["2026-11-23", null])),
        400,
        "row 1: the event time is null",
    );
    refused(
        with(&|body| body["df"]["event_timestamp"] = json!(["2026-11-23", "soon"])),
        400,
        "row 1: 'soon' is not a time",
    );
    refused(with(&|body| body["df"]["event_timestamp"] = json!(["2026-11-23", 5])), 400, "row 1: 5 is not a time");
    for (body, words) in [(&b"{"[..], "json_invalid"), (b"", "Field required"), (b"[]", "model_attributes_type")] {
        let answer = fixture.post("/write-to-online-store", body);
        assert_eq!(answer.status, 422);
        assert!(answer.text().contains(words), "{}", answer.text());
    }
}

#[test]
fn write_from_the_future_is_refused() {
    let fixture = Setup::with(SHOP).config("sync: {future_tolerance: 10m}\n").start();
    let at = |time: &str| write(&fixture, &cart(&["A"], time, &[3]));
    let refused = |answer: Answer| {
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(
            answer.text().contains(
                "row 0: the event time 2026-11-23T09:23:10.000001Z is later than now plus \
                                    'sync: future_tolerance' (10m)"
            ),
            "{}",
            answer.text()
        );
    };
    refused(at("2026-11-23T09:23:10.000001Z"));
    let pushed = json!({ "push_source_name": "clicks", "df": cart(&["A"], "2026-11-23T09:23:10.000001Z", &[3])["df"] });
    refused(fixture.post("/push", pushed.to_string().as_bytes()));
    assert_eq!(items(&fixture, "A"), Value::Null, "neither of the views that the push source feeds");
    assert_eq!(at("2026-11-23T09:23:10Z").status, 200);
    // After this time, rows with a later event time are accepted again.
    fixture.clock.set(RECORDED_AT + 600_000_001);
    assert_eq!(write(&fixture, &cart(&["A"], "2026-11-23T09:23:10.000001Z", &[4])).status, 200);
    assert_eq!(items(&fixture, "A"), 4);
}

#[test]
fn write_with_the_later_nanosecond_wins() {
    let fixture = Setup::with(SHOP).start();
    for (time, count) in [("09:00:00.000000002", 2), ("09:00:00.000000001", 1)] {
        write(&fixture, &cart(&["A"], &format!("2026-11-23T{time}Z"), &[count]));
    }
    assert_eq!(items(&fixture, "A"), 2);
}

#[test]
fn push_only_accepts_online_store() {
    let fixture = Setup::with(SHOP).start();
    for (to, words) in
        [("offline", "has no offline store"), ("online_and_offline", "has no offline store"), ("x", "x is not")]
    {
        let body = json!({ "push_source_name": "clicks", "df": cart(&["A"], "2026-11-23", &[3])["df"], "to": to });
        let answer = fixture.post("/push", body.to_string().as_bytes());
        assert_eq!(answer.status, 400, "{to}");
        assert!(answer.text().contains(words), "{}", answer.text());
    }
    assert_eq!(items(&fixture, "A"), Value::Null);
}

#[test]
fn empty_table_and_nan_write_nothing() {
    let fixture = Setup::with(SHOP).start();
    assert_eq!(write(&fixture, &json!({ "feature_view_name": "cart", "df": {} })).status, 200);
    let empty = json!({ "feature_view_name": "cart", "df": { "customer_id": [], "items": [] } });
    assert_eq!(write(&fixture, &empty).status, 200);
    let body = br#"{"feature_view_name": "cart", "df": {"customer_id": ["A"], "event_timestamp": ["2026-11-23"],
        "items": [NaN], "total": [Infinity], "tags": [[]]}}"#;
    assert_eq!(fixture.post("/write-to-online-store", body).status, 200);
    let answer = fixture.features(&["cart:items", "cart:total"], json!({ "customer_id": ["A"] })).json();
    assert_eq!(answer["results"][1]["values"], json!([null]));
    assert_eq!(answer["results"][2]["values"], json!(["Infinity"]));
}

#[test]
fn server_without_writes_reports_it() {
    let fixture = Setup::with(SHOP).config("server: {writes: false}\n").start();
    for path in ["/push", "/write-to-online-store", "/materialize", "/materialize-incremental"] {
        let answer = fixture.post(path, b"{}");
        assert_eq!(answer.status, 403, "{path}");
        assert!(answer.text().contains("does not accept writes"), "{}", answer.text());
        assert_eq!(fixture.get(path).headers["allow"], "POST", "{path}");
    }
}

/// Starts a server with the golden repository. Each load of `driver_stats` replaces its rows.
fn replaced() -> Fixture {
    let setup = Setup::golden();
    let path = setup.path("features/feast_repo.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let replaced = text.replace("  - name: driver_stats\n", "  - name: driver_stats\n    mode: replace\n");
    assert_ne!(text, replaced);
    fs::write(&path, replaced).unwrap();
    setup.start()
}

fn driver(fixture: &Fixture, driver: i64, at: &str, trips: i64) {
    let df = json!({ "driver_id": [driver], "event_timestamp": [at], "conv_rate": [0.5], "avg_daily_trips": [trips] });
    let answer = write(fixture, &json!({ "feature_view_name": "driver_stats", "df": df }));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn trips(fixture: &Fixture, driver: i64) -> Value {
    value(fixture, "driver_stats:avg_daily_trips", json!({ "driver_id": [driver] }))
}

fn reload(fixture: &Fixture) {
    let command = SyncCommand { views: vec!["driver_stats".to_owned()], full: true, ..SyncCommand::default() };
    fixture.sync(&command).unwrap();
}

#[test]
fn written_row_survives_replacing_load() {
    let fixture = replaced();
    // A driver that the files do not have, a row that is newer than the files' row, and a row that is older.
    driver(&fixture, 2001, "2026-11-23T00:00:00Z", 7);
    driver(&fixture, 1001, "2026-11-23T10:00:00Z", 8);
    driver(&fixture, 1002, "2020-01-01T00:00:00Z", 9);
    let seen = |fixture: &Fixture| [2001, 1001, 1002].map(|driver| trips(fixture, driver));
    let of_files = trips(&fixture, 1002);
    assert_ne!(of_files, 9);
    let expected = [json!(7), json!(8), of_files];
    assert_eq!(seen(&fixture), expected);
    reload(&fixture);
    assert_eq!(seen(&fixture), expected);
    let fixture = fixture.restart();
    reload(&fixture);
    reload(&fixture);
    assert_eq!(seen(&fixture), expected);
}

#[test]
fn acknowledged_write_survives_kill() {
    let home = Home::with(SHOP);
    let mut answered = 0;
    let mut waits = [3, 11, 27, 58].into_iter();
    for round in 0..5 {
        let (host, address) = home.serve();
        let ask = json!({ "features": ["cart:items"], "entities": { "customer_id": ["A"] } }).to_string();
        let found = wire::send(address, "POST", "/get-online-features", &[], ask.as_bytes()).json();
        let found = found["results"][1]["values"][0].as_i64().unwrap_or(0);
        // The write that was in progress during the kill may also be stored.
        assert!((answered..=answered + 1).contains(&found), "round {round}: {found} after {answered} were answered");
        let Some(wait) = waits.next() else { break };
        let killer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(wait));
            host.signal(Signal::KILL);
            host
        });
        answered = found;
        let mut stream = wire::connect(address);
        for next in found + 1.. {
            let at = format!("2026-11-23T00:00:00.{next:06}Z");
            let body = cart(&["A"], &at, &[next]).to_string();
            let Some(answer) = wire::ask(&mut stream, "POST", "/write-to-online-store", &[], body.as_bytes()) else {
                break;
            };
            assert_eq!(answer.status, 200, "{}", answer.text());
            answered = next;
        }
        assert_eq!(killer.join().unwrap().end().0, None, "a signal ended it");
    }
    assert!(answered > 0, "some writes came before a kill");
}
