//! Generates the project of a plugin that replaces one of Feast's on-demand views, except for its function.
//!
//! It is the project that `larder plugin new --lang python` writes, with the signature that the view needs. The
//! function fails with the error that it is not written yet, which requests for its features return; Feast's Python
//! code is included as a comment.

use std::{collections::BTreeSet, path::PathBuf};

use larder_model::model::{DerivedInput, DerivedView, InputSource};
use larder_plugin_host::ColumnType;
use serde_json::Value;

use crate::cli::plugin::python_project;

/// Names that no parameter of a Python function can have.
const KEYWORDS: [&str; 35] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del",
    "elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "nonlocal",
    "not", "or", "pass", "raise", "return", "try", "while", "with", "yield",
];

/// Returns the files of a project for a view, with their paths in it.
pub(super) fn project(view: &DerivedView, python: Option<&String>) -> Vec<(PathBuf, String)> {
    let mut files = python_project(&view.plugin);
    let inputs = inputs(view, python.map(String::as_str));
    for (path, text) in &mut files {
        match path.to_str() {
            Some("plugin.py") => *text = plugin(view, &inputs, python.map(String::as_str)),
            Some("rows.json") => *text = rows(&inputs),
            Some("test_plugin.py") => *text = test(),
            Some("README.md") => *text = readme(view),
            _ => {}
        }
    }
    files
}

/// Returns the plugin's inputs: those of the view's inputs that the Python function names; all of them, under short
/// names, if that is unknown. Calls of a plugin with fewer inputs are faster.
fn inputs<'v>(view: &'v DerivedView, python: Option<&str>) -> Vec<&'v DerivedInput> {
    let words: BTreeSet<&str> =
        python.unwrap_or_default().split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
    let usable = |input: &&DerivedInput| !KEYWORDS.contains(&&*input.name);
    let named: Vec<_> = view.inputs.iter().filter(usable).filter(|input| words.contains(&*input.name)).collect();
    if !named.is_empty() {
        return named;
    }
    let mut seen = BTreeSet::new();
    let first = |input: &&DerivedInput| match &input.from {
        InputSource::Feature { view, feature } => seen.insert((view.to_string(), feature.to_string())),
        InputSource::Request | InputSource::JoinKey(_) => true,
    };
    view.inputs.iter().filter(usable).filter(first).collect()
}

fn plugin(view: &DerivedView, inputs: &[&DerivedInput], python: Option<&str>) -> String {
    let types =
        inputs.iter().map(|input| input.value_type).chain(view.features.iter().map(|feature| feature.value_type));
    let types: BTreeSet<String> = types.filter_map(ColumnType::of).map(|column| column.to_string()).collect();
    let mut imports: BTreeSet<&str> = types
        .iter()
        .flat_map(|name| match name.strip_prefix("Array(").and_then(|item| item.strip_suffix(')')) {
            Some(item) => vec!["Array", item],
            None => vec![name.as_str()],
        })
        .collect();
    imports.extend(["Fault", "plugin"]);
    let imports: Vec<&str> = imports.into_iter().collect();

    let field = |name: &str, value_type, doc: &str| {
        let column = ColumnType::of(value_type).map(|column| column.to_string()).unwrap_or_default();
        format!("        {}: {column}({}),\n", quoted(name), quoted(doc))
    };
    let input_fields: String =
        inputs.iter().map(|input| field(&input.name, input.value_type, &where_from(input))).collect();
    let output_fields: String = view
        .features
        .iter()
        .map(|feature| {
            let doc = if feature.description.is_empty() { "Not described." } else { &feature.description };
            field(&feature.name, feature.value_type, doc)
        })
        .collect();
    let parameters: Vec<&str> = inputs.iter().map(|input| &*input.name).collect();
    let was = python.map_or_else(
        || "    # The registry has no source text of what Feast runs for this view.\n".to_owned(),
        |python| {
            let head = "    # What Feast runs for this view. There, a name stands for a column of values; here, for one value.\n    #\n";
            // Python ends lines, and so comments, at several characters.
            let shown = |c: char| if c.is_control() && c != '\t' { ' ' } else { c };
            let lines = python.trim_end().lines().map(|line| line.chars().map(shown).collect::<String>());
            let lines = lines.map(|line| format!("    # {line}").trim_end().to_owned() + "\n");
            head.to_owned() + &lines.collect::<String>()
        },
    );
    let doc = if view.description.is_empty() { &*view.name } else { &*view.description };
    let doc: String =
        doc.replace(char::is_control, " ").split_whitespace().collect::<Vec<_>>().join(" ").replace(['\\', '"'], "'");
    let fault = quoted(&format!("{} is not written yet", view.plugin));
    let (name, imports, parameters) = (quoted(&view.plugin), imports.join(", "), parameters.join(", "));
    format!(
        "\"\"\"{doc}\"\"\"\n\nfrom larder_plugin import {imports}\n\n\n@plugin(\n    name={name},\n    version=\"0.1.0\",\n    \
         inputs={{\n{input_fields}    }},\n    outputs={{\n{output_fields}    }},\n)\ndef derive({parameters}):\n{was}    \
         #\n    # An input that is not there is None. What is returned is a dict, or a tuple in the order of the outputs.\n    \
         raise Fault({fault})\n"
    )
}

