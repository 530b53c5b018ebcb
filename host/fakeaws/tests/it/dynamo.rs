//! Tests of tables, items and scans.

use larder_fakeaws::FakeDynamo;
use serde_json::{Value, json};

use crate::client::{Connection, call, call_request};

const TABLE: &str = "shop.stats";

fn rejected(kind: &str) -> Result<Value, String> {
    Err(kind.to_owned())
}

/// Starts a server with a table that has a number as its key, and the items 1 to `count`.
fn numbers(count: u32) -> FakeDynamo {
    let dynamo = FakeDynamo::start();
    dynamo.create_table(TABLE, &[("id", "N")], None);
    (1..=count).for_each(|n| dynamo.put(TABLE, json!({ "id": { "N": n.to_string() }, "v": { "S": "x" } })));
    dynamo
}

/// Scans all pages. Returns the keys of the items, and the number of pages.
async fn scan(dynamo: &FakeDynamo, mut body: Value) -> (Vec<String>, usize) {
    body["TableName"] = json!(TABLE);
    let (mut ids, mut pages) = (Vec::new(), 0);
    loop {
        let page = call(dynamo, "Scan", body.clone()).await.unwrap();
        pages += 1;
        ids.extend(page["Items"].as_array().unwrap().iter().map(|item| item["id"]["N"].as_str().unwrap().to_owned()));
        match page.get("LastEvaluatedKey") {
            Some(key) => {
                assert_ne!(body.get("ExclusiveStartKey"), Some(key), "each page ends at another key");
                body["ExclusiveStartKey"] = key.clone();
            }
            None => return (ids, pages),
        }
    }
}

#[tokio::test]
async fn tables_are_created_and_described() {
    let dynamo = FakeDynamo::start();
    let wanted = json!({
        "TableName": TABLE,
        "KeySchema": [{ "AttributeName": "s", "KeyType": "RANGE" }, { "AttributeName": "p", "KeyType": "HASH" }],
        "AttributeDefinitions": [
            { "AttributeName": "p", "AttributeType": "S" }, { "AttributeName": "s", "AttributeType": "N" },
        ],
        "StreamSpecification": { "StreamEnabled": true, "StreamViewType": "NEW_IMAGE" },
    });
    call(&dynamo, "CreateTable", wanted.clone()).await.unwrap();
    assert_eq!(call(&dynamo, "CreateTable", wanted).await, rejected("ResourceInUseException"));
    let table = call(&dynamo, "DescribeTable", json!({ "TableName": TABLE })).await.unwrap()["Table"].clone();
    assert_eq!(table["TableStatus"], "ACTIVE");
    assert_eq!(table["KeySchema"][0], json!({ "AttributeName": "p", "KeyType": "HASH" }));
    assert_eq!(table["StreamSpecification"]["StreamViewType"], "NEW_IMAGE");
    assert!(table["LatestStreamArn"].as_str().unwrap().ends_with(table["LatestStreamLabel"].as_str().unwrap()));
    assert!(table["TableArn"].as_str().unwrap().ends_with(TABLE));
    assert!(table["CreationDateTime"].as_f64().unwrap() > 1e9);
    assert_eq!(table["ItemCount"], 0);

    dynamo.recreate(TABLE);
    let again = call(&dynamo, "DescribeTable", json!({ "TableName": TABLE })).await.unwrap()["Table"].clone();
    assert_ne!(again["TableId"], table["TableId"]);
    assert_ne!(again["LatestStreamArn"], table["LatestStreamArn"]);
    assert_eq!(again["KeySchema"], table["KeySchema"]);

    call(&dynamo, "DeleteTable", json!({ "TableName": TABLE })).await.unwrap();
    assert_eq!(
        call(&dynamo, "DescribeTable", json!({ "TableName": TABLE })).await,
        rejected("ResourceNotFoundException")
    );
    assert_eq!(call(&dynamo, "MakeTea", json!({})).await, rejected("UnknownOperationException"));
    assert_eq!(dynamo.calls()["DescribeTable"], 3);
}

