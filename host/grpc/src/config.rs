//! Limits on what gRPC clients may do.

use std::time::Duration;

/// Limits on the resources of one caller, and of all callers together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcLimits {
    /// The limit on open connections, beyond which further ones are closed immediately; and on calls in flight across
    /// all connections, beyond which further ones are rejected.
    pub connections_max: usize,
    /// A connection without a call is closed after this time. This also limits how long a client may take to start
    /// HTTP/2, or to send a call's headers.
    pub idle_timeout: Duration,
    /// The time limit from the headers of a call to the end of its message.
    pub message_timeout: Duration,
    /// The time limit from the start of a response to its end, while the client reads it. HTTP/2 pings use it as well:
    /// as their interval, and as the time limit for the reply.
    pub answer_timeout: Duration,
    /// The limit on bytes of a call's message.
    pub message_bytes_max: usize,
    /// How long a stopping server waits for calls in flight.
    pub drain_timeout: Duration,
}
