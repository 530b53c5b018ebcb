//! Feast's endpoints that write: `/push`, `/write-to-online-store`, `/materialize` and `/materialize-incremental`.
//!
//! The request and response bodies have the same format as in Feast's feature server, because Feast's SDK uses
//! it. A write is on disk before it is acknowledged with 200.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use hyper::StatusCode;
use larder_common::clock::parse_time;
use larder_ingest::{Frame, MaterializeError, RowWriter, WriteError};
use larder_model::{codec::Cell, model::Window};
use larder_serving::{Authorization, WriteAccess, WriteFailure, WriteService};
use larder_store::StoreError;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::task::spawn_blocking;

use super::{
    HttpError,
    invalid::{flag, problem, read_object, unprocessable},
    loads::Loads,
    routes::WriteEndpoint,
};

/// Handles the endpoints that write.
#[derive(Debug)]
pub struct Writes {
    service: Arc<WriteService>,
    loads: Loads,
}

/// The response to a write: the status, and JSON if there is a body.
pub(super) type Written = (StatusCode, Option<Value>);

/// The targets of a push, by Feast's names.
const PUSH_TARGETS: [&str; 3] = ["online", "offline", "online_and_offline"];

/// The replacements for numbers that Python writes but JSON does not allow, in the text from which values are parsed.
/// `NaN` becomes null, because it means no value in a pandas table. The infinities become numbers beyond the range of
/// doubles, which are parsed as infinities, as in Python.
const PARSED: [(&[u8], &[u8]); 3] = [(b"NaN", b"null"), (b"-Infinity", b"-1e999"), (b"Infinity", b"1e999")];
/// The replacements for the same numbers in the text whose structure is checked and which error messages show. The
/// infinities become strings, because the parser of this text accepts only numbers in the range of doubles.
const SHOWN: [(&[u8], &[u8]); 3] = [(b"NaN", b"null"), (b"-Infinity", br#""-inf""#), (b"Infinity", br#""inf""#)];

// === impl Writes ===

impl Writes {
    /// Creates the handler. Call it within the runtime on which materializations should run.
    #[must_use]
    pub fn new(service: Arc<WriteService>) -> Self {
        Self { service, loads: Loads::new() }
    }

    /// Handles a request. With `async=true` in the query, a materialization is answered with 202 before it ends.
    ///
    /// # Errors
    /// Feast's error bodies, with a 4xx for errors of the caller. If a write is invalid, nothing is written. If a push
    /// to several views fails at the commit of one view, the rows of the views before it stay. A materialization that
    /// fails keeps the rows that it has committed.
    pub(super) async fn answer(
        &self,
        endpoint: WriteEndpoint,
        query: Option<&str>,
        body: bytes::Bytes,
        authorization: &Authorization,
    ) -> Result<Written, HttpError> {
        let parse = match endpoint {
            WriteEndpoint::Push => return self.write(authorization, body, push).await,
            WriteEndpoint::WriteToOnlineStore => {
                return self.write(authorization, body, write_to_online_store).await;
            }
            WriteEndpoint::Materialize => parse_materialize,
            WriteEndpoint::MaterializeIncremental => parse_materialize_incremental,
        };
        authorization.check_write()?;
        self.materialize(authorization, read_materialization(body, parse).await?, query).await
    }

    async fn write(
        &self,
        authorization: &Authorization,
        body: bytes::Bytes,
        work: fn(&dyn RowWriter, &Value, &[u8]) -> Result<Written, HttpError>,
    ) -> Result<Written, HttpError> {
        let write = move |access: &WriteAccess| {
            let (read, text) = read(&body)?;
            let writer = access.writer(read.get("allow_registry_cache").and_then(flag) != Some(false));
            work(&*writer, &read, &text)
        };
        self.service.write(authorization, write).await.map_err(|failure| match failure {
            WriteFailure::Denied(denied) => denied.into(),
            WriteFailure::Busy => {
                let message = "too many writes are in progress; try again";
                HttpError::detail(StatusCode::SERVICE_UNAVAILABLE, "writes_busy", message)
            }
            WriteFailure::Panicked(error) => {
                HttpError::internal(format!("a write failed because of a bug in Larder: {error}"))
            }
            WriteFailure::Failed(error) => error,
        })
    }

    async fn materialize(
        &self,
        authorization: &Authorization,
        materialization: Materialization,
        query: Option<&str>,
    ) -> Result<Written, HttpError> {
        let engine = self.service.loader(authorization).await?;
        let mut skipped = BTreeMap::new();
        let views = match materialization.views {
            None => {
                skipped.extend(engine.not_materializable());
                for (view, why) in &skipped {
                    tracing::warn!(view, why, "materialization skips a feature view");
                }
                engine.materializable()
            }
            Some(views) => {
                let known: HashSet<String> = engine.materializable().into_iter().collect();
                if let Some(view) = views.iter().find(|view| !known.contains(*view)) {
                    let why = engine.not_materializable().into_iter().find(|(known, _)| known == view);
                    return Err(not_materializable(view, why.as_ref().map(|(_, why)| &**why)));
                }
                distinct(views)
            }
        };
        let done = if skipped.is_empty() { Value::Null } else { json!({ "feature_views": views, "skipped": skipped }) };
        let mut accepted = json!({ "status": "accepted", "feature_views": views });
        if !skipped.is_empty() {
            accepted["skipped"] = json!(skipped);
        }
        let work = self.loads.enqueue(views)?.run(Arc::clone(&engine), materialization.window);
        if is_flag_set(query, "async") {
            // The client does not wait for the result, which is in the log and the metrics.
            tokio::spawn(work);
            return Ok((StatusCode::ACCEPTED, Some(accepted)));
        }
        work.await.map_err(|errors| materialization_failed(&errors))?;
        Ok((StatusCode::OK, Some(done)))
    }
}

/// The parameters of a materialization, from the body of the request.
#[derive(Debug, PartialEq, Eq)]
struct Materialization {
    /// The feature views; `None` for all views that can be materialized.
    views: Option<Vec<String>>,
    window: Window,
}

/// Parses a body on a thread that may block, because a body can have megabytes.
async fn read_materialization(
    body: bytes::Bytes,
    parse: fn(&Value) -> Result<Materialization, HttpError>,
) -> Result<Materialization, HttpError> {
    let read = spawn_blocking(move || parse(&read(&body)?.0)).await;
    read.map_err(|error| HttpError::internal(format!("reading a body failed because of a bug in Larder: {error}")))?
}

fn push(engine: &dyn RowWriter, body: &Value, text: &[u8]) -> Result<Written, HttpError> {
    let source = required_text(body, "push_source_name")?;
    match body.get("to").map_or(Some("online"), Value::as_str) {
        Some("online") => {}
        Some(target) if PUSH_TARGETS.contains(&target) => {
            let message = format!("cannot push to '{target}': Larder has no offline store. hint: push to 'online'");
            return Err(HttpError::plain(StatusCode::BAD_REQUEST, "bad_place", message));
        }
        target => {
            let target = target.map_or_else(|| "null".to_owned(), str::to_owned);
            let targets = PUSH_TARGETS.map(|target| format!("'{target}'")).join(", ");
            let message = format!("{target} is not a supported push format. Please specify one of these [{targets}].");
            return Err(HttpError::plain(StatusCode::BAD_REQUEST, "bad_place", message));
        }
    }
    engine.push(&source, &frame(body, text)?)?;
    Ok((StatusCode::OK, None))
}

fn write_to_online_store(engine: &dyn RowWriter, body: &Value, text: &[u8]) -> Result<Written, HttpError> {
    let view = required_text(body, "feature_view_name")?;
    engine.write(&view, &frame(body, text)?)?;
    Ok((StatusCode::OK, Some(Value::Null)))
}

/// Parses the body of `/materialize`.
fn parse_materialize(body: &Value) -> Result<Materialization, HttpError> {
    let views = views(body)?;
    if body.get("disable_event_timestamp").and_then(flag) == Some(true) {
        return Ok(Materialization { views, window: Window::default() });
    }
    let (Some(start), Some(end)) = (text(body, "start_ts"), text(body, "end_ts")) else {
        let message = "start_ts and end_ts are required when disable_event_timestamp is False";
        return Err(HttpError::plain(StatusCode::BAD_REQUEST, "bad_span", message.to_owned()));
    };
    let window = Window { from: Some(instant(start)?), to: Some(instant(end)?) };
    if window.from >= window.to {
        let message = format!("start_ts ({start}) must be before end_ts ({end})");
        return Err(HttpError::plain(StatusCode::BAD_REQUEST, "bad_span", message));
    }
    Ok(Materialization { views, window })
}

/// Parses the body of `/materialize-incremental`. The load reads all rows up to the end time, including late rows. Rows
/// that are already stored change nothing.
fn parse_materialize_incremental(body: &Value) -> Result<Materialization, HttpError> {
    let end = required_text(body, "end_ts")?;
    Ok(Materialization { views: views(body)?, window: Window { from: None, to: Some(instant(&end)?) } })
}

fn views(body: &Value) -> Result<Option<Vec<String>>, HttpError> {
    let loc = json!(["body", "feature_views"]);
    match body.get("feature_views") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(names)) => {
            let names = names.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
            let message = "Input should be a valid string";
            names.map(Some).ok_or_else(|| unprocessable("bad_body", vec![problem("string_type", &loc, message, body)]))
        }
        Some(other) => {
            let message = "Input should be a valid list";
            Err(unprocessable("bad_body", vec![problem("list_type", &loc, message, other)]))
        }
    }
}

