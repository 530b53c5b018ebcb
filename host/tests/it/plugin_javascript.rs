//! JavaScript plugins: new projects, the tests of the kit, and the class of the component.

use std::{fs, path::Path, process::Command};

use larder_plugin_host::PluginClass;

use crate::{
    binary::Home,
    plugin_tools::{end, in_tree, run, runtime, tool},
};

/// Runs the tests of a JavaScript project.
#[track_caller]
pub(crate) fn assert_node_tests_pass(dir: &Path) {
    let mut node = Command::new("node");
    let ended = end(node.args(["--test", "--test-reporter=tap"]).current_dir(dir));
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
    assert!(ended.out.contains("\n# fail 0"), "{}", ended.out);
    assert!(!ended.out.contains("\n# pass 0"), "{}", ended.out);
}

#[test]
fn javascript_kit_and_example_pass_tests() {
    assert_node_tests_pass(&in_tree("plugins/sdk/js"));
    assert_node_tests_pass(&in_tree("plugins/examples/churn-js"));
}

#[test]
fn javascript_project_builds_and_reports_errors() {
    let home = Home::empty();
    let made = run(&home, ["plugin", "new", "ratio", "--lang", "js"]);
    made.assert_code(0);
    for line in ["cd ratio", "node --test", "plugin build"] {
        assert!(made.out.contains(line), "{}", made.out);
    }
    assert!(home.path("ratio/.gitignore").is_file());
    assert_node_tests_pass(&home.path("ratio"));

    let built = run(&home, ["plugin", "build", "ratio"]);
    built.assert_code(0);
    assert!(built.out.contains("built ratio 0.1.0 in "), "{}", built.out);
    let component = fs::read(home.path("ratio/ratio.wasm")).unwrap();
    let loaded = runtime().load(&component).unwrap();
    assert_eq!((loaded.class(), loaded.language()), (PluginClass::Interpreted, "javascript"));
    assert_eq!((loaded.build().unwrap().sdk.as_str(), loaded.contract()), ("0.3.0", "0.3"));
    assert_eq!(loaded.signature().doc, "The ratio of two numbers.");
    run(&home, ["plugin", "check", "ratio/ratio.wasm"]).assert_code(0);

    // Builds the project without a change, with an error, which keeps the previous build, and with the original sources
    // again.
    let again = run(&home, ["plugin", "build", "ratio"]);
    assert!(again.assert_code(0).out.contains("ratio.wasm is up to date"), "{}", again.out);
    let source = fs::read_to_string(home.path("ratio/plugin.js")).unwrap();
    home.write("ratio/plugin.js", &source.replace("outputs: {", "output: {"));
    let failed = run(&home, ["plugin", "build", "ratio"]);
    failed.assert_code(1).assert_complains(&["there is no option 'output' (did you mean 'outputs'?)", "at plugin.js:"]);
    assert_eq!(fs::read(home.path("ratio/ratio.wasm")).unwrap(), component);
    home.write("ratio/plugin.js", &source);
    assert!(run(&home, ["plugin", "build", "ratio"]).assert_code(0).out.contains("up to date"));
}

/// Packages of npm and other modules of the project become part of the component.
#[test]
fn modules_of_project_are_included() {
    let home = Home::empty();
    run(&home, ["plugin", "new", "ratio", "--lang", "js"]).assert_code(0);
    let source = fs::read_to_string(home.path("ratio/plugin.js")).unwrap();
    let imports = "import { half } from \"halves\";\nimport { twice } from \"./lib/twice.js\";\n";
    home.write(
        "ratio/plugin.js",
        &format!("{imports}{}", source.replace("return numerator", "return twice(half(numerator))")),
    );
    home.write("ratio/lib/twice.js", "export const twice = (x) => x * 2;\n");
    home.write("ratio/node_modules/halves/package.json", r#"{"name": "halves", "type": "module", "main": "index.js"}"#);
    home.write("ratio/node_modules/halves/index.js", "export const half = (x) => x / 2;\n");
    run(&home, ["plugin", "build", "ratio"]).assert_code(0);
    let printed = run(&home, ["plugin", "run", "ratio/ratio.wasm", "--input", "ratio/rows.json", "--json"]);
    assert!(printed.out.contains("\"ratio\":1.5"), "{}{}", printed.out, printed.err);
}

/// An error has the line in the plugin, and the log has the stack. Lines of `console` are in the log.
#[test]
fn errors_and_console_reach_the_log() {
    let home = Home::empty();
    run(&home, ["plugin", "new", "ratio", "--lang", "js"]).assert_code(0);
    let source = fs::read_to_string(home.path("ratio/plugin.js")).unwrap();
    let code = "console.warn('seen', { denominator }); throw new RangeError('too low');";
    home.write(
        "ratio/plugin.js",
        &source.replace("throw new Fault(`the denominator ${denominator} is below 0`);", code),
    );
    run(&home, ["plugin", "build", "ratio"]).assert_code(0);
    let ended = run(&home, ["plugin", "run", "ratio/ratio.wasm", "--input", "ratio/rows.json"]);
    let printed = format!("{}{}", ended.out, ended.err);
    for text in
        ["RangeError: too low (plugin.js:18, in derive)", "seen {\"denominator\":-2}", "at derive (plugin.js:18)"]
    {
        assert!(printed.contains(text), "{text} is not in {printed}");
    }
}

/// A directory without the file that is written last is installed again.
#[test]
fn unfinished_installation_is_repeated() {
    let home = Home::empty();
    run(&home, ["plugin", "new", "ratio", "--lang", "js"]).assert_code(0);
    home.write("cache/componentize-qjs-0.4.5/node_modules/componentize-qjs/cli.mjs", "process.exit(0);\n");
    let build = |cache| end(tool(&home, ["plugin", "build", "ratio"]).env("LARDER_CACHE", home.path(cache)));
    let built = build("cache");
    built.assert_code(0);
    assert!(built.err.contains("installing componentize-qjs 0.4.5"), "{}", built.err);
    let ready = home.path("cache/componentize-qjs-0.4.5/ready");
    assert!(ready.is_file());
}
