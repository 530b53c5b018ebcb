//! Compares Feast itself with Larder: Feast's server and Larder serve the same repository, and Feast's unchanged SDK is
//! the client of both.
//!
//! The scripts are in `tests/feast`. They run in a virtual environment under `target/`, with the version of Feast in
//! `requirements.txt`. If Feast cannot be installed, these tests fail.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{certificates::Authority, guests, moto::Moto, python_package, venv};

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/feast")
}

/// Returns the Python in which Feast is installed.
fn python() -> PathBuf {
    venv::python("feast-venv", &scripts())
}

/// Runs a script, which prints the differences and fails if there are any.
fn run(script: &str, plugins: &[&str]) {
    let dir = TempDir::new().unwrap();
    run_in(&dir, script, plugins);
}

fn run_in(dir: &TempDir, script: &str, plugins: &[&str]) {
    run_with(dir, script, plugins, &[]);
}

fn run_with(dir: &TempDir, script: &str, plugins: &[&str], variables: &[(&str, &str)]) {
    let plugins_dir = dir.path().join("plugins");
    guests::place(plugins, &plugins_dir);
    let done = Command::new(python())
        .args(["-W", "ignore", script, env!("CARGO_BIN_EXE_larder")])
        .arg(dir.path())
        .arg(plugins_dir)
        .current_dir(scripts())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("TZ", "UTC")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let (said, complained) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{said}\n{complained}");
    assert!(said.contains(" checks, 0 of them failed"), "{said}\n{complained}");
}

#[test]
fn server_and_sdk_agree_with_feast() {
    run("side_by_side.py", &["feast_odfv/odfv_python"]);
}

#[test]
fn every_type_converts_as_in_feast() {
    run("values.py", &[]);
}

#[test]
fn python_package_returns_types_of_feast() {
    let package = TempDir::new().unwrap();
    python_package::install(package.path());
    let path = package.path().to_string_lossy();
    run_with(&TempDir::new().unwrap(), "python_client.py", &[], &[("PYTHONPATH", &path)]);
}

#[test]
fn services_of_200_features_equal_feast() {
    run("benchmark_shape.py", &[]);
}

#[test]
fn s3_registry_and_dynamodb_equal_feast() {
    let moto = Moto::start();
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let configs = configs.to_string_lossy();
    run_with(&TempDir::new().unwrap(), "on_aws.py", &[], &[("MOTO_URL", &moto.url()), ("CONFIGS", &configs)]);
}

#[test]
fn registries_are_served_field_by_field() {
    run("registry_fields.py", &[]);
}

#[test]
fn sdk_works_with_repository_over_tls() {
    let dir = TempDir::new().unwrap();
    let authority = Authority::new();
    authority.issue().write(dir.path());
    fs::write(dir.path().join("ca.crt"), authority.pem()).unwrap();
    run_in(&dir, "first_repo.py", &[]);
}

#[test]
fn feast_reads_the_feature_log() {
    run("feature_log.py", &["feast_odfv/odfv_python"]);
}
