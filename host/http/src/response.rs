//! Builds responses, and records failed requests in the metrics and the log.

use std::net::SocketAddr;

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde_json::Value;

use super::{HttpError, accept::JSON, body::ResponseBody, metrics::EndpointMetrics};

pub(super) type HttpResponse = Response<ResponseBody>;

pub(super) fn json_response(status: StatusCode, body: &Value) -> HttpResponse {
    bytes_response(status, Some(JSON), body.to_string().into())
}

/// Creates a response with a complete body.
pub(super) fn bytes_response(status: StatusCode, content_type: Option<HeaderValue>, body: Bytes) -> HttpResponse {
    let mut response = Response::new(ResponseBody::Whole(body));
    *response.status_mut() = status;
    if let Some(content_type) = content_type {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}

/// Counts and logs a failed request, and returns its response.
pub(super) fn error_response(
    endpoint: &EndpointMetrics,
    error: &HttpError,
    path: &'static str,
    client: Option<SocketAddr>,
) -> HttpResponse {
    note_failed(endpoint, error, path, client);
    let mut response = json_response(error.status, &error.body);
    if let Some(header) = &error.header {
        response.headers_mut().insert(&header.0, header.1.clone());
    }
    response
}

/// Counts and logs a failed request. At `debug`, logs the kind of the error, and a reason that has names of definitions
/// but no values. At `error`, logs the message for the operator, if there is one.
pub(super) fn note_failed(
    endpoint: &EndpointMetrics,
    error: &HttpError,
    path: &'static str,
    client: Option<SocketAddr>,
) {
    endpoint.error.increment(1);
    endpoint.count_error(error.kind);
    if let Some(log) = &error.log {
        tracing::error!(kind = error.kind, "{log}");
    }
    // Formats the address only if it is logged.
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    let reason = error.reason.as_deref().unwrap_or(error.kind);
    let client = client.map_or_else(|| "local".to_owned(), |client| client.to_string());
    tracing::debug!(
        client,
        endpoint = path,
        status = error.status.as_u16(),
        kind = error.kind,
        reason,
        "request failed"
    );
}
