//! Replaces the gRPC listener in a build without the feature `grpc`. In such a build, reading the configuration rejects
//! `grpc: listen`.

use std::{net::SocketAddr, sync::Arc};

use larder_serving::{Authenticator, ConnectionLimits, LookupService, WriteService};

use super::{App, AppError};

/// A server that never exists.
#[derive(Debug)]
pub(super) enum GrpcServer {}

// === impl GrpcServer ===

impl GrpcServer {
    pub(super) fn address(&self) -> SocketAddr {
        match *self {}
    }

    pub(super) fn announce_stop(&self) {
        match *self {}
    }

    pub(super) async fn stop(self) -> bool {
        match self {}
    }
}

// === impl App ===

impl App {
    /// Returns `None`: this build has no gRPC listener.
    pub(super) async fn serve_grpc(
        &self,
        _: Arc<LookupService>,
        _: Option<Arc<WriteService>>,
        _: Arc<Authenticator>,
        _: ConnectionLimits,
    ) -> Result<Option<GrpcServer>, AppError> {
        Ok(None)
    }
}
