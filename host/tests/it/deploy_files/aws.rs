//! The IAM policies allow exactly the calls that Larder makes.

use std::{collections::BTreeSet, os::unix::fs::PermissionsExt, process::Command, sync::Arc};

use arrow::array::{ArrayRef, Int64Array};
use larder_fakeaws::{FakeDynamo, FakeS3, S3Call};
use serde_json::json;

use super::*;
use crate::{
    binary::Home,
    fixture::{Fixture, RECORDED_AT, Setup, eventually},
    parquet,
};

/// The calls that Larder makes. Each entry has the method of the SDK, and the IAM action that allows the call.
const CALLS: [(&str, &str); 19] = [
    ("batch_get_item", "dynamodb:BatchGetItem"),
    ("batch_write_item", "dynamodb:BatchWriteItem"),
    ("create_table", "dynamodb:CreateTable"),
    ("describe_stream", "dynamodb:DescribeStream"),
    ("describe_table", "dynamodb:DescribeTable"),
    ("get_records", "dynamodb:GetRecords"),
    ("get_shard_iterator", "dynamodb:GetShardIterator"),
    ("put_item", "dynamodb:PutItem"),
    ("query", "dynamodb:Query"),
    ("scan", "dynamodb:Scan"),
    ("abort_multipart_upload", "s3:AbortMultipartUpload"),
    ("complete_multipart_upload", "s3:PutObject"),
    ("create_multipart_upload", "s3:PutObject"),
    ("upload_part", "s3:PutObject"),
    ("get_object", "s3:GetObject"),
    ("head_object", "s3:GetObject"),
    ("list_objects_v2", "s3:ListBucket"),
    ("put_object", "s3:PutObject"),
    // Larder does not call this action. AWS does so for a reader of encrypted data.
    ("", "kms:Decrypt"),
];

/// The actions that write to sources.
const WRITES: [&str; 3] = ["dynamodb:BatchWriteItem", "dynamodb:CreateTable", "dynamodb:PutItem"];

/// The action that writes objects, and the policies that allow it.
const WRITE_OBJECT: &str = "s3:PutObject";
const OBJECT_WRITERS: [&str; 2] = ["feature-log.json", "training-sets.json"];

/// The placeholders that users replace.
const PLACEHOLDERS: [&str; 6] = ["ACCOUNT", "BUCKET", "KEY_ID", "PREFIX", "REGION", "TABLE_PREFIX"];

struct Policy {
    name: String,
    statements: Vec<Value>,
}

impl Policy {
    fn read(name: &str) -> Self {
        let policy: Value = serde_json::from_str(&read(&format!("configs/aws/{name}"))).unwrap();
        let keys: Vec<&String> = policy.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["Statement", "Version"], "{name}");
        assert_eq!(policy["Version"], "2012-10-17", "{name}: older versions of the policy language have no variables");
        Self { name: name.to_owned(), statements: list(&policy["Statement"]).to_vec() }
    }

    fn all() -> Vec<Self> {
        let policies: Vec<Self> = names("configs/aws", ".json").iter().map(|name| Self::read(name)).collect();
        assert!(policies.len() >= 6);
        policies
    }

    fn with_effect(&self, effect: &str) -> impl Iterator<Item = &Value> {
        self.statements.iter().filter(move |statement| statement["Effect"] == effect)
    }

    fn allowed(&self) -> BTreeSet<&str> {
        self.with_effect("Allow").flat_map(|statement| list(&statement["Action"])).map(text).collect()
    }

    /// Returns the allowed actions for DynamoDB, with the same names as in [`FakeDynamo::calls`].
    fn dynamodb(&self) -> BTreeSet<String> {
        self.allowed().iter().filter_map(|action| action.strip_prefix("dynamodb:")).map(str::to_owned).collect()
    }
}

/// Returns words of capital letters, the form of placeholders.
fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
}

