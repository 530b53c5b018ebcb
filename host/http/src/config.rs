//! Where the server listens and what it lets callers do.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use larder_serving::AuthConfig;

use super::TlsConfig;

/// The data listener and its bounds.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// The TCP address of the data listener.
    pub listen: SocketAddr,
    /// A Unix socket that answers like the data listener, if wanted.
    pub unix_socket: Option<PathBuf>,
    /// Whether `listen` may be reachable from other machines without TLS. Off: only loopback is bound.
    pub insecure: bool,
    /// Encryption of `listen`.
    pub tls: Option<TlsConfig>,
    /// Who may ask, at `listen` and at `unix_socket`; everybody where there is none.
    pub auth: Option<AuthConfig>,
    /// Whether callers may write, as with Feast's feature server.
    pub writes: bool,
    /// Threads that answer requests.
    pub workers: usize,
    /// Bounds.
    pub limits: HttpLimits,
}

/// Bounds on what one caller, or all of them together, may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Open connections; further ones are closed at once.
    pub connections_max: usize,
    /// From the start of a connection, or the end of the answer before, to the end of a request's headers. It bounds
    /// idle connections too: clients with a pool reconnect.
    pub header_timeout: Duration,
    /// From the end of the headers to the end of the body.
    pub body_timeout: Duration,
    /// How long an answer may wait for the client to take a byte of it.
    pub write_timeout: Duration,
    /// Bytes of a request's body; beyond: 413.
    pub body_bytes_max: usize,
    /// Entity rows in one request; beyond: 413.
    pub rows_max: usize,
    /// Features in one request, and entity columns; beyond: 413.
    pub features_max: usize,
    /// Values in one answer, rows times columns; beyond: 413.
    pub values_max: usize,
    /// Bytes of one response; beyond: 413.
    pub answer_bytes_max: usize,
    /// Bytes of all request and response bodies in flight, over all listeners and gRPC; beyond: 503. `None`: derived
    /// from the memory limit ([`larder_common::memory::default_budget`]).
    pub in_flight_bytes_max: Option<usize>,
    /// How long a stopping server goes on as before, save that it says it is not ready.
    pub drain_delay: Duration,
    /// How long a stopping server waits for requests under way.
    pub drain_timeout: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            // Longer than the idle time of the load balancers and client pools in common use (60 s).
            header_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            body_bytes_max: 4 << 20,
            rows_max: 10_000,
            features_max: 10_000,
            values_max: 2_000_000,
            answer_bytes_max: 64 << 20,
            in_flight_bytes_max: None,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(20),
        }
    }
}
