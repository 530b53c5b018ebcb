//! Routes calls to services. Checks authentication, limits and memory first.

use std::{fmt, net::SocketAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use http_body_util::{Full, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use larder_common::{
    compute::Owner,
    memory::{Lease, leased_bytes},
};
use larder_ingest::READ_THROUGH_HEADER;
use larder_serving::{Authorization, ConnectionLimits, Lookup, LookupError, LookupResponse, offload};
use tokio::sync::{Mutex, Notify, Semaphore, watch};
use tonic::{Code, Status, body::Body, codegen::Service, server::NamedService};
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};
use tracing::Instrument as _;

use super::{
    Services, error,
    in_flight::InFlightCalls,
    lookup::Grpc,
    message::{ACCEPT_ENCODING, ENCODING, ENCODINGS, Encoding, MessageBody, PREFIX_BYTES, plain, read},
    metrics::GrpcMetrics,
    proto::{
        self, feast::serving::serving_service_server::ServingServiceServer,
        grpc_feature_server_server::GrpcFeatureServerServer,
    },
    weight::row_bytes,
};

type Lookups = ServingServiceServer<Arc<Services>>;
type LookupsAndWrites = GrpcFeatureServerServer<Arc<Services>>;
type Health = HealthServer<HealthService>;

/// Answers calls, each with the definitions that are current when the call begins.
pub struct Calls {
    services: Arc<Services>,
    lookups: Lookups,
    lookups_and_writes: LookupsAndWrites,
    health: Health,
    reporter: HealthReporter,
    reported: Mutex<Reported>,
    reflection: Reflection,
    limits: ConnectionLimits,
    /// The limit on concurrent unary calls, each of which holds its message and its response in memory.
    unary_calls: Arc<Semaphore>,
    /// The limit on streams of health watches and reflection, which last as long as their clients want.
    streams: Arc<Semaphore>,
    /// Notified when a stream begins.
    stream_began: Notify,
    pub(super) metrics: GrpcMetrics,
}

/// The last reported health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reported {
    /// Not ready, or nothing was reported yet.
    #[default]
    NotReady,
    Ready,
    /// The server is stopping and will not become ready again.
    Stopping,
}

/// The two versions of the reflection service. Some tools use the first version, and some the second.
struct Reflection {
    v1: Box<dyn Reflects>,
    v1alpha: Box<dyn Reflects>,
}

/// A reflection service, whose type in tonic cannot be named.
trait Reflects: Send + Sync {
    fn answer(&self, request: Request<Limited<Incoming>>) -> Answering;
}

type Parts = hyper::http::request::Parts;

type Answering = std::pin::Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// The maximum size of a message to the health service.
const HEALTH_BYTES_MAX: usize = 4 << 10;
/// The maximum size of all messages of one reflection stream together.
const REFLECTION_BYTES_MAX: usize = 64 << 10;

/// The limit on concurrent health and reflection streams. Further streams are rejected.
const CONCURRENT_STREAMS_MAX: usize = 1_024;

/// The memory of a header in addition to its name and value, in bytes.
const HEADER_BYTES: usize = 64;

/// The maximum size of a compressed message that a serving thread decompresses, in bytes. A larger message is
/// decompressed on a compute thread, because decompression can make it a thousand times larger.
const THREAD_COMPRESSED_BYTES_MAX: usize = 2 << 10;

/// The lookup method, which both of Feast's services have.
const LOOKUP: &str = "GetOnlineFeatures";

/// The names of the two versions of the reflection service.
const REFLECTION_V1: &str = "grpc.reflection.v1.ServerReflection";
const REFLECTION_V1ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

// === impl Calls ===