#[tokio::test]
async fn put_items_are_returned_until_deleted() {
    let dynamo = numbers(1);
    let key = json!({ "id": { "N": "1.0" } });
    let item = json!({ "id": { "N": "7" }, "v": { "N": "1.50" } });
    call(&dynamo, "PutItem", json!({ "TableName": TABLE, "Item": item })).await.unwrap();
    let got = call(&dynamo, "GetItem", json!({ "TableName": TABLE, "Key": { "id": { "N": "7.00" } } })).await.unwrap();
    assert_eq!(got["Item"]["v"], json!({ "N": "1.5" }), "numbers have a normal form");
    let delete = json!({ "TableName": TABLE, "Key": key, "ReturnValues": "ALL_OLD" });
    let old = call(&dynamo, "DeleteItem", delete.clone()).await.unwrap();
    assert_eq!(old["Attributes"]["v"], json!({ "S": "x" }));
    assert_eq!(call(&dynamo, "DeleteItem", delete).await, Ok(json!({})));
    assert_eq!(call(&dynamo, "GetItem", json!({ "TableName": TABLE, "Key": key })).await, Ok(json!({})));
    assert_eq!(dynamo.items(TABLE).len(), 1);

    for item in [json!({ "v": { "S": "x" } }), json!({ "id": { "S": "1" } }), json!({ "id": { "N": "NaN" } })] {
        let put = call(&dynamo, "PutItem", json!({ "TableName": TABLE, "Item": item })).await;
        assert_eq!(put, rejected("ValidationException"), "{item}");
    }
    let filtered = json!({ "TableName": TABLE, "FilterExpression": "v = :v" });
    assert_eq!(call(&dynamo, "Scan", filtered).await, rejected("ValidationException"), "filters are not supported");
}

#[tokio::test]
async fn failed_conditions_reject_writes() {
    let dynamo = numbers(0);
    let put = async |ts: &str, condition: &str| {
        let mut body = json!({
            "TableName": TABLE, "ConditionExpression": condition,
            "Item": { "id": { "N": "1" }, "ts": { "N": ts } },
        });
        if condition.contains('#') {
            body["ExpressionAttributeNames"] = json!({ "#id": "id" });
        }
        if condition.contains("#ts") {
            body["ExpressionAttributeNames"]["#ts"] = json!("ts");
        }
        if condition.contains(":ts") {
            body["ExpressionAttributeValues"] = json!({ ":ts": { "N": ts } });
        }
        call(&dynamo, "PutItem", body).await
    };
    let failed = rejected("ConditionalCheckFailedException");
    let newer = "attribute_not_exists(#id) OR #ts < :ts";
    assert_eq!(put("5", newer).await, Ok(json!({})));
    assert_eq!(put("5", newer).await, failed);
    assert_eq!(put("10", newer).await, Ok(json!({})), "numbers are compared as numbers, not as text");
    assert_eq!(put("10", "attribute_not_exists(#id) OR #ts <= :ts").await, Ok(json!({})));
    assert_eq!(put("9", "attribute_not_exists(id) OR ts <= :ts").await, failed);
    assert_eq!(put("99", "attribute_not_exists(#id)").await, failed);
    assert_eq!(put("99", "size(#id) > :ts").await, rejected("ValidationException"));
    let unused =
        json!({ "TableName": TABLE, "Item": { "id": { "N": "1" } }, "ExpressionAttributeNames": { "#x": "x" } });
    assert_eq!(call(&dynamo, "PutItem", unused).await, rejected("ValidationException"));
}

