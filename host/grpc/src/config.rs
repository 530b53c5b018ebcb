//! Limits on what gRPC clients may do.

use std::time::Duration;

/// Bounds on what one caller, or all of them together, may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcLimits {
    /// Open connections, further ones are closed at once; and calls under way on all of them, further ones are refused.
    pub connections_max: usize,
    /// A connection without a call is closed after as long. It bounds how long a client may take to say that it speaks
    /// HTTP/2, or to send a call's headers.
    pub idle_timeout: Duration,
    /// From the headers of a call to the end of its message.
    pub message_timeout: Duration,
    /// From an answer's beginning to its end: how long a client may take to read it. As often a client is asked whether
    /// it is there, and as long it may take to say so.
    pub answer_timeout: Duration,
    /// Bytes of a call's message.
    pub message_bytes_max: usize,
    /// How long a stopping server waits for calls under way.
    pub drain_timeout: Duration,
}
