//! Mistakes in derived views that `larder check` finds.

use std::{fs, process::Command};

use expect_test::expect_file;

use super::Page;
use crate::{binary::Home, guests::guest};

const GOOD: &str = "entities:
  - {name: driver, join_key: driver_id, type: Int64}
derived_views:
  - name: trips
    plugin: odfv_singleton
    inputs: [{name: avg_daily_trips, request: Int64}]
    features: [{name: trips_plus_one, type: Int64}]
";

#[test]
fn check_definitions() {
    let home = Home::with(GOOD);
    home.configure("naming_warnings: false\n");
    let mut page = Page::new();
    fs::create_dir(home.path("plugins")).unwrap();
    fs::copy(guest("feast_odfv/odfv_singleton"), home.path("plugins/odfv_singleton.wasm")).unwrap();
    let mut check = home.larder(["check", "--offline"]);
    check.env("LARDER_CACHE", home.path("cache"));
    assert!(check.output().unwrap().status.success());
    let input = "{name: avg_daily_trips, request: Int64}";
    let feature = "{name: trips_plus_one, type: Int64}";
    for (mistake, from, to) in [
        ("the plugin's name is misspelled", "plugin: odfv_singleton", "plugin: odfv_singelton"),
        ("the plugin does not exist", "plugin: odfv_singleton", "plugin: rates"),
        ("an input has no source", input, "{name: avg_daily_trips}"),
        ("an input's type does not exist", "request: Int64", "request: Int46"),
        ("an input reads an unknown view", input, "{name: avg_daily_trips, from: 'drivers:trips'}"),
        ("an input reads an unknown join key", input, "{name: avg_daily_trips, key: drver_id}"),
        ("an input's type differs from the plugin's", "request: Int64", "request: String"),
        ("an input's name is misspelled in the view", "avg_daily_trips", "avg_dialy_trips"),
        ("an input is missing in the view", input, "{name: hour, request: Int64}"),
        ("a feature's type differs from the plugin's", "type: Int64}]\n", "type: String}]\n"),
        ("a feature's name is misspelled in the view", "trips_plus_one", "trips_plus_on"),
        (
            "the plugin does not compute a feature",
            feature,
            "{name: trips_plus_one, type: Int64}, {name: hour, type: Int64}",
        ),
        ("the view has no features", &*format!("[{feature}]"), "[]"),
        ("a key of the view is misspelled", "    plugin:", "    pluign:"),
        ("on_error is not valid", "    inputs:", "    on_error: ignore\n    inputs:"),
        (
            "on_error has a default for an unknown feature",
            "    inputs:",
            "    on_error: {default: {trips_plus_two: 1}}\n    inputs:",
        ),
        (
            "on_error has a default of the wrong type",
            "    inputs:",
            "    on_error: {default: {trips_plus_one: many}}\n    inputs:",
        ),
        ("a view reads itself", input, "{name: avg_daily_trips, from: 'trips:trips_plus_one'}"),
    ] {
        assert!(GOOD.contains(from), "{from}");
        // The names in `entities:` are not replaced.
        let (head, views) = GOOD.split_once("derived_views:").unwrap();
        home.write("features/all.yaml", &format!("{head}derived_views:{}", views.replacen(from, to, 1)));
        page.add(mistake, "larder check --offline", &warnings(&mut check, &home));
    }
    home.write("features/all.yaml", GOOD);
    let config = fs::read_to_string(home.path("larder.yaml")).unwrap();
    let mut warnings_with_limits_of = |plugin: &str| {
        home.write("larder.yaml", &format!("{config}plugins: {{overrides: {{{plugin}: {{time: 20ms}}}}}}\n"));
        warnings(&mut check, &home)
    };
    assert_eq!(warnings_with_limits_of("odfv_singleton"), "");
    let misspelled = warnings_with_limits_of("odfv_singelton");
    page.add("limits are those of an unknown plugin", "larder check --offline", &misspelled);
    home.write("larder.yaml", &config);
    let plugin = home.path("plugins/odfv_singleton.wasm");
    fs::rename(&plugin, home.path("plugins/trips.wasm")).unwrap();
    home.write("features/all.yaml", &GOOD.replace("    plugin: odfv_singleton\n", ""));
    let ended = crate::plugin_tools::end(&mut check);
    page.add(
        "the file does not have the name of the plugin",
        "larder check --offline",
        &super::clean(&ended.err, &home),
    );
    page.assert_eq(expect_file!["definitions.txt"]);
}

/// Runs a command, and returns the lines of its output with errors and warnings.
fn warnings(command: &mut Command, home: &Home) -> String {
    let ended = crate::plugin_tools::end(command);
    let text = super::clean(&format!("{}{}", ended.out, ended.err), home);
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("error: ") || line.contains("warning: ")).collect();
    lines.join("\n")
}
