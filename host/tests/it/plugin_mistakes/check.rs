//! Mistakes that `larder plugin check`, `run`, `bench` and `inspect` find, in a Python plugin and a compiled one that make
//! the mistake which their configuration names.

use std::{fs, path::PathBuf};

use expect_test::expect_file;

use super::Page;
use crate::{
    binary::Home,
    guests::{guest, guest_with},
    plugin_tools::tool,
};

/// Copies a plugin to the home under a short name, so that messages have no path.
fn bring(home: &Home, plugin: PathBuf, name: &str) {
    fs::copy(plugin, home.path(name)).unwrap();
}

#[test]
fn check_plugin() {
    let home = Home::empty();
    let mut page = Page::new();
    bring(&home, guest("mistakes"), "mistakes.wasm");
    bring(&home, guest("hostile"), "hostile.wasm");
    let good = r#"{"mistake": "none"}"#;
    let passed = tool(&home, ["plugin", "check", "mistakes.wasm", "--view-config", good]).output().unwrap();
    assert!(passed.status.success(), "{}", String::from_utf8_lossy(&passed.stderr));
    for (mistake, config) in [
        ("random numbers", "random"),
        ("the clock", "clock"),
        ("a pause", "sleep"),
        ("a file", "file"),
        ("an environment variable", "environment"),
        ("the network", "network"),
        ("a thread", "thread"),
        ("a process", "process"),
        ("an import in the function", "late_import"),
        ("a running total", "running_total"),
        ("the first row is kept", "first_row"),
        ("a null input", "null"),
        ("a division by zero", "division"),
        ("an endless recursion", "recursion"),
        ("an endless loop", "endless"),
        ("too much memory", "memory"),
        ("too large an output", "large_output"),
        ("a text for a number", "text_for_number"),
        ("a number for a text", "number_for_text"),
        ("a number out of range", "out_of_range"),
        ("NaN as a whole number", "nan_to_int"),
        ("invalid Unicode", "surrogate"),
        ("an output is misspelled", "misspelled"),
        ("an output is missing", "missing"),
        ("the return is missing", "no_return"),
        ("a null in an output that is never null", "null_output"),
        ("a debugger", "debugger"),
    ] {
        let config = format!(r#"{{"mistake": "{config}"}}"#);
        page.run(mistake, &home, &mut tool(&home, ["plugin", "check", "mistakes.wasm", "--view-config", &config]));
    }
    for (mistake, config) in [
        ("a key of the config is missing", "{}"),
        ("a key of the config is misspelled", r#"{"mistak": "none"}"#),
        ("a value of the config has the wrong type", r#"{"mistake": 3}"#),
        ("the config is not JSON", "{mistake"),
    ] {
        page.run(mistake, &home, &mut tool(&home, ["plugin", "check", "mistakes.wasm", "--view-config", config]));
    }
    for (mistake, config) in [
        ("a compiled plugin panics", r#"{"mode": "panic"}"#),
        ("some rows trap", r#"{"mode": "trap", "bad": 1000}"#),
        ("some rows loop endlessly", r#"{"mode": "spin", "bad": 1000}"#),
        ("some rows take too much memory", r#"{"mode": "memory", "bad": 1000}"#),
        ("the result has too few columns", r#"{"mode": "wrong_column_count", "bad": 1000}"#),
        ("the result has another type", r#"{"mode": "wrong_type", "bad": 1000}"#),
        ("the result has too few rows", r#"{"mode": "short_column", "bad": 1000}"#),
        ("the result is not UTF-8", r#"{"mode": "bad_utf8", "bad": 1000}"#),
        ("all rows fail", r#"{"mode": "fault"}"#),
        ("configure takes too long", r#"{"mode": "spin_configure"}"#),
        ("configure traps", r#"{"mode": "trap_configure"}"#),
    ] {
        page.run(mistake, &home, &mut tool(&home, ["plugin", "check", "hostile.wasm", "--view-config", config]));
    }
    for (mistake, features) in
        [("the signature changes", "changing-describe"), ("the initialization takes too long", "spin-start")]
    {
        bring(&home, guest_with("hostile", features), "hostile.wasm");
        page.run(mistake, &home, &mut tool(&home, ["plugin", "check", "hostile.wasm"]));
    }
    page.assert_eq(expect_file!["check.txt"]);
}

#[test]
fn run_plugin() {
    let home = Home::empty();
    let mut page = Page::new();
    bring(&home, guest("hostile"), "hostile.wasm");
    home.write("rows.json", r#"[{"x": 1.0}, {"x": 2000.0}]"#);
    home.write("misspelled.json", r#"[{"y": 1.0}]"#);
    home.write("text.json", r#"[{"x": 1.0}, {"x": "1"}]"#);
    home.write("object.json", r#"{"x": 1.0}"#);
    home.write("zero.json", r#"[{"x": -1.0}, {"x": 0.0}]"#);
    for (mistake, args) in [
        ("the file of the plugin does not exist", &["check", "absent.wasm"][..]),
        ("the file is not a plugin", &["inspect", "rows.json"]),
        ("the file of rows does not exist", &["run", "hostile.wasm", "--input", "absent.json"]),
        ("the Parquet file of rows does not exist", &["run", "hostile.wasm", "--input", "absent.parquet"]),
        ("the rows are not a list", &["run", "hostile.wasm", "--input", "object.json"]),
        ("an input of the rows is misspelled", &["run", "hostile.wasm", "--input", "misspelled.json"]),
        ("an input of the rows has the wrong type", &["run", "hostile.wasm", "--input", "text.json"]),
        (
            "a row fails",
            &["run", "hostile.wasm", "--input", "rows.json", "--view-config", r#"{"mode": "fault", "bad": 1000}"#],
        ),
        (
            "the plugin traps for zeros, and a deployment would be rejected",
            &["run", "hostile.wasm", "--input", "zero.json", "--view-config", r#"{"mode": "trap", "bad": 0}"#],
        ),
        ("some measured rows fail", &["bench", "hostile.wasm", "--view-config", r#"{"mode": "fault", "bad": 1e300}"#]),
        ("the measured rows fail", &["bench", "hostile.wasm", "--view-config", r#"{"mode": "fault"}"#]),
    ] {
        page.run(mistake, &home, &mut tool(&home, ["plugin"].into_iter().chain(args.iter().copied())));
    }
    page.assert_eq(expect_file!["run.txt"]);
}