/// Returns the unique names in the order of their first occurrence.
fn distinct(mut names: Vec<String>) -> Vec<String> {
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

fn instant(text: &str) -> Result<i64, HttpError> {
    let message = || format!("Invalid timestamp format: Unknown string format: {text}");
    parse_time(text).ok_or_else(|| HttpError::plain(StatusCode::BAD_REQUEST, "bad_span", message()))
}

fn text<'v>(body: &'v Value, name: &str) -> Option<&'v str> {
    body.get(name).and_then(Value::as_str)
}

fn required_text(body: &Value, name: &str) -> Result<String, HttpError> {
    let loc = json!(["body", name]);
    match body.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        None => Err(unprocessable("bad_body", vec![problem("missing", &loc, "Field required", body)])),
        Some(other) => {
            let message = "Input should be a valid string";
            Err(unprocessable("bad_body", vec![problem("string_type", &loc, message, other)]))
        }
    }
}

/// Returns the columns in `df`, which pandas writes with `to_dict(orient="list")`. Checks the structure in `body`, but
/// parses the values from `text`, where integers are exact and columns keep their order.
fn frame(body: &Value, text: &[u8]) -> Result<Frame, HttpError> {
    let loc = |path: &[&str]| Value::from([&["body", "df"], path].concat());
    let columns = match body.get("df") {
        Some(Value::Object(columns)) => columns,
        None => return Err(unprocessable("bad_body", vec![problem("missing", &loc(&[]), "Field required", body)])),
        Some(other) => {
            let message = "Input should be a valid dictionary";
            return Err(unprocessable("bad_body", vec![problem("dict_type", &loc(&[]), message, other)]));
        }
    };
    if let Some((name, other)) = columns.iter().find(|(_, values)| !values.is_array()) {
        let problem = problem("list_type", &loc(&[name]), "Input should be a valid list", other);
        return Err(unprocessable("bad_body", vec![problem]));
    }
    let unreadable = |error: serde_json::Error| {
        let problem = problem("json_invalid", &loc(&[]), &error.to_string(), &Value::Null);
        unprocessable("bad_json", vec![problem])
    };
    // The structure was checked above: an object that contains an object of lists.
    let DataFrame { df } = serde_json::from_slice(text).map_err(unreadable)?;
    let Cell::Map(columns) = Cell::from_python_json(df.get()).map_err(unreadable)? else { return Ok(Frame::default()) };
    let column = |(name, values)| if let Cell::List(cells) = values { Some((name, cells)) } else { None };
    Ok(Frame { columns: columns.into_iter().filter_map(column).collect() })
}

