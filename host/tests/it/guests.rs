//! Builds plugins for tests from the sources in `plugins/`, as their authors would.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

/// The plugins that replace Feast's on-demand views.
pub(crate) const FEAST_ODFV: [&str; 5] = [
    "feast_odfv/odfv_pandas",
    "feast_odfv/odfv_python",
    "feast_odfv/odfv_singleton",
    "feast_odfv/odfv_probe",
    "feast_odfv/odfv_probe_py",
];

/// Builds a plugin, unless it is already built, and returns its file. The first build takes a minute if Rust's
/// libraries are not compiled for WebAssembly yet.
pub(crate) fn guest(project: &str) -> PathBuf {
    build(project, "")
}

/// Builds a plugin with these Cargo features of its project.
pub(crate) fn guest_with(project: &str, features: &str) -> PathBuf {
    build(project, features)
}

fn build(project: &str, features: &str) -> PathBuf {
    // The builds are next to the builds of `make`, so that the libraries are compiled only once.
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("guests");
    fs::create_dir_all(&dir).unwrap();
    let file = dir.join(format!("{}{features}.wasm", project.replace('/', "-")));
    // The lock is a file, because tests run in separate processes. With the lock, only one of them builds at a time.
    let lock = File::create(dir.join("lock")).unwrap();
    lock.lock().unwrap();
    let built = Command::new(env!("CARGO_BIN_EXE_larder"))
        .args(["plugin", "build"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins").join(project))
        .arg("--out")
        .arg(&file)
        .args(["--features", features])
        // Some of these plugins are invalid on purpose, so `build` must not check them.
        .arg("--unchecked")
        .env("LARDER_PLUGIN_TARGET", &dir)
        .output()
        .unwrap();
    assert!(built.status.success(), "{project}: {}", String::from_utf8_lossy(&built.stderr));
    file
}

/// Returns the path of the program that compiles plugins. The executable of the tests cannot compile them.
pub(crate) fn compiler() -> PathBuf {
    env!("CARGO_BIN_EXE_larder").into()
}

/// Copies plugins to a directory. Each file has the name of its plugin.
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
