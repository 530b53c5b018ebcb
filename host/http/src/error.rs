//! Converts errors to responses: Feast's bodies, with a status that matches the cause.
//!
//! Feast sends its errors as a JSON *string*. For its own error classes, that string contains JSON again (module,
//! class, message). For any other Python exception, the string is the exception's text, in quotes for a `KeyError`.
//! Larder uses both formats, because Feast's client parses them. If Feast responds with 500 to an error of the client,
//! Larder responds with a 4xx.

use std::convert::Infallible;

use hyper::{
    StatusCode,
    header::{HeaderName, HeaderValue, WWW_AUTHENTICATE},
};
use larder_common::memory::OverBudget;
use larder_serving::{Denied, LookupError, OffloadError, RequestError};
use serde_json::{Value, json};

/// An error response. It has two messages: `body` for the client, `log` for the operator.
#[derive(Debug)]
pub struct HttpError {
    /// The status.
    pub status: StatusCode,
    /// The response's body, as JSON.
    pub body: Value,
    /// The message for the operator, which is logged as an error; `None` for errors of the client.
    pub log: Option<String>,
    /// The kind of error, as a metric label.
    pub kind: &'static str,
    /// The `reason` in the log at level `debug`, without values from the caller; `None` to log the kind instead.
    pub(super) reason: Option<String>,
    /// A header of the response that the status requires.
    pub(super) header: Option<Box<(HeaderName, HeaderValue)>>,
}

/// The size limit of a message in bytes. Lists in a message are already limited to [`larder_serving::LISTED_MAX`]
/// truncated names.
const MESSAGE_BYTES_MAX: usize = 16 << 10;

// === impl HttpError ===

impl HttpError {
    /// Creates an error in FastAPI's format: `{"detail": ...}`.
    pub(super) fn detail(status: StatusCode, kind: &'static str, detail: impl Into<Value>) -> Self {
        Self { status, body: json!({ "detail": detail.into() }), log: None, kind, reason: None, header: None }
    }

    /// Creates an error of one of Feast's classes.
    pub(super) fn feast(status: StatusCode, kind: &'static str, class: &str, message: &str) -> Self {
        let message = Value::from(cut(message.to_owned()));
        let inner = format!(r#"{{"module": "feast.errors", "class": "{class}", "message": {message}}}"#);
        Self { status, body: Value::String(inner), log: None, kind, reason: None, header: None }
    }

    /// Creates an error that Feast sends as a JSON string with only the message.
    pub(super) fn plain(status: StatusCode, kind: &'static str, message: String) -> Self {
        Self { status, body: Value::String(cut(message)), log: None, kind, reason: None, header: None }
    }

    /// Creates Feast's error for a request that the caller has no permission for.
    pub(super) fn forbidden(message: &str) -> Self {
        Self::feast(StatusCode::FORBIDDEN, "forbidden", "FeastPermissionError", message)
    }

    /// Creates an internal error. The client gets no details.
    pub(super) fn internal(log: String) -> Self {
        let mut error = Self::feast(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "FeastError",
            "internal error; see the server's log",
        );
        error.log = Some(log);
        error
    }
}

/// Truncates a long message, because it may repeat the caller's input.
fn cut(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        message.push('…');
    }
    message
}

impl From<OverBudget> for HttpError {
    fn from(over: OverBudget) -> Self {
        let status = match over {
            OverBudget::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            OverBudget::Full | OverBudget::Tight => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::feast(status, "no_memory", "FeastError", &over.to_string())
    }
}

impl From<Denied> for HttpError {
    fn from(denied: Denied) -> Self {
        let kind = match &denied {
            Denied::BeyondScope(message) => return Self::forbidden(message),
            Denied::NoToken => "no_token",
            Denied::WrongToken => "wrong_token",
        };
        let mut error = Self::detail(StatusCode::UNAUTHORIZED, kind, denied.to_string());
        error.header = Some(Box::new((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))));
        error
    }
}

