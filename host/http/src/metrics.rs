//! The server's metrics: requests by endpoint and outcome, and connections.

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

/// The handles of the server's metrics.
#[derive(Clone)]
pub(super) struct HttpMetrics {
    pub(super) online: EndpointMetrics,
    pub(super) other: EndpointMetrics,
    pub(super) connections: Gauge,
    pub(super) connections_refused: Counter,
    pub(super) handshakes_failed: Counter,
    pub(super) fast_path_exits: Counter,
}

/// The metrics of one endpoint.
#[derive(Clone)]
pub(super) struct EndpointMetrics {
    endpoint: &'static str,
    pub(super) success: Counter,
    pub(super) error: Counter,
    pub(super) duration: Histogram,
}

// === impl HttpMetrics ===

impl HttpMetrics {
    pub(super) fn bind() -> Self {
        describe_counter!("larder_http_requests_total", "HTTP requests, by endpoint and outcome.");
        describe_counter!("larder_http_errors_total", "Failed HTTP requests, by endpoint and kind of error.");
        describe_histogram!(
            "larder_http_request_duration_seconds",
            "Time from the arrival of a request's headers until its response is ready."
        );
        describe_gauge!("larder_http_connections", "Open HTTP connections.");
        describe_counter!(
            "larder_http_connections_refused_total",
            "HTTP connections that were closed immediately because too many were open."
        );
        describe_counter!(
            "larder_http_handshakes_failed_total",
            "Connections that ended before the TLS handshake completed."
        );
        describe_counter!(
            "larder_http_fast_path_exits_total",
            "Connections that left the fast path because of a lookup that the fast path cannot serve."
        );
        Self {
            online: EndpointMetrics::bind("/get-online-features"),
            other: EndpointMetrics::bind("other"),
            connections: gauge!("larder_http_connections"),
            connections_refused: counter!("larder_http_connections_refused_total"),
            handshakes_failed: counter!("larder_http_handshakes_failed_total"),
            fast_path_exits: counter!("larder_http_fast_path_exits_total"),
        }
    }
}

// === impl EndpointMetrics ===

impl EndpointMetrics {
    fn bind(endpoint: &'static str) -> Self {
        let own =
            |status: &'static str| counter!("larder_http_requests_total", "endpoint" => endpoint, "status" => status);
        Self {
            endpoint,
            success: own("success"),
            error: own("error"),
            duration: histogram!("larder_http_request_duration_seconds", "endpoint" => endpoint),
        }
    }

    /// Counts an error by its kind. Errors are rare, so the counter is looked up by its labels each time.
    pub(super) fn count_error(&self, kind: &'static str) {
        counter!("larder_http_errors_total", "endpoint" => self.endpoint, "kind" => kind).increment(1);
    }
}

impl std::fmt::Debug for HttpMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpMetrics").finish_non_exhaustive()
    }
}