#[tokio::test]
async fn batches_are_limited_and_return_leftovers() {
    let dynamo = numbers(50);
    let keys =
        |from: u32, to: u32| -> Vec<Value> { (from..=to).map(|n| json!({ "id": { "N": n.to_string() } })).collect() };
    let get = async |keys: Vec<Value>| {
        call(&dynamo, "BatchGetItem", json!({ "RequestItems": { TABLE: { "Keys": keys } } })).await
    };
    let got = get(keys(41, 60)).await.unwrap();
    assert_eq!(got["Responses"][TABLE].as_array().unwrap().len(), 10);
    assert_eq!(got["UnprocessedKeys"], json!({}));
    assert_eq!(get(keys(1, 101)).await, rejected("ValidationException"));
    assert_eq!(get([keys(1, 2), keys(2, 2)].concat()).await, rejected("ValidationException"));

    dynamo.unprocessed_keys(2);
    let mut left = keys(1, 5);
    let mut found = 0;
    for expected in [2, 1, 0] {
        let got = get(left.clone()).await.unwrap();
        found += got["Responses"][TABLE].as_array().unwrap().len();
        left = got["UnprocessedKeys"][TABLE]["Keys"].as_array().cloned().unwrap_or_default();
        assert_eq!(left.len(), expected);
    }
    assert_eq!(found, 5);

    let write =
        async |writes: &[Value]| call(&dynamo, "BatchWriteItem", json!({ "RequestItems": { TABLE: writes } })).await;
    let mut writes: Vec<Value> = keys(101, 124).iter().map(|item| json!({ "PutRequest": { "Item": item } })).collect();
    writes.push(json!({ "DeleteRequest": { "Key": { "id": { "N": "1" } } } }));
    dynamo.unprocessed_items(1);
    let left = write(&writes).await.unwrap()["UnprocessedItems"][TABLE].as_array().cloned().unwrap();
    assert_eq!(left, writes[13..]);
    assert_eq!(write(&left).await, Ok(json!({ "UnprocessedItems": {} })));
    assert_eq!(dynamo.items(TABLE).len(), 50 + 24 - 1);
    writes.push(writes[0].clone());
    assert_eq!(write(&writes).await, rejected("ValidationException"), "26 are too many");
    assert_eq!(write(&[writes[0].clone(), writes[0].clone()]).await, rejected("ValidationException"));
}

#[tokio::test]
async fn scans_return_pages_of_segments() {
    let dynamo = numbers(100);
    let (all, pages) = scan(&dynamo, json!({})).await;
    assert_eq!((all.len(), pages), (100, 1));
    assert!(!all.is_sorted_by_key(|id| id.parse::<u32>().unwrap()), "items are in the order of their hashes");
    assert_eq!(scan(&dynamo, json!({ "Limit": 7 })).await, (all.clone(), 15));
    dynamo.page_items(10);
    assert_eq!(scan(&dynamo, json!({})).await, (all.clone(), 10));
    dynamo.full_page_has_key(true);
    assert_eq!(scan(&dynamo, json!({})).await, (all.clone(), 11), "the last page is empty");
    dynamo.full_page_has_key(false);
    dynamo.empty_scan_pages(3);
    assert_eq!(scan(&dynamo, json!({})).await, (all.clone(), 13));

    let mut together = Vec::new();
    for segment in 0..3 {
        let (ids, _) = scan(&dynamo, json!({ "Segment": segment, "TotalSegments": 3 })).await;
        assert!((15..=55).contains(&ids.len()), "{}", ids.len());
        together.extend(ids);
    }
    assert_eq!(together, all);
    for (segment, total) in [(3, 3), (0, 0)] {
        let bad = json!({ "TableName": TABLE, "Segment": segment, "TotalSegments": total });
        assert_eq!(call(&dynamo, "Scan", bad).await, rejected("ValidationException"));
    }

    // A scan can also start after a key that no item has.
    let start = json!({ "id": { "N": "4711" } });
    let (rest, _) = scan(&dynamo, json!({ "ExclusiveStartKey": start })).await;
    assert_eq!(rest, all[all.len() - rest.len()..]);
    let bad = json!({ "TableName": TABLE, "ExclusiveStartKey": { "x": { "N": "1" } } });
    assert_eq!(call(&dynamo, "Scan", bad).await, rejected("ValidationException"));

    let counted = json!({ "TableName": TABLE, "ReturnConsumedCapacity": "TOTAL" });
    let page = call(&dynamo, "Scan", counted).await.unwrap();
    assert_eq!(page["ConsumedCapacity"], json!({ "TableName": TABLE, "CapacityUnits": 0.5 }));
}

#[tokio::test]
async fn scan_pages_end_at_one_mebibyte() {
    let dynamo = numbers(0);
    for n in 0..30 {
        dynamo.put(TABLE, json!({ "id": { "N": n.to_string() }, "v": { "S": "x".repeat(100_000) } }));
    }
    let (ids, pages) = scan(&dynamo, json!({})).await;
    assert_eq!((ids.len(), pages), (30, 3));
}

