//! Tests of files on disk: the configuration, and the definitions that it names.

use std::{fs, os::unix::fs::symlink};

use expect_test::{Expect, expect};

use super::{lines, make_pipe, no_env};
use crate::config::{Config, ConfigError, load_definitions, watched_files};

/// Creates files in a temporary directory.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn load(dir: &tempfile::TempDir) -> Config {
    Config::load(&dir.path().join("larder.yaml"), &no_env).unwrap()
}

/// Compares the definitions of a directory, or the problems in them. The directory's path is replaced by `DIR`.
#[track_caller]
fn check_definitions(dir: &tempfile::TempDir, expected: Expect) {
    let found = match load_definitions(&load(dir)) {
        Ok(loaded) => {
            let views: Vec<&str> = loaded.catalog.views().iter().map(|view| &*view.name).collect();
            let files: Vec<String> = loaded.files.iter().map(|path| path.display().to_string()).collect();
            format!("views: {}\nfiles: {}\n{}", views.join(", "), files.join(" "), lines(&loaded.warnings))
        }
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&found.replace(&dir.path().display().to_string(), "DIR"));
}

const ENTITY: &str = "entities: [{name: user_id, type: Int64}]\n";

fn view(name: &str) -> String {
    format!("feature_views: [{{name: {name}, entities: [user_id], features: [{{name: f, type: Int64}}]}}]\n")
}

#[test]
fn missing_file_is_named_in_error() {
    let dir = directory(&[]);
    let path = dir.path().join("larder.yaml");
    let error = Config::load(&path, &no_env).unwrap_err();
    assert!(matches!(&error, ConfigError::Io { path: named, .. } if *named == path));
    assert!(error.to_string().starts_with(&format!("cannot read {}: No such file", path.display())), "{error}");
}

#[test]
fn each_error_has_a_line() {
    let dir = directory(&[("larder.yaml", "a: 1\nb: 2\n")]);
    let error = Config::load(&dir.path().join("larder.yaml"), &no_env).unwrap_err();
    assert_eq!(error.to_string().lines().count(), 2);
    assert!(error.to_string().starts_with(&format!("{}/larder.yaml:1:1: error: ", dir.path().display())));
}

