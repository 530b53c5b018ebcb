//! Faults of DynamoDB and of the network.

use larder_fakeaws::Fault;

use super::*;

/// Starts a server behind a proxy, and waits until it is ready.
fn behind_proxy(drivers: i64) -> (FakeDynamo, FaultProxy, Fixture) {
    let dynamo = table(drivers);
    let proxy = FaultProxy::start(dynamo.address());
    let host = setup(&proxy.url(), "").start();
    until_equal(&host, &dynamo, drivers);
    (dynamo, proxy, host)
}

/// Checks that lookups succeed during the fault, and that changes in the table are served after it.
fn passes(dynamo: &FakeDynamo, proxy: &FaultProxy, host: &Fixture) {
    dynamo.put(TABLE, item(1, 100));
    eventually("a read of the stream fails, and the next one begins", || {
        let is_over = proxy.counts().1 >= 3;
        let answer = ask(host, &[1, 2]);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.column("trips")["values"][1], json!(2));
        assert_eq!(host.get("/ready").status, 200, "the server stays ready while its source is unavailable");
        is_over
    });
    proxy.heal();
    proxy.plug(true);
    self::until(host, 1, 100);
    assert_eq!(dynamo.calls()["Scan"], 3, "it resumes at its position");
}

#[test]
fn throttling_is_survived() {
    let (dynamo, proxy, host) = behind_proxy(5);
    proxy.refuse("GetRecords", When::Always, 400, "ProvisionedThroughputExceededException");
    passes(&dynamo, &proxy, &host);
}

#[test]
fn intermittent_failures_lose_nothing() {
    let dynamo = table(200);
    dynamo.page_items(10);
    let proxy = FaultProxy::start(dynamo.address());
    proxy.refuse("Scan", When::Every(3), 400, "ThrottlingException");
    proxy.refuse("GetRecords", When::Every(3), 500, "InternalServerError");
    proxy.refuse("DescribeStream", When::Every(2), 400, "LimitExceededException");
    proxy.refuse("GetShardIterator", When::Every(2), 500, "InternalServerError");
    let host = setup(&proxy.url(), "").start();
    until_equal(&host, &dynamo, 200);
    dynamo.rotate(TABLE);
    (1..=200).for_each(|driver| dynamo.put(TABLE, item(driver, 1_000 + driver)));
    until_equal(&host, &dynamo, 200);
    assert!(proxy.counts().1 > 10, "{:?}", proxy.counts());
}

#[test]
fn silence_times_out() {
    let (dynamo, proxy, host) = behind_proxy(5);
    proxy.rule(".getrecords", When::First(3), Fault::Silence);
    passes(&dynamo, &proxy, &host);
}

#[test]
fn resets_and_unplugging_are_survived() {
    let (dynamo, proxy, host) = behind_proxy(5);
    proxy.rule(".getrecords", When::Always, Fault::Reset);
    passes(&dynamo, &proxy, &host);
    proxy.plug(false);
    dynamo.put(TABLE, item(3, 300));
    let errors = || metric("larder_sync_errors_total{");
    let before = errors();
    eventually("two syncs fail", || errors() >= before + 2.0);
    assert_eq!(trips(&host, 3), json!(3));
    proxy.plug(true);
    until(&host, 3, 300);
}

#[test]
fn invalid_bodies_are_not_applied() {
    let (dynamo, proxy, host) = behind_proxy(5);
    let shape = (200, vec![], "[1, 2".to_owned());
    let faults = [
        Fault::Truncate(400),
        Fault::WrongChecksum,
        Fault::Respond(shape.0, shape.1, shape.2),
        Fault::Respond(200, vec![], "{\"Records\":[{\"dynamodb\":{}}]}".to_owned()),
    ];
    for (round, fault) in faults.into_iter().enumerate() {
        let trips = 100 + i64::try_from(round).unwrap();
        proxy.rule(".getrecords", When::Always, fault);
        dynamo.put(TABLE, item(1, trips));
        let faulted = proxy.counts().1;
        eventually("a read of the stream fails, and the next one begins", || proxy.counts().1 >= faulted + 3);
        assert_eq!(host.get("/ready").status, 200);
        proxy.heal();
        until(&host, 1, trips);
    }
    assert_eq!(dynamo.calls()["Scan"], 3);
}

#[test]
fn empty_pages_continue_the_scan() {
    let dynamo = table(30);
    dynamo.page_items(5);
    dynamo.empty_scan_pages(4);
    let host = setup(&dynamo.url(), "").start();
    until_equal(&host, &dynamo, 30);
}

#[test]
fn expired_credentials_resume_later() {
    let dynamo = table(60);
    dynamo.page_items(5);
    let proxy = FaultProxy::start(dynamo.address());
    proxy.rule(".scan", When::First(4), Fault::Delay(Duration::from_millis(1)));
    proxy.refuse("Scan", When::First(3), 400, "ExpiredTokenException");
    let host = setup(&proxy.url(), "").unready().start();
    host.until_ready();
    until_equal(&host, &dynamo, 60);
}

#[test]
fn interrupted_scan_resumes_per_segment() {
    let dynamo = table(300);
    dynamo.page_items(5);
    let proxy = FaultProxy::start(dynamo.address());
    // Each page of the scan is committed, and the fault occurs after some pages.
    proxy.rule(".scan", When::First(40), Fault::Delay(Duration::from_millis(1)));
    proxy.refuse("Scan", When::Always, 400, "AccessDeniedException");
    let config = config(&proxy.url()).replace("sync: {", "sync: {commit_rows: 5, ");
    let mut host = Setup::with(&definitions("")).config(&config).unready().start();
    eventually("the scan is interrupted", || proxy.counts().1 > 45);
    host.stop();
    let before = dynamo.calls()["Scan"];
    assert!((35..=41).contains(&before), "{before}");
    proxy.heal();
    let host = host.restart();
    host.until_ready();
    until_equal(&host, &dynamo, 300);
    let scans = dynamo.calls()["Scan"];
    assert!(scans < before + 40, "300 items are some 63 pages of five; {before} before, {scans} in all");
}

#[test]
fn excess_readers_are_throttled() {
    let dynamo = table(3);
    let host = setup(&dynamo.url(), "").start();
    dynamo.throttle("GetRecords", 6);
    dynamo.put(TABLE, item(1, 5));
    until(&host, 1, 5);
}

#[test]
fn backlog_is_read_with_lag() {
    let dynamo = table(1);
    let mut host = setup(&dynamo.url(), "").start();
    host.stop();
    (0..20_000).for_each(|n| dynamo.put(TABLE, item(n % 100 + 1, n)));
    let host = host.restart();
    until_equal(&host, &dynamo, 100);
}

#[test]
fn missing_table_is_reported_and_awaited() {
    let dynamo = FakeDynamo::start();
    let host = setup(&dynamo.url(), "").unready().start();
    let error = sync(&host).unwrap_err();
    assert!(error.contains("DynamoDB table 'shop.driver_stats': DescribeTable: ResourceNotFoundException"), "{error}");
    dynamo.create_table(TABLE, &[("driver_id", "N")], Some("NEW_IMAGE"));
    dynamo.put(TABLE, item(1, 1));
    host.until_ready();
    until(&host, 1, 1);
}

#[test]
fn time_range_of_table_is_rejected() {
    let dynamo = table(1);
    let host = setup(&dynamo.url(), "").start();
    let error = host.sync(&SyncCommand { from: Some(0), ..SyncCommand::default() }).unwrap_err();
    let why = "DynamoDB table 'shop.driver_stats': its rows cannot be selected by event time";
    assert!(error.contains(why), "{error}");
}
