//! Feast's recorded responses, and their comparison with Larder's responses.
//!
//! The recordings are in `tests/golden/cases` and are never edited. If Larder's response differs on purpose, the case
//! has an entry in [`DIFFERENCES`]. Everything else must equal Feast's response: the names of the columns (not their
//! order), every value and its type, every status, every event time, and every error.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

/// A request and Feast's response.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// The number at the beginning of the file's name.
    pub(crate) number: u32,
    /// The name of the file without its extension, such as `14_ttl_expired_feature`.
    pub(crate) name: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) content_type: Option<String>,
    /// The request's body, empty if there was none.
    pub(crate) body: Vec<u8>,
    /// The response's status.
    pub(crate) status: u16,
    /// The response's headers, with lower-case names.
    pub(crate) headers: BTreeMap<String, String>,
    /// The response's body, if it is JSON.
    pub(crate) body_json: Option<Value>,
    /// The raw body of the response.
    pub(crate) body_text: String,
}

/// A case in which Larder's response differs from Feast's on purpose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Difference {
    pub(crate) case: u32,
    /// The design rule that requires the difference.
    pub(crate) why: &'static str,
    pub(crate) expected: Expected,
}

/// The expected response instead of Feast's.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expected {
    /// Feast's body with this status.
    Status(u16),
    /// Feast's response, in which these parts of columns are replaced.
    Columns(&'static [Replaced]),
    /// A different response; the body is JSON.
    Answer { status: u16, body: &'static str },
}

/// A part of a column that is replaced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replaced {
    pub(crate) column: &'static str,
    /// One of [`PARTS`].
    pub(crate) part: &'static str,
    /// A JSON list.
    pub(crate) with: &'static str,
}

/// The expected response of a case, with its difference applied.
#[derive(Debug)]
struct Expectation {
    status: u16,
    /// The body, or `None` if it is empty.
    body: Option<Value>,
}

/// The parts of a column in a response. Each is a list with one item per row.
const PARTS: [&str; 3] = ["values", "statuses", "event_timestamps"];

const CLIENT_MISTAKE: &str = "a client's mistake is 4xx with Feast's body, where Feast answers 500";
const MISSING_KEYS: &str =
    "the message names the keys that the requested views lack; Feast names all keys of the project";
const INT64_EXACT: &str = "int64 is exact: the file has ...993, Feast's column went through float64";
const TTL_MARK: &str = "ttl is checked: the row is ten days old and its view's ttl one hour";
const SEES_WHAT_IS_DECLARED: &str = "a plugin is given what its view declares, typed, once; Feast gives all columns of the sources, under two names each";
const NULL_KEY_FINDS_NOTHING: &str = "a null key finds no row; the other rows are answered";
const ANY_CONTENT_TYPE: &str = "any content type is accepted";

