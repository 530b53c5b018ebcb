//! The methods of Feast's two services that write rows or return the version. [`super::Calls`] answers lookups.

use std::{collections::BTreeMap, sync::Arc};

use larder_ingest::{Frame, RowWriter, WriteError};
use larder_model::{codec::Cell, model::FeastValue};
use larder_serving::{Authenticator, Authorization, Cut, LookupService, WriteAccess, WriteFailure, WriteService};
use tokio::sync::watch;
use tonic::{Request, Response, Status, async_trait};

use super::{
    error,
    proto::{
        PushRequest, PushResponse, WriteToOnlineStoreRequest, WriteToOnlineStoreResponse,
        feast::serving::{
            GetFeastServingInfoRequest, GetFeastServingInfoResponse, GetOnlineFeaturesRequest,
            GetOnlineFeaturesResponse, serving_service_server::ServingService,
        },
        grpc_feature_server_server::GrpcFeatureServer,
    },
};

/// The services of `larder-serving` that calls use.
#[derive(Debug)]
pub struct Services {
    /// Serves lookups.
    pub lookups: Arc<LookupService>,
    /// Runs writes, if the server accepts them.
    pub writes: Option<Arc<WriteService>>,
    /// Authenticates callers.
    pub authenticator: Arc<Authenticator>,
}

// === impl Services ===

impl Services {
    /// Returns whether the server is ready to serve lookups.
    pub(super) fn is_ready(&self) -> bool {
        self.lookups.readiness().is_ready(&self.lookups.snapshot())
    }

    /// Returns a receiver that is notified when the health of the store may have changed. Readiness depends on it.
    pub(super) fn readiness_changes(&self) -> watch::Receiver<()> {
        self.lookups.snapshot().store().health_changes()
    }

    async fn write(
        &self,
        authorization: Option<&Authorization>,
        frame: Frame,
        allow_cache: bool,
        work: impl FnOnce(&dyn RowWriter, &Frame) -> Result<(), WriteError> + Send + 'static,
    ) -> Result<(), Status> {
        // `Calls` adds the authorization before it passes the call to a service.
        let authorization = authorization.ok_or_else(|| error::internal("a write has no authorization"))?;
        authorization.check_write().map_err(error::of_denied)?;
        let Some(writes) = &self.writes else {
            return Err(Status::permission_denied("This server does not accept writes ('server: writes' is off)."));
        };
        let write = move |access: &WriteAccess| work(&*access.writer(allow_cache), &frame);
        writes.write(authorization, write).await.map_err(|failure| match failure {
            WriteFailure::Denied(denied) => error::of_denied(denied),
            WriteFailure::Busy => Status::resource_exhausted("too many writes are in progress; try again later"),
            WriteFailure::Panicked(panic) => {
                error::internal(&format!("a write failed because of a bug in Larder: {panic}"))
            }
            WriteFailure::Failed(failed) => error::of_write(failed),
        })
    }
}

#[async_trait]
impl ServingService for Arc<Services> {
    async fn get_feast_serving_info(
        &self,
        _request: Request<GetFeastServingInfoRequest>,
    ) -> Result<Response<GetFeastServingInfoResponse>, Status> {
        Ok(Response::new(GetFeastServingInfoResponse { version: env!("CARGO_PKG_VERSION").to_owned() }))
    }

    async fn get_online_features(
        &self,
        request: Request<GetOnlineFeaturesRequest>,
    ) -> Result<Response<GetOnlineFeaturesResponse>, Status> {
        Err(misrouted(request))
    }
}

#[async_trait]
impl GrpcFeatureServer for Arc<Services> {
    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        let (_, extensions, message) = request.into_parts();
        if message.to != "online" {
            let text =
                format!("cannot push to '{}': Larder has no offline store. hint: push to 'online'", Cut(&message.to));
            return Err(Status::invalid_argument(text));
        }
        let source = message.stream_feature_view;
        let frame = one_row(message.features, message.typed_features)?;
        let allow_cache = message.allow_registry_cache;
        self.write(extensions.get(), frame, allow_cache, move |engine, frame| {
            engine.push(&source, frame).map(|_applied| ())
        })
        .await?;
        Ok(Response::new(PushResponse { status: true }))
    }

    async fn write_to_online_store(
        &self,
        request: Request<WriteToOnlineStoreRequest>,
    ) -> Result<Response<WriteToOnlineStoreResponse>, Status> {
        let (_, extensions, message) = request.into_parts();
        let view = message.feature_view_name;
        let frame = one_row(message.features, message.typed_features)?;
        let allow_cache = message.allow_registry_cache;
        self.write(extensions.get(), frame, allow_cache, move |engine, frame| {
            engine.write(&view, frame).map(|_applied| ())
        })
        .await?;
        Ok(Response::new(WriteToOnlineStoreResponse { status: true }))
    }

    async fn get_online_features(
        &self,
        request: Request<GetOnlineFeaturesRequest>,
    ) -> Result<Response<GetOnlineFeaturesResponse>, Status> {
        Err(misrouted(request))
    }
}

/// Returns an internal error for a lookup that was passed to a service. [`super::Calls`] answers lookups itself, to
/// lease memory for their messages and responses, which tonic does not do.
fn misrouted(_lookup: Request<GetOnlineFeaturesRequest>) -> Status {
    error::internal("a lookup was routed to a service that does not serve lookups")
}

/// Returns the row of a write, with columns as text or as values. A write that has both is ambiguous, and is rejected.
fn one_row(texts: BTreeMap<String, String>, values: BTreeMap<String, FeastValue>) -> Result<Frame, Status> {
    let columns = match (texts.is_empty(), values.is_empty()) {
        (false, true) => texts.into_iter().map(|(name, text)| (name, vec![Cell::Text(text)])).collect(),
        (true, false) => values.into_iter().map(|(name, value)| (name, vec![Cell::from(value)])).collect(),
        (true, true) => {
            return Err(Status::invalid_argument("the row is missing: 'features' and 'typed_features' are empty"));
        }
        (false, false) => {
            return Err(Status::invalid_argument(
                "'features' and 'typed_features' are both set, but only one of them is allowed",
            ));
        }
    };
    Ok(Frame { columns })
}