#[test]
fn policies_are_valid_and_minimal() {
    let known: BTreeSet<&str> = CALLS.iter().map(|(_, action)| *action).collect();
    for policy in Policy::all() {
        let name = &policy.name;
        let mut sids = BTreeSet::new();
        for statement in &policy.statements {
            let sid = text(&statement["Sid"]);
            assert!(sid.chars().all(|c| c.is_ascii_alphanumeric()) && sids.insert(sid), "{name}: Sid '{sid}'");
            for key in statement.as_object().unwrap().keys() {
                let is_known = ["Sid", "Effect", "Action", "Resource", "Condition"].contains(&key.as_str());
                assert!(is_known, "{name}: {sid}: {key}");
            }
            assert!(["Allow", "Deny"].contains(&text(&statement["Effect"])), "{name}: {sid}");
            for word in placeholders(text(&statement["Resource"])) {
                assert!(PLACEHOLDERS.contains(&word), "{name}: {sid}: the placeholder {word} is not documented");
            }
        }
        for statement in policy.with_effect("Allow") {
            let sid = text(&statement["Sid"]);
            for action in list(&statement["Action"]).iter().map(text) {
                assert!(known.contains(action), "{name}: {sid}: {action} is not called");
                // The resource must have the type that the action needs. With any other type, the statement allows
                // nothing, without an error.
                let (_, resource) = text(&statement["Resource"]).split_once("arn:aws:").unwrap();
                let fits = match action {
                    "dynamodb:DescribeStream" | "dynamodb:GetShardIterator" | "dynamodb:GetRecords" => {
                        resource == "dynamodb:REGION:ACCOUNT:table/TABLE_PREFIX*/stream/*"
                    }
                    "s3:ListBucket" => resource == "s3:::BUCKET",
                    "s3:GetObject" | "s3:PutObject" | "s3:AbortMultipartUpload" => {
                        resource.starts_with("s3:::BUCKET/PREFIX/")
                    }
                    "kms:Decrypt" => resource == "kms:REGION:ACCOUNT:key/KEY_ID",
                    _ => resource == "dynamodb:REGION:ACCOUNT:table/TABLE_PREFIX*",
                };
                assert!(fits, "{name}: {sid}: {action} on {resource}");
                if action == "s3:ListBucket" {
                    let prefixes = &statement["Condition"]["StringLike"]["s3:prefix"];
                    assert_eq!(*prefixes, json!(["PREFIX", "PREFIX/*"]), "{name}: the whole bucket can be listed");
                }
            }
        }
        // For every allowed service, the policy denies all calls without TLS.
        let services: BTreeSet<String> =
            policy.allowed().iter().map(|action| format!("{}:*", action.split_once(':').unwrap().0)).collect();
        let denied: Vec<&Value> = policy.with_effect("Deny").collect();
        let [denied] = denied.as_slice() else { panic!("{name}: expected one statement that denies") };
        assert_eq!(denied["Condition"], json!({ "Bool": { "aws:SecureTransport": "false" } }), "{name}");
        assert_eq!(denied["Resource"], "*", "{name}");
        let actions: BTreeSet<String> = list(&denied["Action"]).iter().map(|action| text(action).to_owned()).collect();
        assert_eq!(actions, services, "{name}");
    }
}

#[test]
fn only_the_job_may_write() {
    for policy in Policy::all() {
        let writes: BTreeSet<&str> = policy.allowed().intersection(&BTreeSet::from(WRITES)).copied().collect();
        if policy.name == "materialize.json" {
            assert_eq!(writes, BTreeSet::from(WRITES));
            let optional = policy.statements.iter().find(|statement| statement["Sid"] == "OptionalMakeTables").unwrap();
            assert_eq!(optional["Action"], json!(["dynamodb:CreateTable"]), "the statement can be removed");
        } else {
            assert_eq!(writes, BTreeSet::new(), "{}", policy.name);
        }
        let is_writer = OBJECT_WRITERS.contains(&policy.name.as_str());
        assert_eq!(policy.allowed().contains(WRITE_OBJECT), is_writer, "{}", policy.name);
    }
}

#[test]
fn the_guide_names_every_file() {
    let guide = read("configs/aws/README.md");
    for name in [names("configs/aws", ".json"), names("configs/aws", ".sh")].concat() {
        assert!(guide.contains(&format!("({name})")), "{name}");
    }
    for placeholder in PLACEHOLDERS {
        assert!(guide.contains(placeholder), "{placeholder}");
    }
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn policies_allow_exactly_the_calls() {
    let mut files = Vec::new();
    sources(&top().join("host/source/src"), &mut files);
    let mut called = BTreeSet::new();
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        let mut known = 0;
        for (method, action) in CALLS {
            let count = source.matches(&format!(".{method}()")).count();
            if count > 0 && !method.is_empty() {
                called.insert(action);
                known += count;
            }
        }
        // Each request is built once and sent once, so the counts are equal if `CALLS` has all calls of the file.
        let sent = source.matches(".send().await").count();
        assert_eq!(sent, known, "{}: a call of AWS is not in CALLS", file.display());
    }
    let policies = Policy::all();
    let mut allowed: BTreeSet<&str> = policies.iter().flat_map(Policy::allowed).collect();
    assert!(allowed.remove("kms:Decrypt"));
    assert_eq!(called, allowed);
}