impl Calls {
    /// Creates the handler of calls, with the health and reflection services.
    ///
    /// # Errors
    /// If the descriptors of the `.proto` files cannot be read. Tests ensure that this does not happen.
    pub fn new(services: Services, limits: ConnectionLimits) -> Result<Self, tonic_reflection::server::Error> {
        let services = Arc::new(services);
        let reporter = HealthReporter::new();
        let describe = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let reflection =
            Reflection { v1: Box::new(describe().build_v1()?), v1alpha: Box::new(describe().build_v1alpha()?) };
        Ok(Self {
            lookups: Lookups::new(Arc::clone(&services)).max_decoding_message_size(limits.body_bytes_max),
            lookups_and_writes: LookupsAndWrites::new(Arc::clone(&services))
                .max_decoding_message_size(limits.body_bytes_max),
            services,
            health: Health::new(HealthService::from_health_reporter(reporter.clone())),
            reporter,
            reported: Mutex::default(),
            reflection,
            limits,
            streams: Arc::new(Semaphore::new(CONCURRENT_STREAMS_MAX)),
            stream_began: Notify::new(),
            unary_calls: Arc::new(Semaphore::new(limits.connections_max.min(Semaphore::MAX_PERMITS))),
            metrics: GrpcMetrics::bind(),
        })
    }

    pub(super) fn limits(&self) -> &ConnectionLimits {
        &self.limits
    }

    /// Returns a receiver that is notified when the health of the store may have changed. Readiness depends on it.
    pub(super) fn readiness_changes(&self) -> watch::Receiver<()> {
        self.services.readiness_changes()
    }

    /// Reports the current readiness to the health service, if it changed and the server is not stopping.
    pub(super) async fn refresh_health(&self) {
        let mut reported = self.reported.lock().await;
        let now = if self.services.is_ready() { Reported::Ready } else { Reported::NotReady };
        if *reported != Reported::Stopping && *reported != now {
            *reported = now;
            self.report(now == Reported::Ready).await;
        }
    }

    /// Reports that the server is not serving from now on.
    pub(super) async fn report_stop(&self) {
        *self.reported.lock().await = Reported::Stopping;
        self.report(false).await;
    }

    /// Sets the health of all services. The empty name means the whole server.
    pub(super) async fn report(&self, is_ready: bool) {
        let status = if is_ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in ["", Lookups::NAME, LookupsAndWrites::NAME] {
            self.reporter.set_service_status(service, status).await;
        }
    }

    /// Waits until a stream begins, which may be a health watch. Only one task at a time may wait.
    pub(super) async fn stream_began(&self) {
        self.stream_began.notified().await;
    }

    /// Returns whether a stream is open, which may be a health watch.
    pub(super) fn has_streams(&self) -> bool {
        self.streams.available_permits() < CONCURRENT_STREAMS_MAX
    }

