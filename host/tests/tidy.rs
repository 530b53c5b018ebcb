//! Checks rules that the compiler does not check: layers of modules, circular imports, module documentation, lengths of
//! files, how files are opened, and the table of crates in `ARCHITECTURE.md`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "tidy/circles.rs"]
mod circles;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The layers of modules within crates. A module may only use modules of lower layers. The compiler cannot check this
/// within a crate.
const LAYERS: [(&str, &[(&str, u8)]); 2] = [
    ("host/src", &[("config", 1), ("offline", 2), ("app", 2), ("hints", 3), ("cli", 4), ("main", 5)]),
    ("host/model/src", &[("model", 1), ("codec", 2), ("yaml", 2), ("registry", 3)]),
];

/// The directories with Larder's Rust sources.
const DIRS: [&str; 29] = [
    "host/src",
    "host/captures/src",
    "host/client/src",
    "host/columns/src",
    "host/common/src",
    "host/feature_log/src",
    "host/grpc/src",
    "host/http/src",
    "host/ingest/src",
    "host/plugin/src",
    "host/serving/src",
    "host/source/src",
    "host/store/src",
    "host/sync/src",
    "host/training/src",
    "host/fakeaws/src",
    "host/fakeaws/tests",
    "host/fakeaws/dynoxide/src",
    "host/benches",
    "host/model/src",
    "host/tests",
    "loadtest/src",
    "python/src",
    "plugins/sdk/rust/src",
    "plugins/sdk/rust/macros/src",
    "plugins/examples",
    "plugins/feast_odfv",
    "plugins/bench",
    "plugins/hostile",
];

/// The maximum number of lines of a file.
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

