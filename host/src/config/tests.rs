//! Tests of the configuration. Each test compares the resulting settings, or all errors.
//!
//! * [`text`]: values in the text of a file, and their errors;
//! * [`access`]: keys and tokens, in the text and in their files;
//! * [`build`]: settings and definitions that need a Cargo feature;
//! * [`environment`]: environment variables that override the file;
//! * [`feast`]: a Feast repository's `feature_store.yaml`, of which Larder uses some settings;
//! * [`files`]: the configuration on disk, and the definitions that it names;
//! * [`logging`]: the feature log;
//! * [`plugins`]: the limits of plugins;
//! * [`shipped`]: the files in `configs/`.

mod access;
mod build;
mod environment;
mod feast;
mod files;
mod logging;
mod plugins;
mod shipped;
mod text;

use std::path::Path;

use expect_test::Expect;
use larder_model::{
    codec::KeyVersion,
    yaml::{Problem, Problems},
};

use super::Config;

const BASE: &str = "/etc/larder";

fn make_pipe(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn no_env(_: &str) -> Option<String> {
    None
}

fn parse_with(text: &str, env: &[(&str, &str)]) -> Result<Config, Vec<Problem>> {
    let env = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let problems = Problems::default();
    match Config::parse("larder.yaml", Path::new(BASE), text, &env, &problems) {
        Some(config) => {
            assert!(problems.into_sorted().is_empty(), "a valid configuration has problems");
            Ok(config)
        }
        None => Err(problems.into_sorted()),
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn parse(text: &str) -> Config {
    parse_with(text, &[]).unwrap_or_else(|problems| panic!("{text}: {}", lines(&problems)))
}

/// Parses a string with errors, and compares the messages.
#[track_caller]
fn check(text: &str, expected: Expect) {
    check_with(text, &[], expected);
}

#[track_caller]
fn check_with(text: &str, env: &[(&str, &str)], expected: Expect) {
    let problems = parse_with(text, env).expect_err("the configuration has no errors");
    expected.assert_eq(&lines(&problems));
}

/// Returns the addresses of the data listener and the metrics listener.
fn addresses(config: &Config) -> (String, String) {
    (config.http.listen.to_string(), config.metrics_listen.map_or("off".to_owned(), |listen| listen.to_string()))
}

/// Formats a configuration for comparison. Omits the positions of patterns, and adds the defaults of absent settings
/// that may come from a Feast repository.
fn comparable(config: Config) -> String {
    let project = config.project.clone().or_else(|| Some("default".to_owned()));
    let key_version = config.key_version.or_else(|| Some(KeyVersion::default()));
    let config = Config { project, key_version, ..config };
    let features: Vec<String> = config.features.iter().map(|written| written.value.clone()).collect();
    format!("{features:?} {:?}", Config { features: Vec::new(), ..config })
}

/// Returns the text of a configuration with one line in nested sections.
fn nested(path: &[&str], line: &str) -> String {
    let sections = path.iter().enumerate().map(|(depth, key)| format!("{}{key}:\n", "  ".repeat(depth)));
    sections.collect::<String>() + &"  ".repeat(path.len()) + line + "\n"
}
