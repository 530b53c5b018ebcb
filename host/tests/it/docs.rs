//! Compares the documentation with the program: commands, keys, routes and metrics. Also checks links.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use larder_http::ROUTES;
use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the strings in backticks in the first cells of a page's tables.
fn first_cells(page: &str) -> Vec<String> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split_once('`')).map(|(name, _)| name.to_owned()).collect()
}

fn help(command: &[String]) -> String {
    let mut larder = Command::new(env!("CARGO_BIN_EXE_larder"));
    larder.args(command).arg("--help").env("COLUMNS", "100");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LARDER_") {
            larder.env_remove(name);
        }
    }
    String::from_utf8(larder.output().unwrap().stdout).unwrap()
}

/// Appends a section for a command, and for each of its subcommands.
fn describe(command: &[String], page: &mut String) {
    let text = help(command);
    let title = [&["larder".to_owned()], command].concat().join(" ");
    page.push_str(&format!("\n## {title}\n\n```text\n{}\n```\n", text.trim_end()));
    let commands = text.split_once("Commands:\n").map_or("", |(_, after)| after.split("\n\n").next().unwrap());
    for line in commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")) {
        let name = line.split_whitespace().next().unwrap();
        if name != "help" {
            describe(&[command, &[name.to_owned()]].concat(), page);
        }
    }
}

#[test]
fn cli_reference_is_the_help_text() {
    let path = "docs/src/reference/cli.md";
    let page = read(path);
    let (head, _) = page.split_once("\n## larder\n").unwrap();
    let mut expected = head.to_owned();
    describe(&[], &mut expected);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(Path::new(ROOT).join(path), &expected).unwrap();
    } else {
        assert!(page == expected, "{path} is not the help text; run the test with UPDATE_EXPECT=1 to write it");
    }
}

#[test]
fn http_reference_has_all_routes() {
    let page = read("docs/src/reference/http.md");
    let titles: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .filter(|title| title.starts_with("GET ") || title.starts_with("POST "))
        .collect();
    let routes: Vec<String> = ROUTES.iter().map(|route| route.title().into_owned()).collect();
    assert_eq!(titles, routes.iter().map(String::as_str).collect());
    for route in ROUTES {
        let section = page.split(&format!("\n## {}\n", route.title())).nth(1).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let listeners: Vec<String> =
            route.listeners.iter().map(|listener| format!("{listener:?}").to_lowercase()).collect();
        let listeners = if listeners.len() == 3 { "all".to_owned() } else { listeners.join(", ") };
        let after = section.split(&format!("* **Listeners:** {listeners}")).nth(1).unwrap_or_default();
        let is_right = after.starts_with(". ") || after.starts_with(", if ");
        assert!(is_right, "{}: expected 'Listeners: {listeners}' in:{section}", route.title());
        assert_eq!(!section.contains("**Token:** none"), route.needs_token(), "{}: token", route.title());
    }
}

/// Adds the files with this extension in a directory and its subdirectories.
fn files(dir: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("tests") && !path.ends_with("fuzz") {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

#[test]
fn metrics_reference_has_all_metrics() {
    let mut sources = Vec::new();
    files(&Path::new(ROOT).join("host"), "rs", &mut sources);
    let mut named = BTreeSet::new();
    for path in sources.iter().filter(|path| path.components().any(|part| part.as_os_str() == "src")) {
        let text = fs::read_to_string(path).unwrap();
        for name in text.split('"').filter(|name| name.starts_with("larder_") || name.starts_with("feast_")) {
            if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
                named.insert(name.to_owned());
            }
        }
    }
    let described = first_cells(&read("docs/src/reference/metrics.md"));
    let described: BTreeSet<String> = described.into_iter().filter(|name| !name.starts_with("process_")).collect();
    let is_metric =
        |name: &&String| described.contains(*name) || name.ends_with("_total") || name.ends_with("_seconds");
    let named: BTreeSet<String> = named.iter().filter(is_metric).cloned().collect();
    assert_eq!(described, named);
}

/// Returns the keys in `configs/larder.yaml`. The file has all keys; some are commented out (`#key:`).
fn keys_of_example() -> BTreeSet<String> {
    let mut text = String::new();
    for line in read("configs/larder.yaml").lines() {
        let rest = line.trim_start();
        let is_key = rest.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
        text.push_str(&if is_key { line.replacen('#', "", 1) } else { line.to_owned() });
        text.push('\n');
    }
    let tree: Value = serde_yaml::from_str(&text).unwrap();
    let mut keys = BTreeSet::new();
    collect("", &tree, &mut keys);
    keys
}

fn collect(prefix: &str, tree: &Value, keys: &mut BTreeSet<String>) {
    let entries = match tree {
        Value::Object(entries) if !entries.is_empty() => entries,
        _ => {
            keys.insert(prefix.trim_end_matches('.').to_owned());
            return;
        }
    };
    for (name, value) in entries {
        collect(&format!("{prefix}{}.", name), value, keys);
    }
}

#[test]
fn config_reference_has_all_keys() {
    let page = read("docs/src/reference/config.md");
    let described: BTreeSet<String> = first_cells(&page).into_iter().collect();
    let tokens = ["name", "file", "services"].map(|key| format!("server.auth.tokens.{key}"));
    let expected: BTreeSet<String> = keys_of_example().into_iter().chain(tokens).collect();
    assert_eq!(described, expected);
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let (key, variable) = (cells[1], cells[4]);
        if !variable.is_empty() {
            assert_eq!(variable, format!("LARDER_{}", key.replace('.', "_").to_uppercase()), "{key}");
        }
    }
}

/// Returns the targets of the links on a page.
fn links(page: &str) -> Vec<String> {
    let mut links = Vec::new();
    for part in page.split("](").skip(1) {
        links.push(part.split(')').next().unwrap().to_owned());
    }
    links
}

/// Returns the anchor that Markdown renderers create for a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
}

#[test]
fn documentation_links_exist() {
    let root = Path::new(ROOT).canonicalize().unwrap();
    let mut pages = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "VERSIONING.md", "host/ARCHITECTURE.md"]
        .map(|page| root.join(page))
        .to_vec();
    files(&root.join("docs"), "md", &mut pages);
    let mut count = 0;
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        for link in links(&text).iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            assert!(target.try_exists().unwrap(), "{}: {link} does not exist", page.display());
            if !fragment.is_empty() && target.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(&target).unwrap();
                let has = text.lines().any(|line| line.starts_with('#') && anchor(line) == fragment);
                assert!(has, "{}: {link} has no such heading", page.display());
            }
            count += 1;
        }
    }
    assert!(count > 100, "{count} links");
}

#[test]
fn summary_lists_all_pages() {
    let book = Path::new(ROOT).join("docs/src");
    let summary = read("docs/src/SUMMARY.md");
    let listed: BTreeSet<String> = links(&summary).into_iter().collect();
    let mut pages = Vec::new();
    files(&book, "md", &mut pages);
    let pages: BTreeSet<String> =
        pages.iter().map(|page| page.strip_prefix(&book).unwrap().display().to_string()).collect();
    assert_eq!(listed, pages.into_iter().filter(|page| page != "SUMMARY.md").collect());
}

#[test]
fn readme_has_at_most_six_kilobytes() {
    assert!(read("README.md").len() <= 6_000);
}
