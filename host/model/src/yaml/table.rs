//! Reads a mapping key by key, and collects all errors.

use std::{collections::BTreeMap, time::Duration};

use super::{Located, Node, Place, Problems, Tree, nearest};
use crate::model::parse_duration;

/// A mapping that is being read. Read all keys that are valid in it, then call [`Table::finish`].
///
/// A value of the wrong kind is reported as an error and treated as absent. Reading continues so that all errors are
/// found. If there are errors, the result may only be used to find further errors.
#[derive(Debug)]
pub struct Table<'n> {
    /// What this mapping describes, for messages, such as "feature view".
    what: &'static str,
    at: &'n Place,
    entries: &'n [(Located<String>, Node)],
    /// The keys that were read. [`Table::finish`] reports all other keys.
    read_keys: Vec<&'static str>,
    problems: &'n Problems,
}

// === impl Table ===

impl<'n> Table<'n> {
    /// Starts to read a mapping that describes `what`. If the node is not a mapping, reports an error and returns
    /// `None`.
    #[must_use]
    pub fn new(what: &'static str, node: &'n Node, problems: &'n Problems) -> Option<Self> {
        let entries = match &node.tree {
            Tree::Map(entries) => entries.as_slice(),
            other => {
                problems.error(&node.at, format!("{what}: expected a mapping, got {}", other.kind()));
                return None;
            }
        };
        Some(Self { what, at: &node.at, entries, read_keys: Vec::new(), problems })
    }