/// The part of a write's body that has the columns, as text.
#[derive(Deserialize)]
struct DataFrame<'b> {
    #[serde(borrow)]
    df: &'b RawValue,
}

/// Parses a body, including numbers that Python writes but JSON does not allow. Also returns its text as valid JSON,
/// for [`Cell::from_python_json`].
fn read(body: &[u8]) -> Result<(Value, Cow<'_, [u8]>), HttpError> {
    match read_object(body) {
        Err(error) if error.kind == "bad_json" => {
            let Some(shown) = replace_python_numbers(body, &SHOWN) else { return Err(error) };
            let value = read_object(&shown)?;
            drop(shown);
            let text = replace_python_numbers(body, &PARSED).map_or(Cow::Borrowed(body), Cow::Owned);
            Ok((value, text))
        }
        read => Ok((read?, Cow::Borrowed(body))),
    }
}

/// Replaces Python's numbers that are not valid JSON, outside of strings; `None` if the body has none of them.
fn replace_python_numbers(body: &[u8], words: &[(&[u8], &[u8]); 3]) -> Option<Vec<u8>> {
    let mut replaced = Vec::with_capacity(body.len());
    let (mut at, mut in_text, mut found) = (0, false, false);
    while let Some(&byte) = body.get(at) {
        let word = words.iter().find(|(word, _)| !in_text && body[at..].starts_with(word));
        if let Some((word, json)) = word {
            replaced.extend_from_slice(json);
            at += word.len();
            found = true;
            continue;
        }
        if in_text && byte == b'\\' {
            replaced.push(byte);
            at += 1;
        } else if byte == b'"' {
            in_text = !in_text;
        }
        replaced.extend(body.get(at));
        at += 1;
    }
    found.then_some(replaced)
}

/// Returns whether a query sets a flag, as in `?async=true`.
pub(super) fn is_flag_set(query: Option<&str>, name: &str) -> bool {
    query_value(query, name).map(Value::from).as_ref().and_then(flag) == Some(true)
}

