//! The same plugin in all languages gives the same bits: a ratio in Rust, Python, JavaScript, and C from the WIT alone.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use larder_model::model::{DerivedInput, DerivedView, Feature, InputSource, OnError, Tags, ValueRef};
use larder_plugin_host::{Inputs, Outputs, PluginRuntime, RowGenerator, Transform};

use crate::{
    binary::Home,
    plugin_tools::{end, in_tree, kept, run, runtime, tool},
};

const ROWS: usize = 2_000;
const SEED: u64 = 23;

#[test]
fn ratio_is_the_same_in_all_languages() {
    let home = Home::empty();
    let view = view("ratio", &[("numerator", "Float64"), ("denominator", "Float64")], &[("ratio", "Float64")]);
    let runtime = runtime();
    let mut components = Vec::new();
    for lang in ["rust", "python", "js"] {
        run(&home, ["plugin", "new", "ratio", "--lang", lang, "--dir", lang]).assert_code(0);
        let built = end(&mut tool(&home, ["plugin", "build", lang, "--out", &format!("{lang}.wasm")]));
        built.assert_code(0);
        components.push((lang, home.path(&format!("{lang}.wasm"))));
    }
    match compile_c(&home) {
        Ok(file) => components.push(("c", file)),
        Err(reason) => eprintln!("the plugin in C is not compared: {reason}"),
    }
    let mut first: Option<Vec<Row>> = None;
    for (lang, file) in components {
        let transform = bind(&runtime, &file, &view);
        let inputs = RowGenerator::new(SEED).inputs(&transform, ROWS);
        let rows = rows_of(&transform, &inputs);
        let failed = rows.iter().filter(|row| row.is_none()).count();
        assert!((1..ROWS / 2).contains(&failed), "{lang}: {failed} rows failed");
        let first = first.get_or_insert_with(|| rows.clone());
        for (row, (expected, found)) in first.iter().zip(&rows).enumerate() {
            assert_eq!(expected, found, "{lang}: row {row}");
        }
    }
}

/// A plugin that returns its inputs, in Python and in JavaScript, for values and nulls of every type.
#[test]
fn all_types_are_the_same_in_interpreted_languages() {
    let home = Home::empty();
    let fields = fields_of_all_types();
    let declare = |call: &dyn Fn(&Kind) -> String, separator: &str| -> String {
        fields.iter().map(|field| format!("\"{}\"{separator}{}, ", field.name, call(field))).collect()
    };
    let names = fields.iter().map(|field| &*field.name).collect::<Vec<_>>().join(", ");
    let python = declare(&|field| field.declared("Array", "nullable_items=True", ""), ": ");
    home.write(
        "python/plugin.py",
        &format!(
            "from larder_plugin import *\nfrom larder_plugin import plugin\nFIELDS = {{{python}}}\n@plugin(name=\"echo\", \
             version=\"1.0.0\", inputs=FIELDS, outputs=FIELDS)\ndef derive({names}):\n    return ({names})\n"
        ),
    );
    let javascript = declare(&|field| field.declared("types.Array", "{ nullableItems: true }", "types."), ": ");
    home.write(
        "js/plugin.js",
        &format!(
            "import {{ plugin, types }} from \"./larder_plugin/index.js\";\nconst fields = {{ {javascript} }};\nexport \
             default plugin({{ name: \"echo\", version: \"1.0.0\", inputs: fields, outputs: fields, derive: (row) => row \
             }});\n"
        ),
    );
    let types: Vec<_> = fields.iter().map(|field| (&*field.name, &*field.view_type)).collect();
    let (view, runtime) = (view("echo", &types, &types), runtime());
    let [python, javascript] = ["python", "js"].map(|lang| {
        run(&home, ["plugin", "build", lang]).assert_code(0);
        bind(&runtime, &home.path(&format!("{lang}/echo.wasm")), &view)
    });
    for rows in [0, 1, 7, 64, 500] {
        let echo = |transform: &Transform| transform.call(&RowGenerator::new(SEED).inputs(transform, rows));
        let (expected, found) = (echo(&python), echo(&javascript));
        assert!(found.failed().is_empty(), "{:?}", found.failed().first());
        for (index, field) in fields.iter().enumerate() {
            for row in 0..rows {
                let value = |outputs: &Outputs| format!("{:?}", outputs.output(index).get(row));
                assert_eq!(value(&expected), value(&found), "{}, row {row} of {rows}", field.name);
            }
        }
        let present = (0..rows).filter(|row| !matches!(found.output(4).get(*row), ValueRef::Null)).count();
        assert!(rows < 64 || (rows / 4..rows).contains(&present), "{present} of {rows} values are present");
    }
}

/// A field of the plugin that returns its inputs.
struct Kind {
    name: String,
    view_type: String,
    item: &'static str,
    is_list: bool,
}

