//! Layouts of items: Feast's layout, and a layout with an item for each feature. Also tests invalid items.

use std::fs;

use super::*;

/// Returns Feast's table that was recorded with the golden repository's data.
fn recorded() -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/dynamodb/tables.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn feast_items_give_feast_responses() {
    let dynamo = FakeDynamo::start();
    for (name, table) in recorded().as_object().unwrap() {
        dynamo.create_table(name, &[("entity_id", "S")], Some("NEW_IMAGE"));
        table["Items"].as_array().unwrap().iter().for_each(|item| dynamo.put(name, item.clone()));
    }
    let golden = Setup::golden().config(&config(&dynamo.url()));
    // The definitions of the golden repository, except that each view's source is a table.
    let path = golden.path("features/feast_repo.yaml");
    let mut text = fs::read_to_string(&path).unwrap();
    let mut from_tables = 0;
    for name in recorded().as_object().unwrap().keys() {
        let view = name.split_once('.').unwrap().1;
        let Some(at) = text.find(&format!("    source:\n      path: data/{view}.parquet\n")) else { continue };
        let end = at + text[at..].find("    features:").unwrap();
        text.replace_range(at..end, &format!("    source: {{dynamodb: {name}}}\n"));
        from_tables += 1;
    }
    assert!(from_tables >= 3, "{from_tables} views read their tables");
    fs::write(&path, text).unwrap();
    let host = golden.start();
    let reference = Setup::golden().start();
    for (name, _) in recorded().as_object().unwrap() {
        let view = name.split_once('.').unwrap().1;
        let catalog: Value = serde_json::from_slice(&reference.get("/v1/catalog").body).unwrap();
        let views = catalog["feature_views"].as_array().unwrap();
        let Some(described) = views.iter().find(|described| described["name"] == view) else { continue };
        let keys: Vec<&str> =
            described["join_keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
        let features: Vec<String> = described["features"]
            .as_array()
            .unwrap()
            .iter()
            .map(|feature| format!("{view}:{}", feature["name"].as_str().unwrap()))
            .collect();
        let features: Vec<&str> = features.iter().map(String::as_str).collect();
        let entities = match keys.as_slice() {
            ["customer_id"] => json!({ "customer_id": ["CUST_000123", "CUST_000124", "CUST_000125", "CUST_MISSING"] }),
            ["driver_id"] => json!({ "driver_id": [1001, 1002, 9999] }),
            _ => continue,
        };
        let (ours, theirs) = (host.features(&features, entities.clone()), reference.features(&features, entities));
        assert_eq!(ours.status, 200, "{view}");
        // The table and the files were written in different runs, so event times differ by some minutes. The writer of
        // the table had also converted one integer to a double.
        let known = |answer: &Answer| {
            let mut answer = answer.json()["results"].clone();
            for column in answer.as_array_mut().unwrap() {
                column.as_object_mut().unwrap().remove("event_timestamps");
                for value in column["values"].as_array_mut().unwrap() {
                    if *value == json!(9_007_199_254_740_993_i64) {
                        *value = json!(9_007_199_254_740_992_i64);
                    }
                }
            }
            answer
        };
        assert_eq!(known(&ours), known(&theirs), "{view}");
    }
}

fn feature(driver: i64, name: &str, value: Value) -> Value {
    json!({
        "entity_id": { "N": driver.to_string() }, "feature_name": { "S": name }, "value": value,
        "updated": { "S": "2026-11-23T09:00:00Z" },
    })
}

#[test]
fn item_per_feature_makes_followed_rows() {
    let dynamo = FakeDynamo::start();
    dynamo.create_table(TABLE, &[("entity_id", "N"), ("feature_name", "S")], Some("NEW_IMAGE"));
    dynamo.page_items(3);
    for driver in 1..=50 {
        dynamo.put(TABLE, feature(driver, "trips", json!({ "N": driver.to_string() })));
        dynamo.put(TABLE, feature(driver, "rate", json!({ "N": "0.25" })));
        dynamo.put(TABLE, feature(driver, "of_another_view", json!({ "S": "x" })));
    }
    let more = ", layout: item-per-feature, timestamp_field: updated";
    let definitions = definitions("").replace(", layout: wide, timestamp_field: ts", more);
    let host = Setup::with(&definitions).config(&config(&dynamo.url())).start();
    let answer = host.features(&["driver_stats:trips", "driver_stats:rate"], json!({ "driver_id": [1, 50] }));
    assert_eq!(answer.column("trips")["values"], json!([1, 50]));
    assert_eq!(answer.column("rate")["values"], json!([0.25, 0.25]));
    dynamo.put(TABLE, feature(1, "rate", json!({ "N": "0.75" })));
    eventually("the change is served", || {
        let answer = host.features(&["driver_stats:trips", "driver_stats:rate"], json!({ "driver_id": [1] }));
        answer.column("rate")["values"] == json!([0.75]) && answer.column("trips")["values"] == json!([1])
    });
    for name in ["trips", "rate", "of_another_view"] {
        dynamo.delete(TABLE, &json!({ "entity_id": { "N": "2" }, "feature_name": { "S": name } }));
    }
    until(&host, 2, Value::Null);
}

#[test]
fn unreadable_attribute_costs_only_its_feature() {
    let dynamo = table(3);
    let mut wrong = item(9, 9);
    wrong["trips"] = json!({ "S": "many" });
    dynamo.put(TABLE, wrong);
    let host = setup(&dynamo.url(), "").start();
    assert_eq!(trips(&host, 3), json!(3));
    let answer = host.features(&["driver_stats:trips", "driver_stats:rate"], json!({ "driver_id": [9] }));
    assert_eq!(answer.column("trips")["values"], json!([null]));
    assert_eq!(answer.column("trips")["statuses"], json!(["PRESENT"]));
    assert_eq!(answer.column("rate")["values"], json!([0.5]));
    let reports = host.sync(&SyncCommand { full: true, ..SyncCommand::default() }).unwrap();
    let skipped = &reports[0].skipped;
    assert_eq!((skipped.rows(), &*skipped.values[0].feature), (0, "trips"));
    assert!(skipped.values[0].example.ends_with("'many' is not Int64"), "{:?}", skipped.values);
}

#[test]
fn bad_feast_item_costs_its_feature() {
    let dynamo = FakeDynamo::start();
    dynamo.create_table(TABLE, &[("entity_id", "S")], Some("NEW_IMAGE"));
    let id = |byte: &str| byte.repeat(16);
    let item = |id: &str, trips: Value| {
        let values = json!({ "trips": trips, "rate": { "B": "KQAAAAAAAOA/" } });
        json!({ "entity_id": { "S": id }, "event_ts": { "S": "2026-11-23 08:00:00+00:00" }, "values": { "M": values } })
    };
    // Bytes that are not a message, an attribute that is not binary, and text for a feature that is now a number.
    for (byte, trips) in [("01", json!({ "B": "/w==" })), ("02", json!({ "S": "7" })), ("03", json!({ "B": "EgFh" }))] {
        dynamo.put(TABLE, item(&id(byte), trips));
    }
    let definitions = definitions("").replace(", layout: wide, timestamp_field: ts", "");
    let host = Setup::with(&definitions).config(&config(&dynamo.url())).start();
    let reports = host.sync(&SyncCommand { full: true, ..SyncCommand::default() }).unwrap();
    let skipped = &reports[0].skipped;
    // The scan applies the rows, and the stream may apply them again.
    assert!(reports[0].applied.rows() >= 3, "{:?}", reports[0].applied);
    assert_eq!((skipped.rows(), skipped.values.len()), (0, 1), "{skipped:?}");
    assert_eq!(&*skipped.values[0].feature, "trips");
}

#[test]
fn event_time_units_or_item_skipped() {
    let dynamo = table(0);
    let second = RECORDED_AT / 1_000_000 - 60;
    let seconds = ["", "000", "000000", "000000000"].map(|zeros| format!("{second}{zeros}"));
    for (driver, time) in (1..).zip(&seconds) {
        let mut item = item(driver, driver);
        item["ts"] = json!({ "N": time });
        dynamo.put(TABLE, item);
    }
    let mut nobody_knows = item(9, 9);
    nobody_knows["ts"] = json!({ "N": format!("{second}0") });
    dynamo.put(TABLE, nobody_knows);
    let host = setup(&dynamo.url(), "").start();
    let answer = ask(&host, &[1, 2, 3, 4, 9]);
    let column = answer.column("trips");
    assert_eq!(column["values"], json!([1, 2, 3, 4, null]));
    assert_eq!(
        column["event_timestamps"],
        json!([
            "2026-11-23T09:12:10Z",
            "2026-11-23T09:12:10Z",
            "2026-11-23T09:12:10Z",
            "2026-11-23T09:12:10Z",
            "1970-01-01T00:00:00Z"
        ])
    );
    let reports = host.sync(&SyncCommand { full: true, ..SyncCommand::default() }).unwrap();
    let example = reports[0].skipped.example.clone().unwrap();
    assert!(example.contains("is not a time within 230 years of 1970"), "{example}");
}

#[test]
fn table_with_other_keys_is_rejected() {
    let dynamo = FakeDynamo::start();
    dynamo.create_table(TABLE, &[("driver_id", "N"), ("day", "S")], None);
    let host = setup(&dynamo.url(), "").unready().start();
    let error = sync(&host).unwrap_err();
    let expected = "its key is 'driver_id' and 'day', but the view's rows are stored under 'driver_id'";
    assert!(error.contains(expected), "{error}");
}
