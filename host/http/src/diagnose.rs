//! Describes what is wrong with the body of a lookup, with FastAPI's messages.
//!
//! The body is parsed again. Only the parts that the response repeats are kept, so a body of megabytes with many errors
//! takes little more memory than a body with one error.

use std::fmt;

use larder_serving::LISTED_MAX;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};

use super::{
    HttpError,
    echo::{AtDepth, ECHO_ITEMS_MAX, Echo, truncated},
    invalid::{flag, not_an_object, not_json, problem, unprocessable},
};

/// The parts of a body that a lookup reads.
struct Body {
    /// The whole body as a response repeats it.
    echo: Value,
    is_object: bool,
    /// The problems with `entities`; `None` if the body does not have it.
    entities: Option<Vec<Value>>,
    service: Option<Value>,
    /// The problems with `features`; `None` if the body does not have it.
    features: Option<Vec<Value>>,
    /// The values of [`FLAGS`], in the same order.
    flags: [Option<Value>; 2],
}

/// Reads a value. If the value is an object or a list, collects at most [`LISTED_MAX`] problems with its items. The
/// function gets the name or index of an item, and the item, and returns the problem with it, if any.
struct Problems<F>(F);

const FLAGS: [&str; 2] = ["full_feature_names", "include_feature_view_version_metadata"];

/// Returns the error for an invalid body of a lookup.
pub(super) fn diagnose(body: &[u8]) -> HttpError {
    if body.is_empty() {
        return unprocessable("bad_body", vec![problem("missing", &json!(["body"]), "Field required", &Value::Null)]);
    }
    let read: Body = match serde_json::from_slice(body) {
        Ok(read) => read,
        Err(error) => return not_json(body, &error),
    };
    if !read.is_object {
        return not_an_object(&read.echo);
    }
    let mut details = Vec::new();
    match read.entities {
        None => details.push(problem("missing", &json!(["body", "entities"]), "Field required", &read.echo)),
        Some(problems) => details.extend(problems),
    }
    if let Some(service) = read.service.filter(|value| !value.is_string() && !value.is_null()) {
        let loc = json!(["body", "feature_service"]);
        details.push(problem("string_type", &loc, "Input should be a valid string", &service));
    }
    details.extend(read.features.into_iter().flatten());
    for (name, value) in FLAGS.iter().zip(read.flags) {
        if let Some(value) = value.filter(|value| flag(value).is_none()) {
            let message = "Input should be a valid boolean, unable to interpret input";
            details.push(problem("bool_parsing", &json!(["body", name]), message, &value));
        }
    }
    unprocessable("bad_body", details)
}

/// Returns the problem with a column of `entities`, or `None` if it is valid.
fn column_problem(name: &Value, value: &Value) -> Option<Value> {
    let message = "Input should be a valid list";
    (!value.is_array()).then(|| problem("list_type", &json!(["body", "entities", name]), message, value))
}

/// Returns the problem with an item of `features`, or `None` if it is valid.
fn feature_problem(index: &Value, value: &Value) -> Option<Value> {
    let message = "Input should be a valid string";
    (!value.is_string()).then(|| problem("string_type", &json!(["body", "features", index]), message, value))
}

// === impl Body ===

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BodyVisitor;

        impl<'de> Visitor<'de> for BodyVisitor {
            type Value = Body;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body, A::Error> {
                let mut body = Body {
                    echo: Value::Null,
                    is_object: true,
                    entities: None,
                    service: None,
                    features: None,
                    flags: [None, None],
                };
                let mut echo = Map::new();
                while let Some(key) = map.next_key::<String>()? {
                    let value = match &*key {
                        "entities" => {
                            let (value, problems) = map.next_value_seed(Problems(column_problem))?;
                            let message = "Input should be a valid dictionary";
                            let other = || vec![problem("dict_type", &json!(["body", "entities"]), message, &value)];
                            body.entities = Some(if value.is_object() { problems } else { other() });
                            value
                        }
                        "features" => {
                            let (value, problems) = map.next_value_seed(Problems(feature_problem))?;
                            let message = "Input should be a valid list";
                            let other = || vec![problem("list_type", &json!(["body", "features"]), message, &value)];
                            body.features = Some(if value.is_array() { problems } else { other() });
                            value
                        }
                        _ => map.next_value_seed(AtDepth(1))?.0,
                    };
                    match &*key {
                        "feature_service" => body.service = Some(value.clone()),
                        "full_feature_names" => body.flags[0] = Some(value.clone()),
                        "include_feature_view_version_metadata" => body.flags[1] = Some(value.clone()),
                        _ => {}
                    }
                    if echo.len() < ECHO_ITEMS_MAX {
                        echo.insert(truncated(&key), value);
                    }
                }
                body.echo = Value::Object(echo);
                Ok(body)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Body, A::Error> {
                Ok(Body::other(AtDepth(0).visit_seq(seq)?.0))
            }

            fn visit_unit<E: Error>(self) -> Result<Body, E> {
                Ok(Body::other(Value::Null))
            }

            fn visit_bool<E: Error>(self, v: bool) -> Result<Body, E> {
                Ok(Body::other(v.into()))
            }

            fn visit_i64<E: Error>(self, v: i64) -> Result<Body, E> {
                Ok(Body::other(v.into()))
            }

            fn visit_u64<E: Error>(self, v: u64) -> Result<Body, E> {
                Ok(Body::other(v.into()))
            }

            fn visit_f64<E: Error>(self, v: f64) -> Result<Body, E> {
                Ok(Body::other(v.into()))
            }

            fn visit_str<E: Error>(self, v: &str) -> Result<Body, E> {
                Ok(Body::other(truncated(v).into()))
            }
        }

        deserializer.deserialize_any(BodyVisitor)
    }
}

