//! The listeners of the server, its limits, and the permissions of callers.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use larder_serving::AuthConfig;

use super::TlsConfig;

/// The data listener and its limits.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// The TCP address of the data listener.
    pub listen: SocketAddr,
    /// The path of a Unix socket that serves the same requests as the data listener.
    pub unix_socket: Option<PathBuf>,
    /// Whether `listen` may accept connections from other machines without TLS. If not set, only loopback addresses are
    /// allowed.
    pub insecure: bool,
    /// TLS for `listen`.
    pub tls: Option<TlsConfig>,
    /// Authentication at `listen` and `unix_socket`. Without it, all callers are allowed.
    pub auth: Option<AuthConfig>,
    /// Whether callers may write, as with Feast's feature server.
    pub writes: bool,
    /// The number of threads that serve requests.
    pub workers: usize,
    /// The limits on clients.
    pub limits: HttpLimits,
}

/// Limits on the resources of one request, and of all requests together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// The limit on open connections. Further connections are closed immediately.
    pub connections_max: usize,
    /// The time limit from the start of a connection, or the end of the previous response, to the end of a request's
    /// headers. It also limits idle connections: clients with a connection pool reconnect.
    pub header_timeout: Duration,
    /// The time limit from the end of the headers to the end of the body.
    pub body_timeout: Duration,
    /// How long a response may wait for the client to accept at least one byte.
    pub write_timeout: Duration,
    /// The limit on bytes of a request's body. A larger body gets 413.
    pub body_bytes_max: usize,
    /// The limit on entity rows of a request. More rows get 413.
    pub rows_max: usize,
    /// The limit on features of a request, and on its entity columns. More get 413.
    pub features_max: usize,
    /// The limit on values of a response, rows times columns. More values get 413.
    pub values_max: usize,
    /// The limit on bytes of a response. A larger response gets 413.
    pub answer_bytes_max: usize,
    /// The limit on bytes of all request and response bodies in flight, across all listeners and gRPC. Requests beyond
    /// it get 503. `None`: derived from the memory limit ([`larder_common::memory::default_budget`]).
    pub in_flight_bytes_max: Option<usize>,
    /// How long a stopping server keeps serving all requests while it reports that it is not ready.
    pub drain_delay: Duration,
    /// How long a stopping server waits for requests in flight.
    pub drain_timeout: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            // Longer than the idle timeout of common load balancers and client pools (60 s).
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
