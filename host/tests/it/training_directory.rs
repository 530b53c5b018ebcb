//! Runs of `larder training-set` that write several files to a directory.

use std::{fs, path::Path};

use arrow::{array::RecordBatch, compute::concat_batches};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    binary::{Ended, Home},
    fixture::eventually,
    training_runs::{has, project, read, run},
};

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn rows(dir: &Path) -> RecordBatch {
    let batches: Vec<_> = files(dir).iter().map(|name| read(&dir.join(name))).collect();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

fn again(home: &Home, out: &str) -> Ended {
    home.run(["training-set", "--from", "parts.manifest.json", "--out", out])
}

#[test]
fn directory_gets_several_files() {
    let home = project(300_000);
    run(&home, "one.parquet", &[]).assert_code(0);
    run(&home, "parts/", &["--file-bytes", "1MiB"]).assert_code(0);
    let parts = home.path("parts");
    assert_eq!(files(&parts), ["part-000000.parquet", "part-000001.parquet", "part-000002.parquet"]);
    assert_eq!(rows(&parts), read(&home.path("one.parquet")));
    let manifest: Value = serde_json::from_slice(&fs::read(home.path("parts.manifest.json")).unwrap()).unwrap();
    let bytes = fs::metadata(parts.join("part-000001.parquet")).unwrap().len();
    assert_eq!(manifest["output"]["files"][1]["bytes"], bytes);
    again(&home, "copy/").assert_code(0);
    for name in files(&parts) {
        assert!(fs::read(parts.join(&name)).unwrap() == fs::read(home.path("copy").join(&name)).unwrap(), "{name}");
    }
    // The same rows can be written as one file.
    again(&home, "copy.parquet").assert_code(0);
    assert!(fs::read(home.path("copy.parquet")).unwrap() == fs::read(home.path("one.parquet")).unwrap());
}

#[test]
fn directory_must_be_empty() {
    let home = project(10);
    fs::create_dir(home.path("parts")).unwrap();
    run(&home, "parts", &[]).assert_code(0);
    assert_eq!(files(&home.path("parts")), ["part-000000.parquet"]);
    let earlier = fs::read(home.path("parts/part-000000.parquet")).unwrap();
    run(&home, "parts/", &[])
        .assert_code(1)
        .assert_complains(&["cannot write parts: the directory is not empty. hint:"]);
    assert!(fs::read(home.path("parts/part-000000.parquet")).unwrap() == earlier);
    run(&home, "entities.parquet/", &[]).assert_code(1).assert_complains(&["cannot write entities.parquet: "]);
    run(&home, "small/", &["--file-bytes", "1MiB"]).assert_code(0);
    run(&home, "smaller/", &["--file-bytes", "1000KiB"]).assert_code(2).assert_complains(&["must be at least 1 MiB"]);
}

#[test]
fn interrupted_run_leaves_no_directory() {
    let home = project(300_000);
    let args = ["training-set", "--entities", "entities.parquet", "--service", "all", "--out", "parts/"];
    let mut running = home.start(args.into_iter().chain(["--file-bytes", "1MiB"]));
    eventually("the first file is written", || home.path(".parts.tmp/part-000000.parquet").try_exists().unwrap());
    run(&home, "parts/", &[]).assert_code(1).assert_complains(&["another run is writing to this path"]);
    running.signal(Signal::KILL);
    running.end();
    assert!(has(&home, ".parts.tmp") && !has(&home, "parts"));
    home.write(".parts.tmp/left", "");
    let mut running = home.start(args.into_iter().chain(["--file-bytes", "1MiB"]));
    let (left, first) = (home.path(".parts.tmp/left"), home.path(".parts.tmp/part-000000.parquet"));
    eventually("the first file is written again", || !left.try_exists().unwrap() && first.try_exists().unwrap());
    running.signal(Signal::INT);
    assert_eq!(running.end().0, Some(1));
    assert!(!has(&home, ".parts.tmp") && !has(&home, "parts") && !has(&home, "parts.manifest.json"));
}