/// Every deliberate difference from Feast, by case.
pub(crate) const DIFFERENCES: &[Difference] = &[
    Difference { case: 1, why: INT64_EXACT, expected: Expected::Columns(&[exact("[9007199254740993]")]) },
    Difference {
        case: 2,
        why: INT64_EXACT,
        expected: Expected::Columns(&[exact("[42, 9007199254740993, null, null, 9007199254740993]")]),
    },
    Difference {
        case: 7,
        why: "a fraction is not an integer key: Feast cuts 1001.9 to 1001, which is another driver's",
        expected: Expected::Answer { status: 400, body: r#""invalid literal for int() with base 10: '1001.9'""# },
    },
    Difference { case: 9, why: INT64_EXACT, expected: Expected::Columns(&[exact("[9007199254740993, null]")]) },
    Difference { case: 11, why: INT64_EXACT, expected: Expected::Columns(&[exact("[9007199254740993]")]) },
    Difference { case: 13, why: CLIENT_MISTAKE, expected: Expected::Status(400) },
    Difference {
        case: 14,
        why: TTL_MARK,
        expected: Expected::Columns(&[Replaced {
            column: "stale_value",
            part: "statuses",
            with: r#"["OUTSIDE_MAX_AGE"]"#,
        }]),
    },
    Difference { case: 16, why: CLIENT_MISTAKE, expected: Expected::Status(400) },
    Difference {
        case: 19,
        why: "a view without entities can be asked for without entities: one row",
        expected: Expected::Answer {
            status: 200,
            body: r#"{
                "results": [
                    {"values": [7.25], "statuses": ["PRESENT"], "event_timestamps": ["2026-11-23T08:13:10Z"]}
                ],
                "metadata": {"feature_names": ["global_mean"]}
            }"#,
        },
    },
    Difference {
        case: 24,
        why: "full names work for every derived view; Feast loses the columns of a view in python mode",
        expected: Expected::Answer {
            status: 200,
            body: r#"{
                "results": [
                    {"values": [1001], "statuses": ["PRESENT"], "event_timestamps": ["1970-01-01T00:00:00Z"]},
                    {"values": [1.2002], "statuses": ["PRESENT"], "event_timestamps": ["1970-01-01T00:00:00Z"]}
                ],
                "metadata": {"feature_names": ["driver_id", "odfv_python__conv_x_amount"]}
            }"#,
        },
    },
    Difference {
        case: 27,
        why: "a derived column has a value for each row; Feast computes the first one of a singleton",
        expected: Expected::Answer {
            status: 200,
            body: r#"{
                "results": [
                    {
                        "values": [1001, 1002],
                        "statuses": ["PRESENT", "PRESENT"],
                        "event_timestamps": ["1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"]
                    },
                    {
                        "values": [1002, 1003],
                        "statuses": ["PRESENT", "PRESENT"],
                        "event_timestamps": ["1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"]
                    }
                ],
                "metadata": {"feature_names": ["driver_id", "trips_plus_one"]}
            }"#,
        },
    },
    Difference {
        case: 29,
        why: SEES_WHAT_IS_DECLARED,
        expected: Expected::Columns(&[Replaced {
            column: "seen_columns",
            part: "values",
            with: r#"["conv_rate:0.6001,avg_daily_trips:1001", "conv_rate:null,avg_daily_trips:null"]"#,
        }]),
    },
    Difference {
        case: 30,
        why: SEES_WHAT_IS_DECLARED,
        expected: Expected::Columns(&[Replaced {
            column: "seen_keys",
            part: "values",
            with: r#"["driver_id:1001,amount:1.0,hour:2,avg_daily_trips:1001,conv_rate:0.6001"]"#,
        }]),
    },
    Difference {
        case: 31,
        why: "the error is the plugin's own, and not Python's",
        expected: Expected::Answer {
            status: 500,
            body: r#""derived view odfv_singleton, row 0, could not be computed by plugin odfv_singleton: a row without trips""#,
        },
    },
    Difference { case: 40, why: CLIENT_MISTAKE, expected: Expected::Status(404) },
    Difference { case: 43, why: CLIENT_MISTAKE, expected: Expected::Status(400) },
    Difference {
        case: 44,
        why: MISSING_KEYS,
        expected: Expected::Answer {
            status: 400,
            body: r#""\"Missing join key values for keys: ['customer_id']. No values provided for keys: []. Provided join_key_values: []\"""#,
        },
    },
    Difference { case: 49, why: CLIENT_MISTAKE, expected: Expected::Status(400) },
    Difference {
        case: 50,
        why: MISSING_KEYS,
        expected: Expected::Answer {
            status: 400,
            body: r#""\"Missing join key values for keys: []. No values provided for keys: ['customer_id']. Provided join_key_values: ['customer_id']\"""#,
        },
    },
    Difference { case: 51, why: CLIENT_MISTAKE, expected: Expected::Status(400) },
    Difference {
        case: 56,
        why: NULL_KEY_FINDS_NOTHING,
        expected: Expected::Answer {
            status: 200,
            body: r#"{
                "results": [
                    {
                        "values": ["CUST_000123", null],
                        "statuses": ["PRESENT", "PRESENT"],
                        "event_timestamps": ["1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"]
                    },
                    {
                        "values": [9007199254740993, null],
                        "statuses": ["PRESENT", "NOT_FOUND"],
                        "event_timestamps": ["2026-11-23T07:13:10Z", "1970-01-01T00:00:00Z"]
                    }
                ],
                "metadata": {"feature_names": ["customer_id", "txn_count"]}
            }"#,
        },
    },
    Difference {
        case: 57,
        why: NULL_KEY_FINDS_NOTHING,
        expected: Expected::Answer {
            status: 200,
            body: r#"{
                "results": [
                    {"values": [null], "statuses": ["PRESENT"], "event_timestamps": ["1970-01-01T00:00:00Z"]},
                    {"values": [null], "statuses": ["NOT_FOUND"], "event_timestamps": ["1970-01-01T00:00:00Z"]}
                ],
                "metadata": {"feature_names": ["customer_id", "txn_count"]}
            }"#,
        },
    },
    Difference { case: 61, why: INT64_EXACT, expected: Expected::Columns(&[exact("[9007199254740993]")]) },
    Difference { case: 62, why: CLIENT_MISTAKE, expected: Expected::Status(400) },
    Difference { case: 64, why: INT64_EXACT, expected: Expected::Columns(&[exact("[9007199254740993]")]) },
    Difference {
        case: 65,
        why: ANY_CONTENT_TYPE,
        expected: Expected::Answer { status: 200, body: TXN_COUNT_OF_CUST_000123 },
    },
    Difference {
        case: 66,
        why: ANY_CONTENT_TYPE,
        expected: Expected::Answer { status: 200, body: TXN_COUNT_OF_CUST_000123 },
    },
    Difference {
        case: 71,
        why: "precomputing has no meaning here: the service is answered from the store, ttl and int64 as ever",
        expected: Expected::Answer {
            status: 200,
            body: r#"{
                "results": [
                    {
                        "values": ["CUST_000123"],
                        "statuses": ["PRESENT"],
                        "event_timestamps": ["1970-01-01T00:00:00Z"]
                    },
                    {
                        "values": [11],
                        "statuses": ["OUTSIDE_MAX_AGE"],
                        "event_timestamps": ["2026-11-13T09:13:10Z"]
                    },
                    {
                        "values": [9007199254740993],
                        "statuses": ["PRESENT"],
                        "event_timestamps": ["2026-11-23T07:13:10Z"]
                    }
                ],
                "metadata": {
                    "feature_names": ["customer_id", "expired_stats__stale_value", "customer_stats__txn_count"]
                }
            }"#,
        },
    },
    Difference { case: 72, why: CLIENT_MISTAKE, expected: Expected::Status(404) },
    Difference { case: 84, why: CLIENT_MISTAKE, expected: Expected::Status(400) },
    Difference { case: 88, why: CLIENT_MISTAKE, expected: Expected::Status(400) },
    Difference { case: 89, why: CLIENT_MISTAKE, expected: Expected::Status(400) },
    Difference { case: 77, why: INT64_EXACT, expected: Expected::Columns(&[exact("[9007199254740993]")]) },
];

