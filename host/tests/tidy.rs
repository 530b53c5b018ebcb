//! The house rules that a compiler does not check: floors, opening words, sizes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The rooms of `host/src` and the floor that each is on. A room uses rooms of lower floors only.
const FLOORS: [(&str, u8); 17] = [
    ("aws", 1),
    ("clock", 1),
    ("files", 1),
    ("memory", 1),
    ("private", 1),
    ("telemetry", 1),
    ("store", 2),
    ("source", 2),
    ("sync", 3),
    ("plugin", 3),
    ("serving", 4),
    ("grpc", 5),
    ("http", 5),
    ("config", 6),
    ("app", 7),
    ("cli", 8),
    ("main", 9),
];

/// The rooms of `host/model/src`: yaml and registry build on the words and bytes below them.
const MODEL_FLOORS: [(&str, u8); 4] = [("model", 1), ("codec", 2), ("yaml", 2), ("registry", 3)];

/// Where our sources are.
const DIRS: [&str; 14] = [
    "host/src",
    "host/fakeaws/src",
    "host/fakeaws/tests",
    "host/fakeaws/dynoxide/src",
    "host/benches",
    "host/model/src",
    "host/tests",
    "loadtest/src",
    "plugins/sdk/rust/src",
    "plugins/sdk/rust/macros/src",
    "plugins/examples",
    "plugins/twins",
    "plugins/bench",
    "plugins/hostile",
];

/// A file that grows past this wants a wall.
const LINES_MAX: usize = 700;

struct SourceFile {
    path: PathBuf,
    text: String,
}

fn manifest_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dir: &Path) -> Vec<SourceFile> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            files.push(SourceFile { path, text });
        }
    }
    files
}

/// The room that a file belongs to: the first step below `src`.
fn room(file: &SourceFile, src: &Path) -> String {
    let relative = file.path.strip_prefix(src).unwrap();
    let first = relative.components().next().unwrap().as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The rooms that a text names after `crate::`, in imports and in paths.
fn used_rooms(text: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    for part in code.split("crate::").skip(1) {
        if let Some(list) = part.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            for c in list.chars() {
                match c {
                    '}' if depth == 0 => break,
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => word.clear(),
                    c if depth == 0 && (c.is_alphanumeric() || c == '_') => word.push(c),
                    ':' if depth == 0 && !word.is_empty() => {
                        rooms.insert(std::mem::take(&mut word));
                    }
                    _ => {}
                }
            }
        } else {
            rooms.insert(part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    rooms
}

fn check_floors(src: &Path, floors: &[(&str, u8)]) {
    let floor = |room: &str| floors.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor);
    let mut wrong = Vec::new();
    for file in sources(src) {
        let own = room(&file, src);
        if own == "lib" {
            continue;
        }
        let Some(own_floor) = floor(&own) else {
            wrong.push(format!("{}: room '{own}' is on no floor; add it to FLOORS", file.path.display()));
            continue;
        };
        for used in used_rooms(&file.text) {
            // Other words after `crate::` are names in lib.rs.
            if let Some(used_floor) = floor(&used)
                && used != own
                && used_floor >= own_floor
            {
                wrong.push(format!(
                    "{}: '{own}' (floor {own_floor}) uses '{used}' (floor {used_floor})",
                    file.path.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn rooms_use_only_rooms_on_lower_floors() {
    check_floors(&manifest_dir().join("src"), &FLOORS);
    check_floors(&manifest_dir().join("model/src"), &MODEL_FLOORS);
}

#[test]
fn only_its_own_room_knows_a_library() {
    let rules: [(&str, &[&str]); 18] = [
        ("redb::", &["store"]),
        ("aws_config::", &["aws"]),
        ("aws_sdk_s3::", &["aws", "source"]),
        ("aws_sdk_dynamodb::", &["aws", "source"]),
        ("aws_sdk_dynamodbstreams::", &["aws", "source"]),
        ("moka::", &["store"]),
        ("wasmtime::", &["plugin"]),
        ("parquet::", &["source", "cli"]),
        ("arrow::", &["source", "sync", "http", "cli"]),
        ("serde_json::", &["http", "cli", "store", "source", "sync", "plugin"]),
        ("hyper::", &["http", "grpc", "cli"]),
        ("tonic::", &["grpc"]),
        ("tonic_health::", &["grpc"]),
        ("tonic_reflection::", &["grpc"]),
        ("prost_types::", &["grpc"]),
        ("rustls::", &["http"]),
        ("tokio_rustls::", &["http"]),
        ("aws_lc_rs::", &["http", "plugin"]),
    ];
    let src = manifest_dir().join("src");
    for file in sources(&src) {
        let own = room(&file, &src);
        for (library, rooms) in rules {
            let used = file.text.lines().any(|line| {
                let line = line.trim_start();
                !line.starts_with("//")
                    && (line.contains(&format!("use {library}")) || line.contains(&format!(" {library}")))
            });
            assert!(!used || rooms.contains(&own.as_str()), "{}: {library} belongs to {rooms:?}", file.path.display());
        }
    }
}

#[test]
fn the_walker_finds_imports_in_every_form() {
    let text = "use crate::a;\nuse crate::b::{c, d};\nuse crate::{\n    e::{F, g::H},\n    i::J,\n};\n// crate::k\nlet x = crate::l::m();";
    let rooms: Vec<String> = used_rooms(text).into_iter().collect();
    assert_eq!(rooms, ["a", "b", "e", "i", "l"]);
}

#[test]
fn every_source_file_says_what_it_is_for() {
    let root = manifest_dir().parent().unwrap();
    for dir in DIRS {
        for file in sources(&root.join(dir)) {
            // A file of tests beside the code that it tests is named after it.
            let beside = file.path.ends_with("tests.rs") && file.path.starts_with(root.join("host/model"));
            assert!(beside || file.text.starts_with("//! "), "{} does not open with a //! doc", file.path.display());
        }
    }
}

#[test]
fn no_file_is_longer_than_a_head_holds() {
    let root = manifest_dir().parent().unwrap();
    for dir in DIRS {
        for file in sources(&root.join(dir)) {
            let lines = file.text.lines().count();
            assert!(lines <= LINES_MAX, "{} has {lines} lines, more than {LINES_MAX}", file.path.display());
        }
    }
}

/// A name may mean a pipe or a device, and opening one may hang: `files` opens regular files only.
#[test]
fn only_files_opens_files_for_reading() {
    // The kernel's own files, directories that are synced, and what a command of the user's own project made.
    let allowed =
        ["files.rs", "memory/limit.rs", "telemetry.rs", "cli/plugin/build/rust.rs", "cli/plugin/build/python.rs"];
    let calls = ["fs::read(", "fs::read_to_string(", "File::open("];
    let src = manifest_dir().join("src");
    for file in sources(&src) {
        let name = file.path.strip_prefix(&src).unwrap();
        if allowed.iter().any(|it| name == Path::new(it))
            || name.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs")
        {
            continue;
        }
        let code = file.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        for line in code.lines().filter(|line| !line.contains("sync_all()")) {
            let found = calls.iter().find(|call| line.contains(*call));
            assert!(found.is_none(), "{}: open it by crate::files: {}", name.display(), line.trim());
        }
    }
}
