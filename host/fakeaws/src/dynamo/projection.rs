//! Selects the parts of an item that a response contains.

use serde_json::{Map, Value, json};

use super::{Rejection, expressions::name, invalid};

/// The paths of the requested parts; `None` if the request has no projection and thus selects the whole item.
#[derive(Debug)]
pub(super) struct Projection(Option<Vec<Path>>);

/// The names of nested attributes, outermost first.
type Path = Vec<String>;

/// Parses a path, and resolves its names.
fn path(body: &Value, text: &str) -> Result<Path, Rejection> {
    let step = |word: &str| {
        let is_word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || c == '_');
        // DynamoDB also allows list indices here, but this server does not support them.
        if !is_word(word.strip_prefix('#').unwrap_or(word)) {
            return Err(invalid(&format!("Invalid ProjectionExpression: Syntax error; token: \"{text}\"")));
        }
        name(body, word).map(str::to_owned)
    };
    // A resolved name may contain a dot, so the path is split before names are resolved.
    text.split('.').map(|word| step(word.trim())).collect()
}

/// Returns whether a map has a value at a path.
fn has(from: &Map<String, Value>, path: &[String]) -> bool {
    match path {
        [] => false,
        [last] => from.contains_key(last),
        [first, rest @ ..] => inner(from, first).is_some_and(|inner| has(inner, rest)),
    }
}

fn inner<'v>(from: &'v Map<String, Value>, name: &str) -> Option<&'v Map<String, Value>> {
    from.get(name)?.get("M")?.as_object()
}

fn copy(from: &Map<String, Value>, path: &[String], to: &mut Map<String, Value>) {
    let Some((first, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        if let Some(value) = from.get(first) {
            to.insert(first.clone(), value.clone());
        }
    } else if let Some(inner) = inner(from, first) {
        let entry = to.entry(first.clone()).or_insert_with(|| json!({ "M": {} }));
        if let Some(map) = entry.get_mut("M").and_then(Value::as_object_mut) {
            copy(inner, rest, map);
        }
    }
}

// === impl Projection ===

impl Projection {
    /// Parses a request's `ProjectionExpression`.
    pub(super) fn parse(body: &Value) -> Result<Self, Rejection> {
        let Some(text) = body.get("ProjectionExpression").filter(|text| !text.is_null()) else {
            return Ok(Self(None));
        };
        let text = text.as_str().ok_or_else(|| invalid("ProjectionExpression must be a string"))?;
        let paths = text.split(',').map(|text| path(body, text.trim())).collect::<Result<Vec<_>, _>>()?;
        for (index, one) in paths.iter().enumerate() {
            if paths[..index].iter().any(|other| one.starts_with(other) || other.starts_with(one)) {
                return Err(invalid("Invalid ProjectionExpression: Two document paths overlap with each other"));
            }
        }
        Ok(Self(Some(paths)))
    }

    /// Returns the requested parts of an item. Leaves out parts that the item does not have, and maps that would be
    /// empty as a result.
    pub(super) fn of(&self, item: &Value) -> Value {
        let (Some(paths), Some(item)) = (&self.0, item.as_object()) else { return item.clone() };
        let mut parts = Map::new();
        paths.iter().filter(|path| has(item, path)).for_each(|path| copy(item, path, &mut parts));
        Value::Object(parts)
    }
}
