//! Checks whether two feature servers return the same values.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde_json::Value;

/// The result of a comparison without differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Same {
    /// The number of compared values.
    pub(crate) values: usize,
}

/// Compares two responses in Feast's format, column by column. Columns are matched by name, because servers may order
/// them differently. Two integers are compared exactly, and other pairs of numbers as doubles.
///
/// # Errors
/// If a response is invalid, or if the responses differ. The error describes the first difference.
pub(crate) fn compare(ours: &[u8], theirs: &[u8]) -> anyhow::Result<Same> {
    let ours = columns(ours).context("Larder's response is invalid")?;
    let theirs = columns(theirs).context("the other server's response is invalid")?;
    let names = |columns: &BTreeMap<String, Vec<Value>>| columns.keys().cloned().collect::<Vec<_>>();
    if names(&ours) != names(&theirs) {
        bail!("the columns differ: {:?} and {:?}", names(&ours), names(&theirs));
    }
    let mut values = 0;
    for (name, ours) in &ours {
        let theirs = &theirs[name];
        if ours.len() != theirs.len() {
            bail!("column {name}: {} values and {}", ours.len(), theirs.len());
        }
        for (row, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
            if !equal(ours, theirs) {
                bail!("column {name}, row {row}: {ours} and {theirs}");
            }
            values += 1;
        }
    }
    Ok(Same { values })
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        // Two integers are not compared as doubles, because different integers beyond 2^53 can be equal as doubles.
        (Some(x), Some(y)) => {
            if a.is_f64() || b.is_f64() {
                x == y
            } else {
                a == b
            }
        }
        _ => a == b,
    }
}

fn columns(answer: &[u8]) -> anyhow::Result<BTreeMap<String, Vec<Value>>> {
    let answer: Value = serde_json::from_slice(answer).context("it is not JSON")?;
    let names = answer["metadata"]["feature_names"].as_array().context("it has no feature names")?;
    let results = answer["results"].as_array().context("it has no results")?;
    let column = |(name, result): (&Value, &Value)| {
        let values = result["values"].as_array().context("a result has no values")?;
        Ok((name.as_str().context("a feature name is not a string")?.to_owned(), values.clone()))
    };
    names.iter().zip(results).map(column).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(columns: Value) -> Vec<u8> {
        let columns = columns.as_array().unwrap();
        let names: Vec<_> = columns.iter().map(|column| &column[0]).collect();
        let results: Vec<_> = columns.iter().map(|column| json!({ "values": column[1] })).collect();
        json!({ "metadata": { "feature_names": names }, "results": results }).to_string().into_bytes()
    }

    #[test]
    fn column_order_and_number_format_are_ignored() {
        let ours = answer(json!([["a", [1, null]], ["b", [2.0, "x"]]]));
        let theirs = answer(json!([["b", [2, "x"]], ["a", [1, null]]]));
        assert_eq!(compare(&ours, &theirs).unwrap(), Same { values: 4 });
    }

    #[test]
    fn differences_are_named() {
        let ours = answer(json!([["a", [1, 2.5]]]));
        for (theirs, expected) in [
            (json!([["a", [1, 2.500_000_1]]]), "column a, row 1: 2.5 and 2.5000001"),
            (json!([["a", [1, null]]]), "column a, row 1: 2.5 and null"),
            (json!([["a", [1]]]), "column a: 2 values and 1"),
            (json!([["b", [1, 2.5]]]), "the columns differ: [\"a\"] and [\"b\"]"),
        ] {
            assert_eq!(compare(&ours, &answer(theirs)).unwrap_err().to_string(), expected);
        }
        let big = |number: u64| answer(json!([["a", [number]]]));
        assert!(compare(&big((1 << 53) + 1), &big(1 << 53)).is_err());
        assert!(compare(&ours, b"pong").is_err());
    }
}
