//! `larder plugin new` and `larder plugin build`, as authors of plugins use them. Tests that new projects build without
//! changes, and the messages about invalid projects.
//!
//! componentize-py and Rust's libraries for WebAssembly are kept in the workspace's target directory, so that only the
//! first run has to download them.

use std::{
    env, fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use larder_model::model::{DerivedInput, DerivedView, Feature, InputSource, OnError, Tags, ValueRef};
use larder_plugin_host::{
    ColumnScalar, ColumnType, ColumnWriter, Component, FrameBuilder, PluginClass, PluginRuntime, PluginSettings,
    Transform,
};

use crate::{
    binary::{Ended, Home},
    guests::{compiler, guest},
};

/// Returns a directory that is kept between runs, next to the builds of `make`.
pub(crate) fn kept(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("guests").join(name);
    fs::create_dir_all(&dir).unwrap();
    dir
}

pub(crate) fn in_tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path)
}

/// Returns a command for the program with the caches of these tests.
pub(crate) fn tool<'a>(home: &Home, args: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = home.larder(args);
    command.env("LARDER_CACHE", kept("cache")).env("LARDER_PLUGIN_TARGET", kept(""));
    command
}

pub(crate) fn end(command: &mut Command) -> Ended {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

pub(crate) fn run<'a>(home: &Home, args: impl IntoIterator<Item = &'a str>) -> Ended {
    end(&mut tool(home, args))
}

/// Runs the tests of a Python project.
#[track_caller]
fn assert_unittests_pass(dir: &Path) {
    let mut python = Command::new("python3");
    let ended = end(python.args(["-B", "-m", "unittest"]).current_dir(dir));
    ended.assert_code(0);
    assert!(ended.err.contains("\nOK"), "{}", ended.err);
    assert!(!ended.err.contains("Ran 0 tests"), "{}", ended.err);
}