/// The response for `customer_stats:txn_count` of `CUST_000123`.
const TXN_COUNT_OF_CUST_000123: &str = r#"{
    "results": [
        {"values": ["CUST_000123"], "statuses": ["PRESENT"], "event_timestamps": ["1970-01-01T00:00:00Z"]},
        {"values": [9007199254740993], "statuses": ["PRESENT"], "event_timestamps": ["2026-11-23T07:13:10Z"]}
    ],
    "metadata": {"feature_names": ["customer_id", "txn_count"]}
}"#;

/// Replaces the values of `txn_count`, the only column whose values Feast rounds, with those in the file.
const fn exact(with: &'static str) -> Replaced {
    Replaced { column: "txn_count", part: "values", with }
}

/// Returns whether a case writes rows, or reads rows that an earlier case wrote.
pub(crate) fn writes(number: u32) -> bool {
    matches!(number, 81..=89)
}

/// Compares a response of Larder with the expected response of the case.
///
/// # Errors
/// All differences, one line each.
pub(crate) fn compare(case: &Case, status: u16, body: &[u8]) -> Result<(), String> {
    let expected = Expectation::of(case).map_err(|why| format!("{}: {why}", case.name))?;
    let mut problems = Vec::new();
    if status != expected.status {
        problems.push(format!("status is {status}, expected {}", expected.status));
    }
    match (&expected.body, serde_json::from_slice::<Value>(body)) {
        (None, _) if body.is_empty() => {}
        (None, _) => problems.push("body is not empty".to_owned()),
        (Some(_), Err(error)) => problems.push(format!("body is not JSON: {error}")),
        (Some(expected), Ok(actual)) if expected.get("results").is_some() => {
            compare_answers(expected, &actual, &mut problems);
        }
        (Some(expected), Ok(actual)) if *expected != actual => {
            problems.push(format!("body is not\n    {expected}"));
        }
        (Some(_), Ok(_)) => {}
    }
    if problems.is_empty() {
        return Ok(());
    }
    let why = difference(case.number).map_or(String::new(), |difference| format!(" (not Feast's: {})", difference.why));
    let problems = problems.join("\n  ");
    Err(format!("{}{why}:\n  {problems}\n  in the answer {}", case.name, String::from_utf8_lossy(body)))
}

