//! Mistakes in JavaScript plugins that `larder plugin build` and `larder plugin check` find.

use std::fs;

use expect_test::expect_file;

use super::Page;
use crate::{
    binary::Home,
    guests::guest,
    plugin_tools::{programs, tool},
};

/// A plugin without a mistake. The cases replace parts of it.
const GOOD: &str = r#"import { plugin, types } from "./larder_plugin/index.js";

export default plugin({
  name: "ratio",
  version: "1.0.0",
  inputs: { x: types.Float64("A number.") },
  outputs: { y: types.Float64("A number.") },
  derive: ({ x }) => x,
});
"#;

#[test]
fn build_javascript_project() {
    let home = Home::empty();
    let mut page = Page::new();
    let build = || tool(&home, ["plugin", "build", "ratio"]);
    home.write("ratio/plugin.js", GOOD);
    for (mistake, scripts) in [
        ("Node.js is not installed", &[][..]),
        ("Node.js is too old", &[("node", "echo v18.19.0")]),
        ("npm is not installed", &[("node", "echo v20.11.0")]),
        ("npm has no network", &[("node", "echo v20.11.0"), ("npm", "echo 'npm error network' >&2; exit 1")]),
    ] {
        let mut command = build();
        page.run(mistake, &home, command.env("PATH", programs(&home, scripts)).env("LARDER_CACHE", home.path("cache")));
    }
    for (mistake, source) in mistakes() {
        home.write("ratio/plugin.js", &source);
        page.run(mistake, &home, &mut build());
        assert!(!home.path("ratio/ratio.wasm").is_file(), "{mistake}");
    }
    page.assert_eq(expect_file!["javascript_build.txt"]);
}

fn mistakes() -> Vec<(&'static str, String)> {
    let replaced = |from: &str, to: &str| {
        assert!(GOOD.contains(from), "{from}");
        GOOD.replacen(from, to, 1)
    };
    let at_the_top = |lines: &str| GOOD.replacen("\n\n", &format!("\n\n{lines}\n"), 1);
    vec![
        ("the syntax is wrong", replaced("({ x }) => x", "({ x } => x")),
        ("a type does not exist", replaced("types.Float64", "types.Float65")),
        ("an input has no description", replaced(r#"types.Float64("A number.") }"#, "types.Float64 }")),
        ("the description is left out of the call", replaced(r#"types.Float64("A number.") }"#, "types.Float64() }")),
        ("the inputs are a list", replaced(r#"{ x: types.Float64("A number.") }"#, r#"["x"]"#)),
        ("there are no outputs", replaced(r#"{ y: types.Float64("A number.") }"#, "{}")),
        ("an option is misspelled", replaced("derive:", "derve:")),
        ("the version is not a version", replaced("1.0.0", "1.0")),
        ("the function is async", replaced("derive: ", "derive: async ")),
        ("the plugin is not exported", replaced("export default plugin", "plugin")),
        ("another object is exported", "export default { name: \"ratio\" };\n".to_owned()),
        ("a package is not in the project", at_the_top("import \"lodash\";")),
        ("a module of Node.js is imported", at_the_top("import \"node:fs\";")),
        ("a name does not exist in the kit", replaced("plugin, types", "plugin, Float64")),
        ("the clock at the top of the module", at_the_top("const NOW = Date.now();")),
        ("random numbers at the top of the module", at_the_top("const SEED = Math.random();")),
        ("an error at the top of the module", at_the_top("null.rates;")),
    ]
}

#[test]
fn check_javascript_plugin() {
    let home = Home::empty();
    let mut page = Page::new();
    fs::copy(guest("mistakes-js"), home.path("mistakes.wasm")).unwrap();
    let check = |mistake: &str| {
        let config = format!(r#"{{"mistake": "{mistake}"}}"#);
        tool(&home, ["plugin", "check", "mistakes.wasm", "--view-config", &config])
    };
    let passed = check("none").output().unwrap();
    assert!(passed.status.success(), "{}", String::from_utf8_lossy(&passed.stderr));
    for (mistake, config) in [
        ("the clock", "clock"),
        ("the date", "date"),
        ("random numbers", "random"),
        ("a timer", "timer"),
        ("the network", "network"),
        ("an environment variable", "environment"),
        ("a running total", "running_total"),
        ("the first row is kept", "first_row"),
        ("a property of null", "null_property"),
        ("a BigInt and a number", "mixed_bigint"),
        ("an endless recursion", "recursion"),
        ("a fault", "fault"),
        ("an endless loop", "endless"),
        ("too much memory", "memory"),
        ("a text for a number", "text_for_number"),
        ("a fraction for a BigInt", "number_for_bigint"),
        ("an output is misspelled", "misspelled"),
        ("the return is missing", "missing"),
        ("a promise", "promise"),
        ("invalid Unicode", "surrogate"),
        ("the config is rejected", "other"),
    ] {
        page.run(mistake, &home, &mut check(config));
    }
    page.assert_eq(expect_file!["javascript_check.txt"]);
}