    /// Answers a call. The call is tracked in `in_flight` until its response is sent.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        in_flight: &Arc<InFlightCalls>,
        client: Option<SocketAddr>,
    ) -> Response<Body> {
        let started = Instant::now();
        let path = request.uri().path().to_owned();
        let (service, method) = path.strip_prefix('/').and_then(|path| path.split_once('/')).unwrap_or_default();
        let is_stream = !matches!(service, Lookups::NAME | LookupsAndWrites::NAME) && method != "Check";
        let mut guard = in_flight.enter(is_stream);
        let span = tracing::debug_span!("call", method, client = client.map(tracing::field::display));
        let routed = match is_stream.then(|| Arc::clone(&self.streams).try_acquire_owned()) {
            Some(Err(_)) => Err(Status::resource_exhausted("too many streams are open; try again later")),
            Some(Ok(permit)) => {
                guard.keep(permit);
                self.stream_began.notify_one();
                self.route(service, method, request).instrument(span).await
            }
            None => self.route(service, method, request).instrument(span).await,
        };
        let mut response = routed.unwrap_or_else(Status::into_http);
        response.headers_mut().insert(ACCEPT_ENCODING, ENCODINGS);
        let failed = failure(response.headers());
        if let Some(code) = failed {
            let client = client.map(|client| client.to_string()).unwrap_or_default();
            let method = if self.metrics.has_method(method) { method } else { "unknown" };
            // The message is not logged, because it may contain values.
            tracing::debug!(client, endpoint = method, code = ?code, "gRPC call failed");
        }
        self.metrics.of(method).count(failed, started.elapsed().as_secs_f64());
        response.map(|body| guard.wrap_response(body))
    }

    async fn route(&self, service: &str, method: &str, request: Request<Incoming>) -> Result<Response<Body>, Status> {
        let is_grpc = |kind: &[u8]| kind.starts_with(b"application/grpc");
        if !request.headers().get(CONTENT_TYPE).is_some_and(|kind| is_grpc(kind.as_bytes())) {
            let mut response = Response::new(Body::default());
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Ok(response);
        }
        match service {
            Lookups::NAME | LookupsAndWrites::NAME if method == LOOKUP => self.look_up(request).await,
            Lookups::NAME => self.one(self.lookups.clone(), request).await,
            LookupsAndWrites::NAME => self.one(self.lookups_and_writes.clone(), request).await,
            Health::NAME => {
                let (head, message, _lease) = self.read(request, HEALTH_BYTES_MAX).await?;
                // Readiness is polled only while a stream is open, so a single check refreshes it.
                self.refresh_health().await;
                Ok(call(self.health.clone(), Request::from_parts(head, Full::new(message))).await)
            }
            REFLECTION_V1 => Ok(self.reflection.v1.answer(limited(request)).await),
            REFLECTION_V1ALPHA => Ok(self.reflection.v1alpha.answer(limited(request)).await),
            _ => Err(Status::unimplemented("unknown service")),
        }
    }

    /// Answers a unary call: authenticates the caller and reads the message before the service gets it.
    async fn one<S>(&self, service: S, request: Request<Incoming>) -> Result<Response<Body>, Status>
    where
        S: Service<Request<Full<Bytes>>, Response = Response<Body>, Error = std::convert::Infallible>,
    {
        let authorization = self.authenticate(request.headers())?;
        let Ok(_permit) = self.unary_calls.try_acquire() else {
            return Err(Status::resource_exhausted("too many calls are in progress; try again later"));
        };
        let (mut head, message, mut lease) = self.read(request, self.limits.body_bytes_max).await?;
        lease.grow(row_bytes(&message)).map_err(error::of_memory)?;
        head.extensions.insert(authorization);
        Ok(call(service, Request::from_parts(head, Full::new(message))).await)
    }

    /// Answers a lookup, with a lease of memory for its message and its response.
    async fn look_up(&self, request: Request<Incoming>) -> Result<Response<Body>, Status> {
        let authorization = self.authenticate(request.headers())?;
        let Ok(_permit) = self.unary_calls.try_acquire() else {
            return Err(Status::resource_exhausted("too many calls are in progress; try again later"));
        };
        let encoding = Encoding::of_answer(request.headers());
        let (_, message, lease) = self.read(request, self.limits.body_bytes_max).await?;
        let body = leased_bytes(message, lease).slice(PREFIX_BYTES..);
        let lookup = Lookup { protocol: Grpc { encoding }, authorization, body };
        let LookupResponse { body, fetched } = self.services.lookups.serve(lookup).await.map_err(error::of_lookup)?;
        let mut response = Response::new(Body::new(MessageBody::new(body)));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        if let Some(encoding) = encoding {
            headers.insert(ENCODING, encoding.name());
        }
        if let Some(reason) = fetched.reason() {
            headers.insert(READ_THROUGH_HEADER, HeaderValue::from_static(reason));
        }
        Ok(response)
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<Authorization, Status> {
        let values = headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
        self.services.authenticator.authenticate(values).map_err(error::of_denied)
    }

    /// Reads and decompresses a call's message. The lease covers headers and message.
    async fn read(&self, request: Request<Incoming>, max: usize) -> Result<(Parts, Bytes, Lease), Status> {
        let (mut head, body) = request.into_parts();
        let encoding = Encoding::of_request(&head.headers)?;
        let mut lease = self.services.lookups.resources().memory.lease();
        let headers = head.headers.iter().map(|(name, value)| HEADER_BYTES + name.as_str().len() + value.len());
        lease.grow(headers.sum()).map_err(error::of_memory)?;
        let read = tokio::time::timeout(self.limits.body_timeout, read(body, max, &mut lease));
        let message = read.await.map_err(|_| Status::deadline_exceeded("the message took too long to arrive"))??;
        let (message, lease) = match (message.first(), encoding) {
            (Some(1), Some(encoding)) => {
                // tonic decompresses without these limits, so it gets uncompressed messages.
                head.headers.remove(ENCODING);
                let is_short = message.len() <= THREAD_COMPRESSED_BYTES_MAX;
                let decompress = move || {
                    let compressed = message.get(PREFIX_BYTES..).unwrap_or_default();
                    let decompressed = encoding.decompress(compressed, max, &mut lease)?;
                    lease.grow(decompressed.len()).map_err(error::of_memory)?;
                    Ok((Bytes::from(plain(&decompressed)), lease))
                };
                if is_short {
                    decompress()?
                } else {
                    let decompress = move || decompress().map_err(LookupError::Protocol);
                    let compute = &self.services.lookups.resources().compute;
                    offload(compute, Owner::COMMON, decompress).await.map_err(error::of_lookup)?
                }
            }
            _ => (message, lease),
        };
        if message.len() < PREFIX_BYTES {
            return Err(Status::internal("the message is missing"));
        }
        Ok((head, message, lease))
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("services", &self.services).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl<S> Reflects for S
where
    S: Service<Request<Limited<Incoming>>, Response = Response<Body>, Error = std::convert::Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    fn answer(&self, request: Request<Limited<Incoming>>) -> Answering {
        let service = self.clone();
        Box::pin(async move { call(service, request).await })
    }
}

/// Calls a service. The services that tonic generates are always ready, and never fail.
async fn call<S, B>(mut service: S, request: Request<B>) -> Response<Body>
where
    S: Service<Request<B>, Response = Response<Body>, Error = std::convert::Infallible>,
{
    match service.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Limits the total size of a request's messages.
fn limited(request: Request<Incoming>) -> Request<Limited<Incoming>> {
    request.map(|body| Limited::new(body, REFLECTION_BYTES_MAX))
}

/// Reduces a request to its method, path and the headers that the handlers use.
///
/// A connection can have 128 open calls (`STREAMS_MAX`) with hundreds of headers each. Until the message arrives, the
/// headers take about three times the memory that HTTP/2 counts for them. The kept values are copied, because a slice
/// of a frame keeps the whole frame in memory.
pub(super) fn reduced<B>(request: Request<B>) -> Request<B> {
    const KEPT: [&str; 4] = ["authorization", "content-type", ENCODING, ACCEPT_ENCODING];
    /// The maximum number of values kept for one header. Two suffice to detect duplicates.
    const EACH_MAX: usize = 2;
    /// The maximum length of a value that is kept. A longer value is truncated, because no token is that long.
    const VALUE_BYTES_MAX: usize = 8 << 10;
    let (head, body) = request.into_parts();
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.version_mut() = head.version;
    // A path without a leading slash is invalid and matches no method.
    *request.uri_mut() = head.uri.path().parse().unwrap_or_default();
    let headers = request.headers_mut();
    for name in KEPT {
        for value in head.headers.get_all(name).iter().take(EACH_MAX) {
            let bytes = value.as_bytes();
            if let Ok(value) = HeaderValue::from_bytes(&bytes[..bytes.len().min(VALUE_BYTES_MAX)]) {
                headers.append(HeaderName::from_static(name), value);
            }
        }
    }
    request
}

/// Returns the code of an error response; `None` for any other response. A stream that has begun sends its code at its
/// end, so its response is never an error response.
fn failure(headers: &HeaderMap) -> Option<Code> {
    let code = headers.get(Status::GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()));
    code.filter(|code| *code != Code::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reduced_request_keeps_only_used_headers() {
        let mut request = Request::new("body");
        *request.uri_mut() = "http://host:1/feast.serving.ServingService/GetOnlineFeatures?x=1".parse().unwrap();
        for n in 0..400 {
            let name: HeaderName = format!("x-{n}").parse().unwrap();
            request.headers_mut().append(name, HeaderValue::from_static("v"));
        }
        for _ in 0..5 {
            request.headers_mut().append("authorization", HeaderValue::from_static("Bearer t"));
        }
        request.headers_mut().append(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        request.headers_mut().append(ENCODING, HeaderValue::from_static("gzip"));
        let kept = reduced(request);
        assert_eq!(kept.uri().path(), "/feast.serving.ServingService/GetOnlineFeatures");
        assert_eq!((kept.headers().len(), *kept.body()), (4, "body"));
        assert_eq!(kept.headers().get_all("authorization").iter().count(), 2, "two are kept to reject duplicates");
        assert_eq!(kept.headers()[CONTENT_TYPE], "application/grpc");
        assert_eq!(kept.headers()[ENCODING], "gzip");
    }
}
