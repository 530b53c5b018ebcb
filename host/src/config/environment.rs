//! Reads settings from the environment and the command line: a variable or a flag replaces the file's value before
//! values are checked.
//!
//! The same checks therefore apply to all settings. A message about a value from a variable or a flag names the
//! variable or the flag instead of the file.

use larder_model::yaml::{Located, Node, Place, Tree};

/// Returns the value of an environment variable; `None` if it is not set.
pub type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// A setting from the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// The name for messages, such as `--listen`.
    pub name: &'static str,
    /// The environment variable that it overrides.
    pub variable: &'static str,
    /// The value, as text.
    pub value: String,
}

/// The entries of a mapping in the file.
pub(super) type Entries = Vec<(Located<String>, Node)>;

/// A key that a variable can set: `LARDER_SERVER_LISTEN` sets `server: listen`.
pub(super) struct Override {
    /// The path of the key, from the top.
    path: &'static [&'static str],
    kind: Kind,
}

/// How a variable's text is interpreted.
#[derive(Clone, Copy)]
enum Kind {
    /// Text, even if it looks like a number.
    Text,
    /// Text that can be parsed as a boolean or an integer becomes one. Other text stays text.
    Plain,
}

/// The settings that a variable can override: settings that differ between instances of one image, and settings that
/// users change for a single run.
pub(super) const OVERRIDES: &[Override] = &[
    Override { path: &["project"], kind: Kind::Text },
    Override { path: &["feast", "repo"], kind: Kind::Text },
    Override { path: &["feast", "values"], kind: Kind::Text },
    Override { path: &["server", "listen"], kind: Kind::Text },
    Override { path: &["server", "unix_socket"], kind: Kind::Text },
    Override { path: &["server", "insecure"], kind: Kind::Plain },
    Override { path: &["server", "workers"], kind: Kind::Plain },
    Override { path: &["grpc", "listen"], kind: Kind::Text },
    Override { path: &["grpc", "insecure"], kind: Kind::Plain },
    Override { path: &["metrics", "listen"], kind: Kind::Text },
    Override { path: &["metrics", "insecure"], kind: Kind::Plain },
    Override { path: &["admin", "socket"], kind: Kind::Text },
    Override { path: &["aws", "region"], kind: Kind::Text },
    Override { path: &["aws", "profile"], kind: Kind::Text },
    Override { path: &["aws", "s3_endpoint"], kind: Kind::Text },
    Override { path: &["aws", "s3_path_style"], kind: Kind::Plain },
    Override { path: &["aws", "dynamodb_endpoint"], kind: Kind::Text },
    Override { path: &["store", "data_dir"], kind: Kind::Text },
    Override { path: &["store", "page_cache"], kind: Kind::Plain },
    Override { path: &["store", "hot_cache"], kind: Kind::Plain },
    Override { path: &["store", "free_bytes_min"], kind: Kind::Plain },
    Override { path: &["store", "file_bytes_max"], kind: Kind::Plain },
    Override { path: &["store", "check_on_open"], kind: Kind::Plain },
    Override { path: &["serving", "ttl"], kind: Kind::Text },
    Override { path: &["plugins", "dir"], kind: Kind::Text },
    Override { path: &["sync", "on_start"], kind: Kind::Plain },
    Override { path: &["log", "level"], kind: Kind::Text },
    Override { path: &["log", "format"], kind: Kind::Text },
];

/// Variables of earlier versions, with the keys that they set. These keys were removed too, so if such a variable is
/// set, it is reported as an unknown key.
const RETIRED: &[(&str, &[&str])] = &[("LARDER_FEAST_FROM", &["feast", "from"])];

/// Reads a variable of this process's environment. The configuration reads variables only through this function.
#[must_use]
pub fn process_environment(name: &str) -> Option<String> {
    // Invalid Unicode is replaced instead of ignored, so that the checks of the value can report it.
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// Replaces values in the file's tree with the values of variables that are set. A flag takes precedence over its
/// variable. An empty value is ignored, because a template that lacks a value produces an empty variable.
pub(super) fn overlay(entries: &mut Entries, flags: &[Flag], env: Environment<'_>) {
    let known = OVERRIDES.iter().map(|key| (key.variable(), key.path, key.kind));
    let retired = RETIRED.iter().map(|(variable, path)| ((*variable).to_owned(), *path, Kind::Text));
    for (variable, path, kind) in known.chain(retired) {
        let flag = flags.iter().find(|flag| flag.variable == variable);
        let text = flag.map(|flag| flag.value.clone()).or_else(|| env(&variable));
        if let Some(text) = text.filter(|text| !text.trim().is_empty()) {
            let at = Place::file(flag.map_or(&*variable, |flag| flag.name));
            let tree = kind.tree(text.trim());
            put(entries, path, Node { at, tree });
        }
    }
}

/// Sets the value at a path. Adds sections that are missing.
fn put(entries: &mut Entries, path: &[&str], value: Node) {
    let [name, deeper @ ..] = path else { return };
    let place = entries.iter().position(|(key, _)| key.value == *name).unwrap_or_else(|| {
        let key = Located { value: (*name).to_owned(), at: value.at.clone() };
        entries.push((key, Node { at: value.at.clone(), tree: Tree::Null }));
        entries.len() - 1
    });
    let node = &mut entries[place].1;
    if deeper.is_empty() {
        *node = value;
        return;
    }
    if node.tree == Tree::Null {
        node.tree = Tree::Map(Vec::new());
    }
    // If the section in the file is not a mapping, the reader of the section reports that.
    if let Tree::Map(entries) = &mut node.tree {
        put(entries, deeper, value);
    }
}

// === impl Override ===

impl Override {
    pub(super) fn variable(&self) -> String {
        format!("LARDER_{}", self.path.join("_").to_uppercase())
    }
}

// === impl Kind ===

impl Kind {
    fn tree(self, text: &str) -> Tree {
        match (self, text) {
            (Self::Plain, "true") => Tree::Bool(true),
            (Self::Plain, "false") => Tree::Bool(false),
            (Self::Plain, _) => text.parse().map_or_else(|_| Tree::Text(text.to_owned()), Tree::Int),
            (Self::Text, _) => Tree::Text(text.to_owned()),
        }
    }
}
