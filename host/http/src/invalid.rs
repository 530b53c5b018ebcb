//! Reports invalid bodies as FastAPI and pydantic do: status 422, and a list of problems with their locations.

use hyper::StatusCode;
use larder_serving::LISTED_MAX;
use serde_json::{Value, json};

use super::{HttpError, echo::Echo};

/// Parses a body that must be a JSON object.
///
/// # Errors
/// Status 422 if the body is empty, not JSON, or not an object.
pub(super) fn read_object(body: &[u8]) -> Result<Value, HttpError> {
    if body.is_empty() {
        return Err(unprocessable(
            "bad_body",
            vec![problem("missing", &json!(["body"]), "Field required", &Value::Null)],
        ));
    }
    let value: Value = serde_json::from_slice(body).map_err(|error| not_json(body, &error))?;
    if value.is_object() { Ok(value) } else { Err(not_an_object(&value)) }
}

/// Returns the error for a body that is not JSON.
pub(super) fn not_json(body: &[u8], error: &serde_json::Error) -> HttpError {
    let detail = json!({
        "type": "json_invalid", "loc": ["body", offset(body, error)], "msg": "JSON decode error",
        "input": {}, "ctx": { "error": python_message(error) },
    });
    unprocessable("bad_json", vec![detail])
}

/// Returns the error for a body that is JSON but not an object.
pub(super) fn not_an_object(body: &Value) -> HttpError {
    let message = "Input should be a valid dictionary or object to extract fields from";
    unprocessable("bad_body", vec![problem("model_attributes_type", &json!(["body"]), message, body)])
}

/// Returns the error that lists the first [`LISTED_MAX`] problems.
pub(super) fn unprocessable(kind: &'static str, mut problems: Vec<Value>) -> HttpError {
    problems.truncate(LISTED_MAX);
    HttpError::detail(StatusCode::UNPROCESSABLE_ENTITY, kind, Value::Array(problems))
}

/// Returns one problem. It has pydantic's error type, the location, the message, and the input, which is truncated if
/// it is long.
pub(super) fn problem(kind: &str, loc: &Value, message: &str, input: &Value) -> Value {
    json!({ "type": kind, "loc": Echo::of(loc), "msg": message, "input": Echo::of(input) })
}

/// Returns the offset in the body at which parsing failed, from 0 as in Python.
fn offset(body: &[u8], error: &serde_json::Error) -> usize {
    let lines = body.split_inclusive(|byte| *byte == b'\n');
    let before: usize = lines.take(error.line().saturating_sub(1)).map(<[u8]>::len).sum();
    (before + error.column()).saturating_sub(1)
}

/// Translates a parser error into the message of Python's `json`, which clients of Feast expect. The parser has no
/// error codes, so its messages are matched by their beginning. Any other message is returned without its line and
/// column.
fn python_message(error: &serde_json::Error) -> String {
    const MESSAGES: [(&str, &str); 8] = [
        ("key must be a string", "Expecting property name enclosed in double quotes"),
        ("EOF while parsing an object", "Expecting property name enclosed in double quotes"),
        ("trailing comma", "Illegal trailing comma before end of object"),
        ("expected `:`", "Expecting ':' delimiter"),
        ("expected `,`", "Expecting ',' delimiter"),
        ("EOF while parsing a string", "Unterminated string starting at"),
        ("trailing characters", "Extra data"),
        ("expected value", "Expecting value"),
    ];
    let message = error.to_string();
    let known = MESSAGES.iter().find(|(prefix, _)| message.starts_with(prefix));
    known.map_or_else(
        || message.split(" at line ").next().unwrap_or(&message).to_owned(),
        |(_, python)| (*python).to_owned(),
    )
}

/// Parses a boolean as pydantic does: also from 0, 1 and some strings.
pub(super) fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::Number(number) => match number.as_f64()? {
            0.0 => Some(false),
            1.0 => Some(true),
            _ => None,
        },
        Value::String(word) => match word.to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
            "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}
