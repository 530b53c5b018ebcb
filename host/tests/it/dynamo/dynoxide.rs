//! Tests with dynoxide, an independent implementation of DynamoDB, which its authors compare with AWS. dynoxide is a
//! separate program (`fakeaws/dynoxide`), because it links another version of SQLite. Streams are not tested here:
//! dynoxide reports open shards as closed, so a reader does not wait for their records.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::*;
use crate::wire;

struct Dynoxide {
    child: Child,
    address: SocketAddr,
}

/// Returns the path of the program. Builds it if needed.
fn program() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fakeaws/dynoxide");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("dynoxide");
    fs::create_dir_all(&target).unwrap();
    // The lock is a file, because tests run in separate processes.
    let lock = File::create(target.join("lock")).unwrap();
    lock.lock().unwrap();
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--manifest-path"])
        .arg(source.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    target.join("debug/larder-dynoxide")
}

impl Dynoxide {
    fn start() -> Self {
        let mut child = Command::new(program()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().trim_start_matches("http://").parse().unwrap();
        Self { child, address }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn call(&self, operation: &str, body: Value) -> Value {
        let target = format!("DynamoDB_20120810.{operation}");
        let authorization = "AWS4-HMAC-SHA256 Credential=x/20261125/eu-west-1/dynamodb/aws4_request, \
                             SignedHeaders=host;x-amz-date, Signature=0";
        let headers = [
            ("content-type", "application/x-amz-json-1.0"),
            ("x-amz-target", &*target),
            ("x-amz-date", "20261125T000000Z"),
            ("authorization", authorization),
        ];
        let answer = wire::send(self.address, "POST", "/", &headers, body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{operation}: {}", answer.text());
        answer.json()
    }

    fn put(&self, item: Value) {
        self.call("PutItem", json!({ "TableName": TABLE, "Item": item }));
    }

    fn create_table(&self) {
        let table = json!({
            "TableName": TABLE, "BillingMode": "PAY_PER_REQUEST",
            "KeySchema": [{ "AttributeName": "driver_id", "KeyType": "HASH" }],
            "AttributeDefinitions": [{ "AttributeName": "driver_id", "AttributeType": "N" }],
        });
        self.call("CreateTable", table);
    }
}

impl Drop for Dynoxide {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn dynoxide_scan_pages_and_rescan() {
    let dynamo = Dynoxide::start();
    dynamo.create_table();
    // The table has about 3 MB, so that the scan needs several pages of 1 MB.
    let long = "x".repeat(40_000);
    for driver in 1..=80 {
        let mut item = item(driver, driver * 10);
        item["of_another_view"] = json!({ "S": long });
        dynamo.put(item);
    }
    let host = setup(&dynamo.url(), ", every: 1s").start();
    let all: Vec<i64> = (1..=80).collect();
    let expected: Vec<i64> = all.iter().map(|driver| driver * 10).collect();
    assert_eq!(ask(&host, &all).column("trips")["values"], json!(expected));
    dynamo.put(item(1, 11));
    dynamo.call("DeleteItem", json!({ "TableName": TABLE, "Key": key(2) }));
    host.clock.set(RECORDED_AT + 10_000_000);
    until(&host, 1, 11);
    until(&host, 2, Value::Null);
}

#[test]
fn dynoxide_row_17_leftovers_are_fetched() {
    let dynamo = Dynoxide::start();
    dynamo.create_table();
    let long = "x".repeat(350_000);
    for driver in 1..=60 {
        let mut item = item(driver, driver);
        item["of_another_view"] = json!({ "S": long });
        dynamo.put(item);
    }
    let patient = config(&dynamo.url())
        .replace("attempt_timeout: 1s, operation_timeout: 2s", "attempt_timeout: 20s, operation_timeout: 30s");
    let host = Setup::with(&definitions(", on_miss: fetch, fetch_timeout: 20s")).config(&patient).start();
    let all: Vec<i64> = (1..=61).collect();
    let mut expected: Vec<Value> = (1..=60).map(Value::from).collect();
    expected.push(Value::Null);
    assert_eq!(ask(&host, &all).column("trips")["values"], json!(expected));
}
