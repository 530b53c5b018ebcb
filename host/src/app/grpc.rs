//! The gRPC listener.

use std::sync::Arc;

pub(super) use larder_grpc::GrpcServer;
use larder_grpc::{Calls, Features, GrpcLimits};
use larder_http::HttpLimits;
use larder_serving::{Authenticator, LookupService, WriteService};

use super::{App, AppError};

// === impl App ===

impl App {
    /// Starts the gRPC listener, if one is configured. Its tokens and limits are those of the HTTP data listener.
    pub(super) async fn serve_grpc(
        &self,
        lookups: Arc<LookupService>,
        writes: Option<Arc<WriteService>>,
        authenticator: Arc<Authenticator>,
        limits: &HttpLimits,
    ) -> Result<Option<GrpcServer>, AppError> {
        let Some(listen) = self.config.grpc_listen else { return Ok(None) };
        let limits = GrpcLimits {
            connections_max: limits.connections_max,
            idle_timeout: limits.header_timeout,
            message_timeout: limits.body_timeout,
            answer_timeout: limits.write_timeout,
            message_bytes_max: limits.body_bytes_max,
            drain_timeout: limits.drain_timeout,
        };
        let calls = Calls::new(Features { lookups, writes, authenticator }, limits);
        let calls = calls.map_err(|error| AppError::Setup(format!("cannot describe the gRPC services: {error}")))?;
        let server = GrpcServer::start(listen, calls, self.config.http.workers).await;
        Ok(Some(server.map_err(|error| AppError::Grpc(error.into()))?))
    }
}
