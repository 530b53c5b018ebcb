//! Checks that released versions of the plugin contract do not change, because deployed plugins are compiled against
//! them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::{collections::BTreeMap, fs, path::Path};

use larder_plugin_host::Digest;

/// Collects the `.wit` files of a directory and its subdirectories: their paths below `root`, and their digests.
fn files(dir: &Path, root: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, root, found);
        } else if path.extension().is_some_and(|extension| extension == "wit") {
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            found.insert(name, Digest::of(&fs::read(&path).unwrap()).to_string());
        }
    }
}

#[test]
fn released_wit_files_are_unchanged() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
    let mut found = BTreeMap::new();
    files(&root, &root, &mut found);
    let released = fs::read_to_string(root.join("released.sha256")).unwrap();
    let line = |line: &str| {
        let (digest, name) = line.split_once("  ").unwrap();
        (name.to_owned(), digest.to_owned())
    };
    let released: BTreeMap<String, String> = released.lines().map(line).collect();
    assert_eq!(
        found, released,
        "released files must not change; to change the contract, add a directory and list its files in released.sha256"
    );
}
