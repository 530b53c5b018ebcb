//! Values of a request as an error response repeats them: truncated if they are long, and only a few levels deep.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// A value as a response repeats it, truncated if it is long.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Echo(pub(super) Value);

/// Reads an [`Echo`] at a depth.
#[derive(Clone, Copy)]
pub(super) struct AtDepth(pub(super) usize);

/// The limit on items of a list or mapping, and on levels of nesting, that a response repeats.
pub(super) const ECHO_ITEMS_MAX: usize = 20;
const ECHO_DEPTH_MAX: usize = 8;

/// The limit on characters of a string that a response repeats.
const ECHO_CHARS_MAX: usize = 200;

// === impl Echo ===

impl Echo {
    /// Returns a value as a response repeats it.
    pub(super) fn of(value: &Value) -> Value {
        fn at_depth(value: &Value, depth: usize) -> Value {
            match value {
                Value::Array(_) | Value::Object(_) if depth >= ECHO_DEPTH_MAX => Value::from("…"),
                Value::Array(items) => {
                    items.iter().take(ECHO_ITEMS_MAX).map(|item| at_depth(item, depth + 1)).collect()
                }
                Value::Object(items) => {
                    let items = items.iter().take(ECHO_ITEMS_MAX);
                    items.map(|(key, item)| (truncated(key), at_depth(item, depth + 1))).collect::<Map<_, _>>().into()
                }
                Value::String(text) => truncated(text).into(),
                Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
            }
        }
        at_depth(value, 0)
    }
}

impl<'de> DeserializeSeed<'de> for AtDepth {
    type Value = Echo;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Echo, D::Error> {
        // Values that are nested too deeply to be repeated are read too, up to the depth limit of the parser.
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AtDepth {
    type Value = Echo;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Echo, A::Error> {
        let mut echo = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let Echo(value) = map.next_value_seed(AtDepth(self.0 + 1))?;
            if self.0 < ECHO_DEPTH_MAX && echo.len() < ECHO_ITEMS_MAX {
                echo.insert(truncated(&key), value);
            }
        }
        Ok(Echo(if self.0 < ECHO_DEPTH_MAX { Value::Object(echo) } else { Value::from("…") }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Echo, A::Error> {
        let mut echo = Vec::new();
        while let Some(Echo(item)) = seq.next_element_seed(AtDepth(self.0 + 1))? {
            if self.0 < ECHO_DEPTH_MAX && echo.len() < ECHO_ITEMS_MAX {
                echo.push(item);
            }
        }
        Ok(Echo(if self.0 < ECHO_DEPTH_MAX { Value::Array(echo) } else { Value::from("…") }))
    }

    fn visit_unit<E: Error>(self) -> Result<Echo, E> {
        Ok(Echo(Value::Null))
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<Echo, E> {
        Ok(Echo(v.into()))
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<Echo, E> {
        Ok(Echo(v.into()))
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<Echo, E> {
        Ok(Echo(v.into()))
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Echo, E> {
        Ok(Echo(v.into()))
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<Echo, E> {
        Ok(Echo(truncated(v).into()))
    }
}

/// Truncates a string if it is long.
pub(super) fn truncated(text: &str) -> String {
    match text.char_indices().nth(ECHO_CHARS_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}
