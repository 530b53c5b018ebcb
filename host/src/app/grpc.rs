//! The gRPC listener.

use std::sync::Arc;

pub(super) use larder_grpc::GrpcServer;
use larder_grpc::{Calls, Services};
use larder_serving::{Authenticator, ConnectionLimits, LookupService, WriteService};

use super::{App, AppError};

// === impl App ===

impl App {
    /// Starts the gRPC listener, if one is configured. It has the same tokens and limits as the HTTP data listener.
    pub(super) async fn serve_grpc(
        &self,
        lookups: Arc<LookupService>,
        writes: Option<Arc<WriteService>>,
        authenticator: Arc<Authenticator>,
        limits: ConnectionLimits,
    ) -> Result<Option<GrpcServer>, AppError> {
        let Some(listen) = self.config.grpc_listen else { return Ok(None) };
        let calls = Calls::new(Services { lookups, writes, authenticator }, limits);
        let calls = calls.map_err(|error| AppError::Setup(format!("cannot describe the gRPC services: {error}")))?;
        let server = GrpcServer::start(listen, calls, self.config.http.workers).await;
        Ok(Some(server.map_err(|error| AppError::Grpc(error.into()))?))
    }
}
