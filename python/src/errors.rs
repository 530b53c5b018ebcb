//! Raises the exceptions of `larder._errors`.

use larder_client::ClientError;
use pyo3::{
    Bound, IntoPyObject, Py, PyErr, PyResult, Python, exceptions::PyKeyboardInterrupt, sync::PyOnceLock, types::PyType,
};
use serde_json::Value;

/// The classes of exceptions that the module raises.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ErrorClass {
    Config,
    Connection,
    Request,
    Response,
    Timeout,
    Training,
}

// === impl ErrorClass ===

impl ErrorClass {
    fn get(self, py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
        static CLASSES: [PyOnceLock<Py<PyType>>; 6] = [const { PyOnceLock::new() }; 6];
        let name = match self {
            Self::Config => "ConfigError",
            Self::Connection => "ConnectionError",
            Self::Request => "RequestError",
            Self::Response => "ResponseError",
            Self::Timeout => "Timeout",
            Self::Training => "TrainingError",
        };
        CLASSES[self as usize].import(py, "larder._errors", name)
    }

    /// Creates an exception with arguments.
    fn with<A>(self, py: Python<'_>, arguments: A) -> PyErr
    where
        A: for<'py> IntoPyObject<'py> + Send + Sync + 'static,
        A: pyo3::PyErrArguments,
    {
        match self.get(py) {
            Ok(class) => PyErr::from_type(class.clone(), arguments),
            Err(error) => error,
        }
    }

    /// Creates an exception with a message.
    pub(crate) fn error(self, py: Python<'_>, message: String) -> PyErr {
        self.with(py, (message,))
    }
}

/// Converts the error of a call. `raised` is the exception of a signal handler that interrupted the call.
pub(crate) fn client_error(py: Python<'_>, error: &ClientError, raised: Option<PyErr>) -> PyErr {
    let class = match error {
        ClientError::Interrupted => {
            return raised.unwrap_or_else(|| PyKeyboardInterrupt::new_err(()));
        }
        ClientError::Address { .. }
        | ClientError::Token
        | ClientError::TlsFile { .. }
        | ClientError::NoAuthorities(_) => ErrorClass::Config,
        ClientError::Connect { .. } | ClientError::Handshake { .. } | ClientError::Broken { .. } => {
            ErrorClass::Connection
        }
        ClientError::Protocol { .. } | ClientError::TooLarge { .. } => ErrorClass::Response,
        ClientError::Timeout { .. } => ErrorClass::Timeout,
    };
    class.error(py, error.to_string())
}

/// Converts an error response of the server.
pub(crate) fn status_error(py: Python<'_>, status: u16, body: &[u8]) -> PyErr {
    ErrorClass::Request.with(py, (server_message(status, body), status))
}

/// Returns the message in the body of an error response. The body is either a string that contains JSON with a
/// `message`, as in Feast's errors, or an object with a `detail`, as in FastAPI's errors. Other servers, such as proxies,
/// send other bodies.
fn server_message(status: u16, body: &[u8]) -> String {
    let unknown = || {
        let text = String::from_utf8_lossy(&body[..body.len().min(500)]);
        format!("the server responded with status {status}: {}", text.trim())
    };
    let text = match serde_json::from_slice(body) {
        Ok(Value::String(text)) => text,
        Ok(Value::Object(fields)) => {
            return match fields.get("detail") {
                Some(Value::String(detail)) => detail.clone(),
                Some(detail) => detail.to_string(),
                None => unknown(),
            };
        }
        _ => return unknown(),
    };
    let inner: Option<Value> = serde_json::from_str(&text).ok();
    let message = inner.as_ref().and_then(|inner| inner.get("message")?.as_str()).unwrap_or(&text);
    // Python's `str` of a `KeyError` has quotes.
    let within = |quote| message.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    within('"').or_else(|| within('\'')).unwrap_or(message).to_owned()
}
