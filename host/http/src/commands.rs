//! Commands of the admin listener: each runs on a thread that may block.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Response, StatusCode, header::CONTENT_TYPE};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::sync::mpsc;

use super::{
    AdminEvent, Control, HttpError, SyncCommand,
    body::AnswerBody,
    router::{Answered, EVENTS_WAITING_MAX, NDJSON, json_response},
};

/// Syncs the views in a request body, and responds with a line for each step.
pub(super) fn sync(control: Arc<dyn Control>, body: &[u8]) -> Result<Answered, HttpError> {
    let command: SyncCommand = if body.is_empty() { SyncCommand::default() } else { command(body)? };
    let (sender, receiver) = mpsc::channel(EVENTS_WAITING_MAX);
    tokio::task::spawn_blocking(move || {
        control.sync(&command, &mut |event: AdminEvent| {
            let mut line = serde_json::to_vec(&event).unwrap_or_default();
            line.push(b'\n');
            // If the reader is gone, the sync continues.
            let _gone = sender.blocking_send(Bytes::from(line));
        });
    });
    let mut response = Response::new(AnswerBody::Lines(receiver));
    response.headers_mut().insert(CONTENT_TYPE, NDJSON);
    Ok(response)
}

/// Reads the body of a command.
pub(super) fn command<T: DeserializeOwned>(body: &[u8]) -> Result<T, HttpError> {
    serde_json::from_slice(body)
        .map_err(|error| HttpError::detail(StatusCode::UNPROCESSABLE_ENTITY, "bad_body", error.to_string()))
}

/// Reads the definitions again.
pub(super) async fn reload(control: Arc<dyn Control>) -> Result<Answered, HttpError> {
    let reloaded = tokio::task::spawn_blocking(move || control.reload()).await;
    match reloaded.map_err(|error| HttpError::internal(format!("reload failed because of a bug in Larder: {error}")))? {
        Ok(message) => Ok(json_response(StatusCode::OK, &json!({ "status": message }))),
        Err(mistakes) => Err(HttpError::detail(StatusCode::UNPROCESSABLE_ENTITY, "bad_config", mistakes)),
    }
}

/// Runs long or blocking work on another thread. The error is the reason for a refusal.
pub(super) async fn blocking<T: Serialize + Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<Answered, HttpError> {
    let done = tokio::task::spawn_blocking(work).await;
    match done.map_err(|error| HttpError::internal(format!("a command failed because of a bug in Larder: {error}")))? {
        Ok(report) => Ok(json_response(StatusCode::OK, &json!(report))),
        Err(why) => Err(HttpError::detail(StatusCode::UNPROCESSABLE_ENTITY, "refused", why)),
    }
}
