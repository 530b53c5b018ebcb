//! Mistakes that `larder plugin new` and `larder plugin build` find. Most mistakes in Python are found by the check before
//! the build, within a second.

use std::fs;

use expect_test::expect_file;

use super::Page;
use crate::{
    binary::Home,
    plugin_tools::{programs, tool},
};

/// A plugin without a mistake. The cases replace parts of it.
const GOOD: &str = r#"from larder_plugin import Float64, plugin

@plugin(name="ratio", version="1.0.0", inputs={"x": Float64("A number.")}, outputs={"y": Float64("A number.")})
def derive(x):
    return x
"#;

#[test]
fn new_project() {
    let home = Home::empty();
    let mut page = Page::new();
    home.write("taken/notes.txt", "mine");
    let long = "a".repeat(65);
    for (mistake, args) in [
        ("the name has capital letters or dashes", &["My-Ratio", "--lang", "python"][..]),
        ("the name is a reserved word", &["fn", "--lang", "rust"]),
        ("the name is too long", &[&long, "--lang", "rust"]),
        ("the language does not exist", &["ratio", "--lang", "perl"]),
        ("the language is missing", &["ratio"]),
        ("the directory exists already", &["taken", "--lang", "python"]),
    ] {
        page.run(mistake, &home, &mut tool(&home, ["plugin", "new"].into_iter().chain(args.iter().copied())));
    }
    assert_eq!(fs::read_dir(home.path(".")).unwrap().count(), 1, "nothing was written");
    page.assert_eq(expect_file!["new.txt"]);
}

#[test]
fn build_project() {
    let home = Home::empty();
    let mut page = Page::new();
    fs::create_dir(home.path("empty")).unwrap();
    let build = |dir: &str| tool(&home, ["plugin", "build", dir]);
    page.run("the directory is not a project", &home, &mut build("empty"));
    home.write("both/Cargo.toml", "");
    home.write("both/plugin.py", "");
    page.run("the project has two languages", &home, &mut build("both"));
    home.write("python/plugin.py", GOOD);
    home.write("rust/Cargo.toml", "[package]\nname = \"p\"\n");
    let without_programs = |dir| {
        let mut command = build(dir);
        command.env("PATH", programs(&home, &[])).env("LARDER_CACHE", home.path("cache"));
        command
    };
    page.run("Python is not installed", &home, &mut without_programs("python"));
    page.run("Rust is not installed", &home, &mut without_programs("rust"));
    for (mistake, source) in python_mistakes() {
        home.write("ratio/plugin.py", &source);
        page.run(mistake, &home, &mut build("ratio"));
        assert!(!home.path("ratio/ratio.wasm").is_file(), "{mistake}");
    }
    rust_mistakes(&home, &mut page);
    page.assert_eq(expect_file!["build.txt"]);
}