const TABLE: &str = "shop.driver_stats";

fn host(dynamo: &FakeDynamo, how: &str) -> Fixture {
    let definitions = format!(
        "
entities:
  - {{name: driver, join_key: driver_id, type: Int64}}
feature_views:
  - name: driver_stats
    entities: [driver]
    source: {{dynamodb: {TABLE}, timestamp_field: ts, poll: 200ms, {how}}}
    features: [{{name: trips, type: Int64}}]
"
    );
    Setup::with(&definitions).config(&format!("aws: {{dynamodb_endpoint: \"{}\"}}\n", dynamo.url())).start()
}

/// Returns the calls that a server makes when a table is read, a row is fetched, changed and deleted, the server
/// restarts, and the table is recreated.
fn calls_of_a_life(keys: &[(&str, &str)], how: &str, item: impl Fn(i64) -> Value) -> BTreeSet<String> {
    let dynamo = FakeDynamo::start();
    dynamo.create_table(TABLE, keys, Some("NEW_IMAGE"));
    let until = |fixture: &Fixture, expected: Value| {
        eventually(&format!("{expected} trips"), || {
            let answer = fixture.features(&["driver_stats:trips"], json!({ "driver_id": [7] }));
            answer.column("trips")["values"][0] == expected
        });
    };
    dynamo.put(TABLE, item(1));
    let fixture = host(&dynamo, how);
    until(&fixture, json!(1));
    dynamo.put(TABLE, item(2));
    until(&fixture, json!(2));
    let item_2 = item(2);
    let key = keys.iter().map(|(name, _)| ((*name).to_owned(), item_2[*name].clone()));
    dynamo.delete(TABLE, &Value::Object(key.collect()));
    until(&fixture, Value::Null);
    let fixture = fixture.restart();
    fixture.until_ready();
    dynamo.recreate(TABLE);
    dynamo.put(TABLE, item(3));
    until(&fixture, json!(3));
    dynamo.calls().into_keys().collect()
}

fn wide_item(trips: i64) -> Value {
    json!({
        "driver_id": { "N": "7" }, "trips": { "N": trips.to_string() },
        "ts": { "N": (RECORDED_AT / 1_000_000).to_string() },
    })
}

fn item_of_a_feature(trips: i64) -> Value {
    json!({
        "entity_id": { "N": "7" }, "feature_name": { "S": "trips" }, "value": { "N": trips.to_string() },
        "ts": { "S": "2026-11-23T09:00:00Z" },
    })
}

const WIDE_KEYS: [(&str, &str); 1] = [("driver_id", "N")];
const SPLIT_KEYS: [(&str, &str); 2] = [("entity_id", "N"), ("feature_name", "S")];

#[test]
fn table_follower_calls_match_policy() {
    let calls = calls_of_a_life(&WIDE_KEYS, "layout: wide", wide_item);
    assert_eq!(calls, Policy::read("follow-table.json").dynamodb());
}

#[test]
fn item_per_feature_follower_matches_policy() {
    let calls = calls_of_a_life(&SPLIT_KEYS, "layout: item-per-feature", item_of_a_feature);
    assert_eq!(calls, Policy::read("follow-table-item-per-feature.json").dynamodb());
}

#[test]
fn read_through_calls_match_policy() {
    let calls = calls_of_a_life(&WIDE_KEYS, "layout: wide, on_miss: fetch, negative_ttl: 1ms", wide_item);
    assert_eq!(calls, Policy::read("read-through.json").dynamodb());
}

#[test]
fn item_per_feature_fetches_match_policy() {
    let how = "layout: item-per-feature, on_miss: fetch, negative_ttl: 1ms";
    let calls = calls_of_a_life(&SPLIT_KEYS, how, item_of_a_feature);
    assert_eq!(calls, Policy::read("read-through-item-per-feature.json").dynamodb());
}