impl Body {
    /// Creates the description of a body that is not an object.
    fn other(echo: Value) -> Self {
        Self { echo, is_object: false, entities: None, service: None, features: None, flags: [None, None] }
    }
}

// === impl Problems ===

impl<'de, F: Fn(&Value, &Value) -> Option<Value>> DeserializeSeed<'de> for Problems<F> {
    type Value = (Value, Vec<Value>);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: Fn(&Value, &Value) -> Option<Value>> Visitor<'de> for Problems<F> {
    type Value = (Value, Vec<Value>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut echo, mut problems) = (Map::new(), Vec::new());
        while let Some(key) = map.next_key::<String>()? {
            if problems.len() >= LISTED_MAX {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let Echo(value) = map.next_value_seed(AtDepth(2))?;
            let key = truncated(&key);
            problems.extend((self.0)(&Value::from(&*key), &value));
            if echo.len() < ECHO_ITEMS_MAX {
                echo.insert(key, value);
            }
        }
        Ok((Value::Object(echo), problems))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let (mut echo, mut problems) = (Vec::new(), Vec::new());
        let mut index = 0_usize;
        while problems.len() < LISTED_MAX {
            let Some(Echo(value)) = seq.next_element_seed(AtDepth(2))? else {
                return Ok((Value::Array(echo), problems));
            };
            problems.extend((self.0)(&Value::from(index), &value));
            if echo.len() < ECHO_ITEMS_MAX {
                echo.push(value);
            }
            index += 1;
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok((Value::Array(echo), problems))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok((Value::Null, Vec::new()))
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<Self::Value, E> {
        Ok((v.into(), Vec::new()))
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<Self::Value, E> {
        Ok((v.into(), Vec::new()))
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<Self::Value, E> {
        Ok((v.into(), Vec::new()))
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Self::Value, E> {
        Ok((v.into(), Vec::new()))
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<Self::Value, E> {
        Ok((truncated(v).into(), Vec::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details(body: &str) -> Vec<Value> {
        let error = diagnose(body.as_bytes());
        assert!(error.body.to_string().len() < 64 << 10, "{} bytes", error.body.to_string().len());
        error.body["detail"].as_array().unwrap().clone()
    }

    #[test]
    fn at_most_hundred_problems_are_listed() {
        let many = |item: &str| vec![item; 200_000].join(",");
        let listed = details(&format!(r#"{{"entities":{{}},"features":["a:b",{}]}}"#, many("1")));
        assert_eq!(listed.len(), LISTED_MAX);
        assert_eq!(listed[99]["loc"], json!(["body", "features", 100]));
        let columns: Vec<String> = (0..50_000).map(|n| format!(r#""c{n}":{n}"#)).collect();
        let listed = details(&format!(r#"{{"entities":{{{}}}}}"#, columns.join(",")));
        assert_eq!(listed.len(), LISTED_MAX);
        assert_eq!(
            listed[0],
            problem("list_type", &json!(["body", "entities", "c0"]), "Input should be a valid list", &json!(0))
        );
    }

    #[test]
    fn echoed_input_is_truncated() {
        let long = "x".repeat(1 << 20);
        for body in [
            format!(r#"{{"a":"{long}"}}"#),
            format!(r#"{{"{long}":1}}"#),
            format!(r#"["{long}"]"#),
            format!(r#""{long}""#),
            format!(r#"{{"entities":"{long}"}}"#),
            format!(r#"{{"entities":{{"{long}":1}}}}"#),
            format!(r#"{{"entities":{{}},"features":"{long}"}}"#),
            format!(r#"{{"entities":{{}},"full_feature_names":"{long}"}}"#),
            format!(r#"{{"features":[{}]}}"#, vec!["[1,2,3]"; 100_000].join(",")),
            format!(r#"{{"a":{}{}}}"#, "[".repeat(100), "]".repeat(100)),
        ] {
            let listed = details(&body);
            assert!(!listed.is_empty(), "{}", &body[..40]);
        }
    }
}