fn where_from(input: &DerivedInput) -> String {
    match &input.from {
        InputSource::Feature { view, feature } => format!("{view}:{feature}"),
        InputSource::Request => "Of the request.".to_owned(),
        InputSource::JoinKey(key) => format!("The join key {key}."),
    }
}

/// Quotes a text for Python. JSON's format is valid Python, if it has only common escapes.
fn quoted(text: &str) -> String {
    Value::from(text.split_whitespace().collect::<Vec<_>>().join(" ")).to_string()
}

/// Returns one row of nulls, to be filled in.
fn rows(inputs: &[&DerivedInput]) -> String {
    let fields: Vec<String> = inputs.iter().map(|input| format!("{}: null", quoted(&input.name))).collect();
    format!("[\n  {{{}}}\n]\n", fields.join(", "))
}

fn test() -> String {
    "\"\"\"What the plugin promises: python3 -m unittest\"\"\"\n\nimport json\nimport unittest\nfrom pathlib import \
     Path\n\nfrom larder_plugin import Fault\nfrom larder_plugin.testing import run\nfrom plugin import derive\n\n\nclass \
     Derive(unittest.TestCase):\n    def test_it_says_that_it_is_not_written_yet(self):\n        # Once it is written, \
     fill in rows.json, and compare run(derive, rows) with what Feast computes of them.\n        rows = \
     json.loads(Path(__file__).with_name(\"rows.json\").read_text())\n        with self.assertRaisesRegex(Fault, \"is \
     not written yet\"):\n            run(derive, rows)\n\n\nif __name__ == \"__main__\":\n    unittest.main()\n"
        .to_owned()
}

fn readme(view: &DerivedView) -> String {
    let (name, plugin) = (&view.name, &view.plugin);
    format!(
        "# {plugin}\n\nThe plugin that stands in for Feast's on-demand view `{name}`. Its signature is there; the function \
         in `plugin.py`\nwants to be written, after the one in Python that stands there as a comment.\n\n```\npython3 -m \
         unittest                                 # the function by itself; Python 3.11 or later\nlarder plugin build\n\
         larder plugin run {plugin}.wasm --input rows.json\nlarder plugin deploy {plugin}.wasm --config \
         ../../larder.yaml\n```\n\n`larder_plugin/` is the development kit; `help(larder_plugin)` and \
         `help(larder_plugin.plugin)` are its documentation.\n"
    )
}

#[cfg(test)]
mod tests {
    use larder_model::model::{Feature, OnError, ScalarType, Tags, ValueType};

    use super::*;

    /// Returns a view whose texts try to break out of the generated file.
    fn nasty() -> DerivedView {
        let text = ValueType::Scalar(ScalarType::String);
        let feature = |name: &str, description: &str| Feature {
            name: name.into(),
            value_type: text,
            description: description.into(),
            tags: Tags::new(),
        };
        DerivedView {
            name: "view".into(),
            plugin: "view".into(),
            inputs: ["class", "a", "b"]
                .map(|name| DerivedInput { name: name.into(), value_type: text, from: InputSource::Request })
                .to_vec(),
            features: vec![feature("f", "\"\"\" \\ \r\n boom() é"), feature("g", "")],
            config: "null".into(),
            on_error: OnError::Fail,
            description: "\"\"\"\nboom()\n\\".into(),
            tags: Tags::new(),
        }
    }

    #[test]
    fn registry_text_cannot_escape_comments() {
        let python = "def view(a):\r    boom()\n\u{c}boom()\n    return {\"f\": a[\"a\"], \"class\": 1}".to_owned();
        let files = project(&nasty(), Some(&python));
        let plugin = &files.iter().find(|(path, _)| path.ends_with("plugin.py")).unwrap().1;
        let loose: Vec<&str> =
            plugin.split(['\n', '\r', '\u{c}']).filter(|line| line.trim_start().starts_with("boom")).collect();
        assert_eq!(loose, [""; 0], "{plugin}");
        assert!(plugin.starts_with("\"\"\"''' boom() '\"\"\"\n"), "{plugin}");
        assert!(plugin.contains("def derive(a):\n"), "a word of Python is no parameter, and b is not read: {plugin}");
        assert!(plugin.contains(r#""f": String("\"\"\" \\ boom() é"),"#), "{plugin}");
        assert!(plugin.ends_with("    raise Fault(\"view is not written yet\")\n"), "{plugin}");
    }

    #[test]
    fn unknown_source_reads_all_inputs() {
        let files = project(&nasty(), None);
        let plugin = &files.iter().find(|(path, _)| path.ends_with("plugin.py")).unwrap().1;
        assert!(plugin.contains("def derive(a, b):\n"), "{plugin}");
    }
}