/// Returns a file with one driver.
fn parquet_file() -> Vec<u8> {
    let columns = vec![
        ("driver_id", Arc::new(Int64Array::from(vec![7])) as ArrayRef),
        ("event_timestamp", parquet::times([Some(60)].into_iter())),
        ("trips", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    parquet::write(&path, &columns);
    fs::read(path).unwrap()
}

/// Returns the actions of the received requests. Panics if a request is neither for the prefix nor for a key below it.
fn actions(s3: &FakeS3, prefix: &str) -> BTreeSet<&'static str> {
    let action = |call: S3Call| {
        let below = call.key.strip_prefix(prefix);
        assert!(
            call.bucket == "acme" && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            "{call:?}"
        );
        let method = match call.operation {
            "GetObject" => "get_object",
            "HeadObject" => "head_object",
            "ListObjectsV2" => "list_objects_v2",
            other => panic!("{other} is in no policy"),
        };
        CALLS.iter().find(|(known, _)| *known == method).unwrap().1
    };
    s3.calls().into_iter().map(action).collect()
}

#[test]
fn object_reader_calls_match_policy() {
    let s3 = FakeS3::start();
    s3.create_bucket("acme");
    s3.put("acme", "features/stats/a.parquet", parquet_file());
    s3.put("acme", "features/stats/_SUCCESS", "");
    let definitions = "
entities: [{name: driver, join_key: driver_id, type: Int64}]
feature_views:
  - name: stats
    entities: [driver]
    source: {path: \"s3://acme/features/stats\", marker: _SUCCESS}
    features: [{name: trips, type: Int64}]
";
    let aws = format!("aws: {{s3_endpoint: \"{}\", s3_path_style: true}}\n", s3.url());
    let fixture = Setup::with(definitions).config(&aws).start();
    let answer = fixture.features(&["stats:trips"], json!({ "driver_id": [7] }));
    assert_eq!(answer.column("trips")["values"], json!([1]));
    let policy = Policy::read("s3-sources.json");
    assert_eq!(actions(&s3, "features"), policy.allowed());
    // The prefix of this list request has no slash at its end, so the policy needs both patterns in its condition.
    assert!(s3.calls().iter().any(|call| call.operation == "ListObjectsV2" && call.key == "features/stats"));
}

#[test]
fn registry_in_s3_calls_match_policy() {
    let s3 = FakeS3::start();
    s3.create_bucket("acme");
    let registry = fs::read(top().join("host/tests/golden/repo/data/registry.db")).unwrap();
    s3.put("acme", "feast/registry.db", registry);
    let aws = format!("aws: {{s3_endpoint: \"{}\", s3_path_style: true}}\nreload: {{registry_every: 1s}}\n", s3.url());
    let setup = Setup::with("").only_config(&format!("feast: {{repo: repo}}\n{aws}")).unready();
    fs::create_dir(setup.path("repo")).unwrap();
    let store = "project: churn_prediction\nprovider: aws\nregistry: s3://acme/feast/registry.db\n\
                 online_store: {type: sqlite, path: data/online.db}\nentity_key_serialization_version: 3\n";
    fs::write(setup.path("repo/feature_store.yaml"), store).unwrap();
    let _fixture = setup.start();
    eventually("the registry is polled again", || s3.calls().iter().any(|call| call.operation == "HeadObject"));
    assert_eq!(actions(&s3, "feast/registry.db"), Policy::read("registry-on-s3.json").allowed());
}

#[test]
fn materialize_job_calls_match_policy() {
    let (s3, dynamo) = (FakeS3::start(), FakeDynamo::start());
    s3.create_bucket("acme");
    s3.put("acme", "features/stats/a.parquet", parquet_file());
    let home = Home::with(
        "
entities: [{name: driver, join_key: driver_id, type: Int64}]
feature_views:
  - name: stats
    entities: [driver]
    source: {path: \"s3://acme/features/stats/\"}
    features: [{name: trips, type: Int64}]
",
    );
    home.configure(&format!(
        "aws: {{s3_endpoint: \"{}\", s3_path_style: true, dynamodb_endpoint: \"{}\"}}\n",
        s3.url(),
        dynamo.url()
    ));
    for more in [["--create-tables"], ["--overwrite"]] {
        let mut job = home.larder(["materialize", "stats"].iter().chain(&more).copied());
        let done = job.env("AWS_REGION", "eu-west-1").output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let policy = Policy::read("materialize.json");
    assert_eq!(dynamo.calls().into_keys().collect::<BTreeSet<_>>(), policy.dynamodb());
    let of_s3: BTreeSet<&str> = policy.allowed().into_iter().filter(|action| action.starts_with("s3:")).collect();
    assert_eq!(actions(&s3, "features"), of_s3);
}

/// Runs a script with a fake AWS CLI, which reports that no resource exists yet. Returns the commands that the script
/// runs.
fn commands(script: &str, arguments: &[&str]) -> Vec<Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let (aws, log) = (dir.path().join("aws"), dir.path().join("log"));
    let stand_in = "#!/bin/sh\nprintf '%s\\0' \"$@\" '' >>\"$LOG\"\ncase $2 in\n\
                    describe-table) echo 'ResourceNotFoundException' >&2; exit 254 ;;\nhead-bucket) exit 254 ;;\nesac\n";
    fs::write(&aws, stand_in).unwrap();
    fs::set_permissions(&aws, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let script = top().join("configs/aws").join(script);
    let mode = fs::metadata(&script).unwrap().permissions().mode();
    assert_eq!(mode & 0o111, 0o111, "{}: it is executable", script.display());
    let done = Command::new(script)
        .args(arguments)
        .envs([("PATH", path.as_str()), ("LOG", log.to_str().unwrap()), ("AWS_REGION", "eu-west-1")])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let log = fs::read_to_string(log).unwrap();
    log.split("\0\0").map(|words| words.split('\0').map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Returns the command with this name.
fn command<'c>(commands: &'c [Vec<String>], name: &str) -> &'c [String] {
    let found = commands.iter().find(|words| words.get(1).is_some_and(|word| word == name));
    found.unwrap_or_else(|| panic!("{name} is not called"))
}

/// Returns the value of a flag.
fn flag<'c>(command: &'c [String], name: &str) -> &'c str {
    let at = command.iter().position(|word| word == name).unwrap_or_else(|| panic!("{name} is not given"));
    &command[at + 1]
}

#[test]
fn table_script_enables_stream_with_images() {
    let plain = commands("create-table.sh", &["churn.usage"]);
    let make = command(&plain, "create-table");
    assert_eq!(flag(make, "--table-name"), "churn.usage");
    assert_eq!(flag(make, "--key-schema"), "AttributeName=entity_id,KeyType=HASH");
    assert_eq!(flag(make, "--attribute-definitions"), "AttributeName=entity_id,AttributeType=S");
    assert_eq!(flag(make, "--billing-mode"), "PAY_PER_REQUEST");
    assert_eq!(flag(make, "--stream-specification"), "StreamEnabled=true,StreamViewType=NEW_IMAGE");
    assert!(
        !plain.iter().flatten().any(|word| word == "update-continuous-backups"),
        "it is optional, because it costs money"
    );
    let backed_up = commands("create-table.sh", &["churn.usage", "--pitr"]);
    let backups = command(&backed_up, "update-continuous-backups");
    let wanted = flag(backups, "--point-in-time-recovery-specification");
    assert_eq!(wanted, "PointInTimeRecoveryEnabled=true");
}

#[test]
fn bucket_script_creates_private_encrypted_bucket() {
    let commands = commands("create-bucket.sh", &["acme"]);
    let region = flag(command(&commands, "create-bucket"), "--create-bucket-configuration");
    assert_eq!(region, "LocationConstraint=eu-west-1");
    let access = flag(command(&commands, "put-public-access-block"), "--public-access-block-configuration");
    assert_eq!(access.split(',').filter(|word| word.ends_with("=true")).count(), 4);
    let versions = flag(command(&commands, "put-bucket-versioning"), "--versioning-configuration");
    assert_eq!(versions, "Status=Enabled");
    let json = |name: &str, key: &str| serde_json::from_str::<Value>(flag(command(&commands, name), key)).unwrap();
    let encryption = json("put-bucket-encryption", "--server-side-encryption-configuration");
    assert_eq!(encryption["Rules"][0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"], "AES256");
    let policy = json("put-bucket-policy", "--policy");
    assert_eq!(policy["Statement"][0]["Resource"], json!(["arn:aws:s3:::acme", "arn:aws:s3:::acme/*"]));
    assert_eq!(policy["Statement"][0]["Effect"], "Deny");
    json("put-bucket-lifecycle-configuration", "--lifecycle-configuration");
}