fn python_mistakes() -> Vec<(&'static str, String)> {
    let replaced = |from: &str, to: &str| {
        assert!(GOOD.contains(from), "{from}");
        GOOD.replacen(from, to, 1)
    };
    let inputs = r#"inputs={"x": Float64("A number.")}"#;
    let outputs = r#"outputs={"y": Float64("A number.")}"#;
    let at_the_top = |lines: &str| format!("{lines}\n{GOOD}");
    vec![
        ("the syntax is wrong", replaced("derive(x):", "derive(x:")),
        ("a type does not exist", replaced("import Float64", "import Float65")),
        ("a type of another library is imported", replaced("import Float64", "import Decimal")),
        ("an input has a Python type", replaced(inputs, r#"inputs={"x": float}"#)),
        ("an input has no description", replaced(inputs, r#"inputs={"x": Float64}"#)),
        ("the description is left out of the call", replaced(inputs, r#"inputs={"x": Float64()}"#)),
        ("the inputs are a list", replaced(inputs, r#"inputs=["x"]"#)),
        ("there are no outputs", replaced(outputs, "outputs={}")),
        ("an output is required", replaced(outputs, r#"outputs={"y": Float64("A number.", required=True)}"#)),
        ("the version is missing", replaced(r#" version="1.0.0","#, "")),
        ("an argument is misspelled", replaced("outputs=", "output=")),
        ("the name is not named", replaced("name=", "")),
        ("the version is not a version", replaced("1.0.0", "1.0")),
        ("the plugin's name has a dash", replaced("\"ratio\"", "\"my-ratio\"")),
        ("a parameter is misspelled", replaced("inputs={\"x\"", "inputs={\"amount\"").replace("(x)", "(amuont)")),
        ("the function takes all inputs as one parameter", replaced("derive(x)", "derive(**x)")),
        ("the config is not a dataclass", replaced("@plugin(", "@plugin(config=dict, ")),
        ("the function is async", replaced("def ", "async def ")),
        ("the function yields", replaced("return", "yield")),
        ("a class is decorated", replaced("def derive(x):\n    return x", "class Derive:\n    pass")),
        (
            "the decorator has no arguments",
            "from larder_plugin import plugin\n\n@plugin\ndef derive(x):\n    return x\n".to_owned(),
        ),
        ("no function is decorated", "def derive(x):\n    return x\n".to_owned()),
        ("two functions are decorated", format!("{GOOD}{}", &GOOD[GOOD.find('@').unwrap_or(0)..])),
        ("numpy is imported", at_the_top("import numpy")),
        ("a package is not in the project", at_the_top("import requests")),
        ("a relative import", at_the_top("from .rates import RATES")),
        ("random numbers during the import", at_the_top("import random\nSEED = random.random()")),
        ("the clock during the import", at_the_top("import time\nNOW = time.time()")),
        ("an environment variable during the import", at_the_top("import os\nKEY = os.environ['RATES_KEY']")),
        ("a missing file during the import", at_the_top("RATES = open('rates.csv').read()")),
        (
            "the network during the import",
            at_the_top("import urllib.request\nurllib.request.urlopen('http://rates.example')"),
        ),
    ]
}

fn rust_mistakes(home: &Home, page: &mut Page) {
    assert!(tool(home, ["plugin", "new", "share", "--lang", "rust"]).output().unwrap().status.success());
    for (mistake, file, from, to) in [
        ("a type is not supported", "src/lib.rs", "numerator: Option<f64>", "numerator: Option<u8>"),
        ("an argument of the macro is misspelled", "src/lib.rs", "#[plugin(name", "#[plugin(nmae"),
        ("the macro has no version", "src/lib.rs", ", version = \"0.1.0\")", ")"),
        ("the Rust version is not a version", "src/lib.rs", "version = \"0.1.0\"", "version = \"1.0\""),
        ("the function in Rust is async", "src/lib.rs", "pub fn derive", "pub async fn derive"),
        ("the code does not compile", "src/lib.rs", "Ok(Derived { ratio })", "Ok(Derived { ratoi })"),
        ("no function has the macro", "src/lib.rs", "#[plugin(name = \"share\", version = \"0.1.0\")]", ""),
        ("the crate type is missing", "Cargo.toml", "crate-type = [\"cdylib\", \"rlib\"]", ""),
    ] {
        let path = format!("share/{file}");
        let good = fs::read_to_string(home.path(&path)).unwrap();
        assert!(good.contains(from), "{from}");
        home.write(&path, &good.replacen(from, to, 1));
        let ended = crate::plugin_tools::end(&mut tool(home, ["plugin", "build", "share"]));
        home.write(&path, &good);
        page.add(mistake, "larder plugin build share", &super::clean(&first_error(&ended.err), home));
    }
}

/// Returns the first error of cargo, with its position and the note of the kit, and the line of `larder`. The other lines
/// differ between versions of Rust.
fn first_error(printed: &str) -> String {
    // Names of crates in the progress of the build can contain "error", too.
    let is_error = |line: &&str| line.starts_with("error:") || line.starts_with("error[");
    let errors = || printed.lines().skip_while(|line| !is_error(line));
    let error = errors().take(1);
    let position = errors().find(|line| line.trim_start().starts_with("--> src/")).into_iter();
    let note = errors().find(|line| line.contains("= note: inputs are")).into_iter();
    let larder = printed.lines().filter(|line| line.starts_with("larder: "));
    error.chain(position).chain(note).chain(larder).map(|line| format!("{}\n", line.trim_start())).collect()
}
