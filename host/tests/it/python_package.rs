//! The Python package: runs its tests, which start servers themselves.
//!
//! The tests are in `python/tests`, and run in a virtual environment under `target/` that has the packages with which the
//! package exchanges data. Cargo builds the native module together with these tests. If a package cannot be installed,
//! these tests fail.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{certificates::Authority, fixture::copy_dir, guests, venv};

fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../python")
}

/// Creates a directory with the package and its native module, as the wheel installs them.
pub(crate) fn install(dir: &Path) {
    copy_dir(&package().join("larder"), &dir.join("larder"));
    // The module is next to the executable of these tests.
    let module = env::current_exe().unwrap().with_file_name("liblarder_python.so");
    symlink(module, dir.join("larder/_native.abi3.so")).unwrap();
}

/// Runs Python with the package and its tests. Returns what it prints.
fn python(args: &[&str]) -> String {
    let dir = TempDir::new().unwrap();
    install(dir.path());
    let authority = Authority::new();
    authority.issue().write(dir.path());
    fs::write(dir.path().join("ca.crt"), authority.pem()).unwrap();
    fs::write(dir.path().join("other-ca.crt"), Authority::new().pem()).unwrap();
    let plugins = ["echo", "feast_odfv/odfv_python", "feast_odfv/odfv_probe_py", "feast_odfv/odfv_singleton"];
    guests::place(&plugins, &dir.path().join("plugins"));
    let done = Command::new(venv::python("python-venv", &package().join("tests")))
        .args(args)
        .current_dir(package().join("tests"))
        .env("PYTHONPATH", dir.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("LARDER_TEST_PROGRAM", env!("CARGO_BIN_EXE_larder"))
        .env("LARDER_TEST_REPO", Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/repo"))
        .env("LARDER_TEST_PLUGINS", dir.path().join("plugins"))
        .env("LARDER_TEST_TLS", dir.path())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{printed}");
    printed
}

fn run_tests(module: &str) {
    let printed = python(&["-W", "error", "-m", "unittest", "--verbose", module]);
    assert!(printed.contains("\nOK\n") && !printed.contains("\nRan 0 tests"), "{printed}");
}

#[test]
fn lookups_and_their_results() {
    run_tests("test_online");
}

#[test]
fn types_and_entities() {
    run_tests("test_types");
}

#[test]
fn faults_of_connections() {
    run_tests("test_connections");
}

#[test]
fn lookups_in_coroutines() {
    run_tests("test_async");
}

#[test]
fn stores_and_runs_in_other_processes() {
    run_tests("test_processes");
}

#[test]
fn training_sets_from_python() {
    run_tests("test_training");
}

#[test]
fn requests_of_workers() {
    run_tests("test_workers");
}

#[test]
fn derived_features_of_frames() {
    run_tests("test_derived");
}

#[test]
fn examples_run_on_the_demo() {
    run_tests("test_examples");
}

#[test]
fn type_stubs_match_package() {
    let config = package().join("pyproject.toml");
    let config = config.to_string_lossy();
    python(&["-m", "mypy", "--config-file", &config, "--package", "larder"]);
    python(&["-m", "mypy.stubtest", "--ignore-disjoint-bases", "--mypy-config-file", &config, "larder._native"]);
}