/// Returns the top-level module of a file.
fn module(file: &SourceFile, src: &Path) -> String {
    let relative = file.path.strip_prefix(src).unwrap();
    let first = relative.components().next().unwrap().as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// Returns the names after `crate::` in a source text, in imports and in paths.
fn used_modules(text: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
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
                        modules.insert(std::mem::take(&mut word));
                    }
                    _ => {}
                }
            }
        } else {
            modules.insert(part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    modules
}

fn check_layers(src: &Path, layers: &[(&str, u8)]) {
    let layer = |module: &str| layers.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer);
    let mut wrong = Vec::new();
    for file in sources(src) {
        let own = module(&file, src);
        if own == "lib" {
            continue;
        }
        let Some(own_layer) = layer(&own) else {
            wrong.push(format!("{}: module '{own}' has no layer. hint: add it to LAYERS", file.path.display()));
            continue;
        };
        for used in used_modules(&file.text) {
            // Names that have no layer are items of lib.rs.
            if let Some(used_layer) = layer(&used)
                && used != own
                && used_layer >= own_layer
            {
                wrong.push(format!(
                    "{}: '{own}' (layer {own_layer}) uses '{used}' (layer {used_layer})",
                    file.path.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn modules_only_use_lower_layers() {
    let root = manifest_dir().parent().unwrap();
    for (src, layers) in LAYERS {
        check_layers(&root.join(src), layers);
    }
}

#[test]
fn files_do_not_import_each_other_in_circles() {
    let root = manifest_dir().parent().unwrap();
    for dir in DIRS.into_iter().filter(|dir| dir.starts_with("host/") && dir.ends_with("/src")) {
        let src = root.join(dir);
        let circles = circles::Files::of(&src, &sources(&src)).circles();
        assert!(circles.is_empty(), "circles of files in {dir}:\n{}", circles.join("\n"));
    }
}

#[test]
fn circle_of_files_is_found() {
    let file = |name: &str, text: &str| SourceFile { path: Path::new("src").join(name), text: text.to_owned() };
    let files = [
        file("lib.rs", "mod a;\nmod b;\npub use self::{a::{A, helper as help}, b::c::C};"),
        file("a.rs", "use super::{\n    C,\n    d::*,\n};"),
        file("b.rs", "mod c;"),
        file("b/c.rs", "// crate::d\nfn f() { crate::e::g(); }\n#[cfg(test)]\nmod tests {\n    use crate::d;\n}"),
        file("d.rs", "use crate::b;"),
        file("e.rs", "use crate::A;"),
    ];
    let files = circles::Files::of(Path::new("src"), &files);
    assert_eq!(files.circles(), ["a -> b/c", "b/c -> e", "e -> a"]);
}

#[test]
fn import_scanner_finds_every_form() {
    let text = "use crate::a;\nuse crate::b::{c, d};\nuse crate::{\n    e::{F, g::H},\n    i::J,\n};\n// crate::k\nlet x = crate::l::m();";
    let modules: Vec<String> = used_modules(text).into_iter().collect();
    assert_eq!(modules, ["a", "b", "e", "i", "l"]);
}

#[test]
fn every_source_file_has_module_doc() {
    let root = manifest_dir().parent().unwrap();
    for dir in DIRS {
        for file in sources(&root.join(dir)) {
            // In `larder-model`, the file tests.rs is in the directory of the module that it tests.
            let is_exempt = file.path.ends_with("tests.rs") && file.path.starts_with(root.join("host/model"));
            assert!(
                is_exempt || file.text.starts_with("//! "),
                "{} does not begin with a //! doc",
                file.path.display()
            );
        }
    }
}

#[test]
fn no_file_exceeds_line_limit() {
    let root = manifest_dir().parent().unwrap();
    for dir in DIRS {
        for file in sources(&root.join(dir)) {
            let lines = file.text.lines().count();
            assert!(lines <= LINES_MAX, "{} has {lines} lines, more than {LINES_MAX}", file.path.display());
        }
    }
}

/// Opening a path may block if the path leads to a pipe or a device. The module `files` opens only regular files.
#[test]
fn files_are_opened_only_by_files_module() {
    // These files may open other files directly: `files` itself, and code that reads files of the kernel or the output
    // of compilers. Opening a directory to flush it is also allowed.
    let allowed = [
        "host/common/src/files.rs",
        "host/common/src/memory/limit.rs",
        "host/common/src/telemetry.rs",
        "host/src/cli/plugin/tools/build/rust.rs",
        "host/src/cli/plugin/tools/build/python.rs",
    ];
    let calls = ["fs::read(", "fs::read_to_string(", "File::open("];
    let root = manifest_dir().parent().unwrap();
    let program = DIRS.iter().filter(|dir| dir.starts_with("host/") && dir.ends_with("/src"));
    for file in program.filter(|dir| !dir.contains("fakeaws")).flat_map(|dir| sources(&root.join(dir))) {
        let name = file.path.strip_prefix(root).unwrap();
        if allowed.iter().any(|it| name == Path::new(it))
            || name.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs")
        {
            continue;
        }
        let code = file.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        for line in code.lines().filter(|line| !line.contains("sync_all()")) {
            // Types may have names that end in `File`.
            let is_called = |call: &&&str| {
                let before = line.split(**call).next().filter(|before| before.len() < line.len());
                before.is_some_and(|before| !before.ends_with(|c: char| c.is_alphanumeric()))
            };
            let found = calls.iter().find(is_called);
            assert!(
                found.is_none(),
                "{} opens a file directly. hint: use larder_common::files: {}",
                name.display(),
                line.trim()
            );
        }
    }
}

/// Returns Larder's own crates among the dependencies of a manifest, without the prefix `larder-`.
fn own_dependencies(manifest: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    lines.filter_map(|line| Some(line.strip_prefix("larder-")?.split(['.', ' ']).next()?.to_owned())).collect()
}

#[test]
fn architecture_lists_the_crates_and_their_dependencies() {
    let root = manifest_dir().parent().unwrap();
    let page = fs::read_to_string(manifest_dir().join("ARCHITECTURE.md")).unwrap();
    let section = page.split("\n## Crates\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let listed: Vec<(String, String, String)> = section
        .lines()
        .filter(|line| line.starts_with("| `larder"))
        .map(|line| {
            let cells: Vec<String> = line.split('|').map(|cell| cell.trim().replace('`', "")).collect();
            (cells[1].clone(), cells[2].clone(), cells[3].clone())
        })
        .collect();
    let mut all: Vec<String> = Vec::new();
    for (name, dir, depends_on) in &listed {
        let manifest = fs::read_to_string(root.join(dir).join("Cargo.toml")).unwrap();
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{dir} is not {name}");
        all.extend(name.strip_prefix("larder-").map(str::to_owned));
        match name.as_str() {
            "larder" => {}
            // The only crate that depends on `larder`.
            "larder-python" => {
                let others = depends_on.strip_suffix(", and larder").unwrap_or_default();
                assert_eq!(own_dependencies(&manifest).join(", "), others, "{name}");
            }
            _ => assert_eq!(own_dependencies(&manifest).join(", "), *depends_on, "{name}"),
        }
    }
    all.sort();
    // The two artifacts are the program and the Python package.
    let manifests = ["host/Cargo.toml", "python/Cargo.toml"].map(|path| fs::read_to_string(root.join(path)).unwrap());
    let mut of_artifacts: Vec<String> = manifests.iter().flat_map(|manifest| own_dependencies(manifest)).collect();
    of_artifacts.push("python".to_owned());
    of_artifacts.sort();
    of_artifacts.dedup();
    assert_eq!(
        all, of_artifacts,
        "the table must list `larder`, `larder-python`, and exactly the crates that they use"
    );
}
