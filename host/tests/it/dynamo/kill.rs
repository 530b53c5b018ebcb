//! Kills the real program with SIGKILL at random times, while its table and its objects change and requests to AWS
//! fail. No lookup returns an older value than an earlier lookup, and at the end, the store equals the sources.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread,
};

use arrow::array::{ArrayRef, Int64Array};
use larder_fakeaws::{FakeS3, Fault};
use rustix::process::Signal;

use super::*;
use crate::{
    binary::{Home, LARDER_YAML, Running},
    dice::Dice,
    parquet, wire,
};

const DRIVERS: i64 = 30;
const BUCKET: &str = "features";

struct World {
    home: Home,
    dynamo: FakeDynamo,
    s3: FakeS3,
    proxy: FaultProxy,
    /// The last written trips of each driver, which only increase. If a driver was deleted, its entry is 0.
    newest: Mutex<BTreeMap<i64, i64>>,
    count: AtomicI64,
}

#[test]
fn kills_never_lose_or_reverse_values() {
    // Set `LARDER_AWS_KILLS=200` for a long run.
    let kills = std::env::var("LARDER_AWS_KILLS").map_or(8, |kills| kills.parse().unwrap());
    let seed = std::env::var("LARDER_SEED").map_or(0x5eed_1a4d, |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let world = Arc::new(World::new());
    let is_over = Arc::new(AtomicBool::new(false));
    let writer = thread::spawn({
        let (world, is_over, mut dice) = (Arc::clone(&world), Arc::clone(&is_over), Dice(seed ^ 1));
        move || {
            while !is_over.load(Ordering::Relaxed) {
                world.write(&mut dice);
                thread::sleep(Duration::from_millis(3));
            }
        }
    });
    let mut seen: BTreeMap<i64, i64> = BTreeMap::new();
    let (mut looks, mut ready) = (0, 0);
    for kill in 0..kills {
        world.misbehave(&mut dice);
        let (mut host, address) = world.serve();
        let until = std::time::Instant::now() + Duration::from_millis(dice.below(1_500));
        while std::time::Instant::now() < until {
            // The guarantee applies only after the server has been ready once.
            if wire::send(address, "GET", "/ready", &[], b"").status == 200 {
                ready += 1;
                world.look(address, &mut seen, kill);
                looks += 1;
            }
            thread::sleep(Duration::from_millis(10));
        }
        host.signal(Signal::KILL);
        host.end();
    }
    is_over.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    world.proxy.heal();
    let (host, address) = world.serve();
    // On a busy machine, many changes may have to be read again.
    eventually_within("the store equals its sources", Duration::from_secs(120), || world.is_equal(address));
    world.look(address, &mut seen, kills);
    host.stop(Signal::TERM);
    println!("{kills} kills, {looks} looks at {DRIVERS} drivers, ready in {ready}, {:?}", world.proxy.counts());
}

impl World {
    fn new() -> Self {
        let dynamo = FakeDynamo::start();
        dynamo.create_table(TABLE, &[("driver_id", "N")], Some("NEW_IMAGE"));
        let s3 = FakeS3::start();
        s3.create_bucket(BUCKET);
        let proxy = FaultProxy::start(dynamo.address());
        let home = Home::empty();
        let stats = definitions("");
        let objects = "
  - name: objects
    entities: [driver]
    source: {path: \"s3://features/objects/\", timestamp_field: event_timestamp, every: 200ms}
    features: [{name: n, type: Int64}]
";
        home.write("features/defined.yaml", &format!("{stats}{objects}"));
        let aws = format!(
            "aws: {{region: eu-west-1, dynamodb_endpoint: \"{}\", s3_endpoint: \"{}\", s3_path_style: true, \
             connect_timeout: 500ms, attempt_timeout: 1s, operation_timeout: 2s, attempts_max: 2}}\n\
             sync: {{retry: 200ms, commit_rows: 20}}\n",
            proxy.url(),
            s3.url()
        );
        home.write("larder.yaml", &format!("{LARDER_YAML}{aws}"));
        let world = Self { home, dynamo, s3, proxy, newest: Mutex::default(), count: AtomicI64::new(1) };
        world.put_object(1);
        (1..=DRIVERS).for_each(|driver| world.put(driver));
        world
    }

    fn serve(&self) -> (Running, SocketAddr) {
        self.home.serve()
    }

    fn put(&self, driver: i64) {
        let trips = self.count.fetch_add(1, Ordering::Relaxed);
        let mut newest = self.newest.lock().unwrap();
        self.dynamo.put(TABLE, item(driver, trips));
        newest.insert(driver, trips);
    }

    fn put_object(&self, n: i64) {
        let columns = vec![
            ("driver_id", Arc::new(Int64Array::from_iter_values(1..=DRIVERS)) as ArrayRef),
            ("event_timestamp", parquet::times((1..=DRIVERS).map(|_| Some(1_000_000 - n)))),
            ("n", Arc::new(Int64Array::from(vec![n; usize::try_from(DRIVERS).unwrap()])) as ArrayRef),
        ];
        let dir = tempfile::tempdir().unwrap();
        parquet::write(&dir.path().join("x.parquet"), &columns);
        self.s3.put(BUCKET, "objects/part.parquet", std::fs::read(dir.path().join("x.parquet")).unwrap());
    }

    /// Changes a table, its stream, or an object.
    fn write(&self, dice: &mut Dice) {
        let driver = 1 + i64::try_from(dice.below(u64::try_from(DRIVERS).unwrap())).unwrap();
        match dice.below(300) {
            0 => self.dynamo.rotate(TABLE),
            1 | 2 => {
                let open = self.dynamo.shards(TABLE).into_iter().find(|shard| !shard.is_closed).unwrap();
                self.dynamo.split(TABLE, &open.id);
            }
            3 => self.dynamo.trim_closed(TABLE),
            4 => self.dynamo.trim_records(TABLE),
            5 => {
                self.dynamo.disable_stream(TABLE);
                self.dynamo.enable_stream(TABLE, "NEW_AND_OLD_IMAGES");
            }
            6 => self.dynamo.expire_iterators(),
            7 => self.dynamo.redeliver(5),
            8 => self.dynamo.empty_pages(3),
            9..=12 => self.put_object(self.count.fetch_add(1, Ordering::Relaxed)),
            13..=30 => {
                let mut newest = self.newest.lock().unwrap();
                self.dynamo.delete(TABLE, &key(driver));
                newest.insert(driver, 0);
            }
            _ => self.put(driver),
        }
    }

    fn misbehave(&self, dice: &mut Dice) {
        self.proxy.heal();
        match dice.below(8) {
            0 => self.proxy.refuse("GetRecords", When::Every(3), 400, "ProvisionedThroughputExceededException"),
            1 => self.proxy.refuse("Scan", When::Every(4), 500, "InternalServerError"),
            2 => self.proxy.rule(".getrecords", When::Every(4), Fault::Reset),
            3 => self.proxy.rule(".getrecords", When::Every(3), Fault::Truncate(300)),
            4 => self.proxy.rule(".getrecords", When::Every(5), Fault::Delay(Duration::from_millis(300))),
            5 => self.proxy.refuse("GetShardIterator", When::Every(2), 500, "InternalServerError"),
            6 => self.proxy.refuse("DescribeStream", When::Every(2), 400, "LimitExceededException"),
            _ => {}
        }
    }

    fn values(&self, address: SocketAddr) -> (Vec<Value>, Vec<Value>) {
        let drivers: Vec<i64> = (1..=DRIVERS).collect();
        let body = json!({ "features": ["driver_stats:trips", "objects:n"], "entities": { "driver_id": drivers } });
        let answer = wire::send(address, "POST", "/get-online-features", &[], body.to_string().as_bytes());
        let of = |name: &str| answer.column(name)["values"].as_array().unwrap().clone();
        (of("trips"), of("n"))
    }

    /// Checks that no driver's trips, and no value from an object, are lower than in an earlier lookup. A deleted
    /// driver has no trips. If it is written again, it has at least as many trips as before.
    fn look(&self, address: SocketAddr, seen: &mut BTreeMap<i64, i64>, kill: usize) {
        let (trips, n) = self.values(address);
        let of_objects = (1..).map(|driver: i64| -driver);
        for (driver, value) in (1..).zip(&trips).chain(of_objects.zip(&n)) {
            let Some(now) = value.as_i64() else { continue };
            let before = seen.insert(driver, now).unwrap_or(0);
            assert!(now >= before, "kill {kill}: driver {driver} has {now} after {before}");
        }
    }

    fn is_equal(&self, address: SocketAddr) -> bool {
        let newest = self.newest.lock().unwrap();
        let expected: Vec<Value> = (1..=DRIVERS)
            .map(|driver| newest.get(&driver).filter(|trips| **trips > 0).map_or(Value::Null, |n| json!(n)))
            .collect();
        self.values(address).0 == expected
    }
}
