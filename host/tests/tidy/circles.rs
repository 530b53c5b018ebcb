//! Finds circular imports within a crate: files that import each other, directly or through other files.
//!
//! A submodule may import items of the modules that contain it. Tests are not checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::SourceFile;

/// The path of a file's module within its crate; empty for the root.
type Module = Vec<String>;

/// The files of one crate.
pub(crate) struct Files {
    /// For each file, the paths in imports and in code that begin with `crate`, `self` or `super`.
    paths: BTreeMap<Module, Vec<Vec<String>>>,
}

/// The maximum number of re-exports through which a name is followed.
const REEXPORTS_MAX: usize = 8;

// === impl Files ===

impl Files {
    pub(crate) fn of(src: &Path, files: &[SourceFile]) -> Self {
        let mut paths = BTreeMap::new();
        for file in files {
            let relative = file.path.strip_prefix(src).unwrap().with_extension("");
            let mut module: Module = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            if module.iter().any(|part| part == "tests") {
                continue;
            }
            module.retain(|part| part != "lib" && part != "main");
            paths.entry(module).or_insert_with(Vec::new).extend(paths_in(&file.text));
        }
        Self { paths }
    }

    /// Returns the imports that are part of a circle, as "file -> file".
    pub(crate) fn circles(&self) -> Vec<String> {
        let name = |module: &Module| if module.is_empty() { "lib".to_owned() } else { module.join("/") };
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (module, paths) in &self.paths {
            for used in paths.iter().map(|path| self.resolve(module, path, 0)) {
                let (from, to) = (name(module), name(&used));
                if !module.starts_with(&used) {
                    edges.entry(from).or_default().insert(to);
                }
            }
        }
        let mut circles = Vec::new();
        for (from, used) in &edges {
            let closing = used.iter().filter(|to| reaches(&edges, to, from));
            circles.extend(closing.map(|to| format!("{from} -> {to}")));
        }
        circles
    }

    /// Returns the file that defines a name. Follows re-exports and imports of other files.
    fn resolve(&self, from: &Module, path: &[String], depth: usize) -> Module {
        let mut module = if path[0] == "crate" { Module::new() } else { from.clone() };
        let mut rest = &path[usize::from(path[0] != "super")..];
        while rest.first().is_some_and(|part| part == "super") {
            module.pop();
            rest = &rest[1..];
        }
        while let Some(part) = rest.first() {
            module.push(part.clone());
            if !self.paths.contains_key(&module) {
                module.pop();
                break;
            }
            rest = &rest[1..];
        }
        // If a file imports the name, the file that defines the name is used.
        let imported =
            rest.first().and_then(|name| self.paths.get(&module)?.iter().find(|path| path.last() == Some(name)));
        match imported {
            Some(import) if depth < REEXPORTS_MAX => self.resolve(&module, import, depth + 1),
            _ => module,
        }
    }
}

/// Returns whether a chain of imports leads from one file to another.
fn reaches(edges: &BTreeMap<String, BTreeSet<String>>, from: &str, to: &str) -> bool {
    let (mut seen, mut left) = (BTreeSet::new(), vec![from]);
    while let Some(file) = left.pop() {
        if file == to {
            return true;
        }
        if seen.insert(file) {
            left.extend(edges.get(file).into_iter().flatten().map(String::as_str));
        }
    }
    false
}

/// Returns the paths in a file that begin with `crate`, `self` or `super`. Ignores the tests in the file.
fn paths_in(text: &str) -> Vec<Vec<String>> {
    let text = text.replace("#[cfg(test)]\nmod tests;", "");
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code: String =
        code.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [line, "\n"]).collect();
    let mut found = Vec::new();
    for root in ["crate::", "self::", "super::"] {
        for (at, _) in code.match_indices(root) {
            // The second `super` in `super::super` does not begin a new path.
            if !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                tree(&code[at..], &[], &mut found);
            }
        }
    }
    found
}

/// Reads a path or a tree of imports at the beginning of a string. Returns the text after it.
fn tree<'t>(text: &'t str, prefix: &[String], found: &mut Vec<Vec<String>>) -> &'t str {
    let (mut text, mut path) = (text, prefix.to_vec());
    loop {
        if let Some(mut list) = text.strip_prefix('{') {
            loop {
                list = list.trim_start_matches([',', '*', ' ', '\n']);
                let rest = tree(list, &path, found);
                if rest.len() == list.len() {
                    return rest.strip_prefix('}').unwrap_or(rest);
                }
                list = rest;
            }
        }
        let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
        path.extend((end > 0).then(|| text[..end].to_owned()));
        text = &text[end..];
        let Some(rest) = text.strip_prefix("::") else {
            if path.len() > prefix.len() || !prefix.is_empty() {
                found.push(path);
            }
            return text;
        };
        text = rest;
    }
}
