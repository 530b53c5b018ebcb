//! Commands of the admin listener. All commands except the list of plugins run on threads that may block.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::{
    sync::mpsc,
    task::{JoinError, spawn_blocking},
};

use super::{
    AdminEvent, CaptureCommand, Control, DeleteCommand, HttpError, PromoteCommand, ResetCommand, RollbackCommand,
    SyncCommand,
    body::ResponseBody,
    response::{HttpResponse, json_response},
    routes::CommandEndpoint,
    writes::{is_flag_set, query_value},
};

const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// The maximum number of progress lines queued for a client that reads slowly. If the queue is full, the sync waits.
const EVENTS_WAITING_MAX: usize = 64;

/// Returns whether a command uses the request's body.
pub(super) fn has_body(command: CommandEndpoint) -> bool {
    match command {
        CommandEndpoint::Sync
        | CommandEndpoint::Delete
        | CommandEndpoint::Reset
        | CommandEndpoint::DeployPlugin
        | CommandEndpoint::PromotePlugin
        | CommandEndpoint::RollBackPlugin
        | CommandEndpoint::CapturePlugin => true,
        CommandEndpoint::Reload
        | CommandEndpoint::ListPlugins
        | CommandEndpoint::ListPluginHistory
        | CommandEndpoint::DiffPlugin => false,
    }
}

/// Runs a command. `name` is the plugin's name from the path; empty if the route has no `{name}`. `query` is the query of
/// the URL.
///
/// # Errors
/// Status 422 for an invalid body and for a refused command, 500 if the command panics. A sync reports its own errors
/// in the lines of the response.
pub(super) async fn run(
    command: CommandEndpoint,
    control: Arc<dyn Control>,
    name: String,
    query: Option<&str>,
    body: Bytes,
) -> Result<HttpResponse, HttpError> {
    match command {
        CommandEndpoint::Sync => sync(control, &body),
        CommandEndpoint::Reload => reload(control).await,
        CommandEndpoint::Delete => {
            let delete: DeleteCommand = parse(&body)?;
            blocking(move || control.delete(&delete)).await
        }
        CommandEndpoint::Reset => {
            let reset: ResetCommand = parse(&body)?;
            blocking(move || control.reset(&reset)).await
        }
        CommandEndpoint::ListPlugins => Ok(json_response(StatusCode::OK, &json!({ "plugins": control.plugins() }))),
        CommandEndpoint::DeployPlugin => {
            let force = is_flag_set(query, "force");
            match shadow_ratio(query)? {
                Some(ratio) => blocking(move || control.deploy_shadow(&body, ratio, force)).await,
                None => blocking(move || control.deploy(&body, force)).await,
            }
        }
        CommandEndpoint::PromotePlugin => {
            let command: PromoteCommand = if body.is_empty() { PromoteCommand::default() } else { parse(&body)? };
            blocking(move || control.promote(&name, &command)).await
        }
        CommandEndpoint::DiffPlugin => blocking(move || control.plugin_diff(&name)).await,
        CommandEndpoint::ListPluginHistory => {
            blocking(move || Ok(json!({ "versions": control.plugin_history(&name)? }))).await
        }
        CommandEndpoint::RollBackPlugin => {
            let rollback: RollbackCommand = if body.is_empty() { RollbackCommand::default() } else { parse(&body)? };
            blocking(move || control.roll_back(&name, rollback.version.as_deref())).await
        }
        CommandEndpoint::CapturePlugin => {
            let capture: CaptureCommand = parse(&body)?;
            blocking(move || control.capture(&name, &capture)).await
        }
    }
}

/// Returns the share of requests in the query of a deployment with a shadow run, from 0 to 1.
///
/// # Errors
/// Status 422 if it is not a number from 0 to 1.
fn shadow_ratio(query: Option<&str>) -> Result<Option<f64>, HttpError> {
    let Some(text) = query_value(query, "shadow") else { return Ok(None) };
    match text.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(Some(ratio)),
        _ => {
            let message = format!("'shadow' is '{text}', but must be a share of the requests from 0 to 1");
            Err(HttpError::detail(StatusCode::UNPROCESSABLE_ENTITY, "bad_query", message))
        }
    }
}

/// Syncs the views that a request body names, and responds with one line of JSON per step.
fn sync(control: Arc<dyn Control>, body: &[u8]) -> Result<HttpResponse, HttpError> {
    let command: SyncCommand = if body.is_empty() { SyncCommand::default() } else { parse(body)? };
    let (sender, receiver) = mpsc::channel(EVENTS_WAITING_MAX);
    spawn_blocking(move || {
        control.sync(&command, &mut |event: AdminEvent| {
            let mut line = serde_json::to_vec(&event).unwrap_or_default();
            line.push(b'\n');
            // If the client disconnects, the sync continues.
            let _gone = sender.blocking_send(Bytes::from(line));
        });
    });
    let mut response = Response::new(ResponseBody::Lines(receiver));
    response.headers_mut().insert(CONTENT_TYPE, NDJSON);
    Ok(response)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, HttpError> {
    serde_json::from_slice(body)
        .map_err(|error| HttpError::detail(StatusCode::UNPROCESSABLE_ENTITY, "bad_body", error.to_string()))
}

async fn reload(control: Arc<dyn Control>) -> Result<HttpResponse, HttpError> {
    match spawn_blocking(move || control.reload()).await.map_err(|error| panicked(&error))? {
        Ok(message) => Ok(json_response(StatusCode::OK, &json!({ "status": message }))),
        Err(errors) => Err(HttpError::detail(StatusCode::UNPROCESSABLE_ENTITY, "bad_config", errors)),
    }
}

/// Runs work that may block on another thread, and responds with its report or its error.
async fn blocking<T: Serialize + Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<HttpResponse, HttpError> {
    match spawn_blocking(work).await.map_err(|error| panicked(&error))? {
        Ok(report) => Ok(json_response(StatusCode::OK, &json!(report))),
        Err(reason) => Err(HttpError::detail(StatusCode::UNPROCESSABLE_ENTITY, "refused", reason)),
    }
}

fn panicked(error: &JoinError) -> HttpError {
    HttpError::internal(format!("a command failed because of a bug in Larder: {error}"))
}
