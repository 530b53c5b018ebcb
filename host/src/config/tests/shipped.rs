//! Tests of the files in `configs/`, which users copy and edit.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use larder_model::yaml::{self, Node, Problems, Tree};

use super::{comparable, lines, nested, no_env, parse, parse_with};
use crate::config::{
    Config,
    environment::{OVERRIDES, Override},
    load_definitions,
};

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs")
}

fn yaml_files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect()
}

/// Returns the shipped file with the comment marks removed from keys that are commented out (`#key:`).
fn with_every_key(text: &str) -> String {
    let line = |line: &str| match line.trim_start().strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => line.replacen('#', "", 1),
        _ => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Collects the path of every valid key in a section, from the hint about an unknown key.
fn known_keys(path: &[String], found: &mut BTreeSet<Vec<String>>) {
    let sections: Vec<&str> = path.iter().map(String::as_str).collect();
    let problems = parse_with(&nested(&sections, "zzzz: 1"), &[]).unwrap_err();
    let help = problems.iter().find(|problem| problem.message.ends_with("unknown key 'zzzz'"));
    let Some(keys) = help.and_then(|problem| problem.help.as_deref()?.strip_prefix("known keys: ")) else { return };
    for key in keys.split(", ") {
        let path = [path, &[key.to_owned()]].concat();
        known_keys(&path, found);
        found.insert(path);
    }
}

fn has_key(node: &Node, path: &[String]) -> bool {
    let Some((key, rest)) = path.split_first() else { return true };
    let Tree::Map(entries) = &node.tree else { return false };
    entries.iter().any(|(name, node)| name.value == *key && has_key(node, rest))
}

#[test]
fn every_shipped_file_loads_without_warnings() {
    let files = yaml_files(&configs());
    assert!(!files.is_empty());
    for path in files {
        // The registry in S3 cannot be read in this test.
        let config = Config::load(&path, &no_env).unwrap_or_else(|error| panic!("{error}"));
        let config = Config { feast: None, ..config };
        let loaded = load_definitions(&config).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(lines(&loaded.warnings), "");
        let is_production = path.file_name().is_some_and(|name| name == "production.yaml");
        let mut all = yaml_files(&configs().join(if is_production { "production" } else { "features" }));
        all.sort();
        assert_eq!(loaded.files, all, "no configuration names one of the definition files");
    }
}

#[test]
fn shipped_file_has_keys_with_defaults() {
    let text = fs::read_to_string(configs().join("larder.yaml")).unwrap();
    let full = with_every_key(&text);
    for text in [&text, &full] {
        assert_eq!(comparable(parse(text)), comparable(parse("")));
    }

    let mut known = BTreeSet::new();
    known_keys(&[], &mut known);
    assert!(known.len() > 30, "{known:?}");
    let root = yaml::parse("larder.yaml", &full, &Problems::default()).unwrap();
    for path in &known {
        assert!(has_key(&root, path), "{} is missing in configs/larder.yaml", path.join(": "));
    }
    for variable in OVERRIDES.iter().map(Override::variable) {
        assert!(text.contains(&format!("Environment: {variable}\n")), "{variable} is missing in configs/larder.yaml");
        let key = |path: &Vec<String>| variable == format!("LARDER_{}", path.join("_").to_uppercase());
        assert!(known.iter().any(key), "{variable} does not set a valid key");
    }
}

#[test]
fn churn_example_matches_the_guide() {
    let config = Config::load(&configs().join("larder.yaml"), &no_env).unwrap();
    let catalog = load_definitions(&config).unwrap().catalog;
    let counts =
        |name: &str| catalog.view(name).map(|view| (view.features.len(), view.ttl.map(|ttl| ttl.as_secs() / 86_400)));
    assert_eq!(counts("customer_behavior_features"), Some((5, Some(30))));
    assert_eq!(counts("customer_demographics_features"), Some((4, Some(365))));
    assert_eq!(counts("customer_contract_features"), Some((3, Some(365))));
    let features =
        |name: &str| catalog.service(name).unwrap().projections.iter().map(|p| p.features.len()).sum::<usize>();
    assert_eq!((features("churn_prediction_v1"), features("churn_prediction_online")), (12, 8));
    for view in catalog.views() {
        assert_eq!(view.tags.get("version").map(String::as_str), Some("v1"));
        assert!(view.tags.contains_key("owner") && !view.description.is_empty(), "{}", view.name);
        assert!(view.features.iter().all(|feature| !feature.description.is_empty()), "{}", view.name);
        let source = view.files().unwrap();
        assert_eq!(
            (source.timestamp_field.as_deref().unwrap_or_default(), source.created_timestamp_column.as_deref()),
            ("event_timestamp", Some("created"))
        );
    }
}
