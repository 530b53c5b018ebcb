//! The parts of an item that a response contains.

use serde_json::{Map, Value, json};

use super::{Refusal, expressions::name, invalid};

/// The requested parts; all of them if a request has no projection.
#[derive(Debug)]
pub(super) struct Projection(Option<Vec<Path>>);

/// Names of attributes, outermost first.
type Path = Vec<String>;

fn path(body: &Value, text: &str) -> Result<Path, Refusal> {
    let step = |word: &str| {
        let is_word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || c == '_');
        // An index of a list, which is valid elsewhere, is not modelled.
        if !is_word(word.strip_prefix('#').unwrap_or(word)) {
            return Err(invalid(&format!("Invalid ProjectionExpression: Syntax error; token: \"{text}\"")));
        }
        name(body, word).map(str::to_owned)
    };
    // A resolved name may contain a dot, so names are resolved after splitting the path.
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
        let place = to.entry(first.clone()).or_insert_with(|| json!({ "M": {} }));
        if let Some(place) = place.get_mut("M").and_then(Value::as_object_mut) {
            copy(inner, rest, place);
        }
    }
}

// === impl Projection ===

impl Projection {
    /// Parses a request's `ProjectionExpression`.
    pub(super) fn parse(body: &Value) -> Result<Self, Refusal> {
        let Some(text) = body.get("ProjectionExpression").filter(|text| !text.is_null()) else {
            return Ok(Self(None));
        };
        let text = text.as_str().ok_or_else(|| invalid("ProjectionExpression is a text"))?;
        let paths = text.split(',').map(|text| path(body, text.trim())).collect::<Result<Vec<_>, _>>()?;
        for (place, one) in paths.iter().enumerate() {
            if paths[..place].iter().any(|other| one.starts_with(other) || other.starts_with(one)) {
                return Err(invalid("Invalid ProjectionExpression: Two document paths overlap with each other"));
            }
        }
        Ok(Self(Some(paths)))
    }

    /// Returns the requested parts of an item. Missing parts are left out, with the maps around them.
    pub(super) fn of(&self, item: &Value) -> Value {
        let (Some(paths), Some(item)) = (&self.0, item.as_object()) else { return item.clone() };
        let mut parts = Map::new();
        paths.iter().filter(|path| has(item, path)).for_each(|path| copy(item, path, &mut parts));
        Value::Object(parts)
    }
}
