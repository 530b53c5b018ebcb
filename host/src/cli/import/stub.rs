//! Generates the project of a plugin that replaces an on-demand view of Feast. Users only have to write the plugin's
//! function.
//!
//! The project is the one that `larder plugin new --lang python` writes, with the signature that the view needs. The
//! generated function raises a `Fault` with the message that it is not implemented yet, so every row fails. The Python
//! code of the on-demand view is included as a comment.

use std::{collections::BTreeSet, path::PathBuf};

use larder_model::model::{DerivedInput, DerivedView, InputSource};
use larder_plugin_host::ColumnType;
use serde_json::Value;

use crate::cli::plugin::python_project;

/// The keywords of Python. They cannot be names of parameters.
const KEYWORDS: [&str; 35] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del",
    "elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "nonlocal",
    "not", "or", "pass", "raise", "return", "try", "while", "with", "yield",
];

/// Returns the files of a view's project, with their paths relative to the project.
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

/// Returns the plugin's inputs. These are the inputs of the view whose names occur in the Python source, because calls
/// with fewer inputs are faster. If no names occur there, returns all inputs of the view; a feature with several names
/// is returned only once, with its first name. An input whose name is a keyword of Python is always omitted.
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
    let types: BTreeSet<String> = types.map(|of| ColumnType::of(of).to_string()).collect();
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
        let column = ColumnType::of(value_type).to_string();
        format!("        {}: {column}({}),\n", quoted(name), quoted(doc))
    };
    let input_fields: String =
        inputs.iter().map(|input| field(&input.name, input.value_type, &where_from(input))).collect();
    let output_fields: String = view
        .features
        .iter()
        .map(|feature| {
            let doc = if feature.description.is_empty() { "No description." } else { &feature.description };
            field(&feature.name, feature.value_type, doc)
        })
        .collect();
    let parameters: Vec<&str> = inputs.iter().map(|input| &*input.name).collect();
    let was = python.map_or_else(
        || "    # The registry does not have the source of this view's function.\n".to_owned(),
        |python| {
            let head =
                "    # The function in Feast. There, a name is a column of values; here, it is one value.\n    #\n";
            // In Python, several control characters end a line, and so would end the comment.
            let shown = |c: char| if c.is_control() && c != '\t' { ' ' } else { c };
            let lines = python.trim_end().lines().map(|line| line.chars().map(shown).collect::<String>());
            let lines = lines.map(|line| format!("    # {line}").trim_end().to_owned() + "\n");
            head.to_owned() + &lines.collect::<String>()
        },
    );
    let doc = if view.description.is_empty() { &*view.name } else { &*view.description };
    let doc: String =
        doc.replace(char::is_control, " ").split_whitespace().collect::<Vec<_>>().join(" ").replace(['\\', '"'], "'");
    let fault = quoted(&format!("{} is not implemented yet", view.plugin));
    let (name, imports, parameters) = (quoted(&view.plugin), imports.join(", "), parameters.join(", "));
    format!(
        "\"\"\"{doc}\"\"\"\n\nfrom larder_plugin import {imports}\n\n\n@plugin(\n    name={name},\n    version=\"0.1.0\",\n    \
         inputs={{\n{input_fields}    }},\n    outputs={{\n{output_fields}    }},\n)\ndef derive({parameters}):\n{was}    \
         #\n    # A null input is None. Return a dict, or a tuple in the order of the outputs.\n    \
         raise Fault({fault})\n"
    )
}

fn where_from(input: &DerivedInput) -> String {
    match &input.from {
        InputSource::Feature { view, feature } => format!("{view}:{feature}"),
        InputSource::Request => "A request input.".to_owned(),
        InputSource::JoinKey(key) => format!("The join key {key}."),
    }
}

/// Quotes text for Python, in one line. Uses a JSON string, which is also valid Python, because Python supports all of
/// the escapes that the JSON writer uses.
fn quoted(text: &str) -> String {
    Value::from(text.split_whitespace().collect::<Vec<_>>().join(" ")).to_string()
}

/// Returns the contents of `rows.json`: one row with a null for each input, for users to fill in.
fn rows(inputs: &[&DerivedInput]) -> String {
    let fields: Vec<String> = inputs.iter().map(|input| format!("{}: null", quoted(&input.name))).collect();
    format!("[\n  {{{}}}\n]\n", fields.join(", "))
}

fn test() -> String {
    "\"\"\"Tests of the plugin: python3 -m unittest\"\"\"\n\nimport json\nimport unittest\nfrom pathlib import \
     Path\n\nfrom larder_plugin.testing import run\nfrom plugin import derive\n\n\nclass \
     Derive(unittest.TestCase):\n    def test_function_is_not_implemented_yet(self):\n        # Once it is, \
     fill in rows.json, and compare run(derive, rows) with Feast's results.\n        rows = \
     json.loads(Path(__file__).with_name(\"rows.json\").read_text())\n        self.assertIn(\"is not implemented \
     yet\", run(derive, rows)[0].message)\n\n\nif __name__ == \"__main__\":\n    unittest.main()\n"
        .to_owned()
}

fn readme(view: &DerivedView) -> String {
    let (name, plugin) = (&view.name, &view.plugin);
    format!(
        "# {plugin}\n\nA plugin that replaces Feast's on-demand view `{name}`. Its signature is complete. Write the \
         function in `plugin.py`:\nport Feast's function, which is there as a comment.\n\n```\npython3 -m \
         unittest                                 # test the function; needs Python 3.11 or later\nlarder plugin \
         build\nlarder plugin run {plugin}.wasm --input rows.json\nlarder plugin deploy {plugin}.wasm --config \
         ../../larder.yaml\n```\n\n`larder_plugin/` is the development kit. In Python, `help(larder_plugin)` and \
         `help(larder_plugin.plugin)` print its documentation.\n"
    )
}

#[cfg(test)]
mod tests {
    use larder_model::model::{Feature, OnError, ScalarType, Tags, ValueType};

    use super::*;

    /// Returns a view with texts that, if they were not quoted, would end comments and strings in the generated file.
    fn hostile_view() -> DerivedView {
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
    fn registry_text_cannot_become_code() {
        let python = "def view(a):\r    boom()\n\u{c}boom()\n    return {\"f\": a[\"a\"], \"class\": 1}".to_owned();
        let files = project(&hostile_view(), Some(&python));
        let plugin = &files.iter().find(|(path, _)| path.ends_with("plugin.py")).unwrap().1;
        let loose: Vec<&str> =
            plugin.split(['\n', '\r', '\u{c}']).filter(|line| line.trim_start().starts_with("boom")).collect();
        assert_eq!(loose, [""; 0], "{plugin}");
        assert!(plugin.starts_with("\"\"\"''' boom() '\"\"\"\n"), "{plugin}");
        assert!(
            plugin.contains("def derive(a):\n"),
            "a keyword is not a parameter, and b is not in the source: {plugin}"
        );
        assert!(plugin.contains(r#""f": String("\"\"\" \\ boom() é"),"#), "{plugin}");
        assert!(plugin.ends_with("    raise Fault(\"view is not implemented yet\")\n"), "{plugin}");
    }

    #[test]
    fn unknown_source_reads_all_inputs() {
        let files = project(&hostile_view(), None);
        let plugin = &files.iter().find(|(path, _)| path.ends_with("plugin.py")).unwrap().1;
        assert!(plugin.contains("def derive(a, b):\n"), "{plugin}");
    }
}
