//! The files in `configs/aws` and `configs/k8s`. No test has access to AWS or Kubernetes, so the files are compared
//! with Larder's behavior, and with rules of both systems.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

mod aws;
mod k8s;

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the names of the files in a directory that have this suffix.
fn names(dir: &str, ending: &str) -> Vec<String> {
    let entries = fs::read_dir(top().join(dir)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(ending)).collect();
    names.sort();
    names
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("expected text, got {value}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("expected a list, got {value}"))
}
