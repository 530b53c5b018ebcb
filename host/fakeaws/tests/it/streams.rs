//! Tests of streams, and of the methods that script them.

use std::time::Duration;

use larder_fakeaws::FakeDynamo;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::client::call;

const TABLE: &str = "shop.stats";

fn rejected(kind: &str) -> Result<Value, String> {
    Err(kind.to_owned())
}

fn table(view: &str) -> FakeDynamo {
    let dynamo = FakeDynamo::start();
    dynamo.create_table(TABLE, &[("id", "N")], Some(view));
    dynamo
}

fn item(id: u32, v: u32) -> Value {
    json!({ "id": { "N": id.to_string() }, "v": { "N": v.to_string() } })
}

fn key(id: u32) -> Value {
    json!({ "id": { "N": id.to_string() } })
}

async fn arn(dynamo: &FakeDynamo) -> Value {
    call(dynamo, "DescribeTable", json!({ "TableName": TABLE })).await.unwrap()["Table"]["LatestStreamArn"].clone()
}

async fn iterator(dynamo: &FakeDynamo, shard: &str, kind: &str, sequence: Option<&Value>) -> Result<Value, String> {
    let mut body = json!({ "StreamArn": arn(dynamo).await, "ShardId": shard, "ShardIteratorType": kind });
    if let Some(sequence) = sequence {
        body["SequenceNumber"] = sequence.clone();
    }
    Ok(call(dynamo, "GetShardIterator", body).await?["ShardIterator"].clone())
}

async fn records(dynamo: &FakeDynamo, iterator: &Value) -> Result<(Vec<Value>, Option<Value>), String> {
    let answer = call(dynamo, "GetRecords", json!({ "ShardIterator": iterator })).await?;
    Ok((answer["Records"].as_array().unwrap().clone(), answer.get("NextShardIterator").cloned()))
}

/// Returns all current records of a shard.
async fn all(dynamo: &FakeDynamo, shard: &str) -> Vec<Value> {
    let iterator = iterator(dynamo, shard, "TRIM_HORIZON", None).await.unwrap();
    records(dynamo, &iterator).await.unwrap().0
}

/// Returns the ID of the only shard.
fn only(dynamo: &FakeDynamo) -> String {
    let shards = dynamo.shards(TABLE);
    assert_eq!(shards.len(), 1);
    shards[0].id.clone()
}

