//! Training sets on Spark and Ray: each equals the one of one machine, bit for bit.
//!
//! The tests are in `tests/distributed`, and run in a virtual environment under `target/` with PySpark and Ray, which needs
//! 1.5 GB and Java. So `make test` does not run them; `make test-distributed` does.

use std::{fs, path::Path, process::Command};

use tempfile::TempDir;

use crate::{guests::guest_with, python_package, venv};

fn run_tests(module: &str) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/distributed");
    let dir = TempDir::new().unwrap();
    python_package::install(dir.path());
    fs::create_dir(dir.path().join("plugins")).unwrap();
    fs::copy(guest_with("hostile", "batches"), dir.path().join("plugins/hostile.wasm")).unwrap();
    let done = Command::new(venv::python("distributed-venv", &tests))
        .args(["-W", "ignore", "-m", "unittest", "--verbose", module])
        .current_dir(&tests)
        .env("PYTHONPATH", dir.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("RAY_USAGE_STATS_ENABLED", "0")
        .env("LARDER_TEST_PROGRAM", env!("CARGO_BIN_EXE_larder"))
        .env("LARDER_TEST_PLUGINS", dir.path().join("plugins"))
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && !printed.contains("\nRan 0 tests"), "{printed}");
}

#[test]
#[ignore = "needs PySpark and Java: make test-distributed"]
fn spark_equals_one_machine() {
    run_tests("test_spark");
}

#[test]
#[ignore = "needs Ray: make test-distributed"]
fn ray_equals_one_machine() {
    run_tests("test_ray");
}