/// Returns the value of a name in a query.
pub(super) fn query_value<'q>(query: Option<&'q str>, name: &str) -> Option<&'q str> {
    query.into_iter().flat_map(|query| query.split('&')).find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then_some(value)
    })
}

fn not_materializable(view: &str, why: Option<&str>) -> HttpError {
    match why {
        None => {
            let message = format!("Feature view {view} does not exist");
            HttpError::feast(StatusCode::NOT_FOUND, "unknown_view", "FeatureViewNotFoundException", &message)
        }
        Some(why) => {
            let message = format!("Feature view {view} cannot be materialized: {why}");
            HttpError::plain(StatusCode::BAD_REQUEST, "not_materializable", message)
        }
    }
}

/// Returns the error of a failed materialization. It has no details: they are logged where the failure occurs.
fn materialization_failed(errors: &[MaterializeError]) -> HttpError {
    let busy = errors.iter().all(|error| error.is_busy);
    let views = errors.iter().map(|error| &*error.view).collect::<Vec<_>>().join(", ");
    if busy {
        let message = format!("Feature view {views} could not be materialized now; try again");
        return HttpError::detail(StatusCode::SERVICE_UNAVAILABLE, "materializations_busy", message);
    }
    let message = format!("Feature view {views} could not be materialized; see the server's log");
    HttpError::plain(StatusCode::INTERNAL_SERVER_ERROR, "materialization", message)
}

impl From<WriteError> for HttpError {
    fn from(error: WriteError) -> Self {
        let (kind, message) = (error.kind(), error.to_string());
        match error {
            WriteError::UnknownView { .. } => {
                Self::feast(StatusCode::NOT_FOUND, kind, "FeastObjectNotFoundException", &message)
            }
            WriteError::UnknownPushSource { .. } => {
                Self::feast(StatusCode::UNPROCESSABLE_ENTITY, kind, "PushSourceNotFoundException", &message)
            }
            WriteError::Superseded { .. } => Self::feast(StatusCode::CONFLICT, kind, "FeastError", &message),
            // A full disk is an operational problem, not a bug: the same write can succeed later.
            WriteError::Store { source: StoreError::DiskFull(_), .. } => {
                let log = Some(format!("write failed: {message}"));
                Self { log, ..Self::detail(StatusCode::SERVICE_UNAVAILABLE, "disk_full", message) }
            }
            WriteError::Store { .. } => Self::internal(format!("write failed: {message}")),
            _ => Self::feast(StatusCode::BAD_REQUEST, kind, "FeastError", &message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_numbers_become_json_outside_strings() {
        let body = br#"{"a": [NaN, 1, -Infinity, Infinity], "NaN": "a \"NaN\" \\", "b": NaN}"#;
        let (read, text) = read(body).unwrap();
        let expected = json!({"a": [null, 1, "-inf", "inf"], "NaN": "a \"NaN\" \\", "b": null});
        assert_eq!(read, expected);
        assert_eq!(&*text, br#"{"a": [null, 1, -1e999, 1e999], "NaN": "a \"NaN\" \\", "b": null}"#);
        assert!(replace_python_numbers(br#"{"NaN": 1}"#, &PARSED).is_none());
    }

    #[test]
    fn nested_infinity_is_a_number() {
        let body =
            br#"{"df": {"m": [{"a": Infinity, "b": [1, -Infinity]}], "j": [{"a": Infinity}], "l": [[Infinity]]}}"#;
        let (body, text) = read(body).unwrap();
        let columns = frame(&body, &text).unwrap().columns;
        let [(_, maps), (_, documents), (_, lists)] = &*columns else { panic!("{columns:?}") };
        let entries = vec![
            ("a".to_owned(), Cell::Float(f64::INFINITY)),
            ("b".to_owned(), Cell::List(vec![Cell::Int(1), Cell::Float(f64::NEG_INFINITY)])),
        ];
        assert_eq!(maps, &[Cell::Map(entries)]);
        assert_eq!(lists, &[Cell::List(vec![Cell::Float(f64::INFINITY)])]);
        // JSON has no infinities, so the document is rejected.
        assert!(documents[0].to_value("Json".parse().unwrap()).is_err());
    }

    #[test]
    fn number_beyond_doubles_is_invalid_json() {
        for body in [&br#"{"df": {"a": [1e999]}}"#[..], br#"{"df": {"a": [1e999, NaN]}}"#] {
            assert_eq!(read(body).unwrap_err().kind, "bad_json");
        }
    }

    #[test]
    fn query_flag_parses_like_pydantic() {
        assert!(is_flag_set(Some("force=false&async=True"), "async"));
        assert!(!is_flag_set(Some("async=false"), "async"));
        assert!(!is_flag_set(Some("asynchronous=true"), "async"));
        assert!(!is_flag_set(None, "async"));
    }
}
