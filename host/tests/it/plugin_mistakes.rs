//! The mistakes of plugin authors, from `larder plugin new` to requests, and the message for each of them.
//!
//! The text files in `plugin_mistakes/` have the complete messages. Run the tests with `UPDATE_EXPECT=1` to write them.

mod build;
mod check;
mod definitions;
mod deploy;
mod javascript;
mod serve;

use std::{fs, path::Path, process::Command};

use expect_test::ExpectFile;

use crate::{binary::Home, plugin_tools::end};

/// The mistakes of one stage, with the command that finds each of them, and its message.
struct Page {
    text: String,
}

// === impl Page ===

impl Page {
    fn new() -> Self {
        Self { text: String::new() }
    }

    /// Runs a command that finds a mistake.
    #[track_caller]
    fn run(&mut self, mistake: &str, home: &Home, command: &mut Command) {
        let ended = end(command);
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let shown = clean(&format!("larder {}", args.join(" ")), home);
        self.add(mistake, &shown, &clean(&ended.err, home));
    }

    /// Adds a mistake and its message, after a check that the message is for people.
    #[track_caller]
    fn add(&mut self, mistake: &str, command: &str, message: &str) {
        assert!(!message.trim().is_empty(), "{mistake}: no message");
        for line in message.lines() {
            assert!(line.matches("hint: ").count() <= 1, "{mistake}: two hints in one message: {line}");
        }
        for debug in ["\\n", "Some(", "Err(", "Error {", "wasm trap: ", "{:?}"] {
            assert!(!message.contains(debug), "{mistake}: '{debug}' is not for people: {message}");
        }
        self.text += &format!("## {mistake}\n$ {command}\n{}\n\n", message.trim_matches('\n'));
    }

    fn assert_eq(self, expected: ExpectFile) {
        expected.assert_eq(&self.text);
    }
}

/// Returns the output of a command without parts that differ between machines: paths, times, and lines about the progress
/// of a build.
fn clean(text: &str, home: &Home) -> String {
    // The tools are installed by the first build on a machine.
    const PROGRESS: [&str; 4] = [
        "building a component from",
        "installing componentize-",
        "this may be specific to this machine's",
        "no server is running",
    ];
    let dir = format!("{}/", home.path("").display()).replace("//", "/");
    let text = text.replace(env!("CARGO_BIN_EXE_larder"), "larder").replace(&dir, "");
    let lines = text.lines().filter(|line| !PROGRESS.iter().any(|start| line.starts_with(start)));
    lines.map(|line| without_row_count(without_time(line)) + "\n").collect()
}

/// Replaces the number of generated rows, which depends on the speed of the machine.
fn without_row_count(line: &str) -> String {
    let count = |rest: &str| rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    match line.split_once(": all ") {
        Some((start, rest)) if count(rest) > 0 && rest[count(rest)..].starts_with(" rows failed") => {
            format!("{start}: all ROWS{}", &rest[count(rest)..])
        }
        _ => line.to_owned(),
    }
}

/// Returns a log line without the time at its start.
fn without_time(line: &str) -> &str {
    match line.split_once("Z ") {
        Some((time, rest)) if time.len() == 26 && time.starts_with("20") => rest.trim_start(),
        _ => line,
    }
}

/// Counts the mistakes in the expected texts, so that none of the stages is left out.
#[test]
fn every_stage_has_mistakes() {
    const STAGES: [&str; 10] = [
        "new",
        "build",
        "check",
        "javascript_build",
        "javascript_check",
        "run",
        "definitions",
        "deploy",
        "rollback",
        "serve",
    ];
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/plugin_mistakes");
    let page = |stage: &str| fs::read_to_string(dir.join(stage).with_extension("txt")).unwrap();
    let counts = STAGES.map(|stage| page(stage).lines().filter(|line| line.starts_with("## ")).count());
    assert!(counts.iter().all(|count| *count >= 4), "{counts:?}");
    assert!(counts.iter().sum::<usize>() >= 55, "{counts:?}");
}