#[tokio::test]
async fn partition_items_sort_by_sort_key() {
    let dynamo = FakeDynamo::start();
    dynamo.create_table(TABLE, &[("p", "S"), ("id", "N")], None);
    let ids = ["-2", "-1.5", "0", "3", "10", "200"];
    for p in ["a", "b", "c"] {
        ids.iter().rev().for_each(|id| dynamo.put(TABLE, json!({ "p": { "S": p }, "id": { "N": id } })));
    }
    let (all, pages) = scan(&dynamo, json!({ "Limit": 4 })).await;
    assert_eq!((all, pages), ([ids, ids, ids].concat().iter().map(ToString::to_string).collect(), 5));

    dynamo.page_items(4);
    let mut body = json!({
        "TableName": TABLE, "KeyConditionExpression": "#key = :key",
        "ExpressionAttributeNames": { "#key": "p" }, "ExpressionAttributeValues": { ":key": { "S": "b" } },
    });
    let first = call(&dynamo, "Query", body.clone()).await.unwrap();
    assert_eq!(first["Count"], 4);
    body["ExclusiveStartKey"] = first["LastEvaluatedKey"].clone();
    let second = call(&dynamo, "Query", body.clone()).await.unwrap();
    assert_eq!(
        (second["Items"][1].clone(), second.get("LastEvaluatedKey")),
        (json!({ "p": { "S": "b" }, "id": { "N": "200" } }), None)
    );
    body["ExpressionAttributeNames"]["#key"] = json!("id");
    assert_eq!(call(&dynamo, "Query", body).await, rejected("ValidationException"));
}

#[tokio::test]
async fn ttl_setting_is_described() {
    let dynamo = numbers(0);
    let describe = async || call(&dynamo, "DescribeTimeToLive", json!({ "TableName": TABLE })).await.unwrap();
    assert_eq!(describe().await, json!({ "TimeToLiveDescription": { "TimeToLiveStatus": "DISABLED" } }));
    let on = json!({ "TableName": TABLE, "TimeToLiveSpecification": { "AttributeName": "ends", "Enabled": true } });
    call(&dynamo, "UpdateTimeToLive", on.clone()).await.unwrap();
    assert_eq!(describe().await["TimeToLiveDescription"]["AttributeName"], "ends");
    assert_eq!(call(&dynamo, "UpdateTimeToLive", on).await, rejected("ValidationException"));
}

#[tokio::test]
async fn throttling_ends_after_given_calls() {
    let dynamo = numbers(1);
    dynamo.throttle("Scan", 2);
    let scan = async || call(&dynamo, "Scan", json!({ "TableName": TABLE })).await;
    assert_eq!(scan().await, rejected("ProvisionedThroughputExceededException"));
    assert_eq!(scan().await, rejected("ProvisionedThroughputExceededException"));
    assert_eq!(scan().await.unwrap()["Count"], 1);
    assert_eq!(dynamo.calls()["Scan"], 3);
}

#[tokio::test]
async fn server_stops_with_last_handle() {
    let dynamo = numbers(1);
    let other = dynamo.clone();
    let address = dynamo.address();
    assert_eq!(dynamo.url(), format!("http://{address}"));
    let mut connection = Connection::open(address).await.unwrap();
    for _ in 0..3 {
        let request = call_request("Scan", &json!({ "TableName": TABLE }));
        assert_eq!(connection.send(request).await.unwrap().status, 200);
    }
    drop(dynamo);
    assert_eq!(connection.send(call_request("Scan", &json!({ "TableName": TABLE }))).await.unwrap().status, 200);
    drop(other);
    assert!(Connection::open(address).await.is_err());
    assert!(connection.send(call_request("Scan", &json!({}))).await.is_err());
}

