//! The gRPC listener in a build without the feature `grpc`: there is none. The configuration's check rejects
//! `grpc: listen`.

use std::{net::SocketAddr, sync::Arc};

use larder_http::HttpLimits;
use larder_serving::{Authenticator, LookupService, WriteService};

use super::{App, AppError};

/// A server that does not exist.
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
    pub(super) async fn serve_grpc(
        &self,
        _: Arc<LookupService>,
        _: Option<Arc<WriteService>>,
        _: Arc<Authenticator>,
        _: &HttpLimits,
    ) -> Result<Option<GrpcServer>, AppError> {
        Ok(None)
    }
}
