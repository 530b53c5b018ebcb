//! Evaluates the expressions that readers and writers of feature tables use.

use serde_json::Value;

use super::{Rejection, invalid, value::ordered};

/// Parameters that are not supported. They are rejected, because a test that relies on an ignored parameter would test
/// nothing.
const UNSUPPORTED: [&str; 11] = [
    "FilterExpression",
    "AttributesToGet",
    "ScanFilter",
    "QueryFilter",
    "KeyConditions",
    "Expected",
    "IndexName",
    "Select",
    "ScanIndexForward",
    "ConditionalOperator",
    "ReturnItemCollectionMetrics",
];

/// Rejects unsupported parameters, and names and values that no expression uses.
pub(super) fn check(body: &Value) -> Result<(), Rejection> {
    if let Some(name) = UNSUPPORTED.iter().find(|name| body.get(**name).is_some_and(|value| !value.is_null())) {
        return Err(invalid(&format!("this server does not support {name}")));
    }
    let expressions: Vec<&str> = ["ConditionExpression", "KeyConditionExpression", "ProjectionExpression"]
        .iter()
        .filter_map(|name| body.get(*name).and_then(Value::as_str))
        .collect();
    for list in ["ExpressionAttributeNames", "ExpressionAttributeValues"] {
        let names = body.get(list).and_then(Value::as_object).into_iter().flatten();
        for (name, _) in names {
            let is_used =
                |text: &&str| text.split(|c: char| !c.is_alphanumeric() && !"#:_".contains(c)).any(|word| word == name);
            if !expressions.iter().any(is_used) {
                return Err(invalid(&format!("Value provided in {list} unused in expressions: keys: {{{name}}}")));
            }
        }
    }
    Ok(())
}

/// Resolves a placeholder such as `#name`. Returns any other word unchanged.
pub(super) fn name<'v>(body: &'v Value, word: &'v str) -> Result<&'v str, Rejection> {
    if !word.starts_with('#') {
        return Ok(word);
    }
    let known = body.get("ExpressionAttributeNames").and_then(|names| names.get(word)?.as_str());
    known.ok_or_else(|| {
        invalid(&format!("An expression attribute name used in the document path is not defined: {word}"))
    })
}

fn value<'v>(body: &'v Value, word: &str) -> Result<&'v Value, Rejection> {
    let known = body.get("ExpressionAttributeValues").and_then(|values| values.get(word));
    known.ok_or_else(|| invalid(&format!("An expression attribute value used in expression is not defined: {word}")))
}

/// Returns whether the condition of a write is true. Supports `attribute_not_exists(x)`, `y < :v`, `y <= :v`, and
/// several of these conditions with `OR` between them.
pub(super) fn holds(body: &Value, item: Option<&Value>) -> Result<bool, Rejection> {
    let Some(condition) = body.get("ConditionExpression").and_then(Value::as_str) else { return Ok(true) };
    let mut holds = false;
    for part in condition.split(" OR ") {
        let part = part.trim();
        if let Some(inner) =
            part.strip_prefix("attribute_not_exists").and_then(|rest| rest.trim().strip_prefix('(')?.strip_suffix(')'))
        {
            let name = name(body, inner.trim())?;
            holds |= item.and_then(|item| item.get(name)).is_none();
            continue;
        }
        let words: Vec<&str> = part.split_whitespace().collect();
        let [left, operator @ ("<" | "<="), right] = words.as_slice() else {
            return Err(invalid(&format!("this server does not support the condition '{condition}'")));
        };
        let (left, right) = (name(body, left)?, value(body, right)?);
        let Some(left) = item.and_then(|item| item.get(left)) else { continue };
        let is_same_type = kind(left) == kind(right);
        if let (true, Some(left), Some(right)) = (is_same_type, ordered(left), ordered(right)) {
            holds |= left < right || (*operator == "<=" && left == right);
        }
    }
    Ok(holds)
}

fn kind(value: &Value) -> Option<&String> {
    value.as_object()?.keys().next()
}

/// Returns the value that the condition of a query, such as `#key = :key`, requires for this partition key.
pub(super) fn wanted<'v>(body: &'v Value, partition: &str) -> Result<&'v Value, Rejection> {
    let condition = body.get("KeyConditionExpression").and_then(Value::as_str);
    let condition =
        condition.ok_or_else(|| invalid("Either the KeyConditions or KeyConditionExpression is required"))?;
    let (left, right) = condition.split_once('=').map(|(left, right)| (left.trim(), right.trim())).unwrap_or_default();
    if right.is_empty() || right.contains(char::is_whitespace) {
        return Err(invalid(&format!("this server does not support the condition '{condition}'")));
    }
    if name(body, left)? != partition {
        return Err(invalid(&format!("Query condition missed key schema element: {partition}")));
    }
    value(body, right)
}