impl From<OffloadError> for HttpError {
    fn from(error: OffloadError) -> Self {
        match error {
            OffloadError::Full => Self::detail(StatusCode::SERVICE_UNAVAILABLE, "busy", error.to_string()),
            OffloadError::Panicked => Self::internal(error.to_string()),
        }
    }
}

impl<E: Into<Self>> From<LookupError<E>> for HttpError {
    fn from(error: LookupError<E>) -> Self {
        match error {
            LookupError::Request(error) => error.into(),
            LookupError::Denied(denied) => denied.into(),
            LookupError::Offload(error) => error.into(),
            LookupError::Protocol(error) => error.into(),
        }
    }
}

impl From<Infallible> for HttpError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl From<RequestError> for HttpError {
    fn from(error: RequestError) -> Self {
        let message = error.to_string();
        let reason = error.is_about_names().then(|| message.clone());
        let bad = StatusCode::BAD_REQUEST;
        let error = match error {
            RequestError::UnknownView { .. } => {
                Self::feast(StatusCode::NOT_FOUND, "unknown_view", "FeatureViewNotFoundException", &message)
            }
            RequestError::UnknownService { .. } => {
                Self::feast(StatusCode::NOT_FOUND, "unknown_service", "FeatureServiceNotFoundException", &message)
            }
            RequestError::Collision { .. } => Self::feast(bad, "collision", "FeatureNameCollisionError", &message),
            // Python formats the text of a `KeyError` as a literal: in single quotes, or in double quotes if the text
            // contains single quotes.
            RequestError::UnknownFeature { .. } => {
                Self::plain(StatusCode::NOT_FOUND, "unknown_feature", format!("'{message}'"))
            }
            RequestError::MissingKeys { .. } => Self::plain(bad, "missing_keys", format!("\"{message}\"")),
            RequestError::NoEntities => Self::plain(bad, "no_entities", format!("'{message}'")),
            RequestError::NoFeatures => Self::plain(bad, "no_features", message),
            RequestError::BadReference(_) => Self::plain(bad, "bad_reference", message),
            RequestError::Versioned(_) => Self::plain(bad, "versioned_reference", message),
            RequestError::Ragged => Self::plain(bad, "ragged", message),
            RequestError::MissingRequestData { .. } => {
                let class = "RequestDataNotFoundInEntityRowsException";
                Self::feast(StatusCode::NOT_FOUND, "missing_request_data", class, &message)
            }
            RequestError::BadRequestData { .. } => Self::plain(bad, "bad_request_data", message),
            // The plugin host already logs every failure, with a rate limit.
            RequestError::Plugin { .. } => Self::plain(StatusCode::INTERNAL_SERVER_ERROR, "plugin", message),
            // The status is not 503, because Feast's client retries a 503 three times and then loses the message.
            RequestError::NoPlugin { .. } => {
                Self::feast(StatusCode::NOT_IMPLEMENTED, "no_plugin", "FeastError", &message)
            }
            RequestError::Unservable { .. } => {
                Self::feast(StatusCode::NOT_IMPLEMENTED, "unservable", "FeastError", &message)
            }
            RequestError::BadKey(_) | RequestError::BadEntity { .. } => Self::plain(bad, "bad_key", message),
            RequestError::TooLarge { .. } => {
                Self::feast(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "FeastError", &message)
            }
            RequestError::AnswerTooLarge { .. } => {
                Self::feast(StatusCode::PAYLOAD_TOO_LARGE, "answer_too_large", "FeastError", &message)
            }
            RequestError::Memory(over) => over.into(),
            // Not expected: `LookupService` retries such a lookup on a compute thread.
            RequestError::TooLong | RequestError::NeedsIsolation(_) => Self::internal(message),
            RequestError::Store(error) => Self::internal(format!("lookup failed: {error}")),
        };
        Self { reason, ..error }
    }
}