fn fields_of_all_types() -> Vec<Kind> {
    const ITEMS: [&str; 8] = ["Bool", "Int32", "Int64", "Float32", "Float64", "String", "Bytes", "UnixTimestamp"];
    let kinds = [false, true].into_iter().flat_map(|is_list| ITEMS.map(|item| (item, is_list)));
    kinds
        .map(|(item, is_list)| Kind {
            name: format!("{}{}", if is_list { "list_" } else { "" }, item.to_lowercase()),
            view_type: if is_list { format!("Array({item})") } else { item.to_owned() },
            item,
            is_list,
        })
        .collect()
}

impl Kind {
    /// Returns the declaration of the field in a language. `module` is the prefix of the types.
    fn declared(&self, array: &str, option: &str, module: &str) -> String {
        let item = format!("{module}{}", self.item);
        if self.is_list { format!("{array}({item}, {option})(\"doc\")") } else { format!("{item}(\"doc\")") }
    }
}

#[test]
fn module_without_exports_is_reported() {
    let home = Home::empty();
    fs::write(home.path("empty.wasm"), b"\0asm\x01\0\0\0").unwrap();
    fs::write(home.path("text.wasm"), "text").unwrap();
    for (file, words) in [("empty.wasm", "describe"), ("text.wasm", "text.wasm is not a module")] {
        let failed = run(&home, ["plugin", "build", "--module", file]);
        failed.assert_code(1).assert_complains(&[
            words,
            "is not a module for the contract's world derived-features",
            "hint: ",
        ]);
    }
    run(&home, ["plugin", "build", "--module", "absent.wasm"])
        .assert_code(1)
        .assert_complains(&["absent.wasm cannot be read"]);
    run(&home, ["plugin", "build", "dir", "--module", "empty.wasm"]).assert_code(2);
}

/// The bits of the output of a row, or `None` if the row failed.
type Row = Option<Option<u64>>;

fn rows_of(transform: &Transform, inputs: &Inputs) -> Vec<Row> {
    let outputs = transform.call(inputs);
    let bits = |row| match outputs.output(0).get(row) {
        ValueRef::Null => None,
        ValueRef::Float64(value) => Some(value.to_bits()),
        other => panic!("not a ratio: {other:?}"),
    };
    (0..inputs.rows()).map(|row| (!outputs.is_failed(row)).then(|| bits(row))).collect()
}

fn bind(runtime: &Arc<PluginRuntime>, file: &Path, view: &DerivedView) -> Arc<Transform> {
    let component = runtime.load(&fs::read(file).unwrap()).unwrap();
    Transform::bind(runtime, &component, view).unwrap()
}

fn view(name: &str, inputs: &[(&str, &str)], features: &[(&str, &str)]) -> DerivedView {
    let inputs = inputs.iter().map(|(name, value_type)| DerivedInput {
        name: (*name).into(),
        value_type: value_type.parse().unwrap(),
        from: InputSource::Request,
    });
    let features = features.iter().map(|(name, value_type)| Feature {
        name: (*name).into(),
        value_type: value_type.parse().unwrap(),
        description: String::new(),
        tags: Tags::default(),
    });
    DerivedView {
        name: name.into(),
        plugin: name.into(),
        inputs: inputs.collect(),
        features: features.collect(),
        config: "null".into(),
        on_error: OnError::Null,
        description: String::new(),
        tags: Tags::default(),
    }
}

// === C ===

/// Compiles the example in C as its comment describes, and returns the component. Returns the reason if clang cannot be
/// installed.
fn compile_c(home: &Home) -> Result<PathBuf, String> {
    install_clang()?;
    let source = in_tree("plugins/examples/c/plugin.c");
    let text = fs::read_to_string(&source).unwrap();
    let line = text.lines().find_map(|line| line.trim_start_matches('/').trim().strip_prefix("clang ")).unwrap();
    let mut clang = Command::new("clang");
    clang.args(line.split_whitespace().filter(|word| *word != "plugin.c")).arg("-Werror").arg("-Wall").arg(&source);
    end(clang.current_dir(home.path(""))).assert_code(0);
    let built = run(home, ["plugin", "build", "--module", "ratio.module.wasm"]);
    built.assert_code(0);
    assert!(built.out.contains("built ratio 0.1.0 in "), "{}", built.out);
    let file = home.path("ratio.wasm");
    assert!(fs::metadata(&file).unwrap().len() < 8 << 10, "the component is small");
    run(home, ["plugin", "check", "ratio.wasm"]).assert_code(0);
    Ok(file)
}

/// Installs Debian's clang and linker if they are missing.
fn install_clang() -> Result<(), String> {
    let works = |program: &str| Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success());
    // The lock is a file, because tests run in separate processes.
    let lock = File::create(kept("cache").join("clang-lock")).unwrap();
    lock.lock().unwrap();
    if works("clang") && works("wasm-ld") {
        return Ok(());
    }
    let apt = |args: &[&str]| {
        let ended = Command::new("apt-get").args(["-qy"]).args(args).env("DEBIAN_FRONTEND", "noninteractive").output();
        ended.is_ok_and(|out| out.status.success())
    };
    let installed = apt(&["update"]) && apt(&["install", "--no-install-recommends", "clang", "lld"]);
    if installed && works("clang") && works("wasm-ld") {
        return Ok(());
    }
    Err("clang and wasm-ld are missing, and apt-get cannot install them".to_owned())
}
