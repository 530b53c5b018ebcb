//! Limits on clients, for all protocols. Servers enforce [`ConnectionLimits`], and the lookup path enforces
//! [`ServingLimits`].

use std::time::Duration;

/// Limits on the connections of a listener, and on the requests that they carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// The limit on open connections. Further connections are closed immediately. For gRPC, it is also the limit on
    /// unary calls in flight across all connections. Further calls are rejected.
    pub connections_max: usize,
    /// HTTP: the time limit from the start of a connection, or the end of the previous response, to the end of a
    /// request's headers. An idle connection is closed after this time, so clients with a connection pool must
    /// reconnect.
    ///
    /// gRPC: the time limit on a connection without a call. It also limits how long a client may take to start HTTP/2,
    /// or to send a call's headers.
    pub header_timeout: Duration,
    /// The time limit from the end of the headers to the end of the body, or of a call's message.
    pub body_timeout: Duration,
    /// HTTP: how long a response may wait for the client to accept at least one byte.
    ///
    /// gRPC: the time limit from the start of a response to its end, while the client reads it. It is also the interval
    /// of HTTP/2 pings, and the time limit for the reply to a ping.
    pub write_timeout: Duration,
    /// The limit on bytes of a request's body, or of a call's message. HTTP answers a larger body with status 413.
    pub body_bytes_max: usize,
    /// How long a stopping server waits for requests in flight.
    pub drain_timeout: Duration,
}

/// Limits on one lookup. HTTP answers a request that exceeds a limit with status 413.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServingLimits {
    /// The limit on entity rows.
    pub rows_max: usize,
    /// The limit on features, and on columns of the request.
    pub features_max: usize,
    /// The limit on values of the response: rows times columns.
    pub values_max: usize,
}

// === impl ConnectionLimits ===

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            // Longer than the idle timeout of common load balancers and client pools (60 s).
            header_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            body_bytes_max: 4 << 20,
            drain_timeout: Duration::from_secs(20),
        }
    }
}

// === impl ServingLimits ===

impl Default for ServingLimits {
    fn default() -> Self {
        Self { rows_max: 10_000, features_max: 10_000, values_max: 2_000_000 }
    }
}
