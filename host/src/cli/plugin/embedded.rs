//! The development kits and templates, which are embedded in the program. `plugin new` copies them, so that a plugin
//! project is self-contained.

use std::path::{Path, PathBuf};

/// A file: its path relative to its directory, and its contents.
pub(super) type File = (&'static str, &'static str);

macro_rules! files {
    ($from:literal: $($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../../../", $from, "/", $path)))),*]
    };
}

/// The plugin contract for projects of all languages.
pub(super) const CONTRACT: &[File] = files!("wit/0.3.0": "transform.wit");

/// The development kit for Rust, which is a crate. [`CONTRACT`] has the contract.
pub(super) const RUST_SDK: &[File] = files!("plugins/sdk/rust":
    "Cargo.toml", "macros/Cargo.toml", "macros/src/fields.rs", "macros/src/lib.rs", "macros/src/plugin.rs",
    "src/column.rs", "src/fault.rs", "src/frame.rs", "src/input.rs", "src/lib.rs", "src/list.rs", "src/log.rs",
    "src/output.rs", "src/run.rs", "src/run/config.rs", "src/testing.rs", "src/testing/columns.rs",
    "src/testing/table.rs", "src/testing/tests.rs", "src/testing/tests/allocations.rs", "src/testing/value.rs",
);

/// The template of a Rust project. `plugin new` writes `gitignore` as `.gitignore`. The file does not have this name
/// here, because Git would apply it in this repository.
pub(super) const RUST_TEMPLATE: &[File] =
    files!("plugins/templates/rust": "Cargo.toml", "README.md", "gitignore", "rows.json", "src/lib.rs");

/// The development kit for Python, which is a package.
pub(super) const PYTHON_SDK: &[File] = files!("plugins/sdk/python/larder_plugin":
    "__init__.py", "_check.py", "_declare.py", "_errors.py", "_frame.py", "_guest.py", "_instance.py", "_modules.py",
    "_project.py", "_reading.py", "_replacing.py", "_rows.py", "_sandbox.py", "_trace.py", "_types.py", "_values.py",
    "_writing.py", "log.py", "py.typed", "testing.py",
);

/// The template of a Python project.
pub(super) const PYTHON_TEMPLATE: &[File] =
    files!("plugins/templates/python": "README.md", "gitignore", "plugin.py", "rows.json", "test_plugin.py");

/// The development kit for JavaScript, which is a directory of modules.
pub(super) const JAVASCRIPT_SDK: &[File] = files!("plugins/sdk/js/larder_plugin":
    "declare.js", "errors.js", "frame.js", "guest.js", "index.d.ts", "index.js", "instance.js", "one_row.js", "rows.js",
    "sandbox.js", "testing.d.ts", "testing.js", "types.js", "values.js",
);

/// The template of a JavaScript project.
pub(super) const JAVASCRIPT_TEMPLATE: &[File] = files!("plugins/templates/js": "README.md", "gitignore", "package.json", "plugin.js", "plugin.test.js", "rows.json");

/// The npm project that installs the build tool for JavaScript, with the digests of its packages.
pub(super) const JAVASCRIPT_TOOL: &[File] = files!("plugins/sdk/js/tool": "package-lock.json", "package.json");

/// Returns the files of a Python project, with their paths relative to the project.
pub(in crate::cli) fn python_project(name: &str) -> Vec<(PathBuf, String)> {
    let template = PYTHON_TEMPLATE.iter().map(|(path, text)| (path_of("", path), text.replace("{{name}}", name)));
    let kit = PYTHON_SDK.iter().map(|(path, text)| (path_of("larder_plugin", path), (*text).to_owned()));
    template.chain(kit).collect()
}

/// Returns the path of an embedded file, relative to the project. `below` is the directory in the project for the files
/// of the list, such as `larder_plugin`.
pub(super) fn path_of(below: &str, path: &str) -> PathBuf {
    Path::new(below).join(path.replace("gitignore", ".gitignore"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn walk(dir: &Path, root: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // Links point to the contract, which is embedded with `CONTRACT`.
            if path.is_symlink() || ["target", "__pycache__", "Cargo.lock"].contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                walk(&path, root, found);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_string_lossy().into_owned());
            }
        }
    }

    #[test]
    fn every_kit_file_is_embedded() {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let lists = [
            ("wit/0.3.0", CONTRACT),
            ("plugins/sdk/rust", RUST_SDK),
            ("plugins/templates/rust", RUST_TEMPLATE),
            ("plugins/sdk/python/larder_plugin", PYTHON_SDK),
            ("plugins/templates/python", PYTHON_TEMPLATE),
            ("plugins/sdk/js/larder_plugin", JAVASCRIPT_SDK),
            ("plugins/sdk/js/tool", JAVASCRIPT_TOOL),
            ("plugins/templates/js", JAVASCRIPT_TEMPLATE),
        ];
        for (dir, files) in lists {
            let mut found = BTreeSet::new();
            walk(&tree.join(dir), &tree.join(dir), &mut found);
            let listed: BTreeSet<String> = files.iter().map(|(path, _)| (*path).to_owned()).collect();
            assert_eq!(listed, found, "{dir}");
        }
    }
}
