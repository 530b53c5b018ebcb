//! Streams: shards that split, close and are removed, and reads that lose their position.

use super::*;

fn open_shard(dynamo: &FakeDynamo) -> String {
    dynamo.shards(TABLE).into_iter().find(|shard| !shard.is_closed).unwrap().id
}

#[test]
fn expired_iterator_is_renewed() {
    let dynamo = table(3);
    let host = setup(&dynamo.url(), "").start();
    // The reader may not have an iterator yet. This waits until it has one.
    dynamo.expire_iterators();
    dynamo.put(TABLE, item(1, 10));
    until(&host, 1, 10);
    dynamo.expire_iterators();
    dynamo.put(TABLE, item(1, 11));
    until(&host, 1, 11);
    assert_eq!(dynamo.calls()["Scan"], 3, "nothing was lost, so there is no new scan");
}

#[test]
fn expired_first_iterator_starts_over() {
    let dynamo = FakeDynamo::start();
    dynamo.create_table(TABLE, &[("driver_id", "N")], Some("NEW_IMAGE"));
    let host = setup(&dynamo.url(), "").start();
    dynamo.expire_iterators();
    dynamo.put(TABLE, item(1, 1));
    until(&host, 1, 1);
}

#[test]
fn trimmed_records_trigger_reload() {
    let dynamo = table(5);
    let mut host = setup(&dynamo.url(), "").start();
    dynamo.put(TABLE, item(1, 10));
    until(&host, 1, 10);
    host.stop();
    dynamo.put(TABLE, item(1, 20));
    dynamo.put(TABLE, item(2, 20));
    dynamo.delete(TABLE, &key(3));
    dynamo.trim_records(TABLE);
    dynamo.hold(TABLE);
    let host = host.restart();
    assert_eq!(trips(&host, 1), json!(10), "the old rows are served immediately");
    until_equal(&host, &dynamo, 5);
    dynamo.release(TABLE);
    dynamo.put(TABLE, item(4, 40));
    until(&host, 4, 40);
}

#[test]
fn day_long_outage_triggers_reload() {
    let dynamo = table(5);
    let mut host = setup(&dynamo.url(), "").start();
    until_equal(&host, &dynamo, 5);
    let scans = dynamo.calls()["Scan"];
    host.stop();
    let host = host.restart();
    host.clock.set(RECORDED_AT + 25 * 3_600 * 1_000_000);
    eventually("the table is scanned again", || dynamo.calls()["Scan"] > scans);
    until_equal(&host, &dynamo, 5);
}

#[test]
fn split_shards_lose_nothing() {
    let dynamo = table(40);
    dynamo.page_shards(2);
    let host = setup(&dynamo.url(), "").start();
    for round in 1..=6 {
        for driver in 1..=40 {
            dynamo.put(TABLE, item(driver, round * 100 + driver));
        }
        match round % 3 {
            0 => dynamo.rotate(TABLE),
            _ => dynamo.split(TABLE, &open_shard(&dynamo)),
        }
        for driver in 1..=20 {
            dynamo.put(TABLE, item(driver, round * 1_000 + driver));
        }
    }
    until_equal(&host, &dynamo, 40);
    assert_eq!(dynamo.calls()["Scan"], 3);
}

#[test]
fn over_hundred_shards_are_read() {
    let dynamo = table(60);
    let host = setup(&dynamo.url(), "").start();
    for _ in 0..120 {
        dynamo.rotate(TABLE);
    }
    (1..=60).for_each(|driver| dynamo.put(TABLE, item(driver, 1_000 + driver)));
    until_equal(&host, &dynamo, 60);
}

#[test]
fn child_without_parent_is_read() {
    let dynamo = table(10);
    let host = setup(&dynamo.url(), "").start();
    dynamo.rotate(TABLE);
    dynamo.put(TABLE, item(1, 100));
    until(&host, 1, 100);
    dynamo.rotate(TABLE);
    dynamo.put(TABLE, item(1, 101));
    until(&host, 1, 101);
    // DynamoDB removes every shard that was read to its end.
    dynamo.trim_closed(TABLE);
    dynamo.put(TABLE, item(1, 102));
    until(&host, 1, 102);
}

#[test]
fn unread_removed_shard_triggers_reload() {
    let dynamo = table(10);
    let mut host = setup(&dynamo.url(), "").start();
    until_equal(&host, &dynamo, 10);
    host.stop();
    dynamo.put(TABLE, item(1, 100));
    dynamo.rotate(TABLE);
    dynamo.put(TABLE, item(2, 100));
    dynamo.trim_closed(TABLE);
    let host = host.restart();
    until_equal(&host, &dynamo, 10);
}