// === impl Case ===

impl Case {
    /// Returns all cases, by number.
    pub(crate) fn load_all() -> Vec<Self> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cases");
        let listed = fs::read_dir(&dir).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
        let paths: Vec<PathBuf> = listed.unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        let load = |path: &PathBuf| Self::load(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        let mut cases: Vec<Self> = paths.iter().map(load).collect();
        cases.sort_by_key(|case| case.number);
        cases
    }

    fn load(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        let recorded: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let (request, response) = (&recorded["request"], &recorded["response"]);
        let name = text_of(&recorded, "case")?;
        let number = name.split('_').next().and_then(|digits| digits.parse().ok()).ok_or("the name has no number")?;
        let body = match (&request["body_raw"], &request["body"]) {
            (Value::String(raw), _) => raw.clone().into_bytes(),
            (_, Value::Null) => Vec::new(),
            (_, body) => body.to_string().into_bytes(),
        };
        let status = response["status"].as_u64().and_then(|status| u16::try_from(status).ok()).ok_or("no status")?;
        let headers = response["headers"].as_object().into_iter().flatten();
        let body_text = text_of(response, "body_text")?;
        Ok(Self {
            number,
            name,
            method: text_of(request, "method")?,
            path: text_of(request, "path")?,
            content_type: request["content_type"].as_str().map(str::to_owned),
            body,
            status,
            headers: headers
                .filter_map(|(name, value)| Some((name.to_ascii_lowercase(), value.as_str()?.to_owned())))
                .collect(),
            // The body is parsed from the text, because the recording has `null` both if the body is not JSON and if it
            // is the JSON value `null`.
            body_json: serde_json::from_str(&body_text).ok(),
            body_text,
        })
    }
}

fn text_of(value: &Value, key: &str) -> Result<String, String> {
    value[key].as_str().map(str::to_owned).ok_or_else(|| format!("no '{key}'"))
}

// === impl Expectation ===

impl Expectation {
    fn of(case: &Case) -> Result<Self, String> {
        let feast = Self { status: case.status, body: case.body_json.clone() };
        match difference(case.number).map(|difference| difference.expected) {
            None => Ok(feast),
            Some(Expected::Status(status)) => Ok(Self { status, ..feast }),
            Some(Expected::Columns(replaced)) => {
                let mut body = feast.body.ok_or("Feast's answer has no columns")?;
                for part in replaced {
                    part.apply(&mut body)?;
                }
                Ok(Self { body: Some(body), ..feast })
            }
            Some(Expected::Answer { status, body }) => {
                let body = serde_json::from_str(body).map_err(|error| format!("the difference's body: {error}"))?;
                Ok(Self { status, body: Some(body) })
            }
        }
    }
}

// === impl Replaced ===

