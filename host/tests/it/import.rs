//! `larder import`: the written files serve the same values as the repository, and nothing is overwritten.

use std::{fs, path::Path, process::Command};

use rustix::process::Signal;
use serde_json::json;

use crate::{
    feast_repo::{FEATURE_STORE, home, patch},
    fixture::Setup,
    guests::FEAST_ODFV,
    http::assert_all_recorded,
    wire,
};

#[test]
fn import_output_is_valid() {
    let home = home();
    fs::remove_file(home.path("larder.yaml")).unwrap();
    let ended = home.run(["import", "--out", "configs"]);
    ended.assert_code(0);
    for words in [
        "wrote configs/larder.yaml",
        "wrote configs/features/churn_prediction.yaml",
        "wrote 5 plugin projects in configs/plugin-projects (on-demand views need 5 plugins)",
        "plugin build configs/plugin-projects/odfv_python --out configs/plugins/odfv_python.wasm",
        "serve --config configs/larder.yaml",
    ] {
        assert!(ended.out.contains(words), "no '{words}' in: {}", ended.out);
    }
    let check = home.run(["check", "--config", "configs/larder.yaml"]);
    check.assert_code(0);
    assert!(
        check.out.contains("2 entities, 6 feature views with 24 features, 4 feature services: no errors"),
        "{}",
        check.out
    );

    let plugin = fs::read_to_string(home.path("configs/plugin-projects/odfv_python/plugin.py")).unwrap();
    for words in [
        "    name=\"odfv_python\",",
        "        \"amount\": Float64(\"A request input.\"),",
        "        \"conv_rate\": Float64(\"driver_stats:conv_rate\"),",
        "        \"label\": String(\"No description.\"),",
        "    #         \"label\": [f\"h{h}\" for h in inputs[\"hour\"]],",
        "    raise Fault(\"odfv_python is not implemented yet\")",
    ] {
        assert!(plugin.contains(words), "no '{words}' in:\n{plugin}");
    }
    assert!(!plugin.contains("avg_daily_trips\": Int64"), "the function does not read this input:\n{plugin}");
}

#[test]
fn nothing_is_overwritten() {
    let home = home();
    home.run(["import", "--out", "configs"]).assert_code(0);
    let before = fs::read_to_string(home.path("configs/larder.yaml")).unwrap();
    let again = home.run(["import", "--out", "configs"]);
    again.assert_code(1).assert_complains(&["configs/larder.yaml exists already; nothing was written"]);
    fs::remove_file(home.path("configs/larder.yaml")).unwrap();
    let again = home.run(["import", "--out", "configs"]);
    again.assert_code(1).assert_complains(&["configs/features/churn_prediction.yaml exists already"]);
    assert!(!home.path("configs/larder.yaml").is_file());
    assert!(before.contains("project: \"churn_prediction\"\n"));
}

#[test]
fn what_is_no_repository_is_named() {
    let home = home();
    let import = |repo: &str| home.run(["import", "--feast-repo", repo, "--out", "configs"]);
    import("nowhere").assert_code(1).assert_complains(&["cannot read nowhere"]);
    import("data").assert_code(3).assert_complains(&["data/feature_store.yaml", "a Feast repository is a directory"]);
    fs::write(home.path("data/registry.db"), "junk").unwrap();
    import(".").assert_code(3).assert_complains(&["this is not a Feast registry"]);
    assert!(!home.path("configs").is_dir(), "nothing is written if the import fails");
}

#[test]
fn unservable_definitions_become_comments() {
    let home = home();
    patch(&home, "data/global_stats.parquet", "gs://bucket/g_stats.parqu");
    let ended = home.run(["import", "--out", "configs"]);
    ended.assert_code(0).assert_complains(&["feature view 'global_stats' is not served: its batch source is gs:"]);
    let written = fs::read_to_string(home.path("configs/features/churn_prediction.yaml")).unwrap();
    assert!(written.contains("  # Not served: feature view global_stats: its batch source is gs:"), "{written}");
}

#[test]
fn imported_files_serve_like_repository() {
    let setup = Setup::golden().plugins(&FEAST_ODFV);
    fs::remove_dir_all(setup.path("features")).unwrap();
    fs::write(setup.path("feature_store.yaml"), FEATURE_STORE).unwrap();
    let dir = setup.path("");
    let done = Command::new(env!("CARGO_BIN_EXE_larder"))
        .args(["import", "--out", "moved", "--plugins", "plugins"])
        .current_dir(&dir)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && !said.contains("plugin project"), "{said}");
    // Paths in the written definitions are relative to the output directory. The test moves the definitions, so it also
    // changes the paths.
    fs::rename(dir.join("moved/features"), dir.join("features")).unwrap();
    let definitions = dir.join("features/churn_prediction.yaml");
    let text = fs::read_to_string(&definitions).unwrap();
    assert!(text.contains("path: ../data/customer_stats.parquet"), "{text}");
    fs::write(&definitions, text.replace("../data/", "data/")).unwrap();
    let fixture = setup.start();
    assert_all_recorded(&fixture);
}

#[test]
fn missing_plugin_project_builds() {
    let home = home();
    home.run(["import", "--out", "configs"]).assert_code(0);
    let project = home.path("configs/plugin-projects/odfv_python");
    let tested = Command::new("python3").args(["-m", "unittest"]).current_dir(&project).output().unwrap();
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));

    home.write("configs/larder.yaml", &(fs::read_to_string(home.path("configs/larder.yaml")).unwrap() + NO_PORTS));
    let mut host = home.start(["serve", "--config", "configs/larder.yaml"]);
    let line = host.until("serving listen=");
    let address = line.split("listen=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
    let ask = || {
        let entities = json!({ "driver_id": [1001], "amount": [2.0], "hour": [1] });
        let body = json!({ "features": ["odfv_python:label"], "entities": entities }).to_string();
        wire::send(address, "POST", "/get-online-features", &[], body.as_bytes())
    };
    let answer = ask();
    assert_eq!(answer.status, 501);
    let words = "derived view odfv_python has no plugin. hint: deploy odfv_python.wasm";
    assert!(answer.text().contains(words), "{}", answer.text());

    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("guests");
    // The build does not check the plugin, because a check would compile Python's interpreter. A test in
    // plugin_tools.rs already does this.
    let mut build =
        home.larder(["plugin", "build", "configs/plugin-projects/odfv_python", "--out", "stub.wasm", "--unchecked"]);
    let built = build.env("LARDER_PLUGIN_TARGET", target).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    assert!(home.path("stub.wasm").is_file());
    host.stop(Signal::TERM);
}

const NO_PORTS: &str = "server: {listen: 127.0.0.1:0}\nmetrics: {listen: off}\n";
