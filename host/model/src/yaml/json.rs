//! Formats a YAML value as JSON text, for values that Larder passes on without interpreting them.

use std::fmt::Write as _;

use super::{Node, Tree};

// === impl Node ===

impl Node {
    /// Returns the value as JSON, with keys in written order.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = String::new();
        write(self, &mut json);
        json
    }
}

fn write(node: &Node, json: &mut String) {
    match &node.tree {
        Tree::Null => json.push_str("null"),
        Tree::Bool(value) => json.push_str(if *value { "true" } else { "false" }),
        // Writing to a string does not fail.
        Tree::Int(value) => _ = write!(json, "{value}"),
        // The debug format always has a decimal point or an exponent, so that a double stays a double. `parse` rejects
        // infinities and NaN.
        Tree::Float(value) => _ = write!(json, "{value:?}"),
        Tree::Text(text) => quote(text, json),
        Tree::List(items) => {
            json.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    json.push(',');
                }
                write(item, json);
            }
            json.push(']');
        }
        Tree::Map(entries) => {
            json.push('{');
            for (index, (key, value)) in entries.iter().enumerate() {
                if index > 0 {
                    json.push(',');
                }
                quote(&key.value, json);
                json.push(':');
                write(value, json);
            }
            json.push('}');
        }
    }
}

fn quote(text: &str, json: &mut String) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            c if u32::from(c) < 0x20 => _ = write!(json, "\\u{:04x}", u32::from(c)),
            c => json.push(c),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use crate::yaml::{Problems, parse};

    #[test]
    fn yaml_value_formats_as_json() {
        let yaml = "{a: [1, -2.0, 1e300, true, null], 'b\"\\': \"x\\ny\\x1fü\", c: {}, d: []}";
        let expected = r#"{"a":[1,-2.0,1e300,true,null],"b\"\\":"x\u000ay\u001fü","c":{},"d":[]}"#;
        let node = parse("a.yaml", yaml, &Problems::default()).unwrap();
        assert_eq!(node.to_json(), expected);
    }
}
