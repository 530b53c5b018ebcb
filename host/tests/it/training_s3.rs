//! Runs of `larder training-set` with entity rows, feature files and outputs in S3.

use std::{
    fs::{self, File},
    sync::Arc,
};

use larder_fakeaws::{Fault, FaultProxy, When};
use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};
use serde_json::Value;

use crate::{
    binary::{Ended, Home},
    moto::Moto,
    training_runs::{DEFINITIONS, names, project, read, run, write},
    wire,
};

fn configure(home: &Home, url: &str) {
    home.configure(&format!("aws: {{s3_endpoint: \"{url}\", s3_path_style: true, region: us-east-1}}\n"));
}

fn training_set(home: &Home, entities: &str, out: &str) -> Ended {
    home.run(["training-set", "--entities", entities, "--service", "all", "--out", out])
}

fn uploads(moto: &Moto) -> String {
    wire::send(moto.address, "GET", "/sets?uploads", &[], b"").text()
}

#[test]
fn s3_files_give_the_same_set() {
    let home = project(200_000);
    let entities = read(&home.path("entities.parquet")).slice(150_000, 20_000);
    let columns = entities.schema();
    let columns = columns.fields().iter().map(|field| (field.name().as_str(), Arc::clone(&entities[field.name()])));
    write(&home.path("entities.parquet"), columns.collect());
    for view in ["stats.parquet", "limits.parquet"] {
        let rows = read(&home.path(view));
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(20_000)).build();
        let file = File::create(home.path(view)).unwrap();
        let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
    }
    run(&home, "local.parquet", &[]).assert_code(0);
    let moto = Moto::start();
    moto.bucket("features");
    for (view, key) in [("stats.parquet", "stats/0.parquet"), ("limits.parquet", "limits/0.parquet")] {
        moto.put("features", key, &fs::read(home.path(view)).unwrap());
        fs::remove_file(home.path(view)).unwrap();
    }
    let definitions = DEFINITIONS.replace("stats.parquet", "\"s3://features/stats/\"");
    home.write("features/all.yaml", &definitions.replace("limits.parquet", "\"s3://features/limits/\""));
    configure(&home, &moto.url());
    run(&home, "remote.parquet", &[]).assert_code(0);
    assert!(fs::read(home.path("local.parquet")).unwrap() == fs::read(home.path("remote.parquet")).unwrap());
    let manifest = fs::read(home.path("remote.parquet.manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let version = manifest["inputs"]["views"]["stats"]["files"]["0.parquet"]["version"].as_str().unwrap();
    assert!(version.len() >= 32, "an ETag: {version}");
    assert!(manifest["report"]["views"][0]["row_groups_skipped"].as_u64().unwrap() > 0);
    moto.put("features", "stats/1.parquet", b"more");
    home.run(["training-set", "--from", "remote.parquet.manifest.json", "--out", "again.parquet"])
        .assert_code(1)
        .assert_complains(&["feature view 'stats': file 1.parquet is new"]);
}

/// The partition of an object's key is a column.
#[test]
fn entity_rows_and_output_in_s3() {
    let home = project(20_000);
    run(&home, "local.parquet", &[]).assert_code(0);
    let moto = Moto::start();
    moto.bucket("sets");
    configure(&home, &moto.url());
    let entities = fs::read(home.path("entities.parquet")).unwrap();
    moto.put("sets", "entities.parquet", &entities);
    training_set(&home, "s3://sets/entities.parquet", "s3://sets/out/train.parquet").assert_code(0);
    let written = moto.get("sets", "out/train.parquet");
    assert!(written == fs::read(home.path("local.parquet")).unwrap());
    let from = ["training-set", "--from", "s3://sets/out/train.parquet.manifest.json", "--out"];
    home.run(from.into_iter().chain(["again.parquet"])).assert_code(0);
    assert!(written == fs::read(home.path("again.parquet")).unwrap());
    moto.put("sets", "entities.parquet", &entities);
    home.run(from.into_iter().chain(["again.parquet"])).assert_code(0);
    let changed = read(&home.path("entities.parquet")).slice(0, 10);
    let fields = changed.schema();
    let columns = fields.fields().iter().map(|field| (field.name().as_str(), Arc::clone(&changed[field.name()])));
    write(&home.path("entities.parquet"), columns.collect());
    moto.put("sets", "entities.parquet", &fs::read(home.path("entities.parquet")).unwrap());
    home.run(from.into_iter().chain(["again.parquet"]))
        .assert_code(1)
        .assert_complains(&["entity rows: file entities.parquet changed"]);
    moto.put("sets", "parts/day=2026-01-01/a.parquet", &fs::read(home.path("entities.parquet")).unwrap());
    training_set(&home, "s3://sets/parts/", "parts.parquet").assert_code(0);
    let parts = read(&home.path("parts.parquet"));
    assert_eq!((parts.num_rows(), parts.schema().field(3).name().as_str()), (10, "day"));
}

/// The set is larger than a part of an upload. S3 shows an object only after all its parts were written.
#[test]
fn large_output_is_uploaded_in_parts() {
    let home = project(400_000);
    run(&home, "local.parquet", &[]).assert_code(0);
    let local = fs::read(home.path("local.parquet")).unwrap();
    assert!(local.len() > 9 << 20, "{}", local.len());
    let moto = Moto::start();
    moto.bucket("sets");
    configure(&home, &moto.url());
    training_set(&home, "entities.parquet", "s3://sets/train.parquet").assert_code(0);
    assert!(moto.get("sets", "train.parquet") == local);
    assert!(!uploads(&moto).contains("<Upload>"));
}

#[test]
fn prefix_gets_several_objects() {
    let home = project(300_000);
    let moto = Moto::start();
    moto.bucket("sets");
    configure(&home, &moto.url());
    run(&home, "parts/", &["--file-bytes", "1MiB"]).assert_code(0);
    run(&home, "s3://sets/parts/", &["--file-bytes", "1MiB"]).assert_code(0);
    for part in ["part-000000.parquet", "part-000001.parquet", "part-000002.parquet"] {
        let local = fs::read(home.path("parts").join(part)).unwrap();
        assert!(moto.get("sets", &format!("parts/{part}")) == local, "{part}");
    }
    let manifest: Value = serde_json::from_slice(&moto.get("sets", "parts.manifest.json")).unwrap();
    assert_eq!(manifest["output"]["files"].as_array().unwrap().len(), 3);
    run(&home, "s3://sets/parts/", &[])
        .assert_code(1)
        .assert_complains(&["cannot write s3://sets/parts: there are Parquet files below this prefix. hint: "]);
}

#[test]
fn failed_upload_leaves_the_earlier_object() {
    let home = project(400_000);
    let moto = Moto::start();
    moto.bucket("sets");
    moto.put("sets", "train.parquet", b"earlier");
    let proxy = FaultProxy::start(moto.address);
    configure(&home, &proxy.url());
    let denied = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>".to_owned();
    let denied = Fault::Respond(403, Vec::new(), denied);
    proxy.rule("PUT /sets/train.parquet?x-id=UploadPart", When::Nth(2), denied);
    training_set(&home, "entities.parquet", "s3://sets/train.parquet")
        .assert_code(1)
        .assert_complains(&["cannot write s3://sets/train.parquet: UploadPart: AccessDenied: no"]);
    assert!(moto.get("sets", "train.parquet") == b"earlier");
    assert!(!uploads(&moto).contains("<Upload>"), "the parts are deleted");

    // The second write of the manifest fails: the first one replaced the manifest of the earlier set.
    moto.put("sets", "train.parquet.manifest.json", b"earlier");
    let denied =
        Fault::Respond(403, Vec::new(), "<Error><Code>AccessDenied</Code><Message>no</Message></Error>".to_owned());
    proxy.rule("PUT /sets/train.parquet.manifest.json", When::Nth(2), denied);
    training_set(&home, "entities.parquet", "s3://sets/train.parquet")
        .assert_code(1)
        .assert_complains(&["cannot write s3://sets/train.parquet.manifest.json: PutObject: AccessDenied: no"]);
    home.run(["training-set", "--from", "s3://sets/train.parquet.manifest.json", "--out", "again.parquet"])
        .assert_code(1)
        .assert_complains(&["s3://sets/train.parquet.manifest.json: its run did not end. hint: build the set again"]);
    training_set(&home, "entities.parquet", "s3://missing/train.parquet")
        .assert_code(1)
        .assert_complains(&["cannot write s3://missing/train.parquet: ", "NoSuchBucket"]);
    assert_eq!(names(&home).iter().filter(|name| name.contains("train")).count(), 0);
}

#[test]
fn output_in_s3_never_replaces_inputs() {
    let home = project(10);
    let moto = Moto::start();
    moto.bucket("features");
    configure(&home, &moto.url());
    let stats = fs::read(home.path("stats.parquet")).unwrap();
    moto.put("features", "stats/0.parquet", &stats);
    moto.put("features", "entities.parquet", &fs::read(home.path("entities.parquet")).unwrap());
    home.write("features/all.yaml", &DEFINITIONS.replace("stats.parquet", "\"s3://features/stats/\""));
    training_set(&home, "s3://features/entities.parquet", "s3://features/stats/1.parquet")
        .assert_code(1)
        .assert_complains(&["cannot write s3://features/stats/1.parquet: it is in the files of feature view 'stats'"]);
    training_set(&home, "s3://features/entities.parquet", "s3://features/entities.parquet")
        .assert_code(1)
        .assert_complains(&["it is in the files of the entity rows"]);
    training_set(&home, "s3://features/entities.parquet", "s3://features/statistics.parquet").assert_code(0);
    for wrong in ["s3://features", "s3://features/", "gs://features/set.parquet"] {
        training_set(&home, "entities.parquet", wrong)
            .assert_code(1)
            .assert_complains(&[&format!("'{}' is not the URL of an object", wrong.trim_end_matches('/'))]);
    }
    training_set(&home, "s3://features/absent.parquet", "out.parquet")
        .assert_code(1)
        .assert_complains(&["entity rows: No data found in source s3://features/absent.parquet"]);
}