    /// Returns the position of the mapping.
    #[must_use]
    pub fn at(&self) -> &'n Place {
        self.at
    }

    /// Returns the value of a key; `None` if the key is absent or its value is null.
    pub fn get(&mut self, key: &'static str) -> Option<&'n Node> {
        self.get_or_null(key).filter(|node| node.tree != Tree::Null)
    }

    /// Returns the value of a key; `None` if the key is absent. This is for keys for which null is a valid value.
    pub fn get_or_null(&mut self, key: &'static str) -> Option<&'n Node> {
        if !self.read_keys.contains(&key) {
            self.read_keys.push(key);
        }
        self.entries.iter().find(|(name, _)| name.value == key).map(|(_, node)| node)
    }

    /// Returns the text of a key. An unquoted number or boolean is an error.
    pub fn text(&mut self, key: &'static str) -> Option<Located<String>> {
        let node = self.get(key)?;
        self.as_text(key, node)
    }

    /// Returns the text of a key. A missing key or an empty string is an error.
    pub fn required_text(&mut self, key: &'static str) -> Option<Located<String>> {
        let Some(node) = self.get(key) else {
            self.missing(key);
            return None;
        };
        let text = self.as_text(key, node)?;
        if text.value.trim().is_empty() {
            self.problems.error(&text.at, format!("{}: '{key}' is empty", self.what));
            return None;
        }
        Some(text)
    }

    /// Returns the integer of a key. An integer below `min` or above `max` is an error.
    pub fn int(&mut self, key: &'static str, min: i64, max: i64) -> Option<Located<i64>> {
        let node = self.get(key)?;
        let Tree::Int(value) = node.tree else {
            self.wrong_kind(key, "a whole number", node);
            return None;
        };
        if !(min..=max).contains(&value) {
            let what = self.what;
            self.problems.error(&node.at, format!("{what}: '{key}' is {value}, but must be between {min} and {max}"));
            return None;
        }
        Some(Located { value, at: node.at.clone() })
    }

    /// Returns the boolean of a key.
    pub fn bool(&mut self, key: &'static str) -> Option<bool> {
        let node = self.get(key)?;
        let Tree::Bool(value) = node.tree else {
            self.wrong_kind(key, "true or false", node);
            return None;
        };
        Some(value)
    }

    /// Returns the duration of a key, such as `6h`. A number without a unit is an error, except 0.
    pub fn duration(&mut self, key: &'static str) -> Option<Located<Duration>> {
        let node = self.get(key)?;
        let text = match &node.tree {
            Tree::Int(0) => "0",
            Tree::Text(text) => text,
            Tree::Int(number) => {
                let help = Some(format!("write, for example, {number}s or {number}d"));
                self.problems.error_with_help(&node.at, format!("{}: '{key}' needs a unit", self.what), help);
                return None;
            }
            _ => {
                self.wrong_kind(key, "a duration such as 6h", node);
                return None;
            }
        };
        match parse_duration(text) {
            Ok(value) => Some(Located { value, at: node.at.clone() }),
            Err(message) => {
                self.problems.error(&node.at, format!("{}: '{key}': {message}", self.what));
                None
            }
        }
    }

    /// Returns the number of bytes of a key: an integer, or a number with a unit such as `256MiB` or `1GB`.
    pub fn bytes(&mut self, key: &'static str) -> Option<Located<u64>> {
        let node = self.get(key)?;
        let value = match &node.tree {
            Tree::Int(number) => u64::try_from(*number).ok(),
            Tree::Text(text) => parse_bytes(text),
            _ => None,
        };
        if value.is_none() {
            self.wrong_kind(key, "a number of bytes such as 256MiB", node);
        }
        Some(Located { value: value?, at: node.at.clone() })
    }

    /// Returns the value in `choices` for the key's text. Adds an error if the text is not in `choices`.
    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = choices.iter().find(|(choice, _)| *choice == text.value);
        if found.is_none() {
            let list: Vec<_> = choices.iter().map(|(choice, _)| *choice).collect();
            let message = format!("{}: '{key}' is '{}', expected one of {}", self.what, text.value, list.join(", "));
            self.problems.error_with_help(&text.at, message, nearest(&text.value, list.iter().copied()));
        }
        found.map(|(_, value)| *value)
    }

    /// Returns the items of a list; empty if the key is absent.
    pub fn list(&mut self, key: &'static str) -> &'n [Node] {
        match self.get(key).map(|node| (&node.tree, node)) {
            None => &[],
            Some((Tree::List(items), _)) => items,
            Some((_, node)) => {
                self.wrong_kind(key, "a list", node);
                &[]
            }
        }
    }

    /// Returns the strings of a list. A single text is treated as a list with one item.
    pub fn texts(&mut self, key: &'static str) -> Vec<Located<String>> {
        let Some(node) = self.get(key) else { return Vec::new() };
        match &node.tree {
            Tree::List(items) => items.iter().filter_map(|item| self.as_text(key, item)).collect(),
            _ => self.as_text(key, node).into_iter().collect(),
        }
    }

    /// Returns a mapping from text to text. Values that are numbers or booleans are converted to text, for tags such as
    /// `version: 2`. A null becomes an empty string.
    pub fn text_map(&mut self, key: &'static str) -> BTreeMap<String, Located<String>> {
        let Some(node) = self.get(key) else { return BTreeMap::new() };
        let Tree::Map(entries) = &node.tree else {
            self.wrong_kind(key, "a mapping", node);
            return BTreeMap::new();
        };
        let mut map = BTreeMap::new();
        for (name, value) in entries {
            let text = match &value.tree {
                Tree::Text(text) => text.clone(),
                Tree::Bool(v) => v.to_string(),
                Tree::Int(v) => v.to_string(),
                Tree::Float(v) => v.to_string(),
                Tree::Null => String::new(),
                Tree::List(_) | Tree::Map(_) => {
                    self.wrong_kind(key, "a mapping from text to text", value);
                    continue;
                }
            };
            map.insert(name.value.clone(), Located { value: text, at: value.at.clone() });
        }
        map
    }

    /// Reports that a key is missing.
    pub fn missing(&self, key: &str) {
        self.problems.error(self.at, format!("{}: '{key}' is missing", self.what));
    }

    /// Ends the read. Reports every key that was not read as an error.
    pub fn finish(self) {
        for (key, _) in self.entries {
            if !self.read_keys.contains(&key.value.as_str()) {
                let known = self.read_keys.iter().copied();
                let help = nearest(&key.value, known.clone())
                    .unwrap_or_else(|| format!("known keys: {}", known.collect::<Vec<_>>().join(", ")));
                self.problems.error_with_help(
                    &key.at,
                    format!("{}: unknown key '{}'", self.what, key.value),
                    Some(help),
                );
            }
        }
    }

    fn as_text(&self, key: &str, node: &Node) -> Option<Located<String>> {
        let Tree::Text(text) = &node.tree else {
            self.wrong_kind(key, "text", node);
            return None;
        };
        Some(Located { value: text.clone(), at: node.at.clone() })
    }

    fn wrong_kind(&self, key: &str, expected: &str, node: &Node) {
        let message = format!("{}: '{key}' must be {expected}, got {}", self.what, node.tree.kind());
        self.problems.error(&node.at, message);
    }
}

/// Parses a size such as `4096`, `64KiB`, `256 MiB` or `1GB`. Returns the number of bytes, or `None` for other text.
#[must_use]
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::yaml::parse;

    /// Reads a mapping with one key of each kind and prints the problems.
    fn check(text: &str, expected: Expect) {
        let problems = Problems::default();
        if let Some(node) = parse("f.yaml", text, &problems)
            && let Some(mut table) = Table::new("thing", &node, &problems)
        {
            let _ = table.required_text("name");
            let _ = table.int("count", 1, 9);
            let _ = table.bool("on");
            let _ = table.duration("every");
            let _ = table.bytes("size");
            let _ = table.choice("mode", &[("upsert", 0), ("replace", 1)]);
            let _ = table.list("items");
            let _ = table.texts("names");
            let _ = table.text_map("tags");
            table.finish();
        }
        let lines: Vec<String> = problems.into_sorted().iter().map(ToString::to_string).collect();
        expected.assert_eq(&lines.join("\n"));
    }

    #[test]
    fn valid_mapping_has_no_problems() {
        let text = "name: a\ncount: 9\non: true\nevery: 6h\nsize: 256MiB\nmode: replace\nitems: [1]\nnames: x\n\
                    tags: {version: 2, owner: me}\n";
        check(text, expect![[""]]);
        check("name: a\ncount: ~\n", expect![[""]]);
    }

    #[test]
    fn all_errors_are_reported_with_positions() {
        let text = "nam: a\ncount: 10\non: yes\nevery: 30\nsize: 3 apples\nmode: replac\nitems: x\nnames: [1]\n\
                    tags: [a]\nwhatever: 1\n";
        check(
            text,
            expect![[r#"
            f.yaml:1:1: error: thing: 'name' is missing
            f.yaml:1:1: error: thing: unknown key 'nam' (did you mean 'name'?)
            f.yaml:2:8: error: thing: 'count' is 10, but must be between 1 and 9
            f.yaml:3:5: error: thing: 'on' must be true or false, got text
            f.yaml:4:8: error: thing: 'every' needs a unit (write, for example, 30s or 30d)
            f.yaml:5:7: error: thing: 'size' must be a number of bytes such as 256MiB, got text
            f.yaml:6:7: error: thing: 'mode' is 'replac', expected one of upsert, replace (did you mean 'replace'?)
            f.yaml:7:8: error: thing: 'items' must be a list, got text
            f.yaml:8:9: error: thing: 'names' must be text, got a whole number
            f.yaml:9:7: error: thing: 'tags' must be a mapping, got a list
            f.yaml:10:1: error: thing: unknown key 'whatever' (known keys: name, count, on, every, size, mode, items, names, tags)"#]],
        );
    }

    #[test]
    fn only_get_or_null_returns_null() {
        let problems = Problems::default();
        let node = parse("f.yaml", "on: null\n", &problems).unwrap();
        let mut table = Table::new("thing", &node, &problems).unwrap();
        assert_eq!(table.get("on"), None);
        assert_eq!(table.get_or_null("on").map(|node| &node.tree), Some(&Tree::Null));
        assert_eq!(table.get_or_null("off"), None);
        table.finish();
        assert!(problems.into_sorted().is_empty());
    }

    #[test]
    fn non_mapping_is_reported() {
        check("a: [", expect!["f.yaml:1:4: error: unclosed bracket '['"]);
        check("- a", expect!["f.yaml:1:1: error: thing: expected a mapping, got a list"]);
        check("", expect!["f.yaml:1:1: error: thing: expected a mapping, got nothing"]);
        check("name: a\nname: b\n", expect!["f.yaml:2:1: error: the key 'name' is defined twice"]);
        check(
            "name: a\n---\nname: b\n",
            expect!["f.yaml:3:1: error: a second YAML document begins here, but a file may only have one"],
        );
    }

    #[test]
    fn nesting_and_alias_limits_hold() {
        let deep = |levels: usize| format!("name: a\nitems: {}{}\n", "[".repeat(levels), "]".repeat(levels));
        check(&deep(30), expect![[""]]);
        check(&deep(40), expect!["f.yaml:2:39: error: nested too deeply: at most 32 levels are allowed"]);
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let below = format!("*a{}, ", level - 1).repeat(10);
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", below.trim_end_matches(", ")));
        }
        let too_many = "the file has too many values: at most 200000, with aliases counted at each use";
        let problems = Problems::default();
        assert!(parse("f.yaml", &bomb, &problems).is_none());
        assert!(problems.into_sorted()[0].to_string().contains(too_many));
    }
}
