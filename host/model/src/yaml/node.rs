//! The tree of a YAML document. Each node has its position in the file.

use std::{fmt, sync::Arc};

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Error, Location, Options, Spanned, budget::BudgetBreach};

use super::{Located, Place, Problems};

/// A value with its position.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The position of the value.
    pub at: Place,
    /// The value.
    pub tree: Tree,
}

/// A YAML value.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    /// Null.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file. Its keys are unique.
    Map(Vec<(Located<String>, Node)>),
}

/// The maximum nesting depth. Definitions need 6 levels.
const DEPTH_MAX: usize = 32;
/// The maximum number of nodes in one file. The nodes of an alias are counted at each use. The limit is high enough for
/// 10,000 features with all their settings.
const NODES_MAX: usize = 200_000;

/// Parses one YAML document. If that fails, for example because of a syntax error, a duplicate key or an exceeded
/// limit, adds an error to `problems` and returns `None`.
#[must_use]
pub fn parse(file: &str, text: &str, problems: &Problems) -> Option<Node> {
    let budget = serde_yaml::budget! { max_depth: DEPTH_MAX, max_nodes: NODES_MAX };
    let options: Options = serde_yaml::options! { budget: budget, strict_booleans: true, with_snippet: false };
    let file: Arc<str> = file.into();
    match serde_yaml::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => Some(with_positions(&file, raw)),
        Err(error) => {
            let at = error.location().map_or_else(|| Place::file(&file), |at| place_of(&file, at));
            problems.error(&at, message(&error));
            None
        }
    }
}

/// Formats a parser error for the author of the file. The library's own messages mention options of the library, which
/// the author cannot set.
fn message(error: &Error) -> String {
    let mut error = error.without_snippet();
    // An error in the nodes of an alias is wrapped in the alias's position.
    while let Error::AliasError { error: inner, .. } = error {
        error = inner.without_snippet();
    }
    match error {
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("the key '{key}' is defined twice"),
        Error::MultipleDocuments { .. } => {
            "a second YAML document begins here, but a file may only have one".to_owned()
        }
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => {
            format!("nested too deeply: at most {DEPTH_MAX} levels are allowed")
        }
        Error::Budget { .. } => {
            format!("the file has too many values: at most {NODES_MAX}, with aliases counted at each use")
        }
        other => {
            let message = other.to_string();
            // The position is reported separately.
            message.split(" at line ").next().unwrap_or(&message).to_owned()
        }
    }
}

/// The result of the YAML parser: a tree whose nodes have the parser's own locations.
enum Raw {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

struct RawVisitor;

fn with_positions(file: &Arc<str>, raw: Spanned<Raw>) -> Node {
    let at = place_of(file, raw.referenced);
    let tree = match raw.value {
        Raw::Null => Tree::Null,
        Raw::Bool(v) => Tree::Bool(v),
        Raw::Int(v) => Tree::Int(v),
        Raw::Float(v) => Tree::Float(v),
        Raw::Text(v) => Tree::Text(v),
        Raw::List(items) => Tree::List(items.into_iter().map(|item| with_positions(file, item)).collect()),
        Raw::Map(entries) => Tree::Map(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let at = place_of(file, key.referenced);
                    (Located { value: key.value, at }, with_positions(file, value))
                })
                .collect(),
        ),
    };
    Node { at, tree }
}

fn place_of(file: &Arc<str>, location: Location) -> Place {
    let clamp = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Place { file: Arc::clone(file), line: clamp(location.line()), column: clamp(location.column()) }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E: de::Error>(self, v: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(v))
    }

    fn visit_i64<E: de::Error>(self, v: i64) -> Result<Raw, E> {
        Ok(Raw::Int(v))
    }

    fn visit_u64<E: de::Error>(self, v: u64) -> Result<Raw, E> {
        i64::try_from(v).map(Raw::Int).map_err(|_| E::custom(format!("the number {v} is too large")))
    }

    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Raw, E> {
        Ok(Raw::Float(v))
    }

    fn visit_str<E: de::Error>(self, v: &str) -> Result<Raw, E> {
        Ok(Raw::Text(v.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

// === impl Tree ===

impl Tree {
    /// Returns the kind of the value, for messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}