#[test]
fn reenabled_stream_is_another_one() {
    let dynamo = table(5);
    let mut host = setup(&dynamo.url(), "").start();
    until_equal(&host, &dynamo, 5);
    host.stop();
    dynamo.disable_stream(TABLE);
    dynamo.put(TABLE, item(1, 10));
    dynamo.enable_stream(TABLE, "NEW_IMAGE");
    let host = host.restart();
    until(&host, 1, 10);
    dynamo.put(TABLE, item(1, 11));
    until(&host, 1, 11);
}

#[test]
fn disabled_stream_is_detected() {
    let dynamo = table(5);
    let host = setup(&dynamo.url(), "").start();
    until_equal(&host, &dynamo, 5);
    dynamo.disable_stream(TABLE);
    dynamo.put(TABLE, item(1, 10));
    dynamo.enable_stream(TABLE, "KEYS_ONLY");
    until(&host, 1, 10);
    dynamo.put(TABLE, item(1, 11));
    until(&host, 1, 11);
}

#[test]
fn recreated_table_is_detected() {
    let dynamo = table(5);
    let mut host = setup(&dynamo.url(), "").start();
    until_equal(&host, &dynamo, 5);
    host.stop();
    dynamo.recreate(TABLE);
    dynamo.put(TABLE, item(9, 9));
    let host = host.restart();
    until(&host, 9, 9);
    assert_eq!(trips(&host, 1), Value::Null, "rows of the old table are gone");
}

#[test]
fn repeated_records_change_nothing() {
    let dynamo = table(1);
    let host = setup(&dynamo.url(), "").start();
    (2..=6).for_each(|trips| dynamo.put(TABLE, item(1, trips)));
    until(&host, 1, 6);
    for last in 7..20 {
        dynamo.redeliver(4);
        dynamo.put(TABLE, item(1, last));
        let mut seen = last - 1;
        eventually("the change is served", || {
            let now = trips(&host, 1).as_i64().unwrap();
            assert!(now >= seen, "{now} after {seen}");
            seen = now;
            now == last
        });
    }
}

#[test]
fn odd_records_are_harmless() {
    let dynamo = table(2);
    let host = setup(&dynamo.url(), "").start();
    dynamo.phantom_insert(TABLE, &key(1));
    dynamo.put(TABLE, item(3, 3));
    dynamo.delete(TABLE, &key(3));
    dynamo.put(TABLE, item(2, 22));
    until(&host, 2, 22);
    assert_eq!(trips(&host, 3), Value::Null);
}

#[test]
fn shards_on_later_pages_found() {
    let dynamo = table(5);
    dynamo.page_shards(1);
    let host = setup(&dynamo.url(), "").start();
    for round in 10..14 {
        dynamo.rotate(TABLE);
        dynamo.put(TABLE, item(1, round));
        until(&host, 1, round);
    }
}

#[test]
fn first_records_of_shard_read() {
    let dynamo = table(5);
    let host = setup(&dynamo.url(), "").start();
    dynamo.rotate(TABLE);
    // These records are written before the reader lists the new shard.
    (1..=5).for_each(|driver| dynamo.put(TABLE, item(driver, 50 + driver)));
    until_equal(&host, &dynamo, 5);
}

#[test]
fn parent_before_child() {
    let dynamo = table(1);
    let mut host = setup(&dynamo.url(), "").start();
    until(&host, 1, 1);
    host.stop();
    (2..=1_500).for_each(|trips| dynamo.put(TABLE, item(1, trips)));
    dynamo.rotate(TABLE);
    (1_501..=1_510).for_each(|trips| dynamo.put(TABLE, item(1, trips)));
    let host = host.restart();
    let mut last = 1;
    eventually("all changes are served", || {
        let now = trips(&host, 1).as_i64().unwrap();
        assert!(now >= last, "{now} after {last}");
        last = now;
        now == 1_510
    });
}

#[test]
fn empty_responses_do_not_end_shard() {
    let dynamo = table(3);
    dynamo.empty_pages(4);
    let host = setup(&dynamo.url(), "").start();
    dynamo.empty_pages(3);
    dynamo.put(TABLE, item(1, 9));
    until(&host, 1, 9);
}