#[tokio::test]
async fn responses_have_the_projected_parts() {
    let dynamo = numbers(1);
    dynamo.put(
        TABLE,
        json!({
            "id": { "N": "1" }, "ts": { "S": "t" },
            "values": { "M": { "a.b": { "N": "7" }, "c": { "M": { "d": { "S": "x" }, "e": { "S": "y" } } } } },
        }),
    );
    let names = json!({ "#vals": "values", "#f": "a.b" });
    let wanted = "#vals.#f, #vals.c.d,id, #vals.none, ts.none";
    let parts = json!({
        "id": { "N": "1" }, "values": { "M": { "a.b": { "N": "7" }, "c": { "M": { "d": { "S": "x" } } } } },
    });
    let keys = json!([{ "id": { "N": "1" } }]);
    let request = json!({
        "Keys": keys, "ProjectionExpression": wanted, "ExpressionAttributeNames": names, "ConsistentRead": true,
    });
    let got = call(&dynamo, "BatchGetItem", json!({ "RequestItems": { TABLE: request } })).await.unwrap();
    assert_eq!(got["Responses"][TABLE], json!([parts]));
    dynamo.unprocessed_keys(1);
    let got = call(&dynamo, "BatchGetItem", json!({ "RequestItems": { TABLE: request } })).await.unwrap();
    assert_eq!(got["UnprocessedKeys"][TABLE], request, "unprocessed keys keep the projection");

    let with = |expression: &str| {
        json!({
            "TableName": TABLE, "ProjectionExpression": expression, "ExpressionAttributeNames": names,
        })
    };
    assert_eq!(call(&dynamo, "Scan", with(wanted)).await.unwrap()["Items"], json!([parts]));
    let mut get = with(wanted);
    get["Key"] = keys[0].clone();
    assert_eq!(call(&dynamo, "GetItem", get).await.unwrap()["Item"], parts);
    let mut query = with(wanted);
    query["KeyConditionExpression"] = json!("id = :id");
    query["ExpressionAttributeValues"] = json!({ ":id": { "N": "1" } });
    assert_eq!(call(&dynamo, "Query", query).await.unwrap()["Items"], json!([parts]));

    for bad in ["#vals, #vals.#f", "#f, #vals.#f, #f", "#vals.#f, #none", "#vals.#f,", "#vals.#f, c[0]"] {
        assert_eq!(call(&dynamo, "Scan", with(bad)).await, rejected("ValidationException"), "{bad}");
    }
    assert_eq!(call(&dynamo, "Scan", with("#vals")).await, rejected("ValidationException"), "#f is not used");
}

#[tokio::test]
async fn projected_pages_return_full_keys() {
    let dynamo = numbers(10);
    let mut body = json!({ "TableName": TABLE, "ProjectionExpression": "v", "Limit": 4 });
    let mut counts = Vec::new();
    loop {
        let page = call(&dynamo, "Scan", body.clone()).await.unwrap();
        assert!(page["Items"].as_array().unwrap().iter().all(|item| *item == json!({ "v": { "S": "x" } })));
        counts.push(page["Count"].clone());
        let Some(key) = page.get("LastEvaluatedKey") else { break };
        assert!(key["id"]["N"].is_string());
        body["ExclusiveStartKey"] = key.clone();
    }
    assert_eq!(counts, [4, 4, 2]);
}

#[tokio::test]
async fn batch_key_limit_spans_tables() {
    let dynamo = numbers(50);
    dynamo.create_table("other", &[("id", "N")], None);
    dynamo.batch_get_items(30);
    let keys: Vec<Value> = (1..=25).map(|n| json!({ "id": { "N": n.to_string() } })).collect();
    let body = json!({ "RequestItems": { TABLE: { "Keys": keys }, "other": { "Keys": keys } } });
    let got = call(&dynamo, "BatchGetItem", body).await.unwrap();
    let left = |got: &Value| {
        let tables = got["UnprocessedKeys"].as_object().unwrap().values();
        tables.map(|table| table["Keys"].as_array().unwrap().len()).sum::<usize>()
    };
    assert_eq!(left(&got), 20, "the limit applies to a call, not to a table");
    let got = call(&dynamo, "BatchGetItem", json!({ "RequestItems": got["UnprocessedKeys"] })).await.unwrap();
    assert_eq!(left(&got), 0);
}

#[test]
fn blocking_client_gets_responses() {
    let dynamo = numbers(2);
    let mut socket = std::net::TcpStream::connect(dynamo.address()).unwrap();
    let body = json!({ "TableName": TABLE }).to_string();
    let head = "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-amz-target: DynamoDB_20120810.Scan\r\n";
    std::io::Write::write_all(&mut socket, format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes())
        .unwrap();
    let response = std::io::read_to_string(socket).unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK") && response.contains("x-amzn-requestid"), "{response}");
}
