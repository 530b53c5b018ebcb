//! Feast itself beside Larder: its server over the same repository, and its unchanged SDK as the client of both.
//!
//! The scripts lie in `tests/feast`. They run in a virtual environment of their own under `target/`, with the version of
//! Feast that `requirements.txt` names. Where that cannot be installed, these tests fail.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{certificates::Authority, guests};

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/feast")
}

/// The Python that has Feast; made once, and again when other versions are asked for.
fn python() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("feast-venv");
    fs::create_dir_all(&dir).unwrap();
    // Tests run in processes of their own.
    let lock = File::create(dir.join("lock")).unwrap();
    lock.lock().unwrap();
    let mut wanted = fs::read_to_string(scripts().join("requirements.txt")).unwrap();
    // An environment is of no use to another Python.
    let version = Command::new("python3").arg("--version").output().unwrap().stdout;
    wanted.push_str(&String::from_utf8_lossy(&version));
    let (venv, installed) = (dir.join("venv"), dir.join("installed.txt"));
    let python = venv.join("bin/python");
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return python;
    }
    let run = |program: &Path, args: &[&str]| {
        let done = Command::new(program).args(args).current_dir(scripts()).output();
        let done = done.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{} {}: {said}", program.display(), args.join(" "));
    };
    // What is cut off in the middle is begun anew, also by who wants what was there before.
    let _ = fs::remove_file(&installed);
    run(Path::new("python3"), &["-m", "venv", "--clear", venv.to_str().unwrap()]);
    run(&python, &["-m", "pip", "install", "--quiet", "--requirement", "requirements.txt"]);
    fs::write(&installed, wanted).unwrap();
    python
}

/// Runs a script; it says what differed, and fails.
fn run(script: &str, plugins: &[&str]) {
    let dir = TempDir::new().unwrap();
    run_in(&dir, script, plugins);
}

fn run_in(dir: &TempDir, script: &str, plugins: &[&str]) {
    let plugins_dir = dir.path().join("plugins");
    guests::place(plugins, &plugins_dir);
    let done = Command::new(python())
        .args(["-W", "ignore", script, env!("CARGO_BIN_EXE_larder")])
        .arg(dir.path())
        .arg(plugins_dir)
        .current_dir(scripts())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("TZ", "UTC")
        .output()
        .unwrap();
    let (said, complained) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{said}\n{complained}");
    assert!(said.contains(" checks, 0 of them failed"), "{said}\n{complained}");
}

#[test]
fn feasts_server_and_sdk_agree_with_larder_on_a_small_shop() {
    run("side_by_side.py", &["twins/odfv_python"]);
}

#[test]
fn feasts_server_agrees_with_larder_on_services_of_200_features() {
    run("benchmark_shape.py", &[]);
}

#[test]
fn feasts_sdk_is_at_home_with_a_first_repository_over_tls() {
    let dir = TempDir::new().unwrap();
    let authority = Authority::new();
    authority.issue().write(dir.path());
    fs::write(dir.path().join("ca.crt"), authority.pem()).unwrap();
    run_in(&dir, "first_repo.py", &[]);
}
