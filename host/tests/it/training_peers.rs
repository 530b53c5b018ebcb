//! Compares `larder training-set` with DuckDB, polars and Feast's DuckDB store, over random views and entity rows, reads entity
//! rows that other programs write, runs Feast with Larder's offline store, and joins rows in the steps of a distributed join.
//!
//! The scripts are in `tests/training`. They run in a virtual environment under `target/`, with the packages in
//! `requirements.txt`. If these cannot be installed, the tests fail.

use std::{path::Path, process::Command};

use tempfile::TempDir;

use crate::{python_package, venv};

/// Runs a script, which prints the differences and fails if there are any.
fn run(script: &str) {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/training");
    let (dir, package) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    python_package::install(package.path());
    let done = Command::new(venv::python("training-venv", &scripts))
        .args(["-W", "ignore", script, env!("CARGO_BIN_EXE_larder")])
        .arg(dir.path())
        .current_dir(&scripts)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONPATH", package.path())
        .env("TZ", "UTC")
        .output()
        .unwrap();
    let (out, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}\n{errors}");
    assert!(out.contains(" values, 0 of them differ"), "{out}\n{errors}");
}

#[test]
fn sets_equal_duckdb_and_polars() {
    run("compare.py");
}

#[test]
fn sets_equal_feast() {
    run("feast_store.py");
}

#[test]
fn feast_runs_on_larder() {
    run("feast_offline_store.py");
}

#[test]
fn shuffled_sets_equal_one_machine() {
    run("shuffled.py");
}

#[test]
fn entity_files_work_or_name_column() {
    run("entity_files.py");
}