impl Replaced {
    fn apply(&self, answer: &mut Value) -> Result<(), String> {
        let Self { column, part, with } = *self;
        let names = answer["metadata"]["feature_names"].as_array();
        let place = names.and_then(|names| names.iter().position(|name| name == column));
        let place = place.ok_or_else(|| format!("Feast's answer has no column '{column}'"))?;
        let old = answer["results"].get_mut(place).and_then(|column| column.get_mut(part));
        let old = old.ok_or_else(|| format!("Feast's column '{column}' has no {part}"))?;
        *old = serde_json::from_str(with).map_err(|error| format!("the difference's {part}: {error}"))?;
        Ok(())
    }
}

fn difference(case: u32) -> Option<&'static Difference> {
    DIFFERENCES.iter().find(|difference| difference.case == case)
}

/// Records the differences in a response to a lookup.
fn compare_answers(expected: &Value, actual: &Value, problems: &mut Vec<String>) {
    let (expected_columns, actual_columns) = match (columns(expected), columns(actual)) {
        (Ok(expected), Ok(actual)) => (expected, actual),
        (Err(why), _) | (_, Err(why)) => return problems.push(why),
    };
    for (name, expected) in &expected_columns {
        match actual_columns.get(name) {
            Some(actual) => compare_columns(name, expected, actual, problems),
            None => problems.push(format!("column '{name}' is missing")),
        }
    }
    for name in actual_columns.keys().filter(|name| !expected_columns.contains_key(*name)) {
        problems.push(format!("column '{name}' is unexpected"));
    }

    compare_rest("answer", expected, actual, &["results", "metadata"], problems);
    compare_rest("metadata", &expected["metadata"], &actual["metadata"], &["feature_names"], problems);
}

fn compare_columns(name: &str, expected: &Value, actual: &Value, problems: &mut Vec<String>) {
    for part in PARTS {
        let (Some(expected), Some(actual)) = (expected[part].as_array(), actual[part].as_array()) else {
            problems.push(format!("column '{name}': {part} is {}, expected {}", actual[part], expected[part]));
            continue;
        };
        if expected.len() != actual.len() {
            problems.push(format!("column '{name}': {} {part}, expected {}", actual.len(), expected.len()));
        }
        for (row, (expected, actual)) in expected.iter().zip(actual).enumerate() {
            // Equality of `Value` distinguishes types: 3 is not 3.0, and integers are compared as integers.
            if expected != actual {
                problems.push(format!("column '{name}', row {row}: {part} has {actual}, expected {expected}"));
            }
        }
    }
    compare_rest(&format!("column '{name}'"), expected, actual, &PARTS, problems);
}

/// Compares the keys of two mappings that are not in `compared`.
fn compare_rest(place: &str, expected: &Value, actual: &Value, compared: &[&str], problems: &mut Vec<String>) {
    let rest = |value: &Value| {
        let entries = value.as_object().into_iter().flatten();
        let entries = entries.filter(|(key, _)| !compared.contains(&key.as_str()));
        Value::Object(entries.map(|(key, value)| (key.clone(), value.clone())).collect::<Map<_, _>>())
    };
    let (expected, actual) = (rest(expected), rest(actual));
    if expected != actual {
        problems.push(format!("{place}: the other keys are {actual}, expected {expected}"));
    }
}

/// Returns a response's columns by name.
fn columns(answer: &Value) -> Result<BTreeMap<&str, &Value>, String> {
    let names = answer["metadata"]["feature_names"].as_array().ok_or("metadata.feature_names is no list")?;
    let results = answer["results"].as_array().ok_or("results is no list")?;
    if names.len() != results.len() {
        return Err(format!("there are {} feature_names for {} results", names.len(), results.len()));
    }
    let mut columns = BTreeMap::new();
    for (name, column) in names.iter().zip(results) {
        let name = name.as_str().ok_or_else(|| format!("feature_names has {name}, which is no text"))?;
        if columns.insert(name, column).is_some() {
            return Err(format!("there are two columns '{name}'"));
        }
    }
    Ok(columns)
}

#[cfg(test)]
mod tests;
