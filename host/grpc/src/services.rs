//! Feast's two services over one set of features: what a call does once its message is read.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use hyper::HeaderMap;
use larder_common::compute::{WRITE_NICE, give_way};
use larder_ingest::{CurrentWriter, Frame, RowWriter, WriteError};
use larder_model::{codec::Cell, model::FeastValue};
use larder_serving::{Cut, RenewDefinitions, Resources, Snapshot};
use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status, async_trait};

use super::{
    Action, Authorizer, error,
    proto::{
        PushRequest, PushResponse, WriteToOnlineStoreRequest, WriteToOnlineStoreResponse,
        feast::serving::{
            GetFeastServingInfoRequest, GetFeastServingInfoResponse, GetOnlineFeaturesRequest,
            GetOnlineFeaturesResponse, serving_service_server::ServingService,
        },
        grpc_feature_server_server::GrpcFeatureServer,
    },
};

/// What calls are answered from.
#[derive(Debug)]
pub struct Features {
    pub(super) current: Arc<ArcSwap<Snapshot>>,
    pub(super) resources: Resources,
    /// Takes writes, where they are taken.
    writes: Option<Arc<dyn CurrentWriter>>,
    definitions: Arc<dyn RenewDefinitions>,
    authorizer: Option<Arc<dyn Authorizer>>,
}

// === impl Features ===

impl Features {
    /// Lookups in what is current; writes to what an engine keeps, if there is one; before both a gate, if there is one.
    #[must_use]
    pub fn new(
        current: Arc<ArcSwap<Snapshot>>,
        resources: Resources,
        writes: Option<Arc<dyn CurrentWriter>>,
        definitions: Arc<dyn RenewDefinitions>,
        authorizer: Option<Arc<dyn Authorizer>>,
    ) -> Self {
        Self { current, resources, writes, definitions, authorizer }
    }

    /// Whether callers may be sent here.
    pub(super) fn is_ready(&self) -> bool {
        self.current.load().is_ready()
    }

    /// Asks the gate, if there is one.
    pub(super) fn check(&self, headers: &HeaderMap, action: Action<'_>) -> Result<(), Status> {
        self.authorizer.as_ref().map_or(Ok(()), |authorizer| Ok(authorizer.check(headers, action)?))
    }

    /// Whether to reload changed definitions before a name is reported as unknown, because the Feast repository does
    /// not allow a cached registry.
    pub(super) fn renews_definitions(&self) -> bool {
        self.definitions.is_always_wanted()
    }

    /// Reloads definitions if they changed. Returns whether they did.
    pub(super) async fn renew_definitions(&self) -> bool {
        let definitions = Arc::clone(&self.definitions);
        spawn_blocking(move || definitions.renew(false)).await.unwrap_or(false)
    }

    async fn write(
        &self,
        headers: &HeaderMap,
        frame: Frame,
        allow_cache: bool,
        work: impl FnOnce(&dyn RowWriter, &Frame) -> Result<(), WriteError> + Send + 'static,
    ) -> Result<(), Status> {
        self.check(headers, Action::Write)?;
        let Some(writes) = &self.writes else {
            return Err(Status::permission_denied("This server takes no writes ('server: writes' is off)."));
        };
        let busy = |_| Status::resource_exhausted("too many writes are in progress; try again");
        let permit = Arc::clone(&self.resources.writes).try_acquire_owned().map_err(busy)?;
        let (current, definitions) = (Arc::clone(writes), Arc::clone(&self.definitions));
        let done = spawn_blocking(move || {
            let _permit = permit;
            // These threads only run writes, which must not delay lookups.
            give_way(WRITE_NICE);
            definitions.renew(allow_cache);
            work(&*current.current(), &frame)
        });
        let done = done
            .await
            .map_err(|error| error::internal(&format!("a write failed because of a bug in Larder: {error}")))?;
        done.map_err(error::of_write)
    }
}

#[async_trait]
impl ServingService for Arc<Features> {
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
        Err(not_here(request))
    }
}

#[async_trait]
impl GrpcFeatureServer for Arc<Features> {
    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        if message.to != "online" {
            let text =
                format!("cannot push to '{}': Larder has no offline store, so push to 'online'", Cut(&message.to));
            return Err(Status::invalid_argument(text));
        }
        let source = message.stream_feature_view;
        let frame = one_row(message.features, message.typed_features)?;
        let allow_cache = message.allow_registry_cache;
        self.write(metadata.as_ref(), frame, allow_cache, move |engine, frame| {
            engine.push(&source, frame).map(|_applied| ())
        })
        .await?;
        Ok(Response::new(PushResponse { status: true }))
    }

    async fn write_to_online_store(
        &self,
        request: Request<WriteToOnlineStoreRequest>,
    ) -> Result<Response<WriteToOnlineStoreResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let view = message.feature_view_name;
        let frame = one_row(message.features, message.typed_features)?;
        let allow_cache = message.allow_registry_cache;
        self.write(metadata.as_ref(), frame, allow_cache, move |engine, frame| {
            engine.write(&view, frame).map(|_applied| ())
        })
        .await?;
        Ok(Response::new(WriteToOnlineStoreResponse { status: true }))
    }

    async fn get_online_features(
        &self,
        request: Request<GetOnlineFeaturesRequest>,
    ) -> Result<Response<GetOnlineFeaturesResponse>, Status> {
        Err(not_here(request))
    }
}

/// [`super::Calls`] answers lookups itself: it leases memory for their messages and answers, which tonic does not.
fn not_here(_lookup: Request<GetOnlineFeaturesRequest>) -> Status {
    error::internal("a lookup was routed to the services that do not serve lookups")
}

/// The row of a write: columns as text, or as values. Both would leave open which one counts.
fn one_row(texts: BTreeMap<String, String>, values: BTreeMap<String, FeastValue>) -> Result<Frame, Status> {
    let columns = match (texts.is_empty(), values.is_empty()) {
        (false, true) => texts.into_iter().map(|(name, text)| (name, vec![Cell::Text(text)])).collect(),
        (true, false) => values.into_iter().map(|(name, value)| (name, vec![Cell::from(value)])).collect(),
        (true, true) => {
            return Err(Status::invalid_argument("the row is missing: 'features' and 'typed_features' are empty"));
        }
        (false, false) => {
            return Err(Status::invalid_argument("only one of 'features' and 'typed_features' can be the row"));
        }
    };
    Ok(Frame { columns })
}
