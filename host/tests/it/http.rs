//! The HTTP API: Feast's recorded responses, and Larder's own endpoints.

use serde_json::{Value, json};

use crate::{
    fixture::{Fixture, Setup},
    golden::{Case, compare, writes},
    guests::FEAST_ODFV,
    wire,
};

pub(crate) fn send(fixture: &Fixture, case: &Case) -> wire::Answer {
    send_with(fixture, case, &[])
}

fn send_with(fixture: &Fixture, case: &Case, more: &[(&str, &str)]) -> wire::Answer {
    let content_type = case.content_type.as_deref().map(|content_type| ("content-type", content_type));
    let headers: Vec<_> = content_type.into_iter().collect();
    wire::send(fixture.address(), &case.method, &case.path, &[&headers[..], more].concat(), &case.body)
}

/// Sends all recorded requests in order, including writes.
#[track_caller]
pub(crate) fn assert_all_recorded(fixture: &Fixture) {
    let cases = Case::load_all();
    let held = cases.iter().map(|case| {
        let answer = send(fixture, case);
        compare(case, answer.status, &answer.body)
    });
    let wrong: Vec<String> = held.filter_map(Result::err).collect();
    assert_eq!((cases.len(), wrong), (61, Vec::new()));
}

#[test]
fn recorded_answers_equal_feast() {
    let fixture = Setup::golden().plugins(&FEAST_ODFV).start();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for case in Case::load_all().into_iter().filter(|case| !writes(case.number)) {
        // The first request reads from the store, and the second one from the hot cache and the plan cache. If the
        // case is a lookup, both are on the fast path. The third one is handled by hyper.
        for headers in [&[][..], &[], &[("connection", "close")]] {
            let answer = send_with(&fixture, &case, headers);
            if let Err(why) = compare(&case, answer.status, &answer.body) {
                wrong.push(format!("{:02} {}: {why}", case.number, case.name));
            }
        }
        seen += 1;
    }
    assert_eq!(seen, 52);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn wrong_method_is_rejected_slash_redirected() {
    let fixture = Setup::golden().start();
    assert_eq!(fixture.get("/get-online-features").headers["allow"], "POST");
    let answer = fixture.post("/get-online-features/", b"{}");
    assert_eq!(answer.status, 307);
    assert_eq!(answer.headers["location"], "http://larder/get-online-features");
}

#[test]
fn head_equals_get_without_body() {
    let fixture = Setup::golden().start();
    for path in ["/health", "/ready", "/v1/catalog"] {
        let (get, head) = (fixture.get(path), wire::send(fixture.address(), "HEAD", path, &[], b""));
        assert_eq!(head.status, get.status, "{path}");
        assert!(head.body.is_empty(), "{path}: {}", head.text());
        // If the response to a GET request has no body, it does not have these headers.
        for name in ["content-length", "content-type"].iter().filter(|_| !get.body.is_empty()) {
            assert_eq!(head.headers.get(*name), get.headers.get(*name), "{path}");
        }
    }
    assert_eq!(wire::send(fixture.address(), "HEAD", "/get-online-features", &[], b"").status, 405);
    assert_eq!(wire::send(fixture.address(), "HEAD", "/health/", &[], b"").status, 307);
    assert_eq!(fixture.post("/health", b"").headers["allow"], "GET, HEAD");
}

#[test]
fn columns_come_in_the_requested_order() {
    let fixture = Setup::golden().start();
    let body = br#"{"features":["driver_stats:conv_rate","customer_stats:segment","driver_stats:avg_daily_trips",
        "customer_stats:balance"],"entities":{"driver_id":[1001],"customer_id":["CUST_000123"]}}"#;
    let answer = fixture.post("/get-online-features", body);
    let names = answer.json()["metadata"]["feature_names"].clone();
    assert_eq!(names, json!(["driver_id", "customer_id", "conv_rate", "segment", "avg_daily_trips", "balance"]));
}

#[test]
fn ttl_is_checked_at_each_request() {
    let fixture = Setup::golden().start();
    let ask = || {
        fixture.features(&["customer_stats:txn_count"], json!({ "customer_id": ["CUST_000123"] })).column("txn_count")
    };
    assert_eq!(ask()["statuses"], json!(["PRESENT"]));
    let day = 86_400_000_000;
    fixture.clock.set(crate::fixture::RECORDED_AT + 2 * day);
    let expired = ask();
    assert_eq!(expired["statuses"], json!(["OUTSIDE_MAX_AGE"]));
    assert_eq!(expired["values"], json!([9_007_199_254_740_993_i64]), "the value stays");
}

#[test]
fn ttl_policy_withholds_or_ignores_age() {
    for (policy, value, status) in [("null", Value::Null, "OUTSIDE_MAX_AGE"), ("ignore", json!(11), "PRESENT")] {
        let fixture = Setup::golden().config(&format!("serving: {{ttl: {policy}}}\n")).start();
        let column = fixture
            .features(&["expired_stats:stale_value"], json!({ "customer_id": ["CUST_000123"] }))
            .column("stale_value");
        assert_eq!(column["values"], json!([value]), "{policy}");
        assert_eq!(column["statuses"], json!([status]), "{policy}");
    }
}

#[test]
fn answers_are_the_same_without_the_hot_cache() {
    let fixture = Setup::golden().plugins(&FEAST_ODFV).hot_bytes(0).start();
    for case in Case::load_all().into_iter().filter(|case| !writes(case.number)) {
        let answer = send(&fixture, &case);
        assert_eq!(compare(&case, answer.status, &answer.body), Ok(()), "{}", case.name);
    }
}

#[test]
fn incomplete_composite_key_finds_nothing() {
    let fixture = Setup::golden().start();
    let column = fixture.features(&["pair_stats:rides"], json!({ "driver_id": [1001] })).column("rides");
    assert_eq!(column["statuses"], json!(["NOT_FOUND"]));
}

#[test]
fn entity_name_works_as_join_key() {
    let fixture = Setup::golden().start();
    let answer = fixture.features(&["driver_stats:conv_rate"], json!({ "driver": [1001] }));
    assert_eq!(answer.column("driver_id")["values"], json!([1001]));
    assert_eq!(answer.column("conv_rate")["statuses"], json!(["PRESENT"]));
}

#[test]
fn aliases_read_one_view_twice() {
    let fixture = Setup::golden().start();
    let body = json!({
        "feature_service": "fs_alias", "full_feature_names": true,
        "entities": { "origin_driver_id": [1001], "dest_driver_id": [9999] },
    });
    let answer = fixture.post("/get-online-features", body.to_string().as_bytes());
    assert_eq!(answer.column("origin__conv_rate")["statuses"], json!(["PRESENT"]));
    assert_eq!(answer.column("dest__conv_rate")["statuses"], json!(["NOT_FOUND"]));
}

#[test]
fn catalog_lists_views_and_freshness() {
    let fixture = Setup::golden().start();
    let catalog = fixture.get("/v1/catalog").json();
    assert_eq!(catalog["project"], "churn_prediction");
    let views = catalog["feature_views"].as_array().unwrap();
    let customer = views.iter().find(|view| view["name"] == "customer_stats").unwrap();
    assert_eq!(customer["rows"], 3);
    assert_eq!(customer["loaded"], true);
    assert_eq!(customer["ttl_seconds"], 86_400);
    assert_eq!(customer["last_success_age_seconds"], 0);
    assert!(
        customer["features"]
            .as_array()
            .unwrap()
            .iter()
            .any(|f| f["name"] == "embedding" && f["type"] == "Array(Float32)")
    );
}
