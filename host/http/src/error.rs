//! Errors to answers: Feast's bodies, with the status that the mistake deserves.
//!
//! Feast sends its errors as a JSON *string*. For its own error classes that string holds JSON again (module, class,
//! message); for any other Python exception it is the exception's text, a `KeyError`'s in quotes. Both are kept,
//! because its client reads them. Where Feast answers a client's mistake with 500, the status here is a 4xx.

use std::convert::Infallible;

use hyper::{
    StatusCode,
    header::{HeaderName, HeaderValue, WWW_AUTHENTICATE},
};
use larder_common::memory::OverBudget;
use larder_serving::{Denied, LookupError, OffloadError, RequestError};
use serde_json::{Value, json};

/// An answer that is an error. Two messages: `body` is for the client, `log` for the operator.
#[derive(Debug)]
pub struct HttpError {
    /// The status.
    pub status: StatusCode,
    /// What the client gets, JSON.
    pub body: Value,
    /// What the log gets, if anything: clients' mistakes are not logged.
    pub log: Option<String>,
    /// The kind of error, as a metric label.
    pub kind: &'static str,
    /// The text for the log at level `debug`, in place of the kind; contains no values from the caller.
    pub(super) reason: Option<String>,
    /// A header that goes with the status.
    pub(super) header: Option<Box<(HeaderName, HeaderValue)>>,
}

/// The size limit of a message in bytes. Lists in it are already limited to [`larder_serving::LISTED_MAX`] truncated
/// names.
const MESSAGE_BYTES_MAX: usize = 16 << 10;

// === impl HttpError ===

impl HttpError {
    /// An error in FastAPI's words: `{"detail": ...}`.
    pub(super) fn detail(status: StatusCode, kind: &'static str, detail: impl Into<Value>) -> Self {
        Self { status, body: json!({ "detail": detail.into() }), log: None, kind, reason: None, header: None }
    }

    /// An error of one of Feast's classes.
    pub(super) fn feast(status: StatusCode, kind: &'static str, class: &str, message: &str) -> Self {
        let message = Value::from(cut(message.to_owned()));
        let inner = format!(r#"{{"module": "feast.errors", "class": "{class}", "message": {message}}}"#);
        Self { status, body: Value::String(inner), log: None, kind, reason: None, header: None }
    }

    /// An error that is a plain text at Feast's.
    pub(super) fn plain(status: StatusCode, kind: &'static str, message: String) -> Self {
        Self { status, body: Value::String(cut(message)), log: None, kind, reason: None, header: None }
    }

    /// What a caller may not ask for. Its class is Feast's.
    pub(super) fn forbidden(message: &str) -> Self {
        Self::feast(StatusCode::FORBIDDEN, "forbidden", "FeastPermissionError", message)
    }

    /// A failure on this side: the client learns that, and no more.
    pub(super) fn internal(log: String) -> Self {
        let mut error = Self::feast(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "FeastError",
            "internal error; the server's log says more",
        );
        error.log = Some(log);
        error
    }
}

/// A message may repeat the caller's input, and is truncated if that is long.
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
            // Python prints a KeyError's text as a literal: in single quotes, or in double ones when it has single.
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
            // The log has it already: the plugin room tells of every failure, under a rate.
            RequestError::Plugin { .. } => Self::plain(StatusCode::INTERNAL_SERVER_ERROR, "plugin", message),
            // Feast's client tries a 503 again, three times, and then loses the message.
            RequestError::NoPlugin { .. } => {
                Self::feast(StatusCode::NOT_IMPLEMENTED, "no_plugin", "FeastError", &message)
            }
            RequestError::Unservable { .. } => {
                Self::feast(StatusCode::NOT_IMPLEMENTED, "unservable", "FeastError", &message)
            }
            RequestError::BadKey(_) => Self::plain(bad, "bad_key", message),
            RequestError::TooLarge { .. } => {
                Self::feast(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "FeastError", &message)
            }
            RequestError::AnswerTooLarge { .. } => {
                Self::feast(StatusCode::PAYLOAD_TOO_LARGE, "answer_too_large", "FeastError", &message)
            }
            RequestError::Memory(over) => over.into(),
            // [`larder_serving::LookupService`] repeats such a lookup on a compute thread.
            RequestError::TooLong => Self::internal(message),
            RequestError::Store(error) => Self::internal(format!("lookup failed: {error}")),
        };
        Self { reason, ..error }
    }
}
