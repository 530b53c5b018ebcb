//! The files with compiled code: which ones are removed.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use larder_http::Control as _;
use serde_json::json;

use super::{
    first,
    history::{OWN, digest, variant},
    second, trips,
};
use crate::fixture::{Fixture, Setup};

fn compiled(fixture: &Fixture) -> PathBuf {
    fixture.path(OWN).join("compiled")
}

/// Returns whether there is a file with the compiled code of a version.
fn has_code(fixture: &Fixture, bytes: &[u8]) -> bool {
    let digest = digest(bytes);
    let mut entries = fs::read_dir(compiled(fixture)).unwrap();
    entries.any(|entry| entry.unwrap().file_name().into_string().unwrap().starts_with(&digest))
}

/// Creates a file of twice the limit that another process seems to use, so that all other files are beyond the limit.
fn fill(dir: &Path) -> File {
    let path = dir.join("used.cwasm");
    fs::write(&path, vec![0; 2 << 20]).unwrap();
    let file = File::open(&path).unwrap();
    file.try_lock_shared().unwrap();
    file
}

#[test]
fn code_of_live_and_previous_versions_is_kept() {
    let fixture = Setup::golden().config("plugins: {compiled_max: 1MiB}\n").start();
    let versions: [_; 4] = std::array::from_fn(|n| variant(second(), u8::try_from(n).unwrap()));
    fixture.app.deploy(&first(), true).unwrap();
    let filled = fill(&compiled(&fixture));
    for version in &versions {
        fixture.app.deploy(version, true).unwrap();
    }
    let [_, older, previous, live] = &versions;
    // The oldest versions were removed when a later one was stored. `older` was the previous version until then.
    assert_eq!([&first(), &versions[0]].map(|version| has_code(&fixture, version)), [false; 2]);
    assert_eq!([older, previous, live].map(|version| has_code(&fixture, version)), [true; 3]);
    assert!(compiled(&fixture).join("used.cwasm").try_exists().unwrap());

    // After a restart, a version that has to be compiled removes only code that is not in use.
    let fixture = fixture.restart();
    fixture.until_ready();
    assert!(fixture.app.deploy(&first(), true).unwrap().compiled, "its code was removed");
    assert_eq!([older, previous, live].map(|version| has_code(&fixture, version)), [false, true, true]);
    assert!(!fixture.app.roll_back("odfv_singleton", None).unwrap().compiled);
    assert_eq!(trips(&fixture), json!(1003));
    drop(filled);
}