/// Creates a directory with programs that are shell scripts. It is used as the only entry of `PATH`.
pub(crate) fn programs(home: &Home, scripts: &[(&str, &str)]) -> PathBuf {
    let dir = home.path("programs");
    // An earlier case may have left programs. The call fails if the directory does not exist.
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    for (name, script) in scripts {
        home.write(&format!("programs/{name}"), &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    dir
}

// === An unchanged project ===

#[test]
fn python_project_builds_and_reports_errors() {
    let home = Home::empty();
    let made = run(&home, ["plugin", "new", "ratio", "--lang", "python"]);
    made.assert_code(0);
    for line in ["cd ratio", "python3 -m unittest", "plugin build"] {
        assert!(made.out.contains(line), "{}", made.out);
    }
    assert!(home.path("ratio/.gitignore").is_file());
    assert_unittests_pass(&home.path("ratio"));

    let built = run(&home, ["plugin", "build", "ratio"]);
    built.assert_code(0);
    assert!(built.out.contains("built ratio 0.1.0 in "), "{}", built.out);
    let component = fs::read(home.path("ratio/ratio.wasm")).unwrap();
    let runtime = runtime();
    let loaded = runtime.load(&component).unwrap();
    assert_eq!(loaded.class(), PluginClass::Interpreted);
    assert_eq!((loaded.build().unwrap().sdk.as_str(), loaded.contract()), ("0.3.0", "0.3"));
    assert_eq!(loaded.signature().doc, "The ratio of two numbers.");
    // The build does not write byte code into the project.
    assert!(!home.path("ratio/__pycache__").is_dir());

    // Builds the project without a change, with an error, which keeps the previous build, and with the original sources
    // again.
    let again = run(&home, ["plugin", "build", "ratio"]);
    assert!(again.assert_code(0).out.contains("ratio.wasm is up to date"), "{}", again.out);
    let source = fs::read_to_string(home.path("ratio/plugin.py")).unwrap();
    home.write("ratio/plugin.py", &source.replace("def derive(numerator, ", "def derive(numerater, "));
    let failed = run(&home, ["plugin", "build", "ratio"]);
    failed.assert_code(1).assert_complains(&[
        "File \"plugin.py\", line ",
        "parameter 'numerater' of derive() is not an input (did you mean 'numerator'?)",
        "larder: the plugin in ratio cannot be built",
    ]);
    for tools in ["componentize", "_declare.py", "larder_component", "Caused by", "site-packages"] {
        assert!(!failed.err.contains(tools), "{}", failed.err);
    }
    assert_eq!(fs::read(home.path("ratio/ratio.wasm")).unwrap(), component);
    home.write("ratio/plugin.py", &source);
    assert!(run(&home, ["plugin", "build", "ratio"]).assert_code(0).out.contains("up to date"));
}

#[test]
fn rust_project_builds_reproducibly() {
    let home = Home::empty();
    run(&home, ["plugin", "new", "share", "--lang", "rust"]).assert_code(0);
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--quiet", "--target-dir"]).arg(kept("native")).current_dir(home.path("share"));
    end(&mut cargo).assert_code(0);

    let built = run(&home, ["plugin", "build", "share"]);
    built.assert_code(0);
    assert!(built.out.contains("built share 0.1.0 in "), "{}", built.out);
    let component = fs::read(home.path("share/share.wasm")).unwrap();
    let loaded = runtime().load(&component).unwrap();
    assert_eq!((loaded.language(), loaded.signature().outputs.len()), ("rust", 1));
    // The version of the SDK comes from the kit's copy in the project.
    assert_eq!((loaded.build().unwrap().sdk.as_str(), loaded.contract()), ("0.3.0", "0.3"));
    let kit = fs::read_to_string(home.path("share/larder-plugin/Cargo.toml")).unwrap();
    assert!(kit.contains("\nversion = \"0.3.0\"\n"), "{kit}");
    assert!(run(&home, ["plugin", "build", "share"]).assert_code(0).out.contains("up to date"));

    run(&home, ["plugin", "new", "share", "--lang", "rust", "--dir", "some where/else"]).assert_code(0);
    fs::copy(home.path("share/Cargo.lock"), home.path("some where/else/Cargo.lock")).unwrap();
    run(&home, ["plugin", "build", "some where/else", "--out", "other.wasm"]).assert_code(0);
    assert_eq!(fs::read(home.path("other.wasm")).unwrap(), component, "the position is in the component");

    let source = fs::read_to_string(home.path("share/src/lib.rs")).unwrap();
    home.write("share/src/lib.rs", &source.replace("pub numerator: Option<f64>", "pub numerator: Option<u8>"));
    let failed = run(&home, ["plugin", "build", "share"]);
    failed.assert_code(1).assert_complains(&["--> src/lib.rs:", "larder: the plugin in share cannot be compiled"]);
    assert_eq!(fs::read(home.path("share/share.wasm")).unwrap(), component);
}

// === What cannot work ===

#[test]
fn existing_project_is_kept() {
    let home = Home::empty();
    run(&home, ["plugin", "new", "../up", "--lang", "rust"]).assert_code(2);
    home.write("ratio/mine.txt", "mine");
    run(&home, ["plugin", "new", "ratio", "--lang", "python"]).assert_code(1);
    assert_eq!(fs::read_dir(home.path("ratio")).unwrap().count(), 1);
    // An empty directory is accepted.
    fs::create_dir(home.path("empty")).unwrap();
    run(&home, ["plugin", "new", "ratio", "--lang", "python", "--dir", "empty"]).assert_code(0);
}

#[test]
fn non_project_directory_is_reported() {
    let home = Home::empty();
    run(&home, ["plugin", "build", "absent"]).assert_code(2).assert_complains(&["absent is not a plugin project"]);
    home.write("circle/plugin.py", "");
    symlink(home.path("circle"), home.path("circle/again")).unwrap();
    run(&home, ["plugin", "build", "circle"])
        .assert_code(1)
        .assert_complains(&["is nested too deeply. hint: remove links to parent directories"]);
}

/// A mistake is reported before componentize-py is installed, so without network access.
#[test]
fn python_mistake_starts_no_installation() {
    let home = Home::empty();
    home.write("ratio/plugin.py", "from larder_plugin import Float65\n");
    let ended = end(tool(&home, ["plugin", "build", "ratio"]).env("LARDER_CACHE", home.path("cache")));
    ended.assert_code(1).assert_complains(&["did you mean 'Float64'?"]);
    assert!(!ended.err.contains("installing"), "{}", ended.err);
    assert!(!home.path("cache/componentize-py-0.25.1").is_dir());
}

/// A mistake is reported before the slow build begins.
#[test]
fn python_mistake_starts_no_build() {
    let home = Home::empty();
    run(&home, ["plugin", "new", "ratio", "--lang", "python"]).assert_code(0);
    // A virtual environment in which componentize-py is a script that leaves a file.
    let bin = home.path("cache/componentize-py-0.25.1/bin");
    home.write("cache/componentize-py-0.25.1/ready", "");
    let (started, tool_path) = (home.path("started"), bin.join("componentize-py"));
    home.write(
        "cache/componentize-py-0.25.1/bin/componentize-py",
        &format!("#!/bin/sh\ncase $1 in --version) echo 0.25.1;; *) /bin/touch {}; exit 1;; esac\n", started.display()),
    );
    fs::set_permissions(&tool_path, fs::Permissions::from_mode(0o755)).unwrap();
    let python = end(Command::new("python3").args(["-c", "import sys; print(sys.executable)"]));
    symlink(python.assert_code(0).out.trim(), bin.join("python")).unwrap();
    let build = || end(tool(&home, ["plugin", "build", "ratio"]).env("LARDER_CACHE", home.path("cache")));

    let source = fs::read_to_string(home.path("ratio/plugin.py")).unwrap();
    home.write("ratio/plugin.py", &source.replace("def derive(numerator, ", "def derive(numerater, "));
    build().assert_code(1).assert_complains(&["'numerater'", "larder: the plugin in ratio cannot be built"]);
    assert!(!started.is_file());
    // Without the mistake, the build begins.
    home.write("ratio/plugin.py", &source);
    build().assert_code(1);
    assert!(started.is_file());
}

#[test]
fn missing_python_tools_are_named() {
    let home = Home::empty();
    home.write("p/plugin.py", "");
    let check = |script: Option<&str>, words: &[&str]| {
        let path = programs(&home, script.map(|script| ("python3", script)).as_slice());
        let mut command = tool(&home, ["plugin", "build", "p"]);
        end(command.env("PATH", path).env("LARDER_CACHE", home.path("cache"))).assert_code(1).assert_complains(words);
    };
    check(None, &["Python 3.11 or later is needed", "none is in the PATH", "apt-get install python3 python3-venv"]);
    check(Some("echo 3 9"), &["Python 3.11 or later is needed", "python3 is 3.9"]);
    check(
        Some("case $1 in -c) echo 3 12;; *) echo ensurepip is not available; exit 1;; esac"),
        &["python3 cannot create a virtual environment", "ensurepip is not available", "apt-get install python3-venv"],
    );
    // This program creates a virtual environment with a pip that has no network. `$3` is the path of the environment.
    let pip = "#!/bin/sh\\necho ERROR: no route to the index >&2\\nexit 1\\n";
    let script = format!(
        "case $1 in -c) echo 3 12;; *) /bin/mkdir -p \"$3/bin\"; printf '{pip}' > \"$3/bin/python\"; \
         /bin/chmod 755 \"$3/bin/python\";; esac"
    );
    check(Some(&script), &["pip cannot install componentize-py==0.25.1", "ERROR: no route to the index"]);
    // An incomplete installation is not used. The next build installs again.
    check(None, &["none is in the PATH"]);
}

// === The development kit, and the examples ===

#[test]
fn python_kit_and_example_pass_tests() {
    assert_unittests_pass(&in_tree("plugins/sdk/python"));
    assert_unittests_pass(&in_tree("plugins/examples/churn-python"));
}

#[test]
fn churn_plugins_agree_bit_for_bit() {
    let home = Home::empty();
    let runtime = runtime();
    let view = churn_view();
    let [rust, python, javascript] = ["churn", "churn-python", "churn-js"].map(|project| {
        let file = home.path(&format!("{project}.wasm"));
        let dir = in_tree("plugins/examples").join(project);
        let built = end(tool(&home, ["plugin", "build", "--out"]).arg(&file).arg(&dir));
        built.assert_code(0);
        runtime.load(&fs::read(&file).unwrap()).unwrap()
    });
    // `make demo` uses this file, so that users do not need a compiler for WebAssembly.
    let shipped = runtime.load(&fs::read(in_tree("plugins/built/churn.wasm")).unwrap()).unwrap();
    let digest = fs::read_to_string(in_tree("plugins/built/churn.wasm.sha256")).unwrap();
    assert_eq!(digest, format!("{}  churn.wasm\n", shipped.digest()));
    let sources = |component: &Component| component.build().unwrap().sources.clone();
    assert_eq!(sources(&shipped), sources(&rust), "the example has changed; run `make built-plugins`");
    let languages = [&rust, &python, &javascript, &shipped].map(|component| component.language().to_owned());
    assert_eq!(languages, ["rust", "python", "javascript", "rust"]);
    for other in [&python, &javascript, &shipped] {
        assert_eq!(rust.signature(), other.signature());
    }
    let plugins =
        [rust, python, javascript, shipped].map(|component| Transform::bind(&runtime, &component, &view).unwrap());

    const ROWS: usize = 500;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut present = 0;
    for batch in 0..20 {
        let types = view.inputs.iter().map(|input| ColumnType::of(input.value_type));
        let mut columns = FrameBuilder::new(types, ROWS);
        view.inputs.iter().for_each(|_| columns.column(|column| fill_churn(column, ROWS, &mut random)));
        let columns = columns.finish();
        let answers = plugins.each_ref().map(|plugin| {
            let mut inputs = plugin.input_batch(0, ROWS);
            for index in plugin.inputs() {
                inputs.column(|column| column.append(columns.column(*index), 0..ROWS));
            }
            let outputs = plugin.call(&inputs.finish());
            assert!(outputs.failed().is_empty(), "{:?}", outputs.failed());
            let outputs = plugin.outputs().iter().map(|index| outputs.output(*index));
            outputs.map(|output| (0..ROWS).map(|row| bits(output.get(row))).collect::<Vec<_>>()).collect::<Vec<_>>()
        });
        assert_eq!(answers[0], answers[1], "batch {batch}, Python");
        assert_eq!(answers[0], answers[2], "batch {batch}, JavaScript");
        assert_eq!(answers[0], answers[3], "batch {batch}, shipped component");
        present += answers[0].iter().flatten().flatten().count();
    }
    assert!((10_000..40_000).contains(&present), "{present} of 40,000 values are present, but some must be null");
}

pub(crate) fn runtime() -> Arc<PluginRuntime> {
    let cache_dir = Some(kept("cache").join("compiled"));
    // The limits are long, because debug builds on busy machines are slow, and these tests only check results.
    let mut settings = PluginSettings { cache_dir, compiler: compiler(), ..PluginSettings::default() };
    settings.interpreted.time = crate::binary::TIMEOUT;
    settings.compiled.time = crate::binary::TIMEOUT;
    PluginRuntime::new(settings).unwrap()
}

/// Returns the derived view `customer_derived_features`, except that all of its inputs are request inputs.
fn churn_view() -> DerivedView {
    let input = |name: &str, value_type: &str| DerivedInput {
        name: name.into(),
        value_type: value_type.parse().unwrap(),
        from: InputSource::Request,
    };
    let feature = |name: &str, value_type: &str| Feature {
        name: name.into(),
        value_type: value_type.parse().unwrap(),
        description: String::new(),
        tags: Tags::default(),
    };
    DerivedView {
        name: "customer_derived".into(),
        plugin: "customer_derived_features".into(),
        inputs: vec![
            input("tenure_months", "Int64"),
            input("monthly_charges", "Float64"),
            input("total_charges", "Float64"),
            input("support_tickets_30d", "Int64"),
            input("contract_type", "String"),
            input("discount_percent", "Float64"),
        ],
        features: vec![
            feature("charges_per_tenure_month", "Float64"),
            feature("tickets_per_month", "Float64"),
            feature("is_high_value", "Bool"),
            feature("contract_risk", "Float64"),
        ],
        config: r#"{"high_value_monthly": 64.5}"#.into(),
        on_error: OnError::Fail,
        description: String::new(),
        tags: Tags::default(),
    }
}

/// Fills a column with values that customers can have, some impossible values, and nulls.
fn fill_churn(column: &mut ColumnWriter<'_>, rows: usize, random: &mut Random) {
    const CONTRACTS: [&str; 5] = ["Month-to-month", "One year", "Two year", "", "Zwölf Monate"];
    const ODD: [f64; 6] = [0.0, -0.0, 1e308, -1e308, f64::INFINITY, f64::NAN];
    for _ in 0..rows {
        let odd = random.below(10) == 0;
        match (random.below(5), column.column_type().scalar) {
            (0, _) => column.push(ValueRef::Null),
            (_, ColumnScalar::Int64) if odd => column.push(ValueRef::Int64(random.next() as i64)),
            (_, ColumnScalar::Int64) => column.push(ValueRef::Int64(random.below(80) as i64 - 5)),
            (_, ColumnScalar::Float64) if odd => column.push(ValueRef::Float64(ODD[random.below(6) as usize])),
            (_, ColumnScalar::Float64) => column.push(ValueRef::Float64(random.below(1 << 40) as f64 / 7e9)),
            (_, _) => column.push(ValueRef::Bytes(CONTRACTS[random.below(5) as usize].as_bytes())),
        }
    }
}

/// Returns the bits of a value, for a comparison in which NaN equals itself and 0 differs from -0.
fn bits(value: ValueRef<'_>) -> Option<u64> {
    match value {
        ValueRef::Null => None,
        ValueRef::Float64(value) => Some(value.to_bits()),
        ValueRef::Bool(value) => Some(u64::from(value)),
        other => panic!("not an output of churn: {other:?}"),
    }
}

/// Pseudorandom numbers that are the same in every run (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[test]
fn check_tests_plugin_compatibility() {
    let home = Home::with(
        "
derived_views:
  - name: driver_trips
    plugin: odfv_singleton
    inputs: [{name: avg_daily_trips, request: Int64}]
    features: [{name: trips_plus_one, type: Int64}]
  - {name: driver_words, plugin: not_there, inputs: [], features: [{name: word, type: String}]}
",
    );
    fs::create_dir(home.path("plugins")).unwrap();
    fs::copy(guest("feast_odfv/odfv_singleton"), home.path("plugins/odfv_singleton.wasm")).unwrap();
    let good = end(&mut tool(&home, ["check"]));
    good.assert_code(0);
    let first = good.out.lines().next().unwrap();
    assert_eq!(
        first,
        "./plugins/not_there.wasm: warning: the plugin does not exist, so driver_words cannot be computed (deploy it with \
         `larder plugin deploy`)"
    );

    let definitions = fs::read_to_string(home.path("features/all.yaml")).unwrap();
    home.write("features/all.yaml", &definitions.replace("request: Int64", "request: String"));
    fs::write(home.path("plugins/not_there.wasm"), "no component").unwrap();
    let unfit = end(&mut tool(&home, ["check"]));
    unfit.assert_code(3);
    let told = &unfit.err;
    assert!(told.contains("plugins/not_there.wasm: error: the file is not a WebAssembly component"), "{told}");
    assert!(told.contains("input 'avg_daily_trips' is String in the view, but Int64 in the plugin"), "{told}");
}
