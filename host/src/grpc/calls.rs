//! Which call goes to which service, and what is asked of it before.

use std::{fmt, sync::Arc, time::Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderMap},
};
use tokio::sync::Semaphore;
use tonic::{Code, Status, body::Body, codegen::Service, server::NamedService};
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

use super::{
    Features, GrpcLimits, Wish,
    book::{Book, Entry},
    metrics::GrpcMetrics,
    proto::{
        self, feast::serving::serving_service_server::ServingServiceServer,
        grpc_feature_server_server::GrpcFeatureServerServer,
    },
};

type Lookups = ServingServiceServer<Arc<Features>>;
type LookupsAndWrites = GrpcFeatureServerServer<Arc<Features>>;
type Health = HealthServer<HealthService>;

/// Answers calls, each with the features that are current when it begins.
pub struct Calls {
    features: Arc<Features>,
    lookups: Lookups,
    lookups_and_writes: LookupsAndWrites,
    health: Health,
    reporter: HealthReporter,
    reflection: Reflection,
    limits: GrpcLimits,
    /// Each holds its message in memory, and makes its answer.
    at_once: Arc<Semaphore>,
    pub(super) metrics: GrpcMetrics,
}

/// Tools ask by the one name or by the other.
struct Reflection {
    v1: Box<dyn Reflects>,
    v1alpha: Box<dyn Reflects>,
}

/// The services of reflection, whose types have no names.
trait Reflects: Send + Sync {
    fn answer(&self, request: Request<Incoming>) -> Answering;
}

type Answering = std::pin::Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Two services that tools know by these names.
const REFLECTION_V1: &str = "grpc.reflection.v1.ServerReflection";
const REFLECTION_V1ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

// === impl Calls ===

impl Calls {
    /// The services over these features.
    ///
    /// # Errors
    /// When the descriptors of the `.proto` files cannot be read, which a test would have seen.
    pub fn new(features: Features, limits: GrpcLimits) -> Result<Self, tonic_reflection::server::Error> {
        let features = Arc::new(features);
        let reporter = HealthReporter::new();
        let describe = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let reflection =
            Reflection { v1: Box::new(describe().build_v1()?), v1alpha: Box::new(describe().build_v1alpha()?) };
        Ok(Self {
            lookups: Lookups::new(Arc::clone(&features)).max_decoding_message_size(limits.message_bytes_max),
            lookups_and_writes: LookupsAndWrites::new(Arc::clone(&features))
                .max_decoding_message_size(limits.message_bytes_max),
            features,
            health: Health::new(HealthService::from_health_reporter(reporter.clone())),
            reporter,
            reflection,
            limits,
            at_once: Arc::new(Semaphore::new(limits.connections_max.min(Semaphore::MAX_PERMITS))),
            metrics: GrpcMetrics::bind(),
        })
    }

    pub(super) fn limits(&self) -> &GrpcLimits {
        &self.limits
    }

    /// Whether callers may be sent here.
    pub(super) fn is_ready(&self) -> bool {
        self.features.is_ready()
    }

    /// Tells those who ask for health. The name of no service is that of the whole host.
    pub(super) async fn report(&self, is_ready: bool) {
        let status = if is_ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in ["", Lookups::NAME, LookupsAndWrites::NAME] {
            self.reporter.set_service_status(service, status).await;
        }
    }

    /// Answers a call that came on a connection with this book.
    pub(super) async fn answer(&self, request: Request<Incoming>, book: &Arc<Book>) -> Response<Body> {
        let started = Instant::now();
        let path = request.uri().path().to_owned();
        let (service, method) = path.strip_prefix('/').and_then(|path| path.split_once('/')).unwrap_or_default();
        let is_stream = !matches!(service, Lookups::NAME | LookupsAndWrites::NAME) && method != "Check";
        let entry = book.enter(is_stream);
        let response = match self.route(service, request).await {
            Ok(response) => response,
            Err(status) => status.into_http(),
        };
        let metrics = self.metrics.of(method);
        metrics.count(failure(response.headers()), started.elapsed().as_secs_f64());
        response.map(|body| Entry::leave(entry, body))
    }

    async fn route(&self, service: &str, request: Request<Incoming>) -> Result<Response<Body>, Status> {
        let is_grpc = |kind: &[u8]| kind.starts_with(b"application/grpc");
        if !request.headers().get(CONTENT_TYPE).is_some_and(|kind| is_grpc(kind.as_bytes())) {
            let mut response = Response::new(Body::default());
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Ok(response);
        }
        match service {
            Lookups::NAME => self.one(self.lookups.clone(), request).await,
            LookupsAndWrites::NAME => self.one(self.lookups_and_writes.clone(), request).await,
            Health::NAME => Ok(call(self.health.clone(), request).await),
            REFLECTION_V1 => Ok(self.reflection.v1.answer(request).await),
            REFLECTION_V1ALPHA => Ok(self.reflection.v1alpha.answer(request).await),
            _ => Err(Status::unimplemented("there is no such service")),
        }
    }

    /// Answers a call that has one message and one answer: lets it in, and reads the message, before the service sees it.
    async fn one<S>(&self, service: S, request: Request<Incoming>) -> Result<Response<Body>, Status>
    where
        S: Service<Request<Full<Bytes>>, Response = Response<Body>, Error = std::convert::Infallible>,
    {
        self.features.check(request.headers(), Wish::Entry)?;
        let Ok(_permit) = self.at_once.try_acquire() else {
            return Err(Status::resource_exhausted("too many calls are under way; try again"));
        };
        let (head, body) = request.into_parts();
        let read = tokio::time::timeout(self.limits.message_timeout, read(body, self.limits.message_bytes_max));
        let message = read.await.map_err(|_| Status::deadline_exceeded("the message took too long to arrive"))??;
        Ok(call(service, Request::from_parts(head, Full::new(message))).await)
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("features", &self.features).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl<S> Reflects for S
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = std::convert::Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    fn answer(&self, request: Request<Incoming>) -> Answering {
        let service = self.clone();
        Box::pin(async move { call(service, request).await })
    }
}

/// Calls a service. Those that tonic makes are always ready, and never fail.
async fn call<S, B>(mut service: S, request: Request<B>) -> Response<Body>
where
    S: Service<Request<B>, Response = Response<Body>, Error = std::convert::Infallible>,
{
    match service.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Reads a message with its prefix, within its bound. One that says that it is too long is not waited for.
async fn read(mut body: Incoming, max: usize) -> Result<Bytes, Status> {
    let too_large = || Status::resource_exhausted(format!("the message has more than {max} bytes"));
    let mut first = Bytes::new();
    let mut rest: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::cancelled(format!("the message broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > max.saturating_add(PREFIX_BYTES) {
            return Err(too_large());
        }
        // Nearly every message comes in one piece, which needs no copy.
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
        if let Some(&[_, a, b, c, d]) = first.first_chunk()
            && usize::try_from(u32::from_be_bytes([a, b, c, d])).map_or(true, |length| length > max)
        {
            return Err(too_large());
        }
    }
    Ok(if rest.is_empty() { first } else { [&*first, &rest].concat().into() })
}

/// The code of an answer that is an error. That of a stream comes at its end, and counts as none here.
fn failure(headers: &HeaderMap) -> Option<Code> {
    let code = headers.get(Status::GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()));
    code.filter(|code| *code != Code::Ok)
}
