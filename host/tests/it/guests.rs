//! Plugins for tests, built of the sources under `plugins/` as their authors would build them.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

/// The twins of Feast's on-demand views.
pub(crate) const TWINS: [&str; 5] =
    ["twins/odfv_pandas", "twins/odfv_python", "twins/odfv_singleton", "twins/odfv_probe", "twins/odfv_probe_py"];

/// Builds a plugin, unless it is built already, and returns its file. The first one takes a minute: the libraries of
/// Rust are compiled for WebAssembly where no one has them ready.
pub(crate) fn guest(project: &str) -> PathBuf {
    build(project, "")
}

/// The same, with features of the project turned on.
pub(crate) fn guest_with(project: &str, features: &str) -> PathBuf {
    build(project, features)
}

fn build(project: &str, features: &str) -> PathBuf {
    // Beside what `make` builds, so that the libraries are compiled once.
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("guests");
    fs::create_dir_all(&dir).unwrap();
    let file = dir.join(format!("{}{features}.wasm", project.replace('/', "-")));
    // Tests run in processes of their own, and cargo would wait for itself with less to say.
    let lock = File::create(dir.join("lock")).unwrap();
    lock.lock().unwrap();
    let built = Command::new(env!("CARGO_BIN_EXE_larder"))
        .args(["plugin", "build"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins").join(project))
        .arg("--out")
        .arg(&file)
        .args(["--features", features])
        // Some of them are what no host would take.
        .arg("--unchecked")
        .env("LARDER_PLUGIN_TARGET", &dir)
        .output()
        .unwrap();
    assert!(built.status.success(), "{project}: {}", String::from_utf8_lossy(&built.stderr));
    file
}

/// The program that compiles plugins, because a test's own executable cannot.
pub(crate) fn compiler() -> PathBuf {
    env!("CARGO_BIN_EXE_larder").into()
}

/// Puts plugins into a directory, each under its own name.
pub(crate) fn place(projects: &[&str], dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    for project in projects {
        let name = match *project {
            "examples/churn" => "customer_derived_features",
            "examples/similarity" => "embedding_similarity",
            project => project.rsplit('/').next().unwrap(),
        };
        fs::copy(guest(project), dir.join(format!("{name}.wasm"))).unwrap();
    }
}
