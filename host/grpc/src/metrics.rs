//! The listener's metrics: calls by method and outcome, and connections.

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

/// The handles of the listener's metrics.
#[derive(Clone)]
pub(super) struct GrpcMetrics {
    lookup: MethodMetrics,
    push: MethodMetrics,
    write: MethodMetrics,
    other: MethodMetrics,
    pub(super) connections: Gauge,
    pub(super) connections_refused: Counter,
}

/// The metrics of one method, regardless of the service.
#[derive(Clone)]
pub(super) struct MethodMetrics {
    method: &'static str,
    success: Counter,
    error: Counter,
    duration: Histogram,
}

// === impl GrpcMetrics ===

impl GrpcMetrics {
    pub(super) fn bind() -> Self {
        describe_counter!("larder_grpc_requests_total", "gRPC calls, by method and outcome.");
        describe_counter!("larder_grpc_errors_total", "gRPC calls that failed, by status code.");
        describe_histogram!(
            "larder_grpc_request_duration_seconds",
            "Time from the arrival of a gRPC call's headers until its response is ready."
        );
        describe_gauge!("larder_grpc_connections", "Open gRPC connections.");
        describe_counter!(
            "larder_grpc_connections_refused_total",
            "gRPC connections that were closed because too many were open."
        );
        Self {
            lookup: MethodMetrics::bind("GetOnlineFeatures"),
            push: MethodMetrics::bind("Push"),
            write: MethodMetrics::bind("WriteToOnlineStore"),
            other: MethodMetrics::bind("other"),
            connections: gauge!("larder_grpc_connections"),
            connections_refused: counter!("larder_grpc_connections_refused_total"),
        }
    }

    /// Returns whether a method has its own metrics.
    pub(super) fn has_method(&self, method: &str) -> bool {
        self.of(method).method == method
    }

    /// Returns the metrics of a method, which is the last segment of a call's path.
    pub(super) fn of(&self, method: &str) -> &MethodMetrics {
        match method {
            "GetOnlineFeatures" => &self.lookup,
            "Push" => &self.push,
            "WriteToOnlineStore" => &self.write,
            _ => &self.other,
        }
    }
}

// === impl MethodMetrics ===

impl MethodMetrics {
    fn bind(method: &'static str) -> Self {
        let own = |status: &'static str| counter!("larder_grpc_requests_total", "method" => method, "status" => status);
        Self {
            method,
            success: own("success"),
            error: own("error"),
            duration: histogram!("larder_grpc_request_duration_seconds", "method" => method),
        }
    }

    /// Counts a call. Errors are rare and have few codes, so they are looked up by label.
    pub(super) fn count(&self, failed: Option<tonic::Code>, seconds: f64) {
        match failed {
            None => self.success.increment(1),
            Some(code) => {
                self.error.increment(1);
                counter!("larder_grpc_errors_total", "method" => self.method, "code" => format!("{code:?}"))
                    .increment(1);
            }
        }
        self.duration.record(seconds);
    }
}

impl std::fmt::Debug for GrpcMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrpcMetrics").finish_non_exhaustive()
    }
}