fn ids(records: &[Value]) -> Vec<String> {
    records.iter().map(|record| record["dynamodb"]["Keys"]["id"]["N"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn writes_create_records_with_images() {
    for (view, has_new, has_old) in [
        ("KEYS_ONLY", false, false),
        ("NEW_IMAGE", true, false),
        ("OLD_IMAGE", false, true),
        ("NEW_AND_OLD_IMAGES", true, true),
    ] {
        let dynamo = table(view);
        dynamo.put(TABLE, item(1, 1));
        dynamo.put(TABLE, item(1, 1));
        dynamo.put(TABLE, json!({ "id": { "N": "1.0" }, "v": { "N": "1e0" } }));
        dynamo.put(TABLE, item(1, 2));
        dynamo.delete(TABLE, &key(1));
        dynamo.delete(TABLE, &key(1));
        let records = all(&dynamo, &only(&dynamo)).await;
        let names: Vec<&Value> = records.iter().map(|record| &record["eventName"]).collect();
        assert_eq!(names, ["INSERT", "MODIFY", "REMOVE"], "a write that changes nothing creates no record");
        let change = &records[1]["dynamodb"];
        assert_eq!(change.get("NewImage").cloned(), has_new.then(|| item(1, 2)));
        assert_eq!(change.get("OldImage").cloned(), has_old.then(|| item(1, 1)));
        assert_eq!((&change["Keys"], &change["StreamViewType"]), (&key(1), &json!(view)));
        assert!(change["SizeBytes"].as_u64().unwrap() > 0);
        assert!(change["ApproximateCreationDateTime"].as_f64().unwrap() > 1e9);
        let sequences: Vec<&str> = records.iter().map(|r| r["dynamodb"]["SequenceNumber"].as_str().unwrap()).collect();
        assert!(sequences.is_sorted_by(|a, b| a < b && a.len() >= 21), "{sequences:?}");
        assert_ne!(records[0]["eventID"], records[1]["eventID"]);
    }
}

#[tokio::test]
async fn stream_is_described_in_pages() {
    let dynamo = table("NEW_IMAGE");
    (0..3).for_each(|_| dynamo.rotate(TABLE));
    dynamo.page_shards(3);
    let body = json!({ "StreamArn": arn(&dynamo).await });
    let first = call(&dynamo, "DescribeStream", body.clone()).await.unwrap()["StreamDescription"].clone();
    assert_eq!((&first["StreamStatus"], &first["StreamViewType"]), (&json!("ENABLED"), &json!("NEW_IMAGE")));
    assert_eq!((&first["TableName"], &first["KeySchema"][0]["AttributeName"]), (&json!(TABLE), &json!("id")));
    let shards = first["Shards"].as_array().unwrap();
    assert_eq!(shards.len(), 3);
    assert!(shards.iter().all(|shard| shard["ShardId"].as_str().unwrap().len() >= 28));
    assert_eq!(shards[0].get("ParentShardId"), None);
    assert_eq!(shards[1]["ParentShardId"], shards[0]["ShardId"]);
    assert!(shards[2]["SequenceNumberRange"].get("EndingSequenceNumber").is_some());
    let mut next = body.clone();
    next["ExclusiveStartShardId"] = first["LastEvaluatedShardId"].clone();
    let second = call(&dynamo, "DescribeStream", next).await.unwrap()["StreamDescription"].clone();
    assert_eq!(second["Shards"].as_array().unwrap().len(), 1);
    assert!(second["Shards"][0]["SequenceNumberRange"].get("EndingSequenceNumber").is_none());
    assert_eq!(second.get("LastEvaluatedShardId"), None);
    let unknown = json!({ "StreamArn": "arn:aws:dynamodb:eu-west-1:123456789012:table/x/stream/y" });
    assert_eq!(call(&dynamo, "DescribeStream", unknown).await, rejected("ResourceNotFoundException"));
    let listed = call(&dynamo, "ListStreams", json!({ "TableName": TABLE })).await.unwrap();
    assert_eq!(listed["Streams"][0]["StreamArn"], body["StreamArn"]);
}

#[tokio::test]
async fn iterators_start_at_requested_position() {
    let dynamo = table("NEW_IMAGE");
    (1..=3).for_each(|id| dynamo.put(TABLE, item(id, 1)));
    let shard = only(&dynamo);
    let second = all(&dynamo, &shard).await[1]["dynamodb"]["SequenceNumber"].clone();
    let latest = iterator(&dynamo, &shard, "LATEST", None).await.unwrap();
    dynamo.put(TABLE, item(4, 1));
    for (kind, sequence, expected) in [
        ("TRIM_HORIZON", None, vec!["1", "2", "3", "4"]),
        ("AT_SEQUENCE_NUMBER", Some(&second), vec!["2", "3", "4"]),
        ("AFTER_SEQUENCE_NUMBER", Some(&second), vec!["3", "4"]),
    ] {
        let iterator = iterator(&dynamo, &shard, kind, sequence).await.unwrap();
        assert_eq!(ids(&records(&dynamo, &iterator).await.unwrap().0), expected, "{kind}");
    }
    assert_eq!(ids(&records(&dynamo, &latest).await.unwrap().0), ["4"]);

    let unknown = "shardId-00000001700000000000-00000000";
    assert_eq!(iterator(&dynamo, unknown, "LATEST", None).await, rejected("ResourceNotFoundException"));
    assert_eq!(iterator(&dynamo, "short", "LATEST", None).await, rejected("ValidationException"));
    let bogus = json!("123");
    assert_eq!(iterator(&dynamo, &shard, "AFTER_SEQUENCE_NUMBER", Some(&bogus)).await, rejected("ValidationException"));
    assert_eq!(records(&dynamo, &json!("bogus")).await.unwrap_err(), "ValidationException");
    dynamo.expire_iterators();
    assert_eq!(records(&dynamo, &latest).await.unwrap_err(), "ExpiredIteratorException");
}

#[tokio::test]
async fn response_ends_at_thousand_records() {
    let dynamo = table("KEYS_ONLY");
    (0..1_001).for_each(|id| dynamo.put(TABLE, item(id, 1)));
    let start = iterator(&dynamo, &only(&dynamo), "TRIM_HORIZON", None).await.unwrap();
    let (first, next) = records(&dynamo, &start).await.unwrap();
    let (second, _) = records(&dynamo, &next.unwrap()).await.unwrap();
    assert_eq!((first.len(), second.len()), (1_000, 1));
    let limited = call(&dynamo, "GetRecords", json!({ "ShardIterator": start, "Limit": 2 })).await.unwrap();
    assert_eq!(limited["Records"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn split_shard_ends_and_children_continue() {
    let dynamo = table("KEYS_ONLY");
    (0..20).for_each(|id| dynamo.put(TABLE, item(id, 1)));
    let parent = only(&dynamo);
    dynamo.split(TABLE, &parent);
    (0..20).for_each(|id| dynamo.put(TABLE, item(id, 2)));
    let shards = dynamo.shards(TABLE);
    assert_eq!(shards.len(), 3);
    assert!(shards[0].is_closed && !shards[1].is_closed && !shards[2].is_closed);
    assert_eq!((shards[1].parent.as_ref(), shards[2].parent.as_ref()), (Some(&parent), Some(&parent)));
    let (one, two) = (all(&dynamo, &shards[1].id).await, all(&dynamo, &shards[2].id).await);
    assert_eq!(one.len() + two.len(), 20);
    assert!(one.len() > 2 && two.len() > 2, "both have keys: {} and {}", one.len(), two.len());

    let start = iterator(&dynamo, &parent, "TRIM_HORIZON", None).await.unwrap();
    let (returned, next) = records(&dynamo, &start).await.unwrap();
    assert_eq!((returned.len(), next), (20, None), "a closed shard has an end");
    let last = returned[19]["dynamodb"]["SequenceNumber"].clone();
    let end = iterator(&dynamo, &parent, "AFTER_SEQUENCE_NUMBER", Some(&last)).await.unwrap();
    assert_eq!(records(&dynamo, &end).await.unwrap(), (vec![], None));

    // After a rotation, the child has the new records for the keys of its parent.
    dynamo.rotate(TABLE);
    dynamo.put(TABLE, item(1, 3));
    let shards = dynamo.shards(TABLE);
    assert_eq!(shards.iter().filter(|shard| !shard.is_closed).count(), 2);
    assert_eq!(shards[3].parent.as_ref(), Some(&shards[1].id));
    let (three, four) = (all(&dynamo, &shards[3].id).await, all(&dynamo, &shards[4].id).await);
    let before = if three.is_empty() { &two } else { &one };
    assert_eq!(three.len() + four.len(), 1);
    assert!(ids(before).contains(&"1".to_owned()), "a child has the keys of its parent");
}

#[tokio::test]
async fn trimmed_records_and_shards_are_rejected() {
    let dynamo = table("KEYS_ONLY");
    (1..=3).for_each(|id| dynamo.put(TABLE, item(id, 1)));
    let parent = only(&dynamo);
    let start = iterator(&dynamo, &parent, "TRIM_HORIZON", None).await.unwrap();
    let (returned, caught_up) = records(&dynamo, &start).await.unwrap();
    let sequence = returned[1]["dynamodb"]["SequenceNumber"].clone();
    dynamo.trim_records(TABLE);
    assert_eq!(records(&dynamo, &start).await.unwrap_err(), "TrimmedDataAccessException");
    for kind in ["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"] {
        assert_eq!(iterator(&dynamo, &parent, kind, Some(&sequence)).await, rejected("TrimmedDataAccessException"));
    }
    dynamo.put(TABLE, item(4, 1));
    assert_eq!(ids(&all(&dynamo, &parent).await), ["4"], "the horizon has moved");
    assert_eq!(
        ids(&records(&dynamo, &caught_up.unwrap()).await.unwrap().0),
        ["4"],
        "an iterator that had read everything is valid"
    );

    dynamo.rotate(TABLE);
    dynamo.trim_closed(TABLE);
    let shards = dynamo.shards(TABLE);
    assert_eq!((shards.len(), shards[0].parent.as_ref()), (1, Some(&parent)), "the child names its removed parent");
    assert_eq!(iterator(&dynamo, &parent, "TRIM_HORIZON", None).await, rejected("ResourceNotFoundException"));
}

#[tokio::test]
async fn withheld_records_and_empty_pages_end() {
    let dynamo = table("KEYS_ONLY");
    let shard = only(&dynamo);
    dynamo.hold(TABLE);
    dynamo.put(TABLE, item(1, 1));
    assert!(all(&dynamo, &shard).await.is_empty());
    dynamo.rotate(TABLE);
    let start = iterator(&dynamo, &shard, "TRIM_HORIZON", None).await.unwrap();
    let (_, next) = records(&dynamo, &start).await.unwrap();
    dynamo.release(TABLE);
    let (returned, next) = records(&dynamo, &next.unwrap()).await.unwrap();
    let why = "a closed shard does not end before its withheld records are read";
    assert_eq!((ids(&returned), next), (vec!["1".to_owned()], None), "{why}");

    dynamo.empty_pages(2);
    let mut current = start;
    for _ in 0..2 {
        let (returned, next) = records(&dynamo, &current).await.unwrap();
        assert!(returned.is_empty());
        current = next.unwrap();
    }
    assert_eq!(records(&dynamo, &current).await.unwrap().0.len(), 1);
    let child = dynamo.shards(TABLE)[1].id.clone();
    dynamo.put(TABLE, item(2, 1));
    assert!(
        all(&dynamo, &child).await.is_empty() && all(&dynamo, &child).await.is_empty(),
        "every shard has its own empty pages"
    );
    assert_eq!(all(&dynamo, &child).await.len(), 1);
}

#[tokio::test]
async fn reenabled_stream_has_another_arn() {
    let dynamo = table("KEYS_ONLY");
    let first = arn(&dynamo).await;
    dynamo.disable_stream(TABLE);
    dynamo.put(TABLE, item(1, 1));
    let described = call(&dynamo, "DescribeTable", json!({ "TableName": TABLE })).await.unwrap()["Table"].clone();
    assert_eq!((described.get("StreamSpecification"), &described["LatestStreamArn"]), (None, &first));
    let describe = async |arn: &Value| call(&dynamo, "DescribeStream", json!({ "StreamArn": arn })).await;
    assert_eq!(describe(&first).await, rejected("ResourceNotFoundException"));
    dynamo.enable_stream(TABLE, "NEW_AND_OLD_IMAGES");
    let second = arn(&dynamo).await;
    assert_ne!(first, second);
    assert_eq!(describe(&first).await, rejected("ResourceNotFoundException"));
    assert_eq!(describe(&second).await.unwrap()["StreamDescription"]["StreamViewType"], "NEW_AND_OLD_IMAGES");
    assert!(all(&dynamo, &only(&dynamo)).await.is_empty(), "a new stream has no earlier records");
}

#[tokio::test]
async fn scripted_records_repeat_and_appear() {
    let dynamo = table("NEW_IMAGE");
    let shard = only(&dynamo);
    (1..=3).for_each(|id| dynamo.put(TABLE, item(id, 1)));
    let start = iterator(&dynamo, &shard, "TRIM_HORIZON", None).await.unwrap();
    dynamo.redeliver(2);
    let (returned, next) = records(&dynamo, &start).await.unwrap();
    assert_eq!(ids(&returned), ["1", "2", "3"], "no record is before the first one");
    let (returned, next) = records(&dynamo, &next.unwrap()).await.unwrap();
    assert_eq!(ids(&returned), ["2", "3"]);
    assert!(records(&dynamo, &next.unwrap()).await.unwrap().0.is_empty(), "the position did not move back");

    dynamo.phantom_insert(TABLE, &key(9));
    let last = all(&dynamo, &shard).await[3].clone();
    assert_eq!((&last["eventName"], &last["dynamodb"]["NewImage"]), (&json!("INSERT"), &key(9)));
    assert_eq!(dynamo.items(TABLE).len(), 3);
}

#[tokio::test]
async fn response_ends_at_one_mebibyte() {
    let dynamo = table("NEW_IMAGE");
    for id in 0..5 {
        dynamo.put(TABLE, json!({ "id": { "N": id.to_string() }, "v": { "S": "x".repeat(300_000) } }));
    }
    let start = iterator(&dynamo, &only(&dynamo), "TRIM_HORIZON", None).await.unwrap();
    let (first, next) = records(&dynamo, &start).await.unwrap();
    let (second, _) = records(&dynamo, &next.unwrap()).await.unwrap();
    assert_eq!((first.len(), second.len()), (3, 2));
}

#[tokio::test]
async fn closed_shard_gets_late_child() {
    let dynamo = table("KEYS_ONLY");
    let parent = only(&dynamo);
    dynamo.put(TABLE, item(1, 1));
    dynamo.close(TABLE, &parent);
    let shards = dynamo.shards(TABLE);
    assert_eq!((shards.len(), shards[0].is_closed), (1, true), "no open shard has its keys");
    let start = iterator(&dynamo, &parent, "TRIM_HORIZON", None).await.unwrap();
    let (returned, next) = records(&dynamo, &start).await.unwrap();
    assert_eq!((ids(&returned), next), (vec!["1".to_owned()], None));

    dynamo.put(TABLE, item(1, 2));
    let shards = dynamo.shards(TABLE);
    assert_eq!((shards.len(), shards[1].parent.as_ref()), (2, Some(&parent)));
    let (old, new) = (&returned[0]["dynamodb"]["SequenceNumber"], &all(&dynamo, &shards[1].id).await[0]["dynamodb"]);
    assert!(old.as_str() < new["SequenceNumber"].as_str());

    // After a split, one child is closed. The other child keeps its keys.
    dynamo.split(TABLE, &shards[1].id);
    let pair = dynamo.shards(TABLE)[2..].to_vec();
    dynamo.close(TABLE, &pair[0].id);
    (0..20).for_each(|id| dynamo.put(TABLE, item(id, 3)));
    let shards = dynamo.shards(TABLE);
    assert_eq!((shards.len(), shards[4].parent.as_ref()), (5, Some(&pair[0].id)));
    let (other, child) = (all(&dynamo, &pair[1].id).await, all(&dynamo, &shards[4].id).await);
    assert!(all(&dynamo, &pair[0].id).await.is_empty());
    assert!(!other.is_empty() && !child.is_empty() && other.len() + child.len() == 20);
}

#[tokio::test]
async fn records_are_trimmed_to_sequence() {
    let dynamo = table("KEYS_ONLY");
    (1..=4).for_each(|id| dynamo.put(TABLE, item(id, 1)));
    let shard = only(&dynamo);
    let start = iterator(&dynamo, &shard, "TRIM_HORIZON", None).await.unwrap();
    let sequences = dynamo.sequences(TABLE);
    let returned = records(&dynamo, &start).await.unwrap().0;
    let seen = returned.iter().map(|record| record["dynamodb"]["SequenceNumber"].as_str().unwrap());
    assert!(seen.eq(&sequences), "{sequences:?}");
    dynamo.trim_to(TABLE, &sequences[2]);
    assert_eq!(records(&dynamo, &start).await.unwrap_err(), "TrimmedDataAccessException");
    assert_eq!(ids(&all(&dynamo, &shard).await), ["3", "4"]);
    let after = async |index: usize| {
        let sequence = json!(sequences[index]);
        iterator(&dynamo, &shard, "AFTER_SEQUENCE_NUMBER", Some(&sequence)).await
    };
    assert_eq!(after(1).await, rejected("TrimmedDataAccessException"));
    assert_eq!(ids(&records(&dynamo, &after(2).await.unwrap()).await.unwrap().0), ["4"]);
    dynamo.trim_to(TABLE, &sequences[0]);
    assert_eq!(dynamo.sequences(TABLE), sequences[2..], "removed records do not reappear");
}

#[tokio::test]
async fn excess_shard_readers_are_rejected() {
    let dynamo = table("KEYS_ONLY");
    dynamo.put(TABLE, item(1, 1));
    let shard = only(&dynamo);
    dynamo.readers_max_per_shard(2);
    let mut starts = Vec::new();
    for _ in 0..3 {
        starts.push(iterator(&dynamo, &shard, "TRIM_HORIZON", None).await.unwrap());
    }
    let (_, next) = records(&dynamo, &starts[0]).await.unwrap();
    assert!(records(&dynamo, &starts[1]).await.is_ok());
    assert_eq!(records(&dynamo, &starts[2]).await.unwrap_err(), "LimitExceededException");
    assert!(records(&dynamo, &next.unwrap()).await.is_ok(), "the next iterator belongs to the same reader");
    let accepted = async {
        while records(&dynamo, &starts[2]).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), accepted).await.expect("the other readers are still counted");
}
