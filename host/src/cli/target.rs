//! The target of a command: the running server or, if there is none, the store itself.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use hyper::Method;
use larder_common::{
    clock::SystemClock,
    telemetry::{self, LogFormat},
};
use larder_http::{
    AdminEvent, Control, DeleteCommand, EraseReport, HttpError, ResetCommand, SyncCommand, decode_request,
    describe_catalog, encode_answer,
};
use larder_serving::Authenticator;
use serde::Serialize;
use serde_json::Value;

use super::{CliError, ConfigArg, client::Client, output};
use crate::app::App;

/// How a command accesses features. Only one process can have a store open, so commands use the running server if there
/// is one.
#[derive(Debug)]
pub(super) enum Target {
    /// The running server, through its admin socket.
    Running(Client),
    /// The store, which this process has opened because no server is running.
    Local(Arc<App>),
}

// === impl Target ===

impl Target {
    /// Works like [`Target::find`], but also loads the plugins if no server is running. Commands that compute features
    /// or manage plugins need this.
    pub(super) fn find_with_plugins(config: &ConfigArg) -> Result<Self> {
        let target = Self::find(config)?;
        if let Self::Local(app) = &target {
            app.load_plugins()?;
        }
        Ok(target)
    }

    /// Connects to the running server of a configuration, or opens its store if there is none.
    pub(super) fn find(config: &ConfigArg) -> Result<Self> {
        // The command prints the result of each sync, so the sync engine's log lines would be duplicates.
        telemetry::install_logs("warn,larder_sync::engine=off", LogFormat::Text);
        let config = config.load()?;
        if let Some(client) = Client::connect(&config.admin_socket)? {
            return Ok(Self::Running(client));
        }
        // No metrics recorder is installed, because no one scrapes a command's metrics.
        let (app, warnings) = App::open(config, Arc::new(SystemClock))?;
        warnings.iter().for_each(|warning| output::note(&warning.to_string()));
        Ok(Self::Local(app))
    }

    /// Requests features in the same way as `POST /get-online-features`. Returns the status and the body of the
    /// response.
    pub(super) fn online_features(&self, request: &Value) -> Result<(u16, Value)> {
        let body = request.to_string().into_bytes();
        let (status, answer) = match self {
            Self::Running(client) => client.call(Method::POST, "/get-online-features", body)?,
            Self::Local(app) => {
                let snapshot = app.current();
                let authorization = Authenticator::open().authenticate_anonymous()?;
                let answer = decode_request(&body)
                    .and_then(|request| Ok::<_, HttpError>(encode_answer(&snapshot.answer(&authorization, &request)?)));
                match answer {
                    Ok(answer) => (200, answer.into()),
                    Err(error) => return Ok((error.status.as_u16(), error.body)),
                }
            }
        };
        let answer = serde_json::from_slice(&answer).context("the response is not JSON")?;
        Ok((status, answer))
    }

    /// Returns the catalog, in the format of `GET /v1/catalog`.
    pub(super) fn catalog(&self) -> Result<Value> {
        match self {
            Self::Running(client) => {
                let (status, body) = client.call(Method::GET, "/v1/catalog", Vec::new())?;
                if status != 200 {
                    bail!("the server responded with {status}: {}", String::from_utf8_lossy(&body));
                }
                serde_json::from_slice(&body).context("the response is not JSON")
            }
            Self::Local(app) => {
                let authorization = Authenticator::open().authenticate_anonymous()?;
                Ok(describe_catalog(&app.current(), app.clock().now(), &authorization))
            }
        }
    }

    /// Syncs views, and calls `on_event` for each event.
    pub(super) fn sync(&self, command: &SyncCommand, mut on_event: impl FnMut(AdminEvent)) -> Result<()> {
        match self {
            Self::Local(app) => app.sync(command, &mut on_event),
            Self::Running(client) => {
                let body = serde_json::to_vec(command)?;
                let (status, rest) =
                    client.stream_lines("/v1/sync", body, |line| match serde_json::from_slice(line) {
                        Ok(event) => on_event(event),
                        Err(error) => output::error(&format!("cannot parse the server's response: {error}")),
                    })?;
                if status != 200 {
                    bail!("the server responded with {status}: {}", String::from_utf8_lossy(&rest));
                }
            }
        }
        Ok(())
    }

    /// Deletes an entity's row from a view.
    pub(super) fn delete(&self, command: &DeleteCommand) -> Result<EraseReport> {
        self.erase("/v1/delete", command, |app| app.delete(command))
    }

    /// Drops all rows of a view.
    pub(super) fn reset(&self, command: &ResetCommand) -> Result<EraseReport> {
        self.erase("/v1/reset", command, |app| app.reset(command))
    }

    fn erase(
        &self,
        path: &str,
        command: &impl Serialize,
        here: impl FnOnce(&App) -> Result<EraseReport, String>,
    ) -> Result<EraseReport> {
        match self {
            Self::Running(client) => send_command(client, Method::POST, path, serde_json::to_vec(command)?),
            Self::Local(app) => Ok(here(app).map_err(CliError::Failed)?),
        }
    }
}

/// Sends a command to the running server, and parses its response.
///
/// # Errors
/// The server's message if its status is not 200, and errors of the connection.
pub(super) fn send_command<T: serde::de::DeserializeOwned>(
    client: &Client,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<T> {
    let (status, body) = client.call(method, path, body)?;
    if status == 200 {
        return serde_json::from_slice(&body).context("cannot parse the server's response");
    }
    let message = serde_json::from_slice(&body).map_or_else(
        |_| format!("the server responded with {status}: {}", String::from_utf8_lossy(&body)),
        |body| error_message(&body),
    );
    bail!(CliError::Failed(message))
}

/// Extracts the message from an error body. The body is either a string that contains JSON with a `message`, as in
/// Feast's errors, or an object with a `detail`, as in FastAPI's errors.
pub(super) fn error_message(body: &Value) -> String {
    let Some(text) = body.as_str() else {
        return body.get("detail").map_or_else(
            || body.to_string(),
            |detail| detail.as_str().map_or_else(|| detail.to_string(), ToOwned::to_owned),
        );
    };
    let inner: Option<Value> = serde_json::from_str(text).ok();
    let message = inner.as_ref().and_then(|inner| inner.get("message")?.as_str());
    unquoted(message.unwrap_or(text)).to_owned()
}

/// Removes quotes that enclose the text, if there are any. Python's `str` of a `KeyError` has such quotes.
fn unquoted(text: &str) -> &str {
    let within = |quote| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    within('"').or_else(|| within('\'')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_enclosing_quotes_are_removed() {
        let message = |text: &str| error_message(&Value::from(text));
        assert_eq!(message("'no such thing'"), "no such thing");
        assert_eq!(message("\"no such thing\""), "no such thing");
        assert_eq!(
            message("invalid literal for int() with base 10: 'abc'"),
            "invalid literal for int() with base 10: 'abc'"
        );
    }
}
