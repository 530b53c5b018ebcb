//! The listeners of the server, its limits, and the permissions of callers.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use larder_serving::{AuthConfig, ConnectionLimits, ServingLimits};

use super::TlsConfig;

/// The data listener and its limits.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// The TCP address of the data listener.
    pub listen: SocketAddr,
    /// The path of a Unix socket that serves the same requests as the data listener.
    pub unix_socket: Option<PathBuf>,
    /// Whether `listen` may accept connections from other machines without TLS. If false, `listen` must be a loopback
    /// address, unless TLS is configured.
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

/// Limits on the resources of one request, and of all requests together: `server: limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// The limits on connections, for gRPC too.
    pub connection: ConnectionLimits,
    /// The limits on one request.
    pub request: ServingLimits,
    /// The limit on bytes of a response. A larger response gets 413.
    pub answer_bytes_max: usize,
    /// The limit on bytes of all request and response bodies in flight, across all listeners and gRPC. A request that
    /// does not fit now gets 503, and a request that can never fit gets 413. If `None`, the limit is derived from the
    /// memory limit ([`larder_common::memory::default_budget`]).
    pub in_flight_bytes_max: Option<usize>,
    /// How long a stopping server keeps serving all requests while it reports that it is not ready.
    pub drain_delay: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connection: ConnectionLimits::default(),
            request: ServingLimits::default(),
            answer_bytes_max: 64 << 20,
            in_flight_bytes_max: None,
            drain_delay: Duration::ZERO,
        }
    }
}
