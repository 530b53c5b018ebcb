//! Python virtual environments for tests, in `target/`.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

/// Returns the path of Python in a virtual environment with the packages in a directory's `requirements.txt`. Creates
/// the environment if it does not exist, or if the requirements or the version of Python have changed.
pub(crate) fn python(name: &str, requirements: &Path) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name(name);
    fs::create_dir_all(&dir).unwrap();
    // The lock is a file, because tests run in separate processes.
    let lock = File::create(dir.join("lock")).unwrap();
    lock.lock().unwrap();
    let mut wanted = fs::read_to_string(requirements.join("requirements.txt")).unwrap();
    // An environment works only with the version of Python that created it.
    let version = Command::new("python3").arg("--version").output().unwrap().stdout;
    wanted.push_str(&String::from_utf8_lossy(&version));
    let (venv, installed) = (dir.join("venv"), dir.join("installed.txt"));
    let python = venv.join("bin/python");
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return python;
    }
    let run = |program: &Path, args: &[&str]| {
        let done = Command::new(program).args(args).current_dir(requirements).output();
        let done = done.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{} {}: {said}", program.display(), args.join(" "));
    };
    // The file is removed first, so that after an interrupted installation, the next run installs from scratch.
    let _ = fs::remove_file(&installed);
    run(Path::new("python3"), &["-m", "venv", "--clear", venv.to_str().unwrap()]);
    run(&python, &["-m", "pip", "install", "--quiet", "--requirement", "requirements.txt"]);
    fs::write(&installed, wanted).unwrap();
    python
}
