//! Feast's two services over one set of features: what a call does once its message is read.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use hyper::HeaderMap;
use larder_model::model::FeastValue;
use tokio::{
    sync::{Semaphore, oneshot},
    task::spawn_blocking,
};
use tonic::{
    Code, Request, Response, Status, async_trait,
    metadata::{MetadataMap, MetadataValue},
};

use super::{
    Gate, Wish, answer, error,
    proto::{
        PushRequest, PushResponse, WriteToOnlineStoreRequest, WriteToOnlineStoreResponse,
        feast::serving::{
            GetFeastServingInfoRequest, GetFeastServingInfoResponse, GetOnlineFeaturesRequest,
            GetOnlineFeaturesResponse, serving_service_server::ServingService,
        },
        grpc_feature_server_server::GrpcFeatureServer,
    },
    request,
};
use crate::{
    serving::{RenewDefinitions, Snapshot},
    sync::{Cell, FETCH_ROUNDS, Fetched, Frame, SyncEngine, WriteError, fetch_all},
};

/// What calls are answered from.
#[derive(Debug)]
pub struct Features {
    current: Arc<ArcSwap<Snapshot>>,
    /// Takes writes, where they are taken.
    writes: Option<Arc<ArcSwap<SyncEngine>>>,
    definitions: Arc<dyn RenewDefinitions>,
    gate: Option<Arc<dyn Gate>>,
    /// Each waits for the one writer of the store.
    writing: Arc<Semaphore>,
}

/// The features of a request, or who brings them.
enum Found {
    Answer(GetOnlineFeaturesResponse),
    Elsewhere(oneshot::Receiver<Result<GetOnlineFeaturesResponse, Status>>),
}

/// Writes at once; beyond, they are refused.
const WRITES_AT_ONCE_MAX: usize = 32;

// === impl Features ===

impl Features {
    /// Lookups in what is current; writes to what an engine keeps, if there is one; before both a gate, if there is one.
    #[must_use]
    pub fn new(
        current: Arc<ArcSwap<Snapshot>>,
        writes: Option<Arc<ArcSwap<SyncEngine>>>,
        definitions: Arc<dyn RenewDefinitions>,
        gate: Option<Arc<dyn Gate>>,
    ) -> Self {
        Self { current, writes, definitions, gate, writing: Arc::new(Semaphore::new(WRITES_AT_ONCE_MAX)) }
    }

    /// Whether callers may be sent here.
    pub(super) fn is_ready(&self) -> bool {
        self.current.load().is_ready()
    }

    /// Asks the gate, if there is one.
    pub(super) fn check(&self, headers: &HeaderMap, wish: Wish<'_>) -> Result<(), Status> {
        self.gate.as_ref().map_or(Ok(()), |gate| Ok(gate.check(headers, wish)?))
    }

    async fn look_up(
        &self,
        request: Request<GetOnlineFeaturesRequest>,
    ) -> Result<Response<GetOnlineFeaturesResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let again = self.definitions.is_always_wanted().then(|| message.clone());
        let answered = self.look_up_once(&metadata, message).await;
        let is_unknown = |status: &Status| matches!(status.code(), Code::NotFound | Code::InvalidArgument);
        match (answered, again) {
            // The Feast repository allows no cache of its definitions.
            (Err(status), Some(message)) if is_unknown(&status) && self.renew_definitions().await => {
                self.look_up_once(&metadata, message).await
            }
            (answered, _) => answered,
        }
    }

    /// Takes up definitions that changed. Returns whether there are others now.
    async fn renew_definitions(&self) -> bool {
        let definitions = Arc::clone(&self.definitions);
        spawn_blocking(move || definitions.renew(false)).await.unwrap_or(false)
    }

    async fn look_up_once(
        &self,
        metadata: &MetadataMap,
        message: GetOnlineFeaturesRequest,
    ) -> Result<Response<GetOnlineFeaturesResponse>, Status> {
        let fetched = self.fetch_first(metadata.as_ref(), &message).await?;
        let found = match self.look_up_here(metadata.as_ref(), message)? {
            Found::Answer(found) => found,
            Found::Elsewhere(found) => {
                found.await.map_err(|_| error::internal("the work on a call ended in a bug of Larder"))??
            }
        };
        let mut response = Response::new(found);
        if let Some(word) = match fetched {
            Fetched::All => None,
            Fetched::Late => Some(MetadataValue::from_static("late")),
            Fetched::Away => Some(MetadataValue::from_static("away")),
        } {
            response.metadata_mut().insert("x-larder-read-through", word);
        }
        Ok(response)
    }

    /// Brings rows here that are asked for and are not, where views are only in part.
    async fn fetch_first(&self, headers: &HeaderMap, message: &GetOnlineFeaturesRequest) -> Result<Fetched, Status> {
        if !self.current.load().reads_through() {
            return Ok(Fetched::All);
        }
        let snapshot = self.current.load_full();
        for _ in 0..FETCH_ROUNDS {
            let wanted = {
                let request = request::translate(message)?;
                self.check(headers, Wish::Lookup(&request.selection))?;
                snapshot.to_fetch(&request).map_err(error::of_request)?
            };
            let fetched = fetch_all(wanted).await;
            if fetched != Some(Fetched::All) {
                return Ok(fetched.unwrap_or_default());
            }
        }
        Ok(Fetched::Late)
    }

    /// Answers a call on this thread, unless that would take too long.
    fn look_up_here(&self, headers: &HeaderMap, message: GetOnlineFeaturesRequest) -> Result<Found, Status> {
        let request = request::translate(&message)?;
        self.check(headers, Wish::Lookup(&request.selection))?;
        let snapshot = self.current.load();
        let begun = snapshot.begin(&request).map_err(error::of_request)?;
        let Some(compute) = snapshot.elsewhere(&begun) else {
            let answer = snapshot.finish(begun, &request).map_err(error::of_request)?;
            return Ok(Found::Answer(answer::translate(&answer)));
        };
        let current = Arc::clone(&snapshot);
        drop(request);
        let work = compute.try_run(move || {
            // Translated again there: a request borrows from its message, and is cheap beside what is to come.
            let request = request::translate(&message)?;
            let answer = current.answer(&request).map_err(error::of_request)?;
            Ok(answer::translate(&answer))
        });
        work.map(Found::Elsewhere).map_err(|_full| Status::resource_exhausted("too many requests wait for plugins"))
    }

    async fn write(
        &self,
        headers: &HeaderMap,
        frame: Frame,
        allow_cache: bool,
        work: impl FnOnce(&SyncEngine, &Frame) -> Result<(), WriteError> + Send + 'static,
    ) -> Result<(), Status> {
        self.check(headers, Wish::Write)?;
        let Some(writes) = &self.writes else {
            return Err(Status::permission_denied("This server takes no writes ('server: writes' is off)."));
        };
        let busy = |_| Status::resource_exhausted("too many writes are under way; try again");
        let permit = Arc::clone(&self.writing).try_acquire_owned().map_err(busy)?;
        let (current, definitions) = (Arc::clone(writes), Arc::clone(&self.definitions));
        let done = spawn_blocking(move || {
            let _permit = permit;
            definitions.renew(allow_cache);
            work(&current.load_full(), &frame)
        });
        let done =
            done.await.map_err(|error| error::internal(&format!("a write ended in a bug of Larder: {error}")))?;
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
        self.look_up(request).await
    }
}

#[async_trait]
impl GrpcFeatureServer for Arc<Features> {
    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        if message.to != "online" {
            let text = format!("cannot push to '{}': Larder has no offline store, so push to 'online'", message.to);
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
        self.look_up(request).await
    }
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