#[test]
fn definitions_come_from_matching_files() {
    let dir = directory(&[
        ("larder.yaml", "features: ['*.yaml', features/*.yaml, features/b_*, more/c.yaml]\n"),
        ("entities.yaml", ENTITY),
        ("features/b_b.yaml", &view("b_b")),
        ("features/a_a.yaml", &view("a_a")),
        ("features/.hidden.yaml", "nonsense"),
        ("features/readme.md", "nonsense"),
        ("features/sub.yaml/deep.yaml", "nonsense"),
        ("more/c.yaml", &view("c_c")),
        ("more/d.yaml", "nonsense"),
    ]);
    check_definitions(
        &dir,
        expect![[r#"
        views: a_a, b_b, c_c
        files: DIR/entities.yaml DIR/features/a_a.yaml DIR/features/b_b.yaml DIR/more/c.yaml
    "#]],
    );
    let watched: Vec<String> = watched_files(&load(&dir))
        .iter()
        .map(|path| path.strip_prefix(dir.path()).unwrap().display().to_string())
        .collect();
    let files = ["larder.yaml", "entities.yaml", "features/a_a.yaml", "features/b_b.yaml", "more/c.yaml"];
    assert_eq!(watched, [&files[..], &["", "features"]].concat());
}

#[test]
fn linked_definition_is_loaded() {
    // A mounted ConfigMap: the file is a link through a hidden directory.
    let dir = directory(&[("larder.yaml", ""), ("features/..data/a.yaml", &format!("{ENTITY}{}", view("a_a")))]);
    symlink("..data/a.yaml", dir.path().join("features/a.yaml")).unwrap();
    check_definitions(
        &dir,
        expect![[r#"
        views: a_a
        files: DIR/features/a.yaml
    "#]],
    );
}

#[test]
fn all_definition_errors_are_reported() {
    let dir = directory(&[
        (
            "larder.yaml",
            "features:\n  - features/*.yaml\n  - more/*.yaml\n  - absent/*.yaml\n  - lost.yaml\n  - more\n  - link*\n",
        ),
        ("features/a.yaml", &format!("{ENTITY}{}", view("a"))),
        ("features/b.yaml", "feature_views: [{name: b_b, entities: [user], features: []}]\n"),
        ("features/c.yaml", "entities: [\n"),
        ("more/readme.md", ""),
    ]);
    fs::write(dir.path().join("features/d.yaml"), b"\xff").unwrap();
    symlink("nowhere", dir.path().join("link")).unwrap();
    // The unknown entity 'user' is not reported: it may be defined in one of the unreadable files.
    check_definitions(
        &dir,
        expect![[r#"
        DIR/features/a.yaml:2:24: warning: these names do not follow the convention <domain>_<feature> for views and services, and snake_case for features: feature view 'a' (set 'naming_warnings: false' to turn this warning off)
        DIR/features/b.yaml:1:24: error: feature view 'b_b' has no features
        DIR/features/c.yaml:1:11: error: unclosed bracket '['
        DIR/larder.yaml: warning: references to unknown entities and views are not reported until all definitions can be read
        DIR/larder.yaml:2:5: error: features: cannot read DIR/features/d.yaml: stream did not contain valid UTF-8
        DIR/larder.yaml:3:5: error: features: 'more/*.yaml' matches no file (looked in DIR/more)
        DIR/larder.yaml:4:5: error: features: 'absent/*.yaml' matches no file (looked in DIR/absent)
        DIR/larder.yaml:5:5: error: features: cannot read DIR/lost.yaml: No such file or directory (os error 2)
        DIR/larder.yaml:6:5: error: features: cannot read DIR/more: Is a directory (os error 21) (to read the files in the directory, append '/*.yaml')
        DIR/larder.yaml:7:5: error: features: cannot read DIR/link: No such file or directory (os error 2)"#]],
    );
    // A file that is named without a pattern is watched even before it exists.
    assert!(watched_files(&load(&dir)).contains(&dir.path().join("lost.yaml")));
}

#[test]
fn warnings_do_not_prevent_loading() {
    let dir = directory(&[("larder.yaml", ""), ("features/a.yaml", &format!("{ENTITY}{}", view("a")))]);
    check_definitions(
        &dir,
        expect![[r#"
        views: a
        files: DIR/features/a.yaml
        DIR/features/a.yaml:2:24: warning: these names do not follow the convention <domain>_<feature> for views and services, and snake_case for features: feature view 'a' (set 'naming_warnings: false' to turn this warning off)"#]],
    );
}

#[test]
fn naming_warnings_can_be_disabled() {
    let off = [("larder.yaml", "naming_warnings: false\n"), ("features/a.yaml", &format!("{ENTITY}{}", view("a")))];
    check_definitions(
        &directory(&off),
        expect![[r#"
        views: a
        files: DIR/features/a.yaml
    "#]],
    );
}

#[test]
fn missing_definitions_are_an_error() {
    check_definitions(
        &directory(&[("larder.yaml", "")]),
        expect!["DIR/larder.yaml:1:1: error: features: 'features/*.yaml' matches no file (looked in DIR/features)"],
    );
}

#[test]
fn pipe_as_file_is_an_error() {
    let dir = directory(&[("larder.yaml", ""), ("features/a.yaml", &format!("{ENTITY}{}", view("a_b")))]);
    make_pipe(&dir.path().join("features/b.yaml"));
    check_definitions(
        &dir,
        expect![[r#"
            DIR/larder.yaml: warning: references to unknown entities and views are not reported until all definitions can be read
            DIR/larder.yaml:1:1: error: features: cannot read DIR/features/b.yaml: it is a named pipe, not a regular file"#]],
    );
    let path = dir.path().join("pipe.yaml");
    make_pipe(&path);
    let error = Config::load(&path, &no_env).unwrap_err().to_string();
    assert!(error.ends_with("pipe.yaml: it is a named pipe, not a regular file"), "{error}");
}
